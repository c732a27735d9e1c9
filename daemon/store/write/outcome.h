/*
 * outcome: determines the outcome of a write whose ack did not come, and the next step.
 *
 * Used by write and batch. It is a pure state machine: its callers report what was sent and answered, and it returns
 * the next step. It promises that no copy is sent while an earlier one is stored or may yet be stored, and that STORED
 * and NOT_STORED are certain.
 *
 * It is needed because a server knows the id of a message (Nats-Msg-Id) only for the bucket's duplicate window, and
 * forgets it earlier when it restarts after the message was overwritten. So a copy with the same id may be stored a
 * second time, and the answer 'unknown id' does not always mean that nothing was stored.
 *
 * The steps, in their order:
 *
 * - WAIT until the server has closed every earlier connection that may carry a copy.
 *
 * - ASK for the id, with a message that is never stored (Nats-Rollup: none). If the server knows the id, the write is
 *   stored. A batch has an id on its first message and one on its last; the last one's id proves the whole batch.
 *
 * - READ the key's last message, then the state of the stream. L0 is the highest sequence that was known before the
 *   first copy was sent. If the key's last message is not above L0, the write is not stored. If the key has no message,
 *   it is not stored either, provided that none can have been removed: a message may have been purged, or have expired.
 */
#ifndef DAEMON_STORE_OUTCOME_H
#define DAEMON_STORE_OUTCOME_H

#include "daemon/store/bucket/stream.h"

#include <stdbool.h>
#include <stdint.h>

enum outcome_step {
    OUTCOME_SEND, /* a copy may be sent; outcome_sent follows */
    OUTCOME_WAIT,
    OUTCOME_ASK,       /* for the id of the only message, or of a batch's last one; outcome_answered follows */
    OUTCOME_ASK_FIRST, /* for the id of a batch's first message */
    OUTCOME_READ,      /* the key of the only message, or of a batch's last one; outcome_read follows */
    OUTCOME_READ_FIRST
};

enum outcome_verdict {
    OUTCOME_UNDECIDED,  /* there is another step */
    OUTCOME_STORED,     /* it is stored, once */
    OUTCOME_NOT_STORED, /* no copy is stored, and none will be: the next step is SEND */
    OUTCOME_UNKNOWN,    /* it can no longer be determined */
    OUTCOME_PARTIAL     /* of a batch: a part is stored, and the server has not finished it */
};

/* Zeroed but for is_batch: nothing was sent. */
struct outcome {
    bool is_batch;  /* of more than one message */
    uint8_t copies; /* that were sent and not refused; OUTCOME_MANY: that number or more */

    /* Of the first of them. */
    uint64_t sent_ms;
    uint64_t connection;
    struct stream_state stream;

    bool is_inherited; /* an earlier call has sent the first copy (see journal), maybe of a daemon that was killed */
    bool is_rebuilt;   /* the server has restarted since, and has rebuilt its table of ids without losing one */
    uint64_t lives_ms; /* of an inherited write: its message may be gone after this time; 0: it stays */

    enum outcome_step step; /* while there are copies */
    bool is_id_unknown;     /* the server that was asked does not know the id, and would if the write had come to it */
    uint64_t asked_keeper;  /* which that was; 0: not known */
};

#define OUTCOME_MANY 2u

/* Return the next step. are_closed: connection_earlier_are_closed, from the first copy's connection on. */
enum outcome_step outcome_next(const struct outcome *outcome, bool are_closed);

/*
 * A copy was sent on the connection at now_ms, by a clock that includes the time for which the machine was suspended.
 * stream: as it was known before.
 */
void outcome_sent(struct outcome *outcome, uint64_t now_ms, uint64_t connection, const struct stream_state *stream);

/* An earlier call has sent the first copy. outcome has the facts about it, and is otherwise zeroed. */
void outcome_inherit(struct outcome *outcome, uint64_t connection);

/*
 * The latest copy was refused, or never reached a stream. If it was the only copy, nothing counts as sent. Otherwise
 * the server is asked again about the earlier ones, even after NOT_STORED: a former leader may have answered.
 */
void outcome_refused(struct outcome *outcome);

enum outcome_answer {
    OUTCOME_ID_KNOWN,
    OUTCOME_ID_UNKNOWN,
    OUTCOME_INCONCLUSIVE /* the server refuses the question */
};

/* The question was answered. keeper: the process that answered, if the connection shows it; otherwise 0. */
enum outcome_verdict outcome_answered(struct outcome *outcome, enum outcome_answer answer, uint64_t now_ms,
                                      uint64_t keeper);

/* What was read: first the key's messages, then the stream. */
struct outcome_reading {
    bool is_there;         /* the key has a message */
    uint64_t sequence;     /* its last one's */
    bool is_ours;          /* that message has the write's id */
    bool is_ours_before;   /* an older one above L0 has the id: see outcome_wants_history */
    uint64_t our_sequence; /* of the message with the write's id */
    bool none_removed;     /* no message of the key above L0 can have been removed */
    bool reaches_back;     /* the oldest message of the key that is kept is not above L0 */
    bool is_undisturbed;   /* if is_rebuilt: no message of the first copy can have been removed or have expired */
    struct stream_state stream;
};

/*
 * Return whether the key's messages above L0, and its oldest one, can decide more than the last one. keeps: how many
 * messages the bucket keeps of each key.
 */
bool outcome_wants_history(const struct outcome *outcome, const struct outcome_reading *reading, unsigned keeps);

enum outcome_verdict outcome_read(struct outcome *outcome, const struct outcome_reading *reading);

#endif
