#include "daemon/store/lease/lease_bucket.h"

#include "daemon/store/lease/foreign_lease.h"
#include "daemon/store/lease/held_write.h"
#include "daemon/store/lease/holding_line.h"
#include "daemon/store/lease/holding_pass.h"
#include "daemon/store/lease/lease.h"
#include "daemon/store/lease/lease_scan.h"
#include "daemon/store/lease/lock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* Ticks in the time of a lease. */
#define TICKS_PER_TTL 12u
#define TICK_MS_MAX   800u /* however long the TTL: what has failed is tried again with a tick */

/* What is known of other daemons' leases is kept for this number of TTLs: a dead one is declared dead before that. */
#define KEPT_FOR 4u

/* --- Changes of the bucket ----------------------------------------------------------------------- */

static struct lease_bucket *lease_bucket_of(struct local_copy_listener *listener)
{
    return (struct lease_bucket *)((char *)listener - offsetof(struct lease_bucket, listener));
}

/* A key was written that lives with a lease. */
static void lease_bucket_note_key(struct lease_bucket *in, const char *id, const struct kv_entry *entry)
{
    struct lease *own = lease_find(in, id);

    if (own == NULL)
        foreign_lease_note_key(in, id);
    else if (own->state != LEASE_OPENING && !own->is_given_up)
        lease_note_key(own, entry);
}

static void lease_bucket_on_entry(struct local_copy_listener *listener, const struct kv_entry *entry)
{
    struct lease_bucket *in = lease_bucket_of(listener);
    const char *id = lease_text_id(entry->key);

    if (id == NULL) {
        const char *named = lease_text_lease_of(entry);
        held_write_note_entry(in, entry);
        holding_note_entry(in, entry);
        if (entry->operation != KV_PUT && entry->revision == in->deleted_revision)
            in->deleted_revision = 0;
        if (entry->operation != KV_PUT) /* a key that has vanished has no marker; then has_previous is set */
            lock_wake(in, entry->key, entry->has_previous ? 0 : entry->revision);
        if (named != NULL)
            lease_bucket_note_key(in, named, entry);
        return;
    }
    struct lease *own = lease_find(in, id);
    if (own != NULL && !own->is_foreign)
        lease_note_entry(own, entry);
    else
        foreign_lease_note_entry(in, id, entry);
}

void lease_bucket_doubt(struct lease_bucket *in)
{
    struct lease *lease;

    in->doubts++;
    foreign_lease_forget_all(in);
    DL_FOREACH2(in->ending, lease, next)
    {
        if (lease->is_foreign) /* it may be alive again; otherwise it is found again */
            lease->is_given_up = true;
    }
}

static void lease_bucket_on_doubt(struct local_copy_listener *listener)
{
    lease_doubt(lease_bucket_of(listener));
}

void lease_bucket_list_again(struct lease_bucket *in)
{
    in->needs_listing = in->was_opened;
    in->listing_doubts = UINT64_MAX; /* a listing that is in progress may be too early */
}

/* What this daemon has deleted may be back: the server has lost the markers, although it has lost nothing else. */
static void lease_bucket_doubt_deletions(struct lease_bucket *in)
{
    struct lease *lease;

    if (in->deleted_revision == 0)
        return;
    in->deleted_revision = 0;
    if (in->lease != NULL)
        lease_find_keys_again(in->lease);
    DL_FOREACH2(in->ending, lease, next)
    {
        lease_find_keys_again(lease);
    }
}

static void lease_bucket_on_caught_up(struct local_copy_listener *listener, bool has_another_keeper)
{
    struct lease_bucket *in = lease_bucket_of(listener);

    holding_pass_start(in, HOLDING_PASS_UNSEEN);
    if (!has_another_keeper)
        return;
    lease_bucket_doubt_deletions(in);
    foreign_lease_forget_all(in);
}

bool lease_bucket_is_followed(const struct lease_bucket *in)
{
    return in->listener.copy != NULL && local_copy_is_following(in->listener.copy);
}

void lease_bucket_note_deletion(struct lease_bucket *in, uint64_t revision)
{
    const struct local_copy *copy = in->listener.copy;

    if (copy == NULL || feed_position(&copy->feed) < revision)
        in->deleted_revision = revision > in->deleted_revision ? revision : in->deleted_revision;
}

/* Nobody wakes those who wait for a lock now: they look at its key, and then more often. */
static void lease_bucket_on_ended(struct local_copy_listener *listener)
{
    lease_bucket_on_doubt(listener);
    lock_try_all(lease_bucket_of(listener));
}

static void lease_bucket_start_tick(struct lease_bucket *in);

static void on_lease_listed(void *arg, const struct kv_entry *entry)
{
    struct lease_bucket *in = arg;
    const char *id = lease_text_id(entry->key);

    if (id != NULL && lease_find(in, id) == NULL)
        foreign_lease_note_entry(in, id, entry);
}

static void lease_bucket_stop_listing(struct lease_bucket *in)
{
    if (in->listing != NULL)
        lease_scan_stop(in->listing);
    free(in->listing);
    in->listing = NULL;
}

/* If it failed, the next tick tries again. */
static void on_leases_listed(void *arg, const struct error *error)
{
    struct lease_bucket *in = arg;

    bool is_incomplete = error != NULL && error->code != ERROR_BUCKET_NOT_FOUND;
    in->needs_listing = is_incomplete || in->listing_doubts != in->doubts;
    lease_bucket_stop_listing(in);
}

/* Find the leases that nobody renews: their daemons may be dead. */
static void lease_bucket_list(struct lease_bucket *in)
{
    if (in->needs_listing && in->listing == NULL)
        in->listing = calloc(1, sizeof(*in->listing));
    if (!in->needs_listing || in->listing == NULL || in->listing->is_running)
        return;
    *in->listing = (struct lease_scan){.in = in,
                                       .filter = KV_LEASE_PREFIX ">",
                                       .with_values = true,
                                       .found = on_lease_listed,
                                       .done = on_leases_listed,
                                       .arg = in};
    in->listing_doubts = in->doubts;
    lease_scan_start(in->listing);
}

void lease_bucket_listen(struct lease_bucket *in)
{
    if (!in->was_opened) {
        lease_bucket_start_tick(in);
        in->needs_listing = true;
    }
    in->was_opened = true;
    if (in->listener.copy != NULL || in->store->leases->is_ended)
        return;
    /* If too many buckets are followed, the keys are looked at from time to time. */
    if (local_copy_listen(in->store, in->name, &in->listener))
        in->needs_listing = true;
    lease_bucket_list(in);
}

void lease_bucket_claim(struct lease_bucket *in)
{
    in->claims++;
    in->listener.keeps_copy = true;
}

void lease_bucket_unclaim(struct lease_bucket *in)
{
    in->claims--;
    in->listener.keeps_copy = in->claims > 0;
    if (in->claims == 0 && in->listener.copy != NULL)
        local_copy_note_use(in->listener.copy); /* it may make room for others, but not before copies that are older */
}

/* --- The tick -------------------------------------------------------------------------------------- */

static bool lease_bucket_is_unused(const struct lease_bucket *in)
{
    const struct store *store = in->store;
    uint64_t kept_ms = in->was_opened ? KEPT_FOR * (uint64_t)store->conf->locks.lease_ttl_ms : 0;

    return !lease_any(in) && in->holdings == NULL && in->line == NULL && in->checks == NULL && in->working == 0 &&
           in->locks == NULL && in->answered == NULL && in->claims == 0 && !foreign_lease_any_busy(in) &&
           uv_now(store->loop) - in->used_ms >= kept_ms;
}

static void on_lease_bucket_tick(struct timer *timer);

static void lease_bucket_start_tick(struct lease_bucket *in)
{
    struct store *store = in->store;
    uint64_t ttl_ms = store->conf->locks.lease_ttl_ms;

    if (in->lease != NULL && in->lease->ttl_ms < ttl_ms) /* of the last run, when the setting was shorter */
        ttl_ms = in->lease->ttl_ms;
    uint64_t tick_ms = ttl_ms / TICKS_PER_TTL < TICK_MS_MAX ? ttl_ms / TICKS_PER_TTL : TICK_MS_MAX;
    timer_start(store->timers, &in->tick, uv_now(store->loop) + tick_ms, on_lease_bucket_tick);
}

static void on_lease_bucket_tick(struct timer *timer)
{
    struct lease_bucket *in = (struct lease_bucket *)((char *)timer - offsetof(struct lease_bucket, tick));

    if (in->store->leases->is_ended)
        return;
    if (lease_bucket_is_unused(in)) {
        lease_bucket_free(in);
        return;
    }
    lease_bucket_start_tick(in);
    if (in->lease != NULL && in->was_opened)
        lease_bucket_listen(in);
    lease_bucket_list(in);
    lease_tick(in);
    holding_line_run(in);
    foreign_lease_tick(in);
}

/* --- Life ------------------------------------------------------------------------------------------ */

struct lease_bucket *lease_bucket_find(struct store *store, const char *bucket)
{
    struct lease_bucket *in = NULL;

    if (store->leases->buckets != NULL)
        HASH_FIND_STR(store->leases->buckets, bucket, in);
    return in;
}

void lease_bucket_note_use(struct lease_bucket *in)
{
    in->used_ms = uv_now(in->store->loop);
}

struct lease_bucket *lease_bucket_obtain(struct store *store, const char *bucket)
{
    struct lease_bucket *in = lease_bucket_find(store, bucket);

    if (in == NULL) {
        in = calloc(1, sizeof(*in));
        if (in == NULL)
            return NULL;
        in->store = store;
        in->listener.entry = lease_bucket_on_entry;
        in->listener.doubt = lease_bucket_on_doubt;
        in->listener.caught_up = lease_bucket_on_caught_up;
        in->listener.ended = lease_bucket_on_ended;
        snprintf(in->name, sizeof(in->name), "%s", bucket);
        HASH_ADD_STR(store->leases->buckets, name, in);
        lease_bucket_start_tick(in);
    }
    lease_bucket_note_use(in);
    return in;
}

bool lease_bucket_read(struct lease_bucket *in, struct arena *arena, const char *key, uint64_t deadline_ms,
                       get_done_fn *done, void *arg)
{
    struct get *get = arena_zalloc(arena, sizeof(*get));

    if (get == NULL)
        return false;
    get->bucket_name = in->name;
    get->key = key;
    get->consistency = READ_LEADER;
    get->deadline_ms = deadline_ms;
    get->done = done;
    get->arg = arg;
    get_start(in->store, arena, get);
    return true;
}

bool lease_bucket_deletion_is_over(const struct error *error)
{
    return error == NULL || error->code == ERROR_CONFLICT || error->code == ERROR_BUCKET_NOT_FOUND ||
           error->code == ERROR_PERMISSION_DENIED || error->code == ERROR_UNSUPPORTED;
}

void lease_bucket_free(struct lease_bucket *in)
{
    timer_stop(in->store->timers, &in->tick);
    local_copy_stop_listening(&in->listener);
    lease_bucket_stop_listing(in);
    jobs_remove(in->store->jobs, &in->answering);
    jobs_remove(in->store->jobs, &in->passing);
    foreign_lease_free_all(in);
    holding_free_all(in);
    lease_free_all(in);
    HASH_DEL(in->store->leases->buckets, in);
    free(in);
}
