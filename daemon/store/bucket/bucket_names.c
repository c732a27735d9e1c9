#include "daemon/store/bucket/bucket_names.h"

#include "daemon/nats/kv.h"
#include "daemon/store/bucket/admin.h"

#include <string.h>

#define NAMES_AT_FIRST 64u

static void bucket_names_ask(struct bucket_names *names);

static void bucket_names_release(struct bucket_names *names)
{
    timer_stop(names->store->timers, &names->deadline);
    jobs_remove(names->store->jobs, &names->filtering);
    jetstream_cancel(&names->call);
    json_decref(names->page);
    names->page = NULL;
    turns_leave(admin_lists(names->store), &names->turn);
}

static void bucket_names_cancel(struct arena_task *task)
{
    bucket_names_release(ARENA_TASK_OWNER(task, struct bucket_names, task));
}

static void bucket_names_finish(struct bucket_names *names, const struct error *error)
{
    arena_end_task(&names->task);
    bucket_names_release(names);
    names->done(names->arg, names->names, error == NULL ? names->count : 0, error);
}

static void bucket_names_fail(struct bucket_names *names, enum error_code code, const char *text)
{
    struct error error;

    error_set(&error, code, "%s", text);
    bucket_names_finish(names, &error);
}

static void on_bucket_names_deadline(struct timer *timer)
{
    struct bucket_names *names = (struct bucket_names *)((char *)timer - offsetof(struct bucket_names, deadline));

    bucket_names_fail(names, ERROR_DEADLINE_EXCEEDED, "timed out waiting for other lists of buckets; try again later");
}

/* --- Names ----------------------------------------------------------------------------------------- */

/* Make room for one more. The former array stays in the arena: all of them together are at most as large as the last.
 */
static bool bucket_names_reserve(struct bucket_names *names)
{
    size_t capacity = names->capacity > 0 ? names->capacity * 2 : NAMES_AT_FIRST;

    if (names->count < names->capacity)
        return true;
    const char **larger = arena_alloc(names->arena, capacity * sizeof(*larger));
    if (larger == NULL)
        return false;
    if (names->count > 0)
        memcpy(larger, names->names, names->count * sizeof(*larger));
    names->names = larger;
    names->capacity = capacity;
    return true;
}

/* Return where the name belongs. The server sorts them, so this is nearly always the end. */
static size_t bucket_names_place(const struct bucket_names *names, const char *name)
{
    size_t begin = 0, end = names->count;

    if (end == 0 || strcmp(names->names[end - 1], name) < 0)
        return end;
    while (begin < end) {
        size_t middle = begin + (end - begin) / 2;
        if (strcmp(names->names[middle], name) < 0)
            begin = middle + 1;
        else
            end = middle;
    }
    return begin;
}

/* A bucket that is created meanwhile moves the others, so a name can come twice. False: out of memory. */
static bool bucket_names_add(struct bucket_names *names, const char *name)
{
    size_t place = bucket_names_place(names, name);
    bool is_full = names->limit > 0 && names->count == names->limit;

    if (place < names->count ? strcmp(names->names[place], name) == 0 : is_full)
        return true;
    const char *copy = arena_strdup(names->arena, name);
    if (copy == NULL || !bucket_names_reserve(names))
        return false;
    names->count -= is_full;
    memmove(&names->names[place + 1], &names->names[place], (names->count - place) * sizeof(*names->names));
    names->names[place] = copy;
    names->count++;
    return true;
}

/* --- Pages ----------------------------------------------------------------------------------------- */

static bool run_bucket_names(struct job *job)
{
    struct bucket_names *names = (struct bucket_names *)((char *)job - offsetof(struct bucket_names, filtering));

    while (names->next < json_array_size(names->page)) {
        const char *stream = json_string_value(json_array_get(names->page, names->next++));
        if (stream != NULL && strncmp(stream, "KV_", 3) == 0 && names->is_wanted(names->arg, stream + 3) &&
            !bucket_names_add(names, stream + 3)) {
            bucket_names_fail(names, ERROR_RESOURCE_EXHAUSTED, "out of memory");
            return false;
        }
        if (jobs_slice_is_over(names->store->jobs))
            return true;
    }
    bool is_last = json_array_size(names->page) == 0 || names->offset >= names->total;
    json_decref(names->page);
    names->page = NULL;
    if (names->take_memory != NULL && !names->take_memory(names->memory_arg, 0))
        bucket_names_fail(names, ERROR_RESOURCE_EXHAUSTED,
                          "the daemon's calls in flight use all of limits.call_bytes; try again, or request less");
    else if (is_last)
        bucket_names_finish(names, NULL);
    else
        bucket_names_ask(names);
    return false;
}

static void on_bucket_names(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct bucket_names *names = arg;

    (void)err_code;
    if (answer == NULL) {
        bucket_names_finish(names, error);
        return;
    }
    names->page = json_incref(json_object_get(answer, "streams"));
    names->next = 0;
    names->offset += json_array_size(names->page);
    names->total = (uint64_t)json_integer_value(json_object_get(answer, "total"));
    jobs_add(names->store->jobs, &names->filtering, run_bucket_names);
}

static void bucket_names_ask(struct bucket_names *names)
{
    memset(&names->call, 0, sizeof(names->call));
    names->call.request.limit = admin_calls(names->store);
    request_set_caller(&names->call.request, names->arena);
    jetstream_call(&names->store->jetstream, &names->call, "STREAM.NAMES", NULL,
                   json_pack("{s:I}", "offset", (json_int_t)names->offset), names->deadline_ms, on_bucket_names, names);
}

static void on_bucket_names_turn(struct turn *turn)
{
    struct bucket_names *names = (struct bucket_names *)((char *)turn - offsetof(struct bucket_names, turn));

    timer_stop(names->store->timers, &names->deadline); /* a request has its own */
    bucket_names_ask(names);
}

void bucket_names_list(struct store *store, struct arena *arena, struct bucket_names *names)
{
    names->store = store;
    names->arena = arena;
    names->filtering.owner = arena->owner;
    arena_begin_reading_task(arena, &names->task, bucket_names_cancel);
    timer_start(store->timers, &names->deadline, names->deadline_ms, on_bucket_names_deadline);
    turns_wait(admin_lists(store), &names->turn, arena->owner, on_bucket_names_turn);
}
