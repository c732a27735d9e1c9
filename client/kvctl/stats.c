/* The verbs stats and metrics: print daemon.stats for people, and daemon.metrics for Prometheus. */
#include "client/kvctl/kvctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- Members ------------------------------------------------------------------------------- */

static bool stats_ends_with(const char *name, const char *end)
{
    size_t length = strlen(name), end_length = strlen(end);

    return length >= end_length && strcmp(name + length - end_length, end) == 0;
}

static struct short_text stats_name_of(const struct kvs_value *map, size_t place)
{
    return text_of_value(kvs_value_key(map, place));
}

/* Format a value that is not a map; its name says the unit. */
static struct short_text stats_text_of_figure(const char *name, const struct kvs_value *value)
{
    struct short_text text = {.text = "-"};

    switch (kvs_value_type(value)) {
    case KVS_NIL:
        return text;
    case KVS_BOOLEAN:
        strcpy(text.text, kvs_value_boolean(value) ? "yes" : "no");
        return text;
    case KVS_INTEGER:
    case KVS_DOUBLE:
        break;
    default:
        return text_of_value(value);
    }
    if (strcmp(name, "uptime") == 0)
        return text_of_duration((int64_t)kvs_value_double(value));
    if (stats_ends_with(name, "_us"))
        return text_of_microseconds(kvs_value_double(value));
    if (strstr(name, "bytes") != NULL)
        return text_of_size(kvs_value_unsigned(value));
    if (kvs_value_type(value) == KVS_INTEGER)
        return text_of_count(kvs_value_unsigned(value));
    snprintf(text.text, sizeof(text.text), "%.3f", kvs_value_double(value));
    return text;
}

/* Write "rtt 80 us" for "rtt_us". */
static void stats_write_name(FILE *file, const char *name)
{
    size_t length = strlen(name);

    if (stats_ends_with(name, "_us"))
        length -= 3;
    for (size_t i = 0; i < length; i++)
        putc(name[i] == '_' ? ' ' : name[i], file);
}

/* Print a name and its text on a line. On a terminal the text may need several. */
static void stats_print_line(const char *name, const char *text)
{
    size_t width = strlen(name) + 1, blanks = width < 20 ? 20 - width : 1;

    stats_write_name(stdout, name);
    printf(":%*s", (int)blanks, "");
    print_folded(width + blanks, text);
}

/* Write the share of reads that the cache has answered. */
static void stats_write_hit_rate(FILE *file, const struct kvs_value *cache)
{
    uint64_t hits = kvs_value_unsigned(kvs_value_member(cache, "hits"));
    uint64_t asked = hits + kvs_value_unsigned(kvs_value_member(cache, "misses"));

    if (asked > 0)
        fprintf(file, " (%.1f %% hits)", 100.0 * (double)hits / (double)asked);
}

/* Print a map of figures on one line. */
static void stats_print_figures(const char *name, const struct kvs_value *map)
{
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);

    for (size_t i = 0; i < kvs_value_count(map) && file != NULL; i++) {
        struct short_text member = stats_name_of(map, i);
        fputs(i > 0 ? ", " : "", file);
        stats_write_name(file, member.text);
        fprintf(file, " %s", stats_text_of_figure(member.text, kvs_value_item(map, i)).text);
    }
    if (file != NULL && strcmp(name, "cache") == 0)
        stats_write_hit_rate(file, map);
    if (file == NULL || fclose(file) != 0)
        stats_print_line(name, "?");
    else
        stats_print_line(name, size > 0 ? text : "none");
    free(text);
}

/* --- Methods ------------------------------------------------------------------------------- */

static const struct kvs_value *stats_calls_of(const struct kvs_value *methods, size_t place)
{
    return kvs_value_member(kvs_value_item(methods, place), "calls");
}

/* Return the places of the methods, the most frequent first. NULL when out of memory. */
static size_t *stats_order_methods(const struct kvs_value *methods)
{
    size_t count = kvs_value_count(methods);
    size_t *places = calloc(count + 1, sizeof(*places));

    for (size_t i = 0; i < count && places != NULL; i++) {
        size_t at = i;
        for (; at > 0 && kvs_value_unsigned(stats_calls_of(methods, places[at - 1])) <
                             kvs_value_unsigned(stats_calls_of(methods, i));
             at--)
            places[at] = places[at - 1];
        places[at] = i;
    }
    return places;
}

static enum status stats_print_methods(const struct kvs_value *methods)
{
    static const char *const columns[] = {"calls", "errors", "p50_us", "p99_us", "p999_us", "max_us"};
    static const char *const titles[] = {"CALLS", "ERRORS", "P50", "P99", "P99.9", "MAX"};
    size_t *places = stats_order_methods(methods);
    struct table table;

    if (places == NULL)
        return report("out of memory for the output");
    table_begin(&table, 7);
    table_add(&table, "METHOD");
    for (size_t i = 0; i < 6; i++)
        table_add(&table, "%8s", titles[i]);
    for (size_t i = 0; i < kvs_value_count(methods); i++) {
        const struct kvs_value *method = kvs_value_item(methods, places[i]);
        table_add(&table, "%s", stats_name_of(methods, places[i]).text);
        for (size_t column = 0; column < 6; column++)
            table_add(&table, "%8s",
                      stats_text_of_figure(columns[column], kvs_value_member(method, columns[column])).text);
    }
    free(places);
    putchar('\n');
    return table_print(&table);
}

static enum status stats_print_stats(const struct kvs_value *stats)
{
    for (size_t i = 0; i < kvs_value_count(stats); i++) {
        struct short_text name = stats_name_of(stats, i);
        const struct kvs_value *value = kvs_value_item(stats, i);
        if (strcmp(name.text, "methods") == 0)
            continue;
        if (kvs_value_type(value) == KVS_MAP) {
            stats_print_figures(name.text, value);
        } else {
            stats_print_line(name.text, stats_text_of_figure(name.text, value).text);
        }
    }
    return stats_print_methods(kvs_value_member(stats, "methods"));
}

enum status stats_run(struct invocation *invocation)
{
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = invocation->timeout_s);
    struct kvs_value *stats;

    if (kvs_daemon_stats(invocation->kvs, &options, &stats) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    enum status status = invocation->json ? print_and_free(kvs_value_json(stats)) : stats_print_stats(stats);
    kvs_free(stats);
    return status;
}

/* --- metrics ------------------------------------------------------------------------------- */

enum status stats_run_metrics(struct invocation *invocation)
{
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = invocation->timeout_s);
    enum status status = STATUS_OK;
    struct kvs_value *text;
    size_t size;

    if (kvs_daemon_metrics(invocation->kvs, &options, &text) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    const char *bytes = kvs_value_bytes(text, &size);
    if (invocation->json)
        status = print_and_free(kvs_value_json(text));
    else if (bytes != NULL)
        fwrite(bytes, 1, size, stdout);
    kvs_free(text);
    return status;
}
