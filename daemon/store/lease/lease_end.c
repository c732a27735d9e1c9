#include "daemon/store/lease/lease_end.h"

#include "daemon/store/lease/foreign_lease.h"
#include "daemon/store/lease/holding_pass.h"
#include "daemon/store/lease/lease_file.h"
#include "daemon/store/lease/lease_key.h"

#include <utlist.h>

void lease_end_begin(struct lease *lease)
{
    if (lease->in->lease == lease)
        lease->in->lease = NULL;
    lease->state = LEASE_ENDING;
    lease->renew_ms = 0;
    DL_APPEND2(lease->in->ending, lease, previous, next);
}

void lease_end_notify(struct lease *lease, const struct error *why)
{
    lease->lost = *why;
    lease->lost.bucket = lease->lost.key = NULL;
    lease->is_losing = true;
    holding_pass_start(lease->in, HOLDING_PASS_LOSE);
}

/* --- Its own key ----------------------------------------------------------------------------------- */

/* If a key that names the lease was delivered meanwhile, its deletion comes first. */
static void lease_end_finish(struct lease *lease)
{
    if (lease->references > 0) {
        lease_retry_later(lease);
        arena_clear(&lease->arena);
        return;
    }
    DL_DELETE2(lease->in->ending, lease, previous, next);
    if (lease->is_foreign && lease->is_given_up)
        lease_bucket_list_again(lease->in);
    else if (lease->is_foreign)
        foreign_lease_note_ended(lease->in, lease->id);
    lease_file_remove(lease->in->store, lease->in->name, lease->id);
    lease_free(lease);
}

static void on_lease_purged(void *arg, uint64_t revision, const struct error *error)
{
    struct lease *lease = arg;

    (void)revision;
    lease->work = LEASE_IDLE;
    if (lease_bucket_deletion_is_over(error)) {
        lease_end_finish(lease);
        return;
    }
    lease_retry_later(lease);
    arena_clear(&lease->arena);
}

/* Purge the key, unless another process of this daemon has it. */
static void on_ending_lease_read(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct lease *lease = arg;
    struct lease_text text;

    lease->work = LEASE_IDLE;
    bool is_gone = error == NULL ? entry == NULL : error->code == ERROR_BUCKET_NOT_FOUND;
    bool is_others =
        error == NULL && entry != NULL && !lease_key_is_own(lease, entry, &text) && text.is_alive && !lease->is_adopted;
    if (is_gone || is_others) {
        lease_end_finish(lease);
        return;
    }
    uint64_t revision = error == NULL ? entry->revision : 0;
    arena_clear(&lease->arena);
    lease->revision = revision;
    if (error != NULL ||
        !lease_key_write(lease, KV_PURGE, OPERATION_IF_AT_REVISION, lease_opening_deadline_ms(lease), on_lease_purged))
        lease_retry_later(lease);
}

void lease_end_tick(struct lease *lease)
{
    bool may_try = lease->work == LEASE_IDLE && lease_now(lease) >= lease->renew_ms;

    if (!may_try || holding_pass_is_running(lease->in))
        return;
    if (lease->is_given_up)
        lease->needs_scan = false;
    lease_find_keys(lease);
    if (lease->needs_scan || lease->references > 0)
        return;
    if (lease->is_given_up)
        lease_end_finish(lease);
    else if (!lease_key_read(lease, lease_opening_deadline_ms(lease), on_ending_lease_read))
        lease_retry_later(lease);
}
