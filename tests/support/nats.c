#include "tests/support/nats.h"

#include "tests/support/ports.h"
#include "tests/support/process.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NO_RESPONDERS           503u  /* the status of a message */
#define TEMPORARILY_UNAVAILABLE 503   /* the code of an error of JetStream */
#define STREAM_NOT_FOUND        10059 /* also if JetStream's leader does not know yet what it has decided */

#define INBOX_SID        1
#define SUBSCRIPTION_SID 2

/* Of the first copy of a request that may be sent again. */
#define FIRST_WAIT_MS 250u

struct nats {
    int socket;
    char *bytes; /* received, and not read yet */
    size_t size, room;
    bool has_ended;
    const char *error; /* the server's last -ERR; NULL: none */
    unsigned requests;
    struct nats_message last; /* of nats_next */
};

/* --- The connection -------------------------------------------------------------------------------- */

static void nats_write(struct nats *nats, const char *text)
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

/* Return false if nothing came until then, or the connection has ended. */
static bool nats_read_some(struct nats *nats, uint64_t until_ms)
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

/* Take the first bytes, and return them with a zero after them. */
static char *nats_take_bytes(struct nats *nats, size_t size)
{
    char *taken = keep(malloc(size + 1));

    memcpy(taken, nats->bytes, size);
    taken[size] = '\0';
    nats->size -= size;
    memmove(nats->bytes, nats->bytes + size, nats->size);
    return taken;
}

/* Return the next line without its end; NULL: none came until then. */
static char *nats_read_line(struct nats *nats, uint64_t until_ms)
{
    const char *end;

    while ((end = nats->size > 0 ? memmem(nats->bytes, nats->size, "\r\n", 2) : NULL) == NULL) {
        if (!nats_read_some(nats, until_ms))
            return NULL;
    }
    size_t length = (size_t)(end - nats->bytes);
    char *line = nats_take_bytes(nats, length + 2);
    line[length] = '\0';
    return line;
}

/* Return the next line that is not one of the server's pings; NULL: none came until then, or an error. */
static char *nats_read_answer(struct nats *nats, uint64_t until_ms)
{
    char *line;

    while ((line = nats_read_line(nats, until_ms)) != NULL) {
        if (strcmp(line, "PING") == 0) {
            nats_write(nats, "PONG\r\n");
            continue;
        }
        if (strncmp(line, "-ERR", 4) != 0)
            return line;
        nats->error = line;
        return NULL;
    }
    return NULL;
}

/* Return false if there is no pong until then: the server is not there, or has refused us. */
static bool nats_wait_pong(struct nats *nats, uint64_t until_ms)
{
    const char *line;

    nats_write(nats, "PING\r\n");
    while ((line = nats_read_answer(nats, until_ms)) != NULL) {
        if (strcmp(line, "PONG") == 0)
            return true;
    }
    return false;
}

static const char *nats_inbox(const struct nats *nats, const char *last_token)
{
    return format_text("_INBOX.test.%d.%p.%s", (int)getpid(), (const void *)nats, last_token);
}

/* Return NULL if the server does not accept, or does not answer until then. */
static struct nats *nats_open(unsigned port, const char *credentials, uint64_t until_ms)
{
    struct nats *nats = keep(calloc(1, sizeof(*nats)));

    nats->socket = port_dial(port);
    if (nats->socket < 0)
        return NULL;
    setsockopt(nats->socket, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (nats_read_line(nats, until_ms) != NULL) { /* INFO */
        nats_write(nats, format_text("CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true%s}\r\n"
                                     "SUB %s %d\r\n",
                                     credentials, nats_inbox(nats, "*"), INBOX_SID));
        if (nats_wait_pong(nats, until_ms))
            return nats;
    }
    nats_close(nats);
    return NULL;
}

struct nats *nats_connect(unsigned port, const char *user, const char *password)
{
    const char *credentials = user != NULL ? format_text(",\"user\":\"%s\",\"pass\":\"%s\"", user, password) : "";
    struct nats *nats = nats_open(port, credentials, now_ms() + PATIENCE_MS);

    ck_assert_msg(nats != NULL, "cannot connect to nats-server on port %u", port);
    return nats;
}

struct nats *nats_connect_any(const unsigned *ports, unsigned count)
{
    uint64_t end = now_ms() + PATIENCE_MS;
    unsigned wait_ms = 1000;

    for (unsigned i = 0;; i++) {
        unsigned port = ports[i % count];
        struct nats *nats = nats_open(port, "", now_ms() + wait_ms);
        if (nats != NULL)
            return nats;
        ck_assert_msg(now_ms() < end, "cannot connect to nats-server on port %u", port);
        /* A stopped server accepts and does not answer: it gets no more time than it takes to try the others. */
        if (i % count == count - 1)
            wait_ms *= 2;
        pause_shortly();
    }
}

unsigned nats_embedded_port(const char *data_dir)
{
    unsigned port = port_of_embedded_server(data_dir);

    ck_assert_uint_ne(port, 0);
    return port;
}

struct nats *nats_connect_embedded(const char *data_dir)
{
    const char *conf = read_file(format_text("%s/nats-server.conf", data_dir));
    const char *user = strstr(conf, "user: \""), *password = strstr(conf, "password: \"");

    ck_assert_ptr_nonnull(user);
    ck_assert_ptr_nonnull(password);
    user += strlen("user: \"");
    password += strlen("password: \"");
    return nats_connect(nats_embedded_port(data_dir), format_text("%.*s", (int)strcspn(user, "\""), user),
                        format_text("%.*s", (int)strcspn(password, "\""), password));
}

void nats_close(struct nats *nats)
{
    close(nats->socket);
    free(nats->bytes);
    memset(nats, 0, sizeof(*nats));
    nats->socket = -1;
    nats->has_ended = true;
}

/* --- Messages -------------------------------------------------------------------------------------- */

/*
 * Read the rest of the message that the line begins: "MSG subject sid [reply] bytes", or "HMSG" with the headers' bytes
 * before the last number. Return false if not all of it came until then.
 */
static bool nats_read_payload(struct nats *nats, char *line, uint64_t until_ms, struct nats_message *message)
{
    char *words[6] = {NULL}, *word;
    bool has_headers = line[0] == 'H';
    size_t count = 0, headers = 0;

    while (count < 6 && (word = strsep(&line, " ")) != NULL)
        words[count++] = word;
    ck_assert_uint_ge(count, has_headers ? 5 : 4);
    size_t total = strtoul(words[count - 1], NULL, 10);
    if (has_headers)
        headers = strtoul(words[count - 2], NULL, 10);
    while (nats->size < total + 2) {
        if (!nats_read_some(nats, until_ms))
            return false;
    }
    char *bytes = nats_take_bytes(nats, total + 2);
    bytes[total] = '\0';
    *message = (struct nats_message){
        .subject = words[1],
        .reply = count == (has_headers ? 6 : 5) ? words[3] : "",
        /* "NATS/1.0 503": the status follows the version, if the message has one. */
        .status = has_headers ? (unsigned)strtoul(bytes + strlen("NATS/1.0"), NULL, 10) : 0,
        .payload = bytes + headers,
    };
    return true;
}

/* Wait for the next message on a subject; NULL: on any but an inbox. Those on other subjects are dropped. */
static bool nats_receive(struct nats *nats, const char *subject, uint64_t until_ms, struct nats_message *message)
{
    char *line;

    while ((line = nats_read_answer(nats, until_ms)) != NULL) {
        if (strncmp(line, "MSG ", 4) != 0 && strncmp(line, "HMSG ", 5) != 0)
            continue;
        if (!nats_read_payload(nats, line, until_ms, message))
            return false;
        if (subject != NULL ? strcmp(message->subject, subject) == 0 : strncmp(message->subject, "_INBOX.", 7) != 0)
            return true;
    }
    return false;
}

/* Send a request once. Return false if no answer came in time. headers: lines with their ends, or NULL. */
static bool nats_ask(struct nats *nats, const char *subject, const char *headers, const char *payload, unsigned wait_ms,
                     struct nats_message *answer)
{
    const char *inbox = nats_inbox(nats, format_text("%u", ++nats->requests));
    uint64_t until_ms = now_ms() + wait_ms;

    if (headers != NULL) {
        const char *block = format_text("NATS/1.0\r\n%s\r\n", headers);
        nats_write(nats, format_text("HPUB %s %s %zu %zu\r\n%s%s\r\n", subject, inbox, strlen(block),
                                     strlen(block) + strlen(payload), block, payload));
    } else {
        nats_write(nats, format_text("PUB %s %s %zu\r\n%s\r\n", subject, inbox, strlen(payload), payload));
    }
    return nats_receive(nats, inbox, until_ms, answer);
}

/* Why there is no answer. */
static const char *nats_trouble(const struct nats *nats)
{
    return nats->error != NULL ? nats->error : nats->has_ended ? "it has closed the connection" : "it is silent";
}

const char *nats_request(struct nats *nats, const char *subject, const char *headers, const char *payload)
{
    struct nats_message answer;
    bool is_answered = nats_ask(nats, subject, headers, payload, PATIENCE_MS, &answer);

    ck_assert_msg(is_answered, "%s: no answer of nats-server: %s", subject, nats_trouble(nats));
    ck_assert_msg(answer.status != NO_RESPONDERS, "%s: nobody listens", subject);
    return answer.payload;
}

/* While there is no leader nobody listens, or nobody answers. Then the request is sent again. */
bool nats_try_request(struct nats *nats, const char *subject, const char *payload, struct nats_message *answer)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    for (unsigned wait_ms = FIRST_WAIT_MS; now_ms() < end && !nats->has_ended; wait_ms *= 2) {
        if (nats_ask(nats, subject, NULL, payload, wait_ms, answer) && answer->status != NO_RESPONDERS)
            return true;
        pause_shortly();
    }
    return false;
}

/* --- JetStream ------------------------------------------------------------------------------------- */

static json_t *nats_parse(const char *subject, const char *text)
{
    json_t *json = json_loads(text, 0, NULL);

    ck_assert_msg(json != NULL, "%s: nats-server's answer is no JSON: %s", subject, text);
    return keep(json);
}

json_t *nats_request_json(struct nats *nats, const char *subject, const char *headers, const char *payload)
{
    const char *text = nats_request(nats, subject, headers, payload);
    json_t *json = nats_parse(subject, text);

    ck_assert_msg(json_object_get(json, "error") == NULL, "%s: %s", subject, text);
    return json;
}

static long long nats_error_member(const json_t *answer, const char *member)
{
    return json_integer_value(json_object_get(json_object_get(answer, "error"), member));
}

long long nats_error_code(const json_t *answer)
{
    return nats_error_member(answer, "err_code");
}

/* Only a question is sent again after it may have been heard: a second change has another answer than the first. */
static bool nats_is_question(const char *verb)
{
    static const char *const questions[] = {"STREAM.INFO", "STREAM.MSG.GET", "CONSUMER.NAMES", "CONSUMER.LIST"};

    for (size_t i = 0; i < sizeof(questions) / sizeof(questions[0]); i++) {
        if (strcmp(verb, questions[i]) == 0)
            return true;
    }
    return false;
}

static json_t *nats_call_api(struct nats *nats, const char *verb, const char *stream, const char *body)
{
    const char *subject = format_text("$JS.API.%s.%s", verb, stream), *last = "none";
    bool is_question = nats_is_question(verb);
    unsigned wait_ms = is_question ? FIRST_WAIT_MS : PATIENCE_MS;
    uint64_t end = now_ms() + PATIENCE_MS;
    struct nats_message message;

    for (; now_ms() < end && !nats->has_ended; pause_shortly()) {
        if (!nats_ask(nats, subject, NULL, body, wait_ms, &message)) {
            wait_ms *= 2;
            continue;
        }
        if (message.status == NO_RESPONDERS)
            continue; /* JetStream is not there yet, or has no leader */
        json_t *answer = nats_parse(subject, message.payload);
        bool is_not_known_yet = is_question && nats_error_code(answer) == STREAM_NOT_FOUND;
        if (nats_error_member(answer, "code") != TEMPORARILY_UNAVAILABLE && !is_not_known_yet)
            return answer;
        last = message.payload;
    }
    ck_abort_msg("%s: no answer of nats-server: %s; its last one: %s", subject, nats_trouble(nats), last);
    return NULL;
}

static char *nats_format_body(const char *payload, va_list args)
{
    char *body = NULL;

    ck_assert_int_ge(vasprintf(&body, payload, args), 0);
    for (char *c = body; *c != '\0'; c++) {
        if (*c == '\'')
            *c = '"';
    }
    return keep(body);
}

json_t *nats_try_api(struct nats *nats, const char *verb, const char *stream, const char *payload, ...)
{
    va_list args;

    va_start(args, payload);
    json_t *answer = nats_call_api(nats, verb, stream, nats_format_body(payload, args));
    va_end(args);
    return answer;
}

static bool nats_is_still_removing(const json_t *answer)
{
    const char *text = json_string_value(json_object_get(json_object_get(answer, "error"), "description"));

    return text != NULL && strcmp(text, "error creating store for stream") == 0;
}

json_t *nats_api(struct nats *nats, const char *verb, const char *stream, const char *payload, ...)
{
    va_list args;

    va_start(args, payload);
    const char *body = nats_format_body(payload, args);
    va_end(args);
    json_t *answer = nats_call_api(nats, verb, stream, body);
    uint64_t end = now_ms() + PATIENCE_MS;
    /* nats-server removes the files of a deleted stream after its answer. Meanwhile a new one may have no place. */
    while (nats_is_still_removing(answer) && now_ms() < end) {
        pause_shortly();
        answer = nats_call_api(nats, verb, stream, body);
    }
    ck_assert_msg(json_object_get(answer, "error") == NULL, "%s of %s: %s", verb, stream,
                  (char *)keep(json_dumps(answer, 0)));
    return answer;
}

uint64_t nats_consumer_count(struct nats *nats, const char *bucket)
{
    json_t *info = nats_api(nats, "STREAM.INFO", format_text("KV_%s", bucket), "{}");

    return (uint64_t)json_integer_value(json_object_get(json_object_get(info, "state"), "consumer_count"));
}

/* The put has an id, so that it may be sent again after a cluster has lost it with its leader. */
uint64_t nats_put(struct nats *nats, const char *bucket, const char *key, const char *value)
{
    static unsigned puts;
    const char *subject = format_text("$KV.%s.%s", bucket, key), *last = "none";
    const char *headers =
        format_text("Nats-Msg-Id: theirs-%d-%u\r\n", (int)getpid(), __atomic_add_fetch(&puts, 1, __ATOMIC_RELAXED));
    uint64_t end = now_ms() + PATIENCE_MS;
    unsigned wait_ms = 1000;
    struct nats_message message;

    for (; now_ms() < end && !nats->has_ended; pause_shortly()) {
        if (!nats_ask(nats, subject, headers, value, wait_ms, &message)) {
            wait_ms *= 2;
            continue;
        }
        if (message.status == NO_RESPONDERS)
            continue;
        json_t *ack = nats_parse(subject, message.payload);
        if (json_object_get(ack, "error") == NULL)
            return (uint64_t)json_integer_value(json_object_get(ack, "seq"));
        last = message.payload;
        ck_assert_msg(nats_error_member(ack, "code") == TEMPORARILY_UNAVAILABLE, "%s: %s", subject, last);
    }
    ck_abort_msg("%s: no ack of nats-server: %s; its last answer: %s", subject, nats_trouble(nats), last);
    return 0;
}

bool nats_has_revision(struct nats *nats, const char *bucket, uint64_t revision)
{
    struct nats_message message;

    return nats_try_request(nats, format_text("$JS.API.DIRECT.GET.KV_%s", bucket),
                            format_text("{\"seq\":%llu}", (unsigned long long)revision), &message) &&
           message.status == 0;
}

/* --- Subscriptions --------------------------------------------------------------------------------- */

void nats_subscribe(struct nats *nats, const char *subject)
{
    nats_write(nats, format_text("SUB %s %d\r\n", subject, SUBSCRIPTION_SID));
    ck_assert_msg(nats_wait_pong(nats, now_ms() + PATIENCE_MS), "SUB %s: %s", subject, nats_trouble(nats));
}

const char *nats_next(struct nats *nats)
{
    ck_assert_msg(nats_receive(nats, NULL, now_ms() + PATIENCE_MS, &nats->last), "no message of nats-server: %s",
                  nats_trouble(nats));
    return nats->last.payload;
}

void nats_reply(struct nats *nats, const char *payload)
{
    ck_assert_str_ne(nats->last.reply, "");
    nats_write(nats, format_text("PUB %s %zu\r\n%s\r\n", nats->last.reply, strlen(payload), payload));
}
