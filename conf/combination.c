#include "conf/combination.h"

#include <stdio.h>
#include <string.h>

/* Pairs of which the first must not be more than the second. */
static const struct {
    const char *less;
    const char *more;
} orders[] = {
    {"nats.reconnect_min", "nats.reconnect_max"},
    {"calls.timeout", "calls.max_timeout"},
    {"calls.retry_min", "calls.retry_max"},
    {"limits.frame_bytes", "limits.out_buffer_bytes"},
    {"limits.frame_bytes", "limits.call_bytes_per_session"},
    {"limits.call_bytes_per_session", "limits.call_bytes"},
    {"limits.calls_per_session", "limits.calls"},
};

/* Pairs of which the first is of no use without the second. */
static const struct {
    const char *given;
    const char *needed;
} companions[] = {
    {"nats.user", "nats.password"},
    {"nats.password", "nats.user"},
    {"nats.tls.certificate", "nats.tls.key"},
    {"nats.tls.key", "nats.tls.certificate"},
};

/* The kinds of credentials, of which NATS takes one. A password comes with its user. */
static const char *const credentials[] = {"nats.credentials", "nats.user", "nats.token", "nats.nkey_seed"};

static int check_order(const struct reader *reader, const struct conf *conf, const char *less, const char *more)
{
    const struct setting *lesser = setting_find(less);
    const struct setting *greater = setting_find(more);
    char lesser_text[32], greater_text[32];

    if (setting_number(lesser, conf) <= setting_number(greater, conf))
        return 0;
    setting_format_number(lesser, setting_number(lesser, conf), lesser_text, sizeof(lesser_text));
    setting_format_number(greater, setting_number(greater, conf), greater_text, sizeof(greater_text));
    struct reader_place place = reader_place_of(reader, lesser);
    if (place.line == 0)
        place = reader_place_of(reader, greater);
    return reader_fail(reader, place, "%s is %s and %s is %s%s: expected %s to be at most %s", less, lesser_text, more,
                       greater_text, reader_place_of(reader, greater).line == 0 ? " (its default)" : "", less, more);
}

/* A setting that the chosen mode would ignore was meant to do something. */
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

int combination_check(const struct reader *reader, const struct conf *conf)
{
    for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        if (check_order(reader, conf, orders[i].less, orders[i].more) != 0)
            return -1;
    }
    if (check_mode(reader, conf) != 0 || check_credentials(reader, conf) != 0)
        return -1;
    for (size_t i = 0; i < sizeof(companions) / sizeof(companions[0]); i++) {
        const struct setting *given = setting_find(companions[i].given);

        if (setting_is_present(given, conf) && !setting_is_present(setting_find(companions[i].needed), conf))
            return reader_fail(reader, reader_place_of(reader, given), "%s is given without %s: expected both",
                               companions[i].given, companions[i].needed);
    }
    return 0;
}
