/*
 * inbox: what one client sends.
 *
 * Reads the socket, finds whole messages (frames) and gives each to the session's owner (session_ops). Only bytes that
 * cannot be delivered at once are kept: the beginning of a message, or messages that have to wait. The owner can take
 * the buffer of a large message: copying 16 MB would take a turn of several milliseconds.
 *
 * Backpressure: the inbox does not read while the session has too many calls in flight, or too much memory in them, or
 * too many unread answers, or while the arguments of a large call are read. Sessions take turns: while others wait, and
 * after a slice of a turn, one receives in a job. A message that does not arrive as a whole within
 * limits.message_timeout ends the session. While the inbox does not read, the end of the client does not show as an
 * event: the inbox looks for it each second.
 */
#ifndef DAEMON_TRANSPORT_INBOX_H
#define DAEMON_TRANSPORT_INBOX_H

#include "daemon/base/jobs.h"
#include "daemon/base/timers.h"

#include <stdbool.h>

struct session;
struct inbox_kept;

/* What one read takes at most, of any session: all share one buffer of this size. */
#define INBOX_READ_BYTES 65536u

enum inbox_state {
    INBOX_PAUSED,  /* does not read: backpressure, or kept messages come first */
    INBOX_READING, /* the loop calls back when bytes arrive */
    INBOX_AT_END   /* the client sends no more */
};

struct inbox {
    enum inbox_state state;
    struct inbox_kept *kept;    /* bytes that were read and not delivered; NULL: none */
    struct job receiving;       /* when others wait, or a slice was over; ends a session whose outbox broke */
    bool is_abandoned;          /* its client has left: the job ends the session */
    uint64_t turn_ns;           /* the beginning of the last turn in which an event read */
    struct timer message_limit; /* while a message has arrived in part */
    struct timer look;          /* at whether the client is still there: set since the inbox did not read */
};

/* Read from the socket from now on. */
void inbox_start(struct session *session);

/* Stop reading, until inbox_start or inbox_resume. */
void inbox_pause(struct session *session);

/* Backpressure may have eased: deliver what was kept, then read. */
void inbox_resume(struct session *session);

/*
 * While a message is delivered: take the buffer that it lies in, instead of copying the message. The caller frees it
 * with garbage_free. NULL: the message is small, or others lie in the same buffer, so it must be copied.
 */
void *inbox_take_buffer(struct session *session, const uint8_t *message, size_t size, size_t *capacity);

/* Return the bytes that were read and not delivered. */
size_t inbox_kept_bytes(const struct session *session);

/* The outbox broke: stop reading, and end the session in a job. */
void inbox_break(struct session *session);

/* The client has left: nobody will read the answers. End the session in a job. */
void inbox_abandon(struct session *session);

/* The session closes: stop timer and job. inbox_free follows some turns later. */
void inbox_close(struct session *session);
void inbox_free(struct session *session);

/* Return whether the client has closed its socket, and not only the sending half of it. */
bool inbox_client_has_left(const struct session *session);

#endif
