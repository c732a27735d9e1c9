/*
 * The pause that a program with libkvstore sees when its daemon is restarted or killed, while a socket unit holds the
 * daemon's socket: below a second on an idle machine.
 */
#include "client/lib/kvstore.h"
#include "tests/integration/suites.h"
#include "tests/support/library.h"
#include "tests/support/machine.h"
#include "tests/support/nats.h"
#include "tests/support/process.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#define RESTARTS 6u

#define PAUSE_MAX_MS 1000u

static struct daemon daemon_of_test;

/* A program that writes again and again. */
struct writer {
    pthread_t thread;
    struct kvs *kvs;
    const char *bucket;
    atomic_uint answers, longest_ms, failures;
    atomic_bool must_end;
};

static void *writer_run(void *context)
{
    struct writer *writer = context;

    while (!atomic_load(&writer->must_end)) {
        uint64_t begin_ms = now_ms();
        if (kvs_put(writer->kvs, writer->bucket, "k", "v", 1, NULL, NULL) != KVS_OK)
            atomic_fetch_add(&writer->failures, 1);
        unsigned took_ms = (unsigned)(now_ms() - begin_ms);
        if (took_ms > atomic_load(&writer->longest_ms))
            atomic_store(&writer->longest_ms, took_ms);
        atomic_fetch_add(&writer->answers, 1);
    }
    return NULL;
}

static void writer_wait(struct writer *writer)
{
    unsigned before = atomic_load(&writer->answers);

    wait_until(atomic_load(&writer->answers) >= before + 10, "writes");
    ck_assert_uint_eq(atomic_load(&writer->failures), 0);
}

static void restart(int listener, bool is_killed)
{
    if (is_killed) {
        process_kill(&daemon_of_test.process);
    } else {
        process_signal(&daemon_of_test.process, SIGTERM);
        process_wait(&daemon_of_test.process);
        ck_assert_int_eq(daemon_of_test.process.status, 0);
    }
    daemon_spawn(&daemon_of_test, NULL, listener);
}

/* Return how long the processes have waited for a processor that others used. The former daemon's wait is not known. */
static uint64_t run_delay_ms(void)
{
    return pid_run_delay_ms(daemon_of_test.process.pid) + pid_run_delay_ms(daemon_nats_pid(&daemon_of_test));
}

START_TEST(a_restart_and_a_kill_are_a_pause_below_a_second)
{
    struct kvs_options options = KVS_OPTIONS(.reconnect = true, .timeout_s = 50);
    static struct writer writer;

    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, NULL);
    int listener = daemon_listen_as_socket_unit(&daemon_of_test);
    daemon_spawn(&daemon_of_test, NULL, listener);
    daemon_wait_ready(&daemon_of_test);
    writer.kvs = library_connect(&daemon_of_test, &options);
    writer.bucket = library_new_bucket(writer.kvs, 1);
    ck_assert_int_eq(pthread_create(&writer.thread, NULL, writer_run, &writer), 0);
    double least[] = {INFINITY, INFINITY}, limit_ms = 0; /* of the restarts, of the kills */
    for (unsigned i = 0; i < RESTARTS; i++) {
        writer_wait(&writer);
        atomic_store(&writer.longest_ms, 0);
        uint64_t own_delay_ms = pid_run_delay_ms(getpid());
        restart(listener, i % 2 == 1);
        writer_wait(&writer);
        unsigned pause_ms = atomic_load(&writer.longest_ms);
        uint64_t delay_ms = pid_run_delay_ms(getpid()) - own_delay_ms + run_delay_ms();
        double own_ms = (double)pause_ms - (double)delay_ms;
        if (own_ms < least[i % 2])
            least[i % 2] = own_ms;
        limit_ms = PAUSE_MAX_MS * machine_slowness();
        printf("%s: a pause of %u ms, of which %llu ms without a processor\n", i % 2 == 1 ? "kill" : "restart",
               pause_ms, (unsigned long long)delay_ms);
    }
    /* What the former daemon and its server have waited for a processor is not known: so the least counts. */
    ck_assert_msg(least[0] <= limit_ms, "each restart is a pause of more than %.0f ms: %.0f", limit_ms, least[0]);
    ck_assert_msg(least[1] <= limit_ms, "each kill is a pause of more than %.0f ms: %.0f", limit_ms, least[1]);
    atomic_store(&writer.must_end, true);
    pthread_join(writer.thread, NULL);
    kvs_close(writer.kvs);
    daemon_stop(&daemon_of_test);
    close(listener);
}
END_TEST

Suite *pause_suite(void)
{
    Suite *suite = suite_create("pause");
    TCase *tests = tcase_create("pause");

    tcase_add_test(tests, a_restart_and_a_kill_are_a_pause_below_a_second);
    suite_add_tcase(suite, tests);
    return suite;
}
