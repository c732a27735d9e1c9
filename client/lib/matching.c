/* The option filter of bulk.delete and bucket.purge. */
#include "client/lib/blocking.h"
#include "client/lib/deliver.h"

static void matching_build(struct kvs *kvs, const char *method, const char *bucket, const char *filter,
                           const struct kvs_call_options *options)
{
    struct kvs_request *request = call_begin_of_bucket(kvs, method, 1, bucket);

    request->takes_no_id = true;
    request_copy_call_options(request, options);
    request_option(request, "filter");
    kvs_request_string(request, filter);
}

enum kvs_code kvs_delete_matching(struct kvs *kvs, const char *bucket, const char *filter,
                                  const struct kvs_call_options *options, uint64_t *count)
{
    matching_build(kvs, "bulk.delete", bucket, filter, options);
    return blocking_run(kvs, reply_read_count, count);
}

enum kvs_code kvs_async_delete_matching(struct kvs *kvs, const char *bucket, const char *filter,
                                        const struct kvs_call_options *options, kvs_count_fn *done, void *context)
{
    matching_build(kvs, "bulk.delete", bucket, filter, options);
    return call_submit(kvs, deliver_count(done, context));
}

enum kvs_code kvs_bucket_purge_matching(struct kvs *kvs, const char *bucket, const char *filter,
                                        const struct kvs_call_options *options, uint64_t *count)
{
    matching_build(kvs, "bucket.purge", bucket, filter, options);
    return blocking_run(kvs, reply_read_count, count);
}

enum kvs_code kvs_async_bucket_purge_matching(struct kvs *kvs, const char *bucket, const char *filter,
                                              const struct kvs_call_options *options, kvs_count_fn *done, void *context)
{
    matching_build(kvs, "bucket.purge", bucket, filter, options);
    return call_submit(kvs, deliver_count(done, context));
}
