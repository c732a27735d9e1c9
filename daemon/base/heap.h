/*
 * heap: gives memory back to the system after a burst.
 *
 * Used by main. malloc keeps memory that was freed in the middle of its heap: a hundred megabytes after half a million
 * keys have left the cache, half a gigabyte after a burst of large messages. malloc_trim gives whole pages back, and
 * takes about a millisecond for 8 MB. So it is called each time that the counted bytes have fallen by HEAP_STEP_BYTES,
 * and not once at the end: the loop does other work in between. Less than that may keep as many pages: blocks that are
 * freed in no order leave one on each page until the last of them are freed. So after a large fall, a small one is
 * enough for a call each second, for half a minute.
 */
#ifndef DAEMON_HEAP_H
#define DAEMON_HEAP_H

#include <stddef.h>
#include <stdint.h>

/* A call for this number of bytes is worth its time at once. */
#define HEAP_STEP_BYTES (8u * 1024u * 1024u)

/* After that, a call for this number is worth it, HEAP_PAUSE_NS after the last call, until HEAP_AFTERMATH_NS are over.
 */
#define HEAP_SMALL_STEP_BYTES (64u * 1024u)
#define HEAP_PAUSE_NS         1000000000u
#define HEAP_AFTERMATH_NS     (30ull * HEAP_PAUSE_NS)

/* Zeroed at first. */
struct heap {
    size_t highest_bytes;    /* the most that were in use since the last call of malloc_trim */
    uint64_t rests_until_ns; /* no call before this time */
    uint64_t trimmed_ns;     /* the end of the last call */
    uint64_t aftermath_ns;   /* the end of the time in which a small fall is enough */
};

/* Set malloc's thresholds. Call once, before there are threads. */
void heap_configure(void);

/* Note at the end of a turn how many bytes are in use for what clients cause, and trim the heap if it is time. */
void heap_note(struct heap *heap, size_t bytes, uint64_t now_ns);

#endif
