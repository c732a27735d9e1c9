/*
 * fault: drives the real kvstored with a real nats-server behind a proxy that loses, holds
 * and cuts what passes.
 *   build/fault                              every test
 *   SUITE=bank build/fault                   one suite, see tests/support/selection.h
 *   CK_RUN_CASE='one server' build/fault     the cases with that name
 */
#include "tests/fault/lock_holder.h"
#include "tests/fault/suites.h"
#include "tests/support/patience.h"
#include "tests/support/test_run.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* Longer than DEPLOYMENT_CALL_SECONDS. */
#define WAIT_SECONDS 200u

/* Of a whole test: longer than a wait, so that the wait says what did not come. */
#define TEST_SECONDS "900"

static Suite *(*const suites[])(void) = {
    bank_suite,          bulk_fault_suite,  cached_read_fault_suite,
    compact_fault_suite, doubt_suite,       entries_fault_suite,
    exactly_once_suite,  group_suite,       increment_fault_suite,
    lease_suite,         linear_suite,      lock_death_suite,
    locks_suite,         partition_suite,   reading_fault_suite,
    restart_suite,       set_back_suite,    transaction_suite,
    ttl_fault_suite,     watch_fault_suite,
};

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], LOCK_HOLDER_ARGUMENT) == 0)
        return lock_holder_main(argv[2]);
    signal(SIGPIPE, SIG_IGN);
    setenv("CK_DEFAULT_TIMEOUT", TEST_SECONDS, 0); /* Check's own is 4 s */
    SRunner *runner = selection_create_runner(suites, sizeof(suites) / sizeof(suites[0]));
    if (runner == NULL)
        return EXIT_FAILURE;
    test_run_begin(argv[0], "fault");
    test_run_find_programs();
    patience_chosen_ms = WAIT_SECONDS * 1000;
    srunner_set_fork_status(runner, CK_FORK);
    int status = selection_run(runner);
    test_run_end(status != EXIT_SUCCESS);
    return status;
}
