#include "tests/bench/load.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define IN_BYTES    (256u * 1024u)
#define EVENTS      64
#define START_S     20.0
#define ANSWER_WAIT 30000 /* ms without any answer: something was lost */

struct connection {
    int fd;
    bool wants_write;
    size_t in_length;
    size_t out_begin, out_length;
    char *in;
    char *out;
};

struct run {
    const struct load *load;
    struct connection *connections;
    int epoll;
    uint32_t next;      /* number of the next request */
    uint64_t submitted; /* requests so far */
    uint64_t answered;
    bool is_over;
};

int load_connect_unix(const void *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        bench_die("cannot connect to %s: %s", (const char *)path, strerror(errno));
    return fd;
}

static void watch(const struct run *run, struct connection *connection, int operation)
{
    struct epoll_event event = {.events = EPOLLIN | (connection->wants_write ? (unsigned)EPOLLOUT : 0u),
                                .data.ptr = connection};

    if (epoll_ctl(run->epoll, operation, connection->fd, &event) != 0)
        bench_die("epoll: %s", strerror(errno));
}

static void submit(struct run *run, struct connection *connection)
{
    const struct load *load = run->load;

    if (run->is_over)
        return;
    char *at = connection->out + connection->out_begin + connection->out_length;
    connection->out_length += load->protocol->request(at, load->operation, load, run->next++);
    run->submitted++;
    if (load->has_total && run->submitted == load->total)
        run->is_over = true;
}

static void flush(struct run *run, struct connection *connection)
{
    bool wanted_write = connection->wants_write;

    connection->wants_write = false;
    while (connection->out_length > 0) {
        ssize_t sent = send(connection->fd, connection->out + connection->out_begin, connection->out_length,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            connection->wants_write = true;
            break;
        }
        if (sent < 0)
            bench_die("send: %s", strerror(errno));
        connection->out_begin += (size_t)sent;
        connection->out_length -= (size_t)sent;
    }
    if (connection->out_begin > 0 && connection->out_length > 0)
        memmove(connection->out, connection->out + connection->out_begin, connection->out_length);
    connection->out_begin = 0;
    if (wanted_write != connection->wants_write)
        watch(run, connection, EPOLL_CTL_MOD);
}

static void receive(struct run *run, struct connection *connection)
{
    const struct load *load = run->load;
    ssize_t received =
        recv(connection->fd, connection->in + connection->in_length, IN_BYTES - connection->in_length, MSG_DONTWAIT);
    size_t done = 0, size;

    if (received < 0 && errno == EAGAIN)
        return;
    if (received <= 0)
        bench_die("a connection was closed");
    connection->in_length += (size_t)received;
    while (done < connection->in_length) {
        bool is_answer = false;
        uint64_t revision = 0;
        size = load->protocol->take(connection->in + done, connection->in_length - done, load->operation, &is_answer,
                                    &revision);
        if (size == 0)
            break;
        done += size;
        if (!is_answer)
            continue;
        run->answered++;
        if (revision > 0 && load->buckets <= 1) /* each bucket counts for itself */
            bench_note_revision(revision);
        submit(run, connection);
    }
    if (done == 0 && connection->in_length == IN_BYTES)
        bench_die("an answer is too large");
    memmove(connection->in, connection->in + done, connection->in_length - done);
    connection->in_length -= done;
}

static void open_all(struct run *run)
{
    const struct load *load = run->load;

    run->epoll = epoll_create1(EPOLL_CLOEXEC);
    run->connections = calloc(load->connections, sizeof(*run->connections));
    for (unsigned i = 0; i < load->connections; i++) {
        struct connection *connection = &run->connections[i];
        connection->fd = load->protocol->connect(load->where);
        connection->in = malloc(IN_BYTES);
        connection->out = malloc((size_t)load->depth * LOAD_REQUEST_BYTES);
        if (connection->in == NULL || connection->out == NULL)
            bench_die("out of memory");
        watch(run, connection, EPOLL_CTL_ADD);
    }
}

static void close_all(struct run *run)
{
    for (unsigned i = 0; i < run->load->connections; i++) {
        close(run->connections[i].fd);
        free(run->connections[i].in);
        free(run->connections[i].out);
    }
    free(run->connections);
    close(run->epoll);
}

double load_run(const struct load *load, uint64_t *answered)
{
    struct epoll_event events[EVENTS];
    struct run run = {.load = load};
    uint64_t counted = 0;

    open_all(&run);
    double begin_s = bench_now_s(), now_s = begin_s;
    for (unsigned i = 0; i < load->connections; i++) {
        for (unsigned k = 0; k < load->depth; k++)
            submit(&run, &run.connections[i]);
        flush(&run, &run.connections[i]);
    }
    /* Answers in flight at the end are awaited, and counted only if a number of requests was given. */
    while (run.answered < run.submitted) {
        int count = epoll_wait(run.epoll, events, EVENTS, ANSWER_WAIT);
        if (count <= 0)
            bench_die("%llu requests were not answered", (unsigned long long)(run.submitted - run.answered));
        for (int i = 0; i < count; i++) {
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                receive(&run, events[i].data.ptr);
            flush(&run, events[i].data.ptr);
        }
        if (!run.is_over) {
            now_s = bench_now_s();
            run.is_over = !load->has_total && now_s - begin_s >= BENCH_ROUND_S;
            counted = run.answered;
        }
    }
    close_all(&run);
    if (load->has_total) {
        counted = run.answered;
        now_s = bench_now_s();
    }
    if (answered != NULL)
        *answered = run.answered;
    return (double)counted / (now_s - begin_s);
}

static void run_load(struct bench_client *client)
{
    client->result = load_run(client->context, NULL);
}

double load_per_s(const struct load *load)
{
    const struct bench_client client = {.context = (void *)load};

    return bench_alone(&client, run_load);
}

/* Of load_cost_us. */
struct cost {
    const struct load *load;
    pid_t daemon;
};

static void run_counted(struct bench_client *client)
{
    const struct cost *cost = client->context;
    uint64_t answered = 0;
    double before_us = bench_cpu_us(cost->daemon);

    load_run(cost->load, &answered);
    client->result = (bench_cpu_us(cost->daemon) - before_us) / (double)answered;
}

double load_cost_us(const struct load *load, pid_t daemon)
{
    struct cost cost = {load, daemon};
    const struct bench_client client = {.context = &cost};

    return bench_alone(&client, run_counted);
}

void load_fill(const struct load *load)
{
    struct load fill = *load;

    fill.operation = LOAD_PUT;
    fill.connections = 1;
    fill.depth = 256;
    fill.has_total = true;
    fill.total = load->keys;
    load_per_s(&fill);
}

/* Before NATS is connected the daemon answers 'unavailable'; before that nobody listens. */
static bool is_answered(const struct load *load)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    char bytes[LOAD_REQUEST_BYTES];
    bool is_well = false;

    strncpy(address.sun_path, load->where, sizeof(address.sun_path) - 1);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
        size_t length = load->protocol->request(bytes, LOAD_PUT, load, 0);
        if (send(fd, bytes, length, MSG_NOSIGNAL) == (ssize_t)length && recv(fd, bytes, sizeof(bytes), 0) > 0)
            /* "+OK", or [1, 0, nil, …] */
            is_well = memcmp(bytes, "+OK", 3) == 0 || memcmp(bytes, "\x94\x01\x00\xc0", 4) == 0;
    }
    close(fd);
    return is_well;
}

void load_await(const struct load *load)
{
    double give_up_s = bench_now_s() + START_S;

    while (!is_answered(load)) {
        if (bench_now_s() > give_up_s)
            bench_die("%s does not serve", (const char *)load->where);
        usleep(200);
    }
}

void load_open_idle(const struct load_protocol *protocol, const char *path, unsigned connections)
{
    const struct load load = {.prefix = "first", .keys = 1};
    char request[LOAD_REQUEST_BYTES], answer[4096];

    for (unsigned i = 0; i < connections; i++) {
        int fd = load_connect_unix(path);
        size_t length = protocol->request(request, LOAD_GET, &load, i);
        uint64_t revision;
        bool is_answer;
        if (send(fd, request, length, MSG_NOSIGNAL) != (ssize_t)length)
            bench_die("send: %s", strerror(errno));
        ssize_t received = recv(fd, answer, sizeof(answer), 0);
        if (received <= 0 || protocol->take(answer, (size_t)received, LOAD_GET, &is_answer, &revision) == 0)
            bench_die("an idle client was not answered");
    }
}
