/* Transactions: what the commit rests on and what it writes is collected here, and sent with txn.commit. */
#include "client/lib/blocking.h"
#include "client/lib/clock.h"
#include "client/lib/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define RUN_TIMEOUT_S 5.0 /* the daemon's own default for one call */
#define PAUSE_MIN_MS  4u  /* a commit takes about as long: who comes back sooner meets the same one again */
#define PAUSE_MAX_MS  250u

/* A key at whose revision the transaction rests. */
struct condition {
    char *key;
    uint64_t revision; /* 0: it is not there */
    bool was_read;
    struct kvs_entry *entry; /* as it was read; NULL: it was not there */
};

struct kvs_txn {
    struct kvs *kvs;
    char *bucket;
    int64_t deadline_ms; /* of the whole transaction; 0: its calls have the handle's timeout */
    struct condition *conditions;
    size_t condition_count;
    size_t condition_capacity;
    struct kvs_request operations; /* one behind the other */
    size_t operation_count;
    struct kvs_error failure; /* why it cannot be committed; KVS_OK: it can */
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

/* The transaction cannot be committed any more, for the reason in kvs->error. Answers its code. */
static enum kvs_code spoil(struct kvs_txn *txn)
{
    if (txn->failure.code == KVS_OK)
        txn->failure = txn->kvs->error;
    return txn->kvs->error.code;
}

/* Takes entry. False, and the transaction is spoilt, when out of memory. */
static bool add_condition(struct kvs_txn *txn, const char *key, uint64_t revision, bool was_read,
                          struct kvs_entry *entry)
{
    char *copy = strdup(key);

    if (txn->condition_count == txn->condition_capacity) {
        size_t capacity = txn->condition_capacity > 0 ? txn->condition_capacity * 2 : 8;
        struct condition *conditions = realloc(txn->conditions, capacity * sizeof(*conditions));
        if (conditions == NULL)
            goto no_memory;
        txn->conditions = conditions;
        txn->condition_capacity = capacity;
    }
    if (copy == NULL)
        goto no_memory;
    txn->conditions[txn->condition_count++] =
        (struct condition){.key = copy, .revision = revision, .was_read = was_read, .entry = entry};
    return true;

no_memory:
    free(copy);
    kvs_free(entry);
    client_error_set(&txn->kvs->error, KVS_NO_MEMORY, "out of memory for a key of the transaction");
    spoil(txn);
    return false;
}

static const struct condition *find_read(const struct kvs_txn *txn, const char *key)
{
    for (size_t i = 0; i < txn->condition_count; i++) {
        if (txn->conditions[i].was_read && strcmp(txn->conditions[i].key, key) == 0)
            return &txn->conditions[i];
    }
    return NULL;
}

/* The seconds that one call may have of those that are left, 0: as many as calls have. False: none are left. */
static bool time_left(struct kvs_txn *txn, double *left_s)
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
    client_error_set(&txn->kvs->error, KVS_DEADLINE_EXCEEDED, "the transaction's time is over; nothing was written");
    txn->kvs->error.outcome = KVS_OUTCOME_NONE;
    return false;
}

enum kvs_code kvs_txn_get(struct kvs_txn *txn, const char *key, const struct kvs_entry **entry)
{
    struct kvs_get_options options = {.consistency = KVS_CONSISTENCY_LEADER};
    struct kvs_entry *read;

    *entry = NULL;
    if (txn == NULL)
        return KVS_NO_MEMORY;
    const struct condition *known = key != NULL ? find_read(txn, key) : NULL;
    if (known != NULL) {
        *entry = known->entry;
        return KVS_OK;
    }
    if (!time_left(txn, &options.timeout_s) || kvs_get(txn->kvs, txn->bucket, key, &options, &read) != KVS_OK)
        return spoil(txn);
    if (!add_condition(txn, key, read != NULL ? read->revision : 0, true, read))
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
        add_condition(txn, key, revision, false, NULL);
}

/* --- What it writes ------------------------------------------------------------------------------ */

static size_t option_count(const struct kvs_put_options *options)
{
    return options == NULL ? 0 : (size_t)(options->ttl_s != 0) + (options->header_count > 0);
}

/* Begins an operation of so many elements behind its name and key, and the map of options if there are any. */
static struct kvs_request *begin_operation(struct kvs_txn *txn, const char *name, const char *key, size_t elements,
                                           const struct kvs_put_options *options)
{
    struct kvs_request *part = &txn->operations;

    kvs_request_array(part, 2 + elements + (option_count(options) > 0));
    kvs_request_string(part, name);
    kvs_request_string(part, key);
    txn->operation_count++;
    return part;
}

static void add_options(struct kvs_request *part, const struct kvs_put_options *options)
{
    if (option_count(options) == 0)
        return;
    kvs_request_map(part, option_count(options));
    if (options->ttl_s != 0) {
        kvs_request_string(part, "ttl");
        kvs_request_integer(part, options->ttl_s);
    }
    if (options->header_count > 0) {
        kvs_request_string(part, "headers");
        request_headers(part, options->headers, options->header_count);
    }
}

void kvs_txn_put(struct kvs_txn *txn, const char *key, const void *value, size_t value_size,
                 const struct kvs_put_options *options)
{
    if (txn == NULL)
        return;
    struct kvs_request *part = begin_operation(txn, "put", key, 1, options);
    kvs_request_binary(part, value, value_size);
    add_options(part, options);
}

void kvs_txn_create(struct kvs_txn *txn, const char *key, const void *value, size_t value_size,
                    const struct kvs_put_options *options)
{
    if (txn == NULL)
        return;
    struct kvs_request *part = begin_operation(txn, "create", key, 1, options);
    kvs_request_binary(part, value, value_size);
    add_options(part, options);
}

void kvs_txn_update(struct kvs_txn *txn, const char *key, const void *value, size_t value_size, uint64_t expected,
                    const struct kvs_put_options *options)
{
    if (txn == NULL)
        return;
    struct kvs_request *part = begin_operation(txn, "update", key, 2, options);
    kvs_request_binary(part, value, value_size);
    kvs_request_unsigned(part, expected);
    add_options(part, options);
}

void kvs_txn_delete(struct kvs_txn *txn, const char *key)
{
    if (txn != NULL)
        begin_operation(txn, "delete", key, 0, NULL);
}

void kvs_txn_purge(struct kvs_txn *txn, const char *key)
{
    if (txn != NULL)
        begin_operation(txn, "purge", key, 0, NULL);
}

/* --- Committing ---------------------------------------------------------------------------------- */

/* KVS_OK, or why it cannot be committed. */
static enum kvs_code check(struct kvs_txn *txn)
{
    if (txn == NULL)
        return KVS_NO_MEMORY;
    if (txn->is_committed)
        return client_error_set(&txn->kvs->error, KVS_INVALID_ARGUMENT,
                                "the transaction was committed before: begin another one");
    if (txn->failure.code != KVS_OK)
        txn->kvs->error = txn->failure;
    return txn->failure.code;
}

static void build_commit(struct kvs_txn *txn)
{
    struct kvs_request *request = call_begin(txn->kvs, "txn.commit", 3);

    kvs_request_string(request, txn->bucket);
    kvs_request_array(request, txn->condition_count);
    for (size_t i = 0; i < txn->condition_count; i++) {
        kvs_request_array(request, 2);
        kvs_request_string(request, txn->conditions[i].key);
        kvs_request_unsigned(request, txn->conditions[i].revision);
    }
    kvs_request_array(request, txn->operation_count);
    request_add_part(request, &txn->operations);
}

enum kvs_code kvs_txn_commit(struct kvs_txn *txn, const struct kvs_call_options *options, uint64_t **revisions,
                             size_t *count)
{
    if (revisions != NULL)
        *revisions = NULL;
    if (count != NULL)
        *count = 0;
    enum kvs_code code = check(txn);
    if (code != KVS_OK)
        return code;
    if (txn->operation_count > 0 || txn->operations.wrong != NULL) {
        struct reply_revisions wanted = {revisions, count, txn->operation_count};
        build_commit(txn);
        code = blocking_run(txn->kvs, CALL_TIMEOUT(options), reply_read_revisions, &wanted);
    }
    txn->is_committed = code == KVS_OK;
    return code;
}

enum kvs_code kvs_async_txn_commit(struct kvs_txn *txn, const struct kvs_call_options *options, kvs_done_fn *done,
                                   void *context)
{
    enum kvs_code code = check(txn);

    if (code != KVS_OK)
        return code;
    if (txn->operation_count == 0)
        return client_error_set(&txn->kvs->error, KVS_INVALID_ARGUMENT, "the transaction has no operations to commit");
    build_commit(txn);
    code = call_submit_value(txn->kvs, CALL_TIMEOUT(options), done, context);
    txn->is_committed = code == KVS_OK;
    return code;
}

/* --- Again and again ------------------------------------------------------------------------------ */

/* One round. A function that fails by its own wish leaves an error that says so. */
static enum kvs_code run_once(struct kvs_txn *txn, kvs_txn_fn *function, void *context, bool *committing)
{
    struct kvs *kvs = txn->kvs;
    struct kvs_call_options options = {0};

    client_error_set(&kvs->error, KVS_OK, "%s", "");
    *committing = false;
    enum kvs_code code = function(txn, context);
    if (code != KVS_OK) {
        if (kvs->error.code != code)
            client_error_set(&kvs->error, code, "the function of the transaction ended it (%s)", kvs_code_name(code));
        return code;
    }
    if ((code = check(txn)) != KVS_OK)
        return code;
    if (!time_left(txn, &options.timeout_s))
        return kvs->error.code;
    *committing = true;
    return kvs_txn_commit(txn, &options, NULL, NULL);
}

/* Whether the commit failed for a key that was read, so that reading it again can help. */
static bool has_read_late(const struct kvs_txn *txn, const struct kvs_error *error)
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
    double timeout_s = CALL_TIMEOUT(options);
    uint32_t longest_ms = PAUSE_MIN_MS;
    enum kvs_code code = blocking_check(kvs);

    if (code != KVS_OK)
        return code;
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
        code = run_once(txn, function, context, &committing);
        bool again = committing && code != KVS_OK && has_read_late(txn, &kvs->error);
        kvs_txn_free(txn);

        uint32_t pause_ms = 1 + clock_random_below(&kvs->connection.random_state, longest_ms);
        if (!again || clock_now_ms() + pause_ms >= deadline_ms)
            return code;
        blocking_pause(kvs, pause_ms);
        longest_ms = longest_ms * 2 < PAUSE_MAX_MS ? longest_ms * 2 : PAUSE_MAX_MS;
    }
}
