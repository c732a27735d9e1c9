/*
 * Servers that return with older data: they have lost what was written last, because it was not synced, or a backup was
 * restored. Watches and the cache are compared with what is stored then.
 */
#include "tests/fault/deployment.h"
#include "tests/fault/suites.h"
#include "tests/support/watch_recorder.h"

#include <string.h>

#define SETTINGS                                                                                                       \
    "watches:\n  heartbeat: 0.2\n  reconcile_interval: 0.5\n"                                                          \
    "locks:\n  lease_ttl: 600\n"

#define BUCKET "b"

#define KEYS     40u
#define OLD_KEYS 30u /* of them, which are in the backup */

static struct deployment deployment;
static struct watch_recorder *all, *even;

static void begin_with(unsigned server_count)
{
    deployment_begin(&deployment, server_count, SETTINGS);
    deployment_make_bucket(&deployment, BUCKET, NULL);
    all = watch_recorder_open(&deployment.daemon, BUCKET, ">", NULL);
    even = watch_recorder_open(&deployment.daemon, BUCKET, "even.>", "'include_history': true");
    watch_recorder_wait_ready(all);
    watch_recorder_wait_ready(even);
}

static void begin_one(void)
{
    begin_with(1);
}

static void begin_three(void)
{
    begin_with(CLUSTER_SERVERS);
}

static void end(void)
{
    watch_recorder_close(all);
    watch_recorder_close(even);
    deployment_end(&deployment);
}

/* --- What is stored, and what is known -------------------------------------------------------------- */

static const char *key_name(unsigned i)
{
    return format_text("%s.%u", i % 2 == 0 ? "even" : "odd", i);
}

static uint64_t put(unsigned i, const char *value)
{
    return revision_of(client_call(deployment.client, "kv.put", "['%s', '%s', '%s']", BUCKET, key_name(i), value));
}

/* Return the key's last value; NULL: it has none, or was deleted. */
static const char *last_value(const struct stored *entries, size_t count, const char *key)
{
    while (count > 0 && strcmp(entries[count - 1].key, key) != 0)
        count--;
    return count > 0 && strcmp(entries[count - 1].operation, "put") == 0 ? entries[count - 1].value : NULL;
}

static const char *told_value(const struct watch_recorder *recorder, const char *key)
{
    return last_value(recorder->told, recorder->count, key);
}

static const char *cached_value(const char *key)
{
    const struct answer *answer =
        client_call(deployment.client, "kv.get", "['%s', '%s', {'consistency': 'cached'}]", BUCKET, key);

    assert_ok(answer);
    return answer->result.type == MSGPACK_OBJECT_NIL ? NULL : text_at(&answer->result, "value");
}

static bool is_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool all_know(const struct stream_log *log)
{
    for (unsigned i = 0; i < KEYS; i++) {
        const char *key = key_name(i), *stored = last_value(log->entries, log->count, key);
        if (!is_text(told_value(all, key), stored) || !is_text(cached_value(key), stored))
            return false;
        if (i % 2 == 0 && !is_text(told_value(even, key), stored))
            return false;
    }
    return true;
}

static void wait_until_all_know(void)
{
    struct stream_log log = stream_log_read(deployment.nats, BUCKET);

    wait_until((watch_recorder_read(all, 10), watch_recorder_read(even, 10), all_know(&log)),
               "what is known to be what is stored");
}

/* --- Backups ---------------------------------------------------------------------------------------- */

static void copy_directory(const char *from, const char *to)
{
    char *remove[] = {"rm", "-rf", (char *)to, NULL}, *copy[] = {"cp", "-a", (char *)from, (char *)to, NULL};
    char *output;

    ck_assert_int_eq(run_program(remove, &output), 0);
    ck_assert_msg(run_program(copy, &output) == 0, "%s", output);
}

static const char *backup_of(const struct nats_server *server)
{
    return format_text("%s.backup", server->directory);
}

/* Of stopped servers, as a snapshot of their disks would be. */
static void make_backup(void)
{
    for (unsigned i = 0; i < OLD_KEYS; i++)
        put(i, "first");
    deployment_wait_current(&deployment, BUCKET);
    for (unsigned i = 0; i < deployment.server_count; i++)
        nats_server_freeze(&deployment.servers[i]);
    for (unsigned i = 0; i < deployment.server_count; i++)
        copy_directory(deployment.servers[i].directory, backup_of(&deployment.servers[i]));
    for (unsigned i = 0; i < deployment.server_count; i++)
        nats_server_thaw(&deployment.servers[i]);
}

/* Nothing passes between daemon and servers until proxy_release. */
static void go_back_to_backup(void)
{
    proxy_hold(deployment.proxy);
    for (unsigned i = 0; i < deployment.server_count; i++)
        nats_server_kill(&deployment.servers[i]);
    for (unsigned i = 0; i < deployment.server_count; i++) {
        copy_directory(backup_of(&deployment.servers[i]), deployment.servers[i].directory);
        nats_server_run(&deployment.servers[i]);
    }
    deployment_reconnect_nats(&deployment);
    deployment_wait_current(&deployment, BUCKET);
}

/* Others write to keys that are in the backup, until the bucket is ahead of its old position. */
static void write_beyond(uint64_t last)
{
    uint64_t revision = 0;

    for (unsigned i = 0; revision <= last + 10; i++)
        revision = nats_put(deployment.nats, BUCKET, key_name(OLD_KEYS - 10 + i % 10), format_text("after %u", i));
}

/*
 * The servers lose what watches have delivered. Before the daemon reconnects, others write beyond the old position: so
 * neither the creation time of the stream nor its last sequence shows the loss. fault: what the proxy does to the
 * daemon then.
 */
static void try_set_back(struct proxy_fault fault)
{
    uint64_t last = 0;

    make_backup();
    for (unsigned i = 0; i < KEYS; i += 3) /* of existing keys and of new ones */
        last = put(i, "lost");
    assert_ok(client_call(deployment.client, "kv.delete", "['%s', 'even.2']", BUCKET));
    watch_recorder_wait(all, last + 1);
    ck_assert_str_eq(cached_value("odd.3"), "lost");

    go_back_to_backup();
    write_beyond(last);
    proxy_arm(deployment.proxy, fault);
    proxy_release(deployment.proxy);
    wait_until_all_know();
}

/* --- The tests -------------------------------------------------------------------------------------- */

START_TEST(the_local_copy_is_compared_with_a_server_that_returns_with_older_data)
{
    try_set_back((struct proxy_fault){.kind = PROXY_NO_FAULT});
}
END_TEST

START_TEST(a_failed_comparison_is_repeated)
{
    try_set_back((struct proxy_fault){.kind = PROXY_DROP_PUBLISH, .subject = "$JS.API.STREAM.MSG.GET.KV_" BUCKET});
    ck_assert_uint_eq(proxy_strikes(deployment.proxy), 1);
}
END_TEST

/* What the daemon delivers again has an old revision, or none: a resumed watch would miss it. */
START_TEST(a_watch_is_not_resumed_over_what_a_server_has_lost)
{
    uint64_t lost, last = 0;

    make_backup();
    lost = put(0, "lost"); /* only of existing keys: none vanishes */
    for (unsigned i = 1; i < 10; i++)
        last = put(i, "lost");
    watch_recorder_wait(all, last);
    go_back_to_backup();
    write_beyond(last);
    proxy_release(deployment.proxy);
    wait_until_all_know();
    assert_code(client_call(deployment.client, "watch.start", "['%s', {'from_revision': %llu}]", BUCKET,
                            (unsigned long long)lost),
                "revision_gone");
}
END_TEST

/* All of them have less than was delivered: later writes get sequences that were delivered before. */
START_TEST(a_cluster_that_returns_with_older_data_is_delivered_from_its_beginning)
{
    uint64_t last = 0;

    make_backup();
    for (unsigned i = 0; i < KEYS; i++)
        last = put(i, "lost");
    watch_recorder_wait(all, last);
    deployment_wait_current(&deployment, BUCKET);
    go_back_to_backup();
    proxy_release(deployment.proxy);
    wait_until_all_know();
    for (unsigned i = 0; i < 10; i++)
        ck_assert_uint_lt(nats_put(deployment.nats, BUCKET, key_name(i), "after"), last);
    wait_until_all_know();
}
END_TEST

static uint64_t acquire(const char *name)
{
    const struct answer *answer = client_call(deployment.client, "lock.acquire", "['locks', '%s']", name);

    assert_ok(answer);
    return number_at(&answer->result, "token");
}

/*
 * The backup has the daemon's lease and the first lock, but not the second one, which another daemon may acquire now.
 * i = 1: a watch makes the daemon keep a copy of the bucket.
 * i = 2: the message of the second lock is not delivered before. All that was delivered is still there.
 */
START_TEST(a_lock_that_a_server_has_lost_is_lost)
{
    struct watch_recorder *watch = NULL;

    deployment_make_bucket(&deployment, "locks", NULL);
    if (_i == 1)
        watch = watch_recorder_open(&deployment.daemon, "locks", ">", NULL);
    uint64_t token = acquire("early");

    make_backup();
    if (_i == 2) {
        wait_until(nats_consumer_count(deployment.nats, "locks") == 1, "the daemon to follow the bucket");
        proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_DROP_DELIVERY, .subject = "$KV.locks.late"});
    }
    uint64_t last = acquire("late");
    go_back_to_backup();
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
    while (nats_put(deployment.nats, "locks", "other", "x") < last + 10) {
    }
    proxy_release(deployment.proxy);
    struct notification *lost = client_wait_notification(deployment.client, 0);
    ck_assert_str_eq(lost->method, "lock.lost");
    ck_assert_str_eq(text_at(&lost->params, "1"), "late");
    assert_ok(client_call(deployment.client, "lock.check", "['locks', 'early', %llu]", (unsigned long long)token));
    acquire("late");
    if (watch != NULL)
        watch_recorder_close(watch);
}
END_TEST

/* The marker was acknowledged, and not delivered. All that was delivered is still there. */
START_TEST(a_release_that_a_server_has_lost_is_made_again)
{
    deployment_make_bucket(&deployment, "locks", NULL);
    uint64_t token = acquire("job"), last = acquire("other");
    wait_until(nats_consumer_count(deployment.nats, "locks") == 1, "the daemon to follow the bucket");
    make_backup();
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_DROP_DELIVERY, .subject = "$KV.locks.job"});
    assert_ok(client_call(deployment.client, "lock.release", "['locks', 'job', %llu]", (unsigned long long)token));
    go_back_to_backup();
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
    while (nats_put(deployment.nats, "locks", "ordinary", "x") < last + 10) {
    }
    proxy_release(deployment.proxy);
    wait_until(client_call(deployment.client, "kv.get", "['locks', 'job']")->result.type == MSGPACK_OBJECT_NIL,
               "the lock to be free");
}
END_TEST

/* A server that does not know the stream yet, or not any more. */
START_TEST(a_lease_is_not_lost_when_one_server_of_a_cluster_has_no_stream)
{
    deployment_make_bucket(&deployment, "locks", NULL);
    uint64_t token = acquire("job");

    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_REPLACE_ACK,
                                                     .subject = "$JS.API.STREAM.MSG.GET.KV_locks",
                                                     .count = 3,
                                                     .text = "{\"error\":{\"code\":404,\"err_code\":10059,"
                                                             "\"description\":\"stream not found\"}}"});
    assert_ok(client_call(deployment.client, "bucket.update", "['locks', {'description': 'a doubt'}]"));
    wait_until(proxy_strikes(deployment.proxy) == 3, "the wrong answers");
    proxy_arm(
        deployment.proxy,
        (struct proxy_fault){.kind = PROXY_DROP_PUBLISH, .subject = "$JS.API.STREAM.MSG.GET.KV_locks", .skip = 1000});
    assert_ok(client_call(deployment.client, "bucket.update", "['locks', {'description': 'another doubt'}]"));
    wait_until(proxy_publishes(deployment.proxy) > 0, "another look");
    assert_ok(client_call(deployment.client, "lock.check", "['locks', 'job', %llu]", (unsigned long long)token));
    assert_ok(client_call(deployment.client, "lock.release", "['locks', 'job', %llu]", (unsigned long long)token));
}
END_TEST

/*
 * A deposed leader may answer for a while with less than was delivered. Here the proxy plays that leader, for a server
 * that says that it has replicas.
 */
START_TEST(an_answer_of_a_deposed_leader_is_not_a_recreated_bucket)
{
    uint64_t last = 0;

    for (unsigned i = 0; i < KEYS; i++)
        last = put(i, "once");
    watch_recorder_wait(all, last);
    json_t *info = nats_api(deployment.nats, "STREAM.INFO", "KV_" BUCKET, "{}");
    json_object_set_new(json_object_get(info, "config"), "num_replicas", json_integer(3));
    json_object_set_new(json_object_get(info, "state"), "last_seq", json_integer((json_int_t)last - 1));
    char *text = keep(json_dumps(info, JSON_COMPACT));
    proxy_arm(deployment.proxy,
              (struct proxy_fault){
                  .kind = PROXY_REPLACE_ACK, .subject = "$JS.API.STREAM.INFO.KV_" BUCKET, .count = 2, .text = text});
    proxy_cut(deployment.proxy);
    wait_until(proxy_strikes(deployment.proxy) == 2, "the answers of the old leader");
    last = put(0, "after");
    watch_recorder_wait(all, last);
    struct stream_log log = stream_log_read(deployment.nats, BUCKET);
    watch_recorder_expect_log(all, &log, 1);
    ck_assert_ptr_null(strstr(read_file(deployment.daemon.process.log_path), "was recreated"));
}
END_TEST

Suite *set_back_suite(void)
{
    Suite *suite = suite_create("set back");
    TCase *one = tcase_create("one server"), *three = tcase_create("three servers");

    tcase_add_checked_fixture(one, begin_one, end);
    tcase_add_checked_fixture(three, begin_three, end);
    tcase_add_test(one, the_local_copy_is_compared_with_a_server_that_returns_with_older_data);
    tcase_add_test(one, a_failed_comparison_is_repeated);
    tcase_add_test(one, a_watch_is_not_resumed_over_what_a_server_has_lost);
    tcase_add_loop_test(one, a_lock_that_a_server_has_lost_is_lost, 0, 3);
    tcase_add_test(one, a_release_that_a_server_has_lost_is_made_again);
    tcase_add_test(one, an_answer_of_a_deposed_leader_is_not_a_recreated_bucket);
    tcase_add_test(three, a_cluster_that_returns_with_older_data_is_delivered_from_its_beginning);
    tcase_add_test(three, a_lease_is_not_lost_when_one_server_of_a_cluster_has_no_stream);
    suite_add_tcase(suite, one);
    suite_add_tcase(suite, three);
    return suite;
}
