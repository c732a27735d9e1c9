/* A well-behaved client during an attack on the daemon; the peer is the same client just before the attack. */
#include "tests/bench/bench.h"

#include "tests/support/attack.h"
#include "tests/support/neighbour.h"
#include "tests/support/ports.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define NEIGHBOUR_BUCKET "neighbour"
#define CALM_CALLS       150u
#define CALM_COMMANDS    4u

/* Shared with the client of the round. */
struct round {
    const struct attack_kind *kind;
    bool is_kvctl; /* the client is kvctl, and the figures are its longest command */
    double calm_ms, attacked_ms;
};

static void check(const struct attack_kind *kind, const char *error)
{
    if (error[0] != '\0')
        bench_die("%s: %s", kind->name, error);
}

/* kvctl is the one that was built beside the daemon. */
static struct neighbour *begin(const struct bench_client *client, bool is_kvctl, struct neighbour_report *report)
{
    const char *daemon = client->bench->kvstored;
    char kvctl[PATH_MAX];

    if (!is_kvctl)
        return neighbour_begin(client->servers->socket_path, NEIGHBOUR_BUCKET, report);
    snprintf(kvctl, sizeof(kvctl), "%.*s/kvctl", (int)(strrchr(daemon, '/') - daemon), daemon);
    return neighbour_begin_kvctl(kvctl, client->servers->socket_path, NEIGHBOUR_BUCKET, report);
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
    struct neighbour *neighbour = begin(client, round->is_kvctl, &first);
    if (neighbour == NULL)
        bench_die("%s", first.error);
    neighbour_report(neighbour, &first); /* the first calls look up the bucket */
    neighbour_report_calls(neighbour, round->is_kvctl ? CALM_COMMANDS : CALM_CALLS, &calm);
    attack_run(round->kind, &attack);
    neighbour_report(neighbour, &attacked);
    neighbour_end(neighbour);
    check(round->kind, attack.error);
    check(round->kind, attacked.error);
    round->calm_ms = round->is_kvctl ? calm.longest_ms : calm.p99_ms;
    round->attacked_ms = round->is_kvctl ? attacked.longest_ms : attacked.p99_ms;
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

static double measure_side(const struct bench *bench, bool is_ours, const struct attack_kind *kind, bool is_kvctl)
{
    static struct round *round;

    if (round == NULL)
        round = mmap(NULL, sizeof(*round), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (round == MAP_FAILED)
        bench_die("out of memory");
    if (!is_ours)
        return round->calm_ms; /* of the round that was just measured */
    round->kind = kind;
    round->is_kvctl = is_kvctl;
    measure(bench, round);
    return round->attacked_ms;
}

double neighbour_ms(const struct bench *bench, bool is_ours, const struct attack_kind *kind)
{
    return measure_side(bench, is_ours, kind, false);
}

double neighbour_kvctl_ms(const struct bench *bench, bool is_ours, const struct attack_kind *kind)
{
    return measure_side(bench, is_ours, kind, true);
}
