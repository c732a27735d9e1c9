/*
 * figures: the one table of what the daemon counts and measures.
 *
 * Used by exposition and by the handlers of daemon.stats and health.check: the answers and the text for Prometheus are
 * written from one table. figures_collect reads the figures of all modules at one moment into a struct. A row of the
 * table describes one member of that struct: its name in daemon.stats, its family in the text, or both. Figures that
 * exist once for each user or bucket have tables of their own. Counts by method and by code, and histograms, are in
 * metrics (daemon/base) and have no rows.
 */
#ifndef DAEMON_MONITOR_FIGURES_H
#define DAEMON_MONITOR_FIGURES_H

#include "daemon/base/metrics.h"
#include "daemon/embedded/process.h"
#include "daemon/store/context.h"
#include "daemon/transport/usage.h"

#include <stddef.h>
#include <stdint.h>

/* Where the figures come from. All pointers are borrowed. */
struct figures_sources {
    struct metrics *metrics;
    struct store *store;
    const struct usage *usage;
    const struct embedded_process *embedded; /* NULL in external mode */
    uint64_t started_ms;                     /* loop time of the daemon's start */
    uint64_t started_at_ms;                  /* the same since the epoch */
};

/* The value of a figure that is not known now. Its row is left out. */
#define FIGURES_UNKNOWN UINT64_MAX

/* How daemon.stats shows a figure. */
enum figure_form {
    FIGURE_NUMBER,
    FIGURE_FLAG,
    FIGURE_SECONDS, /* a double; the member has milliseconds */
    FIGURE_TEXT     /* the member is a const char pointer */
};

enum figure_type { FIGURE_GAUGE, FIGURE_COUNTER };

struct figure {
    const char *section; /* of daemon.stats; "": none. NULL: the figure is not in daemon.stats */
    const char *member;  /* of daemon.stats */
    enum figure_form form;
    const char *family; /* of the text, without _total; NULL: the figure is not in the text */
    enum figure_type type;
    const char *unit;  /* the end of family; NULL: none */
    unsigned per_unit; /* the value is divided by it; 0: by 1 */
    const char *help;
    size_t offset; /* of a uint64_t, or of the text, in the struct of the table */
};

/* All figures of which there is one. Times are in the unit that their name ends with. */
struct figures {
    uint64_t uptime_ms, started_at_ms, is_healthy;
    uint64_t longest_turn_us, cpu_us, resident_bytes;
    uint64_t calls_in_flight, calls_limit, call_bytes, call_bytes_limit, input_bytes, unread_bytes, unread_bytes_limit;
    uint64_t bytes_in, bytes_out, retries, requests_in_flight, unknown_outcomes, server_restarts;
    uint64_t batches, batch_writes, batches_failed, batch_size_p50, batch_size_p99, batch_size_max;
    uint64_t increments, increment_writes, increment_conflicts;
    uint64_t sessions_open, sessions_total, sessions_refused, sessions_ended, sessions_limit;
    uint64_t watches_open, watches_total, watches_ended, followed_buckets, watch_entries, resyncs, vanished;
    uint64_t watches_behind, backlog_bytes, lag_us, filters, filters_limit;
    uint64_t locks_held, locks_waiting, locks_acquired, locks_lost, leases, leases_declared_dead, lease_renewals;
    uint64_t locks_used, locks_limit;
    uint64_t cached_buckets, cached_keys, cache_bytes, cache_limit, hits, misses, evicted;
    uint64_t is_connected, rtt_us, reconnects;
    const char *nats_url, *nats_version;
    uint64_t store_used, store_limit, store_limit_or_unknown, disk_free, disk_reserve;
};

extern const struct figure figures_of_daemon[];
extern const size_t figures_of_daemon_count;

/* Figures of one user. */
struct figures_user {
    uint64_t uid; /* FIGURES_UNKNOWN: all users that are too many to be shown */
    uint64_t taken[USAGE_KINDS];
};

extern const struct figure figures_of_user[];
extern const size_t figures_of_user_count;

/* Figures of one bucket that metrics.buckets names. */
struct figures_bucket {
    uint64_t is_known; /* NATS has described it */
    uint64_t values, bytes, limit_bytes, is_full, last_revision;
    uint64_t watches, watches_behind, cached_keys, cache_bytes, lag_revisions;
};

extern const struct figure figures_of_bucket[];
extern const size_t figures_of_bucket_count;

/* Collect the sections nats and store only, which costs little. Texts are valid until the loop's next turn. */
void figures_collect_health(const struct figures_sources *sources, struct figures *figures);

/* Collect all figures. This takes some 50 us. */
void figures_collect(const struct figures_sources *sources, struct figures *figures);

/* Return the value of a row in the struct of its table. */
static inline uint64_t figure_value(const struct figure *figure, const void *figures)
{
    return *(const uint64_t *)((const char *)figures + figure->offset);
}

static inline const char *figure_text(const struct figure *figure, const void *figures)
{
    return *(const char *const *)((const char *)figures + figure->offset);
}

static inline bool figure_is_known(const struct figure *figure, const void *figures)
{
    return figure->form == FIGURE_TEXT || figure_value(figure, figures) != FIGURES_UNKNOWN;
}

#endif
