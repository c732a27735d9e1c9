/*
 * unit: calls single modules, without a daemon or a server.
 *   build/unit                               every test
 *   SUITE=conf TEST='a_*' build/unit         some of them, see tests/support/selection.h
 */
#include "tests/support/test_run.h"
#include "tests/unit/suites.h"

#include <stdlib.h>

static Suite *(*const suites[])(void) = {
    access_suite,       backlog_suite,
    busy_poll_suite,    cache_model_suite,
    cache_suite,        turns_suite,
    bulk_window_suite,  conf_suite,
    credentials_suite,  consumer_pull_suite,
    decode_suite,       error_suite,
    fair_queue_suite,   filter_suite,
    frame_suite,        growth_suite,
    hash_suite,         heap_suite,
    jetstream_suite,    jobs_suite,
    json_suite,         kv_suite,
    ledger_suite,       metrics_suite,
    min_revision_suite, key_order_suite,
    key_page_suite,     outcome_suite,
    remains_suite,      reply_budget_suite,
    reply_table_suite,  room_gauge_suite,
    rpc_suite,          stream_suite,
    support_suite,      inherited_outcome_suite,
    journal_suite,      timers_suite,
    wire_suite,
};

/* Check's own limit of 4 s is too short for a busy machine. Only a test that hangs reaches this one. */
#define TEST_SECONDS "120"

int main(int argc, char **argv)
{
    (void)argc;
    setenv("CK_DEFAULT_TIMEOUT", TEST_SECONDS, 0);
    SRunner *runner = selection_create_runner(suites, sizeof(suites) / sizeof(suites[0]));
    if (runner == NULL)
        return EXIT_FAILURE;
    test_run_begin(argv[0], "unit");
    test_run_check_leaks();
    int status = selection_run(runner);
    test_run_end(status != EXIT_SUCCESS);
    return status;
}
