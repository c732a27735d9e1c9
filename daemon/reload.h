/*
 * reload: read the configuration again, and apply it in each module.
 *
 * Used by main on SIGHUP. The whole new configuration takes effect, except settings that need a restart. If
 * anything is wrong with it, nothing changes. A module that keeps something of the configuration has one function for
 * it, which is called here.
 */
#ifndef DAEMON_RELOAD_H
#define DAEMON_RELOAD_H

#include "conf/conf.h"

struct busy_poll;
struct core;

/* conf_path is NULL: the daemon runs on the defaults. */
void reload(struct core *core, const char *conf_path, struct busy_poll *busy_poll);

/* Look up the users and groups that a configuration names. Return 0, or -1 with a sentence in error. */
int reload_check_names(const struct conf *conf, char error[CONF_ERROR_BYTES]);

#endif
