#include "tests/fault/nats.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NO_RESPONDERS           503u  /* the status of a message */
#define TEMPORARILY_UNAVAILABLE 503   /* the code of an error of JetStream */
#define NO_MESSAGE_FOUND        10037 /* the err_code of one */
#define STREAM_NOT_FOUND        10059 /* so too where JetStream's leader has not heard yet of what it has decided */

struct nats {
    int socket;
    char *bytes;
    size_t size, room;
    bool has_ended;
};

/* --- The connection -------------------------------------------------------------------------------- */

static void write_text(struct nats *nats, const char *text)
{
    size_t size = strlen(text);

    while (size > 0) {
        ssize_t written = send(nats->socket, text, size, MSG_NOSIGNAL);
        if (written <= 0) {
            nats->has_ended = true;
            return;
        }
        text += written;
        size -= (size_t)written;
    }
}

/* False: nothing came until then, or the connection has ended. */
static bool read_some(struct nats *nats, uint64_t until_ms)
{
    struct pollfd readable = {.fd = nats->socket, .events = POLLIN};
    uint64_t now = now_ms();

    if (nats->has_ended || poll(&readable, 1, now < until_ms ? (int)(until_ms - now) : 0) != 1)
        return false;
    if (nats->room - nats->size < 65536) {
        nats->room = nats->room * 2 + 131072;
        nats->bytes = realloc(nats->bytes, nats->room);
        ck_assert_ptr_nonnull(nats->bytes);
    }
    ssize_t received = recv(nats->socket, nats->bytes + nats->size, nats->room - nats->size, 0);
    nats->has_ended = received <= 0;
    nats->size += received > 0 ? (size_t)received : 0;
    return received > 0;
}

/* So many bytes as a text that lives on. */
static char *take_bytes(struct nats *nats, size_t size)
{
    char *text = keep(strndup(nats->bytes, size));

    nats->size -= size;
    memmove(nats->bytes, nats->bytes + size, nats->size);
    return text;
}

/* Without its end; NULL: none came until then. */
static char *read_line(struct nats *nats, uint64_t until_ms)
{
    const char *end;

    while ((end = nats->size > 0 ? memmem(nats->bytes, nats->size, "\r\n", 2) : NULL) == NULL) {
        if (!read_some(nats, until_ms))
            return NULL;
    }
    char *line = take_bytes(nats, (size_t)(end - nats->bytes) + 2);
    line[strlen(line) - 2] = '\0';
    return line;
}

static bool greet(struct nats *nats, unsigned patience_ms)
{
    uint64_t until_ms = now_ms() + patience_ms;
    const char *line;

    if (read_line(nats, until_ms) == NULL)
        return false;
    write_text(
        nats,
        "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB _INBOX.fault.* 1\r\nPING\r\n");
    while ((line = read_line(nats, until_ms)) != NULL) {
        if (strcmp(line, "PONG") == 0)
            return true;
    }
    return false;
}

struct nats *nats_connect(const unsigned *ports, unsigned count)
{
    struct nats *nats = keep(calloc(1, sizeof(*nats)));
    uint64_t end = now_ms() + PATIENCE_MS;
    unsigned patience_ms = 1000;

    for (unsigned i = 0;; i++) {
        unsigned port = ports[i % count];
        nats->socket = port_dial(port);
        if (nats->socket >= 0 && greet(nats, patience_ms))
            return nats;
        ck_assert_msg(now_ms() < end, "cannot connect to nats-server on port %u", port);
        if (nats->socket >= 0)
            nats_close(nats);
        /* One that stands still accepts, and is not waited for any longer than it takes to know of the others. */
        if (i % count == count - 1)
            patience_ms *= 2;
        pause_shortly();
    }
}

void nats_close(struct nats *nats)
{
    close(nats->socket);
    free(nats->bytes);
    memset(nats, 0, sizeof(*nats));
    nats->socket = -1;
}

/* --- Requests -------------------------------------------------------------------------------------- */

/* The message that line begins. False: not all of it came. */
static bool read_message(struct nats *nats, char *line, uint64_t until_ms, struct nats_message *message)
{
    const char *last = "", *before = "";
    char *rest = line, *word;
    bool has_headers = line[0] == 'H';

    while ((word = strsep(&rest, " ")) != NULL) {
        before = last;
        last = word;
    }
    size_t total = strtoul(last, NULL, 10), headers = has_headers ? strtoul(before, NULL, 10) : 0;
    while (nats->size < total + 2) {
        if (!read_some(nats, until_ms))
            return false;
    }
    char *bytes = take_bytes(nats, total + 2);
    bytes[total] = '\0';
    /* "NATS/1.0 503": a status stands behind the version, and only where the message has one. */
    message->status = has_headers ? (unsigned)strtoul(bytes + strlen("NATS/1.0"), NULL, 10) : 0;
    message->payload = bytes + headers;
    return true;
}

/* False: no answer came within the time. headers: "", or lines with their ends. */
static bool request(struct nats *nats, const char *subject, const char *headers, const char *payload,
                    unsigned patience_ms, struct nats_message *answer)
{
    static unsigned requests;
    uint64_t until_ms = now_ms() + patience_ms;
    const char *inbox = format_text("_INBOX.fault.%u", __atomic_add_fetch(&requests, 1, __ATOMIC_RELAXED));
    const char *block = *headers != '\0' ? format_text("NATS/1.0\r\n%s\r\n", headers) : "";
    size_t size = strlen(block) + strlen(payload);
    char *line;

    if (*block != '\0')
        write_text(nats,
                   format_text("HPUB %s %s %zu %zu\r\n%s%s\r\n", subject, inbox, strlen(block), size, block, payload));
    else
        write_text(nats, format_text("PUB %s %s %zu\r\n%s\r\n", subject, inbox, size, payload));
    while ((line = read_line(nats, until_ms)) != NULL) {
        const char *found = strstr(line, inbox);
        bool is_ours = found != NULL && found[strlen(inbox)] == ' ';
        if (strcmp(line, "PING") == 0)
            write_text(nats, "PONG\r\n");
        if (strncmp(line, "MSG ", 4) != 0 && strncmp(line, "HMSG ", 5) != 0)
            continue;
        if (!read_message(nats, line, until_ms, answer))
            return false;
        if (is_ours)
            return true;
    }
    return false;
}

bool nats_request(struct nats *nats, const char *subject, const char *payload, struct nats_message *answer)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    /* While there is no leader nobody listens, or nobody answers: the question is asked again. */
    for (unsigned patience_ms = 250; now_ms() < end && !nats->has_ended; patience_ms *= 2) {
        if (request(nats, subject, "", payload, patience_ms, answer) && answer->status != NO_RESPONDERS)
            return true;
        pause_shortly();
    }
    return false;
}

/* --- JetStream ------------------------------------------------------------------------------------- */

static json_t *parse(const char *subject, const char *text)
{
    json_t *json = json_loads(text, 0, NULL);

    ck_assert_msg(json != NULL, "%s: nats-server's answer is no JSON: %s", subject, text);
    return keep(json);
}

static long long error_code(const json_t *answer, const char *member)
{
    return json_integer_value(json_object_get(json_object_get(answer, "error"), member));
}

/* What changes something is asked for only once, if it may have been heard: the second answer would be another one. */
static bool is_question(const char *verb_and_name)
{
    static const char *const questions[] = {"STREAM.INFO.", "STREAM.MSG.GET.", "CONSUMER.NAMES.", "CONSUMER.LIST."};

    for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
        if (strncmp(verb_and_name, questions[i], strlen(questions[i])) == 0)
            return true;
    }
    return false;
}

static json_t *call_api(struct nats *nats, const char *verb_and_name, const char *body)
{
    const char *subject = format_text("$JS.API.%s", verb_and_name);
    unsigned patience_ms = is_question(verb_and_name) ? 250 : PATIENCE_MS;
    uint64_t end = now_ms() + PATIENCE_MS;
    struct nats_message message;
    const char *last = "none";

    for (; now_ms() < end && !nats->has_ended; pause_shortly()) {
        if (!request(nats, subject, "", body, patience_ms, &message)) {
            patience_ms *= 2;
            continue;
        }
        if (message.status == NO_RESPONDERS)
            continue; /* JetStream is not there yet, or has no leader */
        json_t *answer = parse(subject, message.payload);
        bool is_not_known_yet = is_question(verb_and_name) && error_code(answer, "err_code") == STREAM_NOT_FOUND;
        if (error_code(answer, "code") != TEMPORARILY_UNAVAILABLE && !is_not_known_yet)
            return answer;
        last = message.payload;
    }
    ck_abort_msg("%s: nats-server does not answer; its last answer: %s", subject, last);
    return NULL;
}

static char *format_body(const char *payload, va_list args)
{
    char *body = NULL;

    ck_assert_int_ge(vasprintf(&body, payload, args), 0);
    for (char *c = body; *c != '\0'; c++) {
        if (*c == '\'')
            *c = '"';
    }
    return keep(body);
}

json_t *nats_try_api(struct nats *nats, const char *verb_and_name)
{
    return call_api(nats, verb_and_name, "{}");
}

json_t *nats_api(struct nats *nats, const char *verb_and_name, const char *payload, ...)
{
    va_list args;

    va_start(args, payload);
    json_t *answer = call_api(nats, verb_and_name, format_body(payload, args));
    va_end(args);
    ck_assert_msg(json_object_get(answer, "error") == NULL, "%s: %s", verb_and_name,
                  (char *)keep(json_dumps(answer, 0)));
    return answer;
}

/* With an id, so that the put may be sent again where a cluster has lost it with its leader. */
uint64_t nats_put(struct nats *nats, const char *bucket, const char *key, const char *value)
{
    static unsigned puts;
    const char *subject = format_text("$KV.%s.%s", bucket, key);
    const char *headers =
        format_text("Nats-Msg-Id: theirs-%d-%u\r\n", (int)getpid(), __atomic_add_fetch(&puts, 1, __ATOMIC_RELAXED));
    uint64_t end = now_ms() + PATIENCE_MS;
    unsigned patience_ms = 1000;
    struct nats_message message;
    const char *last = "none";

    for (; now_ms() < end && !nats->has_ended; pause_shortly()) {
        if (!request(nats, subject, headers, value, patience_ms, &message)) {
            patience_ms *= 2;
            continue;
        }
        if (message.status == NO_RESPONDERS)
            continue;
        json_t *ack = parse(subject, message.payload);
        if (json_object_get(ack, "error") == NULL)
            return (uint64_t)json_integer_value(json_object_get(ack, "seq"));
        last = message.payload;
        ck_assert_msg(error_code(ack, "code") == TEMPORARILY_UNAVAILABLE, "%s: %s", subject, last);
    }
    ck_abort_msg("%s: nats-server does not acknowledge; its last answer: %s", subject, last);
    return 0;
}

bool nats_has_revision(struct nats *nats, const char *bucket, uint64_t revision)
{
    struct nats_message message;

    return nats_request(nats, format_text("$JS.API.DIRECT.GET.KV_%s", bucket),
                        format_text("{\"seq\":%llu}", (unsigned long long)revision), &message) &&
           message.status == 0;
}

/* --- What a bucket's stream holds ------------------------------------------------------------------ */

static char *decode_base64(const char *text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *decoded = keep(calloc(1, strlen(text) + 1)), *out = decoded;
    unsigned value = 0, bits = 0;

    for (; *text != '\0' && *text != '='; text++) {
        value = value << 6 | (unsigned)(strchr(digits, *text) - digits);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            *out++ = (char)(value >> bits & 255u);
        }
    }
    return decoded;
}

static const char *header_value(const char *headers, const char *name)
{
    const char *found = strstr(headers, name);

    if (found == NULL)
        return NULL;
    found += strlen(name);
    found += strspn(found, ": ");
    return format_text("%.*s", (int)strcspn(found, "\r"), found);
}

static void add_entry(struct stream_log *log, const char *bucket, const json_t *message)
{
    const char *subject = json_string_value(json_object_get(message, "subject"));
    const char *value = json_string_value(json_object_get(message, "data"));
    const char *block = json_string_value(json_object_get(message, "hdrs"));
    const char *operation = block != NULL ? header_value(decode_base64(block), "KV-Operation") : NULL;

    log->entries[log->count++] = (struct stored){
        .revision = (uint64_t)json_integer_value(json_object_get(message, "seq")),
        .key = subject + strlen("$KV.") + strlen(bucket) + 1,
        .operation = operation != NULL ? operation : "put",
        .value = value != NULL ? decode_base64(value) : "",
    };
}

struct stream_log nats_read_log(struct nats *nats, const char *bucket)
{
    struct stream_log log = {0};
    json_t *info = nats_api(nats, format_text("STREAM.INFO.KV_%s", bucket), "{}");
    json_t *state = json_object_get(info, "state");
    uint64_t last = (uint64_t)json_integer_value(json_object_get(state, "last_seq"));
    uint64_t next = (uint64_t)json_integer_value(json_object_get(state, "first_seq"));

    ck_assert_msg(state != NULL, "no state of %s", bucket);
    log.entries =
        keep(calloc((size_t)json_integer_value(json_object_get(state, "messages")) + 1, sizeof(*log.entries)));
    while (next > 0 && next <= last) {
        const char *verb = format_text("STREAM.MSG.GET.KV_%s", bucket);
        json_t *answer =
            call_api(nats, verb, format_text("{\"seq\":%llu,\"next_by_subj\":\">\"}", (unsigned long long)next));
        const json_t *message = json_object_get(answer, "message");
        if (error_code(answer, "err_code") == NO_MESSAGE_FOUND)
            break;
        ck_assert_msg(message != NULL, "%s: %s", verb, (char *)keep(json_dumps(answer, 0)));
        add_entry(&log, bucket, message);
        next = log.entries[log.count - 1].revision + 1;
    }
    return log;
}

unsigned log_count(const struct stream_log *log, const char *key, const char *operation, const char *value,
                   uint64_t *revision)
{
    unsigned count = 0;

    *revision = 0;
    for (size_t i = 0; i < log->count; i++) {
        const struct stored *entry = &log->entries[i];
        if (strcmp(entry->key, key) != 0 || strcmp(entry->operation, operation) != 0 ||
            strcmp(entry->value, value) != 0)
            continue;
        count++;
        *revision = entry->revision;
    }
    return count;
}

const char *log_text(const struct stream_log *log)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);

    for (size_t i = 0; i < log->count && i < 100; i++)
        fprintf(stream, "%llu %s %s %.40s\n", (unsigned long long)log->entries[i].revision, log->entries[i].operation,
                log->entries[i].key, log->entries[i].value);
    fclose(stream);
    return keep(text);
}
