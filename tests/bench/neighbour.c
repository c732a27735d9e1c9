/* A well-behaved client during an attack on the daemon; the peer is the same client without the attack. */
#include "tests/bench/bench.h"

#include "tests/support/attack.h"
#include "tests/support/neighbour.h"
#include "tests/support/ports.h"

#include <stdio.h>
#include <unistd.h>

#define NEIGHBOUR_BUCKET "neighbour"

static void run_neighbour(struct bench_client *client)
{
    const struct attack_kind *kind = client->context;
    struct attack attack = {.socket_path = client->servers->socket_path,
                            .neighbour_bucket = NEIGHBOUR_BUCKET,
                            .port = port_of_embedded_server(client->servers->name),
                            .seconds = BENCH_ROUND_S};
    struct neighbour_report report;

    if (attack.port == 0)
        bench_die("%s: no port of nats-server", client->servers->name);
    attack_prepare(kind, &attack);
    struct neighbour *neighbour = neighbour_begin(attack.socket_path, NEIGHBOUR_BUCKET, &report);
    if (neighbour == NULL)
        bench_die("%s", report.error);
    neighbour_report(neighbour, &report); /* the first calls look up the bucket */
    if (client->is_ours)
        attack_run(kind, &attack);
    else
        usleep((unsigned)(BENCH_ROUND_S * 1e6));
    neighbour_report(neighbour, &report);
    neighbour_end(neighbour);
    if (attack.error[0] != '\0' || report.error[0] != '\0')
        bench_die("%s: %s", kind->name, attack.error[0] != '\0' ? attack.error : report.error);
    client->result = report.p99_ms;
}

/* A daemon of its own for each round, in embedded mode: some attacks last longer than their clients. */
static double measure(const struct bench *bench, bool is_ours, const struct attack_kind *kind)
{
    static unsigned number;
    struct bench_servers servers = {0};
    const struct bench_client client = {
        .bench = bench, .servers = &servers, .is_ours = is_ours, .context = (void *)kind};
    char name[32];

    snprintf(name, sizeof(name), "neighbour-%u", ++number);
    bench_start_embedded(bench, &servers, name, NULL);
    double p99_ms = bench_alone(&client, run_neighbour);
    bench_end(servers.daemon);
    return p99_ms;
}

#define NEIGHBOUR_ROW(name, kind)                                                                                      \
    double name(const struct bench *bench, bool is_ours)                                                               \
    {                                                                                                                  \
        return measure(bench, is_ours, &(kind));                                                                       \
    }

NEIGHBOUR_ROW(neighbour_unfinished_ms, attack_unfinished_messages)
NEIGHBOUR_ROW(neighbour_unread_ms, attack_unread_answers)
NEIGHBOUR_ROW(neighbour_decoded_arrays_ms, attack_decoded_arrays)
NEIGHBOUR_ROW(neighbour_missing_buckets_ms, attack_missing_buckets)
NEIGHBOUR_ROW(neighbour_connections_ms, attack_connections)
NEIGHBOUR_ROW(neighbour_wrong_logins_ms, attack_wrong_logins)
NEIGHBOUR_ROW(neighbour_leaving_ms, attack_leaving)
NEIGHBOUR_ROW(neighbour_bulk_put_ms, attack_bulk_put_same_bucket)
NEIGHBOUR_ROW(neighbour_bulk_get_ms, attack_bulk_get)
NEIGHBOUR_ROW(neighbour_transactions_ms, attack_transactions)
NEIGHBOUR_ROW(neighbour_json_ms, attack_json_values)
NEIGHBOUR_ROW(neighbour_watch_churn_ms, attack_watch_churn)
NEIGHBOUR_ROW(neighbour_lock_churn_ms, attack_lock_churn)
NEIGHBOUR_ROW(neighbour_lock_waiters_ms, attack_leaving_waiters)
