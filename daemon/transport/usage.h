/*
 * usage: what the clients use of the daemon, by user and all together.
 *
 * Used by session and call. Each limit is for all clients together. One user, as the kernel knows it, gets a share of
 * it (limits.user_percent), so that the processes of one user cannot use up what those of others need.
 */
#ifndef DAEMON_TRANSPORT_USAGE_H
#define DAEMON_TRANSPORT_USAGE_H

#include "conf/conf.h"
#include "daemon/base/table.h"
#include "proto/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum usage_kind {
    USAGE_SESSIONS,
    USAGE_CALLS,           /* in flight */
    USAGE_CALL_BYTES,      /* their memory */
    USAGE_INPUT_BYTES,     /* messages that have arrived in part, or wait for backpressure to ease */
    USAGE_OUT_BYTES,       /* answers that clients have not read */
    USAGE_FILTERS,         /* of watches */
    USAGE_WATCHED_BUCKETS, /* by a user: only the share is checked, see watched_bucket */
    USAGE_LOCKS,           /* locks and ephemeral keys, and waits for a lock */
    USAGE_KINDS
};

/* One user of the host. It exists while it has holders. */
struct user {
    UT_hash_handle hh; /* by uid */
    uid_t uid;
    size_t taken[USAGE_KINDS];
    unsigned holders; /* sessions and calls that point to it */
};

struct usage {
    const struct conf *conf;
    struct user *users; /* uthash */
    size_t taken[USAGE_KINDS];
};

/* conf is borrowed. */
void usage_init(struct usage *usage, const struct conf *conf);

/* Return the user with this uid, for one more holder; NULL: out of memory. */
struct user *usage_hold(struct usage *usage, uid_t uid);
void usage_release(struct usage *usage, struct user *user);

static inline void usage_add(struct usage *usage, struct user *user, enum usage_kind kind, size_t more)
{
    usage->taken[kind] += more;
    user->taken[kind] += more;
}

static inline void usage_subtract(struct usage *usage, struct user *user, enum usage_kind kind, size_t less)
{
    usage->taken[kind] -= less;
    user->taken[kind] -= less;
}

/* Return whether this much more may be used. False: *error is resource_exhausted, and names the limit. */
bool usage_check(const struct usage *usage, const struct user *user, enum usage_kind kind, size_t more,
                 struct error *error);

/* The same, for the user's share alone. */
bool usage_check_share(const struct usage *usage, const struct user *user, enum usage_kind kind, size_t more,
                       struct error *error);

/* Return whether half of the user's share, or of the limit, is in use: others should go first. */
bool usage_is_high(const struct usage *usage, const struct user *user, enum usage_kind kind);

#endif
