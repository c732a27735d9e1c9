#include "proto/frame.h"

#include "proto/format.h"

#include <assert.h>

void frame_init(struct frame *frame, const struct frame_limits *limits)
{
    assert(limits->depth <= FRAME_DEPTH_MAX);
    frame->limits = limits;
    frame->base = 0;
    frame->offset = 0;
    frame->elements = 0;
    frame->depth = 0;
    frame->headers_done = false;
}

/* Accounts for one value that is over, and for every container that it completes. True when that was the message. */
static bool value_ends(struct frame *frame)
{
    while (frame->depth > 0) {
        if (--frame->pending[frame->depth - 1] > 0)
            return false;
        frame->depth--;
    }
    return true;
}

enum frame_status frame_scan(struct frame *frame, const uint8_t *bytes, size_t length)
{
    const struct frame_limits *limits = frame->limits;
    size_t available = frame->base + length;

    while (!frame->headers_done) {
        struct format format;

        /* Every value that is still to come takes a byte at least. */
        if (frame->offset >= limits->size_bytes)
            return FRAME_TOO_LARGE;
        if (frame->offset >= available)
            return FRAME_PARTIAL;

        size_t room_bytes = limits->size_bytes - frame->offset;
        if (!format_read(bytes + (frame->offset - frame->base), available - frame->offset, &format))
            return format.header_bytes > room_bytes ? FRAME_TOO_LARGE : FRAME_PARTIAL;
        if (format.kind == FORMAT_RESERVED)
            return FRAME_MALFORMED;

        /* Believe no count before it is known to fit. */
        bool is_container = format.kind == FORMAT_ARRAY || format.kind == FORMAT_MAP;
        uint64_t children = format.kind == FORMAT_MAP ? 2 * format.count : format.count;
        if (format.header_bytes > room_bytes || format.body_bytes > room_bytes - format.header_bytes)
            return FRAME_TOO_LARGE;
        if (frame->elements + 1 + children > limits->elements)
            return FRAME_TOO_MANY_ELEMENTS;
        if (children > room_bytes - format.header_bytes)
            return FRAME_TOO_LARGE;
        if (is_container && frame->depth >= limits->depth)
            return FRAME_TOO_DEEP;

        frame->offset += format.header_bytes + (size_t)format.body_bytes;
        frame->elements++;
        if (is_container && children > 0)
            frame->pending[frame->depth++] = children;
        else
            frame->headers_done = value_ends(frame);
    }
    return frame->offset <= available ? FRAME_COMPLETE : FRAME_PARTIAL;
}

const char *frame_status_text(enum frame_status status)
{
    switch (status) {
    case FRAME_COMPLETE:
        return "is complete";
    case FRAME_PARTIAL:
        return "is not complete yet";
    case FRAME_MALFORMED:
        return "is not MessagePack";
    case FRAME_TOO_LARGE:
        return "has too many bytes";
    case FRAME_TOO_MANY_ELEMENTS:
        return "has too many elements";
    case FRAME_TOO_DEEP:
        return "is nested too deeply";
    }
    return "is wrong";
}
