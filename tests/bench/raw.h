/*
 * raw: a plain socket that speaks the NATS protocol with as little overhead as possible.
 *
 * Used by the rows whose peer is NATS itself, without any library.
 */
#ifndef TESTS_BENCH_RAW_H
#define TESTS_BENCH_RAW_H

#include <stdint.h>

/* Connect to the server on the port of 127.0.0.1, and log in. */
int raw_connect(int port);

/* Atomic batches (ADR-50) of so many messages, on the keys txn.1, txn.2, … */
struct raw_batch;
struct raw_batch *raw_batch_open(int port, unsigned messages);

/* Write a batch of values with that number, and wait for its ack. Return the last message's sequence. */
uint64_t raw_batch_commit(struct raw_batch *batch, unsigned number);

#endif
