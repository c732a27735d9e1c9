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

static bool watch_wants_key(const struct watch_record *watch, unsigned key)
{
    return key <= CALL_KEYS_MAX && (watch->keys >> key & 1) != 0;
}

/* Return whether the watch is to be delivered a message, if it has begun. */
static bool watch_wants(const struct watch_record *watch, const struct stored *stored)
{
    return watch_wants_key(watch, subject_key(stored->packet->subject)) &&
           (stored_is_put(stored) || !watch->ignores_deletes);
}

/*
 * Return whether a watch that ignores deletes may leave a message out at its beginning: a later one of the key, maybe a
 * marker, was stored before it was ready. Without markers, the revision of the beginning is not known.
 */
static bool may_be_hidden(const struct judgement *judgement, const struct watch_record *watch,
                          const struct stored *stored)
{
    unsigned key = subject_key(stored->packet->subject);
    const struct stored *last = state_at(judgement, key, moment_at(judgement->stream, watch->ready_ns));

    return watch->ignores_deletes && (last == NULL || last->sequence > stored->sequence);
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
        const struct stored *stored = stream->log.items[i];
        if (!watch_wants_key(watch, subject_key(stored->packet->subject)))
            continue;
        last[subject_key(stored->packet->subject)] = stored;
        if (watch->has_history && watch_wants(watch, stored) && was_there(stored, watch->ready_ns) &&
            !is_in_beginning(watch, stored->sequence))
            world_fail("a watch with the history was ready at %.6f s without revision %" PRIu64 ", which was there",
                       (double)watch->ready_ns / 1e9, stored->sequence);
    }
    for (unsigned key = 0; key <= CALL_KEYS_MAX; key++) {
        if (stored_is_put(last[key]) && was_there(last[key], watch->ready_ns) &&
            !is_in_beginning(watch, last[key]->sequence) && !may_be_hidden(judgement, watch, last[key]))
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
        bool was_always_there = watch_wants_key(watch, key), is_there = false;
        for (size_t moment = from; moment <= to && was_always_there; moment++)
            was_always_there = stored_is_put(state_at(judgement, key, moment));
        for (size_t i = 0; i < watch->ready_count && !is_there; i++)
            is_there = watch->entries[i].key == key;
        if (was_always_there && !is_there)
            world_fail("a watch was ready at %.6f s without k%u, which was there", (double)watch->ready_ns / 1e9, key);
    }
}

/* Return whether the message was stored before a watch of updates has begun. */
static bool is_before_updates(const struct watch_record *watch, const struct stored *stored)
{
    return watch->updates_only && stored->at_ns <= watch->answered_ns;
}

/*
 * A snapshot has nothing later than its revision, and of no key something older than what it had then. A key that has
 * vanished may be in it.
 */
static void judge_snapshot(const struct judgement *judgement, const struct watch_record *watch)
{
    const struct stream *stream = judgement->stream;
    uint64_t delivered[CALL_KEYS_MAX + 1] = {0};

    for (size_t i = 0; i < watch->ready_count; i++) {
        if (watch->entries[i].revision > watch->ready_revision)
            world_fail("a snapshot of revision %" PRIu64 " has revision %" PRIu64, watch->ready_revision,
                       watch->entries[i].revision);
        if (watch->entries[i].key <= CALL_KEYS_MAX)
            delivered[watch->entries[i].key] = watch->entries[i].revision;
    }
    for (size_t i = 0; i < stream->log.count && stream->log.items[i]->sequence <= watch->ready_revision; i++) {
        const struct stored *stored = stream->log.items[i];
        unsigned key = subject_key(stored->packet->subject);
        if (key <= CALL_KEYS_MAX && delivered[key] > 0 && watch_wants(watch, stored) &&
            was_there(stored, watch->ready_ns) && stored->sequence > delivered[key])
            world_fail("a snapshot of revision %" PRIu64 " has revision %" PRIu64 " of k%u, and not revision %" PRIu64,
                       watch->ready_revision, delivered[key], key, stored->sequence);
    }
}

static bool is_entry_true(const struct watch_record *watch, size_t place, const struct stored *stored)
{
    if (stored == NULL || subject_key(stored->packet->subject) != watch->entries[place].key ||
        stored_is_put(stored) != watch->entries[place].is_put)
        return false;
    return !stored_is_put(stored) ||
           (watch->is_meta_only ? stored->packet->payload_bytes : stored_value(stored)) == watch->entries[place].value;
}

static void judge_watch(const struct judgement *judgement, const struct watch_record *watch)
{
    const struct stream *stream = judgement->stream;
    size_t place = 0;

    for (size_t i = 0; i < watch->count; i++) {
        const struct stored *stored = find_sequence(stream, watch->entries[i].revision);
        if (!watch_wants_key(watch, watch->entries[i].key) || (watch->ignores_deletes && !watch->entries[i].is_put))
            world_fail("a watch was delivered revision %" PRIu64 " of k%u, which it does not want",
                       watch->entries[i].revision, watch->entries[i].key);
        if (tells_removal(judgement, watch, i))
            continue;
        if (i > 0 && watch->entries[i].revision <= watch->entries[i - 1].revision)
            world_fail("a watch was delivered revision %" PRIu64 " after %" PRIu64, watch->entries[i].revision,
                       watch->entries[i - 1].revision);
        if (!is_entry_true(watch, i, stored))
            world_fail("a watch was delivered a revision %" PRIu64 " that the bucket never had so",
                       watch->entries[i].revision);
    }
    if (!watch->is_ready)
        return;
    if (!watch->updates_only) {
        judge_beginning(judgement, watch);
        judge_keys_of_beginning(judgement, watch);
    }
    if (watch->is_snapshot)
        judge_snapshot(judgement, watch);
    if (watch->count == 0)
        return;
    /* After the beginning, a message is left out only if it was gone before the next one came. */
    uint64_t last = watch->entries[watch->count - 1].revision;
    for (size_t i = 0; i < stream->log.count; i++) {
        const struct stored *stored = stream->log.items[i];
        if (stored->sequence <= watch->ready_revision || stored->sequence > last || !watch_wants(watch, stored) ||
            is_before_updates(watch, stored))
            continue;
        while (place < watch->count && watch->entries[place].revision < stored->sequence)
            place++;
        bool is_there = place < watch->count && watch->entries[place].revision == stored->sequence;
        bool may_lack = stored->at_ns <= watch->ready_ns && may_be_hidden(judgement, watch, stored);
        if (!is_there && was_there(stored, watch->entries[place].at_ns) && !may_lack)
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
    for (const struct watch_record *watch = client_watches(client); watch != NULL; watch = watch->next) {
        if (judgement->was_set_back && watch->begun_ns < judgement->promises_ns)
            continue;
        judge_start_and_end(judgement, watch);
        judge_watch(judgement, watch);
    }
}

/*
 * Return whether a snapshot may never be ready: a purge was not answered, and may still be carried out. The daemon
 * waits until its connection to NATS is closed. It should find out otherwise.
 */
static bool is_snapshot_in_doubt(const struct judgement *judgement, const struct watch_record *watch)
{
    if (!watch->is_snapshot || watch->is_ready)
        return false;
    for (size_t i = 0; i < judgement->client_count; i++) {
        for (const struct call_record *record = client_records(judgement->clients[i]); record != NULL;
             record = record->next) {
            if (record->kind == CALL_PURGE_BUCKET && record->result != CALL_OK && record->result != CALL_FAILED)
                return true;
        }
    }
    return false;
}

/* Return the last revision that the watch is to be delivered; 0: none. */
static uint64_t last_wanted(const struct stream *stream, const struct watch_record *watch)
{
    for (size_t i = stream->present.count; i > 0; i--) {
        const struct stored *stored = stream->present.items[i - 1];
        if (watch_wants(watch, stored) && !is_before_updates(watch, stored))
            return stored->sequence;
    }
    return 0;
}

bool judge_is_delivered(const struct judgement *judgement, const struct client *client)
{
    for (const struct watch_record *watch = client_watches(client); watch != NULL; watch = watch->next) {
        uint64_t last = last_wanted(judgement->stream, watch);
        if (!watch->is_ended && last > 0 && !is_snapshot_in_doubt(judgement, watch) &&
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
        if (!watch_wants_key(watch, key) || (!stored_is_put(last) && watch->ignores_deletes) ||
            (last != NULL && is_before_updates(watch, last)))
            continue;
        if (revisions[key] != (stored_is_put(last) ? last->sequence : 0) &&
            (stored_is_put(last) || !may_miss_removal(stream, subject, watch, revisions[key])))
            return false;
    }
    return true;
}

bool judge_is_in_agreement(const struct judgement *judgement, const struct client *client)
{
    for (const struct watch_record *watch = client_watches(client); watch != NULL; watch = watch->next) {
        if (!watch->is_ended && !is_snapshot_in_doubt(judgement, watch) &&
            (!watch->is_ready || !watch_agrees(judgement->stream, judgement->load, watch)))
            return false;
    }
    return true;
}
