/* The methods kv.*: each has one function that builds its request, and a blocking and an asynchronous form. */
#include "client/lib/blocking.h"
#include "client/lib/deliver.h"

static struct kvs_request *kv_begin(struct kvs *kvs, const char *method, unsigned positions, const char *bucket,
                                    const char *key)
{
    struct kvs_request *request = call_begin(kvs, method, positions);

    kvs_request_string(request, bucket);
    kvs_request_string(request, key);
    return request;
}

/* --- Reading ------------------------------------------------------------------------------- */

static void kv_build_get(struct kvs *kvs, const char *method, const char *bucket, const char *key,
                         const struct kvs_get_options *options)
{
    struct kvs_request *request = kv_begin(kvs, method, 2, bucket, key);
    struct kvs_get_options own;

    request_copy_options(request, &own, sizeof(own), options);
    request_option_unsigned(request, "revision", own.revision);
    request_option_consistency(request, own.consistency);
    if (own.waits) {
        request_option(request, "wait_above");
        kvs_request_unsigned(request, own.wait_above);
    }
    request->timeout_s = own.timeout_s;
}

enum kvs_code kvs_get(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_get_options *options,
                      struct kvs_entry **entry)
{
    *entry = NULL;
    kv_build_get(kvs, "kv.get", bucket, key, options);
    return blocking_run(kvs, reply_read_entry, entry);
}

enum kvs_code kvs_async_get(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_get_options *options,
                            kvs_entry_fn *done, void *context)
{
    kv_build_get(kvs, "kv.get", bucket, key, options);
    return call_submit(kvs, deliver_entry(done, context));
}

enum kvs_code kvs_get_json(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_get_options *options,
                           char **json)
{
    *json = NULL;
    kv_build_get(kvs, "kv.get_json", bucket, key, options);
    return blocking_run(kvs, reply_read_json, json);
}

enum kvs_code kvs_async_get_json(struct kvs *kvs, const char *bucket, const char *key,
                                 const struct kvs_get_options *options, kvs_json_fn *done, void *context)
{
    kv_build_get(kvs, "kv.get_json", bucket, key, options);
    return call_submit(kvs, deliver_json(done, context));
}

static void kv_build_history(struct kvs *kvs, const char *bucket, const char *key,
                             const struct kvs_call_options *options)
{
    request_copy_call_options(kv_begin(kvs, "kv.history", 2, bucket, key), options);
}

enum kvs_code kvs_history(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_call_options *options,
                          struct kvs_entry **entries, size_t *count)
{
    *entries = NULL;
    *count = 0;
    kv_build_history(kvs, bucket, key, options);
    return blocking_run(kvs, reply_read_entries, &(struct reply_entries){entries, count});
}

enum kvs_code kvs_async_history(struct kvs *kvs, const char *bucket, const char *key,
                                const struct kvs_call_options *options, kvs_entries_fn *done, void *context)
{
    kv_build_history(kvs, bucket, key, options);
    return call_submit(kvs, deliver_entries(done, context));
}

static void kv_build_keys(struct kvs *kvs, const char *bucket, const struct kvs_keys_options *options)
{
    struct kvs_request *request = call_begin(kvs, "kv.keys", 1);
    struct kvs_keys_options own;

    kvs_request_string(request, bucket);
    request_copy_options(request, &own, sizeof(own), options);
    request_option_string(request, "filter", own.filter);
    request_option_unsigned(request, "limit", own.limit);
    request_option_string(request, "after", own.after);
    request_option_consistency(request, own.consistency);
    request->timeout_s = own.timeout_s;
}

enum kvs_code kvs_keys(struct kvs *kvs, const char *bucket, const struct kvs_keys_options *options, char ***keys,
                       size_t *count)
{
    *keys = NULL;
    *count = 0;
    kv_build_keys(kvs, bucket, options);
    return blocking_run(kvs, reply_read_strings, &(struct reply_strings){keys, count});
}

enum kvs_code kvs_async_keys(struct kvs *kvs, const char *bucket, const struct kvs_keys_options *options,
                             kvs_names_fn *done, void *context)
{
    kv_build_keys(kvs, bucket, options);
    return call_submit(kvs, deliver_names(done, context));
}

/* --- Writing ------------------------------------------------------------------------------- */

static void kv_add_put_options(struct kvs_request *request, const struct kvs_put_options *options)
{
    struct kvs_put_options own;

    request_copy_options(request, &own, sizeof(own), options);
    request_option_integer(request, "ttl", own.ttl_s);
    request_option_boolean(request, "keep_ttl", own.keep_ttl); /* kv.create has none: the daemon refuses it */
    request_option_headers(request, "headers", own.headers, own.header_count);
    request->timeout_s = own.timeout_s;
}

static void kv_build_put(struct kvs *kvs, const char *method, const char *bucket, const char *key, const void *value,
                         size_t value_size, const struct kvs_put_options *options)
{
    struct kvs_request *request = kv_begin(kvs, method, 3, bucket, key);

    kvs_request_binary(request, value, value_size);
    kv_add_put_options(request, options);
}

static void kv_build_update(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                            uint64_t expected, const struct kvs_put_options *options)
{
    struct kvs_request *request = kv_begin(kvs, "kv.update", 4, bucket, key);

    kvs_request_binary(request, value, value_size);
    kvs_request_unsigned(request, expected);
    kv_add_put_options(request, options);
}

enum kvs_code kvs_put(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                      const struct kvs_put_options *options, uint64_t *revision)
{
    kv_build_put(kvs, "kv.put", bucket, key, value, value_size, options);
    return blocking_run(kvs, reply_read_revision, revision);
}

enum kvs_code kvs_async_put(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                            const struct kvs_put_options *options, kvs_revision_fn *done, void *context)
{
    kv_build_put(kvs, "kv.put", bucket, key, value, value_size, options);
    return call_submit(kvs, deliver_revision(done, context));
}

enum kvs_code kvs_create(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                         const struct kvs_put_options *options, uint64_t *revision)
{
    kv_build_put(kvs, "kv.create", bucket, key, value, value_size, options);
    return blocking_run(kvs, reply_read_revision, revision);
}

enum kvs_code kvs_async_create(struct kvs *kvs, const char *bucket, const char *key, const void *value,
                               size_t value_size, const struct kvs_put_options *options, kvs_revision_fn *done,
                               void *context)
{
    kv_build_put(kvs, "kv.create", bucket, key, value, value_size, options);
    return call_submit(kvs, deliver_revision(done, context));
}

enum kvs_code kvs_update(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                         uint64_t expected, const struct kvs_put_options *options, uint64_t *revision)
{
    kv_build_update(kvs, bucket, key, value, value_size, expected, options);
    return blocking_run(kvs, reply_read_revision, revision);
}

enum kvs_code kvs_async_update(struct kvs *kvs, const char *bucket, const char *key, const void *value,
                               size_t value_size, uint64_t expected, const struct kvs_put_options *options,
                               kvs_revision_fn *done, void *context)
{
    kv_build_update(kvs, bucket, key, value, value_size, expected, options);
    return call_submit(kvs, deliver_revision(done, context));
}

/* kv.delete has no option ttl, and kv.purge no if_exists: the daemon refuses them as unknown. */
static void kv_build_delete(struct kvs *kvs, const char *method, const char *bucket, const char *key,
                            const struct kvs_delete_options *options)
{
    struct kvs_request *request = kv_begin(kvs, method, 2, bucket, key);
    struct kvs_delete_options own;

    request_copy_options(request, &own, sizeof(own), options);
    request_option_unsigned(request, "revision", own.revision);
    request_option_integer(request, "ttl", own.ttl_s);
    if (own.if_exists)
        request_option_boolean(request, "if_exists", true);
    request->timeout_s = own.timeout_s;
}

enum kvs_code kvs_delete(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_delete_options *options,
                         uint64_t *revision)
{
    kv_build_delete(kvs, "kv.delete", bucket, key, options);
    return blocking_run(kvs, reply_read_revision, revision);
}

enum kvs_code kvs_async_delete(struct kvs *kvs, const char *bucket, const char *key,
                               const struct kvs_delete_options *options, kvs_revision_fn *done, void *context)
{
    kv_build_delete(kvs, "kv.delete", bucket, key, options);
    return call_submit(kvs, deliver_revision(done, context));
}

enum kvs_code kvs_purge(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_delete_options *options,
                        uint64_t *revision)
{
    kv_build_delete(kvs, "kv.purge", bucket, key, options);
    return blocking_run(kvs, reply_read_revision, revision);
}

enum kvs_code kvs_async_purge(struct kvs *kvs, const char *bucket, const char *key,
                              const struct kvs_delete_options *options, kvs_revision_fn *done, void *context)
{
    kv_build_delete(kvs, "kv.purge", bucket, key, options);
    return call_submit(kvs, deliver_revision(done, context));
}
