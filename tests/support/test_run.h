/*
 * test_run: one run of a program that tests: the programs under test, and a directory for all files.
 */
#ifndef SUPPORT_TEST_RUN_H
#define SUPPORT_TEST_RUN_H

#include <stdbool.h>

#define PATH_BYTES 256

/*
 * Make the directory of this run below build/tests. Remove the directories that earlier runs of this program, which is
 * self (argv[0]), have kept, unless KVSTORED_TEST_KEEP is in the environment. name is printed in messages. Must be
 * called at the root of the tree.
 */
void test_run_begin(const char *self, const char *name);

/* Find the daemon beside this program, and the nats-server. Without them, the program ends. */
void test_run_find_programs(void);

/* Remove the directory, or keep it and print its path. */
void test_run_end(bool keep_directory);

/* Print the line by which tests/run counts what was left out on purpose. Return from the test after it. */
void test_run_skip(const char *what, const char *why);

/* "build/kvstored" or "build/asan/kvstored", as an absolute path; and the nats-server that bootstrap has found. */
const char *test_run_kvstored(void);
const char *test_run_nats_server(void);

/*
 * This process tests libkvstore: look for leaks at its end. Otherwise a sanitized test does not look, because its own
 * memory is not what it tests, and the search takes half of the time of a short test. The daemon always looks.
 */
void test_run_check_leaks(void);

/* Make a directory below that of the run, mode 0700. Its path is relative and short enough for a socket in it. */
void test_run_make_directory(char path[PATH_BYTES]);

#endif
