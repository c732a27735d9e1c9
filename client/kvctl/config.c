/* The verb config: the configuration in effect, and where each value comes from. */
#include "client/kvctl/kvctl.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_BYTES 512

/* Write "[a, b]", or only "a" for a text. A list that does not fit ends with "...]". */
static void config_write_value(const struct kvs_value *value, char *text, size_t size)
{
    size_t used = 0;

    if (kvs_value_type(value) != KVS_ARRAY) {
        snprintf(text, size, "%s", text_of_value(value).text);
        return;
    }
    used += (size_t)snprintf(text, size, "[");
    for (size_t i = 0; i < kvs_value_count(value) && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", i > 0 ? ", " : "",
                                 text_of_value(kvs_value_item(value, i)).text);
    if (used + 1 < size)
        snprintf(text + used, size - used, "]");
    else
        memcpy(text + size - sizeof("...]"), "...]", sizeof("...]"));
}

static bool config_text_is(const struct kvs_value *value, const char *text)
{
    size_t size;
    const char *bytes = kvs_value_bytes(value, &size);

    return bytes != NULL && size == strlen(text) && memcmp(bytes, text, size) == 0;
}

/* "FILE:LINE", "default" or another word, and what else is to be known. */
static void config_add_origin(struct table *table, const struct kvs_value *setting, const struct kvs_value *file)
{
    const struct kvs_value *from = kvs_value_member(setting, "from");
    bool needs_restart = kvs_value_boolean(kvs_value_member(setting, "needs_restart"));
    const char *note = needs_restart ? " (the file has another value now, which needs a restart)" : "";
    size_t size;
    const char *path = kvs_value_bytes(file, &size);

    if (config_text_is(from, "file"))
        table_add(table, "%s:%" PRIu64 "%s", text_of_bytes(path, path != NULL ? size : 0).text,
                  kvs_value_unsigned(kvs_value_member(setting, "line")), note);
    else if (config_text_is(from, "environment"))
        table_add(table, "$RUNTIME_DIRECTORY%s", note);
    else
        table_add(table, "%s%s", text_of_value(from).text, note);
}

static void config_add_setting(struct table *table, const char *name, const struct kvs_value *setting,
                               const struct kvs_value *file)
{
    const struct kvs_value *value = kvs_value_member(setting, "value");
    bool is_default = config_text_is(kvs_value_member(setting, "from"), "default");
    bool is_secret = kvs_value_boolean(kvs_value_member(setting, "secret"));
    char text[LIST_BYTES] = "-";

    if (is_secret && !is_default)
        snprintf(text, sizeof(text), "(secret)");
    else if (kvs_value_type(value) != KVS_NIL)
        config_write_value(value, text, sizeof(text));
    table_add(table, "%s", name);
    table_add(table, "%s", text);
    config_add_origin(table, setting, file);
}

static void config_add_rule(struct table *table, size_t number, const struct kvs_value *rule,
                            const struct kvs_value *file)
{
    static const char *const members[] = {"users", "groups", "buckets"};
    char text[4 * LIST_BYTES], list[LIST_BYTES]; /* three lists with their names, and what is allowed */
    size_t used = 0;
    size_t size;
    const char *path = kvs_value_bytes(file, &size);

    for (size_t i = 0; i < 3; i++) {
        const struct kvs_value *names = kvs_value_member(rule, members[i]);
        if (kvs_value_count(names) == 0)
            continue;
        config_write_value(names, list, sizeof(list));
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s: %s, ", members[i], list);
    }
    snprintf(text + used, sizeof(text) - used, "allow: %s", text_of_value(kvs_value_member(rule, "allow")).text);
    table_add(table, "access[%zu]", number);
    table_add(table, "%s", text);
    table_add(table, "%s:%" PRIu64, text_of_bytes(path, path != NULL ? size : 0).text,
              kvs_value_unsigned(kvs_value_member(rule, "line")));
}

static enum status config_print(const struct invocation *invocation, const struct kvs_value *config)
{
    const struct kvs_value *file = kvs_value_member(config, "file"), *settings = kvs_value_member(config, "settings");
    const struct kvs_value *access = kvs_value_member(config, "access");
    const char *filter = invocation->argument_count > 0 ? invocation->arguments[0] : "*";
    bool only_set = arguments_flag(invocation, "set");
    struct table table;
    size_t rows = 0;

    table_begin(&table, 3);
    table.folds = true;
    for (size_t i = 0; i < kvs_value_count(settings); i++) {
        struct short_text name = text_of_value(kvs_value_key(settings, i));
        const struct kvs_value *setting = kvs_value_item(settings, i);
        if (fnmatch(filter, name.text, 0) != 0 ||
            (only_set && config_text_is(kvs_value_member(setting, "from"), "default")))
            continue;
        config_add_setting(&table, name.text, setting, file);
        rows++;
    }
    for (size_t i = 0; i < kvs_value_count(access) && fnmatch(filter, "access", 0) == 0; i++, rows++)
        config_add_rule(&table, i + 1, kvs_value_item(access, i), file);
    enum status status = table_print(&table);
    if (status == STATUS_OK && rows == 0 && invocation->argument_count > 0)
        return report_absent("no setting matches %.200s", filter);
    return status;
}

enum status config_run(struct invocation *invocation)
{
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = invocation->timeout_s);
    struct kvs_value *config;

    if (invocation->json && (invocation->argument_count > 0 || arguments_flag(invocation, "set")))
        return report("--json prints the whole configuration: it excludes FILTER and --set");
    if (kvs_daemon_config(invocation->kvs, &options, &config) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    enum status status = invocation->json ? print_and_free(kvs_value_json(config)) : config_print(invocation, config);
    kvs_free(config);
    return status;
}
