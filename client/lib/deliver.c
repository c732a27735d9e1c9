#include "client/lib/deliver.h"

#include "client/lib/reply.h"

/* The receiver with a program's function of any type, which deliver casts back to its own type. */
#define RECEIVER(deliver_function, done, context_pointer)                                                              \
    (struct call_receiver)                                                                                             \
    {                                                                                                                  \
        .deliver = (done) != NULL ? (deliver_function) : NULL, .function = (void (*)(void))(done),                     \
        .context = (context_pointer)                                                                                   \
    }

static void deliver_nothing_now(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                                const struct kvs_value *result)
{
    (void)result;
    ((kvs_finished_fn *)receiver->function)(kvs, error, receiver->context);
}

struct call_receiver deliver_nothing(kvs_finished_fn *done, void *context)
{
    return RECEIVER(deliver_nothing_now, done, context);
}

static void deliver_revision_now(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                                 const struct kvs_value *result)
{
    struct kvs_error failure;
    uint64_t revision = 0;

    if (error == NULL)
        error = reply_read(reply_read_revision, result, &revision, &failure);
    ((kvs_revision_fn *)receiver->function)(kvs, error, revision, receiver->context);
}

struct call_receiver deliver_revision(kvs_revision_fn *done, void *context)
{
    return RECEIVER(deliver_revision_now, done, context);
}

static void deliver_count_now(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                              const struct kvs_value *result)
{
    struct kvs_error failure;
    uint64_t count = 0;

    if (error == NULL)
        error = reply_read(reply_read_count, result, &count, &failure);
    ((kvs_count_fn *)receiver->function)(kvs, error, count, receiver->context);
}

struct call_receiver deliver_count(kvs_count_fn *done, void *context)
{
    return RECEIVER(deliver_count_now, done, context);
}

static void deliver_entry_now(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                              const struct kvs_value *result)
{
    struct kvs_entry *entry = NULL;
    struct kvs_error failure;

    if (error == NULL)
        error = reply_read(reply_read_entry, result, &entry, &failure);
    ((kvs_entry_fn *)receiver->function)(kvs, error, entry, receiver->context);
    kvs_free(entry);
}

struct call_receiver deliver_entry(kvs_entry_fn *done, void *context)
{
    return RECEIVER(deliver_entry_now, done, context);
}

static void deliver_entries_now(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                                const struct kvs_value *result)
{
    struct kvs_entry *entries = NULL;
    struct kvs_error failure;
    size_t count = 0;

    if (error == NULL)
        error = reply_read(reply_read_entries, result, &(struct reply_entries){&entries, &count}, &failure);
    ((kvs_entries_fn *)receiver->function)(kvs, error, entries, count, receiver->context);
    kvs_free(entries);
}

struct call_receiver deliver_entries(kvs_entries_fn *done, void *context)
{
    return RECEIVER(deliver_entries_now, done, context);
}

static void deliver_json_now(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                             const struct kvs_value *result)
{
    struct kvs_error failure;
    char *json = NULL;

    if (error == NULL)
        error = reply_read(reply_read_json, result, &json, &failure);
    ((kvs_json_fn *)receiver->function)(kvs, error, json, receiver->context);
    kvs_free(json);
}

struct call_receiver deliver_json(kvs_json_fn *done, void *context)
{
    return RECEIVER(deliver_json_now, done, context);
}

static void deliver_names_now(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                              const struct kvs_value *result)
{
    struct kvs_error failure;
    char **names = NULL;
    size_t count = 0;

    if (error == NULL)
        error = reply_read(reply_read_strings, result, &(struct reply_strings){&names, &count}, &failure);
    ((kvs_names_fn *)receiver->function)(kvs, error, (const char *const *)names, count, receiver->context);
    kvs_free(names);
}

struct call_receiver deliver_names(kvs_names_fn *done, void *context)
{
    return RECEIVER(deliver_names_now, done, context);
}

static void deliver_revisions_now(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                                  const struct kvs_value *result)
{
    struct kvs_error failure;
    uint64_t *revisions = NULL;
    size_t count = 0;

    if (error == NULL)
        error = reply_read(reply_read_revisions, result,
                           &(struct reply_revisions){&revisions, &count, receiver->expected_count}, &failure);
    ((kvs_commit_fn *)receiver->function)(kvs, error, revisions, count, receiver->context);
    kvs_free(revisions);
}

struct call_receiver deliver_revisions(size_t expected_count, kvs_commit_fn *done, void *context)
{
    struct call_receiver receiver = RECEIVER(deliver_revisions_now, done, context);

    receiver.expected_count = expected_count;
    return receiver;
}

static void deliver_bucket_info_now(struct kvs *kvs, const struct call_receiver *receiver,
                                    const struct kvs_error *error, const struct kvs_value *result)
{
    struct kvs_bucket_info *info = NULL;
    struct kvs_error failure;

    if (error == NULL)
        error = reply_read(reply_read_bucket_info, result, &info, &failure);
    ((kvs_bucket_fn *)receiver->function)(kvs, error, info, receiver->context);
    kvs_free(info);
}

struct call_receiver deliver_bucket_info(kvs_bucket_fn *done, void *context)
{
    return RECEIVER(deliver_bucket_info_now, done, context);
}

static void deliver_value_now(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                              const struct kvs_value *result)
{
    ((kvs_value_fn *)receiver->function)(kvs, error, result, receiver->context);
}

struct call_receiver deliver_value(kvs_value_fn *done, void *context)
{
    return RECEIVER(deliver_value_now, done, context);
}
