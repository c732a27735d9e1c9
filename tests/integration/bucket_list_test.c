/* bucket.list with infos and in pages, and bucket.create with update. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void make_buckets(struct client *client, const char *prefix, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_ok(client_call(client, "bucket.create", "['%s-%02u', {'storage': 'memory', 'history': %u}]", prefix, i,
                              i % 9 + 1));
}

static const struct answer *list(struct client *client, const char *options)
{
    const struct answer *answer = client_call(client, "bucket.list", "[{%s}]", options);

    assert_ok(answer);
    return answer;
}

START_TEST(buckets_are_listed_in_pages)
{
    struct client *client = client_open_shared();
    const char *after = "";
    unsigned seen = 0;

    make_buckets(client, "paged", 20);
    for (size_t count;;) {
        const struct answer *page = list(client, format_text("'filter': 'paged-*', 'limit': 7, 'after': '%s'", after));
        if ((count = count_at(&page->result, "")) == 0)
            break;
        for (size_t i = 0; i < count; i++)
            ck_assert_str_eq(text_at(&page->result, format_text("%zu", i)), format_text("paged-%02u", seen++));
        after = format_text("paged-%02u", seen - 1);
    }
    ck_assert_uint_eq(seen, 20);
}
END_TEST

START_TEST(infos_are_those_of_bucket_info)
{
    struct client *client = client_open_shared();

    make_buckets(client, "described", 20);
    put_text(client, "described-03", "a", "v");
    const struct answer *page = list(client, "'filter': 'described-*', 'infos': true");
    ck_assert_uint_eq(count_at(&page->result, ""), 20);
    for (unsigned i = 0; i < 20; i++) {
        ck_assert_str_eq(text_at(&page->result, format_text("%u.bucket", i)), format_text("described-%02u", i));
        ck_assert_uint_eq(number_at(&page->result, format_text("%u.history", i)), i % 9 + 1);
        ck_assert_uint_eq(number_at(&page->result, format_text("%u.values", i)), i == 3);
    }
    const struct answer *info = client_call(client, "bucket.info", "['described-03']");
    assert_ok(info);
    ck_assert_str_eq(object_text(find_at(&page->result, "3")), object_text(&info->result));
    page = list(client, "'filter': 'described-*', 'infos': true, 'limit': 3, 'after': 'described-16'");
    ck_assert_uint_eq(count_at(&page->result, ""), 3);
    ck_assert_str_eq(text_at(&page->result, "0.bucket"), "described-17");
    page = list(client, "'filter': 'no-such-*', 'infos': true");
    ck_assert_uint_eq(count_at(&page->result, ""), 0);
    assert_code(client_call(client, "bucket.list", "[{'limit': 0}]"), "invalid_argument");
    assert_code(client_call(client, "bucket.list", "[{'limit': 1001, 'infos': true}]"), "invalid_argument");
    assert_code(client_call(client, "bucket.list", "[{'infos': 1}]"), "invalid_argument");
}
END_TEST

/* Buckets come and go while they are listed: each answer is whole. */
START_TEST(a_bucket_that_is_deleted_meanwhile_is_left_out)
{
    struct client *client = client_open_shared(), *other = client_open_shared();

    make_buckets(client, "passing", 30);
    for (unsigned i = 0; i < 30; i++) {
        uint32_t listing = client_send(client, "bucket.list", "[{'filter': 'passing-*', 'infos': true}]");
        assert_ok(client_call(other, "bucket.delete", "['passing-%02u']", i));
        const struct answer *page = client_wait(client, listing);
        assert_ok(page);
        size_t count = count_at(&page->result, "");
        ck_assert_uint_le(count, 30 - i);
        ck_assert_uint_ge(count, 29 - i);
        for (size_t at = 0; at < count; at++)
            ck_assert_ptr_null(find_at(&page->result, format_text("%zu.error", at)));
    }
}
END_TEST

START_TEST(create_with_update_makes_or_changes_a_bucket)
{
    struct client *client = client_open_shared();
    const struct answer *answer;

    for (unsigned i = 0; i < 3; i++) {
        answer = client_call(client, "bucket.create", "['upserted', {'update': true, 'history': 3}]");
        assert_ok(answer);
        ck_assert_uint_eq(number_at(&answer->result, "history"), 3);
    }
    put_text(client, "upserted", "a", "v");
    answer =
        client_call(client, "bucket.create", "['upserted', {'update': true, 'history': 5, 'description': 'more'}]");
    assert_ok(answer);
    ck_assert_uint_eq(number_at(&answer->result, "history"), 5);
    ck_assert_uint_eq(number_at(&answer->result, "values"), 1);
    answer = client_call(client, "bucket.create", "['upserted', {'update': true, 'max_bytes': 1000000}]");
    assert_ok(answer); /* what is not given stays */
    ck_assert_uint_eq(number_at(&answer->result, "history"), 5);
    ck_assert_str_eq(text_at(&answer->result, "description"), "more");
    assert_code(client_call(client, "bucket.create", "['upserted', {'history': 6}]"), "already_exists");
    assert_code(client_call(client, "bucket.create", "['upserted', {'update': false, 'history': 6}]"),
                "already_exists");
}
END_TEST

START_TEST(create_with_update_refuses_what_an_update_refuses)
{
    struct client *client = client_open_shared();
    const struct answer *answer;

    assert_ok(client_call(client, "bucket.create", "['kept', {'update': true, 'history': 5, 'storage': 'memory'}]"));
    for (unsigned i = 0; i < 5; i++)
        put_text(client, "kept", "a", "v");
    assert_code(client_call(client, "bucket.create", "['kept', {'update': true, 'storage': 'file'}]"), "unsupported");
    assert_code(client_call(client, "bucket.create", "['kept', {'update': true, 'history': 2}]"), "unsupported");
    answer = client_call(client, "bucket.create", "['kept', {'update': true, 'history': 2, 'force': true}]");
    assert_ok(answer);
    ck_assert_uint_eq(number_at(&answer->result, "history"), 2);
    assert_code(client_call(client, "bucket.create", "['kept', {'force': true}]"), "invalid_argument");
    assert_code(client_call(client, "bucket.create", "['kept', {'update': 'yes'}]"), "invalid_argument");
}
END_TEST

/* They differ in a setting, so most of them are updates. */
START_TEST(creates_with_update_at_once_all_succeed)
{
    struct client *client = client_open_shared();
    uint32_t calls[20];

    for (unsigned i = 0; i < 20; i++)
        calls[i] = client_send(client, "bucket.create", "['shared', {'update': true, 'history': %u, 'timeout': 30}]",
                               i % 4 + 4);
    for (unsigned i = 0; i < 20; i++)
        assert_ok(client_wait(client, calls[i]));
}
END_TEST

/* --- Many long names -------------------------------------------------------------------------------- */

enum { LONG_NAMES = 1000, LONG_NAME_LENGTH = 240 };

static struct daemon daemon_of_test;

static const char *start_with_long_names(struct client **client, const char *section)
{
    char *letters = keep(calloc(1, LONG_NAME_LENGTH + 1));
    uint32_t calls[LONG_NAMES];

    memset(letters, 'a', LONG_NAME_LENGTH);
    daemon_start(&daemon_of_test, NULL, section);
    *client = client_open(&daemon_of_test);
    for (unsigned i = 0; i < LONG_NAMES; i += 4) {
        for (unsigned j = i; j < i + 4; j++)
            calls[j] = client_send(*client, "bucket.create", "['%s%u', {'storage': 'memory', 'timeout': 60}]", letters,
                                   100 + j);
        for (unsigned j = i; j < i + 4; j++)
            assert_ok(client_wait(*client, calls[j]));
    }
    return letters;
}

/* The pattern is tried at each letter of each name. The log must have no slow turn, as daemon_stop checks. */
START_TEST(a_filter_that_takes_long_makes_no_slow_turn)
{
    struct client *client;
    const char *letters = start_with_long_names(&client, NULL);
    const struct answer *answer;

    for (unsigned i = 0; i < 3; i++) {
        answer = client_call(client, "bucket.list", "[{'filter': '*%.*sb'}]", LONG_NAME_LENGTH / 2, letters);
        assert_ok(answer);
        ck_assert_uint_eq(count_at(&answer->result, ""), 0);
    }
    answer = client_call(client, "bucket.list", "[{'filter': '*%.*s10?5'}]", LONG_NAME_LENGTH / 2, letters);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 10);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(the_names_count_for_the_memory_of_calls)
{
    struct client *client;

    start_with_long_names(&client, "limits:\n  frame_bytes: 32K\n  call_bytes_per_session: 64K\n  call_bytes: 64K\n");
    assert_code_says(client_call(client, "bucket.list", "[]"), "resource_exhausted", "limits.call_bytes");
    const struct answer *answer = client_call(client, "bucket.list", "[{'limit': 50}]");
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 50);
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *bucket_list_suite(void)
{
    Suite *suite = suite_create("bucket_list");
    TCase *tests = shared_daemon_case(suite, "buckets");

    tcase_add_test(tests, buckets_are_listed_in_pages);
    tcase_add_test(tests, infos_are_those_of_bucket_info);
    tcase_add_test(tests, a_bucket_that_is_deleted_meanwhile_is_left_out);
    tcase_add_test(tests, create_with_update_makes_or_changes_a_bucket);
    tcase_add_test(tests, create_with_update_refuses_what_an_update_refuses);
    tcase_add_test(tests, creates_with_update_at_once_all_succeed);
    suite_add_tcase(suite, tests);
    tests = tcase_create("a daemon of its own");
    tcase_add_test(tests, a_filter_that_takes_long_makes_no_slow_turn);
    tcase_add_test(tests, the_names_count_for_the_memory_of_calls);
    suite_add_tcase(suite, tests);
    return suite;
}
