#include "tests/support/process.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RUNS_DIRECTORY "build/tests"

/* Held while directories of runs are made and removed. */
#define ALL_RUNS_LOCK RUNS_DIRECTORY "/lock"

static struct {
    char daemon[PATH_MAX];
    char nats_server[PATH_MAX];
    char directory[64]; /* of this run, relative to the root of the tree */
    const char *name;
} test_run;

/* --- The run --------------------------------------------------------------------------------------- */

/* Before the first test Check's assertions do not work. */
static void __attribute__((noreturn)) give_up(const char *path)
{
    fprintf(stderr, "%s: %s: %s\n", test_run.name, path, strerror(errno));
    exit(EXIT_FAILURE);
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status;
    (void)type;
    (void)where;
    remove(path);
    return 0;
}

static void remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* The file is locked as long as this program, or a test that it has started, runs. -1: another one holds it. */
static int lock_file(const char *path, int how)
{
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (file < 0)
        give_up(path);
    if (flock(file, how) == 0)
        return file;
    close(file);
    return -1;
}

/* Removes what earlier runs of this program have left, but not the directories of those that still run. */
static void remove_ended_runs(const char *prefix)
{
    DIR *runs = opendir(RUNS_DIRECTORY);
    struct dirent *run;
    char path[PATH_MAX], lock_path[PATH_MAX];

    while (runs != NULL && (run = readdir(runs)) != NULL) {
        if (strncmp(run->d_name, prefix, strlen(prefix)) != 0)
            continue;
        snprintf(path, sizeof(path), RUNS_DIRECTORY "/%.255s", run->d_name);
        snprintf(lock_path, sizeof(lock_path), RUNS_DIRECTORY "/%.255s/lock", run->d_name);
        int lock = lock_file(lock_path, LOCK_EX | LOCK_NB);
        if (lock < 0)
            continue;
        remove_tree(path);
        close(lock);
    }
    if (runs != NULL)
        closedir(runs);
}

/*
 * build/tests/PROGRAM.NUMBER. The path is short and relative, as all programs run at the root of the tree: a socket's
 * path has 107 bytes, and nobody knows how long that of the tree is.
 */
static void make_run_directory(const char *program)
{
    char prefix[32], lock_path[sizeof(test_run.directory) + 8];
    const char *build = "build/";

    if (strncmp(program, build, strlen(build)) == 0)
        program += strlen(build);
    snprintf(prefix, sizeof(prefix), "%.30s.", program);
    for (char *c = prefix; *c != '\0'; c++) {
        if (*c == '/')
            *c = '-';
    }
    if (mkdir(RUNS_DIRECTORY, 0777) != 0 && errno != EEXIST)
        give_up(RUNS_DIRECTORY);
    int all_runs = lock_file(ALL_RUNS_LOCK, LOCK_EX);
    remove_ended_runs(prefix);
    for (unsigned number = 1;; number++) {
        snprintf(test_run.directory, sizeof(test_run.directory), RUNS_DIRECTORY "/%s%u", prefix, number);
        if (mkdir(test_run.directory, 0777) == 0)
            break;
        if (errno != EEXIST)
            give_up(test_run.directory);
    }
    snprintf(lock_path, sizeof(lock_path), "%s/lock", test_run.directory);
    lock_file(lock_path, LOCK_EX);
    close(all_runs);
}

void test_run_begin(const char *self, const char *name)
{
    char absolute[PATH_MAX], root[PATH_MAX];

    test_run.name = name;
    if (realpath(self, absolute) == NULL || realpath(".", root) == NULL)
        give_up(self);
    size_t root_length = strlen(root);
    if (strncmp(absolute, root, root_length) != 0 || absolute[root_length] != '/' ||
        access("tests/support/process.h", F_OK) != 0) {
        fprintf(stderr, "%s: it must be run at the root of the tree that it was built in\n", name);
        exit(EXIT_FAILURE);
    }
    make_run_directory(absolute + root_length + 1);
    *strrchr(absolute, '/') = '\0';
    snprintf(test_run.daemon, sizeof(test_run.daemon), "%.*s/kvstored", PATH_MAX - 16, absolute);

    FILE *server = fopen("build/nats-server.path", "re");
    if (server != NULL && fgets(test_run.nats_server, sizeof(test_run.nats_server), server) != NULL)
        test_run.nats_server[strcspn(test_run.nats_server, "\n")] = '\0';
    if (server != NULL)
        fclose(server);
    if (access(test_run.daemon, X_OK) != 0 || access(test_run.nats_server, X_OK) != 0) {
        fprintf(stderr, "%s: %s and the nats-server of build/nats-server.path must be there: make check\n", name,
                test_run.daemon);
        exit(EXIT_FAILURE);
    }
}

void test_run_end(bool keep_directory)
{
    if (keep_directory) {
        printf("%s: logs and data of this run are in %s until the next run\n", test_run.name, test_run.directory);
        return;
    }
    int all_runs = lock_file(ALL_RUNS_LOCK, LOCK_EX); /* another run must not find half of it */
    remove_tree(test_run.directory);
    close(all_runs);
}

void test_run_skip(const char *what, const char *why)
{
    printf("SKIPPED: %s: %s\n", what, why);
    fflush(stdout);
}

const char *test_run_kvstored(void)
{
    return test_run.daemon;
}

const char *test_run_nats_server(void)
{
    return test_run.nats_server;
}

void test_run_make_directory(char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%s/XXXXXX", test_run.directory);
    ck_assert_ptr_nonnull(mkdtemp(path));
}

/*
 * The port is reserved by a bound socket that does not listen and stays open until this process ends. Without
 * SO_REUSEADDR the kernel gives the port to nobody else: neither to another test, nor to a program of another checkout,
 * nor to an outgoing connection. With it, set afterwards, it lets one more socket that has it bind and listen, as
 * nats-server's does, again and again.
 */
unsigned port_reserve(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int reserved = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_ge(reserved, 0);
    ck_assert_int_eq(bind(reserved, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(getsockname(reserved, (struct sockaddr *)&address, &length), 0);
    ck_assert_int_eq(setsockopt(reserved, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)), 0);
    return ntohs(address.sin_port);
}

int port_dial(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(made, (struct sockaddr *)&address, sizeof(address)) == 0)
        return made;
    close(made);
    return -1;
}

int port_listen(unsigned *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, size), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    ck_assert_int_eq(listen(listener, 64), 0);
    *port = ntohs(address.sin_port);
    return listener;
}

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t now_ms(void)
{
    return now_ns() / 1000000u;
}

void pause_shortly(void)
{
    usleep(1000);
}

/* --- Memory and files ------------------------------------------------------------------------------ */

/* Linked, so that nothing of it counts as leaked: the process ends with the test. */
struct kept {
    struct kept *next;
    void *block;
};
static struct kept *all_kept;
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;

void *keep(void *block)
{
    struct kept *kept = malloc(sizeof(*kept));

    ck_assert_ptr_nonnull(block);
    ck_assert_ptr_nonnull(kept);
    pthread_mutex_lock(&kept_lock);
    *kept = (struct kept){all_kept, block};
    all_kept = kept;
    pthread_mutex_unlock(&kept_lock);
    return block;
}

char *format_text(const char *format, ...)
{
    char *text = NULL;
    va_list args;

    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    ck_assert_int_ge(length, 0);
    return keep(text);
}

void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");

    ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
    fputs(text, file);
    ck_assert_int_eq(fclose(file), 0);
}

void write_program(const char *path, const char *text)
{
    write_file(path, text);
    ck_assert_int_eq(chmod(path, 0755), 0);
}

char *read_file(const char *path)
{
    FILE *file = fopen(path, "re"), *text;
    char block[4096], *whole = NULL;
    size_t size = 0, length;

    text = open_memstream(&whole, &size);
    while (file != NULL && (length = fread(block, 1, sizeof(block), file)) > 0)
        fwrite(block, 1, length, text);
    if (file != NULL)
        fclose(file);
    fclose(text);
    return keep(whole);
}

/* --- Processes ------------------------------------------------------------------------------------- */

static void become(const struct process *process, char *const *arguments, char *const *extra, int fd_3, pid_t parent)
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
        become(process, arguments, extra, fd_3, parent);
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

/* The letter of a process's or thread's state in its /proc/…/stat; 'X' where it is not there. */
static char state_in(const char *path)
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
    char state = state_in(format_text("/proc/%d/stat", (int)pid));

    return state != 'X' && state != 'Z'; /* a zombie has ended */
}

static bool has_running_thread(pid_t pid)
{
    DIR *threads = opendir(format_text("/proc/%d/task", (int)pid));
    struct dirent *thread;
    bool runs = false;

    ck_assert_ptr_nonnull(threads);
    while ((thread = readdir(threads)) != NULL) {
        if (thread->d_name[0] != '.' && state_in(format_text("/proc/%d/task/%s/stat", (int)pid, thread->d_name)) != 'T')
            runs = true;
    }
    closedir(threads);
    return runs;
}

void pid_stand_still(pid_t pid)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    ck_assert_int_eq(kill(pid, SIGSTOP), 0);
    while (has_running_thread(pid)) {
        ck_assert_msg(now_ms() < end, "pid %d does not stop", (int)pid);
        pause_shortly();
    }
}

void pid_go_on(pid_t pid)
{
    ck_assert_int_eq(kill(pid, SIGCONT), 0);
}

static uint64_t status_number(pid_t pid, const char *name)
{
    const char *text = read_file(format_text("/proc/%d/status", (int)pid));
    const char *line = strstr(text, name);

    ck_assert_ptr_nonnull(line);
    return strtoull(line + strlen(name), NULL, 10);
}

uint64_t resident_kb(pid_t pid)
{
    return status_number(pid, "VmRSS:");
}

uint64_t peak_resident_kb(pid_t pid)
{
    return status_number(pid, "VmHWM:");
}
