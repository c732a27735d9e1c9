/*
 * selection: runs the suites and tests that the environment names, for make integration SUITE=kv TEST=...
 *
 * SUITE is the name of a suite, TEST that of a test function; both may be patterns as the shell has them, "@(kv|bulk)"
 * included. If neither is set, everything runs. A name that matches nothing is an error that lists the candidates.
 *
 * Check can select suites and cases, not single tests. Each suites.h includes this header, so that tests are registered
 * through the macros below. Tests that are added without it are part of every selection: shared_daemon_case adds such a
 * test, which looks at how the daemon of the suite has ended.
 */
#ifndef SUPPORT_SELECTION_H
#define SUPPORT_SELECTION_H

#include <check.h>
#include <stddef.h>

/*
 * Call the functions and return a runner with the selected suites, or NULL if nothing is selected; the reason is on
 * standard error.
 */
SRunner *selection_create_runner(Suite *(*const suites[])(void), size_t count);

/* Run the tests and free the runner. Return EXIT_SUCCESS, or EXIT_FAILURE if a test has failed or none has run. */
int selection_run(SRunner *runner);

/* For the macros only. */
Suite *selection_create_suite(const char *name);
void selection_add_test(TCase *tests, const TTest *test, int start, int end);

#ifndef SELECTION_IMPLEMENTATION
#undef tcase_add_test
#undef tcase_add_loop_test
#define suite_create(name)                           selection_create_suite(name)
#define tcase_add_test(tests, test)                  selection_add_test(tests, test, 0, 1)
#define tcase_add_loop_test(tests, test, start, end) selection_add_test(tests, test, start, end)
#endif

#endif
