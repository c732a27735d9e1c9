/* The verbs about single keys. */
#include "client/kvctl/kvctl.h"
#include "client/kvctl/safe_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum status kv_absent(const struct invocation *invocation)
{
    const char *revision = arguments_value(invocation, "revision");

    if (revision != NULL)
        return report_absent("bucket %s has no revision %s of key %s", invocation->arguments[0], revision,
                             invocation->arguments[1]);
    return report_absent("key %s does not exist in bucket %s", invocation->arguments[1], invocation->arguments[0]);
}

/* --- Reading ------------------------------------------------------------------------------- */

/* Print the value that the daemon has parsed. A key that does not exist and the value null look alike: both are absent.
 */
static enum status kv_get_json(struct invocation *invocation, const struct kvs_get_options *options)
{
    char *json;

    if (kvs_get_json(invocation->kvs, invocation->arguments[0], invocation->arguments[1], options, &json) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    if (json != NULL)
        return print_and_free(json);
    if (invocation->json)
        puts("null");
    return kv_absent(invocation);
}

static void kv_print_value(const struct invocation *invocation, const struct kvs_entry *entry)
{
    fwrite(entry->value, 1, entry->value_size, stdout);
    if (invocation->terminal && entry->value_size > 0 && entry->value[entry->value_size - 1] != '\n')
        putchar('\n');
}

static void kv_print_entry(const struct invocation *invocation, const struct kvs_entry *entry)
{
    if (invocation->json)
        print_and_free(entry != NULL ? kvs_entry_json(entry) : strdup("null"));
    else if (entry != NULL)
        kv_print_value(invocation, entry);
}

/*
 * Wait for a change. A deleted key is its marker, of any revision: one that vanished without a message has an old one,
 * or none. After the timeout, a key that does not exist is NULL, and never a marker.
 */
static enum status kv_get_waiting(struct invocation *invocation, struct kvs_get_options *options)
{
    enum status status = STATUS_OK;
    struct kvs_entry *entry;

    options->waits = true;
    if (!arguments_number(invocation, "wait-above", &options->wait_above))
        return STATUS_FAILED;
    if (kvs_get(invocation->kvs, invocation->arguments[0], invocation->arguments[1], options, &entry) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    kv_print_entry(invocation, entry);
    if (entry != NULL && entry->operation != KVS_OPERATION_PUT)
        status = kv_absent(invocation);
    else if (entry == NULL || entry->revision <= options->wait_above)
        status = report_timeout("timed out: key %s has no revision above %" PRIu64
                                " yet; allow a longer --timeout, or run it again",
                                invocation->arguments[1], options->wait_above);
    kvs_free(entry);
    return status;
}

enum status kv_get(struct invocation *invocation)
{
    struct kvs_get_options options = KVS_GET_OPTIONS(.timeout_s = invocation->timeout_s);
    enum status status = STATUS_OK;
    struct kvs_entry *entry;

    if (!arguments_number(invocation, "revision", &options.revision) ||
        !arguments_consistency(invocation, &options.consistency))
        return STATUS_FAILED;
    if (arguments_flag(invocation, "wait-above"))
        return kv_get_waiting(invocation, &options);
    if (arguments_flag(invocation, "as-json"))
        return kv_get_json(invocation, &options);
    if (kvs_get(invocation->kvs, invocation->arguments[0], invocation->arguments[1], &options, &entry) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    if (entry == NULL) {
        if (invocation->json)
            puts("null");
        status = kv_absent(invocation);
    } else if (invocation->json) {
        status = print_and_free(kvs_entry_json(entry));
    } else {
        kv_print_value(invocation, entry);
    }
    kvs_free(entry);
    return status;
}

static enum status kv_print_history_json(const struct kvs_entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char *json = kvs_entry_json(&entries[i]);
        if (json == NULL)
            return report("out of memory for the output");
        printf("%s%s", i > 0 ? "," : "[", json);
        kvs_free(json);
    }
    puts(count > 0 ? "]" : "[]");
    return STATUS_OK;
}

/* The table cuts the values further, to what is left of the terminal's width. */
static void kv_add_value(struct table *table, const struct kvs_entry *entry)
{
    size_t columns = safe_text_terminal_columns();
    char *value =
        safe_text_of_bytes(entry->value, entry->value_size, columns < SIZE_MAX ? columns : SHORT_TEXT_COLUMNS);

    table_add(table, "%s", value != NULL ? value : "?");
    free(value);
}

/* Only values with a TTL expire: without any, the table has no such column. */
static enum status kv_print_history(const struct kvs_entry *entries, size_t count)
{
    bool has_expiry = false;
    struct table table;

    for (size_t i = 0; i < count; i++)
        has_expiry = has_expiry || entries[i].expires_us > 0;
    table_begin(&table, has_expiry ? 5 : 4);
    table_add(&table, "REVISION");
    table_add(&table, "CREATED");
    if (has_expiry)
        table_add(&table, "EXPIRES");
    table_add(&table, "OPERATION");
    table_add(&table, "VALUE");
    for (size_t i = 0; i < count; i++) {
        table_add(&table, "%" PRIu64, entries[i].revision);
        table_add(&table, "%s", text_of_time(entries[i].created_us).text);
        if (has_expiry)
            table_add(&table, "%s", entries[i].expires_us > 0 ? text_of_time(entries[i].expires_us).text : "-");
        table_add(&table, "%s", text_of_operation(entries[i].operation));
        kv_add_value(&table, &entries[i]);
    }
    return table_print(&table);
}

enum status kv_history(struct invocation *invocation)
{
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = invocation->timeout_s);
    struct kvs_entry *entries;
    enum status status;
    size_t count;

    if (kvs_history(invocation->kvs, invocation->arguments[0], invocation->arguments[1], &options, &entries, &count) !=
        KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    status = invocation->json ? kv_print_history_json(entries, count)
             : count == 0     ? STATUS_OK
                              : kv_print_history(entries, count);
    if (count == 0)
        status = kv_absent(invocation);
    kvs_free(entries);
    return status;
}

/* --- Writing ------------------------------------------------------------------------------- */

/* Print the revision of a write. */
static enum status kv_print_revision(struct invocation *invocation, enum kvs_code code, const uint64_t *revision)
{
    if (code != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    printf(invocation->json ? "{\"revision\":%" PRIu64 "}\n" : "%" PRIu64 "\n", *revision);
    return STATUS_OK;
}

/* A write, as given on the command line. */
struct write {
    struct content value;
    struct kvs_header *headers;
    struct kvs_put_options options;
};

static bool kv_write_begin(struct write *write, const struct invocation *invocation)
{
    *write = (struct write){.options = KVS_PUT_OPTIONS(.timeout_s = invocation->timeout_s,
                                                       .keep_ttl = arguments_flag(invocation, "keep-ttl"))};
    if (!arguments_duration(invocation, "ttl", &write->options.ttl_s) ||
        !arguments_pairs(invocation, "header", &write->headers, &write->options.header_count))
        return false;
    if (write->options.ttl_s < 0)
        write->options.ttl_s = 0;
    write->options.headers = write->headers;
    return content_read(&write->value, invocation->arguments[2]);
}

static void kv_write_end(struct write *write)
{
    free(write->value.bytes);
    free(write->headers);
}

enum status kv_put(struct invocation *invocation)
{
    struct write write;
    uint64_t revision = 0;
    enum status status = STATUS_FAILED;

    if (kv_write_begin(&write, invocation))
        status = kv_print_revision(invocation,
                                   kvs_put(invocation->kvs, invocation->arguments[0], invocation->arguments[1],
                                           write.value.bytes, write.value.size, &write.options, &revision),
                                   &revision);
    kv_write_end(&write);
    return status;
}

enum status kv_create(struct invocation *invocation)
{
    struct write write;
    uint64_t revision = 0;
    enum status status = STATUS_FAILED;

    if (kv_write_begin(&write, invocation))
        status = kv_print_revision(invocation,
                                   kvs_create(invocation->kvs, invocation->arguments[0], invocation->arguments[1],
                                              write.value.bytes, write.value.size, &write.options, &revision),
                                   &revision);
    kv_write_end(&write);
    return status;
}

enum status kv_update(struct invocation *invocation)
{
    struct write write;
    uint64_t expected, revision = 0;
    enum status status = STATUS_FAILED;

    if (!arguments_read_number(invocation->arguments[3], "REVISION", &expected))
        return STATUS_FAILED;
    if (kv_write_begin(&write, invocation))
        status = kv_print_revision(invocation,
                                   kvs_update(invocation->kvs, invocation->arguments[0], invocation->arguments[1],
                                              write.value.bytes, write.value.size, expected, &write.options, &revision),
                                   &revision);
    kv_write_end(&write);
    return status;
}

enum status kv_del(struct invocation *invocation)
{
    struct kvs_delete_options options = KVS_DELETE_OPTIONS(.timeout_s = invocation->timeout_s);
    uint64_t revision = 0;

    if (!arguments_number(invocation, "revision", &options.revision))
        return STATUS_FAILED;
    options.if_exists = options.revision == 0 && !arguments_flag(invocation, "marker");
    enum kvs_code code =
        kvs_delete(invocation->kvs, invocation->arguments[0], invocation->arguments[1], &options, &revision);
    if (code != KVS_OK || revision > 0)
        return kv_print_revision(invocation, code, &revision);
    if (invocation->json)
        puts("null");
    return kv_absent(invocation);
}

static enum status kv_purge_bucket(struct invocation *invocation)
{
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = invocation->timeout_s);

    if (!arguments_flag(invocation, "all"))
        return report("name a KEY, or give --all to remove all keys of the bucket");
    if (kvs_bucket_purge(invocation->kvs, invocation->arguments[0], &options) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    if (invocation->json)
        puts("null");
    return STATUS_OK;
}

enum status kv_purge(struct invocation *invocation)
{
    struct kvs_delete_options options = KVS_DELETE_OPTIONS(.timeout_s = invocation->timeout_s);
    uint64_t revision = 0;

    if (invocation->argument_count < 2)
        return kv_purge_bucket(invocation);
    if (arguments_flag(invocation, "all"))
        return report("--all removes all keys of the bucket: give no KEY with it");
    if (!arguments_number(invocation, "revision", &options.revision) ||
        !arguments_duration(invocation, "ttl", &options.ttl_s))
        return STATUS_FAILED;
    if (options.ttl_s < 0)
        options.ttl_s = 0;
    return kv_print_revision(
        invocation, kvs_purge(invocation->kvs, invocation->arguments[0], invocation->arguments[1], &options, &revision),
        &revision);
}
