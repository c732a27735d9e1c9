/* Requests of the program's own. */
#include "client/lib/blocking.h"
#include "client/lib/clock.h"
#include "client/lib/deliver.h"

enum kvs_code kvs_call(struct kvs *kvs, const struct kvs_request *request, double timeout_s, struct kvs_value **result)
{
    if (result != NULL)
        *result = NULL;
    return blocking_run_request(kvs, request, timeout_s > 0 ? timeout_s : kvs->options.timeout_s,
                                result != NULL ? reply_read_copy : NULL, result);
}

enum kvs_code kvs_submit(struct kvs *kvs, const struct kvs_request *request, double timeout_s, kvs_value_fn *done,
                         void *context)
{
    double timeout = timeout_s > 0 ? timeout_s : kvs->options.timeout_s;
    struct call_receiver receiver = deliver_value(done, context);

    return call_submit_request(kvs, request, clock_now_ms() + call_wait_ms(timeout), &receiver);
}
