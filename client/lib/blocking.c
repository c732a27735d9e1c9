#include "client/lib/blocking.h"

#include "client/lib/clock.h"
#include "client/lib/error.h"
#include "client/lib/loop.h"

/* A blocking function that waits. It lives on the stack: the call ends before the function returns. */
struct waiter {
    bool finished;
    struct kvs_error error; /* KVS_OK: none */
    reply_reader *reader;
    void *out;
};

static void waiter_deliver(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                           const struct kvs_value *result)
{
    struct waiter *waiter = receiver->context;

    (void)kvs;
    waiter->finished = true;
    if (error != NULL)
        waiter->error = *error;
    else if (waiter->reader != NULL)
        reply_read(waiter->reader, result, waiter->out, &waiter->error);
}

enum kvs_code blocking_check(struct kvs *kvs)
{
    if (!kvs->in_callback)
        return KVS_OK;
    return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT,
                            "a blocking call must not be made from inside a callback of the library: use the "
                            "asynchronous form");
}

void blocking_pause(struct kvs *kvs, uint32_t pause_ms)
{
    int64_t until_ms = clock_now_ms() + pause_ms;

    while (clock_now_ms() < until_ms)
        loop_wait_and_turn(kvs, until_ms);
}

enum kvs_code blocking_connect(struct kvs *kvs, int64_t give_up_ms)
{
    struct connection *connection = &kvs->connection;
    enum kvs_code code;

    while ((code = connection_ensure(connection)) != KVS_OK && connection->reconnect) {
        int64_t now_ms = clock_now_ms();
        if (now_ms >= give_up_ms)
            break;
        int64_t until_ms = connection->next_attempt_ms < give_up_ms ? connection->next_attempt_ms : give_up_ms;
        loop_wait_and_turn(kvs, until_ms > now_ms ? until_ms : now_ms + 1);
    }
    if (code != KVS_OK)
        kvs->error = connection->error;
    return code;
}

/* Submit the request and wait for its end, which is left in *waiter. Not KVS_OK: it was refused. */
static enum kvs_code blocking_submit_and_wait(struct kvs *kvs, const struct kvs_request *request, int64_t deadline_ms,
                                              struct waiter *waiter)
{
    struct call_receiver receiver = {.deliver = waiter_deliver, .context = waiter};
    enum kvs_code code;

    waiter->finished = false;
    waiter->error.code = KVS_OK;
    if ((code = blocking_connect(kvs, deadline_ms - CALL_GRACE_MS)) != KVS_OK ||
        (code = call_submit_request(kvs, request, deadline_ms, &receiver)) != KVS_OK)
        return code;
    loop_turn(kvs);
    while (!waiter->finished) {
        loop_wait(kvs, loop_timeout_ms(kvs));
        loop_turn(kvs);
    }
    return KVS_OK;
}

enum kvs_code blocking_run_request(struct kvs *kvs, const struct kvs_request *request, double timeout_s,
                                   reply_reader *reader, void *out)
{
    struct waiter waiter = {.reader = reader, .out = out};
    int64_t deadline_ms = clock_now_ms() + call_wait_ms(timeout_s);

    enum kvs_code code = blocking_check(kvs);
    if (code != KVS_OK)
        return code;
    /* A connection that was lost unnoticed shows when the request cannot be sent: then it may be sent again. */
    do {
        enum kvs_code refused = blocking_submit_and_wait(kvs, request, deadline_ms, &waiter);
        if (refused != KVS_OK)
            return refused;
    } while (kvs->options.reconnect && (waiter.error.code == KVS_IO || waiter.error.code == KVS_PROTOCOL) &&
             waiter.error.retryable && waiter.error.outcome == KVS_OUTCOME_NONE &&
             clock_now_ms() < deadline_ms - CALL_GRACE_MS);

    if (waiter.error.code == KVS_OK)
        return KVS_OK;
    if (waiter.error.code == KVS_PROTOCOL && kvs->connection.fd >= 0)
        connection_lose(&kvs->connection, &waiter.error);
    kvs->error = waiter.error;
    return waiter.error.code;
}

enum kvs_code blocking_run(struct kvs *kvs, reply_reader *reader, void *out)
{
    struct kvs_request *request = call_scratch(kvs); /* inside a callback only to be refused */

    call_add_id(kvs, request);
    request_end(request, kvs->options.timeout_s);
    return blocking_run_request(kvs, request, request->timeout_s, reader, out);
}
