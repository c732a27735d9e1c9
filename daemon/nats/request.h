/*
 * request: one question over the link, asked until it is answered.
 *
 * Used by jetstream and kv. A request is published with a reply subject of
 * its own in the link's one inbox; the token at the end of that subject finds it in
 * one array look-up when the answer comes. The module promises that a request ends
 * exactly once: by its reply callback saying so, by its fail callback at the
 * deadline, or by request_end. Until then it is sent again, with backoff and full
 * jitter, after no responders, a time without an answer, an answer that the callback
 * calls worth retrying, or a lost link; on a lost link it waits for the next one.
 * What is sent again must be safe to arrive twice: that is up to its send callback.
 */
#ifndef DAEMON_NATS_REQUEST_H
#define DAEMON_NATS_REQUEST_H

#include "conf/conf.h"
#include "daemon/base/jobs.h"
#include "daemon/base/table.h"
#include "daemon/base/timers.h"
#include "daemon/nats/connection.h"
#include "proto/error.h"

struct request;

enum request_verdict {
    REQUEST_DONE, /* that was the answer: the callback has called request_end, and the request may be gone */
    REQUEST_MORE, /* there is more to come */
    REQUEST_RETRY /* ask again after a backoff; see request_retry_reason */
};

/* Whether an attempt can be sent. */
enum request_readiness {
    REQUEST_READY,
    REQUEST_LATER,         /* ask again after a backoff */
    REQUEST_PARKED_OR_OVER /* the callback has parked the request, which it will resume, or the request is over */
};

struct request_ops {
    /*
     * Asked before each attempt, whenever the link is up and the request's turn has come; maybe several times before
     * one is sent. For requests whose next attempt depends on what became of those before. NULL: always ready.
     */
    enum request_readiness (*prepare)(struct request *request);

    /*
     * Publishes one attempt, with request_publish. attempt counts from 1. May be
     * called several times, at any time from request_start until the request ends.
     */
    enum connection_publish_result (*send)(struct request *request, unsigned attempt);

    /* One message of the answer to the attempt given. */
    enum request_verdict (*reply)(struct request *request, unsigned attempt, struct message *message);

    /*
     * The deadline came. error says why: unavailable where surely nothing reached a
     * stream, else deadline_exceeded; too_large where it cannot be sent at all. Or the NATS server denies it, at any
     * time: permission_denied. The request is over before the call.
     */
    void (*fail)(struct request *request, const struct error *error);

    /*
     * Nobody listens on the request's subject. Answers true to go on retrying. False
     * parks the request: the owner calls request_resume or request_end when it has
     * found out more; meanwhile only the deadline runs. NULL: go on retrying.
     */
    bool (*no_responders)(struct request *request);

    /*
     * For requests of which an attempt publishes to several subjects: whether subject is one of those. Such requests
     * have a limit, because all of them are asked. NULL: an attempt publishes to one at a time, with request_publish.
     */
    bool (*publishes)(const struct request *request, const char *subject);
};

enum request_state {
    REQUEST_IDLE,
    REQUEST_WAITING_FOR_LINK,
    REQUEST_SENT,
    REQUEST_BACKING_OFF,
    REQUEST_PARKED,
    REQUEST_HELD,
    REQUEST_QUEUED, /* for a place */
    REQUEST_LISTENING
};

/* Why a request had to be asked again: what an operator is told when time runs out. */
enum request_trouble {
    REQUEST_NO_TROUBLE,
    REQUEST_NO_LINK,
    REQUEST_NO_RESPONDERS,
    REQUEST_NO_LEADER,
    REQUEST_NO_ANSWER,
    REQUEST_CONGESTED,
    REQUEST_TOO_LARGE, /* ends it: no other time is better */
    REQUEST_DEAF       /* so does this: no answer can come */
};

/* Of an attempt's number a reply's subject has these bits, and the reply callback is given them. */
#define REQUEST_ATTEMPT_MASK 0xffffu

/* A queue of requests in the order they came into it. */
struct request_queue {
    struct request *first, *last;
    size_t count;
};

/* Lists of the requests in flight, by their subjects' hash. */
#define REQUEST_CHAINS 1024u

/*
 * Requests that wait for something scarce. Owners take turns, so that one who asks for much does not keep the others
 * waiting; the requests of one owner keep their order. Zeroed: empty.
 */
struct request_owner {
    UT_hash_handle hh; /* by identity */
    struct request_owner *next, *previous;
    struct request_line *line;
    const void *identity;
    struct request_queue queue;
};

struct request_line {
    struct request_owner *by_identity; /* uthash */
    struct request_owner *first;       /* whose turn it is */
    struct request_owner nobody;       /* of requests without an owner, and when memory ran out */
};

/*
 * How much of a kind may be at the server at a time; the other requests wait for a place. It is for what takes the
 * server milliseconds: of a thousand at once most would be sent again before they are answered, and the server would
 * have ever more to do. A request takes its weight of max, and one may always go. Zeroed but for max and
 * is_of_many_streams.
 */
struct request_limit {
    unsigned max;
    unsigned taken;
    /* A request without an answer, or whose stream has no leader, gives up its place until its next attempt. */
    bool is_of_many_streams;
    struct request_line waiting;
};

/*
 * The owner embeds it, zeroed, in memory that lives until the request ends. All members are the module's but limit,
 * answers_once, and what says how much the answer will take, for requests whose answers are values: so many of them,
 * and no more bytes than that. The server has a limit for what a connection has not read (max_pending, 64 MB by
 * default) and cuts it beyond: so those that would bring too much at a time are held until others are answered.
 *
 * answers_once: an attempt has one message for an answer, and never another. Its reply subject then serves the next
 * request as soon as the answer has come: a server remembers who listens to which subject, and must look up every new
 * one (measured: a quarter of what a get costs it). It is so of direct gets, which one member of a queue group answers.
 * It is not of writes and of what a leader answers: a new leader may answer again what the old one did.
 */
#define REQUEST_ALL SIZE_MAX

struct request {
    struct request_limit *limit;       /* NULL: none. From the attempt that is sent after it was set, to the end */
    unsigned weight;                   /* of limit; 0 counts as 1 */
    const void *owner;                 /* identity of the session that it works for; NULL: none. Never looked into */
    struct request_owner *stands_with; /* in a line; NULL: in none */
    size_t expected_values;            /* REQUEST_ALL: as many as bytes allow; 0: the answer is no value */
    size_t expected_bytes_max;
    size_t charged_bytes; /* of the attempt that is in flight */
    const struct request_ops *ops;
    struct requests *requests;
    struct request_queue *queue; /* that it stands in; NULL: in none */
    struct request *next;
    struct request *previous;
    struct request **chain; /* the list that it is in, in the order of sending; NULL: none */
    struct request *chain_next;
    struct request *chain_previous;
    uint64_t subject_hash; /* of what was published last */
    struct timer timer;    /* of the attempt, the backoff or the deadline, whichever comes first */
    uint64_t deadline_ms;
    uint64_t started_ms;
    enum request_state state;
    enum request_trouble trouble;
    uint32_t slot;
    unsigned attempts;
    unsigned
        patience_ms; /* set by the owner: added to the time of an attempt, for a request that takes the server long */
    unsigned settled_attempts; /* up to here all is forgiven: the backoff counts from it */
    uint64_t heard_ms;         /* while it listens: loop time of the last sign of life */
    unsigned silence_ms;
    bool has_no_responders;      /* a 503 came for this attempt */
    bool answers_once;           /* set by the owner: see above */
    bool was_sent;               /* any attempt: the others may have waited for room */
    struct request_limit *place; /* in which it has a place; NULL: in none. See request_leave_place */
    unsigned place_weight;
    bool in_doubt;     /* an attempt was sent that may have had its effect without our knowing */
    bool was_in_doubt; /* before the latest attempt */
};

/* A place in the table. generation tells the answers to its earlier tenants from those to the present one. */
struct request_slot {
    struct request *request; /* NULL: free, next_free is the next such place */
    uint32_t generation;
    uint32_t next_free;
};

struct requests {
    struct connection *connection;
    struct jobs *jobs;
    struct job sending; /* of those that waited for the link, or for room */
    struct timers *timers;
    const struct conf *conf;
    uv_loop_t *loop;
    struct request_slot *slots;
    uint32_t slot_count;
    uint32_t first_free;
    struct request_queue waiting; /* for the link */
    struct request_queue sent;    /* in the order of sending */
    struct request_line held;     /* until there is room for their answers */
    struct request_queue listening;
    struct request *by_subject[REQUEST_CHAINS]; /* lists, to find the one that the server denies */
    struct request *of_several;                 /* a list: these publish to many subjects, which they know themselves */
    char inbox_denied[64];                      /* the inbox, if the server denies it; "" if not */
    size_t expected_in_flight;                  /* bytes of the answers that are on their way, about */
    size_t reply_bytes[2];                      /* the most that an answer with a value took, of late and before */
    uint64_t reply_since_ms;                    /* loop time from which on it is of late */
    size_t assumed_bytes;                       /* size of one answer, assumed for the next assumed_replies answers */
    unsigned assumed_replies;
    struct request *answered; /* whose one answer is being handed over */
    uint64_t retries;         /* attempts that were sent after the first, since the start */
};

/* All pointers are borrowed. 0, or -1 when memory ran out. */
int requests_init(struct requests *requests, uv_loop_t *loop, struct jobs *jobs, struct timers *timers,
                  const struct conf *conf);

/* The link's events, for whoever made the link to pass on. */
void requests_on_up(struct requests *requests);
void requests_on_down(struct requests *requests);
void requests_on_message(struct requests *requests, struct message *message);

/* The server has dropped a message to subject: fails the request whose it was. */
void requests_on_publish_denied(struct requests *requests, const char *subject);

/* The server will deliver nothing to our inbox: fails all requests that are in flight, and others until the next link.
 */
void requests_on_inbox_denied(struct requests *requests, const char *inbox);

/* What count answers with values will take, as far as the last ones tell. */
size_t requests_expect_bytes(const struct requests *requests, size_t count);

/* An answer with a value came. */
void requests_note_reply(struct requests *requests, size_t bytes);

/* At the end of each turn: send what was held, as far as there is room by now. */
void requests_flush(struct requests *requests);

/* Fails with error those that wait for the link. None of them may have been sent. */
void requests_fail_waiting(struct requests *requests, const struct error *error);

/* Fails every request, as unavailable: when the daemon ends. Answers how many there were. */
size_t requests_fail_all(struct requests *requests);

/* The link comes afterwards: connection_new wants the events first. */
void requests_set_connection(struct requests *requests, struct connection *connection);
void requests_free(struct requests *requests);

/*
 * Begins a request that may take until deadline_ms (loop time). None of its
 * callbacks is called from within but send.
 */
void request_start(struct requests *requests, struct request *request, const struct request_ops *ops,
                   uint64_t deadline_ms);

/*
 * Ends a request: when its answer is there, or when nobody wants it any more. No
 * callback of it is called from now on. Does nothing when it is over already.
 */
void request_end(struct request *request);

/* What took the server long is over: the place is free for others, though the request goes on. */
void request_leave_place(struct request *request);

/* Gives the place to a request that has not been started, with the same limit. Does nothing where there is none. */
void request_hand_place(struct request *from, struct request *to);

/* Within a reply callback, which then answers REQUEST_DONE or MORE: waits for request_resume or the deadline. */
void request_park(struct request *request);

/* Sends the next attempt of a parked request. */
void request_resume(struct request *request);

/* Sends the next attempt at once, whatever it waits for; of a parked request that is its owner's to do, with resume. */
void request_hurry(struct request *request);

/* Within a reply callback, which then answers REQUEST_MORE: all is well, and the next attempt, at once, asks for more.
 */
void request_go_on(struct request *request);

/*
 * For requests without an end, whose deadline is UINT64_MAX: what was asked for has begun, and from now on messages may
 * come at any time. Longer than silence_ms without request_heard is trouble: the next attempt is sent after a backoff.
 */
void request_listen(struct request *request, unsigned silence_ms);

/* A sign of life of what a listening request listens to. Cheap. */
static inline void request_heard(struct request *request, uint64_t now_ms)
{
    request->heard_ms = now_ms;
}

/* All is well again: a later backoff begins with the shortest pause. */
void request_settle(struct request *request);

/* From outside a reply callback: sends the next attempt, after a backoff. */
void request_again(struct request *request, enum request_trouble trouble);

/* Publishes an attempt of this request; for ops->send. */
enum connection_publish_result request_publish(struct request *request, const char *subject,
                                               const struct message_header *headers, size_t header_count,
                                               const void *payload, size_t payload_bytes);

/*
 * An attempt's token, 20 characters: the last one of its reply subject. A message that a
 * consumer pushes carries the subject it was stored under instead, so it is found by
 * the consumer's name in its reply subject: a consumer whose name ends in the token of
 * the request that made it has its messages delivered to that request.
 */
#define REQUEST_TOKEN_BYTES   21
#define REQUEST_SUBJECT_BYTES 96
void request_write_token(const struct request *request, char token[REQUEST_TOKEN_BYTES]);

/* Writes the present attempt's reply subject. */
void request_write_subject(const struct request *request, char subject[REQUEST_SUBJECT_BYTES]);

/* Why it has no answer yet, as a part of a sentence. */
const char *request_trouble_text(const struct request *request);

/* Within a reply callback: says why it answers REQUEST_RETRY. */
void request_retry_reason(struct request *request, enum request_trouble trouble);

/* The latest attempt surely had no effect. Where all attempts had none, the deadline is no mystery. */
void request_take_back(struct request *request);

/* What its owner has found out about all attempts by now. */
void request_set_doubt(struct request *request, bool is_in_doubt);

/* Whether an attempt may have had its effect without our knowing. */
bool request_is_in_doubt(const struct request *request);

#endif
