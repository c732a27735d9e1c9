#include "daemon/store/follow/configured_copies.h"

#include "daemon/base/glob.h"
#include "daemon/base/log.h"
#include "daemon/store/bucket/bucket_names.h"
#include "daemon/store/follow/local_copy.h"
#include "daemon/store/follow/state.h"

static void on_list_timer(struct timer *timer);

static bool is_configured(const struct conf *conf, const char *bucket)
{
    for (size_t i = 0; i < conf->cache.buckets.count; i++) {
        if (glob_matches(conf->cache.buckets.items[i], bucket))
            return true;
    }
    return false;
}

static bool is_wanted(void *arg, const char *bucket)
{
    return is_configured(((const struct store *)arg)->conf, bucket);
}

static void on_listed(void *arg, const char *const *names, size_t count, const struct error *error)
{
    struct store *store = arg;
    struct error refusal;

    for (size_t i = 0; error == NULL && i < count; i++) {
        if (local_copy_obtain(store, names[i], NULL, LOCAL_COPY_CONFIGURED, 0, &refusal) == NULL)
            log_warning("bucket %s: not cached: %s; trying again", names[i], refusal.message);
    }
    if (error != NULL)
        log_warning("listing the buckets for cache.buckets failed: %s; trying again", error->message);
    store->follow->is_listing = false;
    arena_clear(&store->follow->list_arena);
    if (store->follow->lists_again && error == NULL) {
        configured_copies_follow(store);
        return;
    }
    timer_start(store->timers, &store->follow->list_timer,
                uv_now(store->loop) + (error == NULL ? store->conf->watches.reconcile_interval_ms : LOCAL_COPY_TICK_MS),
                on_list_timer);
}

static void on_list_timer(struct timer *timer)
{
    const struct follow_state *follow =
        (struct follow_state *)((char *)timer - offsetof(struct follow_state, list_timer));

    configured_copies_follow(follow->store);
}

void configured_copies_follow(struct store *store)
{
    struct local_copy *copy, *next;

    HASH_ITER(hh, store->follow->local_copies, copy, next)
    {
        copy->is_configured = is_configured(store->conf, copy->name);
    }
    store->follow->lists_again = store->follow->is_listing;
    if (store->follow->is_listing || store->conf->cache.buckets.count == 0 || !connection_is_up(store->connection))
        return;
    struct bucket_names *list = arena_zalloc(&store->follow->list_arena, sizeof(*list));
    if (list == NULL)
        return;
    store->follow->is_listing = true;
    timer_stop(store->timers, &store->follow->list_timer);
    list->is_wanted = is_wanted;
    list->deadline_ms = uv_now(store->loop) + store->conf->calls.max_timeout_ms;
    list->done = on_listed;
    list->arg = store;
    bucket_names_list(store, &store->follow->list_arena, list);
}
