/* watch.start and watch.stop: the first entries of a watch, its options, and invalid calls. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"
#include "tests/support/watch_recorder.h"

static const char history[] = "'history': 5";

START_TEST(a_watch_delivers_the_last_entry_of_each_key_then_each_change)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, history);

    put_text(client, bucket, "b", "1");
    put_text(client, bucket, "a", "1");
    put_text(client, bucket, "b", "2");
    put_text(client, bucket, "c", "1");
    delete_key(client, bucket, "a");
    struct watch_recorder *recorder = watch_recorder_start(client, bucket, NULL);
    watch_recorder_expect(recorder, "b=2@3 c=1@4 -a@5 ready");
    put_text(client, bucket, "d", "1");
    delete_key(client, bucket, "b");
    assert_ok(client_call(client, "kv.purge", "['%s', 'c']", bucket));
    put_text(client, bucket, "d", "2");
    watch_recorder_expect(recorder, "d=1@6 -b@7 !c@8 d=2@9");
}
END_TEST

START_TEST(ready_is_delivered_for_an_empty_bucket)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    struct watch_recorder *empty = watch_recorder_start(client, bucket, NULL);

    watch_recorder_expect(empty, "ready");
    put_text(client, bucket, "a", "1");
    watch_recorder_expect(empty, "a=1@1");
    struct watch_recorder *unmatched = watch_recorder_start(client, bucket, "'filter': 'b.>'");
    watch_recorder_expect(unmatched, "ready");
    struct watch_recorder *future = watch_recorder_start(client, bucket, "'from_revision': 2");
    watch_recorder_expect(future, "ready");
    put_text(client, bucket, "b.c", "2");
    watch_recorder_expect(unmatched, "b.c=2@2");
    watch_recorder_expect(future, "b.c=2@2");
    wait_until_cached(client, bucket, "a");
    unmatched = watch_recorder_start(client, bucket, "'filter': 'x'");
    watch_recorder_expect(unmatched, "ready");
}
END_TEST

static const struct {
    const char *filter, *begins, *goes_on;
} filters[] = {
    {"'a.x'", "a.x=1@1 ready", "a.x=2@7"},
    {"['a.x', 'a.x']", "a.x=1@1 ready", "a.x=2@7"},
    {"['c.d.e', 'a.x']", "a.x=1@1 c.d.e=1@4 ready", "a.x=2@7"},
    {"'a.>'", "a.x=1@1 -a.y@5 ready", "a.x=2@7 a.y=2@8"},
    {"'*.x'", "a.x=1@1 b.x=1@3 ready", "a.x=2@7"},
    {"['a.>', '*.x', 'a.x', 'b.*']", "a.x=1@1 b.x=1@3 -a.y@5 ready", "a.x=2@7 a.y=2@8"},
    {"['c.>', 'top']", "c.d.e=1@4 top=1@6 ready", "top=2@9"},
    {"['c.*', 'top', '>']", "a.x=1@1 b.x=1@3 c.d.e=1@4 -a.y@5 top=1@6 ready", "a.x=2@7 a.y=2@8 top=2@9"},
};
#define FILTERS (sizeof(filters) / sizeof(filters[0]))

/* Every delivered entry matches, and comes once even if several filters match, from memory as from the server. */
static void try_filters(bool from_memory)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    struct watch_recorder *watches[FILTERS];

    put_text(client, bucket, "a.x", "1");
    put_text(client, bucket, "a.y", "1");
    put_text(client, bucket, "b.x", "1");
    put_text(client, bucket, "c.d.e", "1");
    delete_key(client, bucket, "a.y");
    put_text(client, bucket, "top", "1");
    if (from_memory)
        wait_until_cached(client, bucket, "top");
    for (size_t i = 0; i < FILTERS; i++) {
        watches[i] = watch_recorder_start(client, bucket, format_text("'filter': %s", filters[i].filter));
        watch_recorder_expect(watches[i], filters[i].begins);
    }
    put_text(client, bucket, "a.x", "2");
    put_text(client, bucket, "a.y", "2");
    put_text(client, bucket, "top", "2");
    for (size_t i = 0; i < FILTERS; i++)
        watch_recorder_expect(watches[i], filters[i].goes_on);
}

/* The stream is asked whether it is empty while the first message is on its way. */
START_TEST(the_first_write_of_a_bucket_is_delivered_to_watches_that_begin)
{
    enum { ROUNDS = 150, WATCHES = 4 };
    struct client *other = client_open_shared();

    for (unsigned round = 0; round < ROUNDS; round++) {
        struct client *client = client_open(&shared_daemon);
        const char *bucket = client_new_bucket(client, "'storage': 'memory'");
        watch_recorder_expect(watch_recorder_start(client, bucket, "'filter': 'other'"), "ready");
        uint32_t starts[WATCHES];
        for (unsigned i = 0; i < WATCHES; i++)
            starts[i] = client_send(client, "watch.start", "['%s', {'filter': 'k'}]", bucket);
        put_text(other, bucket, "k", "v");
        for (unsigned i = 0; i < WATCHES; i++) {
            const struct answer *answer = client_wait(client, starts[i]);
            assert_ok(answer);
            uint64_t watch = answer->result.via.u64;
            while (strcmp(client_wait_notification(client, watch)->method, "watch.entries") != 0)
                ; /* ready may come first */
        }
        client_close(client);
    }
}
END_TEST

START_TEST(overlapping_filters_deliver_each_entry_once)
{
    try_filters(false);
}
END_TEST

START_TEST(filters_deliver_the_same_from_memory)
{
    try_filters(true);
}
END_TEST

START_TEST(a_watch_delivers_the_same_from_memory_as_from_the_server)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, history);

    put_many(client, bucket, "k", 0, 300, 50);
    put_many(client, bucket, "k", 100, 100, 10);
    assert_ok(client_call(client, "bulk.delete", "['%s', ['k000050', 'k000150', 'k000250']]", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'h', 'v', {'headers': {'Color': 'blue'}}]", bucket));
    struct watch_recorder *reading = watch_recorder_start(client, bucket, NULL);
    const char *read = watch_recorder_text_to_ready(reading);
    wait_until_cached(client, bucket, "h");
    struct watch_recorder *walking = watch_recorder_start(client, bucket, NULL);
    ck_assert_str_eq(watch_recorder_text_to_ready(walking), read);
}
END_TEST

START_TEST(include_history_begins_with_the_whole_history)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 2");

    for (unsigned i = 1; i <= 3; i++)
        put_text(client, bucket, "a", format_text("%u", i));
    put_text(client, bucket, "b", "1");
    delete_key(client, bucket, "b");
    put_text(client, bucket, "c.d", "1");
    struct watch_recorder *all = watch_recorder_start(client, bucket, "'include_history': true");
    struct watch_recorder *some =
        watch_recorder_start(client, bucket, "'include_history': true, 'filter': ['b', 'c.*']");
    watch_recorder_expect(all, "a=2@2 a=3@3 b=1@4 -b@5 c.d=1@6 ready");
    watch_recorder_expect(some, "b=1@4 -b@5 c.d=1@6 ready");
    put_text(client, bucket, "b", "2");
    watch_recorder_expect(all, "b=2@7");
    watch_recorder_expect(some, "b=2@7");
}
END_TEST

START_TEST(updates_only_begins_with_writes_after_the_answer)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, history);

    /* Also right after a write, before the feed has delivered it. */
    for (unsigned long long i = 1; i < 40; i += 2) {
        put_text(client, bucket, "a", "before");
        struct watch_recorder *recorder = watch_recorder_start(client, bucket, "'updates_only': true");
        put_text(client, bucket, "a", "behind");
        watch_recorder_expect_and_ready(recorder, format_text("a=behind@%llu", i + 1));
        watch_recorder_stop(recorder);
    }
}
END_TEST

START_TEST(from_revision_begins_with_that_entry)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, history);

    for (unsigned i = 1; i <= 3; i++) {
        put_text(client, bucket, "a", format_text("%u", i));
        put_text(client, bucket, "b", format_text("%u", i));
    }
    struct watch_recorder *third = watch_recorder_start(client, bucket, "'from_revision': 3");
    struct watch_recorder *some = watch_recorder_start(client, bucket, "'from_revision': 3, 'filter': 'b'");
    watch_recorder_expect(third, "a=2@3 b=2@4 a=3@5 b=3@6 ready");
    watch_recorder_expect(some, "b=2@4 b=3@6 ready");
    put_text(client, bucket, "b", "4");
    watch_recorder_expect(third, "b=4@7");
    watch_recorder_expect(some, "b=4@7");
}
END_TEST

START_TEST(ignore_deletes_omits_deletes_and_purges)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, history);

    put_text(client, bucket, "a", "1");
    put_text(client, bucket, "b", "1");
    delete_key(client, bucket, "a");
    struct watch_recorder *last = watch_recorder_start(client, bucket, "'ignore_deletes': true");
    struct watch_recorder *all =
        watch_recorder_start(client, bucket, "'ignore_deletes': true, 'include_history': true");
    watch_recorder_expect(last, "b=1@2 ready");
    watch_recorder_expect(all, "a=1@1 b=1@2 ready");
    assert_ok(client_call(client, "kv.purge", "['%s', 'b']", bucket));
    put_text(client, bucket, "c", "1");
    watch_recorder_expect(last, "c=1@5");
    watch_recorder_expect(all, "c=1@5");
}
END_TEST

START_TEST(meta_only_delivers_the_size_instead_of_the_value)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    put_text(client, bucket, "a", "12345");
    put_text(client, bucket, "empty", "");
    delete_key(client, bucket, "gone");
    for (unsigned round = 0; round < 2; round++) {
        struct watch_recorder *recorder = watch_recorder_start(client, bucket, "'meta_only': true");
        watch_recorder_expect(recorder, "+a:5@1 +empty:0@2 -gone@3 ready");
        wait_until_cached(client, bucket, "a");
    }
    struct watch_recorder *meta = watch_recorder_start(client, bucket, "'meta_only': true, 'updates_only': true");
    struct watch_recorder *whole = watch_recorder_start(client, bucket, "'updates_only': true");
    watch_recorder_expect(meta, "ready");
    watch_recorder_expect(whole, "ready");
    put_text(client, bucket, "a", "123");
    watch_recorder_expect(meta, "+a:3@4");
    watch_recorder_expect(whole, "a=123@4");
}
END_TEST

START_TEST(a_watch_delivers_the_same_entry_as_get)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(client, "kv.put", "['%s', 'a', 'v', {'headers': {'Color': 'blue'}}]", bucket));
    const struct answer *answer = client_call(client, "kv.get", "['%s', 'a', {'consistency': 'leader'}]", bucket);
    for (unsigned round = 0; round < 2; round++) {
        struct watch_recorder *recorder = watch_recorder_start(client, bucket, NULL);
        ck_assert_int_eq(watch_recorder_next(recorder), WATCH_ENTRY);
        ck_assert_str_eq(object_text(recorder->object), object_text(&answer->result));
        wait_until_cached(client, bucket, "a");
    }
}
END_TEST

START_TEST(wrong_arguments_are_refused)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL), *many = "'a'";
    static const char *const wrong[] = {"'include_history': true, 'updates_only': true",
                                        "'include_history': true, 'from_revision': 1",
                                        "'updates_only': true, 'from_revision': 1",
                                        "'from_revision': 0",
                                        "'from_revision': -1",
                                        "'from_revision': 'x'",
                                        "'include_history': 1",
                                        "'meta_only': 'yes'",
                                        "'filter': ''",
                                        "'filter': 'a..b'",
                                        "'filter': 'a.>.b'",
                                        "'filter': 'a*'",
                                        "'filter': []",
                                        "'filter': ['a', 1]",
                                        "'filter': {}",
                                        "'unknown': true"};

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const struct answer *answer = client_call(client, "watch.start", "['%s', {%s}]", bucket, wrong[i]);
        ck_assert_msg(strcmp(answer_code(answer), "invalid_argument") == 0, "%s: %s", wrong[i], answer_code(answer));
    }
    for (unsigned i = 1; i < 64; i++)
        many = format_text("%s, 'a%u'", many, i);
    watch_recorder_expect(watch_recorder_start(client, bucket, format_text("'filter': [%s]", many)), "ready");
    assert_code(client_call(client, "watch.start", "['%s', {'filter': [%s, 'b']}]", bucket, many), "invalid_argument");
    assert_code(client_call(client, "watch.start", "['a b']"), "invalid_argument");
    assert_code(client_call(client, "watch.start", "[]"), "invalid_argument");
    assert_code(client_call(client, "watch.stop", "['x']"), "invalid_argument");
    assert_code(client_call(client, "watch.stop", "[-1]"), "invalid_argument");
    assert_code(client_call(client, "watch.stop", "[]"), "invalid_argument");
}
END_TEST

START_TEST(a_missing_bucket_cannot_be_watched_until_it_is_created)
{
    struct client *client = client_open_shared();

    for (unsigned i = 0; i < 2; i++)
        assert_code(client_call(client, "watch.start", "['not-yet']"), "bucket_not_found");
    assert_ok(client_call(client, "bucket.create", "['not-yet']"));
    watch_recorder_expect(watch_recorder_start(client, "not-yet", NULL), "ready");
}
END_TEST

START_TEST(a_watch_delivers_nothing_after_the_answer_to_its_stop)
{
    struct client *client = client_open_shared(), *writer = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    struct watch_recorder *stays = watch_recorder_start(client, bucket, NULL);

    watch_recorder_expect(stays, "ready");
    for (unsigned i = 0; i < 20; i++) {
        struct watch_recorder *goes = watch_recorder_start(client, bucket, "'updates_only': true");
        uint32_t writes[20];
        for (unsigned put = 0; put < 20; put++)
            writes[put] = client_send(writer, "kv.put", "['%s', 'k%u', 'v']", bucket, put);
        watch_recorder_stop(goes);
        while (client_find_notification(client, goes->id) != NULL)
            ; /* was delivered before the answer */
        for (unsigned put = 0; put < 20; put++)
            assert_ok(client_wait(writer, writes[put]));
        put_text(client, bucket, "last", format_text("%u", i));
        do
            ck_assert_int_eq(watch_recorder_next(stays), WATCH_ENTRY);
        while (strcmp(text_at(stays->object, "key"), "last") != 0);
        ck_assert_ptr_null(client_find_notification(client, goes->id));
        watch_recorder_stop(goes); /* is not an error */
    }
    /* Another session's id names no watch. */
    assert_ok(client_call(writer, "watch.stop", "[%llu]", (unsigned long long)stays->id));
    unsigned long long revision = put_text(client, bucket, "a", "1");
    watch_recorder_expect(stays, format_text("a=1@%llu", revision));
}
END_TEST

Suite *watch_suite(void)
{
    Suite *suite = suite_create("watch");
    TCase *tests = shared_daemon_case(suite, "begin");

    tcase_add_test(tests, a_watch_delivers_the_last_entry_of_each_key_then_each_change);
    tcase_add_test(tests, ready_is_delivered_for_an_empty_bucket);
    tcase_add_test(tests, the_first_write_of_a_bucket_is_delivered_to_watches_that_begin);
    tcase_add_test(tests, overlapping_filters_deliver_each_entry_once);
    tcase_add_test(tests, filters_deliver_the_same_from_memory);
    tcase_add_test(tests, a_watch_delivers_the_same_from_memory_as_from_the_server);
    tcase_add_test(tests, include_history_begins_with_the_whole_history);
    tcase_add_test(tests, updates_only_begins_with_writes_after_the_answer);
    tcase_add_test(tests, from_revision_begins_with_that_entry);
    tcase_add_test(tests, ignore_deletes_omits_deletes_and_purges);
    tcase_add_test(tests, meta_only_delivers_the_size_instead_of_the_value);
    tcase_add_test(tests, a_watch_delivers_the_same_entry_as_get);
    tcase_add_test(tests, wrong_arguments_are_refused);
    tcase_add_test(tests, a_missing_bucket_cannot_be_watched_until_it_is_created);
    tcase_add_test(tests, a_watch_delivers_nothing_after_the_answer_to_its_stop);
    return suite;
}
