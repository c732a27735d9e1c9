/* What a daemon must not conclude of the leases and locks of others, and what it must not miss. */
#include "tests/fault/deployment.h"
#include "tests/fault/lock_client.h"
#include "tests/fault/suites.h"
#include "tests/support/calls.h"
#include "tests/support/nats.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TTL_MS 2000u

/* For a machine that is busy with something else. */
#define BUSY_NS UINT64_C(5000000000)

/* No attempt is made again, unless a connection was lost. */
#define CONF DEPLOYMENT_ATTEMPTS(60) "locks:\n  lease_ttl: 2\n"

static struct deployment one, two;

static void begin(void)
{
    deployment_begin(&one, 1, CONF);
    deployment_make_short_bucket(&one, "b");
    deployment_join(&two, &one, CONF);
}

static void begin_without_copies(void)
{
    deployment_begin(&one, 1, CONF);
    deployment_make_short_bucket(&one, "b");
    deployment_make_short_bucket(&one, "watched");
    deployment_join(&two, &one, CONF "watches:\n  max_buckets: 1\n");
    assert_ok(client_call(two.client, "watch.start", "['watched']"));
}

static void end(void)
{
    deployment_end(&two);
    deployment_end(&one);
}

/* Return the only lease of the bucket, as a subject. */
static const char *lease_subject(void)
{
    json_t *info = nats_api(one.nats, "STREAM.INFO", "KV_b", "{'subjects_filter': '$KV.b._kvstored.lease.>'}");
    json_t *subjects = json_object_get(json_object_get(info, "state"), "subjects");

    ck_assert_uint_eq(json_object_size(subjects), 1);
    return format_text("%s", json_object_iter_key(json_object_iter(subjects)));
}

static uint64_t held_token;

/* Return when the time is over for which the daemon vouches. sent_ns: when the call was sent. */
static uint64_t vouched_until_ns(uint64_t sent_ns, const struct answer *answer)
{
    assert_ok(answer);
    return sent_ns + (uint64_t)(double_at(&answer->result, "valid_for") * 1e9);
}

/* Acquire the lock, and return when the time is over for which the daemon vouches. */
static uint64_t hold(struct client *client)
{
    uint64_t sent_ns = lock_client_now_ns();
    const struct answer *answer = client_call(client, "lock.acquire", "['b', 'lock', {'wait': 10}]");

    uint64_t vouched_ns = vouched_until_ns(sent_ns, answer);
    held_token = number_at(&answer->result, "token");
    return vouched_ns;
}

/* The same, of the lock that the client holds. */
static uint64_t check(struct client *client)
{
    uint64_t sent_ns = lock_client_now_ns();
    const struct answer *answer =
        client_call(client, "lock.check", "['b', 'lock', %llu]", (unsigned long long)held_token);

    return vouched_until_ns(sent_ns, answer);
}

static void expect_not_before(uint64_t vouched_ns)
{
    uint64_t now_ns = lock_client_now_ns();

    ck_assert_msg(now_ns >= vouched_ns, "%.0f ms too early", (double)(vouched_ns - now_ns) / 1e6);
}

/* --- Removed leases -------------------------------------------------------------------------------- */

/* The holder's daemon cannot tell it: it is stopped. The second one must not have the lock too early. */
static void expect_patience(void (*remove)(const char *subject))
{
    uint64_t vouched_ns = hold(one.client);
    const char *subject = lease_subject();

    pid_suspend(one.daemon.process.pid);
    remove(subject);
    const struct answer *answer = client_call(two.client, "lock.acquire", "['b', 'lock', {'wait': 60}]");
    assert_ok(answer);
    expect_not_before(vouched_ns);
    pid_resume(one.daemon.process.pid);
    struct notification *lost = client_wait_notification(one.client, 0);
    ck_assert_str_eq(lost->method, "lock.lost");
}

static void purge_without_trace(const char *subject)
{
    nats_api(one.nats, "STREAM.PURGE", "KV_b", "{'filter': '%s'}", subject);
}

/* As the server does after the TTL of a message, by its own clock. */
static void leave_marker(const char *subject)
{
    nats_request_json(one.nats, subject, "Nats-Marker-Reason: MaxAge\r\n", "");
}

START_TEST(a_lease_that_is_gone_is_vouched_for_until_its_ttl_is_over)
{
    expect_patience(purge_without_trace);
}
END_TEST

START_TEST(a_lease_that_the_server_has_expired_is_vouched_for_until_its_ttl_is_over)
{
    expect_patience(leave_marker);
}
END_TEST

/* The daemon gives the lock up some time before its lease is over. Its client may read that later, or not at all. */
START_TEST(a_lost_lock_is_nobody_elses_before_its_time_is_over)
{
    hold(one.client);
    proxy_arm(one.proxy, (struct proxy_fault){.kind = PROXY_DROP_ACK, .subject = lease_subject(), .count = 1000});
    wait_until(proxy_strikes(one.proxy) > 0, "a renewal that is not answered");
    uint64_t vouched_ns = check(one.client);
    assert_ok(client_call(two.client, "lock.acquire", "['b', 'lock', {'wait': 60}]"));
    expect_not_before(vouched_ns);
    struct notification *lost = client_wait_notification(one.client, 0);
    ck_assert_str_eq(lost->method, "lock.lost");
    ck_assert_str_eq(text_at(&lost->params, "3.code"), "unavailable");
}
END_TEST

/* Start the daemon again with clocks that are days ahead. Return false if the machine does not allow that. */
static bool move_clocks(struct deployment *deployment)
{
    char *try[] = {"unshare", "--time", "--boottime", "1000000", "true", NULL}, *output;
    char *arguments[] = {"unshare",
                         "--time",
                         "--boottime",
                         "1000000",
                         "--monotonic",
                         "1000000",
                         keep(strdup(test_run_kvstored())),
                         "--config",
                         deployment->daemon.conf_path,
                         NULL};

    if (run_program(try, &output) != 0)
        return false;
    deployment_kill_daemon(deployment);
    daemon_mark_log(&deployment->daemon);
    process_start(&deployment->daemon.process, arguments);
    daemon_wait_ready(&deployment->daemon);
    deployment->client = client_open(&deployment->daemon);
    return true;
}

/* The first daemon is stopped. Return how much later than vouched for the second one got the lock. */
static void take_over(struct deployment *first, struct deployment *second)
{
    uint64_t vouched_ns = hold(first->client);

    pid_suspend(first->daemon.process.pid);
    assert_ok(client_call(second->client, "lock.acquire", "['b', 'lock', {'wait': 60}]"));
    uint64_t received_ns = lock_client_now_ns();
    ck_assert_uint_ge(received_ns, vouched_ns);
    ck_assert_uint_lt(received_ns, vouched_ns + TTL_MS * UINT64_C(1000000) + BUSY_NS);
    pid_resume(first->daemon.process.pid);
    struct notification *lost = client_wait_notification(first->client, 0);
    ck_assert_str_eq(lost->method, "lock.lost");
}

START_TEST(the_clocks_of_two_daemons_need_not_agree)
{
    if (!move_clocks(&two)) {
        test_run_skip("the_clocks_of_two_daemons_need_not_agree", "the machine does not allow time namespaces");
        return;
    }
    take_over(&one, &two);
    client_close(two.client);
    two.client = client_open(&two.daemon);
    take_over(&two, &one);
}
END_TEST

/* The host is gone for good. No other daemon had a lease in the bucket. */
START_TEST(the_keys_of_a_host_that_died_long_ago_are_deleted_by_the_next_daemon_with_a_lease)
{
    assert_ok(client_call(one.client, "kv.put", "['b', 'here.1', 'x', {'ephemeral': true}]"));
    assert_ok(client_call(one.client, "kv.put", "['b', 'here.2', 'x', {'ephemeral': true}]"));
    hold(one.client);
    uint64_t died_ms = now_ms();
    deployment_kill_daemon(&one);
    unlink(format_text("%s.leases", one.daemon.socket_path));
    wait_until(now_ms() > died_ms + 4 * TTL_MS, "the moment at which the lease would be dead for others");
    assert_ok(client_call(two.client, "kv.put", "['b', 'there', 'x', {'ephemeral': true}]"));
    wait_until(client_call(two.client, "kv.get", "['b', 'here.1']")->result.type == MSGPACK_OBJECT_NIL &&
                   client_call(two.client, "kv.get", "['b', 'here.2']")->result.type == MSGPACK_OBJECT_NIL &&
                   client_call(two.client, "kv.get", "['b', 'lock']")->result.type == MSGPACK_OBJECT_NIL,
               "the keys of the dead host to go");
    deployment_restart_daemon(&one);
}
END_TEST

/* The living daemon has forgotten what it saw of the leases: the server may be another one. */
START_TEST(the_keys_of_a_dead_daemon_are_deleted_although_a_connection_is_lost_meanwhile)
{
    assert_ok(client_call(one.client, "kv.put", "['b', 'here', 'x', {'ephemeral': true}]"));
    assert_ok(client_call(two.client, "kv.put", "['b', 'there', 'x', {'ephemeral': true}]"));
    wait_until(nats_consumer_count(one.nats, "b") == 2, "the daemons to follow the bucket");
    deployment_kill_daemon(&one);
    proxy_cut(two.proxy);
    wait_until(client_call(two.client, "kv.get", "['b', 'here']")->result.type == MSGPACK_OBJECT_NIL,
               "the key of the dead daemon to go");
    deployment_restart_daemon(&one);
}
END_TEST

/* --- Waiters --------------------------------------------------------------------------------------- */

/* The holder's daemon goes on to renew its lease for other keys. */
static uint32_t begin_waiting(struct client *client)
{
    assert_ok(client_call(one.client, "kv.put", "['b', 'here', 'x', {'ephemeral': true}]"));
    uint32_t waiter = client_send(client, "lock.acquire", "['b', 'lock', {'wait': 600}]");

    wait_for_stat(client, "locks.waiting", 1);
    return waiter;
}

/* The daemon follows as many buckets as it may, and not this one. */
START_TEST(a_waiter_gets_the_lock_although_its_daemon_does_not_follow_the_bucket)
{
    const struct answer *held = client_call(one.client, "lock.acquire", "['b', 'lock']");
    uint32_t waiter = begin_waiting(two.client);

    wait_until(proxy_publishes(two.proxy) == 0 && deployment_stat(&two, "locks.leases") == 1, "its lease");
    uint64_t renewals = deployment_stat(&two, "locks.renewals");
    wait_until(deployment_stat(&two, "locks.renewals") > renewals + 1, "a second look at the lock");
    uint64_t released_ms = now_ms();
    assert_ok(client_call(one.client, "lock.release", "['b', 'lock', %llu]",
                          (unsigned long long)number_at(&held->result, "token")));
    assert_ok(client_wait(two.client, waiter));
    ck_assert_uint_lt(now_ms() - released_ms, 30000);
}
END_TEST

START_TEST(a_holder_learns_of_the_loss_although_its_daemon_does_not_follow_the_bucket)
{
    hold(two.client);
    assert_ok(client_call(one.client, "kv.delete", "['b', 'lock']"));
    struct notification *lost = client_wait_notification(two.client, 0);
    ck_assert_str_eq(lost->method, "lock.lost");
    ck_assert_str_eq(text_at(&lost->params, "3.code"), "conflict");
}
END_TEST

/* The answer about the holder is under way while the holder leaves, and comes last. */
START_TEST(a_release_beside_a_look_at_the_lock_is_not_missed)
{
    const struct answer *held = client_call(one.client, "lock.acquire", "['b', 'lock']");
    uint64_t token = number_at(&held->result, "token");

    /* The daemon follows the bucket, and knows the other one's lease. */
    assert_ok(client_call(two.client, "kv.put", "['b', 'there', 'x', {'ephemeral': true}]"));
    assert_code(client_call(two.client, "lock.acquire", "['b', 'lock']"), "locked");
    put_text(one.client, "b", "other", "x");
    struct client *watcher = client_open(&two.daemon);
    uint64_t watch = number_at(&client_call(watcher, "watch.start", "['b', {'filter': 'lock'}]")->result, "");
    while (strcmp(client_wait_notification(watcher, watch)->method, "watch.ready") != 0)
        ;
    /* The first look tells the write why it was refused, the second one who holds the lock. */
    proxy_arm(two.proxy,
              (struct proxy_fault){.kind = PROXY_DELAY_ACK, .subject = "$JS.API.STREAM.MSG.GET.KV_b", .skip = 1});
    uint32_t waiter = begin_waiting(two.client);
    wait_until(proxy_strikes(two.proxy) == 1, "the look");
    assert_ok(client_call(one.client, "lock.release", "['b', 'lock', %llu]", (unsigned long long)token));
    client_wait_notification(watcher, watch); /* the daemon knows that the key is deleted */
    uint64_t delivered_ms = now_ms();
    proxy_deliver(two.proxy);
    assert_ok(client_wait(two.client, waiter));
    ck_assert_uint_lt(now_ms() - delivered_ms, 20000);
    client_close(watcher);
}
END_TEST

/* Fairness within a daemon, although its connection and the server fail meanwhile. */
START_TEST(waiters_of_one_daemon_are_served_in_their_order_after_faults)
{
    enum { WAITERS = 12 };
    struct client *clients[WAITERS];
    uint32_t sent[WAITERS];
    uint64_t token = number_at(&client_call(one.client, "lock.acquire", "['b', 'lock']")->result, "token"), before = 0;

    for (unsigned i = 0; i < WAITERS; i++) {
        clients[i] = client_open(&one.daemon);
        sent[i] = client_send(clients[i], "lock.acquire", "['b', 'lock', {'wait': 600}]");
        wait_for_stat(one.client, "locks.waiting", i + 1);
    }
    for (unsigned i = 0; i < WAITERS; i++) {
        struct client *holder = i == 0 ? one.client : clients[i - 1];
        if (i == 2 || i == 7)
            proxy_cut(one.proxy);
        if (i == 4) {
            nats_server_kill(&one.servers[0]);
            nats_server_run(&one.servers[0]);
        }
        if (i % 3 > 0)
            assert_ok(client_call(holder, "lock.release", "['b', 'lock', %llu]", (unsigned long long)token));
        else if (i > 0)
            client_close(holder);
        else
            assert_ok(client_call(one.client, "kv.delete", "['b', 'lock']"));
        before = token;
        const struct answer *answer = client_wait(clients[i], sent[i]);
        assert_ok(answer);
        token = number_at(&answer->result, "token");
        ck_assert_uint_gt(token, before);
        for (unsigned j = i + 1; j < WAITERS; j++)
            ck_assert(!client_has(clients[j], sent[j]));
    }
    for (unsigned i = 0; i < WAITERS; i++)
        client_close(clients[i]);
}
END_TEST

/* --- Ephemeral keys -------------------------------------------------------------------------------- */

/* The first session's write is in doubt, and its key would be deleted. By then it is another session's. */
START_TEST(an_ephemeral_key_stays_although_an_earlier_write_of_it_was_in_doubt)
{
    struct client *other = client_open(&one.daemon);

    assert_ok(client_call(other, "kv.put", "['b', 'first', 'x', {'ephemeral': true}]"));
    nats_server_freeze(&one.servers[0]);
    assert_code(client_call(one.client, "kv.put", "['b', 'here', 'A', {'ephemeral': true, 'timeout': 0.3}]"),
                "deadline_exceeded");
    uint32_t put = client_send(other, "kv.put", "['b', 'here', 'B', {'ephemeral': true}]");
    nats_server_thaw(&one.servers[0]);
    assert_ok(client_wait(other, put));
    uint64_t renewals = deployment_stat(&one, "locks.renewals");
    wait_until(deployment_stat(&one, "locks.renewals") > renewals + 2, "the daemon to find out");
    ck_assert_str_eq(text_at(&client_call(other, "kv.get", "['b', 'here']")->result, "value"), "B");
    client_close(other);
    wait_until(client_call(one.client, "kv.get", "['b', 'here']")->result.type == MSGPACK_OBJECT_NIL,
               "the key to be deleted with its session");
}
END_TEST

START_TEST(an_ephemeral_key_stays_although_its_next_write_was_lost)
{
    struct client *other = client_open(&one.daemon);

    assert_ok(client_call(other, "kv.put", "['b', 'here', 'A', {'ephemeral': true}]"));
    proxy_arm(one.proxy, (struct proxy_fault){.kind = PROXY_DROP_PUBLISH, .subject = "$KV.b.here", .count = 1});
    const struct answer *answer = client_call(other, "kv.put", "['b', 'here', 'B', {'ephemeral': true, 'timeout': 1}]");
    assert_code(answer, "deadline_exceeded");
    ck_assert_str_eq(text_at(&answer->error, "outcome"), "unknown");
    uint64_t renewals = deployment_stat(&one, "locks.renewals");
    wait_until(deployment_stat(&one, "locks.renewals") > renewals + 2, "the daemon to find out");
    answer = client_call(one.client, "kv.get", "['b', 'here']");
    assert_ok(answer);
    ck_assert_msg(answer->result.type == MSGPACK_OBJECT_MAP, "the key was deleted");
    ck_assert_str_eq(text_at(&answer->result, "value"), "A");
    client_close(other);
    wait_until(client_call(one.client, "kv.get", "['b', 'here']")->result.type == MSGPACK_OBJECT_NIL,
               "the key to be deleted with its session");
}
END_TEST

START_TEST(an_ephemeral_key_belongs_to_its_last_write_although_that_is_acknowledged_first)
{
    struct client *first = client_open(&one.daemon), *second = client_open(&one.daemon);

    assert_ok(client_call(one.client, "kv.put", "['b', 'other', 'x', {'ephemeral': true}]"));
    proxy_arm(one.proxy, (struct proxy_fault){.kind = PROXY_DELAY_ACK, .subject = "$KV.b.here", .count = 1});
    uint32_t put = client_send(first, "kv.put", "['b', 'here', 'A', {'ephemeral': true}]");
    wait_until(proxy_strikes(one.proxy) == 1, "the acknowledgement of the first write");
    uint64_t revision = revision_of(client_call(second, "kv.put", "['b', 'here', 'B', {'ephemeral': true}]"));
    proxy_deliver(one.proxy);
    ck_assert_uint_lt(revision_of(client_wait(first, put)), revision);
    client_close(first);
    uint64_t renewals = deployment_stat(&one, "locks.renewals");
    wait_until(deployment_stat(&one, "locks.renewals") > renewals, "some time after the end of the first session");
    ck_assert_str_eq(text_at(&client_call(one.client, "kv.get", "['b', 'here']")->result, "value"), "B");
    client_close(second);
    wait_until(client_call(one.client, "kv.get", "['b', 'here']")->result.type == MSGPACK_OBJECT_NIL,
               "the key to be deleted with its session");
}
END_TEST

/* --- Doubts -------------------------------------------------------------------------------------- */

static uint64_t last_sequence_of(const char *subject)
{
    json_t *answer = nats_api(one.nats, "STREAM.MSG.GET", "KV_b", "{'last_by_subj': '%s'}", subject);

    return (uint64_t)json_integer_value(json_object_get(json_object_get(answer, "message"), "seq"));
}

/* Each change of the bucket by this daemon makes it look at its lease. */
START_TEST(a_lease_is_renewed_however_often_its_bucket_is_in_doubt)
{
    hold(one.client);
    const char *subject = lease_subject();
    uint64_t first = last_sequence_of(subject);

    for (unsigned i = 0; last_sequence_of(subject) == first; i++)
        assert_ok(client_call(one.client, "bucket.update", "['b', {'description': '%u'}]", i));
    check(one.client);
}
END_TEST

/* --- Buckets that forget --------------------------------------------------------------------------- */

START_TEST(a_bucket_whose_values_expire_has_no_locks)
{
    deployment_make_bucket(&one, "short", "'ttl': 1");
    assert_code_says(client_call(one.client, "lock.acquire", "['short', 'lock']"), "unsupported", "expire");
    assert_code_says(client_call(one.client, "kv.put", "['short', 'here', 'x', {'ephemeral': true}]"), "unsupported",
                     "expire");
}
END_TEST

Suite *lease_suite(void)
{
    Suite *suite = suite_create("leases");
    TCase *leases = tcase_create("leases"), *without_copies = tcase_create("a daemon that follows nothing");

    tcase_add_checked_fixture(leases, begin, end);
    tcase_add_test(leases, a_lease_that_is_gone_is_vouched_for_until_its_ttl_is_over);
    tcase_add_test(leases, a_lease_that_the_server_has_expired_is_vouched_for_until_its_ttl_is_over);
    tcase_add_test(leases, a_lost_lock_is_nobody_elses_before_its_time_is_over);
    tcase_add_test(leases, the_clocks_of_two_daemons_need_not_agree);
    tcase_add_test(leases, the_keys_of_a_host_that_died_long_ago_are_deleted_by_the_next_daemon_with_a_lease);
    tcase_add_test(leases, the_keys_of_a_dead_daemon_are_deleted_although_a_connection_is_lost_meanwhile);
    tcase_add_test(leases, a_release_beside_a_look_at_the_lock_is_not_missed);
    tcase_add_test(leases, waiters_of_one_daemon_are_served_in_their_order_after_faults);
    tcase_add_test(leases, an_ephemeral_key_stays_although_an_earlier_write_of_it_was_in_doubt);
    tcase_add_test(leases, an_ephemeral_key_stays_although_its_next_write_was_lost);
    tcase_add_test(leases, an_ephemeral_key_belongs_to_its_last_write_although_that_is_acknowledged_first);
    tcase_add_test(leases, a_lease_is_renewed_however_often_its_bucket_is_in_doubt);
    tcase_add_test(leases, a_bucket_whose_values_expire_has_no_locks);
    suite_add_tcase(suite, leases);
    tcase_add_checked_fixture(without_copies, begin_without_copies, end);
    tcase_add_test(without_copies, a_waiter_gets_the_lock_although_its_daemon_does_not_follow_the_bucket);
    tcase_add_test(without_copies, a_holder_learns_of_the_loss_although_its_daemon_does_not_follow_the_bucket);
    suite_add_tcase(suite, without_copies);
    return suite;
}
