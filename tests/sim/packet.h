/*
 * packet: one NATS message on its way, or stored.
 */
#ifndef SIM_PACKET_H
#define SIM_PACKET_H

#include "daemon/nats/message.h"

#include <jansson.h>
#include <stddef.h>

struct packet {
    char *subject;
    char *reply;             /* NULL: none */
    unsigned status;         /* 0: none */
    const char *status_text; /* a literal */
    struct message_header *headers;
    size_t header_count;
    char *payload;
    size_t payload_bytes;
};

struct packet *packet_new(const char *subject, const char *reply, const void *payload, size_t payload_bytes);
struct packet *packet_copy(const struct packet *packet);
void packet_free(struct packet *packet);

void packet_add_header(struct packet *packet, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Return the first value of a header, or NULL. */
const char *packet_header(const struct packet *packet, const char *name);

/* A packet to subject with a status and no payload. */
struct packet *packet_new_status(const char *subject, unsigned status, const char *text);

/* A packet to subject with a JSON object, of which the reference is taken. */
struct packet *packet_new_json(const char *subject, json_t *object);

/* Remove the first header with this name. */
void packet_remove_header(struct packet *packet, const char *name);

/* Return its size as the server counts it: headers and payload. */
size_t packet_bytes(const struct packet *packet);

#endif
