/* Access rules: what each user may do. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/client.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"

#include <grp.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define NOBODY 65534u

static const char *rules_for(unsigned user)
{
    return format_text("access:\n"
                       "  - {users: [%u], buckets: [\"read-*\"], allow: read}\n"
                       "  - {users: [%u], buckets: [\"write-*\"], allow: write}\n"
                       "  - {users: [%u], buckets: [\"admin-*\", other], allow: admin}\n"
                       "  - {users: [4242424], buckets: [\"*\"], allow: admin}\n",
                       user, user, user);
}

static void setup(void)
{
    daemon_start(&shared_daemon, NULL, rules_for((unsigned)getuid()));
}

/* Calls that are allowed, and not allowed, at each level. %s: the bucket. */
static const struct {
    const char *method, *params;
    unsigned level; /* 1: read, 2: write, 3: admin */
} calls[] = {
    {"kv.get", "['%s', 'k']", 1},
    {"kv.get_json", "['%s', 'j']", 1},
    {"kv.history", "['%s', 'k']", 1},
    {"kv.keys", "['%s']", 1},
    {"kv.entries", "['%s']", 1},
    {"bucket.info", "['%s']", 1},
    {"health.check", "['%s']", 1},
    {"kv.put", "['%s', 'k', 'v']", 2},
    {"kv.create", "['%s', 'new', 'v']", 2},
    {"kv.update", "['%s', 'up', 'v', 0]", 2},
    {"kv.delete", "['%s', 'new']", 2},
    {"kv.purge", "['%s', 'up']", 2},
    {"bulk.delete", "['%s', {'filter': 'none.>'}]", 2},
    {"bucket.update", "['%s', {'description': 'x'}]", 3},
    {"bucket.create", "['%s', {'update': true}]", 3},
    {"bucket.purge", "['%s', {'filter': 'none.>'}]", 3},
    {"bucket.purge", "['%s']", 3},
    {"bucket.delete", "['%s']", 3},
};

static void try_all(struct client *client, const char *bucket, unsigned level)
{
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        const char *at = strstr(calls[i].params, "%s");
        struct answer *answer = client_call(client, calls[i].method, "%.*s%s%s", (int)(at - calls[i].params),
                                            calls[i].params, bucket, at + 2);
        if (calls[i].level <= level) {
            ck_assert_msg(answer->error.type == MSGPACK_OBJECT_NIL, "%s of %s: %s", calls[i].method, bucket,
                          answer_text(answer));
            continue;
        }
        ck_assert_msg(strcmp(answer_code(answer), "permission_denied") == 0, "%s of %s: %s", calls[i].method, bucket,
                      answer_text(answer));
        ck_assert(!bool_at(&answer->error, "retryable"));
    }
}

START_TEST(the_first_matching_rule_decides)
{
    struct client *client = client_open_shared();
    struct nats *nats = nats_connect_embedded(shared_daemon.data_dir);
    const char *buckets[] = {"none-1", "read-1", "write-1", "admin-1"};

    for (unsigned level = 0; level < 4; level++) {
        nats_api(nats, "STREAM.CREATE", format_text("KV_%s", buckets[level]),
                 "{'name': 'KV_%s', 'description': 'x', 'subjects': ['$KV.%s.>'], 'max_msgs_per_subject': 1, "
                 "'allow_rollup_hdrs': true, 'allow_direct': true}",
                 buckets[level], buckets[level]);
        nats_request_json(nats, format_text("$KV.%s.k", buckets[level]), NULL, "value");
        nats_request_json(nats, format_text("$KV.%s.j", buckets[level]), NULL, "{}");
        try_all(client, buckets[level], level);
    }
    assert_ok(client_call(client, "bucket.create", "['admin-1']"));
    assert_ok(client_call(client, "bucket.create", "['other']"));
    /* The log names the user. */
    daemon_wait_log(&shared_daemon, format_text("uid %u: kv.get refused for bucket none-1", (unsigned)getuid()));
}
END_TEST

START_TEST(a_list_has_only_readable_buckets)
{
    struct client *client = client_open_shared();
    struct nats *nats = nats_connect_embedded(shared_daemon.data_dir);

    nats_api(nats, "STREAM.CREATE", "KV_hidden", "{'name': 'KV_hidden', 'subjects': ['$KV.hidden.>']}");
    nats_api(nats, "STREAM.CREATE", "KV_read-2", "{'name': 'KV_read-2', 'subjects': ['$KV.read-2.>']}");
    struct answer *answer = client_call(client, "bucket.list", "[]");
    bool has_readable = false;
    assert_ok(answer);
    for (size_t i = 0; i < count_at(&answer->result, ""); i++) {
        const char *name = text_at(&answer->result, format_text("%zu", i));
        ck_assert_str_ne(name, "hidden");
        has_readable = has_readable || strcmp(name, "read-2") == 0;
    }
    ck_assert(has_readable);
    answer = client_call(client, "bucket.list", "[{'infos': true}]");
    assert_ok(answer);
    ck_assert_uint_gt(count_at(&answer->result, ""), 0);
    for (size_t i = 0; i < count_at(&answer->result, ""); i++)
        ck_assert_str_ne(text_at(&answer->result, format_text("%zu.bucket", i)), "hidden");
    /* These methods are allowed to everybody. */
    assert_ok(client_call(client, "health.check", "[]"));
    assert_ok(client_call(client, "daemon.info", "[]"));
    assert_ok(client_call(client, "daemon.stats", "[]"));
}
END_TEST

START_TEST(access_is_checked_before_the_bucket_is_looked_up)
{
    struct client *client = client_open_shared();

    /* The call is denied before the bucket is looked up. */
    assert_code(client_call(client, "kv.get", "['nowhere', 'k']"), "permission_denied");
    assert_code(client_call(client, "kv.get", "['read-nowhere', 'k']"), "bucket_not_found");
    assert_code(client_call(client, "bucket.create", "['write-new']"), "permission_denied");
}
END_TEST

/* Writes to a mirror go to the bucket that it copies. */
START_TEST(a_mirror_gives_no_right_to_write)
{
    struct client *client = client_open_shared();
    struct nats *nats = nats_connect_embedded(shared_daemon.data_dir);

    nats_api(nats, "STREAM.CREATE", "KV_read-m",
             "{'name': 'KV_read-m', 'subjects': ['$KV.read-m.>'], "
             "'max_msgs_per_subject': 1, 'allow_direct': true}");
    nats_api(nats, "STREAM.CREATE", "KV_write-m",
             "{'name': 'KV_write-m', 'mirror': {'name': 'KV_read-m'}, "
             "'max_msgs_per_subject': 1, 'allow_direct': true}");
    assert_code_says(client_call(client, "bucket.create", "['admin-m', {'mirror': 'read-m'}]"), "permission_denied",
                     "may not write to the bucket");
    /* The first one, too: the daemon has not looked the bucket up yet. */
    assert_code_says(client_call(client, "kv.put", "['write-m', 'k', 'v']"), "permission_denied", "bucket read-m");
    assert_code(client_call(client, "bulk.put", "['write-m', {'k': 'v'}]"), "permission_denied");
    assert_code(client_call(client, "kv.put", "['write-nowhere', 'k', 'v']"), "bucket_not_found");
    const struct answer *answer = client_call(client, "kv.get", "['read-m', 'k']");
    assert_ok(answer);
    ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
}
END_TEST

/* --- Reload and other users ------------------------------------------------------------------------ */

static struct daemon daemon_of_test;

START_TEST(a_reload_changes_the_rules_for_existing_sessions)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);

    assert_ok(client_call(client, "bucket.create", "['write-1']"));
    assert_ok(client_call(client, "kv.put", "['write-1', 'k', 'v']"));
    daemon_configure(&daemon_of_test, NULL, "access:\n  - {buckets: [\"write-*\"], allow: read}\n");
    process_signal(&daemon_of_test.process, SIGHUP);
    daemon_wait_log(&daemon_of_test, "is in effect");
    assert_ok(client_call(client, "kv.get", "['write-1', 'k']"));
    assert_code(client_call(client, "kv.put", "['write-1', 'k', 'v']"), "permission_denied");
    /* An unknown user must not make a rule apply to everybody. */
    daemon_configure(&daemon_of_test, NULL, "access:\n  - {users: [no-such-user], buckets: [\"*\"], allow: read}\n");
    process_signal(&daemon_of_test.process, SIGHUP);
    daemon_wait_log(&daemon_of_test, "unknown user \"no-such-user\"; nothing was changed");
    assert_ok(client_call(client, "kv.get", "['write-1', 'k']"));
    daemon_configure(&daemon_of_test, NULL, NULL);
    process_signal(&daemon_of_test.process, SIGHUP);
    daemon_wait_log(&daemon_of_test, "is in effect");
    assert_ok(client_call(client, "kv.put", "['write-1', 'k', 'v']"));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Each key is matched against patterns that take long. A slow turn would be in the log. */
START_TEST(a_reload_checks_thousands_of_keys_without_a_slow_turn)
{
    enum { KEYS = 8000, RULES = 60 };
    static uint32_t sent[KEYS];
    char rules[RULES * 128] = "access:\n";

    daemon_start(&daemon_of_test, NULL, "calls:\n  timeout: 60\n");
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *bucket = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    assert_ok(client_call(client, "bucket.create", "['%s']", bucket));
    for (unsigned i = 0; i < KEYS; i++)
        sent[i] = client_send(client, "kv.put", "['%s', 'k%u', '', {'ephemeral': true}]", bucket, i);
    for (unsigned i = 0; i < KEYS; i++)
        assert_ok(client_wait(client, sent[i]));
    for (unsigned i = 0; i < RULES; i++)
        strcat(rules, "  - {buckets: [\"*aaaaaaaaaaaaaaaaaaaaaaaaaaaaab*\"], allow: read}\n");
    strcat(rules, "  - {buckets: [\"*\"], allow: ");
    daemon_configure(&daemon_of_test, NULL, format_text("%swrite}\n", rules));
    process_signal(&daemon_of_test.process, SIGHUP);
    daemon_wait_log(&daemon_of_test, "is in effect");
    daemon_configure(&daemon_of_test, NULL, format_text("%sread}\n", rules));
    process_signal(&daemon_of_test.process, SIGHUP);
    daemon_wait_log(&daemon_of_test, "is in effect");
    wait_for_stat(other, "locks.held", 0);
    client_close(client); /* it has not read what it has lost */
    daemon_stop(&daemon_of_test);
}
END_TEST

/* The calls began before the reload. Their answers must obey the new rules. */
START_TEST(a_reload_changes_the_rules_for_calls_that_wait)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test), *holder = client_open(&daemon_of_test);

    assert_ok(client_call(client, "bucket.create", "['b']"));
    assert_ok(client_call(client, "kv.put", "['b', 'k', 'v']"));
    const struct answer *held = client_call(holder, "lock.acquire", "['b', 'lock']");
    assert_ok(held);
    uint32_t get = client_send(client, "kv.get", "['b', 'k', {'wait_above': 1000, 'timeout': 3}]");
    uint32_t lock = client_send(client, "lock.acquire", "['b', 'lock', {'wait': 1000}]");
    wait_for_stat(client, "locks.waiting", 1);
    daemon_configure(&daemon_of_test, NULL, "access:\n  - {buckets: [\"b\"], allow: none}\n");
    process_signal(&daemon_of_test.process, SIGHUP);
    daemon_wait_log(&daemon_of_test, "is in effect");
    assert_code(client_wait(client, get), "permission_denied");
    client_close(holder);
    assert_code(client_wait(client, lock), "permission_denied");
    wait_for_stat(client, "locks.held", 0);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(users_and_groups_are_distinguished)
{
    struct sockaddr_un address;
    socklen_t length;

    if (geteuid() != 0) {
        test_run_skip("users_and_groups_are_distinguished", "only root can become another user");
        return;
    }
    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL,
                     format_text("access:\n"
                                 "  - {users: [0], buckets: [\"*\"], allow: admin}\n"
                                 "  - {users: [%u], buckets: [mine], allow: write}\n"
                                 "  - {groups: [4001], buckets: [ours], allow: write}\n"
                                 "  - {groups: [4002], buckets: [ours], allow: read}\n"
                                 "  - {buckets: [open], allow: read}\n",
                                 NOBODY));
    int listener = daemon_listen_without_file(&address, &length);
    daemon_spawn(&daemon_of_test, NULL, listener);
    daemon_wait_ready(&daemon_of_test);
    struct client *root = client_open_address(&address, length);
    const char *buckets[] = {"mine", "ours", "open", "closed"};
    for (size_t i = 0; i < 4; i++)
        assert_ok(client_call(root, "bucket.create", "['%s']", buckets[i]));

    static const struct {
        unsigned user, group, other_group;
        const char *put[4], *get[4];
    } peers[] = {
        {0, 0, 0, {"ok", "ok", "ok", "ok"}, {"ok", "ok", "ok", "ok"}},
        {NOBODY,
         NOBODY,
         NOBODY,
         {"ok", "permission_denied", "permission_denied", "permission_denied"},
         {"ok", "permission_denied", "ok", "permission_denied"}},
        {4000,
         4001,
         4001,
         {"permission_denied", "ok", "permission_denied", "permission_denied"},
         {"permission_denied", "ok", "ok", "permission_denied"}},
        /* A supplementary group counts as well. */
        {4000,
         4000,
         4002,
         {"permission_denied", "permission_denied", "permission_denied", "permission_denied"},
         {"permission_denied", "ok", "ok", "permission_denied"}},
    };
    for (size_t i = 0; i < sizeof(peers) / sizeof(peers[0]); i++) {
        gid_t other = peers[i].other_group;
        ck_assert_int_eq(setgroups(1, &other), 0);
        ck_assert_int_eq(setegid(peers[i].group), 0);
        ck_assert_int_eq(seteuid(peers[i].user), 0);
        struct client *client = client_open_address(&address, length);
        ck_assert_int_eq(seteuid(0), 0);
        ck_assert_int_eq(setegid(0), 0);
        for (size_t k = 0; k < 4; k++) {
            assert_code(client_call(client, "kv.put", "['%s', 'k', 'v']", buckets[k]), peers[i].put[k]);
            assert_code(client_call(client, "kv.get", "['%s', 'k']", buckets[k]), peers[i].get[k]);
        }
    }
    daemon_stop(&daemon_of_test);
    close(listener);
}
END_TEST

/* The kernel reports 65,536. */
START_TEST(a_group_counts_however_many_groups_the_peer_has)
{
    enum { GROUPS = 65536, BASE = 100000 };
    struct sockaddr_un address;
    socklen_t length;
    gid_t *groups = keep(calloc(GROUPS, sizeof(*groups)));

    if (geteuid() != 0) {
        test_run_skip("a_group_counts_however_many_groups_the_peer_has", "only root can join groups");
        return;
    }
    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL,
                     format_text("access:\n"
                                 "  - {groups: [%u], buckets: [\"*\"], allow: none}\n"
                                 "  - {buckets: [\"*\"], allow: admin}\n",
                                 BASE + GROUPS - 1));
    int listener = daemon_listen_without_file(&address, &length);
    daemon_spawn(&daemon_of_test, NULL, listener);
    daemon_wait_ready(&daemon_of_test);
    for (unsigned i = 0; i < GROUPS; i++)
        groups[i] = BASE + i;
    static const size_t counts[] = {GROUPS, GROUPS - 1, 1};
    static const char *const codes[] = {"permission_denied", "bucket_not_found", "bucket_not_found"};
    for (size_t i = 0; i < 3; i++) {
        ck_assert_int_eq(setgroups(counts[i], groups), 0);
        struct client *client = client_open_address(&address, length);
        ck_assert_int_eq(setgroups(0, NULL), 0);
        assert_code(client_call(client, "kv.get", "['b', 'k']"), codes[i]);
    }
    daemon_stop(&daemon_of_test);
    close(listener);
}
END_TEST

Suite *access_suite(void)
{
    Suite *suite = suite_create("access");
    TCase *tests = shared_daemon_case_with(suite, "rules", setup, shared_daemon_teardown);
    TCase *own = tcase_create("reload");

    tcase_add_test(tests, the_first_matching_rule_decides);
    tcase_add_test(tests, a_list_has_only_readable_buckets);
    tcase_add_test(tests, access_is_checked_before_the_bucket_is_looked_up);
    tcase_add_test(tests, a_mirror_gives_no_right_to_write);
    tcase_add_test(own, a_reload_changes_the_rules_for_existing_sessions);
    tcase_add_test(own, a_reload_checks_thousands_of_keys_without_a_slow_turn);
    tcase_add_test(own, a_reload_changes_the_rules_for_calls_that_wait);
    tcase_add_test(own, users_and_groups_are_distinguished);
    tcase_add_test(own, a_group_counts_however_many_groups_the_peer_has);
    suite_add_tcase(suite, own);
    return suite;
}
