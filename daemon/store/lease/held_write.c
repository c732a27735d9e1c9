#include "daemon/store/lease/held_write.h"

#include "daemon/store/lease/holding_line.h"
#include "daemon/store/lease/lock.h"

#include <stdio.h>
#include <string.h>

static struct held_write *held_write_find(const struct lease_bucket *in, const char *key)
{
    struct held_write *held = NULL;

    if (in->writes != NULL)
        HASH_FIND_STR(in->writes, key, held);
    return held;
}

bool held_write_is_in_progress(const struct lease_bucket *in, const char *key)
{
    return held_write_find(in, key) != NULL;
}

bool held_write_meet(const struct lease *lease, const char *key)
{
    struct held_write *held = held_write_find(lease->in, key);
    bool is_met = held != NULL && held->lease == lease;

    if (is_met)
        held->was_met = true;
    return is_met;
}

void held_write_note_entry(const struct lease_bucket *in, const struct kv_entry *entry)
{
    struct held_write *held = held_write_find(in, entry->key);

    if (held != NULL)
        held->delivered_revision = entry->revision;
}

/* It has the lease, and is sent. */
static void held_write_begin(struct held_write *held, struct lease *lease)
{
    const struct holding *known = holding_find(held->in, held->operation.key);

    held->lease = lease;
    held->doubts = held->in->doubts;
    held->was_met = false;
    held->revision_before = known != NULL ? known->revision : 0;
    held->delivered_revision = 0;
    lease_retain(lease);
    HASH_ADD_KEYPTR(hh, held->in->writes, held->operation.key, strlen(held->operation.key), held);
}

/* The holding, if there is one, is known by now. */
static void held_write_end(struct held_write *held)
{
    HASH_DEL(held->in->writes, held);
    if (held->was_met) {
        if (holding_find(held->in, held->operation.key) == NULL)
            holding_add_doubtful(held->lease, held->operation.key, true);
        lock_wake(held->in, held->operation.key, 0); /* who wants the lock waits to hear whose the key is */
    }
    lease_release(held->lease);
    held->lease = NULL;
}

static void held_write_finish(struct held_write *held, struct holding *holding, const struct error *error)
{
    struct lease *lease = held->lease;

    arena_end_task(&held->task);
    if (lease != NULL) {
        lease_retain(lease);
        held_write_end(held);
    }
    held->done(held->arg, holding, error);
    if (lease != NULL)
        lease_release(lease);
}

/*
 * Return whether a later write of the key, with the same lease, was acknowledged before. A holding that was there
 * already may have a higher revision only because the server was set back.
 */
static bool held_write_is_superseded(const struct held_write *held, uint64_t revision)
{
    const struct holding *known = holding_find(held->in, held->operation.key);

    return known != NULL && known->lease == held->lease && holding_can_be_attached(known) &&
           known->revision > revision && known->revision != held->revision_before;
}

/* Make the holding of a write that is stored. What is known of the key is as old as the write. NULL: out of memory. */
static struct holding *held_write_add(const struct held_write *held, uint64_t revision)
{
    struct holding *holding = holding_add(held->lease, held->kind, held->operation.key, revision, held->owner);

    if (holding == NULL)
        return NULL;
    holding->is_seen = held->delivered_revision == revision;
    holding->doubts = held->doubts;
    if (holding->doubts != held->in->doubts)
        holding_line_check(holding);
    return holding;
}

/* The write is stored, but nobody vouches for its lease now, or there is no memory for the holding. */
static void held_write_take_back(struct held_write *held, uint64_t revision, struct error *error)
{
    struct holding *holding = held_write_add(held, revision);

    error->outcome = ERROR_OUTCOME_NONE;
    if (holding != NULL)
        holding_end(holding);
    else
        lease_find_keys_again(held->lease);
}

static void on_held_write_done(void *arg, uint64_t revision, const struct error *error)
{
    struct held_write *held = arg;
    struct error failed;

    if (error != NULL) {
        failed = *error;
        if (error->outcome == ERROR_OUTCOME_UNKNOWN)
            holding_add_doubtful(held->lease, held->operation.key, held->was_met);
        held_write_finish(held, NULL, &failed);
        return;
    }
    struct holding *holding = NULL;
    held->revision = revision;
    if (held_write_is_superseded(held, revision)) {
        error_set(&failed, ERROR_CONFLICT, "the key was written again, at a later revision");
        held_write_finish(held, NULL, held->kind == HOLDING_LOCK ? &failed : NULL);
        return;
    }
    if (lease_valid_for_ms(held->lease) == 0)
        error_set(&failed, ERROR_UNAVAILABLE,
                  "the lease of this daemon was lost before the write was acknowledged; the key is being deleted");
    else if ((holding = held_write_add(held, revision)) == NULL)
        error_set(&failed, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    if (holding == NULL)
        held_write_take_back(held, revision, &failed);
    held_write_finish(held, holding, holding == NULL ? &failed : NULL);
}

static void on_held_write_lease(void *arg, struct lease *lease, const struct error *error)
{
    struct held_write *held = arg;
    struct write *write = &held->write;

    if (error != NULL) {
        held_write_finish(held, NULL, error);
        return;
    }
    held_write_begin(held, lease);
    memset(write, 0, sizeof(*write));
    write->bucket_name = held->in->name;
    write->operation = held->operation;
    write->operation.lease = lease->id;
    write->operation.owner = held->owner;
    write->deadline_ms = held->deadline_ms;
    write->done = on_held_write_done;
    write->arg = held;
    write_start(held->in->store, held->arena, write);
}

static void held_write_cancel(struct arena_task *task)
{
    struct held_write *held = ARENA_TASK_OWNER(task, struct held_write, task);

    lease_cancel_wait(&held->wait);
    if (held->lease != NULL) {
        if (held->write.request.base.was_sent)
            holding_add_doubtful(held->lease, held->operation.key, held->was_met);
        held_write_end(held);
    }
}

void held_write_start(struct arena *arena, struct held_write *held)
{
    held->arena = arena;
    held->lease = NULL;
    arena_begin_reading_task(arena, &held->task, held_write_cancel);
    lease_obtain(held->in, &held->wait, held->deadline_ms, on_held_write_lease, held);
}
