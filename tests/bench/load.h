/*
 * load: many connections with many requests in flight, from one process.
 *
 * One loop and one epoll for whatever is measured, so that a client costs the same on every
 * side; only the few lines differ that write a request and find an answer's end. What is
 * asked: values of the keys <prefix>.0, <prefix>.1, …, round and round.
 */
#ifndef TESTS_BENCH_LOAD_H
#define TESTS_BENCH_LOAD_H

#include "tests/bench/bench.h"

enum load_operation { LOAD_GET, LOAD_PUT };

struct load;

/* What a side understands. */
struct load_protocol {
    /* Connects to where; what has to be said first was said. */
    int (*connect)(const void *where);

    /* Writes the request number `number` to out, which has room for LOAD_REQUEST_BYTES. Answers its length. */
    size_t (*request)(char *out, enum load_operation operation, const struct load *load, uint32_t number);

    /*
     * Looks at what came. Answers the bytes of the first message, or 0 when it is not whole; *is_answer: it answers a
     * request, with a value of the right size, or with *revision where writes have one. Dies of anything else.
     */
    size_t (*take)(const char *bytes, size_t length, enum load_operation operation, bool *is_answer,
                   uint64_t *revision);
};

#define LOAD_REQUEST_BYTES 512u

struct load {
    const struct load_protocol *protocol;
    const void *where; /* load_nats: an int, the port; else the socket's path */
    enum load_operation operation;
    const char *prefix;
    unsigned connections, depth; /* requests in flight on each */
    unsigned keys;
    unsigned buckets; /* kvstored: 0: the one, else many-0, many-1, … in turn */
    bool is_cached;   /* kvstored: with the consistency "cached" */
    bool has_total;   /* ends after so many requests, and not after BENCH_ROUND_S */
    uint64_t total;
};

/* kvstored's protocol, Redis', and NATS' own (ADR-8 by hand). */
extern const struct load_protocol load_kvstored, load_redis, load_nats;

/* Runs it, and answers the requests per second. In a process of the caller's; writes note their revisions. */
double load_run(const struct load *load, uint64_t *answered);

/* The same in a process of its own. */
double load_per_s(const struct load *load);

/* The same; returns the daemon's processor time for one request in microseconds, whatever the server does. */
double load_cost_us(const struct load *load, pid_t daemon);

/* Puts every key of the load once, in a process of its own. */
void load_fill(const struct load *load);

/* Puts the first key until that is answered well: the server on the Unix socket has started. */
void load_await(const struct load *load);

int load_connect_unix(const void *path);

/* Opens connections that each ask for a key once, and leaves them open. */
void load_open_idle(const struct load_protocol *protocol, const char *path, unsigned connections);

/* Where the MessagePack value ends that begins at bytes, NULL where it is not whole. */
const uint8_t *load_skip_value(const uint8_t *bytes, const uint8_t *end);

#endif
