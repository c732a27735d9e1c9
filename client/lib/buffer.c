#include "client/lib/buffer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SMALLEST_BYTES 256u
#define KEPT_BYTES     (1024u * 1024u)

size_t buffer_size(const struct buffer *buffer)
{
    return buffer->end - buffer->begin;
}

bool buffer_reserve(struct buffer *buffer, size_t size_bytes)
{
    size_t queued = buffer_size(buffer);

    if (buffer->capacity - buffer->end >= size_bytes)
        return true;
    if (size_bytes > SIZE_MAX / 2 - queued)
        return false;

    /* Moving is cheap while at least half of the memory is free; otherwise bytes would be moved again and again. */
    if (queued + size_bytes <= buffer->capacity && queued <= buffer->capacity / 2) {
        memmove(buffer->bytes, buffer->bytes + buffer->begin, queued);
    } else {
        size_t capacity = buffer->capacity > 0 ? buffer->capacity : SMALLEST_BYTES;
        while (capacity < queued + size_bytes || capacity / 2 < queued)
            capacity *= 2;
        char *bytes = malloc(capacity);
        if (bytes == NULL)
            return false;
        if (queued > 0)
            memcpy(bytes, buffer->bytes + buffer->begin, queued);
        free(buffer->bytes);
        buffer->bytes = bytes;
        buffer->capacity = capacity;
    }
    buffer->begin = 0;
    buffer->end = queued;
    return true;
}

bool buffer_append(struct buffer *buffer, const void *bytes, size_t size_bytes)
{
    if (size_bytes == 0)
        return true;
    if (!buffer_reserve(buffer, size_bytes))
        return false;
    memcpy(buffer->bytes + buffer->end, bytes, size_bytes);
    buffer->end += size_bytes;
    return true;
}

void buffer_consume(struct buffer *buffer, size_t size_bytes)
{
    if (size_bytes < buffer_size(buffer))
        buffer->begin += size_bytes;
    else
        buffer_clear(buffer);
}

void buffer_clear(struct buffer *buffer)
{
    buffer->begin = 0;
    buffer->end = 0;
    if (buffer->capacity > KEPT_BYTES)
        buffer_free(buffer);
}

void buffer_free(struct buffer *buffer)
{
    free(buffer->bytes);
    memset(buffer, 0, sizeof(*buffer));
}
