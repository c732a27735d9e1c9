/*
 * filter: sets of filters of keys.
 *
 * Used by watch and reconcile. A filter has the form that kv_check_filter allows.
 */
#ifndef DAEMON_STORE_FILTER_H
#define DAEMON_STORE_FILTER_H

#include <stdbool.h>
#include <stddef.h>

/* Return whether wide matches every key that narrow matches. */
bool filter_covers(const char *wide, const char *narrow);

/* Return whether there can be a key that both match. */
bool filter_overlaps(const char *a, const char *b);

/* Return whether the filter is a key, without wildcards. */
bool filter_is_key(const char *filter);

/*
 * Return as how many filters of watches a filter counts: each 4 tokens of one with wildcards count as one. A token
 * takes some 700 bytes in a filter_tree. A filter without wildcards takes no more than these four.
 */
size_t filter_weight(const char *filter);

/* Return whether one of the filters matches the key. */
bool filter_any_matches(const char *const *filters, size_t count, const char *key);

/*
 * Remove filters that others cover, and return how many are left. The server refuses a consumer with two filters that
 * can match the same key (ADR-33), and is slower with many filters. So if some overlap, or there are more than most,
 * the one filter ">" replaces them.
 */
size_t filter_reduce(const char **filters, size_t count, size_t most);

/* Return the subjects of filters, with a bucket's prefix; free them with filter_free_subjects. NULL: out of memory. */
const char **filter_make_subjects(const char *prefix, const char *const *filters, size_t count);
void filter_free_subjects(const char **subjects, size_t count);

#endif
