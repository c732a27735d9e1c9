/*
 * integration: drives the real kvstored with a real nats-server behind it.
 *   build/integration             all of it
 *   CK_RUN_SUITE=kv build/integration
 * Each test is a process of its own (CK_FORK=no is overruled): what it starts ends with it.
 */
#include "tests/ground/scene.h"
#include "tests/integration/suites.h"

#include <signal.h>
#include <stdlib.h>

static Suite *(*const suites[])(void) = {
    access_suite,   argument_suite,      bucket_suite,      bulk_suite,       embedded_suite,
    external_suite, foreign_suite,       health_suite,      keys_suite,       kv_suite,
    library_suite,  life_suite,          limit_suite,       near_suite,       outage_suite,
    overload_suite,        session_suite,     ttl_suite,        txn_suite,
    watch_suite,    watch_library_suite, watch_limit_suite, watch_loss_suite,
};

int main(int argc, char **argv)
{
    (void)argc;
    signal(SIGPIPE, SIG_IGN);
    scene_begin(argv[0], "integration");
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
