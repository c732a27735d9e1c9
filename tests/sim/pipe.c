#include "tests/sim/pipe.h"

#include "daemon/transport/socket.h"
#include "tests/sim/loop.h"
#include "tests/sim/memory.h"
#include "tests/sim/world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What a Unix socket takes before its reader has read. */
#define ROOM_BYTES (208u * 1024u)

#define FIRST_DESCRIPTOR 100

/* The time that bytes take. */
#define LEAST_NS 2000u
#define MOST_NS  200000u

struct queue {
    uint8_t *bytes;
    size_t start, length, capacity;
};

/* One direction: what was sent, and what of it has come. */
struct way {
    struct queue bytes;
    size_t arrived;
    bool is_moving;
    bool is_ended;     /* nothing more is sent */
    uint64_t ended_ns; /* since when */
    bool has_ended;    /* and the reader can know it */
    void (*on_arrival)(struct pipe *pipe);
    struct pipe *pipe;
};

struct pipe {
    struct pipe *next;
    int descriptor;
    struct pipe_client client;
    bool client_left;
    struct way to_daemon, to_client;

    uv_pipe_t *handle; /* NULL: not opened, or closed */
    struct loop *loop;
    uv_alloc_cb alloc;
    uv_read_cb read; /* NULL: not reading */
    bool is_readable_posted;
    uv_write_t *write; /* that waits for room */
    const char *write_bytes;
    size_t write_left;
};

static struct pipe *all;
static int last_descriptor = FIRST_DESCRIPTOR;

/* --- Bytes on their way ---------------------------------------------------------------------------- */

static void queue_add(struct queue *queue, const void *bytes, size_t size)
{
    if (queue->start > 0 && queue->start + queue->length + size > queue->capacity) {
        memmove(queue->bytes, queue->bytes + queue->start, queue->length);
        queue->start = 0;
    }
    if (queue->length + size > queue->capacity) {
        queue->capacity = (queue->length + size) * 2;
        queue->bytes = memory_need(realloc(queue->bytes, queue->capacity));
    }
    memcpy(queue->bytes + queue->start + queue->length, bytes, size);
    queue->length += size;
}

static size_t queue_take(struct queue *queue, void *bytes, size_t size)
{
    if (size == 0)
        return 0; /* there may be no memory yet */
    memcpy(bytes, queue->bytes + queue->start, size);
    queue->start += size;
    queue->length -= size;
    return size;
}

static void way_move(void *arg);

static void way_set_out(struct way *way)
{
    if (way->is_moving)
        return;
    way->is_moving = true;
    world_after(world_between(LEAST_NS, MOST_NS), way_move, way);
}

static void way_move(void *arg)
{
    struct way *way = arg;
    size_t left = way->bytes.length - way->arrived;

    way->is_moving = false;
    /* Mostly whole, sometimes in pieces. */
    way->arrived += left > 1 && world_chance(100) ? world_between(1, left) : left;
    if (way->arrived < way->bytes.length)
        way_set_out(way);
    else
        way->has_ended = way->is_ended;
    way->on_arrival(way->pipe);
}

static void way_send(struct way *way, const void *bytes, size_t size)
{
    queue_add(&way->bytes, bytes, size);
    way_set_out(way);
}

static void way_end(struct way *way)
{
    if (way->is_ended)
        return;
    way->is_ended = true;
    way->ended_ns = world_now_ns();
    way_set_out(way);
}

static size_t way_receive(struct way *way, void *bytes, size_t size)
{
    size_t taken = queue_take(&way->bytes, bytes, size < way->arrived ? size : way->arrived);

    way->arrived -= taken;
    return taken;
}

/* --- The daemon's end ------------------------------------------------------------------------------ */

static void pipe_post_readable(struct pipe *pipe);

static void pipe_on_readable(void *arg)
{
    struct pipe *pipe = arg;
    uv_stream_t *stream = (uv_stream_t *)pipe->handle;
    uv_buf_t buffer = {NULL, 0};

    pipe->is_readable_posted = false;
    if (pipe->handle == NULL || pipe->read == NULL)
        return;
    if (pipe->to_daemon.arrived == 0 && !pipe->to_daemon.has_ended)
        return;
    pipe->alloc((uv_handle_t *)stream, 65536, &buffer);
    if (buffer.base == NULL || buffer.len == 0) {
        pipe->read(stream, UV_ENOBUFS, &buffer);
    } else if (pipe->to_daemon.arrived == 0) {
        uv_read_cb read = pipe->read;
        pipe->read = NULL;
        read(stream, UV_EOF, &buffer);
    } else {
        size_t length = way_receive(&pipe->to_daemon, buffer.base, buffer.len);
        pipe->read(stream, (ssize_t)length, &buffer);
    }
    pipe_post_readable(pipe);
}

static void pipe_post_readable(struct pipe *pipe)
{
    if (pipe->handle == NULL || pipe->read == NULL || pipe->is_readable_posted ||
        (pipe->to_daemon.arrived == 0 && !pipe->to_daemon.has_ended))
        return;
    pipe->is_readable_posted = true;
    loop_post(pipe->loop, pipe_on_readable, pipe);
}

static void pipe_on_written(void *arg)
{
    struct pipe *pipe = arg;
    uv_write_t *write = pipe->write;

    if (pipe->handle == NULL || write == NULL || (pipe->write_left > 0 && !pipe->client_left))
        return;
    pipe->write = NULL;
    write->cb(write, pipe->client_left ? UV_EPIPE : 0);
}

static size_t pipe_room(const struct pipe *pipe)
{
    size_t there = pipe->to_client.bytes.length;

    return there < ROOM_BYTES ? ROOM_BYTES - there : 0;
}

/* The client has read, or has left. */
static void pipe_write_on(struct pipe *pipe)
{
    size_t room = pipe_room(pipe), size = pipe->write_left < room ? pipe->write_left : room;

    if (pipe->handle == NULL || pipe->write == NULL)
        return;
    if (size > 0 && !pipe->client_left) {
        way_send(&pipe->to_client, pipe->write_bytes, size);
        pipe->write_bytes += size;
        pipe->write_left -= size;
    }
    if (pipe->write_left == 0 || pipe->client_left)
        loop_post(pipe->loop, pipe_on_written, pipe);
}

void pipe_close(uv_pipe_t *handle)
{
    struct pipe *pipe = handle->u.reserved[0];

    if (pipe == NULL)
        return;
    pipe->handle = NULL;
    pipe->read = NULL;
    way_end(&pipe->to_client);
}

void pipe_finish_closing(uv_pipe_t *handle)
{
    struct pipe *pipe = handle->u.reserved[0];
    uv_write_t *write = pipe != NULL ? pipe->write : NULL;

    if (write == NULL)
        return;
    pipe->write = NULL;
    write->cb(write, UV_ECANCELED);
}

void pipe_refuse(struct pipe *pipe)
{
    way_end(&pipe->to_client);
}

static struct pipe *pipe_of_descriptor(int descriptor)
{
    for (struct pipe *pipe = all; pipe != NULL; pipe = pipe->next) {
        if (pipe->descriptor == descriptor)
            return pipe;
    }
    abort();
}

void pipe_break_all(const uv_loop_t *uv)
{
    for (struct pipe *pipe = all; pipe != NULL; pipe = pipe->next) {
        if (pipe->handle == NULL || pipe->handle->loop != uv)
            continue;
        pipe->handle = NULL;
        pipe->read = NULL;
        pipe->write = NULL;
        way_end(&pipe->to_client);
    }
}

/* --- libuv's streams, and socket.h ----------------------------------------------------------------- */

int uv_pipe_init(uv_loop_t *uv, uv_pipe_t *handle, int ipc)
{
    (void)ipc;
    memset(handle, 0, sizeof(*handle));
    handle->loop = uv;
    handle->type = UV_NAMED_PIPE;
    loop_count_handle(loop_of(uv));
    return 0;
}

int uv_pipe_open(uv_pipe_t *handle, uv_file descriptor)
{
    struct pipe *pipe = pipe_of_descriptor(descriptor);

    handle->u.reserved[0] = pipe;
    pipe->handle = handle;
    pipe->loop = loop_of(handle->loop);
    return 0;
}

int uv_fileno(const uv_handle_t *handle, uv_os_fd_t *descriptor)
{
    const struct pipe *pipe = handle->u.reserved[0];

    *descriptor = pipe != NULL ? pipe->descriptor : -1;
    return 0;
}

int uv_read_start(uv_stream_t *stream, uv_alloc_cb alloc, uv_read_cb read)
{
    struct pipe *pipe = stream->u.reserved[0];

    pipe->alloc = alloc;
    pipe->read = read;
    pipe_post_readable(pipe);
    return 0;
}

int uv_read_stop(uv_stream_t *stream)
{
    struct pipe *pipe = stream->u.reserved[0];

    pipe->read = NULL;
    return 0;
}

int uv_write(uv_write_t *write, uv_stream_t *stream, const uv_buf_t buffers[], unsigned count, uv_write_cb done)
{
    struct pipe *pipe = stream->u.reserved[0];

    if (count != 1 || pipe->write != NULL)
        abort(); /* outbox writes one buffer at a time */
    loop_step();
    loop_note_work();
    write->cb = done;
    write->handle = stream;
    pipe->write = write;
    pipe->write_bytes = buffers[0].base;
    pipe->write_left = buffers[0].len;
    pipe_write_on(pipe);
    return 0;
}

size_t uv_stream_get_write_queue_size(const uv_stream_t *stream)
{
    const struct pipe *pipe = stream->u.reserved[0];

    return pipe->write != NULL ? pipe->write_left : 0;
}

ssize_t socket_send(int descriptor, const void *bytes, size_t size)
{
    struct pipe *pipe = pipe_of_descriptor(descriptor);
    size_t room = pipe_room(pipe);

    if (pipe->client_left) {
        errno = EPIPE;
        return -1;
    }
    if (room == 0) {
        errno = EAGAIN;
        return -1;
    }
    loop_step();
    loop_note_work();
    if (size > room)
        size = room;
    way_send(&pipe->to_client, bytes, size);
    return (ssize_t)size;
}

ssize_t socket_receive(int descriptor, void *bytes, size_t size)
{
    struct pipe *pipe = pipe_of_descriptor(descriptor);

    if (pipe->to_daemon.arrived > 0)
        return (ssize_t)way_receive(&pipe->to_daemon, bytes, size);
    if (pipe->to_daemon.has_ended)
        return 0;
    errno = EAGAIN;
    return -1;
}

size_t socket_unread_bytes(int descriptor)
{
    (void)descriptor;
    return 0;
}

bool socket_peer_has_left(int descriptor)
{
    return pipe_of_descriptor(descriptor)->client_left;
}

struct ucred socket_peer(int descriptor)
{
    (void)descriptor;
    return (struct ucred){.pid = 0, .uid = 1000, .gid = 1000};
}

/* --- The client's end ------------------------------------------------------------------------------ */

static void pipe_on_arrival_at_client(struct pipe *pipe)
{
    if (pipe->client_left)
        return;
    if (pipe->to_client.arrived > 0)
        pipe->client.on_bytes(pipe->client.arg);
    else if (pipe->to_client.has_ended)
        pipe->client.on_end(pipe->client.arg);
}

struct pipe *pipe_new(const struct pipe_client *client)
{
    struct pipe *pipe = memory_new(sizeof(*pipe));

    pipe->client = *client;
    pipe->descriptor = last_descriptor++;
    pipe->to_daemon.pipe = pipe->to_client.pipe = pipe;
    pipe->to_daemon.on_arrival = pipe_post_readable;
    pipe->to_client.on_arrival = pipe_on_arrival_at_client;
    pipe->next = all;
    all = pipe;
    return pipe;
}

int pipe_descriptor(const struct pipe *pipe)
{
    return pipe->descriptor;
}

void pipe_write(struct pipe *pipe, const void *bytes, size_t size)
{
    way_send(&pipe->to_daemon, bytes, size);
}

size_t pipe_read(struct pipe *pipe, void *bytes, size_t size)
{
    size_t taken = way_receive(&pipe->to_client, bytes, size);

    if (pipe->to_client.bytes.length == 0 && pipe->to_client.is_ended)
        way_set_out(&pipe->to_client); /* the end is seen after the last byte */
    pipe_write_on(pipe);
    return taken;
}

uint64_t pipe_ended_ns(const struct pipe *pipe)
{
    return pipe->to_client.ended_ns;
}

void pipe_leave(struct pipe *pipe)
{
    if (pipe->client_left)
        return;
    pipe->client_left = true;
    way_end(&pipe->to_daemon);
    pipe_write_on(pipe);
}

void pipe_forget_all(void)
{
    while (all != NULL) {
        struct pipe *pipe = all;
        all = pipe->next;
        free(pipe->to_daemon.bytes.bytes);
        free(pipe->to_client.bytes.bytes);
        free(pipe);
    }
    last_descriptor = FIRST_DESCRIPTOR;
}
