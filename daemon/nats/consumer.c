#include "daemon/nats/consumer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The server forgets a consumer that nobody pulls from after this long, should its removal get lost. */
#define INACTIVE_THRESHOLD_NS 10000000000LL

/* What the server may have on its way to us at a time. */
#define PULL_MESSAGES 1000u
#define PULL_BYTES    (2u * 1024u * 1024u)

/* Where others write all the time, there is always more. A message that was passed over in each of so many laps was
 * replaced each time just before its turn. */
#define LAPS_MAX 8u

static struct consumer_reading *reading_of(struct request *request)
{
    return (struct consumer_reading *)((char *)request - offsetof(struct consumer_reading, request));
}

/* The name ends in the attempt's token: that is how request finds whose a delivery is. */
static void make_name(struct consumer_reading *reading)
{
    char token[REQUEST_TOKEN_BYTES];

    request_write_token(&reading->request, token);
    snprintf(reading->name, sizeof(reading->name), "kvstored-%.12s-%s", link_unique_id(reading->request.requests->link),
             token);
}

/* Asks for the consumer's removal; nobody waits for the answer. */
static void remove_consumer(struct consumer_reading *reading)
{
    char subject[512];

    if (reading->attempt == 0)
        return;
    reading->attempt = 0;
    snprintf(subject, sizeof(subject), "%s.CONSUMER.DELETE.%s.%s", reading->jetstream->prefix, reading->scope.stream,
             reading->name);
    link_publish(reading->request.requests->link, subject, NULL, NULL, 0, "", 0);
}

static json_t *make_config(const struct consumer_reading *reading)
{
    const struct consumer_scope *scope = &reading->scope;
    bool takes_last = scope->last_per_subject && reading->lap == 0;
    uint64_t start = reading->lap > 0 ? reading->position + 1 : scope->start_sequence;
    const char *policy = takes_last ? "last_per_subject" : start > 0 ? "by_start_sequence" : "all";
    json_t *config = json_pack("{s:s, s:s, s:s, s:s, s:I, s:i, s:b, s:b}", "name", reading->name, "deliver_policy",
                               policy, "ack_policy", "none", "replay_policy", "instant", "inactive_threshold",
                               (json_int_t)INACTIVE_THRESHOLD_NS, "num_replicas", 1, "mem_storage", 1, "headers_only",
                               scope->headers_only);

    if (config != NULL && scope->filter_count == 1) {
        json_object_set_new(config, "filter_subject", json_string(scope->filters[0]));
    } else if (config != NULL) { /* several: nats-server 2.10 */
        json_t *filters = json_array();
        for (size_t i = 0; i < scope->filter_count; i++)
            json_array_append_new(filters, json_string(scope->filters[i]));
        json_object_set_new(config, "filter_subjects", filters);
    }
    if (config != NULL && !takes_last && start > 0)
        json_object_set_new(config, "opt_start_seq", json_integer((json_int_t)start));
    return config;
}

static enum link_publish_result send_create(struct request *request, unsigned attempt)
{
    struct consumer_reading *reading = reading_of(request);
    char subject[512];

    if (reading->begins_lap) {
        reading->lap++;
    } else {
        reading->lap = 0;
        reading->position = 0;
        reading->ops->restart(reading->arg);
    }
    reading->begins_lap = false;
    reading->is_looking = false;
    make_name(reading);
    json_t *body = json_pack("{s:s, s:o*}", "stream_name", reading->scope.stream, "config", make_config(reading));
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (text == NULL)
        return LINK_NO_MEMORY;

    snprintf(subject, sizeof(subject), "%s.CONSUMER.CREATE.%s.%s", reading->jetstream->prefix, reading->scope.stream,
             reading->name);
    enum link_publish_result result = request_publish(request, subject, NULL, 0, text, strlen(text));
    free(text);
    if (result == LINK_PUBLISHED) {
        reading->attempt = attempt;
        reading->pulled = 0;
        reading->consumer_sequence = 0;
    }
    return result;
}

size_t consumer_pull_bytes(const struct link *link)
{
    size_t payload_bytes = link_get_status(link)->max_payload_bytes;

    return payload_bytes * 2 > PULL_BYTES ? payload_bytes * 2 : PULL_BYTES;
}

/* Asks for the next messages. With no_wait the server says at once when there are no more. */
static enum request_verdict pull(struct consumer_reading *reading)
{
    char subject[512], body[96];

    snprintf(subject, sizeof(subject), "%s.CONSUMER.MSG.NEXT.%s.%s", reading->jetstream->prefix, reading->scope.stream,
             reading->name);
    snprintf(body, sizeof(body), "{\"batch\":%u,\"max_bytes\":%zu,\"no_wait\":true}", PULL_MESSAGES,
             consumer_pull_bytes(reading->request.requests->link));
    reading->pulled = PULL_MESSAGES;
    if (request_publish(&reading->request, subject, NULL, 0, body, strlen(body)) == LINK_PUBLISHED)
        return REQUEST_MORE;
    request_retry_reason(&reading->request, REQUEST_CONGESTED);
    return REQUEST_RETRY;
}

/* The present pull has brought what it could. */
static enum request_verdict pull_more(struct consumer_reading *reading)
{
    reading->pulled = 0;
    if (!reading->is_paused)
        return pull(reading);
    request_park(&reading->request);
    return REQUEST_MORE;
}

void consumer_go_on(struct consumer_reading *reading)
{
    struct request *request = &reading->request;

    if (!reading->is_paused)
        return;
    reading->is_paused = false;
    if (request->state != REQUEST_PARKED || reading->pulled > 0)
        return;
    request_listen(request, request->requests->conf->calls.attempt_timeout_ms);
    if (pull(reading) != REQUEST_MORE)
        request_again(request, REQUEST_CONGESTED);
}

static enum request_verdict finish(struct consumer_reading *reading, const struct error *error)
{
    remove_consumer(reading);
    request_end(&reading->request);
    reading->ops->done(reading->arg, error);
    return REQUEST_DONE;
}

static enum request_verdict start_over(struct consumer_reading *reading)
{
    remove_consumer(reading);
    request_retry_reason(&reading->request, REQUEST_NO_ANSWER);
    return REQUEST_RETRY;
}

/* --- Its end ---------------------------------------------------------------------------------------- */

/* What came behind the position. */
static enum request_verdict begin_lap(struct consumer_reading *reading)
{
    remove_consumer(reading);
    reading->begins_lap = true;
    request_go_on(&reading->request);
    return REQUEST_MORE;
}

/* Asks the stream's leader for the next message behind the position. */
static enum request_verdict look_behind(struct consumer_reading *reading)
{
    char subject[512];
    json_t *body =
        json_pack("{s:I, s:s}", "seq", (json_int_t)reading->position + 1, "next_by_subj", reading->scope.filters[0]);
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;

    json_decref(body);
    if (text == NULL)
        return start_over(reading);
    snprintf(subject, sizeof(subject), "%s.STREAM.MSG.GET.%s", reading->jetstream->prefix, reading->scope.stream);
    enum link_publish_result result = request_publish(&reading->request, subject, NULL, 0, text, strlen(text));
    free(text);
    if (result != LINK_PUBLISHED)
        return start_over(reading);
    reading->is_looking = true;
    return REQUEST_MORE;
}

/* The consumer has no more. */
static enum request_verdict end_lap(struct consumer_reading *reading)
{
    if (reading->is_looking)
        return REQUEST_MORE;
    if (!reading->scope.last_per_subject || reading->lap == LAPS_MAX)
        return finish(reading, NULL);
    return reading->scope.filter_count == 1 ? look_behind(reading) : begin_lap(reading);
}

static enum request_verdict take_look(struct consumer_reading *reading, struct message *message)
{
    json_t *answer = json_loadb(message->payload, message->payload_bytes, 0, NULL);
    struct jetstream_error failure;
    bool has_failed = answer != NULL && jetstream_get_error(answer, &failure);

    json_decref(answer);
    if (!has_failed)
        return begin_lap(reading);
    return failure.err_code == JETSTREAM_MESSAGE_NOT_FOUND ? finish(reading, NULL) : start_over(reading);
}

/* --- Its messages ----------------------------------------------------------------------------------- */

static enum request_verdict take_created(struct consumer_reading *reading, struct message *message)
{
    json_t *answer = json_loadb(message->payload, message->payload_bytes, 0, NULL);
    struct jetstream_error failure;
    struct error error;
    enum request_verdict verdict;

    if (answer == NULL) {
        error_set(&error, ERROR_INTERNAL, "the NATS server's answer is not JSON");
        return finish(reading, &error);
    }
    if (!jetstream_get_error(answer, &failure)) {
        bool is_empty = json_integer_value(json_object_get(answer, "num_pending")) == 0;
        verdict = is_empty ? finish(reading, NULL) : pull_more(reading); /* it is no estimate yet */
    } else if (jetstream_healable(&failure) != REQUEST_NO_TROUBLE) {
        request_retry_reason(&reading->request, jetstream_healable(&failure));
        verdict = REQUEST_RETRY;
    } else {
        jetstream_set_error(&error, &failure);
        verdict = finish(reading, &error);
    }
    json_decref(answer);
    return verdict;
}

/*
 * What a pull ends with: 404 where there are no more messages. A pull with max_bytes also ends where the next message
 * would be too many, and says so when it is complete, which we know. Anything else means that it was in vain.
 */
static enum request_verdict take_status(struct consumer_reading *reading, struct message *message, unsigned status)
{
    const char *text = message_status_text(message);

    if (status == 404)
        return end_lap(reading);
    if (status == 409 && strcmp(text, "Batch Completed") == 0)
        return REQUEST_MORE;
    if (status == 409 && strcmp(text, "Message Size Exceeds MaxBytes") == 0)
        return pull_more(reading);
    return start_over(reading);
}

static enum request_verdict take_message(struct request *request, unsigned attempt, struct message *message)
{
    struct consumer_reading *reading = reading_of(request);
    struct kv_delivery delivery;

    if (attempt != reading->attempt)
        return REQUEST_MORE; /* of a consumer that was given up */
    if (!kv_read_delivery(message, &delivery)) {
        unsigned status = message_status(message);
        if (status != 0)
            return take_status(reading, message, status);
        return reading->is_looking ? take_look(reading, message) : take_created(reading, message);
    }

    if (delivery.consumer_sequence != reading->consumer_sequence + 1)
        return start_over(reading);
    reading->consumer_sequence++;
    reading->position = delivery.stream_sequence;
    request_heard(request, uv_now(request->requests->loop));
    if (!reading->scope.headers_only)
        requests_note_reply(request->requests, message->payload_bytes);
    switch (reading->ops->message(reading->arg, message, &delivery)) {
    case CONSUMER_ENOUGH:
        return finish(reading, NULL);
    case CONSUMER_PAUSE:
        reading->is_paused = true;
        break;
    case CONSUMER_MORE:
        break;
    }
    if (delivery.pending == 0)
        return end_lap(reading);
    return --reading->pulled == 0 ? pull_more(reading) : REQUEST_MORE;
}

static void fail(struct request *request, const struct error *error)
{
    struct consumer_reading *reading = reading_of(request);

    remove_consumer(reading);
    reading->ops->done(reading->arg, error);
}

static const struct request_ops reading_ops = {.send = send_create, .reply = take_message, .fail = fail};

void consumer_read(struct jetstream *jetstream, struct consumer_reading *reading, const struct consumer_scope *scope,
                   uint64_t deadline_ms, const struct consumer_ops *ops, void *arg)
{
    reading->jetstream = jetstream;
    reading->scope = *scope;
    reading->ops = ops;
    reading->arg = arg;
    reading->attempt = 0;
    reading->begins_lap = false;
    reading->is_paused = false;
    reading->request.expected_values = scope->headers_only ? 0 : REQUEST_ALL;
    reading->request.expected_bytes_max = consumer_pull_bytes(jetstream->requests->link);
    request_start(jetstream->requests, &reading->request, &reading_ops, deadline_ms);
}

void consumer_stop(struct consumer_reading *reading)
{
    if (reading->request.state == REQUEST_IDLE)
        return;
    remove_consumer(reading);
    request_end(&reading->request);
}
