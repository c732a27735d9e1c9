#include "tests/sim/server.h"

#include "tests/sim/api.h"
#include "tests/sim/consumers.h"
#include "tests/sim/memory.h"
#include "tests/sim/publish.h"
#include "tests/sim/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A request in the API's queue. */
struct queued {
    struct queued *next;
    struct link *link;
    struct packet *packet;
    uint64_t due_ns;
};

struct server {
    struct server *next;
    char *name;
    char id[32];
    unsigned starts;
    bool is_up;
    bool is_full;
    unsigned left;               /* messages until it is full; 0: more than it will get */
    bool sets_back, loses_store; /* at its next start */
    bool was_set_back;
    uint64_t lost_ns; /* UINT64_MAX: never */
    unsigned wrong_estimates;
    uint64_t stopped_until_ns, blocked_until_ns;
    struct stream *streams;
    struct queued *queue, **queue_end;
    uint64_t queue_last_ns;
    uint64_t overflows_until_ns;
    bool is_cluster;
    char leader[8];
    unsigned leaders;
    int64_t leader_since_ns;
    uint64_t fails_until_ns, leads_ns; /* see server_change_leader */
    uint64_t lag_ns, lags_until_ns;
    uint64_t follower_ns; /* the latest answer of server_follower_ns */
};

/* How far a follower is behind if nothing is wrong. */
#define USUAL_LAG_NS WORLD_MS

static struct server *all;

/* --- State ----------------------------------------------------------------------------------------- */

struct server *server_find(const char *name)
{
    struct server *server = all;

    while (server != NULL && strcmp(server->name, name) != 0)
        server = server->next;
    return server;
}

const char *server_id(const struct server *server)
{
    return server->id;
}

const char *server_name(const struct server *server)
{
    return server->name;
}

bool server_is_up(const struct server *server)
{
    return server->is_up;
}

bool server_accepts(const struct server *server)
{
    return server->is_up && server_hears_from_ns(server) <= world_now_ns();
}

uint64_t server_hears_from_ns(const struct server *server)
{
    return server->stopped_until_ns > server->blocked_until_ns ? server->stopped_until_ns : server->blocked_until_ns;
}

uint64_t server_reaches_from_ns(const struct server *server)
{
    return server->blocked_until_ns;
}

bool server_puts_off(const struct server *server, void (*happen)(void *arg), void *arg)
{
    if (server->stopped_until_ns <= world_now_ns())
        return false;
    world_at(server->stopped_until_ns, happen, arg);
    return true;
}

bool server_store_is_full(const struct server *server)
{
    return server->is_full;
}

unsigned server_wrong_estimates(const struct server *server)
{
    return server->wrong_estimates;
}

/* --- Streams --------------------------------------------------------------------------------------- */

struct stream *server_streams(const struct server *server)
{
    return server->streams;
}

struct stream *server_find_stream(const struct server *server, const char *name)
{
    struct stream *stream = server->streams;

    while (stream != NULL && (stream->is_gone || strcmp(stream->name, name) != 0))
        stream = stream->next;
    return stream;
}

uint64_t server_lost_ns(const struct server *server)
{
    return server->lost_ns;
}

struct stream *server_add_stream(struct server *server, const char *name, json_t *config)
{
    struct stream *stream = stream_new(server, name, config);

    stream->next = server->streams;
    server->streams = stream;
    return stream;
}

/* --- Clusters -------------------------------------------------------------------------------------- */

static void server_elect(void *arg)
{
    struct server *server = arg;

    snprintf(server->leader, sizeof(server->leader), "n%u", server->leaders++ % 3 + 1);
    server->leader_since_ns = world_epoch_ns();
    trace("%s leads", server->leader);
}

void server_make_cluster(struct server *server)
{
    server->is_cluster = true;
    server_elect(server);
}

bool server_is_cluster(const struct server *server)
{
    return server->is_cluster;
}

const char *server_leader(const struct server *server)
{
    return server->leader;
}

int64_t server_leader_since_ns(const struct server *server)
{
    return server->leader_since_ns;
}

static bool server_is_failing(const struct server *server)
{
    return world_now_ns() < server->fails_until_ns;
}

bool server_has_leader(const struct server *server)
{
    return server_is_failing(server) || world_now_ns() >= server->leads_ns;
}

uint64_t server_follower_ns(struct server *server)
{
    uint64_t now_ns = world_now_ns(), lag_ns = now_ns < server->lags_until_ns ? server->lag_ns : USUAL_LAG_NS;
    uint64_t follower_ns = now_ns > lag_ns ? now_ns - lag_ns : 0;

    if (follower_ns > server->follower_ns)
        server->follower_ns = follower_ns;
    return server->follower_ns;
}

void server_let_followers_lag(struct server *server, uint64_t ns, uint64_t until_ns)
{
    server_follower_ns(server);
    server->lag_ns = ns;
    server->lags_until_ns = until_ns;
    trace("followers are behind by %.3f s", (double)ns / 1e9);
}

/* What the leader had in memory is lost. */
static void server_lose_leader(void *arg)
{
    struct server *server = arg;

    trace("%s leads no more", server->leader);
    for (struct stream *stream = server->streams; stream != NULL; stream = stream->next)
        stream_forget_batches(stream);
    consumers_lose_some(server);
}

void server_change_leader(struct server *server, uint64_t fails_until_ns, uint64_t leads_ns)
{
    if (!server_has_leader(server) || server_is_failing(server))
        return;
    server->fails_until_ns = fails_until_ns;
    server->leads_ns = leads_ns;
    world_at(fails_until_ns, server_lose_leader, server);
    world_at(leads_ns, server_elect, server);
}

/* Return whether nobody is there who could answer: only the leader does, but for direct gets and pulls. */
static bool server_lacks_leader_for(const struct server *server, const struct packet *packet)
{
    return server->is_cluster && !server_has_leader(server) && api_queues(packet) &&
           (strstr(packet->subject, ".STREAM.") != NULL || strstr(packet->subject, ".CONSUMER.") != NULL);
}

/* --- Messages -------------------------------------------------------------------------------------- */

static void server_serve(struct server *server, struct link *link, struct packet *packet)
{
    trace("server: %s %s", packet->subject, packet->payload);
    if (server_lacks_leader_for(server, packet)) {
        packet_free(packet);
        return;
    }
    if (!api_serve(server, link, packet) && packet->reply != NULL)
        link_send_to_daemon(link, packet_new_status(packet->reply, 503, ""));
    packet_free(packet);
}

static void server_serve_queue(void *arg)
{
    struct server *server = arg;

    while (server->queue != NULL && server->queue->due_ns <= world_now_ns()) {
        struct queued *queued = server->queue;
        if (server_puts_off(server, server_serve_queue, server))
            return;
        server->queue = queued->next;
        if (server->queue == NULL)
            server->queue_end = &server->queue;
        server_serve(server, queued->link, queued->packet);
        free(queued);
    }
}

static void server_drop_queue(struct server *server)
{
    while (server->queue != NULL) {
        struct queued *queued = server->queue;
        server->queue = queued->next;
        packet_free(queued->packet);
        free(queued);
    }
    server->queue_end = &server->queue;
    server->queue_last_ns = 0;
}

static void server_queue(struct server *server, struct link *link, struct packet *packet)
{
    if (world_now_ns() < server->overflows_until_ns && world_chance(200)) {
        trace("server: the queue is full: %s and what waits in it are dropped", packet->subject);
        packet_free(packet);
        server_drop_queue(server);
        return;
    }
    struct queued *queued = memory_new(sizeof(*queued));
    uint64_t due_ns = world_now_ns() + world_between(20000, WORLD_MS);

    if (due_ns < server->queue_last_ns)
        due_ns = server->queue_last_ns;
    server->queue_last_ns = due_ns;
    *queued = (struct queued){NULL, link, packet, due_ns};
    *server->queue_end = queued;
    server->queue_end = &queued->next;
    world_at(due_ns, server_serve_queue, server);
}

/* "$KV.<bucket>.<key>" */
static struct stream *server_stream_of(const struct server *server, const char *subject)
{
    char name[300];
    size_t length = strncmp(subject, "$KV.", 4) == 0 ? strcspn(subject + 4, ".") : 0;

    if (length == 0 || subject[4 + length] != '.' || length > 250)
        return NULL;
    snprintf(name, sizeof(name), "KV_%.*s", (int)length, subject + 4);
    return server_find_stream(server, name);
}

static void server_publish(struct server *server, struct link *link, struct packet *packet)
{
    struct stream *stream = server_stream_of(server, packet->subject);
    struct packet *answer = NULL;
    bool is_failing = server->is_cluster && server_is_failing(server);

    if (is_failing && world_chance(300)) {
        packet_free(packet); /* it is not committed */
        return;
    }
    if (stream != NULL && (!server->is_cluster || server_has_leader(server))) {
        answer = publish_receive(stream, packet);
        if (is_failing && answer != NULL && world_chance(500)) {
            packet_free(answer);
            return;
        }
    } else {
        if (packet->reply != NULL)
            answer = packet_new_status(packet->reply, 503, "");
        packet_free(packet);
    }
    if (answer != NULL)
        link_send_to_daemon(link, answer);
}

void server_receive(struct server *server, struct link *link, struct packet *packet)
{
    if (strcmp(packet->subject, SERVER_PING) == 0) {
        link_send_to_daemon(link, packet_new(packet->reply, NULL, "", 0));
        packet_free(packet);
    } else if (strncmp(packet->subject, "$JS.", 4) != 0 && strncmp(packet->subject, "$SYS.", 5) != 0) {
        server_publish(server, link, packet);
    } else if (api_queues(packet)) {
        server_queue(server, link, packet);
    } else {
        server_serve(server, link, packet);
    }
}

/* --- Life ------------------------------------------------------------------------------------------ */

struct server *server_new(const char *name)
{
    struct server *server = memory_new(sizeof(*server));

    server->name = strdup(name);
    server->queue_end = &server->queue;
    server->lost_ns = UINT64_MAX;
    server->next = all;
    all = server;
    server_start(server);
    return server;
}

void server_forget_all(void)
{
    while (all != NULL) {
        struct server *server = all;
        all = server->next;
        server_drop_queue(server);
        while (server->streams != NULL) {
            struct stream *stream = server->streams;
            server->streams = stream->next;
            stream_free(stream);
        }
        free(server->name);
        free(server);
    }
    consumers_forget_all();
    stream_forget_view();
}

void server_kill(struct server *server)
{
    if (!server->is_up)
        return;
    trace("server %s is killed", server->id);
    server->is_up = false;
    server->stopped_until_ns = 0;
    server_drop_queue(server);
    consumers_drop(NULL);
    link_end_all(server);
}

void server_start(struct server *server)
{
    if (server->is_up)
        return;
    server->is_up = true;
    snprintf(server->id, sizeof(server->id), "%s-%u", server->name, ++server->starts);
    trace("server %s starts", server->id);
    for (struct stream *stream = server->streams; stream != NULL; stream = stream->next) {
        if (server->sets_back)
            stream_set_back(stream);
        if (server->loses_store)
            stream_lose(stream);
        stream_restart(stream);
    }
    if (server->is_cluster)
        server_elect(server);
    server->was_set_back |= server->sets_back || server->loses_store;
    if (server->loses_store && server->lost_ns == UINT64_MAX)
        server->lost_ns = world_now_ns();
    server->sets_back = server->loses_store = false;
}

void server_stop_until(struct server *server, uint64_t until_ns)
{
    if (until_ns <= server->stopped_until_ns)
        return;
    trace("server %s is stopped for %.3f s", server->id, (double)(until_ns - world_now_ns()) / 1e9);
    server->stopped_until_ns = until_ns;
}

void server_continue(struct server *server)
{
    server->stopped_until_ns = 0;
}

void server_block_until(struct server *server, uint64_t until_ns)
{
    trace("server %s is cut off for %.3f s", server->id, (double)(until_ns - world_now_ns()) / 1e9);
    server->blocked_until_ns = until_ns;
}

void server_set_full(struct server *server, bool is_full)
{
    trace("server %s: its store is %s", server->id, is_full ? "full" : "not full");
    server->is_full = is_full;
    server->left = 0;
}

void server_fill_after(struct server *server, unsigned messages)
{
    server->left = messages;
}

void server_use_room(struct server *server)
{
    if (server->left > 0 && --server->left == 0)
        server_set_full(server, true);
}

void server_overflow_until(struct server *server, uint64_t until_ns)
{
    trace("server %s: the queue of its API is full", server->id);
    server->overflows_until_ns = until_ns;
}

void server_set_wrong_estimates(struct server *server, unsigned per_mille)
{
    server->wrong_estimates = per_mille;
}

void server_back_up(struct server *server)
{
    for (struct stream *stream = server->streams; stream != NULL; stream = stream->next)
        stream_back_up(stream);
}

bool server_was_set_back(const struct server *server)
{
    return server->was_set_back;
}

void server_set_back(struct server *server)
{
    server->sets_back = true;
}

void server_lose_store(struct server *server)
{
    server->loses_store = true;
}
