#include "tests/sim/consumers.h"

#include "daemon/nats/kv.h"
#include "tests/sim/memory.h"
#include "tests/sim/server.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct pull {
    struct pull *next;
    struct consumer *consumer;
    struct link *link;
    char *reply;
    uint64_t left;
    bool no_wait;
    bool is_over;
    bool was_served;       /* since the last heartbeat */
    uint64_t heartbeat_ns; /* 0: none */
    uint64_t max_bytes;    /* left; 0: no limit */
};

/* It stays until the world ends: events may still name it. */
struct consumer {
    struct consumer *next;
    struct stream *stream;
    char *name;
    json_t *filters; /* of strings; empty: all */
    bool headers_only;
    bool is_list; /* of the last message of each subject */
    bool is_over;
    bool is_on_follower;
    bool is_catching_up; /* consumer_catch_up is planned */
    uint64_t next_sequence;
    uint64_t *listed; /* of a last_per_subject consumer: sequences at its creation */
    size_t listed_count, listed_done, listed_lost;
    uint64_t sequence; /* of its deliveries */
    uint64_t inactive_ns, touched_ns;
    struct pull *pulls; /* in their order */
};

/* Two lists: the consumers that exist, and those that have ended, which pending events may still name. */
static struct consumer *all, *over;

/* --- What is pending ------------------------------------------------------------------------------- */

static bool consumer_wants(const struct consumer *consumer, const struct stored *stored)
{
    size_t count = json_array_size(consumer->filters);

    for (size_t i = 0; i < count; i++) {
        if (kv_filter_matches(json_string_value(json_array_get(consumer->filters, i)), stored->packet->subject))
            return true;
    }
    return count == 0;
}

static void consumer_catch_up(void *arg);

/* The node of the consumer does not have the message yet. */
static void consumer_await(struct consumer *consumer)
{
    if (!consumer->is_catching_up)
        world_after(5 * WORLD_MS, consumer_catch_up, consumer);
    consumer->is_catching_up = true;
}

/* Return the first message from next_sequence on that the node has, or NULL. The log is in the order of sequences. */
static struct stored *consumer_next(struct consumer *consumer)
{
    const struct stored_list *log = &consumer->stream->log;
    uint64_t follower_ns = server_follower_ns(consumer->stream->server);

    if (!consumer->is_on_follower)
        return stream_next(consumer->stream, consumer->next_sequence, NULL);
    for (size_t i = consumer->next_sequence > 0 ? consumer->next_sequence - 1 : 0; i < log->count; i++) {
        if (log->items[i]->at_ns > follower_ns) {
            consumer_await(consumer);
            return NULL;
        }
        if (stored_is_there(log->items[i], follower_ns))
            return log->items[i];
    }
    return NULL;
}

/* Return the message that was listed at the consumer's creation, unless it was replaced since: the newer one comes
 * later. */
static struct stored *consumer_find_listed(const struct consumer *consumer, uint64_t sequence)
{
    if (!consumer->is_on_follower)
        return stream_at(consumer->stream, sequence);
    struct stored *stored = consumer->stream->log.items[sequence - 1];
    return stored_is_there(stored, server_follower_ns(consumer->stream->server)) ? stored : NULL;
}

static struct stored *consumer_peek(struct consumer *consumer)
{
    struct stored *stored;

    while (consumer->listed_done < consumer->listed_count) {
        stored = consumer_find_listed(consumer, consumer->listed[consumer->listed_done]);
        if (stored != NULL)
            return stored;
        consumer->listed_done++;
    }
    while ((stored = consumer_next(consumer)) != NULL) {
        if (consumer_wants(consumer, stored))
            return stored;
        consumer->next_sequence = stored->sequence + 1;
    }
    consumer->listed_lost = 0; /* at the end, the server counts again */
    return NULL;
}

static void consumer_take(struct consumer *consumer, const struct stored *stored)
{
    if (consumer->listed_done < consumer->listed_count)
        consumer->listed_done++;
    else
        consumer->next_sequence = stored->sequence + 1;
}

/* nats-server 2.15 loses a message of a list, but not the last one, and counts it as pending: see consumer_pull. */
static void consumer_put_back(struct consumer *consumer, const struct stored *stored, bool was_listed)
{
    if (!was_listed)
        consumer->next_sequence = stored->sequence;
    else if (consumer->listed_done == consumer->listed_count)
        consumer->listed_done--;
    else
        consumer->listed_lost++;
}

/* Return the stream as the consumer's node has it. */
static const struct stream *consumer_view(const struct consumer *consumer)
{
    struct stream *stream = consumer->stream;

    return consumer->is_on_follower ? stream_as_of(stream, server_follower_ns(stream->server)) : stream;
}

/* What a follower has not removed yet does not count. */
static uint64_t consumer_pending(const struct consumer *consumer)
{
    uint64_t count = consumer->listed_count - consumer->listed_done + consumer->listed_lost;
    uint64_t until_ns = consumer->is_on_follower ? server_follower_ns(consumer->stream->server) : UINT64_MAX;

    for (size_t i = 0; i < consumer->stream->present.count; i++) {
        const struct stored *stored = consumer->stream->present.items[i];
        count += stored->sequence >= consumer->next_sequence && stored->at_ns <= until_ns &&
                 consumer_wants(consumer, stored);
    }
    return count;
}

/* The estimate of a list can be 0 for a moment, while keys are overwritten. */
static uint64_t consumer_estimate(const struct consumer *consumer)
{
    return consumer->is_list && world_chance(server_wrong_estimates(consumer->stream->server))
               ? 0
               : consumer_pending(consumer);
}

/* --- Pulls ----------------------------------------------------------------------------------------- */

static void pull_end(struct pull *pull)
{
    pull->is_over = true;
}

static struct pull *consumer_first_pull(struct consumer *consumer)
{
    for (struct pull *pull = consumer->pulls; pull != NULL; pull = pull->next) {
        if (!pull->is_over && link_is_served(pull->link))
            return pull;
    }
    return NULL;
}

static void pull_send_status(struct pull *pull, unsigned status, const char *text, bool with_pending)
{
    struct packet *packet = packet_new_status(pull->reply, status, text);

    if (with_pending) {
        packet_add_header(packet, "Nats-Pending-Messages", "%" PRIu64, pull->left);
        packet_add_header(packet, "Nats-Pending-Bytes", "%" PRIu64, pull->max_bytes);
    }
    link_send_to_daemon(pull->link, packet);
}

static struct packet *consumer_pack(struct consumer *consumer, const struct stored *stored)
{
    struct packet *packet = packet_copy(stored->packet);

    if (consumer->headers_only) {
        packet_add_header(packet, KV_HEADER_SIZE, "%zu", packet->payload_bytes);
        packet->payload_bytes = 0;
        packet->payload[0] = '\0';
    }
    free(packet->reply);
    if (asprintf(&packet->reply, "$JS.ACK.%s.%s.1.%" PRIu64 ".%" PRIu64 ".%" PRId64 ".%" PRIu64, consumer->stream->name,
                 consumer->name, stored->sequence, consumer->sequence, stored->time_ns,
                 consumer_estimate(consumer)) < 0)
        abort();
    return packet;
}

static void consumer_deliver(struct consumer *consumer)
{
    struct pull *pull;
    struct stored *stored = NULL;

    while (!consumer->is_over && (pull = consumer_first_pull(consumer)) != NULL &&
           (stored = consumer_peek(consumer)) != NULL) {
        bool is_listed = consumer->listed_done < consumer->listed_count;
        consumer_take(consumer, stored);
        consumer->sequence++;
        struct packet *packet = consumer_pack(consumer, stored);
        size_t bytes = packet_bytes(packet) + strlen(packet->subject) + strlen(packet->reply);
        if (pull->max_bytes > 0 && bytes > pull->max_bytes) {
            packet_free(packet);
            consumer->sequence--;
            consumer_put_back(consumer, stored, is_listed);
            pull_send_status(pull, 409, "Message Size Exceeds MaxBytes", true);
            pull_end(pull);
            continue;
        }
        consumer->touched_ns = world_now_ns();
        pull->was_served = true;
        link_send_to_daemon(pull->link, packet);
        pull->left--;
        if (pull->max_bytes > 0 && (pull->max_bytes -= bytes) == 0)
            pull->left = 0;
        if (pull->left == 0) {
            if (pull->max_bytes > 0)
                pull_send_status(pull, 409, "Batch Completed", true);
            pull_end(pull);
        }
    }
    for (pull = consumer->pulls; pull != NULL && stored == NULL; pull = pull->next) {
        if (pull->is_over || !pull->no_wait)
            continue;
        pull_send_status(pull, 404, "No Messages", false);
        pull_end(pull);
    }
}

static void consumer_catch_up(void *arg)
{
    struct consumer *consumer = arg;

    consumer->is_catching_up = false;
    if (!consumer->is_over && !server_puts_off(consumer->stream->server, consumer_catch_up, consumer))
        consumer_deliver(consumer);
}

void consumers_on_stored(struct stream *stream)
{
    for (struct consumer *consumer = all; consumer != NULL; consumer = consumer->next) {
        if (consumer->stream == stream)
            consumer_deliver(consumer);
    }
}

static void pull_expire(void *arg)
{
    struct pull *pull = arg;

    if (pull->is_over || pull->consumer->is_over || server_puts_off(pull->consumer->stream->server, pull_expire, pull))
        return;
    pull_send_status(pull, 408, "Request Timeout", true);
    pull_end(pull);
}

static void pull_beat(void *arg)
{
    struct pull *pull = arg;

    if (pull->is_over || pull->consumer->is_over || !link_is_served(pull->link) ||
        server_puts_off(pull->consumer->stream->server, pull_beat, pull))
        return;
    if (!pull->was_served && consumer_first_pull(pull->consumer) == pull) {
        struct packet *packet = packet_new_status(pull->reply, 100, "Idle Heartbeat");
        packet_add_header(packet, KV_HEADER_LAST_CONSUMER, "%" PRIu64, pull->consumer->sequence);
        packet_add_header(packet, "Nats-Last-Stream", "%" PRIu64,
                          pull->consumer->next_sequence > 0 ? pull->consumer->next_sequence - 1 : 0);
        link_send_to_daemon(pull->link, packet);
    }
    pull->was_served = false;
    pull->consumer->touched_ns = world_now_ns();
    world_after(pull->heartbeat_ns, pull_beat, pull);
}

static uint64_t request_number(json_t *request, const char *name)
{
    return (uint64_t)json_integer_value(json_object_get(request, name));
}

static struct consumer *consumers_find(const struct stream *stream, const char *name)
{
    for (struct consumer *consumer = all; consumer != NULL; consumer = consumer->next) {
        if (consumer->stream == stream && strcmp(consumer->name, name) == 0)
            return consumer;
    }
    return NULL;
}

bool consumers_pull(struct stream *stream, const char *name, struct link *link, const char *reply, json_t *request)
{
    struct consumer *consumer = consumers_find(stream, name);
    struct pull **end;

    if (consumer == NULL)
        return false;
    struct pull *pull = memory_new(sizeof(*pull));
    consumer->touched_ns = world_now_ns();
    *pull = (struct pull){.consumer = consumer,
                          .link = link,
                          .reply = memory_need(strdup(reply)),
                          .left = request_number(request, "batch"),
                          .no_wait = json_is_true(json_object_get(request, "no_wait")),
                          .heartbeat_ns = request_number(request, "idle_heartbeat"),
                          .max_bytes = request_number(request, "max_bytes")};
    if (request_number(request, "expires") > 0)
        world_after(request_number(request, "expires"), pull_expire, pull);
    if (pull->heartbeat_ns > 0)
        world_after(pull->heartbeat_ns, pull_beat, pull);
    for (end = &consumer->pulls; *end != NULL; end = &(*end)->next)
        ;
    *end = pull;
    if (pull->no_wait && consumer_estimate(consumer) == 0) {
        pull_send_status(pull, 404, "No Messages", false);
        pull_end(pull);
    }
    consumer_deliver(consumer);
    return true;
}

/* --- Consumers ------------------------------------------------------------------------------------- */

static void consumer_end(struct consumer *consumer, bool is_told)
{
    struct consumer **link = &all;

    while (*link != consumer)
        link = &(*link)->next;
    *link = consumer->next;
    consumer->next = over;
    over = consumer;
    consumer->is_over = true;
    for (struct pull *pull = consumer->pulls; pull != NULL; pull = pull->next) {
        if (!pull->is_over && is_told)
            pull_send_status(pull, 409, "Consumer Deleted", false);
        pull_end(pull);
    }
}

/* Nobody has pulled for a while. */
static void consumer_look(void *arg)
{
    struct consumer *consumer = arg;

    if (consumer->is_over || server_puts_off(consumer->stream->server, consumer_look, consumer))
        return;
    if (consumer_first_pull(consumer) != NULL)
        consumer->touched_ns = world_now_ns();
    if (world_now_ns() - consumer->touched_ns >= consumer->inactive_ns)
        consumer_end(consumer, false);
    else
        world_at(consumer->touched_ns + consumer->inactive_ns, consumer_look, consumer);
}

static void consumer_make_list(struct consumer *consumer)
{
    const struct stream *stream = consumer_view(consumer);
    const struct stored_list *present = &stream->present;

    consumer->listed = memory_new((present->count + 1) * sizeof(*consumer->listed));
    for (size_t i = 0; i < present->count; i++) {
        struct stored *stored = present->items[i];
        if (consumer_wants(consumer, stored) && stream_last(stream, stored->packet->subject) == stored)
            consumer->listed[consumer->listed_count++] = stored->sequence;
    }
    consumer->next_sequence = stream->last_sequence + 1;
}

static bool filters_overlap(json_t *filters)
{
    size_t i, j;
    json_t *one, *other;

    json_array_foreach(filters, i, one)
    {
        json_array_foreach(filters, j, other)
        {
            if (i != j && kv_filter_matches(json_string_value(one), json_string_value(other)))
                return true;
        }
    }
    return false;
}

json_t *consumers_create(struct stream *stream, const char *name, json_t *request)
{
    json_t *config = json_object_get(request, "config"), *filter = json_object_get(config, "filter_subject");
    const char *policy = json_string_value(json_object_get(config, "deliver_policy"));
    struct consumer *consumer = consumers_find(stream, name);

    if (filters_overlap(json_object_get(config, "filter_subjects")))
        return json_pack("{s:s, s:{s:i, s:i, s:s}}", "type", "io.nats.jetstream.api.v1.consumer_create_response",
                         "error", "code", 400, "err_code", 10138, "description",
                         "consumer subject filters cannot overlap");
    if (consumer != NULL)
        consumer_end(consumer, true);
    consumer = memory_new(sizeof(*consumer));
    *consumer = (struct consumer){.next = all,
                                  .stream = stream,
                                  .name = memory_need(strdup(name)),
                                  .is_on_follower = server_is_cluster(stream->server) && world_chance(600),
                                  .headers_only = json_is_true(json_object_get(config, "headers_only")),
                                  .inactive_ns = request_number(config, "inactive_threshold"),
                                  .touched_ns = world_now_ns()};
    json_t *filters = json_object_get(config, "filter_subjects");
    consumer->filters = filters != NULL ? json_deep_copy(filters) : json_array();
    if (json_is_string(filter))
        json_array_append(consumer->filters, filter);
    consumer->is_list = strcmp(policy, "last_per_subject") == 0;
    if (consumer->is_list && stream_number(stream, "max_msgs_per_subject") != 1) /* otherwise it is all of them */
        consumer_make_list(consumer);
    else if (strcmp(policy, "by_start_sequence") == 0)
        consumer->next_sequence = request_number(config, "opt_start_seq");
    all = consumer;
    world_after(consumer->inactive_ns, consumer_look, consumer);
    return json_pack("{s:s, s:s, s:s, s:I, s:O}", "type", "io.nats.jetstream.api.v1.consumer_create_response",
                     "stream_name", stream->name, "name", name, "num_pending", (json_int_t)consumer_estimate(consumer),
                     "config", config);
}

bool consumers_delete(struct stream *stream, const char *name)
{
    struct consumer *consumer = consumers_find(stream, name);

    if (consumer == NULL)
        return false;
    consumer_end(consumer, true);
    return true;
}

/* Those on the node that leads no more, which may be down. */
void consumers_lose_some(const struct server *server)
{
    for (struct consumer *consumer = all, *next; consumer != NULL; consumer = next) {
        next = consumer->next;
        if (consumer->stream->server == server && world_chance(400))
            consumer_end(consumer, false);
    }
}

void consumers_drop(const struct stream *stream)
{
    for (struct consumer *consumer = all, *next; consumer != NULL; consumer = next) {
        next = consumer->next;
        if (stream == NULL || consumer->stream == stream)
            consumer_end(consumer, false);
    }
}

static void consumers_free(struct consumer **list)
{
    while (*list != NULL) {
        struct consumer *consumer = *list;
        *list = consumer->next;
        while (consumer->pulls != NULL) {
            struct pull *pull = consumer->pulls;
            consumer->pulls = pull->next;
            free(pull->reply);
            free(pull);
        }
        json_decref(consumer->filters);
        free(consumer->listed);
        free(consumer->name);
        free(consumer);
    }
}

void consumers_forget_all(void)
{
    consumers_free(&all);
    consumers_free(&over);
}
