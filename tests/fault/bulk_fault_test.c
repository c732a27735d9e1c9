/* bulk.get in a cluster: a key whose answer is missing is not taken for one that is not there. */
#include "tests/fault/stage.h"
#include "tests/fault/suites.h"

#include <string.h>

static struct stage stage;

static void begin(void)
{
    stage_begin(&stage, CLUSTER_SERVERS, NULL);
    stage_make_bucket(&stage, "b", NULL);
    assert_ok(session_call(stage.session, "bulk.put", "['b', {'one': '1', 'two': '2', 'three': '3'}]"));
    assert_ok(session_call(stage.session, "kv.delete", "['b', 'deleted']"));
    stage_wait_current(&stage, "b");
}

static void end(void)
{
    stage_end(&stage);
}

/* The value of a key in a bulk.get's answer; NULL where it is nil. The key must be there. */
static const char *value_of(const struct answer *answer, const char *key)
{
    for (uint32_t i = 0; i < answer->result->via.map.size; i++) {
        const msgpack_object_kv *member = &answer->result->via.map.ptr[i];
        if (member->key.via.str.size != strlen(key) || memcmp(member->key.via.str.ptr, key, strlen(key)) != 0)
            continue;
        return member->val.type == MSGPACK_OBJECT_NIL ? NULL : text_at(&member->val, "value");
    }
    ck_abort_msg("no %s in %s", key, answer_text(answer));
}

static const struct answer *get_all(void)
{
    const struct answer *answer =
        session_call(stage.session, "bulk.get", "['b', ['one', 'never', 'two', 'deleted', 'three'], {'timeout': 20}]");

    assert_ok(answer);
    ck_assert_uint_eq(answer->result->via.map.size, 5);
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

/* As a server does that does not keep writes away while it reads: one of the messages does not come. */
static void miss_a_key(unsigned count)
{
    proxy_arm(stage.proxy,
              (struct proxy_fault){.kind = PROXY_DROP_ACK, .subject = "$JS.API.DIRECT.GET.KV_b", .count = count});
    const struct answer *answer = get_all();
    ck_assert_uint_eq(proxy_strikes(stage.proxy), count);
    proxy_arm(stage.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
    expect_all(answer);
}

START_TEST(keys_that_are_not_there_are_nil)
{
    expect_all(get_all());
}
END_TEST

START_TEST(a_key_that_one_read_misses_is_found_by_the_next)
{
    miss_a_key(1);
}
END_TEST

START_TEST(a_key_that_every_read_misses_is_found_by_itself)
{
    miss_a_key(4);
}
END_TEST

START_TEST(keys_that_are_overwritten_all_the_time_are_never_nil)
{
    assert_ok(session_call(stage.session, "bucket.create", "['hot', {'history': 1, 'replicas': 3}]"));
    struct session *writer = session_open(stage.socket_path);
    for (unsigned round = 0; round < 300; round++) {
        uint32_t writes[3];
        for (unsigned i = 0; i < 3; i++)
            writes[i] = session_send(writer, "kv.put", "['hot', 'k%u', '%u', {'timeout': 20}]", i, round);
        if (round > 0) {
            const struct answer *answer = session_call(stage.session, "bulk.get", "['hot', ['k0', 'k1', 'k2']]");
            assert_ok(answer);
            for (unsigned i = 0; i < 3; i++)
                ck_assert(value_of(answer, format_text("k%u", i)) != NULL);
        }
        for (unsigned i = 0; i < 3; i++)
            assert_ok(session_wait(writer, writes[i]));
        session_forget(stage.session);
        session_forget(writer);
        if (round == 0)
            stage_wait_current(&stage, "hot");
    }
    session_close(writer);
}
END_TEST

/* --- A transaction during the read ------------------------------------------------------------------ */

static struct stage other;

/*
 * Keys x and y are written by one transaction each time. The read misses the first of them, and before it goes on
 * another daemon commits the next transaction, whose operations are given: the answer must be of one of the two.
 */
static void expect_whole(unsigned lost_reads, const char *operations, const char *x)
{
    const struct proxy_fault lose = {
        .kind = PROXY_DROP_PUBLISH, .subject = "$JS.API.DIRECT.GET.KV_b", .count = lost_reads};
    const struct proxy_fault miss = {.kind = PROXY_DROP_ACK, .subject = "$JS.API.DIRECT.GET.KV_b", .then_hold = true};

    stage_join(&other, &stage, NULL);
    assert_ok(session_call(stage.session, "txn.commit", "['b', [], [['put', 'x', '1'], ['put', 'y', '1']]]"));
    assert_ok(session_call(other.session, "kv.get", "['b', 'x']"));
    stage_wait_current(&stage, "b");
    proxy_arm(stage.proxy, lost_reads > 0 ? lose : miss);
    uint32_t msgid = session_send(stage.session, "bulk.get", "['b', ['x', 'y'], {'timeout': 50}]");
    if (lost_reads > 0) {
        wait_until(proxy_strikes(stage.proxy) == lost_reads, "the reads that are lost");
        proxy_arm(stage.proxy, miss);
    }
    wait_until(proxy_strikes(stage.proxy) == 1, "the read that misses a key");
    assert_ok(session_call(other.session, "txn.commit", "['b', [], [%s]]", operations));
    stage_wait_current(&stage, "b");
    proxy_release(stage.proxy);
    const struct answer *answer = session_wait(stage.session, msgid);
    assert_ok(answer);
    ck_assert_pstr_eq(value_of(answer, "x"), x);
    ck_assert_pstr_eq(value_of(answer, "y"), "2");
    stage_end(&other);
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

START_TEST(reads_that_were_lost_are_none_of_the_four)
{
    expect_whole(3, "['put', 'y', '2'], ['put', 'x', '2']", "2");
}
END_TEST

/* --- Memory ------------------------------------------------------------------------------------------ */

static void begin_small(void)
{
    stage_begin(&stage, CLUSTER_SERVERS,
                "limits:\n  frame_bytes: 8M\n  call_bytes: 16M\n  call_bytes_per_session: 16M\n");
    stage_make_bucket(&stage, "b", NULL);
}

START_TEST(what_is_read_again_takes_no_more_memory)
{
    static char value[900001];

    memset(value, 'v', sizeof(value) - 1);
    for (unsigned i = 0; i < 6; i++)
        assert_ok(session_call(stage.session, "kv.put", "['b', 'k%u', '%s']", i, value));
    stage_wait_current(&stage, "b");
    proxy_arm(stage.proxy,
              (struct proxy_fault){.kind = PROXY_DROP_ACK, .subject = "$JS.API.DIRECT.GET.KV_b", .count = 3});
    assert_ok(session_call(stage.session, "bulk.get", "['b', ['k0', 'k1', 'k2', 'k3', 'k4', 'k5'], {'timeout': 20}]"));
    ck_assert_uint_eq(proxy_strikes(stage.proxy), 3);
}
END_TEST

Suite *bulk_fault_suite(void)
{
    Suite *suite = suite_create("bulk faults");
    TCase *tests = tcase_create("three servers"), *small = tcase_create("little memory");

    tcase_add_checked_fixture(tests, begin, end);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, keys_that_are_not_there_are_nil);
    tcase_add_test(tests, a_key_that_one_read_misses_is_found_by_the_next);
    tcase_add_test(tests, a_key_that_every_read_misses_is_found_by_itself);
    tcase_add_test(tests, keys_that_are_overwritten_all_the_time_are_never_nil);
    tcase_add_test(tests, a_transaction_that_deletes_during_the_read_is_seen_as_a_whole);
    tcase_add_test(tests, a_transaction_that_writes_during_the_read_is_seen_as_a_whole);
    tcase_add_test(tests, reads_that_were_lost_are_none_of_the_four);
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(small, begin_small, end);
    tcase_set_timeout(small, 60);
    tcase_add_test(small, what_is_read_again_takes_no_more_memory);
    suite_add_tcase(suite, small);
    return suite;
}
