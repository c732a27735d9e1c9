#include "daemon/store/read/bulk_get.h"

#include "daemon/base/backoff.h"
#include "daemon/store/observe.h"
#include "daemon/store/read/multi_last.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* After this number of readings that missed a key, the call fails. */
#define BULK_GET_READS_MAX 16u

/* The pause before another reading, about. */
#define PAUSE_MIN_MS 2u
#define PAUSE_MAX_MS 100u

/* Single gets of one call in flight at a time. */
#define BULK_GET_WINDOW 256u

/* The bytes of a page. Another reply waits for it some milliseconds. */
#define PAGE_BYTES (1024u * 1024u)

struct bulk_key {
    const char *name;
    size_t index;
    uint64_t known_revision; /* see observe_known_revision */
    bool has_come;
};

struct bulk_get_slot {
    struct get get;
    struct bulk_get *bulk;
    struct bulk_get_slot *next_spare;
    size_t index;
};

static void bulk_get_finish(struct bulk_get *bulk, const struct error *error)
{
    struct bucket *bucket = bucket_request_end(&bulk->request);

    arena_end_task(&bulk->task);
    bulk->done(bulk->arg, error);
    if (bucket != NULL)
        bucket_release(bucket);
}

static void bulk_get_cancel(struct arena_task *task)
{
    struct bulk_get *bulk = ARENA_TASK_OWNER(task, struct bulk_get, task);

    bucket_request_cancel(&bulk->request);
    timer_stop(bulk->store->timers, &bulk->pause);
}

static void bulk_get_fail(struct bulk_get *bulk, enum error_code code, const char *sentence)
{
    struct error error;

    error_set(&error, code, "%s", sentence);
    bulk_get_finish(bulk, &error);
}

/* Discard what was delivered. */
static void bulk_get_restart(struct bulk_get *bulk)
{
    bulk->bytes = 0;
    bulk->restart(bulk->arg);
}

/* Deliver an entry. False: the answer is too large, and bulk->error says so. */
static bool bulk_get_deliver(struct bulk_get *bulk, size_t index, const struct kv_entry *entry)
{
    bulk->bytes += bulk->entry(bulk->arg, index, entry);
    size_t more = bulk->bytes > bulk->charged_bytes ? bulk->bytes - bulk->charged_bytes : 0;

    bulk->charged_bytes += more;
    if (more > 0 && !bulk->take_memory(bulk->memory_arg, more)) {
        if (bulk->error.code == ERROR_NONE)
            get_set_memory_error(&bulk->error, "fewer keys");
        return false;
    }
    if (bulk->bytes <= bulk->bytes_max)
        return true;
    if (bulk->error.code == ERROR_NONE)
        error_set(&bulk->error, ERROR_TOO_LARGE,
                  "the entries exceed %zu bytes (limits.frame_bytes); request fewer keys at a time", bulk->bytes_max);
    return false;
}

/* --- One point in time: multi-last (ADR-31) -------------------------------------------------------- */

static void bulk_get_start_chunk(struct bulk_get *bulk);

/* The most that the server may send at once: a page, or just more than what makes the call too_large. */
static size_t bulk_get_reply_max(const struct bulk_get *bulk)
{
    return !bulk->pages.is_off ? PAGE_BYTES : bulk->bytes_max + bulk->bytes_max / 2 + 1024 * 1024;
}

static void bulk_get_begin_pages(struct bulk_get *bulk)
{
    bulk->pages = (struct bulk_get_pages){.is_off = bulk->pages.is_off};
}

/* Measure the next chunk: as many keys as the server allows in one request and in one message. */
static void bulk_get_measure_chunk(struct bulk_get *bulk)
{
    size_t prefix_length = strlen(bulk->request.bucket->prefix), size = 128, count = 0;
    size_t max_bytes = connection_get_status(bulk->store->connection)->max_payload_bytes;

    while (bulk->chunk_start + count < bulk->count && count < MULTI_LAST_KEYS_MAX) {
        size_t more = prefix_length + strlen(bulk->keys[bulk->chunk_start + count]) + 3;
        if (count > 0 && max_bytes > 0 && size + more > max_bytes)
            break;
        size += more;
        count++;
    }
    bulk->chunk_count = count;
}

static struct bulk_get *bulk_get_of(struct request *request)
{
    return (struct bulk_get *)((char *)request - offsetof(struct bulk_get, request.base));
}

static void bulk_get_note_known(struct bulk_get *bulk)
{
    for (size_t i = bulk->chunk_start; i < bulk->chunk_start + bulk->chunk_count; i++) {
        bulk->all[i].known_revision = observe_known_revision(bulk->store, bulk->bucket_name, bulk->all[i].name);
        bulk->all[i].has_come = false;
    }
    bulk->has_answer = false;
}

static void bulk_get_fill_window(struct bulk_get *bulk);
static void bulk_get_read_singly(struct bulk_get *bulk);

static void bulk_get_next_chunk(struct bulk_get *bulk)
{
    bulk->chunk_start += bulk->chunk_count;
    bulk_get_start_chunk(bulk);
}

/* Tell the observers that the keys which the chunk did not bring are absent. */
static void bulk_get_note_absent(struct bulk_get *bulk)
{
    for (size_t i = bulk->chunk_start; i < bulk->chunk_start + bulk->chunk_count; i++) {
        if (!bulk->all[i].has_come && bulk->all[i].known_revision > 0)
            observe_absent(bulk->store, bulk->bucket_name, bulk->all[i].name, bulk->all[i].known_revision,
                           bulk->has_answer && bulk->request.bucket->is_exclusive);
    }
}

/* A mirror, which may be stale, may answer instead of its origin. In embedded mode that breaks our promises. */
static bool bulk_get_is_of_mirror(const struct bulk_get *bulk, const struct message *message)
{
    const char *stream = message_last_header(message, KV_HEADER_STREAM);

    return bulk->request.bucket->is_exclusive && (stream == NULL || strcmp(stream, bulk->request.bucket->stream) != 0);
}

/*
 * Return whether a key that did not come is certainly absent. If nothing has come, a mirror may have answered. Before
 * 2.15 the server does not block writes while it reads, and misses a key that is overwritten meanwhile. The servers of
 * a cluster may have different versions.
 */
static bool bulk_get_absence_is_certain(const struct bulk_get *bulk)
{
    if (bulk->request.bucket->is_exclusive && !bulk->has_answer)
        return false;
    return bulk->store->jetstream.level >= JETSTREAM_LEVEL_ISOLATED && !bulk->request.bucket->is_clustered;
}

/*
 * All that the server found has come. If it may have missed a key, get each key that has not come. If one is present,
 * the chunk was not one point in time, and everything is read again.
 */
static void bulk_get_end_chunk(struct bulk_get *bulk)
{
    bucket_request_stop(&bulk->request);
    if (bulk_get_absence_is_certain(bulk)) {
        bulk_get_note_absent(bulk);
        bulk_get_next_chunk(bulk);
        return;
    }
    bulk->phase = BULK_GET_VERIFIES;
    bulk->has_missed = false;
    bulk->next = bulk->chunk_start;
    bulk_get_fill_window(bulk);
}

static void on_bulk_get_pause_over(struct timer *timer)
{
    struct bulk_get *bulk = (struct bulk_get *)((char *)timer - offsetof(struct bulk_get, pause));

    bulk->chunk_start = 0;
    bulk_get_start_chunk(bulk);
}

static void bulk_get_end_verifying(struct bulk_get *bulk)
{
    struct error error;

    bulk->phase = BULK_GET_READS_CHUNK;
    if (!bulk->has_missed || bulk->may_mix_moments) {
        bulk_get_next_chunk(bulk);
        return;
    }
    uint64_t again_ms = uv_now(bulk->store->loop) + backoff_ms(++bulk->misses, PAUSE_MIN_MS, PAUSE_MAX_MS);
    if (bulk->misses < BULK_GET_READS_MAX && again_ms < bulk->deadline_ms) {
        timer_start(bulk->store->timers, &bulk->pause, again_ms, on_bulk_get_pause_over);
        return;
    }
    error_set(&error, ERROR_UNAVAILABLE,
              "keys were created or overwritten during each of %u attempts to read them; try again", bulk->misses);
    bulk_get_finish(bulk, &error);
}

/* The JSON of the keys may be as large as a message. It is made for each attempt, so that none is kept meanwhile. */
static enum connection_publish_result bulk_get_publish_chunk(struct bulk_get *bulk)
{
    const struct bulk_get_pages *pages = &bulk->pages;
    char options[112], next[72] = "";
    size_t body_bytes;

    if (pages->up_to > 0)
        snprintf(next, sizeof(next), "\"up_to_seq\":%" PRIu64 ",\"seq\":%" PRIu64 ",", pages->up_to, pages->last + 1);
    snprintf(options, sizeof(options), "\"max_bytes\":%zu,%s", bulk_get_reply_max(bulk), next);
    char *body = multi_last_body(options, bulk->request.bucket->prefix, &bulk->keys[bulk->chunk_start],
                                 bulk->chunk_count, &body_bytes);
    if (body == NULL)
        return CONNECTION_NO_MEMORY;
    enum connection_publish_result result =
        multi_last_publish(&bulk->request.base, bulk->store, bulk->request.bucket, body, body_bytes);
    free(body);
    return result;
}

static enum connection_publish_result bulk_get_send_chunk(struct request *request, unsigned attempt)
{
    struct bulk_get *bulk = bulk_get_of(request);
    bool is_next_page = bulk->pages.is_next;

    /* A chunk that is read again would deliver its keys twice, so everything is read again. */
    if (attempt > 1 && !is_next_page) {
        bulk->chunk_start = 0;
        bulk_get_begin_pages(bulk);
        bulk_get_measure_chunk(bulk);
    }
    if (bulk->chunk_start == 0 && !is_next_page)
        bulk_get_restart(bulk);
    if (!is_next_page)
        bulk_get_note_known(bulk);
    bulk->pages.is_next = false;
    return bulk_get_publish_chunk(bulk);
}

/* One answer of the server is always of one point in time. */
static void bulk_get_read_at_once(struct bulk_get *bulk)
{
    bulk->pages.is_off = true;
    bucket_request_stop(&bulk->request);
    bulk->chunk_start = 0;
    bulk_get_start_chunk(bulk);
}

/* More has to come than fits into a page: ask for the next one. */
static enum request_verdict bulk_get_continue(struct bulk_get *bulk, struct message *message)
{
    struct bulk_get_pages *pages = &bulk->pages;

    if (pages->last == pages->before) { /* no value fits into a page */
        bulk_get_read_at_once(bulk);
        return REQUEST_DONE;
    }
    if (pages->up_to == 0) {
        pages->up_to = kv_header_number(message, KV_HEADER_UPTO);
        pages->left = kv_header_number(message, KV_HEADER_PENDING);
    }
    pages->before = pages->last;
    pages->is_next = true;
    request_continue(&bulk->request.base);
    return REQUEST_MORE;
}

/* If a message is missing, its value was overwritten between two pages, and the former one is gone. */
static void bulk_get_end_pages(struct bulk_get *bulk)
{
    if (bulk->pages.up_to > 0 && bulk->pages.left > 0)
        bulk_get_read_at_once(bulk);
    else
        bulk_get_end_chunk(bulk);
}

static void bulk_get_count(struct bulk_get_pages *pages, uint64_t revision)
{
    if (revision > pages->last)
        pages->last = revision;
    if (pages->up_to > 0 && pages->left > 0)
        pages->left--;
}

/* Return whether the server may not have such reads. It may have told its level only since this one was sent. */
static bool bulk_get_may_be_unknown(const struct bulk_get *bulk)
{
    const struct jetstream *jetstream = &bulk->store->jetstream;

    return !jetstream->is_known || jetstream->level < JETSTREAM_LEVEL_TTL;
}

static enum request_verdict bulk_get_receive(struct request *request, unsigned attempt, struct message *message)
{
    struct bulk_get *bulk = bulk_get_of(request);
    struct kv_entry entry;
    struct bulk_key *key = NULL;
    struct error error;

    if (attempt != (request->attempts & REQUEST_ATTEMPT_MASK))
        return REQUEST_MORE;
    switch (kv_read_progress(message)) {
    case KV_READ_CONTINUES:
        break;
    case KV_READ_ENDED:
        bulk_get_end_pages(bulk);
        return REQUEST_DONE;
    case KV_READ_DISTURBED:
        request_set_trouble(request, REQUEST_NO_ANSWER);
        return REQUEST_RETRY;
    case KV_READ_CUT:
        if (!bulk->pages.is_off)
            return bulk_get_continue(bulk, message);
        bulk_get_fail(bulk, ERROR_TOO_LARGE,
                      "the values and their headers exceed limits.frame_bytes; request fewer keys at a time");
        return REQUEST_DONE;
    case KV_READ_FAILED:
        if (message_status(message) == 408 && bulk_get_may_be_unknown(bulk)) {
            bucket_request_stop(&bulk->request);
            bulk_get_read_singly(bulk);
            return REQUEST_DONE;
        }
        error_set(&error, message_status(message) == 413 ? ERROR_TOO_LARGE : ERROR_UNAVAILABLE, "NATS: %u %s",
                  message_status(message), message_status_text(message));
        bulk_get_finish(bulk, &error);
        return REQUEST_DONE;
    }
    if (!kv_read_direct_entry(message, bulk->request.bucket->prefix, &entry) || bulk_get_is_of_mirror(bulk, message)) {
        request_set_trouble(request, REQUEST_NO_ANSWER);
        return REQUEST_RETRY;
    }
    bulk->has_answer = true;
    bulk_get_count(&bulk->pages, entry.revision);
    requests_note_reply(&bulk->store->requests, message->payload_bytes);
    observe_revision(bulk->store, bulk->bucket_name, entry.key, entry.revision, false);
    uint32_t index = key_index_find(&bulk->by_name, entry.key);
    if (index != KEY_INDEX_NONE)
        key = &bulk->all[index];
    if (key != NULL)
        key->has_come = true;
    if (key != NULL && entry.operation == KV_PUT && !bulk_get_deliver(bulk, key->index, &entry)) {
        error = bulk->error;
        bulk_get_finish(bulk, &error);
        return REQUEST_DONE;
    }
    return REQUEST_MORE;
}

static void bulk_get_fail_chunk(struct request *request, const struct error *error)
{
    bulk_get_finish(bulk_get_of(request), error);
}

static const struct request_ops bulk_get_ops = {.kind = "multi_last",
                                                .send = bulk_get_send_chunk,
                                                .reply = bulk_get_receive,
                                                .fail = bulk_get_fail_chunk,
                                                .no_responders = bucket_request_on_no_responders};

static void bulk_get_read_chunk(struct bulk_get *bulk)
{
    bulk->request.base.expected_values = bulk->chunk_count;
    bulk->request.base.expected_bytes_max = bulk_get_reply_max(bulk);
    bucket_request_start(&bulk->request, &bulk_get_ops);
}

static void bulk_get_start_chunk(struct bulk_get *bulk)
{
    if (bulk->chunk_start == bulk->count) {
        bulk_get_finish(bulk, NULL);
        return;
    }
    bulk_get_begin_pages(bulk);
    bulk_get_measure_chunk(bulk);
    bulk_get_read_chunk(bulk);
}

/* --- Single gets ----------------------------------------------------------------------------------- */

static void on_bulk_get_single(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct bulk_get_slot *slot = arg;
    struct bulk_get *bulk = slot->bulk;

    if (error != NULL && bulk->error.code == ERROR_NONE)
        bulk->error = *error;
    /* A marker, too, is a message that the chunk should have brought. */
    bulk->has_missed |= entry != NULL;
    if (entry != NULL && entry->operation == KV_PUT && bulk->error.code == ERROR_NONE &&
        (bulk->phase != BULK_GET_VERIFIES || bulk->may_mix_moments))
        bulk_get_deliver(bulk, slot->index, entry);
    slot->next_spare = bulk->spare;
    bulk->spare = slot;
    bulk->in_flight--;
    bulk_get_fill_window(bulk);
}

static bool bulk_get_start_next(struct bulk_get *bulk)
{
    struct bulk_get_slot *slot = bulk->spare;

    if (slot != NULL)
        bulk->spare = slot->next_spare;
    else
        slot = arena_alloc(bulk->arena, sizeof(*slot));
    if (slot == NULL) {
        error_set(&bulk->error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        return false;
    }
    memset(slot, 0, sizeof(*slot));
    slot->bulk = bulk;
    slot->index = bulk->next++;
    slot->get.bucket_name = bulk->bucket_name;
    slot->get.key = bulk->keys[slot->index];
    slot->get.revision = bulk->revisions != NULL ? bulk->revisions[slot->index] : 0;
    slot->get.consistency = bulk->consistency;
    slot->get.must_be_current = bulk->request.bucket->is_exclusive;
    slot->get.with_markers = bulk->phase == BULK_GET_VERIFIES;
    slot->get.deadline_ms = bulk->deadline_ms;
    slot->get.done = on_bulk_get_single;
    slot->get.arg = slot;
    bulk->in_flight++;
    get_start(bulk->store, bulk->arena, &slot->get);
    return true;
}

/* Return whether a key is left for a single get; bulk->next is its index. */
static bool bulk_get_has_next(struct bulk_get *bulk)
{
    size_t end = bulk->phase == BULK_GET_VERIFIES ? bulk->chunk_start + bulk->chunk_count : bulk->count;

    while (bulk->phase == BULK_GET_VERIFIES && bulk->next < end && bulk->all[bulk->next].has_come)
        bulk->next++;
    return bulk->error.code == ERROR_NONE && bulk->next < end;
}

/* A get may end while it is started: only the outermost call continues, and ends the bulk get. */
static void bulk_get_fill_window(struct bulk_get *bulk)
{
    struct error error;

    if (bulk->is_filling)
        return;
    bulk->is_filling = true;
    while (bulk->in_flight < BULK_GET_WINDOW && bulk_get_has_next(bulk))
        if (!bulk_get_start_next(bulk))
            break;
    bulk->is_filling = false;
    if (bulk->in_flight > 0 || bulk_get_has_next(bulk))
        return;
    error = bulk->error;
    if (error.code != ERROR_NONE)
        bulk_get_finish(bulk, &error);
    else if (bulk->phase == BULK_GET_VERIFIES)
        bulk_get_end_verifying(bulk);
    else
        bulk_get_finish(bulk, NULL);
}

/* Get all keys singly. */
static void bulk_get_read_singly(struct bulk_get *bulk)
{
    bulk->phase = BULK_GET_READS_SINGLY;
    bulk->next = 0;
    bulk_get_restart(bulk);
    bulk_get_fill_window(bulk);
}

/* --- Either ---------------------------------------------------------------------------------------- */

static bool bulk_get_index_keys(struct bulk_get *bulk)
{
    bulk->all = arena_zalloc(bulk->arena, (bulk->count + 1) * sizeof(*bulk->all));
    if (bulk->all == NULL || !key_index_init(&bulk->by_name, bulk->arena, bulk->count))
        return false;
    for (size_t i = 0; i < bulk->count; i++) {
        struct bulk_key *key = &bulk->all[i];
        key->name = bulk->keys[i];
        key->index = i;
        key_index_add(&bulk->by_name, key->name, (uint32_t)i);
    }
    return true;
}

static struct bulk_get *bulk_get_of_bucket_request(struct bucket_request *request)
{
    return (struct bulk_get *)((char *)request - offsetof(struct bulk_get, request));
}

static void on_bulk_get_opened(struct bucket_request *request)
{
    struct bulk_get *bulk = bulk_get_of_bucket_request(request);

    if (bulk->consistency != READ_DIRECT || bulk->revisions != NULL || !request->bucket->allows_direct ||
        !jetstream_has_multi_last(&bulk->store->jetstream))
        bulk_get_read_singly(bulk);
    else if (bulk_get_index_keys(bulk))
        bulk_get_start_chunk(bulk);
    else
        bulk_get_fail(bulk, ERROR_RESOURCE_EXHAUSTED, "out of memory");
}

static bool on_bulk_get_refreshed(struct bucket_request *request)
{
    if (request->bucket->allows_direct)
        return true;
    bucket_request_stop(request);
    bulk_get_read_singly(bulk_get_of_bucket_request(request));
    return false;
}

static void on_bulk_get_failed(struct bucket_request *request, const struct error *error)
{
    bulk_get_finish(bulk_get_of_bucket_request(request), error);
}

static const struct bucket_request_ops bulk_get_bucket_ops = {
    .opened = on_bulk_get_opened, .refreshed = on_bulk_get_refreshed, .failed = on_bulk_get_failed};

void bulk_get(struct store *store, struct arena *arena, struct bulk_get *bulk)
{
    bulk->store = store;
    bulk->arena = arena;
    arena_begin_reading_task(arena, &bulk->task, bulk_get_cancel);
    bulk->request.is_direct = true;
    bucket_request_open(&bulk->request, store, bulk->bucket_name, arena, bulk->deadline_ms, &bulk_get_bucket_ops);
}
