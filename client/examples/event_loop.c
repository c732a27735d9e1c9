/*
 * A program with an event loop of its own, here epoll with a timer. Two functions connect kvstored to it: plug_before
 * tells the loop what to wait for, and plug_after lets the library work. Any other loop works the same way; for libuv
 * there is an adapter: see libuv.c.
 * Every 100 ms the program writes a tick and reads it back; after ten ticks it ends. Before: kvctl add demo
 */
#include <kvstore_async.h>

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define TICKS 10

struct program {
    int epoll;
    int timer;
    struct kvs *kvs;
    uint64_t plugged_connection; /* what epoll knows of the library: the connection, */
    short plugged_events;        /* and the events that it waits for, as bits of poll(2) */
    unsigned ticks;
    unsigned answers;
};

/* --- The plug -------------------------------------------------------------------------------- */

/* Tell epoll what the library waits for, if that has changed. Returns the longest wait in milliseconds. */
static int plug_before(struct program *program)
{
    int fd = kvs_fd(program->kvs);
    short events = kvs_events(program->kvs);

    /* A closed socket leaves epoll by itself, and the next one may have the same number. */
    bool is_new = kvs_connection_count(program->kvs) != program->plugged_connection;
    if (fd >= 0 && (is_new || events != program->plugged_events)) {
        struct epoll_event wanted = {.data.fd = fd};
        if ((events & POLLIN) != 0)
            wanted.events |= EPOLLIN;
        if ((events & POLLOUT) != 0)
            wanted.events |= EPOLLOUT;
        epoll_ctl(program->epoll, is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &wanted);
        program->plugged_connection = kvs_connection_count(program->kvs);
        program->plugged_events = events;
    }
    return kvs_timeout_ms(program->kvs);
}

static void plug_after(struct program *program)
{
    /* The result is not needed: the callbacks of the calls get their errors. */
    kvs_process(program->kvs);
}

/* --- What the program does --------------------------------------------------------------------- */

static void on_get(struct kvs *kvs, const struct kvs_error *error, const struct kvs_entry *entry, void *context)
{
    struct program *program = context;

    (void)kvs;
    program->answers++;
    if (error != NULL) {
        fprintf(stderr, "%s\n", error->message);
        return;
    }
    if (entry != NULL) /* otherwise the key does not exist */
        printf("%s is %s (revision %" PRIu64 ")\n", entry->key, entry->value, entry->revision);
}

/* The key is written: read it back. */
static void on_put(struct kvs *kvs, const struct kvs_error *error, uint64_t revision, void *context)
{
    (void)revision;
    if (error != NULL)
        on_get(kvs, error, NULL, context);
    else if (kvs_async_get(kvs, "demo", "tick", NULL, on_get, context) != KVS_OK)
        on_get(kvs, kvs_last_error(kvs), NULL, context);
}

static void on_timer(struct program *program)
{
    uint64_t expirations;
    char text[16];

    if (read(program->timer, &expirations, sizeof(expirations)) < 0 || program->ticks == TICKS)
        return;
    int length = snprintf(text, sizeof(text), "%u", ++program->ticks);
    if (kvs_async_put(program->kvs, "demo", "tick", text, (size_t)length, NULL, on_put, program) != KVS_OK)
        on_get(program->kvs, kvs_last_error(program->kvs), NULL, program);
}

static void run_loop(struct program *program)
{
    while (program->answers < TICKS) {
        struct epoll_event happened[4];
        int timeout_ms = plug_before(program);
        int count = epoll_wait(program->epoll, happened, 4, timeout_ms);
        for (int i = 0; i < count; i++) {
            if (happened[i].data.fd == program->timer)
                on_timer(program);
        }
        plug_after(program);
    }
}

int main(void)
{
    struct program program = {.epoll = epoll_create1(EPOLL_CLOEXEC),
                              .timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)};
    struct itimerspec every = {.it_value.tv_nsec = 100000000, .it_interval.tv_nsec = 100000000};
    struct epoll_event timer_wanted = {.events = EPOLLIN, .data.fd = program.timer};
    struct kvs_options options = KVS_OPTIONS(.reconnect = true);
    struct kvs_error error;

    if (program.epoll < 0 || program.timer < 0 || timerfd_settime(program.timer, 0, &every, NULL) != 0 ||
        epoll_ctl(program.epoll, EPOLL_CTL_ADD, program.timer, &timer_wanted) != 0) {
        perror("event_loop");
        return 1;
    }
    program.kvs = kvs_connect(NULL, &options, &error);
    if (program.kvs == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    run_loop(&program);
    kvs_close(program.kvs);
    close(program.timer);
    close(program.epoll);
    return 0;
}
