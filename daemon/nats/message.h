/*
 * message: one message that NATS has delivered.
 *
 * Created by wire, and by jetstream for messages that arrive in JSON; read by the rest of nats and by the store. All
 * strings live as long as the message.
 */
#ifndef DAEMON_NATS_MESSAGE_H
#define DAEMON_NATS_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct message_header {
    const char *name;
    const char *value;
};

struct message {
    const char *subject;
    const char *reply; /* NULL: none */
    const char *payload;
    size_t payload_bytes;
    struct message_header *headers;
    size_t header_count;
    size_t header_bytes;              /* of the block that the headers are in */
    const char *status, *status_text; /* NULL: none */
};

/* Return the first value of a header, or NULL. Names are case-sensitive, as the server writes them. */
const char *message_header(const struct message *message, const char *name);

/*
 * Return the last value of a header, or NULL. The server appends its own headers after the client's headers
 * under the same name.
 */
const char *message_last_header(const struct message *message, const char *name);

/*
 * Return the status of a message that the server sends instead of a stored one: 100 control, 204 end, 404 not found,
 * …; 0: it has none. The status is on the line of the headers' version (ADR-4), so no header of a client can look like
 * it.
 */
unsigned message_status(const struct message *message);

/* Return the text after the status, such as "EOB"; "": none. */
const char *message_status_text(const struct message *message);

/* Call visit for the first value of each header, until it returns false. */
void message_each_header(const struct message *message, bool (*visit)(void *arg, const char *name, const char *value),
                         void *arg);

/*
 * The headers of one message that are kept; those after them are dropped. JetStream stores header blocks of at most
 * 64 KiB, and the shortest line has four bytes, so no stored message has more. The rest is for the server's own
 * headers.
 */
#define MESSAGE_HEADERS_MAX (16u * 1024u + 64u)

/*
 * Split the header line at *at ("Name: value\r\n", ADR-4) in place, into a name and a value without blanks around it,
 * and move *at to the next line. Return false at the end. Lines that begin with a blank continue the value of the line
 * before them (RFC 5322, 2.2.3). Lines without a name or a colon are skipped: other programs may have stored some.
 */
bool message_next_header(char **at, char *end, struct message_header *header);

/*
 * Parse a header block ("NATS/1.0\r\nName: value\r\n…\r\n\r\n", ADR-4) in place: text is changed, and headers point
 * into it. Return the number of headers, at most max.
 */
size_t message_parse_headers(char *text, size_t length, struct message_header *headers, size_t max);

#endif
