/* bulk.get in a cluster: a key whose answer is missing must not be reported as missing. */
#include "tests/fault/deployment.h"
#include "tests/fault/suites.h"

#include <string.h>
#include <unistd.h>

static struct cluster cluster;
static struct deployment deployment;

/* Each test has buckets of its own in the shared cluster. */
static const char *bucket, *hot, *reads;

static void begin_cluster(void)
{
    cluster_start(&cluster);
}

static void end_cluster(void)
{
    cluster_kill(&cluster);
}

static void begin_with(const char *more)
{
    bucket = format_text("b%d", (int)getpid());
    hot = format_text("hot%d", (int)getpid());
    reads = format_text("$JS.API.DIRECT.GET.KV_%s", bucket);
    deployment_begin_in(&deployment, &cluster, more);
    deployment_make_bucket(&deployment, bucket, NULL);
}

static void begin(void)
{
    begin_with(NULL);
    assert_ok(client_call(deployment.client, "bulk.put", "['%s', {'one': '1', 'two': '2', 'three': '3'}]", bucket));
    assert_ok(client_call(deployment.client, "kv.delete", "['%s', 'deleted']", bucket));
    deployment_wait_current(&deployment, bucket);
}

static void end(void)
{
    deployment_end(&deployment);
}

/* Return the value of a key in a bulk.get's answer, or NULL if it is nil. The key must be in the answer. */
static const char *value_of(const struct answer *answer, const char *key)
{
    for (uint32_t i = 0; i < answer->result.via.map.size; i++) {
        const msgpack_object_kv *member = &answer->result.via.map.ptr[i];
        if (member->key.via.str.size != strlen(key) || memcmp(member->key.via.str.ptr, key, strlen(key)) != 0)
            continue;
        return member->val.type == MSGPACK_OBJECT_NIL ? NULL : text_at(&member->val, "value");
    }
    ck_abort_msg("no %s in %s", key, answer_text(answer));
}

static const struct answer *get_all(void)
{
    const struct answer *answer =
        client_call(deployment.client, "bulk.get", "['%s', ['one', 'never', 'two', 'deleted', 'three']]", bucket);

    assert_ok(answer);
    ck_assert_uint_eq(answer->result.via.map.size, 5);
    ck_assert(value_of(answer, "never") == NULL);
    ck_assert(value_of(answer, "deleted") == NULL);
    return answer;
}

static void expect_all(const struct answer *answer)
{
    ck_assert_pstr_eq(value_of(answer, "one"), "1");
    ck_assert_pstr_eq(value_of(answer, "two"), "2");
    ck_assert_pstr_eq(value_of(answer, "three"), "3");
}

/* A server that accepts writes during the read may omit a message. Here the proxy omits one. */
static void miss_a_key(unsigned count)
{
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_DROP_ACK, .subject = reads, .count = count});
    const struct answer *answer = get_all();
    ck_assert_uint_eq(proxy_strikes(deployment.proxy), count);
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
    expect_all(answer);
}

START_TEST(missing_keys_are_nil)
{
    expect_all(get_all());
}
END_TEST

START_TEST(a_key_that_one_read_misses_is_found_by_the_next)
{
    miss_a_key(1);
}
END_TEST

START_TEST(a_key_that_every_read_misses_is_read_singly)
{
    miss_a_key(4);
}
END_TEST

START_TEST(keys_that_are_overwritten_all_the_time_are_never_nil)
{
    assert_ok(client_call(deployment.client, "bucket.create", "['%s', {'history': 1, 'replicas': 3}]", hot));
    deployment_wait_known(&deployment, hot);
    struct client *writer = client_open(&deployment.daemon);
    for (unsigned round = 0; round < 300; round++) {
        uint32_t writes[3];
        for (unsigned i = 0; i < 3; i++)
            writes[i] = client_send(writer, "kv.put", "['%s', 'k%u', '%u']", hot, i, round);
        if (round > 0) {
            const struct answer *answer = client_call(deployment.client, "bulk.get", "['%s', ['k0', 'k1', 'k2']]", hot);
            assert_ok(answer);
            for (unsigned i = 0; i < 3; i++)
                ck_assert(value_of(answer, format_text("k%u", i)) != NULL);
        }
        for (unsigned i = 0; i < 3; i++)
            assert_ok(client_wait(writer, writes[i]));
        client_forget(deployment.client);
        client_forget(writer);
        if (round == 0)
            deployment_wait_current(&deployment, hot);
    }
    client_close(writer);
}
END_TEST

/* --- A transaction during the read ------------------------------------------------------------------ */

static struct deployment other;

/*
 * Each transaction writes the keys x and y. The read misses the first of them. Before it continues, another daemon
 * commits the next transaction, with the given operations. The answer must be the state after one of the two.
 */
static void expect_whole(unsigned lost_reads, const char *operations, const char *x)
{
    const struct proxy_fault lose = {
        .kind = PROXY_DROP_PUBLISH, .subject = reads, .count = lost_reads, .then_hold = true};
    const struct proxy_fault miss = {.kind = PROXY_DROP_ACK, .subject = reads, .then_hold = true};

    deployment_join(&other, &deployment, NULL);
    assert_ok(
        client_call(deployment.client, "txn.commit", "['%s', [], [['put', 'x', '1'], ['put', 'y', '1']]]", bucket));
    assert_ok(client_call(other.client, "kv.get", "['%s', 'x']", bucket));
    deployment_wait_current(&deployment, bucket);
    proxy_arm(deployment.proxy, lost_reads > 0 ? lose : miss);
    uint32_t msgid = client_send(deployment.client, "bulk.get", "['%s', ['x', 'y']]", bucket);
    if (lost_reads > 0) {
        wait_until(proxy_strikes(deployment.proxy) == lost_reads, "the reads that are lost");
        proxy_arm(deployment.proxy, miss);
        proxy_release(deployment.proxy);
    }
    wait_until(proxy_strikes(deployment.proxy) == 1, "the read that misses a key");
    assert_ok(client_call(other.client, "txn.commit", "['%s', [], [%s]]", bucket, operations));
    deployment_wait_current(&deployment, bucket);
    proxy_release(deployment.proxy);
    const struct answer *answer = client_wait(deployment.client, msgid);
    assert_ok(answer);
    ck_assert_pstr_eq(value_of(answer, "x"), x);
    ck_assert_pstr_eq(value_of(answer, "y"), "2");
    deployment_end(&other);
}

START_TEST(a_transaction_that_deletes_during_the_read_is_seen_as_a_whole)
{
    expect_whole(0, "['put', 'y', '2'], ['delete', 'x']", NULL);
}
END_TEST

START_TEST(a_transaction_that_writes_during_the_read_is_seen_as_a_whole)
{
    expect_whole(0, "['put', 'y', '2'], ['put', 'x', '2']", "2");
}
END_TEST

START_TEST(lost_reads_do_not_count_as_one_of_the_four_attempts)
{
    expect_whole(3, "['put', 'y', '2'], ['put', 'x', '2']", "2");
}
END_TEST

/* --- Memory ------------------------------------------------------------------------------------------ */

static void begin_small(void)
{
    begin_with("limits:\n  frame_bytes: 8M\n  call_bytes: 16M\n  call_bytes_per_session: 16M\n");
}

START_TEST(reading_again_takes_no_more_memory)
{
    static char value[900001];

    memset(value, 'v', sizeof(value) - 1);
    for (unsigned i = 0; i < 6; i++)
        assert_ok(client_call(deployment.client, "kv.put", "['%s', 'k%u', '%s']", bucket, i, value));
    deployment_wait_current(&deployment, bucket);
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_DROP_ACK, .subject = reads, .count = 3});
    assert_ok(client_call(deployment.client, "bulk.get", "['%s', ['k0', 'k1', 'k2', 'k3', 'k4', 'k5']]", bucket));
    ck_assert_uint_eq(proxy_strikes(deployment.proxy), 3);
}
END_TEST

Suite *bulk_fault_suite(void)
{
    Suite *suite = suite_create("bulk faults");
    TCase *tests = tcase_create("three servers"), *small = tcase_create("little memory");

    tcase_add_unchecked_fixture(tests, begin_cluster, end_cluster);
    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, missing_keys_are_nil);
    tcase_add_test(tests, a_key_that_one_read_misses_is_found_by_the_next);
    tcase_add_test(tests, a_key_that_every_read_misses_is_read_singly);
    tcase_add_test(tests, keys_that_are_overwritten_all_the_time_are_never_nil);
    tcase_add_test(tests, a_transaction_that_deletes_during_the_read_is_seen_as_a_whole);
    tcase_add_test(tests, a_transaction_that_writes_during_the_read_is_seen_as_a_whole);
    tcase_add_test(tests, lost_reads_do_not_count_as_one_of_the_four_attempts);
    suite_add_tcase(suite, tests);
    tcase_add_unchecked_fixture(small, begin_cluster, end_cluster);
    tcase_add_checked_fixture(small, begin_small, end);
    tcase_add_test(small, reading_again_takes_no_more_memory);
    suite_add_tcase(suite, small);
    return suite;
}
