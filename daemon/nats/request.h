/*
 * request: one request to NATS, sent until it is answered.
 *
 * Used by jetstream and consumer, and by the store. A request is published with a reply subject of its own in the
 * connection's one inbox, by which its reply finds it: see reply_table. The module promises that a request ends exactly
 * once: by its reply callback, which calls request_end; by its fail callback at the deadline; or by request_end from
 * elsewhere. Until then it is sent again, with backoff and full jitter, after no responders, after a time without a
 * reply, and after a reply for which the callback answers REQUEST_RETRY. When the connection is lost, it waits for the
 * next one. Its send callback must see to it that a request may arrive twice.
 */
#ifndef DAEMON_NATS_REQUEST_H
#define DAEMON_NATS_REQUEST_H

#include "daemon/base/arena.h"
#include "daemon/base/fair_queue.h"
#include "daemon/base/timers.h"
#include "daemon/nats/connection.h"
#include "daemon/nats/published.h"
#include "daemon/nats/reply_budget.h"
#include "daemon/nats/reply_table.h"
#include "daemon/nats/request_limit.h"
#include "proto/error.h"

struct request;

enum request_verdict {
    REQUEST_DONE, /* it is answered: the callback has called request_end, and the request may be gone */
    REQUEST_MORE, /* more replies follow */
    REQUEST_RETRY /* send it again after a backoff; see request_set_trouble */
};

/* Whether an attempt can be sent. */
enum request_readiness {
    REQUEST_READY,
    REQUEST_NOT_READY,        /* ask again after a backoff */
    REQUEST_SUSPENDED_OR_OVER /* the callback has suspended the request, which it will resume, or has ended it */
};

struct request_ops {
    const char *kind; /* names the request in the log and in daemon.dump, such as "get" */

    /*
     * Called before each attempt, when the connection is up and the request's turn has come; maybe several times before
     * one is sent. For requests whose next attempt depends on the fate of those before. NULL: always ready.
     */
    enum request_readiness (*prepare)(struct request *request);

    /*
     * Publish one attempt, with request_publish. attempt counts from 1. May be called several times, at any time from
     * request_start until the request ends.
     */
    enum connection_publish_result (*send)(struct request *request, unsigned attempt);

    /* One message of the reply to an attempt. attempt has the bits of REQUEST_ATTEMPT_MASK only. */
    enum request_verdict (*reply)(struct request *request, unsigned attempt, struct message *message);

    /*
     * The deadline came. error says why: unavailable if surely nothing reached a stream, else deadline_exceeded;
     * too_large if it cannot be sent at all. Or the NATS server denies it, at any time: permission_denied. The request
     * has ended before the call.
     */
    void (*fail)(struct request *request, const struct error *error);

    /*
     * Nobody listens on the request's subject, and the backoff after that is over. Return true to send it again. If it
     * returns false, the request is suspended: the owner calls request_resume or request_end when it knows more, and
     * only the deadline runs meanwhile. NULL: send it again.
     */
    bool (*no_responders)(struct request *request);

    /*
     * For requests of which an attempt publishes to several subjects: return whether subject is one of them. Keep the
     * number of such requests small with a limit, because all are asked. NULL: an attempt publishes to one subject.
     */
    bool (*publishes)(const struct request *request, const char *subject);
};

enum request_state {
    REQUEST_IDLE, /* not started, or ended */
    REQUEST_WAITING_FOR_CONNECTION,
    REQUEST_WAITING_FOR_PLACE,  /* waits for a place in its limit */
    REQUEST_WAITING_FOR_BUDGET, /* waits until its reply fits into the budget */
    REQUEST_SENT,
    REQUEST_UNSERVED, /* sent, but nobody listens on its subject; a backoff runs */
    REQUEST_BACKING_OFF,
    REQUEST_SUSPENDED, /* until its owner resumes it */
    REQUEST_LISTENING, /* see request_listen */
    REQUEST_STATES
};

/* Why a request had to be sent again. It is part of the error at the deadline. */
enum request_trouble {
    REQUEST_NO_TROUBLE,
    REQUEST_NO_CONNECTION,
    REQUEST_NO_RESPONDERS,
    REQUEST_NO_LEADER,
    REQUEST_NO_ANSWER,
    REQUEST_CONGESTED,
    REQUEST_TOO_LARGE,   /* ends the request: a retry cannot help */
    REQUEST_INBOX_DENIED /* ends it too: the server denies our inbox, so no reply can come */
};

/* Whether an attempt may have had its effect without our knowing. */
enum request_doubt {
    REQUEST_CERTAIN,
    REQUEST_LATEST_IN_DOUBT, /* the latest attempt may have had it */
    REQUEST_EARLIER_IN_DOUBT /* an earlier one may have had it, and maybe the latest too */
};

#define REQUEST_ATTEMPT_MASK REPLY_ATTEMPT_MASK
#define REQUEST_ALL          REPLY_BUDGET_ALL

/* The owner embeds it, zeroed, in memory that lives until the request ends. */
struct request {
    /*
     * Set by the owner before request_start, or left zero.
     *
     * answers_once: an attempt gets exactly one message for an answer. Its reply subject then serves the next request
     * as soon as the answer has come: the server caches who listens to a subject, and must look up every new one
     * (measured: a quarter of the server's work for a get). True of direct gets, which one member of a queue group
     * answers. Not true of writes, nor of what a leader answers: a new leader may repeat the old one's answer.
     */
    struct request_limit *limit; /* NULL: none. It counts from the attempt that is sent after it was set, to the end */
    unsigned weight;             /* in limit; 0 counts as 1 */
    uint64_t owner;              /* the session for which it is: see fair_queue_identity; 0: none */
    uint64_t call_id;            /* id of the call for which it is, for the log; 0: none */
    struct arena *caller;        /* of that call: learns how long the request was at NATS; NULL: none */
    const char *label;           /* what it is about, for the log, such as a stream's name; borrowed; NULL: nothing */
    size_t expected_values;    /* in the reply; 0: it has no value; REQUEST_ALL: as many as expected_bytes_max allows */
    size_t expected_bytes_max; /* of the reply */
    unsigned extra_timeout_ms; /* added to the time of an attempt, for a request that takes the server long */
    bool answers_once;

    /* Read by the owner. */
    struct requests *requests;
    enum request_state state;
    unsigned attempts;
    bool was_sent; /* an attempt was published; the others may have waited for room */

    /* private */
    const struct request_ops *ops;
    struct request *next, *previous; /* in the list of its state */
    struct fair_queue_entry turn;    /* while it waits for a place, or for the budget */
    struct published_entry published;
    struct request_place place;
    size_t charged_bytes; /* of the budget, for the attempt that is in flight */
    struct timer timer;   /* of the attempt, the backoff or the deadline, whichever comes first */
    uint64_t deadline_ms;
    uint64_t started_ms;
    enum request_trouble trouble;
    enum request_doubt doubt;
    uint32_t slot;         /* in the reply table */
    unsigned backoff_from; /* the backoff counts attempts from here */
    uint64_t heard_ms;     /* while it listens: loop time of the last sign of life */
    unsigned silence_ms;
};

/* Start a request that may take until deadline_ms (loop time). Of its callbacks only prepare and send are called from
 * within. */
void request_start(struct requests *requests, struct request *request, const struct request_ops *ops,
                   uint64_t deadline_ms);

/*
 * End a request, because it is answered or because nobody needs the answer. None of its callbacks is called
 * from now on. Does nothing if it has ended already.
 */
void request_end(struct request *request);

/* Before request_start: the request is for the call of the arena. It takes turns with others, and the log has its id.
 */
static inline void request_set_caller(struct request *request, struct arena *arena)
{
    request->caller = arena;
    request->owner = arena->owner;
    request->call_id = arena->call_id;
}

/* Give up its place in the limit, although the request continues: what took the server long is over. */
void request_release_place(struct request *request);

/* Give up its share of the reply budget: the rest of its reply will not come. */
void request_release_budget(struct request *request);

/* Transfer the place to a request with the same limit that has not been started. Does nothing if there is none. */
void request_transfer_place(struct request *from, struct request *to);

/* Suspend a request until request_resume or the deadline. A reply callback then returns REQUEST_DONE or REQUEST_MORE.
 */
void request_suspend(struct request *request);

/* Send the next attempt of a suspended request. */
void request_resume(struct request *request);

/* Send the next attempt now instead of waiting for an answer or a backoff. Does nothing in other states. */
void request_retry_now(struct request *request);

/* Within a reply callback, which then returns REQUEST_MORE: reset the backoff and send the next attempt now. */
void request_continue(struct request *request);

/* From outside a reply callback: send the next attempt after a backoff. */
void request_retry_later(struct request *request, enum request_trouble trouble);

/* The request makes progress: a later backoff begins with the shortest pause. */
void request_reset_backoff(struct request *request);

/*
 * For requests without an end, whose deadline is UINT64_MAX: what was asked for has begun, and from now on messages may
 * come at any time. If request_note_heard is not called for silence_ms, the next attempt is sent after a backoff.
 */
void request_listen(struct request *request, unsigned silence_ms);

/* Note a sign of life for a listening request. Cheap. */
static inline void request_note_heard(struct request *request, uint64_t now_ms)
{
    request->heard_ms = now_ms;
}

/* Return whether replies to the latest attempt are expected. Those to a request in another state are late ones. */
static inline bool request_expects_replies(const struct request *request)
{
    return request->state == REQUEST_SENT || request->state == REQUEST_UNSERVED ||
           request->state == REQUEST_LISTENING || request->state == REQUEST_SUSPENDED;
}

/* Publish an attempt of this request; for ops->send. */
enum connection_publish_result request_publish(struct request *request, const char *subject,
                                               const struct message_header *headers, size_t header_count,
                                               const void *payload, size_t payload_bytes);

/*
 * Write the token of the present attempt, 20 characters: the last token of its reply subject. A message that a consumer
 * delivers has another subject, so it is found by the name of the consumer: if this ends in a token, the deliveries go
 * to the request of that token.
 */
#define REQUEST_TOKEN_BYTES   REPLY_TOKEN_BYTES
#define REQUEST_SUBJECT_BYTES 96
void request_write_token(const struct request *request, char token[REQUEST_TOKEN_BYTES]);

/* Write the reply subject of the present attempt. */
void request_write_subject(const struct request *request, char subject[REQUEST_SUBJECT_BYTES]);

/* Return why it has no answer yet, as a part of a sentence. */
const char *request_trouble_text(const struct request *request);

/* Within a reply callback: say why it returns REQUEST_RETRY. */
void request_set_trouble(struct request *request, enum request_trouble trouble);

/* The latest attempt surely had no effect. If no attempt had any, the error at the deadline says so. */
void request_clear_latest_doubt(struct request *request);

/* Set what the owner has determined about all attempts so far. */
void request_set_doubt(struct request *request, bool is_in_doubt);

/* Return whether an attempt may have had its effect without our knowing. */
bool request_is_in_doubt(const struct request *request);

#endif
