/*
 * write_case: one write of each kind that the daemon knows, and what must be stored of it.
 */
#ifndef FAULT_WRITE_CASE_H
#define FAULT_WRITE_CASE_H

#include "tests/fault/deployment.h"

enum write_case_kind {
    WRITE_CASE_PUT,
    WRITE_CASE_CREATE,
    WRITE_CASE_CREATE_OVER_MARKER,
    WRITE_CASE_UPDATE,
    WRITE_CASE_DELETE,
    WRITE_CASE_DELETE_AT_REVISION,
    WRITE_CASE_PURGE,
    WRITE_CASE_PURGE_AT_REVISION,
    WRITE_CASE_BULK_PUT,
    WRITE_CASE_TRANSACTION,
    WRITE_CASE_TRANSACTION_OF_MANY_CHECKS, /* more than its messages can carry: committed on 'the stream has not moved'
                                            */
    WRITE_CASE_KINDS
};

struct write_case {
    struct deployment *deployment;
    enum write_case_kind kind;
    const char *bucket;
    char prefix[64];   /* of all its keys */
    char subject[128]; /* that all its publishes match */
    uint64_t before;   /* revision of the key that it is about */
    uint64_t checked[3];
    uint64_t other; /* revision of another's write that came in between; 0: none */
    uint32_t msgid;
    const struct answer *answer;
};

const char *write_case_name(enum write_case_kind kind);

/* Acks that its write has, and messages that are published for it. */
unsigned write_case_acks(enum write_case_kind kind);
unsigned write_case_messages(enum write_case_kind kind);

/* Publishes before the one that lands when nothing goes wrong. */
unsigned write_case_skip(enum write_case_kind kind);

/* Writes what must be there before, under keys of its own. */
void write_case_prepare(struct write_case *write_case, struct deployment *deployment, const char *bucket,
                        enum write_case_kind kind);

/* Sends the call, and waits for its answer. */
void write_case_send(struct write_case *write_case);
void write_case_wait(struct write_case *write_case);

/* Sends the call and loses its acks. Then the proxy holds what the daemon publishes: see proxy_release. */
void write_case_send_and_lose_acks(struct write_case *write_case);

/* Another program writes to a key that the call is about. */
void write_case_interfere(struct write_case *write_case);

/* Another program writes to each key that the call writes. */
void write_case_overwrite(struct write_case *write_case);

/* What others have written is there still, and the call has not said that it did nothing. */
void write_case_expect_others_kept(const struct write_case *write_case);

/* The call must have succeeded, and be stored exactly once, under the revisions that were answered. */
void write_case_expect_once(const struct write_case *write_case);

/* The same; where interference came before it, a call with a condition must have failed, and is not stored. */
void write_case_expect_once_or_refused(const struct write_case *write_case);

/* Stored once under the answered revisions; or not at all, and the error says so; or at most once, and it says
 * 'unknown'. */
void write_case_expect_truth(const struct write_case *write_case);

#endif
