/*
 * reload: read the configuration again, and let each module know.
 *
 * Used by main on SIGHUP. Either the whole new configuration takes effect, save settings that need a restart, or, if
 * anything is wrong with it, none of it. A module that keeps something of the configuration has one function for it,
 * which is called here.
 */
#ifndef DAEMON_RELOAD_H
#define DAEMON_RELOAD_H

struct busy_poll;
struct conf;
struct dispatcher;
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
};

void reload(const struct reload *modules);

#endif
