#include "daemon/embedded/process.h"

#include "daemon/base/backoff.h"
#include "daemon/base/log.h"
#include "daemon/embedded/backlog.h"
#include "daemon/embedded/config.h"
#include "daemon/embedded/leftover.h"
#include "daemon/embedded/log_relay.h"
#include "daemon/embedded/probe.h"
#include "daemon/embedded/program.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

/* A server that has not ended this long after SIGTERM is killed. */
#define STOP_TIMEOUT_MS 10000u

#define RESTART_MIN_MS 100u
#define RESTART_MAX_MS 10000u
/* If a server ran for longer, its end is not a failure to start: reset the backoff. */
#define STEADY_MS 10000u
/* How often a warning is logged while a server does not listen yet. */
#define SLOW_START_MS 15000u
/* The time limit for nats-server --version. */
#define VERSION_TIMEOUT_MS 20000u

/*
 * nats.hang_timeout in ticks. Silence is counted in ticks, not by the clock: if the daemon itself was suspended, maybe
 * with the whole machine, the server had no time to answer.
 */
#define HANG_TICKS    10u
#define PROBE_TICKS   3u /* of silence; then a probe is sent */
#define TROUBLE_TICKS 6u /* of silence; then health reports it */

enum embedded_state {
    EMBEDDED_CHECKING_VERSION, /* nats-server --version runs */
    EMBEDDED_STARTING,         /* the server runs, but does not listen yet */
    EMBEDDED_READY,
    EMBEDDED_ENDING,      /* it got a signal because it hung or could not write, and has not ended yet */
    EMBEDDED_BACKING_OFF, /* it ended; a timer starts the next one */
    EMBEDDED_UNUSABLE,    /* the program is no nats-server, or too old: no start will succeed */
    EMBEDDED_STOPPING,
    EMBEDDED_STOPPED
};

struct embedded_process {
    uv_loop_t *loop;
    const struct conf *conf;
    struct embedded_process_events events;
    void (*stopped)(void *arg);
    void *stopped_arg;

    enum embedded_state state;
    struct embedded_directory directory;
    struct embedded_program program;
    char secret[65];
    unsigned port; /* 0: unknown; the server takes a free one */
    char url[64];
    const char *urls[1];
    pid_t pid;                              /* 0: no server runs */
    uint64_t started_ms;                    /* loop time */
    unsigned failures;                      /* in a row */
    bool has_run;                           /* a server has run since the daemon's start */
    char start_error[EMBEDDED_ERROR_BYTES]; /* why the last start failed; "": it did not */
    uint64_t restarts;                      /* times that it has ended without being stopped */

    uv_signal_t child_signal;
    uv_timer_t timer; /* of the present state */
    uv_timer_t tick;  /* while the server runs */
    uint64_t heard;   /* result of events.heard at the last tick */
    unsigned silent_ticks;
    struct embedded_probe *probe; /* NULL: none is running */
    struct embedded_backlog backlog;
    bool is_connected;
    uv_fs_event_t ports_watch;
    struct log_relay_limits log_limits;
    struct log_relay *log_relay; /* NULL: the server has closed its output, or does not run */
    unsigned open_handles;
};

/*
 * A secret for the next server process. Each has its own: when a process has ended, another user's program may take its
 * port and be sent what was its secret.
 */
static void make_secret(struct embedded_process *embedded)
{
    unsigned char random[32];

    /* Blocks until the kernel's pool is initialised, early in the boot. */
    while (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        ;
    for (size_t i = 0; i < sizeof(random); i++)
        snprintf(embedded->secret + 2 * i, 3, "%02x", random[i]);
}

/* --- The server's log ------------------------------------------------------------------------------ */

static void embedded_process_count_closed(struct embedded_process *embedded)
{
    if (--embedded->open_handles == 0)
        embedded->stopped(embedded->stopped_arg);
}

static void on_log_closed(void *arg, struct log_relay *relay)
{
    struct embedded_process *embedded = arg;

    if (embedded->log_relay == relay)
        embedded->log_relay = NULL;
    embedded_process_count_closed(embedded);
}

static void on_log_write_error(void *arg)
{
    struct embedded_process *embedded = arg;

    if (embedded->state == EMBEDDED_READY || embedded->state == EMBEDDED_STARTING)
        embedded->events.broken(embedded->events.arg, true);
}

static void close_log_relay(struct embedded_process *embedded)
{
    if (embedded->log_relay != NULL)
        log_relay_close(embedded->log_relay);
    embedded->log_relay = NULL;
}

/* --- The process ----------------------------------------------------------------------------------- */

/* Report what is wrong with the server now; "": nothing. */
static void report_trouble(struct embedded_process *embedded, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void report_trouble(struct embedded_process *embedded, const char *format, ...)
{
    char text[EMBEDDED_ERROR_BYTES];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    embedded->events.trouble(embedded->events.arg, text);
}

static double seconds_since_start(const struct embedded_process *embedded)
{
    return (double)(uv_now(embedded->loop) - embedded->started_ms) / 1000.0;
}

/* The server may have much to recover, so it is not killed. */
static void on_slow_start(uv_timer_t *timer)
{
    const struct embedded_process *embedded = timer->data;

    log_warning("nats-server: pid %d (%s) does not listen yet, %.0f s after its start; waiting", (int)embedded->pid,
                embedded->program.path, seconds_since_start(embedded));
}

static void start_ticking(struct embedded_process *embedded);

static bool spawn_server(struct embedded_process *embedded, char error[EMBEDDED_ERROR_BYTES])
{
    char configuration[PATH_MAX];
    char *arguments[] = {embedded->program.path, "-c", configuration, NULL};
    int ends[2];

    make_secret(embedded);
    embedded_directory_path(&embedded->directory, EMBEDDED_CONFIG_FILE, configuration);
    embedded_directory_clear(&embedded->directory); /* the server would follow symbolic links */
    close_log_relay(embedded);
    if (!embedded_directory_check_data(&embedded->directory, &embedded->program.version, error) ||
        !embedded_directory_record_version(&embedded->directory, &embedded->program.version, error) ||
        !embedded_config_write(&embedded->directory, embedded->conf, embedded->port, embedded->secret, error))
        return false;
    if (pipe2(ends, O_CLOEXEC) != 0) {
        snprintf(error, EMBEDDED_ERROR_BYTES, "cannot make a pipe: %s", strerror(errno));
        return false;
    }

    pid_t pid = embedded_program_run(embedded->program.path, arguments, ends[1]);
    int failed = errno;
    close(ends[1]);
    if (pid < 0) {
        snprintf(error, EMBEDDED_ERROR_BYTES, "cannot start %s: %s", embedded->program.path, strerror(failed));
        close(ends[0]);
        return false;
    }

    const struct log_relay_events events = {on_log_closed, on_log_write_error, embedded};
    embedded->log_relay = log_relay_open(embedded->loop, ends[0], &embedded->log_limits, &events);
    if (embedded->log_relay != NULL) /* if memory ran out, SIGPIPE ends the server, and it is started again */
        embedded->open_handles++;
    embedded->pid = pid;
    embedded->has_run = true;
    embedded->start_error[0] = '\0';
    embedded->state = EMBEDDED_STARTING;
    embedded->events.broken(embedded->events.arg, false);
    embedded->started_ms = uv_now(embedded->loop);
    embedded->silent_ticks = 0;
    uv_timer_start(&embedded->timer, on_slow_start, SLOW_START_MS, SLOW_START_MS);
    start_ticking(embedded);
    report_trouble(embedded, "nats-server, pid %d, is starting", (int)pid);
    log_debug("nats-server: started %s as pid %d", embedded->program.path, (int)pid);
    return true;
}

static void on_version_timeout(uv_timer_t *timer)
{
    struct embedded_process *embedded = timer->data;

    log_warning("nats-server: %s --version has not ended within %u s; killing it", embedded->program.path,
                VERSION_TIMEOUT_MS / 1000);
    embedded_program_kill_check(&embedded->program);
}

/* Start the server, or first check its version, unless that is known. */
static bool begin_start(struct embedded_process *embedded, char error[EMBEDDED_ERROR_BYTES])
{
    if (embedded_program_is_checked(&embedded->program))
        return spawn_server(embedded, error);
    if (!embedded_program_start_check(&embedded->program, error))
        return false;
    embedded->state = EMBEDDED_CHECKING_VERSION;
    uv_timer_start(&embedded->timer, on_version_timeout, VERSION_TIMEOUT_MS, 0);
    report_trouble(embedded, "nats-server is starting");
    return true;
}

static void on_ports_change(uv_fs_event_t *watch, const char *file, int events, int status)
{
    struct embedded_process *embedded = watch->data;
    unsigned port;

    (void)file;
    (void)events;
    (void)status;
    if (embedded->state != EMBEDDED_STARTING || !embedded_directory_read_port(&embedded->directory, &port))
        return;
    uv_timer_stop(&embedded->timer);
    embedded->state = EMBEDDED_READY;
    embedded->silent_ticks = 0;
    embedded->port = port;
    snprintf(embedded->url, sizeof(embedded->url), "nats://127.0.0.1:%u", port);
    embedded->urls[0] = embedded->url;
    log_info("nats-server: listens on 127.0.0.1:%u (pid %d, data in %s)", port, (int)embedded->pid,
             embedded->directory.path);
    struct connection_target target = {embedded->urls, 1, EMBEDDED_CONFIG_USER, embedded->secret, NULL};
    embedded_backlog_begin(&embedded->backlog, embedded->pid, port);
    report_trouble(embedded, "%s", "");
    embedded->events.ready(embedded->events.arg, &target);
}

/* --- A server that hangs --------------------------------------------------------------------------- */

static void cancel_probe(struct embedded_process *embedded)
{
    if (embedded->probe != NULL)
        embedded_probe_stop(embedded->probe);
    embedded->probe = NULL;
}

static void stop_ticking(struct embedded_process *embedded)
{
    uv_timer_stop(&embedded->tick);
    cancel_probe(embedded);
}

static void note_alive(struct embedded_process *embedded)
{
    if (embedded->silent_ticks >= TROUBLE_TICKS && embedded->state == EMBEDDED_READY)
        report_trouble(embedded, "%s", "");
    embedded->silent_ticks = 0;
    cancel_probe(embedded);
}

/* Neither the daemon's next login nor a probe must be kept out. */
static void set_backlog(struct embedded_process *embedded)
{
    embedded_backlog_set(&embedded->backlog, embedded->is_connected && embedded->probe == NULL);
}

static void on_probe_done(void *arg, bool is_alive)
{
    struct embedded_process *embedded = arg;

    embedded->probe = NULL;
    if (is_alive)
        note_alive(embedded);
}

/* While the server starts, only a stopped process counts as silent: a start may take long. */
static void check_start(struct embedded_process *embedded)
{
    bool is_silent = embedded_probe_is_stopped(embedded->pid);

    embedded->silent_ticks = is_silent ? embedded->silent_ticks + 1 : 0;
    report_trouble(embedded, "nats-server, pid %d, %s, %.0f s after its start", (int)embedded->pid,
                   is_silent ? "is stopped (SIGSTOP)" : "does not listen yet", seconds_since_start(embedded));
}

static void check_life(struct embedded_process *embedded)
{
    uint64_t heard = embedded->events.heard(embedded->events.arg);

    if (heard != embedded->heard) {
        embedded->heard = heard;
        note_alive(embedded);
        return;
    }
    if (embedded->silent_ticks >= PROBE_TICKS && embedded->probe == NULL) {
        embedded_backlog_set(&embedded->backlog, false);
        embedded->probe = embedded_probe_start(embedded->loop, embedded->port, on_probe_done, embedded);
        if (embedded->probe == NULL)
            return; /* no probe, no silence: it could not be sent */
    }
    embedded->silent_ticks++;
    if (embedded->silent_ticks >= TROUBLE_TICKS)
        report_trouble(embedded, "nats-server, pid %d, has not answered for %.1f s", (int)embedded->pid,
                       embedded->silent_ticks * embedded->conf->nats.hang_timeout_ms / HANG_TICKS / 1000.0);
}

static void embedded_process_on_tick(uv_timer_t *tick)
{
    struct embedded_process *embedded = tick->data;

    if (embedded->state == EMBEDDED_STARTING) {
        check_start(embedded);
    } else {
        check_life(embedded);
        set_backlog(embedded);
    }
    if (embedded->silent_ticks < HANG_TICKS) {
        start_ticking(embedded);
        return;
    }
    log_error("nats-server: pid %d has not answered for %.3g s (nats.hang_timeout); killing it", (int)embedded->pid,
              embedded->conf->nats.hang_timeout_ms / 1000.0);
    report_trouble(embedded, "nats-server, pid %d, has not answered for %.3g s and is killed", (int)embedded->pid,
                   embedded->conf->nats.hang_timeout_ms / 1000.0);
    embedded->state = EMBEDDED_ENDING;
    embedded->events.ending(embedded->events.arg);
    uv_timer_stop(&embedded->timer);
    stop_ticking(embedded);
    kill(embedded->pid, SIGKILL);
}

/* Start the timer for the next tick. A reload may have changed the interval. */
static void start_ticking(struct embedded_process *embedded)
{
    uv_timer_start(&embedded->tick, embedded_process_on_tick, embedded->conf->nats.hang_timeout_ms / HANG_TICKS, 0);
}

/* --- The next one ---------------------------------------------------------------------------------- */

static void wait_and_restart(struct embedded_process *embedded);

/* Log why the server cannot start, once for each reason. The daemon tries again until the reason is gone. */
static void log_start_error(struct embedded_process *embedded, const char *error)
{
    if (strcmp(embedded->start_error, error) != 0)
        log_error("nats-server: %s; trying again until this changes", error);
    snprintf(embedded->start_error, sizeof(embedded->start_error), "%s", error);
}

static void on_restart(uv_timer_t *timer)
{
    struct embedded_process *embedded = timer->data;
    char error[EMBEDDED_ERROR_BYTES] = "";

    if (!begin_start(embedded, error)) {
        log_start_error(embedded, error);
        report_trouble(embedded, "%s", error);
        wait_and_restart(embedded);
    }
}

static void wait_and_restart(struct embedded_process *embedded)
{
    embedded->failures++;
    /* Another process may have taken the port. */
    if (embedded->failures > 2)
        embedded->port = 0;
    embedded->state = EMBEDDED_BACKING_OFF;
    uv_timer_start(&embedded->timer, on_restart, backoff_ms(embedded->failures, RESTART_MIN_MS, RESTART_MAX_MS), 0);
}

static void embedded_process_on_handle_closed(uv_handle_t *handle)
{
    embedded_process_count_closed(handle->data);
}

static void embedded_process_finish_stop(struct embedded_process *embedded)
{
    embedded->state = EMBEDDED_STOPPED;
    embedded_directory_clear(&embedded->directory);
    close_log_relay(embedded);
    uv_close((uv_handle_t *)&embedded->child_signal, embedded_process_on_handle_closed);
    uv_close((uv_handle_t *)&embedded->timer, embedded_process_on_handle_closed);
    uv_close((uv_handle_t *)&embedded->tick, embedded_process_on_handle_closed);
    uv_close((uv_handle_t *)&embedded->ports_watch, embedded_process_on_handle_closed);
}

static void on_version_checked(struct embedded_process *embedded, int status)
{
    char error[EMBEDDED_ERROR_BYTES] = "";
    enum embedded_program_verdict verdict = embedded_program_end_check(&embedded->program, status, error);

    if (embedded->state != EMBEDDED_CHECKING_VERSION)
        return;
    uv_timer_stop(&embedded->timer);
    if (verdict == EMBEDDED_PROGRAM_USABLE &&
        !embedded_directory_check_data(&embedded->directory, &embedded->program.version, error))
        verdict = EMBEDDED_PROGRAM_UNUSABLE;
    if (verdict == EMBEDDED_PROGRAM_USABLE && spawn_server(embedded, error))
        return;
    report_trouble(embedded, "%s", error);
    /* If the program is replaced while the daemon runs, it is tried until it is replaced again. */
    if (verdict == EMBEDDED_PROGRAM_UNUSABLE && !embedded->has_run) {
        embedded->state = EMBEDDED_UNUSABLE;
        embedded->events.unusable(embedded->events.arg, error);
        return;
    }
    log_start_error(embedded, error);
    wait_and_restart(embedded);
}

static void on_server_ended(struct embedded_process *embedded, int status)
{
    char how[64];
    pid_t pid = embedded->pid;

    embedded->pid = 0;
    stop_ticking(embedded);
    embedded_backlog_end(&embedded->backlog);
    if (embedded->state == EMBEDDED_STOPPING) {
        uv_timer_stop(&embedded->timer);
        embedded_process_finish_stop(embedded);
        return;
    }
    embedded->restarts++;
    embedded->events.ending(embedded->events.arg);
    if (WIFSIGNALED(status))
        snprintf(how, sizeof(how), "was ended by signal %d", WTERMSIG(status));
    else
        snprintf(how, sizeof(how), "ended with status %d", WEXITSTATUS(status));
    log_error("nats-server: pid %d %s; starting it again", (int)pid, how);
    report_trouble(embedded, "nats-server, pid %d, %s and is started again", (int)pid, how);
    if (uv_now(embedded->loop) - embedded->started_ms > STEADY_MS)
        embedded->failures = 0;
    wait_and_restart(embedded);
}

/* One signal may report the ends of both children. */
static void on_child_signal(uv_signal_t *handle, int number)
{
    struct embedded_process *embedded = handle->data;
    int status;

    (void)number;
    pid_t check = embedded->program.check_pid;
    if (check != 0 && waitpid(check, &status, WNOHANG) == check)
        on_version_checked(embedded, status);
    if (embedded->pid != 0 && waitpid(embedded->pid, &status, WNOHANG) == embedded->pid)
        on_server_ended(embedded, status);
}

void embedded_process_note_connected(struct embedded_process *embedded, bool is_connected)
{
    embedded->is_connected = is_connected;
    set_backlog(embedded);
}

uint64_t embedded_process_restarts(const struct embedded_process *embedded)
{
    return embedded->restarts;
}

/* --- Life ------------------------------------------------------------------------------------------ */

struct embedded_process *embedded_process_start(uv_loop_t *loop, const struct conf *conf,
                                                const struct embedded_process_events *events, bool *is_unusable,
                                                char error[EMBEDDED_ERROR_BYTES])
{
    struct embedded_process *embedded = calloc(1, sizeof(*embedded));
    char ports[PATH_MAX];

    *is_unusable = false;
    if (embedded == NULL) {
        snprintf(error, EMBEDDED_ERROR_BYTES, "out of memory");
        return NULL;
    }
    embedded->loop = loop;
    embedded->conf = conf;
    embedded->events = *events;
    if (!embedded_directory_open(&embedded->directory, conf->nats.data_dir, error)) {
        free(embedded);
        return NULL;
    }
    *is_unusable = !embedded_program_find(&embedded->program, conf->nats.server_binary, error);
    if (*is_unusable || !embedded_leftover_kill(&embedded->directory, error))
        goto fail;

    uv_signal_init(loop, &embedded->child_signal);
    uv_timer_init(loop, &embedded->timer);
    uv_timer_init(loop, &embedded->tick);
    uv_fs_event_init(loop, &embedded->ports_watch);
    embedded->child_signal.data = embedded->timer.data = embedded->tick.data = embedded->ports_watch.data = embedded;
    embedded->open_handles = 4;
    uv_signal_start(&embedded->child_signal, on_child_signal, SIGCHLD);
    embedded_directory_path(&embedded->directory, "ports", ports);
    int watched = uv_fs_event_start(&embedded->ports_watch, on_ports_change, ports, 0);
    if (watched != 0)
        snprintf(error, EMBEDDED_ERROR_BYTES, "cannot watch %s: %s", ports, uv_strerror(watched));
    if (watched == 0 && begin_start(embedded, error))
        return embedded;

    /* The loop has not run yet: let it close the handles now. */
    uv_close((uv_handle_t *)&embedded->child_signal, NULL);
    uv_close((uv_handle_t *)&embedded->timer, NULL);
    uv_close((uv_handle_t *)&embedded->tick, NULL);
    uv_close((uv_handle_t *)&embedded->ports_watch, NULL);
    uv_run(loop, UV_RUN_NOWAIT);
fail:
    embedded_directory_close(&embedded->directory);
    free(embedded);
    return NULL;
}

static void on_stop_timeout(uv_timer_t *timer)
{
    struct embedded_process *embedded = timer->data;

    log_warning("nats-server: pid %d has not ended within %u s of SIGTERM; killing it", (int)embedded->pid,
                STOP_TIMEOUT_MS / 1000);
    kill(embedded->pid, SIGKILL);
}

void embedded_process_stop(struct embedded_process *embedded, void (*stopped)(void *arg), void *arg)
{
    embedded->stopped = stopped;
    embedded->stopped_arg = arg;
    uv_timer_stop(&embedded->timer);
    stop_ticking(embedded);
    embedded_program_kill_check(&embedded->program); /* init reaps it */
    if (embedded->pid == 0) {
        embedded_process_finish_stop(embedded);
        return;
    }
    embedded->state = EMBEDDED_STOPPING;
    kill(embedded->pid, SIGTERM);
    uv_timer_start(&embedded->timer, on_stop_timeout, STOP_TIMEOUT_MS, 0);
}

bool embedded_process_restart(struct embedded_process *embedded, const char *why)
{
    if (embedded->state != EMBEDDED_READY && embedded->state != EMBEDDED_STARTING)
        return false;
    log_warning("nats-server: restarting pid %d: %s", (int)embedded->pid, why);
    embedded->state = EMBEDDED_ENDING;
    embedded->events.ending(embedded->events.arg);
    stop_ticking(embedded);
    kill(embedded->pid, SIGTERM);
    uv_timer_start(&embedded->timer, on_stop_timeout, STOP_TIMEOUT_MS, 0);
    return true;
}

bool embedded_process_is_starting(const struct embedded_process *embedded)
{
    return embedded->state == EMBEDDED_CHECKING_VERSION || embedded->state == EMBEDDED_STARTING;
}

void embedded_process_free(struct embedded_process *embedded)
{
    if (embedded == NULL)
        return;
    embedded_directory_close(&embedded->directory);
    free(embedded);
}
