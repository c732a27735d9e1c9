/*
 * repeat: a write that its client may have sent before, with the same id.
 *
 * Used by write. The journal knows what became of the earlier call. If that is in doubt, this write continues as if it
 * had sent the copy itself.
 */
#ifndef DAEMON_STORE_REPEAT_H
#define DAEMON_STORE_REPEAT_H

#include "daemon/store/write/write.h"

/* Begin a write: submit it to group_commit, or answer it with what is known, or continue it in doubt. */
void repeat_begin(struct write *write);

/* A copy of the write is about to be sent. outcome: as it will be then. */
void repeat_note_sent(struct write *write, const struct outcome *outcome);

/* No copy is stored. Return whether another one may be sent. */
bool repeat_may_send(struct write *write);

/* The write has ended, or is cancelled: what was sent of it, if anything, may be stored. */
void repeat_end(struct write *write, uint64_t revision, const struct error *error);
void repeat_cancel(struct write *write);

#endif
