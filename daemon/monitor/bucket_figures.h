/*
 * bucket_figures: the figures of the buckets that metrics.buckets names.
 *
 * Used by exposition. A request for the metrics starts a request to NATS for each bucket, unless the figures are
 * younger than BUCKET_FIGURES_AGE_MS. Few requests are in flight at a time, and all of them end after
 * BUCKET_FIGURES_WAIT_MS.
 */
#ifndef DAEMON_MONITOR_BUCKET_FIGURES_H
#define DAEMON_MONITOR_BUCKET_FIGURES_H

#include "daemon/base/arena.h"
#include "daemon/monitor/figures.h"
#include "daemon/store/bucket/admin.h"
#include "daemon/store/context.h"

#include <stdbool.h>
#include <stddef.h>

#define BUCKET_FIGURES_AGE_MS  10000u
#define BUCKET_FIGURES_WAIT_MS 2000u

/* Requests in flight. */
#define BUCKET_FIGURES_SLOTS 4u

struct bucket_figures_slot {
    struct bucket_figures *owner;
    struct arena arena;
    struct admin admin;
    size_t bucket;
    bool is_busy;
};

struct bucket_figures {
    struct store *store;
    char **names;
    struct figures_bucket *buckets; /* as many */
    size_t count;
    struct bucket_figures_slot slots[BUCKET_FIGURES_SLOTS];

    bool is_asking; /* a refresh runs */
    bool is_filling_slots;
    size_t next; /* the next bucket to ask for */
    unsigned busy;
    uint64_t deadline_ms, asked_ms; /* loop time of the last refresh; 0: none */
    void (*done)(void *arg);
    void *done_arg;
};

/* Return 0, or -1 if memory ran out. done is called at the end of each refresh, maybe from within. */
int bucket_figures_init(struct bucket_figures *figures, struct store *store, void (*done)(void *arg), void *arg);

/* Read the names from the configuration, and forget all figures. Cancels a refresh without calling done. */
void bucket_figures_reload(struct bucket_figures *figures);

/* Ask NATS for all buckets, unless that was done a short time ago. */
void bucket_figures_refresh(struct bucket_figures *figures);

/* Cancel a refresh without calling done. */
void bucket_figures_cancel(struct bucket_figures *figures);
void bucket_figures_free(struct bucket_figures *figures);

/* Complete the figures of a bucket with what its local copy has. */
void bucket_figures_add_copy(struct bucket_figures *figures, size_t bucket);

#endif
