#include "tests/support/tls_front.h"

#include "tests/support/certificate.h"
#include "tests/support/process.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define BRIDGES_MAX  32
#define BUFFER_BYTES 65536u

/* Shared by the test and the process. */
struct control {
    _Atomic size_t limit; /* bytes to the client of a new connection */
    _Atomic bool ends;    /* at the limit the connection ends; else it falls silent */
    _Atomic size_t bytes;
    _Atomic unsigned connections;
};

struct tls_front {
    pid_t pid;
    unsigned port;
    char directory[PATH_BYTES];
    struct control *control;
};

/* Bytes on their way to a socket. */
struct buffer {
    char bytes[BUFFER_BYTES];
    size_t start, end;
};

/*
 * One connection. What the client sends goes into the session, and what comes out of it to the server, and back. The
 * session reads and writes memory, so that the bytes to the client can be counted.
 */
struct bridge {
    bool is_open, is_encrypted;
    int client, server;
    SSL *session;
    struct buffer to_server, to_client; /* plain; encrypted, or the server's INFO */
    bool client_has_ended, server_has_ended;
    size_t limit, passed;
    bool ends;
};

struct front {
    SSL_CTX *context;
    int listener;
    unsigned server_port;
    struct control *control;
    struct bridge bridges[BRIDGES_MAX];
};

/* --- Bytes ----------------------------------------------------------------------------------------- */

static size_t tls_front_filled(const struct buffer *buffer)
{
    return buffer->end - buffer->start;
}

static void tls_front_close_bridge(struct bridge *bridge)
{
    SSL_free(bridge->session);
    close(bridge->client);
    close(bridge->server);
    memset(bridge, 0, sizeof(*bridge));
}

/* Return false if the socket takes no more for now. A peer that has closed loses the bytes. */
static bool tls_front_send_some(int socket, struct buffer *buffer, size_t most)
{
    size_t size = tls_front_filled(buffer) < most ? tls_front_filled(buffer) : most;
    ssize_t sent = size > 0 ? send(socket, buffer->bytes + buffer->start, size, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;

    if (size == 0 || (sent < 0 && errno == EAGAIN))
        return false;
    buffer->start += sent > 0 ? (size_t)sent : size;
    if (buffer->start == buffer->end)
        buffer->start = buffer->end = 0;
    return true;
}

/* Return what recv does, but -1 only if there is nothing yet. */
static ssize_t tls_front_receive(int socket, char *bytes, size_t size)
{
    ssize_t received = recv(socket, bytes, size, MSG_DONTWAIT);

    return received < 0 && errno != EAGAIN ? 0 : received;
}

/* --- A connection ---------------------------------------------------------------------------------- */

/* Turn "INFO {…}" into "INFO {"tls_required":true,…}". Return false if it is not whole yet. */
static bool tls_front_pass_info(struct bridge *bridge)
{
    static const char required[] = "INFO {\"tls_required\":true,";
    char line[BUFFER_BYTES];
    ssize_t peeked = recv(bridge->server, line, sizeof(line), MSG_PEEK | MSG_DONTWAIT);
    char *end = peeked > 6 ? memchr(line, '\n', (size_t)peeked) : NULL;

    bridge->server_has_ended = peeked == 0;
    if (end == NULL)
        return false;
    size_t length = (size_t)(end - line) + 1;
    if (recv(bridge->server, line, length, 0) != (ssize_t)length)
        abort();
    memcpy(bridge->to_client.bytes, required, sizeof(required) - 1);
    memcpy(bridge->to_client.bytes + sizeof(required) - 1, line + 6, length - 6);
    bridge->to_client.end = sizeof(required) - 1 + length - 6;
    return true;
}

/* Take from the session what it has for the client. */
static bool tls_front_drain_session(struct bridge *bridge)
{
    struct buffer *buffer = &bridge->to_client;
    int read = tls_front_filled(buffer) == 0 ? BIO_read(SSL_get_wbio(bridge->session), buffer->bytes, BUFFER_BYTES) : 0;

    if (read <= 0)
        return false;
    buffer->end = (size_t)read;
    return true;
}

/* Give the session what the client has sent, after it has used up what it had. */
static bool tls_front_feed_session(struct bridge *bridge)
{
    char bytes[BUFFER_BYTES / 4];

    if (bridge->client_has_ended || BIO_ctrl_pending(SSL_get_rbio(bridge->session)) > 0)
        return false;
    ssize_t received = tls_front_receive(bridge->client, bytes, sizeof(bytes));
    bridge->client_has_ended = received == 0;
    return received > 0 && BIO_write(SSL_get_rbio(bridge->session), bytes, (int)received) == received;
}

static bool tls_front_read_session(struct bridge *bridge)
{
    struct buffer *buffer = &bridge->to_server;
    int read = tls_front_filled(buffer) == 0 ? SSL_read(bridge->session, buffer->bytes, BUFFER_BYTES) : 0;

    ERR_clear_error();
    if (read <= 0)
        return false;
    buffer->end = (size_t)read;
    return true;
}

/* Encrypt what the server has sent, after the client has got what came before. */
static bool tls_front_write_session(struct bridge *bridge)
{
    char bytes[BUFFER_BYTES / 4];

    if (bridge->server_has_ended || !SSL_is_init_finished(bridge->session) ||
        tls_front_filled(&bridge->to_client) > 0 || BIO_ctrl_pending(SSL_get_wbio(bridge->session)) > 0)
        return false;
    ssize_t received = tls_front_receive(bridge->server, bytes, sizeof(bytes));
    bridge->server_has_ended = received == 0;
    if (bridge->server_has_ended)
        SSL_shutdown(bridge->session);
    return received > 0 && SSL_write(bridge->session, bytes, (int)received) == received;
}

static bool tls_front_send_to_client(struct front *front, struct bridge *bridge)
{
    size_t before = tls_front_filled(&bridge->to_client);
    bool has_sent = tls_front_send_some(bridge->client, &bridge->to_client, bridge->limit - bridge->passed);

    bridge->passed += before - tls_front_filled(&bridge->to_client);
    atomic_store(&front->control->bytes, bridge->passed);
    return has_sent;
}

/* Move what can be moved, in any direction. */
static bool tls_front_move(struct front *front, struct bridge *bridge)
{
    if (!bridge->is_encrypted)
        return (tls_front_filled(&bridge->to_client) == 0 && tls_front_pass_info(bridge)) ||
               tls_front_send_to_client(front, bridge);
    bool moved = tls_front_feed_session(bridge);
    moved = tls_front_read_session(bridge) || moved;
    moved = tls_front_send_some(bridge->server, &bridge->to_server, SIZE_MAX) || moved;
    moved = tls_front_write_session(bridge) || moved;
    moved = tls_front_drain_session(bridge) || moved;
    return tls_front_send_to_client(front, bridge) || moved;
}

static void tls_front_work(struct front *front, struct bridge *bridge)
{
    while (tls_front_move(front, bridge)) {
        if (!bridge->is_encrypted && bridge->passed > 0 && tls_front_filled(&bridge->to_client) == 0)
            bridge->is_encrypted = true; /* the INFO has gone out */
    }
    bool has_all = tls_front_filled(&bridge->to_client) == 0 && BIO_ctrl_pending(SSL_get_wbio(bridge->session)) == 0;
    if ((bridge->server_has_ended && has_all) || (bridge->ends && bridge->passed == bridge->limit)) {
        tls_front_close_bridge(bridge);
        return;
    }
    /* What the client has sent before its end still goes to the server. */
    if (bridge->client_has_ended && tls_front_filled(&bridge->to_server) == 0)
        shutdown(bridge->server, SHUT_WR);
}

static void tls_front_accept_client(struct front *front)
{
    int client = accept4(front->listener, NULL, NULL, SOCK_CLOEXEC), server = -1, on = 1;
    struct bridge *bridge = NULL;

    for (unsigned i = 0; i < BRIDGES_MAX && bridge == NULL; i++)
        bridge = front->bridges[i].is_open ? NULL : &front->bridges[i];
    if (client >= 0 && bridge != NULL)
        server = port_dial(front->server_port);
    if (server < 0) {
        close(client);
        return;
    }
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    memset(bridge, 0, sizeof(*bridge));
    bridge->is_open = true;
    bridge->client = client;
    bridge->server = server;
    bridge->limit = atomic_load(&front->control->limit);
    bridge->ends = atomic_load(&front->control->ends);
    bridge->session = SSL_new(front->context);
    SSL_set_bio(bridge->session, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_accept_state(bridge->session);
    atomic_fetch_add(&front->control->connections, 1);
}

/* --- The process ----------------------------------------------------------------------------------- */

/* Wait for any event that lets a connection continue. */
static void tls_front_wait_for_events(struct front *front)
{
    struct pollfd polled[1 + 2 * BRIDGES_MAX];
    nfds_t count = 1;

    polled[0] = (struct pollfd){.fd = front->listener, .events = POLLIN};
    for (unsigned i = 0; i < BRIDGES_MAX; i++) {
        struct bridge *bridge = &front->bridges[i];
        if (!bridge->is_open)
            continue;
        bool may_send = tls_front_filled(&bridge->to_client) > 0 && bridge->passed < bridge->limit;
        bool may_read_client =
            bridge->is_encrypted && !bridge->client_has_ended && tls_front_filled(&bridge->to_server) == 0;
        bool may_read_server = !bridge->server_has_ended && tls_front_filled(&bridge->to_client) == 0;
        polled[count++] = (struct pollfd){.fd = bridge->client,
                                          .events = (short)((may_read_client ? POLLIN : 0) | (may_send ? POLLOUT : 0))};
        polled[count++] = (struct pollfd){.fd = bridge->server,
                                          .events = (short)((may_read_server ? POLLIN : 0) |
                                                            (tls_front_filled(&bridge->to_server) > 0 ? POLLOUT : 0))};
        /* Errors and hang-ups are always reported: a side that has ended would wake us forever. */
        if (bridge->client_has_ended || polled[count - 2].events == 0)
            polled[count - 2].fd = -1;
        if (polled[count - 1].events == 0)
            polled[count - 1].fd = -1;
    }
    poll(polled, count, -1);
    if (polled[0].revents != 0)
        tls_front_accept_client(front);
}

static void tls_front_serve(struct front *front)
{
    for (;;) {
        tls_front_wait_for_events(front);
        for (unsigned i = 0; i < BRIDGES_MAX; i++) {
            if (front->bridges[i].is_open)
                tls_front_work(front, &front->bridges[i]);
        }
    }
}

static SSL_CTX *tls_front_make_context(const char *directory, const char *version)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    int number = strcmp(version, "1.2") == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;

    ck_assert_int_eq(SSL_CTX_set_min_proto_version(context, number), 1);
    ck_assert_int_eq(SSL_CTX_set_max_proto_version(context, number), 1);
    ck_assert_int_eq(SSL_CTX_use_certificate_chain_file(context, format_text("%s/server.pem", directory)), 1);
    ck_assert_int_eq(SSL_CTX_use_PrivateKey_file(context, format_text("%s/server.key", directory), SSL_FILETYPE_PEM),
                     1);
    return context;
}

/* --- The test's side ------------------------------------------------------------------------------- */

const char *tls_front_wanted(void)
{
    const char *version = getenv("KVSTORED_TEST_TLS");

    return version != NULL && version[0] != '\0' ? version : NULL;
}

struct tls_front *tls_front_start(unsigned server_port, const char *version)
{
    struct tls_front *front = keep(calloc(1, sizeof(*front)));
    struct front *process = keep(calloc(1, sizeof(*process)));
    pid_t parent = getpid();

    test_run_make_directory(front->directory);
    certificate_make_all(front->directory);
    front->control = mmap(NULL, sizeof(*front->control), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(front->control, MAP_FAILED);
    tls_front_fall_silent_after(front, SIZE_MAX);
    *process = (struct front){.context = tls_front_make_context(front->directory, version),
                              .listener = port_listen(&front->port),
                              .server_port = server_port,
                              .control = front->control};
    front->pid = fork();
    ck_assert_int_ge(front->pid, 0);
    if (front->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            tls_front_serve(process);
        _exit(0);
    }
    close(process->listener);
    SSL_CTX_free(process->context);
    return front;
}

void tls_front_stop(struct tls_front *front)
{
    kill(front->pid, SIGKILL);
    waitpid(front->pid, NULL, 0);
    munmap(front->control, sizeof(*front->control));
}

const char *tls_front_authority(const struct tls_front *front)
{
    return format_text("%s/ca.pem", front->directory);
}

const char *tls_front_section(const struct tls_front *front)
{
    return format_text("  mode: external\n  servers: [nats://127.0.0.1:%u]\n  tls:\n    ca: %s\n", front->port,
                       tls_front_authority(front));
}

unsigned tls_front_port(const struct tls_front *front)
{
    return front->port;
}

static void tls_front_set_limit(struct tls_front *front, size_t bytes, bool ends)
{
    atomic_store(&front->control->ends, ends);
    atomic_store(&front->control->limit, bytes);
}

void tls_front_fall_silent_after(struct tls_front *front, size_t bytes)
{
    tls_front_set_limit(front, bytes, false);
}

void tls_front_end_after(struct tls_front *front, size_t bytes)
{
    tls_front_set_limit(front, bytes, true);
}

size_t tls_front_bytes(const struct tls_front *front)
{
    return atomic_load(&front->control->bytes);
}

unsigned tls_front_connections(const struct tls_front *front)
{
    return atomic_load(&front->control->connections);
}
