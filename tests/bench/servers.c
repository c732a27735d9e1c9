#include "client/lib/kvstore_admin.h"
#include "tests/bench/bench.h"
#include "tests/support/ports.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define START_S 20.0

static FILE *create(const char *path)
{
    FILE *file = fopen(path, "w");

    if (file == NULL)
        bench_die("cannot write %s", path);
    return file;
}

/* Start a nats-server. more: further lines of its configuration. */
static void start_nats_with(const struct bench *bench, struct bench_servers *servers, const char *jetstream,
                            const char *more)
{
    char conf[256];

    servers->port = (int)port_reserve();
    snprintf(servers->url, sizeof(servers->url), "nats://127.0.0.1:%d", servers->port);
    snprintf(conf, sizeof(conf), "%s.conf", servers->name);
    FILE *file = create(conf);
    fprintf(file, "listen: \"127.0.0.1:%d\"\njetstream { store_dir: \"%s\"%s }\n%s", servers->port, servers->name,
            jetstream, more);
    fclose(file);
    bench_restart_nats(bench, servers);
}

void bench_restart_nats(const struct bench *bench, struct bench_servers *servers)
{
    char conf[256];

    snprintf(conf, sizeof(conf), "%s.conf", servers->name);
    char *argv[] = {(char *)bench->nats_server, "-c", conf, NULL};
    servers->server = bench_spawn(servers->name, argv);
}

void bench_start_nats(const struct bench *bench, struct bench_servers *servers)
{
    start_nats_with(bench, servers, servers->is_durable ? ", sync_interval: always" : "", "");
}

/* Begin a daemon's configuration, NAME.yaml: all of it but "nats" and what the row is about. */
static FILE *begin_conf(struct bench_servers *servers, const char *name)
{
    char path[256];

    snprintf(servers->socket_path, sizeof(servers->socket_path), "%s.sock", name);
    snprintf(path, sizeof(path), "%s.yaml", name);
    FILE *file = create(path);
    fprintf(file, "listen: {path: %s}\n%s", servers->socket_path, servers->sections != NULL ? servers->sections : "");
    return file;
}

void bench_restart_daemon(const struct bench *bench, struct bench_servers *servers, const char *name)
{
    char path[256];

    snprintf(path, sizeof(path), "%s.yaml", name);
    char *argv[] = {(char *)bench->kvstored, "--config", path, NULL};
    servers->daemon = bench_spawn(name, argv);
}

/* End the configuration, and start the daemon with it. */
static void end_conf(const struct bench *bench, struct bench_servers *servers, const char *name, FILE *file)
{
    fclose(file);
    bench_restart_daemon(bench, servers, name);
}

void bench_start_daemon(const struct bench *bench, struct bench_servers *servers, const char *name)
{
    FILE *file = begin_conf(servers, name);

    fprintf(file, "nats:\n  mode: external\n  servers: [\"%s\"]\n", servers->url);
    if (servers->authority != NULL)
        fprintf(file, "  tls: {ca: %s}\n", servers->authority);
    if (servers->is_durable)
        fprintf(file, "buckets: {group_commit: on}\n");
    end_conf(bench, servers, name, file);
}

static void make_bucket(const struct bench_servers *servers)
{
    double give_up_s = bench_now_s() + START_S;
    struct kvs_error error;

    for (;;) {
        struct kvs *kvs = kvs_connect(servers->socket_path, NULL, &error);
        enum kvs_code code = kvs != NULL ? kvs_bucket_create(kvs, BENCH_BUCKET, NULL, NULL) : KVS_IO;
        if (code != KVS_OK && kvs != NULL)
            error = *kvs_last_error(kvs);
        kvs_close(kvs);
        if (code == KVS_OK)
            return;
        if (bench_now_s() > give_up_s)
            bench_die("the daemon does not serve: %s", error.message);
        usleep(20000);
    }
}

void bench_start_external(const struct bench *bench, struct bench_servers *servers, const char *daemon_name)
{
    bench_start_nats(bench, servers);
    bench_start_daemon(bench, servers, daemon_name);
    make_bucket(servers);
}

void bench_start_redis(const struct bench *bench, struct bench_redis *redis, const char *name, bool is_durable)
{
    char path[160];

    if (mkdir(name, 0700) != 0)
        bench_die("cannot make %s", name);
    snprintf(redis->socket_path, sizeof(redis->socket_path), "%s.sock", name);
    snprintf(path, sizeof(path), "../%s", redis->socket_path); /* it changes to its directory first */
    char *argv[] = {(char *)bench->redis_server,
                    "--port",
                    "0",
                    "--unixsocket",
                    path,
                    "--dir",
                    (char *)name,
                    "--save",
                    "",
                    "--appendonly",
                    is_durable ? "yes" : "no",
                    "--appendfsync",
                    "always",
                    "--maxclients",
                    "12000",
                    NULL};
    redis->server = bench_spawn(name, argv);
}

static void await_redis(const struct bench_redis *redis)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    double give_up_s = bench_now_s() + START_S;

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", redis->socket_path);
    for (;;) {
        int probe = socket(AF_UNIX, SOCK_STREAM, 0);
        bool is_there = connect(probe, (struct sockaddr *)&address, sizeof(address)) == 0;
        close(probe);
        if (is_there)
            return;
        if (bench_now_s() > give_up_s)
            bench_die("redis-server does not serve");
        usleep(20000);
    }
}

/* --- Embedded mode --------------------------------------------------------------------------------- */

void bench_configure_embedded(const struct bench *bench, struct bench_servers *servers, const char *name,
                              const char *group_commit)
{
    char directory[PATH_MAX];

    if (getcwd(directory, sizeof(directory)) == NULL)
        bench_die("no directory");
    servers->name = name;
    FILE *file = begin_conf(servers, name);
    fprintf(file, "nats: {data_dir: '%s/%s', server_binary: '%s'%s}\n", directory, name, bench->nats_server,
            servers->syncs_seldom ? ", sync_interval: 60" : "");
    if (group_commit != NULL)
        fprintf(file, "buckets: {group_commit: %s}\n", group_commit);
    fclose(file);
}

void bench_start_embedded(const struct bench *bench, struct bench_servers *servers, const char *name,
                          const char *group_commit)
{
    bench_configure_embedded(bench, servers, name, group_commit);
    bench_restart_daemon(bench, servers, name);
    make_bucket(servers);
}

void bench_start(struct bench *bench)
{
    bench->ordinary.name = "ordinary";
    bench->durable.name = "durable";
    bench->durable.is_durable = true;
    bench_start_external(bench, &bench->ordinary, "kvstored");
    bench_start_external(bench, &bench->durable, "kvstored-durable");
    bench_start_redis(bench, &bench->redis, "redis", false);
    bench_start_redis(bench, &bench->redis_durable, "redis-durable", true);
    bench_start_embedded(bench, &bench->embedded, "embedded", NULL);
    await_redis(&bench->redis);
    await_redis(&bench->redis_durable);
}

/* --- TLS ------------------------------------------------------------------------------------------- */

static struct bench_servers encrypted_servers = {.name = "encrypted", .authority = "tls.pem"};

static void make_certificate(void)
{
    static const char command[] = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
                                  "-subj /CN=bench -addext subjectAltName=IP:127.0.0.1 -keyout tls.key -out tls.pem "
                                  ">openssl.log 2>&1";

    if (system(command) != 0) // NOLINT: a constant command
        bench_die("openssl cannot make a certificate");
}

const struct bench_servers *bench_start_encrypted(const struct bench *bench)
{
    if (encrypted_servers.daemon == 0) {
        make_certificate();
        start_nats_with(bench, &encrypted_servers, "", "tls { cert_file: \"tls.pem\", key_file: \"tls.key\" }\n");
        snprintf(encrypted_servers.url, sizeof(encrypted_servers.url), "tls://127.0.0.1:%d", encrypted_servers.port);
        bench_start_daemon(bench, &encrypted_servers, "kvstored-tls");
        make_bucket(&encrypted_servers);
    }
    return &encrypted_servers;
}

void bench_stop(struct bench *bench)
{
    if (encrypted_servers.daemon != 0) {
        bench_end(encrypted_servers.daemon);
        bench_end(encrypted_servers.server);
    }

    bench_end(bench->ordinary.daemon);
    bench_end(bench->durable.daemon);
    bench_end(bench->embedded.daemon);
    /* The daemons of bench_start_embedded that a row has started end with this process. */
    bench_end(bench->ordinary.server);
    bench_end(bench->durable.server);
    bench_end(bench->redis.server);
    bench_end(bench->redis_durable.server);
}
