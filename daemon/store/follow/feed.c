#include "daemon/store/follow/feed.h"

#include "daemon/base/clock.h"
#include "daemon/base/log.h"
#include "daemon/nats/consumer.h"
#include "daemon/store/bucket/admin.h"
#include "daemon/store/bucket/settings.h"
#include "daemon/store/follow/feed_parts.h"
#include "daemon/store/follow/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Messages of a pull: the next pull is sent when half of them were delivered. */
#define PULL_MESSAGES   1000u
#define PULL_EXPIRES_NS 300000000000LL

/*
 * Heartbeats of an exclusive feed. Deliveries of the embedded server are lost only with the connection, which has its
 * own pings, and answers from memory do not depend on when the feed was heard. With watches.heartbeat (2 s), a thousand
 * buckets would wake the daemon and the server 500 times per second. The server accepts up to half of PULL_EXPIRES_NS.
 */
#define EXCLUSIVE_HEARTBEAT_MS 120000u

/* How long the server keeps a consumer without a pull. */
#define INACTIVE_THRESHOLD_NS 60000000000LL

/* A replicated stream is set back if this many answers in a row have a last sequence below the position. */
#define BEHIND_TIMES 4u

/* If the consumer is deleted this many times within a minute, another daemon has the same name. */
#define THEFTS_MAX 2u

static struct feed *feed_of(struct request *request)
{
    return (struct feed *)((char *)request - offsetof(struct feed, request));
}

static enum connection_publish_result feed_publish(struct feed *feed, const char *verb, bool with_consumer,
                                                   const char *body)
{
    char subject[512];

    snprintf(subject, sizeof(subject), "%s.%s.%s%s%s", feed->store->jetstream.prefix, verb, feed->bucket->stream,
             with_consumer ? "." : "", with_consumer ? feed->consumer : "");
    return request_publish(&feed->request, subject, NULL, 0, body, strlen(body));
}

/* Begin the next step of creating the consumer. */
static enum request_verdict feed_step(struct feed *feed, enum feed_phase phase, const char *verb, const char *body)
{
    feed->phase = phase;
    if (feed_publish(feed, verb, true, body) == CONNECTION_PUBLISHED)
        return REQUEST_MORE;
    request_set_trouble(&feed->request, REQUEST_CONGESTED);
    return REQUEST_RETRY;
}

/* Give up the consumer: it is recreated after a backoff. */
enum request_verdict feed_lose(struct feed *feed, enum request_trouble trouble)
{
    feed->phase = FEED_BROKEN;
    request_retry_later(&feed->request, trouble);
    return REQUEST_DONE;
}

/* --- The stream ------------------------------------------------------------------------------------ */

static enum connection_publish_result feed_send(struct request *request, unsigned attempt)
{
    struct feed *feed = feed_of(request);

    if (attempt > 1 && feed->is_placed)
        feed->resyncs++;
    feed_forget_question(feed);
    if (!feed_is_exclusive(feed, feed->store->conf))
        connection_ping(feed->store->connection); /* what comes after its reply is new */
    feed->known_last = 0;                         /* the next answer may be from another server */
    feed->phase = FEED_ASKING;
    request->extra_timeout_ms = 0;
    return feed_publish(feed, "STREAM.INFO", false, "");
}

static void feed_end(struct feed *feed, const struct error *error)
{
    feed_stop(feed);
    feed->ops->ended(feed->arg, error);
}

/* Read an answer with an error. The attempt is retried without end, unless the bucket does not exist. */
static enum request_verdict feed_read_failure(struct feed *feed, const struct jetstream_error *failure)
{
    struct error error;

    bool is_gone = failure->err_code == JETSTREAM_STREAM_NOT_FOUND &&
                   jetstream_believes_not_found(&feed->store->jetstream, &feed->not_found);
    if (is_gone) {
        bucket_forget(feed->store, feed->bucket->name);
        error_set(&error, ERROR_BUCKET_NOT_FOUND, "bucket \"%s\" does not exist", feed->bucket->name);
        feed_end(feed, &error);
        return REQUEST_DONE;
    }
    jetstream_set_error(&error, failure);
    if (jetstream_temporary_trouble(failure) == REQUEST_NO_TROUBLE && feed->error.code == ERROR_NONE)
        log_warning("bucket %s: following it failed: %s; trying again", feed->bucket->name, error.message);
    feed->error = error;
    request_set_trouble(&feed->request, REQUEST_NO_LEADER);
    return REQUEST_RETRY;
}

void feed_batch_note(struct feed_batch *batch, const struct message *message, uint64_t sequence)
{
    const char *id = message_header(message, KV_HEADER_BATCH_ID);
    uint64_t hash = id != NULL ? hash_bytes(id, strlen(id)) : 0;

    if (id == NULL || message_header(message, KV_HEADER_BATCH_COMMIT) != NULL)
        batch->from = 0;
    else if (batch->from == 0 || hash != batch->id)
        batch->from = sequence;
    batch->id = hash;
}

static enum request_verdict feed_make_consumer(struct feed *feed)
{
    /* First delete the consumer of an earlier run, or of the last connection. */
    return feed_step(feed, FEED_DELETING, "CONSUMER.DELETE", "");
}

/* --- A stream that was set back -------------------------------------------------------------------- */

static uint64_t feed_keeper_in(const struct feed *feed, json_t *info)
{
    struct stream_state stream;

    stream_read_info(feed->store, info, &stream);
    return stream.keeper;
}

/*
 * Return whether the stream may have lost messages that were delivered: its server lost what it had not synced, or was
 * replaced by a backup. After further writes it has other messages at the same sequences. A server process that never
 * stopped has lost nothing.
 */
static bool feed_may_be_set_back(struct feed *feed, json_t *info)
{
    feed->present_keeper = feed_keeper_in(feed, info);
    bool is_same = feed->keeper != 0 && feed->keeper == feed->present_keeper;
    feed->has_another_keeper |= !is_same;
    return !is_same && feed->position.sequence > 0;
}

static enum request_verdict feed_compare_position(struct feed *feed)
{
    char body[48];

    snprintf(body, sizeof(body), "{\"seq\":%" PRIu64 "}", feed->position.sequence);
    feed->phase = FEED_COMPARING;
    if (feed_publish(feed, "STREAM.MSG.GET", false, body) == CONNECTION_PUBLISHED)
        return REQUEST_MORE;
    request_set_trouble(&feed->request, REQUEST_CONGESTED);
    return REQUEST_RETRY;
}

/* Compare the stored message at the position with the delivered one. If they differ, all keys are reconciled. */
static enum request_verdict feed_read_position(struct feed *feed, json_t *answer)
{
    const char *time = json_string_value(json_object_get(json_object_get(answer, "message"), "time"));
    /* The embedded server syncs each write: a message that is missing there was overwritten since. */
    bool is_overwritten = time == NULL && feed->store->conf->nats.mode == CONF_NATS_EMBEDDED;

    int64_t stored_us = feed->position.stored_us;
    bool is_same = time != NULL && stored_us != 0 && kv_parse_time_us(time) == stored_us;

    if ((!is_overwritten && !is_same) || feed->question_us != 0)
        feed->question_us = stored_us != 0 ? stored_us : INT64_MAX;
    feed->keeper = feed->present_keeper;
    return feed_make_consumer(feed);
}

/* --- The state of the stream ------------------------------------------------------------------------ */

/* After a delete by this daemon, that is no surprise. Otherwise data may be lost. */
static void feed_log_recreated(const struct feed *feed)
{
    if (admin_has_deleted(feed->store, feed->bucket->name))
        log_info("bucket %s was created again, after this daemon had deleted it: reading all of it",
                 feed->bucket->name);
    else
        log_warning("bucket %s was recreated: reading all of it", feed->bucket->name);
}

static enum request_verdict feed_read_stream(struct feed *feed, json_t *answer)
{
    const char *created = json_string_value(json_object_get(answer, "created"));
    bool is_met = feed->created[0] != '\0';

    if (created == NULL)
        created = "?";
    feed->not_found = 0;
    feed_read_info(answer, &feed->info);
    bool is_behind = feed->is_placed && feed->info.last_sequence < feed->position.sequence;
    bool is_other = is_met && strcmp(created, feed->created) != 0;
    /* If it is replicated, a former leader may have answered. */
    feed->behind = is_behind ? feed->behind + 1 : 0;
    if (is_behind && !is_other && feed->info.replicas > 1 && feed->behind < BEHIND_TIMES) {
        request_set_trouble(&feed->request, REQUEST_NO_LEADER);
        return REQUEST_RETRY;
    }
    bool is_recreated = is_other || (is_met && is_behind);
    snprintf(feed->created, sizeof(feed->created), "%s", created);
    feed->owes_recreation |= is_recreated;
    if (feed->is_placed && !is_recreated) {
        if (feed_may_be_set_back(feed, answer))
            return feed_compare_position(feed);
        feed->keeper = feed->present_keeper;
        return feed_make_consumer(feed);
    }
    feed->keeper = feed_keeper_in(feed, answer);
    if (is_recreated)
        feed_log_recreated(feed);
    feed->is_placed = false;
    feed->question_us = 0;
    feed->position = (struct feed_place){0};
    feed->phase = FEED_HELD;
    request_suspend(&feed->request);
    feed->ops->begin(feed->arg, feed->owes_recreation);
    return REQUEST_DONE; /* the feed may be stopped */
}

bool feed_is_of(const struct feed *feed, json_t *answer)
{
    const char *created = json_string_value(json_object_get(answer, "created"));

    return created != NULL && strcmp(created, feed->created) == 0;
}

void feed_look(struct feed *feed)
{
    enum request_state state = feed->request.state;

    if (state == REQUEST_SENT || state == REQUEST_LISTENING || state == REQUEST_SUSPENDED)
        feed_lose(feed, REQUEST_NO_LEADER); /* otherwise it is about to ask */
}

void feed_go(struct feed *feed, const struct feed_place *place)
{
    feed->gaps++;
    feed->position = *place;
    feed->is_placed = true;
    feed->owes_recreation = false;
    if (feed->phase != FEED_HELD)
        return;
    request_listen(&feed->request, feed->store->conf->calls.attempt_timeout_ms);
    if (feed_make_consumer(feed) != REQUEST_MORE)
        request_retry_later(&feed->request, REQUEST_CONGESTED);
}

/* --- The consumer ---------------------------------------------------------------------------------- */

/* Allow more time for the answer: to create the consumer, the server counts the keys. */
static void feed_expect_long_answer(struct feed *feed)
{
    struct request *request = &feed->request;
    unsigned extra_timeout_ms = consumer_creation_ms(feed->info.subjects);

    request->extra_timeout_ms = extra_timeout_ms;
    if (request->state == REQUEST_LISTENING)
        request_listen(request, feed->store->conf->calls.attempt_timeout_ms + extra_timeout_ms);
}

static enum request_verdict feed_create_consumer(struct feed *feed)
{
    char filter[KV_PREFIX_BYTES + 2];

    snprintf(filter, sizeof(filter), "%s>", feed->bucket->prefix);
    json_t *body = json_pack(
        "{s:s, s:{s:s, s:s, s:I, s:s, s:s, s:s, s:I, s:i, s:b}}", "stream_name", feed->bucket->stream, "config", "name",
        feed->consumer, "deliver_policy", "by_start_sequence", "opt_start_seq",
        (json_int_t)(feed->position.sequence + 1), "ack_policy", "none", "replay_policy", "instant", "filter_subject",
        filter, "inactive_threshold", (json_int_t)INACTIVE_THRESHOLD_NS, "num_replicas", 1, "mem_storage", 1);
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    enum request_verdict verdict = REQUEST_RETRY;

    json_decref(body);
    if (text != NULL)
        verdict = feed_step(feed, FEED_CREATING, "CONSUMER.CREATE", text);
    free(text);
    feed_expect_long_answer(feed);
    return verdict;
}

static unsigned feed_heartbeat_ms(const struct feed *feed)
{
    return feed_is_exclusive(feed, feed->store->conf) ? EXCLUSIVE_HEARTBEAT_MS
                                                      : feed->store->conf->watches.heartbeat_ms;
}

/* Wait for messages and heartbeats. */
static void feed_listen(struct feed *feed)
{
    request_listen(&feed->request, feed_silence_ms(feed_heartbeat_ms(feed)));
}

bool feed_pull(struct feed *feed, unsigned messages, long long expires_ns, unsigned beat_ms)
{
    char body[160];

    snprintf(body, sizeof(body), "{\"batch\":%u,\"max_bytes\":%zu,\"expires\":%lld,\"idle_heartbeat\":%lld}", messages,
             consumer_pull_bytes(feed->store->connection), expires_ns, beat_ms * 1000000ll);
    if (feed_publish(feed, "CONSUMER.MSG.NEXT", true, body) != CONNECTION_PUBLISHED)
        return false;
    feed->pulled += messages;
    return true;
}

/* Request more messages: within the limits of the pull they are delivered as they are written. */
static bool feed_pull_more(struct feed *feed)
{
    return feed_pull(feed, PULL_MESSAGES, PULL_EXPIRES_NS, feed_heartbeat_ms(feed));
}

static void feed_pull_if_low(struct feed *feed)
{
    if (feed->pulled <= PULL_MESSAGES / 2 && !feed_pull_more(feed))
        feed_lose(feed, REQUEST_CONGESTED);
}

/* --- Answers ---------------------------------------------------------------------------------------- */

static enum request_verdict feed_read_created(struct feed *feed, json_t *answer)
{
    feed->phase = FEED_CATCHING_UP;
    feed->consumer_sequence = 0;
    feed->pulled = 0;
    feed->idle_heartbeats = 0;
    feed_listen(feed);
    if (!feed_pull_more(feed))
        return feed_lose(feed, REQUEST_CONGESTED);
    if (json_integer_value(json_object_get(answer, "num_pending")) == 0)
        feed_note_nothing_pending(feed);
    return REQUEST_DONE; /* it may have been stopped */
}

static enum request_verdict feed_read_answer(struct feed *feed, const struct message *message)
{
    json_t *answer = json_loadb(message->payload, message->payload_bytes, 0, NULL);
    struct jetstream_error failure = {.description = "the answer is not JSON"};
    enum request_verdict verdict;

    bool has_failed = answer != NULL && jetstream_get_error(answer, &failure);
    if (feed->phase == FEED_DELETING && answer != NULL)
        verdict = feed_create_consumer(feed); /* it may not have been there */
    else if (feed->phase == FEED_COMPARING && (!has_failed || failure.err_code == JETSTREAM_MESSAGE_NOT_FOUND))
        verdict = feed_read_position(feed, answer);
    else if (answer == NULL || has_failed)
        verdict = feed_read_failure(feed, &failure);
    else
        verdict = feed->phase == FEED_ASKING ? feed_read_stream(feed, answer) : feed_read_created(feed, answer);
    json_decref(answer);
    return verdict;
}

/* --- Messages of the consumer ---------------------------------------------------------------------- */

/*
 * Note that the consumer was deleted. Two daemons with one name delete each other's consumer. After some times this one
 * uses a name that is unique while it runs.
 */
static void feed_note_theft(struct feed *feed)
{
    uint64_t now_ms = uv_now(feed->store->loop);

    feed->thefts = now_ms - feed->theft_ms < 60000 ? feed->thefts + 1 : 1;
    feed->theft_ms = now_ms;
    if (feed->thefts < THEFTS_MAX || strcmp(feed->consumer, feed->store->name) != 0)
        return;
    log_warning("bucket %s: consumer %s was deleted %u times: using a name of its own; if another daemon has the same "
                "name, set "
                "nats.name",
                feed->bucket->name, feed->consumer, feed->thefts);
    snprintf(feed->consumer, sizeof(feed->consumer), "%s-%.12s", feed->store->name,
             connection_unique_id(feed->store->connection));
}

static enum request_verdict feed_read_status(struct feed *feed, struct message *message, unsigned status)
{
    const char *text = message_status_text(message);
    const char *pending = message_header(message, "Nats-Pending-Messages");
    const char *last = message_header(message, KV_HEADER_LAST_CONSUMER);

    if (status == 100) {
        if (last != NULL && strtoull(last, NULL, 10) != feed->consumer_sequence)
            return feed_lose(feed, REQUEST_NO_ANSWER); /* the last delivery was lost */
        request_note_heard(&feed->request, uv_now(feed->store->loop));
        feed_note_nothing_pending(feed);
        feed_note_idle(feed);
        return REQUEST_DONE;
    }
    if (pending != NULL) { /* a pull is over, without these messages */
        unsigned long count = strtoul(pending, NULL, 10);
        feed->pulled = count < feed->pulled ? feed->pulled - (unsigned)count : 0;
        feed_listen(feed);
        feed_pull_if_low(feed);
        feed_listen_closely(feed);
        return REQUEST_DONE;
    }
    if (strcmp(text, "Consumer Deleted") == 0)
        feed_note_theft(feed);
    log_debug("bucket %s: consumer status %u %s: recreating it", feed->bucket->name, status, text);
    return feed_lose(feed, REQUEST_NO_LEADER);
}

static enum request_verdict feed_read_reply(struct request *request, unsigned attempt, struct message *message)
{
    struct feed *feed = feed_of(request);
    unsigned status;

    if (attempt != (request->attempts & REQUEST_ATTEMPT_MASK) || feed->phase == FEED_HELD || feed->phase == FEED_BROKEN)
        return REQUEST_MORE; /* of an attempt that was given up */
    status = message_status(message);
    if (feed->phase >= FEED_CATCHING_UP)
        return status != 0 ? feed_read_status(feed, message, status) : REQUEST_MORE;
    return feed_read_answer(feed, message);
}

/* A server that is behind may deliver what the leader has no more: it was passed already. */
static void feed_pass(struct feed *feed, const struct message *message, const struct kv_delivery *delivery)
{
    feed->gaps += delivery->stream_sequence != feed->position.sequence + 1;
    if (delivery->stream_sequence <= feed->position.sequence)
        return;
    feed->position.sequence = delivery->stream_sequence;
    feed->position.stored_us = delivery->created_us;
    feed_batch_note(&feed->position.batch, message, delivery->stream_sequence);
}

static void feed_deliver(struct feed *feed, struct message *message, const struct kv_delivery *delivery)
{
    struct kv_entry entry;

    if (feed->phase < FEED_CATCHING_UP)
        return; /* of a consumer that was given up */
    if (delivery->consumer_sequence != feed->consumer_sequence + 1) {
        feed_lose(feed, REQUEST_NO_ANSWER);
        return;
    }
    feed->consumer_sequence++;
    request_note_heard(&feed->request, uv_now(feed->store->loop));
    feed->idle_heartbeats = 0;
    feed->question.missing_ms = 0;
    feed_pass(feed, message, delivery);
    /* With the missed message, the pull that requested heartbeats is over, and sends no more of them. */
    if (feed->request.silence_ms < feed_silence_ms(feed_heartbeat_ms(feed)) && !feed_misses_messages(feed) &&
        feed->phase == FEED_LIVE)
        feed_listen(feed);
    if (kv_read_entry(message, message->subject, feed->bucket->prefix, delivery->stream_sequence, delivery->created_us,
                      &entry))
        feed->ops->entry(feed->arg, &entry);
    if (feed->pulled > 0)
        feed->pulled--;
    feed_pull_if_low(feed);
    if (delivery->pending == 0 && feed->phase >= FEED_CATCHING_UP)
        feed_note_nothing_pending(feed);
}

bool feed_accept_message(struct store *store, struct message *message)
{
    struct kv_delivery delivery;
    struct feed *feed = NULL;

    if (store->follow->feeds == NULL || message->reply == NULL || !kv_read_delivery(message, &delivery))
        return false;
    HASH_FIND(hh, store->follow->feeds, delivery.stream, delivery.stream_length, feed);
    if (feed == NULL || strlen(feed->consumer) != delivery.consumer_length ||
        memcmp(feed->consumer, delivery.consumer, delivery.consumer_length) != 0)
        return false;
    feed_deliver(feed, message, &delivery);
    return true;
}

/* --- Life ------------------------------------------------------------------------------------------ */

static void feed_fail(struct request *request, const struct error *error)
{
    feed_end(feed_of(request), error);
}

static const struct request_ops feed_request_ops = {
    .kind = "feed", .send = feed_send, .reply = feed_read_reply, .fail = feed_fail};

void feed_start(struct store *store, struct feed *feed, struct bucket *bucket, const struct feed_ops *ops, void *arg)
{
    feed->store = store;
    feed->bucket = bucket;
    feed->ops = ops;
    feed->arg = arg;
    feed->phase = FEED_ASKING;
    snprintf(feed->consumer, sizeof(feed->consumer), "%s", store->name);
    HASH_ADD_KEYPTR(hh, store->follow->feeds, bucket->stream, strlen(bucket->stream), feed);
    request_start(&store->requests, &feed->request, &feed_request_ops, UINT64_MAX);
}

void feed_stop(struct feed *feed)
{
    char subject[512];

    if (feed->phase == FEED_STOPPED)
        return;
    if (feed->phase >= FEED_CREATING) {
        snprintf(subject, sizeof(subject), "%s.CONSUMER.DELETE.%s.%s", feed->store->jetstream.prefix,
                 feed->bucket->stream, feed->consumer);
        connection_publish(feed->store->connection, subject, NULL, NULL, 0, "", 0);
    }
    feed_forget_question(feed);
    feed->phase = FEED_STOPPED;
    request_end(&feed->request);
    HASH_DEL(feed->store->follow->feeds, feed);
}
