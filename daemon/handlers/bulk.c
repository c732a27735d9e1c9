#include "daemon/base/key_index.h"
#include "daemon/handlers/bulk_keys.h"
#include "daemon/handlers/entry.h"
#include "daemon/handlers/kv_arguments.h"
#include "daemon/handlers/methods.h"
#include "daemon/handlers/service.h"
#include "daemon/handlers/steps.h"
#include "daemon/nats/kv.h"
#include "daemon/rpc/arguments.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/rpc/options.h"
#include "daemon/store/follow/cached_read.h"
#include "daemon/store/read/bulk_get.h"
#include "daemon/store/read/multi_last.h"

#include <string.h>

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
    struct steps steps; /* over the keys: to read them, and to name the missing ones in the answer */
    struct key_index index;
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

static struct bulk_get_call *bulk_get_of_steps(struct steps *steps)
{
    return (struct bulk_get_call *)((char *)steps - offsetof(struct bulk_get_call, steps));
}

static bool bulk_get_pack_missing(struct steps *steps, size_t index)
{
    struct bulk_get_call *get = bulk_get_of_steps(steps);
    size_t size = get->entries.size;

    if (!get->is_there[index] && bulk_begin_pair(get->call, &get->packer, &get->entries, get->keys[index])) {
        msgpack_pack_nil(&get->packer);
        arena_charge(&get->call->arena, get->entries.size - size);
    }
    return true;
}

static void bulk_get_end(struct steps *steps)
{
    struct bulk_get_call *get = bulk_get_of_steps(steps);

    msgpack_pack_map(call_begin_result(get->call), get->bulk.count);
    call_end_result_with(get->call, &get->entries);
}

static void bulk_get_answer(void *arg, const struct error *error)
{
    struct bulk_get_call *get = arg;

    if (error != NULL) {
        call_fail(get->call, error);
        return;
    }
    get->steps = (struct steps){
        .call = get->call, .count = get->bulk.count, .step = bulk_get_pack_missing, .done = bulk_get_end};
    steps_start(&get->steps);
}

/* Read a key of the array, each once. */
static bool bulk_get_read_key(struct steps *steps, size_t index)
{
    struct bulk_get_call *get = bulk_get_of_steps(steps);
    const msgpack_object *item = &argument_to_array(&get->call->arguments[1])->ptr[index];
    uint32_t number = (uint32_t)index;

    if (!argument_is_text(item))
        return bulk_refuse_type(get->call, number, item);
    const char *wrong = kv_check_key(item->via.str.ptr, item->via.str.size);
    if (wrong != NULL) {
        char description[ARGUMENT_DESCRIPTION_BYTES];
        call_fail_with(get->call, ERROR_INVALID_ARGUMENT, "key number %u, %s: %s", number + 1,
                       argument_describe(item, description), wrong);
        return false;
    }
    char *key = arena_strndup(&get->call->arena, item->via.str.ptr, item->via.str.size);
    if (key == NULL) {
        call_fail_out_of_memory(get->call);
        return false;
    }
    if (key_index_add(&get->index, key, number) == number)
        get->keys[get->bulk.count++] = key;
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

static void bulk_get_start(struct steps *steps)
{
    struct bulk_get_call *get = bulk_get_of_steps(steps);
    struct call *call = get->call;

    if (cached_read_may_answer(call_store(call), call->bucket, get->bulk.consistency)) {
        bulk_get_begin_part(get);
        bulk_get_await_snapshot(get);
    } else {
        bulk_get_ask_nats(get);
    }
}

/* Allocate what depends on the number of keys. False: the call is answered. */
static bool bulk_get_begin(struct bulk_get_call *get, size_t keys)
{
    struct arena *arena = &get->call->arena;

    get->keys = arena_alloc(arena, (keys + 1) * sizeof(*get->keys));
    get->is_there = arena_zalloc(arena, keys + 1);
    if (get->keys != NULL && get->is_there != NULL && key_index_init(&get->index, arena, keys))
        return true;
    call_fail_out_of_memory(get->call);
    return false;
}

void handle_bulk_get(struct call *call)
{
    const msgpack_object_array *array = argument_to_array(&call->arguments[1]);
    struct bulk_get_call *get = arena_zalloc(&call->arena, sizeof(*get));

    if (get == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    if (array == NULL) {
        argument_refuse(call, "argument 2", "an array of keys", &call->arguments[1]);
        return;
    }
    get->call = call;
    if (!bulk_check_count(call, array->size) || !kv_option_consistency(call, &get->bulk.consistency) ||
        !bulk_get_begin(get, array->size))
        return;
    get->packing.owner = call->arena.owner;
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
    get->steps = (struct steps){.call = call, .count = array->size, .step = bulk_get_read_key, .done = bulk_get_start};
    steps_read(&get->steps);
}
