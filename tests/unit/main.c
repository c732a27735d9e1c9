#include "tests/unit/suites.h"

#include <stdlib.h>

static Suite *(*const suites[])(void) = {
    busy_poll_suite, cache_suite, cache_model_suite, conf_suite, decode_suite, error_suite, filter_suite, frame_suite,
    ground_suite,    hash_suite,  jobs_suite,        json_suite, kv_suite,     pace_suite,  rpc_suite,    wire_suite,
};

int main(void)
{
    SRunner *runner = srunner_create(suites[0]());

    for (size_t i = 1; i < sizeof(suites) / sizeof(suites[0]); i++)
        srunner_add_suite(runner, suites[i]());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
