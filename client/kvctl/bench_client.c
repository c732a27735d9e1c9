#include "client/kvctl/bench.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* One bit for each revision; pages without a set bit take no memory. */
#define REVISIONS_MAX (UINT64_C(1) << 30)

/* What a client has measured, in memory that it shares with kvctl. */
struct client_result {
    struct latency latency;
    int64_t begin_ns, end_ns;
    bool is_finished;
    struct kvs_error error; /* code KVS_OK: none */
};

struct shared {
    _Atomic uint32_t connected;
    _Atomic int64_t begin_ns; /* 0: not yet */
    struct client_result results[];
};

/* A call in flight. */
struct slot {
    struct client *client;
    uint64_t key;
    int64_t begin_ns, end_ns;
};

struct client {
    const struct bench_plan *plan;
    const struct bench_row *row;
    struct client_result *result;
    _Atomic uint64_t *revisions;
    struct kvs *kvs;
    struct slot *slots;
    uint64_t left; /* calls that are not made yet */
    int64_t end_ns;
    uint64_t chance;
    char **keys;
};

static volatile sig_atomic_t is_interrupted;

/* --- A client's process ------------------------------------------------------------------------ */

static void bench_client_fail(struct client *client, enum kvs_code code, const char *message)
{
    if (client->result->error.code != KVS_OK)
        return; /* keep the first error */
    client->result->error.code = code;
    snprintf(client->result->error.message, sizeof(client->result->error.message), "%s", message);
}

static void bench_client_check_revision(struct client *client, uint64_t revision)
{
    uint64_t bit = revision - client->plan->first_revision - 1;
    char message[KVS_MESSAGE_BYTES];

    if (revision <= client->plan->first_revision) {
        snprintf(message, sizeof(message), "a put returned the old revision %" PRIu64, revision);
        bench_client_fail(client, KVS_INTERNAL, message);
    } else if (bit < REVISIONS_MAX) {
        uint64_t mask = UINT64_C(1) << (bit % 64);
        if ((atomic_fetch_or_explicit(&client->revisions[bit / 64], mask, memory_order_relaxed) & mask) != 0) {
            snprintf(message, sizeof(message), "two puts returned the same revision %" PRIu64, revision);
            bench_client_fail(client, KVS_INTERNAL, message);
        }
    }
}

static void bench_client_check_value(struct client *client, uint64_t key, const struct kvs_entry *entry)
{
    const char *wanted = client->plan->values + key;

    if (entry == NULL || entry->value_size != client->plan->value_size ||
        memcmp(entry->value, wanted, entry->value_size) != 0) {
        char message[KVS_MESSAGE_BYTES];
        snprintf(message, sizeof(message), "the key %.100s does not have the value that was written",
                 client->keys[key]);
        bench_client_fail(client, KVS_INTERNAL, message);
    }
}

static void bench_client_submit_next(struct slot *slot);

/* Note the latency of a call that has ended. False if it failed. */
static bool bench_client_end_call(struct slot *slot, const struct kvs_error *error)
{
    struct client *client = slot->client;

    if (error != NULL) {
        bench_client_fail(client, error->code, error->message);
        return false;
    }
    slot->end_ns = clock_monotonic_ns();
    latency_add(&client->result->latency, (uint64_t)(slot->end_ns - slot->begin_ns));
    client->result->end_ns = slot->end_ns;
    return true;
}

static void bench_client_on_put(struct kvs *kvs, const struct kvs_error *error, uint64_t revision, void *context)
{
    struct slot *slot = context;

    (void)kvs;
    if (!bench_client_end_call(slot, error))
        return;
    bench_client_check_revision(slot->client, revision);
    if (slot->end_ns < slot->client->end_ns)
        bench_client_submit_next(slot);
}

static void bench_client_on_get(struct kvs *kvs, const struct kvs_error *error, const struct kvs_entry *entry,
                                void *context)
{
    struct slot *slot = context;

    (void)kvs;
    if (!bench_client_end_call(slot, error))
        return;
    bench_client_check_value(slot->client, slot->key, entry);
    if (slot->end_ns < slot->client->end_ns)
        bench_client_submit_next(slot);
}

/* xorshift; it spreads the keys */
static uint64_t bench_client_choose_key(struct client *client)
{
    client->chance ^= client->chance << 13;
    client->chance ^= client->chance >> 7;
    client->chance ^= client->chance << 17;
    return client->chance % client->plan->keys;
}

static void bench_client_submit_next(struct slot *slot)
{
    struct client *client = slot->client;
    const struct bench_plan *plan = client->plan;
    struct kvs_put_options put = KVS_PUT_OPTIONS(.timeout_s = plan->timeout_s);
    struct kvs_get_options get = KVS_GET_OPTIONS(.timeout_s = plan->timeout_s);
    enum kvs_code code;

    if (client->left == 0 || client->result->error.code != KVS_OK)
        return;
    client->left--;
    slot->key = bench_client_choose_key(client);
    slot->begin_ns = clock_monotonic_ns();
    if (client->row->operation == BENCH_CACHED_GET)
        get.consistency = KVS_CONSISTENCY_CACHED;
    if (client->row->operation == BENCH_PUT)
        code = kvs_async_put(client->kvs, plan->bucket, client->keys[slot->key], plan->values + slot->key,
                             plan->value_size, &put, bench_client_on_put, slot);
    else
        code = kvs_async_get(client->kvs, plan->bucket, client->keys[slot->key], &get, bench_client_on_get, slot);
    if (code != KVS_OK)
        bench_client_fail(client, code, kvs_last_error(client->kvs)->message);
}

static bool bench_client_make_ready(struct client *client)
{
    const struct bench_plan *plan = client->plan;
    struct kvs_options options =
        KVS_OPTIONS(.connect_timeout_s = plan->timeout_s, .max_in_flight = (unsigned)client->row->in_flight);

    client->keys = calloc(plan->keys, sizeof(*client->keys));
    client->slots = calloc(client->row->in_flight, sizeof(*client->slots));
    if (client->keys == NULL || client->slots == NULL) {
        bench_client_fail(client, KVS_NO_MEMORY, "out of memory for a client");
        return false;
    }
    for (uint64_t i = 0; i < plan->keys; i++) {
        if (asprintf(&client->keys[i], "%s.%" PRIu64, plan->prefix, i) < 0) {
            bench_client_fail(client, KVS_NO_MEMORY, "out of memory for a client");
            return false;
        }
    }
    client->kvs = kvs_connect(plan->socket, &options, &client->result->error);
    return client->kvs != NULL;
}

/* Run a client from begin to end; place is its number. */
static void bench_client_run(struct shared *shared, struct client *client, uint64_t place)
{
    const struct bench_row *row = client->row;

    client->result = &shared->results[place];
    client->chance = (place + 1) * UINT64_C(0x9e3779b97f4a7c15);
    client->left =
        row->operations > 0 ? row->operations / row->clients + (place < row->operations % row->clients) : UINT64_MAX;
    bool is_ready = bench_client_make_ready(client);
    atomic_fetch_add(&shared->connected, 1);
    if (!is_ready)
        return;
    /* All clients begin at the same moment. They sleep until then, because busy loops would take the processor. */
    while (atomic_load(&shared->begin_ns) == 0)
        poll(NULL, 0, 1);
    int64_t begin_ns = atomic_load(&shared->begin_ns), early_ns = begin_ns - clock_monotonic_ns();
    if (early_ns > 0)
        nanosleep(&(struct timespec){.tv_sec = early_ns / 1000000000, .tv_nsec = early_ns % 1000000000}, NULL);
    client->end_ns = row->operations > 0 ? INT64_MAX : begin_ns + (int64_t)(row->seconds * 1e9);
    client->result->begin_ns = clock_monotonic_ns();
    for (uint64_t i = 0; i < row->in_flight; i++) {
        client->slots[i].client = client;
        bench_client_submit_next(&client->slots[i]);
    }
    kvs_process(client->kvs);
    while (kvs_in_flight(client->kvs) > 0) {
        struct pollfd waited = {.fd = kvs_fd(client->kvs), .events = kvs_events(client->kvs)};
        poll(&waited, 1, kvs_timeout_ms(client->kvs));
        kvs_process(client->kvs);
    }
    kvs_close(client->kvs);
    client->result->is_finished = true;
}

/* --- kvctl's side --------------------------------------------------------------------------------- */

/* Signals that end a bench; its bucket is deleted first. */
static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};

static void bench_client_on_signal(int number)
{
    (void)number;
    is_interrupted = 1;
}

void bench_catch_signals(void)
{
    struct sigaction action = {.sa_handler = bench_client_on_signal};

    signals_handle(signals, sizeof(signals) / sizeof(signals[0]), &action);
}

static void *bench_client_share_memory(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory != MAP_FAILED ? memory : NULL;
}

/* Start a client. Returns its pid, or -1. */
static pid_t bench_client_fork_client(struct shared *shared, struct client *client, uint64_t place)
{
    pid_t parent = getpid(), pid = fork();

    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signals_handle(signals, sizeof(signals) / sizeof(signals[0]), &(struct sigaction){.sa_handler = SIG_DFL});
    if (getppid() == parent)
        bench_client_run(shared, client, place);
    _exit(0); /* do not flush a copy of kvctl's output buffer */
}

/* Wait until a client ends; kill it if kvctl was interrupted. */
static void bench_client_wait_for_client(pid_t pid)
{
    while (waitpid(pid, NULL, WNOHANG) == 0) {
        if (is_interrupted)
            kill(pid, SIGKILL);
        poll(NULL, 0, 2);
    }
}

/* Merge the measurements of the clients. */
static enum status bench_client_merge(const struct shared *shared, uint64_t clients, struct bench_result *result)
{
    int64_t begin_ns = INT64_MAX, end_ns = 0;

    memset(result, 0, sizeof(*result));
    for (uint64_t i = 0; i < clients; i++) {
        const struct client_result *client = &shared->results[i];
        if (client->error.code != KVS_OK)
            return report_error(&client->error);
        if (!client->is_finished)
            return report(is_interrupted ? "interrupted" : "a client process died");
        if (client->latency.count == 0)
            continue;
        latency_merge(&result->latency, &client->latency);
        begin_ns = client->begin_ns < begin_ns ? client->begin_ns : begin_ns;
        end_ns = client->end_ns > end_ns ? client->end_ns : end_ns;
    }
    if (result->latency.count > 0)
        result->seconds = (double)(end_ns - begin_ns) / 1e9;
    return STATUS_OK;
}

enum status bench_run_row(const struct bench_plan *plan, const struct bench_row *row, struct bench_result *result)
{
    size_t shared_size = sizeof(struct shared) + row->clients * sizeof(struct client_result);
    struct shared *shared = bench_client_share_memory(shared_size);
    struct client client = {.plan = plan, .row = row, .revisions = bench_client_share_memory(REVISIONS_MAX / 8)};
    pid_t *pids = calloc(row->clients, sizeof(*pids));
    enum status status = STATUS_FAILED;
    bool has_failed = false;
    uint64_t started = 0;

    if (shared == NULL || client.revisions == NULL || pids == NULL) {
        report("out of memory for %" PRIu64 " clients", row->clients);
        goto out;
    }
    for (; started < row->clients && !is_interrupted; started++) {
        pids[started] = bench_client_fork_client(shared, &client, started);
        if (pids[started] < 0)
            break;
    }
    if (started < row->clients && !is_interrupted) {
        report("cannot start %" PRIu64 " clients: %s", row->clients, strerror(errno));
        has_failed = true;
        is_interrupted = 1; /* ends the clients that were started */
    }
    while (atomic_load(&shared->connected) < started && !is_interrupted)
        poll(NULL, 0, 1);
    atomic_store(&shared->begin_ns, clock_monotonic_ns() + 5000000);
    for (uint64_t i = 0; i < started; i++)
        bench_client_wait_for_client(pids[i]);
    if (started == row->clients)
        status = bench_client_merge(shared, row->clients, result);
    else if (!has_failed)
        report("interrupted");

out:
    free(pids);
    if (client.revisions != NULL)
        munmap(client.revisions, REVISIONS_MAX / 8);
    if (shared != NULL)
        munmap(shared, shared_size);
    return status;
}
