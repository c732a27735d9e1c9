#include "tests/bench/table.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NAME_COLUMNS 48
#define BAR_CELLS    20u
#define MARK_CELL    10u /* position of the expected figure, or of the peer if there is none */

static bool is_terminal(void)
{
    return isatty(STDOUT_FILENO);
}

double table_ratio(const struct table_result *result)
{
    return result->ours[TABLE_ROUNDS / 2] / result->peer[TABLE_ROUNDS / 2];
}

bool table_is_reached(const struct table_result *result)
{
    const struct table_row *row = result->row;
    double ratio = table_ratio(result);

    if (row->must_absolute > 0 && result->ours[TABLE_ROUNDS / 2] > row->must_absolute)
        return false;
    return row->must <= 0 || (row->is_more_better ? ratio >= row->must : ratio <= row->must);
}

/* --- The terminal --------------------------------------------------------------------------------------- */

void table_format_number(char text[TABLE_NUMBER_BYTES], double number)
{
    char digits[32];
    int decimals = number >= 100 ? 0 : number >= 10 ? 1 : 2;
    size_t length = (size_t)snprintf(digits, sizeof(digits), "%.*f", decimals, number);

    for (size_t i = 0; i < length; i++) {
        if (number >= 1000 && i > 0 && (length - i) % 3 == 0)
            *text++ = ' ';
        *text++ = digits[i];
    }
    *text = '\0';
}

static void print_number(double number)
{
    char text[TABLE_NUMBER_BYTES];

    table_format_number(text, number);
    printf("%9s", text);
}

/* Distance from the mark in eighths of a cell. A shorter bar is worse, whether the ratio should be high or low. */
static void print_bar(const struct table_result *result)
{
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    const struct table_row *row = result->row;
    double mark = row->must > 0 ? row->must : 1, ratio = table_ratio(result);
    double reached = row->must_absolute > 0 ? row->must_absolute / result->ours[TABLE_ROUNDS / 2]
                     : row->is_more_better  ? ratio / mark
                                            : mark / ratio;
    unsigned length = reached > 0 && reached < 1e6 ? (unsigned)(reached * MARK_CELL * 8) : 0;

    if (length > BAR_CELLS * 8)
        length = BAR_CELLS * 8;
    for (unsigned cell = 0; cell < BAR_CELLS; cell++) {
        unsigned rest = length > cell * 8 ? length - cell * 8 : 0;
        if (cell == MARK_CELL && rest < 8)
            fputs(rest > 0 ? "▌" : "│", stdout);
        else
            fputs(rest >= 8 ? "█" : rest > 0 ? eighths[rest] : " ", stdout);
    }
}

static double spread_percent(const double sorted[TABLE_ROUNDS])
{
    return (sorted[TABLE_ROUNDS - 1] - sorted[0]) / 2 / sorted[TABLE_ROUNDS / 2] * 100;
}

void table_print_head(void)
{
    printf("%-*s %9s %4s %9s %4s %-6s %6s\n", NAME_COLUMNS, "", "kvstored", "", "peer", "", "", "ratio");
}

void table_print_section(const char *section)
{
    bool is_loud = is_terminal();

    printf("%s%s%s%s\n", is_loud ? "\r\033[2K" : "", is_loud ? "\033[1m" : "", section, is_loud ? "\033[0m" : "");
}

void table_print_progress(const struct table_row *row, unsigned round)
{
    if (is_terminal())
        printf("\r\033[2K%-*s round %u of %u", NAME_COLUMNS, row->name, round + 1, TABLE_ROUNDS);
    fflush(stdout);
}

void table_print_row(const struct table_result *result)
{
    const struct table_row *row = result->row;
    bool has_goal = row->must > 0 || row->must_absolute > 0, is_reached = table_is_reached(result);
    const char *colour = !is_terminal() || !has_goal ? "" : is_reached ? "\033[32m" : "\033[31m";

    if (is_terminal())
        printf("\r\033[2K");
    printf("%-*s ", NAME_COLUMNS, row->name);
    print_number(result->ours[TABLE_ROUNDS / 2]);
    printf(" ±%-2.0f%%", spread_percent(result->ours));
    print_number(result->peer[TABLE_ROUNDS / 2]);
    printf(" ±%-2.0f%% %-6s %6.2f %s", spread_percent(result->peer), row->unit, table_ratio(result), colour);
    print_bar(result);
    printf("%s", *colour != '\0' ? "\033[0m" : "");
    if (row->must > 0)
        printf(" %s %.2f", row->is_more_better ? "≥" : "≤", row->must);
    else if (row->must_absolute > 0)
        printf(" ≤ %.0f %s", row->must_absolute, row->unit);
    else
        printf(" %s is better", row->is_more_better ? "more" : "less");
    printf("%s\n", has_goal && !is_reached ? "  MISSED" : "");
    fflush(stdout);
}

void table_print_missed(const struct table_result *results, size_t count)
{
    size_t missed = 0;

    for (size_t i = 0; i < count; i++) {
        if (table_is_reached(&results[i]))
            continue;
        printf("%s  %s\n", missed++ == 0 ? "These rows miss their expected figures:\n" : "", results[i].row->name);
    }
    if (missed == 0)
        printf("No row misses its expected figure.\n");
    fflush(stdout);
}

/* --- JSON ------------------------------------------------------------------------------------------------- */

/* Names and units are ours: they need no escaping. */
void table_write_json(const char *path, const struct table_result *results, size_t count)
{
    FILE *file = fopen(path, "w");

    if (file == NULL)
        bench_die("cannot write %s", path);
    fprintf(file, "[\n");
    for (size_t i = 0; i < count; i++) {
        const struct table_result *result = &results[i];
        const struct table_row *row = result->row;
        fprintf(file,
                "  {\"name\": \"%s\", \"ours\": %.6g, \"peer\": %.6g, \"ratio\": %.4g, \"unit\": \"%s\", \"better\": "
                "\"%s\", \"ours_min\": %.6g, \"ours_max\": %.6g, \"peer_min\": %.6g, \"peer_max\": %.6g, "
                "\"rounds\": %u, \"reached\": %s}%s\n",
                row->name, result->ours[TABLE_ROUNDS / 2], result->peer[TABLE_ROUNDS / 2], table_ratio(result),
                row->unit, row->is_more_better ? "higher" : "lower", result->ours[0], result->ours[TABLE_ROUNDS - 1],
                result->peer[0], result->peer[TABLE_ROUNDS - 1], TABLE_ROUNDS,
                table_is_reached(result) ? "true" : "false", i + 1 < count ? "," : "");
    }
    fprintf(file, "]\n");
    if (fclose(file) != 0)
        bench_die("cannot write %s", path);
}
