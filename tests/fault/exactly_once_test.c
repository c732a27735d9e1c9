/* Retries never store a write twice: each kind of write under each fault, on one server and on three. */
#include "tests/fault/suites.h"
#include "tests/fault/write_case.h"

#include <string.h>
#include <unistd.h>

#define CROWD 200u

static struct deployment deployment;
static struct cluster cluster; /* of the tests that do not end its servers */
static const char *bucket = "b";

static void begin_one(void)
{
    deployment_begin(&deployment, 1, DEPLOYMENT_ATTEMPTS(0.1));
    deployment_make_bucket(&deployment, bucket, NULL);
}

static void begin_crowd(void)
{
    deployment_begin(&deployment, 1, DEPLOYMENT_ATTEMPTS(1) "buckets:\n  group_commit: off\n");
    deployment_make_bucket(&deployment, bucket, NULL);
}

static void begin_embedded(void)
{
    deployment_begin_embedded_behind_proxy(&deployment, DEPLOYMENT_ATTEMPTS(10));
    deployment_make_short_bucket(&deployment, "short");
}

static void begin_three(void)
{
    deployment_begin(&deployment, CLUSTER_SERVERS, DEPLOYMENT_ATTEMPTS(0.1));
    deployment_make_bucket(&deployment, bucket, NULL);
}

static void begin_cluster(void)
{
    cluster_start(&cluster);
}

static void end_cluster(void)
{
    cluster_kill(&cluster);
}

static void begin_in_cluster(void)
{
    bucket = format_text("b%d", (int)getpid());
    deployment_begin_in(&deployment, &cluster, DEPLOYMENT_ATTEMPTS(0.1));
    deployment_make_bucket(&deployment, bucket, NULL);
}

static void end(void)
{
    deployment_end(&deployment);
}

/* --- Very many at once ------------------------------------------------------------------------------ */

/* The daemon asks about all of them at once. */
START_TEST(hundreds_of_conditional_writes_whose_acks_are_lost_are_each_stored_once)
{
    static uint32_t msgids[CROWD];

    proxy_arm(deployment.proxy,
              (struct proxy_fault){.kind = PROXY_DROP_ACK, .subject = "$KV.b.crowd.>", .count = CROWD});
    for (unsigned i = 0; i < CROWD; i++)
        msgids[i] = client_send(deployment.client, "kv.create", "['b', 'crowd.%u', 'v']", i);
    for (unsigned i = 0; i < CROWD; i++)
        client_peek(deployment.client, msgids[i]);
    ck_assert_uint_eq(proxy_strikes(deployment.proxy), CROWD);
    struct stream_log log = stream_log_read(deployment.nats, bucket);
    for (unsigned i = 0; i < CROWD; i++) {
        const struct answer *answer = client_wait(deployment.client, msgids[i]);
        uint64_t stored;
        assert_ok(answer);
        ck_assert_uint_eq(stream_log_count(&log, format_text("crowd.%u", i), "put", "v", &stored), 1);
        ck_assert_uint_eq(revision_of(answer), stored);
    }
}
END_TEST

/* --- The fault strikes, and the daemon heals it ---------------------------------------------------- */

/* Make one write of the kind. The fault must have struck: otherwise nothing is tested. */
static void try_fault(enum write_case_kind kind, struct proxy_fault fault)
{
    struct write_case write_case;

    write_case_prepare(&write_case, &deployment, bucket, kind);
    fault.subject = write_case.subject;
    proxy_arm(deployment.proxy, fault);
    write_case_send(&write_case);
    write_case_wait(&write_case);
    ck_assert_msg(proxy_strikes(deployment.proxy) > 0, "%s: the fault has not struck", write_case_name(kind));
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
    write_case_expect_once(&write_case);
}

START_TEST(a_write_whose_ack_is_lost_is_stored_once)
{
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++)
        try_fault(kind, (struct proxy_fault){.kind = PROXY_DROP_ACK, .count = write_case_acks(kind)});
}
END_TEST

START_TEST(a_write_whose_acks_are_lost_again_and_again_is_stored_once)
{
    /* Lose also the answers to the questions about the outcome. */
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++)
        try_fault(kind, (struct proxy_fault){.kind = PROXY_DROP_ACK, .count = 3 * write_case_acks(kind)});
}
END_TEST

START_TEST(a_lost_write_is_stored_once)
{
    /* Each message of a batch in turn. */
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++) {
        for (unsigned skip = 0; skip < write_case_messages(kind); skip++)
            try_fault(kind, (struct proxy_fault){.kind = PROXY_DROP_PUBLISH, .skip = skip});
    }
}
END_TEST

START_TEST(a_write_is_stored_once_if_the_connection_is_cut_before_it)
{
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++) {
        for (unsigned skip = 0; skip < write_case_messages(kind); skip++)
            try_fault(kind, (struct proxy_fault){.kind = PROXY_CUT_BEFORE_PUBLISH, .skip = skip});
    }
}
END_TEST

START_TEST(a_write_is_stored_once_if_the_connection_is_cut_after_it)
{
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++) {
        for (unsigned skip = 0; skip < write_case_messages(kind); skip++)
            try_fault(kind, (struct proxy_fault){.kind = PROXY_CUT_AFTER_PUBLISH, .skip = skip});
    }
}
END_TEST

START_TEST(a_write_is_stored_once_if_the_connection_is_cut_before_the_ack)
{
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++) {
        try_fault(kind, (struct proxy_fault){.kind = PROXY_CUT_BEFORE_ACK});
        try_fault(kind, (struct proxy_fault){.kind = PROXY_CUT_BEFORE_ACK, .count = 3});
        try_fault(kind, (struct proxy_fault){.kind = PROXY_CUT_AFTER_ACK});
    }
}
END_TEST

/* --- Nothing passes for longer than the daemon waits ----------------------------------------------- */

static void try_hold(enum write_case_kind kind, enum proxy_fault_kind where)
{
    struct write_case write_case;

    write_case_prepare(&write_case, &deployment, bucket, kind);
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = where, .subject = write_case.subject});
    uint64_t retries = deployment_retries(&deployment);
    write_case_send(&write_case);
    wait_until(proxy_strikes(deployment.proxy) > 0, "the write");
    wait_until(deployment_retries(&deployment) >= retries + 2, "the second retry");
    proxy_release(deployment.proxy);
    write_case_wait(&write_case);
    write_case_expect_once(&write_case);
}

START_TEST(a_delayed_write_is_stored_once)
{
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++)
        try_hold(kind, PROXY_HOLD_BEFORE_PUBLISH);
}
END_TEST

START_TEST(a_write_with_a_delayed_ack_is_stored_once)
{
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++) {
        try_hold(kind, PROXY_HOLD_AFTER_PUBLISH);
        try_hold(kind, PROXY_HOLD_BEFORE_ACK);
    }
}
END_TEST

/*
 * Lose the ack, and delay the answer to the question about the outcome. Return false if the question was in flight
 * before the ack was lost, and so has passed.
 */
static bool try_late_revision(enum write_case_kind kind)
{
    struct write_case write_case;

    write_case_prepare(&write_case, &deployment, bucket, kind);
    write_case_send_and_lose_acks(&write_case);
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_HOLD_AFTER_PUBLISH, .subject = write_case.subject});
    proxy_release(deployment.proxy);
    wait_until(proxy_strikes(deployment.proxy) == 1 || client_has(deployment.client, write_case.msgid), "the question");
    bool is_late = proxy_strikes(deployment.proxy) == 1;
    uint64_t retries = deployment_retries(&deployment);
    if (is_late)
        wait_until(deployment_retries(&deployment) >= retries + 1, "the second question");
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT}); /* a further copy must not be held */
    proxy_release(deployment.proxy);
    write_case_wait(&write_case);
    write_case_expect_once(&write_case);
    return is_late;
}

START_TEST(the_revision_is_right_after_two_questions_for_it)
{
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++)
        wait_until(try_late_revision(kind), "a question that is late");
}
END_TEST

/* --- Others write meanwhile ------------------------------------------------------------------------ */

START_TEST(a_write_that_is_overwritten_before_its_retry_is_stored_once)
{
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++) {
        struct write_case write_case;

        write_case_prepare(&write_case, &deployment, bucket, kind);
        write_case_send_and_lose_acks(&write_case);
        write_case_interfere(&write_case);
        proxy_release(deployment.proxy);
        write_case_wait(&write_case);
        write_case_expect_once(&write_case);
    }
}
END_TEST

START_TEST(a_lost_write_is_stored_once_or_refused_if_another_write_came_first)
{
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++) {
        struct write_case write_case;

        write_case_prepare(&write_case, &deployment, bucket, kind);
        proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_DROP_PUBLISH,
                                                         .subject = write_case.subject,
                                                         .count = write_case_messages(kind),
                                                         .then_hold = true});
        write_case_send(&write_case);
        wait_until(proxy_strikes(deployment.proxy) == write_case_messages(kind), "the lost write");
        write_case_interfere(&write_case);
        proxy_release(deployment.proxy);
        write_case_wait(&write_case);
        write_case_expect_once_or_refused(&write_case);
    }
}
END_TEST

/* --- The server dies ------------------------------------------------------------------------------- */

static void try_kill(enum write_case_kind kind, struct proxy_fault fault)
{
    struct write_case write_case;

    write_case_prepare(&write_case, &deployment, bucket, kind);
    fault.subject = write_case.subject;
    proxy_arm(deployment.proxy, fault);
    write_case_send(&write_case);
    wait_until(proxy_strikes(deployment.proxy) == (fault.count > 0 ? fault.count : 1), "the write");
    nats_server_kill(&deployment.servers[0]);
    nats_server_run(&deployment.servers[0]);
    proxy_release(deployment.proxy);
    write_case_wait(&write_case);
    deployment_reconnect_nats(&deployment);
    write_case_expect_once(&write_case);
}

START_TEST(a_write_whose_server_dies_before_the_ack_is_stored_once)
{
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++)
        try_kill(kind, (struct proxy_fault){.kind = PROXY_DROP_ACK,
                                            .skip = write_case_skip(kind),
                                            .count = write_case_acks(kind),
                                            .then_hold = true});
}
END_TEST

START_TEST(a_write_whose_server_dies_before_it_is_stored_once)
{
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++)
        try_kill(kind, (struct proxy_fault){.kind = PROXY_HOLD_BEFORE_PUBLISH});
}
END_TEST

/*
 * The ack is lost, others write to the keys, and the server restarts. It has forgotten the id of the overwritten
 * message, so that a copy is a new message to it.
 */
static void try_forgetting(enum write_case_kind kind, void (*end_server)(struct nats_server *server))
{
    struct write_case write_case;

    write_case_prepare(&write_case, &deployment, "short", kind);
    write_case_send_and_lose_acks(&write_case);
    write_case_overwrite(&write_case);
    end_server(&deployment.servers[0]);
    nats_server_run(&deployment.servers[0]);
    proxy_release(deployment.proxy);
    write_case_wait(&write_case);
    deployment_reconnect_nats(&deployment);
    write_case_expect_others_kept(&write_case);
}

START_TEST(a_write_that_the_server_has_forgotten_is_not_stored_again)
{
    deployment_make_short_bucket(&deployment, "short");
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++) {
        try_forgetting(kind, nats_server_kill);
        try_forgetting(kind, nats_server_stop);
    }
}
END_TEST

/* The next leader of a cluster may have restarted before: it lacks ids that the others know. */
START_TEST(a_write_that_the_next_leader_has_forgotten_is_not_stored_again)
{
    struct write_case cases[WRITE_CASE_KINDS];
    unsigned acks = 0;

    deployment_make_short_bucket(&deployment, "short");
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++) {
        write_case_prepare(&cases[kind], &deployment, "short", kind);
        acks += write_case_acks(kind);
    }
    proxy_arm(deployment.proxy,
              (struct proxy_fault){.kind = PROXY_DROP_ACK, .subject = "$KV.short.>", .count = acks, .then_hold = true});
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++)
        write_case_send(&cases[kind]);
    wait_until(proxy_strikes(deployment.proxy) == acks, "the lost acks");
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++)
        write_case_overwrite(&cases[kind]);
    for (unsigned i = 0; i < deployment.server_count; i++) {
        nats_server_stop(&deployment.servers[i]);
        nats_server_run(&deployment.servers[i]);
        deployment_reconnect_nats(&deployment);
        deployment_wait_current(&deployment, "short");
    }
    proxy_release(deployment.proxy);
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++) {
        write_case_wait(&cases[kind]);
        write_case_expect_others_kept(&cases[kind]);
    }
}
END_TEST

static void run(const char *program, const char *option, const char *from, const char *to)
{
    char *arguments[] = {keep(strdup(program)), keep(strdup(option)), keep(strdup(from)), keep(strdup(to)), NULL};
    struct process process = {.log_path = ""};

    snprintf(process.log_path, sizeof(process.log_path), "%.200s/copy.log", deployment.daemon.directory);
    process_start(&process, arguments);
    process_wait(&process);
    ck_assert_int_eq(process.status, 0);
}

static void put_many(const char *key)
{
    for (unsigned i = 0; i < 40; i++)
        nats_put(deployment.nats, "short", key, "many");
}

/* A server with older data: what the daemon knew of its sequences says nothing about those that it assigns now. */
static void try_set_back(enum write_case_kind kind, const char *old)
{
    struct nats_server *server = &deployment.servers[0];
    struct write_case write_case;

    nats_server_stop(server);
    run("cp", "-a", server->directory, old);
    nats_server_run(server);
    deployment_reconnect_nats(&deployment);
    put_many("before");
    assert_ok(client_call(deployment.client, "kv.put", "['short', 'known', 'v']"));
    nats_server_stop(server);
    run("mv", "-n", format_text("%s/jetstream", server->directory), format_text("%s.lost", old));
    run("cp", "-a", format_text("%s/jetstream", old), server->directory);
    nats_server_run(server);
    deployment_reconnect_nats(&deployment);

    write_case_prepare(&write_case, &deployment, "short", kind);
    write_case_send_and_lose_acks(&write_case);
    write_case_overwrite(&write_case);
    put_many("after");
    nats_server_stop(server);
    nats_server_run(server);
    proxy_release(deployment.proxy);
    write_case_wait(&write_case);
    deployment_reconnect_nats(&deployment);
    write_case_expect_others_kept(&write_case);
}

START_TEST(a_write_to_a_server_with_older_data_is_not_stored_again)
{
    deployment_make_short_bucket(&deployment, "short");
    assert_ok(client_call(deployment.client, "kv.put", "['short', 'known', 'v']"));
    try_set_back(WRITE_CASE_PUT, format_text("%s/old.put", deployment.daemon.directory));
    try_set_back(WRITE_CASE_TRANSACTION, format_text("%s/old.transaction", deployment.daemon.directory));
}
END_TEST

#define WINDOW_MS       1000u
#define SHORT_WINDOW_MS 100u

/* The ack is lost, and the server stops for longer than it knows ids: what waits at its socket is new to it. */
static void try_stall(enum write_case_kind kind)
{
    struct write_case write_case;

    write_case_prepare(&write_case, &deployment, bucket, kind);
    write_case_send_and_lose_acks(&write_case);
    nats_server_freeze(&deployment.servers[0]);
    uint64_t begin_ns = now_ns(), retries = deployment_retries(&deployment);
    proxy_release(deployment.proxy);
    /* On a busy machine the question may have been in flight before the ack was lost, and is answered. */
    wait_until(deployment_retries(&deployment) >= retries + 2 || client_has(deployment.client, write_case.msgid),
               "what the daemon sends behind the lost ack");
    wait_until(now_ns() - begin_ns > 2ull * WINDOW_MS * 1000000, "the end of the window");
    nats_server_thaw(&deployment.servers[0]);
    write_case_wait(&write_case);
    write_case_expect_once(&write_case);
}

START_TEST(a_write_is_stored_once_if_its_server_stops_for_longer_than_the_window)
{
    deployment_set_window(&deployment, bucket, WINDOW_MS);
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++)
        try_stall(kind);
}
END_TEST

/* The window is shorter than the daemon knows: the server forgets ids without a restart. */
START_TEST(a_write_whose_window_was_shortened_is_not_stored_again)
{
    deployment_make_short_bucket(&deployment, "short");
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++) {
        struct write_case write_case;

        write_case_prepare(&write_case, &deployment, "short", kind);
        write_case_send_and_lose_acks(&write_case);
        uint64_t begin_ns = now_ns();
        deployment_set_window(&deployment, "short", SHORT_WINDOW_MS);
        write_case_overwrite(&write_case);
        wait_until(now_ns() - begin_ns > 3ull * SHORT_WINDOW_MS * 1000000, "the end of the window");
        proxy_release(deployment.proxy);
        write_case_wait(&write_case);
        write_case_expect_others_kept(&write_case);
    }
}
END_TEST

/* --- The embedded server: what leaves without a trace ----------------------------------------------- */

static uint32_t send_put_and_lose_ack(const char *key, bool then_hold)
{
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_DROP_ACK,
                                                     .subject = format_text("$KV.short.%s", key),
                                                     .then_hold = then_hold});
    uint32_t msgid = client_send(deployment.client, "kv.put", "['short', '%s', 'mine']", key);
    wait_until(proxy_strikes(deployment.proxy) == 1, "the lost ack");
    return msgid;
}

/* The restarted server has neither the messages nor their ids. */
static void expect_not_stored_again(const char *key, uint32_t msgid)
{
    uint64_t begin_ns = now_ns();

    wait_until(now_ns() - begin_ns > 1500000000ull, "the end of its time");
    deployment_kill_embedded(&deployment);
    const struct answer *answer = client_wait(deployment.client, msgid);
    ck_assert_str_eq(answer_outcome(answer), "unknown");
    answer = client_call(deployment.client, "kv.get", "['short', '%s', {'consistency': 'leader'}]", key);
    ck_assert_msg(answer->result.type == MSGPACK_OBJECT_NIL, "%s is stored again: %s", key, answer_text(answer));
}

START_TEST(a_write_that_was_replaced_by_one_that_expired_is_not_stored_again)
{
    uint32_t msgid = send_put_and_lose_ack("a", false);

    proxy_arm(deployment.proxy,
              (struct proxy_fault){.kind = PROXY_DROP_ACK, .subject = "$KV.short.a", .then_hold = true});
    client_send(deployment.client, "kv.purge", "['short', 'a', {'ttl': 1}]");
    wait_until(proxy_strikes(deployment.proxy) == 1, "the lost ack of the purge");
    expect_not_stored_again("a", msgid);
}
END_TEST

START_TEST(a_write_that_expired_by_new_settings_is_not_stored_again)
{
    uint32_t msgid = send_put_and_lose_ack("a", false);

    assert_ok(client_call(deployment.client, "bucket.update", "['short', {'ttl': 1, 'force': true}]"));
    proxy_hold(deployment.proxy);
    expect_not_stored_again("a", msgid);
}
END_TEST

/*
 * An election takes up to ten seconds: writes of all kinds wait for it. The acks of some are lost, others are delayed.
 */
START_TEST(writes_whose_leader_dies_are_stored_once)
{
    struct write_case stored[WRITE_CASE_KINDS], late[WRITE_CASE_KINDS];
    unsigned acks = 0;

    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++) {
        write_case_prepare(&stored[kind], &deployment, bucket, kind);
        write_case_prepare(&late[kind], &deployment, bucket, kind);
        acks += write_case_acks(kind);
    }
    deployment_wait_current(&deployment, bucket);
    struct nats_server *leader = deployment_leader(&deployment, bucket);
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_DROP_ACK,
                                                     .subject = format_text("$KV.%s.>", bucket),
                                                     .count = acks,
                                                     .then_hold = true});
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++)
        write_case_send(&stored[kind]);
    wait_until(proxy_strikes(deployment.proxy) == acks, "the lost acks");
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++)
        write_case_send(&late[kind]);
    deployment_retries(&deployment); /* the daemon has sent them, too, before it answers */
    nats_server_kill(leader);
    proxy_release(deployment.proxy);
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++) {
        write_case_wait(&stored[kind]);
        write_case_wait(&late[kind]);
    }
    nats_server_run(leader);
    deployment_reconnect_nats(&deployment);
    for (enum write_case_kind kind = 0; kind < WRITE_CASE_KINDS; kind++) {
        write_case_expect_once(&stored[kind]);
        write_case_expect_once(&late[kind]);
    }
}
END_TEST

Suite *exactly_once_suite(void)
{
    const TTest *const tests[] = {
        a_write_whose_ack_is_lost_is_stored_once,
        a_write_whose_acks_are_lost_again_and_again_is_stored_once,
        a_lost_write_is_stored_once,
        a_write_is_stored_once_if_the_connection_is_cut_before_it,
        a_write_is_stored_once_if_the_connection_is_cut_after_it,
        a_write_is_stored_once_if_the_connection_is_cut_before_the_ack,
        a_delayed_write_is_stored_once,
        a_write_with_a_delayed_ack_is_stored_once,
        the_revision_is_right_after_two_questions_for_it,
        a_write_that_is_overwritten_before_its_retry_is_stored_once,
        a_lost_write_is_stored_once_or_refused_if_another_write_came_first,
    };
    Suite *suite = suite_create("exactly once");
    TCase *one = tcase_create("one server"), *crowd = tcase_create("a crowd");
    TCase *three = tcase_create("three servers"), *in_cluster = tcase_create("a cluster");
    TCase *embedded = tcase_create("the embedded server");

    tcase_add_checked_fixture(one, begin_one, end);
    tcase_add_checked_fixture(three, begin_three, end);
    tcase_add_unchecked_fixture(in_cluster, begin_cluster, end_cluster);
    tcase_add_checked_fixture(in_cluster, begin_in_cluster, end);
    tcase_add_checked_fixture(crowd, begin_crowd, end);
    tcase_add_test(crowd, hundreds_of_conditional_writes_whose_acks_are_lost_are_each_stored_once);
    suite_add_tcase(suite, crowd);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        tcase_add_test(one, tests[i]);
        tcase_add_test(in_cluster, tests[i]);
    }
    tcase_add_test(one, a_write_whose_server_dies_before_the_ack_is_stored_once);
    tcase_add_test(one, a_write_whose_server_dies_before_it_is_stored_once);
    tcase_add_test(one, a_write_that_the_server_has_forgotten_is_not_stored_again);
    tcase_add_test(one, a_write_is_stored_once_if_its_server_stops_for_longer_than_the_window);
    tcase_add_test(one, a_write_to_a_server_with_older_data_is_not_stored_again);
    tcase_add_test(one, a_write_whose_window_was_shortened_is_not_stored_again);
    tcase_add_test(three, a_write_that_the_next_leader_has_forgotten_is_not_stored_again);
    tcase_add_test(three, writes_whose_leader_dies_are_stored_once);
    suite_add_tcase(suite, one);
    suite_add_tcase(suite, in_cluster);
    suite_add_tcase(suite, three);
    tcase_add_checked_fixture(embedded, begin_embedded, end);
    tcase_add_test(embedded, a_write_that_was_replaced_by_one_that_expired_is_not_stored_again);
    tcase_add_test(embedded, a_write_that_expired_by_new_settings_is_not_stored_again);
    suite_add_tcase(suite, embedded);
    return suite;
}
