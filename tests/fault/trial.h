/*
 * trial: one write of each kind that the daemon knows, and what must be stored of it.
 */
#ifndef FAULT_TRIAL_H
#define FAULT_TRIAL_H

#include "tests/fault/stage.h"

enum trial_kind {
    TRIAL_PUT,
    TRIAL_CREATE,
    TRIAL_CREATE_OVER_MARKER,
    TRIAL_UPDATE,
    TRIAL_DELETE,
    TRIAL_DELETE_AT_REVISION,
    TRIAL_PURGE,
    TRIAL_PURGE_AT_REVISION,
    TRIAL_BULK_PUT,
    TRIAL_TRANSACTION,
    TRIAL_TRANSACTION_OF_MANY_CHECKS, /* more than its messages can carry: committed on 'the stream has not moved' */
    TRIAL_KINDS
};

struct trial {
    struct stage *stage;
    enum trial_kind kind;
    const char *bucket;
    char prefix[64];   /* of all its keys */
    char subject[128]; /* that all its publishes match */
    uint64_t before;   /* revision of the key that it is about */
    uint64_t checked[3];
    uint64_t other; /* revision of another's write that came in between; 0: none */
    uint32_t msgid;
    const struct answer *answer;
};

const char *trial_name(enum trial_kind kind);

/* Acks that its write has, and messages that are published for it. */
unsigned trial_acks(enum trial_kind kind);
unsigned trial_messages(enum trial_kind kind);

/* Publishes before the one that lands when nothing goes wrong. */
unsigned trial_skip(enum trial_kind kind);

/* Writes what must be there before, under keys of its own. */
void trial_prepare(struct trial *trial, struct stage *stage, const char *bucket, enum trial_kind kind);

/* Sends the call, and waits for its answer. */
void trial_send(struct trial *trial);
void trial_wait(struct trial *trial);

/* Sends the call and loses its acks. Then the proxy holds what the daemon publishes: see proxy_release. */
void trial_send_and_lose_acks(struct trial *trial);

/* Another program writes to a key that the call is about. */
void trial_interfere(struct trial *trial);

/* Another program writes to each key that the call writes. */
void trial_overwrite(struct trial *trial);

/* What others have written is there still, and the call has not said that it did nothing. */
void trial_expect_others_kept(const struct trial *trial);

/* The call must have succeeded, and be stored exactly once, under the revisions that were answered. */
void trial_expect_once(const struct trial *trial);

/* The same; where interference came before it, a call with a condition must have failed, and is not stored. */
void trial_expect_once_or_refused(const struct trial *trial);

/* Stored once under the answered revisions; or not at all, and the error says so; or at most once, and it says
 * 'unknown'. */
void trial_expect_truth(const struct trial *trial);

#endif
