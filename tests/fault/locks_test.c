/*
 * At most one client holds a lock at a time, while daemons, servers and links fail. The checker that decides this is
 * tested, too. CHAOS_ROUNDS and LOCK_SEED in the environment choose a longer run, and another one.
 */
#include "tests/fault/lock_client.h"
#include "tests/fault/lock_holders.h"
#include "tests/fault/suites.h"
#include "tests/support/machine.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- The checker ----------------------------------------------------------------------------------- */

struct history {
    const char *what; /* is wrong: a part of the checker's words; NULL: nothing */
    struct lock_held held[4];
    struct lock_fenced fenced[3];
};

#define HELD(lock, client, token, begin, end)                                                                          \
    {                                                                                                                  \
        lock, client, token, begin, end                                                                                \
    }
#define FENCED(lock, client, token, revision)                                                                          \
    {                                                                                                                  \
        lock, client, token, revision                                                                                  \
    }

static const struct history histories[] = {
    {NULL, {HELD(0, 1, 5, 10, 20), HELD(0, 2, 8, 20, 30)}, {FENCED(0, 1, 5, 6), FENCED(0, 2, 8, 9)}},
    {NULL, {HELD(0, 1, 5, 10, 20), HELD(1, 2, 4, 12, 18)}, {{0}}},
    {NULL, {HELD(0, 1, 5, 10, 20), HELD(0, 2, 3, 25, 25)}, {{0}}},                /* an answer that came too late */
    {NULL, {HELD(0, 1, 5, 10, 20), HELD(0, 2, 8, 30, 40)}, {FENCED(0, 1, 5, 7)}}, /* late, but before the next */
    {"two hold it", {HELD(0, 1, 5, 10, 20), HELD(0, 2, 8, 19, 30)}, {{0}}},
    {"two hold it", {HELD(0, 2, 8, 15, 16), HELD(0, 1, 5, 10, 20)}, {{0}}},
    {"two hold it", {HELD(0, 1, 5, 10, 20), HELD(1, 1, 6, 10, 40), HELD(0, 2, 8, 19, 30)}, {{0}}},
    {"two hold it", {HELD(0, 1, 5, 10, 20), HELD(0, 3, 7, 15, 15), HELD(0, 2, 8, 19, 30)}, {{0}}},
    {"does not grow", {HELD(0, 1, 5, 10, 20), HELD(0, 2, 4, 20, 30)}, {{0}}},
    {"the same token", {HELD(0, 1, 5, 10, 20), HELD(0, 2, 5, 30, 30)}, {{0}}},
    {"was written with token 9", {HELD(0, 1, 5, 10, 20)}, {FENCED(0, 1, 9, 9)}},
    {"after client 2", {HELD(0, 1, 5, 10, 20), HELD(0, 2, 8, 20, 30)}, {FENCED(0, 1, 5, 9)}},
    {"after client 2", {HELD(1, 1, 5, 10, 20), HELD(1, 2, 8, 20, 20), HELD(0, 1, 6, 1, 2)}, {FENCED(1, 1, 5, 9)}},
};

START_TEST(the_checker_tells_right_from_wrong)
{
    for (size_t i = 0; i < sizeof(histories) / sizeof(histories[0]); i++) {
        struct history history = histories[i];
        size_t held = 0, fenced = 0;
        while (held < 4 && history.held[held].token != 0)
            held++;
        while (fenced < 3 && history.fenced[fenced].token != 0)
            fenced++;
        const char *wrong = lock_check(history.held, held, history.fenced, fenced);
        ck_assert_msg((wrong == NULL) == (history.what == NULL) &&
                          (wrong == NULL || strstr(wrong, history.what) != NULL),
                      "history %zu: %s", i, wrong != NULL ? wrong : "accepted");
    }
}
END_TEST

/* --- The daemons ----------------------------------------------------------------------------------- */

#define TTL_MS 2000u
#define CONF   "locks:\n  lease_ttl: 2\n"

/* Beyond two TTLs, for what the lock's next holder and the test do, on a quick machine that is idle. */
#define QUICK_MS 200u

static struct deployment deployments[LOCK_HOLDERS_DAEMONS];

static void begin(unsigned servers)
{
    deployment_begin(&deployments[0], servers, CONF);
    deployment_make_short_bucket(&deployments[0], "b");
    for (unsigned i = 1; i < LOCK_HOLDERS_DAEMONS; i++)
        deployment_join(&deployments[i], &deployments[0], CONF);
    for (unsigned i = 0; i < LOCK_HOLDERS_DAEMONS && servers > 1; i++) { /* each daemon has another server */
        proxy_prefer(deployments[i].proxy, i);
        proxy_cut(deployments[i].proxy);
    }
}

static void begin_one(void)
{
    begin(1);
}

static void begin_three(void)
{
    begin(CLUSTER_SERVERS);
}

static void end(void)
{
    for (unsigned i = LOCK_HOLDERS_DAEMONS; i > 0; i--)
        deployment_end(&deployments[i - 1]);
}

/* --- Waiting for holders --------------------------------------------------------------------------- */

/* The processes: holders, daemons, servers and the test itself. */
#define FIRST_DAEMON LOCK_HOLDERS
#define FIRST_SERVER (FIRST_DAEMON + LOCK_HOLDERS_DAEMONS)
#define TEST_ITSELF  (FIRST_SERVER + CLUSTER_SERVERS)
#define PROCESSES    (TEST_ITSELF + 1)

/* The holdings that have begun at some moment, and how long each process has waited for a processor until then. */
struct moment {
    uint64_t at_ms;
    unsigned counts[LOCK_HOLDERS_LOCKS], counts_by[LOCK_HOLDERS_DAEMONS];
    uint64_t run_delays_ms[PROCESSES];
};

/* Return a process's id, or 0 if it does not run. */
static pid_t pid_of(unsigned process)
{
    if (process < FIRST_DAEMON)
        return lock_holders_pid(process);
    if (process < FIRST_SERVER)
        return deployments[process - FIRST_DAEMON].daemon.process.pid;
    return process < TEST_ITSELF ? deployments[0].servers[process - FIRST_SERVER].process.pid : getpid();
}

static struct moment moment_now(void)
{
    struct moment moment = {.at_ms = now_ms()};

    for (unsigned i = 0; i < PROCESSES; i++)
        moment.run_delays_ms[i] = pid_of(i) != 0 ? pid_run_delay_ms(pid_of(i)) : 0;
    for (unsigned i = 0; i < LOCK_HOLDERS_LOCKS; i++)
        moment.counts[i] = lock_holders_count(i);
    for (unsigned i = 0; i < LOCK_HOLDERS_DAEMONS; i++)
        moment.counts_by[i] = lock_holders_count_by(i);
    return moment;
}

/* Return the longest of the processes' waits. One that began since then begins at 0. */
static uint64_t longest_run_delay_ms(const struct moment *since, const struct moment *now, unsigned first, unsigned end)
{
    uint64_t longest_ms = 0;

    for (unsigned i = first; i < end; i++) {
        bool is_new = now->run_delays_ms[i] < since->run_delays_ms[i];
        uint64_t delay_ms = now->run_delays_ms[i] - (is_new ? 0 : since->run_delays_ms[i]);
        longest_ms = delay_ms > longest_ms ? delay_ms : longest_ms;
    }
    return longest_ms;
}

/* Return for how long others had the processors. A lock reaches its next holder through one process of each kind. */
static uint64_t run_delay_since_ms(const struct moment *since)
{
    struct moment now = moment_now();

    return longest_run_delay_ms(since, &now, 0, FIRST_DAEMON) +
           longest_run_delay_ms(since, &now, FIRST_DAEMON, FIRST_SERVER) +
           longest_run_delay_ms(since, &now, FIRST_SERVER, TEST_ITSELF) +
           longest_run_delay_ms(since, &now, TEST_ITSELF, PROCESSES);
}

/* Return whether every lock has had so many more holders. */
static bool have_changed_hands(const struct moment *since, unsigned times)
{
    for (unsigned i = 0; i < LOCK_HOLDERS_LOCKS; i++) {
        if (lock_holders_count(i) < since->counts[i] + times)
            return false;
    }
    return true;
}

/* Every lock must have a new holder within two TTLs, and what a busy machine takes longer. since: the fault, or the
 * moment from which NATS worked again. */
static void await_holders(const char *fault, struct moment since)
{
    wait_until(have_changed_hands(&since, 1), "the next holder of each lock");
    uint64_t took_ms = now_ms() - since.at_ms;
    uint64_t limit_ms = 2 * TTL_MS + (uint64_t)(QUICK_MS * machine_slowness()) + run_delay_since_ms(&since);
    printf("locks: %s: each lock has a holder again after %llu ms of %llu\n", fault, (unsigned long long)took_ms,
           (unsigned long long)limit_ms);
    ck_assert_msg(took_ms <= limit_ms, "%s: only after %llu ms", fault, (unsigned long long)took_ms);
    wait_until(have_changed_hands(&since, 4), "some more holders of each lock");
}

/* Clients of the daemon must hold locks again. */
static void await_daemon(unsigned daemon)
{
    struct moment since = moment_now();

    wait_until(lock_holders_count_by(daemon) >= since.counts_by[daemon] + 2, "a daemon whose clients hold locks again");
}

/* --- Faults ---------------------------------------------------------------------------------------- */

static void kill_daemon(unsigned daemon, bool others_take_over)
{
    struct moment since = moment_now();

    lock_holders_note_kill(daemon);
    deployment_kill_daemon(&deployments[daemon]);
    if (others_take_over)
        await_holders("a daemon was killed", since);
    deployment_restart_daemon(&deployments[daemon]);
    if (!others_take_over)
        await_holders("a daemon was restarted", since);
    await_daemon(daemon);
}

static void stop_daemon(unsigned daemon)
{
    struct moment since = moment_now();

    pid_suspend(deployments[daemon].daemon.process.pid);
    await_holders("a daemon was stopped", since);
    wait_until(now_ms() >= since.at_ms + TTL_MS + TTL_MS / 2, "the daemon's lease to run out");
    pid_resume(deployments[daemon].daemon.process.pid);
    await_daemon(daemon);
}

/* The sessions of the holders end. */
static void kill_holders(unsigned daemon)
{
    struct moment since = moment_now();

    lock_holders_kill(daemon);
    await_holders("holders were killed", since);
    lock_holders_start(daemon);
    await_daemon(daemon);
}

/* Their sessions stay, and so do their locks, but what they know of them is old when they go on. */
static void stop_holders(unsigned daemon)
{
    uint64_t begin_ms = now_ms();

    lock_holders_suspend(daemon);
    wait_until(now_ms() >= begin_ms + TTL_MS + TTL_MS / 2, "what the holders know to be too old");
    lock_holders_resume(daemon);
    await_daemon(daemon);
}

/* Others have their locks when they go on. */
static void stop_holders_of_killed_daemon(unsigned daemon)
{
    lock_holders_suspend(daemon);
    struct moment since = moment_now();
    lock_holders_note_kill(daemon);
    deployment_kill_daemon(&deployments[daemon]);
    await_holders("holders were stopped and their daemon was killed", since);
    deployment_restart_daemon(&deployments[daemon]);
    lock_holders_resume(daemon);
    await_daemon(daemon);
}

/* Bytes that wait in the link arrive when others have the daemon's locks. */
static void hold_link(unsigned daemon)
{
    struct moment since = moment_now();

    proxy_hold(deployments[daemon].proxy);
    await_holders("a link passed nothing", since);
    wait_until(now_ms() >= since.at_ms + TTL_MS + TTL_MS / 2, "the daemon's lease to run out");
    proxy_release(deployments[daemon].proxy);
    await_daemon(daemon);
}

static void cut_link(unsigned daemon)
{
    struct moment since = moment_now();

    proxy_cut(deployments[daemon].proxy);
    await_holders("a link was cut", since);
    await_daemon(daemon);
}

static void spoil_link(unsigned daemon, const char *what, enum proxy_fault_kind kind, const char *subject,
                       unsigned count)
{
    struct moment since = moment_now();

    proxy_arm(deployments[daemon].proxy, (struct proxy_fault){.kind = kind, .subject = subject, .count = count});
    wait_until(proxy_strikes(deployments[daemon].proxy) == count, "the fault to strike");
    since.at_ms = now_ms(); /* how long that takes depends on when locks are acquired */
    await_holders(what, since);
    await_daemon(daemon);
}

/* Other programs' time: until the stream has a leader that stores, which an election may take seconds for. */
static struct moment await_nats(const char *fault)
{
    uint64_t begin_ms = now_ms();

    deployment_reconnect_nats(&deployments[0]);
    nats_put(deployments[0].nats, "b", "other", "x");
    struct moment since = moment_now();
    printf("locks: %s: NATS stores again after %llu ms\n", fault, (unsigned long long)(since.at_ms - begin_ms));
    return since;
}

static struct nats_server *find_leader(void)
{
    return deployments[0].server_count > 1 ? deployment_leader(&deployments[0], "b") : &deployments[0].servers[0];
}

static void kill_server(void)
{
    struct nats_server *victim = find_leader();
    bool is_only = deployments[0].server_count == 1;

    nats_server_kill(victim);
    if (is_only)
        nats_server_run(victim);
    await_holders("the server was killed", await_nats("the server was killed"));
    if (!is_only) {
        nats_server_run(victim);
        deployment_reconnect_nats(&deployments[0]);
        deployment_wait_current(&deployments[0], "b");
    }
}

/* Every lease of the bucket runs out. */
static void stop_server(void)
{
    struct nats_server *victim = find_leader();
    uint64_t begin_ms = now_ms();

    nats_server_freeze(victim);
    wait_until(now_ms() >= begin_ms + TTL_MS + TTL_MS / 2, "all leases to run out");
    nats_server_thaw(victim);
    await_holders("the server was stopped", await_nats("the server was stopped"));
}

enum fault {
    KILL_DAEMON,
    RESTART_DAEMON,
    STOP_DAEMON,
    KILL_HOLDERS,
    STOP_HOLDERS,
    STOP_HOLDERS_OF_KILLED_DAEMON,
    HOLD_LINK,
    CUT_LINK,
    KILL_SERVER,
    STOP_SERVER,
    DROP_RENEWALS,
    DROP_LOCKS,
    CUT_AFTER_LOCK,
    CUT_BEFORE_ANSWER,
    FAULTS
};

static void cause(enum fault fault, unsigned daemon)
{
    switch (fault) {
    case KILL_DAEMON:
        kill_daemon(daemon, true);
        break;
    case RESTART_DAEMON:
        kill_daemon(daemon, false);
        break;
    case STOP_DAEMON:
        stop_daemon(daemon);
        break;
    case KILL_HOLDERS:
        kill_holders(daemon);
        break;
    case STOP_HOLDERS:
        stop_holders(daemon);
        break;
    case STOP_HOLDERS_OF_KILLED_DAEMON:
        stop_holders_of_killed_daemon(daemon);
        break;
    case HOLD_LINK:
        hold_link(daemon);
        break;
    case CUT_LINK:
        cut_link(daemon);
        break;
    case KILL_SERVER:
        kill_server();
        break;
    case STOP_SERVER:
        stop_server();
        break;
    case DROP_RENEWALS:
        spoil_link(daemon, "renewals were not answered", PROXY_DROP_ACK, "$KV.b._kvstored.lease.>", 3);
        break;
    case DROP_LOCKS:
        spoil_link(daemon, "locks were not answered", PROXY_DROP_ACK, "$KV.b.lock.*", 3);
        break;
    case CUT_AFTER_LOCK:
        spoil_link(daemon, "a link was cut after a lock", PROXY_CUT_AFTER_PUBLISH, "$KV.b.lock.*", 3);
        break;
    default:
        spoil_link(daemon, "a link was cut before an answer", PROXY_CUT_BEFORE_ACK, "$KV.b.lock.*", 3);
        break;
    }
}

/* Cause some faults, or CHAOS_ROUNDS times all of them, each time in other daemons and in another order. */
static void cause_all(const enum fault *some, size_t count)
{
    const char *text = getenv("CHAOS_ROUNDS");
    unsigned faults = (text != NULL ? (unsigned)atoi(text) : 0) * FAULTS;

    lock_holders_begin(deployments, "b");
    await_holders("the beginning", moment_now());
    for (unsigned i = 0; i < count && faults == 0; i++)
        cause(some[i], i % LOCK_HOLDERS_DAEMONS);
    for (unsigned i = 0; i < faults; i++)
        cause((i * 5 + i / FAULTS) % FAULTS, i % LOCK_HOLDERS_DAEMONS);
    lock_holders_end_and_check();
}

START_TEST(a_lock_has_one_holder_while_a_server_and_daemons_fail)
{
    static const enum fault faults[] = {KILL_DAEMON,    STOP_DAEMON,  KILL_SERVER,  DROP_RENEWALS,
                                        CUT_AFTER_LOCK, KILL_HOLDERS, STOP_HOLDERS, STOP_SERVER};

    cause_all(faults, sizeof(faults) / sizeof(faults[0]));
}
END_TEST

START_TEST(a_lock_has_one_holder_while_a_cluster_and_daemons_fail)
{
    static const enum fault faults[] = {
        HOLD_LINK, KILL_SERVER, DROP_LOCKS, CUT_LINK, RESTART_DAEMON, STOP_HOLDERS_OF_KILLED_DAEMON, CUT_BEFORE_ANSWER};

    cause_all(faults, sizeof(faults) / sizeof(faults[0]));
}
END_TEST

Suite *locks_suite(void)
{
    Suite *suite = suite_create("locks");
    TCase *checker = tcase_create("checker"), *one = tcase_create("one server"), *three = tcase_create("three servers");

    tcase_add_test(checker, the_checker_tells_right_from_wrong);
    tcase_add_checked_fixture(one, begin_one, end);
    tcase_add_test(one, a_lock_has_one_holder_while_a_server_and_daemons_fail);
    tcase_add_checked_fixture(three, begin_three, end);
    tcase_add_test(three, a_lock_has_one_holder_while_a_cluster_and_daemons_fail);
    suite_add_tcase(suite, checker);
    suite_add_tcase(suite, one);
    suite_add_tcase(suite, three);
    return suite;
}
