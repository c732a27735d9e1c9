/*
 * buffer: a queue of bytes in one piece of memory.
 *
 * Used for received bytes that are not decoded yet, for requests that wait to be sent, and for a request's parameters.
 * A function that fails leaves the buffer unchanged.
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

/* Return how many bytes are queued. */
size_t buffer_size(const struct buffer *buffer);

/* Make room for size_bytes after the end; may move the queued bytes. False when out of memory. */
bool buffer_reserve(struct buffer *buffer, size_t size_bytes);

/* Queue a copy of size_bytes. False when out of memory. */
bool buffer_append(struct buffer *buffer, const void *bytes, size_t size_bytes);

/* Drop the first size_bytes, at most as many as are queued. */
void buffer_consume(struct buffer *buffer, size_t size_bytes);

/* Drop everything, and free the memory if a large message made it grow. */
void buffer_clear(struct buffer *buffer);

/* Free what the buffer owns, and empty it. */
void buffer_free(struct buffer *buffer);

#endif
