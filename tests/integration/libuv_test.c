/* The adapter for libuv: a client on a real loop. */
#include "client/adapters/kvstore_libuv.h"
#include "client/lib/kvstore_admin.h"
#include "tests/integration/suites.h"
#include "tests/support/daemon.h"
#include "tests/support/fake_daemon.h"

#include <string.h>
#include <unistd.h>

struct client {
    uv_loop_t loop;
    struct kvs *kvs;
    struct kvs_libuv *adapter;
    uv_timer_t patience; /* fails the test if the loop runs for too long */
    unsigned answered, refused, entries;
    uint64_t last_revision;
    bool has_ended;
};

static void on_patience(uv_timer_t *timer)
{
    (void)timer;
    ck_abort_msg("the loop still runs");
}

static void client_attach(struct client *client, struct kvs *kvs)
{
    memset(client, 0, sizeof(*client));
    client->kvs = kvs;
    ck_assert_int_eq(uv_loop_init(&client->loop), 0);
    uv_timer_init(&client->loop, &client->patience);
    uv_timer_start(&client->patience, on_patience, PATIENCE_MS, 0);
    uv_unref((uv_handle_t *)&client->patience);
    client->adapter = kvs_libuv_attach(&client->loop, client->kvs);
    ck_assert_ptr_nonnull(client->adapter);
}

static void client_open(struct client *client, const struct daemon *daemon, bool reconnect)
{
    struct kvs_options options = KVS_OPTIONS(.connect_timeout_s = DAEMON_CALL_TIMEOUT_S,
                                             .timeout_s = DAEMON_CALL_TIMEOUT_S, .reconnect = reconnect);
    struct kvs_error error;

    test_run_check_leaks();
    struct kvs *kvs = kvs_connect(daemon->socket_path, &options, &error);
    ck_assert_msg(kvs != NULL, "%s", error.message);
    client_attach(client, kvs);
}

/* Run the loop until the adapter is detached, and close everything. */
static void client_run(struct client *client)
{
    uv_run(&client->loop, UV_RUN_DEFAULT);
    kvs_close(client->kvs);
    uv_close((uv_handle_t *)&client->patience, NULL);
    uv_run(&client->loop, UV_RUN_DEFAULT);
    ck_assert_int_eq(uv_loop_close(&client->loop), 0); /* no handle is left */
}

static const char *new_bucket(struct kvs *kvs)
{
    static unsigned count;
    const char *bucket = format_text("libuv-%d-%u", (int)getpid(), ++count);

    ck_assert_int_eq(kvs_bucket_create(kvs, bucket, NULL, NULL), KVS_OK);
    return bucket;
}

#define PUTS 2000u

static void on_put(struct kvs *kvs, const struct kvs_error *error, uint64_t revision, void *context)
{
    struct client *client = context;

    (void)kvs;
    ck_assert_msg(error == NULL, "%s", error != NULL ? error->message : "");
    ck_assert_uint_gt(revision, 0);
    if (++client->answered == PUTS)
        kvs_libuv_detach(client->adapter);
}

START_TEST(a_libuv_loop_sends_calls_and_delivers_their_answers)
{
    struct client client;

    client_open(&client, &shared_daemon, false);
    const char *bucket = new_bucket(client.kvs);
    for (unsigned i = 0; i < PUTS; i++) {
        const char *key = format_text("k%u", i);
        ck_assert_int_eq(kvs_async_put(client.kvs, bucket, key, key, strlen(key), NULL, on_put, &client), KVS_OK);
    }
    client_run(&client);
    ck_assert_uint_eq(client.answered, PUTS);
}
END_TEST

/* Each answer makes the next call, so that requests are submitted in every phase of the loop. */
static void on_entry(struct kvs *kvs, const struct kvs_error *error, const struct kvs_entry *entry, void *context)
{
    struct client *client = context;

    ck_assert_ptr_null(error);
    ck_assert_ptr_null(entry);
    if (++client->answered == 100)
        kvs_libuv_detach(client->adapter);
    else
        ck_assert_int_eq(kvs_async_get(kvs, format_text("libuv-%d-1", (int)getpid()), "none", NULL, on_entry, client),
                         KVS_OK);
}

START_TEST(a_callback_on_a_libuv_loop_makes_the_next_call)
{
    struct client client;

    client_open(&client, &shared_daemon, false);
    ck_assert_int_eq(kvs_async_get(client.kvs, new_bucket(client.kvs), "none", NULL, on_entry, &client), KVS_OK);
    client_run(&client);
    ck_assert_uint_eq(client.answered, 100);
}
END_TEST

static void on_late(struct kvs *kvs, const struct kvs_error *error, uint64_t revision, void *context)
{
    struct client *client = context;

    (void)kvs;
    (void)revision;
    ck_assert_ptr_nonnull(error);
    ck_assert_int_eq(error->code, KVS_DEADLINE_EXCEEDED);
    kvs_libuv_detach(client->adapter);
}

static struct daemon daemon_of_test;

START_TEST(a_call_on_a_libuv_loop_times_out_without_an_answer)
{
    struct kvs_put_options put = KVS_PUT_OPTIONS(.timeout_s = 0.3);
    struct client client;

    daemon_start(&daemon_of_test, NULL, NULL);
    client_open(&client, &daemon_of_test, false);
    const char *bucket = new_bucket(client.kvs);
    pid_suspend(daemon_of_test.process.pid);
    ck_assert_int_eq(kvs_async_put(client.kvs, bucket, "k", "v", 1, &put, on_late, &client), KVS_OK);
    client_run(&client);
    pid_resume(daemon_of_test.process.pid);
    daemon_stop(&daemon_of_test);
}
END_TEST

static void on_event(struct kvs *kvs, struct kvs_watch *watch, const struct kvs_event *event, void *context)
{
    struct client *client = context;

    (void)kvs;
    ck_assert_int_ne(event->type, KVS_EVENT_ENDED);
    if (event->type == KVS_EVENT_ENTRY) {
        client->entries++;
        client->last_revision = event->entry->revision;
    }
    if (client->entries == 1 && kvs_connection_count(kvs) == 1 && event->type == KVS_EVENT_READY) {
        /* The daemon restarts while the watch runs, and another client writes. */
        daemon_stop(&daemon_of_test);
        daemon_restart(&daemon_of_test);
        struct kvs *other = kvs_connect(daemon_of_test.socket_path, NULL, NULL);
        ck_assert_ptr_nonnull(other);
        ck_assert_int_eq(kvs_put(other, "watched", "k", "2", 1, NULL, NULL), KVS_OK);
        kvs_close(other);
    } else if (client->entries == 2) {
        kvs_watch_stop(watch);
        kvs_libuv_detach(client->adapter);
    }
}

START_TEST(a_watch_on_a_libuv_loop_resumes_after_the_daemon_restarts)
{
    struct client client;

    daemon_start(&daemon_of_test, NULL, NULL);
    client_open(&client, &daemon_of_test, true);
    ck_assert_int_eq(kvs_bucket_create(client.kvs, "watched", NULL, NULL), KVS_OK);
    ck_assert_int_eq(kvs_put(client.kvs, "watched", "k", "1", 1, NULL, NULL), KVS_OK);
    ck_assert_int_eq(kvs_async_watch(client.kvs, "watched", NULL, on_event, &client, NULL), KVS_OK);
    client_run(&client);
    ck_assert_uint_eq(client.entries, 2);
    ck_assert_uint_eq(client.last_revision, 2);
    daemon_stop(&daemon_of_test);
}
END_TEST

static void on_lost(struct kvs *kvs, const struct kvs_error *error, uint64_t revision, void *context)
{
    struct client *client = context;

    (void)kvs;
    (void)revision;
    ck_assert_ptr_nonnull(error);
    client->refused++;
    kvs_libuv_detach(client->adapter);
}

START_TEST(a_lost_connection_ends_the_calls_on_a_libuv_loop)
{
    struct client client;

    daemon_start(&daemon_of_test, NULL, NULL);
    client_open(&client, &daemon_of_test, false);
    const char *bucket = new_bucket(client.kvs);
    pid_suspend(daemon_of_test.process.pid);
    ck_assert_int_eq(kvs_async_put(client.kvs, bucket, "k", "v", 1, NULL, on_lost, &client), KVS_OK);
    uv_run(&client.loop, UV_RUN_NOWAIT);
    process_kill(&daemon_of_test.process);
    client_run(&client);
    ck_assert_uint_eq(client.refused, 1);
}
END_TEST

/* libuv stops to poll a socket with an error, which the library sees only after it has read what came before. */
START_TEST(a_reset_connection_is_noticed_on_a_libuv_loop)
{
    struct fake_daemon *fake = fake_daemon_start();
    struct client client;

    client_attach(&client, fake_daemon_connect(fake, NULL));
    ck_assert_int_eq(kvs_async_put(client.kvs, "b", "k", "v", 1, NULL, on_lost, &client), KVS_OK);
    uv_run(&client.loop, UV_RUN_NOWAIT);
    fake_daemon_send(fake, "[2, 'news', [1]]");
    fake_daemon_hang_up(fake); /* it has not read the request */
    client_run(&client);
    ck_assert_uint_eq(client.refused, 1);
}
END_TEST

Suite *libuv_suite(void)
{
    Suite *suite = suite_create("libuv");
    TCase *calls = shared_daemon_case(suite, "calls");
    TCase *loss = tcase_create("loss");

    tcase_add_test(calls, a_libuv_loop_sends_calls_and_delivers_their_answers);
    tcase_add_test(calls, a_callback_on_a_libuv_loop_makes_the_next_call);
    tcase_add_test(loss, a_call_on_a_libuv_loop_times_out_without_an_answer);
    tcase_add_test(loss, a_watch_on_a_libuv_loop_resumes_after_the_daemon_restarts);
    tcase_add_test(loss, a_lost_connection_ends_the_calls_on_a_libuv_loop);
    tcase_add_test(loss, a_reset_connection_is_noticed_on_a_libuv_loop);
    suite_add_tcase(suite, loss);
    return suite;
}
