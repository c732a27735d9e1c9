/*
 * core: is the daemon's flow right? One client's put and get beside the NATS
 * library's own, and 64 processes at once beside 64 with a connection each; the
 * same server, the same bucket settings, alternating rounds in one run.
 *
 *   core KVSTORED NATS-SERVER DIRECTORY
 *
 * Prints a line per row and fails when a ratio misses what it must reach.
 */
#include "client/kvstore.h"

#include <nats/nats.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS      3
#define PROCESSES   64
#define ONE_CALLS   3000
#define ROUND_S     1.5
#define VALUE_BYTES 128
#define KEYS        1000

static char socket_path[256], url[64];

static void die(const char *what)
{
    fprintf(stderr, "core: %s\n", what);
    _exit(1);
}

static double now_s(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static pid_t start(char *const argv[])
{
    pid_t pid = fork();

    if (pid == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL)
            _exit(127);
        execv(argv[0], argv);
        _exit(127);
    }
    return pid;
}

/* --- The two sides: put and get of one key ------------------------------------------------------- */

struct side {
    struct kvs *ours;
    natsConnection *connection;
    jsCtx *js;
    kvStore *peer;
};

static void open_ours(struct side *side)
{
    struct kvs_error error;

    if ((side->ours = kvs_connect(socket_path, NULL, &error)) == NULL)
        die(error.message);
}

static void open_peer(struct side *side)
{
    if (natsConnection_ConnectTo(&side->connection, url) != NATS_OK ||
        natsConnection_JetStream(&side->js, side->connection, NULL) != NATS_OK ||
        js_KeyValue(&side->peer, side->js, "bench") != NATS_OK)
        die("the peer cannot connect");
}

static void put(struct side *side, const char *key, const char *value)
{
    uint64_t revision = 0;

    if (side->ours != NULL ? kvs_put(side->ours, "bench", key, value, VALUE_BYTES, NULL, &revision) != KVS_OK
                           : kvStore_Put(&revision, side->peer, key, value, VALUE_BYTES) != NATS_OK)
        die("a put failed");
    if (revision == 0)
        die("a put has no revision");
}

static void get(struct side *side, const char *key)
{
    if (side->ours != NULL) {
        struct kvs_entry *entry = NULL;
        if (kvs_get(side->ours, "bench", key, NULL, &entry) != KVS_OK || entry == NULL ||
            entry->value_size != VALUE_BYTES)
            die("a get failed");
        kvs_free(entry);
    } else {
        kvEntry *entry = NULL;
        if (kvStore_Get(&entry, side->peer, key) != NATS_OK || kvEntry_ValueLen(entry) != VALUE_BYTES)
            die("a get failed");
        kvEntry_Destroy(entry);
    }
}

static void make_value(char value[VALUE_BYTES])
{
    memset(value, 'v', VALUE_BYTES);
}

/* --- Rows ------------------------------------------------------------------------------------------ */

static double one_client_us(struct side *side, bool is_put)
{
    char value[VALUE_BYTES], key[32];
    double begin = now_s();

    make_value(value);
    for (int i = 0; i < ONE_CALLS; i++) {
        snprintf(key, sizeof(key), "one.%d", i % KEYS);
        if (is_put)
            put(side, key, value);
        else
            get(side, key);
    }
    return (now_s() - begin) * 1e6 / ONE_CALLS;
}

/* A row of one client runs in a process of its own: a fork of one with threads is not to be trusted. */
static double in_child(void (*open_side)(struct side *side), bool is_put, double *shared)
{
    pid_t pid = fork();

    if (pid == 0) {
        struct side side = {0};
        open_side(&side);
        *shared = one_client_us(&side, is_put);
        _exit(0);
    }
    int status;
    if (waitpid(pid, &status, 0) != pid || status != 0)
        die("a client failed");
    return *shared;
}

struct shared {
    volatile int ready;
    volatile int go;
    double one;
    unsigned long operations[PROCESSES];
};

static void run_client(struct shared *shared, int number, void (*open_side)(struct side *side))
{
    struct side side = {0};
    char value[VALUE_BYTES], key[32];

    make_value(value);
    open_side(&side);
    __sync_fetch_and_add(&shared->ready, 1);
    while (!shared->go)
        usleep(1000);
    double end = now_s() + ROUND_S;
    for (unsigned i = 0; now_s() < end; i++) {
        snprintf(key, sizeof(key), "many.%d.%u", number, i / 2 % 16);
        if (i % 2 == 0)
            put(&side, key, value);
        else
            get(&side, key);
        shared->operations[number]++;
    }
}

static double many_per_s(struct shared *shared, void (*open_side)(struct side *side))
{
    pid_t pids[PROCESSES];
    unsigned long total = 0;

    memset(shared, 0, sizeof(*shared));
    for (int i = 0; i < PROCESSES; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            run_client(shared, i, open_side);
            _exit(0);
        }
    }
    while (shared->ready < PROCESSES)
        usleep(1000);
    shared->go = 1;
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        if (waitpid(pids[i], &status, 0) != pids[i] || status != 0)
            die("a client failed");
        total += shared->operations[i];
    }
    return (double)total / ROUND_S;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof(*values), compare);
    return values[ROUNDS / 2];
}

/* --- The servers ----------------------------------------------------------------------------------- */

static void make_bucket(void)
{
    struct kvs_error error;
    struct kvs *connection = NULL;

    for (int tries = 0;; tries++) {
        if ((connection = kvs_connect(socket_path, NULL, &error)) != NULL) {
            if (kvs_bucket_create(connection, "bench", NULL, NULL) == KVS_OK)
                break;
            kvs_close(connection);
        }
        if (tries > 500)
            die("the daemon does not serve");
        usleep(20000);
    }
    kvs_close(connection);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name, *unit;
        double must;
        bool is_rate;
    } rows[] = {{"one client put vs libnats kvStore_Put", "us", 1.5, false},
                {"one client get vs libnats kvStore_Get", "us", 1.5, false},
                {"many-clients vs direct connections", "op/s", 1.6, true}};
    double ours[3][ROUNDS], peer[3][ROUNDS];
    char configuration[512], server_directory[512], text[1024];
    int status = 0, port = 15000 + (int)getpid() % 20000;

    if (argc != 4) {
        fprintf(stderr, "usage: core KVSTORED NATS-SERVER DIRECTORY\n");
        return 2;
    }
    snprintf(socket_path, sizeof(socket_path), "%s/kvstored.sock", argv[3]);
    snprintf(configuration, sizeof(configuration), "%s/kvstored.yaml", argv[3]);
    snprintf(server_directory, sizeof(server_directory), "%s/nats", argv[3]);
    snprintf(url, sizeof(url), "nats://127.0.0.1:%d", port);
    snprintf(text, sizeof(text), "%d", port);
    char *server_argv[] = {argv[2], "-a", "127.0.0.1", "-p", text, "-js", "-sd", server_directory, NULL};
    pid_t server = start(server_argv);
    FILE *file = fopen(configuration, "w");
    if (file == NULL)
        die("cannot write the configuration");
    fprintf(file, "listen: {path: %s}\nnats: {mode: external, servers: [%s]}\n", socket_path, url);
    fclose(file);
    char *daemon_argv[] = {argv[1], "--config", configuration, NULL};
    pid_t daemon = start(daemon_argv);
    make_bucket();

    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int round = 0; round < ROUNDS; round++) {
        ours[0][round] = in_child(open_ours, true, &shared->one);
        peer[0][round] = in_child(open_peer, true, &shared->one);
        ours[1][round] = in_child(open_ours, false, &shared->one);
        peer[1][round] = in_child(open_peer, false, &shared->one);
        ours[2][round] = many_per_s(shared, open_ours);
        peer[2][round] = many_per_s(shared, open_peer);
    }
    for (int row = 0; row < 3; row++) {
        double a = median(ours[row]), b = median(peer[row]), ratio = a / b;
        bool reached = rows[row].is_rate ? ratio >= rows[row].must : ratio <= rows[row].must;
        printf("%-42s ours %10.1f  peer %10.1f %-5s ratio %.2f  (must be %s %.2f)%s\n", rows[row].name, a, b,
               rows[row].unit, ratio, rows[row].is_rate ? ">=" : "<=", rows[row].must, reached ? "" : "  MISSED");
        status |= !reached;
    }
    kill(daemon, SIGTERM);
    waitpid(daemon, NULL, 0);
    kill(server, SIGTERM);
    waitpid(server, NULL, 0);
    return status;
}
