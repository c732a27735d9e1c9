/*
 * growth: a table of what operations cost at growing sizes, and whether that cost has the right shape.
 *
 * A table has one axis (keys, buckets, sessions) and a row for each operation. A row's figure is the cost of one unit:
 * of a call, of a key, of a session. Shapes are judged by this figure alone. A cost of a call that does not depend on
 * the size, and a cost that is proportional to the size, both keep it; a quadratic one multiplies it with the size.
 *
 * The rule: the figure at the largest size may be at most `factor` times the lowest figure at a smaller size. Sizes at
 * which the whole measurement is below `enough` are ignored, as they measure noise. A figure is the median of its
 * rounds. A time has two figures, each judged by itself: the processor time of the daemon and its server, of which the
 * lowest round counts, and the time that passed. The second one depends on the disk and on other programs: it may grow
 * more, and the short version does not judge it.
 */
#ifndef TESTS_SCALE_GROWTH_H
#define TESTS_SCALE_GROWTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define GROWTH_SIZES_MAX  5u
#define GROWTH_ROUNDS_MAX 5u
#define GROWTH_FACTOR     6.0
#define GROWTH_PASSED     2.0 /* times the factor: for an elapsed time */
#define GROWTH_ENOUGH_US  5000.0

enum growth_kind {
    GROWTH_TIME,  /* microseconds: both figures */
    GROWTH_AMOUNT /* one figure: bytes, wake-ups, milliseconds */
};

enum growth_shape {
    GROWTH_CONSTANT, /* the cost of a call does not depend on the size */
    GROWTH_LINEAR,   /* the cost is proportional to the size */
    GROWTH_SHOWN     /* shown, not judged */
};

struct growth_row {
    const char *name, *unit;
    enum growth_kind kind;
    enum growth_shape shape;
    double factor; /* 0: GROWTH_FACTOR */
    double enough; /* total at a size, in the row's unit; 0: GROWTH_ENOUGH_US for a time, nothing for an amount */
    double most;   /* the figure at the largest size (of a time, what passed); 0: no limit */
    bool is_long;  /* not in the short version, because it is too slow, too noisy, or known to fail */
};

/*
 * One round: totals, and the units that they are divided by. The figure of an amount is `passed`; its `processor` only
 * says which rounds count, see growth_add.
 */
struct growth_sample {
    double units, passed, processor;
};

struct growth_cell {
    struct growth_sample samples[GROWTH_ROUNDS_MAX];
    unsigned count;
    char failure[160]; /* "", or why the operation failed: the row fails */
};

struct growth {
    const char *title, *axis;
    const struct growth_row *rows;
    size_t row_count;
    uint64_t sizes[GROWTH_SIZES_MAX];
    unsigned size_count;
    bool is_short; /* judge neither the time that passed nor `most`: the machine may be busy with something else */
    struct growth_cell *cells;
};

/* Rows live as long as the table. Free with growth_free. */
void growth_init(struct growth *growth, const char *title, const char *axis, const struct growth_row *rows,
                 size_t row_count, bool is_short);
void growth_free(struct growth *growth);

/* Add a size, larger than those before. Samples belong to the size that was added last. */
void growth_add_size(struct growth *growth, uint64_t size);

/* Return whether the row must be measured. */
bool growth_wants(const struct growth *growth, size_t row);

/* Add a round. Of more than GROWTH_ROUNDS_MAX, those with the lowest processor times count. */
void growth_add(struct growth *growth, size_t row, struct growth_sample sample);
void growth_fail(struct growth *growth, size_t row, const char *format, ...) __attribute__((format(printf, 3, 4)));
bool growth_has_failed(const struct growth *growth, size_t row);

/* Return whether one of the row's figures breaks the rule, or its operation has failed. */
bool growth_fails(const struct growth *growth, size_t row);

/* Print the table in Markdown. Return how many rows have failed. */
unsigned growth_print(const struct growth *growth);

/* Write the rows as objects of a JSON array; is_first: no comma comes before. */
void growth_write_json(FILE *file, const struct growth *growth, bool is_first);

#endif
