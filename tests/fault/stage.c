#include "tests/fault/stage.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned server_ports(const struct stage *stage, unsigned ports[CLUSTER_SERVERS])
{
    for (unsigned i = 0; i < stage->server_count; i++)
        ports[i] = stage->servers[i].port;
    return stage->server_count;
}

static char *conf_path(const struct stage *stage)
{
    return format_text("%s/kvstored.yaml", stage->directory);
}

static const char *data_dir(const struct stage *stage)
{
    return format_text("%s/data", stage->directory);
}

/*
 * The program that the daemon starts as its nats-server: on a port that the proxy knows, and with the proxy's in the
 * file in which the server says its own.
 */
static const char *make_server_program(const struct stage *stage)
{
    const char *program = format_text("%s/server", stage->directory);

    if (stage->proxy == NULL)
        return scene_nats_server();
    write_program(program, format_text("#!/bin/sh\n"
                                       "[ \"$1\" = --version ] && exec %s --version\n"
                                       "sed 's/^port: .*/port: %u/; /^ports_file_dir/d' \"$2\" > \"$2.here\"\n"
                                       "ports=$(dirname \"$2\")/ports\n"
                                       "echo '{\"nats\": [\"nats://127.0.0.1:%u\"]}' > $ports/new\n"
                                       "mv $ports/new $ports/proxy_$$.ports\n"
                                       "exec %s -c \"$2.here\"\n",
                                       scene_nats_server(), stage->embedded_port, proxy_port(stage->proxy),
                                       scene_nats_server()));
    return program;
}

static const char *nats_section(const struct stage *stage)
{
    if (stage->is_embedded)
        return format_text("  mode: embedded\n  data_dir: %s\n  server: %s\n", data_dir(stage),
                           make_server_program(stage));
    return stage->front != NULL
               ? tls_front_section(stage->front)
               : format_text("  mode: external\n  servers: [nats://127.0.0.1:%u]\n", proxy_port(stage->proxy));
}

/*
 * Each attempt that the proxy spoils lasts as long as an attempt may: that is short. A server may be slower: the pauses
 * between attempts grow until its answer comes within one. No fault here may end in a deadline, in a refusal because of
 * an outage, or in a connection that is given up although it is only slow.
 */
static void write_conf(const struct stage *stage, const char *more)
{
    const char *attempt = more != NULL && strstr(more, "attempt_timeout") != NULL ? "" : STAGE_ATTEMPTS(0.3);
    write_file(conf_path(stage),
               format_text("listen:\n  path: %s\nnats:\n  name: kvstored-fault\n%s"
                           "  connect_timeout: 30\n  ping_interval: 60\n  outage_wait: 600\n"
                           "  reconnect_min: 0.01\n  reconnect_max: 0.1\n"
                           "calls:\n  timeout: %u\n  max_timeout: %u\n  retry_min: 0.01\n  retry_max: 0.5\n%s%s",
                           stage->socket_path, nats_section(stage), CALL_SECONDS, CALL_SECONDS, attempt,
                           more != NULL ? more : ""));
}

static bool says_ready(const struct stage *stage, unsigned times)
{
    const char *found = read_file(stage->daemon.log_path);

    for (unsigned i = 0; i < times; i++) {
        found = strstr(found, "ready: kvstored");
        if (found == NULL)
            return false;
        found++;
    }
    return true;
}

static void start_daemon(struct stage *stage)
{
    char *arguments[] = {keep(strdup(scene_daemon())), "--config", conf_path(stage), NULL};

    stage->starts++;
    process_start(&stage->daemon, arguments);
    wait_until(says_ready(stage, stage->starts) || process_has_ended(&stage->daemon), "the daemon");
    ck_assert_msg(stage->daemon.pid != 0, "the daemon does not start:\n%s", read_file(stage->daemon.log_path));
}

static bool is_connected(struct stage *stage)
{
    const struct answer *answer = session_call(stage->session, "health.check", "[]");

    return find_at(answer->result, "nats.connected")->via.boolean;
}

static void meet_daemon(struct stage *stage)
{
    stage->session = session_open(stage->socket_path);
    wait_until(is_connected(stage), "the daemon's connection to NATS");
}

static void begin_daemon_alone(struct stage *stage, const char *more)
{
    scene_make_directory(stage->directory);
    snprintf(stage->daemon.log_path, PATH_BYTES, "%.200s/log", stage->directory);
    snprintf(stage->socket_path, PATH_BYTES, "%.200s/kvstored.sock", stage->directory);
    write_conf(stage, more);
    start_daemon(stage);
    meet_daemon(stage);
}

static void begin_daemon(struct stage *stage, const char *more)
{
    unsigned ports[CLUSTER_SERVERS];

    server_ports(stage, ports);
    stage->proxy = proxy_start(ports, stage->server_count);
    if (tls_front_wanted() != NULL)
        stage->front = tls_front_start(proxy_port(stage->proxy), tls_front_wanted());
    begin_daemon_alone(stage, more);
    stage->nats = nats_connect(ports, stage->server_count);
}

void stage_begin_embedded(struct stage *stage, const char *more)
{
    memset(stage, 0, sizeof(*stage));
    stage->is_embedded = true;
    begin_daemon_alone(stage, more);
}

void stage_begin_embedded_behind_proxy(struct stage *stage, const char *more)
{
    memset(stage, 0, sizeof(*stage));
    stage->is_embedded = true;
    stage->embedded_port = scene_free_port();
    stage->proxy = proxy_start(&stage->embedded_port, 1);
    begin_daemon_alone(stage, more);
}

static pid_t embedded_pid(const struct stage *stage)
{
    return (pid_t)strtol(read_file(format_text("%s/nats-server.pid", data_dir(stage))), NULL, 10);
}

void stage_kill_embedded(struct stage *stage)
{
    pid_t pid = embedded_pid(stage);

    ck_assert_int_gt(pid, 1);
    kill(pid, SIGKILL);
    if (stage->proxy != NULL)
        proxy_release(stage->proxy);
    wait_until(embedded_pid(stage) > 1 && embedded_pid(stage) != pid && is_connected(stage), "the next server");
}

void stage_begin(struct stage *stage, unsigned server_count, const char *more)
{
    struct cluster cluster;

    memset(stage, 0, sizeof(*stage));
    stage->server_count = server_count;
    if (server_count == 1) {
        server_start(&stage->servers[0]);
    } else {
        cluster_start(&cluster);
        memcpy(stage->servers, cluster.servers, sizeof(stage->servers));
    }
    begin_daemon(stage, more);
}

static void begin_as_guest(struct stage *stage, const struct server *servers, unsigned server_count, const char *more)
{
    memset(stage, 0, sizeof(*stage));
    stage->is_guest = true;
    stage->server_count = server_count;
    memcpy(stage->servers, servers, sizeof(stage->servers)); /* their ports are what counts */
    begin_daemon(stage, more);
}

void stage_begin_in(struct stage *stage, const struct cluster *cluster, const char *more)
{
    begin_as_guest(stage, cluster->servers, CLUSTER_SERVERS, more);
}

void stage_join(struct stage *stage, const struct stage *host, const char *more)
{
    begin_as_guest(stage, host->servers, host->server_count, more);
}

void stage_kill_daemon(struct stage *stage)
{
    session_close(stage->session);
    process_kill(&stage->daemon);
}

void stage_restart_daemon(struct stage *stage)
{
    start_daemon(stage);
    meet_daemon(stage);
}

/* NULL where all is well. */
static const char *what_is_wrong(const struct stage *stage)
{
    static const char *const reports[] = {"AddressSanitizer", "LeakSanitizer", "runtime error:", "internal error",
                                          "slow turn:"};
    const char *log = read_file(stage->daemon.log_path);

    for (size_t i = 0; i < sizeof(reports) / sizeof(reports[0]); i++) {
        const char *found = strstr(log, reports[i]);
        if (found != NULL)
            return format_text("its log has \"%s\":\n%.6000s", reports[i], found);
    }
    if (!WIFEXITED(stage->daemon.status) || WEXITSTATUS(stage->daemon.status) != 0)
        return format_text("its wait status is 0x%x; its log:\n%s", (unsigned)stage->daemon.status, log);
    return NULL;
}

void stage_end(struct stage *stage)
{
    session_close(stage->session);
    if (!process_has_ended(&stage->daemon))
        kill(stage->daemon.pid, SIGTERM);
    process_wait(&stage->daemon);
    const char *wrong = what_is_wrong(stage);
    ck_assert_msg(wrong == NULL, "the daemon has not ended well: %s", wrong);
    if (stage->proxy == NULL)
        return;
    if (stage->front != NULL)
        tls_front_stop(stage->front);
    proxy_stop(stage->proxy);
    if (stage->nats != NULL)
        nats_close(stage->nats);
    for (unsigned i = 0; i < stage->server_count && !stage->is_guest; i++)
        server_kill(&stage->servers[i]);
}

/* Each server is asked on a connection of its own: the one that has not heard of the bucket answers there first. */
void stage_wait_known(struct stage *stage, const char *bucket)
{
    for (unsigned i = 0; i < stage->server_count; i++) {
        struct nats *nats = nats_connect(&stage->servers[i].port, 1);
        nats_api(nats, format_text("STREAM.INFO.KV_%s", bucket), "{}");
        nats_close(nats);
    }
}

static void make_bucket(struct stage *stage, const char *name, unsigned history, const char *options)
{
    assert_ok(session_call(stage->session, "bucket.create", "['%s', {'history': %u, 'replicas': %u%s%s}]", name,
                           history, stage->server_count > 0 ? stage->server_count : 1, options != NULL ? ", " : "",
                           options != NULL ? options : ""));
    stage_wait_known(stage, name);
}

void stage_make_bucket(struct stage *stage, const char *name, const char *options)
{
    make_bucket(stage, name, 64, options);
}

void stage_make_short_bucket(struct stage *stage, const char *name)
{
    make_bucket(stage, name, 1, NULL);
}

void stage_set_window(struct stage *stage, const char *bucket, unsigned window_ms)
{
    json_t *info = nats_api(stage->nats, format_text("STREAM.INFO.KV_%s", bucket), "{}");
    json_t *config = json_object_get(info, "config");

    json_object_set_new(config, "duplicate_window", json_integer(window_ms * 1000000ll));
    nats_api(stage->nats, format_text("STREAM.UPDATE.KV_%s", bucket), "%s", (char *)keep(json_dumps(config, 0)));
}

void stage_reconnect_nats(struct stage *stage)
{
    unsigned ports[CLUSTER_SERVERS];
    unsigned count = server_ports(stage, ports);

    nats_close(stage->nats);
    stage->nats = nats_connect(ports, count);
}

struct server *stage_leader(struct stage *stage, const char *bucket)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    while (now_ms() < end) {
        json_t *info = nats_api(stage->nats, format_text("STREAM.INFO.KV_%s", bucket), "{}");
        const char *leader = json_string_value(json_object_get(json_object_get(info, "cluster"), "leader"));
        for (unsigned i = 0; leader != NULL && i < stage->server_count; i++) {
            if (strcmp(stage->servers[i].name, leader) == 0)
                return &stage->servers[i];
        }
        pause_shortly();
    }
    ck_abort_msg("the stream of %s has no leader", bucket);
    return NULL;
}

static bool is_current(struct stage *stage, const char *bucket)
{
    json_t *info = nats_api(stage->nats, format_text("STREAM.INFO.KV_%s", bucket), "{}");
    json_t *cluster = json_object_get(info, "cluster"), *replicas = json_object_get(cluster, "replicas"), *replica;
    size_t i, current = 0;

    json_array_foreach(replicas, i, replica)
    {
        current +=
            json_is_true(json_object_get(replica, "current")) && !json_is_true(json_object_get(replica, "offline"));
    }
    return json_object_get(cluster, "leader") != NULL && current + 1 == stage->server_count;
}

/* Asks one server, which has its replica answer if there is one that answers at all. */
static bool has_last(struct stage *stage, unsigned server, const char *bucket)
{
    json_t *info = nats_api(stage->nats, format_text("STREAM.INFO.KV_%s", bucket), "{}");
    uint64_t last = (uint64_t)json_integer_value(json_object_get(json_object_get(info, "state"), "last_seq"));

    if (last == 0)
        return true;
    struct nats *nats = nats_connect(&stage->servers[server].port, 1);
    bool has_it = nats_has_revision(nats, bucket, last);
    nats_close(nats);
    return has_it;
}

/* One that is current has everything in its log, and may still answer from what was before. */
void stage_wait_current(struct stage *stage, const char *bucket)
{
    wait_until(is_current(stage, bucket), "all replicas");
    for (unsigned i = 0; i < stage->server_count; i++)
        wait_until(has_last(stage, i, bucket), "a replica's answer");
}

uint64_t stage_stat(struct stage *stage, const char *path)
{
    return number_at(session_call(stage->session, "daemon.stats", "[]")->result, path);
}

uint64_t stage_retries(struct stage *stage)
{
    return stage_stat(stage, "retries");
}
