/*
 * stream_log: every message that a bucket's stream holds, as the server has it.
 */
#ifndef SUPPORT_STREAM_LOG_H
#define SUPPORT_STREAM_LOG_H

#include "tests/support/nats.h"

#include <stddef.h>
#include <stdint.h>

struct stored {
    uint64_t revision;
    const char *key;
    const char *operation; /* "put", "DEL", "PURGE" */
    const char *value;
};

/* Lives until the test ends. */
struct stream_log {
    struct stored *entries; /* in order of their revisions */
    size_t count;
};

struct stream_log stream_log_read(struct nats *nats, const char *bucket);

/* Return how many writes of this key, operation and value there are; *revision: of the last of them, or 0. */
unsigned stream_log_count(const struct stream_log *log, const char *key, const char *operation, const char *value,
                          uint64_t *revision);

/* Return the first hundred messages as text for people. */
const char *stream_log_text(const struct stream_log *log);

#endif
