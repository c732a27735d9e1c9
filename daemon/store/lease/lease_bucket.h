/*
 * lease_bucket: what this daemon knows of the leases and locks of one bucket.
 *
 * Used by the files of this room. It exists while the daemon has a lease in the bucket, or has to do with another
 * daemon's, and for some time after that. Its tick renews and ends leases; its listener is notified of every change of
 * the bucket.
 */
#ifndef DAEMON_STORE_LEASE_BUCKET_H
#define DAEMON_STORE_LEASE_BUCKET_H

#include "daemon/base/jobs.h"
#include "daemon/base/table.h"
#include "daemon/base/timers.h"
#include "daemon/nats/kv.h"
#include "daemon/nats/request.h"
#include "daemon/store/context.h"
#include "daemon/store/follow/local_copy.h"
#include "daemon/store/observe.h"
#include "daemon/store/read/get.h"

#include <stdbool.h>
#include <stdint.h>

struct lease;
struct lease_wait;
struct holding;
struct lock;
struct held_write;
struct foreign_lease;
struct lease_scan;

struct lease_bucket {
    UT_hash_handle hh; /* by its name */
    char name[KV_BUCKET_LENGTH_MAX + 1];
    struct store *store;
    struct lease *lease;         /* that new keys get; NULL: there is none yet */
    struct lease *ending;        /* leases whose keys are being deleted */
    struct holding *holdings;    /* by key */
    struct lease_wait *answered; /* that get the lease, or an error, a slice at a time */
    struct job answering;
    struct error open_error;     /* that they get */
    struct holding *line;        /* holdings that end: their keys are to be looked at or deleted */
    struct holding *checks;      /* holdings that sessions have: their keys are to be looked at */
    unsigned turn;               /* counts the holdings that were taken while both lines had some */
    unsigned working;            /* holdings whose keys are being looked at or deleted */
    struct job passing;          /* see holding_pass */
    struct holding *next_passed; /* the next holding that it visits; NULL: the pass is over */
    unsigned pass_kinds;         /* of the present pass; 0: there is none */
    unsigned next_pass_kinds;
    uint64_t doubts;              /* how often the bucket may have become another one, or lost messages */
    unsigned lost;                /* holdings that are lost and not yet in line */
    uint64_t deleted_revision;    /* of the last marker of this daemon that is stored; 0: it was delivered */
    struct held_write *writes;    /* in progress, by key */
    struct lock *locks;           /* by name: those for which somebody waits */
    struct foreign_lease *others; /* by id */
    uint64_t seen_on;             /* number of the connection on which these were seen; 0: none was */
    struct local_copy_listener listener;
    bool needs_listing;
    uint64_t listing_doubts;    /* when it began */
    struct lease_scan *listing; /* of the leases of other daemons; NULL: it is not running */
    struct timer tick;
    unsigned claims;  /* see lease_bucket_claim */
    bool was_opened;  /* it had a lease */
    uint64_t used_ms; /* loop time of the last use */
};

/* What the room keeps for the whole daemon. */
struct leases {
    struct store *store;
    struct lease_bucket *buckets; /* uthash */
    struct request_limit scans;   /* for the keys of ended leases */
    struct lease_file *file;
    unsigned working; /* of all buckets */
    struct observer observer;
    bool is_draining;        /* the daemon ends: waits for locks are refused */
    bool is_ended;           /* nothing new is begun */
    void (*idle)(void *arg); /* see leases_await_idle; NULL: not wanted */
    void *idle_arg;
    struct job checking_idle;
    struct {
        unsigned held, waiting;
        uint64_t acquired, lost, declared_dead, renewals;
    } counts;
};

/* Return the state of a bucket; create it if there is none. NULL: out of memory. */
struct lease_bucket *lease_bucket_obtain(struct store *store, const char *bucket);

/* Return the state of a bucket; NULL: there is none. */
struct lease_bucket *lease_bucket_find(struct store *store, const char *bucket);

/* The bucket has a lease: follow its changes from now on, if there is a place. */
void lease_bucket_listen(struct lease_bucket *in);

/*
 * Someone who has a key in the bucket, or is about to, counts it among the buckets that a user has followed, until
 * lease_bucket_unclaim. It exists meanwhile. Without a claim it is followed only while no other bucket needs the place.
 */
void lease_bucket_claim(struct lease_bucket *in);
void lease_bucket_unclaim(struct lease_bucket *in);

/* What was known of the bucket is in doubt. lease_doubt has the consequences for the lease of this daemon. */
void lease_bucket_doubt(struct lease_bucket *in);

/* List the leases of other daemons once more. */
void lease_bucket_list_again(struct lease_bucket *in);

/* Return whether every change of the bucket is delivered at once. */
bool lease_bucket_is_followed(const struct lease_bucket *in);

/* A key of a holding was deleted, and its marker has this revision. */
void lease_bucket_note_deletion(struct lease_bucket *in, uint64_t revision);

/* Keep the state for a while. */
void lease_bucket_note_use(struct lease_bucket *in);

/* Read the last message of a key from the stream's leader; a marker is an absent key. False: out of memory. */
bool lease_bucket_read(struct lease_bucket *in, struct arena *arena, const char *key, uint64_t deadline_ms,
                       get_done_fn *done, void *arg);

/*
 * Return whether a deletion of a key, on the condition that it is at a revision, is not to be tried again: it is done,
 * the key has changed, or it cannot be deleted.
 */
bool lease_bucket_deletion_is_over(const struct error *error);

/* End the bucket's business at once, when the daemon ends. Nothing is deleted. */
void lease_bucket_free(struct lease_bucket *in);

#endif
