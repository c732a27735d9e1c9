#include "daemon/embedded/leftover.h"

#include "daemon/base/log.h"
#include "daemon/base/small_file.h"
#include "daemon/embedded/config.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How long a killed server may take to end. */
#define KILL_TIMEOUT_MS 5000

/* Return the pid in the server's pid file; 0: there is none. */
static pid_t read_pid(const struct embedded_directory *directory)
{
    char path[PATH_MAX], text[16];

    embedded_directory_path(directory, "nats-server.pid", path);
    small_file_read(path, O_NOFOLLOW | O_NONBLOCK, text, sizeof(text));
    return atoi(text);
}

/* Return whether the process is a server that was started with this directory's configuration. */
static bool is_server_of(const struct embedded_directory *directory, pid_t pid)
{
    char path[64], command[8192], configuration[PATH_MAX];
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
    embedded_directory_path(directory, EMBEDDED_CONFIG_FILE, configuration);
    size_t length = small_file_read(path, 0, command, sizeof(command));
    for (size_t at = 0; at < length && !found; at += strlen(command + at) + 1)
        found = strcmp(command + at, configuration) == 0;
    return found;
}

bool embedded_leftover_kill(const struct embedded_directory *directory, char error[EMBEDDED_ERROR_BYTES])
{
    pid_t pid = read_pid(directory);

    if (pid <= 1)
        return true;
    /* The descriptor stays with the process, even if its pid is reused. */
    int descriptor = (int)syscall(SYS_pidfd_open, pid, 0);
    if (descriptor < 0)
        return true;
    bool has_ended = true;
    if (is_server_of(directory, pid)) {
        struct pollfd end = {.fd = descriptor, .events = POLLIN};
        log_warning("nats-server: killing pid %d, which an earlier daemon left", (int)pid);
        syscall(SYS_pidfd_send_signal, descriptor, SIGKILL, NULL, 0);
        has_ended = poll(&end, 1, KILL_TIMEOUT_MS) == 1;
        if (!has_ended)
            snprintf(error, EMBEDDED_ERROR_BYTES,
                     "nats-server pid %d still runs on %s %d s after it was killed; end it, then start kvstored again",
                     (int)pid, directory->path, KILL_TIMEOUT_MS / 1000);
    }
    close(descriptor);
    return has_ended;
}
