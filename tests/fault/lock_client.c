#include "tests/fault/lock_client.h"

#include "tests/support/object.h"

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES 16384u

/* A look at must_stop. */
#define SLICE_MS 50u

uint64_t lock_client_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* --- Sessions -------------------------------------------------------------------------------------- */

bool lock_client_connect(struct lock_client *client, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    memset(client, 0, sizeof(*client));
    ck_assert_uint_lt(strlen(path), sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    client->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(client->socket, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        close(client->socket);
        client->socket = -1;
        return false;
    }
    ck_assert(msgpack_unpacker_init(&client->unpacker, READ_BYTES));
    return true;
}

void lock_client_close(struct lock_client *client)
{
    if (client->socket < 0)
        return;
    close(client->socket);
    client->socket = -1;
    msgpack_unpacker_destroy(&client->unpacker);
}

/* --- Messages -------------------------------------------------------------------------------------- */

static void lock_client_copy(char *to, size_t bytes, const msgpack_object *text)
{
    size_t length = text != NULL && text->type == MSGPACK_OBJECT_STR ? text->via.str.size : 0;

    if (length >= bytes)
        length = bytes - 1;
    if (length > 0)
        memcpy(to, text->via.str.ptr, length);
    to[length] = '\0';
}

static uint64_t lock_client_number(const msgpack_object *number)
{
    return number != NULL && number->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? number->via.u64 : 0;
}

static void lock_client_take_answer(struct lock_answer *answer, const msgpack_object *message)
{
    const msgpack_object *error = &message->via.array.ptr[2], *result = &message->via.array.ptr[3];

    answer->received_ns = lock_client_now_ns();
    if (error->type != MSGPACK_OBJECT_NIL) {
        answer->reply = LOCK_REPLY_ERROR;
        lock_client_copy(answer->code, sizeof(answer->code), find_at(error, "code"));
        lock_client_copy(answer->message, sizeof(answer->message), find_at(error, "message"));
        return;
    }
    answer->reply = LOCK_REPLY_OK;
    strcpy(answer->code, "ok");
    if (result->type == MSGPACK_OBJECT_MAP) {
        const msgpack_object *valid_for = find_at(result, "valid_for");
        answer->token = lock_client_number(find_at(result, "token"));
        answer->valid_ns = valid_for != NULL ? (uint64_t)(valid_for->via.f64 * 1e9) : 0;
    } else {
        answer->revision = lock_client_number(result->type == MSGPACK_OBJECT_ARRAY ? find_at(result, "0") : result);
    }
}

static void lock_client_take_notification(struct lock_client *client, const msgpack_object *message)
{
    if (strcmp(text_at(message, "1"), "lock.lost") != 0)
        return;
    client->lost_token = number_at(message, "2.2");
    client->lost_ns = lock_client_now_ns();
}

/* Take the messages that have come. answer: see there; NULL: none is waited for. */
static void lock_client_take(struct lock_client *client, struct lock_answer *answer)
{
    msgpack_unpacked message;

    msgpack_unpacked_init(&message);
    while (msgpack_unpacker_next(&client->unpacker, &message) == MSGPACK_UNPACK_SUCCESS) {
        const msgpack_object *parts = message.data.via.array.ptr;
        if (parts[0].via.u64 == 2)
            lock_client_take_notification(client, &message.data);
        else if (answer != NULL && parts[1].via.u64 == client->last_msgid)
            lock_client_take_answer(answer, &message.data);
    }
    msgpack_unpacked_destroy(&message);
}

/* Wait for bytes and take them. Return false if the session has ended. */
static bool lock_client_read(struct lock_client *client, unsigned wait_ms, struct lock_answer *answer)
{
    struct pollfd readable = {.fd = client->socket, .events = POLLIN};

    if (poll(&readable, 1, (int)wait_ms) != 1)
        return true;
    ck_assert(msgpack_unpacker_reserve_buffer(&client->unpacker, READ_BYTES));
    ssize_t received = recv(client->socket, msgpack_unpacker_buffer(&client->unpacker), READ_BYTES, MSG_DONTWAIT);
    if (received <= 0)
        return received < 0 && (errno == EAGAIN || errno == EINTR);
    msgpack_unpacker_buffer_consumed(&client->unpacker, (size_t)received);
    lock_client_take(client, answer);
    return true;
}

bool lock_client_listen(struct lock_client *client, unsigned wait_ms)
{
    uint64_t end_ns = lock_client_now_ns() + wait_ms * UINT64_C(1000000), now_ns;

    while ((now_ns = lock_client_now_ns()) < end_ns) {
        if (!lock_client_read(client, (unsigned)((end_ns - now_ns + 999999) / 1000000), NULL))
            return false;
    }
    return true;
}

/* --- Calls ----------------------------------------------------------------------------------------- */

static bool lock_client_send(struct lock_client *client, const char *method, const char *params, va_list args)
{
    msgpack_sbuffer buffer;
    msgpack_packer packer;

    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    pack_call(&packer, ++client->last_msgid, method, params, args);
    ssize_t written = send(client->socket, buffer.data, buffer.size, MSG_NOSIGNAL);
    bool is_sent = written == (ssize_t)buffer.size;
    msgpack_sbuffer_destroy(&buffer);
    return is_sent;
}

struct lock_answer lock_client_call(struct lock_client *client, unsigned wait_ms, const bool *must_stop,
                                    const char *method, const char *params, ...)
{
    struct lock_answer answer = {.reply = LOCK_REPLY_SILENCE, .sent_ns = lock_client_now_ns()};
    uint64_t end_ns = answer.sent_ns + wait_ms * UINT64_C(1000000);
    va_list args;

    va_start(args, params);
    bool is_open = lock_client_send(client, method, params, args);
    va_end(args);
    while (is_open && answer.reply == LOCK_REPLY_SILENCE && lock_client_now_ns() < end_ns &&
           !__atomic_load_n(must_stop, __ATOMIC_RELAXED))
        is_open = lock_client_read(client, wait_ms < SLICE_MS ? wait_ms : SLICE_MS, &answer);
    if (!is_open && answer.reply == LOCK_REPLY_SILENCE)
        answer.reply = LOCK_REPLY_ENDED;
    return answer;
}
