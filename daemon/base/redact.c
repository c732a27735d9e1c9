#include "daemon/base/redact.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static bool begins_path(const char *at, char before)
{
    return at[0] == '/' && at[1] != '/' && strchr(" \"'(=:", before) != NULL;
}

void redact_paths(char *copy, size_t bytes, const char *text)
{
    size_t length = 0;

    for (char before = ' '; *text != '\0' && length + 1 < bytes; before = *text++) {
        if (begins_path(text, before)) {
            length += (size_t)snprintf(copy + length, bytes - length, "(path)");
            if (length >= bytes)
                length = bytes - 1;
            text += strcspn(text, " \"':,;)");
            if (*text == '\0')
                break;
        }
        if (length + 1 < bytes)
            copy[length++] = *text;
    }
    copy[length] = '\0';
}
