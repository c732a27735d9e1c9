/*
 * call_table: the calls that wait for an answer, each in a slot whose number is the call's msgid.
 *
 * Used by call. A slot stays taken until the daemon has answered, even if the program has given up waiting: the msgid
 * must not be used twice on one connection.
 */
#ifndef CLIENT_CALL_TABLE_H
#define CLIENT_CALL_TABLE_H

#include "client/lib/kvstore.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct call_receiver;

/* Receive a call's answer. Success: error is NULL. Failure: result is NULL. Both live until the function returns. */
typedef void call_deliver_fn(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                             const struct kvs_value *result);

/* The receiver of a call's answer. */
struct call_receiver {
    call_deliver_fn *deliver; /* called exactly once for a call that was accepted; NULL: nobody wants the answer */
    void (*function)(void);   /* the program's function, of a type that deliver knows */
    void *context;
    size_t expected_count; /* of a transaction: how many revisions are an answer */
    void *extra;           /* memory that deliver uses and frees */
};

enum call_state {
    CALL_FREE,
    CALL_IN_FLIGHT,
    CALL_HELD,    /* the connection was lost; will be sent, or sent again, on the next one */
    CALL_GIVEN_UP /* timed out; the slot waits for the daemon's answer, which will be dropped */
};

/* A request that may have to be sent again. */
struct call_copy {
    size_t first_sent_at;   /* see kvs_request */
    uint64_t first_sent_us; /* CLOCK_MONOTONIC before it was sent for the first time */
    size_t params_size;
    char *params; /* after the method, in this block */
    char method[];
};

struct call {
    enum call_state state;
    uint32_t next_free;
    struct call_receiver receiver;
    bool only_reads;
    bool may_repeat;        /* although it writes and has no id */
    bool may_be_begun;      /* by the daemon: it was sent on a connection that was lost */
    int64_t deadline_ms;    /* see clock_now_ms */
    uint64_t sent_at;       /* the connection's sent_bytes when the request's last byte has left */
    uint64_t number;        /* calls are sent again in this order */
    struct call_copy *copy; /* of its request; NULL: the handle does not reconnect, or the call is of its session */
};

struct call_table {
    struct call *calls;
    uint32_t slot_count;
    uint32_t first_free; /* slot_count: none */
    uint32_t used_count; /* in flight or given up */
    uint32_t in_flight;  /* or held */
    uint32_t held;
    int64_t next_deadline_ms; /* no call's is earlier; INT64_MAX: no call */
};

/* Make an empty table. */
void call_table_init(struct call_table *table);

/* Make sure that there is a free slot, in a table of at most max_slots. False when out of memory. */
bool call_table_reserve(struct call_table *table, uint32_t max_slots);

/* Take the slot first_free for a call. */
void call_table_take(struct call_table *table, const struct call *call);

/* Free a slot that is no longer in flight. */
void call_table_release(struct call_table *table, uint32_t msgid);

#endif
