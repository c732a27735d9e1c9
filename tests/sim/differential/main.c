/*
 * differential: holds the simulated server against a real nats-server.
 *
 *   differential NATS-SERVER DIRECTORY REQUESTS [SEED]
 *
 * Both get the same random requests, one after the other, and must give the same answers, apart from times. What the
 * daemon asks for is asked for: writes with ids, conditions, roll-ups and TTLs, batches, reads, consumers, purges, and
 * changes of streams. Both are restarted twice. What takes seconds, the expiry of messages and of ids, is begun before
 * the random requests and looked at after them: see later.
 */
#include "tests/sim/differential/later.h"
#include "tests/sim/differential/real.h"
#include "tests/sim/differential/requests.h"

#include "tests/sim/link.h"
#include "tests/sim/memory.h"
#include "tests/sim/server.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WAIT_MS     10000
#define ANSWERS_MAX 64u

/* Of await: for up to 30 s and more. */
#define AWAIT_TRIES 600u

/* What came to one request, as text. */
struct answers {
    char *texts[ANSWERS_MAX];
    size_t count;
};

static struct server *server;
static struct link *simulated_link;
static bool is_restarting;
static const struct way way;

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
    if (!is_restarting)
        world_fail("the simulated server has closed the connection: %s", why);
}

static void simulation_connect(void)
{
    static uint64_t connections;

    simulated_link = link_new((struct connection *)&server, server, &way, ++connections); /* only its address matters */
}

static void simulation_go_on(uint64_t ns)
{
    uint64_t until_ns = world_now_ns() + ns;

    while (world_go_on(until_ns))
        ;
}

/* A pull may have any number of heartbeats, also after later requests: only its first one counts. */
static void answers_add(struct answers *answers, const struct packet *request, struct packet *packet)
{
    bool is_first = answers->count == 0 && strstr(request->payload, "idle_heartbeat") != NULL;

    if (answers->count == ANSWERS_MAX)
        world_fail("more than %u answers to one request", ANSWERS_MAX);
    if (packet->status != 100 || is_first)
        answers->texts[answers->count++] = answer_text(packet);
    packet_free(packet);
}

static void ask_simulation(const struct packet *request, struct answers *answers)
{
    struct packet *packet;

    link_send_to_server(simulated_link, packet_copy(request));
    /* It answers at once, or after its queue. */
    simulation_go_on(20 * WORLD_MS + request_wait_ns(request));
    while ((packet = link_take(simulated_link)) != NULL)
        answers_add(answers, request, packet);
}

/* --- The real server ------------------------------------------------------------------------------- */

/* As many as the simulation has given, and none beyond: what else comes shows at the next request. */
static void ask_server(const struct packet *request, const struct answers *expected, struct answers *answers)
{
    struct packet *packet;

    real_send(request);
    while (answers->count < expected->count && (packet = real_receive(WAIT_MS)) != NULL)
        answers_add(answers, request, packet);
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

static bool answers_are_equal(const struct answers *one, const struct answers *other)
{
    bool is_same = one->count == other->count;

    for (size_t i = 0; is_same && i < one->count; i++)
        is_same = strcmp(one->texts[i], other->texts[i]) == 0;
    return is_same;
}

static int compare_texts(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

/* A pull that ends with its consumer is answered just before or after the deletion. */
static void answers_sort(struct answers *answers, const struct packet *request)
{
    if (strstr(request->subject, ".CONSUMER.DELETE.") != NULL && answers->count > 0)
        qsort(answers->texts, answers->count, sizeof(answers->texts[0]), compare_texts);
}

static void compare(struct packet *request)
{
    struct answers simulated = {0}, real = {0};

    ask_simulation(request, &simulated);
    ask_server(request, &simulated, &real);
    answers_sort(&simulated, request);
    answers_sort(&real, request);
    if (!answers_are_equal(&simulated, &real))
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

/* Ask until the real server answers what the simulated one does: it does something after a while. */
static void await(struct packet *request)
{
    static const struct timespec pause = {.tv_nsec = 50000000};
    struct answers simulated = {0};
    bool is_same = false;

    ask_simulation(request, &simulated);
    for (unsigned tries = 0; !is_same; tries++) {
        struct answers real = {0};
        ask_server(request, &simulated, &real);
        is_same = answers_are_equal(&simulated, &real);
        if (!is_same && tries == AWAIT_TRIES)
            fail(request, &simulated, &real);
        answers_free(&real);
        nanosleep(&pause, NULL);
    }
    answers_free(&simulated);
    packet_free(request);
}

/* --- The run --------------------------------------------------------------------------------------- */

static void restart(void)
{
    is_restarting = true;
    server_kill(server);
    simulation_go_on(WORLD_SECOND);
    server_start(server);
    simulation_connect();
    is_restarting = false;
    real_restart();
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: differential NATS-SERVER DIRECTORY REQUESTS [SEED]\n");
        return 2;
    }
    uint64_t seed = argc > 4 ? strtoull(argv[4], NULL, 10) : (uint64_t)time(NULL);
    uint64_t count = strtoull(argv[3], NULL, 10);
    world_begin(seed, false);
    network = (struct network){.least_ns = 1000, .most_ns = 1000};
    server = server_new("nats");
    simulation_connect();
    real_start(argv[1], argv[2]);
    requests_begin(server, compare);
    later_begin(compare);
    for (uint64_t i = 0; i < count; i++) {
        if (i == count / 3 || i == count * 2 / 3)
            restart();
        requests_make(compare);
    }
    simulation_go_on(later_wait_ns());
    later_end(compare, await);
    printf("%" PRIu64 " requests of seed %" PRIu64 ": the simulated server and nats-server give the same answers\n",
           count, seed);
    real_stop();
    link_forget_all();
    server_forget_all();
    world_end();
    return 0;
}
