#include "tests/support/client.h"

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

/* Of the hash table of answers. A test may have a hundred thousand of them. */
#define ANSWER_CHAINS 256u

struct client_answer {
    struct client_answer *next;
    struct answer answer;
    msgpack_zone *zone;
};

struct client {
    int socket;
    uint32_t last_msgid;
    msgpack_unpacker unpacker;
    struct client_answer *answers[ANSWER_CHAINS]; /* by msgid, those that were not returned; the latest first */
    struct client_answer *returned;
    struct notification *notifications, **end_of_notifications; /* that were not returned, the oldest first */
    struct notification *returned_notifications;
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

struct client *client_open_as(unsigned user, const struct sockaddr_un *address, socklen_t length)
{
    ck_assert_int_eq(seteuid(user), 0);
    struct client *client = client_open_address(address, length);
    ck_assert_int_eq(seteuid(0), 0);
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
    if (client->socket < 0)
        return;
    close(client->socket);
    client->socket = -1;
    msgpack_unpacker_destroy(&client->unpacker);
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

static void client_pack_args(msgpack_sbuffer *buffer, uint32_t msgid, const char *method, const char *params,
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
    client_pack_args(buffer, msgid, method, params, args);
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

static struct client_answer **client_chain(struct client *client, uint32_t msgid)
{
    return &client->answers[msgid % ANSWER_CHAINS];
}

/* Find the answer to a msgid among those that have come. *at is NULL if it is not there. */
static struct client_answer **client_find_answer(struct client *client, uint32_t msgid)
{
    struct client_answer **at = client_chain(client, msgid);

    while (*at != NULL && (*at)->answer.msgid != msgid)
        at = &(*at)->next;
    return at;
}

static uint32_t client_send_args(struct client *client, const char *method, const char *params, va_list args)
{
    msgpack_sbuffer buffer;

    msgpack_sbuffer_init(&buffer);
    client_pack_args(&buffer, ++client->last_msgid, method, params, args);
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    return client->last_msgid;
}

uint32_t client_send(struct client *client, const char *method, const char *params, ...)
{
    va_list args;

    va_start(args, params);
    uint32_t msgid = client_send_args(client, method, params, args);
    va_end(args);
    return msgid;
}

/* --- Receiving ------------------------------------------------------------------------------------- */

/* Return false if the connection has ended. */
static bool client_read_more(struct client *client)
{
    struct pollfd readable = {.fd = client->socket, .events = POLLIN};

    ck_assert(msgpack_unpacker_reserve_buffer(&client->unpacker, READ_BYTES));
    int ready = poll(&readable, 1, (int)PATIENCE_MS);
    ck_assert_msg(ready == 1, "the daemon does not answer");
    ssize_t received = recv(client->socket, msgpack_unpacker_buffer(&client->unpacker), READ_BYTES, 0);
    if (received <= 0)
        return false;
    msgpack_unpacker_buffer_consumed(&client->unpacker, (size_t)received);
    return true;
}

/* Take the next message that has arrived as a whole. Return false if there is none. */
static bool client_next_message(struct client *client, msgpack_unpacked *message)
{
    msgpack_unpacked_init(message);
    msgpack_unpack_return found = msgpack_unpacker_next(&client->unpacker, message);
    ck_assert_msg(found == MSGPACK_UNPACK_SUCCESS || found == MSGPACK_UNPACK_CONTINUE,
                  "the daemon has sent something that is not MessagePack");
    return found == MSGPACK_UNPACK_SUCCESS;
}

static void client_keep_notification(struct client *client, msgpack_unpacked *message)
{
    struct notification *notification = calloc(1, sizeof(*notification));

    ck_assert_ptr_nonnull(notification);
    notification->method = text_at(&message->data, "1");
    const msgpack_object *first = find_at(&message->data, "2.0");
    bool is_of_watch = first != NULL && first->type == MSGPACK_OBJECT_POSITIVE_INTEGER;
    notification->watch = is_of_watch ? first->via.u64 : 0;
    notification->params = *find_at(&message->data, "2");
    notification->zone = msgpack_unpacked_release_zone(message);
    *client->end_of_notifications = notification;
    client->end_of_notifications = &notification->next;
}

static struct client_answer *client_make_answer(msgpack_unpacked *message)
{
    struct client_answer *made = calloc(1, sizeof(*made));
    const msgpack_object *parts = message->data.via.array.ptr;

    ck_assert_ptr_nonnull(made);
    ck_assert_uint_eq(message->data.via.array.size, 4);
    ck_assert_uint_eq(parts[0].via.u64, 1);
    struct answer *answer = &made->answer;
    answer->has_msgid = parts[1].type == MSGPACK_OBJECT_POSITIVE_INTEGER;
    answer->msgid = answer->has_msgid ? (uint32_t)parts[1].via.u64 : 0;
    answer->error = parts[2];
    answer->result = parts[3];
    ck_assert_msg(answer->error.type == MSGPACK_OBJECT_NIL || answer->result.type == MSGPACK_OBJECT_NIL,
                  "an answer has an error and a result");
    made->zone = msgpack_unpacked_release_zone(message);
    return made;
}

/* Take a message. Return the answer, or NULL if it is a notification, which is kept. */
static struct client_answer *client_take(struct client *client, msgpack_unpacked *message)
{
    const msgpack_object *object = &message->data;

    ck_assert_int_eq(object->type, MSGPACK_OBJECT_ARRAY);
    if (object->via.array.size != 3 || object->via.array.ptr[0].via.u64 != 2)
        return client_make_answer(message);
    client_keep_notification(client, message);
    return NULL;
}

/* Return the next answer, or NULL if a notification came before it, which is kept. */
static struct client_answer *client_receive_one(struct client *client)
{
    msgpack_unpacked message;

    while (!client_next_message(client, &message)) {
        bool is_open = client_read_more(client);
        ck_assert_msg(is_open, "the daemon has ended the session");
    }
    return client_take(client, &message);
}

static void client_keep_answer(struct client *client, struct client_answer *given)
{
    struct client_answer **chain = client_chain(client, given->answer.msgid);

    ck_assert_msg(given->answer.has_msgid, "an answer without msgid: %s", answer_text(&given->answer));
    given->next = *chain;
    *chain = given;
}

/* Wait for one message and keep it. */
static void client_keep_one(struct client *client)
{
    struct client_answer *given = client_receive_one(client);

    if (given != NULL)
        client_keep_answer(client, given);
}

static struct answer *client_return_answer(struct client *client, struct client_answer *given)
{
    given->next = client->returned;
    client->returned = given;
    return &given->answer;
}

struct answer *client_receive(struct client *client)
{
    struct client_answer *given;

    while ((given = client_receive_one(client)) == NULL)
        ;
    return client_return_answer(client, given);
}

const struct answer *client_peek(struct client *client, uint32_t msgid)
{
    const struct client_answer *found;

    while ((found = *client_find_answer(client, msgid)) == NULL)
        client_keep_one(client);
    return &found->answer;
}

struct answer *client_wait(struct client *client, uint32_t msgid)
{
    client_peek(client, msgid);
    struct client_answer **at = client_find_answer(client, msgid), *found = *at;
    *at = found->next;
    return client_return_answer(client, found);
}

/* Keep all messages that have arrived as a whole. Return whether there were any. */
static bool client_keep_all(struct client *client)
{
    bool has_any = false;
    msgpack_unpacked message;

    for (; client_next_message(client, &message); has_any = true) {
        struct client_answer *given = client_take(client, &message);
        if (given != NULL)
            client_keep_answer(client, given);
    }
    return has_any;
}

bool client_read(struct client *client, unsigned wait_ms)
{
    struct pollfd readable = {.fd = client->socket, .events = POLLIN};
    bool has_any = client_keep_all(client);

    if (poll(&readable, 1, has_any ? 0 : (int)wait_ms) != 1)
        return has_any;
    bool is_open = client_read_more(client);
    ck_assert_msg(is_open, "the daemon has ended the session");
    return client_keep_all(client) || has_any;
}

bool client_has(struct client *client, uint32_t msgid)
{
    client_read(client, 0);
    return *client_find_answer(client, msgid) != NULL;
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
    found->next = client->returned_notifications;
    client->returned_notifications = found;
    return found;
}

struct notification *client_wait_notification(struct client *client, uint64_t watch)
{
    struct notification *found;

    while ((found = client_find_notification(client, watch)) == NULL)
        client_keep_one(client);
    return found;
}

static void client_free_answers(struct client_answer **list)
{
    while (*list != NULL) {
        struct client_answer *first = *list;
        *list = first->next;
        msgpack_zone_free(first->zone);
        free(first);
    }
}

void client_forget(struct client *client)
{
    for (size_t i = 0; i < ANSWER_CHAINS; i++)
        client_free_answers(&client->answers[i]);
    client_free_answers(&client->returned);
    while (client->returned_notifications != NULL) {
        struct notification *first = client->returned_notifications;
        client->returned_notifications = first->next;
        msgpack_zone_free(first->zone);
        free(first);
    }
}

void client_expect_nothing(struct client *client)
{
    uint32_t msgid = client_send(client, "daemon.info", "[]");
    const struct answer *answer = client_receive(client);

    ck_assert_msg(answer->has_msgid && answer->msgid == msgid, "another answer has come, to msgid %u: %s",
                  answer->msgid, answer_text(answer));
}

void client_expect_end(struct client *client)
{
    msgpack_unpacked message;

    do {
        bool has_message = client_next_message(client, &message);
        ck_assert_msg(!has_message, "the daemon has sent %s", object_text(&message.data));
    } while (client_read_more(client));
}

void client_expect_dismissal(struct client *client)
{
    const struct answer *answer = client_receive(client);

    ck_assert_msg(!answer->has_msgid, "not a dismissal: %s", answer_text(answer));
    ck_assert_str_eq(text_at(&answer->error, "code"), "unavailable");
    ck_assert_str_eq(text_at(&answer->error, "outcome"), "none");
    client_expect_end(client);
}

/* --- Calls ----------------------------------------------------------------------------------------- */

struct answer *client_call(struct client *client, const char *method, const char *params, ...)
{
    va_list args;

    va_start(args, params);
    uint32_t msgid = client_send_args(client, method, params, args);
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

const char *answer_code(const struct answer *answer)
{
    return answer->error.type == MSGPACK_OBJECT_NIL ? "ok" : text_at(&answer->error, "code");
}

const char *answer_outcome(const struct answer *answer)
{
    return find_at(&answer->error, "outcome") != NULL ? text_at(&answer->error, "outcome") : "";
}

const char *answer_text(const struct answer *answer)
{
    return object_text(answer->error.type != MSGPACK_OBJECT_NIL ? &answer->error : &answer->result);
}

uint64_t revision_of(const struct answer *answer)
{
    assert_ok(answer);
    return number_at(&answer->result, "");
}
