/* When the daemon gives memory back to the system. */
#include "daemon/base/heap.h"
#include "tests/unit/suites.h"

#include <stdbool.h>

#define MEGABYTE (1024u * 1024u)

/* Note the bytes, and return whether the heap was trimmed. */
static bool trims(struct heap *heap, size_t bytes, uint64_t now_ns)
{
    uint64_t before_ns = heap->trimmed_ns;

    heap_note(heap, bytes, now_ns);
    return heap->trimmed_ns != before_ns;
}

/* Return the time of the next call, as if the last one had taken no time. */
static uint64_t rest_shortly(struct heap *heap)
{
    heap->rests_until_ns = heap->trimmed_ns;
    return heap->trimmed_ns;
}

START_TEST(much_is_given_back_at_once_and_the_rest_a_second_later)
{
    struct heap heap = {0};
    uint64_t now_ns = HEAP_AFTERMATH_NS;

    ck_assert(!trims(&heap, 100 * MEGABYTE, now_ns));
    ck_assert(trims(&heap, 50 * MEGABYTE, now_ns));
    now_ns = rest_shortly(&heap);
    ck_assert(!trims(&heap, 45 * MEGABYTE, now_ns));
    ck_assert(trims(&heap, 40 * MEGABYTE, now_ns));
    now_ns = rest_shortly(&heap);
    ck_assert(!trims(&heap, 39 * MEGABYTE, now_ns));
    now_ns += HEAP_PAUSE_NS;
    ck_assert(trims(&heap, 39 * MEGABYTE, now_ns));
    ck_assert(!trims(&heap, 39 * MEGABYTE, now_ns + HEAP_PAUSE_NS));
}
END_TEST

START_TEST(what_is_used_and_freed_all_the_time_is_kept)
{
    struct heap heap = {0};
    uint64_t now_ns = HEAP_AFTERMATH_NS;

    for (unsigned i = 0; i < 100; i++) {
        ck_assert(!trims(&heap, 7 * MEGABYTE, now_ns += HEAP_PAUSE_NS));
        ck_assert(!trims(&heap, 0, now_ns += HEAP_PAUSE_NS));
    }
}
END_TEST

Suite *heap_suite(void)
{
    Suite *suite = suite_create("heap");
    TCase *tests = tcase_create("heap");

    tcase_add_test(tests, much_is_given_back_at_once_and_the_rest_a_second_later);
    tcase_add_test(tests, what_is_used_and_freed_all_the_time_is_kept);
    suite_add_tcase(suite, tests);
    return suite;
}
