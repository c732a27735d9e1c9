/*
 * ledger: the keys of a bucket whose last write is in doubt.
 *
 * Used by write and batch, one ledger per bucket. If an ack is lost, the messages of the key may be the only evidence
 * of what became of the write. Another write could overwrite them. So until the outcome is found out, this daemon sends
 * no other write of the key. Writes that wait go on in their order.
 */
#ifndef DAEMON_STORE_LEDGER_H
#define DAEMON_STORE_LEDGER_H

#include "daemon/base/jobs.h"
#include "daemon/nats/request.h"

#include <stdbool.h>
#include <stdint.h>

struct ledger;

/* NULL when memory ran out. Handles of the same bucket share one. */
struct ledger *ledger_new(struct jobs *jobs);
struct ledger *ledger_retain(struct ledger *ledger);
void ledger_release(struct ledger *ledger);

/* Whether others than one handle keep it: other handles, holds, and writes that wait. */
bool ledger_is_shared(const struct ledger *ledger);

/* --- What writes and inquiries share --------------------------------------------------------------- */

/* A write with a time to live is about to be sent. It may replace others, and leave nothing when it expires. */
void ledger_note_ttl(struct ledger *ledger, int64_t ttl_s);

/* The shortest that a write of this run had; 0: none had one. */
uint64_t ledger_shortest_ttl_ms(const struct ledger *ledger);

/* The limit of readings for writes in doubt that are at NATS at a time. */
struct request_limit *ledger_readings(struct ledger *ledger);

/* --- Keys in doubt --------------------------------------------------------------------------------- */

struct ledger_key;

/* One write's hold on a key. The owner embeds it, zeroed, and lets go of it before its memory ends. */
struct ledger_hold {
    struct ledger *ledger;
    struct ledger_key *key; /* NULL: it holds none */
};

/* Blocks other writes of the key. When memory runs out it is not blocked, and hold->key stays NULL. */
void ledger_hold(struct ledger *ledger, struct ledger_hold *hold, const char *name);

/* Those who wait for the key go on, from a later slice of the loop. Does nothing where none is held. */
void ledger_let_go(struct ledger_hold *hold);

/* One write that waits. The owner embeds it, zeroed but for what it sets. */
struct ledger_wait {
    void (*resume)(struct ledger_wait *wait);

    /* private */
    struct ledger *ledger; /* NULL: it does not wait */
    bool is_due;           /* its turn has come */
    struct ledger_wait **list;
    struct ledger_wait *next, *previous;
};

/*
 * Whether writes that waited before are still to go on; then this one waits behind them, and resume will be called
 * once. Asked before ledger_must_wait, which resume's owner asks again.
 */
bool ledger_must_queue(struct ledger *ledger, struct ledger_wait *wait);

/* Whether the key is held; then resume will be called once. */
bool ledger_must_wait(struct ledger *ledger, struct ledger_wait *wait, const char *name);

/* It waits no longer. Does nothing when it does not. */
void ledger_end_wait(struct ledger_wait *wait);

#endif
