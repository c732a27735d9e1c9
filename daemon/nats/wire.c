#include "daemon/nats/wire.h"

#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The initial size of both buffers, to which they shrink after a large message. */
#define BUFFER_BYTES (128u * 1024u)

/* The longest line of the protocol. Most have two subjects and some numbers; INFO lists all servers of a cluster. */
#define LINE_BYTES_MAX (1024u * 1024u)

/* nats-server's max_payload is at most 64 MB. A larger size is an error. */
#define MESSAGE_BYTES_MAX (128u * 1024u * 1024u)

/* While more than this is unsent, not even a PING is answered. */
#define PONG_ROOM_BYTES (8u * 1024u * 1024u)

/* Maximum number of bytes for one call of wire_read or wire_write, which leaves time for the sessions. */
#define TURN_BYTES (1024u * 1024u)

#define VERSION_LINE "NATS/1.0"

/* --- Life ------------------------------------------------------------------------------------------ */

bool wire_open(struct wire *wire, int socket, SSL *tls, size_t max_payload_bytes, const struct wire_events *events)
{
    memset(wire, 0, sizeof(*wire));
    wire->in = malloc(BUFFER_BYTES);
    wire->out = malloc(BUFFER_BYTES);
    if (wire->in == NULL || wire->out == NULL) {
        free(wire->in);
        free(wire->out);
        memset(wire, 0, sizeof(*wire));
        return false;
    }
    wire->in_capacity = wire->out_capacity = BUFFER_BYTES;
    wire->socket = socket;
    wire->tls = tls;
    wire->max_payload_bytes = max_payload_bytes;
    wire->events = *events;
    wire->is_open = true;
    return true;
}

static void free_buffers(struct wire *wire)
{
    free(wire->in);
    free(wire->out);
    free(wire->headers);
    memset(wire, 0, sizeof(*wire));
}

void wire_finish_writing(struct wire *wire)
{
    /* In the middle of a record, or after an error, the server could not decrypt it. */
    if (wire->tls == NULL || wire->lost[0] != '\0' || wire_unwritten_bytes(wire) > 0)
        return;
    SSL_shutdown(wire->tls);
    tls_flush(wire->tls);
    ERR_clear_error();
}

void wire_close(struct wire *wire)
{
    if (!wire->is_open)
        return;
    wire->is_open = false;
    SSL_free(wire->tls);
    wire->tls = NULL;
    close(wire->socket);
    /* If a message is being delivered, its memory is in the buffer: wire_read frees that afterwards. */
    if (!wire->is_reading)
        free_buffers(wire);
}

/* --- Writing --------------------------------------------------------------------------------------- */

/* Return room for this many bytes at the end of the buffer; NULL: memory ran out. */
static char *reserve_output(struct wire *wire, size_t bytes)
{
    if (wire->out_start == wire->out_length)
        wire->out_start = wire->out_length = 0;
    if (wire->out_length + bytes > wire->out_capacity && wire->out_start > 0) {
        memmove(wire->out, wire->out + wire->out_start, wire->out_length - wire->out_start);
        wire->out_length -= wire->out_start;
        wire->out_start = 0;
    }
    if (wire->out_length + bytes > wire->out_capacity) {
        size_t capacity = wire->out_capacity;
        while (capacity < wire->out_length + bytes)
            capacity *= 2;
        char *grown = realloc(wire->out, capacity);
        if (grown == NULL)
            return NULL;
        wire->out = grown;
        wire->out_capacity = capacity;
    }
    return wire->out + wire->out_length;
}

static char *put_bytes(char *at, const char *bytes, size_t length)
{
    if (length > 0)
        memcpy(at, bytes, length);
    return at + length;
}

static char *put_number(char *at, size_t number)
{
    char digits[20];
    size_t count = 0;

    do
        digits[count++] = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    while (count > 0)
        *at++ = digits[--count];
    return at;
}

#define PUT_LITERAL(at, literal) put_bytes((at), (literal), sizeof(literal) - 1)

static size_t header_bytes(const struct message_header *headers, size_t count)
{
    size_t bytes = count > 0 ? sizeof(VERSION_LINE "\r\n\r\n") - 1 : 0;

    for (size_t i = 0; i < count; i++)
        bytes += strlen(headers[i].name) + strlen(headers[i].value) + 4; /* ": " and "\r\n" */
    return bytes;
}

bool wire_subscribe(struct wire *wire, const char *subject, unsigned sid)
{
    size_t length = strlen(subject);
    char *at = reserve_output(wire, length + 32);

    if (at == NULL)
        return false;
    at = PUT_LITERAL(at, "SUB ");
    at = put_bytes(at, subject, length);
    *at++ = ' ';
    at = put_number(at, sid);
    at = PUT_LITERAL(at, "\r\n");
    wire->out_length = (size_t)(at - wire->out);
    return true;
}

enum wire_result wire_publish(struct wire *wire, const char *subject, const char *reply,
                              const struct message_header *headers, size_t header_count, const void *payload,
                              size_t payload_bytes)
{
    size_t subject_length = strlen(subject), reply_length = reply != NULL ? strlen(reply) : 0;
    size_t headers_length = header_bytes(headers, header_count);
    size_t total = headers_length + payload_bytes;

    if (total > wire->max_payload_bytes)
        return WIRE_TOO_LARGE;
    char *at = reserve_output(wire, subject_length + reply_length + total + 64);
    if (at == NULL)
        return WIRE_NO_MEMORY;

    at = header_count > 0 ? PUT_LITERAL(at, "HPUB ") : PUT_LITERAL(at, "PUB ");
    at = put_bytes(at, subject, subject_length);
    *at++ = ' ';
    if (reply_length > 0) {
        at = put_bytes(at, reply, reply_length);
        *at++ = ' ';
    }
    if (header_count > 0) {
        at = put_number(at, headers_length);
        *at++ = ' ';
    }
    at = put_number(at, total);
    at = PUT_LITERAL(at, "\r\n");
    if (header_count > 0)
        at = PUT_LITERAL(at, VERSION_LINE "\r\n");
    for (size_t i = 0; i < header_count; i++) {
        at = put_bytes(at, headers[i].name, strlen(headers[i].name));
        at = PUT_LITERAL(at, ": ");
        at = put_bytes(at, headers[i].value, strlen(headers[i].value));
        at = PUT_LITERAL(at, "\r\n");
    }
    if (header_count > 0)
        at = PUT_LITERAL(at, "\r\n");
    at = put_bytes(at, payload, payload_bytes);
    at = PUT_LITERAL(at, "\r\n");
    wire->out_length = (size_t)(at - wire->out);
    return WIRE_DONE;
}

static bool note_loss(struct wire *wire, const char *why)
{
    snprintf(wire->lost, sizeof(wire->lost), "%s", why);
    return false;
}

/* The result of one attempt to send or receive bytes. */
enum moved { MOVED, WOULD_BLOCK, INTERRUPTED, LOST };

/* Translate the errno of send or recv. */
static enum moved result_of_errno(struct wire *wire)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
        return WOULD_BLOCK;
    note_loss(wire, strerror(errno));
    return LOST;
}

static enum moved note_tls_loss(struct wire *wire)
{
    char text[sizeof(wire->lost)];

    tls_describe_failure(text, sizeof(text));
    note_loss(wire, text);
    return LOST;
}

static enum moved result_of_tls(struct wire *wire, enum tls_result result)
{
    if (result == TLS_DONE || result == TLS_CLOSED)
        return MOVED;
    if (result == TLS_WAIT_TO_READ || result == TLS_WAIT_TO_WRITE)
        return WOULD_BLOCK;
    if (result == TLS_INTERRUPTED)
        return INTERRUPTED;
    return note_tls_loss(wire);
}

static enum moved write_tls(struct wire *wire, const char *bytes, size_t size, size_t *sent)
{
    enum tls_result result = tls_write(wire->tls, bytes, size, sent);

    wire->write_waits_to_read = result == TLS_WAIT_TO_READ;
    return result_of_tls(wire, result);
}

static enum moved write_once(struct wire *wire, size_t *sent)
{
    const char *bytes = wire->out + wire->out_start;
    size_t size = wire->out_length - wire->out_start;

    if (wire->tls != NULL)
        return write_tls(wire, bytes, size, sent);
    ssize_t count = send(wire->socket, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0)
        return result_of_errno(wire);
    *sent = (size_t)count;
    return MOVED;
}

static void shrink_out(struct wire *wire)
{
    char *smaller = wire->out_capacity > BUFFER_BYTES ? realloc(wire->out, BUFFER_BYTES) : NULL;

    if (smaller == NULL)
        return;
    wire->out = smaller;
    wire->out_capacity = BUFFER_BYTES;
}

bool wire_write(struct wire *wire)
{
    enum moved moved = MOVED;
    size_t total = 0, sent;

    while (wire->out_start < wire->out_length && total < TURN_BYTES && (moved = write_once(wire, &sent)) == MOVED) {
        wire->out_start += sent;
        total += sent;
    }
    if (moved != LOST && wire->tls != NULL)
        moved = result_of_tls(wire, tls_flush(wire->tls));
    if (wire->out_start == wire->out_length) {
        wire->out_start = wire->out_length = 0;
        shrink_out(wire);
    }
    return moved != LOST;
}

/* --- Reading: messages ----------------------------------------------------------------------------- */

static bool add_header(struct wire *wire, struct message *message, struct message_header header)
{
    if (message->header_count == MESSAGE_HEADERS_MAX)
        return true;
    if (message->header_count == wire->header_capacity) {
        size_t capacity = wire->header_capacity > 0 ? wire->header_capacity * 2 : 16;
        struct message_header *grown = realloc(wire->headers, capacity * sizeof(*grown));
        if (grown == NULL)
            return false;
        wire->headers = grown;
        wire->header_capacity = capacity;
    }
    message->headers = wire->headers;
    message->headers[message->header_count++] = header;
    return true;
}

/* Parse the rest of the version's line: "503", or "404 Message Not Found". */
static void parse_status(struct message *message, char *at, char *line_end)
{
    while (at < line_end && *at == ' ')
        at++;
    if (at == line_end)
        return;
    *line_end = '\0';
    char *text = strchr(at, ' ');
    if (text != NULL)
        *text++ = '\0';
    message->status = at;
    message->status_text = text;
}

/*
 * Parse a block of headers. False: out of memory. The server stores and delivers any bytes that a client has sent as
 * headers, so what is malformed is skipped: the message still has to be delivered.
 */
static bool parse_headers(struct wire *wire, struct message *message, char *at, size_t length)
{
    char *end = at + length, *line_end = memchr(at, '\n', length);
    size_t version = sizeof(VERSION_LINE) - 1;
    struct message_header header;

    if (line_end == NULL)
        return true;
    if ((size_t)(line_end - at) > version && memcmp(at, VERSION_LINE, version) == 0 && line_end[-1] == '\r')
        parse_status(message, at + version, line_end - 1);
    at = line_end + 1;
    while (message_next_header(&at, end, &header)) {
        if (!add_header(wire, message, header))
            return false;
    }
    return true;
}

/* The arguments of "MSG subject sid [reply] bytes" or "HMSG subject sid [reply] header-bytes bytes". */
struct message_line {
    char *subject, *reply; /* without a NUL */
    size_t subject_length, reply_length;
    size_t header_bytes, total_bytes;
};

static bool wire_parse_number(const char *at, const char *end, size_t *number)
{
    *number = 0;
    if (at == end || end - at > 9)
        return false;
    for (; at < end; at++) {
        if (*at < '0' || *at > '9')
            return false;
        *number = *number * 10 + (size_t)(*at - '0');
    }
    return true;
}

static bool parse_message_line(char *at, char *end, bool has_headers, struct message_line *line)
{
    char *tokens[6], *ends[6];
    unsigned count = 0, least = has_headers ? 4 : 3;

    while (at < end && count < 6) {
        char *space = memchr(at, ' ', (size_t)(end - at));
        tokens[count] = at;
        ends[count++] = space != NULL ? space : end;
        at = space != NULL ? space + 1 : end;
    }
    if (count < least || count > least + 1)
        return false;
    line->subject = tokens[0];
    line->subject_length = (size_t)(ends[0] - tokens[0]);
    line->reply = count > least ? tokens[2] : NULL;
    line->reply_length = count > least ? (size_t)(ends[2] - tokens[2]) : 0;
    line->header_bytes = 0;
    return wire_parse_number(tokens[count - 1], ends[count - 1], &line->total_bytes) &&
           (!has_headers || wire_parse_number(tokens[count - 2], ends[count - 2], &line->header_bytes)) &&
           line->header_bytes <= line->total_bytes && line->total_bytes <= MESSAGE_BYTES_MAX;
}

enum parsed { PARSED, INCOMPLETE, MALFORMED };

/* Parse a message, whose arguments are from at to line_end (without "\r\n"), and deliver it. */
static enum parsed parse_message(struct wire *wire, char *at, char *line_end, bool has_headers)
{
    struct message message = {0};
    struct message_line line;
    char *body = line_end + 2, *first = wire->in + wire->in_start;

    if (!parse_message_line(at, line_end, has_headers, &line))
        return MALFORMED;
    size_t whole = (size_t)(body - first) + line.total_bytes + 2;
    if (wire->in_length - wire->in_start < whole) {
        wire->in_wanted = whole;
        return INCOMPLETE;
    }

    /* The message is complete: now NULs may be written into it. */
    line.subject[line.subject_length] = '\0';
    if (line.reply != NULL)
        line.reply[line.reply_length] = '\0';
    if (has_headers && !parse_headers(wire, &message, body, line.header_bytes))
        return MALFORMED;
    message.subject = line.subject;
    message.reply = line.reply;
    message.header_bytes = line.header_bytes;
    message.payload = body + line.header_bytes;
    message.payload_bytes = line.total_bytes - line.header_bytes;
    body[line.total_bytes] = '\0';
    wire->in_start += whole;
    wire->in_wanted = 0;
    wire->server_error[0] = '\0';
    wire->events.message(wire->events.arg, &message);
    return PARSED;
}

/* --- Reading: the rest ------------------------------------------------------------------------------- */

/* "-ERR 'text'". After most errors the server closes the connection, but not after a denied permission. */
static void on_error_line(struct wire *wire, char *at, char *line_end)
{
    while (at < line_end && (*at == ' ' || *at == '\''))
        at++;
    while (line_end > at && line_end[-1] == '\'')
        line_end--;
    *line_end = '\0'; /* within the line, or its "\r" */
    snprintf(wire->server_error, sizeof(wire->server_error), "%s", at);
    wire->events.server_error(wire->events.arg, at);
}

static bool starts_with(const char *at, const char *line_end, const char *word)
{
    size_t length = strlen(word);

    return (size_t)(line_end - at) >= length && memcmp(at, word, length) == 0;
}

/* A server that reads nothing may send PINGs without end: do not buffer an answer to each. */
static bool answer_ping(struct wire *wire)
{
    if (wire_unwritten_bytes(wire) > PONG_ROOM_BYTES)
        return true;
    char *pong = reserve_output(wire, 6);
    if (pong == NULL)
        return false;
    PUT_LITERAL(pong, "PONG\r\n");
    wire->out_length += 6;
    return true;
}

/* Parse and handle the first operation in the buffer. */
static enum parsed parse_operation(struct wire *wire)
{
    char *at = wire->in + wire->in_start;
    size_t there = wire->in_length - wire->in_start;

    if (there == 0 || there < wire->in_wanted)
        return INCOMPLETE;
    char *line_end = memchr(at + wire->in_searched, '\n', there - wire->in_searched);
    if (line_end == NULL) {
        wire->in_searched = there;
        return there < LINE_BYTES_MAX ? INCOMPLETE : MALFORMED;
    }
    wire->in_searched = 0;
    if (line_end == at || line_end[-1] != '\r')
        return MALFORMED;
    line_end--;
    if (starts_with(at, line_end, "MSG "))
        return parse_message(wire, at + 4, line_end, false);
    if (starts_with(at, line_end, "HMSG "))
        return parse_message(wire, at + 5, line_end, true);

    wire->in_start += (size_t)(line_end + 2 - at);
    if (starts_with(at, line_end, "PING")) {
        if (!answer_ping(wire))
            return MALFORMED;
    } else if (starts_with(at, line_end, "-ERR")) {
        on_error_line(wire, at + 4, line_end);
    } else if (!starts_with(at, line_end, "INFO ") && !starts_with(at, line_end, "PONG") &&
               !starts_with(at, line_end, "+OK")) {
        return MALFORMED;
    }
    return PARSED;
}

/* Make room in the buffer for the rest of the first operation. Return false if memory ran out. */
static bool grow_input(struct wire *wire)
{
    size_t there = wire->in_length - wire->in_start;
    size_t wanted = wire->in_wanted > there ? wire->in_wanted : there + 1;

    if (there > 0 && wire->in_start > 0)
        memmove(wire->in, wire->in + wire->in_start, there);
    wire->in_start = 0;
    wire->in_length = there;
    size_t capacity = wire->in_capacity;
    while (capacity < wanted)
        capacity *= 2;
    if (there == 0)
        capacity = BUFFER_BYTES;
    if (capacity == wire->in_capacity)
        return true;
    char *moved = realloc(wire->in, capacity);
    if (moved == NULL)
        return false;
    wire->in = moved;
    wire->in_capacity = capacity;
    return true;
}

static enum moved read_tls(struct wire *wire, char *buffer, size_t room, size_t *received)
{
    enum tls_result result = tls_read(wire->tls, buffer, room, received);

    wire->read_waits_to_write = result == TLS_WAIT_TO_WRITE;
    return result_of_tls(wire, result);
}

/* Receive what there is, as far as it fits. *received is 0 if the server has closed the connection. */
static enum moved read_bytes(struct wire *wire, char *buffer, size_t room, size_t *received)
{
    if (wire->tls != NULL)
        return read_tls(wire, buffer, room, received);
    ssize_t count = recv(wire->socket, buffer, room, MSG_DONTWAIT);
    if (count < 0)
        return result_of_errno(wire);
    *received = (size_t)count;
    return MOVED;
}

/* *is_drained: the socket has no more bytes now. (A read that did not fill the buffer got all; TLS reads records.) */
static bool read_once(struct wire *wire, bool *is_drained)
{
    size_t received = 0;

    if (!grow_input(wire))
        return note_loss(wire, "out of memory");
    size_t room = wire->in_capacity - wire->in_length;
    enum moved moved = read_bytes(wire, wire->in + wire->in_length, room, &received);
    *is_drained = moved == WOULD_BLOCK || (wire->tls == NULL && received < room);
    if (moved != MOVED)
        return moved != LOST;
    if (received == 0)
        return note_loss(wire, wire->server_error[0] != '\0' ? wire->server_error : "closed by the server");
    wire->in_length += received;
    wire->read_bytes += received;
    return true;
}

/* Handle the complete operations in the buffer, until the reader has no more time. */
static bool parse_buffer(struct wire *wire)
{
    enum parsed parsed;

    do {
        parsed = parse_operation(wire);
        if (parsed == PARSED && wire->is_open && wire->events.is_enough(wire->events.arg)) {
            wire->has_more = true;
            return true;
        }
    } while (parsed == PARSED && wire->is_open);
    return parsed != MALFORMED || note_loss(wire, "the server sent bytes that are not the NATS protocol");
}

bool wire_read(struct wire *wire)
{
    bool is_well = true, is_drained = false, is_enough = false;

    assert(wire->is_open && !wire->is_reading);
    wire->is_reading = true;
    wire->has_more = false;
    wire->read_bytes = 0;
    if (wire->tls != NULL)
        tls_begin_reading(wire->tls);
    is_well = parse_buffer(wire); /* of an earlier call */
    while (is_well && wire->is_open && !wire->has_more && !is_drained && wire->read_bytes < TURN_BYTES && !is_enough) {
        is_well = read_once(wire, &is_drained) && parse_buffer(wire);
        /* Check this not only after messages: a server may send records with one byte, or none. */
        is_enough = wire->events.is_enough(wire->events.arg);
    }
    wire->is_reading = false;
    if (!wire->is_open) {
        free_buffers(wire);
        return true;
    }
    /* Bytes that the TLS session has buffered do not make the socket readable. */
    if (is_well && wire->tls != NULL && !is_drained)
        wire->has_more = true;
    return is_well;
}
