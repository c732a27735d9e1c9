/*
 * consumers: pull consumers of the simulated server, in memory and without acknowledgements.
 */
#ifndef SIM_CONSUMERS_H
#define SIM_CONSUMERS_H

#include "tests/sim/link.h"
#include "tests/sim/stream.h"

/* CONSUMER.CREATE, with its body. Return the answer. */
json_t *consumers_create(struct stream *stream, const char *name, json_t *request);

/* CONSUMER.DELETE. Return whether it was there. */
bool consumers_delete(struct stream *stream, const char *name);

/* CONSUMER.MSG.NEXT. Return whether there is such a consumer. */
bool consumers_pull(struct stream *stream, const char *name, struct link *link, const char *reply, json_t *request);

/* The stream has new messages. */
void consumers_on_stored(struct stream *stream);

/* The server's process has ended, or the stream was deleted (stream; NULL: any). */
void consumers_drop(const struct stream *stream);

/* In a cluster a node has failed: its consumers are gone, without a word. */
void consumers_lose_some(const struct server *server);

void consumers_forget_all(void);

#endif
