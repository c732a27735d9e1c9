/*
 * observe: notifies observers of what this daemon has seen in a bucket, and of what it does to the bucket.
 *
 * The rooms bucket, read and write call it. They do not know who listens: follow keeps local copies as new as what
 * clients have seen, and compact removes old delete markers. Without an observer each function does nothing.
 */
#ifndef DAEMON_STORE_OBSERVE_H
#define DAEMON_STORE_OBSERVE_H

#include "daemon/nats/kv.h"
#include "daemon/store/context.h"

#include <stdbool.h>
#include <stdint.h>

/* Given an entry of memory, which lives until it returns. Returns whether the entry is of use. */
typedef bool observe_found_fn(void *arg, const struct kv_entry *entry);

/* What may happen. An observer leaves out what it does not need. */
struct observer_ops {
    void (*revision)(struct store *store, const char *bucket_name, const char *key, uint64_t revision, bool is_write);
    void (*entry)(struct store *store, const char *bucket_name, const struct kv_entry *entry);
    uint64_t (*known_revision)(struct store *store, const char *bucket_name, const char *key);
    bool (*find)(struct store *store, const char *bucket_name, const char *key, observe_found_fn *found, void *arg);
    void (*absent)(struct store *store, const char *bucket_name, const char *key, uint64_t known_revision,
                   bool is_certain);
    void (*marker)(struct store *store, const char *bucket_name, int64_t marker_ttl_s);
    void (*begin_change)(struct store *store, const char *bucket_name);
    void (*end_change)(struct store *store, const char *bucket_name, bool is_known);
    void (*opened)(struct store *store, const char *bucket_name, int64_t marker_ttl_s);
    void (*created)(struct store *store, const char *bucket_name);
};

/* One observer. The owner embeds it, and sets ops. */
struct observer {
    const struct observer_ops *ops;
    struct observer *next;
};

/* Add an observer. It stays until the end of the daemon. */
void observe_add(struct store *store, struct observer *observer);

/* --- Keys ------------------------------------------------------------------------------------------ */

/* A key was seen at a revision. is_write: this daemon wrote it; otherwise an answer of NATS had it. */
void observe_revision(struct store *store, const char *bucket_name, const char *key, uint64_t revision, bool is_write);

/* The last entry of a key was read. */
void observe_entry(struct store *store, const char *bucket_name, const struct kv_entry *entry);

/*
 * Return the revision at which the key is known already; 0: it is not. A reader asks it before it sends its question to
 * NATS, and gives it to observe_absent.
 */
uint64_t observe_known_revision(struct store *store, const char *bucket_name, const char *key);

/*
 * Look for the value of a key in memory. It may be older than the server's: for a write on the condition that the key
 * is unchanged. Return false if memory lacks it, or found returned false. found is called at most once.
 */
bool observe_find(struct store *store, const char *bucket_name, const char *key, observe_found_fn *found, void *arg);

/* NATS answered that the key is absent. is_certain: the answer is not of a replica that may be behind. */
void observe_absent(struct store *store, const char *bucket_name, const char *key, uint64_t known_revision,
                    bool is_certain);

/* This daemon wrote a delete marker. marker_ttl_s: the bucket's, after which markers are removed; 0: they stay. */
void observe_marker(struct store *store, const char *bucket_name, int64_t marker_ttl_s);

/* --- Buckets --------------------------------------------------------------------------------------- */

/*
 * This daemon is about to create, purge, update or delete the bucket, and the stream will have no message of the
 * change. Each begin needs one end.
 */
void observe_begin_change(struct store *store, const char *bucket_name);

/* The change is over. is_known: false if the server may still make it, on the present connection. */
void observe_end_change(struct store *store, const char *bucket_name, bool is_known);

/* The bucket was looked up, and exists. marker_ttl_s: see observe_marker. */
void observe_opened(struct store *store, const char *bucket_name, int64_t marker_ttl_s);

/* This daemon created the bucket. */
void observe_created(struct store *store, const char *bucket_name);

#endif
