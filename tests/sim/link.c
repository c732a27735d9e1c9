#include "tests/sim/link.h"

#include "tests/sim/memory.h"
#include "tests/sim/server.h"
#include "tests/sim/world.h"

#include <stdlib.h>

/* A packet, or the end if packet is NULL. */
struct parcel {
    struct parcel *next;
    uint64_t arrives_ns;
    struct packet *packet;
};

struct lane {
    struct parcel *first, **end;
    uint64_t last_arrival_ns;
};

struct link {
    struct link *next;
    struct connection *connection; /* NULL: the daemon has left, or was killed */
    struct server *server;
    const struct way *way;
    uint64_t number;
    bool is_served;       /* the server has not closed its end */
    bool is_known_closed; /* and the daemon knows that it has */
    bool is_cut;          /* nothing more is sent on it */
    struct lane to_server, to_daemon;
    struct parcel *come, **come_end; /* to the daemon, for its next turn */
};

struct network network;
static struct link *all;

static void lane_init(struct lane *lane)
{
    *lane = (struct lane){0};
    lane->end = &lane->first;
}

static void lane_drop(struct lane *lane, const struct parcel *from)
{
    struct parcel **place = &lane->first;

    while (*place != NULL && *place != from)
        place = &(*place)->next;
    while (*place != NULL) {
        struct parcel *parcel = *place;
        *place = parcel->next;
        if (parcel->packet != NULL)
            packet_free(parcel->packet);
        free(parcel);
    }
    lane->end = place;
}

/* Lose a part of what is in flight: everything after a random packet. */
static void lane_cut(struct lane *lane)
{
    size_t count = 0;
    struct parcel *from = lane->first;

    for (const struct parcel *parcel = lane->first; parcel != NULL; parcel = parcel->next)
        count++;
    if (count == 0)
        return;
    for (uint64_t kept = world_below(count + 1); kept > 0; kept--)
        from = from->next;
    if (from != NULL)
        lane_drop(lane, from);
}

static uint64_t lane_arrival(struct lane *lane)
{
    uint64_t takes_ns = world_between(network.least_ns, network.most_ns);

    if (network.slow_per_mille > 0 && world_chance(network.slow_per_mille))
        takes_ns = world_between(network.most_ns, network.slow_ns);
    uint64_t at_ns = world_now_ns() + takes_ns;
    if (at_ns < lane->last_arrival_ns)
        at_ns = lane->last_arrival_ns;
    lane->last_arrival_ns = at_ns;
    return at_ns;
}

static void lane_send(struct lane *lane, struct packet *packet, void (*arrive)(void *arg), void *arg)
{
    struct parcel *parcel = memory_new(sizeof(*parcel));

    *parcel = (struct parcel){NULL, lane_arrival(lane), packet};
    *lane->end = parcel;
    lane->end = &parcel->next;
    world_at(parcel->arrives_ns, arrive, arg);
}

static struct parcel *lane_take(struct lane *lane)
{
    struct parcel *parcel = lane->first;

    if (parcel == NULL || parcel->arrives_ns > world_now_ns())
        return NULL;
    lane->first = parcel->next;
    if (lane->first == NULL)
        lane->end = &lane->first;
    return parcel;
}

/* --- To the server --------------------------------------------------------------------------------- */

static uint64_t later_of(uint64_t one, uint64_t other)
{
    return one > other ? one : other;
}

static void on_arrival_at_daemon(void *arg);

static void link_end_service(struct link *link)
{
    if (!link->is_served)
        return;
    link->is_served = false;
    lane_send(&link->to_daemon, NULL, on_arrival_at_daemon, link);
}

static void on_arrival_at_server(void *arg)
{
    struct link *link = arg;
    struct parcel *parcel;
    uint64_t waits_until_ns = later_of(server_hears_from_ns(link->server), link->way->blocked_until_ns);

    if (!link->is_served)
        return;
    if (waits_until_ns > world_now_ns()) {
        world_at(waits_until_ns, on_arrival_at_server, link);
        return;
    }
    while (link->is_served && (parcel = lane_take(&link->to_server)) != NULL) {
        if (parcel->packet != NULL)
            server_receive(link->server, link, parcel->packet);
        else
            link_end_service(link);
        free(parcel);
    }
}

void link_send_to_server(struct link *link, struct packet *packet)
{
    if (link->is_served && !link->is_cut)
        lane_send(&link->to_server, packet, on_arrival_at_server, link);
    else
        packet_free(packet);
}

/* --- To the daemon --------------------------------------------------------------------------------- */

static void on_arrival_at_daemon(void *arg)
{
    struct link *link = arg;
    struct parcel *parcel;
    uint64_t waits_until_ns = later_of(server_reaches_from_ns(link->server), link->way->blocked_until_ns);

    if (waits_until_ns > world_now_ns()) {
        world_at(waits_until_ns, on_arrival_at_daemon, link);
        return;
    }
    while ((parcel = lane_take(&link->to_daemon)) != NULL) {
        if (link->connection == NULL) {
            link->is_known_closed = link->is_known_closed || parcel->packet == NULL;
            if (parcel->packet != NULL)
                packet_free(parcel->packet);
            free(parcel);
            continue;
        }
        parcel->next = NULL;
        *link->come_end = parcel;
        link->come_end = &parcel->next;
    }
    if (link->connection != NULL && link->come != NULL)
        connection_on_arrival(link->connection, link);
}

void link_send_to_daemon(struct link *link, struct packet *packet)
{
    if (link->is_served && !link->is_cut)
        lane_send(&link->to_daemon, packet, on_arrival_at_daemon, link);
    else
        packet_free(packet);
}

struct packet *link_take(struct link *link)
{
    struct parcel *parcel = link->come;

    if (parcel == NULL)
        return NULL;
    if (parcel->packet == NULL) {
        link->is_known_closed = true;
        connection_on_end(link->connection, link, "the server has closed it");
        return NULL;
    }
    struct packet *packet = parcel->packet;
    link->come = parcel->next;
    if (link->come == NULL)
        link->come_end = &link->come;
    free(parcel);
    return packet;
}

static void link_drop_come(struct link *link)
{
    while (link->come != NULL) {
        struct parcel *parcel = link->come;
        link->come = parcel->next;
        link->is_known_closed = link->is_known_closed || parcel->packet == NULL;
        if (parcel->packet != NULL)
            packet_free(parcel->packet);
        free(parcel);
    }
    link->come_end = &link->come;
}

/* --- Life ------------------------------------------------------------------------------------------ */

struct link *link_new(struct connection *connection, struct server *server, const struct way *way, uint64_t number)
{
    struct link *link = memory_new(sizeof(*link));

    *link = (struct link){
        .next = all, .connection = connection, .server = server, .way = way, .number = number, .is_served = true};
    lane_init(&link->to_server);
    lane_init(&link->to_daemon);
    link->come_end = &link->come;
    all = link;
    return link;
}

void link_leave(struct link *link)
{
    link->connection = NULL;
    link_drop_come(link);
    if (link->is_served)
        lane_send(&link->to_server, NULL, on_arrival_at_server, link);
}

bool link_is_known_closed(const struct link *link)
{
    return link->is_known_closed;
}

uint64_t link_number(const struct link *link)
{
    return link->number;
}

bool link_is_served(const struct link *link)
{
    return link->is_served;
}

void link_forget_all(void)
{
    while (all != NULL) {
        struct link *link = all;
        all = link->next;
        lane_drop(&link->to_server, link->to_server.first);
        lane_drop(&link->to_daemon, link->to_daemon.first);
        link_drop_come(link);
        free(link);
    }
}

/* --- Faults ---------------------------------------------------------------------------------------- */

void link_cut_all(const struct way *way)
{
    for (struct link *link = all; link != NULL; link = link->next) {
        if ((way != NULL && link->way != way) || link->connection == NULL || !link->is_served || link->is_cut)
            continue;
        trace("link %llu is cut", (unsigned long long)link->number);
        lane_cut(&link->to_server);
        lane_cut(&link->to_daemon);
        link->is_cut = true;
        connection_on_end(link->connection, link, "it was cut");
    }
}

void link_end_all(struct server *server)
{
    for (struct link *link = all; link != NULL; link = link->next) {
        if (link->server != server || !link->is_served)
            continue;
        lane_drop(&link->to_server, link->to_server.first);
        lane_cut(&link->to_daemon);
        link_end_service(link);
    }
}

void link_abandon(struct connection *connection)
{
    for (struct link *link = all; link != NULL; link = link->next) {
        if (link->connection == connection)
            link_leave(link);
    }
}
