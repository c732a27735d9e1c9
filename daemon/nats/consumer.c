#include "daemon/nats/consumer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The server forgets a consumer that nobody listens to after this long, should its removal get lost. */
#define INACTIVE_THRESHOLD_NS 10000000000LL
#define IDLE_HEARTBEAT_NS     500000000LL

#define CONSUMER_NAME_BYTES 64

static struct consumer_reading *reading_of(struct request *request)
{
    return (struct consumer_reading *)((char *)request - offsetof(struct consumer_reading, request));
}

/* The name ends in the attempt's token: that is how request finds whose a delivery is. */
static void write_name(const struct consumer_reading *reading, char name[CONSUMER_NAME_BYTES])
{
    char token[REQUEST_TOKEN_BYTES];

    request_write_token(&reading->request, token);
    snprintf(name, CONSUMER_NAME_BYTES, "kvstored-%.12s-%s", link_unique_id(reading->request.requests->link), token);
}

/* Asks for the consumer's removal; nobody waits for the answer. */
static void remove_consumer(struct consumer_reading *reading)
{
    char name[CONSUMER_NAME_BYTES];
    char subject[512];

    if (reading->attempt == 0)
        return;
    write_name(reading, name);
    snprintf(subject, sizeof(subject), "%s.CONSUMER.DELETE.%s.%s", reading->jetstream->prefix, reading->stream, name);
    link_publish(reading->request.requests->link, subject, NULL, NULL, 0, "", 0);
    reading->attempt = 0;
}

static enum link_publish_result send_create(struct request *request, unsigned attempt)
{
    struct consumer_reading *reading = reading_of(request);
    char name[CONSUMER_NAME_BYTES];
    char deliver[REQUEST_SUBJECT_BYTES];
    char subject[512];

    write_name(reading, name);
    request_write_subject(request, deliver);
    json_t *body =
        json_pack("{s:s, s:{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:I, s:I, s:i, s:b, s:b}}", "stream_name",
                  reading->stream, "config", "name", name, "deliver_subject", deliver, "deliver_policy",
                  reading->last_per_subject ? "last_per_subject" : "all", "ack_policy", "none", "replay_policy",
                  "instant", "filter_subject", reading->filter, "flow_control", 1, "idle_heartbeat",
                  (json_int_t)IDLE_HEARTBEAT_NS, "inactive_threshold", (json_int_t)INACTIVE_THRESHOLD_NS,
                  "num_replicas", 1, "mem_storage", 1, "headers_only", reading->headers_only);
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (text == NULL)
        return LINK_NO_MEMORY;

    snprintf(subject, sizeof(subject), "%s.CONSUMER.CREATE.%s.%s", reading->jetstream->prefix, reading->stream, name);
    enum link_publish_result result = request_publish(request, subject, NULL, 0, text, strlen(text));
    free(text);
    if (result == LINK_PUBLISHED) {
        reading->attempt = attempt;
        reading->is_created = false;
        reading->consumer_sequence = 0;
        reading->ops->restart(reading->arg);
    }
    return result;
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

static enum request_verdict take_created(struct consumer_reading *reading, struct message *message)
{
    json_t *answer = json_loadb(message->payload, message->payload_bytes, 0, NULL);
    struct jetstream_error failure;
    struct error error;
    enum request_verdict verdict = REQUEST_MORE;

    if (answer == NULL) {
        error_set(&error, ERROR_INTERNAL, "the NATS server's answer is not JSON");
        return finish(reading, &error);
    }
    if (jetstream_get_error(answer, &failure)) {
        if (jetstream_healable(&failure) != REQUEST_NO_TROUBLE) {
            request_retry_reason(&reading->request, jetstream_healable(&failure));
            verdict = REQUEST_RETRY;
        } else {
            jetstream_set_error(&error, &failure);
            verdict = finish(reading, &error);
        }
    } else {
        reading->is_created = true;
        if (json_integer_value(json_object_get(answer, "num_pending")) == 0 && reading->consumer_sequence == 0)
            verdict = finish(reading, NULL);
    }
    json_decref(answer);
    return verdict;
}

/* Heartbeats and flow control (ADR-17; status 100). */
static enum request_verdict take_control(struct consumer_reading *reading, struct message *message)
{
    struct link *link = reading->request.requests->link;
    const char *stalled = message_header(message, KV_HEADER_CONSUMER_STALLED);
    const char *last = message_header(message, KV_HEADER_LAST_CONSUMER);

    if (message->reply != NULL) {
        link_publish(link, message->reply, NULL, NULL, 0, "", 0);
        return REQUEST_MORE;
    }
    if (stalled != NULL)
        link_publish(link, stalled, NULL, NULL, 0, "", 0);
    if (last == NULL)
        return REQUEST_MORE;
    if (strtoull(last, NULL, 10) != reading->consumer_sequence)
        return start_over(reading);
    /* Idle, and nothing on its way: what was still to come has been removed from the stream meanwhile. */
    if (reading->is_created && stalled == NULL)
        return finish(reading, NULL);
    return REQUEST_MORE;
}

static enum request_verdict take_message(struct request *request, unsigned attempt, struct message *message)
{
    struct consumer_reading *reading = reading_of(request);
    struct kv_delivery delivery;

    if (attempt != reading->attempt)
        return REQUEST_MORE; /* of a consumer that was given up */
    if (!kv_read_delivery(message, &delivery))
        return message_status(message) == 100 ? take_control(reading, message) : take_created(reading, message);

    if (delivery.consumer_sequence != reading->consumer_sequence + 1)
        return start_over(reading);
    reading->consumer_sequence++;
    if (!reading->ops->message(reading->arg, message, &delivery) || delivery.pending == 0)
        return finish(reading, NULL);
    return REQUEST_MORE;
}

static void fail(struct request *request, const struct error *error)
{
    struct consumer_reading *reading = reading_of(request);

    reading->ops->done(reading->arg, error);
}

static const struct request_ops reading_ops = {.send = send_create, .reply = take_message, .fail = fail};

void consumer_read(struct jetstream *jetstream, struct consumer_reading *reading, const char *stream,
                   const char *filter, bool last_per_subject, bool headers_only, uint64_t deadline_ms,
                   const struct consumer_ops *ops, void *arg)
{
    reading->jetstream = jetstream;
    reading->stream = stream;
    reading->filter = filter;
    reading->last_per_subject = last_per_subject;
    reading->headers_only = headers_only;
    reading->ops = ops;
    reading->arg = arg;
    reading->attempt = 0;
    request_start(jetstream->requests, &reading->request, &reading_ops, deadline_ms);
}

void consumer_cancel(struct consumer_reading *reading)
{
    if (reading->request.state == REQUEST_IDLE)
        return;
    remove_consumer(reading);
    request_end(&reading->request);
}
