#include "daemon/base/key_index.h"
#include "daemon/handlers/delete_matching.h"
#include "daemon/handlers/entry.h"
#include "daemon/handlers/kv_arguments.h"
#include "daemon/handlers/methods.h"
#include "daemon/nats/kv.h"
#include "daemon/rpc/arguments.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/rpc/options.h"
#include "daemon/store/follow/cached_read.h"
#include "daemon/store/read/bulk_get.h"
#include "daemon/store/read/multi_last.h"
#include "daemon/store/write/bulk_write.h"
#include "proto/utf8.h"

#include <stdio.h>
#include <string.h>

/* Most keys of one call: the checks of all of them are done in one turn of the loop. */
#define KEYS_MAX 16384u

static bool bulk_check_count(struct call *call, uint32_t count)
{
    if (count <= KEYS_MAX)
        return true;
    call_fail_with(call, ERROR_TOO_LARGE, "%s takes up to %u keys; this call has %u", call->method->name, KEYS_MAX,
                   count);
    return false;
}

/* Answer the call: a key is not text. Return false. */
static bool bulk_refuse_type(struct call *call, uint32_t index, const msgpack_object *key)
{
    char what[32];

    snprintf(what, sizeof(what), "key number %u", index + 1);
    return argument_refuse(call, what, "a text (str or bin)", key);
}

static char *bulk_copy_key(struct call *call, const msgpack_object *key)
{
    return arena_strndup(&call->arena, key->via.str.ptr, key->via.str.size);
}

/* --- bulk.get -------------------------------------------------------------------------------------- */

/* After this number of packed bytes, check whether the slice is over. */
#define PACK_BYTES 65536u

/* Keys that are read from memory at one point in time: when the packing of the part begins. */
struct bulk_get_part {
    size_t begin, end;
    size_t next;            /* to be packed */
    size_t begin_size;      /* of entries, when the part began */
    size_t checked_size;    /* of entries, when the slice was last checked */
    uint64_t *revisions;    /* since the first pause: of the keys from next on, indexed from begin; 0: absent */
    bool is_packed_at_once; /* a key changed during a pause: now pack without pauses */
};

struct bulk_get_call {
    struct bulk_get bulk;
    struct call *call;
    const char **keys;
    bool *is_there;
    struct arena_task entries_task;
    msgpack_sbuffer entries; /* packed keys and entries that are present, in the order of arrival */
    msgpack_packer packer;
    struct cached_read_snapshot snapshot;
    struct job packing;
    struct bulk_get_part part;
    size_t charged; /* bytes of entries that the call was charged for */
};

static void bulk_get_free(struct arena_task *task)
{
    struct bulk_get_call *get = ARENA_TASK_OWNER(task, struct bulk_get_call, entries_task);

    jobs_remove(call_store(get->call)->jobs, &get->packing);
    msgpack_sbuffer_destroy(&get->entries);
}

static void bulk_get_forget(void *arg)
{
    struct bulk_get_call *get = arg;

    msgpack_sbuffer_clear(&get->entries);
    memset(get->is_there, 0, get->bulk.count);
}

static size_t bulk_get_keep_entry(void *arg, size_t index, const struct kv_entry *entry)
{
    struct bulk_get_call *get = arg;
    size_t size = get->entries.size;

    get->is_there[index] = true;
    pack_str(&get->packer, get->keys[index]);
    entry_pack(entry, &get->packer);
    return get->entries.size - size;
}

static void bulk_get_answer(void *arg, const struct error *error)
{
    struct bulk_get_call *get = arg;
    struct call *call = get->call;

    if (error != NULL) {
        call_fail(call, error);
        return;
    }
    for (size_t i = 0; i < get->bulk.count; i++) {
        if (!get->is_there[i]) {
            pack_str(&get->packer, get->keys[i]);
            msgpack_pack_nil(&get->packer);
        }
    }
    msgpack_pack_map(call_begin_result(call), get->bulk.count);
    call_end_result_with(call, &get->entries);
}

/* Read the keys of an array, each once. Return false if the call is answered. */
static bool bulk_read_keys(struct call *call, const char ***keys, size_t *count)
{
    const msgpack_object_array *array = argument_to_array(&call->arguments[1]);
    struct key_index index;

    if (array == NULL)
        return argument_refuse(call, "argument 2", "an array of keys", &call->arguments[1]);
    if (!bulk_check_count(call, array->size))
        return false;
    *count = 0;
    *keys = arena_alloc(&call->arena, (array->size + 1) * sizeof(**keys));
    if (*keys == NULL || !key_index_init(&index, &call->arena, array->size)) {
        call_fail_out_of_memory(call);
        return false;
    }
    for (uint32_t i = 0; i < array->size; i++) {
        const msgpack_object *item = &array->ptr[i];
        if (!argument_is_text(item))
            return bulk_refuse_type(call, i, item);
        const char *wrong = kv_check_key(item->via.str.ptr, item->via.str.size);
        if (wrong != NULL) {
            char description[ARGUMENT_DESCRIPTION_BYTES];
            call_fail_with(call, ERROR_INVALID_ARGUMENT, "key number %u, %s: %s", i + 1,
                           argument_describe(item, description), wrong);
            return false;
        }
        char *key = bulk_copy_key(call, item);
        if (key == NULL) {
            call_fail_out_of_memory(call);
            return false;
        }
        if (key_index_add(&index, key, i) == i)
            (*keys)[(*count)++] = key;
    }
    return true;
}

/* Memory does not have every key: read all of them from NATS. */
static void bulk_get_ask_nats(struct bulk_get_call *get)
{
    struct call *call = get->call;

    bulk_get_forget(get);
    /* A follower or a mirror may be behind. With direct consistency, bulk_get checks who has answered. */
    if (get->bulk.consistency == READ_CACHED)
        get->bulk.consistency = READ_LEADER;
    get->bulk.charged_bytes = get->charged; /* what memory has brought is forgotten, and its charge used again */
    if (call_needs_nats(call))
        bulk_get(call_store(call), &call->arena, &get->bulk);
}

/* Return whether memory can answer for a key. *entry: NULL if the key does not exist. */
static bool bulk_get_find(struct bulk_get_call *get, size_t index, struct cache_view *view,
                          const struct kv_entry **entry)
{
    const char *key = get->keys[index];

    switch (cached_read_try_now(call_store(get->call), get->call->bucket, key, strlen(key), view)) {
    case LOCAL_COPY_HAS:
        *entry = &view->entry;
        return true;
    case LOCAL_COPY_LACKS:
        *entry = NULL;
        return true;
    case LOCAL_COPY_WAITS:
    case LOCAL_COPY_UNSURE:
        break;
    }
    return false;
}

/* Return whether packing should wait for the next turn. */
static bool bulk_get_must_pause(struct bulk_get_call *get)
{
    struct bulk_get_part *part = &get->part;

    if (part->is_packed_at_once || get->entries.size < part->checked_size + PACK_BYTES)
        return false;
    part->checked_size = get->entries.size;
    return part->next < part->end && jobs_slice_is_over(call_store(get->call)->jobs);
}

/* Note the revisions of the rest of the part. False: NATS must be asked for a key, or memory ran out. */
static bool bulk_get_note_revisions(struct bulk_get_call *get)
{
    struct bulk_get_part *part = &get->part;
    const struct kv_entry *entry;
    struct cache_view view;

    part->revisions = arena_alloc(&get->call->arena, (part->end - part->begin) * sizeof(*part->revisions));
    if (part->revisions == NULL)
        return false;
    for (size_t i = part->next; i < part->end; i++) {
        if (!bulk_get_find(get, i, &view, &entry))
            return false;
        part->revisions[i - part->begin] = entry != NULL ? entry->revision : 0;
    }
    return true;
}

enum bulk_get_verdict { BULK_GET_PACKED, BULK_GET_PAUSED, BULK_GET_CHANGED, BULK_GET_LACKS };

/* Pack the part, at the point in time at which its packing began, for a slice. */
static enum bulk_get_verdict bulk_get_pack_part(struct bulk_get_call *get)
{
    struct bulk_get_part *part = &get->part;
    const struct kv_entry *entry;
    struct cache_view view;

    while (part->next < part->end) {
        size_t index = part->next;
        uint64_t *noted = part->revisions != NULL ? &part->revisions[index - part->begin] : NULL;
        if (noted == NULL || *noted != 0) {
            if (!bulk_get_find(get, index, &view, &entry))
                return noted != NULL ? BULK_GET_CHANGED : BULK_GET_LACKS;
            if (noted != NULL && (entry == NULL || entry->revision != *noted))
                return BULK_GET_CHANGED;
            if (entry != NULL)
                bulk_get_keep_entry(get, index, entry);
        }
        part->next++;
        if (get->entries.size > get->bulk.bytes_max) { /* the answer will be refused: pack no more */
            part->next = part->end = get->bulk.count;
            break;
        }
        if (!bulk_get_must_pause(get))
            continue;
        return part->revisions != NULL || bulk_get_note_revisions(get) ? BULK_GET_PAUSED : BULK_GET_LACKS;
    }
    return BULK_GET_PACKED;
}

static void bulk_get_begin_part(struct bulk_get_call *get)
{
    size_t begin = get->part.end, left = get->bulk.count - begin;

    get->part = (struct bulk_get_part){.begin = begin,
                                       .end = begin + (left < MULTI_LAST_KEYS_MAX ? left : MULTI_LAST_KEYS_MAX),
                                       .next = begin,
                                       .begin_size = get->entries.size,
                                       .checked_size = get->entries.size};
}

/* A key has changed before it was packed: the part begins again, at another point in time. */
static void bulk_get_begin_part_again(struct bulk_get_call *get)
{
    struct bulk_get_part *part = &get->part;

    get->entries.size = part->checked_size = part->begin_size;
    memset(get->is_there + part->begin, 0, part->end - part->begin);
    part->next = part->begin;
    part->revisions = NULL;
    part->is_packed_at_once = true;
}

static void bulk_get_await_snapshot(struct bulk_get_call *get);
static bool bulk_get_run(struct job *job);

/* False: the call is answered. What was packed before a part began again was charged already. */
static bool bulk_get_charge(struct bulk_get_call *get)
{
    size_t more = get->entries.size > get->charged ? get->entries.size - get->charged : 0;
    struct error error;

    get->charged += more;
    if (call_charge_memory(get->call, more))
        return true;
    get_set_memory_error(&error, "fewer keys");
    call_fail(get->call, &error);
    return false;
}

static void bulk_get_go_on(struct bulk_get_call *get)
{
    struct call *call = get->call;
    enum bulk_get_verdict verdict = bulk_get_pack_part(get);

    if (verdict == BULK_GET_LACKS) {
        cached_read_count(call_store(call), get->bulk.count, false);
        bulk_get_ask_nats(get);
        return;
    }
    if (!bulk_get_charge(get))
        return;
    if (verdict == BULK_GET_CHANGED) {
        bulk_get_begin_part_again(get);
        bulk_get_await_snapshot(get);
    } else if (verdict == BULK_GET_PAUSED || get->part.end < get->bulk.count) {
        jobs_add(call_store(call)->jobs, &get->packing, bulk_get_run);
    } else {
        cached_read_count(call_store(call), get->bulk.count, true);
        bulk_get_answer(get, NULL);
    }
}

static void bulk_get_on_snapshot(void *arg, bool has_come)
{
    struct bulk_get_call *get = arg;

    if (has_come) {
        bulk_get_go_on(get);
        return;
    }
    cached_read_count(call_store(get->call), get->bulk.count, false);
    bulk_get_ask_nats(get);
}

static void bulk_get_await_snapshot(struct bulk_get_call *get)
{
    get->snapshot.bucket_name = get->call->bucket;
    get->snapshot.keys = get->bulk.count;
    get->snapshot.deadline_ms = get->bulk.deadline_ms;
    get->snapshot.ready = bulk_get_on_snapshot;
    get->snapshot.arg = get;
    cached_read_await_snapshot(call_store(get->call), &get->call->arena, &get->snapshot);
}

/* Each part is of a point in time of its own. */
static bool bulk_get_run(struct job *job)
{
    struct bulk_get_call *get = (struct bulk_get_call *)((char *)job - offsetof(struct bulk_get_call, packing));

    if (get->part.next < get->part.end) {
        bulk_get_go_on(get);
    } else {
        bulk_get_begin_part(get);
        bulk_get_await_snapshot(get);
    }
    return false;
}

void handle_bulk_get(struct call *call)
{
    struct bulk_get_call *get = arena_zalloc(&call->arena, sizeof(*get));

    if (get == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    if (!bulk_read_keys(call, &get->keys, &get->bulk.count) || !kv_option_consistency(call, &get->bulk.consistency))
        return;
    get->is_there = arena_zalloc(&call->arena, get->bulk.count + 1);
    if (get->is_there == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    get->call = call;
    msgpack_sbuffer_init(&get->entries);
    arena_begin_reading_task(&call->arena, &get->entries_task, bulk_get_free);
    msgpack_packer_init(&get->packer, &get->entries, msgpack_sbuffer_write);
    get->bulk.bucket_name = call->bucket;
    get->bulk.keys = get->keys;
    get->bulk.deadline_ms = call->deadline_ms;
    get->bulk.bytes_max = call->dispatcher->conf->limits.frame_bytes;
    get->bulk.take_memory = call_charge_memory;
    get->bulk.memory_arg = call;
    get->bulk.restart = bulk_get_forget;
    get->bulk.entry = bulk_get_keep_entry;
    get->bulk.done = bulk_get_answer;
    get->bulk.arg = get;
    if (cached_read_may_answer(call_store(call), call->bucket, get->bulk.consistency)) {
        bulk_get_begin_part(get);
        bulk_get_await_snapshot(get);
    } else {
        bulk_get_ask_nats(get);
    }
}

/* --- bulk.put and bulk.delete ---------------------------------------------------------------------- */

struct bulk_write_call {
    struct bulk_write bulk;
    struct call *call;
    struct operation *operations;
};

/* Every result is a map, so that typed languages can decode all of them alike. */
static void bulk_pack_result(msgpack_packer *packer, const struct call *call, const char *key,
                             const struct bulk_result *result)
{
    msgpack_pack_map(packer, 1);
    if (result->error != NULL) {
        struct error complete = *result->error;
        complete.bucket = call->bucket;
        complete.key = key;
        call->dispatcher->metrics->unknown_outcomes += complete.outcome == ERROR_OUTCOME_UNKNOWN;
        pack_str(packer, "error");
        error_pack(&complete, packer);
    } else {
        pack_str(packer, "revision");
        msgpack_pack_uint64(packer, result->revision);
    }
}

static void bulk_write_answer(void *arg)
{
    struct bulk_write_call *write = arg;
    struct call *call = write->call;
    msgpack_packer *packer = call_begin_result(call);

    msgpack_pack_map(packer, write->bulk.count);
    for (size_t i = 0; i < write->bulk.count; i++) {
        const char *key = write->operations[i].key;
        pack_str(packer, key);
        bulk_pack_result(packer, call, key, &write->bulk.results[i]);
    }
    call_end_result(call);
}

/* If the client has left, the call goes on. */
static bool bulk_write_is_cancelled(void *arg)
{
    return ((const struct bulk_write_call *)arg)->call->is_cancelled;
}

static struct bulk_write_call *bulk_write_new(struct call *call, size_t count)
{
    struct bulk_write_call *write = arena_zalloc(&call->arena, sizeof(*write));

    if (write != NULL) {
        write->operations = arena_zalloc(&call->arena, (count + 1) * sizeof(*write->operations));
        write->bulk.results = arena_zalloc(&call->arena, (count + 1) * sizeof(*write->bulk.results));
    }
    if (write == NULL || write->operations == NULL || write->bulk.results == NULL) {
        call_fail_out_of_memory(call);
        return NULL;
    }
    write->call = call;
    write->bulk.bucket_name = call->bucket;
    write->bulk.operations = write->operations;
    write->bulk.deadline_ms = call->deadline_ms;
    write->bulk.done = bulk_write_answer;
    write->bulk.is_cancelled = bulk_write_is_cancelled;
    write->bulk.arg = write;
    if (!kv_option_id(call, &write->bulk.journal))
        return NULL;
    return write;
}

/* Make the result of one key an error: its mistake fails no other key. */
static void bulk_write_refuse_key(struct call *call, struct bulk_result *result, const char *wrong)
{
    struct error error;

    error_set(&error, ERROR_INVALID_ARGUMENT, "%s", wrong);
    error.outcome = ERROR_OUTCOME_NONE;
    result->error = bulk_copy_error(&call->arena, &error);
}

/*
 * Add an operation for the key number index. If the key is wrong, its result is already set. Return NULL if the call is
 * answered.
 */
static struct operation *bulk_write_add_operation(struct call *call, struct bulk_write_call *write, uint32_t index,
                                                  const msgpack_object *key)
{
    struct operation *operation = &write->operations[write->bulk.count];

    if (!argument_is_text(key)) {
        bulk_refuse_type(call, index, key);
        return NULL;
    }
    /* Such a key could not be a key of the answer's map, or would look like a shorter one. */
    if (memchr(key->via.str.ptr, '\0', key->via.str.size) != NULL ||
        !utf8_is_valid(key->via.str.ptr, key->via.str.size)) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "key number %u must be UTF-8 without a NUL", index + 1);
        return NULL;
    }
    operation->key = bulk_copy_key(call, key);
    operation->value = "";
    if (operation->key == NULL) {
        call_fail_out_of_memory(call);
        return NULL;
    }
    const char *wrong = kv_check_key(key->via.str.ptr, key->via.str.size);
    if (wrong != NULL)
        bulk_write_refuse_key(call, &write->bulk.results[write->bulk.count], wrong);
    write->bulk.count++;
    return operation;
}

void handle_bulk_put(struct call *call)
{
    const msgpack_object_map *map = argument_to_map(&call->arguments[1]);
    int64_t ttl_s;

    if (map == NULL) {
        argument_refuse(call, "argument 2", "a map of keys to values", &call->arguments[1]);
        return;
    }
    if (!bulk_check_count(call, map->size))
        return;
    struct bulk_write_call *write = bulk_write_new(call, map->size);
    if (write == NULL || !kv_option_ttl(call, &ttl_s))
        return;
    struct key_index index;
    if (!key_index_init(&index, &call->arena, map->size)) {
        call_fail_out_of_memory(call);
        return;
    }
    for (uint32_t i = 0; i < map->size; i++) {
        struct operation *operation = bulk_write_add_operation(call, write, i, &map->ptr[i].key);
        if (operation == NULL)
            return;
        if (key_index_add(&index, operation->key, i) != i) {
            call_fail_with(call, ERROR_INVALID_ARGUMENT, "the key \"%.64s\" is there twice", operation->key);
            return;
        }
        operation->kind = KV_PUT;
        operation->ttl_s = ttl_s;
        const char *wrong = kv_argument_bytes(call, &map->ptr[i].val, &operation->value, &operation->value_bytes);
        if (wrong != NULL)
            bulk_write_refuse_key(call, &write->bulk.results[i], wrong);
    }
    bulk_write(call_store(call), &call->arena, &write->bulk);
}

/* Return the keys of bulk.delete. If there are none, an empty array was taken for empty options. NULL: wrong. */
static const msgpack_object_array *bulk_delete_keys(const struct call *call)
{
    static const msgpack_object_array none;

    if (call->argument_count > 1)
        return argument_to_array(&call->arguments[1]);
    return call->options != NULL && call->options->size == 0 ? &none : NULL;
}

void handle_bulk_delete(struct call *call)
{
    if (option_find(call, "filter") != NULL) {
        delete_matching_start(call, KV_DELETE);
        return;
    }
    const msgpack_object_array *array = bulk_delete_keys(call);
    struct key_index index;

    if (array == NULL && call->argument_count > 1) {
        argument_refuse(call, "argument 2", "an array of keys", &call->arguments[1]);
        return;
    }
    if (array == NULL) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "bulk.delete takes an array of keys, or the option filter");
        return;
    }
    if (!bulk_check_count(call, array->size))
        return;
    struct bulk_write_call *write = bulk_write_new(call, array->size);
    if (write == NULL)
        return;
    if (!key_index_init(&index, &call->arena, array->size)) {
        call_fail_out_of_memory(call);
        return;
    }
    for (uint32_t i = 0; i < array->size; i++) {
        struct operation *operation = bulk_write_add_operation(call, write, i, &array->ptr[i]);
        if (operation == NULL)
            return;
        operation->kind = KV_DELETE;
        /* A key that is named twice is deleted once. */
        if (key_index_add(&index, operation->key, i) != i) {
            write->bulk.count--;
            write->bulk.results[write->bulk.count].error = NULL;
        }
    }
    bulk_write(call_store(call), &call->arena, &write->bulk);
}
