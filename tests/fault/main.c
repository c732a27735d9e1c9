/*
 * fault: drives the real kvstored with a real nats-server behind a proxy that loses, holds
 * and cuts what passes.
 *   build/fault                      all of it
 *   CK_RUN_SUITE=bank build/fault
 *   CK_RUN_CASE='one server' build/fault
 */
#include "tests/fault/suites.h"
#include "tests/ground/scene.h"

#include <signal.h>
#include <stdlib.h>

static Suite *(*const suites[])(void) = {
    exactly_once_suite, group_suite,     transaction_suite, bank_suite,       linear_suite,       watch_fault_suite,
    near_fault_suite,   partition_suite, ttl_fault_suite,   bulk_fault_suite,
};

int main(int argc, char **argv)
{
    (void)argc;
    signal(SIGPIPE, SIG_IGN);
    scene_begin(argv[0], "fault");
    SRunner *runner = srunner_create(suites[0]());
    for (size_t i = 1; i < sizeof(suites) / sizeof(suites[0]); i++)
        srunner_add_suite(runner, suites[i]());
    srunner_set_fork_status(runner, CK_FORK);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    scene_end(failed > 0);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
