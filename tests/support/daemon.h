/*
 * daemon: a kvstored that a test has started, with a directory, a socket and a log of its own.
 */
#ifndef SUPPORT_DAEMON_H
#define SUPPORT_DAEMON_H

#include "tests/support/process.h"

#include <sys/socket.h>
#include <sys/un.h>

/* A test that takes longer hangs. It may reach PATIENCE_MS before, whose message says more. */
#define TEST_TIMEOUT_S    240
#define TEST_TIMEOUT_TEXT "240"

/* calls.timeout in seconds, unless a test sets it. The daemon answers before a test's patience ends. */
#define DAEMON_CALL_TIMEOUT_S    50
#define DAEMON_CALL_TIMEOUT_TEXT "50"

/*
 * The call must have been answered at once, and not when its deadline came: in less than half of the time that it had.
 * start_ms: now_ms() before it.
 */
#define assert_at_once(start_ms) ck_assert_uint_lt(now_ms() - (start_ms), DAEMON_CALL_TIMEOUT_S * 1000 / 2)

/*
 * For the section nats of an embedded server: whether it forces each write to the disk before it acknowledges it, which
 * is the daemon's default. Tests begin without, because a busy disk would delay each write.
 */
#define DAEMON_SYNCS_SELDOM "  sync_interval: 60\n"
#define DAEMON_SYNCS_ALWAYS "  sync_interval: always\n"

struct daemon {
    struct process process;
    char directory[PATH_BYTES];
    char socket_path[PATH_BYTES];
    char conf_path[PATH_BYTES];
    char data_dir[PATH_BYTES];
    size_t log_mark; /* the log is searched from here on */
};

/* Make the directory and set the paths. Nothing runs yet. */
void daemon_prepare(struct daemon *daemon);

/*
 * Write the configuration. nats: the members of the section nats: "  mode: external\n…", or what an embedded server has
 * besides its directory and program; NULL for DAEMON_SYNCS_SELDOM. more: whole sections of YAML, or NULL. Timeouts that
 * neither sets are long: see daemon.c.
 */
void daemon_configure(struct daemon *daemon, const char *nats, const char *more);

/* Return the number of the configuration's line in which the text begins. */
unsigned daemon_conf_line(const struct daemon *daemon, const char *text);

/* Start the program. extra and fd_3: see process_start_with. */
void daemon_spawn(struct daemon *daemon, char *const *extra, int fd_3);

/*
 * Return a listening socket without a file, for daemon_spawn: every user can connect to it, whatever the permissions of
 * the tree's directories.
 */
int daemon_listen_without_file(struct sockaddr_un *address, socklen_t *length);

/* Listen at the daemon's path, as a socket unit does: clients can connect while the daemon restarts. */
int daemon_listen_as_socket_unit(const struct daemon *daemon);

/* Wait until its log says that it is ready. */
void daemon_wait_ready(struct daemon *daemon);

/* Prepare, configure, spawn, and wait until it is ready. */
void daemon_start(struct daemon *daemon, const char *nats, const char *more);

/* Start it again with the same configuration and data. */
void daemon_restart(struct daemon *daemon);

/* Wait until the log has the text after the mark, and move the mark after it. */
void daemon_wait_log(struct daemon *daemon, const char *text);

/* Return the log after the mark. */
const char *daemon_log(const struct daemon *daemon);
void daemon_mark_log(struct daemon *daemon);

/* Send SIGTERM, and wait until it ends: with status 0, without a sanitizer's report, and without a slow turn. */
void daemon_stop(struct daemon *daemon);

/* Wait until it ends in that way by itself. */
void daemon_expect_good_end(struct daemon *daemon);

/* Return the pid of its embedded nats-server, from the file that the server writes. */
pid_t daemon_nats_pid(const struct daemon *daemon);

/* --- One daemon for the tests of a case ------------------------------------------------------------ */

/* Unchecked fixture: an embedded daemon with its defaults. Tests use buckets of their own. */
void shared_daemon_setup(void);
void shared_daemon_teardown(void);
extern struct daemon shared_daemon;

/*
 * Make a case whose tests share the daemon, and after it one that checks that the daemon has ended well. Return the
 * first, to which tests are added.
 */
TCase *shared_daemon_case(Suite *suite, const char *name);

/* The same with a setup of the suite's own, which starts shared_daemon in another way. */
TCase *shared_daemon_case_with(Suite *suite, const char *name, void (*setup)(void), void (*teardown)(void));

#endif
