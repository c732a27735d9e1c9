#include "tests/support/http.h"

#include "tests/support/patience.h"
#include "tests/support/text.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int http_dial(int family, const void *address, socklen_t size)
{
    int made = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_ge(made, 0);
    if (connect(made, address, size) == 0)
        return made;
    close(made);
    return -1;
}

int http_connect(const char *address)
{
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    struct sockaddr_in ip = {.sin_family = AF_INET};
    char host[64];
    unsigned port;

    if (strncmp(address, "unix:", 5) == 0) {
        snprintf(path.sun_path, sizeof(path.sun_path), "%s", address + 5);
        return http_dial(AF_UNIX, &path, sizeof(path));
    }
    ck_assert_int_eq(sscanf(address, "%63[^:]:%u", host, &port), 2);
    ip.sin_port = htons((uint16_t)port);
    ck_assert_int_eq(inet_pton(AF_INET, host, &ip.sin_addr), 1);
    return http_dial(AF_INET, &ip, sizeof(ip));
}

void http_send(int socket, const char *text)
{
    size_t length = strlen(text), sent = 0;

    while (sent < length) {
        ssize_t some = send(socket, text + sent, length - sent, MSG_NOSIGNAL);
        if (some < 0)
            return; /* the peer has ended the connection */
        sent += (size_t)some;
    }
}

/* Wait until there is something to read, or the end. */
static void http_await(int socket)
{
    struct pollfd wanted = {.fd = socket, .events = POLLIN};

    ck_assert_msg(poll(&wanted, 1, (int)PATIENCE_MS) == 1, "timed out waiting for the end of a connection");
}

struct http_answer http_receive(int socket)
{
    struct http_answer answer = {0, "", ""};
    char *bytes = NULL;
    size_t size = 0;
    ssize_t some;

    do {
        char *larger = realloc(bytes, size + 65536 + 1);
        ck_assert_ptr_nonnull(larger);
        bytes = larger;
        http_await(socket);
        some = read(socket, bytes + size, 65536);
        size += some > 0 ? (size_t)some : 0;
    } while (some > 0);
    bytes[size] = '\0';
    keep(bytes);
    close(socket);
    char *end = strstr(bytes, "\r\n\r\n");
    if (end == NULL || sscanf(bytes, "HTTP/1.%*u %u", &answer.status) != 1)
        return answer;
    end[2] = '\0';
    answer.header = bytes;
    answer.body = end + 4;
    return answer;
}

void http_expect_end(int socket)
{
    char some[4096];

    do {
        http_await(socket);
    } while (read(socket, some, sizeof(some)) > 0);
    close(socket);
}

bool http_has_ended(int socket)
{
    char some_bytes[4096];
    ssize_t some;

    do {
        some = recv(socket, some_bytes, sizeof(some_bytes), MSG_DONTWAIT);
    } while (some > 0);
    return some == 0 || (some < 0 && errno != EAGAIN);
}

struct http_answer http_get(const char *address, const char *path, const char *header)
{
    int socket = http_connect(address);

    ck_assert_msg(socket >= 0, "nobody listens on %s", address);
    http_send(socket, format_text("GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", path, header));
    return http_receive(socket);
}
