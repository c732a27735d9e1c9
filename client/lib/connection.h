/*
 * connection: the handle, its socket and what waits on both sides of it.
 *
 * Used by call (which queues requests here and is handed the answers) and by the
 * methods' files. A connection is open (fd >= 0) or lost (fd -1, with the reason in
 * lost); with the option reconnect a lost one may be opened again by
 * connection_ensure. Nothing here waits, but for kvs_connect.
 */
#ifndef CLIENT_CONNECTION_H
#define CLIENT_CONNECTION_H

#include "client/lib/buffer.h"
#include "client/lib/kvstore.h"
#include "client/lib/request.h"
#include "proto/frame.h"

#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>

enum call_state {
    CALL_FREE,
    CALL_IN_FLIGHT,
    CALL_GIVEN_UP /* its time ran out; the slot waits for the daemon's answer, which will be dropped */
};

/* One call. Its place in the table is its msgid. */
struct call {
    enum call_state state;
    uint32_t next_free;
    kvs_done_fn *done;
    void *context;
    bool only_reads;
    int64_t deadline_ms; /* on the clock of connection_now_ms */
    uint64_t sent_at;    /* handle's sent_bytes when the request's last byte has left */
};

struct kvs {
    struct kvs_options options; /* defaults filled in */
    char *path;
    int fd;                /* -1: lost */
    uint64_t connections;  /* opened so far */
    struct kvs_error lost; /* why */

    struct frame_limits limits; /* of one message from the daemon, and of one to it */
    struct frame scan;          /* of the message that in begins with */
    struct buffer in;
    bool has_unhandled; /* in may begin with a whole message: awaited has an event, and the rest can wait */
    msgpack_zone *zone; /* the message that is being handled */

    struct buffer out;
    uint64_t queued_bytes; /* since the connection was opened, also those that have left */
    uint64_t sent_bytes;
    bool has_answered; /* anything, on this connection */
    bool cannot_send;  /* the daemon has closed its side: what it said before is still to be read */

    struct call *calls;
    uint32_t call_slots;
    uint32_t first_free; /* call_slots: none */
    uint32_t slots_used; /* in flight or given up */
    uint32_t in_flight;
    int64_t next_deadline_ms; /* no call's is earlier */

    unsigned pause_ms; /* before the next attempt to connect; 0: the last connection worked */
    int64_t next_attempt_ms;
    uint32_t jitter; /* state of the random numbers that spread attempts */

    struct kvs_watch *watches; /* the newest first */
    int64_t watch_due_ms;      /* when the first of them that waits is to be started or stopped; INT64_MAX: none */
    struct kvs_watch *awaited; /* what kvs_watch_next waits for, or NULL */

    bool in_callback;
    struct kvs_request scratch; /* the method that is being called */
    struct kvs_request inner;   /* … by a function, while a blocking call may want to send scratch again */
    struct kvs_error error;     /* of the last function that failed */
};

int64_t connection_now_ms(void);

/* The deadline in the given number of seconds. INT64_MAX if the number is negative or too large: no deadline. */
int64_t connection_moment_after(double seconds);

/* A random number from 0 to bound - 1: good for pauses. */
uint32_t connection_random_below(struct kvs *kvs, uint32_t bound);

/*
 * Sees that the connection is open. KVS_OK, or KVS_IO or KVS_NO_MEMORY with the reason in kvs->error: it
 * is lost, and may not be or could not be opened again, or next_attempt_ms is still to come.
 */
enum kvs_code connection_ensure(struct kvs *kvs);

/*
 * Closes the socket for the reason in *reason; every call in flight ends with it. Answers reason's code.
 */
enum kvs_code connection_lose(struct kvs *kvs, const struct kvs_error *reason);

/* Sends and receives what can be without waiting, ends the calls whose time ran out. As kvs_process. */
enum kvs_code connection_run(struct kvs *kvs);

/* Waits until there is something for connection_run to do, for at most timeout_ms; -1: for ever. */
void connection_wait(struct kvs *kvs, int timeout_ms);

/* How long to wait before the next of many attempts, half of it by chance; *pause_ms is that of the last one, 0: none.
 */
uint32_t connection_grow_pause(struct kvs *kvs, unsigned *pause_ms);

#endif
