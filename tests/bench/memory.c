#include "tests/bench/bench.h"

#include "tests/bench/load.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define IDLE_CLIENTS 1000u
#define SETTLE_US    500000

/* A server of its own for each round, so that earlier rounds have no effect. */
struct fresh {
    struct bench_servers servers;
    struct bench_redis redis;
    const char *socket_path;
    pid_t pid;
    const struct load_protocol *protocol;
};

static void start(const struct bench *bench, bool is_ours, struct fresh *fresh)
{
    static unsigned number;
    char name[32];

    snprintf(name, sizeof(name), "fresh-%u", ++number);
    memset(fresh, 0, sizeof(*fresh));
    if (is_ours) {
        fresh->servers = bench->ordinary;
        bench_start_daemon(bench, &fresh->servers, name);
        fresh->socket_path = fresh->servers.socket_path;
        fresh->pid = fresh->servers.daemon;
        fresh->protocol = &load_kvstored;
    } else {
        bench_start_redis(bench, &fresh->redis, name, false);
        fresh->socket_path = fresh->redis.socket_path;
        fresh->pid = fresh->redis.server;
        fresh->protocol = &load_redis;
    }
}

static void await_answer(const struct fresh *fresh)
{
    const struct load load = {.protocol = fresh->protocol, .where = fresh->socket_path, .prefix = "first", .keys = 1};

    load_await(&load);
}

double first_answer_ms(const struct bench *bench, bool is_ours)
{
    struct fresh fresh;
    double begin_s = bench_now_s();

    start(bench, is_ours, &fresh);
    await_answer(&fresh);
    double took_ms = (bench_now_s() - begin_s) * 1e3;
    bench_end(fresh.pid);
    return took_ms;
}

double idle_memory_kb(const struct bench *bench, bool is_ours)
{
    struct fresh fresh;

    start(bench, is_ours, &fresh);
    await_answer(&fresh);
    usleep(SETTLE_US);
    double rss_kb = bench_rss_kb(fresh.pid);
    bench_end(fresh.pid);
    return rss_kb;
}

static void open_clients(const void *context)
{
    const struct fresh *fresh = context;

    load_open_idle(fresh->protocol, fresh->socket_path, IDLE_CLIENTS);
}

double idle_client_kb(const struct bench *bench, bool is_ours)
{
    struct fresh fresh;

    start(bench, is_ours, &fresh);
    await_answer(&fresh);
    usleep(SETTLE_US);
    double before_kb = bench_own_memory_kb(fresh.pid);
    pid_t holder = bench_hold(open_clients, &fresh);
    usleep(SETTLE_US);
    double more_kb = bench_own_memory_kb(fresh.pid) - before_kb;
    bench_end(holder);
    bench_end(fresh.pid);
    return more_kb / IDLE_CLIENTS;
}
