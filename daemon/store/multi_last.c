#include "daemon/store/multi_last.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the time that is left, one part for the try. */
#define SHARE_OF_TIME 2u

uint64_t multi_last_deadline(const struct store *store, uint64_t deadline_ms)
{
    uint64_t now_ms = uv_now(store->loop), share_ms = (deadline_ms - now_ms) / SHARE_OF_TIME;
    unsigned attempt_ms = store->conf->calls.attempt_timeout_ms;

    return now_ms + (share_ms < attempt_ms ? share_ms : attempt_ms);
}

enum link_publish_result multi_last_publish(struct request *request, const struct store *store,
                                            const struct bucket *handle, const char *body, size_t body_bytes)
{
    char subject[sizeof(store->jetstream.prefix) + KV_STREAM_BYTES + 16];

    snprintf(subject, sizeof(subject), "%s.DIRECT.GET.%s", store->jetstream.prefix, handle->stream);
    return request_publish(request, subject, NULL, 0, body, body_bytes);
}

char *multi_last_body(const char *options, const char *prefix, const char *const *keys, size_t count, size_t *bytes)
{
    static const char list[] = "\"multi_last\":[";
    size_t prefix_length = strlen(prefix), size = strlen(options) + sizeof("{]}") + strlen(list);

    for (size_t i = 0; i < count; i++)
        size += prefix_length + strlen(keys[i]) + 3;
    char *body = malloc(size);
    if (body == NULL)
        return NULL;
    char *at = stpcpy(stpcpy(stpcpy(body, "{"), options), list);
    for (size_t i = 0; i < count; i++) { /* keys need no escaping: kv_check_key lets nothing through that would */
        *at++ = '"';
        memcpy(at, prefix, prefix_length);
        at = stpcpy(at + prefix_length, keys[i]);
        *at++ = '"';
        *at++ = ',';
    }
    at = stpcpy(count > 0 ? at - 1 : at, "]}");
    *bytes = (size_t)(at - body);
    return body;
}

static struct multi_last *read_of(struct request *request)
{
    return (struct multi_last *)((char *)request - offsetof(struct multi_last, request));
}

static void end(struct multi_last *read, bool is_whole)
{
    /* After a lost link another state of things may have been read. */
    bool is_first = read->request.attempts == 1;

    multi_last_cancel(read);
    read->done(read->arg, is_whole && is_first && !read->has_missed);
}

static enum link_publish_result send_read(struct request *request, unsigned attempt)
{
    const struct multi_last *read = read_of(request);

    (void)attempt;
    return multi_last_publish(request, read->store, read->handle, read->body, read->body_bytes);
}

/* Each message tells the revision of the one before it, and so does the end. */
static void note_last(struct multi_last *read, struct message *message, uint64_t revision)
{
    read->has_missed |= kv_header_number(message, KV_HEADER_LAST) != read->last;
    read->last = revision;
}

static void take_end(struct multi_last *read, struct message *message)
{
    bool is_whole = kv_read_progress(message) == KV_READ_ENDED;

    if (message_status(message) == 204) {
        uint64_t pending = kv_header_number(message, KV_HEADER_PENDING);
        read->upto = kv_header_number(message, KV_HEADER_UPTO);
        read->count += pending;
        note_last(read, message, 0);
        is_whole = read->is_count || pending == 0;
    }
    end(read, is_whole);
}

static enum request_verdict take_reply(struct request *request, unsigned attempt, struct message *message)
{
    struct multi_last *read = read_of(request);
    struct kv_entry entry;

    if (attempt != request->attempts)
        return REQUEST_MORE;
    if (kv_read_progress(message) != KV_READ_GOES_ON) {
        take_end(read, message);
        return REQUEST_DONE;
    }
    if (!kv_read_direct_entry(message, read->handle->prefix, &entry)) {
        end(read, false);
        return REQUEST_DONE;
    }
    requests_note_reply(&read->store->requests, message->payload_bytes);
    read->count++;
    note_last(read, message, entry.revision);
    read->entry(read->arg, &entry);
    return REQUEST_MORE;
}

static void fail_read(struct request *request, const struct error *error)
{
    (void)error;
    end(read_of(request), false);
}

static bool found_nobody(struct request *request)
{
    end(read_of(request), false);
    return false;
}

static const struct request_ops read_ops = {
    .send = send_read, .reply = take_reply, .fail = fail_read, .no_responders = found_nobody};

bool multi_last_start(struct store *store, struct multi_last *read, const char *const *keys, size_t count)
{
    bool is_all = !read->is_count && read->from == 0;
    char options[80];
    int length =
        snprintf(options, sizeof(options), "\"max_bytes\":%u,", is_all ? MULTI_LAST_BYTES_MAX : MULTI_LAST_NEWS_BYTES);

    read->store = store;
    read->upto = read->count = read->last = 0;
    read->has_missed = false;
    if (read->is_count)
        strcpy(options + length, "\"batch\":1,");
    else if (read->from > 0)
        snprintf(options + length, sizeof(options) - (size_t)length, "\"seq\":%" PRIu64 ",", read->from);
    read->body = multi_last_body(options, read->handle->prefix, keys, count, &read->body_bytes);
    if (read->body == NULL)
        return false;
    /* What is asked of entries that are known already brings little, and two such reads must go together. */
    read->request.expected_values = is_all ? count : 0;
    read->request.expected_bytes_max = MULTI_LAST_BYTES_MAX;
    request_start(&store->requests, &read->request, &read_ops, read->deadline_ms);
    return true;
}

void multi_last_cancel(struct multi_last *read)
{
    request_end(&read->request);
    free(read->body);
    read->body = NULL;
}
