/*
 * neighbour: a well-behaved client that measures how long its calls take while others use the daemon.
 *
 * Used by the suite neighbour of tests/integration, and by the benchmark. A thread of its own puts and gets a key of a
 * small bucket every NEIGHBOUR_INTERVAL_MS, and checks each answer. It does this with libkvstore, always on the same
 * session, or with commands of kvctl. Each command makes a connection of its own. This file does not use
 * Check.
 */
#ifndef SUPPORT_NEIGHBOUR_H
#define SUPPORT_NEIGHBOUR_H

#include <stddef.h>

#define NEIGHBOUR_INTERVAL_MS       4.0
#define NEIGHBOUR_KVCTL_INTERVAL_MS 250.0 /* a command is a program, which needs a processor itself */
#define NEIGHBOUR_ERROR_BYTES       512

/* Its calls since the last report. */
struct neighbour_report {
    size_t calls;
    double p50_ms, p99_ms, longest_ms;
    char error[NEIGHBOUR_ERROR_BYTES]; /* "": every call succeeded. After an error there are no calls */
};

struct neighbour;

/* Create the bucket, in memory, and begin. NULL: *report has the error. */
struct neighbour *neighbour_begin(const char *socket_path, const char *bucket, struct neighbour_report *report);

/* The same with kvctl, whose path is given. Its keys are its own, so both may use a bucket at the same time. */
struct neighbour *neighbour_begin_kvctl(const char *kvctl, const char *socket_path, const char *bucket,
                                        struct neighbour_report *report);

/* Wait for a put and a get that have begun before, or begin now, and report all calls since the last report. */
void neighbour_report(struct neighbour *neighbour, struct neighbour_report *report);

/* Wait until so many calls were made since the last report, or one has failed. Then report. */
void neighbour_report_calls(struct neighbour *neighbour, size_t calls, struct neighbour_report *report);

/* End the thread and close the session. */
void neighbour_end(struct neighbour *neighbour);

#endif
