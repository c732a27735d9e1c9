/* What is known of a stream, and whose turn it is at a key whose last write is in doubt. */
#include "daemon/store/write/ledger.h"
#include "tests/unit/suites.h"

#include <stddef.h>

static struct jobs jobs;
static struct ledger *ledger;

static void begin(void)
{
    jobs_init(&jobs);
    ledger = ledger_new(&jobs);
    ck_assert_ptr_nonnull(ledger);
}

static uint64_t last_sequence(void)
{
    return ledger_stream(ledger)->last_sequence;
}

/* --- The stream ------------------------------------------------------------------------------------- */

/* A sequence that the stream no longer has must not vouch for messages that it stores under lower ones. */
START_TEST(a_stream_that_was_set_back_has_the_last_sequence_that_it_says)
{
    const struct outcome_stream before = {.identity = 1, .last_sequence = 100};
    const struct outcome_stream set_back = {.identity = 1, .last_sequence = 50};

    ledger_note_stream(ledger, &before);
    ledger_note_sequence(ledger, 110, 0);
    ck_assert_uint_eq(last_sequence(), 110);
    ledger_note_stream(ledger, &set_back);
    ck_assert_uint_eq(last_sequence(), 50);
    ledger_release(ledger);
}
END_TEST

START_TEST(another_stream_of_the_name_begins_with_its_own_last_sequence)
{
    const struct outcome_stream before = {.identity = 1, .last_sequence = 100};
    const struct outcome_stream another = {.identity = 2, .last_sequence = 3};

    ledger_note_stream(ledger, &before);
    ledger_note_stream(ledger, &another);
    ck_assert_uint_eq(ledger_stream(ledger)->identity, 2);
    ck_assert_uint_eq(last_sequence(), 3);
    ledger_release(ledger);
}
END_TEST

/* Acks come in another order than the messages were stored in. */
START_TEST(an_ack_never_lowers_the_last_sequence)
{
    ledger_note_sequence(ledger, 7, 0);
    ledger_note_sequence(ledger, 5, 0);
    ck_assert_uint_eq(last_sequence(), 7);
    ledger_release(ledger);
}
END_TEST

/* --- Keys in doubt ---------------------------------------------------------------------------------- */

struct writer {
    struct ledger_wait wait;
    unsigned turn; /* 1: the first that went on; 0: it waits */
};

static unsigned turns;

static void take_turn(struct ledger_wait *wait)
{
    ((struct writer *)((char *)wait - offsetof(struct writer, wait)))->turn = ++turns;
}

/* As a write asks before it is sent. */
static bool must_wait(struct writer *writer)
{
    writer->wait.resume = take_turn;
    return ledger_must_queue(ledger, &writer->wait) || ledger_must_wait(ledger, &writer->wait, "k");
}

static void run_jobs(void)
{
    while (jobs_are_waiting(&jobs)) {
        jobs_run(&jobs);
        jobs_end_turn(&jobs);
    }
}

START_TEST(those_that_wait_for_a_key_go_on_in_their_order_and_before_those_to_come)
{
    struct ledger_hold hold = {0};
    struct writer first = {0}, second = {0}, late = {0};

    ledger_hold(ledger, &hold, "k");
    ck_assert(must_wait(&first));
    ck_assert(must_wait(&second));
    ledger_let_go(&hold);
    ck_assert(must_wait(&late));
    run_jobs();
    ck_assert_uint_eq(first.turn, 1);
    ck_assert_uint_eq(second.turn, 2);
    ck_assert_uint_eq(late.turn, 3);
    ck_assert(!must_wait(&late));
    ledger_release(ledger);
}
END_TEST

START_TEST(the_write_that_they_waited_for_does_not_queue_behind_them)
{
    struct ledger_hold hold = {0};
    struct writer lost = {0}, waits = {0};

    ledger_hold(ledger, &hold, "k");
    ck_assert(must_wait(&waits));
    ledger_let_go(&hold);
    lost.wait.is_due = true;
    ck_assert(!must_wait(&lost));
    run_jobs();
    ck_assert_uint_eq(waits.turn, 1);
    ledger_release(ledger);
}
END_TEST

/* The bucket's handles may go, because the bucket has gone, while writes of it are in doubt, or wait for these. */
START_TEST(a_hold_keeps_its_ledger)
{
    struct ledger_hold hold = {0}, another = {0};

    ck_assert(!ledger_is_shared(ledger));
    ledger_hold(ledger, &hold, "k");
    ledger_hold(ledger, &another, "k");
    ck_assert(ledger_is_shared(ledger));
    ledger_release(ledger);
    ledger_let_go(&another);
    ledger_let_go(&hold);
}
END_TEST

START_TEST(a_wait_keeps_its_ledger)
{
    struct ledger_hold hold = {0};
    struct writer waits = {0}, gives_up = {0};

    ledger_hold(ledger, &hold, "k");
    ck_assert(must_wait(&waits));
    ck_assert(must_wait(&gives_up));
    ledger_let_go(&hold);
    ledger_release(ledger);
    ledger_end_wait(&gives_up.wait);
    run_jobs();
    ck_assert_uint_eq(waits.turn, 1);
    ck_assert_uint_eq(gives_up.turn, 0);
}
END_TEST

Suite *ledger_suite(void)
{
    Suite *suite = suite_create("ledger");
    TCase *tests = tcase_create("ledger");

    tcase_add_checked_fixture(tests, begin, NULL);
    tcase_add_test(tests, a_stream_that_was_set_back_has_the_last_sequence_that_it_says);
    tcase_add_test(tests, another_stream_of_the_name_begins_with_its_own_last_sequence);
    tcase_add_test(tests, an_ack_never_lowers_the_last_sequence);
    tcase_add_test(tests, those_that_wait_for_a_key_go_on_in_their_order_and_before_those_to_come);
    tcase_add_test(tests, the_write_that_they_waited_for_does_not_queue_behind_them);
    tcase_add_test(tests, a_hold_keeps_its_ledger);
    tcase_add_test(tests, a_wait_keeps_its_ledger);
    suite_add_tcase(suite, tests);
    return suite;
}
