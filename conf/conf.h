/*
 * conf: the configuration file, read into one struct.
 *
 * Used by the daemon's main, which hands the parts on. Promises that a struct
 * conf that conf_read or conf_set_defaults filled is complete and within the
 * documented ranges: nobody behind it checks again. What each setting means, its
 * unit, range and default: the commented sample conf/kvstored.yaml.
 */
#ifndef CONF_H
#define CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A list of strings. */
struct conf_strings {
    char **items;
    size_t count;
};

enum conf_nats_mode { CONF_NATS_EMBEDDED, CONF_NATS_EXTERNAL };
/* Whether the loop may look for the next message without sleeping. */
enum conf_busy_poll { CONF_BUSY_POLL_AUTO, CONF_BUSY_POLL_OFF };
/* When independent writes to one bucket go out as one atomic batch. */
enum conf_group_commit { CONF_GROUP_COMMIT_AUTO, CONF_GROUP_COMMIT_ON, CONF_GROUP_COMMIT_OFF };
enum conf_log_level { CONF_LOG_ERROR, CONF_LOG_WARNING, CONF_LOG_INFO, CONF_LOG_DEBUG };

/* What a rule of the access list allows; each includes the ones before it. */
enum conf_access { CONF_ACCESS_NONE, CONF_ACCESS_READ, CONF_ACCESS_WRITE, CONF_ACCESS_ADMIN };

/* One rule: the first rule that names the peer and the bucket decides. */
struct conf_access_rule {
    struct conf_strings users; /* names or numeric ids; both lists empty: everybody */
    struct conf_strings groups;
    struct conf_strings buckets; /* shell patterns */
    enum conf_access allow;
};

struct conf {
    struct {
        char *path;
        mode_t mode;
        char *owner; /* name or numeric id; NULL: whoever runs the daemon */
        char *group;
        unsigned backlog;
    } listen;

    struct {
        enum conf_nats_mode mode;

        /* embedded */
        char *data_dir;
        char *server;     /* path or name of the nats-server program */
        bool sync_always; /* sync_interval: always; otherwise sync_interval_ms */
        unsigned sync_interval_ms;
        uint64_t max_store_bytes; /* 0: as much as the disk has */
        unsigned hang_timeout_ms; /* a server that does not answer for so long is replaced */

        /* external */
        struct conf_strings servers;
        char *domain;      /* JetStream domain; NULL: none */
        char *credentials; /* path of a .creds file */
        char *user;
        char *password;
        char *token;
        char *nkey_seed; /* path of a file that holds the seed */
        struct {
            bool enabled;
            char *ca; /* paths of PEM files */
            char *certificate;
            char *key;
            char *server_name; /* expected in the server's certificate; NULL: its host name */
        } tls;

        /* both */
        char *name; /* of the daemon's connection and consumers; NULL: made of the host's name and listen.path */
        unsigned connect_timeout_ms;
        unsigned reconnect_min_ms; /* backoff between attempts, full jitter */
        unsigned reconnect_max_ms;
        unsigned ping_interval_ms; /* of the round-trip check; two unanswered ones: the link counts as lost */
        unsigned outage_wait_ms;   /* how long after a loss of the link new calls still wait for it */
    } nats;

    struct {
        unsigned handle_ttl_s;
        enum conf_group_commit group_commit;
    } buckets;

    struct {
        unsigned heartbeat_ms;      /* of a followed bucket's consumer; two missing ones: it is made anew */
        unsigned check_interval_ms; /* between looks for keys that vanished without a message */
        size_t buffer_bytes;        /* unread by a session when a watch of it ends */
        unsigned per_session;
        unsigned total;
        unsigned buckets; /* followed at a time, for watches and the near cache */
    } watches;

    struct {
        struct conf_strings buckets; /* shell patterns; cached from the start */
        size_t max_bytes;
        unsigned max_staleness_ms;
        unsigned idle_timeout_ms; /* without a cached read a bucket that is in no pattern leaves the cache */
    } cache;

    struct {
        unsigned timeout_ms;         /* default deadline of a call */
        unsigned max_timeout_ms;     /* longest that a caller may ask for */
        unsigned attempt_timeout_ms; /* after this long without an answer a request is sent again */
        unsigned retry_min_ms;       /* backoff, full jitter */
        unsigned retry_max_ms;
        unsigned drain_timeout_ms; /* at the daemon's end, for calls in flight */
        enum conf_busy_poll busy_poll;
    } calls;

    struct {
        size_t frame_bytes;
        unsigned frame_elements;
        unsigned frame_depth;
        unsigned sessions;
        unsigned calls;             /* in flight, all sessions */
        unsigned calls_per_session; /* in flight */
        size_t call_bytes;          /* memory of calls in flight, all sessions */
        size_t call_bytes_per_session;
        size_t out_buffer_bytes;   /* unread answers of one session */
        unsigned stall_timeout_ms; /* a session that reads nothing for so long, with answers waiting, is ended */
        size_t out_bytes;
        unsigned message_timeout_ms;
        unsigned user_percent;
    } limits;

    struct {
        struct conf_access_rule *rules;
        size_t count; /* 0: everybody who may open the socket may do everything */
    } access;

    struct {
        enum conf_log_level level;
        unsigned slow_turn_ms; /* of processor time; 0: not measured */
    } log;
};

#define CONF_ERROR_BYTES 512

/*
 * Fills *conf with the defaults, as an empty file would. $RUNTIME_DIRECTORY, where
 * set, is the directory of the default socket path.
 * 0, or -1 when memory ran out; then *conf is empty.
 */
int conf_set_defaults(struct conf *conf);

/*
 * Reads the file at path over the defaults.
 * 0, or -1 with a sentence "FILE:LINE:COLUMN: what is wrong, and what was expected"
 * in error; then *conf is empty. Release with conf_free.
 */
int conf_read(struct conf *conf, const char *path, char error[CONF_ERROR_BYTES]);

/* As conf_read, from length bytes of text in memory; name stands for the file in errors. */
int conf_parse(struct conf *conf, const char *name, const char *text, size_t length, char error[CONF_ERROR_BYTES]);

/* Frees what *conf owns and empties it. */
void conf_free(struct conf *conf);

/*
 * Compares for a reload: moves what can be applied to a running daemon (log, access,
 * buckets, watches, cache, calls, limits, and of nats the hang, reconnect, ping and outage times) from
 * fresh into running; calls changed_fixed for every other setting that differs,
 * with its dotted name ("listen.path"): it takes a restart. What it replaced is
 * in fresh afterwards: release that with conf_free as ever.
 */
void conf_apply_live(struct conf *running, struct conf *fresh, void (*changed_fixed)(void *arg, const char *name),
                     void *arg);

#endif
