/* key_page: the lowest keys of those that a reading of a bucket brings. */
#include "daemon/store/read/key_page.h"
#include "tests/unit/suites.h"

#include <stdio.h>
#include <string.h>

/* Add the names, separated by blanks; remove those that begin with a minus. */
static void read_names(struct key_page *page, const char *names)
{
    char name[32];

    for (int length; sscanf(names, " %31s%n", name, &length) == 1; names += length) {
        if (name[0] == '-')
            key_page_remove(page, name + 1);
        else
            ck_assert_int_ne(key_page_add(page, name, 0, 0), KEY_PAGE_NO_MEMORY);
    }
}

static void assert_names(const struct key_page *page, const char *expected)
{
    struct key_order_place place = {0};
    char names[256] = "";
    size_t count = 0;

    for (const char *name; (name = key_order_next(&page->names, &place)) != NULL; count++)
        snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s", count > 0 ? " " : "", name);
    ck_assert_str_eq(names, expected);
    ck_assert_uint_eq(page->count, count);
}

static void assert_page(bool has_revisions, size_t limit, const char *names, const char *expected, bool is_short)
{
    struct key_page page = {.limit = limit, .has_revisions = has_revisions};

    read_names(&page, names);
    assert_names(&page, expected);
    ck_assert_int_eq(key_page_is_short(&page), is_short);
    key_page_clear(&page);
    ck_assert_uint_eq(page.count, 0);
    ck_assert_uint_eq(page.packed_bytes, 0);
    ck_assert_uint_eq(page.memory_bytes, 0);
    ck_assert_uint_eq(page.limit, limit);
}

START_TEST(a_page_has_the_lowest_keys_in_order)
{
    for (int has_revisions = 0; has_revisions < 2; has_revisions++) {
        assert_page(has_revisions, 0, "d b a c", "a b c d", false);
        assert_page(has_revisions, 2, "d b a c", "a b", false);
        assert_page(has_revisions, 2, "a b c d", "a b", false);
        assert_page(has_revisions, 2, "a a b b a", "a b", false);
        assert_page(has_revisions, 3, "a -a b", "b", false);
        assert_page(has_revisions, 2, "a -c b", "a b", false);
        assert_page(has_revisions, 2, "", "", false);
    }
}
END_TEST

START_TEST(a_page_never_lacks_a_key_below_its_last_one)
{
    assert_page(false, 2, "a b c -b d", "a", true);        /* d would hide that c is missing */
    assert_page(false, 2, "a b c -b c", "a", true);        /* the same if c is written again */
    assert_page(false, 2, "b c d a -b bb", "a bb", false); /* c was dropped, and bb is below it */
    assert_page(false, 2, "a c e b -a d", "b", true);
    assert_page(false, 1, "b a -a", "", true);
}
END_TEST

START_TEST(a_page_notes_the_last_revision_of_each_key)
{
    struct key_page page = {.limit = 2, .has_revisions = true};
    struct key_order_place place = {0};

    key_page_add(&page, "b", 1, 10);
    key_page_add(&page, "a", 2, 20);
    key_page_add(&page, "b", 3, 30);
    ck_assert_int_eq(key_page_add(&page, "c", 4, 40), KEY_PAGE_BEYOND);
    const char *name = key_order_next(&page.names, &place);
    ck_assert_str_eq(name, "a");
    ck_assert_uint_eq(key_page_revision(name), 2);
    name = key_order_next(&page.names, &place);
    ck_assert_str_eq(name, "b");
    ck_assert_uint_eq(key_page_revision(name), 3);
    ck_assert_uint_eq(key_page_value_bytes(name), 30);
    key_page_clear(&page);
}
END_TEST

START_TEST(a_page_is_cleared_some_keys_at_a_time)
{
    struct key_page page = {.limit = 0};

    read_names(&page, "a b c d e");
    ck_assert(key_page_clear_some(&page, 2));
    ck_assert(key_page_clear_some(&page, 2));
    ck_assert(!key_page_clear_some(&page, 2));
    ck_assert_uint_eq(page.names.bytes, 0);
}
END_TEST

Suite *key_page_suite(void)
{
    Suite *suite = suite_create("key_page");
    TCase *tests = tcase_create("key_page");

    tcase_add_test(tests, a_page_has_the_lowest_keys_in_order);
    tcase_add_test(tests, a_page_never_lacks_a_key_below_its_last_one);
    tcase_add_test(tests, a_page_notes_the_last_revision_of_each_key);
    tcase_add_test(tests, a_page_is_cleared_some_keys_at_a_time);
    suite_add_tcase(suite, tests);
    return suite;
}
