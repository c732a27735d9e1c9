/*
 * scene: what the tests with real programs stand on: the programs under test, directories, processes, time.
 *
 * Used by tests/integration and tests/fault.
 *
 * A process that a test starts dies with the test: nothing is left behind when one fails
 * or runs out of time. Only processes that were started here are ever signalled, by pid.
 * Everything here may be used from several threads.
 */
#ifndef SUPPORT_PROCESS_H
#define SUPPORT_PROCESS_H

#include <check.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PATH_BYTES 256

/* How long a test waits for an event: so much more than it takes on a busy machine that only a fault runs into it. */
#define PATIENCE_MS 60000u

/*
 * Finds the programs of the build beside this one (argv[0]), and makes the directory of this run below build/tests.
 * Removes those that earlier runs of this program have kept. name is printed in messages. Must run at the root of the
 * tree.
 */
void test_run_begin(const char *self, const char *name);

/* Removes the directory, or keeps it and prints where it is. */
void test_run_end(bool keep);

/* Prints the line by which tests/run counts what was left out on purpose. Return from the test after it. */
void test_run_skip(const char *what, const char *why);

/* "build/kvstored" or "build/asan/kvstored"; the nats-server that bootstrap has found. */
const char *test_run_kvstored(void);
const char *test_run_nats_server(void);

/* Makes a directory within that of the run, mode 0700. Its path is relative and short enough for a socket in it. */
void test_run_make_directory(char path[PATH_BYTES]);

/*
 * Returns a TCP port of 127.0.0.1 that is reserved until this process ends: a server with SO_REUSEADDR can listen on
 * it, end and come back, and no other program gets it. Connections are refused meanwhile.
 */
unsigned port_reserve(void);

/* Connects to a TCP port of 127.0.0.1; -1: nobody listens. */
int port_dial(unsigned port);

/* Returns a socket that listens on a free TCP port of 127.0.0.1, and the port. */
int port_listen(unsigned *port);

uint64_t now_ms(void);
uint64_t now_ns(void);

/* Between two looks at something that must come. */
void pause_shortly(void);

/* Waits until the condition holds; the test fails with what when it does not. */
#define wait_until(condition, what)                                                                                    \
    do {                                                                                                               \
        uint64_t wait_until_end = now_ms() + PATIENCE_MS;                                                              \
        while (!(condition)) {                                                                                         \
            ck_assert_msg(now_ms() < wait_until_end, "timed out waiting for %s", what);                                \
            pause_shortly();                                                                                           \
        }                                                                                                              \
    } while (0)

/* What was allocated with malloc and is to live until the test ends. */
void *keep(void *block);
char *format_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

void write_file(const char *path, const char *text);
void write_program(const char *path, const char *text); /* a file that may be executed */
char *read_file(const char *path);                      /* "" where there is none */

/* --- Processes ------------------------------------------------------------------------------------- */

struct process {
    pid_t pid; /* 0: does not run */
    int status;
    char log_path[PATH_BYTES]; /* its standard output and error */
};

void process_start(struct process *process, char *const *arguments);

/* extra: NULL, or "NAME=value" settings of its environment, up to a NULL; fd_3: -1, or what it gets as descriptor 3. */
void process_start_with(struct process *process, char *const *arguments, char *const *extra, int fd_3);

/* Whether it has ended; then status is waitpid's. */
bool process_has_ended(struct process *process);

/* Waits until it ends; the test fails when it does not. */
void process_wait(struct process *process);

void process_signal(struct process *process, int number);

/* SIGKILL, and waits. Does nothing when it does not run. */
void process_kill(struct process *process);

/* Runs a program to its end: its exit status, and what it wrote in *output. */
int run_program(char *const *arguments, char **output);

bool pid_is_alive(pid_t pid);

/* Stops a process (SIGSTOP), and waits until each of its threads stands still. */
void pid_stand_still(pid_t pid);
void pid_go_on(pid_t pid);

/* Kilobytes of memory that a process has resident (VmRSS), and the most that it had at any time (VmHWM). */
uint64_t resident_kb(pid_t pid);
uint64_t peak_resident_kb(pid_t pid);

#endif
