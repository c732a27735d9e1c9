#include "client/lib/call.h"

#include "client/lib/clock.h"
#include "client/lib/error.h"
#include "client/lib/kvstore_async.h"
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
static bool call_queue_request(struct connection *connection, uint32_t msgid, const char *method, const char *params,
                               size_t params_size)
{
    size_t before = buffer_size(&connection->out);
    msgpack_packer packer;

    if (!buffer_reserve(&connection->out, params_size + LARGEST_HEADER))
        return false;
    msgpack_packer_init(&packer, &connection->out, call_append);
    rpc_pack_request(&packer, msgid, method);
    buffer_append(&connection->out, params, params_size);
    connection->queued_bytes += buffer_size(&connection->out) - before;
    return true;
}

/* --- Requests that may have to be sent again ------------------------------------------------ */

static struct call_copy *call_copy_request(const struct kvs_request *request)
{
    size_t method_size = strlen(request->method) + 1, params_size = buffer_size(&request->params);
    struct call_copy *copy = calloc(1, sizeof(*copy) + method_size + params_size);

    if (copy == NULL)
        return NULL;
    copy->first_sent_at = request->first_sent_at;
    copy->params_size = params_size;
    copy->params = copy->method + method_size;
    memcpy(copy->method, request->method, method_size);
    memcpy(copy->params, request->params.bytes + request->params.begin, params_size);
    return copy;
}

/* Return whether the call may be sent on the next connection: the daemon has not begun it, or it does no harm twice. */
static bool call_can_repeat(const struct kvs *kvs, const struct call *call, const struct kvs_error *reason)
{
    if (!kvs->options.reconnect || call->copy == NULL)
        return false;
    return call->state == CALL_HELD || (reason->retryable && (!call->may_be_begun || call->only_reads ||
                                                              call->may_repeat || call->copy->first_sent_at > 0));
}

/* The daemon finds out by the id and the time whether the first call was executed. */
static void call_mark_repeated(struct call_copy *copy)
{
    char *place = copy->params + copy->first_sent_at;

    for (unsigned i = 0; copy->first_sent_at > 0 && i < sizeof(uint64_t); i++)
        place[i] = (char)(copy->first_sent_us >> (8 * (sizeof(uint64_t) - 1 - i)));
}

static int call_compare_numbers(const void *a, const void *b)
{
    const struct call *one = a, *other = b;

    return one->number < other->number ? -1 : one->number > other->number;
}

/* A call that is held is not sent after its timeout: there would be no time for its answer. */
static int64_t call_due_ms(const struct call *call)
{
    return call->deadline_ms - (call->state == CALL_HELD ? CALL_GRACE_MS : 0);
}

void call_send_held(struct kvs *kvs)
{
    struct call_table *table = &kvs->calls;
    int64_t now_ms = table->held > 0 ? clock_now_ms() : 0;
    size_t left = table->held;

    /* They are in the first slots, in their order: see call_hold_all. */
    for (uint32_t msgid = 0; left > 0 && msgid < table->slot_count; msgid++) {
        struct call *call = &table->calls[msgid];
        if (call->state != CALL_HELD)
            continue;
        left--;
        if (call_due_ms(call) <= now_ms)
            continue; /* call_expire ends a call that is overdue */
        if (!call_queue_request(&kvs->connection, msgid, call->copy->method, call->copy->params,
                                call->copy->params_size))
            return; /* out of memory: the next turn tries again */
        call->state = CALL_IN_FLIGHT;
        call->sent_at = kvs->connection.queued_bytes;
        table->held--;
    }
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
    call_send_held(kvs);
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
    struct call_copy *copy = NULL;
    if (kvs->options.reconnect && !method_is_of_session(request->method)) {
        copy = call_copy_request(request);
        if (copy == NULL)
            return client_error_set(&kvs->error, KVS_NO_MEMORY, "out of memory for the request");
        copy->first_sent_us = clock_now_us();
    }
    if (!call_queue_request(connection, table->first_free, request->method,
                            request->params.bytes + request->params.begin, buffer_size(&request->params))) {
        free(copy);
        return client_error_set(&kvs->error, KVS_NO_MEMORY, "out of memory for the request");
    }
    call_table_take(table, &(struct call){.state = CALL_IN_FLIGHT,
                                          .receiver = *receiver,
                                          .only_reads = method_only_reads(request->method),
                                          .may_repeat = request->may_repeat,
                                          .deadline_ms = deadline_ms,
                                          .sent_at = connection->queued_bytes,
                                          .number = ++kvs->call_count,
                                          .copy = copy});
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

struct kvs_request *call_begin_of_bucket(struct kvs *kvs, const char *method, unsigned positions, const char *bucket)
{
    struct kvs_request *request = call_begin(kvs, method, positions);

    kvs_request_string(request, bucket);
    return request;
}

struct kvs_request *call_begin_of_key(struct kvs *kvs, const char *method, unsigned positions, const char *bucket,
                                      const char *key)
{
    struct kvs_request *request = call_begin_of_bucket(kvs, method, positions, bucket);

    kvs_request_string(request, key);
    return request;
}

void call_add_id(struct kvs *kvs, struct kvs_request *request)
{
    const uint64_t id[2] = {kvs->identity, ++kvs->id_count};

    if (kvs->options.reconnect && method_takes_id(request->method) && !request->takes_no_id)
        request_add_id(request, (const char *)id);
}

enum kvs_code call_submit(struct kvs *kvs, struct call_receiver receiver)
{
    struct kvs_request *request = call_scratch(kvs);

    call_add_id(kvs, request);
    request_end(request, kvs->options.timeout_s);
    return call_submit_request(kvs, request, clock_now_ms() + call_wait_ms(request->timeout_s), &receiver);
}

/* --- Cancelling ---------------------------------------------------------------------------- */

/* Queue a notification: the answer of the call says what has become of it. */
static void call_queue_cancel(struct connection *connection, uint32_t msgid)
{
    size_t before = buffer_size(&connection->out);
    msgpack_packer packer;

    if (!buffer_reserve(&connection->out, LARGEST_HEADER))
        return; /* out of memory: the call goes on */
    msgpack_packer_init(&packer, &connection->out, call_append);
    rpc_pack_notification(&packer, "call.cancel");
    msgpack_pack_array(&packer, 1);
    msgpack_pack_uint32(&packer, msgid);
    connection->queued_bytes += buffer_size(&connection->out) - before;
}

void kvs_cancel(struct kvs *kvs, const void *context)
{
    struct call_table *table = &kvs->calls;

    for (uint32_t msgid = 0; msgid < table->slot_count; msgid++) {
        struct call *call = &table->calls[msgid];
        if (call->receiver.function == NULL || call->receiver.context != context)
            continue; /* the calls of watches and locks have no function of the program */
        if (call->state == CALL_HELD) {
            call->deadline_ms = table->next_deadline_ms = 0; /* call_expire ends it */
        } else if (call->state == CALL_IN_FLIGHT) {
            free(call->copy); /* it is not sent again */
            call->copy = NULL;
            call_queue_cancel(&kvs->connection, msgid);
        }
    }
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
    free(call.copy);
    if (call.state == CALL_IN_FLIGHT) {
        table->in_flight--;
        call_deliver(kvs, &call, failed ? &error : NULL, &message->result);
    }
    return NULL;
}

static bool call_is_unanswered(const struct call *call)
{
    return call->state == CALL_IN_FLIGHT || call->state == CALL_HELD;
}

static enum kvs_outcome call_unanswered_outcome(const struct call *call)
{
    if (!call->may_be_begun)
        return KVS_OUTCOME_NONE;
    return call->only_reads ? KVS_OUTCOME_ABSENT : KVS_OUTCOME_UNKNOWN;
}

/* End a call whose time is over. The slot of one that is in flight waits for the answer. */
static void call_expire_one(struct kvs *kvs, uint32_t msgid)
{
    struct call_table *table = &kvs->calls;
    struct call call = table->calls[msgid];
    struct kvs_error error = kvs->connection.lost;

    free(call.copy);
    table->calls[msgid].copy = NULL;
    table->calls[msgid].state = CALL_GIVEN_UP;
    table->in_flight--;
    if (call.state == CALL_HELD) {
        table->held--;
        call_table_release(table, msgid);
    } else {
        call.may_be_begun = true;
        client_error_set(&error, KVS_DEADLINE_EXCEEDED, "the daemon did not answer in time: is it running?");
    }
    error.outcome = call_unanswered_outcome(&call);
    call_deliver(kvs, &call, &error, NULL);
}

void call_expire(struct kvs *kvs, int64_t now_ms)
{
    struct call_table *table = &kvs->calls;
    int64_t next_ms = INT64_MAX;

    if (table->in_flight == 0 || now_ms < table->next_deadline_ms)
        return;
    /* Calls that the functions submit meanwhile lower next_deadline_ms by themselves. */
    table->next_deadline_ms = INT64_MAX;
    for (uint32_t msgid = 0; msgid < table->slot_count; msgid++) {
        if (!call_is_unanswered(&table->calls[msgid]))
            continue;
        int64_t due_ms = call_due_ms(&table->calls[msgid]);
        if (due_ms > now_ms) {
            if (due_ms < next_ms)
                next_ms = due_ms;
            continue;
        }
        call_expire_one(kvs, msgid);
    }
    if (next_ms < table->next_deadline_ms)
        table->next_deadline_ms = next_ms;
}

/* Note which calls have left for the daemon, which may have begun them unless it says otherwise. */
static void call_note_begun(const struct kvs *kvs, struct call_table *ended, const struct kvs_error *reason)
{
    for (uint32_t i = 0; i < ended->slot_count && reason->outcome != KVS_OUTCOME_NONE; i++) {
        struct call *call = &ended->calls[i];
        if (call->state == CALL_IN_FLIGHT && call->sent_at <= kvs->connection.sent_bytes)
            call->may_be_begun = true;
    }
}

/* Move the calls that can be repeated to the new table, in the order in which they were submitted. */
static void call_hold_all(struct kvs *kvs, struct call_table *ended, const struct kvs_error *reason)
{
    struct call_table *table = &kvs->calls;

    if (ended->slot_count > 0)
        qsort(ended->calls, ended->slot_count, sizeof(*ended->calls), call_compare_numbers);
    for (uint32_t i = 0; i < ended->slot_count; i++) {
        struct call *call = &ended->calls[i];
        if (!call_is_unanswered(call) || !call_can_repeat(kvs, call, reason))
            continue;
        if (!call_table_reserve(table, kvs->options.max_in_flight))
            return; /* they end */
        if (call->may_be_begun)
            call_mark_repeated(call->copy);
        call->state = CALL_HELD;
        call_table_take(table, call);
        if (call_due_ms(call) < table->next_deadline_ms)
            table->next_deadline_ms = call_due_ms(call);
        table->held++;
        call->copy = NULL;
        call->state = CALL_FREE;
    }
}

void call_end_all(struct kvs *kvs, const struct kvs_error *reason)
{
    struct call_table ended = kvs->calls;

    /* The functions may open a new connection and submit calls: these go to a new table. */
    call_table_init(&kvs->calls);
    call_note_begun(kvs, &ended, reason);
    call_hold_all(kvs, &ended, reason);
    for (uint32_t i = 0; i < ended.slot_count; i++) {
        const struct call *call = &ended.calls[i];
        if (call_is_unanswered(call)) {
            struct kvs_error error = *reason;
            error.outcome = call_unanswered_outcome(call);
            call_deliver(kvs, call, &error, NULL);
        }
        free(call->copy);
    }
    free(ended.calls);
}
