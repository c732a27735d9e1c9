#include "daemon/store/observe.h"

/* Call one function of each observer that has it. */
#define TELL_OBSERVERS(store, event, ...)                                                                              \
    for (const struct observer *observer = (store)->observers; observer != NULL; observer = observer->next) {          \
        if (observer->ops->event != NULL)                                                                              \
            observer->ops->event(store, __VA_ARGS__);                                                                  \
    }

void observe_add(struct store *store, struct observer *observer)
{
    observer->next = store->observers;
    store->observers = observer;
}

void observe_revision(struct store *store, const char *bucket_name, const char *key, uint64_t revision, bool is_write)
{
    TELL_OBSERVERS(store, revision, bucket_name, key, revision, is_write)
}

void observe_entry(struct store *store, const char *bucket_name,
                   const struct kv_entry *entry){TELL_OBSERVERS(store, entry, bucket_name, entry)}

uint64_t observe_known_revision(struct store *store, const char *bucket_name, const char *key)
{
    uint64_t known = 0;

    for (const struct observer *observer = store->observers; known == 0 && observer != NULL;
         observer = observer->next) {
        if (observer->ops->known_revision != NULL)
            known = observer->ops->known_revision(store, bucket_name, key);
    }
    return known;
}

bool observe_find(struct store *store, const char *bucket_name, const char *key, observe_found_fn *found, void *arg)
{
    for (const struct observer *observer = store->observers; observer != NULL; observer = observer->next) {
        if (observer->ops->find != NULL)
            return observer->ops->find(store, bucket_name, key, found, arg);
    }
    return false;
}

void observe_absent(struct store *store, const char *bucket_name, const char *key, uint64_t known_revision,
                    bool is_certain)
{
    TELL_OBSERVERS(store, absent, bucket_name, key, known_revision, is_certain)
}

void observe_marker(struct store *store, const char *bucket_name, int64_t marker_ttl_s)
{
    TELL_OBSERVERS(store, marker, bucket_name, marker_ttl_s)
}

void observe_begin_change(struct store *store, const char *bucket_name)
{
    TELL_OBSERVERS(store, begin_change, bucket_name)
}

void observe_end_change(struct store *store, const char *bucket_name, bool is_known)
{
    TELL_OBSERVERS(store, end_change, bucket_name, is_known)
}

void observe_opened(struct store *store, const char *bucket_name, int64_t marker_ttl_s)
{
    TELL_OBSERVERS(store, opened, bucket_name, marker_ttl_s)
}

void observe_created(struct store *store, const char *bucket_name)
{
    TELL_OBSERVERS(store, created, bucket_name)
}
