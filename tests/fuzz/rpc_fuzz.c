/*
 * Pass any bytes through frame, rpc and error, as a message. What the daemon reads from the first bytes (the msgid of a
 * message that it will not keep) must be the same as in the whole message. What was decoded must be the same as with
 * msgpack-c's own unpacker, and must point into the message. An error that was unpacked must survive being packed
 * again.
 */
#include "proto/decode.h"
#include "proto/frame.h"
#include "proto/rpc.h"
#include "tests/unit/same_object.h"

#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            abort();                                                                                                   \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

/* Peek at ever longer prefixes, each in memory of exactly its size: once there is a msgid, it stays. */
static bool peek(const uint8_t *input, size_t length, uint32_t *msgid)
{
    bool found = false;

    for (size_t there = 0; there <= length && there <= 9; there++) {
        uint32_t seen = 0;
        uint8_t *prefix = malloc(there > 0 ? there : 1);

        memcpy(prefix, input, there);
        bool is_there = rpc_peek_msgid(prefix, there, &seen);
        free(prefix);
        REQUIRE(is_there || !found);
        REQUIRE(!found || seen == *msgid);
        found = is_there;
        *msgid = seen;
    }
    return found;
}

static char *copy_text(const char *text, size_t length)
{
    return text == NULL ? NULL : strndup(text, length);
}

static void check_error(const msgpack_object *object)
{
    struct error error, again;
    size_t bucket_length = 0, key_length = 0;
    msgpack_sbuffer buffer;
    msgpack_packer packer;
    msgpack_zone zone;
    msgpack_object repacked;
    size_t offset = 0;

    if (!error_unpack(object, &error, &bucket_length, &key_length))
        return;
    REQUIRE(object->type == MSGPACK_OBJECT_MAP);
    REQUIRE(error.code > ERROR_NONE && error.code < ERROR_CODE_COUNT);
    REQUIRE(memchr(error.message, '\0', sizeof(error.message)) != NULL);

    /* As the daemon does it: names that end in NUL. */
    char *bucket = copy_text(error.bucket, bucket_length);
    char *key = copy_text(error.key, key_length);
    error.bucket = bucket;
    error.key = key;
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    error_pack(&error, &packer);
    REQUIRE(msgpack_zone_init(&zone, 1024));
    REQUIRE(msgpack_unpack(buffer.data, buffer.size, &offset, &zone, &repacked) == MSGPACK_UNPACK_SUCCESS);
    REQUIRE(error_unpack(&repacked, &again, &bucket_length, &key_length));
    REQUIRE(again.code == error.code && again.retryable == error.retryable && again.outcome == error.outcome);
    REQUIRE(again.has_revision == error.has_revision && again.revision == error.revision);
    REQUIRE(strcmp(again.message, error.message) == 0);
    REQUIRE((again.bucket != NULL) == (bucket != NULL) && (again.key != NULL) == (key != NULL));
    REQUIRE(bucket == NULL || (bucket_length == strlen(bucket) && memcmp(bucket, again.bucket, bucket_length) == 0));
    REQUIRE(key == NULL || (key_length == strlen(key) && memcmp(key, again.key, key_length) == 0));
    msgpack_zone_destroy(&zone);
    msgpack_sbuffer_destroy(&buffer);
    free(key);
    free(bucket);
}

static void check_object(const char *bytes, size_t size, msgpack_zone *zone)
{
    msgpack_object ours, theirs;
    size_t offset = 0;

    REQUIRE(msgpack_unpack(bytes, size, &offset, zone, &theirs) == MSGPACK_UNPACK_SUCCESS);
    REQUIRE(decode_value(bytes, size, zone, &ours) == DECODE_DONE);
    REQUIRE(same_object(&ours, &theirs));
}

static void check_message(const struct rpc_message *message, const char *bytes, size_t size)
{
    if (message->type == RPC_RESPONSE) {
        check_error(&message->error);
        check_error(&message->result);
        return;
    }
    REQUIRE(message->method != NULL);
    REQUIRE(message->method_length == 0 ||
            (message->method >= bytes && message->method + message->method_length <= bytes + size));
    REQUIRE(message->params.type == MSGPACK_OBJECT_ARRAY);
    REQUIRE(message->has_msgid == (message->type == RPC_REQUEST));
    for (uint32_t i = 0; i < message->params.via.array.size; i++)
        check_error(&message->params.via.array.ptr[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
    const struct frame_limits limits = {.size_bytes = 1u << 16, .elements = 4096, .depth = FRAME_DEPTH_MAX};
    struct frame frame;
    struct rpc_message message;
    msgpack_zone zone;
    uint32_t peeked = 0;

    bool has_peeked = peek(input, length, &peeked);
    frame_init(&frame, &limits);
    if (frame_scan(&frame, input, length) != FRAME_COMPLETE)
        return 0;

    /* Of exactly the message's size: reads after it are detected. */
    char *bytes = malloc(frame.offset);
    memcpy(bytes, input, frame.offset);
    REQUIRE(msgpack_zone_init(&zone, 8192));
    check_object(bytes, frame.offset, &zone);
    const char *wrong = rpc_decode(bytes, frame.offset, &zone, &message);
    REQUIRE(wrong == NULL || (strcmp(wrong, "the message is not MessagePack") != 0 && *wrong != '\0'));
    if (has_peeked)
        REQUIRE(message.type == RPC_REQUEST && message.has_msgid && message.msgid == peeked);
    if (wrong == NULL)
        check_message(&message, bytes, frame.offset);
    msgpack_zone_destroy(&zone);
    free(bytes);
    return 0;
}
