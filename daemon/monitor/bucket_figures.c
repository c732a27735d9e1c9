#include "daemon/monitor/bucket_figures.h"

#include "daemon/store/follow/local_copy.h"
#include "daemon/store/store.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

/* --- Asking NATS ----------------------------------------------------------------------------------- */

static const struct figures_bucket bucket_figures_unknown = {
    .is_known = 0,
    .values = FIGURES_UNKNOWN,
    .bytes = FIGURES_UNKNOWN,
    .limit_bytes = FIGURES_UNKNOWN,
    .is_full = FIGURES_UNKNOWN,
    .last_revision = FIGURES_UNKNOWN,
};

static void bucket_figures_fill_slots(struct bucket_figures *figures);

static void bucket_figures_on_info(void *arg, const struct bucket_info *info, const struct error *error)
{
    struct bucket_figures_slot *slot = arg;
    struct bucket_figures *figures = slot->owner;
    struct figures_bucket *bucket = &figures->buckets[slot->bucket];

    *bucket = bucket_figures_unknown;
    if (error == NULL) {
        bucket->is_known = 1;
        bucket->values = info->values;
        bucket->bytes = info->bytes;
        bucket->limit_bytes = info->config.max_bytes > 0 ? (uint64_t)info->config.max_bytes : FIGURES_UNKNOWN;
        bucket->is_full = info->is_full;
        bucket->last_revision = info->last_revision;
    }
    arena_clear(&slot->arena);
    slot->is_busy = false;
    figures->busy--;
    bucket_figures_fill_slots(figures);
}

static void bucket_figures_ask(struct bucket_figures *figures, struct bucket_figures_slot *slot)
{
    slot->bucket = figures->next++;
    slot->is_busy = true;
    figures->busy++;
    memset(&slot->admin, 0, sizeof(slot->admin));
    slot->admin.bucket_name = figures->names[slot->bucket];
    slot->admin.deadline_ms = figures->deadline_ms;
    slot->admin.done = bucket_figures_on_info;
    slot->admin.arg = slot;
    admin_info(figures->store, &slot->arena, &slot->admin);
}

/* Give each free slot a bucket. After the deadline, the rest stays unknown. A request may end from within. */
static void bucket_figures_fill_slots(struct bucket_figures *figures)
{
    if (figures->is_filling_slots)
        return;
    figures->is_filling_slots = true;
    for (size_t i = 0; i < BUCKET_FIGURES_SLOTS; i++) {
        while (!figures->slots[i].is_busy && figures->next < figures->count &&
               uv_now(figures->store->loop) < figures->deadline_ms)
            bucket_figures_ask(figures, &figures->slots[i]);
    }
    figures->is_filling_slots = false;
    if (figures->busy > 0)
        return;
    figures->is_asking = false;
    figures->done(figures->done_arg);
}

static void bucket_figures_forget(struct bucket_figures *figures)
{
    for (size_t i = 0; i < figures->count; i++)
        figures->buckets[i] = bucket_figures_unknown;
}

void bucket_figures_refresh(struct bucket_figures *figures)
{
    uint64_t now_ms = uv_now(figures->store->loop);
    struct error ignored;

    if (figures->is_asking)
        return;
    if (figures->count > 0 && !store_is_available(figures->store, &ignored)) {
        bucket_figures_forget(figures);
        figures->asked_ms = 0;
    } else if (figures->asked_ms == 0 || now_ms - figures->asked_ms >= BUCKET_FIGURES_AGE_MS) {
        bucket_figures_forget(figures);
        figures->asked_ms = now_ms;
        figures->deadline_ms = now_ms + BUCKET_FIGURES_WAIT_MS;
        figures->next = 0;
        figures->is_asking = true;
        bucket_figures_fill_slots(figures);
        return;
    }
    figures->done(figures->done_arg);
}

void bucket_figures_cancel(struct bucket_figures *figures)
{
    for (size_t i = 0; i < BUCKET_FIGURES_SLOTS; i++) {
        arena_clear(&figures->slots[i].arena);
        figures->slots[i].is_busy = false;
    }
    figures->busy = 0;
    figures->is_asking = false;
    figures->asked_ms = 0;
}

/* --- The local copy --------------------------------------------------------------------------------- */

void bucket_figures_add_copy(struct bucket_figures *figures, size_t index)
{
    struct figures_bucket *bucket = &figures->buckets[index];
    const struct local_copy *copy = local_copy_find(figures->store, figures->names[index]);

    bucket->watches = copy != NULL ? copy->watches.count : 0;
    bucket->watches_behind = copy != NULL ? copy->watches.backlog.reader_count : 0;
    bucket->cached_keys = copy != NULL ? copy->contents.cache.count : 0;
    bucket->cache_bytes = copy != NULL ? copy->contents.cache.bytes : 0;
    bucket->lag_revisions = FIGURES_UNKNOWN;
    if (copy != NULL && bucket->is_known) {
        uint64_t position = feed_position(&copy->feed);
        bucket->lag_revisions = bucket->last_revision > position ? bucket->last_revision - position : 0;
    }
}

/* --- Life ------------------------------------------------------------------------------------------- */

static void bucket_figures_free_names(struct bucket_figures *figures)
{
    for (size_t i = 0; i < figures->count; i++)
        free(figures->names[i]);
    free((void *)figures->names);
    free(figures->buckets);
    figures->names = NULL;
    figures->buckets = NULL;
    figures->count = 0;
}

/* A name that occurs twice would be two samples with one label. */
static bool bucket_figures_has_name(const struct bucket_figures *figures, const char *name)
{
    for (size_t i = 0; i < figures->count; i++) {
        if (strcmp(figures->names[i], name) == 0)
            return true;
    }
    return false;
}

/* If memory runs out, the remaining buckets are not shown until the next reload. */
static void bucket_figures_copy_names(struct bucket_figures *figures)
{
    const struct conf_strings *names = &figures->store->conf->metrics.buckets;

    if (names->count == 0)
        return;
    figures->names = calloc(names->count, sizeof(*figures->names));
    figures->buckets = calloc(names->count, sizeof(*figures->buckets));
    for (size_t i = 0; i < names->count && figures->names != NULL && figures->buckets != NULL; i++) {
        if (bucket_figures_has_name(figures, names->items[i]))
            continue;
        figures->names[figures->count] = strdup(names->items[i]);
        if (figures->names[figures->count] == NULL)
            return;
        figures->count++;
    }
}

int bucket_figures_init(struct bucket_figures *figures, struct store *store, void (*done)(void *arg), void *arg)
{
    memset(figures, 0, sizeof(*figures));
    figures->store = store;
    figures->done = done;
    figures->done_arg = arg;
    for (size_t i = 0; i < BUCKET_FIGURES_SLOTS; i++) {
        figures->slots[i].owner = figures;
        if (!arena_init(&figures->slots[i].arena, 1024))
            return -1;
    }
    bucket_figures_reload(figures);
    return 0;
}

void bucket_figures_reload(struct bucket_figures *figures)
{
    bucket_figures_cancel(figures);
    bucket_figures_free_names(figures);
    bucket_figures_copy_names(figures);
    bucket_figures_forget(figures);
}

void bucket_figures_free(struct bucket_figures *figures)
{
    bucket_figures_free_names(figures);
    for (size_t i = 0; i < BUCKET_FIGURES_SLOTS; i++)
        arena_destroy(&figures->slots[i].arena);
}
