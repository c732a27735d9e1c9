#include "tests/support/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void process_become(const struct process *process, char *const *arguments, char *const *extra, int fd_3,
                           pid_t parent)
{
    char text[32];
    sigset_t none;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(126);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int log = open(process->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    dup2(nothing, STDIN_FILENO);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    if (fd_3 >= 0) {
        if (fd_3 == 3)
            fcntl(fd_3, F_SETFD, 0);
        else
            dup2(fd_3, 3);
        snprintf(text, sizeof(text), "%d", (int)getpid());
        setenv("LISTEN_FDS", "1", 1);
        setenv("LISTEN_PID", text, 1);
    }
    setenv("LSAN_OPTIONS", "suppressions=tests/support/lsan.suppressions:print_suppressions=0", 0);
    for (; extra != NULL && *extra != NULL; extra++)
        putenv(*extra);
    execvp(arguments[0], arguments);
    _exit(127);
}

void process_start(struct process *process, char *const *arguments)
{
    process_start_with(process, arguments, NULL, -1);
}

void process_start_with(struct process *process, char *const *arguments, char *const *extra, int fd_3)
{
    pid_t parent = getpid();

    ck_assert_int_eq(process->pid, 0);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        process_become(process, arguments, extra, fd_3, parent);
    ck_assert_int_gt(pid, 0);
    process->pid = pid;
}

bool process_has_ended(struct process *process)
{
    if (process->pid != 0 && waitpid(process->pid, &process->status, WNOHANG) == process->pid)
        process->pid = 0;
    return process->pid == 0;
}

void process_wait(struct process *process)
{
    uint64_t end = now_ms() + PATIENCE_MS;
    pid_t pid = process->pid;

    while (!process_has_ended(process)) {
        ck_assert_msg(now_ms() < end, "pid %d does not end; its log:\n%s", (int)pid, read_file(process->log_path));
        pause_shortly();
    }
}

void process_signal(struct process *process, int number)
{
    ck_assert_int_gt(process->pid, 0);
    ck_assert_int_eq(kill(process->pid, number), 0);
}

void process_kill(struct process *process)
{
    if (process_has_ended(process))
        return;
    kill(process->pid, SIGKILL);
    process_wait(process);
}

int run_program(char *const *arguments, char **output)
{
    struct process process = {0};
    char directory[PATH_BYTES];

    test_run_make_directory(directory);
    snprintf(process.log_path, sizeof(process.log_path), "%.200s/output", directory);
    process_start(&process, arguments);
    process_wait(&process);
    *output = read_file(process.log_path);
    ck_assert_msg(WIFEXITED(process.status), "%s was ended by a signal: %s", arguments[0], *output);
    return WEXITSTATUS(process.status);
}

/* Return the letter of a process's or thread's state in its /proc/…/stat; 'X' if there is none. */
static char pid_read_state(const char *path)
{
    char state = 'X';
    const char *text = read_file(path);
    const char *behind_name = strrchr(text, ')');

    if (behind_name != NULL)
        sscanf(behind_name + 1, " %c", &state);
    return state;
}

bool pid_is_alive(pid_t pid)
{
    char state = pid_read_state(format_text("/proc/%d/stat", (int)pid));

    return state != 'X' && state != 'Z'; /* a zombie has ended */
}

static bool pid_has_running_thread(pid_t pid)
{
    DIR *threads = opendir(format_text("/proc/%d/task", (int)pid));
    struct dirent *thread;
    bool runs = false;

    ck_assert_ptr_nonnull(threads);
    while ((thread = readdir(threads)) != NULL) {
        if (thread->d_name[0] != '.' &&
            pid_read_state(format_text("/proc/%d/task/%s/stat", (int)pid, thread->d_name)) != 'T')
            runs = true;
    }
    closedir(threads);
    return runs;
}

void pid_suspend(pid_t pid)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    ck_assert_int_eq(kill(pid, SIGSTOP), 0);
    while (pid_has_running_thread(pid)) {
        ck_assert_msg(now_ms() < end, "pid %d does not stop", (int)pid);
        pause_shortly();
    }
}

void pid_resume(pid_t pid)
{
    ck_assert_int_eq(kill(pid, SIGCONT), 0);
}

/* schedstat's second number: nanoseconds on a run queue (the kernel's Documentation/scheduler/sched-stats). */
static uint64_t pid_thread_run_delay_ns(pid_t pid, const char *thread)
{
    FILE *file = fopen(format_text("/proc/%d/task/%s/schedstat", (int)pid, thread), "re");
    unsigned long long delay_ns = 0;

    if (file == NULL) /* the thread has ended */
        return 0;
    if (fscanf(file, "%*u %llu", &delay_ns) != 1)
        delay_ns = 0;
    fclose(file);
    return delay_ns;
}

uint64_t pid_run_delay_ms(pid_t pid)
{
    DIR *threads = opendir(format_text("/proc/%d/task", (int)pid));
    struct dirent *thread;
    uint64_t delay_ns = 0;

    while (threads != NULL && (thread = readdir(threads)) != NULL) {
        if (thread->d_name[0] != '.')
            delay_ns += pid_thread_run_delay_ns(pid, thread->d_name);
    }
    if (threads != NULL)
        closedir(threads);
    return delay_ns / 1000000;
}

static uint64_t pid_status_number(pid_t pid, const char *name)
{
    const char *text = read_file(format_text("/proc/%d/status", (int)pid));
    const char *line = strstr(text, name);

    ck_assert_ptr_nonnull(line);
    return strtoull(line + strlen(name), NULL, 10);
}

uint64_t resident_kb(pid_t pid)
{
    return pid_status_number(pid, "VmRSS:");
}

uint64_t peak_resident_kb(pid_t pid)
{
    return pid_status_number(pid, "VmHWM:");
}
