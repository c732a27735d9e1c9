/* Sets of filters: each statement about them holds for every key. */
#include "daemon/nats/kv.h"
#include "daemon/store/follow/filter.h"
#include "daemon/store/follow/filter_tree.h"
#include "tests/unit/suites.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILTERS_MAX 64u
#define KEYS_MAX    128u
#define TEXT_BYTES  16u

/*
 * Every filter of up to three tokens of a, b, * and >, and every key of up to four of a, b, c: no larger counterexample
 * is needed.
 */
static char filters[FILTERS_MAX][TEXT_BYTES], keys[KEYS_MAX][TEXT_BYTES];
static size_t filter_count, key_count;

static size_t add_all(char texts[][TEXT_BYTES], size_t count, const char *begin, const char *letters, unsigned depth)
{
    for (const char *letter = letters; *letter != '\0'; letter++) {
        snprintf(texts[count], TEXT_BYTES, "%s%s%c", begin, *begin != '\0' ? "." : "", *letter);
        const char *made = texts[count++];
        if (depth > 1 && *letter != '>')
            count = add_all(texts, count, made, letters, depth - 1);
    }
    return count;
}

static void make_all(void)
{
    filter_count = add_all(filters, 0, "", "ab*>", 3);
    key_count = add_all(keys, 0, "", "abc", 4);
    ck_assert_uint_le(filter_count, FILTERS_MAX);
    ck_assert_uint_le(key_count, KEYS_MAX);
}

START_TEST(a_filter_covers_another_when_it_matches_all_its_keys)
{
    for (size_t i = 0; i < filter_count; i++) {
        for (size_t j = 0; j < filter_count; j++) {
            bool covers = true;
            for (size_t k = 0; k < key_count; k++)
                covers &= !kv_filter_matches(filters[j], keys[k]) || kv_filter_matches(filters[i], keys[k]);
            ck_assert_msg(filter_covers(filters[i], filters[j]) == covers, "%s covers %s: %d", filters[i], filters[j],
                          covers);
        }
    }
}
END_TEST

START_TEST(two_filters_overlap_when_a_key_matches_both)
{
    for (size_t i = 0; i < filter_count; i++) {
        for (size_t j = 0; j < filter_count; j++) {
            bool overlaps = false;
            for (size_t k = 0; k < key_count; k++)
                overlaps |= kv_filter_matches(filters[j], keys[k]) && kv_filter_matches(filters[i], keys[k]);
            ck_assert_msg(filter_overlaps(filters[i], filters[j]) == overlaps, "%s overlaps %s: %d", filters[i],
                          filters[j], overlaps);
        }
    }
}
END_TEST

START_TEST(tokens_are_compared_whole)
{
    ck_assert(!filter_covers("ab", "abc"));
    ck_assert(!filter_covers("abc", "ab"));
    ck_assert(!filter_overlaps("a.bc.>", "a.b.>"));
    ck_assert(filter_covers("a.*.c", "a.*.c"));
    ck_assert(filter_overlaps("*.web-1", "app.*"));
    ck_assert(filter_is_key("a.b.c"));
    ck_assert(!filter_is_key("a.*.c"));
    ck_assert(!filter_is_key(">"));
}
END_TEST

START_TEST(any_of_several_filters_may_match)
{
    const char *several[] = {"a.*", "b.>"};

    ck_assert(filter_any_matches(several, 2, "a.x"));
    ck_assert(filter_any_matches(several, 2, "b.x.y"));
    ck_assert(!filter_any_matches(several, 2, "a.x.y"));
    ck_assert(!filter_any_matches(several, 0, "a.x"));
}
END_TEST

START_TEST(a_filter_with_wildcards_counts_for_its_tokens)
{
    ck_assert_uint_eq(filter_weight("a"), 1);
    ck_assert_uint_eq(filter_weight("a.b.c.d.e.f.g.h.i.j"), 1);
    ck_assert_uint_eq(filter_weight(">"), 1);
    ck_assert_uint_eq(filter_weight("a.*.b.>"), 1);
    ck_assert_uint_eq(filter_weight("a.*.b.c.>"), 2);
}
END_TEST

static bool matches_any(const char *const *some, size_t count, const char *key)
{
    for (size_t i = 0; i < count; i++) {
        if (kv_filter_matches(some[i], key))
            return true;
    }
    return false;
}

START_TEST(reduced_filters_match_the_same_keys_each_by_one_of_them)
{
    unsigned seed = 5;

    for (unsigned round = 0; round < 3000; round++) {
        const char *given[8], *reduced[8];
        size_t count = 1 + (size_t)rand_r(&seed) % 8, most = 1 + (size_t)rand_r(&seed) % 8;
        for (size_t i = 0; i < count; i++)
            given[i] = reduced[i] = filters[(size_t)rand_r(&seed) % filter_count];
        size_t left = filter_reduce(reduced, count, most);

        ck_assert_uint_ge(left, 1);
        ck_assert_uint_le(left, most);
        bool is_all = left == 1 && strcmp(reduced[0], ">") == 0;
        for (size_t k = 0; k < key_count; k++) {
            unsigned matching = 0;
            for (size_t i = 0; i < left; i++)
                matching += kv_filter_matches(reduced[i], keys[k]);
            /* A server refuses two filters that may match one key. */
            ck_assert_uint_le(matching, 1);
            if (!is_all)
                ck_assert_int_eq(matching, matches_any(given, count, keys[k]));
        }
    }
}
END_TEST

static void count_visit(void *arg, void *owner)
{
    (void)arg;
    ++*(unsigned *)owner;
}

START_TEST(a_tree_finds_each_filter_that_matches_once)
{
    static struct filter_ref refs[FILTERS_MAX];
    unsigned visits[FILTERS_MAX];
    struct filter_tree tree = {0};

    /* With all filters, then with fewer and fewer. */
    for (size_t i = 0; i < filter_count; i++)
        ck_assert(filter_tree_add(&tree, &refs[i], filters[i], &visits[i]));
    for (size_t first = 0; first < filter_count; first++) {
        for (size_t k = 0; k < key_count; k++) {
            memset(visits, 0, sizeof(visits));
            filter_tree_match(&tree, keys[k], count_visit, NULL);
            for (size_t i = 0; i < filter_count; i++)
                ck_assert_msg(visits[i] == (i >= first && kv_filter_matches(filters[i], keys[k])), "%s matches %s: %u",
                              filters[i], keys[k], visits[i]);
        }
        filter_tree_remove(&tree, &refs[first]);
    }
    ck_assert_ptr_null(tree.root);
}
END_TEST

START_TEST(filters_that_can_stay_do)
{
    const char *apart[] = {"a.*", "b.>", "c"}, *covered[] = {"a.x", "a.*", "a.*", "b"};

    ck_assert_uint_eq(filter_reduce(apart, 3, 16), 3);
    ck_assert_uint_eq(filter_reduce(covered, 4, 16), 2);
    ck_assert_str_eq(covered[0], "a.*");
    ck_assert_str_eq(covered[1], "b");
}
END_TEST

Suite *filter_suite(void)
{
    Suite *suite = suite_create("filter");
    TCase *tests = tcase_create("filter");

    tcase_add_checked_fixture(tests, make_all, NULL);
    tcase_add_test(tests, a_filter_covers_another_when_it_matches_all_its_keys);
    tcase_add_test(tests, two_filters_overlap_when_a_key_matches_both);
    tcase_add_test(tests, tokens_are_compared_whole);
    tcase_add_test(tests, a_filter_with_wildcards_counts_for_its_tokens);
    tcase_add_test(tests, any_of_several_filters_may_match);
    tcase_add_test(tests, reduced_filters_match_the_same_keys_each_by_one_of_them);
    tcase_add_test(tests, a_tree_finds_each_filter_that_matches_once);
    tcase_add_test(tests, filters_that_can_stay_do);
    suite_add_tcase(suite, tests);
    return suite;
}
