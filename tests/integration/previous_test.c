/* What the entries of a watch say of the entry before. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/client.h"
#include "tests/support/daemon.h"
#include "tests/support/nats_server.h"

static struct daemon daemon_of_test;

/* Return the entries of a watch one after the other, however they are packed. */
static const msgpack_object *next_entry(struct client *client, uint64_t watch)
{
    static struct notification *notification;
    static uint32_t next;

    while (notification == NULL || notification->watch != watch ||
           next == notification->params.via.array.ptr[1].via.array.size) {
        notification = client_wait_notification(client, watch);
        next = 0;
        if (strcmp(notification->method, "watch.entries") != 0)
            notification = NULL;
    }
    return &notification->params.via.array.ptr[1].via.array.ptr[next++];
}

static uint64_t start_watch(struct client *client, const char *bucket, const char *options)
{
    const struct answer *answer = client_call(client, "watch.start", "['%s', {%s}]", bucket, options);

    assert_ok(answer);
    return number_at(&answer->result, "");
}

/* The next entry must have this revision, and tell the revision before it, and the value before it if there is one. */
static void expect_next(struct client *client, uint64_t watch, uint64_t revision, uint64_t previous, const char *value)
{
    const msgpack_object *entry = next_entry(client, watch);

    ck_assert_uint_eq(number_at(entry, "revision"), revision);
    ck_assert_uint_eq(number_at(entry, "previous"), previous);
    if (value == NULL)
        ck_assert_ptr_null(find_at(entry, "previous_value"));
    else
        ck_assert_str_eq(text_at(entry, "previous_value"), value);
}

/* The copy must have been loaded: before that, it does not know which keys are absent. */
START_TEST(a_change_tells_the_revision_before_it)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    put_text(client, bucket, "old", "v");
    wait_until_cached(client, bucket, "old");
    uint64_t watch = start_watch(client, bucket, "'updates_only': true");
    put_text(client, bucket, "old", "w");
    put_text(client, bucket, "new", "x");
    put_text(client, bucket, "new", "y");
    delete_key(client, bucket, "new");
    put_text(client, bucket, "new", "z");
    expect_next(client, watch, 2, 1, NULL);
    expect_next(client, watch, 3, 0, NULL);
    expect_next(client, watch, 4, 3, NULL);
    expect_next(client, watch, 5, 4, NULL);
    expect_next(client, watch, 6, 5, NULL);
}
END_TEST

START_TEST(the_value_before_comes_on_request)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    put_text(client, bucket, "k", "one");
    wait_until_cached(client, bucket, "k");
    uint64_t plain = start_watch(client, bucket, "'updates_only': true"),
             with = start_watch(client, bucket, "'updates_only': true, 'previous': true");
    put_text(client, bucket, "k", "two");
    delete_key(client, bucket, "k");
    put_text(client, bucket, "k", "three");
    expect_next(client, plain, 2, 1, NULL);
    expect_next(client, plain, 3, 2, NULL);
    expect_next(client, plain, 4, 3, NULL);
    expect_next(client, with, 2, 1, "one");
    expect_next(client, with, 3, 2, "two");
    expect_next(client, with, 4, 3, NULL);
    assert_code(client_call(client, "watch.start", "['%s', {'previous': true, 'meta_only': true}]", bucket),
                "invalid_argument");
}
END_TEST

/* More watches than are delivered a change at once. */
START_TEST(watches_that_fall_behind_are_told_too)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    uint64_t watches[100];

    put_text(client, bucket, "k", "1");
    wait_until_cached(client, bucket, "k");
    for (unsigned i = 0; i < 100; i++)
        watches[i] =
            start_watch(client, bucket, i % 2 == 0 ? "'updates_only': true, 'previous': true" : "'updates_only': true");
    for (unsigned i = 2; i <= 10; i++)
        put_text(client, bucket, "k", format_text("%u", i));
    for (unsigned i = 0; i < 100; i++) {
        for (unsigned n = 2; n <= 10; n++)
            expect_next(client, watches[i], n, n - 1, i % 2 == 0 ? format_text("%u", n - 1) : NULL);
    }
}
END_TEST

/* In external mode, a bucket that nobody reads from memory has the keys of its watches only. */
START_TEST(what_the_daemon_does_not_know_is_left_out)
{
    struct nats_server server;

    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    put_text(client, bucket, "k", "one");
    uint64_t watch = start_watch(client, bucket, "'updates_only': true");
    put_text(client, bucket, "k", "two");
    put_text(client, bucket, "k", "three");
    const msgpack_object *entry = next_entry(client, watch);
    ck_assert_uint_eq(number_at(entry, "revision"), 2);
    ck_assert_ptr_null(find_at(entry, "previous"));
    expect_next(client, watch, 3, 2, NULL);
    client_close(client);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

Suite *previous_suite(void)
{
    Suite *suite = suite_create("previous");
    TCase *shared = shared_daemon_case(suite, "previous entries");
    TCase *own = tcase_create("a daemon of its own");

    tcase_add_test(shared, a_change_tells_the_revision_before_it);
    tcase_add_test(shared, the_value_before_comes_on_request);
    tcase_add_test(shared, watches_that_fall_behind_are_told_too);
    tcase_add_test(own, what_the_daemon_does_not_know_is_left_out);
    suite_add_tcase(suite, own);
    return suite;
}
