/*
 * session: one client's connection.
 *
 * Made by server. A session delivers whole messages to its owner, through session_ops, and sends what the owner packs.
 * It is an inbox (reading, messages, backpressure) and an outbox (answers, stalled clients). Calls and
 * watches are its resources, and it knows nothing else about them: they close with it, and calls that will be answered
 * hold it open.
 */
#ifndef DAEMON_TRANSPORT_SESSION_H
#define DAEMON_TRANSPORT_SESSION_H

#include "conf/conf.h"
#include "daemon/base/jobs.h"
#include "daemon/base/log.h"
#include "daemon/base/metrics.h"
#include "daemon/base/process_name.h"
#include "daemon/base/timers.h"
#include "daemon/transport/garbage.h"
#include "daemon/transport/inbox.h"
#include "daemon/transport/outbox.h"
#include "daemon/transport/recheck.h"
#include "daemon/transport/usage.h"
#include "proto/error.h"
#include "proto/frame.h"

#include <msgpack.h>
#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

struct session;

/* The events of sessions, for their owner. */
struct session_ops {
    /* Messages follow that arrived together. */
    void (*on_messages)(void *arg);
    /* A whole message, within the limits of a frame. The bytes are borrowed until the function returns. */
    void (*on_message)(void *arg, struct session *session, const uint8_t *bytes, size_t size, uint64_t elements);
    /* The session closes, and its resources know it: free session->context. */
    void (*on_close)(void *arg, struct session *session);
};

/* --- Resources --------------------------------------------------------------------------------------- */

enum session_kind {
    SESSION_PENDING, /* will be answered: counts for backpressure, and the session waits for it before it ends */
    SESSION_WAITING, /* will be answered, maybe much later: the session waits for it only if its client is there */
    /* These live until the session ends, or are removed before. */
    SESSION_WATCH,
    SESSION_HOLDING, /* a lock or an ephemeral key */
    SESSION_KINDS
};

struct session_resource;

struct session_resource_ops {
    /* The session closes. Nothing that is packed for it from now on is sent. A pending resource must be removed. */
    void (*on_close)(struct session_resource *resource);
    /* End a lasting resource and free its memory, some turns later. It is no longer in a list. */
    void (*on_release)(struct session_resource *resource);
    /* The access rules have changed: end a lasting resource that they forbid now. arg: that of session_ops. */
    void (*on_recheck)(void *arg, struct session_resource *resource);
};

/* The owner embeds it: a call or a watch. */
struct session_resource {
    struct session_resource *next, *previous;
    const struct session_resource_ops *ops;
    enum session_kind kind;
};

/* A wait until the client has read more. The owner embeds it, zeroed. */
struct session_waiter {
    struct session_waiter *next, *previous;
    void (*on_room)(struct session_waiter *waiter);
    bool is_waiting;
};

/* --- Sessions ---------------------------------------------------------------------------------------- */

/* What all sessions share. */
struct session_list {
    uv_loop_t *loop;
    struct jobs *jobs;
    struct timers *timers;
    const struct conf *conf;
    struct metrics *metrics;
    const struct session_ops *ops;
    void *ops_arg;
    struct usage usage;
    struct garbage garbage;
    struct recheck recheck;
    struct outbox_spares spares;
    struct session *first;
    struct session *dirty; /* have something to write, or may resume reading, at the turn's end */
    unsigned abandoned;    /* sessions whose clients have left, and which wait for their end */
    unsigned lingering;    /* sessions in SESSION_LINGERING */
    struct frame_limits frame_limits;
    void (*on_empty)(void *arg); /* the last session is gone; NULL: not wanted */
    void *on_empty_arg;
    char *read_buffer; /* one for all: a message that is whole never waits in it */
    uint64_t reads;    /* of all sessions, since the start */
    uint64_t ids;      /* the last one */
    struct log_limit refused_log, message_log, ended_log;
};

enum session_state {
    SESSION_OPEN,
    SESSION_DRAINING,     /* the daemon ends: reads no more; is dismissed when its calls are answered */
    SESSION_LAST_ANSWERS, /* reads no more; ends when its calls are answered and all is written */
    SESSION_LINGERING,    /* was refused; ends when the client has sent something or has gone */
    SESSION_CLOSING       /* waits for its handle to close, and for its resources to be released */
};

/* What a session has done, for daemon.sessions. Times are loop times in milliseconds. */
struct session_counts {
    uint64_t started_ms;
    uint64_t calls;
    uint64_t called_ms;      /* when the last call began; 0: none has */
    unsigned second_calls;   /* in the second of called_ms */
    unsigned previous_calls; /* in the second before it */
    uint64_t bytes_in, bytes_out;
};

struct session {
    uv_pipe_t pipe;
    struct session_list *list;
    struct session *next, *previous;
    struct session *next_dirty;
    bool is_dirty;
    bool errors_as_text; /* session.configure: errors are texts and not maps */
    enum session_state state;
    struct inbox inbox;
    struct outbox outbox;
    struct session_resource *resources[SESSION_KINDS];
    unsigned counts[SESSION_KINDS];
    size_t pending_bytes;           /* memory of the pending resources */
    unsigned reading_calls;         /* whose arguments are read little by little: no other starts until then */
    unsigned holding_places;        /* that calls in flight have taken for a holding. Their owner counts them */
    struct session_waiter *waiters; /* until the client has read more */
    struct job releasing;           /* after the handle is closed */
    struct timer linger;            /* SESSION_LINGERING: its end */
    struct user *user;              /* NULL until it is known, and of a refused session */
    void *context;                  /* of the owner, for what it keeps of each session; NULL at first */
    uint64_t id;                    /* counts sessions from 1; none is used twice */
    pid_t pid;                      /* the peer, as it was when it connected */
    uid_t uid;
    gid_t gid;
    char program[PROCESS_NAME_BYTES]; /* "": not known */
    struct session_counts counted;
};

/* 0, or -1 when memory ran out. All pointers are borrowed. */
int session_list_init(struct session_list *list, uv_loop_t *loop, struct jobs *jobs, struct timers *timers,
                      const struct conf *conf, struct metrics *metrics, const struct session_ops *ops, void *ops_arg);
void session_list_free(struct session_list *list);

/* The configuration was read again: use its limits of messages. */
void session_list_reload(struct session_list *list);

/* Begin a session on a connection that was accepted; the descriptor is the session's. */
void session_accept(struct session_list *list, int descriptor);

/* Refuse a connection for which there is no descriptor: answer with an error, and close it. */
void session_refuse(struct session_list *list, int descriptor);

/* At the end of each turn: write what was packed, and resume reading if backpressure has eased. */
void session_list_flush(struct session_list *list);

/* Accept no more messages. on_empty is called once, when all calls are answered and all sessions are gone. */
void session_list_drain(struct session_list *list, void (*on_empty)(void *arg), void *arg);
static inline bool session_list_is_draining(const struct session_list *list)
{
    return list->on_empty != NULL;
}

/*
 * Return the session with this id; NULL if there is none that can be ended: it has ended, or it was refused. Takes time
 * in proportion to the number of sessions.
 */
struct session *session_list_find(const struct session_list *list, uint64_t id);

/* Tell the client of a session the error, as far as its socket has room, and end the session at once. */
void session_kill(struct session *session, const struct error *error);

/* End all sessions at once, answered or not. */
void session_list_end(struct session_list *list);

/* --- For calls and watches: see also outbox.h -------------------------------------------------------- */

/* Return whether what is packed for the session is no longer sent. */
static inline bool session_is_closing(const struct session *session)
{
    return session->state == SESSION_CLOSING;
}

static inline unsigned session_count(const struct session *session, enum session_kind kind)
{
    return session->counts[kind];
}

/* Add a resource whose ops and kind are set, and remove it. The newest comes first. */
void session_add_resource(struct session *session, struct session_resource *resource);
void session_remove_resource(struct session *session, struct session_resource *resource);

/* Call waiter->on_room once the client has read enough (outbox_has_room). */
void session_await_room(struct session *session, struct session_waiter *waiter);

/* Count a call that begins. */
void session_count_call(struct session *session);

/* Return the number of calls that began in the last whole second. */
unsigned session_calls_per_second(const struct session *session);

/* Does nothing if it does not wait. */
void session_stop_waiting(struct session *session, struct session_waiter *waiter);

/* The socket's descriptor, to ask the kernel about the peer. */
int session_socket(const struct session *session);

/* --- For inbox and outbox ---------------------------------------------------------------------------- */

/* Look at the session at the end of the turn. */
static inline void session_mark_dirty(struct session *session)
{
    if (session->is_dirty || session->state == SESSION_CLOSING)
        return;
    session->is_dirty = true;
    session->next_dirty = session->list->dirty;
    session->list->dirty = session;
}

/* Stop reading, and end when all calls are answered and all is written. */
void session_finish(struct session *session);

/* End the session at once. The reason goes to the log, together with the peer. Does nothing if it closes already. */
void session_end(struct session *session, enum conf_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
