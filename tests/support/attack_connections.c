/* Attacks with connections: at the daemon's socket, and at the port of the embedded nats-server. */
#include "tests/support/attack_runs.h"
#include "tests/support/flood.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 20000u
#define CONNECTS_PER_MS 8u

#define HALF_OPEN         10000u
#define CONNECTS_PER_TURN 64u
#define LOGINS_PER_S      4000u
#define LOGINS_AT_ONCE    512u
#define EVENTS            256
#define OTHER_DESCRIPTORS 256u

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

/* --- Strangers at the port of nats-server ------------------------------------------------------------ */

/* Connections to the port. */
struct strangers {
    unsigned port;
    int poll;
    unsigned open, most, made; /* now, at once so far, in all */
    int sockets[HALF_OPEN];
    unsigned free[HALF_OPEN]; /* places in sockets; the first HALF_OPEN - open are valid */
};

static bool raise_descriptor_limit(unsigned count)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_max < count)
        return false;
    files.rlim_cur = files.rlim_cur < count ? count : files.rlim_cur;
    return setrlimit(RLIMIT_NOFILE, &files) == 0;
}

const char *attack_why_no_half_open(void)
{
    static const char why[] = "the limit of open files is too low for 10,000 connections";

    return raise_descriptor_limit(HALF_OPEN + OTHER_DESCRIPTORS) ? NULL : why;
}

static struct strangers *strangers_begin(const struct attack *attack)
{
    struct strangers *strangers = calloc(1, sizeof(*strangers));

    if (strangers == NULL || (strangers->poll = epoll_create1(EPOLL_CLOEXEC)) < 0)
        abort();
    strangers->port = attack->port;
    for (unsigned i = 0; i < HALF_OPEN; i++) {
        strangers->sockets[i] = -1;
        strangers->free[i] = i;
    }
    return strangers;
}

/* A program that starts in another thread holds a copy of each socket for a moment: closing does not end its events. */
static void strangers_close(struct strangers *strangers, unsigned place)
{
    epoll_ctl(strangers->poll, EPOLL_CTL_DEL, strangers->sockets[place], NULL);
    close(strangers->sockets[place]);
    strangers->sockets[place] = -1;
    strangers->free[HALF_OPEN - strangers->open--] = place;
}

static void strangers_end(struct strangers *strangers)
{
    for (unsigned i = 0; i < HALF_OPEN; i++) {
        if (strangers->sockets[i] >= 0)
            strangers_close(strangers, i);
    }
    close(strangers->poll);
    free(strangers);
}

/* Begin to connect, and wait for the events. Return false if that is not possible now. */
static bool strangers_add(struct strangers *strangers, uint32_t events)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)strangers->port)};
    unsigned place = strangers->free[HALF_OPEN - strangers->open - 1];
    struct epoll_event event = {.events = events, .data.u32 = place};
    int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (made < 0)
        return false;
    if (connect(made, (struct sockaddr *)&address, sizeof(address)) != 0 && errno != EINPROGRESS) {
        close(made);
        return false;
    }
    strangers->sockets[place] = made;
    epoll_ctl(strangers->poll, EPOLL_CTL_ADD, made, &event);
    strangers->made++;
    strangers->open++;
    strangers->most = strangers->open > strangers->most ? strangers->open : strangers->most;
    return true;
}

/* The server ends each after a time, and refuses more than its max_connections: they come again at once. */
void attack_run_half_open(struct attack *attack)
{
    struct epoll_event events[EVENTS];
    struct strangers *strangers = strangers_begin(attack);
    double end_s = attack_now_s() + attack->seconds;

    while (attack_now_s() < end_s) {
        bool is_taken = true;
        for (unsigned i = 0; i < CONNECTS_PER_TURN && strangers->open < HALF_OPEN && is_taken; i++)
            is_taken = strangers_add(strangers, EPOLLRDHUP);
        int count = epoll_wait(strangers->poll, events, EVENTS, strangers->open < HALF_OPEN && is_taken ? 0 : 1);
        for (int i = 0; i < count; i++)
            strangers_close(strangers, events[i].data.u32);
    }
    if (strangers->most == 0)
        attack_note_error(attack, "no connection to nats-server");
    snprintf(attack->done, sizeof(attack->done), "%u connections, %u at once", strangers->made, strangers->most);
    strangers_end(strangers);
}

/* Send the password once the server takes the connection. Return whether the server has closed it. */
static bool log_in(struct attack *attack, struct strangers *strangers, const struct epoll_event *event)
{
    static const char login[] = "CONNECT {\"verbose\":false,\"user\":\"kvstored\",\"pass\":\"guessed\"}\r\nPING\r\n";
    int socket = strangers->sockets[event->data.u32];
    struct epoll_event next = {.events = EPOLLIN | EPOLLRDHUP, .data = event->data};
    char answer[4096];
    ssize_t received;

    if (event->events & EPOLLOUT) {
        send(socket, login, strlen(login), MSG_NOSIGNAL);
        epoll_ctl(strangers->poll, EPOLL_CTL_MOD, socket, &next);
    }
    while ((received = recv(socket, answer, sizeof(answer), MSG_DONTWAIT)) > 0) {
        if (memmem(answer, (size_t)received, "PONG", 4) != NULL)
            attack_note_error(attack, "nats-server takes a wrong password");
    }
    return received == 0 || errno != EAGAIN;
}

void attack_run_wrong_logins(struct attack *attack)
{
    struct epoll_event events[EVENTS];
    struct strangers *strangers = strangers_begin(attack);
    double begin_s = attack_now_s(), passed_s;
    unsigned refused = 0;

    while ((passed_s = attack_now_s() - begin_s) < attack->seconds) {
        bool is_taken = true;
        while (strangers->made < passed_s * LOGINS_PER_S && strangers->open < LOGINS_AT_ONCE && is_taken)
            is_taken = strangers_add(strangers, EPOLLOUT);
        int count = epoll_wait(strangers->poll, events, EVENTS, 1);
        for (int i = 0; i < count; i++) {
            if (!log_in(attack, strangers, &events[i]))
                continue;
            strangers_close(strangers, events[i].data.u32);
            refused++;
        }
    }
    if (refused == 0)
        attack_note_error(attack, "no login was refused");
    snprintf(attack->done, sizeof(attack->done), "%.0f wrong logins a second", refused / passed_s);
    strangers_end(strangers);
}
