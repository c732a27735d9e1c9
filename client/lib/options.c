#include "client/lib/options.h"

#include <string.h>

#define LARGEST_SIZE 4096u /* more is no size but a struct that was not initialised */

const char *options_copy(void *own, size_t own_size, const void *options)
{
    size_t size;

    memset(own, 0, own_size);
    if (options == NULL)
        return NULL;
    memcpy(&size, options, sizeof(size));
    if (size < sizeof(size) || size > LARGEST_SIZE)
        return "the options have no valid size: initialise them with their macro, such as KVS_PUT_OPTIONS()";
    memcpy(own, options, size < own_size ? size : own_size);
    for (size_t i = own_size; i < size; i++) {
        if (((const char *)options)[i] != 0) {
            memset(own, 0, own_size);
            return "the options ask for something that this version of libkvstore does not know";
        }
    }
    return NULL;
}
