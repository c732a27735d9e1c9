/*
 * message: one message that NATS delivered.
 *
 * Made by the wire from what it reads, by the link from the library's messages, and by the JetStream API
 * from messages that come wrapped in JSON; read by everybody in nats/. All strings live
 * as long as the message does.
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
    void *native;                   /* the library's message, or NULL: then the headers are below */
    struct message_header *headers; /* of a message without a native one */
    size_t header_count;
    const char *status, *status_text; /* of a message without a native one; NULL: it has none */
};

/* The first value of a header, or NULL. Names are compared with their case, as the server writes them. */
const char *message_header(struct message *message, const char *name);

/*
 * The last value of a header, or NULL: what the server has added stands behind what a client has sent under the same
 * name.
 */
const char *message_last_header(struct message *message, const char *name);

/*
 * What the server says with a message that is none: 100 control, 204 end, 404 not there, …; 0: it is one. It stands on
 * the line of the headers' version (ADR-4), so it is no header, and one that a client has named so does not count.
 */
unsigned message_status(struct message *message);

/* The text behind the status, such as "EOB"; "" without one. */
const char *message_status_text(struct message *message);

/*
 * Calls visit for the first value of each header, until it answers false.
 * False when memory ran out.
 */
bool message_each_header(struct message *message, bool (*visit)(void *arg, const char *name, const char *value),
                         void *arg);

/*
 * Parts the header line at *at ("Name: value\r\n", ADR-4) in place, into a name and a value without blanks around it,
 * and moves *at behind it. False at end. Lines without a colon are skipped: other programs may have stored some, and
 * the server's own headers come after them.
 */
static inline bool message_next_header(char **at, char *end, struct message_header *header)
{
    char *line, *line_end, *colon;

    do {
        line = *at;
        line_end = memchr(line, '\n', (size_t)(end - line));
        if (line_end == NULL)
            return false;
        *at = line_end + 1;
        colon = memchr(line, ':', (size_t)(line_end - line));
    } while (colon == NULL);
    char *value = colon + 1, *value_end = line_end;
    while (value < value_end && (*value == ' ' || *value == '\t'))
        value++;
    while (value_end > value && (value_end[-1] == '\r' || value_end[-1] == ' ' || value_end[-1] == '\t'))
        value_end--;
    *colon = '\0';
    *value_end = '\0'; /* at most the line's own end */
    *header = (struct message_header){line, value};
    return true;
}

/*
 * Parses a header block as it goes over the wire ("NATS/1.0\r\nName: value\r\n…\r\n\r\n",
 * ADR-4) in place: text is changed, headers point into it. Answers the number of
 * headers, at most max; those beyond are left out.
 */
size_t message_parse_headers(char *text, size_t length, struct message_header *headers, size_t max);

#endif
