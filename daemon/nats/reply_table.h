/*
 * reply_table: finds the request that a reply belongs to.
 *
 * Used by request. Each request has a slot in a table. The last token of its reply subject names the slot, the slot's
 * generation and the attempt, so a reply finds its request with one array look-up. The generation distinguishes replies
 * to earlier requests in the slot from those to the present one.
 */
#ifndef DAEMON_NATS_REPLY_TABLE_H
#define DAEMON_NATS_REPLY_TABLE_H

#include "daemon/nats/message.h"

#include <stdbool.h>
#include <stdint.h>

/* The slot of a request that has none. */
#define REPLY_NO_SLOT UINT32_MAX

/* 8 hexadecimal digits of the slot, 8 of its generation, 4 of the attempt, and the NUL. */
#define REPLY_TOKEN_BYTES 21

/* The bits of an attempt's number that a token carries. */
#define REPLY_ATTEMPT_MASK 0xffffu

struct reply_slot {
    void *request; /* NULL: free, and next_free is the next free slot */
    uint32_t generation;
    uint32_t next_free;
};

struct reply_table {
    struct reply_slot *slots;
    uint32_t slot_count;
    uint32_t first_free;
};

/* Return 0, or -1 if memory ran out. */
int reply_table_init(struct reply_table *table);
void reply_table_free(struct reply_table *table);

/* Return a free slot, now the request's; REPLY_NO_SLOT if memory ran out. */
uint32_t reply_table_acquire(struct reply_table *table, void *request);

/* Let another request have the slot: replies find it instead. */
void reply_table_replace(struct reply_table *table, uint32_t slot, void *request);

/*
 * Free a slot. keeps_generation: no reply to this request can still come, so the next request in the slot may have
 * the same reply subject.
 */
void reply_table_release(struct reply_table *table, uint32_t slot, bool keeps_generation);

/* Write the token of an attempt by the request in the slot. */
void reply_table_write_token(const struct reply_table *table, uint32_t slot, unsigned attempt,
                             char token[REPLY_TOKEN_BYTES]);

/*
 * Return the request that a message belongs to, and the attempt; NULL: the request is over, or the message belongs to
 * none. The token is the last one of the message's subject, if this begins with inbox. A message that a consumer
 * delivers carries the subject under which it was stored; its token is the end of the consumer's name in its reply
 * subject.
 */
void *reply_table_find(const struct reply_table *table, const char *inbox, const struct message *message,
                       uint32_t *attempt);

#endif
