/* A reply finds the request that it answers, and no other. */
#include "daemon/nats/reply_table.h"
#include "tests/unit/suites.h"

#include <stdio.h>

#define INBOX "_INBOX.unique."

static struct reply_table table;
static int requests[200]; /* their addresses are compared */

static void begin(void)
{
    ck_assert_int_eq(reply_table_init(&table), 0);
}

static void end(void)
{
    reply_table_free(&table);
}

static void *find(const char *subject, const char *reply, uint32_t *attempt)
{
    const struct message message = {.subject = subject, .reply = reply};

    return reply_table_find(&table, INBOX, &message, attempt);
}

static void *find_token(const char *token, uint32_t *attempt)
{
    char subject[64];

    snprintf(subject, sizeof(subject), INBOX "%s", token);
    return find(subject, NULL, attempt);
}

START_TEST(each_request_is_found_with_its_attempt)
{
    char token[REPLY_TOKEN_BYTES];
    uint32_t attempt;

    for (unsigned i = 0; i < 200; i++)
        ck_assert_uint_eq(reply_table_acquire(&table, &requests[i]), i);
    for (unsigned i = 0; i < 200; i++) {
        reply_table_write_token(&table, i, i + 1, token);
        ck_assert_ptr_eq(find_token(token, &attempt), &requests[i]);
        ck_assert_uint_eq(attempt, i + 1);
    }
}
END_TEST

START_TEST(a_reply_to_an_earlier_request_in_the_slot_finds_nothing)
{
    char token[REPLY_TOKEN_BYTES];
    uint32_t attempt;
    uint32_t slot = reply_table_acquire(&table, &requests[0]);

    reply_table_write_token(&table, slot, 1, token);
    reply_table_release(&table, slot, false);
    ck_assert_ptr_null(find_token(token, &attempt));
    ck_assert_uint_eq(reply_table_acquire(&table, &requests[1]), slot);
    ck_assert_ptr_null(find_token(token, &attempt));
}
END_TEST

START_TEST(a_slot_that_keeps_its_generation_keeps_its_subjects)
{
    char token[REPLY_TOKEN_BYTES];
    uint32_t attempt;
    uint32_t slot = reply_table_acquire(&table, &requests[0]);

    reply_table_write_token(&table, slot, 1, token);
    reply_table_release(&table, slot, true);
    ck_assert_uint_eq(reply_table_acquire(&table, &requests[1]), slot);
    ck_assert_ptr_eq(find_token(token, &attempt), &requests[1]);
}
END_TEST

START_TEST(a_delivery_is_found_by_its_consumers_name)
{
    char token[REPLY_TOKEN_BYTES], reply[256];
    uint32_t attempt;
    uint32_t slot = reply_table_acquire(&table, &requests[0]);

    reply_table_write_token(&table, slot, 7, token);
    snprintf(reply, sizeof(reply), "$JS.ACK.KV_b.kvstored-%s.1.2.3.4.5", token);
    ck_assert_ptr_eq(find("$KV.b.key", reply, &attempt), &requests[0]);
    ck_assert_uint_eq(attempt, 7);
    snprintf(reply, sizeof(reply), "$JS.ACK.domain.account.KV_b.kvstored-%s.1.2.3.4.5.random", token);
    ck_assert_ptr_eq(find("$KV.b.key", reply, &attempt), &requests[0]);
}
END_TEST

START_TEST(subjects_without_a_token_find_nothing)
{
    uint32_t attempt;

    reply_table_acquire(&table, &requests[0]);
    ck_assert_ptr_null(find_token("", &attempt));
    ck_assert_ptr_null(find_token("ping", &attempt));
    ck_assert_ptr_null(find_token("0000000000000001000G", &attempt));
    ck_assert_ptr_null(find_token("ffffffff000000010001", &attempt));
    ck_assert_ptr_null(find("other", NULL, &attempt));
    ck_assert_ptr_null(find("$KV.b.key", "$JS.ACK.KV_b.short.1.2.3.4.5", &attempt));
    ck_assert_ptr_null(find("$KV.b.key", "$JS.ACK.KV_b", &attempt));
}
END_TEST

Suite *reply_table_suite(void)
{
    Suite *suite = suite_create("reply table");
    TCase *tests = tcase_create("reply table");

    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, each_request_is_found_with_its_attempt);
    tcase_add_test(tests, a_reply_to_an_earlier_request_in_the_slot_finds_nothing);
    tcase_add_test(tests, a_slot_that_keeps_its_generation_keeps_its_subjects);
    tcase_add_test(tests, a_delivery_is_found_by_its_consumers_name);
    tcase_add_test(tests, subjects_without_a_token_find_nothing);
    suite_add_tcase(suite, tests);
    return suite;
}
