/*
 * attack: what a careless or malicious program can do to the daemon, for a given time.
 *
 * Used by the suite neighbour of tests/integration, and by the benchmark: both measure the effect on the client of
 * neighbour.h. The daemon may defend itself as it likes: the attack's calls may fail, and its sessions may be ended.
 * Then it connects again. Nothing here needs Check.
 */
#ifndef SUPPORT_ATTACK_H
#define SUPPORT_ATTACK_H

#include <stdint.h>

struct kvs;

#define ATTACK_BUCKET "attack"

struct attack {
    const char *socket_path;
    const char *neighbour_bucket; /* the one that the neighbour uses */
    unsigned port;                /* of the embedded nats-server; only for attack_wrong_logins */
    double seconds;
    char error[512]; /* "", or why there was no attack: a mistake in the attack itself */
};

struct attack_kind {
    const char *name;
    void (*prepare)(struct attack *attack, struct kvs *kvs); /* NULL: nothing to prepare */
    void (*run)(struct attack *attack);
};

extern const struct attack_kind
    /* Many sessions, each with a message of 16 MB whose end never comes. */
    attack_unfinished_messages,
    /* Many sessions that ask for 20 MB each and read nothing of it. */
    attack_unread_answers,
    /* Arrays whose values take many times as much memory as they take in the message. */
    attack_decoded_arrays,
    /* Watches on another bucket that start and stop, 50 at a time. */
    attack_watch_churn,
    /* 128 calls of bulk.put with 1,000 keys each, in the neighbour's bucket and in another one. */
    attack_bulk_put_same_bucket, attack_bulk_put_other_bucket,
    /* 4,000 puts of 4 KB in flight on each of eight sessions, in the neighbour's bucket. */
    attack_puts,
    /* bulk.get whose answers have 15 MB each. */
    attack_bulk_get,
    /* Transactions of 1,000 operations, and of one operation and 4,096 checks. */
    attack_transactions, attack_checks,
    /* Cached reads of 2,000 buckets that do not exist. */
    attack_missing_buckets,
    /* Connections that are closed as soon as they are made. */
    attack_connections,
    /* At the port of the embedded server: wrong passwords, and connections that say nothing. */
    attack_wrong_logins,
    /* 1,500 times a JSON value of 600 kB from each of four sessions. */
    attack_json_values,
    /* The first key of 100,000 in memory. */
    attack_keys_limit_one,
    /* Pages of 1,000 entries, and pages without any, of 100,000 keys in memory. */
    attack_entries,
    /* Eight sessions that delete all keys of a bucket, and write some again. */
    attack_deletions,
    /* bucket.list with a filter that has a star for every other character. */
    attack_bucket_filters,
    /* 10,000 times a key that is not there. */
    attack_missing_keys,
    /* 5,000 times a key's history. */
    attack_histories,
    /* 1,000 watches with 64 filters each on the neighbour's bucket. */
    attack_watch_filters,
    /* Sessions that close with thousands of calls in flight. */
    attack_leaving,
    /* 8 sessions that acquire the same 300 locks, leave, and come back. */
    attack_lock_churn,
    /* 10,000 waits for one lock; and those of sessions that leave and come back. */
    attack_lock_waiters, attack_leaving_waiters;

/* Create ATTACK_BUCKET with what the attack needs. Delete what was there before. */
void attack_prepare(const struct attack_kind *kind, struct attack *attack);

/* Attack for attack->seconds. */
void attack_run(const struct attack_kind *kind, struct attack *attack);

#endif
