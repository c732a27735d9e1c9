/*
 * methods: the one table of the protocol's methods.
 *
 * METHODS(METHOD) expands METHOD(family, verb, fewest, most, flags, options) for each method, in the order in which
 * daemon.info lists them. Define METHOD for what you need of a row, and expand the table:
 *
 *   family, verb   of the name: kv.get is METHOD(kv, get, ...), and handle_kv_get is its function in the daemon
 *   fewest, most   number of positional arguments, without the map of options
 *   flags          enum method_flag
 *   options        names of the options, separated by blanks
 *
 * Used by the daemon's dispatch and its metrics, and by the client library. tests/methods.py checks that protocol.md
 * describes each method with its options.
 */
#ifndef PROTO_METHODS_H
#define PROTO_METHODS_H

enum method_flag {
    /* Changes nothing: a failed call has no unknown outcome, and the daemon may cancel it with its session. */
    METHOD_ONLY_READS = 1u << 0,
    /* The first argument, if there is one, is a bucket's name. */
    METHOD_NAMES_BUCKET = 1u << 1,
    /* Refused with unavailable while NATS is away. The handlers of other methods decide that themselves. */
    METHOD_NEEDS_NATS = 1u << 2,
    /* The access that the caller needs: to the bucket, or to all buckets if the method names none. Without: none. */
    METHOD_NEEDS_READ = 1u << 3,
    METHOD_NEEDS_WRITE = 1u << 4,
    METHOD_NEEDS_ADMIN = 1u << 5
};

/* The usual combinations. A method that READS may be answered from memory while NATS is away; others need NATS. */
#define METHOD_INSPECTS METHOD_ONLY_READS
#define METHOD_READS    (METHOD_ONLY_READS | METHOD_NAMES_BUCKET | METHOD_NEEDS_READ)
#define METHOD_WRITES   (METHOD_NAMES_BUCKET | METHOD_NEEDS_WRITE | METHOD_NEEDS_NATS)
/* About what the session holds. Its handler finds that without NATS. */
#define METHOD_HOLDS       METHOD_NAMES_BUCKET
#define METHOD_ADMINISTERS (METHOD_NAMES_BUCKET | METHOD_NEEDS_ADMIN | METHOD_NEEDS_NATS)
/* Its handler checks the access: who may depends on whose session it is. */
#define METHOD_ENDS_SESSION 0u

#define METHODS_BUCKET_OPTIONS                                                                                         \
    "description history ttl max_value_size max_bytes storage replicas compression placement republish mirror "        \
    "sources metadata limit_marker_ttl marker_ttl timeout"

/* clang-format off */
#define METHODS(METHOD)                                                                                                \
    METHOD(kv, get,         2, 2, METHOD_READS, "revision wait_above consistency timeout")                                        \
    METHOD(kv, get_json,    2, 2, METHOD_READS, "revision consistency timeout")                                        \
    METHOD(kv, put,         3, 3, METHOD_WRITES, "ttl keep_ttl headers ephemeral id first_sent timeout")               \
    METHOD(kv, create,      3, 3, METHOD_WRITES, "ttl headers ephemeral id first_sent timeout")                        \
    METHOD(kv, update,      4, 4, METHOD_WRITES, "ttl keep_ttl headers id first_sent timeout")                         \
    METHOD(kv, delete,      2, 2, METHOD_WRITES, "revision if_exists id first_sent timeout")                                                   \
    METHOD(kv, purge,       2, 2, METHOD_WRITES, "revision ttl id first_sent timeout")                                               \
    METHOD(kv, increment,   3, 3, METHOD_WRITES, "initial ttl keep_ttl id first_sent timeout")                         \
    METHOD(kv, touch,       3, 3, METHOD_WRITES, "revision id first_sent timeout")                                     \
    METHOD(kv, history,     2, 2, METHOD_READS | METHOD_NEEDS_NATS, "timeout")                                         \
    METHOD(kv, keys,        1, 1, METHOD_READS, "filter limit after consistency timeout")                              \
    METHOD(kv, entries,     1, 1, METHOD_READS, "filter limit after consistency timeout")                              \
    METHOD(bulk, get,       2, 2, METHOD_READS, "consistency timeout")                                                 \
    METHOD(bulk, put,       2, 2, METHOD_WRITES, "ttl id first_sent timeout")                                          \
    METHOD(bulk, delete,    1, 2, METHOD_WRITES, "filter id first_sent timeout")                                       \
    METHOD(txn, commit,     3, 3, METHOD_WRITES, "id first_sent timeout")                                              \
    METHOD(lock, acquire,   2, 2, METHOD_WRITES, "wait value owner timeout")                                           \
    METHOD(lock, check,     3, 3, METHOD_HOLDS | METHOD_NEEDS_WRITE, "timeout")                                        \
    METHOD(lock, release,   3, 3, METHOD_HOLDS | METHOD_NEEDS_WRITE, "timeout")                                        \
    METHOD(bucket, create,  1, 1, METHOD_ADMINISTERS, METHODS_BUCKET_OPTIONS " update force")                          \
    METHOD(bucket, update,  1, 1, METHOD_ADMINISTERS, METHODS_BUCKET_OPTIONS " force")                                      \
    METHOD(bucket, delete,  1, 1, METHOD_ADMINISTERS, "timeout")                                                       \
    METHOD(bucket, purge,   1, 1, METHOD_ADMINISTERS, "filter timeout")                                                \
    METHOD(bucket, compact, 1, 1, METHOD_ADMINISTERS, "older_than timeout")                                            \
    METHOD(bucket, info,    1, 1, METHOD_READS | METHOD_NEEDS_NATS, "timeout")                                         \
    METHOD(bucket, list,    0, 0, METHOD_INSPECTS | METHOD_NEEDS_NATS, "filter limit after infos timeout")             \
    METHOD(watch, start,    1, 1, METHOD_READS | METHOD_NEEDS_NATS,                                                    \
           "filter include_history ignore_deletes meta_only updates_only from_revision snapshot previous timeout")              \
    METHOD(watch, stop,     1, 1, METHOD_INSPECTS, "timeout")                                                          \
    METHOD(call, cancel,    1, 1, METHOD_INSPECTS, "timeout")                                                          \
    METHOD(session, configure, 0, 0, METHOD_INSPECTS, "errors timeout")                                                \
    METHOD(health, check,   0, 1, METHOD_READS, "timeout")                                                             \
    METHOD(daemon, info,    0, 0, METHOD_INSPECTS, "timeout")                                                          \
    METHOD(daemon, stats,   0, 0, METHOD_INSPECTS, "timeout")                                                          \
    METHOD(daemon, metrics, 0, 0, METHOD_INSPECTS, "timeout")                                                          \
    METHOD(daemon, dump,    0, 0, METHOD_INSPECTS | METHOD_NEEDS_ADMIN, "limit timeout")                               \
    METHOD(daemon, config,  0, 0, METHOD_INSPECTS | METHOD_NEEDS_ADMIN, "timeout")                                     \
    METHOD(daemon, sessions,     0, 0, METHOD_INSPECTS, "sort limit timeout")                                          \
    METHOD(daemon, kill_session, 1, 1, METHOD_ENDS_SESSION, "timeout")
/* clang-format on */

#define METHOD_COUNT_ROW(...) +1
enum { METHOD_COUNT = 0 METHODS(METHOD_COUNT_ROW) };

#endif
