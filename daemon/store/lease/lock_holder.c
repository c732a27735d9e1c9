#include "daemon/store/lease/lock_holder.h"

#include <string.h>

void lock_holder_note(struct lock_wait *wait, const char *value, size_t bytes)
{
    if (wait->holder == NULL)
        wait->holder = arena_alloc(wait->arena, LOCK_VALUE_MAX);
    wait->has_holder = wait->holder != NULL && bytes <= LOCK_VALUE_MAX;
    wait->holder_bytes = wait->has_holder ? bytes : 0;
    if (wait->holder_bytes > 0)
        memcpy(wait->holder, value, bytes);
}

bool lock_holder_know(struct lock_wait *wait, const struct holding *holding)
{
    if (holding->value == NULL || holding->value_bytes > LOCK_VALUE_MAX)
        return wait->has_read;
    lock_holder_note(wait, holding->value, holding->value_bytes);
    return true;
}

void lock_holder_borrow(struct lock_wait *wait, const struct lock_wait *first, const struct holding *holding)
{
    if (holding != NULL && holding->value != NULL) {
        lock_holder_note(wait, holding->value, holding->value_bytes);
    } else if (holding == NULL && first != wait && first->has_read) {
        if (first->has_holder)
            lock_holder_note(wait, first->holder, first->holder_bytes);
        wait->is_ordinary = first->is_ordinary;
    }
}

void lock_holder_set_error(struct lock_wait *wait)
{
    error_set(&wait->error, ERROR_LOCKED, "%s",
              wait->is_ordinary ? "an ordinary key has the name of the lock, and nobody releases it: delete the key"
                                : "another client holds the lock");
    wait->error.outcome = ERROR_OUTCOME_NONE;
    wait->error.key = wait->name;
    if (wait->has_holder) {
        wait->error.value = wait->holder;
        wait->error.value_bytes = wait->holder_bytes;
    }
}
