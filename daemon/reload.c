#include "daemon/reload.h"

#include "daemon/base/busy_poll.h"
#include "daemon/base/log.h"
#include "daemon/base/usergroup.h"
#include "daemon/core.h"
#include "daemon/transport/server.h"

#include <stdio.h>

static void reload_on_fixed(void *arg, const char *name)
{
    (void)arg;
    log_warning("reload: %s has changed; this needs a restart", name);
}

void reload(struct core *core, const char *conf_path, struct busy_poll *busy_poll)
{
    struct conf *conf = core->conf;
    struct conf fresh;
    struct access fresh_access = {0};
    char error[CONF_ERROR_BYTES];

    if (conf_path == NULL) {
        log_warning("reload: the daemon runs without a configuration file; nothing was changed");
        return;
    }
    if (conf_read(&fresh, conf_path, error) != 0) {
        log_error("reload: %s; nothing was changed", error);
        return;
    }
    /* First of all what may fail: rules with an unknown user must not take effect as rules that name nobody. */
    if (access_set_rules(&fresh_access, &fresh, error) != 0) {
        log_error("reload: %s; nothing was changed", error);
        conf_free(&fresh);
        return;
    }
    conf_apply_live(conf, &fresh, reload_on_fixed, NULL);
    conf_free(&fresh);

    log_set_level(conf->log.level);
    server_raise_descriptor_limit(conf);
    session_list_reload(&core->sessions);
    dispatcher_reload(&core->dispatcher, &fresh_access);
    recheck_start(&core->sessions);
    store_reload(&core->store);
    busy_poll_allow(busy_poll, conf->calls.busy_poll == CONF_BUSY_POLL_AUTO);
    monitor_reload(&core->monitor);
    log_info("reload: %s is in effect", conf_path);
}

int reload_check_names(const struct conf *conf, char error[CONF_ERROR_BYTES])
{
    const struct {
        const char *setting;
        const char *kind;
        const char *name;
        bool (*find)(const char *name, unsigned *id);
    } names[] = {{"listen.owner", "user", conf->listen.owner, usergroup_find_user},
                 {"listen.group", "group", conf->listen.group, usergroup_find_group},
                 {"metrics.group", "group", conf->metrics.group, usergroup_find_group}};
    struct access access = {0};
    unsigned id;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].name != NULL && !names[i].find(names[i].name, &id)) {
            snprintf(error, CONF_ERROR_BYTES, "%s: unknown %s \"%s\"", names[i].setting, names[i].kind, names[i].name);
            return -1;
        }
    }
    if (access_set_rules(&access, conf, error) != 0)
        return -1;
    access_free(&access);
    return 0;
}
