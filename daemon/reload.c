#include "daemon/reload.h"

#include "conf/conf.h"
#include "daemon/base/busy_poll.h"
#include "daemon/base/log.h"
#include "daemon/handlers/session_holding.h"
#include "daemon/handlers/watch.h"
#include "daemon/monitor/monitor.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/store/store.h"
#include "daemon/transport/server.h"
#include "daemon/transport/session.h"

static void reload_on_fixed(void *arg, const char *name)
{
    (void)arg;
    log_warning("reload: %s has changed; this needs a restart", name);
}

void reload(const struct reload *modules)
{
    struct conf *conf = modules->conf;
    struct conf fresh;
    struct access fresh_access = {0};
    char error[CONF_ERROR_BYTES];

    if (modules->conf_path == NULL) {
        log_warning("reload: the daemon runs without a configuration file; nothing was changed");
        return;
    }
    if (conf_read(&fresh, modules->conf_path, error) != 0) {
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
    session_list_reload(modules->sessions);
    dispatcher_reload(modules->dispatcher, &fresh_access);
    watches_reload(modules->dispatcher, modules->sessions);
    session_holdings_reload(modules->dispatcher, modules->sessions);
    store_reload(modules->store);
    busy_poll_allow(modules->busy_poll, conf->calls.busy_poll == CONF_BUSY_POLL_AUTO);
    monitor_reload(modules->monitor);
    log_info("reload: %s is in effect", modules->conf_path);
}
