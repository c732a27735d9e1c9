/* The methods kv.*: each has one function that builds its request, and its two faces. */
#include "client/lib/blocking.h"

static struct kvs_request *begin_keyed(struct kvs *kvs, const char *method, unsigned positions, const char *bucket,
                                       const char *key)
{
    struct kvs_request *request = call_begin(kvs, method, positions);

    kvs_request_string(request, bucket);
    kvs_request_string(request, key);
    return request;
}

/* --- Reading ------------------------------------------------------------------------------- */

static void build_get(struct kvs *kvs, const char *method, const char *bucket, const char *key,
                      const struct kvs_get_options *options)
{
    struct kvs_request *request = begin_keyed(kvs, method, 2, bucket, key);

    if (options == NULL)
        return;
    request_option_unsigned(request, "revision", options->revision);
    request_option_consistency(request, options->consistency);
}

enum kvs_code kvs_get(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_get_options *options,
                      struct kvs_entry **entry)
{
    *entry = NULL;
    build_get(kvs, "kv.get", bucket, key, options);
    return blocking_run(kvs, CALL_TIMEOUT(options), reply_read_entry, entry);
}

enum kvs_code kvs_async_get(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_get_options *options,
                            kvs_done_fn *done, void *context)
{
    build_get(kvs, "kv.get", bucket, key, options);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

enum kvs_code kvs_get_json(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_get_options *options,
                           char **json)
{
    *json = NULL;
    build_get(kvs, "kv.get_json", bucket, key, options);
    return blocking_run(kvs, CALL_TIMEOUT(options), reply_read_json, json);
}

enum kvs_code kvs_async_get_json(struct kvs *kvs, const char *bucket, const char *key,
                                 const struct kvs_get_options *options, kvs_done_fn *done, void *context)
{
    build_get(kvs, "kv.get_json", bucket, key, options);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

enum kvs_code kvs_history(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_call_options *options,
                          struct kvs_entry **entries, size_t *count)
{
    *entries = NULL;
    *count = 0;
    begin_keyed(kvs, "kv.history", 2, bucket, key);
    return blocking_run(kvs, CALL_TIMEOUT(options), reply_read_entries, &(struct reply_entries){entries, count});
}

enum kvs_code kvs_async_history(struct kvs *kvs, const char *bucket, const char *key,
                                const struct kvs_call_options *options, kvs_done_fn *done, void *context)
{
    begin_keyed(kvs, "kv.history", 2, bucket, key);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

static void build_keys(struct kvs *kvs, const char *bucket, const struct kvs_keys_options *options)
{
    struct kvs_request *request = call_begin(kvs, "kv.keys", 1);

    kvs_request_string(request, bucket);
    if (options == NULL)
        return;
    request_option_string(request, "filter", options->filter);
    request_option_unsigned(request, "limit", options->limit);
    request_option_string(request, "after", options->after);
    request_option_consistency(request, options->consistency);
}

enum kvs_code kvs_keys(struct kvs *kvs, const char *bucket, const struct kvs_keys_options *options, char ***keys,
                       size_t *count)
{
    *keys = NULL;
    *count = 0;
    build_keys(kvs, bucket, options);
    return blocking_run(kvs, CALL_TIMEOUT(options), reply_read_strings, &(struct reply_strings){keys, count});
}

enum kvs_code kvs_async_keys(struct kvs *kvs, const char *bucket, const struct kvs_keys_options *options,
                             kvs_done_fn *done, void *context)
{
    build_keys(kvs, bucket, options);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

/* --- Writing ------------------------------------------------------------------------------- */

static void add_put_options(struct kvs_request *request, const struct kvs_put_options *options)
{
    if (options == NULL)
        return;
    request_option_integer(request, "ttl", options->ttl_s);
    request_option_headers(request, "headers", options->headers, options->header_count);
}

static void build_put(struct kvs *kvs, const char *method, const char *bucket, const char *key, const void *value,
                      size_t value_size, const struct kvs_put_options *options)
{
    struct kvs_request *request = begin_keyed(kvs, method, 3, bucket, key);

    kvs_request_binary(request, value, value_size);
    add_put_options(request, options);
}

static void build_update(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                         uint64_t expected, const struct kvs_put_options *options)
{
    struct kvs_request *request = begin_keyed(kvs, "kv.update", 4, bucket, key);

    kvs_request_binary(request, value, value_size);
    kvs_request_unsigned(request, expected);
    add_put_options(request, options);
}

enum kvs_code kvs_put(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                      const struct kvs_put_options *options, uint64_t *revision)
{
    build_put(kvs, "kv.put", bucket, key, value, value_size, options);
    return blocking_run(kvs, CALL_TIMEOUT(options), reply_read_revision, revision);
}

enum kvs_code kvs_async_put(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                            const struct kvs_put_options *options, kvs_done_fn *done, void *context)
{
    build_put(kvs, "kv.put", bucket, key, value, value_size, options);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

enum kvs_code kvs_create(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                         const struct kvs_put_options *options, uint64_t *revision)
{
    build_put(kvs, "kv.create", bucket, key, value, value_size, options);
    return blocking_run(kvs, CALL_TIMEOUT(options), reply_read_revision, revision);
}

enum kvs_code kvs_async_create(struct kvs *kvs, const char *bucket, const char *key, const void *value,
                               size_t value_size, const struct kvs_put_options *options, kvs_done_fn *done,
                               void *context)
{
    build_put(kvs, "kv.create", bucket, key, value, value_size, options);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

enum kvs_code kvs_update(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                         uint64_t expected, const struct kvs_put_options *options, uint64_t *revision)
{
    build_update(kvs, bucket, key, value, value_size, expected, options);
    return blocking_run(kvs, CALL_TIMEOUT(options), reply_read_revision, revision);
}

enum kvs_code kvs_async_update(struct kvs *kvs, const char *bucket, const char *key, const void *value,
                               size_t value_size, uint64_t expected, const struct kvs_put_options *options,
                               kvs_done_fn *done, void *context)
{
    build_update(kvs, bucket, key, value, value_size, expected, options);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

/* kv.delete has no ttl: the daemon refuses one as an unknown option. */
static void build_delete(struct kvs *kvs, const char *method, const char *bucket, const char *key,
                         const struct kvs_delete_options *options)
{
    struct kvs_request *request = begin_keyed(kvs, method, 2, bucket, key);

    if (options == NULL)
        return;
    request_option_unsigned(request, "revision", options->revision);
    request_option_integer(request, "ttl", options->ttl_s);
}

enum kvs_code kvs_delete(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_delete_options *options,
                         uint64_t *revision)
{
    build_delete(kvs, "kv.delete", bucket, key, options);
    return blocking_run(kvs, CALL_TIMEOUT(options), reply_read_revision, revision);
}

enum kvs_code kvs_async_delete(struct kvs *kvs, const char *bucket, const char *key,
                               const struct kvs_delete_options *options, kvs_done_fn *done, void *context)
{
    build_delete(kvs, "kv.delete", bucket, key, options);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

enum kvs_code kvs_purge(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_delete_options *options,
                        uint64_t *revision)
{
    build_delete(kvs, "kv.purge", bucket, key, options);
    return blocking_run(kvs, CALL_TIMEOUT(options), reply_read_revision, revision);
}

enum kvs_code kvs_async_purge(struct kvs *kvs, const char *bucket, const char *key,
                              const struct kvs_delete_options *options, kvs_done_fn *done, void *context)
{
    build_delete(kvs, "kv.purge", bucket, key, options);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}
