/*
 * publish: what the simulated server does with a message to a stream's subject.
 *
 * The order of the checks is that of nats-server 2.15 for a stream with one replica (processJetStreamMsgWithBatch,
 * processJetStreamAtomicBatchMsg, checkMsgHeadersPreClusteredProposal).
 */
#ifndef SIM_PUBLISH_H
#define SIM_PUBLISH_H

#include "tests/sim/stream.h"

/* Store the message or refuse it. Return the answer to its reply subject, or NULL. The reference of packet is taken. */
struct packet *publish_receive(struct stream *stream, struct packet *packet);

#endif
