/* kv.increment: the call, and its result of two numbers. */
#include "client/lib/blocking.h"
#include "client/lib/deliver.h"
#include "client/lib/reply.h"

struct increment_result {
    int64_t *value;     /* NULL: not wanted */
    uint64_t *revision; /* NULL: not wanted */
};

static enum kvs_code increment_read_result(const struct kvs_value *result, void *out)
{
    const struct increment_result *wanted = out;
    const struct kvs_value *value = kvs_value_item(result, 0);
    uint64_t revision = kvs_value_unsigned(kvs_value_item(result, 1));

    if (kvs_value_type(result) != KVS_ARRAY || kvs_value_type(value) != KVS_INTEGER || revision == 0)
        return KVS_PROTOCOL;
    if (wanted->value != NULL)
        *wanted->value = kvs_value_integer(value);
    if (wanted->revision != NULL)
        *wanted->revision = revision;
    return KVS_OK;
}

static void increment_deliver(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                              const struct kvs_value *result)
{
    struct kvs_error failure;
    uint64_t revision = 0;
    int64_t value = 0;

    if (error == NULL)
        error = reply_read(increment_read_result, result, &(struct increment_result){&value, &revision}, &failure);
    ((kvs_increment_fn *)receiver->function)(kvs, error, value, revision, receiver->context);
}

static void increment_build(struct kvs *kvs, const char *bucket, const char *key, int64_t delta,
                            const struct kvs_increment_options *options)
{
    struct kvs_request *request = call_begin_of_key(kvs, "kv.increment", 3, bucket, key);
    struct kvs_increment_options own;

    kvs_request_integer(request, delta);
    request_copy_options(request, &own, sizeof(own), options);
    request_option_integer(request, "initial", own.initial);
    request_option_integer(request, "ttl", own.ttl_s);
    request_option_boolean(request, "keep_ttl", own.keep_ttl);
    request->timeout_s = own.timeout_s;
}

enum kvs_code kvs_increment(struct kvs *kvs, const char *bucket, const char *key, int64_t delta,
                            const struct kvs_increment_options *options, int64_t *value, uint64_t *revision)
{
    increment_build(kvs, bucket, key, delta, options);
    return blocking_run(kvs, increment_read_result, &(struct increment_result){value, revision});
}

enum kvs_code kvs_async_increment(struct kvs *kvs, const char *bucket, const char *key, int64_t delta,
                                  const struct kvs_increment_options *options, kvs_increment_fn *done, void *context)
{
    struct call_receiver receiver = {
        .deliver = done != NULL ? increment_deliver : NULL, .function = (void (*)(void))done, .context = context};

    increment_build(kvs, bucket, key, delta, options);
    return call_submit(kvs, receiver);
}
