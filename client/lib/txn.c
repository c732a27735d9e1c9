/* Transactions: collects conditions and operations, and sends them with txn.commit. */
#include "client/lib/blocking.h"
#include "client/lib/clock.h"
#include "client/lib/deliver.h"
#include "client/lib/error.h"
#include "client/lib/options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define RUN_TIMEOUT_S 5.0 /* the daemon's own default for one call */
#define PAUSE_MIN_MS  4u  /* a commit takes about as long: an earlier retry meets the same commit again */
#define PAUSE_MAX_MS  250u

/* A condition: a key must have this revision. */
struct txn_condition {
    char *key;
    uint64_t revision; /* 0: it must not exist */
    bool was_read;
    struct kvs_entry *entry; /* as it was read; NULL: it did not exist */
};

struct kvs_txn {
    struct kvs *kvs;
    char *bucket;
    int64_t deadline_ms; /* of the whole transaction; 0: each call has the handle's timeout */
    struct txn_condition *conditions;
    size_t condition_count;
    size_t condition_capacity;
    struct kvs_request operations; /* one after the other */
    size_t operation_count;
    struct kvs_error failure; /* why it cannot be committed; KVS_OK: it can be */
    bool is_committed;
};

struct kvs_txn *kvs_txn_begin(struct kvs *kvs, const char *bucket)
{
    struct kvs_txn *txn = calloc(1, sizeof(*txn));

    if (txn != NULL && bucket != NULL && (txn->bucket = strdup(bucket)) == NULL) {
        free(txn);
        txn = NULL;
    }
    if (txn == NULL) {
        client_error_set(&kvs->error, KVS_NO_MEMORY, "out of memory for a transaction");
        return NULL;
    }
    txn->kvs = kvs;
    request_begin_part(&txn->operations);
    return txn;
}

void kvs_txn_free(struct kvs_txn *txn)
{
    if (txn == NULL)
        return;
    for (size_t i = 0; i < txn->condition_count; i++) {
        free(txn->conditions[i].key);
        kvs_free(txn->conditions[i].entry);
    }
    free(txn->conditions);
    request_release(&txn->operations);
    free(txn->bucket);
    free(txn);
}

/* --- What it rests on --------------------------------------------------------------------------- */

/* Make the transaction fail at its commit, for the reason in kvs->error. Returns its code. */
static enum kvs_code txn_spoil(struct kvs_txn *txn)
{
    if (txn->failure.code == KVS_OK)
        txn->failure = txn->kvs->error;
    return txn->kvs->error.code;
}

/* Add a condition, which owns entry. False when out of memory; then the commit will fail. */
static bool txn_add_condition(struct kvs_txn *txn, const char *key, uint64_t revision, bool was_read,
                              struct kvs_entry *entry)
{
    char *copy = strdup(key);

    if (txn->condition_count == txn->condition_capacity) {
        size_t capacity = txn->condition_capacity > 0 ? txn->condition_capacity * 2 : 8;
        struct txn_condition *conditions = realloc(txn->conditions, capacity * sizeof(*conditions));
        if (conditions == NULL)
            goto no_memory;
        txn->conditions = conditions;
        txn->condition_capacity = capacity;
    }
    if (copy == NULL)
        goto no_memory;
    txn->conditions[txn->condition_count++] =
        (struct txn_condition){.key = copy, .revision = revision, .was_read = was_read, .entry = entry};
    return true;

no_memory:
    free(copy);
    kvs_free(entry);
    client_error_set(&txn->kvs->error, KVS_NO_MEMORY, "out of memory for a key of the transaction");
    txn_spoil(txn);
    return false;
}

static const struct txn_condition *txn_find_read(const struct kvs_txn *txn, const char *key)
{
    for (size_t i = 0; i < txn->condition_count; i++) {
        if (txn->conditions[i].was_read && strcmp(txn->conditions[i].key, key) == 0)
            return &txn->conditions[i];
    }
    return NULL;
}

/* Return the timeout of the next call; 0: the usual one. False if the transaction has timed out. */
static bool txn_time_left(struct kvs_txn *txn, double *left_s)
{
    double usual_s = txn->kvs->options.timeout_s > 0 ? txn->kvs->options.timeout_s : RUN_TIMEOUT_S;

    *left_s = 0;
    if (txn->deadline_ms == 0)
        return true;
    double all_s = (double)(txn->deadline_ms - clock_now_ms()) / 1000;
    if (all_s < usual_s)
        *left_s = all_s;
    if (all_s > 0)
        return true;
    client_error_set(&txn->kvs->error, KVS_DEADLINE_EXCEEDED, "the transaction timed out; nothing was written");
    txn->kvs->error.outcome = KVS_OUTCOME_NONE;
    return false;
}

enum kvs_code kvs_txn_get(struct kvs_txn *txn, const char *key, const struct kvs_entry **entry)
{
    struct kvs_get_options options = KVS_GET_OPTIONS(.consistency = KVS_CONSISTENCY_LEADER);
    struct kvs_entry *read;

    *entry = NULL;
    if (txn == NULL)
        return KVS_NO_MEMORY;
    const struct txn_condition *known = key != NULL ? txn_find_read(txn, key) : NULL;
    if (known != NULL) {
        *entry = known->entry;
        return KVS_OK;
    }
    if (!txn_time_left(txn, &options.timeout_s) || kvs_get(txn->kvs, txn->bucket, key, &options, &read) != KVS_OK)
        return txn_spoil(txn);
    if (!txn_add_condition(txn, key, read != NULL ? read->revision : 0, true, read))
        return KVS_NO_MEMORY;
    *entry = read;
    return KVS_OK;
}

void kvs_txn_check(struct kvs_txn *txn, const char *key, uint64_t revision)
{
    if (txn == NULL)
        return;
    if (key == NULL)
        txn->operations.wrong = "the key of a check is NULL";
    else
        txn_add_condition(txn, key, revision, false, NULL);
}

/* --- What it writes ------------------------------------------------------------------------------ */

/* Copy the options of an operation; what is wrong with them is reported by the commit. */
static struct kvs_put_options txn_copy_options(struct kvs_txn *txn, const struct kvs_put_options *options)
{
    struct kvs_put_options own;

    request_copy_options(&txn->operations, &own, sizeof(own), options);
    if (own.keep_ttl && txn->operations.wrong == NULL)
        txn->operations.wrong = "keep_ttl is for kvs_put and kvs_update: a transaction does not read the TTL";
    if (own.ephemeral)
        txn->operations.wrong = "a transaction cannot write ephemeral keys: use kvs_put or kvs_create";
    return own;
}

static size_t txn_option_count(const struct kvs_put_options *options)
{
    return (size_t)(options->ttl_s != 0) + (options->header_count > 0);
}

/* Begin an operation of elements values after its name and key, and the map of options if there are any. */
static struct kvs_request *txn_begin_operation(struct kvs_txn *txn, const char *name, const char *key, size_t elements,
                                               size_t option_count)
{
    struct kvs_request *part = &txn->operations;

    kvs_request_array(part, 2 + elements + (option_count > 0));
    kvs_request_string(part, name);
    kvs_request_string(part, key);
    txn->operation_count++;
    return part;
}

static void txn_add_options(struct kvs_request *part, const struct kvs_put_options *options)
{
    if (txn_option_count(options) == 0)
        return;
    kvs_request_map(part, txn_option_count(options));
    if (options->ttl_s != 0) {
        kvs_request_string(part, "ttl");
        kvs_request_integer(part, options->ttl_s);
    }
    if (options->header_count > 0) {
        kvs_request_string(part, "headers");
        request_headers(part, options->headers, options->header_count);
    }
}

static void txn_add_put(struct kvs_txn *txn, const char *name, const char *key, const void *value, size_t value_size,
                        const struct kvs_put_options *options)
{
    if (txn == NULL)
        return;
    struct kvs_put_options own = txn_copy_options(txn, options);
    struct kvs_request *part = txn_begin_operation(txn, name, key, 1, txn_option_count(&own));
    kvs_request_binary(part, value, value_size);
    txn_add_options(part, &own);
}

void kvs_txn_put(struct kvs_txn *txn, const char *key, const void *value, size_t value_size,
                 const struct kvs_put_options *options)
{
    txn_add_put(txn, "put", key, value, value_size, options);
}

void kvs_txn_create(struct kvs_txn *txn, const char *key, const void *value, size_t value_size,
                    const struct kvs_put_options *options)
{
    txn_add_put(txn, "create", key, value, value_size, options);
}

void kvs_txn_update(struct kvs_txn *txn, const char *key, const void *value, size_t value_size, uint64_t expected,
                    const struct kvs_put_options *options)
{
    if (txn == NULL)
        return;
    struct kvs_put_options own = txn_copy_options(txn, options);
    struct kvs_request *part = txn_begin_operation(txn, "update", key, 2, txn_option_count(&own));
    kvs_request_binary(part, value, value_size);
    kvs_request_unsigned(part, expected);
    txn_add_options(part, &own);
}

void kvs_txn_delete(struct kvs_txn *txn, const char *key)
{
    if (txn != NULL)
        txn_begin_operation(txn, "delete", key, 0, 0);
}

void kvs_txn_purge(struct kvs_txn *txn, const char *key)
{
    if (txn != NULL)
        txn_begin_operation(txn, "purge", key, 0, 0);
}

/* --- Committing ---------------------------------------------------------------------------------- */

/* Return KVS_OK, or why the transaction cannot be committed. */
static enum kvs_code txn_check_usable(struct kvs_txn *txn)
{
    if (txn == NULL)
        return KVS_NO_MEMORY;
    if (txn->is_committed)
        return client_error_set(&txn->kvs->error, KVS_INVALID_ARGUMENT,
                                "the transaction was committed already: begin another one");
    if (txn->failure.code != KVS_OK)
        txn->kvs->error = txn->failure;
    return txn->failure.code;
}

static void txn_build_commit(struct kvs_txn *txn, const struct kvs_call_options *options)
{
    struct kvs_request *request = call_begin_of_bucket(txn->kvs, "txn.commit", 3, txn->bucket);

    kvs_request_array(request, txn->condition_count);
    for (size_t i = 0; i < txn->condition_count; i++) {
        kvs_request_array(request, 2);
        kvs_request_string(request, txn->conditions[i].key);
        kvs_request_unsigned(request, txn->conditions[i].revision);
    }
    kvs_request_array(request, txn->operation_count);
    request_add_part(request, &txn->operations);
    request_copy_call_options(request, options);
}

enum kvs_code kvs_txn_commit(struct kvs_txn *txn, const struct kvs_call_options *options, uint64_t **revisions,
                             size_t *count)
{
    if (revisions != NULL)
        *revisions = NULL;
    if (count != NULL)
        *count = 0;
    enum kvs_code code = txn_check_usable(txn);
    if (code != KVS_OK)
        return code;
    if (txn->operation_count > 0 || txn->operations.wrong != NULL) {
        struct reply_revisions wanted = {revisions, count, txn->operation_count};
        txn_build_commit(txn, options);
        code = blocking_run(txn->kvs, reply_read_revisions, &wanted);
    }
    txn->is_committed = code == KVS_OK;
    return code;
}

enum kvs_code kvs_async_txn_commit(struct kvs_txn *txn, const struct kvs_call_options *options, kvs_commit_fn *done,
                                   void *context)
{
    enum kvs_code code = txn_check_usable(txn);

    if (code != KVS_OK)
        return code;
    if (txn->operation_count == 0)
        return client_error_set(&txn->kvs->error, KVS_INVALID_ARGUMENT, "the transaction has no operations to commit");
    txn_build_commit(txn, options);
    code = call_submit(txn->kvs, deliver_revisions(txn->operation_count, done, context));
    txn->is_committed = code == KVS_OK;
    return code;
}

/* --- Again and again ------------------------------------------------------------------------------ */

/* Run one round. If the function fails by itself, the error says so. */
static enum kvs_code txn_run_once(struct kvs_txn *txn, kvs_txn_fn *function, void *context, bool *committing)
{
    struct kvs *kvs = txn->kvs;
    struct kvs_call_options options = KVS_CALL_OPTIONS();

    client_error_set(&kvs->error, KVS_OK, "%s", "");
    *committing = false;
    enum kvs_code code = function(txn, context);
    if (code != KVS_OK) {
        if (kvs->error.code != code)
            client_error_set(&kvs->error, code, "the callback of the transaction ended it (%s)", kvs_code_name(code));
        return code;
    }
    if ((code = txn_check_usable(txn)) != KVS_OK)
        return code;
    if (!txn_time_left(txn, &options.timeout_s))
        return kvs->error.code;
    *committing = true;
    return kvs_txn_commit(txn, &options, NULL, NULL);
}

/* Whether the commit failed because of a key that was read, so that another round can help. */
static bool txn_has_read_stale_key(const struct kvs_txn *txn, const struct kvs_error *error)
{
    if (error->code != KVS_CONFLICT && error->code != KVS_ALREADY_EXISTS)
        return false;
    for (size_t i = 0; i < txn->condition_count; i++) {
        if (txn->conditions[i].was_read && strcmp(txn->conditions[i].key, error->key) == 0)
            return true;
    }
    return false;
}

enum kvs_code kvs_txn_run(struct kvs *kvs, const char *bucket, kvs_txn_fn *function, void *context,
                          const struct kvs_call_options *options)
{
    struct kvs_call_options own;
    const char *wrong = options_copy(&own, sizeof(own), options);
    double timeout_s = own.timeout_s;
    uint32_t longest_ms = PAUSE_MIN_MS;
    enum kvs_code code = blocking_check(kvs);

    if (code != KVS_OK)
        return code;
    if (wrong != NULL)
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "%s", wrong);
    if (!(timeout_s >= 0) || !isfinite(timeout_s))
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT,
                                "timeout_s must be a number of seconds, or 0 for the default");
    if (timeout_s <= 0)
        timeout_s = kvs->options.timeout_s > 0 ? kvs->options.timeout_s : RUN_TIMEOUT_S;
    int64_t deadline_ms = clock_moment_after(timeout_s);

    for (;;) {
        struct kvs_txn *txn = kvs_txn_begin(kvs, bucket);
        bool committing;
        if (txn == NULL)
            return KVS_NO_MEMORY;
        txn->deadline_ms = deadline_ms;
        code = txn_run_once(txn, function, context, &committing);
        bool again = committing && code != KVS_OK && txn_has_read_stale_key(txn, &kvs->error);
        kvs_txn_free(txn);

        uint32_t pause_ms = 1 + clock_random_below(&kvs->connection.random_state, longest_ms);
        if (!again || clock_now_ms() + pause_ms >= deadline_ms)
            return code;
        blocking_pause(kvs, pause_ms);
        longest_ms = longest_ms * 2 < PAUSE_MAX_MS ? longest_ms * 2 : PAUSE_MAX_MS;
    }
}
