/*
 * neighbour: a well-behaved client, which says how long its calls take while others do what they do.
 *
 * Used by the suite neighbour of tests/integration, and by the benchmark. A thread of its own puts and gets a key of a
 * small bucket every NEIGHBOUR_INTERVAL_MS, on one session from beginning to end, and checks each answer. Nothing here
 * needs Check.
 */
#ifndef SUPPORT_NEIGHBOUR_H
#define SUPPORT_NEIGHBOUR_H

#include <stddef.h>

#define NEIGHBOUR_INTERVAL_MS 4.0
#define NEIGHBOUR_ERROR_BYTES 512

/* Its calls since the last report. */
struct neighbour_report {
    size_t calls;
    double p50_ms, p99_ms, longest_ms;
    char error[NEIGHBOUR_ERROR_BYTES]; /* "": every call was answered, and well. After an error there are no calls */
};

struct neighbour;

/* Creates the bucket, in memory, and begins. NULL: *report has the error. */
struct neighbour *neighbour_begin(const char *socket_path, const char *bucket, struct neighbour_report *report);

/* Waits for the put and get under way, and reports all since the last report. */
void neighbour_report(struct neighbour *neighbour, struct neighbour_report *report);

/* Waits until so many calls were made since the last report, or one has failed; then reports. */
void neighbour_report_calls(struct neighbour *neighbour, size_t calls, struct neighbour_report *report);

/* Ends the thread, and closes the session. */
void neighbour_end(struct neighbour *neighbour);

#endif
