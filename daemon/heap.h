/*
 * heap: gives memory back to the system after a burst.
 *
 * Used by main. malloc keeps what is freed in the middle of its heap: a hundred megabytes after half a million keys
 * have left the cache, half a gigabyte after a burst of large messages. malloc_trim gives whole pages back, and takes
 * about a millisecond for 8 MB. So it is called each time that HEAP_STEP_BYTES of what is counted were freed, and not
 * once for all: the loop does other work in between.
 */
#ifndef DAEMON_HEAP_H
#define DAEMON_HEAP_H

#include <stddef.h>
#include <stdint.h>

/* Less than this is not worth a call. */
#define HEAP_STEP_BYTES (8u * 1024u * 1024u)

/* Zeroed at first. */
struct heap {
    size_t highest_bytes; /* that were in use since the last call of malloc_trim */
    uint64_t rests_until_ns;
};

/* Set malloc's thresholds. Call once, before there are threads. */
void heap_configure(void);

/* At the end of a turn: so many bytes are in use, of those that clients can make many. */
void heap_note(struct heap *heap, size_t bytes, uint64_t now_ns);

#endif
