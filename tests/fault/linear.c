#include "tests/fault/linear.h"

#include <stdlib.h>
#include <string.h>

/* The state of a key after the calls that are in the order. */
struct state {
    uint64_t value; /* 0: no key */
    uint64_t revision;
    bool is_exact; /* false: a call of unknown outcome wrote last, at some revision above this one */
};

/* The beginning or the end of a call, in order of time. */
struct event {
    const struct linear_call *call;
    struct event *next, *previous;
    struct event *end; /* of a beginning; NULL: the outcome is unknown, and the call never ends */
    size_t index;      /* of the call, in the bit set */
    uint64_t at_ns;
    bool is_begin;
};

/* An order that was tried: its calls, and the state after them. */
struct tried {
    struct tried *next;
    struct state state;
    uint64_t calls[];
};

#define BUCKETS 65536u

struct search {
    struct event head;
    struct event *events;
    size_t event_count, words;
    size_t left; /* calls that have ended and are not in the order yet */
    uint64_t *calls;
    struct tried **tried;
    struct {
        struct event *event;
        struct state state;
    } * order;
    size_t order_count;
};

/* --- The register ---------------------------------------------------------------------------------- */

static bool linear_is_at(const struct state *state, uint64_t revision)
{
    return state->is_exact ? state->revision == revision : revision > state->revision;
}

static bool linear_write_value(struct state *state, const struct linear_call *call, uint64_t value)
{
    state->value = value;
    if (call->revision == 0) {
        state->is_exact = false;
        return true;
    }
    bool is_newer = call->revision > state->revision;
    state->revision = call->revision;
    state->is_exact = true;
    return is_newer;
}

/* Return whether a refusal names the true revision. */
static bool linear_tells_truth(const struct state *state, const struct linear_call *call)
{
    return call->revision == 0 || linear_is_at(state, call->revision);
}

/* Return whether the call can come next, and change the state. */
static bool linear_apply(struct state *state, const struct linear_call *call)
{
    switch (call->kind) {
    case LINEAR_GET:
        return state->value == call->value && (call->value == 0 || linear_is_at(state, call->revision));
    case LINEAR_PUT:
        return linear_write_value(state, call, call->value);
    case LINEAR_DELETE:
        return linear_write_value(state, call, 0);
    case LINEAR_CREATE:
        if (call->result == LINEAR_REFUSED)
            return state->value != 0 && linear_tells_truth(state, call);
        return state->value == 0 && linear_write_value(state, call, call->value);
    case LINEAR_UPDATE:
        if (call->result == LINEAR_REFUSED)
            return !(state->is_exact && state->revision == call->expected) && linear_tells_truth(state, call);
        return linear_is_at(state, call->expected) && linear_write_value(state, call, call->value);
    }
    return false;
}

/* --- The list of events ---------------------------------------------------------------------------- */

static void linear_take_out(struct event *event)
{
    event->previous->next = event->next;
    if (event->next != NULL)
        event->next->previous = event->previous;
}

static void linear_put_back(struct event *event)
{
    event->previous->next = event;
    if (event->next != NULL)
        event->next->previous = event;
}

static int linear_compare_events(const void *a, const void *b)
{
    const struct event *one = a, *other = b;

    if (one->at_ns != other->at_ns)
        return one->at_ns < other->at_ns ? -1 : 1;
    /* At the same moment beginnings come first, so that the calls overlap. */
    return (int)other->is_begin - (int)one->is_begin;
}

static void linear_list_events(struct search *search, const struct linear_call *calls, size_t count, unsigned key)
{
    size_t index = 0;

    search->events = calloc(2 * count + 1, sizeof(*search->events));
    for (size_t i = 0; i < count; i++) {
        if (calls[i].key != key)
            continue;
        struct event *event = &search->events[search->event_count++];
        *event = (struct event){.call = &calls[i], .index = index, .at_ns = calls[i].begin_ns, .is_begin = true};
        if (calls[i].result != LINEAR_UNKNOWN) {
            event = &search->events[search->event_count++];
            *event = (struct event){.call = &calls[i], .index = index, .at_ns = calls[i].end_ns};
            search->left++;
        }
        index++;
    }
    search->words = index / 64 + 1;
    qsort(search->events, search->event_count, sizeof(*search->events), linear_compare_events);
    struct event **begins = calloc(index + 1, sizeof(struct event *)), *last = &search->head;
    for (size_t i = 0; i < search->event_count; i++) {
        struct event *event = &search->events[i];
        last->next = event;
        event->previous = last;
        last = event;
        if (event->is_begin)
            begins[event->index] = event;
        else
            begins[event->index]->end = event;
    }
    free(begins);
}

/* --- The search ------------------------------------------------------------------------------------ */

static bool linear_same_state(const struct state *a, const struct state *b)
{
    return a->value == b->value && a->revision == b->revision && a->is_exact == b->is_exact;
}

/* Keep the set of calls with the state. Return false if both were tried before. */
static bool linear_is_new(struct search *search, const struct state *state)
{
    uint64_t hash = state->value * 31 + state->revision * 2 + state->is_exact;
    size_t size = search->words * sizeof(*search->calls);

    for (size_t i = 0; i < search->words; i++)
        hash = (hash ^ search->calls[i]) * 0x9e3779b97f4a7c15u;
    struct tried **bucket = &search->tried[(hash >> 32) % BUCKETS];
    for (const struct tried *tried = *bucket; tried != NULL; tried = tried->next) {
        if (linear_same_state(&tried->state, state) && memcmp(tried->calls, search->calls, size) == 0)
            return false;
    }
    struct tried *tried = malloc(sizeof(*tried) + size);
    if (tried == NULL)
        abort();
    tried->next = *bucket;
    tried->state = *state;
    memcpy(tried->calls, search->calls, size);
    *bucket = tried;
    return true;
}

static void linear_flip(struct search *search, const struct event *event)
{
    search->calls[event->index / 64] ^= (uint64_t)1 << event->index % 64;
}

/* Append the call to the order, if it can come next and that was not tried before. */
static bool linear_try_next(struct search *search, struct event *event, struct state *state)
{
    struct state after = *state;

    if (!linear_apply(&after, event->call))
        return false;
    linear_flip(search, event);
    if (!linear_is_new(search, &after)) {
        linear_flip(search, event);
        return false;
    }
    search->order[search->order_count].event = event;
    search->order[search->order_count++].state = *state;
    *state = after;
    linear_take_out(event);
    if (event->end != NULL) {
        linear_take_out(event->end);
        search->left--;
    }
    return true;
}

/* Remove the last call from the order. */
static struct event *linear_go_back(struct search *search, struct state *state)
{
    struct event *event = search->order[--search->order_count].event;

    *state = search->order[search->order_count].state;
    linear_flip(search, event);
    if (event->end != NULL) {
        linear_put_back(event->end);
        search->left++;
    }
    linear_put_back(event);
    return event;
}

static bool linear_find_order(struct search *search)
{
    struct state state = {.is_exact = true};
    struct event *event = search->head.next;

    while (search->left > 0) {
        if (event != NULL && event->is_begin) {
            event = linear_try_next(search, event, &state) ? search->head.next : event->next;
            continue;
        }
        /* A call has ended that is in no order with this beginning. */
        if (search->order_count == 0)
            return false;
        event = linear_go_back(search, &state)->next;
    }
    return true;
}

static bool linear_check_key(const struct linear_call *calls, size_t count, unsigned key)
{
    struct search search = {0};

    linear_list_events(&search, calls, count, key);
    search.calls = calloc(search.words, sizeof(*search.calls));
    search.tried = calloc(BUCKETS, sizeof(*search.tried));
    search.order = calloc(search.event_count + 1, sizeof(*search.order));
    bool is_found = linear_find_order(&search);
    for (size_t i = 0; i < BUCKETS; i++) {
        while (search.tried[i] != NULL) {
            struct tried *tried = search.tried[i];
            search.tried[i] = tried->next;
            free(tried);
        }
    }
    free(search.order);
    free(search.tried);
    free(search.calls);
    free(search.events);
    return is_found;
}

/*
 * A write of unknown outcome whose value was found has taken effect before that get ended, at the revision that was
 * found. Without this step each such write would double the orders to try.
 */
static void linear_learn_outcomes(struct linear_call *calls, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct linear_call *lost = &calls[i];
        if (lost->result != LINEAR_UNKNOWN || lost->value == 0)
            continue;
        for (size_t j = 0; j < count; j++) {
            const struct linear_call *get = &calls[j];
            if (get->kind != LINEAR_GET || get->key != lost->key || get->value != lost->value)
                continue;
            if (lost->result == LINEAR_UNKNOWN || get->end_ns < lost->end_ns)
                lost->end_ns = get->end_ns;
            lost->result = LINEAR_OK;
            lost->revision = get->revision;
        }
    }
}

bool linear_check(const struct linear_call *calls, size_t count, unsigned keys, unsigned *wrong)
{
    struct linear_call *learned = malloc(count * sizeof(*learned));
    bool is_right = true;

    if (learned == NULL)
        abort();
    memcpy(learned, calls, count * sizeof(*learned));
    linear_learn_outcomes(learned, count);
    for (*wrong = 0; is_right && *wrong < keys; ++*wrong)
        is_right = linear_check_key(learned, count, *wrong);
    if (!is_right)
        --*wrong;
    free(learned);
    return is_right;
}
