#include "tests/sim/api.h"

#include "daemon/nats/kv.h"
#include "tests/sim/consumers.h"
#include "tests/sim/memory.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define API_PREFIX "$JS.API."
#define TYPE       "io.nats.jetstream.api.v1."

/* nats-server 2.15 */
#define API_LEVEL      5
#define SERVER_VERSION "2.15.1"

/* A request that is being served. */
struct api_call {
    struct server *server;
    struct link *link;
    const struct packet *request;
    json_t *body; /* NULL: none */
    struct stream *stream;
    const char *rest; /* of the subject, after the stream's name; "": nothing */
};

#define API_TIME_BYTES 40

/* Return a time as the server writes it: RFC 3339 with nanoseconds. */
static const char *api_time(int64_t time_ns, char text[API_TIME_BYTES])
{
    time_t second = (time_t)(time_ns / 1000000000);
    struct tm utc;

    gmtime_r(&second, &utc);
    size_t length = strftime(text, API_TIME_BYTES, "%Y-%m-%dT%H:%M:%S", &utc);
    length += (size_t)snprintf(text + length, API_TIME_BYTES - length, ".%09d", (int)(time_ns % 1000000000));
    while (text[length - 1] == '0')
        length--;
    if (text[length - 1] == '.')
        length--;
    strcpy(text + length, "Z");
    return text;
}

static void api_answer(const struct api_call *call, json_t *answer)
{
    if (call->request->reply != NULL)
        link_send_to_daemon(call->link, packet_new_json(call->request->reply, answer));
    else
        json_decref(answer);
}

static void api_refuse(const struct api_call *call, const char *type, int code, int err_code, const char *text)
{
    char full[96];

    snprintf(full, sizeof(full), TYPE "%s", type);
    api_answer(call, json_pack("{s:s, s:{s:i, s:i, s:s}}", "type", full, "error", "code", code, "err_code", err_code,
                               "description", text));
}

static void api_answer_status(const struct api_call *call, unsigned status, const char *text)
{
    link_send_to_daemon(call->link, packet_new_status(call->request->reply, status, text));
}

/* --- Streams --------------------------------------------------------------------------------------- */

static json_t *stream_describe(const struct stream *stream, const char *type)
{
    char created[API_TIME_BYTES], last[API_TIME_BYTES], first[API_TIME_BYTES], full[96];
    uint64_t bytes = 0;
    const struct stored *oldest = stream->present.count > 0 ? stream->present.items[0] : NULL;

    snprintf(full, sizeof(full), TYPE "%s", type);
    for (size_t i = 0; i < stream->present.count; i++)
        bytes +=
            packet_bytes(stream->present.items[i]->packet) + strlen(stream->present.items[i]->packet->subject) + 30;
    json_t *info = json_pack(
        "{s:s, s:O, s:s, s:{s:I, s:I, s:I, s:s, s:I, s:s, s:i}, s:{s:s}}", "type", full, "config", stream->config,
        "created", api_time(stream->created_ns, created), "state", "messages", (json_int_t)stream->present.count,
        "bytes", (json_int_t)bytes, "first_seq", (json_int_t)stream->first_sequence, "first_ts",
        api_time(oldest != NULL ? oldest->time_ns : 0, first), "last_seq", (json_int_t)stream->last_sequence, "last_ts",
        api_time(stream->last_ns, last), "consumer_count", 0, "cluster", "leader",
        server_is_cluster(stream->server) ? server_leader(stream->server) : server_name(stream->server));
    if (server_is_cluster(stream->server)) {
        json_t *cluster = json_object_get(info, "cluster");
        json_object_set_new(cluster, "name", json_string("C"));
        json_object_set_new(cluster, "leader_since",
                            json_string(api_time(server_leader_since_ns(stream->server), created)));
    }
    if (stream->present.count > 0)
        json_object_set_new(json_object_get(info, "state"), "num_subjects",
                            json_integer((json_int_t)stream_subjects(stream)));
    return info;
}

static void stream_complete_config(json_t *config)
{
    static const int64_t window_ns = 120000000000;
    json_int_t max_age_ns = json_integer_value(json_object_get(config, "max_age"));

    if (json_integer_value(json_object_get(config, "duplicate_window")) == 0)
        json_object_set_new(config, "duplicate_window",
                            json_integer(max_age_ns > 0 && max_age_ns < window_ns ? max_age_ns : window_ns));
    if (json_object_get(config, "num_replicas") == NULL)
        json_object_set_new(config, "num_replicas", json_integer(1));
}

static void stream_create(struct api_call *call, const char *name)
{
    if (call->stream != NULL) {
        json_t *config = json_deep_copy(call->body);
        stream_complete_config(config);
        if (json_equal(config, call->stream->config))
            api_answer(call, stream_describe(call->stream, "stream_create_response"));
        else
            api_refuse(call, "stream_create_response", 400, 10058,
                       "stream name already in use with a different configuration");
        json_decref(config);
        return;
    }
    json_t *config = json_deep_copy(call->body);
    stream_complete_config(config);
    trace("server: %s is created", name);
    api_answer(call, stream_describe(server_add_stream(call->server, name, config), "stream_create_response"));
}

static void stream_update(struct api_call *call)
{
    json_t *config = json_deep_copy(call->body);

    stream_complete_config(config);
    trace("server: %s is updated", call->stream->name);
    stream_configure(call->stream, config);
    api_answer(call, stream_describe(call->stream, "stream_update_response"));
}

static void stream_answer_purge(struct api_call *call)
{
    const char *filter = json_string_value(json_object_get(call->body, "filter"));
    uint64_t below = (uint64_t)json_integer_value(json_object_get(call->body, "seq"));
    uint64_t keep = (uint64_t)json_integer_value(json_object_get(call->body, "keep"));
    stream_begin_operation(call->stream);
    uint64_t purged = stream_purge(call->stream, filter, below, keep);

    trace("server: %s is purged: %" PRIu64 " messages", call->stream->name, purged);
    api_answer(call, json_pack("{s:s, s:b, s:I}", "type", TYPE "stream_purge_response", "success", 1, "purged",
                               (json_int_t)purged));
}

static void stream_delete(struct api_call *call)
{
    trace("server: %s is deleted", call->stream->name);
    stream_end(call->stream);
    api_answer(call, json_pack("{s:s, s:b}", "type", TYPE "stream_delete_response", "success", 1));
}

static void streams_list(const struct api_call *call)
{
    json_t *names = json_array();

    for (struct stream *stream = server_streams(call->server); stream != NULL; stream = stream->next) {
        if (!stream->is_gone)
            json_array_append_new(names, json_string(stream->name));
    }
    api_answer(call, json_pack("{s:s, s:I, s:i, s:i, s:o}", "type", TYPE "stream_names_response", "total",
                               (json_int_t)json_array_size(names), "offset", 0, "limit", 1024, "streams", names));
}

/* --- Messages -------------------------------------------------------------------------------------- */

static char *encode_base64(const char *bytes, size_t size)
{
    char *text = memory_new(size / 3 * 4 + 5);

    EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)bytes, (int)size);
    return text;
}

static json_t *message_describe(const struct stored *stored)
{
    const struct packet *packet = stored->packet;
    char time[API_TIME_BYTES], *block = NULL;
    size_t block_bytes;
    FILE *out = open_memstream(&block, &block_bytes);
    json_t *message = json_pack("{s:s, s:I, s:s}", "subject", packet->subject, "seq", (json_int_t)stored->sequence,
                                "time", api_time(stored->time_ns, time));

    fputs("NATS/1.0\r\n", out);
    for (size_t i = 0; i < packet->header_count; i++)
        fprintf(out, "%s: %s\r\n", packet->headers[i].name, packet->headers[i].value);
    fputs("\r\n", out);
    fclose(out);
    char *headers = encode_base64(block, block_bytes), *data = encode_base64(packet->payload, packet->payload_bytes);
    if (packet->header_count > 0)
        json_object_set_new(message, "hdrs", json_string(headers));
    if (packet->payload_bytes > 0)
        json_object_set_new(message, "data", json_string(data));
    free(headers);
    free(data);
    free(block);
    return message;
}

/* Return the message that seq, last_by_subj or next_by_subj names, or NULL. */
static struct stored *message_find(const struct stream *stream, json_t *request)
{
    const char *last = json_string_value(json_object_get(request, "last_by_subj"));
    const char *next = json_string_value(json_object_get(request, "next_by_subj"));
    uint64_t sequence = (uint64_t)json_integer_value(json_object_get(request, "seq"));

    if (last != NULL)
        return stream_last(stream, last);
    return next != NULL ? stream_next(stream, sequence, next) : stream_at(stream, sequence);
}

static void message_get(const struct api_call *call)
{
    const struct stored *stored = message_find(call->stream, call->body);

    if (stored == NULL)
        api_refuse(call, "stream_msg_get_response", 404, 10037, "no message found");
    else
        api_answer(
            call, json_pack("{s:s, s:o}", "type", TYPE "stream_msg_get_response", "message", message_describe(stored)));
}

/* --- Direct gets ----------------------------------------------------------------------------------- */

static struct packet *direct_pack(const struct api_call *call, const struct stored *stored)
{
    struct packet *packet = packet_copy(stored->packet);
    char time[API_TIME_BYTES];

    /* The subject of a reply is that of the request. */
    free(packet->subject);
    packet->subject = memory_need(strdup(call->request->reply));
    packet_add_header(packet, KV_HEADER_STREAM, "%s", call->stream->name);
    packet_add_header(packet, KV_HEADER_SUBJECT, "%s", stored->packet->subject);
    packet_add_header(packet, KV_HEADER_SEQUENCE, "%" PRIu64, stored->sequence);
    packet_add_header(packet, KV_HEADER_TIME_STAMP, "%s", api_time(stored->time_ns, time));
    return packet;
}

static bool direct_wants(json_t *filters, const struct stored *stored)
{
    size_t i;
    json_t *filter;

    json_array_foreach(filters, i, filter)
    {
        if (kv_filter_matches(json_string_value(filter), stored->packet->subject))
            return true;
    }
    return false;
}

static bool is_last_up_to(const struct stream *stream, const struct stored *stored, uint64_t up_to)
{
    for (size_t i = stream->present.count; i > 0; i--) {
        const struct stored *other = stream->present.items[i - 1];
        if (other->sequence <= up_to && strcmp(other->packet->subject, stored->packet->subject) == 0)
            return other == stored;
    }
    return false;
}

#define MULTI_MAX 1024u

static void direct_get_many(const struct api_call *call, const struct stream *stream)
{
    json_t *filters = json_object_get(call->body, "multi_last");
    uint64_t up_to = (uint64_t)json_integer_value(json_object_get(call->body, "up_to_seq"));
    uint64_t from = (uint64_t)json_integer_value(json_object_get(call->body, "seq"));
    uint64_t batch = (uint64_t)json_integer_value(json_object_get(call->body, "batch"));
    uint64_t max_bytes = (uint64_t)json_integer_value(json_object_get(call->body, "max_bytes"));
    uint64_t last = 0, sent = 0, bytes = 0, left = 0;

    if (up_to == 0)
        up_to = stream->last_sequence;
    for (size_t i = 0; i < stream->present.count; i++) {
        const struct stored *stored = stream->present.items[i];
        left += stored->sequence <= up_to && direct_wants(filters, stored) && is_last_up_to(stream, stored, up_to);
    }
    if (up_to > stream->last_sequence)
        left = 0; /* the server finds no block with this sequence */
    if (left == 0 || left > MULTI_MAX) {
        api_answer_status(call, left == 0 ? 404 : 413, left == 0 ? "No Results" : "Too Many Results");
        return;
    }
    for (size_t i = 0; i < stream->present.count; i++) {
        const struct stored *stored = stream->present.items[i];
        if (stored->sequence > up_to || !direct_wants(filters, stored) || !is_last_up_to(stream, stored, up_to))
            continue;
        left--;
        if (stored->sequence < from)
            continue;
        struct packet *packet = direct_pack(call, stored);
        packet_add_header(packet, KV_HEADER_PENDING, "%" PRIu64, left);
        packet_add_header(packet, KV_HEADER_LAST, "%" PRIu64, last);
        link_send_to_daemon(call->link, packet);
        last = stored->sequence;
        bytes += packet_bytes(stored->packet) + strlen(stored->packet->subject);
        if ((max_bytes > 0 && bytes >= max_bytes) || (++sent == batch && batch > 0))
            break;
    }
    struct packet *end = packet_new_status(call->request->reply, 204, "EOB");
    packet_add_header(end, KV_HEADER_PENDING, "%" PRIu64, left);
    packet_add_header(end, KV_HEADER_LAST, "%" PRIu64, last);
    packet_add_header(end, KV_HEADER_UPTO, "%" PRIu64, up_to);
    link_send_to_daemon(call->link, end);
}

/* Any replica answers. */
static const struct stream *direct_choose(const struct stream *stream)
{
    bool is_by_leader = !server_is_cluster(stream->server) || (server_has_leader(stream->server) && world_chance(300));

    return is_by_leader ? stream : stream_as_of(stream, server_follower_ns(stream->server));
}

static void direct_get(const struct api_call *call)
{
    const struct stream *stream = direct_choose(call->stream);
    const struct stored *stored;

    if (json_object_get(call->body, "multi_last") != NULL) {
        direct_get_many(call, stream);
        return;
    }
    if (call->rest[0] != '\0') {
        stored = stream_last(stream, call->rest);
    } else if (call->body == NULL) {
        api_answer_status(call, 408, "Empty Request");
        return;
    } else {
        stored = message_find(stream, call->body);
    }
    if (stored == NULL)
        api_answer_status(call, 404, "Message Not Found");
    else
        link_send_to_daemon(call->link, direct_pack(call, stored));
}

/* --- Consumers ------------------------------------------------------------------------------------- */

/* The name is the first token of the rest: a filter may follow. */
static char *consumer_name(const struct api_call *call)
{
    return memory_need(strndup(call->rest, strcspn(call->rest, ".")));
}

static void consumer_create(const struct api_call *call)
{
    char *name = consumer_name(call);

    api_answer(call, consumers_create(call->stream, name, call->body));
    free(name);
}

static void consumer_delete(const struct api_call *call)
{
    char *name = consumer_name(call);

    if (consumers_delete(call->stream, name))
        api_answer(call, json_pack("{s:s, s:b}", "type", TYPE "consumer_delete_response", "success", 1));
    else
        api_refuse(call, "consumer_delete_response", 404, 10014, "consumer not found");
    free(name);
}

static bool consumer_next(const struct api_call *call)
{
    char *name = consumer_name(call);
    bool is_there = consumers_pull(call->stream, name, call->link, call->request->reply, call->body);

    free(name);
    return is_there;
}

/* --- Dispatch -------------------------------------------------------------------------------------- */

static void account_describe(const struct api_call *call)
{
    uint64_t bytes = 0;

    for (struct stream *stream = server_streams(call->server); stream != NULL; stream = stream->next)
        bytes += stream->is_gone ? 0 : stream->present.count * 100;
    api_answer(call, json_pack("{s:s, s:I, s:I, s:i, s:{s:I, s:I}, s:{s:i}}", "type", TYPE "account_info_response",
                               "memory", (json_int_t)0, "storage", (json_int_t)bytes, "streams", 1, "limits",
                               "max_memory", (json_int_t)-1, "max_storage", (json_int_t)-1, "api", "level", API_LEVEL));
}

static void server_describe(const struct api_call *call)
{
    api_answer(call, json_pack("{s:{s:s, s:s, s:s}}", "server", "name", server_name(call->server), "ver",
                               SERVER_VERSION, "id", server_id(call->server)));
}

/* Split <verb>.<stream>.<rest>. Return a copy of the stream's name, or NULL if the subject has another verb. */
static char *split_subject(const char *subject, const char *verb, const char **rest)
{
    size_t length = strlen(verb);

    if (strncmp(subject, verb, length) != 0 || subject[length] != '.')
        return NULL;
    const char *name = subject + length + 1;
    size_t name_length = strcspn(name, ".");
    *rest = name[name_length] == '.' ? name + name_length + 1 : name + name_length;
    return memory_need(strndup(name, name_length));
}

enum verb { CREATE, UPDATE, INFO, DELETE, PURGE, MSG_GET, DIRECT, CONSUMER_CREATE, CONSUMER_DELETE, CONSUMER_NEXT };

static const struct {
    const char *subject, *type;
} verbs[] = {[CREATE] = {"STREAM.CREATE", "stream_create_response"},
             [UPDATE] = {"STREAM.UPDATE", "stream_update_response"},
             [INFO] = {"STREAM.INFO", "stream_info_response"},
             [DELETE] = {"STREAM.DELETE", "stream_delete_response"},
             [PURGE] = {"STREAM.PURGE", "stream_purge_response"},
             [MSG_GET] = {"STREAM.MSG.GET", "stream_msg_get_response"},
             [DIRECT] = {"DIRECT.GET", NULL},
             [CONSUMER_CREATE] = {"CONSUMER.CREATE", "consumer_create_response"},
             [CONSUMER_DELETE] = {"CONSUMER.DELETE", "consumer_delete_response"},
             [CONSUMER_NEXT] = {"CONSUMER.MSG.NEXT", NULL}};

bool api_queues(const struct packet *request)
{
    return strncmp(request->subject, API_PREFIX "DIRECT", strlen(API_PREFIX "DIRECT")) != 0 &&
           strncmp(request->subject, API_PREFIX "CONSUMER.MSG", strlen(API_PREFIX "CONSUMER.MSG")) != 0;
}

static bool api_serve_stream(struct api_call *call, enum verb verb, const char *name)
{
    if (call->stream == NULL && verb != CREATE) {
        if (verbs[verb].type == NULL)
            return false; /* nobody listens */
        api_refuse(call, verbs[verb].type, 404, 10059, "stream not found");
        return true;
    }
    switch (verb) {
    case CREATE:
        stream_create(call, name);
        break;
    case UPDATE:
        stream_update(call);
        break;
    case INFO:
        api_answer(call, stream_describe(call->stream, "stream_info_response"));
        break;
    case DELETE:
        stream_delete(call);
        break;
    case PURGE:
        stream_answer_purge(call);
        break;
    case MSG_GET:
        message_get(call);
        break;
    case DIRECT:
        if (!stream_flag(call->stream, "allow_direct"))
            return false;
        direct_get(call);
        break;
    case CONSUMER_CREATE:
        consumer_create(call);
        break;
    case CONSUMER_DELETE:
        consumer_delete(call);
        break;
    case CONSUMER_NEXT:
        return consumer_next(call);
    }
    return true;
}

bool api_serve(struct server *server, struct link *link, const struct packet *request)
{
    struct api_call call = {.server = server, .link = link, .request = request, .rest = ""};
    bool is_served = false;

    if (request->payload_bytes > 0)
        call.body = json_loadb(request->payload, request->payload_bytes, 0, NULL);
    if (strcmp(request->subject, "$SYS.REQ.USER.INFO") == 0) {
        server_describe(&call);
        is_served = true;
    } else if (strcmp(request->subject, API_PREFIX "INFO") == 0) {
        account_describe(&call);
        is_served = true;
    } else if (strcmp(request->subject, API_PREFIX "STREAM.NAMES") == 0) {
        streams_list(&call);
        is_served = true;
    }
    for (unsigned verb = 0; !is_served && verb < sizeof(verbs) / sizeof(verbs[0]); verb++) {
        char *name = split_subject(request->subject + strlen(API_PREFIX), verbs[verb].subject, &call.rest);
        if (name == NULL)
            continue;
        call.stream = server_find_stream(server, name);
        is_served = api_serve_stream(&call, verb, name);
        free(name);
        break;
    }
    json_decref(call.body);
    return is_served;
}
