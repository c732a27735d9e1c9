#include "tests/sim/judge.h"
#include "tests/sim/truth.h"
#include "tests/sim/world.h"

/* A get that waits is answered so soon after a change, without faults. */
#define SOON_NS (2 * WORLD_SECOND)

/* For how long the daemon waits: the rest of the timeout is for reading the present entry. Its clock may be fast. */
static uint64_t waits_for_ns(const struct call_record *record)
{
    uint64_t reading_ns = record->timeout_ns / 2 < WORLD_SECOND ? record->timeout_ns / 2 : WORLD_SECOND;
    uint64_t wait_ns = record->timeout_ns - reading_ns;

    return wait_ns - wait_ns / 100;
}

/* Return whether the key had vanished without a marker at some time until then. */
static bool has_vanished(const struct judgement *judgement, unsigned key, uint64_t until_ns)
{
    for (size_t i = 0; i < judgement->changes[key].count; i++) {
        const struct change *change = &judgement->stream->changes[judgement->changes[key].places[i]];
        if (change->last == NULL && change->at_ns <= until_ns)
            return true;
    }
    return false;
}

/*
 * Return the time at which the call should have its answer: soon after the key had a later revision, which it kept
 * since. UINT64_MAX: it had none before the end of the call.
 */
static uint64_t change_is_due_ns(const struct judgement *judgement, const struct call_record *record)
{
    const struct call_part *part = &record->parts[0];
    uint64_t due_ns = UINT64_MAX;

    for (size_t i = 0; i < judgement->changes[part->key].count; i++) {
        const struct change *change = &judgement->stream->changes[judgement->changes[part->key].places[i]];
        bool is_later = change->last != NULL && change->last->sequence > part->expected;
        if (change->at_ns > record->end_ns)
            break;
        if (!is_later)
            due_ns = UINT64_MAX;
        else if (due_ns == UINT64_MAX)
            due_ns =
                (change->at_ns > record->begin_ns ? change->at_ns : record->begin_ns) + SOON_NS + judgement->slack_ns;
    }
    return due_ns;
}

/* A change is an entry that the key had, and a later one; or the key has vanished. */
static void judge_change(const struct judgement *judgement, const struct call_record *record)
{
    const struct call_part *part = &record->parts[0];
    const struct stored *stored = find_sequence(judgement->stream, part->revision);
    bool is_of_key = stored != NULL && subject_key(stored->packet->subject) == part->key &&
                     stored_is_put(stored) == part->is_there && stored->at_ns <= record->end_ns;
    uint64_t long_ns = judgement->staleness_ns;

    if (part->is_marker && (!is_of_key || part->revision <= part->expected)) {
        if (!has_vanished(judgement, part->key, record->end_ns))
            judge_fail(record, "it returns that the key has vanished, and it was there all the time");
        return;
    }
    if (!is_of_key || (part->is_there && stored_value(stored) != part->found))
        judge_fail(record, "it returns an entry that the key never had so");
    const struct stored *old =
        state_at(judgement, part->key,
                 moment_at(judgement->stream, record->begin_ns > long_ns ? record->begin_ns - long_ns : 0));
    if (judgement->is_quiet && old != NULL && stored->sequence < old->sequence)
        judge_fail(record, "it returns an entry that was overwritten long before");
}

void judge_waiting_get(const struct judgement *judgement, const struct call_record *record)
{
    const struct call_part *part = &record->parts[0];
    bool is_change = part->is_marker || part->revision > part->expected;

    if (record->result != CALL_OK)
        return;
    if (is_change)
        judge_change(judgement, record);
    else
        judge_read(judgement, record);
    if (!judgement->is_quiet)
        return;
    if (!is_change && record->end_ns - record->begin_ns < waits_for_ns(record) &&
        !judge_may_be_gone(judgement, record->begin_ns, record->end_ns))
        judge_fail(record, "it has no later revision, and has not waited for one");
    if (record->end_ns > change_is_due_ns(judgement, record))
        judge_fail(record, "the key had a later revision long before");
}
