#include "daemon/nats/message.h"

#include <nats/nats.h>
#include <stdlib.h>
#include <string.h>

const char *message_header(struct message *message, const char *name)
{
    const char *value = NULL;

    if (message->native != NULL)
        return natsMsgHeader_Get(message->native, name, &value) == NATS_OK ? value : NULL;
    for (size_t i = 0; i < message->header_count; i++) {
        if (strcmp(message->headers[i].name, name) == 0)
            return message->headers[i].value;
    }
    return NULL;
}

const char *message_last_header(struct message *message, const char *name)
{
    const char **values = NULL, *value = NULL;
    int count = 0;

    if (message->native != NULL) {
        if (natsMsgHeader_Values(message->native, name, &values, &count) == NATS_OK && count > 0)
            value = values[count - 1];
        free((void *)values);
        return value;
    }
    for (size_t i = message->header_count; i > 0 && value == NULL; i--) {
        if (strcmp(message->headers[i - 1].name, name) == 0)
            value = message->headers[i - 1].value;
    }
    return value;
}

unsigned message_status(struct message *message)
{
    const char *status = message->status;

    /* The library makes headers of them, so of what it has read only this is certain: what was stored is no status. */
    if (message->native != NULL && message_header(message, "Nats-Stream") == NULL)
        status = message_header(message, "Status");
    return status != NULL ? (unsigned)strtoul(status, NULL, 10) : 0;
}

const char *message_status_text(struct message *message)
{
    const char *text = message->native != NULL ? message_header(message, "Description") : message->status_text;

    return text != NULL ? text : "";
}

/* Whether an earlier header has the same name. */
static bool is_repeated(const struct message *message, size_t place)
{
    for (size_t i = 0; i < place; i++) {
        if (strcmp(message->headers[i].name, message->headers[place].name) == 0)
            return true;
    }
    return false;
}

bool message_each_header(struct message *message, bool (*visit)(void *arg, const char *name, const char *value),
                         void *arg)
{
    const char **names = NULL;
    int count = 0;

    if (message->native == NULL) {
        for (size_t i = 0; i < message->header_count; i++) {
            if (!is_repeated(message, i) && !visit(arg, message->headers[i].name, message->headers[i].value))
                break;
        }
        return true;
    }
    natsStatus status = natsMsgHeader_Keys(message->native, &names, &count);
    if (status == NATS_NOT_FOUND)
        return true;
    if (status != NATS_OK)
        return false;
    for (int i = 0; i < count; i++) {
        const char *value = "";
        natsMsgHeader_Get(message->native, names[i], &value);
        if (!visit(arg, names[i], value))
            break;
    }
    free((void *)names);
    return true;
}

size_t message_parse_headers(char *text, size_t length, struct message_header *headers, size_t max)
{
    char *end = text + length, *at = memchr(text, '\n', length); /* behind the version line */
    size_t count = 0;

    if (at++ == NULL)
        return 0;
    while (count < max && message_next_header(&at, end, &headers[count]))
        count++;
    return count;
}
