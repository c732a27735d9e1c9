#include "daemon/monitor/exposition.h"

#include "daemon/store/write/group_commit.h"
#include "proto/methods.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* A line is shorter: names and help are constants, and a label has at most 251 characters. */
#define LINE_BYTES_MAX 1024u

/* The bounds of histograms, as exponents of two: 16 us to 67 s, and 2 to 1,024 writes. */
#define TIME_EXPONENT_MIN 4u
#define TIME_EXPONENT_MAX 26u
#define SIZE_EXPONENT_MIN 3u
#define SIZE_EXPONENT_MAX 10u

#define METHOD_NAME_ROW(family, verb, ...) #family "." #verb,
static const char *const method_names[METHOD_COUNT] = {METHODS(METHOD_NAME_ROW)};

/* --- Lines ------------------------------------------------------------------------------------------ */

static bool exposition_reserve(struct exposition *exposition, size_t more)
{
    size_t wanted = exposition->size + more, capacity = exposition->capacity > 0 ? exposition->capacity : 16384;

    if (wanted <= exposition->capacity)
        return true;
    while (capacity < wanted)
        capacity *= 2;
    char *text = realloc(exposition->text, capacity);
    if (text == NULL) {
        exposition->has_failed = true;
        return false;
    }
    exposition->text = text;
    exposition->capacity = capacity;
    return true;
}

static void exposition_add(struct exposition *exposition, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void exposition_add(struct exposition *exposition, const char *format, ...)
{
    va_list arguments;

    if (exposition->has_failed || !exposition_reserve(exposition, LINE_BYTES_MAX))
        return;
    va_start(arguments, format);
    int length = vsnprintf(exposition->text + exposition->size, LINE_BYTES_MAX, format, arguments);
    va_end(arguments);
    exposition->size += (size_t)length < LINE_BYTES_MAX ? (size_t)length : LINE_BYTES_MAX - 1;
}

static void exposition_add_header(struct exposition *exposition, const char *family, const char *type, const char *unit,
                                  const char *help)
{
    exposition_add(exposition, "# HELP %s %s\n# TYPE %s %s\n", family, help, family, type);
    if (unit != NULL)
        exposition_add(exposition, "# UNIT %s %s\n", family, unit);
}

static void exposition_add_figure_header(struct exposition *exposition, const struct figure *figure)
{
    exposition_add_header(exposition, figure->family, figure->type == FIGURE_COUNTER ? "counter" : "gauge",
                          figure->unit, figure->help);
}

/* labels: empty, or in braces. */
static void exposition_add_figure(struct exposition *exposition, const struct figure *figure, const char *labels,
                                  uint64_t value)
{
    const char *suffix = figure->type == FIGURE_COUNTER ? "_total" : "";

    if (figure->per_unit > 1)
        exposition_add(exposition, "%s%s%s %.15g\n", figure->family, suffix, labels, (double)value / figure->per_unit);
    else
        exposition_add(exposition, "%s%s%s %" PRIu64 "\n", figure->family, suffix, labels, value);
}

/*
 * Add the samples of a histogram. label: empty, or one label without braces. of_time: the values are microseconds and
 * become seconds. A whole number below 2^n is at most 2^n - 1; a time that was cut to microseconds is at most 2^n us.
 */
static void exposition_add_histogram(struct exposition *exposition, const char *family, const char *label,
                                     const struct metrics_histogram *histogram, bool of_time)
{
    unsigned first = of_time ? TIME_EXPONENT_MIN : SIZE_EXPONENT_MIN;
    unsigned last = of_time ? TIME_EXPONENT_MAX : SIZE_EXPONENT_MAX;
    const char *comma = label[0] != '\0' ? "," : "";
    char braces[64] = "";

    for (unsigned exponent = first; exponent <= last; exponent++) {
        uint64_t power = (uint64_t)1 << exponent;
        exposition_add(exposition, "%s_bucket{%s%sle=\"%.15g\"} %" PRIu64 "\n", family, label, comma,
                       of_time ? (double)power / 1e6 : (double)(power - 1), metrics_count_below(histogram, exponent));
    }
    if (label[0] != '\0')
        snprintf(braces, sizeof(braces), "{%s}", label);
    exposition_add(exposition, "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n%s_count%s %" PRIu64 "\n", family, label, comma,
                   histogram->count, family, braces, histogram->count);
    exposition_add(exposition, "%s_sum%s %.15g\n", family, braces, (double)histogram->sum / (of_time ? 1e6 : 1.0));
}

/* Copy a text that NATS has sent: what would need an escape in a label becomes '?'. */
static void exposition_copy_label(char *to, size_t size, const char *from)
{
    size_t length = 0;

    for (; *from != '\0' && length + 1 < size; from++, length++)
        to[length] = *from < ' ' || *from > '~' || *from == '"' || *from == '\\' ? '?' : *from;
    to[length] = '\0';
}

/* --- Parts: each returns whether it has more to write ------------------------------------------------ */

static bool exposition_write_daemon(struct exposition *exposition)
{
    const struct store *store = exposition->sources->store;
    struct figures figures;
    char url[256], version[64];

    figures_collect(exposition->sources, &figures);
    /* OpenMetrics has a type for these two, which parsers of the older format refuse. */
    exposition_add_header(exposition, "kvstored_build_info", "gauge", NULL, "The version of the daemon.");
    exposition_add(exposition, "kvstored_build_info{version=\"%s\"} 1\n", KVSTORED_VERSION);
    exposition_copy_label(url, sizeof(url), figures.nats_url);
    exposition_copy_label(version, sizeof(version), figures.nats_version);
    exposition_add_header(exposition, "kvstored_nats_info", "gauge", NULL,
                          "The mode, and URL and version of the server; empty while there is no connection.");
    exposition_add(exposition, "kvstored_nats_info{mode=\"%s\",url=\"%s\",version=\"%s\"} 1\n",
                   store->conf->nats.mode == CONF_NATS_EMBEDDED ? "embedded" : "external", url, version);
    for (size_t row = 0; row < figures_of_daemon_count; row++) {
        const struct figure *figure = &figures_of_daemon[row];
        if (figure->family == NULL || !figure_is_known(figure, &figures))
            continue;
        exposition_add_figure_header(exposition, figure);
        exposition_add_figure(exposition, figure, "", figure_value(figure, &figures));
    }
    return false;
}

static bool exposition_write_turns(struct exposition *exposition)
{
    exposition_add_header(exposition, "kvstored_turn_duration_seconds", "histogram", "seconds",
                          "Turns of the daemon's loop.");
    exposition_add_histogram(exposition, "kvstored_turn_duration_seconds", "", &exposition->sources->metrics->turns,
                             true);
    return false;
}

static bool exposition_write_batches(struct exposition *exposition)
{
    exposition_add_header(exposition, "kvstored_group_commit_size", "histogram", NULL,
                          "Writes in a batch of group commit.");
    exposition_add_histogram(exposition, "kvstored_group_commit_size", "",
                             &group_commit_statistics(exposition->sources->store)->sizes, false);
    return false;
}

static bool exposition_write_errors(struct exposition *exposition)
{
    const struct metrics *metrics = exposition->sources->metrics;

    exposition_add_header(exposition, "kvstored_errors", "counter", NULL,
                          "Errors by code, of calls and of sessions without a call.");
    for (unsigned code = ERROR_NONE + 1; code < ERROR_CODE_COUNT; code++)
        exposition_add(exposition, "kvstored_errors_total{code=\"%s\"} %" PRIu64 "\n",
                       error_code_name((enum error_code)code), metrics->errors[code]);
    return false;
}

/* Methods that were never called have no samples. Codes that a method never had have none either. */
static bool exposition_write_calls(struct exposition *exposition)
{
    const struct metrics_method *method = &exposition->sources->metrics->methods[exposition->index];
    const char *name = method_names[exposition->index];

    if (exposition->index == 0)
        exposition_add_header(exposition, "kvstored_calls", "counter", NULL,
                              "Answered calls by method and code; ok: with a result.");
    for (unsigned code = ERROR_NONE; code < ERROR_CODE_COUNT; code++) {
        if (method->ended[code] == 0 && (code != ERROR_NONE || method->calls == 0))
            continue;
        exposition_add(exposition, "kvstored_calls_total{method=\"%s\",code=\"%s\"} %" PRIu64 "\n", name,
                       code == ERROR_NONE ? "ok" : error_code_name((enum error_code)code), method->ended[code]);
    }
    return ++exposition->index < METHOD_COUNT;
}

static bool exposition_write_durations(struct exposition *exposition)
{
    const struct metrics_method *method = &exposition->sources->metrics->methods[exposition->index];
    char label[48];

    if (exposition->index == 0)
        exposition_add_header(exposition, "kvstored_call_duration_seconds", "histogram", "seconds",
                              "Time from the arrival of a call to its answer.");
    if (method->calls > 0) {
        snprintf(label, sizeof(label), "method=\"%s\"", method_names[exposition->index]);
        exposition_add_histogram(exposition, "kvstored_call_duration_seconds", label, &method->latency, true);
    }
    return ++exposition->index < METHOD_COUNT;
}

/* Copy the figures of all users at once: users may come and go while the text is written. */
static bool exposition_collect_users(struct exposition *exposition)
{
    const struct usage *usage = exposition->sources->usage;
    size_t count = HASH_COUNT(usage->users);
    struct user *user, *next;

    count = count < EXPOSITION_USERS_MAX ? count : EXPOSITION_USERS_MAX + 1;
    exposition->users = calloc(count + 1, sizeof(*exposition->users));
    if (exposition->users == NULL) {
        exposition->has_failed = true;
        return false;
    }
    HASH_ITER(hh, usage->users, user, next)
    {
        if (exposition->user_count < EXPOSITION_USERS_MAX)
            exposition->users[exposition->user_count++].uid = user->uid;
        else if (exposition->user_count == EXPOSITION_USERS_MAX)
            exposition->users[exposition->user_count++].uid = FIGURES_UNKNOWN;
        for (unsigned kind = 0; kind < USAGE_KINDS; kind++)
            exposition->users[exposition->user_count - 1].taken[kind] += user->taken[kind];
    }
    return false;
}

/* Go to the next item of the row, or to the next row. Return whether there is one. */
static bool exposition_advance(struct exposition *exposition, size_t items, size_t rows)
{
    if (++exposition->index < items)
        return true;
    exposition->index = 0;
    return ++exposition->row < rows;
}

static bool exposition_write_users(struct exposition *exposition)
{
    const struct figure *figure = &figures_of_user[exposition->row];
    const struct figures_user *user = &exposition->users[exposition->index];
    char labels[48];

    if (exposition->index == 0)
        exposition_add_figure_header(exposition, figure);
    if (exposition->index < exposition->user_count) {
        if (user->uid == FIGURES_UNKNOWN)
            snprintf(labels, sizeof(labels), "{uid=\"other\"}");
        else
            snprintf(labels, sizeof(labels), "{uid=\"%" PRIu64 "\"}", user->uid);
        exposition_add_figure(exposition, figure, labels, figure_value(figure, user));
    }
    return exposition_advance(exposition, exposition->user_count, figures_of_user_count);
}

static bool exposition_collect_buckets(struct exposition *exposition)
{
    if (exposition->index < exposition->buckets.count)
        bucket_figures_add_copy(&exposition->buckets, exposition->index);
    return ++exposition->index < exposition->buckets.count;
}

static bool exposition_write_buckets(struct exposition *exposition)
{
    const struct bucket_figures *buckets = &exposition->buckets;
    const struct figure *figure = &figures_of_bucket[exposition->row];
    char labels[300];

    if (buckets->count == 0)
        return false;
    if (exposition->index == 0)
        exposition_add_figure_header(exposition, figure);
    if (figure_is_known(figure, &buckets->buckets[exposition->index])) {
        snprintf(labels, sizeof(labels), "{bucket=\"%s\"}", buckets->names[exposition->index]);
        exposition_add_figure(exposition, figure, labels, figure_value(figure, &buckets->buckets[exposition->index]));
    }
    return exposition_advance(exposition, buckets->count, figures_of_bucket_count);
}

static bool exposition_write_end(struct exposition *exposition)
{
    exposition_add(exposition, "# EOF\n");
    return false;
}

static bool (*const exposition_parts[])(struct exposition *exposition) = {
    exposition_write_daemon,    exposition_write_turns,     exposition_write_batches, exposition_write_errors,
    exposition_write_calls,     exposition_write_durations, exposition_collect_users, exposition_write_users,
    exposition_collect_buckets, exposition_write_buckets,   exposition_write_end,
};
#define PART_COUNT (sizeof(exposition_parts) / sizeof(exposition_parts[0]))

/* --- One text after the other ------------------------------------------------------------------------ */

static bool exposition_run(struct job *job);

static void exposition_restart(struct exposition *exposition)
{
    free(exposition->users);
    exposition->users = NULL;
    exposition->user_count = 0;
    exposition->size = 0;
    exposition->has_failed = false;
    exposition->part = 0;
    exposition->row = exposition->index = 0;
}

static void exposition_begin(struct exposition *exposition)
{
    exposition->state = EXPOSITION_ASKING;
    exposition_restart(exposition);
    bucket_figures_refresh(&exposition->buckets);
}

static void exposition_on_buckets_known(void *arg)
{
    struct exposition *exposition = arg;

    if (exposition->state != EXPOSITION_ASKING)
        return;
    exposition->state = EXPOSITION_WRITING;
    jobs_add(exposition->jobs, &exposition->job, exposition_run);
}

/* Write until the slice is over. Return whether the text is complete. */
static bool exposition_write_some(struct exposition *exposition)
{
    while (exposition->part < PART_COUNT && !exposition->has_failed) {
        if (!exposition_parts[exposition->part](exposition)) {
            exposition->part++;
            exposition->row = exposition->index = 0;
        }
        if (jobs_slice_is_over(exposition->jobs))
            return false;
    }
    return true;
}

static void exposition_end(struct exposition *exposition)
{
    exposition_restart(exposition);
    free(exposition->text);
    exposition->text = NULL;
    exposition->capacity = 0;
    exposition->state = EXPOSITION_IDLE;
}

static void exposition_leave_list(struct exposition_waiter *waiter)
{
    DL_DELETE2(*waiter->list, waiter, previous, next);
    waiter->list = NULL;
}

/* A waiter may copy the whole text, so the slice is checked after each of them. */
static void exposition_deliver_some(struct exposition *exposition)
{
    while (exposition->waiting != NULL) {
        struct exposition_waiter *waiter = exposition->waiting;
        exposition_leave_list(waiter);
        waiter->done(waiter, exposition->has_failed ? NULL : exposition->text, exposition->size);
        if (jobs_slice_is_over(exposition->jobs))
            return;
    }
}

static void exposition_begin_next(struct exposition *exposition)
{
    while (exposition->early != NULL) {
        struct exposition_waiter *waiter = exposition->early;
        exposition_leave_list(waiter);
        waiter->list = &exposition->waiting;
        DL_APPEND2(exposition->waiting, waiter, previous, next);
    }
    if (exposition->waiting != NULL)
        exposition_begin(exposition);
}

static bool exposition_run(struct job *job)
{
    struct exposition *exposition = (struct exposition *)((char *)job - offsetof(struct exposition, job));

    if (exposition->state == EXPOSITION_WRITING) {
        if (exposition_write_some(exposition))
            exposition->state = EXPOSITION_DELIVERING;
        return true;
    }
    exposition_deliver_some(exposition);
    if (exposition->waiting != NULL)
        return true;
    exposition_end(exposition);
    exposition_begin_next(exposition);
    return exposition->state == EXPOSITION_WRITING;
}

void exposition_request(struct exposition *exposition, struct exposition_waiter *waiter)
{
    bool is_begun = exposition->state == EXPOSITION_WRITING || exposition->state == EXPOSITION_DELIVERING;

    waiter->list = is_begun ? &exposition->early : &exposition->waiting;
    DL_APPEND2(*waiter->list, waiter, previous, next);
    if (exposition->state == EXPOSITION_IDLE)
        exposition_begin(exposition);
}

void exposition_cancel(struct exposition_waiter *waiter)
{
    if (waiter->list != NULL)
        exposition_leave_list(waiter);
}

/* --- Life ------------------------------------------------------------------------------------------- */

int exposition_init(struct exposition *exposition, const struct figures_sources *sources)
{
    memset(exposition, 0, sizeof(*exposition));
    exposition->sources = sources;
    exposition->jobs = sources->store->jobs;
    return bucket_figures_init(&exposition->buckets, sources->store, exposition_on_buckets_known, exposition);
}

/* A text that is being written is begun again, with the new buckets. */
void exposition_reload(struct exposition *exposition)
{
    bucket_figures_reload(&exposition->buckets);
    if (exposition->state == EXPOSITION_ASKING || exposition->state == EXPOSITION_WRITING) {
        jobs_remove(exposition->jobs, &exposition->job);
        exposition_begin(exposition);
    }
}

void exposition_stop(struct exposition *exposition)
{
    bucket_figures_cancel(&exposition->buckets);
    jobs_remove(exposition->jobs, &exposition->job);
    exposition_end(exposition);
}

void exposition_free(struct exposition *exposition)
{
    bucket_figures_free(&exposition->buckets);
}
