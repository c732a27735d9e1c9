/*
 * exposition: the figures of the daemon as a text for Prometheus, in the format of OpenMetrics 1.0.
 *
 * Used by endpoint and by the handler of daemon.metrics. One text is written at a time, in slices, for all requests
 * that came before it was begun. So a text is never older than its request, and many requests cost little more than
 * one.
 */
#ifndef DAEMON_MONITOR_EXPOSITION_H
#define DAEMON_MONITOR_EXPOSITION_H

#include "daemon/base/jobs.h"
#include "daemon/monitor/bucket_figures.h"
#include "daemon/monitor/figures.h"

#include <stdbool.h>
#include <stddef.h>

/* Users with figures of their own. All others are shown as one. */
#define EXPOSITION_USERS_MAX 1000u

/* The owner embeds it, zeroed. */
struct exposition_waiter {
    struct exposition_waiter *next, *previous;
    struct exposition_waiter **list; /* NULL: it does not wait */
    /* The text, valid during the call; NULL: memory ran out. */
    void (*done)(struct exposition_waiter *waiter, const char *text, size_t size);
};

enum exposition_state {
    EXPOSITION_IDLE,
    EXPOSITION_ASKING, /* NATS is asked for the buckets */
    EXPOSITION_WRITING,
    EXPOSITION_DELIVERING
};

struct exposition {
    const struct figures_sources *sources;
    struct jobs *jobs;
    struct job job;
    enum exposition_state state;
    struct exposition_waiter *waiting; /* for the present text */
    struct exposition_waiter *early;   /* for the next one: the present one was begun before they asked */
    struct bucket_figures buckets;
    struct figures_user *users; /* of the present text */
    size_t user_count;

    char *text;
    size_t size, capacity;
    bool has_failed; /* memory ran out */

    /* What is written next. */
    unsigned part;
    size_t row;   /* of a table */
    size_t index; /* a method, a code, a user or a bucket */
};

/* Return 0, or -1 if memory ran out. sources are borrowed. */
int exposition_init(struct exposition *exposition, const struct figures_sources *sources);

/* The configuration was read again. */
void exposition_reload(struct exposition *exposition);

/* Ask for a text that is begun from now on. done is called later, never from within. */
void exposition_request(struct exposition *exposition, struct exposition_waiter *waiter);

/* Does nothing if it does not wait. */
void exposition_cancel(struct exposition_waiter *waiter);

/* Stop all work. Nobody may wait any longer, or ask. */
void exposition_stop(struct exposition *exposition);
void exposition_free(struct exposition *exposition);

#endif
