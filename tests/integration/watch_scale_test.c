/* Many watches of the same keys: each delivers everything, and no write waits for them. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/client.h"
#include "tests/support/machine.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"
#include "tests/support/watch_recorder.h"

#include <string.h>

static struct daemon daemon_of_test;

/* Start count watches of a client. options: see watch_recorder_start. */
static struct watch_recorder **start_many(struct client *client, const char *bucket, unsigned count,
                                          const char *options)
{
    struct watch_recorder **many = keep(calloc(count, sizeof(struct watch_recorder *)));

    for (unsigned i = 0; i < count; i++) {
        many[i] = watch_recorder_start(client, bucket, options);
        watch_recorder_expect(many[i], "ready");
    }
    return many;
}

static void expect_entries(struct watch_recorder *recorder, uint64_t from, uint64_t to)
{
    for (uint64_t revision = from; revision <= to; revision++) {
        ck_assert_msg(watch_recorder_next(recorder) == WATCH_ENTRY, "%s", object_text(recorder->object));
        ck_assert_msg(recorder->revision == revision, "not %u: %s", (unsigned)revision, object_text(recorder->object));
    }
}

START_TEST(each_of_many_watches_delivers_every_change_once_and_in_order)
{
    enum { SESSIONS = 8, WATCHES = 50, PUTS = 400, AT_ONCE = 20 };
    struct client *clients[SESSIONS];
    struct watch_recorder **watches[SESSIONS];

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *writer = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(writer, "'storage': 'memory'");
    for (unsigned i = 0; i < SESSIONS; i++) {
        clients[i] = client_open(&daemon_of_test);
        watches[i] =
            start_many(clients[i], bucket, WATCHES, i % 2 == 0 ? NULL : "'filter': ['k.*', '>'], 'meta_only': true");
    }
    struct watch_recorder *one = watch_recorder_start(writer, bucket, "'filter': 'k.000007'");
    watch_recorder_expect(one, "ready");
    /* Some start while others are behind. */
    for (unsigned i = 0; i < PUTS; i += AT_ONCE)
        put_many(writer, bucket, "k.", i, AT_ONCE, 100);
    struct watch_recorder *late = watch_recorder_start(writer, bucket, "'from_revision': 1");
    expect_entries(late, 1, PUTS);
    watch_recorder_expect(late, "ready");
    ck_assert_int_eq(watch_recorder_next(one), WATCH_ENTRY);
    for (unsigned i = 0; i < SESSIONS; i++) {
        for (unsigned j = 0; j < WATCHES; j++)
            expect_entries(watches[i][j], 1, PUTS);
    }
    /* No watch lags. */
    put_text(writer, bucket, "last", "x");
    for (unsigned i = 0; i < SESSIONS; i++) {
        for (unsigned j = 0; j < WATCHES; j++)
            expect_entries(watches[i][j], PUTS + 1, PUTS + 1);
        client_expect_nothing(clients[i]);
    }
    ck_assert_uint_eq(stat_of(writer, "watches.ended"), 0);
    daemon_stop(&daemon_of_test);
}
END_TEST

/*
 * One change, for all of its watches, is larger than watches.buffer_bytes. The watches wait until the client has read.
 */
START_TEST(watches_of_one_session_do_not_end_each_other)
{
    enum { WATCHES = 500, PUTS = 10 };

    daemon_start(&daemon_of_test, NULL, "watches:\n  buffer_bytes: 64K\n");
    struct client *writer = client_open(&daemon_of_test), *reader = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(writer, "'storage': 'memory'");
    struct watch_recorder **watches = start_many(reader, bucket, WATCHES, NULL);
    for (unsigned put = 1; put <= PUTS; put++) {
        put_many(writer, bucket, "k", put, 1, 1000);
        for (unsigned i = 0; i < WATCHES; i++)
            expect_entries(watches[i], put, put);
    }
    ck_assert_uint_eq(stat_of(writer, "watches.ended"), 0);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(many_watches_that_are_not_read_end_with_the_revision_to_resume_from)
{
    enum { SESSIONS = 4, WATCHES = 100, PUTS = 2000, AT_ONCE = 100 };
    struct client *clients[SESSIONS];
    struct watch_recorder **watches[SESSIONS];

    daemon_start(&daemon_of_test, NULL, "watches:\n  buffer_bytes: 64K\n");
    struct client *writer = client_open(&daemon_of_test), *fast = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(writer, "'storage': 'memory'");
    for (unsigned i = 0; i < SESSIONS; i++) {
        clients[i] = client_open(&daemon_of_test);
        watches[i] = start_many(clients[i], bucket, WATCHES, NULL);
    }
    struct watch_recorder *reads = watch_recorder_start(fast, bucket, NULL);
    watch_recorder_expect(reads, "ready");
    for (unsigned i = 0; i < PUTS; i += AT_ONCE) {
        put_many(writer, bucket, "k", i, AT_ONCE, 300);
        expect_entries(reads, i + 1, i + AT_ONCE);
    }
    wait_for_stat(writer, "watches.ended", SESSIONS * WATCHES);
    for (unsigned i = 0; i < SESSIONS; i++) {
        for (unsigned j = 0; j < WATCHES; j++) {
            struct watch_recorder *recorder = watches[i][j];
            enum watch_event event;
            uint64_t last = 0;
            while ((event = watch_recorder_next(recorder)) == WATCH_ENTRY)
                ck_assert_uint_eq(recorder->revision, ++last);
            ck_assert_int_eq(event, WATCH_ENDED);
            ck_assert_str_eq(text_at(recorder->object, "code"), "resource_exhausted");
            ck_assert_uint_eq(number_at(recorder->object, "revision"), last + 1);
        }
    }
    ck_assert_uint_eq(stat_of(writer, "watches.open"), 1);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Read what a watch was delivered from revision 1 on, until it has ended or has delivered this revision. */
static enum watch_event read_entries(struct watch_recorder *recorder, uint64_t to, uint64_t *last)
{
    enum watch_event event = WATCH_ENTRY;

    *last = 0;
    while (*last < to && (event = watch_recorder_next(recorder)) == WATCH_ENTRY)
        ck_assert_uint_eq(recorder->revision, ++*last);
    return event;
}

START_TEST(what_waits_for_the_watches_of_all_buckets_is_limited)
{
    enum { WATCHES = 100, MANY = 800, FEW = 300, AT_ONCE = 50, LIMIT = 1 << 20 };
    uint64_t last;

    daemon_start(&daemon_of_test, NULL,
                 "watches:\n  buffer_bytes: 1M\nlimits:\n  out_bytes: 1M\n  stall_timeout: 3600\n");
    struct client *writer = client_open(&daemon_of_test), *slow = client_open(&daemon_of_test),
                  *other = client_open(&daemon_of_test);
    const char *large = client_new_bucket(writer, "'storage': 'memory'"),
               *small = client_new_bucket(writer, "'storage': 'memory'");
    struct watch_recorder **ended = start_many(slow, large, WATCHES, NULL),
                          **live = start_many(other, small, WATCHES, NULL);
    for (unsigned i = 0; i < MANY; i += AT_ONCE)
        put_many(writer, large, "k", i, AT_ONCE, 1000);
    for (unsigned i = 0; i < FEW; i += AT_ONCE) {
        put_many(writer, small, "k", i, AT_ONCE, 1000);
        ck_assert_uint_le(stat_of(writer, "watches.backlog_bytes"), LIMIT);
    }
    for (unsigned i = 0; i < WATCHES; i++) {
        ck_assert_int_eq(read_entries(ended[i], MANY, &last), WATCH_ENDED);
        ck_assert_str_eq(text_at(ended[i]->object, "code"), "resource_exhausted");
        ck_assert_uint_eq(number_at(ended[i]->object, "revision"), last + 1);
    }
    for (unsigned i = 0; i < WATCHES; i++)
        ck_assert_int_eq(read_entries(live[i], FEW, &last), WATCH_ENTRY);
    struct watch_recorder *again = watch_recorder_start(slow, large, format_text("'from_revision': %u", MANY));
    expect_entries(again, MANY, MANY);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Sessions and watches that end while they are behind leave nothing. */
START_TEST(watches_may_stop_while_they_are_behind)
{
    enum { SESSIONS = 3, WATCHES = 100, ROUNDS = 5 };

    daemon_start(&daemon_of_test, NULL, "watches:\n  buffer_bytes: 64K\n");
    struct client *writer = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(writer, "'storage': 'memory'");
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct client *clients[SESSIONS];
        struct watch_recorder **watches[SESSIONS];
        for (unsigned i = 0; i < SESSIONS; i++) {
            clients[i] = client_open(&daemon_of_test);
            watches[i] = start_many(clients[i], bucket, WATCHES, "'updates_only': true");
        }
        put_many(writer, bucket, "k", 0, 50, 1000);
        for (unsigned j = 0; j < WATCHES; j += 2)
            watch_recorder_stop(watches[0][j]);
        client_close(clients[1]);
        if (round == ROUNDS - 1) {
            assert_ok(client_call(writer, "bucket.delete", "['%s']", bucket));
            wait_for_stat(writer, "watches.open", 0);
        }
        client_close(clients[0]);
        client_close(clients[2]);
        wait_for_stat(writer, "watches.open", 0);
    }
    daemon_stop(&daemon_of_test);
}
END_TEST

/* The revisions of the new bucket begin again, below those that the watches have delivered. */
START_TEST(watches_that_are_behind_deliver_a_recreated_bucket)
{
    enum { WATCHES = 100, PUTS = 5 };

    daemon_start(&daemon_of_test, NULL, "watches:\n  buffer_bytes: 64K\n");
    struct client *writer = client_open(&daemon_of_test), *slow = client_open(&daemon_of_test);
    struct nats *nats = nats_connect_embedded(daemon_of_test.data_dir);
    const char *bucket = client_new_bucket(writer, "'storage': 'memory', 'history': 10");
    const char *stream = format_text("KV_%s", bucket);
    struct watch_recorder **watches = start_many(slow, bucket, WATCHES, NULL);

    /* The daemon has received all of them once one watch has delivered them. */
    struct watch_recorder *heard = watch_recorder_start(writer, bucket, NULL);
    watch_recorder_expect(heard, "ready");
    for (unsigned i = 0; i < PUTS; i++)
        put_many(writer, bucket, "k", 0, 1, 1000);
    expect_entries(heard, 1, PUTS);
    uint64_t told = stat_of(writer, "watches.entries");
    ck_assert_uint_lt(told, WATCHES * PUTS);
    pid_suspend(daemon_of_test.process.pid);
    nats_api(nats, "STREAM.DELETE", stream, "%s", "");
    nats_api(nats, "STREAM.CREATE", stream,
             "{'name': '%s', 'subjects': ['$KV.%s.>'], 'max_msgs_per_subject': 1, 'storage': 'memory', "
             "'allow_direct': true, 'allow_rollup_hdrs': true, 'deny_delete': true, 'discard': 'new'}",
             stream, bucket);
    nats_request_json(nats, format_text("$KV.%s.new", bucket), NULL, "first");
    pid_resume(daemon_of_test.process.pid);
    for (unsigned i = 0; i < WATCHES; i++) {
        expect_entries(watches[i], 1, PUTS);
        watch_recorder_expect(watches[i], "new=first@1 -k000000@1");
    }
    put_text(writer, bucket, "last", "x");
    for (unsigned i = 0; i < WATCHES; i++)
        expect_entries(watches[i], 2, 2);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Start watches of 64 filters each, and wait until all have begun. The filters end in rest, or are the key "hot". */
static void start_wide(struct client *client, const char *bucket, unsigned count, const char *rest)
{
    msgpack_sbuffer requests, filters;

    msgpack_sbuffer_init(&requests);
    for (unsigned i = 0; i < count; i++) {
        msgpack_sbuffer_init(&filters);
        for (unsigned j = 0; j < 64; j++) {
            const char *filter = j > 0 ? format_text(", 'w%u.f%u%s'", i, j, rest) : "'hot'";
            msgpack_sbuffer_write(&filters, filter, strlen(filter));
        }
        pack_request(&requests, i, "watch.start", "['%s', {'updates_only': true, 'filter': [%.*s]}]", bucket,
                     (int)filters.size, filters.data);
        msgpack_sbuffer_destroy(&filters);
    }
    client_write(client, requests.data, requests.size);
    msgpack_sbuffer_destroy(&requests);
    for (unsigned i = 0; i < count; i++)
        assert_ok(client_wait(client, i));
}

START_TEST(many_watches_do_not_deliver_the_daemons_own_key)
{
    enum { WATCHES = 100 };

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *writer = client_open(&daemon_of_test), *reader = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(writer, "'storage': 'memory'");
    put_text(writer, bucket, "k", "1");
    assert_ok(client_call(writer, "kv.delete", "['%s', 'k']", bucket));
    struct watch_recorder **watches = start_many(reader, bucket, WATCHES, "'updates_only': true");
    assert_ok(client_call(writer, "bucket.compact", "['%s', {'older_than': 0}]", bucket)); /* writes revision 3 */
    put_text(writer, bucket, "k", "2");
    for (unsigned i = 0; i < WATCHES; i++)
        expect_entries(watches[i], 4, 4);
    client_expect_nothing(reader);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Start a daemon and sessions with watches of a new bucket. Return a further session. The log is marked after that. */
static struct client *open_many_watches(struct client **clients, unsigned sessions, unsigned watches,
                                        const char **bucket)
{
    daemon_start(&daemon_of_test, NULL,
                 format_text("watches:\n  max_filters: 1048576\nlimits:\n  user_percent: 100\n%s",
                             machine_log_section(TURN_MS)));
    struct client *client = client_open(&daemon_of_test);
    *bucket = client_new_bucket(client, "'storage': 'memory'");
    for (unsigned i = 0; i < sessions; i++) {
        clients[i] = client_open(&daemon_of_test);
        start_wide(clients[i], *bucket, watches, ".>");
    }
    daemon_mark_log(&daemon_of_test);
    return client;
}

START_TEST(the_end_of_sessions_with_many_watches_delays_nobody)
{
    enum { SESSIONS = 16, WATCHES = 1000 };
    struct client *clients[SESSIONS];
    const char *bucket;

    /* Processor time of a turn; 40 ms if all were ended at once. */
    struct client *client = open_many_watches(clients, SESSIONS, WATCHES, &bucket);
    pid_suspend(daemon_of_test.process.pid);
    for (unsigned i = 0; i < SESSIONS; i++)
        client_close(clients[i]);
    pid_resume(daemon_of_test.process.pid);
    wait_for_stat(client, "watches.open", 0);
    ck_assert_ptr_null(strstr(daemon_log(&daemon_of_test), "slow turn"));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Return a text of so many tokens, each after a dot. */
static const char *many_tokens(unsigned count)
{
    char *text = keep(calloc(count, 2));

    for (unsigned i = 0; i < count; i++)
        memcpy(text + 2 * i, ".t", i + 1 < count ? 2 : 1);
    return text;
}

START_TEST(a_change_of_many_watches_with_many_filters_delays_nobody)
{
    enum { WATCHES = 300 };

    /* Processor time of a turn; 40 ms if the watches left the tree of filters. */
    daemon_start(&daemon_of_test, NULL,
                 format_text("watches:\n  max_filters: 1048576\n%s", machine_log_section(TURN_MS)));
    struct client *client = client_open(&daemon_of_test), *watcher = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    start_wide(watcher, bucket, WATCHES, format_text("%s>", many_tokens(29)));
    daemon_mark_log(&daemon_of_test);
    put_text(client, bucket, "hot", "1");
    wait_for_stat(client, "watches.entries", WATCHES);
    put_text(client, bucket, "hot", "2");
    wait_for_stat(client, "watches.entries", 2 * WATCHES);
    ck_assert_ptr_null(strstr(daemon_log(&daemon_of_test), "slow turn"));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Filters that match the first tokens of a key in all ways: each has other tokens of it as *. */
static const char *alike_filter(unsigned number)
{
    char tokens[2 * 16 + 1];

    for (unsigned bit = 0; bit < 16; bit++)
        memcpy(tokens + 2 * bit, (number >> bit & 1) != 0 ? "*." : "a.", 2);
    tokens[sizeof(tokens) - 1] = '\0';
    return format_text("%sa.a.a.a.a.a.a.a.a.a.a.a.z", tokens);
}

/* Each change would look at all tokens of all filters. */
START_TEST(filters_that_are_alike_do_not_make_each_change_expensive)
{
    enum { WATCHES = 200, FILTERS = 64 };
    const char *key = "a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.z", *filters;
    struct watch_recorder *wide[WATCHES];

    daemon_start(&daemon_of_test, NULL,
                 format_text("watches:\n  max_filters: 1048576\n%s", machine_log_section(TURN_MS)));
    struct client *client = client_open(&daemon_of_test), *watcher = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    for (unsigned i = 0; i < WATCHES; i++) {
        filters = "";
        for (unsigned j = 0; j < FILTERS; j++)
            filters = format_text("%s%s'%s'", filters, j > 0 ? ", " : "", alike_filter(i * FILTERS + j));
        wide[i] = watch_recorder_start(watcher, bucket, format_text("'updates_only': true, 'filter': [%s]", filters));
    }
    struct watch_recorder *all = watch_recorder_start(watcher, bucket, NULL),
                          *other = watch_recorder_start(watcher, bucket, "'filter': 'other'");
    watch_recorder_expect(all, "ready");
    watch_recorder_expect(other, "ready");
    daemon_mark_log(&daemon_of_test);
    put_text(client, bucket, format_text("%s.no", key), "1");
    put_text(client, bucket, key, "2");
    put_text(client, bucket, "other", "3");
    watch_recorder_expect(all, format_text("%s.no=1@1 %s=2@2 other=3@3", key, key));
    watch_recorder_expect(other, "other=3@3");
    for (unsigned i = 0; i < WATCHES; i++)
        watch_recorder_expect(wide[i], format_text("ready %s=2@2", key));
    ck_assert_ptr_null(strstr(daemon_log(&daemon_of_test), "slow turn"));
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_change_that_ends_watches_with_long_filters_delays_nobody)
{
    enum { WATCHES = 60 };
    static char value[1000];

    /* Processor time of a turn; 200 ms if the filters were in a tree of tokens, and all watches ended at once. */
    daemon_start(
        &daemon_of_test, NULL,
        format_text("watches:\n  buffer_bytes: 64K\n  max_filters: 1048576\n%s", machine_log_section(TURN_MS)));
    struct client *client = client_open(&daemon_of_test), *watcher = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    start_wide(watcher, bucket, WATCHES, format_text("%st", many_tokens(490)));
    memset(value, 'v', sizeof(value) - 1);
    daemon_mark_log(&daemon_of_test);
    while (stat_of(client, "watches.open") > 0)
        put_text(client, bucket, "hot", value);
    ck_assert_ptr_null(strstr(daemon_log(&daemon_of_test), "slow turn"));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* The watches of the deleted bucket are still being ended when the new one is watched. */
START_TEST(a_watch_of_a_recreated_bucket_does_not_wait_for_the_end_of_others)
{
    enum { SESSIONS = 8, WATCHES = 1000 };
    struct client *clients[SESSIONS];
    const char *bucket;

    struct client *client = open_many_watches(clients, SESSIONS, WATCHES, &bucket);
    assert_ok(client_call(client, "bucket.delete", "['%s']", bucket));
    wait_until(stat_of(client, "watches.open") < SESSIONS * WATCHES, "the first ends");
    assert_ok(client_call(client, "bucket.create", "['%s']", bucket));
    struct watch_recorder *recorder = watch_recorder_start(client, bucket, NULL);
    watch_recorder_expect(recorder, "ready");
    wait_for_stat(client, "watches.open", 1);
    ck_assert_ptr_null(strstr(daemon_log(&daemon_of_test), "slow turn"));
    put_text(client, bucket, "a", "1");
    watch_recorder_expect(recorder, "a=1@1");
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_watch_looks_through_a_large_bucket_in_slices)
{
    enum { KEYS = 40000, AT_ONCE = 4000, FILTERS = 64 };
    const char *prefix = "a.a.a.a.a.a.a.a.a.a.", *filters = "";

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    for (unsigned i = 0; i < KEYS; i += AT_ONCE)
        put_many(client, bucket, prefix, i, AT_ONCE, 1);
    wait_until_cached(client, bucket, "a");
    /* That no key matches is seen at its last token. */
    for (unsigned i = 0; i < FILTERS; i++)
        filters = format_text("%s%s'*.*.*.*.*.*.*.*.*.*.no%u'", filters, i > 0 ? ", " : "", i);
    daemon_mark_log(&daemon_of_test);
    struct watch_recorder *watch = watch_recorder_start(client, bucket, format_text("'filter': [%s]", filters));
    watch_recorder_expect(watch, "ready");
    ck_assert_ptr_null(strstr(daemon_log(&daemon_of_test), "slow turn"));
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_watch_of_large_keys_begins_as_its_client_reads)
{
    enum { KEYS = 16, BYTES = 500000 };
    const char *filters = "";

    daemon_start(&daemon_of_test, NULL, "watches:\n  buffer_bytes: 1M\n");
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    put_many(client, bucket, "k.", 0, KEYS, BYTES);
    wait_until_cached(client, bucket, "a");
    for (unsigned i = 0; i < KEYS; i++)
        filters = format_text("%s%s'k.%06u'", filters, i > 0 ? ", " : "", i);
    client_send(client, "watch.start", "['%s', {'filter': [%s]}]", bucket, filters);
    wait_for_stat(other, "watches.open", 1);
    struct answer *dump = client_call(other, "daemon.dump", "[]");
    assert_ok(dump);
    for (size_t i = 0; i < count_at(&dump->result, "sessions.list"); i++)
        ck_assert_uint_le(number_at(&dump->result, format_text("sessions.list.%zu.unread_bytes", i)), 2u * BYTES);
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *watch_scale_suite(void)
{
    Suite *suite = suite_create("watch_scale");
    TCase *tests = tcase_create("watch_scale");

    tcase_add_test(tests, each_of_many_watches_delivers_every_change_once_and_in_order);
    tcase_add_test(tests, watches_of_one_session_do_not_end_each_other);
    tcase_add_test(tests, many_watches_that_are_not_read_end_with_the_revision_to_resume_from);
    tcase_add_test(tests, what_waits_for_the_watches_of_all_buckets_is_limited);
    tcase_add_test(tests, watches_may_stop_while_they_are_behind);
    tcase_add_test(tests, watches_that_are_behind_deliver_a_recreated_bucket);
    tcase_add_test(tests, many_watches_do_not_deliver_the_daemons_own_key);
    tcase_add_test(tests, the_end_of_sessions_with_many_watches_delays_nobody);
    tcase_add_test(tests, a_change_of_many_watches_with_many_filters_delays_nobody);
    tcase_add_test(tests, filters_that_are_alike_do_not_make_each_change_expensive);
    tcase_add_test(tests, a_change_that_ends_watches_with_long_filters_delays_nobody);
    tcase_add_test(tests, a_watch_of_a_recreated_bucket_does_not_wait_for_the_end_of_others);
    tcase_add_test(tests, a_watch_looks_through_a_large_bucket_in_slices);
    tcase_add_test(tests, a_watch_of_large_keys_begins_as_its_client_reads);
    suite_add_tcase(suite, tests);
    return suite;
}
