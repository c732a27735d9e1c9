#include "tests/sim/judge.h"
#include "tests/sim/truth.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* calls.timeout: watch.start names none. */
#define WATCH_TIMEOUT_NS (5 * WORLD_SECOND)

/*
 * Return whether an entry tells that a value has vanished: it has expired without a marker, or its marker has expired,
 * too, or the bucket was purged. The entry has the revision up to which the daemon has looked, which may be lower than
 * what a watch was delivered when it began.
 */
static bool tells_removal(const struct judgement *judgement, const struct watch_record *watch, size_t place)
{
    const struct stored *stored = find_sequence(judgement->stream, watch->entries[place].revision);
    unsigned key = watch->entries[place].key;
    bool is_marker = stored != NULL && !stored_is_put(stored) && subject_key(stored->packet->subject) == key;
    uint64_t before = place > 0 ? watch->entries[place - 1].revision : 0, revision = watch->entries[place].revision;

    /* The daemon may have looked up to the marker of this very key, which is gone by now. */
    if (watch->entries[place].is_put || (is_marker && revision > before))
        return false;
    for (size_t i = 0; i < judgement->changes[key].count; i++) {
        const struct change *change = &judgement->stream->changes[judgement->changes[key].places[i]];
        if (change->last == NULL && change->at_ns <= watch->entries[place].at_ns)
            return true;
    }
    return false;
}

/* Return whether it was still there at this time, at which it was stored already. */
static bool was_there(const struct stored *stored, uint64_t at_ns)
{
    return stored->removed_ns == 0 || stored->removed_ns > at_ns;
}

static bool is_in_beginning(const struct watch_record *watch, uint64_t revision)
{
    for (size_t i = 0; i < watch->ready_count; i++) {
        if (watch->entries[i].revision == revision)
            return true;
    }
    return false;
}

/*
 * The beginning is what was there at one moment, after which the highest revision in it was the last. Of each key, its
 * last message up to that revision was delivered, if it is a value and was still there when the watch was ready.
 */
static void judge_beginning(const struct judgement *judgement, const struct watch_record *watch)
{
    const struct stream *stream = judgement->stream;
    const struct stored *last[CALL_KEYS_MAX + 1] = {0};

    for (size_t i = 0; i < stream->log.count && stream->log.items[i]->sequence <= watch->ready_revision; i++) {
        unsigned key = subject_key(stream->log.items[i]->packet->subject);
        if (key <= CALL_KEYS_MAX)
            last[key] = stream->log.items[i];
    }
    for (unsigned key = 0; key <= CALL_KEYS_MAX; key++) {
        if (stored_is_put(last[key]) && was_there(last[key], watch->ready_ns) &&
            !is_in_beginning(watch, last[key]->sequence))
            world_fail("a watch was ready at %.6f s with revision %" PRIu64 " and without revision %" PRIu64
                       ", which was there",
                       (double)watch->ready_ns / 1e9, watch->ready_revision, last[key]->sequence);
    }
}

/* A key that was there all the time, for long before the watch began until it was ready, is in the beginning. */
static void judge_keys_of_beginning(const struct judgement *judgement, const struct watch_record *watch)
{
    uint64_t long_ns = judgement->staleness_ns;
    size_t from = moment_at(judgement->stream, watch->begun_ns > long_ns ? watch->begun_ns - long_ns : 0);
    size_t to = moment_at(judgement->stream, watch->ready_ns);

    for (unsigned key = 0; key <= judgement->load->keys; key++) {
        bool was_always_there = true, is_there = false;
        for (size_t moment = from; moment <= to && was_always_there; moment++)
            was_always_there = stored_is_put(state_at(judgement, key, moment));
        for (size_t i = 0; i < watch->ready_count && !is_there; i++)
            is_there = watch->entries[i].key == key;
        if (was_always_there && !is_there)
            world_fail("a watch was ready at %.6f s without k%u, which was there", (double)watch->ready_ns / 1e9, key);
    }
}

static void judge_watch(const struct judgement *judgement, const struct watch_record *watch)
{
    const struct stream *stream = judgement->stream;
    size_t place = 0;

    for (size_t i = 0; i < watch->count; i++) {
        const struct stored *stored = find_sequence(stream, watch->entries[i].revision);
        if (tells_removal(judgement, watch, i))
            continue;
        if (i > 0 && watch->entries[i].revision <= watch->entries[i - 1].revision)
            world_fail("a watch was delivered revision %" PRIu64 " after %" PRIu64, watch->entries[i].revision,
                       watch->entries[i - 1].revision);
        if (stored == NULL || subject_key(stored->packet->subject) != watch->entries[i].key ||
            stored_is_put(stored) != watch->entries[i].is_put ||
            (stored_is_put(stored) && stored_value(stored) != watch->entries[i].value))
            world_fail("a watch was delivered a revision %" PRIu64 " that the bucket never had so",
                       watch->entries[i].revision);
    }
    if (!watch->is_ready)
        return;
    judge_beginning(judgement, watch);
    judge_keys_of_beginning(judgement, watch);
    if (watch->count == 0)
        return;
    /* After the beginning, a message is left out only if it was gone before the next one came. */
    uint64_t last = watch->entries[watch->count - 1].revision;
    for (size_t i = 0; i < stream->log.count; i++) {
        const struct stored *stored = stream->log.items[i];
        if (stored->sequence <= watch->ready_revision || stored->sequence > last ||
            subject_key(stored->packet->subject) > CALL_KEYS_MAX)
            continue;
        while (place < watch->count && watch->entries[place].revision < stored->sequence)
            place++;
        bool is_there = place < watch->count && watch->entries[place].revision == stored->sequence;
        if (!is_there && was_there(stored, watch->entries[place].at_ns))
            world_fail("a watch was not delivered revision %" PRIu64 ", but later ones", stored->sequence);
    }
}

/* --- Its start and its end -------------------------------------------------------------------------- */

bool judge_may_be_gone(const struct judgement *judgement, uint64_t begun_ns, uint64_t ended_ns)
{
    const struct stream *stream = judgement->stream;
    uint64_t long_ns = judgement->staleness_ns;
    size_t from = moment_at(stream, begun_ns > long_ns ? begun_ns - long_ns : 0);

    if (!judgement->is_quiet)
        return true;
    for (size_t i = from; i < stream->change_count && stream->changes[i].at_ns <= ended_ns; i++) {
        if (stream->changes[i].last == NULL)
            return true;
    }
    return false;
}

/* The errors that the faults of this world, a removed key, and a client that does not read can cause. */
static bool end_is_possible(const struct judgement *judgement, const struct watch_record *watch)
{
    if (strcmp(watch->code, "revision_gone") == 0)
        return judge_may_be_gone(judgement, watch->begun_ns, watch->ended_ns);
    if (strcmp(watch->code, "resource_exhausted") == 0)
        return !judgement->is_quiet || judgement->load->stall_per_mille > 0;
    return !judgement->is_quiet &&
           (strcmp(watch->code, "unavailable") == 0 || strcmp(watch->code, "deadline_exceeded") == 0);
}

static void judge_start_and_end(const struct judgement *judgement, const struct watch_record *watch)
{
    bool is_answered = watch->answered_ns > 0, is_lost = !is_answered && watch->is_lost;
    uint64_t until_ns = is_answered ? watch->answered_ns : is_lost ? watch->ended_ns : world_now_ns();

    if (until_ns - watch->begun_ns > judge_allowed_ns(judgement, WATCH_TIMEOUT_NS, watch->begun_ns, until_ns, is_lost))
        world_fail("watch.start of %.6f s was not answered in time", (double)watch->begun_ns / 1e9);
    if (watch->code[0] != '\0' && !end_is_possible(judgement, watch))
        world_fail("the watch of %.6f s has ended at %.6f s with %s, for which there is no cause",
                   (double)watch->begun_ns / 1e9, (double)watch->ended_ns / 1e9, watch->code);
}

void judge_watches(const struct judgement *judgement, const struct client *client)
{
    if (judgement->was_set_back)
        return;
    for (const struct watch_record *watch = client_watches(client); watch != NULL; watch = watch->next) {
        judge_start_and_end(judgement, watch);
        judge_watch(judgement, watch);
    }
}

bool judge_is_delivered(const struct judgement *judgement, const struct client *client)
{
    const struct stream *stream = judgement->stream;
    uint64_t last = 0;

    for (size_t i = 0; i < stream->present.count; i++) {
        if (subject_key(stream->present.items[i]->packet->subject) <= CALL_KEYS_MAX)
            last = stream->present.items[i]->sequence;
    }
    for (const struct watch_record *watch = client_watches(client); watch != NULL; watch = watch->next) {
        if (!watch->is_ended && last > 0 &&
            (!watch->is_ready || watch->count == 0 || watch->entries[watch->count - 1].revision < last))
            return false;
    }
    return true;
}

/*
 * Return whether the watch may have missed that the key was removed: if that was before watch.ready, by a purge or by
 * expiry, a watch that reads the stream, was delivered the key before, and was interrupted then, is not always told. It
 * should be told, or end with revision_gone.
 */
static bool may_miss_removal(const struct stream *stream, const char *subject, const struct watch_record *watch,
                             uint64_t revision)
{
    bool is_removed = false;

    for (size_t i = moment_at(stream, watch->begun_ns); i < stream->change_count && !is_removed; i++)
        is_removed = stream->changes[i].last == NULL && stream->changes[i].at_ns <= watch->ready_ns &&
                     strcmp(stream->changes[i].subject, subject) == 0;
    return is_removed && is_in_beginning(watch, revision);
}

/* What the watch was delivered last of each key is what the stream has last of it. */
static bool watch_agrees(const struct stream *stream, const struct load *load, const struct watch_record *watch)
{
    uint64_t revisions[CALL_KEYS_MAX + 1] = {0};
    char subject[32];

    for (size_t i = 0; i < watch->count; i++) {
        if (watch->entries[i].key <= load->keys)
            revisions[watch->entries[i].key] = watch->entries[i].is_put ? watch->entries[i].revision : 0;
    }
    for (unsigned key = 0; key <= load->keys; key++) {
        snprintf(subject, sizeof(subject), "$KV.%s.k%u", load->bucket, key);
        const struct stored *last = stream_last(stream, subject);
        if (revisions[key] != (stored_is_put(last) ? last->sequence : 0) &&
            (stored_is_put(last) || !may_miss_removal(stream, subject, watch, revisions[key])))
            return false;
    }
    return true;
}

bool judge_is_in_agreement(const struct judgement *judgement, const struct client *client)
{
    for (const struct watch_record *watch = client_watches(client); watch != NULL; watch = watch->next) {
        if (!watch->is_ended && (!watch->is_ready || !watch_agrees(judgement->stream, judgement->load, watch)))
            return false;
    }
    return true;
}
