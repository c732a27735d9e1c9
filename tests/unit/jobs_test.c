/* jobs: each gets a share of the loop's time. */
#include "daemon/base/jobs.h"
#include "tests/unit/suites.h"

#include <limits.h>
#include <stddef.h>

struct work {
    struct job job;
    struct jobs *jobs;
    unsigned runs;
    unsigned wanted;  /* runs */
    bool takes_slice; /* works until its slice is over */
    struct work *removes;
};

static bool run(struct job *job)
{
    struct work *work = (struct work *)((char *)job - offsetof(struct work, job));

    work->runs++;
    if (work->removes != NULL)
        jobs_remove(work->jobs, &work->removes->job);
    while (work->takes_slice && !jobs_slice_is_over(work->jobs))
        ;
    return work->runs < work->wanted;
}

START_TEST(each_job_runs_once_a_turn_until_it_is_done)
{
    struct jobs jobs;
    struct work works[3] = {{.wanted = 3}, {.wanted = 1}, {.wanted = 2}};

    jobs_init(&jobs);
    for (unsigned i = 0; i < 3; i++) {
        works[i].jobs = &jobs;
        jobs_add(&jobs, &works[i].job, run);
        jobs_add(&jobs, &works[i].job, run); /* it is already queued */
    }
    for (unsigned turn = 1; turn <= 3; turn++) {
        ck_assert(jobs_are_waiting(&jobs));
        jobs_run(&jobs);
        ck_assert_uint_gt(jobs_end_turn(&jobs), 0);
        for (unsigned i = 0; i < 3; i++)
            ck_assert_uint_eq(works[i].runs, turn < works[i].wanted ? turn : works[i].wanted);
    }
    ck_assert(!jobs_are_waiting(&jobs));
}
END_TEST

START_TEST(a_turn_ends_and_the_next_one_goes_on_with_the_others)
{
    enum { JOBS = 20 };
    struct jobs jobs;
    struct work works[JOBS] = {0};
    unsigned turns = 0;

    jobs_init(&jobs);
    for (unsigned i = 0; i < JOBS; i++) {
        works[i] = (struct work){.jobs = &jobs, .wanted = 2, .takes_slice = true};
        jobs_add(&jobs, &works[i].job, run);
    }
    while (jobs_are_waiting(&jobs)) {
        jobs_run(&jobs);
        jobs_end_turn(&jobs);
        turns++;
        /* No job is two runs ahead of another. */
        for (unsigned i = 1; i < JOBS; i++)
            ck_assert_uint_le(works[i].runs, works[0].runs);
    }
    ck_assert_uint_ge(turns, JOBS * 2 * JOBS_SLICE_NS / (JOBS_TURN_NS + JOBS_SLICE_NS));
    for (unsigned i = 0; i < JOBS; i++)
        ck_assert_uint_eq(works[i].runs, 2);
}
END_TEST

START_TEST(a_job_may_be_removed_by_another)
{
    struct jobs jobs;
    struct work last = {.jobs = &jobs, .wanted = 1}, first = {.jobs = &jobs, .wanted = 1, .removes = &last};

    jobs_init(&jobs);
    jobs_add(&jobs, &first.job, run);
    jobs_add(&jobs, &last.job, run);
    jobs_run(&jobs);
    ck_assert_uint_eq(first.runs, 1);
    ck_assert_uint_eq(last.runs, 0);
    ck_assert(!jobs_are_waiting(&jobs));
    jobs_remove(&jobs, &last.job); /* does nothing */
}
END_TEST

static bool run_session(struct job *job)
{
    struct work *work = (struct work *)((char *)job - offsetof(struct work, job));

    work->runs++;
    while (work->takes_slice && !jobs_slice_is_over(work->jobs))
        ;
    jobs_charge(work->jobs, job);
    if (work->runs < work->wanted)
        jobs_add_session(work->jobs, job, run_session);
    return false;
}

START_TEST(a_session_that_takes_little_overtakes_those_that_take_much)
{
    enum { HEAVY = 30, TURNS = 20 };
    struct jobs jobs;
    struct work heavy[HEAVY] = {0};

    jobs_init(&jobs);
    for (unsigned i = 0; i < HEAVY; i++) {
        heavy[i] = (struct work){.jobs = &jobs, .wanted = UINT_MAX, .takes_slice = true};
        jobs_add_session(&jobs, &heavy[i].job, run_session);
    }
    /* Each is light until it has had its first slice. */
    for (unsigned light = HEAVY; light > 0;) {
        jobs_run(&jobs);
        jobs_end_turn(&jobs);
        light = 0;
        for (unsigned i = 0; i < HEAVY; i++)
            light += heavy[i].runs < 2;
    }
    for (unsigned turn = 0; turn < TURNS; turn++) {
        struct work light = {.jobs = &jobs, .wanted = 1};
        jobs_add_session(&jobs, &light.job, run_session);
        jobs_run(&jobs);
        jobs_end_turn(&jobs);
        ck_assert_uint_eq(light.runs, 1);
    }
    /* And they have gone on, in turns. */
    for (unsigned i = 1; i < HEAVY; i++)
        ck_assert_uint_le(heavy[i].runs, heavy[0].runs + 2);
    for (unsigned i = 0; i < HEAVY; i++)
        jobs_remove(&jobs, &heavy[i].job);
    ck_assert(!jobs_are_waiting(&jobs));
}
END_TEST

START_TEST(a_user_with_many_sessions_gets_no_more_slices_than_another)
{
    enum { SESSIONS = 50, SLICES = 1000 };
    struct jobs jobs;
    struct work greedy[SESSIONS] = {0}, lone = {.jobs = &jobs, .wanted = UINT_MAX};
    unsigned slices = 0;

    jobs_init(&jobs);
    for (unsigned i = 0; i < SESSIONS; i++) {
        greedy[i] = (struct work){.jobs = &jobs, .wanted = UINT_MAX};
        greedy[i].job.owner = fair_queue_identity(1, i);
        jobs_add(&jobs, &greedy[i].job, run);
    }
    lone.job.owner = fair_queue_identity(2, SESSIONS);
    jobs_add(&jobs, &lone.job, run);
    while (slices < SLICES) {
        jobs_run(&jobs);
        jobs_end_turn(&jobs);
        slices = lone.runs;
        for (unsigned i = 0; i < SESSIONS; i++)
            slices += greedy[i].runs;
    }
    ck_assert_uint_ge(lone.runs, slices / 2 - 1);
    for (unsigned i = 0; i < SESSIONS; i++) {
        ck_assert_uint_ge(greedy[i].runs, slices / 2 / SESSIONS - 1);
        jobs_remove(&jobs, &greedy[i].job);
    }
    jobs_remove(&jobs, &lone.job);
    ck_assert(!jobs_are_waiting(&jobs));
}
END_TEST

START_TEST(each_line_gets_a_slice_of_each_turn)
{
    struct jobs jobs;
    struct work shared = {.jobs = &jobs, .wanted = UINT_MAX, .takes_slice = true}, ordinary = shared;

    jobs_init(&jobs);
    jobs_add_shared(&jobs, &shared.job, run);
    jobs_add(&jobs, &ordinary.job, run);
    for (unsigned turn = 1; turn <= 20; turn++) {
        jobs_begin_slice(&jobs);
        while (jobs_begin_slice(&jobs)) /* events use up the turn */
            ;
        jobs_run(&jobs);
        jobs_end_turn(&jobs);
        ck_assert_uint_eq(shared.runs, turn);
        ck_assert_uint_eq(ordinary.runs, turn);
    }
    jobs_remove(&jobs, &shared.job);
    jobs_remove(&jobs, &ordinary.job);
}
END_TEST

Suite *jobs_suite(void)
{
    Suite *suite = suite_create("jobs");
    TCase *tests = tcase_create("jobs");

    tcase_add_test(tests, each_job_runs_once_a_turn_until_it_is_done);
    tcase_add_test(tests, a_turn_ends_and_the_next_one_goes_on_with_the_others);
    tcase_add_test(tests, a_job_may_be_removed_by_another);
    tcase_add_test(tests, a_session_that_takes_little_overtakes_those_that_take_much);
    tcase_add_test(tests, a_user_with_many_sessions_gets_no_more_slices_than_another);
    tcase_add_test(tests, each_line_gets_a_slice_of_each_turn);
    suite_add_tcase(suite, tests);
    return suite;
}
