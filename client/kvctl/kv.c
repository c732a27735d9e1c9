/* The verbs on keys. */
#include "client/kvctl/kvctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum status absent(const struct invocation *invocation)
{
    const char *revision = arguments_value(invocation, "revision");

    if (revision != NULL)
        report("the bucket %s has no revision %s of the key %s", invocation->arguments[0], revision,
               invocation->arguments[1]);
    else
        report("there is no key %s in the bucket %s", invocation->arguments[1], invocation->arguments[0]);
    return STATUS_ABSENT;
}

/* --- Reading ------------------------------------------------------------------------------- */

/* Prints the value that the daemon has parsed. A key that is not there and the value null look alike: both are absent.
 */
static enum status get_json(struct invocation *invocation)
{
    struct kvs_get_options options = {.timeout_s = invocation->timeout_s};
    struct answer answer = {0};

    if (!arguments_revision(invocation, "revision", &options.revision) ||
        !arguments_consistency(invocation, &options.consistency))
        return STATUS_FAILED;
    enum status status = answer_wait(invocation,
                                     kvs_async_get_json(invocation->kvs, invocation->arguments[0],
                                                        invocation->arguments[1], &options, answer_take, &answer),
                                     &answer);
    if (status == STATUS_OK)
        status = kvs_value_type(answer.value) == KVS_NIL ? absent(invocation) : print_json(answer.value);
    kvs_free(answer.value);
    return status;
}

enum status kv_get(struct invocation *invocation)
{
    struct kvs_get_options options = {.timeout_s = invocation->timeout_s};
    struct answer answer = {0};
    size_t size;

    if (arguments_flag(invocation, "as-json"))
        return get_json(invocation);
    if (!arguments_revision(invocation, "revision", &options.revision) ||
        !arguments_consistency(invocation, &options.consistency))
        return STATUS_FAILED;
    enum status status = answer_wait_and_print(invocation,
                                               kvs_async_get(invocation->kvs, invocation->arguments[0],
                                                             invocation->arguments[1], &options, answer_take, &answer),
                                               &answer);
    if (status == STATUS_OK && kvs_value_type(answer.value) == KVS_NIL) {
        status = absent(invocation);
    } else if (status == STATUS_OK && !invocation->json) {
        const char *bytes = kvs_value_bytes(kvs_value_member(answer.value, "value"), &size);
        if (bytes == NULL)
            status = report("the daemon's answer is no entry");
        else
            fwrite(bytes, 1, size, stdout);
        if (invocation->terminal && bytes != NULL && size > 0 && bytes[size - 1] != '\n')
            putchar('\n');
    }
    kvs_free(answer.value);
    return status;
}

enum status kv_history(struct invocation *invocation)
{
    struct kvs_call_options options = {.timeout_s = invocation->timeout_s};
    struct answer answer = {0};
    struct table table;

    enum status status =
        answer_wait_and_print(invocation,
                              kvs_async_history(invocation->kvs, invocation->arguments[0], invocation->arguments[1],
                                                &options, answer_take, &answer),
                              &answer);
    if (status == STATUS_OK && kvs_value_count(answer.value) == 0) {
        status = absent(invocation);
    } else if (status == STATUS_OK && !invocation->json) {
        table_begin(&table, 4);
        table_add(&table, "REVISION");
        table_add(&table, "CREATED");
        table_add(&table, "OPERATION");
        table_add(&table, "VALUE");
        for (size_t i = 0; i < kvs_value_count(answer.value); i++) {
            const struct kvs_value *entry = kvs_value_item(answer.value, i);
            table_add(&table, "%" PRIu64, kvs_value_unsigned(kvs_value_member(entry, "revision")));
            table_add(&table, "%s", text_of_time(kvs_value_integer(kvs_value_member(entry, "created"))).text);
            table_add(&table, "%s", text_of_bytes(kvs_value_member(entry, "operation")).text);
            table_add(&table, "%s", text_of_bytes(kvs_value_member(entry, "value")).text);
        }
        status = table_print(&table);
    }
    kvs_free(answer.value);
    return status;
}

/* --- Writing ------------------------------------------------------------------------------- */

/* Prints the revision that a write has answered. */
static enum status print_revision(struct invocation *invocation, enum kvs_code code, const uint64_t *revision)
{
    if (code != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    printf(invocation->json ? "{\"revision\":%" PRIu64 "}\n" : "%" PRIu64 "\n", *revision);
    return STATUS_OK;
}

/* A write as it stands on the command line. */
struct write {
    struct content value;
    struct kvs_header *headers;
    struct kvs_put_options options;
};

static bool write_begin(struct write *write, const struct invocation *invocation)
{
    *write = (struct write){.options = {.timeout_s = invocation->timeout_s}};
    if (!arguments_duration(invocation, "ttl", &write->options.ttl_s) ||
        !arguments_pairs(invocation, "header", &write->headers, &write->options.header_count))
        return false;
    if (write->options.ttl_s < 0)
        write->options.ttl_s = 0;
    write->options.headers = write->headers;
    return content_read(&write->value, invocation->arguments[2]);
}

static void write_end(struct write *write)
{
    free(write->value.bytes);
    free(write->headers);
}

enum status kv_put(struct invocation *invocation)
{
    struct write write;
    uint64_t revision = 0;
    enum status status = STATUS_FAILED;

    if (write_begin(&write, invocation))
        status = print_revision(invocation,
                                kvs_put(invocation->kvs, invocation->arguments[0], invocation->arguments[1],
                                        write.value.bytes, write.value.size, &write.options, &revision),
                                &revision);
    write_end(&write);
    return status;
}

enum status kv_create(struct invocation *invocation)
{
    struct write write;
    uint64_t revision = 0;
    enum status status = STATUS_FAILED;

    if (write_begin(&write, invocation))
        status = print_revision(invocation,
                                kvs_create(invocation->kvs, invocation->arguments[0], invocation->arguments[1],
                                           write.value.bytes, write.value.size, &write.options, &revision),
                                &revision);
    write_end(&write);
    return status;
}

enum status kv_update(struct invocation *invocation)
{
    struct write write;
    uint64_t expected, revision = 0;
    enum status status = STATUS_FAILED;

    if (!arguments_read_number(invocation->arguments[3], "REVISION", &expected))
        return STATUS_FAILED;
    if (write_begin(&write, invocation))
        status = print_revision(invocation,
                                kvs_update(invocation->kvs, invocation->arguments[0], invocation->arguments[1],
                                           write.value.bytes, write.value.size, expected, &write.options, &revision),
                                &revision);
    write_end(&write);
    return status;
}

enum status kv_del(struct invocation *invocation)
{
    struct kvs_delete_options options = {.timeout_s = invocation->timeout_s};
    uint64_t revision = 0;

    if (!arguments_revision(invocation, "revision", &options.revision))
        return STATUS_FAILED;
    return print_revision(
        invocation,
        kvs_delete(invocation->kvs, invocation->arguments[0], invocation->arguments[1], &options, &revision),
        &revision);
}

static enum status purge_bucket(struct invocation *invocation)
{
    struct kvs_call_options options = {.timeout_s = invocation->timeout_s};

    if (!arguments_flag(invocation, "all"))
        return report("name a KEY, or say --all to empty the whole bucket");
    if (invocation->option_count > 1)
        return report("--all goes with no other option of purge");
    if (kvs_bucket_purge(invocation->kvs, invocation->arguments[0], &options) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    if (invocation->json)
        puts("null");
    return STATUS_OK;
}

enum status kv_purge(struct invocation *invocation)
{
    struct kvs_delete_options options = {.timeout_s = invocation->timeout_s};
    uint64_t revision = 0;

    if (invocation->argument_count < 2)
        return purge_bucket(invocation);
    if (arguments_flag(invocation, "all"))
        return report("--all empties the whole bucket and goes without a KEY");
    if (!arguments_revision(invocation, "revision", &options.revision) ||
        !arguments_duration(invocation, "ttl", &options.ttl_s))
        return STATUS_FAILED;
    if (options.ttl_s < 0)
        options.ttl_s = 0;
    return print_revision(
        invocation, kvs_purge(invocation->kvs, invocation->arguments[0], invocation->arguments[1], &options, &revision),
        &revision);
}
