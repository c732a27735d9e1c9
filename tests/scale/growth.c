#include "tests/scale/growth.h"

#include "tests/bench/bench.h"
#include "tests/bench/table.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define NAME_COLUMNS   46
#define UNIT_COLUMNS   16
#define NUMBER_COLUMNS 10
#define SHAPE_COLUMNS  18

/* Which of the two figures of a time. */
enum figure { PASSED, PROCESSOR };

void growth_init(struct growth *growth, const char *title, const char *axis, const struct growth_row *rows,
                 size_t row_count, bool is_short)
{
    *growth = (struct growth){.title = title, .axis = axis, .rows = rows, .row_count = row_count, .is_short = is_short};
    growth->cells = calloc(row_count * GROWTH_SIZES_MAX, sizeof(*growth->cells));
    if (growth->cells == NULL)
        bench_die("out of memory");
}

void growth_free(struct growth *growth)
{
    free(growth->cells);
}

static struct growth_cell *cell_at(const struct growth *growth, size_t row, unsigned place)
{
    return &growth->cells[row * GROWTH_SIZES_MAX + place];
}

void growth_add_size(struct growth *growth, uint64_t size)
{
    if (growth->size_count == GROWTH_SIZES_MAX)
        bench_die("too many sizes");
    growth->sizes[growth->size_count++] = size;
}

bool growth_wants(const struct growth *growth, size_t row)
{
    return growth->rows[row].name != NULL && !(growth->is_short && growth->rows[row].is_long);
}

void growth_add(struct growth *growth, size_t row, struct growth_sample sample)
{
    struct growth_cell *cell = cell_at(growth, row, growth->size_count - 1);

    if (cell->count < GROWTH_ROUNDS_MAX) {
        cell->samples[cell->count++] = sample;
        return;
    }
    struct growth_sample *highest = &cell->samples[0];
    for (unsigned i = 1; i < cell->count; i++) {
        if (cell->samples[i].processor / cell->samples[i].units > highest->processor / highest->units)
            highest = &cell->samples[i];
    }
    if (sample.processor / sample.units < highest->processor / highest->units)
        *highest = sample;
}

void growth_fail(struct growth *growth, size_t row, const char *format, ...)
{
    struct growth_cell *cell = cell_at(growth, row, growth->size_count - 1);
    va_list args;

    va_start(args, format);
    vsnprintf(cell->failure, sizeof(cell->failure), format, args);
    va_end(args);
}

bool growth_has_failed(const struct growth *growth, size_t row)
{
    return cell_at(growth, row, growth->size_count - 1)->failure[0] != '\0';
}

/* --- Figures ----------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double total_of(const struct growth_sample *sample, enum figure figure)
{
    return figure == PASSED ? sample->passed : sample->processor;
}

/*
 * Return the figure of all rounds, of one unit or in total; NAN: not measured. It is the median of elapsed times, but
 * the lowest processor time, because other load only adds to that.
 */
static double figure_of(const struct growth_cell *cell, enum figure figure, bool is_total)
{
    double values[GROWTH_ROUNDS_MAX];

    if (cell->count == 0 || cell->failure[0] != '\0')
        return NAN;
    for (unsigned i = 0; i < cell->count; i++)
        values[i] = total_of(&cell->samples[i], figure) / (is_total ? 1 : cell->samples[i].units);
    qsort(values, cell->count, sizeof(values[0]), compare);
    return values[figure == PASSED ? cell->count / 2 : 0];
}

/* How a figure has grown over the sizes at which it was large enough. */
struct trend {
    bool is_known;   /* it was large enough at two sizes */
    double growth;   /* the figure at the largest size, divided by the lowest at a smaller one */
    double exponent; /* the figure grows as this power of the size, from the smallest to the largest */
    double last;     /* the figure at the largest size; 0: none */
};

static struct trend find_trend(const struct growth *growth, size_t row, enum figure figure)
{
    const struct growth_row *spec = &growth->rows[row];
    double enough = spec->enough > 0 ? spec->enough : spec->kind == GROWTH_TIME ? GROWTH_ENOUGH_US : 0;
    double first = NAN, first_size = 0, lowest = NAN;
    struct trend trend = {.is_known = false};

    for (unsigned i = 0; i < growth->size_count; i++) {
        const struct growth_cell *cell = cell_at(growth, row, i);
        double value = figure_of(cell, figure, false);
        if (isnan(value))
            continue;
        trend.last = value;
        if (figure_of(cell, figure, true) < enough || value <= 0)
            continue;
        if (isnan(first)) {
            first = lowest = value;
            first_size = (double)growth->sizes[i];
            continue;
        }
        trend.is_known = true;
        trend.growth = value / lowest;
        trend.exponent = log(value / first) / log((double)growth->sizes[i] / first_size);
        lowest = fmin(lowest, value);
    }
    return trend;
}

static double factor_of(const struct growth_row *row, enum figure figure)
{
    double factor = row->factor > 0 ? row->factor : GROWTH_FACTOR;

    return row->kind == GROWTH_TIME && figure == PASSED ? GROWTH_PASSED * factor : factor;
}

enum verdict { UNJUDGED, GOOD, FAILED };

/* Judge a row's figure; if it fails, text says why. */
static enum verdict judge(const struct growth *growth, size_t row, enum figure figure, char *text, size_t size)
{
    const struct growth_row *spec = &growth->rows[row];
    struct trend trend = find_trend(growth, row, figure);
    bool is_noisy = growth->is_short && spec->kind == GROWTH_TIME && figure == PASSED;
    bool has_factor = spec->shape != GROWTH_SHOWN && !is_noisy && trend.is_known;
    bool has_most = spec->most > 0 && figure == PASSED && !growth->is_short && trend.last > 0;

    *text = '\0';
    for (unsigned i = 0; i < growth->size_count; i++) {
        const struct growth_cell *cell = cell_at(growth, row, i);
        if (cell->failure[0] != '\0' && figure == PASSED) {
            snprintf(text, size, "%s", cell->failure);
            return FAILED;
        }
    }
    if (has_factor && trend.growth > factor_of(spec, figure))
        snprintf(text, size, "%.1f times, at most %.0f", trend.growth, factor_of(spec, figure));
    else if (has_most && trend.last > spec->most)
        snprintf(text, size, "%.3g, at most %.3g %s", trend.last, spec->most, spec->unit);
    return *text != '\0' ? FAILED : has_factor || has_most ? GOOD : UNJUDGED;
}

bool growth_fails(const struct growth *growth, size_t row)
{
    char text[192];

    return judge(growth, row, PASSED, text, sizeof(text)) == FAILED ||
           (growth->rows[row].kind == GROWTH_TIME && judge(growth, row, PROCESSOR, text, sizeof(text)) == FAILED);
}

/* --- The terminal -------------------------------------------------------------------------------------- */

/* Pad by visible characters: a byte that continues a UTF-8 sequence takes no column. */
static void print_padded(const char *text, int columns, bool is_right)
{
    int width = 0;

    for (const char *at = text; *at != '\0'; at++)
        width += ((unsigned char)*at & 0xc0u) != 0x80;
    int pad = columns > width ? columns - width : 0;
    printf("%*s%s%*s", is_right ? pad : 0, "", text, is_right ? 0 : pad, "");
}

static void print_head(const struct growth *growth)
{
    char text[TABLE_NUMBER_BYTES];

    printf("\n%s\n\n| ", growth->title);
    print_padded(growth->axis, NAME_COLUMNS, false);
    printf(" | %-*s |", UNIT_COLUMNS, "");
    for (unsigned i = 0; i < growth->size_count; i++) {
        table_format_number(text, (double)growth->sizes[i]);
        char *point = strchr(text, '.');
        if (point != NULL)
            *point = '\0';
        printf(" %*s |", NUMBER_COLUMNS, text);
    }
    printf(" %-*s | |\n| --- | --- |", SHAPE_COLUMNS, "cost of all");
    for (unsigned i = 0; i < growth->size_count; i++)
        printf(" ---: |");
    printf(" --- | --- |\n");
}

static void print_shape(const struct growth_row *row, const struct trend *trend)
{
    char text[64] = "";

    if (trend->is_known)
        snprintf(text, sizeof(text), "n^%.1f, %.1f times", trend->exponent + (row->shape == GROWTH_LINEAR),
                 trend->growth);
    printf(" %-*s |", SHAPE_COLUMNS, text);
}

static void print_figure(const struct growth *growth, size_t row, enum figure figure)
{
    const struct growth_row *spec = &growth->rows[row];
    struct trend trend = find_trend(growth, row, figure);
    char failure[192], text[TABLE_NUMBER_BYTES];

    enum verdict verdict = judge(growth, row, figure, failure, sizeof(failure));
    printf("| ");
    print_padded(figure == PASSED ? spec->name : "… processor time", NAME_COLUMNS, false);
    printf(" | ");
    print_padded(spec->unit, UNIT_COLUMNS, false);
    printf(" |");
    for (unsigned i = 0; i < growth->size_count; i++) {
        double value = figure_of(cell_at(growth, row, i), figure, false);
        if (isnan(value))
            snprintf(text, sizeof(text), "%s", cell_at(growth, row, i)->failure[0] != '\0' ? "failed" : "");
        else
            table_format_number(text, value);
        printf(" %*s |", NUMBER_COLUMNS, text);
    }
    print_shape(spec, &trend);
    printf(" %s%s |\n", verdict == FAILED ? "**FAILED**: " : verdict == GOOD ? "ok" : "", failure);
}

unsigned growth_print(const struct growth *growth)
{
    unsigned failed = 0;

    print_head(growth);
    for (size_t row = 0; row < growth->row_count; row++) {
        if (!growth_wants(growth, row))
            continue;
        print_figure(growth, row, PASSED);
        if (growth->rows[row].kind == GROWTH_TIME)
            print_figure(growth, row, PROCESSOR);
        failed += growth_fails(growth, row);
    }
    fflush(stdout);
    return failed;
}

/* --- JSON ---------------------------------------------------------------------------------------------- */

static void write_values(FILE *file, const struct growth *growth, size_t row, enum figure figure, const char *name)
{
    struct trend trend = find_trend(growth, row, figure);
    char failure[192];
    enum verdict verdict = judge(growth, row, figure, failure, sizeof(failure));

    fprintf(file, ", \"%s\": {\"values\": [", name);
    for (unsigned i = 0; i < growth->size_count; i++) {
        double value = figure_of(cell_at(growth, row, i), figure, false);
        fprintf(file, i > 0 ? ", " : "");
        if (isnan(value))
            fprintf(file, "null");
        else
            fprintf(file, "%.6g", value);
    }
    fprintf(file, "]");
    if (trend.is_known)
        fprintf(file, ", \"growth\": %.4g, \"exponent\": %.3g", trend.growth,
                trend.exponent + (growth->rows[row].shape == GROWTH_LINEAR));
    fprintf(file, ", \"failed\": %s}", verdict == FAILED ? "true" : "false");
}

/* Names and units are ours: they need no escaping. */
void growth_write_json(FILE *file, const struct growth *growth, bool is_first)
{
    static const char *const shapes[] = {"constant", "linear", "shown"};

    for (size_t row = 0; row < growth->row_count; row++) {
        const struct growth_row *spec = &growth->rows[row];
        if (!growth_wants(growth, row))
            continue;
        fprintf(file,
                "%s  {\"table\": \"%s\", \"name\": \"%s\", \"unit\": \"%s\", \"shape\": \"%s\", \"axis\": \"%s\", "
                "\"sizes\": [",
                is_first && row == 0 ? "" : ",\n", growth->title, spec->name, spec->unit, shapes[spec->shape],
                growth->axis);
        for (unsigned i = 0; i < growth->size_count; i++)
            fprintf(file, "%s%llu", i > 0 ? ", " : "", (unsigned long long)growth->sizes[i]);
        fprintf(file, "]");
        write_values(file, growth, row, PASSED, spec->kind == GROWTH_TIME ? "passed" : "amount");
        if (spec->kind == GROWTH_TIME)
            write_values(file, growth, row, PROCESSOR, "processor");
        fprintf(file, "}");
    }
}
