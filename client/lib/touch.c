/* kv.touch. */
#include "client/lib/blocking.h"
#include "client/lib/deliver.h"
#include "client/lib/reply.h"

static void touch_build(struct kvs *kvs, const char *bucket, const char *key, int64_t ttl_s,
                        const struct kvs_touch_options *options)
{
    struct kvs_request *request = call_begin_of_key(kvs, "kv.touch", 3, bucket, key);
    struct kvs_touch_options own;

    kvs_request_integer(request, ttl_s);
    request_copy_options(request, &own, sizeof(own), options);
    request_option_unsigned(request, "revision", own.revision);
    request->timeout_s = own.timeout_s;
}

enum kvs_code kvs_touch(struct kvs *kvs, const char *bucket, const char *key, int64_t ttl_s,
                        const struct kvs_touch_options *options, uint64_t *revision)
{
    touch_build(kvs, bucket, key, ttl_s, options);
    return blocking_run(kvs, reply_read_revision, revision);
}

enum kvs_code kvs_async_touch(struct kvs *kvs, const char *bucket, const char *key, int64_t ttl_s,
                              const struct kvs_touch_options *options, kvs_revision_fn *done, void *context)
{
    touch_build(kvs, bucket, key, ttl_s, options);
    return call_submit(kvs, deliver_revision(done, context));
}
