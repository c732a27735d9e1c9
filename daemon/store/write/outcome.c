#include "daemon/store/write/outcome.h"

enum outcome_step outcome_next(const struct outcome *outcome, bool are_closed)
{
    if (outcome->copies == 0)
        return OUTCOME_SEND;
    return are_closed ? outcome->step : OUTCOME_WAIT;
}

static void outcome_ask_anew(struct outcome *outcome)
{
    outcome->step = OUTCOME_ASK;
    outcome->is_id_unknown = false;
    outcome->asked_keeper = 0;
}

void outcome_sent(struct outcome *outcome, uint64_t now_ms, uint64_t connection, const struct stream_state *stream)
{
    if (outcome->copies == 0) {
        outcome->sent_ms = now_ms;
        outcome->connection = connection;
        outcome->stream = *stream;
    }
    if (outcome->copies < OUTCOME_MANY)
        outcome->copies++;
    outcome_ask_anew(outcome);
}

void outcome_inherit(struct outcome *outcome, uint64_t connection)
{
    outcome->is_inherited = true;
    outcome->copies = 1;
    outcome->connection = connection;
    outcome_ask_anew(outcome);
}

void outcome_refused(struct outcome *outcome)
{
    if (outcome->copies == 1)
        outcome->copies = 0;
    else
        outcome_ask_anew(outcome);
}

/* --- Answers to the question ----------------------------------------------------------------------- */

enum outcome_verdict outcome_answered(struct outcome *outcome, enum outcome_answer answer, uint64_t now_ms,
                                      uint64_t keeper)
{
    bool is_first = outcome->step == OUTCOME_ASK_FIRST;
    bool is_in_time = now_ms - outcome->sent_ms < outcome->stream.window_ms;

    if (answer == OUTCOME_ID_KNOWN) {
        outcome_ask_anew(outcome);
        return is_first ? OUTCOME_PARTIAL : OUTCOME_STORED;
    }
    bool is_confirmed = !is_first || (outcome->is_id_unknown && keeper == outcome->asked_keeper);
    outcome->asked_keeper = keeper;
    outcome->is_id_unknown = answer == OUTCOME_ID_UNKNOWN && is_in_time && is_confirmed;
    outcome->step = outcome->is_batch && !is_first ? OUTCOME_ASK_FIRST : OUTCOME_READ;
    return OUTCOME_UNDECIDED;
}

/* --- What was read --------------------------------------------------------------------------------- */

/*
 * Return whether the server that was asked about the id is the one to which the first copy was sent, and was not
 * restarted since. The window must not have become shorter either: then the server forgets ids at once.
 */
static bool outcome_is_same_keeper(const struct outcome *outcome, const struct outcome_reading *reading)
{
    uint64_t keeper = outcome->asked_keeper != 0 ? outcome->asked_keeper : reading->stream.keeper;

    return keeper != 0 && keeper == outcome->stream.keeper && reading->stream.window_ms >= outcome->stream.window_ms;
}

/* Return whether the server would know the id if the first copy was stored. */
static bool outcome_is_id_kept(const struct outcome *outcome, const struct outcome_reading *reading)
{
    return outcome_is_same_keeper(outcome, reading) || (outcome->is_rebuilt && reading->is_undisturbed);
}

/* Return whether no message of the key was stored above L0: neither ours nor one that replaced it. */
static bool outcome_is_untouched(const struct outcome *outcome, const struct outcome_reading *reading)
{
    uint64_t before = outcome->stream.last_sequence;

    if (reading->stream.last_sequence < before)
        return false; /* the stream has lost messages, and has assigned their sequences again */
    if (!reading->is_there)
        return reading->none_removed || reading->stream.last_sequence == before;
    return reading->sequence <= before || reading->reaches_back;
}

bool outcome_wants_history(const struct outcome *outcome, const struct outcome_reading *reading, unsigned keeps)
{
    return keeps > 1 && reading->is_there && !reading->is_ours && reading->sequence > outcome->stream.last_sequence;
}

static enum outcome_verdict outcome_conclude_not_stored(struct outcome *outcome)
{
    outcome_ask_anew(outcome);
    outcome->step = OUTCOME_SEND;
    return OUTCOME_NOT_STORED;
}

enum outcome_verdict outcome_read(struct outcome *outcome, const struct outcome_reading *reading)
{
    bool is_first = outcome->step == OUTCOME_READ_FIRST;
    bool is_same_stream = outcome->stream.identity != 0 && outcome->stream.identity == reading->stream.identity;

    if (reading->is_ours || reading->is_ours_before)
        return is_first ? OUTCOME_PARTIAL : OUTCOME_STORED;
    if (!is_same_stream)
        return OUTCOME_UNKNOWN;
    if (!is_first && outcome->is_id_unknown && outcome_is_id_kept(outcome, reading))
        return outcome_conclude_not_stored(outcome);
    if (!outcome_is_untouched(outcome, reading))
        return OUTCOME_UNKNOWN;
    /* If the server stopped while it wrote a batch, the beginning may be stored. */
    if (outcome->is_batch && !is_first) {
        outcome->step = OUTCOME_READ_FIRST;
        return OUTCOME_UNDECIDED;
    }
    return outcome_conclude_not_stored(outcome);
}
