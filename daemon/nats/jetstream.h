/*
 * jetstream: calls of the JetStream API, and its errors.
 *
 * Used by the store for everything that is JSON (streams, consumers), and by
 * kv for the errors of writes. A call of the API is a request whose answer is
 * one JSON object (ADR-1); this module makes the subject with the domain's prefix,
 * parses the answer, retries the errors that heal by themselves and turns the others
 * into errors of the protocol. After each connection it finds out what the server is
 * and can.
 */
#ifndef DAEMON_NATS_JETSTREAM_H
#define DAEMON_NATS_JETSTREAM_H

#include "daemon/base/arena.h"
#include "daemon/nats/requests.h"
#include "proto/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* err_code values that decisions hang on (the server's errors.json). */
enum jetstream_err_code {
    JETSTREAM_MESSAGE_NOT_FOUND = 10037,
    JETSTREAM_STREAM_NAME_IN_USE = 10058,
    JETSTREAM_STREAM_NOT_FOUND = 10059,
    JETSTREAM_WRONG_LAST_SEQUENCE = 10071,
    JETSTREAM_ROLLUP_FAILED = 10111,
    JETSTREAM_WRONG_LAST_SEQUENCE_CONSTANT = 10164,
    JETSTREAM_ATOMIC_DISABLED = 10174,
    JETSTREAM_ATOMIC_DUPLICATE = 10201
};

/* The API's level, of which the daemon asks: 0 before 2.11, 1 from 2.11, 2 from 2.12, 5 from 2.15. */
enum jetstream_level { JETSTREAM_LEVEL_TTL = 1, JETSTREAM_LEVEL_ATOMIC = 2, JETSTREAM_LEVEL_ISOLATED = 5 };

struct jetstream {
    struct requests *requests;
    char prefix[128]; /* "$JS.API" or "$JS.<domain>.API" */
    unsigned level;
    char server_version[32]; /* "" until known */
    char cluster[64];        /* the server's cluster; "" where there is none */
    char server_name[64];    /* the server's; "" until known */
    bool is_known;           /* level is the connected server's, not a guess */
    struct jetstream_probe *probe;
    struct consumer_removal *removals; /* of consumer */
};

/* domain may be NULL. 0, or -1 when memory ran out. */
int jetstream_init(struct jetstream *jetstream, struct requests *requests, const char *domain);
void jetstream_free(struct jetstream *jetstream);

/* Asks the server what it is; once after each connection. Until the answer, level is what it was before. */
void jetstream_probe(struct jetstream *jetstream);

/* Reads of many keys (ADR-31) came with TTLs, in 2.11. */
bool jetstream_has_multi_last(const struct jetstream *jetstream);

/*
 * The answer of one call of the API: the parsed object, borrowed, or NULL and the error.
 * err_code is the server's, 0 where the error is none of its.
 */
typedef void jetstream_call_fn(void *arg, json_t *answer, unsigned err_code, const struct error *error);

/* One call of the API. The owner embeds it, zeroed, in memory that lives until its callback was called. */
struct jetstream_call {
    struct request request;
    uint64_t only_on_connection; /* set by the owner: number of the connection that it may be sent on; 0: any */
    unsigned not_found;          /* answers that there is no such stream */
    struct jetstream *jetstream;
    char *subject;
    char *body;
    jetstream_call_fn *done;
    void *arg;
};

/*
 * Calls verb, such as "STREAM.INFO", on what name says ("KV_b"; NULL for none), with body as JSON
 * (taken over; NULL for none). done is called once, never from within.
 */
void jetstream_call(struct jetstream *jetstream, struct jetstream_call *call, const char *verb, const char *name,
                    json_t *body, uint64_t deadline_ms, jetstream_call_fn *done, void *arg);

/* Ends a call without its callback. */
void jetstream_cancel(struct jetstream_call *call);

/* An error object of an answer. */
struct jetstream_error {
    unsigned code;     /* as of HTTP */
    unsigned err_code; /* JetStream's own */
    const char *description;
};

/* True where the answer carries an error, which then points into it. */
bool jetstream_get_error(json_t *answer, struct jetstream_error *error);

/* Of a stream that is being deleted, or whose server ends. A batch may be stored in part then. */
bool jetstream_is_closing(const struct jetstream_error *error);

/* Why an error heals by itself; REQUEST_NO_TROUBLE where it does not. */
enum request_trouble jetstream_healable(const struct jetstream_error *error);

/*
 * Whether an error that answers a message to a stream says that the message is not stored: it was refused for what it
 * is, or for what the stream is, before the server began to write. Of the others a part of a batch may be stored, or a
 * message that a start of the server recovers.
 */
bool jetstream_means_nothing_stored(const struct jetstream_error *error);

/* Turns an error of the server into one of the protocol. */
void jetstream_set_error(struct error *error, const struct jetstream_error *from);

enum jetstream_unwrap { JETSTREAM_UNWRAPPED, JETSTREAM_UNWRAP_ERROR, JETSTREAM_UNWRAP_MALFORMED };

/*
 * Unwraps the stored message that an answer of STREAM.MSG.GET carries as JSON and base64 into the
 * arena, with the headers that a direct get would have (Nats-Subject, Nats-Sequence,
 * Nats-Time-Stamp). On an error of the server *error is filled, its description in the arena.
 */
enum jetstream_unwrap jetstream_unwrap_message(struct arena *arena, const struct message *answer,
                                               struct message *message, struct jetstream_error *error);

#endif
