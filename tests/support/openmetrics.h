/*
 * openmetrics: checks a text in the format of OpenMetrics, and finds samples in it.
 */
#ifndef SUPPORT_OPENMETRICS_H
#define SUPPORT_OPENMETRICS_H

#include <stdbool.h>

/*
 * The text must be valid: lines are samples or metadata; each sample belongs to the family whose TYPE comes last before
 * it, with the suffix of its type and the unit of its family; no family and no sample occurs twice; counters are not
 * negative; buckets of histograms are cumulative, end with +Inf and agree with the count; the last line is # EOF.
 */
void openmetrics_check(const char *text);

/* Return whether the text has a sample: its name, with all labels as the text has them. */
bool openmetrics_has(const char *text, const char *sample);

/* Return its value. The test fails if there is none. */
double openmetrics_value(const char *text, const char *sample);

/* Return whether a sample has this name, with any labels. */
bool openmetrics_has_name(const char *text, const char *name);

#endif
