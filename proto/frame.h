/*
 * frame: where does one MessagePack value end?
 *
 * Used by the daemon's session and the client library on bytes that come from a
 * stranger, before the MessagePack library sees them. It walks the value's headers
 * without building anything, and resumes where it stopped when more bytes arrive,
 * so that a value that trickles in costs time proportional to its size. It
 * promises that a value it lets through is well-formed, has no more bytes,
 * elements and nesting than the limits say, and that no count in a header is
 * believed before that many bytes can still follow within the limit.
 *
 * Why before the library: five bytes (an array header that claims 2^32-1
 * elements) make msgpack-c's unpacker reserve memory for all of them.
 */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The deepest nesting that any configuration may allow: msgpack-c's unpacker has a stack of 32 and fails beyond. */
#define FRAME_DEPTH_MAX 32u

struct frame_limits {
    size_t size_bytes; /* of one message */
    uint32_t elements; /* MessagePack values within one message, itself and both halves of map members counted */
    uint32_t depth;    /* arrays and maps within each other, at most FRAME_DEPTH_MAX */
};

enum frame_status {
    FRAME_COMPLETE,          /* a whole value of frame.offset bytes is there */
    FRAME_PARTIAL,           /* well so far: call again with more bytes */
    FRAME_MALFORMED,         /* not MessagePack (the reserved byte 0xc1) */
    FRAME_TOO_LARGE,         /* the value is, or says it will be, over size_bytes */
    FRAME_TOO_MANY_ELEMENTS, /* over elements */
    FRAME_TOO_DEEP           /* over depth */
};

/* The state of one scan. Plain memory: nothing to free. */
struct frame {
    const struct frame_limits *limits;
    size_t base;                       /* bytes of the value that the caller has let go of */
    size_t offset;                     /* bytes of the value that are walked; may run ahead of what is there */
    uint64_t elements;                 /* values begun */
    uint32_t depth;                    /* containers open */
    bool headers_done;                 /* only the last element's body is still to come */
    uint64_t pending[FRAME_DEPTH_MAX]; /* values that each open container still waits for */
};

/* Begins a scan. *limits is borrowed until the scan is over. */
void frame_init(struct frame *frame, const struct frame_limits *limits);

/*
 * Continue the scan. bytes holds the value from its byte number frame->base
 * on (0 for a caller who keeps the whole value), length bytes of it by now.
 * A caller who only wants to get past the value may let go of bytes that are
 * walked: advance base by as many, at most to offset.
 * FRAME_PARTIAL promises that the value may still fit: a caller with room for
 * size_bytes never has to grow it.
 * On FRAME_COMPLETE, frame->offset is the value's size and bytes after it are the
 * next value's. After COMPLETE or an error, frame_init before the next value.
 */
enum frame_status frame_scan(struct frame *frame, const uint8_t *bytes, size_t length);

/* A sentence's beginning for an error status, such as "is nested too deeply". */
const char *frame_status_text(enum frame_status status);

#endif
