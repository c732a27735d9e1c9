/* The verb dump: what daemon.dump answers, as tables. */
#include "client/kvctl/kvctl.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A list of daemon.dump: its members that are shown, which end with NULL. */
struct dump_list {
    const char *name;
    const char *columns[TABLE_COLUMNS_MAX + 1];
};

static const struct dump_list dump_lists[] = {
    {"sessions", {"id", "pid", "uid", "state", "calls", "call_bytes", "unread_bytes", "waiting_bytes", "watches"}},
    {"calls", {"id", "pid", "uid", "method", "bucket", "state", "age_ms", "bytes"}},
    {"requests", {"kind", "state", "age_ms", "attempts", "call", "trouble"}},
    {"watches", {"id", "pid", "uid", "bucket", "state", "filters"}},
    {"followed_buckets", {"bucket", "feed", "position", "watches", "waiting_calls", "keys", "bytes", "answers_reads"}},
    {"group_commits", {"bucket", "waiting", "single", "in_batch"}},
};

/* Write a name as people read it: "followed_buckets" is "followed buckets". change is toupper for titles, or NULL. */
static struct short_text dump_title(const char *name, int (*change)(int character))
{
    struct short_text title = {.text = ""};

    for (size_t i = 0; i < sizeof(title.text) - 1 && name[i] != '\0'; i++) {
        char character = name[i] == '_' ? ' ' : name[i];
        title.text[i] = change != NULL ? (char)change(character) : character;
    }
    return title;
}

static struct short_text dump_cell(const struct kvs_value *value)
{
    struct short_text text = {.text = "-"};

    switch (kvs_value_type(value)) {
    case KVS_NIL:
        break;
    case KVS_BOOLEAN:
        strcpy(text.text, kvs_value_boolean(value) ? "yes" : "no");
        break;
    case KVS_INTEGER:
        snprintf(text.text, sizeof(text.text), "%" PRIu64, kvs_value_unsigned(value));
        break;
    case KVS_ARRAY:
        text = text_of_value(kvs_value_item(value, 0));
        if (kvs_value_count(value) > 1)
            snprintf(text.text, sizeof(text.text), "%.40s and %zu more", text_of_value(kvs_value_item(value, 0)).text,
                     kvs_value_count(value) - 1);
        break;
    default:
        text = text_of_value(value);
        break;
    }
    return text;
}

/* "requests: 12 (5 sent, 7 queued)". */
static void dump_print_heading(const char *name, const struct kvs_value *list)
{
    const struct kvs_value *states = kvs_value_member(list, "states"), *idle = kvs_value_member(list, "idle");

    printf("%s: %" PRIu64, dump_title(name, NULL).text, kvs_value_unsigned(kvs_value_member(list, "count")));
    if (idle != NULL)
        printf(" (and %" PRIu64 " idle)", kvs_value_unsigned(idle));
    for (size_t i = 0; i < kvs_value_count(states); i++)
        printf("%s%" PRIu64 " %s", i == 0 ? " (" : ", ", kvs_value_unsigned(kvs_value_item(states, i)),
               text_of_value(kvs_value_key(states, i)).text);
    puts(kvs_value_count(states) > 0 ? ")" : "");
}

static enum status dump_print_list(const struct dump_list *form, const struct kvs_value *list)
{
    const struct kvs_value *items = kvs_value_member(list, "list");
    size_t columns = 0, count = kvs_value_count(items);
    struct table table;

    dump_print_heading(form->name, list);
    if (count == 0)
        return STATUS_OK;
    while (form->columns[columns] != NULL)
        columns++;
    table_begin(&table, columns);
    for (size_t column = 0; column < columns; column++)
        table_add(&table, "%s", dump_title(form->columns[column], toupper).text);
    for (size_t i = 0; i < count; i++) {
        for (size_t column = 0; column < columns; column++)
            table_add(&table, "%s", dump_cell(kvs_value_member(kvs_value_item(items, i), form->columns[column])).text);
    }
    enum status status = table_print(&table);
    uint64_t all = kvs_value_unsigned(kvs_value_member(list, "count"));
    if (status == STATUS_OK)
        print_omitted(count, all);
    return status;
}

static enum status dump_print(const struct kvs_value *dump)
{
    enum status status = STATUS_OK;

    for (size_t i = 0; i < sizeof(dump_lists) / sizeof(dump_lists[0]) && status == STATUS_OK; i++) {
        if (i > 0)
            putchar('\n');
        status = dump_print_list(&dump_lists[i], kvs_value_member(dump, dump_lists[i].name));
    }
    return status;
}

enum status dump_run(struct invocation *invocation)
{
    struct kvs_dump_options options = KVS_DUMP_OPTIONS(.timeout_s = invocation->timeout_s);
    struct kvs_value *dump;

    if (!arguments_limit(invocation, &options.limit))
        return STATUS_FAILED;
    if (kvs_daemon_dump(invocation->kvs, &options, &dump) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    enum status status = invocation->json ? print_and_free(kvs_value_json(dump)) : dump_print(dump);
    kvs_free(dump);
    return status;
}
