/*
 * kvstore: the client library of kvstored.
 *
 * This header has what most programs need: connecting, errors, reading and writing keys, bulk calls, watches, and
 * transactions (kvstore_txn.h, which it includes), all with functions that wait for the answer. There are more headers:
 *
 *   kvstore_async.h   the same calls without waiting, for a program with an event loop
 *   kvstore_lock.h    locks and leader election
 *   kvstore_admin.h   buckets and the daemon itself
 *   kvstore_raw.h     any method of the protocol, and results as trees of values
 *   kvstore_libuv.h   connects a handle to a libuv loop
 *
 * A program holds one handle, struct kvs, per connection to the daemon's socket.
 *
 * Errors. A function that can fail returns an enum kvs_code: KVS_OK (0) if it succeeded. kvs_last_error then has the
 * details, with a sentence to show.
 *
 * Options. Each options struct begins with its size, so that later versions of the library can add members without
 * breaking programs. Make one with its macro, which sets the size; all other members are zero, their default:
 *
 *     struct kvs_put_options options = KVS_PUT_OPTIONS(.ttl_s = 30);
 *
 * (The macros use designated initialisers: in C++ before C++20 zero the struct and set its member size.) A NULL
 * options pointer stands for all defaults.
 *
 * Memory. Arguments are copied before a function returns. What the library returns through a pointer to a pointer is
 * one block, which the caller releases with kvs_free. After a failure the pointer is NULL.
 *
 * Threads. Different handles are independent. One handle must not be used by two threads at the same time. The library
 * starts no thread, installs no signal handler, raises no SIGPIPE, and resumes system calls that a signal interrupts.
 * After fork(2) only one of the two processes may use a handle.
 *
 * Buckets, keys, values and revisions are those of NATS KV. The daemon's protocol.md specifies what each method
 * promises.
 */
#ifndef KVSTORE_H
#define KVSTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- Version ----------------------------------------------------------------------------- */

#define KVS_VERSION_MAJOR 0
#define KVS_VERSION_MINOR 1
#define KVS_VERSION_PATCH 0

#define KVS_VERSION_TEXT_(number) #number
#define KVS_VERSION_TEXT(number)  KVS_VERSION_TEXT_(number)
#define KVS_VERSION                                                                                                    \
    KVS_VERSION_TEXT(KVS_VERSION_MAJOR) "." KVS_VERSION_TEXT(KVS_VERSION_MINOR) "." KVS_VERSION_TEXT(KVS_VERSION_PATCH)

/* Return the version of the library that the program runs with, such as "0.1.0". KVS_VERSION is the header's. */
const char *kvs_version(void);

/* --- Errors ------------------------------------------------------------------------------ */

enum kvs_code {
    KVS_OK = 0,

    /* From the daemon, by the names of protocol.md. */
    KVS_INVALID_ARGUMENT,
    KVS_BUCKET_NOT_FOUND,
    KVS_ALREADY_EXISTS, /* kvs_create: the key exists; kvs_bucket_create: the bucket exists with other settings */
    KVS_CONFLICT,       /* the key has another revision: kvs_error.revision, if known */
    KVS_TOO_LARGE,
    KVS_PERMISSION_DENIED,
    KVS_UNSUPPORTED,
    KVS_RESOURCE_EXHAUSTED, /* a limit of the daemon, the bucket or this handle */
    KVS_UNAVAILABLE,        /* the daemon cannot reach NATS; of a write see the outcome */
    KVS_DEADLINE_EXCEEDED,
    KVS_REVISION_GONE,  /* a watch cannot report all changes since a revision: start it without from_revision */
    KVS_LOCKED,         /* another client holds the lock */
    KVS_NOT_HELD,       /* the session does not hold the lock, or no longer does */
    KVS_NOT_AN_INTEGER, /* kvs_increment: the key's value is no decimal integer of 64 bits */
    KVS_OUT_OF_RANGE,   /* kvs_increment: the new value would exceed 64 bits */
    KVS_INTERNAL,

    /* From the library. */
    KVS_IO = 100,  /* could not connect, or the connection was lost */
    KVS_PROTOCOL,  /* the daemon broke the protocol, or it ended the session; the connection is closed */
    KVS_NO_MEMORY, /* malloc failed */
};

/* What is known about a write that failed. */
enum kvs_outcome {
    KVS_OUTCOME_ABSENT = 0, /* not a write, or the code says it all */
    KVS_OUTCOME_NONE,       /* nothing was written */
    KVS_OUTCOME_UNKNOWN     /* it may have been written */
};

#define KVS_BUCKET_MAX     251  /* bytes of a bucket's name */
#define KVS_KEY_MAX        1024 /* bytes of a key */
#define KVS_LOCK_VALUE_MAX 1024 /* bytes of a lock's value */
#define KVS_MESSAGE_BYTES  256

/* Plain memory: may be copied. Strings end with NUL, and are empty if unknown. */
struct kvs_error {
    enum kvs_code code;
    bool retryable; /* the same call may succeed later; of a write mind the outcome */
    enum kvs_outcome outcome;
    bool has_revision;
    uint64_t revision; /* if has_revision: on KVS_CONFLICT the key's current revision; of a watch that has ended, the
                        * from_revision with which a new watch misses nothing (not on KVS_REVISION_GONE and
                        * KVS_BUCKET_NOT_FOUND) */
    char bucket[KVS_BUCKET_MAX + 1]; /* never cut, like key: longer names are invalid */
    char key[KVS_KEY_MAX + 1];
    char message[KVS_MESSAGE_BYTES]; /* a sentence that says what to do about it */
    size_t value_size;
    char value[KVS_LOCK_VALUE_MAX + 1]; /* KVS_LOCKED: what the holder says of itself, followed by NUL */
};

/* Return the code's name, such as "bucket_not_found". Never NULL. */
const char *kvs_code_name(enum kvs_code code);

/* Initialises an options struct; see "Options" at the top. */
/* clang-format off */
#define KVS_SIZED_(type, ...) {.size = sizeof(struct type), __VA_ARGS__}
/* clang-format on */

/* --- The connection ---------------------------------------------------------------------- */

struct kvs;
struct kvs_value; /* see kvstore_raw.h */

/* Receives a notification (protocol.md, "Messages"). params is an array and lives until the function returns. */
typedef void kvs_notification_fn(struct kvs *kvs, const char *method, const struct kvs_value *params, void *context);

/* An ephemeral key, error->key in error->bucket, is lost for the reason in error. */
typedef void kvs_ephemeral_lost_fn(struct kvs *kvs, const struct kvs_error *error, void *context);

struct kvs_options {
    size_t size;
    double connect_timeout_s; /* default 5 */
    double timeout_s; /* of calls that name none; default: the daemon's calls.timeout (5 unless configured otherwise). A
                       * call's timeout is at most the daemon's calls.max_timeout (60 unless configured otherwise) */

    /*
     * false: once the connection is lost, every call fails with the reason, usually KVS_IO; close the handle and
     * connect again.
     * Calls in flight fail, too. Their outcome is KVS_OUTCOME_NONE if the request was not sent yet; otherwise, for a
     * write, KVS_OUTCOME_UNKNOWN.
     *
     * true: the library reconnects, with pauses that grow from 50 ms to 2 s between attempts. Calls in flight wait
     * until their timeout, and watches resume by themselves. If systemd listens for the daemon, a restart is a pause
     * and no error. The library sends calls again, in their order, if that is safe. It is safe for calls that only
     * read, calls that the daemon has not begun, and writes of values, which are done at most once (protocol.md,
     * "Repeating calls"). A kvs_put of an ephemeral key may be done twice: the end of its session deletes what the
     * first one has written. Other calls fail as without the option if the daemon may have begun them: a kvs_create of
     * an ephemeral key, kvs_delete_matching, functions of kvstore_admin.h that change something, and writes of
     * kvstore_raw.h, also with an id. A blocking call that is made while there is no connection keeps trying until its
     * timeout. An asynchronous one is refused, with the reason, until there is a connection. The handle keeps a copy of
     * each request in flight.
     */
    bool reconnect;

    size_t max_message_bytes; /* of one request or answer; default 64 MiB */
    size_t max_queued_bytes;  /* of requests that wait to be sent; default 64 MiB */
    unsigned max_in_flight;   /* calls without an answer; default 65,536; one more is KVS_RESOURCE_EXHAUSTED */

    kvs_notification_fn *on_notification; /* of all notifications that no kvs_watch… expects; default: dropped */
    void *notification_context;

    /*
     * Ephemeral keys (kvs_put_options.ephemeral). With reconnect the handle remembers them, in at most
     * max_ephemeral_bytes (default 16 MiB; one more is KVS_RESOURCE_EXHAUSTED), and writes them again.
     * on_ephemeral_lost is called if a key cannot be written again, for example with KVS_ALREADY_EXISTS if another
     * program has written it meanwhile. Without reconnect it is called if the daemon has lost its lease while the
     * connection lasts, or another program has deleted the key: write the key again. It is not called for a key that
     * the handle itself deletes as kvs_put_options.ephemeral says.
     */
    size_t max_ephemeral_bytes;
    kvs_ephemeral_lost_fn *on_ephemeral_lost;
    void *ephemeral_context;
};
#define KVS_OPTIONS(...) KVS_SIZED_(kvs_options, __VA_ARGS__)

/*
 * Connect to the daemon's socket at path. NULL stands for $KVSTORED_SOCKET or, if that is not set or empty, for
 * /run/kvstored/kvstored.sock. Blocks for at most connect_timeout_s. Returns NULL on failure (KVS_IO,
 * KVS_INVALID_ARGUMENT, KVS_NO_MEMORY); then *error, unless error is NULL, has the reason.
 */
struct kvs *kvs_connect(const char *path, const struct kvs_options *options, struct kvs_error *error);

/*
 * Close the connection and free the handle. Calls in flight end first: their callbacks are called with KVS_IO. Must
 * not be called from inside a callback. NULL is allowed.
 */
void kvs_close(struct kvs *kvs);

/* Return the error of the last function on this handle that failed; valid until the next call on the handle. */
const struct kvs_error *kvs_last_error(const struct kvs *kvs);

/* Free a block that the library returned. NULL is allowed. */
void kvs_free(void *block);

/* --- Keys ---------------------------------------------------------------------------------- */
/*
 * Each function sends one request and waits for its answer: for at most timeout_s and one second of grace (10 seconds
 * if no timeout is set), then it fails with KVS_DEADLINE_EXCEEDED. Asynchronous calls on the same handle make progress
 * meanwhile, and their callbacks are called. Inside a callback blocking calls are refused with KVS_INVALID_ARGUMENT.
 */

/* Options of calls that have no others. */
struct kvs_call_options {
    size_t size;
    double timeout_s;
};
#define KVS_CALL_OPTIONS(...) KVS_SIZED_(kvs_call_options, __VA_ARGS__)

struct kvs_header {
    const char *name;
    const char *value;
};

enum kvs_operation { KVS_OPERATION_PUT = 0, KVS_OPERATION_DELETE, KVS_OPERATION_PURGE };

struct kvs_entry {
    const char *key;
    const char *value; /* value_size bytes, followed by NUL; NULL in a watch with meta_only */
    size_t value_size;
    uint64_t revision;
    int64_t created_us; /* microseconds since the Unix epoch */
    enum kvs_operation operation;
    const struct kvs_header *headers; /* NULL if there are none */
    size_t header_count;
    int64_t ttl_s;      /* the value expires this time after created_us; 0: it has no TTL of its own */
    int64_t expires_us; /* if it has: when it expires, in microseconds since the Unix epoch */
    const char *lease;  /* the id of the lease with which a lock or an ephemeral key lives; NULL: an ordinary key */
    /* Of a change in a watch, if the daemon knows the entry before it. */
    bool has_previous;
    uint64_t previous; /* its revision; 0: there was none */
    const char
        *previous_value; /* with the option previous of the watch: previous_size bytes and NUL; NULL: not known */
    size_t previous_size;
};

enum kvs_consistency {
    KVS_CONSISTENCY_DIRECT = 0, /* any replica may answer; in embedded mode the daemon's cache, as new as the server */
    KVS_CONSISTENCY_LEADER,     /* sees every write that was acknowledged before, by any host */
    KVS_CONSISTENCY_CACHED      /* the daemon's cache; sees every write that was acknowledged before on this host */
};

struct kvs_get_options {
    size_t size;
    uint64_t revision; /* 0: the newest */
    enum kvs_consistency consistency;
    double timeout_s;
    bool waits;          /* kvs_get: wait until the key has a revision above wait_above, or for the timeout */
    uint64_t wait_above; /* the entry may then be the marker of a deleted key; after the timeout, the present entry */
};
#define KVS_GET_OPTIONS(...) KVS_SIZED_(kvs_get_options, __VA_ARGS__)

/* Read a key. KVS_OK with *entry NULL if the key does not exist or is deleted. */
enum kvs_code kvs_get(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_get_options *options,
                      struct kvs_entry **entry);

/*
 * Read a key whose value is JSON. *json is its text, parsed by the daemon and formatted by the library. KVS_OK with
 * *json NULL if the key does not exist or its value is JSON's null (kvs_get tells these apart). KVS_INVALID_ARGUMENT if
 * the value is not JSON or exceeds MessagePack: a number beyond 64 bits, or more than 31 levels.
 */
enum kvs_code kvs_get_json(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_get_options *options,
                           char **json);

struct kvs_put_options {
    size_t size;
    int64_t ttl_s; /* the value expires after this time; 0: never. With a history above 1, removes older values */
    const struct kvs_header *headers; /* no name twice */
    size_t header_count;              /* at most 1,000 */
    double timeout_s;
    bool keep_ttl; /* kvs_put, kvs_update: a TTL that the key has goes on; ttl_s is for a key that has none */

    /*
     * kvs_put and kvs_create: the key lives as long as the connection of this handle, then the daemon deletes it. With
     * reconnect it lives as long as the handle: after a reconnect the library writes it again, unless somebody else has
     * written it meanwhile. To end it before, use kvs_delete, kvs_purge, or a kvs_put or kvs_update without this option
     * (not a transaction or a bulk call, after which it would be written again). If that call fails and its outcome is
     * not KVS_OUTCOME_UNKNOWN, the key lives on. Not with ttl_s.
     */
    bool ephemeral;
};
#define KVS_PUT_OPTIONS(...) KVS_SIZED_(kvs_put_options, __VA_ARGS__)

/* Write a key. *revision (revision may be NULL) is the new revision. */
enum kvs_code kvs_put(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                      const struct kvs_put_options *options, uint64_t *revision);

/* Write a key that does not exist yet; KVS_ALREADY_EXISTS if it exists. */
enum kvs_code kvs_create(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                         const struct kvs_put_options *options, uint64_t *revision);

/*
 * Write a key if it still has the revision expected (0: it does not exist, or is deleted or expired); KVS_CONFLICT if
 * it has another one.
 */
enum kvs_code kvs_update(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                         uint64_t expected, const struct kvs_put_options *options, uint64_t *revision);

struct kvs_touch_options {
    size_t size;
    uint64_t revision; /* only if the key still has this revision, otherwise KVS_CONFLICT; 0: any */
    double timeout_s;
};
#define KVS_TOUCH_OPTIONS(...) KVS_SIZED_(kvs_touch_options, __VA_ARGS__)

/*
 * Let the value of a key expire ttl_s seconds from now; 0: never. The value and its headers stay. *revision (may be
 * NULL) is the new revision; 0 if the key does not exist.
 */
enum kvs_code kvs_touch(struct kvs *kvs, const char *bucket, const char *key, int64_t ttl_s,
                        const struct kvs_touch_options *options, uint64_t *revision);

struct kvs_increment_options {
    size_t size;
    int64_t initial; /* what a key that does not exist counts as */
    int64_t ttl_s;   /* the new value expires after this time; 0: a TTL that the key has goes on */
    double timeout_s;
    bool keep_ttl; /* with ttl_s: only if the key does not exist or has no TTL */
};
#define KVS_INCREMENT_OPTIONS(...) KVS_SIZED_(kvs_increment_options, __VA_ARGS__)

/*
 * Add delta to the number that a key has as its value, a decimal integer of 64 bits as text. *value (may be NULL) is
 * the new value, *revision (may be NULL) its revision. Increments of one key that meet in the daemon are written
 * together: they have one revision, and each the value that it would have got alone. KVS_NOT_AN_INTEGER,
 * KVS_OUT_OF_RANGE: nothing was added.
 */
enum kvs_code kvs_increment(struct kvs *kvs, const char *bucket, const char *key, int64_t delta,
                            const struct kvs_increment_options *options, int64_t *value, uint64_t *revision);

struct kvs_delete_options {
    size_t size;
    uint64_t revision; /* delete only if the key still has this revision, otherwise KVS_CONFLICT; 0: any */
    int64_t ttl_s;     /* kvs_purge: the delete marker itself expires after this time; kvs_delete: must be 0 */
    double timeout_s;
    bool if_exists; /* kvs_delete: write no marker if the key does not exist; *revision is 0 then */
};
#define KVS_DELETE_OPTIONS(...) KVS_SIZED_(kvs_delete_options, __VA_ARGS__)

/* Delete a key: write a delete marker and keep the history. *revision (may be NULL) is the marker's. */
enum kvs_code kvs_delete(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_delete_options *options,
                         uint64_t *revision);

/* Delete a key and its history. *revision (may be NULL) is that of the marker that is left. */
enum kvs_code kvs_purge(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_delete_options *options,
                        uint64_t *revision);

/* Return the entries that the bucket still has of a key, oldest first: an array of *count, one block. */
enum kvs_code kvs_history(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_call_options *options,
                          struct kvs_entry **entries, size_t *count);

struct kvs_keys_options {
    size_t size;
    const char *filter; /* a NATS subject filter such as "user.*.name" or "user.>"; NULL: all */
    uint64_t limit;     /* maximum number of keys; 0: the daemon's limit */
    const char *after;  /* only keys after this one in byte order: the last key of the page before. Without a cached
                         * bucket, each page reads all keys. With KVS_CONSISTENCY_CACHED a bucket that is too large
                         * for the cache refuses the option: KVS_RESOURCE_EXHAUSTED */
    enum kvs_consistency consistency; /* KVS_CONSISTENCY_DIRECT or _CACHED */
    double timeout_s;
};
#define KVS_KEYS_OPTIONS(...) KVS_SIZED_(kvs_keys_options, __VA_ARGS__)

/* Return a bucket's keys in byte order: *keys is an array of *count strings, one block. */
enum kvs_code kvs_keys(struct kvs *kvs, const char *bucket, const struct kvs_keys_options *options, char ***keys,
                       size_t *count);

struct kvs_entries_options {
    size_t size;
    const char *filter; /* as in kvs_keys_options */
    unsigned limit;     /* maximum number of entries, up to 1,000; 0: 1,000 */
    const char *after;  /* only entries of keys after this one in byte order: the last key of the page before */
    enum kvs_consistency consistency;
    double timeout_s;
};
#define KVS_ENTRIES_OPTIONS(...) KVS_SIZED_(kvs_entries_options, __VA_ARGS__)

/*
 * Return a page of a bucket's entries in the byte order of their keys: an array of *count, one block. A page is of one
 * point in time. It may have fewer entries than the limit: only *count 0 means that there are no more.
 */
enum kvs_code kvs_entries(struct kvs *kvs, const char *bucket, const struct kvs_entries_options *options,
                          struct kvs_entry **entries, size_t *count);

/* --- Many keys in one request ----------------------------------------------------------------- */
/*
 * Each key has a result of its own. A request is limited by the daemon's limits.frame_bytes (16 MiB unless configured
 * otherwise) and limits.frame_elements (131,072; each key and each value counts as one): split larger requests. Keys
 * may be in any order.
 */

struct kvs_bulk_get_options {
    size_t size;
    enum kvs_consistency consistency;
    double timeout_s;
};
#define KVS_BULK_GET_OPTIONS(...) KVS_SIZED_(kvs_bulk_get_options, __VA_ARGS__)

/*
 * Read key_count keys. *entries is an array of as many pointers in the order of keys, NULL for a key that does not
 * exist; all of it is one block. With KVS_CONSISTENCY_DIRECT, and nats-server 2.11 or later, all entries are of one
 * point in time, or of more than 1,024 keys each 1,024. With KVS_CONSISTENCY_LEADER each key is read separately. An
 * invalid key fails the whole call.
 */
enum kvs_code kvs_bulk_get(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                           const struct kvs_bulk_get_options *options, struct kvs_entry ***entries);

/* The result of one key. */
struct kvs_bulk_result {
    uint64_t revision;             /* the new revision, after a delete the marker's; 0 if it failed */
    const struct kvs_error *error; /* NULL: it was written */
};

/* A key and the value to write. */
struct kvs_pair {
    const char *key;
    const void *value;
    size_t value_size;
};

struct kvs_bulk_put_options {
    size_t size;
    int64_t ttl_s; /* the values expire after this time; 0: never */
    double timeout_s;
};
#define KVS_BULK_PUT_OPTIONS(...) KVS_SIZED_(kvs_bulk_put_options, __VA_ARGS__)

/*
 * Write pair_count keys, each independently of the others (a transaction writes all or nothing); no key twice. KVS_OK
 * means that the daemon has answered for each key: *results is an array of pair_count in the order of pairs, one block,
 * and *failed_count (may be NULL) is the number of keys that failed. If results is NULL, the call fails with the error
 * of the first key that failed.
 */
enum kvs_code kvs_bulk_put(struct kvs *kvs, const char *bucket, const struct kvs_pair *pairs, size_t pair_count,
                           const struct kvs_bulk_put_options *options, struct kvs_bulk_result **results,
                           size_t *failed_count);

/* Delete key_count keys as kvs_delete does; results and failed_count as in kvs_bulk_put. */
enum kvs_code kvs_bulk_delete(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                              const struct kvs_call_options *options, struct kvs_bulk_result **results,
                              size_t *failed_count);

/*
 * Delete all keys that match a filter (see kvs_keys_options), as kvs_delete does; *count (may be NULL) is their number.
 * A key that is written meanwhile keeps its new value. After KVS_DEADLINE_EXCEEDED, some are deleted: call again. The
 * call is not repeated after a lost connection.
 */
enum kvs_code kvs_delete_matching(struct kvs *kvs, const char *bucket, const char *filter,
                                  const struct kvs_call_options *options, uint64_t *count);

/* --- Watches ------------------------------------------------------------------------------- */
/*
 * A watch reports the entries of a bucket, then that these were all, then every change: each once, in the order of the
 * revisions (protocol.md, "Watches"). The only entries left out are values that were overwritten before they could be
 * sent, beyond the bucket's history. kvs_watch_next waits for the next event; kvstore_async.h has a form with a
 * callback. A handle can have several watches of both kinds, and calls beside them.
 *
 *     struct kvs_watch *watch;
 *     struct kvs_event event;
 *     enum kvs_code code = kvs_watch(kvs, "config", NULL, &watch);
 *     while (code == KVS_OK && (code = kvs_watch_next(watch, -1, &event)) == KVS_OK && event.type != KVS_EVENT_ENDED) {
 *         if (event.type == KVS_EVENT_ENTRY)
 *             printf("%s\n", event.entry->key);
 *     }
 *     kvs_watch_stop(watch);
 *
 * When the connection is lost a watch ends with KVS_IO. On a handle with the option reconnect it resumes by itself
 * after the last revision that it reported: no change is missing or reported twice, and KVS_EVENT_READY comes once. It
 * cannot report keys that vanished without a delete marker meanwhile: values that expired in a bucket without
 * limit_marker_ttl, or a bucket that was emptied or recreated. After a bucket was recreated with fewer revisions all
 * its entries follow. A watch resumes inside kvs_watch_next, kvs_process or a blocking call.
 */

struct kvs_watch;

/* At most one of include_history, updates_only and from_revision. */
struct kvs_watch_options {
    size_t size;
    const char *const *filters; /* only keys that match one of them, such as "user.*.name" or "user.>"; default: all */
    size_t filter_count;
    bool include_history;   /* begin with all entries that the bucket still has of the keys, not only the newest */
    bool updates_only;      /* begin with the next write */
    uint64_t from_revision; /* begin with the entry of this revision and all later ones */
    bool ignore_deletes;    /* no deletes and purges */
    bool meta_only;         /* entries without their value: it is NULL, and value_size is its size */
    bool snapshot;          /* KVS_EVENT_READY comes at one point in time: the last entry of each key is what the bucket
                             * held at the revision of the event */

    /*
     * Of kvs_watch: bytes of entries that were received and not taken yet. More than one message waits only if the
     * program does something else on the handle meanwhile. Beyond the limit the watch ends with
     * KVS_RESOURCE_EXHAUSTED, after the entries that wait. Default 8 MiB.
     */
    size_t max_queued_bytes;

    double timeout_s; /* of the calls that start it */
    bool previous;    /* changes have the value before them, if the daemon has it in memory */
};
#define KVS_WATCH_OPTIONS(...) KVS_SIZED_(kvs_watch_options, __VA_ARGS__)

enum kvs_event_type {
    KVS_EVENT_NONE = 0, /* from kvs_watch_next: timed out */
    KVS_EVENT_ENTRY,    /* an entry of the bucket, or a change */
    KVS_EVENT_READY,    /* all entries from before the watch were reported; once, also if there were none */
    KVS_EVENT_ENDED     /* nothing more will come, for the reason in error */
};

struct kvs_event {
    enum kvs_event_type type;
    const struct kvs_entry *entry; /* of KVS_EVENT_ENTRY, otherwise NULL */
    const struct kvs_error *error; /* of KVS_EVENT_ENDED, otherwise NULL. KVS_RESOURCE_EXHAUSTED: the program was too
                                    * slow; resume with its revision as from_revision */
    uint64_t revision;             /* of KVS_EVENT_READY of a watch with snapshot, otherwise 0 */
};

/* Start a watch and wait until the daemon has accepted it. End it with kvs_watch_stop. *watch is NULL on failure. */
enum kvs_code kvs_watch(struct kvs *kvs, const char *bucket, const struct kvs_watch_options *options,
                        struct kvs_watch **watch);

/*
 * Wait for the next event of a watch that kvs_watch started, for at most timeout_s; 0 does not wait, and a negative
 * number sets no limit. What *event points to lives until the next kvs_watch_next or kvs_watch_stop on this watch.
 * KVS_OK also with KVS_EVENT_NONE and KVS_EVENT_ENDED, which comes again each time. KVS_INVALID_ARGUMENT inside a
 * callback, for a watch of kvs_async_watch, and if a callback has stopped the watch meanwhile: then it is freed.
 * The socket is read only while no event of this watch waits. If the program takes no events, the daemon buffers up to
 * watches.buffer_bytes, then ends the watch; after limits.stall_timeout (30 s) it closes the connection.
 */
enum kvs_code kvs_watch_next(struct kvs_watch *watch, double timeout_s, struct kvs_event *event);

/*
 * End a watch of either kind and free it. Its callback is no longer called, not even for events that have arrived.
 * Every watch must be stopped, also if it has ended by itself; kvs_close stops the remaining ones. The function does
 * not wait for the daemon, and may be called from inside the watch's own callback. NULL is allowed.
 */
void kvs_watch_stop(struct kvs_watch *watch);

#ifdef __cplusplus
}
#endif

#include "kvstore_txn.h"

#endif
