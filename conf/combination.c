#include "conf/combination.h"

#include <stdio.h>
#include <string.h>

/* The kinds of credentials. NATS accepts one of them; a password belongs to its user. */
static const char *const credentials[] = {"nats.credentials", "nats.user", "nats.token", "nats.nkey_seed"};

static int check_order(const struct reader *reader, const struct conf *conf, const struct setting *lesser,
                       const struct setting *greater)
{
    char lesser_text[32], greater_text[32];

    if (setting_number(lesser, conf) <= setting_number(greater, conf))
        return 0;
    setting_format_number(lesser, setting_number(lesser, conf), lesser_text, sizeof(lesser_text));
    setting_format_number(greater, setting_number(greater, conf), greater_text, sizeof(greater_text));
    struct reader_place place = reader_place_of(reader, lesser);
    if (place.line == 0)
        place = reader_place_of(reader, greater);
    return reader_fail(reader, place, "%s is %s and %s is %s%s: expected %s to be at most %s", lesser->name,
                       lesser_text, greater->name, greater_text,
                       reader_place_of(reader, greater).line == 0 ? " (its default)" : "", lesser->name, greater->name);
}

static int check_orders(const struct reader *reader, const struct conf *conf)
{
    for (size_t i = 0; i < conf_setting_count; i++) {
        const struct setting *setting = &conf_settings[i];

        for (const char *const *other = setting->at_most; other != NULL && *other != NULL; other++) {
            if (check_order(reader, conf, setting, setting_find(*other)) != 0)
                return -1;
        }
    }
    return 0;
}

/* A setting that has no effect in the chosen mode was meant to have one. */
static int check_mode(const struct reader *reader, const struct conf *conf)
{
    bool is_embedded = conf->nats.mode == CONF_NATS_EMBEDDED;
    unsigned other_mode = is_embedded ? SETTING_EXTERNAL : SETTING_EMBEDDED;
    const char *mode = is_embedded ? "embedded" : "external";
    const char *other = is_embedded ? "external" : "embedded";

    if (is_embedded && reader->tls.line > 0)
        return reader_fail(reader, reader->tls, "nats.tls is given, but nats.mode is embedded: expected mode external");
    for (size_t i = 0; i < conf_setting_count; i++) {
        const struct setting *setting = &conf_settings[i];

        if ((setting->flags & other_mode) != 0 && reader_place_of(reader, setting).line > 0)
            return reader_fail(reader, reader_place_of(reader, setting),
                               "%s is given, but nats.mode is %s: expected mode %s", setting->name, mode, other);
    }
    if (!is_embedded && conf->nats.servers.count == 0)
        return reader_fail(reader, reader_place_of(reader, setting_find("nats.mode")),
                           "nats.mode is external, but nats.servers is not given: expected a list of URLs, such as "
                           "[nats://127.0.0.1:4222]");
    return 0;
}

static int check_credentials(const struct reader *reader, const struct conf *conf)
{
    const struct setting *first = NULL;

    for (size_t i = 0; i < sizeof(credentials) / sizeof(credentials[0]); i++) {
        const struct setting *setting = setting_find(credentials[i]);

        if (!setting_is_present(setting, conf))
            continue;
        if (first != NULL)
            return reader_fail(reader, reader_place_of(reader, setting),
                               "%s and %s are both given: expected one kind of credentials", first->name,
                               setting->name);
        first = setting;
    }
    return 0;
}

/* A user without a password, or the other way round, is a mistake. */
static int check_needs(const struct reader *reader, const struct conf *conf)
{
    for (size_t i = 0; i < conf_setting_count; i++) {
        const struct setting *setting = &conf_settings[i];

        if (setting->needs != NULL && setting_is_present(setting, conf) &&
            !setting_is_present(setting_find(setting->needs), conf))
            return reader_fail(reader, reader_place_of(reader, setting), "%s is given without %s: expected both",
                               setting->name, setting->needs);
    }
    return 0;
}

/* A group has no effect on an IP address. Two sockets cannot have one path. */
static int check_metrics(const struct reader *reader, const struct conf *conf)
{
    if (conf->metrics.listen != NULL && strncmp(conf->metrics.listen, "unix:", 5) == 0) {
        if (strcmp(conf->metrics.listen + 5, conf->listen.path) != 0)
            return 0;
        return reader_fail(reader, reader_place_of(reader, setting_find("metrics.listen")),
                           "metrics.listen has the path of listen.path: expected another one");
    }
    if (conf->metrics.group != NULL)
        return reader_fail(reader, reader_place_of(reader, setting_find("metrics.group")),
                           "metrics.group is given, but metrics.listen is not a Unix socket: expected unix:/PATH");
    return 0;
}

int combination_check(const struct reader *reader, const struct conf *conf)
{
    if (check_orders(reader, conf) != 0 || check_mode(reader, conf) != 0 || check_credentials(reader, conf) != 0 ||
        check_metrics(reader, conf) != 0)
        return -1;
    return check_needs(reader, conf);
}
