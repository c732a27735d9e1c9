/*
 * rpc: the envelope of MessagePack-RPC around a call, its answer and a
 * notification. The form: proto/protocol.md, "Messages".
 *
 * Used by the daemon's session and the client library, each its own half.
 * Decoding never copies a body: strings in the decoded message point into the
 * bytes that were decoded, containers live in the caller's zone. No str has the
 * pointer NULL, not even an empty one, which msgpack-c alone would give it.
 */
#ifndef PROTO_RPC_H
#define PROTO_RPC_H

#include "proto/error.h"

#include <msgpack.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum rpc_type { RPC_REQUEST = 0, RPC_RESPONSE = 1, RPC_NOTIFICATION = 2 };

struct rpc_message {
    enum rpc_type type;
    uint32_t msgid;        /* of a request or a response */
    bool has_msgid;        /* false in a response to a message whose msgid could not be read */
    const char *method;    /* of a request or a notification; not NUL-terminated */
    size_t method_length;  /* bytes */
    msgpack_object params; /* an array, also if nil or an empty map came; of a request or a notification */
    msgpack_object error;  /* nil where all went well; of a response */
    msgpack_object result; /* of a response */
};

/*
 * Decodes one whole value that frame_scan has let through (size as it found).
 * NULL on success, otherwise a sentence that says what is wrong with the envelope;
 * then message->has_msgid tells whether a msgid could still be read from it.
 * "out of memory" is among the sentences.
 */
const char *rpc_decode(const char *bytes, size_t size, msgpack_zone *zone, struct rpc_message *message);

/*
 * Reads type and msgid from the beginning of a request that is not, or never will
 * be, there as a whole. False when those bytes are not there or are no request's.
 */
bool rpc_peek_msgid(const uint8_t *bytes, size_t length, uint32_t *msgid);

/* [0, msgid, method, …: pack the params array next. */
void rpc_pack_request(msgpack_packer *packer, uint32_t msgid, const char *method);

/* [1, msgid, nil, …: pack the result next. */
void rpc_pack_result(msgpack_packer *packer, uint32_t msgid);

/* A whole error response; msgid NULL for the nil of a message that had no readable one. */
void rpc_pack_error(msgpack_packer *packer, const uint32_t *msgid, const struct error *error);

/* The same, with the error as one str: see error_pack_text. */
void rpc_pack_error_text(msgpack_packer *packer, const uint32_t *msgid, const struct error *error);

/* [2, method, …: pack the params array next. */
void rpc_pack_notification(msgpack_packer *packer, const char *method);

#endif
