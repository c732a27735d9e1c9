#include "tests/fault/session.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_BYTES 65536u

struct session {
    int socket;
    uint32_t last_msgid;
    msgpack_unpacker unpacker;
    struct answer *answers; /* the latest first */
    struct notice *notices; /* in their order */
    struct notice **notices_end;
    struct notice *taken;
};

/* --- Life ------------------------------------------------------------------------------------------ */

struct session *session_open(const char *path)
{
    struct session *session = keep(calloc(1, sizeof(*session)));
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    ck_assert_uint_lt(strlen(path), sizeof(address.sun_path));
    strcpy(address.sun_path, path);
    session->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_msg(connect(session->socket, (struct sockaddr *)&address, sizeof(address)) == 0, "%s: %s", path,
                  strerror(errno));
    ck_assert(msgpack_unpacker_init(&session->unpacker, READ_BYTES));
    session->notices_end = &session->notices;
    return session;
}

void session_forget(struct session *session)
{
    while (session->answers != NULL) {
        struct answer *answer = session->answers;
        session->answers = answer->next;
        msgpack_unpacked_destroy(&answer->message);
        free(answer);
    }
}

static void free_notice(struct notice *notice)
{
    if (notice == NULL)
        return;
    msgpack_unpacked_destroy(&notice->message);
    free(notice);
}

void session_close(struct session *session)
{
    struct notice *notice;

    session_forget(session);
    free_notice(session->taken);
    session->taken = NULL;
    while ((notice = session->notices) != NULL) {
        session->notices = notice->next;
        free_notice(notice);
    }
    msgpack_unpacker_destroy(&session->unpacker);
    close(session->socket);
    session->socket = -1;
}

/* --- Sending --------------------------------------------------------------------------------------- */

static void write_all(const struct session *session, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t written = send(session->socket, bytes, size, MSG_NOSIGNAL);
        ck_assert_msg(written > 0, "cannot write to the daemon: %s", strerror(errno));
        bytes += written;
        size -= (size_t)written;
    }
}

static uint32_t send_args(struct session *session, const char *method, const char *params, va_list args)
{
    msgpack_sbuffer buffer;
    msgpack_packer packer;

    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    pack_call(&packer, ++session->last_msgid, method, params, args);
    write_all(session, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    return session->last_msgid;
}

uint32_t session_send(struct session *session, const char *method, const char *params, ...)
{
    va_list args;

    va_start(args, params);
    uint32_t msgid = send_args(session, method, params, args);
    va_end(args);
    return msgid;
}

/* --- Receiving ------------------------------------------------------------------------------------- */

/* The notice takes over what the message has. */
static void take_notice(struct session *session, msgpack_unpacked *message)
{
    const msgpack_object *parts = message->data.via.array.ptr;
    struct notice *notice = calloc(1, sizeof(*notice));

    ck_assert_ptr_nonnull(notice);
    ck_assert(parts[0].via.u64 == 2 && parts[2].type == MSGPACK_OBJECT_ARRAY);
    notice->message = *message;
    msgpack_unpacked_init(message);
    notice->method = text_at(&parts[1], "");
    notice->params = &parts[2];
    *session->notices_end = notice;
    session->notices_end = &notice->next;
}

static void take_answer(struct session *session, msgpack_unpacked *message)
{
    const msgpack_object *parts = message->data.via.array.ptr;
    struct answer *answer = calloc(1, sizeof(*answer));

    ck_assert_ptr_nonnull(answer);
    ck_assert_msg(parts[1].type == MSGPACK_OBJECT_POSITIVE_INTEGER, "an answer without msgid");
    answer->message = *message;
    msgpack_unpacked_init(message);
    answer->msgid = (uint32_t)parts[1].via.u64;
    answer->error = &parts[2];
    answer->result = &parts[3];
    answer->next = session->answers;
    session->answers = answer;
}

/* Takes what comes within the time. */
static void read_some(struct session *session, unsigned patience_ms)
{
    struct pollfd readable = {.fd = session->socket, .events = POLLIN};
    msgpack_unpacked message;

    if (poll(&readable, 1, (int)patience_ms) != 1)
        return;
    ck_assert(msgpack_unpacker_reserve_buffer(&session->unpacker, READ_BYTES));
    ssize_t received = recv(session->socket, msgpack_unpacker_buffer(&session->unpacker), READ_BYTES, 0);
    ck_assert_msg(received > 0, "the daemon has ended the session");
    msgpack_unpacker_buffer_consumed(&session->unpacker, (size_t)received);
    msgpack_unpacked_init(&message);
    while (msgpack_unpacker_next(&session->unpacker, &message) == MSGPACK_UNPACK_SUCCESS) {
        bool is_array = message.data.type == MSGPACK_OBJECT_ARRAY;
        ck_assert(is_array && (message.data.via.array.size == 3 || message.data.via.array.size == 4));
        if (message.data.via.array.size == 3)
            take_notice(session, &message);
        else
            take_answer(session, &message);
    }
    msgpack_unpacked_destroy(&message);
}

static const struct answer *find_answer(const struct session *session, uint32_t msgid)
{
    for (const struct answer *answer = session->answers; answer != NULL; answer = answer->next) {
        if (answer->msgid == msgid)
            return answer;
    }
    return NULL;
}

bool session_has(struct session *session, uint32_t msgid)
{
    read_some(session, 0);
    return find_answer(session, msgid) != NULL;
}

const struct answer *session_wait(struct session *session, uint32_t msgid)
{
    uint64_t end = now_ms() + PATIENCE_MS;
    const struct answer *answer;

    while ((answer = find_answer(session, msgid)) == NULL) {
        ck_assert_msg(now_ms() < end, "the daemon does not answer");
        read_some(session, 1000);
    }
    return answer;
}

const struct answer *session_call(struct session *session, const char *method, const char *params, ...)
{
    va_list args;

    va_start(args, params);
    uint32_t msgid = send_args(session, method, params, args);
    va_end(args);
    const struct answer *answer = session_wait(session, msgid);
    assert_outcome_is_told(method, answer->error, answer->result);
    return answer;
}

/* --- Notifications --------------------------------------------------------------------------------- */

const struct notice *session_next_notice(struct session *session, unsigned patience_ms)
{
    uint64_t end = now_ms() + patience_ms;

    free_notice(session->taken);
    session->taken = NULL;
    if (session->notices == NULL)
        read_some(session, 0);
    while (session->notices == NULL && now_ms() < end)
        read_some(session, (unsigned)(end - now_ms()));
    struct notice *notice = session->notices;
    if (notice == NULL)
        return NULL;
    session->notices = notice->next;
    if (session->notices == NULL)
        session->notices_end = &session->notices;
    session->taken = notice;
    return notice;
}

/* --- Looking at answers ---------------------------------------------------------------------------- */

const char *answer_code(const struct answer *answer)
{
    return answer->error->type == MSGPACK_OBJECT_NIL ? "ok" : text_at(answer->error, "code");
}

const char *answer_outcome(const struct answer *answer)
{
    return find_at(answer->error, "outcome") != NULL ? text_at(answer->error, "outcome") : "";
}

const char *answer_text(const struct answer *answer)
{
    return object_text(answer->error->type != MSGPACK_OBJECT_NIL ? answer->error : answer->result);
}

uint64_t answer_revision(const struct answer *answer)
{
    assert_ok(answer);
    return number_at(answer->result, "");
}
