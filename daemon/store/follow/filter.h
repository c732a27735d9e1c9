/*
 * filter: sets of filters of keys, as watches have them.
 *
 * Used by watch and replica. A filter is what kv_check_filter allows.
 */
#ifndef DAEMON_STORE_FILTER_H
#define DAEMON_STORE_FILTER_H

#include <stdbool.h>
#include <stddef.h>

/* Whether every key that narrow matches is matched by wide too. */
bool filter_covers(const char *wide, const char *narrow);

/* Whether there can be a key that both match. */
bool filter_overlaps(const char *a, const char *b);

/* Whether it matches just the one key that it is. */
bool filter_is_key(const char *filter);

/* Whether one of them matches key. */
bool filter_any_matches(const char *const *filters, size_t count, const char *key);

/*
 * Takes out of filters what others cover, and answers how many are left. A server refuses filters of
 * one consumer of which two may match the same key (ADR-33), and handles few better than many: where some are left that
 * overlap, or more than most, the one filter ">" takes their place.
 */
size_t filter_reduce(const char **filters, size_t count, size_t most);

/* The subjects that filters stand for behind a bucket's prefix; NULL: out of memory. filter_free_subjects frees them.
 */
const char **filter_make_subjects(const char *prefix, const char *const *filters, size_t count);
void filter_free_subjects(const char **subjects, size_t count);

#endif
