/*
 * write_case: one write of each kind that the daemon has, and what must be stored of it.
 */
#ifndef FAULT_WRITE_CASE_H
#define FAULT_WRITE_CASE_H

#include "tests/fault/deployment.h"

enum write_case_kind {
    WRITE_CASE_PUT,
    WRITE_CASE_PUT_KEEPING_TTL,
    WRITE_CASE_CREATE,
    WRITE_CASE_CREATE_OVER_MARKER,
    WRITE_CASE_UPDATE,
    WRITE_CASE_DELETE,
    WRITE_CASE_DELETE_IF_EXISTS,
    WRITE_CASE_DELETE_AT_REVISION,
    WRITE_CASE_PURGE,
    WRITE_CASE_PURGE_AT_REVISION,
    WRITE_CASE_INCREMENT,
    WRITE_CASE_BULK_PUT,
    WRITE_CASE_TRANSACTION,
    /* More checks than its messages can carry: it is committed if the stream has not changed. */
    WRITE_CASE_TRANSACTION_OF_MANY_CHECKS,
    WRITE_CASE_KINDS
};

struct write_case {
    struct deployment *deployment;
    enum write_case_kind kind;
    const char *bucket;
    char prefix[64];   /* of its keys */
    char subject[128]; /* all its publishes match it */
    uint64_t before;   /* revision of its key */
    uint64_t checked[3];
    uint64_t other; /* revision of another program's write in between; 0: none */
    uint32_t msgid;
    const struct answer *answer;
};

const char *write_case_name(enum write_case_kind kind);

/* Return the number of acks that the write gets, and of messages that are published for it. */
unsigned write_case_acks(enum write_case_kind kind);
unsigned write_case_messages(enum write_case_kind kind);

/* Return the number of publishes before the one that succeeds if nothing goes wrong. */
unsigned write_case_skip(enum write_case_kind kind);

/* Write what the call requires, under keys of its own. */
void write_case_prepare(struct write_case *write_case, struct deployment *deployment, const char *bucket,
                        enum write_case_kind kind);

/* Send the call; wait for its answer. */
void write_case_send(struct write_case *write_case);
void write_case_wait(struct write_case *write_case);

/* Send the call and lose its acks. Then the proxy holds what the daemon publishes, until proxy_release. */
void write_case_send_and_lose_acks(struct write_case *write_case);

/* Let another program write to a key of the call. */
void write_case_interfere(struct write_case *write_case);

/* Let another program write to each key that the call writes. */
void write_case_overwrite(struct write_case *write_case);

/* What the other program wrote must be there still, and the call must not have said that it did nothing. */
void write_case_expect_others_kept(const struct write_case *write_case);

/* The call must have succeeded, and must be stored exactly once, under the revisions of its answer. */
void write_case_expect_once(const struct write_case *write_case);

/* The same; but if the other program wrote first, a call with a condition must have failed and not be stored. */
void write_case_expect_once_or_refused(const struct write_case *write_case);

/*
 * The call must be stored once, under the revisions of its answer; or not at all, with an error that says so; or at
 * most once, with an error of outcome "unknown".
 */
void write_case_expect_truth(const struct write_case *write_case);

#endif
