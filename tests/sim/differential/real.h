/*
 * real: a nats-server of its own, and a connection to it.
 *
 * If it cannot be started, or does not answer as a server does, the process ends with a message.
 */
#ifndef SIM_REAL_H
#define SIM_REAL_H

#include "tests/sim/packet.h"

/* Start the program, with a store in an empty directory. What it prints is in nats.log there. Both are borrowed. */
void real_start(const char *program, const char *directory);

/* Shut it down, and start it again with the same store. */
void real_restart(void);
void real_stop(void);

void real_send(const struct packet *request);

/* Return the next answer, or NULL: none has come for wait_ms. */
struct packet *real_receive(int64_t wait_ms);

#endif
