#include "conf/conf.h"

#include "conf/combination.h"
#include "conf/reader.h"
#include "conf/setting.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Far above any real file. A wrong path, such as a device or a log, must not be read without end. */
#define FILE_BYTES_MAX ((size_t)1024 * 1024)

/*
 * Under systemd the default path of the socket is in the unit's RuntimeDirectory, or in the first of several. Ignore a
 * directory that is not absolute or too long for a socket's path: systemd does not set such a value.
 */
static enum setting_result take_runtime_directory(struct conf *conf)
{
    const struct setting *path_setting = setting_find("listen.path");
    const char *directories = getenv("RUNTIME_DIRECTORY");
    char path[4096];

    if (directories == NULL || *directories != '/')
        return SETTING_TAKEN;
    int length = snprintf(path, sizeof(path), "%.*s/kvstored.sock", (int)strcspn(directories, ":"), directories);
    if (length < 0 || (uint64_t)length > path_setting->max)
        return SETTING_TAKEN;
    conf->origins[path_setting - conf_settings].kind = CONF_ORIGIN_ENVIRONMENT;
    return setting_take(path_setting, conf, path, (size_t)length);
}

/* Set the members that have no setting of their own. */
static void derive_members(struct conf *conf)
{
    conf->nats.sync_always = conf->nats.sync_interval_ms == 0;
}

int conf_set_defaults(struct conf *conf)
{
    memset(conf, 0, sizeof(*conf));
    conf->origins = calloc(conf_setting_count, sizeof(*conf->origins));
    if (conf->origins == NULL)
        goto no_memory;
    for (size_t i = 0; i < conf_setting_count; i++) {
        const struct setting *setting = &conf_settings[i];

        if (setting->initial == NULL)
            continue;
        if (setting_take(setting, conf, setting->initial, strlen(setting->initial)) == SETTING_NO_MEMORY)
            goto no_memory;
    }
    if (take_runtime_directory(conf) == SETTING_NO_MEMORY)
        goto no_memory;
    derive_members(conf);
    return 0;

no_memory:
    conf_free(conf);
    return -1;
}

/* Note which settings the file has, and in which lines. Return 0, or -1 if memory ran out. */
static int note_origins(struct conf *conf, const struct reader *reader)
{
    for (size_t i = 0; i < conf_setting_count; i++) {
        size_t line = reader_place_of(reader, &conf_settings[i]).line;
        if (line > 0)
            conf->origins[i] = (struct conf_origin){.kind = CONF_ORIGIN_FILE, .line = (unsigned)line};
    }
    conf->file = strdup(reader->name);
    return conf->file != NULL ? 0 : reader_fail(reader, (struct reader_place){0, 0}, "out of memory");
}

int conf_parse(struct conf *conf, const char *name, const char *text, size_t length, char error[CONF_ERROR_BYTES])
{
    struct reader reader;

    memset(conf, 0, sizeof(*conf));
    if (reader_init(&reader, name, error) != 0)
        return -1;
    if (conf_set_defaults(conf) != 0) {
        reader_fail(&reader, (struct reader_place){0, 0}, "out of memory");
        goto failed;
    }
    if (reader_read(&reader, conf, text, length) != 0 || combination_check(&reader, conf) != 0 ||
        note_origins(conf, &reader) != 0)
        goto failed;
    derive_members(conf);
    reader_free(&reader);
    return 0;

failed:
    reader_free(&reader);
    conf_free(conf);
    return -1;
}

int conf_read(struct conf *conf, const char *path, char error[CONF_ERROR_BYTES])
{
    const struct reader unread = {.name = path, .error = error};
    const struct reader_place nowhere = {0, 0};
    char *text = NULL;
    int result = -1;

    memset(conf, 0, sizeof(*conf));
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return reader_fail(&unread, nowhere, "cannot be opened (%s): expected a readable file", strerror(errno));
    text = malloc(FILE_BYTES_MAX + 1);
    if (text == NULL) {
        reader_fail(&unread, nowhere, "out of memory");
        goto file_over;
    }

    size_t length = fread(text, 1, FILE_BYTES_MAX + 1, file);
    if (ferror(file))
        reader_fail(&unread, nowhere, "cannot be read (%s): expected a readable file", strerror(errno));
    else if (length > FILE_BYTES_MAX)
        reader_fail(&unread, nowhere, "is too large: expected at most %zu bytes", FILE_BYTES_MAX);
    else
        result = conf_parse(conf, path, text, length, error);
    free(text);

file_over:
    fclose(file);
    return result;
}

static void free_access(struct conf *conf)
{
    for (size_t i = 0; i < conf->access.count; i++) {
        for (size_t k = 0; k < conf_rule_setting_count; k++)
            setting_clear(&conf_rule_settings[k], &conf->access.rules[i]);
    }
    free(conf->access.rules);
}

void conf_free(struct conf *conf)
{
    for (size_t i = 0; i < conf_setting_count; i++)
        setting_clear(&conf_settings[i], conf);
    free_access(conf);
    free(conf->origins);
    free(conf->file);
    memset(conf, 0, sizeof(*conf));
}

void conf_note_socket_unit(struct conf *conf)
{
    for (size_t i = 0; i < conf_setting_count; i++) {
        if (strncmp(conf_settings[i].name, "listen.", 7) == 0)
            conf->origins[i] = (struct conf_origin){.kind = CONF_ORIGIN_SOCKET_UNIT};
    }
}

/* The origin of a setting after a reload, which has applied it or not. */
static void renew_origin(struct conf_origin *running, const struct conf_origin *fresh, bool needs_restart)
{
    if (running->kind == CONF_ORIGIN_SOCKET_UNIT)
        return;
    if (!needs_restart)
        *running = *fresh;
    running->needs_restart = needs_restart;
}

void conf_apply_live(struct conf *running, struct conf *fresh, void (*changed_fixed)(void *arg, const char *name),
                     void *arg)
{
    bool has_mode_changed = running->nats.mode != fresh->nats.mode;

    for (size_t i = 0; i < conf_setting_count; i++) {
        const struct setting *setting = &conf_settings[i];

        /* What is for one mode waits for the restart, as the mode does. */
        bool is_of_mode = (setting->flags & (SETTING_EMBEDDED | SETTING_EXTERNAL)) != 0;
        bool is_live = (setting->flags & SETTING_LIVE) != 0 && !(is_of_mode && has_mode_changed);
        bool needs_restart = !is_live && !setting_is_equal(setting, running, fresh);

        renew_origin(&running->origins[i], &fresh->origins[i], needs_restart);
        if (is_live)
            setting_exchange(setting, running, fresh);
        else if (needs_restart)
            changed_fixed(arg, setting->name);
    }
    if (!has_mode_changed)
        running->nats.tls.enabled = fresh->nats.tls.enabled;

    struct conf_access_rule *rules = running->access.rules;
    size_t count = running->access.count;
    running->access.rules = fresh->access.rules;
    running->access.count = fresh->access.count;
    fresh->access.rules = rules;
    fresh->access.count = count;
}
