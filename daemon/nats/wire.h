/*
 * wire: the NATS client protocol on a connected socket, encrypted or not.
 *
 * Used by link. The library has connected and logged in; from then on the wire alone reads and writes the socket, and
 * never blocks. A received message is parsed in the buffer into which the socket's bytes were read; a published one is
 * written once, into the buffer that is sent. (The library allocates an object for each message, with a hash table of
 * headers, and frees it in another thread: more than half of what a call cost the daemon.) Specified in the
 * documentation of NATS, "Client Protocol", and ADR-4 for headers.
 */
#ifndef DAEMON_NATS_WIRE_H
#define DAEMON_NATS_WIRE_H

#include "daemon/nats/message.h"
#include "daemon/nats/tls.h"

#include <stdbool.h>
#include <stddef.h>

/* Told of what comes, from within wire_read. */
struct wire_events {
    /* A message. It is over after the call. */
    void (*message)(void *arg, struct message *message);
    /* The server complains, and goes on. text has no line break, and is over after the call. */
    void (*complaint)(void *arg, const char *text);
    /* After each message and each read: whether wire_read should return, and leave the rest to the next call. */
    bool (*is_enough)(void *arg);
    void *arg;
};

/* Zeroed: a wire that is closed. All members are the module's own. */
struct wire {
    int socket;
    SSL *tls; /* NULL: the connection is not encrypted */
    size_t max_payload_bytes;
    struct wire_events events;
    bool is_open, is_reading;
    bool has_more; /* wire_read has left messages in a buffer: call it again, even if nothing new has come */
    /* TLS: what keeps us from reading is a socket that is not writable, and the other way round */
    bool read_waits_to_write, write_waits_to_read;

    char *in;
    size_t in_start, in_length, in_capacity; /* what came and is not handed over lies from start to length */
    size_t in_wanted;                        /* bytes from start on that the message there has; 0: not known yet */
    size_t in_searched;                      /* bytes from start on that have no line's end */
    size_t read_bytes;                       /* by the present call of wire_read */
    struct message_header *headers;          /* of the message that is handed over */
    size_t header_capacity;

    char *out;
    size_t out_start, out_length, out_capacity;

    char complaint[128]; /* the server's, if it came last */
    char lost[128];      /* why wire_read or wire_write said that the connection is lost */
};

/*
 * Takes over a connected socket and, if it is encrypted, its session; nothing is subscribed yet. False: out of memory;
 * then they stay the caller's. max_payload_bytes is the server's limit for headers and payload together.
 */
bool wire_open(struct wire *wire, int socket, SSL *tls, size_t max_payload_bytes, const struct wire_events *events);

/* Tells an encrypted server that nothing more will be written (RFC 8446, 6.1). Before the socket is shut down. */
void wire_finish_writing(struct wire *wire);

/* Closes the socket, and drops what is not written. Also from within an event. */
void wire_close(struct wire *wire);

/* Listens on a subject; the subscription has the number sid. False: out of memory. */
bool wire_subscribe(struct wire *wire, const char *subject, unsigned sid);

enum wire_result { WIRE_DONE, WIRE_TOO_LARGE, WIRE_NO_MEMORY };

/* Puts a message into the buffer. reply may be NULL. Subjects and headers have nothing in them that would break the
 * protocol's lines: whoever makes them sees to that. */
enum wire_result wire_publish(struct wire *wire, const char *subject, const char *reply,
                              const struct message_header *headers, size_t header_count, const void *payload,
                              size_t payload_bytes);

/* Reads what is there and hands it over. False: the connection is lost, and wire->lost says why. */
bool wire_read(struct wire *wire);

/* Writes as much of the buffer as the socket takes. False: lost. */
bool wire_write(struct wire *wire);

/* Bytes that are not written yet. */
static inline size_t wire_unwritten_bytes(const struct wire *wire)
{
    return wire->out_length - wire->out_start + (wire->tls != NULL ? tls_unsent_bytes(wire->tls) : 0);
}

/* Whether wire_write or wire_read has something to do as soon as the socket is writable. */
static inline bool wire_wants_to_write(const struct wire *wire)
{
    return (wire_unwritten_bytes(wire) > 0 && !wire->write_waits_to_read) || wire->read_waits_to_write;
}

#endif
