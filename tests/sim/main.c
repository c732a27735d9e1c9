/*
 * sim: runs seeds of the simulation.
 *
 *   sim COUNT [FIRST]     COUNT seeds from FIRST on; without FIRST, from one that the clock chooses
 *   sim --seconds N       seeds from one that the clock chooses, for N seconds
 *   sim --trace SEED      one seed, and print what happens
 *   sim --twice SEED      the same, twice: compare the two outputs if the second run of a seed differs
 *   sim --kept FILE       the seeds of a file, one on each line; what follows a # is a comment
 *
 * Each tenth seed is run a second time: its trace must be the same. Seeds run in child processes, because the memory of
 * killed daemons goes only with the process.
 */
#include "daemon/base/hash.h"
#include "tests/sim/host.h"
#include "tests/sim/memory.h"
#include "tests/sim/run.h"
#include "tests/sim/world.h"
#include "tests/support/test_run.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REPEAT_EACH 10u

/* Seeds of a child process. */
#define CHUNK 50u

/* Shared with the child processes. */
static struct run_counts *counts;

/* --- Faults ---------------------------------------------------------------------------------------- */

static void print_seed(const char *what)
{
    char line[160];
    int length =
        snprintf(line, sizeof(line), "sim: seed %" PRIu64 " %s; make sim SEED=%" PRIu64 " TRACE=1 repeats it\n",
                 world_seed(), what, world_seed());
    ssize_t ignored = write(STDERR_FILENO, line, (size_t)length);

    (void)ignored;
}

static void on_abort(int number)
{
    print_seed("was aborted");
    signal(number, SIG_DFL);
    raise(number);
}

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>

static void on_sanitizer(void)
{
    print_seed("has a report of a sanitizer, above");
}

static void await_sanitizer(void)
{
    __sanitizer_set_death_callback(on_sanitizer);
}
#else
static void await_sanitizer(void)
{
}
#endif

/* --- Runs ------------------------------------------------------------------------------------------ */

static void fail_seed(const char *what)
{
    print_seed(what);
    fflush(stdout);
    _exit(1); /* leaks are reported already */
}

static void run_checked(uint64_t seed, bool is_repeated)
{
    uint64_t hash = run_seed(seed, false, counts);

    if (memory_has_leaked())
        fail_seed("has leaked memory, see above");
    if (is_repeated && run_seed(seed, false, counts) != hash)
        fail_seed("does something else in its second run");
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Run seeds in a child process, until a time if it is not 0. Return whether all is well. */
static bool run_chunk(uint64_t first, uint64_t count, double until)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        for (uint64_t i = 0; i < count && (until == 0 || seconds() < until); i++)
            run_checked(first + i, (first + i) % REPEAT_EACH == 0);
        exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) {
        perror("sim");
        return false;
    }
    if (WIFSIGNALED(status))
        fprintf(stderr, "sim: a process that ran the seeds from %" PRIu64 " on has ended by signal %d\n", first,
                WTERMSIG(status));
    return status == 0;
}

static int run_all(uint64_t first, uint64_t count, double until)
{
    for (uint64_t done = 0; done < count && (until == 0 || seconds() < until); done += CHUNK) {
        uint64_t left = count - done;
        if (!run_chunk(first + done, left < CHUNK ? left : CHUNK, until))
            return 1;
    }
    return 0;
}

/* Return whether the text is a number of digits, and nothing else. */
static bool read_number(const char *text, uint64_t *number)
{
    char *end;

    errno = 0;
    *number = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
}

/* Read the seeds of a file. Return how many there are; 0: the file is refused. */
static size_t read_kept(const char *path, uint64_t **seeds)
{
    FILE *file = fopen(path, "r");
    char line[256] = "";
    size_t count = 0;
    bool is_well = true;

    if (file == NULL) {
        perror(path);
        return 0;
    }
    while (is_well && fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, " #\n")] = '\0';
        if (line[0] == '\0')
            continue;
        *seeds = memory_grow(*seeds, count, sizeof(**seeds));
        is_well = read_number(line, &(*seeds)[count++]);
    }
    fclose(file);
    if (!is_well)
        fprintf(stderr, "%s: %s is no seed\n", path, line);
    else if (count == 0)
        fprintf(stderr, "%s: there are no seeds in it\n", path);
    return is_well ? count : 0;
}

/* The file is closed before a seed runs: a child process that ends would set its position back. */
static int run_kept(const char *path)
{
    uint64_t *seeds = NULL;
    size_t count = read_kept(path, &seeds);
    bool is_well = count > 0;

    for (size_t i = 0; i < count && is_well; i++)
        is_well = run_chunk(seeds[i], 1, 0);
    free(seeds);
    return is_well ? 0 : 1;
}

static int run_printed(uint64_t seed, bool is_repeated)
{
    run_seed(seed, true, counts);
    if (is_repeated) {
        puts("--- the second run");
        run_seed(seed, true, counts);
    }
    return 0;
}

/* --- The command line ------------------------------------------------------------------------------ */

/* Without a run, nothing would be tested: a count or a time of 0 is refused. */
static int run_arguments(int argc, char **argv)
{
    const char *option = argc > 1 && argv[1][0] == '-' ? argv[1] : "";
    uint64_t first = (uint64_t)time(NULL) * 10000; /* each second has seeds of its own */
    uint64_t number;

    if (argc == 3 && strcmp(option, "--kept") == 0)
        return run_kept(argv[2]);
    if (argc == 3 && option[0] != '\0' && read_number(argv[2], &number)) {
        if (strcmp(option, "--trace") == 0 || strcmp(option, "--twice") == 0)
            return run_printed(number, strcmp(option, "--twice") == 0);
        if (strcmp(option, "--seconds") == 0 && number > 0)
            return run_all(first, UINT64_MAX, seconds() + (double)number);
    }
    if ((argc == 2 || argc == 3) && option[0] == '\0' && read_number(argv[1], &number) && number > 0 &&
        (argc == 2 || read_number(argv[2], &first)))
        return run_all(first, number, 0);
    fprintf(stderr, "usage: sim COUNT [FIRST] | --seconds N | --trace SEED | --twice SEED | --kept FILE\n");
    return 2;
}

int main(int argc, char **argv)
{
    char directory[PATH_BYTES];
    double began = seconds();

    counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED) {
        perror("sim");
        return 1;
    }
    test_run_begin(argv[0], "sim");
    test_run_check_leaks();
    test_run_make_directory(directory);
    host_set_directory(directory);
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGABRT, on_abort);
    await_sanitizer();
    /* The key of the hash tables is made once in a process: make it before the first seed. */
    world_begin(0, false);
    hash_bytes("", 0);
    world_end();

    int status = run_arguments(argc, argv);
    test_run_end(false);
    double took = seconds() - began;
    if (status != 2)
        printf("%" PRIu64 " runs in %.0f s (%.1f each second): %.1f simulated hours, %" PRIu64 " events, %" PRIu64
               " calls, %" PRIu64 " of unknown outcome, locks acquired %" PRIu64 " times\n",
               counts->seeds, took, (double)counts->seeds / took, (double)counts->simulated_ns / 3.6e12, counts->events,
               counts->calls, counts->unknown, counts->locks);
    return status;
}
