/* A write in doubt: the order of the writes of its key, and changes of its bucket meanwhile. */
#include "tests/fault/deployment.h"
#include "tests/fault/suites.h"

#include <string.h>

/* More than the number of retries. */
#define ALWAYS 100000u

#define KEY_SUBJECT "$KV.b.k"

static struct deployment deployment;

static void begin(void)
{
    /* Each write leaves singly: in a batch, writes of other keys would wait too. */
    deployment_begin(&deployment, 1, DEPLOYMENT_ATTEMPTS(0.1) "buckets:\n  group_commit: off\n");
    deployment_make_bucket(&deployment, "b", NULL);
    assert_ok(client_call(deployment.client, "kv.put", "['b', 'k', 'before']"));
}

static void end(void)
{
    deployment_end(&deployment);
}

static unsigned stored(const char *value, uint64_t *revision)
{
    struct stream_log log = stream_log_read(deployment.nats, "b");

    return stream_log_count(&log, "k", "put", value, revision);
}

static void arm(enum proxy_fault_kind kind, const char *subject, unsigned count)
{
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = kind, .subject = subject, .count = count});
}

static void disarm(void)
{
    arm(PROXY_NO_FAULT, NULL, 0);
}

/*
 * Send a write to the key, and spoil all requests of the daemon about it until disarm. Return after its first question.
 */
static uint32_t send_into_doubt(enum proxy_fault_kind kind, const char *method, const char *params)
{
    arm(kind, KEY_SUBJECT, ALWAYS);
    uint32_t msgid = client_send(deployment.client, method, "%s", params);
    wait_until(proxy_strikes(deployment.proxy) >= 2, "the question");
    return msgid;
}

/* The daemon has read the calls before this one, and has sent what it sends for them. */
static void wait_for_calls_before(void)
{
    assert_ok(client_call(deployment.client, "kv.put", "['b', 'other', 'x']"));
}

/* --- Writes that wait for the key ------------------------------------------------------------------ */

START_TEST(a_lost_write_is_stored_before_those_that_waited_for_it)
{
    static const struct {
        const char *method, *params;
    } calls[] = {{"kv.put", "['b', 'k', 'first']"},
                 {"txn.commit", "['b', [], [['put', 'm', 'x'], ['put', 'k', 'first']]]"}};

    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        uint64_t first_at, second_at;
        uint32_t first = send_into_doubt(PROXY_DROP_PUBLISH, calls[i].method, calls[i].params);
        uint32_t second = client_send(deployment.client, "kv.put", "['b', 'k', 'second']");
        wait_for_calls_before();
        disarm();
        assert_ok(client_wait(deployment.client, first));
        assert_ok(client_wait(deployment.client, second));
        ck_assert_uint_eq(stored("first", &first_at), i + 1);
        ck_assert_uint_eq(stored("second", &second_at), i + 1);
        ck_assert_msg(first_at < second_at, "%s was stored at %llu, and the next write at %llu", calls[i].method,
                      (unsigned long long)first_at, (unsigned long long)second_at);
    }
}
END_TEST

START_TEST(a_key_in_doubt_accepts_no_write_during_an_update_of_its_bucket)
{
    uint64_t first_at, second_at;
    uint32_t first = send_into_doubt(PROXY_DROP_ACK, "kv.put", "['b', 'k', 'first']");

    assert_ok(client_call(deployment.client, "bucket.update", "['b', {'description': 'another one'}]"));
    uint32_t second = client_send(deployment.client, "kv.put", "['b', 'k', 'second']");
    wait_for_calls_before();
    ck_assert_uint_eq(stored("second", &second_at), 0);
    disarm();
    assert_ok(client_wait(deployment.client, first));
    assert_ok(client_wait(deployment.client, second));
    ck_assert_uint_eq(stored("first", &first_at), 1);
    ck_assert_uint_eq(stored("second", &second_at), 1);
    ck_assert_uint_lt(first_at, second_at);
}
END_TEST

START_TEST(a_key_in_doubt_accepts_no_write_after_a_failed_lookup_of_its_bucket)
{
    static const char refused[] =
        "{\"error\":{\"code\":503,\"err_code\":10039,\"description\":\"JetStream not enabled\"}}";
    uint64_t revision;
    uint32_t first = send_into_doubt(PROXY_DROP_ACK, "kv.put", "['b', 'k', 'first']");

    assert_ok(client_call(deployment.client, "bucket.update", "['b', {'description': 'another one'}]"));
    proxy_arm_beside(deployment.proxy, (struct proxy_fault){.kind = PROXY_REPLACE_ACK,
                                                            .subject = "$JS.API.STREAM.INFO.KV_b",
                                                            .count = ALWAYS,
                                                            .text = refused});
    assert_code(client_call(deployment.client, "kv.put", "['b', 'other', 'x']"), "unavailable");
    proxy_arm_beside(deployment.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
    uint32_t second = client_send(deployment.client, "kv.put", "['b', 'k', 'second']");
    wait_for_calls_before();
    ck_assert_uint_eq(stored("second", &revision), 0);
    disarm();
    assert_ok(client_wait(deployment.client, first));
    assert_ok(client_wait(deployment.client, second));
}
END_TEST

/* --- A bucket that goes ----------------------------------------------------------------------------- */

/*
 * The first lookup finds no bucket. Then the bucket exists again under its name, and only then the write itself looks
 * it up.
 */
START_TEST(a_write_in_doubt_outlives_its_bucket)
{
    json_t *config = json_object_get(nats_api(deployment.nats, "STREAM.INFO", "KV_b", "{}"), "config");
    uint64_t revision;

    uint32_t lost = send_into_doubt(PROXY_DROP_PUBLISH, "kv.put", "['b', 'k', 'lost']");
    assert_ok(client_call(deployment.client, "bucket.delete", "['b']"));
    assert_code(client_call(deployment.client, "kv.get", "['b', 'k']"), "bucket_not_found");
    arm(PROXY_HOLD_BEFORE_ACK, KEY_SUBJECT, 1); /* the answer without responders */
    wait_until(proxy_strikes(deployment.proxy) == 1, "the question");
    nats_api(deployment.nats, "STREAM.CREATE", "KV_b", "%s", (char *)keep(json_dumps(config, 0)));
    disarm();
    proxy_release(deployment.proxy);
    const struct answer *answer = client_wait(deployment.client, lost);
    ck_assert_str_eq(answer_outcome(answer), "unknown");
    ck_assert_uint_eq(stored("lost", &revision), 0);
    assert_ok(client_call(deployment.client, "kv.put", "['b', 'k', 'after']"));
}
END_TEST

/* The refusal comes during the lookup of the bucket, which was started because nobody answered the question. */
START_TEST(a_refusal_during_a_lookup_of_the_bucket_leaves_no_doubt)
{
    proxy_arm(deployment.proxy,
              (struct proxy_fault){.kind = PROXY_DELAY_ACK, .subject = KEY_SUBJECT, .then_hold = true});
    uint32_t refused = client_send(deployment.client, "kv.create", "['b', 'k', 'never']");
    wait_until(proxy_strikes(deployment.proxy) == 1, "the refusal");
    nats_api(deployment.nats, "STREAM.DELETE", "KV_b", "{}");
    arm(PROXY_DROP_PUBLISH, "$JS.API.STREAM.INFO.KV_b", ALWAYS);
    proxy_release(deployment.proxy);
    wait_until(proxy_strikes(deployment.proxy) >= 1, "the question for the bucket");
    proxy_deliver(deployment.proxy);
    disarm();
    const struct answer *answer = client_wait(deployment.client, refused);
    assert_code(answer, "bucket_not_found");
    ck_assert_str_ne(answer_outcome(answer), "unknown");
}
END_TEST

/* --- A server that ends ----------------------------------------------------------------------------- */

#define WINDOW_MS 300u

/*
 * The server may close in the middle of the commit, and complete it at its next start. By then it does not know the
 * ids.
 */
START_TEST(a_batch_whose_server_closes_is_not_stored_again)
{
    static const char closed[] = "{\"error\":{\"code\":503,\"err_code\":10077,\"description\":\"store is closed\"}}";
    uint64_t revision;

    deployment_make_short_bucket(&deployment, "short");
    deployment_set_window(&deployment, "short", WINDOW_MS);
    proxy_arm(
        deployment.proxy,
        (struct proxy_fault){.kind = PROXY_REPLACE_ACK, .subject = "$KV.short.>", .then_hold = true, .text = closed});
    uint64_t retries = deployment_retries(&deployment);
    uint32_t msgid =
        client_send(deployment.client, "txn.commit", "['short', [], [['put', 'a', 'mine'], ['put', 'b', 'mine']]]");
    wait_until(proxy_strikes(deployment.proxy) == 1, "the end of the store");
    wait_until(deployment_retries(&deployment) > retries, "what the daemon sends then");
    uint64_t begin_ms = now_ms();
    nats_put(deployment.nats, "short", "a", "other");
    nats_put(deployment.nats, "short", "b", "other");
    wait_until(now_ms() - begin_ms > 2 * WINDOW_MS, "the end of the window");
    disarm();
    proxy_release(deployment.proxy);
    const struct answer *answer = client_wait(deployment.client, msgid);
    ck_assert_str_eq(answer_outcome(answer), "unknown");
    struct stream_log log = stream_log_read(deployment.nats, "short");
    ck_assert_uint_eq(stream_log_count(&log, "a", "put", "other", &revision), 1);
    ck_assert_uint_eq(stream_log_count(&log, "b", "put", "other", &revision), 1);
}
END_TEST

/* --- A message that goes ---------------------------------------------------------------------------- */

static bool is_gone(void)
{
    json_t *info = nats_api(deployment.nats, "STREAM.INFO", "KV_b", "{'subjects_filter': '" KEY_SUBJECT "'}");

    return json_object_size(json_object_get(json_object_get(info, "state"), "subjects")) == 0;
}

/* An absent key proves nothing if it may have had a message. */
START_TEST(a_write_that_has_expired_is_not_stored_again)
{
    proxy_arm(deployment.proxy,
              (struct proxy_fault){.kind = PROXY_DROP_ACK, .subject = KEY_SUBJECT, .then_hold = true});
    uint32_t msgid = client_send(deployment.client, "kv.put", "['b', 'k', 'short-lived', {'ttl': 1}]");
    wait_until(proxy_strikes(deployment.proxy) == 1, "the lost ack");
    wait_until(is_gone(), "the end of the value");
    nats_put(deployment.nats, "b", "other", "x");
    nats_server_stop(&deployment.servers[0]); /* with the message it forgets the id */
    nats_server_run(&deployment.servers[0]);
    proxy_release(deployment.proxy);
    deployment_reconnect_nats(&deployment);
    ck_assert_str_eq(answer_outcome(client_wait(deployment.client, msgid)), "unknown");
    ck_assert(is_gone());
}
END_TEST

Suite *doubt_suite(void)
{
    Suite *suite = suite_create("in doubt");
    TCase *tests = tcase_create("one server");

    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, a_lost_write_is_stored_before_those_that_waited_for_it);
    tcase_add_test(tests, a_key_in_doubt_accepts_no_write_during_an_update_of_its_bucket);
    tcase_add_test(tests, a_key_in_doubt_accepts_no_write_after_a_failed_lookup_of_its_bucket);
    tcase_add_test(tests, a_write_in_doubt_outlives_its_bucket);
    tcase_add_test(tests, a_refusal_during_a_lookup_of_the_bucket_leaves_no_doubt);
    tcase_add_test(tests, a_batch_whose_server_closes_is_not_stored_again);
    tcase_add_test(tests, a_write_that_has_expired_is_not_stored_again);
    suite_add_tcase(suite, tests);
    return suite;
}
