#include "daemon/nats/consumer.h"

#include "daemon/base/log.h"
#include "daemon/nats/consumer_removal.h"
#include "daemon/nats/stream_info.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The server removes a consumer that nobody has pulled from for this long, in case our removal is lost. */
#define INACTIVE_THRESHOLD_NS 10000000000LL

/*
 * After this number of empty pulls in a row, the list of a last_per_subject consumer is given up. Each may be an entry
 * of the list whose message was overwritten since. The next lap makes a new list, or reads by sequence.
 */
#define EMPTY_PULLS_MAX 16u

/* After this number of empty laps in a row, the next one waits. While keys are overwritten, the server's estimate can
 * be 0 for a moment. */
#define EMPTY_LAPS_MAX 3u

/* How often a long reading logs its progress. */
#define LOG_EVERY_MS 10000u

static struct consumer_reading *reading_of(struct request *request)
{
    return (struct consumer_reading *)((char *)request - offsetof(struct consumer_reading, request));
}

/* The name ends in the attempt's token, by which deliveries find the request: see reply_table. */
static void set_consumer_name(struct consumer_reading *reading)
{
    char token[REQUEST_TOKEN_BYTES];

    request_write_token(&reading->request, token);
    snprintf(reading->name, sizeof(reading->name), "kvstored-%.12s-%s",
             connection_unique_id(reading->request.requests->connection), token);
}

/* --- The consumer ----------------------------------------------------------------------------------- */

/* Remove the present consumer. If the reading continues, it keeps its place in the limit. */
static void remove_consumer(struct consumer_reading *reading, bool is_over)
{
    struct request *request = &reading->request;

    reading->attempt = 0;
    if (reading->name[0] == '\0')
        return;
    consumer_removal_start(reading->jetstream, reading->scope.stream, reading->name, request,
                           is_over || reading->scope.leaves_place ? request->limit : NULL, is_over);
    request_release_budget(request); /* the server delivers nothing after that */
    reading->name[0] = '\0';
}

/* Return the sequence at which the reading continues; 0: the beginning of the stream. */
static uint64_t next_sequence(const struct consumer_reading *reading)
{
    return reading->position > 0 ? reading->position + 1 : reading->scope.start_sequence;
}

static void add_filters(json_t *config, const struct consumer_scope *scope)
{
    if (scope->filter_count == 1) {
        json_object_set_new(config, "filter_subject", json_string(scope->filters[0]));
        return;
    }
    json_t *filters = json_array(); /* several: nats-server 2.10 */
    for (size_t i = 0; i < scope->filter_count; i++)
        json_array_append_new(filters, json_string(scope->filters[i]));
    json_object_set_new(config, "filter_subjects", filters);
}

static json_t *make_config(const struct consumer_reading *reading)
{
    const struct consumer_scope *scope = &reading->scope;
    bool is_list = !reading->reads_sequence;
    uint64_t start = next_sequence(reading);
    const char *policy = is_list ? "last_per_subject" : start > 0 ? "by_start_sequence" : "all";
    json_t *config = json_pack("{s:s, s:s, s:s, s:s, s:I, s:i, s:b, s:b}", "name", reading->name, "deliver_policy",
                               policy, "ack_policy", "none", "replay_policy", "instant", "inactive_threshold",
                               (json_int_t)INACTIVE_THRESHOLD_NS, "num_replicas", 1, "mem_storage", 1, "headers_only",
                               scope->headers_only);

    /* A filter would make the server count its keys. */
    if (config != NULL && (is_list || !reading->is_whole))
        add_filters(config, scope);
    if (config != NULL && !is_list && start > 0)
        json_object_set_new(config, "opt_start_seq", json_integer((json_int_t)start));
    return config;
}

static void consumer_begin_attempt(struct consumer_reading *reading, unsigned attempt)
{
    reading->saw_end = false;
    reading->pending = 0;
    reading->pulled = 0;
    reading->pull.delivered = reading->pull.delivered_bytes = 0;
    reading->empty_pulls = 0;
    reading->consumer_sequence = 0;
    reading->attempt = attempt;
}

static enum connection_publish_result publish_json(struct consumer_reading *reading, const char *subject, json_t *body)
{
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    enum connection_publish_result result = CONNECTION_NO_MEMORY;

    json_decref(body);
    if (text != NULL)
        result = request_publish(&reading->request, subject, NULL, 0, text, strlen(text));
    free(text);
    return result;
}

/* Create a consumer that continues at the reading's position. */
static enum connection_publish_result create_reader(struct consumer_reading *reading)
{
    char subject[512];

    set_consumer_name(reading);
    snprintf(subject, sizeof(subject), "%s.CONSUMER.CREATE.%s.%s", reading->jetstream->prefix, reading->scope.stream,
             reading->name);
    reading->phase = CONSUMER_CREATING;
    enum connection_publish_result result =
        publish_json(reading, subject,
                     json_pack("{s:s, s:o*}", "stream_name", reading->scope.stream, "config", make_config(reading)));
    if (result != CONNECTION_PUBLISHED)
        reading->name[0] = '\0';
    return result;
}

/*
 * Return whether the next lap may read all messages by sequence. A last_per_subject reading may not before the target:
 * it would deliver messages that were overwritten before the reading began. Each message after the target was the last
 * one of its subject at some time during the reading.
 */
static bool lap_may_read_sequence(const struct consumer_reading *reading)
{
    return !reading->scope.last_per_subject || reading->keeps_one || reading->position >= reading->target;
}

/* Begin the reading, continue it after a failure, or begin its next lap. */
static enum connection_publish_result send_reading(struct request *request, unsigned attempt)
{
    struct consumer_reading *reading = reading_of(request);
    char subject[512];

    reading->name[0] = '\0';
    consumer_begin_attempt(reading, attempt);
    if (reading->phase == CONSUMER_NEXT_LAP) {
        reading->reads_sequence = lap_may_read_sequence(reading);
        return create_reader(reading);
    }
    reading->phase = CONSUMER_ASKING;
    reading->request.extra_timeout_ms = 0;
    snprintf(subject, sizeof(subject), "%s.STREAM.INFO.%s", reading->jetstream->prefix, reading->scope.stream);
    return request_publish(request, subject, NULL, 0, "", 0);
}

/* Request the next messages. With no_wait the server answers at once if there are none. */
static enum request_verdict request_pull(struct consumer_reading *reading)
{
    char subject[512], body[96];
    size_t max_bytes;

    snprintf(subject, sizeof(subject), "%s.CONSUMER.MSG.NEXT.%s.%s", reading->jetstream->prefix, reading->scope.stream,
             reading->name);
    unsigned count =
        consumer_pull_size(&reading->pull, reading->request.requests->connection, !reading->reads_sequence, &max_bytes);
    snprintf(body, sizeof(body), "{\"batch\":%u,\"max_bytes\":%zu,\"no_wait\":true}", count, max_bytes);
    reading->phase = CONSUMER_PULLING;
    reading->pulled = count;
    reading->pull.delivered = reading->pull.delivered_bytes = 0;
    reading->pulled_from = reading->position;
    if (request_publish(&reading->request, subject, NULL, 0, body, strlen(body)) == CONNECTION_PUBLISHED)
        return REQUEST_MORE;
    request_set_trouble(&reading->request, REQUEST_CONGESTED);
    return REQUEST_RETRY;
}

static void log_progress(struct consumer_reading *reading)
{
    uint64_t now_ms = uv_now(reading->request.requests->loop);

    if (now_ms - reading->logged_ms < LOG_EVERY_MS)
        return;
    reading->logged_ms = now_ms;
    log_info("nats: reading %s: %" PRIu64 " messages of about %" PRIu64, reading->scope.stream, reading->read,
             reading->messages);
}

/* The present pull is complete. */
static enum request_verdict pull_more(struct consumer_reading *reading)
{
    if (reading->position > reading->pulled_from) { /* a lap of a list begins with what was read before */
        request_reset_backoff(&reading->request);
        log_progress(reading);
    }
    consumer_pull_end(&reading->pull);
    reading->pulled = 0;
    if (!reading->is_paused)
        return request_pull(reading);
    request_suspend(&reading->request);
    return REQUEST_MORE;
}

void consumer_continue(struct consumer_reading *reading)
{
    struct request *request = &reading->request;

    if (!reading->is_paused)
        return;
    reading->is_paused = false;
    if (request->state != REQUEST_SUSPENDED || reading->pulled > 0)
        return;
    request_listen(request, request->requests->conf->calls.attempt_timeout_ms);
    if (request_pull(reading) != REQUEST_MORE)
        request_retry_later(request, REQUEST_CONGESTED);
}

static enum request_verdict finish_reading(struct consumer_reading *reading, const struct error *error)
{
    remove_consumer(reading, true);
    request_end(&reading->request);
    reading->ops->done(reading->arg, error);
    return REQUEST_DONE;
}

/* A paused reading is suspended while its last pull completes, which may make it continue. */
static void wake_reading(struct consumer_reading *reading)
{
    struct request *request = &reading->request;

    if (request->state == REQUEST_SUSPENDED)
        request_listen(request, request->requests->conf->calls.attempt_timeout_ms);
}

/* An error of the server. */
static enum request_verdict on_api_error(struct consumer_reading *reading, const struct jetstream_error *failure)
{
    struct error error;

    if (jetstream_temporary_trouble(failure) != REQUEST_NO_TROUBLE) {
        request_set_trouble(&reading->request, jetstream_temporary_trouble(failure));
        return REQUEST_RETRY;
    }
    jetstream_set_error(&error, failure);
    return finish_reading(reading, &error);
}

static enum request_verdict start_over(struct consumer_reading *reading)
{
    wake_reading(reading);
    remove_consumer(reading, false);
    request_set_trouble(&reading->request, REQUEST_NO_ANSWER);
    return REQUEST_RETRY;
}

/* --- Its end ---------------------------------------------------------------------------------------- */

/* Continue after the position. After empty laps wait a moment: their server is behind the leader. */
static enum request_verdict begin_lap(struct consumer_reading *reading)
{
    bool has_progress = reading->position > reading->looked_from;

    wake_reading(reading);
    remove_consumer(reading, false);
    reading->phase = CONSUMER_NEXT_LAP;
    reading->request.extra_timeout_ms = consumer_creation_ms(reading->messages);
    reading->looked_from = reading->position;
    reading->empty_laps = has_progress ? 0 : reading->empty_laps + 1;
    if (reading->empty_laps < EMPTY_LAPS_MAX) {
        request_continue(&reading->request);
        return REQUEST_MORE;
    }
    request_set_trouble(&reading->request, REQUEST_NO_LEADER);
    return REQUEST_RETRY;
}

/* Ask the leader for the next message after the position, for one filter after the other. */
static enum request_verdict ask_for_next(struct consumer_reading *reading)
{
    char subject[512];
    uint64_t from = next_sequence(reading);
    json_t *body = json_pack("{s:I, s:s}", "seq", (json_int_t)(from > 0 ? from : 1), "next_by_subj",
                             reading->scope.filters[reading->looked_filters]);

    wake_reading(reading);
    snprintf(subject, sizeof(subject), "%s.STREAM.MSG.GET.%s", reading->jetstream->prefix, reading->scope.stream);
    if (publish_json(reading, subject, body) != CONNECTION_PUBLISHED)
        return start_over(reading);
    reading->phase = CONSUMER_LOOKING;
    return REQUEST_MORE;
}

static enum request_verdict suppose_end(struct consumer_reading *reading)
{
    reading->looked_filters = 0;
    return ask_for_next(reading);
}

/* The server reports that there are no more messages. */
static enum request_verdict on_no_messages(struct consumer_reading *reading)
{
    /* For a list this can also mean that the next message was replaced. By sequence, after a delivery, it is the end.
     */
    reading->saw_end = reading->reads_sequence && reading->pull.delivered > 0;
    reading->empty_pulls = reading->pull.delivered > 0 ? 0 : reading->empty_pulls + 1;
    uint64_t empty_pulls_max = reading->pending < EMPTY_PULLS_MAX ? reading->pending : EMPTY_PULLS_MAX;
    if (!reading->reads_sequence && reading->empty_pulls < empty_pulls_max)
        return pull_more(reading);
    return suppose_end(reading);
}

/* The leader's answer for one filter. */
static enum request_verdict on_next_known(struct consumer_reading *reading, json_t *answer)
{
    struct jetstream_error failure;
    bool has_failed = jetstream_get_error(answer, &failure);

    if (has_failed && failure.err_code != JETSTREAM_MESSAGE_NOT_FOUND)
        return start_over(reading);
    /* Messages after the target were written after the reading began. A follower that is behind has not reached it. */
    bool is_complete = has_failed || (reading->saw_end && reading->position >= reading->target);
    if (is_complete && ++reading->looked_filters < reading->scope.filter_count)
        return ask_for_next(reading);
    if (is_complete)
        return finish_reading(reading, NULL);
    return begin_lap(reading);
}

/* --- The stream ------------------------------------------------------------------------------------- */

static void read_stream(struct consumer_reading *reading, json_t *answer)
{
    const struct consumer_scope *scope = &reading->scope;
    struct stream_info info;

    stream_info_read(reading->jetstream, answer, &info);
    reading->incarnation = info.incarnation;
    reading->target = info.last_sequence;
    reading->first = info.first_sequence;
    reading->messages = info.messages;
    consumer_pull_begin(&reading->pull, scope->headers_only, info.messages, info.bytes);
    reading->keeps_one = info.max_messages_per_subject == 1;
    reading->is_whole =
        info.only_subject != NULL && scope->filter_count == 1 && strcmp(info.only_subject, scope->filters[0]) == 0;
}

static void restart_reading(struct consumer_reading *reading)
{
    reading->reads_sequence = !reading->scope.last_per_subject || (reading->is_whole && reading->keeps_one);
    reading->position = 0;
    reading->looked_from = 0;
    reading->empty_laps = 0;
    reading->read = 0;
    reading->logged_ms = uv_now(reading->request.requests->loop);
    reading->ops->restart(reading->arg);
}

void consumer_require(struct consumer_reading *reading, uint64_t sequence)
{
    if (reading->target < sequence)
        reading->target = sequence;
}

static enum request_verdict on_stream_info(struct consumer_reading *reading, json_t *answer)
{
    uint64_t incarnation = reading->incarnation, target = reading->target;
    struct jetstream_error failure;

    if (jetstream_get_error(answer, &failure))
        return on_api_error(reading, &failure);
    read_stream(reading, answer);
    bool goes_on = reading->position > 0 && reading->reads_sequence && incarnation == reading->incarnation;
    if (goes_on)
        consumer_require(reading, target);
    else
        restart_reading(reading);
    if (reading->messages == 0)
        return suppose_end(reading);
    reading->request.extra_timeout_ms = consumer_creation_ms(reading->messages);
    if (create_reader(reading) == CONNECTION_PUBLISHED)
        return REQUEST_MORE;
    request_set_trouble(&reading->request, REQUEST_CONGESTED);
    return REQUEST_RETRY;
}

/* --- Its messages ----------------------------------------------------------------------------------- */

static enum request_verdict on_created(struct consumer_reading *reading, json_t *answer)
{
    struct jetstream_error failure;

    reading->request.extra_timeout_ms = 0;
    if (!jetstream_get_error(answer, &failure)) {
        if (reading->scope.leaves_place)
            request_release_place(&reading->request);
        reading->pending = (uint64_t)json_integer_value(json_object_get(answer, "num_pending"));
        if (reading->pending > 0 || !reading->reads_sequence)
            return pull_more(reading);
        reading->saw_end = true; /* for a reading by sequence the store is counted when the consumer is created */
        return suppose_end(reading);
    }
    return on_api_error(reading, &failure);
}

static bool is_answer_to(enum consumer_phase phase, const char *type)
{
    static const char *const types[] = {[CONSUMER_ASKING] = "io.nats.jetstream.api.v1.stream_info_response",
                                        [CONSUMER_CREATING] = "io.nats.jetstream.api.v1.consumer_create_response",
                                        [CONSUMER_LOOKING] = "io.nats.jetstream.api.v1.stream_msg_get_response"};

    return phase != CONSUMER_PULLING && phase != CONSUMER_NEXT_LAP && (type == NULL || strcmp(type, types[phase]) == 0);
}

/* An answer of the JetStream API, which is JSON. */
static enum request_verdict on_api_reply(struct consumer_reading *reading, struct message *message)
{
    json_t *answer = json_loadb(message->payload, message->payload_bytes, 0, NULL);
    enum request_verdict verdict = REQUEST_MORE;

    if (answer == NULL)
        return start_over(reading);
    /* A new leader may repeat the answer of the old one. */
    if (!is_answer_to(reading->phase, json_string_value(json_object_get(answer, "type")))) {
        json_decref(answer);
        return REQUEST_MORE;
    }
    switch (reading->phase) {
    case CONSUMER_ASKING:
        verdict = on_stream_info(reading, answer);
        break;
    case CONSUMER_CREATING:
        verdict = on_created(reading, answer);
        break;
    case CONSUMER_LOOKING:
        verdict = on_next_known(reading, answer);
        break;
    case CONSUMER_PULLING:
    case CONSUMER_NEXT_LAP:
        break;
    }
    json_decref(answer);
    return verdict;
}

/* A message was too large for the pull of a list, which has lost it. */
static enum request_verdict on_list_broken(struct consumer_reading *reading)
{
    consumer_pull_shrink(&reading->pull, reading->request.requests->connection);
    return begin_lap(reading);
}

/*
 * The end of a pull: 404 or 408 if there are no more messages. A pull with max_bytes also ends if the next message
 * would exceed them, and reports when it is complete, which the reading knows. After any other status it starts over.
 */
static enum request_verdict on_pull_status(struct consumer_reading *reading, struct message *message, unsigned status)
{
    const char *text = message_status_text(message);

    if (reading->phase != CONSUMER_PULLING)
        return REQUEST_MORE;            /* of an earlier pull */
    if (status == 404 || status == 408) /* nats-server 2.10 ends a pull without messages with 408 */
        return on_no_messages(reading);
    if (status == 409 && strcmp(text, "Batch Completed") == 0)
        return REQUEST_MORE;
    if (status == 409 && strcmp(text, "Message Size Exceeds MaxBytes") == 0)
        return reading->reads_sequence ? pull_more(reading) : on_list_broken(reading);
    return start_over(reading);
}

/* Pass a message on to the reader, unless an earlier list has delivered it. */
static enum consumer_verdict pass_on(struct consumer_reading *reading, struct message *message,
                                     const struct kv_delivery *delivery)
{
    if (delivery->stream_sequence <= reading->position)
        return CONSUMER_MORE;
    reading->position = delivery->stream_sequence;
    if (delivery->stream_sequence < reading->first) /* a follower that is behind has what was purged */
        return CONSUMER_MORE;
    return reading->ops->message(reading->arg, message, delivery);
}

static enum request_verdict on_reading_reply(struct request *request, unsigned attempt, struct message *message)
{
    struct consumer_reading *reading = reading_of(request);
    struct kv_delivery delivery;

    /* A late message, of a consumer that was given up or an earlier attempt: the next attempt has another consumer. */
    if (attempt != (reading->attempt & REQUEST_ATTEMPT_MASK) || !request_expects_replies(request))
        return REQUEST_MORE;
    if (!kv_read_delivery(message, &delivery)) {
        unsigned status = message_status(message);
        if (status != 0)
            return on_pull_status(reading, message, status);
        return on_api_reply(reading, message);
    }

    if (delivery.consumer_sequence != reading->consumer_sequence + 1)
        return start_over(reading);
    reading->consumer_sequence++;
    reading->pull.delivered++;
    reading->pull.delivered_bytes += message->payload_bytes + message->header_bytes;
    reading->read++;
    reading->pending = delivery.pending;
    request_note_heard(request, uv_now(request->requests->loop));
    if (!reading->scope.headers_only)
        requests_note_reply(request->requests, message->payload_bytes);
    switch (pass_on(reading, message, &delivery)) {
    case CONSUMER_ENOUGH:
        return finish_reading(reading, NULL);
    case CONSUMER_PAUSE:
        reading->is_paused = true;
        break;
    case CONSUMER_MORE:
        break;
    }
    return --reading->pulled == 0 ? pull_more(reading) : REQUEST_MORE;
}

static void on_reading_failed(struct request *request, const struct error *error)
{
    struct consumer_reading *reading = reading_of(request);
    struct error late;

    remove_consumer(reading, true);
    if (error->code == ERROR_DEADLINE_EXCEEDED && reading->read > 0) {
        error_set(&late, ERROR_DEADLINE_EXCEEDED,
                  "timed out after reading %" PRIu64 " of about %" PRIu64 " messages; allow a longer timeout",
                  reading->read, reading->messages);
        error = &late;
    }
    reading->ops->done(reading->arg, error);
}

static const struct request_ops reading_ops = {
    .kind = "reading", .send = send_reading, .reply = on_reading_reply, .fail = on_reading_failed};

void consumer_read(struct jetstream *jetstream, struct consumer_reading *reading, const struct consumer_scope *scope,
                   uint64_t deadline_ms, const struct consumer_ops *ops, void *arg)
{
    reading->jetstream = jetstream;
    reading->scope = *scope;
    reading->ops = ops;
    reading->arg = arg;
    reading->attempt = 0;
    reading->phase = CONSUMER_ASKING;
    reading->name[0] = '\0';
    reading->position = 0;
    reading->read = 0;
    reading->is_paused = false;
    reading->pull = (struct consumer_pull){0};
    reading->request.expected_values = scope->headers_only ? 0 : REQUEST_ALL;
    reading->request.expected_bytes_max = consumer_pull_bytes(jetstream->requests->connection);
    reading->request.label = scope->stream;
    request_start(jetstream->requests, &reading->request, &reading_ops, deadline_ms);
}

void consumer_stop(struct consumer_reading *reading)
{
    if (reading->request.state == REQUEST_IDLE)
        return;
    remove_consumer(reading, true);
    request_end(&reading->request);
}
