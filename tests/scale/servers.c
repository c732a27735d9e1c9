#include "tests/scale/scale.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_S       600.0
#define MORE_ROUNDS   20u        /* a second apart */
#define EXTERNAL_NAME "external" /* of the daemon; its server is called servers->name */

/* Wide enough for every size. Without busy polling a call's processor time is only what the call costs. */
static const char sections[] =
    "limits: {sessions: 32000, user_percent: 100, frame_bytes: 256M, call_bytes: 1G, call_bytes_per_session: 512M, "
    "out_buffer_bytes: 512M, out_bytes: 2G}\n"
    "cache: {max_bytes: 8G, idle_timeout: 3600}\n"
    "watches: {max_buckets: 32000, max_per_session: 32000, max_filters: 100000, buffer_bytes: 512M}\n"
    "calls: {timeout: 60, max_timeout: 300, busy_poll: off}\n";

static const struct kvs_options options = KVS_OPTIONS(.timeout_s = 60, .max_message_bytes = 1u << 30);

static pid_t read_server_pid(const struct scale_servers *servers)
{
    char path[64];
    int pid = 0;

    snprintf(path, sizeof(path), "%s/nats-server.pid", servers->name);
    FILE *file = fopen(path, "r");
    if (file == NULL || fscanf(file, "%d", &pid) != 1 || pid <= 1)
        bench_die("%s has no server", servers->name);
    fclose(file);
    return pid;
}

static double processor_us(const struct scale_servers *servers)
{
    return bench_cpu_us(servers->servers.daemon) + bench_cpu_us(servers->servers.server);
}

static void connect_to(struct scale_servers *servers)
{
    struct kvs_error error;

    if ((servers->kvs = kvs_connect(servers->servers.socket_path, &options, &error)) == NULL)
        bench_die("%s", error.message);
}

void scale_start(struct scale_servers *servers, const struct scale *scale, const char *name, bool is_embedded)
{
    const struct bench *bench = scale->bench;

    *servers = (struct scale_servers){.bench = bench, .is_embedded = is_embedded};
    snprintf(servers->name, sizeof(servers->name), "%s", name);
    servers->servers.name = servers->name;
    servers->servers.sections = sections;
    servers->servers.syncs_seldom = scale->is_short;
    if (is_embedded) {
        bench_start_embedded(bench, &servers->servers, servers->name, NULL);
        servers->servers.server = read_server_pid(servers);
    } else {
        bench_start_external(bench, &servers->servers, EXTERNAL_NAME);
    }
    connect_to(servers);
}

static void remove_data(const struct scale_servers *servers)
{
    char *const argv[] = {"/bin/rm", "-rf", (char *)servers->name, NULL};
    int status;

    if (waitpid(bench_spawn("rm", argv), &status, 0) < 0 || status != 0)
        bench_die("cannot remove %s", servers->name);
}

static void end_daemon(struct scale_servers *servers, enum scale_ending ending)
{
    kvs_close(servers->kvs);
    servers->kvs = NULL;
    if (ending == SCALE_KILL) {
        /* End the server first, so that it cannot end in an orderly way, and the daemon does not start another one. */
        kill(servers->servers.daemon, SIGSTOP);
        if (servers->is_embedded)
            kill(servers->servers.server, SIGKILL);
        kill(servers->servers.daemon, SIGKILL);
    }
    bench_end(servers->servers.daemon);
}

void scale_end(struct scale_servers *servers)
{
    end_daemon(servers, SCALE_STOP);
    if (!servers->is_embedded)
        bench_end(servers->servers.server);
    remove_data(servers);
}

static bool is_healthy(const struct scale_servers *servers)
{
    struct kvs *kvs = kvs_connect(servers->servers.socket_path, &options, NULL);
    struct kvs_value *health = NULL;

    bool is_well = kvs != NULL && kvs_health(kvs, BENCH_BUCKET, NULL, &health) == KVS_OK &&
                   kvs_value_boolean(kvs_value_member(health, "healthy"));
    kvs_free(health);
    kvs_close(kvs);
    return is_well;
}

void scale_restart(struct scale_servers *servers, enum scale_ending ending, double units, struct growth_sample *sample)
{
    end_daemon(servers, ending);
    double begin_s = bench_now_s();
    bench_restart_daemon(servers->bench, &servers->servers, servers->is_embedded ? servers->name : EXTERNAL_NAME);
    while (!is_healthy(servers)) {
        if (bench_now_s() > begin_s + START_S)
            bench_die("%s does not start", servers->name);
        usleep(1000);
    }
    double passed_us = (bench_now_s() - begin_s) * 1e6;
    if (servers->is_embedded)
        servers->servers.server = read_server_pid(servers);
    /* All that the new processes have used. */
    *sample = (struct growth_sample){.units = units, .passed = passed_us, .processor = processor_us(servers)};
    connect_to(servers);
}

bool scale_note_error(struct scale_servers *servers, const char *what)
{
    const struct kvs_error *error = kvs_last_error(servers->kvs);

    snprintf(servers->failure, sizeof(servers->failure), "%s: %s: %.100s", what, kvs_code_name(error->code),
             error->message);
    return false;
}

uint64_t scale_stat(struct scale_servers *servers, const char *map, const char *member)
{
    struct kvs_value *stats = NULL;

    if (kvs_daemon_stats(servers->kvs, NULL, &stats) != KVS_OK)
        bench_die("daemon.stats: %s", kvs_last_error(servers->kvs)->message);
    uint64_t number = kvs_value_unsigned(kvs_value_member(kvs_value_member(stats, map), member));
    kvs_free(stats);
    return number;
}

/* --- Measuring ---------------------------------------------------------------------------------------- */

struct scale_span scale_begin(const struct scale_servers *servers)
{
    return (struct scale_span){.processor_us = processor_us(servers), .begin_s = bench_now_s()};
}

struct growth_sample scale_finish(const struct scale_servers *servers, struct scale_span span, double units)
{
    return (struct growth_sample){.units = units,
                                  .passed = (bench_now_s() - span.begin_s) * 1e6,
                                  .processor = processor_us(servers) - span.processor_us};
}

bool scale_wants_round(const struct growth *growth, size_t row, unsigned round, unsigned rounds)
{
    if (round < rounds)
        return true;
    if (round == rounds + MORE_ROUNDS || growth_has_failed(growth, row) || !growth_fails(growth, row))
        return false;
    sleep(1);
    return true;
}

/* False: the operation has failed. */
static bool measure_round(struct growth *growth, size_t row, struct scale_servers *servers, double units,
                          scale_operation *operation, void *context)
{
    const double round_s = growth->is_short ? 0.05 : 0.2;
    struct scale_span span = scale_begin(servers);
    unsigned times = 0;

    do {
        if (!operation(servers, context)) {
            growth_fail(growth, row, "%s", servers->failure);
            return false;
        }
        times++;
    } while (bench_now_s() - span.begin_s < round_s);
    growth_add(growth, row, scale_finish(servers, span, units * times));
    return true;
}

void scale_measure(struct growth *growth, size_t row, struct scale_servers *servers, unsigned rounds, double units,
                   scale_operation *operation, void *context)
{
    if (!growth_wants(growth, row))
        return;
    scale_print_progress("%s, %s", growth->title, growth->rows[row].name);
    for (unsigned round = 0; scale_wants_round(growth, row, round, rounds); round++) {
        if (!measure_round(growth, row, servers, units, operation, context))
            return;
    }
}
