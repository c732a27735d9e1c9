#include "daemon/transport/outbox.h"

#include "daemon/transport/session.h"
#include "daemon/transport/socket.h"
#include "proto/rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* A buffer that has grown beyond this in one turn is not kept for the next. */
#define KEEP_BYTES 65536u

/* An answer of this size is not copied behind those before it. */
#define PART_BYTES 65536u

/*
 * What one call of the kernel is given. A client on another processor may read as fast as the daemon writes: then the
 * call takes as long as there is something to write.
 */
#define WRITE_BYTES 131072u

/* A client with more unread bytes is a slow reader, if its user's unread bytes, or all, take half of their limit. */
#define SLOW_READER_BYTES 65536u

/* While the daemon ends, a client may read nothing for this long: all others wait for the next daemon. */
#define DRAIN_STALL_MS 500u

struct outbox_part {
    struct outbox_part *next;
    msgpack_sbuffer bytes;
};

/* --- Buffers --------------------------------------------------------------------------------------- */

void outbox_spares_free(struct outbox_spares *spares)
{
    while (spares->count > 0)
        msgpack_sbuffer_destroy(&spares->buffers[--spares->count]);
}

static void outbox_free_buffer(struct session_list *list, msgpack_sbuffer *buffer)
{
    garbage_free(&list->garbage, buffer->data, buffer->alloc);
    msgpack_sbuffer_init(buffer);
}

void outbox_init(struct outbox *outbox)
{
    msgpack_sbuffer_init(&outbox->packed);
    msgpack_sbuffer_init(&outbox->writing);
}

msgpack_sbuffer *outbox_buffer(struct session *session)
{
    struct outbox_spares *spares = &session->list->spares;
    struct outbox *outbox = &session->outbox;

    if (outbox->packed.alloc == 0 && spares->count > 0)
        outbox->packed = spares->buffers[--spares->count];
    return &outbox->packed;
}

/* A session without calls keeps no buffer: it goes to the next session that answers. */
static void outbox_put_away(struct session *session)
{
    struct outbox_spares *spares = &session->list->spares;
    msgpack_sbuffer *packed = &session->outbox.packed;

    msgpack_sbuffer_clear(packed);
    if (spares->count < OUTBOX_SPARE_MAX && packed->alloc > 0 && packed->alloc <= KEEP_BYTES)
        spares->buffers[spares->count++] = *packed;
    else
        outbox_free_buffer(session->list, packed);
    msgpack_sbuffer_init(packed);
}

/* --- Limits ---------------------------------------------------------------------------------------- */

size_t outbox_unread_bytes(const struct session *session)
{
    const struct outbox *outbox = &session->outbox;
    size_t bytes = outbox->packed.size + outbox->part_bytes;

    if (outbox->state == OUTBOX_WRITING)
        bytes += outbox->writing.size - outbox->handed_bytes +
                 uv_stream_get_write_queue_size((const uv_stream_t *)&session->pipe);
    return bytes;
}

void outbox_count(struct session *session)
{
    struct usage *usage = &session->list->usage;
    size_t unread = outbox_unread_bytes(session);

    if (session->user == NULL)
        return;
    usage_subtract(usage, session->user, USAGE_OUT_BYTES, session->outbox.counted_bytes);
    usage_add(usage, session->user, USAGE_OUT_BYTES, unread);
    session->outbox.counted_bytes = unread;
}

bool outbox_check_limits(const struct session *session, size_t bytes, size_t unread, struct error *error)
{
    bool is_first = unread == bytes;

    return session->user == NULL || (is_first && bytes <= SLOW_READER_BYTES) ||
           session->user->taken[USAGE_OUT_BYTES] == 0 ||
           usage_check(&session->list->usage, session->user, USAGE_OUT_BYTES, bytes, error);
}

bool outbox_is_slow_reader(const struct session *session)
{
    return outbox_unread_bytes(session) > SLOW_READER_BYTES && session->user != NULL &&
           usage_is_high(&session->list->usage, session->user, USAGE_OUT_BYTES);
}

bool outbox_has_room(const struct session *session)
{
    const struct conf *conf = session->list->conf;
    size_t own = conf->watches.buffer_bytes, all = conf->limits.out_buffer_bytes;

    return outbox_unread_bytes(session) < (own < all ? own : all) / 2 && !outbox_is_slow_reader(session);
}

/* --- Packing --------------------------------------------------------------------------------------- */

void outbox_commit(struct session *session)
{
    outbox_count(session);
    session_mark_dirty(session);
}

/* Append a buffer to the parts, and empty it. False: out of memory. */
static bool outbox_add_part(struct outbox *outbox, msgpack_sbuffer *bytes)
{
    struct outbox_part *part = calloc(1, sizeof(*part));

    if (part == NULL)
        return false;
    part->bytes = *bytes;
    msgpack_sbuffer_init(bytes);
    outbox->part_bytes += part->bytes.size;
    LL_APPEND(outbox->parts, part);
    return true;
}

void outbox_append(struct session *session, msgpack_sbuffer *rest)
{
    struct outbox *outbox = &session->outbox;

    if (rest->size >= PART_BYTES && (outbox->packed.size == 0 || outbox_add_part(outbox, &outbox->packed)) &&
        outbox_add_part(outbox, rest)) {
        outbox->flushes++;
        return;
    }
    msgpack_sbuffer_write(outbox_buffer(session), rest->data, rest->size);
    outbox_free_buffer(session->list, rest);
}

void outbox_pack_error(struct session *session, const uint32_t *msgid, const struct error *error)
{
    msgpack_packer packer;

    msgpack_packer_init(&packer, outbox_buffer(session), msgpack_sbuffer_write);
    if (session->errors_as_text)
        rpc_pack_error_text(&packer, msgid, error);
    else
        rpc_pack_error(&packer, msgid, error);
    outbox_commit(session);
}

void outbox_refuse(struct session *session, const uint32_t *msgid, struct error *error)
{
    error_set_default_outcome(error);
    outbox_pack_error(session, msgid, error);
    session->list->metrics->errors[error->code]++;
}

void outbox_refuse_last(struct session *session, struct error *error)
{
    if (session->counted.calls > 0)
        error->outcome = ERROR_OUTCOME_UNKNOWN;
    outbox_refuse(session, NULL, error);
}

/* --- Writing --------------------------------------------------------------------------------------- */

/* The session ends in a job: many sessions may break in one turn, each with thousands of calls and megabytes. */
static void outbox_break(struct session *session, int failure)
{
    if (session->state == SESSION_CLOSING)
        return;
    session->outbox.state = OUTBOX_BROKEN;
    session->outbox.failure = failure;
    inbox_break(session);
}

static void outbox_on_stall(struct timer *timer);

/* Return what libuv has not written, and the client has not read, as far as the kernel tells: it gets less. */
static size_t outbox_stalled_bytes(const struct session *session)
{
    return uv_stream_get_write_queue_size((const uv_stream_t *)&session->pipe) +
           socket_unread_bytes(session_socket(session));
}

static unsigned outbox_stall_timeout_ms(const struct session_list *list)
{
    unsigned timeout_ms = list->conf->limits.stall_timeout_ms;

    return session_list_is_draining(list) && timeout_ms > DRAIN_STALL_MS ? DRAIN_STALL_MS : timeout_ms;
}

static void outbox_start_stall(struct session *session)
{
    struct session_list *list = session->list;

    session->outbox.stalled_bytes = outbox_stalled_bytes(session);
    timer_start(list->timers, &session->outbox.stall, uv_now(list->loop) + outbox_stall_timeout_ms(list),
                outbox_on_stall);
}

void outbox_drain(struct session *session)
{
    if (session->outbox.state == OUTBOX_WRITING)
        outbox_start_stall(session);
}

static void outbox_on_stall(struct timer *timer)
{
    struct session *session = (struct session *)((char *)timer - offsetof(struct session, outbox.stall));

    if (session->outbox.state != OUTBOX_WRITING)
        return;
    if (outbox_stalled_bytes(session) == session->outbox.stalled_bytes)
        session_end(session, CONF_LOG_WARNING, "it read nothing for %.3g s, and %zu bytes of answers waited",
                    outbox_stall_timeout_ms(session->list) / 1000.0, outbox_unread_bytes(session));
    else
        outbox_start_stall(session);
}

static void outbox_on_written(uv_write_t *write, int status);

/* Let libuv write the next piece of what the socket did not accept. */
static void outbox_hand_over(struct session *session)
{
    struct outbox *outbox = &session->outbox;
    size_t left = outbox->writing.size - outbox->handed_bytes, size = left < WRITE_BYTES ? left : WRITE_BYTES;
    uv_buf_t piece = uv_buf_init(outbox->writing.data + outbox->handed_bytes, (unsigned)size);

    outbox->write.data = session;
    outbox->state = OUTBOX_WRITING;
    outbox->handed_bytes += size;
    int failed = uv_write(&outbox->write, (uv_stream_t *)&session->pipe, &piece, 1, outbox_on_written);
    if (failed != 0) {
        outbox->state = OUTBOX_OPEN;
        session_end(session, CONF_LOG_DEBUG, "%s", uv_strerror(failed));
        return;
    }
    outbox_start_stall(session);
}

static void outbox_on_written(uv_write_t *write, int status)
{
    struct session *session = write->data;
    struct outbox *outbox = &session->outbox;
    bool has_more = outbox->handed_bytes < outbox->writing.size;

    outbox->state = OUTBOX_OPEN;
    timer_stop(session->list->timers, &outbox->stall);
    if (status == 0 && has_more && session->state != SESSION_CLOSING) {
        outbox_hand_over(session);
        return;
    }
    outbox_free_buffer(session->list, &outbox->writing);
    if (status < 0)
        outbox_break(session, status);
    else
        session_mark_dirty(session);
}

/* Until the rest is written, the next turns' answers are packed elsewhere. */
static void outbox_write_rest(struct session *session, msgpack_sbuffer *bytes, size_t written)
{
    struct outbox *outbox = &session->outbox;

    outbox->writing = *bytes;
    outbox->handed_bytes = written;
    msgpack_sbuffer_init(bytes);
    outbox_hand_over(session);
}

/* Return whether the socket has accepted all bytes. If not, libuv has the buffer, or the session is about to end. */
static bool outbox_write(struct session *session, msgpack_sbuffer *bytes)
{
    size_t size = bytes->size;
    ssize_t written = socket_send(session_socket(session), bytes->data, size < WRITE_BYTES ? size : WRITE_BYTES);

    if (written < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
        outbox_break(session, -errno);
        return false;
    }
    session->list->metrics->bytes_out += size;
    session->counted.bytes_out += size;
    if (written < 0)
        written = 0;
    if ((size_t)written == size)
        return true;
    outbox_write_rest(session, bytes, (size_t)written);
    return false;
}

static void outbox_free_first_part(struct session *session)
{
    struct outbox_part *part = session->outbox.parts;

    LL_DELETE(session->outbox.parts, part);
    outbox_free_buffer(session->list, &part->bytes);
    free(part);
}

/* Return whether the socket has accepted the first part. */
static bool outbox_write_part(struct session *session)
{
    struct outbox *outbox = &session->outbox;

    outbox->part_bytes -= outbox->parts->bytes.size;
    bool is_written = outbox_write(session, &outbox->parts->bytes);
    outbox_free_first_part(session);
    return is_written;
}

void outbox_flush(struct session *session)
{
    struct outbox *outbox = &session->outbox;

    if (outbox->state != OUTBOX_OPEN)
        return;
    while (outbox->parts != NULL) {
        if (!outbox_write_part(session))
            return;
    }
    if (outbox->packed.size == 0)
        return;
    outbox->flushes++;
    if (!outbox_write(session, &outbox->packed))
        return;
    msgpack_sbuffer_clear(&outbox->packed);
    if (session_count(session, SESSION_PENDING) == 0 || outbox->packed.alloc > KEEP_BYTES)
        outbox_put_away(session);
}

/* --- The end --------------------------------------------------------------------------------------- */

void outbox_close(struct session *session)
{
    timer_stop(session->list->timers, &session->outbox.stall);
}

void outbox_free(struct session *session)
{
    while (session->outbox.parts != NULL)
        outbox_free_first_part(session);
    outbox_free_buffer(session->list, &session->outbox.packed);
    outbox_free_buffer(session->list, &session->outbox.writing);
    if (session->user != NULL)
        usage_subtract(&session->list->usage, session->user, USAGE_OUT_BYTES, session->outbox.counted_bytes);
}
