/*
 * One careless or malicious client: a well-behaved neighbour must hardly notice it.
 *
 * Each test has a daemon of its own with the default limits. The neighbour's calls are measured before the attack and
 * during it: see neighbour.h. A machine that is busy with something else delays it as well, so an attack counts as
 * harmful only if the 99th percentile is both over a bound and many times what it was just before, in each of several
 * attempts. A call that fails is harm at once.
 */
#include "tests/integration/suites.h"
#include "tests/support/attack.h"
#include "tests/support/client.h"
#include "tests/support/machine.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"
#include "tests/support/neighbour.h"

#include <stdio.h>
#include <string.h>

/* The sanitizers slow down all that uses much memory. */
#ifdef __SANITIZE_ADDRESS__
#define P99_MAX_MS 1000.0
#else
#define P99_MAX_MS 250.0
#endif
#define P99_TIMES_CALM   10.0
#define CALM_CALLS       150u
#define ATTACK_SECONDS   1.5
#define ATTEMPTS         3u
#define NEIGHBOUR_BUCKET "neighbour"

static struct daemon daemon_of_test;

/* The bound is for a daemon that has a processor whenever it needs one. */
static bool is_harmless(const struct neighbour_report *attacked, const struct neighbour_report *calm, double contention)
{
    return attacked->p99_ms <= P99_MAX_MS * machine_slowness() * contention ||
           attacked->p99_ms <= P99_TIMES_CALM * calm->p99_ms;
}

/* Attack the running daemon. Return whether the neighbour noticed little. */
static bool attack_once(const struct attack_kind *kind)
{
    struct attack attack = {.socket_path = daemon_of_test.socket_path,
                            .neighbour_bucket = NEIGHBOUR_BUCKET,
                            .port = nats_embedded_port(daemon_of_test.data_dir),
                            .seconds = ATTACK_SECONDS};
    struct neighbour_report calm, attacked;

    attack_prepare(kind, &attack);
    ck_assert_msg(attack.error[0] == '\0', "%s: %s", kind->name, attack.error);
    struct neighbour *neighbour = neighbour_begin(attack.socket_path, NEIGHBOUR_BUCKET, &calm);
    ck_assert_msg(neighbour != NULL, "%s", calm.error);
    neighbour_report(neighbour, &calm); /* the first calls look up the bucket */
    neighbour_report_calls(neighbour, CALM_CALLS, &calm);
    struct machine_share share = machine_share_of(daemon_of_test.process.pid);
    attack_run(kind, &attack);
    neighbour_report(neighbour, &attacked);
    double contention = machine_contention(daemon_of_test.process.pid, &share);
    neighbour_end(neighbour);
    printf("neighbour of %s: p99 %.1f ms, before %.1f ms; longest %.0f ms; %zu calls; contention %.1f\n", kind->name,
           attacked.p99_ms, calm.p99_ms, attacked.longest_ms, attacked.calls, contention);
    fflush(stdout);
    ck_assert_msg(attack.error[0] == '\0', "%s: %s", kind->name, attack.error);
    ck_assert_msg(calm.error[0] == '\0', "a call of the neighbour failed before the attack: %s", calm.error);
    ck_assert_msg(attacked.error[0] == '\0', "%s: a call of the neighbour failed: %s", kind->name, attacked.error);
    return is_harmless(&attacked, &calm, contention);
}

/*
 * Start the daemon of the test, which runs afterwards. Each attempt has a new one, because the first attack is the
 * worst.
 */
static void attack_new_daemon(const struct attack_kind *kind)
{
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        daemon_start(&daemon_of_test, DAEMON_SYNCS_ALWAYS, NULL);
        if (attack_once(kind))
            return;
        process_kill(&daemon_of_test.process);
    }
    ck_abort_msg("%s: the neighbour waits for more than %.0f ms, and more than %.0f times as long as before",
                 kind->name, P99_MAX_MS * machine_slowness(), P99_TIMES_CALM);
}

/* A whole test. */
static void neighbour_bears(const struct attack_kind *kind)
{
    attack_new_daemon(kind);
    daemon_stop(&daemon_of_test);
}

#define NEIGHBOUR_TEST(name, kind)                                                                                     \
    START_TEST(name)                                                                                                   \
    {                                                                                                                  \
        neighbour_bears(&(kind));                                                                                      \
    }                                                                                                                  \
    END_TEST

/* Memory. */
NEIGHBOUR_TEST(messages_that_never_end_cost_others_neither_their_sessions_nor_time, attack_unfinished_messages)
NEIGHBOUR_TEST(answers_that_nobody_reads_do_not_delay_others, attack_unread_answers)
NEIGHBOUR_TEST(arrays_that_are_large_once_decoded_do_not_delay_others, attack_decoded_arrays)
NEIGHBOUR_TEST(sessions_that_leave_with_thousands_of_calls_do_not_delay_others, attack_leaving)

/* Many keys in one call. */
NEIGHBOUR_TEST(bulk_puts_do_not_delay_others_in_the_same_bucket, attack_bulk_put_same_bucket)
NEIGHBOUR_TEST(bulk_puts_do_not_delay_others_in_another_bucket, attack_bulk_put_other_bucket)
NEIGHBOUR_TEST(bulk_gets_of_large_answers_do_not_delay_others, attack_bulk_get)
NEIGHBOUR_TEST(large_transactions_do_not_delay_others, attack_transactions)
NEIGHBOUR_TEST(transactions_with_many_checks_do_not_delay_others, attack_checks)

/* Many calls. */
NEIGHBOUR_TEST(thousands_of_puts_in_the_same_bucket_do_not_delay_others, attack_puts)
NEIGHBOUR_TEST(large_json_values_do_not_delay_others, attack_json_values)
NEIGHBOUR_TEST(listings_of_one_key_of_many_do_not_delay_others, attack_keys_limit_one)
NEIGHBOUR_TEST(pages_of_entries_do_not_delay_others, attack_entries)
NEIGHBOUR_TEST(deletions_of_all_keys_do_not_delay_others, attack_deletions)
NEIGHBOUR_TEST(filters_of_many_stars_do_not_delay_others, attack_bucket_filters)
NEIGHBOUR_TEST(thousands_of_gets_in_one_write_do_not_delay_others, attack_missing_keys)
NEIGHBOUR_TEST(thousands_of_histories_do_not_delay_others, attack_histories)

/* Watches. */
NEIGHBOUR_TEST(watches_that_start_and_stop_do_not_delay_others, attack_watch_churn)
NEIGHBOUR_TEST(tens_of_thousands_of_filters_do_not_delay_writes_to_their_bucket, attack_watch_filters)

/* Locks. */
NEIGHBOUR_TEST(locks_that_change_hands_do_not_delay_others, attack_lock_churn)
NEIGHBOUR_TEST(thousands_that_wait_for_a_lock_do_not_delay_others, attack_lock_waiters)
NEIGHBOUR_TEST(thousands_that_wait_for_a_lock_and_leave_do_not_delay_others, attack_leaving_waiters)

/* Connections. */
NEIGHBOUR_TEST(connections_that_close_at_once_do_not_delay_others, attack_connections)
NEIGHBOUR_TEST(strangers_at_the_port_of_the_embedded_server_do_not_delay_others, attack_wrong_logins)

START_TEST(cached_reads_of_buckets_that_do_not_exist_leave_room_for_watches)
{
    attack_new_daemon(&attack_missing_buckets);
    struct client *client = client_open(&daemon_of_test);
    assert_ok(client_call(client, "watch.start", "['%s']", NEIGHBOUR_BUCKET));
    client_close(client);
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *neighbour_suite(void)
{
    Suite *suite = suite_create("neighbour");
    TCase *tests = tcase_create("neighbour");

    tcase_add_test(tests, messages_that_never_end_cost_others_neither_their_sessions_nor_time);
    tcase_add_test(tests, answers_that_nobody_reads_do_not_delay_others);
    tcase_add_test(tests, arrays_that_are_large_once_decoded_do_not_delay_others);
    tcase_add_test(tests, sessions_that_leave_with_thousands_of_calls_do_not_delay_others);
    tcase_add_test(tests, bulk_puts_do_not_delay_others_in_the_same_bucket);
    tcase_add_test(tests, bulk_puts_do_not_delay_others_in_another_bucket);
    tcase_add_test(tests, bulk_gets_of_large_answers_do_not_delay_others);
    tcase_add_test(tests, large_transactions_do_not_delay_others);
    tcase_add_test(tests, transactions_with_many_checks_do_not_delay_others);
    tcase_add_test(tests, thousands_of_puts_in_the_same_bucket_do_not_delay_others);
    tcase_add_test(tests, large_json_values_do_not_delay_others);
    tcase_add_test(tests, listings_of_one_key_of_many_do_not_delay_others);
    tcase_add_test(tests, pages_of_entries_do_not_delay_others);
    tcase_add_test(tests, deletions_of_all_keys_do_not_delay_others);
    tcase_add_test(tests, filters_of_many_stars_do_not_delay_others);
    tcase_add_test(tests, thousands_of_gets_in_one_write_do_not_delay_others);
    tcase_add_test(tests, thousands_of_histories_do_not_delay_others);
    tcase_add_test(tests, watches_that_start_and_stop_do_not_delay_others);
    tcase_add_test(tests, tens_of_thousands_of_filters_do_not_delay_writes_to_their_bucket);
    tcase_add_test(tests, locks_that_change_hands_do_not_delay_others);
    tcase_add_test(tests, thousands_that_wait_for_a_lock_do_not_delay_others);
    tcase_add_test(tests, thousands_that_wait_for_a_lock_and_leave_do_not_delay_others);
    tcase_add_test(tests, connections_that_close_at_once_do_not_delay_others);
    tcase_add_test(tests, strangers_at_the_port_of_the_embedded_server_do_not_delay_others);
    tcase_add_test(tests, cached_reads_of_buckets_that_do_not_exist_leave_room_for_watches);
    suite_add_tcase(suite, tests);
    return suite;
}
