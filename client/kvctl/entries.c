/* The verb entries: prints keys and values, a page at a time. */
#include "client/kvctl/kvctl.h"
#include "client/kvctl/safe_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The most that the daemon returns. */
#define ENTRIES_PER_PAGE 1000u

struct entries_listing {
    struct invocation *invocation;
    struct kvs_entries_options options; /* of the next page */
    uint64_t left;                      /* entries to print */
    bool has_printed;
    char *after;
};

static enum status entries_print_json(struct entries_listing *listing, const struct kvs_entry *entry)
{
    char *json = kvs_entry_json(entry);

    if (json == NULL)
        return report("out of memory for the output");
    printf("%s%s", listing->has_printed ? ",\n" : "[", json);
    kvs_free(json);
    return STATUS_OK;
}

static enum status entries_print(struct entries_listing *listing, const struct kvs_entry *entry)
{
    enum status status = STATUS_OK;

    if (listing->invocation->json)
        status = entries_print_json(listing, entry);
    else
        print_key_and_value(listing->invocation, entry->key, entry);
    listing->has_printed = true;
    listing->left--;
    return status;
}

/* Print one page. A page may have fewer entries than its limit; only an empty one is the end. */
static enum status entries_print_page(struct entries_listing *listing, bool *is_over)
{
    struct invocation *invocation = listing->invocation;
    struct kvs_entry *entries;
    enum status status = STATUS_OK;
    size_t count;

    listing->options.limit = listing->left < ENTRIES_PER_PAGE ? (unsigned)listing->left : ENTRIES_PER_PAGE;
    if (kvs_entries(invocation->kvs, invocation->arguments[0], &listing->options, &entries, &count) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    for (size_t i = 0; i < count && status == STATUS_OK; i++)
        status = entries_print(listing, &entries[i]);
    *is_over = count == 0;
    if (count > 0) {
        free(listing->after);
        listing->after = strdup(entries[count - 1].key);
        listing->options.after = listing->after;
        if (listing->after == NULL)
            status = report("out of memory");
    }
    kvs_free(entries);
    return status;
}

enum status entries_run(struct invocation *invocation)
{
    struct entries_listing listing = {
        .invocation = invocation,
        .left = UINT64_MAX,
        .options =
            KVS_ENTRIES_OPTIONS(.filter = invocation->argument_count > 1 ? invocation->arguments[1] : NULL,
                                .after = arguments_value(invocation, "after"), .timeout_s = invocation->timeout_s)};
    enum status status = STATUS_OK;
    bool is_over = false;

    if (!arguments_number(invocation, "limit", &listing.left) ||
        !arguments_consistency(invocation, &listing.options.consistency))
        return STATUS_FAILED;
    /* Without the cache each page would read all keys. */
    if (arguments_value(invocation, "consistency") == NULL)
        listing.options.consistency = KVS_CONSISTENCY_CACHED;
    while (status == STATUS_OK && listing.left > 0 && !is_over)
        status = print_check(entries_print_page(&listing, &is_over));
    if (invocation->json && (status == STATUS_OK || listing.has_printed))
        puts(listing.has_printed ? "]" : "[]");
    free(listing.after);
    return status;
}
