#include "daemon/store/lease/lease.h"

#include "daemon/base/clock.h"
#include "daemon/base/log.h"
#include "daemon/store/lease/held_write.h"
#include "daemon/store/lease/holding_pass.h"
#include "daemon/store/lease/lease_end.h"
#include "daemon/store/lease/lease_file.h"
#include "daemon/store/lease/lease_key.h"
#include "daemon/store/lease/lease_settings.h"
#include "daemon/store/lease/lease_wait.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define ARENA_BYTES 2048u

/* The clock rates of two hosts may differ by one part in this many. */
#define CLOCK_DRIFT 50u

/* A lease counts as lost this part of its TTL before its time is over, so that the sessions are notified in time. */
#define LOST_BEFORE 8u

/* The pause between two attempts, as a part of the TTL. */
#define RETRY_AFTER 12u

/* --- Small things ---------------------------------------------------------------------------------- */

uint64_t lease_now(const struct lease *lease)
{
    return uv_now(lease->in->store->loop);
}

static struct leases *lease_room(const struct lease *lease)
{
    return lease->in->store->leases;
}

uint64_t lease_valid_for_ms(const struct lease *lease)
{
    uint64_t now_ms = clock_boot_ms();

    return lease->state == LEASE_ALIVE && lease->valid_until_ms > now_ms ? lease->valid_until_ms - now_ms : 0;
}

/* Return whether the bucket came into doubt after the last look that has shown that the lease is alive. */
static bool lease_is_in_doubt(const struct lease *lease)
{
    return lease->known_doubts != lease->in->doubts;
}

struct lease *lease_find(const struct lease_bucket *in, const char *id)
{
    struct lease *lease;

    if (in->lease != NULL && strcmp(in->lease->id, id) == 0)
        return in->lease;
    DL_FOREACH2(in->ending, lease, next)
    {
        if (strcmp(lease->id, id) == 0)
            return lease;
    }
    return NULL;
}

void lease_retain(struct lease *lease)
{
    lease->references++;
    lease->unused_ms = 0;
}

void lease_release(struct lease *lease)
{
    if (--lease->references == 0)
        lease->unused_ms = lease_now(lease);
}

static struct lease *lease_new(struct lease_bucket *in, const char *id)
{
    struct lease *lease = calloc(1, sizeof(*lease));

    if (lease == NULL || !arena_init(&lease->arena, ARENA_BYTES)) {
        free(lease);
        return NULL;
    }
    lease->in = in;
    lease->ttl_ms = in->store->conf->locks.lease_ttl_ms;
    lease->unused_ms = lease_now(lease);
    if (id != NULL)
        snprintf(lease->id, sizeof(lease->id), "%s", id);
    else
        operation_make_id(in->store, lease->id);
    snprintf(lease->key, sizeof(lease->key), "%s%s", KV_LEASE_PREFIX, lease->id);
    return lease;
}

/* A write goes on to its end, because it may be in a batch with others. */
static void lease_stop_work(struct lease *lease)
{
    bucket_wait_cancel(&lease->wait);
    lease_scan_stop(&lease->scan);
    jetstream_cancel(&lease->settings);
    lease_file_cancel(lease->in->store, lease);
    if (lease->work == LEASE_WRITING)
        return;
    arena_clear(&lease->arena);
    lease->work = LEASE_IDLE;
}

void lease_free(struct lease *lease)
{
    lease_stop_work(lease);
    arena_destroy(&lease->arena);
    free(lease);
}

void lease_retry_later(struct lease *lease)
{
    lease->renew_ms = lease_now(lease) + lease->ttl_ms / RETRY_AFTER;
}

/* --- The end --------------------------------------------------------------------------------------- */

static void lease_open(struct lease *lease);

/* Let those who wait for a lease that has ended wait for a new one. */
static void lease_replace(struct lease *lease)
{
    struct error error;

    if (lease->waits == NULL)
        return;
    struct lease *replacement = lease_new(lease->in, NULL);
    if (replacement == NULL) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        lease_answer_waits(lease, &error);
        return;
    }
    lease_move_waits(lease, replacement);
    lease->in->lease = replacement;
    lease_open(replacement);
}

/* The lease is lost: nobody may rely on it. */
static void lease_lose(struct lease *lease, const struct error *error)
{
    struct error why = *error; /* its memory may be that of the work that is stopped */

    if (lease->state != LEASE_ALIVE)
        return;
    /* A lease that no session uses is not missed. Maybe the bucket was deleted. */
    log_write(lease->references > 0 ? CONF_LOG_WARNING : CONF_LOG_INFO,
              "bucket %s: the lease of this daemon is lost, with %u locks and ephemeral keys: %s", lease->in->name,
              lease->references, why.message);
    lease_bucket_doubt(lease->in); /* it may be another one */
    lease_stop_work(lease);
    lease_end_begin(lease);
    lease_end_notify(lease, &why);
    lease_replace(lease);
}

/*
 * The lease could not be opened; nothing refers to it. If it was to be adopted, try that again, unless the bucket is
 * gone.
 */
static void lease_fail(struct lease *lease, const struct error *error)
{
    struct lease_bucket *in = lease->in;
    struct error copy = *error;

    if (lease->is_adopted && error->code != ERROR_BUCKET_NOT_FOUND) {
        lease_retry_later(lease);
        arena_clear(&lease->arena);
        return;
    }
    in->lease = NULL;
    lease_file_remove(in->store, in->name, lease->id);
    if (copy.outcome == ERROR_OUTCOME_UNKNOWN) /* of the lease's own key. Those who wait have written nothing yet */
        error_set(&copy, error->code, "the lease of this daemon could not be written; nothing was done, try again");
    copy.outcome = ERROR_OUTCOME_NONE;
    copy.bucket = copy.key = NULL;
    copy.has_revision = false;
    lease_answer_waits(lease, &copy);
    lease_free(lease);
}

static void lease_note_renewed(struct lease *lease, uint64_t revision)
{
    lease->revision = revision;
    lease->known_doubts = lease->work_doubts;
    lease->valid_until_ms = lease->sent_ms + lease->ttl_ms - lease->ttl_ms / CLOCK_DRIFT;
    lease->renew_ms = lease_now(lease) + lease->ttl_ms / 3;
    lease_room(lease)->counts.renewals++;
}

/* --- Looking at its key ---------------------------------------------------------------------------- */

/* Return the end of the lease's time by the loop's clock: until then an attempt to renew it makes sense. */
static uint64_t lease_deadline_ms(const struct lease *lease)
{
    return lease_now(lease) + lease_valid_for_ms(lease);
}

/* Lose the lease because its key is not as this process has left it. entry: the key's last message, NULL: none. */
static void lease_lose_to(struct lease *lease, const struct kv_entry *entry)
{
    struct lease_text text;
    struct error error;

    if (entry != NULL && lease_text_read(entry, &text) && text.is_alive) {
        error_set(&error, ERROR_CONFLICT, "another process of this daemon has taken over its lease in the bucket");
        lease->is_given_up = true;
    } else if (entry != NULL) {
        error_set(&error, ERROR_CONFLICT,
                  "the lease was not renewed in time, and another daemon has declared it dead; acquire again");
    } else {
        error_set(&error, ERROR_CONFLICT, "the lease was removed from the bucket; acquire again");
    }
    lease_lose(lease, &error);
}

/* The keys that name the lease may have changed, and those of ended sessions may be back. */
static void lease_doubt_keys(struct lease *lease)
{
    lease_bucket_doubt(lease->in);
    lease->needs_scan = true;
    holding_pass_start(lease->in, HOLDING_PASS_LOCKS);
}

static void lease_look(struct lease *lease);

/*
 * The lease was alive when the last work on its key began. If it is in doubt since then, look at the key again. That
 * work has looked the bucket up, if it was not known.
 */
static void lease_settle(struct lease *lease)
{
    const struct bucket *bucket = bucket_find_known(lease->in->store, lease->in->name);
    struct error error;

    if (bucket != NULL && !lease_settings_check(bucket, &error))
        lease_lose(lease, &error);
    else if (lease_is_in_doubt(lease))
        lease_look(lease);
    else
        lease_answer_waits(lease, NULL);
}

/* A renewal was refused, or its outcome is not known: the key shows what is stored. */
static void on_lease_read(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct lease *lease = arg;
    struct lease_text text;

    lease->work = LEASE_IDLE;
    if (error != NULL && error->code == ERROR_BUCKET_NOT_FOUND) {
        lease_lose(lease, error);
    } else if (error != NULL) {
        lease_retry_later(lease);
        arena_clear(&lease->arena);
    } else if (lease_key_is_own(lease, entry, &text)) {
        bool is_set_back = entry->revision < lease->revision;
        lease->known_doubts = lease->work_doubts;
        bool is_stored = text.renewal == lease->renewal; /* the last renewal that was sent */
        if (is_stored && entry->revision != lease->revision)
            lease_note_renewed(lease, entry->revision);
        else if (!is_stored)
            lease->renew_ms = lease_now(lease);
        lease->revision = entry->revision;
        arena_clear(&lease->arena);
        if (is_set_back)
            lease_doubt_keys(lease);
        lease_settle(lease);
    } else {
        lease_lose_to(lease, entry);
    }
}

static void lease_look(struct lease *lease)
{
    if (!lease_key_read(lease, lease_deadline_ms(lease), on_lease_read))
        lease_retry_later(lease);
}

void lease_note_entry(struct lease *lease, const struct kv_entry *entry)
{
    struct lease_text text;

    if (lease->state != LEASE_ALIVE || entry->revision <= lease->revision || lease_key_is_own(lease, entry, &text))
        return;
    lease_doubt(lease->in);
}

void lease_doubt(struct lease_bucket *in)
{
    struct lease *lease = in->lease;

    if (lease == NULL || lease->state != LEASE_ALIVE) {
        lease_bucket_doubt(in);
        return;
    }
    lease_doubt_keys(lease);
    if (lease->work == LEASE_IDLE)
        lease_look(lease); /* otherwise it is looked at after the present work */
}

/* --- Renewing -------------------------------------------------------------------------------------- */

static void on_lease_renewed(void *arg, uint64_t revision, const struct error *error)
{
    struct lease *lease = arg;
    bool is_unclear = error != NULL && (error->code == ERROR_CONFLICT || error->outcome == ERROR_OUTCOME_UNKNOWN);

    lease->work = LEASE_IDLE;
    if (lease->state != LEASE_ALIVE) { /* it was lost meanwhile */
        arena_clear(&lease->arena);
    } else if (error == NULL) {
        lease_note_renewed(lease, revision);
        arena_clear(&lease->arena);
        lease_settings_look(lease);
        lease_settle(lease);
    } else if (error->code == ERROR_BUCKET_NOT_FOUND) {
        lease_lose(lease, error);
    } else if (is_unclear) {
        arena_clear(&lease->arena);
        lease_look(lease);
    } else {
        lease_retry_later(lease);
        arena_clear(&lease->arena);
    }
}

static void lease_renew(struct lease *lease)
{
    if (!lease_key_write(lease, KV_PUT, OPERATION_IF_AT_REVISION, lease_deadline_ms(lease), on_lease_renewed))
        lease_retry_later(lease);
}

/* While the bucket is not followed, the daemon is not told that a lock's key was deleted or overwritten: look at it. */
static void lease_check_unfollowed(struct lease *lease)
{
    uint64_t now_ms = lease_now(lease);
    bool is_followed = lease_bucket_is_followed(lease->in);

    if (!is_followed && now_ms < lease->check_ms)
        return;
    lease->check_ms = now_ms + lease->ttl_ms / 3;
    if (!is_followed)
        holding_pass_start(lease->in, HOLDING_PASS_LOCKS);
}

/* Return whether the lease must be lost now, so that the sessions are notified in time. */
static bool lease_is_overdue(const struct lease *lease)
{
    return lease_valid_for_ms(lease) <= lease->ttl_ms / LOST_BEFORE;
}

static void lease_tick_alive(struct lease *lease)
{
    uint64_t now_ms = lease_now(lease);
    struct error error;

    if (lease_is_overdue(lease)) {
        error_set(&error, ERROR_UNAVAILABLE, "the lease could not be renewed within its TTL (locks.lease_ttl, %.3g s)",
                  (double)lease->ttl_ms / 1000.0);
        lease->needs_scan = true;
        lease_lose(lease, &error);
        return;
    }
    lease_find_keys(lease);
    lease_check_unfollowed(lease);
    bool is_used = lease->references > 0 || lease->waits != NULL || lease->needs_scan;
    if (lease->work != LEASE_IDLE)
        return;
    if (!is_used && now_ms - lease->unused_ms > lease->ttl_ms)
        lease_end_begin(lease);
    else if (now_ms >= lease->renew_ms)
        lease_renew(lease);
}

/* --- Opening --------------------------------------------------------------------------------------- */

static void on_lease_opened(void *arg, uint64_t revision, const struct error *error)
{
    struct lease *lease = arg;

    lease->work = LEASE_IDLE;
    if (error != NULL) {
        lease_fail(lease, error);
        return;
    }
    lease->state = LEASE_ALIVE;
    lease_bucket_listen(lease->in);
    lease_note_renewed(lease, revision);
    arena_clear(&lease->arena);
    if (lease->is_adopted) {
        log_info("bucket %s: adopted the lease of the daemon's last run", lease->in->name);
        lease_find_keys(lease);
    }
    lease_settle(lease);
}

static void lease_fail_out_of_memory(struct lease *lease)
{
    struct error error;

    error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    lease_fail(lease, &error);
}

uint64_t lease_opening_deadline_ms(const struct lease *lease)
{
    return lease_now(lease) + lease->in->store->conf->calls.timeout_ms;
}

/* The file has the lease, or cannot have it: then a later run cannot adopt it. */
static void on_lease_noted(void *arg)
{
    struct lease *lease = arg;

    if (!lease_key_write(lease, KV_PUT, OPERATION_IF_ABSENT, lease_opening_deadline_ms(lease), on_lease_opened))
        lease_fail_out_of_memory(lease);
}

/* The lease of the last run is adopted if it is alive. Otherwise its keys are deleted. */
static void on_adopted_lease_read(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct lease *lease = arg;
    struct lease_text text;

    lease->work = LEASE_IDLE;
    if (error != NULL) {
        lease_fail(lease, error);
        return;
    }
    if (entry != NULL && lease_text_read(entry, &text) && text.is_alive) {
        lease->revision = entry->revision;
        lease->ttl_ms = text.ttl_ms;
        lease->renewal = text.renewal;
        arena_clear(&lease->arena);
        if (!lease_key_write(lease, KV_PUT, OPERATION_IF_AT_REVISION, lease_opening_deadline_ms(lease),
                             on_lease_opened))
            lease_fail_out_of_memory(lease);
        return;
    }
    lease_end_begin(lease); /* it is dead: others may have its locks by now */
    lease_replace(lease);
}

static void on_lease_bucket(void *arg, struct bucket *bucket, const struct error *error)
{
    struct lease *lease = arg;
    struct error unsupported;

    lease->work = LEASE_IDLE;
    if (error != NULL) {
        lease_fail(lease, error);
        return;
    }
    lease->allows_ttl = bucket->allows_ttl;
    lease->is_exclusive = bucket->is_exclusive;
    bool is_supported = lease_settings_check(bucket, &unsupported);
    bucket_release(bucket);
    if (!is_supported && !lease->is_adopted) {
        lease_fail(lease, &unsupported);
        return;
    }
    if (lease->is_adopted) {
        if (!lease_key_read(lease, lease_opening_deadline_ms(lease), on_adopted_lease_read))
            lease_retry_later(lease);
        return;
    }
    lease->work = LEASE_NOTING;
    lease_file_add(lease->in->store, lease->in->name, lease->id, on_lease_noted, lease);
}

static void lease_open(struct lease *lease)
{
    lease->work = LEASE_LOOKING_UP;
    bucket_open(lease->in->store, &lease->wait, lease->in->name, 0, lease_opening_deadline_ms(lease), on_lease_bucket,
                lease);
}

void lease_obtain(struct lease_bucket *in, struct lease_wait *wait, uint64_t deadline_ms,
                  void (*ready)(void *arg, struct lease *lease, const struct error *error), void *arg)
{
    struct lease *lease = in->lease;
    struct error error;

    if (lease != NULL && lease->state == LEASE_ALIVE && lease_is_overdue(lease)) {
        lease_tick_alive(lease); /* loses it */
        lease = in->lease;
    }
    if (lease != NULL && lease->state == LEASE_ALIVE && !lease_is_in_doubt(lease)) {
        ready(arg, lease, NULL);
        return;
    }
    bool is_new = lease == NULL;
    if (is_new)
        lease = lease_new(in, NULL);
    if (lease == NULL) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        ready(arg, NULL, &error);
        return;
    }
    wait->ready = ready;
    wait->arg = arg;
    lease_add_wait(lease, wait, deadline_ms);
    if (is_new) {
        in->lease = lease;
        lease_open(lease);
    }
}

void lease_adopt(struct lease_bucket *in, const char *id)
{
    struct lease *lease = lease_new(in, id);

    if (lease == NULL)
        return;
    lease->is_adopted = true;
    lease->needs_scan = true;
    if (in->lease == NULL) {
        in->lease = lease;
        lease_open(lease);
    } else {
        lease_end_begin(lease); /* it was ending in the last run already, because the bucket has a newer one */
    }
}

void lease_end_foreign(struct lease_bucket *in, const char *id)
{
    struct lease *lease = lease_find(in, id) == NULL ? lease_new(in, id) : NULL;

    if (lease == NULL)
        return;
    lease->is_foreign = true;
    lease->needs_scan = true;
    lease_end_begin(lease);
}

void lease_tick(struct lease_bucket *in)
{
    struct lease *lease, *next;

    if (in->lease != NULL && in->lease->state == LEASE_ALIVE)
        lease_tick_alive(in->lease);
    else if (in->lease != NULL && in->lease->work == LEASE_IDLE && in->lease->is_adopted &&
             lease_now(in->lease) >= in->lease->renew_ms)
        lease_open(in->lease);
    DL_FOREACH_SAFE2(in->ending, lease, next, next)
    {
        lease_end_tick(lease);
    }
}

void lease_free_all(struct lease_bucket *in)
{
    struct lease *lease, *next;

    if (in->lease != NULL)
        lease_free(in->lease);
    in->lease = NULL;
    DL_FOREACH_SAFE2(in->ending, lease, next, next)
    {
        DL_DELETE2(in->ending, lease, previous, next);
        lease_free(lease);
    }
}
