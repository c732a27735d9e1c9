/* bucket.compact and marker_ttl remove the markers of deleted keys, with no other effect that a client can see. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"
#include "tests/support/object.h"
#include "tests/support/watch_recorder.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IN_MEMORY "'storage': 'memory'"
#define ANY_AGE   "'older_than': 0"

static uint64_t compact(struct client *client, const char *bucket, const char *options)
{
    return revision_of(client_call(client, "bucket.compact", "['%s', {%s}]", bucket, options));
}

/* Return the number of messages that the bucket has. */
static uint64_t count_values(struct client *client, const char *bucket)
{
    const struct answer *answer = client_call(client, "bucket.info", "['%s']", bucket);

    assert_ok(answer);
    return number_at(&answer->result, "values");
}

static uint64_t count_keys(struct client *client, const char *bucket)
{
    const struct answer *answer = client_call(client, "kv.keys", "['%s']", bucket);

    assert_ok(answer);
    return count_at(&answer->result, "");
}

/* Return the value that the server has, or NULL. */
static const char *text_on_server(struct client *client, const char *bucket, const char *key)
{
    const struct answer *answer = client_call(client, "kv.get", "['%s', '%s', {'consistency': 'leader'}]", bucket, key);

    assert_ok(answer);
    return answer->result.type == MSGPACK_OBJECT_NIL ? NULL : text_at(&answer->result, "value");
}

/* More keys than one call may contain. */
static void put_very_many(struct client *client, const char *bucket, const char *prefix, unsigned count, size_t size)
{
    for (unsigned first = 0; first < count; first += 10000)
        put_many(client, bucket, prefix, first, 10000, size);
}

static void delete_many(struct client *client, const char *bucket, const char *prefix, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        client_send(client, "kv.delete", "['%s', '%s%06u']", bucket, prefix, i);
    for (unsigned i = 0; i < count; i++)
        assert_ok(client_receive(client));
}

/* --- What goes, and what stays ----------------------------------------------------------------------- */

START_TEST(compaction_removes_markers_and_keeps_values)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, IN_MEMORY);

    put_many(client, bucket, "a", 0, 50, 10);
    put_text(client, bucket, "between", "1");
    put_many(client, bucket, "b", 0, 50, 10);
    delete_many(client, bucket, "a", 50);
    put_text(client, bucket, "last", "2");
    delete_many(client, bucket, "b", 50);
    assert_ok(client_call(client, "kv.purge", "['%s', 'never']", bucket));
    ck_assert_uint_eq(compact(client, bucket, ANY_AGE), 101);
    ck_assert_uint_eq(count_keys(client, bucket), 2);
    ck_assert_str_eq(text_on_server(client, bucket, "between"), "1");
    ck_assert_str_eq(text_on_server(client, bucket, "last"), "2");
    ck_assert_ptr_null(text_on_server(client, bucket, "a000001"));
    ck_assert_uint_eq(compact(client, bucket, ANY_AGE), 0);
    ck_assert_uint_eq(count_values(client, bucket), 3); /* the two, and up to which revision markers were removed */
    assert_ok(client_call(client, "kv.create", "['%s', 'a000001', 'again']", bucket));
}
END_TEST

START_TEST(markers_before_all_values_are_removed_too)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, IN_MEMORY);

    put_many(client, bucket, "a", 0, 50, 10);
    delete_many(client, bucket, "a", 50);
    ck_assert_uint_eq(compact(client, bucket, ANY_AGE), 50);
    ck_assert_uint_eq(count_values(client, bucket), 1);
}
END_TEST

START_TEST(compacting_an_empty_bucket_removes_nothing)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    ck_assert_uint_eq(compact(client, bucket, ANY_AGE), 0);
    ck_assert_uint_eq(count_values(client, bucket), 0);
}
END_TEST

START_TEST(younger_markers_are_kept)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, IN_MEMORY);

    put_text(client, bucket, "a", "1");
    delete_key(client, bucket, "a");
    ck_assert_uint_eq(compact(client, bucket, "'older_than': 3600"), 0);
    ck_assert_uint_eq(compact(client, bucket, ""), 0); /* the default is 30 minutes */
    ck_assert_uint_eq(count_values(client, bucket), 1);
    assert_ok(client_call(client, "bucket.update", "['%s', {'marker_ttl': 3600}]", bucket));
    ck_assert_uint_eq(compact(client, bucket, ""), 0);
    ck_assert_uint_eq(compact(client, bucket, ANY_AGE), 1);
}
END_TEST

START_TEST(a_key_that_is_written_again_keeps_its_value)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, IN_MEMORY);

    put_text(client, bucket, "stays", "0");
    for (unsigned i = 0; i < 200; i++) {
        put_text(client, bucket, "a", "1");
        delete_key(client, bucket, "a");
        uint32_t compacting = client_send(client, "bucket.compact", "['%s', {" ANY_AGE "}]", bucket);
        uint32_t putting = client_send(client, "kv.put", "['%s', 'a', 'again']", bucket);
        assert_ok(client_wait(client, putting));
        assert_ok(client_wait(client, compacting));
        ck_assert_str_eq(text_on_server(client, bucket, "a"), "again");
    }
    ck_assert_str_eq(text_on_server(client, bucket, "stays"), "0");
}
END_TEST

START_TEST(the_history_before_a_marker_is_removed_and_others_are_kept)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, IN_MEMORY ", 'history': 5");

    for (unsigned i = 0; i < 3; i++) {
        put_text(client, bucket, "gone", "1");
        put_text(client, bucket, "kept", "1");
        put_text(client, bucket, "back", "1");
    }
    delete_key(client, bucket, "gone");
    delete_key(client, bucket, "back");
    put_text(client, bucket, "back", "2");
    ck_assert_uint_eq(compact(client, bucket, ANY_AGE), 1);
    const struct answer *answer = client_call(client, "kv.history", "['%s', 'gone']", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 0);
    answer = client_call(client, "kv.history", "['%s', 'kept']", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 3);
    answer = client_call(client, "kv.history", "['%s', 'back']", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 5);
}
END_TEST

/* With a history each marker is removed by itself. */
START_TEST(at_its_deadline_compaction_reports_its_progress_and_the_next_call_continues)
{
    enum { KEYS = 5000 };
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, IN_MEMORY ", 'history': 2");
    uint64_t done = 0;
    bool was_late = false;

    put_many(client, bucket, "a", 0, KEYS, 10);
    delete_many(client, bucket, "a", KEYS);
    for (unsigned timeout_ms = 20;; timeout_ms *= 2) {
        const struct answer *answer =
            client_call(client, "bucket.compact", "['%s', {'older_than': 0, 'timeout': %u.%03u}]", bucket,
                        timeout_ms / 1000, timeout_ms % 1000);
        if (strcmp(answer_code(answer), "ok") == 0) {
            done += revision_of(answer);
            break;
        }
        assert_code(answer, "deadline_exceeded");
        ck_assert(bool_at(&answer->error, "retryable"));
        const char *text = strstr(text_at(&answer->error, "message"), "after ");
        ck_assert_ptr_nonnull(text);
        uint64_t removed = strtoull(text + 6, NULL, 10);
        ck_assert_msg(removed == 0 || strcmp(text_at(&answer->error, "outcome"), "unknown") == 0, "%s",
                      answer_text(answer));
        done += removed;
        was_late = true;
    }
    ck_assert(was_late);
    ck_assert_uint_le(done, KEYS);
    ck_assert_uint_eq(count_values(client, bucket), 1);
}
END_TEST

START_TEST(a_bucket_with_an_origin_is_not_compacted)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, IN_MEMORY);

    assert_ok(client_call(client, "bucket.create", "['%s-copy', {'mirror': '%s'}]", bucket, bucket));
    assert_code(client_call(client, "bucket.compact", "['%s-copy']", bucket), "unsupported");
    assert_code_says(client_call(client, "bucket.update", "['%s-copy', {'marker_ttl': 86400}]", bucket), "unsupported",
                     "marker_ttl");
    assert_ok(client_call(client, "bucket.update", "['%s-copy', {'marker_ttl': 0}]", bucket));
    assert_code(
        client_call(client, "bucket.create", "['%s-all', {'sources': ['%s'], 'marker_ttl': 86400}]", bucket, bucket),
        "unsupported");
}
END_TEST

START_TEST(clients_cannot_use_the_daemons_own_keys)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_code_says(client_call(client, "kv.put", "['%s', '_kvstored.compacted', 'x']", bucket), "invalid_argument",
                     "_kvstored.");
    assert_ok(client_call(client, "kv.put", "['%s', '_kvstored', 'x']", bucket));
}
END_TEST

/* --- The server's files ------------------------------------------------------------------------------ */

/* Kill the server with SIGKILL. The daemon starts it again. */
static void kill_server(struct daemon *daemon)
{
    daemon_mark_log(daemon);
    ck_assert_int_eq(kill(daemon_nats_pid(daemon), SIGKILL), 0);
    daemon_wait_log(daemon, "nats: connected to");
}

/* Otherwise nats-server would find the value in its files, and nothing that hides it. */
START_TEST(a_deleted_value_does_not_come_back_when_the_server_is_killed)
{
    static const char *const options[] = {"'history': 1", "'history': 3", "'compression': true"};
    struct daemon daemon = {0};

    daemon_start(&daemon, DAEMON_SYNCS_ALWAYS, NULL);
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        struct client *client = client_open(&daemon);
        const char *bucket = client_new_bucket(client, options[i]);
        put_text(client, bucket, "stays", "1");
        for (unsigned n = 0; n < 5; n++)
            put_text(client, bucket, "a", "old");
        delete_key(client, bucket, "a");
        compact(client, bucket, ANY_AGE);
        put_text(client, bucket, "b", "1");
        kill_server(&daemon);
        ck_assert_ptr_null(text_on_server(client, bucket, "a"));
        ck_assert_uint_eq(count_keys(client, bucket), 2);
        client_close(client);
    }
    daemon_stop(&daemon);
}
END_TEST

/* What preceded the marker was purged, and the server keeps a record of the purge. */
START_TEST(a_removed_history_does_not_reappear)
{
    struct daemon daemon = {0};

    daemon_start(&daemon, DAEMON_SYNCS_ALWAYS, NULL);
    struct client *client = client_open(&daemon);
    const char *bucket = client_new_bucket(client, "'history': 5");
    put_text(client, bucket, "stays", "1");
    for (unsigned n = 0; n < 4; n++)
        put_text(client, bucket, "a", "old");
    delete_key(client, bucket, "a");
    ck_assert_uint_eq(compact(client, bucket, ANY_AGE), 1);
    put_text(client, bucket, "b", "1");
    for (unsigned i = 0; i < 2; i++) {
        kill_server(&daemon);
        ck_assert_ptr_null(text_on_server(client, bucket, "a"));
        ck_assert_uint_eq(count_values(client, bucket), 3);
    }
    daemon_stop(&daemon);
}
END_TEST

START_TEST(markers_are_removed_after_the_old_values_have_left_the_files)
{
    enum { KEYS = 40000, BYTES = 300 };
    struct daemon daemon = {0};

    daemon_start(&daemon, NULL, NULL);
    struct client *client = client_open(&daemon);
    const char *bucket = client_new_bucket(client, NULL);
    put_text(client, bucket, "oldest", "1");
    put_very_many(client, bucket, "a", KEYS, BYTES);
    delete_many(client, bucket, "a", KEYS);
    uint64_t removed = compact(client, bucket, ANY_AGE);
    /* The current file, of 4 MB at most, keeps its values. */
    ck_assert_uint_ge(removed, KEYS / 2);
    for (unsigned i = 0; i < 2; i++) {
        kill_server(&daemon);
        ck_assert_uint_eq(count_keys(client, bucket), 1);
        ck_assert_str_eq(text_on_server(client, bucket, "oldest"), "1");
        for (unsigned key = 0; key < KEYS; key += 997)
            ck_assert_ptr_null(text_on_server(client, bucket, format_text("a%06u", key)));
    }
    daemon_stop(&daemon);
}
END_TEST

/* --- Watches ----------------------------------------------------------------------------------------- */

START_TEST(a_watch_from_before_removed_markers_must_start_over)
{
    struct daemon daemon = {0};

    daemon_start(&daemon, NULL, NULL);
    struct client *client = client_open(&daemon);
    const char *bucket = client_new_bucket(client, NULL);
    put_text(client, bucket, "stays", "1");
    put_very_many(client, bucket, "a", 40000, 300);
    delete_many(client, bucket, "a", 40000);
    uint64_t before = revision_of(client_call(client, "kv.put", "['%s', 'b', '1']", bucket));
    ck_assert_uint_gt(compact(client, bucket, ANY_AGE), 0);
    uint64_t next = put_text(client, bucket, "b", "2");
    for (unsigned i = 0; i < 2; i++) {
        struct watch_recorder *recorder =
            watch_recorder_start(client, bucket, format_text("'from_revision': %lu", before));
        watch_recorder_expect(recorder, format_text("b=2@%lu ready", next));
        watch_recorder_stop(recorder);
        const struct answer *answer = client_call(client, "watch.start", "['%s', {'from_revision': 5}]", bucket);
        if (strcmp(answer_code(answer), "ok") == 0) { /* it is detected during the compaction */
            struct notification *notification;
            do {
                notification = client_wait_notification(client, answer->result.via.u64);
            } while (strcmp(notification->method, "watch.entries") == 0);
            ck_assert_str_eq(notification->method, "watch.ended");
            ck_assert_str_eq(text_at(&notification->params.via.array.ptr[1], "code"), "revision_gone");
        } else {
            assert_code_says(answer, "revision_gone", "without from_revision");
        }
        client_close(client);
        daemon_stop(&daemon);
        daemon_restart(&daemon); /* then only the bucket has the setting */
        client = client_open(&daemon);
    }
    client_close(client);
    daemon_stop(&daemon);
}
END_TEST

START_TEST(watches_deliver_deletions_and_none_of_the_daemons_own_keys)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, IN_MEMORY);

    uint64_t a = put_text(client, bucket, "a", "1");
    uint64_t b = put_text(client, bucket, "b", "2");
    struct watch_recorder *recorder = watch_recorder_start(client, bucket, NULL);
    watch_recorder_expect(recorder, format_text("a=1@%lu b=2@%lu ready", a, b));
    for (unsigned i = 0; i < 20; i++) {
        uint64_t gone = delete_key(client, bucket, "a");
        ck_assert_uint_eq(compact(client, bucket, ANY_AGE), 1);
        a = put_text(client, bucket, "a", "3");
        watch_recorder_expect(recorder, format_text("-a@%lu a=3@%lu", gone, a));
    }
    struct watch_recorder *other = watch_recorder_start(client, bucket, NULL);
    watch_recorder_expect(other, format_text("b=2@%lu a=3@%lu ready", b, a));
    other = watch_recorder_start(client, bucket, "'include_history': true");
    watch_recorder_expect(other, format_text("b=2@%lu a=3@%lu ready", b, a));
    client_expect_nothing(client);
}
END_TEST

/* The entries to deliver are larger than the buffer of a session that reads nothing. */
static void put_much(struct client *client, const char *bucket)
{
    put_text(client, bucket, "first", "1");
    for (unsigned i = 0; i < 40; i++)
        put_many(client, bucket, "a", i, 1, 500000);
}

/* The watch has delivered a value, and its marker was removed before the watch came to it. */
START_TEST(a_watch_that_is_slow_to_begin_does_not_miss_a_deletion)
{
    static const char *const options[] = {"'include_history': true", "'from_revision': 1", NULL};
    struct client *client = client_open_shared();

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        const char *bucket = client_new_bucket(client, IN_MEMORY);
        struct client *slow = client_open_shared();
        put_much(client, bucket);
        struct watch_recorder *other = watch_recorder_start(client, bucket, "'updates_only': true, 'meta_only': true");
        if (options[i] != NULL)
            wait_until_cached(client, bucket, "first");
        struct watch_recorder *recorder = watch_recorder_start(slow, bucket, options[i]);
        ck_assert_int_eq(watch_recorder_next(recorder), WATCH_ENTRY);
        uint64_t gone = delete_key(client, bucket, "first");
        watch_recorder_expect(other, format_text("ready -first@%lu", gone));
        ck_assert_uint_eq(compact(client, bucket, ANY_AGE), 1);
        enum watch_event event;
        do {
            event = watch_recorder_next(recorder);
        } while (event == WATCH_ENTRY);
        ck_assert_int_eq(event, WATCH_ENDED);
        ck_assert_str_eq(text_at(recorder->object, "code"), "revision_gone");
        watch_recorder_stop(other);
        client_close(slow);
    }
}
END_TEST

/* --- The copy in memory ------------------------------------------------------------------------------ */

START_TEST(the_local_copy_drops_deleted_keys_and_still_answers)
{
    struct daemon daemon = {0};

    daemon_start(&daemon, NULL, NULL);
    struct client *client = client_open(&daemon);
    const char *bucket = client_new_bucket(client, IN_MEMORY);
    put_text(client, bucket, "stays", "1");
    put_many(client, bucket, "a", 0, 1000, 10);
    wait_until_cached(client, bucket, "stays");
    delete_many(client, bucket, "a", 1000);
    ck_assert_uint_eq(count_keys(client, bucket), 1);
    ck_assert_uint_eq(stat_of(client, "cache.keys"), 1);
    uint64_t bytes = stat_of(client, "cache.bytes");
    ck_assert_uint_eq(compact(client, bucket, ANY_AGE), 1000);
    ck_assert(is_cached(client, bucket, "stays"));
    ck_assert_uint_eq(count_keys(client, bucket), 1);
    uint64_t end = now_ms() + PATIENCE_MS;
    while (stat_of(client, "cache.bytes") > bytes / 2)
        ck_assert_msg(now_ms() < end, "the markers stay in memory");
    ck_assert(is_cached(client, bucket, "stays"));
    daemon_stop(&daemon);
}
END_TEST

/* --- Changes of the bucket --- */

/* Checking the files takes some of the attempts. */
START_TEST(a_recreated_bucket_is_not_affected_by_the_compaction)
{
    enum { TRIES = 6, KEYS = 10000 };
    struct daemon daemon = {0};

    daemon_start(&daemon, NULL, NULL);
    struct client *client = client_open(&daemon);
    for (unsigned i = 0; i < TRIES; i++) {
        const char *bucket = client_new_bucket(client, NULL);
        put_many(client, bucket, "a", 0, KEYS, 1000);
        put_many(client, bucket, "b", 0, KEYS, 1000);
        assert_ok(client_call(client, "kv.purge", "['%s', 'never']", bucket));
        uint32_t compacting = client_send(client, "bucket.compact", "['%s', {" ANY_AGE "}]", bucket);
        usleep(i * 10000);
        assert_ok(client_call(client, "bucket.delete", "['%s']", bucket));
        assert_ok(client_call(client, "bucket.create", "['%s']", bucket));
        client_wait(client, compacting);
        put_text(client, bucket, "a", "1");
        ck_assert_uint_eq(count_values(client, bucket), 1);
        assert_ok(client_call(client, "bucket.delete", "['%s']", bucket));
    }
    daemon_stop(&daemon);
}
END_TEST

/* Another session always has as many compactions in flight as it may. */
START_TEST(compactions_of_several_sessions_take_turns)
{
    enum { KEYS = 20000, TURNS = 10 };
    struct client *client = client_open_shared(), *busy = client_open_shared();
    const char *bucket = client_new_bucket(client, IN_MEMORY), *large = client_new_bucket(client, IN_MEMORY);
    uint32_t calls[2];

    put_very_many(client, large, "a", KEYS, 10);
    for (unsigned i = 0; i < 2; i++)
        calls[i] = client_send(busy, "bucket.compact", "['%s', {" ANY_AGE "}]", large);
    assert_code_says(client_call(busy, "bucket.compact", "['%s']", large), "resource_exhausted", "of this session");
    for (unsigned turn = 0; turn < TURNS; turn++) {
        put_text(client, bucket, "a", "1");
        delete_key(client, bucket, "a");
        ck_assert_uint_eq(compact(client, bucket, ANY_AGE), 1);
        for (unsigned i = 0; i < 2; i++) {
            assert_ok(client_wait(busy, calls[i]));
            calls[i] = client_send(busy, "bucket.compact", "['%s', {" ANY_AGE "}]", large);
        }
    }
}
END_TEST

/* --- marker_ttl -------------------------------------------------------------------------------------- */

START_TEST(the_daemon_removes_markers_that_are_older_than_marker_ttl)
{
    struct daemon daemon = {0};

    daemon_start(&daemon, NULL, "calls:\n  timeout: 1\n  max_timeout: 1\n");
    struct client *client = client_open(&daemon);
    const char *bucket = client_new_bucket(client, IN_MEMORY ", 'marker_ttl': 2");
    const char *other = client_new_bucket(client, IN_MEMORY ", 'marker_ttl': 0");
    const char *const buckets[] = {bucket, other};
    for (size_t i = 0; i < 2; i++) {
        put_text(client, buckets[i], "stays", "1");
        put_many(client, buckets[i], "a", 0, 10, 10);
        assert_ok(client_call(client, "kv.purge", "['%s', 'a000000']", buckets[i]));
        assert_ok(client_call(client, "bulk.delete", "['%s', ['a000001', 'a000002', 'a000003']]", buckets[i]));
        assert_ok(client_call(client, "txn.commit", "['%s', [], [['delete', 'a000004']]]", buckets[i]));
    }
    daemon_wait_log(&daemon, "delete markers older than marker_ttl (2 s) were removed");
    uint64_t end = now_ms() + PATIENCE_MS;
    while (count_values(client, bucket) > 7) /* six values, and the daemon's own key */
        ck_assert_msg(now_ms() < end, "markers stay");
    ck_assert_uint_eq(count_values(client, other), 11);
    ck_assert_uint_eq(count_keys(client, bucket), 6);
    daemon_stop(&daemon);
}
END_TEST

/* The first deletion has begun a wait of an hour. */
START_TEST(a_marker_ttl_that_is_lowered_applies_at_the_next_deletion)
{
    struct daemon daemon = {0};

    daemon_start(&daemon, NULL, "calls:\n  timeout: 1\n  max_timeout: 1\n");
    struct client *client = client_open(&daemon);
    const char *bucket = client_new_bucket(client, IN_MEMORY ", 'marker_ttl': 100000");
    assert_ok(client_call(client, "kv.delete", "['%s', 'a']", bucket));
    assert_ok(client_call(client, "bucket.update", "['%s', {'marker_ttl': 2}]", bucket));
    assert_ok(client_call(client, "kv.delete", "['%s', 'b']", bucket));
    daemon_wait_log(&daemon, "delete markers older than marker_ttl (2 s) were removed");
    daemon_stop(&daemon);
}
END_TEST

START_TEST(markers_from_before_the_daemons_start_are_removed_once_the_bucket_is_used)
{
    struct daemon daemon = {0};

    daemon_start(&daemon, NULL, "calls:\n  timeout: 1\n  max_timeout: 1\n");
    struct client *client = client_open(&daemon);
    const char *bucket = client_new_bucket(client, "'marker_ttl': 5");
    put_text(client, bucket, "stays", "1");
    assert_ok(client_call(client, "kv.delete", "['%s', 'gone']", bucket));
    daemon_stop(&daemon);
    daemon_restart(&daemon);
    client = client_open(&daemon);
    assert_ok(client_call(client, "kv.get", "['%s', 'stays']", bucket));
    daemon_wait_log(&daemon, "1 delete markers older than marker_ttl (5 s) were removed");
    daemon_stop(&daemon);
}
END_TEST

START_TEST(the_marker_ttl_of_a_deleted_bucket_is_forgotten)
{
    struct daemon daemon = {0};

    daemon_start(&daemon, NULL, "calls:\n  timeout: 1\n  max_timeout: 1\n");
    struct client *client = client_open(&daemon);
    const char *gone = client_new_bucket(client, IN_MEMORY ", 'marker_ttl': 2");
    const char *stays = client_new_bucket(client, IN_MEMORY ", 'marker_ttl': 2");
    assert_ok(client_call(client, "kv.delete", "['%s', 'a']", gone));
    assert_ok(client_call(client, "bucket.delete", "['%s']", gone));
    assert_ok(client_call(client, "kv.delete", "['%s', 'a']", stays));
    daemon_wait_log(&daemon, "delete markers older than marker_ttl (2 s) were removed"); /* it gets its turn later */
    daemon.log_mark = 0;
    ck_assert_ptr_null(strstr(daemon_log(&daemon), "removing old delete markers failed"));
    daemon_stop(&daemon);
}
END_TEST

START_TEST(marker_ttl_is_a_setting_of_the_bucket)
{
    struct client *client = client_open_shared();
    struct nats *nats = nats_connect_embedded(shared_daemon.data_dir);
    const char *bucket = client_new_bucket(client, NULL);

    const struct answer *answer = client_call(client, "bucket.info", "['%s']", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "marker_ttl"), 604800);
    answer = client_call(client, "bucket.update", "['%s', {'marker_ttl': 100000, 'metadata': {'a': 'b'}}]", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(number_at(&answer->result, "marker_ttl"), 100000);
    ck_assert_uint_eq(count_at(&answer->result, "metadata"), 1);
    answer = client_call(client, "bucket.update", "['%s', {'metadata': {'c': 'd'}}]", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "marker_ttl"), 100000);
    json_t *info = nats_api(nats, "STREAM.INFO", format_text("KV_%s", bucket), "{}");
    json_t *metadata = json_object_get(json_object_get(info, "config"), "metadata");
    ck_assert_str_eq(json_string_value(json_object_get(metadata, "kvstored.marker_ttl")), "100000");
    answer = client_call(client, "bucket.update", "['%s', {'marker_ttl': 0}]", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "marker_ttl"), 0);
    assert_code_says(client_call(client, "bucket.update", "['%s', {'marker_ttl': 1}]", bucket), "invalid_argument",
                     "twice the longest timeout");
}
END_TEST

Suite *compact_suite(void)
{
    Suite *suite = suite_create("compact");
    TCase *tests = shared_daemon_case(suite, "markers");
    TCase *own = tcase_create("a daemon of its own");

    tcase_add_test(tests, compaction_removes_markers_and_keeps_values);
    tcase_add_test(tests, markers_before_all_values_are_removed_too);
    tcase_add_test(tests, compacting_an_empty_bucket_removes_nothing);
    tcase_add_test(tests, younger_markers_are_kept);
    tcase_add_test(tests, a_key_that_is_written_again_keeps_its_value);
    tcase_add_test(tests, the_history_before_a_marker_is_removed_and_others_are_kept);
    tcase_add_test(tests, at_its_deadline_compaction_reports_its_progress_and_the_next_call_continues);
    tcase_add_test(tests, a_bucket_with_an_origin_is_not_compacted);
    tcase_add_test(tests, clients_cannot_use_the_daemons_own_keys);
    tcase_add_test(tests, watches_deliver_deletions_and_none_of_the_daemons_own_keys);
    tcase_add_test(tests, a_watch_that_is_slow_to_begin_does_not_miss_a_deletion);
    tcase_add_test(tests, compactions_of_several_sessions_take_turns);
    tcase_add_test(tests, marker_ttl_is_a_setting_of_the_bucket);
    tcase_add_test(own, a_deleted_value_does_not_come_back_when_the_server_is_killed);
    tcase_add_test(own, a_removed_history_does_not_reappear);
    tcase_add_test(own, markers_are_removed_after_the_old_values_have_left_the_files);
    tcase_add_test(own, a_watch_from_before_removed_markers_must_start_over);
    tcase_add_test(own, the_local_copy_drops_deleted_keys_and_still_answers);
    tcase_add_test(own, a_recreated_bucket_is_not_affected_by_the_compaction);
    tcase_add_test(own, the_daemon_removes_markers_that_are_older_than_marker_ttl);
    tcase_add_test(own, a_marker_ttl_that_is_lowered_applies_at_the_next_deletion);
    tcase_add_test(own, markers_from_before_the_daemons_start_are_removed_once_the_bucket_is_used);
    tcase_add_test(own, the_marker_ttl_of_a_deleted_bucket_is_forgotten);
    suite_add_tcase(suite, own);
    return suite;
}
