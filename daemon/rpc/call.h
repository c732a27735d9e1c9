/*
 * call: one request of a session, from the decoded frame to its one answer.
 *
 * Made by dispatch, answered by a handler, now or later. The call's memory is one
 * arena that goes with the answer: after call_end_result or call_fail the call and
 * all that was allocated for it are gone, and whatever it had started is cancelled.
 */
#ifndef DAEMON_CALL_H
#define DAEMON_CALL_H

#include "daemon/base/arena.h"
#include "daemon/store/store.h"
#include "daemon/transport/session.h"
#include "proto/rpc.h"

#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>

struct method;

struct call {
    struct arena arena;
    struct session *session;      /* NULL when it has ended */
    struct user *user;            /* whose session it is, or was */
    struct call *next, *previous; /* of the session */
    struct dispatcher *dispatcher;
    struct store *store;
    const struct method *method; /* NULL until it is known */
    struct metrics_method *metrics;
    uint32_t msgid;
    bool is_notification;            /* wants no answer */
    const msgpack_object *arguments; /* the positional ones */
    uint32_t argument_count;
    const msgpack_object_map *options; /* NULL: none were given */
    const char *bucket;                /* the first argument of methods that are about a bucket */
    uint64_t deadline_ms;              /* loop time */
    uint64_t started_ns;
    size_t bytes;        /* accounted for */
    size_t result_start; /* where in the out-buffer the result begins */
    msgpack_sbuffer *out;
    msgpack_packer packer;
};

/* Spare calls, with their arenas' first chunks. */
struct call_pool {
    struct call *spare;
    unsigned count;
};

/* A call of the session with an empty arena; NULL when memory ran out. */
struct call *call_new(struct call_pool *pool, struct dispatcher *dispatcher, struct session *session, size_t bytes);
void call_pool_free(struct call_pool *pool);

/*
 * Begins the answer: pack the result into what comes back, and call
 * call_end_result. An answer that has become too large is replaced by an error.
 */
msgpack_packer *call_begin_result(struct call *call);
void call_end_result(struct call *call);

/* Take back what was packed since call_begin_result: the call is answered with an error. */
void call_cancel_result(struct call *call);

/* Answers with an error. The bucket is added where the call has one. */
void call_fail(struct call *call, const struct error *error);

/* Answers with an error made from a code and a sentence. */
void call_fail_with(struct call *call, enum error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

void call_fail_out_of_memory(struct call *call);

/*
 * Accounts for memory that the call's answer takes while it is gathered. False: all calls together have reached
 * limits.call_bytes, and the call must fail with resource_exhausted.
 */
bool call_take_memory(void *call, size_t bytes);

/* End a call without an answer of its own. What it started is cancelled. */
void call_drop(struct call *call);

/*
 * The call's session has ended. A read is dropped, and so is a write that has not left the daemon. Anything else goes
 * on without a session, since what was sent to NATS may happen, and its answer is discarded.
 */
void call_abandon(struct call *call);

#endif
