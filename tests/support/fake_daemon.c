#include "tests/support/fake_daemon.h"

#include "tests/support/object.h"
#include "tests/support/patience.h"
#include "tests/support/test_run.h"
#include "tests/support/text.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_BYTES 65536u
#define WAIT_MS    10 /* then the handle has its next turn */

struct fake_daemon {
    struct sockaddr_un address;
    int listener, connection; /* -1: none */
    msgpack_unpacker unpacker;
    msgpack_sbuffer packed; /* to be sent with the next message */
};

/* --- Connections ----------------------------------------------------------------------------------- */

void fake_daemon_listen(struct fake_daemon *fake)
{
    fake->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fake->listener, (const struct sockaddr *)&fake->address, sizeof(fake->address)), 0);
    ck_assert_int_eq(listen(fake->listener, 16), 0);
}

struct fake_daemon *fake_daemon_start(void)
{
    struct fake_daemon *fake = keep(calloc(1, sizeof(*fake)));
    char directory[PATH_BYTES];

    test_run_make_directory(directory);
    const char *path = format_text("%s/fake.sock", directory);
    ck_assert_uint_lt(strlen(path), sizeof(fake->address.sun_path));
    fake->address.sun_family = AF_UNIX;
    strcpy(fake->address.sun_path, path);
    fake->connection = -1;
    fake_daemon_listen(fake);
    return fake;
}

struct kvs *fake_daemon_connect(struct fake_daemon *fake, const struct kvs_options *options)
{
    struct kvs_options patient = options != NULL ? *options : (struct kvs_options)KVS_OPTIONS();
    struct kvs_error error;

    test_run_check_leaks();
    if (!(patient.timeout_s > 0))
        patient.timeout_s = PATIENCE_MS / 1000.0;
    struct kvs *kvs = kvs_connect(fake->address.sun_path, &patient, &error);
    ck_assert_msg(kvs != NULL, "%s", error.message);
    return kvs;
}

void fake_daemon_hang_up(struct fake_daemon *fake)
{
    if (fake->connection < 0)
        return;
    close(fake->connection);
    fake->connection = -1;
    msgpack_unpacker_destroy(&fake->unpacker);
}

void fake_daemon_end(struct fake_daemon *fake)
{
    close(fake->listener);
    fake->listener = -1;
    ck_assert_int_eq(unlink(fake->address.sun_path), 0);
    fake_daemon_hang_up(fake);
}

/* Return whether there is a connection, after a wait for one. */
static bool fake_daemon_accept(struct fake_daemon *fake, int wait_ms)
{
    struct pollfd waited = {.fd = fake->listener, .events = POLLIN};

    if (fake->connection < 0 && poll(&waited, 1, wait_ms) > 0) {
        fake->connection = accept4(fake->listener, NULL, NULL, SOCK_CLOEXEC);
        ck_assert_msg(fake->connection >= 0, "accept: %s", strerror(errno));
        ck_assert(msgpack_unpacker_init(&fake->unpacker, READ_BYTES));
    }
    return fake->connection >= 0;
}

/* --- Messages -------------------------------------------------------------------------------------- */

static bool fake_daemon_unpack(struct fake_daemon *fake, struct fake_request *request)
{
    msgpack_unpacked unpacked;

    msgpack_unpacked_init(&unpacked);
    msgpack_unpack_return found = msgpack_unpacker_next(&fake->unpacker, &unpacked);
    if (found == MSGPACK_UNPACK_SUCCESS) {
        ck_assert_uint_eq(count_at(&unpacked.data, ""), 4);
        request->msgid = (uint32_t)number_at(&unpacked.data, "1");
        request->method = text_at(&unpacked.data, "2");
        request->params = object_text(find_at(&unpacked.data, "3"));
    }
    msgpack_unpacked_destroy(&unpacked);
    return found == MSGPACK_UNPACK_SUCCESS;
}

static void fake_daemon_read(struct fake_daemon *fake)
{
    struct pollfd waited = {.fd = fake->connection, .events = POLLIN};

    if (poll(&waited, 1, WAIT_MS) <= 0)
        return;
    ck_assert(msgpack_unpacker_reserve_buffer(&fake->unpacker, READ_BYTES));
    ssize_t size = recv(fake->connection, msgpack_unpacker_buffer(&fake->unpacker), READ_BYTES, 0);
    ck_assert_msg(size > 0, "the program closed the connection");
    msgpack_unpacker_buffer_consumed(&fake->unpacker, (size_t)size);
}

struct fake_request fake_daemon_receive(struct fake_daemon *fake, struct kvs *kvs)
{
    uint64_t end_ms = now_ms() + PATIENCE_MS;
    struct fake_request request;

    for (;;) {
        if (kvs != NULL)
            kvs_process(kvs);
        if (fake_daemon_accept(fake, WAIT_MS)) {
            if (fake_daemon_unpack(fake, &request))
                return request;
            fake_daemon_read(fake);
        }
        ck_assert_msg(now_ms() < end_ms, "the program sent no request");
    }
}

struct fake_request fake_daemon_expect(struct fake_daemon *fake, struct kvs *kvs, const char *method)
{
    struct fake_request request = fake_daemon_receive(fake, kvs);

    ck_assert_msg(strcmp(request.method, method) == 0, "the program sent %s %s, not %s", request.method, request.params,
                  method);
    return request;
}

static void fake_daemon_add(struct fake_daemon *fake, const char *message, va_list args)
{
    msgpack_packer packer;

    msgpack_packer_init(&packer, &fake->packed, msgpack_sbuffer_write);
    pack_text(&packer, message, args);
}

void fake_daemon_pack(struct fake_daemon *fake, const char *message, ...)
{
    va_list args;

    va_start(args, message);
    fake_daemon_add(fake, message, args);
    va_end(args);
}

void fake_daemon_send(struct fake_daemon *fake, const char *message, ...)
{
    msgpack_sbuffer *packed = &fake->packed;
    va_list args;

    va_start(args, message);
    fake_daemon_add(fake, message, args);
    va_end(args);
    ck_assert_msg(fake_daemon_accept(fake, (int)PATIENCE_MS), "the program has not connected");
    ck_assert_int_eq(send(fake->connection, packed->data, packed->size, MSG_NOSIGNAL), (ssize_t)packed->size);
    msgpack_sbuffer_destroy(packed);
    msgpack_sbuffer_init(packed);
}
