/*
 * inquiry: determines the outcome of a write in doubt by reading the stream.
 *
 * Used by write and batch. It reads, from the stream's leader, the key's last message, the key's history if that can
 * decide more, and then the state of the stream, which therefore is not older than the messages. It ends when it finds
 * the write's id. If the key has no message, it determines whether one can have been removed.
 */
#ifndef DAEMON_STORE_INQUIRY_H
#define DAEMON_STORE_INQUIRY_H

#include "daemon/store/bucket/bucket.h"
#include "daemon/store/journal.h"
#include "daemon/store/write/outcome.h"

/* What was read, or the error. The inquiry has ended. */
typedef void inquiry_done_fn(void *arg, const struct outcome_reading *reading, const struct error *error);

struct inquiry_subject {
    struct bucket *bucket;
    const char *key, *id; /* borrowed until the end */
    const struct outcome *outcome;
    uint64_t deadline_ms;
    uint64_t owner; /* see request */
};

/* --- Copies of earlier calls ----------------------------------------------------------------------- */

/* Return the facts about a copy that was sent; its message_id is still to be set. lives_ms: see journal_copy. */
struct journal_copy inquiry_describe_copy(const struct outcome *outcome, uint64_t lives_ms);

/* Set the outcome, which is zeroed, to be in doubt because of a copy that an earlier call has sent. */
void inquiry_inherit_copy(const struct store *store, struct outcome *outcome, const struct journal_copy *copy);

/* --- Asking for the id ----------------------------------------------------------------------------- */

/* Return the next step of a write in doubt, on the present connection. */
enum outcome_step inquiry_step(const struct store *store, const struct outcome *outcome);

/* The same before an attempt of the write's request. The request may know that nobody received the copy. */
enum outcome_step inquiry_prepare(const struct store *store, struct outcome *outcome, const struct request *request);

/* Publish the question about an id, as an attempt of the request. subject: of the message that has the id. */
enum connection_publish_result inquiry_ask(struct request *request, const char *subject, const char *id);

/* Handle the answer to it. False: a temporary error; its cause was noted in the request, which must be retried. */
bool inquiry_receive_answer(const struct store *store, const struct bucket *bucket, struct outcome *outcome,
                            struct request *request, const struct kv_ack *ack, enum outcome_verdict *verdict);

/* --- Reading --------------------------------------------------------------------------------------- */

struct inquiry;

/* Start an inquiry. done is called once, never from within. NULL: out of memory. */
struct inquiry *inquiry_start(struct store *store, const struct inquiry_subject *subject, inquiry_done_fn *done,
                              void *arg);

/* End it without calling done. NULL: does nothing. */
void inquiry_cancel(struct inquiry *inquiry);

#endif
