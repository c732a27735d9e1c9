/*
 * kvstore: the client library of kvstored.
 *
 * A program holds one handle per connection to the daemon's socket and makes calls
 * on it in one of two ways, which mix freely on the same handle:
 *
 *   blocking       kvs_put(kvs, "config", "port", "80", 2, NULL, &revision)
 *   asynchronous   kvs_async_put(kvs, "config", "port", "80", 2, NULL, on_done, context),
 *                  with the handle plugged into the program's own loop: see "The loop" below
 *
 * Errors. A function that can fail returns an enum kvs_code, KVS_OK (0) where all
 * went well; kvs_last_error then has the whole story with a sentence to show.
 *
 * Memory. Arguments are copied before a function returns. What the library hands out
 * through a pointer to a pointer is one block that the caller releases with kvs_free;
 * after a failure there is nothing to release and the pointer is NULL.
 * An options pointer may be NULL: all defaults. A zero member is its default.
 *
 * Threads. A handle may be used by one thread at a time, not by two at once; different
 * handles have nothing in common. The library starts no thread, installs no signal
 * handler, raises no SIGPIPE, and system calls that a signal interrupts are resumed.
 * After a fork only one of the two processes may go on using a handle.
 *
 * Buckets, keys, values and revisions are those of NATS KV; what each method promises
 * is specified in the daemon's protocol.md.
 */
#ifndef KVSTORE_H
#define KVSTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- Errors ------------------------------------------------------------------------------ */

enum kvs_code {
    KVS_OK = 0,

    /* The daemon's, by the names of protocol.md. */
    KVS_INVALID_ARGUMENT,
    KVS_BUCKET_NOT_FOUND,
    KVS_ALREADY_EXISTS, /* kvs_create: the key is there; kvs_bucket_create: the bucket is */
    KVS_CONFLICT,       /* the key's revision is another one: kvs_error.revision, where known */
    KVS_TOO_LARGE,
    KVS_PERMISSION_DENIED,
    KVS_UNSUPPORTED,
    KVS_RESOURCE_EXHAUSTED, /* a limit of the daemon, the bucket or this handle */
    KVS_UNAVAILABLE,        /* the daemon has no NATS; nothing was written */
    KVS_DEADLINE_EXCEEDED,
    KVS_INTERNAL,

    /* The library's own. */
    KVS_IO = 100,  /* could not connect, or the connection was lost */
    KVS_PROTOCOL,  /* the daemon's bytes break the protocol; the connection is closed */
    KVS_NO_MEMORY, /* malloc failed */
};

/* What is known about a write that failed. */
enum kvs_outcome {
    KVS_OUTCOME_ABSENT = 0, /* the code says it all */
    KVS_OUTCOME_NONE,       /* nothing was written */
    KVS_OUTCOME_UNKNOWN     /* it may have been written */
};

#define KVS_MESSAGE_BYTES 256

/* Plain memory: may be copied. Strings are NUL-terminated, cut where they are longer, empty where unknown. */
struct kvs_error {
    enum kvs_code code;
    bool retryable; /* the same call may succeed later; but mind the outcome */
    enum kvs_outcome outcome;
    bool has_revision;
    uint64_t revision; /* the key's current revision, on KVS_CONFLICT, where has_revision */
    char bucket[128];
    char key[512];
    char message[KVS_MESSAGE_BYTES]; /* a sentence that says what to do about it */
};

/* The code's name, such as "bucket_not_found". Never NULL. */
const char *kvs_code_name(enum kvs_code code);

/* --- The connection ---------------------------------------------------------------------- */

struct kvs;
struct kvs_value;

/* Receives a notification (protocol.md, "Messages"). params is an array and lives until the function returns. */
typedef void kvs_notification_fn(struct kvs *kvs, const char *method, const struct kvs_value *params, void *context);

struct kvs_options {
    double connect_timeout_s; /* default 5 */
    double timeout_s;         /* of calls that name none; default: the daemon's own, 5 unless configured otherwise */

    /*
     * false: once the connection is lost every call fails with KVS_IO; close the handle and connect again.
     * true: the next call connects again, with pauses that grow from 50 ms to 2 s between attempts. A
     * blocking call goes on trying until its timeout; an asynchronous one is refused with KVS_IO until
     * the daemon is back. In both cases calls that were in flight fail with KVS_IO and are never sent again by
     * the library; their outcome is KVS_OUTCOME_NONE where the request had not left, otherwise, of a write, UNKNOWN.
     */
    bool reconnect;

    size_t max_message_bytes; /* of one request or answer; default 64 MiB */
    size_t max_queued_bytes;  /* of requests that wait for being sent; default 64 MiB */
    unsigned max_in_flight;   /* calls without an answer; default 65,536; one more is KVS_RESOURCE_EXHAUSTED */

    kvs_notification_fn *on_notification; /* default: notifications are dropped */
    void *notification_context;
};

/*
 * Connects to the daemon's socket at path; path NULL: $KVSTORED_SOCKET, and where that is
 * not set or empty /run/kvstored/kvstored.sock. Blocks for at most connect_timeout_s.
 * NULL on failure (KVS_IO, KVS_INVALID_ARGUMENT, KVS_NO_MEMORY): then *error, unless error
 * is NULL, says why.
 */
struct kvs *kvs_connect(const char *path, const struct kvs_options *options, struct kvs_error *error);

/*
 * Closes the connection and frees the handle. Calls in flight end first: their functions are
 * called with KVS_IO. Not to be called from inside such a function. NULL is fine.
 */
void kvs_close(struct kvs *kvs);

/* Why the last function on this handle that failed did so; valid until the next call on the handle. */
const struct kvs_error *kvs_last_error(const struct kvs *kvs);

/* Releases what the library handed out. NULL is fine. */
void kvs_free(void *block);

/* --- Blocking calls ------------------------------------------------------------------------ */
/*
 * Each sends one request and waits for its answer: at most timeout_s and one second of grace
 * (10 seconds where no timeout is set), then it fails with KVS_DEADLINE_EXCEEDED. Asynchronous
 * calls on the same handle make progress meanwhile, and their functions are called. From inside
 * such a function blocking calls are refused with KVS_INVALID_ARGUMENT.
 */

/* Options of calls that have no others. */
struct kvs_call_options {
    double timeout_s;
};

struct kvs_header {
    const char *name;
    const char *value;
};

enum kvs_operation { KVS_OPERATION_PUT = 0, KVS_OPERATION_DELETE, KVS_OPERATION_PURGE };

struct kvs_entry {
    const char *key;
    const char *value; /* value_size bytes, and a NUL behind them */
    size_t value_size;
    uint64_t revision;
    int64_t created_us; /* microseconds since the Unix epoch */
    enum kvs_operation operation;
    const struct kvs_header *headers; /* NULL where there are none */
    size_t header_count;
};

enum kvs_consistency {
    KVS_CONSISTENCY_DIRECT = 0, /* any replica may answer */
    KVS_CONSISTENCY_LEADER,     /* sees every write acknowledged before, by anyone */
    KVS_CONSISTENCY_CACHED      /* the daemon's near cache; sees every write acknowledged before on this host */
};

struct kvs_get_options {
    uint64_t revision; /* 0: the newest */
    enum kvs_consistency consistency;
    double timeout_s;
};

/* Reads a key. KVS_OK with *entry NULL where the key is not there (or is deleted). */
enum kvs_code kvs_get(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_get_options *options,
                      struct kvs_entry **entry);

/*
 * Reads a key whose value is JSON; *json is its text, parsed and written anew by the daemon and
 * the library. KVS_OK with *json NULL where the key is not there, KVS_INVALID_ARGUMENT where the
 * value is no JSON.
 */
enum kvs_code kvs_get_json(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_get_options *options,
                           char **json);

struct kvs_put_options {
    int64_t ttl_s; /* the value expires after so many seconds; 0: never */
    const struct kvs_header *headers;
    size_t header_count;
    double timeout_s;
};

/* Writes a key. *revision (revision may be NULL) is the new revision. */
enum kvs_code kvs_put(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                      const struct kvs_put_options *options, uint64_t *revision);

/* Writes a key that is not there yet; KVS_ALREADY_EXISTS where it is. */
enum kvs_code kvs_create(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                         const struct kvs_put_options *options, uint64_t *revision);

/* Writes a key that still has the revision expected (0: is not there); KVS_CONFLICT where it has another one. */
enum kvs_code kvs_update(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                         uint64_t expected, const struct kvs_put_options *options, uint64_t *revision);

struct kvs_delete_options {
    uint64_t revision; /* only if the key still has this one, otherwise KVS_CONFLICT; 0: whatever it has */
    int64_t ttl_s;     /* kvs_purge: the marker itself expires after so many seconds; kvs_delete: must be 0 */
    double timeout_s;
};

/* Deletes a key: leaves a marker, and the history before it. *revision (may be NULL) is the marker's. */
enum kvs_code kvs_delete(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_delete_options *options,
                         uint64_t *revision);

/* Deletes a key and its history. *revision (may be NULL) is the marker's. */
enum kvs_code kvs_purge(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_delete_options *options,
                        uint64_t *revision);

/* What the bucket still has of a key, oldest first: *entries is an array of *count, one block. */
enum kvs_code kvs_history(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_call_options *options,
                          struct kvs_entry **entries, size_t *count);

struct kvs_keys_options {
    const char *filter; /* a NATS subject filter such as "user.*.name" or "user.>"; NULL: all */
    uint64_t limit;     /* at most so many; 0: the daemon's limit */
    const char *after;  /* only keys behind this one in byte order: the last one of the page before */
    double timeout_s;
};

/* A bucket's keys in byte order: *keys is an array of *count strings, one block. */
enum kvs_code kvs_keys(struct kvs *kvs, const char *bucket, const struct kvs_keys_options *options, char ***keys,
                       size_t *count);

/* --- Buckets ------------------------------------------------------------------------------- */

enum kvs_storage { KVS_STORAGE_DEFAULT = 0, KVS_STORAGE_FILE, KVS_STORAGE_MEMORY };
enum kvs_switch { KVS_SWITCH_DEFAULT = 0, KVS_SWITCH_ON, KVS_SWITCH_OFF };

/* A bucket that another one is fed from. */
struct kvs_bucket_source {
    const char *bucket;
    const char *domain; /* JetStream domain that it is in; NULL: ours */
    const char *filter; /* of the keys; NULL: all. Not of a mirror, which has the whole bucket */
};

/* A bucket's settings. In kvs_bucket_create 0 and NULL are the server's defaults, in kvs_bucket_update 'as it was'. */
struct kvs_bucket_options {
    const char *description;
    unsigned history;       /* values kept per key, 1 to 64 */
    int64_t ttl_s;          /* seconds that values live; -1: for ever */
    int64_t max_value_size; /* bytes of one value; -1: no limit */
    int64_t max_bytes;      /* bytes of the bucket; -1: no limit */
    enum kvs_storage storage;
    unsigned replicas;
    enum kvs_switch compression;
    int64_t limit_marker_ttl_s; /* when values expire, leave markers that live so long; -1: none */

    const char *placement_cluster;
    const char *const *placement_tags;
    size_t placement_tag_count;

    const char *republish_destination; /* subject on which what is written is published again */
    const char *republish_source;      /* … where its own subject matches this filter; NULL: all */
    bool republish_headers_only;       /* … without the values */

    struct kvs_bucket_source mirror;         /* bucket that this one follows; its bucket is NULL: none */
    const struct kvs_bucket_source *sources; /* buckets that this one gathers */
    size_t source_count;

    const struct kvs_header *metadata;
    size_t metadata_count;

    double timeout_s; /* of this call */
};

/* A bucket's state and its settings; 0 where there is no limit. One block with all that it points to. */
struct kvs_bucket_info {
    const char *bucket;
    const char *description; /* "" where there is none */
    uint64_t values;
    uint64_t bytes;
    uint64_t last_revision;
    unsigned history;
    unsigned replicas;
    int64_t ttl_s;
    int64_t max_value_size;
    int64_t max_bytes;
    int64_t limit_marker_ttl_s;
    enum kvs_storage storage;
    bool compression;
    bool allows_ttl;    /* a value can have a TTL of its own */
    bool allows_atomic; /* transactions are possible */

    const char *placement_cluster; /* NULL where none is set */
    const char *const *placement_tags;
    size_t placement_tag_count;

    const char *republish_destination; /* NULL where nothing is published again */
    const char *republish_source;
    bool republish_headers_only;

    struct kvs_bucket_source mirror; /* its bucket is NULL where this one is no mirror */
    const struct kvs_bucket_source *sources;
    size_t source_count;

    const struct kvs_header *metadata;
    size_t metadata_count;
};

/* Creates a bucket; KVS_ALREADY_EXISTS where there is one with other settings. info may be NULL. */
enum kvs_code kvs_bucket_create(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                struct kvs_bucket_info **info);

/* Changes a bucket's settings, and upgrades a bucket that another client created. info may be NULL. */
enum kvs_code kvs_bucket_update(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                struct kvs_bucket_info **info);

/* Deletes a bucket and all that is in it. */
enum kvs_code kvs_bucket_delete(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options);

/* Empties a bucket. */
enum kvs_code kvs_bucket_purge(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options);

enum kvs_code kvs_bucket_info(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                              struct kvs_bucket_info **info);

struct kvs_list_options {
    const char *filter; /* of bucket names; NULL: all */
    double timeout_s;
};

/* The names of the buckets: *names is an array of *count strings, one block. */
enum kvs_code kvs_bucket_list(struct kvs *kvs, const struct kvs_list_options *options, char ***names, size_t *count);

/* --- The daemon ------------------------------------------------------------------------------ */
/* Their results are trees, because they grow with the daemon: see "Values" and kvs_value_json. */

/* The health map; of a bucket, too, unless bucket is NULL. Answered also when NATS is away. */
enum kvs_code kvs_health(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                         struct kvs_value **health);

/* Version, limits, NATS server and its features. */
enum kvs_code kvs_daemon_info(struct kvs *kvs, const struct kvs_call_options *options, struct kvs_value **info);

/* Counters and latency quantiles. */
enum kvs_code kvs_daemon_stats(struct kvs *kvs, const struct kvs_call_options *options, struct kvs_value **stats);

/* --- Values ---------------------------------------------------------------------------------- */
/*
 * A result of the daemon as a tree. Functions that ask for another type than a value has
 * answer false, 0, NULL; they all take NULL, so that they can be nested:
 *     kvs_value_unsigned(kvs_value_member(kvs_value_member(health, "nats"), "rtt_us"))
 */

enum kvs_type {
    KVS_NIL,
    KVS_BOOLEAN,
    KVS_INTEGER, /* kvs_value_integer or kvs_value_unsigned, as it fits */
    KVS_DOUBLE,
    KVS_STRING,
    KVS_BINARY,
    KVS_ARRAY,
    KVS_MAP
};

enum kvs_type kvs_value_type(const struct kvs_value *value); /* NULL is KVS_NIL */
bool kvs_value_boolean(const struct kvs_value *value);
int64_t kvs_value_integer(const struct kvs_value *value);                 /* 0 where it does not fit */
uint64_t kvs_value_unsigned(const struct kvs_value *value);               /* 0 where it does not fit */
double kvs_value_double(const struct kvs_value *value);                   /* of a KVS_DOUBLE or KVS_INTEGER */
const char *kvs_value_bytes(const struct kvs_value *value, size_t *size); /* of a KVS_STRING or KVS_BINARY; no NUL */
size_t kvs_value_count(const struct kvs_value *value);                    /* items of an array, members of a map */

/* An array's item or a map's value by its place; a map's key by its place; a map's value by its name. */
const struct kvs_value *kvs_value_item(const struct kvs_value *value, size_t place);
const struct kvs_value *kvs_value_key(const struct kvs_value *value, size_t place);
const struct kvs_value *kvs_value_member(const struct kvs_value *value, const char *name);

/* A copy that outlives the function that was given value. NULL when out of memory. Release with kvs_free. */
struct kvs_value *kvs_value_copy(const struct kvs_value *value);

/*
 * The value as JSON text. Binary values that are UTF-8 are written as strings, others as
 * {"base64": "…"}. NULL when out of memory. Release with kvs_free.
 */
char *kvs_value_json(const struct kvs_value *value);

/* The value as an entry. NULL when it is none or out of memory. Release with kvs_free. */
struct kvs_entry *kvs_value_entry(const struct kvs_value *value);

/* --- Asynchronous calls ------------------------------------------------------------------------ */

/*
 * Receives a call's answer, once, from inside kvs_process, a blocking call or kvs_close.
 * Success: error is NULL and result is what protocol.md says the method answers (a revision is a
 * KVS_INTEGER, an entry is read with kvs_value_entry, a key that is not there is KVS_NIL).
 * Failure: result is NULL. Both live until the function returns. It may submit further calls.
 */
typedef void kvs_done_fn(struct kvs *kvs, const struct kvs_error *error, const struct kvs_value *result, void *context);

/*
 * As their blocking namesakes. KVS_OK: the request waits for being sent, and done will be called.
 * Otherwise it was refused (a wrong argument, KVS_IO, KVS_RESOURCE_EXHAUSTED when max_in_flight or
 * max_queued_bytes is reached) and done will not be called. Answers come in any order. done may be
 * NULL for a caller who does not care.
 */
enum kvs_code kvs_async_get(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_get_options *options,
                            kvs_done_fn *done, void *context);
enum kvs_code kvs_async_get_json(struct kvs *kvs, const char *bucket, const char *key,
                                 const struct kvs_get_options *options, kvs_done_fn *done, void *context);
enum kvs_code kvs_async_put(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                            const struct kvs_put_options *options, kvs_done_fn *done, void *context);
enum kvs_code kvs_async_create(struct kvs *kvs, const char *bucket, const char *key, const void *value,
                               size_t value_size, const struct kvs_put_options *options, kvs_done_fn *done,
                               void *context);
enum kvs_code kvs_async_update(struct kvs *kvs, const char *bucket, const char *key, const void *value,
                               size_t value_size, uint64_t expected, const struct kvs_put_options *options,
                               kvs_done_fn *done, void *context);
enum kvs_code kvs_async_delete(struct kvs *kvs, const char *bucket, const char *key,
                               const struct kvs_delete_options *options, kvs_done_fn *done, void *context);
enum kvs_code kvs_async_purge(struct kvs *kvs, const char *bucket, const char *key,
                              const struct kvs_delete_options *options, kvs_done_fn *done, void *context);
enum kvs_code kvs_async_history(struct kvs *kvs, const char *bucket, const char *key,
                                const struct kvs_call_options *options, kvs_done_fn *done, void *context);
enum kvs_code kvs_async_keys(struct kvs *kvs, const char *bucket, const struct kvs_keys_options *options,
                             kvs_done_fn *done, void *context);
enum kvs_code kvs_async_bucket_create(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                      kvs_done_fn *done, void *context);
enum kvs_code kvs_async_bucket_update(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                      kvs_done_fn *done, void *context);
enum kvs_code kvs_async_bucket_delete(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                                      kvs_done_fn *done, void *context);
enum kvs_code kvs_async_bucket_purge(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                                     kvs_done_fn *done, void *context);
enum kvs_code kvs_async_bucket_info(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                                    kvs_done_fn *done, void *context);
enum kvs_code kvs_async_bucket_list(struct kvs *kvs, const struct kvs_list_options *options, kvs_done_fn *done,
                                    void *context);
enum kvs_code kvs_async_health(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                               kvs_done_fn *done, void *context);
enum kvs_code kvs_async_daemon_info(struct kvs *kvs, const struct kvs_call_options *options, kvs_done_fn *done,
                                    void *context);
enum kvs_code kvs_async_daemon_stats(struct kvs *kvs, const struct kvs_call_options *options, kvs_done_fn *done,
                                     void *context);

/* --- The loop ------------------------------------------------------------------------------------ */
/*
 * Before the program's loop waits: wait for kvs_events on kvs_fd, no longer than kvs_timeout_ms.
 * After it: kvs_process. Nothing is sent but from inside kvs_process or a blocking call, so that
 * the requests of one turn leave in one system call. Calls that were submitted change what to
 * wait for: ask again before each wait.
 */

/* The socket, or -1 (which poll ignores) while there is no connection. The library closes it when it is lost. */
int kvs_fd(const struct kvs *kvs);

/* How often this handle has connected: where it has changed kvs_fd is a new socket, even if the number is the same. */
uint64_t kvs_connection_count(const struct kvs *kvs);

/* POLLIN, and POLLOUT while requests wait for being sent; 0 while there is no connection. */
short kvs_events(const struct kvs *kvs);

/* Milliseconds after which kvs_process is due whatever happens on the socket; -1: never. */
int kvs_timeout_ms(const struct kvs *kvs);

/*
 * Sends and receives what it can without waiting, calls the functions of calls that are answered
 * or over time. KVS_OK, also when single calls failed; KVS_IO or KVS_PROTOCOL when the connection is
 * lost or was so before: all calls in flight have ended.
 */
enum kvs_code kvs_process(struct kvs *kvs);

/* How many calls still wait for their answer. */
size_t kvs_in_flight(const struct kvs *kvs);

/* --- Any method ------------------------------------------------------------------------------------ */
/*
 * For methods that this version of the library does not know. The parameters are added one by one,
 * in the order of protocol.md; an array or a map announces how many items or members it has, and
 * they follow (of a member: the key, then the value). What goes wrong meanwhile (no memory, a wrong
 * count) is reported by kvs_call or kvs_submit.
 */
struct kvs_request;

/* NULL when out of memory, which kvs_call and kvs_submit know how to report. method is copied. */
struct kvs_request *kvs_request_new(const char *method, size_t parameter_count);
void kvs_request_free(struct kvs_request *request);

void kvs_request_nil(struct kvs_request *request);
void kvs_request_boolean(struct kvs_request *request, bool value);
void kvs_request_integer(struct kvs_request *request, int64_t value);
void kvs_request_unsigned(struct kvs_request *request, uint64_t value);
void kvs_request_double(struct kvs_request *request, double value);
void kvs_request_string(struct kvs_request *request, const char *text);
void kvs_request_binary(struct kvs_request *request, const void *bytes, size_t size);
void kvs_request_array(struct kvs_request *request, size_t count);
void kvs_request_map(struct kvs_request *request, size_t count);

/*
 * Sends the request and waits for its answer for timeout_s and a second of grace (0: as for other
 * calls). The daemon has its own deadline: add the option timeout for another one. The request is
 * still the caller's, and can be sent again. result may be NULL.
 */
enum kvs_code kvs_call(struct kvs *kvs, const struct kvs_request *request, double timeout_s, struct kvs_value **result);

/* The asynchronous form of kvs_call. The request is copied and still the caller's. */
enum kvs_code kvs_submit(struct kvs *kvs, const struct kvs_request *request, double timeout_s, kvs_done_fn *done,
                         void *context);

/* The library's version, such as "0.1.0". */
const char *kvs_version(void);

#ifdef __cplusplus
}
#endif

#endif
