/*
 * journal: the writes that have an id of their client, and what became of each.
 *
 * Used by write, batch, group_commit and txn. A client that has lost its session sends such a write again with the same
 * id. The journal then tells whether the write is stored, was never sent to NATS, or is in doubt. It is a file that is
 * mapped into memory: it survives the process, also one that was killed, but not the machine. That is enough, because
 * the clients do not survive the machine either.
 *
 * When the file is full, a new entry replaces one whose call has ended: the oldest of the user that has most of them.
 * So a user who writes much does not push out the entries of those who have fewer. All that costs the same for each
 * call. The file notes for each user when the replaced call had begun. So a repeated call without an entry, if it was
 * first sent after that time, was never sent to NATS.
 */
#ifndef DAEMON_STORE_JOURNAL_H
#define DAEMON_STORE_JOURNAL_H

#include "proto/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct journal;

#define JOURNAL_ID_MIN 8u /* bytes of a client's id */
#define JOURNAL_ID_MAX 36u

#define JOURNAL_MESSAGE_ID_BYTES 52u

/* A write with an id. Its owner embeds it, zeroed but for what it sets. */
struct journal_call {
    const char *id; /* NULL: the write has none, and all functions do nothing */
    size_t id_bytes;
    uint32_t part;          /* of a call that makes several writes: the number of this one */
    uint32_t uid;           /* of the client */
    uint64_t first_sent_us; /* of a repeated call: CLOCK_MONOTONIC before the first one was sent; otherwise 0 */

    /* private */
    bool was_asked;  /* journal_begin was called */
    uint64_t digest; /* of what the call writes, see journal_describe */
    uint32_t place;  /* of its entry; others may read that it is not 0: it has one */
};

/* A copy of a write that was sent to NATS. */
struct journal_copy {
    char message_id[JOURNAL_MESSAGE_ID_BYTES]; /* the Nats-Msg-Id that proves it */
    uint32_t messages_after; /* the message with that id is stored this number of messages after the write's */
    bool is_of_batch;        /* the id proves several writes */
    bool is_of_last_run;     /* the daemon before this one has sent it; read only */
    uint64_t sent_ms;        /* see clock_boot_ms */
    uint64_t connection;     /* number of the connection, see connection_number; 0: of another run */
    uint64_t lives_ms;       /* the message with the id expires after this time; 0: it stays */
    bool has_condition;      /* the key's last sequence was expected */
    uint64_t expected;
    int64_t value; /* that the call returns beside the revision */
    /* Of the stream, before the copy was sent: see stream_state. */
    uint64_t identity;
    uint64_t last_sequence;
    uint64_t keeper;
    uint64_t window_ms;
};

enum journal_finding {
    JOURNAL_NEW,       /* nothing of the write was sent; it has an entry from now on, unless the journal is full */
    JOURNAL_STORED,    /* at the revision that is returned, by the copy that is returned */
    JOURNAL_IN_DOUBT,  /* the copy that is returned was sent, and its answer is not known */
    JOURNAL_RUNNING,   /* an earlier call of this daemon with the id has not ended */
    JOURNAL_FORGOTTEN, /* its entry may have been replaced, or the journal cannot be used */
    JOURNAL_OTHER_CALL /* the id is that of a call which writes something else, or of one in flight if it is the first
                        */
};

/* Add what the call writes to its digest: calls with one id are the same call if their digests are. */
void journal_describe(const struct journal *journal, struct journal_call *call, const void *bytes, size_t length);

/*
 * Return what is known of a call. If that is NEW or IN_DOUBT, the call runs until journal_end or journal_cancel. The
 * copy is set with STORED, too.
 */
enum journal_finding journal_begin(struct journal *journal, struct journal_call *call, uint64_t *revision,
                                   struct journal_copy *copy);

/*
 * Set the outcome of an error that has none. Nothing was written, unless the call is a repeated one that has failed
 * before the journal was asked: then the earlier call may have written.
 */
static inline void journal_set_default_outcome(const struct journal_call *call, struct error *error)
{
    if (call->first_sent_us != 0 && !call->was_asked)
        error_set_default_outcome_of_repeated(error);
    else
        error_set_default_outcome(error);
}

/* A copy is about to be sent. */
void journal_note_sent(struct journal *journal, const struct journal_call *call, const struct journal_copy *copy);

/* The copy that was sent last is certainly not stored, and the call goes on. */
void journal_note_refused(struct journal *journal, const struct journal_call *call);

/* The call has ended: it is stored at this revision, or has failed. The id stays known. */
void journal_end(struct journal *journal, struct journal_call *call, uint64_t revision, const struct error *error);

/* The call ends before anything was sent for it. Its entry is free again: nothing has to be remembered. */
void journal_forget(struct journal *journal, struct journal_call *call);

/* The call ends without an answer: if a copy was sent, now or by an earlier call, it may be stored. */
void journal_cancel(struct journal *journal, struct journal_call *call);

/* This daemon begins, or has ended, a removal that the stream does not show, such as a purge of the bucket. */
void journal_note_removal(struct journal *journal, uint64_t now_ms);

/* Return whether no daemon has made such a removal since this time, by clock_boot_ms. */
bool journal_nothing_removed_since(const struct journal *journal, uint64_t since_ms);

/* --- Life ------------------------------------------------------------------------------------------ */

/*
 * Open the journal at path, or create it. NULL: it cannot be used, *reason says why. All functions accept NULL: then
 * nothing is remembered, and every repeated call is FORGOTTEN.
 */
struct journal *journal_open(const char *path, const char **reason);
void journal_close(struct journal *journal);

#endif
