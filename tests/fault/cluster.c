#include "tests/fault/cluster.h"

#include "tests/support/nats.h"

#include <string.h>

static bool cluster_has_leader(struct nats *nats)
{
    struct nats_message answer;

    return nats_try_request(nats, "$JS.API.INFO", "", &answer) && strstr(answer.payload, "\"error\"") == NULL;
}

const char *cluster_server_name(unsigned index)
{
    return format_text("n%u", index + 1);
}

void cluster_start(struct cluster *cluster)
{
    struct nats_server *servers = cluster->servers;
    unsigned routes[CLUSTER_SERVERS], ports[CLUSTER_SERVERS];

    for (unsigned i = 0; i < CLUSTER_SERVERS; i++)
        routes[i] = port_reserve();
    for (unsigned i = 0; i < CLUSTER_SERVERS; i++) {
        /* no_advertise: the daemon must not learn of ways around the proxy. */
        nats_server_prepare(
            &servers[i],
            format_text("server_name: %s\n"
                        "cluster {\n  name: fault\n  listen: \"127.0.0.1:%u\"\n  no_advertise: true\n"
                        "  routes: [\"nats://127.0.0.1:%u\", \"nats://127.0.0.1:%u\", \"nats://127.0.0.1:%u\"]\n}\n",
                        cluster_server_name(i), routes[i], routes[0], routes[1], routes[2]));
        ports[i] = servers[i].port;
    }
    for (unsigned i = 0; i < CLUSTER_SERVERS; i++)
        nats_server_run(&servers[i]);
    struct nats *nats = nats_connect_any(ports, CLUSTER_SERVERS);
    wait_until(cluster_has_leader(nats), "JetStream's leader");
    nats_close(nats);
}

void cluster_kill(struct cluster *cluster)
{
    for (unsigned i = 0; i < CLUSTER_SERVERS; i++)
        nats_server_kill(&cluster->servers[i]);
}
