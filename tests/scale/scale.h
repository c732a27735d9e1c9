/*
 * scale: what each operation costs at growing numbers of keys, buckets and sessions, and whether it has its shape.
 *
 * main.c runs the axes, growth.h is the table and the rule by which rows fail. Each axis is one file. Every size has a
 * daemon of its own, whose data is removed afterwards. Servers and clients are those of tests/bench.
 */
#ifndef TESTS_SCALE_SCALE_H
#define TESTS_SCALE_SCALE_H

#include "client/lib/kvstore_admin.h"
#include "tests/bench/bench.h"
#include "tests/scale/growth.h"

#include <stdbool.h>
#include <stdint.h>

struct scale {
    const struct bench *bench;
    bool is_short;
    uint64_t most_keys, most_buckets, most_sessions;
    FILE *json;
    bool has_rows; /* of the JSON */
    unsigned failed;
};

/* The smallest sizes that are measured. */
#define SCALE_KEYS_MIN 1000
uint64_t scale_buckets_min(const struct scale *scale);
uint64_t scale_sessions_min(const struct scale *scale);

/* --- Axes. Each prints its tables, adds them to the JSON, and counts what has failed. ----------------- */

void scale_keys(struct scale *scale);
void scale_buckets(struct scale *scale);
void scale_sessions(struct scale *scale);
void scale_watches(struct scale *scale);
void scale_in_flight(struct scale *scale);

/* Print a table, add it to the JSON, free it. */
void scale_report(struct scale *scale, struct growth *growth);

/* Say on standard error what is measured now, if somebody watches. */
void scale_print_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Print the line by which tests/run counts what was left out. */
void scale_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* --- servers.c: a daemon with its server ---------------------------------------------------------------- */

struct scale_servers {
    const struct bench *bench;
    struct bench_servers servers; /* servers.server is the embedded server's pid, too */
    bool is_embedded;
    char name[32];
    char sections[1024];
    struct kvs *kvs;
    char failure[160]; /* of the last operation that has failed */
};

/*
 * Start a daemon with limits that are wide enough for every size, and connect to it. In the short version the embedded
 * server syncs seldom: its rows are about processor time and memory.
 */
void scale_start(struct scale_servers *servers, const struct scale *scale, const char *name, bool is_embedded);

/* End the daemon and its server, and remove their data. */
void scale_end(struct scale_servers *servers);

/*
 * End the daemon and its embedded server well, or with SIGKILL, and start them again. *sample is the start, until the
 * health of the bucket is good. An external server goes on.
 */
enum scale_ending { SCALE_STOP, SCALE_KILL };
void scale_restart(struct scale_servers *servers, enum scale_ending ending, double units, struct growth_sample *sample);

/* Keep the library's last error as servers->failure. Returns false. */
bool scale_note_error(struct scale_servers *servers, const char *what);

/* Return a number of daemon.stats, by the names of a map and of a member. Die if the daemon does not answer. */
uint64_t scale_stat(struct scale_servers *servers, const char *map, const char *member);

/* --- Measuring ---------------------------------------------------------------------------------------- */

struct scale_span {
    double begin_s, processor_us;
};

struct scale_span scale_begin(const struct scale_servers *servers);
struct growth_sample scale_finish(const struct scale_servers *servers, struct scale_span span, double units);

/*
 * Return whether a row is to be measured once more, after `round` rounds. It has at least `rounds`. A row that fails
 * has further ones, a second apart, because other programs can make a call several times slower for some seconds.
 */
bool scale_wants_round(const struct growth *growth, size_t row, unsigned round, unsigned rounds);

/* Do one operation. Return false if it has failed, see scale_note_error. */
typedef bool scale_operation(struct scale_servers *servers, void *context);

/*
 * Measure an operation that has so many units: `rounds` rounds, each of as many repetitions as take a fifth of a
 * second, in the short version a twentieth. The cell fails with the operation.
 */
void scale_measure(struct growth *growth, size_t row, struct scale_servers *servers, unsigned rounds, double units,
                   scale_operation *operation, void *context);

#endif
