#include "tests/sim/judge.h"

#include "tests/sim/memory.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The place of what is known of the bucket. */
#define OF_THE_BUCKET (CALL_KEYS_MAX + 1u)

static void call_fail(const struct call_record *record, const char *why)
{
    world_fail("client %u, call %u, %s of k%u with value %" PRIu64
               " (%.6f to %.6f s, answered %s%s%s, revision %" PRIu64 ", found %" PRIu64 "): %s",
               record->client, record->msgid, call_kind_name(record->kind), record->parts[0].key,
               record->parts[0].value, (double)record->begin_ns / 1e9, (double)record->end_ns / 1e9,
               record->result == CALL_OK ? "ok" : record->code,
               record->result == CALL_UNKNOWN ? ", outcome unknown" : "", record->text, record->parts[0].revision,
               record->parts[0].found, why);
}

/* --- The truth ------------------------------------------------------------------------------------- */

static unsigned subject_key(const char *subject)
{
    const char *key = strrchr(subject, '.');

    return key != NULL && key[1] == 'k' && strchr(key + 1, '_') == NULL ? (unsigned)strtoul(key + 2, NULL, 10)
                                                                        : CALL_KEYS_MAX + 1;
}

static uint64_t stored_value(const struct stored *stored)
{
    return strtoull(stored->packet->payload, NULL, 10);
}

static const struct stored *find_sequence(const struct stream *stream, uint64_t sequence)
{
    if (!stream->was_set_back)
        return sequence > 0 && sequence <= stream->log.count ? stream->log.items[sequence - 1] : NULL;
    for (size_t i = 0; i < stream->log.count; i++) {
        if (stream->log.items[i]->sequence == sequence)
            return stream->log.items[i];
    }
    return NULL;
}

/*
 * A moment is the number of changes that have happened. Between the changes of one operation there is none.
 */
static bool is_moment(const struct stream *stream, size_t moment)
{
    return moment == 0 || moment == stream->change_count ||
           stream->changes[moment - 1].operation != stream->changes[moment].operation;
}

/* Return the moment at a time: all changes up to then have happened. */
static size_t moment_at(const struct stream *stream, uint64_t at_ns)
{
    size_t from = 0, to = stream->change_count;

    while (from < to) {
        size_t middle = (from + to) / 2;
        if (stream->changes[middle].at_ns <= at_ns)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

/* Return the last message of a key at a moment. */
static const struct stored *state_at(const struct judgement *judgement, unsigned key, size_t moment)
{
    const struct key_changes *changes = &judgement->changes[key];
    size_t from = 0, to = changes->count;

    while (from < to) {
        size_t middle = (from + to) / 2;
        if (changes->places[middle] < moment)
            from = middle + 1;
        else
            to = middle;
    }
    return from > 0 ? judgement->stream->changes[changes->places[from - 1]].last : NULL;
}

/* Return the last message of a key just before a message was stored. */
static const struct stored *state_before(const struct judgement *judgement, unsigned key, const struct stored *stored)
{
    const struct key_changes *changes = &judgement->changes[key];
    const struct stored *last = NULL;

    for (size_t i = 0; i < changes->count; i++) {
        const struct change *change = &judgement->stream->changes[changes->places[i]];
        if (change->last == stored)
            break;
        last = change->last;
    }
    return last;
}

static bool part_is_true(const struct judgement *judgement, const struct call_part *part, size_t moment)
{
    const struct stored *stored = state_at(judgement, part->key, moment);

    if (!part->is_there)
        return !stored_is_put(stored);
    return stored_is_put(stored) && stored->sequence == part->revision && stored_value(stored) == part->found;
}

/* --- Tables ---------------------------------------------------------------------------------------- */

static void list_changes(struct judgement *judgement)
{
    for (size_t i = 0; i < judgement->stream->change_count; i++) {
        unsigned key = subject_key(judgement->stream->changes[i].subject);
        if (key > CALL_KEYS_MAX)
            continue;
        struct key_changes *changes = &judgement->changes[key];
        changes->places = memory_grow(changes->places, changes->count, sizeof(*changes->places));
        changes->places[changes->count++] = i;
    }
}

static void list_values(struct judgement *judgement)
{
    judgement->written = memory_new((client_values() + 1) * sizeof(*judgement->written));
    for (size_t i = 0; i < judgement->stream->log.count; i++) {
        const struct stored *stored = judgement->stream->log.items[i];
        if (stored->is_lost || !stored_is_put(stored) || subject_key(stored->packet->subject) >= judgement->load->keys)
            continue;
        struct written *written = &judgement->written[stored_value(stored)];
        written->stored = stored;
        written->count++;
    }
}

static void note_known(struct knowledge_list *known, uint64_t at_ns, size_t moment)
{
    known->items = memory_grow(known->items, known->count, sizeof(*known->items));
    known->items[known->count++] = (struct knowledge){at_ns, moment};
}

static void list_moments(struct judgement *judgement)
{
    const struct stream *stream = judgement->stream;

    judgement->moments = memory_new((stream->log.count + 1) * sizeof(*judgement->moments));
    for (size_t i = 0, next = 0; i < stream->change_count; i++) {
        const struct stored *last = stream->changes[i].last;
        for (next = next > i ? next : i + 1; !is_moment(stream, next); next++)
            ;
        if (last != NULL && last->sequence <= stream->log.count && judgement->moments[last->sequence] == 0)
            judgement->moments[last->sequence] = next;
    }
}

static void note_answer(struct judgement *judgement, const struct call_record *record)
{
    for (size_t i = 0; i < record->count; i++) {
        const struct stored *stored = find_sequence(judgement->stream, record->parts[i].revision);
        if (stored == NULL)
            continue;
        size_t moment = judgement->moments[stored->sequence];
        note_known(&judgement->known[record->parts[i].key], record->end_ns, moment);
        note_known(&judgement->known[OF_THE_BUCKET], record->end_ns, moment);
    }
}

static int compare_knowledge(const void *a, const void *b)
{
    const struct knowledge *one = a, *other = b;

    return one->at_ns < other->at_ns ? -1 : one->at_ns > other->at_ns;
}

void judge_prepare(struct judgement *judgement)
{
    if (judgement->was_set_back) {
        list_values(judgement);
        return;
    }
    list_moments(judgement);
    list_changes(judgement);
    list_values(judgement);
    for (size_t i = 0; i < judgement->client_count; i++) {
        for (const struct call_record *record = client_records(judgement->clients[i]); record != NULL;
             record = record->next)
            note_answer(judgement, record);
    }
    for (size_t key = 0; key <= OF_THE_BUCKET; key++) {
        struct knowledge_list *known = &judgement->known[key];
        if (known->count > 0)
            qsort(known->items, known->count, sizeof(*known->items), compare_knowledge);
        for (size_t i = 1; i < known->count; i++) {
            if (known->items[i].moment < known->items[i - 1].moment)
                known->items[i].moment = known->items[i - 1].moment;
        }
    }
}

void judge_finish(struct judgement *judgement)
{
    for (size_t key = 0; key <= CALL_KEYS_MAX; key++)
        free(judgement->changes[key].places);
    for (size_t key = 0; key <= OF_THE_BUCKET; key++)
        free(judgement->known[key].items);
    free(judgement->written);
    free(judgement->moments);
}

/* --- Moments --------------------------------------------------------------------------------------- */

/* Return whether the call's answer is true at this moment. */
typedef bool moment_fn(const struct judgement *judgement, const struct call_record *record, size_t moment);

static bool is_true_once(const struct judgement *judgement, const struct call_record *record, moment_fn *is_true,
                         size_t begin)
{
    size_t end = moment_at(judgement->stream, record->end_ns);

    for (size_t moment = begin; moment <= end; moment++) {
        /* Beside other hosts' writes, a cached read may see a part of a batch. */
        if ((record->is_cached || is_moment(judgement->stream, moment)) && is_true(judgement, record, moment))
            return true;
    }
    return false;
}

static bool parts_are_true(const struct judgement *judgement, const struct call_record *record, size_t moment)
{
    for (size_t i = 0; i < record->count; i++) {
        if (!part_is_true(judgement, &record->parts[i], moment))
            return false;
    }
    return true;
}

static bool entries_are_true(const struct judgement *judgement, const struct call_record *record, size_t moment)
{
    /* A page may end before the last key. */
    unsigned keys = record->count > 0 ? record->parts[record->count - 1].key + 1 : judgement->load->keys;

    for (unsigned key = 0; key < keys; key++) {
        if (stored_is_put(state_at(judgement, key, moment)) != ((record->keys_found >> key & 1) != 0))
            return false;
    }
    return parts_are_true(judgement, record, moment);
}

/* Return whether a condition of a transaction does not hold. */
static bool commit_condition_fails(const struct judgement *judgement, const struct call_record *record, size_t moment)
{
    for (size_t i = 0; i < record->count; i++) {
        const struct call_part *part = &record->parts[i];
        const struct stored *stored = state_at(judgement, part->key, moment);
        bool holds =
            part->expected == 0 ? !stored_is_put(stored) : stored != NULL && stored->sequence == part->expected;
        if (part->has_condition && !holds)
            return true;
    }
    return false;
}

static bool condition_fails(const struct judgement *judgement, const struct call_record *record, size_t moment)
{
    const struct call_part *part = &record->parts[0];
    const struct stored *stored = state_at(judgement, part->key, moment);
    uint64_t sequence = stored != NULL ? stored->sequence : 0;

    if (record->kind == CALL_CREATE)
        return stored_is_put(stored) && (part->revision == 0 || part->revision == sequence);
    if (part->expected == 0)
        return stored_is_put(stored);
    return sequence != part->expected && (part->revision == 0 || part->revision == sequence);
}

/* --- Calls ----------------------------------------------------------------------------------------- */

static bool part_condition_held(const struct judgement *judgement, enum call_kind kind, const struct call_part *part,
                                const struct stored *stored)
{
    const struct stored *before = state_before(judgement, part->key, stored);

    if (kind == CALL_CREATE || (part->has_condition && part->expected == 0))
        return !stored_is_put(before);
    return !part->has_condition || (before != NULL && before->sequence == part->expected);
}

/* Judge one value that was written. Return what is stored, or NULL. */
static const struct stored *judge_value(const struct judgement *judgement, const struct call_record *record,
                                        const struct call_part *part, enum call_result result)
{
    size_t count = judgement->written[part->value].count;
    const struct stored *stored = judgement->written[part->value].stored;

    if (count > 1)
        call_fail(record, "it is stored more than once");
    if (judgement->was_set_back)
        return NULL;
    if (result == CALL_FAILED && count > 0)
        call_fail(record, "it is stored, although the error says that it has no effect");
    if (result == CALL_OK && count == 0)
        call_fail(record, "it is not stored, although it succeeded");
    if (result == CALL_OK && stored->sequence != part->revision)
        call_fail(record, "it is stored with another revision");
    if (result == CALL_OK && (stored->at_ns < record->begin_ns || stored->at_ns > record->end_ns))
        call_fail(record, "it is stored at a time at which it was not in flight");
    if (count > 0 && !part_condition_held(judgement, record->kind, part, stored))
        call_fail(record, "it is stored, although its condition did not hold");
    return stored;
}

static void judge_marker(const struct judgement *judgement, const struct call_record *record,
                         const struct call_part *part)
{
    const struct stored *stored = find_sequence(judgement->stream, part->revision);

    if (judgement->was_set_back || record->result != CALL_OK)
        return;
    if (stored == NULL || stored_is_put(stored) || subject_key(stored->packet->subject) != part->key)
        call_fail(record, "its revision is not that of a marker of its key");
    if (stored->at_ns < record->begin_ns || stored->at_ns > record->end_ns)
        call_fail(record, "its marker is stored at a time at which it was not in flight");
}

static void judge_commit(const struct judgement *judgement, const struct call_record *record)
{
    size_t there = 0, values = 0;
    const struct stored *stored;

    for (size_t i = 0; i < record->count; i++) {
        if (record->parts[i].is_delete) {
            judge_marker(judgement, record, &record->parts[i]);
            continue;
        }
        stored = judge_value(judgement, record, &record->parts[i], record->result);
        values++;
        there += stored != NULL;
    }
    if (judgement->was_set_back)
        return;
    if (there != 0 && there != values)
        call_fail(record, "a part of the transaction is stored");
    for (size_t i = 1; record->result == CALL_OK && i < record->count; i++) {
        if (record->parts[i].revision != record->parts[0].revision + i)
            call_fail(record, "its revisions are not consecutive");
    }
}

/* Return the moment from which on a read may have its state. key: of one key; or load->keys + 1: of many. */
static size_t read_may_begin(const struct judgement *judgement, const struct call_record *record, size_t key)
{
    const struct knowledge_list *known = &judgement->known[key];
    size_t from = 0, to = known->count;

    if (record->is_cached && record->begin_ns > judgement->staleness_ns)
        return moment_at(judgement->stream, record->begin_ns - judgement->staleness_ns);
    if (record->is_cached)
        return 0;
    if (!judgement->reads_memory)
        return moment_at(judgement->stream, record->begin_ns);
    while (from < to) {
        size_t middle = (from + to) / 2;
        if (known->items[middle].at_ns <= record->begin_ns)
            from = middle + 1;
        else
            to = middle;
    }
    return from > 0 ? known->items[from - 1].moment : 0;
}

static void judge_read(const struct judgement *judgement, const struct call_record *record)
{
    moment_fn *is_true = record->kind == CALL_ENTRIES ? entries_are_true : parts_are_true;
    size_t key = record->kind == CALL_GET ? record->parts[0].key : OF_THE_BUCKET;

    if (record->result != CALL_OK)
        return;
    size_t begin = read_may_begin(judgement, record, key);
    if (!record->is_cached && !is_true_once(judgement, record, is_true, begin))
        call_fail(record, "at no moment of the call this was the state");
    /* Of the keys of a cached read each has its own moment. */
    for (size_t i = 0; record->is_cached && i < record->count; i++) {
        struct call_record single = *record;
        single.parts[0] = record->parts[i];
        single.count = 1;
        if (!is_true_once(judgement, &single, parts_are_true, begin))
            call_fail(&single, "at no moment of the call this was the state of the key");
    }
}

static void judge_keys(const struct judgement *judgement, const struct call_record *record)
{
    if (record->result != CALL_OK)
        return;
    size_t begin = read_may_begin(judgement, record, OF_THE_BUCKET), end = moment_at(judgement->stream, record->end_ns);
    for (unsigned key = 0; key < judgement->load->keys; key++) {
        bool is_found = (record->keys_found >> key & 1) != 0, is_possible = false;
        for (size_t moment = begin; moment <= end && !is_possible; moment++)
            is_possible = (record->is_cached || is_moment(judgement->stream, moment)) &&
                          stored_is_put(state_at(judgement, key, moment)) == is_found;
        if (!is_possible)
            call_fail(record, is_found ? "it lists a key that was not there" : "it leaves out a key that was there");
    }
}

/* Return the time for which the daemon was stopped during the call. */
static uint64_t stopped_ns(const struct judgement *judgement, const struct call_record *record)
{
    uint64_t sum_ns = 0;

    for (size_t i = 0; i < judgement->stop_count; i++) {
        const struct stop *stop = &judgement->stops[i];
        uint64_t begin_ns = stop->begin_ns > record->begin_ns ? stop->begin_ns : record->begin_ns;
        uint64_t end_ns = stop->end_ns < record->end_ns ? stop->end_ns : record->end_ns;
        sum_ns += end_ns > begin_ns ? end_ns - begin_ns : 0;
    }
    return sum_ns;
}

/* The errors that the faults of this world, and conditions, can cause. */
static bool error_is_possible(const struct call_record *record)
{
    const char *code = record->code;
    bool may_have_been_stored = record->result == CALL_UNKNOWN; /* and then a copy of it was refused */
    bool may_exist = record->kind == CALL_CREATE || record->kind == CALL_COMMIT;
    bool may_conflict = record->kind == CALL_UPDATE || record->kind == CALL_COMMIT;

    return strcmp(code, "unavailable") == 0 || strcmp(code, "deadline_exceeded") == 0 ||
           strcmp(code, "resource_exhausted") == 0 || (may_exist && strcmp(code, "already_exists") == 0) ||
           ((may_conflict || may_have_been_stored) && strcmp(code, "conflict") == 0);
}

static void judge_refusal(const struct judgement *judgement, const struct call_record *record, moment_fn *fails)
{
    if (record->is_refused && record->result == CALL_FAILED && !judgement->was_set_back &&
        !is_true_once(judgement, record, fails, moment_at(judgement->stream, record->begin_ns)))
        call_fail(record, "it is refused, although its condition held all the time");
}

static void judge_call(const struct judgement *judgement, const struct call_record *record)
{
    const struct call_part *part = &record->parts[0];

    if (record->kind == CALL_SETUP || record->is_impatient)
        return;
    if (record->result == CALL_RUNS)
        call_fail(record, "it has no answer");
    if (record->result != CALL_LOST &&
        record->end_ns - record->begin_ns > record->timeout_ns + judgement->slack_ns + stopped_ns(judgement, record))
        call_fail(record, "its answer came long after its deadline");
    if (record->code[0] != '\0' && !error_is_possible(record))
        call_fail(record, "this error is not one that this call can cause");
    if (record->must_succeed && record->result != CALL_OK)
        call_fail(record, "it has failed after the end of the faults");
    switch (record->kind) {
    case CALL_PUT:
    case CALL_CREATE:
    case CALL_UPDATE:
        judge_value(judgement, record, part, record->result);
        judge_refusal(judgement, record, condition_fails);
        break;
    case CALL_DELETE:
    case CALL_PURGE:
        judge_marker(judgement, record, part);
        break;
    case CALL_BULK_PUT:
        for (size_t i = 0; i < record->count; i++)
            judge_value(judgement, record, &record->parts[i],
                        record->result == CALL_OK ? record->parts[i].result : record->result);
        break;
    case CALL_COMMIT:
        judge_commit(judgement, record);
        judge_refusal(judgement, record, commit_condition_fails);
        break;
    case CALL_GET:
    case CALL_BULK_GET:
    case CALL_ENTRIES:
        if (!judgement->was_set_back)
            judge_read(judgement, record);
        break;
    case CALL_KEYS:
        if (!judgement->was_set_back)
            judge_keys(judgement, record);
        break;
    case CALL_INCREMENT:
    case CALL_SETUP:
    case CALL_KINDS:
        break;
    }
}

void judge_calls(const struct judgement *judgement, const struct client *client)
{
    for (const struct call_record *record = client_records(client); record != NULL; record = record->next)
        judge_call(judgement, record);
}

/* --- The counter ----------------------------------------------------------------------------------- */

static int compare_numbers(const void *a, const void *b)
{
    uint64_t one = *(const uint64_t *)a, other = *(const uint64_t *)b;

    return one < other ? -1 : one > other;
}

void judge_counter(const struct judgement *judgement)
{
    uint64_t *results = NULL;
    size_t result_count = 0;
    uint64_t certain = 0, doubtful = 0;
    const struct stored *last = state_at(judgement, judgement->load->keys, judgement->stream->change_count);
    uint64_t value = last != NULL ? stored_value(last) : 0;

    for (size_t i = 0; i < judgement->client_count; i++) {
        for (const struct call_record *record = client_records(judgement->clients[i]); record != NULL;
             record = record->next) {
            if (record->kind != CALL_INCREMENT)
                continue;
            if (record->result == CALL_OK) {
                certain += (uint64_t)record->delta;
                results = memory_grow(results, result_count, sizeof(*results));
                results[result_count++] = record->parts[0].found;
            } else if (record->result != CALL_FAILED) {
                doubtful += (uint64_t)record->delta;
            }
        }
    }
    if (result_count > 0)
        qsort(results, result_count, sizeof(*results), compare_numbers);
    for (size_t i = 1; i < result_count && !judgement->was_set_back; i++) {
        if (results[i] == results[i - 1])
            world_fail("the counter had the value %" PRIu64 " twice", results[i]);
    }
    free(results);
    if (!judgement->was_set_back && (value < certain || value > certain + doubtful))
        world_fail("the counter is %" PRIu64 "; increments of %" PRIu64 " have succeeded, and of %" PRIu64
                   " the outcome is unknown",
                   value, certain, doubtful);
}

/* --- Watches --------------------------------------------------------------------------------------- */

/*
 * Return whether an entry tells that a value has expired without a marker, or that its marker has expired, too. It has
 * the revision up to which the daemon has looked.
 */
static bool tells_expiry(const struct judgement *judgement, const struct watch_record *watch, size_t place)
{
    const struct stored *stored = find_sequence(judgement->stream, watch->entries[place].revision);
    unsigned key = watch->entries[place].key;
    bool is_marker = stored != NULL && !stored_is_put(stored) && subject_key(stored->packet->subject) == key;
    uint64_t before = place > 0 ? watch->entries[place - 1].revision : 0, revision = watch->entries[place].revision;

    /* The daemon may have looked up to the marker of this very key, which is gone by now. */
    if (watch->entries[place].is_put || (is_marker && revision > before) || judgement->load->ttl_per_mille == 0 ||
        revision < before)
        return false;
    for (size_t i = 0; i < judgement->changes[key].count; i++) {
        if (judgement->stream->changes[judgement->changes[key].places[i]].last == NULL)
            return true;
    }
    return false;
}

/* What was there when the watch began, and was not overwritten since, was delivered. */
static void judge_beginning(const struct judgement *judgement, const struct watch_record *watch)
{
    const struct stream *stream = judgement->stream;

    for (size_t i = 0; i < stream->present.count; i++) {
        const struct stored *stored = stream->present.items[i];
        bool is_there = false;
        if (!stored_is_put(stored) || stored->at_ns >= watch->begun_ns ||
            subject_key(stored->packet->subject) > CALL_KEYS_MAX ||
            stream_last(stream, stored->packet->subject) != stored)
            continue;
        for (size_t j = 0; j < watch->count && !is_there; j++)
            is_there = watch->entries[j].revision == stored->sequence;
        if (!is_there)
            world_fail("a watch that began at %.6f s was not delivered revision %" PRIu64 ", which was there",
                       (double)watch->begun_ns / 1e9, stored->sequence);
    }
}

static void judge_watch(const struct judgement *judgement, const struct watch_record *watch)
{
    const struct stream *stream = judgement->stream;
    size_t place = 0;

    for (size_t i = 0; i < watch->count; i++) {
        const struct stored *stored = find_sequence(stream, watch->entries[i].revision);
        if (tells_expiry(judgement, watch, i))
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
    if (watch->count == 0)
        return;
    /* Each message after the beginning, up to the last delivery, must be there, unless it was overwritten. */
    uint64_t last = watch->entries[watch->count - 1].revision;
    for (size_t i = 0; i < stream->log.count; i++) {
        const struct stored *stored = stream->log.items[i];
        if (stored->sequence <= watch->ready_revision || stored->sequence > last ||
            subject_key(stored->packet->subject) > CALL_KEYS_MAX)
            continue;
        while (place < watch->count && watch->entries[place].revision < stored->sequence)
            place++;
        bool is_there = place < watch->count && watch->entries[place].revision == stored->sequence;
        if (!is_there && stream_at(stream, stored->sequence) != NULL)
            world_fail("a watch was not delivered revision %" PRIu64 ", but later ones", stored->sequence);
    }
}

void judge_watches(const struct judgement *judgement, const struct client *client)
{
    if (judgement->was_set_back)
        return;
    for (const struct watch_record *watch = client_watches(client); watch != NULL; watch = watch->next)
        judge_watch(judgement, watch);
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
