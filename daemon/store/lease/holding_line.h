/*
 * holding_line: the line of holdings of a bucket whose keys are to be deleted, or looked at first.
 *
 * Used by holding. A holding that ends has its key deleted. That is done at once if it is known, since the bucket's
 * last doubt, that the key is the holding's. Otherwise the key is read first. A holding that a session has is only
 * looked at, after all that end: many may be checked at a time, and a release does not wait for them.
 */
#ifndef DAEMON_STORE_HOLDING_LINE_H
#define DAEMON_STORE_HOLDING_LINE_H

#include "daemon/store/lease/holding.h"

/* Get in line, unless it is in it: in that of its state. */
void holding_line_join(struct holding *holding);

/* The same, and do not believe a look that is in progress. */
void holding_line_check(struct holding *holding);

/* A change of the key was delivered during a look: the holding is lost when the look is over. */
void holding_line_note_change(struct holding *holding, const struct kv_entry *entry);

/* Cancel what is in progress of the holding. */
void holding_line_leave(struct holding *holding);

/*
 * Start deletions and looks of the bucket's line, up to a number in progress. A holding whose deletion or look fails
 * goes to the end of the line, and the next tick tries it again.
 */
void holding_line_run(struct lease_bucket *in);

/* --- For holding_line: functions of holding --------------------------------------------------------- */

/* The key is gone, with a marker at this revision; 0: the key is no longer the holding's, or is not known to be. */
void holding_finish(struct holding *holding, uint64_t marker_revision);

/*
 * The key has changed: notify the session that it has lost the holding, and free the holding. revision: of the change;
 * 0: the server has lost the key.
 */
void holding_give_up(struct holding *holding, uint64_t revision, bool is_overwritten);

/* Return whether an entry of its key names its lease. */
bool holding_is_named(const struct holding *holding, const struct kv_entry *entry);

/* Let it wait for its owner. */
void holding_orphan(struct holding *holding);

#endif
