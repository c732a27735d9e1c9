/*
 * stream: a JetStream stream of the simulated server: what it stores, and what it remembers of it.
 *
 * The rules are nats-server 2.15's for the streams of buckets, as far as kvstored depends on them.
 */
#ifndef SIM_STREAM_H
#define SIM_STREAM_H

#include "daemon/base/table.h"
#include "tests/sim/packet.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct server;

/* A message that was stored. It lives until the world ends, so that the judges see also what was overwritten. */
struct stored {
    struct packet *packet; /* without a reply */
    uint64_t sequence;
    uint64_t at_ns;      /* world time */
    int64_t time_ns;     /* by the server's clock, as are the following */
    int64_t expires_ns;  /* 0: never */
    bool is_lost;        /* the server came back older */
    bool is_purged;      /* it was removed by a purge of the stream */
    bool is_of_part;     /* it is of a batch whose commit has stopped in the middle */
    bool is_late;        /* and the next start of the server has stored it */
    uint64_t removed_ns; /* world time; 0: it is there, or it was when it was lost */
};

/* The last message of a subject has changed: for the judges. */
struct change {
    uint64_t at_ns;     /* world time */
    uint64_t operation; /* of the stream: its changes are one */
    char *subject;
    const struct stored *last; /* NULL: none is left */
};

/* A purge of all keys. */
struct purge {
    uint64_t at_ns; /* world time */
    size_t moment;  /* the number of changes up to it */
};

struct stored_id {
    char *id;
    uint64_t sequence;
    int64_t time_ns;
    UT_hash_handle hh;
};

/* Messages in the order of their sequences. */
struct stored_list {
    struct stored **items;
    size_t count;
};

/* Messages of an atomic batch that is not committed. */
struct batch {
    struct batch *next;
    char *id;
    struct packet **packets;
    size_t count;
    uint64_t touched_ns; /* when the last one came */
};

/* What a commit that has stopped in the middle has not stored. */
struct rest {
    struct packet **packets;
    size_t count;
    uint64_t after; /* sequence of the last message that it has stored */
};

struct stream {
    struct stream *next;
    struct server *server;
    char *name;
    json_t *config;
    int64_t created_ns;
    uint64_t made_ns; /* world time */
    uint64_t first_sequence, last_sequence;
    int64_t last_ns;
    struct stored_list present; /* what the stream holds */
    struct stored_list log;     /* what it ever held */
    struct stored_list backup;  /* what it held when the backup was made; see stream_back_up */
    uint64_t backup_last;
    size_t backup_log; /* what was in the log then */
    bool has_backup;
    uint64_t operations; /* see stream_begin_operation */
    struct change *changes;
    size_t change_count;
    struct purge *purges;
    size_t purge_count;
    bool is_gone; /* deleted, or lost; the judges still see its log */
    bool was_set_back;
    struct stored_id *ids; /* uthash */
    struct batch *batches;
    struct rest rest;
};

/* --- Life ------------------------------------------------------------------------------------------ */

/* config is complete, and the reference is taken. */
struct stream *stream_new(struct server *server, const char *name, json_t *config);
void stream_free(struct stream *stream);

/* Change the configuration, the reference of which is taken. New limits are applied. */
void stream_configure(struct stream *stream, json_t *config);

/* Numbers and flags of the configuration; 0 or false if it has none. */
int64_t stream_number(const struct stream *stream, const char *setting);
bool stream_flag(const struct stream *stream, const char *setting);

/* --- Messages -------------------------------------------------------------------------------------- */

/* What is stored and removed from now on is one change of the stream: nobody reads between. */
void stream_begin_operation(struct stream *stream);

/* Store a message, the reference of which is taken. Return it. Limits and roll-ups are applied. */
struct stored *stream_store(struct stream *stream, struct packet *packet);

/* Return the last message of a subject, or of a sequence, or NULL. */
struct stored *stream_last(const struct stream *stream, const char *subject);
struct stored *stream_at(const struct stream *stream, uint64_t sequence);

/* Return whether a message is a value, and no marker. NULL: it is not. */
bool stored_is_put(const struct stored *stored);

/* Return the first message with at least this sequence that the filter matches, or NULL. */
struct stored *stream_next(const struct stream *stream, uint64_t sequence, const char *filter);

/*
 * A client removes the messages that the filter matches (NULL: all) below a sequence (0: all), but not the last ones.
 * Return how many.
 */
uint64_t stream_purge(struct stream *stream, const char *filter, uint64_t below, uint64_t keep);

uint64_t stream_subjects(const struct stream *stream);

/* --- Ids ------------------------------------------------------------------------------------------- */

/* Return what the stream remembers of an id, or NULL. */
const struct stored_id *stream_find_id(struct stream *stream, const char *id);

/* --- Followers ------------------------------------------------------------------------------------- */

/*
 * Return what a follower has that is as far as the stream was at at_ns (world time): its messages, sequences and
 * settings. It is valid until the next call.
 */
const struct stream *stream_as_of(const struct stream *stream, uint64_t at_ns);

/* Return whether it has a message then. */
bool stored_is_there(const struct stored *stored, uint64_t at_ns);

/* At the world's end: free what it has returned. */
void stream_forget_view(void);

/* --- The process ----------------------------------------------------------------------------------- */

/* Atomic batches that are not committed are lost. */
void stream_forget_batches(struct stream *stream);

/* A commit stops in the middle: keep what it has not stored, and take it over. NULL: forget that. */
void stream_keep_rest(struct stream *stream, struct packet **packets, size_t count);

/*
 * The server starts: rebuild the table of ids from the stored messages, and drop unfinished batches. A commit that had
 * stopped is completed if nothing else was stored since, and there is room.
 */
void stream_restart(struct stream *stream);

/* Keep a copy of what is stored; the stream returns to it when the server is set back. */
void stream_back_up(struct stream *stream);
void stream_set_back(struct stream *stream);

/* It no longer exists. */
void stream_end(struct stream *stream);

/* It no longer exists, and all that it had is lost. */
void stream_lose(struct stream *stream);

#endif
