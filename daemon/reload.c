#include "daemon/reload.h"

#include "daemon/base/busy_poll.h"
#include "daemon/base/log.h"
#include "daemon/core.h"
#include "daemon/handlers/session_holding.h"
#include "daemon/handlers/watch.h"
#include "daemon/transport/server.h"

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
    watches_reload(&core->dispatcher, &core->sessions);
    session_holdings_reload(&core->dispatcher, &core->sessions);
    store_reload(&core->store);
    busy_poll_allow(busy_poll, conf->calls.busy_poll == CONF_BUSY_POLL_AUTO);
    monitor_reload(&core->monitor);
    log_info("reload: %s is in effect", conf_path);
}
