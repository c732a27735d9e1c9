/* The method kv.entries: a page of a bucket's entries. */
#include "client/lib/blocking.h"
#include "client/lib/deliver.h"

static void entries_build(struct kvs *kvs, const char *bucket, const struct kvs_entries_options *options)
{
    struct kvs_request *request = call_begin_of_bucket(kvs, "kv.entries", 1, bucket);
    struct kvs_entries_options own;

    request_copy_options(request, &own, sizeof(own), options);
    request_option_page(request, own.filter, own.limit, own.after, own.consistency);
    request->timeout_s = own.timeout_s;
}

enum kvs_code kvs_entries(struct kvs *kvs, const char *bucket, const struct kvs_entries_options *options,
                          struct kvs_entry **entries, size_t *count)
{
    *entries = NULL;
    *count = 0;
    entries_build(kvs, bucket, options);
    return blocking_run(kvs, reply_read_entries, &(struct reply_entries){entries, count});
}

enum kvs_code kvs_async_entries(struct kvs *kvs, const char *bucket, const struct kvs_entries_options *options,
                                kvs_entries_fn *done, void *context)
{
    entries_build(kvs, bucket, options);
    return call_submit(kvs, deliver_entries(done, context));
}
