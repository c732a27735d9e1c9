/*
 * The longest pause that 64 programs see while a daemon with an embedded server is restarted, and a socket unit holds
 * their connections. The peer is nats-server alone with the same settings, from the signal until a put is acknowledged.
 */
#include "client/lib/kvstore_admin.h"
#include "tests/bench/bench.h"

#include <nats/nats.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define WRITERS        64u
#define WRITES_BETWEEN 20u /* of each writer, before and after the restart */
#define CALL_TIMEOUT_S 60.0
#define GIVE_UP_S      60.0
#define PROBE_US       1000 /* between two attempts to connect to a nats-server that starts */

/* Shared by the writers and the process that restarts the daemon. */
struct restarts {
    unsigned must_end;
    unsigned answers[WRITERS];
    double longest_s[WRITERS];
};

struct restart_case {
    struct bench_servers servers; /* the process that restarts them has the pids */
    struct restarts *shared;
    int signal;
    int listener;
};

/* --- The socket unit ----------------------------------------------------------------------------------- */

static int restarts_listen(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(listener, 4096) != 0)
        bench_die("cannot listen on %s", path);
    return listener;
}

/* Start a daemon which gets descriptor 3, as systemd does it. */
static pid_t restarts_spawn(const struct bench *bench, const struct restart_case *restart)
{
    static const char command[] = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" --config \"$1\"";
    char path[64];

    snprintf(path, sizeof(path), "%s.yaml", restart->servers.name);
    char *argv[] = {"/bin/sh", "-c", (char *)command, (char *)bench->kvstored, path, NULL};
    return bench_spawn(restart->servers.name, argv);
}

/* --- kvstored ------------------------------------------------------------------------------------------ */

/* One call after the other. An error ends the benchmark: a restart is a pause and no error. */
static void restarts_write(struct bench_client *client)
{
    const struct restart_case *restart = client->context;
    struct kvs_options options = KVS_OPTIONS(.reconnect = true, .timeout_s = CALL_TIMEOUT_S);
    unsigned number = client->number - 1;
    char key[32], value[BENCH_VALUE_BYTES];
    struct kvs_error error;

    struct kvs *kvs = kvs_connect(restart->servers.socket_path, &options, &error);
    if (kvs == NULL)
        bench_die("%s", error.message);
    snprintf(key, sizeof(key), "writer.%u", number);
    bench_wait_for_all();
    double answered_s = bench_now_s();
    for (unsigned count = 0; !__atomic_load_n(&restart->shared->must_end, __ATOMIC_ACQUIRE); count++) {
        uint64_t revision = 0;
        bench_make_value(value, key, count);
        if (kvs_put(kvs, BENCH_BUCKET, key, value, sizeof(value), NULL, &revision) != KVS_OK)
            bench_die("a put failed: %s", kvs_last_error(kvs)->message);
        bench_note_revision(revision);
        double now_s = bench_now_s();
        if (count > 0 && now_s - answered_s > restart->shared->longest_s[number])
            restart->shared->longest_s[number] = now_s - answered_s;
        answered_s = now_s;
        __atomic_fetch_add(&restart->shared->answers[number], 1, __ATOMIC_RELEASE);
    }
    kvs_close(kvs);
}

static void restarts_await_answers(const struct restarts *shared)
{
    double give_up_s = bench_now_s() + GIVE_UP_S;
    unsigned goals[WRITERS];

    for (unsigned i = 0; i < WRITERS; i++)
        goals[i] = __atomic_load_n(&shared->answers[i], __ATOMIC_ACQUIRE) + WRITES_BETWEEN;
    for (unsigned i = 0; i < WRITERS; i++) {
        while (__atomic_load_n(&shared->answers[i], __ATOMIC_ACQUIRE) < goals[i]) {
            if (bench_now_s() > give_up_s)
                bench_die("the programs do not go on after a restart");
            usleep(1000);
        }
    }
}

static void restarts_of_daemon(struct bench_client *client)
{
    struct restart_case *restart = client->context;
    struct kvs_error error;

    dup2(restart->listener, 3); /* without FD_CLOEXEC */
    pid_t daemon = restarts_spawn(client->bench, restart);
    struct kvs *kvs = kvs_connect(restart->servers.socket_path, NULL, &error);
    if (kvs == NULL || kvs_bucket_create(kvs, BENCH_BUCKET, NULL, NULL) != KVS_OK)
        bench_die("%s", kvs != NULL ? kvs_last_error(kvs)->message : error.message);
    kvs_close(kvs);
    bench_wait_for_all();
    restarts_await_answers(restart->shared);
    kill(daemon, restart->signal);
    waitpid(daemon, NULL, 0);
    daemon = restarts_spawn(client->bench, restart);
    restarts_await_answers(restart->shared);
    __atomic_store_n(&restart->shared->must_end, 1, __ATOMIC_RELEASE);
    bench_end(daemon);
}

static void restarts_run(struct bench_client *client)
{
    if (client->number == 0)
        restarts_of_daemon(client);
    else
        restarts_write(client);
}

/* --- nats-server alone --------------------------------------------------------------------------------- */

/* Connect and write. Return false if the server is not there yet. */
static bool restarts_probe(const char *url, bool makes_bucket)
{
    natsConnection *connection = NULL;
    kvConfig config = {0};
    kvStore *bucket = NULL;
    jsCtx *js = NULL;
    uint64_t revision;

    config.Bucket = BENCH_BUCKET;
    config.StorageType = js_FileStorage;
    bool is_written =
        natsConnection_ConnectTo(&connection, url) == NATS_OK &&
        natsConnection_JetStream(&js, connection, NULL) == NATS_OK &&
        (makes_bucket ? js_CreateKeyValue(&bucket, js, &config) : js_KeyValue(&bucket, js, BENCH_BUCKET)) == NATS_OK &&
        kvStore_PutString(&revision, bucket, "probe", "value") == NATS_OK;
    kvStore_Destroy(bucket);
    jsCtx_Destroy(js);
    natsConnection_Destroy(connection);
    return is_written;
}

static void restarts_await_server(const char *url, bool makes_bucket)
{
    double give_up_s = bench_now_s() + GIVE_UP_S;

    while (!restarts_probe(url, makes_bucket)) {
        if (bench_now_s() > give_up_s)
            bench_die("nats-server does not serve");
        usleep(PROBE_US);
    }
}

static void restarts_of_server(struct bench_client *client)
{
    struct restart_case *restart = client->context;

    bench_start_nats(client->bench, &restart->servers);
    restarts_await_server(restart->servers.url, true);
    double begin_s = bench_now_s();
    kill(restart->servers.server, restart->signal);
    waitpid(restart->servers.server, NULL, 0);
    bench_restart_nats(client->bench, &restart->servers);
    restarts_await_server(restart->servers.url, false);
    client->result = bench_now_s() - begin_s;
    bench_end(restart->servers.server);
}

/* --- Rows ---------------------------------------------------------------------------------------------- */

static double restarts_measure(const struct bench *bench, bool is_ours, int signal)
{
    static unsigned number;
    struct restart_case restart = {.signal = signal, .servers = {.is_durable = true}};
    const struct bench_client client = {
        .bench = bench, .servers = &restart.servers, .is_ours = is_ours, .context = &restart};
    double longest_s = 0;
    char name[32];

    snprintf(name, sizeof(name), "restart-%u", ++number);
    restart.servers.name = name;
    if (!is_ours)
        return bench_alone(&client, restarts_of_server) * 1e3;
    restart.shared = mmap(NULL, sizeof(*restart.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (restart.shared == MAP_FAILED)
        bench_die("out of memory");
    bench_configure_embedded(bench, &restart.servers, name, NULL);
    restart.listener = restarts_listen(restart.servers.socket_path);
    bench_together(&client, WRITERS + 1, restarts_run);
    close(restart.listener);
    for (unsigned i = 0; i < WRITERS; i++) {
        if (restart.shared->longest_s[i] > longest_s)
            longest_s = restart.shared->longest_s[i];
    }
    munmap(restart.shared, sizeof(*restart.shared));
    return longest_s * 1e3;
}

double restart_pause_ms(const struct bench *bench, bool is_ours)
{
    return restarts_measure(bench, is_ours, SIGTERM);
}

double kill_pause_ms(const struct bench *bench, bool is_ours)
{
    return restarts_measure(bench, is_ours, SIGKILL);
}
