/*
 * message: one message that NATS delivered.
 *
 * Made by the wire of what it reads, and by the JetStream API of messages that come wrapped in JSON; read by everybody
 * in nats/. All strings live as long as the message does.
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
    const char *reply; /* NULL where there is none */
    const char *payload;
    size_t payload_bytes;
    struct message_header *headers;
    size_t header_count;
    const char *status, *status_text; /* NULL: it has none */
};

/* The first value of a header, or NULL. Names are case-sensitive, as the server writes them. */
const char *message_header(const struct message *message, const char *name);

/*
 * The last value of a header, or NULL: what the server has added stands behind what a client has sent under the same
 * name.
 */
const char *message_last_header(const struct message *message, const char *name);

/*
 * What the server says with a message that is none: 100 control, 204 end, 404 not there, …; 0: it is one. It stands on
 * the line of the headers' version (ADR-4), so it is no header, and one that a client has named so does not count.
 */
unsigned message_status(const struct message *message);

/* The text behind the status, such as "EOB"; "" without one. */
const char *message_status_text(const struct message *message);

/* Calls visit for the first value of each header, until it returns false. */
void message_each_header(const struct message *message, bool (*visit)(void *arg, const char *name, const char *value),
                         void *arg);

/*
 * Headers of one message that are kept; those after them are dropped. JetStream stores no header block over 64 KiB, so
 * no stored message has more: the shortest line has four bytes. The rest is for the server's own headers.
 */
#define MESSAGE_HEADERS_MAX (16u * 1024u + 64u)

/*
 * Splits the header line at *at ("Name: value\r\n", ADR-4) in place, into a name and a value without blanks around it,
 * and moves *at to the next line. False at end. Lines that begin with a blank continue the value of the line before
 * them (RFC 5322, 2.2.3). Lines without a name or a colon are skipped: other programs may have stored some.
 */
bool message_next_header(char **at, char *end, struct message_header *header);

/*
 * Parses a header block ("NATS/1.0\r\nName: value\r\n…\r\n\r\n", ADR-4) in place: text is changed, and headers
 * point into it. Returns the number of headers, at most max.
 */
size_t message_parse_headers(char *text, size_t length, struct message_header *headers, size_t max);

#endif
