/* table: the results of a run, for people and for programs. */
#ifndef TESTS_BENCH_TABLE_H
#define TESTS_BENCH_TABLE_H

#include "tests/bench/bench.h"

#define TABLE_ROUNDS       5u
#define TABLE_NUMBER_BYTES 40

/* A row and its expected figure. A ratio is ours / peer; 0: nothing is expected. */
struct table_row {
    const char *section; /* a heading before the first row of a group; rows of a group have the same pointer */
    const char *name, *unit;
    bool is_more_better;
    double must, aim;
    double must_absolute; /* limit of kvstored's own figure, whatever the peer's */
    bench_row_fn *measure;
};

/* Of one row, each sorted. */
struct table_result {
    const struct table_row *row;
    double ours[TABLE_ROUNDS], peer[TABLE_ROUNDS];
};

/* Write a number for people, with its thousands apart. */
void table_format_number(char text[TABLE_NUMBER_BYTES], double number);

double table_ratio(const struct table_result *result);
bool table_is_reached(const struct table_result *result);

void table_print_head(void);
void table_print_section(const char *section);
/* Show which row is measured, if somebody watches; the row itself replaces it. */
void table_print_progress(const struct table_row *row, unsigned round);
void table_print_row(const struct table_result *result);
/* Name the rows that miss their expected figures, or say that none does. */
void table_print_missed(const struct table_result *results, size_t count);

/* An array of objects: "name", "ours", "peer", "ratio", "unit", "better", and the spread. */
void table_write_json(const char *path, const struct table_result *results, size_t count);

#endif
