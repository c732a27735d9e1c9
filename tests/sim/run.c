#include "tests/sim/run.h"

#include "tests/sim/api.h"
#include "tests/sim/client.h"
#include "tests/sim/judge.h"
#include "tests/sim/link.h"
#include "tests/sim/locker.h"
#include "tests/sim/loop.h"
#include "tests/sim/memory.h"
#include "tests/sim/pipe.h"
#include "tests/sim/server.h"
#include "tests/sim/world.h"

#include <stdio.h>
#include <string.h>

#define CLIENTS_MAX 4u
#define STOPS_MAX   64u
#define LAG_MAX_MS  5000u
#define BUCKET      "b"
#define LOCK_BUCKET "locks"

/* Clocks of hosts run faster or slower by this: together by what a lease allows. See CLOCK_DRIFT in lease.c. */
#define RATE_MAX_PPM 10000

/* After the faults, everything must be well within this time. */
#define RECOVERY_NS (120 * WORLD_SECOND)

enum fault {
    FAULT_CUT,         /* connections are cut */
    FAULT_KILL,        /* the server is killed, and starts again */
    FAULT_STOP_SHORT,  /* the server's process is stopped: for about as long as a request waits */
    FAULT_STOP_LONG,   /* for as long as the duplicate window, or longer */
    FAULT_BLOCK,       /* nothing passes between the server and one daemon, or all */
    FAULT_SUSPEND,     /* the daemon's process is stopped */
    FAULT_MACHINE,     /* its machine is suspended */
    FAULT_CLOCK,       /* the clock of the server and of all hosts, or of one host, is set */
    FAULT_FULL,        /* the server's store is full, or soon will be */
    FAULT_SET_BACK,    /* the server comes back older than it was */
    FAULT_RESTART,     /* the daemon is shut down, and starts again */
    FAULT_KILL_DAEMON, /* the daemon is killed, and starts again */
    FAULT_LAG,         /* the followers of a cluster are far behind */
    FAULT_QUEUE,       /* the queue of the server's API is full at times */
    FAULT_LEADER,      /* the leader of a cluster fails, and another takes over */
    FAULT_EMPTY,       /* the server comes back empty: its store is gone */
    FAULTS
};

/* A bucket, and the client that creates it: at the beginning, and again after the server has lost it. */
struct bucket_set_up {
    const struct load *load;
    struct client *client;
    bool is_under_way;
    uint64_t at_ns; /* when that was answered last */
};

struct run {
    struct server *server;
    struct host *hosts[HOSTS_MAX]; /* of an external server several, each with a daemon */
    size_t host_count;
    bool is_embedded;
    bool is_cluster;
    bool is_quiet; /* there are no faults */
    struct load load;
    char settings[512];
    struct client *clients[CLIENTS_MAX];
    size_t client_count;
    struct load lock_bucket; /* as far as its bucket is created */
    struct lock_load lock_load;
    struct locker *lockers[LOCKERS_MAX];
    size_t locker_count;
    unsigned weights[FAULTS];     /* of the faults that this seed has */
    uint64_t fault_pause_ns;      /* between them, about */
    bool kills_in_turns;          /* a daemon that is killed is in the middle of a turn, sometimes */
    uint64_t ends_ns;             /* of the faults and the load */
    struct stop stops[STOPS_MAX]; /* of the daemon */
    size_t stop_count;
    struct bucket_set_up set_ups[2];
    size_t set_up_count;
    bool loses_data;      /* the data directory is deleted when the daemon has ended */
    unsigned reconcile_s; /* watches.reconcile_interval */
    bool is_over;
};

static struct run run;

/* --- What the seed chooses ------------------------------------------------------------------------- */

static void choose_network(void)
{
    network.least_ns = world_between(10000, 100000);
    network.most_ns = network.least_ns + world_between(10000, 2 * WORLD_MS);
    network.slow_per_mille = !run.is_quiet && world_chance(300) ? (unsigned)world_below(50) : 0;
    network.slow_ns = network.most_ns + world_between(1, 500) * WORLD_MS;
    loop_set_pace(run.is_quiet || world_chance(700) ? world_between(20, 300) : world_between(1000, 40000));
}

static void choose_load(void)
{
    static const unsigned usual[CALL_KINDS] = {
        [CALL_PUT] = 20,     [CALL_CREATE] = 8,    [CALL_UPDATE] = 12,     [CALL_DELETE] = 6,   [CALL_GET] = 20,
        [CALL_BULK_PUT] = 6, [CALL_BULK_GET] = 6,  [CALL_COMMIT] = 10,     [CALL_PURGE] = 4,    [CALL_KEYS] = 3,
        [CALL_ENTRIES] = 3,  [CALL_INCREMENT] = 6, [CALL_BULK_DELETE] = 3, [CALL_GET_JSON] = 3, [CALL_WAIT] = 3};
    struct load *load = &run.load;

    load->bucket = BUCKET;
    load->history = world_chance(500) ? 1 : 64;
    load->keys = (unsigned)world_between(1, 6);
    load->in_flight = (unsigned)world_between(1, !run.is_quiet && world_chance(200) ? 40 : 6);
    load->pause_ns = world_between(1, world_chance(500) ? 20 : 300) * WORLD_MS;
    for (unsigned kind = 0; kind < CALL_KINDS; kind++)
        load->weights[kind] = world_chance(250) ? 0 : usual[kind];
    load->weights[CALL_PUT] += 1;
    load->weights[CALL_PURGE_BUCKET] = world_chance(300) ? (unsigned)world_between(1, 4) : 0;
    load->ttl_per_mille = world_chance(300) ? (unsigned)world_between(50, 600) : 0;
    load->cached_per_mille = world_chance(300) ? 300 : 0;
    load->leader_per_mille = world_chance(300) ? 300 : 0;
    load->least_timeout_ms = world_between(200, 2000);
    load->most_timeout_ms = load->least_timeout_ms + world_below(6000);
    load->watches = world_chance(600);
    load->stop_per_mille = world_chance(300) ? 20 : 0;
    load->repeats = world_chance(500);
    load->leave_per_mille = world_chance(200) ? 20 : 0;
    load->stall_per_mille = world_chance(100) ? 20 : 0;
}

/* What is chosen last: it leaves the choices above as they were. */
static void choose_more_load(void)
{
    run.load.option_per_mille = world_chance(400) ? 300 : 0;
    run.load.many_ttl_per_mille = world_chance(200) ? (unsigned)world_between(50, 400) : 0;
    run.load.condition_per_mille = world_chance(500) ? 500 : 0;
    run.load.cancel_per_mille = world_chance(300) ? (unsigned)world_between(20, 300) : 0;
    run.lock_load.cancel_per_mille = world_chance(300) ? (unsigned)world_between(20, 300) : 0;
}

/* Return for how long a daemon was stopped between these times. */
static uint64_t run_stopped_ns(uint64_t from_ns, uint64_t to_ns)
{
    return judge_stopped_ns(run.stops, run.stop_count, from_ns, to_ns);
}

static void choose_lock_load(unsigned lease_ttl_s)
{
    run.locker_count = world_chance(500) ? world_between(1, LOCKERS_MAX) : 0;
    run.lock_load = (struct lock_load){.bucket = LOCK_BUCKET,
                                       .locks = (unsigned)world_between(1, 3),
                                       .pause_ns = world_between(5, 500) * WORLD_MS,
                                       .most_hold_ns = world_between(100, 2000 * lease_ttl_s) * WORLD_MS,
                                       .stall_per_mille = world_chance(500) ? 50 : 0,
                                       .leave_per_mille = world_chance(500) ? 400 : 0,
                                       .purge_per_mille = world_chance(200) ? (unsigned)world_between(5, 50) : 0,
                                       .lease_ttl_ns = lease_ttl_s * WORLD_SECOND,
                                       .is_quiet = run.is_quiet,
                                       .stopped_ns = run_stopped_ns};
    run.lock_bucket = run.load;
    run.lock_bucket.bucket = LOCK_BUCKET;
    run.lock_bucket.history = 1;
}

/* In one of ten worlds the server is set back, and in another one it loses its store: after that, less is judged. */
static void choose_loss(const unsigned *usual)
{
    uint64_t chance = run.is_quiet ? 1000 : world_below(1000);

    if (chance < 100)
        run.weights[FAULT_SET_BACK] = usual[FAULT_SET_BACK];
    else if (chance < 200)
        run.weights[FAULT_EMPTY] = usual[FAULT_EMPTY];
}

static void choose_faults(void)
{
    static const unsigned usual[FAULTS] = {
        [FAULT_CUT] = 20,  [FAULT_KILL] = 12,    [FAULT_STOP_SHORT] = 8, [FAULT_STOP_LONG] = 3,
        [FAULT_BLOCK] = 6, [FAULT_SUSPEND] = 6,  [FAULT_MACHINE] = 4,    [FAULT_CLOCK] = 3,
        [FAULT_FULL] = 3,  [FAULT_SET_BACK] = 2, [FAULT_RESTART] = 3,    [FAULT_KILL_DAEMON] = 3,
        [FAULT_LAG] = 12,  [FAULT_LEADER] = 12,  [FAULT_QUEUE] = 4,      [FAULT_EMPTY] = 2};

    run.is_cluster = !run.is_embedded && world_chance(400);
    for (unsigned fault = 0; fault < FAULT_EMPTY; fault++) {
        if (fault == FAULT_SET_BACK)
            choose_loss(usual);
        else
            run.weights[fault] = !run.is_quiet && world_chance(500) ? usual[fault] : 0;
    }
    if (run.is_cluster)
        run.weights[FAULT_SET_BACK] = run.weights[FAULT_EMPTY] = 0;
    else
        run.weights[FAULT_LAG] = run.weights[FAULT_LEADER] = 0;
    run.load.replicas = run.is_cluster ? 3 : 1;
    run.lock_bucket.replicas = run.load.replicas;
    run.lock_load.daemons_stay = run.weights[FAULT_RESTART] == 0 && run.weights[FAULT_KILL_DAEMON] == 0 &&
                                 (run.weights[FAULT_EMPTY] == 0 || !run.is_embedded);
    run.kills_in_turns = run.weights[FAULT_KILL_DAEMON] > 0 && world_chance(500);
    run.fault_pause_ns = world_between(50, world_chance(500) ? 500 : 5000) * WORLD_MS;
}

static void choose_settings(void)
{
    /* Lockers' calls have up to 6 s. The duplicate window is twice as long as the maximum. */
    unsigned least_s = run.load.most_timeout_ms > 6000 ? 8 : 6;
    unsigned max_timeout_s = least_s + (unsigned)world_below(world_chance(500) ? 1 : 12),
             lease_ttl_s = (unsigned)world_between(1, 10);

    run.reconcile_s = (unsigned)world_between(5, 60);
    snprintf(run.settings, sizeof(run.settings),
             "calls:\n  max_timeout: %us\n  attempt_timeout: %ums\n"
             "watches:\n  reconcile_interval: %us\nlog:\n  level: debug\nlocks:\n  lease_ttl: %us\n%s",
             max_timeout_s, (unsigned)world_between(200, 3000), run.reconcile_s, lease_ttl_s,
             world_chance(500) ? "buckets:\n  group_commit: on\n" : "");
    choose_lock_load(lease_ttl_s);
}

/* --- The buckets ----------------------------------------------------------------------------------- */

static const struct stream *find_stream(const char *bucket)
{
    char name[64];

    snprintf(name, sizeof(name), "KV_%s", bucket);
    return server_find_stream(run.server, name);
}

static void on_set_up(void *arg)
{
    struct bucket_set_up *set_up = arg;

    set_up->is_under_way = false;
    set_up->at_ns = world_now_ns();
}

/* Create the buckets that are not there. */
static void set_up_buckets(void *arg)
{
    (void)arg;
    for (size_t i = 0; i < run.set_up_count; i++) {
        struct bucket_set_up *set_up = &run.set_ups[i];
        if (set_up->is_under_way || find_stream(set_up->load->bucket) != NULL)
            continue;
        set_up->is_under_way = true;
        client_set_up(set_up->client, on_set_up, set_up);
    }
}

static bool are_buckets_there(void)
{
    bool are_there = true;

    for (size_t i = 0; i < run.set_up_count; i++)
        are_there = are_there && !run.set_ups[i].is_under_way && find_stream(run.set_ups[i].load->bucket) != NULL;
    return are_there;
}

/* --- Faults ---------------------------------------------------------------------------------------- */

/* An embedded server is started by its daemon, and ends with it. */
static void start_server(void *arg)
{
    (void)arg;
    if (server_is_up(run.server) || (run.is_embedded && !host_is_running(run.hosts[0])))
        return;
    server_start(run.server);
    for (size_t i = 0; i < run.host_count; i++)
        host_note_server_started(run.hosts[i]);
    if (!are_buckets_there())
        world_after(world_between(1, 5000) * WORLD_MS, set_up_buckets, NULL);
}

static void start_daemon(void *arg)
{
    struct host *host = arg;

    if (host_is_running(host) || run.is_over)
        return;
    host_start(host);
    if (run.is_embedded)
        world_after(world_between(1, 500) * WORLD_MS, start_server, NULL);
}

static void make_room(void *arg)
{
    (void)arg;
    server_set_full(run.server, false);
}

/*
 * The daemon of an embedded server sees to it that it is not full in the middle of a batch. Members of a cluster hold
 * batches in memory.
 */
static void fill_store(void)
{
    if (run.is_embedded || run.is_cluster || world_chance(300))
        server_set_full(run.server, true);
    else
        server_fill_after(run.server, (unsigned)world_between(1, 30));
}

static void kill_server(void)
{
    server_kill(run.server);
    world_after(world_between(1, world_chance(700) ? 500 : 8000) * WORLD_MS, start_server, NULL);
}

static void set_server_back(void *arg)
{
    (void)arg;
    server_set_back(run.server);
    kill_server();
}

/* A data directory is deleted while neither the daemon nor its embedded server runs. */
static void suspend_daemon(struct host *host, bool with_machine)
{
    uint64_t ns = world_between(1, world_chance(700) ? 500 : 10000) * WORLD_MS, until_ns = world_now_ns() + ns;

    if (run.stop_count == STOPS_MAX || (run.stop_count > 0 && run.stops[run.stop_count - 1].end_ns > world_now_ns()))
        return;
    run.stops[run.stop_count++] = (struct stop){world_now_ns(), world_now_ns() + ns};
    if (!with_machine) {
        host_suspend(host, until_ns);
        return;
    }
    host_suspend_machine(host, until_ns);
    if (run.is_embedded)
        server_stop_until(run.server, until_ns);
}

static void delete_data(struct host *host)
{
    run.loses_data = false;
    server_lose_store(run.server);
    host_delete_data(host);
}

/* A data directory is deleted while neither the daemon nor its embedded server runs. */
static void lose_store(struct host *host)
{
    if (!run.is_embedded) {
        server_lose_store(run.server);
        kill_server();
    } else if (!host_is_running(host)) {
        delete_data(host);
    } else {
        run.loses_data = true;
        if (world_chance(500))
            host_stop(host);
        else
            host_kill(host);
    }
}

/* Whatever has ended it, it is started again. */
static void on_daemon_ended(void *arg)
{
    if (run.is_embedded)
        server_kill(run.server);
    if (run.loses_data)
        delete_data(arg);
    world_after(world_between(1, world_chance(500) ? 100 : 1000) * WORLD_MS, start_daemon, arg);
}

static void kill_daemon(struct host *host)
{
    if (run.kills_in_turns && world_chance(700))
        host_kill_after(host, (unsigned)world_between(1, 300));
    else
        host_kill(host);
}

/* Return whether a fault of the network is to be one of all hosts. */
static bool is_for_all(void)
{
    return run.host_count == 1 || world_chance(500);
}

static void block(struct host *host)
{
    uint64_t until_ns = world_now_ns() + world_between(1, 15000) * WORLD_MS;

    if (is_for_all())
        server_block_until(run.server, until_ns);
    else
        host_block(host, until_ns);
}

static void change_leader(void)
{
    uint64_t fails_until_ns = world_now_ns() + world_between(0, 50) * WORLD_MS;

    server_change_leader(run.server, fails_until_ns,
                         fails_until_ns + world_between(1, world_chance(700) ? 500 : 8000) * WORLD_MS);
}

/* A daemon and its embedded server have one clock. */
static void set_clock(struct host *host)
{
    int64_t by_ns = (int64_t)world_between(0, 20000) * 1000000 - 10000000000;

    if (!run.is_embedded && world_chance(500))
        host_step_clock(host, by_ns);
    else
        world_step_epoch(by_ns);
}

static void cause(enum fault fault)
{
    struct host *host = run.hosts[world_below(run.host_count)];

    switch (fault) {
    case FAULT_CUT:
        if (is_for_all())
            link_cut_all(NULL);
        else
            host_cut(host);
        break;
    case FAULT_KILL:
        kill_server();
        break;
    case FAULT_STOP_SHORT:
        server_stop_until(run.server, world_now_ns() + world_between(1, 3000) * WORLD_MS);
        break;
    case FAULT_STOP_LONG:
        server_stop_until(run.server, world_now_ns() + world_between(5, 60) * WORLD_SECOND);
        break;
    case FAULT_BLOCK:
        block(host);
        break;
    case FAULT_SUSPEND:
        suspend_daemon(host, false);
        break;
    case FAULT_MACHINE:
        suspend_daemon(host, true);
        break;
    case FAULT_CLOCK:
        set_clock(host);
        break;
    case FAULT_FULL:
        fill_store();
        world_after(world_between(1, 3000) * WORLD_MS, make_room, NULL);
        break;
    case FAULT_SET_BACK:
        server_back_up(run.server);
        world_after(world_between(1, 3000) * WORLD_MS, set_server_back, NULL);
        break;
    case FAULT_RESTART:
        host_stop(host);
        break;
    case FAULT_KILL_DAEMON:
        kill_daemon(host);
        break;
    case FAULT_LAG:
        server_let_followers_lag(run.server, world_between(10, LAG_MAX_MS) * WORLD_MS,
                                 world_now_ns() + world_between(10, 10000) * WORLD_MS);
        break;
    case FAULT_QUEUE:
        server_overflow_until(run.server, world_now_ns() + world_between(1, 5000) * WORLD_MS);
        break;
    case FAULT_LEADER:
        change_leader();
        break;
    case FAULT_EMPTY:
        lose_store(host);
        break;
    case FAULTS:
        break;
    }
}

static void on_fault_due(void *arg)
{
    (void)arg;
    if (world_now_ns() >= run.ends_ns)
        return;
    cause((enum fault)world_choose(run.weights, FAULTS));
    world_after(world_between(1, 2 * run.fault_pause_ns), on_fault_due, NULL);
}

/* --- The run --------------------------------------------------------------------------------------- */

static void fail_if(bool is_wrong, const char *what)
{
    if (is_wrong)
        world_fail("%s", what);
}

/* Let time pass until the state is reached; fail if that takes too long. */
static void go_on_until(bool (*is_reached)(void), const char *what)
{
    uint64_t until_ns = world_now_ns() + RECOVERY_NS;

    while (!is_reached()) {
        if (!world_go_on(until_ns))
            world_fail("%s", what);
    }
}

static bool are_clients_idle(void)
{
    for (size_t i = 0; i < run.client_count; i++) {
        if (!client_is_idle(run.clients[i]))
            return false;
    }
    return true;
}

static bool are_lockers_finished(void)
{
    for (size_t i = 0; i < run.locker_count; i++) {
        if (!locker_is_finished(run.lockers[i]))
            return false;
    }
    return true;
}

static const struct stream *stream_of(const char *bucket)
{
    const struct stream *stream = find_stream(bucket);

    fail_if(stream == NULL, "the bucket is gone");
    return stream;
}

static bool is_lock_bucket_clean(void)
{
    const char *left = lockers_find_left(stream_of(LOCK_BUCKET));

    if (left != NULL && world_is_printed())
        trace("%s is left", left);
    return left == NULL;
}

/*
 * cache.max_staleness, and delays. A purge by another host leaves no message: it is noticed when the daemon compares
 * what it has.
 */
static uint64_t maximum_staleness_ns(void)
{
    bool may_miss_purges = run.load.weights[CALL_PURGE_BUCKET] > 0 && run.host_count > 1;

    return (13 + (may_miss_purges ? run.reconcile_s : 0)) * WORLD_SECOND;
}

/* An empty server gets new buckets, whose revisions begin again: of them, nothing is lost. */
static bool was_set_back_for_good(void)
{
    return server_was_set_back(run.server) && run.weights[FAULT_EMPTY] == 0;
}

static struct judgement make_judgement(void)
{
    return (struct judgement){.stream = stream_of(BUCKET),
                              .load = &run.load,
                              .clients = run.clients,
                              .client_count = run.client_count,
                              .reads_memory = run.is_embedded,
                              .lag_ns = run.is_cluster ? (LAG_MAX_MS + 10) * WORLD_MS : 0,
                              .host_count = run.host_count,
                              .staleness_ns = maximum_staleness_ns(),
                              .slack_ns = 100 * WORLD_MS + (run.load.stall_per_mille > 0 ? 3 * WORLD_SECOND : 0),
                              .stops = run.stops,
                              .stop_count = run.stop_count,
                              .is_quiet = run.is_quiet,
                              .daemons_stay = run.lock_load.daemons_stay,
                              .was_set_back = server_was_set_back(run.server),
                              .promises_ns = was_set_back_for_good() ? UINT64_MAX : run.set_ups[0].at_ns};
}

static bool are_watches_done(void)
{
    struct judgement judgement = make_judgement();

    for (size_t i = 0; i < run.client_count; i++) {
        if (!judge_is_delivered(&judgement, run.clients[i]))
            return false;
    }
    return true;
}

static bool do_watches_agree(void)
{
    struct judgement judgement = make_judgement();

    for (size_t i = 0; i < run.client_count; i++) {
        if (!judge_is_in_agreement(&judgement, run.clients[i]))
            return false;
    }
    return true;
}

static bool have_daemons_ended(void)
{
    for (size_t i = 0; i < run.host_count; i++) {
        if (host_is_running(run.hosts[i]))
            return false;
    }
    return true;
}

static void begin(void)
{
    run.is_quiet = world_chance(100);
    run.is_embedded = world_chance(500);
    choose_network();
    choose_load();
    choose_settings();
    choose_faults();
    choose_more_load();
    run.server = run.lock_load.server = server_new("nats");
    if (run.is_cluster)
        server_make_cluster(run.server);
    server_set_wrong_estimates(run.server, world_chance(300) ? 300 : 0);
    bool clocks_differ = world_chance(300);
    run.host_count = run.is_embedded || world_chance(500) ? 1 : world_between(2, HOSTS_MAX);
    for (size_t i = 0; i < run.host_count; i++) {
        char name[8];
        snprintf(name, sizeof(name), "h%zu", i + 1);
        run.hosts[i] = host_new(name, run.is_embedded, run.settings, on_daemon_ended);
        if (clocks_differ)
            host_set_rate(run.hosts[i], (int64_t)world_below(2 * RATE_MAX_PPM + 1) - RATE_MAX_PPM);
        host_start(run.hosts[i]);
        host_note_server_started(run.hosts[i]);
    }
    run.client_count = world_between(1, CLIENTS_MAX);
    for (size_t i = 0; i < run.client_count; i++)
        run.clients[i] = client_new((unsigned)i, run.hosts[i % run.host_count], &run.load);
    for (size_t i = 0; i < run.locker_count; i++)
        run.lockers[i] = locker_new((unsigned)i, run.hosts[i % run.host_count], &run.lock_load);
    run.set_ups[run.set_up_count++] = (struct bucket_set_up){.load = &run.load, .client = run.clients[0]};
    if (run.locker_count > 0)
        run.set_ups[run.set_up_count++] = (struct bucket_set_up){
            .load = &run.lock_bucket, .client = client_new(CLIENTS_MAX, run.hosts[0], &run.lock_bucket)};
    set_up_buckets(NULL);
    go_on_until(are_buckets_there, "the buckets cannot be created");
    run.set_ups[0].client = client_new(CLIENTS_MAX + 1, run.hosts[0], &run.load); /* that has no other calls */
}

static void work(void)
{
    run.ends_ns = world_now_ns() + world_between(2, 30) * WORLD_SECOND;
    for (size_t i = 0; i < run.client_count; i++)
        client_run_until(run.clients[i], run.ends_ns);
    for (size_t i = 0; i < run.locker_count; i++)
        locker_run(run.lockers[i]);
    world_after(world_below(run.fault_pause_ns), on_fault_due, NULL);
    while (world_go_on(run.ends_ns))
        ;
}

/* All faults end; everything must be well again. */
static void recover(void)
{
    trace("the faults end");
    server_set_full(run.server, false);
    server_continue(run.server);
    server_let_followers_lag(run.server, 0, 0);
    server_overflow_until(run.server, world_now_ns());
    server_block_until(run.server, world_now_ns());
    run.loses_data = false;
    for (size_t i = 0; i < run.host_count; i++) {
        host_block(run.hosts[i], world_now_ns());
        host_spare(run.hosts[i]);
    }
    go_on_until(are_clients_idle, "calls have no answers");
    for (size_t i = 0; i < run.host_count; i++)
        start_daemon(run.hosts[i]);
    start_server(NULL);
    uint64_t until_ns = world_now_ns() + 20 * WORLD_SECOND;
    while (world_go_on(until_ns))
        ;
    set_up_buckets(NULL);
    go_on_until(are_buckets_there, "the buckets cannot be created again");
    go_on_until(do_watches_agree, "a watch was delivered something else than what the bucket has");
    for (size_t i = 0; i < run.locker_count; i++)
        locker_finish(run.lockers[i]);
    for (size_t i = 0; i < run.client_count; i++)
        client_use_all(run.clients[i]);
    go_on_until(are_clients_idle, "the last calls have no answers");
    go_on_until(are_watches_done, "a watch was not delivered everything");
    go_on_until(are_lockers_finished, "a lock cannot be acquired");
    if (was_set_back_for_good() || run.locker_count == 0)
        return;
    go_on_until(is_lock_bucket_clean, "locks or ephemeral keys of sessions that have ended are left");
    fail_if(!lockers_are_registered(stream_of(LOCK_BUCKET)), "the ephemeral key of a session is not there");
}

static void judge_all(struct run_counts *counts)
{
    struct judgement judgement = make_judgement();

    judge_prepare(&judgement);
    for (size_t i = 0; i < run.client_count; i++) {
        judge_calls(&judgement, run.clients[i]);
        judge_watches(&judgement, run.clients[i]);
        for (const struct call_record *record = client_records(run.clients[i]); record != NULL; record = record->next) {
            counts->calls++;
            counts->unknown += record->result == CALL_UNKNOWN;
        }
    }
    judge_counter(&judgement);
    judge_deletions(&judgement);
    judge_purges(&judgement);
    for (const struct stream *stream = server_streams(run.server); stream != NULL && !judgement.was_set_back;
         stream = stream->next)
        judge_log(stream);
    lockers_judge(run.locker_count > 0 ? stream_of(LOCK_BUCKET) : NULL);
    counts->locks += lockers_acquired();
    judge_finish(&judgement);
}

static void end(void)
{
    run.is_over = true;
    for (size_t i = 0; i < run.locker_count; i++)
        locker_leave(run.lockers[i]);
    for (size_t i = 0; i < run.host_count; i++)
        host_stop(run.hosts[i]);
    go_on_until(have_daemons_ended, "a daemon does not end");
}

uint64_t run_seed(uint64_t seed, bool is_printed, struct run_counts *counts)
{
    memset(&run, 0, sizeof(run));
    world_begin(seed, is_printed);
    begin();
    if (run.kills_in_turns)
        memory_may_leak(true);
    work();
    recover();
    judge_all(counts);
    end();
    counts->seeds++;
    counts->events += world_events();
    counts->simulated_ns += world_now_ns();
    client_forget_all();
    locker_forget_all();
    host_forget_all();
    connection_forget_all();
    link_forget_all();
    server_forget_all();
    pipe_forget_all();
    loop_forget_all();
    if (run.kills_in_turns)
        memory_may_leak(false);
    world_end();
    return world_trace_hash();
}
