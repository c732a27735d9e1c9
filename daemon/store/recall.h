/*
 * recall: entries that were read before, answered again once the server has said that they are still so.
 *
 * Used by coalesce and bulk_get; each bucket's handle has one. To read an entry that is stored with a header, as all
 * are that the daemon writes, costs the server some ten times what it costs to look where its last message is. So
 * entries that are read again are remembered, and when many of them are asked for once more, the server is asked only
 * whether they are still the last of their keys, with two reads of many keys (ADR-31), of which each is of one moment:
 *
 *   1. The first one asks for those that are newer than all that is known of the keys, and mostly brings none.
 *   2. The other one is cut after one entry. It tells how many of the keys have an entry, and shows the oldest of
 * these.
 *
 * Both tell the stream's last sequence. Where that has not moved between them but by writes of our own to other keys,
 * nothing was stored under these: each had the entry that is remembered, or none, and when as many have one as are
 * asked for, each has it, at the moment of the second read. Where others wrote meanwhile, nothing is proven, and the
 * entries are read. That the oldest one is just as remembered, to its time, tells that it is still the same stream, and
 * not one that took its name; and entries are added to those that are there only when a read has shown one of these as
 * well. (A stream that an operator restores from a snapshot, under a live connection and its old name, is not told from
 * the one it was before its sequences are past what is known, or the handle is looked up anew.)
 *
 * It takes one message a key (history 1), and a server that keeps writes away while it reads (2.15) and is none of a
 * cluster. A mirror of the bucket that takes part in its direct gets may answer too, as it may of any get. An answer is
 * never older than the call, and recall is no cache that could be stale: see near for that one.
 */
#ifndef DAEMON_STORE_RECALL_H
#define DAEMON_STORE_RECALL_H

#include "daemon/nats/kv.h"
#include "daemon/nats/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uthash.h>

struct bucket;
struct store;

/* An entry that was read. Lives until the last reference is dropped, also when it is not remembered any more. */
struct recall_entry {
    UT_hash_handle hh;                    /* by its key */
    struct recall_entry *next, *previous; /* of all buckets, the least recently used first */
    struct recall *recall;                /* NULL: is not remembered */
    uint64_t revision;
    int64_t created_us;
    uint64_t known_at; /* it was its key's last one when this was the stream's last sequence */
    unsigned references;
    size_t place; /* in the check that it was added to last */
    uint32_t key_bytes, value_bytes;
    char bytes[]; /* the key, a NUL, the value */
};

/* What is remembered of one bucket. */
struct recall {
    struct store *store;
    struct recall_entry *by_key;
    struct recall_check *checks; /* between their two answers */
    unsigned disturbed;          /* checks on end that proved nothing, because others write */
    unsigned pause;              /* so many checks are not worth while now */
    unsigned generation;         /* goes on whenever what is remembered has nothing to do with what was */
};

/* What all buckets remember. */
struct recall_all {
    struct recall_entry *least_used;
    size_t bytes;
    size_t loading_bytes; /* of entries that are being read */
    uint64_t entries;
    uint32_t *met;     /* keys that were read of late, by a part of their hash; NULL until there are any */
    uint64_t answered; /* reads of keys that were answered by what was remembered */
    uint64_t checks, failed_checks;
};

void recall_init(struct recall *recall, struct store *store);
void recall_clear(struct recall *recall);

/* Forgets all, of all buckets: when the link is lost, and when the configuration gives less room. */
void recall_clear_all(struct store *store);
void recall_reload(struct store *store);

/* After the last handle. */
void recall_free_all(struct store *store);

/* Whether the bucket is one whose entries can be remembered. */
bool recall_is_possible(const struct store *store, const struct bucket *bucket);

struct recall_entry *recall_find(const struct recall *recall, const char *key);

/* Whether the key, which is about to be read, was met of late and not written since: then it is worth remembering. */
bool recall_meet(struct recall *recall, const char *key);

/* This host has written the key: it is not as it is remembered. Cheap where nothing is. */
void recall_note_write(struct recall *recall, const char *key, uint64_t revision);

/* Shows it as an entry; the view lives as long as the entry does. */
void recall_view(const struct recall_entry *entry, struct kv_entry *view, struct message *message);

/* --- Reading what is to be remembered --- */

/* A read of many keys whose entries will be remembered. Zeroed; it must be ended. */
struct recall_load {
    struct recall *recall;
    struct recall_entry *entries; /* that were read; singly linked */
    struct recall_entry *anchor;  /* one that is remembered already */
    bool has_met_anchor;
    bool is_afresh; /* what is remembered will be forgotten */
    unsigned generation;
    size_t bytes;
};

/*
 * Begins a load. Answers a key to be asked for beside the others, whose answer shows that the stream is still the same;
 * NULL where there is none, since nothing is remembered, or room says that no key more can be asked for. The key lives
 * until the load ends.
 */
const char *recall_load_begin(struct recall_load *load, struct recall *recall, bool has_room);

/* An entry was read, maybe of a key worth remembering. It is copied then, if it is one that can be remembered. */
void recall_load_take(struct recall_load *load, const struct kv_entry *entry, bool is_worth_it);

/* All was read when the stream's last sequence was upto; 0: it was not, and nothing of it is remembered. */
void recall_load_end(struct recall_load *load, uint64_t upto);

/* --- Asking whether it is still so --- */

enum recall_proof {
    RECALL_PROVEN,  /* see recall_check_has */
    RECALL_CHANGED, /* some were not as they are remembered, and all were forgotten */
    RECALL_UNKNOWN  /* there was no answer in time, or others wrote meanwhile */
};

struct recall_check {
    /* Set by the caller. */
    struct bucket *handle; /* borrowed until done was called */
    uint64_t deadline_ms;
    /* Of entries[index] there is a newer one, which is not remembered. May be NULL. */
    void (*newer)(void *arg, size_t index, const struct kv_entry *entry);
    void (*done)(void *arg, enum recall_proof proof);
    void *arg;
    struct recall_entry **entries; /* room for them */
    size_t count;                  /* 0 at first; see recall_check_add */

    /* private */
    struct recall_check *next, *previous; /* of recall->checks */
    struct recall_reads *reads;
    uint64_t upto;       /* the stream's last sequence at the first read */
    uint64_t own_writes; /* behind it, of this host */
};

/*
 * Adds an entry of this bucket, if it is not there already, with a reference that the caller releases afterwards.
 * Answers its index.
 */
size_t recall_check_add(struct recall_check *check, struct recall_entry *entry);

/* For fewer entries the two questions cost as much as reading them. */
#define RECALL_CHECK_MIN 4u

/* Whether a check of so many entries is worth its while now; to be asked before each. */
bool recall_check_pays(struct recall *recall, size_t count);

/* Asks the server, of 1 to MULTI_LAST_KEYS_MAX entries. done is not called from within. False when memory ran out: then
 * it never is. */
bool recall_check_start(struct store *store, struct recall_check *check);

/*
 * When a check is PROVEN: whether entries[index] is as it is remembered, after the check began. Not of those of which
 * something newer was told, or that this host has written meanwhile.
 */
bool recall_check_has(const struct recall_check *check, size_t index);

struct recall_entry *recall_retain(struct recall_entry *entry);
void recall_release(struct recall_entry *entry);

#endif
