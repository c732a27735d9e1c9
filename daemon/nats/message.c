#include "daemon/nats/message.h"

#include "daemon/base/hash.h"

#include <stdlib.h>
#include <string.h>

/* With more headers, a hash table finds repeated names. With fewer, comparing all of them is quicker. */
#define FEW_HEADERS 16u

const char *message_header(const struct message *message, const char *name)
{
    for (size_t i = 0; i < message->header_count; i++) {
        if (strcmp(message->headers[i].name, name) == 0)
            return message->headers[i].value;
    }
    return NULL;
}

const char *message_last_header(const struct message *message, const char *name)
{
    for (size_t i = message->header_count; i > 0; i--) {
        if (strcmp(message->headers[i - 1].name, name) == 0)
            return message->headers[i - 1].value;
    }
    return NULL;
}

unsigned message_status(const struct message *message)
{
    return message->status != NULL ? (unsigned)strtoul(message->status, NULL, 10) : 0;
}

const char *message_status_text(const struct message *message)
{
    return message->status_text != NULL ? message->status_text : "";
}

/* --- Each header once ------------------------------------------------------------------------------ */

/* The names so far: a hash table with linear probing. Its values are indexes of the message's headers, plus one. */
struct seen_names {
    const struct message_header *headers;
    uint32_t *places; /* NULL: there are few headers, or memory ran out */
    size_t mask;
};

static void begin_seen(struct seen_names *seen, const struct message *message)
{
    size_t size = 4 * FEW_HEADERS;

    while (size < 2 * message->header_count)
        size *= 2;
    seen->headers = message->headers;
    seen->mask = size - 1;
    seen->places = message->header_count > FEW_HEADERS ? calloc(size, sizeof(*seen->places)) : NULL;
}

static bool compare_with_all(const struct seen_names *seen, size_t place)
{
    for (size_t i = 0; i < place; i++) {
        if (strcmp(seen->headers[i].name, seen->headers[place].name) == 0)
            return true;
    }
    return false;
}

/* Return whether an earlier header has the same name as the one at this index. */
static bool is_repeated(struct seen_names *seen, size_t place)
{
    const char *name = seen->headers[place].name;

    if (seen->places == NULL)
        return compare_with_all(seen, place);
    for (size_t i = hash_bytes(name, strlen(name)) & seen->mask;; i = (i + 1) & seen->mask) {
        if (seen->places[i] == 0) {
            seen->places[i] = (uint32_t)place + 1;
            return false;
        }
        if (strcmp(seen->headers[seen->places[i] - 1].name, name) == 0)
            return true;
    }
}

void message_each_header(const struct message *message, bool (*visit)(void *arg, const char *name, const char *value),
                         void *arg)
{
    struct seen_names seen;

    begin_seen(&seen, message);
    for (size_t i = 0; i < message->header_count; i++) {
        const struct message_header *header = &message->headers[i];
        if (!is_repeated(&seen, i) && !visit(arg, header->name, header->value))
            break;
    }
    free(seen.places);
}

/* --- Parsing --------------------------------------------------------------------------------------- */

static bool is_blank(char byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
}

/* Return the "\n" at the end of the line, including the lines that continue it. NULL: there is none. */
static char *find_line_end(char *at, char *end)
{
    char *line_end = memchr(at, '\n', (size_t)(end - at));

    while (line_end != NULL && line_end + 1 < end && (line_end[1] == ' ' || line_end[1] == '\t')) {
        char *next = memchr(line_end + 1, '\n', (size_t)(end - line_end - 1));
        if (next == NULL)
            break;
        if (line_end > at && line_end[-1] == '\r')
            line_end[-1] = ' ';
        *line_end = ' ';
        line_end = next;
    }
    return line_end;
}

bool message_next_header(char **at, char *end, struct message_header *header)
{
    char *line, *line_end, *colon;

    do {
        line = *at;
        line_end = find_line_end(line, end);
        if (line_end == NULL)
            return false;
        *at = line_end + 1;
        colon = memchr(line, ':', (size_t)(line_end - line));
    } while (colon == NULL || colon == line);
    char *value = colon + 1, *value_end = line_end;
    while (value < value_end && is_blank(*value))
        value++;
    while (value_end > value && is_blank(value_end[-1]))
        value_end--;
    *colon = '\0';
    *value_end = '\0'; /* at the line's end at the latest */
    *header = (struct message_header){line, value};
    return true;
}

size_t message_parse_headers(char *text, size_t length, struct message_header *headers, size_t max)
{
    char *end = text + length, *at = memchr(text, '\n', length); /* of the version's line */
    size_t count = 0;

    if (at++ == NULL)
        return 0;
    while (count < max && message_next_header(&at, end, &headers[count]))
        count++;
    return count;
}
