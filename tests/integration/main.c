/*
 * integration: drives the real kvstored with a real nats-server.
 *   build/integration                        every test
 *   SUITE=kv TEST='a_*' build/integration    some of them, see tests/support/selection.h
 * Each test is a process of its own (CK_FORK=no is overruled): what it starts ends with it.
 */
#include "tests/integration/suites.h"
#include "tests/support/daemon.h"
#include "tests/support/test_run.h"

#include <signal.h>
#include <stdlib.h>

static Suite *(*const suites[])(void) = {
    access_suite,
    argument_suite,
    bucket_list_suite,
    bucket_suite,
    bulk_suite,
    cached_read_suite,
    call_cancel_suite,
    compact_leave_suite,
    compact_suite,
    config_suite,
    delete_matching_suite,
    dump_suite,
    embedded_suite,
    endpoint_suite,
    entries_suite,
    ephemeral_suite,
    external_suite,
    foreign_suite,
    health_suite,
    idle_suite,
    increment_suite,
    keys_suite,
    kv_suite,
    library_fault_suite,
    library_suite,
    libuv_suite,
    life_suite,
    limit_suite,
    lock_library_suite,
    lock_suite,
    memory_suite,
    metrics_suite,
    neighbour_suite,
    outage_suite,
    overload_suite,
    pause_suite,
    previous_suite,
    renewal_suite,
    repeat_suite,
    room_suite,
    session_suite,
    sessions_suite,
    slow_call_suite,
    snapshot_suite,
    tls_suite,
    ttl_suite,
    txn_suite,
    waiting_get_suite,
    watch_library_suite,
    watch_limit_suite,
    watch_loss_suite,
    watch_scale_suite,
    watch_suite,
};

int main(int argc, char **argv)
{
    (void)argc;
    signal(SIGPIPE, SIG_IGN);
    setenv("CK_DEFAULT_TIMEOUT", TEST_TIMEOUT_TEXT, 0); /* Check's own is 4 s */
    SRunner *runner = selection_create_runner(suites, sizeof(suites) / sizeof(suites[0]));
    if (runner == NULL)
        return EXIT_FAILURE;
    test_run_begin(argv[0], "integration");
    test_run_find_programs();
    srunner_set_fork_status(runner, CK_FORK);
    int status = selection_run(runner);
    test_run_end(status != EXIT_SUCCESS);
    return status;
}
