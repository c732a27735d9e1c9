#include "tests/bench/bench.h"

#include "client/lib/kvstore_admin.h"
#include "tests/bench/load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEYS      1000u
#define MANY_KEYS 400000u
#define WATCHERS  1000u
#define PUTS_MAX  4096u
#define WARM_S    20.0

/* --- What the daemon says of its cache ---------------------------------------------------------------------- */

static void run_count(struct bench_client *client)
{
    struct kvs_error error;
    struct kvs *kvs = kvs_connect(client->servers->socket_path, NULL, &error);
    struct kvs_value *stats = NULL;

    if (kvs == NULL || kvs_daemon_stats(kvs, NULL, &stats) != KVS_OK)
        bench_die("no statistics");
    client->result = kvs_value_double(kvs_value_member(kvs_value_member(stats, "cache"), client->context));
    kvs_free(stats);
    kvs_close(kvs);
}

static double cache_count(const struct bench_servers *servers, const char *member)
{
    const struct bench_client client = {.servers = servers, .context = (void *)member};

    return bench_alone(&client, run_count);
}

/* Read all keys until they come from memory. */
static void warm(const struct bench_servers *servers, const struct load *load)
{
    struct load once = *load;
    double give_up_s = bench_now_s() + WARM_S, before, hits;

    once.has_total = true;
    once.total = load->keys;
    do {
        before = cache_count(servers, "hits");
        load_per_s(&once);
        hits = cache_count(servers, "hits") - before;
        if (bench_now_s() > give_up_s)
            bench_die("memory does not answer: %.0f hits of %u", hits, load->keys);
    } while (hits < load->keys);
}

/* --- Gets --------------------------------------------------------------------------------------------------- */

/* From embedded mode with the default consistency, or from external mode with "cached". */
static double reads_per_s(const struct bench *bench, const struct bench_servers *servers, bool is_ours,
                          unsigned connections, unsigned depth)
{
    const struct load load = {.protocol = is_ours ? &load_kvstored : &load_redis,
                              .where = is_ours ? servers->socket_path : bench->redis.socket_path,
                              .operation = LOAD_GET,
                              .prefix = "cached",
                              .connections = connections,
                              .depth = depth,
                              .keys = KEYS,
                              .is_cached = is_ours && servers == &bench->ordinary};

    load_fill(&load);
    if (is_ours)
        warm(servers, &load);
    return load_per_s(&load);
}

double embedded_redis_per_s(const struct bench *bench, bool is_ours)
{
    return reads_per_s(bench, &bench->embedded, is_ours, 50, 1);
}

double embedded_redis_pipelined_per_s(const struct bench *bench, bool is_ours)
{
    return reads_per_s(bench, &bench->embedded, is_ours, 50, 16);
}

double cached_many_per_s(const struct bench *bench, bool is_ours)
{
    return reads_per_s(bench, &bench->ordinary, is_ours, 50, 1);
}

/* --- Memory per key ------------------------------------------------------------------------------------------ */

/* What a key takes besides itself and its value: resident memory of a process that had none before. */
double cached_key_bytes(const struct bench *bench, bool is_ours)
{
    static unsigned number;
    struct bench_servers servers = bench->ordinary;
    struct bench_redis redis = {.server = 0};
    struct load load = {.operation = LOAD_GET, .prefix = "memory", .connections = 1, .depth = 64, .keys = MANY_KEYS};
    const double own_bytes = 12 + BENCH_VALUE_BYTES; /* "memory.12345" */
    char name[32];
    double before_kb, keys = MANY_KEYS;
    pid_t pid;

    snprintf(name, sizeof(name), "cache-%u", ++number);
    if (is_ours) {
        load.protocol = &load_kvstored;
        load.where = bench->ordinary.socket_path;
        load_fill(&load);
        bench_start_daemon(bench, &servers, name);
        pid = servers.daemon;
        load.where = servers.socket_path;
        load.is_cached = true;
        load_await(&load);
        before_kb = bench_own_memory_kb(pid);
        /* Read one key: reading more would need buffers that are not part of the figure. */
        load.keys = 1;
        warm(&servers, &load);
        keys = cache_count(&servers, "keys");
        if (keys < MANY_KEYS)
            bench_die("only %.0f keys are in memory", keys);
    } else {
        bench_start_redis(bench, &redis, name, false);
        pid = redis.server;
        load.protocol = &load_redis;
        load.where = redis.socket_path;
        load_await(&load);
        before_kb = bench_own_memory_kb(pid);
        load_fill(&load);
    }
    double bytes = (bench_own_memory_kb(pid) - before_kb) * 1024 / keys - own_bytes;
    bench_end(pid);
    return bytes;
}

/* --- Fan-out ------------------------------------------------------------------------------------------------- */

/* Watchers of one key, and one writer: from the answer to the write to the last watcher's event. */
struct watcher {
    int fd;
    size_t length;
    char in[4096];
};

struct fan_out {
    struct watcher *watchers;
    int epoll, writer;
    bool is_ours;
    size_t heard; /* in this round */
    double took_ms[PUTS_MAX];
};

static void send_all(int fd, const char *bytes, size_t length)
{
    if (send(fd, bytes, length, MSG_NOSIGNAL) != (ssize_t)length)
        bench_die("send: %s", strerror(errno));
}

/* Return the length of the first message, or 0 if it is not whole. *is_news: it reports a write. */
static size_t take_news(const struct fan_out *fan_out, const char *bytes, size_t length, bool *is_news)
{
    static const char entries[] = "\x93\x02\xadwatch.entries", message[] = "*3\r\n$7\r\nmessage\r\n";
    const uint8_t *first = (const uint8_t *)bytes;

    if (fan_out->is_ours) {
        const uint8_t *end = load_skip_value(first, first + length);
        *is_news = end != NULL && (size_t)(end - first) > sizeof(entries) && memcmp(bytes, entries, 16) == 0;
        return end != NULL ? (size_t)(end - first) : 0;
    }
    /* Redis: "*3" and its three values of two lines each; that of 'subscribe' ends in one line, a number. */
    *is_news = length >= sizeof(message) - 1 && memcmp(bytes, message, sizeof(message) - 1) == 0;
    size_t at = 0;
    for (unsigned lines = bytes[8] == 's' ? 6 : 7; lines > 0; lines--) {
        const char *end = memchr(bytes + at, '\n', length - at);
        if (end == NULL)
            return 0;
        at = (size_t)(end + 1 - bytes);
    }
    return at;
}

static void hear(struct fan_out *fan_out, struct watcher *watcher, bool counts)
{
    ssize_t received = recv(watcher->fd, watcher->in + watcher->length, sizeof(watcher->in) - watcher->length, 0);
    size_t done = 0, size;
    bool is_news;

    if (received <= 0)
        bench_die("a watcher's connection was closed");
    watcher->length += (size_t)received;
    while (done < watcher->length &&
           (size = take_news(fan_out, watcher->in + done, watcher->length - done, &is_news)) > 0) {
        done += size;
        fan_out->heard += is_news && counts;
    }
    memmove(watcher->in, watcher->in + done, watcher->length - done);
    watcher->length -= done;
}

static void open_watchers(struct fan_out *fan_out, const char *path)
{
    static const char subscribe[] = "*2\r\n$9\r\nSUBSCRIBE\r\n$3\r\nfan\r\n";
    static const char start[] = "\x94\x00\x01\xabwatch.start\x92\xa5" BENCH_BUCKET "\x82\xa6"
                                "filter\xa5"
                                "fan.0\xac"
                                "updates_only\xc3";
    const struct rlimit limit = {WATCHERS + 64, WATCHERS + 64};
    struct rlimit now;

    if (getrlimit(RLIMIT_NOFILE, &now) != 0 || (now.rlim_cur < limit.rlim_cur && setrlimit(RLIMIT_NOFILE, &limit) != 0))
        bench_die("this row needs %u open files: raise the limit (ulimit -n)", WATCHERS + 64);
    fan_out->watchers = calloc(WATCHERS, sizeof(*fan_out->watchers));
    fan_out->epoll = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = 0; i < WATCHERS; i++) {
        struct watcher *watcher = &fan_out->watchers[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = watcher};
        watcher->fd = load_connect_unix(path);
        if (fan_out->is_ours)
            send_all(watcher->fd, start, sizeof(start) - 1);
        else
            send_all(watcher->fd, subscribe, sizeof(subscribe) - 1);
        hear(fan_out, watcher, false);
        epoll_ctl(fan_out->epoll, EPOLL_CTL_ADD, watcher->fd, &event);
    }
}

/* Write once. The writer's answer and the watchers' events come in any order. */
static double write_once_ms(struct fan_out *fan_out, const struct load *load, unsigned number)
{
    struct epoll_event events[64];
    char request[LOAD_REQUEST_BYTES], value[BENCH_VALUE_BYTES + 1] = "";
    double answered_s = 0;
    size_t length;

    if (fan_out->is_ours) {
        length = load_kvstored.request(request, LOAD_PUT, load, number);
    } else {
        bench_make_value(value, "fan", number);
        length = (size_t)snprintf(request, sizeof(request), "*3\r\n$7\r\nPUBLISH\r\n$3\r\nfan\r\n$%u\r\n%s\r\n",
                                  BENCH_VALUE_BYTES, value);
    }
    fan_out->heard = 0;
    send_all(fan_out->writer, request, length);
    while (fan_out->heard < WATCHERS || answered_s <= 0) {
        int count = epoll_wait(fan_out->epoll, events, 64, 10000);
        if (count <= 0)
            bench_die("%zu watchers of %u heard of a write", fan_out->heard, WATCHERS);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr != NULL) {
                hear(fan_out, events[i].data.ptr, true);
            } else {
                if (recv(fan_out->writer, request, sizeof(request), 0) <= 0)
                    bench_die("the writer's connection was closed");
                answered_s = bench_now_s();
            }
        }
    }
    return (bench_now_s() - answered_s) * 1e3;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void run_fan_out(struct bench_client *client)
{
    static struct fan_out fan_out;
    const struct load load = {.prefix = "fan", .keys = 1};
    const struct bench *bench = client->bench;
    const char *path = client->is_ours ? bench->ordinary.socket_path : bench->redis.socket_path;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    unsigned puts = 0;

    fan_out.is_ours = client->is_ours;
    open_watchers(&fan_out, path);
    fan_out.writer = load_connect_unix(path);
    epoll_ctl(fan_out.epoll, EPOLL_CTL_ADD, fan_out.writer, &event);
    for (double end_s = bench_now_s() + BENCH_ROUND_S; puts < PUTS_MAX && bench_now_s() < end_s; puts++)
        fan_out.took_ms[puts] = write_once_ms(&fan_out, &load, puts);
    qsort(fan_out.took_ms, puts, sizeof(fan_out.took_ms[0]), compare);
    client->result = fan_out.took_ms[puts * 99 / 100];
}

double fan_out_p99_ms(const struct bench *bench, bool is_ours)
{
    const struct bench_client client = {.bench = bench, .is_ours = is_ours};

    return bench_alone(&client, run_fan_out);
}
