#include "daemon/nats/kv.h"
#include "tests/sim/judge.h"
#include "tests/sim/memory.h"
#include "tests/sim/truth.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* --- Each message is stored once -------------------------------------------------------------------- */

static int compare_texts(const void *a, const void *b)
{
    const char *const *one = a, *const *other = b;

    return strcmp(*one, *other);
}

void judge_log(const struct stream *stream)
{
    const char **ids = memory_new((stream->log.count + 1) * sizeof(*ids));
    size_t count = 0;

    for (size_t i = 0; i < stream->log.count; i++) {
        const char *id = packet_header(stream->log.items[i]->packet, KV_HEADER_MSG_ID);
        if (id != NULL && !stream->log.items[i]->is_lost)
            ids[count++] = id;
    }
    qsort(ids, count, sizeof(*ids), compare_texts);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(ids[i - 1], ids[i]) == 0)
            world_fail("%s: the message with id %s is stored twice", stream->name, ids[i]);
    }
    free(ids);
}

/* --- Deletions -------------------------------------------------------------------------------------- */

/* Return how often the call has deleted the key, or may have done so: 0, 1. */
static unsigned deletions_of(const struct call_record *record, unsigned key, bool is_certain)
{
    for (size_t i = 0; i < record->count; i++) {
        const struct call_part *part = &record->parts[i];
        enum call_result result = call_part_result(record, part);
        bool is_delete = call_deletes(record->kind) || (record->kind == CALL_COMMIT && part->is_delete);
        bool is_absent = record->if_exists && result == CALL_OK && part->revision == 0;
        if (is_delete && part->key == key)
            return !is_absent && (is_certain ? result == CALL_OK : result != CALL_FAILED);
    }
    return 0;
}

void judge_deletions(const struct judgement *judgement)
{
    unsigned stored[CALL_KEYS_MAX + 1] = {0};

    if (judgement->was_set_back)
        return;
    for (size_t i = 0; i < judgement->stream->log.count; i++) {
        const struct packet *packet = judgement->stream->log.items[i]->packet;
        if (packet_header(packet, KV_HEADER_OPERATION) != NULL && subject_key(packet->subject) <= CALL_KEYS_MAX)
            stored[subject_key(packet->subject)]++;
    }
    for (unsigned key = 0; key < judgement->load->keys; key++) {
        unsigned certain = 0, possible = 0;
        for (size_t i = 0; i < judgement->client_count; i++) {
            for (const struct call_record *record = client_records(judgement->clients[i]); record != NULL;
                 record = record->next) {
                certain += deletions_of(record, key, true);
                possible += deletions_of(record, key, false);
            }
        }
        if (stored[key] < certain || stored[key] > possible)
            world_fail("k%u was deleted %u times; %u calls say that they have deleted it, and %u may have", key,
                       stored[key], certain, possible - certain);
    }
}

/* --- Purges ---------------------------------------------------------------------------------------- */

/* Return whether the call may have removed the message: one that succeeds removes only what was there before its end.
 */
static bool may_have_purged(const struct call_record *record, const struct stored *stored)
{
    return record->begin_ns <= stored->removed_ns && (record->result != CALL_OK || stored->at_ns <= record->end_ns);
}

/* Return the calls that may have purged something. */
static const struct call_record **list_purges(const struct judgement *judgement, size_t *count)
{
    const struct call_record **purges = NULL;

    for (size_t i = 0; i < judgement->client_count; i++) {
        for (const struct call_record *record = client_records(judgement->clients[i]); record != NULL;
             record = record->next) {
            if (record->kind != CALL_PURGE_BUCKET || record->result == CALL_FAILED)
                continue;
            purges = memory_grow(purges, *count, sizeof(*purges));
            purges[(*count)++] = record;
        }
    }
    return purges;
}

void judge_purges(const struct judgement *judgement)
{
    const struct stream *stream = judgement->stream;
    size_t count = 0;
    const struct call_record **purges = list_purges(judgement, &count);

    for (size_t i = 0; i < stream->log.count; i++) {
        const struct stored *stored = stream->log.items[i];
        bool was_wanted = !stored->is_purged;
        for (size_t purge = 0; purge < count && !was_wanted; purge++)
            was_wanted = may_have_purged(purges[purge], stored);
        if (!was_wanted)
            world_fail("revision %" PRIu64 " was purged at %.6f s, and no call may have done that", stored->sequence,
                       (double)stored->removed_ns / 1e9);
    }
    free(purges);
}
