/* Attacks with connections: at the daemon's socket, and at the port of the embedded nats-server. */
#include "tests/support/attack_runs.h"
#include "tests/support/flood.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 20000u
#define LOGINS_MAX      5000u
#define HALF_OPEN       200u
#define CONNECTS_PER_MS 8u

void attack_run_connections(struct attack *attack)
{
    double end_s = attack_now_s() + attack->seconds;

    for (unsigned made = 0; made < CONNECTIONS_MAX && attack_now_s() < end_s; made++) {
        int socket = flood_dial(attack->socket_path);
        if (socket >= 0)
            close(socket);
        if (socket < 0 || made % CONNECTS_PER_MS == 0)
            usleep(1000);
    }
}

static int dial_port(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval patience = {.tv_usec = 100000};
    int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(made, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (connect(made, (struct sockaddr *)&address, sizeof(address)) == 0)
        return made;
    close(made);
    return -1;
}

/* Send a password, and wait until the server has closed, or for a moment. */
static void log_in_wrongly(struct attack *attack, int socket)
{
    static const char login[] = "CONNECT {\"verbose\":false,\"user\":\"kvstored\",\"pass\":\"guessed\"}\r\nPING\r\n";
    char answer[4096];
    ssize_t received;

    send(socket, login, strlen(login), MSG_NOSIGNAL);
    while ((received = recv(socket, answer, sizeof(answer), 0)) > 0) {
        if (memmem(answer, (size_t)received, "PONG", 4) != NULL)
            attack_note_error(attack, "nats-server takes a wrong password");
    }
    close(socket);
}

void attack_run_wrong_logins(struct attack *attack)
{
    double end_s = attack_now_s() + attack->seconds;
    int half_open[HALF_OPEN];

    for (unsigned i = 0; i < HALF_OPEN; i++)
        half_open[i] = dial_port(attack->port);
    for (unsigned made = 0; made < LOGINS_MAX && attack_now_s() < end_s; made++) {
        int socket = dial_port(attack->port);
        if (socket >= 0)
            log_in_wrongly(attack, socket);
    }
    for (unsigned i = 0; i < HALF_OPEN; i++) {
        if (half_open[i] >= 0)
            close(half_open[i]);
    }
}
