#include "tests/support/ports.h"

#include <arpa/inet.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void port_require(int result, const char *what)
{
    if (result >= 0)
        return;
    perror(what);
    abort();
}

/* Return a socket that is bound to a free port. */
static int port_bind(unsigned *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int bound = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    port_require(bound, "socket");
    port_require(bind(bound, (struct sockaddr *)&address, size), "bind");
    port_require(getsockname(bound, (struct sockaddr *)&address, &size), "getsockname");
    *port = ntohs(address.sin_port);
    return bound;
}

/*
 * The port is reserved by a bound socket that does not listen and stays open until this process ends. Without
 * SO_REUSEADDR the kernel gives the port to nobody else: neither to another test, nor to a program of another checkout,
 * nor to an outgoing connection. With it, set afterwards, the kernel lets one more socket that has it bind and listen,
 * as nats-server's does, again and again.
 */
unsigned port_reserve(void)
{
    unsigned port;
    int reserved = port_bind(&port);

    port_require(setsockopt(reserved, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)), "setsockopt");
    return port;
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
    int listener = port_bind(port);

    port_require(listen(listener, 64), "listen");
    return listener;
}

unsigned port_of_embedded_server(const char *data_dir)
{
    static const char address[] = "nats://127.0.0.1:";
    char path[PATH_MAX], text[512] = "";
    int pid = 0;

    snprintf(path, sizeof(path), "%s/nats-server.pid", data_dir);
    FILE *file = fopen(path, "r");
    if (file != NULL && fscanf(file, "%d", &pid) != 1) // NOLINT(cert-err34-c)
        pid = 0;
    if (file != NULL)
        fclose(file);
    snprintf(path, sizeof(path), "%s/ports/nats-server_%d.ports", data_dir, pid);
    file = fopen(path, "r");
    if (file != NULL) {
        text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
        fclose(file);
    }
    const char *url = strstr(text, address);
    return url != NULL ? (unsigned)strtoul(url + strlen(address), NULL, 10) : 0;
}
