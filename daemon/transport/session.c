#include "daemon/transport/session.h"

#include "daemon/base/log.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/dispatch.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#define READ_BUFFER_BYTES 65536u

/* What a session wants to write beyond this in one turn makes its buffer not worth keeping. */
#define OUT_KEEP_BYTES 65536u

/* A session with more unread answers does not read on while answers of its user, or of all, take half of their room. */
#define SLOW_READER_BYTES 65536u

/*
 * File descriptors that are kept from sessions. At one time these may be needed: by a reload the configuration and
 * what the lookup of users and groups opens (5), by a start of the embedded server its configuration, directory, ports
 * and pipe (5), its probe (1), by a connection to NATS its socket, the resolver's and a TLS file (4), to refuse a
 * session (1).
 */
#define DESCRIPTOR_RESERVE 24u

/*
 * A refused session stays open for up to a second, so that a client that sends its request before it reads does not get
 * a broken pipe. LINGERING_MAX of them may be open at a time. Their descriptors are reserved, in addition to
 * DESCRIPTOR_RESERVE.
 */
#define LINGERING_MAX 16u
#define LINGER_MS     1000u

/* Bytes that came and are not dispatched yet: the beginning of a frame, or frames that back-pressure holds up. */
struct session_input {
    struct frame frame; /* the scan of the frame that begins at start */
    bool is_skipping;   /* of a frame that was refused: let go of its bytes until its end */
    size_t start;       /* of the frame within bytes */
    size_t length;      /* of all within bytes, start included */
    size_t capacity;
    uint8_t *bytes;
};

/* Calls in flight from which on a session is not read while its user, or all, have many: others are not refused then.
 */
#define BUSY_SESSION_CALLS 12u

static void end_session(struct session *session, enum conf_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* --- Buffers that are done with ---------------------------------------------------------------------- */

/* The kernel takes back a buffer of 16 MB in more than a millisecond, and many sessions may end at a time. */
#define LARGE_BYTES (1024u * 1024u)

/* A large buffer that waits to be freed: this is at its beginning. */
struct session_garbage {
    struct session_garbage *next;
};

static bool run_freeing(struct job *job)
{
    struct session_list *list = (struct session_list *)((char *)job - offsetof(struct session_list, freeing));

    while (list->garbage != NULL) {
        struct session_garbage *buffer = list->garbage;
        list->garbage = buffer->next;
        free(buffer);
        if (jobs_slice_is_over(list->jobs))
            return list->garbage != NULL;
    }
    return false;
}

static void free_buffer(struct session_list *list, void *bytes, size_t capacity)
{
    if (capacity < LARGE_BYTES) {
        free(bytes);
        return;
    }
    struct session_garbage *buffer = bytes;
    buffer->next = list->garbage;
    list->garbage = buffer;
    jobs_add(list->jobs, &list->freeing, run_freeing);
}

static void free_out(struct session_list *list, msgpack_sbuffer *buffer)
{
    free_buffer(list, buffer->data, buffer->alloc);
    msgpack_sbuffer_init(buffer);
}

static void drop_input(struct session *session);
static bool run_dispatching(struct job *job);

/* --- The end --------------------------------------------------------------------------------------- */

static void free_session(struct session *session)
{
    struct session_list *list = session->list;

    if (session->input != NULL)
        drop_input(session);
    free_out(list, &session->out);
    free_out(list, &session->writing);
    if (session->user != NULL) {
        usage_subtract(&list->usage, session->user, USAGE_OUT_BYTES, session->counted_out_bytes);
        usage_subtract(&list->usage, session->user, USAGE_SESSIONS, 1);
        usage_release(&list->usage, session->user);
    }
    if (session->previous != NULL)
        session->previous->next = session->next;
    else
        list->first = session->next;
    if (session->next != NULL)
        session->next->previous = session->previous;
    list->metrics->sessions--;
    list->lingering -= session->lingers;
    free(session);
    if (list->first == NULL && list->emptied != NULL)
        list->emptied(list->emptied_arg);
}

/* Release the session's resources in slices: it may have a thousand watches of 64 filters each. */
static bool run_releasing(struct job *job)
{
    struct session *session = (struct session *)((char *)job - offsetof(struct session, dispatching));

    while (session->resources != NULL) {
        struct session_resource *resource = session->resources;
        session_remove_resource(session, resource);
        resource->release(resource);
        if (jobs_slice_is_over(session->list->jobs) && session->resources != NULL)
            return true;
    }
    free_session(session);
    return false;
}

static void on_closed(uv_handle_t *handle)
{
    struct session *session = handle->data;

    jobs_add(session->list->jobs, &session->dispatching, run_releasing);
}

static void close_session(struct session *session)
{
    if (session->state == SESSION_CLOSING)
        return;
    session->state = SESSION_CLOSING;
    for (struct session_resource *resource = session->resources; resource != NULL; resource = resource->next)
        resource->closing(resource);
    while (session->first_call != NULL)
        call_abandon(session->first_call);
    timer_stop(session->list->timers, &session->stall);
    timer_stop(session->list->timers, &session->message_limit);
    jobs_remove(session->list->jobs, &session->dispatching);
    if (session->is_dirty) {
        struct session **at = &session->list->dirty;
        while (*at != session)
            at = &(*at)->next_dirty;
        *at = session->next_dirty;
        session->is_dirty = false;
    }
    uv_close((uv_handle_t *)&session->pipe, on_closed);
}

/* Ends a session for a reason, which goes to the log with whose session it was. */
static void end_session(struct session *session, enum conf_log_level level, const char *format, ...)
{
    char reason[256];
    va_list args;

    if (session->state == SESSION_CLOSING)
        return;
    va_start(args, format);
    vsnprintf(reason, sizeof(reason), format, args);
    va_end(args);
    if (level == CONF_LOG_DEBUG || log_may(&session->list->ended_log, "sessions were ended"))
        log_write(level, "session of pid %d uid %u ended: %s", (int)session->pid, (unsigned)session->uid, reason);
    if (level != CONF_LOG_DEBUG)
        session->list->metrics->sessions_ended++;
    close_session(session);
}

/* A session that reads no more ends when everything is answered and written. */
static void end_if_done(struct session *session)
{
    if (session->state == SESSION_LAST_ANSWERS && session->calls == 0 && session_unread_bytes(session) == 0)
        end_session(session, CONF_LOG_DEBUG, "the client is done");
}

static void stop_reading(struct session *session)
{
    if (session->is_reading)
        uv_read_stop((uv_stream_t *)&session->pipe);
    session->is_reading = false;
}

static void read_no_more(struct session *session)
{
    if (session->state != SESSION_OPEN)
        return;
    stop_reading(session);
    session->state = SESSION_LAST_ANSWERS;
}

/* --- Writing --------------------------------------------------------------------------------------- */

static void mark_dirty(struct session *session)
{
    if (session->is_dirty || session->state == SESSION_CLOSING)
        return;
    session->is_dirty = true;
    session->next_dirty = session->list->dirty;
    session->list->dirty = session;
}

msgpack_sbuffer *session_out(struct session *session)
{
    struct session_list *list = session->list;

    if (session->out.alloc == 0 && list->spare_count > 0)
        session->out = list->spare[--list->spare_count];
    return &session->out;
}

void session_pack_error(struct session *session, const uint32_t *msgid, const struct error *error)
{
    msgpack_packer packer;

    msgpack_packer_init(&packer, session_out(session), msgpack_sbuffer_write);
    if (session->errors_as_text)
        rpc_pack_error_text(&packer, msgid, error);
    else
        rpc_pack_error(&packer, msgid, error);
}

struct usage *session_usage(const struct session *session)
{
    return &session->list->usage;
}

/* What waits to be read counts for the session's user. */
static void count_out_bytes(struct session *session)
{
    size_t unread = session_unread_bytes(session);

    if (session->user == NULL)
        return;
    usage_subtract(&session->list->usage, session->user, USAGE_OUT_BYTES, session->counted_out_bytes);
    usage_add(&session->list->usage, session->user, USAGE_OUT_BYTES, unread);
    session->counted_out_bytes = unread;
}

void session_answered(struct session *session)
{
    count_out_bytes(session);
    mark_dirty(session);
}

bool session_may_answer(const struct session *session, size_t bytes, struct error *error)
{
    return session->user == NULL || usage_check(&session->list->usage, session->user, USAGE_OUT_BYTES, bytes, error);
}

size_t session_unread_bytes(const struct session *session)
{
    size_t writing = session->is_writing ? uv_stream_get_write_queue_size((const uv_stream_t *)&session->pipe) : 0;

    return session->out.size + writing;
}

void session_add_resource(struct session *session, struct session_resource *resource)
{
    DL_APPEND2(session->resources, resource, previous, next);
    session->resource_count++;
}

static void leave_waiting(struct session *session, struct session_resource *resource)
{
    if (!resource->awaits_room)
        return;
    resource->awaits_room = false;
    DL_DELETE2(session->waiting, resource, previous_waiting, next_waiting);
}

void session_await_room(struct session *session, struct session_resource *resource)
{
    if (resource->awaits_room)
        return;
    resource->awaits_room = true;
    DL_APPEND2(session->waiting, resource, previous_waiting, next_waiting);
}

static void wake_waiting(struct session *session)
{
    while (session->waiting != NULL) {
        struct session_resource *resource = session->waiting;
        leave_waiting(session, resource);
        resource->room(resource);
    }
}

void session_remove_resource(struct session *session, struct session_resource *resource)
{
    leave_waiting(session, resource);
    DL_DELETE2(session->resources, resource, previous, next);
    session->resource_count--;
}

int session_socket(const struct session *session)
{
    uv_os_fd_t descriptor = -1;

    uv_fileno((const uv_handle_t *)&session->pipe, &descriptor);
    return descriptor;
}

static void on_stall(struct timer *timer)
{
    struct session *session = (struct session *)((char *)timer - offsetof(struct session, stall));
    struct session_list *list = session->list;
    size_t bytes = uv_stream_get_write_queue_size((uv_stream_t *)&session->pipe);

    if (!session->is_writing)
        return;
    if (bytes == session->stalled_bytes) {
        end_session(session, CONF_LOG_WARNING, "it read nothing for %.3g s with %zu bytes of answers waiting",
                    list->conf->limits.stall_timeout_ms / 1000.0, bytes);
        return;
    }
    session->stalled_bytes = bytes;
    timer_start(list->timers, &session->stall, uv_now(list->loop) + list->conf->limits.stall_timeout_ms, on_stall);
}

/*
 * Nothing can be written any more. Many sessions may come to that in one turn, and each may have thousands of calls and
 * megabytes of answers: their ends take turns with everything else.
 */
static void break_session(struct session *session, int status)
{
    if (session->state == SESSION_CLOSING)
        return;
    session->broken = status;
    stop_reading(session);
    jobs_add(session->list->jobs, &session->dispatching, run_dispatching);
}

static void on_written(uv_write_t *write, int status)
{
    struct session *session = write->data;

    session->is_writing = false;
    timer_stop(session->list->timers, &session->stall);
    free_out(session->list, &session->writing);
    if (status < 0)
        break_session(session, status);
    else
        mark_dirty(session);
}

/* Leaves what the socket did not take to libuv, in a buffer that nobody else touches. */
static void write_when_possible(struct session *session, size_t written)
{
    struct session_list *list = session->list;

    session->writing = session->out;
    msgpack_sbuffer_init(&session->out);
    uv_buf_t rest = uv_buf_init(session->writing.data + written, (unsigned)(session->writing.size - written));
    session->write.data = session;
    session->is_writing = true;
    int failed = uv_write(&session->write, (uv_stream_t *)&session->pipe, &rest, 1, on_written);
    if (failed != 0) {
        session->is_writing = false;
        end_session(session, CONF_LOG_DEBUG, "%s", uv_strerror(failed));
        return;
    }
    session->stalled_bytes = uv_stream_get_write_queue_size((uv_stream_t *)&session->pipe);
    timer_start(list->timers, &session->stall, uv_now(list->loop) + list->conf->limits.stall_timeout_ms, on_stall);
}

static void put_away(struct session *session)
{
    struct session_list *list = session->list;

    msgpack_sbuffer_clear(&session->out);
    if (list->spare_count < SESSION_SPARE_MAX && session->out.alloc > 0 && session->out.alloc <= OUT_KEEP_BYTES)
        list->spare[list->spare_count++] = session->out;
    else
        free_out(list, &session->out);
    msgpack_sbuffer_init(&session->out);
}

static void flush_session(struct session *session)
{
    if (session->out.size == 0 || session->is_writing || session->broken != 0)
        return;
    session->flushes++;
    /* Not uv_try_write: write(2) has more layers to go through than send(2), about 3 % of a cached get. */
    ssize_t written = send(session_socket(session), session->out.data, session->out.size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (written < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
        break_session(session, -errno);
        return;
    }
    session->list->metrics->bytes_out += session->out.size;
    if (written < 0)
        written = 0;
    if ((size_t)written < session->out.size) {
        write_when_possible(session, (size_t)written);
        return;
    }
    msgpack_sbuffer_clear(&session->out);
    /* An idle session keeps no buffer; one is kept for all. */
    if (session->calls == 0 || session->out.alloc > OUT_KEEP_BYTES)
        put_away(session);
}

/*
 * Answers a message that never becomes a call; msgid NULL for the nil of one whose msgid is not known. Whatever it was
 * to do, it has done nothing.
 */
static void refuse(struct session *session, const uint32_t *msgid, struct error *error)
{
    error_set_default_outcome(error);
    session_pack_error(session, msgid, error);
    session->list->metrics->errors[error->code]++;
    mark_dirty(session);
}

/* Return whether the session has many unread answers while those of its user, or of all, take half of their room. */
static bool is_slow_reader(const struct session *session)
{
    return session_unread_bytes(session) > SLOW_READER_BYTES && session->user != NULL &&
           usage_is_high(&session->list->usage, session->user, USAGE_OUT_BYTES);
}

bool session_is_closing(const struct session *session)
{
    return session->state == SESSION_CLOSING;
}

bool session_has_room(const struct session *session)
{
    const struct conf *conf = session->list->conf;
    size_t own = conf->watches.buffer_bytes, all = conf->limits.out_buffer_bytes;

    return session_unread_bytes(session) < (own < all ? own : all) / 2 && !is_slow_reader(session);
}

/* --- Frames ---------------------------------------------------------------------------------------- */

static bool must_wait(const struct session *session)
{
    const struct conf *conf = session->list->conf;

    size_t unread = session_unread_bytes(session);

    /* Its own answers make it go on, so that it is not forgotten. */
    bool is_busy = session->calls >= BUSY_SESSION_CALLS && session->user != NULL &&
                   usage_is_high(&session->list->usage, session->user, USAGE_CALLS);

    return session->broken != 0 || session->calls >= conf->limits.calls_per_session ||
           session->call_bytes >= conf->limits.call_bytes_per_session || is_slow_reader(session) || is_busy ||
           unread > conf->limits.out_buffer_bytes / 2;
}

/*
 * A frame that breaks a limit or is none. What is too large but has a msgid that could be
 * read is answered and skipped, and the session goes on; else it is answered and the
 * session ends. False when it ended.
 */
static bool refuse_frame(struct session *session, enum frame_status status, const uint8_t *bytes, size_t length)
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
    refuse(session, has_msgid ? &msgid : NULL, &error);
    if (status == FRAME_TOO_LARGE && has_msgid) {
        log_limited(&session->list->message_log, "messages were refused", CONF_LOG_INFO,
                    "session of pid %d uid %u: a message has too many bytes and is skipped", (int)session->pid,
                    (unsigned)session->uid);
        return true;
    }
    log_limited(&session->list->message_log, "messages were refused", CONF_LOG_WARNING,
                "session of pid %d uid %u: its message %s", (int)session->pid, (unsigned)session->uid,
                frame_status_text(status));
    session->list->metrics->sessions_ended++;
    read_no_more(session);
    return false;
}

/* The limits of a message that is skipped: its bytes are not kept, only its structure must stay within bounds. */
static const struct frame_limits skip_limits = {SIZE_MAX, UINT32_MAX, FRAME_DEPTH_MAX};

/*
 * Dispatch the whole frames among bytes; return how many bytes are done with. *frame is the scan of the first one and
 * afterwards of the one that is not whole. When the slice is over first, the session's job goes on.
 */
static size_t take_frames(struct session *session, struct frame *frame, bool *is_skipping, const uint8_t *bytes,
                          size_t length)
{
    struct jobs *jobs = session->list->jobs;
    size_t done = 0;

    dispatch_begin(session->list->dispatcher);
    while (done < length && session->state == SESSION_OPEN && !(must_wait(session) && !*is_skipping)) {
        if (done > 0 && jobs_slice_is_over(jobs)) {
            jobs_add(jobs, &session->dispatching, run_dispatching);
            break;
        }
        enum frame_status status = frame_scan(frame, bytes + done, length - done);

        if (status == FRAME_COMPLETE) {
            size_t size = frame->offset - frame->base;
            if (!*is_skipping)
                dispatch_message(session->list->dispatcher, session, bytes + done, size, frame->elements);
            done += size;
            *is_skipping = false;
            frame_init(frame, &session->list->frame_limits);
        } else if (status == FRAME_PARTIAL && *is_skipping) {
            size_t there = length - done, walked = frame->offset - frame->base;
            size_t drop = walked < there ? walked : there;
            frame->base += drop;
            return done + drop;
        } else if (status == FRAME_PARTIAL) {
            break;
        } else if (*is_skipping) {
            end_session(session, CONF_LOG_WARNING, "the rest of a message that was too large %s",
                        frame_status_text(status));
        } else if (refuse_frame(session, status, bytes + done, length - done)) {
            *is_skipping = true;
            frame_init(frame, &skip_limits);
        }
    }
    return done;
}

/* --- Reading --------------------------------------------------------------------------------------- */

/* The session cannot go on with the message that has come in part: answers, and reads no more. */
static void refuse_input(struct session *session, struct error *error)
{
    refuse(session, NULL, error);
    log_limited(&session->list->message_log, "messages were refused", CONF_LOG_WARNING, "session of pid %d uid %u: %s",
                (int)session->pid, (unsigned)session->uid, error->message);
    session->list->metrics->sessions_ended++;
    read_no_more(session);
}

static void on_message_limit(struct timer *timer)
{
    struct session *session = (struct session *)((char *)timer - offsetof(struct session, message_limit));
    struct error error;

    if (session->state != SESSION_OPEN)
        return;
    error_set(&error, ERROR_DEADLINE_EXCEEDED,
              "the rest of a message did not come within %.3g s (limits.message_timeout)",
              session->list->conf->limits.message_timeout_ms / 1000.0);
    refuse_input(session, &error);
    mark_dirty(session);
}

/*
 * While the daemon waits for the rest of a message its time runs; while it does not read for the session it does not.
 * A timer that runs goes on: it is the whole message that has so much time.
 */
static void watch_input(struct session *session)
{
    struct session_list *list = session->list;
    bool is_partial = session->input != NULL && session->is_reading;

    if (!is_partial)
        timer_stop(list->timers, &session->message_limit);
    else if (!timer_is_set(&session->message_limit))
        timer_start(list->timers, &session->message_limit, uv_now(list->loop) + list->conf->limits.message_timeout_ms,
                    on_message_limit);
}

/* Keeps bytes for later; the session ends when there is no memory for them. */
static bool keep_input(struct session *session, const struct frame *frame, bool is_skipping, const uint8_t *bytes,
                       size_t length)
{
    struct session_input *input = session->input;
    struct error error;

    if (input == NULL) {
        input = calloc(1, sizeof(*input));
        if (input == NULL)
            goto no_memory;
        session->input = input;
        input->frame = *frame;
        input->is_skipping = is_skipping;
    }
    if (input->start > 0 && input->length + length > input->capacity) {
        memmove(input->bytes, input->bytes + input->start, input->length - input->start);
        input->length -= input->start;
        input->start = 0;
    }
    if (input->length + length > input->capacity) {
        size_t capacity = input->capacity > 0 ? input->capacity : 512;
        while (capacity < input->length + length)
            capacity *= 2;
        size_t more = capacity - input->capacity;
        if (!usage_check(&session->list->usage, session->user, USAGE_INPUT_BYTES, more, &error)) {
            refuse_input(session, &error);
            return false;
        }
        uint8_t *grown = realloc(input->bytes, capacity);
        if (grown == NULL)
            goto no_memory;
        usage_add(&session->list->usage, session->user, USAGE_INPUT_BYTES, more);
        input->bytes = grown;
        input->capacity = capacity;
    }
    if (length > 0)
        memcpy(input->bytes + input->length, bytes, length);
    input->length += length;
    return true;

no_memory:
    end_session(session, CONF_LOG_ERROR, "out of memory");
    return false;
}

static void drop_input(struct session *session)
{
    usage_subtract(&session->list->usage, session->user, USAGE_INPUT_BYTES, session->input->capacity);
    free_buffer(session->list, session->input->bytes, session->input->capacity);
    free(session->input);
    session->input = NULL;
}

/* Dispatch from what was kept. */
static void take_input(struct session *session)
{
    struct session_input *input = session->input;

    input->start += take_frames(session, &input->frame, &input->is_skipping, input->bytes + input->start,
                                input->length - input->start);
    if (input->start == input->length && !input->is_skipping)
        drop_input(session);
    else if (input->start == input->length)
        input->start = input->length = 0;
}

/* Without a buffer libuv reads nothing, and says UV_ENOBUFS: the turn has no time left, and the next one reads. */
static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct session *session = handle->data;
    bool has_time = jobs_begin_slice(session->list->jobs);

    (void)suggested;
    *buffer = uv_buf_init(has_time ? session->list->read_buffer : NULL, has_time ? READ_BUFFER_BYTES : 0);
}

/* The client has closed its socket, and not only the sending half of it. */
static bool has_left(const struct session *session)
{
    struct pollfd socket = {.events = 0};

    return uv_fileno((const uv_handle_t *)&session->pipe, &socket.fd) == 0 && poll(&socket, 1, 0) > 0 &&
           (socket.revents & POLLHUP) != 0;
}

static void on_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer)
{
    struct session *session = stream->data;

    if (length == 0)
        return;
    if (length == UV_ENOBUFS) {
        /* Those who have not gone need the time: thousands of sessions may have left their calls behind. */
        if (!jobs_turn_is_long(session->list->jobs) && has_left(session))
            end_session(session, CONF_LOG_DEBUG, "its client has left");
        return;
    }
    if (length < 0) {
        if (length != UV_EOF) {
            end_session(session, CONF_LOG_DEBUG, "%s", uv_strerror((int)length));
            return;
        }
        /* It may have shut down its sending half only: what it asked is answered. */
        stop_reading(session);
        session->is_at_end = true;
        mark_dirty(session);
        return;
    }
    session->list->metrics->bytes_in += (uint64_t)length;
    session->list->reads++;

    const uint8_t *bytes = (const uint8_t *)buffer->base;
    if (session->input != NULL) {
        if (keep_input(session, NULL, false, bytes, (size_t)length))
            take_input(session);
    } else {
        struct frame frame;
        bool is_skipping = false;
        frame_init(&frame, &session->list->frame_limits);
        size_t done = take_frames(session, &frame, &is_skipping, bytes, (size_t)length);
        if (session->state == SESSION_OPEN && (done < (size_t)length || is_skipping))
            keep_input(session, &frame, is_skipping, bytes + done, (size_t)length - done);
    }
    if (session->state == SESSION_OPEN && (must_wait(session) || jobs_is_queued(&session->dispatching)))
        stop_reading(session);
    watch_input(session);
}

static void start_reading(struct session *session)
{
    if (session->is_reading || session->state != SESSION_OPEN)
        return;
    session->is_reading = uv_read_start((uv_stream_t *)&session->pipe, on_alloc, on_read) == 0;
    watch_input(session);
}

/* What was kept is dispatched: go on with the socket, unless backpressure forbids it. */
static void read_on(struct session *session)
{
    if (session->is_reading || session->state != SESSION_OPEN || must_wait(session))
        return;
    if (session->is_at_end)
        read_no_more(session);
    else
        start_reading(session);
}

static bool run_dispatching(struct job *job)
{
    struct session *session = (struct session *)((char *)job - offsetof(struct session, dispatching));

    if (session->broken != 0) {
        end_session(session, CONF_LOG_DEBUG, "%s", uv_strerror(session->broken));
        return false;
    }
    if (session->input != NULL && session->state == SESSION_OPEN && !must_wait(session))
        take_input(session);
    /* take_frames has queued the job again when there is more; a session that was closed is still in memory. */
    if (!jobs_is_queued(&session->dispatching)) {
        read_on(session);
        mark_dirty(session);
    }
    return false;
}

/* Backpressure may have eased: first what came before, then the socket. */
static void go_on_reading(struct session *session)
{
    if (session->is_reading || session->state != SESSION_OPEN || must_wait(session) ||
        jobs_is_queued(&session->dispatching))
        return;
    if (session->input != NULL && session->input->length > session->input->start)
        jobs_add(session->list->jobs, &session->dispatching, run_dispatching);
    else
        read_on(session);
}

void session_list_flush(struct session_list *list)
{
    while (list->dirty != NULL) {
        struct session *session = list->dirty;
        list->dirty = session->next_dirty;
        session->is_dirty = false;
        flush_session(session);
        count_out_bytes(session);
        if (session_has_room(session))
            wake_waiting(session);
        go_on_reading(session);
        end_if_done(session);
    }
}

/* --- Calls ----------------------------------------------------------------------------------------- */

void session_add_call(struct session *session, struct call *call)
{
    call->previous = NULL;
    call->next = session->first_call;
    if (session->first_call != NULL)
        session->first_call->previous = call;
    session->first_call = call;
    session->calls++;
}

void session_remove_call(struct session *session, struct call *call, size_t bytes)
{
    if (call->previous != NULL)
        call->previous->next = call->next;
    else
        session->first_call = call->next;
    if (call->next != NULL)
        call->next->previous = call->previous;
    session->calls--;
    session->call_bytes -= bytes;
    mark_dirty(session);
}

/* --- Life ------------------------------------------------------------------------------------------ */

int session_list_init(struct session_list *list, uv_loop_t *loop, struct jobs *jobs, struct timers *timers,
                      const struct conf *conf, struct metrics *metrics, struct dispatcher *dispatcher)
{
    memset(list, 0, sizeof(*list));
    list->loop = loop;
    list->jobs = jobs;
    list->timers = timers;
    list->conf = conf;
    list->metrics = metrics;
    list->dispatcher = dispatcher;
    usage_init(&list->usage, conf);
    session_list_set_limits(list);
    list->read_buffer = malloc(READ_BUFFER_BYTES);
    return list->read_buffer != NULL ? 0 : -1;
}

void session_list_set_limits(struct session_list *list)
{
    list->frame_limits = (struct frame_limits){list->conf->limits.frame_bytes, list->conf->limits.frame_elements,
                                               list->conf->limits.frame_depth};
}

void session_list_free(struct session_list *list)
{
    assert(list->first == NULL);
    while (run_freeing(&list->freeing))
        ;
    jobs_remove(list->jobs, &list->freeing);
    free(list->read_buffer);
    while (list->spare_count > 0)
        msgpack_sbuffer_destroy(&list->spare[--list->spare_count]);
}

static void note_peer(struct session *session)
{
    struct ucred peer = {.pid = 0, .uid = (uid_t)-1, .gid = (gid_t)-1};
    socklen_t size = sizeof(peer);

    getsockopt(session_socket(session), SOL_SOCKET, SO_PEERCRED, &peer, &size);
    session->pid = peer.pid;
    session->uid = peer.uid;
    session->gid = peer.gid;
}

static rlim_t descriptor_limit(void)
{
    struct rlimit files = {.rlim_cur = RLIM_INFINITY};

    getrlimit(RLIMIT_NOFILE, &files);
    return files.rlim_cur;
}

/* Return whether count descriptors are free. The kernel gave the session's socket the lowest number that was free. */
static bool leaves_descriptors(const struct session *session, unsigned count)
{
    return (rlim_t)session_socket(session) + count < descriptor_limit();
}

/* Whether there is no room for the session; *error says why. */
static bool is_one_too_many(const struct session *session, struct error *error)
{
    if (!usage_check(&session->list->usage, session->user, USAGE_SESSIONS, 0, error))
        return true;
    if (leaves_descriptors(session, DESCRIPTOR_RESERVE + LINGERING_MAX))
        return false;
    error_set(error, ERROR_RESOURCE_EXHAUSTED,
              "the daemon may open %llu files (ulimit -n, LimitNOFILE=), and that is its limit",
              (unsigned long long)descriptor_limit());
    return true;
}

/* --- Refusals -------------------------------------------------------------------------------------- */

static void on_linger_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct session *session = handle->data;

    (void)suggested;
    *buffer = uv_buf_init(session->list->read_buffer, READ_BUFFER_BYTES);
}

static void end_lingering(struct session *session)
{
    end_session(session, CONF_LOG_DEBUG, "it was refused");
}

static void on_linger_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer)
{
    (void)buffer;
    if (length != 0)
        end_lingering(stream->data);
}

static void on_linger_over(struct timer *timer)
{
    end_lingering((struct session *)((char *)timer - offsetof(struct session, stall)));
}

/* Keep a refused session, whose answer is in its socket, until the client has sent something or has gone. */
static void linger(struct session *session)
{
    struct session_list *list = session->list;

    if (list->lingering >= LINGERING_MAX || session_unread_bytes(session) > 0 || session->broken != 0 ||
        !leaves_descriptors(session, DESCRIPTOR_RESERVE) ||
        uv_read_start((uv_stream_t *)&session->pipe, on_linger_alloc, on_linger_read) != 0) {
        close_session(session);
        return;
    }
    session->state = SESSION_LINGERING;
    session->lingers = true;
    list->lingering++;
    timer_start(list->timers, &session->stall, uv_now(list->loop) + LINGER_MS, on_linger_over);
}

static void refuse_session(struct session *session, struct error *error)
{
    struct session_list *list = session->list;

    list->metrics->sessions_refused++;
    log_limited(&list->refused_log, "sessions were refused", CONF_LOG_WARNING, "session of pid %d uid %u refused: %s",
                (int)session->pid, (unsigned)session->uid, error->message);
    usage_subtract(&list->usage, session->user, USAGE_SESSIONS, 1);
    usage_release(&list->usage, session->user);
    session->user = NULL;
    refuse(session, NULL, error);
    session->state = SESSION_LAST_ANSWERS;
    /* Now, not at the turn's end: many may come in one turn, and would use up the descriptors in reserve. */
    flush_session(session);
    linger(session);
}

void session_refuse(struct session_list *list, int descriptor)
{
    struct error error;
    msgpack_sbuffer answer;
    msgpack_packer packer;

    error_set(&error, ERROR_RESOURCE_EXHAUSTED,
              "the daemon has no file descriptor for another session (ulimit -n, LimitNOFILE=)");
    error_set_default_outcome(&error);
    msgpack_sbuffer_init(&answer);
    msgpack_packer_init(&packer, &answer, msgpack_sbuffer_write);
    rpc_pack_error(&packer, NULL, &error);
    if (send(descriptor, answer.data, answer.size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        log_debug("a connection was closed without an answer: %s", strerror(errno));
    msgpack_sbuffer_destroy(&answer);
    close(descriptor);
    list->metrics->errors[error.code]++;
    list->metrics->sessions_total++;
    list->metrics->sessions_refused++;
    log_limited(&list->refused_log, "sessions were refused", CONF_LOG_WARNING, "a session was refused: %s",
                error.message);
}

void session_accept(struct session_list *list, int descriptor)
{
    struct session *session = calloc(1, sizeof(*session));
    struct error error;

    if (session == NULL) {
        log_error("a connection is closed: out of memory");
        close(descriptor);
        return;
    }
    session->list = list;
    uv_pipe_init(list->loop, &session->pipe, 0);
    session->pipe.data = session;
    msgpack_sbuffer_init(&session->out);
    msgpack_sbuffer_init(&session->writing);
    session->next = list->first;
    if (list->first != NULL)
        list->first->previous = session;
    list->first = session;
    list->metrics->sessions++;
    list->metrics->sessions_total++;

    int failed = uv_pipe_open(&session->pipe, descriptor);
    if (failed != 0) {
        log_limited(&list->refused_log, "sessions were refused", CONF_LOG_ERROR,
                    "a connection could not be accepted: %s", uv_strerror(failed));
        close(descriptor);
        close_session(session);
        return;
    }
    note_peer(session);
    session->user = usage_hold(&list->usage, session->uid);
    if (session->user == NULL) {
        log_error("a connection is closed: out of memory");
        close_session(session);
        return;
    }
    usage_add(&list->usage, session->user, USAGE_SESSIONS, 1);
    if (is_one_too_many(session, &error)) {
        refuse_session(session, &error);
        return;
    }
    log_debug("session of pid %d uid %u began", (int)session->pid, (unsigned)session->uid);
    start_reading(session);
}

void session_list_drain(struct session_list *list, void (*emptied)(void *arg), void *arg)
{
    list->emptied = emptied;
    list->emptied_arg = arg;
    if (list->first == NULL) {
        emptied(arg);
        return;
    }
    for (struct session *session = list->first; session != NULL; session = session->next) {
        if (session->state == SESSION_LINGERING)
            end_lingering(session);
        read_no_more(session);
        mark_dirty(session);
    }
}

void session_list_end(struct session_list *list)
{
    for (struct session *session = list->first; session != NULL; session = session->next)
        end_session(session, CONF_LOG_WARNING, "the daemon ends, with %u calls not answered", session->calls);
}
