#include "tests/support/command.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Read until the program has closed its output. */
static void read_output(int end, char output[COMMAND_OUTPUT_BYTES])
{
    char rest[COMMAND_OUTPUT_BYTES];
    size_t size = 0;
    ssize_t more;

    do {
        size_t room = COMMAND_OUTPUT_BYTES - 1 - size;
        more = room > 0 ? read(end, output + size, room) : read(end, rest, sizeof(rest));
        size += more > 0 && room > 0 ? (size_t)more : 0;
    } while (more > 0 || (more < 0 && errno == EINTR));
    output[size] = '\0';
}

int command_run(const char *const *arguments, char output[COMMAND_OUTPUT_BYTES])
{
    posix_spawn_file_actions_t files;
    int ends[2], status = -1;
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC) != 0)
        abort();
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&files, ends[1], STDERR_FILENO);
    int failure = posix_spawn(&pid, arguments[0], &files, NULL, (char *const *)arguments, environ);
    posix_spawn_file_actions_destroy(&files);
    close(ends[1]);
    read_output(ends[0], output);
    close(ends[0]);
    if (failure != 0)
        return -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
