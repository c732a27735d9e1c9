/* A well-behaved client during an attack on the daemon; the peer is the same client just before the attack. */
#include "tests/bench/bench.h"

#include "tests/support/attack.h"
#include "tests/support/neighbour.h"
#include "tests/support/ports.h"

#include <stdio.h>
#include <sys/mman.h>

#define NEIGHBOUR_BUCKET "neighbour"
#define CALM_CALLS       150u

/* Shared with the client of the round. */
struct round {
    const struct attack_kind *kind;
    double calm_ms, attacked_ms;
};

static void check(const struct attack_kind *kind, const char *error)
{
    if (error[0] != '\0')
        bench_die("%s: %s", kind->name, error);
}

static void run_round(struct bench_client *client)
{
    struct round *round = client->context;
    struct attack attack = {.socket_path = client->servers->socket_path,
                            .neighbour_bucket = NEIGHBOUR_BUCKET,
                            .port = port_of_embedded_server(client->servers->name),
                            .seconds = BENCH_ROUND_S};
    struct neighbour_report first, calm, attacked;

    if (attack.port == 0)
        bench_die("%s: no port of nats-server", client->servers->name);
    attack_prepare(round->kind, &attack);
    check(round->kind, attack.error);
    struct neighbour *neighbour = neighbour_begin(attack.socket_path, NEIGHBOUR_BUCKET, &first);
    if (neighbour == NULL)
        bench_die("%s", first.error);
    neighbour_report(neighbour, &first); /* the first calls look up the bucket */
    neighbour_report_calls(neighbour, CALM_CALLS, &calm);
    attack_run(round->kind, &attack);
    neighbour_report(neighbour, &attacked);
    neighbour_end(neighbour);
    check(round->kind, attack.error);
    check(round->kind, attacked.error);
    round->calm_ms = calm.p99_ms;
    round->attacked_ms = attacked.p99_ms;
}

/* A daemon of its own for each round, in embedded mode: some attacks last longer than their clients. */
static void measure(const struct bench *bench, struct round *round)
{
    static unsigned number;
    struct bench_servers servers = {0};
    const struct bench_client client = {.bench = bench, .servers = &servers, .context = round};
    char name[32];

    snprintf(name, sizeof(name), "neighbour-%u", ++number);
    bench_start_embedded(bench, &servers, name, NULL);
    bench_alone(&client, run_round);
    bench_end(servers.daemon);
}

double neighbour_ms(const struct bench *bench, bool is_ours, const struct attack_kind *kind)
{
    static struct round *round;

    if (round == NULL)
        round = mmap(NULL, sizeof(*round), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (round == MAP_FAILED)
        bench_die("out of memory");
    if (!is_ours)
        return round->calm_ms; /* of the round that was just measured */
    round->kind = kind;
    measure(bench, round);
    return round->attacked_ms;
}
