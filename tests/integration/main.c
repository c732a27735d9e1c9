/*
 * integration: drives the real kvstored with a real nats-server behind it.
 *   build/integration             all of it
 *   CK_RUN_SUITE=kv build/integration
 *   CK_FORK=no is not possible: the tests' processes end with them
 */
#include "tests/integration/scene.h"
#include "tests/integration/suites.h"

#include <signal.h>
#include <stdlib.h>

static Suite *(*const suites[])(void) = {
    kv_suite,
};

int main(int argc, char **argv)
{
    (void)argc;
    signal(SIGPIPE, SIG_IGN);
    scene_begin(argv[0]);
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
