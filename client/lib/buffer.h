/*
 * buffer: a queue of bytes in one piece of memory.
 *
 * Used for what was received and not yet understood, what waits for being sent, and
 * a request's parameters. Promises that a failed function leaves the buffer as it was.
 */
#ifndef CLIENT_BUFFER_H
#define CLIENT_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

/* All zero is an empty buffer. The bytes queued are bytes[begin] to bytes[end - 1]. */
struct buffer {
    char *bytes;
    size_t begin;
    size_t end;
    size_t capacity;
};

/* How many bytes are queued. */
size_t buffer_size(const struct buffer *buffer);

/* Makes room for size_bytes behind the end; moves what is queued. False when out of memory. */
bool buffer_reserve(struct buffer *buffer, size_t size_bytes);

/* Queues a copy of size_bytes. False when out of memory. */
bool buffer_append(struct buffer *buffer, const void *bytes, size_t size_bytes);

/* Drops the first size_bytes, at most as many as are queued. */
void buffer_consume(struct buffer *buffer, size_t size_bytes);

/* Drops everything, and gives the memory back where one large message made it grow. */
void buffer_clear(struct buffer *buffer);

/* Frees what the buffer owns and empties it. */
void buffer_free(struct buffer *buffer);

#endif
