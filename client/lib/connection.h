/*
 * connection: a stream of frames to and from the daemon's socket, and how it is opened, lost and opened again.
 *
 * It knows bytes and whole frames, but neither calls nor watches: its owner queues requests in out, and gets frames
 * and the end of the connection through the functions in struct connection_ops. A connection is open (fd >= 0) or
 * lost (fd -1, with the reason in lost). With reconnect, connection_ensure may open a lost one again. Only
 * connection_open waits.
 */
#ifndef CLIENT_CONNECTION_H
#define CLIENT_CONNECTION_H

#include "client/lib/buffer.h"
#include "client/lib/kvstore.h"
#include "proto/frame.h"

#include <stdbool.h>
#include <stdint.h>

/* What the owner does. Each function gets the owner as its argument. */
struct connection_ops {
    /* Whether a lost connection is needed now, although nobody makes a call. */
    bool (*is_needed)(void *owner);

    /* A turn begins: the connection is open and nothing was sent yet. */
    void (*on_turn_begin)(void *owner);

    /*
     * A whole frame has arrived; bytes live until the function returns. It returns KVS_OK, or what connection_lose
     * returned if it ended the connection.
     */
    enum kvs_code (*on_frame)(void *owner, const char *bytes, size_t size);

    /* Whether the frames that have arrived are to wait for a later turn. */
    bool (*is_paused)(void *owner);

    /* A turn ends, with or without a connection. */
    void (*on_turn_end)(void *owner);

    /* The connection was lost. The function may open it again. */
    void (*on_lost)(void *owner, const struct kvs_error *reason);
};

struct connection {
    const struct connection_ops *ops;
    void *owner;
    bool reconnect;
    struct frame_limits limits; /* of one message in either direction */
    char *path;
    int fd;                 /* -1: lost */
    uint64_t opened_count;  /* how often it was opened */
    struct kvs_error lost;  /* why */
    struct kvs_error error; /* of the last function here that failed */

    struct frame scan; /* of the frame that in begins with */
    struct buffer in;
    bool has_unhandled; /* in may begin with a whole frame: is_paused has stopped its handling */

    struct buffer out;
    uint64_t queued_bytes; /* all bytes queued since the connection was opened, sent or not */
    uint64_t sent_bytes;
    bool has_answered; /* the daemon has sent something that makes sense on this connection */
    bool cannot_send;  /* the daemon has closed its side; what it sent before is still to be read */

    unsigned pause_ms; /* before the next attempt to connect; 0: the last connection worked */
    int64_t next_attempt_ms;
    uint32_t random_state; /* see clock_random_below */
};

/*
 * Connect to path, for at most timeout_s while the daemon's queue of new connections is full. The members ops, owner,
 * reconnect and limits are set. KVS_OK, or a code with the reason in connection->error.
 */
enum kvs_code connection_open(struct connection *connection, const char *path, double timeout_s);

/* Free what the connection owns. */
void connection_release(struct connection *connection);

/*
 * Make sure that the connection is open. KVS_OK, or a code with the reason in connection->error: the connection is
 * lost, and either it may not be opened again, or the attempt failed, or next_attempt_ms is still to come.
 */
enum kvs_code connection_ensure(struct connection *connection);

/* Close the socket for the given reason and tell the owner. Returns the reason's code. */
enum kvs_code connection_lose(struct connection *connection, const struct kvs_error *reason);

/* Lose the connection because the daemon's message is wrong; what continues "its message ". */
enum kvs_code connection_lose_for_message(struct connection *connection, const char *what);

/* Note that the daemon has answered with a message that makes sense. */
void connection_mark_answered(struct connection *connection);

/*
 * Send and receive what is possible without waiting. KVS_OK, or the code of the reason in connection->error if the
 * connection was lost, before or now.
 */
enum kvs_code connection_run(struct connection *connection);

/* Return what poll(2) is to wait for on fd; 0 if the connection is lost. */
short connection_events(const struct connection *connection);

/* Wait until the socket is ready, for at most timeout_ms; -1: no limit. */
void connection_wait(struct connection *connection, int timeout_ms);

#endif
