/*
 * reload: read the configuration again, and apply it in each module.
 *
 * Used by main on SIGHUP. The whole new configuration takes effect, except settings that need a restart. If
 * anything is wrong with it, nothing changes. A module that keeps something of the configuration has one function for
 * it, which is called here.
 */
#ifndef DAEMON_RELOAD_H
#define DAEMON_RELOAD_H

struct busy_poll;
struct conf;
struct dispatcher;
struct monitor;
struct session_list;
struct store;

/* What a reload changes. */
struct reload {
    struct conf *conf;
    const char *conf_path; /* NULL: the daemon runs on the defaults */
    struct dispatcher *dispatcher;
    struct session_list *sessions;
    struct store *store;
    struct busy_poll *busy_poll;
    struct monitor *monitor;
};

void reload(const struct reload *modules);

#endif
