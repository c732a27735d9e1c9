/*
 * caller: a simulated program's session with a daemon: it sends calls, and takes the messages apart that come.
 *
 * Used by client and locker.
 */
#ifndef SIM_CALLER_H
#define SIM_CALLER_H

#include "tests/sim/host.h"

#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>

struct caller {
    /* Set by the owner. */
    const char *name; /* in the trace */
    struct host *host;
    /* A response or a notification has come. */
    void (*on_message)(void *arg, const msgpack_object *message);
    /* The daemon has ended the session, at ended_ns. */
    void (*on_end)(void *arg, uint64_t ended_ns);
    void *arg;

    /* private, zeroed */
    struct pipe *pipe; /* NULL: no session */
    msgpack_sbuffer received;
    uint32_t msgids;
    bool is_stalled; /* it does not read */
};

/* Begin a session, if the host's daemon runs. Return whether there is one. */
bool caller_connect(struct caller *caller);
bool caller_is_connected(const struct caller *caller);

/* The program closes its session. on_end is not called. */
void caller_leave(struct caller *caller);

/* The program does not read for a while. */
void caller_stall(struct caller *caller, uint64_t ns);

/* Send a call, and return its msgid. arguments is a packed array, which is freed. */
uint32_t caller_send(struct caller *caller, const char *method, msgpack_sbuffer *arguments);

void caller_free(struct caller *caller);

/* --- Packing and reading --------------------------------------------------------------------------- */

/* Begin to pack the arguments of a call: an array of count elements. */
msgpack_packer caller_begin(msgpack_sbuffer *arguments, size_t count);

void pack_text(msgpack_packer *packer, const char *text);
void pack_binary(msgpack_packer *packer, const char *text);

/* An option: its name, and a number of seconds. */
void pack_seconds(msgpack_packer *packer, const char *name, uint64_t ns);

/* NULL: the object is no map, or has no such member. */
const msgpack_object *map_at(const msgpack_object *map, const char *name);

/* "" if it is no text. */
void copy_text(char *to, size_t size, const msgpack_object *from);

/* 0 if it is NULL, or no positive integer. */
uint64_t number_of(const msgpack_object *object);

/* false if it is no boolean. */
bool bool_of(const msgpack_object *object);

#endif
