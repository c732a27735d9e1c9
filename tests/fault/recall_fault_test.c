/* Reads of what was read before, while the questions whether it is still so are lost. */
#include "tests/fault/stage.h"
#include "tests/fault/suites.h"

#include <stdlib.h>
#include <string.h>

#define KEYS 16u

static struct stage stage;
static const char *values[KEYS];

static void begin(void)
{
    stage_begin(&stage, 1, NULL);
    assert_ok(session_call(stage.session, "bucket.create", "['b']"));
    for (unsigned i = 0; i < KEYS; i++) {
        values[i] = format_text("v%u", i);
        assert_ok(session_call(stage.session, "kv.put", "['b', 'k%u', '%s']", i, values[i]));
    }
}

static void end(void)
{
    stage_end(&stage);
}

/* All keys by one call each, which are on their way together. */
static void expect_gets(void)
{
    uint32_t msgids[KEYS];

    pid_stand_still(stage.daemon.pid);
    for (unsigned i = 0; i < KEYS; i++)
        msgids[i] = session_send(stage.session, "kv.get", "['b', 'k%u', {'timeout': 20}]", i);
    pid_go_on(stage.daemon.pid);
    for (unsigned i = 0; i < KEYS; i++) {
        const struct answer *answer = session_wait(stage.session, msgids[i]);
        assert_ok(answer);
        ck_assert_str_eq(text_at(answer->result, "value"), values[i]);
        ck_assert_str_eq(text_at(answer->result, "key"), format_text("k%u", i));
    }
    session_forget(stage.session);
}

/* All keys by one call. */
static void expect_bulk(void)
{
    const char *keys = "'k0'";

    for (unsigned i = 1; i < KEYS; i++)
        keys = format_text("%s, 'k%u'", keys, i);
    const struct answer *answer = session_call(stage.session, "bulk.get", "['b', [%s], {'timeout': 20}]", keys);
    assert_ok(answer);
    for (unsigned i = 0; i < KEYS; i++)
        ck_assert_str_eq(text_at(find_at(answer->result, format_text("k%u", i)), "value"), values[i]);
    session_forget(stage.session);
}

/* Until all of a bulk read is answered by it. */
static void remember(void)
{
    uint64_t answered;
    unsigned tries = 0;

    do {
        answered = stage_stat(&stage, "recall.answered");
        expect_bulk();
        ck_assert_uint_lt(tries++, 200);
    } while (stage_stat(&stage, "recall.answered") < answered + KEYS);
}

static const enum proxy_fault_kind kinds[] = {PROXY_DROP_PUBLISH,      PROXY_DROP_ACK,       PROXY_CUT_BEFORE_PUBLISH,
                                              PROXY_CUT_AFTER_PUBLISH, PROXY_CUT_BEFORE_ACK, PROXY_CUT_AFTER_ACK};

/* The first question asks for what is newer, the second counts the keys. */
static void strike(enum proxy_fault_kind kind, unsigned question, void (*expect)(void))
{
    static unsigned number;

    remember();
    values[number % KEYS] = format_text("theirs-%u", number);
    nats_put(stage.nats, "b", format_text("k%u", number % KEYS), values[number % KEYS]);
    number++;
    proxy_arm(stage.proxy, (struct proxy_fault){.kind = kind, .subject = "$JS.API.DIRECT.GET.KV_b", .skip = question});
    expect();
    ck_assert_uint_eq(proxy_strikes(stage.proxy), 1);
    proxy_arm(stage.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
    expect_gets();
    expect_bulk();
}

START_TEST(a_question_that_is_lost_or_cut_off_costs_time_and_no_truth)
{
    enum proxy_fault_kind kind = kinds[(unsigned)_i / 2];

    strike(kind, (unsigned)_i % 2, expect_bulk);
    strike(kind, (unsigned)_i % 2, expect_bulk);
}
END_TEST

/* Of k3, which was overwritten with "theirs" or is away: never what is remembered. */
static void expect_news(const struct answer *answer, const msgpack_object *entry)
{
    ck_assert_msg(entry->type == MSGPACK_OBJECT_NIL || strcmp(text_at(entry, "value"), "theirs") == 0, "%s",
                  answer_text(answer));
}

/*
 * Another client overwrites a key, which is acknowledged, and removes it without a marker while the questions are
 * asked: what is remembered of it was never true since the call began.
 */
START_TEST(a_key_that_goes_between_the_questions_is_not_answered_as_it_was)
{
    for (unsigned question = 0; question < 2; question++) {
        bool asks_singly = _i % 2;
        uint32_t msgids[KEYS];
        remember();
        nats_put(stage.nats, "b", "k3", "theirs");
        proxy_arm(stage.proxy, (struct proxy_fault){.kind = PROXY_HOLD_BEFORE_PUBLISH,
                                                    .subject = "$JS.API.DIRECT.GET.KV_b",
                                                    .skip = question});
        pid_stand_still(stage.daemon.pid);
        for (unsigned i = 0; i < KEYS && asks_singly; i++)
            msgids[i] = session_send(stage.session, "kv.get", "['b', 'k%u', {'timeout': 20}]", i);
        if (!asks_singly)
            msgids[3] = session_send(stage.session, "bulk.get", "['b', ['k0', 'k1', 'k2', 'k3', 'k4', 'k5']]");
        pid_go_on(stage.daemon.pid);
        wait_until(proxy_strikes(stage.proxy) == 1, "the question");
        nats_api(stage.nats, "STREAM.PURGE.KV_b", "{'filter': '$KV.b.k3'}");
        proxy_release(stage.proxy);
        const struct answer *answer = session_wait(stage.session, msgids[3]);
        assert_ok(answer);
        expect_news(answer, asks_singly ? answer->result : find_at(answer->result, "k3"));
        for (unsigned i = 0; i < KEYS && asks_singly; i++) {
            if (i != 3)
                assert_ok(session_wait(stage.session, msgids[i]));
        }
        proxy_arm(stage.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
        nats_put(stage.nats, "b", "k3", values[3]);
    }
}
END_TEST

/* And one that was away, and comes again between them. */
START_TEST(a_key_that_comes_between_the_questions_is_not_answered_as_it_was)
{
    uint32_t msgid;

    remember();
    nats_api(stage.nats, "STREAM.PURGE.KV_b", "{'filter': '$KV.b.k3'}");
    proxy_arm(stage.proxy,
              (struct proxy_fault){.kind = PROXY_HOLD_BEFORE_PUBLISH, .subject = "$JS.API.DIRECT.GET.KV_b", .skip = 1});
    msgid = session_send(stage.session, "bulk.get", "['b', ['k0', 'k1', 'k2', 'k3', 'k4', 'k5']]");
    wait_until(proxy_strikes(stage.proxy) == 1, "the second question");
    nats_put(stage.nats, "b", "k3", "theirs");
    proxy_release(stage.proxy);
    const struct answer *answer = session_wait(stage.session, msgid);
    assert_ok(answer);
    expect_news(answer, find_at(answer->result, "k3"));
}
END_TEST

START_TEST(gets_whose_common_question_is_lost_ask_each_for_themselves)
{
    strike(kinds[(unsigned)_i / 2], (unsigned)_i % 2, expect_gets);
}
END_TEST

/* One key is as it was; the others are written again, and have the sequences that their lost entries had. */
START_TEST(a_server_that_comes_back_with_an_older_state_is_believed)
{
    struct server *server = &stage.servers[0];
    char *const away[] = {"mv", format_text("%s/jetstream", server->directory), format_text("%s/b", server->directory),
                          NULL};
    char *const copy[] = {"cp", "-r", format_text("%s/jetstream", server->directory),
                          format_text("%s/backup", server->directory), NULL};
    char *const back[] = {"mv", format_text("%s/backup", server->directory),
                          format_text("%s/jetstream", server->directory), NULL};
    char *output;

    server_kill(server);
    ck_assert_int_eq(run_program(copy, &output), 0);
    server_restart(server);
    stage_reconnect_nats(&stage);
    for (unsigned i = 1; i < KEYS; i++) {
        values[i] = format_text("lost-%u", i);
        nats_put(stage.nats, "b", format_text("k%u", i), values[i]);
    }
    remember();
    server_kill(server);
    ck_assert_int_eq(run_program(away, &output), 0);
    ck_assert_int_eq(run_program(back, &output), 0);
    server_restart(server);
    stage_reconnect_nats(&stage);
    for (unsigned i = 1; i < KEYS; i++) {
        values[i] = format_text("other-%u", i);
        nats_put(stage.nats, "b", format_text("k%u", i), values[i]);
    }
    expect_bulk();
    expect_gets();
}
END_TEST

Suite *recall_fault_suite(void)
{
    Suite *suite = suite_create("recall faults");
    TCase *tests = tcase_create("one server");

    tcase_add_checked_fixture(tests, begin, end);
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, a_question_that_is_lost_or_cut_off_costs_time_and_no_truth, 0, 12);
    tcase_add_loop_test(tests, gets_whose_common_question_is_lost_ask_each_for_themselves, 0, 12);
    tcase_add_loop_test(tests, a_key_that_goes_between_the_questions_is_not_answered_as_it_was, 0, 2);
    tcase_add_test(tests, a_key_that_comes_between_the_questions_is_not_answered_as_it_was);
    tcase_add_test(tests, a_server_that_comes_back_with_an_older_state_is_believed);
    suite_add_tcase(suite, tests);
    return suite;
}
