#include "daemon/store/lease/holding.h"

#include "daemon/base/clock.h"
#include "daemon/store/lease/held_write.h"
#include "daemon/store/lease/holding_line.h"
#include "daemon/store/lease/holding_pass.h"
#include "daemon/store/lease/lease_file.h"
#include "daemon/store/lease/leases.h"
#include "daemon/store/lease/lock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* --- Life ------------------------------------------------------------------------------------------ */

struct holding *holding_find(const struct lease_bucket *in, const char *key)
{
    struct holding *holding = NULL;

    if (in->holdings != NULL)
        HASH_FIND_STR(in->holdings, key, holding);
    return holding;
}

static struct leases *holding_room(const struct holding *holding)
{
    return holding->lease->in->store->leases;
}

static struct timers *holding_timers(const struct holding *holding)
{
    return holding->lease->in->store->timers;
}

/* Another holding replaces it in the table. */
static void holding_leave_table(struct holding *holding)
{
    if (!holding->is_known)
        return;
    holding_pass_leave(holding->lease->in, holding);
    HASH_DEL(holding->lease->in->holdings, holding);
    holding->is_known = false;
}

static void holding_free(struct holding *holding)
{
    free(holding->value);
    free(holding);
}

static void holding_enter(struct holding *holding, enum holding_state state)
{
    struct leases *room = holding_room(holding);
    struct lease_bucket *in = holding->lease->in;

    room->counts.held += (unsigned)(state == HOLDING_HELD) - (unsigned)(holding->state == HOLDING_HELD);
    in->lost += (unsigned)(state == HOLDING_LOST) - (unsigned)(holding->state == HOLDING_LOST);
    holding->state = state;
}

static void holding_tell_lost(struct holding *holding, const struct error *error)
{
    holding_lost_fn *lost = holding->lost;

    holding->lost = NULL;
    if (lost == NULL)
        return;
    holding_room(holding)->counts.lost += holding->kind == HOLDING_LOCK;
    lost(holding->arg, error);
}

void holding_give_up(struct holding *holding, uint64_t revision, bool is_overwritten)
{
    struct error error;

    if (revision > 0)
        error_set(&error, ERROR_CONFLICT, "the key was %s, at revision %" PRIu64,
                  is_overwritten ? "written" : "deleted", revision);
    else
        error_set(&error, ERROR_CONFLICT, "the server has lost the key");
    error.has_revision = revision > 0;
    error.revision = revision;
    holding->is_overwritten = is_overwritten;
    holding_enter(holding, HOLDING_ENDING);
    holding_tell_lost(holding, &error);
    holding_finish(holding, 0);
}

/* Make room in the table for a newer holding of the key. */
static void holding_replace(struct holding *holding, uint64_t revision, bool is_written)
{
    holding_leave_table(holding);
    if (holding->state != HOLDING_ENDING)
        holding_give_up(holding, revision, is_written);
    else if (holding->line == NULL && !holding->is_working) /* the line has left it to the next run */
        holding_finish(holding, 0);
}

/* is_written: for a session, and not one that is to be deleted. */
static struct holding *holding_new(struct lease *lease, enum holding_kind kind, const char *key, uint64_t revision,
                                   const char *owner, bool is_written)
{
    struct holding *earlier = holding_find(lease->in, key);
    size_t length = strlen(key);
    struct holding *holding = calloc(1, sizeof(*holding) + length + 1);

    if (holding == NULL)
        return NULL;
    if (earlier != NULL)
        holding_replace(earlier, revision, is_written);
    memcpy(holding->key, key, length + 1);
    holding->lease = lease;
    holding->kind = kind;
    holding->revision = revision;
    if (owner != NULL)
        snprintf(holding->owner, sizeof(holding->owner), "%s", owner);
    holding->doubts = lease->in->doubts;
    HASH_ADD_KEYPTR(hh, lease->in->holdings, holding->key, length, holding);
    holding->is_known = true;
    lease_retain(lease);
    return holding;
}

void holding_cancel_release(struct holding_release *release)
{
    if (release->holding == NULL)
        return;
    DL_DELETE2(release->holding->releases, release, previous, next);
    release->holding = NULL;
}

void holding_finish(struct holding *holding, uint64_t marker_revision)
{
    struct lease_bucket *in = holding->lease->in;
    bool was_known = holding->is_known;
    char key[KV_KEY_LENGTH_MAX + 1];

    snprintf(key, sizeof(key), "%s", holding->key);
    timer_stop(holding_timers(holding), &holding->timer);
    lease_file_end_deletion(in->store, in->name, holding->lease->id, key, holding->revision, holding);
    holding_leave_table(holding);
    holding_line_leave(holding);
    while (holding->releases != NULL) {
        struct holding_release *release = holding->releases;
        holding_cancel_release(release);
        release->done(release->arg);
    }
    lease_release(holding->lease);
    lease_bucket_note_use(in);
    holding_free(holding);
    if (was_known)
        lock_wake(in, key, marker_revision);
}

/* --- The end --------------------------------------------------------------------------------------- */

static void holding_get_in_line(struct holding *holding)
{
    holding_enter(holding, HOLDING_ENDING);
    holding->lost = NULL;
    timer_stop(holding_timers(holding), &holding->timer);
    if (holding->lease->is_given_up)
        holding_finish(holding, 0);
    else
        holding_line_join(holding);
}

void holding_end(struct holding *holding)
{
    struct lease_bucket *in = holding->lease->in;

    if (holding->state == HOLDING_ENDING)
        return;
    holding_get_in_line(holding);
    holding_line_run(in);
}

bool holding_is_idle(const struct lease_bucket *in)
{
    return in->line == NULL && in->checks == NULL && in->working == 0 && in->lost == 0;
}

/* --- Making one ------------------------------------------------------------------------------------ */

struct holding *holding_add(struct lease *lease, enum holding_kind kind, const char *key, uint64_t revision,
                            const char *owner)
{
    struct holding *holding = holding_new(lease, kind, key, revision, owner, true);

    if (holding == NULL)
        return NULL;
    holding_enter(holding, HOLDING_HELD);
    return holding;
}

void holding_note_value(struct holding *holding, const char *value, size_t bytes)
{
    free(holding->value);
    holding->value = malloc(bytes + 1);
    holding->value_bytes = bytes;
    if (holding->value != NULL && bytes > 0)
        memcpy(holding->value, value, bytes);
}

static struct holding *holding_of_timer(struct timer *timer)
{
    return (struct holding *)((char *)timer - offsetof(struct holding, timer));
}

static void on_holding_orphaned_too_long(struct timer *timer)
{
    holding_end(holding_of_timer(timer));
}

void holding_orphan(struct holding *holding)
{
    struct store *store = holding->lease->in->store;

    holding_enter(holding, HOLDING_ORPHANED);
    holding->lost = NULL;
    timer_start(store->timers, &holding->timer, uv_now(store->loop) + holding->lease->ttl_ms,
                on_holding_orphaned_too_long);
}

void holding_add_found(struct lease *lease, const struct kv_entry *entry, bool awaits_owner)
{
    struct holding *holding =
        holding_new(lease, HOLDING_LOCK, entry->key, entry->revision, lease_text_owner_of(entry), false);

    if (holding == NULL)
        return; /* it is found again when somebody wants the lock, or at the end of the lease */
    holding->awaits_owner = awaits_owner; /* who found it may have read old data: look before anybody relies on it */
    holding_get_in_line(holding);         /* the tick starts */
}

void holding_add_doubtful(struct lease *lease, const char *key, bool may_await_owner)
{
    struct holding *known = holding_find(lease->in, key);

    if (known != NULL && known->lease == lease && holding_can_be_attached(known)) {
        known->is_doubtful = true; /* its session keeps it, unless the key changes */
        known->doubts = UINT64_MAX;
        known->looks = 0;
        holding_line_check(known);
        return;
    }
    bool is_lost = known != NULL && known->state == HOLDING_LOST; /* nobody else may have the lock yet */
    struct holding *holding = is_lost ? NULL : holding_new(lease, HOLDING_LOCK, key, 0, NULL, false);
    if (holding == NULL) {
        lease_find_keys_again(lease);
        return;
    }
    holding->awaits_owner = may_await_owner;
    holding_get_in_line(holding);
}

bool holding_can_be_attached(const struct holding *holding)
{
    return holding->state == HOLDING_HELD || holding->state == HOLDING_ORPHANED;
}

void holding_attach(struct holding *holding, holding_lost_fn *lost, void *arg)
{
    holding_lost_fn *former = holding->lost;
    void *former_arg = holding->arg;
    struct error error;

    timer_stop(holding_timers(holding), &holding->timer);
    holding_enter(holding, HOLDING_HELD);
    holding->lost = lost;
    holding->arg = arg;
    if (former == NULL)
        return;
    error_set(&error, ERROR_NOT_HELD, "the owner of the lock has acquired it in another session");
    former(former_arg, &error);
}

void holding_leave(struct holding *holding)
{
    if (holding->state == HOLDING_ORPHANED)
        return; /* its owner came back, and has left again before it got the holding */
    if (holding->owner[0] != '\0' && holding->lease->state == LEASE_ALIVE)
        holding_orphan(holding);
    else
        holding_end(holding);
}

void holding_release(struct holding *holding, struct holding_release *release, void (*done)(void *arg), void *arg)
{
    release->holding = holding;
    release->done = done;
    release->arg = arg;
    DL_APPEND2(holding->releases, release, previous, next);
    holding_end(holding);
}

/* --- Loss ------------------------------------------------------------------------------------------ */

bool holding_is_named(const struct holding *holding, const struct kv_entry *entry)
{
    const char *id = lease_text_lease_of(entry);

    return id != NULL && strcmp(id, holding->lease->id) == 0;
}

void holding_note_entry(struct lease_bucket *in, const struct kv_entry *entry)
{
    struct holding *holding = holding_find(in, entry->key);

    if (holding == NULL || holding->state == HOLDING_ENDING)
        return;
    bool is_ours = holding_is_named(holding, entry);
    if (entry->revision == holding->revision && is_ours) {
        holding->is_seen = true;
        return;
    }
    if (entry->revision == holding->revision) { /* a server that was set back has used it again */
        holding_line_check(holding);
        return;
    }
    if (entry->revision < holding->revision) {
        if (holding->doubts != in->doubts) /* the server may have been set back: only the key can tell */
            holding_line_check(holding);
        return;
    }
    /* During a look it may be the look itself that tells this, with the memory of the look. */
    if (holding->is_working) {
        holding_line_note_change(holding, entry);
        return;
    }
    /* If the value names the lease and no write is in progress, it has no session: the daemon deletes it. */
    bool is_deleted = entry->operation != KV_PUT || (is_ours && !held_write_is_in_progress(in, entry->key));
    holding_give_up(holding, entry->revision, !is_deleted);
}

static void on_holding_vouched_until(struct timer *timer);

/* Return whether the session of a lost lock may still rely on it. A timer that fires early starts again. */
static bool holding_wait_vouched(struct holding *holding)
{
    struct store *store = holding->lease->in->store;
    uint64_t now_ms = clock_boot_ms();

    if (now_ms >= holding->vouched_until_ms)
        return false;
    timer_start(store->timers, &holding->timer, uv_now(store->loop) + holding->vouched_until_ms - now_ms,
                on_holding_vouched_until);
    return true;
}

static void on_holding_vouched_until(struct timer *timer)
{
    struct holding *holding = holding_of_timer(timer);

    if (!holding_wait_vouched(holding))
        holding_end(holding);
}

void holding_lose(struct holding *holding, const struct error *error)
{
    holding_tell_lost(holding, error);
    timer_stop(holding_timers(holding), &holding->timer);
    holding_enter(holding, HOLDING_LOST);
    holding->vouched_until_ms = holding->kind == HOLDING_LOCK ? holding->lease->valid_until_ms : 0;
    if (!holding_wait_vouched(holding))
        holding_get_in_line(holding);
}

void holding_take_away(struct holding *holding, const struct error *error)
{
    struct lease_bucket *in = holding->lease->in;

    holding_lose(holding, error);
    holding_line_run(in);
}

void holding_end_lost(struct lease_bucket *in)
{
    struct holding *holding, *next;

    HASH_ITER(hh, in->holdings, holding, next)
    {
        if (holding->state == HOLDING_LOST)
            holding_get_in_line(holding);
    }
    holding_line_run(in);
}

void holding_free_all(struct lease_bucket *in)
{
    struct holding *holding, *next;

    DL_FOREACH_SAFE2(in->line, holding, next, next_in_line)
    {
        if (!holding->is_known)
            holding_free(holding);
    }
    in->line = in->checks = NULL;
    HASH_ITER(hh, in->holdings, holding, next)
    {
        timer_stop(in->store->timers, &holding->timer);
        HASH_DEL(in->holdings, holding);
        holding_free(holding);
    }
}
