/* daemon.config: the configuration in effect, and where each value comes from. */
#include "tests/integration/suites.h"
#include "tests/support/client.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static struct daemon daemon_of_test;

static const msgpack_object *setting_of(struct client *client, const char *name)
{
    struct answer *answer = client_call(client, "daemon.config", "[]");

    assert_ok(answer);
    const msgpack_object *settings = find_at(&answer->result, "settings");
    /* The names have dots, so that they are no path. */
    for (size_t i = 0; i < settings->via.map.size; i++) {
        const msgpack_object_str *key = &settings->via.map.ptr[i].key.via.str;
        if (key->size == strlen(name) && memcmp(key->ptr, name, key->size) == 0)
            return &settings->via.map.ptr[i].val;
    }
    ck_abort_msg("there is no setting %s", name);
}

static void reload(const char *nats, const char *more)
{
    daemon_configure(&daemon_of_test, nats, more);
    process_signal(&daemon_of_test.process, SIGHUP);
    daemon_wait_log(&daemon_of_test, "is in effect");
}

START_TEST(each_value_has_its_origin)
{
    daemon_start(&daemon_of_test, NULL,
                 "limits:\n  frame_bytes: 8192K\ncache:\n  buckets: [a, \"b-*\"]\naccess:\n"
                 "  - {users: [root, 4711], buckets: [\"*\"], allow: admin}\n");
    struct client *client = client_open(&daemon_of_test);
    struct answer *answer = client_call(client, "daemon.config", "[]");

    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "file"), daemon_of_test.conf_path);
    ck_assert_str_eq(text_at(&answer->result, "access.0.users.1"), "4711");
    ck_assert_str_eq(text_at(&answer->result, "access.0.allow"), "admin");
    ck_assert_uint_eq(number_at(&answer->result, "access.0.line"), daemon_conf_line(&daemon_of_test, "- {users"));
    const msgpack_object *setting = setting_of(client, "limits.frame_bytes");
    ck_assert_str_eq(text_at(setting, "value"), "8M");
    ck_assert_str_eq(text_at(setting, "from"), "file");
    ck_assert_uint_eq(number_at(setting, "line"), daemon_conf_line(&daemon_of_test, "frame_bytes"));
    setting = setting_of(client, "cache.buckets");
    ck_assert_str_eq(text_at(setting, "value.1"), "b-*");
    setting = setting_of(client, "limits.frame_depth");
    ck_assert_str_eq(text_at(setting, "value"), "32");
    ck_assert_str_eq(text_at(setting, "from"), "default");
    ck_assert_ptr_null(find_at(setting, "line"));
    ck_assert_str_eq(text_at(setting_of(client, "listen.mode"), "value"), "0660");
    setting = setting_of(client, "nats.name");
    ck_assert_int_eq(find_at(setting, "value")->type, MSGPACK_OBJECT_NIL);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_reload_changes_values_and_lines_and_says_what_needs_a_restart)
{
    daemon_start(&daemon_of_test, NULL, "calls:\n  max_timeout: 70\n");
    struct client *client = client_open(&daemon_of_test);
    const char *mode = text_at(setting_of(client, "listen.mode"), "value");

    reload(NULL, "log:\n  slow_call: 1.5\ncalls:\n  max_timeout: 80\n");
    const msgpack_object *setting = setting_of(client, "calls.max_timeout");
    ck_assert_str_eq(text_at(setting, "value"), "80");
    ck_assert_uint_eq(number_at(setting, "line"), daemon_conf_line(&daemon_of_test, "max_timeout"));
    ck_assert_str_eq(text_at(setting_of(client, "log.slow_call"), "value"), "1.5");

    /* The value that is in effect is the old one. */
    reload(DAEMON_SYNCS_SELDOM "  name: another\n", NULL);
    setting = setting_of(client, "nats.name");
    ck_assert_int_eq(find_at(setting, "value")->type, MSGPACK_OBJECT_NIL);
    ck_assert(bool_at(setting, "needs_restart"));
    ck_assert_str_eq(text_at(setting_of(client, "calls.max_timeout"), "from"), "default");
    ck_assert_str_eq(text_at(setting_of(client, "listen.mode"), "value"), mode);
    reload(NULL, "");
    ck_assert_ptr_null(find_at(setting_of(client, "nats.name"), "needs_restart"));
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(secrets_are_never_shown)
{
    daemon_start(&daemon_of_test,
                 "  mode: external\n  servers: [\"nats://127.0.0.1:1\"]\n  user: kvs\n  password: not-for-you\n", NULL);
    struct client *client = client_open(&daemon_of_test);
    struct answer *answer = client_call(client, "daemon.config", "[]");

    assert_ok(answer);
    ck_assert_ptr_null(strstr(object_text(&answer->result), "not-for-you"));
    const msgpack_object *setting = setting_of(client, "nats.password");
    ck_assert(bool_at(setting, "secret"));
    ck_assert_int_eq(find_at(setting, "value")->type, MSGPACK_OBJECT_NIL);
    ck_assert_str_eq(text_at(setting, "from"), "file");
    ck_assert_str_eq(text_at(setting_of(client, "nats.user"), "value"), "kvs");
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_socket_of_the_service_manager_is_named_as_the_origin)
{
    struct sockaddr_un address;
    socklen_t length;

    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, NULL);
    int listener = daemon_listen_without_file(&address, &length);
    daemon_spawn(&daemon_of_test, NULL, listener);
    daemon_wait_ready(&daemon_of_test);
    struct client *client = client_open_address(&address, length);
    ck_assert_str_eq(text_at(setting_of(client, "listen.path"), "from"), "socket unit");
    reload(NULL, "");
    ck_assert_str_eq(text_at(setting_of(client, "listen.backlog"), "from"), "socket unit");
    daemon_stop(&daemon_of_test);
    close(listener);
}
END_TEST

START_TEST(the_configuration_takes_admin_for_all_buckets)
{
    daemon_start(&daemon_of_test, NULL, "access:\n  - {buckets: [\"*\"], allow: write}\n");
    struct client *client = client_open(&daemon_of_test);

    assert_code_says(client_call(client, "daemon.config", "[]"), "permission_denied", "all buckets");
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *config_suite(void)
{
    Suite *suite = suite_create("config");
    TCase *own = tcase_create("config");

    tcase_add_test(own, each_value_has_its_origin);
    tcase_add_test(own, a_reload_changes_values_and_lines_and_says_what_needs_a_restart);
    tcase_add_test(own, secrets_are_never_shown);
    tcase_add_test(own, a_socket_of_the_service_manager_is_named_as_the_origin);
    tcase_add_test(own, the_configuration_takes_admin_for_all_buckets);
    suite_add_tcase(suite, own);
    return suite;
}
