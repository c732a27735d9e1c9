/* The watches of libkvstore, blocking and asynchronous. */
#include "tests/integration/suites.h"
#include "tests/support/library.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* --- Blocking -------------------------------------------------------------------------------------- */

START_TEST(a_watch_delivers_the_current_entries_then_each_change)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    struct kvs *other = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 5);
    struct kvs_watch *watch;

    library_put(kvs, bucket, "a", "1");
    library_put(kvs, bucket, "b", "2");
    library_put(kvs, bucket, "a", "3");
    assert_done(kvs_delete(kvs, bucket, "b", NULL, NULL));
    assert_done(kvs_watch(kvs, bucket, NULL, &watch));
    library_watch_expect(watch, "a=3@3 -b@4 ready");
    library_put(other, bucket, "c", "5");
    library_put(other, bucket, "c", "6");
    library_watch_expect(watch, "c=5@5 c=6@6");
    assert_done(
        kvs_purge(other, bucket, "c", NULL, NULL)); /* what it removes before its delivery would not be delivered */
    library_watch_expect(watch, "!c@7");

    /* A call does not lose events that were not taken. */
    library_put(other, bucket, "d", "8");
    library_put(kvs, bucket, "d", "9");
    library_watch_expect(watch, "d=8@8 d=9@9");
    kvs_watch_stop(watch);
    library_put(kvs, bucket, "d", "10");
    kvs_close(other);
    kvs_close(kvs);
}
END_TEST

START_TEST(an_empty_bucket_is_ready_at_once)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    struct kvs_watch *watch;
    struct kvs_event event;

    assert_done(kvs_watch(kvs, library_new_bucket(kvs, 1), NULL, &watch));
    library_watch_expect(watch, "ready");
    uint64_t start = now_ms();
    assert_done(kvs_watch_next(watch, 0, &event));
    ck_assert_int_eq(event.type, KVS_EVENT_NONE);
    assert_at_once(start);
    start = now_ms();
    assert_done(kvs_watch_next(watch, 0.3, &event));
    ck_assert_int_eq(event.type, KVS_EVENT_NONE);
    ck_assert_uint_ge(now_ms() - start, 290);
    kvs_close(kvs); /* which also frees the watch */
}
END_TEST

START_TEST(options_select_what_a_watch_delivers)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 5);
    const char *const filters[] = {"x.*", "y.>"};
    struct kvs_watch *watch;

    library_put(kvs, bucket, "x.a", "one");
    library_put(kvs, bucket, "x.a", "two");
    library_put(kvs, bucket, "x.b.c", "three");
    library_put(kvs, bucket, "y.b.c", "four");
    assert_done(kvs_delete(kvs, bucket, "y.b.c", NULL, NULL));

    struct kvs_watch_options some = KVS_WATCH_OPTIONS(.filters = filters, .filter_count = 2);
    assert_done(kvs_watch(kvs, bucket, &some, &watch));
    library_watch_expect(watch, "x.a=two@2 -y.b.c@5 ready");
    kvs_watch_stop(watch);
    struct kvs_watch_options history =
        KVS_WATCH_OPTIONS(.filters = filters, .filter_count = 1, .include_history = true);
    assert_done(kvs_watch(kvs, bucket, &history, &watch));
    library_watch_expect(watch, "x.a=one@1 x.a=two@2 ready");
    kvs_watch_stop(watch);
    struct kvs_watch_options from = KVS_WATCH_OPTIONS(.from_revision = 3, .ignore_deletes = true, .meta_only = true);
    assert_done(kvs_watch(kvs, bucket, &from, &watch));
    library_watch_expect(watch, "+x.b.c:5@3 +y.b.c:4@4 ready");
    kvs_watch_stop(watch);
    struct kvs_watch_options updates = KVS_WATCH_OPTIONS(.updates_only = true);
    assert_done(kvs_watch(kvs, bucket, &updates, &watch));
    library_watch_expect(watch, "ready");
    library_put(kvs, bucket, "x.a", "six");
    library_watch_expect(watch, "x.a=six@6");
    kvs_watch_stop(watch);

    struct kvs_watch_options both = KVS_WATCH_OPTIONS(.updates_only = true, .from_revision = 1);
    ck_assert_int_eq(kvs_watch(kvs, bucket, &both, &watch), KVS_INVALID_ARGUMENT);
    ck_assert_ptr_null(watch);
    const char *const wrong[] = {"a*b"};
    struct kvs_watch_options no_filter = KVS_WATCH_OPTIONS(.filters = wrong, .filter_count = 1);
    ck_assert_int_eq(kvs_watch(kvs, bucket, &no_filter, &watch), KVS_INVALID_ARGUMENT);
    ck_assert_int_eq(kvs_watch(kvs, "nowhere", NULL, &watch), KVS_BUCKET_NOT_FOUND);
    ck_assert_str_eq(kvs_last_error(kvs)->bucket, "nowhere");
    ck_assert_int_eq(kvs_watch(kvs, NULL, NULL, &watch), KVS_INVALID_ARGUMENT);
    kvs_watch_stop(NULL);
    kvs_close(kvs);
}
END_TEST

START_TEST(large_and_small_values_are_delivered_unchanged)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 5);
    struct kvs_watch_options meta = KVS_WATCH_OPTIONS(.meta_only = true);
    struct kvs_watch *watch, *sizes;
    char *large = keep(malloc(700001));

    memset(large, 'x', 700000);
    large[700000] = '\0';
    library_put(kvs, bucket, "a", large);
    library_put(kvs, bucket, "b", "2");
    assert_done(kvs_watch(kvs, bucket, NULL, &watch));
    assert_done(kvs_watch(kvs, bucket, &meta, &sizes));
    library_watch_expect(watch, format_text("a=%s@1 b=2@2 ready", large));
    library_watch_expect(sizes, "+a:700000@1 +b:1@2 ready");
    /* The same for changes: the room that an entry was packed in is reused. */
    library_put(kvs, bucket, "b", large);
    library_put(kvs, bucket, "b", "4");
    large[400000] = '\0';
    library_put(kvs, bucket, "b", large);
    library_put(kvs, bucket, "b", "6");
    library_watch_expect(sizes, "+b:700000@3 +b:1@4 +b:400000@5 +b:1@6");
    library_watch_next(watch);
    library_watch_expect(watch, format_text("b=4@4 b=%s@5 b=6@6", large));
    kvs_close(kvs);
}
END_TEST

START_TEST(an_entry_can_be_converted_to_json)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_header headers[] = {{"Color", "\"blue\""}};
    struct kvs_put_options options = KVS_PUT_OPTIONS(.headers = headers, .header_count = 1);
    struct kvs_watch_options meta = KVS_WATCH_OPTIONS(.meta_only = true);
    struct kvs_watch *watch;

    assert_done(kvs_put(kvs, bucket, "k", "\xff\x00", 2, &options, NULL));
    assert_done(kvs_watch(kvs, bucket, NULL, &watch));
    struct kvs_event event = library_watch_next(watch);
    ck_assert_int_eq(event.type, KVS_EVENT_ENTRY);
    char *json = keep(kvs_entry_json(event.entry));
    ck_assert_str_eq(json, format_text("{\"key\":\"k\",\"value\":{\"base64\":\"/wA=\"},\"revision\":1,\"created\":%lld,"
                                       "\"operation\":\"put\",\"headers\":{\"Color\":\"\\\"blue\\\"\"}}",
                                       (long long)event.entry->created_us));
    kvs_watch_stop(watch);
    assert_done(kvs_watch(kvs, bucket, &meta, &watch));
    event = library_watch_next(watch);
    json = keep(kvs_entry_json(event.entry));
    ck_assert_ptr_nonnull(strstr(json, "{\"key\":\"k\",\"size\":2,\"revision\":1,"));
    kvs_close(kvs);
}
END_TEST

START_TEST(a_bucket_that_is_deleted_ends_its_watches)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_watch *watch;

    assert_done(kvs_watch(kvs, bucket, NULL, &watch));
    library_watch_expect(watch, "ready");
    assert_done(kvs_bucket_delete(kvs, bucket, NULL));
    library_watch_expect(watch, "ended: bucket_not_found");
    struct kvs_event event = library_watch_next(watch); /* and remains ended */
    ck_assert_int_eq(event.type, KVS_EVENT_ENDED);
    kvs_watch_stop(watch);
    kvs_close(kvs);
}
END_TEST

START_TEST(the_queue_of_a_slow_program_is_bounded)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_watch_options small = KVS_WATCH_OPTIONS(.max_queued_bytes = 4096);
    struct kvs_watch *watch, *other;
    struct kvs_event event;
    unsigned told = 0;
    uint64_t last = 0;

    assert_done(kvs_watch(kvs, bucket, &small, &watch));
    assert_done(kvs_watch(kvs, bucket, NULL, &other));
    library_watch_expect(watch, "ready");
    library_watch_expect(other, "ready");
    for (unsigned i = 0; i < 200; i++)
        library_put(kvs, bucket, format_text("k%u", i),
                    "some value"); /* entries arrive meanwhile, and the program takes none */
    /* The other watch has its default limit, far above that. What it takes has come for both. */
    while (last < 200)
        library_watch_expect_after(other, &last);
    kvs_watch_stop(other);
    last = 0;
    for (event = library_watch_next(watch); event.type == KVS_EVENT_ENTRY; event = library_watch_next(watch)) {
        ck_assert_uint_eq(event.entry->revision, last + 1);
        last++;
        told++;
    }
    ck_assert_int_eq(event.type, KVS_EVENT_ENDED);
    ck_assert_int_eq(event.error->code, KVS_RESOURCE_EXHAUSTED);
    ck_assert_uint_gt(told, 0);
    ck_assert_uint_lt(told, 200);
    ck_assert(event.error->has_revision);
    ck_assert_uint_eq(event.error->revision, last + 1);

    struct kvs_watch_options from = KVS_WATCH_OPTIONS(.from_revision = event.error->revision);
    kvs_watch_stop(watch);
    assert_done(kvs_watch(kvs, bucket, &from, &watch));
    for (event = library_watch_next(watch); event.type == KVS_EVENT_ENTRY; event = library_watch_next(watch))
        ck_assert_uint_eq(event.entry->revision, ++last);
    ck_assert_int_eq(event.type, KVS_EVENT_READY);
    ck_assert_uint_eq(last, 200);
    kvs_watch_stop(watch);
    kvs_close(kvs);
}
END_TEST

/* --- Asynchronous ---------------------------------------------------------------------------------- */

START_TEST(the_callback_of_a_watch_gets_each_event)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct watch_recorder *first = watch_recorder_new(), *second = watch_recorder_new(), *none = watch_recorder_new();
    struct kvs_watch *watch, *iterator;
    struct kvs_event event;

    library_put(kvs, bucket, "a", "1");
    library_put(kvs, bucket, "b", "2");
    assert_done(kvs_async_watch(kvs, bucket, NULL, library_watch_record, first, &watch));
    assert_done(kvs_async_watch(kvs, bucket, NULL, library_watch_record_first, second, NULL));
    assert_done(kvs_async_watch(kvs, "nowhere", NULL, library_watch_record, none, NULL));
    assert_done(kvs_watch(kvs, bucket, NULL, &iterator));
    library_run_until(kvs, &first->readies, 1);
    library_run_until(kvs, &none->ends, 1);
    ck_assert_str_eq(watch_recorder_text(first), "a=1@1 b=2@2 ready ");
    ck_assert_str_eq(watch_recorder_text(none), "ended: bucket_not_found ");
    /* Each is ready before c is written. Otherwise c might be among its first entries. */
    library_watch_expect(iterator, "a=1@1 b=2@2 ready");
    library_run_until(kvs, &second->count, 1);
    library_put(kvs, bucket, "c", "3");
    library_run_until(kvs, &first->count, 3);
    ck_assert_str_eq(watch_recorder_text(first), "a=1@1 b=2@2 ready c=3@3 ");
    ck_assert_str_eq(watch_recorder_text(second), "a=1@1 "); /* it has stopped itself */
    library_watch_expect(iterator, "c=3@3");
    ck_assert_int_eq(kvs_watch_next(watch, 0, &event), KVS_INVALID_ARGUMENT);
    ck_assert_int_eq(kvs_async_watch(kvs, bucket, NULL, NULL, NULL, NULL), KVS_INVALID_ARGUMENT);

    kvs_watch_stop(watch);
    library_put(kvs, bucket, "d", "4");
    library_watch_expect(iterator, "d=4@4");
    ck_assert_uint_eq(first->count, 3);
    assert_done(kvs_async_watch(kvs, bucket, NULL, library_watch_record, first, &watch));
    library_run_until(kvs, &first->readies, 2);
    kvs_close(kvs); /* with two watches, one of which gets an event for it */
    ck_assert_uint_eq(first->ends, 1);
    ck_assert_str_eq(first->ended, "io");
    ck_assert_uint_eq(first->ended_revision, 5);
    ck_assert_uint_eq(second->ends, 0);
}
END_TEST

static void on_notification(struct kvs *kvs, const char *method, const struct kvs_value *params, void *context)
{
    const char **methods = context;

    (void)kvs;
    ck_assert_uint_ge(kvs_value_count(params), 1);
    *methods = format_text("%s%s ", *methods, method);
}

START_TEST(notifications_of_unknown_watches_go_to_on_notification)
{
    const char *methods = "";
    struct kvs_options options = KVS_OPTIONS(.on_notification = on_notification, .notification_context = &methods);
    struct kvs *kvs = library_connect(&shared_daemon, &options);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_request *request = kvs_request_new("watch.start", 1);
    struct kvs_value *id;
    struct kvs_watch *watch;

    library_put(kvs, bucket, "a", "1");
    assert_done(kvs_watch(kvs, bucket, NULL, &watch));
    library_watch_expect(watch, "a=1@1 ready");
    ck_assert_str_eq(methods, "");
    kvs_request_string(request, bucket);
    assert_done(kvs_call(kvs, request, 0, &id));
    kvs_request_free(request);
    uint64_t end = now_ms() + PATIENCE_MS;
    while (strstr(methods, "watch.ready ") == NULL) {
        library_watch_pump(watch);
        ck_assert_msg(now_ms() < end, "the function was called for %s", methods);
    }
    ck_assert_str_eq(methods, "watch.entries watch.ready ");
    kvs_free(id);
    kvs_close(kvs);
}
END_TEST

START_TEST(a_watch_from_a_future_revision_delivers_nothing_older_after_a_reconnect)
{
    struct kvs_options options = KVS_OPTIONS(.reconnect = true);
    struct kvs_watch_options later = KVS_WATCH_OPTIONS(.from_revision = 4);
    struct kvs *kvs = library_connect(&shared_daemon, &options), *other = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 5);
    struct kvs_watch *watch;

    library_put(other, bucket, "a", "1");
    assert_done(kvs_watch(kvs, bucket, &later, &watch));
    library_watch_expect(watch, "ready");
    shutdown(kvs_fd(kvs), SHUT_RDWR);
    library_put(other, bucket, "b", "2");
    library_put(other, bucket, "c", "3");
    library_put(other, bucket, "d", "4");
    library_watch_expect(watch, "d=4@4");
    kvs_close(other);
    kvs_close(kvs);
}
END_TEST

static void stop_watch(struct kvs *kvs, const struct kvs_error *error, const struct kvs_entry *entry, void *context)
{
    (void)kvs;
    (void)error;
    (void)entry;
    kvs_watch_stop(context);
}

START_TEST(stopping_a_watch_ends_the_wait_for_its_events)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_watch *watch;
    struct kvs_event event;

    assert_done(kvs_watch(kvs, bucket, NULL, &watch));
    library_watch_expect(watch, "ready");
    assert_done(kvs_async_get(kvs, bucket, "a", NULL, stop_watch, watch));
    ck_assert_int_eq(kvs_watch_next(watch, PATIENCE_MS / 1000.0, &event), KVS_INVALID_ARGUMENT);
    library_put(kvs, bucket, "a", "1"); /* which frees it */
    kvs_close(kvs);
}
END_TEST

Suite *watch_library_suite(void)
{
    Suite *suite = suite_create("watch_library");
    TCase *tests = shared_daemon_case(suite, "watches");

    tcase_add_test(tests, a_watch_delivers_the_current_entries_then_each_change);
    tcase_add_test(tests, an_empty_bucket_is_ready_at_once);
    tcase_add_test(tests, options_select_what_a_watch_delivers);
    tcase_add_test(tests, large_and_small_values_are_delivered_unchanged);
    tcase_add_test(tests, an_entry_can_be_converted_to_json);
    tcase_add_test(tests, a_bucket_that_is_deleted_ends_its_watches);
    tcase_add_test(tests, the_queue_of_a_slow_program_is_bounded);
    tcase_add_test(tests, the_callback_of_a_watch_gets_each_event);
    tcase_add_test(tests, notifications_of_unknown_watches_go_to_on_notification);
    tcase_add_test(tests, a_watch_from_a_future_revision_delivers_nothing_older_after_a_reconnect);
    tcase_add_test(tests, stopping_a_watch_ends_the_wait_for_its_events);
    return suite;
}
