#include "tests/fault/server.h"

#include "tests/fault/nats.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void choose_place(struct server *server, unsigned number)
{
    memset(server, 0, sizeof(*server));
    test_run_make_directory(server->directory);
    snprintf(server->process.log_path, PATH_BYTES, "%.200s/log", server->directory);
    snprintf(server->name, sizeof(server->name), "n%u", number);
    server->port = port_reserve();
}

static void run(struct server *server)
{
    char *arguments[] = {keep(strdup(test_run_nats_server())), "-c", format_text("%s/conf", server->directory), NULL};
    uint64_t end = now_ms() + PATIENCE_MS;
    int probe;

    process_start(&server->process, arguments);
    while ((probe = port_dial(server->port)) < 0) {
        ck_assert_msg(!process_has_ended(&server->process) && now_ms() < end, "nats-server does not listen:\n%s",
                      read_file(server->process.log_path));
        pause_shortly();
    }
    close(probe);
}

static const char *common_conf(const struct server *server)
{
    return format_text("server_name: %s\nhost: 127.0.0.1\nport: %u\njetstream { store_dir: \"%s\" }\n", server->name,
                       server->port, server->directory);
}

void server_limit_store(struct server *server, uint64_t bytes)
{
    write_file(format_text("%s/conf", server->directory),
               format_text("server_name: %s\nhost: 127.0.0.1\nport: %u\n"
                           "jetstream {\n  store_dir: \"%s\"\n  max_file_store: %llu\n}\n",
                           server->name, server->port, server->directory, (unsigned long long)bytes));
}

void server_start(struct server *server)
{
    choose_place(server, 1);
    write_file(format_text("%s/conf", server->directory), common_conf(server));
    run(server);
}

static bool has_leader(struct nats *nats)
{
    struct nats_message answer;

    return nats_request(nats, "$JS.API.INFO", "", &answer) && strstr(answer.payload, "\"error\"") == NULL;
}

void cluster_start(struct cluster *cluster)
{
    struct server *servers = cluster->servers;
    unsigned routes[CLUSTER_SERVERS], ports[CLUSTER_SERVERS];

    for (unsigned i = 0; i < CLUSTER_SERVERS; i++) {
        choose_place(&servers[i], i + 1);
        ports[i] = servers[i].port;
        routes[i] = port_reserve();
    }
    for (unsigned i = 0; i < CLUSTER_SERVERS; i++) {
        /* no_advertise: the daemon must not learn of ways around the proxy. */
        write_file(
            format_text("%s/conf", servers[i].directory),
            format_text("%scluster {\n  name: fault\n  listen: \"127.0.0.1:%u\"\n  no_advertise: true\n"
                        "  routes: [\"nats://127.0.0.1:%u\", \"nats://127.0.0.1:%u\", \"nats://127.0.0.1:%u\"]\n}\n",
                        common_conf(&servers[i]), routes[i], routes[0], routes[1], routes[2]));
    }
    for (unsigned i = 0; i < CLUSTER_SERVERS; i++)
        run(&servers[i]);
    struct nats *nats = nats_connect(ports, CLUSTER_SERVERS);
    wait_until(has_leader(nats), "JetStream's leader");
    nats_close(nats);
}

void cluster_kill(struct cluster *cluster)
{
    for (unsigned i = 0; i < CLUSTER_SERVERS; i++)
        server_kill(&cluster->servers[i]);
}

void server_kill(struct server *server)
{
    process_kill(&server->process);
}

void server_end(struct server *server)
{
    kill(server->process.pid, SIGTERM);
    process_wait(&server->process);
}

void server_freeze(struct server *server)
{
    pid_stand_still(server->process.pid);
}

void server_thaw(struct server *server)
{
    pid_go_on(server->process.pid);
}

void server_restart(struct server *server)
{
    run(server);
}
