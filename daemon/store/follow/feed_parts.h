/*
 * What the parts of a feed share. feed.c: the consumer and its messages. feed_missing.c: messages that the stream has
 * had, and that do not come.
 */
#ifndef DAEMON_STORE_FEED_PARTS_H
#define DAEMON_STORE_FEED_PARTS_H

#include "daemon/store/follow/feed.h"

/* --- feed.c ---------------------------------------------------------------------------------------- */

/* Give up the consumer: it is recreated after a backoff. */
enum request_verdict feed_lose(struct feed *feed, enum request_trouble trouble);

bool feed_pull(struct feed *feed, unsigned messages, long long expires_ns, unsigned beat_ms);

/* --- feed_missing.c -------------------------------------------------------------------------------- */

/* Cancel the question to the leader, and forget what it has answered. */
void feed_forget_question(struct feed *feed);

/* The consumer's server has nothing more: the feed may be live. It may be stopped afterwards. */
void feed_note_nothing_pending(struct feed *feed);

/* Note a heartbeat. The feed may be stopped afterwards. */
void feed_note_idle(struct feed *feed);

/* Return whether the stream has had messages after the position. */
bool feed_misses_messages(const struct feed *feed);

/* Request heartbeats if a message is missing, and the feed has none. */
void feed_listen_closely(struct feed *feed);

#endif
