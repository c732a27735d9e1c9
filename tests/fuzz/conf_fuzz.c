/*
 * Read any text as a configuration. A refusal must be one sentence that begins with the file's name, and must not leak.
 * An accepted configuration must keep what conf.h promises, also after a reload.
 */
#include "conf/conf.h"
#include "conf/setting.h"

#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            abort();                                                                                                   \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length);

static void check_refusal(const struct conf *conf, const char *error)
{
    static const struct conf zeroed;

    REQUIRE(memchr(error, '\0', CONF_ERROR_BYTES) != NULL);
    REQUIRE(strncmp(error, "f.yaml:", 7) == 0 && strpbrk(error, "\r\n") == NULL);
    REQUIRE(memcmp(conf, &zeroed, sizeof(zeroed)) == 0);
}

static void check_promises(const struct conf *conf)
{
    for (size_t i = 0; i < conf_setting_count; i++) {
        const struct setting *setting = &conf_settings[i];

        if (setting->type == SETTING_STRING || setting->type == SETTING_STRINGS)
            continue;
        uint64_t number = setting_number(setting, conf);
        REQUIRE((number == 0 && setting->zero_word != NULL) || (number >= setting->min && number <= setting->max));
    }
    REQUIRE(conf->listen.path != NULL && *conf->listen.path != '\0');
    REQUIRE(conf->limits.frame_bytes <= conf->limits.out_buffer_bytes);
    REQUIRE(conf->limits.frame_bytes <= conf->limits.call_bytes_per_session);
    REQUIRE(conf->limits.call_bytes_per_session <= conf->limits.call_bytes);
    REQUIRE(conf->limits.calls_per_session <= conf->limits.calls);
    REQUIRE(conf->calls.timeout_ms <= conf->calls.max_timeout_ms);
    REQUIRE(conf->nats.sync_always == (conf->nats.sync_interval_ms == 0));
    REQUIRE((conf->nats.mode == CONF_NATS_EXTERNAL) == (conf->nats.servers.count > 0));
    REQUIRE((conf->nats.user == NULL) == (conf->nats.password == NULL));
    for (size_t i = 0; i < conf->access.count; i++)
        REQUIRE(conf->access.rules[i].buckets.count > 0);
}

static void note_change(void *arg, const char *name)
{
    REQUIRE(name != NULL);
    ++*(unsigned *)arg;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
    struct conf conf, running;
    char error[CONF_ERROR_BYTES];
    unsigned changes = 0;

    memset(error, 'x', sizeof(error));
    if (conf_parse(&conf, "f.yaml", (const char *)input, length, error) != 0) {
        check_refusal(&conf, error);
        return 0;
    }
    check_promises(&conf);
    REQUIRE(conf_set_defaults(&running) == 0);
    conf_apply_live(&running, &conf, note_change, &changes);
    conf_free(&conf);
    conf_free(&running);
    return 0;
}
