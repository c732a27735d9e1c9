#include "daemon/base/process_name.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

void process_name_read(pid_t pid, char name[PROCESS_NAME_BYTES])
{
    char path[32];

    name[0] = '\0';
    /* 0: the peer is in another PID namespace, so that it has no number here. */
    if (pid <= 0)
        return;
    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return;
    ssize_t length = read(descriptor, name, PROCESS_NAME_BYTES);
    close(descriptor);
    if (length < 0)
        length = 0;
    if (length > 0 && name[length - 1] == '\n')
        length--;
    if (length == PROCESS_NAME_BYTES)
        length--;
    name[length] = '\0';
    for (char *c = name; *c != '\0'; c++) {
        if (*c < 0x20 || *c >= 0x7f)
            *c = '?';
    }
}
