#include "client/lib/call.h"

#include "client/lib/error.h"
#include "proto/methods.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

/* How long the answer is waited for: the daemon keeps the deadline, the grace is for its answer's way back. */
#define GRACE_MS        1000
#define UNNAMED_WAIT_MS 10000
#define LONGEST_WAIT_MS (INT64_C(1000) * 60 * 60 * 24 * 365)
#define FIRST_SLOTS     16u
#define LARGEST_HEADER  128u /* [0, msgid, method: the longest method's name is far shorter */
#define LONGEST_METHOD  100u

int64_t call_wait_ms(double timeout_s)
{
    if (timeout_s <= 0)
        return UNNAMED_WAIT_MS;
    return timeout_s < (double)LONGEST_WAIT_MS / 1000 ? (int64_t)(timeout_s * 1000) + GRACE_MS : LONGEST_WAIT_MS;
}

/* --- The table ------------------------------------------------------------------------- */

static bool table_grow(struct kvs *kvs)
{
    uint32_t slots = kvs->call_slots > 0 ? kvs->call_slots * 2 : FIRST_SLOTS;

    if (slots > kvs->options.max_in_flight)
        slots = kvs->options.max_in_flight;
    struct call *calls = realloc(kvs->calls, slots * sizeof(*calls));
    if (calls == NULL)
        return false;
    for (uint32_t i = kvs->call_slots; i < slots; i++)
        calls[i] = (struct call){.next_free = i + 1};
    kvs->calls = calls;
    kvs->first_free = kvs->call_slots;
    kvs->call_slots = slots;
    return true;
}

static void table_release(struct kvs *kvs, uint32_t msgid)
{
    kvs->calls[msgid] = (struct call){.next_free = kvs->first_free};
    kvs->first_free = msgid;
    kvs->slots_used--;
}

static void tell(struct kvs *kvs, const struct call *call, const struct kvs_error *error, const msgpack_object *result)
{
    if (call->done == NULL)
        return;
    kvs->in_callback = true;
    call->done(kvs, error, error == NULL ? (const struct kvs_value *)result : NULL, call->context);
    kvs->in_callback = false;
}

/* Whether a failed call can have no unknown outcome. A method that this library does not know may write. */
static bool only_reads(const char *method)
{
#define CALL_METHOD(family, verb, fewest, most, flags, options) {#family "." #verb, flags},
    static const struct {
        const char *name;
        unsigned flags;
    } methods[] = {METHODS(CALL_METHOD)};

    for (size_t i = 0; i < METHOD_COUNT; i++) {
        if (strcmp(method, methods[i].name) == 0)
            return (methods[i].flags & METHOD_ONLY_READS) != 0;
    }
    return false;
}

/* --- The way out ------------------------------------------------------------------------- */

/* The parameters must be one whole array: a wrong count would make the daemon misread all that follows. */
static enum kvs_code check_request(struct kvs *kvs, const struct kvs_request *request)
{
    struct frame scan;

    if (request == NULL || request->no_memory)
        return client_error_set(&kvs->error, KVS_NO_MEMORY, "out of memory while the request was built");
    if (request->wrong != NULL)
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "%s", request->wrong);
    if (strlen(request->method) > LONGEST_METHOD)
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "the method's name is longer than %u bytes",
                                LONGEST_METHOD);

    size_t size = buffer_size(&request->params);
    frame_init(&scan, &kvs->limits);
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
        return client_error_set(
            &kvs->error, KVS_TOO_LARGE, "the request %s (limits of this handle: %zu bytes, %u elements, %u levels)",
            frame_status_text(status), kvs->limits.size_bytes, kvs->limits.elements, kvs->limits.depth);
    }
}

static int append(void *out, const char *bytes, size_t size)
{
    return buffer_append(out, bytes, size) ? 0 : -1;
}

/* Queues [0, msgid, method, params] in the out-buffer. False when out of memory. */
static bool queue_request(struct kvs *kvs, uint32_t msgid, const struct kvs_request *request)
{
    size_t before = buffer_size(&kvs->out), params = buffer_size(&request->params);
    msgpack_packer packer;

    if (!buffer_reserve(&kvs->out, params + LARGEST_HEADER))
        return false;
    msgpack_packer_init(&packer, &kvs->out, append);
    rpc_pack_request(&packer, msgid, request->method);
    buffer_append(&kvs->out, request->params.bytes + request->params.begin, params);
    kvs->queued_bytes += buffer_size(&kvs->out) - before;
    return true;
}

static enum kvs_code submit(struct kvs *kvs, const struct kvs_request *request, int64_t deadline_ms, kvs_done_fn *done,
                            void *context)
{
    enum kvs_code code;

    if ((code = check_request(kvs, request)) != KVS_OK || (code = connection_ensure(kvs)) != KVS_OK)
        return code;
    if (kvs->slots_used >= kvs->options.max_in_flight)
        return client_error_set(
            &kvs->error, KVS_RESOURCE_EXHAUSTED,
            "%u calls wait for their answers, more than max_in_flight allows: process answers first", kvs->slots_used);
    /* One request is always accepted, so that a small limit cannot refuse a large request for ever. */
    size_t waiting = buffer_size(&kvs->out);
    if (waiting > 0 && waiting + buffer_size(&request->params) > kvs->options.max_queued_bytes)
        return client_error_set(&kvs->error, KVS_RESOURCE_EXHAUSTED,
                                "%zu bytes of requests wait for being sent, as many as max_queued_bytes allows: "
                                "let kvs_process send them first",
                                waiting);

    if (kvs->first_free == kvs->call_slots && !table_grow(kvs))
        return client_error_set(&kvs->error, KVS_NO_MEMORY, "out of memory for one more call");
    uint32_t msgid = kvs->first_free;
    if (!queue_request(kvs, msgid, request))
        return client_error_set(&kvs->error, KVS_NO_MEMORY, "out of memory for the request");

    struct call *call = &kvs->calls[msgid];
    kvs->first_free = call->next_free;
    *call = (struct call){.state = CALL_IN_FLIGHT,
                          .done = done,
                          .context = context,
                          .only_reads = only_reads(request->method),
                          .deadline_ms = deadline_ms,
                          .sent_at = kvs->queued_bytes};
    if (kvs->in_flight == 0 || deadline_ms < kvs->next_deadline_ms)
        kvs->next_deadline_ms = deadline_ms;
    kvs->slots_used++;
    kvs->in_flight++;
    return KVS_OK;
}

/* A function may make a call while a blocking one waits, which keeps its request: it may have to go again. */
static struct kvs_request *scratch_of(struct kvs *kvs)
{
    return kvs->in_callback ? &kvs->inner : &kvs->scratch;
}

struct kvs_request *call_begin(struct kvs *kvs, const char *method, unsigned positions)
{
    request_begin(scratch_of(kvs), method, positions);
    return scratch_of(kvs);
}

enum kvs_code call_submit(struct kvs *kvs, double timeout_s, kvs_done_fn *done, void *context)
{
    struct kvs_request *request = scratch_of(kvs);

    request_end(request, timeout_s, kvs->options.timeout_s);
    return submit(kvs, request, connection_now_ms() + call_wait_ms(request->timeout_s), done, context);
}

enum kvs_code kvs_submit(struct kvs *kvs, const struct kvs_request *request, double timeout_s, kvs_done_fn *done,
                         void *context)
{
    double timeout = timeout_s > 0 ? timeout_s : kvs->options.timeout_s;

    return submit(kvs, request, connection_now_ms() + call_wait_ms(timeout), done, context);
}

/* --- The way back ------------------------------------------------------------------------ */

const char *call_answer(struct kvs *kvs, const struct rpc_message *message)
{
    uint32_t msgid = message->msgid;
    struct kvs_error error;

    if (msgid >= kvs->call_slots || kvs->calls[msgid].state == CALL_FREE)
        return "answers a call that was not made";
    bool failed = message->error.type != MSGPACK_OBJECT_NIL;
    if (failed && !client_error_read(&error, &message->error))
        return "has an error that is no error map";

    /* The slot is free before the function runs, which may submit the next call. */
    struct call call = kvs->calls[msgid];
    table_release(kvs, msgid);
    if (call.state == CALL_IN_FLIGHT) {
        kvs->in_flight--;
        tell(kvs, &call, failed ? &error : NULL, &message->result);
    }
    return NULL;
}

void call_expire(struct kvs *kvs, int64_t now_ms)
{
    struct kvs_error error;
    int64_t next = INT64_MAX;

    if (kvs->in_flight == 0 || now_ms < kvs->next_deadline_ms)
        return;
    client_error_set(&error, KVS_DEADLINE_EXCEEDED, "the daemon did not answer in time: is it alive?");

    /* Calls that the functions submit meanwhile lower next_deadline_ms by themselves. */
    kvs->next_deadline_ms = INT64_MAX;
    for (uint32_t msgid = 0; msgid < kvs->call_slots; msgid++) {
        if (kvs->calls[msgid].state != CALL_IN_FLIGHT)
            continue;
        if (kvs->calls[msgid].deadline_ms > now_ms) {
            if (kvs->calls[msgid].deadline_ms < next)
                next = kvs->calls[msgid].deadline_ms;
            continue;
        }
        struct call call = kvs->calls[msgid];
        kvs->calls[msgid].state = CALL_GIVEN_UP;
        kvs->in_flight--;
        error.outcome = call.only_reads ? KVS_OUTCOME_ABSENT : KVS_OUTCOME_UNKNOWN;
        tell(kvs, &call, &error, NULL);
    }
    if (next < kvs->next_deadline_ms)
        kvs->next_deadline_ms = next;
}

void call_end_all(struct kvs *kvs, const struct kvs_error *reason)
{
    struct call *calls = kvs->calls;
    uint32_t slots = kvs->call_slots;
    uint64_t sent_bytes = kvs->sent_bytes;

    /* The functions may open a new connection and submit calls: those go to a new table. */
    kvs->calls = NULL;
    kvs->call_slots = 0;
    kvs->first_free = 0;
    kvs->slots_used = 0;
    kvs->in_flight = 0;
    kvs->next_deadline_ms = INT64_MAX;

    for (uint32_t i = 0; i < slots; i++) {
        if (calls[i].state != CALL_IN_FLIGHT)
            continue;
        struct kvs_error error = *reason;
        if (calls[i].sent_at > sent_bytes || reason->outcome == KVS_OUTCOME_NONE)
            error.outcome = KVS_OUTCOME_NONE;
        else
            error.outcome = calls[i].only_reads ? KVS_OUTCOME_ABSENT : KVS_OUTCOME_UNKNOWN;
        tell(kvs, &calls[i], &error, NULL);
    }
    free(calls);
}

/* --- Blocking ------------------------------------------------------------------------------ */

/* A blocking function that waits. On its stack: the call ends before it returns. */
struct waiter {
    bool finished;
    struct kvs_error error; /* code KVS_OK: there is none */
    call_reader *reader;
    void *out;
};

static void waiter_done(struct kvs *kvs, const struct kvs_error *error, const struct kvs_value *result, void *context)
{
    struct waiter *waiter = context;

    (void)kvs;
    waiter->finished = true;
    if (error != NULL) {
        waiter->error = *error;
        return;
    }
    enum kvs_code code = waiter->reader != NULL ? waiter->reader(result, waiter->out) : KVS_OK;
    if (code == KVS_NO_MEMORY)
        client_error_set(&waiter->error, code, "out of memory for the result; the call itself succeeded");
    else if (code != KVS_OK)
        client_error_set(&waiter->error, code, "the daemon's answer is not what this method answers");
}

enum kvs_code call_check_blocking(struct kvs *kvs)
{
    if (!kvs->in_callback)
        return KVS_OK;
    return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT,
                            "a blocking call from inside a function that receives an answer: use the asynchronous one");
}

void call_pause(struct kvs *kvs, uint32_t pause_ms)
{
    int64_t until_ms = connection_now_ms() + pause_ms, now_ms;

    while ((now_ms = connection_now_ms()) < until_ms) {
        int timeout_ms = kvs_timeout_ms(kvs);
        if (timeout_ms < 0 || timeout_ms > until_ms - now_ms)
            timeout_ms = (int)(until_ms - now_ms);
        connection_wait(kvs, timeout_ms);
        connection_run(kvs);
    }
}

enum kvs_code call_wait_for_connection(struct kvs *kvs, int64_t give_up_ms)
{
    enum kvs_code code;

    while ((code = connection_ensure(kvs)) != KVS_OK && kvs->options.reconnect) {
        int64_t now = connection_now_ms();
        if (now >= give_up_ms)
            break;
        int64_t until = kvs->next_attempt_ms < give_up_ms ? kvs->next_attempt_ms : give_up_ms;
        poll(NULL, 0, until > now ? (int)(until - now) : 1);
    }
    return code;
}

/* Submits the request and waits for its end, which is left in *waiter; or answers why it was refused. */
static enum kvs_code submit_and_wait(struct kvs *kvs, const struct kvs_request *request, int64_t deadline_ms,
                                     struct waiter *waiter)
{
    enum kvs_code code;

    waiter->finished = false;
    waiter->error.code = KVS_OK;
    if ((code = call_wait_for_connection(kvs, deadline_ms - GRACE_MS)) != KVS_OK ||
        (code = submit(kvs, request, deadline_ms, waiter_done, waiter)) != KVS_OK)
        return code;
    connection_run(kvs);
    while (!waiter->finished) {
        connection_wait(kvs, kvs_timeout_ms(kvs));
        connection_run(kvs);
    }
    return KVS_OK;
}

static enum kvs_code run(struct kvs *kvs, const struct kvs_request *request, double timeout_s, call_reader *reader,
                         void *out)
{
    struct waiter waiter = {.reader = reader, .out = out};
    int64_t deadline_ms = connection_now_ms() + call_wait_ms(timeout_s);

    enum kvs_code code = call_check_blocking(kvs);
    if (code != KVS_OK)
        return code;
    /* A connection that was lost while nobody looked shows when the request does not leave: then it may go again. */
    do {
        enum kvs_code refused = submit_and_wait(kvs, request, deadline_ms, &waiter);
        if (refused != KVS_OK)
            return refused;
    } while (kvs->options.reconnect && (waiter.error.code == KVS_IO || waiter.error.code == KVS_PROTOCOL) &&
             waiter.error.retryable && waiter.error.outcome == KVS_OUTCOME_NONE &&
             connection_now_ms() < deadline_ms - GRACE_MS);

    if (waiter.error.code == KVS_OK)
        return KVS_OK;
    if (waiter.error.code == KVS_PROTOCOL && kvs->fd >= 0)
        connection_lose(kvs, &waiter.error);
    kvs->error = waiter.error;
    return waiter.error.code;
}

enum kvs_code call_run(struct kvs *kvs, double timeout_s, call_reader *reader, void *out)
{
    struct kvs_request *request = scratch_of(kvs); /* from inside a function only to be refused */

    request_end(request, timeout_s, kvs->options.timeout_s);
    return run(kvs, request, request->timeout_s, reader, out);
}

static enum kvs_code read_copy(const struct kvs_value *result, void *out)
{
    return (*(struct kvs_value **)out = kvs_value_copy(result)) != NULL ? KVS_OK : KVS_NO_MEMORY;
}

enum kvs_code kvs_call(struct kvs *kvs, const struct kvs_request *request, double timeout_s, struct kvs_value **result)
{
    if (result != NULL)
        *result = NULL;
    return run(kvs, request, timeout_s > 0 ? timeout_s : kvs->options.timeout_s, result != NULL ? read_copy : NULL,
               result);
}
