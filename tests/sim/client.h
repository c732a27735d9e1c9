/*
 * client: a program on a simulated host, which makes random calls and keeps their answers.
 */
#ifndef SIM_CLIENT_H
#define SIM_CLIENT_H

#include "tests/sim/call.h"
#include "tests/sim/host.h"

/* What clients do in this world. */
struct load {
    const char *bucket;
    unsigned history;
    unsigned replicas;
    unsigned keys;      /* at most CALL_KEYS_MAX */
    unsigned in_flight; /* calls of a client at a time */
    uint64_t pause_ns;  /* about, between calls */
    unsigned weights[CALL_KINDS];
    unsigned cached_per_mille;   /* of reads */
    unsigned leader_per_mille;   /* of the others */
    unsigned ttl_per_mille;      /* of puts */
    unsigned many_ttl_per_mille; /* of bulk.put and txn.commit */
    uint64_t least_timeout_ms, most_timeout_ms;
    unsigned condition_per_mille; /* of deletions: they name a revision, or need the key to exist */
    unsigned cancel_per_mille;    /* of calls */
    bool watches;
    unsigned option_per_mille; /* each option of a watch */
    unsigned stop_per_mille;   /* of what clients do while they watch: they stop the watch, and begin another */
    bool repeats;              /* writes have ids, and are repeated in the next session */
    unsigned leave_per_mille;  /* of calls: after them the client closes its session */
    unsigned stall_per_mille;  /* of calls: after them it reads nothing for a while */
};

/* What a watch wants, and was delivered. */
struct watch_record {
    struct watch_record *next;
    uint64_t keys; /* a bit for each key that its filters match, the counter's after the others */
    bool is_meta_only, ignores_deletes, updates_only, has_history, is_snapshot;
    uint64_t begun_ns;    /* when it was asked for */
    uint64_t answered_ns; /* when watch.start was answered; 0: it was not */
    bool is_ready, is_ended;
    uint64_t id;  /* see watch.start */
    bool is_lost; /* its session has ended before it */
    uint64_t ended_ns;
    char code[CALL_CODE_BYTES]; /* of the error of watch.start or watch.ended; "": none */
    uint64_t ready_ns;
    uint64_t ready_revision; /* the highest revision delivered until it was ready; of a snapshot its own */
    size_t ready_count;      /* of entries until then */
    struct {
        uint64_t at_ns; /* when the client read it */
        uint64_t revision;
        unsigned key;
        uint64_t value; /* of a watch that is meta_only: how many bytes it has */
        bool is_put;
    } * entries;
    size_t count;
};

struct client;

struct client *client_new(unsigned number, struct host *host, const struct load *load);
void client_forget_all(void);

/* Make calls until until_ns. */
void client_run_until(struct client *client, uint64_t until_ns);

/* Create the bucket; done is called when it exists. Retries without end. */
void client_set_up(struct client *client, void (*done)(void *arg), void *arg);

/* Return whether all calls are answered. */
bool client_is_idle(const struct client *client);

/* After the faults: write, increment and read. All these calls must succeed. No more calls of chance follow. */
void client_use_all(struct client *client);

const struct call_record *client_records(const struct client *client);
const struct watch_record *client_watches(const struct client *client);

/* How many of its sessions the daemon has ended. */
unsigned client_lost_sessions(const struct client *client);

/* The number of values that were written in this world. */
uint64_t client_values(void);

#endif
