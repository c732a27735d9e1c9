/* bucket.list: the names of buckets, or their infos, in pages. */
#include "daemon/base/glob.h"
#include "daemon/handlers/bucket_settings.h"
#include "daemon/handlers/methods.h"
#include "daemon/rpc/access.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/rpc/options.h"
#include "daemon/rpc/pack.h"
#include "daemon/store/bucket/admin.h"
#include "daemon/store/bucket/bucket_names.h"
#include "daemon/store/read/get.h"

#include <string.h>

/* Most buckets of a page, and the default with infos. */
#define NAMES_LIMIT_MAX 1000000
#define INFOS_LIMIT_MAX 1000

/* As long as the name of a stream. */
#define AFTER_BYTES_MAX 255u

/* Infos of a call that are asked for at a time. */
#define INFOS_WINDOW 8u

struct bucket_list_call {
    struct call *call;
    struct bucket_names listing;
    const char *filter; /* a shell pattern; NULL: all */
    const char *after;
    bool has_infos;

    /* Of the infos. */
    const char *const *names;
    size_t count, next, in_flight;
    bool is_filling;
    bool has_failed;
    struct bucket_list_info *infos;
    msgpack_sbuffer packed; /* in the order of arrival */
    size_t charged;
    struct arena_task packed_task;
};

/* The info of one bucket. */
struct bucket_list_info {
    struct bucket_list_call *list;
    struct admin admin;
    size_t offset, bytes; /* in packed; bytes 0: the bucket is gone */
};

/* Return whether the bucket may belong to the page. */
static bool bucket_list_wants(void *arg, const char *name)
{
    const struct bucket_list_call *list = arg;

    return (list->after == NULL || strcmp(name, list->after) > 0) &&
           (list->filter == NULL || glob_matches(list->filter, name)) &&
           call_access(list->call, name) >= CONF_ACCESS_READ;
}

/* --- Infos ----------------------------------------------------------------------------------------- */

static void bucket_list_free(struct arena_task *task)
{
    msgpack_sbuffer_destroy(&ARENA_TASK_OWNER(task, struct bucket_list_call, packed_task)->packed);
}

static void bucket_list_answer_infos(struct bucket_list_call *list)
{
    struct call *call = list->call;
    size_t count = 0;

    for (size_t i = 0; i < list->count; i++)
        count += list->infos[i].bytes > 0;
    msgpack_packer *packer = call_begin_result(call);
    msgpack_pack_array(packer, count);
    for (size_t i = 0; i < list->count; i++)
        packer->callback(packer->data, list->packed.data + list->infos[i].offset, list->infos[i].bytes);
    call_end_result(call);
}

static void bucket_list_pack_error(msgpack_packer *packer, const char *name, const struct error *error)
{
    struct error complete = *error;

    complete.bucket = name;
    msgpack_pack_map(packer, 2);
    pack_str(packer, "bucket");
    pack_str(packer, name);
    pack_str(packer, "error");
    error_pack(&complete, packer);
}

static void bucket_list_fill(struct bucket_list_call *list);

/* A bucket that was deleted meanwhile is left out. Another error is its own, and hides no other bucket. */
static void bucket_list_on_info(void *arg, const struct bucket_info *info, const struct error *error)
{
    struct bucket_list_info *item = arg;
    struct bucket_list_call *list = item->list;
    msgpack_packer packer;

    msgpack_packer_init(&packer, &list->packed, msgpack_sbuffer_write);
    item->offset = list->packed.size;
    if (info != NULL)
        bucket_settings_pack_info(&packer, info);
    else if (error->code != ERROR_BUCKET_NOT_FOUND)
        bucket_list_pack_error(&packer, item->admin.bucket_name, error);
    item->bytes = list->packed.size - item->offset;
    list->in_flight--;
    list->has_failed |= !call_charge_memory(list->call, list->packed.size - list->charged);
    list->charged = list->packed.size;
    bucket_list_fill(list);
}

static void bucket_list_ask(struct bucket_list_call *list)
{
    struct bucket_list_info *item = &list->infos[list->next];

    item->list = list;
    item->admin.bucket_name = list->names[list->next++];
    item->admin.deadline_ms = list->call->deadline_ms;
    item->admin.done = bucket_list_on_info;
    item->admin.arg = item;
    list->in_flight++;
    admin_info(call_store(list->call), &list->call->arena, &item->admin);
}

/* An info may fail while it is asked for: only the outermost call continues. */
static void bucket_list_fill(struct bucket_list_call *list)
{
    struct error error;

    if (list->is_filling)
        return;
    list->is_filling = true;
    while (!list->has_failed && list->in_flight < INFOS_WINDOW && list->next < list->count)
        bucket_list_ask(list);
    list->is_filling = false;
    if (list->has_failed) {
        get_set_memory_error(&error, "less");
        call_fail(list->call, &error);
    } else if (list->in_flight == 0) {
        bucket_list_answer_infos(list);
    }
}

static void bucket_list_start_infos(struct bucket_list_call *list, const char *const *names, size_t count)
{
    list->names = names;
    list->count = count;
    list->infos = arena_zalloc(&list->call->arena, (count + 1) * sizeof(*list->infos));
    if (list->infos == NULL) {
        call_fail_out_of_memory(list->call);
        return;
    }
    msgpack_sbuffer_init(&list->packed);
    arena_begin_reading_task(&list->call->arena, &list->packed_task, bucket_list_free);
    bucket_list_fill(list);
}

/* --- Names ----------------------------------------------------------------------------------------- */

static void bucket_list_answer_names(const struct bucket_list_call *list, const char *const *names, size_t count)
{
    msgpack_packer *packer = call_begin_result(list->call);

    msgpack_pack_array(packer, count);
    for (size_t i = 0; i < count; i++)
        pack_str(packer, names[i]);
    call_end_result(list->call);
}

static void bucket_list_on_names(void *arg, const char *const *names, size_t count, const struct error *error)
{
    struct bucket_list_call *list = arg;

    if (error != NULL)
        call_fail(list->call, error);
    else if (list->has_infos)
        bucket_list_start_infos(list, names, count);
    else
        bucket_list_answer_names(list, names, count);
}

/* False: the call is answered. */
static bool bucket_list_read_options(struct call *call, struct bucket_list_call *list)
{
    int64_t limit;

    if (!option_string(call, "filter", GLOB_LENGTH_MAX, &list->filter) ||
        !option_string(call, "after", AFTER_BYTES_MAX, &list->after) || !option_bool(call, "infos", &list->has_infos) ||
        !option_integer(call, "limit", 1, list->has_infos ? INFOS_LIMIT_MAX : NAMES_LIMIT_MAX,
                        list->has_infos ? INFOS_LIMIT_MAX : 0, &limit))
        return false;
    list->listing.limit = (size_t)limit;
    return true;
}

void handle_bucket_list(struct call *call)
{
    struct bucket_list_call *list = arena_zalloc(&call->arena, sizeof(*list));

    if (list == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    list->call = call;
    if (!bucket_list_read_options(call, list))
        return;
    list->listing.is_wanted = bucket_list_wants;
    list->listing.deadline_ms = call->deadline_ms;
    list->listing.take_memory = call_charge_memory;
    list->listing.memory_arg = call;
    list->listing.done = bucket_list_on_names;
    list->listing.arg = list;
    bucket_names_list(call_store(call), &call->arena, &list->listing);
}
