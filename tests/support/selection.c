#define SELECTION_IMPLEMENTATION
#include "tests/support/selection.h"

#include <fnmatch.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static struct {
    const char *suite_pattern, *test_pattern; /* NULL: everything matches */
    FILE *suites, *tests;                     /* the candidates, one a line */
    /* Of the suite that is being created: */
    const char *suite;
    const TTest *previous;
    bool is_suite_selected;
    unsigned selected_tests;
} selection;

static const char *selection_pattern_in(const char *variable)
{
    const char *pattern = getenv(variable);

    return pattern != NULL && *pattern != '\0' ? pattern : NULL;
}

static bool selection_matches(const char *pattern, const char *name)
{
    return pattern == NULL || fnmatch(pattern, name, FNM_EXTMATCH) == 0;
}

Suite *selection_create_suite(const char *name)
{
    selection.suite = name;
    selection.previous = NULL;
    selection.selected_tests = 0;
    selection.is_suite_selected = selection_matches(selection.suite_pattern, name);
    fprintf(selection.suites, "  %s\n", name);
    return suite_create(name);
}

void selection_add_test(TCase *tests, const TTest *test, int start, int end)
{
    if (!selection.is_suite_selected)
        return;
    if (test != selection.previous) /* some are in two cases of a suite */
        fprintf(selection.tests, "  %s: %s\n", selection.suite, test->name);
    selection.previous = test;
    if (!selection_matches(selection.test_pattern, test->name))
        return;
    selection.selected_tests++;
    tcase_add_loop_test(tests, test, start, end);
}

/* Check frees a suite only with a runner. */
static void selection_discard_suite(Suite *suite)
{
    srunner_free(srunner_create(suite));
}

static void selection_report_candidates(const char *suites, const char *tests)
{
    if (*tests == '\0')
        fprintf(stderr, "no suite is named %s; the suites are\n%s", selection.suite_pattern, suites);
    else
        fprintf(stderr, "no test is named %s; the tests are\n%s", selection.test_pattern, tests);
}

SRunner *selection_create_runner(Suite *(*const suites[])(void), size_t count)
{
    SRunner *runner = NULL;
    char *suite_names = NULL, *test_names = NULL;
    size_t suite_bytes, test_bytes;

    selection.suite_pattern = selection_pattern_in("SUITE");
    selection.test_pattern = selection_pattern_in("TEST");
    selection.suites = open_memstream(&suite_names, &suite_bytes);
    selection.tests = open_memstream(&test_names, &test_bytes);
    for (size_t i = 0; i < count; i++) {
        Suite *suite = suites[i]();
        if (selection.selected_tests == 0)
            selection_discard_suite(suite);
        else if (runner == NULL)
            runner = srunner_create(suite);
        else
            srunner_add_suite(runner, suite);
    }
    fclose(selection.suites);
    fclose(selection.tests);
    if (runner == NULL)
        selection_report_candidates(suite_names, test_names);
    free(suite_names);
    free(test_names);
    return runner;
}

/*
 * AddressSanitizer's name for the options that a program has by itself. Check keeps a record of each assertion that a
 * test passes until the test ends. ASan would keep 256 MB of freed ones, and each later test, which is a fork, would
 * copy the pages and look for leaks in them.
 */
const char *__asan_default_options(void); // NOLINT(bugprone-reserved-identifier)
const char *__asan_default_options(void)  // NOLINT(bugprone-reserved-identifier)
{
    return "quarantine_size_mb=8";
}

int selection_run(SRunner *runner)
{
    srunner_run_all(runner, CK_NORMAL);
    int run = srunner_ntests_run(runner), failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    /* Check's own variables (CK_RUN_SUITE, CK_RUN_CASE) may have left none. */
    if (run == 0)
        fprintf(stderr, "no test has run: is there such a suite or case? SUITE and TEST list the names\n");
    return run > 0 && failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
