#include "daemon/base/small_file.h"

#include <fcntl.h>
#include <unistd.h>

size_t small_file_read(const char *path, int flags, char *text, size_t size)
{
    ssize_t length = 0;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | flags);

    if (descriptor >= 0) {
        length = read(descriptor, text, size - 1);
        close(descriptor);
    }
    if (length < 0)
        length = 0;
    text[length] = '\0';
    return (size_t)length;
}
