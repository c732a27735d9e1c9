/* Servers of a cluster that are stopped during writes: nothing acknowledged is lost, and outcomes are true. */
#include "tests/fault/deployment.h"
#include "tests/fault/suites.h"

#include <string.h>

#define WRITES 40u

static struct deployment deployment;

static void begin(void)
{
    deployment_begin(&deployment, CLUSTER_SERVERS, DEPLOYMENT_ATTEMPTS(0.1));
    deployment_make_bucket(&deployment, "b", NULL);
    deployment_wait_current(&deployment, "b");
}

static void end(void)
{
    deployment_end(&deployment);
}

/* Connect the daemon to the leader, which is not stopped. */
static struct nats_server *talk_to_leader(void)
{
    struct nats_server *leader = deployment_leader(&deployment, "b");
    unsigned number = (unsigned)(leader - deployment.servers);

    proxy_prefer(deployment.proxy, number);
    proxy_cut(deployment.proxy);
    wait_until(proxy_server_port(deployment.proxy) == leader->port, "the connection to the leader");
    return leader;
}

/* Every second write has a condition, so that a copy of it can be refused. */
static void send_writes(uint32_t msgids[WRITES], const char *options)
{
    for (unsigned i = 0; i < WRITES; i++)
        msgids[i] = client_send(deployment.client, i % 2 == 0 ? "kv.put" : "kv.create", "['b', 'k.%u', 'mine', {%s}]",
                                i, options);
}

/*
 * Each write must be stored once at its revision; or not at all, with an error that says so; or its outcome is unknown.
 * Return how many succeeded.
 */
static unsigned expect_truth(const uint32_t msgids[WRITES])
{
    unsigned done = 0;

    for (unsigned i = 0; i < WRITES; i++)
        client_peek(deployment.client, msgids[i]);
    deployment_reconnect_nats(&deployment);
    deployment_wait_current(&deployment, "b");
    struct stream_log log = stream_log_read(deployment.nats, "b");
    for (unsigned i = 0; i < WRITES; i++) {
        const struct answer *answer = client_wait(deployment.client, msgids[i]);
        uint64_t stored;
        unsigned count = stream_log_count(&log, format_text("k.%u", i), "put", "mine", &stored);
        bool is_done = strcmp(answer_code(answer), "ok") == 0;
        bool is_unknown = strcmp(answer_outcome(answer), "unknown") == 0;
        ck_assert_msg(is_unknown ? count <= 1 : count == is_done, "k.%u is stored %u times; answered %s", i, count,
                      answer_text(answer));
        if (is_done)
            ck_assert_uint_eq(revision_of(answer), stored);
        done += is_done;
    }
    return done;
}

START_TEST(writes_succeed_while_a_follower_is_stopped)
{
    uint32_t msgids[WRITES];
    const struct nats_server *leader = talk_to_leader();
    struct nats_server *follower = leader == &deployment.servers[1] ? &deployment.servers[2] : &deployment.servers[1];

    nats_server_freeze(follower);
    send_writes(msgids, "");
    for (unsigned i = 0; i < WRITES; i++)
        assert_ok(client_peek(deployment.client, msgids[i]));
    nats_server_thaw(follower);
    ck_assert_uint_eq(expect_truth(msgids), WRITES);
}
END_TEST

static void freeze_all_but(const struct nats_server *leader)
{
    for (unsigned i = 0; i < CLUSTER_SERVERS; i++) {
        if (&deployment.servers[i] != leader)
            nats_server_freeze(&deployment.servers[i]);
    }
}

static void thaw_all_but(const struct nats_server *leader)
{
    for (unsigned i = 0; i < CLUSTER_SERVERS; i++) {
        if (&deployment.servers[i] != leader)
            nats_server_thaw(&deployment.servers[i]);
    }
}

START_TEST(without_a_majority_no_write_is_acknowledged_and_outcomes_are_true)
{
    uint32_t msgids[WRITES];
    const struct nats_server *leader = talk_to_leader();

    assert_ok(client_call(deployment.client, "kv.put", "['b', 'before', 'x']"));
    freeze_all_but(leader);
    send_writes(msgids, "'timeout': 2");
    for (unsigned i = 0; i < WRITES; i++)
        ck_assert_str_ne(answer_code(client_peek(deployment.client, msgids[i])), "ok");
    thaw_all_but(leader);
    assert_ok(client_call(deployment.client, "kv.put", "['b', 'behind', 'x']"));
    ck_assert_uint_eq(expect_truth(msgids), 0);
}
END_TEST

START_TEST(writes_that_wait_for_the_majority_are_stored_once)
{
    uint32_t msgids[WRITES];
    const struct nats_server *leader = talk_to_leader();

    freeze_all_but(leader);
    uint64_t retries = deployment_retries(&deployment);
    send_writes(msgids, "");
    wait_until(deployment_retries(&deployment) >= retries + 3 * WRITES, "retries of each");
    thaw_all_but(leader);
    ck_assert_uint_gt(expect_truth(msgids), 0);
}
END_TEST

/* A lookup of the bucket would need the stream's leader, which is gone with the server. */
START_TEST(a_read_is_answered_by_another_server_without_a_leader)
{
    assert_ok(client_call(deployment.client, "kv.put", "['b', 'k', 'v']"));
    proxy_arm_beside(
        deployment.proxy,
        (struct proxy_fault){.kind = PROXY_DROP_PUBLISH, .subject = "$JS.API.STREAM.INFO.KV_b", .count = UINT32_MAX});
    proxy_arm(deployment.proxy,
              (struct proxy_fault){.kind = PROXY_NO_RESPONDERS, .subject = "$JS.API.DIRECT.GET.KV_b.>"});
    const struct answer *answer = client_call(deployment.client, "kv.get", "['b', 'k']");
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "value"), "v");
    ck_assert_uint_eq(proxy_strikes(deployment.proxy), 1);
    proxy_arm(deployment.proxy,
              (struct proxy_fault){.kind = PROXY_NO_RESPONDERS, .subject = "$JS.API.DIRECT.GET.KV_b"});
    assert_ok(client_call(deployment.client, "bulk.get", "['b', ['k', 'other']]"));
    ck_assert_uint_eq(proxy_strikes(deployment.proxy), 1);
    proxy_arm_beside(deployment.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
}
END_TEST

/* --- Streams without a leader ------------------------------------------------------------------------- */

static void begin_with_one(void)
{
    deployment_begin(&deployment, 1, DEPLOYMENT_ATTEMPTS(0.1));
    deployment_make_bucket(&deployment, "b", NULL);
    assert_ok(client_call(deployment.client, "kv.put", "['b', 'k', 'v']"));
    deployment_kill_daemon(&deployment);
    deployment_restart_daemon(&deployment); /* it knows no bucket */
}

/* Their server is down, and nobody answers for these buckets. There are more of them than are looked up at a time. */
START_TEST(buckets_without_a_leader_do_not_keep_others_from_being_looked_up)
{
    enum { SILENT = 100 };

    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_DROP_PUBLISH,
                                                     .subject = "$JS.API.STREAM.INFO.*",
                                                     .but = "$JS.API.STREAM.INFO.KV_b",
                                                     .count = UINT32_MAX});
    struct client *other = client_open(&deployment.daemon);
    for (unsigned i = 0; i < SILENT; i++)
        client_send(other, "kv.get", "['silent%u', 'k']", i);
    wait_until(proxy_strikes(deployment.proxy) > 30, "the look-ups");
    const struct answer *answer = client_call(deployment.client, "kv.get", "['b', 'k', {'timeout': 5}]");
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "value"), "v");
    client_close(other);
}
END_TEST

Suite *partition_suite(void)
{
    Suite *suite = suite_create("partition");
    TCase *tests = tcase_create("three servers");
    TCase *silent = tcase_create("streams without a leader");

    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, writes_succeed_while_a_follower_is_stopped);
    tcase_add_test(tests, without_a_majority_no_write_is_acknowledged_and_outcomes_are_true);
    tcase_add_test(tests, writes_that_wait_for_the_majority_are_stored_once);
    tcase_add_test(tests, a_read_is_answered_by_another_server_without_a_leader);
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(silent, begin_with_one, end);
    tcase_add_test(silent, buckets_without_a_leader_do_not_keep_others_from_being_looked_up);
    suite_add_tcase(suite, silent);
    return suite;
}
