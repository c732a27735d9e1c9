#include "tests/sim/packet.h"

#include "tests/sim/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct packet *packet_new(const char *subject, const char *reply, const void *payload, size_t payload_bytes)
{
    struct packet *packet = memory_new(sizeof(*packet));

    packet->subject = memory_need(strdup(subject));
    packet->reply = reply != NULL ? memory_need(strdup(reply)) : NULL;
    packet->payload = memory_need(malloc(payload_bytes + 1));
    if (payload_bytes > 0)
        memcpy(packet->payload, payload, payload_bytes);
    packet->payload[payload_bytes] = '\0';
    packet->payload_bytes = payload_bytes;
    return packet;
}

struct packet *packet_copy(const struct packet *packet)
{
    struct packet *copy = packet_new(packet->subject, packet->reply, packet->payload, packet->payload_bytes);

    copy->status = packet->status;
    copy->status_text = packet->status_text;
    for (size_t i = 0; i < packet->header_count; i++)
        packet_add_header(copy, packet->headers[i].name, "%s", packet->headers[i].value);
    return copy;
}

void packet_free(struct packet *packet)
{
    for (size_t i = 0; i < packet->header_count; i++) {
        free((char *)packet->headers[i].name);
        free((char *)packet->headers[i].value);
    }
    free(packet->headers);
    free(packet->subject);
    free(packet->reply);
    free(packet->payload);
    free(packet);
}

void packet_add_header(struct packet *packet, const char *name, const char *format, ...)
{
    char *value;
    va_list args;

    va_start(args, format);
    if (vasprintf(&value, format, args) < 0)
        abort();
    va_end(args);
    packet->headers = memory_grow(packet->headers, packet->header_count, sizeof(*packet->headers));
    packet->headers[packet->header_count++] = (struct message_header){memory_need(strdup(name)), value};
}

void packet_remove_header(struct packet *packet, const char *name)
{
    struct message_header *header = packet->headers;

    while (header < packet->headers + packet->header_count && strcmp(header->name, name) != 0)
        header++;
    if (header == packet->headers + packet->header_count)
        return;
    free((char *)header->name);
    free((char *)header->value);
    *header = packet->headers[--packet->header_count];
}

const char *packet_header(const struct packet *packet, const char *name)
{
    for (size_t i = 0; i < packet->header_count; i++) {
        if (strcmp(packet->headers[i].name, name) == 0)
            return packet->headers[i].value;
    }
    return NULL;
}

struct packet *packet_new_status(const char *subject, unsigned status, const char *text)
{
    struct packet *packet = packet_new(subject, NULL, "", 0);

    packet->status = status;
    packet->status_text = text;
    return packet;
}

struct packet *packet_new_json(const char *subject, json_t *object)
{
    char *text = memory_need(json_dumps(object, JSON_COMPACT));
    struct packet *packet = packet_new(subject, NULL, text, strlen(text));

    free(text);
    json_decref(object);
    return packet;
}

size_t packet_bytes(const struct packet *packet)
{
    size_t bytes = packet->payload_bytes;

    for (size_t i = 0; i < packet->header_count; i++)
        bytes += strlen(packet->headers[i].name) + strlen(packet->headers[i].value) + 4;
    return bytes + (packet->header_count > 0 ? 12 : 0); /* NATS/1.0, two line ends */
}
