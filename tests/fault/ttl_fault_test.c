/* A value with a TTL whose ack is lost is stored once, expires, and no older value comes back. */
#include "tests/fault/deployment.h"
#include "tests/fault/suites.h"

#include <string.h>

static struct deployment deployment;

static void begin(void)
{
    deployment_begin(&deployment, 1, NULL);
    assert_ok(client_call(deployment.client, "bucket.create", "['h1', {'history': 1}]"));
    assert_ok(client_call(deployment.client, "bucket.create", "['h64', {'history': 64}]"));
}

static void end(void)
{
    deployment_end(&deployment);
}

static bool is_gone(const char *bucket, const char *key)
{
    const struct answer *answer =
        client_call(deployment.client, "kv.get", "['%s', '%s', {'consistency': 'leader'}]", bucket, key);

    assert_ok(answer);
    ck_assert_msg(answer->result.type == MSGPACK_OBJECT_NIL || strcmp(text_at(&answer->result, "value"), "mine") == 0,
                  "another value came back: %s", answer_text(answer));
    return answer->result.type == MSGPACK_OBJECT_NIL;
}

static uint64_t last_revision(const char *bucket)
{
    json_t *info = nats_api(deployment.nats, "STREAM.INFO", format_text("KV_%s", bucket), "{}");

    return (uint64_t)json_integer_value(json_object_get(json_object_get(info, "state"), "last_seq"));
}

/* Also after its expiry the bucket's revisions show how often the value was written. */
static void put_under_fault(const char *bucket, const char *key, enum proxy_fault_kind kind)
{
    uint64_t old = revision_of(client_call(deployment.client, "kv.put", "['%s', '%s', 'old']", bucket, key));

    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = kind, .subject = format_text("$KV.%s.%s", bucket, key)});
    uint64_t revision =
        revision_of(client_call(deployment.client, "kv.put", "['%s', '%s', 'mine', {'ttl': 1}]", bucket, key));
    ck_assert_uint_eq(proxy_strikes(deployment.proxy), 1);
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
    ck_assert_uint_eq(revision, old + 1);
    ck_assert_uint_eq(last_revision(bucket), revision);
}

static void try_faults(const char *bucket)
{
    static const char *const keys[] = {"ack", "put", "cut"};
    static const enum proxy_fault_kind kinds[] = {PROXY_DROP_ACK, PROXY_DROP_PUBLISH, PROXY_CUT_BEFORE_ACK};
    uint64_t unused;

    for (unsigned i = 0; i < 3; i++)
        put_under_fault(bucket, keys[i], kinds[i]);
    for (unsigned i = 0; i < 3; i++)
        wait_until(is_gone(bucket, keys[i]), "the value's end");
    /* The stream has no value that a later read could find. */
    struct stream_log log = stream_log_read(deployment.nats, bucket);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(stream_log_count(&log, keys[i], "put", "mine", &unused), 0);
        ck_assert(is_gone(bucket, keys[i]));
    }
}

START_TEST(a_put_with_ttl_under_faults_is_stored_once_and_ends_with_history_1)
{
    try_faults("h1");
}
END_TEST

START_TEST(a_put_with_ttl_under_faults_is_stored_once_and_ends_with_history_64)
{
    try_faults("h64");
}
END_TEST

/* With the former history, the write would not remove the older value, which would come back when this one expires. */
START_TEST(a_put_with_ttl_removes_older_values_after_an_update_whose_answer_was_lost)
{
    assert_ok(client_call(deployment.client, "kv.put", "['h1', 'a', 'old']"));
    proxy_arm(deployment.proxy,
              (struct proxy_fault){.kind = PROXY_DROP_ACK, .subject = "$JS.API.STREAM.UPDATE.KV_h1", .count = 1000});
    assert_code(client_call(deployment.client, "bucket.update", "['h1', {'history': 5, 'timeout': 1}]"),
                "deadline_exceeded");
    ck_assert_uint_gt(proxy_strikes(deployment.proxy), 0);
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
    assert_ok(client_call(deployment.client, "kv.put", "['h1', 'a', 'newer']"));
    assert_ok(client_call(deployment.client, "kv.put", "['h1', 'a', 'mine', {'ttl': 60}]"));
    const struct answer *answer = client_call(deployment.client, "kv.history", "['h1', 'a']");
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 1);
}
END_TEST

Suite *ttl_fault_suite(void)
{
    Suite *suite = suite_create("ttl faults");
    TCase *tests = tcase_create("one server");

    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, a_put_with_ttl_under_faults_is_stored_once_and_ends_with_history_1);
    tcase_add_test(tests, a_put_with_ttl_under_faults_is_stored_once_and_ends_with_history_64);
    tcase_add_test(tests, a_put_with_ttl_removes_older_values_after_an_update_whose_answer_was_lost);
    suite_add_tcase(suite, tests);
    return suite;
}
