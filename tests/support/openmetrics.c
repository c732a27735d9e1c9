#include "tests/support/openmetrics.h"

#include "tests/support/text.h"

#include <check.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_BYTES 2048

/* The family of the present lines, and the series of a histogram. */
struct family {
    char name[256], type[32], unit[64], help[512];
    char series[LINE_BYTES]; /* labels of the present buckets, without le */
    double last_le, last_count;
    bool has_end; /* +Inf of the series has come */
    unsigned samples;
};

struct sample {
    char name[256], labels[LINE_BYTES]; /* labels without braces */
    double value;
};

static bool is_name(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (!isalpha((unsigned char)text[i]) && text[i] != '_' && (i == 0 || !isdigit((unsigned char)text[i])))
            return false;
    }
    return length > 0;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);

    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* name="value",name="value": values without escapes, as the daemon writes them. */
static void check_labels(const char *labels, const char *line)
{
    while (*labels != '\0') {
        size_t length = strcspn(labels, "=");
        ck_assert_msg(is_name(labels, length) && labels[length] == '=' && labels[length + 1] == '"', "%s", line);
        labels += length + 2;
        length = strcspn(labels, "\"\\\n");
        ck_assert_msg(labels[length] == '"', "%s", line);
        labels += length + 1;
        ck_assert_msg(*labels == '\0' || (*labels == ',' && labels[1] != '\0'), "%s", line);
        labels += *labels == ',';
    }
}

static void read_sample(const char *line, struct sample *sample)
{
    size_t length = strcspn(line, "{ ");
    const char *after = line + length;
    char *end;

    ck_assert_msg(is_name(line, length) && length < sizeof(sample->name), "%s", line);
    snprintf(sample->name, sizeof(sample->name), "%.*s", (int)length, line);
    sample->labels[0] = '\0';
    if (*after == '{') {
        const char *close = strchr(after, '}');
        ck_assert_msg(close != NULL && close > after + 1, "%s", line);
        snprintf(sample->labels, sizeof(sample->labels), "%.*s", (int)(close - after - 1), after + 1);
        check_labels(sample->labels, line);
        after = close + 1;
    }
    ck_assert_msg(*after == ' ', "%s", line);
    sample->value = strtod(after + 1, &end);
    ck_assert_msg(end > after + 1 && *end == '\0', "%s", line);
}

/* Move the label le out of the labels. Return its value. */
static double take_le(char *labels, const char *line)
{
    char *at = strstr(labels, "le=\"");

    ck_assert_msg(at != NULL && (at == labels || at[-1] == ','), "%s", line);
    double le = strcmp(at + 4, "+Inf\"") == 0 ? INFINITY : strtod(at + 4, NULL);
    ck_assert_msg(ends_with(at, "\""), "le is not the last label: %s", line);
    at[at > labels ? -1 : 0] = '\0';
    return le;
}

static void check_bucket(struct family *family, struct sample *sample, const char *line)
{
    double le = take_le(sample->labels, line);

    if (family->samples == 0 || strcmp(family->series, sample->labels) != 0 || family->has_end) {
        ck_assert_msg(family->samples == 0 || family->has_end, "a series ends without +Inf before: %s", line);
        strcpy(family->series, sample->labels);
        family->last_le = -INFINITY;
        family->last_count = 0;
        family->has_end = false;
    }
    ck_assert_msg(le > family->last_le && sample->value >= family->last_count, "%s", line);
    family->last_le = le;
    family->last_count = sample->value;
    family->has_end = isinf(le) != 0;
}

static void check_sample(struct family *family, const char *line)
{
    size_t length = strlen(family->name);
    struct sample sample;

    read_sample(line, &sample);
    ck_assert_msg(length > 0 && strncmp(sample.name, family->name, length) == 0, "a sample without a TYPE: %s", line);
    const char *suffix = sample.name + length;
    if (strcmp(family->type, "counter") == 0) {
        ck_assert_msg(strcmp(suffix, "_total") == 0 && sample.value >= 0, "%s", line);
    } else if (strcmp(family->type, "gauge") == 0) {
        ck_assert_msg(suffix[0] == '\0', "%s", line);
    } else if (strcmp(suffix, "_bucket") == 0) {
        check_bucket(family, &sample, line);
    } else {
        ck_assert_msg(family->has_end && strcmp(family->series, sample.labels) == 0, "%s", line);
        ck_assert_msg(strcmp(suffix, "_sum") == 0 || strcmp(suffix, "_count") == 0, "%s", line);
        ck_assert_msg(strcmp(suffix, "_sum") == 0 || sample.value == family->last_count, "%s", line);
    }
    family->samples++;
}

static void begin_family(struct family *family, const char *name)
{
    if (strcmp(family->name, name) == 0)
        return;
    ck_assert_msg(strcmp(family->type, "histogram") != 0 || family->samples == 0 || family->has_end, "%s",
                  family->name);
    memset(family, 0, sizeof(*family));
    snprintf(family->name, sizeof(family->name), "%s", name);
}

static void check_metadata(struct family *family, const char *line)
{
    char keyword[8], name[256], rest[512];

    ck_assert_msg(sscanf(line, "# %7s %255s %511[^\n]", keyword, name, rest) == 3 && is_name(name, strlen(name)), "%s",
                  line);
    begin_family(family, name);
    ck_assert_msg(family->samples == 0, "metadata after samples: %s", line);
    bool is_type = strcmp(keyword, "TYPE") == 0, is_unit = strcmp(keyword, "UNIT") == 0;
    ck_assert_msg(is_type || is_unit || strcmp(keyword, "HELP") == 0, "%s", line);
    char *place = is_type ? family->type : is_unit ? family->unit : family->help;
    ck_assert_msg(place[0] == '\0', "twice: %s", line);
    strcpy(place, rest);
    ck_assert_msg(!is_unit || ends_with(name, format_text("_%s", rest)), "%s", line);
    ck_assert_msg(!is_type || strcmp(rest, "counter") == 0 || strcmp(rest, "gauge") == 0 ||
                      strcmp(rest, "histogram") == 0,
                  "%s", line);
}

static int compare_lines(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What a line is about: a sample without its value, or a family's TYPE. Two of one text are a mistake. */
static char *subject_of(const char *line)
{
    const char *space = strrchr(line, ' ');

    return format_text("%.*s", (int)(space - line), line);
}

void openmetrics_check(const char *text)
{
    size_t count = 0, capacity = 1;
    struct family family = {0};
    char line[LINE_BYTES];
    bool has_ended = false;

    for (const char *at = text; *at != '\0'; at++)
        capacity += *at == '\n';
    char **subjects = keep(calloc(capacity, sizeof(*subjects)));
    for (const char *at = text; *at != '\0';) {
        size_t length = strcspn(at, "\n");
        ck_assert_msg(at[length] == '\n' && length > 0 && length < sizeof(line), "a line without an end: %.80s", at);
        snprintf(line, sizeof(line), "%.*s", (int)length, at);
        at += length + 1;
        ck_assert_msg(!has_ended, "after # EOF: %s", line);
        if (strcmp(line, "# EOF") == 0) {
            has_ended = true;
        } else if (line[0] == '#') {
            check_metadata(&family, line);
            if (strncmp(line, "# TYPE ", 7) == 0)
                subjects[count++] = subject_of(line);
        } else {
            check_sample(&family, line);
            ck_assert_str_ne(family.type, "");
            ck_assert_str_ne(family.help, "");
            subjects[count++] = subject_of(line);
        }
    }
    ck_assert_msg(has_ended, "the text does not end with # EOF");
    qsort((void *)subjects, count, sizeof(*subjects), compare_lines);
    for (size_t i = 1; i < count; i++)
        ck_assert_msg(strcmp(subjects[i - 1], subjects[i]) != 0, "twice: %s", subjects[i]);
}

static const char *find_sample(const char *text, const char *sample)
{
    size_t length = strlen(sample);

    for (const char *at = text; at != NULL; at = strchr(at, '\n')) {
        at += *at == '\n';
        if (strncmp(at, sample, length) == 0 && at[length] == ' ')
            return at + length + 1;
    }
    return NULL;
}

bool openmetrics_has(const char *text, const char *sample)
{
    return find_sample(text, sample) != NULL;
}

double openmetrics_value(const char *text, const char *sample)
{
    const char *value = find_sample(text, sample);

    ck_assert_msg(value != NULL, "there is no %s", sample);
    return strtod(value, NULL);
}

bool openmetrics_has_name(const char *text, const char *name)
{
    size_t length = strlen(name);

    for (const char *at = text; at != NULL; at = strchr(at, '\n')) {
        at += *at == '\n';
        if (strncmp(at, name, length) == 0 && (at[length] == ' ' || at[length] == '{'))
            return true;
    }
    return false;
}
