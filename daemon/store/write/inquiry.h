/*
 * inquiry: reads what the stream tells of a write in doubt.
 *
 * Used by write and batch. It reads, from the stream's leader, the key's last message, its history where that can tell
 * more, and then the state of the stream, which so is not older than the messages. It ends when it finds the write's
 * id. If the key has no message, it finds out whether one can have been removed.
 */
#ifndef DAEMON_STORE_INQUIRY_H
#define DAEMON_STORE_INQUIRY_H

#include "daemon/store/bucket/bucket.h"
#include "daemon/store/write/outcome.h"

/* What was read, or the error. The inquiry is over. */
typedef void inquiry_done_fn(void *arg, const struct outcome_reading *reading, const struct error *error);

struct inquiry_subject {
    struct bucket *bucket;
    const char *key, *id; /* borrowed until it is over */
    const struct outcome *outcome;
    uint64_t deadline_ms;
    const void *owner; /* see request */
};

/* --- Asking for the id ----------------------------------------------------------------------------- */

/* The next step of a write in doubt, on the connection that there is. */
enum outcome_step inquiry_step(const struct store *store, const struct outcome *outcome);

/* The same before an attempt of the write's request, which may have learned that nobody listened to the copy. */
enum outcome_step inquiry_prepare(const struct store *store, struct outcome *outcome, const struct request *request);

/* Publishes the question for an id, as an attempt of the request; subject: of the message that has the id. */
enum connection_publish_result inquiry_ask(struct request *request, const char *subject, const char *id);

/* Takes the answer to that. False: it heals by itself, the reason is noted in the request, and it is asked again. */
bool inquiry_take_answer(const struct store *store, const struct bucket *bucket, struct outcome *outcome,
                         struct request *request, const struct kv_ack *ack, enum outcome_verdict *verdict);

/* --- Reading --------------------------------------------------------------------------------------- */

struct inquiry;

/* Begins it. done is called once, never from within. NULL when memory ran out. */
struct inquiry *inquiry_start(struct store *store, const struct inquiry_subject *subject, inquiry_done_fn *done,
                              void *arg);

/* Ends it without calling done. NULL: does nothing. */
void inquiry_cancel(struct inquiry *inquiry);

#endif
