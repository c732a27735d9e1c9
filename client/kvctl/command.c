#include "client/kvctl/command.h"

#include "client/kvctl/kvctl.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const int passed_signals[] = {SIGINT, SIGTERM, SIGHUP};

/* Return the environment and the variables. The array must be freed, its texts are borrowed. NULL: out of memory. */
static char **command_environment(const char *const *variables)
{
    size_t own = 0, added = 0, count = 0;

    while (environ[own] != NULL)
        own++;
    while (variables[added] != NULL)
        added++;
    char **all = calloc(own + added + 1, sizeof(char *));
    if (all == NULL)
        return NULL;
    for (size_t i = 0; i < own; i++) {
        bool is_replaced = false;
        for (size_t k = 0; k < added && !is_replaced; k++)
            is_replaced = strncmp(environ[i], variables[k], strcspn(variables[k], "=") + 1) == 0;
        if (!is_replaced)
            all[count++] = environ[i];
    }
    for (size_t i = 0; i < added; i++)
        all[count++] = (char *)variables[i];
    return all;
}

/* Start the command with the signals as they were when kvctl was started. Return an errno. */
static int command_spawn(const struct command *command, char **environment, const sigset_t *mask, pid_t *child)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t defaults;

    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    signals_add(&defaults, passed_signals, sizeof(passed_signals) / sizeof(passed_signals[0]));
    int error = posix_spawnattr_init(&attributes);
    if (error != 0)
        return error;
    error = posix_spawn_file_actions_init(&actions);
    if (error == 0) {
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        posix_spawnattr_setsigmask(&attributes, mask);
        posix_spawnattr_setsigdefault(&attributes, &defaults);
        error = posix_spawn_file_actions_adddup2(&actions, command->input, STDIN_FILENO);
        if (error == 0)
            error = posix_spawnp(child, command->words[0], &actions, &attributes, command->words, environment);
        posix_spawn_file_actions_destroy(&actions);
    }
    posix_spawnattr_destroy(&attributes);
    return error;
}

/* Wait for the child, and pass signals on. A signal of the terminal's keys goes to the whole process group. */
static int command_wait(pid_t child, const sigset_t *awaited, bool *is_interrupted)
{
    siginfo_t info;
    int status;

    while (waitpid(child, &status, WNOHANG) == 0) {
        int number = sigwaitinfo(awaited, &info);
        if (number < 0 || number == SIGCHLD)
            continue;
        *is_interrupted = true;
        if (info.si_code != SI_KERNEL)
            kill(child, number);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : COMMAND_SIGNAL + WTERMSIG(status);
}

int command_run(const struct command *command, bool *is_interrupted)
{
    char **environment = command_environment(command->variables);
    struct sigaction standard = {.sa_handler = SIG_DFL}, child_action;
    sigset_t awaited, mask, child_mask;
    pid_t child;

    if (environment == NULL) {
        report("out of memory");
        return -COMMAND_NOT_EXECUTABLE;
    }
    sigemptyset(&awaited);
    sigaddset(&awaited, SIGCHLD);
    signals_add(&awaited, passed_signals, sizeof(passed_signals) / sizeof(passed_signals[0]));
    sigprocmask(SIG_BLOCK, &awaited, &mask);
    sigaction(SIGCHLD, &standard, &child_action); /* if it is ignored, the child's status is lost */
    child_mask = mask;
    for (size_t i = 0; i < sizeof(passed_signals) / sizeof(passed_signals[0]); i++)
        sigdelset(&child_mask, passed_signals[i]);
    int error = command_spawn(command, environment, &child_mask, &child);
    int status = error == 0        ? command_wait(child, &awaited, is_interrupted)
                 : error == ENOENT ? -COMMAND_NOT_FOUND
                                   : -COMMAND_NOT_EXECUTABLE;
    sigaction(SIGCHLD, &child_action, NULL);
    sigprocmask(SIG_SETMASK, &mask, NULL);
    free(environment);
    if (error != 0)
        report("cannot run %.200s: %s", command->words[0], strerror(error));
    return status;
}
