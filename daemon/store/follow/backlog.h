/*
 * backlog: changes of a bucket that some of its watches have not been told yet.
 *
 * Used by replica and watch. A change that few watches match is delivered at once. If it matches many, delivery would
 * hold up all other calls, so its watches fall behind: they leave the replica's tree of filters, and each is attached
 * to the first change that it has not been told. A job then tells each watch all changes from there on, in slices, and
 * puts it back into the tree. Each change is packed once, so telling many changes to one watch is cheap. A watch that
 * is behind by more than watches.buffer_bytes ends with the revision to go on from.
 */
#ifndef DAEMON_STORE_BACKLOG_H
#define DAEMON_STORE_BACKLOG_H

#include "daemon/nats/kv.h"

struct local_copy;
struct watch;

/* The forms in which clients are told an entry: whole, or with meta_only. */
enum watch_form { WATCH_WHOLE, WATCH_META, WATCH_FORMS };

struct watch_packed {
    const char *bytes;
    size_t size;
};

/* One change. The backlog owns it, and frees it when no watch is attached to it or to an earlier change. */
struct change {
    struct change *next;
    struct watch *watches; /* the next change to tell them is this one */
    uint64_t revision;
    enum kv_operation operation;
    bool is_again;  /* a watch that is resumed from a revision is not told it: see watch_tell_again */
    unsigned epoch; /* of the backlog, when the change was added */
    uint64_t begin; /* bytes of all changes that were added before it */
    struct watch_packed packed[WATCH_FORMS];
    char key[]; /* followed by the packed forms */
};

/* Zeroed: empty. */
struct backlog {
    struct change *first, *last;
    uint64_t end;         /* bytes of all changes that were ever added */
    uint64_t again_end;   /* the same, up to the last change with is_again */
    unsigned epoch;       /* incremented when the bucket is recreated: revisions begin again */
    unsigned watch_count; /* watches that are behind */
};

/* Add a change, packed by one of the watches that will be told it. NULL: out of memory. */
struct change *backlog_add(struct local_copy *copy, const struct kv_entry *entry, bool is_again,
                           const struct watch *packer);

/* Return one of the watches that are behind; NULL: none is. */
struct watch *backlog_any(const struct local_copy *copy);

/* Let a watch fall behind: the next change to tell it is this one. */
void backlog_attach(struct local_copy *copy, struct watch *watch, struct change *change);

/*
 * Attach a watch that is behind to a later change, which it is told next. NULL: it is not behind any more. Frees the
 * changes that no watch needs any more.
 */
void backlog_move(struct local_copy *copy, struct watch *watch, struct change *change);

/* Return the from_revision with which a client is told this change and all later ones; 0: there is none. */
uint64_t backlog_resume_revision(const struct local_copy *copy, const struct change *change);

/* Lose the watches that are behind by more than watches.buffer_bytes: see watch_lose. */
void backlog_trim(struct local_copy *copy);

/* Lose all watches that are behind, because a change could not be added. */
void backlog_lose_all(struct local_copy *copy);

/* Begin the next epoch: the bucket was recreated. */
void backlog_begin_epoch(struct local_copy *copy);

#endif
