#include "daemon/store/read/get.h"

#include "daemon/store/observe.h"

#include <stdio.h>
#include <string.h>

/* --- Asking ---------------------------------------------------------------------------------------- */

static struct get *get_of(struct request *request)
{
    return (struct get *)((char *)request - offsetof(struct get, request.base));
}

static bool get_asks_leader(const struct get *get)
{
    if (get->must_be_current && get->request.bucket->replicas > 1)
        return true;
    return get->consistency == READ_LEADER || !get->request.bucket->allows_direct;
}

/* Return whether it reads the key's last entry. */
static bool get_asks_last(const struct get *get)
{
    return get->revision == 0 && get->from_sequence == 0;
}

/* Both kinds of get have the same JSON, but for a direct get of a last entry, which has the key in its subject. */
static const char *get_make_body(struct get *get)
{
    size_t size = 64 + strlen(get->request.bucket->prefix) + strlen(get->key);

    if (get->revision == 0 && !get_asks_leader(get))
        return "";
    char *body = arena_alloc(get->arena, size);
    if (body == NULL)
        return NULL;
    if (get->revision > 0)
        snprintf(body, size, "{\"seq\":%llu}", (unsigned long long)get->revision);
    else if (get->from_sequence > 0)
        snprintf(body, size, "{\"seq\":%llu,\"next_by_subj\":\"%s%s\"}", (unsigned long long)get->from_sequence,
                 get->request.bucket->prefix, get->of_any_key ? ">" : get->key);
    else /* kv_check_key allows no character that needs escaping */
        snprintf(body, size, "{\"last_by_subj\":\"%s%s\"}", get->request.bucket->prefix, get->key);
    return body;
}

static enum connection_publish_result get_send(struct request *request, unsigned attempt)
{
    struct get *get = get_of(request);
    char subject[sizeof(get->store->jetstream.prefix) + 32 + KV_STREAM_BYTES + KV_SUBJECT_BYTES];
    char *at = stpcpy(subject, get->store->jetstream.prefix);

    (void)attempt;
    get->known_revision = observe_known_revision(get->store, get->bucket_name, get->key);
    at = stpcpy(stpcpy(at, get_asks_leader(get) ? ".STREAM.MSG.GET." : ".DIRECT.GET."), get->request.bucket->stream);
    if (get->revision == 0 && !get_asks_leader(get))
        stpcpy(stpcpy(stpcpy(at, "."), get->request.bucket->prefix), get->key);
    return request_publish(request, subject, NULL, 0, get->body, strlen(get->body));
}

/* --- Answers --------------------------------------------------------------------------------------- */

static void get_finish(struct get *get, const struct kv_entry *entry, const struct error *error)
{
    struct bucket *bucket = bucket_request_end(&get->request);

    arena_end_task(&get->task);
    get->done(get->arg, entry, error);
    if (bucket != NULL)
        bucket_release(bucket);
}

static void get_answer_absent(struct get *get)
{
    if (get_asks_last(get))
        observe_absent(get->store, get->bucket_name, get->key, get->known_revision, get_asks_leader(get));
    get_finish(get, NULL, NULL);
}

/* The entry that was found may be a marker, or of another key if it was read by revision. */
static void get_answer_entry(struct get *get, const struct kv_entry *entry)
{
    if (get->from_sequence == 0)
        observe_revision(get->store, get->bucket_name, entry->key, entry->revision, false);
    if (get_asks_last(get))
        observe_entry(get->store, get->bucket_name, entry);
    bool is_it =
        (get->of_any_key || strcmp(entry->key, get->key) == 0) && (entry->operation == KV_PUT || get->with_markers);

    get_finish(get, is_it ? entry : NULL, NULL);
}

static void get_start_request(struct get *get);

static void get_ask_leader(struct get *get)
{
    bucket_request_stop(&get->request);
    get->consistency = READ_LEADER;
    get_start_request(get);
}

/* Return whether the stream itself has answered. A mirror, which may be stale, may answer in its place. */
static bool get_is_of_stream(const struct get *get, const struct message *message)
{
    const char *stream = message_last_header(message, KV_HEADER_STREAM);

    return stream != NULL && strcmp(stream, get->request.bucket->stream) == 0;
}

/* With must_be_current, the leader is asked again if a mirror may have answered. (Its JSON costs more.) */
static enum request_verdict get_receive_direct(struct get *get, struct message *message)
{
    struct kv_entry entry;
    struct error error;
    unsigned status = message_status(message);

    if (get->must_be_current && (status == 404 || (status == 0 && !get_is_of_stream(get, message)))) {
        get_ask_leader(get);
    } else if (status == 404) {
        get_answer_absent(get);
    } else if (status != 0) {
        error_set(&error, ERROR_UNAVAILABLE, "NATS: %u %s; try again later", status, message_status_text(message));
        get_finish(get, NULL, &error);
    } else if (kv_read_direct_entry(message, get->request.bucket->prefix, &entry)) {
        get_answer_entry(get, &entry);
    } else {
        get_finish(get, NULL, NULL); /* the revision is not of a key */
    }
    return REQUEST_DONE;
}

static enum request_verdict get_receive_from_leader(struct get *get, struct message *answer)
{
    struct message message;
    struct jetstream_error failure;
    struct kv_entry entry;
    struct error error;

    switch (jetstream_unwrap_message(get->arena, answer, &message, &failure)) {
    case JETSTREAM_UNWRAPPED:
        if (kv_read_direct_entry(&message, get->request.bucket->prefix, &entry))
            get_answer_entry(get, &entry);
        else
            get_finish(get, NULL, NULL);
        return REQUEST_DONE;
    case JETSTREAM_UNWRAP_ERROR:
        if (failure.err_code == JETSTREAM_MESSAGE_NOT_FOUND) {
            get_answer_absent(get);
            return REQUEST_DONE;
        }
        if (jetstream_temporary_trouble(&failure) != REQUEST_NO_TROUBLE) {
            request_set_trouble(&get->request.base, jetstream_temporary_trouble(&failure));
            return REQUEST_RETRY;
        }
        if (failure.err_code == JETSTREAM_STREAM_NOT_FOUND) {
            if (!jetstream_believes_not_found(&get->store->jetstream, &get->not_found)) {
                request_set_trouble(&get->request.base, REQUEST_NO_LEADER);
                return REQUEST_RETRY;
            }
            bucket_forget(get->store, get->bucket_name);
        }
        jetstream_set_error(&error, &failure);
        break;
    case JETSTREAM_UNWRAP_MALFORMED:
        return REQUEST_MORE; /* somebody else listens on the subject; wait for the leader's answer */
    }
    get_finish(get, NULL, &error);
    return REQUEST_DONE;
}

static enum request_verdict get_receive(struct request *request, unsigned attempt, struct message *message)
{
    struct get *get = get_of(request);

    (void)attempt;
    requests_note_reply(&get->store->requests, message->payload_bytes);
    return get_asks_leader(get) ? get_receive_from_leader(get, message) : get_receive_direct(get, message);
}

static void get_fail(struct request *request, const struct error *error)
{
    get_finish(get_of(request), NULL, error);
}

/* --- Starting -------------------------------------------------------------------------------------- */

static struct get *get_of_bucket_request(struct bucket_request *request)
{
    return (struct get *)((char *)request - offsetof(struct get, request));
}

/* False: out of memory, and the get is over. */
static bool get_prepare_body(struct get *get)
{
    struct error memory;

    get->body = get_make_body(get);
    if (get->body != NULL)
        return true;
    error_set(&memory, ERROR_RESOURCE_EXHAUSTED, "out of memory");
    get_finish(get, NULL, &memory);
    return false;
}

static const struct request_ops get_ops = {.kind = "get",
                                           .send = get_send,
                                           .reply = get_receive,
                                           .fail = get_fail,
                                           .no_responders = bucket_request_on_no_responders};

static void get_start_request(struct get *get)
{
    if (!get_prepare_body(get))
        return;
    get->request.base.answers_once = !get_asks_leader(get);
    get->request.base.expected_values = 1;
    bucket_request_start(&get->request, &get_ops);
}

static void on_get_opened(struct bucket_request *request)
{
    get_start_request(get_of_bucket_request(request));
}

/* It may no longer allow direct gets. */
static bool on_get_refreshed(struct bucket_request *request)
{
    return get_prepare_body(get_of_bucket_request(request));
}

static void on_get_failed(struct bucket_request *request, const struct error *error)
{
    get_finish(get_of_bucket_request(request), NULL, error);
}

static const struct bucket_request_ops get_bucket_ops = {
    .opened = on_get_opened, .refreshed = on_get_refreshed, .failed = on_get_failed};

static void get_cancel_task(struct arena_task *task)
{
    get_cancel(ARENA_TASK_OWNER(task, struct get, task));
}

void get_start(struct store *store, struct arena *arena, struct get *get)
{
    get->store = store;
    get->arena = arena;
    arena_begin_reading_task(arena, &get->task, get_cancel_task);
    get->request.is_direct = true;
    bucket_request_open(&get->request, store, get->bucket_name, arena, get->deadline_ms, &get_bucket_ops);
}

void get_cancel(struct get *get)
{
    arena_end_task(&get->task);
    bucket_request_cancel(&get->request);
}

void get_set_memory_error(struct error *error, const char *ask_for)
{
    error_set(error, ERROR_RESOURCE_EXHAUSTED,
              "the daemon's calls in flight use all of limits.call_bytes; try again, or request %s", ask_for);
}

/* --- Copies of entries ----------------------------------------------------------------------------- */

struct header_copy {
    struct arena *arena;
    struct message *message;
    size_t capacity;
    bool failed;
};

static bool get_copy_header(void *arg, const char *name, const char *value)
{
    struct header_copy *copy = arg;
    struct message *message = copy->message;

    if (kv_is_internal_header(name) && !kv_is_expiry_header(name))
        return true;
    if (message->header_count == copy->capacity) {
        size_t capacity = copy->capacity > 0 ? copy->capacity * 2 : 4;
        struct message_header *headers = arena_alloc(copy->arena, capacity * sizeof(*headers));
        if (headers == NULL) {
            copy->failed = true;
            return false;
        }
        if (message->header_count > 0)
            memcpy(headers, message->headers, message->header_count * sizeof(*headers));
        message->headers = headers;
        copy->capacity = capacity;
    }
    struct message_header *header = &message->headers[message->header_count++];
    header->name = arena_strdup(copy->arena, name);
    header->value = arena_strdup(copy->arena, value);
    copy->failed = header->name == NULL || header->value == NULL;
    return !copy->failed;
}

static bool get_copy_headers(struct arena *arena, struct message *from, struct message *to)
{
    struct header_copy copy = {.arena = arena, .message = to};

    message_each_header(from, get_copy_header, &copy);
    return !copy.failed;
}

bool get_copy_entry(struct arena *arena, const struct kv_entry *entry, struct kv_entry *copy)
{
    struct message *message = arena_zalloc(arena, sizeof(*message));

    *copy = *entry;
    copy->key = arena_strdup(arena, entry->key);
    copy->value = arena_strndup(arena, entry->value, entry->value_bytes);
    copy->message = message;
    return message != NULL && copy->key != NULL && copy->value != NULL &&
           get_copy_headers(arena, entry->message, message);
}
