#include "daemon/store/lease/foreign_lease.h"
#include "daemon/store/lease/held_write.h"
#include "daemon/store/lease/holding_line.h"
#include "daemon/store/lease/holding_pass.h"
#include "daemon/store/lease/lease.h"

#include <string.h>

void lease_note_key(struct lease *lease, const struct kv_entry *entry)
{
    const struct holding *known = holding_find(lease->in, entry->key);

    if (held_write_meet(lease, entry->key))
        return; /* it may be that write's */
    if (known != NULL && known->state == HOLDING_LOST) {
        lease_find_keys_again(lease); /* nobody else may have the lock yet */
        return;
    }
    if (known == NULL || known->revision < entry->revision)
        holding_add_found(lease, entry, lease->state == LEASE_ALIVE && lease_text_owner_of(entry) != NULL);
}

static void on_lease_key_found(void *arg, const struct kv_entry *entry)
{
    struct lease *lease = arg;
    const char *id = lease_text_lease_of(entry);
    struct holding *known = holding_find(lease->in, entry->key);

    if (id == NULL)
        return;
    if (strcmp(id, lease->id) != 0) {
        if (lease_find(lease->in, id) == NULL)
            foreign_lease_note_key(lease->in, id);
        return;
    }
    if (known != NULL && known->lease == lease && known->revision == entry->revision)
        known->doubts = lease->scan_doubts;
    else
        lease_note_key(lease, entry);
}

static void on_lease_keys_found(void *arg, const struct error *error)
{
    struct lease *lease = arg;

    bool is_incomplete = error != NULL && error->code != ERROR_BUCKET_NOT_FOUND;
    bool is_outdated = lease->scan_doubts != lease->in->doubts;
    lease->needs_scan = is_incomplete || is_outdated;
    if (!is_outdated)
        holding_pass_start(lease->in, HOLDING_PASS_OUTDATED); /* those of which the scan has not seen the keys */
    holding_line_run(lease->in);
}

void lease_find_keys_again(struct lease *lease)
{
    lease->needs_scan = true;
    lease->scan_doubts = UINT64_MAX; /* a scan that is in progress may be too early */
}

void lease_find_keys(struct lease *lease)
{
    if (!lease->needs_scan || lease->scan.is_running || (lease->in->lost > 0 && !lease->is_foreign))
        return; /* what a scan finds of a lost lock, which nobody else may have yet, would be found again and again */
    lease->scan = (struct lease_scan){
        .in = lease->in, .filter = ">", .found = on_lease_key_found, .done = on_lease_keys_found, .arg = lease};
    lease->scan_doubts = lease->in->doubts;
    lease_scan_start(&lease->scan);
}
