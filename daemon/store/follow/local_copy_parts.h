/*
 * local_copy_parts: what the files of a replica share, and nobody else sees.
 *
 * replica.c has its life, its feed and what it tells; freshness.c what may be answered from it; survey.c the readings
 * of all that a bucket has, beside the feed; following.c the buckets that the configuration names.
 */
#ifndef DAEMON_STORE_REPLICA_PARTS_H
#define DAEMON_STORE_REPLICA_PARTS_H

#include "daemon/store/follow/local_copy.h"
#include "daemon/store/follow/state.h"

/* How often replicas look whether there is something to do. */
#define REPLICA_TICK_MS 1000u

/* The feed waits for a reading of all there is. */
bool local_copy_is_before_feed(const struct local_copy *copy);

/* Tell the watches. Return whether one of them may want to be told of such a key. */
bool local_copy_tell(struct local_copy *copy, const struct kv_entry *entry);

/* The same of an entry that may have a lower revision than watches were told. */
bool local_copy_tell_again(struct local_copy *copy, const struct kv_entry *entry);

/* The key is not in the stream any more, and no message said so: it leaves the cache, and watches are told. */
void local_copy_vanish(struct local_copy *copy, struct cache_key *key);

/*
 * When an entry expires by the bucket's age or its own TTL, in us since the epoch; 0: never. -1: its TTL is not
 * understood, and its value must not be kept.
 */
int64_t local_copy_expiry_of(const struct local_copy *copy, const struct kv_entry *entry);

/* Whether all watches have read what they were told, but for a part that is not worth waiting for. */
bool local_copy_has_room(const struct local_copy *copy);

/* Begin watches that waited, if the bucket is followed and no sweep is under way: what they were told might vanish. */
void local_copy_begin_watches(struct local_copy *copy);

/* Takes an entry into the cache; where there is no room for the keys alone, the cache is given up. */
void local_copy_take(struct local_copy *copy, const struct kv_entry *entry);

/* All is there once the load is done and the feed has come up to it: then the cache may answer. */
void local_copy_settle(struct local_copy *copy);

/* Nothing is answered from memory before a look at the bucket, which begins if it can. */
void local_copy_distrust(struct local_copy *copy);

/* --- freshness.c --- */

/* The feed has brought something: those who waited for it go on, at the end of the turn. */
void local_copy_wake(struct local_copy *copy);
/* Nothing comes any more. */
void local_copy_end_waits(struct local_copy *copy);

/* Reads of all keys wait until the feed has brought this revision. */
void local_copy_raise_floor(struct local_copy *copy, uint64_t revision);
void local_copy_drop_floors(struct local_copy *copy);
/* Those that the feed has reached. */
void local_copy_drop_reached_floors(struct local_copy *copy);
/* The key's entry is a new one: it is not in doubt any more. */
void local_copy_drop_doubt(struct local_copy *copy, const char *key);
/* A look at all keys has been: none is in doubt any more. */
void local_copy_drop_doubts(struct local_copy *copy);

/* --- changes.c --- */

/* Whether a change of the bucket that leaves no messages is under way. */
bool local_copy_is_changing(const struct local_copy *copy);

/* Ends the bucket's unanswered changes if the server has closed their connection. */
void local_copy_end_doubt(struct local_copy *copy);

/* --- survey.c --- */

/* Reads all keys and values. */
void local_copy_load(struct local_copy *copy);
/* Looks for what vanished, if it is time, or wanted, and possible now. */
void local_copy_check_if_possible(struct local_copy *copy);
void local_copy_stop_reading(struct local_copy *copy);

#endif
