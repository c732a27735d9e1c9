/*
 * jetstream: calls of the JetStream API, and its errors.
 *
 * Used by the store for all requests in JSON (about streams, consumers and the account), and for the errors of writes.
 * A call of the API is a request whose answer is one JSON object (ADR-1). This module adds the domain's prefix to the
 * subject, parses the answer, retries errors that are temporary, and translates the others into errors of the protocol.
 * After each connection it asks the server for its version and features.
 */
#ifndef DAEMON_NATS_JETSTREAM_H
#define DAEMON_NATS_JETSTREAM_H

#include "daemon/base/arena.h"
#include "daemon/nats/requests.h"
#include "proto/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* The values of err_code on which decisions depend (the server's errors.json). */
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

/* Levels of the API: 0 before nats-server 2.11, 1 from 2.11, 2 from 2.12, 5 from 2.15. */
enum jetstream_level { JETSTREAM_LEVEL_TTL = 1, JETSTREAM_LEVEL_ATOMIC = 2, JETSTREAM_LEVEL_ISOLATED = 5 };

struct jetstream {
    struct requests *requests;
    char prefix[128]; /* "$JS.API" or "$JS.<domain>.API" */
    unsigned level;
    char server_version[32]; /* "" until known */
    char cluster[64];        /* the server's cluster; "": none */
    char server_name[64];    /* "" until known */
    bool is_known;           /* a server has said its level */
    struct jetstream_probe *probe;
    struct consumer_removal *removals; /* see consumer_removal */
};

/* domain may be NULL. Return 0, or -1 if memory ran out. */
int jetstream_init(struct jetstream *jetstream, struct requests *requests, const char *domain);
void jetstream_free(struct jetstream *jetstream);

/*
 * Ask the server for its version and features, once after each connection. Until it answers, those of the server before
 * count, and its name: nearly always it is the same one, and the moment of a read depends on the level, and evidence
 * about writes on the name.
 */
void jetstream_probe(struct jetstream *jetstream);

/*
 * Return whether the server has reads of many keys (ADR-31), or may have them: they came with TTLs, in
 * nats-server 2.11. One that has not, and has not told its level yet, answers them with the status 408.
 */
bool jetstream_has_multi_last(const struct jetstream *jetstream);

/*
 * The answer to a call of the API: the parsed object, borrowed, or NULL and the error. err_code is the server's; 0: the
 * error is not from the server.
 */
typedef void jetstream_call_fn(void *arg, json_t *answer, unsigned err_code, const struct error *error);

/* One call of the API. The owner embeds it, zeroed, in memory that lives until done is called. */
struct jetstream_call {
    struct request request;
    uint64_t only_on_connection; /* set by the owner: number of the only connection on which it may be sent; 0: any */
    unsigned not_found;          /* number of answers that there is no such stream */
    struct jetstream *jetstream;
    char *subject;
    char *body;
    jetstream_call_fn *done;
    void *arg;
};

/*
 * Call verb, such as "STREAM.INFO", for name ("KV_b"; NULL: none), with body as JSON (NULL: none). The reference to
 * body is taken over. done is called once, never from within.
 */
void jetstream_call(struct jetstream *jetstream, struct jetstream_call *call, const char *verb, const char *name,
                    json_t *body, uint64_t deadline_ms, jetstream_call_fn *done, void *arg);

/* End a call without calling done. */
void jetstream_cancel(struct jetstream_call *call);

/* An error object of an answer. */
struct jetstream_error {
    unsigned code;     /* like HTTP's */
    unsigned err_code; /* JetStream's own */
    const char *description;
};

/* Return whether the answer is an error. error then points into the answer. */
bool jetstream_get_error(json_t *answer, struct jetstream_error *error);

/* Return whether the stream is being deleted, or its server is stopping. A batch may then be stored in part. */
bool jetstream_is_closing(const struct jetstream_error *error);

/*
 * An answer says that there is no such stream. Count it in *answers, which begins with 0, and return whether to believe
 * it: in a cluster, a server that does not know the stream yet, or is partitioned, may answer so.
 */
bool jetstream_believes_not_found(const struct jetstream *jetstream, unsigned *answers);

/* Return the trouble of a temporary error, which is worth a retry; REQUEST_NO_TROUBLE: the error is permanent. */
enum request_trouble jetstream_temporary_trouble(const struct jetstream_error *error);

/*
 * Return whether an error that answers a message to a stream means that the message is not stored: the server refused
 * it before it began to write. After other errors a part of a batch may be stored, or a message that the server
 * recovers when it starts again.
 */
bool jetstream_means_nothing_stored(const struct jetstream_error *error);

/* Translate an error of the server into one of the protocol. */
void jetstream_set_error(struct error *error, const struct jetstream_error *from);

enum jetstream_unwrap { JETSTREAM_UNWRAPPED, JETSTREAM_UNWRAP_ERROR, JETSTREAM_UNWRAP_MALFORMED };

/*
 * Decode the stored message that an answer of STREAM.MSG.GET carries as JSON and base64 into the arena. It gets the
 * headers that a direct get would have (Nats-Subject, Nats-Sequence, Nats-Time-Stamp). If the server answers an error,
 * *error is set, with its description in the arena.
 */
enum jetstream_unwrap jetstream_unwrap_message(struct arena *arena, const struct message *answer,
                                               struct message *message, struct jetstream_error *error);

#endif
