/*
 * differential: holds the simulated server against a real nats-server.
 *
 *   differential URL REQUESTS [SEED]
 *
 * Both get the same random requests, one after the other, and must give the same answers, apart from times. What the
 * daemon asks for is asked for: writes with ids, conditions, roll-ups and TTLs, batches, reads, consumers, purges.
 */
#include "tests/sim/differential/requests.h"

#include "tests/sim/link.h"
#include "tests/sim/memory.h"
#include "tests/sim/server.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <nats/nats.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WAIT_MS     10000
#define ANSWERS_MAX 64u

/* What came to one request, as text. */
struct answers {
    char *texts[ANSWERS_MAX];
    size_t count;
};

static struct server *server;
static struct link *simulated_link;
static natsConnection *connection;
static natsSubscription *inbox;

/* --- The simulated server -------------------------------------------------------------------------- */

/* The link has no daemon: see connection.c of the simulation. */
void connection_on_arrival(struct connection *of, struct link *link)
{
    (void)of;
    (void)link;
}

void connection_on_end(struct connection *of, struct link *link, const char *why)
{
    (void)of;
    (void)link;
    world_fail("the simulated server has closed the connection: %s", why);
}

static void answers_add(struct answers *answers, char *text)
{
    if (answers->count == ANSWERS_MAX)
        world_fail("more than %u answers to one request", ANSWERS_MAX);
    answers->texts[answers->count++] = text;
}

static void ask_simulation(const struct packet *request, struct answers *answers)
{
    struct packet *packet;

    link_send_to_server(simulated_link, packet_copy(request));
    /* It answers at once, or after its queue. */
    uint64_t until_ns = world_now_ns() + 20 * WORLD_MS;
    while (world_go_on(until_ns))
        ;
    while ((packet = link_take(simulated_link)) != NULL) {
        answers_add(answers, answer_text(packet));
        packet_free(packet);
    }
}

/* --- The real server ------------------------------------------------------------------------------- */

static void need(natsStatus status, const char *what)
{
    if (status == NATS_OK)
        return;
    fprintf(stderr, "differential: %s: %s\n", what, natsStatus_GetText(status));
    exit(1);
}

static struct packet *packet_of(natsMsg *message)
{
    const char **names = NULL, *value;
    int count = 0;
    struct packet *packet = packet_new(natsMsg_GetSubject(message), natsMsg_GetReply(message), natsMsg_GetData(message),
                                       (size_t)natsMsg_GetDataLength(message));

    natsMsgHeader_Keys(message, &names, &count);
    for (int i = 0; i < count; i++) {
        if (natsMsgHeader_Get(message, names[i], &value) != NATS_OK)
            continue;
        if (strcmp(names[i], "Status") == 0)
            packet->status = (unsigned)strtoul(value, NULL, 10);
        else if (strcmp(names[i], "Description") != 0)
            packet_add_header(packet, names[i], "%s", value);
    }
    free(names);
    return packet;
}

static void ask_server(const struct packet *request, const struct answers *expected, struct answers *answers)
{
    natsMsg *message = NULL;

    need(natsMsg_Create(&message, request->subject, request->reply, request->payload, (int)request->payload_bytes),
         "natsMsg_Create");
    for (size_t i = 0; i < request->header_count; i++)
        need(natsMsgHeader_Add(message, request->headers[i].name, request->headers[i].value), "natsMsgHeader_Add");
    need(natsConnection_PublishMsg(connection, message), "natsConnection_PublishMsg");
    natsMsg_Destroy(message);
    /* As many as the simulation has given, and none beyond: what else comes shows at the next request. */
    while (answers->count < expected->count) {
        natsStatus status = natsSubscription_NextMsg(&message, inbox, WAIT_MS);
        if (status == NATS_NO_RESPONDERS) {
            answers_add(answers, memory_need(strdup("status 503")));
            continue;
        }
        if (status == NATS_TIMEOUT)
            return;
        need(status, "natsSubscription_NextMsg");
        struct packet *packet = packet_of(message);
        answers_add(answers, answer_text(packet));
        packet_free(packet);
        natsMsg_Destroy(message);
    }
}

/* --- Comparing ------------------------------------------------------------------------------------- */

static void answers_free(struct answers *answers)
{
    for (size_t i = 0; i < answers->count; i++)
        free(answers->texts[i]);
}

static void print_request(const struct packet *request)
{
    fprintf(stderr, "request: %s\n", request->subject);
    for (size_t i = 0; i < request->header_count; i++)
        fprintf(stderr, "    %s: %s\n", request->headers[i].name, request->headers[i].value);
    fprintf(stderr, "    %.*s\n", (int)request->payload_bytes, request->payload);
}

static void fail(const struct packet *request, const struct answers *simulated, const struct answers *real)
{
    print_request(request);
    for (size_t i = 0; i < simulated->count || i < real->count; i++) {
        const char *one = i < simulated->count ? simulated->texts[i] : "nothing";
        const char *other = i < real->count ? real->texts[i] : "nothing";
        fprintf(stderr, "%s the simulation answers  %s\n  nats-server answers     %s\n",
                strcmp(one, other) == 0 ? " " : ">", one, other);
    }
    world_fail("the answers differ");
}

static void compare(struct packet *request)
{
    struct answers simulated = {0}, real = {0};

    ask_simulation(request, &simulated);
    ask_server(request, &simulated, &real);
    bool is_same = simulated.count == real.count;
    for (size_t i = 0; is_same && i < simulated.count; i++)
        is_same = strcmp(simulated.texts[i], real.texts[i]) == 0;
    if (!is_same)
        fail(request, &simulated, &real);
    if (getenv("VERBOSE") != NULL) {
        print_request(request);
        for (size_t i = 0; i < real.count; i++)
            fprintf(stderr, "  answer %s\n", real.texts[i]);
    }
    answers_free(&simulated);
    answers_free(&real);
    packet_free(request);
}

static const struct way way;

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: differential URL REQUESTS [SEED]\n");
        return 2;
    }
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : (uint64_t)time(NULL);
    uint64_t count = strtoull(argv[2], NULL, 10);
    world_begin(seed, false);
    network = (struct network){.least_ns = 1000, .most_ns = 1000};
    server = server_new("nats");
    simulated_link = link_new((struct connection *)&server, server, &way, 1); /* only whether it is NULL matters */
    need(natsConnection_ConnectTo(&connection, argv[1]), argv[1]);
    need(natsConnection_SubscribeSync(&inbox, connection, REQUESTS_INBOX), "natsConnection_SubscribeSync");
    need(natsConnection_Flush(connection), "natsConnection_Flush");
    requests_begin(compare);
    for (uint64_t i = 0; i < count; i++)
        requests_make(compare);
    printf("%" PRIu64 " requests of seed %" PRIu64 ": the simulated server and nats-server give the same answers\n",
           count, seed);
    natsSubscription_Destroy(inbox);
    natsConnection_Destroy(connection);
    nats_Close();
    link_forget_all();
    server_forget_all();
    world_end();
    return 0;
}
