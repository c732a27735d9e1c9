/* The methods bucket.*: each has one function that builds its request, and its two faces. */
#include "client/lib/blocking.h"

static struct kvs_request *begin_bucket(struct kvs *kvs, const char *method, const char *bucket)
{
    struct kvs_request *request = call_begin(kvs, method, 1);

    kvs_request_string(request, bucket);
    return request;
}

/* --- Settings ------------------------------------------------------------------------------ */

static void add_placement(struct kvs_request *request, const struct kvs_bucket_options *options)
{
    if (options->placement_cluster == NULL && options->placement_tag_count == 0)
        return;
    request_option(request, "placement");
    kvs_request_map(request, (options->placement_cluster != NULL) + (size_t)(options->placement_tag_count > 0));
    if (options->placement_cluster != NULL) {
        kvs_request_string(request, "cluster");
        kvs_request_string(request, options->placement_cluster);
    }
    if (options->placement_tag_count > 0) {
        kvs_request_string(request, "tags");
        kvs_request_array(request, options->placement_tag_count);
        for (size_t i = 0; i < options->placement_tag_count; i++)
            kvs_request_string(request, options->placement_tags[i]);
    }
}

static void add_republish(struct kvs_request *request, const struct kvs_bucket_options *options)
{
    /* Without a destination the daemon says what is missing. */
    if (options->republish_destination == NULL && options->republish_source == NULL && !options->republish_headers_only)
        return;
    request_option(request, "republish");
    kvs_request_map(request,
                    1u + (options->republish_source != NULL) + (size_t)(options->republish_destination != NULL));
    if (options->republish_source != NULL) {
        kvs_request_string(request, "source");
        kvs_request_string(request, options->republish_source);
    }
    if (options->republish_destination != NULL) {
        kvs_request_string(request, "destination");
        kvs_request_string(request, options->republish_destination);
    }
    kvs_request_string(request, "headers_only");
    kvs_request_boolean(request, options->republish_headers_only);
}

static void add_source(struct kvs_request *request, const struct kvs_bucket_source *source)
{
    kvs_request_map(request, 1 + (size_t)(source->domain != NULL) + (source->filter != NULL));
    kvs_request_string(request, "bucket");
    kvs_request_string(request, source->bucket);
    if (source->domain != NULL) {
        kvs_request_string(request, "domain");
        kvs_request_string(request, source->domain);
    }
    if (source->filter != NULL) {
        kvs_request_string(request, "filter");
        kvs_request_string(request, source->filter);
    }
}

static void add_mirror_and_sources(struct kvs_request *request, const struct kvs_bucket_options *options)
{
    if (options->mirror.bucket != NULL) {
        request_option(request, "mirror");
        add_source(request, &options->mirror);
    }
    if (options->source_count == 0)
        return;
    request_option(request, "sources");
    kvs_request_array(request, options->source_count);
    for (size_t i = 0; i < options->source_count; i++)
        add_source(request, &options->sources[i]);
}

/* Seconds on the wire have no -1: there 0 is for ever. */
static void add_seconds(struct kvs_request *request, const char *name, int64_t seconds)
{
    if (seconds == -1) {
        request_option(request, name);
        kvs_request_integer(request, 0);
    } else {
        request_option_integer(request, name, seconds);
    }
}

static void build_settings(struct kvs *kvs, const char *method, const char *bucket,
                           const struct kvs_bucket_options *options)
{
    struct kvs_request *request = begin_bucket(kvs, method, bucket);

    if (options == NULL)
        return;
    request_option_string(request, "description", options->description);
    request_option_unsigned(request, "history", options->history);
    add_seconds(request, "ttl", options->ttl_s);
    request_option_integer(request, "max_value_size", options->max_value_size);
    request_option_integer(request, "max_bytes", options->max_bytes);
    if (options->storage != KVS_STORAGE_DEFAULT)
        request_option_string(request, "storage", options->storage == KVS_STORAGE_MEMORY ? "memory" : "file");
    request_option_unsigned(request, "replicas", options->replicas);
    if (options->compression != KVS_SWITCH_DEFAULT) {
        request_option(request, "compression");
        kvs_request_boolean(request, options->compression == KVS_SWITCH_ON);
    }
    add_seconds(request, "limit_marker_ttl", options->limit_marker_ttl_s);
    add_seconds(request, "marker_ttl", options->marker_ttl_s);
    add_placement(request, options);
    add_republish(request, options);
    add_mirror_and_sources(request, options);
    request_option_headers(request, "metadata", options->metadata, options->metadata_count);
}

static enum kvs_code run_info(struct kvs *kvs, double timeout_s, struct kvs_bucket_info **info)
{
    if (info != NULL)
        *info = NULL;
    return blocking_run(kvs, timeout_s, reply_read_bucket_info, info);
}

enum kvs_code kvs_bucket_create(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                struct kvs_bucket_info **info)
{
    build_settings(kvs, "bucket.create", bucket, options);
    return run_info(kvs, CALL_TIMEOUT(options), info);
}

enum kvs_code kvs_async_bucket_create(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                      kvs_done_fn *done, void *context)
{
    build_settings(kvs, "bucket.create", bucket, options);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

enum kvs_code kvs_bucket_update(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                struct kvs_bucket_info **info)
{
    build_settings(kvs, "bucket.update", bucket, options);
    return run_info(kvs, CALL_TIMEOUT(options), info);
}

enum kvs_code kvs_async_bucket_update(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                      kvs_done_fn *done, void *context)
{
    build_settings(kvs, "bucket.update", bucket, options);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

/* --- Whole buckets --------------------------------------------------------------------------- */

enum kvs_code kvs_bucket_delete(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options)
{
    begin_bucket(kvs, "bucket.delete", bucket);
    return blocking_run(kvs, CALL_TIMEOUT(options), NULL, NULL);
}

enum kvs_code kvs_async_bucket_delete(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                                      kvs_done_fn *done, void *context)
{
    begin_bucket(kvs, "bucket.delete", bucket);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

enum kvs_code kvs_bucket_purge(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options)
{
    begin_bucket(kvs, "bucket.purge", bucket);
    return blocking_run(kvs, CALL_TIMEOUT(options), NULL, NULL);
}

enum kvs_code kvs_async_bucket_purge(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                                     kvs_done_fn *done, void *context)
{
    begin_bucket(kvs, "bucket.purge", bucket);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

static void build_compact(struct kvs *kvs, const char *bucket, const struct kvs_compact_options *options)
{
    struct kvs_request *request = begin_bucket(kvs, "bucket.compact", bucket);

    if (options != NULL)
        add_seconds(request, "older_than", options->older_than_s);
}

enum kvs_code kvs_bucket_compact(struct kvs *kvs, const char *bucket, const struct kvs_compact_options *options,
                                 uint64_t *removed)
{
    if (removed != NULL)
        *removed = 0;
    build_compact(kvs, bucket, options);
    return blocking_run(kvs, CALL_TIMEOUT(options), reply_read_count, removed);
}

enum kvs_code kvs_async_bucket_compact(struct kvs *kvs, const char *bucket, const struct kvs_compact_options *options,
                                       kvs_done_fn *done, void *context)
{
    build_compact(kvs, bucket, options);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

enum kvs_code kvs_bucket_info(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                              struct kvs_bucket_info **info)
{
    begin_bucket(kvs, "bucket.info", bucket);
    return run_info(kvs, CALL_TIMEOUT(options), info);
}

enum kvs_code kvs_async_bucket_info(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                                    kvs_done_fn *done, void *context)
{
    begin_bucket(kvs, "bucket.info", bucket);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

static void build_list(struct kvs *kvs, const struct kvs_list_options *options)
{
    struct kvs_request *request = call_begin(kvs, "bucket.list", 0);

    if (options != NULL)
        request_option_string(request, "filter", options->filter);
}

enum kvs_code kvs_bucket_list(struct kvs *kvs, const struct kvs_list_options *options, char ***names, size_t *count)
{
    *names = NULL;
    *count = 0;
    build_list(kvs, options);
    return blocking_run(kvs, CALL_TIMEOUT(options), reply_read_strings, &(struct reply_strings){names, count});
}

enum kvs_code kvs_async_bucket_list(struct kvs *kvs, const struct kvs_list_options *options, kvs_done_fn *done,
                                    void *context)
{
    build_list(kvs, options);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}
