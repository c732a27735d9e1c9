#include "daemon/store/compact/copy_wait.h"

/* The feed delivers a marker to the local copy within this time, or the marker stays. */
#define FEED_WAIT_MS 1000u

/* Return the local copy that must have each marker; NULL: none. In external mode other hosts' copies may be behind. */
static struct local_copy *compact_copy_find(const struct compact_copy_wait *wait)
{
    struct local_copy *copy = local_copy_find(wait->store, wait->bucket->name);

    return copy != NULL && wait->bucket->is_exclusive && copy->feed.is_placed ? copy : NULL;
}

static void on_copy_fed(void *arg, bool has_come)
{
    struct compact_copy_wait *wait = arg;
    const struct local_copy *copy = compact_copy_find(wait);

    if (!has_come && copy != NULL && feed_position(&copy->feed) < wait->last)
        wait->last = feed_position(&copy->feed);
    wait->done(wait->arg, wait->last);
}

void compact_copy_wait_start(struct compact_copy_wait *wait, uint64_t last)
{
    struct local_copy *copy = compact_copy_find(wait);
    uint64_t until_ms = uv_now(wait->store->loop) + FEED_WAIT_MS;

    wait->last = last;
    if (copy == NULL || !local_copy_may_wait(copy) || feed_position(&copy->feed) >= last) {
        on_copy_fed(wait, false);
        return;
    }
    wait->wait.ready = on_copy_fed;
    wait->wait.arg = wait;
    local_copy_wait_start(copy, &wait->wait, LOCAL_COPY_HAS_REVISION, last,
                          until_ms < wait->deadline_ms ? until_ms : wait->deadline_ms);
}

void compact_copy_wait_cancel(struct compact_copy_wait *wait)
{
    local_copy_wait_cancel(&wait->wait);
}
