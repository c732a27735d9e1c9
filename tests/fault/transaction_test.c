/* Transactions are atomic and serialisable, even if the server's own checks are not enough. */
#include "tests/fault/suites.h"
#include "tests/fault/write_case.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct deployment deployment;

static void begin(void)
{
    deployment_begin(&deployment, 1, NULL);
    deployment_make_bucket(&deployment, "b", NULL);
}

static void begin_at_once(void)
{
    deployment_begin(&deployment, 1, DEPLOYMENT_ATTEMPTS(10));
    deployment_make_bucket(&deployment, "b", NULL);
}

static void end(void)
{
    deployment_end(&deployment);
}

/* --- Writers at once ------------------------------------------------------------------------------- */

#define WRITERS 4u
#define ROUNDS  25u

START_TEST(transactions_that_write_one_key_at_once_all_commit)
{
    uint32_t msgids[WRITERS * ROUNDS];
    struct stream_log log;

    for (unsigned i = 0; i < WRITERS * ROUNDS; i++)
        msgids[i] = client_send(deployment.client, "txn.commit",
                                "['b', [], [['put', 'shared', '%u'], ['put', 'own.%u', 'x']]]", i, i);
    for (unsigned i = 0; i < WRITERS * ROUNDS; i++)
        assert_ok(client_peek(deployment.client, msgids[i]));
    log = stream_log_read(deployment.nats, "b");
    for (unsigned i = 0; i < WRITERS * ROUNDS; i++) {
        uint64_t own;
        ck_assert_uint_eq(stream_log_count(&log, format_text("own.%u", i), "put", "x", &own), 1);
        ck_assert_uint_eq(own, number_at(&client_wait(deployment.client, msgids[i])->result, "1"));
    }
}
END_TEST

/* Increment a counter by reading it and committing on what was read; retry after a conflict. */
static void *count_up(void *arg)
{
    struct client *client = client_open(&deployment.daemon);
    unsigned long long *commits = arg;

    for (unsigned i = 0; i < ROUNDS;) {
        const struct answer *read = client_call(client, "kv.get", "['b', 'counter', {'consistency': 'leader'}]");
        assert_ok(read);
        const struct answer *answer = client_call(
            client, "txn.commit", "['b', [['counter', %llu]], [['put', 'counter', '%lu'], ['put', 'log', 'x']]]",
            (unsigned long long)number_at(&read->result, "revision"),
            strtoul(text_at(&read->result, "value"), NULL, 10) + 1);
        if (strcmp(answer_code(answer), "ok") == 0) {
            i++;
            ++*commits;
        } else {
            assert_code(answer, "conflict");
            ck_assert_str_eq(text_at(&answer->error, "key"), "counter");
            ck_assert_uint_gt(number_at(&answer->error, "revision"), number_at(&read->result, "revision"));
        }
        client_forget(client);
    }
    client_close(client);
    return NULL;
}

START_TEST(a_counter_loses_no_increment_of_many_transactions)
{
    pthread_t threads[WRITERS];
    unsigned long long commits[WRITERS] = {0};

    assert_ok(client_call(deployment.client, "kv.put", "['b', 'counter', '0']"));
    for (unsigned i = 0; i < WRITERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, count_up, &commits[i]), 0);
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    const struct answer *read = client_call(deployment.client, "kv.get", "['b', 'counter']");
    ck_assert_str_eq(text_at(&read->result, "value"), format_text("%u", WRITERS * ROUNDS));
}
END_TEST

/* --- More checks than messages --------------------------------------------------------------------- */

/* A write of another program precedes each of the first attempts to commit; then one succeeds. */
static void disturb(unsigned writes)
{
    struct proxy_fault hold = {.kind = PROXY_HOLD_BEFORE_PUBLISH, .subject = "$KV.b.out"};

    while (writes-- > 0) {
        wait_until(proxy_strikes(deployment.proxy) == 1, "a try to commit");
        nats_put(deployment.nats, "b", "unrelated", "x");
        hold.kind = writes > 0 ? PROXY_HOLD_BEFORE_PUBLISH : PROXY_NO_FAULT;
        hold.skip = 1; /* the delayed one */
        proxy_arm(deployment.proxy, hold);
        proxy_release(deployment.proxy);
    }
}

START_TEST(many_checks_commit_while_others_write_elsewhere)
{
    unsigned long long revisions[5];

    for (unsigned i = 0; i < 5; i++)
        revisions[i] = revision_of(client_call(deployment.client, "kv.put", "['b', 'k%u', 'x']", i));
    for (unsigned i = 0; i < 6; i++) {
        proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_HOLD_BEFORE_PUBLISH, .subject = "$KV.b.out"});
        uint32_t msgid =
            client_send(deployment.client, "txn.commit",
                        "['b', [['k0', %llu], ['k1', %llu], ['k2', %llu], ['k3', %llu], ['k4', %llu]], [['put', "
                        "'out', '%u']]]",
                        revisions[0], revisions[1], revisions[2], revisions[3], revisions[4], i);
        disturb(1 + i % 3);
        assert_ok(client_wait(deployment.client, msgid));
    }
    /* A real conflict is reported as a conflict. */
    unsigned long long newer = revision_of(client_call(deployment.client, "kv.put", "['b', 'k3', 'y']"));
    const struct answer *answer =
        client_call(deployment.client, "txn.commit",
                    "['b', [['k0', %llu], ['k1', %llu], ['k2', %llu], ['k3', %llu]], [['put', 'out', 'never']]]",
                    revisions[0], revisions[1], revisions[2], revisions[3]);
    assert_code(answer, "conflict");
    ck_assert_str_eq(text_at(&answer->error, "key"), "k3");
    ck_assert_uint_eq(number_at(&answer->error, "revision"), newer);
    struct stream_log log = stream_log_read(deployment.nats, "b");
    uint64_t revision;
    for (unsigned i = 0; i < 6; i++)
        ck_assert_uint_eq(stream_log_count(&log, "out", "put", format_text("%u", i), &revision), 1);
    ck_assert_uint_eq(stream_log_count(&log, "out", "put", "never", &revision), 0);
}
END_TEST

START_TEST(checks_for_a_missing_key_treat_markers_as_missing)
{
    assert_ok(client_call(deployment.client, "kv.put", "['b', 'gone', 'x']"));
    assert_ok(client_call(deployment.client, "kv.delete", "['b', 'gone']"));
    assert_ok(client_call(deployment.client, "kv.put", "['b', 'purged', 'x']"));
    assert_ok(client_call(deployment.client, "kv.purge", "['b', 'purged']"));
    /* With messages of its own, with another's message, and on the stream's sequence. */
    assert_ok(client_call(deployment.client, "txn.commit",
                          "['b', [['purged', 0]], [['put', 'a', '1'], ['create', 'gone', '1']]]"));
    assert_ok(client_call(deployment.client, "txn.commit",
                          "['b', [['purged', 0], ['never', 0], ['nor', 0]], [['put', 'a', '2']]]"));
    const struct answer *answer =
        client_call(deployment.client, "txn.commit", "['b', [], [['put', 'a', '3'], ['create', 'gone', '3']]]");
    assert_code(answer, "already_exists");
    ck_assert_str_eq(text_at(&answer->error, "key"), "gone");
    const struct answer *read = client_call(deployment.client, "kv.get", "['b', 'a']");
    ck_assert_str_eq(text_at(&read->result, "value"), "2");
}
END_TEST

START_TEST(a_value_that_the_server_refuses_fails_its_transaction_at_once)
{
    json_t *config = json_object_get(nats_api(deployment.nats, "STREAM.INFO", "KV_b", "{}"), "config");

    /* The daemon does not know of the limit. */
    assert_ok(client_call(deployment.client, "kv.put", "['b', 'k', 'x']"));
    json_object_set_new(config, "max_msg_size", json_integer(400));
    nats_api(deployment.nats, "STREAM.UPDATE", "KV_b", "%s", (char *)keep(json_dumps(config, 0)));
    for (unsigned at = 0; at < 3; at++) {
        int size[3] = {1, 1, 1};
        size[at] = 500;
        const struct answer *answer =
            client_call(deployment.client, "txn.commit",
                        "['b', [], [['put', 'a', '%0*u'], ['put', 'b', '%0*u'], ['put', 'c', '%0*u']]]", size[0], 0u,
                        size[1], 0u, size[2], 0u);
        assert_code(answer, "too_large");
        ck_assert_str_ne(answer_outcome(answer), "unknown");
    }
    ck_assert_uint_eq(stream_log_read(deployment.nats, "b").count, 1);
}
END_TEST

/* --- Buckets without batches ----------------------------------------------------------------------- */

/* As an old program has created it. */
static void make_old_bucket(const char *name)
{
    json_t *answer =
        nats_api(deployment.nats, "STREAM.CREATE", format_text("KV_%s", name),
                 "{'name': 'KV_%s', 'subjects': ['$KV.%s.>'], 'max_msgs_per_subject': 64, 'discard': 'new', "
                 "'allow_rollup_hdrs': true, 'deny_delete': true, 'allow_direct': true, 'num_replicas': 1}",
                 name, name);

    ck_assert_ptr_null(json_object_get(answer, "error"));
}

START_TEST(a_bucket_without_batches_refuses_transactions_until_it_is_updated)
{
    make_old_bucket("old");
    assert_ok(client_call(deployment.client, "kv.put", "['old', 'k', 'x']"));
    const struct answer *answer =
        client_call(deployment.client, "txn.commit", "['old', [], [['put', 'a', '1'], ['put', 'b', '1']]]");
    assert_code(answer, "unsupported");
    ck_assert_msg(strstr(text_at(&answer->error, "message"), "bucket.update") != NULL, "%s", answer_text(answer));
    ck_assert_uint_eq(stream_log_read(deployment.nats, "old").count, 1);
    assert_ok(client_call(deployment.client, "bucket.update", "['old', {}]"));
    assert_ok(client_call(deployment.client, "txn.commit", "['old', [], [['put', 'a', '1'], ['put', 'b', '1']]]"));
    ck_assert_uint_eq(stream_log_read(deployment.nats, "old").count, 3);
}
END_TEST

START_TEST(a_bucket_whose_batches_others_switch_off_refuses_transactions)
{
    json_t *config = json_object_get(nats_api(deployment.nats, "STREAM.INFO", "KV_b", "{}"), "config");

    assert_ok(client_call(deployment.client, "kv.put", "['b', 'k', 'x']"));
    json_object_set_new(config, "allow_atomic", json_false());
    nats_api(deployment.nats, "STREAM.UPDATE", "KV_b", "%s", (char *)keep(json_dumps(config, 0)));
    const struct answer *answer =
        client_call(deployment.client, "txn.commit", "['b', [['k', 1]], [['put', 'a', '1'], ['put', 'b', '1']]]");
    assert_code(answer, "unsupported");
    ck_assert_str_ne(answer_outcome(answer), "unknown");
    ck_assert_uint_eq(stream_log_read(deployment.nats, "b").count, 1);
}
END_TEST

START_TEST(a_mirror_refuses_transactions)
{
    assert_ok(client_call(deployment.client, "bucket.create", "['reflection', {'mirror': 'b'}]"));
    const struct answer *answer =
        client_call(deployment.client, "txn.commit", "['reflection', [], [['put', 'a', '1'], ['put', 'b', '1']]]");
    assert_code(answer, "unsupported");
    ck_assert_uint_eq(stream_log_read(deployment.nats, "b").count, 0);
}
END_TEST

START_TEST(without_batches_no_write_is_stored_twice)
{
    make_old_bucket("old");
    for (unsigned overwrites = 0; overwrites < 2; overwrites++) {
        for (enum write_case_kind kind = 0; kind <= WRITE_CASE_BULK_PUT; kind++) {
            struct write_case write_case;

            write_case_prepare(&write_case, &deployment, "old", kind);
            write_case_send_and_lose_acks(&write_case);
            if (overwrites > 0)
                write_case_interfere(&write_case);
            proxy_release(deployment.proxy);
            write_case_wait(&write_case);
            write_case_expect_once(&write_case);
        }
    }
}
END_TEST

/* The daemon asks for the outcome of the write, and gets no answer until the call's deadline has ended the call. */
START_TEST(a_question_about_an_outcome_does_not_use_memory_of_its_ended_call)
{
    make_old_bucket("old");
    assert_ok(client_call(deployment.client, "kv.put", "['old', 'k', 'v']"));
    for (unsigned round = 0; round < 3; round++) {
        proxy_arm(deployment.proxy,
                  (struct proxy_fault){.kind = PROXY_DROP_PUBLISH, .subject = "$KV.old.k", .then_hold = true});
        uint32_t msgid = client_send(deployment.client, "kv.update", "['old', 'k', 'w', 1, {'timeout': 3}]");
        wait_until(proxy_strikes(deployment.proxy) == 1, "the lost write");
        proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_DROP_PUBLISH,
                                                         .subject = "$JS.API.STREAM.MSG.GET.KV_old",
                                                         .count = 1000});
        proxy_release(deployment.proxy);
        const struct answer *answer = client_wait(deployment.client, msgid);
        assert_code(answer, "deadline_exceeded");
        ck_assert_str_eq(answer_outcome(answer), "unknown");
        ck_assert_uint_gt(proxy_strikes(deployment.proxy), 0);
        proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
        /* The call's memory belongs to another call now. */
        for (unsigned i = 0; i < 20; i++)
            assert_ok(client_call(deployment.client, "kv.get", "['old', 'k', {'consistency': 'leader'}]"));
    }
}
END_TEST

/* --- A server that stops half-way ------------------------------------------------------------------- */

#define LARGE_BYTES 200000

/* Restart the server with a limit that has room for half of ten large values. */
static void limit_store(void)
{
    nats_server_stop(&deployment.servers[0]);
    nats_server_configure_jetstream(&deployment.servers[0], "max_file_store: 1500000");
    nats_server_run(&deployment.servers[0]);
    deployment_reconnect_nats(&deployment);
}

/*
 * The server writes the first of them and then has no room. It does not answer, or answers an error that others get at
 * once.
 */
START_TEST(a_partly_written_transaction_does_not_have_outcome_none)
{
    char *params = NULL;
    size_t size;
    FILE *stream = open_memstream(&params, &size);

    limit_store();
    fprintf(stream, "['b', [], [");
    for (unsigned i = 0; i < 10; i++)
        fprintf(stream, "%s['put', 'half.%u', '%0*d']", i > 0 ? ", " : "", i, LARGE_BYTES, 0);
    fprintf(stream, "], {'timeout': 20}]");
    fclose(stream);
    const struct answer *answer = client_call(deployment.client, "txn.commit", "%s", params);
    free(params);
    struct stream_log log = stream_log_read(deployment.nats, "b");
    unsigned stored = 0;
    for (unsigned i = 0; i < 10; i++) {
        uint64_t revision;
        stored +=
            stream_log_count(&log, format_text("half.%u", i), "put", format_text("%0*d", LARGE_BYTES, 0), &revision);
    }
    ck_assert_msg(stored > 0 && stored < 10, "%u are stored, and the test has tested nothing", stored);
    ck_assert_str_eq(answer_outcome(answer), "unknown");
    ck_assert_str_ne(answer_code(answer), "deadline_exceeded"); /* the daemon has noticed */
}
END_TEST

/* Later transactions are refused and not stored, and their outcome says so. */
START_TEST(a_write_that_a_full_server_refuses_is_not_in_doubt)
{
    limit_store();
    const struct answer *answer;
    unsigned count = 0;
    do
        answer =
            client_call(deployment.client, "kv.put", "['b', 'k.%u', '%0*d', {'timeout': 20}]", count, LARGE_BYTES, 0);
    while (strcmp(answer_code(answer), "ok") == 0 && ++count < 20);
    assert_code(answer, "resource_exhausted");
    ck_assert_str_eq(answer_outcome(answer), "none");
    answer = client_call(deployment.client, "txn.commit",
                         "['b', [], [['put', 'a', 'x'], ['put', 'c', 'x']], {'timeout': 20}]");
    assert_code(answer, "resource_exhausted");
    ck_assert_str_eq(answer_outcome(answer), "none");
}
END_TEST

Suite *transaction_suite(void)
{
    Suite *suite = suite_create("transactions");
    TCase *at_once = tcase_create("at once"), *tests = tcase_create("one server");

    tcase_add_checked_fixture(at_once, begin_at_once, end);
    tcase_add_test(at_once, transactions_that_write_one_key_at_once_all_commit);
    tcase_add_test(at_once, a_counter_loses_no_increment_of_many_transactions);
    suite_add_tcase(suite, at_once);

    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, a_partly_written_transaction_does_not_have_outcome_none);
    tcase_add_test(tests, a_write_that_a_full_server_refuses_is_not_in_doubt);
    tcase_add_test(tests, many_checks_commit_while_others_write_elsewhere);
    tcase_add_test(tests, checks_for_a_missing_key_treat_markers_as_missing);
    tcase_add_test(tests, a_value_that_the_server_refuses_fails_its_transaction_at_once);
    tcase_add_test(tests, a_bucket_without_batches_refuses_transactions_until_it_is_updated);
    tcase_add_test(tests, a_bucket_whose_batches_others_switch_off_refuses_transactions);
    tcase_add_test(tests, a_mirror_refuses_transactions);
    tcase_add_test(tests, without_batches_no_write_is_stored_twice);
    tcase_add_test(tests, a_question_about_an_outcome_does_not_use_memory_of_its_ended_call);
    suite_add_tcase(suite, tests);
    return suite;
}
