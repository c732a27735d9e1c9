/* Ephemeral keys of libkvstore: they live as long as the connection, or with reconnect as long as the handle. */
#include "client/lib/kvstore_async.h"
#include "tests/integration/suites.h"
#include "tests/support/library.h"
#include "tests/support/nats_server.h"

#include <poll.h>
#include <string.h>

static const struct kvs_put_options ephemeral = KVS_PUT_OPTIONS(.ephemeral = true);

static struct daemon daemon_of_test;
static struct nats_server server;

/* Ephemeral keys that were lost for good. */
struct losses {
    unsigned count;
    struct kvs_error last;
};

static void on_lost(struct kvs *kvs, const struct kvs_error *error, void *context)
{
    struct losses *losses = context;

    (void)kvs;
    losses->count++;
    losses->last = *error;
}

static struct kvs *connect_with(const struct daemon *daemon, bool reconnect, struct losses *losses)
{
    struct kvs_options options =
        KVS_OPTIONS(.reconnect = reconnect, .on_ephemeral_lost = on_lost, .ephemeral_context = losses);

    memset(losses, 0, sizeof(*losses));
    return library_connect(daemon, &options);
}

static void turn(struct kvs *kvs)
{
    struct pollfd waited = {.fd = kvs_fd(kvs), .events = kvs_events(kvs)};
    int timeout_ms = kvs_timeout_ms(kvs);

    poll(&waited, 1, timeout_ms >= 0 && timeout_ms < 50 ? timeout_ms : 50);
    kvs_process(kvs);
}

/* Return the key's value, kept; NULL if it does not exist. */
static const char *value_of(struct kvs *kvs, const char *bucket, const char *key)
{
    struct kvs_entry *entry;

    assert_done(kvs_get(kvs, bucket, key, NULL, &entry));
    const char *value = entry != NULL ? format_text("%s", entry->value) : NULL;
    kvs_free(entry);
    return value;
}

static bool has_value(struct kvs *kvs, const char *bucket, const char *key, const char *wanted)
{
    const char *value = value_of(kvs, bucket, key);

    return value == wanted || (value != NULL && wanted != NULL && strcmp(value, wanted) == 0);
}

/* Let the handle of the keys work until another one sees this value; NULL: none. */
static void await_value(struct kvs *owner, struct kvs *other, const char *bucket, const char *key, const char *wanted)
{
    for (uint64_t end_ms = now_ms() + PATIENCE_MS; !has_value(other, bucket, key, wanted);) {
        ck_assert_msg(now_ms() < end_ms, "%s is %s, not %s", key, value_of(other, bucket, key), wanted);
        if (owner != NULL)
            turn(owner);
    }
}

static size_t count_keys(struct kvs *kvs, const char *bucket)
{
    size_t count;
    char **keys;

    assert_done(kvs_keys(kvs, bucket, NULL, &keys, &count));
    kvs_free(keys);
    return count;
}

/* End the session of a handle as an operator does, who knows then that the daemon has deleted its keys. */
static void end_session(struct kvs *operator_kvs, struct kvs *kvs, const char *bucket)
{
    struct kvs_value *answer;

    assert_done(kvs_daemon_sessions(kvs, NULL, &answer));
    uint64_t own = kvs_value_unsigned(kvs_value_member(answer, "own"));
    kvs_free(answer);
    kvs = operator_kvs;
    assert_done(kvs_daemon_kill_session(kvs, own, NULL));
    wait_until(count_keys(kvs, bucket) == 0, "the keys to be deleted");
}

START_TEST(an_ephemeral_key_lives_as_long_as_its_handle)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL), *other = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(other, 1);
    struct kvs_entry *entry;

    assert_done(kvs_put(kvs, bucket, "a", "1", 1, &ephemeral, NULL));
    assert_done(kvs_put(kvs, bucket, "a", "2", 1, &ephemeral, NULL));
    assert_done(kvs_create(kvs, bucket, "b", "3", 1, &ephemeral, NULL));
    assert_done(kvs_create(kvs, bucket, "c", "4", 1, &ephemeral, NULL));
    assert_done(kvs_put(kvs, bucket, "c", "5", 1, NULL, NULL)); /* an ordinary key now */
    ck_assert_int_eq(kvs_create(other, bucket, "b", "x", 1, &ephemeral, NULL), KVS_ALREADY_EXISTS);
    assert_done(kvs_get(kvs, bucket, "a", NULL, &entry));
    ck_assert_ptr_nonnull(entry->lease);
    ck_assert_str_eq(entry->value, "2");
    kvs_free(entry);
    kvs_close(kvs);
    await_value(NULL, other, bucket, "a", NULL);
    await_value(NULL, other, bucket, "b", NULL);
    ck_assert_str_eq(value_of(other, bucket, "c"), "5");
    kvs_close(other);
}
END_TEST

START_TEST(what_cannot_be_ephemeral_is_refused)
{
    struct losses losses;
    struct kvs *kvs = connect_with(&shared_daemon, true, &losses);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_put_options expiring = KVS_PUT_OPTIONS(.ephemeral = true, .ttl_s = 60);
    struct kvs_txn *txn = kvs_txn_begin(kvs, bucket);

    ck_assert_int_eq(kvs_put(kvs, bucket, "k", "v", 1, &expiring, NULL), KVS_INVALID_ARGUMENT);
    ck_assert_int_eq(kvs_update(kvs, bucket, "k", "v", 1, 0, &ephemeral, NULL), KVS_INVALID_ARGUMENT);
    kvs_txn_put(txn, "k", "v", 1, &ephemeral);
    ck_assert_int_eq(kvs_txn_commit(txn, NULL, NULL, NULL), KVS_INVALID_ARGUMENT);
    kvs_txn_free(txn);
    ck_assert_uint_eq(count_keys(kvs, bucket), 0);
    kvs_close(kvs);
}
END_TEST

#define MANY 700u

static void count_answer(struct kvs *kvs, const struct kvs_error *error, uint64_t revision, void *context)
{
    (void)kvs;
    ck_assert_msg(error == NULL, "%s", error != NULL ? error->message : "");
    ck_assert_uint_gt(revision, 0);
    ++*(unsigned *)context;
}

/* The handle loses its connection again and again, also while it writes its keys again. */
START_TEST(ephemeral_keys_are_written_again_after_a_reconnect)
{
    struct losses losses;
    struct kvs *kvs = connect_with(&shared_daemon, true, &losses), *other = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(other, 1);
    struct kvs_header header = {"Color", "blue"};
    struct kvs_put_options options =
        KVS_PUT_OPTIONS(.ephemeral = true, .headers = &header, .header_count = 1, .timeout_s = 30);
    unsigned answers = 0;

    for (unsigned i = 0; i < MANY; i++) {
        const char *key = format_text("k%u", i);
        ck_assert_int_eq((i % 2 == 0 ? kvs_async_put : kvs_async_create)(kvs, bucket, key, key, strlen(key), &options,
                                                                         count_answer, &answers),
                         KVS_OK);
    }
    library_run_until(kvs, &answers, MANY);
    for (unsigned round = 0; round < 4; round++) {
        end_session(other, kvs, bucket);
        if (round % 2 == 0) {
            while (count_keys(other, bucket) == 0)
                turn(kvs);
            continue; /* the next end comes in the middle */
        }
        for (uint64_t end_ms = now_ms() + PATIENCE_MS; count_keys(other, bucket) < MANY; turn(kvs))
            ck_assert_uint_lt(now_ms(), end_ms);
    }
    ck_assert_uint_eq(losses.count, 0);
    struct kvs_entry *entry;
    assert_done(kvs_get(other, bucket, format_text("k%u", MANY - 1), NULL, &entry));
    ck_assert_str_eq(entry->value, format_text("k%u", MANY - 1));
    ck_assert_uint_eq(entry->header_count, 1);
    ck_assert_str_eq(entry->headers[0].value, "blue");
    ck_assert_ptr_nonnull(entry->lease);
    kvs_free(entry);
    kvs_close(kvs);
    wait_until(count_keys(other, bucket) == 0, "the keys to be deleted");
    kvs_close(other);
}
END_TEST

/* _i: whether the daemon is killed. */
START_TEST(ephemeral_keys_survive_a_restart_of_the_daemon)
{
    struct losses losses;

    daemon_start(&daemon_of_test, NULL, NULL);
    struct kvs *kvs = connect_with(&daemon_of_test, true, &losses);
    const char *bucket = library_new_bucket(kvs, 1);
    assert_done(kvs_create(kvs, bucket, "service", "here", 4, &ephemeral, NULL));
    if (_i == 0)
        daemon_stop(&daemon_of_test);
    else
        process_kill(&daemon_of_test.process);
    daemon_restart(&daemon_of_test);
    struct kvs *other = library_connect(&daemon_of_test, NULL);
    uint64_t end_ms = now_ms() + PATIENCE_MS;
    while (library_stat(other, "locks", NULL, "held") == 0) {
        ck_assert_uint_lt(now_ms(), end_ms);
        turn(kvs);
    }
    ck_assert_str_eq(value_of(other, bucket, "service"), "here");
    ck_assert_uint_eq(losses.count, 0);
    kvs_close(kvs);
    await_value(NULL, other, bucket, "service", NULL);
    kvs_close(other);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_key_that_others_have_written_meanwhile_is_left_alone)
{
    struct losses losses;
    struct kvs *kvs = connect_with(&shared_daemon, true, &losses), *other = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(other, 1);

    assert_done(kvs_put(kvs, bucket, "a", "mine", 4, &ephemeral, NULL));
    assert_done(kvs_put(kvs, bucket, "b", "mine", 4, &ephemeral, NULL));
    end_session(other, kvs, bucket);
    ck_assert_int_eq(kvs_put(other, bucket, "a", "theirs", 6, NULL, NULL), KVS_OK);
    await_value(kvs, other, bucket, "b", "mine");
    library_run_until(kvs, &losses.count, 1);
    ck_assert_int_eq(losses.last.code, KVS_ALREADY_EXISTS);
    ck_assert_str_eq(losses.last.key, "a");
    ck_assert_str_eq(losses.last.bucket, bucket);
    ck_assert_str_eq(value_of(other, bucket, "a"), "theirs");
    kvs_close(kvs);
    await_value(NULL, other, bucket, "b", NULL);
    ck_assert_str_eq(value_of(other, bucket, "a"), "theirs");
    kvs_close(other);
}
END_TEST

START_TEST(a_key_that_the_program_gives_up_is_not_written_again)
{
    struct losses losses;
    struct kvs *kvs = connect_with(&shared_daemon, true, &losses), *other = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(other, 1);
    const char *const keys[] = {"deleted", "purged", "ordinary", "updated", "kept"};
    struct kvs_delete_options wrong = KVS_DELETE_OPTIONS(.revision = 1000000);
    uint64_t revision;

    for (unsigned i = 0; i < 5; i++)
        assert_done(kvs_put(kvs, bucket, keys[i], "v", 1, &ephemeral, &revision));
    ck_assert_int_eq(kvs_delete(kvs, bucket, "kept", &wrong, NULL), KVS_CONFLICT);
    assert_done(kvs_delete(kvs, bucket, "deleted", NULL, NULL));
    assert_done(kvs_purge(kvs, bucket, "purged", NULL, NULL));
    assert_done(kvs_put(kvs, bucket, "ordinary", "w", 1, NULL, NULL));
    assert_done(kvs_update(kvs, bucket, "updated", "w", 1, revision - 1, NULL, NULL));
    ck_assert_int_eq(kvs_purge(other, bucket, "ordinary", NULL, NULL), KVS_OK);
    ck_assert_int_eq(kvs_purge(other, bucket, "updated", NULL, NULL), KVS_OK);
    end_session(other, kvs, bucket);
    await_value(kvs, other, bucket, "kept", "v");
    for (unsigned i = 0; i < 4; i++)
        ck_assert_ptr_null(value_of(other, bucket, keys[i]));
    ck_assert_uint_eq(losses.count, 0);
    kvs_close(kvs);
    kvs_close(other);
}
END_TEST

START_TEST(the_memory_for_ephemeral_keys_is_limited)
{
    struct kvs_options options = KVS_OPTIONS(.reconnect = true, .max_ephemeral_bytes = 4096);
    struct kvs *kvs = library_connect(&shared_daemon, &options);
    const char *bucket = library_new_bucket(kvs, 1);
    char value[1500] = "";

    assert_done(kvs_put(kvs, bucket, "a", value, sizeof(value), &ephemeral, NULL));
    assert_done(kvs_put(kvs, bucket, "b", value, sizeof(value), &ephemeral, NULL));
    ck_assert_int_eq(kvs_put(kvs, bucket, "c", value, sizeof(value), &ephemeral, NULL), KVS_RESOURCE_EXHAUSTED);
    ck_assert_int_eq(kvs_async_put(kvs, bucket, "c", value, sizeof(value), &ephemeral, NULL, NULL),
                     KVS_RESOURCE_EXHAUSTED);
    assert_done(kvs_delete(kvs, bucket, "a", NULL, NULL));
    assert_done(kvs_put(kvs, bucket, "c", value, sizeof(value), &ephemeral, NULL));
    ck_assert_uint_eq(count_keys(kvs, bucket), 2);
    kvs_close(kvs);
}
END_TEST

START_TEST(ephemeral_keys_of_a_lost_lease_are_written_again_or_reported)
{
    struct losses losses, reported;

    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), "locks:\n  lease_ttl: 2\n");
    struct kvs *kvs = connect_with(&daemon_of_test, true, &losses);
    struct kvs *session = connect_with(&daemon_of_test, false, &reported);
    struct kvs *other = library_connect(&daemon_of_test, NULL);
    const char *bucket = library_new_bucket(other, 1);
    assert_done(kvs_put(kvs, bucket, "again", "here", 4, &ephemeral, NULL));
    ck_assert_int_eq(kvs_put(session, bucket, "reported", "here", 4, &ephemeral, NULL), KVS_OK);
    uint64_t count = kvs_connection_count(kvs);
    nats_server_freeze(&server);
    library_run_until(session, &reported.count, 1);
    ck_assert_int_eq(reported.last.code, KVS_UNAVAILABLE);
    ck_assert_str_eq(reported.last.key, "reported");
    ck_assert_str_eq(reported.last.bucket, bucket);
    nats_server_thaw(&server);
    await_value(NULL, other, bucket, "reported", NULL);
    struct kvs_entry *entry;
    for (uint64_t end_ms = now_ms() + PATIENCE_MS; library_stat(other, "locks", NULL, "held") < 1; turn(kvs))
        ck_assert_uint_lt(now_ms(), end_ms);
    assert_done(kvs_get(kvs, bucket, "again", NULL, &entry));
    ck_assert_ptr_nonnull(entry);
    ck_assert_str_eq(entry->value, "here");
    kvs_free(entry);
    ck_assert_uint_eq(kvs_connection_count(kvs), count);
    ck_assert_uint_eq(losses.count, 0);
    kvs_close(kvs);
    kvs_close(session);
    await_value(NULL, other, bucket, "again", NULL);
    kvs_close(other);
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

Suite *ephemeral_suite(void)
{
    Suite *suite = suite_create("ephemeral");
    TCase *shared = shared_daemon_case(suite, "shared");
    TCase *own = tcase_create("own");

    tcase_add_test(shared, an_ephemeral_key_lives_as_long_as_its_handle);
    tcase_add_test(shared, what_cannot_be_ephemeral_is_refused);
    tcase_add_test(shared, ephemeral_keys_are_written_again_after_a_reconnect);
    tcase_add_test(shared, a_key_that_others_have_written_meanwhile_is_left_alone);
    tcase_add_test(shared, a_key_that_the_program_gives_up_is_not_written_again);
    tcase_add_test(shared, the_memory_for_ephemeral_keys_is_limited);
    tcase_set_timeout(own, TEST_TIMEOUT_S);
    tcase_add_loop_test(own, ephemeral_keys_survive_a_restart_of_the_daemon, 0, 2);
    tcase_add_test(own, ephemeral_keys_of_a_lost_lease_are_written_again_or_reported);
    suite_add_tcase(suite, own);
    return suite;
}
