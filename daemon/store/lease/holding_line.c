#include "daemon/store/lease/holding_line.h"

#include "daemon/store/lease/held_write.h"
#include "daemon/store/lease/lease_file.h"
#include "daemon/store/lease/leases.h"
#include "daemon/store/lease/lock.h"
#include "daemon/store/write/write.h"

#include <stdio.h>
#include <string.h>
#include <utlist.h>

/* Deletions and looks of one bucket in progress at a time: a session may end with ten thousand keys. */
#define WORKING_MAX 128u

/*
 * The same of all buckets together. A session may end with keys in hundreds of buckets: all at once would be more than
 * the server answers in time. A few in each bucket may exceed this, so that no bucket waits for others: so few that
 * those of 300 buckets are still fewer than the bulk writes that the daemon has in flight at a time.
 */
#define WORKING_ALL_MAX 512u
#define WORKING_MIN     4u

/* If both lines have holdings, each eighth one is taken from the line of checks. */
#define CHECK_EACH 8u

/* A run of the line passes at most this number of holdings that need neither a deletion nor a look. */
#define SKIPPED_MAX 4096u

#define DELETION_MS 10000u

#define ARENA_BYTES 2048u

/* A key whose write is in doubt is looked at this number of times: the write may still arrive. */
#define LOOKS_MAX 3u

static void holding_drop_from_line(struct holding *holding)
{
    if (holding->line != NULL)
        DL_DELETE2(*holding->line, holding, previous_in_line, next_in_line);
    holding->line = NULL;
}

void holding_line_join(struct holding *holding)
{
    struct lease_bucket *in = holding->lease->in;
    struct holding **line = holding->state == HOLDING_ENDING ? &in->line : &in->checks;

    if (holding->is_working || holding->line == line)
        return;
    holding_drop_from_line(holding);
    holding->line = line;
    DL_APPEND2(*line, holding, previous_in_line, next_in_line);
}

void holding_line_check(struct holding *holding)
{
    holding_line_join(holding);
    holding->looked_doubts = UINT64_MAX; /* a look that is in progress may be too early */
}

static void holding_leave_line(struct holding *holding)
{
    holding_drop_from_line(holding);
    leases_check_idle(holding->lease->in->store->leases);
}

static void holding_stop_working(struct holding *holding)
{
    holding->lease->in->working--;
    holding->lease->in->store->leases->working--;
    holding->is_working = false;
    holding->changed_revision = 0;
    arena_destroy(&holding->arena);
    leases_check_idle(holding->lease->in->store->leases);
}

void holding_line_note_change(struct holding *holding, const struct kv_entry *entry)
{
    holding->changed_revision = entry->revision;
    holding->was_put = entry->operation == KV_PUT;
    holding->was_ours = holding_is_named(holding, entry);
}

void holding_line_leave(struct holding *holding)
{
    holding_leave_line(holding);
    if (holding->is_working)
        holding_stop_working(holding);
}

/* --- Deletion -------------------------------------------------------------------------------------- */

/* At the end of the line; the next tick continues. */
static void holding_try_again(struct holding *holding)
{
    holding_stop_working(holding);
    holding_line_join(holding);
}

/* The key may be deleted when NATS permits it. It names the lease, which is renewed. */
static bool may_try_denied(const struct holding *holding)
{
    return holding->lease->state == LEASE_ALIVE && !holding->lease->in->store->leases->is_draining;
}

static void on_holding_deleted(void *arg, uint64_t revision, const struct error *error)
{
    struct holding *holding = arg;
    struct lease_bucket *in = holding->lease->in;

    bool is_denied = error != NULL && error->code == ERROR_PERMISSION_DENIED;
    if (!lease_bucket_deletion_is_over(error) || (is_denied && may_try_denied(holding))) {
        holding_try_again(holding);
        return;
    }
    if (error == NULL)
        lease_bucket_note_deletion(in, revision);
    holding_finish(holding, revision);
    holding_line_run(in);
}

static bool holding_is_certain(const struct holding *holding)
{
    return holding->revision > 0 && !holding->awaits_owner && holding->doubts == holding->lease->in->doubts;
}

static bool holding_send_deletion(struct holding *holding)
{
    struct store *store = holding->lease->in->store;
    struct write *write = arena_zalloc(&holding->arena, sizeof(*write));

    if (write == NULL)
        return false;
    write->bucket_name = holding->lease->in->name;
    write->operation.key = holding->key;
    write->operation.kind = KV_DELETE;
    write->operation.condition = OPERATION_IF_AT_REVISION;
    write->operation.revision = holding->revision;
    write->operation.value = "";
    write->deadline_ms = uv_now(store->loop) + DELETION_MS;
    write->done = on_holding_deleted;
    write->arg = holding;
    write_start(store, &holding->arena, write);
    return true;
}

static void on_deletion_noted(void *arg)
{
    struct holding *holding = arg;
    const struct lease *lease = holding->lease;
    bool is_over = lease->is_given_up || lease->in->store->leases->is_ended;

    holding->is_noted = true;
    if (is_over || !holding_is_certain(holding) || !holding_send_deletion(holding))
        holding_try_again(holding);
}

/* The next run must know of it before it is sent, or its owner could get the lock then. */
static bool holding_delete(struct holding *holding)
{
    const struct lease *lease = holding->lease;

    if (holding->owner[0] == '\0' || holding->is_noted || lease->is_foreign)
        return holding_send_deletion(holding);
    lease_file_add_deletion(lease->in->store, lease->in->name, lease->id, holding->key, holding->revision,
                            on_deletion_noted, holding);
    return true;
}

/* --- Looks ----------------------------------------------------------------------------------------- */

/* Return whether a later write of the key, with the same lease, has made a holding of it. */
static bool holding_is_superseded(const struct holding *holding, const struct kv_entry *entry)
{
    const struct holding *known = holding_find(holding->lease->in, holding->key);

    return known != NULL && known != holding && known->revision >= entry->revision;
}

/* The key is the holding's: delete it, or let it wait for its owner. */
static void holding_confirm(struct holding *holding, const struct kv_entry *entry)
{
    struct lease_bucket *in = holding->lease->in;
    const char *owner = lease_text_owner_of(entry);
    bool is_kept = holding->awaits_owner && owner != NULL && holding->lease->state == LEASE_ALIVE &&
                   !lease_file_has_deletion(in->store, in->name, holding->lease->id, holding->key, entry->revision);

    if (is_kept && holding->looked_doubts != in->doubts) {
        holding_try_again(holding); /* what was read may be of another bucket */
        return;
    }
    snprintf(holding->owner, sizeof(holding->owner), "%s", owner != NULL ? owner : "");
    holding->is_noted = holding->is_noted && holding->revision == entry->revision;
    holding->revision = entry->revision;
    holding->doubts = holding->looked_doubts;
    holding_stop_working(holding);
    holding->awaits_owner = false;
    if (is_kept) {
        holding_orphan(holding);
        lock_wake(in, holding->key, 0);
    } else {
        holding->line = &in->line;
        DL_PREPEND2(in->line, holding, previous_in_line, next_in_line);
    }
}

/*
 * The key of a holding that ends: its write was in doubt, or it was found, or the bucket may be another one. If the key
 * names the lease, it is the holding's, unless another write has done that.
 */
static void holding_take_look(struct holding *holding, const struct kv_entry *entry, bool is_ours,
                              const struct error *error)
{
    struct lease_bucket *in = holding->lease->in;
    bool is_gone = error != NULL && error->code == ERROR_BUCKET_NOT_FOUND;
    bool is_others = error == NULL && holding->revision > 0; /* no write of it is in flight */

    if (is_ours && held_write_is_in_progress(in, holding->key)) {
        holding_try_again(holding); /* it may be that write's */
        return;
    }
    is_ours = is_ours && !holding_is_superseded(holding, entry);
    holding->looks += error == NULL;
    if (!is_ours && !is_gone && !is_others && holding->looks < LOOKS_MAX) {
        holding_try_again(holding);
        return;
    }
    if (is_ours)
        holding_confirm(holding, entry);
    else
        holding_finish(holding, 0);
    holding_line_run(in);
}

/*
 * The session has lost the holding, but the key names the lease: the server was set back to an earlier holding of it,
 * or a write with an unknown outcome was stored (revision: of that; otherwise 0). That has nobody now.
 */
static void holding_lose_to_another(struct holding *holding, uint64_t revision)
{
    struct lease *lease = holding->lease;
    char key[KV_KEY_LENGTH_MAX + 1];

    snprintf(key, sizeof(key), "%s", holding->key);
    lease_retain(lease);
    holding_give_up(holding, revision, false);
    holding_add_doubtful(lease, key, true);
    lease_release(lease);
}

/* The key of a holding that a session has, or an owner may have. */
static void holding_take_check(struct holding *holding, const struct kv_entry *entry, bool is_ours,
                               const struct error *error)
{
    struct lease_bucket *in = holding->lease->in;
    bool is_gone = error != NULL && error->code == ERROR_BUCKET_NOT_FOUND; /* that is for the lease to find */
    bool is_unchanged = is_gone || (is_ours && entry->revision == holding->revision);
    bool is_rewritten = holding->changed_revision > 0 ? holding->was_ours : is_ours && !is_unchanged;

    if (is_rewritten && held_write_is_in_progress(in, holding->key)) {
        holding_try_again(holding); /* it may be that write's, whose answer is on its way */
        return;
    }
    if (holding->changed_revision > 0 && holding->was_ours) {
        holding_lose_to_another(holding, holding->changed_revision);
    } else if (holding->changed_revision > 0) {
        holding_give_up(holding, holding->changed_revision, holding->was_put);
    } else if (error != NULL && !is_gone) {
        holding_try_again(holding);
        return;
    } else if (is_unchanged) {
        bool is_outdated = holding->looked_doubts != in->doubts;
        bool may_come_late = holding->is_doubtful && ++holding->looks < LOOKS_MAX;
        if (may_come_late) {
            holding_try_again(holding);
            return;
        }
        holding_stop_working(holding);
        holding->is_doubtful = false;
        if (is_outdated)
            holding_line_join(holding);
        else
            holding->doubts = in->doubts;
    } else if (is_ours) {
        holding_lose_to_another(holding, entry->revision > holding->revision ? entry->revision : 0);
    } else {
        holding_give_up(holding, entry != NULL ? entry->revision : 0, entry != NULL);
    }
    holding_line_run(in);
}

static void on_holding_looked(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct holding *holding = arg;
    struct lease_bucket *in = holding->lease->in;
    bool is_ours = entry != NULL && holding_is_named(holding, entry);

    if (holding->state == HOLDING_ENDING && holding->lease->is_given_up) {
        holding_finish(holding, 0);
        holding_line_run(in);
    } else if (holding->state == HOLDING_ENDING) {
        holding_take_look(holding, entry, is_ours, error);
    } else if (holding_can_be_attached(holding)) {
        holding_take_check(holding, entry, is_ours, error);
    } else {
        holding_stop_working(holding);
        holding_line_run(in);
    }
}

static bool holding_look(struct holding *holding)
{
    struct lease_bucket *in = holding->lease->in;

    holding->looked_doubts = in->doubts;
    return lease_bucket_read(in, &holding->arena, holding->key, uv_now(in->store->loop) + DELETION_MS,
                             on_holding_looked, holding);
}

/* --- The line -------------------------------------------------------------------------------------- */

/* Return whether there is nothing to do for the holding. */
static bool holding_line_skip(struct holding *holding)
{
    bool is_draining = holding->lease->in->store->leases->is_draining;
    /* The next run of the daemon finds their keys. Nobody would free a holding that is not in the table. */
    bool is_kept = holding->is_known && (holding->state == HOLDING_ORPHANED || holding->awaits_owner);

    if (holding->state == HOLDING_ENDING && holding->lease->is_given_up)
        holding_finish(holding, 0);
    else if (holding->state == HOLDING_LOST || (is_draining && is_kept)) /* it was to be checked */
        holding_leave_line(holding);
    else
        return false;
    return true;
}

/* Return whether one more may be in progress. */
static bool holding_line_has_room(const struct lease_bucket *in)
{
    return in->working < WORKING_MIN || (in->working < WORKING_MAX && in->store->leases->working < WORKING_ALL_MAX);
}

void holding_line_run(struct lease_bucket *in)
{
    if (in->store->leases->is_ended)
        return;
    unsigned started = 0, skipped = 0;
    /* One that fails at once gets in line again. */
    while (started < WORKING_MAX && skipped < SKIPPED_MAX && holding_line_has_room(in)) {
        bool is_check = in->checks != NULL && (in->line == NULL || ++in->turn % CHECK_EACH == 0);
        struct holding *holding = is_check ? in->checks : in->line;
        if (holding == NULL)
            return;
        if (holding_line_skip(holding)) {
            skipped++;
            continue;
        }
        started++;
        if (!arena_init(&holding->arena, ARENA_BYTES))
            return;
        holding_leave_line(holding);
        holding->is_working = true;
        in->working++;
        in->store->leases->working++;
        bool may_delete = holding->state == HOLDING_ENDING && holding_is_certain(holding);
        if (!(may_delete ? holding_delete(holding) : holding_look(holding))) {
            holding_try_again(holding);
            return;
        }
    }
}
