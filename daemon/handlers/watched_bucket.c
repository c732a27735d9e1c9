#include "daemon/handlers/watched_bucket.h"

#include "daemon/nats/kv.h"
#include "daemon/transport/session.h"

#include <stdio.h>
#include <stdlib.h>

struct watched_bucket_key {
    uid_t uid;
    char name[KV_BUCKET_LENGTH_MAX + 1]; /* the rest is zeroed: all bytes are hashed */
};

struct watched_bucket {
    UT_hash_handle hh;
    struct watched_bucket_key key;
    unsigned watches;
};

static struct watched_bucket *watched_bucket_add(struct service *service, struct user *user,
                                                 const struct watched_bucket_key *key, struct error *error)
{
    struct usage *usage = &service->sessions->usage;

    if (!usage_check_share(usage, user, USAGE_WATCHED_BUCKETS, 1, error))
        return NULL;
    struct watched_bucket *watched = calloc(1, sizeof(*watched));
    if (watched == NULL) {
        error_set(error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return NULL;
    }
    watched->key = *key;
    HASH_ADD(hh, service->watched_buckets, key, sizeof(watched->key), watched);
    usage_add(usage, user, USAGE_WATCHED_BUCKETS, 1);
    return watched;
}

struct watched_bucket *watched_bucket_hold(struct service *service, struct user *user, const char *name,
                                           struct error *error)
{
    struct watched_bucket_key key;
    struct watched_bucket *watched;

    memset(&key, 0, sizeof(key));
    key.uid = user->uid;
    snprintf(key.name, sizeof(key.name), "%s", name);
    HASH_FIND(hh, service->watched_buckets, &key, sizeof(key), watched);
    if (watched == NULL)
        watched = watched_bucket_add(service, user, &key, error);
    if (watched != NULL)
        watched->watches++;
    return watched;
}

void watched_bucket_release(struct service *service, struct user *user, struct watched_bucket *watched)
{
    if (watched == NULL || --watched->watches > 0)
        return;
    usage_subtract(&service->sessions->usage, user, USAGE_WATCHED_BUCKETS, 1);
    HASH_DEL(service->watched_buckets, watched);
    free(watched);
}
