/* The methods bulk.*: each has one function that builds its request, a blocking and an asynchronous form, and a reader
 * of its answer. */
#include "client/lib/blocking.h"
#include "client/lib/deliver.h"
#include "client/lib/entry.h"
#include "client/lib/error.h"
#include "client/lib/key_order.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The keys of a call, and their results in the same order. */
struct bulk {
    const char *const *keys; /* NULL: pairs */
    const struct kvs_pair *pairs;
    size_t count;
    struct kvs_entry **entries;
    struct kvs_bulk_result *results;
    size_t failed_count;
};

static const char *bulk_key_at(const struct bulk *bulk, size_t place)
{
    return bulk->keys != NULL ? bulk->keys[place] : bulk->pairs[place].key;
}

/* --- From the answer's map to the caller's order ------------------------------------------------ */

static bool bulk_order_answer(struct key_order *order, const struct kvs_value *answer)
{
    if (!key_order_make(order, kvs_value_count(answer)))
        return false;
    for (size_t i = 0; i < kvs_value_count(answer); i++) {
        size_t size;
        const char *bytes = kvs_value_bytes(kvs_value_key(answer, i), &size);
        key_order_add(order, bytes, size, i);
    }
    return true;
}

/* Return the place in the answer of the caller's key at place. */
static size_t bulk_place_in_answer(const struct bulk *bulk, struct key_order *order, size_t place)
{
    const char *key = bulk_key_at(bulk, place);

    return key_order_find(order, key, strlen(key));
}

/* Fill bulk->entries with one block: the caller's pointers, then the entries. found has room for all members of the
 * answer. */
static enum kvs_code bulk_place_entries(struct bulk *bulk, const struct kvs_value *answer, struct key_order *order,
                                        struct kvs_entry **found)
{
    struct entry_space space = {0};

    for (size_t i = 0; i < kvs_value_count(answer); i++) {
        const struct kvs_value *item = kvs_value_item(answer, i);
        if (kvs_value_type(item) != KVS_NIL && !entry_measure(item, &space))
            return KVS_PROTOCOL;
    }
    struct kvs_entry **block = malloc((bulk->count + 1) * sizeof(*block) + entry_space_bytes(&space));
    if (block == NULL)
        return KVS_NO_MEMORY;
    struct entry_places places = entry_lay_out(block + bulk->count + 1, &space);
    for (size_t i = 0; i < kvs_value_count(answer); i++) {
        const struct kvs_value *item = kvs_value_item(answer, i);
        found[i] = kvs_value_type(item) != KVS_NIL ? entry_read(item, &places) : NULL;
    }
    for (size_t i = 0; i < bulk->count; i++) {
        size_t place = bulk_place_in_answer(bulk, order, i);
        if (place == KEY_ORDER_NONE) {
            free(block);
            return KVS_PROTOCOL;
        }
        block[i] = found[place];
    }
    block[bulk->count] = NULL;
    bulk->entries = block;
    return KVS_OK;
}

static enum kvs_code bulk_read_entries(const struct kvs_value *answer, void *out)
{
    struct key_order order;
    enum kvs_code code = KVS_NO_MEMORY;

    if (kvs_value_type(answer) != KVS_MAP)
        return KVS_PROTOCOL;
    if (!bulk_order_answer(&order, answer))
        return KVS_NO_MEMORY;
    struct kvs_entry **found = malloc((kvs_value_count(answer) + 1) * sizeof(struct kvs_entry *));
    if (found != NULL)
        code = bulk_place_entries(out, answer, &order, found);
    free(found);
    key_order_free(&order);
    return code;
}

/* Fill bulk->results with one block: a result for each of the caller's keys, then the errors. */
static enum kvs_code bulk_place_results(struct bulk *bulk, const struct kvs_value *answer, struct key_order *order)
{
    size_t failures = 0;

    for (size_t i = 0; i < bulk->count; i++) {
        size_t place = bulk_place_in_answer(bulk, order, i);
        if (place == KEY_ORDER_NONE)
            return KVS_PROTOCOL;
        failures += kvs_value_member(kvs_value_item(answer, place), "error") != NULL;
    }
    struct kvs_bulk_result *block = malloc((bulk->count + 1) * sizeof(*block) + failures * sizeof(struct kvs_error));
    if (block == NULL)
        return KVS_NO_MEMORY;
    struct kvs_error *error = (struct kvs_error *)(void *)(block + bulk->count + 1);
    for (size_t i = 0; i < bulk->count; i++) {
        const struct kvs_value *item = kvs_value_item(answer, bulk_place_in_answer(bulk, order, i));
        const struct kvs_value *failure = kvs_value_member(item, "error");
        block[i] = (struct kvs_bulk_result){.revision = kvs_value_unsigned(kvs_value_member(item, "revision"))};
        if (failure != NULL && kvs_value_error(failure, error)) {
            snprintf(error->key, sizeof(error->key), "%s", bulk_key_at(bulk, i));
            block[i].error = error++;
        } else if (block[i].revision == 0) {
            free(block);
            return KVS_PROTOCOL;
        }
    }
    bulk->results = block;
    bulk->failed_count = failures;
    return KVS_OK;
}

static enum kvs_code bulk_read_results(const struct kvs_value *answer, void *out)
{
    struct key_order order;

    if (kvs_value_type(answer) != KVS_MAP)
        return KVS_PROTOCOL;
    if (!bulk_order_answer(&order, answer))
        return KVS_NO_MEMORY;
    enum kvs_code code = bulk_place_results(out, answer, &order);
    key_order_free(&order);
    return code;
}

/* --- bulk.get ----------------------------------------------------------------------------------- */

/* Copy the keys into one block; the answer is sorted in their order. NULL when out of memory. */
static struct bulk *bulk_copy(const struct bulk *bulk)
{
    size_t text_bytes = 0;

    for (size_t i = 0; i < bulk->count; i++)
        text_bytes += strlen(bulk_key_at(bulk, i)) + 1;
    struct bulk *copy = malloc(sizeof(*copy) + bulk->count * sizeof(char *) + text_bytes);
    if (copy == NULL)
        return NULL;
    const char **keys = (const char **)(copy + 1);
    char *place = (char *)(keys + bulk->count);
    for (size_t i = 0; i < bulk->count; i++) {
        size_t size = strlen(bulk_key_at(bulk, i)) + 1;
        keys[i] = memcpy(place, bulk_key_at(bulk, i), size);
        place += size;
    }
    *copy = (struct bulk){.keys = keys, .count = bulk->count};
    return copy;
}

/* Submit the request that was built. deliver passes the answer to function and frees the copy of the keys. */
static enum kvs_code bulk_submit(struct kvs *kvs, const struct bulk *bulk, call_deliver_fn *deliver,
                                 void (*function)(void), void *context)
{
    struct call_receiver receiver = {.function = function, .context = context};
    struct kvs_request *request = call_scratch(kvs);

    /* With a wrong argument, such as a key that is NULL, the request will be refused. */
    if (function != NULL && request->wrong == NULL) {
        receiver.deliver = deliver;
        if ((receiver.extra = bulk_copy(bulk)) == NULL)
            request->no_memory = true;
    }
    enum kvs_code code = call_submit(kvs, receiver);
    if (code != KVS_OK)
        free(receiver.extra);
    return code;
}

static void bulk_add_keys(struct kvs_request *request, const char *const *keys, size_t key_count)
{
    kvs_request_array(request, key_count);
    for (size_t i = 0; i < key_count; i++)
        kvs_request_string(request, keys[i]);
}

static void bulk_build_get(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                           const struct kvs_bulk_get_options *options)
{
    struct kvs_request *request = call_begin_of_bucket(kvs, "bulk.get", 2, bucket);
    struct kvs_bulk_get_options own;

    bulk_add_keys(request, keys, key_count);
    request_copy_options(request, &own, sizeof(own), options);
    request_option_consistency(request, own.consistency);
    request->timeout_s = own.timeout_s;
}

enum kvs_code kvs_bulk_get(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                           const struct kvs_bulk_get_options *options, struct kvs_entry ***entries)
{
    struct bulk bulk = {.keys = keys, .count = key_count};

    bulk_build_get(kvs, bucket, keys, key_count, options);
    enum kvs_code code = blocking_run(kvs, bulk_read_entries, &bulk);
    *entries = bulk.entries;
    return code;
}

static void bulk_deliver_entries(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                                 const struct kvs_value *result)
{
    struct bulk *bulk = receiver->extra;
    struct kvs_error failure;

    if (error == NULL)
        error = reply_read(bulk_read_entries, result, bulk, &failure);
    ((kvs_bulk_get_fn *)receiver->function)(kvs, error, (const struct kvs_entry *const *)bulk->entries,
                                            error == NULL ? bulk->count : 0, receiver->context);
    kvs_free(bulk->entries);
    free(bulk);
}

enum kvs_code kvs_async_bulk_get(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                                 const struct kvs_bulk_get_options *options, kvs_bulk_get_fn *done, void *context)
{
    const struct bulk bulk = {.keys = keys, .count = key_count};

    bulk_build_get(kvs, bucket, keys, key_count, options);
    return bulk_submit(kvs, &bulk, bulk_deliver_entries, (void (*)(void))done, context);
}

/* --- bulk.put and bulk.delete ------------------------------------------------------------------- */

/* Return what bulk_read_results has read; a caller without results gets the first failure. */
static enum kvs_code bulk_finish_writes(struct kvs *kvs, enum kvs_code code, struct bulk *bulk,
                                        struct kvs_bulk_result **results, size_t *failed_count)
{
    if (failed_count != NULL)
        *failed_count = bulk->failed_count;
    if (results != NULL) {
        *results = bulk->results;
        return code;
    }
    for (size_t i = 0; i < bulk->count && code == KVS_OK; i++) {
        if (bulk->results[i].error == NULL)
            continue;
        kvs->error = *bulk->results[i].error;
        code = kvs->error.code;
    }
    kvs_free(bulk->results);
    return code;
}

/* Refuse a key that occurs twice: the request's map has each key once. */
static void bulk_check_twins(struct kvs_request *request, const struct kvs_pair *pairs, size_t pair_count)
{
    struct key_order order;

    if (request->wrong != NULL)
        return;
    if (!key_order_make(&order, pair_count)) {
        request->no_memory = true;
        return;
    }
    for (size_t i = 0; i < pair_count; i++)
        key_order_add(&order, pairs[i].key, strlen(pairs[i].key), i);
    if (key_order_has_twins(&order))
        request->wrong = "two of the pairs have the same key";
    key_order_free(&order);
}

static void bulk_build_put(struct kvs *kvs, const char *bucket, const struct kvs_pair *pairs, size_t pair_count,
                           const struct kvs_bulk_put_options *options)
{
    struct kvs_request *request = call_begin_of_bucket(kvs, "bulk.put", 2, bucket);
    struct kvs_bulk_put_options own;

    kvs_request_map(request, pair_count);
    for (size_t i = 0; i < pair_count; i++) {
        kvs_request_string(request, pairs[i].key);
        kvs_request_binary(request, pairs[i].value, pairs[i].value_size);
    }
    bulk_check_twins(request, pairs, pair_count);
    request_copy_options(request, &own, sizeof(own), options);
    request_option_integer(request, "ttl", own.ttl_s);
    request->timeout_s = own.timeout_s;
}

static void bulk_build_delete(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                              const struct kvs_call_options *options)
{
    struct kvs_request *request = call_begin_of_bucket(kvs, "bulk.delete", 2, bucket);

    bulk_add_keys(request, keys, key_count);
    request_copy_call_options(request, options);
}

static void bulk_deliver_results(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                                 const struct kvs_value *result)
{
    struct bulk *bulk = receiver->extra;
    struct kvs_error failure;

    if (error == NULL)
        error = reply_read(bulk_read_results, result, bulk, &failure);
    ((kvs_bulk_write_fn *)receiver->function)(kvs, error, bulk->results, error == NULL ? bulk->count : 0,
                                              bulk->failed_count, receiver->context);
    kvs_free(bulk->results);
    free(bulk);
}

enum kvs_code kvs_bulk_put(struct kvs *kvs, const char *bucket, const struct kvs_pair *pairs, size_t pair_count,
                           const struct kvs_bulk_put_options *options, struct kvs_bulk_result **results,
                           size_t *failed_count)
{
    struct bulk bulk = {.pairs = pairs, .count = pair_count};

    bulk_build_put(kvs, bucket, pairs, pair_count, options);
    enum kvs_code code = blocking_run(kvs, bulk_read_results, &bulk);
    return bulk_finish_writes(kvs, code, &bulk, results, failed_count);
}

enum kvs_code kvs_async_bulk_put(struct kvs *kvs, const char *bucket, const struct kvs_pair *pairs, size_t pair_count,
                                 const struct kvs_bulk_put_options *options, kvs_bulk_write_fn *done, void *context)
{
    const struct bulk bulk = {.pairs = pairs, .count = pair_count};

    bulk_build_put(kvs, bucket, pairs, pair_count, options);
    return bulk_submit(kvs, &bulk, bulk_deliver_results, (void (*)(void))done, context);
}

enum kvs_code kvs_bulk_delete(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                              const struct kvs_call_options *options, struct kvs_bulk_result **results,
                              size_t *failed_count)
{
    struct bulk bulk = {.keys = keys, .count = key_count};

    bulk_build_delete(kvs, bucket, keys, key_count, options);
    enum kvs_code code = blocking_run(kvs, bulk_read_results, &bulk);
    return bulk_finish_writes(kvs, code, &bulk, results, failed_count);
}

enum kvs_code kvs_async_bulk_delete(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                                    const struct kvs_call_options *options, kvs_bulk_write_fn *done, void *context)
{
    const struct bulk bulk = {.keys = keys, .count = key_count};

    bulk_build_delete(kvs, bucket, keys, key_count, options);
    return bulk_submit(kvs, &bulk, bulk_deliver_results, (void (*)(void))done, context);
}
