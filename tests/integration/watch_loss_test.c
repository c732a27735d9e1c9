/* Watches of libkvstore whose daemon goes away: they end, or resume without a missing or repeated change. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/library.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"
#include "tests/support/watch_recorder.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct daemon daemon_of_test;

START_TEST(without_reconnect_a_watch_ends_with_its_connection)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct kvs *kvs = library_connect(&daemon_of_test, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct watch_recorder *told = watch_recorder_new();
    struct kvs_watch *watch;

    library_put(kvs, bucket, "a", "1");
    assert_done(kvs_watch(kvs, bucket, NULL, &watch));
    assert_done(kvs_async_watch(kvs, bucket, NULL, library_watch_record, told, NULL));
    library_watch_expect(watch, "a=1@1 ready");
    library_run_until(kvs, &told->readies, 1);
    daemon_stop(&daemon_of_test);
    library_watch_expect(watch, "ended: io");
    struct kvs_event event = library_watch_next(watch);
    ck_assert(event.error->has_revision);
    ck_assert_uint_eq(event.error->revision, 2);
    ck_assert_str_eq(watch_recorder_text(told), "a=1@1 ready ended: io ");
    ck_assert_int_eq(kvs_watch(kvs, bucket, NULL, &watch), KVS_IO);
    kvs_close(kvs);
}
END_TEST

START_TEST(with_reconnect_a_watch_resumes_after_its_last_entry)
{
    struct kvs_options options = KVS_OPTIONS(.reconnect = true);
    struct kvs_watch_options updates = KVS_WATCH_OPTIONS(.updates_only = true);

    daemon_start(&daemon_of_test, NULL, NULL);
    struct kvs *kvs = library_connect(&daemon_of_test, &options);
    struct kvs *writer = library_connect(&daemon_of_test, &options);
    const char *bucket = library_new_bucket(kvs, 10), *empty = library_new_bucket(kvs, 10);
    struct kvs_watch *watch, *late, *of_empty;
    struct watch_recorder *told = watch_recorder_new();

    library_put(writer, bucket, "a", "1");
    assert_done(kvs_watch(kvs, bucket, NULL, &watch));
    assert_done(kvs_watch(kvs, bucket, &updates, &late));
    assert_done(kvs_watch(kvs, empty, NULL, &of_empty));
    assert_done(kvs_async_watch(kvs, bucket, NULL, library_watch_record, told, NULL));
    library_watch_expect(watch, "a=1@1 ready");
    library_watch_expect(late, "ready");
    library_watch_expect(of_empty, "ready");
    library_run_until(kvs, &told->readies, 1);

    daemon_stop(&daemon_of_test);
    library_watch_pump(watch);
    daemon_restart(&daemon_of_test);
    library_put(writer, bucket, "a", "2"); /* before or after the watches have resumed: it is delivered once */
    library_put(writer, bucket, "a", "3");
    assert_done(kvs_delete(writer, bucket, "a", NULL, NULL));
    library_put(writer, empty, "x", "1");
    library_put(writer, empty, "x", "2");
    library_watch_expect(watch, "a=2@2 a=3@3 -a@4");
    library_watch_expect(late, "a=2@2 a=3@3 -a@4"); /* it had delivered nothing yet */
    library_watch_expect(of_empty, "x=1@1 x=2@2");

    /* A blocking call resumes watches, too. A watch that was stopped meanwhile does not return. */
    process_kill(&daemon_of_test.process);
    library_watch_pump(watch);
    kvs_watch_stop(late);
    daemon_restart(&daemon_of_test);
    library_put(kvs, bucket, "b", "5");
    library_put(kvs, bucket, "c", "6");
    library_put(kvs, empty, "x", "3");
    library_watch_expect(watch, "b=5@5 c=6@6");
    library_watch_expect(of_empty, "x=3@3");
    library_run_until(kvs, &told->count, 6);
    ck_assert_str_eq(watch_recorder_text(told), "a=1@1 ready a=2@2 a=3@3 -a@4 b=5@5 c=6@6 ");
    kvs_close(writer);
    kvs_close(kvs);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_loss_of_the_connection_among_the_first_entries_omits_none)
{
    struct kvs_options options = KVS_OPTIONS(.reconnect = true);
    enum { KEYS = 3000 };

    daemon_start(&daemon_of_test, NULL, NULL);
    struct kvs *kvs = library_connect(&daemon_of_test, &options);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_pair *pairs = keep(calloc(KEYS, sizeof(*pairs)));
    char *value = keep(calloc(1, 2000)); /* in all far more than a socket holds */
    struct kvs_watch *watch;
    uint64_t last = 0;

    memset(value, 'v', 1999);
    for (unsigned i = 0; i < KEYS; i++)
        pairs[i] = (struct kvs_pair){.key = format_text("k%u", i), .value = value, .value_size = 2000};
    for (unsigned i = 0; i < KEYS; i += 500)
        assert_done(kvs_bulk_put(kvs, bucket, pairs + i, 500, NULL, NULL, NULL));
    assert_done(kvs_watch(kvs, bucket, NULL, &watch));
    while (last < KEYS) {
        library_watch_expect_after(watch, &last);
        if (last == 10 || last == 1500) {
            process_kill(&daemon_of_test.process);
            daemon_restart(&daemon_of_test);
        }
    }
    library_watch_expect(watch, "ready");
    library_put(kvs, bucket, "last", "v");
    library_watch_expect_after(watch, &last);
    kvs_close(kvs);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(repeated_kills_of_the_daemon_lose_and_repeat_no_entry)
{
    struct kvs_options options = KVS_OPTIONS(.reconnect = true);
    enum { ROUNDS = 4, PUTS = 150 };

    daemon_start(&daemon_of_test, NULL, NULL);
    struct kvs *kvs = library_connect(&daemon_of_test, &options);
    struct kvs *writer = library_connect(&daemon_of_test, &options);
    const char *bucket = library_new_bucket(kvs, 64);
    struct watch_recorder *told = watch_recorder_new();
    struct kvs_watch *watch;
    uint64_t last = 0, written = 0;

    assert_done(kvs_watch(kvs, bucket, NULL, &watch));
    assert_done(kvs_async_watch(kvs, bucket, NULL, library_watch_record, told, NULL));
    library_watch_expect(watch, "ready");
    for (unsigned round = 0; round < ROUNDS; round++) {
        for (unsigned i = 0; i < PUTS; i++) {
            written = library_put(writer, bucket, format_text("k%u", i), format_text("%u", round));
            if (i % 3 == 0)
                library_watch_expect_after(watch, &last);
        }
        process_kill(&daemon_of_test.process);
        daemon_restart(&daemon_of_test);
    }
    written = library_put(writer, bucket, "last", "v");
    while (last < written)
        library_watch_expect_after(watch, &last);
    library_run_until(kvs, &told->count, (unsigned)written);
    ck_assert_uint_eq(told->count, written);
    ck_assert_uint_eq(watch_recorder_last_revision(told), written);
    ck_assert_uint_eq(told->readies, 1);
    ck_assert_uint_eq(told->ends, 0);
    kvs_close(writer);
    kvs_close(kvs);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_recreated_bucket_is_delivered_from_its_beginning)
{
    struct kvs_options options = KVS_OPTIONS(.reconnect = true);
    struct nats_server server;
    struct daemon other;

    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    daemon_start(&other, nats_server_section(&server), NULL);
    struct kvs *kvs = library_connect(&daemon_of_test, &options);
    struct kvs *writer = library_connect(&other, NULL);
    struct kvs_watch *watch;
    const char *bucket = library_new_bucket(kvs, 5);

    for (unsigned i = 0; i < 5; i++)
        library_put(kvs, bucket, "a", "old");
    assert_done(kvs_watch(kvs, bucket, NULL, &watch));
    library_watch_expect(watch, "a=old@5 ready");
    daemon_stop(&daemon_of_test);
    assert_done(kvs_bucket_delete(writer, bucket, NULL));
    assert_done(kvs_bucket_create(writer, bucket, NULL, NULL));
    library_put(writer, bucket, "b", "new");
    library_put(writer, bucket, "c", "newer");
    daemon_restart(&daemon_of_test);
    library_watch_expect(watch, "b=new@1 c=newer@2");
    library_put(writer, bucket, "c", "newest");
    library_put(writer, bucket, "d", "last");
    library_watch_expect(watch, "c=newest@3 d=last@4");

    /* A deleted bucket ends the watch. */
    daemon_stop(&daemon_of_test);
    assert_done(kvs_bucket_delete(writer, bucket, NULL));
    daemon_restart(&daemon_of_test);
    library_watch_expect(watch, "ended: bucket_not_found");
    kvs_close(writer);
    kvs_close(kvs);
    daemon_stop(&daemon_of_test);
    daemon_stop(&other);
    nats_server_stop(&server);
}
END_TEST

/* Delete the bucket and create it again at once. Return whether the watch goes on in the new one. */
static bool recreate_under_watch(struct client *writer, struct watch_recorder *watch, const char *bucket)
{
    uint32_t removal = client_send(writer, "bucket.delete", "['%s']", bucket);
    uint32_t creation = client_send(writer, "bucket.create", "['%s']", bucket);

    assert_ok(client_wait(writer, removal));
    assert_ok(client_wait(writer, creation));
    put_text(writer, bucket, "b", "new");
    return watch_recorder_next(watch) == WATCH_ENTRY;
}

/* If the daemon asks for the stream after the deletion and before the creation, the watch ends. */
START_TEST(a_bucket_that_its_daemon_recreates_under_a_watch_is_no_warning)
{
    struct watch_recorder *watch;

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test), *writer = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    do {
        put_text(writer, bucket, "a", "old");
        watch = watch_recorder_start(client, bucket, "'filter': '*'");
        while (watch_recorder_next(watch) != WATCH_READY)
            ;
    } while (!recreate_under_watch(writer, watch, bucket));
    daemon_wait_log(&daemon_of_test, format_text("bucket %s was created again, after this daemon had deleted", bucket));
    daemon_stop(&daemon_of_test);
    ck_assert_ptr_null(strstr(read_file(daemon_of_test.process.log_path), "warning:"));
}
END_TEST

START_TEST(a_watch_waits_for_a_daemon_that_restarts_without_nats)
{
    struct kvs_options options = KVS_OPTIONS(.reconnect = true);
    struct nats_server server;

    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    struct kvs *kvs = library_connect(&daemon_of_test, &options);
    struct kvs_watch_options quick = KVS_WATCH_OPTIONS(.timeout_s = 0.2);
    struct kvs_watch *watch;
    const char *bucket = library_new_bucket(kvs, 1);

    library_put(kvs, bucket, "a", "1");
    assert_done(kvs_watch(kvs, bucket, &quick, &watch));
    library_watch_expect(watch, "a=1@1 ready");
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
    daemon_restart(&daemon_of_test);
    /* The library tries to start the watch again and again, and the daemon looks up its bucket first. */
    struct kvs *other = library_connect(&daemon_of_test, NULL);
    uint64_t end = now_ms() + PATIENCE_MS;
    while (library_stat(other, "methods", "bucket.info", "errors") < 3) {
        library_watch_pump(watch);
        ck_assert_msg(now_ms() < end, "nobody tries to start the watch again");
    }
    kvs_close(other);
    ck_assert_int_ge(kvs_fd(kvs), 0);
    nats_server_run(&server);
    while (kvs_put(kvs, bucket, "a", "2", 1, NULL, NULL) != KVS_OK) {
        ck_assert_msg(now_ms() < end, "%s", kvs_last_error(kvs)->message);
        pause_shortly();
    }
    library_put(kvs, bucket, "b", "3");
    library_watch_expect(watch, "a=2@2 b=3@3");
    kvs_close(kvs);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(a_program_that_takes_no_events_gets_the_revision_to_resume_from)
{
    enum { PUTS = 1500, SIZE = 10000 }; /* in all far more than watches.buffer_bytes */
    struct kvs_pair *pairs = keep(calloc(PUTS, sizeof(*pairs)));
    char *value = keep(calloc(1, SIZE));
    struct kvs_watch *watch;
    struct kvs_event event;
    uint64_t last = 0;

    daemon_start(&daemon_of_test, NULL, NULL);
    struct kvs *kvs = library_connect(&daemon_of_test, NULL);
    struct kvs *writer = library_connect(&daemon_of_test, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    assert_done(kvs_watch(kvs, bucket, NULL, &watch));
    library_watch_expect(watch, "ready");
    for (unsigned i = 0; i < PUTS; i++)
        pairs[i] = (struct kvs_pair){.key = format_text("k%u", i), .value = value, .value_size = SIZE};
    for (unsigned i = 0; i < PUTS; i += 100)
        assert_done(kvs_bulk_put(writer, bucket, pairs + i, 100, NULL, NULL, NULL));
    wait_until(library_stat(writer, "watches", NULL, "ended") == 1, "the end of the watch");
    for (event = library_watch_next(watch); event.type == KVS_EVENT_ENTRY; event = library_watch_next(watch))
        ck_assert_uint_eq(event.entry->revision, ++last);
    ck_assert_str_eq(watch_event_text(&event), "ended: resource_exhausted");
    ck_assert_uint_lt(last, PUTS);
    ck_assert_uint_eq(event.error->revision, last + 1);
    struct kvs_watch_options from = KVS_WATCH_OPTIONS(.from_revision = event.error->revision);
    kvs_watch_stop(watch);
    assert_done(kvs_watch(kvs, bucket, &from, &watch));
    while (last < PUTS)
        library_watch_expect_after(watch, &last);
    library_watch_expect(watch, "ready");
    kvs_close(writer);
    kvs_close(kvs);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Wait until kvctl has printed the text, on standard output or standard error. */
static void wait_for_print(const struct process *kvctl, const char *text)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    while (strstr(read_file(kvctl->log_path), text) == NULL) {
        ck_assert_msg(now_ms() < end, "kvctl prints, without %s:\n%s", text, read_file(kvctl->log_path));
        pause_shortly();
    }
}

START_TEST(kvctl_watch_reports_the_loss_of_the_daemon_and_resumes)
{
    struct kvs_options options = KVS_OPTIONS(.reconnect = true);
    struct process kvctl = {0};

    daemon_start(&daemon_of_test, NULL, NULL);
    struct kvs *kvs = library_connect(&daemon_of_test, &options);
    const char *bucket = library_new_bucket(kvs, 1);
    const char *program =
        format_text("%.*s/kvctl", (int)(strrchr(test_run_kvstored(), '/') - test_run_kvstored()), test_run_kvstored());
    char *arguments[] = {keep(strdup(program)), "--json", "--socket", daemon_of_test.socket_path, "watch",
                         keep(strdup(bucket)),  NULL};
    snprintf(kvctl.log_path, sizeof(kvctl.log_path), "%.200s/kvctl.log", daemon_of_test.directory);
    library_put(kvs, bucket, "a", "1");
    process_start(&kvctl, arguments);
    wait_for_print(&kvctl, "\"revision\":1,");
    process_kill(&daemon_of_test.process);
    wait_for_print(&kvctl, "; reconnecting\"}\n");
    daemon_restart(&daemon_of_test);
    library_put(kvs, bucket, "a", "2");
    library_put(kvs, bucket, "a", "3");
    wait_for_print(&kvctl, "{\"note\":\"reconnected to the daemon\"}\n");
    wait_for_print(&kvctl, "\"revision\":3,");
    const char *first = strstr(read_file(kvctl.log_path), "\"revision\":1,");
    ck_assert_ptr_null(strstr(first + 1, "\"revision\":1,"));
    process_signal(&kvctl, SIGINT);
    process_wait(&kvctl);
    ck_assert_int_eq(kvctl.status, 0);
    kvs_close(kvs);
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *watch_loss_suite(void)
{
    Suite *suite = suite_create("watch_loss");
    TCase *loss = tcase_create("loss");

    tcase_add_test(loss, without_reconnect_a_watch_ends_with_its_connection);
    tcase_add_test(loss, with_reconnect_a_watch_resumes_after_its_last_entry);
    tcase_add_test(loss, a_loss_of_the_connection_among_the_first_entries_omits_none);
    tcase_add_test(loss, repeated_kills_of_the_daemon_lose_and_repeat_no_entry);
    tcase_add_test(loss, a_recreated_bucket_is_delivered_from_its_beginning);
    tcase_add_test(loss, a_bucket_that_its_daemon_recreates_under_a_watch_is_no_warning);
    tcase_add_test(loss, a_watch_waits_for_a_daemon_that_restarts_without_nats);
    tcase_add_test(loss, a_program_that_takes_no_events_gets_the_revision_to_resume_from);
    tcase_add_test(loss, kvctl_watch_reports_the_loss_of_the_daemon_and_resumes);
    suite_add_tcase(suite, loss);
    return suite;
}
