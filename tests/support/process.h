/*
 * process: programs that a test starts.
 *
 * They die with the test: nothing is left behind if it fails or runs out of time. Only processes that were started here
 * are ever signalled, by pid. Everything here may be used from several threads.
 */
#ifndef SUPPORT_PROCESS_H
#define SUPPORT_PROCESS_H

#include "tests/support/patience.h"
#include "tests/support/ports.h"
#include "tests/support/test_run.h"
#include "tests/support/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct process {
    pid_t pid; /* 0: it does not run */
    int status;
    char log_path[PATH_BYTES]; /* of its standard output and error */
};

void process_start(struct process *process, char *const *arguments);

/*
 * The same with more: extra, "NAME=value" settings of its environment up to a NULL, or NULL; and fd_3, a descriptor
 * that it gets as 3 in the manner of systemd's socket activation, or -1.
 */
void process_start_with(struct process *process, char *const *arguments, char *const *extra, int fd_3);

/* Return whether it has ended; then status is waitpid's. */
bool process_has_ended(struct process *process);

/* Wait until it ends. */
void process_wait(struct process *process);

void process_signal(struct process *process, int number);

/* Send SIGKILL, and wait. Does nothing if it does not run. */
void process_kill(struct process *process);

/* Run a program to its end. Return its exit status, and set *output to what it wrote. */
int run_program(char *const *arguments, char **output);

bool pid_is_alive(pid_t pid);

/* Stop a process (SIGSTOP), and wait until all of its threads have stopped. */
void pid_suspend(pid_t pid);
void pid_resume(pid_t pid);

/*
 * Return how long the threads of a process have waited for a processor that others used. The threads of an idle machine
 * do not wait. 0 if the kernel does not count it, or the process has ended.
 */
uint64_t pid_run_delay_ms(pid_t pid);

/* Return the kilobytes of memory that a process has resident (VmRSS), and its highest value so far (VmHWM). */
uint64_t resident_kb(pid_t pid);
uint64_t peak_resident_kb(pid_t pid);

#endif
