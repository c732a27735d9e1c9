#include "tests/sim/differential/requests.h"

#include "daemon/nats/kv.h"
#include "tests/sim/api.h"
#include "tests/sim/memory.h"
#include "tests/sim/server.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS    4u
#define IDS     12u
#define STREAMS 4u

/* The last stream is deleted, created again and changed. */
#define CHANGING 3u

static const struct {
    const char *name;
    unsigned history;
    bool allows_ttl, allows_atomic;
} streams[STREAMS] = {
    {"one", 1, true, true}, {"many", 5, true, true}, {"plain", 2, false, false}, {"changing", 3, true, true}};

static unsigned long long values, batches, consumers;

/* The simulated one: what it has makes requests of which some succeed. */
static const struct server *server;

/* --- Parts of requests ----------------------------------------------------------------------------- */

struct packet *request_new(const char *payload, const char *format, ...)
{
    char subject[256];
    va_list args;

    va_start(args, format);
    vsnprintf(subject, sizeof(subject), format, args);
    va_end(args);
    return packet_new(subject, REQUESTS_INBOX, payload, strlen(payload));
}

static unsigned choose_stream(void)
{
    return (unsigned)world_below(STREAMS);
}

static unsigned choose_key(void)
{
    return (unsigned)world_below(KEYS);
}

/* Sequences are small at first, and near the last one is what is often asked for. */
static unsigned long long choose_sequence(void)
{
    return world_chance(300) ? world_below(4) : world_below(values + 3);
}

static const struct stream *find_stream(unsigned stream)
{
    char name[32];

    snprintf(name, sizeof(name), "KV_%s", streams[stream].name);
    return server_find_stream(server, name);
}

/* Half of the time it is right, if nothing is written before it is asked. */
static unsigned long long choose_last_sequence(unsigned stream)
{
    const struct stream *found = find_stream(stream);

    return found != NULL && world_chance(500) ? found->last_sequence : choose_sequence();
}

static unsigned long long choose_last_of_subject(unsigned stream, const char *subject)
{
    const struct stream *found = find_stream(stream);
    const struct stored *last = found != NULL ? stream_last(found, subject) : NULL;

    return world_chance(500) ? last != NULL ? last->sequence : 0 : choose_sequence();
}

/* --- Writes ---------------------------------------------------------------------------------------- */

static void add_conditions(struct packet *packet, unsigned stream)
{
    char other[64];
    const char *subject = packet->subject;

    if (world_chance(100)) {
        snprintf(other, sizeof(other), "$KV.%s.k%u", streams[stream].name, choose_key());
        packet_add_header(packet, KV_HEADER_EXPECTED_OTHER, "%s", other);
        subject = other;
    }
    if (world_chance(subject == other ? 900 : 300))
        packet_add_header(packet, KV_HEADER_EXPECTED_SUBJECT, "%llu", choose_last_of_subject(stream, subject));
    if (world_chance(60))
        packet_add_header(packet, KV_HEADER_EXPECTED_STREAM, "%llu", choose_last_sequence(stream));
}

static void add_write_headers(struct packet *packet, unsigned stream)
{
    add_conditions(packet, stream);
    if (world_chance(400))
        packet_add_header(packet, KV_HEADER_MSG_ID, "id%u", (unsigned)world_below(IDS + values / 4));
    if (world_chance(30))
        packet_add_header(packet, KV_HEADER_ROLLUP, "%s", "none");
    else if (world_chance(10))
        packet_add_header(packet, KV_HEADER_ROLLUP, "%s", "all");
    else if (world_chance(80))
        packet_add_header(packet, KV_HEADER_ROLLUP, "%s", "sub");
    if (world_chance(60))
        packet_add_header(packet, KV_HEADER_TTL, "%u", 3600 + (unsigned)world_below(5));
    if (world_chance(100))
        packet_add_header(packet, KV_HEADER_OPERATION, "%s", world_chance(500) ? "DEL" : "PURGE");
}

static struct packet *write_new(unsigned stream)
{
    char value[24];

    snprintf(value, sizeof(value), "%llu", ++values);
    struct packet *packet = request_new(value, "$KV.%s.k%u", streams[stream].name, choose_key());
    add_write_headers(packet, stream);
    return packet;
}

static void make_write(request_fn *ask)
{
    ask(write_new(choose_stream()));
}

static void make_batch(request_fn *ask)
{
    unsigned stream = choose_stream(), count = (unsigned)world_between(1, 4);
    unsigned wrong = world_chance(50) ? (unsigned)world_between(1, count) : 0;
    unsigned long long batch = ++batches;

    for (unsigned i = 1; i <= count; i++) {
        struct packet *packet = write_new(stream);
        packet_add_header(packet, KV_HEADER_BATCH_ID, "b%llu", batch);
        packet_add_header(packet, KV_HEADER_BATCH_SEQUENCE, "%u", i == wrong ? i + 1 : i);
        if (i == count)
            packet_add_header(packet, KV_HEADER_BATCH_COMMIT, "%s", "1");
        ask(packet);
    }
}

static void make_write_to_nobody(request_fn *ask)
{
    ask(request_new("x", "$KV.missing.k%u", choose_key()));
}

/* --- Reads ----------------------------------------------------------------------------------------- */

static void make_message_get(request_fn *ask)
{
    const char *stream = streams[choose_stream()].name;
    char body[160];

    switch (world_below(3)) {
    case 0:
        snprintf(body, sizeof(body), "{\"seq\":%llu}", choose_sequence() + 1);
        break;
    case 1:
        snprintf(body, sizeof(body), "{\"last_by_subj\":\"$KV.%s.k%u\"}", stream, choose_key());
        break;
    default:
        snprintf(body, sizeof(body), "{\"seq\":%llu,\"next_by_subj\":\"$KV.%s.%s\"}", choose_sequence() + 1, stream,
                 world_chance(500) ? ">" : "k1");
    }
    ask(request_new(body, "$JS.API.%s.KV_%s", world_chance(500) ? "STREAM.MSG.GET" : "DIRECT.GET", stream));
}

static void make_direct_get(request_fn *ask)
{
    const char *stream = streams[choose_stream()].name;

    ask(request_new("", "$JS.API.DIRECT.GET.KV_%s.$KV.%s.k%u", stream, stream, choose_key()));
}

static void make_multi_get(request_fn *ask)
{
    const char *stream = streams[choose_stream()].name;
    char body[256], more[64] = "";

    if (world_chance(300))
        snprintf(more, sizeof(more), ",\"up_to_seq\":%llu,\"seq\":%llu", choose_sequence() + 1, choose_sequence());
    if (world_chance(500))
        snprintf(body, sizeof(body), "{\"multi_last\":[\"$KV.%s.>\"]%s}", stream, more);
    else
        snprintf(body, sizeof(body), "{\"multi_last\":[\"$KV.%s.k%u\",\"$KV.%s.k%u\"]%s}", stream, choose_key(), stream,
                 choose_key(), more);
    ask(request_new(body, "$JS.API.DIRECT.GET.KV_%s", stream));
}

static void make_info(request_fn *ask)
{
    ask(request_new("", "$JS.API.STREAM.INFO.KV_%s", world_chance(50) ? "missing" : streams[choose_stream()].name));
}

/* --- Consumers ------------------------------------------------------------------------------------- */

uint64_t request_wait_ns(const struct packet *request)
{
    json_t *body = strstr(request->subject, ".MSG.NEXT.") != NULL ? json_loads(request->payload, 0, NULL) : NULL;
    json_int_t expires_ns = json_integer_value(json_object_get(body, "expires"));
    json_int_t beat_ns = json_integer_value(json_object_get(body, "idle_heartbeat"));

    json_decref(body);
    return (uint64_t)(beat_ns > 0 ? beat_ns : expires_ns);
}

/* A pull that waits has a heartbeat, and then the message that is written. It is written without a reply. */
static void make_waiting_pull(request_fn *ask, const char *stream, const char *subject)
{
    ask(request_new("{\"batch\":100,\"no_wait\":true}", "%s", subject));
    ask(request_new("{\"batch\":1,\"expires\":20000000000,\"idle_heartbeat\":100000000}", "%s", subject));
    struct packet *packet = request_new("waited for", "$KV.%s.k2", stream);
    free(packet->reply);
    packet->reply = NULL;
    ask(packet);
}

static void make_pull(request_fn *ask, const char *stream, const char *subject)
{
    unsigned count = (unsigned)world_between(1, 30);
    char body[96];

    switch (world_below(20)) {
    case 0:
        make_waiting_pull(ask, stream, subject);
        return;
    case 1:
        snprintf(body, sizeof(body), "{\"batch\":%u,\"expires\":50000000}", count);
        break;
    case 2:
    case 3:
        snprintf(body, sizeof(body), "{\"batch\":%u,\"max_bytes\":%u,\"no_wait\":true}", count,
                 (unsigned)world_between(40, 400));
        break;
    default:
        snprintf(body, sizeof(body), "{\"batch\":%u,\"no_wait\":true}", count);
    }
    ask(request_new(body, "%s", subject));
}

static void make_consumer(request_fn *ask)
{
    const char *stream = streams[choose_stream()].name;
    unsigned long long name = ++consumers;
    char body[512], policy[96], filter[96];

    switch (world_below(3)) {
    case 0:
        snprintf(policy, sizeof(policy), "\"last_per_subject\"");
        break;
    case 1:
        snprintf(policy, sizeof(policy), "\"by_start_sequence\",\"opt_start_seq\":%llu", choose_sequence() + 1);
        break;
    default:
        snprintf(policy, sizeof(policy), "\"all\"");
    }
    if (world_chance(300))
        snprintf(filter, sizeof(filter), "\"filter_subjects\":[\"$KV.%s.k0\",\"$KV.%s.%s\"]", stream, stream,
                 world_chance(800) ? "k2" : ">");
    else
        snprintf(filter, sizeof(filter), "\"filter_subject\":\"$KV.%s.%s\"", stream, world_chance(700) ? ">" : "k2");
    snprintf(
        body, sizeof(body),
        "{\"stream_name\":\"KV_%s\",\"config\":{\"name\":\"c%llu\",\"deliver_policy\":%s,\"ack_policy\":\"none\","
        "\"replay_policy\":\"instant\",\"inactive_threshold\":600000000000,\"num_replicas\":1,\"mem_storage\":true,"
        "\"headers_only\":%s,%s}}",
        stream, name, policy, world_chance(200) ? "true" : "false", filter);
    ask(request_new(body, "$JS.API.CONSUMER.CREATE.KV_%s.c%llu", stream, name));
    for (unsigned pulls = (unsigned)world_between(1, 3); pulls > 0; pulls--) {
        char subject[64];
        snprintf(subject, sizeof(subject), "$JS.API.CONSUMER.MSG.NEXT.KV_%s.c%llu", stream, name);
        make_pull(ask, stream, subject);
    }
    ask(request_new("", "$JS.API.CONSUMER.DELETE.KV_%s.c%llu", stream, name));
    if (world_chance(100))
        ask(request_new("", "$JS.API.CONSUMER.DELETE.KV_%s.c%llu", stream, name));
}

/* --- Removals -------------------------------------------------------------------------------------- */

static void make_purge(request_fn *ask)
{
    const char *stream = streams[choose_stream()].name;
    char body[128] = "";

    switch (world_below(4)) {
    case 0:
        snprintf(body, sizeof(body), "{\"filter\":\"$KV.%s.k%u\"}", stream, choose_key());
        break;
    case 1:
        break; /* all of it */
    case 2:
        snprintf(body, sizeof(body), "{\"seq\":%llu}", choose_sequence() + 1);
        break;
    default:
        snprintf(body, sizeof(body), "{\"filter\":\"$KV.%s.k%u\",\"keep\":1}", stream, choose_key());
    }
    ask(request_new(body, "$JS.API.STREAM.PURGE.KV_%s", stream));
}

/* --- Streams --------------------------------------------------------------------------------------- */

/* more: further settings, each after a comma. Return body. */
static char *describe_stream(unsigned stream, unsigned history, const char *more, char body[640])
{
    snprintf(body, 640,
             "{\"name\":\"KV_%s\",\"subjects\":[\"$KV.%s.>\"],\"max_msgs_per_subject\":%u,\"discard\":\"new\","
             "\"allow_rollup_hdrs\":true,\"deny_delete\":true,\"allow_direct\":true,\"storage\":\"file\","
             "\"retention\":\"limits\",\"num_replicas\":1,\"max_msgs\":-1,\"max_bytes\":-1,\"max_msg_size\":-1,"
             "\"max_consumers\":-1,\"duplicate_window\":3600000000000,\"allow_msg_ttl\":%s,\"allow_atomic\":%s%s}",
             streams[stream].name, streams[stream].name, history, streams[stream].allows_ttl ? "true" : "false",
             streams[stream].allows_atomic ? "true" : "false", more);
    return body;
}

static const char *choose_setting(void)
{
    static const char *const more[] = {"", "", ",\"max_age\":7200000000000", ",\"description\":\"changed\"",
                                       ",\"subject_delete_marker_ttl\":7200000000000"};

    return more[world_below(sizeof(more) / sizeof(more[0]))];
}

static void make_stream_change(request_fn *ask)
{
    unsigned stream = world_chance(900) ? CHANGING : choose_stream();
    const char *name = streams[stream].name, *verb = world_chance(500) ? "CREATE" : "UPDATE";
    char body[640];

    if (stream == CHANGING && world_chance(250))
        ask(request_new("", "$JS.API.STREAM.DELETE.KV_%s", name));
    else if (stream == CHANGING)
        ask(request_new(describe_stream(stream, (unsigned)world_between(1, 3), choose_setting(), body),
                        "$JS.API.STREAM.%s.KV_%s", verb, name));
    else
        ask(request_new(describe_stream(stream, streams[stream].history, "", body), "$JS.API.STREAM.%s.KV_%s", verb,
                        name));
}

/* --- All of them ----------------------------------------------------------------------------------- */

void requests_begin(const struct server *simulated, request_fn *ask)
{
    char body[640];

    server = simulated;
    for (unsigned i = 0; i < STREAMS; i++)
        ask(request_new(describe_stream(i, streams[i].history, "", body), "$JS.API.STREAM.CREATE.KV_%s",
                        streams[i].name));
}

void requests_make(request_fn *ask)
{
    static void (*const kinds[])(request_fn * ask) = {
        make_write,     make_batch, make_write_to_nobody, make_message_get, make_direct_get,
        make_multi_get, make_info,  make_consumer,        make_purge,       make_stream_change};
    static const unsigned weights[] = {40, 12, 2, 15, 10, 10, 5, 4, 2, 2};

    kinds[world_choose(weights, sizeof(weights) / sizeof(weights[0]))](ask);
}

/* --- Answers --------------------------------------------------------------------------------------- */

/* Of the API's answers, what the daemon reads. */
static const char *const members[] = {"error",   "seq",    "duplicate", "batch",       "count",
                                      "success", "purged", "state",     "num_pending", "message"};
static const char *const state_members[] = {"messages", "first_seq", "last_seq", "num_subjects"};

static json_t *choose_members(json_t *from, const char *const *names, size_t count)
{
    json_t *chosen = json_object();

    for (size_t i = 0; i < count; i++) {
        json_t *member = json_object_get(from, names[i]);
        if (member != NULL)
            json_object_set(chosen, names[i], member);
    }
    return chosen;
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

#define LINES_MAX 32u

/* Replace the encoded headers of a message by their lines, sorted: the library sends them in an order of its own. */
static void sort_headers(json_t *message)
{
    const char *encoded = json_string_value(json_object_get(message, "hdrs"));
    char *lines[LINES_MAX], *rest;
    size_t count = 0;

    if (encoded == NULL)
        return;
    char *text = memory_new(strlen(encoded) + 1);
    EVP_DecodeBlock((unsigned char *)text, (const unsigned char *)encoded, (int)strlen(encoded));
    for (char *line = strtok_r(text, "\r\n", &rest); line != NULL && count < LINES_MAX;
         line = strtok_r(NULL, "\r\n", &rest))
        lines[count++] = line;
    qsort(lines, count, sizeof(lines[0]), compare_lines);
    json_t *sorted = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(sorted, json_string(lines[i]));
    json_object_set_new(message, "hdrs", sorted);
    free(text);
}

static char *json_text(json_t *answer)
{
    json_t *chosen = choose_members(answer, members, sizeof(members) / sizeof(members[0]));
    json_t *state = json_object_get(chosen, "state"), *message = json_object_get(chosen, "message");

    if (state != NULL)
        json_object_set_new(chosen, "state",
                            choose_members(state, state_members, sizeof(state_members) / sizeof(state_members[0])));
    if (message != NULL) {
        json_t *copy = json_deep_copy(message);
        json_object_del(copy, "time");
        sort_headers(copy);
        json_object_set_new(chosen, "message", copy);
    }
    if (json_object_get(chosen, "error") != NULL)
        json_object_del(chosen, "purged"); /* 0 */
    char *text = json_dumps(chosen, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(chosen);
    return text;
}

static int compare_headers(const void *a, const void *b)
{
    return strcmp(((const struct message_header *)a)->name, ((const struct message_header *)b)->name);
}

/* The numbers of a delivery, without its time and the form of the beginning. */
static void print_delivery(FILE *out, const struct packet *answer)
{
    const struct message message = {.subject = answer->subject, .reply = answer->reply};
    struct kv_delivery delivery;

    if (answer->reply != NULL && kv_read_delivery(&message, &delivery))
        fprintf(out, " delivery %" PRIu64 " of %" PRIu64 ", %" PRIu64 " pending", delivery.consumer_sequence,
                delivery.stream_sequence, delivery.pending);
}

char *answer_text(const struct packet *answer)
{
    json_t *object = json_loadb(answer->payload, answer->payload_bytes, 0, NULL);
    char *text = NULL;
    size_t size;

    if (json_is_object(object)) {
        text = json_text(object);
        json_decref(object);
        return text;
    }
    json_decref(object);
    FILE *out = open_memstream(&text, &size);
    if (answer->status != 0)
        fprintf(out, "status %u", answer->status);
    else
        fprintf(out, "%.*s", (int)answer->payload_bytes, answer->payload);
    print_delivery(out, answer);
    if (answer->header_count > 0)
        qsort(answer->headers, answer->header_count, sizeof(answer->headers[0]), compare_headers);
    for (size_t i = 0; i < answer->header_count; i++) {
        /* The daemon does not read what heartbeats say of the stream. */
        if (strcmp(answer->headers[i].name, KV_HEADER_TIME_STAMP) != 0 &&
            strcmp(answer->headers[i].name, "Nats-Last-Stream") != 0)
            fprintf(out, " %s: %s", answer->headers[i].name, answer->headers[i].value);
    }
    fclose(out);
    return text;
}
