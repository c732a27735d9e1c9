/*
 * requests: all requests on the daemon's connection to NATS.
 *
 * Used by the store, which owns them and passes on the connection's events, and by request. It keeps a list of requests
 * for each state, finds the request of each message, and sends waiting requests in slices.
 */
#ifndef DAEMON_NATS_REQUESTS_H
#define DAEMON_NATS_REQUESTS_H

#include "conf/conf.h"
#include "daemon/base/jobs.h"
#include "daemon/nats/request.h"

struct requests {
    struct connection *connection;
    struct timers *timers;
    const struct conf *conf;
    uv_loop_t *loop;
    uint64_t retries; /* attempts that were sent after the first, since the start */

    /* private */
    struct jobs *jobs;
    struct job sending; /* of requests that waited for the connection or for the budget */
    struct reply_table replies;
    struct reply_budget budget;
    struct published published;
    struct request *in_state[REQUEST_STATES]; /* lists, in the order in which the requests entered the state */
    size_t counts[REQUEST_STATES];
    char inbox_denied[64];    /* the inbox, if the server denies it; "" if not */
    struct request *answered; /* whose one answer is being delivered */
    struct request *replied;  /* whose reply is being delivered */
    bool is_stopping;
    size_t failing;       /* of the requests that wait for the connection, the first ones fail: */
    struct error failure; /* with this */
};

/* All pointers are borrowed. Return 0, or -1 if memory ran out. */
int requests_init(struct requests *requests, uv_loop_t *loop, struct jobs *jobs, struct timers *timers,
                  const struct conf *conf);

/* The connection follows later: connection_new wants the events first. */
void requests_set_connection(struct requests *requests, struct connection *connection);
void requests_free(struct requests *requests);

/* --- Events of the connection, passed on by its owner ---------------------------------------------- */

void requests_on_up(struct requests *requests);
void requests_on_down(struct requests *requests);
void requests_on_message(struct requests *requests, struct message *message);

/* The server has denied a message to subject: fail the request that published it. */
void requests_on_publish_denied(struct requests *requests, const char *subject);

/* The server denies our inbox: fail all requests in flight, and those started before the next connection. */
void requests_on_inbox_denied(struct requests *requests, const char *inbox);

/* A limit of the owner's is about to be freed: requests that ended before their answers came give up their places. */
void requests_forget_limit(struct requests *requests, const struct request_limit *limit);

/* At the end of each turn: send the requests for which the budget has room by now. */
void requests_flush(struct requests *requests);

/* Fail the requests that wait for the connection, in this turn or the next ones. None of them may have been sent. */
void requests_fail_waiting(struct requests *requests, const struct error *error);

/* Fail every request as unavailable, when the daemon ends. Return how many there were. */
size_t requests_fail_all(struct requests *requests);

/* A reply with a value of this size came: see reply_budget. */
void requests_note_reply(struct requests *requests, size_t bytes);

/* --- Seeing inside --------------------------------------------------------------------------------- */

/* Return how many requests are in flight, or wait for the connection. */
size_t requests_in_flight(const struct requests *requests);

struct request_info {
    const char *kind;
    const char *label; /* what it is about; "": unknown */
    const char *state;
    const char *trouble; /* why the last attempt got no answer; "": none failed */
    uint64_t call_id;    /* 0: none */
    uint64_t age_ms;
    unsigned attempts;
};

/* Call visit for requests that have not ended, by state, while it returns true. visit starts and ends no requests. */
void requests_each(const struct requests *requests, bool (*visit)(void *arg, const struct request_info *info),
                   void *arg);

/* Return how many requests are in a state. */
static inline size_t requests_count(const struct requests *requests, enum request_state state)
{
    return requests->counts[state];
}

#endif
