#include "daemon/store/follow/filter.h"

#include "daemon/nats/kv.h"

#include <stdlib.h>
#include <string.h>

/* Tokens of a filter with wildcards that count as one filter. Few filters have more. */
#define WEIGHT_TOKENS 4u

static bool filter_is_any(const char *token, size_t length)
{
    return length == 1 && token[0] == '*';
}

/* Return whether a covers b; with overlaps, whether there can be a key that both match. */
static bool filter_compare(const char *a, const char *b, bool overlaps)
{
    for (;;) {
        size_t a_length = strcspn(a, "."), b_length = strcspn(b, ".");
        if (a[0] == '>')
            return true;
        if (b[0] == '>')
            return overlaps;
        bool fits = filter_is_any(a, a_length) || (overlaps && filter_is_any(b, b_length)) ||
                    (a_length == b_length && memcmp(a, b, a_length) == 0);
        if (!fits)
            return false;
        a += a_length;
        b += b_length;
        if (*a == '\0' || *b == '\0')
            return *a == *b;
        a++;
        b++;
    }
}

bool filter_covers(const char *wide, const char *narrow)
{
    /* A key may have 512 tokens; a filter with wildcards has few. */
    if (filter_is_key(wide))
        return strcmp(wide, narrow) == 0;
    return filter_compare(wide, narrow, false);
}

bool filter_overlaps(const char *a, const char *b)
{
    if (filter_is_key(a) && filter_is_key(b))
        return strcmp(a, b) == 0;
    return filter_compare(a, b, true);
}

bool filter_is_key(const char *filter)
{
    return strpbrk(filter, "*>") == NULL;
}

size_t filter_weight(const char *filter)
{
    size_t tokens = 1;

    if (filter_is_key(filter))
        return 1;
    for (; *filter != '\0'; filter++)
        tokens += *filter == '.';
    return (tokens + WEIGHT_TOKENS - 1) / WEIGHT_TOKENS;
}

bool filter_any_matches(const char *const *filters, size_t count, const char *key)
{
    for (size_t i = 0; i < count; i++) {
        if (kv_filter_matches(filters[i], key))
            return true;
    }
    return false;
}

size_t filter_reduce(const char **filters, size_t count, size_t most)
{
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        bool is_covered = false;
        for (size_t j = 0; j < count && !is_covered; j++) {
            /* Of two equal filters the first stays. */
            is_covered = j != i && filters[j] != NULL && filter_covers(filters[j], filters[i]) &&
                         (j < i || !filter_covers(filters[i], filters[j]));
        }
        if (is_covered)
            filters[i] = NULL;
    }
    for (size_t i = 0; i < count; i++) {
        if (filters[i] != NULL)
            filters[kept++] = filters[i];
    }
    bool is_split = kept <= most;
    for (size_t i = 0; i < kept && is_split; i++) {
        for (size_t j = i + 1; j < kept && is_split; j++)
            is_split = !filter_overlaps(filters[i], filters[j]);
    }
    if (!is_split && kept > 0) {
        filters[0] = ">";
        kept = 1;
    }
    return kept;
}

const char **filter_make_subjects(const char *prefix, const char *const *filters, size_t count)
{
    const char **subjects = calloc(count, sizeof(*subjects));

    for (size_t i = 0; subjects != NULL && i < count; i++) {
        char *subject = malloc(strlen(prefix) + strlen(filters[i]) + 1);
        if (subject == NULL) {
            filter_free_subjects(subjects, i);
            return NULL;
        }
        strcpy(stpcpy(subject, prefix), filters[i]);
        subjects[i] = subject;
    }
    return subjects;
}

void filter_free_subjects(const char **subjects, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free((void *)subjects[i]);
    free((void *)subjects);
}
