/* The verb lock: runs a command while it holds a lock, or lists what lives with leases. */
#include "client/kvctl/kvctl.h"
#include "client/kvctl/lock_command.h"
#include "client/kvctl/safe_text.h"
#include "client/kvctl/transfer.h"
#include "client/lib/kvstore_async.h"
#include "client/lib/kvstore_lock.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST_WAIT_MS 1000

/* --- Listing --------------------------------------------------------------------------------------- */

/* The most keys whose values are read at one point in time. */
#define KEYS_AT_ONCE 1024u

struct lock_names {
    char **names;
    size_t count, capacity;
};

static bool lock_add_name(struct lock_names *names, const char *name)
{
    if (names->count == names->capacity) {
        size_t capacity = names->capacity > 0 ? names->capacity * 2 : 64;
        char **more = realloc(names->names, capacity * sizeof(*more));
        if (more == NULL)
            return false;
        names->names = more;
        names->capacity = capacity;
    }
    names->names[names->count] = strdup(name);
    return names->names[names->count++] != NULL;
}

static int lock_compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void lock_free_names(struct lock_names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->names[i]);
    free(names->names);
}

/* Find the keys that live with a lease, without their values. */
static enum status lock_find_names(struct invocation *invocation, struct lock_names *names)
{
    struct kvs *kvs = invocation->kvs;
    struct kvs_watch_options options = KVS_WATCH_OPTIONS(.meta_only = true, .ignore_deletes = true, .snapshot = true,
                                                         .timeout_s = invocation->timeout_s);
    struct kvs_event event = {.type = KVS_EVENT_NONE};
    enum status status = STATUS_OK;
    struct kvs_watch *watch;

    if (kvs_watch(kvs, invocation->arguments[0], &options, &watch) != KVS_OK)
        return report_error(kvs_last_error(kvs));
    while (status == STATUS_OK && event.type != KVS_EVENT_READY) {
        status = transfer_next_event(invocation, watch, &event);
        if (status == STATUS_OK && event.type == KVS_EVENT_ENTRY && event.entry->lease != NULL &&
            !lock_add_name(names, event.entry->key))
            status = report("out of memory");
    }
    kvs_watch_stop(watch);
    if (names->count > 0)
        qsort(names->names, names->count, sizeof(*names->names), lock_compare_names);
    return status;
}

static void lock_add_row(struct table *table, const struct kvs_entry *entry)
{
    size_t columns = safe_text_terminal_columns();
    char *value =
        safe_text_of_bytes(entry->value, entry->value_size, columns < SIZE_MAX ? columns : SHORT_TEXT_COLUMNS);

    table_add(table, "%s", text_of_bytes(entry->key, strlen(entry->key)).text);
    table_add(table, "%" PRIu64, entry->revision);
    table_add(table, "%s", text_of_time(entry->created_us).text);
    table_add(table, "%s", text_of_bytes(entry->lease, strlen(entry->lease)).text);
    table_add(table, "%s", value != NULL ? value : "?");
    free(value);
}

/* Called before the first row: without rows there is no header. */
static void lock_add_header(struct table *table)
{
    static const char *const names[] = {"NAME", "TOKEN", "SINCE", "LEASE", "VALUE"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        table_add(table, "%s", names[i]);
}

/* Print the entries that have a lease. *printed counts them over all calls, for the JSON list. */
static enum status lock_print_entries(const struct invocation *invocation, struct kvs_entry *const *entries,
                                      size_t count, struct table *table, size_t *printed)
{
    for (size_t i = 0; i < count; i++) {
        if (entries[i] == NULL || entries[i]->lease == NULL)
            continue;
        if (invocation->json) {
            char *json = kvs_entry_json(entries[i]);
            if (json == NULL)
                return report("out of memory for the output");
            printf("%s%s", *printed > 0 ? "," : "[", json);
            kvs_free(json);
        } else {
            if (*printed == 0)
                lock_add_header(table);
            lock_add_row(table, entries[i]);
        }
        ++*printed;
    }
    return STATUS_OK;
}

static enum status lock_print_names(struct invocation *invocation, const struct lock_names *names)
{
    struct kvs_bulk_get_options options = KVS_BULK_GET_OPTIONS(.timeout_s = invocation->timeout_s);
    enum status status = STATUS_OK;
    struct table table;
    size_t printed = 0;

    table_begin(&table, 5);
    for (size_t i = 0; i < names->count && status == STATUS_OK; i += KEYS_AT_ONCE) {
        size_t count = names->count - i < KEYS_AT_ONCE ? names->count - i : KEYS_AT_ONCE;
        struct kvs_entry **entries;
        if (kvs_bulk_get(invocation->kvs, invocation->arguments[0], (const char *const *)names->names + i, count,
                         &options, &entries) != KVS_OK) {
            status = report_error(kvs_last_error(invocation->kvs));
            break;
        }
        status = lock_print_entries(invocation, entries, count, &table, &printed);
        kvs_free(entries);
    }
    if (invocation->json && status == STATUS_OK)
        puts(printed > 0 ? "]" : "[]");
    enum status tabled = table_print(&table);
    return status != STATUS_OK ? status : tabled;
}

static enum status lock_list(struct invocation *invocation)
{
    struct lock_names names = {0};

    if (invocation->option_count > 0)
        return report("--%s needs a NAME and a COMMAND", invocation->options[0].name);
    enum status status = lock_find_names(invocation, &names);
    if (status == STATUS_OK)
        status = lock_print_names(invocation, &names);
    lock_free_names(&names);
    return status;
}

/* --- Holding --------------------------------------------------------------------------------------- */

/* What the callback of the lock has seen. */
struct lock_watch {
    bool is_acquired, is_over;
    struct kvs_error error;
};

static void lock_on_change(struct kvs *kvs, struct kvs_lock *lock, const struct kvs_error *error, void *context)
{
    struct lock_watch *seen = context;

    (void)kvs;
    (void)lock;
    seen->is_acquired = error == NULL;
    seen->is_over = error != NULL;
    if (error != NULL)
        seen->error = *error;
}

static void lock_turn(struct kvs *kvs)
{
    struct pollfd waited = {.fd = kvs_fd(kvs), .events = kvs_events(kvs)};
    int timeout_ms = kvs_timeout_ms(kvs);

    poll(&waited, 1, timeout_ms >= 0 && timeout_ms < LONGEST_WAIT_MS ? timeout_ms : LONGEST_WAIT_MS);
    kvs_process(kvs);
}

/* Print why the lock was not acquired, and the value of its key, which says who holds it. */
static enum status lock_report_failure(const struct kvs_error *error)
{
    struct kvs_error complete = *error;

    if (error->code == KVS_LOCKED && error->value_size > 0)
        snprintf(complete.message, sizeof(complete.message), "%.160s (value: %s)", error->message,
                 text_of_bytes(error->value, error->value_size).text);
    return report_error(&complete);
}

struct lock_release {
    bool is_over;
    struct kvs_error error;
};

static void lock_on_release(struct kvs *kvs, const struct kvs_error *error, void *context)
{
    struct lock_release *release = context;

    (void)kvs;
    release->is_over = true;
    if (error != NULL)
        release->error = *error;
}

/* Release the lock. False if others may have held it while the command ran: *error has the reason. */
static bool lock_release_now(struct kvs *kvs, struct kvs_lock *lock, double timeout_s, struct kvs_error *error)
{
    static struct lock_release release; /* if no answer comes in time, kvs_close ends the release */
    int64_t until_ms = clock_monotonic_ms() + (int64_t)((timeout_s > 0 ? timeout_s : 5) * 1000);

    kvs_async_lock_release(lock, lock_on_release, &release);
    while (!release.is_over && clock_monotonic_ms() < until_ms)
        lock_turn(kvs);
    *error = release.error;
    return release.error.code != KVS_NOT_HELD && release.error.code != KVS_CONFLICT;
}

static enum status lock_run_command(struct invocation *invocation, struct kvs_lock *lock, struct lock_watch *seen)
{
    struct lock_command command = {.kvs = invocation->kvs,
                                   .lock = lock,
                                   .bucket = invocation->arguments[0],
                                   .name = invocation->arguments[1],
                                   .arguments = invocation->command};
    struct kvs_error error;

    int status = lock_command_run(&command);
    if (status == LOCK_COMMAND_NOT_STARTED) {
        error = *kvs_lock_error(lock);
        kvs_lock_release(lock);
        return report_lost(&error, LOST_BEFORE_COMMAND);
    }
    if (status < 0) {
        kvs_lock_release(lock);
        return STATUS_FAILED;
    }
    bool was_held = lock_release_now(invocation->kvs, lock, invocation->timeout_s, &error);
    if (command.was_ended || seen->is_over || !was_held) {
        const struct kvs_error *reason = seen->is_over ? &seen->error : &error;
        return report_lost(reason, command.was_ended ? LOST_DURING_COMMAND : LOST_UNNOTICED);
    }
    return (enum status)status;
}

enum status lock_run(struct invocation *invocation)
{
    struct kvs *kvs = invocation->kvs;
    struct kvs_lock_options options = KVS_LOCK_OPTIONS(.keep = true, .timeout_s = invocation->timeout_s);
    const char *value = arguments_value(invocation, "value");
    struct lock_watch seen = {.is_acquired = false};
    struct kvs_lock *lock;
    int64_t wait_s = 0;

    if (invocation->argument_count == 1 && invocation->command == NULL)
        return lock_list(invocation);
    if (invocation->argument_count != 2)
        return report("lock takes BUCKET, or BUCKET NAME -- COMMAND");
    if (invocation->command == NULL)
        return report("name the COMMAND to run, after --");
    if (!arguments_duration(invocation, "wait", &wait_s))
        return STATUS_FAILED;
    options.wait_s = (double)wait_s;
    options.value = value;
    options.value_size = value != NULL ? strlen(value) : 0;
    if (kvs_async_lock_acquire(kvs, invocation->arguments[0], invocation->arguments[1], &options, lock_on_change, &seen,
                               &lock) != KVS_OK)
        return report_error(kvs_last_error(kvs));
    kvs_process(kvs);
    while (!seen.is_acquired && !seen.is_over)
        lock_turn(kvs);
    if (seen.is_over) {
        kvs_lock_release(lock);
        return lock_report_failure(&seen.error);
    }
    return lock_run_command(invocation, lock, &seen);
}
