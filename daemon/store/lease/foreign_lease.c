#include "daemon/store/lease/foreign_lease.h"

#include "daemon/base/chance.h"
#include "daemon/base/clock.h"
#include "daemon/base/log.h"
#include "daemon/store/lease/lease.h"
#include "daemon/store/write/write.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define ARENA_BYTES 2048u

/* The time that a read or write of a lease's key may take. Waiters have their own deadlines. */
#define ASKING_MS 5000u

/*
 * A lease for which nobody waits is declared dead later, by a random time of up to its TTL divided by this, so that not
 * all daemons do it at once. Its keys are to be gone within two TTLs.
 */
#define ABANDONED_SPREAD 2u

/* A lease that nobody has asked for is forgotten after this number of TTLs. */
#define FORGOTTEN_AFTER 4u

/* How long the declaration waits for a feed to be live again, in TTLs. */
#define RETURN_TTLS 3u

/* The pause before a lease whose time is up is tried again, as a part of its TTL. A mirror may show an old revision. */
#define RETRY_AFTER 12u

static struct foreign_lease *foreign_lease_find(const struct lease_bucket *in, const char *id)
{
    struct foreign_lease *lease = NULL;

    if (in->others != NULL)
        HASH_FIND_STR(in->others, id, lease);
    return lease;
}

static struct foreign_lease *foreign_lease_obtain(struct lease_bucket *in, const char *id)
{
    struct foreign_lease *lease = foreign_lease_find(in, id);

    if (lease != NULL)
        return lease;
    lease = calloc(1, sizeof(*lease));
    if (lease == NULL || !arena_init(&lease->arena, ARENA_BYTES)) {
        free(lease);
        return NULL;
    }
    lease->in = in;
    lease->ttl_ms = in->store->conf->locks.lease_ttl_ms;
    lease->used_ms = uv_now(in->store->loop);
    lease->chance = chance_number();
    snprintf(lease->id, sizeof(lease->id), "%s", id);
    snprintf(lease->key, sizeof(lease->key), "%s%s", KV_LEASE_PREFIX, id);
    HASH_ADD_STR(in->others, id, lease);
    return lease;
}

static void foreign_lease_free(struct foreign_lease *lease)
{
    jobs_remove(lease->in->store->jobs, &lease->answering);
    arena_destroy(&lease->arena);
    HASH_DEL(lease->in->others, lease);
    free(lease);
}

static uint64_t foreign_lease_expires_ms(const struct foreign_lease *lease)
{
    return lease->seen_ms + lease->ttl_ms;
}

/* --- Answers --------------------------------------------------------------------------------------- */

void foreign_lease_cancel_wait(struct foreign_lease_wait *wait)
{
    struct foreign_lease *lease = wait->lease;

    if (lease == NULL)
        return;
    if (wait == lease->last_waited)
        lease->last_waited = wait != lease->waits ? wait->previous : NULL;
    DL_DELETE2(lease->waits, wait, previous, next);
    wait->lease = NULL;
}

/* The locks of a daemon that has died can have thousands of waits. A callback may ask again, which appends a wait. */
static bool foreign_lease_run_answering(struct job *job)
{
    struct foreign_lease *lease = (struct foreign_lease *)((char *)job - offsetof(struct foreign_lease, answering));

    while (lease->last_waited != NULL) {
        struct foreign_lease_wait *wait = lease->waits;
        uint64_t now_ms = clock_boot_ms(), expires_ms = foreign_lease_expires_ms(lease);
        uint64_t left_ms = expires_ms > now_ms ? expires_ms - now_ms : lease->ttl_ms / RETRY_AFTER;
        foreign_lease_cancel_wait(wait);
        wait->answered(wait->arg, lease->state == FOREIGN_LEASE_DEAD, left_ms,
                       lease->failure.code != ERROR_NONE ? &lease->failure : NULL);
        if (lease->last_waited != NULL && jobs_slice_is_over(lease->in->store->jobs))
            return true;
    }
    return false;
}

static void foreign_lease_answer(struct foreign_lease *lease, const struct error *error)
{
    lease->failure.code = ERROR_NONE;
    if (error != NULL)
        lease->failure = *error;
    lease->last_waited = lease->waits != NULL ? lease->waits->previous : NULL; /* utlist: the head's is the tail */
    if (foreign_lease_run_answering(&lease->answering))
        jobs_add_shared(lease->in->store->jobs, &lease->answering, foreign_lease_run_answering);
}

/* --- What is seen of a lease ----------------------------------------------------------------------- */

/* Return whether the key is unchanged since it was noted: still absent, or still at its revision. */
static bool foreign_lease_is_unchanged(const struct foreign_lease *lease, const struct kv_entry *entry, bool is_there)
{
    if (lease->state == FOREIGN_LEASE_UNKNOWN)
        return false;
    return is_there ? entry->revision == lease->revision : lease->is_removed;
}

/*
 * Note the last message of the lease's key. entry NULL: the key is absent. That is no proof that the lease is dead: the
 * answer may be old, or somebody may have removed the key. The daemon may vouch for it as long as for one that was
 * renewed just now.
 */
static void foreign_lease_note(struct foreign_lease *lease, const struct kv_entry *entry)
{
    bool is_there = entry != NULL && entry->operation == KV_PUT;
    struct lease_text text = {.is_alive = true};

    if (lease->state == FOREIGN_LEASE_DEAD) {
        lease->is_removed |= !is_there;
        return;
    }
    if (foreign_lease_is_unchanged(lease, entry, is_there))
        return;
    lease->seen_ms = clock_boot_ms();
    lease->is_removed = !is_there;
    lease->revision = entry != NULL ? entry->revision : 0;
    bool is_well = is_there && lease_text_read(entry, &text);
    lease->state = is_well && !text.is_alive ? FOREIGN_LEASE_DEAD : FOREIGN_LEASE_ALIVE;
    if (is_well)
        lease->ttl_ms = text.ttl_ms;
    if (is_well && text.is_alive)
        lease->is_named = false;
}

void foreign_lease_note_entry(struct lease_bucket *in, const char *id, const struct kv_entry *entry)
{
    struct foreign_lease *lease = foreign_lease_obtain(in, id);

    if (lease == NULL || entry->revision < lease->revision)
        return;
    foreign_lease_note(lease, entry);
    if (lease->state == FOREIGN_LEASE_DEAD && !lease->is_asking)
        foreign_lease_answer(lease, NULL);
}

void foreign_lease_forget_all(struct lease_bucket *in)
{
    struct foreign_lease *lease, *next;

    HASH_ITER(hh, in->others, lease, next)
    {
        lease->state = FOREIGN_LEASE_UNKNOWN;
        lease->revision = 0;
        lease->is_removed = false;
        lease->seen_ms = clock_boot_ms();
    }
    lease_bucket_list_again(in); /* those of dead daemons are not renewed, and so not delivered */
}

void foreign_lease_note_ended(struct lease_bucket *in, const char *id)
{
    struct foreign_lease *lease = foreign_lease_find(in, id);

    if (lease != NULL)
        lease->is_removed = true;
}

bool foreign_lease_any_busy(const struct lease_bucket *in)
{
    const struct foreign_lease *lease, *next;

    HASH_ITER(hh, in->others, lease, next)
    {
        if (lease->is_asking || lease->is_named)
            return true;
    }
    return false;
}

void foreign_lease_note_key(struct lease_bucket *in, const char *id)
{
    struct foreign_lease *lease = foreign_lease_obtain(in, id);

    if (lease != NULL && (lease->state != FOREIGN_LEASE_ALIVE || lease->is_removed))
        lease->is_named = true;
}

/* --- Asking ---------------------------------------------------------------------------------------- */

static void foreign_lease_fail_with(struct foreign_lease *lease, const struct error *error)
{
    struct error failed = *error; /* its texts are in the arena */

    failed.bucket = failed.key = NULL;
    if (error->code == ERROR_BUCKET_NOT_FOUND) { /* with all its keys */
        lease->is_removed = true;
        lease->is_named = false;
    }
    arena_clear(&lease->arena);
    foreign_lease_answer(lease, &failed);
}

static void foreign_lease_read(struct foreign_lease *lease);

/* Return whether the bucket's past is in doubt since the question, so that the answer may be about another one. */
static bool foreign_lease_is_outdated(const struct foreign_lease *lease)
{
    return lease->asked_doubts != lease->in->doubts;
}

static void on_foreign_lease_read(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct foreign_lease *lease = arg;

    lease->is_asking = false;
    if (error == NULL && foreign_lease_is_outdated(lease)) {
        arena_clear(&lease->arena);
        foreign_lease_read(lease);
        return;
    }
    if (error == NULL) {
        foreign_lease_note(lease, entry);
        arena_clear(&lease->arena);
        foreign_lease_answer(lease, NULL);
        return;
    }
    foreign_lease_fail_with(lease, error);
}

static void foreign_lease_fail(struct foreign_lease *lease)
{
    struct error error;

    error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    foreign_lease_answer(lease, &error);
}

static void foreign_lease_read(struct foreign_lease *lease)
{
    uint64_t deadline_ms = uv_now(lease->in->store->loop) + ASKING_MS;

    lease->is_asking = true;
    lease->asked_doubts = lease->in->doubts;
    if (lease_bucket_read(lease->in, &lease->arena, lease->key, deadline_ms, on_foreign_lease_read, lease))
        return;
    lease->is_asking = false;
    foreign_lease_fail(lease);
}

/* --- Declaring dead -------------------------------------------------------------------------------- */

/* Return whether the key may have changed: renewed, or declared dead by another daemon, or maybe by this one. */
static bool foreign_lease_may_have_changed(const struct error *error)
{
    return error->code == ERROR_CONFLICT || error->code == ERROR_ALREADY_EXISTS ||
           error->outcome == ERROR_OUTCOME_UNKNOWN;
}

static void on_foreign_lease_declared(void *arg, uint64_t revision, const struct error *error)
{
    struct foreign_lease *lease = arg;
    struct error failed;

    lease->is_asking = false;
    if (error != NULL)
        failed = *error;
    arena_clear(&lease->arena);
    if (error == NULL ? foreign_lease_is_outdated(lease) : foreign_lease_may_have_changed(&failed)) {
        foreign_lease_read(lease);
        return;
    }
    if (error != NULL) {
        foreign_lease_fail_with(lease, &failed);
        return;
    }
    log_info("bucket %s: the lease %s was not renewed for its TTL of %.3g s, and is declared dead", lease->in->name,
             lease->id, (double)lease->ttl_ms / 1000.0);
    lease->state = FOREIGN_LEASE_DEAD;
    lease->is_removed = false;
    lease->revision = revision;
    lease->is_named = false;
    lease->in->store->leases->counts.declared_dead++;
    lease_end_foreign(lease->in, lease->id);
    foreign_lease_answer(lease, NULL);
}

static void foreign_lease_declare_dead(struct foreign_lease *lease)
{
    struct store *store = lease->in->store;
    struct write *write = arena_zalloc(&lease->arena, sizeof(*write));
    struct lease_text text = {.is_alive = false, .ttl_ms = lease->ttl_ms};

    snprintf(text.run, sizeof(text.run), "%s", connection_unique_id(store->connection));
    if (write == NULL || (write->operation.value = lease_text_write(&lease->arena, store, &text)) == NULL) {
        foreign_lease_fail(lease);
        return;
    }
    write->bucket_name = lease->in->name;
    write->operation.key = lease->key;
    write->operation.kind = KV_PUT;
    write->operation.condition = lease->is_removed ? OPERATION_IF_ABSENT : OPERATION_IF_AT_REVISION;
    write->operation.revision = lease->is_removed ? 0 : lease->revision;
    write->operation.value_bytes = strlen(write->operation.value);
    write->deadline_ms = uv_now(store->loop) + ASKING_MS;
    write->done = on_foreign_lease_declared;
    write->arg = lease;
    lease->is_asking = true;
    lease->asked_doubts = lease->in->doubts;
    write_start(store, &lease->arena, write);
}

/*
 * Return whether its time is up. A server that returns may have lost a renewal that was not delivered, and would take
 * the declaration before the feed has noticed: a feed that was live must be live again. If it cannot be, time decides.
 */
static bool foreign_lease_is_expired(const struct foreign_lease *lease)
{
    const struct local_copy *copy = lease->in->listener.copy;
    uint64_t now_ms = clock_boot_ms(), expires_ms = foreign_lease_expires_ms(lease);
    bool is_returning = copy != NULL && copy->feed.live_on != 0 && !feed_is_live(&copy->feed);

    return lease->state == FOREIGN_LEASE_ALIVE &&
           now_ms >= expires_ms + (is_returning ? RETURN_TTLS * lease->ttl_ms : 0);
}

/* Another connection may be to another server, or to one that has lost messages. */
static void foreign_lease_note_connection(struct lease_bucket *in)
{
    uint64_t connection = connection_number(in->store->connection);

    if (in->seen_on != 0 && in->seen_on != connection)
        foreign_lease_forget_all(in);
    in->seen_on = connection;
}

void foreign_lease_ask(struct lease_bucket *in, const char *id, struct foreign_lease_wait *wait)
{
    struct foreign_lease *lease = foreign_lease_obtain(in, id);
    struct error error;

    foreign_lease_note_connection(in);
    if (lease == NULL) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        wait->answered(wait->arg, false, 0, &error);
        return;
    }
    lease->used_ms = uv_now(in->store->loop);
    wait->lease = lease;
    DL_APPEND2(lease->waits, wait, previous, next);
    if (lease->is_asking)
        return;
    if (lease->state == FOREIGN_LEASE_DEAD)
        foreign_lease_answer(lease, NULL);
    else if (foreign_lease_is_expired(lease))
        foreign_lease_declare_dead(lease);
    else if (lease->state == FOREIGN_LEASE_ALIVE && lease_bucket_is_followed(in))
        foreign_lease_answer(lease, NULL);
    else
        foreign_lease_read(lease);
}

/* --- The tick -------------------------------------------------------------------------------------- */

static uint64_t foreign_lease_jitter_ms(const struct foreign_lease *lease)
{
    return lease->chance % (lease->ttl_ms / ABANDONED_SPREAD + 1);
}

static void foreign_lease_tick_one(struct foreign_lease *lease)
{
    uint64_t now_ms = clock_boot_ms(), age_ms = now_ms - lease->seen_ms;
    uint64_t unused_ms = uv_now(lease->in->store->loop) - lease->used_ms;

    if (lease->is_asking)
        return;
    if (lease->waits == NULL && !lease->is_named && unused_ms > FORGOTTEN_AFTER * lease->ttl_ms &&
        (lease->state == FOREIGN_LEASE_UNKNOWN || lease->is_removed || lease->in->listener.copy == NULL)) {
        foreign_lease_free(lease);
        return;
    }
    if (lease->state == FOREIGN_LEASE_UNKNOWN && lease->is_named) {
        foreign_lease_read(lease);
        return;
    }
    if (lease->state == FOREIGN_LEASE_ALIVE && !foreign_lease_is_expired(lease))
        return;
    if (age_ms < lease->ttl_ms + foreign_lease_jitter_ms(lease) || (lease->is_removed && !lease->is_named))
        return; /* a lease whose key is gone, and which no key names, has ended in an orderly way */
    if (lease->state == FOREIGN_LEASE_ALIVE) {
        foreign_lease_declare_dead(lease);
    } else if (lease->state == FOREIGN_LEASE_DEAD) {
        lease->seen_ms = now_ms; /* the daemon that declared it dead has not removed it: it may be dead, too */
        lease->is_named = false;
        lease_end_foreign(lease->in, lease->id);
    }
}

void foreign_lease_tick(struct lease_bucket *in)
{
    struct foreign_lease *lease, *next;

    foreign_lease_note_connection(in);
    HASH_ITER(hh, in->others, lease, next)
    {
        foreign_lease_tick_one(lease);
    }
}

void foreign_lease_free_all(struct lease_bucket *in)
{
    struct foreign_lease *lease, *next;

    HASH_ITER(hh, in->others, lease, next)
    {
        foreign_lease_free(lease);
    }
}
