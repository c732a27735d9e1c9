/* Watches deliver every change in order, none missing and none twice, whatever happens between daemon and NATS. */
#include "tests/fault/deployment.h"
#include "tests/fault/suites.h"
#include "tests/support/watch_recorder.h"

#include <pthread.h>
#include <string.h>

/* Silence is found soon: two missing heartbeats are less than a second. */
#define SETTINGS "watches:\n  heartbeat: 0.2\n  reconcile_interval: 0.5\n"

#define BUCKET    "b"
#define CONSUMERS "KV_" BUCKET
#define FOLLOWER  "kvstored-fault" /* the daemon's consumer: nats.name */

/* No key is written more often than the bucket's history keeps. */
#define KEYS     400u
#define PUTS_MAX (KEYS * 60u)

static struct deployment deployment;

/* One from the beginning, one with a filter, and some that start later. */
#define RECORDERS_MAX 24u
static struct watch_recorder *recorders[RECORDERS_MAX];
static unsigned recorder_count;

static void begin_recorder(const char *filter, const char *options)
{
    ck_assert_uint_lt(recorder_count, RECORDERS_MAX);
    recorders[recorder_count++] = watch_recorder_open(&deployment.daemon, BUCKET, filter, options);
}

static void begin_with(unsigned server_count)
{
    deployment_begin(&deployment, server_count, SETTINGS);
    deployment_make_bucket(&deployment, BUCKET, NULL);
    begin_recorder(">", NULL);
    begin_recorder("even.>", "'include_history': true");
    watch_recorder_wait_ready(recorders[0]);
    watch_recorder_wait_ready(recorders[1]);
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
    for (unsigned i = 0; i < recorder_count; i++)
        watch_recorder_close(recorders[i]);
    deployment_end(&deployment);
}

/* Start a late recorder, which must record the same. */
static void begin_late_recorder(void)
{
    begin_recorder(recorder_count % 2 == 0 ? ">" : "odd.>", "'include_history': true");
}

/* --- Writing --------------------------------------------------------------------------------------- */

static unsigned put_count;

/* The next key's name. */
static const char *next_key(void)
{
    unsigned number = __atomic_fetch_add(&put_count, 1, __ATOMIC_RELAXED); /* the scribe thread writes too */

    ck_assert_uint_lt(number, PUTS_MAX);
    return format_text("%s.%u", number % 2 == 0 ? "even" : "odd", number % KEYS);
}

/* Without the proxy, so that it is written whatever the state of the daemon's connection. */
static void put_some(struct nats *nats, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        nats_put(nats, BUCKET, next_key(), format_text("value %u", put_count));
}

/* Through the daemon, with deletes. */
static void write_some(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (i % 4 == 3)
            assert_ok(client_call(deployment.client, "kv.delete", "['b', '%s']", next_key()));
        else
            assert_ok(client_call(deployment.client, "kv.put", "['b', '%s', 'mine %u']", next_key(), put_count));
    }
}

/* Another program, which writes all the time. */
struct scribe {
    pthread_t thread;
    struct nats *nats;
    bool is_over;
};

static void *run_scribe(void *arg)
{
    struct scribe *scribe = arg;

    for (; !__atomic_load_n(&scribe->is_over, __ATOMIC_RELAXED); pause_shortly()) {
        if (__atomic_load_n(&put_count, __ATOMIC_RELAXED) < PUTS_MAX / 2)
            put_some(scribe->nats, 1);
    }
    return NULL;
}

static void begin_scribe(struct scribe *scribe)
{
    scribe->is_over = false;
    scribe->nats = nats_connect_any(&deployment.servers[0].port, 1);
    ck_assert_int_eq(pthread_create(&scribe->thread, NULL, run_scribe, scribe), 0);
}

static void end_scribe(struct scribe *scribe)
{
    __atomic_store_n(&scribe->is_over, true, __ATOMIC_RELAXED);
    pthread_join(scribe->thread, NULL);
    nats_close(scribe->nats);
}

/* --- What must come of it -------------------------------------------------------------------------- */

static uint64_t resyncs(void)
{
    return deployment_stat(&deployment, "watches.resyncs");
}

/* Wait until each watch was delivered everything. */
static void wait_until_told(void)
{
    uint64_t even = nats_put(deployment.nats, BUCKET, "even.last", "x"),
             odd = nats_put(deployment.nats, BUCKET, "odd.last", "x");

    for (unsigned i = 0; i < recorder_count; i++)
        watch_recorder_wait(recorders[i], strcmp(recorders[i]->prefix, "even.") == 0 ? even : odd);
}

/* The last entries must have arrived before a missing entry can be told from a late one. */
static void expect_all_told(void)
{
    wait_until_told();
    struct stream_log log = stream_log_read(deployment.nats, BUCKET);
    for (unsigned i = 0; i < recorder_count; i++)
        watch_recorder_expect_log(recorders[i], &log, 1);
}

/* Return the names of the consumers that deliver changes, one after the other: one for each daemon, if nothing is
 * wrong. */
static const char *follower_names(unsigned *count)
{
    json_t *list = json_object_get(nats_api(deployment.nats, "CONSUMER.NAMES", CONSUMERS, "{}"), "consumers"), *item;
    const char *names = "";
    size_t i;

    *count = 0;
    json_array_foreach(list, i, item)
    {
        const char *name = json_string_value(item);
        if (strncmp(name, FOLLOWER, strlen(FOLLOWER)) != 0)
            continue;
        names = strcmp(names, name) < 0 ? format_text("%s%s ", names, name) : format_text("%s %s", name, names);
        ++*count;
    }
    return names;
}

static unsigned follower_count(void)
{
    unsigned count;

    follower_names(&count);
    return count;
}

/* Return false if there is none now. After some removals the daemon gives its next consumer another name. */
static bool remove_follower(void)
{
    json_t *list = json_object_get(nats_api(deployment.nats, "CONSUMER.NAMES", CONSUMERS, "{}"), "consumers"), *item;
    size_t i;

    json_array_foreach(list, i, item)
    {
        const char *name = json_string_value(item);
        if (strncmp(name, FOLLOWER, strlen(FOLLOWER)) != 0)
            continue;
        json_t *answer = nats_try_api(deployment.nats, "CONSUMER.DELETE", format_text(CONSUMERS ".%s", name), "{}");
        return json_object_get(answer, "error") == NULL;
    }
    return false;
}

/*
 * Return whether the daemon has exactly one consumer. The server removes a reading's consumer by itself, ten seconds
 * after its connection was cut.
 */
static bool has_one_consumer(void)
{
    json_t *list = json_object_get(nats_api(deployment.nats, "CONSUMER.LIST", CONSUMERS, "{}"), "consumers"), *consumer;
    unsigned count = 0;
    size_t i;

    json_array_foreach(list, i, consumer)
    {
        const char *name = json_string_value(json_object_get(consumer, "name"));
        json_int_t threshold_ns =
            json_integer_value(json_object_get(json_object_get(consumer, "config"), "inactive_threshold"));
        if (strcmp(name, FOLLOWER) == 0)
            count++;
        else if (strncmp(name, FOLLOWER, strlen(FOLLOWER)) == 0 || threshold_ns <= 0 || threshold_ns > 10000000000)
            return false;
    }
    return count == 1;
}

static void expect_one_consumer(void)
{
    wait_until(has_one_consumer(), "the one consumer");
}

static uint64_t reconnects(void)
{
    return number_at(&client_call(deployment.client, "health.check", "[]")->result, "nats.reconnects");
}

/* --- Cuts and stalls ------------------------------------------------------------------------------- */

START_TEST(fifty_cuts_leave_no_hole_no_repeat_and_one_consumer)
{
    struct scribe scribe;

    begin_scribe(&scribe);
    for (unsigned i = 0; i < 50; i++) {
        uint64_t before = reconnects();
        proxy_cut(deployment.proxy);
        wait_until(reconnects() > before, "the link");
        /*
         * Every third time the daemon has recovered before the next cut; otherwise the cut comes during its recovery.
         */
        if (i % 3 == 0)
            write_some(4);
        if (i == 17 || i == 34)
            begin_late_recorder();
        watch_recorder_read(recorders[0], 1 + i % 20);
    }
    end_scribe(&scribe);
    expect_all_told();
    expect_one_consumer();
    ck_assert_uint_ge(reconnects(), 50);
}
END_TEST

START_TEST(a_cut_during_redelivery_leaves_no_hole_and_no_repeat)
{
    for (unsigned i = 0; i < 6; i++) {
        proxy_hold(deployment.proxy);
        put_some(deployment.nats, 200);
        proxy_arm(
            deployment.proxy,
            (struct proxy_fault){.kind = PROXY_CUT_BEFORE_DELIVERY, .subject = "$KV.b.>", .skip = 30 * i, .count = 3});
        proxy_cut(deployment.proxy);
        proxy_release(deployment.proxy);
        if (i == 3)
            begin_late_recorder();
        wait_until(proxy_strikes(deployment.proxy) == 3, "three cuts");
    }
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
    expect_all_told();
}
END_TEST

START_TEST(a_stall_leaves_no_hole_and_no_repeat)
{
    /* Number of retries when the stall ends: before and after the daemon has detected the silence. */
    static const unsigned retries[] = {0, 1, 0, 3, 0};

    for (unsigned i = 0; i < sizeof(retries) / sizeof(retries[0]); i++) {
        write_some(5);
        uint64_t before = deployment_retries(&deployment);
        proxy_hold(deployment.proxy);
        put_some(deployment.nats, 100);
        wait_until(deployment_retries(&deployment) >= before + retries[i], "the end of the daemon's patience");
        put_some(deployment.nats, 100);
        proxy_release(deployment.proxy);
        if (i == 1)
            begin_late_recorder();
    }
    expect_all_told();
    wait_until(resyncs() > 0, "another consumer");
}
END_TEST

START_TEST(all_of_thousands_of_changes_during_a_resynchronisation_are_delivered)
{
    struct scribe scribe;

    write_some(20);
    proxy_hold(deployment.proxy);
    put_some(deployment.nats, 2500);
    begin_scribe(&scribe);
    proxy_cut(deployment.proxy);
    proxy_release(deployment.proxy);
    begin_late_recorder();
    /* During the redelivery, once more. */
    watch_recorder_wait(recorders[0], 1000);
    proxy_cut(deployment.proxy);
    begin_late_recorder();
    watch_recorder_wait(recorders[0], 2500);
    end_scribe(&scribe);
    expect_all_told();
}
END_TEST

/* --- Lost messages --------------------------------------------------------------------------------- */

/*
 * The fault must have struck, and the daemon must have noticed the missing message. What an earlier consumer still
 * delivers would be missed by nobody, and what is delivered to a check of the keys is not the feed's.
 */
static void lose_and_find(struct proxy_fault fault, unsigned puts)
{
    wait_until_told();
    wait_until(nats_consumer_count(deployment.nats, "b") == 1, "the removal of earlier consumers");
    assert_ok(client_call(deployment.client, "kv.get", "['b', 'any']")); /* all of it comes before the answer */
    fault.reply = "$JS.ACK.KV_b.kvstored-fault.>";
    uint64_t before = resyncs();

    proxy_arm(deployment.proxy, fault);
    put_some(deployment.nats, puts);
    wait_until(proxy_strikes(deployment.proxy) >= (fault.count > 0 ? fault.count : 1), "the lost message");
    wait_until(resyncs() > before, "another consumer");
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
}

START_TEST(a_lost_delivery_is_delivered_again)
{
    struct proxy_fault fault = {.kind = PROXY_DROP_DELIVERY, .subject = "$KV.b.>"};

    write_some(5);
    for (unsigned i = 0; i < 4; i++) {
        /*
         * The first of some entries, one of them, several of them; and the last one, whose loss only a heartbeat shows.
         */
        fault.skip = i == 0 ? 0 : (i == 3 ? 29 : 13);
        fault.count = i == 2 ? 7 : 1;
        lose_and_find(fault, 30);
        if (i == 1) {
            /* The next losses must be the followers' own. */
            begin_late_recorder();
            watch_recorder_wait_ready(recorders[recorder_count - 1]);
        }
    }
    expect_all_told();
}
END_TEST

START_TEST(entries_that_are_lost_while_a_watch_begins_are_delivered_again)
{
    put_some(deployment.nats, 300);
    watch_recorder_wait(recorders[0], 300);
    for (unsigned i = 0; i < 3; i++) {
        proxy_arm(deployment.proxy,
                  (struct proxy_fault){.kind = PROXY_DROP_DELIVERY, .subject = "$KV.b.>", .skip = 149 * i, .count = 1});
        begin_recorder(">", "'include_history': true");
        put_some(deployment.nats, 20);
        watch_recorder_wait_ready(recorders[recorder_count - 1]);
        wait_until(proxy_strikes(deployment.proxy) == 1, "the lost message");
    }
    expect_all_told();
}
END_TEST

START_TEST(lost_heartbeats_recreate_the_consumer_and_lose_no_change)
{
    for (unsigned i = 0; i < 3; i++) {
        lose_and_find((struct proxy_fault){.kind = PROXY_DROP_HEARTBEAT, .subject = ">", .count = 4}, 10);
        write_some(5);
    }
    begin_late_recorder();
    expect_all_told();
    expect_one_consumer();
}
END_TEST

/* --- The consumer's making ------------------------------------------------------------------------- */

START_TEST(losses_while_the_consumer_is_created_leave_one_consumer_and_no_hole)
{
    static const char *const subjects[] = {
        "$JS.API.STREAM.INFO." CONSUMERS,
        "$JS.API.CONSUMER.DELETE." CONSUMERS ".>",
        "$JS.API.CONSUMER.CREATE." CONSUMERS ".>",
        "$JS.API.CONSUMER.MSG.NEXT." CONSUMERS ".>",
    };
    static const enum proxy_fault_kind kinds[] = {PROXY_DROP_ACK, PROXY_DROP_PUBLISH, PROXY_CUT_AFTER_PUBLISH};

    for (unsigned i = 0; i < sizeof(subjects) / sizeof(subjects[0]); i++) {
        for (unsigned j = 0; j < sizeof(kinds) / sizeof(kinds[0]); j++) {
            put_some(deployment.nats, 10);
            watch_recorder_wait(recorders[0], put_count);
            proxy_arm(deployment.proxy, (struct proxy_fault){.kind = kinds[j], .subject = subjects[i], .count = 2});
            proxy_cut(deployment.proxy);
            put_some(deployment.nats, 10);
            wait_until(proxy_strikes(deployment.proxy) == 2, subjects[i]);
            proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
        }
    }
    begin_late_recorder();
    expect_all_told();
    expect_one_consumer();
}
END_TEST

START_TEST(a_removed_consumer_is_recreated)
{
    for (unsigned i = 0; i < 4; i++) {
        put_some(deployment.nats, 50);
        wait_until(remove_follower(), "a consumer to remove");
        put_some(deployment.nats, 50);
        watch_recorder_wait(recorders[0], put_count);
    }
    expect_all_told();
    wait_until(follower_count() == 1, "the one consumer");
}
END_TEST

/* --- The server dies ------------------------------------------------------------------------------- */

START_TEST(a_server_that_is_killed_and_comes_back_leaves_no_hole_and_no_repeat)
{
    for (unsigned i = 0; i < 4; i++) {
        write_some(30);
        nats_server_kill(&deployment.servers[0]);
        nats_server_run(&deployment.servers[0]);
        deployment_reconnect_nats(&deployment);
        put_some(deployment.nats, 30);
        if (i == 1)
            begin_late_recorder();
        if (i % 2 == 0)
            write_some(20);
    }
    expect_all_told();
    expect_one_consumer();
}
END_TEST

START_TEST(a_leader_that_dies_leaves_no_hole_and_no_repeat)
{
    write_some(50);
    deployment_wait_current(&deployment, BUCKET);
    struct nats_server *leader = deployment_leader(&deployment, BUCKET);
    nats_server_kill(leader);
    write_some(50); /* under the next leader */
    begin_late_recorder();
    nats_server_run(leader);
    deployment_reconnect_nats(&deployment);
    write_some(20);
    expect_all_told();
}
END_TEST

/* In a cluster the old consumer's pull lives on after the cut, and its heartbeats come to the new connection. */
START_TEST(a_lost_removal_is_repeated_while_the_old_consumer_delivers)
{
    for (unsigned i = 0; i < 6; i++) {
        write_some(10);
        deployment_wait_current(&deployment, BUCKET);
        proxy_arm(deployment.proxy,
                  (struct proxy_fault){.kind = PROXY_DROP_PUBLISH, .subject = "$JS.API.CONSUMER.DELETE.>"});
        proxy_prefer(deployment.proxy, i % CLUSTER_SERVERS);
        proxy_cut(deployment.proxy);
        wait_until(proxy_strikes(deployment.proxy) == 1, "the lost removal");
        put_some(deployment.nats, 10);
        expect_all_told();
    }
}
END_TEST

START_TEST(cuts_before_a_cluster_leave_no_hole_and_no_repeat)
{
    /* Each time to another server, which may lag. */
    for (unsigned i = 0; i < 15; i++) {
        write_some(10);
        uint64_t before = reconnects();
        proxy_prefer(deployment.proxy, i % CLUSTER_SERVERS);
        proxy_cut(deployment.proxy);
        put_some(deployment.nats, 10);
        wait_until(reconnects() > before, "the link");
        if (i % 5 == 4)
            begin_late_recorder();
    }
    expect_all_told();
}
END_TEST

/* --- The bucket is not what it was ----------------------------------------------------------------- */

#define OLD_KEYS 40u

/* Change a bucket while its server is not connected to the daemon. Then kill the server and restart it. */
static void restart_server(void)
{
    nats_server_kill(&deployment.servers[0]);
    nats_server_run(&deployment.servers[0]);
    deployment_reconnect_nats(&deployment);
    proxy_release(deployment.proxy);
}

/* Return how many of the entries from an index on have this key and operation. */
static unsigned count_told(const struct watch_recorder *recorder, size_t from, const char *key, const char *operation)
{
    unsigned count = 0;

    for (size_t i = from; i < recorder->count; i++)
        count += strcmp(recorder->told[i].key, key) == 0 && strcmp(recorder->told[i].operation, operation) == 0;
    return count;
}

static void put_old_keys(size_t told[2])
{
    for (unsigned i = 0; i < OLD_KEYS; i++)
        nats_put(deployment.nats, BUCKET, format_text("%s.%u", i % 2 == 0 ? "even" : "odd", i), "old");
    for (unsigned i = 0; i < 2; i++) {
        watch_recorder_wait(recorders[i], i == 0 ? OLD_KEYS : OLD_KEYS - 1);
        told[i] = recorders[i]->count;
    }
}

/* Exactly one delete of each of the old keys was delivered, and nothing else, up to an index. */
static void expect_all_vanished(const struct watch_recorder *recorder, size_t from)
{
    size_t count = 0;

    for (unsigned i = 0; i < OLD_KEYS; i++) {
        const char *key = format_text("%s.%u", i % 2 == 0 ? "even" : "odd", i);
        if (strncmp(key, recorder->prefix, strlen(recorder->prefix)) != 0)
            continue;
        ck_assert_msg(count_told(recorder, from, key, "DEL") == 1, "the deletion of %s was delivered %u times", key,
                      count_told(recorder, from, key, "DEL"));
        count++;
    }
    ck_assert_uint_eq(recorder->count, from + count);
}

static void wait_for_count(struct watch_recorder *recorder, size_t count)
{
    uint64_t end_ms = now_ms() + PATIENCE_MS;

    for (watch_recorder_read(recorder, 0); recorder->count < count; watch_recorder_read(recorder, 100))
        ck_assert_msg(now_ms() < end_ms, "%u entries were delivered, and not %zu", recorder->count, count);
}

START_TEST(keys_that_were_purged_during_an_outage_are_delivered_as_deleted)
{
    size_t told[2];

    put_old_keys(told);
    proxy_hold(deployment.proxy);
    nats_api(deployment.nats, "STREAM.PURGE", CONSUMERS, "{}");
    restart_server();
    wait_for_count(recorders[0], told[0] + OLD_KEYS);
    wait_for_count(recorders[1], told[1] + OLD_KEYS / 2);
    for (unsigned i = 0; i < 2; i++)
        expect_all_vanished(recorders[i], told[i]);
    /* Later changes are delivered as usual. */
    begin_late_recorder();
    uint64_t from = nats_put(deployment.nats, BUCKET, "even.0", "new");
    put_some(deployment.nats, 50);
    uint64_t last = nats_put(deployment.nats, BUCKET, "even.last", "x");
    struct stream_log log = stream_log_read(deployment.nats, BUCKET);
    for (unsigned i = 0; i < 2; i++) {
        watch_recorder_wait(recorders[i], last);
        watch_recorder_expect_log(recorders[i], &log, from);
    }
}
END_TEST

/* Some keys that the old bucket had, and some that it had not; some of them twice. */
static void make_anew(unsigned puts)
{
    json_t *config = json_object_get(nats_api(deployment.nats, "STREAM.INFO", CONSUMERS, "{}"), "config");

    nats_api(deployment.nats, "STREAM.DELETE", CONSUMERS, "{}");
    nats_api(deployment.nats, "STREAM.CREATE", CONSUMERS, "%s", (char *)keep(json_dumps(config, 0)));
    for (unsigned i = 0; i < puts; i++)
        nats_put(deployment.nats, BUCKET,
                 format_text("%s.%u", i % 2 == 0 ? "even" : "odd", OLD_KEYS / 2 + i % OLD_KEYS),
                 format_text("new %u", i));
}

/* From an index on: each entry of the new bucket in order, and one delete of each key that it does not have. */
static void expect_the_new_one(const struct watch_recorder *recorder, size_t from, const struct stream_log *log)
{
    struct watch_recorder changes = *recorder;
    unsigned vanished = 0;

    changes.told = keep(calloc(recorder->count + 1, sizeof(*changes.told)));
    changes.count = 0;
    for (size_t i = from; i < recorder->count; i++) {
        if (strcmp(recorder->told[i].operation, "DEL") != 0)
            changes.told[changes.count++] = recorder->told[i];
        else
            vanished++;
    }
    watch_recorder_expect_log(&changes, log, 1);
    for (unsigned i = 0; i < OLD_KEYS / 2; i++) {
        const char *key = format_text("%s.%u", i % 2 == 0 ? "even" : "odd", i);
        if (strncmp(key, recorder->prefix, strlen(recorder->prefix)) != 0)
            continue;
        ck_assert_msg(count_told(recorder, from, key, "DEL") == 1, "the deletion of %s was delivered %u times", key,
                      count_told(recorder, from, key, "DEL"));
        vanished--;
    }
    ck_assert_uint_eq(vanished, 0);
}

/* The deletes are known after all of the new bucket was read. */
static bool has_told_all_ends(const struct watch_recorder *recorder, size_t from)
{
    for (unsigned i = 0; i < OLD_KEYS / 2; i++) {
        const char *key = format_text("%s.%u", i % 2 == 0 ? "even" : "odd", i);
        if (strncmp(key, recorder->prefix, strlen(recorder->prefix)) == 0 &&
            count_told(recorder, from, key, "DEL") == 0)
            return false;
    }
    return true;
}

static void try_made_anew(unsigned puts)
{
    size_t told[2];

    put_old_keys(told);
    proxy_hold(deployment.proxy);
    make_anew(puts);
    restart_server();
    /* Before anything else is put: a key that returns in time has not vanished. */
    for (unsigned i = 0; i < 2; i++)
        wait_until((watch_recorder_read(recorders[i], 10), has_told_all_ends(recorders[i], told[i])),
                   "the ends of old keys");
    put_some(deployment.nats, 20);
    uint64_t last = nats_put(deployment.nats, BUCKET, "even.last", "x");
    struct stream_log log = stream_log_read(deployment.nats, BUCKET);
    for (unsigned i = 0; i < 2; i++) {
        wait_until((watch_recorder_read(recorders[i], 10), count_told(recorders[i], told[i], "even.last", "put") == 1),
                   "the last entry");
        ck_assert_uint_eq(watch_recorder_last_revision(recorders[i]), last);
        expect_the_new_one(recorders[i], told[i], &log);
    }
}

START_TEST(a_recreated_bucket_is_delivered_from_its_beginning)
{
    try_made_anew(OLD_KEYS / 2);
}
END_TEST

START_TEST(a_recreated_bucket_with_a_higher_revision_is_delivered_from_its_beginning)
{
    try_made_anew(3 * OLD_KEYS);
}
END_TEST

START_TEST(a_bucket_that_was_deleted_during_an_outage_ends_its_watches)
{
    put_some(deployment.nats, 10);
    watch_recorder_wait(recorders[0], 10);
    proxy_hold(deployment.proxy);
    nats_api(deployment.nats, "STREAM.DELETE", CONSUMERS, "{}");
    restart_server();
    for (unsigned i = 0; i < 2; i++) {
        wait_until((watch_recorder_read(recorders[i], 10), recorders[i]->ended != NULL), "watch.ended");
        ck_assert_str_eq(recorders[i]->ended, "bucket_not_found");
    }
}
END_TEST

/* --- The daemon dies ------------------------------------------------------------------------------- */

START_TEST(a_daemon_that_is_killed_takes_its_consumer_back)
{
    write_some(50);
    watch_recorder_wait(recorders[0], 50);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t next[2] = {watch_recorder_last_revision(recorders[0]) + 1,
                            watch_recorder_last_revision(recorders[1]) + 1};
        unsigned count = put_count;
        for (unsigned j = 0; j < 2; j++)
            watch_recorder_close(recorders[j]);
        deployment_kill_daemon(&deployment);
        put_some(deployment.nats, 30); /* no daemon follows the bucket */
        deployment_restart_daemon(&deployment);
        recorder_count = 0;
        for (unsigned j = 0; j < 2; j++)
            begin_recorder(j == 0 ? ">" : "even.>", format_text("'from_revision': %llu", (unsigned long long)next[j]));
        write_some(20);
        struct stream_log log = stream_log_read(deployment.nats, BUCKET);
        for (unsigned j = 0; j < 2; j++) {
            watch_recorder_wait(recorders[j], count + 49 + (j == 0));
            watch_recorder_expect_log(recorders[j], &log, next[j]);
        }
        expect_one_consumer();
    }
}
END_TEST

START_TEST(two_daemons_of_one_name_deliver_everything_and_settle)
{
    struct deployment other;
    struct scribe scribe;
    unsigned count;

    deployment_join(&other, &deployment, SETTINGS);
    begin_scribe(&scribe);
    recorders[recorder_count++] = watch_recorder_open(&other.daemon, BUCKET, ">", "'include_history': true");
    recorders[recorder_count++] = watch_recorder_open(&other.daemon, BUCKET, "odd.>", "'include_history': true");
    watch_recorder_wait_ready(recorders[2]);
    /* With two names, neither daemon still removes the other's consumer. */
    wait_until(follower_count() == 2, "a consumer of each");
    const char *names = follower_names(&count);
    end_scribe(&scribe);
    expect_all_told();
    wait_until(strcmp(follower_names(&count), names) == 0, "the same consumers");
    watch_recorder_close(recorders[--recorder_count]);
    watch_recorder_close(recorders[--recorder_count]);
    deployment_end(&other);
}
END_TEST

Suite *watch_fault_suite(void)
{
    const TTest *const tests[] = {
        fifty_cuts_leave_no_hole_no_repeat_and_one_consumer,
        a_cut_during_redelivery_leaves_no_hole_and_no_repeat,
        a_stall_leaves_no_hole_and_no_repeat,
        all_of_thousands_of_changes_during_a_resynchronisation_are_delivered,
        a_lost_delivery_is_delivered_again,
        entries_that_are_lost_while_a_watch_begins_are_delivered_again,
        lost_heartbeats_recreate_the_consumer_and_lose_no_change,
        losses_while_the_consumer_is_created_leave_one_consumer_and_no_hole,
        a_removed_consumer_is_recreated,
        a_server_that_is_killed_and_comes_back_leaves_no_hole_and_no_repeat,
        keys_that_were_purged_during_an_outage_are_delivered_as_deleted,
        a_recreated_bucket_is_delivered_from_its_beginning,
        a_recreated_bucket_with_a_higher_revision_is_delivered_from_its_beginning,
        a_bucket_that_was_deleted_during_an_outage_ends_its_watches,
        a_daemon_that_is_killed_takes_its_consumer_back,
        two_daemons_of_one_name_deliver_everything_and_settle,
    };
    Suite *suite = suite_create("watch faults");
    TCase *one = tcase_create("one server"), *three = tcase_create("three servers");

    tcase_add_checked_fixture(one, begin_one, end);
    tcase_add_checked_fixture(three, begin_three, end);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tcase_add_test(one, tests[i]);
    tcase_add_test(three, a_leader_that_dies_leaves_no_hole_and_no_repeat);
    tcase_add_test(three, a_lost_removal_is_repeated_while_the_old_consumer_delivers);
    tcase_add_test(three, cuts_before_a_cluster_leave_no_hole_and_no_repeat);
    suite_add_tcase(suite, one);
    suite_add_tcase(suite, three);
    return suite;
}
