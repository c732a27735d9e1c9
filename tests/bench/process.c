#include "tests/bench/bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REVISIONS_MAX (8u * 1024u * 1024u)

/* Shared by all processes of the benchmark: made once, before the first of them. */
struct shared {
    unsigned ready;
    unsigned go;
    uint64_t revision_count;
    struct bench_client clients[BENCH_PROCESSES_MAX];
    uint64_t revisions[REVISIONS_MAX];
};

static struct shared *shared;

_Noreturn void bench_die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    _exit(1);
}

double bench_now_s(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* --- Programs ---------------------------------------------------------------------------------------- */

pid_t bench_spawn(const char *name, char *const argv[])
{
    char log[128];
    pid_t pid = fork();

    if (pid < 0)
        bench_die("cannot fork");
    if (pid > 0)
        return pid;
    snprintf(log, sizeof(log), "%s.log", name);
    int file = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0 || dup2(file, STDERR_FILENO) < 0 || dup2(file, STDOUT_FILENO) < 0)
        _exit(127);
    /* However the benchmark ends, its servers end with it. */
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    execv(argv[0], argv);
    _exit(127);
}

void bench_end(pid_t pid)
{
    if (pid <= 0)
        return;
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
}

/* Return the number after a name at the beginning of a line; -1: there is none. */
static double read_field(const char *path, const char *name)
{
    char line[256];
    double number = -1;

    FILE *file = fopen(path, "r");
    while (file != NULL && number < 0 && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0)
            number = strtod(line + strlen(name), NULL);
    }
    if (file != NULL)
        fclose(file);
    return number;
}

/* In "status" each processor's last pages may be missing, which is more than 200 sessions take. */
static double read_memory(pid_t pid, const char *name)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
    double kb = read_field(path, name);
    if (kb < 0)
        bench_die("a server has ended");
    return kb;
}

double bench_rss_kb(pid_t pid)
{
    return read_memory(pid, "Rss:");
}

double bench_own_memory_kb(pid_t pid)
{
    return read_memory(pid, "Anonymous:") + read_memory(pid, "Swap:");
}

double bench_available_kb(void)
{
    return read_field("/proc/meminfo", "MemAvailable:");
}

/* Return the sum of what take reads from a file of each thread of the process. */
static double sum_of_threads(pid_t pid, const char *file_name, double (*take)(const char *path))
{
    char path[64];
    double sum = 0;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *threads = opendir(path);
    if (threads == NULL)
        bench_die("a server has ended");
    for (struct dirent *entry; (entry = readdir(threads)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "/proc/%d/task/%.16s/%.16s", (int)pid, entry->d_name, file_name);
        double number = take(path);
        sum += number > 0 ? number : 0; /* the thread may have ended */
    }
    closedir(threads);
    return sum;
}

/* schedstat's first number: nanoseconds on a processor (the kernel's Documentation/scheduler/sched-stats). */
static double take_cpu_us(const char *path)
{
    return read_field(path, "") / 1000;
}

double bench_cpu_us(pid_t pid)
{
    return sum_of_threads(pid, "schedstat", take_cpu_us);
}

static double take_waits(const char *path)
{
    return read_field(path, "voluntary_ctxt_switches:");
}

double bench_waits(pid_t pid)
{
    return sum_of_threads(pid, "status", take_waits);
}

/* --- Clients ----------------------------------------------------------------------------------------- */

static void share(void)
{
    if (shared != NULL)
        return;
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        bench_die("out of memory");
}

static pid_t start_client(const struct bench_client *client, unsigned number, void (*run)(struct bench_client *client))
{
    struct bench_client *own = &shared->clients[number];

    *own = *client;
    own->number = number;
    own->operations = 0;
    pid_t pid = fork();
    if (pid < 0)
        bench_die("cannot fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run(own);
        _exit(0);
    }
    return pid;
}

static void await_client(pid_t pid)
{
    int status;

    if (waitpid(pid, &status, 0) != pid || status != 0)
        bench_die("a client failed");
}

double bench_alone(const struct bench_client *client, void (*run)(struct bench_client *client))
{
    share();
    bench_forget_revisions();
    await_client(start_client(client, 0, run));
    bench_check_revisions();
    return shared->clients[0].result;
}

double bench_together(const struct bench_client *client, unsigned count, void (*run)(struct bench_client *client))
{
    pid_t pids[BENCH_PROCESSES_MAX];
    uint64_t total = 0;

    share();
    bench_forget_revisions();
    shared->ready = 0;
    shared->go = 0;
    for (unsigned i = 0; i < count; i++)
        pids[i] = start_client(client, i, run);
    while (__atomic_load_n(&shared->ready, __ATOMIC_ACQUIRE) < count)
        usleep(1000);
    __atomic_store_n(&shared->go, 1, __ATOMIC_RELEASE);
    for (unsigned i = 0; i < count; i++) {
        await_client(pids[i]);
        total += shared->clients[i].operations;
    }
    bench_check_revisions();
    return (double)total / BENCH_ROUND_S;
}

void bench_wait_for_all(void)
{
    __atomic_fetch_add(&shared->ready, 1, __ATOMIC_ACQ_REL);
    while (!__atomic_load_n(&shared->go, __ATOMIC_ACQUIRE))
        usleep(1000);
}

pid_t bench_hold(void (*open_all)(const void *context), const void *context)
{
    int ends[2];
    char byte = 0;

    if (pipe(ends) != 0)
        bench_die("no pipe");
    pid_t pid = fork();
    if (pid < 0)
        bench_die("cannot fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]);
        open_all(context);
        if (write(ends[1], &byte, 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ends[1]);
    if (read(ends[0], &byte, 1) != 1)
        bench_die("a client failed");
    close(ends[0]);
    return pid;
}

/* --- Revisions ----------------------------------------------------------------------------------------- */

void bench_note_revision(uint64_t revision)
{
    if (revision == 0)
        bench_die("a write has no revision");
    uint64_t place = __atomic_fetch_add(&shared->revision_count, 1, __ATOMIC_RELAXED);
    if (place < REVISIONS_MAX)
        shared->revisions[place] = revision;
}

void bench_forget_revisions(void)
{
    share();
    shared->revision_count = 0;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

void bench_check_revisions(void)
{
    size_t count = shared->revision_count < REVISIONS_MAX ? (size_t)shared->revision_count : REVISIONS_MAX;

    qsort(shared->revisions, count, sizeof(shared->revisions[0]), compare);
    for (size_t i = 1; i < count; i++) {
        if (shared->revisions[i] == shared->revisions[i - 1])
            bench_die("two writes have the revision %llu", (unsigned long long)shared->revisions[i]);
    }
}

/* --- Values ---------------------------------------------------------------------------------------------- */

void bench_make_value(char value[BENCH_VALUE_BYTES], const char *key, unsigned number)
{
    char head[BENCH_VALUE_BYTES];
    int length = snprintf(head, sizeof(head), "%s:%u:", key, number);

    memset(value, 'v', BENCH_VALUE_BYTES);
    memcpy(value, head, (size_t)length);
}

bool bench_is_value(const char *bytes, size_t size, const char *key, unsigned number)
{
    char wanted[BENCH_VALUE_BYTES];

    if (size != BENCH_VALUE_BYTES)
        return false;
    if (number == UINT32_MAX)
        return memcmp(bytes, key, strlen(key)) == 0 && bytes[strlen(key)] == ':';
    bench_make_value(wanted, key, number);
    return memcmp(bytes, wanted, size) == 0;
}
