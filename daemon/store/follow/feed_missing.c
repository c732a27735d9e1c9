#include "daemon/base/clock.h"
#include "daemon/store/follow/feed_parts.h"
#include "daemon/store/follow/state.h"

#include <stdio.h>

/* How many heartbeats, watches.heartbeat apart, an exclusive feed asks for when it misses a message. */
#define CLOSE_HEARTBEATS 5u

/* For how long heartbeats come without a message that is there. Then the consumer's server is not waited for. */
#define STUCK_MS 15000u

/* How often the leader must say that there is no message. It may have just become the leader, or be it no more. */
#define NONES_MIN 2u

/* The last messages are gone, and maybe also the end of the last batch. */
static void feed_move_on(struct feed *feed, uint64_t position, int64_t stored_us)
{
    feed->gaps++;
    feed->question.missing_ms = 0;
    feed->position.sequence = position;
    feed->position.stored_us = stored_us;
    feed->position.batch.from = 0;
}

/* All that existed when the consumer was created is delivered, or gone. */
static void feed_go_live(struct feed *feed)
{
    feed->phase = FEED_LIVE;
    feed->live_on = connection_number(feed->store->connection);
    feed->error.code = ERROR_NONE;
    if (feed->position.sequence < feed->info.last_sequence)
        feed_move_on(feed, feed->info.last_sequence, feed->info.last_us);
    request_reset_backoff(&feed->request);
    int64_t question_us = feed->question_us;
    bool has_another_keeper = feed->has_another_keeper;
    feed->question_us = 0;
    feed->has_another_keeper = false;
    feed->ops->caught_up(feed->arg, question_us, has_another_keeper);
}

/* Return the last sequence that the stream is known to have had. */
static uint64_t feed_last_sequence(const struct feed *feed)
{
    return feed->phase == FEED_LIVE ? feed->known_last : feed->info.last_sequence;
}

bool feed_misses_messages(const struct feed *feed)
{
    return feed->position.sequence < feed_last_sequence(feed);
}

/* --- The question ----------------------------------------------------------------------------------- */

/* If there is a message, it will be delivered. If there is none, all are gone. */
static void on_question_answered(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct feed *feed = arg;
    struct feed_question *question = &feed->question;

    (void)answer;
    (void)error; /* the next heartbeat leads to another question */
    question->is_open = false;
    if (feed->phase < FEED_CATCHING_UP || !feed_misses_messages(feed) || feed->position.sequence != question->after)
        return;
    if (err_code != JETSTREAM_MESSAGE_NOT_FOUND || ++question->nones < NONES_MIN)
        return;
    feed->heard_ms = question->asked_ms;
    feed_move_on(feed, question->until, question->until_us);
    if (feed->phase == FEED_CATCHING_UP)
        feed_go_live(feed);
    else
        feed->ops->caught_up(feed->arg, 0, false);
}

/*
 * One of the stream's servers has the consumer. While that server is behind the leader, the consumer reports no pending
 * messages and sends heartbeats. Only the leader knows whether the stream has a message after the position.
 */
static void feed_ask_leader(struct feed *feed)
{
    struct feed_question *question = &feed->question;
    const struct store *store = feed->store;
    char filter[KV_PREFIX_BYTES + 2];

    if (question->is_open)
        return;
    snprintf(filter, sizeof(filter), "%s>", feed->bucket->prefix);
    uint64_t until = feed_last_sequence(feed);
    if (question->after != feed->position.sequence || question->until != until)
        question->nones = 0;
    question->is_open = true;
    question->after = feed->position.sequence;
    question->until = until;
    question->until_us = feed->phase == FEED_LIVE ? feed->known_last_us : feed->info.last_us;
    question->asked_ms = clock_boot_ms();
    question->call = (struct jetstream_call){0};
    jetstream_call(&feed->store->jetstream, &question->call, "STREAM.MSG.GET", feed->bucket->stream,
                   json_pack("{s:I, s:s}", "seq", (json_int_t)(question->after + 1), "next_by_subj", filter),
                   uv_now(store->loop) + store->conf->calls.max_timeout_ms, on_question_answered, feed);
}

void feed_forget_question(struct feed *feed)
{
    if (feed->question.is_open)
        jetstream_cancel(&feed->question.call);
    feed->question = (struct feed_question){0};
}

/* --- What the consumer's server says ---------------------------------------------------------------- */

void feed_note_nothing_pending(struct feed *feed)
{
    bool is_single = feed->info.replicas <= 1, is_behind = feed->phase == FEED_CATCHING_UP;

    if (!feed_is_exclusive(feed, feed->store->conf))
        connection_ping(feed->store->connection);
    if (!feed_misses_messages(feed) || (is_behind && is_single)) {
        uint64_t sent_after_ms = connection_sent_after_ms(feed->store->connection);
        if (sent_after_ms > feed->heard_ms)
            feed->heard_ms = sent_after_ms;
        if (is_behind)
            feed_go_live(feed);
    } else if (is_behind && feed->question.asked_ms == 0) {
        feed_ask_leader(feed);
    }
}

/* If one server has the stream, messages that have not come before the second heartbeat are gone. */
void feed_note_idle(struct feed *feed)
{
    uint64_t now_ms = uv_now(feed->store->loop), patience_ms = 4ull * feed->store->conf->watches.heartbeat_ms;

    if (feed->phase < FEED_CATCHING_UP)
        return;
    if (!feed_misses_messages(feed)) {
        feed->question.missing_ms = 0;
        return;
    }
    if (feed->question.missing_ms == 0)
        feed->question.missing_ms = now_ms;
    feed->idle_heartbeats++;
    if (now_ms - feed->question.missing_ms > (patience_ms > STUCK_MS ? patience_ms : STUCK_MS)) {
        feed_lose(feed, REQUEST_NO_LEADER);
    } else if (feed->info.replicas > 1) {
        feed_ask_leader(feed);
    } else if (feed->idle_heartbeats >= 2) {
        feed_move_on(feed, feed->known_last, feed->known_last_us);
        feed->ops->caught_up(feed->arg, 0, false);
    }
}

/*
 * The stream has had messages after the position that were not delivered. An exclusive feed requests heartbeats, with a
 * pull that ends soon. If heartbeats come without the messages, these are gone. If none comes, the consumer is
 * recreated.
 */
void feed_listen_closely(struct feed *feed)
{
    unsigned beat_ms = feed->store->conf->watches.heartbeat_ms;

    if (feed->phase != FEED_LIVE || !feed_misses_messages(feed) || !feed_is_exclusive(feed, feed->store->conf))
        return;
    if (feed_pull(feed, 1, CLOSE_HEARTBEATS * beat_ms * 1000000ll, beat_ms))
        request_listen(&feed->request, feed_silence_ms(beat_ms));
    else
        feed_lose(feed, REQUEST_CONGESTED);
}

void feed_note_last(struct feed *feed, const struct feed_info *info)
{
    feed->info.replicas = info->replicas;
    if (info->last_sequence <= feed->known_last)
        return;
    feed->known_last = info->last_sequence;
    feed->known_last_us = info->last_us;
    feed->idle_heartbeats = 0;
    feed_listen_closely(feed);
}
