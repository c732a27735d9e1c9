#include "tests/fault/proxy.h"

#include "tests/support/process.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAIRS_MAX     16
#define FAULTS        2 /* that are armed at a time */
#define READ_BYTES    65536u
#define SUBJECT_BYTES 256u
#define LINE_BYTES    8192u /* of a line that the proxy reads; publishes and messages have no longer ones */

/* The beginning of a heartbeat's headers. */
#define HEARTBEAT "NATS/1.0 100"

/* One direction of a connection. */
struct stream {
    int from, to;
    char *bytes;
    size_t size, room;
    bool has_ended;
};

struct pair {
    bool is_open;
    struct stream up, down; /* to the server, to the daemon */
    struct stream late;     /* to the daemon: acks that were delayed */
};

struct armed {
    struct proxy_fault fault;
    unsigned strikes, publishes;
    /* Reply subjects of the publishes whose acks the fault waits for. */
    char (*replies)[SUBJECT_BYTES];
    size_t reply_count, reply_room;
};

struct proxy {
    pthread_t thread;
    pthread_mutex_t lock; /* of all that follows */
    int listener, wake;
    unsigned port;
    unsigned servers[PROXY_SERVERS_MAX];
    unsigned server_count, preferred, latest_port;
    struct pair pairs[PAIRS_MAX];
    struct armed armed[FAULTS];
    bool is_holding, delivery_wanted, cut_wanted, stop_wanted;
};

/* --- Messages -------------------------------------------------------------------------------------- */

struct frame {
    size_t size; /* with its payload and line ends */
    bool is_publish, is_delivery, is_heartbeat;
    char subject[SUBJECT_BYTES];
    char reply[SUBJECT_BYTES]; /* "": none */
    char sid[32];              /* of a delivery: the subscription's number */
};

/* Return whether a subject matches a pattern with * and >. */
static bool proxy_subject_matches(const char *pattern, const char *subject)
{
    for (;;) {
        if (strcmp(pattern, ">") == 0)
            return *subject != '\0';
        size_t wanted = strcspn(pattern, "."), found = strcspn(subject, ".");
        bool is_star = wanted == 1 && pattern[0] == '*';
        if (!is_star && (wanted != found || memcmp(pattern, subject, wanted) != 0))
            return false;
        pattern += wanted;
        subject += found;
        if (*pattern == '\0' || *subject == '\0')
            return *pattern == *subject;
        pattern++;
        subject++;
    }
}

/* Parse a message's line: PUB subject [reply] size, HPUB subject [reply] headers size, MSG subject sid … */
static void proxy_read_line(struct frame *frame, char *line)
{
    char *words[8], *rest = NULL;
    unsigned count = 0;

    for (char *word = strtok_r(line, " \t", &rest); word != NULL && count < 8; word = strtok_r(NULL, " \t", &rest))
        words[count++] = word;
    if (count == 0)
        return;
    bool has_headers = words[0][0] == 'H' || words[0][0] == 'h';
    const char *verb = words[0] + has_headers;
    frame->is_publish = strcasecmp(verb, "PUB") == 0;
    frame->is_delivery = strcasecmp(verb, "MSG") == 0;
    unsigned least = 3u + has_headers + frame->is_delivery;
    if ((!frame->is_publish && !frame->is_delivery) || count < least)
        return;
    frame->size += strtoul(words[count - 1], NULL, 10) + 2;
    snprintf(frame->subject, sizeof(frame->subject), "%s", words[1]);
    if (count > least)
        snprintf(frame->reply, sizeof(frame->reply), "%s", words[2 + frame->is_delivery]);
    if (frame->is_delivery)
        snprintf(frame->sid, sizeof(frame->sid), "%s", words[2]);
}

/* Find the first message of what has come. Return false if it is not whole yet. */
static bool proxy_next_frame(const struct stream *stream, struct frame *frame)
{
    char line[LINE_BYTES];
    const char *end = stream->size > 0 ? memmem(stream->bytes, stream->size, "\r\n", 2) : NULL;

    if (end == NULL)
        return false;
    size_t length = (size_t)(end - stream->bytes);
    memset(frame, 0, sizeof(*frame));
    frame->size = length + 2;
    if (length < sizeof(line)) {
        memcpy(line, stream->bytes, length);
        line[length] = '\0';
        proxy_read_line(frame, line);
    }
    if (frame->size > stream->size)
        return false;
    frame->is_heartbeat = frame->is_delivery && frame->size > length + 2 + sizeof(HEARTBEAT) &&
                          memcmp(end + 2, HEARTBEAT, sizeof(HEARTBEAT) - 1) == 0;
    return true;
}

/* --- Passing on ------------------------------------------------------------------------------------ */

static void proxy_drop_bytes(struct stream *stream, size_t size)
{
    stream->size -= size;
    if (stream->size > 0)
        memmove(stream->bytes, stream->bytes + size, stream->size);
}

static void proxy_pass(struct stream *stream, size_t size)
{
    size_t done = 0;

    if (size == 0)
        return;
    while (done < size) {
        ssize_t written = send(stream->to, stream->bytes + done, size - done, MSG_NOSIGNAL);
        if (written <= 0) {
            stream->has_ended = true;
            break;
        }
        done += (size_t)written;
    }
    proxy_drop_bytes(stream, size);
}

static void proxy_close_pair(struct pair *pair)
{
    close(pair->up.from);
    close(pair->down.from);
    free(pair->up.bytes);
    free(pair->down.bytes);
    free(pair->late.bytes);
    memset(pair, 0, sizeof(*pair));
}

/* --- Faults ---------------------------------------------------------------------------------------- */

static bool proxy_is_of_ack(enum proxy_fault_kind kind)
{
    return kind == PROXY_DROP_ACK || kind == PROXY_CUT_BEFORE_ACK || kind == PROXY_CUT_AFTER_ACK ||
           kind == PROXY_HOLD_BEFORE_ACK || kind == PROXY_DELAY_ACK || kind == PROXY_REPLACE_ACK ||
           kind == PROXY_NO_RESPONDERS;
}

static bool proxy_is_of_delivery(enum proxy_fault_kind kind)
{
    return kind == PROXY_DROP_DELIVERY || kind == PROXY_CUT_BEFORE_DELIVERY || kind == PROXY_DROP_HEARTBEAT;
}

static void proxy_add_reply(struct armed *armed, const char *subject)
{
    if (armed->reply_count == armed->reply_room) {
        armed->reply_room = armed->reply_room * 2 + 64;
        armed->replies = realloc(armed->replies, armed->reply_room * SUBJECT_BYTES);
        if (armed->replies == NULL)
            abort();
    }
    strcpy(armed->replies[armed->reply_count++], subject);
}

static bool proxy_take_reply(struct armed *armed, const char *subject)
{
    for (size_t i = 0; i < armed->reply_count; i++) {
        if (strcmp(armed->replies[i], subject) != 0)
            continue;
        armed->reply_count--;
        memmove(armed->replies[i], armed->replies[i + 1], (armed->reply_count - i) * SUBJECT_BYTES);
        return true;
    }
    return false;
}

/* Return whether the fault strikes at this message. Mark the reply subject of a publish whose ack it waits for. */
static bool proxy_fault_strikes(struct armed *armed, const struct frame *frame)
{
    struct proxy_fault *fault = &armed->fault;

    if (fault->kind == PROXY_NO_FAULT)
        return false;
    if (proxy_is_of_delivery(fault->kind)) {
        bool matches = fault->kind == PROXY_DROP_HEARTBEAT
                           ? frame->is_heartbeat
                           : frame->is_delivery && proxy_subject_matches(fault->subject, frame->subject) &&
                                 (fault->reply == NULL || proxy_subject_matches(fault->reply, frame->reply));
        return matches && ++armed->publishes > fault->skip && armed->strikes < fault->count;
    }
    if (frame->is_delivery)
        return proxy_is_of_ack(fault->kind) && armed->strikes < fault->count && proxy_take_reply(armed, frame->subject);
    if (!frame->is_publish || !proxy_subject_matches(fault->subject, frame->subject) ||
        (fault->but != NULL && strcmp(fault->but, frame->subject) == 0))
        return false;
    bool is_due = ++armed->publishes > fault->skip;
    if (!proxy_is_of_ack(fault->kind))
        return is_due && armed->strikes < fault->count;
    if (is_due && frame->reply[0] != '\0')
        proxy_add_reply(armed, frame->reply);
    return false;
}

/* Append bytes to a stream. */
static void proxy_append(struct stream *stream, const char *bytes, size_t size)
{
    if (stream->room - stream->size < size) {
        stream->room = stream->room * 2 + size;
        stream->bytes = realloc(stream->bytes, stream->room);
        if (stream->bytes == NULL)
            abort();
    }
    memcpy(stream->bytes + stream->size, bytes, size);
    stream->size += size;
}

/* If there are headers, the payload is their block and nothing else. */
static void proxy_pass_instead(const struct pair *pair, const struct frame *ack, bool has_headers, const char *payload)
{
    struct stream stream = {.to = pair->down.to};
    char line[2 * SUBJECT_BYTES];
    size_t size = strlen(payload);
    int length = has_headers
                     ? snprintf(line, sizeof(line), "HMSG %s %s %zu %zu\r\n", ack->subject, ack->sid, size, size)
                     : snprintf(line, sizeof(line), "MSG %s %s %zu\r\n", ack->subject, ack->sid, size);

    proxy_append(&stream, line, (size_t)length);
    proxy_append(&stream, payload, size);
    proxy_append(&stream, "\r\n", 2);
    proxy_pass(&stream, stream.size);
    free(stream.bytes);
}

/* Do to a message what the fault says. Return false if the pair has ended. */
static bool proxy_apply_fault(struct proxy *proxy, struct armed *armed, struct pair *pair, struct stream *stream,
                              const struct frame *frame)
{
    const struct proxy_fault *fault = &armed->fault;
    size_t size = frame->size;

    armed->strikes++;
    if (fault->then_hold && armed->strikes == fault->count)
        proxy->is_holding = true;
    switch (fault->kind) {
    case PROXY_DROP_PUBLISH:
    case PROXY_DROP_ACK:
    case PROXY_DROP_DELIVERY:
    case PROXY_DROP_HEARTBEAT:
        proxy_drop_bytes(stream, size);
        return true;
    case PROXY_DELAY_ACK:
        proxy_append(&pair->late, stream->bytes, size);
        proxy_drop_bytes(stream, size);
        return true;
    case PROXY_REPLACE_ACK:
        proxy_pass_instead(pair, frame, false, fault->text);
        proxy_drop_bytes(stream, size);
        return true;
    case PROXY_NO_RESPONDERS:
        proxy_pass_instead(pair, frame, true, "NATS/1.0 503\r\n\r\n");
        proxy_drop_bytes(stream, size);
        return true;
    case PROXY_CUT_AFTER_PUBLISH:
    case PROXY_CUT_AFTER_ACK:
        proxy_pass(stream, size);
        proxy_close_pair(pair);
        return false;
    case PROXY_CUT_BEFORE_PUBLISH:
    case PROXY_CUT_BEFORE_ACK:
    case PROXY_CUT_BEFORE_DELIVERY:
        proxy_close_pair(pair);
        return false;
    case PROXY_HOLD_AFTER_PUBLISH:
        proxy_pass(stream, size);
        proxy->is_holding = true;
        return true;
    case PROXY_HOLD_BEFORE_PUBLISH:
    case PROXY_HOLD_BEFORE_ACK:
        proxy->is_holding = true;
        return true;
    case PROXY_NO_FAULT:
        break;
    }
    return true;
}

/* Show each fault the message, and return the one that strikes, or NULL. */
static struct armed *proxy_find_striking(struct proxy *proxy, const struct frame *frame)
{
    struct armed *found = NULL;

    for (unsigned i = 0; i < FAULTS; i++) {
        if (proxy_fault_strikes(&proxy->armed[i], frame) && found == NULL)
            found = &proxy->armed[i];
    }
    return found;
}

/* Pass on what is whole. Return false if the pair has ended. */
static bool proxy_work_off(struct proxy *proxy, struct pair *pair, struct stream *stream)
{
    struct frame frame;
    size_t ready = 0;

    /* Messages that no fault strikes are sent together. */
    while (!proxy->is_holding && stream->size > ready) {
        struct stream rest = {.bytes = stream->bytes + ready, .size = stream->size - ready};
        if (!proxy_next_frame(&rest, &frame))
            break;
        struct armed *armed = proxy_find_striking(proxy, &frame);
        if (armed == NULL) {
            ready += frame.size;
            continue;
        }
        proxy_pass(stream, ready);
        ready = 0;
        if (!proxy_apply_fault(proxy, armed, pair, stream, &frame))
            return false;
    }
    proxy_pass(stream, ready);
    if (stream->has_ended && !proxy->is_holding) {
        proxy_close_pair(pair);
        return false;
    }
    return true;
}

/* --- The loop -------------------------------------------------------------------------------------- */

static void proxy_take_bytes(struct stream *stream)
{
    if (stream->room - stream->size < READ_BYTES) {
        stream->room = stream->room * 2 + READ_BYTES;
        stream->bytes = realloc(stream->bytes, stream->room);
        if (stream->bytes == NULL)
            abort();
    }
    ssize_t received = recv(stream->from, stream->bytes + stream->size, READ_BYTES, MSG_DONTWAIT);
    if (received > 0)
        stream->size += (size_t)received;
    else if (received == 0 || errno != EAGAIN)
        stream->has_ended = true;
}

static void proxy_begin_pair(struct proxy *proxy)
{
    int daemon = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC), server = -1, on = 1;
    struct pair *pair = NULL;
    unsigned port = 0;

    if (daemon < 0)
        return;
    for (unsigned i = 0; i < proxy->server_count && server < 0; i++)
        server = port_dial(port = proxy->servers[(proxy->preferred + i) % proxy->server_count]);
    for (unsigned i = 0; i < PAIRS_MAX && pair == NULL; i++)
        pair = proxy->pairs[i].is_open ? NULL : &proxy->pairs[i];
    if (server < 0 || pair == NULL) {
        close(daemon);
        if (server >= 0)
            close(server);
        return;
    }
    setsockopt(daemon, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    proxy->latest_port = port;
    *pair = (struct pair){.is_open = true,
                          .up = {.from = daemon, .to = server},
                          .down = {.from = server, .to = daemon},
                          .late = {.to = daemon}};
}

static void proxy_work_pairs(struct proxy *proxy)
{
    for (unsigned i = 0; i < PAIRS_MAX; i++) {
        struct pair *pair = &proxy->pairs[i];
        if (pair->is_open && proxy->delivery_wanted)
            proxy_pass(&pair->late, pair->late.size);
        if (pair->is_open && proxy->cut_wanted)
            proxy_close_pair(pair);
        else if (pair->is_open && proxy_work_off(proxy, pair, &pair->up))
            proxy_work_off(proxy, pair, &pair->down);
    }
    if (proxy->cut_wanted)
        proxy->latest_port = 0;
    proxy->cut_wanted = false;
    proxy->delivery_wanted = false;
}

/* Wait for events. A descriptor belongs to the stream of the same index. */
static void proxy_poll_all(struct proxy *proxy)
{
    struct pollfd polled[2 + 2 * PAIRS_MAX];
    struct stream *streams[2 + 2 * PAIRS_MAX];
    nfds_t count = 2;
    uint64_t rung;

    polled[0] = (struct pollfd){.fd = proxy->wake, .events = POLLIN};
    polled[1] = (struct pollfd){.fd = proxy->listener, .events = proxy->is_holding ? 0 : POLLIN};
    for (unsigned i = 0; i < PAIRS_MAX && !proxy->is_holding; i++) {
        struct pair *pair = &proxy->pairs[i];
        if (!pair->is_open)
            continue;
        streams[count] = &pair->up;
        polled[count++] = (struct pollfd){.fd = pair->up.from, .events = POLLIN};
        streams[count] = &pair->down;
        polled[count++] = (struct pollfd){.fd = pair->down.from, .events = POLLIN};
    }
    pthread_mutex_unlock(&proxy->lock);
    poll(polled, count, -1);
    pthread_mutex_lock(&proxy->lock);
    if (polled[0].revents != 0 && read(proxy->wake, &rung, sizeof(rung)) < 0)
        abort();
    for (nfds_t i = 2; i < count; i++) {
        if (polled[i].revents != 0)
            proxy_take_bytes(streams[i]);
    }
    if (polled[1].revents != 0)
        proxy_begin_pair(proxy);
}

static void *proxy_run(void *arg)
{
    struct proxy *proxy = arg;

    pthread_mutex_lock(&proxy->lock);
    while (!proxy->stop_wanted) {
        proxy_work_pairs(proxy);
        proxy_poll_all(proxy);
    }
    proxy->cut_wanted = true;
    proxy_work_pairs(proxy);
    pthread_mutex_unlock(&proxy->lock);
    return NULL;
}

/* --- The test's side ------------------------------------------------------------------------------- */

static void proxy_ring(struct proxy *proxy)
{
    uint64_t one = 1;

    ck_assert_int_eq(write(proxy->wake, &one, sizeof(one)), sizeof(one));
}

struct proxy *proxy_start(const unsigned *server_ports, unsigned count)
{
    struct proxy *proxy = keep(calloc(1, sizeof(*proxy)));

    memcpy(proxy->servers, server_ports, count * sizeof(*server_ports));
    proxy->server_count = count;
    pthread_mutex_init(&proxy->lock, NULL);
    proxy->wake = eventfd(0, EFD_CLOEXEC);
    proxy->listener = port_listen(&proxy->port);
    ck_assert_int_eq(pthread_create(&proxy->thread, NULL, proxy_run, proxy), 0);
    return proxy;
}

void proxy_stop(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
    proxy->stop_wanted = true;
    pthread_mutex_unlock(&proxy->lock);
    proxy_ring(proxy);
    pthread_join(proxy->thread, NULL);
    close(proxy->listener);
    close(proxy->wake);
    for (unsigned i = 0; i < FAULTS; i++)
        free(proxy->armed[i].replies);
    memset(proxy->armed, 0, sizeof(proxy->armed));
}

unsigned proxy_port(const struct proxy *proxy)
{
    return proxy->port;
}

static void proxy_arm_at(struct armed *armed, struct proxy_fault fault)
{
    if (fault.count == 0)
        fault.count = 1;
    armed->fault = fault;
    armed->strikes = 0;
    armed->publishes = 0;
    armed->reply_count = 0;
}

void proxy_arm(struct proxy *proxy, struct proxy_fault fault)
{
    pthread_mutex_lock(&proxy->lock);
    proxy_arm_at(&proxy->armed[0], fault);
    proxy_arm_at(&proxy->armed[1], (struct proxy_fault){.kind = PROXY_NO_FAULT});
    pthread_mutex_unlock(&proxy->lock);
}

void proxy_arm_beside(struct proxy *proxy, struct proxy_fault fault)
{
    pthread_mutex_lock(&proxy->lock);
    proxy_arm_at(&proxy->armed[1], fault);
    pthread_mutex_unlock(&proxy->lock);
}

unsigned proxy_strikes(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
    unsigned count = proxy->armed[0].strikes;
    pthread_mutex_unlock(&proxy->lock);
    return count;
}

unsigned proxy_publishes(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
    unsigned count = proxy->armed[0].publishes;
    pthread_mutex_unlock(&proxy->lock);
    return count;
}

static void proxy_set_holding(struct proxy *proxy, bool is_holding)
{
    pthread_mutex_lock(&proxy->lock);
    proxy->is_holding = is_holding;
    pthread_mutex_unlock(&proxy->lock);
    proxy_ring(proxy);
}

void proxy_hold(struct proxy *proxy)
{
    proxy_set_holding(proxy, true);
}

void proxy_release(struct proxy *proxy)
{
    proxy_set_holding(proxy, false);
}

void proxy_deliver(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
    proxy->delivery_wanted = true;
    pthread_mutex_unlock(&proxy->lock);
    proxy_ring(proxy);
}

void proxy_cut(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
    proxy->cut_wanted = true;
    pthread_mutex_unlock(&proxy->lock);
    proxy_ring(proxy);
}

void proxy_prefer(struct proxy *proxy, unsigned index)
{
    pthread_mutex_lock(&proxy->lock);
    proxy->preferred = index;
    pthread_mutex_unlock(&proxy->lock);
}

unsigned proxy_server_port(struct proxy *proxy)
{
    pthread_mutex_lock(&proxy->lock);
    unsigned port = proxy->cut_wanted ? 0 : proxy->latest_port;
    pthread_mutex_unlock(&proxy->lock);
    return port;
}
