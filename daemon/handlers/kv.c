#include "daemon/handlers/entry.h"
#include "daemon/handlers/kv_arguments.h"
#include "daemon/handlers/methods.h"
#include "daemon/handlers/session_holding.h"
#include "daemon/handlers/waiting_get.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/rpc/json.h"
#include "daemon/rpc/options.h"
#include "daemon/store/bucket/settings.h"
#include "daemon/store/follow/cached_read.h"
#include "daemon/store/lease/held_write.h"
#include "daemon/store/read/get.h"
#include "daemon/store/read/scan.h"
#include "daemon/store/write/rewrite.h"

#include <stdio.h>
#include <string.h>

/* --- Reads ----------------------------------------------------------------------------------------- */

/* Answer from memory if that is possible at once. Return whether the call is answered. */
static bool kv_answer_at_once(struct call *call, const char *key, get_done_fn *done)
{
    struct cache_view view;

    switch (cached_read_try(call_store(call), &call->arena, call->bucket, key, strlen(key), &view)) {
    case LOCAL_COPY_HAS:
        done(call, &view.entry, NULL);
        return true;
    case LOCAL_COPY_LACKS:
        done(call, NULL, NULL);
        return true;
    case LOCAL_COPY_WAITS:
    case LOCAL_COPY_UNSURE:
        break;
    }
    return false;
}

static void kv_start_get(struct call *call, get_done_fn *done)
{
    enum read_consistency consistency;
    const char *key;
    int64_t revision;

    if (!kv_argument_key(call, 1, &key) || !option_integer(call, "revision", 1, INT64_MAX, 0, &revision) ||
        !kv_option_consistency(call, &consistency))
        return;
    bool may_use_memory = revision == 0 && cached_read_may_answer(call_store(call), call->bucket, consistency);
    if (may_use_memory && kv_answer_at_once(call, key, done))
        return;
    if (!call_needs_nats(call))
        return;
    struct cached_read_fetch *read = arena_zalloc(&call->arena, sizeof(*read));
    if (read == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    read->get.bucket_name = call->bucket;
    read->get.key = key;
    read->get.revision = (uint64_t)revision;
    read->get.consistency = consistency;
    read->get.must_be_current = cached_read_must_be_current(call_store(call), call->bucket, consistency);
    read->get.deadline_ms = call->deadline_ms;
    read->get.done = done;
    read->get.arg = call;
    if (may_use_memory)
        cached_read_fetch(call_store(call), &call->arena, read);
    else
        get_start(call_store(call), &call->arena, &read->get);
}

static void kv_answer_entry(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct call *call = arg;

    if (error != NULL) {
        call_fail(call, error);
        return;
    }
    msgpack_packer *packer = call_begin_result(call);
    if (entry != NULL)
        entry_pack(entry, packer);
    else
        msgpack_pack_nil(packer);
    call_end_result(call);
}

/* The key has not changed in time: answer with its present entry. */
static void kv_give_up_waiting(struct call *call)
{
    kv_start_get(call, kv_answer_entry);
}

static void kv_start_waiting_get(struct call *call)
{
    enum read_consistency consistency;
    const char *key;
    int64_t above;

    if (!kv_argument_key(call, 1, &key) || !kv_option_consistency(call, &consistency) ||
        !option_integer(call, "wait_above", 0, INT64_MAX, 0, &above))
        return;
    if (option_find(call, "revision") != NULL)
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "wait_above and revision exclude each other");
    else if (call->is_notification)
        call_drop(call);
    else if (call_needs_nats(call))
        waiting_get_start(call, key, (uint64_t)above, kv_give_up_waiting);
}

void handle_kv_get(struct call *call)
{
    if (option_find(call, "wait_above") != NULL)
        kv_start_waiting_get(call);
    else
        kv_start_get(call, kv_answer_entry);
}

/* The limits of a message apply to the answer, too. Its envelope has five values: the array, type, msgid, error,
 * result. */
static void kv_answer_json(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct call *call = arg;
    const struct conf *conf = call->dispatcher->conf;
    struct json_limits limits = {conf->limits.frame_depth - 1, conf->limits.frame_elements - 5};
    char reason[JSON_REASON_BYTES];

    if (error != NULL || entry == NULL) {
        kv_answer_entry(arg, entry, error);
        return;
    }
    call_begin_result(call);
    const char *wrong = json_to_msgpack(&call->arena, entry->value, entry->value_bytes, &limits, call->out, reason);
    if (wrong == NULL) {
        call_end_result(call);
        return;
    }
    call_cancel_result(call);
    call_fail_with(call, ERROR_INVALID_ARGUMENT,
                   "the value is not JSON that can be sent (%s); kv.get answers its bytes", wrong);
}

void handle_kv_get_json(struct call *call)
{
    kv_start_get(call, kv_answer_json);
}

/* Each entry is packed when it comes: to pack a history of many large values takes longer than a turn may. */
struct kv_history_call {
    struct scan_history history;
    struct call *call;
    struct arena_task entries_task;
    msgpack_sbuffer entries; /* packed */
};

static void kv_history_free(struct arena_task *task)
{
    msgpack_sbuffer_destroy(&ARENA_TASK_OWNER(task, struct kv_history_call, entries_task)->entries);
}

static void kv_history_restart(void *arg)
{
    msgpack_sbuffer_clear(&((struct kv_history_call *)arg)->entries);
}

static size_t kv_history_pack(void *arg, const struct kv_entry *entry)
{
    struct kv_history_call *history = arg;
    size_t size = history->entries.size;
    msgpack_packer packer;

    msgpack_packer_init(&packer, &history->entries, msgpack_sbuffer_write);
    entry_pack(entry, &packer);
    return history->entries.size - size;
}

static void kv_history_answer(void *arg, size_t count, const struct error *error)
{
    struct kv_history_call *history = arg;
    struct call *call = history->call;

    if (error != NULL) {
        call_fail(call, error);
        return;
    }
    msgpack_pack_array(call_begin_result(call), count);
    call_end_result_with(call, &history->entries);
}

void handle_kv_history(struct call *call)
{
    struct kv_history_call *history = arena_zalloc(&call->arena, sizeof(*history));
    struct scan_history *scan = &history->history;

    if (history == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    if (!kv_argument_key(call, 1, &scan->key))
        return;
    history->call = call;
    msgpack_sbuffer_init(&history->entries);
    arena_begin_reading_task(&call->arena, &history->entries_task, kv_history_free);
    scan->bucket_name = call->bucket;
    scan->deadline_ms = call->deadline_ms;
    scan->bytes_max = call->dispatcher->conf->limits.frame_bytes;
    scan->take_memory = call_charge_memory;
    scan->memory_arg = call;
    scan->restart = kv_history_restart;
    scan->entry = kv_history_pack;
    scan->done = kv_history_answer;
    scan->arg = history;
    scan_history(call_store(call), &call->arena, scan);
}

/* --- kv.keys --------------------------------------------------------------------------------------- */

/* Up to this number of keys, the answer is packed at once. To pack a million takes 70 ms. */
#define KEYS_AT_ONCE 1000u

/* Keys that are packed before the slice is looked at. */
#define KEYS_AT_A_TIME 64u

struct kv_keys_call {
    struct cached_read_keys read;
    struct call *call;
    const struct scan_keys *keys;
    struct key_order_place place; /* of the next key to pack */
    msgpack_sbuffer packed;
    struct arena_task packed_task;
    struct walk packing;
};

static void kv_keys_free(struct arena_task *task)
{
    struct kv_keys_call *listing = ARENA_TASK_OWNER(task, struct kv_keys_call, packed_task);

    walks_remove(&listing->packing);
    msgpack_sbuffer_destroy(&listing->packed);
}

/* Pack up to count keys. Return false at the end. */
static bool kv_keys_pack(struct kv_keys_call *listing, msgpack_packer *packer, size_t count)
{
    const char *key = NULL;

    for (; count > 0 && (key = scan_keys_next(listing->keys, &listing->place)) != NULL; count--)
        pack_foreign_text(packer, key);
    return key != NULL;
}

static void kv_keys_pack_slice(struct walk *walk)
{
    struct kv_keys_call *listing = (struct kv_keys_call *)((char *)walk - offsetof(struct kv_keys_call, packing));
    struct call *call = listing->call;
    msgpack_packer packer;

    msgpack_packer_init(&packer, &listing->packed, msgpack_sbuffer_write);
    while (kv_keys_pack(listing, &packer, KEYS_AT_A_TIME)) {
        if (jobs_slice_is_over(call_store(call)->jobs)) {
            walks_add(call_store(call), walk, call->arena.owner, kv_keys_pack_slice);
            return;
        }
    }
    msgpack_pack_array(call_begin_result(call), scan_keys_count(listing->keys));
    call_end_result_with(call, &listing->packed);
}

static void kv_answer_keys(void *arg, struct scan_keys *keys, const struct error *error)
{
    struct kv_keys_call *listing = arg;
    struct call *call = listing->call;

    if (error != NULL) {
        call_fail(call, error);
        return;
    }
    listing->keys = keys;
    if (scan_keys_count(keys) <= KEYS_AT_ONCE) {
        msgpack_packer *packer = call_begin_result(call);
        msgpack_pack_array(packer, scan_keys_count(keys));
        kv_keys_pack(listing, packer, SIZE_MAX);
        call_end_result(call);
        return;
    }
    if (!call_charge_memory(call, scan_keys_bytes(keys))) {
        struct error full;
        get_set_memory_error(&full, "less");
        call_fail(call, &full);
        return;
    }
    msgpack_sbuffer_init(&listing->packed);
    arena_begin_reading_task(&call->arena, &listing->packed_task, kv_keys_free);
    walks_add(call_store(call), &listing->packing, call->arena.owner, kv_keys_pack_slice);
}

void handle_kv_keys(struct call *call)
{
    struct kv_keys_call *listing = arena_zalloc(&call->arena, sizeof(*listing));
    enum read_consistency consistency;
    int64_t limit;

    if (listing == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    listing->call = call;
    struct cached_read_keys *read = &listing->read;
    struct scan_keys *keys = &read->keys;
    if (!kv_option_filter(call, &keys->filter) ||
        !option_foreign_text(call, "after", KV_FOREIGN_KEY_LENGTH_MAX, &keys->after) ||
        !option_integer(call, "limit", 1, 1000000000, 0, &limit) || !kv_option_consistency(call, &consistency))
        return;
    if (consistency == READ_LEADER) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT,
                       "consistency of kv.keys must be \"direct\" or \"cached\", not \"leader\"");
        return;
    }
    keys->bucket_name = call->bucket;
    keys->limit = (size_t)limit;
    keys->deadline_ms = call->deadline_ms;
    keys->bytes_max = call->dispatcher->conf->limits.frame_bytes;
    keys->take_memory = call_charge_memory;
    keys->memory_arg = call;
    keys->done = kv_answer_keys;
    keys->arg = listing;
    bool may_use_memory = cached_read_may_answer(call_store(call), call->bucket, consistency);
    if (!(may_use_memory && cached_read_is_ready(call_store(call), call->bucket)) && !call_needs_nats(call))
        return;
    read->is_direct = consistency != READ_CACHED;
    if (may_use_memory)
        cached_read_keys(call_store(call), &call->arena, read);
    else
        scan_keys(call_store(call), &call->arena, keys);
}

/* --- Writes ---------------------------------------------------------------------------------------- */

static void kv_answer_revision(void *arg, uint64_t revision, const struct error *error)
{
    struct call *call = arg;

    if (error != NULL) {
        kv_fail(call, error);
        return;
    }
    msgpack_packer *packer = call_begin_result(call);
    if (revision > 0)
        msgpack_pack_uint64(packer, revision);
    else
        msgpack_pack_nil(packer);
    call_end_result(call);
}

/* Make a write of the call's bucket and key. NULL: the call is answered. */
static struct write *kv_new_write(struct call *call, enum kv_operation kind)
{
    struct write *write = arena_zalloc(&call->arena, sizeof(*write));

    if (write == NULL) {
        call_fail_out_of_memory(call);
        return NULL;
    }
    if (!kv_argument_key(call, 1, &write->operation.key) || !kv_option_id(call, &write->journal))
        return NULL;
    write->bucket_name = call->bucket;
    write->operation.kind = kind;
    write->operation.value = "";
    write->deadline_ms = call->deadline_ms;
    write->done = kv_answer_revision;
    write->arg = call;
    return write;
}

/* --- Ephemeral keys --- */

struct kv_ephemeral_call {
    struct call *call;
    struct session_holding_place place;
    struct held_write held;
};

static void kv_answer_ephemeral(void *arg, struct holding *holding, const struct error *error)
{
    struct kv_ephemeral_call *ephemeral = arg;
    struct call *call = ephemeral->call;

    if (holding != NULL && !session_holding_is_allowed(call)) {
        holding_end(holding);
        call_fail_with(call, ERROR_PERMISSION_DENIED, SESSION_HOLDING_DENIED "; the key is being deleted");
        return;
    }
    if (holding == NULL || session_holding_give(call, &ephemeral->place, holding))
        kv_answer_revision(call, ephemeral->held.revision, error);
}

/* Write a key that lives as long as the session. */
static void kv_start_ephemeral(struct call *call, const struct write *write)
{
    struct kv_ephemeral_call *ephemeral = arena_zalloc(&call->arena, sizeof(*ephemeral));

    if (write->journal.id != NULL || write->operation.ttl_s > 0 || call->is_notification) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT,
                       "an ephemeral key has no ttl, its write has no id, and it is no notification");
        return;
    }
    if (ephemeral == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    if (!session_holding_take_place(call, &ephemeral->place))
        return;
    ephemeral->call = call;
    struct held_write *held = &ephemeral->held;
    held->in = lease_bucket_obtain(call_store(call), call->bucket);
    if (held->in == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    held->kind = HOLDING_EPHEMERAL;
    held->operation = write->operation;
    held->deadline_ms = call->deadline_ms;
    held->done = kv_answer_ephemeral;
    held->arg = ephemeral;
    held_write_start(&call->arena, held);
}

/* --- Keeping a TTL --- */

/* Start a put or an update that keeps the TTL of the present entry. */
static void kv_start_put_with_kept_ttl(struct call *call, const struct write *write)
{
    const struct operation *operation = &write->operation;
    struct rewrite *rewrite = arena_zalloc(&call->arena, sizeof(*rewrite));

    if (rewrite == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    rewrite->modify.bucket_name = write->bucket_name;
    rewrite->modify.key = operation->key;
    rewrite->modify.deadline_ms = write->deadline_ms;
    rewrite->modify.journal = write->journal;
    rewrite->kind = REWRITE_KEEP_TTL;
    rewrite->ttl_s = operation->ttl_s;
    rewrite->has_condition = operation->condition == OPERATION_IF_AT_REVISION;
    rewrite->revision = operation->revision;
    rewrite->value = operation->value;
    rewrite->value_bytes = operation->value_bytes;
    rewrite->headers = operation->headers;
    rewrite->header_count = operation->header_count;
    rewrite->done = kv_answer_revision;
    rewrite->arg = call;
    rewrite_start(call_store(call), &call->arena, rewrite);
}

/* Start a put, create or update: they share the value, the TTL and the headers. */
static void kv_start_put(struct call *call, enum operation_condition condition)
{
    struct write *write = kv_new_write(call, KV_PUT);
    bool is_ephemeral = false, keeps_ttl = false;

    if (write == NULL || !kv_argument_value(call, 2, &write->operation.value, &write->operation.value_bytes) ||
        !kv_option_ttl(call, &write->operation.ttl_s) ||
        !kv_option_headers(call, "headers", &write->operation.headers, &write->operation.header_count) ||
        !option_bool(call, "ephemeral", &is_ephemeral))
        return;
    write->operation.condition = condition;
    if (condition == OPERATION_IF_AT_REVISION && !argument_revision(call, 3, &write->operation.revision))
        return;
    if (condition != OPERATION_IF_ABSENT && !option_bool(call, "keep_ttl", &keeps_ttl))
        return;
    if (is_ephemeral && keeps_ttl)
        call_fail_with(call, ERROR_INVALID_ARGUMENT, "ephemeral and keep_ttl exclude each other");
    else if (is_ephemeral)
        kv_start_ephemeral(call, write);
    else if (keeps_ttl)
        kv_start_put_with_kept_ttl(call, write);
    else
        write_start(call_store(call), &call->arena, write);
}

void handle_kv_put(struct call *call)
{
    kv_start_put(call, OPERATION_ALWAYS);
}

void handle_kv_create(struct call *call)
{
    kv_start_put(call, OPERATION_IF_ABSENT);
}

void handle_kv_update(struct call *call)
{
    kv_start_put(call, OPERATION_IF_AT_REVISION);
}

/* Start a delete or purge, which may have a revision as its condition. */
static void kv_start_removal(struct call *call, struct write *write)
{
    int64_t revision;

    if (!option_integer(call, "revision", 1, INT64_MAX, 0, &revision))
        return;
    if (revision > 0) {
        write->operation.condition = OPERATION_IF_AT_REVISION;
        write->operation.revision = (uint64_t)revision;
    }
    write_start(call_store(call), &call->arena, write);
}

void handle_kv_delete(struct call *call)
{
    struct write *write = kv_new_write(call, KV_DELETE);
    bool if_exists;

    if (write == NULL || !option_bool(call, "if_exists", &if_exists))
        return;
    if (if_exists && option_find(call, "revision") != NULL) {
        call_fail_with(call, ERROR_INVALID_ARGUMENT,
                       "if_exists and revision exclude each other: a revision implies it");
        return;
    }
    if (if_exists)
        write->operation.condition = OPERATION_IF_PRESENT;
    kv_start_removal(call, write);
}

void handle_kv_purge(struct call *call)
{
    struct write *write = kv_new_write(call, KV_PURGE);

    if (write != NULL && kv_option_ttl(call, &write->operation.ttl_s))
        kv_start_removal(call, write);
}

void handle_kv_touch(struct call *call)
{
    struct rewrite *rewrite = arena_zalloc(&call->arena, sizeof(*rewrite));
    const msgpack_object *ttl = &call->arguments[2];
    int64_t revision;

    if (rewrite == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    if (!kv_argument_key(call, 1, &rewrite->modify.key) || !kv_option_id(call, &rewrite->modify.journal) ||
        !option_integer(call, "revision", 1, INT64_MAX, 0, &revision))
        return;
    if (!argument_to_int64(ttl, &rewrite->ttl_s) || rewrite->ttl_s < 0 || rewrite->ttl_s > BUCKET_TTL_MAX_S) {
        char expected[80];
        snprintf(expected, sizeof(expected), "a whole number of seconds up to %lld, or 0 for none", BUCKET_TTL_MAX_S);
        argument_refuse(call, "ttl", expected, ttl);
        return;
    }
    rewrite->modify.bucket_name = call->bucket;
    rewrite->modify.deadline_ms = call->deadline_ms;
    rewrite->kind = REWRITE_TOUCH;
    rewrite->has_condition = revision > 0;
    rewrite->revision = (uint64_t)revision;
    rewrite->done = kv_answer_revision;
    rewrite->arg = call;
    rewrite_start(call_store(call), &call->arena, rewrite);
}
