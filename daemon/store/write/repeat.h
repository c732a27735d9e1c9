/*
 * repeat: a write that its client may have sent before, with the same id.
 *
 * Used by write, and in part by txn. The journal knows what became of the earlier call. If that is in
 * doubt, this write continues as if it had sent the copy itself.
 */
#ifndef DAEMON_STORE_REPEAT_H
#define DAEMON_STORE_REPEAT_H

#include "daemon/store/write/write.h"

/* Add an operation to what identifies the call. */
void repeat_describe_operation(const struct journal *journal, struct journal_call *call,
                               const struct operation *operation);

/* Set the error of a call that cannot be executed because of its id: FORGOTTEN or OTHER_CALL. */
void repeat_set_error(enum journal_finding finding, struct error *error);

/* Begin a write: submit it to group_commit, or answer it with what is known, or continue it in doubt. */
void repeat_begin(struct write *write);

/* A copy of the write is about to be sent. outcome: as it will be then. */
void repeat_note_sent(struct write *write, const struct outcome *outcome);

/* No copy is stored. Return whether another one may be sent. */
bool repeat_may_send(struct write *write);

/* --- Also for txn ----------------------------------------------------------------------------------------- */

/*
 * An earlier call with the id has not ended: call again after a moment. Return false, with an error, if the deadline
 * has passed.
 */
bool repeat_await_earlier_call(struct store *store, struct timer *timer, void (*again)(struct timer *timer),
                               uint64_t deadline_ms, struct error *error);

#endif
