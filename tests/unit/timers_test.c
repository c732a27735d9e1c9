/* timers: a deadline comes, whatever happens to others. */
#include "daemon/base/timers.h"
#include "tests/unit/suites.h"

#include <stddef.h>

struct fixture {
    uv_loop_t loop;
    uv_timer_t restarting;
    struct jobs jobs;
    struct timers timers;
    struct timer restarted, other;
    unsigned restarts, most_restarts;
    bool is_other_over;
};

static struct fixture fixture;

static void begin(void)
{
    fixture = (struct fixture){.most_restarts = 10000};
    jobs_init(&fixture.jobs);
    uv_loop_init(&fixture.loop);
    timers_init(&fixture.timers, &fixture.loop, &fixture.jobs);
    uv_timer_init(&fixture.loop, &fixture.restarting);
}

static void end(void)
{
    timers_close(&fixture.timers);
    uv_close((uv_handle_t *)&fixture.restarting, NULL);
    uv_run(&fixture.loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&fixture.loop), 0);
}

static void on_restarted_over(struct timer *timer)
{
    (void)timer;
}

static void on_other_over(struct timer *timer)
{
    (void)timer;
    fixture.is_other_over = true;
    uv_timer_stop(&fixture.restarting);
}

/* As a request does that is woken and has to wait again: at each millisecond, its deadline is one that has just passed.
 */
static void restart(uv_timer_t *handle)
{
    timer_start(&fixture.timers, &fixture.restarted, uv_now(&fixture.loop) - 1, on_restarted_over);
    if (++fixture.restarts == fixture.most_restarts)
        uv_timer_stop(handle);
}

START_TEST(a_deadline_in_the_past_that_is_set_again_and_again_does_not_keep_others_from_expiring)
{
    timer_start(&fixture.timers, &fixture.other, uv_now(&fixture.loop) + 50, on_other_over);
    uv_timer_start(&fixture.restarting, restart, 1, 1);
    while (!fixture.is_other_over && fixture.restarts < fixture.most_restarts)
        uv_run(&fixture.loop, UV_RUN_ONCE);
    ck_assert_msg(fixture.is_other_over, "a deadline of 50 ms has not come within %u ms", fixture.most_restarts);
}
END_TEST

static void on_far_over(struct timer *timer)
{
    (void)timer;
    ck_abort_msg("a deadline that never comes has come");
}

START_TEST(a_deadline_that_is_as_far_as_can_be_does_not_come)
{
    struct timer far = {0};

    timer_start(&fixture.timers, &far, UINT64_MAX, on_far_over);
    timer_start(&fixture.timers, &fixture.other, uv_now(&fixture.loop) + 20, on_other_over);
    while (!fixture.is_other_over)
        uv_run(&fixture.loop, UV_RUN_ONCE);
    timer_stop(&fixture.timers, &far);
}
END_TEST

Suite *timers_suite(void)
{
    Suite *suite = suite_create("timers");
    TCase *tests = tcase_create("timers");

    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, a_deadline_in_the_past_that_is_set_again_and_again_does_not_keep_others_from_expiring);
    tcase_add_test(tests, a_deadline_that_is_as_far_as_can_be_does_not_come);
    suite_add_tcase(suite, tests);
    return suite;
}
