/* kv.entries: a page of the entries of a bucket. */
#include "daemon/handlers/entry.h"
#include "daemon/handlers/kv_arguments.h"
#include "daemon/handlers/methods.h"
#include "daemon/nats/kv.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/rpc/options.h"
#include "daemon/store/follow/entries_read.h"

#include <string.h>

#define ENTRIES_LIMIT_MAX 1000

/* Bytes of an answer besides its entries: the envelope and the header of the array. */
#define ENVELOPE_BYTES 64u

/* Where a packed entry is. */
struct packed_entry {
    size_t offset, bytes;
};

struct kv_entries_call {
    struct entries_read read;
    struct call *call;
    struct arena_task packed_task;
    msgpack_sbuffer packed; /* in the order of arrival */
    struct packed_entry *places;
};

static void entries_free(struct arena_task *task)
{
    msgpack_sbuffer_destroy(&ARENA_TASK_OWNER(task, struct kv_entries_call, packed_task)->packed);
}

static void entries_forget(void *arg)
{
    msgpack_sbuffer_clear(&((struct kv_entries_call *)arg)->packed);
}

static size_t entries_pack(void *arg, size_t place, const struct kv_entry *entry)
{
    struct kv_entries_call *entries = arg;
    size_t offset = entries->packed.size;
    msgpack_packer packer;

    msgpack_packer_init(&packer, &entries->packed, msgpack_sbuffer_write);
    entry_pack(entry, &packer);
    entries->places[place] = (struct packed_entry){offset, entries->packed.size - offset};
    return entries->places[place].bytes;
}

/* Return how many entries belong to the page: headers can make them larger than the reading has estimated. */
static size_t entries_count_fitting(const struct kv_entries_call *entries, size_t count)
{
    size_t bytes = ENVELOPE_BYTES, frame_bytes = entries->call->dispatcher->conf->limits.frame_bytes;
    size_t max = frame_bytes < ENTRIES_PAGE_BYTES ? frame_bytes : ENTRIES_PAGE_BYTES;

    for (size_t i = 0; i < count; i++) {
        bytes += entries->places[i].bytes;
        if (bytes > max && i > 0)
            return i;
    }
    return count;
}

static void entries_answer(void *arg, size_t count, const struct error *error)
{
    struct kv_entries_call *entries = arg;
    struct call *call = entries->call;

    if (error != NULL) {
        call_fail(call, error);
        return;
    }
    count = entries_count_fitting(entries, count);
    msgpack_packer *packer = call_begin_result(call);
    msgpack_pack_array(packer, count);
    for (size_t i = 0; i < count; i++)
        packer->callback(packer->data, entries->packed.data + entries->places[i].offset, entries->places[i].bytes);
    call_end_result(call);
}

/* False: the call is answered. */
static bool entries_read_options(struct call *call, struct entries_read *read)
{
    int64_t limit;

    if (!kv_option_filter(call, &read->filter) ||
        !option_foreign_text(call, "after", KV_FOREIGN_KEY_LENGTH_MAX, &read->after) ||
        !option_integer(call, "limit", 1, ENTRIES_LIMIT_MAX, ENTRIES_LIMIT_MAX, &limit) ||
        !kv_option_consistency(call, &read->consistency))
        return false;
    read->limit = (size_t)limit;
    return true;
}

void handle_kv_entries(struct call *call)
{
    struct kv_entries_call *entries = arena_zalloc(&call->arena, sizeof(*entries));
    struct entries_read *read = &entries->read;

    if (entries == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    if (!entries_read_options(call, read))
        return;
    bool is_in_memory = cached_read_may_answer(call_store(call), call->bucket, read->consistency) &&
                        cached_read_is_ready(call_store(call), call->bucket);
    if (!is_in_memory && !call_needs_nats(call))
        return;
    entries->call = call;
    entries->places = arena_alloc(&call->arena, read->limit * sizeof(*entries->places));
    if (entries->places == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    msgpack_sbuffer_init(&entries->packed);
    arena_begin_reading_task(&call->arena, &entries->packed_task, entries_free);
    read->bucket_name = call->bucket;
    read->deadline_ms = call->deadline_ms;
    read->bytes_max = call->dispatcher->conf->limits.frame_bytes;
    read->take_memory = call_charge_memory;
    read->memory_arg = call;
    read->restart = entries_forget;
    read->entry = entries_pack;
    read->done = entries_answer;
    read->arg = entries;
    entries_read(call_store(call), &call->arena, read);
}
