/* The record of writes with an id: what it knows after the daemon was killed and started again. */
#include "daemon/store/journal.h"
#include "tests/support/test_run.h"
#include "tests/unit/suites.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char path[PATH_BYTES + 8];
static struct journal *journal;
static uint64_t revision;
static struct journal_copy copy;

static void begin(void)
{
    char directory[PATH_BYTES];
    const char *reason;

    test_run_make_directory(directory);
    snprintf(path, sizeof(path), "%s/journal", directory);
    journal = journal_open(path, &reason);
    ck_assert_msg(journal != NULL, "%s", reason);
}

static void end(void)
{
    journal_close(journal);
}

/* As if the daemon was killed: nothing is written at its end that a kill would prevent. */
static void start_anew(void)
{
    const char *reason;

    journal_close(journal);
    journal = journal_open(path, &reason);
    ck_assert_msg(journal != NULL, "%s", reason);
}

static uint64_t clock_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

/* Of this thread: other programs do not count. */
static uint64_t processor_us(void)
{
    struct timespec used;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000u + (uint64_t)used.tv_nsec / 1000u;
}

static struct journal_call first_call(const char *id)
{
    return (struct journal_call){.id = id, .id_bytes = strlen(id), .uid = 7};
}

static struct journal_call repeated_call(const char *id, uint64_t first_sent_us)
{
    struct journal_call call = first_call(id);

    call.first_sent_us = first_sent_us;
    return call;
}

static enum journal_finding find(struct journal_call *call)
{
    return journal_begin(journal, call, &revision, &copy);
}

START_TEST(a_stored_write_is_known_after_a_restart)
{
    uint64_t before = clock_us();
    struct journal_call call = first_call("identity-1"), again = repeated_call("identity-1", before);

    ck_assert_int_eq(find(&call), JOURNAL_NEW);
    journal_note_sent(journal, &call, &(struct journal_copy){.message_id = "m", .value = -5});
    journal_end(journal, &call, 17, NULL);
    start_anew();
    ck_assert_int_eq(find(&again), JOURNAL_STORED);
    ck_assert_uint_eq(revision, 17);
    ck_assert_int_eq(copy.value, -5);
}
END_TEST

START_TEST(a_write_that_was_sent_is_in_doubt_after_a_restart)
{
    uint64_t before = clock_us();
    struct journal_call call = first_call("identity-1"), again = repeated_call("identity-1", before);

    ck_assert_int_eq(find(&call), JOURNAL_NEW);
    journal_note_sent(journal, &call, &(struct journal_copy){.message_id = "m-1", .messages_after = 3, .sent_ms = 5});
    start_anew();
    ck_assert_int_eq(find(&again), JOURNAL_IN_DOUBT);
    ck_assert_str_eq(copy.message_id, "m-1");
    ck_assert_uint_eq(copy.messages_after, 3);
    ck_assert(copy.is_of_last_run);
    /* It is killed again before the write is decided. */
    start_anew();
    again = repeated_call("identity-1", before);
    ck_assert_int_eq(find(&again), JOURNAL_IN_DOUBT);
    ck_assert(!copy.is_of_last_run);
}
END_TEST

START_TEST(a_write_that_was_not_sent_is_new_after_a_restart)
{
    uint64_t before = clock_us();
    struct journal_call call = first_call("identity-1"), failed = first_call("identity-2");
    struct journal_call again = repeated_call("identity-1", before), again_failed = repeated_call("identity-2", before);
    struct journal_call never = repeated_call("identity-3", before);

    ck_assert_int_eq(find(&call), JOURNAL_NEW);
    ck_assert_int_eq(find(&failed), JOURNAL_NEW);
    journal_note_sent(journal, &failed, &copy);
    journal_end(journal, &failed, 0, &(struct error){.outcome = ERROR_OUTCOME_NONE});
    start_anew();
    ck_assert_int_eq(find(&again), JOURNAL_NEW);
    ck_assert_int_eq(find(&again_failed), JOURNAL_NEW);
    ck_assert_int_eq(find(&never), JOURNAL_NEW);
}
END_TEST

START_TEST(a_repeated_call_waits_while_the_first_one_runs)
{
    uint64_t before = clock_us();
    struct journal_call call = first_call("identity-1"), again = repeated_call("identity-1", before);

    ck_assert_int_eq(find(&call), JOURNAL_NEW);
    ck_assert_int_eq(find(&again), JOURNAL_RUNNING);
    journal_note_sent(journal, &call, &copy);
    journal_end(journal, &call, 0, &(struct error){.outcome = ERROR_OUTCOME_UNKNOWN});
    ck_assert_int_eq(find(&again), JOURNAL_IN_DOUBT);
}
END_TEST

START_TEST(users_and_parts_of_a_call_have_ids_of_their_own)
{
    uint64_t before = clock_us();
    struct journal_call call = first_call("identity-1"), other = repeated_call("identity-1", before);
    struct journal_call part = repeated_call("identity-1", before);

    ck_assert_int_eq(find(&call), JOURNAL_NEW);
    journal_end(journal, &call, 17, NULL);
    other.uid = 8;
    ck_assert_int_eq(find(&other), JOURNAL_NEW);
    part.part = 1;
    ck_assert_int_eq(find(&part), JOURNAL_NEW);
}
END_TEST

START_TEST(a_write_that_may_have_been_dropped_is_forgotten)
{
    uint64_t before = clock_us();
    struct journal_call running = first_call("it-runs-on"), again = repeated_call("it-runs-on", before);
    char id[16];

    ck_assert_int_eq(find(&running), JOURNAL_NEW);
    for (unsigned i = 0; i < 65536 + 10; i++) {
        snprintf(id, sizeof(id), "write-%06u", i);
        struct journal_call call = first_call(id);
        ck_assert_int_eq(find(&call), JOURNAL_NEW);
        journal_end(journal, &call, i, NULL);
    }
    struct journal_call first = repeated_call("write-000000", before), last = repeated_call("write-065545", before);
    ck_assert_int_eq(find(&first), JOURNAL_FORGOTTEN);
    ck_assert_int_eq(find(&last), JOURNAL_STORED);
    ck_assert_uint_eq(revision, 65545);
    /* An entry in use is not dropped, and what begins later is known to be new. */
    ck_assert_int_eq(find(&again), JOURNAL_RUNNING);
    struct journal_call later = repeated_call("later-one", clock_us());
    ck_assert_int_eq(find(&later), JOURNAL_NEW);
}
END_TEST

/* Begin and end calls of a user with the ids write-<first> and following. */
static void write_many(uint32_t uid, unsigned first, unsigned count)
{
    char id[16];

    for (unsigned i = first; i < first + count; i++) {
        snprintf(id, sizeof(id), "write-%06u", i);
        struct journal_call call = first_call(id);
        call.uid = uid;
        ck_assert_int_eq(find(&call), JOURNAL_NEW);
        journal_end(journal, &call, i, NULL);
    }
}

static enum journal_finding find_again(uint32_t uid, unsigned number, uint64_t first_sent_us)
{
    char id[16];

    snprintf(id, sizeof(id), "write-%06u", number);
    struct journal_call call = repeated_call(id, first_sent_us);
    call.uid = uid;
    return find(&call);
}

START_TEST(a_user_who_writes_much_pushes_out_writes_of_that_user_only)
{
    uint64_t before = clock_us();

    write_many(8, 0, 100);
    write_many(7, 0, 65536);
    write_many(8, 100, 100);
    start_anew();
    write_many(7, 65536, 70000);
    write_many(8, 200, 1);
    ck_assert_int_eq(find_again(8, 0, before), JOURNAL_STORED);
    ck_assert_uint_eq(revision, 0);
    ck_assert_int_eq(find_again(8, 199, before), JOURNAL_STORED);
    ck_assert_uint_eq(revision, 199);
    ck_assert_int_eq(find_again(7, 135535, before), JOURNAL_STORED);
    ck_assert_int_eq(find_again(7, 1000, before), JOURNAL_FORGOTTEN);
    /* Nothing of the other user was dropped, so what is not there was never sent. */
    ck_assert_int_eq(find_again(8, 500, before), JOURNAL_NEW);
}
END_TEST

START_TEST(after_a_restart_a_user_still_loses_the_oldest_writes_first)
{
    uint64_t before = clock_us();

    write_many(7, 0, 65536);
    write_many(7, 65536, 1000); /* at the places of the oldest */
    start_anew();
    write_many(7, 66536, 30000);
    ck_assert_int_eq(find_again(7, 30999, before), JOURNAL_FORGOTTEN);
    ck_assert_int_eq(find_again(7, 31000, before), JOURNAL_STORED);
    ck_assert_int_eq(find_again(7, 65537, before), JOURNAL_STORED);
    ck_assert_uint_eq(revision, 65537);
}
END_TEST

START_TEST(many_users_cost_as_little_as_one)
{
    enum { USERS = 5000, CALLS = 20 };
    uint64_t took_us[2], begin_us;

    for (unsigned round = 0; round < 2; round++) {
        begin_us = processor_us();
        for (uint32_t user = 0; user < USERS; user++)
            write_many(round == 0 ? 1 : user, user * CALLS, CALLS);
        took_us[round] = processor_us() - begin_us;
    }
    ck_assert_uint_lt(took_us[1], 8 * took_us[0]);
}
END_TEST

START_TEST(a_file_that_is_missing_knows_that_it_knows_nothing)
{
    uint64_t before = clock_us();
    struct journal_call call = first_call("identity-1"), again = repeated_call("identity-1", before);

    ck_assert_int_eq(find(&call), JOURNAL_NEW);
    journal_end(journal, &call, 17, NULL);
    unlink(path);
    start_anew();
    ck_assert_int_eq(find(&again), JOURNAL_FORGOTTEN);
}
END_TEST

START_TEST(an_id_of_another_call_is_refused)
{
    uint64_t before = clock_us();
    struct journal_call call = first_call("identity-1"), other = first_call("identity-1");
    struct journal_call again = repeated_call("identity-1", before);

    journal_describe(journal, &call, "key", 3);
    journal_describe(journal, &again, "kez", 3);
    ck_assert_int_eq(find(&call), JOURNAL_NEW);
    ck_assert_int_eq(find(&other), JOURNAL_OTHER_CALL);
    ck_assert_int_eq(find(&again), JOURNAL_OTHER_CALL);
    journal_end(journal, &call, 17, NULL);
    start_anew();
    ck_assert_int_eq(find(&again), JOURNAL_OTHER_CALL);
    again = repeated_call("identity-1", before);
    journal_describe(journal, &again, "key", 3);
    ck_assert_int_eq(find(&again), JOURNAL_STORED);
    /* The first call of an id that was used replaces the earlier one. */
    ck_assert_int_eq(find(&other), JOURNAL_NEW);
    journal_end(journal, &other, 18, NULL);
    again = repeated_call("identity-1", before);
    ck_assert_int_eq(find(&again), JOURNAL_STORED);
    ck_assert_uint_eq(revision, 18);
}
END_TEST

/* The calls of a client that gives all of them one id must not make the others' dearer. */
START_TEST(one_id_for_all_calls_costs_as_little_as_one_for_each)
{
    const unsigned calls = 65536 + 30000;
    uint64_t took_us[2], begin_us;
    char id[16];

    for (unsigned round = 0; round < 2; round++) {
        begin_us = processor_us();
        for (unsigned i = 0; i < calls; i++) {
            snprintf(id, sizeof(id), "write-%06u", round == 0 ? i : 0);
            struct journal_call call = first_call(id);
            ck_assert_int_eq(find(&call), JOURNAL_NEW);
            journal_end(journal, &call, i, NULL);
        }
        took_us[round] = processor_us() - begin_us;
    }
    ck_assert_uint_lt(took_us[1], 8 * took_us[0]);
}
END_TEST

/* Overwrite the bytes before an id in the file. */
static void damage_before(const char *id, size_t bytes, const void *with)
{
    size_t length = 64u << 20;
    FILE *file = fopen(path, "r+");
    char *content = malloc(length);

    ck_assert_ptr_nonnull(file);
    ck_assert_ptr_nonnull(content);
    length = fread(content, 1, length, file);
    const char *at = memmem(content, length, id, strlen(id));
    ck_assert_ptr_nonnull(at);
    ck_assert_int_eq(fseek(file, at - content - (long)bytes, SEEK_SET), 0);
    ck_assert_uint_eq(fwrite(with, 1, bytes, file), bytes);
    fclose(file);
    free(content);
}

/* All calls are in progress, as if NATS does not answer. */
START_TEST(a_call_for_which_there_is_no_place_costs_as_little_as_others)
{
    enum { CALLS = 65536, MORE = 10000 };
    struct journal_call *calls = calloc(CALLS + MORE, sizeof(*calls));
    char(*ids)[16] = calloc(CALLS + MORE, sizeof(*ids));

    ck_assert_ptr_nonnull(calls);
    ck_assert_ptr_nonnull(ids);
    for (unsigned i = 0; i < CALLS + MORE; i++) {
        snprintf(ids[i], sizeof(ids[i]), "call-%06u", i);
        calls[i] = first_call(ids[i]);
    }
    uint64_t began_us = processor_us();
    for (unsigned i = 0; i < CALLS; i++)
        ck_assert_int_eq(find(&calls[i]), JOURNAL_NEW);
    uint64_t full_us = processor_us();
    for (unsigned i = CALLS; i < CALLS + MORE; i++)
        ck_assert_int_eq(find(&calls[i]), JOURNAL_NEW);
    uint64_t done_us = processor_us();
    ck_assert_uint_eq(calls[CALLS].place, 0);
    ck_assert_msg(done_us - full_us < full_us - began_us, "%u calls took %u us, and %u others %u us", MORE,
                  (unsigned)(done_us - full_us), CALLS, (unsigned)(full_us - began_us));
    journal_cancel(journal, &calls[0]);
    ck_assert_int_eq(find(&calls[CALLS]), JOURNAL_NEW);
    ck_assert_uint_ne(calls[CALLS].place, 0);
    free(ids);
    free(calls);
}
END_TEST

START_TEST(a_damaged_entry_is_forgotten)
{
    const uint32_t huge = UINT32_MAX;
    uint64_t before = clock_us();
    struct journal_call call = first_call("identity-1"), whole = first_call("identity-2");
    struct journal_call again = repeated_call("identity-1", before), again_whole = repeated_call("identity-2", before);

    ck_assert_int_eq(find(&call), JOURNAL_NEW);
    ck_assert_int_eq(find(&whole), JOURNAL_NEW);
    journal_end(journal, &call, 17, NULL);
    journal_end(journal, &whole, 18, NULL);
    damage_before("identity-1", sizeof(huge), &huge); /* the length of the id */
    start_anew();
    ck_assert_int_eq(find(&again), JOURNAL_FORGOTTEN);
    ck_assert_int_eq(find(&again_whole), JOURNAL_STORED);
}
END_TEST

START_TEST(a_damaged_file_is_used_again)
{
    char id[16], damage[4096];

    ck_assert_int_eq(find(&(struct journal_call){.id = "identity-1", .id_bytes = 10}), JOURNAL_NEW);
    FILE *file = fopen(path, "r+");
    ck_assert_ptr_nonnull(file);
    memset(damage, 0xff, sizeof(damage));
    ck_assert_int_eq(fseek(file, 64, SEEK_SET), 0); /* after the name of the format, the boot and what is in use */
    for (unsigned i = 0; i < 3000; i++)
        ck_assert_uint_eq(fwrite(damage, 1, sizeof(damage), file), sizeof(damage));
    fclose(file);
    start_anew();
    for (unsigned i = 0; i < 65536 + 10; i++) {
        snprintf(id, sizeof(id), "write-%06u", i);
        struct journal_call call = first_call(id);
        ck_assert_int_eq(find(&call), JOURNAL_NEW);
        journal_end(journal, &call, i, NULL);
    }
    struct journal_call again = repeated_call(id, 1);
    ck_assert_int_eq(find(&again), JOURNAL_STORED);
}
END_TEST

START_TEST(a_file_that_was_cut_off_knows_that_it_knows_nothing)
{
    struct stat state;
    const char *reason;
    char id[16];

    uint64_t before = clock_us();
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(id, sizeof(id), "write-%04u", i);
        struct journal_call call = first_call(id);
        ck_assert_int_eq(find(&call), JOURNAL_NEW);
        journal_end(journal, &call, i + 1, NULL);
    }
    journal_close(journal);
    ck_assert_int_eq(stat(path, &state), 0);
    ck_assert_int_eq(truncate(path, 4096), 0);
    journal = journal_open(path, &reason);
    ck_assert_ptr_nonnull(journal);
    struct journal_call again = repeated_call(id, before);
    ck_assert_int_eq(find(&again), JOURNAL_FORGOTTEN);
    struct stat now;
    ck_assert_int_eq(stat(path, &now), 0);
    ck_assert_int_eq(now.st_size, state.st_size);
}
END_TEST

START_TEST(two_daemons_do_not_share_a_file)
{
    const char *reason;

    ck_assert_ptr_null(journal_open(path, &reason));
}
END_TEST

START_TEST(a_file_to_which_others_can_write_is_not_used)
{
    const char *reason;

    journal_close(journal);
    ck_assert_int_eq(chmod(path, 0666), 0);
    journal = journal_open(path, &reason);
    ck_assert_ptr_null(journal);
}
END_TEST

Suite *journal_suite(void)
{
    Suite *suite = suite_create("journal");
    TCase *tests = tcase_create("journal");

    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, a_stored_write_is_known_after_a_restart);
    tcase_add_test(tests, a_write_that_was_sent_is_in_doubt_after_a_restart);
    tcase_add_test(tests, a_write_that_was_not_sent_is_new_after_a_restart);
    tcase_add_test(tests, a_repeated_call_waits_while_the_first_one_runs);
    tcase_add_test(tests, users_and_parts_of_a_call_have_ids_of_their_own);
    tcase_add_test(tests, a_write_that_may_have_been_dropped_is_forgotten);
    tcase_add_test(tests, a_user_who_writes_much_pushes_out_writes_of_that_user_only);
    tcase_add_test(tests, after_a_restart_a_user_still_loses_the_oldest_writes_first);
    tcase_add_test(tests, many_users_cost_as_little_as_one);
    tcase_add_test(tests, a_file_that_is_missing_knows_that_it_knows_nothing);
    tcase_add_test(tests, an_id_of_another_call_is_refused);
    tcase_add_test(tests, one_id_for_all_calls_costs_as_little_as_one_for_each);
    tcase_add_test(tests, a_call_for_which_there_is_no_place_costs_as_little_as_others);
    tcase_add_test(tests, a_damaged_entry_is_forgotten);
    tcase_add_test(tests, a_damaged_file_is_used_again);
    tcase_add_test(tests, a_file_that_was_cut_off_knows_that_it_knows_nothing);
    tcase_add_test(tests, two_daemons_do_not_share_a_file);
    tcase_add_test(tests, a_file_to_which_others_can_write_is_not_used);
    suite_add_tcase(suite, tests);
    return suite;
}
