/* Sessions: how bytes become calls, and what happens to the calls of a client that leaves. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/client.h"
#include "tests/support/daemon.h"
#include "tests/support/nats_server.h"

#define PIPELINED 5000u

static struct daemon daemon_of_test;

START_TEST(a_request_may_come_byte_by_byte)
{
    struct client *client = client_open_shared(), *other = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    msgpack_sbuffer buffer;

    msgpack_sbuffer_init(&buffer);
    pack_request(&buffer, 1001, "kv.put", "['%s', 'color', 'blue', {'headers': {'Content-Type': 'text/plain'}}]",
                 bucket);
    pack_request(&buffer, 1002, "kv.get", "['%s', 'nowhere']", bucket);
    for (size_t i = 0; i < buffer.size; i++) {
        client_write(client, buffer.data + i, 1);
        if (i % 16 == 0)
            client_call(other, "daemon.info", "[]"); /* the daemon has read those before */
    }
    msgpack_sbuffer_destroy(&buffer);
    assert_ok(client_wait(client, 1001));
    assert_ok(client_wait(client, 1002));
    client_expect_nothing(client);
}
END_TEST

START_TEST(thousands_of_requests_in_one_write_are_each_answered_once)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    bool *answered = keep(calloc(PIPELINED, sizeof(bool)));
    msgpack_sbuffer buffer;

    msgpack_sbuffer_init(&buffer);
    for (unsigned i = 0; i < PIPELINED; i++)
        pack_request(&buffer, i, i % 3 == 2 ? "kv.get" : "kv.put", i % 3 == 2 ? "['%s', 'k%u']" : "['%s', 'k%u', 'v']",
                     bucket, i % 100);
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    for (unsigned i = 0; i < PIPELINED; i++) {
        struct answer *answer = client_receive(client);
        assert_ok(answer);
        ck_assert_uint_lt(answer->msgid, PIPELINED);
        ck_assert(!answered[answer->msgid]);
        answered[answer->msgid] = true;
    }
    client_expect_nothing(client);
    struct answer *answer = client_call(client, "bucket.info", "['%s']", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "last_revision"), PIPELINED - PIPELINED / 3);
}
END_TEST

START_TEST(a_half_closed_client_gets_its_answers_and_then_the_end)
{
    struct client *client = client_open_shared(), *half = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    uint32_t msgids[200];

    for (unsigned i = 0; i < 200; i++)
        msgids[i] = client_send(half, "kv.put", "['%s', 'k%u', 'v']", bucket, i);
    client_shut_down(half);
    for (unsigned i = 0; i < 200; i++)
        assert_ok(client_wait(half, msgids[i]));
    client_expect_end(half);
}
END_TEST

START_TEST(an_incomplete_request_is_not_executed)
{
    struct client *client = client_open_shared(), *half = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    msgpack_sbuffer buffer;

    msgpack_sbuffer_init(&buffer);
    pack_request(&buffer, 1, "kv.put", "['%s', 'color', 'blue']", bucket);
    client_write(half, buffer.data, buffer.size - 1);
    msgpack_sbuffer_destroy(&buffer);
    client_shut_down(half);
    client_expect_end(half);
    struct answer *answer = client_call(client, "bucket.info", "['%s']", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "last_revision"), 0);
}
END_TEST

START_TEST(a_client_that_closes_with_calls_in_flight_does_no_harm)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    uint64_t end = now_ms() + PATIENCE_MS;

    for (unsigned i = 0; i < 20; i++) {
        struct client *leaving = client_open_shared();
        for (unsigned k = 0; k < 50; k++) {
            client_send(leaving, "kv.put", "['%s', 'k%u', 'v']", bucket, i * 50 + k);
            client_send(leaving, "kv.keys", "['%s']", bucket);
            client_send(leaving, "bucket.list", "[]");
        }
        client_close(leaving);
    }
    for (;;) {
        struct answer *answer = client_call(client, "daemon.stats", "[]");
        assert_ok(answer);
        if (number_at(&answer->result, "calls_in_flight") == 1 && number_at(&answer->result, "sessions.open") == 1)
            break; /* only the calling one */
        ck_assert_msg(now_ms() < end, "calls are left: %s", object_text(&answer->result));
        pause_shortly();
    }
    /* It is not promised which writes of a client that does not wait are executed. */
    struct answer *answer = client_call(client, "bucket.info", "['%s']", bucket);
    ck_assert_uint_le(number_at(&answer->result, "values"), 1000);
}
END_TEST

/* --- Clients that leave beside a server that does not answer ------------------------------------------ */

#define LONG_CALLS "calls:\n  timeout: 3600\n  max_timeout: 3600\n"

static struct nats_server server_of_test;

static void server_setup(void)
{
    nats_server_start(&server_of_test, NULL);
}

static void server_teardown(void)
{
    nats_server_thaw(&server_of_test);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server_of_test);
}

static void start_daemon_of_server(const char *more)
{
    daemon_start(&daemon_of_test, nats_server_section(&server_of_test), more);
}

/* Its session and its calls end, although no call is answered. */
static void leave(struct client *leaving, struct client *other, unsigned other_calls)
{
    client_close(leaving);
    wait_for_stat(other, "sessions.open", 1);
    wait_for_stat(other, "calls_in_flight", other_calls + 1); /* with the one that asks */
}

/* A session with as many calls as it may have is not read, so that the end of its client is no event. */
START_TEST(a_client_that_leaves_while_its_session_is_not_read_is_noticed)
{
    start_daemon_of_server(LONG_CALLS "limits:\n  calls_per_session: 4\n");
    struct client *client = client_open(&daemon_of_test), *leaving = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);

    nats_server_freeze(&server_of_test);
    for (unsigned i = 0; i < 8; i++) {
        client_send(leaving, "kv.get", "['%s', 'k']", bucket);
        /* Its conditions are read first, because they are more than its messages. */
        client_send(leaving, "txn.commit", "['%s', [['a', 0], ['b', 0]], [['put', 'k', 'v']]]", bucket);
    }
    wait_for_stat(client, "calls_in_flight", 5);
    leave(leaving, client, 0);
}
END_TEST

/* It sends no more after its call, so the end of its client is no event later. */
START_TEST(a_client_that_leaves_while_its_call_is_in_flight_is_noticed)
{
    start_daemon_of_server(LONG_CALLS);
    struct client *client = client_open(&daemon_of_test), *leaving = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);

    nats_server_freeze(&server_of_test);
    client_send(leaving, "kv.get", "['%s', 'k']", bucket);
    wait_for_stat(client, "calls_in_flight", 2);
    leave(leaving, client, 0);
}
END_TEST

/* The writes of the first call take all places of the bucket, and nothing of them is sent, because it is looked up. */
START_TEST(a_bulk_call_goes_on_when_another_one_is_dropped)
{
    enum { KEYS = 600 };
    const char *pairs = "";

    start_daemon_of_server(NULL);
    const char *bucket = client_new_bucket(client_open(&daemon_of_test), NULL);
    daemon_stop(&daemon_of_test);
    start_daemon_of_server(NULL);
    struct client *client = client_open(&daemon_of_test), *leaving = client_open(&daemon_of_test);
    nats_server_freeze(&server_of_test);
    for (unsigned i = 0; i < KEYS; i++)
        pairs = format_text("%s%s'k%u': 'v'", pairs, i > 0 ? ", " : "", i);
    client_send(leaving, "bulk.put", "['%s', {%s}, {'timeout': 60}]", bucket, pairs);
    wait_for_stat(client, "calls_in_flight", 2);
    uint32_t waiting = client_send(client, "bulk.put", "['%s', {'a': 'v'}, {'timeout': 60}]", bucket);
    wait_for_stat(client, "calls_in_flight", 3);
    leave(leaving, client, 1);
    nats_server_thaw(&server_of_test);
    assert_ok(client_wait(client, waiting));
}
END_TEST

/* It sends no more, and waits: that it leaves is no event either. */
START_TEST(a_client_that_leaves_after_it_has_shut_down_its_sending_half_is_noticed)
{
    daemon_start(&daemon_of_test, NULL, "calls:\n  max_timeout: 3600\n");
    struct client *client = client_open(&daemon_of_test), *half = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);

    put_text(client, bucket, "k", "v");
    client_send(half, "kv.get", "['%s', 'k', {'wait_above': 1000, 'timeout': 3600}]", bucket);
    client_shut_down(half);
    wait_for_stat(client, "sessions.open", 2);
    assert_ok(client_call(client, "daemon.info", "[]")); /* the daemon has read what was sent before */
    client_close(half);
    wait_for_stat(client, "sessions.open", 1);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(every_msgid_is_returned_unchanged)
{
    struct client *client = client_open_shared();
    const uint32_t msgids[] = {0, 1, 127, 128, 255, 256, 65535, 65536, 4294967295u};
    msgpack_sbuffer buffer;

    msgpack_sbuffer_init(&buffer);
    for (size_t i = 0; i < sizeof(msgids) / sizeof(msgids[0]); i++)
        pack_request(&buffer, msgids[i], "daemon.info", "[]");
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    for (size_t i = 0; i < sizeof(msgids) / sizeof(msgids[0]); i++)
        assert_ok(client_wait(client, msgids[i]));
}
END_TEST

START_TEST(unusual_encodings_are_accepted)
{
    struct client *client = client_open_shared();
    /* array 32, uint 64, int 64, str 32, array 16: [0, 7, "daemon.info", []] */
    static const char long_forms[] = "\xdd\0\0\0\4"
                                     "\xcf\0\0\0\0\0\0\0\0"
                                     "\xd3\0\0\0\0\0\0\0\7"
                                     "\xdb\0\0\0\x0b"
                                     "daemon.info"
                                     "\xdc\0\0";

    client_write(client, long_forms, sizeof(long_forms) - 1);
    assert_ok(client_wait(client, 7));
}
END_TEST

START_TEST(a_hundred_sessions_work_at_the_same_time)
{
    struct client *clients[100];
    uint32_t msgids[100];
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");

    for (unsigned i = 0; i < 100; i++)
        clients[i] = client_open_shared();
    for (unsigned round = 0; round < 10; round++) {
        for (unsigned i = 0; i < 100; i++)
            msgids[i] = client_send(clients[i], "kv.put", "['%s', 'k%u', '%u']", bucket, i, round);
        for (unsigned i = 0; i < 100; i++)
            assert_ok(client_wait(clients[i], msgids[i]));
        for (unsigned i = 0; i < 100; i++)
            msgids[i] =
                client_send(clients[i], "kv.get", "['%s', 'k%u', {'consistency': 'leader'}]", bucket, (i + 1) % 100);
        for (unsigned i = 0; i < 100; i++) {
            struct answer *answer = client_wait(clients[i], msgids[i]);
            assert_ok(answer);
            ck_assert_str_eq(text_at(&answer->result, "value"), format_text("%u", round));
        }
    }
}
END_TEST

/* --- Wrong envelopes ------------------------------------------------------------------------------- */

START_TEST(a_wrong_envelope_is_answered_and_the_session_goes_on)
{
    static const struct {
        const char *bytes;
        size_t size;
        int64_t msgid; /* -1: nil */
    } messages[] = {
#define BYTES(text) text, sizeof(text) - 1
        {BYTES("\x11"), -1},                                  /* 17 */
        {BYTES("\xc0"), -1},                                  /* nil */
        {BYTES("\xa1x"), -1},                                 /* "x" */
        {BYTES("\x80"), -1},                                  /* {} */
        {BYTES("\x90"), -1},                                  /* [] */
        {BYTES("\x92\x00\x05"), 5},                           /* [0, 5] */
        {BYTES("\x95\x00\x05\xa1m\x90\xc0"), -2},             /* five elements */
        {BYTES("\x94\x07\x05\xa1m\x90"), -2},                 /* type 7 */
        {BYTES("\x94\xa1x\x05\xa1m\x90"), -2},                /* type "x" */
        {BYTES("\x94\x00\xa1x\xa1m\x90"), -1},                /* msgid "x" */
        {BYTES("\x94\x00\xff\xa1m\x90"), -1},                 /* msgid -1 */
        {BYTES("\x94\x00\xcf\0\0\0\1\0\0\0\0\xa1m\x90"), -1}, /* msgid 2^32 */
        {BYTES("\x94\x00\xc0\xa1m\x90"), -1},                 /* msgid nil */
        {BYTES("\x94\x00\x05\x06\x90"), 5},                   /* method 6 */
        {BYTES("\x94\x00\x05\xa1m\x81\x01\x02"), 5},          /* params {1: 2} */
        {BYTES("\x94\x00\x05\xa1m\xa0"), 5},                  /* params "" */
        {BYTES("\x94\x01\x05\xc0\xc0"), -2},                  /* a response */
        {BYTES("\x93\x02\x06\x90"), -1},                      /* a notification whose method is 6 */
        {BYTES("\x93\x02\xa1m\x01"), -1},                     /* a notification with params 1 */
        {BYTES("\x94\xc7\x01\x05x\x05\xa1m\x90"), -2},        /* an ext */
    };
    struct client *client = client_open_shared();

    for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
        client_write(client, messages[i].bytes, messages[i].size);
        struct answer *answer = client_receive(client);
        assert_code(answer, "invalid_argument");
        if (messages[i].msgid >= -1) /* -2: one may or may not be told */
            ck_assert_msg(answer->has_msgid == (messages[i].msgid >= 0) &&
                              (!answer->has_msgid || answer->msgid == messages[i].msgid),
                          "message %zu is answered with msgid %d %u", i, answer->has_msgid, answer->msgid);
        assert_ok(client_call(client, "daemon.info", "[]"));
    }
}
END_TEST

/* --- session.configure ----------------------------------------------------------------------------- */

/* The error must be one text that begins and ends so. */
static void assert_text_error(const struct answer *answer, const char *beginning, const char *ending)
{
    ck_assert_int_eq(answer->error.type, MSGPACK_OBJECT_STR);
    const char *text = text_at(&answer->error, "");
    size_t length = strlen(text), ending_length = strlen(ending);

    ck_assert_msg(strncmp(text, beginning, strlen(beginning)) == 0, "%s", text);
    ck_assert_msg(length >= ending_length && strcmp(text + length - ending_length, ending) == 0, "%s", text);
}

START_TEST(errors_are_texts_for_a_session_that_wants_it)
{
    struct client *client = client_open_shared(), *other = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    struct answer *answer = client_call(client, "session.configure", "[{'errors': 'text'}]");

    ck_assert_str_eq(text_at(&answer->result, "errors"), "text");
    assert_text_error(client_call(client, "kv.get", "['nowhere', 'k']"), "bucket_not_found: ", "");
    ck_assert_ptr_null(strstr(text_at(&client_call(client, "kv.get", "['nowhere', 'k']")->error, ""), "outcome"));
    /* What became of a change is still told. */
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    assert_text_error(client_call(client, "kv.create", "['%s', 'k', 'v']", bucket),
                      "already_exists: ", " (outcome: none)");
    assert_text_error(client_call(client, "kv.put", "['%s', 'k', 'v', {'ttl': 0}]", bucket),
                      "invalid_argument: ttl must be", " (outcome: none)");
    assert_text_error(client_call(client, "kv.nonsense", "[]"), "invalid_argument: unknown method", " (outcome: none)");
    /* Results keep their form, errors of single keys included, and the other session is unaffected. */
    answer = client_call(client, "bulk.put", "['%s', {'bad key': 'v'}]", bucket);
    ck_assert_str_eq(text_at(&answer->result, "bad key.error.code"), "invalid_argument");
    assert_code(client_call(other, "kv.get", "['nowhere', 'k']"), "bucket_not_found");
    /* Errors about messages, too. */
    client_write(client, "\x90", 1);
    assert_text_error(client_receive(client), "invalid_argument: ", " (outcome: none)");
    answer = client_call(client, "session.configure", "[{'errors': 'map'}]");
    ck_assert_str_eq(text_at(&answer->result, "errors"), "map");
    assert_code(client_call(client, "kv.get", "['nowhere', 'k']"), "bucket_not_found");
    assert_ok(client_call(client, "session.configure", "[{'errors': 'text'}]"));
    client_write(client, "\xc1", 1);
    assert_text_error(client_receive(client), "invalid_argument: ", " (outcome: unknown)"); /* it ends the session */
    client_expect_end(client);
}
END_TEST

START_TEST(a_sessions_setting_holds_from_its_answer_on)
{
    struct client *client = client_open_shared();
    msgpack_sbuffer buffer;

    msgpack_sbuffer_init(&buffer);
    pack_request(&buffer, 1001, "kv.nonsense", "[]");
    pack_request(&buffer, 1002, "session.configure", "[{'errors': 'text'}]");
    pack_request(&buffer, 1003, "kv.nonsense", "[]");
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    assert_code(client_wait(client, 1001), "invalid_argument");
    assert_ok(client_wait(client, 1002));
    assert_text_error(client_wait(client, 1003), "invalid_argument: ", "");
}
END_TEST

START_TEST(a_setting_that_there_is_not_is_refused)
{
    struct client *client = client_open_shared();

    assert_code_says(client_call(client, "session.configure", "[{'errors': 'json'}]"), "invalid_argument",
                     "errors must be \"map\" or \"text\", not \"json\"");
    assert_code_says(client_call(client, "session.configure", "[{'errors': true}]"), "invalid_argument", "not true");
    assert_code_says(client_call(client, "session.configure", "[{'error': 'text'}]"), "invalid_argument",
                     "no option \"error\"");
    assert_code(client_call(client, "session.configure", "['text']"), "invalid_argument");
    /* Nothing has changed; without a setting the answer tells what holds. */
    struct answer *answer = client_call(client, "session.configure", "[]");
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "errors"), "map");
}
END_TEST

Suite *session_suite(void)
{
    Suite *suite = suite_create("session");
    TCase *tests = shared_daemon_case(suite, "sessions"), *own = tcase_create("own daemon"),
          *server = tcase_create("own server");

    tcase_add_test(tests, a_request_may_come_byte_by_byte);
    tcase_add_test(tests, thousands_of_requests_in_one_write_are_each_answered_once);
    tcase_add_test(tests, a_half_closed_client_gets_its_answers_and_then_the_end);
    tcase_add_test(tests, an_incomplete_request_is_not_executed);
    tcase_add_test(tests, a_client_that_closes_with_calls_in_flight_does_no_harm);
    tcase_add_test(tests, every_msgid_is_returned_unchanged);
    tcase_add_test(tests, unusual_encodings_are_accepted);
    tcase_add_test(tests, a_hundred_sessions_work_at_the_same_time);
    tcase_add_test(tests, a_wrong_envelope_is_answered_and_the_session_goes_on);
    tcase_add_test(tests, errors_are_texts_for_a_session_that_wants_it);
    tcase_add_test(tests, a_sessions_setting_holds_from_its_answer_on);
    tcase_add_test(tests, a_setting_that_there_is_not_is_refused);
    tcase_add_checked_fixture(server, server_setup, server_teardown);
    tcase_add_test(server, a_client_that_leaves_while_its_session_is_not_read_is_noticed);
    tcase_add_test(server, a_client_that_leaves_while_its_call_is_in_flight_is_noticed);
    tcase_add_test(server, a_bulk_call_goes_on_when_another_one_is_dropped);
    suite_add_tcase(suite, server);
    tcase_add_test(own, a_client_that_leaves_after_it_has_shut_down_its_sending_half_is_noticed);
    suite_add_tcase(suite, own);
    return suite;
}
