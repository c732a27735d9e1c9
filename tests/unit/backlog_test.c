/* Changes that readers have not been delivered yet. */
#include "daemon/store/follow/backlog.h"
#include "tests/unit/suites.h"

#include <string.h>

static struct backlog_budget budget;
static struct backlog backlog, other;
static struct backlog_reader readers[2];
static const struct backlog_reader *lost[2];
static uint64_t lost_revisions[2];
static unsigned lost_count;

static void begin(void)
{
    memset(&budget, 0, sizeof(budget));
    backlog = other = (struct backlog){.budget = &budget};
    memset(readers, 0, sizeof(readers));
    lost_count = 0;
}

static void end(void)
{
    for (unsigned i = 0; i < 2; i++) {
        if (readers[i].change != NULL)
            backlog_move(&backlog, &readers[i], NULL);
    }
    ck_assert_uint_eq(budget.bytes, 0);
    ck_assert_ptr_null(budget.backlogs);
    ck_assert_ptr_null(backlog.first);
    ck_assert_uint_eq(backlog.reader_count, 0);
}

static void note_lost(struct backlog_reader *reader, uint64_t revision)
{
    lost[lost_count] = reader;
    lost_revisions[lost_count++] = revision;
}

static struct backlog_change *add_to(struct backlog *to, uint64_t revision, bool is_unrecorded)
{
    const struct kv_entry entry = {.key = "key", .revision = revision, .operation = KV_PUT};
    const struct watch_packed packed[WATCH_FORMS] = {{"whole", 5}, {"meta", 4}, {NULL, 0}};
    struct backlog_change *change = backlog_add(to, &entry, is_unrecorded, packed);

    ck_assert_ptr_nonnull(change);
    return change;
}

static struct backlog_change *add(uint64_t revision, bool is_unrecorded)
{
    return add_to(&backlog, revision, is_unrecorded);
}

START_TEST(a_change_is_kept_for_as_long_as_a_reader_needs_it)
{
    struct backlog_change *first = add(1, false), *second = add(2, false);

    backlog_attach(&backlog, &readers[0], first);
    backlog_attach(&backlog, &readers[1], second);
    ck_assert_ptr_eq(first->next, second);
    ck_assert_str_eq(first->key, "key");
    ck_assert_mem_eq(first->packed[WATCH_META].bytes, "meta", 4);
    backlog_move(&backlog, &readers[0], second);
    ck_assert_ptr_eq(backlog.first, second);
    backlog_move(&backlog, &readers[0], NULL);
    ck_assert_ptr_eq(backlog_any_reader(&backlog), &readers[1]);
}
END_TEST

START_TEST(readers_that_are_behind_by_too_much_are_lost_and_the_others_are_not)
{
    struct backlog_change *first = add(1, false), *last = add(2, false);

    backlog_attach(&backlog, &readers[0], first);
    backlog_attach(&backlog, &readers[1], last);
    backlog_trim(&backlog, backlog.end, note_lost);
    ck_assert_uint_eq(lost_count, 0);
    backlog_trim(&backlog, 1, note_lost);
    ck_assert_uint_eq(lost_count, 1);
    ck_assert_ptr_eq(lost[0], &readers[0]);
    ck_assert_uint_eq(lost_revisions[0], 1);
    ck_assert_ptr_null(readers[0].change);
    ck_assert_ptr_eq(backlog.first, last);
}
END_TEST

START_TEST(of_all_backlogs_the_largest_loses_its_readers)
{
    struct backlog_change *first = add(1, false), *small = add_to(&other, 1, false);
    uint64_t one = budget.bytes / 2;

    add(2, false);
    backlog_attach(&backlog, &readers[0], first);
    backlog_attach(&other, &readers[1], small);
    ck_assert_uint_eq(budget.bytes, 3 * one);
    backlog_trim_all(&budget, 3 * one, note_lost);
    ck_assert_uint_eq(lost_count, 0);
    backlog_trim_all(&budget, 3 * one - 1, note_lost);
    ck_assert_uint_eq(lost_count, 1);
    ck_assert_ptr_eq(lost[0], &readers[0]);
    ck_assert_uint_eq(lost_revisions[0], 1);
    ck_assert_ptr_null(backlog.first);
    ck_assert_uint_eq(budget.bytes, one);
    backlog_trim_all(&budget, one - 1, note_lost); /* the only change */
    ck_assert_uint_eq(lost_count, 1);
    backlog_move(&other, &readers[1], NULL);
}
END_TEST

START_TEST(a_reader_that_misses_an_unrecorded_change_has_no_revision_to_resume_from)
{
    struct backlog_change *before = add(1, false), *unrecorded = add(1, true), *after = add(2, false);

    ck_assert_uint_eq(backlog_resume_revision(&backlog, before), 0);
    ck_assert_uint_eq(backlog_resume_revision(&backlog, unrecorded), 0);
    ck_assert_uint_eq(backlog_resume_revision(&backlog, after), 2);
    backlog_begin_epoch(&backlog);
    ck_assert_uint_eq(backlog_resume_revision(&backlog, after), 0);
    backlog_attach(&backlog, &readers[0], before);
    backlog_attach(&backlog, &readers[1], after);
    backlog_lose_all(&backlog, note_lost);
    ck_assert_uint_eq(lost_count, 2);
    ck_assert_uint_eq(lost_revisions[1], 0);
}
END_TEST

Suite *backlog_suite(void)
{
    Suite *suite = suite_create("backlog");
    TCase *tests = tcase_create("changes");

    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, a_change_is_kept_for_as_long_as_a_reader_needs_it);
    tcase_add_test(tests, readers_that_are_behind_by_too_much_are_lost_and_the_others_are_not);
    tcase_add_test(tests, of_all_backlogs_the_largest_loses_its_readers);
    tcase_add_test(tests, a_reader_that_misses_an_unrecorded_change_has_no_revision_to_resume_from);
    suite_add_tcase(suite, tests);
    return suite;
}
