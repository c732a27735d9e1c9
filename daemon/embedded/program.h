/*
 * embedded_program: the nats-server program of embedded mode. Finds it, and asks it for its version.
 *
 * Used by embedded. The question runs the program with --version as a child: whoever
 * asks waits for SIGCHLD and bounds the time. A program that has answered well is not
 * asked again until its file changes.
 */
#ifndef DAEMON_EMBEDDED_PROGRAM_H
#define DAEMON_EMBEDDED_PROGRAM_H

#include "daemon/embedded/directory.h"

#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

/* What an embedded server must have: atomic batches. */
#define EMBEDDED_PROGRAM_MAJOR 2u
#define EMBEDDED_PROGRAM_MINOR 12u

struct embedded_program {
    char path[PATH_MAX];
    struct stat good; /* the file that has answered well; st_ino 0: none has */
    struct stat asked_file;
    pid_t asked; /* the process that runs with --version; 0: none */
    int answer;  /* the pipe that it writes to */
};

enum embedded_program_answer {
    EMBEDDED_PROGRAM_GOOD,
    EMBEDDED_PROGRAM_UNUSABLE, /* none, or too old: the same program will never do */
    EMBEDDED_PROGRAM_SILENT    /* it was killed, by us or others: it may do the next time */
};

/* Finds name as nats.server says: a path, or a name to look up. False with a sentence in error. */
bool embedded_program_find(struct embedded_program *program, const char *name, char error[EMBEDDED_ERROR_BYTES]);

/* Whether the file is the one that has answered well. */
bool embedded_program_is_good(const struct embedded_program *program);

/* Starts program->asked. False with a sentence in error: there are no descriptors or processes. */
bool embedded_program_ask(struct embedded_program *program, char error[EMBEDDED_ERROR_BYTES]);

/* Takes the answer after the process program->asked was reaped with status. A sentence in error unless it is GOOD. */
enum embedded_program_answer embedded_program_take_answer(struct embedded_program *program, int status,
                                                          char error[EMBEDDED_ERROR_BYTES]);

/* Kills the process that was asked. It is still to be reaped, and its answer to be taken. */
void embedded_program_kill_asked(const struct embedded_program *program);

/*
 * Forks and executes path with arguments (the first is the program's own name), standard output and error to the
 * descriptor output, standard input from nowhere. The process dies with the daemon, and leads a process group of its
 * own. -1 with errno.
 */
pid_t embedded_program_run(const char *path, char *const *arguments, int output);

#endif
