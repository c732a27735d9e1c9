#include "daemon/store/compact/purges.h"

#include "daemon/store/bucket/bucket.h"
#include "daemon/store/compact/state.h"

#include <stdio.h>
#include <string.h>

/* Purges that are sent after a check of the stream. */
#define PURGES_PER_CHECK 256u

static void compact_purges_send(struct compact_purges *purges);

/* Count the begin or the end of purges, which remove messages without a trace: see outcome. */
static void compact_purges_note_removal(const struct compact_purges *purges)
{
    bucket_note_removal(purges->store, purges->in_flight > 0);
}

void compact_purges_fail(struct compact_purges *purges, const struct error *error)
{
    if (purges->error.code == ERROR_NONE)
        purges->error = *error;
}

static bool compact_purges_have_failed(const struct compact_purges *purges)
{
    return purges->error.code != ERROR_NONE;
}

/* Return how many of the next markers come before everything that must stay: one purge can remove them. */
static size_t compact_purges_count_run(struct compact_purges *purges)
{
    const struct compact_chunk *chunk = purges->chunk;
    size_t end = purges->next_marker;

    if (purges->is_past_barrier || purges->keeps_markers)
        return 0;
    while (end < chunk->count && !chunk->markers[end].is_retained &&
           (purges->barrier == 0 || chunk->markers[end].sequence < purges->barrier))
        end++;
    purges->is_past_barrier = end < chunk->count;
    return end - purges->next_marker;
}

static void on_purged(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct compact_purge *purge = arg;
    struct compact_purges *purges = purge->purges;

    (void)err_code;
    purge->is_in_flight = false;
    if (answer != NULL) {
        /* A purge also removes what came before the marker. */
        uint64_t purged = (uint64_t)json_integer_value(json_object_get(answer, "purged"));
        purges->removed += purged < purge->markers ? purged : purge->markers;
    } else {
        compact_purges_fail(purges, error);
        if (error->code == ERROR_DEADLINE_EXCEEDED)
            compact_purges_note_removal(purges); /* the server may still carry it out, on this connection */
    }
    purges->in_flight--;
    compact_purges_send(purges);
}

/* Make the request's body: purge up to the marker, of its key or of all keys. NULL: out of memory, or the key is too
 * long. */
static json_t *compact_purges_body(const struct compact_purges *purges, const struct compact_marker *marker,
                                   bool of_key)
{
    char filter[KV_SUBJECT_BYTES + 1024]; /* other clients may have longer keys than we allow */
    json_t *body = json_pack("{s:I}", "seq", (json_int_t)marker->sequence + (purges->keeps_markers ? 0 : 1));

    if (!of_key)
        return body;
    int length = snprintf(filter, sizeof(filter), "%s%s", purges->prefix, compact_chunk_key(purges->chunk, marker));
    if (length < 0 || (size_t)length >= sizeof(filter) ||
        json_object_set_new(body, "filter", json_string(filter)) != 0) {
        json_decref(body);
        return NULL;
    }
    return body;
}

/* Purge everything up to the last of the next count markers, of its key or of all keys. */
static void compact_purges_send_one(struct compact_purges *purges, struct compact_purge *purge, size_t count,
                                    bool of_key)
{
    json_t *body = compact_purges_body(purges, &purges->chunk->markers[purges->next_marker + count - 1], of_key);

    purges->next_marker += count;
    if (body == NULL)
        return; /* the marker stays */
    if (!purges->has_removed) {
        purges->has_removed = true;
        compact_purges_note_removal(purges);
    }
    memset(&purge->call, 0, sizeof(purge->call));
    purge->purges = purges;
    purge->markers = purges->keeps_markers ? 0 : count;
    purge->is_in_flight = true;
    purges->in_flight++;
    purges->allowed--;
    purge->call.request.limit = &purges->store->compact->purges;
    purge->call.request.owner = purges->owner;
    /* Another connection may be to a server that has other messages at these sequences. */
    purge->call.only_on_connection = purges->connection;
    jetstream_call(&purges->store->jetstream, &purge->call, "STREAM.PURGE", purges->stream, body, purges->deadline_ms,
                   on_purged, purge);
}

static struct compact_purge *compact_purges_find_free(struct compact_purges *purges)
{
    for (size_t i = 0; i < COMPACT_PURGES_MAX; i++) {
        if (!purges->slots[i].is_in_flight)
            return &purges->slots[i];
    }
    return NULL;
}

/* Fail after a lost connection: the server may have lost messages, and have others at the sequences that were read. */
static void compact_purges_check_connection(struct compact_purges *purges)
{
    struct error error;

    if (connection_number(purges->store->connection) == purges->connection)
        return;
    error_set(&error, ERROR_UNAVAILABLE, "the connection to NATS was lost; call again to continue");
    compact_purges_fail(purges, &error);
}

static void compact_purges_check_client(struct compact_purges *purges)
{
    struct error error;

    if (purges->is_wanted(purges->arg))
        return;
    error_set(&error, ERROR_UNAVAILABLE, "the client has left, or has cancelled the call");
    compact_purges_fail(purges, &error);
}

/* Send as many purges as may be in flight. Call done when none is. */
static void compact_purges_send(struct compact_purges *purges)
{
    const struct compact_chunk *chunk = purges->chunk;
    struct compact_purge *purge;

    compact_purges_check_connection(purges);
    compact_purges_check_client(purges);
    while (!compact_purges_have_failed(purges) && purges->next_marker < chunk->count && purges->allowed > 0 &&
           (purge = compact_purges_find_free(purges)) != NULL) {
        size_t run = compact_purges_count_run(purges);
        if (run > 0)
            compact_purges_send_one(purges, purge, run, false);
        else if (!chunk->markers[purges->next_marker].is_retained)
            compact_purges_send_one(purges, purge, 1, true);
        else
            purges->next_marker++;
    }
    if (purges->in_flight == 0)
        purges->done(purges->arg, compact_purges_have_failed(purges) ? &purges->error : NULL);
}

void compact_purges_start(struct compact_purges *purges, const struct compact_chunk *chunk, bool keeps_markers,
                          uint64_t barrier)
{
    purges->chunk = chunk;
    purges->keeps_markers = keeps_markers;
    purges->barrier = barrier;
    purges->next_marker = 0;
    compact_purges_continue(purges);
}

bool compact_purges_have_more(const struct compact_purges *purges)
{
    return !compact_purges_have_failed(purges) && purges->next_marker < purges->chunk->count;
}

void compact_purges_continue(struct compact_purges *purges)
{
    purges->allowed = PURGES_PER_CHECK;
    compact_purges_send(purges);
}

void compact_purges_cancel(struct compact_purges *purges)
{
    if (purges->in_flight > 0)
        compact_purges_note_removal(purges);
    for (size_t i = 0; i < COMPACT_PURGES_MAX; i++) {
        if (purges->slots[i].is_in_flight)
            jetstream_cancel(&purges->slots[i].call);
        purges->slots[i].is_in_flight = false;
    }
    purges->in_flight = 0;
}

void compact_purges_end(struct compact_purges *purges)
{
    compact_purges_cancel(purges);
    if (purges->has_removed)
        compact_purges_note_removal(purges);
}
