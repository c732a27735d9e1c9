/*
 * load: many connections with many requests in flight, from one process.
 *
 * All sides use one loop and one epoll, so that a client costs the same on every side. Only the few lines differ that
 * write a request and find an answer's end. The requests are for values of the keys <prefix>.0, <prefix>.1, …, again
 * and again.
 */
#ifndef TESTS_BENCH_LOAD_H
#define TESTS_BENCH_LOAD_H

#include "tests/bench/bench.h"

enum load_operation { LOAD_GET, LOAD_PUT };

struct load;

/* The protocol of a side. */
struct load_protocol {
    /* Connect to where, and log in. */
    int (*connect)(const void *where);

    /* Write the request with this number to out, which has room for LOAD_REQUEST_BYTES. Return its length. */
    size_t (*request)(char *out, enum load_operation operation, const struct load *load, uint32_t number);

    /*
     * Parse what came. Return the bytes of the first message, or 0 if it is not whole. *is_answer: it answers a
     * request, with a value of the right size, or with *revision if writes have one. Die of anything else.
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
    unsigned buckets; /* kvstored: 0: one bucket; else many-0, many-1, … in turn */
    bool is_cached;   /* kvstored: with the consistency "cached" */
    bool has_total;   /* end after so many requests, and not after BENCH_ROUND_S */
    uint64_t total;
};

/* kvstored's protocol, Redis', and NATS' own (ADR-8 by hand). */
extern const struct load_protocol load_kvstored, load_redis, load_nats;

/* Run the load in the caller's process. Return the requests per second; writes note their revisions. */
double load_run(const struct load *load, uint64_t *answered);

/* The same in a process of its own. */
double load_per_s(const struct load *load);

/* The same; returns the daemon's processor time for one request in microseconds, whatever the server does. */
double load_cost_us(const struct load *load, pid_t daemon);

/* Put every key of the load once, in a process of its own. */
void load_fill(const struct load *load);

/* Put the first key until that succeeds: the server on the Unix socket has started. */
void load_await(const struct load *load);

int load_connect_unix(const void *path);

/* Open connections that each get a key once, and leave them open. */
void load_open_idle(const struct load_protocol *protocol, const char *path, unsigned connections);

/* Return the end of the MessagePack value that begins at bytes, or NULL if it is not whole. */
const uint8_t *load_skip_value(const uint8_t *bytes, const uint8_t *end);

#endif
