#include "tests/fault/deployment.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned deployment_server_ports(const struct deployment *deployment, unsigned ports[CLUSTER_SERVERS])
{
    for (unsigned i = 0; i < deployment->server_count; i++)
        ports[i] = deployment->servers[i].port;
    return deployment->server_count;
}

/*
 * Return the program that the daemon starts as its nats-server. If there is a proxy, the server listens on the port
 * that the proxy knows, and the file of its ports names the proxy's.
 */
static const char *deployment_make_server_program(const struct deployment *deployment)
{
    const char *program = format_text("%s/server", deployment->daemon.directory);

    if (deployment->proxy == NULL)
        return test_run_nats_server();
    write_program(program, format_text("#!/bin/sh\n"
                                       "[ \"$1\" = --version ] && exec %s --version\n"
                                       "sed 's/^port: .*/port: %u/; /^ports_file_dir/d' \"$2\" > \"$2.here\"\n"
                                       "ports=$(dirname \"$2\")/ports\n"
                                       "echo '{\"nats\": [\"nats://127.0.0.1:%u\"]}' > $ports/new\n"
                                       "mv $ports/new $ports/proxy_$$.ports\n"
                                       "exec %s -c \"$2.here\"\n",
                                       test_run_nats_server(), deployment->embedded_port, proxy_port(deployment->proxy),
                                       test_run_nats_server()));
    return program;
}

static const char *deployment_nats_section(const struct deployment *deployment)
{
    if (deployment->is_embedded)
        return format_text("  mode: embedded\n  data_dir: %s\n  server_binary: %s\n", deployment->daemon.data_dir,
                           deployment_make_server_program(deployment));
    return deployment->front != NULL
               ? tls_front_section(deployment->front)
               : format_text("  mode: external\n  servers: [nats://127.0.0.1:%u]\n", proxy_port(deployment->proxy));
}

/*
 * Each attempt that the proxy spoils lasts as long as an attempt may, so that is short. A server may be slower: the
 * pauses between attempts grow until its answer comes within one. No fault here may lead to a deadline, to a refusal
 * because of an outage, or to the end of a connection that is only slow. Nor to the end of a session: a test may read
 * its watches one after the other.
 */
static void deployment_write_conf(const struct deployment *deployment, const char *more)
{
    const char *attempt = more != NULL && strstr(more, "attempt_timeout") != NULL ? "" : DEPLOYMENT_ATTEMPTS(0.3);
    const char *limits = more != NULL && strstr(more, "limits:") != NULL ? "" : "limits:\n  stall_timeout: 600\n";

    write_file(deployment->daemon.conf_path,
               format_text("listen:\n  path: %s\nnats:\n  name: kvstored-fault\n%s"
                           "  connect_timeout: 30\n  ping_interval: 60\n  outage_wait: 600\n"
                           "  reconnect_min: 0.01\n  reconnect_max: 0.1\n%s"
                           "calls:\n  timeout: %u\n  max_timeout: %u\n  retry_min: 0.01\n  retry_max: 0.5\n%s%s",
                           deployment->daemon.socket_path, deployment_nats_section(deployment), limits,
                           DEPLOYMENT_CALL_SECONDS, DEPLOYMENT_CALL_SECONDS, attempt, more != NULL ? more : ""));
}

static bool deployment_is_connected(struct deployment *deployment)
{
    const struct answer *answer = client_call(deployment->client, "health.check", "[]");

    return find_at(&answer->result, "nats.connected")->via.boolean;
}

static void deployment_connect(struct deployment *deployment)
{
    deployment->client = client_open(&deployment->daemon);
    wait_until(deployment_is_connected(deployment), "the daemon's connection to NATS");
}

static void deployment_start_daemon(struct deployment *deployment, const char *more)
{
    daemon_prepare(&deployment->daemon);
    deployment_write_conf(deployment, more);
    daemon_spawn(&deployment->daemon, NULL, -1);
    daemon_wait_ready(&deployment->daemon);
    deployment_connect(deployment);
}

static void deployment_start_proxy_and_daemon(struct deployment *deployment, const char *more)
{
    unsigned ports[CLUSTER_SERVERS];

    deployment_server_ports(deployment, ports);
    deployment->proxy = proxy_start(ports, deployment->server_count);
    if (tls_front_wanted() != NULL)
        deployment->front = tls_front_start(proxy_port(deployment->proxy), tls_front_wanted());
    deployment_start_daemon(deployment, more);
    deployment->nats = nats_connect_any(ports, deployment->server_count);
}

void deployment_begin_embedded(struct deployment *deployment, const char *more)
{
    memset(deployment, 0, sizeof(*deployment));
    deployment->is_embedded = true;
    deployment_start_daemon(deployment, more);
}

void deployment_begin_embedded_behind_proxy(struct deployment *deployment, const char *more)
{
    memset(deployment, 0, sizeof(*deployment));
    deployment->is_embedded = true;
    deployment->embedded_port = port_reserve();
    deployment->proxy = proxy_start(&deployment->embedded_port, 1);
    deployment_start_daemon(deployment, more);
}

static pid_t deployment_embedded_pid(const struct deployment *deployment)
{
    return (pid_t)strtol(read_file(format_text("%s/nats-server.pid", deployment->daemon.data_dir)), NULL, 10);
}

void deployment_kill_embedded(struct deployment *deployment)
{
    pid_t pid = deployment_embedded_pid(deployment);

    ck_assert_int_gt(pid, 1);
    kill(pid, SIGKILL);
    if (deployment->proxy != NULL)
        proxy_release(deployment->proxy);
    wait_until(deployment_embedded_pid(deployment) > 1 && deployment_embedded_pid(deployment) != pid &&
                   deployment_is_connected(deployment),
               "the next server");
}

void deployment_begin(struct deployment *deployment, unsigned server_count, const char *more)
{
    struct cluster cluster;

    memset(deployment, 0, sizeof(*deployment));
    deployment->server_count = server_count;
    if (server_count == 1) {
        nats_server_start(&deployment->servers[0], "server_name: n1");
    } else {
        cluster_start(&cluster);
        memcpy(deployment->servers, cluster.servers, sizeof(deployment->servers));
    }
    deployment_start_proxy_and_daemon(deployment, more);
}

static void deployment_begin_as_guest(struct deployment *deployment, const struct nats_server *servers,
                                      unsigned server_count, const char *more)
{
    memset(deployment, 0, sizeof(*deployment));
    deployment->is_guest = true;
    deployment->server_count = server_count;
    memcpy(deployment->servers, servers, sizeof(deployment->servers)); /* only their ports are used */
    deployment_start_proxy_and_daemon(deployment, more);
}

void deployment_begin_in(struct deployment *deployment, const struct cluster *cluster, const char *more)
{
    deployment_begin_as_guest(deployment, cluster->servers, CLUSTER_SERVERS, more);
}

void deployment_join(struct deployment *deployment, const struct deployment *host, const char *more)
{
    deployment_begin_as_guest(deployment, host->servers, host->server_count, more);
}

void deployment_kill_daemon(struct deployment *deployment)
{
    client_close(deployment->client);
    process_kill(&deployment->daemon.process);
}

void deployment_restart_daemon(struct deployment *deployment)
{
    daemon_restart(&deployment->daemon);
    deployment_connect(deployment);
}

void deployment_end(struct deployment *deployment)
{
    client_close(deployment->client);
    if (process_has_ended(&deployment->daemon.process))
        daemon_expect_good_end(&deployment->daemon);
    else
        daemon_stop(&deployment->daemon);
    if (deployment->proxy == NULL)
        return;
    if (deployment->front != NULL)
        tls_front_stop(deployment->front);
    proxy_stop(deployment->proxy);
    if (deployment->nats != NULL)
        nats_close(deployment->nats);
    for (unsigned i = 0; i < deployment->server_count && !deployment->is_guest; i++)
        nats_server_kill(&deployment->servers[i]);
}

/* Ask each server on a connection of its own: a server that does not know the bucket answers there first. */
void deployment_wait_known(struct deployment *deployment, const char *bucket)
{
    for (unsigned i = 0; i < deployment->server_count; i++) {
        struct nats *nats = nats_connect_any(&deployment->servers[i].port, 1);
        nats_api(nats, "STREAM.INFO", format_text("KV_%s", bucket), "{}");
        nats_close(nats);
    }
}

static void deployment_make_bucket_with(struct deployment *deployment, const char *name, unsigned history,
                                        const char *options)
{
    assert_ok(client_call(deployment->client, "bucket.create", "['%s', {'history': %u, 'replicas': %u%s%s}]", name,
                          history, deployment->server_count > 0 ? deployment->server_count : 1,
                          options != NULL ? ", " : "", options != NULL ? options : ""));
    deployment_wait_known(deployment, name);
}

void deployment_make_bucket(struct deployment *deployment, const char *name, const char *options)
{
    deployment_make_bucket_with(deployment, name, 64, options);
}

void deployment_make_short_bucket(struct deployment *deployment, const char *name)
{
    deployment_make_bucket_with(deployment, name, 1, NULL);
}

void deployment_set_window(struct deployment *deployment, const char *bucket, unsigned window_ms)
{
    json_t *info = nats_api(deployment->nats, "STREAM.INFO", format_text("KV_%s", bucket), "{}");
    json_t *config = json_object_get(info, "config");

    json_object_set_new(config, "duplicate_window", json_integer(window_ms * 1000000ll));
    nats_api(deployment->nats, "STREAM.UPDATE", format_text("KV_%s", bucket), "%s",
             (char *)keep(json_dumps(config, 0)));
}

void deployment_reconnect_nats(struct deployment *deployment)
{
    unsigned ports[CLUSTER_SERVERS];
    unsigned count = deployment_server_ports(deployment, ports);

    nats_close(deployment->nats);
    deployment->nats = nats_connect_any(ports, count);
}

struct nats_server *deployment_leader(struct deployment *deployment, const char *bucket)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    while (now_ms() < end) {
        json_t *info = nats_api(deployment->nats, "STREAM.INFO", format_text("KV_%s", bucket), "{}");
        const char *leader = json_string_value(json_object_get(json_object_get(info, "cluster"), "leader"));
        for (unsigned i = 0; leader != NULL && i < deployment->server_count; i++) {
            if (strcmp(cluster_server_name(i), leader) == 0)
                return &deployment->servers[i];
        }
        pause_shortly();
    }
    ck_abort_msg("the stream of %s has no leader", bucket);
    return NULL;
}

static bool deployment_is_current(struct deployment *deployment, const char *bucket)
{
    json_t *info = nats_api(deployment->nats, "STREAM.INFO", format_text("KV_%s", bucket), "{}");
    json_t *cluster = json_object_get(info, "cluster"), *replicas = json_object_get(cluster, "replicas"), *replica;
    size_t i, current = 0;

    json_array_foreach(replicas, i, replica)
    {
        current +=
            json_is_true(json_object_get(replica, "current")) && !json_is_true(json_object_get(replica, "offline"));
    }
    return json_object_get(cluster, "leader") != NULL && current + 1 == deployment->server_count;
}

/* Ask one server, whose own replica answers if it answers at all. */
static bool deployment_has_last(struct deployment *deployment, unsigned server, const char *bucket)
{
    json_t *info = nats_api(deployment->nats, "STREAM.INFO", format_text("KV_%s", bucket), "{}");
    uint64_t last = (uint64_t)json_integer_value(json_object_get(json_object_get(info, "state"), "last_seq"));

    if (last == 0)
        return true;
    struct nats *nats = nats_connect_any(&deployment->servers[server].port, 1);
    bool has_it = nats_has_revision(nats, bucket, last);
    nats_close(nats);
    return has_it;
}

/* A replica that is current has everything in its log, but may not have applied it yet. */
void deployment_wait_current(struct deployment *deployment, const char *bucket)
{
    wait_until(deployment_is_current(deployment, bucket), "all replicas");
    for (unsigned i = 0; i < deployment->server_count; i++)
        wait_until(deployment_has_last(deployment, i, bucket), "a replica's answer");
}

uint64_t deployment_stat(struct deployment *deployment, const char *path)
{
    return number_at(&client_call(deployment->client, "daemon.stats", "[]")->result, path);
}

uint64_t deployment_retries(struct deployment *deployment)
{
    return deployment_stat(deployment, "retries");
}
