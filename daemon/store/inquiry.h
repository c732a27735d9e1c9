/*
 * inquiry: reads what the stream tells of a write in doubt.
 *
 * Used by write and batch. It reads, from the stream's leader, the key's last message, its history where that can tell
 * more, and then the state of the stream, which so is not older than the messages. It ends when it finds the write's
 * id. If the key has no message, it finds out whether one can have been removed.
 */
#ifndef DAEMON_STORE_INQUIRY_H
#define DAEMON_STORE_INQUIRY_H

#include "daemon/store/bucket.h"
#include "daemon/store/outcome.h"

/* What was read, or the error. The inquiry is over. */
typedef void inquiry_done_fn(void *arg, const struct outcome_reading *reading, const struct error *error);

struct inquiry_subject {
    struct bucket *bucket;
    const char *key, *id; /* borrowed until it is over */
    const struct outcome *outcome;
    int64_t ttl_s; /* of the write's own; 0: none */
    uint64_t deadline_ms;
    const void *owner; /* see request */
};

struct inquiry;

/* Begins it. done is called once, never from within. NULL when memory ran out. */
struct inquiry *inquiry_start(struct store *store, const struct inquiry_subject *subject, inquiry_done_fn *done,
                              void *arg);

/* Ends it without calling done. NULL: does nothing. */
void inquiry_cancel(struct inquiry *inquiry);

#endif
