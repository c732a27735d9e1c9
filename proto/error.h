/*
 * error: the failure of a call: its code, its message, and what is known about the outcome.
 *
 * Used by the daemon, which makes errors, and the client library, which receives them. The codes and their meaning:
 * proto/protocol.md, "Errors".
 */
#ifndef PROTO_ERROR_H
#define PROTO_ERROR_H

#include <msgpack.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum error_code {
    ERROR_NONE = 0,
    ERROR_INVALID_ARGUMENT,
    ERROR_BUCKET_NOT_FOUND,
    ERROR_ALREADY_EXISTS,
    ERROR_CONFLICT,
    ERROR_TOO_LARGE,
    ERROR_PERMISSION_DENIED,
    ERROR_UNSUPPORTED,
    ERROR_RESOURCE_EXHAUSTED,
    ERROR_UNAVAILABLE,
    ERROR_DEADLINE_EXCEEDED,
    ERROR_REVISION_GONE,
    ERROR_LOCKED,
    ERROR_NOT_HELD,
    ERROR_NOT_AN_INTEGER,
    ERROR_OUT_OF_RANGE,
    ERROR_INTERNAL,
    ERROR_CODE_COUNT
};

/* What became of the change that a failed call wanted. */
enum error_outcome {
    ERROR_OUTCOME_ABSENT = 0, /* the call changes nothing; not on the wire */
    ERROR_OUTCOME_NONE,       /* nothing was written */
    ERROR_OUTCOME_UNKNOWN     /* it may have been written */
};

#define ERROR_MESSAGE_BYTES 256

struct error {
    enum error_code code;
    bool retryable;
    enum error_outcome outcome;
    bool has_revision;
    uint64_t revision;  /* the key's current revision, on conflict */
    const char *bucket; /* borrowed, may be NULL */
    const char *key;    /* borrowed, may be NULL */
    const char *value;  /* of a lock, on locked: what its holder says of itself; borrowed, may be NULL */
    size_t value_bytes;
    char message[ERROR_MESSAGE_BYTES];
};

/* The code's name on the wire, such as "bucket_not_found". */
const char *error_code_name(enum error_code code);

/* The code of a name of length bytes; ERROR_INTERNAL for a name this version does not know. */
enum error_code error_code_from_name(const char *name, size_t length);

/*
 * Set the code and the message of an error, and clear all other members. The message is cut to fit ERROR_MESSAGE_BYTES.
 * retryable follows from the code: unavailable, deadline_exceeded and resource_exhausted are.
 */
void error_set(struct error *error, enum error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Set the outcome NONE if the error has none: for calls that change something. */
static inline void error_set_default_outcome(struct error *error)
{
    if (error->outcome == ERROR_OUTCOME_ABSENT)
        error->outcome = ERROR_OUTCOME_NONE;
}

/* The same for a repeated call that does not know the outcome of the earlier one, which may have written. */
static inline void error_set_default_outcome_of_repeated(struct error *error)
{
    if (error->outcome == ERROR_OUTCOME_ABSENT && error->code != ERROR_INVALID_ARGUMENT)
        error->outcome = ERROR_OUTCOME_UNKNOWN;
    error_set_default_outcome(error);
}

/* Pack the error as the map of the protocol. */
void error_pack(const struct error *error, msgpack_packer *packer);

/* Pack the error as one str: `code: message`, and after it ` (outcome: unknown)` or ` (outcome: none)` if it has one.
 */
void error_pack_text(const struct error *error, msgpack_packer *packer);

/*
 * Read an error map. Return false if object is none. bucket, key and value point into the object. bucket and key need
 * not end in a NUL: their lengths are stored if the pointers for them are not NULL. A long message is cut.
 */
bool error_unpack(const msgpack_object *object, struct error *error, size_t *bucket_length, size_t *key_length);

#endif
