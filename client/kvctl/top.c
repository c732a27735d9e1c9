/*
 * The verb top: shows once a second what is busy: methods, buckets, sessions, the connection to NATS and the cache.
 *
 * Rates are differences between two answers of daemon.stats. Buckets come from daemon.dump, if the user may call it:
 * the revisions that arrive per second, and the calls in flight at this moment.
 */
#include "client/kvctl/kvctl.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LINE_BYTES   512u
#define LINES_MAX    512u
#define BATCH_ROWS   10u
#define TIMEOUT_S    2.0 /* a daemon that does not answer must not hold up the keys */
#define INTERVAL_MAX 3600u

/* What the daemon answered at one time. */
struct sample {
    struct kvs_value *stats, *sessions;
    struct kvs_value *dump; /* NULL: the caller may not see it */
    double time_s;          /* of the monotonic clock */
};

struct line {
    char text[LINE_BYTES];
    bool is_heading;
};

struct screen {
    struct invocation *invocation;
    struct line *lines;
    size_t count;
    size_t rows, columns; /* 0 rows: no limit */
    bool is_live;         /* on a terminal, and not once */
    bool may_not_dump;    /* the daemon has refused daemon.dump, and logs each refusal */
    struct sample now, before;
};

static double top_time_s(void)
{
    return (double)clock_monotonic_ns() / 1e9;
}

/* --- Samples -------------------------------------------------------------------------------------- */

static void top_free_sample(struct sample *sample)
{
    kvs_free(sample->stats);
    kvs_free(sample->sessions);
    kvs_free(sample->dump);
    *sample = (struct sample){0};
}

/* Ask the daemon. False: kvs_last_error says why not. */
static bool top_take_sample(struct screen *screen)
{
    struct kvs *kvs = screen->invocation->kvs;
    double timeout_s = screen->invocation->timeout_s > 0 ? screen->invocation->timeout_s : TIMEOUT_S;
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = timeout_s);
    struct kvs_sessions_options sessions = KVS_SESSIONS_OPTIONS(.timeout_s = timeout_s);
    struct kvs_dump_options dump = KVS_DUMP_OPTIONS(.limit = 1000, .timeout_s = timeout_s);
    struct sample sample = {0};

    bool is_taken = kvs_daemon_stats(kvs, &options, &sample.stats) == KVS_OK &&
                    kvs_daemon_sessions(kvs, &sessions, &sample.sessions) == KVS_OK;
    if (is_taken && !screen->may_not_dump && kvs_daemon_dump(kvs, &dump, &sample.dump) != KVS_OK) {
        screen->may_not_dump = kvs_last_error(kvs)->code == KVS_PERMISSION_DENIED;
        is_taken = screen->may_not_dump;
    }
    if (!is_taken) {
        top_free_sample(&sample);
        return false;
    }
    sample.time_s = top_time_s();
    top_free_sample(&screen->before);
    screen->before = screen->now;
    screen->now = sample;
    return true;
}

static const struct kvs_value *top_member(const struct kvs_value *map, const char *path)
{
    char name[32];
    size_t length = strcspn(path, ".");

    snprintf(name, sizeof(name), "%.*s", (int)length, path);
    const struct kvs_value *member = kvs_value_member(map, name);
    return path[length] == '.' ? top_member(member, path + length + 1) : member;
}

static uint64_t top_number(const struct kvs_value *map, const char *path)
{
    return kvs_value_unsigned(top_member(map, path));
}

/* A daemon that was restarted counts from 0 again. */
static bool top_has_rates(const struct screen *screen)
{
    return screen->before.stats != NULL && kvs_value_double(top_member(screen->now.stats, "uptime")) >=
                                               kvs_value_double(top_member(screen->before.stats, "uptime"));
}

static uint64_t top_rate_of(const struct screen *screen, uint64_t now, uint64_t before)
{
    double passed_s = screen->now.time_s - screen->before.time_s;

    return top_has_rates(screen) && now > before && passed_s > 0 ? (uint64_t)((double)(now - before) / passed_s + 0.5)
                                                                 : 0;
}

static uint64_t top_rate(const struct screen *screen, const char *path)
{
    return top_rate_of(screen, top_number(screen->now.stats, path), top_number(screen->before.stats, path));
}

/* All calls so far. */
static uint64_t top_calls(const struct kvs_value *stats)
{
    const struct kvs_value *methods = kvs_value_member(stats, "methods");
    uint64_t calls = 0;

    for (size_t i = 0; i < kvs_value_count(methods); i++)
        calls += top_number(kvs_value_item(methods, i), "calls");
    return calls;
}

/* --- The screen ----------------------------------------------------------------------------------- */

static void top_add(struct screen *screen, bool is_heading, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void top_add(struct screen *screen, bool is_heading, const char *format, ...)
{
    va_list args;

    if (screen->count == LINES_MAX)
        return;
    struct line *line = &screen->lines[screen->count++];
    va_start(args, format);
    vsnprintf(line->text, LINE_BYTES, format, args);
    va_end(args);
    line->is_heading = is_heading;
}

/* Print the lines: on a terminal as many as fit, over the former ones. Names in them cannot control the terminal. */
static void top_print(const struct screen *screen)
{
    bool has_colors = screen->is_live && getenv("NO_COLOR") == NULL;
    size_t shown = screen->rows > 0 && screen->rows < screen->count ? screen->rows : screen->count;

    if (screen->is_live)
        fputs("\033[H", stdout);
    for (size_t i = 0; i < shown; i++) {
        const struct line *line = &screen->lines[i];
        if (screen->is_live && i > 0)
            putchar('\n');
        /* Erase before the text: after a line that fills its row, the cursor is still on the last column. */
        if (screen->is_live)
            fputs(i + 1 < shown ? "\033[K" : "\033[J", stdout);
        fputs(has_colors && line->is_heading ? "\033[7m" : "", stdout);
        print_safely(line->text, strlen(line->text), screen->columns);
        fputs(has_colors && line->is_heading ? "\033[0m" : "", stdout);
        fputs(screen->is_live ? "" : "\n", stdout);
    }
    fputs(screen->is_live ? "" : "\n", stdout);
    fflush(stdout);
}

/* --- The sections --------------------------------------------------------------------------------- */

static void top_add_daemon(struct screen *screen)
{
    const struct kvs_value *stats = screen->now.stats;
    bool is_connected = kvs_value_boolean(top_member(stats, "nats.connected"));

    top_add(screen, false, "kvstored: up %s, %s sessions, %s calls in flight with %s%s",
            text_of_duration((int64_t)kvs_value_double(top_member(stats, "uptime"))).text,
            text_of_count(top_number(stats, "sessions.open")).text,
            text_of_count(top_number(stats, "calls_in_flight")).text,
            text_of_size(top_number(stats, "call_bytes")).text, screen->is_live ? "; q quits" : "");
    top_add(screen, false, "calls:    %s/s; in %s/s, out %s/s; watches: %s, %s entries/s",
            text_of_count(top_rate_of(screen, top_calls(stats), top_calls(screen->before.stats))).text,
            text_of_size(top_rate(screen, "bytes_in")).text, text_of_size(top_rate(screen, "bytes_out")).text,
            text_of_count(top_number(stats, "watches.open")).text,
            text_of_count(top_rate(screen, "watches.entries")).text);
    top_add(screen, false, "NATS:     %s, rtt %s, %s requests in flight, %s retries/s, %s reconnects",
            is_connected ? "connected" : "NOT CONNECTED",
            text_of_microseconds((double)top_number(stats, "nats.rtt_us")).text,
            text_of_count(top_number(stats, "requests_in_flight")).text,
            text_of_count(top_rate(screen, "retries")).text, text_of_count(top_number(stats, "nats.reconnects")).text);
    uint64_t hits = top_rate(screen, "cache.hits"), misses = top_rate(screen, "cache.misses");
    top_add(screen, false, "cache:    %s buckets, %s keys, %s; %s hits/s, %s misses/s, %s evicted/s",
            text_of_count(top_number(stats, "cache.buckets")).text, text_of_count(top_number(stats, "cache.keys")).text,
            text_of_size(top_number(stats, "cache.bytes")).text, text_of_count(hits).text, text_of_count(misses).text,
            text_of_count(top_rate(screen, "cache.evicted")).text);
}

/* A row of a section, and what it is sorted by. */
struct row {
    char text[LINE_BYTES];
    uint64_t rate, total;
};

static int top_compare_rows(const void *left, const void *right)
{
    const struct row *a = left, *b = right;

    if (a->rate != b->rate)
        return a->rate < b->rate ? 1 : -1;
    return a->total < b->total ? 1 : a->total > b->total ? -1 : strcmp(a->text, b->text);
}

/* Add the busiest rows of a section, at most max, and free them. Return their number. */
static size_t top_add_rows(struct screen *screen, struct row *rows, size_t count, size_t max)
{
    size_t shown = count < max ? count : max;

    if (count > 0)
        qsort(rows, count, sizeof(*rows), top_compare_rows);
    for (size_t i = 0; i < shown; i++)
        top_add(screen, false, "%s", rows[i].text);
    free(rows);
    return shown;
}

static size_t top_add_methods(struct screen *screen, size_t max)
{
    const struct kvs_value *methods = kvs_value_member(screen->now.stats, "methods");
    const struct kvs_value *before = kvs_value_member(screen->before.stats, "methods");
    size_t count = kvs_value_count(methods);
    struct row *rows = calloc(count + 1, sizeof(*rows));

    top_add(screen, true, "%-20s %9s %9s %9s %9s %9s", "METHOD", "CALLS/S", "ERRORS/S", "P50", "P99", "MAX");
    for (size_t i = 0; rows != NULL && i < count; i++) {
        struct short_text name = text_of_value(kvs_value_key(methods, i));
        const struct kvs_value *method = kvs_value_item(methods, i), *former = kvs_value_member(before, name.text);
        rows[i].total = top_number(method, "calls");
        rows[i].rate = top_rate_of(screen, rows[i].total, top_number(former, "calls"));
        uint64_t errors = top_rate_of(screen, top_number(method, "errors"), top_number(former, "errors"));
        snprintf(rows[i].text, LINE_BYTES, "%-20s %9s %9s %9s %9s %9s", name.text, text_of_count(rows[i].rate).text,
                 text_of_count(errors).text, text_of_microseconds((double)top_number(method, "p50_us")).text,
                 text_of_microseconds((double)top_number(method, "p99_us")).text,
                 text_of_microseconds((double)top_number(method, "max_us")).text);
    }
    return rows != NULL ? top_add_rows(screen, rows, count, max) : 0;
}

/* Return the item of a list of daemon.dump whose bucket has this name. */
static const struct kvs_value *top_find_bucket(const struct kvs_value *list, const char *name)
{
    for (size_t i = 0; i < kvs_value_count(list); i++) {
        const struct kvs_value *item = kvs_value_item(list, i);
        if (strcmp(text_of_value(kvs_value_member(item, "bucket")).text, name) == 0)
            return item;
    }
    return NULL;
}

static uint64_t top_calls_of_bucket(const struct kvs_value *dump, const char *name)
{
    const struct kvs_value *calls = top_member(dump, "calls.list");
    uint64_t count = 0;

    for (size_t i = 0; i < kvs_value_count(calls); i++)
        count += strcmp(text_of_value(kvs_value_member(kvs_value_item(calls, i), "bucket")).text, name) == 0;
    return count;
}

static size_t top_add_buckets(struct screen *screen, size_t max)
{
    const struct kvs_value *buckets = top_member(screen->now.dump, "followed_buckets.list");
    const struct kvs_value *before = top_member(screen->before.dump, "followed_buckets.list");
    size_t count = kvs_value_count(buckets);
    struct row *rows = calloc(count + 1, sizeof(*rows));

    top_add(screen, true, "%-20s %9s %9s %9s %9s %9s", "BUCKET", "WRITES/S", "IN FLIGHT", "WATCHES", "KEYS", "MEMORY");
    for (size_t i = 0; rows != NULL && i < count; i++) {
        const struct kvs_value *bucket = kvs_value_item(buckets, i);
        struct short_text name = text_of_value(kvs_value_member(bucket, "bucket"));
        const struct kvs_value *former = top_find_bucket(before, name.text);
        uint64_t position = top_number(bucket, "position"),
                 in_flight = top_calls_of_bucket(screen->now.dump, name.text);
        rows[i].rate = former != NULL ? top_rate_of(screen, position, top_number(former, "position")) : 0;
        rows[i].total = in_flight;
        snprintf(rows[i].text, LINE_BYTES, "%-20.20s %9s %9s %9s %9s %9s", name.text, text_of_count(rows[i].rate).text,
                 text_of_count(in_flight).text, text_of_count(top_number(bucket, "watches")).text,
                 text_of_count(top_number(bucket, "keys")).text, text_of_size(top_number(bucket, "bytes")).text);
    }
    return rows != NULL ? top_add_rows(screen, rows, count, max) : 0;
}

static void top_add_sessions(struct screen *screen, size_t max)
{
    const struct kvs_value *list = kvs_value_member(screen->now.sessions, "list");
    uint64_t own = top_number(screen->now.sessions, "own");

    top_add(screen, true, "%-7s %8s %-15s %-9s %8s %9s %8s %7s", "SESSION", "PID", "PROGRAM", "USER", "CALLS/S",
            "IN FLIGHT", "HELD", "WATCHES");
    for (size_t i = 0, shown = 0; i < kvs_value_count(list) && shown < max; i++) {
        const struct kvs_value *session = kvs_value_item(list, i);
        if (top_number(session, "id") == own)
            continue;
        top_add(screen, false, "%-7" PRIu64 " %8" PRIu64 " %-15s %-9.9s %8s %9s %8s %7s", top_number(session, "id"),
                top_number(session, "pid"), text_of_value(kvs_value_member(session, "program")).text,
                text_of_user(top_number(session, "uid")).text,
                text_of_count(top_number(session, "calls_per_second")).text,
                text_of_count(top_number(session, "calls_in_flight")).text,
                text_of_size(sessions_held_bytes(session)).text, text_of_count(top_number(session, "watches")).text);
        shown++;
    }
}

/* Compose all lines. The last section gets the rows of the terminal that the other sections do not need. */
static void top_compose(struct screen *screen, const char *trouble)
{
    bool has_limit = screen->rows > 0, has_buckets = screen->now.dump != NULL;
    size_t left = BATCH_ROWS, methods = BATCH_ROWS, buckets = BATCH_ROWS;

    screen->count = 0;
    if (trouble[0] != '\0')
        top_add(screen, true, "%s; trying again", trouble);
    if (screen->now.stats == NULL)
        return;
    top_add_daemon(screen);
    if (has_limit) {
        /* A blank line and a heading for each section. */
        size_t used = screen->count + (has_buckets ? 6 : 4);
        left = screen->rows > used ? screen->rows - used : 0;
        methods = left * 2 / 5;
        buckets = left / 4;
    }
    top_add(screen, false, "%s", "");
    size_t added = top_add_methods(screen, methods);
    left -= has_limit ? added : 0;
    if (has_buckets) {
        top_add(screen, false, "%s", "");
        added = top_add_buckets(screen, buckets);
        left -= has_limit ? added : 0;
    }
    top_add(screen, false, "%s", "");
    top_add_sessions(screen, left);
}

/* --- Live, on a terminal -------------------------------------------------------------------------- */

static void top_show(struct screen *screen, const char *trouble)
{
    struct terminal_size size = terminal_size();

    screen->rows = size.rows;
    screen->columns = size.columns;
    top_compose(screen, trouble);
    top_print(screen);
}

/* Show until a key ends it. The first rates come soon. */
static void top_run_live(struct screen *screen, double interval_s)
{
    char trouble[LINE_BYTES] = "", key = '\0';
    double next_s = top_time_s();
    enum terminal_event event = TERMINAL_TIME_OVER;
    bool is_first = true;

    while (key != 'q' && key != 'Q' && event != TERMINAL_GONE) {
        double left_s = next_s - top_time_s();
        if (left_s <= 0) {
            bool is_there = top_take_sample(screen);
            snprintf(trouble, sizeof(trouble), "%s", is_there ? "" : kvs_last_error(screen->invocation->kvs)->message);
            next_s = top_time_s() + (is_first && interval_s > 0.3 ? 0.3 : interval_s);
            left_s = next_s - top_time_s();
            is_first = false;
        }
        top_show(screen, trouble);
        event = terminal_wait((int)(left_s * 1000) + 1, &key);
    }
}

/* --- For pipes ------------------------------------------------------------------------------------ */

static enum status top_print_json(const struct screen *screen)
{
    const struct kvs_value *parts[] = {screen->now.stats, screen->now.sessions, screen->now.dump};
    static const char *const names[] = {"{\"stats\":", ",\"sessions\":", ",\"dump\":"};

    for (size_t i = 0; i < 3 && parts[i] != NULL; i++) {
        char *json = kvs_value_json(parts[i]);
        if (json == NULL)
            return report("out of memory for the output");
        printf("%s%s", names[i], json);
        kvs_free(json);
    }
    puts("}");
    fflush(stdout);
    return STATUS_OK;
}

static void top_pause(double time_s)
{
    struct timespec left = {.tv_sec = (time_t)time_s, .tv_nsec = (long)((time_s - (double)(time_t)time_s) * 1e9)};

    nanosleep(&left, NULL);
}

/* Print count screens, each about the interval before it. */
static enum status top_run_batch(struct screen *screen, double interval_s, uint64_t count)
{
    enum status status = STATUS_OK;

    screen->columns = LINE_BYTES;
    if (!top_take_sample(screen))
        return report_error(kvs_last_error(screen->invocation->kvs));
    for (uint64_t i = 0; i < count && status == STATUS_OK && !ferror(stdout); i++) {
        top_pause(interval_s);
        if (!top_take_sample(screen))
            return report_error(kvs_last_error(screen->invocation->kvs));
        if (screen->invocation->json) {
            status = top_print_json(screen);
        } else {
            top_compose(screen, "");
            top_print(screen);
        }
    }
    return status;
}

enum status top_run(struct invocation *invocation)
{
    struct screen screen = {.invocation = invocation};
    uint64_t interval_s = 1, count = UINT64_MAX;
    bool is_once = arguments_flag(invocation, "once");
    bool has_count = arguments_value(invocation, "count") != NULL;

    if (!arguments_number(invocation, "interval", &interval_s) || !arguments_number(invocation, "count", &count))
        return STATUS_FAILED;
    if (interval_s == 0 || interval_s > INTERVAL_MAX)
        return report("--interval must be from 1 to %u seconds", INTERVAL_MAX);
    screen.is_live = invocation->terminal && !invocation->json && !is_once && !has_count;
    screen.lines = calloc(LINES_MAX, sizeof(*screen.lines));
    if (screen.lines == NULL)
        return report("out of memory");
    enum status status = STATUS_OK;
    if (screen.is_live) {
        terminal_enter();
        top_run_live(&screen, (double)interval_s);
        terminal_leave();
    } else {
        status = top_run_batch(&screen, (double)interval_s, is_once ? 1 : count);
    }
    top_free_sample(&screen.now);
    top_free_sample(&screen.before);
    free(screen.lines);
    return status;
}
