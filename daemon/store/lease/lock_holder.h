/*
 * lock_holder: what a wait for a lock knows of the holder, for the error of a wait that is over.
 *
 * Used by lock. The value of the lock describes the holder.
 */
#ifndef DAEMON_STORE_LOCK_HOLDER_H
#define DAEMON_STORE_LOCK_HOLDER_H

#include "daemon/store/lease/holding.h"
#include "daemon/store/lease/lock.h"

/* Note the value. If it is too large, or there is no memory, the error does not say who holds the lock. */
void lock_holder_note(struct lock_wait *wait, const char *value, size_t bytes);

/* Return whether all is known of the value: from memory, or from a read. */
bool lock_holder_know(struct lock_wait *wait, const struct holding *holding);

/* Note what is known to others of this daemon: the session that holds the lock, or the first wait in line. */
void lock_holder_borrow(struct lock_wait *wait, const struct lock_wait *first, const struct holding *holding);

/* Set the wait's error: the lock is held, with what is known of the holder. */
void lock_holder_set_error(struct lock_wait *wait);

#endif
