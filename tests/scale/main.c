/*
 * scale [--short] KVSTORED NATS-SERVER DIRECTORY JSON KEYS BUCKETS SESSIONS [AXIS…]
 *
 * All paths are absolute; DIRECTORY is empty, and the program's own. KEYS, BUCKETS and SESSIONS are the largest sizes.
 * With AXIS (keys, buckets, sessions, watches, calls) only these. The exit status is 1 if a row has failed.
 */
#include "tests/scale/scale.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    void (*measure)(struct scale *scale);
} axes[] = {{"keys", scale_keys},
            {"buckets", scale_buckets},
            {"sessions", scale_sessions},
            {"watches", scale_watches},
            {"calls", scale_in_flight}};

#define AXES (sizeof(axes) / sizeof(axes[0]))

void scale_report(struct scale *scale, struct growth *growth)
{
    scale_print_progress("%s", "");
    scale->failed += growth_print(growth);
    growth_write_json(scale->json, growth, !scale->has_rows);
    scale->has_rows = true;
    growth_free(growth);
}

void scale_print_progress(const char *format, ...)
{
    va_list args;

    if (!isatty(STDERR_FILENO))
        return;
    fprintf(stderr, "\r\033[2K");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
}

void scale_skip(const char *format, ...)
{
    va_list args;

    printf("SKIPPED: ");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
}

static bool is_wanted(const char *name, int count, char **wanted)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(name, wanted[i]) == 0)
            return true;
    }
    return count == 0;
}

/* A size below the first step would measure nothing. */
static uint64_t read_size(const char *name, const char *text, uint64_t smallest)
{
    char *end;
    uint64_t size = strtoull(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != '\0' || size < smallest)
        bench_die("%s must be a whole number from %llu, the smallest size that is measured, not '%s'", name,
                  (unsigned long long)smallest, text);
    return size;
}

static void check_axes(int count, char **wanted)
{
    for (int i = 0; i < count; i++) {
        size_t axis = 0;
        while (axis < AXES && strcmp(axes[axis].name, wanted[i]) != 0)
            axis++;
        if (axis == AXES)
            bench_die("there is no axis '%s': they are keys, buckets, sessions, watches and calls", wanted[i]);
    }
}

int main(int argc, char **argv)
{
    static struct bench bench;
    struct scale scale = {.bench = &bench};

    scale.is_short = argc > 1 && strcmp(argv[1], "--short") == 0;
    argc -= scale.is_short;
    argv += scale.is_short;
    if (argc < 8) {
        fprintf(stderr, "usage: scale [--short] KVSTORED NATS-SERVER DIRECTORY JSON KEYS BUCKETS SESSIONS [AXIS...]\n");
        return 2;
    }
    bench.kvstored = argv[1];
    bench.nats_server = argv[2];
    scale.most_keys = read_size("KEYS", argv[5], SCALE_KEYS_MIN);
    scale.most_buckets = read_size("BUCKETS", argv[6], scale_buckets_min(&scale));
    scale.most_sessions = read_size("SESSIONS", argv[7], scale_sessions_min(&scale));
    check_axes(argc - 8, argv + 8);
    if (chdir(argv[3]) != 0)
        bench_die("%s: %s", argv[3], strerror(errno));
    if ((scale.json = fopen(argv[4], "w")) == NULL)
        bench_die("%s: %s", argv[4], strerror(errno));
    signal(SIGPIPE, SIG_IGN);

    fprintf(scale.json, "[\n");
    for (size_t i = 0; i < AXES; i++) {
        if (is_wanted(axes[i].name, argc - 8, argv + 8))
            axes[i].measure(&scale);
    }
    fprintf(scale.json, "\n]\n");
    if (fclose(scale.json) != 0)
        bench_die("cannot write %s", argv[4]);
    printf("\n%u rows failed\n", scale.failed);
    return scale.failed > 0;
}
