/*
 * command: a program that runs to its end, in a program of the tests that does not need Check.
 *
 * May be used from several threads.
 */
#ifndef SUPPORT_COMMAND_H
#define SUPPORT_COMMAND_H

#define COMMAND_OUTPUT_BYTES 1024

/*
 * Run a program; the arguments end with NULL. Return its exit status, or -1 if it did not run or was ended by a signal.
 * Set *output to the beginning of what it wrote, on standard error as well.
 */
int command_run(const char *const *arguments, char output[COMMAND_OUTPUT_BYTES]);

#endif
