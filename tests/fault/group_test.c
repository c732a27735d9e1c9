/* Group commit: writes that leave as one batch are each stored once, and each has its own answer. */
#include "tests/fault/deployment.h"
#include "tests/fault/suites.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WRITES 200u

#define LARGE_BYTES 900000u

/* A header may have 64 KiB. Together they are more than the connection takes at once (32 MiB). */
#define HEADER_BYTES  60000u
#define HEADER_WRITES 700u

static struct deployment deployment;

static void begin(void)
{
    deployment_begin(&deployment, 1, "buckets:\n  group_commit: on\n");
    deployment_make_bucket(&deployment, "b", NULL);
}

static void end(void)
{
    deployment_end(&deployment);
}

static uint64_t batches(void)
{
    return number_at(&client_call(deployment.client, "daemon.stats", "[]")->result, "group_commit.batches");
}

static uint32_t send_put(unsigned number)
{
    return client_send(deployment.client, "kv.put", "['b', 'k.%u', 'v%u']", number, number);
}

/* The daemon reads everything that is sent between the two at once, so that it leaves as one batch. */
static void begin_to_send(void)
{
    pid_suspend(deployment.daemon.process.pid);
}

static void end_to_send(void)
{
    pid_resume(deployment.daemon.process.pid);
}

static void send_puts(uint32_t msgids[WRITES])
{
    begin_to_send();
    for (unsigned i = 0; i < WRITES; i++)
        msgids[i] = send_put(i);
    end_to_send();
}

static void expect_puts(const uint32_t msgids[WRITES])
{
    for (unsigned i = 0; i < WRITES; i++)
        client_peek(deployment.client, msgids[i]);
    struct stream_log log = stream_log_read(deployment.nats, "b");
    for (unsigned i = 0; i < WRITES; i++) {
        const struct answer *answer = client_wait(deployment.client, msgids[i]);
        uint64_t stored;
        assert_ok(answer);
        unsigned count = stream_log_count(&log, format_text("k.%u", i), "put", format_text("v%u", i), &stored);
        ck_assert_msg(count == 1 && stored == revision_of(answer), "k.%u is stored %u times, at %llu; answered %llu", i,
                      count, (unsigned long long)stored, (unsigned long long)revision_of(answer));
    }
}

static void try_fault(struct proxy_fault fault)
{
    uint32_t msgids[WRITES];
    uint64_t before = batches();

    fault.subject = "$KV.b.k.>";
    proxy_arm(deployment.proxy, fault);
    send_puts(msgids);
    expect_puts(msgids);
    ck_assert_uint_gt(proxy_strikes(deployment.proxy), 0);
    ck_assert_uint_gt(batches(), before);

    const msgpack_object *stats = &client_call(deployment.client, "daemon.stats", "[]")->result;
    ck_assert_uint_ge(number_at(stats, "group_commit.size_p50"), 2);
    ck_assert_uint_ge(number_at(stats, "group_commit.size_p99"), number_at(stats, "group_commit.size_p50"));
    ck_assert_uint_ge(number_at(stats, "group_commit.size_max"), number_at(stats, "group_commit.size_p99"));
    ck_assert_uint_le(number_at(stats, "group_commit.size_max"), WRITES);
}

START_TEST(each_write_of_a_batch_whose_ack_is_lost_is_stored_once)
{
    try_fault((struct proxy_fault){.kind = PROXY_DROP_ACK, .count = 3});
}
END_TEST

START_TEST(each_write_of_a_batch_with_a_lost_message_is_stored_once)
{
    try_fault((struct proxy_fault){.kind = PROXY_DROP_PUBLISH, .skip = WRITES / 2});
}
END_TEST

START_TEST(each_write_of_a_batch_that_is_cut_off_is_stored_once)
{
    try_fault((struct proxy_fault){.kind = PROXY_CUT_BEFORE_PUBLISH, .skip = WRITES / 2});
}
END_TEST

START_TEST(each_write_of_a_batch_whose_connection_is_cut_instead_of_the_ack_is_stored_once)
{
    try_fault((struct proxy_fault){.kind = PROXY_CUT_BEFORE_ACK, .count = 3});
}
END_TEST

START_TEST(each_write_of_a_batch_whose_server_dies_before_the_ack_is_stored_once)
{
    uint32_t msgids[WRITES];

    proxy_arm(deployment.proxy,
              (struct proxy_fault){.kind = PROXY_DROP_ACK, .subject = "$KV.b.k.>", .then_hold = true});
    send_puts(msgids);
    wait_until(proxy_strikes(deployment.proxy) == 1, "the batch");
    nats_server_kill(&deployment.servers[0]);
    nats_server_run(&deployment.servers[0]);
    proxy_release(deployment.proxy);
    deployment_reconnect_nats(&deployment);
    expect_puts(msgids);
    ck_assert_uint_gt(batches(), 0);
}
END_TEST

/* The daemon asks about the batch with one of its keys. The others must not get this key or its revision. */
START_TEST(a_batch_in_doubt_names_each_write_only_its_own_key)
{
    enum { COUNT = 10 };
    uint32_t msgids[COUNT];
    unsigned in_doubt = 0;

    deployment_make_short_bucket(&deployment, "short");
    assert_ok(client_call(deployment.client, "kv.put", "['short', 'first', 'mine']")); /* now it knows the bucket */
    proxy_arm(deployment.proxy,
              (struct proxy_fault){.kind = PROXY_DROP_ACK, .subject = "$KV.short.k.>", .then_hold = true});
    begin_to_send();
    for (unsigned i = 0; i < COUNT; i++)
        msgids[i] = client_send(deployment.client, "kv.put", "['short', 'k.%u', 'mine']", i);
    end_to_send();
    wait_until(proxy_strikes(deployment.proxy) == 1, "the batch");
    for (unsigned i = 0; i < COUNT; i++)
        nats_put(deployment.nats, "short", format_text("k.%u", i), "other");
    nats_server_stop(&deployment.servers[0]); /* with the overwritten messages it forgets their ids */
    nats_server_run(&deployment.servers[0]);
    proxy_release(deployment.proxy);
    deployment_reconnect_nats(&deployment);
    for (unsigned i = 0; i < COUNT; i++) {
        const struct answer *answer = client_wait(deployment.client, msgids[i]);
        const char *name = format_text("k.%u", i);
        if (answer->error.type == MSGPACK_OBJECT_NIL) { /* on a slow machine the last ones are not in the batch */
            struct stream_log log = stream_log_read(deployment.nats, "short");
            uint64_t stored;
            ck_assert_uint_eq(stream_log_count(&log, name, "put", "mine", &stored), 1);
            ck_assert_uint_eq(revision_of(answer), stored);
            continue;
        }
        ck_assert_msg(strcmp(answer_outcome(answer), "unknown") == 0, "%s", answer_text(answer));
        const msgpack_object *key = find_at(&answer->error, "key");
        ck_assert_msg(find_at(&answer->error, "revision") == NULL, "%s", answer_text(answer));
        if (key != NULL)
            ck_assert_str_eq(text_at(key, ""), name);
        in_doubt++;
    }
    ck_assert_uint_gt(in_doubt, 0);
}
END_TEST

/* --- One of them is to blame ----------------------------------------------------------------------- */

START_TEST(a_condition_that_fails_in_a_batch_fails_alone)
{
    uint32_t msgids[WRITES], wrong[2] = {0}, right = 0;

    uint64_t there = revision_of(client_call(deployment.client, "kv.put", "['b', 'there', 'x']"));
    begin_to_send();
    for (unsigned i = 0; i < WRITES; i++) {
        msgids[i] = send_put(i);
        if (i == WRITES / 2) {
            wrong[0] = client_send(deployment.client, "kv.create", "['b', 'there', 'never']");
            wrong[1] = client_send(deployment.client, "kv.update", "['b', 'k.0', 'never', 999999]");
            right = client_send(deployment.client, "kv.create", "['b', 'new', 'once']");
        }
    }
    end_to_send();
    expect_puts(msgids);
    assert_code(client_peek(deployment.client, wrong[0]), "already_exists");
    ck_assert_uint_eq(number_at(&client_wait(deployment.client, wrong[0])->error, "revision"), there);
    assert_code(client_wait(deployment.client, wrong[1]), "conflict");
    struct stream_log log = stream_log_read(deployment.nats, "b");
    uint64_t stored;
    ck_assert_uint_eq(stream_log_count(&log, "there", "put", "never", &stored), 0);
    ck_assert_uint_eq(stream_log_count(&log, "k.0", "put", "never", &stored), 0);
    ck_assert_uint_eq(stream_log_count(&log, "new", "put", "once", &stored), 1);
    ck_assert_uint_eq(revision_of(client_wait(deployment.client, right)), stored);
    ck_assert_uint_gt(number_at(&client_call(deployment.client, "daemon.stats", "[]")->result, "group_commit.failed"),
                      0);
}
END_TEST

START_TEST(a_value_that_is_too_large_for_the_bucket_fails_alone)
{
    uint32_t msgids[WRITES], large[2] = {0};
    json_t *config = json_object_get(nats_api(deployment.nats, "STREAM.INFO", "KV_b", "{}"), "config");

    /* Before the daemon knows the limit, the server refuses the whole batch; later the daemon refuses the one value. */
    assert_ok(client_call(deployment.client, "kv.put", "['b', 'k', 'x']"));
    json_object_set_new(config, "max_msg_size", json_integer(400));
    nats_api(deployment.nats, "STREAM.UPDATE", "KV_b", "%s", (char *)keep(json_dumps(config, 0)));
    begin_to_send();
    for (unsigned i = 0; i < WRITES; i++) {
        msgids[i] = send_put(i);
        if (i == WRITES / 2 || i == WRITES / 2 + 1)
            large[i - WRITES / 2] = client_send(deployment.client, "kv.put", "['b', 'large', '%0500u']", 0u);
    }
    end_to_send();
    expect_puts(msgids);
    assert_code(client_wait(deployment.client, large[0]), "too_large");
    assert_code(client_wait(deployment.client, large[1]), "too_large");
    ck_assert_uint_gt(number_at(&client_call(deployment.client, "daemon.stats", "[]")->result, "group_commit.failed"),
                      0);
}
END_TEST

START_TEST(writes_of_one_key_in_a_batch_keep_their_order)
{
    uint32_t msgids[WRITES / 4];
    uint64_t last = 0;

    begin_to_send();
    for (unsigned i = 0; i < WRITES / 4; i++)
        msgids[i] = client_send(deployment.client, "kv.put", "['b', 'one', '%u']", i);
    end_to_send();
    for (unsigned i = 0; i < WRITES / 4; i++) {
        uint64_t revision = revision_of(client_wait(deployment.client, msgids[i]));
        ck_assert_uint_gt(revision, last);
        last = revision;
    }
    const struct answer *read = client_call(deployment.client, "kv.get", "['b', 'one']");
    ck_assert_str_eq(text_at(&read->result, "value"), format_text("%u", WRITES / 4 - 1));
    ck_assert_uint_gt(batches(), 0);
}
END_TEST

/* Writes with timeouts that differ much are not in one batch. They must not make many small ones. */
START_TEST(different_timeouts_do_not_make_small_batches)
{
    uint32_t msgids[WRITES];

    begin_to_send();
    for (unsigned i = 0; i < WRITES; i++)
        msgids[i] = client_send(deployment.client, "kv.put", "['b', 'k.%u', 'v%u', {'timeout': %u}]", i, i,
                                i % 2 == 0 ? 20 : 40);
    end_to_send();
    expect_puts(msgids);
    ck_assert_uint_ge(number_at(&client_call(deployment.client, "daemon.stats", "[]")->result, "group_commit.writes"),
                      WRITES - 20);
    ck_assert_uint_le(batches(), 20);
}
END_TEST

START_TEST(writes_of_one_key_with_different_timeouts_keep_their_order)
{
    uint32_t msgids[WRITES];
    uint64_t last = 0;

    begin_to_send();
    for (unsigned i = 0; i < WRITES; i++)
        msgids[i] = client_send(deployment.client, "kv.put", "['b', 'k.%u', '%u', {'timeout': %u}]", i % 5, i,
                                i % 3 == 0 ? 20 : 40);
    end_to_send();
    for (unsigned key = 0; key < 5; key++, last = 0) {
        for (unsigned i = key; i < WRITES; i += 5) {
            uint64_t revision = revision_of(client_wait(deployment.client, msgids[i]));
            ck_assert_uint_gt(revision, last);
            last = revision;
        }
    }
}
END_TEST

/* Headers count for the size of a batch: one that the connection cannot take at once would never be sent. */
START_TEST(values_with_large_headers_are_stored)
{
    uint32_t msgids[HEADER_WRITES];
    char *header = keep(calloc(1, HEADER_BYTES + 1));

    memset(header, 'h', HEADER_BYTES);
    for (unsigned i = 0; i < HEADER_WRITES; i++)
        msgids[i] =
            client_send(deployment.client, "kv.put", "['b', 'k.%u', 'v', {'headers': {'Large': '%s'}}]", i, header);
    for (unsigned i = 0; i < HEADER_WRITES; i++)
        assert_ok(client_wait(deployment.client, msgids[i]));
}
END_TEST

/* What a transaction reads of its conditions is not kept until its end. */
START_TEST(a_transaction_does_not_keep_the_values_of_its_conditions)
{
    char *value = keep(calloc(1, LARGE_BYTES + 1));
    const char *checks = "";
    struct client *other = client_open(&deployment.daemon);

    memset(value, 'v', LARGE_BYTES);
    for (unsigned i = 0; i < 20; i++) {
        const struct answer *answer = client_call(deployment.client, "kv.put", "['b', 'c.%u', '%s']", i, value);
        checks =
            format_text("%s%s['c.%u', %llu]", checks, i > 0 ? ", " : "", i, (unsigned long long)revision_of(answer));
    }
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_HOLD_BEFORE_PUBLISH, .subject = "$KV.b.x"});
    uint32_t msgid = client_send(deployment.client, "txn.commit", "['b', [%s], [['put', 'x', '1']]]", checks);
    wait_until(proxy_strikes(deployment.proxy) > 0, "the commit");
    uint64_t call_bytes = number_at(&client_call(other, "daemon.stats", "[]")->result, "call_bytes");
    ck_assert_uint_lt(call_bytes, 2000000);
    proxy_release(deployment.proxy);
    assert_ok(client_wait(deployment.client, msgid));
    client_close(other);
}
END_TEST

/* Thousands of deletions may wait, each of a key with a large value. */
START_TEST(a_deletion_does_not_keep_the_value_that_it_finds)
{
    char *value = keep(calloc(1, LARGE_BYTES + 1));
    struct client *other = client_open(&deployment.daemon);

    memset(value, 'v', LARGE_BYTES);
    assert_ok(client_call(deployment.client, "kv.put", "['b', 'x', '%s']", value));
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_HOLD_BEFORE_PUBLISH, .subject = "$KV.b.x"});
    uint32_t msgid = client_send(deployment.client, "kv.delete", "['b', 'x', {'if_exists': true}]");
    wait_until(proxy_strikes(deployment.proxy) > 0, "the deletion");
    ck_assert_uint_lt(number_at(&client_call(other, "daemon.stats", "[]")->result, "call_bytes"), LARGE_BYTES / 2);
    proxy_release(deployment.proxy);
    assert_ok(client_wait(deployment.client, msgid));
    client_close(other);
}
END_TEST

START_TEST(a_bulk_put_past_its_deadline_has_the_true_outcome_of_each_key)
{
    assert_ok(client_call(deployment.client, "kv.put", "['b', 'before', 'x']")); /* the bucket is known */
    proxy_hold(deployment.proxy);
    const struct answer *answer =
        client_call(deployment.client, "bulk.put", "['b', {'x': 'mine', 'y': 'mine', 'z': 'mine'}, {'timeout': 0.5}]");
    assert_ok(answer);
    proxy_release(deployment.proxy);
    /* What was sent last is stored before this one. */
    assert_ok(client_call(deployment.client, "kv.put", "['b', 'behind', 'x']"));
    struct stream_log log = stream_log_read(deployment.nats, "b");
    for (const char *const *key = (const char *const[]){"x", "y", "z", NULL}; *key != NULL; key++) {
        uint64_t stored;
        unsigned count = stream_log_count(&log, *key, "put", "mine", &stored);
        const msgpack_object *error = find_at(&answer->result, format_text("%s.error", *key));
        const msgpack_object *outcome = find_at(error, "outcome"); /* 'unavailable' is 'none' without it */
        bool is_unknown = outcome != NULL && strcmp(text_at(outcome, ""), "unknown") == 0;
        bool is_late = strcmp(text_at(error, "code"), "deadline_exceeded") == 0;
        ck_assert_msg(is_late || strcmp(text_at(error, "code"), "unavailable") == 0, "%s", answer_text(answer));
        ck_assert_uint_le(count, is_unknown);
    }
}
END_TEST

static const char *pairs_of(char name, unsigned count)
{
    char *pairs = keep(calloc(count, 16)), *end = pairs;

    for (unsigned i = 0; i < count; i++)
        end += sprintf(end, "%s'%c%u': 'x'", i > 0 ? ", " : "", name, i);
    return pairs;
}

/* Return how many writes have begun and not ended. */
static uint64_t writes_begun(struct client *client)
{
    const struct answer *answer = client_call(client, "daemon.dump", "[]");
    const msgpack_object *group = find_at(&answer->result, "group_commits.list.0");

    return group != NULL ? number_at(group, "waiting") + number_at(group, "single") + number_at(group, "in_batch") : 0;
}

/* Earlier bulk writes have all places of the bucket, and much longer to live. */
START_TEST(a_bulk_put_without_room_ends_at_its_deadline)
{
    enum { FULL = 512, WAITING = 100 };
    struct client *other = client_open(&deployment.daemon);

    assert_ok(client_call(deployment.client, "kv.put", "['b', 'before', 'x']")); /* the bucket is known */
    proxy_arm(deployment.proxy,
              (struct proxy_fault){.kind = PROXY_DROP_PUBLISH, .subject = "$KV.b.>", .count = 1000000});
    uint32_t full =
        client_send(deployment.client, "bulk.put", "['b', {%s}, {'timeout': 50}]", pairs_of('f', FULL + WAITING));
    wait_until(writes_begun(other) == FULL, "all for which there is room");
    const struct answer *answer =
        client_call(other, "bulk.put", "['b', {%s}, {'timeout': 0.5}]", pairs_of('w', WAITING));
    assert_ok(answer);
    ck_assert_uint_eq(answer->result.via.map.size, WAITING);
    for (unsigned i = 0; i < WAITING; i++) {
        ck_assert_str_eq(text_at(&answer->result, format_text("w%u.error.code", i)), "deadline_exceeded");
        ck_assert_str_eq(text_at(&answer->result, format_text("w%u.error.outcome", i)), "none"); /* it did not begin */
    }
    /* The earlier one and this: it was not the end of the earlier one that has ended the other. */
    ck_assert_uint_eq(number_at(&client_call(other, "daemon.stats", "[]")->result, "calls_in_flight"), 2);
    proxy_arm(deployment.proxy, (struct proxy_fault){.kind = PROXY_NO_FAULT});
    assert_ok(client_wait(deployment.client, full));
    client_close(other);
}
END_TEST

Suite *group_suite(void)
{
    Suite *suite = suite_create("group commit");
    TCase *tests = tcase_create("one server");

    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, each_write_of_a_batch_whose_ack_is_lost_is_stored_once);
    tcase_add_test(tests, each_write_of_a_batch_with_a_lost_message_is_stored_once);
    tcase_add_test(tests, each_write_of_a_batch_that_is_cut_off_is_stored_once);
    tcase_add_test(tests, each_write_of_a_batch_whose_connection_is_cut_instead_of_the_ack_is_stored_once);
    tcase_add_test(tests, each_write_of_a_batch_whose_server_dies_before_the_ack_is_stored_once);
    tcase_add_test(tests, a_batch_in_doubt_names_each_write_only_its_own_key);
    tcase_add_test(tests, a_condition_that_fails_in_a_batch_fails_alone);
    tcase_add_test(tests, a_value_that_is_too_large_for_the_bucket_fails_alone);
    tcase_add_test(tests, writes_of_one_key_in_a_batch_keep_their_order);
    tcase_add_test(tests, different_timeouts_do_not_make_small_batches);
    tcase_add_test(tests, writes_of_one_key_with_different_timeouts_keep_their_order);
    tcase_add_test(tests, values_with_large_headers_are_stored);
    tcase_add_test(tests, a_transaction_does_not_keep_the_values_of_its_conditions);
    tcase_add_test(tests, a_deletion_does_not_keep_the_value_that_it_finds);
    tcase_add_test(tests, a_bulk_put_without_room_ends_at_its_deadline);
    tcase_add_test(tests, a_bulk_put_past_its_deadline_has_the_true_outcome_of_each_key);
    suite_add_tcase(suite, tests);
    return suite;
}
