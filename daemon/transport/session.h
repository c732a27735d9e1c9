/*
 * session: one client's connection.
 *
 * Made by server. A session reads frames, gives each to dispatch, and
 * writes what the calls answer, once at the end of each turn of the loop. It keeps
 * its limits by backpressure: with too many calls in flight, or too much that the
 * client has not read, it stops reading until that is better; a client that reads
 * nothing at all is ended after a time. Sessions take turns: one that has more
 * messages than a slice of a turn is long goes on as a job (see jobs).
 */
#ifndef DAEMON_SESSION_H
#define DAEMON_SESSION_H

#include "conf/conf.h"
#include "daemon/base/jobs.h"
#include "daemon/base/log.h"
#include "daemon/base/metrics.h"
#include "daemon/base/timers.h"
#include "daemon/rpc/access.h"
#include "daemon/transport/usage.h"
#include "proto/error.h"
#include "proto/frame.h"

#include <msgpack.h>
#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

struct call;
struct session;
struct session_input;
struct session_garbage;
struct dispatcher;

/* Something that lives no longer than a session: a watch. The owner embeds it. */
struct session_resource {
    struct session_resource *next, *previous;
    /* The session closes. Its calls end after this; what is delivered from now on must be dropped. */
    void (*closing)(struct session_resource *resource);
    /* End the resource and free its memory, some turns later. It is in no list any more. */
    void (*release)(struct session_resource *resource);
    /* There is room again, after session_await_room. */
    void (*room)(struct session_resource *resource);
    struct session_resource *next_waiting, *previous_waiting;
    bool awaits_room;
};

/* As many as answer in a turn under most loads. */
#define SESSION_SPARE_MAX 16u

/* What all sessions share. */
struct session_list {
    uv_loop_t *loop;
    struct jobs *jobs;
    struct timers *timers;
    const struct conf *conf;
    struct metrics *metrics;
    struct usage usage;
    struct dispatcher *dispatcher;
    struct session_garbage *garbage; /* large buffers that wait to be freed */
    struct job freeing;
    struct session *first;
    struct session *dirty; /* have something to write, or may read on, at the turn's end */
    unsigned lingering;    /* sessions that were refused and are open for a moment */
    struct frame_limits frame_limits;
    void (*emptied)(void *arg); /* the last session is gone */
    void *emptied_arg;
    msgpack_sbuffer spare[SESSION_SPARE_MAX]; /* buffers of sessions without answers, for the next that have some */
    unsigned spare_count;
    char *read_buffer; /* one for all: a frame that is whole never waits in it */
    uint64_t reads;    /* of all sessions, since the start */
    struct log_limit refused_log, message_log, ended_log;
};

enum session_state {
    SESSION_OPEN,
    SESSION_LAST_ANSWERS, /* reads no more; ends when its calls are answered and all is written */
    SESSION_LINGERING,    /* was refused; ends when the client has sent something or has gone */
    SESSION_CLOSING       /* waits for its handle to close, and for its resources to be released */
};

struct session {
    uv_pipe_t pipe;
    struct session_list *list;
    struct session *next, *previous;
    struct session *next_dirty;
    bool is_dirty;
    bool is_reading;
    bool is_at_end;  /* the client sends no more */
    int broken;      /* what libuv or the kernel said when a write failed, negative; 0: none did */
    bool is_writing; /* a write waits for the client to read */
    bool lingers;    /* counts in the list's lingering */
    enum session_state state;
    unsigned calls; /* in flight */
    size_t call_bytes;
    struct call *first_call;
    struct session_resource *resources;
    struct session_resource *waiting; /* resources that wait until the client has read its answers */
    unsigned resource_count;
    uint64_t flushes;            /* of out: what was packed before is out of reach */
    struct session_input *input; /* what came and is not dispatched yet; NULL: nothing */
    struct job dispatching;      /* of input, when a slice was too short for it */
    msgpack_sbuffer out;         /* answers of this turn */
    msgpack_sbuffer writing;     /* answers that the client is slow to read */
    size_t stalled_bytes;        /* of them when the timer was last set */
    uv_write_t write;
    struct timer stall;         /* of a slow reader; of a session that lingers, its end */
    struct timer message_limit; /* of a message that has come in part */
    size_t counted_out_bytes;   /* of unread answers, as usage knows them */
    struct user *user;          /* NULL until it is known */
    bool errors_as_text;        /* see session_pack_error */
    struct access_peer access;
    pid_t pid; /* the peer, as it was when it connected */
    uid_t uid;
    gid_t gid;
};

int session_list_init(struct session_list *list, uv_loop_t *loop, struct jobs *jobs, struct timers *timers,
                      const struct conf *conf, struct metrics *metrics, struct dispatcher *dispatcher);
void session_list_free(struct session_list *list);

/* Takes the limits of frames from the configuration again, after a reload. */
void session_list_set_limits(struct session_list *list);

/* Take over a connection, or refuse it with an error when there are too many. */
void session_accept(struct session_list *list, int descriptor);

/* Answer a connection with an error and close it: it has the last descriptor, which is kept for this. */
void session_refuse(struct session_list *list, int descriptor);

/* At the end of each turn: write what was answered, and read on where backpressure has eased. */
void session_list_flush(struct session_list *list);

/* No new calls from now on; emptied is called once, when every call was answered and every session is gone. */
void session_list_drain(struct session_list *list, void (*emptied)(void *arg), void *arg);

/* Ends all sessions at once, answered or not. */
void session_list_end(struct session_list *list);

/* --- For call ---------------------------------------------------------------------------------------- */

/* Where answers go. After packing, session_answered. */
msgpack_sbuffer *session_out(struct session *session);
void session_answered(struct session *session);

/*
 * Pack an error response in the form that the session wants: a map, or one str. msgid NULL: nil. After it,
 * session_answered.
 */
void session_pack_error(struct session *session, const uint32_t *msgid, const struct error *error);

/*
 * Whether so many more bytes of answers, which are packed already, may wait to be read, of the session's user and of
 * all. False: *error says why not.
 */
bool session_may_answer(const struct session *session, size_t bytes, struct error *error);

struct usage *session_usage(const struct session *session);

/* Bytes that the client has not read yet. */
size_t session_unread_bytes(const struct session *session);

/* Return whether the session closes: nobody reads what is sent to it. */
bool session_is_closing(const struct session *session);

/* Return whether notifications that can wait should be sent now, or after the client has read more. */
bool session_has_room(const struct session *session);

/* Call resource->room once the session has room. */
void session_await_room(struct session *session, struct session_resource *resource);

/* A call begins and ends. */
void session_add_call(struct session *session, struct call *call);
void session_remove_call(struct session *session, struct call *call, size_t bytes);

/* Adds and takes away what lives no longer than the session. */
void session_add_resource(struct session *session, struct session_resource *resource);
void session_remove_resource(struct session *session, struct session_resource *resource);

/* The socket's descriptor, to ask about the peer. */
int session_socket(const struct session *session);

#endif
