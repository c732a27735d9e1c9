#include "daemon/transport/usage.h"

#include <stdlib.h>
#include <string.h>

/* For sentences such as "the daemon's 4096 sessions". */
static const struct {
    const char *what, *setting;
} kinds[USAGE_KINDS] = {
    [USAGE_SESSIONS] = {"sessions", "limits.sessions"},
    [USAGE_CALLS] = {"calls in flight", "limits.calls"},
    [USAGE_CALL_BYTES] = {"bytes of calls in flight", "limits.call_bytes"},
    [USAGE_INPUT_BYTES] = {"bytes of messages that have arrived in part", "limits.call_bytes"},
    [USAGE_OUT_BYTES] = {"bytes of unread answers", "limits.out_bytes"},
    [USAGE_FILTERS] = {"filters of watches", "watches.max_filters"},
    [USAGE_WATCHED_BUCKETS] = {"buckets that are watched or have its locks", "watches.max_buckets"},
    [USAGE_LOCKS] = {"locks, ephemeral keys and waits for locks", "locks.max"},
};

static size_t usage_limit(const struct conf *conf, enum usage_kind kind)
{
    switch (kind) {
    case USAGE_SESSIONS:
        return conf->limits.sessions;
    case USAGE_CALLS:
        return conf->limits.calls;
    case USAGE_CALL_BYTES:
    case USAGE_INPUT_BYTES:
        return conf->limits.call_bytes;
    case USAGE_OUT_BYTES:
        return conf->limits.out_bytes;
    case USAGE_FILTERS:
        return conf->watches.max_filters;
    case USAGE_WATCHED_BUCKETS:
        return conf->watches.max_buckets;
    case USAGE_LOCKS:
        return conf->locks.max;
    case USAGE_KINDS:
        break;
    }
    return 0;
}

/* A user's share, of small limits at least one. */
static size_t usage_share(const struct conf *conf, size_t limit)
{
    size_t share = limit / 100 * conf->limits.user_percent + limit % 100 * conf->limits.user_percent / 100;

    return share > 0 ? share : 1;
}

void usage_init(struct usage *usage, const struct conf *conf)
{
    memset(usage, 0, sizeof(*usage));
    usage->conf = conf;
}

struct user *usage_hold(struct usage *usage, uid_t uid)
{
    struct user *user = NULL;

    HASH_FIND(hh, usage->users, &uid, sizeof(uid), user);
    if (user == NULL) {
        user = calloc(1, sizeof(*user));
        if (user == NULL)
            return NULL;
        user->uid = uid;
        HASH_ADD(hh, usage->users, uid, sizeof(user->uid), user);
    }
    user->holders++;
    return user;
}

void usage_release(struct usage *usage, struct user *user)
{
    if (--user->holders > 0)
        return;
    HASH_DEL(usage->users, user);
    free(user);
}

bool usage_check_share(const struct usage *usage, const struct user *user, enum usage_kind kind, size_t more,
                       struct error *error)
{
    size_t share = usage_share(usage->conf, usage_limit(usage->conf, kind));

    if (user->taken[kind] + more <= share)
        return true;
    error_set(error, ERROR_RESOURCE_EXHAUSTED,
              "uid %u has %zu %s, and the limit of one user is %zu (limits.user_percent of %s); try again later",
              (unsigned)user->uid, user->taken[kind], kinds[kind].what, share, kinds[kind].setting);
    return false;
}

bool usage_check(const struct usage *usage, const struct user *user, enum usage_kind kind, size_t more,
                 struct error *error)
{
    size_t limit = usage_limit(usage->conf, kind);

    if (usage->taken[kind] + more <= limit)
        return usage_check_share(usage, user, kind, more, error);
    error_set(error, ERROR_RESOURCE_EXHAUSTED, "the daemon has %zu %s, and its limit is %zu (%s); try again later",
              usage->taken[kind], kinds[kind].what, limit, kinds[kind].setting);
    return false;
}

bool usage_is_high(const struct usage *usage, const struct user *user, enum usage_kind kind)
{
    size_t limit = usage_limit(usage->conf, kind);

    return usage->taken[kind] > limit / 2 || user->taken[kind] > usage_share(usage->conf, limit) / 2;
}
