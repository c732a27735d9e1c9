#include "tests/sim/host.h"

#include "daemon/core.h"
#include "daemon/store/journal.h"
#include "tests/sim/doors.h"
#include "tests/sim/link.h"
#include "tests/sim/loop.h"
#include "tests/sim/memory.h"
#include "tests/sim/world.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One process of kvstored. */
struct daemon {
    struct daemon *next; /* in the list of killed daemons */
    struct host *host;
    struct conf conf;
    uv_loop_t uv;
    struct loop *loop;
    struct core core;
    bool is_killed;
};

struct host {
    struct host *next;
    char *name;
    bool is_embedded;
    char *settings;
    struct way way;
    struct clocks clocks;
    struct daemon *daemon; /* NULL: none runs */
    void (*ended)(void *host);
};

static struct host *all;

/* Of the files that daemons leave for their next run. */
static const char *directory;

/* What killed processes had; nobody frees it, as the kernel would. */
static struct daemon *killed;

/* --- The turn -------------------------------------------------------------------------------------- */

static void daemon_begin_turn(void *arg)
{
    const struct daemon *daemon = arg;

    doors_set_clocks(&daemon->host->clocks);
}

/* As main_on_turn_end. */
static bool daemon_end_turn(void *arg)
{
    struct daemon *daemon = arg;

    core_work(&daemon->core);
    bool has_more = core_has_more(&daemon->core);
    core_end_turn(&daemon->core, uv_hrtime());
    return has_more;
}

/* --- Files ----------------------------------------------------------------------------------------- */

void host_set_directory(const char *path)
{
    directory = path;
}

/* Where main would put the socket of this host. */
static void host_write_path(const struct host *host, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/%s.sock", directory, host->name);
}

/* Of an embedded server, what the daemon has in the data directory. */
static void host_remove_data(void)
{
    char file[PATH_MAX + 16];

    snprintf(file, sizeof(file), "%s/kvstored.leases", directory);
    unlink(file);
}

static void host_remove_files(const struct host *host)
{
    static const char *const ends[] = {".writes", ".leases", ".leases.new"};
    char path[PATH_MAX], file[PATH_MAX + 16];

    host_write_path(host, path);
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        snprintf(file, sizeof(file), "%s%s", path, ends[i]);
        unlink(file);
    }
    host_remove_data();
}

/* --- Starting -------------------------------------------------------------------------------------- */

static void daemon_connect(struct daemon *daemon)
{
    const char *const urls[] = {"nats"};
    struct connection_target target = {urls, 1, NULL, NULL, NULL};

    connection_start(daemon->core.store.connection, &target);
}

static void daemon_read_conf(struct daemon *daemon, const struct host *host)
{
    char text[2048 + 2 * PATH_MAX], error[CONF_ERROR_BYTES];
    char nats[PATH_MAX + 32], path[PATH_MAX];

    host_write_path(host, path);
    if (host->is_embedded)
        snprintf(nats, sizeof(nats), "  mode: embedded\n  data_dir: %s\n", directory);
    else
        snprintf(nats, sizeof(nats), "  mode: external\n  servers: [nats://nats:4222]\n");
    int length = snprintf(text, sizeof(text), "listen:\n  path: %s\nnats:\n  name: %s\n%s%s", path, host->name, nats,
                          host->settings);

    if (length >= (int)sizeof(text) || conf_parse(&daemon->conf, "sim", text, (size_t)length, error) != 0) {
        fprintf(stderr, "%s\n", error);
        abort();
    }
}

void host_start(struct host *host)
{
    struct daemon *daemon = memory_new(sizeof(*daemon));
    char error[CONF_ERROR_BYTES];

    trace("%s starts", host->name);
    host->daemon = daemon;
    daemon->host = host;
    daemon_read_conf(daemon, host);
    doors_set_clocks(&host->clocks);
    daemon->loop = loop_new(&daemon->uv, &host->clocks, daemon_begin_turn, daemon_end_turn, daemon);
    if (core_init(&daemon->core, &daemon->uv, &daemon->conf, error) != 0 || core_start_monitor(&daemon->core) != 0)
        abort();
    store_open_files(&daemon->core.store, daemon->conf.listen.path);
    if (!host->is_embedded)
        daemon_connect(daemon);
}

void host_note_server_started(struct host *host)
{
    if (host->daemon != NULL && host->is_embedded && host->daemon->core.state != CORE_STOPPING)
        daemon_connect(host->daemon);
}

/* --- Clients --------------------------------------------------------------------------------------- */

struct arrival {
    struct arrival *next;
    struct daemon *daemon; /* NULL: it was accepted or refused */
    struct pipe *pipe;
};

static struct arrival *arrivals;

static void daemon_accept(void *arg)
{
    struct arrival *arrival = arg;
    struct daemon *daemon = arrival->daemon;

    arrival->daemon = NULL;
    if (daemon->core.state != CORE_RUNNING)
        pipe_refuse(arrival->pipe);
    else
        session_accept(&daemon->core.sessions, pipe_descriptor(arrival->pipe));
}

/* The daemon's process ends: its listening socket does, too. */
static void daemon_refuse_rest(const struct daemon *daemon)
{
    for (struct arrival *arrival = arrivals; arrival != NULL; arrival = arrival->next) {
        if (arrival->daemon != daemon)
            continue;
        arrival->daemon = NULL;
        pipe_refuse(arrival->pipe);
    }
}

void host_connect(struct host *host, struct pipe *pipe)
{
    struct arrival *arrival = memory_new(sizeof(*arrival));

    *arrival = (struct arrival){arrivals, host->daemon, pipe};
    arrivals = arrival;
    if (host->daemon != NULL)
        loop_post(host->daemon->loop, daemon_accept, arrival);
    else
        pipe_refuse(pipe);
}

/* --- The end --------------------------------------------------------------------------------------- */

/* As main_run, after its loop. */
static void daemon_free(void *arg)
{
    struct daemon *daemon = arg;

    if (daemon->is_killed) /* in its last turn */
        return;
    daemon_refuse_rest(daemon);
    loop_free(daemon->loop);
    core_free(&daemon->core);
    conf_free(&daemon->conf);
    struct host *host = daemon->host;
    host->daemon = NULL;
    trace("%s has ended", host->name);
    free(daemon);
    host->ended(host);
}

/* The loop ends when it has no handles. */
static void daemon_wait_for_handles(void *arg)
{
    struct daemon *daemon = arg;

    if (loop_has_handles(daemon->loop))
        loop_post(daemon->loop, daemon_wait_for_handles, daemon);
    else
        world_after(0, daemon_free, daemon);
}

static void daemon_on_core_stopped(void *arg)
{
    struct daemon *daemon = arg;

    core_close(&daemon->core);
    loop_post(daemon->loop, daemon_wait_for_handles, daemon);
}

/* As main_drain. */
static void daemon_drain(void *arg)
{
    struct daemon *daemon = arg;

    trace("%s drains", daemon->host->name);
    core_drain(&daemon->core, daemon_on_core_stopped, daemon);
}

void host_stop(struct host *host)
{
    if (host->daemon != NULL)
        loop_post(host->daemon->loop, daemon_drain, host->daemon);
}

void host_kill(struct host *host)
{
    struct daemon *daemon = host->daemon;

    if (daemon == NULL)
        return;
    trace("%s is killed", host->name);
    daemon_refuse_rest(daemon);
    loop_free(daemon->loop);
    pipe_break_all(&daemon->uv);
    connection_die(daemon->core.store.connection);
    journal_close(daemon->core.store.journal); /* as the kernel does: the next process can lock it */
    daemon->is_killed = true;
    daemon->next = killed;
    killed = daemon;
    host->daemon = NULL;
    host->ended(host);
}

static void host_die(void *arg)
{
    host_kill(arg);
}

void host_kill_after(struct host *host, unsigned steps)
{
    if (host->daemon != NULL)
        loop_break_after(host->daemon->loop, steps, host_die, host);
}

void host_spare(struct host *host)
{
    if (host->daemon != NULL)
        loop_break_after(host->daemon->loop, 0, NULL, NULL);
}

void host_block(struct host *host, uint64_t until_ns)
{
    trace("%s is cut off for %.3f s", host->name, (double)(until_ns - world_now_ns()) / 1e9);
    host->way.blocked_until_ns = until_ns;
}

void host_cut(struct host *host)
{
    link_cut_all(&host->way);
}

struct way *host_way(const uv_loop_t *uv)
{
    struct host *host = all;

    while (host->daemon == NULL || &host->daemon->uv != uv)
        host = host->next;
    return &host->way;
}

void host_delete_data(struct host *host)
{
    trace("the data directory of %s is deleted", host->name);
    host_remove_data();
}

void host_suspend(struct host *host, uint64_t until_ns)
{
    trace("%s is stopped for %.3f s", host->name, (double)(until_ns - world_now_ns()) / 1e9);
    if (host->daemon != NULL)
        loop_suspend(host->daemon->loop, until_ns);
}

void host_suspend_machine(struct host *host, uint64_t until_ns)
{
    struct clocks *clocks = &host->clocks;

    trace("the machine of %s is suspended for %.3f s", host->name, (double)(until_ns - world_now_ns()) / 1e9);
    clocks->suspended_ns += until_ns - world_now_ns();
    clocks->suspended_until_ns = until_ns;
    if (host->daemon != NULL)
        loop_suspend(host->daemon->loop, until_ns);
}

void host_set_rate(struct host *host, int64_t ppm)
{
    host->clocks.rate_ppm = ppm;
}

void host_step_clock(struct host *host, int64_t by_ns)
{
    trace("the clock of %s is set by %.3f s", host->name, (double)by_ns / 1e9);
    host->clocks.epoch_ns += by_ns;
}

const struct clocks *host_clocks(const struct host *host)
{
    return &host->clocks;
}

bool host_is_running(const struct host *host)
{
    return host->daemon != NULL;
}

/* --- Life ------------------------------------------------------------------------------------------ */

struct host *host_new(const char *name, bool is_embedded, const char *settings, void (*ended)(void *host))
{
    struct host *host = memory_new(sizeof(*host));

    *host = (struct host){.next = all, .name = strdup(name), .is_embedded = is_embedded, .settings = strdup(settings)};
    host->ended = ended;
    host->clocks.boot_ms = (int64_t)world_below(1000000);
    host->clocks.epoch_ns = ((int64_t)world_below(7200) - 3600) * (int64_t)WORLD_SECOND;
    all = host;
    return host;
}

void host_forget_all(void)
{
    doors_set_clocks(NULL);
    while (all != NULL) {
        struct host *host = all;
        all = host->next;
        host_remove_files(host);
        free(host->name);
        free(host->settings);
        free(host);
    }
    while (arrivals != NULL) {
        struct arrival *arrival = arrivals;
        arrivals = arrival->next;
        free(arrival);
    }
}
