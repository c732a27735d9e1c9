#include "client/kvctl/advice.h"
#include "client/kvctl/kvctl.h"
#include "client/kvctl/safe_text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --- Text for people ----------------------------------------------------------------------- */

struct short_text text_of_size(uint64_t size_bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double size = (double)size_bytes;
    size_t unit = 0;
    struct short_text text;

    while (size >= 1024 && unit + 1 < sizeof(units) / sizeof(*units)) {
        size /= 1024;
        unit++;
    }
    snprintf(text.text, sizeof(text.text), unit == 0 || size >= 100 ? "%.0f %s" : "%.1f %s", size, units[unit]);
    return text;
}

struct short_text text_of_duration(int64_t duration_s)
{
    static const struct {
        int64_t seconds;
        char letter;
    } units[] = {{24 * 60 * 60, 'd'}, {60 * 60, 'h'}, {60, 'm'}, {1, 's'}};
    struct short_text text = {.text = "0s"};
    size_t length = 0;

    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++) {
        if (duration_s / units[i].seconds > 0)
            length += (size_t)snprintf(text.text + length, sizeof(text.text) - length, "%" PRId64 "%c",
                                       duration_s / units[i].seconds, units[i].letter);
        duration_s %= units[i].seconds;
    }
    return text;
}

struct short_text text_of_time(int64_t time_us)
{
    time_t seconds = (time_t)(time_us / 1000000);
    struct short_text text = {.text = "?"};
    struct tm local;

    if (localtime_r(&seconds, &local) != NULL)
        strftime(text.text, sizeof(text.text), "%Y-%m-%d %H:%M:%S", &local);
    return text;
}

struct short_text text_of_bytes(const char *bytes, size_t size)
{
    char *safe = safe_text_of_bytes(bytes, size, SHORT_TEXT_COLUMNS);
    struct short_text text;

    snprintf(text.text, sizeof(text.text), "%s", safe != NULL ? safe : "?");
    free(safe);
    return text;
}

struct short_text text_of_value(const struct kvs_value *value)
{
    size_t size;
    const char *bytes = kvs_value_bytes(value, &size);

    return text_of_bytes(bytes, size);
}

const char *text_of_operation(enum kvs_operation operation)
{
    static const char *const names[] = {
        [KVS_OPERATION_PUT] = "put", [KVS_OPERATION_DELETE] = "delete", [KVS_OPERATION_PURGE] = "purge"};

    return names[operation];
}

struct short_text text_of_count(uint64_t count)
{
    struct short_text text;
    char digits[24];
    size_t length = (size_t)snprintf(digits, sizeof(digits), "%" PRIu64, count), written = 0;

    for (size_t i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            text.text[written++] = ',';
        text.text[written++] = digits[i];
    }
    text.text[written] = '\0';
    return text;
}

struct short_text text_of_things(uint64_t count, const char *one, const char *many)
{
    struct short_text text, number = text_of_count(count);

    snprintf(text.text, sizeof(text.text), "%s %s", number.text, count == 1 ? one : many);
    return text;
}

struct short_text text_of_microseconds(double us)
{
    struct short_text text;

    if (us < 999.5)
        snprintf(text.text, sizeof(text.text), us < 9.95 ? "%.1f us" : "%.0f us", us);
    else if (us < 999500)
        snprintf(text.text, sizeof(text.text), us < 9995 ? "%.2f ms" : "%.1f ms", us / 1000);
    else
        snprintf(text.text, sizeof(text.text), "%.2f s", us / 1000000);
    return text;
}

/* --- Errors -------------------------------------------------------------------------------- */

/* A line on standard error is cut at this length. */
#define LINE_BYTES 1536u

static bool is_json;
static const char *verb_name = "";

void report_as_json(void)
{
    is_json = true;
}

void report_for_verb(const char *name)
{
    verb_name = name;
}

/* error: NULL if the line is about the use of kvctl, the machine, an absent key or a lost lock. code is for these. */
static void output_print_error(const struct kvs_error *error, const char *code, const char *line)
{
    char *json = is_json && error != NULL ? kvs_error_json(error) : NULL;

    if (json != NULL) {
        fprintf(stderr, "%s\n", json);
        kvs_free(json);
    } else if (is_json) {
        fprintf(stderr, "{\"code\":\"%s\",\"message\":", code);
        safe_text_write_json(stderr, line);
        fputs("}\n", stderr);
    } else {
        fprintf(stderr, "kvctl: %s\n", line);
    }
}

/* Format one line, whatever the names in it contain. */
static void output_format_line(char line[LINE_BYTES], const char *format, va_list args)
{
    vsnprintf(line, LINE_BYTES, format, args);
    char *safe = safe_text_of_text(line, LINE_BYTES);
    if (safe != NULL)
        snprintf(line, LINE_BYTES, "%s", safe);
    free(safe);
}

static void output_print_line(const char *code, const char *format, va_list args)
{
    char line[LINE_BYTES];

    output_format_line(line, format, args);
    output_print_error(NULL, code, line);
}

/* Print one line with a code of kvctl's own. */
static void output_report_as(const char *code, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void output_report_as(const char *code, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    output_print_line(code, format, args);
    va_end(args);
}

enum status report(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    output_print_line("failed", format, args);
    va_end(args);
    return STATUS_FAILED;
}

enum status report_absent(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    output_print_line("absent", format, args);
    va_end(args);
    return STATUS_ABSENT;
}

enum status report_timeout(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    output_print_line("deadline_exceeded", format, args);
    va_end(args);
    return STATUS_TIMEOUT;
}

/*
 * Write the message with kvctl's words. A verb may make calls that belong to other verbs: if the user may not make one
 * of them, name the verb that was given.
 */
static void output_translate(const struct kvs_error *error, char message[KVS_MESSAGE_BYTES])
{
    static const char refusal[] = " may not call ";
    const char *refused = error->code == KVS_PERMISSION_DENIED ? strstr(error->message, refusal) : NULL;
    char named[KVS_MESSAGE_BYTES];

    if (refused == NULL) {
        advice_translate(error->message, error->bucket, message, KVS_MESSAGE_BYTES);
        return;
    }
    const char *method = refused + sizeof(refusal) - 1;
    snprintf(named, sizeof(named), "%.*skvctl %s%s", (int)(method - error->message), error->message, verb_name,
             method + strcspn(method, " "));
    advice_translate(named, error->bucket, message, KVS_MESSAGE_BYTES);
}

/* Print an error of a call, with kvctl's words, a beginning and an end. */
static void output_advise(const struct kvs_error *error, const char *before, const char *after)
{
    struct kvs_error translated = *error;
    char line[LINE_BYTES + KVS_KEY_MAX + KVS_MESSAGE_BYTES];

    output_translate(error, translated.message);
    snprintf(line, sizeof(line), "%s%s%s", before, translated.message, after);
    char *safe = safe_text_of_text(line, LINE_BYTES);
    output_print_error(&translated, "failed", safe != NULL ? safe : "out of memory");
    free(safe);
}

enum status status_of_error(const struct kvs_error *error)
{
    if (error->outcome == KVS_OUTCOME_UNKNOWN)
        return STATUS_UNKNOWN;
    switch (error->code) {
    case KVS_BUCKET_NOT_FOUND:
        return STATUS_ABSENT;
    case KVS_ALREADY_EXISTS:
    case KVS_CONFLICT:
        return STATUS_CONFLICT;
    case KVS_PERMISSION_DENIED:
    case KVS_RESOURCE_EXHAUSTED:
    case KVS_NOT_AN_INTEGER:
    case KVS_OUT_OF_RANGE:
    case KVS_TOO_LARGE:
    case KVS_UNSUPPORTED:
        return STATUS_REFUSED;
    case KVS_UNAVAILABLE:
    case KVS_IO:
    case KVS_PROTOCOL:
        return STATUS_UNAVAILABLE;
    case KVS_DEADLINE_EXCEEDED:
        return STATUS_TIMEOUT;
    case KVS_LOCKED:
        return STATUS_LOCKED;
    case KVS_NOT_HELD:
        return STATUS_LOST;
    default:
        return STATUS_FAILED;
    }
}

#define UNKNOWN_OUTCOME " (outcome unknown: it may have been written)"

enum status report_key_error(const char *key, const struct kvs_error *error)
{
    char before[KVS_KEY_MAX + 4];

    snprintf(before, sizeof(before), "%s: ", key);
    output_advise(error, before, error->outcome == KVS_OUTCOME_UNKNOWN ? UNKNOWN_OUTCOME : "");
    return status_of_error(error);
}

enum status report_lost(const struct kvs_error *reason, enum lost_when when)
{
    static const char *const sentences[] = {
        [LOST_BEFORE_COMMAND] = "the lock was lost before the command was started",
        [LOST_DURING_COMMAND] = "the lock was lost, and the command was ended",
        [LOST_UNNOTICED] = "the lock was lost before the command has ended",
    };
    char advice[KVS_MESSAGE_BYTES];

    if (reason->code == KVS_OK) {
        output_report_as("lock_lost", "the lock was about to be lost, because the daemon did not answer in time; the "
                                      "command was ended");
        return STATUS_LOST;
    }
    advice_translate(reason->message, reason->bucket, advice, sizeof(advice));
    output_report_as("lock_lost", "%s: %s", sentences[when], advice);
    return STATUS_LOST;
}

void report_note(const char *format, ...)
{
    char line[LINE_BYTES];
    va_list args;

    va_start(args, format);
    output_format_line(line, format, args);
    va_end(args);
    if (!is_json) {
        fprintf(stderr, "kvctl: %s\n", line);
        return;
    }
    fputs("{\"note\":", stderr);
    safe_text_write_json(stderr, line);
    fputs("}\n", stderr);
}

enum status status_add(enum status status, enum status next)
{
    return status == STATUS_OK || next == STATUS_UNKNOWN ? next : status;
}

enum status report_error(const struct kvs_error *error)
{
    if (error->outcome == KVS_OUTCOME_UNKNOWN)
        output_advise(error, "", UNKNOWN_OUTCOME);
    else if (error->code == KVS_PERMISSION_DENIED)
        output_advise(error, "", " (see access in kvstored.yaml(5))");
    else
        output_advise(error, "", "");
    return status_of_error(error);
}

/* --- Standard output ------------------------------------------------------------------------- */

enum status print_check(enum status status)
{
    static bool was_reported;

    if (!ferror(stdout))
        return status;
    if (!was_reported)
        report("cannot write the output: %s", strerror(errno));
    was_reported = true;
    return status == STATUS_OK || status == STATUS_ABSENT ? STATUS_FAILED : status;
}

/* --- Lines ----------------------------------------------------------------------------------- */

void print_line(const struct invocation *invocation, const char *name)
{
    if (invocation->terminal) {
        print_safely(name, strlen(name), SIZE_MAX);
        putchar('\n');
    } else {
        puts(name);
    }
}

#define TAB_COLUMNS 8u

void print_key_and_value(const struct invocation *invocation, const char *key, const struct kvs_entry *entry)
{
    if (invocation->terminal) {
        size_t used = print_safely(key, strlen(key), columns_after(2 * TAB_COLUMNS));
        putchar('\t');
        print_safely(entry->value, entry->value_size, columns_after((used / TAB_COLUMNS + 1) * TAB_COLUMNS));
    } else {
        printf("%s\t", key);
        fwrite(entry->value, 1, entry->value_size, stdout);
    }
    putchar('\n');
}

size_t print_safely(const char *bytes, size_t size, size_t columns)
{
    char *safe = safe_text_of_bytes(bytes, size, columns);
    const char *text = safe != NULL ? safe : "?";
    size_t used = safe_text_columns(text, strlen(text));

    fputs(text, stdout);
    free(safe);
    return used;
}

void print_omitted(uint64_t shown, uint64_t all)
{
    if (all > shown)
        printf("... and %" PRIu64 " more: see --limit\n", all - shown);
}

/* --- JSON ---------------------------------------------------------------------------------- */

enum status print_and_free(char *json)
{
    if (json == NULL)
        return report("out of memory for the output");
    puts(json);
    kvs_free(json);
    return STATUS_OK;
}
