#include "client/lib/call.h"

#include "client/lib/clock.h"
#include "client/lib/error.h"
#include "client/lib/method.h"

#include <stdlib.h>
#include <string.h>

#define UNNAMED_WAIT_MS 10000
#define LONGEST_WAIT_MS (INT64_C(1000) * 60 * 60 * 24 * 365)
#define LARGEST_HEADER  128u /* [0, msgid, method: the longest method's name is far shorter */
#define LONGEST_METHOD  100u

int64_t call_wait_ms(double timeout_s)
{
    if (timeout_s <= 0)
        return UNNAMED_WAIT_MS;
    return timeout_s < (double)LONGEST_WAIT_MS / 1000 ? (int64_t)(timeout_s * 1000) + CALL_GRACE_MS : LONGEST_WAIT_MS;
}

static void call_deliver(struct kvs *kvs, const struct call *call, const struct kvs_error *error,
                         const msgpack_object *result)
{
    if (call->receiver.deliver == NULL)
        return;
    kvs->in_callback = true;
    /* A value is a msgpack_object by another name. */
    call->receiver.deliver(kvs, &call->receiver, error, error == NULL ? (const struct kvs_value *)result : NULL);
    kvs->in_callback = false;
}

/* --- Submitting ---------------------------------------------------------------------------- */

/* The parameters must be one complete array: with a wrong count the daemon would misread all that follows. */
static enum kvs_code call_check_request(struct kvs *kvs, const struct kvs_request *request)
{
    const struct frame_limits *limits = &kvs->connection.limits;
    struct frame scan;

    if (request == NULL || request->no_memory)
        return client_error_set(&kvs->error, KVS_NO_MEMORY, "out of memory while the request was built");
    if (request->wrong != NULL)
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "%s", request->wrong);
    if (strlen(request->method) > LONGEST_METHOD)
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "the method's name is longer than %u bytes",
                                LONGEST_METHOD);

    size_t size = buffer_size(&request->params);
    frame_init(&scan, limits);
    enum frame_status status = frame_scan(&scan, (const uint8_t *)request->params.bytes + request->params.begin, size);
    switch (status) {
    case FRAME_COMPLETE:
        if (scan.offset == size)
            return KVS_OK;
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "the request has more parameters than it announced");
    case FRAME_PARTIAL:
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT,
                                "the request has fewer parameters than it announced");
    default:
        return client_error_set(&kvs->error, KVS_TOO_LARGE,
                                "the request %s (limits of this handle: %zu bytes, %u elements, %u levels)",
                                frame_status_text(status), limits->size_bytes, limits->elements, limits->depth);
    }
}

static int call_append(void *out, const char *bytes, size_t size)
{
    return buffer_append(out, bytes, size) ? 0 : -1;
}

/* Queue [0, msgid, method, params] on the connection. False when out of memory. */
static bool call_queue_request(struct connection *connection, uint32_t msgid, const struct kvs_request *request)
{
    size_t before = buffer_size(&connection->out), params = buffer_size(&request->params);
    msgpack_packer packer;

    if (!buffer_reserve(&connection->out, params + LARGEST_HEADER))
        return false;
    msgpack_packer_init(&packer, &connection->out, call_append);
    rpc_pack_request(&packer, msgid, request->method);
    buffer_append(&connection->out, request->params.bytes + request->params.begin, params);
    connection->queued_bytes += buffer_size(&connection->out) - before;
    return true;
}

enum kvs_code call_submit_request(struct kvs *kvs, const struct kvs_request *request, int64_t deadline_ms,
                                  const struct call_receiver *receiver)
{
    struct connection *connection = &kvs->connection;
    struct call_table *table = &kvs->calls;
    enum kvs_code code = call_check_request(kvs, request);

    if (code != KVS_OK)
        return code;
    if ((code = connection_ensure(connection)) != KVS_OK) {
        kvs->error = connection->error;
        return code;
    }
    if (table->used_count >= kvs->options.max_in_flight)
        return client_error_set(&kvs->error, KVS_RESOURCE_EXHAUSTED,
                                "%u calls are in flight, as many as max_in_flight allows: process answers first",
                                table->used_count);
    /* An empty queue accepts any request: otherwise a small limit could refuse a large request for ever. */
    size_t waiting = buffer_size(&connection->out);
    if (waiting > 0 && waiting + buffer_size(&request->params) > kvs->options.max_queued_bytes)
        return client_error_set(&kvs->error, KVS_RESOURCE_EXHAUSTED,
                                "%zu bytes of requests wait to be sent, as many as max_queued_bytes allows: "
                                "call kvs_process first",
                                waiting);

    if (!call_table_reserve(table, kvs->options.max_in_flight))
        return client_error_set(&kvs->error, KVS_NO_MEMORY, "out of memory for one more call");
    if (!call_queue_request(connection, table->first_free, request))
        return client_error_set(&kvs->error, KVS_NO_MEMORY, "out of memory for the request");
    call_table_take(table, &(struct call){.state = CALL_IN_FLIGHT,
                                          .receiver = *receiver,
                                          .only_reads = method_only_reads(request->method),
                                          .deadline_ms = deadline_ms,
                                          .sent_at = connection->queued_bytes});
    return KVS_OK;
}

struct kvs_request *call_scratch(struct kvs *kvs)
{
    /* A callback may make a call while a blocking one waits, whose request may have to be sent again. */
    return kvs->in_callback ? &kvs->inner : &kvs->scratch;
}

struct kvs_request *call_begin(struct kvs *kvs, const char *method, unsigned positions)
{
    request_begin(call_scratch(kvs), method, positions);
    return call_scratch(kvs);
}

enum kvs_code call_submit(struct kvs *kvs, struct call_receiver receiver)
{
    struct kvs_request *request = call_scratch(kvs);

    request_end(request, kvs->options.timeout_s);
    return call_submit_request(kvs, request, clock_now_ms() + call_wait_ms(request->timeout_s), &receiver);
}

/* --- Answers and other ends ---------------------------------------------------------------- */

const char *call_answer(struct kvs *kvs, const struct rpc_message *message)
{
    struct call_table *table = &kvs->calls;
    uint32_t msgid = message->msgid;
    struct kvs_error error;

    if (msgid >= table->slot_count || table->calls[msgid].state == CALL_FREE)
        return "answers a call that was not made";
    bool failed = message->error.type != MSGPACK_OBJECT_NIL;
    if (failed && !client_error_read(&error, &message->error))
        return "has an error that is not an error map";

    /* The slot is free before the function runs, which may submit the next call. */
    struct call call = table->calls[msgid];
    call_table_release(table, msgid);
    if (call.state == CALL_IN_FLIGHT) {
        table->in_flight--;
        call_deliver(kvs, &call, failed ? &error : NULL, &message->result);
    }
    return NULL;
}

void call_expire(struct kvs *kvs, int64_t now_ms)
{
    struct call_table *table = &kvs->calls;
    struct kvs_error error;
    int64_t next_ms = INT64_MAX;

    if (table->in_flight == 0 || now_ms < table->next_deadline_ms)
        return;
    client_error_set(&error, KVS_DEADLINE_EXCEEDED, "the daemon did not answer in time: is it running?");

    /* Calls that the functions submit meanwhile lower next_deadline_ms by themselves. */
    table->next_deadline_ms = INT64_MAX;
    for (uint32_t msgid = 0; msgid < table->slot_count; msgid++) {
        if (table->calls[msgid].state != CALL_IN_FLIGHT)
            continue;
        if (table->calls[msgid].deadline_ms > now_ms) {
            if (table->calls[msgid].deadline_ms < next_ms)
                next_ms = table->calls[msgid].deadline_ms;
            continue;
        }
        struct call call = table->calls[msgid];
        table->calls[msgid].state = CALL_GIVEN_UP;
        table->in_flight--;
        error.outcome = call.only_reads ? KVS_OUTCOME_ABSENT : KVS_OUTCOME_UNKNOWN;
        call_deliver(kvs, &call, &error, NULL);
    }
    if (next_ms < table->next_deadline_ms)
        table->next_deadline_ms = next_ms;
}

void call_end_all(struct kvs *kvs, const struct kvs_error *reason)
{
    struct call_table ended = kvs->calls;
    uint64_t sent_bytes = kvs->connection.sent_bytes;

    /* The functions may open a new connection and submit calls: these go to a new table. */
    call_table_init(&kvs->calls);
    for (uint32_t i = 0; i < ended.slot_count; i++) {
        const struct call *call = &ended.calls[i];
        if (call->state != CALL_IN_FLIGHT)
            continue;
        struct kvs_error error = *reason;
        if (call->sent_at > sent_bytes || reason->outcome == KVS_OUTCOME_NONE)
            error.outcome = KVS_OUTCOME_NONE;
        else
            error.outcome = call->only_reads ? KVS_OUTCOME_ABSENT : KVS_OUTCOME_UNKNOWN;
        call_deliver(kvs, call, &error, NULL);
    }
    free(ended.calls);
}
