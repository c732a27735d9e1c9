/*
 * ledger: the keys of a bucket whose last write is in doubt.
 *
 * Used by write and batch, one ledger per bucket. If an ack is lost, the messages of the key may be the only evidence
 * of what became of the write. Another write could overwrite them. So until the outcome is determined, this daemon
 * sends no other write of the key. Writes that wait continue in their order, one by one until one of them holds the key
 * again. With the embedded server, a write with an id of its client holds its key from the first copy on: the daemon
 * may be killed before the ack comes.
 */
#ifndef DAEMON_STORE_LEDGER_H
#define DAEMON_STORE_LEDGER_H

#include "daemon/base/jobs.h"
#include "daemon/nats/request.h"

#include <stdbool.h>
#include <stdint.h>

struct ledger;

/* Return a new ledger; NULL if memory ran out. */
struct ledger *ledger_new(struct jobs *jobs, struct requests *requests);
struct ledger *ledger_retain(struct ledger *ledger);
void ledger_release(struct ledger *ledger);

/* Return whether holds, or writes that wait, keep it beside its owner. */
bool ledger_is_shared(const struct ledger *ledger);

/* --- What writes and inquiries share --------------------------------------------------------------- */

/* A write with a TTL is about to be sent. It may replace others, and leave nothing when it expires. */
void ledger_note_ttl(struct ledger *ledger, int64_t ttl_s);

/* Return the shortest TTL of the writes since the start; 0: none had one. */
uint64_t ledger_shortest_ttl_ms(const struct ledger *ledger);

/* Return the limit of requests in flight for writes in doubt. */
struct request_limit *ledger_readings(struct ledger *ledger);

/* --- Keys in doubt --------------------------------------------------------------------------------- */

struct ledger_key;

/* A write's hold on a key. The owner embeds it, zeroed, and calls ledger_release_key before its memory ends. */
struct ledger_hold {
    struct ledger *ledger;
    struct ledger_key *key; /* NULL: none is held */
};

/* Block other writes of the key. If memory runs out, the key is not held, and hold->key stays NULL. */
void ledger_hold(struct ledger *ledger, struct ledger_hold *hold, const char *name);

/* Stop blocking. The writes that wait continue in a later slice of the loop. Does nothing if no key is held. */
void ledger_release_key(struct ledger_hold *hold);

/* A write that waits. The owner embeds it, zeroed but for resume. */
struct ledger_wait {
    void (*resume)(struct ledger_wait *wait);

    /* private */
    struct ledger *ledger;
    struct ledger_key *key; /* NULL: it does not wait */
    bool is_due;            /* its turn has come */
    struct ledger_wait *next, *previous;
};

/*
 * Return whether the key is held, or others have waited for it longer. If so, the write waits, and resume is called
 * once, when its turn has come; then call this again.
 */
bool ledger_must_wait(struct ledger *ledger, struct ledger_wait *wait, const char *name);

/* Stop waiting. Does nothing if it does not wait. */
void ledger_end_wait(struct ledger_wait *wait);

#endif
