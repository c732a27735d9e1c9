/*
 * dispatch: from a message to the handler of its method.
 *
 * The owner of all sessions: it decodes each message, finds the method's row, checks limits, the number of arguments,
 * the names of options, the bucket's name and access, and calls the handler. What it must know of the rooms above and
 * of the store is in dispatcher_ops.
 */
#ifndef DAEMON_RPC_DISPATCH_H
#define DAEMON_RPC_DISPATCH_H

#include "daemon/base/log.h"
#include "daemon/base/metrics.h"
#include "daemon/rpc/access.h"
#include "daemon/rpc/call.h"
#include "proto/methods.h"

#include <stddef.h>
#include <stdint.h>

/* A row of the method table: see proto/methods.h. */
struct method {
    const char *name;
    void (*handle)(struct call *call);
    uint32_t arguments_min, arguments_max; /* positional */
    unsigned flags;                        /* of enum method_flag */
    const char *options;                   /* names, separated by blanks */
};

struct dispatcher_ops {
    const struct method *methods; /* METHOD_COUNT rows, in the order of METHODS */
    /* Return NULL if a bucket may have this name, otherwise a sentence that says what is wrong with it. */
    const char *(*check_bucket_name)(const char *name, size_t length);
    /* Return whether a call that needs NATS can be served now, or can wait. False: *error says why not. */
    bool (*is_available)(void *context, struct error *error);
    /*
     * Look up the call's bucket. Then call found, maybe from within, with the bucket that a write to it changes: the
     * origin of a mirror, otherwise the bucket itself. If it cannot be looked up, the call is answered.
     */
    void (*find_written_bucket)(struct call *call, void (*found)(struct call *call, const char *written));
};

struct dispatcher {
    const struct dispatcher_ops *ops;
    void *context; /* of the handlers; and is_available is called with it */
    uv_loop_t *loop;
    const struct conf *conf;
    struct metrics *metrics;
    struct usage *usage;
    struct access access;
    struct call *calls; /* in flight, the oldest first */
    struct call_pool pool;
    msgpack_sbuffer discarded; /* for answers that nobody will read */
    uint64_t arrived_ns;       /* uv_hrtime when the messages arrived that are being dispatched */
    uint64_t call_ids;         /* the last one */
    const struct method *last_method;
    struct log_limit refused_log;
    struct log_limit internal_log;
    struct log_limit slow_log;
};

/* 0, or -1 with a sentence in error. All pointers are borrowed. */
int dispatcher_init(struct dispatcher *dispatcher, const struct dispatcher_ops *ops, void *context, uv_loop_t *loop,
                    const struct conf *conf, struct metrics *metrics, struct usage *usage,
                    char error[CONF_ERROR_BYTES]);
void dispatcher_free(struct dispatcher *dispatcher);

/* The configuration was read again; fresh are its rules, which are moved. Sessions match them at their next calls. */
void dispatcher_reload(struct dispatcher *dispatcher, struct access *fresh);

/* For session_list_init, with the dispatcher as argument. */
extern const struct session_ops dispatcher_session_ops;

/* Return the name of the method that was called last, for the log. */
const char *dispatcher_last_method(const struct dispatcher *dispatcher);

/* Return what the client may do with a bucket, or with all buckets if bucket is NULL. */
enum conf_access dispatcher_session_access(struct dispatcher *dispatcher, struct session *session, const char *bucket);

/* The same of a call's client; nothing if its session has ended. */
enum conf_access call_access(const struct call *call, const char *bucket);

/* Return whether NATS can be asked now. False: the call is answered with unavailable. */
bool call_needs_nats(struct call *call);

#endif
