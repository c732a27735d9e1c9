#include "client/kvctl/lock_command.h"

#include "client/kvctl/command.h"
#include "client/kvctl/kvctl.h"
#include "client/lib/kvstore_async.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

/* Time from SIGTERM to SIGKILL, unless the lock's time is over before that. */
#define GRACE_MS 10000

/* The same if another client may have the lock already. */
#define LATE_GRACE_MS 1000

static const int passed_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};

/* --- Starting -------------------------------------------------------------------------------------- */

static bool lock_command_block_signals(struct lock_command *command, sigset_t *before)
{
    sigset_t blocked;

    sigemptyset(&blocked);
    signals_add(&blocked, passed_signals, sizeof(passed_signals) / sizeof(*passed_signals));
    sigaddset(&blocked, SIGCHLD);
    command->signals = signalfd(-1, &blocked, SFD_CLOEXEC | SFD_NONBLOCK);
    if (command->signals < 0)
        return report("cannot wait for signals: %s", strerror(errno)) == STATUS_OK;
    signal(SIGCHLD, SIG_DFL);     /* ignored, it would hide the end of the command */
    sigaddset(&blocked, SIGTTOU); /* of tcsetpgrp in the background */
    sigprocmask(SIG_BLOCK, &blocked, before);
    return true;
}

/* The terminal is the command's if it is kvctl's now. */
static void lock_command_find_terminal(struct lock_command *command)
{
    command->terminal = open("/dev/tty", O_RDWR | O_CLOEXEC);
    if (command->terminal >= 0 && tcgetpgrp(command->terminal) != getpgrp()) {
        close(command->terminal);
        command->terminal = -1;
    }
}

static void lock_command_give_terminal(const struct lock_command *command, pid_t group)
{
    if (command->terminal >= 0)
        tcsetpgrp(command->terminal, group);
}

/* In the new process. */
static void lock_command_execute(const struct lock_command *command, pid_t parent, const sigset_t *mask)
{
    char token[24];

    setpgid(0, 0);
    lock_command_give_terminal(command, getpid());
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(COMMAND_NOT_EXECUTABLE);
    snprintf(token, sizeof(token), "%" PRIu64, kvs_lock_token(command->lock));
    setenv("KVSTORED_LOCK_BUCKET", command->bucket, 1);
    setenv("KVSTORED_LOCK_NAME", command->name, 1);
    setenv("KVSTORED_LOCK_TOKEN", token, 1);
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(command->arguments[0], command->arguments);
    int reason = errno;
    report("cannot run %.200s: %s", command->arguments[0], strerror(reason));
    fflush(NULL);
    _exit(reason == ENOENT ? COMMAND_NOT_FOUND : COMMAND_NOT_EXECUTABLE);
}

static bool lock_command_start(struct lock_command *command, const sigset_t *mask)
{
    pid_t parent = getpid();

    fflush(NULL);
    command->pid = fork();
    if (command->pid < 0)
        return report("cannot start a process: %s", strerror(errno)) == STATUS_OK;
    if (command->pid == 0)
        lock_command_execute(command, parent, mask);
    setpgid(command->pid, command->pid); /* whoever is first */
    command->state = LOCK_COMMAND_RUNS;
    return true;
}

/* --- Ending ---------------------------------------------------------------------------------------- */

static void lock_command_end(struct lock_command *command, int64_t kill_ms)
{
    int64_t latest_ms = clock_monotonic_ms() + GRACE_MS;

    command->state = LOCK_COMMAND_ENDING;
    command->was_ended = true;
    command->kill_ms = kill_ms < latest_ms ? kill_ms : latest_ms;
    kill(-command->pid, SIGTERM);
    kill(-command->pid, SIGCONT); /* a stopped process does not end */
}

/* Note for how long the lock is held. End the command, if it runs and the lock is lost, or if nobody will know in time
 * whether it is. */
static void lock_command_check_lock(struct lock_command *command)
{
    double valid_s = kvs_lock_valid_for(command->lock);
    int64_t now_ms = clock_monotonic_ms();
    enum kvs_code code = kvs_lock_error(command->lock)->code;

    if (valid_s > command->longest_valid_s)
        command->longest_valid_s = valid_s;
    if (valid_s > 0)
        command->vouched_until_ms = now_ms + (int64_t)(valid_s * 1000);
    if (command->state != LOCK_COMMAND_RUNS || valid_s > command->longest_valid_s / 4)
        return;
    /* After unavailable nobody else can have it yet. */
    bool is_time_left = (valid_s > 0 || code == KVS_UNAVAILABLE) && command->vouched_until_ms > now_ms;
    lock_command_end(command, is_time_left ? command->vouched_until_ms : now_ms + LATE_GRACE_MS);
}

/* The command was stopped from its terminal: stop, too, until the shell continues kvctl. */
static void lock_command_stop(const struct lock_command *command)
{
    if (command->terminal < 0)
        return;
    lock_command_give_terminal(command, getpgrp());
    kill(getpid(), SIGSTOP);
    lock_command_give_terminal(command, command->pid);
    kill(-command->pid, SIGCONT);
}

/* Note the end of the command. What is left of its group ends, too, if the lock is lost. */
static void lock_command_wait(struct lock_command *command)
{
    siginfo_t info = {.si_pid = 0};
    int status;

    if (waitid(P_PID, (id_t)command->pid, &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0)
        return;
    bool is_ended = info.si_code == CLD_EXITED || info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED;
    if (is_ended && command->was_ended)
        kill(-command->pid, SIGKILL);
    if (waitpid(command->pid, &status, WNOHANG | WUNTRACED) != command->pid)
        return;
    if (!is_ended) {
        lock_command_stop(command);
        return;
    }
    command->status = status;
    command->state = LOCK_COMMAND_ENDED;
}

/* --- The loop -------------------------------------------------------------------------------------- */

static void lock_command_take_signals(struct lock_command *command)
{
    struct signalfd_siginfo info;

    while (read(command->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo != SIGCHLD)
            kill(-command->pid, (int)info.ssi_signo);
    }
    lock_command_wait(command);
}

/* Return for how long nothing has to be done, in ms; -1: until something happens. */
static int lock_command_timeout_ms(const struct lock_command *command)
{
    int timeout_ms = kvs_timeout_ms(command->kvs);
    int64_t due_ms = command->state == LOCK_COMMAND_RUNS
                         ? command->vouched_until_ms - (int64_t)(command->longest_valid_s * 250)
                     : command->state == LOCK_COMMAND_ENDING ? command->kill_ms
                                                             : INT64_MAX;

    if (due_ms == INT64_MAX)
        return timeout_ms;
    int64_t left_ms = due_ms - clock_monotonic_ms() + 1;
    if (left_ms < 0)
        left_ms = 0;
    return timeout_ms < 0 || left_ms < timeout_ms ? (int)left_ms : timeout_ms;
}

static void lock_command_turn(struct lock_command *command)
{
    struct pollfd waited[] = {{.fd = kvs_fd(command->kvs), .events = kvs_events(command->kvs)},
                              {.fd = command->signals, .events = POLLIN}};

    poll(waited, 2, lock_command_timeout_ms(command));
    lock_command_take_signals(command);
    kvs_process(command->kvs);
    lock_command_check_lock(command);
    if (command->state == LOCK_COMMAND_ENDING && clock_monotonic_ms() >= command->kill_ms) {
        kill(-command->pid, SIGKILL);
        command->state = LOCK_COMMAND_KILLED;
    }
}

int lock_command_run(struct lock_command *command)
{
    sigset_t before;
    int status = -1;

    if (!lock_command_block_signals(command, &before))
        return -1;
    lock_command_find_terminal(command);
    lock_command_check_lock(command);
    if (command->vouched_until_ms == 0) {
        status = LOCK_COMMAND_NOT_STARTED;
    } else if (lock_command_start(command, &before)) {
        while (command->state != LOCK_COMMAND_ENDED)
            lock_command_turn(command);
        status =
            WIFSIGNALED(command->status) ? COMMAND_SIGNAL + WTERMSIG(command->status) : WEXITSTATUS(command->status);
    }
    lock_command_give_terminal(command, getpgrp());
    if (command->terminal >= 0)
        close(command->terminal);
    close(command->signals);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return status;
}
