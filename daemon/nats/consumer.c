#include "daemon/nats/consumer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The server forgets a consumer that nobody pulls from after this long, should its removal get lost. */
#define INACTIVE_THRESHOLD_NS 10000000000LL

/* Messages per pull: what the server may have on its way to us at a time. Values have up to a megabyte each. */
#define PULL_HEADERS 1000u
#define PULL_VALUES  16u

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
    reading->attempt = 0;
    write_name(reading, name);
    snprintf(subject, sizeof(subject), "%s.CONSUMER.DELETE.%s.%s", reading->jetstream->prefix, reading->stream, name);
    link_publish(reading->request.requests->link, subject, NULL, NULL, 0, "", 0);
}

static enum link_publish_result send_create(struct request *request, unsigned attempt)
{
    struct consumer_reading *reading = reading_of(request);
    char name[CONSUMER_NAME_BYTES];
    char subject[512];

    write_name(reading, name);
    json_t *body = json_pack(
        "{s:s, s:{s:s, s:s, s:s, s:s, s:s, s:I, s:i, s:b, s:b}}", "stream_name", reading->stream, "config", "name",
        name, "deliver_policy", reading->last_per_subject ? "last_per_subject" : "all", "ack_policy", "none",
        "replay_policy", "instant", "filter_subject", reading->filter, "inactive_threshold",
        (json_int_t)INACTIVE_THRESHOLD_NS, "num_replicas", 1, "mem_storage", 1, "headers_only", reading->headers_only);
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (text == NULL)
        return LINK_NO_MEMORY;

    snprintf(subject, sizeof(subject), "%s.CONSUMER.CREATE.%s.%s", reading->jetstream->prefix, reading->stream, name);
    enum link_publish_result result = request_publish(request, subject, NULL, 0, text, strlen(text));
    free(text);
    if (result == LINK_PUBLISHED) {
        reading->attempt = attempt;
        reading->pulled = 0;
        reading->consumer_sequence = 0;
        reading->ops->restart(reading->arg);
    }
    return result;
}

/* Asks for the next messages. With no_wait the server says at once when there are no more. */
static enum request_verdict pull(struct consumer_reading *reading)
{
    char name[CONSUMER_NAME_BYTES], subject[512], body[64];
    unsigned batch = reading->headers_only ? PULL_HEADERS : PULL_VALUES;

    write_name(reading, name);
    snprintf(subject, sizeof(subject), "%s.CONSUMER.MSG.NEXT.%s.%s", reading->jetstream->prefix, reading->stream, name);
    snprintf(body, sizeof(body), "{\"batch\":%u,\"no_wait\":true}", batch);
    reading->pulled = batch;
    if (request_publish(&reading->request, subject, NULL, 0, body, strlen(body)) == LINK_PUBLISHED)
        return REQUEST_MORE;
    request_retry_reason(&reading->request, REQUEST_CONGESTED);
    return REQUEST_RETRY;
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
    enum request_verdict verdict;

    if (answer == NULL) {
        error_set(&error, ERROR_INTERNAL, "the NATS server's answer is not JSON");
        return finish(reading, &error);
    }
    if (!jetstream_get_error(answer, &failure)) {
        bool is_empty = json_integer_value(json_object_get(answer, "num_pending")) == 0;
        verdict = is_empty ? finish(reading, NULL) : pull(reading);
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

/* What a pull ends with: 404 where there are no more messages; anything else, such as 409, means that it was in vain.
 */
static enum request_verdict take_status(struct consumer_reading *reading, unsigned status)
{
    if (status == 404)
        return finish(reading, NULL);
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
        return status != 0 ? take_status(reading, status) : take_created(reading, message);
    }

    if (delivery.consumer_sequence != reading->consumer_sequence + 1)
        return start_over(reading);
    reading->consumer_sequence++;
    if (!reading->headers_only)
        requests_note_reply(reading->request.requests, message->payload_bytes);
    if (!reading->ops->message(reading->arg, message, &delivery) || delivery.pending == 0)
        return finish(reading, NULL);
    return --reading->pulled == 0 ? pull(reading) : REQUEST_MORE;
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
    if (!headers_only)
        reading->request.expected_bytes = requests_expect_bytes(jetstream->requests, PULL_VALUES);
    request_start(jetstream->requests, &reading->request, &reading_ops, deadline_ms);
}
