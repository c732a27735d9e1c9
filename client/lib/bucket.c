/* The methods bucket.*: each has one function that builds its request, and a blocking and an asynchronous form. */
#include "client/lib/blocking.h"
#include "client/lib/deliver.h"

#include <string.h>

/* --- Settings ------------------------------------------------------------------------------ */

static void bucket_add_placement(struct kvs_request *request, const struct kvs_bucket_options *options)
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

static void bucket_add_republish(struct kvs_request *request, const struct kvs_bucket_options *options)
{
    /* Without a destination the daemon reports what is missing. */
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

static void bucket_add_source(struct kvs_request *request, const struct kvs_bucket_source *source)
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

static void bucket_add_mirror_and_sources(struct kvs_request *request, const struct kvs_bucket_options *options)
{
    if (options->mirror.bucket != NULL) {
        request_option(request, "mirror");
        bucket_add_source(request, &options->mirror);
    }
    if (options->source_count == 0)
        return;
    request_option(request, "sources");
    kvs_request_array(request, options->source_count);
    for (size_t i = 0; i < options->source_count; i++)
        bucket_add_source(request, &options->sources[i]);
}

/* The protocol has no -1 for "never" or "none": there it is 0. */
static void bucket_add_seconds(struct kvs_request *request, const char *name, int64_t seconds)
{
    if (seconds == -1) {
        request_option(request, name);
        kvs_request_integer(request, 0);
    } else {
        request_option_integer(request, name, seconds);
    }
}

static void bucket_build_settings(struct kvs *kvs, const char *method, const char *bucket,
                                  const struct kvs_bucket_options *options)
{
    struct kvs_request *request = call_begin_of_bucket(kvs, method, 1, bucket);
    struct kvs_bucket_options own;

    request_copy_options(request, &own, sizeof(own), options);
    request_option_string(request, "description", own.description);
    request_option_unsigned(request, "history", own.history);
    bucket_add_seconds(request, "ttl", own.ttl_s);
    request_option_integer(request, "max_value_size", own.max_value_size);
    request_option_integer(request, "max_bytes", own.max_bytes);
    if (own.storage != KVS_STORAGE_DEFAULT)
        request_option_string(request, "storage", own.storage == KVS_STORAGE_MEMORY ? "memory" : "file");
    request_option_unsigned(request, "replicas", own.replicas);
    if (own.compression != KVS_SWITCH_DEFAULT) {
        request_option(request, "compression");
        kvs_request_boolean(request, own.compression == KVS_SWITCH_ON);
    }
    bucket_add_seconds(request, "limit_marker_ttl", own.limit_marker_ttl_s);
    bucket_add_seconds(request, "marker_ttl", own.marker_ttl_s);
    bucket_add_placement(request, &own);
    bucket_add_republish(request, &own);
    bucket_add_mirror_and_sources(request, &own);
    request_option_headers(request, "metadata", own.metadata, own.metadata_count);
    bool is_create = strcmp(method, "bucket.create") == 0;
    request_option_boolean(request, "update", own.update && is_create);
    request_option_boolean(request, "force", own.force && (!is_create || own.update));
    request->timeout_s = own.timeout_s;
}

static enum kvs_code bucket_run_info(struct kvs *kvs, struct kvs_bucket_info **info)
{
    if (info != NULL)
        *info = NULL;
    return blocking_run(kvs, reply_read_bucket_info, info);
}

enum kvs_code kvs_bucket_create(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                struct kvs_bucket_info **info)
{
    bucket_build_settings(kvs, "bucket.create", bucket, options);
    return bucket_run_info(kvs, info);
}

enum kvs_code kvs_async_bucket_create(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                      kvs_bucket_fn *done, void *context)
{
    bucket_build_settings(kvs, "bucket.create", bucket, options);
    return call_submit(kvs, deliver_bucket_info(done, context));
}

enum kvs_code kvs_bucket_update(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                struct kvs_bucket_info **info)
{
    bucket_build_settings(kvs, "bucket.update", bucket, options);
    return bucket_run_info(kvs, info);
}

enum kvs_code kvs_async_bucket_update(struct kvs *kvs, const char *bucket, const struct kvs_bucket_options *options,
                                      kvs_bucket_fn *done, void *context)
{
    bucket_build_settings(kvs, "bucket.update", bucket, options);
    return call_submit(kvs, deliver_bucket_info(done, context));
}

/* --- Whole buckets --------------------------------------------------------------------------- */

static void bucket_build(struct kvs *kvs, const char *method, const char *bucket,
                         const struct kvs_call_options *options)
{
    request_copy_call_options(call_begin_of_bucket(kvs, method, 1, bucket), options);
}

enum kvs_code kvs_bucket_delete(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options)
{
    bucket_build(kvs, "bucket.delete", bucket, options);
    return blocking_run(kvs, NULL, NULL);
}

enum kvs_code kvs_async_bucket_delete(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                                      kvs_finished_fn *done, void *context)
{
    bucket_build(kvs, "bucket.delete", bucket, options);
    return call_submit(kvs, deliver_nothing(done, context));
}

enum kvs_code kvs_bucket_purge(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options)
{
    bucket_build(kvs, "bucket.purge", bucket, options);
    return blocking_run(kvs, NULL, NULL);
}

enum kvs_code kvs_async_bucket_purge(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                                     kvs_finished_fn *done, void *context)
{
    bucket_build(kvs, "bucket.purge", bucket, options);
    return call_submit(kvs, deliver_nothing(done, context));
}

static void bucket_build_compact(struct kvs *kvs, const char *bucket, const struct kvs_compact_options *options)
{
    struct kvs_request *request = call_begin_of_bucket(kvs, "bucket.compact", 1, bucket);
    struct kvs_compact_options own;

    request_copy_options(request, &own, sizeof(own), options);
    bucket_add_seconds(request, "older_than", own.older_than_s);
    request->timeout_s = own.timeout_s;
}

enum kvs_code kvs_bucket_compact(struct kvs *kvs, const char *bucket, const struct kvs_compact_options *options,
                                 uint64_t *removed)
{
    if (removed != NULL)
        *removed = 0;
    bucket_build_compact(kvs, bucket, options);
    return blocking_run(kvs, reply_read_count, removed);
}

enum kvs_code kvs_async_bucket_compact(struct kvs *kvs, const char *bucket, const struct kvs_compact_options *options,
                                       kvs_count_fn *done, void *context)
{
    bucket_build_compact(kvs, bucket, options);
    return call_submit(kvs, deliver_count(done, context));
}

enum kvs_code kvs_bucket_info(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                              struct kvs_bucket_info **info)
{
    bucket_build(kvs, "bucket.info", bucket, options);
    return bucket_run_info(kvs, info);
}

enum kvs_code kvs_async_bucket_info(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                                    kvs_bucket_fn *done, void *context)
{
    bucket_build(kvs, "bucket.info", bucket, options);
    return call_submit(kvs, deliver_bucket_info(done, context));
}

static void bucket_build_list(struct kvs *kvs, const struct kvs_list_options *options, bool has_infos)
{
    struct kvs_request *request = call_begin(kvs, "bucket.list", 0);
    struct kvs_list_options own;

    request_copy_options(request, &own, sizeof(own), options);
    request_option_string(request, "filter", own.filter);
    request_option_unsigned(request, "limit", own.limit);
    request_option_string(request, "after", own.after);
    request_option_boolean(request, "infos", has_infos);
    request->timeout_s = own.timeout_s;
}

enum kvs_code kvs_bucket_list(struct kvs *kvs, const struct kvs_list_options *options, char ***names, size_t *count)
{
    *names = NULL;
    *count = 0;
    bucket_build_list(kvs, options, false);
    return blocking_run(kvs, reply_read_strings, &(struct reply_strings){names, count});
}

enum kvs_code kvs_async_bucket_list(struct kvs *kvs, const struct kvs_list_options *options, kvs_names_fn *done,
                                    void *context)
{
    bucket_build_list(kvs, options, false);
    return call_submit(kvs, deliver_names(done, context));
}

enum kvs_code kvs_bucket_list_infos(struct kvs *kvs, const struct kvs_list_options *options, struct kvs_value **infos)
{
    *infos = NULL;
    bucket_build_list(kvs, options, true);
    return blocking_run(kvs, reply_read_list, infos);
}

enum kvs_code kvs_async_bucket_list_infos(struct kvs *kvs, const struct kvs_list_options *options, kvs_value_fn *done,
                                          void *context)
{
    bucket_build_list(kvs, options, true);
    return call_submit(kvs, deliver_value(done, context));
}
