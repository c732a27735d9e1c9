/*
 * call: one request of a session, from the decoded message to its one answer.
 *
 * Made by dispatch, answered by a handler, now or later. The call's memory is one arena, which ends with the answer:
 * after call_end_result or call_fail the call and all that was allocated for it are gone, and what it had started is
 * cancelled. So return at once.
 */
#ifndef DAEMON_RPC_CALL_H
#define DAEMON_RPC_CALL_H

#include "daemon/base/arena.h"
#include "daemon/base/log.h"
#include "daemon/transport/session.h"
#include "proto/rpc.h"

#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct dispatcher;
struct method;

struct call {
    struct arena arena;
    struct session_resource resource; /* of the session */
    struct session *session;          /* NULL after it has ended */
    struct user *user;                /* whose session it is, or was */
    struct call *next, *previous;     /* of all calls in flight, the oldest first; or of the spare ones */
    struct dispatcher *dispatcher;
    uint64_t id;                 /* grows with each call */
    uint64_t session_id;         /* the session's, also after it has ended */
    pid_t pid;                   /* of the client */
    const struct method *method; /* NULL until it is known */
    struct metrics_method *metrics;
    uint32_t msgid;
    bool is_notification;            /* wants no answer */
    bool is_cancelled;               /* by its client; it may go on, see call_cancel */
    const msgpack_object *arguments; /* the positional ones */
    void *message;                   /* the buffer of a large message, from inbox_take_buffer; NULL: in the arena */
    size_t message_capacity;
    struct garbage *garbage; /* frees it */
    uint32_t argument_count;
    const msgpack_object_map *options; /* NULL: none were given */
    const char *bucket;                /* the first argument, if the method names a bucket */
    uint64_t timeout_ms;
    uint64_t deadline_ms; /* loop time: the timeout after the call's arrival */
    uint64_t started_ns;  /* uv_hrtime */
    size_t bytes;         /* of memory, as usage counts them */
    size_t result_start;  /* offset in out at which the answer begins */
    msgpack_sbuffer *out;
    msgpack_packer packer;
};

/* Ended calls, kept for the next ones with the first chunks of their arenas. */
struct call_pool {
    struct call *spare;
    unsigned count;
};

/* Return a new call of the session with an empty arena, which counts for bytes of memory; NULL: out of memory. */
struct call *call_new(struct dispatcher *dispatcher, struct session *session, size_t bytes);

/* Return the call whose member is a session's resource of the kinds SESSION_PENDING and SESSION_WAITING. */
static inline struct call *call_of_resource(struct session_resource *resource)
{
    return (struct call *)((char *)resource - offsetof(struct call, resource));
}

/* Keep the message for the call's arguments. Return where it lies then; NULL: out of memory. */
const char *call_keep_message(struct call *call, const uint8_t *message, size_t size);
void call_pool_free(struct call_pool *pool);

/*
 * Begin the answer: pack the result with the packer that is returned, then call call_end_result. An answer that is too
 * large is replaced by an error; one of up to 512 bytes never is.
 */
msgpack_packer *call_begin_result(struct call *call);
void call_end_result(struct call *call);

/* The same for an answer whose rest was packed elsewhere. rest is emptied, or is left as it is if an error replaced it.
 */
void call_end_result_with(struct call *call, msgpack_sbuffer *rest);

/* Take back what was packed since call_begin_result: the call will be answered with an error. */
void call_cancel_result(struct call *call);

/* Answer with an error. If it names no bucket, the call's is added. */
void call_fail(struct call *call, const struct error *error);

/* Answer with an error that is made of a code and a sentence. */
void call_fail_with(struct call *call, enum error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

void call_fail_out_of_memory(struct call *call);

/*
 * Count memory that the answer takes while it is collected. False: all calls together, or those of the user, have
 * reached limits.call_bytes, and the call must fail with resource_exhausted. call is a struct call.
 */
bool call_charge_memory(void *call, size_t bytes);

/*
 * The call may take very long from now on: it waits for something that other clients do, or works through a bucket. It
 * no longer counts for the session's backpressure. If its client leaves, it is dropped, or abandoned if something of it
 * was sent. The session must be there.
 */
void call_begin_waiting(struct call *call);

/*
 * Return whether the client still waits for the answer. call is a struct call. It does not if it has cancelled the call
 * or closed its socket, or if the session has ended.
 */
bool call_is_wanted(void *call);

/* End a call without an answer. What it started is cancelled. */
void call_drop(struct call *call);

/*
 * Its client no longer wants the answer. If the call only reads, or nothing of it was sent, answer it with
 * deadline_exceeded at once, and return true. Otherwise it goes on, but begins nothing new where call_is_wanted is
 * asked.
 */
bool call_cancel(struct call *call);

/* --- What is said about a call ----------------------------------------------------------------------- */

/* For the log and daemon.dump. */
enum call_state {
    CALL_RUNNING,
    CALL_QUEUED,   /* waits in the daemon, and nothing that it would change was sent */
    CALL_ABANDONED /* its session has ended; the call continues, because it may change something */
};

enum call_state call_state(const struct call *call);
const char *call_state_name(enum call_state state);

/* The method's name; "unknown" if there is no such method, or it is not known yet. */
const char *call_method_name(const struct call *call);

/* Write a debug line that names the call, its client, method and bucket. call_debug costs nothing at other levels. */
void call_log_debug(const struct call *call, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define call_debug(call, ...)                                                                                          \
    do {                                                                                                               \
        if (log_is_on(CONF_LOG_DEBUG))                                                                                 \
            call_log_debug(call, __VA_ARGS__);                                                                         \
    } while (0)

#endif
