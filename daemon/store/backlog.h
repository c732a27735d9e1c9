/*
 * backlog: changes of a bucket that some of its watches have yet to be told.
 *
 * Used by replica and watch. A change that few watches want is told at once. One that many want would hold up everybody
 * else's calls: then its watches fall behind. They leave the replica's tree of filters, and each is attached to the
 * first change that it has not been told. From there a job tells it all that it wants, a slice of a turn at a time, and
 * it goes back into the tree. The more a watch is behind, the more changes it is told at a time, which is cheap: each
 * change is packed once. Watches that fall behind by more than watches.buffer_bytes end, with the revision to go on
 * from.
 */
#ifndef DAEMON_STORE_BACKLOG_H
#define DAEMON_STORE_BACKLOG_H

#include "daemon/nats/kv.h"

struct replica;
struct watch;

/* An entry in the forms in which clients are told of it. */
enum watch_form { WATCH_WHOLE, WATCH_META, WATCH_FORMS };

struct watch_packed {
    const char *bytes;
    size_t size;
};

/* One change. The backlog owns it, as long as watches are attached to it or to one before it. */
struct change {
    struct change *next;
    struct watch *watches; /* those that were told all before it */
    uint64_t revision;
    enum kv_operation operation;
    bool is_again;  /* no revision tells it to who begins again */
    unsigned epoch; /* of the backlog, when it came */
    uint64_t begin; /* bytes of all changes before it */
    struct watch_packed packed[WATCH_FORMS];
    char key[]; /* the packed forms are behind it */
};

/* Zeroed: empty. */
struct backlog {
    struct change *first, *last;
    uint64_t end;         /* bytes of all changes that there ever were */
    uint64_t again_end;   /* the same, up to the last one that no revision tells */
    unsigned epoch;       /* grows when the bucket is recreated: revisions begin again */
    unsigned watch_count; /* that are behind */
};

/* Add a change. A watch that is to be told of it packs it. NULL: out of memory. */
struct change *backlog_add(struct replica *replica, const struct kv_entry *entry, bool is_again,
                           const struct watch *packer);

/* One of the watches that are behind; NULL: none is. */
struct watch *backlog_any(const struct replica *replica);

/* A watch that was told all before the change falls behind. */
void backlog_attach(struct replica *replica, struct watch *watch, struct change *change);

/* The watch is to be told from this change on; NULL: it is not behind any more. Changes that nobody needs are freed. */
void backlog_move(struct replica *replica, struct watch *watch, struct change *change);

/* Lose the watches that are behind by more than watches.buffer_bytes. */
void backlog_trim(struct replica *replica);

/* A change could not be added: lose all watches that are behind. */
void backlog_lose_all(struct replica *replica);

/* The bucket was recreated. */
void backlog_begin_epoch(struct replica *replica);

#endif
