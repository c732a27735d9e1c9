/*
 * daemon: a kvstored that a test has started, with a directory, a socket and a log of its own.
 */
#ifndef INTEGRATION_DAEMON_H
#define INTEGRATION_DAEMON_H

#include "tests/ground/scene.h"

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
 * Writes the configuration: the socket; nats, the members of that section ("  mode: external\n…"), or
 * NULL for an embedded server; and more, whole sections of YAML, or NULL.
 */
void daemon_configure(struct daemon *daemon, const char *nats, const char *more);

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
