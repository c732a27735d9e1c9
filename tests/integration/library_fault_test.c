/* libkvstore with a daemon that the test plays: ends of sessions and moments that a real daemon seldom has. */
#include "client/lib/kvstore_lock.h"
#include "tests/integration/suites.h"
#include "tests/support/fake_daemon.h"
#include "tests/support/library.h"

#include <pthread.h>
#include <string.h>

static const struct kvs_options reconnecting = KVS_OPTIONS(.reconnect = true);

struct outcome {
    unsigned ok, failed;
    struct kvs_error error; /* the last */
};

static void count_answer(struct outcome *outcome, const struct kvs_error *error)
{
    if (error == NULL) {
        outcome->ok++;
    } else {
        outcome->failed++;
        outcome->error = *error;
    }
}

static void on_revision(struct kvs *kvs, const struct kvs_error *error, uint64_t revision, void *context)
{
    (void)kvs;
    (void)revision;
    count_answer(context, error);
}

static void on_increment(struct kvs *kvs, const struct kvs_error *error, int64_t value, uint64_t revision,
                         void *context)
{
    (void)value;
    on_revision(kvs, error, revision, context);
}

/* --- The end of a session -------------------------------------------------------------------------- */

static bool is_marked_as_repeated(struct fake_request request)
{
    ck_assert_ptr_nonnull(strstr(request.params, "\"first_sent\"=>"));
    return strstr(request.params, "\"first_sent\"=>0") == NULL;
}

/* A daemon that ends a session for another reason than its own end may have begun the calls. */
START_TEST(only_a_dismissed_call_is_sent_again_as_if_it_were_new)
{
    static const struct {
        const char *code;
        bool has_answered, is_dismissal;
    } ends[] = {{"unavailable", true, true},
                {"resource_exhausted", false, true}, /* a session too many */
                {"resource_exhausted", true, false}, /* memory of incomplete messages */
                {"deadline_exceeded", true, false},
                {"deadline_exceeded", false, false}};
    struct fake_daemon *fake = fake_daemon_start();
    struct kvs *kvs = fake_daemon_connect(fake, &reconnecting);
    struct outcome outcome = {0};

    assert_done(kvs_async_increment(kvs, "b", "n", 1, NULL, on_increment, &outcome));
    if (ends[_i].has_answered) {
        assert_done(kvs_async_delete(kvs, "b", "k", NULL, on_revision, &outcome));
        fake_daemon_expect(fake, kvs, "kv.increment");
        fake_daemon_send(fake, "[1, %u, null, 7]", fake_daemon_expect(fake, kvs, "kv.delete").msgid);
        library_run_until(kvs, &outcome.ok, 1);
    } else {
        ck_assert(!is_marked_as_repeated(fake_daemon_expect(fake, kvs, "kv.increment")));
    }
    fake_daemon_send(fake, "[1, null, {'code': '%s', 'retryable': true, 'outcome': 'none', 'message': 'over'}, null]",
                     ends[_i].code);
    fake_daemon_hang_up(fake);
    struct fake_request again = fake_daemon_expect(fake, kvs, "kv.increment");
    ck_assert_int_eq(is_marked_as_repeated(again), !ends[_i].is_dismissal);
    fake_daemon_send(fake, "[1, %u, null, [1, 8]]", again.msgid);
    library_run_until(kvs, &outcome.ok, ends[_i].has_answered ? 2 : 1);
    kvs_close(kvs);
}
END_TEST

START_TEST(a_session_that_ends_for_a_wrong_message_leaves_unknown_outcomes)
{
    struct fake_daemon *fake = fake_daemon_start();
    struct kvs *kvs = fake_daemon_connect(fake, NULL);
    struct outcome outcome = {0};

    assert_done(kvs_async_increment(kvs, "b", "n", 1, NULL, on_increment, &outcome));
    fake_daemon_expect(fake, kvs, "kv.increment");
    fake_daemon_send(fake, "[1, null, {'code': 'invalid_argument', 'outcome': 'none', 'message': 'wrong'}, null]");
    library_run_until(kvs, &outcome.failed, 1);
    ck_assert_int_eq(outcome.error.outcome, KVS_OUTCOME_UNKNOWN);
    kvs_close(kvs);
}
END_TEST

struct owned {
    unsigned acquired, ended;
};

static void on_lock(struct kvs *kvs, struct kvs_lock *lock, const struct kvs_error *error, void *context)
{
    struct owned *owned = context;

    (void)kvs;
    (void)lock;
    if (error == NULL)
        owned->acquired++;
    else
        owned->ended++;
}

/* The daemon has vouched for the lock too long ago, and the session ends before it vouches again. */
START_TEST(a_lock_that_is_confirmed_when_the_session_ends_is_not_acquired)
{
    struct fake_daemon *fake = fake_daemon_start();
    struct kvs *kvs = fake_daemon_connect(fake, NULL);
    struct owned owned = {0};

    assert_done(kvs_async_lock_acquire(kvs, "b", "leader", NULL, on_lock, &owned, NULL));
    struct fake_request acquire = fake_daemon_expect(fake, kvs, "lock.acquire");
    for (uint64_t start_ms = now_ms(); now_ms() < start_ms + 2;)
        pause_shortly();
    fake_daemon_send(fake, "[1, %u, null, {'token': 1, 'valid_for': 0.001}]", acquire.msgid);
    fake_daemon_expect(fake, kvs, "lock.check");
    fake_daemon_hang_up(fake);
    library_run_until(kvs, &owned.ended, 1);
    ck_assert_uint_eq(owned.acquired, 0);
    ck_assert_int_eq(kvs_timeout_ms(kvs), -1);
    kvs_close(kvs);
}
END_TEST

/* --- No connection --------------------------------------------------------------------------------- */

static void await_loss(struct kvs *kvs)
{
    for (uint64_t end_ms = now_ms() + PATIENCE_MS; kvs_process(kvs) == KVS_OK;)
        ck_assert_uint_lt(now_ms(), end_ms);
}

START_TEST(calls_end_in_time_while_a_blocking_one_waits_for_a_connection)
{
    struct fake_daemon *fake = fake_daemon_start();
    struct kvs *kvs = fake_daemon_connect(fake, &reconnecting);
    struct kvs_put_options brief = KVS_PUT_OPTIONS(.timeout_s = 0.2), longer = KVS_PUT_OPTIONS(.timeout_s = 1);
    struct outcome outcome = {0};

    assert_done(kvs_async_put(kvs, "b", "k", "v", 1, &brief, on_revision, &outcome));
    fake_daemon_end(fake);
    await_loss(kvs);
    ck_assert_int_eq(kvs_put(kvs, "b", "k", "v", 1, &longer, NULL), KVS_IO);
    ck_assert_uint_eq(outcome.failed, 1);
    kvs_close(kvs);
}
END_TEST

START_TEST(a_call_is_not_sent_after_its_timeout)
{
    struct fake_daemon *fake = fake_daemon_start();
    struct kvs *kvs = fake_daemon_connect(fake, &reconnecting);
    struct kvs_put_options brief = KVS_PUT_OPTIONS(.timeout_s = 0.05);
    struct outcome outcome = {0};

    assert_done(kvs_async_put(kvs, "b", "k", "v", 1, &brief, on_revision, &outcome));
    fake_daemon_end(fake);
    await_loss(kvs);
    fake_daemon_listen(fake);
    for (uint64_t over_ms = now_ms() + 60; now_ms() < over_ms;)
        pause_shortly(); /* the program does something else */
    /* The call's own turn, and one that a further call begins: neither sends the first one. */
    if (_i == 0)
        library_run_until(kvs, &outcome.failed, 1);
    while (kvs_async_delete(kvs, "b", "k", NULL, NULL, NULL) != KVS_OK)
        kvs_process(kvs);
    fake_daemon_expect(fake, kvs, "kv.delete");
    ck_assert_uint_eq(outcome.failed, 1);
    kvs_close(kvs);
}
END_TEST

/* --- Ephemeral keys -------------------------------------------------------------------------------- */

static const struct kvs_put_options ephemeral = KVS_PUT_OPTIONS(.ephemeral = true);

static void on_key_lost(struct kvs *kvs, const struct kvs_error *error, void *context)
{
    (void)kvs;
    count_answer(context, error);
}

/* Connect, and write the ephemeral key k, whose revision is 1. */
static struct kvs *connect_with_key(struct fake_daemon *fake, bool reconnect, struct outcome *losses)
{
    struct kvs_options options = KVS_OPTIONS(.reconnect = reconnect, .max_in_flight = 3,
                                             .on_ephemeral_lost = on_key_lost, .ephemeral_context = losses);
    struct kvs *kvs = fake_daemon_connect(fake, &options);
    struct outcome outcome = {0};

    assert_done(kvs_async_put(kvs, "b", "k", "v", 1, &ephemeral, on_revision, &outcome));
    fake_daemon_send(fake, "[1, %u, null, 1]", fake_daemon_expect(fake, kvs, "kv.put").msgid);
    library_run_until(kvs, &outcome.ok, 1);
    return kvs;
}

static void send_loss(struct fake_daemon *fake, unsigned revision, const char *code)
{
    fake_daemon_send(fake, "[2, 'lock.lost', ['b', 'k', %u, {'code': '%s', 'message': 'gone'}]]", revision, code);
}

/* The next request must be this one, which the program makes now. */
static void expect_no_other_request(struct fake_daemon *fake, struct kvs *kvs)
{
    struct outcome outcome = {0};

    /* One turn for what has arrived, and one for what follows from it. */
    for (unsigned i = 0; i < 2; i++)
        kvs_process(kvs);
    assert_done(kvs_async_get(kvs, "b", "k", NULL, NULL, NULL));
    assert_done(kvs_async_delete(kvs, "b", "other", NULL, on_revision, &outcome));
    fake_daemon_send(fake, "[1, %u, null, null]", fake_daemon_expect(fake, kvs, "kv.get").msgid);
    fake_daemon_send(fake, "[1, %u, null, 9]", fake_daemon_expect(fake, kvs, "kv.delete").msgid);
    library_run_until(kvs, &outcome.ok, 1);
}

/* _i: with and without reconnect; the notification comes before and after the answer. */
START_TEST(an_ephemeral_key_that_the_program_deletes_is_not_lost)
{
    struct fake_daemon *fake = fake_daemon_start();
    struct outcome losses = {0}, outcome = {0};
    struct kvs *kvs = connect_with_key(fake, (_i & 1) != 0, &losses);

    assert_done(kvs_async_delete(kvs, "b", "k", NULL, on_revision, &outcome));
    uint32_t msgid = fake_daemon_expect(fake, kvs, "kv.delete").msgid;
    if ((_i & 2) != 0) {
        fake_daemon_send(fake, "[1, %u, null, 2]", msgid);
        library_run_until(kvs, &outcome.ok, 1);
    }
    send_loss(fake, 1, "conflict");
    expect_no_other_request(fake, kvs);
    if ((_i & 2) == 0) {
        fake_daemon_send(fake, "[1, %u, null, 2]", msgid);
        library_run_until(kvs, &outcome.ok, 1);
    }
    expect_no_other_request(fake, kvs);
    ck_assert_uint_eq(losses.failed, 0);
    kvs_close(kvs);
}
END_TEST

/* _i: with and without reconnect; the answer to the put comes before and after that to the delete. */
START_TEST(an_ephemeral_key_that_is_deleted_after_a_refresh_stays_deleted)
{
    struct fake_daemon *fake = fake_daemon_start();
    struct outcome losses = {0}, outcome = {0};
    struct kvs *kvs = connect_with_key(fake, (_i & 1) != 0, &losses);

    assert_done(kvs_async_put(kvs, "b", "k", "w", 1, &ephemeral, on_revision, &outcome));
    assert_done(kvs_async_delete(kvs, "b", "k", NULL, on_revision, &outcome));
    uint32_t put = fake_daemon_expect(fake, kvs, "kv.put").msgid;
    uint32_t delete = fake_daemon_expect(fake, kvs, "kv.delete").msgid;
    if ((_i & 2) != 0)
        fake_daemon_send(fake, "[1, %u, null, 3]", delete);
    fake_daemon_send(fake, "[1, %u, null, 2]", put);
    send_loss(fake, 2, "conflict");
    if ((_i & 2) == 0)
        fake_daemon_send(fake, "[1, %u, null, 3]", delete);
    library_run_until(kvs, &outcome.ok, 2);
    expect_no_other_request(fake, kvs);
    ck_assert_uint_eq(losses.failed, 0);
    kvs_close(kvs);
}
END_TEST

/* _i: a delete and a put that the daemon refuses, and a delete that the handle refuses. */
START_TEST(an_ephemeral_key_that_could_not_be_deleted_is_written_again)
{
    struct fake_daemon *fake = fake_daemon_start();
    struct outcome losses = {0}, outcome = {0};
    struct kvs *kvs = connect_with_key(fake, true, &losses);

    if (_i < 2) {
        assert_done(_i == 0 ? kvs_async_delete(kvs, "b", "k", NULL, on_revision, &outcome)
                            : kvs_async_put(kvs, "b", "k", "w", 1, NULL, on_revision, &outcome));
        struct fake_request request = fake_daemon_receive(fake, kvs);
        fake_daemon_send(fake, "[1, %u, {'code': 'permission_denied', 'outcome': 'none', 'message': 'no'}, null]",
                         request.msgid);
        library_run_until(kvs, &outcome.failed, 1);
    } else {
        for (unsigned i = 0; i < 3; i++)
            assert_done(kvs_async_get(kvs, "b", "k", NULL, NULL, NULL));
        ck_assert_int_eq(kvs_async_delete(kvs, "b", "k", NULL, on_revision, &outcome), KVS_RESOURCE_EXHAUSTED);
        for (unsigned i = 0; i < 3; i++)
            fake_daemon_send(fake, "[1, %u, null, null]", fake_daemon_expect(fake, kvs, "kv.get").msgid);
        expect_no_other_request(fake, kvs);
    }
    fake_daemon_hang_up(fake);
    fake_daemon_expect(fake, kvs, "kv.create");
    ck_assert_uint_eq(losses.failed, 0);
    kvs_close(kvs);
}
END_TEST

/* _i: without and with reconnect. */
START_TEST(an_ephemeral_key_that_is_lost_during_a_delete_that_fails_is_lost)
{
    struct fake_daemon *fake = fake_daemon_start();
    struct outcome losses = {0}, outcome = {0};
    struct kvs *kvs = connect_with_key(fake, _i == 1, &losses);

    assert_done(kvs_async_delete(kvs, "b", "k", NULL, on_revision, &outcome));
    uint32_t msgid = fake_daemon_expect(fake, kvs, "kv.delete").msgid;
    send_loss(fake, 1, "conflict");
    expect_no_other_request(fake, kvs);
    ck_assert_uint_eq(losses.failed, 0);
    fake_daemon_send(fake, "[1, %u, {'code': 'unavailable', 'outcome': 'none', 'message': 'no'}, null]", msgid);
    library_run_until(kvs, &outcome.failed, 1);
    if (_i == 1) {
        fake_daemon_expect(fake, kvs, "kv.create");
        ck_assert_uint_eq(losses.failed, 0);
    } else {
        ck_assert_uint_eq(losses.failed, 1);
        ck_assert_str_eq(losses.error.key, "k");
    }
    kvs_close(kvs);
}
END_TEST

/* --- Watches --------------------------------------------------------------------------------------- */

static void accept_watch(struct fake_daemon *fake, struct kvs *kvs)
{
    fake_daemon_send(fake, "[1, %u, null, {'last_revision': 7}]", fake_daemon_expect(fake, kvs, "bucket.info").msgid);
    fake_daemon_pack(fake, "[1, %u, null, 1]", fake_daemon_expect(fake, kvs, "watch.start").msgid);
}

static void on_event(struct kvs *kvs, struct kvs_watch *watch, const struct kvs_event *event, void *context)
{
    (void)kvs;
    (void)watch;
    if (event->type == KVS_EVENT_ENDED)
        count_answer(context, event->error);
}

/* _i: whether there is one. */
START_TEST(a_watch_ends_with_a_revision_only_if_a_new_one_can_begin_there)
{
    static const struct {
        const char *code;
        bool has_revision;
    } ends[] = {{"unavailable", true}, {"revision_gone", false}, {"bucket_not_found", false}};
    struct fake_daemon *fake = fake_daemon_start();
    struct kvs *kvs = fake_daemon_connect(fake, NULL);
    struct outcome outcome = {0};

    assert_done(kvs_async_watch(kvs, "b", NULL, on_event, &outcome, NULL));
    accept_watch(fake, kvs);
    fake_daemon_pack(fake, "[2, 'watch.ready', [1]]");
    fake_daemon_send(fake, "[2, 'watch.ended', [1, {'code': '%s', 'message': 'over'%s}]]", ends[_i].code,
                     _i == 2 ? ", 'revision': 8" : "");
    library_run_until(kvs, &outcome.failed, 1);
    ck_assert_int_eq(outcome.error.has_revision, ends[_i].has_revision);
    ck_assert_uint_eq(outcome.error.revision, ends[_i].has_revision ? 8 : 0);
    kvs_close(kvs);
}
END_TEST

struct watch_start {
    struct kvs *kvs;
    struct kvs_watch *watch;
    enum kvs_code code;
};

static void *start_watch(void *arg)
{
    struct watch_start *start = arg;
    struct kvs_watch_options options = KVS_WATCH_OPTIONS(.max_queued_bytes = 1);

    start->code = kvs_watch(start->kvs, "b", &options, &start->watch);
    return NULL;
}

START_TEST(a_watch_does_not_overflow_before_the_program_has_it)
{
    struct fake_daemon *fake = fake_daemon_start();
    struct kvs *kvs = fake_daemon_connect(fake, NULL);
    struct watch_start start = {.kvs = kvs};
    pthread_t thread;

    ck_assert_int_eq(pthread_create(&thread, NULL, start_watch, &start), 0);
    accept_watch(fake, NULL);
    for (unsigned i = 1; i <= 3; i++)
        fake_daemon_pack(fake,
                         "[2, 'watch.entries', [1, [{'key': 'k', 'value': 'v', 'revision': %u, 'created': 1, "
                         "'operation': 'put'}]]]",
                         i);
    fake_daemon_send(fake, "[2, 'watch.ready', [1]]");
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    assert_done(start.code);
    library_watch_expect(start.watch, "k=v@1 k=v@2 k=v@3 ready");
    kvs_close(kvs);
}
END_TEST

Suite *library_fault_suite(void)
{
    Suite *suite = suite_create("library fault");
    TCase *ends = tcase_create("ends"), *away = tcase_create("away"), *keys = tcase_create("keys"),
          *watches = tcase_create("watches");

    tcase_set_timeout(ends, TEST_TIMEOUT_S);
    tcase_add_loop_test(ends, only_a_dismissed_call_is_sent_again_as_if_it_were_new, 0, 5);
    tcase_add_test(ends, a_session_that_ends_for_a_wrong_message_leaves_unknown_outcomes);
    tcase_add_test(ends, a_lock_that_is_confirmed_when_the_session_ends_is_not_acquired);
    suite_add_tcase(suite, ends);
    tcase_set_timeout(away, TEST_TIMEOUT_S);
    tcase_add_test(away, calls_end_in_time_while_a_blocking_one_waits_for_a_connection);
    tcase_add_loop_test(away, a_call_is_not_sent_after_its_timeout, 0, 2);
    suite_add_tcase(suite, away);
    tcase_set_timeout(keys, TEST_TIMEOUT_S);
    tcase_add_loop_test(keys, an_ephemeral_key_that_the_program_deletes_is_not_lost, 0, 4);
    tcase_add_loop_test(keys, an_ephemeral_key_that_is_deleted_after_a_refresh_stays_deleted, 0, 4);
    tcase_add_loop_test(keys, an_ephemeral_key_that_could_not_be_deleted_is_written_again, 0, 3);
    tcase_add_loop_test(keys, an_ephemeral_key_that_is_lost_during_a_delete_that_fails_is_lost, 0, 2);
    suite_add_tcase(suite, keys);
    tcase_set_timeout(watches, TEST_TIMEOUT_S);
    tcase_add_loop_test(watches, a_watch_ends_with_a_revision_only_if_a_new_one_can_begin_there, 0, 3);
    tcase_add_test(watches, a_watch_does_not_overflow_before_the_program_has_it);
    suite_add_tcase(suite, watches);
    return suite;
}
