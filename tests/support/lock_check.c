#include "tests/support/lock_check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

typedef unsigned long long ull;

static const char *say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static const char *say(const char *format, ...)
{
    static char text[300];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return text;
}

static int compare(uint64_t one, uint64_t other)
{
    return one < other ? -1 : one > other;
}

static int compare_begins(const void *one, const void *other)
{
    const struct lock_held *a = one, *b = other;

    return a->lock != b->lock ? compare(a->lock, b->lock) : compare(a->begin_ns, b->begin_ns);
}

static int compare_tokens(const void *one, const void *other)
{
    const struct lock_held *a = one, *b = other;

    return a->lock != b->lock ? compare(a->lock, b->lock) : compare(a->token, b->token);
}

static int compare_fenced(const void *one, const void *other)
{
    const struct lock_fenced *a = one, *b = other;

    return a->lock != b->lock ? compare(a->lock, b->lock) : compare(a->token, b->token);
}

static const char *describe(const char *what, const struct lock_held *a, const struct lock_held *b)
{
    return say("lock %u: %s: client %u with token %llu from %llu to %llu, client %u with token %llu from %llu "
               "to %llu (ns)",
               a->lock, what, a->client, (ull)a->token, (ull)a->begin_ns, (ull)a->end_ns, b->client, (ull)b->token,
               (ull)b->begin_ns, (ull)b->end_ns);
}

/* One after the other, each with a higher token. last: the one of the same lock that ends last so far. */
static const char *check_times(struct lock_held *held, size_t count)
{
    const struct lock_held *last = NULL;

    if (count > 0)
        qsort(held, count, sizeof(*held), compare_begins);
    for (size_t i = 0; i < count; i++) {
        const struct lock_held *next = &held[i];
        if (next->end_ns <= next->begin_ns)
            continue;
        if (last != NULL && last->lock == next->lock) {
            if (next->begin_ns < last->end_ns)
                return describe("two hold it at a time", last, next);
            if (next->token <= last->token)
                return describe("its token does not grow", last, next);
        }
        last = next;
    }
    return NULL;
}

/* The lock's key had the token's revision when the transaction was written: its next token is higher than that. */
static const char *check_fences(const struct lock_held *held, size_t held_count, struct lock_fenced *fenced,
                                size_t fenced_count)
{
    size_t at = 0;

    if (fenced_count > 0)
        qsort(fenced, fenced_count, sizeof(*fenced), compare_fenced);
    for (size_t i = 0; i < fenced_count; i++) {
        const struct lock_fenced *write = &fenced[i];
        while (at < held_count &&
               (held[at].lock < write->lock || (held[at].lock == write->lock && held[at].token <= write->token)))
            at++;
        if (write->revision <= write->token)
            return say("lock %u: revision %llu was written with token %llu", write->lock, (ull)write->revision,
                       (ull)write->token);
        if (at < held_count && held[at].lock == write->lock && held[at].token < write->revision)
            return say("lock %u: client %u has written revision %llu with token %llu, after client %u had got "
                       "token %llu",
                       write->lock, write->client, (ull)write->revision, (ull)write->token, held[at].client,
                       (ull)held[at].token);
    }
    return NULL;
}

const char *lock_check(struct lock_held *held, size_t held_count, struct lock_fenced *fenced, size_t fenced_count)
{
    const char *wrong = check_times(held, held_count);

    if (wrong != NULL)
        return wrong;
    if (held_count > 0)
        qsort(held, held_count, sizeof(*held), compare_tokens);
    for (size_t i = 1; i < held_count; i++) {
        if (held[i].lock == held[i - 1].lock && held[i].token == held[i - 1].token)
            return describe("two have the same token", &held[i - 1], &held[i]);
    }
    return check_fences(held, held_count, fenced, fenced_count);
}
