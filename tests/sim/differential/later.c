#include "tests/sim/differential/later.h"

#include "daemon/nats/kv.h"
#include "tests/sim/memory.h"
#include "tests/sim/world.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* The windows, the age and the TTLs are shorter. */
#define LATER_S 7u

static time_t began_s;

static time_t now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

static void create(request_fn *ask, const char *name, const char *settings)
{
    char body[640];

    snprintf(body, sizeof(body),
             "{\"name\":\"KV_%s\",\"subjects\":[\"$KV.%s.>\"],\"discard\":\"new\",\"allow_rollup_hdrs\":true,"
             "\"deny_delete\":true,\"allow_direct\":true,\"storage\":\"file\",\"retention\":\"limits\","
             "\"num_replicas\":1,\"max_msgs\":-1,\"max_bytes\":-1,\"max_msg_size\":-1,\"max_consumers\":-1,%s}",
             name, name, settings);
    ask(request_new(body, "$JS.API.STREAM.CREATE.KV_%s", name));
}

/* id NULL: none; ttl_s 0: none. */
static void write_key(request_fn *ask, const char *stream, unsigned key, const char *id, unsigned ttl_s)
{
    struct packet *packet = request_new("v", "$KV.%s.k%u", stream, key);

    if (id != NULL)
        packet_add_header(packet, KV_HEADER_MSG_ID, "%s", id);
    if (ttl_s > 0)
        packet_add_header(packet, KV_HEADER_TTL, "%u", ttl_s);
    ask(packet);
}

static void begin_ttls(request_fn *ask, const char *stream)
{
    write_key(ask, stream, 0, NULL, 1);
    write_key(ask, stream, 1, NULL, 4); /* its marker comes after that of k0 */
    write_key(ask, stream, 2, NULL, 0); /* it stays */
    write_key(ask, stream, 3, NULL, 1);
    write_key(ask, stream, 3, NULL, 0); /* what follows an expired message stays */
    write_key(ask, stream, 4, NULL, 0); /* and what precedes it */
    write_key(ask, stream, 4, NULL, 1);
    write_key(ask, stream, 5, NULL, 3600);
}

void later_begin(request_fn *ask)
{
    began_s = now_s();
    create(ask, "marked",
           "\"max_msgs_per_subject\":1,\"allow_msg_ttl\":true,\"subject_delete_marker_ttl\":3600000000000");
    create(ask, "brief", "\"max_msgs_per_subject\":5,\"allow_msg_ttl\":true,\"subject_delete_marker_ttl\":1000000000");
    create(ask, "raised",
           "\"max_msgs_per_subject\":5,\"allow_msg_ttl\":true,\"subject_delete_marker_ttl\":3600000000000");
    create(ask, "unmarked", "\"max_msgs_per_subject\":5,\"allow_msg_ttl\":true");
    create(ask, "aged",
           "\"max_msgs_per_subject\":5,\"allow_msg_ttl\":true,\"max_age\":2000000000,"
           "\"duplicate_window\":1000000000");
    create(ask, "window", "\"max_msgs_per_subject\":1,\"duplicate_window\":1000000000");
    begin_ttls(ask, "marked");
    begin_ttls(ask, "unmarked");
    begin_ttls(ask, "brief");
    write_key(ask, "raised", 0, NULL, 1); /* it stays for as long as a marker would */
    write_key(ask, "aged", 0, NULL, 0);
    write_key(ask, "aged", 1, NULL, 3600); /* longer than the age */
    write_key(ask, "window", 0, "first", 0);
    write_key(ask, "window", 1, "second", 0);
}

uint64_t later_wait_ns(void)
{
    return 2 * LATER_S * WORLD_SECOND;
}

static void look_at(request_fn *ask, const char *stream)
{
    for (unsigned key = 0; key < 6; key++)
        ask(request_new("", "$JS.API.DIRECT.GET.KV_%s.$KV.%s.k%u", stream, stream, key));
}

void later_end(request_fn *ask, request_fn *await)
{
    static const char *const streams[] = {"marked", "brief", "raised", "unmarked", "aged", "window"};
    time_t left_s = began_s + LATER_S - now_s();

    /* Ids are forgotten without a sign. */
    if (left_s > 0)
        nanosleep(&(struct timespec){.tv_sec = left_s}, NULL);
    for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++) {
        await(request_new("", "$JS.API.STREAM.INFO.KV_%s", streams[i]));
        look_at(ask, streams[i]);
    }
    write_key(ask, "window", 0, "first", 0);
    write_key(ask, "window", 2, "second", 0);
    for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++) {
        write_key(ask, streams[i], 0, NULL, 0);
        look_at(ask, streams[i]);
        ask(request_new("", "$JS.API.STREAM.INFO.KV_%s", streams[i]));
    }
}
