/*
 * connection: the simulated side of daemon/nats/connection.h.
 *
 * Names, states and promises are those of the real one. The address of a server is its name.
 */
#include "daemon/nats/connection.h"

#include "daemon/base/backoff.h"
#include "daemon/base/clock.h"
#include "daemon/base/log.h"
#include "tests/sim/host.h"
#include "tests/sim/link.h"
#include "tests/sim/loop.h"
#include "tests/sim/memory.h"
#include "tests/sim/server.h"
#include "tests/sim/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PAYLOAD_BYTES (1024u * 1024u)
#define INBOX             "_INBOX."
#define PING_PAUSE_MS     100u

/* Links before the present one that are remembered. Like former, whose limit is lower. */
#define LINKS_MAX 16u

enum state { STOPPED, CONNECTING, UP };

struct connection {
    struct connection *next;
    struct loop *loop;
    uv_loop_t *uv;
    struct jobs *jobs;
    const struct conf *conf;
    struct connection_events events;
    struct connection_status status;
    enum state state;
    unsigned attempt; /* counts attempts and losses: a step that was planned for an earlier one is ignored */
    unsigned failures;
    struct server *server;
    const struct way *way;
    struct link *link;
    struct link *former[LINKS_MAX];
    unsigned former_count;
    uint64_t newest_unknown; /* number of the newest link that is no longer remembered; 0: all are */
    uint64_t number;
    char server_id[32];
    char inbox[64];
    char unique_id[32];
    const char *end_reason;
    bool is_reading;                         /* a turn will read the link */
    bool pings;                              /* a pong is awaited */
    uint64_t ping_sent_ms, answered_sent_ms; /* clock_boot_ms of the ping in flight, and of the last one with a reply */
    bool is_dead;                            /* its process has ended */
    void (*stopped)(void *arg);
    void *stopped_arg;
    struct packet **published;
    size_t published_count;
};

/* Something that the connection does later, unless its present attempt is over by then. */
struct step {
    struct step *next; /* they stay until the world ends */
    struct connection *connection;
    unsigned attempt;
    void (*act)(struct connection *connection);
};

static struct connection *all;
static struct step *steps;
static unsigned unique_ids;

/* --- Steps ----------------------------------------------------------------------------------------- */

static void step_run(void *arg)
{
    struct step *step = arg;

    if (step->attempt == step->connection->attempt)
        step->act(step->connection);
}

static void step_is_due(void *arg)
{
    struct step *step = arg;

    if (!step->connection->is_dead && step->attempt == step->connection->attempt)
        loop_post(step->connection->loop, step_run, step);
}

static void step_plan(struct connection *connection, uint64_t ns, void (*act)(struct connection *connection))
{
    struct step *step = memory_new(sizeof(*step));

    *step = (struct step){steps, connection, connection->attempt, act};
    steps = step;
    world_after(ns, step_is_due, step);
}

/* --- Connecting ------------------------------------------------------------------------------------ */

static void connect_now(struct connection *connection);
static void ping(struct connection *connection);

static void back_off(struct connection *connection)
{
    const struct conf *conf = connection->conf;
    uint64_t wait_ms = backoff_ms(connection->failures, conf->nats.reconnect_min_ms, conf->nats.reconnect_max_ms);

    connection->state = CONNECTING;
    step_plan(connection, wait_ms * WORLD_MS, connect_now);
}

static void fail_to_connect(struct connection *connection, const char *why)
{
    connection->failures++;
    snprintf(connection->status.last_error, sizeof(connection->status.last_error), "%s", why);
    back_off(connection);
    connection->events.unreachable(connection->events.arg);
}

static void be_connected(struct connection *connection)
{
    struct connection_status *status = &connection->status;

    if (connection->server == NULL || !server_accepts(connection->server) ||
        connection->way->blocked_until_ns > world_now_ns()) {
        fail_to_connect(connection, "connection refused");
        return;
    }
    connection->state = UP;
    connection->attempt++;
    connection->failures = 0;
    connection->number++;
    connection->link = link_new(connection, connection->server, connection->way, connection->number);
    connection->pings = false;
    connection->answered_sent_ms = clock_boot_ms();
    connection->ping_sent_ms = 0;
    connection->end_reason = NULL;
    snprintf(connection->server_id, sizeof(connection->server_id), "%s", server_id(connection->server));
    status->reconnects += status->was_connected;
    status->connected = status->was_connected = true;
    status->last_error[0] = '\0';
    status->rtt_us = status->rtt_min_us = 0;
    status->max_payload_bytes = MAX_PAYLOAD_BYTES;
    snprintf(status->url, sizeof(status->url), "%s", connection->server_id);
    trace("connection %llu to %s is up", (unsigned long long)connection->number, connection->server_id);
    step_plan(connection, WORLD_MS, ping);
    connection->events.up(connection->events.arg);
}

static void connect_now(struct connection *connection)
{
    connection->state = CONNECTING;
    step_plan(connection, world_between(network.least_ns, network.most_ns) * 3, be_connected);
}

/* --- Loss ------------------------------------------------------------------------------------------ */

static void drop_published(struct connection *connection)
{
    for (size_t i = 0; i < connection->published_count; i++) {
        if (connection->published[i] != NULL)
            packet_free(connection->published[i]);
    }
    connection->published_count = 0;
}

static void leave_link(struct connection *connection)
{
    struct link *link = connection->link;

    connection->link = NULL;
    connection->is_reading = false;
    connection->attempt++;
    if (connection->former_count == LINKS_MAX) {
        connection->newest_unknown = link_number(connection->former[0]);
        memmove(connection->former, connection->former + 1, (LINKS_MAX - 1) * sizeof(struct link *));
        connection->former_count--;
    }
    connection->former[connection->former_count++] = link;
    link_leave(link);
    drop_published(connection);
    connection->status.connected = false;
    connection->status.lost_ms = uv_now(connection->uv);
    connection->status.url[0] = '\0';
}

static void lose(struct connection *connection, const char *why)
{
    if (connection->state != UP)
        return;
    trace("connection %llu is lost: %s", (unsigned long long)connection->number, why);
    snprintf(connection->status.last_error, sizeof(connection->status.last_error), "connection lost: %s", why);
    leave_link(connection);
    connection->failures = 1;
    back_off(connection);
    connection->events.down(connection->events.arg);
}

static void lose_for_its_reason(struct connection *connection)
{
    lose(connection, connection->end_reason);
}

void connection_on_end(struct connection *connection, struct link *link, const char *why)
{
    if (connection->link != link || connection->end_reason != NULL)
        return;
    connection->end_reason = why;
    step_plan(connection, 0, lose_for_its_reason);
}

void connection_ping(struct connection *connection)
{
    if (connection->state != UP || connection->pings || clock_boot_ms() - connection->ping_sent_ms < PING_PAUSE_MS)
        return;
    connection->pings = true;
    connection->ping_sent_ms = clock_boot_ms();
    link_send_to_server(connection->link, packet_new(SERVER_PING, connection->inbox, "", 0));
}

uint64_t connection_sent_after_ms(const struct connection *connection)
{
    return connection->answered_sent_ms;
}

static void ping(struct connection *connection)
{
    uint64_t age_ms = clock_boot_ms() - connection->ping_sent_ms;

    if (connection->pings && age_ms >= connection->conf->nats.ping_interval_ms) {
        lose(connection, "the server does not answer");
        return;
    }
    connection_ping(connection);
    step_plan(connection, connection->conf->nats.ping_interval_ms * WORLD_MS, ping);
}

/* --- Messages -------------------------------------------------------------------------------------- */

static void deliver(struct connection *connection, struct packet *packet)
{
    char status[8];
    struct message message = {.subject = packet->subject,
                              .reply = packet->reply,
                              .payload = packet->payload,
                              .payload_bytes = packet->payload_bytes,
                              .headers = packet->headers,
                              .header_count = packet->header_count};

    if (packet->status != 0) {
        snprintf(status, sizeof(status), "%u", packet->status);
        message.status = status;
        message.status_text = packet->status_text;
    }
    loop_note_work();
    connection->events.message(connection->events.arg, &message);
}

static void note_pong(struct connection *connection)
{
    connection->pings = false;
    connection->answered_sent_ms = connection->ping_sent_ms;
}

static void read_link(void *arg)
{
    struct connection *connection = arg;
    struct link *link = connection->link;
    struct packet *packet;

    connection->is_reading = false;
    if (connection->state != UP || link == NULL)
        return;
    connection->status.reads++;
    jobs_begin_slice(connection->jobs);
    while (connection->link == link && (packet = link_take(link)) != NULL) {
        if (strcmp(packet->subject, connection->inbox) == 0)
            note_pong(connection);
        else
            deliver(connection, packet);
        packet_free(packet);
        if (connection->link == link && jobs_slice_is_over(connection->jobs)) {
            connection_on_arrival(connection, link);
            return;
        }
    }
}

void connection_on_arrival(struct connection *connection, struct link *link)
{
    if (connection->link != link || connection->is_reading)
        return;
    connection->is_reading = true;
    loop_post(connection->loop, read_link, connection);
}

enum connection_publish_result connection_publish(struct connection *connection, const char *subject, const char *reply,
                                                  const struct message_header *headers, size_t header_count,
                                                  const void *payload, size_t payload_bytes)
{
    if (connection->state != UP)
        return CONNECTION_NOT_UP;
    struct packet *packet = packet_new(subject, reply, payload, payload_bytes);
    for (size_t i = 0; i < header_count; i++)
        packet_add_header(packet, headers[i].name, "%s", headers[i].value);
    if (packet_bytes(packet) > MAX_PAYLOAD_BYTES) {
        packet_free(packet);
        return CONNECTION_TOO_LARGE;
    }
    connection->published =
        memory_grow(connection->published, connection->published_count, sizeof(*connection->published));
    connection->published[connection->published_count++] = packet;
    return CONNECTION_PUBLISHED;
}

void connection_flush(struct connection *connection)
{
    if (connection->state != UP)
        return;
    for (size_t i = 0; i < connection->published_count; i++) {
        struct packet *packet = connection->published[i];
        loop_step();
        loop_note_work();
        connection->published[i] = NULL; /* the turn may be broken off */
        link_send_to_server(connection->link, packet);
    }
    connection->published_count = 0;
}

/* --- Life ------------------------------------------------------------------------------------------ */

struct connection *connection_new(uv_loop_t *uv, struct jobs *jobs, const struct conf *conf,
                                  const struct connection_events *events)
{
    struct connection *connection = memory_new(sizeof(*connection));

    *connection =
        (struct connection){.next = all, .loop = loop_of(uv), .uv = uv, .jobs = jobs, .conf = conf, .events = *events};
    connection->way = host_way(uv);
    all = connection;
    connection->status.lost_ms = uv_now(uv);
    /* The first twelve characters tell daemons apart in the names of their consumers. */
    snprintf(connection->unique_id, sizeof(connection->unique_id), "SIM%09u0000000000", ++unique_ids);
    snprintf(connection->inbox, sizeof(connection->inbox), INBOX "%s.", connection->unique_id);
    return connection;
}

void connection_start(struct connection *connection, const struct connection_target *target)
{
    connection->server = server_find(target->urls[0]);
    switch (connection->state) {
    case UP:
        lose(connection, "the server's address has changed");
        break;
    case STOPPED:
        connection->status.lost_ms = uv_now(connection->uv);
        break;
    case CONNECTING:
        break;
    }
    connection->attempt++;
    connect_now(connection);
}

void connection_set_trouble(struct connection *connection, const char *text)
{
    snprintf(connection->status.trouble, sizeof(connection->status.trouble), "%s", text);
}

void connection_reload_credentials(struct connection *connection)
{
    (void)connection;
}

void connection_set_ping_interval(struct connection *connection)
{
    (void)connection;
}

static void be_stopped(void *arg)
{
    struct connection *connection = arg;

    connection->stopped(connection->stopped_arg);
}

void connection_stop(struct connection *connection, void (*stopped)(void *arg), void *arg)
{
    if (connection->state == UP) {
        connection_flush(connection);
        leave_link(connection);
    }
    connection->state = STOPPED;
    connection->attempt++;
    connection->stopped = stopped;
    connection->stopped_arg = arg;
    loop_post(connection->loop, be_stopped, connection);
}

bool connection_is_abandoned(const struct connection *connection)
{
    (void)connection;
    return false;
}

void connection_die(struct connection *connection)
{
    connection->is_dead = true;
    link_abandon(connection);
}

/* Links may still name it: it goes with the world. */
void connection_free(struct connection *connection)
{
    if (connection == NULL)
        return;
    connection_die(connection);
}

void connection_forget_all(void)
{
    while (all != NULL) {
        struct connection *connection = all;
        all = connection->next;
        drop_published(connection);
        free(connection->published);
        free(connection);
    }
    while (steps != NULL) {
        struct step *step = steps;
        steps = step->next;
        free(step);
    }
    unique_ids = 0;
}

/* --- State ----------------------------------------------------------------------------------------- */

bool connection_is_up(const struct connection *connection)
{
    return connection->state == UP;
}

const struct connection_status *connection_get_status(const struct connection *connection)
{
    return &connection->status;
}

uint64_t connection_number(const struct connection *connection)
{
    return connection->number;
}

bool connection_earlier_are_closed(const struct connection *connection, uint64_t first)
{
    if (connection->newest_unknown >= first)
        return false;
    for (unsigned i = 0; i < connection->former_count; i++) {
        if (link_number(connection->former[i]) >= first && !link_is_known_closed(connection->former[i]))
            return false;
    }
    return true;
}

const char *connection_server_id(const struct connection *connection)
{
    return connection->server_id;
}

const char *connection_inbox(const struct connection *connection)
{
    return connection->inbox;
}

const char *connection_unique_id(const struct connection *connection)
{
    return connection->unique_id;
}
