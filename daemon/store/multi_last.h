/*
 * multi_last: one read of the last entries of many keys, at one point in time (ADR-31).
 *
 * Used by recall and coalesce, which try something that may fail: whatever goes wrong ends the read, and another way is
 * taken. (bulk_get, which must succeed, makes its request itself.)
 */
#ifndef DAEMON_STORE_MULTI_LAST_H
#define DAEMON_STORE_MULTI_LAST_H

#include "daemon/nats/kv.h"
#include "daemon/store/bucket.h"
#include "daemon/store/store.h"

/* What one read may match; beyond, the server answers 413 (ADR-31). */
#define MULTI_LAST_KEYS_MAX 1024u

/*
 * What one read brings at most, about: a server cuts connections on which too much waits to be read (max_pending, 64
 * MB). One that would bring more is not whole.
 */
#define MULTI_LAST_BYTES_MAX  (4u * 1024u * 1024u)
#define MULTI_LAST_NEWS_BYTES (256u * 1024u) /* of one with from */

struct multi_last {
    /* Set by the caller. */
    struct bucket *handle; /* borrowed until done was called */
    uint64_t from;         /* tells only of entries at this sequence or behind it; 0: of all */
    bool is_count;         /* tells only of the first one, and how many there are */
    uint64_t deadline_ms;
    void (*entry)(void *arg, const struct kv_entry *entry); /* in the order of revisions */
    /* All was told. False: the read failed, and what it told is not all. */
    void (*done)(void *arg, bool is_whole);
    void *arg;

    /* Known when done is called. */
    uint64_t upto;  /* the stream's last sequence when it was read; 0 where no key is there */
    uint64_t count; /* keys that have an entry, of a read with is_count */

    /* private */
    struct store *store;
    struct request request;
    char *body;
    size_t body_bytes;
    uint64_t last;   /* revision of the entry that came last */
    bool has_missed; /* one that came before did not reach us */
};

/*
 * Begins the read; keys are copied. done is not called from within. False when memory ran out: then it never is.
 */
bool multi_last_start(struct store *store, struct multi_last *read, const char *const *keys, size_t count);

/* Ends it without calling done. Does nothing where it is over, or never began. */
void multi_last_cancel(struct multi_last *read);

/*
 * How long something may be tried that may fail: no longer than an attempt, and than a part of the time that there is
 * until deadline_ms, since another way is taken then.
 */
uint64_t multi_last_deadline(const struct store *store, uint64_t deadline_ms);

/* Publishes an attempt of such a read; for request_ops.send. */
enum link_publish_result multi_last_publish(struct request *request, const struct store *store,
                                            const struct bucket *handle, const char *body, size_t body_bytes);

/* The JSON of such a read, for the caller to free; NULL when memory ran out. options: members, each with a comma behind
 * it. */
char *multi_last_body(const char *options, const char *prefix, const char *const *keys, size_t count, size_t *bytes);

#endif
