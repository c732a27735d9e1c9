/*
 * conf: read the configuration file into one struct.
 *
 * Used by the daemon's main, which passes the parts on. Promises that a struct
 * conf that conf_read or conf_set_defaults filled is complete and within the
 * documented ranges: nobody needs to check it again. conf/settings.md describes
 * each setting, with its unit, range and default.
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
/* Whether the loop may poll for the next message without sleeping. */
enum conf_busy_poll { CONF_BUSY_POLL_AUTO, CONF_BUSY_POLL_OFF };
/* When independent writes to one bucket are sent as one atomic batch. */
enum conf_group_commit { CONF_GROUP_COMMIT_AUTO, CONF_GROUP_COMMIT_ON, CONF_GROUP_COMMIT_OFF };
enum conf_log_level { CONF_LOG_ERROR, CONF_LOG_WARNING, CONF_LOG_INFO, CONF_LOG_DEBUG };

/* What an access rule allows; each value includes the ones before it. */
enum conf_access { CONF_ACCESS_NONE, CONF_ACCESS_READ, CONF_ACCESS_WRITE, CONF_ACCESS_ADMIN };

/* One rule of the list. The first rule that matches the peer and the bucket decides. */
struct conf_access_rule {
    struct conf_strings users; /* names or numeric ids; both lists empty: everybody */
    struct conf_strings groups;
    struct conf_strings buckets; /* shell patterns */
    enum conf_access allow;
    unsigned line; /* of the file */
};

/* Where the value of a setting comes from. */
enum conf_origin_kind {
    CONF_ORIGIN_DEFAULT,
    CONF_ORIGIN_ENVIRONMENT, /* $RUNTIME_DIRECTORY */
    CONF_ORIGIN_FILE,
    CONF_ORIGIN_SOCKET_UNIT /* systemd has opened the socket: the setting has no effect */
};

struct conf_origin {
    enum conf_origin_kind kind;
    unsigned line;      /* CONF_ORIGIN_FILE */
    bool needs_restart; /* the file has another value, which a restart would apply */
};

/* The embedded server may store this much beyond nats.max_store: it is reserved for deletes and purges. */
#define CONF_STORE_RESERVE_BYTES (256ull * 1024 * 1024)

struct conf {
    char *file;                  /* that was read; NULL: none */
    struct conf_origin *origins; /* of each setting, in the order of conf_settings (setting.h) */

    struct {
        char *path;
        mode_t mode;
        char *owner; /* name or numeric id; NULL: the daemon's own */
        char *group;
        unsigned backlog;
    } listen;

    struct {
        enum conf_nats_mode mode;

        /* embedded */
        char *data_dir;
        char *server_binary; /* path or name of the nats-server program */
        bool sync_always;    /* sync_interval: always; otherwise sync_interval_ms */
        unsigned sync_interval_ms;
        uint64_t max_store_bytes; /* 0: as much as the disk holds */
        unsigned hang_timeout_ms; /* a server that does not answer for this long is restarted */

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
        char *name; /* of the daemon's connection and consumers; NULL: derived from the host name and listen.path */
        unsigned connect_timeout_ms;
        unsigned reconnect_min_ms; /* backoff between attempts, full jitter */
        unsigned reconnect_max_ms;
        unsigned
            ping_interval_ms;    /* of the round-trip check; after two unanswered ones the connection counts as lost */
        unsigned outage_wait_ms; /* how long after a lost connection new calls wait for the next one */
    } nats;

    struct {
        unsigned metadata_ttl_s;
        enum conf_group_commit group_commit;
    } buckets;

    struct {
        unsigned heartbeat_ms;          /* of a followed bucket's consumer; after two missing ones it is recreated */
        unsigned reconcile_interval_ms; /* between searches for keys that vanished without a message */
        size_t buffer_bytes;            /* unread bytes of a session at which its watch ends */
        unsigned max_per_session;
        unsigned max_filters;
        unsigned max_buckets; /* followed at a time, for watches and cached reads */
    } watches;

    struct {
        unsigned lease_ttl_ms;
        unsigned max;
        unsigned max_per_session;
    } locks;

    struct {
        struct conf_strings buckets; /* shell patterns; loaded from the start */
        size_t max_bytes;
        unsigned max_staleness_ms;
        unsigned idle_timeout_ms; /* a bucket that matches no pattern is unloaded after this long without a read */
    } cache;

    struct {
        unsigned timeout_ms;         /* default deadline of a call */
        unsigned max_timeout_ms;     /* maximum that a caller may request */
        unsigned attempt_timeout_ms; /* after this long without an answer a request is retried */
        unsigned retry_min_ms;       /* backoff, full jitter */
        unsigned retry_max_ms;
        unsigned drain_timeout_ms; /* at shutdown, for calls in flight */
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
        unsigned stall_timeout_ms; /* a session that reads nothing for this long, with answers waiting, is closed */
        size_t out_bytes;
        unsigned message_timeout_ms;
        unsigned user_percent;
    } limits;

    struct {
        struct conf_access_rule *rules;
        size_t count; /* 0: everybody who can open the socket may do everything */
    } access;

    struct {
        char *listen; /* "unix:/PATH" or "ADDRESS:PORT"; NULL: no HTTP */
        mode_t mode;  /* of the Unix socket */
        char *group;
        struct conf_strings buckets; /* names */
    } metrics;

    struct {
        enum conf_log_level level;
        unsigned slow_turn_ms; /* of processor time; 0: not measured */
        unsigned slow_call_ms; /* 0: slow calls are not logged */
    } log;
};

#define CONF_ERROR_BYTES 512

/*
 * Fill *conf with the defaults, as an empty file does. If $RUNTIME_DIRECTORY is set,
 * it is the directory of the default socket path.
 * Return 0, or -1 if memory ran out; then *conf is empty.
 */
int conf_set_defaults(struct conf *conf);

/*
 * Read the file at path over the defaults.
 * Return 0, or -1 with a sentence "FILE:LINE:COLUMN: what is wrong, and what was expected"
 * in error; then *conf is empty. Release with conf_free.
 */
int conf_read(struct conf *conf, const char *path, char error[CONF_ERROR_BYTES]);

/* Do the same with length bytes of text in memory; errors call the file name. */
int conf_parse(struct conf *conf, const char *name, const char *text, size_t length, char error[CONF_ERROR_BYTES]);

/* Free what *conf owns and empty it. */
void conf_free(struct conf *conf);

/* The service manager has opened the socket: the settings of listen have no effect. */
void conf_note_socket_unit(struct conf *conf);

/*
 * Apply a reload: exchange the settings that can change at run time (SETTING_LIVE,
 * and the access rules) between running and fresh. Call changed_fixed for every
 * other setting that differs, with its dotted name ("listen.path"): it needs a
 * restart. Release fresh, which then has the old values, with conf_free.
 */
void conf_apply_live(struct conf *running, struct conf *fresh, void (*changed_fixed)(void *arg, const char *name),
                     void *arg);

#endif
