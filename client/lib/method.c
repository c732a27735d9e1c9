#include "client/lib/method.h"

#include "proto/methods.h"

#include <string.h>

struct method_row {
    const char *name;
    unsigned flags;
    const char *options;
};

static const struct method_row *method_find(const char *method)
{
#define METHOD_ROW(family, verb, fewest, most, flags, options) {#family "." #verb, flags, options},
    static const struct method_row methods[] = {METHODS(METHOD_ROW)};

    for (size_t i = 0; i < METHOD_COUNT; i++) {
        if (strcmp(method, methods[i].name) == 0)
            return &methods[i];
    }
    return NULL;
}

bool method_only_reads(const char *method)
{
    const struct method_row *row = method_find(method);

    return row != NULL && (row->flags & METHOD_ONLY_READS) != 0;
}

bool method_takes_id(const char *method)
{
    const struct method_row *row = method_find(method);

    return row != NULL && strstr(row->options, "first_sent") != NULL;
}

bool method_is_of_session(const char *method)
{
    return strncmp(method, "watch.", strlen("watch.")) == 0 || strncmp(method, "lock.", strlen("lock.")) == 0 ||
           strncmp(method, "session.", strlen("session.")) == 0;
}
