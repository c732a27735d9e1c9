/*
 * lease: keeps the keys of this daemon's sessions alive while the daemon renews it, as in etcd and Consul.
 *
 * Used by held_write and holding. The daemon has one lease in each bucket in which a session holds a lock or an
 * ephemeral key. It is a key of the bucket with an id that is used once. The keys of the sessions name it in a header.
 * The daemon renews it every third of locks.lease_ttl, with a conditional update, so that a lease that another daemon
 * has declared dead is never renewed again.
 *
 * The lease is vouched for until valid_until_ms: its TTL, counted from before the last renewal was sent. Nobody
 * declares it dead before that, because others count the same TTL from when they first saw that renewal
 * (foreign_lease). Both count by CLOCK_BOOTTIME, which goes on while the machine is suspended. A lease that could not
 * be renewed is lost before that time: the sessions are notified, and its keys are deleted.
 *
 * A daemon that restarts adopts the leases of its last run (lease_file), and deletes their keys. It keeps a key that
 * has an owner for a TTL, because the owner may come back.
 */
#ifndef DAEMON_STORE_LEASE_H
#define DAEMON_STORE_LEASE_H

#include "daemon/base/arena.h"
#include "daemon/store/bucket/bucket.h"
#include "daemon/store/lease/lease_bucket.h"
#include "daemon/store/lease/lease_scan.h"
#include "daemon/store/lease/lease_text.h"
#include "proto/error.h"

enum lease_state {
    LEASE_OPENING,
    LEASE_ALIVE,
    LEASE_ENDING /* its keys are deleted, then its own key */
};

/* What a lease is doing at NATS. One thing at a time. */
enum lease_work {
    LEASE_IDLE,
    LEASE_LOOKING_UP, /* the bucket */
    LEASE_NOTING,     /* in the file */
    LEASE_READING,    /* its own key */
    LEASE_WRITING     /* its own key */
};

struct lease {
    struct lease *next, *previous; /* in ending */
    struct lease_bucket *in;
    enum lease_state state;
    enum lease_work work;
    char id[LEASE_ID_BYTES];
    char key[LEASE_KEY_BYTES];
    uint64_t revision; /* of its key; 0: not known */
    uint64_t ttl_ms;
    uint64_t renewal;        /* number of the last one that was sent */
    uint64_t sent_ms;        /* clock_boot_ms before it was sent */
    uint64_t work_doubts;    /* of the bucket, when the last work on its key began */
    uint64_t known_doubts;   /* of the bucket, when that work began which has shown last that the lease is alive */
    uint64_t valid_until_ms; /* by clock_boot_ms */
    uint64_t renew_ms;       /* loop time of the next attempt to renew it, or to end it */
    uint64_t check_ms;       /* loop time of the next look at the keys of locks, if the bucket is not followed */
    uint64_t unused_ms;      /* loop time since which no key refers to it; 0: one does */
    unsigned references;     /* holdings, and writes that may become some */
    bool is_adopted;         /* of the last run */
    bool is_foreign;         /* the dead lease of another daemon */
    bool is_given_up;        /* its keys are not touched: another process has adopted it, or it may be alive again */
    bool needs_scan;         /* there may be keys that name it and have no holding */
    bool allows_ttl;         /* the bucket does */
    bool is_exclusive;       /* it is: only this daemon changes it */
    struct bucket_wait wait;
    struct jetstream_call settings; /* looks at the bucket's settings */
    struct lease_scan scan;
    uint64_t scan_doubts; /* of the bucket, when the scan began */
    bool is_losing;       /* a pass takes its holdings away; no session gets another one */
    struct error lost;    /* why */
    struct arena arena;   /* of the present work */
    struct lease_wait *waits;
};

/* A wait for the lease of a bucket. The owner embeds it, zeroed. */
struct lease_wait {
    struct lease_wait *next, *previous;
    struct lease_bucket *in; /* NULL: it does not wait */
    struct lease *lease;     /* that it waits for, or gets; NULL: it gets an error */
    bool is_answered;        /* it is in in->answered */
    struct timer timer;
    void (*ready)(void *arg, struct lease *lease, const struct error *error);
    void *arg;
};

/*
 * Call ready once, maybe from within, with the bucket's lease, which is vouched for and not in doubt, or with an error.
 */
void lease_obtain(struct lease_bucket *in, struct lease_wait *wait, uint64_t deadline_ms,
                  void (*ready)(void *arg, struct lease *lease, const struct error *error), void *arg);

/* Does nothing if ready was called. */
void lease_cancel_wait(struct lease_wait *wait);

/* Count one reference to the lease more, or less. A lease without references ends after a TTL. */
void lease_retain(struct lease *lease);
void lease_release(struct lease *lease);

/* Return for how long the lease is still vouched for, in ms; 0: it is not. */
uint64_t lease_valid_for_ms(const struct lease *lease);

/* Return the lease with this id, if this daemon has it in the bucket, or is ending it; NULL: neither. */
struct lease *lease_find(const struct lease_bucket *in, const char *id);

/* A message of the lease's key was delivered: if this daemon has not written it, look at the key at once. */
void lease_note_entry(struct lease *lease, const struct kv_entry *entry);

/*
 * A key names the lease. If no holding is of that write, the key becomes one: it waits for its owner, who may come
 * back, or is deleted. It was found by a scan, or its write has come late, after all looks for it.
 */
void lease_note_key(struct lease *lease, const struct kv_entry *entry);

/*
 * The bucket may be another one now, or have lost messages: what was known of it is in doubt. Look at its lease and at
 * all keys that name it.
 */
void lease_doubt(struct lease_bucket *in);

/* Adopt a lease of the daemon's last run. */
void lease_adopt(struct lease_bucket *in, const char *id);

/* Delete the keys of another daemon's lease, which is dead, and then its own. */
void lease_end_foreign(struct lease_bucket *in, const char *id);

/* Do the periodic work of the bucket's leases. */
void lease_tick(struct lease_bucket *in);

/* Return whether the bucket has a lease of this daemon, or one that ends. */
static inline bool lease_any(const struct lease_bucket *in)
{
    return in->lease != NULL || in->ending != NULL;
}

/* If lease->needs_scan, make holdings of the keys that name the lease. Does nothing while that is in progress. */
void lease_find_keys(struct lease *lease);

/* The same once more, even if it is in progress: keys may be back, or were left out. */
void lease_find_keys_again(struct lease *lease);

/* --- For lease_key and lease_end ------------------------------------------------------------------- */

/* Return the loop's time. */
uint64_t lease_now(const struct lease *lease);

/* Return when the work on a lease that is not alive should be over. */
uint64_t lease_opening_deadline_ms(const struct lease *lease);

/* Try again after a pause. */
void lease_retry_later(struct lease *lease);

/* Free it. Nothing may refer to it. */
void lease_free(struct lease *lease);

/* Free all leases of the bucket, when the daemon ends. */
void lease_free_all(struct lease_bucket *in);

#endif
