/* Values and markers that expire. */
#include "tests/integration/suites.h"
#include "tests/support/client.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"

#include <time.h>
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

/* --- Touching and keeping -------------------------------------------------------------------------- */

static const msgpack_object *entry_of(struct client *client, const char *bucket, const char *key)
{
    const struct answer *answer = client_call(client, "kv.get", "['%s', '%s']", bucket, key);

    assert_ok(answer);
    return &answer->result;
}

START_TEST(an_entry_with_a_ttl_tells_when_it_expires)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v', {'ttl': 1000}]", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'ever', 'v']", bucket));
    const msgpack_object *entry = entry_of(client, bucket, "k");
    uint64_t expires = number_at(entry, "expires");
    ck_assert_uint_eq(expires, number_at(entry, "created") + 1000000000u);
    ck_assert_ptr_null(find_at(entry_of(client, bucket, "ever"), "expires"));
    struct answer *answer = client_call(client, "kv.history", "['%s', 'k']", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "0.expires"), expires);
    answer = client_call(client, "bulk.get", "['%s', ['k']]", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "k.expires"), expires);
    answer = client_call(client, "watch.start", "['%s', {'filter': 'k'}]", bucket);
    assert_ok(answer);
    struct notification *entries = client_wait_notification(client, number_at(&answer->result, ""));
    ck_assert_uint_eq(number_at(&entries->params, "1.0.expires"), expires);
}
END_TEST

START_TEST(a_touch_starts_the_ttl_anew_and_keeps_value_and_headers)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    ck_assert_str_eq(object_text(&client_call(client, "kv.touch", "['%s', 'k', 10]", bucket)->result), "nil");
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v', {'headers': {'Color': 'blue'}}]", bucket));
    ck_assert_uint_eq(revision_of(client_call(client, "kv.touch", "['%s', 'k', 500]", bucket)), 2);
    const msgpack_object *entry = entry_of(client, bucket, "k");
    ck_assert_str_eq(text_at(entry, "value"), "v");
    ck_assert_str_eq(text_at(entry, "headers.Color"), "blue");
    ck_assert_uint_eq(number_at(entry, "ttl"), 500);
    ck_assert_uint_eq(revision_of(client_call(client, "kv.touch", "['%s', 'k', 1, {'revision': 2}]", bucket)), 3);
    struct answer *answer = client_call(client, "kv.touch", "['%s', 'k', 1, {'revision': 2}]", bucket);
    assert_code(answer, "conflict");
    ck_assert_uint_eq(number_at(&answer->error, "revision"), 3);
    ck_assert_uint_eq(revision_of(client_call(client, "kv.touch", "['%s', 'k', 0]", bucket)), 4);
    entry = entry_of(client, bucket, "k");
    ck_assert_ptr_null(find_at(entry, "ttl"));
    ck_assert_str_eq(text_at(entry, "headers.Color"), "blue");
    assert_ok(client_call(client, "kv.touch", "['%s', 'k', 1]", bucket));
    expect_expiry(client, bucket, "k", "v");
    assert_code(client_call(client, "kv.touch", "['%s', 'k', -1]", bucket), "invalid_argument");
    assert_code(client_call(client, "kv.touch", "['%s', 'k', null]", bucket), "invalid_argument");
}
END_TEST

START_TEST(a_ttl_that_is_kept_has_the_same_end)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    uint64_t start = now_ms();

    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v', {'ttl': 3}]", bucket));
    uint64_t expires = number_at(entry_of(client, bucket, "k"), "expires");
    unsigned long long revision = 1;
    for (unsigned i = 0; i < 20; i++) {
        revision = revision_of(client_call(client, "kv.put", "['%s', 'k', 'w', {'keep_ttl': true}]", bucket));
        const msgpack_object *entry = entry_of(client, bucket, "k");
        ck_assert_uint_eq(number_at(entry, "expires"), expires);
        ck_assert_ptr_null(find_at(entry, "headers"));
        revision = revision_of(
            client_call(client, "kv.update", "['%s', 'k', 'x', %llu, {'keep_ttl': true, 'ttl': 9}]", bucket, revision));
        entry = entry_of(client, bucket, "k");
        ck_assert_uint_eq(number_at(entry, "expires"), expires);
        ck_assert_str_eq(text_at(entry, "value"), "x");
        struct answer *answer = client_call(client, "kv.get", "['%s', 'k', {'consistency': 'leader'}]", bucket);
        ck_assert_uint_eq(number_at(&answer->result, "expires"), expires);
    }
    expect_expiry(client, bucket, "k", "x");
    ck_assert_uint_ge(now_ms() - start, 2950);
}
END_TEST

START_TEST(keep_ttl_of_a_key_without_one)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(client, "kv.put", "['%s', 'a', 'v', {'keep_ttl': true}]", bucket));
    ck_assert_ptr_null(find_at(entry_of(client, bucket, "a"), "ttl"));
    assert_ok(client_call(client, "kv.put", "['%s', 'a', 'w', {'keep_ttl': true, 'ttl': 50}]", bucket));
    ck_assert_uint_eq(number_at(entry_of(client, bucket, "a"), "ttl"), 50);
    assert_ok(client_call(client, "kv.update", "['%s', 'b', 'v', 0, {'keep_ttl': true, 'ttl': 60}]", bucket));
    ck_assert_uint_eq(number_at(entry_of(client, bucket, "b"), "ttl"), 60);
    assert_code(client_call(client, "kv.update", "['%s', 'b', 'v', 0, {'keep_ttl': true}]", bucket), "conflict");
    assert_code(client_call(client, "kv.update", "['%s', 'c', 'v', 7, {'keep_ttl': true}]", bucket), "conflict");
    assert_ok(client_call(client, "kv.delete", "['%s', 'b']", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'b', 'v', {'keep_ttl': true}]", bucket));
    ck_assert_ptr_null(find_at(entry_of(client, bucket, "b"), "ttl"));
    assert_code(client_call(client, "kv.create", "['%s', 'd', 'v', {'keep_ttl': true}]", bucket), "invalid_argument");
}
END_TEST

/* Each of the others makes the reading of the TTL too old. */
START_TEST(touches_and_puts_beside_other_writes_succeed)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    uint32_t sent[60];

    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v', {'ttl': 1000}]", bucket));
    for (unsigned i = 0; i < 60; i += 3) {
        sent[i] = client_send(client, "kv.touch", "['%s', 'k', 2000]", bucket);
        sent[i + 1] = client_send(client, "kv.put", "['%s', 'k', '%u', {'keep_ttl': true}]", bucket, i);
        sent[i + 2] = client_send(client, "kv.put", "['%s', 'k', '%u', {'ttl': 3000}]", bucket, i);
    }
    for (unsigned i = 0; i < 60; i++)
        assert_ok(client_wait(client, sent[i]));
    struct answer *answer = client_call(client, "bucket.info", "['%s']", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "last_revision"), 61);
}
END_TEST

START_TEST(a_repeated_touch_is_done_once)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    unsigned long long before = (unsigned long long)now.tv_sec * 1000000u;
    const char *touch = "['%s', 'k', 500, {'id': 'touch-0001', 'first_sent': %llu}]";
    const char *put = "['%s', 'k', 'w', {'keep_ttl': true, 'id': 'keep-0001', 'first_sent': %llu}]";
    before -= 1000000;
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    ck_assert_uint_eq(revision_of(client_call(client, "kv.touch", "['%s', 'k', 500, {'id': 'touch-0001'}]", bucket)),
                      2);
    ck_assert_uint_eq(
        revision_of(client_call(client, "kv.put", "['%s', 'k', 'w', {'keep_ttl': true, 'id': 'keep-0001'}]", bucket)),
        3);
    ck_assert_uint_eq(revision_of(client_call(client, "kv.touch", touch, bucket, before)), 2);
    ck_assert_uint_eq(revision_of(client_call(client, "kv.put", put, bucket, before)), 3);
    assert_code(
        client_call(client, "kv.touch", "['%s', 'k', 501, {'id': 'touch-0001', 'first_sent': %llu}]", bucket, before),
        "invalid_argument");
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
    tcase_add_test(tests, an_entry_with_a_ttl_tells_when_it_expires);
    tcase_add_test(tests, a_touch_starts_the_ttl_anew_and_keeps_value_and_headers);
    tcase_add_test(tests, a_ttl_that_is_kept_has_the_same_end);
    tcase_add_test(tests, keep_ttl_of_a_key_without_one);
    tcase_add_test(tests, touches_and_puts_beside_other_writes_succeed);
    tcase_add_test(tests, a_repeated_touch_is_done_once);
    return suite;
}
