/*
 * rewrite: writes a key depending on the entry that it has: with the same value and another TTL, or with another value
 * and the same TTL.
 *
 * Used by the handlers. It reads the entry, from memory if possible, and writes on the condition that it is unchanged.
 * If somebody else has written to the key, it starts again, until the deadline. From the time at which a value expires,
 * it counts as absent, although the server may have it for a second more.
 */
#ifndef DAEMON_STORE_REWRITE_H
#define DAEMON_STORE_REWRITE_H

#include "daemon/store/write/modify.h"

enum rewrite_kind {
    REWRITE_TOUCH,   /* keep the value and the headers */
    REWRITE_KEEP_TTL /* keep the TTL */
};

enum rewrite_state { REWRITE_IDLE, REWRITE_READING, REWRITE_WRITING, REWRITE_PAUSED };

/* The owner embeds it, zeroed but for what it sets, in the arena's memory. */
struct rewrite {
    /* Set by the caller: bucket_name, key, deadline_ms and journal. The digest is added here. */
    struct modify modify;
    enum rewrite_kind kind;
    int64_t ttl_s; /* of REWRITE_TOUCH; 0: none. Of KEEP_TTL: if the key is absent or has none */
    bool has_condition;
    uint64_t revision; /* the key must be at it; 0: it must be absent */
    /* Of REWRITE_KEEP_TTL; borrowed. */
    const char *value;
    size_t value_bytes;
    const struct message_header *headers;
    size_t header_count;
    /* The revision; 0 without an error: the key that was to be touched is absent. */
    write_done_fn *done;
    void *arg;

    /* private */
    enum rewrite_state state;
    unsigned conflicts;
    size_t charged_bytes; /* of copies of the value */
    struct timer pause;
    struct job again;
    struct arena arena; /* of the read or write in progress */
    struct get get;
    struct write write;
};

void rewrite_start(struct store *store, struct arena *arena, struct rewrite *rewrite);

#endif
