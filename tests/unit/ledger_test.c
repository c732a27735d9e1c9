/* Which write is next at a key whose last write is in doubt. */
#include "daemon/nats/requests.h"
#include "daemon/store/write/ledger.h"
#include "tests/unit/suites.h"

#include <stddef.h>

static struct jobs jobs;
static struct requests requests; /* none is in flight */
static struct ledger *ledger;

static void begin(void)
{
    jobs_init(&jobs);
    ledger = ledger_new(&jobs, &requests);
    ck_assert_ptr_nonnull(ledger);
}

/* --- Keys in doubt ---------------------------------------------------------------------------------- */

struct writer {
    struct ledger_wait wait;
    struct ledger_hold hold;
    bool holds_again; /* once its turn has come */
    unsigned turn;    /* 1: the first that continued; 0: it waits */
};

static unsigned turns;

static void take_turn(struct ledger_wait *wait)
{
    struct writer *writer = (struct writer *)((char *)wait - offsetof(struct writer, wait));

    writer->turn = ++turns;
    ck_assert(!ledger_must_wait(ledger, wait, "k"));
    if (writer->holds_again)
        ledger_hold(ledger, &writer->hold, "k");
}

/* As a write does before it is sent. */
static bool must_wait(struct writer *writer)
{
    writer->wait.resume = take_turn;
    return ledger_must_wait(ledger, &writer->wait, "k");
}

static void run_jobs(void)
{
    while (jobs_are_waiting(&jobs)) {
        jobs_run(&jobs);
        jobs_end_turn(&jobs);
    }
}

START_TEST(writes_that_wait_for_a_key_continue_in_order_and_before_later_ones)
{
    struct ledger_hold hold = {0};
    struct writer first = {0}, second = {0}, late = {0};

    ledger_hold(ledger, &hold, "k");
    ck_assert(must_wait(&first));
    ck_assert(must_wait(&second));
    ledger_release_key(&hold);
    ck_assert(must_wait(&late));
    run_jobs();
    ck_assert_uint_eq(first.turn, 1);
    ck_assert_uint_eq(second.turn, 2);
    ck_assert_uint_eq(late.turn, 3);
    ck_assert(!must_wait(&late));
    ledger_release(ledger);
}
END_TEST

START_TEST(only_the_next_write_continues_if_it_holds_the_key_again)
{
    enum { WRITERS = 100 };
    struct ledger_hold hold = {0};
    struct writer writers[WRITERS] = {0};

    ledger_hold(ledger, &hold, "k");
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i].holds_again = true;
        ck_assert(must_wait(&writers[i]));
    }
    ledger_release_key(&hold);
    for (unsigned i = 0; i < WRITERS; i++) {
        run_jobs();
        ck_assert_uint_eq(turns, i + 1);
        ck_assert_uint_eq(writers[i].turn, i + 1);
        ledger_release_key(&writers[i].hold);
    }
    ledger_release(ledger);
}
END_TEST

START_TEST(the_write_that_held_the_key_does_not_queue_after_those_that_waited)
{
    struct ledger_hold hold = {0};
    struct writer lost = {0}, waits = {0};

    ledger_hold(ledger, &hold, "k");
    ck_assert(must_wait(&waits));
    ledger_release_key(&hold);
    lost.wait.is_due = true;
    ck_assert(!must_wait(&lost));
    run_jobs();
    ck_assert_uint_eq(waits.turn, 1);
    ledger_release(ledger);
}
END_TEST

/* The bucket's structs may be freed, because the bucket is gone, while writes of it are in doubt, or wait for these. */
START_TEST(a_hold_keeps_its_ledger)
{
    struct ledger_hold hold = {0}, another = {0};

    ck_assert(!ledger_is_shared(ledger));
    ledger_hold(ledger, &hold, "k");
    ledger_hold(ledger, &another, "k");
    ck_assert(ledger_is_shared(ledger));
    ledger_release(ledger);
    ledger_release_key(&another);
    ledger_release_key(&hold);
}
END_TEST

START_TEST(a_wait_keeps_its_ledger)
{
    struct ledger_hold hold = {0};
    struct writer waits = {0}, gives_up = {0};

    ledger_hold(ledger, &hold, "k");
    ck_assert(must_wait(&waits));
    ck_assert(must_wait(&gives_up));
    ledger_release_key(&hold);
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
    tcase_add_test(tests, writes_that_wait_for_a_key_continue_in_order_and_before_later_ones);
    tcase_add_test(tests, only_the_next_write_continues_if_it_holds_the_key_again);
    tcase_add_test(tests, the_write_that_held_the_key_does_not_queue_after_those_that_waited);
    tcase_add_test(tests, a_hold_keeps_its_ledger);
    tcase_add_test(tests, a_wait_keeps_its_ledger);
    suite_add_tcase(suite, tests);
    return suite;
}
