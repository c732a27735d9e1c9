/*
 * coalesce: gets that meet in one turn of the loop, of one bucket, ask the server together.
 *
 * Used by read. Of entries that recall remembers it is asked whether they are still so, those that it should remember
 * are read by one read of many keys; others, few, and those of a question that failed ask each for themselves. None
 * waits for company: what the turn has brought goes at its end.
 */
#ifndef DAEMON_STORE_COALESCE_H
#define DAEMON_STORE_COALESCE_H

#include "daemon/store/bucket.h"
#include "daemon/store/read.h"

/* Takes a get whose handle is known; read_get_alone or read_get_answer is called for it, at the turn's end at the
 * earliest. */
void coalesce_submit(struct read_get *get);

/* At the end of each turn: asks. */
void coalesce_flush_all(struct store *store);

#endif
