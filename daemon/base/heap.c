#include "daemon/base/heap.h"

#include <malloc.h>
#include <stdbool.h>
#include <uv.h>

/*
 * Blocks from this size on are mapped one by one, and unmapped when they are freed. Without a setting malloc raises the
 * limit to the largest block that was freed, up to 32 MB.
 */
#define MAPPED_BYTES (1024 * 1024)

/* Bytes that stay free at the heap's end, so that it does not grow and shrink all the time. */
#define TOP_BYTES (4 * 1024 * 1024)

/* After a call there is none for ten times as long as it took: at most a tenth of the loop's time goes into this. */
#define REST_TIMES 10u

/*
 * Freed blocks up to this size are not joined with their neighbours at once: none. malloc would keep a million small
 * blocks apart, and join all of them when the first large block is freed: a turn of 100 ms.
 */
#define APART_BYTES 0

void heap_configure(void)
{
    mallopt(M_MXFAST, APART_BYTES);
    mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES);
    mallopt(M_TRIM_THRESHOLD, TOP_BYTES);
}

void heap_note(struct heap *heap, size_t bytes, uint64_t now_ns)
{
    if (bytes > heap->highest_bytes)
        heap->highest_bytes = bytes;
    bool is_large = heap->highest_bytes - bytes >= HEAP_STEP_BYTES;
    bool is_small = heap->highest_bytes - bytes >= HEAP_SMALL_STEP_BYTES && now_ns < heap->aftermath_ns &&
                    now_ns >= heap->trimmed_ns + HEAP_PAUSE_NS;
    if ((!is_large && !is_small) || now_ns < heap->rests_until_ns)
        return;
    if (is_large)
        heap->aftermath_ns = now_ns + HEAP_AFTERMATH_NS;
    heap->highest_bytes = bytes;
    uint64_t begin_ns = uv_hrtime();
    malloc_trim(TOP_BYTES);
    uint64_t took_ns = uv_hrtime() - begin_ns;
    heap->trimmed_ns = now_ns + took_ns;
    heap->rests_until_ns = heap->trimmed_ns + REST_TIMES * took_ns;
}
