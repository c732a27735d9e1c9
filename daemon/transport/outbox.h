/*
 * outbox: what is sent to one client.
 *
 * Calls and watches pack answers and notifications into the out-buffer, which is written once, at the end of each turn
 * of the loop. libuv writes what the socket does not accept at once. A client that reads nothing for
 * limits.stall_timeout is disconnected; while the daemon ends, for half a second. Bytes that the client has not read
 * count for its user (limits.out_bytes).
 */
#ifndef DAEMON_TRANSPORT_OUTBOX_H
#define DAEMON_TRANSPORT_OUTBOX_H

#include "daemon/base/timers.h"
#include "proto/error.h"

#include <msgpack.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct session;

enum outbox_state {
    OUTBOX_OPEN,    /* the socket accepts more, as far as is known */
    OUTBOX_WRITING, /* libuv writes the rest of a turn's answers: the client is slow to read */
    OUTBOX_BROKEN   /* a write has failed: the session is about to end */
};

struct outbox_part;

struct outbox {
    enum outbox_state state;
    int failure;               /* OUTBOX_BROKEN: libuv's error, negative */
    uint64_t flushes;          /* of packed: what was packed before the last one can no longer be changed */
    struct outbox_part *parts; /* large answers, and what was packed before them; a list */
    size_t part_bytes;         /* of them all */
    msgpack_sbuffer packed;    /* in this turn, after the parts */
    msgpack_sbuffer writing;   /* OUTBOX_WRITING: what libuv writes, */
    size_t handed_bytes;       /* and how much of it libuv has been given */
    size_t stalled_bytes;      /* unread bytes when the stall timer was set, those in the kernel included */
    size_t counted_bytes;      /* unread bytes, as usage knows them */
    uv_write_t write;
    struct timer stall;
};

/* Out-buffers of sessions that have nothing to send, for the next that have. As many as answer in a usual turn. */
#define OUTBOX_SPARE_MAX 16u

struct outbox_spares {
    msgpack_sbuffer buffers[OUTBOX_SPARE_MAX];
    unsigned count;
};

void outbox_spares_free(struct outbox_spares *spares);

/* --- For calls and watches --------------------------------------------------------------------------- */

/* Return the buffer to pack an answer or a notification into. After packing, call outbox_commit. */
msgpack_sbuffer *outbox_buffer(struct session *session);
void outbox_commit(struct session *session);

/*
 * Append the rest of an answer, whose beginning is in outbox_buffer. rest is emptied. If it is large, its buffer is
 * taken over and not copied. Then call outbox_commit, and pack nothing more into the former outbox_buffer.
 */
void outbox_append(struct session *session, msgpack_sbuffer *rest);

/* Pack an error, in the form that the session asked for. msgid is NULL if the message has none that could be read. */
void outbox_pack_error(struct session *session, const uint32_t *msgid, const struct error *error);

/*
 * The same for a message that never becomes a call. error gets the default outcome, because the message has changed
 * nothing, and is counted.
 */
void outbox_refuse(struct session *session, const uint32_t *msgid, struct error *error);

/*
 * The same for a message that cannot be read, after which the session ends. If calls were made before it, the outcome
 * is unknown: their answers may not come, and nobody may take the error for a dismissal.
 */
void outbox_refuse_last(struct session *session, struct error *error);

/* Return the number of bytes that the client has not read yet, those that were packed in this turn included. */
size_t outbox_unread_bytes(const struct session *session);

/*
 * Return whether this number of bytes more, which are packed already, may wait to be read, by the session's user and by
 * all users. unread: of the session, these included. False: *error says which limit is reached. A session that has read
 * everything may have an answer of 64 KiB, and a user who has, one of any size.
 */
bool outbox_check_limits(const struct session *session, size_t bytes, size_t unread, struct error *error);

/* Return whether notifications that can wait should be sent now. If not, see session_await_room. */
bool outbox_has_room(const struct session *session);

/* --- For the session --------------------------------------------------------------------------------- */

void outbox_init(struct outbox *outbox);

/* Return whether the client has many unread answers while those of its user, or of all, take half of their limit. */
bool outbox_is_slow_reader(const struct session *session);

/* Write what was packed. */
void outbox_flush(struct session *session);

/* The daemon ends: from now on the client has less time to read. */
void outbox_drain(struct session *session);

/* Count the unread bytes again for the session's user. */
void outbox_count(struct session *session);

/* The session closes: stop the timer. outbox_free follows some turns later. */
void outbox_close(struct session *session);
void outbox_free(struct session *session);

#endif
