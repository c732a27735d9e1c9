#include "daemon/transport/inbox.h"

#include "daemon/base/log.h"
#include "daemon/transport/session.h"
#include "daemon/transport/socket.h"
#include "proto/rpc.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * A session with this number of calls in flight is not read while the calls of its user, or all, take half of their
 * limit: so the calls of other sessions need not be refused.
 */
#define BUSY_SESSION_CALLS 12u

/* How often a session that does not read looks whether its client is still there. */
#define LOOK_MS 1000u

/* The first size of the buffer for kept bytes. */
#define KEPT_FIRST_BYTES 512u

/* Messages from this size on are not copied, if possible: see inbox_take_buffer. */
#define TAKEN_BYTES (2 * INBOX_READ_BYTES)

/* The limits of a message that is skipped: its bytes are not kept, only its structure must stay within bounds. */
static const struct frame_limits skip_limits = {SIZE_MAX, UINT32_MAX, FRAME_DEPTH_MAX};

/* Bytes that were read and not delivered: the beginning of a message, or messages that backpressure holds up. */
struct inbox_kept {
    struct frame frame; /* the scan of the message that begins at start */
    bool is_skipping;   /* a message was refused: drop its bytes until its end */
    size_t start;       /* of the first message within bytes */
    size_t length;      /* of all within bytes, start included */
    size_t capacity;
    uint8_t *bytes;
};

static bool inbox_run(struct job *job);

/* --- Backpressure ---------------------------------------------------------------------------------- */

static bool inbox_must_wait(const struct session *session)
{
    const struct conf *conf = session->list->conf;
    unsigned calls = session_count(session, SESSION_PENDING);

    /* Each of these ends with something of the session's own, which resumes it: it cannot be forgotten. */
    bool is_busy = calls >= BUSY_SESSION_CALLS && session->user != NULL &&
                   usage_is_high(&session->list->usage, session->user, USAGE_CALLS);

    return session->outbox.state == OUTBOX_BROKEN || session->reading_calls > 0 ||
           calls >= conf->limits.calls_per_session || session->pending_bytes >= conf->limits.call_bytes_per_session ||
           outbox_is_slow_reader(session) || is_busy ||
           outbox_unread_bytes(session) > conf->limits.out_buffer_bytes / 2;
}

/* --- Messages -------------------------------------------------------------------------------------- */

/*
 * Answer a message that breaks a limit, or is malformed. If it is only too large and its msgid could be read, it is
 * skipped and the session continues: return true. Otherwise the session ends: return false.
 */
static bool inbox_refuse_message(struct session *session, enum frame_status status, const uint8_t *bytes, size_t length)
{
    const struct frame_limits *limits = &session->list->frame_limits;
    enum error_code code = status == FRAME_MALFORMED ? ERROR_INVALID_ARGUMENT : ERROR_TOO_LARGE;
    struct error error;
    uint32_t msgid;
    bool has_msgid = rpc_peek_msgid(bytes, length, &msgid);

    error_set(&error, code,
              "the message %s; the limits are %zu bytes (limits.frame_bytes), %u elements (frame_elements), "
              "nested %u deep (frame_depth)",
              frame_status_text(status), limits->size_bytes, limits->elements, limits->depth);
    if (has_msgid)
        outbox_refuse(session, &msgid, &error);
    else
        outbox_refuse_last(session, &error);
    if (status == FRAME_TOO_LARGE && has_msgid) {
        log_limited(&session->list->message_log, "messages were refused", CONF_LOG_INFO,
                    "session of pid %d uid %u: a message was refused and is skipped: it %s", (int)session->pid,
                    (unsigned)session->uid, frame_status_text(status));
        return true;
    }
    log_limited(&session->list->message_log, "messages were refused", CONF_LOG_WARNING,
                "session of pid %d uid %u: a message was refused: it %s; the session ends", (int)session->pid,
                (unsigned)session->uid, frame_status_text(status));
    session->list->metrics->sessions_ended++;
    session_finish(session);
    return false;
}

/*
 * Deliver the whole messages among bytes. Return the number of bytes that are done with. *frame is the scan of the
 * first message, and afterwards that of the one that is incomplete. If the slice is over before, the job continues.
 */
static size_t inbox_deliver(struct session *session, struct frame *frame, bool *is_skipping, const uint8_t *bytes,
                            size_t length)
{
    struct session_list *list = session->list;
    size_t done = 0;

    list->ops->on_messages(list->ops_arg);
    while (done < length && session->state == SESSION_OPEN && (*is_skipping || !inbox_must_wait(session))) {
        if (done > 0 && jobs_slice_is_over(list->jobs)) {
            jobs_add_session(list->jobs, &session->inbox.receiving, inbox_run);
            break;
        }
        enum frame_status status = frame_scan(frame, bytes + done, length - done);

        if (status == FRAME_COMPLETE) {
            size_t size = frame->offset - frame->base;
            if (!*is_skipping)
                list->ops->on_message(list->ops_arg, session, bytes + done, size, frame->elements);
            done += size;
            *is_skipping = false;
            frame_init(frame, &list->frame_limits);
            timer_stop(list->timers, &session->inbox.message_limit); /* the next message has its own */
        } else if (status == FRAME_PARTIAL && *is_skipping) {
            size_t there = length - done, walked = frame->offset - frame->base;
            size_t drop = walked < there ? walked : there;
            frame->base += drop;
            return done + drop;
        } else if (status == FRAME_PARTIAL) {
            break;
        } else if (*is_skipping) {
            session_end(session, CONF_LOG_WARNING, "the rest of a message that was too large %s",
                        frame_status_text(status));
        } else if (inbox_refuse_message(session, status, bytes + done, length - done)) {
            *is_skipping = true;
            frame_init(frame, &skip_limits);
        }
    }
    return done;
}

/* --- An incomplete message ------------------------------------------------------------------------- */

/* Answer that the session cannot continue with the message that has arrived in part. The session ends. */
static void inbox_refuse_partial(struct session *session, struct error *error)
{
    outbox_refuse_last(session, error);
    log_limited(&session->list->message_log, "messages were refused", CONF_LOG_WARNING,
                "session of pid %d uid %u: a message was refused: %s; the session ends", (int)session->pid,
                (unsigned)session->uid, error->message);
    session->list->metrics->sessions_ended++;
    session_finish(session);
}

static void inbox_on_message_limit(struct timer *timer)
{
    struct session *session = (struct session *)((char *)timer - offsetof(struct session, inbox.message_limit));
    struct error error;

    if (session->state != SESSION_OPEN)
        return;
    error_set(&error, ERROR_DEADLINE_EXCEEDED,
              "the rest of a message did not arrive within %.3g s (limits.message_timeout)",
              session->list->conf->limits.message_timeout_ms / 1000.0);
    inbox_refuse_partial(session, &error);
}

/*
 * The timer runs while the daemon waits for the rest of a message, and not while it does not read. A timer that runs
 * is not set again: the limit is for the whole message.
 */
static void inbox_update_timer(struct session *session)
{
    struct session_list *list = session->list;
    struct inbox *inbox = &session->inbox;

    bool awaits_more = inbox->state == INBOX_READING || jobs_is_queued(&inbox->receiving);

    if (inbox->kept == NULL || !awaits_more)
        timer_stop(list->timers, &inbox->message_limit);
    else if (!timer_is_set(&inbox->message_limit))
        timer_start(list->timers, &inbox->message_limit, uv_now(list->loop) + list->conf->limits.message_timeout_ms,
                    inbox_on_message_limit);
}

/* --- Kept bytes ------------------------------------------------------------------------------------ */

/* Keep bytes for later. False: there was no memory for them, and the session ends. */
static bool inbox_keep(struct session *session, const struct frame *frame, bool is_skipping, const uint8_t *bytes,
                       size_t length)
{
    struct inbox_kept *kept = session->inbox.kept;
    struct error error;

    if (kept == NULL) {
        kept = calloc(1, sizeof(*kept));
        if (kept == NULL)
            goto no_memory;
        kept->frame = *frame;
        kept->is_skipping = is_skipping;
        session->inbox.kept = kept;
    }
    if (kept->length + length > kept->capacity && kept->start > 0) {
        memmove(kept->bytes, kept->bytes + kept->start, kept->length - kept->start);
        kept->length -= kept->start;
        kept->start = 0;
    }
    if (kept->length + length > kept->capacity) {
        size_t capacity = kept->capacity > 0 ? kept->capacity : KEPT_FIRST_BYTES;
        while (capacity < kept->length + length)
            capacity *= 2;
        size_t more = capacity - kept->capacity;
        if (!usage_check(&session->list->usage, session->user, USAGE_INPUT_BYTES, more, &error)) {
            inbox_refuse_partial(session, &error);
            return false;
        }
        uint8_t *grown = realloc(kept->bytes, capacity);
        if (grown == NULL)
            goto no_memory;
        usage_add(&session->list->usage, session->user, USAGE_INPUT_BYTES, more);
        kept->bytes = grown;
        kept->capacity = capacity;
    }
    if (length > 0)
        memcpy(kept->bytes + kept->length, bytes, length);
    kept->length += length;
    return true;

no_memory:
    session_end(session, CONF_LOG_ERROR, "out of memory");
    return false;
}

static void inbox_drop_kept(struct session *session)
{
    struct inbox_kept *kept = session->inbox.kept;

    usage_subtract(&session->list->usage, session->user, USAGE_INPUT_BYTES, kept->capacity);
    garbage_free(&session->list->garbage, kept->bytes, kept->capacity);
    free(kept);
    session->inbox.kept = NULL;
}

static void inbox_deliver_kept(struct session *session)
{
    struct inbox_kept *kept = session->inbox.kept;

    kept->start +=
        inbox_deliver(session, &kept->frame, &kept->is_skipping, kept->bytes + kept->start, kept->length - kept->start);
    if (kept->start == kept->length && !kept->is_skipping)
        inbox_drop_kept(session);
    else if (kept->start == kept->length)
        kept->start = kept->length = 0;
}

void *inbox_take_buffer(struct session *session, const uint8_t *message, size_t size, size_t *capacity)
{
    struct inbox_kept *kept = session->inbox.kept;

    if (kept == NULL || size < TAKEN_BYTES || message < kept->bytes || message + size != kept->bytes + kept->length ||
        size < kept->capacity / 2)
        return NULL;
    uint8_t *bytes = kept->bytes;
    *capacity = kept->capacity;
    usage_subtract(&session->list->usage, session->user, USAGE_INPUT_BYTES, kept->capacity);
    kept->bytes = NULL;
    kept->capacity = 0;
    return bytes;
}

size_t inbox_kept_bytes(const struct session *session)
{
    const struct inbox_kept *kept = session->inbox.kept;

    return kept != NULL ? kept->length - kept->start : 0;
}

/* --- Reading --------------------------------------------------------------------------------------- */

/*
 * Without a buffer libuv reads nothing, and reports UV_ENOBUFS: the session gets in line. So it does if others wait, if
 * the turn has no time left, or if this event has taken a slice.
 */
static void inbox_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct session *session = handle->data;
    struct jobs *jobs = session->list->jobs;
    bool is_first = session->inbox.turn_ns != jobs->turn_began_ns || jobs->turn_began_ns == 0;
    bool has_time = is_first ? jobs_begin_slice(jobs) : !jobs_slice_is_over(jobs);
    bool may_read = has_time && !jobs_are_waiting(jobs);

    (void)suggested;
    session->inbox.turn_ns = jobs->turn_began_ns;
    *buffer = uv_buf_init(may_read ? session->list->read_buffer : NULL, may_read ? INBOX_READ_BYTES : 0);
}

static void inbox_receive(struct session *session, const uint8_t *bytes, size_t length)
{
    struct frame frame;
    bool is_skipping = false;

    session->list->metrics->bytes_in += (uint64_t)length;
    session->counted.bytes_in += (uint64_t)length;
    session->list->reads++;
    if (session->inbox.kept != NULL) {
        if (inbox_keep(session, NULL, false, bytes, length))
            inbox_deliver_kept(session);
        return;
    }
    frame_init(&frame, &session->list->frame_limits);
    size_t done = inbox_deliver(session, &frame, &is_skipping, bytes, length);
    if (session->state == SESSION_OPEN && (done < length || is_skipping))
        inbox_keep(session, &frame, is_skipping, bytes + done, length - done);
}

/* The client may have shut down its sending half only: its calls are answered. */
static void inbox_receive_end(struct session *session)
{
    inbox_pause(session);
    session->inbox.state = INBOX_AT_END;
    session_mark_dirty(session);
}

bool inbox_client_has_left(const struct session *session)
{
    return socket_peer_has_left(session_socket(session));
}

/* Thousands may leave at once, each with thousands of calls, and to close a socket takes the kernel long. */
void inbox_abandon(struct session *session)
{
    struct session_list *list = session->list;

    if (session->inbox.is_abandoned)
        return;
    session->inbox.is_abandoned = true;
    list->abandoned++;
    jobs_remove(list->jobs, &session->inbox.receiving);
    jobs_add(list->jobs, &session->inbox.receiving, inbox_run);
}

/* A light session reads in this turn, so its socket stays in the loop. In the ordinary line it may take many turns. */
static void inbox_get_in_line(struct session *session)
{
    struct job *job = &session->inbox.receiving;

    if (jobs_is_queued(job))
        return;
    if (inbox_client_has_left(session))
        inbox_abandon(session);
    else
        jobs_add_session(session->list->jobs, job, inbox_run);
    if (job->line == JOB_ORDINARY)
        inbox_pause(session);
}

static void inbox_on_look(struct timer *timer)
{
    struct session *session = (struct session *)((char *)timer - offsetof(struct session, inbox.look));

    if (session->inbox.state == INBOX_READING)
        return;
    if (inbox_client_has_left(session))
        inbox_abandon(session);
    else
        timer_start(session->list->timers, timer, uv_now(session->list->loop) + LOOK_MS, inbox_on_look);
}

/*
 * After reading: a session that must wait does not read until inbox_resume, which does nothing for one that reads. Nor
 * does one that has more to deliver.
 */
static void inbox_settle(struct session *session)
{
    if (session->state == SESSION_OPEN && (inbox_must_wait(session) || jobs_is_queued(&session->inbox.receiving)))
        inbox_pause(session);
    inbox_update_timer(session);
}

static void inbox_on_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer)
{
    struct session *session = stream->data;

    if (length == 0)
        return;
    if (length == UV_ENOBUFS) {
        inbox_get_in_line(session);
        return;
    }
    if (length == UV_EOF) {
        inbox_receive_end(session);
        return;
    }
    if (length < 0) {
        session_end(session, CONF_LOG_DEBUG, "%s", uv_strerror((int)length));
        return;
    }
    inbox_receive(session, (const uint8_t *)buffer->base, (size_t)length);
    jobs_charge(session->list->jobs, &session->inbox.receiving);
    inbox_settle(session);
}

void inbox_start(struct session *session)
{
    if (session->inbox.state != INBOX_PAUSED || session->state != SESSION_OPEN)
        return;
    if (uv_read_start((uv_stream_t *)&session->pipe, inbox_on_alloc, inbox_on_read) == 0)
        session->inbox.state = INBOX_READING;
    inbox_update_timer(session);
}

void inbox_pause(struct session *session)
{
    if (session->inbox.state != INBOX_READING)
        return;
    uv_read_stop((uv_stream_t *)&session->pipe);
    session->inbox.state = INBOX_PAUSED;
    if (!timer_is_set(&session->inbox.look))
        timer_start(session->list->timers, &session->inbox.look, uv_now(session->list->loop) + LOOK_MS, inbox_on_look);
}

/* What was kept is delivered: read the socket again, unless backpressure forbids it. */
static void inbox_read_on(struct session *session)
{
    if (session->state != SESSION_OPEN || inbox_must_wait(session))
        return;
    if (session->inbox.state == INBOX_AT_END)
        session_finish(session);
    else
        inbox_start(session);
}

/* Return whether the session may receive in the rest of the slice. */
static bool inbox_may_receive(const struct session *session)
{
    return session->state == SESSION_OPEN && !inbox_must_wait(session) && !jobs_is_queued(&session->inbox.receiving);
}

/* Read for the rest of the slice what has arrived. */
static void inbox_read_slice(struct session *session)
{
    struct session_list *list = session->list;

    while (inbox_may_receive(session) && session->inbox.state != INBOX_AT_END) {
        ssize_t length = socket_receive(session_socket(session), list->read_buffer, INBOX_READ_BYTES);
        if (length > 0)
            inbox_receive(session, (const uint8_t *)list->read_buffer, (size_t)length);
        else if (length == 0)
            inbox_receive_end(session);
        else if (errno == EAGAIN)
            return;
        else if (errno != EINTR)
            session_end(session, CONF_LOG_DEBUG, "%s", strerror(errno));
        if (jobs_slice_is_over(list->jobs) && session->state == SESSION_OPEN)
            jobs_add_session(list->jobs, &session->inbox.receiving, inbox_run);
    }
}

/* Deliver what was kept, then read, for a slice. */
static bool inbox_run(struct job *job)
{
    struct session *session = (struct session *)((char *)job - offsetof(struct session, inbox.receiving));

    if (session->outbox.state == OUTBOX_BROKEN) {
        session_end(session, CONF_LOG_DEBUG, "%s", uv_strerror(session->outbox.failure));
        return false;
    }
    if (session->inbox.is_abandoned || (job->line == JOB_ORDINARY && inbox_client_has_left(session))) {
        session_end(session, CONF_LOG_DEBUG, "its client has left");
        return false;
    }
    if (session->inbox.kept != NULL && inbox_may_receive(session))
        inbox_deliver_kept(session);
    inbox_read_slice(session);
    jobs_charge(session->list->jobs, job);
    inbox_settle(session);
    /* If there is more, the job is queued again. A session that was closed is still in memory. */
    if (!jobs_is_queued(job)) {
        inbox_read_on(session);
        session_mark_dirty(session);
    }
    return false;
}

void inbox_resume(struct session *session)
{
    if (session->inbox.state == INBOX_READING || session->state != SESSION_OPEN || inbox_must_wait(session) ||
        jobs_is_queued(&session->inbox.receiving))
        return;
    if (inbox_kept_bytes(session) > 0)
        jobs_add_session(session->list->jobs, &session->inbox.receiving, inbox_run);
    else
        inbox_read_on(session);
}

/* --- The end --------------------------------------------------------------------------------------- */

void inbox_break(struct session *session)
{
    inbox_pause(session);
    jobs_add_session(session->list->jobs, &session->inbox.receiving, inbox_run);
}

void inbox_close(struct session *session)
{
    inbox_pause(session); /* the session may close within a delivery, and no timer is set after it */
    timer_stop(session->list->timers, &session->inbox.message_limit);
    timer_stop(session->list->timers, &session->inbox.look);
    jobs_remove(session->list->jobs, &session->inbox.receiving);
    session->list->abandoned -= session->inbox.is_abandoned;
    session->inbox.is_abandoned = false;
}

void inbox_free(struct session *session)
{
    assert(!timer_is_set(&session->inbox.message_limit) && !timer_is_set(&session->inbox.look));
    if (session->inbox.kept != NULL)
        inbox_drop_kept(session);
}
