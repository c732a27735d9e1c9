/*
 * wire: the NATS client protocol on a connected socket, encrypted or not.
 *
 * Used by connection. The library has connected and logged in. From then on only the wire reads and writes the socket,
 * and it never blocks. A received message is parsed in the buffer into which it was received; a published one is
 * written once, into the buffer that is sent. (The library allocates an object for each message, with a hash table of
 * headers, and frees it in another thread: more than half of the daemon's work for a call.) Specified in the
 * documentation of NATS, "Client Protocol", and in ADR-4 for headers.
 */
#ifndef DAEMON_NATS_WIRE_H
#define DAEMON_NATS_WIRE_H

#include "daemon/nats/message.h"
#include "daemon/nats/tls.h"

#include <stdbool.h>
#include <stddef.h>

/* All are called from within wire_read. */
struct wire_events {
    /* A message. It is invalid after the call. */
    void (*message)(void *arg, struct message *message);
    /* An error of the server (-ERR). text has no line break, and is invalid after the call. */
    void (*server_error)(void *arg, const char *text);
    /* After each message and each read: return whether wire_read should return, and leave the rest to the next call. */
    bool (*is_enough)(void *arg);
    void *arg;
};

/* Zeroed: closed. All members are private. */
struct wire {
    int socket;
    SSL *tls; /* NULL: the connection is not encrypted */
    size_t max_payload_bytes;
    struct wire_events events;
    bool is_open, is_reading;
    bool has_more; /* wire_read has left messages in a buffer: call it again, even if nothing new has come */
    /* TLS: reading is blocked until the socket is writable, or writing until it is readable */
    bool read_waits_to_write, write_waits_to_read;

    char *in;
    size_t in_start, in_length, in_capacity; /* bytes that are not delivered yet are from start to length */
    size_t in_wanted;                        /* bytes of the message at start; 0: unknown yet */
    size_t in_searched;                      /* bytes from start on that contain no end of a line */
    size_t read_bytes;                       /* by the present call of wire_read */
    struct message_header *headers;          /* of the message that is delivered */
    size_t header_capacity;

    char *out;
    size_t out_start, out_length, out_capacity;

    char server_error[128]; /* the last operation was this error; "": it was another one */
    char lost[128];         /* why wire_read or wire_write has returned false */
};

/*
 * Take over a connected socket and, if it is encrypted, its TLS session. Nothing is subscribed yet. max_payload_bytes
 * is the server's limit for headers and payload together. Return false if memory ran out: then socket and session stay
 * the caller's.
 */
bool wire_open(struct wire *wire, int socket, SSL *tls, size_t max_payload_bytes, const struct wire_events *events);

/* Over TLS, tell the server that nothing more will be written (RFC 8446, 6.1). Call it before the socket is shut down.
 */
void wire_finish_writing(struct wire *wire);

/* Close the socket, and discard what is unsent. Allowed within an event. */
void wire_close(struct wire *wire);

/* Subscribe to a subject; the subscription has the number sid. Return false if memory ran out. */
bool wire_subscribe(struct wire *wire, const char *subject, unsigned sid);

enum wire_result { WIRE_DONE, WIRE_TOO_LARGE, WIRE_NO_MEMORY };

/* Write a message into the buffer. reply may be NULL. The caller has checked that subjects and headers contain nothing
 * that would break the protocol's lines. */
enum wire_result wire_publish(struct wire *wire, const char *subject, const char *reply,
                              const struct message_header *headers, size_t header_count, const void *payload,
                              size_t payload_bytes);

/* Receive what is there and deliver it. Return false if the connection is lost; wire->lost says why. */
bool wire_read(struct wire *wire);

/* Send as much of the buffer as the socket takes. Return false if the connection is lost. */
bool wire_write(struct wire *wire);

/* Return the bytes that are unsent. */
static inline size_t wire_unwritten_bytes(const struct wire *wire)
{
    return wire->out_length - wire->out_start + (wire->tls != NULL ? tls_unsent_bytes(wire->tls) : 0);
}

/* Return whether wire_write or wire_read has something to do as soon as the socket is writable. */
static inline bool wire_wants_to_write(const struct wire *wire)
{
    return (wire_unwritten_bytes(wire) > 0 && !wire->write_waits_to_read) || wire->read_waits_to_write;
}

#endif
