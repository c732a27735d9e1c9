#include "daemon/store/pace.h"

#define STRETCH_US (PACE_STRETCH_MS * 1000.0)

void quickest_note(struct quickest *quickest, double us)
{
    quickest->last_us[quickest->count++ % QUICKEST_OF] = us;
    quickest->us = us;
    for (unsigned i = 0; i < quickest->count && i < QUICKEST_OF; i++) {
        if (quickest->last_us[i] < quickest->us)
            quickest->us = quickest->last_us[i];
    }
}

static void start(struct pace *pace, uint64_t now_ns, bool is_continued)
{
    pace->begun_ns = now_ns;
    pace->acks = 0;
    pace->is_continued = is_continued;
}

void pace_begin(struct pace *pace, uint64_t now_ns)
{
    start(pace, now_ns, false);
}

void pace_ack(struct pace *pace)
{
    pace->acks++;
}

bool pace_settle(struct pace *pace, bool is_drained, uint64_t now_ns)
{
    double elapsed_us = (double)(now_ns - pace->begun_ns) / 1000.0;
    unsigned acks = pace->acks;

    if (acks == 0 || (!is_drained && elapsed_us < STRETCH_US))
        return false;
    bool was_continued = pace->is_continued;
    start(pace, now_ns, true);
    /* The end of a burst that another stretch has counted the most of would seem quick. */
    if (was_continued && elapsed_us < STRETCH_US)
        return false;
    if (is_drained && acks < PACE_ACKS_MIN) {
        if (elapsed_us >= pace->write.us)
            return false;
        acks = 1;
    }
    quickest_note(&pace->write, elapsed_us / acks);
    return true;
}
