/*
 * truth: what the simulated server did, for the judges.
 *
 * A moment is a number of changes that have happened.
 */
#ifndef SIM_TRUTH_H
#define SIM_TRUTH_H

#include "tests/sim/judge.h"

/* Return the number of the key with this subject: the clients' from 0, then the counter. Larger: it is none of them. */
unsigned subject_key(const char *subject);

/* Return the number that a put has stored. */
uint64_t stored_value(const struct stored *stored);

/* Return the message of a revision, even if it is gone by now; NULL: there was none. */
const struct stored *find_sequence(const struct stream *stream, uint64_t sequence);

/* Return whether a client could read the stream at this moment. Between the changes of one operation it cannot. */
bool is_moment(const struct stream *stream, size_t moment);

/* Return the moment at a time: all changes up to then have happened. */
size_t moment_at(const struct stream *stream, uint64_t at_ns);

/* Return the last message of a key at a moment, and just before a message was stored; NULL: none. */
const struct stored *state_at(const struct judgement *judgement, unsigned key, size_t moment);
const struct stored *state_before(const struct judgement *judgement, unsigned key, const struct stored *stored);

#endif
