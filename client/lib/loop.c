#include "client/lib/loop.h"

#include "client/lib/clock.h"
#include "client/lib/error.h"
#include "client/lib/kvstore_async.h"

#include <limits.h>

enum kvs_code loop_turn(struct kvs *kvs)
{
    enum kvs_code code = connection_run(&kvs->connection);

    if (code != KVS_OK)
        kvs->error = kvs->connection.error;
    return code;
}

void loop_wait(struct kvs *kvs, int timeout_ms)
{
    connection_wait(&kvs->connection, timeout_ms);
}

void loop_wait_and_turn(struct kvs *kvs, int64_t until_ms)
{
    int64_t left_ms = until_ms - clock_now_ms();
    int timeout_ms = loop_timeout_ms(kvs);

    if (left_ms < 0)
        left_ms = 0;
    if (timeout_ms < 0 || timeout_ms > left_ms)
        timeout_ms = left_ms < INT_MAX ? (int)left_ms : until_ms == INT64_MAX ? -1 : INT_MAX;
    loop_wait(kvs, timeout_ms);
    loop_turn(kvs);
}

/* Return a moment of clock_boot_ms as one of clock_now_ms. */
static int64_t loop_moment(int64_t boot_ms)
{
    return boot_ms == INT64_MAX ? INT64_MAX : clock_now_ms() + boot_ms - clock_boot_ms();
}

static int64_t loop_earlier(int64_t one_ms, int64_t other_ms)
{
    return one_ms < other_ms ? one_ms : other_ms;
}

int loop_timeout_ms(const struct kvs *kvs)
{
    const struct connection *connection = &kvs->connection;
    int64_t due_ms =
        loop_earlier(loop_earlier(kvs->watch_due_ms, kvs->ephemeral_due_ms), loop_moment(kvs->lock_due_ms));

    if (connection->has_unhandled)
        return 0;
    if (connection->fd < 0 && (kvs->calls.held > 0 || due_ms < connection->next_attempt_ms))
        due_ms = connection->next_attempt_ms;
    if (kvs->calls.in_flight > 0 && kvs->calls.next_deadline_ms < due_ms)
        due_ms = kvs->calls.next_deadline_ms;
    due_ms = loop_earlier(due_ms, loop_moment(kvs->lock_ends_ms));
    if (due_ms == INT64_MAX)
        return -1;
    int64_t left_ms = due_ms - clock_now_ms();
    return left_ms < 0 ? 0 : left_ms < INT_MAX ? (int)left_ms : INT_MAX;
}

/* --- For the program's loop ----------------------------------------------------------------- */

enum kvs_code kvs_process(struct kvs *kvs)
{
    if (kvs->in_callback)
        return client_error_set(&kvs->error, KVS_INVALID_ARGUMENT,
                                "kvs_process must not be called from inside a callback of the library");
    return loop_turn(kvs);
}

int kvs_fd(const struct kvs *kvs)
{
    return kvs->connection.fd;
}

uint64_t kvs_connection_count(const struct kvs *kvs)
{
    return kvs->connection.opened_count;
}

short kvs_events(const struct kvs *kvs)
{
    return connection_events(&kvs->connection);
}

int kvs_timeout_ms(const struct kvs *kvs)
{
    return loop_timeout_ms(kvs);
}

size_t kvs_in_flight(const struct kvs *kvs)
{
    return kvs->calls.in_flight;
}
