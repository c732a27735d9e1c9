/*
 * bench: compares kvstored with its peers, on the same servers, in alternating rounds of one run.
 *
 * README.md explains what each row does, and why that is fair. main.c has the table of rows; each other file has one
 * subject of them. What is measured runs in processes of its own, which the parent forks. The parent itself never opens
 * a connection of the NATS library, because a fork does not copy its threads.
 */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BENCH_BUCKET        "bench"
#define BENCH_VALUE_BYTES   128u
#define BENCH_PROCESSES     64u
#define BENCH_PROCESSES_MAX 256u
#define BENCH_ROUND_S       1.0

/* A nats-server with a kvstored in front of it; or a kvstored in embedded mode, whose server has no members here. */
struct bench_servers {
    const char *name;
    char socket_path[104];
    char url[64];
    const char *authority; /* of the server's certificate, for a connection with TLS; NULL: without */
    bool is_durable;       /* the server syncs each write, and the daemon commits groups of them */
    bool syncs_seldom;     /* the embedded server does not sync each write, for rows that are not about the disk */
    const char *sections;  /* of the daemon's configuration, besides listen and nats; NULL: all defaults */
    int port;
    pid_t server, daemon;
};

/* A Redis on a Unix socket. */
struct bench_redis {
    char socket_path[104];
    pid_t server;
};

struct bench {
    const char *kvstored, *nats_server, *redis_server;
    struct bench_servers ordinary; /* nats-server's defaults */
    struct bench_servers durable;  /* sync_interval: always */
    struct bench_servers embedded; /* the daemon's defaults */
    struct bench_redis redis;      /* without persistence */
    struct bench_redis redis_durable;
};

/* --- Rows, by subject. Each measures one round of one side, and dies of a wrong answer. -------------- */

typedef double bench_row_fn(const struct bench *bench, bool is_ours);

/*
 * clients.c: programs that make one call after the other. 'auto': the default group_commit; 'peer' is the better of on
 * and off.
 */
bench_row_fn one_put_us, one_get_us, many_clients_per_s, durable_clients_per_s;
bench_row_fn embedded_get_us, embedded_put_per_s, embedded_both_per_s;
bench_row_fn auto_1_per_s, auto_4_per_s, auto_16_per_s, auto_64_per_s, auto_256_per_s;
/* counters.c: many programs that increment one key */
bench_row_fn embedded_increment_per_s, increment_per_s;
/* bulk.c: many keys in one call */
bench_row_fn bulk_put_per_s, bulk_get_per_s, bulk_get_new_per_s, embedded_bulk_get_per_s, txn_us;
/* listing.c: all keys of a bucket in pages */
bench_row_fn embedded_keys_per_s;
/* pipelines.c: many calls in flight, and Redis */
bench_row_fn pipelined_put_per_s, pipelined_get_per_s, pipelined_get_once_per_s, embedded_deep_per_s,
    redis_set_durable_per_s;
/* tls.c: what one call costs the daemon over TLS; 'peer' is without TLS. */
bench_row_fn tls_put_us, tls_get_us, tls_one_us;
/* memory.c */
bench_row_fn idle_memory_kb, idle_client_kb, first_answer_ms;
/* memory_reads.c: gets that the daemon answers from memory, and watches */
bench_row_fn embedded_redis_per_s, embedded_redis_pipelined_per_s, cached_many_per_s, cached_key_bytes, fan_out_p99_ms;
/* python.c: the asyncio client, and redis-py, if both are installed */
bench_row_fn python_get_per_s, python_put_per_s, python_put_durable_per_s;
bool python_is_installed(void);
/* restarts.c: the longest pause of 64 programs; 'peer' is a restart of nats-server alone. */
bench_row_fn restart_pause_ms, kill_pause_ms;
/* scrape.c: latency of gets beside a scrape of the metrics each second; 'peer' is without it. */
bench_row_fn scrape_p50_us, scrape_p99_us, scrape_longest_us;
/* neighbour.c: one row for each attack of tests/support/attack.h; 'peer' is without the attack. */
struct attack_kind;
typedef double bench_attack_fn(const struct bench *bench, bool is_ours, const struct attack_kind *kind);
/* p99 of a well-behaved client; and the longest command of kvctl. */
bench_attack_fn neighbour_ms, neighbour_kvctl_ms;

/* --- servers.c: the servers. All files are in the working directory, which is the benchmark's own. ------ */

/* Start everything, and create the bucket. */
void bench_start(struct bench *bench);
void bench_stop(struct bench *bench);

/* Return servers whose nats-server has TLS and otherwise its defaults. The first call starts them. */
const struct bench_servers *bench_start_encrypted(const struct bench *bench);

/* Start a server, and a daemon of that name in front of it. servers->name is set. Create the bucket. */
void bench_start_external(const struct bench *bench, struct bench_servers *servers, const char *daemon_name);

/* Start a daemon with an embedded server, and create the bucket. group_commit: NULL for the default. */
void bench_start_embedded(const struct bench *bench, struct bench_servers *servers, const char *name,
                          const char *group_commit);

/* Only write the configuration of such a daemon, NAME.yaml. */
void bench_configure_embedded(const struct bench *bench, struct bench_servers *servers, const char *name,
                              const char *group_commit);

/* Start a server, servers->name. Start one that has ended, with the same configuration. */
void bench_start_nats(const struct bench *bench, struct bench_servers *servers);
void bench_restart_nats(const struct bench *bench, struct bench_servers *servers);

/* Start one more daemon in front of the same server, and one more Redis, each under a name of its own. */
void bench_start_daemon(const struct bench *bench, struct bench_servers *servers, const char *name);

/* Start a daemon that has ended, with the same configuration. */
void bench_restart_daemon(const struct bench *bench, struct bench_servers *servers, const char *name);
void bench_start_redis(const struct bench *bench, struct bench_redis *redis, const char *name, bool is_durable);

/* --- process.c ----------------------------------------------------------------------------------------- */

_Noreturn void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2)));
double bench_now_s(void);

/* Start a program in the background. Its output goes to NAME.log. */
pid_t bench_spawn(const char *name, char *const argv[]);

/* End a process that bench_spawn or bench_hold has started, and wait for it. */
void bench_end(pid_t pid);

/* Return the resident memory of a process. */
double bench_rss_kb(pid_t pid);

/* Return the memory that a process has taken for itself, without files: its growth is what something takes. */
double bench_own_memory_kb(pid_t pid);

/* Return the processor time that all threads of a process have used. */
double bench_cpu_us(pid_t pid);

/* Return the memory that programs can still take, in kilobytes. */
double bench_available_kb(void);

/* Return how often the threads of a process have begun to wait: how often an idle program wakes up. */
double bench_waits(pid_t pid);

/* Shared by the clients of one round and the parent. */
struct bench_client {
    unsigned number;
    const struct bench *bench;
    const struct bench_servers *servers;
    bool is_ours;
    void *context; /* of the row */
    double result; /* of bench_alone */
    uint64_t operations;
};

/* Run one client in a process of its own. Return its result. */
double bench_alone(const struct bench_client *client, void (*run)(struct bench_client *client));

/*
 * Run count clients at the same time, each in a process of its own. Each opens what it needs, calls bench_wait_for_all,
 * and counts operations for BENCH_ROUND_S. Return their sum per second.
 */
double bench_together(const struct bench_client *client, unsigned count, void (*run)(struct bench_client *client));
void bench_wait_for_all(void);

/* Keep the revision of a write. At the end of the round all revisions must differ. */
void bench_note_revision(uint64_t revision);
void bench_forget_revisions(void);
void bench_check_revisions(void);

/* Start a process that holds something open until bench_end. Return when open_all has returned there. */
pid_t bench_hold(void (*open_all)(const void *context), const void *context);

/* --- Keys and values ----------------------------------------------------------------------------------- */

/* Make a value with its key and a number: "<key>:<number>:vvv…". */
void bench_make_value(char value[BENCH_VALUE_BYTES], const char *key, unsigned number);

/* Return whether the bytes are a value of the key. number UINT32_MAX: any. */
bool bench_is_value(const char *bytes, size_t size, const char *key, unsigned number);

#endif
