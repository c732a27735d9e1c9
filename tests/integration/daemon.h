/*
 * daemon: a kvstored that a test has started, with a directory, a socket and a log of its own.
 */
#ifndef INTEGRATION_DAEMON_H
#define INTEGRATION_DAEMON_H

#include "tests/support/process.h"

/* A test that takes longer hangs. It may run into PATIENCE_MS before, which says more. */
#define TEST_TIMEOUT_S 240

/* calls.timeout, in seconds: the daemon answers before a test's patience ends. */
#define DAEMON_CALL_TIMEOUT_S    50
#define DAEMON_CALL_TIMEOUT_TEXT "50"

/*
 * The call must have been answered at once, and not when its deadline came: in less than half of the time that it had.
 * start_ms: now_ms() before it.
 */
#define assert_at_once(start_ms) ck_assert_uint_lt(now_ms() - (start_ms), DAEMON_CALL_TIMEOUT_S * 1000 / 2)

/*
 * For the section nats of an embedded server: whether each write is forced to the disk before it is acknowledged, which
 * is the daemon's default. Tests begin without, because a busy disk would hold up each write.
 */
#define DAEMON_SYNCS_SELDOM "  sync_interval: 60\n"
#define DAEMON_SYNCS_ALWAYS "  sync_interval: always\n"

struct daemon {
    struct process process;
    char directory[PATH_BYTES];
    char socket_path[PATH_BYTES];
    char conf_path[PATH_BYTES];
    char data_dir[PATH_BYTES];
    size_t log_mark; /* daemon_wait_log looks behind it */
};

/* Makes the directory and fixes the paths; nothing runs yet. */
void daemon_prepare(struct daemon *daemon);

/*
 * Writes the configuration: the socket; nats, the members of that section ("  mode: external\n…", or those that an
 * embedded server has besides its directory and program), or NULL for DAEMON_SYNCS_SELDOM; and more, whole sections of
 * YAML, or NULL. Times that neither sets are long: see daemon.c.
 */
void daemon_configure(struct daemon *daemon, const char *nats, const char *more);

/* Returns the number of the configuration's line in which the text begins. */
unsigned daemon_conf_line(const struct daemon *daemon, const char *text);

/* Starts it. extra and fd_3: see process_start. */
void daemon_spawn(struct daemon *daemon, char *const *extra, int fd_3);

/* Waits until its log says that it is ready. */
void daemon_wait_ready(struct daemon *daemon);

/* All of it: prepares, configures, spawns, waits. */
void daemon_start(struct daemon *daemon, const char *nats, const char *more);

/* Starts it again as it was. */
void daemon_restart(struct daemon *daemon);

/* Waits until the log has text, behind the mark; sets the mark behind it. */
void daemon_wait_log(struct daemon *daemon, const char *text);

/* What the log has behind the mark. */
const char *daemon_log(const struct daemon *daemon);
void daemon_mark_log(struct daemon *daemon);

/* SIGTERM, and it must end with status 0 and without a sanitizer's report. */
void daemon_stop(struct daemon *daemon);

/* Waits until it has ended; status 0, no sanitizer's report. */
void daemon_expect_good_end(struct daemon *daemon);

/* The pid of its embedded nats-server, from the file that this one writes. */
pid_t daemon_nats_pid(const struct daemon *daemon);

/* --- One daemon for the tests of a case ------------------------------------------------------------ */

/* Unchecked fixture: an embedded daemon as people run it. Tests use buckets of their own. */
void shared_daemon_setup(void);
void shared_daemon_teardown(void);
extern struct daemon shared_daemon;

/*
 * Makes a case whose tests share the daemon, and behind it one that says whether that daemon
 * has ended well. Tests are added to the case that is returned.
 */
TCase *shared_daemon_case(Suite *suite, const char *name);

/* The same, with a setup of the suite's own, which starts shared_daemon otherwise. */
TCase *shared_daemon_case_with(Suite *suite, const char *name, void (*setup)(void), void (*teardown)(void));

#endif
