/*
 * Tables and maps. A pipe gets every cell in full. On a terminal a table uses the width that there is: a row is one
 * line with cells that are cut, or in a table that folds several lines without a loss.
 */
#include "client/kvctl/kvctl.h"
#include "client/kvctl/safe_text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GAP_COLUMNS 2u

/* The last column, which has values and other texts, becomes narrow first. */
#define NARROWEST_LAST_COLUMN 8u

/* No other column becomes narrower than this, so that a time or a number is never cut. */
#define NARROWEST_COLUMN 20u

/* --- Lines ----------------------------------------------------------------------------------- */

size_t columns_after(size_t used)
{
    size_t columns = safe_text_terminal_columns();

    if (columns == SIZE_MAX)
        return SIZE_MAX;
    return columns > used + NARROWEST_LAST_COLUMN ? columns - used : NARROWEST_LAST_COLUMN;
}

/* Return how many bytes of text are its next line of at most this number of columns. Lines end at blanks, if possible.
 */
static size_t table_measure_line(const char *text, size_t columns)
{
    size_t end = safe_text_fit(text, columns), blank = end;

    if (text[end] == '\0' || text[end] == ' ')
        return end;
    while (blank > 0 && text[blank - 1] != ' ')
        blank--;
    while (blank > 0 && text[blank - 1] == ' ')
        blank--;
    return blank > 0 ? blank : end;
}

static const char *table_skip_blanks(const char *text)
{
    return text + strspn(text, " ");
}

void print_folded(size_t indent, const char *text)
{
    size_t columns = columns_after(indent);

    for (;;) {
        size_t length = table_measure_line(text, columns);
        printf("%.*s\n", (int)length, text);
        text = table_skip_blanks(text + length);
        if (*text == '\0')
            return;
        printf("%*s", (int)indent, "");
    }
}

/* --- Tables -------------------------------------------------------------------------------- */

void table_begin(struct table *table, size_t columns)
{
    *table = (struct table){.columns = columns};
}

void table_add(struct table *table, const char *format, ...)
{
    va_list args;
    char *text;

    if (table->cells == table->capacity) {
        size_t capacity = table->capacity > 0 ? table->capacity * 2 : 64;
        char **texts = realloc(table->texts, capacity * sizeof(*texts));
        if (texts == NULL) {
            table->no_memory = true;
            return;
        }
        table->texts = texts;
        table->capacity = capacity;
    }
    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    char *safe = length >= 0 ? safe_text_of_text(text, SIZE_MAX) : NULL;
    if (length >= 0)
        free(text);
    if (safe == NULL)
        table->no_memory = true;
    else
        table->texts[table->cells++] = safe;
}

static size_t table_measure_column(const struct table *table, size_t column)
{
    size_t widest = 0;

    for (size_t cell = column; cell < table->cells; cell += table->columns) {
        size_t width = safe_text_columns(table->texts[cell], strlen(table->texts[cell]));
        if (width > widest)
            widest = width;
    }
    return widest;
}

static size_t table_sum_widths(const size_t widths[], size_t columns)
{
    size_t sum = 0;

    for (size_t column = 0; column < columns; column++)
        sum += widths[column] + (column > 0 ? GAP_COLUMNS : 0);
    return sum;
}

/* Take what is too much from a column, but leave it at least narrowest columns. Return what is still too much. */
static size_t table_narrow_column(size_t *width, size_t excess, size_t narrowest)
{
    size_t taken = *width > narrowest ? *width - narrowest : 0;

    if (taken > excess)
        taken = excess;
    *width -= taken;
    return excess - taken;
}

/*
 * Fit the widths to the terminal: narrow the last column, then the widest ones. If that is not enough, leave out
 * columns at the right, or fold the last one again. Return the number of columns.
 */
static size_t table_fit(const struct table *table, size_t widths[])
{
    size_t columns = table->columns, available = safe_text_terminal_columns();
    size_t sum = table_sum_widths(widths, columns), excess = sum > available ? sum - available : 0;

    excess = table_narrow_column(&widths[columns - 1], excess, table->folds ? NARROWEST_COLUMN : NARROWEST_LAST_COLUMN);
    for (size_t tries = 0; tries < columns && excess > 0; tries++) {
        size_t widest = 0;
        for (size_t column = 1; column < columns; column++)
            widest = widths[column] > widths[widest] ? column : widest;
        excess = table_narrow_column(&widths[widest], excess, NARROWEST_COLUMN);
    }
    table_narrow_column(&widths[columns - 1], excess, NARROWEST_LAST_COLUMN);
    while (!table->folds && columns > 1 && table_sum_widths(widths, columns) > available)
        columns--;
    return columns;
}

/* Print a row on one line, with cells that are cut. */
static void table_print_cut(char **cells, const size_t widths[], size_t columns)
{
    for (size_t column = 0; column < columns; column++) {
        char *cut = safe_text_of_text(cells[column], widths[column]);
        const char *text = cut != NULL ? cut : "?";
        fputs(text, stdout);
        if (column + 1 < columns)
            printf("%*s", (int)(widths[column] - safe_text_columns(text, strlen(text)) + GAP_COLUMNS), "");
        free(cut);
    }
    putchar('\n');
}

/* Print a row on as many lines as its cells need. */
static void table_print_folded(char **cells, const size_t widths[], size_t columns)
{
    const char *rest[TABLE_COLUMNS_MAX];
    bool has_more = true;

    for (size_t column = 0; column < columns; column++)
        rest[column] = cells[column];
    while (has_more) {
        has_more = false;
        size_t blanks = 0; /* none at the end of a line */
        for (size_t column = 0; column < columns; column++) {
            size_t length = table_measure_line(rest[column], widths[column]);
            size_t used = safe_text_columns(rest[column], length);
            if (length > 0)
                printf("%*s%.*s", (int)blanks, "", (int)length, rest[column]);
            blanks = (length > 0 ? 0 : blanks) + widths[column] - used + GAP_COLUMNS;
            rest[column] = table_skip_blanks(rest[column] + length);
            has_more = has_more || *rest[column] != '\0';
        }
        putchar('\n');
    }
}

/* Print a last line with the titles of the columns that are left out, if any are. */
static void table_print_left_out(const struct table *table, size_t columns)
{
    if (columns == table->columns)
        return;
    fputs("... left out:", stdout);
    for (size_t column = columns; column < table->columns; column++)
        printf("%s %s", column > columns ? "," : "", table_skip_blanks(table->texts[column]));
    putchar('\n');
}

enum status table_print(struct table *table)
{
    size_t widths[TABLE_COLUMNS_MAX], columns = table->columns;

    for (size_t column = 0; column < table->columns; column++)
        widths[column] = table_measure_column(table, column);
    if (safe_text_terminal_columns() < SIZE_MAX)
        columns = table_fit(table, widths);
    for (size_t row = 0; row + table->columns <= table->cells && !table->no_memory; row += table->columns) {
        if (table->folds)
            table_print_folded(table->texts + row, widths, columns);
        else
            table_print_cut(table->texts + row, widths, columns);
    }
    if (table->cells > 0 && !table->no_memory)
        table_print_left_out(table, columns);
    for (size_t cell = 0; cell < table->cells; cell++)
        free(table->texts[cell]);
    free(table->texts);
    return table->no_memory ? report("out of memory for the output") : STATUS_OK;
}

/* --- Maps ---------------------------------------------------------------------------------- */

static void table_add_member(struct table *table, const char *name, const struct kvs_value *value,
                             text_of_member_fn *text_of_member)
{
    if (kvs_value_type(value) == KVS_MAP) {
        for (size_t i = 0; i < kvs_value_count(value); i++) {
            struct short_text member = text_of_value(kvs_value_key(value, i));
            char *path;
            if (asprintf(&path, "%s%s%s", name, *name != '\0' ? "." : "", member.text) < 0) {
                table->no_memory = true;
                return;
            }
            table_add_member(table, path, kvs_value_item(value, i), text_of_member);
            free(path);
        }
        return;
    }
    struct short_text text;
    table_add(table, "%s:", name);
    if (text_of_member != NULL && text_of_member(name, value, &text)) {
        table_add(table, "%s", text.text);
        return;
    }
    size_t size;
    const char *bytes = kvs_value_bytes(value, &size);
    if (bytes != NULL) {
        char *safe = safe_text_of_bytes(bytes, size, SIZE_MAX);
        table_add(table, "%s", safe != NULL ? safe : "?");
        free(safe);
        return;
    }
    char *json = kvs_value_json(value);
    if (json == NULL)
        table->no_memory = true;
    else
        table_add(table, "%s", kvs_value_type(value) == KVS_NIL ? "-" : json);
    kvs_free(json);
}

void print_map(const struct kvs_value *map, text_of_member_fn *text_of_member)
{
    struct table table;

    table_begin(&table, 2);
    table.folds = true;
    table_add_member(&table, "", map, text_of_member);
    table_print(&table);
}
