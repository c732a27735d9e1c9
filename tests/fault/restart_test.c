/*
 * The daemon is stopped and killed again and again, while a socket unit holds its socket. Programs that use libkvstore
 * with reconnect see a pause and no error: each write is stored once, and watches deliver each change once.
 */
#include "client/lib/kvstore_async.h"
#include "tests/fault/suites.h"
#include "tests/support/library.h"
#include "tests/support/nats_server.h"
#include "tests/support/process.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The environment may choose larger numbers: the chaos target does. */
#define RESTARTS 4u
#define WATCHES  250u

#define CLIENTS        64u
#define IN_FLIGHT      4u /* calls of one client */
#define WATCH_HANDLES  8u
#define BUCKET         "restarts"
#define SHARED_KEYS    4u
#define KEY_WRITES     40u /* of one key: all of them stay in the bucket's history of 64 */
#define CALL_TIMEOUT_S 60.0

/* Writes after a restart, at least. The load pauses when it has made some more. */
#define ROUND_WRITES 200u

enum job_kind { JOB_PUT, JOB_PUT_SHARED, JOB_CREATE, JOB_CHAIN, JOB_DELETE, JOB_GET, JOB_TXN, JOB_BULK, JOB_KINDS };

#define PARTS 3u /* keys of a transaction or a bulk call */

/* One of the calls that a client has in flight, again and again. */
struct job {
    struct load_client *client;
    unsigned number;
    enum job_kind kind;
    bool is_in_flight;
    uint64_t started_ms;
    char key[40], value[40];
    uint64_t chain_revision; /* of JOB_CHAIN: of the key's last write; 0: the next write is to another key */
    unsigned chain_writes;
};

struct load_client {
    struct load *load;
    struct kvs *kvs;
    unsigned number;
    unsigned count; /* of its calls, for keys and values */
    uint64_t answered_ms;
    struct job jobs[IN_FLIGHT];
};

/* A write that was acknowledged. */
struct written {
    char key[40], value[40];
    const char *operation;
    uint64_t revision;
};

struct load_watch {
    struct load *load;
    char filter[24];
    size_t prefix_bytes; /* of the filter, before ">" */
    uint64_t last_revision;
    unsigned count;
};

struct load {
    pthread_t thread;
    struct load_client clients[CLIENTS];
    struct kvs *watch_handles[WATCH_HANDLES];
    struct load_watch *watches;
    unsigned watch_count;
    struct written *written;
    atomic_uint written_count;
    unsigned room;
    atomic_uint allowed; /* calls that may be begun */
    atomic_uint begun;
    atomic_uint in_flight;
    atomic_uint longest_pause_ms; /* of a client between two answers, since it was reset */
    atomic_bool must_end;
    atomic_uint failures;
    char failure[400]; /* the first one */
    unsigned slowest_ms;
    char slowest[120]; /* call */
};

static unsigned number_from_environment(const char *name, unsigned otherwise)
{
    const char *text = getenv(name);

    return text != NULL ? (unsigned)atoi(text) : otherwise;
}

/* --- The load -------------------------------------------------------------------------------------- */

static void load_fail(struct load *load, const char *what, const char *key, const struct kvs_error *error)
{
    if (atomic_load(&load->failures) == 0)
        snprintf(load->failure, sizeof(load->failure), "%s of %s: %s: %.200s (outcome %d)", what, key,
                 kvs_code_name(error->code), error->message, (int)error->outcome);
    atomic_fetch_add(&load->failures, 1);
}

static void load_note_answer(struct load_client *client)
{
    struct load *load = client->load;
    uint64_t now = now_ms();

    if (client->answered_ms > 0 && now - client->answered_ms > atomic_load(&load->longest_pause_ms))
        atomic_store(&load->longest_pause_ms, (unsigned)(now - client->answered_ms));
    client->answered_ms = now;
}

static void job_name_part(const struct job *job, unsigned part, char key[40])
{
    snprintf(key, 40, part > 0 ? "%.30s.%u" : "%s", job->key, part);
}

/* part: of a transaction or a bulk call, counted from 1; 0: of another call. */
static void job_note_written(struct job *job, unsigned part, uint64_t revision)
{
    struct load *load = job->client->load;
    unsigned count = atomic_load(&load->written_count);

    if (count == load->room) {
        load->room = load->room > 0 ? load->room * 2 : 1024;
        load->written = realloc(load->written, load->room * sizeof(*load->written));
    }
    struct written *written = &load->written[count];
    job_name_part(job, part, written->key);
    memcpy(written->value, job->value, sizeof(job->value));
    written->operation = job->kind == JOB_DELETE ? "DEL" : "put";
    written->revision = revision;
    atomic_store(&load->written_count, count + 1);
}

/* The call is answered. Return whether it succeeded. */
static bool job_end(struct job *job, const struct kvs_error *error)
{
    static const char *const names[JOB_KINDS] = {"put",    "shared put", "create",      "update",
                                                 "delete", "get",        "transaction", "bulk put"};

    struct load *load = job->client->load;
    unsigned took_ms = (unsigned)(now_ms() - job->started_ms);

    job->is_in_flight = false;
    atomic_fetch_sub(&load->in_flight, 1);
    if (took_ms > load->slowest_ms) {
        load->slowest_ms = took_ms;
        snprintf(load->slowest, sizeof(load->slowest), "%s of %s: %u ms", names[job->kind], job->key, took_ms);
    }
    if (error != NULL)
        load_fail(load, names[job->kind], job->key, error);
    else
        load_note_answer(job->client);
    return error == NULL;
}

static void job_on_written(struct kvs *kvs, const struct kvs_error *error, uint64_t revision, void *context)
{
    struct job *job = context;

    (void)kvs;
    if (!job_end(job, error))
        return;
    job_note_written(job, 0, revision);
    if (job->kind == JOB_CHAIN)
        job->chain_revision = ++job->chain_writes < KEY_WRITES ? revision : 0;
}

static void job_on_read(struct kvs *kvs, const struct kvs_error *error, const struct kvs_entry *entry, void *context)
{
    (void)kvs;
    (void)entry;
    job_end(context, error);
}

static void job_on_committed(struct kvs *kvs, const struct kvs_error *error, const uint64_t *revisions, size_t count,
                             void *context)
{
    (void)kvs;
    if (!job_end(context, error))
        return;
    for (size_t i = 0; i < count; i++)
        job_note_written(context, (unsigned)i + 1, revisions[i]);
}

static void job_on_bulk_written(struct kvs *kvs, const struct kvs_error *error, const struct kvs_bulk_result *results,
                                size_t count, size_t failed_count, void *context)
{
    (void)kvs;
    for (size_t i = 0; error == NULL && failed_count > 0 && i < count; i++)
        error = results[i].error;
    if (!job_end(context, error))
        return;
    for (size_t i = 0; i < count; i++)
        job_note_written(context, (unsigned)i + 1, results[i].revision);
}

/* One key is created and two are put. */
static enum kvs_code job_start_transaction(struct job *job)
{
    struct kvs_txn *txn = kvs_txn_begin(job->client->kvs, BUCKET);
    char key[40];

    job_name_part(job, 1, key);
    kvs_txn_create(txn, key, job->value, strlen(job->value), NULL);
    for (unsigned part = 2; part <= PARTS; part++) {
        job_name_part(job, part, key);
        kvs_txn_put(txn, key, job->value, strlen(job->value), NULL);
    }
    enum kvs_code code = kvs_async_txn_commit(txn, NULL, job_on_committed, job);
    kvs_txn_free(txn);
    return code;
}

static enum kvs_code job_start_bulk(struct job *job)
{
    struct kvs_pair pairs[PARTS];
    char keys[PARTS][40];

    for (unsigned part = 1; part <= PARTS; part++) {
        job_name_part(job, part, keys[part - 1]);
        pairs[part - 1] = (struct kvs_pair){keys[part - 1], job->value, strlen(job->value)};
    }
    return kvs_async_bulk_put(job->client->kvs, BUCKET, pairs, PARTS, NULL, job_on_bulk_written, job);
}

/* Keys are written up to KEY_WRITES times. */
static enum kvs_code job_start(struct job *job)
{
    struct load_client *client = job->client;
    unsigned count = client->count++;
    struct kvs *kvs = client->kvs;

    snprintf(job->value, sizeof(job->value), "%u-%u", client->number, count);
    snprintf(job->key, sizeof(job->key), "c%u.k%u.%u", client->number, job->number, count / KEY_WRITES);
    switch (job->kind) {
    case JOB_PUT_SHARED:
        snprintf(job->key, sizeof(job->key), "shared.%u.%u", count % SHARED_KEYS,
                 atomic_load(&client->load->begun) / 128);
        return kvs_async_put(kvs, BUCKET, job->key, job->value, strlen(job->value), NULL, job_on_written, job);
    case JOB_CREATE:
        snprintf(job->key, sizeof(job->key), "c%u.new.%u", client->number, count);
        return kvs_async_create(kvs, BUCKET, job->key, job->value, strlen(job->value), NULL, job_on_written, job);
    case JOB_DELETE:
        job->value[0] = '\0';
        return kvs_async_delete(kvs, BUCKET, job->key, NULL, job_on_written, job);
    case JOB_GET:
        return kvs_async_get(kvs, BUCKET, job->key, NULL, job_on_read, job);
    case JOB_TXN:
        snprintf(job->key, sizeof(job->key), "c%u.txn.%u", client->number, count);
        return job_start_transaction(job);
    case JOB_BULK:
        snprintf(job->key, sizeof(job->key), "c%u.bulk.%u", client->number, count);
        return job_start_bulk(job);
    default:
        break;
    }
    return kvs_async_put(kvs, BUCKET, job->key, job->value, strlen(job->value), NULL, job_on_written, job);
}

/* A key that only this job writes, each time at the revision of the last write. */
static enum kvs_code job_start_chain(struct job *job)
{
    struct load_client *client = job->client;
    unsigned count = client->count++;

    if (job->chain_revision == 0) {
        job->chain_writes = 0;
        snprintf(job->key, sizeof(job->key), "c%u.chain.%u", client->number, count);
    }
    snprintf(job->value, sizeof(job->value), "%u-%u", client->number, count);
    return kvs_async_update(client->kvs, BUCKET, job->key, job->value, strlen(job->value), job->chain_revision, NULL,
                            job_on_written, job);
}

static void load_start_jobs(struct load_client *client)
{
    struct load *load = client->load;

    for (unsigned i = 0; i < IN_FLIGHT && atomic_load(&load->begun) < atomic_load(&load->allowed); i++) {
        struct job *job = &client->jobs[i];
        if (job->is_in_flight)
            continue;
        /* The last job of each client has its chain, and the others do everything else in turn. */
        job->kind = i + 1 == IN_FLIGHT ? JOB_CHAIN : (enum job_kind)(client->count % JOB_KINDS);
        if (i + 1 != IN_FLIGHT && job->kind == JOB_CHAIN)
            job->kind = JOB_PUT;
        job->is_in_flight = true;
        job->started_ms = now_ms();
        atomic_fetch_add(&load->in_flight, 1);
        atomic_fetch_add(&load->begun, 1);
        enum kvs_code code = job->kind == JOB_CHAIN ? job_start_chain(job) : job_start(job);
        if (code != KVS_OK) {
            job->is_in_flight = false;
            atomic_fetch_sub(&load->in_flight, 1);
            load_fail(load, "submitting a call", job->key, kvs_last_error(client->kvs));
        }
    }
    if (atomic_load(&load->begun) >= atomic_load(&load->allowed))
        client->answered_ms = 0; /* it pauses by itself */
}

static void load_on_event(struct kvs *kvs, struct kvs_watch *handle, const struct kvs_event *event, void *context)
{
    struct load_watch *watch = context;
    struct load *load = watch->load;

    (void)kvs;
    (void)handle;
    if (event->type == KVS_EVENT_ENDED) {
        load_fail(load, "watch", watch->filter, event->error);
    } else if (event->type == KVS_EVENT_ENTRY) {
        const struct kvs_entry *entry = event->entry;
        if (entry->revision <= watch->last_revision || strncmp(entry->key, watch->filter, watch->prefix_bytes) != 0) {
            struct kvs_error error = {.code = KVS_INTERNAL};
            snprintf(error.message, sizeof(error.message), "%.80s at %llu after %llu", entry->key,
                     (unsigned long long)entry->revision, (unsigned long long)watch->last_revision);
            load_fail(load, "watch", watch->filter, &error);
        }
        watch->last_revision = entry->revision;
        watch->count++;
    }
}

static void *load_run(void *context)
{
    struct load *load = context;
    struct pollfd waits[CLIENTS + WATCH_HANDLES];
    const unsigned handles = CLIENTS + WATCH_HANDLES;

    while (!atomic_load(&load->must_end)) {
        int timeout = 20;
        for (unsigned i = 0; i < handles; i++) {
            struct kvs *kvs = i < CLIENTS ? load->clients[i].kvs : load->watch_handles[i - CLIENTS];
            if (i < CLIENTS)
                load_start_jobs(&load->clients[i]);
            int due = kvs_timeout_ms(kvs);
            if (due >= 0 && due < timeout)
                timeout = due;
            waits[i] = (struct pollfd){.fd = kvs_fd(kvs), .events = kvs_events(kvs)};
        }
        poll(waits, handles, timeout);
        for (unsigned i = 0; i < handles; i++)
            kvs_process(i < CLIENTS ? load->clients[i].kvs : load->watch_handles[i - CLIENTS]);
    }
    return NULL;
}

static void load_begin(struct load *load, const struct daemon *daemon, unsigned watches)
{
    struct kvs_options options = KVS_OPTIONS(.reconnect = true, .timeout_s = CALL_TIMEOUT_S);
    struct kvs_bucket_options settings = KVS_BUCKET_OPTIONS(.history = 64);
    struct kvs_error error;

    memset(load, 0, sizeof(*load));
    struct kvs *kvs = library_connect(daemon, NULL);
    assert_done(kvs_bucket_create(kvs, BUCKET, &settings, NULL));
    kvs_close(kvs);
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct load_client *client = &load->clients[i];
        client->load = load;
        client->number = i;
        client->kvs = kvs_connect(daemon->socket_path, &options, &error);
        ck_assert_msg(client->kvs != NULL, "%s", error.message);
        for (unsigned job = 0; job < IN_FLIGHT; job++)
            client->jobs[job] = (struct job){.client = client, .number = job};
    }
    load->watch_count = watches;
    load->watches = calloc(watches, sizeof(*load->watches));
    for (unsigned i = 0; i < WATCH_HANDLES; i++) {
        load->watch_handles[i] = kvs_connect(daemon->socket_path, &options, &error);
        ck_assert_msg(load->watch_handles[i] != NULL, "%s", error.message);
    }
    for (unsigned i = 0; i < watches; i++) {
        struct load_watch *watch = &load->watches[i];
        watch->load = load;
        if (i % 50 == 0)
            snprintf(watch->filter, sizeof(watch->filter), ">");
        else
            snprintf(watch->filter, sizeof(watch->filter), "c%u.>", i % CLIENTS);
        watch->prefix_bytes = strlen(watch->filter) - 1;
        const char *filters[] = {watch->filter};
        struct kvs_watch_options watch_options =
            KVS_WATCH_OPTIONS(.filters = filters, .filter_count = 1, .include_history = true);
        kvs = load->watch_handles[i % WATCH_HANDLES];
        assert_done(kvs_async_watch(kvs, BUCKET, &watch_options, load_on_event, watch, NULL));
    }
    ck_assert_int_eq(pthread_create(&load->thread, NULL, load_run, load), 0);
}

/* Wait until that many writes more are acknowledged. */
static void load_wait_progress(struct load *load, unsigned writes)
{
    unsigned goal = atomic_load(&load->written_count) + writes;

    /* Enough for the goal, and a bound for what the log can become. */
    atomic_store(&load->allowed, atomic_load(&load->begun) + 4 * ROUND_WRITES);

    wait_until(atomic_load(&load->written_count) >= goal || atomic_load(&load->failures) > 0, "the load to go on");
    ck_assert_msg(atomic_load(&load->failures) == 0, "%u failures: %s", atomic_load(&load->failures), load->failure);
}

static unsigned load_count_matching(const struct stream_log *log, const struct load_watch *watch)
{
    unsigned count = 0;

    for (size_t i = 0; i < log->count; i++)
        count += strncmp(log->entries[i].key, watch->filter, watch->prefix_bytes) == 0;
    return count;
}

static bool load_has_delivered(const struct load *load, const struct stream_log *log)
{
    for (unsigned i = 0; i < load->watch_count; i++) {
        if (load->watches[i].count < load_count_matching(log, &load->watches[i]))
            return false;
    }
    return true;
}

/* Each write that was acknowledged is stored at its revision, and nothing else is stored. */
static void load_check_writes(const struct load *load, const struct stream_log *log)
{
    unsigned count = atomic_load(&load->written_count);

    const char *surplus = "";
    bool *is_acknowledged = keep(calloc(log->count + 1, sizeof(bool)));
    for (unsigned i = 0; i < count; i++)
        is_acknowledged[load->written[i].revision <= log->count ? load->written[i].revision : 0] = true;
    for (size_t i = 0; i < log->count; i++) {
        const struct stored *stored = &log->entries[i];
        if (!is_acknowledged[stored->revision <= log->count ? stored->revision : 0])
            surplus =
                format_text("%s %s=%s@%llu", surplus, stored->key, stored->value, (unsigned long long)stored->revision);
    }
    ck_assert_msg(log->count == count, "%zu messages are stored, and %u writes were acknowledged:%.500s", log->count,
                  count, surplus);
    for (unsigned i = 0; i < count; i++) {
        const struct written *written = &load->written[i];
        ck_assert_msg(written->revision >= 1 && written->revision <= log->count, "revision %llu",
                      (unsigned long long)written->revision);
        const struct stored *stored = &log->entries[written->revision - 1];
        ck_assert_uint_eq(stored->revision, written->revision);
        ck_assert_str_eq(stored->key, written->key);
        ck_assert_str_eq(stored->value, written->value);
        ck_assert_str_eq(stored->operation, written->operation);
    }
}

static void load_end(struct load *load, struct nats *nats)
{
    atomic_store(&load->allowed, 0);
    wait_until(atomic_load(&load->in_flight) == 0 || atomic_load(&load->failures) > 0, "the last answers");
    ck_assert_msg(atomic_load(&load->failures) == 0, "%u failures: %s", atomic_load(&load->failures), load->failure);
    struct stream_log log = stream_log_read(nats, BUCKET);
    wait_until(load_has_delivered(load, &log) || atomic_load(&load->failures) > 0, "the last deliveries");
    atomic_store(&load->must_end, true);
    pthread_join(load->thread, NULL);
    ck_assert_msg(atomic_load(&load->failures) == 0, "%u failures: %s", atomic_load(&load->failures), load->failure);
    load_check_writes(load, &log);
    for (unsigned i = 0; i < load->watch_count; i++)
        ck_assert_uint_eq(load->watches[i].count, load_count_matching(&log, &load->watches[i]));
    for (unsigned i = 0; i < CLIENTS; i++)
        kvs_close(load->clients[i].kvs);
    for (unsigned i = 0; i < WATCH_HANDLES; i++)
        kvs_close(load->watch_handles[i]);
    free(load->watches);
    free(load->written);
}

/* The pause of a client, without the time in which the processes waited for a processor that others used. */
#ifdef __SANITIZE_ADDRESS__
#define PAUSE_MAX_MS 4000u
#else
#define PAUSE_MAX_MS 1000u
#endif

static int compare_numbers(const void *a, const void *b)
{
    unsigned one = *(const unsigned *)a, other = *(const unsigned *)b;

    return one < other ? -1 : one > other;
}

/* Stop the daemon, or kill it, and start the next one at once. Return the longest pause, see PAUSE_MAX_MS. */
static unsigned restart_under_load(struct daemon *daemon, int listener, struct load *load, bool is_killed,
                                   const struct nats_server *server)
{
    uint64_t delay_ms = pid_run_delay_ms(getpid()) + (server != NULL ? pid_run_delay_ms(server->process.pid) : 0);

    atomic_store(&load->longest_pause_ms, 0);
    if (is_killed) {
        process_kill(&daemon->process);
    } else {
        process_signal(&daemon->process, SIGTERM);
        process_wait(&daemon->process);
        ck_assert_int_eq(daemon->process.status, 0);
    }
    daemon_spawn(daemon, NULL, listener);
    load_wait_progress(load, ROUND_WRITES);
    pid_t nats_pid = server != NULL ? server->process.pid : daemon_nats_pid(daemon);
    delay_ms =
        pid_run_delay_ms(getpid()) + pid_run_delay_ms(daemon->process.pid) + pid_run_delay_ms(nats_pid) - delay_ms;
    unsigned pause_ms = atomic_load(&load->longest_pause_ms);
    return delay_ms < pause_ms ? pause_ms - (unsigned)delay_ms : 0;
}

/* server: of an external daemon; NULL: it is embedded. */
static void run_restarts(const char *nats_section, const char *more, struct nats_server *server)
{
    static struct daemon daemon;
    static struct load load;
    unsigned restarts = number_from_environment("RESTARTS", RESTARTS);
    unsigned *pauses = keep(calloc(restarts + 1, sizeof(*pauses)));

    daemon_prepare(&daemon);
    daemon_configure(&daemon, nats_section, more);
    int listener = daemon_listen_as_socket_unit(&daemon);
    daemon_spawn(&daemon, NULL, listener);
    daemon_wait_ready(&daemon);
    load_begin(&load, &daemon, number_from_environment("WATCHES", WATCHES));
    for (unsigned i = 0; i < restarts; i++) {
        load_wait_progress(&load, 100 + (unsigned)rand() % ROUND_WRITES);
        pauses[i] = restart_under_load(&daemon, listener, &load, i % 2 == 1, server);
    }
    struct nats *nats =
        server == NULL ? nats_connect_embedded(daemon.data_dir) : nats_connect(server->port, NULL, NULL);
    load_end(&load, nats);
    nats_close(nats);
    daemon_stop(&daemon);
    qsort(pauses, restarts, sizeof(pauses[0]), compare_numbers);
    close(listener);
    if (restarts == 0)
        return;
    if (getenv("RESTARTS") != NULL)
        printf("%u restarts: longest pause of a client p50 %u ms, max %u ms; slowest call: %s\n", restarts,
               pauses[restarts / 2], pauses[restarts - 1], load.slowest);
    ck_assert_msg(pauses[restarts / 2] <= PAUSE_MAX_MS, "the pause of %u restarts is %u ms in the median", restarts,
                  pauses[restarts / 2]);
}

START_TEST(restarts_of_an_embedded_daemon_are_a_pause_and_no_error)
{
    run_restarts(NULL, NULL, NULL);
}
END_TEST

START_TEST(restarts_in_the_middle_of_batches_are_a_pause_and_no_error)
{
    run_restarts(NULL, "buckets:\n  group_commit: on\n", NULL);
}
END_TEST

START_TEST(restarts_of_a_daemon_with_an_external_server_are_a_pause_and_no_error)
{
    struct nats_server server;

    nats_server_start(&server, NULL);
    run_restarts(nats_server_section(&server), NULL, &server);
    nats_server_stop(&server);
}
END_TEST

Suite *restart_suite(void)
{
    Suite *suite = suite_create("restart");
    TCase *restarts = tcase_create("restarts");

    tcase_add_test(restarts, restarts_of_an_embedded_daemon_are_a_pause_and_no_error);
    tcase_add_test(restarts, restarts_in_the_middle_of_batches_are_a_pause_and_no_error);
    tcase_add_test(restarts, restarts_of_a_daemon_with_an_external_server_are_a_pause_and_no_error);
    suite_add_tcase(suite, restarts);
    return suite;
}
