/*
 * Many programs increment one key by 1, while daemons, servers and links fail. Each value is returned once, and the sum
 * is right.
 */
#include "client/lib/kvstore_async.h"
#include "tests/fault/deployment.h"
#include "tests/fault/suites.h"
#include "tests/support/library.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS   32u
#define IN_FLIGHT 3u
#define FAULTS    6u
/* Increments between two faults, at least. */
#define PROGRESS 500u
#define VALUES   1000000u
/* Of DEPLOYMENT_ATTEMPTS(0.1). */
#define ATTEMPT_MS 100u

static struct deployment deployment;

/* --- The load -------------------------------------------------------------------------------------- */

struct counting {
    pthread_t thread;
    struct kvs *clients[CLIENTS];
    unsigned client_count;
    unsigned in_flight[CLIENTS];
    bool *is_returned; /* by value */
    atomic_uint returned, unknown, failures, pending;
    atomic_bool must_pause, must_end;
    char failure[400]; /* the first one */
};

static struct counting counting;

static void counting_fail(const char *text)
{
    if (atomic_fetch_add(&counting.failures, 1) == 0)
        snprintf(counting.failure, sizeof(counting.failure), "%s", text);
}

static void counting_on_incremented(struct kvs *kvs, const struct kvs_error *error, int64_t value, uint64_t revision,
                                    void *context)
{
    (void)kvs;
    (void)revision;
    --*(unsigned *)context;
    atomic_fetch_sub(&counting.pending, 1);
    if (error != NULL && error->outcome == KVS_OUTCOME_UNKNOWN) {
        atomic_fetch_add(&counting.unknown, 1);
    } else if (error != NULL) {
        counting_fail(error->message);
    } else if (value < 1 || value >= VALUES || counting.is_returned[value]) {
        char text[80];
        snprintf(text, sizeof(text), "%lld was returned twice, or is wrong", (long long)value);
        counting_fail(text);
    } else {
        counting.is_returned[value] = true;
        atomic_fetch_add(&counting.returned, 1);
    }
}

static void counting_start_calls(unsigned client)
{
    while (counting.in_flight[client] < IN_FLIGHT && !atomic_load(&counting.must_pause)) {
        if (kvs_async_increment(counting.clients[client], "b", "n", 1, NULL, counting_on_incremented,
                                &counting.in_flight[client]) != KVS_OK) {
            counting_fail(kvs_last_error(counting.clients[client])->message);
            return;
        }
        counting.in_flight[client]++;
        atomic_fetch_add(&counting.pending, 1);
    }
}

static void *counting_run(void *context)
{
    struct pollfd waits[CLIENTS];

    (void)context;
    while (!atomic_load(&counting.must_end)) {
        int timeout = 20;
        for (unsigned i = 0; i < counting.client_count; i++) {
            counting_start_calls(i);
            int due = kvs_timeout_ms(counting.clients[i]);
            if (due >= 0 && due < timeout)
                timeout = due;
            waits[i] = (struct pollfd){.fd = kvs_fd(counting.clients[i]), .events = kvs_events(counting.clients[i])};
        }
        poll(waits, counting.client_count, timeout);
        for (unsigned i = 0; i < counting.client_count; i++)
            kvs_process(counting.clients[i]);
    }
    return NULL;
}

static void counting_connect(const struct daemon *daemon, unsigned count)
{
    struct kvs_options options = KVS_OPTIONS(.reconnect = true, .timeout_s = 60);
    struct kvs_error error;

    for (unsigned i = 0; i < count; i++) {
        struct kvs *kvs = kvs_connect(daemon->socket_path, &options, &error);
        ck_assert_msg(kvs != NULL, "%s", error.message);
        counting.clients[counting.client_count++] = kvs;
    }
}

static void counting_begin(void)
{
    counting.is_returned = keep(calloc(VALUES, sizeof(bool)));
    ck_assert_int_eq(pthread_create(&counting.thread, NULL, counting_run, NULL), 0);
}

static void counting_wait_progress(void)
{
    unsigned goal = atomic_load(&counting.returned) + PROGRESS + (unsigned)rand() % PROGRESS;

    wait_until(atomic_load(&counting.returned) >= goal || atomic_load(&counting.failures) > 0, "increments");
    ck_assert_msg(atomic_load(&counting.failures) == 0, "%u failures: %s", atomic_load(&counting.failures),
                  counting.failure);
}

/* End the load, and compare it with the value of the key. unknown_max: how many may have an unknown outcome. */
static void counting_end(unsigned unknown_max)
{
    struct kvs *kvs = counting.clients[0];
    struct kvs_entry *entry;

    counting_wait_progress();
    atomic_store(&counting.must_pause, true);
    wait_until(atomic_load(&counting.pending) == 0 || atomic_load(&counting.failures) > 0, "the last answers");
    atomic_store(&counting.must_end, true);
    pthread_join(counting.thread, NULL);
    ck_assert_msg(atomic_load(&counting.failures) == 0, "%u failures: %s", atomic_load(&counting.failures),
                  counting.failure);
    struct kvs_get_options options = KVS_GET_OPTIONS(.consistency = KVS_CONSISTENCY_LEADER);
    assert_done(kvs_get(kvs, "b", "n", &options, &entry));
    unsigned value = (unsigned)atoi(entry->value), returned = atomic_load(&counting.returned),
             unknown = atomic_load(&counting.unknown);
    kvs_free(entry);
    unsigned beyond = value + 1; /* one assertion: those of Check are slow */
    while (beyond < VALUES && !counting.is_returned[beyond])
        beyond++;
    ck_assert_msg(beyond == VALUES, "%u was returned, and the value is %u", beyond, value);
    ck_assert_msg(returned <= value && value <= returned + unknown, "%u increments, and %u of unknown outcome: %u",
                  returned, unknown, value);
    ck_assert_uint_le(unknown, unknown_max);
    for (unsigned i = 0; i < counting.client_count; i++)
        kvs_close(counting.clients[i]);
}

/* --- Daemons that end ------------------------------------------------------------------------------ */

static void restart_daemon(struct daemon *daemon, int listener, bool is_killed)
{
    if (is_killed) {
        process_kill(&daemon->process);
    } else {
        process_signal(&daemon->process, SIGTERM);
        process_wait(&daemon->process);
        ck_assert_int_eq(daemon->process.status, 0);
    }
    daemon_spawn(daemon, NULL, listener);
}

static void run_restarts(const char *nats_section)
{
    static struct daemon daemon;

    daemon_prepare(&daemon);
    daemon_configure(&daemon, nats_section, NULL);
    int listener = daemon_listen_as_socket_unit(&daemon);
    daemon_spawn(&daemon, NULL, listener);
    daemon_wait_ready(&daemon);
    struct kvs *kvs = library_connect(&daemon, NULL);
    assert_done(kvs_bucket_create(kvs, "b", NULL, NULL));
    kvs_close(kvs);
    counting_connect(&daemon, CLIENTS);
    counting_begin();
    for (unsigned i = 0; i < FAULTS; i++) {
        counting_wait_progress();
        restart_daemon(&daemon, listener, i % 3 != 2);
    }
    counting_end(0);
    daemon_stop(&daemon);
    close(listener);
}

START_TEST(counters_are_right_if_an_embedded_daemon_is_killed)
{
    run_restarts(NULL);
}
END_TEST

START_TEST(counters_are_right_if_a_daemon_with_an_external_server_is_killed)
{
    struct nats_server server;

    nats_server_start(&server, NULL);
    run_restarts(nats_server_section(&server));
    nats_server_stop(&server);
}
END_TEST

/* --- Servers and links that fail ------------------------------------------------------------------- */

START_TEST(counters_are_right_if_the_embedded_server_is_killed)
{
    deployment_begin_embedded(&deployment, NULL);
    deployment_make_short_bucket(&deployment, "b");
    counting_connect(&deployment.daemon, CLIENTS);
    counting_begin();
    for (unsigned i = 0; i < FAULTS; i++) {
        counting_wait_progress();
        deployment_kill_embedded(&deployment);
    }
    counting_end(0);
    deployment_end(&deployment);
}
END_TEST

START_TEST(counters_are_right_if_the_server_is_killed)
{
    deployment_begin(&deployment, 1, NULL);
    deployment_make_short_bucket(&deployment, "b");
    counting_connect(&deployment.daemon, CLIENTS);
    counting_begin();
    for (unsigned i = 0; i < FAULTS; i++) {
        counting_wait_progress();
        nats_server_kill(&deployment.servers[0]);
        nats_server_run(&deployment.servers[0]);
    }
    counting_end(FAULTS * CLIENTS * IN_FLIGHT);
    deployment_reconnect_nats(&deployment);
    deployment_end(&deployment);
}
END_TEST

START_TEST(counters_are_right_if_the_link_is_cut)
{
    static const enum proxy_fault_kind kinds[] = {PROXY_CUT_BEFORE_PUBLISH, PROXY_CUT_AFTER_PUBLISH,
                                                  PROXY_CUT_BEFORE_ACK,     PROXY_CUT_AFTER_ACK,
                                                  PROXY_DROP_ACK,           PROXY_DROP_PUBLISH};

    deployment_begin(&deployment, 1, DEPLOYMENT_ATTEMPTS(0.1));
    deployment_make_short_bucket(&deployment, "b");
    counting_connect(&deployment.daemon, CLIENTS);
    counting_begin();
    for (unsigned i = 0; i < 5 * sizeof(kinds) / sizeof(kinds[0]); i++) {
        proxy_arm(deployment.proxy, (struct proxy_fault){.kind = kinds[i % (sizeof(kinds) / sizeof(kinds[0]))],
                                                         .subject = "$KV.b.n",
                                                         .skip = (unsigned)rand() % 10});
        wait_until(proxy_strikes(deployment.proxy) > 0 || atomic_load(&counting.failures) > 0, "the fault");
        counting_wait_progress();
    }
    counting_end(0);
    deployment_end(&deployment);
}
END_TEST

/*
 * Wait until some attempts have failed by their timeout: what stands still does so for longer than an attempt. The
 * requests that wait are answered later, each once more than an answer is waited for.
 */
static void wait_for_retries(void)
{
    uint64_t retries = deployment_retries(&deployment);

    wait_until(deployment_retries(&deployment) >= retries + 3, "retries");
}

static void stop_server(void)
{
    nats_server_freeze(&deployment.servers[0]);
    wait_for_retries();
    nats_server_thaw(&deployment.servers[0]);
}

static void hold_link(void)
{
    proxy_hold(deployment.proxy);
    wait_for_retries();
    proxy_release(deployment.proxy);
}

/* The daemon sends again what was stored, and gets the answer to that and the late one. */
static void delay_answer(void)
{
    proxy_arm(deployment.proxy,
              (struct proxy_fault){.kind = PROXY_DELAY_ACK, .subject = "$KV.b.n", .skip = (unsigned)rand() % 10});
    wait_until(proxy_strikes(deployment.proxy) > 0 || atomic_load(&counting.failures) > 0, "the fault");
    counting_wait_progress();
    proxy_deliver(deployment.proxy);
}

/* All attempts that are under way time out while the daemon stands still. */
static void stop_daemon(void)
{
    uint64_t begin_ms = now_ms();

    pid_suspend(deployment.daemon.process.pid);
    wait_until(now_ms() >= begin_ms + 2 * ATTEMPT_MS, "the end of the attempts");
    pid_resume(deployment.daemon.process.pid);
}

START_TEST(counters_are_right_if_the_server_the_daemon_and_the_link_stand_still)
{
    static void (*const faults[])(void) = {stop_server, stop_daemon, hold_link, delay_answer};

    deployment_begin(&deployment, 1, DEPLOYMENT_ATTEMPTS(0.1));
    deployment_make_short_bucket(&deployment, "b");
    counting_connect(&deployment.daemon, CLIENTS);
    counting_begin();
    for (unsigned i = 0; i < 2 * sizeof(faults) / sizeof(faults[0]); i++) {
        counting_wait_progress();
        faults[i % (sizeof(faults) / sizeof(faults[0]))]();
    }
    counting_end(0);
    deployment_end(&deployment);
}
END_TEST

/* Daemons of several hosts refuse each other's writes. */
START_TEST(counters_are_right_if_two_daemons_increment_them)
{
    static struct deployment other;

    deployment_begin(&deployment, 1, NULL);
    deployment_make_short_bucket(&deployment, "b");
    deployment_join(&other, &deployment, NULL);
    counting_connect(&deployment.daemon, CLIENTS / 2);
    counting_connect(&other.daemon, CLIENTS / 2);
    counting_begin();
    for (unsigned i = 0; i < FAULTS; i++) {
        counting_wait_progress();
        proxy_cut(i % 2 == 0 ? deployment.proxy : other.proxy);
    }
    ck_assert_uint_gt(deployment_stat(&other, "increments.conflicts"), 0);
    counting_end(0);
    deployment_end(&other);
    deployment_end(&deployment);
}
END_TEST

START_TEST(counters_are_right_if_the_leader_is_killed)
{
    deployment_begin(&deployment, CLUSTER_SERVERS, DEPLOYMENT_ATTEMPTS(1));
    deployment_make_short_bucket(&deployment, "b");
    counting_connect(&deployment.daemon, CLIENTS);
    counting_begin();
    for (unsigned i = 0; i < 3; i++) {
        counting_wait_progress();
        struct nats_server *leader = deployment_leader(&deployment, "b");
        nats_server_kill(leader);
        counting_wait_progress();
        nats_server_run(leader);
        deployment_reconnect_nats(&deployment);
        deployment_wait_current(&deployment, "b");
    }
    counting_end(3 * CLIENTS * IN_FLIGHT);
    deployment_end(&deployment);
}
END_TEST

/* --- Those that leave ------------------------------------------------------------------------------ */

static void begin_one(void)
{
    deployment_begin(&deployment, 1, DEPLOYMENT_ATTEMPTS(100));
    deployment_make_bucket(&deployment, "b", NULL);
    assert_ok(client_call(deployment.client, "kv.increment", "['b', 'n', 100]"));
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_HOLD_BEFORE_ACK, .subject = "$KV.b.n"});
}

static void end(void)
{
    deployment_end(&deployment);
}

static void wait_for_calls(unsigned count)
{
    wait_until(deployment_stat(&deployment, "calls_in_flight") == count, format_text("%u calls", count));
}

static struct client *open_session(unsigned long long *id)
{
    struct client *client = client_open(&deployment.daemon);
    const struct answer *answer = client_call(client, "daemon.sessions", "[]");

    assert_ok(answer);
    *id = number_at(&answer->result, "own");
    return client;
}

static void kill_session(unsigned long long id)
{
    assert_ok(client_call(deployment.client, "daemon.kill_session", "[%llu]", id));
}

/* Increments that are sent while the write of others is under way wait. */
START_TEST(an_increment_that_leaves_before_it_is_sent_is_taken_out)
{
    unsigned long long sent_id, waiting_id, staying_id;
    struct client *sent = open_session(&sent_id), *waiting = open_session(&waiting_id),
                  *staying = open_session(&staying_id);

    client_send(sent, "kv.increment", "['b', 'n', 1]");
    wait_until(proxy_strikes(deployment.proxy) == 1, "the write");
    client_send(waiting, "kv.increment", "['b', 'n', 10]");
    wait_for_calls(3);
    uint32_t msgid = client_send(staying, "kv.increment", "['b', 'n', 1000]");
    wait_for_calls(4);
    kill_session(waiting_id);
    kill_session(sent_id); /* its increment counts, as any write that was sent */
    wait_for_calls(3);
    proxy_release(deployment.proxy);
    const struct answer *answer = client_wait(staying, msgid);
    assert_ok(answer);
    ck_assert_uint_eq(number_at(&answer->result, "0"), 1101);
    client_close(staying);
    client_close(waiting);
    client_close(sent);
}
END_TEST

START_TEST(each_increment_has_a_deadline_of_its_own)
{
    struct client *client = deployment.client;

    const uint32_t in_time = 1001, late = 1002; /* together, so that they are one write */
    msgpack_sbuffer both;
    msgpack_sbuffer_init(&both);
    pack_request(&both, in_time, "kv.increment", "['b', 'n', 1]");
    pack_request(&both, late, "kv.increment", "['b', 'n', 10, {'timeout': 0.5}]");
    client_write(client, both.data, both.size);
    msgpack_sbuffer_destroy(&both);
    wait_until(proxy_strikes(deployment.proxy) == 1, "the write");
    uint32_t waiting = client_send(client, "kv.increment", "['b', 'n', 1000, {'timeout': 0.5}]");
    const struct answer *answer = client_wait(client, late);
    assert_code(answer, "deadline_exceeded");
    ck_assert_str_eq(answer_outcome(answer), "unknown");
    answer = client_wait(client, waiting);
    assert_code(answer, "deadline_exceeded");
    ck_assert_str_eq(answer_outcome(answer), "none");
    proxy_release(deployment.proxy);
    answer = client_wait(client, in_time);
    assert_ok(answer);
    ck_assert_uint_eq(number_at(&answer->result, "0"), 101);
    answer = client_call(client, "kv.increment", "['b', 'n', 0]");
    ck_assert_uint_eq(number_at(&answer->result, "0"), 111);
}
END_TEST

/* The write has been made, and waits for the connection. */
START_TEST(an_increment_that_times_out_before_its_write_is_sent_is_not_in_it)
{
    struct client *client = deployment.client;

    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
    nats_server_stop(&deployment.servers[0]);
    daemon_wait_log(&deployment.daemon, "connection");
    uint32_t in_time = client_send(client, "kv.increment", "['b', 'n', 1, {'timeout': 60}]");
    uint32_t late = client_send(client, "kv.increment", "['b', 'n', 10, {'timeout': 0.3}]");
    const struct answer *answer = client_wait(client, late);
    assert_code(answer, "unavailable");
    ck_assert_str_eq(answer_outcome(answer), "none");
    nats_server_run(&deployment.servers[0]);
    answer = client_wait(client, in_time);
    assert_ok(answer);
    ck_assert_uint_eq(number_at(&answer->result, "0"), 101);
    deployment_reconnect_nats(&deployment);
}
END_TEST

Suite *increment_fault_suite(void)
{
    Suite *suite = suite_create("increment");
    TCase *faults = tcase_create("faults"), *leaving = tcase_create("leaving");

    tcase_add_test(faults, counters_are_right_if_an_embedded_daemon_is_killed);
    tcase_add_test(faults, counters_are_right_if_a_daemon_with_an_external_server_is_killed);
    tcase_add_test(faults, counters_are_right_if_the_embedded_server_is_killed);
    tcase_add_test(faults, counters_are_right_if_the_server_is_killed);
    tcase_add_test(faults, counters_are_right_if_the_link_is_cut);
    tcase_add_test(faults, counters_are_right_if_the_server_the_daemon_and_the_link_stand_still);
    tcase_add_test(faults, counters_are_right_if_two_daemons_increment_them);
    tcase_add_test(faults, counters_are_right_if_the_leader_is_killed);
    suite_add_tcase(suite, faults);
    tcase_add_checked_fixture(leaving, begin_one, end);
    tcase_add_test(leaving, an_increment_that_leaves_before_it_is_sent_is_taken_out);
    tcase_add_test(leaving, each_increment_has_a_deadline_of_its_own);
    tcase_add_test(leaving, an_increment_that_times_out_before_its_write_is_sent_is_not_in_it);
    suite_add_tcase(suite, leaving);
    return suite;
}
