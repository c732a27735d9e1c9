/* The methods bulk.*: each has one function that builds its request, its two faces, and a reader of its answer. */
#include "client/lib/blocking.h"
#include "client/lib/entry.h"
#include "client/lib/error.h"
#include "client/lib/key_order.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The keys of a call, and where the blocking face wants what became of them, in their order. */
struct bulk {
    const char *const *keys; /* NULL: pairs */
    const struct kvs_pair *pairs;
    size_t count;
    struct kvs_entry **entries;
    struct kvs_bulk_result *results;
    size_t failed_count;
};

static const char *key_at(const struct bulk *bulk, size_t place)
{
    return bulk->keys != NULL ? bulk->keys[place] : bulk->pairs[place].key;
}

/* --- From the answer's map to the caller's order ------------------------------------------------ */

static bool index_answer(struct key_order *index, const struct kvs_value *answer)
{
    if (!key_order_make(index, kvs_value_count(answer)))
        return false;
    for (size_t i = 0; i < kvs_value_count(answer); i++) {
        size_t size;
        const char *bytes = kvs_value_bytes(kvs_value_key(answer, i), &size);
        key_order_add(index, bytes, size, i);
    }
    return true;
}

/* The place in the answer of the caller's key at place. */
static size_t place_in_answer(const struct bulk *bulk, struct key_order *index, size_t place)
{
    const char *key = key_at(bulk, place);

    return key_order_find(index, key, strlen(key));
}

/* One block: the caller's pointers, then the entries. found has room for as many as the answer has members. */
static enum kvs_code place_entries(struct bulk *bulk, const struct kvs_value *answer, struct key_order *index,
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
        size_t place = place_in_answer(bulk, index, i);
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

static enum kvs_code read_entries(const struct kvs_value *answer, void *out)
{
    struct key_order index;
    enum kvs_code code = KVS_NO_MEMORY;

    if (kvs_value_type(answer) != KVS_MAP)
        return KVS_PROTOCOL;
    if (!index_answer(&index, answer))
        return KVS_NO_MEMORY;
    struct kvs_entry **found = malloc((kvs_value_count(answer) + 1) * sizeof(struct kvs_entry *));
    if (found != NULL)
        code = place_entries(out, answer, &index, found);
    free(found);
    key_order_free(&index);
    return code;
}

/* One block: a result for each of the caller's keys, then the errors. */
static enum kvs_code place_results(struct bulk *bulk, const struct kvs_value *answer, struct key_order *index)
{
    size_t failures = 0;

    for (size_t i = 0; i < bulk->count; i++) {
        size_t place = place_in_answer(bulk, index, i);
        if (place == KEY_ORDER_NONE)
            return KVS_PROTOCOL;
        failures += kvs_value_type(kvs_value_item(answer, place)) == KVS_MAP;
    }
    struct kvs_bulk_result *block = malloc((bulk->count + 1) * sizeof(*block) + failures * sizeof(struct kvs_error));
    if (block == NULL)
        return KVS_NO_MEMORY;
    struct kvs_error *error = (struct kvs_error *)(void *)(block + bulk->count + 1);
    for (size_t i = 0; i < bulk->count; i++) {
        const struct kvs_value *item = kvs_value_item(answer, place_in_answer(bulk, index, i));
        block[i] = (struct kvs_bulk_result){.revision = kvs_value_unsigned(item)};
        if (kvs_value_error(item, error)) {
            snprintf(error->key, sizeof(error->key), "%s", key_at(bulk, i));
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

static enum kvs_code read_results(const struct kvs_value *answer, void *out)
{
    struct key_order index;

    if (kvs_value_type(answer) != KVS_MAP)
        return KVS_PROTOCOL;
    if (!index_answer(&index, answer))
        return KVS_NO_MEMORY;
    enum kvs_code code = place_results(out, answer, &index);
    key_order_free(&index);
    return code;
}

bool kvs_value_error(const struct kvs_value *value, struct kvs_error *error)
{
    /* A value is a msgpack_object by another name. */
    return kvs_value_type(value) == KVS_MAP && client_error_read(error, (const msgpack_object *)value);
}

/* --- bulk.get ----------------------------------------------------------------------------------- */

static struct kvs_request *begin_bulk(struct kvs *kvs, const char *method, const char *bucket)
{
    struct kvs_request *request = call_begin(kvs, method, 2);

    kvs_request_string(request, bucket);
    return request;
}

static void add_keys(struct kvs_request *request, const char *const *keys, size_t key_count)
{
    kvs_request_array(request, key_count);
    for (size_t i = 0; i < key_count; i++)
        kvs_request_string(request, keys[i]);
}

static void build_get(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                      const struct kvs_bulk_get_options *options)
{
    struct kvs_request *request = begin_bulk(kvs, "bulk.get", bucket);

    add_keys(request, keys, key_count);
    if (options != NULL)
        request_option_consistency(request, options->consistency);
}

enum kvs_code kvs_bulk_get(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                           const struct kvs_bulk_get_options *options, struct kvs_entry ***entries)
{
    struct bulk bulk = {.keys = keys, .count = key_count};

    build_get(kvs, bucket, keys, key_count, options);
    enum kvs_code code = blocking_run(kvs, CALL_TIMEOUT(options), read_entries, &bulk);
    *entries = bulk.entries;
    return code;
}

enum kvs_code kvs_async_bulk_get(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                                 const struct kvs_bulk_get_options *options, kvs_done_fn *done, void *context)
{
    build_get(kvs, bucket, keys, key_count, options);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

/* --- bulk.put and bulk.delete ------------------------------------------------------------------- */

/* Hands out what read_results has read: to a caller who wants no results the first failure. */
static enum kvs_code finish_writes(struct kvs *kvs, enum kvs_code code, struct bulk *bulk,
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

/* A map has each key once: of two values for one key, which is meant? */
static void check_twins(struct kvs_request *request, const struct kvs_pair *pairs, size_t pair_count)
{
    struct key_order index;

    if (request->wrong != NULL)
        return;
    if (!key_order_make(&index, pair_count)) {
        request->no_memory = true;
        return;
    }
    for (size_t i = 0; i < pair_count; i++)
        key_order_add(&index, pairs[i].key, strlen(pairs[i].key), i);
    if (key_order_has_twins(&index))
        request->wrong = "two of the pairs have the same key";
    key_order_free(&index);
}

static void build_put(struct kvs *kvs, const char *bucket, const struct kvs_pair *pairs, size_t pair_count,
                      const struct kvs_bulk_put_options *options)
{
    struct kvs_request *request = begin_bulk(kvs, "bulk.put", bucket);

    kvs_request_map(request, pair_count);
    for (size_t i = 0; i < pair_count; i++) {
        kvs_request_string(request, pairs[i].key);
        kvs_request_binary(request, pairs[i].value, pairs[i].value_size);
    }
    check_twins(request, pairs, pair_count);
    if (options != NULL)
        request_option_integer(request, "ttl", options->ttl_s);
}

enum kvs_code kvs_bulk_put(struct kvs *kvs, const char *bucket, const struct kvs_pair *pairs, size_t pair_count,
                           const struct kvs_bulk_put_options *options, struct kvs_bulk_result **results,
                           size_t *failed_count)
{
    struct bulk bulk = {.pairs = pairs, .count = pair_count};

    build_put(kvs, bucket, pairs, pair_count, options);
    enum kvs_code code = blocking_run(kvs, CALL_TIMEOUT(options), read_results, &bulk);
    return finish_writes(kvs, code, &bulk, results, failed_count);
}

enum kvs_code kvs_async_bulk_put(struct kvs *kvs, const char *bucket, const struct kvs_pair *pairs, size_t pair_count,
                                 const struct kvs_bulk_put_options *options, kvs_done_fn *done, void *context)
{
    build_put(kvs, bucket, pairs, pair_count, options);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

enum kvs_code kvs_bulk_delete(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                              const struct kvs_call_options *options, struct kvs_bulk_result **results,
                              size_t *failed_count)
{
    struct bulk bulk = {.keys = keys, .count = key_count};

    add_keys(begin_bulk(kvs, "bulk.delete", bucket), keys, key_count);
    enum kvs_code code = blocking_run(kvs, CALL_TIMEOUT(options), read_results, &bulk);
    return finish_writes(kvs, code, &bulk, results, failed_count);
}

enum kvs_code kvs_async_bulk_delete(struct kvs *kvs, const char *bucket, const char *const *keys, size_t key_count,
                                    const struct kvs_call_options *options, kvs_done_fn *done, void *context)
{
    add_keys(begin_bulk(kvs, "bulk.delete", bucket), keys, key_count);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}
