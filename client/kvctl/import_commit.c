#include "client/kvctl/import.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/*
 * Transactions in flight. Each has a condition: the revision that the checkpoint will have by then. It can be foreseen,
 * because revisions are consecutive while no other client writes to the bucket. If another client does write, the
 * server refuses the transaction, and the import sends it again with the right revision.
 */
#define CHUNKS_IN_FLIGHT 3u
#define CONFLICTS_MAX    3u /* after more of them, one transaction is in flight at a time */

static struct import_chunk *import_chunk_at(struct importing *importing, size_t place)
{
    return &importing->chunks[(importing->first + place) % CHUNKS_IN_FLIGHT];
}

/*
 * Return the item that an error is about; NULL: none. The error has its key, or its message begins with the number of
 * the operation, which *message leaves out then.
 */
static const struct import_item *import_find_item(const struct import_chunk *chunk, const struct kvs_error *error,
                                                  const char **message)
{
    unsigned operation;
    int length = 0;

    *message = error->message;
    if (sscanf(error->message, "operation %u: %n", &operation, &length) == 1 && length > 0 && operation >= 1 &&
        operation <= chunk->count) {
        *message += length;
        return &chunk->items[operation - 1];
    }
    for (size_t i = 0; i < chunk->count; i++) {
        if (strcmp(chunk->items[i].entry.key, error->key) == 0)
            return &chunk->items[i];
    }
    return NULL;
}

static void import_note_written(const struct importing *importing)
{
    if (importing->checkpoint_line > 1)
        report_note("lines 2 to %" PRIu64 " of %s are written; run the same command again to continue after them",
                    importing->checkpoint_line, importing->reader.path);
    else
        report_note("nothing of %s is written", importing->reader.path);
}

static enum status import_report(struct importing *importing, const struct import_chunk *chunk)
{
    struct kvs_error named = chunk->error;
    const char *message;
    const struct import_item *item = import_find_item(chunk, &chunk->error, &message);

    if (item != NULL)
        snprintf(named.message, sizeof(named.message), "%.100s, line %" PRIu64 ": %.140s", importing->reader.path,
                 item->number, message);
    if (item != NULL && named.key[0] == '\0')
        snprintf(named.key, sizeof(named.key), "%s", item->entry.key);
    enum status status = report_error(&named);
    import_note_written(importing);
    return status;
}

/* --- Sending -------------------------------------------------------------------------------------- */

static void import_on_commit(struct kvs *kvs, const struct kvs_error *error, const uint64_t *revisions, size_t count,
                             void *context)
{
    struct import_chunk *chunk = context;

    (void)kvs;
    chunk->state = error != NULL ? CHUNK_FAILED : CHUNK_WRITTEN;
    if (error != NULL)
        chunk->error = *error;
    else
        chunk->revision = revisions[count - 1];
}

/* Send the transaction of a chunk. revision: that its checkpoint must have; 0: it must not exist. */
static void import_send(struct importing *importing, struct import_chunk *chunk, uint64_t revision)
{
    struct kvs *kvs = importing->invocation->kvs;
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = importing->invocation->timeout_s);
    struct kvs_txn *txn = kvs_txn_begin(kvs, importing->bucket);
    char checkpoint[128];
    int length = snprintf(checkpoint, sizeof(checkpoint), "{\"id\":\"%.64s\",\"line\":%" PRIu64 "}",
                          importing->header.id, chunk->last_line);

    import_chunk_add_to_txn(chunk, txn);
    if (revision == 0)
        kvs_txn_create(txn, IMPORT_KEY, checkpoint, (size_t)length, NULL);
    else
        kvs_txn_update(txn, IMPORT_KEY, checkpoint, (size_t)length, revision, NULL);
    chunk->state = CHUNK_IN_FLIGHT;
    if (kvs_async_txn_commit(txn, &options, import_on_commit, chunk) != KVS_OK) {
        chunk->state = CHUNK_FAILED;
        chunk->error = *kvs_last_error(kvs);
    }
    kvs_txn_free(txn);
}

/* Send what may be sent. Until the first checkpoint is written, the revisions of later ones are not known. */
static void import_send_all(struct importing *importing)
{
    size_t most = importing->checkpoint_revision == 0 || importing->conflicts > CONFLICTS_MAX ? 1 : importing->count;
    uint64_t revision = importing->checkpoint_revision;

    for (size_t i = 0; i < importing->count && i < most; i++) {
        struct import_chunk *chunk = import_chunk_at(importing, i);
        if (chunk->state == CHUNK_WAITS)
            import_send(importing, chunk, revision);
        revision += chunk->count + 1;
    }
}

/* Return whether one of the first chunks is in flight. */
static bool import_is_in_flight(struct importing *importing, size_t chunks)
{
    for (size_t i = 0; i < importing->count && i < chunks; i++) {
        if (import_chunk_at(importing, i)->state == CHUNK_IN_FLIGHT)
            return true;
    }
    return false;
}

/* Wait until the transactions of the first chunks are answered. */
static void import_wait_for_answers(struct importing *importing, size_t chunks)
{
    struct kvs *kvs = importing->invocation->kvs;

    while (import_is_in_flight(importing, chunks)) {
        kvs_process(kvs);
        if (import_is_in_flight(importing, chunks))
            transfer_wait(kvs, INT_MAX);
    }
}

/* --- Answers -------------------------------------------------------------------------------------- */

/* The first chunk is written. */
static void import_drop_first(struct importing *importing)
{
    struct import_chunk *chunk = import_chunk_at(importing, 0);

    importing->summary->written += chunk->count;
    import_chunk_clear(chunk);
    importing->first = (importing->first + 1) % CHUNKS_IN_FLIGHT;
    importing->count--;
    patience_renew(&importing->patience);
    progress_show(&importing->progress, importing->summary->written, importing->reader.bytes,
                  importing->reader.total_bytes);
}

/* Read which of the chunks are written in spite of an error, and drop them. False after a message. */
static bool import_resolve(struct importing *importing, enum status *status)
{
    uint64_t line = importing->checkpoint_line;

    if (!import_read_checkpoint(importing, status))
        return false;
    while (line != importing->checkpoint_line && importing->count > 0 &&
           import_chunk_at(importing, 0)->last_line <= importing->checkpoint_line) {
        line = import_chunk_at(importing, 0)->last_line;
        import_drop_first(importing);
    }
    for (size_t i = 0; i < importing->count; i++)
        import_chunk_at(importing, i)->state = CHUNK_WAITS;
    if (line == importing->checkpoint_line)
        return true;
    *status = STATUS_CONFLICT;
    report("another kvctl imports the same file into bucket %s", importing->bucket);
    return false;
}

/* The first transaction has failed. Find out what is written, and try again. False after a message. */
static bool import_recover(struct importing *importing, enum status *status)
{
    const struct kvs_error *error = &import_chunk_at(importing, 0)->error;
    bool is_checkpoint =
        (error->code == KVS_CONFLICT || error->code == KVS_ALREADY_EXISTS) && strcmp(error->key, IMPORT_KEY) == 0;

    import_wait_for_answers(importing, importing->count);
    importing->conflicts += is_checkpoint;
    if (!is_checkpoint && !transfer_is_temporary(error)) {
        *status = import_report(importing, import_chunk_at(importing, 0));
        return false;
    }
    return (is_checkpoint || patience_pause(&importing->patience, error, status)) && import_resolve(importing, status);
}

/* --- All lines ------------------------------------------------------------------------------------ */

/* Read chunks ahead, as many as may be in flight. */
static void import_read_ahead(struct importing *importing)
{
    while (importing->line == EXPORT_LINE_ENTRY && importing->count < CHUNKS_IN_FLIGHT) {
        struct import_chunk *chunk = import_chunk_at(importing, importing->count);
        importing->line = import_chunk_fill(chunk, &importing->next, &importing->reader, &importing->settings);
        importing->summary->expired += chunk->expired;
        importing->summary->leased += chunk->leased;
        importing->summary->refused += chunk->refused;
        if (importing->line != EXPORT_LINE_WRONG && chunk->count > 0)
            importing->count++;
        import_send_all(importing);
    }
}

bool import_commit_all(struct importing *importing, enum status *status)
{
    importing->chunks = calloc(CHUNKS_IN_FLIGHT, sizeof(*importing->chunks));
    importing->line = EXPORT_LINE_ENTRY;
    if (importing->chunks == NULL)
        return report("out of memory") == STATUS_OK;
    for (;;) {
        import_read_ahead(importing);
        if (importing->count == 0)
            break;
        import_send_all(importing);
        import_wait_for_answers(importing, 1);
        const struct import_chunk *chunk = import_chunk_at(importing, 0);
        if (chunk->state == CHUNK_WRITTEN) {
            importing->checkpoint_line = chunk->last_line;
            importing->checkpoint_revision = chunk->revision;
            import_drop_first(importing);
        } else if (!import_recover(importing, status)) {
            import_wait_for_answers(importing, importing->count);
            return false;
        }
    }
    if (importing->line == EXPORT_LINE_WRONG) {
        *status = STATUS_FAILED;
        if (importing->checkpoint_line > 1)
            import_note_written(importing);
    }
    return importing->line == EXPORT_LINE_END;
}

void import_commit_free(struct importing *importing)
{
    for (size_t i = 0; importing->chunks != NULL && i < CHUNKS_IN_FLIGHT; i++)
        import_chunk_clear(&importing->chunks[i]);
    free(importing->chunks);
    import_item_free(&importing->next);
}
