#include "conf/conf.h"
#include "conf/setting.h"
#include "proto/frame.h"
#include "tests/unit/suites.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SAMPLE "conf/kvstored.yaml"

/* The environment of the tests must not decide the default path. */
static void set_up(void)
{
    unsetenv("RUNTIME_DIRECTORY");
}

static void parse(struct conf *conf, const char *text)
{
    char error[CONF_ERROR_BYTES] = "";
    int result = conf_parse(conf, "t.yaml", text, strlen(text), error);

    ck_assert_msg(result == 0, "%s", error);
}

static bool is_zeroed(const struct conf *conf)
{
    static const struct conf zeroed;

    return memcmp(conf, &zeroed, sizeof(zeroed)) == 0;
}

/* The text must be refused with exactly this sentence, and leave nothing to free. */
static void refuse(const char *text, const char *expected)
{
    struct conf conf;
    char error[CONF_ERROR_BYTES] = "";

    ck_assert_msg(conf_parse(&conf, "t.yaml", text, strlen(text), error) == -1, "passes: %s", text);
    ck_assert_str_eq(error, expected);
    ck_assert(is_zeroed(&conf));
}

/* --- Defaults --- */

static void check_is_default(const struct conf *conf)
{
    ck_assert_str_eq(conf->listen.path, "/run/kvstored/kvstored.sock");
    ck_assert_uint_eq(conf->listen.mode, 0660);
    ck_assert_ptr_null(conf->listen.owner);
    ck_assert_ptr_null(conf->listen.group);
    ck_assert_uint_eq(conf->listen.backlog, 512);
    ck_assert_int_eq(conf->nats.mode, CONF_NATS_EMBEDDED);
    ck_assert_str_eq(conf->nats.data_dir, "/var/lib/kvstored");
    ck_assert_str_eq(conf->nats.server_binary, "nats-server");
    ck_assert(conf->nats.sync_always);
    ck_assert_uint_eq(conf->nats.max_store_bytes, 0);
    ck_assert_uint_eq(conf->nats.hang_timeout_ms, 10000);
    ck_assert_uint_eq(conf->nats.servers.count, 0);
    ck_assert_ptr_null(conf->nats.domain);
    ck_assert_ptr_null(conf->nats.credentials);
    ck_assert_ptr_null(conf->nats.user);
    ck_assert_ptr_null(conf->nats.password);
    ck_assert_ptr_null(conf->nats.token);
    ck_assert_ptr_null(conf->nats.nkey_seed);
    ck_assert(!conf->nats.tls.enabled);
    ck_assert_ptr_null(conf->nats.tls.ca);
    ck_assert_ptr_null(conf->nats.tls.certificate);
    ck_assert_ptr_null(conf->nats.tls.key);
    ck_assert_ptr_null(conf->nats.tls.server_name);
    ck_assert_uint_eq(conf->nats.connect_timeout_ms, 2000);
    ck_assert_uint_eq(conf->nats.reconnect_min_ms, 50);
    ck_assert_uint_eq(conf->nats.reconnect_max_ms, 2000);
    ck_assert_uint_eq(conf->nats.ping_interval_ms, 2000);
    ck_assert_uint_eq(conf->nats.outage_wait_ms, 10000);
    ck_assert_uint_eq(conf->buckets.metadata_ttl_s, 300);
    ck_assert_uint_eq(conf->calls.timeout_ms, 5000);
    ck_assert_uint_eq(conf->calls.max_timeout_ms, 60000);
    ck_assert_uint_eq(conf->calls.attempt_timeout_ms, 2000);
    ck_assert_uint_eq(conf->calls.retry_min_ms, 50);
    ck_assert_uint_eq(conf->calls.retry_max_ms, 2000);
    ck_assert_uint_eq(conf->calls.drain_timeout_ms, 10000);
    ck_assert_int_eq(conf->calls.busy_poll, CONF_BUSY_POLL_AUTO);
    ck_assert_uint_eq(conf->limits.frame_bytes, 16u << 20);
    ck_assert_uint_eq(conf->limits.frame_elements, 131072);
    ck_assert_uint_eq(conf->limits.frame_depth, 32);
    ck_assert_uint_eq(conf->limits.sessions, 4096);
    ck_assert_uint_eq(conf->limits.calls, 65536);
    ck_assert_uint_eq(conf->limits.calls_per_session, 4096);
    ck_assert_uint_eq(conf->limits.call_bytes, 512u << 20);
    ck_assert_uint_eq(conf->limits.call_bytes_per_session, 64u << 20);
    ck_assert_uint_eq(conf->limits.out_buffer_bytes, 32u << 20);
    ck_assert_uint_eq(conf->limits.stall_timeout_ms, 30000);
    ck_assert_uint_eq(conf->access.count, 0);
    ck_assert_ptr_null(conf->metrics.listen);
    ck_assert_uint_eq(conf->metrics.mode, 0660);
    ck_assert_ptr_null(conf->metrics.group);
    ck_assert_uint_eq(conf->metrics.buckets.count, 0);
    ck_assert_int_eq(conf->log.level, CONF_LOG_INFO);
    ck_assert_uint_eq(conf->log.slow_turn_ms, 0);
    ck_assert_uint_eq(conf->log.slow_call_ms, 0);
}

START_TEST(an_empty_file_means_all_defaults)
{
    static const char *const texts[] = {
        "", "\n", "# nothing\n", "---\n", "---\n...\n", "{}", "\xef\xbb\xbf", "listen:\nnats:\nlimits: {}\nlog:\n",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct conf conf;

        parse(&conf, texts[i]);
        check_is_default(&conf);
        conf_free(&conf);
        ck_assert(is_zeroed(&conf));
    }
}
END_TEST

static void check_default_path(const char *runtime_directory, const char *expected)
{
    struct conf conf;

    ck_assert_int_eq(setenv("RUNTIME_DIRECTORY", runtime_directory, 1), 0);
    ck_assert_int_eq(conf_set_defaults(&conf), 0);
    ck_assert_str_eq(conf.listen.path, expected);
    conf_free(&conf);
}

START_TEST(the_socket_goes_to_the_first_runtime_directory)
{
    char long_directory[200] = "/";

    check_default_path("/run/kvs", "/run/kvs/kvstored.sock");
    check_default_path("/run/a:/run/b", "/run/a/kvstored.sock");
    check_default_path("", "/run/kvstored/kvstored.sock");
    check_default_path("relative", "/run/kvstored/kvstored.sock");
    memset(long_directory + 1, 'x', sizeof(long_directory) - 2);
    check_default_path(long_directory, "/run/kvstored/kvstored.sock");
    long_directory[107 - strlen("/kvstored.sock")] = '\0';
    ck_assert_int_eq(setenv("RUNTIME_DIRECTORY", long_directory, 1), 0);
    struct conf conf;
    ck_assert_int_eq(conf_set_defaults(&conf), 0);
    ck_assert_uint_eq(strlen(conf.listen.path), 107);
    conf_free(&conf);
}
END_TEST

START_TEST(a_configured_path_overrides_the_runtime_directory)
{
    struct conf conf;

    ck_assert_int_eq(setenv("RUNTIME_DIRECTORY", "/run/kvs", 1), 0);
    parse(&conf, "listen: {path: run/here.sock}");
    ck_assert_str_eq(conf.listen.path, "run/here.sock");
    conf_free(&conf);
}
END_TEST

/* --- Values --- */

START_TEST(every_embedded_setting_reaches_its_member)
{
    struct conf conf;

    parse(&conf, "listen: {path: /tmp/s, mode: '0600', owner: app, group: '100', backlog: 7}\n"
                 "nats:\n"
                 "  mode: embedded\n"
                 "  data_dir: /srv/kv\n"
                 "  server_binary: /opt/nats-server\n"
                 "  sync_interval: 2.5\n"
                 "  max_store: 10G\n"
                 "  hang_timeout: 1.5\n"
                 "  connect_timeout: 1\n"
                 "  reconnect_min: 0.001\n"
                 "  reconnect_max: 60\n"
                 "  ping_interval: 20\n"
                 "  outage_wait: 0\n"
                 "buckets: {metadata_ttl: 60}\n"
                 "calls: {timeout: 1.25, max_timeout: 30, attempt_timeout: 0.5, retry_min: 0.1, retry_max: 1.0,\n"
                 "        drain_timeout: 3, busy_poll: off}\n"
                 "limits: {frame_bytes: 64K, frame_elements: 1000, frame_depth: 10, sessions: 5, calls: 50,\n"
                 "         calls_per_session: 10, call_bytes: 2m, call_bytes_per_session: 1048576,\n"
                 "         out_buffer_bytes: 131072, stall_timeout: 5}\n"
                 "metrics: {listen: 'unix:/run/m', mode: '0600', group: prom, buckets: [a, b-c]}\n"
                 "log: {level: debug}\n");
    ck_assert_str_eq(conf.listen.path, "/tmp/s");
    ck_assert_uint_eq(conf.listen.mode, 0600);
    ck_assert_str_eq(conf.listen.owner, "app");
    ck_assert_str_eq(conf.listen.group, "100");
    ck_assert_uint_eq(conf.listen.backlog, 7);
    ck_assert_str_eq(conf.nats.data_dir, "/srv/kv");
    ck_assert_str_eq(conf.nats.server_binary, "/opt/nats-server");
    ck_assert(!conf.nats.sync_always);
    ck_assert_uint_eq(conf.nats.sync_interval_ms, 2500);
    ck_assert_uint_eq(conf.nats.max_store_bytes, (uint64_t)10 << 30);
    ck_assert_uint_eq(conf.nats.hang_timeout_ms, 1500);
    ck_assert_uint_eq(conf.nats.connect_timeout_ms, 1000);
    ck_assert_uint_eq(conf.nats.reconnect_min_ms, 1);
    ck_assert_uint_eq(conf.nats.reconnect_max_ms, 60000);
    ck_assert_uint_eq(conf.nats.ping_interval_ms, 20000);
    ck_assert_uint_eq(conf.nats.outage_wait_ms, 0);
    ck_assert_uint_eq(conf.buckets.metadata_ttl_s, 60);
    ck_assert_uint_eq(conf.calls.timeout_ms, 1250);
    ck_assert_uint_eq(conf.calls.max_timeout_ms, 30000);
    ck_assert_uint_eq(conf.calls.attempt_timeout_ms, 500);
    ck_assert_uint_eq(conf.calls.retry_min_ms, 100);
    ck_assert_uint_eq(conf.calls.retry_max_ms, 1000);
    ck_assert_uint_eq(conf.calls.drain_timeout_ms, 3000);
    ck_assert_int_eq(conf.calls.busy_poll, CONF_BUSY_POLL_OFF);
    ck_assert_uint_eq(conf.limits.frame_bytes, 65536);
    ck_assert_uint_eq(conf.limits.frame_elements, 1000);
    ck_assert_uint_eq(conf.limits.frame_depth, 10);
    ck_assert_uint_eq(conf.limits.sessions, 5);
    ck_assert_uint_eq(conf.limits.calls, 50);
    ck_assert_uint_eq(conf.limits.calls_per_session, 10);
    ck_assert_uint_eq(conf.limits.call_bytes, 2u << 20);
    ck_assert_uint_eq(conf.limits.call_bytes_per_session, 1u << 20);
    ck_assert_uint_eq(conf.limits.out_buffer_bytes, 131072);
    ck_assert_uint_eq(conf.limits.stall_timeout_ms, 5000);
    ck_assert_str_eq(conf.metrics.listen, "unix:/run/m");
    ck_assert_uint_eq(conf.metrics.mode, 0600);
    ck_assert_str_eq(conf.metrics.group, "prom");
    ck_assert_uint_eq(conf.metrics.buckets.count, 2);
    ck_assert_str_eq(conf.metrics.buckets.items[1], "b-c");
    ck_assert_int_eq(conf.log.level, CONF_LOG_DEBUG);
    conf_free(&conf);
}
END_TEST

START_TEST(every_external_setting_reaches_its_member)
{
    struct conf conf;

    parse(&conf, "nats:\n"
                 "  mode: external\n"
                 "  servers: [nats://a.example, 'tls://[::1]:4223']\n"
                 "  domain: hub\n"
                 "  user: me\n"
                 "  password: 12345\n"
                 "  tls: {ca: /ca.pem, certificate: /c.pem, key: /k.pem, server_name: nats.example}\n");
    ck_assert_int_eq(conf.nats.mode, CONF_NATS_EXTERNAL);
    ck_assert_uint_eq(conf.nats.servers.count, 2);
    ck_assert_str_eq(conf.nats.servers.items[0], "nats://a.example");
    ck_assert_str_eq(conf.nats.servers.items[1], "tls://[::1]:4223");
    ck_assert_str_eq(conf.nats.domain, "hub");
    ck_assert_str_eq(conf.nats.user, "me");
    ck_assert_str_eq(conf.nats.password, "12345");
    ck_assert(conf.nats.tls.enabled);
    ck_assert_str_eq(conf.nats.tls.ca, "/ca.pem");
    ck_assert_str_eq(conf.nats.tls.certificate, "/c.pem");
    ck_assert_str_eq(conf.nats.tls.key, "/k.pem");
    ck_assert_str_eq(conf.nats.tls.server_name, "nats.example");
    conf_free(&conf);

    parse(&conf, "nats: {mode: external, servers: [nats://a], credentials: /a.creds, tls: }");
    ck_assert_str_eq(conf.nats.credentials, "/a.creds");
    ck_assert(conf.nats.tls.enabled);
    conf_free(&conf);
    parse(&conf, "nats: {mode: external, servers: [nats://a], token: t}");
    ck_assert_str_eq(conf.nats.token, "t");
    ck_assert(!conf.nats.tls.enabled);
    conf_free(&conf);
    parse(&conf, "nats: {mode: external, servers: [nats://a], nkey_seed: /a.nk, domain: , token: ~}");
    ck_assert_str_eq(conf.nats.nkey_seed, "/a.nk");
    ck_assert_ptr_null(conf.nats.domain);
    conf_free(&conf);
}
END_TEST

START_TEST(access_rules_keep_their_order)
{
    struct conf conf;

    parse(&conf, "access:\n"
                 "  - users: &people [app, 1000]\n"
                 "    buckets: [\"app-*\", settings]\n"
                 "    allow: write\n"
                 "  - {groups: *people, buckets: [\"*\"], allow: admin}\n"
                 "  - {buckets: [x], allow: none}\n");
    ck_assert_uint_eq(conf.access.count, 3);
    ck_assert_uint_eq(conf.access.rules[0].users.count, 2);
    ck_assert_str_eq(conf.access.rules[0].users.items[1], "1000");
    ck_assert_uint_eq(conf.access.rules[0].groups.count, 0);
    ck_assert_str_eq(conf.access.rules[0].buckets.items[0], "app-*");
    ck_assert_str_eq(conf.access.rules[0].buckets.items[1], "settings");
    ck_assert_int_eq(conf.access.rules[0].allow, CONF_ACCESS_WRITE);
    ck_assert_str_eq(conf.access.rules[1].groups.items[0], "app");
    ck_assert_int_eq(conf.access.rules[1].allow, CONF_ACCESS_ADMIN);
    ck_assert_int_eq(conf.access.rules[2].allow, CONF_ACCESS_NONE);
    conf_free(&conf);
}
END_TEST

static bool takes(const struct setting *setting, uint64_t number)
{
    struct conf conf = {0};
    char text[64];

    setting_format_number(setting, number, text, sizeof(text));
    char *value = text + (text[0] == '"'); /* the quotes are part of YAML */
    value[strcspn(value, "\"")] = '\0';
    enum setting_result result = setting_take(setting, &conf, value, strlen(value));
    ck_assert_msg(result != SETTING_TAKEN || setting_number(setting, &conf) == number, "%s: %s", setting->name, value);
    return result == SETTING_TAKEN;
}

START_TEST(every_number_is_accepted_within_its_range_only)
{
    for (size_t i = 0; i < conf_setting_count; i++) {
        const struct setting *setting = &conf_settings[i];

        if (setting->type == SETTING_STRING || setting->type == SETTING_STRINGS || setting->type == SETTING_CHOICE)
            continue;
        ck_assert_msg(takes(setting, setting->min), "%s", setting->name);
        ck_assert_msg(takes(setting, setting->max), "%s", setting->name);
        ck_assert_msg(!takes(setting, setting->max + 1), "%s", setting->name);
        if (setting->min > 0)
            ck_assert_msg(!takes(setting, setting->min - 1), "%s", setting->name);
    }
}
END_TEST

START_TEST(numbers_are_read_exactly_or_not_at_all)
{
    static const struct {
        const char *name;
        const char *text;
        bool is_right;
        uint64_t number;
    } cases[] = {
        {"listen.backlog", "512", true, 512},
        {"listen.backlog", "+512", false, 0},
        {"listen.backlog", "-1", false, 0},
        {"listen.backlog", "5.0", false, 0},
        {"listen.backlog", "0x10", false, 0},
        {"listen.backlog", "5 ", false, 0},
        {"listen.backlog", "1e3", false, 0},
        {"listen.backlog", "18446744073709551617", false, 0}, /* 2^64 + 1 */
        {"listen.backlog", "true", false, 0},
        {"listen.mode", "0660", true, 0660},
        {"listen.mode", "660", false, 0},
        {"listen.mode", "0680", false, 0},
        {"listen.mode", "0o660", false, 0},
        {"calls.timeout", "0.05", true, 50},
        {"calls.timeout", "1.5", true, 1500},
        {"calls.timeout", "2.500000", true, 2500},
        {"calls.timeout", "0.0505", false, 0},
        {"calls.timeout", "5.", false, 0},
        {"calls.timeout", ".5", false, 0},
        {"calls.timeout", "5s", true, 5000},
        {"calls.timeout", "500ms", true, 500},
        {"calls.timeout", "1m30s", true, 90000},
        {"calls.timeout", "0.5m", true, 30000},
        {"calls.timeout", "1h", true, 3600000},
        {"calls.timeout", "1m30", false, 0},
        {"calls.timeout", "30 s", false, 0},
        {"calls.timeout", "5S", false, 0},
        {"calls.timeout", "5sec", false, 0},
        {"calls.timeout", "s", false, 0},
        {"calls.timeout", "10.5ms", false, 0},
        {"calls.timeout", "9223372036854775807d", false, 0},
        {"calls.timeout", "inf", false, 0},
        {"calls.timeout", "18446744073709551.616", false, 0},
        {"buckets.metadata_ttl", "1.5", false, 0},
        {"buckets.metadata_ttl", "1.5m", true, 90},
        {"buckets.metadata_ttl", "1500ms", false, 0},
        {"limits.call_bytes", "1G", true, (uint64_t)1 << 30},
        {"limits.call_bytes", "4k", true, 4096},
        {"limits.call_bytes", "1.5G", false, 0},
        {"limits.call_bytes", "16MB", false, 0},
        {"limits.call_bytes", "16MiB", true, (uint64_t)16 << 20},
        {"limits.call_bytes", "16Mi", false, 0},
        {"nats.max_store", "2T", true, (uint64_t)2 << 40},
        {"nats.max_store", "1 ", false, 0},
        {"nats.max_store", "1 iB", false, 0},
        {"limits.call_bytes", "G", false, 0},
        {"limits.call_bytes", "18014398509481985M", false, 0}, /* 2^64 + 1M */
        {"nats.sync_interval", "always", true, 0},
        {"nats.sync_interval", "Always", false, 0},
        {"nats.sync_interval", "0", false, 0},
        {"log.level", "warning", true, CONF_LOG_WARNING},
        {"log.slow_call", "300ms", true, 300},
        {"log.slow_call", "3601", false, 0},
        {"log.level", "warn", false, 0},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct setting *setting = setting_find(cases[i].name);
        struct conf conf = {0};

        enum setting_result result = setting_take(setting, &conf, cases[i].text, strlen(cases[i].text));
        ck_assert_msg((result == SETTING_TAKEN) == cases[i].is_right, "%s: %s", cases[i].name, cases[i].text);
        ck_assert_msg(setting_number(setting, &conf) == cases[i].number, "%s: %s", cases[i].name, cases[i].text);
    }
}
END_TEST

START_TEST(server_urls_are_a_host_and_maybe_a_port)
{
    static const char *const right[] = {"nats://h",       "tls://nats-1.example.com:4222", "nats://127.0.0.1:1",
                                        "nats://[::1]:1", "nats://[fe80::1%1]:65535",      "nats://a_b"};
    static const char *const wrong[] = {"",           "h",          "h:4222",       "http://h",       "nats://",
                                        "nats://:1",  "nats://h:",  "nats://h:0",   "nats://h:65536", "nats://h:4222x",
                                        "nats://h/",  "nats://u@h", "nats://u:p@h", "nats://[::1",    "nats://[]:1",
                                        "nats://h h", "NATS://h",   "nats://h,i",   "ws://h",         "nats://::1"};
    const struct setting *servers = setting_find("nats.servers");
    struct conf conf = {0};

    for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++)
        ck_assert_msg(setting_take(servers, &conf, right[i], strlen(right[i])) == SETTING_TAKEN, "%s", right[i]);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_msg(setting_take(servers, &conf, wrong[i], strlen(wrong[i])) == SETTING_WRONG, "%s", wrong[i]);
    ck_assert_uint_eq(conf.nats.servers.count, sizeof(right) / sizeof(right[0]));
    conf_free(&conf);
}
END_TEST

START_TEST(metrics_addresses_are_a_socket_or_an_ip_address_with_a_port)
{
    static const char *const right[] = {"unix:/m",   "unix:run/m", "127.0.0.1:9464",
                                        "0.0.0.0:1", "[::1]:9464", "[::]:65535"};
    static const char *const wrong[] = {
        "",           "unix:",      "/m",        "9464",        ":9464",         "127.0.0.1",
        "::1:9464",   "[::1]",      "[]:1",      "[::1:1",      "1.2.3:9464",    "h:9464",
        "1.2.3.4:",   "1.2.3.4:0",  "1.2.3.4:x", "[1.2.3.4]:1", "[fe80::1%1]:1", "1.2.3.4:65536",
        "1.2.3.4:1 ", "1.2.3.4:+1", "[::1]x:1"};
    const struct setting *listen = setting_find("metrics.listen");
    struct conf conf = {0};

    for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++)
        ck_assert_msg(setting_take(listen, &conf, right[i], strlen(right[i])) == SETTING_TAKEN, "%s", right[i]);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_msg(setting_take(listen, &conf, wrong[i], strlen(wrong[i])) == SETTING_WRONG, "%s", wrong[i]);
    conf_free(&conf);
    refuse("metrics: {listen: '127.0.0.1:1', group: g}",
           "t.yaml:1:41: metrics.group is given, but metrics.listen is not a Unix socket: expected unix:/PATH");
    refuse("listen: {path: /s}\nmetrics: {listen: 'unix:/s'}",
           "t.yaml:2:19: metrics.listen has the path of listen.path: expected another one");
    refuse(
        "metrics: {buckets: ['app-*']}",
        "t.yaml:1:21: metrics.buckets is \"app-*\": expected a list of buckets' names, such as [settings, app-cache]");
}
END_TEST

START_TEST(the_greatest_frame_depth_is_what_frame_supports)
{
    ck_assert_uint_eq(setting_find("limits.frame_depth")->max, FRAME_DEPTH_MAX);
}
END_TEST

/* --- Refusals --- */

START_TEST(a_wrong_value_is_reported_with_its_place_and_what_was_expected)
{
    refuse("limits:\n  frame_bytes: lots\n",
           "t.yaml:2:16: limits.frame_bytes is \"lots\": expected bytes from 4096 to 1073741824, "
           "such as 16777216 or 16M");
    refuse("listen: {backlog: 0}",
           "t.yaml:1:19: listen.backlog is \"0\": expected a whole number from 1 to 65535, such as 512");
    refuse("listen: {mode: 660}", "t.yaml:1:16: listen.mode is \"660\": expected an octal number in quotes from "
                                  "\"0000\" to \"0777\", such as \"0660\"");
    refuse("calls: {timeout: soon}",
           "t.yaml:1:18: calls.timeout is \"soon\": expected seconds from 0.01 to 3600 in steps of 0.001, such as 5");
    refuse("log: {slow_call: 0.0001}",
           "t.yaml:1:18: log.slow_call is \"0.0001\": expected seconds from 0 to 3600 in steps of 0.001, such as 0.5");
    refuse("buckets: {metadata_ttl: 0.5}",
           "t.yaml:1:25: buckets.metadata_ttl is \"0.5\": expected whole seconds from 1 to 86400, such as 300");
    refuse(
        "nats: {sync_interval: never}",
        "t.yaml:1:23: nats.sync_interval is \"never\": expected always, or seconds from 0.1 to 3600 in steps of 0.001");
    refuse("log: {level: loud}", "t.yaml:1:14: log.level is \"loud\": expected error, warning, info or debug");
    refuse("nats: {mode: cluster}", "t.yaml:1:14: nats.mode is \"cluster\": expected embedded or external");
}
END_TEST

START_TEST(a_value_of_another_type_is_refused)
{
    refuse("listen: {path: [a]}", "t.yaml:1:16: listen.path is a list: expected a path of at most 107 bytes, such as "
                                  "/run/kvstored/kvstored.sock");
    refuse("listen: {backlog: {a: 1}}",
           "t.yaml:1:19: listen.backlog is a map: expected a whole number from 1 to 65535, such as 512");
    refuse("listen:\n  backlog:\n",
           "t.yaml:2:11: listen.backlog is empty: expected a whole number from 1 to 65535, such as 512");
    refuse("listen: {path: ''}", "t.yaml:1:16: listen.path is empty: expected a path of at most 107 bytes, such as "
                                 "/run/kvstored/kvstored.sock");
    refuse("listen: {owner: \"a\\0b\"}",
           "t.yaml:1:17: listen.owner contains a NUL character: expected a user's name or number, such as kvstored");
    refuse("nats: {mode: external, servers: nats://h}",
           "t.yaml:1:33: nats.servers is \"nats://h\": expected a list of URLs nats://HOST[:PORT] or "
           "tls://HOST[:PORT] without user and password, such as [nats://127.0.0.1:4222]");
    refuse("listen: here", "t.yaml:1:9: listen is not a map: expected its settings indented below it");
    refuse("[a, b]", "t.yaml:1:1: the file is not a map: expected sections such as listen:");
    refuse("? [a]\n: b", "t.yaml:1:3: the name of a setting is not a plain word");
    refuse("listen: {\"path\\0\": b}", "t.yaml:1:10: the name of a setting is not a plain word");
}
END_TEST

START_TEST(a_socket_path_that_the_kernel_has_no_room_for_is_refused)
{
    char text[200];
    struct conf conf;

    snprintf(text, sizeof(text), "listen: {path: /%0106d}", 0);
    parse(&conf, text);
    ck_assert_uint_eq(strlen(conf.listen.path), 107);
    conf_free(&conf);
    snprintf(text, sizeof(text), "listen: {path: /%0107d}", 0);
    refuse(text, "t.yaml:1:16: listen.path is \"/00000000000000000000000000000000000000000000000000000000000...\": "
                 "expected a path of at most 107 bytes, such as /run/kvstored/kvstored.sock");
}
END_TEST

START_TEST(an_unknown_key_gets_the_nearest_known_one)
{
    refuse("listen:\n  pth: x\n", "t.yaml:2:3: unknown setting listen.pth: did you mean listen.path?");
    refuse("limit: {}", "t.yaml:1:1: unknown setting limit: did you mean limits?");
    refuse("timeout: 3", "t.yaml:1:1: unknown setting timeout: did you mean calls.timeout?");
    refuse("calls: {frame_bytes: 5}",
           "t.yaml:1:9: unknown setting calls.frame_bytes: did you mean limits.frame_bytes?");
    refuse("nats: {tls: {cert: a}}",
           "t.yaml:1:14: unknown setting nats.tls.cert: expected one of ca, certificate, key, server_name");
    refuse("nats: {sever: a}", "t.yaml:1:8: unknown setting nats.sever: did you mean nats.servers?");
    /* A name that is part of the right one, or that has its last word. */
    refuse("nats: {server: a}", "t.yaml:1:8: unknown setting nats.server: did you mean nats.server_binary?");
    refuse("cache: {staleness: 3}", "t.yaml:1:9: unknown setting cache.staleness: did you mean cache.max_staleness?");
    refuse("nats: {hang: 3}", "t.yaml:1:8: unknown setting nats.hang: did you mean nats.hang_timeout?");
    refuse("watches: {check_interval: 3}",
           "t.yaml:1:11: unknown setting watches.check_interval: did you mean watches.reconcile_interval?");
    refuse("acess: []", "t.yaml:1:1: unknown setting acess: did you mean access?");
    refuse("retry-max: 3", "t.yaml:1:1: unknown setting retry-max: did you mean calls.retry_max?");
    refuse("zzz: 3",
           "t.yaml:1:1: unknown setting zzz: expected one of listen, nats, buckets, watches, locks, cache, calls, "
           "limits, metrics, log, access");
    refuse("buckets: {zzz: 3}", "t.yaml:1:11: unknown setting buckets.zzz: expected one of metadata_ttl, group_commit");
    refuse(
        "listen.path: x",
        "t.yaml:1:1: unknown setting \"listen.path\": expected a section's name, and its settings indented below it");
    refuse("'': x",
           "t.yaml:1:1: unknown setting : expected one of listen, nats, buckets, watches, locks, cache, calls, "
           "limits, metrics, log, access");
    refuse("<<: {listen: {}}",
           "t.yaml:1:1: unknown setting <<: expected one of listen, nats, buckets, watches, locks, cache, "
           "calls, limits, metrics, log, access");
}
END_TEST

START_TEST(a_key_given_twice_is_refused)
{
    refuse("listen:\n  backlog: 5\n  path: x\n  backlog: 5\n",
           "t.yaml:4:3: listen.backlog is given twice: it is already in line 2");
    refuse("log: {}\nlisten: {}\nlog: {}\n", "t.yaml:3:1: log is given twice: it is already in line 1");
    refuse("access: [{buckets: [a], allow: read, buckets: [b]}]",
           "t.yaml:1:38: access[1].buckets is given twice: it is already in line 1");
}
END_TEST

START_TEST(a_rule_that_might_allow_too_much_is_refused)
{
    refuse("access:\n",
           "t.yaml:1:8: access is not a list: expected a list of rules, or [] to let everybody do everything");
    refuse("access: [{users: [], buckets: ['*'], allow: read}]",
           "t.yaml:1:18: access[1].users is an empty list: expected a list of users' names or numbers, "
           "such as [app, 1000]");
    refuse("access: [{users: , buckets: ['*'], allow: read}]",
           "t.yaml:1:18: access[1].users is empty: expected a list of users' names or numbers, such as [app, 1000]");
    refuse("access: [{allow: read}]", "t.yaml:1:10: access[1].buckets is missing: expected a list of shell patterns, "
                                      "such as [\"*\"]");
    refuse("access: [{buckets: [a], allow: read}, {buckets: [a]}]",
           "t.yaml:1:39: access[2].allow is missing: expected none, read, write or admin");
    refuse("access: [{user: [a]}]",
           "t.yaml:1:11: unknown setting access[1].user: expected one of users, groups, buckets, allow");
    refuse("access: [{buckets: [a], allow: all}]",
           "t.yaml:1:32: access[1].allow is \"all\": expected none, read, write or admin");
    refuse("access: [read]", "t.yaml:1:10: access[1] is not a map: expected a rule, such as {users: [app], buckets: "
                             "[\"app-*\"], allow: write}");
}
END_TEST

START_TEST(settings_that_exclude_each_other_are_refused)
{
    refuse("limits: {out_buffer_bytes: 1M}",
           "t.yaml:1:28: limits.frame_bytes is 16M and limits.out_buffer_bytes is 1M: expected limits.frame_bytes to "
           "be at most limits.out_buffer_bytes");
    refuse("limits: {frame_bytes: 33M}",
           "t.yaml:1:23: limits.frame_bytes is 33M and limits.out_buffer_bytes is 32M (its default): expected "
           "limits.frame_bytes to be at most limits.out_buffer_bytes");
    refuse("limits: {call_bytes_per_session: 1M}",
           "t.yaml:1:34: limits.frame_bytes is 16M and limits.call_bytes_per_session is 1M: expected "
           "limits.frame_bytes to be at most limits.call_bytes_per_session");
    refuse("limits: {call_bytes: 32M}",
           "t.yaml:1:22: limits.call_bytes_per_session is 64M and limits.call_bytes is 32M: expected "
           "limits.call_bytes_per_session to be at most limits.call_bytes");
    refuse("limits: {calls: 100}", "t.yaml:1:17: limits.calls_per_session is 4096 and limits.calls is 100: expected "
                                   "limits.calls_per_session to be at most limits.calls");
    refuse("calls: {timeout: 61}", "t.yaml:1:18: calls.timeout is 61 and calls.max_timeout is 60 (its default): "
                                   "expected calls.timeout to be at most calls.max_timeout");
    refuse("calls: {retry_min: 3}", "t.yaml:1:20: calls.retry_min is 3 and calls.retry_max is 2 (its default): "
                                    "expected calls.retry_min to be at most calls.retry_max");
    refuse("nats: {reconnect_max: 0.01}", "t.yaml:1:23: nats.reconnect_min is 0.05 and nats.reconnect_max is 0.01: "
                                          "expected nats.reconnect_min to be at most nats.reconnect_max");
}
END_TEST

START_TEST(settings_of_the_other_mode_are_refused)
{
    static const char *const external[] = {"servers: [nats://h]", "domain: d",    "credentials: c", "user: u",
                                           "password: p",         "token: t",     "nkey_seed: n",   "tls: {}",
                                           "tls: {ca: a}",        "tls: {key: a}"};
    static const char *const embedded[] = {"data_dir: d", "server_binary: s", "sync_interval: 1",
                                           "sync_interval: always", "max_store: 1G"};
    char text[200], error[CONF_ERROR_BYTES];
    struct conf conf;

    for (size_t i = 0; i < sizeof(external) / sizeof(external[0]); i++) {
        snprintf(text, sizeof(text), "nats: {%s}", external[i]);
        ck_assert_msg(conf_parse(&conf, "t.yaml", text, strlen(text), error) == -1, "%s", text);
        ck_assert_msg(strstr(error, "nats.mode is embedded: expected mode external") != NULL, "%s", error);
    }
    for (size_t i = 0; i < sizeof(embedded) / sizeof(embedded[0]); i++) {
        snprintf(text, sizeof(text), "nats: {mode: external, servers: [nats://h], %s}", embedded[i]);
        ck_assert_msg(conf_parse(&conf, "t.yaml", text, strlen(text), error) == -1, "%s", text);
        ck_assert_msg(strstr(error, "nats.mode is external: expected mode embedded") != NULL, "%s", error);
    }
    refuse("nats: {mode: external}", "t.yaml:1:14: nats.mode is external, but nats.servers is not given: expected a "
                                     "list of URLs, such as [nats://127.0.0.1:4222]");
}
END_TEST

START_TEST(credentials_are_of_one_kind_and_whole)
{
#define EXTERNAL "nats:\n  mode: external\n  servers: [nats://h]\n"
    refuse(EXTERNAL "  token: t\n  credentials: c\n",
           "t.yaml:4:10: nats.credentials and nats.token are both given: expected one kind of credentials");
    refuse(EXTERNAL "  user: u\n  password: p\n  nkey_seed: n\n",
           "t.yaml:6:14: nats.user and nats.nkey_seed are both given: expected one kind of credentials");
    refuse(EXTERNAL "  user: u\n", "t.yaml:4:9: nats.user is given without nats.password: expected both");
    refuse(EXTERNAL "  password: p\n", "t.yaml:4:13: nats.password is given without nats.user: expected both");
    refuse(EXTERNAL "  tls: {certificate: c}\n",
           "t.yaml:4:22: nats.tls.certificate is given without nats.tls.key: expected both");
    refuse(EXTERNAL "  tls: {key: k}\n",
           "t.yaml:4:14: nats.tls.key is given without nats.tls.certificate: expected both");
}
END_TEST

START_TEST(a_secret_is_never_shown)
{
    static const char *const texts[] = {
        EXTERNAL "  token: [xyzzy]\n",
        EXTERNAL "  password: \"xyzzy\\0\"\n",
        EXTERNAL "  user: u\n  password: \"\\0xyzzy\"\n",
        "nats:\n  mode: external\n  servers: [\"nats://me:xyzzy@h\"]\n",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        char error[CONF_ERROR_BYTES];
        struct conf conf;

        ck_assert_int_eq(conf_parse(&conf, "t.yaml", texts[i], strlen(texts[i]), error), -1);
        ck_assert_msg(strstr(error, "xyzzy") == NULL, "%s", error);
    }
}
END_TEST

START_TEST(a_list_without_end_is_refused)
{
    char *text = malloc(64 * 1024);
    size_t used = (size_t)sprintf(text, "access: [{allow: read, buckets: [");

    for (unsigned i = 0; i <= SETTING_ITEMS_MAX; i++)
        used += (size_t)sprintf(text + used, "b%u,", i);
    sprintf(text + used, "]}]");
    refuse(text, "t.yaml:1:33: access[1].buckets is too long: expected at most 1024 items");
    used = (size_t)sprintf(text, "access: [");
    for (unsigned i = 0; i <= SETTING_RULES_MAX; i++)
        used += (size_t)sprintf(text + used, "{},");
    sprintf(text + used, "]");
    refuse(text, "t.yaml:1:9: access is too long: expected at most 64 rules");
    free(text);
}
END_TEST

/* libyaml took 43 s for 100 KB of '['. */
START_TEST(brackets_nest_as_deep_as_a_configuration_needs)
{
    static char text[100001];

    memset(text, '[', sizeof(text) - 1);
    refuse(text, "t.yaml:1:17: brackets are nested more than 16 deep");
    for (size_t i = 0; i + 1 < sizeof(text); i++)
        text[i] = "{\n"[i % 2];
    refuse(text, "t.yaml:17:1: brackets are nested more than 16 deep");
    /* In quotes and in comments brackets are ordinary characters. */
    struct conf conf;
    char error[CONF_ERROR_BYTES];
    const char *harmless =
        "cache:\n  buckets: [\"[[[[[[[[[[[[[[[[[[\", 'b#[[[[[[[[[[[[[[[[[['] # [[[[[[[[[[[[[[[[[[[[\n";
    ck_assert_msg(conf_parse(&conf, "t.yaml", harmless, strlen(harmless), error) == 0, "%s", error);
    conf_free(&conf);
}
END_TEST

START_TEST(invalid_yaml_is_reported_with_its_place)
{
    refuse("log:\n  level: [info\nlisten: 3\n",
           "t.yaml:3:7: did not find expected ',' or ']' while parsing a flow sequence: expected YAML");
    refuse("log:\n\tlevel: info\n", "t.yaml:2:1: found a tab: indent with blanks, not tabs");
    refuse("log:\n  level: info\n  \ttarget: auto", "t.yaml:3:3: found a tab: indent with blanks, not tabs");
    refuse("log:\n  level: @info\n", "t.yaml:2:10: found character that cannot start any token while scanning for the "
                                     "next token: expected YAML");
    refuse("log:\n  level: \xff\n", "t.yaml:2:10: invalid leading UTF-8 octet: expected text in UTF-8");
    refuse("log: *nobody", "t.yaml:1:6: found undefined alias: expected YAML");
    refuse("access: &a [*a]", "t.yaml:1:9: access[1] is not a map: expected a rule, such as {users: [app], buckets: "
                              "[\"app-*\"], allow: write}");
    refuse("nats: &a {tls: *a}", "t.yaml:1:11: unknown setting nats.tls.tls: did you mean nats.tls?");
}
END_TEST

START_TEST(a_second_document_is_refused)
{
    refuse("log: {}\n---\nlog: {}\n", "t.yaml:2:1: a second YAML document begins: expected only one");
    refuse("---\n---\n", "t.yaml:2:1: a second YAML document begins: expected only one");
}
END_TEST

START_TEST(a_strangers_text_stays_within_one_line_of_the_message)
{
    refuse("log: {level: \"a\\nb\\e[31m\"}",
           "t.yaml:1:14: log.level is \"a?b?[31m\": expected error, warning, info or debug");
    refuse("\"a\\nb\": 1",
           "t.yaml:1:1: unknown setting a?b: expected one of listen, nats, buckets, watches, locks, cache, "
           "calls, limits, metrics, log, "
           "access");
    /* 60 bytes would end within the last euro sign. */
    refuse(
        "log: {level: \xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac"
        "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xacx\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac"
        "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac}",
        "t.yaml:1:14: log.level is "
        "\"\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac"
        "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xacx\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac"
        "\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac...\": expected error, warning, info or debug");
}
END_TEST

/* --- Files --- */

START_TEST(a_file_that_cannot_be_read_is_named)
{
    char error[CONF_ERROR_BYTES];
    struct conf conf;

    ck_assert_int_eq(conf_read(&conf, "/nonexistent/kvstored.yaml", error), -1);
    ck_assert_str_eq(error, "/nonexistent/kvstored.yaml: cannot be opened (No such file or directory): expected a "
                            "readable file");
    ck_assert_int_eq(conf_read(&conf, "/", error), -1);
    ck_assert_str_eq(error, "/: cannot be read (Is a directory): expected a readable file");
    ck_assert_int_eq(conf_read(&conf, "/dev/zero", error), -1);
    ck_assert_str_eq(error, "/dev/zero: is too large: expected at most 1048576 bytes");
    ck_assert_int_eq(conf_read(&conf, "/dev/null", error), 0);
    check_is_default(&conf);
    conf_free(&conf);
}
END_TEST

START_TEST(a_long_path_leaves_room_for_the_sentence)
{
    char name[4000], error[CONF_ERROR_BYTES];
    struct conf conf;

    memset(name, 'd', sizeof(name));
    strcpy(name + sizeof(name) - 8, "/k.yaml");
    ck_assert_int_eq(conf_parse(&conf, name, "log: {level: 5}", 15, error), -1);
    ck_assert_ptr_nonnull(strstr(error, "dd/k.yaml:1:14: log.level is \"5\": expected error, warning, info or debug"));
    ck_assert_mem_eq(error, "...d", 4);
}
END_TEST

/* Read the sample into a buffer of the test's own, with a NUL at its end. */
static char *read_sample(void)
{
    FILE *file = fopen(SAMPLE, "re");
    char *text = calloc(1, 65536);

    ck_assert_msg(file != NULL, "run the tests where %s is", SAMPLE);
    size_t length = fread(text, 1, 65535, file);
    ck_assert_uint_lt(length, 65535);
    fclose(file);
    return text;
}

START_TEST(the_sample_is_all_defaults)
{
    char error[CONF_ERROR_BYTES] = "";
    struct conf conf;

    ck_assert_msg(conf_read(&conf, SAMPLE, error) == 0, "%s", error);
    check_is_default(&conf);
    conf_free(&conf);
}
END_TEST

/* Remove each '#' at the beginning of a line that is directly followed by a name. Return how many. */
static unsigned uncomment(char *text)
{
    unsigned count = 0;
    bool is_indent = true;
    char *to = text;

    for (const char *from = text; *from != '\0'; from++) {
        if (is_indent && *from == '#' && from[1] >= 'a' && from[1] <= 'z') {
            count++;
            continue;
        }
        is_indent = *from == '\n' || (is_indent && *from == ' ');
        *to++ = *from;
    }
    *to = '\0';
    return count;
}

START_TEST(the_samples_settings_without_their_marks_are_the_defaults)
{
    char error[CONF_ERROR_BYTES] = "";
    char *text = read_sample();
    struct conf conf;
    unsigned expected = 1; /* access */

    for (size_t i = 0; i < conf_setting_count; i++)
        expected += conf_settings[i].initial != NULL;
    ck_assert_uint_eq(uncomment(text), expected);
    ck_assert_msg(conf_parse(&conf, SAMPLE, text, strlen(text), error) == 0, "%s", error);
    check_is_default(&conf);
    conf_free(&conf);
    free(text);
}
END_TEST

START_TEST(the_sample_names_every_setting_in_its_section)
{
    char *text = read_sample();

    for (size_t i = 0; i < conf_setting_count; i++) {
        const struct setting *setting = &conf_settings[i];
        size_t section_length = strcspn(setting->name, ".");
        char heading[64], line[256];

        snprintf(heading, sizeof(heading), "\n%.*s:\n", (int)section_length, setting->name);
        const char *section = strstr(text, heading);
        ck_assert_msg(section != NULL, "%s", setting->name);
        const char *section_end = strstr(section, "\n# ---");
        section_end = section_end != NULL ? section_end : section + strlen(section);

        const char *name = strrchr(setting->name, '.') + 1;
        bool is_tls = strncmp(setting->name, "nats.tls.", 9) == 0;
        if (setting->initial != NULL && setting->type == SETTING_OCTAL)
            snprintf(line, sizeof(line), "\n  #%s: \"%s\"\n", name, setting->initial);
        else if (setting->initial != NULL)
            snprintf(line, sizeof(line), "\n  #%s: %s\n", name, setting->initial);
        else
            snprintf(line, sizeof(line), "\n  # Example:  %s%s: ", is_tls ? "  " : "", name);
        const char *found = strstr(section, line);
        ck_assert_msg(found != NULL && found < section_end, "%s is not there as%s", setting->name, line);
    }
    free(text);
}
END_TEST

/* --- Reload --- */

struct changes {
    char names[1024]; /* each followed by a space */
};

static void note_change(void *arg, const char *name)
{
    struct changes *changes = arg;

    strcat(strcat(changes->names, name), " ");
}

START_TEST(a_reload_applies_what_a_running_daemon_can_change)
{
    struct conf running, fresh;
    struct changes changes = {""};

    parse(&running, "access: [{users: [old], buckets: [a], allow: read}]");
    parse(&fresh, "nats: {reconnect_min: 0.1, reconnect_max: 3, ping_interval: 4, outage_wait: 5, hang_timeout: 6}\n"
                  "buckets: {metadata_ttl: 7}\n"
                  "calls: {timeout: 8, max_timeout: 9, attempt_timeout: 1, retry_min: 1, retry_max: 3,\n"
                  "        drain_timeout: 1, busy_poll: off}\n"
                  "limits: {sessions: 9, frame_bytes: 1M}\n"
                  "access: [{buckets: [b], allow: write}, {buckets: [c], allow: none}]\n"
                  "log: {level: debug}\n");
    conf_apply_live(&running, &fresh, note_change, &changes);
    ck_assert_str_eq(changes.names, "");
    ck_assert_uint_eq(running.nats.reconnect_min_ms, 100);
    ck_assert_uint_eq(running.nats.reconnect_max_ms, 3000);
    ck_assert_uint_eq(running.nats.ping_interval_ms, 4000);
    ck_assert_uint_eq(running.nats.outage_wait_ms, 5000);
    ck_assert_uint_eq(running.nats.hang_timeout_ms, 6000);
    ck_assert_uint_eq(running.buckets.metadata_ttl_s, 7);
    ck_assert_uint_eq(running.calls.timeout_ms, 8000);
    ck_assert_uint_eq(running.calls.drain_timeout_ms, 1000);
    ck_assert_int_eq(running.calls.busy_poll, CONF_BUSY_POLL_OFF);
    ck_assert_uint_eq(running.limits.sessions, 9);
    ck_assert_uint_eq(running.limits.frame_bytes, 1u << 20);
    ck_assert_uint_eq(running.access.count, 2);
    ck_assert_str_eq(running.access.rules[0].buckets.items[0], "b");
    ck_assert_int_eq(running.log.level, CONF_LOG_DEBUG);
    conf_free(&fresh);
    ck_assert_str_eq(running.access.rules[1].buckets.items[0], "c"); /* moved, not copied */
    conf_free(&running);
}
END_TEST

START_TEST(a_reload_names_what_takes_a_restart_and_leaves_it)
{
    struct conf running, fresh;
    struct changes changes = {""};

    parse(&running, "nats: {sync_interval: 1}");
    parse(&fresh, "listen: {path: /tmp/s, mode: '0600', owner: o, group: g, backlog: 6}\n"
                  "nats: {mode: external, servers: [nats://h], token: t, tls: {ca: a}, connect_timeout: 1}\n");
    conf_apply_live(&running, &fresh, note_change, &changes);
    ck_assert_str_eq(changes.names, "listen.path listen.mode listen.owner listen.group listen.backlog nats.mode "
                                    "nats.sync_interval nats.servers nats.token nats.tls.ca nats.connect_timeout ");
    ck_assert(!running.nats.tls.enabled);
    ck_assert_ptr_null(running.nats.token);
    ck_assert_str_eq(running.listen.path, "/run/kvstored/kvstored.sock");
    ck_assert_int_eq(running.nats.mode, CONF_NATS_EMBEDDED);
    ck_assert_uint_eq(running.nats.sync_interval_ms, 1000);
    ck_assert_uint_eq(running.nats.servers.count, 0);
    conf_free(&fresh);
    conf_free(&running);
}
END_TEST

START_TEST(a_reload_of_the_same_file_changes_nothing)
{
    static const char text[] = EXTERNAL "  user: u\n  password: p\n  tls: {ca: a}\n"
                                        "access: [{buckets: [b], allow: write}]\n";
    struct conf running, fresh;
    struct changes changes = {""};

    parse(&running, text);
    parse(&fresh, text);
    conf_apply_live(&running, &fresh, note_change, &changes);
    ck_assert_str_eq(changes.names, "");
    ck_assert_uint_eq(running.access.count, 1);
    conf_free(&fresh);
    conf_free(&running);
}
END_TEST

Suite *conf_suite(void)
{
    Suite *suite = suite_create("conf");
    TCase *defaults = tcase_create("defaults");
    TCase *values = tcase_create("values");
    TCase *refusals = tcase_create("refusals");
    TCase *files = tcase_create("files");
    TCase *reload = tcase_create("reload");

    tcase_add_checked_fixture(defaults, set_up, NULL);
    tcase_add_test(defaults, an_empty_file_means_all_defaults);
    tcase_add_test(defaults, the_socket_goes_to_the_first_runtime_directory);
    tcase_add_test(defaults, a_configured_path_overrides_the_runtime_directory);
    suite_add_tcase(suite, defaults);
    tcase_add_checked_fixture(values, set_up, NULL);
    tcase_add_test(values, every_embedded_setting_reaches_its_member);
    tcase_add_test(values, every_external_setting_reaches_its_member);
    tcase_add_test(values, access_rules_keep_their_order);
    tcase_add_test(values, every_number_is_accepted_within_its_range_only);
    tcase_add_test(values, numbers_are_read_exactly_or_not_at_all);
    tcase_add_test(values, server_urls_are_a_host_and_maybe_a_port);
    tcase_add_test(values, metrics_addresses_are_a_socket_or_an_ip_address_with_a_port);
    tcase_add_test(values, the_greatest_frame_depth_is_what_frame_supports);
    suite_add_tcase(suite, values);
    tcase_add_checked_fixture(refusals, set_up, NULL);
    tcase_add_test(refusals, a_wrong_value_is_reported_with_its_place_and_what_was_expected);
    tcase_add_test(refusals, a_value_of_another_type_is_refused);
    tcase_add_test(refusals, a_socket_path_that_the_kernel_has_no_room_for_is_refused);
    tcase_add_test(refusals, an_unknown_key_gets_the_nearest_known_one);
    tcase_add_test(refusals, a_key_given_twice_is_refused);
    tcase_add_test(refusals, a_rule_that_might_allow_too_much_is_refused);
    tcase_add_test(refusals, settings_that_exclude_each_other_are_refused);
    tcase_add_test(refusals, settings_of_the_other_mode_are_refused);
    tcase_add_test(refusals, credentials_are_of_one_kind_and_whole);
    tcase_add_test(refusals, a_secret_is_never_shown);
    tcase_add_test(refusals, a_list_without_end_is_refused);
    tcase_add_test(refusals, brackets_nest_as_deep_as_a_configuration_needs);
    tcase_add_test(refusals, invalid_yaml_is_reported_with_its_place);
    tcase_add_test(refusals, a_second_document_is_refused);
    tcase_add_test(refusals, a_strangers_text_stays_within_one_line_of_the_message);
    suite_add_tcase(suite, refusals);
    tcase_add_checked_fixture(files, set_up, NULL);
    tcase_add_test(files, a_file_that_cannot_be_read_is_named);
    tcase_add_test(files, a_long_path_leaves_room_for_the_sentence);
    tcase_add_test(files, the_sample_is_all_defaults);
    tcase_add_test(files, the_samples_settings_without_their_marks_are_the_defaults);
    tcase_add_test(files, the_sample_names_every_setting_in_its_section);
    suite_add_tcase(suite, files);
    tcase_add_checked_fixture(reload, set_up, NULL);
    tcase_add_test(reload, a_reload_applies_what_a_running_daemon_can_change);
    tcase_add_test(reload, a_reload_names_what_takes_a_restart_and_leaves_it);
    tcase_add_test(reload, a_reload_of_the_same_file_changes_nothing);
    suite_add_tcase(suite, reload);
    return suite;
}
