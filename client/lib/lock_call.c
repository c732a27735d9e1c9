/* The calls of a lock, and their answers. */
#include "client/lib/call.h"
#include "client/lib/clock.h"
#include "client/lib/error.h"
#include "client/lib/lock.h"

#include <stdlib.h>

/* The daemon answers when the wait is over. The lock has its own time: an answer that comes later must be seen. */
#define ANSWER_MS (INT64_C(1000) * 60 * 60 * 24 * 365)

#define LONGEST_WAIT_S 1e9 /* as the daemon has it */

/* Read the map that acquire and check return. */
static bool lock_read_answer(const struct kvs_value *result, uint64_t *token, double *valid_for_s)
{
    const struct kvs_value *valid_for = kvs_value_member(result, "valid_for");

    *token = kvs_value_unsigned(kvs_value_member(result, "token"));
    *valid_for_s = kvs_value_double(valid_for);
    return *token > 0 && (kvs_value_type(valid_for) == KVS_DOUBLE || kvs_value_type(valid_for) == KVS_INTEGER);
}

static void lock_set_wrong_answer(struct kvs_error *error)
{
    client_error_set(error, KVS_PROTOCOL, "the daemon broke the protocol: its answer is not a result of this method");
}

/* --- lock.acquire ---------------------------------------------------------------------------------- */

static void lock_deliver_acquired(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                                  const struct kvs_value *result)
{
    struct kvs_lock *lock = receiver->context;
    struct kvs_error failure;
    double valid_for_s;
    uint64_t token;

    (void)kvs;
    lock->calls--;
    if (error == NULL && !lock_read_answer(result, &token, &valid_for_s)) {
        lock_set_wrong_answer(&failure);
        error = &failure;
    }
    if (error != NULL)
        lock_on_not_acquired(lock, error);
    else
        lock_on_held(lock, token, valid_for_s);
}

/* A lock that was kept is waited for as long as it is vouched for: the daemon may be starting. */
static double lock_wait_s(const struct kvs_lock *lock, int64_t now_ms)
{
    int64_t until_ms = lock->standing == LOCK_ASKED_FOR ? lock->wait_ends_ms
                       : lock->standing == LOCK_STANDS  ? lock->valid_until_ms
                                                        : 0;

    if (until_ms == INT64_MAX)
        return LONGEST_WAIT_S;
    return until_ms > now_ms ? (double)(until_ms - now_ms) / 1000 : 0;
}

enum kvs_code lock_send_acquire(struct kvs_lock *lock)
{
    struct kvs *kvs = lock->kvs;
    struct kvs_request *request = call_begin_of_key(kvs, "lock.acquire", 2, lock->bucket, lock->name);
    struct call_receiver receiver = {.deliver = lock_deliver_acquired, .context = lock};

    lock->acquire_sent_ms = clock_boot_ms();
    double wait_s = lock_wait_s(lock, lock->acquire_sent_ms);
    if (wait_s > 0) {
        request_option(request, "wait");
        kvs_request_double(request, wait_s);
    }
    if (lock->options.value != NULL) {
        request_option(request, "value");
        kvs_request_binary(request, lock->options.value, lock->options.value_size);
    }
    request_option_string(request, "owner", lock->owner[0] != '\0' ? lock->owner : NULL);
    request->timeout_s = lock->options.timeout_s;
    request_end(request, 0);
    enum kvs_code code = call_submit_request(kvs, request, clock_now_ms() + ANSWER_MS, &receiver);
    if (code == KVS_OK)
        lock->calls++;
    return code;
}

/* --- lock.check ------------------------------------------------------------------------------------ */

struct lock_check {
    int64_t sent_ms;
    kvs_lock_done_fn *done;
    void *context;
};

static void lock_deliver_checked(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                                 const struct kvs_value *result)
{
    struct lock_check check = *(struct lock_check *)receiver->extra;
    struct kvs_lock *lock = receiver->context;
    struct kvs_error failure;
    double valid_for_s;
    uint64_t token;

    free(receiver->extra);
    lock->calls--;
    lock->checks--;
    if (error == NULL && !lock_read_answer(result, &token, &valid_for_s)) {
        lock_set_wrong_answer(&failure);
        error = &failure;
    }
    if (error != NULL)
        lock_on_check_failed(lock, error);
    else
        lock_on_checked(lock, check.sent_ms, valid_for_s);
    if (check.done != NULL)
        check.done(kvs, error, check.context);
}

static struct kvs_request *lock_begin_held(struct kvs_lock *lock, const char *method)
{
    struct kvs_request *request = call_begin_of_key(lock->kvs, method, 3, lock->bucket, lock->name);

    kvs_request_unsigned(request, lock->token);
    request->timeout_s = lock->options.timeout_s;
    return request;
}

enum kvs_code lock_send_check(struct kvs_lock *lock, kvs_lock_done_fn *done, void *context)
{
    struct lock_check *check = malloc(sizeof(*check));

    if (check == NULL)
        return client_error_set(&lock->kvs->error, KVS_NO_MEMORY, "out of memory for the request");
    lock_begin_held(lock, "lock.check");
    *check = (struct lock_check){.sent_ms = clock_boot_ms(), .done = done, .context = context};
    enum kvs_code code = call_submit(
        lock->kvs, (struct call_receiver){.deliver = lock_deliver_checked, .context = lock, .extra = check});
    if (code != KVS_OK) {
        free(check);
        return code;
    }
    lock->calls++;
    lock->checks++;
    return KVS_OK;
}

/* --- lock.release ---------------------------------------------------------------------------------- */

static void lock_deliver_released(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                                  const struct kvs_value *result)
{
    struct kvs_lock *lock = receiver->context;

    (void)kvs;
    (void)result;
    lock->calls--;
    lock_on_released(lock, error);
}

enum kvs_code lock_send_release(struct kvs_lock *lock)
{
    lock_begin_held(lock, "lock.release");
    enum kvs_code code =
        call_submit(lock->kvs, (struct call_receiver){.deliver = lock_deliver_released, .context = lock});
    if (code == KVS_OK)
        lock->calls++;
    return code;
}
