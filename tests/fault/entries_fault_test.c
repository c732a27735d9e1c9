/* kv.entries and deletions with a filter beside lost messages, other writers and a server that is killed. */
#include "tests/fault/deployment.h"
#include "tests/fault/suites.h"
#include "tests/support/calls.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct cluster cluster;
static struct deployment deployment, other;
static struct daemon daemon_of_test;

static const char *bucket, *reads;

static void begin_cluster(void)
{
    cluster_start(&cluster);
}

static void end_cluster(void)
{
    cluster_kill(&cluster);
}

static void begin(void)
{
    bucket = format_text("b%d", (int)getpid());
    reads = format_text("$JS.API.DIRECT.GET.KV_%s", bucket);
    deployment_begin_in(&deployment, &cluster, NULL);
    deployment_make_bucket(&deployment, bucket, NULL);
    assert_ok(
        client_call(deployment.client, "txn.commit", "['%s', [], [['put', 'x', '1'], ['put', 'y', '1']]]", bucket));
    deployment_wait_current(&deployment, bucket);
}

static void end(void)
{
    deployment_end(&deployment);
}

/* Return a page as text, such as "x=1 y=1". */
static const char *page_text(const struct answer *answer)
{
    const char *text = "";

    assert_ok(answer);
    for (size_t i = 0; i < count_at(&answer->result, ""); i++)
        text = format_text("%s%s%s=%s", text, i > 0 ? " " : "", text_at(&answer->result, format_text("%zu.key", i)),
                           text_at(&answer->result, format_text("%zu.value", i)));
    return text;
}

START_TEST(a_key_whose_value_is_lost_on_the_way_is_not_left_out)
{
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_DROP_ACK, .subject = reads});
    const struct answer *answer = client_call(deployment.client, "kv.entries", "['%s']", bucket);
    ck_assert_uint_eq(proxy_strikes(deployment.proxy), 1);
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
    ck_assert_str_eq(page_text(answer), "x=1 y=1");
}
END_TEST

/* Send kv.entries. Another daemon commits after the keys were read; the read of their values is held. */
static uint32_t commit_while_held(const char *operations)
{
    deployment_join(&other, &deployment, NULL);
    assert_ok(client_call(other.client, "kv.get", "['%s', 'x']", bucket));
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_HOLD_BEFORE_PUBLISH, .subject = reads});
    uint32_t msgid = client_send(deployment.client, "kv.entries", "['%s']", bucket);
    wait_until(proxy_strikes(deployment.proxy) == 1, "the read of the values");
    assert_ok(client_call(other.client, "txn.commit", "['%s', [], [%s]]", bucket, operations));
    deployment_wait_current(&deployment, bucket);
    return msgid;
}

/* Another daemon commits after the keys were read, and before their values are. */
static void commit_between(const char *operations, const char *page)
{
    uint32_t msgid = commit_while_held(operations);
    proxy_release(deployment.proxy);
    ck_assert_str_eq(page_text(client_wait(deployment.client, msgid)), page);
    deployment_end(&other);
}

/* The first key is read again. The page ends before a key that was not there when the keys were read. */
START_TEST(a_page_has_no_part_of_a_transaction_that_deletes_its_first_key)
{
    commit_between("['put', 'y', '2'], ['delete', 'x']", "y=2");
}
END_TEST

START_TEST(a_page_ends_before_a_key_that_was_written_meanwhile)
{
    commit_between("['put', 'a', '2'], ['put', 'y', '2']", "x=1");
}
END_TEST

START_TEST(a_page_whose_first_key_was_written_has_it_alone)
{
    commit_between("['put', 'x', '2'], ['put', 'y', '2']", "x=2");
}
END_TEST

START_TEST(a_page_whose_first_key_was_written_beside_a_lower_one_is_read_again)
{
    commit_between("['put', 'a', '2'], ['put', 'x', '2']", "a=2 x=2 y=1");
}
END_TEST

/* The first key is written after its value is read, and again before the daemon has looked what came since. */
static void write_twice(const char *operations, bool with_purge, const char *page)
{
    const char *creations = format_text("$JS.API.CONSUMER.CREATE.KV_%s.>", bucket);

    uint32_t msgid = commit_while_held(operations);
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_HOLD_BEFORE_PUBLISH, .subject = creations});
    proxy_release(deployment.proxy);
    wait_until(proxy_strikes(deployment.proxy) == 1, "the look at what came since");
    if (with_purge)
        nats_api(deployment.nats, "STREAM.PURGE", format_text("KV_%s", bucket), "{}");
    assert_ok(client_call(other.client, "kv.put", "['%s', 'x', '3']", bucket));
    deployment_wait_current(&deployment, bucket);
    proxy_release(deployment.proxy);
    ck_assert_str_eq(page_text(client_wait(deployment.client, msgid)), page);
    deployment_end(&other);
}

START_TEST(a_page_whose_first_key_is_written_all_the_time_has_it_alone)
{
    write_twice("['put', 'x', '2'], ['put', 'y', '2']", false, "x=2");
}
END_TEST

/* The messages of a lower key may be gone. */
START_TEST(a_page_whose_first_key_is_written_after_a_purge_is_read_again)
{
    write_twice("['put', 'a', '2'], ['put', 'x', '2']", true, "x=3");
}
END_TEST

/* --- The embedded server is killed --------------------------------------------------------------------- */

START_TEST(pages_come_from_memory_while_the_server_is_away)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *own = client_new_bucket(client, NULL);
    put_text(client, own, "a", "1");
    put_text(client, own, "b", "2");
    wait_until_cached(client, own, "a");
    kill(daemon_nats_pid(&daemon_of_test), SIGSTOP);
    ck_assert_str_eq(page_text(client_call(client, "kv.entries", "['%s']", own)), "a=1 b=2");
    kill(daemon_nats_pid(&daemon_of_test), SIGKILL);
    for (unsigned i = 0; i < 200; i++)
        ck_assert_str_eq(page_text(client_call(client, "kv.entries", "['%s']", own)), "a=1 b=2");
    client_close(client);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Return the number of keys that the call says it has deleted. */
static uint64_t deleted_by(const struct answer *answer)
{
    unsigned deleted = 0;

    if (strcmp(answer_code(answer), "ok") == 0)
        return number_at(&answer->result, "");
    ck_assert_msg(bool_at(&answer->error, "retryable"), "%s", answer_text(answer));
    const char *number = strstr(text_at(&answer->error, "message"), "after deleting ");
    ck_assert(number == NULL || sscanf(number, "after deleting %u", &deleted) == 1);
    return deleted;
}

START_TEST(a_deletion_survives_a_server_that_is_killed)
{
    enum { KEYS = 20000 };

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *own = client_new_bucket(client, NULL);
    for (unsigned i = 0; i < KEYS; i += 10000)
        put_many(client, own, "k", i, 10000, 10);
    put_text(client, own, "other.a", "stays");
    const struct answer *answer = client_call(client, "watch.start", "['%s', {'updates_only': true}]", own);
    assert_ok(answer);
    uint64_t watch = number_at(&answer->result, "");
    uint32_t call = client_send(client, "bulk.delete", "['%s', {'filter': '*', 'timeout': 60}]", own);
    while (strcmp(client_wait_notification(client, watch)->method, "watch.entries") != 0)
        ;
    kill(daemon_nats_pid(&daemon_of_test), SIGKILL);
    answer = client_wait(client, call);
    bool is_ok = strcmp(answer_code(answer), "ok") == 0;
    uint64_t deleted = deleted_by(answer);
    printf("deletion beside a killed server: %s, %u keys\n", answer_code(answer), (unsigned)deleted);
    answer = client_call(client, "bulk.delete", "['%s', {'filter': '*', 'timeout': 60}]", own);
    assert_ok(answer);
    deleted += deleted_by(answer);
    ck_assert_uint_le(deleted, KEYS);
    ck_assert(!is_ok || deleted == KEYS);
    answer = client_call(client, "kv.keys", "['%s']", own);
    assert_ok(answer);
    ck_assert_str_eq(object_text(&answer->result), "[\"other.a\"]");
    client_close(client);
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *entries_fault_suite(void)
{
    Suite *suite = suite_create("entries faults");
    TCase *tests = tcase_create("three servers"), *embedded = tcase_create("embedded");

    tcase_add_unchecked_fixture(tests, begin_cluster, end_cluster);
    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, a_key_whose_value_is_lost_on_the_way_is_not_left_out);
    tcase_add_test(tests, a_page_has_no_part_of_a_transaction_that_deletes_its_first_key);
    tcase_add_test(tests, a_page_ends_before_a_key_that_was_written_meanwhile);
    tcase_add_test(tests, a_page_whose_first_key_was_written_has_it_alone);
    tcase_add_test(tests, a_page_whose_first_key_was_written_beside_a_lower_one_is_read_again);
    tcase_add_test(tests, a_page_whose_first_key_is_written_all_the_time_has_it_alone);
    tcase_add_test(tests, a_page_whose_first_key_is_written_after_a_purge_is_read_again);
    suite_add_tcase(suite, tests);
    tcase_add_test(embedded, pages_come_from_memory_while_the_server_is_away);
    tcase_add_test(embedded, a_deletion_survives_a_server_that_is_killed);
    suite_add_tcase(suite, embedded);
    return suite;
}
