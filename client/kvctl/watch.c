/* The verb watch: prints changes as they happen, until it is interrupted. */
#include "client/kvctl/advice.h"
#include "client/kvctl/kvctl.h"
#include "client/kvctl/safe_text.h"
#include "client/kvctl/watch_command.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define KEY_COLUMNS_MIN   12u
#define KEY_COLUMNS_MAX   40u
#define VALUE_COLUMNS_MIN 10u /* with the blanks before it */

static volatile sig_atomic_t is_interrupted;

enum watching_state {
    WATCHING_STARTS, /* the watch has to be started, or started again at options.from_revision */
    WATCHING_RUNS,
    WATCHING_ENDED
};

struct watching {
    struct invocation *invocation;
    struct kvs_watch_options options;
    struct kvs_watch *watch; /* NULL: it was stopped */
    bool colors;
    size_t key_columns; /* grows with the keys, so that most values are aligned */
    bool until_ready;
    uint64_t left; /* entries that are still to be printed */
    enum watching_state state;
    bool was_restarted; /* by kvctl: options.from_revision is no longer the user's */
    sigset_t unblocked; /* the signals' mask while the loop waits, or an entry is printed */
    enum status status;
};

/* --- Printing ------------------------------------------------------------------------------ */

static const char *watch_color(const struct watching *watching, const char *code)
{
    return watching->colors ? code : "";
}

static const char *watch_operation_color(const struct watching *watching, enum kvs_operation operation)
{
    return watch_color(watching, operation == KVS_OPERATION_PUT ? "\033[32m" : "\033[31m");
}

static void watch_print_line(struct watching *watching, const struct kvs_entry *entry)
{
    size_t key_length = strlen(entry->key);
    char revision[24];

    if (key_length > watching->key_columns)
        watching->key_columns = key_length < KEY_COLUMNS_MAX ? key_length : KEY_COLUMNS_MAX;
    size_t used = (size_t)snprintf(revision, sizeof(revision), "%8" PRIu64, entry->revision);
    printf("%s%s.%03d%s  %s  %s%-6s%s  %s", watch_color(watching, "\033[2m"), text_of_time(entry->created_us).text,
           (int)(entry->created_us / 1000 % 1000), watch_color(watching, "\033[0m"), revision,
           watch_operation_color(watching, entry->operation), text_of_operation(entry->operation),
           watch_color(watching, "\033[0m"), watch_color(watching, "\033[1m"));
    used += sizeof("2026-01-01 00:00:00.000") - 1 + 2 + 2 + 6 + 2;
    /* On a terminal a key leaves room for some of the value. */
    size_t key_room = columns_after(used + VALUE_COLUMNS_MIN);
    size_t key_used = print_safely(entry->key, key_length, key_room);
    fputs(watch_color(watching, "\033[0m"), stdout);
    if (entry->operation == KVS_OPERATION_PUT) {
        size_t key_columns = watching->key_columns < key_room ? watching->key_columns : key_room;
        if (key_columns < key_used)
            key_columns = key_used;
        printf("%*s", (int)(key_columns - key_used) + 2, "");
        if (entry->value == NULL)
            fputs(text_of_size(entry->value_size).text, stdout);
        else
            print_safely(entry->value, entry->value_size, columns_after(used + key_columns + 2));
    }
    putchar('\n');
}

static enum status watch_write_entry(struct watching *watching, const struct kvs_entry *entry)
{
    if (watching->invocation->json) {
        char *json = kvs_entry_json(entry);
        if (json == NULL)
            return report("out of memory for the output");
        puts(json);
        kvs_free(json);
    } else {
        watch_print_line(watching, entry);
    }
    fflush(stdout); /* the reader waits for this line now */
    return STATUS_OK;
}

/*
 * Print an entry. A signal interrupts that, because it takes as long as the reader of the output wants. Then the rest
 * of the line is dropped.
 */
static enum status watch_print_entry(struct watching *watching, const struct kvs_entry *entry)
{
    sigset_t blocked;

    sigprocmask(SIG_SETMASK, &watching->unblocked, &blocked);
    enum status status = watch_write_entry(watching, entry);
    int reason = errno;
    sigprocmask(SIG_SETMASK, &blocked, NULL);
    if (is_interrupted) {
        alarm(0);
        __fpurge(stdout);
        clearerr(stdout);
        return status;
    }
    errno = reason;
    return print_check(status);
}

/* --- Running a command ---------------------------------------------------------------------- */

/* Run the command for an entry. Meanwhile the daemon keeps what comes, up to watches.buffer_bytes. */
static enum status watch_run_command(struct watching *watching, const struct kvs_entry *entry)
{
    enum status status;

    switch (watch_command_run(watching->invocation, entry, &status)) {
    case WATCH_COMMAND_DONE:
        break;
    case WATCH_COMMAND_INTERRUPTED:
        is_interrupted = 1;
        break;
    case WATCH_COMMAND_FAILED:
        if (!arguments_flag(watching->invocation, "keep-going"))
            return status;
    }
    return STATUS_OK;
}

/* --- Events -------------------------------------------------------------------------------- */

static void watch_finish(struct watching *watching, enum status status)
{
    watching->state = WATCHING_ENDED;
    watching->status = status;
}

static void watch_restart(struct watching *watching, uint64_t from_revision)
{
    watching->options.from_revision = from_revision;
    watching->was_restarted = true;
    watching->state = WATCHING_STARTS;
}

static const char *watch_slow_reader(const struct watching *watching)
{
    return watching->invocation->command != NULL ? "the command is slower than the changes"
                                                 : "the output is read too slowly";
}

/* The error has the reason, and after a semicolon the advice that is followed here. */
static void watch_note_beginning_again(const struct kvs_error *error)
{
    char message[KVS_MESSAGE_BYTES];

    advice_translate(error->message, error->bucket, message, sizeof(message));
    report_note("%.*s: beginning again with all entries", (int)strcspn(message, ";"), message);
}

/*
 * If the reader of the output is too slow, such as a pager, the watch resumes at the error's revision and misses
 * nothing. If keys have vanished meanwhile, all entries are printed again, unless the user asked for a revision.
 * With --updates-only, too: the watch cannot know which of them have changed.
 */
static void watch_on_end(struct watching *watching, const struct kvs_error *error)
{
    bool was_asked_for = watching->options.from_revision > 0 && !watching->was_restarted;

    if (error->code == KVS_REVISION_GONE && !was_asked_for) {
        watch_note_beginning_again(error);
        watching->options.updates_only = false;
        watch_restart(watching, 0);
        return;
    }
    if (error->code == KVS_RESOURCE_EXHAUSTED && error->has_revision) {
        report_note("%s: resuming at revision %" PRIu64, watch_slow_reader(watching), error->revision);
        watching->options.include_history = false;
        watching->options.updates_only = false;
        watch_restart(watching, error->revision);
        return;
    }
    watch_finish(watching, report_error(error));
}

static void watch_stop(struct watching *watching)
{
    kvs_watch_stop(watching->watch);
    watching->watch = NULL;
}

static void watch_on_event(struct kvs *kvs, struct kvs_watch *watch, const struct kvs_event *event, void *context)
{
    struct watching *watching = context;

    (void)kvs;
    (void)watch;
    if (event->type == KVS_EVENT_ENTRY) {
        enum status status = watching->invocation->command != NULL ? watch_run_command(watching, event->entry)
                                                                   : watch_print_entry(watching, event->entry);
        if (--watching->left == 0 || status != STATUS_OK || is_interrupted)
            watch_finish(watching, status);
    } else if (event->type == KVS_EVENT_READY) {
        if (watching->until_ready)
            watch_finish(watching, STATUS_OK);
    } else {
        watch_on_end(watching, event->error);
    }
    if (watching->state != WATCHING_RUNS)
        watch_stop(watching);
}

/* --- The loop ------------------------------------------------------------------------------ */

static void watch_on_signal(int number)
{
    (void)number;
    is_interrupted = 1;
    alarm(1); /* interrupts a write that was about to begin */
}

/* The reader of the output has ended. */
static void watch_on_pipe(int number)
{
    (void)number;
    _exit(STATUS_OK);
}

/* Block the signals except while the loop waits, or an entry is printed; *unblocked is the mask for that. */
static void watch_catch_signals(sigset_t *unblocked)
{
    struct sigaction action = {.sa_handler = watch_on_signal};
    sigset_t caught;

    sigemptyset(&caught);
    sigaddset(&caught, SIGINT);
    sigaddset(&caught, SIGTERM);
    sigprocmask(SIG_BLOCK, &caught, unblocked);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
    action.sa_handler = watch_on_pipe;
    sigaction(SIGPIPE, &action, NULL);
}

/* Wait for the daemon or a signal. False if the reader of the output has ended. */
static bool watch_wait_for_events(struct kvs *kvs, const sigset_t *unblocked)
{
    struct pollfd waited[] = {{.fd = kvs_fd(kvs), .events = kvs_events(kvs)}, {.fd = STDOUT_FILENO}};
    int timeout_ms = kvs_timeout_ms(kvs);
    struct timespec timeout = {.tv_sec = timeout_ms / 1000, .tv_nsec = timeout_ms % 1000 * 1000000L};

    ppoll(waited, 2, timeout_ms < 0 ? NULL : &timeout, unblocked);
    return (waited[1].revents & (POLLERR | POLLHUP)) == 0;
}

/* Report on standard error when the connection is lost and when it is back. */
static void watch_report_connection(struct kvs *kvs, bool *is_away)
{
    if (!*is_away && kvs_fd(kvs) < 0)
        report_note("%s; reconnecting", kvs_last_error(kvs)->message);
    else if (*is_away && kvs_fd(kvs) >= 0)
        report_note("reconnected to the daemon");
    *is_away = kvs_fd(kvs) < 0;
}

static enum status watch_until_end(struct watching *watching)
{
    struct kvs *kvs = watching->invocation->kvs;
    bool is_away = false, is_read = true;

    watch_catch_signals(&watching->unblocked);
    while (watching->state != WATCHING_ENDED && !is_interrupted && is_read) {
        if (watching->state == WATCHING_STARTS) {
            watching->state = WATCHING_RUNS;
            if (kvs_async_watch(kvs, watching->invocation->arguments[0], &watching->options, watch_on_event, watching,
                                &watching->watch) != KVS_OK)
                return report_error(kvs_last_error(kvs));
        }
        kvs_process(kvs);
        if (watching->state != WATCHING_RUNS)
            continue;
        watch_report_connection(kvs, &is_away);
        is_read = watch_wait_for_events(kvs, &watching->unblocked);
    }
    alarm(0);
    watch_stop(watching);
    return watching->status;
}

enum status watch_run(struct invocation *invocation)
{
    const char *const *filters = (const char *const *)(invocation->arguments + 1);
    size_t filter_count = (size_t)invocation->argument_count - 1;
    struct watching watching = {
        .invocation = invocation,
        .options =
            KVS_WATCH_OPTIONS(.filters = filters, .filter_count = filter_count,
                              .include_history = arguments_flag(invocation, "history"),
                              .updates_only = arguments_flag(invocation, "updates-only"),
                              .ignore_deletes = arguments_flag(invocation, "ignore-deletes"),
                              .meta_only = arguments_flag(invocation, "meta-only"),
                              .previous = arguments_flag(invocation, "previous"), .timeout_s = invocation->timeout_s),
        .colors = invocation->terminal && getenv("NO_COLOR") == NULL,
        .key_columns = KEY_COLUMNS_MIN,
        .until_ready = arguments_flag(invocation, "until-ready"),
        .left = UINT64_MAX,
    };

    if (!invocation->json && arguments_flag(invocation, "previous"))
        return report("--previous needs --json: other lines have no room for the value before");
    if (invocation->command == NULL && arguments_flag(invocation, "keep-going"))
        return report("--keep-going needs a COMMAND after --");
    if (!arguments_number(invocation, "from-revision", &watching.options.from_revision) ||
        !arguments_number(invocation, "count", &watching.left))
        return STATUS_FAILED;
    return watch_until_end(&watching);
}
