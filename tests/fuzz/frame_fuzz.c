/*
 * Compare frame with msgpack-c's own unpacker, which other people wrote for the same format.
 *
 * What frame calls complete must parse, to the same size and with the same counts. What it refuses must be over the
 * limit that it names. In whatever pieces the bytes come, the verdict must be the same. Count what the unpacker
 * allocates for a message that was accepted.
 *
 * Input: one byte that chooses the limits, one that chooses the pieces, a message.
 */
#include "proto/frame.h"

#include <msgpack.h>
#include <sanitizer/allocator_interface.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            abort();                                                                                                   \
    } while (0)

/* Room for the zone's first chunk and for what it rounds up. */
#define ALLOCATION_SLACK_BYTES (64u * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static size_t allocated_bytes;

static void note_malloc(const volatile void *memory, size_t size_bytes)
{
    (void)memory;
    allocated_bytes += size_bytes;
}

static void note_free(const volatile void *memory)
{
    (void)memory;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    __sanitizer_install_malloc_and_free_hooks(note_malloc, note_free);
    return 0;
}

struct measure {
    size_t size_bytes;
    uint64_t elements;
    uint32_t depth;
};

static void measure_object(const msgpack_object *object, uint32_t depth, struct measure *measure)
{
    bool is_array = object->type == MSGPACK_OBJECT_ARRAY;
    bool is_map = object->type == MSGPACK_OBJECT_MAP;

    measure->elements++;
    if ((is_array || is_map) && depth + 1 > measure->depth)
        measure->depth = depth + 1;
    for (uint32_t i = 0; is_array && i < object->via.array.size; i++)
        measure_object(&object->via.array.ptr[i], depth + 1, measure);
    for (uint32_t i = 0; is_map && i < object->via.map.size; i++) {
        measure_object(&object->via.map.ptr[i].key, depth + 1, measure);
        measure_object(&object->via.map.ptr[i].val, depth + 1, measure);
    }
}

/* Unpack bytes that frame has accepted so far: no count in them is over the limits. */
static msgpack_unpack_return unpack(const uint8_t *bytes, size_t length, struct measure *measure)
{
    msgpack_zone zone;
    msgpack_object object;

    memset(measure, 0, sizeof(*measure));
    REQUIRE(msgpack_zone_init(&zone, 8192));
    msgpack_unpack_return result = msgpack_unpack((const char *)bytes, length, &measure->size_bytes, &zone, &object);
    if (result == MSGPACK_UNPACK_SUCCESS || result == MSGPACK_UNPACK_EXTRA_BYTES)
        measure_object(&object, 0, measure);
    msgpack_zone_destroy(&zone);
    return result;
}

static void check_complete(const uint8_t *bytes, const struct frame *frame, const struct frame_limits *limits)
{
    struct measure measure;

    allocated_bytes = 0;
    REQUIRE(unpack(bytes, frame->offset, &measure) == MSGPACK_UNPACK_SUCCESS);
    REQUIRE(allocated_bytes <= 4 * sizeof(msgpack_object) * frame->elements + ALLOCATION_SLACK_BYTES);
    REQUIRE(measure.size_bytes == frame->offset && measure.size_bytes <= limits->size_bytes);
    REQUIRE(measure.elements == frame->elements && measure.elements <= limits->elements);
    REQUIRE(measure.depth <= limits->depth);
}

/* If a wider limit lets the message end, the narrow one must have been right to refuse it. */
static void check_refusal(const uint8_t *bytes, size_t length, enum frame_status status,
                          const struct frame_limits *narrow)
{
    const struct frame_limits wide = {.size_bytes = 1u << 20, .elements = 1u << 16, .depth = FRAME_DEPTH_MAX};
    struct frame frame;
    struct measure measure;

    frame_init(&frame, &wide);
    if (frame_scan(&frame, bytes, length) != FRAME_COMPLETE)
        return;
    check_complete(bytes, &frame, &wide);
    REQUIRE(unpack(bytes, frame.offset, &measure) == MSGPACK_UNPACK_SUCCESS);
    switch (status) {
    case FRAME_TOO_LARGE:
        REQUIRE(measure.size_bytes > narrow->size_bytes);
        break;
    case FRAME_TOO_MANY_ELEMENTS:
        REQUIRE(measure.elements > narrow->elements);
        break;
    case FRAME_TOO_DEEP:
        REQUIRE(measure.depth > narrow->depth);
        break;
    case FRAME_COMPLETE:
    case FRAME_PARTIAL:
    case FRAME_MALFORMED:
        abort(); /* no limit makes a complete message of any of these */
    }
}

/* Scan in pieces, each in memory of exactly its size. If let_go, release what was scanned. */
static enum frame_status scan_in_pieces(struct frame *frame, const struct frame_limits *limits, const uint8_t *bytes,
                                        size_t length, uint32_t seed, bool let_go)
{
    enum frame_status status = FRAME_PARTIAL;
    size_t there = 0;

    frame_init(frame, limits);
    while (status == FRAME_PARTIAL) {
        size_t held = there - frame->base;
        uint8_t *window = malloc(held > 0 ? held : 1);

        memcpy(window, bytes + frame->base, held);
        status = frame_scan(frame, window, held);
        free(window);
        if (there == length)
            break;
        if (let_go) {
            size_t walked = frame->offset - frame->base;
            frame->base += walked < held ? walked : held;
        }
        seed = seed * 1664525u + 1013904223u;
        size_t more = 1 + (seed >> 16) % 19;
        there += more < length - there ? more : length - there;
    }
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
    static const size_t sizes[] = {1u << 16, 1024, 64, 9};
    static const uint32_t elements[] = {4096, 256, 16, 3};
    static const uint32_t depths[] = {FRAME_DEPTH_MAX, 8, 3, 1};
    struct frame whole, pieces;
    struct measure measure;

    if (length < 2)
        return 0;
    const struct frame_limits limits = {
        .size_bytes = sizes[input[0] & 3], .elements = elements[input[0] >> 2 & 3], .depth = depths[input[0] >> 4 & 3]};
    const uint8_t *bytes = input + 2;
    length -= 2;

    frame_init(&whole, &limits);
    enum frame_status status = frame_scan(&whole, bytes, length);
    switch (status) {
    case FRAME_COMPLETE:
        REQUIRE(whole.offset <= length);
        check_complete(bytes, &whole, &limits);
        break;
    case FRAME_PARTIAL:
        REQUIRE(length < limits.size_bytes);
        REQUIRE(unpack(bytes, length, &measure) == MSGPACK_UNPACK_CONTINUE);
        break;
    case FRAME_MALFORMED:
        REQUIRE(unpack(bytes, length, &measure) == MSGPACK_UNPACK_PARSE_ERROR);
        break;
    case FRAME_TOO_LARGE:
    case FRAME_TOO_MANY_ELEMENTS:
    case FRAME_TOO_DEEP:
        check_refusal(bytes, length, status, &limits);
        break;
    }

    for (int let_go = 0; let_go <= 1; let_go++) {
        REQUIRE(scan_in_pieces(&pieces, &limits, bytes, length, input[1], let_go) == status);
        REQUIRE(pieces.offset == whole.offset && pieces.elements == whole.elements);
    }
    return 0;
}
