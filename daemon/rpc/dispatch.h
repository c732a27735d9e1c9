/*
 * dispatch: which function answers which method.
 *
 * Used by session with each whole message. It decodes the envelope, finds the row
 * of the method table, checks the number of arguments, the options' names, access
 * and limits, and calls the handler. A new method is a function in a file of
 * handlers/ and a row here.
 */
#ifndef DAEMON_DISPATCH_H
#define DAEMON_DISPATCH_H

#include "daemon/base/log.h"
#include "daemon/base/metrics.h"
#include "daemon/rpc/access.h"
#include "daemon/rpc/call.h"
#include "daemon/store/store.h"
#include "proto/methods.h"

#include <stddef.h>
#include <stdint.h>

/* An entry as it goes to the clients, packed once for all watches. */
struct dispatcher_entry {
    uint64_t serial; /* 0: none */
    msgpack_sbuffer bytes;
};

/* A row of the method table: see proto/methods.h. */
struct method {
    const char *name;
    void (*handle)(struct call *call);
    uint32_t arguments_min, arguments_max; /* positional */
    unsigned flags;                        /* of enum method_flag */
    const char *options;                   /* names, separated by blanks */
};

struct dispatcher {
    const struct method *methods;
    const struct conf *conf;
    struct store *store;
    struct metrics *metrics;
    struct usage *usage;
    struct access access;
    struct call_pool pool;
    msgpack_sbuffer discarded;         /* where answers go that nobody waits for */
    uint64_t started_ms;               /* loop time of the daemon's start */
    uint64_t came_ns;                  /* when the messages came that are being dispatched */
    uint64_t watch_ids;                /* so many were given */
    struct dispatcher_entry packed[2]; /* with the value, and without */
    const struct method *last_method;
    struct log_limit refused_log;
    struct log_limit internal_log;
};

/* 0, or -1 with a sentence in error. All pointers are borrowed; methods has METHOD_COUNT rows. */
int dispatcher_init(struct dispatcher *dispatcher, const struct method *methods, const struct conf *conf,
                    struct store *store, struct metrics *metrics, struct usage *usage, char error[CONF_ERROR_BYTES]);
void dispatcher_free(struct dispatcher *dispatcher);

/* Messages follow that came together: one look at the clock serves all. */
void dispatch_begin(struct dispatcher *dispatcher);

/* Dispatch one whole message that frame has let through, and has counted. The bytes are borrowed for the call only. */
void dispatch_message(struct dispatcher *dispatcher, struct session *session, const uint8_t *bytes, size_t size,
                      uint64_t elements);

/* The method that was called last, for the log. */
const char *dispatch_last_method(const struct dispatcher *dispatcher);

/* What the call's peer may do to a bucket; nothing where its session is gone. */
enum conf_access call_access(const struct call *call, const char *bucket);

/* Whether it makes sense to ask NATS now; false: the call is answered with unavailable. */
bool call_needs_nats(struct call *call);

#endif
