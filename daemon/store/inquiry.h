/*
 * inquiry: reads what the stream tells of a write in doubt.
 *
 * Used by write and batch. The key's last message, where its history may tell more also that, and then the stream's
 * state: all from the stream's leader, one after the other, so that the state is not older than the messages.
 * For a key without a message it is looked whether one may have left.
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
