#include "client/kvctl/import.h"
#include "proto/kv_check.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES_MAX (2u * 1024 * 1024)

/* --- Items ---------------------------------------------------------------------------------------- */

void import_item_free(struct import_item *item)
{
    free(item->line);
    free(item->headers);
    *item = (struct import_item){0};
}

static uint32_t import_hash(const char *key)
{
    uint32_t hash = 2166136261u;

    for (; *key != '\0'; key++)
        hash = (hash ^ (unsigned char)*key) * 16777619u;
    return hash;
}

/* Return the slot of a key: that of its last item, or the free one where it belongs. */
static uint16_t *import_chunk_slot(struct import_chunk *chunk, const char *key)
{
    for (uint32_t place = import_hash(key);; place++) {
        uint16_t *slot = &chunk->slots[place & (CHUNK_SLOTS - 1)];
        if (*slot == 0 || strcmp(chunk->items[*slot - 1].entry.key, key) == 0)
            return slot;
    }
}

/* --- Time ----------------------------------------------------------------------------------------- */

/* Return when an entry expires, in us since the epoch; 0: never, or later than the clock goes. */
static int64_t import_expiry_of(const struct export_entry *entry, const struct import_settings *settings)
{
    int64_t ttl_s = settings->options.ttl_s > 0 ? settings->options.ttl_s : 0, lives_us, expires_us;

    if (entry->operation != KVS_OPERATION_PUT)
        return 0;
    if (entry->ttl_s > 0 && (ttl_s == 0 || entry->ttl_s < ttl_s))
        ttl_s = entry->ttl_s;
    if (ttl_s == 0 || __builtin_mul_overflow(ttl_s, 1000000, &lives_us) ||
        __builtin_add_overflow(entry->created_us > 0 ? entry->created_us : 0, lives_us, &expires_us))
        return 0;
    return expires_us;
}

/*
 * Set the TTL of an entry to its remaining time. Return whether it has expired. If settings->can_expire is false, a
 * value without a TTL of its own lives for the whole TTL of the bucket again.
 */
static bool import_item_set_ttl(struct import_item *item, const struct import_settings *settings)
{
    int64_t expires_us = import_expiry_of(&item->entry, settings);

    item->ttl_s = 0;
    if (expires_us == 0)
        return false;
    int64_t left_us = expires_us - clock_epoch_us();
    if (settings->can_expire || item->entry.ttl_s > 0)
        item->ttl_s = (left_us + 999999) / 1000000;
    return left_us <= 0;
}

/* --- Filling -------------------------------------------------------------------------------------- */

/* Name a line that kvstored does not write. Return whether it is left out; false: it ends the import. */
static bool import_skips_refused(const struct import_item *item, const struct export_reader *reader,
                                 const struct import_settings *settings, const char *reason)
{
    struct short_text key = text_of_bytes(item->entry.key, strlen(item->entry.key));

    if (settings->skips_refused)
        report_note("%.200s, line %" PRIu64 ": left out key %s: %s", reader->path, reader->number, key.text, reason);
    else
        report("%.200s, line %" PRIu64 ": key %s cannot be written: %s; --skip-refused leaves out such entries",
               reader->path, reader->number, key.text, reason);
    return settings->skips_refused;
}

/* Return whether an earlier line may have written the key of a line that is left out. */
static bool import_may_repeat(const struct import_item *item, const struct import_settings *settings)
{
    return (settings->has_history || item->entry.revision > settings->last_revision) &&
           kv_check_key(item->entry.key, strlen(item->entry.key)) == NULL;
}

/*
 * Read a line into *item. Three kinds are left out: what belonged to a session, an expired value, and what kvstored
 * does not write. Such a line deletes its key if an earlier line may have written that. Otherwise it is skipped.
 */
static enum export_line import_chunk_read(struct import_chunk *chunk, struct import_item *item,
                                          struct export_reader *reader, const struct import_settings *settings)
{
    for (;;) {
        enum export_line line = export_reader_next(reader, &item->entry);
        if (line != EXPORT_LINE_ENTRY)
            return line;
        if (!export_read_headers(reader, &item->entry, &item->headers, &item->header_count))
            return EXPORT_LINE_WRONG;
        bool is_expired = import_item_set_ttl(item, settings);
        const char *refusal =
            export_find_refusal(item->entry.operation, item->entry.key, item->headers, item->header_count);
        if (item->entry.has_lease)
            chunk->leased++;
        else if (is_expired)
            chunk->expired++;
        else if (refusal == NULL)
            break;
        else if (import_skips_refused(item, reader, settings, refusal))
            chunk->refused++;
        else
            return EXPORT_LINE_WRONG;
        free(item->headers);
        item->headers = NULL;
        item->header_count = 0;
        if (import_may_repeat(item, settings)) {
            item->entry.operation = KVS_OPERATION_DELETE;
            item->ttl_s = 0;
            break;
        }
        chunk->last_line = reader->number;
    }
    item->number = reader->number;
    /* The item takes over the line: the reader gets a new buffer. */
    item->line = reader->line;
    reader->line = NULL;
    reader->capacity = 0;
    return EXPORT_LINE_ENTRY;
}

/*
 * Return whether the item must be in another transaction than the items before it. Of several operations on a key, only
 * the first may be a purge, or have a TTL.
 */
static bool import_chunk_has_no_room(struct import_chunk *chunk, const struct import_item *item)
{
    bool must_be_first = item->entry.operation == KVS_OPERATION_PURGE || item->ttl_s > 0;

    if (chunk->count == 0)
        return false;
    return chunk->count == CHUNK_ENTRIES_MAX || chunk->bytes + item->entry.value_size > CHUNK_BYTES_MAX ||
           (must_be_first && *import_chunk_slot(chunk, item->entry.key) != 0);
}

void import_chunk_clear(struct import_chunk *chunk)
{
    for (size_t i = 0; i < chunk->count; i++)
        import_item_free(&chunk->items[i]);
    memset(chunk->slots, 0, sizeof(chunk->slots));
    chunk->count = chunk->bytes = 0;
    chunk->expired = chunk->leased = chunk->refused = 0;
    chunk->state = CHUNK_WAITS;
}

enum export_line import_chunk_fill(struct import_chunk *chunk, struct import_item *next, struct export_reader *reader,
                                   const struct import_settings *settings)
{
    import_chunk_clear(chunk);
    for (;;) {
        if (next->line == NULL) {
            enum export_line line = import_chunk_read(chunk, next, reader, settings);
            if (line != EXPORT_LINE_ENTRY)
                return line;
        }
        if (import_chunk_has_no_room(chunk, next))
            return EXPORT_LINE_ENTRY;
        struct import_item *item = &chunk->items[chunk->count++];
        *item = *next;
        *next = (struct import_item){0};
        chunk->bytes += item->entry.value_size;
        chunk->last_line = item->number;
        *import_chunk_slot(chunk, item->entry.key) = (uint16_t)chunk->count;
    }
}

void import_chunk_add_to_txn(const struct import_chunk *chunk, struct kvs_txn *txn)
{
    for (size_t i = 0; i < chunk->count; i++) {
        const struct import_item *item = &chunk->items[i];
        struct kvs_put_options options =
            KVS_PUT_OPTIONS(.ttl_s = item->ttl_s, .headers = item->headers, .header_count = item->header_count);
        switch (item->entry.operation) {
        case KVS_OPERATION_PUT:
            kvs_txn_put(txn, item->entry.key, item->entry.value, item->entry.value_size, &options);
            break;
        case KVS_OPERATION_DELETE:
            kvs_txn_delete(txn, item->entry.key);
            break;
        case KVS_OPERATION_PURGE:
            kvs_txn_purge(txn, item->entry.key);
            break;
        }
    }
}
