#include "tests/sim/judge.h"
#include "tests/sim/memory.h"
#include "tests/sim/truth.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdlib.h>

/* What an increment has returned, and the life of the counter in which it was: a purge ends one. */
struct result {
    size_t life;
    uint64_t value;
};

/* --- One increment --------------------------------------------------------------------------------- */

/* Several increments can be one message. Each has a value of its own, above the one before and up to the message's. */
void judge_increment(const struct judgement *judgement, const struct call_record *record)
{
    const struct call_part *part = &record->parts[0];
    const struct stored *stored = find_sequence(judgement->stream, part->revision);

    if (judge_is_void(judgement, record) || record->result != CALL_OK)
        return;
    if (stored == NULL || !stored_is_put(stored) || subject_key(stored->packet->subject) != part->key)
        judge_fail(record, "its revision is not one of the counter");
    const struct stored *before = state_before(judgement, part->key, stored);
    if (part->found > stored_value(stored) || (before != NULL && part->found <= stored_value(before)))
        judge_fail(record, "the message with its revision does not contain it");
    if (stored->at_ns < record->begin_ns || stored->at_ns > record->end_ns)
        judge_fail(record, "it is stored at a time at which it was not in flight");
}

/* --- All of them ----------------------------------------------------------------------------------- */

static int compare_results(const void *a, const void *b)
{
    const struct result *one = a, *other = b;

    if (one->life != other->life)
        return one->life < other->life ? -1 : 1;
    return one->value < other->value ? -1 : one->value > other->value;
}

/* Return how often the counter was removed before a message of it was stored. NULL: up to the end. */
static size_t life_of(const struct judgement *judgement, const struct stored *stored)
{
    const struct key_changes *changes = &judgement->changes[judgement->load->keys];
    size_t life = 0;

    for (size_t i = 0; i < changes->count; i++) {
        const struct stored *last = judgement->stream->changes[changes->places[i]].last;
        if (stored != NULL && last == stored)
            break;
        life += last == NULL;
    }
    return life;
}

/* Return the value of the counter at the end of a life. */
static uint64_t value_of_life(const struct judgement *judgement, size_t wanted)
{
    const struct key_changes *changes = &judgement->changes[judgement->load->keys];
    uint64_t value = 0;
    size_t life = 0;

    for (size_t i = 0; i < changes->count && life <= wanted; i++) {
        const struct stored *last = judgement->stream->changes[changes->places[i]].last;
        if (last == NULL)
            life++;
        else if (life == wanted)
            value = stored_value(last);
    }
    return value;
}

/* No value was returned twice in a life. */
static void judge_results(struct result *results, size_t count)
{
    if (count > 0)
        qsort(results, count, sizeof(*results), compare_results);
    for (size_t i = 1; i < count; i++) {
        if (compare_results(&results[i], &results[i - 1]) == 0)
            world_fail("the counter had the value %" PRIu64 " twice", results[i].value);
    }
}

void judge_counter(const struct judgement *judgement)
{
    size_t lives = life_of(judgement, NULL) + 1, result_count = 0;
    struct result *results = NULL;
    uint64_t *certain = memory_new(lives * sizeof(*certain)), doubtful = 0;

    if (judgement->was_set_back)
        lives = 0;
    for (size_t i = 0; i < judgement->client_count && lives > 0; i++) {
        for (const struct call_record *record = client_records(judgement->clients[i]); record != NULL;
             record = record->next) {
            if (record->kind != CALL_INCREMENT || record->result == CALL_FAILED)
                continue;
            if (record->result != CALL_OK) {
                doubtful += (uint64_t)record->delta;
                continue;
            }
            size_t life = life_of(judgement, find_sequence(judgement->stream, record->parts[0].revision));
            certain[life] += (uint64_t)record->delta;
            results = memory_grow(results, result_count, sizeof(*results));
            results[result_count++] = (struct result){life, record->parts[0].found};
        }
    }
    judge_results(results, result_count);
    for (size_t life = 0; life < lives; life++) {
        uint64_t value = value_of_life(judgement, life);
        if (value < certain[life] || value > certain[life] + doubtful)
            world_fail("the counter came to %" PRIu64 "; increments of %" PRIu64 " have succeeded, and of %" PRIu64
                       " the outcome is unknown",
                       value, certain[life], doubtful);
    }
    free(certain);
    free(results);
}
