/*
 * backlog: changes of a bucket that some of its watches have not been delivered yet.
 *
 * Used by watch_set and watch. A change that few watches match is delivered at once. If it matches many, delivery would
 * hold up all other calls, so its watches fall behind: each is attached to the first change that it has not been
 * delivered. A job then delivers all later changes to each watch, in slices. Each change is packed once, so delivery to
 * one more watch is cheap. A watch that is behind by more than watches.buffer_bytes is lost: it ends with the revision
 * from which the client can resume. The backlogs of all buckets together are limited in the same way.
 */
#ifndef DAEMON_STORE_BACKLOG_H
#define DAEMON_STORE_BACKLOG_H

#include "daemon/nats/kv.h"

/*
 * The forms in which an entry is delivered to clients: whole, with meta_only, or with the value before it. The last one
 * has no bytes as long as no watch wants it.
 */
enum watch_form { WATCH_WHOLE, WATCH_META, WATCH_WITH_PREVIOUS, WATCH_FORMS };

struct watch_packed {
    const char *bytes;
    size_t size;
};

/* A watch, as the backlog knows it. The owner embeds it, zeroed. */
struct backlog_reader {
    struct backlog_reader *next, *previous; /* attached to the same change */
    struct backlog_change *change;          /* the first change that it was not delivered; NULL: it is not behind */
};

/* One change. The backlog owns it, and frees it when no reader is attached to it or to an earlier change. */
struct backlog_change {
    struct backlog_change *next;
    struct backlog_reader *readers; /* the next change to deliver to them is this one */
    uint64_t revision;
    enum kv_operation operation;
    bool is_unrecorded; /* the stream has no message of it: a watch that is resumed is not delivered it */
    unsigned epoch;     /* of the backlog, when the change was added */
    uint64_t begin;     /* bytes of all changes that were added before it */
    uint64_t added_ns;  /* uv_hrtime */
    struct watch_packed packed[WATCH_FORMS];
    char key[]; /* followed by the packed forms */
};

/* What the backlogs of all buckets take together. Zeroed: nothing. */
struct backlog_budget {
    struct backlog *backlogs; /* a list of the backlogs that have changes */
    uint64_t bytes;
};

/* Zeroed but for the budget: empty. */
struct backlog {
    struct backlog_budget *budget;
    struct backlog *next_taking, *previous_taking; /* in the budget's list */
    struct backlog_change *first, *last;
    uint64_t end;            /* bytes of all changes that were ever added */
    uint64_t unrecorded_end; /* the same, up to the last unrecorded change */
    unsigned epoch;          /* incremented when the bucket is recreated: revisions begin again */
    unsigned reader_count;   /* readers that are behind */
};

/* A reader is lost. revision: to resume from; 0: changes are missing that no revision has. */
typedef void backlog_lost_fn(struct backlog_reader *reader, uint64_t revision);

/* Add a change, packed in all forms. NULL: out of memory. */
struct backlog_change *backlog_add(struct backlog *backlog, const struct kv_entry *entry, bool is_unrecorded,
                                   const struct watch_packed packed[WATCH_FORMS]);

/* Return one of the readers that are behind; NULL: none is. */
struct backlog_reader *backlog_any_reader(const struct backlog *backlog);

/* Let a reader fall behind: the next change to deliver is this one. */
void backlog_attach(struct backlog *backlog, struct backlog_reader *reader, struct backlog_change *change);

/*
 * Attach a reader that is behind to a later change, which is delivered next. NULL: it is no longer behind. Frees the
 * changes that no reader needs.
 */
void backlog_move(struct backlog *backlog, struct backlog_reader *reader, struct backlog_change *change);

/* Return the from_revision with which a client receives this change and all later ones; 0: there is none. */
uint64_t backlog_resume_revision(const struct backlog *backlog, const struct backlog_change *change);

/* Lose the readers that are behind by more than limit bytes. */
void backlog_trim(struct backlog *backlog, size_t limit, backlog_lost_fn *lost);

/*
 * Lose readers until all backlogs together take at most limit bytes. Readers of the largest backlog are lost first, the
 * slowest of them first, so that slow watches of one bucket do not end watches of others. A single change may be
 * larger.
 */
void backlog_trim_all(struct backlog_budget *budget, size_t limit, backlog_lost_fn *lost);

/* Lose all readers, because a change could not be added. */
void backlog_lose_all(struct backlog *backlog, backlog_lost_fn *lost);

/* Begin the next epoch: the bucket was recreated. */
void backlog_begin_epoch(struct backlog *backlog);

#endif
