#include "client/lib/method.h"

#include "proto/methods.h"

#include <string.h>

bool method_only_reads(const char *method)
{
#define METHOD_ROW(family, verb, fewest, most, flags, options) {#family "." #verb, flags},
    static const struct {
        const char *name;
        unsigned flags;
    } methods[] = {METHODS(METHOD_ROW)};

    for (size_t i = 0; i < METHOD_COUNT; i++) {
        if (strcmp(method, methods[i].name) == 0)
            return (methods[i].flags & METHOD_ONLY_READS) != 0;
    }
    return false;
}
