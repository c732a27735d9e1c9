#include "daemon/store/follow/local_copy_parts.h"

#include "daemon/base/glob.h"
#include "daemon/base/log.h"
#include "daemon/store/bucket/admin.h"

static void on_list_timer(struct timer *timer);

static bool is_named(const struct conf *conf, const char *bucket)
{
    for (size_t i = 0; i < conf->cache.buckets.count; i++) {
        if (glob_matches(conf->cache.buckets.items[i], bucket))
            return true;
    }
    return false;
}

static void on_listed(void *arg, const char *const *names, size_t count, const struct error *error)
{
    struct store *store = arg;
    struct error refusal;

    for (size_t i = 0; error == NULL && i < count; i++) {
        if (is_named(store->conf, names[i]) && local_copy_obtain(store, names[i], REPLICA_CONFIGURED, &refusal) == NULL)
            log_warning("bucket %s is not cached: %s", names[i], refusal.message);
    }
    if (error != NULL)
        log_warning("the buckets that cache.buckets may name could not be listed: %s", error->message);
    store->is_listing = false;
    arena_clear(&store->list_arena);
    timer_start(store->timers, &store->list_timer,
                uv_now(store->loop) + (error == NULL ? store->conf->watches.check_interval_ms : REPLICA_TICK_MS),
                on_list_timer);
}

static void on_list_timer(struct timer *timer)
{
    local_copy_follow_configured((struct store *)((char *)timer - offsetof(struct store, list_timer)));
}

void local_copy_follow_configured(struct store *store)
{
    struct local_copy *copy, *next;

    HASH_ITER(hh, store->local_copies, copy, next)
    {
        copy->is_configured = is_named(store->conf, copy->name);
    }
    if (store->is_listing || store->conf->cache.buckets.count == 0 || !connection_is_up(store->connection))
        return;
    struct admin *admin = arena_zalloc(&store->list_arena, sizeof(*admin));
    if (admin == NULL)
        return;
    store->is_listing = true;
    timer_stop(store->timers, &store->list_timer);
    admin->deadline_ms = uv_now(store->loop) + store->conf->calls.max_timeout_ms;
    admin->listed = on_listed;
    admin->arg = store;
    admin_list(store, &store->list_arena, admin);
}
