/* The verb keys: reads pages from the daemon's cache, or all keys in one pass of a watch. */
#include "client/kvctl/kvctl.h"
#include "client/kvctl/safe_text.h"
#include "client/kvctl/transfer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS_PER_PAGE 10000u

struct listing {
    struct invocation *invocation;
    struct kvs_keys_options options; /* of the next page */
    uint64_t left;                   /* keys to print */
    bool has_printed;
    char *after;
};

static void keys_print(struct listing *listing, const char *key)
{
    if (listing->invocation->json) {
        putchar(listing->has_printed ? ',' : '[');
        safe_text_write_json(stdout, key);
    } else {
        print_line(listing->invocation, key);
    }
    listing->has_printed = true;
    listing->left--;
}

/* --- In one pass ---------------------------------------------------------------------------- */

/* A key that the watch has reported. */
struct collected_key {
    char *key;
    size_t number; /* number of the event: the last event of a key counts */
    bool is_there;
};

struct key_collection {
    struct collected_key *items;
    size_t count, capacity;
};

static bool keys_note(struct key_collection *collection, const struct kvs_entry *entry)
{
    if (collection->count == collection->capacity) {
        size_t capacity = collection->capacity > 0 ? collection->capacity * 2 : 4096;
        struct collected_key *items = realloc(collection->items, capacity * sizeof(*items));
        if (items == NULL)
            return false;
        collection->items = items;
        collection->capacity = capacity;
    }
    struct collected_key item = {strdup(entry->key), collection->count, entry->operation == KVS_OPERATION_PUT};
    if (item.key == NULL)
        return false;
    collection->items[collection->count++] = item;
    return true;
}

static int keys_compare(const void *left, const void *right)
{
    const struct collected_key *a = left, *b = right;
    int order = strcmp(a->key, b->key);

    return order != 0 ? order : a->number < b->number ? -1 : 1;
}

/* Collect the keys that the watch reports until it is ready. A key that is written meanwhile comes several times. */
static enum status keys_collect(const struct invocation *invocation, struct kvs_watch *watch,
                                struct key_collection *collection)
{
    struct kvs_event event = {.type = KVS_EVENT_NONE};
    enum status status = STATUS_OK;

    while (status == STATUS_OK && event.type != KVS_EVENT_READY) {
        status = transfer_next_event(invocation, watch, &event);
        if (status == STATUS_OK && event.type == KVS_EVENT_ENTRY && !keys_note(collection, event.entry))
            status = report("out of memory");
    }
    return status;
}

static void keys_print_collected(struct listing *listing, const struct key_collection *collection)
{
    for (size_t i = 0; i < collection->count && listing->left > 0; i++) {
        const struct collected_key *item = &collection->items[i];
        bool is_last = i + 1 == collection->count || strcmp(item->key, collection->items[i + 1].key) != 0;
        if (is_last && item->is_there &&
            (listing->options.after == NULL || strcmp(item->key, listing->options.after) > 0))
            keys_print(listing, item->key);
    }
}

static enum status keys_print_in_one_pass(struct listing *listing)
{
    struct invocation *invocation = listing->invocation;
    struct kvs_watch_options options =
        KVS_WATCH_OPTIONS(.filters = &listing->options.filter, .filter_count = listing->options.filter != NULL,
                          .meta_only = true, .timeout_s = invocation->timeout_s);
    struct key_collection collection = {0};
    struct kvs_watch *watch;

    if (kvs_watch(invocation->kvs, invocation->arguments[0], &options, &watch) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    enum status status = keys_collect(invocation, watch, &collection);
    kvs_watch_stop(watch);
    if (collection.count > 0)
        qsort(collection.items, collection.count, sizeof(*collection.items), keys_compare);
    if (status == STATUS_OK)
        keys_print_collected(listing, &collection);
    for (size_t i = 0; i < collection.count; i++)
        free(collection.items[i].key);
    free(collection.items);
    return status;
}

/* --- In pages ------------------------------------------------------------------------------- */

/* Print one page, or all keys in one pass if the daemon refuses pages. *is_last: it was the last page. */
static enum status keys_print_page(struct listing *listing, bool *is_last)
{
    struct invocation *invocation = listing->invocation;
    enum status status = STATUS_OK;
    char **keys;
    size_t count;

    listing->options.limit = listing->left < KEYS_PER_PAGE ? listing->left : KEYS_PER_PAGE;
    *is_last = true;
    enum kvs_code code = kvs_keys(invocation->kvs, invocation->arguments[0], &listing->options, &keys, &count);
    if (code == KVS_RESOURCE_EXHAUSTED)
        return keys_print_in_one_pass(listing);
    if (code != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    for (size_t i = 0; i < count; i++)
        keys_print(listing, keys[i]);
    *is_last = count < listing->options.limit;
    if (!*is_last) {
        free(listing->after);
        listing->options.after = listing->after = strdup(keys[count - 1]);
        if (listing->after == NULL)
            status = report("out of memory");
    }
    kvs_free(keys);
    return status;
}

enum status kv_keys(struct invocation *invocation)
{
    struct listing listing = {
        .invocation = invocation,
        .left = UINT64_MAX,
        .options = KVS_KEYS_OPTIONS(.filter = invocation->argument_count > 1 ? invocation->arguments[1] : NULL,
                                    .after = arguments_value(invocation, "after"), .timeout_s = invocation->timeout_s)};
    enum status status = STATUS_OK;
    bool is_last = false;

    if (!arguments_number(invocation, "limit", &listing.left) ||
        !arguments_consistency(invocation, &listing.options.consistency))
        return STATUS_FAILED;
    /* Without the cache each page would read the whole bucket. */
    if (arguments_value(invocation, "consistency") == NULL)
        listing.options.consistency = KVS_CONSISTENCY_CACHED;
    while (status == STATUS_OK && listing.left > 0 && !is_last)
        status = print_check(keys_print_page(&listing, &is_last));
    if (invocation->json && (status == STATUS_OK || listing.has_printed))
        puts(listing.has_printed ? "]" : "[]");
    free(listing.after);
    return status;
}
