#include "tests/support/ports.h"

#include <arpa/inet.h>
#include <check.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * The port is reserved by a bound socket that does not listen and stays open until this process ends. Without
 * SO_REUSEADDR the kernel gives the port to nobody else: neither to another test, nor to a program of another checkout,
 * nor to an outgoing connection. With it, set afterwards, it lets one more socket that has it bind and listen, as
 * nats-server's does, again and again.
 */
unsigned port_reserve(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int reserved = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_ge(reserved, 0);
    ck_assert_int_eq(bind(reserved, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(getsockname(reserved, (struct sockaddr *)&address, &length), 0);
    ck_assert_int_eq(setsockopt(reserved, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)), 0);
    return ntohs(address.sin_port);
}

int port_dial(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(made, (struct sockaddr *)&address, sizeof(address)) == 0)
        return made;
    close(made);
    return -1;
}

int port_listen(unsigned *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, size), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    ck_assert_int_eq(listen(listener, 64), 0);
    *port = ntohs(address.sin_port);
    return listener;
}
