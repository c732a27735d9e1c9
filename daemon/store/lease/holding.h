/*
 * holding: a key that lives as long as the session that wrote it: a lock, or an ephemeral key.
 *
 * Used by held_write, which makes them, and by the handlers. A holding ends with its session: its key is deleted, on
 * the condition that it is still at the revision that the holding knows. A holding with an owner stays for the lease's
 * TTL, until the same owner comes back. The revision of a lock is its token.
 */
#ifndef DAEMON_STORE_HOLDING_H
#define DAEMON_STORE_HOLDING_H

#include "daemon/base/arena.h"
#include "daemon/base/table.h"
#include "daemon/base/timers.h"
#include "daemon/nats/kv.h"
#include "daemon/store/lease/lease.h"
#include "proto/error.h"

enum holding_kind { HOLDING_LOCK, HOLDING_EPHEMERAL };

enum holding_state {
    HOLDING_NEW,
    HOLDING_HELD,
    HOLDING_ORPHANED, /* its session has ended, and its owner may come back */
    HOLDING_LOST,     /* a lock whose session is notified of the loss, and which nobody else may have yet */
    HOLDING_ENDING    /* its key is being deleted, or was found and is looked at */
};

/*
 * The holding is lost: a lock's lease can no longer be vouched for, or somebody else has changed the key. The holding
 * is gone after the call.
 */
typedef void holding_lost_fn(void *arg, const struct error *error);

struct holding {
    UT_hash_handle hh; /* by its key */
    struct lease *lease;
    enum holding_state state;
    enum holding_kind kind;
    bool is_known;                 /* in the table; not if another holding of the key has replaced it */
    uint64_t revision;             /* 0: not known, whether the key was written is in doubt */
    char owner[LEASE_OWNER_BYTES]; /* "": none */
    uint64_t session;              /* that has acquired the lock: see arena.owner; 0: none */
    char *value;                   /* of a lock, at most LOCK_VALUE_MAX bytes; NULL: not known */
    size_t value_bytes;
    holding_lost_fn *lost; /* of HOLDING_HELD */
    void *arg;
    struct timer timer;               /* of HOLDING_ORPHANED and HOLDING_LOST */
    uint64_t vouched_until_ms;        /* of HOLDING_LOST: by clock_boot_ms */
    struct holding_release *releases; /* those who wait for the deletion */
    struct holding **line;            /* that it is in: in->line or in->checks; NULL: in neither */
    struct holding *next_in_line, *previous_in_line;
    bool is_working;           /* its key is being looked at or deleted */
    bool is_noted;             /* the lease file has its deletion */
    struct arena arena;        /* of that */
    uint64_t changed_revision; /* what was delivered of the key during a look; 0: nothing */
    bool was_put;              /* a value, or a marker */
    bool was_ours;             /* a value that names the lease */
    bool is_overwritten;       /* the holding is lost because another client has written the key */
    bool is_seen;              /* its message was delivered */
    bool is_doubtful;          /* of HOLDING_HELD: it is not known whether the key was written again */
    bool awaits_owner;         /* of HOLDING_ENDING: if the key is still there, it waits for its owner */
    uint64_t looked_doubts;    /* of the bucket, when the present look began */
    uint64_t doubts; /* of the bucket, when it was last known that the key is the holding's; UINT64_MAX: never */
    unsigned looks;  /* at a key that was in doubt */
    char key[];
};

/* A wait for the deletion of a key. The owner embeds it, zeroed. */
struct holding_release {
    struct holding_release *next, *previous;
    struct holding *holding; /* NULL: it does not wait */
    void (*done)(void *arg);
    void *arg;
};

/* Return the holding of a key; NULL: this daemon has none. */
struct holding *holding_find(const struct lease_bucket *in, const char *key);

/*
 * Make a holding of a key that was written with the lease, for a session that attaches itself. It replaces an earlier
 * one. NULL: out of memory.
 */
struct holding *holding_add(struct lease *lease, enum holding_kind kind, const char *key, uint64_t revision,
                            const char *owner);

/* Note the value of a lock, so that others learn from memory who holds it. */
void holding_note_value(struct holding *holding, const char *value, size_t bytes);

/* A key was found that names the lease: delete it, or keep it for a while for its owner. */
void holding_add_found(struct lease *lease, const struct kv_entry *entry, bool awaits_owner);

/*
 * A write of the key has ended, and it is not known whether the key names the lease: find out, and delete it then, or
 * keep it for its owner, if it may be that of an earlier write.
 */
void holding_add_doubtful(struct lease *lease, const char *key, bool may_await_owner);

/* Return whether its owner may have it in another session. */
bool holding_can_be_attached(const struct holding *holding);

/* Give the holding to a session. A former session of the same owner is notified that it has lost it. */
void holding_attach(struct holding *holding, holding_lost_fn *lost, void *arg);

/* The session has ended: the key is deleted, or waits for its owner. lost is no longer called. */
void holding_leave(struct holding *holding);

/*
 * Notify the session that the holding is lost, and delete the key. That of a lock is not deleted before the time is
 * over for which the lease is vouched for: the session may not have read the notification yet.
 */
void holding_take_away(struct holding *holding, const struct error *error);

/* The same, but its key is not deleted within the call. For holding_pass. */
void holding_lose(struct holding *holding, const struct error *error);

/* The sessions that lost holdings have ended: delete the keys now. */
void holding_end_lost(struct lease_bucket *in);

/* Delete the key, whoever owns it. lost is no longer called. */
void holding_end(struct holding *holding);

/* The same as holding_end, and call done when the key is gone. */
void holding_release(struct holding *holding, struct holding_release *release, void (*done)(void *arg), void *arg);
void holding_cancel_release(struct holding_release *release);

/* A change of the bucket was delivered. */
void holding_note_entry(struct lease_bucket *in, const struct kv_entry *entry);

/* Return whether all deletions are done, and more come only when sessions end that still have holdings. */
bool holding_is_idle(const struct lease_bucket *in);

/* Free all, when the daemon ends. */
void holding_free_all(struct lease_bucket *in);

#endif
