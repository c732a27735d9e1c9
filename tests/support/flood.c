#include "tests/support/flood.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define WRITE_BYTES (1024u * 1024u)
#define READ_BYTES  (256u * 1024u)
#define LOOK_BYTES  1024 /* of what is read at a time, for errors */

void attack_note_error(struct attack *attack, const char *what)
{
    if (attack->error[0] == '\0')
        snprintf(attack->error, sizeof(attack->error), "%s", what);
}

double attack_now_s(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* --- Calls as bytes -------------------------------------------------------------------------------- */

void calls_begin(struct calls *calls)
{
    msgpack_sbuffer_init(&calls->buffer);
    msgpack_packer_init(&calls->packer, &calls->buffer, msgpack_sbuffer_write);
    calls->count = 0;
}

void calls_add_text(struct calls *calls, const char *text)
{
    msgpack_pack_str_with_body(&calls->packer, text, strlen(text));
}

void calls_add_zeros(struct calls *calls, size_t size)
{
    char *zeros = calloc(1, size);

    if (zeros == NULL)
        abort();
    msgpack_pack_bin_with_body(&calls->packer, zeros, size);
    free(zeros);
}

void calls_add(struct calls *calls, const char *method, unsigned param_count, const char *first)
{
    msgpack_pack_array(&calls->packer, 4);
    msgpack_pack_int(&calls->packer, 0);
    msgpack_pack_uint32(&calls->packer, calls->count++);
    calls_add_text(calls, method);
    msgpack_pack_array(&calls->packer, param_count);
    calls_add_text(calls, first);
}

void calls_add_cached(struct calls *calls)
{
    msgpack_pack_map(&calls->packer, 1);
    calls_add_text(calls, "consistency");
    calls_add_text(calls, "cached");
}

const char *calls_numbered(char name[64], const char *prefix, unsigned number)
{
    snprintf(name, 64, "%s%u", prefix, number);
    return name;
}

/* --- Floods ---------------------------------------------------------------------------------------- */

struct flood {
    struct attack *attack;
    const struct calls *calls;
    enum flood_manner manner;
    struct pollfd sockets[FLOOD_SESSIONS_MAX];
    size_t sent[FLOOD_SESSIONS_MAX];
};

int flood_dial(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (connect(made, (struct sockaddr *)&address, sizeof(address)) == 0)
        return made;
    close(made);
    return -1;
}

static void reopen(struct flood *flood, unsigned i)
{
    if (flood->sockets[i].fd >= 0)
        close(flood->sockets[i].fd);
    flood->sockets[i].fd = flood_dial(flood->attack->socket_path);
    flood->sockets[i].events = (short)(POLLOUT | (flood->manner == FLOOD_IGNORE ? 0 : POLLIN));
    flood->sent[i] = 0;
}

static void on_writable(struct flood *flood, unsigned i)
{
    const msgpack_sbuffer *bytes = &flood->calls->buffer;
    size_t left = bytes->size - flood->sent[i];
    ssize_t sent = send(flood->sockets[i].fd, bytes->data + flood->sent[i], left < WRITE_BYTES ? left : WRITE_BYTES,
                        MSG_DONTWAIT | MSG_NOSIGNAL);

    if (sent < 0 && errno != EAGAIN) {
        reopen(flood, i);
        return;
    }
    flood->sent[i] += sent > 0 ? (size_t)sent : 0;
    if (flood->sent[i] < bytes->size)
        return;
    flood->sockets[i].events = flood->manner == FLOOD_IGNORE ? 0 : POLLIN;
    if (flood->manner == FLOOD_LEAVE)
        reopen(flood, i);
    else if (flood->manner == FLOOD_REPEAT)
        shutdown(flood->sockets[i].fd, SHUT_WR); /* the daemon closes after the last answer */
}

/* Calls that the daemon refuses as invalid are no attack. */
static void on_readable(struct flood *flood, unsigned i)
{
    static char bytes[READ_BYTES];
    static const char wrong[] = "invalid_argument";
    ssize_t received = recv(flood->sockets[i].fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (received == 0 || (received < 0 && errno != EAGAIN))
        reopen(flood, i);
    else if (received > 0 && memmem(bytes, received < LOOK_BYTES ? (size_t)received : LOOK_BYTES, wrong, strlen(wrong)))
        attack_note_error(flood->attack, "the daemon answers the attack's calls with invalid_argument");
}

void flood_run(struct attack *attack, unsigned sessions, enum flood_manner manner, struct calls *calls)
{
    struct flood flood = {.attack = attack, .calls = calls, .manner = manner};
    double end_s = attack_now_s() + attack->seconds;

    for (unsigned i = 0; i < sessions; i++) {
        flood.sockets[i].fd = -1;
        reopen(&flood, i);
    }
    while (attack_now_s() < end_s) {
        if (poll(flood.sockets, sessions, 20) < 0 && errno != EINTR)
            break;
        for (unsigned i = 0; i < sessions; i++) {
            short events = flood.sockets[i].revents;
            if (flood.sockets[i].fd < 0 || (manner == FLOOD_IGNORE && (events & (POLLHUP | POLLERR)) != 0)) {
                reopen(&flood, i);
                continue;
            }
            if (events & POLLOUT)
                on_writable(&flood, i);
            if (events & (POLLIN | POLLHUP | POLLERR))
                on_readable(&flood, i);
        }
    }
    for (unsigned i = 0; i < sessions; i++) {
        if (flood.sockets[i].fd >= 0)
            close(flood.sockets[i].fd);
    }
    msgpack_sbuffer_destroy(&calls->buffer);
}
