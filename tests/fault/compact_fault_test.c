/*
 * One host removes markers of deleted keys while another one is disconnected: that host must not lose a deletion
 * silently.
 */
#include "tests/fault/deployment.h"
#include "tests/fault/suites.h"
#include "tests/support/nats.h"
#include "tests/support/watch_recorder.h"

#include <string.h>

static struct deployment deployment, other;

static void begin_with(const char *more)
{
    deployment_begin(&deployment, 1, more);
    deployment_make_short_bucket(&deployment, "b");
    deployment_join(&other, &deployment, NULL);
}

static void begin(void)
{
    begin_with(NULL);
}

/* What is held up is not sent again meanwhile. */
static void begin_patiently(void)
{
    begin_with(DEPLOYMENT_ATTEMPTS(10));
}

static void end(void)
{
    deployment_end(&other);
    deployment_end(&deployment);
}

static uint64_t put(struct client *client, const char *key, const char *value)
{
    const struct answer *answer = client_call(client, "kv.put", "['b', '%s', '%s']", key, value);

    ck_assert_str_eq(answer_code(answer), "ok");
    return answer->result.via.u64;
}

static bool is_there(const char *key)
{
    const struct answer *answer =
        client_call(deployment.client, "kv.get", "['b', '%s', {'consistency': 'cached'}]", key);

    return strcmp(answer_code(answer), "ok") != 0 || answer->result.type != MSGPACK_OBJECT_NIL;
}

static void wait_until_cached(const char *key)
{
    uint64_t end_ms = now_ms() + PATIENCE_MS, hits = deployment_stat(&deployment, "cache.hits");

    while (deployment_stat(&deployment, "cache.hits") == hits) {
        ck_assert_msg(now_ms() < end_ms, "the bucket is not in memory");
        is_there(key);
    }
}

/* The first host receives nothing of this. */
static void delete_and_compact_elsewhere(void)
{
    proxy_hold(deployment.proxy);
    const struct answer *answer = client_call(other.client, "kv.delete", "['b', 'a']");
    ck_assert_str_eq(answer_code(answer), "ok");
    answer = client_call(other.client, "bucket.compact", "['b', {'older_than': 0}]");
    ck_assert_str_eq(answer_code(answer), "ok");
    ck_assert_uint_eq(answer->result.via.u64, 1);
    put(other.client, "later", "1");
    proxy_cut(deployment.proxy);
    proxy_release(deployment.proxy);
}

START_TEST(a_host_that_was_disconnected_delivers_the_deletion_to_its_watches)
{
    put(other.client, "stays", "1");
    uint64_t last = put(other.client, "a", "1");
    struct watch_recorder *recorder = watch_recorder_open(&deployment.daemon, "b", ">", NULL);
    watch_recorder_wait(recorder, last);
    watch_recorder_wait_ready(recorder);
    wait_until_cached("a");
    delete_and_compact_elsewhere();
    uint64_t end_ms = now_ms() + PATIENCE_MS;
    while (is_there("a"))
        ck_assert_msg(now_ms() < end_ms, "the deleted key is still in memory");
    bool is_told = false;
    while (!is_told) {
        ck_assert_msg(now_ms() < end_ms, "no watch delivers the deletion");
        watch_recorder_read(recorder, 10);
        for (size_t i = 0; i < recorder->count; i++)
            is_told |= strcmp(recorder->told[i].key, "a") == 0 && recorder->told[i].revision > last;
    }
    ck_assert(is_there("stays"));
    ck_assert(!is_there("a"));
    watch_recorder_close(recorder);
}
END_TEST

/* No daemon has followed the bucket on this host before. */
START_TEST(a_watch_that_is_resumed_on_another_host_must_start_over)
{
    put(deployment.client, "stays", "1");
    uint64_t last = put(deployment.client, "a", "1");
    delete_and_compact_elsewhere();
    uint64_t next = put(deployment.client, "later", "2");
    const char *from[] = {"gone", "told"};
    for (unsigned i = 0; i < 2; i++) {
        const struct answer *answer = client_call(deployment.client, "watch.start", "['b', {'from_revision': %lu}]",
                                                  (unsigned long)(i == 0 ? last + 1 : next));
        const struct notification *notice = NULL;
        if (strcmp(answer_code(answer), "ok") == 0) {
            do {
                notice = client_wait_notification(deployment.client, answer->result.via.u64);
            } while (strcmp(notice->method, "watch.entries") == 0);
        }
        bool is_gone = notice == NULL ? strcmp(answer_code(answer), "revision_gone") == 0
                                      : strcmp(notice->method, "watch.ended") == 0;
        ck_assert_msg(is_gone == (i == 0), "%s: %s", from[i], notice != NULL ? notice->method : answer_code(answer));
    }
}
END_TEST

/* After a reconnect other messages may have these sequences. */
START_TEST(a_purge_is_not_sent_again_on_another_connection)
{
    put(deployment.client, "stays", "1");
    put(deployment.client, "a", "1");
    assert_ok(client_call(deployment.client, "kv.delete", "['b', 'a']"));
    proxy_arm(deployment.proxy,
              (struct proxy_fault){.kind = PROXY_CUT_BEFORE_PUBLISH, .subject = "$JS.API.STREAM.PURGE.KV_b"});
    const struct answer *answer = client_call(deployment.client, "bucket.compact", "['b', {'older_than': 0}]");
    ck_assert_str_eq(answer_code(answer), "unavailable");
    ck_assert_uint_eq(proxy_strikes(deployment.proxy), 1);
    answer = client_call(deployment.client, "bucket.info", "['b']");
    assert_ok(answer);
    ck_assert_uint_eq(number_at(&answer->result, "values"), 3);
    answer = client_call(deployment.client, "bucket.compact", "['b', {'older_than': 0}]");
    assert_ok(answer);
    ck_assert_uint_eq(answer->result.via.u64, 1);
}
END_TEST

static void wait_for_strike(const char *otherwise)
{
    uint64_t end_ms = now_ms() + PATIENCE_MS;

    while (proxy_strikes(deployment.proxy) == 0) {
        ck_assert_msg(now_ms() < end_ms, "%s", otherwise);
        pause_shortly();
    }
}

/*
 * Wait until the server has sent a consumer the stream's messages up to this sequence. Return where the consumer began.
 * Consumers of earlier readings may be there until the server has removed them.
 */
static uint64_t wait_until_delivered(uint64_t sequence)
{
    uint64_t end_ms = now_ms() + PATIENCE_MS, start = 0;
    bool is_delivered = false;

    while (!is_delivered) {
        ck_assert_msg(now_ms() < end_ms, "the server delivers nothing");
        json_t *list = nats_api(deployment.nats, "CONSUMER.LIST", "KV_b", "{}"), *consumer;
        size_t i;
        json_array_foreach(json_object_get(list, "consumers"), i, consumer)
        {
            json_t *position = json_object_get(json_object_get(consumer, "delivered"), "stream_seq");
            if ((uint64_t)json_integer_value(position) < sequence)
                continue;
            is_delivered = true;
            start = (uint64_t)json_integer_value(json_object_get(json_object_get(consumer, "config"), "opt_start_seq"));
        }
        json_decref(list);
    }
    return start;
}

/* The purge of a marker would remove what has its sequence, or a lower one, in the new stream. */
START_TEST(a_bucket_that_another_host_recreates_is_not_affected_by_the_compaction)
{
    put(deployment.client, "stays", "1");
    put(deployment.client, "a", "1");
    assert_ok(client_call(deployment.client, "kv.delete", "['b', 'a']"));
    proxy_arm(deployment.proxy,
              (struct proxy_fault){.kind = PROXY_HOLD_AFTER_PUBLISH, .subject = "$JS.API.CONSUMER.MSG.NEXT.KV_b.>"});
    uint32_t compacting = client_send(deployment.client, "bucket.compact", "['b', {'older_than': 0}]");
    wait_for_strike("the compaction reads nothing");
    wait_until_delivered(3);
    assert_ok(client_call(other.client, "bucket.delete", "['b']"));
    deployment_make_short_bucket(&other, "b");
    put(other.client, "a", "new");
    proxy_release(deployment.proxy);
    ck_assert_str_eq(answer_code(client_wait(deployment.client, compacting)), "unavailable");
    const struct answer *answer = client_call(other.client, "kv.get", "['b', 'a', {'consistency': 'leader'}]");
    assert_ok(answer);
    ck_assert_msg(answer->result.type != MSGPACK_OBJECT_NIL, "the new value was removed");
    answer = client_call(deployment.client, "bucket.compact", "['b', {'older_than': 0}]");
    assert_ok(answer);
    ck_assert_uint_eq(answer->result.via.u64, 0);
}
END_TEST

/* The markers may have been read before the change, and be removed after it. */
START_TEST(a_compaction_that_begins_during_a_change_fails_when_the_change_ends)
{
    put(deployment.client, "stays", "1");
    put(deployment.client, "a", "1");
    assert_ok(client_call(deployment.client, "kv.delete", "['b', 'a']"));
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_DELAY_ACK, .subject = "$JS.API.STREAM.UPDATE.KV_b"});
    uint32_t updating = client_send(deployment.client, "bucket.update", "['b', {'metadata': {'a': 'b'}}]");
    wait_for_strike("the bucket is not updated");
    proxy_arm(deployment.proxy,
              (struct proxy_fault){.kind = PROXY_DELAY_ACK, .subject = "$JS.API.STREAM.MSG.GET.KV_b"});
    uint32_t compacting = client_send(deployment.client, "bucket.compact", "['b', {'older_than': 0}]");
    wait_for_strike("the compaction does not ask for the horizon");
    proxy_deliver(deployment.proxy);
    assert_ok(client_wait(deployment.client, updating));
    assert_code_says(client_wait(deployment.client, compacting), "unavailable", "changed during the compaction");
}
END_TEST

/* Of the pulls of 1,000 messages only the first comes through. It has a value and 999 markers. */
START_TEST(a_compaction_without_enough_time_removes_what_it_has_read_and_the_next_one_continues)
{
    enum { MARKERS = 1500 };

    put(deployment.client, "stays", "v");
    for (unsigned i = 0; i < MARKERS; i++)
        client_send(deployment.client, "kv.delete", "['b', 'a%u']", i);
    for (unsigned i = 0; i < MARKERS; i++)
        assert_ok(client_receive(deployment.client));
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_DROP_PUBLISH,
                                                     .subject = "$JS.API.CONSUMER.MSG.NEXT.KV_b.>",
                                                     .skip = 1,
                                                     .count = 10000});
    const struct answer *answer =
        client_call(deployment.client, "bucket.compact", "['b', {'older_than': 0, 'timeout': 6}]");
    assert_code_says(answer, "deadline_exceeded", "after removing 999 delete markers");
    proxy_arm(deployment.proxy,
              (struct proxy_fault){.kind = PROXY_HOLD_AFTER_PUBLISH, .subject = "$JS.API.CONSUMER.MSG.NEXT.KV_b.>"});
    uint32_t compacting = client_send(deployment.client, "bucket.compact", "['b', {'older_than': 0}]");
    wait_for_strike("the compaction reads nothing");
    ck_assert_uint_eq(wait_until_delivered(MARKERS + 1), 1001);
    proxy_release(deployment.proxy);
    answer = client_wait(deployment.client, compacting);
    assert_ok(answer);
    ck_assert_uint_eq(answer->result.via.u64, MARKERS - 999);
}
END_TEST

Suite *compact_fault_suite(void)
{
    Suite *suite = suite_create("compact faults");
    TCase *tests = tcase_create("two hosts"), *patient = tcase_create("two patient hosts");

    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, a_host_that_was_disconnected_delivers_the_deletion_to_its_watches);
    tcase_add_test(tests, a_watch_that_is_resumed_on_another_host_must_start_over);
    tcase_add_test(tests, a_purge_is_not_sent_again_on_another_connection);
    tcase_add_checked_fixture(patient, begin_patiently, end);
    tcase_add_test(patient, a_bucket_that_another_host_recreates_is_not_affected_by_the_compaction);
    tcase_add_test(patient, a_compaction_that_begins_during_a_change_fails_when_the_change_ends);
    tcase_add_test(tests, a_compaction_without_enough_time_removes_what_it_has_read_and_the_next_one_continues);
    suite_add_tcase(suite, tests);
    suite_add_tcase(suite, patient);
    return suite;
}
