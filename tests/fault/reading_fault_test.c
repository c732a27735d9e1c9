/*
 * Disturbed readings of many keys: what was read is not read again, and a reading past its deadline reports its
 * progress.
 */
#include "tests/fault/deployment.h"
#include "tests/fault/suites.h"

#include <string.h>

#define BUCKET "b"
#define KEYS   3000u

static struct deployment deployment;

static void begin(void)
{
    deployment_begin(&deployment, 1, NULL);
    deployment_make_short_bucket(&deployment, BUCKET);
    for (unsigned i = 0; i < KEYS; i++)
        client_send(deployment.client, "kv.put", "['%s', 'k%04u', 'v']", BUCKET, i);
    ck_assert_uint_eq(revision_of(client_call(deployment.client, "kv.put", "['%s', 'k0000', 'v']", BUCKET)), KEYS + 1);
    client_forget(deployment.client);
}

static void end(void)
{
    deployment_end(&deployment);
}

static void expect_all_keys(const struct answer *answer)
{
    assert_ok(answer);
    ck_assert_uint_eq(answer->result.via.array.size, KEYS);
}

/* The first 2,000 of 3,000 keys have come, and then the disturbance follows. */
static void read_with(struct proxy_fault fault)
{
    fault.subject = "$KV." BUCKET ".>";
    fault.skip = 2000;
    proxy_arm(deployment.proxy, fault);
    expect_all_keys(client_call(deployment.client, "kv.keys", "['%s']", BUCKET));
    ck_assert_uint_eq(proxy_strikes(deployment.proxy), 1);
    /* Only what was in flight is delivered again. */
    ck_assert_uint_le(proxy_publishes(deployment.proxy), KEYS + 1100);
}

START_TEST(a_reading_resumes_after_a_cut)
{
    read_with((struct proxy_fault){.kind = PROXY_CUT_BEFORE_DELIVERY});
}
END_TEST

START_TEST(a_reading_resumes_after_a_lost_delivery)
{
    read_with((struct proxy_fault){.kind = PROXY_DROP_DELIVERY});
}
END_TEST

/* After its restart the server may not have what was read. */
START_TEST(a_reading_restarts_after_the_server_restarts)
{
    proxy_arm(deployment.proxy,
              (struct proxy_fault){
                  .kind = PROXY_DROP_DELIVERY, .subject = "$KV." BUCKET ".>", .skip = 2000, .then_hold = true});
    uint32_t id = client_send(deployment.client, "kv.keys", "['%s', {'timeout': 50}]", BUCKET);
    wait_until(proxy_strikes(deployment.proxy) == 1, "the reading");
    nats_server_kill(&deployment.servers[0]);
    nats_server_run(&deployment.servers[0]);
    proxy_cut(deployment.proxy);
    proxy_release(deployment.proxy);
    expect_all_keys(client_wait(deployment.client, id));
    ck_assert_uint_ge(proxy_publishes(deployment.proxy), KEYS + 2000);
}
END_TEST

START_TEST(a_reading_past_its_deadline_reports_its_progress)
{
    proxy_arm(deployment.proxy,
              (struct proxy_fault){
                  .kind = PROXY_DROP_DELIVERY, .subject = "$KV." BUCKET ".>", .skip = 2000, .then_hold = true});
    const struct answer *answer = client_call(deployment.client, "kv.keys", "['%s', {'timeout': 2}]", BUCKET);
    assert_code(answer, "deadline_exceeded");
    ck_assert_msg(strstr(answer_text(answer), "2000 of about 3000 messages") != NULL, "%s", answer_text(answer));
    proxy_release(deployment.proxy);
}
END_TEST

/* A key is deleted after it was delivered, and before the reading has come to the end. */
static const struct answer *list_while_key_is_deleted(const char *options)
{
    struct deployment other;

    deployment_join(&other, &deployment, NULL);
    proxy_arm(deployment.proxy,
              (struct proxy_fault){
                  .kind = PROXY_DROP_DELIVERY, .subject = "$KV." BUCKET ".>", .skip = 2000, .then_hold = true});
    uint32_t id = client_send(deployment.client, "kv.keys", "['%s', %s]", BUCKET, options);
    wait_until(proxy_strikes(deployment.proxy) == 1, "the reading");
    assert_ok(client_call(other.client, "kv.delete", "['%s', 'k0005']", BUCKET));
    deployment_end(&other);
    proxy_release(deployment.proxy);
    const struct answer *answer = client_wait(deployment.client, id);
    assert_ok(answer);
    return answer;
}

START_TEST(a_listing_omits_a_key_whose_deletion_it_has_read)
{
    const struct answer *answer = list_while_key_is_deleted("{'timeout': 50}");

    ck_assert_uint_eq(answer->result.via.array.size, KEYS - 1);
    ck_assert_str_eq(text_at(&answer->result, "5"), "k0006");
}
END_TEST

START_TEST(a_page_is_full_though_a_key_of_it_was_deleted_while_it_was_read)
{
    const struct answer *answer = list_while_key_is_deleted("{'limit': 10, 'after': 'k0000', 'timeout': 50}");

    ck_assert_uint_eq(answer->result.via.array.size, 10);
    ck_assert_str_eq(text_at(&answer->result, "4"), "k0006");
    ck_assert_str_eq(text_at(&answer->result, "9"), "k0011");
}
END_TEST

/* A look-up that takes longer than a call waits is not begun again by each call. */
START_TEST(a_slow_look_up_of_a_bucket_outlives_its_call)
{
    static struct deployment other;
    const char *get = "['%s', 'k0001', {'consistency': 'leader', 'timeout': 2}]";

    deployment_join(&other, &deployment, DEPLOYMENT_ATTEMPTS(30));
    proxy_arm(other.proxy,
              (struct proxy_fault){.kind = PROXY_DELAY_ACK, .subject = "$JS.API.STREAM.INFO.KV_" BUCKET, .count = 2});
    uint32_t msgid = client_send(other.client, "kv.get", get, BUCKET);
    wait_until(proxy_strikes(other.proxy) == 1, "the look-up");
    assert_code(client_wait(other.client, msgid), "unavailable");
    assert_code(client_call(other.client, "kv.get", get, BUCKET), "unavailable");
    ck_assert_uint_eq(proxy_strikes(other.proxy), 1);
    proxy_deliver(other.proxy);
    assert_ok(client_call(other.client, "kv.get", "['%s', 'k0001', {'consistency': 'leader'}]", BUCKET));
    ck_assert_uint_eq(proxy_strikes(other.proxy), 1);
    deployment_end(&other);
}
END_TEST

Suite *reading_fault_suite(void)
{
    Suite *suite = suite_create("reading faults");
    TCase *tests = tcase_create("one server");

    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, a_reading_resumes_after_a_cut);
    tcase_add_test(tests, a_reading_resumes_after_a_lost_delivery);
    tcase_add_test(tests, a_reading_restarts_after_the_server_restarts);
    tcase_add_test(tests, a_reading_past_its_deadline_reports_its_progress);
    tcase_add_test(tests, a_listing_omits_a_key_whose_deletion_it_has_read);
    tcase_add_test(tests, a_page_is_full_though_a_key_of_it_was_deleted_while_it_was_read);
    tcase_add_test(tests, a_slow_look_up_of_a_bucket_outlives_its_call);
    suite_add_tcase(suite, tests);
    return suite;
}
