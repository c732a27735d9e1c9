/* What becomes of locks and ephemeral keys when their session, daemon or machine ends; and how an owner comes back. */
#include "tests/fault/deployment.h"
#include "tests/fault/suites.h"
#include "tests/support/calls.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TTL_MS 2000u
#define CONF   DEPLOYMENT_ATTEMPTS(60) "locks:\n  lease_ttl: 2\n"

/* So long that nobody waits for its end. */
#define LONG_CONF DEPLOYMENT_ATTEMPTS(60) "locks:\n  lease_ttl: 600\n"

/* Short enough to see some renewals. */
#define SHORT_TTL_MS 3000u
#define SHORT_CONF   DEPLOYMENT_ATTEMPTS(60) "locks:\n  lease_ttl: 3\n"

#define KEYS      1000u
#define MANY_KEYS 10000u

#define OWNER "'owner': 'owner-0001'"

static struct deployment one, two;

static void begin_embedded(void)
{
    deployment_begin_embedded(&one, LONG_CONF);
    deployment_make_short_bucket(&one, "b");
}

static void begin_idle(void)
{
    deployment_begin_embedded(&one, SHORT_CONF);
    deployment_make_short_bucket(&one, "b");
}

static void begin_external(void)
{
    deployment_begin(&one, 1, LONG_CONF);
    deployment_make_short_bucket(&one, "b");
}

static void begin_two(void)
{
    deployment_begin(&one, 1, CONF);
    deployment_make_short_bucket(&one, "b");
    deployment_join(&two, &one, CONF);
}

static void end(void)
{
    deployment_end(&one);
}

static void end_two(void)
{
    deployment_end(&two);
    deployment_end(&one);
}

/* Put many ephemeral keys in one session, with some calls in flight at a time. */
static void put_ephemeral(struct client *client, unsigned count)
{
    enum { IN_FLIGHT = 100 };
    uint32_t sent[IN_FLIGHT];

    for (unsigned i = 0; i < count; i += IN_FLIGHT) {
        for (unsigned j = 0; j < IN_FLIGHT; j++)
            sent[j] = client_send(client, "kv.put", "['b', 'here.%05u', 'x', {'ephemeral': true}]", i + j);
        for (unsigned j = 0; j < IN_FLIGHT; j++)
            assert_ok(client_wait(client, sent[j]));
        client_forget(client);
    }
}

static size_t count_keys(struct client *client, const char *filter)
{
    const struct answer *answer = client_call(client, "kv.keys", "['b', {'filter': '%s'}]", filter);

    assert_ok(answer);
    size_t count = count_at(&answer->result, "");
    client_forget(client);
    return count;
}

/* --- Deaths ---------------------------------------------------------------------------------------- */

/* The machine has restarted: what was beside the socket is lost, and nobody uses locks in the bucket. */
START_TEST(an_embedded_daemon_that_was_killed_deletes_its_keys_when_it_is_back)
{
    put_text(one.client, "b", "stays", "x");
    assert_ok(client_call(one.client, "lock.acquire", "['b', 'owned', {" OWNER "}]"));
    put_ephemeral(one.client, KEYS);
    ck_assert_uint_eq(count_keys(one.client, ">"), KEYS + 2);
    deployment_kill_daemon(&one);
    unlink(format_text("%s.leases", one.daemon.socket_path));
    deployment_restart_daemon(&one);
    uint64_t ready_ms = now_ms();
    wait_until(count_keys(one.client, "here.>") == 0, "the keys to go");
    printf("locks: %u keys of a killed daemon are deleted %llu ms after it is ready again\n", KEYS,
           (unsigned long long)(now_ms() - ready_ms));
    ck_assert_uint_eq(count_keys(one.client, ">"), 2);
}
END_TEST

START_TEST(another_daemon_deletes_the_keys_of_one_that_was_killed_within_two_ttls)
{
    put_ephemeral(one.client, KEYS);
    assert_ok(client_call(two.client, "kv.put", "['b', 'there', 'x', {'ephemeral': true}]"));
    uint64_t killed_ms = now_ms();
    deployment_kill_daemon(&one);
    wait_until(count_keys(two.client, "here.>") == 0, "the keys to go");
    uint64_t took_ms = now_ms() - killed_ms;
    printf("locks: %u keys of a killed daemon are deleted by another one after %llu ms\n", KEYS,
           (unsigned long long)took_ms);
    ck_assert_uint_lt(took_ms, 2 * TTL_MS + 3000); /* for a busy machine */
    ck_assert_uint_eq(count_keys(two.client, ">"), 1);
    deployment_restart_daemon(&one);
}
END_TEST

/* Others' calls go on beside the deletions. */
START_TEST(a_session_with_many_keys_ends_beside_other_sessions)
{
    struct client *leaving = client_open(&one.daemon);
    uint64_t slowest_ms = 0;
    unsigned calls = 0;

    put_ephemeral(leaving, MANY_KEYS);
    wait_for_stat(one.client, "locks.held", MANY_KEYS);
    client_close(leaving);
    uint64_t left_ms = now_ms();
    do {
        uint64_t start_ms = now_ms();
        put_text(one.client, "b", "other", "x");
        slowest_ms = now_ms() - start_ms > slowest_ms ? now_ms() - start_ms : slowest_ms;
        client_forget(one.client);
        ck_assert_uint_lt(now_ms(), left_ms + PATIENCE_MS);
    } while (++calls % 100 != 0 || count_keys(one.client, "here.>") > 0);
    uint64_t all_ms = now_ms() - left_ms;
    printf("locks: %u keys of a session are deleted after %llu ms; the slowest of %u puts beside that took %llu ms\n",
           MANY_KEYS, (unsigned long long)all_ms, calls, (unsigned long long)slowest_ms);
    /* In line behind all deletions it would take as long as they do. A busy disk may stop everything for seconds. */
    ck_assert(slowest_ms < 2000 || slowest_ms < all_ms / 2);
}
END_TEST

/* --- Holding --------------------------------------------------------------------------------------- */

/* Return the processor time that the daemon has used, in milliseconds. */
static uint64_t daemon_cpu_ms(void)
{
    unsigned long long user = 0, system = 0;
    const char *stat = strrchr(read_file(format_text("/proc/%d/stat", (int)one.daemon.process.pid)), ')');

    ck_assert(stat != NULL &&
              sscanf(stat, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user, &system) == 2);
    return (user + system) * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

static uint64_t messages_of_bucket(void)
{
    return number_at(&client_call(one.client, "bucket.info", "['b']")->result, "last_revision");
}

/* Watch the idle daemon for some renewals. Return whether it has used less than 1 % of a processor. */
static bool holding_costs_little(void)
{
    enum { RENEWALS = 4 };
    uint64_t begin_ms = now_ms(), cpu_ms = daemon_cpu_ms(), revision = messages_of_bucket();
    uint64_t renewals = deployment_stat(&one, "locks.renewals");

    while (now_ms() < begin_ms + RENEWALS * SHORT_TTL_MS / 3)
        usleep(100000); /* the daemon is to be idle: no calls */
    uint64_t passed_ms = now_ms() - begin_ms;
    cpu_ms = daemon_cpu_ms() - cpu_ms;
    renewals = deployment_stat(&one, "locks.renewals") - renewals;
    revision = messages_of_bucket() - revision;
    printf("locks: %llu renewals, %llu writes and %llu ms of a processor in %llu ms\n", (unsigned long long)renewals,
           (unsigned long long)revision, (unsigned long long)cpu_ms, (unsigned long long)passed_ms);
    ck_assert_uint_le(revision, passed_ms / (SHORT_TTL_MS / 3) + 1);
    ck_assert_uint_ge(renewals, 1);
    return cpu_ms <= passed_ms / 100 + 10; /* the clock of /proc has ticks of 10 ms */
}

/* However many locks a daemon's sessions hold, it writes only its lease. Other programs only add to what it costs. */
START_TEST(ten_thousand_locks_cost_a_write_each_third_of_a_ttl)
{
    enum { SESSIONS = 10, LOCKS = 1000, ATTEMPTS = 5 };
    struct client *clients[SESSIONS];

    for (unsigned i = 0; i < SESSIONS; i++) {
        clients[i] = client_open(&one.daemon);
        uint32_t last = 0;
        for (unsigned j = 0; j < LOCKS; j++)
            last = client_send(clients[i], "lock.acquire", "['b', 'lock.%u.%u']", i, j);
        assert_ok(client_wait(clients[i], last));
    }
    wait_for_stat(one.client, "locks.held", SESSIONS * LOCKS);
    uint64_t renewals = deployment_stat(&one, "locks.renewals");
    wait_until(deployment_stat(&one, "locks.renewals") > renewals, "a renewal"); /* the acquisitions are over */
    unsigned attempts = 1;
    while (!holding_costs_little())
        ck_assert_msg(attempts++ < ATTEMPTS, "%u locks take more than 1 %% of a processor", SESSIONS * LOCKS);
    ck_assert_uint_eq(deployment_stat(&one, "locks.held"), SESSIONS * LOCKS);
    for (unsigned i = 0; i < SESSIONS; i++)
        client_close(clients[i]);
}
END_TEST

/* --- Owners ---------------------------------------------------------------------------------------- */

/* Acquire the lock as an owner, and return its token. */
static uint64_t acquire_owned(struct client *client)
{
    const struct answer *answer = client_call(client, "lock.acquire", "['b', 'lock', {" OWNER ", 'wait': 100}]");

    assert_ok(answer);
    ck_assert_double_gt(double_at(&answer->result, "valid_for"), 0);
    return number_at(&answer->result, "token");
}

/* Nobody else gets the lock in the owner's absence. */
static void expect_others_locked_out(void)
{
    struct client *other = client_open(&one.daemon);

    assert_code(client_call(other, "lock.acquire", "['b', 'lock']"), "locked");
    assert_code(client_call(other, "lock.acquire", "['b', 'lock', {'owner': 'owner-0002'}]"), "locked");
    client_close(other);
}

static void check_way_back(uint64_t token)
{
    expect_others_locked_out();
    ck_assert_uint_eq(acquire_owned(one.client), token);
    expect_others_locked_out();
    /* The token fences as before. */
    assert_ok(client_call(one.client, "txn.commit", "['b', [['lock', %llu]], [['put', 'data', 'x']]]",
                          (unsigned long long)token));
    assert_ok(client_call(one.client, "lock.release", "['b', 'lock', %llu]", (unsigned long long)token));
    struct client *other = client_open(&one.daemon);
    const struct answer *answer = client_call(other, "lock.acquire", "['b', 'lock', {'wait': 100}]");
    assert_ok(answer);
    ck_assert_uint_gt(number_at(&answer->result, "token"), token);
    client_close(other);
}

START_TEST(an_owner_has_its_lock_again_after_its_daemon_was_killed_twice)
{
    uint64_t token = acquire_owned(one.client);

    deployment_kill_daemon(&one);
    deployment_restart_daemon(&one);
    deployment_kill_daemon(&one);
    deployment_restart_daemon(&one);
    check_way_back(token);
}
END_TEST

START_TEST(an_owner_has_its_lock_again_after_its_daemon_was_restarted)
{
    uint64_t token = acquire_owned(one.client);

    client_close(one.client);
    daemon_stop(&one.daemon);
    deployment_restart_daemon(&one);
    check_way_back(token);
}
END_TEST

/* Add a line to the file of the daemon's leases, as if it had been killed while it deleted the lock's key. */
static void note_deletion(const struct daemon *daemon, uint64_t token)
{
    char path[600], bucket[80], id[80];

    snprintf(path, sizeof(path), "%s.leases", daemon->socket_path);
    FILE *file = fopen(path, "r+");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%79s %79s", bucket, id), 2);
    ck_assert_str_eq(bucket, "b");
    fseek(file, 0, SEEK_END);
    fprintf(file, "%s %s lock %llu\n", bucket, id, (unsigned long long)token);
    ck_assert_int_eq(fclose(file), 0);
}

/*
 * The deletion that a killed daemon has sent may reach the server later. If its owner had the lock again with the same
 * token, it would be deleted then.
 */
START_TEST(a_lock_that_a_killed_daemon_was_releasing_has_another_token)
{
    uint64_t token = acquire_owned(one.client);

    deployment_kill_daemon(&one);
    note_deletion(&one.daemon, token);
    deployment_restart_daemon(&one);
    ck_assert_uint_gt(acquire_owned(one.client), token);
}
END_TEST

/* A release is noted before it is sent. */
START_TEST(a_release_that_a_killed_daemon_has_sent_is_in_its_file)
{
    uint64_t token = acquire_owned(one.client);
    char path[600], expected[80], text[400] = "";

    proxy_arm(one.proxy, (struct proxy_fault){.kind = PROXY_HOLD_BEFORE_PUBLISH, .subject = "$KV.b.lock"});
    client_send(one.client, "lock.release", "['b', 'lock', %llu]", (unsigned long long)token);
    wait_until(proxy_strikes(one.proxy) > 0, "the deletion");
    snprintf(path, sizeof(path), "%s.leases", one.daemon.socket_path);
    snprintf(expected, sizeof(expected), " lock %llu\n", (unsigned long long)token);
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    ck_assert_msg(strstr(text, expected) != NULL, "the file has no line%s: %s", expected, text);
    proxy_release(one.proxy);
}
END_TEST

/* Each of the clients may think that it is the one that comes back: the last one is it, and the others are told. */
START_TEST(of_two_that_claim_a_lock_at_once_the_first_is_told_that_it_has_lost_it)
{
    uint64_t token = acquire_owned(one.client);
    uint32_t sent[2];
    struct client *claimants[2];

    deployment_kill_daemon(&one);
    deployment_restart_daemon(&one);
    for (unsigned i = 0; i < 2; i++) {
        claimants[i] = client_open(&one.daemon);
        sent[i] = client_send(claimants[i], "lock.acquire", "['b', 'lock', {" OWNER ", 'wait': 100}]");
    }
    for (unsigned i = 0; i < 2; i++) {
        const struct answer *answer = client_wait(claimants[i], sent[i]);
        assert_ok(answer);
        ck_assert_uint_eq(number_at(&answer->result, "token"), token);
    }
    unsigned holders = 0;
    for (unsigned i = 0; i < 2; i++) {
        const struct answer *answer =
            client_call(claimants[i], "lock.check", "['b', 'lock', %llu]", (unsigned long long)token);
        if (strcmp(answer_code(answer), "ok") == 0) {
            holders++;
            continue;
        }
        assert_code(answer, "not_held");
        struct notification *lost = client_find_notification(claimants[i], 0);
        ck_assert_ptr_nonnull(lost);
        ck_assert_str_eq(text_at(&lost->params, "3.code"), "not_held");
    }
    ck_assert_uint_eq(holders, 1);
    client_close(claimants[0]);
    client_close(claimants[1]);
}
END_TEST

/* The owner's id is that of a user: who learns it cannot take the lock from another one. */
START_TEST(another_user_is_not_the_owner)
{
    struct sockaddr_un address;
    socklen_t length;
    struct daemon daemon;

    if (geteuid() != 0) {
        test_run_skip("another_user_is_not_the_owner", "only root can be two users");
        return;
    }
    int listener = daemon_listen_without_file(&address, &length);
    daemon_prepare(&daemon);
    daemon_configure(&daemon, NULL, NULL);
    daemon_spawn(&daemon, NULL, listener);
    daemon_wait_ready(&daemon);
    struct client *owner = client_open_address(&address, length);
    assert_ok(client_call(owner, "bucket.create", "['b']"));
    uint64_t token = acquire_owned(owner);
    client_close(owner);
    ck_assert_int_eq(seteuid(4242), 0);
    struct client *other = client_open_address(&address, length);
    ck_assert_int_eq(seteuid(0), 0);
    assert_code(client_call(other, "lock.acquire", "['b', 'lock', {" OWNER "}]"), "locked");
    owner = client_open_address(&address, length);
    ck_assert_uint_eq(acquire_owned(owner), token);
    daemon_stop(&daemon);
    close(listener);
}
END_TEST

Suite *lock_death_suite(void)
{
    Suite *suite = suite_create("lock deaths");
    TCase *embedded = tcase_create("embedded"), *external = tcase_create("external"),
          *both = tcase_create("two daemons");
    TCase *const owners[] = {embedded, external};
    TCase *idle = tcase_create("idle"), *users = tcase_create("users");

    tcase_add_checked_fixture(embedded, begin_embedded, end);
    tcase_add_checked_fixture(external, begin_external, end);
    tcase_add_checked_fixture(both, begin_two, end_two);
    tcase_add_test(embedded, an_embedded_daemon_that_was_killed_deletes_its_keys_when_it_is_back);
    tcase_add_test(embedded, a_session_with_many_keys_ends_beside_other_sessions);
    tcase_add_test(both, another_daemon_deletes_the_keys_of_one_that_was_killed_within_two_ttls);
    for (size_t i = 0; i < 2; i++) {
        tcase_add_test(owners[i], an_owner_has_its_lock_again_after_its_daemon_was_killed_twice);
        tcase_add_test(owners[i], an_owner_has_its_lock_again_after_its_daemon_was_restarted);
        tcase_add_test(owners[i], of_two_that_claim_a_lock_at_once_the_first_is_told_that_it_has_lost_it);
    }
    suite_add_tcase(suite, embedded);
    suite_add_tcase(suite, external);
    tcase_add_test(external, a_lock_that_a_killed_daemon_was_releasing_has_another_token);
    tcase_add_test(external, a_release_that_a_killed_daemon_has_sent_is_in_its_file);
    tcase_add_test(users, another_user_is_not_the_owner);
    suite_add_tcase(suite, users);
    suite_add_tcase(suite, both);
    tcase_add_checked_fixture(idle, begin_idle, end);
    tcase_add_test(idle, ten_thousand_locks_cost_a_write_each_third_of_a_ttl);
    suite_add_tcase(suite, idle);
    return suite;
}
