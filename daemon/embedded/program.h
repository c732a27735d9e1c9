/*
 * program: the nats-server program: find it, check its version, run it.
 *
 * Used by process. The check runs the program with --version as a child: its caller waits for SIGCHLD and bounds the
 * time. A program that has passed is not checked again until its file changes.
 */
#ifndef DAEMON_EMBEDDED_PROGRAM_H
#define DAEMON_EMBEDDED_PROGRAM_H

#include "daemon/embedded/directory.h"

#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

/* The oldest version that has atomic batches. */
#define EMBEDDED_PROGRAM_MAJOR 2u
#define EMBEDDED_PROGRAM_MINOR 12u

struct embedded_program {
    char path[PATH_MAX];
    struct embedded_version version; /* of the file that has passed the check */
    struct stat passed;              /* the file that has passed the check; st_ino 0: none has */
    struct stat checked;             /* the file that is being checked */
    pid_t check_pid;                 /* the process that runs with --version; 0: none */
    int check_output;                /* the pipe to which it writes */
};

enum embedded_program_verdict {
    EMBEDDED_PROGRAM_USABLE,
    EMBEDDED_PROGRAM_UNUSABLE, /* no nats-server, or too old: the same file will never do */
    EMBEDDED_PROGRAM_KILLED    /* a signal ended the check, so nothing is known */
};

/* Find the program of nats.server_binary: a path, or a name to look up on PATH. Return false with an error. */
bool embedded_program_find(struct embedded_program *program, const char *name, char error[EMBEDDED_ERROR_BYTES]);

/* Return whether the file has passed the check and has not changed since. */
bool embedded_program_is_checked(const struct embedded_program *program);

/* Start the process check_pid. Return false with an error if there are no descriptors or processes. */
bool embedded_program_start_check(struct embedded_program *program, char error[EMBEDDED_ERROR_BYTES]);

/* The process check_pid was reaped with this status. error is set unless the program is usable. */
enum embedded_program_verdict embedded_program_end_check(struct embedded_program *program, int status,
                                                         char error[EMBEDDED_ERROR_BYTES]);

/* Kill the process check_pid. It is still to be reaped, and embedded_program_end_check to be called. */
void embedded_program_kill_check(const struct embedded_program *program);

/*
 * Fork and execute path with arguments (the first is the program's own name). Standard output and error go to the
 * descriptor output; standard input is empty. The process dies with the daemon, and leads its own process group. Return
 * its pid, or -1 with errno.
 */
pid_t embedded_program_run(const char *path, char *const *arguments, int output);

#endif
