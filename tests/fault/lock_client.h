/*
 * lock_client: a client of a daemon's socket that outlives its session, for tests in which daemons are killed.
 *
 * It makes one call at a time, and notes by which lock.lost it has lost what. Times are CLOCK_BOOTTIME in nanoseconds.
 * A client belongs to one thread.
 */
#ifndef FAULT_LOCK_CLIENT_H
#define FAULT_LOCK_CLIENT_H

#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>

struct lock_client {
    int socket; /* -1: it has no session */
    uint32_t last_msgid;
    msgpack_unpacker unpacker;
    uint64_t lost_token; /* of the last lock.lost; 0: there was none in this session */
    uint64_t lost_ns;    /* when it was received */
};

enum lock_reply {
    LOCK_REPLY_OK,
    LOCK_REPLY_ERROR,
    LOCK_REPLY_ENDED, /* the session has */
    LOCK_REPLY_SILENCE
};

struct lock_answer {
    enum lock_reply reply;
    uint64_t sent_ns, received_ns;
    char code[32]; /* "ok", or the error's code */
    char message[200];
    uint64_t token;    /* of a lock */
    uint64_t valid_ns; /* its valid_for */
    uint64_t revision; /* of a result that is one, or the first one of an array */
};

uint64_t lock_client_now_ns(void);

/* Begin a session. Return false if the daemon does not accept one. */
bool lock_client_connect(struct lock_client *client, const char *path);
void lock_client_close(struct lock_client *client);

/* Make a call, and wait for so long for its answer. A later answer is ignored. *must_stop ends the wait, too. */
struct lock_answer lock_client_call(struct lock_client *client, unsigned wait_ms, const bool *must_stop,
                                    const char *method, const char *params, ...) __attribute__((format(printf, 5, 6)));

/* Read what comes within this time. Return false if the session has ended. */
bool lock_client_listen(struct lock_client *client, unsigned wait_ms);

#endif
