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
    KVS_REVISION_GONE, /* a watch cannot tell all changes since a revision; start it without from_revision */
    KVS_INTERNAL,

    /* The library's own. */
    KVS_IO = 100,  /* could not connect, or the connection was lost */
    KVS_PROTOCOL,  /* the daemon's bytes break the protocol, or it ended the session; the connection is closed */
    KVS_NO_MEMORY, /* malloc failed */
};

/* What is known about a write that failed. */
enum kvs_outcome {
    KVS_OUTCOME_ABSENT = 0, /* the code says it all */
    KVS_OUTCOME_NONE,       /* nothing was written */
    KVS_OUTCOME_UNKNOWN     /* it may have been written */
};

#define KVS_BUCKET_MAX    251  /* bytes of a bucket's name */
#define KVS_KEY_MAX       1024 /* bytes of a key */
#define KVS_MESSAGE_BYTES 256

/* Plain memory: may be copied. Strings are NUL-terminated, and empty if unknown. */
struct kvs_error {
    enum kvs_code code;
    bool retryable; /* the same call may succeed later; but mind the outcome */
    enum kvs_outcome outcome;
    bool has_revision;
    uint64_t revision; /* where has_revision: the key's current one, on KVS_CONFLICT; of a watch that has ended,
                        * the from_revision with which another one misses nothing */
    char bucket[KVS_BUCKET_MAX + 1]; /* the whole name; */
    char key[KVS_KEY_MAX + 1];       /* the whole key; only what cannot be a name or a key is cut */
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
    double timeout_s;         /* of calls that name none; default: the daemon's own, 5 unless configured otherwise. Of
                               * any call up to the daemon's calls.max_timeout, 60 unless configured otherwise */

    /*
     * false: once the connection is lost every call fails with the reason, as a rule KVS_IO; close the handle and
     * connect again. true: the next call connects again, with pauses that grow from 50 ms to 2 s between attempts. A
     * blocking call goes on trying until its timeout; an asynchronous one is refused with the reason until
     * the daemon is back. In both cases calls that were in flight fail with KVS_IO and are never sent again by
     * the library; their outcome is KVS_OUTCOME_NONE where the request had not left, otherwise, of a write, UNKNOWN.
     * Watches go on by themselves with true, and end with false: see "Watches".
     */
    bool reconnect;

    size_t max_message_bytes; /* of one request or answer; default 64 MiB */
    size_t max_queued_bytes;  /* of requests that wait for being sent; default 64 MiB */
    unsigned max_in_flight;   /* calls without an answer; default 65,536; one more is KVS_RESOURCE_EXHAUSTED */

    kvs_notification_fn *on_notification; /* of all but those of kvs_watch…; default: they are dropped */
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
    const char *value; /* value_size bytes, and a NUL behind them; NULL in a watch with meta_only */
    size_t value_size;
    uint64_t revision;
    int64_t created_us; /* microseconds since the Unix epoch */
    enum kvs_operation operation;
    const struct kvs_header *headers; /* NULL where there are none */
    size_t header_count;
};

enum kvs_consistency {
    KVS_CONSISTENCY_DIRECT = 0, /* any replica may answer; in embedded mode the daemon's memory, as new as the server */
    KVS_CONSISTENCY_LEADER,     /* sees every write acknowledged before, by anyone */
    KVS_CONSISTENCY_CACHED      /* the daemon's memory; sees every write acknowledged before on this host */
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
 * the library. KVS_OK with *json NULL where the key is not there, or its value is JSON's null (kvs_get tells these
 * apart); KVS_INVALID_ARGUMENT where the value is no JSON, or has what MessagePack cannot hold: a number beyond 64
 * bits, more than 31 levels.
 */
enum kvs_code kvs_get_json(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_get_options *options,
                           char **json);

struct kvs_put_options {
    int64_t ttl_s;                    /* the value expires after so many seconds; 0: never */
    const struct kvs_header *headers; /* no name twice */
    size_t header_count;              /* up to 1,000 */
    double timeout_s;
};

/* Writes a key. *revision (revision may be NULL) is the new revision. */
enum kvs_code kvs_put(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                      const struct kvs_put_options *options, uint64_t *revision);

/* Writes a key that is not there yet; KVS_ALREADY_EXISTS where it is. */
enum kvs_code kvs_create(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                         const struct kvs_put_options *options, uint64_t *revision);

/*
 * Writes a key that still has the revision expected (0: is not there, or is deleted or expired); KVS_CONFLICT where it
 * has another one.
 */
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
    const char *filter;               /* a NATS subject filter such as "user.*.name" or "user.>"; NULL: all */
    uint64_t limit;                   /* at most so many; 0: the daemon's limit */
    const char *after;                /* only keys behind this one in byte order: the last one of the page before. A
                                       * page that the daemon has not in memory costs a reading of all keys. With
                                       * KVS_CONSISTENCY_CACHED a large bucket refuses it: KVS_RESOURCE_EXHAUSTED */
    enum kvs_consistency consistency; /* KVS_CONSISTENCY_DIRECT or _CACHED */
    double timeout_s;
};

/* A bucket's keys in byte order: *keys is an array of *count strings, one block. */
enum kvs_code kvs_keys(struct kvs *kvs, const char *bucket, const struct kvs_keys_options *options, char ***keys,
                       size_t *count);

/* --- Many keys at once ---------------------------------------------------------------------- */
/*
 * One request for many keys of a bucket, each with an answer of its own. The daemon takes requests up to
 * its limits.frame_bytes (16 MiB unless configured otherwise) and limits.frame_elements (131,072: each key
 * and each value is one): send more than that in several calls. Keys may be in any order.
 */

struct kvs_bulk_get_options {
    enum kvs_consistency consistency;
    double timeout_s;
};

/*
 * Reads key_count keys: *entries is an array of as many pointers, in the order of keys, with NULL where a key
 * is not there; all of it is one block. With KVS_CONSISTENCY_DIRECT, and nats-server 2.11 or later, they are as
 * they were at one point in time: all of them, or where there are more than 1,024, each 1,024 of them. With
 * KVS_CONSISTENCY_LEADER each key is read by itself. A key that cannot be one fails the whole call.
 */
enum kvs_code kvs_bulk_get(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                           const struct kvs_bulk_get_options *options, struct kvs_entry ***entries);

/* What became of one key. */
struct kvs_bulk_result {
    uint64_t revision;             /* the new one, of a delete its marker's; 0 where it failed */
    const struct kvs_error *error; /* NULL: it was written */
};

/* A key and what to write to it. */
struct kvs_pair {
    const char *key;
    const void *value;
    size_t value_size;
};

struct kvs_bulk_put_options {
    int64_t ttl_s; /* the values expire after so many seconds; 0: never */
    double timeout_s;
};

/*
 * Writes pair_count keys, each independent of the others (all or nothing is a transaction's: see there); no key
 * twice. KVS_OK: the daemon has answered for each: *results is an array of pair_count in the order of pairs, one
 * block, and *failed_count (may be NULL) says how many keys failed. A caller who passes NULL for results wants all
 * to be written: where a key failed, the first such key's error is the call's.
 */
enum kvs_code kvs_bulk_put(struct kvs *kvs, const char *bucket, const struct kvs_pair *pairs, size_t pair_count,
                           const struct kvs_bulk_put_options *options, struct kvs_bulk_result **results,
                           size_t *failed_count);

/* Deletes key_count keys as kvs_delete does; results and failed_count as in kvs_bulk_put. */
enum kvs_code kvs_bulk_delete(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                              const struct kvs_call_options *options, struct kvs_bulk_result **results,
                              size_t *failed_count);

/* --- Transactions ------------------------------------------------------------------------------ */
/*
 * Several writes of one bucket that happen together or not at all, if what they rest on still holds: the
 * keys that were read in the transaction (kvs_txn_get), those that were named (kvs_txn_check), and the
 * conditions of its creates and updates. All of these are about the state before the transaction. The
 * transaction lives in the library: until kvs_txn_commit nothing is written, locked or known to others.
 *
 *     static enum kvs_code count(struct kvs_txn *txn, void *context)
 *     {
 *         char text[16];
 *         const struct kvs_entry *entry;
 *         enum kvs_code code = kvs_txn_get(txn, "counter", &entry);
 *         int length = snprintf(text, sizeof(text), "%d", entry != NULL ? atoi(entry->value) + 1 : 1);
 *         kvs_txn_put(txn, "counter", text, (size_t)length, NULL);
 *         return code;
 *     }
 *     …
 *     code = kvs_txn_run(kvs, "demo", count, NULL, NULL);
 *
 * Where it rests on more keys than it has operations, it commits only in a moment in which nobody else writes to
 * the bucket: beside a steady stream of writes it may come to KVS_DEADLINE_EXCEEDED. Let it write what it reads.
 *
 * Needs nats-server 2.12 or later and a bucket that allows it, as those that kvstored makes do
 * (kvs_bucket_update upgrades others); otherwise the commit is KVS_UNSUPPORTED.
 */
struct kvs_txn;

/* Begins a transaction. NULL when out of memory, which the functions below take, and kvs_txn_commit reports. */
struct kvs_txn *kvs_txn_begin(struct kvs *kvs, const char *bucket);

/* Ends it; what was not committed never happens. Also after kvs_close. NULL is fine. */
void kvs_txn_free(struct kvs_txn *txn);

/*
 * Reads a key with KVS_CONSISTENCY_LEADER, and makes the commit depend on it: it will be a KVS_CONFLICT where
 * the key has changed by then. A key that is not there (or is deleted) is KVS_OK with *entry NULL, and must
 * still not be there then. The entry is the transaction's: not to be freed, and valid as long as the transaction is.
 * A key that is read again has the same entry again, whatever happened meanwhile, and also where
 * the transaction is going to write it. Two keys that others change together may be read one before and one after
 * that; the commit does not succeed then. Where it fails, the commit will fail, too.
 */
enum kvs_code kvs_txn_get(struct kvs_txn *txn, const char *key, const struct kvs_entry **entry);

/* Makes the commit depend on a key's revision, as kvs_get told it; 0: it must not be there. */
void kvs_txn_check(struct kvs_txn *txn, const char *key, uint64_t revision);

/*
 * Add one operation, up to 1,000 of them, with what their namesakes without txn promise. What is wrong with an
 * argument is reported by the commit. timeout_s of the options does not count: the commit has its own.
 */
void kvs_txn_put(struct kvs_txn *txn, const char *key, const void *value, size_t value_size,
                 const struct kvs_put_options *options);
void kvs_txn_create(struct kvs_txn *txn, const char *key, const void *value, size_t value_size,
                    const struct kvs_put_options *options);
void kvs_txn_update(struct kvs_txn *txn, const char *key, const void *value, size_t value_size, uint64_t expected,
                    const struct kvs_put_options *options);
void kvs_txn_delete(struct kvs_txn *txn, const char *key);
void kvs_txn_purge(struct kvs_txn *txn, const char *key);

/*
 * Commits. KVS_OK: all is written; *revisions is an array of *count, one for each operation in their order, one
 * block (both may be NULL). KVS_CONFLICT, KVS_ALREADY_EXISTS: a condition does not hold, nothing was written, and
 * kvs_error.key says which key's. After any other failure mind kvs_error.outcome.
 * A transaction without operations has nothing to write: it is KVS_OK at once, without asking the daemon
 * whether its checks hold. What was committed cannot be committed again; what failed can.
 */
enum kvs_code kvs_txn_commit(struct kvs_txn *txn, const struct kvs_call_options *options, uint64_t **revisions,
                             size_t *count);

/*
 * Reads and adds operations to txn, for kvs_txn_run, which commits it where this returns KVS_OK and otherwise ends
 * with what it returned. It may be called several times, and must not commit or free txn.
 */
typedef enum kvs_code kvs_txn_fn(struct kvs_txn *txn, void *context);

/*
 * Read, change, write: calls function with a new transaction and commits it, and does so again after a short random
 * pause while the commit fails because a key that the transaction had read has changed, until the time is
 * over: the option timeout_s, which may be longer than one call's, or else the handle's, or else 5 seconds; then the
 * last round's error is the answer.
 */
enum kvs_code kvs_txn_run(struct kvs *kvs, const char *bucket, kvs_txn_fn *function, void *context,
                          const struct kvs_call_options *options);

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
    int64_t marker_ttl_s;       /* after this time the daemon removes markers of deleted keys; -1: they stay */

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
    int64_t marker_ttl_s;
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

struct kvs_compact_options {
    int64_t older_than_s; /* age of the markers; -1: any; 0: the bucket's marker_ttl, or 30 minutes if it has none */
    double timeout_s;
};

/* Removes the markers of deleted keys. removed, their number, may be NULL. After KVS_DEADLINE_EXCEEDED call again. */
enum kvs_code kvs_bucket_compact(struct kvs *kvs, const char *bucket, const struct kvs_compact_options *options,
                                 uint64_t *removed);

enum kvs_code kvs_bucket_info(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                              struct kvs_bucket_info **info);

struct kvs_list_options {
    const char *filter; /* of bucket names: "*" for any characters, "?" for one; NULL: all */
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

/* The value as an entry, also of a watch. NULL when it is none or out of memory. Release with kvs_free. */
struct kvs_entry *kvs_value_entry(const struct kvs_value *value);

/*
 * An entry as JSON text, with the members that protocol.md gives it and in the form of kvs_value_json. NULL when out
 * of memory. Release with kvs_free.
 */
char *kvs_entry_json(const struct kvs_entry *entry);

/* Whether the value is an error map, such as a key's in the result of bulk.put; then *error is filled from it. */
bool kvs_value_error(const struct kvs_value *value, struct kvs_error *error);

/* --- Asynchronous calls ------------------------------------------------------------------------ */

/*
 * Receives a call's answer, once, from inside kvs_process, a blocking call, kvs_watch_stop or kvs_close.
 * Success: error is NULL and result is what protocol.md says the method answers (a revision is a
 * KVS_INTEGER, an entry is read with kvs_value_entry, a key that is not there is KVS_NIL; of a bulk call it is
 * a map of the keys, each once, to an entry or KVS_NIL, or to a revision or an error that kvs_value_error reads).
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
enum kvs_code kvs_async_bulk_get(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                                 const struct kvs_bulk_get_options *options, kvs_done_fn *done, void *context);
enum kvs_code kvs_async_bulk_put(struct kvs *kvs, const char *bucket, const struct kvs_pair *pairs, size_t pair_count,
                                 const struct kvs_bulk_put_options *options, kvs_done_fn *done, void *context);
enum kvs_code kvs_async_bulk_delete(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                                    const struct kvs_call_options *options, kvs_done_fn *done, void *context);

/*
 * The transaction may be freed as soon as this returns, and is not to be committed again. One without operations
 * is KVS_INVALID_ARGUMENT: there would be no answer to wait for. Programs that must not block say with
 * kvs_txn_check what they have read with kvs_async_get.
 */
enum kvs_code kvs_async_txn_commit(struct kvs_txn *txn, const struct kvs_call_options *options, kvs_done_fn *done,
                                   void *context);
enum kvs_code kvs_async_bucket_create(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                      kvs_done_fn *done, void *context);
enum kvs_code kvs_async_bucket_update(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                      kvs_done_fn *done, void *context);
enum kvs_code kvs_async_bucket_delete(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                                      kvs_done_fn *done, void *context);
enum kvs_code kvs_async_bucket_purge(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                                     kvs_done_fn *done, void *context);
enum kvs_code kvs_async_bucket_compact(struct kvs *kvs, const char *bucket, const struct kvs_compact_options *options,
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

/* --- Watches ------------------------------------------------------------------------------- */
/*
 * A watch tells what is in a bucket, then that this was all, then every change: each once, in the order of the
 * revisions (protocol.md, "Watches"). Only a value that was overwritten before it could be sent, beyond the bucket's
 * history, is left out. It has two faces: kvs_watch with kvs_watch_next, which waits for the next
 * event, and kvs_async_watch with a function that is called with each. A handle can have several watches of both
 * kinds, and calls beside them.
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
 * When the connection is lost a watch ends with KVS_IO. On a handle with the option reconnect it goes on by
 * itself, as soon as the daemon is back, behind the last revision that it told: no change is missing or told
 * twice, and KVS_EVENT_READY comes once. What it cannot know is what vanished without a message (a value that
 * expired in a bucket without limit_marker_ttl, a bucket that was emptied or made anew) while it was away; of a bucket
 * that was made anew with fewer revisions all entries follow. It then needs somebody to work on the handle: it goes on
 * inside kvs_watch_next, kvs_process or a blocking call.
 */

struct kvs_watch;

/* At most one of include_history, updates_only and from_revision. */
struct kvs_watch_options {
    const char *const *filters; /* only keys that match one of them, such as "user.*.name" or "user.>"; default: all */
    size_t filter_count;
    bool include_history;   /* begin with all that the bucket still has of the keys, not only the last entry of each */
    bool updates_only;      /* begin with what is written from now on */
    uint64_t from_revision; /* begin with the entry of this revision and all behind it */
    bool ignore_deletes;    /* no deletes and purges */
    bool meta_only;         /* entries without their value: it is NULL, value_size tells its size */

    /*
     * Of kvs_watch: bytes of entries that were received and not taken yet. More than one message's worth waits
     * only when the program does something else on the handle meanwhile. Beyond it the watch ends with
     * KVS_RESOURCE_EXHAUSTED behind those that wait. Default 8 MiB.
     */
    size_t max_queued_bytes;

    double timeout_s; /* of the calls that start it */
};

enum kvs_event_type {
    KVS_EVENT_NONE = 0, /* of kvs_watch_next: nothing has come in time */
    KVS_EVENT_ENTRY,    /* a key's entry: what is there, or a change */
    KVS_EVENT_READY,    /* what was there at the beginning has been told; once, also where there was nothing */
    KVS_EVENT_ENDED     /* nothing more will come; with the reason */
};

struct kvs_event {
    enum kvs_event_type type;
    const struct kvs_entry *entry; /* of KVS_EVENT_ENTRY, otherwise NULL */
    const struct kvs_error *error; /* of KVS_EVENT_ENDED, otherwise NULL. KVS_RESOURCE_EXHAUSTED: the program was too
                                    * slow; its revision is the from_revision to go on with */
};

/* Begins a watch, once the daemon has taken it. *watch is to be ended with kvs_watch_stop; NULL on failure. */
enum kvs_code kvs_watch(struct kvs *kvs, const char *bucket, const struct kvs_watch_options *options,
                        struct kvs_watch **watch);

/*
 * Waits for the next event of a watch that kvs_watch began, for at most timeout_s: 0 does not wait, a negative one
 * waits until there is one. What *event points to lives until the next kvs_watch_next or kvs_watch_stop on this watch.
 * KVS_OK also with KVS_EVENT_NONE and KVS_EVENT_ENDED, which comes again each time. KVS_INVALID_ARGUMENT from inside a
 * function that the library calls, for a watch of kvs_async_watch, and where a function has stopped the watch
 * meanwhile: then it is gone.
 * The socket is read only while no event of this watch waits: a program that takes none lets the daemon wait,
 * which ends the watch when it has watches.buffer_bytes for it, and the connection after limits.stall_timeout (30 s).
 */
enum kvs_code kvs_watch_next(struct kvs_watch *watch, double timeout_s, struct kvs_event *event);

/*
 * Ends a watch of either kind and frees it: no function of it is called any more, also for what has arrived. Every
 * watch is ended with it, those that have ended by themselves, too; kvs_close does it for those that are left.
 * It does not wait for the daemon, and may be called from inside the watch's own function. NULL is fine.
 */
void kvs_watch_stop(struct kvs_watch *watch);

/* Receives an event of a watch, from inside kvs_process, a blocking call or kvs_close. It lives until this returns. */
typedef void kvs_event_fn(struct kvs *kvs, struct kvs_watch *watch, const struct kvs_event *event, void *context);

/*
 * The asynchronous form. KVS_OK: the request waits for being sent; on_event will be called, also with why the daemon
 * did not take it (KVS_EVENT_ENDED). Otherwise it was refused, as other asynchronous calls are. watch may be NULL for a
 * caller who has it from on_event. max_queued_bytes does not count: nothing is queued.
 */
enum kvs_code kvs_async_watch(struct kvs *kvs, const char *bucket, const struct kvs_watch_options *options,
                              kvs_event_fn *on_event, void *context, struct kvs_watch **watch);

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
 * or over time, and those of watches. KVS_OK, also when single calls failed; KVS_IO or KVS_PROTOCOL when the
 * connection is lost or was so before: all calls in flight have ended. Where a watch is to go on it is opened
 * again here, at the time that kvs_timeout_ms tells.
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
