/* kv.keys: which keys a bucket has. */
#include "tests/integration/suites.h"
#include "tests/support/client.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"

/* Put count keys, k00000 to k(count-1), pipelined. */
static void put_many(struct client *client, const char *bucket, unsigned count)
{
    msgpack_sbuffer buffer;

    msgpack_sbuffer_init(&buffer);
    for (unsigned i = 0; i < count; i++)
        pack_request(&buffer, 1000000 + i, "kv.put", "['%s', 'k%05u', 'value']", bucket, i);
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    for (unsigned i = 0; i < count; i++)
        assert_ok(client_receive(client));
}

static void assert_keys(const struct answer *answer, const char *const *keys, size_t count)
{
    assert_ok(answer);
    ck_assert_msg(count_at(&answer->result, "") == count, "%zu keys instead of %zu: %s", count_at(&answer->result, ""),
                  count, object_text(&answer->result));
    for (size_t i = 0; i < count; i++) {
        ck_assert_str_eq(text_at(&answer->result, format_text("%zu", i)), keys[i]);
        ck_assert_int_eq(answer->result.via.array.ptr[i].type, MSGPACK_OBJECT_STR);
    }
}
#define ASSERT_KEYS(answer, ...)                                                                                       \
    do {                                                                                                               \
        static const char *const these_keys[] = {__VA_ARGS__};                                                         \
        assert_keys(answer, these_keys, sizeof(these_keys) / sizeof(these_keys[0]));                                   \
    } while (0)

START_TEST(keys_come_in_byte_order)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    const char *keys[] = {"b", "a.b", "a-b", "a", "Z", "a_b", "a/b", "a=b", "a0", "0", "aa", "a.B"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        assert_ok(client_call(client, "kv.put", "['%s', '%s', 'v']", bucket, keys[i]));
    ASSERT_KEYS(client_call(client, "kv.keys", "['%s']", bucket), "0", "Z", "a", "a-b", "a.B", "a.b", "a/b", "a0",
                "a=b", "a_b", "aa", "b");
}
END_TEST

START_TEST(an_empty_bucket_has_no_keys)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    struct answer *answer = client_call(client, "kv.keys", "['%s']", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 0);
}
END_TEST

START_TEST(removed_keys_are_not_listed)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 5");
    const char *keys[] = {"a", "b", "c", "d"};

    for (size_t i = 0; i < 4; i++)
        assert_ok(client_call(client, "kv.put", "['%s', '%s', 'v']", bucket, keys[i]));
    assert_ok(client_call(client, "kv.delete", "['%s', 'b']", bucket));
    assert_ok(client_call(client, "kv.purge", "['%s', 'c']", bucket));
    ASSERT_KEYS(client_call(client, "kv.keys", "['%s']", bucket), "a", "d");
    /* And the other way round. */
    assert_ok(client_call(client, "kv.put", "['%s', 'b', 'v']", bucket));
    assert_ok(client_call(client, "kv.create", "['%s', 'c', 'v']", bucket));
    ASSERT_KEYS(client_call(client, "kv.keys", "['%s']", bucket), "a", "b", "c", "d");
}
END_TEST

START_TEST(a_filter_names_tokens)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    const char *keys[] = {"app.web.port", "app.web.host", "app.db.port", "app", "sys.db.port", "app.web.tls.port"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        assert_ok(client_call(client, "kv.put", "['%s', '%s', 'v']", bucket, keys[i]));
    ASSERT_KEYS(client_call(client, "kv.keys", "['%s', {'filter': 'app.*.port'}]", bucket), "app.db.port",
                "app.web.port");
    ASSERT_KEYS(client_call(client, "kv.keys", "['%s', {'filter': 'app.web.>'}]", bucket), "app.web.host",
                "app.web.port", "app.web.tls.port");
    ASSERT_KEYS(client_call(client, "kv.keys", "['%s', {'filter': '*'}]", bucket), "app");
    ASSERT_KEYS(client_call(client, "kv.keys", "['%s', {'filter': '*.db.>'}]", bucket), "app.db.port", "sys.db.port");
    ASSERT_KEYS(client_call(client, "kv.keys", "['%s', {'filter': 'app'}]", bucket), "app");
    struct answer *answer = client_call(client, "kv.keys", "['%s', {'filter': 'none.>'}]", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 0);
    ASSERT_KEYS(
        client_call(client, "kv.keys", "['%s', {'filter': 'app.>', 'limit': 2, 'after': 'app.db.port'}]", bucket),
        "app.web.host", "app.web.port");
}
END_TEST

START_TEST(pages_of_keys_make_up_the_whole)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    const char *after = "";
    unsigned seen = 0;

    put_many(client, bucket, 1000);
    assert_ok(client_call(client, "kv.delete", "['%s', 'k00500']", bucket));
    for (;;) {
        struct answer *answer = client_call(client, "kv.keys", "['%s', {'limit': 300, 'after': '%s'}]", bucket, after);
        assert_ok(answer);
        size_t count = count_at(&answer->result, "");
        for (size_t i = 0; i < count; i++, seen++)
            ck_assert_str_eq(text_at(&answer->result, format_text("%zu", i)),
                             format_text("k%05u", seen < 500 ? seen : seen + 1));
        if (count < 300)
            break;
        after = text_at(&answer->result, "299");
    }
    ck_assert_uint_eq(seen, 999);
}
END_TEST

START_TEST(ten_thousand_keys_come_at_once)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");

    put_many(client, bucket, 10000);
    struct answer *answer = client_call(client, "kv.keys", "['%s']", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 10000);
    for (unsigned i = 0; i < 10000; i += 333)
        ck_assert_str_eq(text_at(&answer->result, format_text("%u", i)), format_text("k%05u", i));
    /* A limit far below the number of keys, which are more than are kept at a time. */
    answer = client_call(client, "kv.keys", "['%s', {'limit': 10, 'after': 'k09000'}]", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 10);
    ck_assert_str_eq(text_at(&answer->result, "0"), "k09001");
    ck_assert_str_eq(text_at(&answer->result, "9"), "k09010");
}
END_TEST

START_TEST(listing_keys_leaves_no_consumer_behind)
{
    struct client *client = client_open_shared();
    const char *origin = client_new_bucket(client, NULL);
    struct nats *nats = nats_connect_embedded(shared_daemon.data_dir);
    struct nats *removals = nats_connect_embedded(shared_daemon.data_dir);

    assert_ok(client_call(client, "kv.put", "['%s', 'a', 'v']", origin));
    /* A mirror is read from the server in embedded mode, too. */
    const char *bucket = client_new_bucket(client, format_text("'mirror': '%s'", origin));
    wait_until(number_at(&client_call(client, "bucket.info", "['%s']", bucket)->result, "values") == 1, "the mirror");
    /* The server removes idle consumers by itself after a while: the daemon must remove them before. */
    nats_subscribe(removals, format_text("$JS.API.CONSUMER.DELETE.KV_%s.*", bucket));
    for (unsigned i = 0; i < 20; i++) {
        assert_ok(client_call(client, "kv.keys", "['%s']", bucket));
        nats_next(removals);
        assert_ok(client_call(client, "kv.history", "['%s', 'a']", bucket));
        nats_next(removals);
    }
    wait_until(nats_consumer_count(nats, bucket) == 0, "the removal of all consumers");
}
END_TEST

static void list_while_writing(unsigned history)
{
    struct client *client = client_open_shared(), *writer = client_open_shared();
    const char *bucket = client_new_bucket(client, format_text("'history': %u", history));

    for (unsigned i = 0; i < 6; i++)
        assert_ok(client_call(client, "kv.put", "['%s', 'k%u', 'v']", bucket, i));
    for (unsigned round = 0; round < 25; round++) {
        msgpack_sbuffer buffer;
        msgpack_sbuffer_init(&buffer);
        for (unsigned i = 0; i < 400; i++)
            pack_request(&buffer, i, "kv.put", "['%s', 'k%u', 'v']", bucket, i % 6);
        client_write(writer, buffer.data, buffer.size);
        msgpack_sbuffer_destroy(&buffer);
        for (unsigned i = 0; i < 4; i++)
            ASSERT_KEYS(client_call(client, "kv.keys", "['%s']", bucket), "k0", "k1", "k2", "k3", "k4", "k5");
        for (unsigned i = 0; i < 400; i++)
            assert_ok(client_receive(writer));
    }
}

START_TEST(keys_that_are_written_during_the_listing_are_listed_once)
{
    list_while_writing(1);
    list_while_writing(5);
}
END_TEST

/* What comes of an earlier attempt belongs to none. Whether the listings complete depends on the machine. */
START_TEST(messages_of_an_earlier_attempt_are_ignored)
{
    struct daemon daemon;
    msgpack_sbuffer buffer;

    daemon_start(&daemon, NULL, "calls:\n  attempt_timeout: 0.01\n");
    struct client *client = client_open(&daemon);
    const char *bucket = client_new_bucket(client, NULL);
    put_many(client, bucket, 2000);
    msgpack_sbuffer_init(&buffer);
    for (unsigned i = 0; i < 100; i++)
        pack_request(&buffer, i, "kv.keys", "['%s']", bucket);
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    for (unsigned i = 0; i < 100; i++)
        client_receive(client);
    client_close(client);
    daemon_stop(&daemon);
}
END_TEST

/* A client that reads a large bucket in such pages would have it read again for each page. */
START_TEST(a_small_page_of_many_keys_that_are_not_in_memory_is_refused)
{
    struct daemon daemon;

    daemon_start(&daemon, NULL, "cache:\n  max_bytes: 64K\n");
    struct client *client = client_open(&daemon);
    const char *bucket = client_new_bucket(client, NULL);
    put_many(client, bucket, 10500);
    assert_code_says(client_call(client, "kv.keys", "['%s', {'limit': 10, 'consistency': 'cached'}]", bucket),
                     "resource_exhausted", "meta_only");
    struct answer *answer = client_call(client, "kv.keys", "['%s', {'limit': 10}]", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 10);
    answer = client_call(client, "kv.keys", "['%s', {'limit': 10000, 'consistency': 'cached'}]", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 10000);
    client_close(client);
    daemon_stop(&daemon);
}
END_TEST

Suite *keys_suite(void)
{
    Suite *suite = suite_create("keys");
    TCase *tests = shared_daemon_case(suite, "keys");

    tcase_add_test(tests, keys_come_in_byte_order);
    tcase_add_test(tests, an_empty_bucket_has_no_keys);
    tcase_add_test(tests, removed_keys_are_not_listed);
    tcase_add_test(tests, a_filter_names_tokens);
    tcase_add_test(tests, pages_of_keys_make_up_the_whole);
    tcase_add_test(tests, ten_thousand_keys_come_at_once);
    tcase_add_test(tests, listing_keys_leaves_no_consumer_behind);
    tcase_add_test(tests, keys_that_are_written_during_the_listing_are_listed_once);
    tcase_add_test(tests, messages_of_an_earlier_attempt_are_ignored);
    tcase_add_test(tests, a_small_page_of_many_keys_that_are_not_in_memory_is_refused);
    return suite;
}
