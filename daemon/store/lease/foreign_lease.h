/*
 * foreign_lease: the leases of other daemons in a bucket, and which of them are dead.
 *
 * Used by lock, which waits for their end, and by lease_bucket. A lease is dead if its key says so. If the key has not
 * changed for the lease's TTL, or has been absent for that long, this daemon declares the lease dead by a conditional
 * update of the key: after that, the lease's daemon cannot renew it. This is safe because that daemon vouches for the
 * lease for a shorter time: it counts the TTL from before it sent the renewal that is seen here.
 */
#ifndef DAEMON_STORE_FOREIGN_LEASE_H
#define DAEMON_STORE_FOREIGN_LEASE_H

#include "daemon/base/arena.h"
#include "daemon/base/jobs.h"
#include "daemon/base/table.h"
#include "daemon/store/lease/lease_bucket.h"
#include "daemon/store/lease/lease_text.h"
#include "proto/error.h"

enum foreign_lease_state {
    FOREIGN_LEASE_UNKNOWN,
    FOREIGN_LEASE_ALIVE, /* as far as is known */
    FOREIGN_LEASE_DEAD
};

struct foreign_lease {
    UT_hash_handle hh; /* by its id */
    struct lease_bucket *in;
    enum foreign_lease_state state;
    bool is_asking;    /* its key is being read or written */
    bool is_removed;   /* its key is gone */
    bool is_named;     /* a key that names it was written after that, or while it was not known */
    uint64_t revision; /* of its key */
    uint64_t seen_ms;  /* clock_boot_ms when this revision was seen first */
    uint64_t ttl_ms;
    uint64_t used_ms;      /* loop time of the last question */
    uint64_t asked_doubts; /* of the bucket, when its key was read or written last */
    uint64_t chance;       /* a random number: daemons declare an abandoned lease dead at different times */
    struct foreign_lease_wait *waits;
    struct foreign_lease_wait *last_waited; /* the last one that the present answer is for; NULL: all have it */
    struct job answering;                   /* gives it to them, a slice at a time */
    struct error failure;                   /* the answer, if its code is not ERROR_NONE */
    struct arena arena;
    char id[LEASE_ID_BYTES];
    char key[LEASE_KEY_BYTES];
};

/* A question whether a lease is dead. The owner embeds it, zeroed. */
struct foreign_lease_wait {
    struct foreign_lease_wait *next, *previous;
    struct foreign_lease *lease; /* NULL: it does not wait */
    /*
     * is_dead: it will never be renewed again. Otherwise it may be alive, and after expires_in_ms it can be declared
     * dead, if it is not renewed: then ask again.
     */
    void (*answered)(void *arg, bool is_dead, uint64_t expires_in_ms, const struct error *error);
    void *arg;
};

/* Ask. answered is called once, maybe from within. A lease whose time is up is declared dead. */
void foreign_lease_ask(struct lease_bucket *in, const char *id, struct foreign_lease_wait *wait);
void foreign_lease_cancel_wait(struct foreign_lease_wait *wait);

/* A message of a lease's key was delivered. */
void foreign_lease_note_entry(struct lease_bucket *in, const char *id, const struct kv_entry *entry);

/*
 * A key that names the lease was delivered. Its write may have been stored late, after the lease had ended and its keys
 * were deleted. In that case the tick ends the lease once more, which deletes the key.
 */
void foreign_lease_note_key(struct lease_bucket *in, const char *id);

/* The server may have lost messages: what was seen of all leases says nothing. They are listed again. */
void foreign_lease_forget_all(struct lease_bucket *in);

/* This daemon has deleted the keys of a dead lease, and the lease's own is gone. */
void foreign_lease_note_ended(struct lease_bucket *in, const char *id);

/* Return whether something is being found out or written of a lease. */
bool foreign_lease_any_busy(const struct lease_bucket *in);

/* Declare leases dead that nobody has renewed for long, and delete their keys. */
void foreign_lease_tick(struct lease_bucket *in);

void foreign_lease_free_all(struct lease_bucket *in);

#endif
