/*
 * kvstored: the process.
 *
 * Reads the configuration, creates the modules, runs the loop, obeys signals and the service manager, and ends
 * everything in order.
 */
#include "conf/conf.h"
#include "daemon/base/busy_poll.h"
#include "daemon/base/heap.h"
#include "daemon/base/log.h"
#include "daemon/core.h"
#include "daemon/embedded/process.h"
#include "daemon/reload.h"
#include "daemon/transport/server.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <nats/nats.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

/* How often a daemon that starts checks whether it is ready. */
#define READY_CHECK_MS 10u

/* While the embedded server recovers its data, ask the service manager repeatedly for this much more time. */
#define EXTEND_EVERY_MS 5000u
#define EXTEND_BY_MS    30000u

/* The exit status for errors that a restart does not cure. The unit does not restart the daemon then. */
#define EXIT_CONFIGURATION 2

/* All state of the process. */
struct daemon {
    uv_loop_t loop;
    struct conf conf;
    const char *conf_path; /* NULL: the defaults */
    bool with_hints;       /* print example commands when ready */
    const char *program;   /* as it was called */
    struct heap heap;
    uint64_t turn_cpu_ns; /* of the thread, at the end of the last turn; only while log.slow_turn is set */
    struct log_limit slow_turn_log;
    struct core core;
    struct embedded_process *embedded; /* NULL in external mode */
    struct server server;
    const char *const *urls; /* in external mode */
    uv_signal_t signals[3];  /* SIGTERM, SIGINT, SIGHUP */
    uv_prepare_t turn_end;
    uv_idle_t more; /* while a turn must follow at once */
    struct busy_poll busy_poll;
    uint64_t reads; /* of all sockets, until the last turn */
    uv_timer_t watchdog;
    uv_timer_t ready_check; /* until the daemon is ready */
    uint64_t extended_ms;   /* when the service manager was last notified that the start takes longer; 0: never */
    bool is_ready;
    int exit_status;
};

/* --- The turn of the loop -------------------------------------------------------------------------- */

/* Keep the loop from waiting, once: there is more to do. */
static void main_on_more(uv_idle_t *handle)
{
    uv_idle_stop(handle);
}

static uint64_t main_thread_cpu_ns(void)
{
    struct timespec used;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

/*
 * Log a slow turn. Processor time counts, because on a busy machine a turn may wait for a processor. Reading it takes a
 * system call, some 2 % of a cached read, so it is done only if there is a limit.
 */
static void main_check_turn(struct daemon *daemon)
{
    unsigned limit_ms = daemon->conf.log.slow_turn_ms;

    if (limit_ms == 0) { /* a reload may set a limit again, and turns without one are not to be counted then */
        daemon->turn_cpu_ns = 0;
        return;
    }
    uint64_t cpu_ns = main_thread_cpu_ns(), used_ns = cpu_ns - daemon->turn_cpu_ns;
    if (daemon->turn_cpu_ns > 0 && used_ns > limit_ms * 1000000ull)
        log_limited(&daemon->slow_turn_log, "slow turns", CONF_LOG_WARNING,
                    "loop: slow turn: %.1f ms of processor time (log.slow_turn is %.3g s); the last call was %s",
                    (double)used_ns / 1e6, limit_ms / 1000.0, dispatcher_last_method(&daemon->core.dispatcher));
    daemon->turn_cpu_ns = cpu_ns;
}

/* Memory of a filter of a watch, in its list and in the tree. A watch of one filter takes three times as much. */
#define FILTER_BYTES 256u

/* Memory that grows with what clients do. */
static size_t main_bytes_in_use(const struct daemon *daemon)
{
    const size_t *taken = daemon->core.sessions.usage.taken;

    return store_cache_bytes(&daemon->core.store) + taken[USAGE_CALL_BYTES] + taken[USAGE_INPUT_BYTES] +
           taken[USAGE_OUT_BYTES] + taken[USAGE_FILTERS] * FILTER_BYTES;
}

/* Runs before the loop waits. */
static void main_on_turn_end(uv_prepare_t *handle)
{
    struct daemon *daemon = handle->data;
    uint64_t reads = daemon->core.sessions.reads + connection_get_status(daemon->core.store.connection)->reads;

    core_work(&daemon->core);
    heap_note(&daemon->heap, main_bytes_in_use(daemon), uv_hrtime());
    if (core_has_more(&daemon->core))
        uv_idle_start(&daemon->more, main_on_more);
    uint64_t now_ns = uv_hrtime();
    core_end_turn(&daemon->core, now_ns);
    main_check_turn(daemon);
    busy_poll_turn(&daemon->busy_poll, reads - daemon->reads, daemon->core.metrics.calls, now_ns);
    daemon->reads = reads;
}

/* --- The end --------------------------------------------------------------------------------------- */

static void main_close_handle(uv_handle_t *handle)
{
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void main_close_own_handles(struct daemon *daemon)
{
    for (size_t i = 0; i < sizeof(daemon->signals) / sizeof(daemon->signals[0]); i++)
        main_close_handle((uv_handle_t *)&daemon->signals[i]);
    main_close_handle((uv_handle_t *)&daemon->turn_end);
    main_close_handle((uv_handle_t *)&daemon->more);
    main_close_handle((uv_handle_t *)&daemon->busy_poll.idle);
    main_close_handle((uv_handle_t *)&daemon->watchdog);
    main_close_handle((uv_handle_t *)&daemon->ready_check);
    core_close(&daemon->core);
    if (connection_is_abandoned(daemon->core.store.connection))
        uv_stop(&daemon->loop);
}

static void main_on_embedded_stopped(void *arg)
{
    main_close_own_handles(arg);
}

static void main_on_core_stopped(void *arg)
{
    struct daemon *daemon = arg;

    if (daemon->embedded != NULL)
        embedded_process_stop(daemon->embedded, main_on_embedded_stopped, daemon);
    else
        main_close_own_handles(daemon);
}

static void main_drain(struct daemon *daemon)
{
    if (daemon->core.state != CORE_RUNNING)
        return;
    sd_notify(0, "STOPPING=1");
    server_close(&daemon->server);
    core_drain(&daemon->core, main_on_core_stopped, daemon);
}

/* --- Signals --------------------------------------------------------------------------------------- */

/* Before the daemon is ready, and while it ends, systemd waits for something else. */
static void main_reload(struct daemon *daemon)
{
    if (daemon->core.state != CORE_RUNNING)
        return;
    if (daemon->is_ready)
        sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)(uv_hrtime() / 1000));
    reload(&daemon->core, daemon->conf_path, &daemon->busy_poll);
    if (daemon->is_ready)
        sd_notify(0, "READY=1");
}

static void main_on_signal(uv_signal_t *handle, int number)
{
    struct daemon *daemon = handle->data;

    if (number == SIGHUP)
        main_reload(daemon);
    else
        main_drain(daemon);
}

/* --- Being ready ----------------------------------------------------------------------------------- */

/* A daemon that was started as build/kvstored has its kvctl beside it; otherwise that is in $PATH. */
static void main_print_hints(const struct daemon *daemon)
{
    static const char beside[] = "build/";
    const char *directory = strncmp(daemon->program, beside, sizeof(beside) - 1) == 0 ? beside : "";

    printf("\nkvstored is ready. In another terminal, from this directory:\n\n"
           "    export KVSTORED_SOCKET=%s\n"
           "    %skvctl add demo --history 5\n"
           "    %skvctl put demo greeting 'hello, world'\n"
           "    %skvctl get demo greeting\n"
           "    %skvctl --help\n\n"
           "Ctrl-C stops it; the data stays in %s.\n\n",
           daemon->server.path, directory, directory, directory, directory,
           daemon->conf.nats.mode == CONF_NATS_EMBEDDED ? daemon->conf.nats.data_dir : "NATS");
    fflush(stdout);
}

/* The embedded server may have much to recover: ask the service manager for more time. */
static void main_extend_start(struct daemon *daemon)
{
    uint64_t now_ms = uv_now(&daemon->loop);

    if (daemon->embedded == NULL || !embedded_process_is_starting(daemon->embedded) ||
        (daemon->extended_ms != 0 && now_ms - daemon->extended_ms < EXTEND_EVERY_MS))
        return;
    daemon->extended_ms = now_ms;
    sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%u\nSTATUS=%s", EXTEND_BY_MS * 1000u,
               connection_get_status(daemon->core.store.connection)->trouble);
}

/* With the embedded server, ready means that it answers. An external NATS may come later. */
static void main_on_ready_check(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;

    if (daemon->embedded != NULL && !connection_is_up(daemon->core.store.connection)) {
        main_extend_start(daemon);
        return;
    }
    uv_timer_stop(timer);
    daemon->is_ready = true;
    sd_notify(0, "READY=1\nSTATUS=");
    log_info("ready: kvstored %s, pid %d, socket %s", KVSTORED_VERSION, (int)getpid(), daemon->server.path);
    if (daemon->with_hints)
        main_print_hints(daemon);
}

static void main_on_watchdog(uv_timer_t *timer)
{
    (void)timer;
    sd_notify(0, "WATCHDOG=1");
}

static void main_start_watchdog(struct daemon *daemon)
{
    uint64_t limit_us = 0;

    if (sd_watchdog_enabled(0, &limit_us) > 0 && limit_us > 0)
        uv_timer_start(&daemon->watchdog, main_on_watchdog, 0, limit_us / 2000);
}

/* --- Starting -------------------------------------------------------------------------------------- */

static void main_on_server_ready(void *arg, const struct connection_target *target)
{
    struct store *store = &((struct daemon *)arg)->core.store;
    struct connection_target named = *target;

    named.name = store->name;
    connection_start(store->connection, &named);
}

static void main_on_server_ending(void *arg)
{
    connection_hold(((struct daemon *)arg)->core.store.connection);
}

static void main_on_server_unusable(void *arg, const char *why)
{
    struct daemon *daemon = arg;

    log_error("%s", why);
    if (daemon->core.state == CORE_RUNNING)
        daemon->exit_status = EXIT_CONFIGURATION;
    main_drain(daemon);
}

static void main_on_server_trouble(void *arg, const char *text)
{
    connection_set_trouble(((struct daemon *)arg)->core.store.connection, text);
}

static void main_on_server_broken(void *arg, bool is_broken)
{
    room_note_broken(&((struct daemon *)arg)->core.store, is_broken);
}

static bool main_restart_server(void *arg)
{
    return embedded_process_restart(((struct daemon *)arg)->embedded, "it could not write, and there is room now");
}

static uint64_t main_on_server_heard(void *arg)
{
    return connection_get_status(((struct daemon *)arg)->core.store.connection)->reads;
}

static void main_on_connection(void *arg, bool is_up)
{
    embedded_process_note_connected(((struct daemon *)arg)->embedded, is_up);
}

/* Return 0, or the exit status of a process that cannot start. */
static int main_start_nats(struct daemon *daemon)
{
    const struct embedded_process_events events = {main_on_server_ready,
                                                   main_on_server_ending,
                                                   main_on_server_unusable,
                                                   main_on_server_trouble,
                                                   main_on_server_broken,
                                                   main_on_server_heard,
                                                   daemon};
    char error[EMBEDDED_ERROR_BYTES];
    bool is_unusable;

    if (daemon->conf.nats.mode == CONF_NATS_EXTERNAL) {
        struct connection_target target = {(const char *const *)daemon->conf.nats.servers.items,
                                           daemon->conf.nats.servers.count, NULL, NULL, daemon->core.store.name};
        connection_start(daemon->core.store.connection, &target);
        return 0;
    }
    daemon->core.store.room.restart = main_restart_server;
    daemon->core.store.room.restart_arg = daemon;
    daemon->core.store.on_connection = main_on_connection;
    daemon->core.store.on_connection_arg = daemon;
    daemon->embedded = embedded_process_start(&daemon->loop, &daemon->conf, &events, &is_unusable, error);
    if (daemon->embedded == NULL) {
        log_error("%s", error);
        return is_unusable ? EXIT_CONFIGURATION : 1;
    }
    return 0;
}

/* Create the loop and the handles of main. Return 0, or the error of libuv: both need descriptors. */
static int main_init_loop(struct daemon *daemon)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    int status = uv_loop_init(&daemon->loop);

    for (size_t i = 0; status == 0 && i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        status = uv_signal_init(&daemon->loop, &daemon->signals[i]);
        if (status == 0)
            status = uv_signal_start(&daemon->signals[i], main_on_signal, numbers[i]);
        daemon->signals[i].data = daemon;
    }
    if (status != 0)
        return status;
    uv_prepare_init(&daemon->loop, &daemon->turn_end);
    uv_idle_init(&daemon->loop, &daemon->more);
    busy_poll_init(&daemon->busy_poll, &daemon->loop);
    busy_poll_allow(&daemon->busy_poll, daemon->conf.calls.busy_poll == CONF_BUSY_POLL_AUTO);
    uv_timer_init(&daemon->loop, &daemon->watchdog);
    uv_timer_init(&daemon->loop, &daemon->ready_check);
    daemon->turn_end.data = daemon->watchdog.data = daemon->ready_check.data = daemon;
    uv_prepare_start(&daemon->turn_end, main_on_turn_end);
    return 0;
}

/* Return as main_start_nats does. */
static int main_start(struct daemon *daemon)
{
    char error[SERVER_ERROR_BYTES > CONF_ERROR_BYTES ? SERVER_ERROR_BYTES : CONF_ERROR_BYTES];

    server_raise_descriptor_limit(&daemon->conf);
    int status = main_init_loop(daemon);
    if (status != 0) {
        log_error("cannot start: %s", uv_strerror(status));
        return 1;
    }
    if (core_init(&daemon->core, &daemon->loop, &daemon->conf, error) != 0 ||
        server_open(&daemon->server, &daemon->loop, &daemon->conf, &daemon->core.sessions, error) != 0) {
        log_error("%s", error);
        return 1;
    }
    if (core_start_monitor(&daemon->core) != 0) {
        log_error("out of memory");
        server_close(&daemon->server);
        return 1;
    }
    if (!daemon->server.is_ours)
        conf_note_socket_unit(&daemon->conf);
    store_open_files(&daemon->core.store, daemon->server.path);
    status = main_start_nats(daemon);
    if (status != 0) {
        monitor_stop(&daemon->core.monitor);
        server_close(&daemon->server);
        return status;
    }
    monitor_set_embedded(&daemon->core.monitor, daemon->embedded);
    main_start_watchdog(daemon);
    uv_timer_start(&daemon->ready_check, main_on_ready_check, 0, READY_CHECK_MS);
    return 0;
}

static int main_run(struct daemon *daemon)
{
    int status = main_start(daemon);
    if (status != 0)
        return status; /* nothing was started that outlives the process */
    uv_run(&daemon->loop, UV_RUN_DEFAULT);
    if (connection_is_abandoned(daemon->core.store.connection)) {
        log_info("ended");
        _exit(daemon->exit_status);
    }

    core_free(&daemon->core);
    embedded_process_free(daemon->embedded);
    uv_loop_close(&daemon->loop);
    log_info("ended");
    return daemon->exit_status;
}

/* --- The command line ------------------------------------------------------------------------------ */

static void main_print_help(void)
{
    printf("usage: kvstored [--config FILE] [--check-config] [--hints] [--version]\n"
           "\n"
           "Runs a key-value store for the programs of this host, on a Unix socket.\n"
           "\n"
           "  -c, --config FILE   read the configuration from FILE (YAML). The default is an embedded\n"
           "                      nats-server, and the socket $RUNTIME_DIRECTORY/kvstored.sock or\n"
           "                      /run/kvstored/kvstored.sock\n"
           "      --check-config  check the configuration, print the first error, and exit\n"
           "      --hints         print example commands when the daemon is ready\n"
           "  -V, --version       print the version and exit\n"
           "  -h, --help          print this help and exit\n"
           "\n"
           "SIGTERM and SIGINT shut it down after the calls in flight are answered. SIGHUP reloads\n"
           "the configuration.\n");
}

/* If a standard descriptor is closed, the next file that is opened takes its number, and the log is written to it. */
static void main_open_standard_descriptors(void)
{
    for (int descriptor = 0; descriptor < 3; descriptor++) {
        if (fcntl(descriptor, F_GETFD) < 0 && open("/dev/null", O_RDWR) != descriptor)
            exit(EXIT_FAILURE);
    }
}

int main(int argc, char **argv)
{
    enum { CHECK_CONFIG = 256, HINTS };
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"check-config", no_argument, NULL, CHECK_CONFIG},
        {"hints", no_argument, NULL, HINTS},      {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    static struct daemon daemon;
    char error[CONF_ERROR_BYTES];
    bool check_only = false;
    int option;

    daemon.program = argv[0] != NULL ? argv[0] : "";
    heap_configure();
    log_open();
    main_open_standard_descriptors();
    while ((option = getopt_long(argc, argv, "c:Vh", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            daemon.conf_path = optarg;
            break;
        case CHECK_CONFIG:
            check_only = true;
            break;
        case HINTS:
            daemon.with_hints = true;
            break;
        case 'V':
            printf("kvstored %s\n", KVSTORED_VERSION);
            return 0;
        case 'h':
            main_print_help();
            return 0;
        default:
            fprintf(stderr, "Try 'kvstored --help'.\n");
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "kvstored: unexpected argument '%s'; try 'kvstored --help'\n", argv[optind]);
        return 2;
    }

    int read =
        daemon.conf_path != NULL ? conf_read(&daemon.conf, daemon.conf_path, error) : conf_set_defaults(&daemon.conf);
    if (read != 0) {
        fprintf(stderr, "%skvstored: %s\n", log_priority(CONF_LOG_ERROR),
                daemon.conf_path != NULL ? error : "out of memory");
        return EXIT_CONFIGURATION;
    }
    int status = 0;
    const char *name = daemon.conf_path != NULL ? daemon.conf_path : "defaults";
    if (check_only && reload_check_names(&daemon.conf, error) != 0) {
        fprintf(stderr, "%skvstored: %s: %s\n", log_priority(CONF_LOG_ERROR), name, error);
        status = EXIT_CONFIGURATION;
    } else if (check_only) {
        printf("%s: configuration OK\n", name);
    } else {
        signal(SIGPIPE, SIG_IGN);
        log_set_level(daemon.conf.log.level);
        status = main_run(&daemon);
        nats_CloseAndWait(1000);
    }
    conf_free(&daemon.conf);
    return status;
}
