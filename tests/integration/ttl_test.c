/* Values and markers that expire. */
#include "tests/integration/suites.h"
#include "tests/support/client.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"

#include <unistd.h>

/* Wait until a get answers nil. Before that it must answer the value. */
static void expect_expiry(struct client *client, const char *bucket, const char *key, const char *value)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    for (;;) {
        struct answer *answer = client_call(client, "kv.get", "['%s', '%s']", bucket, key);
        assert_ok(answer);
        if (answer->result.type == MSGPACK_OBJECT_NIL)
            return;
        ck_assert_str_eq(text_at(&answer->result, "value"), value);
        ck_assert_msg(now_ms() < end, "%s does not expire", key);
        pause_shortly();
    }
}

START_TEST(a_value_with_a_ttl_expires)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    uint64_t start = now_ms();

    assert_ok(client_call(client, "kv.put", "['%s', 'put', 'short', {'ttl': 1}]", bucket));
    assert_ok(client_call(client, "kv.create", "['%s', 'create', 'short', {'ttl': 1}]", bucket));
    assert_ok(client_call(client, "kv.update", "['%s', 'update', 'short', 0, {'ttl': 1}]", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'long', 'stays', {'ttl': 600}]", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'ever', 'stays']", bucket));
    expect_expiry(client, bucket, "put", "short");
    ck_assert_uint_ge(now_ms() - start, 950);
    expect_expiry(client, bucket, "create", "short");
    expect_expiry(client, bucket, "update", "short");
    struct answer *answer = client_call(client, "kv.keys", "['%s']", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 2);
    ck_assert_str_eq(text_at(&answer->result, "0"), "ever");
    ck_assert_str_eq(text_at(&answer->result, "1"), "long");
}
END_TEST

START_TEST(an_older_value_does_not_reappear_after_expiry)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 10");

    for (unsigned i = 0; i < 3; i++)
        assert_ok(client_call(client, "kv.put", "['%s', 'color', 'old']", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'new', {'ttl': 1}]", bucket));
    expect_expiry(client, bucket, "color", "new");
    struct answer *answer = client_call(client, "kv.get", "['%s', 'color', {'consistency': 'leader'}]", bucket);
    assert_ok(answer);
    ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
    answer = client_call(client, "kv.keys", "['%s']", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 0);
    assert_ok(client_call(client, "kv.create", "['%s', 'color', 'again']", bucket));
}
END_TEST

START_TEST(an_older_value_does_not_reappear_after_the_expiry_of_an_update)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 10");

    unsigned long long first = revision_of(client_call(client, "kv.put", "['%s', 'color', 'old']", bucket));
    assert_ok(client_call(client, "kv.update", "['%s', 'color', 'new', %llu, {'ttl': 1}]", bucket, first));
    assert_ok(client_call(client, "kv.put", "['%s', 'over', 'old']", bucket));
    assert_ok(client_call(client, "kv.delete", "['%s', 'over']", bucket));
    assert_ok(client_call(client, "kv.create", "['%s', 'over', 'new', {'ttl': 1}]", bucket));
    expect_expiry(client, bucket, "color", "new");
    expect_expiry(client, bucket, "over", "new");
}
END_TEST

START_TEST(a_put_without_ttl_removes_the_ttl)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'short', {'ttl': 1}]", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'stays']", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'clock', 'short', {'ttl': 1}]", bucket));
    expect_expiry(client, bucket, "clock", "short");
    struct answer *answer = client_call(client, "kv.get", "['%s', 'color']", bucket);
    ck_assert_str_eq(text_at(&answer->result, "value"), "stays");
}
END_TEST

START_TEST(a_purge_marker_with_a_ttl_expires)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 5");
    uint64_t end = now_ms() + PATIENCE_MS;

    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'blue']", bucket));
    assert_ok(client_call(client, "kv.purge", "['%s', 'color', {'ttl': 1}]", bucket));
    struct answer *answer = client_call(client, "kv.history", "['%s', 'color']", bucket);
    assert_ok(answer);
    ck_assert_uint_le(count_at(&answer->result, ""), 1); /* it may be gone by now */
    for (;;) {
        answer = client_call(client, "bucket.info", "['%s']", bucket);
        if (number_at(&answer->result, "values") == 0)
            break;
        ck_assert_msg(now_ms() < end, "the marker does not expire");
        pause_shortly();
    }
}
END_TEST

START_TEST(a_create_succeeds_over_the_marker_of_an_expired_value)
{
    struct client *client = client_open_shared();
    const char *buckets[] = {client_new_bucket(client, "'limit_marker_ttl': 60"),
                             client_new_bucket(client, "'limit_marker_ttl': 60, 'history': 5")};

    for (size_t i = 0; i < 2; i++)
        assert_ok(client_call(client, "kv.put", "['%s', 'lock', 'mine', {'ttl': 1}]", buckets[i]));
    for (size_t i = 0; i < 1; i++) {
        expect_expiry(client, buckets[i], "lock", "mine");
        /* Now the server's own marker is the key's last message, and reads as a purge. */
        struct answer *answer;
        uint64_t end = now_ms() + PATIENCE_MS;
        do {
            answer = client_call(client, "kv.history", "['%s', 'lock']", buckets[i]);
            assert_ok(answer);
            ck_assert_msg(now_ms() < end, "there is no marker: %s", object_text(&answer->result));
        } while (count_at(&answer->result, "") != 1);
        ck_assert_str_eq(text_at(&answer->result, "0.operation"), "purge");
        ck_assert_ptr_null(find_at(&answer->result, "0.headers"));
        answer = client_call(client, "kv.keys", "['%s']", buckets[i]);
        ck_assert_uint_eq(count_at(&answer->result, ""), 0);
        assert_code(client_call(client, "kv.update", "['%s', 'lock', 'v', 1]", buckets[i]), "conflict");
        assert_ok(client_call(client, "kv.create", "['%s', 'lock', 'theirs']", buckets[i]));
    }
}
END_TEST

START_TEST(values_expire_after_the_buckets_ttl)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'ttl': 1");

    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'blue']", bucket));
    expect_expiry(client, bucket, "color", "blue");
    struct answer *answer = client_call(client, "bucket.info", "['%s']", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "ttl"), 1);
}
END_TEST

Suite *ttl_suite(void)
{
    Suite *suite = suite_create("ttl");
    TCase *tests = shared_daemon_case(suite, "expiry");

    tcase_add_test(tests, a_value_with_a_ttl_expires);
    tcase_add_test(tests, an_older_value_does_not_reappear_after_expiry);
    tcase_add_test(tests, an_older_value_does_not_reappear_after_the_expiry_of_an_update);
    tcase_add_test(tests, a_put_without_ttl_removes_the_ttl);
    tcase_add_test(tests, a_purge_marker_with_a_ttl_expires);
    tcase_add_test(tests, a_create_succeeds_over_the_marker_of_an_expired_value);
    tcase_add_test(tests, values_expire_after_the_buckets_ttl);
    return suite;
}
