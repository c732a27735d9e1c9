/*
 * replica_parts: what the files of a replica share, and nobody else sees.
 *
 * replica.c has its life, its feed and what it tells; freshness.c what may be answered from it; survey.c the readings
 * of all that a bucket has, beside the feed; following.c the buckets that the configuration names.
 */
#ifndef DAEMON_STORE_REPLICA_PARTS_H
#define DAEMON_STORE_REPLICA_PARTS_H

#include "daemon/store/follow/local_copy.h"

/* How often replicas look whether there is something to do. */
#define REPLICA_TICK_MS 1000u

/* The feed waits for a reading of all there is. */
bool replica_is_before_feed(const struct replica *replica);

/* Tell the watches. Return whether one of them may want to be told of such a key. */
bool replica_tell(struct replica *replica, const struct kv_entry *entry);

/* The same of an entry that may have a lower revision than watches were told. */
bool replica_tell_again(struct replica *replica, const struct kv_entry *entry);

/* The key is not in the stream any more, and no message said so: it leaves the cache, and watches are told. */
void replica_vanish(struct replica *replica, struct cache_key *key);

/*
 * When an entry expires by the bucket's age or its own TTL, in us since the epoch; 0: never. -1: its TTL is not
 * understood, and its value must not be kept.
 */
int64_t replica_expiry_of(const struct replica *replica, const struct kv_entry *entry);

/* Whether all watches have read what they were told, but for a part that is not worth waiting for. */
bool replica_has_room(const struct replica *replica);

/* Begin watches that waited, if the bucket is followed and no sweep is under way: what they were told might vanish. */
void replica_begin_watches(struct replica *replica);

/* Takes an entry into the cache; where there is no room for the keys alone, the cache is given up. */
void replica_take(struct replica *replica, const struct kv_entry *entry);

/* All is there once the load is done and the feed has come up to it: then the cache may answer. */
void replica_settle(struct replica *replica);

/* Nothing is answered from memory before a look at the bucket, which begins if it can. */
void replica_distrust(struct replica *replica);

/* --- freshness.c --- */

/* The feed has brought something: those who waited for it go on, at the end of the turn. */
void replica_wake(struct replica *replica);
/* Nothing comes any more. */
void replica_end_waits(struct replica *replica);

/* Reads of all keys wait until the feed has brought this revision. */
void replica_raise_floor(struct replica *replica, uint64_t revision);
void replica_drop_floors(struct replica *replica);
/* Those that the feed has reached. */
void replica_drop_reached_floors(struct replica *replica);
/* The key's entry is a new one: it is not in doubt any more. */
void replica_drop_doubt(struct replica *replica, const char *key);
/* A look at all keys has been: none is in doubt any more. */
void replica_drop_doubts(struct replica *replica);

/* --- changes.c --- */

/* Whether a change of the bucket that leaves no messages is under way. */
bool replica_is_changing(const struct replica *replica);

/* Ends the bucket's unanswered changes if the server has closed their connection. */
void replica_end_doubt(struct replica *replica);

/* --- survey.c --- */

/* Reads all keys and values. */
void replica_load(struct replica *replica);
/* Looks for what vanished, if it is time, or wanted, and possible now. */
void replica_check_if_possible(struct replica *replica);
void replica_stop_reading(struct replica *replica);

#endif
