/* A set of names in byte order, compared with a sorted array after each of many changes. */
#include "daemon/store/read/key_order.h"
#include "tests/unit/suites.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES 3000u

static char names[NAMES][16];
static bool is_in[NAMES];

/* Numbers with leading zeros: their order is that of the array. */
static void make_names(void)
{
    memset(is_in, 0, sizeof(is_in));
    for (unsigned i = 0; i < NAMES; i++)
        snprintf(names[i], sizeof(names[i]), "k%06u", i);
}

static unsigned next_in(unsigned from)
{
    while (from < NAMES && !is_in[from])
        from++;
    return from;
}

static void check_all(const struct key_order *order)
{
    struct key_order_place place = key_order_find(order, "", false);
    const char *name;
    unsigned at = next_in(0);

    while ((name = key_order_next(order, &place)) != NULL) {
        ck_assert_uint_lt(at, NAMES);
        ck_assert_ptr_eq(name, names[at]);
        at = next_in(at + 1);
    }
    ck_assert_uint_eq(at, NAMES);
}

static void check_find(const struct key_order *order, unsigned number)
{
    struct key_order_place place = key_order_find(order, names[number], false);
    unsigned at = next_in(number), behind = next_in(number + 1);

    ck_assert_pstr_eq(key_order_next(order, &place), at < NAMES ? names[at] : NULL);
    place = key_order_find(order, names[number], true);
    ck_assert_pstr_eq(key_order_next(order, &place), behind < NAMES ? names[behind] : NULL);
}

static void add(struct key_order *order, unsigned number)
{
    ck_assert_int_eq(key_order_add(order, names[number]), KEY_ORDER_ADDED);
    ck_assert_int_eq(key_order_add(order, names[number]), KEY_ORDER_HAD_IT);
    is_in[number] = true;
}

static void add_all(struct key_order *order)
{
    make_names();
    for (unsigned i = 0; i < NAMES; i++)
        add(order, i);
}

static void toggle(struct key_order *order, unsigned number)
{
    if (!is_in[number]) {
        add(order, number);
        return;
    }
    key_order_remove(order, names[number]);
    is_in[number] = false;
}

START_TEST(random_changes_keep_the_order)
{
    struct key_order order = {0};
    unsigned seed = 16 + (unsigned)_i;

    make_names();
    for (unsigned i = 0; i < 40000; i++) {
        toggle(&order, (unsigned)rand_r(&seed) % NAMES);
        check_find(&order, (unsigned)rand_r(&seed) % NAMES);
        if (i % 500 == 0)
            check_all(&order);
    }
    for (unsigned i = 0; i < NAMES; i++) {
        if (is_in[i])
            toggle(&order, i);
    }
    check_all(&order);
    ck_assert_uint_eq(order.leaf_count, 0);
    key_order_clear(&order);
}
END_TEST

START_TEST(names_that_come_in_order_fill_their_leaves)
{
    struct key_order order = {0};

    add_all(&order);
    check_all(&order);
    ck_assert_uint_eq(order.leaf_count, (NAMES + KEY_ORDER_LEAF_NAMES - 1) / KEY_ORDER_LEAF_NAMES);
    key_order_clear(&order);
    ck_assert_uint_eq(order.bytes, 0);
}
END_TEST

START_TEST(removed_names_leave_no_memory)
{
    struct key_order order = {0};

    add_all(&order);
    size_t full = order.bytes;
    for (unsigned i = 0; i < NAMES; i++) {
        if (i % 10 != 0)
            toggle(&order, i);
    }
    check_all(&order);
    ck_assert_uint_lt(order.bytes, full / 3);
    key_order_clear(&order);
}
END_TEST

START_TEST(the_last_names_are_taken_one_by_one)
{
    struct key_order order = {0};

    ck_assert_ptr_null(key_order_remove_last(&order));
    add_all(&order);
    for (unsigned i = NAMES; i-- > 0;) {
        ck_assert_ptr_eq(key_order_last(&order), names[i]);
        ck_assert_ptr_eq(key_order_remove_last(&order), names[i]);
    }
    ck_assert_ptr_null(key_order_last(&order));
    ck_assert_uint_eq(order.leaf_count, 0);
    key_order_clear(&order);
}
END_TEST

START_TEST(removing_a_missing_name_does_nothing)
{
    struct key_order order = {0};

    key_order_remove(&order, "a");
    ck_assert_int_eq(key_order_add(&order, "b"), KEY_ORDER_ADDED);
    key_order_remove(&order, "a");
    key_order_remove(&order, "c");
    struct key_order_place place = key_order_find(&order, "a", false);
    ck_assert_str_eq(key_order_next(&order, &place), "b");
    ck_assert_ptr_null(key_order_next(&order, &place));
    key_order_clear(&order);
}
END_TEST

Suite *key_order_suite(void)
{
    Suite *suite = suite_create("key_order");
    TCase *tests = tcase_create("order");

    tcase_add_loop_test(tests, random_changes_keep_the_order, 0, 3);
    tcase_add_test(tests, names_that_come_in_order_fill_their_leaves);
    tcase_add_test(tests, removed_names_leave_no_memory);
    tcase_add_test(tests, the_last_names_are_taken_one_by_one);
    tcase_add_test(tests, removing_a_missing_name_does_nothing);
    suite_add_tcase(suite, tests);
    return suite;
}
