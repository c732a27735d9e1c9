/*
 * plan: what the present settings and state of a bucket's stream mean for its compaction.
 *
 * Used by compact, with an answer of STREAM.INFO.
 */
#ifndef DAEMON_STORE_COMPACT_PLAN_H
#define DAEMON_STORE_COMPACT_PLAN_H

#include "daemon/store/context.h"

/* Age in seconds from which markers are removed by default: that of PurgeDeletes in the NATS client libraries. */
#define COMPACT_DEFAULT_AGE_S 1800

struct compact_plan {
    int64_t marker_ttl_s; /* of the bucket; 0: none */
    int64_t cutoff_us;    /* markers that were stored later stay */
    uint64_t last;        /* markers with a higher sequence stay */
    uint64_t incarnation; /* of the stream: see stream_info; 0: unknown */
    bool is_in_files;     /* of the embedded server */
    bool has_others;      /* the stream has messages that are not read: no purge may concern all subjects */
};

/* older_than_s: as in compact. False: *error says why the bucket cannot be compacted. */
bool compact_plan_read(const struct store *store, json_t *answer, int64_t older_than_s, struct compact_plan *plan,
                       struct error *error);

#endif
