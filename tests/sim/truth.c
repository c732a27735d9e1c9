#include "tests/sim/truth.h"

#include <stdlib.h>
#include <string.h>

unsigned subject_key(const char *subject)
{
    const char *key = strrchr(subject, '.');

    return key != NULL && key[1] == 'k' && strchr(key + 1, '_') == NULL ? (unsigned)strtoul(key + 2, NULL, 10)
                                                                        : CALL_KEYS_MAX + 1;
}

uint64_t stored_value(const struct stored *stored)
{
    return strtoull(stored->packet->payload, NULL, 10);
}

const struct stored *find_sequence(const struct stream *stream, uint64_t sequence)
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
bool is_moment(const struct stream *stream, size_t moment)
{
    return moment == 0 || moment == stream->change_count ||
           stream->changes[moment - 1].operation != stream->changes[moment].operation;
}

/* Return the moment at a time: all changes up to then have happened. */
size_t moment_at(const struct stream *stream, uint64_t at_ns)
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
const struct stored *state_at(const struct judgement *judgement, unsigned key, size_t moment)
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
const struct stored *state_before(const struct judgement *judgement, unsigned key, const struct stored *stored)
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
