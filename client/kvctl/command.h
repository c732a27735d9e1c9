/*
 * command: runs a command of the user as a child, and waits for it.
 *
 * Used by watch. lock_command uses its exit statuses.
 */
#ifndef KVCTL_COMMAND_H
#define KVCTL_COMMAND_H

#include <stdbool.h>

/* What a shell returns for a command that cannot be executed, that is not found, or that signal number 0 has ended. */
#define COMMAND_NOT_EXECUTABLE 126
#define COMMAND_NOT_FOUND      127
#define COMMAND_SIGNAL         128

struct command {
    char **words;                 /* the last is NULL */
    const char *const *variables; /* NAME=VALUE, added to the environment; the last is NULL */
    int input;                    /* descriptor of its standard input */
};

/*
 * Run a command, and return its exit status, or COMMAND_SIGNAL and the number of the signal that has ended it. If it
 * cannot be started, report why, and return what a shell does, as a negative number. SIGINT, SIGTERM and SIGHUP that
 * come meanwhile are passed on, unless the terminal has sent them to the command as well; then *is_interrupted is set.
 * A signal that kvctl ignores, as after nohup, the command ignores too.
 */
int command_run(const struct command *command, bool *is_interrupted);

#endif
