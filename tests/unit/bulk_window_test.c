/* Bulk calls share the places of writes in flight: buckets and users have windows of their own. */
#include "daemon/store/write/bulk_window.h"
#include "tests/unit/suites.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TURN = 16 };

static struct bulk_windows all;

static void begin(struct bulk_claim *claim, const char *bucket, uint32_t uid, uint64_t session)
{
    memset(claim, 0, sizeof(*claim));
    ck_assert(bulk_claim_begin(&all, claim, bucket, fair_queue_identity(uid, session)));
}

static void use_turn(struct bulk_claim *claim)
{
    ck_assert(bulk_claim_has_room(claim));
    for (unsigned begun = 0; begun < TURN && bulk_claim_has_room(claim); begun++)
        bulk_claim_begin_write(claim);
    bulk_claim_end_turn(claim, true);
}

/* Return the next call that has room; NULL: there is none. */
static struct bulk_claim *next_with_room(void)
{
    struct bulk_claim *claim;

    while (bulk_windows_step(&all, &claim)) {
        if (claim != NULL)
            return claim;
    }
    return NULL;
}

/* Give turns to calls with writes without end, until there is no room. */
static void fill(void)
{
    struct bulk_claim *claim;

    while ((claim = next_with_room()) != NULL)
        use_turn(claim);
}

START_TEST(a_user_who_writes_to_many_buckets_leaves_places_for_others)
{
    struct bulk_claim greedy[10], lone;
    unsigned in_flight = 0;
    char bucket[16];

    for (unsigned i = 0; i < 10; i++) {
        snprintf(bucket, sizeof(bucket), "bucket-%u", i);
        begin(&greedy[i], bucket, 1, i);
    }
    fill();
    for (unsigned i = 0; i < 10; i++)
        in_flight += greedy[i].in_flight;
    ck_assert_uint_eq(in_flight, BULK_WINDOW_USER);
    begin(&lone, "bucket-of-another", 2, 100);
    ck_assert_ptr_eq(next_with_room(), &lone);
    use_turn(&lone);
    fill();
    ck_assert_uint_eq(lone.in_flight, BULK_WINDOW_ALL - BULK_WINDOW_USER);
    for (unsigned i = 0; i < 10; i++)
        bulk_claim_end(&greedy[i]);
    bulk_claim_end(&lone);
    ck_assert_uint_eq(all.in_flight, 0);
    ck_assert_ptr_null(all.by_name);
}
END_TEST

START_TEST(a_full_bucket_does_not_keep_other_buckets_waiting)
{
    struct bulk_claim full[3], other;

    for (unsigned i = 0; i < 3; i++)
        begin(&full[i], "full", 1, i);
    fill();
    ck_assert_uint_eq(all.in_flight, BULK_WINDOW_BUCKET);
    begin(&other, "other", 1, 0);
    ck_assert_ptr_eq(next_with_room(), &other);
    bulk_claim_end(&other);
    for (unsigned i = 0; i < 3; i++)
        bulk_claim_end(&full[i]);
}
END_TEST

START_TEST(a_place_in_a_full_bucket_goes_to_the_user_who_has_had_none)
{
    struct bulk_claim greedy[3], lone;

    for (unsigned i = 0; i < 3; i++)
        begin(&greedy[i], "full", 1, i);
    fill();
    begin(&lone, "full", 2, 100);
    ck_assert_ptr_null(next_with_room());
    bulk_claim_end_write(&greedy[0]);
    ck_assert_ptr_eq(next_with_room(), &lone);
    use_turn(&lone);
    ck_assert_uint_eq(lone.in_flight, 1);
    bulk_claim_end(&lone);
    for (unsigned i = 0; i < 3; i++)
        bulk_claim_end(&greedy[i]);
}
END_TEST

/* The loop cuts such work into slices, between the steps. */
START_TEST(calls_that_exchange_a_full_user_for_a_full_bucket_do_so_one_in_a_step)
{
    enum { CALLS = 1000 };
    static struct bulk_claim waiting[CALLS];
    struct bulk_claim silent[3], other, *claim;
    unsigned steps = 0;
    char bucket[16];

    for (unsigned i = 0; i < 3; i++) {
        snprintf(bucket, sizeof(bucket), "silent-%u", i);
        begin(&silent[i], bucket, 1, i);
    }
    fill(); /* the user is full */
    begin(&other, "wanted", 2, 100);
    for (unsigned i = 0; i < CALLS; i++)
        begin(&waiting[i], "wanted", 1, i);
    fill(); /* so is the bucket */
    ck_assert_uint_eq(all.in_flight, BULK_WINDOW_ALL);
    bulk_claim_end(&silent[0]);
    for (; bulk_windows_step(&all, &claim); steps++)
        ck_assert_ptr_null(claim);
    ck_assert_uint_ge(steps, CALLS);
    for (unsigned i = 0; i < CALLS; i++)
        bulk_claim_end(&waiting[i]);
    for (unsigned i = 1; i < 3; i++)
        bulk_claim_end(&silent[i]);
    bulk_claim_end(&other);
    ck_assert_uint_eq(all.in_flight, 0);
    ck_assert_ptr_null(all.by_name);
}
END_TEST

/* Whatever happens, no call waits while there is room for it. */
START_TEST(no_call_waits_while_it_has_room)
{
    enum { CALLS = 60, STEPS = 20000 };
    static struct bulk_claim claims[CALLS];
    static bool is_begun[CALLS], has_more[CALLS];
    struct bulk_claim *claim;
    char bucket[16];

    srand(1);
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned i = (unsigned)rand() % CALLS, kind = (unsigned)rand() % 8;
        if (!is_begun[i]) {
            snprintf(bucket, sizeof(bucket), "bucket-%u", (unsigned)rand() % 6);
            begin(&claims[i], bucket, (uint32_t)rand() % 3, i);
            is_begun[i] = has_more[i] = true;
        } else if (kind == 0) {
            bulk_claim_end(&claims[i]);
            is_begun[i] = false;
        } else {
            for (unsigned ended = 0; ended < kind * 8 && claims[i].in_flight > 0; ended++)
                bulk_claim_end_write(&claims[i]);
        }
        while ((claim = next_with_room()) != NULL) {
            unsigned writes = (unsigned)rand() % (TURN + 1);
            for (unsigned begun = 0; begun < writes && bulk_claim_has_room(claim); begun++)
                bulk_claim_begin_write(claim);
            has_more[claim - claims] = rand() % 8 > 0;
            bulk_claim_end_turn(claim, has_more[claim - claims]);
        }
        for (i = 0; i < CALLS; i++)
            ck_assert(!is_begun[i] || !has_more[i] || !bulk_claim_has_room(&claims[i]));
    }
    for (unsigned i = 0; i < CALLS; i++) {
        if (is_begun[i])
            bulk_claim_end(&claims[i]);
    }
    ck_assert_uint_eq(all.in_flight, 0);
    ck_assert_ptr_null(all.by_name);
}
END_TEST

Suite *bulk_window_suite(void)
{
    Suite *suite = suite_create("bulk_window");
    TCase *tests = tcase_create("bulk_window");

    tcase_add_test(tests, a_user_who_writes_to_many_buckets_leaves_places_for_others);
    tcase_add_test(tests, a_full_bucket_does_not_keep_other_buckets_waiting);
    tcase_add_test(tests, a_place_in_a_full_bucket_goes_to_the_user_who_has_had_none);
    tcase_add_test(tests, calls_that_exchange_a_full_user_for_a_full_bucket_do_so_one_in_a_step);
    tcase_add_test(tests, no_call_waits_while_it_has_room);
    suite_add_tcase(suite, tests);
    return suite;
}
