/*
 * kvstore_admin: buckets and their settings, and the state of the daemon, in blocking and asynchronous form.
 *
 * Options, errors, memory and callbacks are as in kvstore.h and kvstore_async.h.
 */
#ifndef KVSTORE_ADMIN_H
#define KVSTORE_ADMIN_H

#include "kvstore.h"
#include "kvstore_async.h"
#include "kvstore_raw.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --- Settings of a bucket ------------------------------------------------------------------ */

enum kvs_storage { KVS_STORAGE_DEFAULT = 0, KVS_STORAGE_FILE, KVS_STORAGE_MEMORY };
enum kvs_switch { KVS_SWITCH_DEFAULT = 0, KVS_SWITCH_ON, KVS_SWITCH_OFF };

/* A bucket from which another one gets its entries. */
struct kvs_bucket_source {
    const char *bucket;
    const char *domain; /* its JetStream domain; NULL: ours */
    const char *filter; /* of the keys; NULL: all. Not of a mirror, which has the whole bucket */
};

/* In kvs_bucket_create 0 and NULL stand for the server's defaults, in kvs_bucket_update for "unchanged". */
struct kvs_bucket_options {
    size_t size;
    const char *description;
    unsigned history;       /* values kept per key, 1 to 64 */
    int64_t ttl_s;          /* values expire after this time; -1: never */
    int64_t max_value_size; /* bytes of one value; -1: no limit */
    int64_t max_bytes;      /* bytes of the bucket; -1: no limit */
    enum kvs_storage storage;
    unsigned replicas;
    enum kvs_switch compression;
    int64_t limit_marker_ttl_s; /* when values expire, leave markers that live so long; -1: none */
    int64_t marker_ttl_s;       /* the daemon removes the markers of deleted keys after this time; -1: never */

    const char *placement_cluster;
    const char *const *placement_tags;
    size_t placement_tag_count;

    const char *republish_destination; /* subject on which writes are published again */
    const char *republish_source;      /* … only if their own subject matches this filter; NULL: all */
    bool republish_headers_only;       /* … without the values */

    struct kvs_bucket_source mirror;         /* bucket that this one copies; its member bucket is NULL: none */
    const struct kvs_bucket_source *sources; /* buckets that this one gathers */
    size_t source_count;

    const struct kvs_header *metadata;
    size_t metadata_count;

    double timeout_s; /* of this call */

    bool force;  /* of kvs_bucket_update: apply settings that remove stored values at once; otherwise KVS_UNSUPPORTED */
    bool update; /* of kvs_bucket_create: if the bucket exists with other settings, change those that are given */
};
#define KVS_BUCKET_OPTIONS(...) KVS_SIZED_(kvs_bucket_options, __VA_ARGS__)

/* A bucket's state and settings; 0 stands for "no limit". One block with all that it points to. */
struct kvs_bucket_info {
    const char *bucket;
    const char *description; /* "" if there is none */
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

    const char *placement_cluster; /* NULL if none is set */
    const char *const *placement_tags;
    size_t placement_tag_count;

    const char *republish_destination; /* NULL if nothing is published again */
    const char *republish_source;
    bool republish_headers_only;

    struct kvs_bucket_source mirror; /* its member bucket is NULL if this is not a mirror */
    const struct kvs_bucket_source *sources;
    size_t source_count;

    const struct kvs_header *metadata;
    size_t metadata_count;

    const struct kvs_value *raw; /* the daemon's whole answer, with members that this version does not know */
};

/* --- Buckets ------------------------------------------------------------------------------- */

/* Create a bucket; KVS_ALREADY_EXISTS if it exists with other settings. info may be NULL. */
enum kvs_code kvs_bucket_create(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                struct kvs_bucket_info **info);

/* Change a bucket's settings, and upgrade a bucket that another client created. info may be NULL. */
enum kvs_code kvs_bucket_update(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                struct kvs_bucket_info **info);

/* Delete a bucket with all its keys. */
enum kvs_code kvs_bucket_delete(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options);

/* Remove all keys of a bucket. */
enum kvs_code kvs_bucket_purge(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options);

/* Purge all keys that match a filter, as kvs_delete_matching deletes them: their history ends, too. */
enum kvs_code kvs_bucket_purge_matching(struct kvs *kvs, const char *bucket, const char *filter,
                                        const struct kvs_call_options *options, uint64_t *count);

struct kvs_compact_options {
    size_t size;
    int64_t older_than_s; /* age of the markers; -1: any; 0: the bucket's marker_ttl, or 30 minutes if it has none */
    double timeout_s;
};
#define KVS_COMPACT_OPTIONS(...) KVS_SIZED_(kvs_compact_options, __VA_ARGS__)

/* Remove the markers of deleted keys. *removed (may be NULL) is their number. After KVS_DEADLINE_EXCEEDED call again.
 */
enum kvs_code kvs_bucket_compact(struct kvs *kvs, const char *bucket, const struct kvs_compact_options *options,
                                 uint64_t *removed);

/* Return a bucket's state and settings. */
enum kvs_code kvs_bucket_info(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                              struct kvs_bucket_info **info);

struct kvs_list_options {
    size_t size;
    const char *filter; /* of bucket names: "*" matches any characters, "?" one; NULL: all */
    double timeout_s;
    unsigned limit;    /* maximum number of buckets; 0: no limit, or 1,000 of kvs_bucket_list_infos */
    const char *after; /* only buckets after this one in byte order: the last one of the page before; NULL: all */
};
#define KVS_LIST_OPTIONS(...) KVS_SIZED_(kvs_list_options, __VA_ARGS__)

/* Return the names of the buckets: *names is an array of *count strings, one block. */
enum kvs_code kvs_bucket_list(struct kvs *kvs, const struct kvs_list_options *options, char ***names, size_t *count);

/*
 * Return the infos of buckets, up to 1,000: *infos is an array of maps as in kvs_bucket_info.raw. A bucket whose info
 * cannot be read has a map of bucket and error. Only an empty array means that there are no more.
 */
enum kvs_code kvs_bucket_list_infos(struct kvs *kvs, const struct kvs_list_options *options, struct kvs_value **infos);

/* --- The daemon ---------------------------------------------------------------------------- */
/* The results are trees (see kvstore_raw.h), because they grow with the daemon. */

/* Return the health of the daemon, and of a bucket unless bucket is NULL. Also answered without NATS. */
enum kvs_code kvs_health(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                         struct kvs_value **health);

/* Return the daemon's version and limits, and the NATS server's features. */
enum kvs_code kvs_daemon_info(struct kvs *kvs, const struct kvs_call_options *options, struct kvs_value **info);

/* Return counters and latency quantiles. */
enum kvs_code kvs_daemon_stats(struct kvs *kvs, const struct kvs_call_options *options, struct kvs_value **stats);

/* Return the daemon's metrics as a string, in the text format of OpenMetrics. */
enum kvs_code kvs_daemon_metrics(struct kvs *kvs, const struct kvs_call_options *options, struct kvs_value **text);

struct kvs_dump_options {
    size_t size;
    unsigned limit; /* items of each list, at most 1,000; 0: 100 */
    double timeout_s;
};
#define KVS_DUMP_OPTIONS(...) KVS_SIZED_(kvs_dump_options, __VA_ARGS__)

/* Return what the daemon is doing now: sessions, calls, requests, watches. Needs admin for all buckets. */
enum kvs_code kvs_daemon_dump(struct kvs *kvs, const struct kvs_dump_options *options, struct kvs_value **dump);

/* Return the configuration in effect, and where each value comes from. Needs admin for all buckets. */
enum kvs_code kvs_daemon_config(struct kvs *kvs, const struct kvs_call_options *options, struct kvs_value **config);

struct kvs_sessions_options {
    size_t size;
    const char *sort; /* "rate", "calls", "in_flight", "bytes", "traffic", "watches" or "age"; NULL: "rate" */
    unsigned limit;   /* sessions, at most 1,000; 0: 100 */
    double timeout_s;
};
#define KVS_SESSIONS_OPTIONS(...) KVS_SIZED_(kvs_sessions_options, __VA_ARGS__)

/* Return who is connected. Without admin for all buckets: the sessions of this user. */
enum kvs_code kvs_daemon_sessions(struct kvs *kvs, const struct kvs_sessions_options *options,
                                  struct kvs_value **sessions);

/* End the session with this id, of this user; of another one with admin for all buckets by an access rule. */
enum kvs_code kvs_daemon_kill_session(struct kvs *kvs, uint64_t session, const struct kvs_call_options *options);

/* --- Asynchronous forms -------------------------------------------------------------------- */

/* The call has ended. */
typedef void kvs_finished_fn(struct kvs *kvs, const struct kvs_error *error, void *context);

/* A bucket's state and settings. */
typedef void kvs_bucket_fn(struct kvs *kvs, const struct kvs_error *error, const struct kvs_bucket_info *info,
                           void *context);

enum kvs_code kvs_async_bucket_create(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                      kvs_bucket_fn *done, void *context);
enum kvs_code kvs_async_bucket_update(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                      kvs_bucket_fn *done, void *context);
enum kvs_code kvs_async_bucket_delete(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                                      kvs_finished_fn *done, void *context);
enum kvs_code kvs_async_bucket_purge(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                                     kvs_finished_fn *done, void *context);
enum kvs_code kvs_async_bucket_purge_matching(struct kvs *kvs, const char *bucket, const char *filter,
                                              const struct kvs_call_options *options, kvs_count_fn *done,
                                              void *context);
enum kvs_code kvs_async_bucket_compact(struct kvs *kvs, const char *bucket, const struct kvs_compact_options *options,
                                       kvs_count_fn *done, void *context);
enum kvs_code kvs_async_bucket_info(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                                    kvs_bucket_fn *done, void *context);
enum kvs_code kvs_async_bucket_list(struct kvs *kvs, const struct kvs_list_options *options, kvs_names_fn *done,
                                    void *context);
enum kvs_code kvs_async_bucket_list_infos(struct kvs *kvs, const struct kvs_list_options *options, kvs_value_fn *done,
                                          void *context);
enum kvs_code kvs_async_health(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                               kvs_value_fn *done, void *context);
enum kvs_code kvs_async_daemon_info(struct kvs *kvs, const struct kvs_call_options *options, kvs_value_fn *done,
                                    void *context);
enum kvs_code kvs_async_daemon_stats(struct kvs *kvs, const struct kvs_call_options *options, kvs_value_fn *done,
                                     void *context);
enum kvs_code kvs_async_daemon_metrics(struct kvs *kvs, const struct kvs_call_options *options, kvs_value_fn *done,
                                       void *context);
enum kvs_code kvs_async_daemon_dump(struct kvs *kvs, const struct kvs_dump_options *options, kvs_value_fn *done,
                                    void *context);
enum kvs_code kvs_async_daemon_config(struct kvs *kvs, const struct kvs_call_options *options, kvs_value_fn *done,
                                      void *context);
enum kvs_code kvs_async_daemon_sessions(struct kvs *kvs, const struct kvs_sessions_options *options, kvs_value_fn *done,
                                        void *context);
enum kvs_code kvs_async_daemon_kill_session(struct kvs *kvs, uint64_t session, const struct kvs_call_options *options,
                                            kvs_finished_fn *done, void *context);

#ifdef __cplusplus
}
#endif

#endif
