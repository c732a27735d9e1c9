/*
 * held_write: writes a key that lives with the daemon's lease, and makes a holding of it.
 *
 * Used by lock, and by the handlers for ephemeral keys. It obtains the bucket's lease first. If the lease is lost
 * before the write is acknowledged, the key is deleted, and the write has failed.
 */
#ifndef DAEMON_STORE_HELD_WRITE_H
#define DAEMON_STORE_HELD_WRITE_H

#include "daemon/store/lease/holding.h"
#include "daemon/store/write/write.h"

struct held_write {
    /* Set by the caller; borrowed until done was called. */
    struct lease_bucket *in;
    enum holding_kind kind;
    const char *owner; /* NULL: none */
    struct operation operation;
    uint64_t deadline_ms;
    /*
     * The holding, whose lost and arg are still to be set by holding_attach; or an error. Neither: the write of an
     * ephemeral key is stored, and another one of this daemon, to which the key belongs now, came after it.
     */
    void (*done)(void *arg, struct holding *holding, const struct error *error);
    void *arg;

    uint64_t revision; /* of the key, when done is called without an error */

    /* private */
    struct arena *arena;
    struct arena_task task;
    UT_hash_handle hh; /* by its key, while it is being written: several may have the same one */
    struct lease *lease;
    uint64_t doubts;             /* of the bucket, when it was sent */
    uint64_t revision_before;    /* of the holding of the key, when it was sent; 0: there was none */
    uint64_t delivered_revision; /* of the last message of the key that was delivered since; 0: none */
    bool was_met;                /* a key was found that may be its own */
    struct lease_wait wait;
    struct write write;
};

/* Write. *held is zeroed but for what the caller sets. It and the arena live until done was called. */
void held_write_start(struct arena *arena, struct held_write *held);

/* A message of the bucket was delivered, maybe before the acknowledgement of a write. */
void held_write_note_entry(const struct lease_bucket *in, const struct kv_entry *entry);

/*
 * A key was found that names the lease. Return whether a write of it with that lease is in progress. If it ends without
 * a holding, the key is looked at again.
 */
bool held_write_meet(const struct lease *lease, const char *key);

/* Return whether a write of the key with a lease is in progress. */
bool held_write_is_in_progress(const struct lease_bucket *in, const char *key);

#endif
