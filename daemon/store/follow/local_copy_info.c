#include "daemon/store/follow/local_copy_info.h"

#include "daemon/store/follow/local_copy.h"
#include "daemon/store/follow/local_copy_read.h"
#include "daemon/store/follow/state.h"

static const char *local_copy_feed_text(enum feed_phase phase)
{
    switch (phase) {
    case FEED_STOPPED:
        return "stopped";
    case FEED_BROKEN:
        return "broken";
    case FEED_ASKING:
        return "asking";
    case FEED_COMPARING:
        return "comparing";
    case FEED_HELD:
        return "waiting for the load";
    case FEED_DELETING:
        return "deleting a consumer";
    case FEED_CREATING:
        return "creating the consumer";
    case FEED_CATCHING_UP:
        return "catching up";
    case FEED_LIVE:
        return "live";
    }
    return "unknown";
}

void local_copy_each(const struct store *store, void (*visit)(void *arg, const struct local_copy_info *info), void *arg)
{
    for (const struct local_copy *copy = store->follow->local_copies; copy != NULL; copy = copy->hh.next) {
        const struct error *error = local_copy_error(copy);
        const struct local_copy_info info = {
            .bucket = copy->name,
            .feed = local_copy_feed_text(copy->feed.phase),
            .error = error->code != ERROR_NONE ? error->message : NULL,
            .position = feed_position(&copy->feed),
            .resyncs = copy->feed.resyncs,
            .watches = copy->watches.count,
            .waits = copy->waits.count,
            .keys = copy->contents.cache.count,
            .bytes = copy->contents.cache.bytes,
            .answers_reads = local_copy_can_answer(copy),
        };
        visit(arg, &info);
    }
}
