#include "daemon/base/lock_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COMMAND_BYTES 32u

/* The whole file, for writing: such a lock is POSIX's, which names its holder on any file system (fcntl(2)). */
static struct flock whole_file(void)
{
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET};
}

/* Find the process that holds the lock; 0: unknown, because it runs in another PID namespace. */
static pid_t find_holder(int descriptor)
{
    struct flock lock = whole_file();

    return fcntl(descriptor, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK && lock.l_pid > 0 ? lock.l_pid : 0;
}

/* Read the name of a process's program; "" if it cannot be read. */
static void read_command(pid_t pid, char command[COMMAND_BYTES])
{
    char path[64];

    command[0] = '\0';
    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return;
    if (fgets(command, COMMAND_BYTES, file) == NULL)
        command[0] = '\0';
    command[strcspn(command, "\n")] = '\0';
    fclose(file);
}

/* Say who holds the lock, and no more than is known. The pid in the file may be that of an earlier holder. */
static void describe_holder(int descriptor, const char *path, const char *what, char *error, size_t error_bytes)
{
    char command[COMMAND_BYTES], written[16] = "";
    pid_t holder = find_holder(descriptor);

    if (holder > 0) {
        read_command(holder, command);
        snprintf(error, error_bytes, "%s is in use: %s is locked by pid %d%s%s%s; end that process, or choose another",
                 what, path, (int)holder, command[0] != '\0' ? " (" : "", command, command[0] != '\0' ? ")" : "");
        return;
    }
    ssize_t length = pread(descriptor, written, sizeof(written) - 1, 0);
    written[length > 0 ? length : 0] = '\0';
    int last = atoi(written);
    if (last > 0)
        snprintf(error, error_bytes,
                 "%s is in use: %s is locked by a process that cannot be identified (the last kvstored to hold it was "
                 "pid %d); end that process, or choose another",
                 what, path, last);
    else
        snprintf(error, error_bytes,
                 "%s is in use: %s is locked by a process that cannot be identified; end that process, or choose "
                 "another",
                 what, path);
}

/* Whether truncating the file can harm no other file. */
static bool is_harmless(int descriptor, const char *path, char *error, size_t error_bytes)
{
    struct stat status;

    if (fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode) && status.st_nlink <= 1)
        return true;
    snprintf(error, error_bytes, "%s is not a plain file with one name, as a lock file must be; remove it", path);
    return false;
}

int lock_file_take(const char *path, const char *what, char *error, size_t error_bytes)
{
    int descriptor = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);

    if (descriptor < 0 && errno == ELOOP) {
        snprintf(error, error_bytes, "%s is a symbolic link, which a lock file must not be; remove it", path);
        return -1;
    }
    if (descriptor < 0) {
        snprintf(error, error_bytes, "cannot open %s: %s", path, strerror(errno));
        return -1;
    }
    if (!is_harmless(descriptor, path, error, error_bytes))
        goto fail;
    struct flock lock = whole_file();
    if (fcntl(descriptor, F_SETLK, &lock) != 0) {
        if (errno == EACCES || errno == EAGAIN)
            describe_holder(descriptor, path, what, error, error_bytes);
        else
            snprintf(error, error_bytes, "cannot lock %s: %s", path, strerror(errno));
        goto fail;
    }
    if (ftruncate(descriptor, 0) != 0 || dprintf(descriptor, "%d\n", (int)getpid()) < 0) {
        snprintf(error, error_bytes, "cannot write %s: %s", path, strerror(errno));
        goto fail;
    }
    return descriptor;

fail:
    close(descriptor);
    return -1;
}
