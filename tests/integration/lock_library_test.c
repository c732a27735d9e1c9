/* Locks of libkvstore: acquired, vouched for, lost, and kept over lost connections and restarts. */
#include "client/lib/kvstore_async.h"
#include "client/lib/kvstore_lock.h"
#include "tests/integration/suites.h"
#include "tests/support/library.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* Tests wait for several of them. A process that asks all the time must not lose its lock because it has to wait for a
 * processor. */
#define LEASE_TTL_S   6
#define LEASE_SECTION "locks:\n  lease_ttl: 6\n"

static void short_lease_setup(void)
{
    daemon_start(&shared_daemon, NULL, LEASE_SECTION);
}

static const struct kvs_options reconnecting = KVS_OPTIONS(.reconnect = true);

/* What is known of a lock that has a callback. */
struct owned {
    struct kvs_lock *lock;
    unsigned acquired, ended, released;
    struct kvs_error error;
};

static void on_change(struct kvs *kvs, struct kvs_lock *lock, const struct kvs_error *error, void *context)
{
    struct owned *owned = context;

    (void)kvs;
    ck_assert_uint_eq(owned->ended, 0);
    owned->lock = lock;
    if (error == NULL) {
        owned->acquired++;
    } else {
        owned->ended++;
        owned->error = *error;
    }
}

static void on_released(struct kvs *kvs, const struct kvs_error *error, void *context)
{
    struct owned *owned = context;

    (void)kvs;
    owned->released++;
    if (error != NULL)
        owned->error = *error;
}

static void begin_acquire(struct kvs *kvs, const char *bucket, const char *name, const struct kvs_lock_options *options,
                          struct owned *owned)
{
    memset(owned, 0, sizeof(*owned));
    assert_done(kvs_async_lock_acquire(kvs, bucket, name, options, on_change, owned, &owned->lock));
}

/* Let the handle work while its program does nothing else. */
static void turn(struct kvs *kvs)
{
    struct pollfd waited = {.fd = kvs_fd(kvs), .events = kvs_events(kvs)};
    int timeout_ms = kvs_timeout_ms(kvs);

    poll(&waited, 1, timeout_ms >= 0 && timeout_ms < 100 ? timeout_ms : 100);
    kvs_process(kvs);
}

static struct kvs_lock *acquire(struct kvs *kvs, const char *bucket, const char *name,
                                const struct kvs_lock_options *options)
{
    struct kvs_lock *lock;

    assert_done(kvs_lock_acquire(kvs, bucket, name, options, &lock));
    ck_assert_ptr_nonnull(lock);
    ck_assert_uint_gt(kvs_lock_token(lock), 0);
    return lock;
}

static bool can_acquire(struct kvs *kvs, const char *bucket, const char *name)
{
    struct kvs_lock *lock;

    if (kvs_lock_acquire(kvs, bucket, name, NULL, &lock) != KVS_OK) {
        ck_assert_int_eq(kvs_last_error(kvs)->code, KVS_LOCKED);
        return false;
    }
    kvs_lock_release(lock);
    return true;
}

/* End the session of a handle as an operator does. */
static void end_session(struct kvs *operator_kvs, struct kvs *kvs)
{
    struct kvs_value *answer;

    assert_done(kvs_daemon_sessions(kvs, NULL, &answer));
    uint64_t own = kvs_value_unsigned(kvs_value_member(answer, "own"));
    kvs_free(answer);
    kvs = operator_kvs;
    assert_done(kvs_daemon_kill_session(kvs, own, NULL));
}

/* --- Holding --------------------------------------------------------------------------------------- */

START_TEST(a_lock_is_held_by_one_handle_at_a_time)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL), *other = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_lock_options named = KVS_LOCK_OPTIONS(.value = "me\0too", .value_size = 6);
    struct kvs_lock *refused;

    struct kvs_lock *lock = acquire(kvs, bucket, "leader", &named);
    ck_assert_double_gt(kvs_lock_valid_for(lock), 0);
    ck_assert_double_le(kvs_lock_valid_for(lock), LEASE_TTL_S);
    assert_done(kvs_lock_check(lock));
    ck_assert_int_eq(kvs_lock_error(lock)->code, KVS_OK);

    ck_assert_int_eq(kvs_lock_acquire(other, bucket, "leader", NULL, &refused), KVS_LOCKED);
    ck_assert_ptr_null(refused);
    ck_assert_str_eq(kvs_code_name(KVS_LOCKED), "locked");
    ck_assert_uint_eq(kvs_last_error(other)->value_size, 6);
    ck_assert_mem_eq(kvs_last_error(other)->value, "me\0too", 7);
    char *json = kvs_error_json(kvs_last_error(other));
    ck_assert_ptr_nonnull(strstr(json, "\"value\":\"me\\u0000too\""));
    kvs_free(json);
    ck_assert_int_eq(kvs_lock_acquire(kvs, bucket, "leader", NULL, &refused), KVS_CONFLICT);
    ck_assert_uint_eq(kvs_last_error(kvs)->revision, kvs_lock_token(lock));

    uint64_t token = kvs_lock_token(lock);
    assert_done(kvs_lock_release(lock));
    lock = acquire(other, bucket, "leader", NULL);
    ck_assert_uint_gt(kvs_lock_token(lock), token);
    kvs_close(other); /* and with it the lock, which is free then */
    struct kvs_lock_options waiting = KVS_LOCK_OPTIONS(.wait_s = -1);
    assert_done(kvs_lock_release(acquire(kvs, bucket, "leader", &waiting)));
    kvs_close(kvs);
}
END_TEST

START_TEST(only_the_token_of_the_present_holder_commits)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_lock *lock = acquire(kvs, bucket, "leader", NULL);
    uint64_t former = kvs_lock_token(lock);

    assert_done(kvs_lock_release(lock));
    lock = acquire(kvs, bucket, "leader", NULL);
    for (unsigned i = 0; i < 2; i++) {
        struct kvs_txn *txn = kvs_txn_begin(kvs, bucket);
        kvs_txn_check(txn, "leader", i == 0 ? former : kvs_lock_token(lock));
        kvs_txn_put(txn, "data", "x", 1, NULL);
        ck_assert_int_eq(kvs_txn_commit(txn, NULL, NULL, NULL), i == 0 ? KVS_CONFLICT : KVS_OK);
        kvs_txn_free(txn);
    }
    assert_done(kvs_lock_release(lock));
    kvs_close(kvs);
}
END_TEST

START_TEST(wrong_arguments_of_a_lock_are_refused)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_lock_options kept = KVS_LOCK_OPTIONS(.keep = true), owned = KVS_LOCK_OPTIONS(.owner = "short");
    struct kvs_lock_options long_owner = KVS_LOCK_OPTIONS(.owner = "0123456789012345678901234567890123456");
    struct kvs_lock_options value = KVS_LOCK_OPTIONS(.value_size = 1), wait = KVS_LOCK_OPTIONS(.wait_s = 0.0 / 0.0);
    const struct kvs_lock_options *wrong[] = {&kept, &owned, &long_owner, &value, &wait};
    struct kvs_lock *lock;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++)
        ck_assert_int_eq(kvs_lock_acquire(kvs, bucket, "leader", wrong[i], &lock), KVS_INVALID_ARGUMENT);
    ck_assert_int_eq(kvs_lock_acquire(kvs, bucket, "a..b", NULL, &lock), KVS_INVALID_ARGUMENT);
    ck_assert_int_eq(kvs_lock_acquire(kvs, "no-such-bucket", "leader", NULL, &lock), KVS_BUCKET_NOT_FOUND);
    ck_assert_int_eq(kvs_async_lock_acquire(kvs, bucket, "leader", NULL, NULL, NULL, &lock), KVS_INVALID_ARGUMENT);
    ck_assert(can_acquire(kvs, bucket, "leader"));
    kvs_close(kvs);
}
END_TEST

START_TEST(waiting_locks_are_acquired_in_order)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL), *first = library_connect(&shared_daemon, NULL);
    struct kvs *second = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_lock_options waiting = KVS_LOCK_OPTIONS(.wait_s = -1), brief = KVS_LOCK_OPTIONS(.wait_s = 0.05);
    struct kvs_lock *lock = acquire(kvs, bucket, "leader", NULL), *refused;
    struct owned a, b;

    ck_assert_int_eq(kvs_lock_acquire(first, bucket, "leader", &brief, &refused), KVS_LOCKED);
    begin_acquire(first, bucket, "leader", &waiting, &a);
    turn(first);
    while (library_stat(kvs, "locks", NULL, "waiting") < 1)
        pause_shortly();
    begin_acquire(second, bucket, "leader", &waiting, &b);
    turn(second);
    /* So long that the time for which the daemon vouches, counted from the call, is over. */
    for (uint64_t end_ms = now_ms() + LEASE_TTL_S * 1000 + 500; now_ms() < end_ms;)
        ck_assert_double_gt(kvs_lock_valid_for(lock), 0);
    assert_done(kvs_lock_release(lock));
    library_run_until(first, &a.acquired, 1);
    ck_assert_double_gt(kvs_lock_valid_for(a.lock), LEASE_TTL_S / 4.0);
    turn(second);
    ck_assert_uint_eq(b.acquired, 0);
    kvs_async_lock_release(a.lock, on_released, &a);
    library_run_until(first, &a.released, 1);
    library_run_until(second, &b.acquired, 1);
    ck_assert_uint_gt(kvs_lock_token(b.lock), 0);
    kvs_close(second);
    ck_assert_uint_eq(b.ended, 1);
    ck_assert_int_eq(b.error.code, KVS_IO);
    kvs_close(first);
    kvs_close(kvs);
}
END_TEST

START_TEST(a_handle_with_a_loop_is_vouched_for_as_long_as_it_turns)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL), *other = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct owned owned;

    begin_acquire(kvs, bucket, "leader", NULL, &owned);
    library_run_until(kvs, &owned.acquired, 1);
    for (uint64_t end_ms = now_ms() + 2 * LEASE_TTL_S * 1000; now_ms() < end_ms;) {
        turn(kvs);
        ck_assert_uint_eq(owned.ended, 0);
        ck_assert_double_gt(kvs_lock_valid_for(owned.lock), 0);
    }
    ck_assert_uint_ge(library_stat(other, "methods", "lock.check", "calls"), 1);
    ck_assert(!can_acquire(other, bucket, "leader"));
    kvs_async_lock_release(owned.lock, on_released, &owned);
    library_run_until(kvs, &owned.released, 1);
    ck_assert_int_eq(owned.error.code, KVS_OK);
    ck_assert(can_acquire(other, bucket, "leader"));
    kvs_close(kvs);
    kvs_close(other);
}
END_TEST

static const struct kvs_entry *next_entry(struct kvs_watch *watch)
{
    struct kvs_event event;

    do
        event = library_watch_next(watch);
    while (event.type == KVS_EVENT_READY);
    ck_assert_int_eq(event.type, KVS_EVENT_ENTRY);
    return event.entry;
}

START_TEST(an_entry_tells_with_which_lease_it_lives)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_lock *lock = acquire(kvs, bucket, "leader", NULL);
    char lease[64] = "";

    for (int consistency = KVS_CONSISTENCY_DIRECT; consistency <= KVS_CONSISTENCY_CACHED; consistency++) {
        struct kvs_get_options options = KVS_GET_OPTIONS(.consistency = (enum kvs_consistency)consistency);
        for (unsigned i = 0; i < 2; i++) {
            struct kvs_entry *entry;
            assert_done(kvs_get(kvs, bucket, "leader", &options, &entry));
            ck_assert_ptr_nonnull(entry->lease);
            ck_assert_uint_gt(strlen(entry->lease), 0);
            ck_assert(lease[0] == '\0' || strcmp(lease, entry->lease) == 0);
            snprintf(lease, sizeof(lease), "%s", entry->lease);
            char *json = kvs_entry_json(entry);
            ck_assert_ptr_nonnull(strstr(json, format_text(",\"lease\":\"%s\"}", lease)));
            kvs_free(json);
            kvs_free(entry);
        }
    }
    library_put(kvs, bucket, "ordinary", "x");
    struct kvs_watch_options options = KVS_WATCH_OPTIONS(.meta_only = true);
    struct kvs_watch *watch;
    assert_done(kvs_watch(kvs, bucket, &options, &watch));
    ck_assert_str_eq(next_entry(watch)->lease, lease);
    ck_assert_ptr_null(next_entry(watch)->lease);
    assert_done(kvs_lock_release(lock));
    const struct kvs_entry *released = next_entry(watch);
    ck_assert_str_eq(released->key, "leader");
    ck_assert_int_ne(released->operation, KVS_OPERATION_PUT);
    ck_assert_ptr_null(released->lease);
    kvs_watch_stop(watch);
    kvs_close(kvs);
}
END_TEST

/* --- Losing ---------------------------------------------------------------------------------------- */

START_TEST(a_lock_whose_key_is_deleted_is_lost)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL), *other = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(other, 1);
    struct kvs_lock *lock = acquire(kvs, bucket, "blocking", NULL);
    struct owned owned;

    begin_acquire(kvs, bucket, "asynchronous", NULL, &owned);
    library_run_until(kvs, &owned.acquired, 1);
    ck_assert_int_eq(kvs_delete(other, bucket, "asynchronous", NULL, NULL), KVS_OK);
    library_run_until(kvs, &owned.ended, 1);
    ck_assert_int_eq(owned.error.code, KVS_CONFLICT);
    ck_assert_double_eq(kvs_lock_valid_for(owned.lock), 0);
    ck_assert_int_eq(kvs_async_lock_check(owned.lock, on_released, &owned), KVS_CONFLICT);
    ck_assert_int_eq(kvs_lock_release(owned.lock), KVS_OK); /* does not wait, and so knows nothing */

    /* The blocking one learns it at its next question. */
    ck_assert_int_eq(kvs_delete(other, bucket, "blocking", NULL, NULL), KVS_OK);
    for (uint64_t end_ms = now_ms() + PATIENCE_MS; kvs_lock_valid_for(lock) > 0;)
        ck_assert_uint_lt(now_ms(), end_ms);
    ck_assert_int_eq(kvs_lock_error(lock)->code, KVS_CONFLICT);
    ck_assert_int_eq(kvs_lock_check(lock), KVS_CONFLICT);
    ck_assert_int_eq(kvs_lock_release(lock), KVS_CONFLICT);
    assert_done(kvs_lock_release(acquire(kvs, bucket, "blocking", NULL)));
    kvs_close(kvs);
    kvs_close(other);
}
END_TEST

static struct daemon daemon_of_test;

START_TEST(a_lock_is_lost_in_time_when_the_daemon_does_not_answer)
{
    daemon_start(&daemon_of_test, NULL, LEASE_SECTION);
    struct kvs *kvs = library_connect(&daemon_of_test, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_lock *lock = acquire(kvs, bucket, "blocking", NULL);
    struct owned owned;

    begin_acquire(kvs, bucket, "asynchronous", NULL, &owned);
    library_run_until(kvs, &owned.acquired, 1);
    pid_suspend(daemon_of_test.process.pid);
    uint64_t start_ms = now_ms(), longest_ms = 0;
    for (uint64_t asked_ms = start_ms; kvs_lock_valid_for(lock) > 0; asked_ms = now_ms()) {
        if (now_ms() - asked_ms > longest_ms)
            longest_ms = now_ms() - asked_ms;
        ck_assert_uint_lt(now_ms() - start_ms, PATIENCE_MS);
    }
    ck_assert_uint_lt(longest_ms, LEASE_TTL_S * 1000); /* a question waits for a part of what is left */
    ck_assert_int_eq(kvs_lock_error(lock)->code, KVS_UNAVAILABLE);
    library_run_until(kvs, &owned.ended, 1);
    ck_assert_int_eq(owned.error.code, KVS_UNAVAILABLE);
    pid_resume(daemon_of_test.process.pid);

    /* The end is final, and the daemon no longer keeps the locks for the program. */
    ck_assert_int_ne(kvs_lock_check(lock), KVS_OK);
    ck_assert_int_eq(kvs_lock_release(lock), KVS_UNAVAILABLE);
    struct kvs_lock_options waiting = KVS_LOCK_OPTIONS(.wait_s = -1);
    assert_done(kvs_lock_release(acquire(kvs, bucket, "blocking", &waiting)));
    assert_done(kvs_lock_release(acquire(kvs, bucket, "asynchronous", &waiting)));
    kvs_lock_release(owned.lock);
    kvs_close(kvs);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_lock_that_was_acquired_too_late_is_released)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct kvs *kvs = library_connect(&daemon_of_test, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_lock_options brief = KVS_LOCK_OPTIONS(.timeout_s = 0.1), waiting = KVS_LOCK_OPTIONS(.wait_s = -1);
    struct kvs_lock *lock;

    pid_suspend(daemon_of_test.process.pid);
    ck_assert_int_eq(kvs_lock_acquire(kvs, bucket, "leader", &brief, &lock), KVS_DEADLINE_EXCEEDED);
    ck_assert_ptr_null(lock);
    pid_resume(daemon_of_test.process.pid);
    /* The session has it now, and the handle does not know. */
    struct kvs *other = library_connect(&daemon_of_test, NULL);
    struct kvs_entry *entry = NULL;
    while (entry == NULL)
        assert_done(kvs_get(other, bucket, "leader", NULL, &entry));
    kvs_free(entry);
    assert_done(kvs_lock_release(acquire(kvs, bucket, "leader", &waiting)));
    kvs_close(other);
    kvs_close(kvs);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(without_an_owner_the_end_of_the_session_is_the_end_of_the_lock)
{
    struct kvs *kvs = library_connect(&shared_daemon, &reconnecting), *other = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(other, 1);
    struct kvs_lock *lock = acquire(kvs, bucket, "blocking", NULL);
    struct owned owned;

    begin_acquire(kvs, bucket, "asynchronous", NULL, &owned);
    library_run_until(kvs, &owned.acquired, 1);
    end_session(other, kvs);
    library_run_until(kvs, &owned.ended, 1);
    ck_assert_double_eq(kvs_lock_valid_for(lock), 0);
    ck_assert_int_ne(kvs_lock_error(lock)->code, KVS_OK);
    struct kvs_lock_options waiting = KVS_LOCK_OPTIONS(.wait_s = -1);
    kvs_lock_release(lock);
    kvs_lock_release(owned.lock);
    assert_done(kvs_lock_release(acquire(other, bucket, "blocking", &waiting)));
    assert_done(kvs_lock_release(acquire(other, bucket, "asynchronous", &waiting)));
    kvs_close(kvs);
    kvs_close(other);
}
END_TEST

START_TEST(a_handle_without_a_connection_and_its_lock_waits_for_nothing)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL), *other = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(other, 1);
    struct owned owned;

    begin_acquire(kvs, bucket, "leader", NULL, &owned);
    library_run_until(kvs, &owned.acquired, 1);
    ck_assert_int_ge(kvs_timeout_ms(kvs), 0);
    end_session(other, kvs);
    library_run_until(kvs, &owned.ended, 1);
    ck_assert_int_eq(kvs_timeout_ms(kvs), -1);
    kvs_close(kvs);
    kvs_close(other);
}
END_TEST

/* --- Keeping --------------------------------------------------------------------------------------- */

START_TEST(a_kept_lock_survives_a_lost_connection_with_its_token)
{
    struct kvs *kvs = library_connect(&shared_daemon, &reconnecting), *other = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(other, 1);
    struct kvs_lock_options kept = KVS_LOCK_OPTIONS(.keep = true);
    struct kvs_lock *lock = acquire(kvs, bucket, "blocking", &kept);
    uint64_t token = kvs_lock_token(lock);
    struct owned owned;

    begin_acquire(kvs, bucket, "asynchronous", &kept, &owned);
    library_run_until(kvs, &owned.acquired, 1);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t count = kvs_connection_count(kvs);
        end_session(other, kvs);
        for (uint64_t end_ms = now_ms() + LEASE_TTL_S * 1500; now_ms() < end_ms;) {
            ck_assert_double_gt(kvs_lock_valid_for(lock), 0);
            turn(kvs);
        }
        ck_assert_uint_gt(kvs_connection_count(kvs), count);
        assert_done(kvs_lock_check(lock));
        ck_assert_uint_eq(kvs_lock_token(lock), token);
        ck_assert_uint_eq(owned.ended, 0);
        ck_assert(!can_acquire(other, bucket, "blocking"));
    }

    /* Released without a connection, it is free at once, and not after the lease's time. */
    end_session(other, kvs);
    kvs_async_lock_release(owned.lock, on_released, &owned);
    assert_done(kvs_lock_release(lock));
    library_run_until(kvs, &owned.released, 1);
    ck_assert_int_eq(owned.error.code, KVS_OK);
    ck_assert(can_acquire(other, bucket, "blocking"));
    ck_assert(can_acquire(other, bucket, "asynchronous"));
    kvs_close(kvs);
    kvs_close(other);
}
END_TEST

/* i: whether the daemon is killed. */
START_TEST(a_kept_lock_survives_a_restart_of_the_daemon)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct kvs *kvs = library_connect(&daemon_of_test, &reconnecting);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_lock_options kept = KVS_LOCK_OPTIONS(.keep = true);
    struct kvs_lock *lock = acquire(kvs, bucket, "leader", &kept);
    uint64_t token = kvs_lock_token(lock);

    if (_i == 0)
        daemon_stop(&daemon_of_test);
    else
        process_kill(&daemon_of_test.process);
    daemon_restart(&daemon_of_test);
    ck_assert_double_gt(kvs_lock_valid_for(lock), 0);
    assert_done(kvs_lock_check(lock));
    ck_assert_uint_eq(kvs_lock_token(lock), token);
    struct kvs *other = library_connect(&daemon_of_test, NULL);
    ck_assert(!can_acquire(other, bucket, "leader"));
    assert_done(kvs_lock_release(lock));
    ck_assert(can_acquire(other, bucket, "leader"));
    kvs_close(other);
    kvs_close(kvs);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_waiting_lock_survives_a_restart_of_the_daemon)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct kvs *kvs = library_connect(&daemon_of_test, &reconnecting);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs *holder = library_connect(&daemon_of_test, NULL);
    struct kvs_lock_options waiting = KVS_LOCK_OPTIONS(.wait_s = -1);
    struct owned owned;

    acquire(holder, bucket, "leader", NULL);
    begin_acquire(kvs, bucket, "leader", &waiting, &owned);
    turn(kvs);
    while (library_stat(holder, "locks", NULL, "waiting") < 1)
        pause_shortly();
    daemon_stop(&daemon_of_test);
    ck_assert_uint_eq(owned.ended, 0);
    daemon_restart(&daemon_of_test);
    library_run_until(kvs, &owned.acquired, 1);
    kvs_close(holder);
    kvs_close(kvs);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_kept_lock_that_somebody_took_is_lost)
{
    struct kvs *kvs = library_connect(&shared_daemon, &reconnecting), *other = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(other, 1);
    struct kvs_lock_options kept = KVS_LOCK_OPTIONS(.keep = true);
    struct kvs_lock *lock = acquire(kvs, bucket, "leader", &kept);

    end_session(other, kvs);
    ck_assert_int_eq(kvs_delete(other, bucket, "leader", NULL, NULL), KVS_OK);
    struct kvs_lock_options waiting = KVS_LOCK_OPTIONS(.wait_s = -1);
    struct kvs_lock *next = acquire(other, bucket, "leader", &waiting);
    for (uint64_t end_ms = now_ms() + PATIENCE_MS; kvs_lock_valid_for(lock) > 0;) {
        ck_assert_uint_lt(now_ms(), end_ms);
        ck_assert_double_gt(kvs_lock_valid_for(next), 0);
        turn(kvs);
    }
    ck_assert_int_ne(kvs_lock_release(lock), KVS_OK);
    ck_assert_int_eq(kvs_lock_check(next), KVS_OK);
    kvs_close(kvs);
    kvs_close(other);
}
END_TEST

/* A callback releases its lock and acquires the next one. */
struct chain {
    const char *bucket;
    unsigned count;
};

static void on_chain(struct kvs *kvs, struct kvs_lock *lock, const struct kvs_error *error, void *context)
{
    struct chain *chain = context;

    ck_assert_ptr_null(error);
    kvs_lock_release(lock);
    if (++chain->count < 50)
        assert_done(kvs_async_lock_acquire(kvs, chain->bucket, "leader", NULL, on_chain, chain, NULL));
}

START_TEST(a_callback_may_release_its_lock)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    struct chain chain = {.bucket = library_new_bucket(kvs, 1)};

    assert_done(kvs_async_lock_acquire(kvs, chain.bucket, "leader", NULL, on_chain, &chain, NULL));
    library_run_until(kvs, &chain.count, 50);
    ck_assert(can_acquire(kvs, chain.bucket, "leader"));
    kvs_close(kvs);
}
END_TEST

Suite *lock_library_suite(void)
{
    Suite *suite = suite_create("lock library");
    TCase *shared = shared_daemon_case_with(suite, "shared", short_lease_setup, shared_daemon_teardown);
    TCase *own = tcase_create("own");

    tcase_add_test(shared, a_lock_is_held_by_one_handle_at_a_time);
    tcase_add_test(shared, only_the_token_of_the_present_holder_commits);
    tcase_add_test(shared, wrong_arguments_of_a_lock_are_refused);
    tcase_add_test(shared, an_entry_tells_with_which_lease_it_lives);
    tcase_add_test(shared, waiting_locks_are_acquired_in_order);
    tcase_add_test(shared, a_handle_with_a_loop_is_vouched_for_as_long_as_it_turns);
    tcase_add_test(shared, a_lock_whose_key_is_deleted_is_lost);
    tcase_add_test(shared, without_an_owner_the_end_of_the_session_is_the_end_of_the_lock);
    tcase_add_test(shared, a_handle_without_a_connection_and_its_lock_waits_for_nothing);
    tcase_add_test(shared, a_kept_lock_survives_a_lost_connection_with_its_token);
    tcase_add_test(shared, a_kept_lock_that_somebody_took_is_lost);
    tcase_add_test(shared, a_callback_may_release_its_lock);
    tcase_set_timeout(own, TEST_TIMEOUT_S);
    tcase_add_test(own, a_lock_is_lost_in_time_when_the_daemon_does_not_answer);
    tcase_add_test(own, a_lock_that_was_acquired_too_late_is_released);
    tcase_add_loop_test(own, a_kept_lock_survives_a_restart_of_the_daemon, 0, 2);
    tcase_add_test(own, a_waiting_lock_survives_a_restart_of_the_daemon);
    suite_add_tcase(suite, own);
    return suite;
}
