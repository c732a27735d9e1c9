#include "daemon/base/process_name.h"

#include "daemon/base/small_file.h"

#include <stdio.h>

void process_name_read(pid_t pid, char name[PROCESS_NAME_BYTES])
{
    char path[32];

    name[0] = '\0';
    /* 0: the peer is in another PID namespace, so that it has no number here. */
    if (pid <= 0)
        return;
    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    size_t length = small_file_read(path, 0, name, PROCESS_NAME_BYTES);
    if (length > 0 && name[length - 1] == '\n')
        name[length - 1] = '\0';
    for (char *c = name; *c != '\0'; c++) {
        if (*c < 0x20 || *c >= 0x7f)
            *c = '?';
    }
}
