/* The methods kv.*: each has one function that builds its request, and a blocking and an asynchronous form. */
#include "client/lib/blocking.h"
#include "client/lib/clock.h"
#include "client/lib/deliver.h"
#include "client/lib/ephemeral.h"
#include "client/lib/error.h"
#include "client/lib/options.h"

#include <stdlib.h>
#include <string.h>

/* --- Reading ------------------------------------------------------------------------------- */

static void kv_build_get(struct kvs *kvs, const char *method, const char *bucket, const char *key,
                         const struct kvs_get_options *options)
{
    struct kvs_request *request = call_begin_of_key(kvs, method, 2, bucket, key);
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
    request_copy_call_options(call_begin_of_key(kvs, "kv.history", 2, bucket, key), options);
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
    struct kvs_request *request = call_begin_of_bucket(kvs, "kv.keys", 1, bucket);
    struct kvs_keys_options own;

    request_copy_options(request, &own, sizeof(own), options);
    request_option_page(request, own.filter, own.limit, own.after, own.consistency);
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

/* --- Ending an ephemeral key ----------------------------------------------------------------- */

/* Run a request whose success ends an ephemeral key, if it is at this revision (0: at any), and returns a revision. */
static enum kvs_code kv_run_end(struct kvs *kvs, const char *bucket, const char *key, uint64_t at, uint64_t *revision)
{
    struct ephemeral_end end = ephemeral_end_begin(kvs, bucket, key, at);
    enum kvs_code code = blocking_run(kvs, reply_read_revision, revision);
    struct kvs_error error;

    if (end.key == NULL)
        return code;
    if (code != KVS_OK)
        error = kvs->error;
    ephemeral_end_finish(&end, code != KVS_OK ? &error : NULL);
    if (code != KVS_OK)
        kvs->error = error; /* a callback may have set another one */
    return code;
}

static void kv_deliver_end(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                           const struct kvs_value *result)
{
    struct call_receiver program = deliver_revision((kvs_revision_fn *)receiver->function, receiver->context);
    struct ephemeral_end end = *(struct ephemeral_end *)receiver->extra;

    free(receiver->extra);
    ephemeral_end_finish(&end, error);
    if (program.deliver != NULL)
        program.deliver(kvs, &program, error, result);
}

/* The asynchronous form of kv_run_end. */
static enum kvs_code kv_submit_end(struct kvs *kvs, const char *bucket, const char *key, uint64_t at,
                                   kvs_revision_fn *done, void *context)
{
    struct ephemeral_end end = ephemeral_end_begin(kvs, bucket, key, at);
    struct call_receiver receiver = {.deliver = kv_deliver_end, .function = (void (*)(void))done, .context = context};
    enum kvs_code code;

    if (end.key == NULL)
        return call_submit(kvs, deliver_revision(done, context));
    struct ephemeral_end *copy = malloc(sizeof(*copy));
    receiver.extra = copy;
    if (copy == NULL) {
        code = client_error_set(&kvs->error, KVS_NO_MEMORY, "out of memory for the request");
    } else {
        *copy = end;
        code = call_submit(kvs, receiver);
    }
    if (code == KVS_OK)
        return KVS_OK;
    struct kvs_error error = kvs->error;
    free(copy);
    ephemeral_end_finish(&end, &error);
    kvs->error = error;
    return code;
}

/* --- Writing ------------------------------------------------------------------------------- */

static void kv_build_put(struct kvs *kvs, const char *method, const char *bucket, const char *key, const void *value,
                         size_t value_size, const struct kvs_put_options *own)
{
    struct kvs_request *request = call_begin_of_key(kvs, method, 3, bucket, key);

    kvs_request_binary(request, value, value_size);
    request_option_integer(request, "ttl", own->ttl_s);
    request_option_boolean(request, "keep_ttl", own->keep_ttl); /* kv.create has none: the daemon refuses it */
    request_option_headers(request, "headers", own->headers, own->header_count);
    request_option_boolean(request, "ephemeral", own->ephemeral);
    request->timeout_s = own->timeout_s;
}

/* A put or create: its arguments, to be passed on together. */
struct kv_write {
    const char *method, *bucket, *key;
    const void *value;
    size_t value_size;
    struct kvs_put_options options; /* copied by kv_build_write */
};

static void kv_build_write(struct kvs *kvs, struct kv_write *write, const struct kvs_put_options *options)
{
    const char *wrong = options_copy(&write->options, sizeof(write->options), options);

    kv_build_put(kvs, write->method, write->bucket, write->key, write->value, write->value_size, &write->options);
    if (wrong != NULL)
        call_scratch(kvs)->wrong = wrong;
}

static bool kv_is_put(const struct kv_write *write)
{
    return strcmp(write->method, "kv.put") == 0;
}

/* Complete the request of an ephemeral key that the handle remembers. NULL, with the reason in kvs->error. */
static struct ephemeral *kv_remember(struct kvs *kvs, const struct kv_write *write)
{
    struct kvs_request *request = call_scratch(kvs);

    /* The end of its session deletes what the first put has written. */
    request->may_repeat = kv_is_put(write);
    request_end(request, kvs->options.timeout_s);
    return ephemeral_make(kvs, write->bucket, write->key, request);
}

/* Where kv_read_written leaves the revision. */
struct kv_written {
    struct ephemeral *remembered;
    uint64_t *revision;
};

static enum kvs_code kv_read_written(const struct kvs_value *result, void *out)
{
    struct kv_written *written = out;
    uint64_t revision;
    enum kvs_code code = reply_read_revision(result, &revision);

    if (code != KVS_OK)
        return code;
    if (written->revision != NULL)
        *written->revision = revision;
    /* Now, and not when the blocking call returns: the connection may be lost before that. */
    if (written->remembered != NULL)
        ephemeral_keep(written->remembered, revision);
    written->remembered = NULL;
    return KVS_OK;
}

static enum kvs_code kv_run_write(struct kvs *kvs, struct kv_write write, const struct kvs_put_options *options,
                                  uint64_t *revision)
{
    struct kv_written written = {.revision = revision};
    enum kvs_code code = blocking_check(kvs);

    if (code != KVS_OK)
        return code;
    kv_build_write(kvs, &write, options);
    if (!write.options.ephemeral && kv_is_put(&write))
        return kv_run_end(kvs, write.bucket, write.key, 0, revision);
    if (!write.options.ephemeral || !ephemeral_is_remembered(kvs))
        return blocking_run(kvs, reply_read_revision, revision);

    written.remembered = kv_remember(kvs, &write);
    if (written.remembered == NULL)
        return kvs->error.code;
    code = blocking_run_request(kvs, call_scratch(kvs), call_scratch(kvs)->timeout_s, kv_read_written, &written);
    if (written.remembered != NULL)
        ephemeral_drop(written.remembered);
    return code;
}

static void kv_deliver_written(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                               const struct kvs_value *result)
{
    uint64_t revision = 0;
    struct kv_written written = {.remembered = receiver->extra, .revision = &revision};
    struct kvs_error failure;

    if (error == NULL)
        error = reply_read(kv_read_written, result, &written, &failure);
    if (written.remembered != NULL)
        ephemeral_drop(written.remembered);
    if (receiver->function != NULL)
        ((kvs_revision_fn *)receiver->function)(kvs, error, revision, receiver->context);
}

static enum kvs_code kv_submit_write(struct kvs *kvs, struct kv_write write, const struct kvs_put_options *options,
                                     kvs_revision_fn *done, void *context)
{
    struct call_receiver receiver = {
        .deliver = kv_deliver_written, .function = (void (*)(void))done, .context = context};

    kv_build_write(kvs, &write, options);
    if (!write.options.ephemeral && kv_is_put(&write))
        return kv_submit_end(kvs, write.bucket, write.key, 0, done, context);
    if (!write.options.ephemeral || !ephemeral_is_remembered(kvs))
        return call_submit(kvs, deliver_revision(done, context));

    struct ephemeral *remembered = kv_remember(kvs, &write);
    if (remembered == NULL)
        return kvs->error.code;
    receiver.extra = remembered;
    struct kvs_request *request = call_scratch(kvs);
    enum kvs_code code =
        call_submit_request(kvs, request, clock_now_ms() + call_wait_ms(request->timeout_s), &receiver);
    if (code != KVS_OK)
        ephemeral_drop(remembered);
    return code;
}

static void kv_build_update(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                            uint64_t expected, const struct kvs_put_options *options)
{
    struct kvs_request *request = call_begin_of_key(kvs, "kv.update", 4, bucket, key);
    struct kvs_put_options own;

    kvs_request_binary(request, value, value_size);
    kvs_request_unsigned(request, expected);
    request_copy_options(request, &own, sizeof(own), options);
    request_option_integer(request, "ttl", own.ttl_s);
    request_option_boolean(request, "keep_ttl", own.keep_ttl);
    request_option_headers(request, "headers", own.headers, own.header_count);
    request->timeout_s = own.timeout_s;
    if (own.ephemeral)
        request->wrong = "kvs_update cannot write ephemeral keys: use kvs_put or kvs_create";
}

enum kvs_code kvs_put(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                      const struct kvs_put_options *options, uint64_t *revision)
{
    return kv_run_write(kvs, (struct kv_write){"kv.put", bucket, key, value, value_size, {0}}, options, revision);
}

enum kvs_code kvs_async_put(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                            const struct kvs_put_options *options, kvs_revision_fn *done, void *context)
{
    return kv_submit_write(kvs, (struct kv_write){"kv.put", bucket, key, value, value_size, {0}}, options, done,
                           context);
}

enum kvs_code kvs_create(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                         const struct kvs_put_options *options, uint64_t *revision)
{
    return kv_run_write(kvs, (struct kv_write){"kv.create", bucket, key, value, value_size, {0}}, options, revision);
}

enum kvs_code kvs_async_create(struct kvs *kvs, const char *bucket, const char *key, const void *value,
                               size_t value_size, const struct kvs_put_options *options, kvs_revision_fn *done,
                               void *context)
{
    return kv_submit_write(kvs, (struct kv_write){"kv.create", bucket, key, value, value_size, {0}}, options, done,
                           context);
}

enum kvs_code kvs_update(struct kvs *kvs, const char *bucket, const char *key, const void *value, size_t value_size,
                         uint64_t expected, const struct kvs_put_options *options, uint64_t *revision)
{
    kv_build_update(kvs, bucket, key, value, value_size, expected, options);
    if (expected > 0)
        return kv_run_end(kvs, bucket, key, expected, revision);
    return blocking_run(kvs, reply_read_revision, revision);
}

enum kvs_code kvs_async_update(struct kvs *kvs, const char *bucket, const char *key, const void *value,
                               size_t value_size, uint64_t expected, const struct kvs_put_options *options,
                               kvs_revision_fn *done, void *context)
{
    kv_build_update(kvs, bucket, key, value, value_size, expected, options);
    if (expected > 0)
        return kv_submit_end(kvs, bucket, key, expected, done, context);
    return call_submit(kvs, deliver_revision(done, context));
}

/* kv.delete has no option ttl, and kv.purge no if_exists: the daemon refuses them as unknown. Returns the revision. */
static uint64_t kv_build_delete(struct kvs *kvs, const char *method, const char *bucket, const char *key,
                                const struct kvs_delete_options *options)
{
    struct kvs_request *request = call_begin_of_key(kvs, method, 2, bucket, key);
    struct kvs_delete_options own;

    request_copy_options(request, &own, sizeof(own), options);
    request_option_unsigned(request, "revision", own.revision);
    request_option_integer(request, "ttl", own.ttl_s);
    if (own.if_exists)
        request_option_boolean(request, "if_exists", true);
    request->timeout_s = own.timeout_s;
    return own.revision;
}

enum kvs_code kvs_delete(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_delete_options *options,
                         uint64_t *revision)
{
    uint64_t at = kv_build_delete(kvs, "kv.delete", bucket, key, options);

    return kv_run_end(kvs, bucket, key, at, revision);
}

enum kvs_code kvs_async_delete(struct kvs *kvs, const char *bucket, const char *key,
                               const struct kvs_delete_options *options, kvs_revision_fn *done, void *context)
{
    uint64_t at = kv_build_delete(kvs, "kv.delete", bucket, key, options);

    return kv_submit_end(kvs, bucket, key, at, done, context);
}

enum kvs_code kvs_purge(struct kvs *kvs, const char *bucket, const char *key, const struct kvs_delete_options *options,
                        uint64_t *revision)
{
    uint64_t at = kv_build_delete(kvs, "kv.purge", bucket, key, options);

    return kv_run_end(kvs, bucket, key, at, revision);
}

enum kvs_code kvs_async_purge(struct kvs *kvs, const char *bucket, const char *key,
                              const struct kvs_delete_options *options, kvs_revision_fn *done, void *context)
{
    uint64_t at = kv_build_delete(kvs, "kv.purge", bucket, key, options);

    return kv_submit_end(kvs, bucket, key, at, done, context);
}
