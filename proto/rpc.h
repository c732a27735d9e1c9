/*
 * rpc: the envelope of MessagePack-RPC: requests, responses and notifications. The form: proto/protocol.md, "Messages".
 *
 * Used by the daemon and the client library. Decoding copies no strings: those of the decoded message point into the
 * bytes that were decoded, and containers live in the caller's zone. The pointer of a str is never NULL, not even that
 * of an empty one.
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
    uint32_t msgid;       /* of a request or a response */
    bool has_msgid;       /* false: a notification, or a message whose msgid could not be read */
    const char *method;   /* of a request or a notification; not NUL-terminated */
    size_t method_length; /* bytes */
    msgpack_object
        params; /* of a request or a notification; always an array: nil and an empty map become an empty one */
    msgpack_object error;  /* of a response; nil if the call succeeded */
    msgpack_object result; /* of a response */
};

/*
 * Decode one whole value that frame_scan has accepted, of the size that it found. Return NULL, or a sentence that says
 * what is wrong with the envelope ("out of memory" is one of them). Then message->has_msgid says whether the msgid
 * could be read.
 */
const char *rpc_decode(const char *bytes, size_t size, msgpack_zone *zone, struct rpc_message *message);

/*
 * Read the msgid from the beginning of a request that is not complete, or never will be. Return false if the bytes are
 * too few, or do not begin a request.
 */
bool rpc_peek_msgid(const uint8_t *bytes, size_t length, uint32_t *msgid);

/* Pack [0, msgid, method, …: the array of params must follow. */
void rpc_pack_request(msgpack_packer *packer, uint32_t msgid, const char *method);

/* Pack [1, msgid, nil, …: the result must follow. */
void rpc_pack_result(msgpack_packer *packer, uint32_t msgid);

/* Pack a whole error response. msgid NULL: nil, for a message whose msgid could not be read. */
void rpc_pack_error(msgpack_packer *packer, const uint32_t *msgid, const struct error *error);

/* Pack a whole error response whose error is one str: see error_pack_text. */
void rpc_pack_error_text(msgpack_packer *packer, const uint32_t *msgid, const struct error *error);

/* Pack [2, method, …: the array of params must follow. */
void rpc_pack_notification(msgpack_packer *packer, const char *method);

#endif
