#include "tests/integration/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_BYTES 65536u

struct waiting_answer {
    struct waiting_answer *next;
    struct answer answer;
};

struct client {
    int socket;
    uint32_t last_msgid;
    msgpack_unpacker unpacker;
    struct waiting_answer *waiting; /* came while another one was waited for, the latest first */
    struct notification *notifications, **end_of_notifications; /* that nobody has taken, the oldest first */
};

/* --- Connections ----------------------------------------------------------------------------------- */

struct client *client_open_address(const struct sockaddr_un *address, socklen_t length)
{
    struct client *client = keep(calloc(1, sizeof(*client)));

    client->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_msg(connect(client->socket, (const struct sockaddr *)address, length) == 0, "%s: %s", address->sun_path,
                  strerror(errno));
    ck_assert(msgpack_unpacker_init(&client->unpacker, READ_BYTES));
    client->end_of_notifications = &client->notifications;
    return client;
}

struct client *client_open_path(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    ck_assert_uint_lt(strlen(path), sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    return client_open_address(&address, sizeof(address));
}

struct client *client_open(const struct daemon *daemon)
{
    return client_open_path(daemon->socket_path);
}

struct client *client_open_shared(void)
{
    return client_open(&shared_daemon);
}

void client_close(struct client *client)
{
    close(client->socket);
    client->socket = -1;
}

int client_socket(const struct client *client)
{
    return client->socket;
}

/* --- Sending --------------------------------------------------------------------------------------- */

void client_write(struct client *client, const void *bytes, size_t size)
{
    const char *at = bytes;

    while (size > 0) {
        ssize_t written = send(client->socket, at, size, MSG_NOSIGNAL);
        ck_assert_msg(written > 0, "cannot write to the daemon: %s", strerror(errno));
        at += written;
        size -= (size_t)written;
    }
}

size_t client_write_some(struct client *client, const void *bytes, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t written = send(client->socket, (const char *)bytes + done, size - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (written < 0)
            break;
        done += (size_t)written;
    }
    return done;
}

size_t client_write_to_end(struct client *client, const void *bytes, size_t size)
{
    struct pollfd writable = {.fd = client->socket, .events = POLLOUT};
    size_t done = 0;

    for (;;) {
        done += client_write_some(client, (const char *)bytes + done, size - done);
        if (done == size)
            return done;
        ck_assert_msg(poll(&writable, 1, (int)PATIENCE_MS) == 1, "the daemon neither reads nor ends the session");
        if (writable.revents & (POLLERR | POLLHUP))
            return done;
    }
}

void client_shut_down(struct client *client)
{
    ck_assert_int_eq(shutdown(client->socket, SHUT_WR), 0);
}

static void pack_request_args(msgpack_sbuffer *buffer, uint32_t msgid, const char *method, const char *params,
                              va_list args)
{
    msgpack_packer packer;

    msgpack_packer_init(&packer, buffer, msgpack_sbuffer_write);
    pack_call(&packer, msgid, method, params, args);
}

void pack_request(msgpack_sbuffer *buffer, uint32_t msgid, const char *method, const char *params, ...)
{
    va_list args;

    va_start(args, params);
    pack_request_args(buffer, msgid, method, params, args);
    va_end(args);
}

void pack_put(msgpack_sbuffer *buffer, uint32_t msgid, const char *bucket, const char *key, const void *value,
              size_t size)
{
    msgpack_packer packer;

    msgpack_packer_init(&packer, buffer, msgpack_sbuffer_write);
    pack_call_head(&packer, msgid, "kv.put");
    msgpack_pack_array(&packer, 3);
    msgpack_pack_str_with_body(&packer, bucket, strlen(bucket));
    msgpack_pack_str_with_body(&packer, key, strlen(key));
    msgpack_pack_bin_with_body(&packer, value, size);
}

static uint32_t send_args(struct client *client, const char *method, const char *params, va_list args)
{
    msgpack_sbuffer buffer;

    msgpack_sbuffer_init(&buffer);
    pack_request_args(&buffer, ++client->last_msgid, method, params, args);
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    return client->last_msgid;
}

uint32_t client_send(struct client *client, const char *method, const char *params, ...)
{
    va_list args;

    va_start(args, params);
    uint32_t msgid = send_args(client, method, params, args);
    va_end(args);
    return msgid;
}

/* --- Receiving ------------------------------------------------------------------------------------- */

/* False: the connection has ended. */
static bool read_more(struct client *client, unsigned patience_ms)
{
    struct pollfd readable = {.fd = client->socket, .events = POLLIN};

    ck_assert(msgpack_unpacker_reserve_buffer(&client->unpacker, READ_BYTES));
    int ready = poll(&readable, 1, (int)patience_ms);
    ck_assert_msg(ready == 1, "the daemon does not answer");
    ssize_t received = recv(client->socket, msgpack_unpacker_buffer(&client->unpacker), READ_BYTES, 0);
    if (received <= 0)
        return false;
    msgpack_unpacker_buffer_consumed(&client->unpacker, (size_t)received);
    return true;
}

/* The next message that has arrived as a whole. */
static bool next_message(struct client *client, msgpack_object *message)
{
    msgpack_unpacked *unpacked = keep(calloc(1, sizeof(*unpacked)));

    msgpack_unpack_return found = msgpack_unpacker_next(&client->unpacker, unpacked);
    ck_assert_msg(found == MSGPACK_UNPACK_SUCCESS || found == MSGPACK_UNPACK_CONTINUE,
                  "the daemon has sent something that is not MessagePack");
    if (found == MSGPACK_UNPACK_CONTINUE)
        return false;
    if (unpacked->zone != NULL)
        keep(unpacked->zone);
    *message = unpacked->data;
    return true;
}

static void keep_notification(struct client *client, const msgpack_object *message)
{
    struct notification *notification = keep(calloc(1, sizeof(*notification)));

    notification->method = text_at(message, "1");
    notification->watch = number_at(message, "2.0");
    notification->params = *find_at(message, "2");
    *client->end_of_notifications = notification;
    client->end_of_notifications = &notification->next;
}

/* The next response; or NULL, when a notification came before it, which is kept. */
static struct answer *receive_one(struct client *client)
{
    struct answer *answer = keep(calloc(1, sizeof(*answer)));
    msgpack_object message;

    while (!next_message(client, &message)) {
        bool is_open = read_more(client, PATIENCE_MS);
        ck_assert_msg(is_open, "the daemon has ended the session");
    }
    ck_assert_int_eq(message.type, MSGPACK_OBJECT_ARRAY);
    const msgpack_object *parts = message.via.array.ptr;
    if (message.via.array.size == 3 && parts[0].via.u64 == 2) {
        keep_notification(client, &message);
        return NULL;
    }
    ck_assert_uint_eq(message.via.array.size, 4);
    ck_assert_uint_eq(parts[0].via.u64, 1);
    answer->has_msgid = parts[1].type == MSGPACK_OBJECT_POSITIVE_INTEGER;
    answer->msgid = answer->has_msgid ? (uint32_t)parts[1].via.u64 : 0;
    answer->error = parts[2];
    answer->result = parts[3];
    ck_assert_msg(answer->error.type == MSGPACK_OBJECT_NIL || answer->result.type == MSGPACK_OBJECT_NIL,
                  "an answer has an error and a result");
    return answer;
}

struct answer *client_receive(struct client *client)
{
    struct answer *answer;

    while ((answer = receive_one(client)) == NULL)
        ;
    return answer;
}

static void keep_answer(struct client *client, const struct answer *answer)
{
    struct waiting_answer *waiting = keep(calloc(1, sizeof(*waiting)));

    ck_assert_msg(answer->has_msgid, "an answer without msgid: %s", answer_error(answer));
    *waiting = (struct waiting_answer){client->waiting, *answer};
    client->waiting = waiting;
}

struct answer *client_wait(struct client *client, uint32_t msgid)
{
    for (struct waiting_answer **at = &client->waiting; *at != NULL; at = &(*at)->next) {
        struct waiting_answer *found = *at;
        if (found->answer.msgid == msgid) {
            *at = found->next;
            return &found->answer;
        }
    }
    for (;;) {
        struct answer *answer = client_receive(client);
        if (answer->has_msgid && answer->msgid == msgid)
            return answer;
        keep_answer(client, answer);
    }
}

struct notification *client_find_notification(struct client *client, uint64_t watch)
{
    struct notification **at = &client->notifications, *found;

    while (*at != NULL && (*at)->watch != watch)
        at = &(*at)->next;
    if ((found = *at) == NULL)
        return NULL;
    *at = found->next;
    if (*at == NULL)
        client->end_of_notifications = at;
    return found;
}

struct notification *client_wait_notification(struct client *client, uint64_t watch)
{
    struct notification *found;

    while ((found = client_find_notification(client, watch)) == NULL) {
        const struct answer *answer = receive_one(client);
        if (answer != NULL)
            keep_answer(client, answer);
    }
    return found;
}

void client_expect_nothing(struct client *client)
{
    uint32_t msgid = client_send(client, "daemon.info", "[]");
    const struct answer *answer = client_receive(client);

    ck_assert_msg(answer->has_msgid && answer->msgid == msgid, "another answer has come, to msgid %u: %s",
                  answer->msgid, answer_error(answer));
}

void client_expect_end(struct client *client)
{
    msgpack_object message;

    do {
        ck_assert_msg(!next_message(client, &message), "the daemon has sent %s", object_text(&message));
    } while (read_more(client, PATIENCE_MS));
}

struct answer *client_call(struct client *client, const char *method, const char *params, ...)
{
    va_list args;

    va_start(args, params);
    uint32_t msgid = send_args(client, method, params, args);
    va_end(args);
    struct answer *answer = client_wait(client, msgid);
    assert_outcome_is_told(method, &answer->error, &answer->result);
    return answer;
}

struct answer *client_put(struct client *client, const char *bucket, const char *key, const void *value, size_t size)
{
    msgpack_sbuffer buffer;

    msgpack_sbuffer_init(&buffer);
    pack_put(&buffer, ++client->last_msgid, bucket, key, value, size);
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    return client_wait(client, client->last_msgid);
}

const char *client_new_bucket(struct client *client, const char *options)
{
    static unsigned count;
    const char *name = format_text("test-%d-%u", (int)getpid(), ++count);

    assert_ok(client_call(client, "bucket.create", "['%s', {%s}]", name, options != NULL ? options : ""));
    return name;
}

/* --- Looking at answers ---------------------------------------------------------------------------- */

const char *answer_error(const struct answer *answer)
{
    return answer->error.type == MSGPACK_OBJECT_NIL ? "no error" : object_text(&answer->error);
}

const char *answer_code(const struct answer *answer)
{
    return answer->error.type == MSGPACK_OBJECT_NIL ? "ok" : text_at(&answer->error, "code");
}

uint64_t revision_of(const struct answer *answer)
{
    assert_ok(answer);
    return number_at(&answer->result, "");
}
