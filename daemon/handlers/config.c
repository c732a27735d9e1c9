/*
 * daemon.config: the configuration in effect, and where each value comes from.
 *
 * Values are texts in the form that the file has, so that they can be compared with it. Secrets are never packed. The
 * answer is bounded by the size of the file, which conf_read limits.
 */
#include "conf/setting.h"
#include "daemon/handlers/methods.h"
#include "daemon/rpc/pack.h"

#include <string.h>

#define NUMBER_BYTES 64

static const char *config_origin_name(enum conf_origin_kind kind)
{
    switch (kind) {
    case CONF_ORIGIN_DEFAULT:
        return "default";
    case CONF_ORIGIN_ENVIRONMENT:
        return "environment";
    case CONF_ORIGIN_FILE:
        return "file";
    case CONF_ORIGIN_SOCKET_UNIT:
        return "socket unit";
    }
    return "unknown";
}

static void config_pack_strings(msgpack_packer *packer, const struct conf_strings *strings)
{
    msgpack_pack_array(packer, strings->count);
    for (size_t i = 0; i < strings->count; i++)
        pack_foreign_text(packer, strings->items[i]);
}

/* Pack a number in the form of the file, without the quotes of an octal one. */
static void config_pack_number(msgpack_packer *packer, const struct setting *setting, const struct conf *conf)
{
    char text[NUMBER_BYTES];

    setting_format_number(setting, setting_number(setting, conf), text, sizeof(text));
    size_t quotes = text[0] == '"';
    msgpack_pack_str_with_body(packer, text + quotes, strlen(text) - 2 * quotes);
}

static void config_pack_value(msgpack_packer *packer, const struct setting *setting, const struct conf *conf,
                              const struct conf_origin *origin)
{
    const void *member = (const char *)conf + setting->offset;
    bool is_text = setting->type == SETTING_STRING || setting->type == SETTING_STRINGS;

    pack_str(packer, "value");
    if (origin->kind == CONF_ORIGIN_SOCKET_UNIT || (setting->flags & SETTING_SECRET) != 0 ||
        (is_text && !setting_is_present(setting, conf)))
        msgpack_pack_nil(packer);
    else if (setting->type == SETTING_STRINGS)
        config_pack_strings(packer, member);
    else if (setting->type == SETTING_STRING)
        pack_foreign_text(packer, *(char *const *)member);
    else
        config_pack_number(packer, setting, conf);
}

static void config_pack_setting(msgpack_packer *packer, const struct setting *setting, const struct conf *conf)
{
    const struct conf_origin *origin = &conf->origins[setting - conf_settings];
    bool is_secret = (setting->flags & SETTING_SECRET) != 0, has_line = origin->kind == CONF_ORIGIN_FILE;

    pack_str(packer, setting->name);
    msgpack_pack_map(packer, 2u + has_line + is_secret + origin->needs_restart);
    config_pack_value(packer, setting, conf, origin);
    pack_named_str(packer, "from", config_origin_name(origin->kind));
    if (has_line)
        pack_named_integer(packer, "line", origin->line);
    if (is_secret)
        pack_named_bool(packer, "secret", true);
    if (origin->needs_restart)
        pack_named_bool(packer, "needs_restart", true);
}

static void config_pack_rule(msgpack_packer *packer, const struct conf_access_rule *rule)
{
    static const char *const names[] = {"none", "read", "write", "admin"};

    msgpack_pack_map(packer, 5);
    pack_str(packer, "users");
    config_pack_strings(packer, &rule->users);
    pack_str(packer, "groups");
    config_pack_strings(packer, &rule->groups);
    pack_str(packer, "buckets");
    config_pack_strings(packer, &rule->buckets);
    pack_named_str(packer, "allow", names[rule->allow]);
    pack_named_integer(packer, "line", rule->line);
}

void handle_daemon_config(struct call *call)
{
    const struct conf *conf = call->dispatcher->conf;
    msgpack_packer *packer = call_begin_result(call);

    msgpack_pack_map(packer, 3);
    pack_str(packer, "file");
    if (conf->file != NULL)
        pack_foreign_text(packer, conf->file);
    else
        msgpack_pack_nil(packer);
    pack_str(packer, "settings");
    msgpack_pack_map(packer, conf_setting_count);
    for (size_t i = 0; i < conf_setting_count; i++)
        config_pack_setting(packer, &conf_settings[i], conf);
    pack_str(packer, "access");
    msgpack_pack_array(packer, conf->access.count);
    for (size_t i = 0; i < conf->access.count; i++)
        config_pack_rule(packer, &conf->access.rules[i]);
    call_end_result(call);
}
