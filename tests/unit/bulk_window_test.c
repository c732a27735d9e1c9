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

/* Give turns to calls with writes without end, until there is no room. */
static void fill(void)
{
    struct bulk_claim *claim;

    while ((claim = bulk_windows_next(&all)) != NULL)
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
    ck_assert_ptr_eq(bulk_windows_next(&all), &lone);
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
    ck_assert_ptr_eq(bulk_windows_next(&all), &other);
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
    ck_assert_ptr_null(bulk_windows_next(&all));
    bulk_claim_end_write(&greedy[0]);
    ck_assert_ptr_eq(bulk_windows_next(&all), &lone);
    use_turn(&lone);
    ck_assert_uint_eq(lone.in_flight, 1);
    bulk_claim_end(&lone);
    for (unsigned i = 0; i < 3; i++)
        bulk_claim_end(&greedy[i]);
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
        while ((claim = bulk_windows_next(&all)) != NULL) {
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
    tcase_add_test(tests, no_call_waits_while_it_has_room);
    suite_add_tcase(suite, tests);
    return suite;
}
