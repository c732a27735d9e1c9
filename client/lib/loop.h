/*
 * loop: one turn of a handle, and what to wait for between turns.
 *
 * Used by the blocking calls, which wait here, and by programs with a loop of their own (kvs_process).
 */
#ifndef CLIENT_LOOP_H
#define CLIENT_LOOP_H

#include "client/lib/handle.h"

/* Do what can be done without waiting. As kvs_process, but allowed inside a callback. */
enum kvs_code loop_turn(struct kvs *kvs);

/* Wait until there is something to do, for at most timeout_ms; -1: no limit. */
void loop_wait(struct kvs *kvs, int timeout_ms);

/* Wait until there is something to do or the moment until_ms has come (INT64_MAX: never), then do it. */
void loop_wait_and_turn(struct kvs *kvs, int64_t until_ms);

/* Return the milliseconds after which a turn is due even if the socket is silent; -1: never. */
int loop_timeout_ms(const struct kvs *kvs);

#endif
