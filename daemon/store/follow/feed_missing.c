#include "daemon/store/follow/feed_parts.h"
#include "daemon/store/follow/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* How many heartbeats, watches.heartbeat apart, an exclusive feed asks for when it misses a message. */
#define CLOSE_HEARTBEATS 5u

/*
 * Heartbeats while a message is missing that is there. Then the consumer is recreated: its server may be behind for
 * long.
 */
#define IDLE_HEARTBEATS_MAX 5u

/* The last messages are gone, and maybe also the end of the last batch. */
static void feed_move_on(struct feed *feed, uint64_t position, int64_t stored_us)
{
    feed->gaps++;
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

/*
 * The consumer is on one of the stream's servers. If that one is behind, it reports that nothing is pending, and sends
 * heartbeats. Only the leader knows whether there is a message after the position. A lost answer is asked for again
 * after the next heartbeat.
 */
static void feed_ask_leader(struct feed *feed)
{
    bool is_live = feed->phase == FEED_LIVE;
    char body[KV_PREFIX_BYTES + 64];

    feed->is_asking = true;
    feed->asked_after = feed->position.sequence;
    feed->asked_until = is_live ? feed->known_last : feed->info.last_sequence;
    feed->asked_until_us = is_live ? feed->known_last_us : feed->info.last_us;
    snprintf(body, sizeof(body), "{\"seq\":%" PRIu64 ",\"next_by_subj\":\"%s>\"}", feed->asked_after + 1,
             feed->bucket->prefix);
    if (feed_publish(feed, "STREAM.MSG.GET", false, body) != CONNECTION_PUBLISHED)
        feed_lose(feed, REQUEST_CONGESTED);
}

bool feed_misses_messages(const struct feed *feed)
{
    return feed->position.sequence < (feed->phase == FEED_LIVE ? feed->known_last : feed->info.last_sequence);
}

/* If there is a message, it will be delivered. If there is none, all are gone. */
enum request_verdict feed_read_next(struct feed *feed, const struct message *message)
{
    struct jetstream_error failure = {0};
    json_t *answer = json_loadb(message->payload, message->payload_bytes, 0, NULL);
    bool is_none =
        answer != NULL && jetstream_get_error(answer, &failure) && failure.err_code == JETSTREAM_MESSAGE_NOT_FOUND;

    json_decref(answer);
    if (!feed->is_asking)
        return REQUEST_MORE;
    feed->is_asking = false;
    if (!feed_misses_messages(feed))
        return REQUEST_MORE;
    if (feed->position.sequence != feed->asked_after) {
        feed_ask_leader(feed);
        return REQUEST_DONE;
    }
    if (!is_none)
        return REQUEST_MORE;
    feed_move_on(feed, feed->asked_until, feed->asked_until_us);
    if (feed->phase == FEED_CATCHING_UP)
        feed_go_live(feed);
    else
        feed->ops->caught_up(feed->arg, 0, false);
    return REQUEST_DONE; /* it may have been stopped */
}

void feed_note_nothing_pending(struct feed *feed)
{
    feed->heard_ms = connection_drained_ms(feed->store->connection);
    if (feed->phase != FEED_CATCHING_UP)
        return;
    if (feed->info.replicas <= 1 || !feed_misses_messages(feed))
        feed_go_live(feed);
    else if (!feed->is_asking)
        feed_ask_leader(feed);
}

/* If one server has the stream, messages that have not come before the second heartbeat are gone. */
void feed_note_idle(struct feed *feed)
{
    if (!feed_misses_messages(feed))
        return;
    if (++feed->idle_heartbeats > IDLE_HEARTBEATS_MAX) {
        feed_lose(feed, REQUEST_NO_LEADER);
    } else if (feed->info.replicas > 1) {
        if (!feed->is_asking)
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
    if (info->last_sequence <= feed->known_last)
        return;
    feed->known_last = info->last_sequence;
    feed->known_last_us = info->last_us;
    feed->idle_heartbeats = 0;
    feed_listen_closely(feed);
}
