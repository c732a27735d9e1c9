/* kv.entries: pages of the entries of a bucket. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"

#include <stdio.h>
#include <string.h>

static struct daemon daemon_of_test;

static const char *key_of(const struct answer *page, size_t place)
{
    return text_at(&page->result, format_text("%zu.key", place));
}

static size_t page_size(const struct answer *page)
{
    assert_ok(page);
    return count_at(&page->result, "");
}

/* Read one page. options: members, or "". */
static const struct answer *read_page(struct client *client, const char *bucket, const char *options)
{
    return client_call(client, "kv.entries", "['%s', {%s}]", bucket, options);
}

static void assert_keys(const struct answer *page, const char *expected)
{
    const char *keys = "";
    size_t count = page_size(page);

    for (size_t i = 0; i < count; i++)
        keys = format_text("%s%s%s", keys, i > 0 ? " " : "", key_of(page, i));
    ck_assert_str_eq(keys, expected);
}

/* Read all pages. Check that the keys are k000000 to k(count-1), with values of this size. Return the pages read. */
static unsigned assert_whole(struct client *client, const char *bucket, const char *options, unsigned count,
                             size_t value_size)
{
    const char *after = "";
    unsigned seen = 0, pages = 0;

    for (size_t size;; pages++) {
        const struct answer *page = read_page(client, bucket, format_text("'after': '%s'%s", after, options));
        if ((size = page_size(page)) == 0)
            break;
        for (size_t i = 0; i < size; i++, seen++) {
            ck_assert_str_eq(key_of(page, i), format_text("k%06u", seen));
            ck_assert_uint_eq(strlen(text_at(&page->result, format_text("%zu.value", i))), value_size);
        }
        after = format_text("k%06u", seen - 1);
        client_forget(client);
    }
    ck_assert_uint_eq(seen, count);
    return pages;
}

START_TEST(entries_come_whole_and_in_key_order)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    put_text(client, bucket, "b", "2");
    uint64_t revision = put_text(client, bucket, "a.b", "1");
    assert_ok(client_call(client, "kv.put", "['%s', 'a-b', '3', {'ttl': 1000, 'headers': {'x': 'y'}}]", bucket));
    put_text(client, bucket, "gone", "0");
    delete_key(client, bucket, "gone");
    put_text(client, bucket, "purged", "0");
    assert_ok(client_call(client, "kv.purge", "['%s', 'purged']", bucket));
    static const char *const sources[] = {"", "'consistency': 'cached'", "'consistency': 'leader'"};
    for (size_t i = 0; i < 3; i++) {
        const struct answer *page = read_page(client, bucket, sources[i]);
        assert_keys(page, "a-b a.b b");
        ck_assert_str_eq(text_at(&page->result, "0.value"), "3");
        ck_assert_str_eq(text_at(&page->result, "0.headers.x"), "y");
        ck_assert_uint_eq(number_at(&page->result, "0.ttl"), 1000);
        ck_assert_str_eq(text_at(&page->result, "1.value"), "1");
        ck_assert_uint_eq(number_at(&page->result, "1.revision"), revision);
        ck_assert_str_eq(text_at(&page->result, "1.operation"), "put");
        ck_assert_uint_gt(number_at(&page->result, "1.created"), 0);
        ck_assert_uint_eq(count_at(&page->result, "1"), 5);
    }
}
END_TEST

START_TEST(a_filter_a_limit_and_a_key_choose_the_page)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    static const char *const keys[] = {"app.web.port", "app.web.host", "app.db.port", "app", "sys.db.port"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        put_text(client, bucket, keys[i], "v");
    static const char *const sources[] = {"", ", 'consistency': 'leader'"};
    for (size_t i = 0; i < 2; i++) {
        const char *source = sources[i];
        assert_keys(read_page(client, bucket, format_text("'filter': 'app.*.port'%s", source)),
                    "app.db.port app.web.port");
        assert_keys(read_page(client, bucket, format_text("'filter': 'app.>', 'limit': 2%s", source)),
                    "app.db.port app.web.host");
        assert_keys(
            read_page(client, bucket, format_text("'filter': 'app.>', 'limit': 2, 'after': 'app.web.host'%s", source)),
            "app.web.port");
        assert_keys(read_page(client, bucket, format_text("'after': 'app.web.port'%s", source)), "sys.db.port");
        assert_keys(read_page(client, bucket, format_text("'after': 'sys.db.port'%s", source)), "");
        assert_keys(read_page(client, bucket, format_text("'filter': 'none.>'%s", source)), "");
    }
    assert_code(read_page(client, bucket, "'limit': 0"), "invalid_argument");
    assert_code(read_page(client, bucket, "'limit': 1001"), "invalid_argument");
    assert_code(read_page(client, bucket, "'filter': 'a..b'"), "invalid_argument");
    assert_code(read_page(client, bucket, "'consistency': 'newest'"), "invalid_argument");
    assert_code(client_call(client, "kv.entries", "['no-such-bucket']"), "bucket_not_found");
}
END_TEST

START_TEST(pages_make_up_the_whole)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");

    put_many(client, bucket, "k", 0, 3000, 10);
    ck_assert_uint_ge(assert_whole(client, bucket, "", 3000, 10), 3);
    assert_whole(client, bucket, ", 'limit': 7", 3000, 10);
    ck_assert_uint_eq(assert_whole(client, bucket, ", 'consistency': 'leader'", 3000, 10), 3);
}
END_TEST

START_TEST(a_page_of_large_values_ends_early)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");

    put_many(client, bucket, "k", 0, 30, 100000);
    ck_assert_uint_eq(assert_whole(client, bucket, "", 30, 100000), 3);
    ck_assert_uint_eq(assert_whole(client, bucket, ", 'consistency': 'leader'", 30, 100000), 3);
    for (unsigned i = 0; i < 30; i += 3)
        put_many(client, bucket, "k", i, 3, 1000000);
    ck_assert_uint_eq(assert_whole(client, bucket, "", 30, 1000000), 30);
}
END_TEST

/* --- One point in time ---------------------------------------------------------------------------- */

#define FIRST_TOKEN "k000100-token"
#define LAST_TOKEN  "k000700-token"

/*
 * Each transaction moves the token from one place to the other, and gives the first and the last key the same value.
 * Return the msgid.
 */
static uint32_t send_move(struct client *client, const char *bucket, unsigned number)
{
    bool is_even = number % 2 == 0;

    return client_send(client, "txn.commit",
                       "['%s', [], [['put', 'k000000', '%u'], ['delete', '%s'], ['put', '%s', 't'], "
                       "['put', 'k000799', '%u']]]",
                       bucket, number, is_even ? LAST_TOKEN : FIRST_TOKEN, is_even ? FIRST_TOKEN : LAST_TOKEN, number);
}

/* Check that a page has one token, unless it ends before. Return whether it has the last key. */
static bool check_moment(const struct answer *page, const char *options)
{
    size_t size = page_size(page), tokens = 0;

    ck_assert_uint_gt(size, 0);
    for (size_t i = 0; i < size; i++) {
        tokens += strstr(key_of(page, i), "token") != NULL;
        ck_assert(i == 0 || strcmp(key_of(page, i - 1), key_of(page, i)) < 0);
    }
    ck_assert_uint_le(tokens, 1);
    if (strcmp(key_of(page, size - 1), "k000799") != 0)
        return false;
    ck_assert_msg(tokens == 1, "%s: no token", options);
    ck_assert_uint_eq(size, 801);
    ck_assert_str_eq(text_at(&page->result, "0.value"), text_at(&page->result, "800.value"));
    return true;
}

/* Read pages while the token moves without a pause. */
static void read_beside_moves(struct client *reader, struct client *writer, const char *bucket, const char *options)
{
    enum { ROUNDS = 60 };
    unsigned whole = 0, moves = 0;

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t read = client_send(reader, "kv.entries", "['%s', {%s}]", bucket, options);
        do {
            uint32_t first = send_move(writer, bucket, moves++), second = send_move(writer, bucket, moves++);
            assert_ok(client_wait(writer, first));
            assert_ok(client_wait(writer, second));
        } while (!client_has(reader, read));
        whole += check_moment(client_wait(reader, read), options);
        client_forget(reader);
        client_forget(writer);
    }
    printf("entries {%s}: %u pages whole beside %u writes\n", options, whole, moves);
}

static void prepare_moves(struct client *client, const char *bucket, size_t value_size)
{
    put_many(client, bucket, "k", 0, 800, value_size);
    assert_ok(client_wait(client, send_move(client, bucket, 1)));
}

START_TEST(a_page_from_memory_is_of_one_moment)
{
    struct client *reader = client_open_shared(), *writer = client_open_shared();
    const char *bucket = client_new_bucket(writer, "'storage': 'memory'");

    prepare_moves(writer, bucket, 500);
    wait_until_cached(reader, bucket, "k000000");
    read_beside_moves(reader, writer, bucket, "");
}
END_TEST

START_TEST(a_page_from_the_server_is_of_one_moment)
{
    struct client *reader = client_open_shared(), *writer = client_open_shared();
    const char *bucket = client_new_bucket(writer, "'storage': 'memory'");

    prepare_moves(writer, bucket, 500);
    read_beside_moves(reader, writer, bucket, "'consistency': 'leader'");
}
END_TEST

START_TEST(a_page_whose_values_are_not_in_memory_is_of_one_moment)
{
    daemon_start(&daemon_of_test, NULL, "cache:\n  max_bytes: 300K\n");
    struct client *reader = client_open(&daemon_of_test), *writer = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(writer, "'storage': 'memory'");

    prepare_moves(writer, bucket, 1000);
    wait_until_cached(reader, bucket, "k000000");
    ck_assert_uint_gt(stat_of(reader, "cache.evicted"), 0);
    read_beside_moves(reader, writer, bucket, "");
    assert_ok(client_call(writer, "kv.purge", "['%s', '%s']", bucket, FIRST_TOKEN));
    assert_ok(client_call(writer, "kv.purge", "['%s', '%s']", bucket, LAST_TOKEN));
    put_many(writer, bucket, "k", 0, 3000, 1000);
    assert_whole(reader, bucket, "", 3000, 1000);
    assert_whole(reader, bucket, ", 'limit': 10", 3000, 1000);
    daemon_stop(&daemon_of_test);
}
END_TEST

/*
 * Few keys match the filter, so the walk takes many turns. Meanwhile one key moves in both directions, and two others
 * change together.
 */
START_TEST(a_page_of_few_among_many_keys_is_of_one_moment)
{
    struct client *reader = client_open_shared(), *writer = client_open_shared();
    const char *bucket = client_new_bucket(writer, "'storage': 'memory'");
    unsigned writes = 0, whole = 0;

    for (unsigned i = 0; i < 40000; i += 4000)
        put_many(writer, bucket, "k", i, 4000, 1);
    wait_until_cached(reader, bucket, "k000000");
    put_text(writer, bucket, "k000000.moves", "t");
    for (unsigned round = 0; round < 60; round++) {
        uint32_t moves = client_send(reader, "kv.entries", "['%s', {'filter': '*.moves'}]", bucket);
        uint32_t pairs = client_send(reader, "kv.entries", "['%s', {'filter': '*.pair'}]", bucket);
        do {
            bool is_even = writes++ % 2 == 0;
            assert_ok(client_call(writer, "txn.commit",
                                  "['%s', [], [['put', 'a.pair', '%u'], ['delete', '%s'], ['put', '%s', 't'], "
                                  "['put', 'z.pair', '%u']]]",
                                  bucket, writes, is_even ? "k000000.moves" : "k039999.moves",
                                  is_even ? "k039999.moves" : "k000000.moves", writes));
        } while (!client_has(reader, moves) || !client_has(reader, pairs));
        ck_assert_uint_eq(page_size(client_wait(reader, moves)), 1);
        const struct answer *page = client_wait(reader, pairs);
        size_t size = page_size(page);
        whole += size == 2;
        if (size == 2)
            ck_assert_str_eq(text_at(&page->result, "0.value"), text_at(&page->result, "1.value"));
        else
            ck_assert_msg(size <= 1 && (size == 1 || round == 0), "%zu entries in round %u: %s", size, round,
                          object_text(&page->result));
        client_forget(reader);
    }
    printf("entries: %u of 60 pages whole beside %u writes\n", whole, writes);
}
END_TEST

/* --- In external mode ------------------------------------------------------------------------------ */

START_TEST(an_external_server_gives_the_same_pages)
{
    struct nats_server server = {0};

    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    struct client *reader = client_open(&daemon_of_test), *writer = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(writer, "'storage': 'memory'");
    put_many(writer, bucket, "k", 0, 2500, 100);
    ck_assert_uint_eq(assert_whole(reader, bucket, "", 2500, 100), 3);
    assert_whole(reader, bucket, ", 'consistency': 'cached'", 2500, 100);
    bucket = client_new_bucket(writer, "'storage': 'memory', 'history': 3");
    prepare_moves(writer, bucket, 500);
    read_beside_moves(reader, writer, bucket, "");
    read_beside_moves(reader, writer, bucket, "'consistency': 'leader'");
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(a_key_that_only_other_clients_can_write_is_an_entry_too)
{
    struct nats_server server = {0};

    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    struct client *client = client_open(&daemon_of_test);
    struct nats *nats = nats_connect(server.port, NULL, NULL);
    const char *bucket = client_new_bucket(client, NULL);
    put_text(client, bucket, "a", "1");
    put_text(client, bucket, "z", "3");
    nats_request_json(nats, format_text("$KV.%s.m\"]}", bucket), NULL, "2");
    static const char *const sources[] = {"", "'consistency': 'leader'", "'consistency': 'cached'"};
    for (size_t i = 0; i < 3; i++) {
        const struct answer *page = read_page(client, bucket, sources[i]);
        assert_keys(page, "a m\"]} z");
        ck_assert_str_eq(text_at(&page->result, "1.value"), "2");
    }
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

Suite *entries_suite(void)
{
    Suite *suite = suite_create("entries");
    TCase *tests = shared_daemon_case(suite, "entries");
    TCase *own = tcase_create("own daemon");

    tcase_add_test(tests, entries_come_whole_and_in_key_order);
    tcase_add_test(tests, a_filter_a_limit_and_a_key_choose_the_page);
    tcase_add_test(tests, pages_make_up_the_whole);
    tcase_add_test(tests, a_page_of_large_values_ends_early);
    tcase_add_test(tests, a_page_from_memory_is_of_one_moment);
    tcase_add_test(tests, a_page_from_the_server_is_of_one_moment);
    tcase_add_test(tests, a_page_of_few_among_many_keys_is_of_one_moment);
    tcase_set_timeout(own, TEST_TIMEOUT_S);
    tcase_add_test(own, a_page_whose_values_are_not_in_memory_is_of_one_moment);
    tcase_add_test(own, an_external_server_gives_the_same_pages);
    tcase_add_test(own, a_key_that_only_other_clients_can_write_is_an_entry_too);
    suite_add_tcase(suite, own);
    return suite;
}
