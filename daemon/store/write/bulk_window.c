#include "daemon/store/write/bulk_window.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The window of a bucket or of a user. */
struct bulk_window {
    UT_hash_handle hh;         /* by name */
    struct fair_queue waiting; /* calls for which it had no room */
    unsigned max;
    unsigned in_flight;
    unsigned in_line; /* its calls in the line of all */
    unsigned calls;   /* all of its calls: it exists while there are some */
    char name[];
};

#define BULK_CLAIM_WINDOWS 2u

static struct bulk_claim *bulk_claim_of(struct fair_queue_entry *turn)
{
    return (struct bulk_claim *)((char *)turn - offsetof(struct bulk_claim, turn));
}

/* --- Windows --------------------------------------------------------------------------------------- */

/* Return the window for one more call, created if there is none; NULL if memory ran out. */
static struct bulk_window *bulk_window_hold(struct bulk_windows *all, const char *name, unsigned max)
{
    struct bulk_window *window = NULL;

    HASH_FIND_STR(all->by_name, name, window);
    if (window == NULL) {
        window = calloc(1, sizeof(*window) + strlen(name) + 1);
        if (window == NULL)
            return NULL;
        strcpy(window->name, name);
        window->max = max;
        HASH_ADD_STR(all->by_name, name, window);
    }
    window->calls++;
    return window;
}

static void bulk_window_release(struct bulk_windows *all, struct bulk_window *window)
{
    if (--window->calls > 0)
        return;
    HASH_DEL(all->by_name, window);
    free(window);
}

/* Return a window of the call that is full; NULL: none is. */
static struct bulk_window *bulk_claim_find_full(const struct bulk_claim *claim)
{
    for (unsigned i = 0; i < BULK_CLAIM_WINDOWS; i++) {
        if (claim->windows[i]->in_flight >= claim->windows[i]->max)
            return claim->windows[i];
    }
    return NULL;
}

/* --- Lines ----------------------------------------------------------------------------------------- */

static void bulk_claim_note_in_line(struct bulk_claim *claim, bool is_in_line)
{
    if (claim->is_in_line == is_in_line)
        return;
    claim->is_in_line = is_in_line;
    for (unsigned i = 0; i < BULK_CLAIM_WINDOWS; i++) {
        if (is_in_line)
            claim->windows[i]->in_line++;
        else
            claim->windows[i]->in_line--;
    }
}

static void bulk_claim_leave(struct bulk_claim *claim)
{
    fair_queue_remove(&claim->turn);
    bulk_claim_note_in_line(claim, false);
}

/*
 * If a window has room, one of its calls stands in the line of all: the next one that waits for the window follows when
 * that one has had its turn.
 */
static void bulk_window_advance(struct bulk_window *window)
{
    struct fair_queue_entry *first = fair_queue_first(&window->waiting);

    if (first == NULL || window->in_line > 0 || window->in_flight >= window->max)
        return;
    struct bulk_claim *claim = bulk_claim_of(first);
    fair_queue_remove(first);
    fair_queue_append_again(&claim->all->waiting, first, claim->owner);
    bulk_claim_note_in_line(claim, true);
}

static void bulk_claim_advance_windows(struct bulk_claim *claim)
{
    for (unsigned i = 0; i < BULK_CLAIM_WINDOWS; i++)
        bulk_window_advance(claim->windows[i]);
}

bool bulk_windows_step(struct bulk_windows *all, struct bulk_claim **claim)
{
    struct fair_queue_entry *first = fair_queue_first(&all->waiting);

    *claim = NULL;
    if (first == NULL || all->in_flight >= BULK_WINDOW_ALL)
        return false;
    struct bulk_claim *of_turn = bulk_claim_of(first);
    struct bulk_window *full = bulk_claim_find_full(of_turn);
    bulk_claim_leave(of_turn);
    if (full == NULL) {
        *claim = of_turn;
        return true;
    }
    fair_queue_append(&full->waiting, &of_turn->turn, of_turn->owner); /* it could not use its turn */
    bulk_claim_advance_windows(of_turn);
    return true;
}

void bulk_claim_end_turn(struct bulk_claim *claim, bool has_more)
{
    struct bulk_window *full = bulk_claim_find_full(claim);

    if (has_more) {
        fair_queue_append_again(full != NULL ? &full->waiting : &claim->all->waiting, &claim->turn, claim->owner);
        bulk_claim_note_in_line(claim, full == NULL);
    }
    bulk_claim_advance_windows(claim);
}

/* --- Calls ----------------------------------------------------------------------------------------- */

bool bulk_claim_begin(struct bulk_windows *all, struct bulk_claim *claim, const char *bucket, uint64_t owner)
{
    char user[32];

    snprintf(user, sizeof(user), ".%" PRIu64, fair_queue_user(owner)); /* no bucket's name has a dot */
    claim->all = all;
    claim->owner = owner;
    claim->windows[0] = bulk_window_hold(all, bucket, BULK_WINDOW_BUCKET);
    if (claim->windows[0] == NULL)
        return false;
    claim->windows[1] = bulk_window_hold(all, user, BULK_WINDOW_USER);
    if (claim->windows[1] == NULL) {
        bulk_window_release(all, claim->windows[0]);
        claim->windows[0] = NULL;
        return false;
    }
    fair_queue_append(&all->waiting, &claim->turn, owner);
    bulk_claim_note_in_line(claim, true);
    return true;
}

bool bulk_claim_has_room(const struct bulk_claim *claim)
{
    return claim->all->in_flight < BULK_WINDOW_ALL && bulk_claim_find_full(claim) == NULL;
}

void bulk_claim_begin_write(struct bulk_claim *claim)
{
    claim->in_flight++;
    claim->all->in_flight++;
    for (unsigned i = 0; i < BULK_CLAIM_WINDOWS; i++)
        claim->windows[i]->in_flight++;
}

static void bulk_claim_end_writes(struct bulk_claim *claim, unsigned count)
{
    claim->in_flight -= count;
    claim->all->in_flight -= count;
    for (unsigned i = 0; i < BULK_CLAIM_WINDOWS; i++)
        claim->windows[i]->in_flight -= count;
    bulk_claim_advance_windows(claim);
}

void bulk_claim_end_write(struct bulk_claim *claim)
{
    bulk_claim_end_writes(claim, 1);
}

void bulk_claim_end(struct bulk_claim *claim)
{
    if (claim->windows[0] == NULL)
        return;
    bulk_claim_leave(claim);
    bulk_claim_end_writes(claim, claim->in_flight);
    for (unsigned i = 0; i < BULK_CLAIM_WINDOWS; i++) {
        bulk_window_release(claim->all, claim->windows[i]);
        claim->windows[i] = NULL;
    }
}
