#include "daemon/nats/jetstream.h"

#include "daemon/base/log.h"
#include "daemon/base/redact.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- Errors ---------------------------------------------------------------------------------------- */

bool jetstream_get_error(json_t *answer, struct jetstream_error *error)
{
    json_t *object = json_object_get(answer, "error");

    if (!json_is_object(object))
        return false;
    error->code = (unsigned)json_integer_value(json_object_get(object, "code"));
    error->err_code = (unsigned)json_integer_value(json_object_get(object, "err_code"));
    error->description = json_string_value(json_object_get(object, "description"));
    if (error->description == NULL)
        error->description = "no description";
    return true;
}

bool jetstream_is_closing(const struct jetstream_error *error)
{
    return error->code >= 500 && (strstr(error->description, "stream closed") != NULL ||
                                  strstr(error->description, "store is closed") != NULL);
}

enum request_trouble jetstream_temporary_trouble(const struct jetstream_error *error)
{
    if (jetstream_is_closing(error))
        return REQUEST_NO_LEADER;
    switch (error->err_code) {
    case 10004: /* incomplete results */
    case 10007: /* cluster not assigned to this server */
    case 10008: /* system temporarily unavailable */
    case 10009: /* cluster can not handle request */
    case 10118: /* stream is offline */
    case 10163: /* expected last sequence per subject temporarily unavailable */
    case 10158: /* duplicate message id is in process */
    case 10167: /* too many requests */
    case 10210: /* too many batches in flight */
    case 10211:
        return REQUEST_NO_LEADER;
    default:
        return REQUEST_NO_TROUBLE;
    }
}

/* Return the code for an unknown err_code. A failure of the server is no bug of the daemon, and may be temporary. */
static enum error_code code_by_status(unsigned status)
{
    switch (status) {
    case 408: /* request timeout */
    case 409: /* conflict with an operation in progress */
        return ERROR_UNAVAILABLE;
    case 413:
        return ERROR_TOO_LARGE;
    case 429:
    case 507: /* insufficient storage */
        return ERROR_RESOURCE_EXHAUSTED;
    case 501:
        return ERROR_UNSUPPORTED;
    default:
        return status >= 400 && status < 500 ? ERROR_INVALID_ARGUMENT : ERROR_UNAVAILABLE;
    }
}

bool jetstream_means_nothing_stored(const struct jetstream_error *error)
{
    switch (error->err_code) {
    case 10054: /* message size exceeds maximum allowed */
    case JETSTREAM_STREAM_NOT_FOUND:
    case 10060: /* expected stream does not match */
    case JETSTREAM_WRONG_LAST_SEQUENCE:
    case 10097: /* header size exceeds maximum allowed */
    case 10109: /* sealed */
    case JETSTREAM_ROLLUP_FAILED:
    case JETSTREAM_WRONG_LAST_SEQUENCE_CONSTANT:
    case 10165: /* invalid per-message TTL */
    case 10166: /* per-message TTL is disabled */
    case JETSTREAM_ATOMIC_DISABLED:
    case 10175: /* a batch without a sequence */
    case 10176: /* a batch that is incomplete was abandoned */
    case 10177: /* a header that no batch may have */
    case 10179: /* the id of a batch is too long */
    case 10199: /* the batch is too large */
        return true;
    default:
        return false;
    }
}

void jetstream_set_error(struct error *error, const struct jetstream_error *from)
{
    enum error_code code = code_by_status(from->code);
    char description[ERROR_MESSAGE_BYTES];

    switch (from->err_code) {
    case JETSTREAM_STREAM_NOT_FOUND:
        error_set(error, ERROR_BUCKET_NOT_FOUND, "the bucket does not exist");
        return;
    case JETSTREAM_STREAM_NAME_IN_USE:
    case 10065: /* subjects overlap with an existing stream */
        code = ERROR_ALREADY_EXISTS;
        break;
    case JETSTREAM_WRONG_LAST_SEQUENCE:
    case JETSTREAM_WRONG_LAST_SEQUENCE_CONSTANT:
        code = ERROR_CONFLICT;
        break;
    case 10054: /* message size exceeds maximum allowed */
    case 10097: /* header size exceeds maximum allowed */
    case 10199: /* batch is too large */
        code = ERROR_TOO_LARGE;
        break;
    case 10002: /* resource limits exceeded for account */
    case 10023: /* insufficient resources */
    case 10026: /* maximum consumers */
    case 10027: /* maximum streams */
    case 10028: /* insufficient memory */
    case 10047: /* insufficient storage */
    case 10077: /* store failed: maximum bytes or messages exceeded */
    case 10053: /* stream limits */
    case 10113: /* max bytes required */
    case 10120: /* no limits for this tier */
    case 10122: /* max stream bytes exceeds account limit */
        code = ERROR_RESOURCE_EXHAUSTED;
        break;
    case 10005: /* no suitable peers */
    case 10006: /* not in clustered mode */
    case 10010: /* clustering required */
    case 10036: /* not supported in clustered mode */
    case 10055: /* mirror configuration can not be updated */
    case 10061: /* replicas not updatable */
    case 10074: /* replicas > 1 without a cluster */
    case 10109: /* sealed */
    case 10166: /* per-message TTL is disabled */
    case 10174: /* atomic publish is disabled */
    case 10185: /* API level required */
        code = ERROR_UNSUPPORTED;
        break;
    case 10014: /* consumer not found: the caller creates another one */
    case 10035: /* account not found */
    case 10039: /* not enabled for account */
    case 10076: /* not enabled */
        code = ERROR_UNAVAILABLE;
        break;
    case 10052: /* invalid stream configuration */
    case 10069: /* stream update error */
        code = ERROR_INVALID_ARGUMENT;
        break;
    case 10111: /* roll-up failed */
        error_set(
            error, ERROR_UNSUPPORTED,
            "the bucket does not allow roll-ups (allow_rollup_hdrs of its stream), which a purge needs, and a TTL "
            "if there is a history; call bucket.update to allow them");
        return;
    default:
        if (jetstream_temporary_trouble(from) != REQUEST_NO_TROUBLE)
            code = ERROR_UNAVAILABLE;
        break;
    }
    if (strcmp(from->description, "maximum bytes exceeded") == 0) {
        error_set(error, code,
                  "the bucket is full: this message does not fit into its max_bytes; raise that with bucket.update");
        return;
    }
    if (strstr(from->description, "no space left on device") != NULL)
        code = ERROR_RESOURCE_EXHAUSTED;
    redact_paths(description, sizeof(description) - 32, from->description);
    error_set(error, code, "NATS: %s (err_code %u)", description, from->err_code);
}

/* A cluster's answer that there is no such stream is believed after this number in a row, with a backoff between them.
 */
#define NOT_FOUND_TIMES 4u

bool jetstream_believes_not_found(const struct jetstream *jetstream, unsigned *answers)
{
    return jetstream->cluster[0] == '\0' || ++*answers >= NOT_FOUND_TIMES;
}

/* --- Calls ----------------------------------------------------------------------------------------- */

static void jetstream_release_call(struct jetstream_call *call)
{
    request_end(&call->request);
    free(call->subject);
    free(call->body);
    call->subject = NULL;
    call->body = NULL;
}

static struct jetstream_call *call_of(struct request *request)
{
    return (struct jetstream_call *)((char *)request - offsetof(struct jetstream_call, request));
}

static enum connection_publish_result send_call(struct request *request, unsigned attempt)
{
    struct jetstream_call *call = call_of(request);

    (void)attempt;
    return request_publish(request, call->subject, NULL, 0, call->body, call->body != NULL ? strlen(call->body) : 0);
}

static enum request_verdict on_call_reply(struct request *request, unsigned attempt, struct message *message)
{
    struct jetstream_call *call = call_of(request);
    struct jetstream_error failure;
    struct error error;

    (void)attempt;
    json_t *answer = json_loadb(message->payload, message->payload_bytes, 0, NULL);
    if (answer == NULL) /* another client answered on the subject; JetStream's answer is still to come */
        return REQUEST_MORE;
    if (!jetstream_get_error(answer, &failure)) {
        jetstream_release_call(call);
        call->done(call->arg, answer, 0, NULL);
        json_decref(answer);
        return REQUEST_DONE;
    }
    bool is_doubtful = failure.err_code == JETSTREAM_STREAM_NOT_FOUND &&
                       !jetstream_believes_not_found(call->jetstream, &call->not_found);
    if (jetstream_temporary_trouble(&failure) != REQUEST_NO_TROUBLE || is_doubtful) {
        request_set_trouble(request, REQUEST_NO_LEADER);
        request_clear_latest_doubt(request);
        json_decref(answer);
        return REQUEST_RETRY;
    }
    jetstream_set_error(&error, &failure);
    jetstream_release_call(call);
    call->done(call->arg, NULL, failure.err_code, &error);
    json_decref(answer);
    return REQUEST_DONE;
}

static void on_call_failed(struct request *request, const struct error *error)
{
    struct jetstream_call *call = call_of(request);

    jetstream_release_call(call);
    call->done(call->arg, NULL, 0, error);
}

static enum request_readiness prepare_call(struct request *request)
{
    const struct jetstream_call *call = call_of(request);
    struct error error;

    if (call->only_on_connection == 0 || call->only_on_connection == connection_number(request->requests->connection))
        return REQUEST_READY;
    error_set(&error, ERROR_UNAVAILABLE, "the connection to NATS was lost; call again to continue");
    on_call_failed(request, &error);
    return REQUEST_SUSPENDED_OR_OVER;
}

static const struct request_ops call_ops = {
    .kind = "api", .prepare = prepare_call, .send = send_call, .reply = on_call_reply, .fail = on_call_failed};

void jetstream_call(struct jetstream *jetstream, struct jetstream_call *call, const char *verb, const char *name,
                    json_t *body, uint64_t deadline_ms, jetstream_call_fn *done, void *arg)
{
    call->jetstream = jetstream;
    call->done = done;
    call->arg = arg;
    call->not_found = 0;
    call->body = NULL;
    if (asprintf(&call->subject, "%s.%s%s%s", jetstream->prefix, verb, name != NULL ? "." : "",
                 name != NULL ? name : "") < 0)
        call->subject = NULL;
    if (body != NULL)
        call->body = json_dumps(body, JSON_COMPACT);
    /* If memory ran out: a deadline in the past fails the call from the loop, and nothing is sent. */
    if (call->subject == NULL || (body != NULL && call->body == NULL))
        deadline_ms = 0;
    json_decref(body);
    call->request.label = call->subject;
    request_start(jetstream->requests, &call->request, &call_ops, deadline_ms);
}

void jetstream_cancel(struct jetstream_call *call)
{
    jetstream_release_call(call);
}

/* --- Stored messages as JSON ----------------------------------------------------------------------- */

#define STORED_HEADERS_MAX 1024u

/* Return an upper bound of the headers in the block. */
static size_t count_lines(const char *text, size_t length)
{
    size_t count = 0;

    for (const char *at = text; count < STORED_HEADERS_MAX; count++) {
        at = memchr(at, '\n', length - (size_t)(at - text));
        if (at++ == NULL)
            break;
    }
    return count;
}

/* Decode base64 into the arena. Return NULL if it is invalid, or memory ran out. */
static char *decode_base64(struct arena *arena, const char *text, size_t *length)
{
    size_t text_length = strlen(text);
    char *bytes = arena_alloc(arena, text_length / 4 * 3 + 1);

    if (bytes == NULL || text_length % 4 != 0 || text_length > INT32_MAX)
        return NULL;
    int decoded = EVP_DecodeBlock((unsigned char *)bytes, (const unsigned char *)text, (int)text_length);
    if (decoded < 0)
        return NULL;
    /* The decoder counts the padding as bytes. */
    *length = (size_t)decoded;
    for (size_t i = text_length; i > 0 && text[i - 1] == '=' && *length > 0; i--)
        (*length)--;
    bytes[*length] = '\0';
    return bytes;
}

static bool parse_stored(struct arena *arena, json_t *stored, struct message *message)
{
    const char *subject = json_string_value(json_object_get(stored, "subject"));
    const char *time = json_string_value(json_object_get(stored, "time"));
    const char *block = json_string_value(json_object_get(stored, "hdrs"));
    const char *payload = json_string_value(json_object_get(stored, "data"));
    char *sequence = arena_alloc(arena, 24);
    size_t block_length = 0, count = 0;

    memset(message, 0, sizeof(*message));
    if (subject == NULL || time == NULL || sequence == NULL)
        return false;
    char *text = block != NULL ? decode_base64(arena, block, &block_length) : NULL;
    if (text != NULL)
        count = count_lines(text, block_length);
    if (count > MESSAGE_HEADERS_MAX)
        count = MESSAGE_HEADERS_MAX;
    struct message_header *headers = arena_alloc(arena, (count + 3) * sizeof(*headers));
    if (headers == NULL || (block != NULL && text == NULL))
        return false;
    snprintf(sequence, 24, "%lld", (long long)json_integer_value(json_object_get(stored, "seq")));
    message->subject = arena_strdup(arena, subject);
    message->payload = decode_base64(arena, payload != NULL ? payload : "", &message->payload_bytes);
    message->headers = headers;
    if (text != NULL)
        message->header_count = message_parse_headers(text, block_length, headers, count);
    /* After headers of the same names that a client may have sent, as in a direct get. */
    headers += message->header_count;
    headers[0] = (struct message_header){"Nats-Subject", message->subject};
    headers[1] = (struct message_header){"Nats-Sequence", sequence};
    headers[2] = (struct message_header){"Nats-Time-Stamp", arena_strdup(arena, time)};
    message->header_count += 3;
    return message->subject != NULL && message->payload != NULL && headers[2].value != NULL;
}

enum jetstream_unwrap jetstream_unwrap_message(struct arena *arena, const struct message *answer,
                                               struct message *message, struct jetstream_error *error)
{
    enum jetstream_unwrap result = JETSTREAM_UNWRAP_MALFORMED;
    json_t *parsed = json_loadb(answer->payload, answer->payload_bytes, 0, NULL);

    if (parsed != NULL && jetstream_get_error(parsed, error)) {
        error->description = arena_strdup(arena, error->description);
        if (error->description != NULL)
            result = JETSTREAM_UNWRAP_ERROR;
    } else if (parsed != NULL && parse_stored(arena, json_object_get(parsed, "message"), message)) {
        result = JETSTREAM_UNWRAPPED;
    }
    json_decref(parsed);
    return result;
}

/* --- The server's version and features ------------------------------------------------------------- */

struct jetstream_probe {
    struct jetstream_call info;
    struct request server;
    bool has_warned;
};

/* JetStream is asked for its level until the first timeout, after which the log has a warning, and then on. */
#define LEVEL_WARNING_MS 3000u
#define LEVEL_TIMEOUT_MS (24u * 3600 * 1000)

/* How long the server is asked for its version and cluster. Nobody waits for it. */
#define SERVER_TIMEOUT_MS 30000u

static void ask_account_info(struct jetstream *jetstream);

static void jetstream_on_account_info(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct jetstream *jetstream = arg;

    (void)err_code;
    if (answer == NULL && !jetstream->probe->has_warned) {
        log_warning("nats: JetStream does not report its API level: %s; asking again", error->message);
        jetstream->probe->has_warned = true;
        ask_account_info(jetstream);
    }
    if (answer == NULL)
        return;
    jetstream->level = (unsigned)json_integer_value(json_object_get(json_object_get(answer, "api"), "level"));
    jetstream->is_known = true;
    log_info("nats: JetStream API level %u", jetstream->level);
}

static void ask_account_info(struct jetstream *jetstream)
{
    struct jetstream_probe *probe = jetstream->probe;
    uint64_t timeout_ms = probe->has_warned ? LEVEL_TIMEOUT_MS : LEVEL_WARNING_MS;

    jetstream_call(jetstream, &probe->info, "INFO", NULL, NULL, uv_now(jetstream->requests->loop) + timeout_ms,
                   jetstream_on_account_info, jetstream);
}

static enum connection_publish_result send_server_info(struct request *request, unsigned attempt)
{
    (void)attempt;
    return request_publish(request, "$SYS.REQ.USER.INFO", NULL, 0, "", 0);
}

static enum request_verdict on_server_info(struct request *request, unsigned attempt, struct message *message)
{
    struct jetstream_probe *probe =
        (struct jetstream_probe *)((char *)request - offsetof(struct jetstream_probe, server));
    struct jetstream *jetstream = probe->info.jetstream;
    json_t *answer = json_loadb(message->payload, message->payload_bytes, 0, NULL);
    json_t *server = json_object_get(answer, "server");
    const char *version = json_string_value(json_object_get(server, "ver"));
    const char *cluster = json_string_value(json_object_get(server, "cluster"));
    const char *name = json_string_value(json_object_get(server, "name"));

    (void)attempt;
    snprintf(jetstream->server_version, sizeof(jetstream->server_version), "%s", version != NULL ? version : "");
    snprintf(jetstream->cluster, sizeof(jetstream->cluster), "%s", cluster != NULL ? cluster : "");
    snprintf(jetstream->server_name, sizeof(jetstream->server_name), "%s", name != NULL ? name : "");
    json_decref(answer);
    request_end(request);
    return REQUEST_DONE;
}

static void on_server_info_failed(struct request *request, const struct error *error)
{
    (void)request;
    log_debug("nats: the server does not report its version: %s", error->message);
}

/* Accounts with narrow permissions may not ask. The version is not important enough to retry. */
static bool on_server_info_unserved(struct request *request)
{
    request_end(request);
    return false;
}

static const struct request_ops server_ops = {.kind = "server info",
                                              .send = send_server_info,
                                              .reply = on_server_info,
                                              .fail = on_server_info_failed,
                                              .no_responders = on_server_info_unserved};

bool jetstream_has_multi_last(const struct jetstream *jetstream)
{
    return !jetstream->is_known || jetstream->level >= JETSTREAM_LEVEL_TTL;
}

void jetstream_probe(struct jetstream *jetstream)
{
    struct jetstream_probe *probe = jetstream->probe;

    if (probe->info.request.state != REQUEST_IDLE)
        jetstream_cancel(&probe->info);
    request_end(&probe->server);
    probe->has_warned = false;
    ask_account_info(jetstream);
    request_start(jetstream->requests, &probe->server, &server_ops,
                  uv_now(jetstream->requests->loop) + SERVER_TIMEOUT_MS);
}

int jetstream_init(struct jetstream *jetstream, struct requests *requests, const char *domain)
{
    memset(jetstream, 0, sizeof(*jetstream));
    jetstream->requests = requests;
    jetstream->probe = calloc(1, sizeof(*jetstream->probe));
    if (domain != NULL)
        snprintf(jetstream->prefix, sizeof(jetstream->prefix), "$JS.%s.API", domain);
    else
        snprintf(jetstream->prefix, sizeof(jetstream->prefix), "$JS.API");
    return jetstream->probe != NULL ? 0 : -1;
}

void jetstream_free(struct jetstream *jetstream)
{
    if (jetstream->probe == NULL)
        return;
    if (jetstream->probe->info.request.state != REQUEST_IDLE)
        jetstream_cancel(&jetstream->probe->info);
    request_end(&jetstream->probe->server);
    free(jetstream->probe);
    jetstream->probe = NULL;
}
