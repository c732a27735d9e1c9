/*
 * A full store and a full disk: what needs room is refused at once, the rest continues, and the daemon recovers by
 * itself.
 */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/client.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define VALUE_BYTES 100000u

static struct daemon daemon_of_test;
static struct client *client;
static char value[VALUE_BYTES];

/* --- A small disk ---------------------------------------------------------------------------------- */

static bool write_once(const char *path, const char *text)
{
    int descriptor = open(path, O_WRONLY | O_CLOEXEC);
    bool is_written = descriptor >= 0 && write(descriptor, text, strlen(text)) == (ssize_t)strlen(text);

    if (descriptor >= 0)
        close(descriptor);
    return is_written;
}

/* Make mounts for this process and its children only; without root, as root of a user namespace. */
static bool leave_namespaces(void)
{
    unsigned uid = getuid(), gid = getgid();

    if (unshare(CLONE_NEWNS) == 0)
        return true;
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0 && write_once("/proc/self/setgroups", "deny") &&
           write_once("/proc/self/uid_map", format_text("%u %u 1", uid, uid)) &&
           write_once("/proc/self/gid_map", format_text("%u %u 1", gid, gid));
}

/*
 * Put the daemon's data directory on a disk of this size, which ends with the test's process. Return false if that is
 * impossible.
 */
static bool mount_small_disk(const char *size)
{
    daemon_prepare(&daemon_of_test);
    ck_assert_int_eq(mkdir(daemon_of_test.data_dir, 0700), 0);
    if (leave_namespaces() && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        mount("kvstored-test", daemon_of_test.data_dir, "tmpfs", 0, format_text("size=%s,mode=0700", size)) == 0)
        return true;
    printf("SKIPPED: a full disk: a small one cannot be mounted here: %s\n", strerror(errno));
    return false;
}

/* Use all of the disk; unlink releases it. */
static void fill_disk(const char *path)
{
    static char zeros[65536];
    int descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    size_t size = sizeof(zeros);

    ck_assert_int_ge(descriptor, 0);
    while (size > 0) {
        if (write(descriptor, zeros, size) < 0)
            size /= 2;
    }
    close(descriptor);
}

/* --- Calls ----------------------------------------------------------------------------------------- */

static void start_with(const char *nats, const char *sections)
{
    daemon_configure(&daemon_of_test, nats, sections);
    daemon_spawn(&daemon_of_test, NULL, -1);
    daemon_wait_ready(&daemon_of_test);
    client = client_open(&daemon_of_test);
    memset(value, 'x', sizeof(value));
    assert_ok(client_call(client, "bucket.create", "['b']"));
}

static void start(const char *nats)
{
    start_with(nats, NULL);
}

static struct answer *put(unsigned number)
{
    return client_put(client, "b", format_text("k%u", number), value, sizeof(value));
}

/* Put until a put is refused. Return the number of the others. */
static unsigned put_until_refused(const char *says)
{
    struct answer *answer = NULL;
    unsigned count = 0;

    for (; count < 2000; count++) {
        answer = put(count);
        if (strcmp(answer_code(answer), "ok") != 0)
            break;
    }
    assert_code_says(answer, "resource_exhausted", says);
    ck_assert_str_eq(text_at(&answer->error, "outcome"), "none");
    ck_assert_uint_gt(count, 10);
    return count;
}

static struct answer *health(void)
{
    struct answer *answer = client_call(client, "health.check", "[]");

    assert_ok(answer);
    return answer;
}

static bool is_healthy(void)
{
    return bool_at(&health()->result, "healthy");
}

static void wait_until_healthy(bool healthy)
{
    uint64_t end_ms = now_ms() + PATIENCE_MS;

    while (is_healthy() != healthy) {
        ck_assert_msg(now_ms() < end_ms, "it stays %s", healthy ? "ill" : "well");
        pause_shortly();
    }
}

static void wait_until_put_again(unsigned number)
{
    uint64_t end_ms = now_ms() + PATIENCE_MS;
    struct answer *answer;

    while (strcmp(answer_code(answer = put(number)), "ok") != 0) {
        ck_assert_msg(now_ms() < end_ms, "it stays refused: %s", answer_text(answer));
        pause_shortly();
    }
}

static void expect_value(unsigned number)
{
    struct answer *answer = client_call(client, "kv.get", "['b', 'k%u', {'consistency': 'leader'}]", number);

    assert_ok(answer);
    ck_assert_uint_eq(find_at(&answer->result, "value")->via.bin.size, sizeof(value));
}

/* --- The tests ------------------------------------------------------------------------------------- */

START_TEST(a_full_store_refuses_values_and_accepts_deletes)
{
    daemon_prepare(&daemon_of_test);
    start(DAEMON_SYNCS_SELDOM "  max_store: 4M\n");
    uint64_t sent_us = now_ms() * 1000;
    uint64_t revision = revision_of(client_call(client, "kv.put", "['b', 'once', 'x', {'id': 'write-0001'}]"));
    assert_ok(client_call(client, "txn.commit", "['b', [], [['put', 'twice', 'x']], {'id': 'txn-000001'}]"));
    unsigned count = put_until_refused("nats.max_store");
    struct answer *answer = health();
    ck_assert(!bool_at(&answer->result, "healthy"));
    ck_assert_ptr_nonnull(strstr(text_at(&answer->result, "error"), "nats.max_store"));
    ck_assert_uint_eq(number_at(&answer->result, "store.limit"), 4u * 1024 * 1024);
    ck_assert_uint_gt(number_at(&answer->result, "store.used"), 3u * 1024 * 1024);
    ck_assert_uint_gt(number_at(&answer->result, "store.disk_free"), 0);

    /* A transaction is refused as a whole, and so is each key of a bulk call. */
    answer = client_call(client, "txn.commit", "['b', [], [['put', 'small', 'x'], ['put', 'large', '%0*d']]]",
                         (int)VALUE_BYTES * 3, 0);
    assert_code_says(answer, "resource_exhausted", "nats.max_store");
    answer = client_call(client, "kv.get", "['b', 'small']");
    assert_ok(answer);
    ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);

    /* What is stored needs no more room: a repeated call gets its answer. */
    answer =
        client_call(client, "kv.put", "['b', 'once', 'x', {'id': 'write-0001', 'first_sent': %" PRIu64 "}]", sent_us);
    ck_assert_uint_eq(revision_of(answer), revision);
    answer =
        client_call(client, "txn.commit",
                    "['b', [], [['put', 'twice', 'x']], {'id': 'txn-000001', 'first_sent': %" PRIu64 "}]", sent_us);
    assert_ok(answer);

    for (unsigned i = 0; i < count / 2; i++)
        assert_ok(client_call(client, i % 2 == 0 ? "kv.delete" : "kv.purge", "['b', 'k%u']", i));
    wait_until_put_again(0);
    expect_value(count - 1);
    wait_until_healthy(true);

    put_until_refused("nats.max_store");
    assert_ok(client_call(client, "bucket.purge", "['b']"));
    wait_until_put_again(1);
    wait_until_healthy(true);
    daemon_stop(&daemon_of_test);
}
END_TEST

static struct answer *commit_in_doubt(uint64_t sent_us)
{
    return client_call(client, "txn.commit",
                       "['b', [], [['put', 'first', 'x'], ['put', 'last', '%0*d']], {'id': 'txn-000001', "
                       "'first_sent': %" PRIu64 "}]",
                       (int)VALUE_BYTES * 3, 0, sent_us);
}

/* The earlier call was admitted by a daemon that was killed, and nobody has seen its answer. */
START_TEST(a_transaction_in_doubt_is_sent_again_only_if_there_is_room)
{
    daemon_prepare(&daemon_of_test);
    start(DAEMON_SYNCS_SELDOM "  max_store: 4M\n");
    struct client *other = client_open(&daemon_of_test);
    uint64_t sent_us = now_ms() * 1000;

    assert_ok(client_call(client, "txn.commit", "['b', [], [['put', 'first', 'old'], ['put', 'last', 'old']]]"));
    pid_t nats = daemon_nats_pid(&daemon_of_test);
    pid_suspend(nats);
    client_send(other, "txn.commit",
                "['b', [], [['put', 'first', 'x'], ['put', 'last', '%0*d']], {'id': 'txn-000001', 'timeout': 30}]",
                (int)VALUE_BYTES * 3, 0);
    wait_until(strstr(object_text(&client_call(client, "daemon.dump", "[]")->result), "\"kind\"=>\"batch\"") != NULL,
               "the batch");
    process_kill(&daemon_of_test.process);
    kill(nats, SIGKILL);
    daemon_restart(&daemon_of_test);
    client = client_open(&daemon_of_test);

    unsigned count = put_until_refused("nats.max_store");
    struct answer *answer = commit_in_doubt(sent_us);
    assert_code_says(answer, "resource_exhausted", "nats.max_store");
    ck_assert_str_eq(text_at(&answer->error, "outcome"), "unknown");
    for (unsigned i = 0; i < count; i++)
        assert_ok(client_call(client, "kv.purge", "['b', 'k%u']", i));
    wait_until_put_again(0);
    wait_until(strcmp(answer_code(commit_in_doubt(sent_us)), "ok") == 0, "room");
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Put values, smaller and smaller ones, until not even one of a byte is accepted. */
static void fill_to_the_last_byte(void)
{
    static unsigned keys;

    for (size_t size = sizeof(value); size > 0; size /= 10) {
        while (strcmp(answer_code(client_put(client, "b", format_text("v%u", keys++), value, size)), "ok") == 0)
            client_forget(client);
    }
}

/* The renewals of the lease may use the reserve. Otherwise who fills the store takes all locks of all users. */
START_TEST(a_full_store_keeps_locks_and_ephemeral_keys)
{
    daemon_prepare(&daemon_of_test);
    start_with(DAEMON_SYNCS_SELDOM "  max_store: 4M\n", "locks:\n  lease_ttl: 1\n");
    struct client *holder = client_open(&daemon_of_test);
    struct answer *answer = client_call(holder, "lock.acquire", "['b', 'job']");
    assert_ok(answer);
    uint64_t token = number_at(&answer->result, "token");
    assert_ok(client_call(holder, "kv.put", "['b', 'here', 'x', {'ephemeral': true}]"));
    fill_to_the_last_byte();
    uint64_t renewals = stat_of(client, "locks.renewals"), end_ms = now_ms() + PATIENCE_MS;
    while (stat_of(client, "locks.renewals") < renewals + 4) {
        assert_ok(client_call(holder, "lock.check", "['b', 'job', %" PRIu64 "]", token));
        fill_to_the_last_byte();
        ck_assert_msg(now_ms() < end_ms, "the lease is not renewed");
        client_forget(client);
        pause_shortly();
    }
    assert_ok(client_call(holder, "lock.release", "['b', 'job', %" PRIu64 "]", token));
    client_expect_nothing(holder);
    client_close(holder);
    daemon_stop(&daemon_of_test);
}
END_TEST

static uint64_t stored_bytes(struct nats *nats)
{
    json_t *account = nats_request_json(nats, "$JS.API.INFO", NULL, "");

    return (uint64_t)json_integer_value(json_object_get(account, "storage"));
}

static uint64_t used_bytes(void)
{
    struct answer *answer = health();

    return find_at(&answer->result, "store") != NULL ? number_at(&answer->result, "store.used") : 0;
}

/* However a write ends, it must not be added forever to what the server reports. */
START_TEST(after_all_writes_the_usage_is_what_the_server_stores)
{
    enum { MANY = 1100 }; /* more than the daemon has in flight in a bucket */

    daemon_prepare(&daemon_of_test);
    start(NULL);
    struct nats *nats = nats_connect_embedded(daemon_of_test.data_dir);
    for (unsigned i = 0; i < 10; i++)
        assert_ok(put(i));
    assert_code(client_call(client, "kv.create", "['b', 'k0', 'x']"), "already_exists");
    assert_code(client_call(client, "kv.update", "['b', 'k0', 'x', 99]"), "conflict");
    assert_ok(client_call(client, "kv.delete", "['b', 'k1']"));
    assert_ok(client_call(client, "bulk.put", "['b', {'m0': 'x', 'm1': 'x'}]"));
    assert_ok(client_call(client, "txn.commit", "['b', [], [['put', 't0', 'x'], ['put', 't1', 'x']]]"));
    assert_code(client_call(client, "txn.commit", "['b', [['t0', 99]], [['put', 't0', 'x'], ['put', 't1', 'x']]]"),
                "conflict");
    assert_code(client_call(client, "txn.commit", "['b', [], [['put', 't0', 'x'], ['purge', 't0']]]"),
                "invalid_argument");
    /* Writes that were sent by then continue, and the others are dropped. */
    struct client *gone = client_open(&daemon_of_test);
    pid_suspend(daemon_nats_pid(&daemon_of_test));
    client_send(gone, "daemon.info", "[]"); /* with an unread answer the close is no half-close */
    for (unsigned i = 0; i < MANY; i++)
        client_send(gone, "kv.put", "['b', 'gone', '%u']", i);
    wait_for_stat(client, "calls_in_flight", MANY + 1);
    client_close(gone);
    wait_until(stat_of(client, "calls_in_flight") < MANY, "dropped calls");
    pid_resume(daemon_nats_pid(&daemon_of_test));
    wait_until(used_bytes() == stored_bytes(nats), "what counts to be what is stored");
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(the_reserve_of_the_disk_is_for_deletes)
{
    if (!mount_small_disk("48m"))
        return;
    start(DAEMON_SYNCS_ALWAYS);
    unsigned count = put_until_refused("disk");
    wait_until_healthy(false);
    ck_assert_ptr_nonnull(strstr(text_at(&health()->result, "error"), "disk"));
    for (unsigned i = 0; i + 1 < count; i++)
        assert_ok(client_call(client, "kv.delete", "['b', 'k%u']", i));
    wait_until_put_again(0);
    expect_value(count - 1);
    wait_until_healthy(true);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Fill the disk except for so much above the reserve for deletes. */
static void leave_over_reserve(uint64_t bytes)
{
    const char *path = format_text("%s/others", daemon_of_test.data_dir);
    struct statvfs disk;
    int descriptor = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    ck_assert_int_ge(descriptor, 0);
    wait_until(find_at(&health()->result, "store") != NULL, "the daemon to know the disk");
    uint64_t reserve = number_at(&health()->result, "store.disk_reserve");
    ck_assert_uint_gt(reserve, 0);
    ck_assert_int_eq(statvfs(daemon_of_test.data_dir, &disk), 0);
    uint64_t available = (uint64_t)disk.f_bavail * disk.f_bsize;
    ck_assert_uint_gt(available, reserve + bytes);
    ck_assert_int_eq(posix_fallocate(descriptor, 0, (off_t)(available - reserve - bytes)), 0);
    close(descriptor);
    wait_until(number_at(&health()->result, "store.disk_free") < reserve + 2 * bytes, "the daemon to see it");
}

START_TEST(a_value_that_would_use_the_reserve_of_the_disk_is_refused)
{
    static char large[8 * VALUE_BYTES];

    if (!mount_small_disk("48m"))
        return;
    start(DAEMON_SYNCS_ALWAYS);
    memset(large, 'x', sizeof(large));
    wait_until_put_again(0);
    leave_over_reserve(sizeof(large) / 2);
    struct answer *answer = client_put(client, "b", "large", large, sizeof(large));
    assert_code_says(answer, "resource_exhausted", "disk");
    ck_assert_str_eq(text_at(&answer->error, "outcome"), "none");
    assert_ok(put(1));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Others fill the disk completely, and nats-server meets that: it writes no more until it is restarted. */
START_TEST(a_server_with_a_full_disk_writes_again_after_space_is_freed)
{
    if (!mount_small_disk("64m"))
        return;
    start(DAEMON_SYNCS_ALWAYS);
    const char *path = format_text("%s/others", daemon_of_test.data_dir);
    for (unsigned i = 0; i < 50; i++)
        assert_ok(put(i));
    pid_t before = daemon_nats_pid(&daemon_of_test);
    fill_disk(path);

    /* Deletes are passed on until the server says that it cannot store one. */
    unsigned refused = 0;
    uint64_t end_ms = now_ms() + PATIENCE_MS;
    for (unsigned i = 0; refused == 0; i++) {
        ck_assert_msg(now_ms() < end_ms, "no delete was refused");
        struct answer *answer = client_call(client, "kv.delete", "['b', 'more.%u', {'timeout': 1}]", i);
        refused += strcmp(answer_code(answer), "resource_exhausted") == 0;
    }
    wait_until_healthy(false);
    uint64_t start_ms = now_ms();
    struct answer *answer = put(0);
    assert_code_says(answer, "resource_exhausted", "disk");
    ck_assert_str_eq(text_at(&answer->error, "outcome"), "none");
    assert_at_once(start_ms);
    expect_value(0);

    ck_assert_int_eq(unlink(path), 0);
    wait_until_put_again(100);
    wait_until_healthy(true);
    ck_assert_int_ne(daemon_nats_pid(&daemon_of_test), before);
    for (unsigned i = 0; i < 50; i++)
        expect_value(i);
    daemon_stop(&daemon_of_test);
}
END_TEST

#define STARTED_ANEW "it could not write, and there is room now"

/* Start a daemon whose server prints this at its first start, and then runs the commands. */
static void start_with_server_that_says(const char *line, const char *commands)
{
    daemon_prepare(&daemon_of_test);
    const char *program = format_text("%s/nats-server", daemon_of_test.directory);
    const char *mark = format_text("%s/has-run", daemon_of_test.directory);
    write_program(program, format_text("#!/bin/sh\n"
                                       "[ \"$1\" = --version ] && exec %s --version\n"
                                       "[ -e %s ] || { echo $$ >%s; echo '[1] [ERR] %s' >&2; %s; }\n"
                                       "exec %s \"$@\"\n",
                                       test_run_nats_server(), mark, mark, line, commands, test_run_nats_server()));
    daemon_configure(&daemon_of_test,
                     format_text("  data_dir: %s\n  server_binary: %s\n", daemon_of_test.data_dir, program), NULL);
    daemon_spawn(&daemon_of_test, NULL, -1);
    daemon_wait_log(&daemon_of_test, line);
}

static void expect_well(void)
{
    client = client_open(&daemon_of_test);
    wait_until_healthy(true);
    assert_ok(client_call(client, "bucket.create", "['b']"));
    assert_ok(put(0));
}

/* The server need not listen for that: one that cannot write the file of its ports never does. */
START_TEST(a_server_that_cannot_write_from_its_start_is_restarted)
{
    start_with_server_that_says("critical write error", "sleep 0.5");
    daemon_wait_log(&daemon_of_test, STARTED_ANEW);
    daemon_wait_log(&daemon_of_test, "listens on 127.0.0.1");
    expect_well();
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_server_that_could_not_write_and_has_ended_is_restarted_once)
{
    start_with_server_that_says("critical write error", "exit 1");
    daemon_wait_log(&daemon_of_test, "listens on 127.0.0.1");
    expect_well();
    /* The daemon may restart before the first one has ended. */
    const char *ended = strstr(read_file(daemon_of_test.process.log_path), "restarting pid ");
    int first = atoi(read_file(format_text("%s/has-run", daemon_of_test.directory)));
    ck_assert(ended == NULL || atoi(ended + strlen("restarting pid ")) == first);
    ck_assert(ended == NULL || strstr(ended + 1, "restarting pid ") == NULL);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* A stream that is being deleted no longer has files. Writes to all other buckets continue. */
START_TEST(a_missing_file_of_the_server_is_not_reported_as_a_full_disk)
{
    start_with_server_that_says("critical write error: open 1.blk: no such file or directory", ":");
    daemon_wait_log(&daemon_of_test, "listens on 127.0.0.1");
    expect_well();
    ck_assert_ptr_null(strstr(read_file(daemon_of_test.process.log_path), STARTED_ANEW));
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *room_suite(void)
{
    Suite *suite = suite_create("room");
    TCase *tests = tcase_create("embedded");

    tcase_add_test(tests, a_full_store_refuses_values_and_accepts_deletes);
    tcase_add_test(tests, a_transaction_in_doubt_is_sent_again_only_if_there_is_room);
    tcase_add_test(tests, a_full_store_keeps_locks_and_ephemeral_keys);
    tcase_add_test(tests, after_all_writes_the_usage_is_what_the_server_stores);
    tcase_add_test(tests, the_reserve_of_the_disk_is_for_deletes);
    tcase_add_test(tests, a_value_that_would_use_the_reserve_of_the_disk_is_refused);
    tcase_add_test(tests, a_server_that_cannot_write_from_its_start_is_restarted);
    tcase_add_test(tests, a_server_that_could_not_write_and_has_ended_is_restarted_once);
    tcase_add_test(tests, a_missing_file_of_the_server_is_not_reported_as_a_full_disk);
    tcase_add_test(tests, a_server_with_a_full_disk_writes_again_after_space_is_freed);
    suite_add_tcase(suite, tests);
    return suite;
}
