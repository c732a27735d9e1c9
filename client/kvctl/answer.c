#include "client/kvctl/kvctl.h"

#include <poll.h>

void answer_take(struct kvs *kvs, const struct kvs_error *error, const struct kvs_value *result, void *context)
{
    struct answer *answer = context;

    (void)kvs;
    answer->finished = true;
    if (error != NULL)
        answer->error = *error;
    else if ((answer->value = kvs_value_copy(result)) == NULL)
        answer->error = (struct kvs_error){.code = KVS_NO_MEMORY, .message = "out of memory for the answer"};
}

enum status answer_wait(struct invocation *invocation, enum kvs_code submitted, struct answer *answer)
{
    struct kvs *kvs = invocation->kvs;

    if (submitted != KVS_OK)
        return report_error(kvs_last_error(kvs));
    kvs_process(kvs); /* a lost connection ends the call, too */
    while (!answer->finished) {
        struct pollfd waited = {.fd = kvs_fd(kvs), .events = kvs_events(kvs)};
        poll(&waited, 1, kvs_timeout_ms(kvs));
        kvs_process(kvs);
    }
    return answer->error.code == KVS_OK ? STATUS_OK : report_error(&answer->error);
}

enum status answer_wait_and_print(struct invocation *invocation, enum kvs_code submitted, struct answer *answer)
{
    enum status status = answer_wait(invocation, submitted, answer);

    return status == STATUS_OK && invocation->json ? print_json(answer->value) : status;
}
