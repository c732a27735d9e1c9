#include "tests/sim/publish.h"

#include "daemon/nats/kv.h"
#include "tests/sim/consumers.h"
#include "tests/sim/memory.h"
#include "tests/sim/server.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_MESSAGES_MAX 1000u
#define BATCHES_MAX        50u
#define BATCH_IDLE_NS      (10 * WORLD_SECOND)

/* A refusal; err_code 0: none. */
struct refusal {
    unsigned code, err_code;
    char text[96];
};

static bool refuse(struct refusal *refusal, unsigned code, unsigned err_code, const char *text)
{
    refusal->code = code;
    refusal->err_code = err_code;
    snprintf(refusal->text, sizeof(refusal->text), "%s", text);
    return false;
}

static bool refuse_sequence(struct refusal *refusal, uint64_t sequence)
{
    char text[64];

    snprintf(text, sizeof(text), "wrong last sequence: %" PRIu64, sequence);
    return refuse(refusal, 400, 10071, text);
}

static struct packet *answer_refusal(const struct stream *stream, const char *reply, const struct refusal *refusal)
{
    if (reply == NULL)
        return NULL;
    return packet_new_json(reply, json_pack("{s:{s:i, s:i, s:s}, s:s, s:i}", "error", "code", (int)refusal->code,
                                            "err_code", (int)refusal->err_code, "description", refusal->text, "stream",
                                            stream->name, "seq", 0));
}

static struct packet *answer_stored(const struct stream *stream, const char *reply, uint64_t sequence,
                                    bool is_duplicate)
{
    if (reply == NULL)
        return NULL;
    json_t *ack = json_pack("{s:s, s:I}", "stream", stream->name, "seq", (json_int_t)sequence);
    if (is_duplicate)
        json_object_set_new(ack, "duplicate", json_true());
    return packet_new_json(reply, ack);
}

/* --- Checks ---------------------------------------------------------------------------------------- */

static bool has_number(const struct packet *packet, const char *name, uint64_t *number)
{
    const char *value = packet_header(packet, name);

    if (value == NULL)
        return false;
    *number = strtoull(value, NULL, 10);
    return true;
}

static bool check_ttl(const struct stream *stream, const struct packet *packet, struct refusal *refusal)
{
    if (packet_header(packet, KV_HEADER_TTL) != NULL && !stream_flag(stream, "allow_msg_ttl"))
        return refuse(refusal, 400, 10166, "per-message TTL is disabled");
    return true;
}

static bool check_other(const struct packet *packet, struct refusal *refusal)
{
    if (packet_header(packet, KV_HEADER_EXPECTED_OTHER) != NULL &&
        packet_header(packet, KV_HEADER_EXPECTED_SUBJECT) == NULL)
        return refuse(refusal, 400, 10193, "missing sequence for expected last sequence per subject");
    return true;
}

/* The conditions of a message that is not in a batch. */
static bool check_conditions(const struct stream *stream, const struct packet *packet, struct refusal *refusal)
{
    const char *other = packet_header(packet, KV_HEADER_EXPECTED_OTHER);
    uint64_t expected;

    if (!check_other(packet, refusal))
        return false;
    if (has_number(packet, KV_HEADER_EXPECTED_SUBJECT, &expected)) {
        const struct stored *last = stream_last(stream, other != NULL ? other : packet->subject);
        uint64_t sequence = last != NULL ? last->sequence : 0;
        if (sequence != expected)
            return refuse_sequence(refusal, sequence);
    }
    if (has_number(packet, KV_HEADER_EXPECTED_STREAM, &expected) && expected != stream->last_sequence)
        return refuse_sequence(refusal, stream->last_sequence);
    return true;
}

/* A batch has written something before, and the subject before. */
static bool check_rollup(const struct stream *stream, const struct packet *packet, bool is_not_first,
                         bool is_written_before, struct refusal *refusal)
{
    const char *rollup = packet_header(packet, KV_HEADER_ROLLUP);

    if (rollup == NULL)
        return true;
    if (!stream_flag(stream, "allow_rollup_hdrs"))
        return refuse(refusal, 500, 10111, "rollup not permitted");
    if (strcmp(rollup, "sub") != 0 && strcmp(rollup, "all") != 0)
        return refuse(refusal, 500, 10111, "rollup value invalid: \"none\"");
    if (strcmp(rollup, "all") == 0 && is_not_first)
        return refuse(refusal, 500, 10111, "batch rollup all invalid");
    if (strcmp(rollup, "sub") == 0 && is_written_before)
        return refuse(refusal, 500, 10111, "batch rollup sub invalid");
    return true;
}

static bool check_size(const struct stream *stream, const struct packet *packet, struct refusal *refusal)
{
    int64_t most = stream_number(stream, "max_msg_size");

    if (most > 0 && packet_bytes(packet) > (size_t)most)
        return refuse(refusal, 400, 10054, "message size exceeds maximum allowed");
    return true;
}

/* With several messages of a key, a value has to live at least as long as the marker that it leaves. */
static void raise_ttl(const struct stream *stream, struct packet *packet)
{
    const char *ttl = packet_header(packet, KV_HEADER_TTL);
    int64_t least_s = stream_number(stream, "subject_delete_marker_ttl") / 1000000000;

    if (ttl == NULL || stream_number(stream, "max_msgs_per_subject") == 1 || atoll(ttl) >= least_s)
        return;
    packet_remove_header(packet, KV_HEADER_TTL);
    packet_add_header(packet, KV_HEADER_TTL, "%" PRId64, least_s);
}

/* --- Single messages ------------------------------------------------------------------------------- */

static struct packet *receive_single(struct stream *stream, struct packet *packet)
{
    struct refusal refusal = {0};
    const char *id = packet_header(packet, KV_HEADER_MSG_ID);
    const struct stored_id *known = NULL;
    char *reply = packet->reply;
    struct packet *answer;

    bool is_well = check_ttl(stream, packet, &refusal) && check_conditions(stream, packet, &refusal);
    if (is_well && id != NULL)
        known = stream_find_id(stream, id);
    is_well = is_well && (known != NULL || (check_rollup(stream, packet, false, false, &refusal) &&
                                            check_size(stream, packet, &refusal)));
    if (is_well && known == NULL && server_store_is_full(stream->server))
        is_well = refuse(&refusal, 503, 10023, "insufficient resources");
    if (!is_well || known != NULL) {
        answer =
            is_well ? answer_stored(stream, reply, known->sequence, true) : answer_refusal(stream, reply, &refusal);
        trace("server: %s %s: %s", stream->name, packet->subject, is_well ? "a duplicate" : refusal.text);
        packet_free(packet);
        return answer;
    }
    packet->reply = NULL;
    raise_ttl(stream, packet);
    struct stored *stored = stream_store(stream, packet);
    answer = answer_stored(stream, reply, stored->sequence, false);
    free(reply);
    server_use_room(stream->server);
    consumers_on_stored(stream);
    return answer;
}

/* --- Batches --------------------------------------------------------------------------------------- */

static struct batch **batch_find(struct stream *stream, const char *id)
{
    struct batch **place = &stream->batches;

    while (*place != NULL && strcmp((*place)->id, id) != 0)
        place = &(*place)->next;
    return place;
}

static void batch_drop(struct batch **place)
{
    struct batch *batch = *place;

    *place = batch->next;
    for (size_t i = 0; i < batch->count; i++) {
        if (batch->packets[i] != NULL)
            packet_free(batch->packets[i]);
    }
    free(batch->packets);
    free(batch->id);
    free(batch);
}

static void batches_drop_idle(struct stream *stream)
{
    for (struct batch **place = &stream->batches; *place != NULL;) {
        if (world_now_ns() - (*place)->touched_ns >= BATCH_IDLE_NS)
            batch_drop(place);
        else
            place = &(*place)->next;
    }
}

static bool batch_wrote(const struct batch *batch, size_t before, const char *subject)
{
    for (size_t i = 0; i < before; i++) {
        if (strcmp(batch->packets[i]->subject, subject) == 0)
            return true;
    }
    return false;
}

static bool batch_has_id(const struct batch *batch, size_t before, const char *id)
{
    for (size_t i = 0; i < before; i++) {
        const char *other = packet_header(batch->packets[i], KV_HEADER_MSG_ID);
        if (other != NULL && strcmp(other, id) == 0)
            return true;
    }
    return false;
}

/* The checks of one message at the commit, against the stream as it was before the batch. */
static bool batch_check(struct stream *stream, const struct batch *batch, size_t place, struct refusal *refusal)
{
    const struct packet *packet = batch->packets[place];
    const char *id = packet_header(packet, KV_HEADER_MSG_ID), *other = packet_header(packet, KV_HEADER_EXPECTED_OTHER);
    const char *subject = other != NULL ? other : packet->subject;
    uint64_t expected;

    if (!check_ttl(stream, packet, refusal))
        return false;
    if (id != NULL && (batch_has_id(batch, place, id) || stream_find_id(stream, id) != NULL))
        return refuse(refusal, 400, 10201, "atomic publish batch contains duplicate message id");
    if (has_number(packet, KV_HEADER_EXPECTED_STREAM, &expected)) {
        if (expected != stream->last_sequence + place)
            return refuse_sequence(refusal, stream->last_sequence + place);
        if (place > 0)
            return refuse(refusal, 400, 10164, "wrong last sequence");
    }
    if (!check_other(packet, refusal))
        return false;
    if (has_number(packet, KV_HEADER_EXPECTED_SUBJECT, &expected)) {
        const struct stored *last = stream_last(stream, subject);
        uint64_t sequence = last != NULL ? last->sequence : 0;
        if (batch_wrote(batch, place, subject))
            return refuse(refusal, 400, 10164, "wrong last sequence");
        if (sequence != expected)
            return refuse_sequence(refusal, sequence);
    }
    return check_rollup(stream, packet, place > 0, batch_wrote(batch, place, packet->subject), refusal) &&
           check_size(stream, packet, refusal);
}

/*
 * Store the messages, and set *last to the last sequence. Return false if the store is full in the middle: the server
 * then answers nothing, and what it has stored is there.
 */
static bool batch_store(struct stream *stream, struct batch *batch, uint64_t *last)
{
    for (size_t i = 0; i < batch->count; i++) {
        if (server_store_is_full(stream->server)) {
            trace("server: %s batch %s: message %zu: the store is full", stream->name, batch->id, i + 1);
            for (size_t stored = 1; stored <= i; stored++)
                stream->log.items[stream->log.count - stored]->is_of_part = true;
            stream_keep_rest(stream, batch->packets + i, batch->count - i);
            batch->count = 0;
            return false;
        }
        raise_ttl(stream, batch->packets[i]);
        *last = stream_store(stream, batch->packets[i])->sequence;
        batch->packets[i] = NULL;
        server_use_room(stream->server);
    }
    return true;
}

static struct packet *batch_commit(struct stream *stream, struct batch **place, const char *reply)
{
    struct batch *batch = *place;
    struct refusal refusal = {0};
    struct packet *answer = NULL;
    uint64_t last = 0;

    for (size_t i = 0; i < batch->count; i++) {
        if (!batch_check(stream, batch, i, &refusal)) {
            trace("server: %s batch %s: message %zu: %s", stream->name, batch->id, i + 1, refusal.text);
            answer = answer_refusal(stream, reply, &refusal);
            batch_drop(place);
            return answer;
        }
    }
    if (!batch_store(stream, batch, &last))
        reply = NULL;
    if (reply != NULL)
        answer =
            packet_new_json(reply, json_pack("{s:s, s:I, s:s, s:I}", "stream", stream->name, "seq", (json_int_t)last,
                                             "batch", batch->id, "count", (json_int_t)batch->count));
    batch_drop(place);
    consumers_on_stored(stream);
    return answer;
}

/* Return the batch of a message, or NULL: it is refused. */
static struct batch **batch_of(struct stream *stream, const char *id, uint64_t sequence, struct refusal *refusal)
{
    struct batch **place = batch_find(stream, id);
    size_t count = 0;

    if (*place != NULL)
        return place;
    for (const struct batch *batch = stream->batches; batch != NULL; batch = batch->next)
        count++;
    if (sequence != 1 && sequence > BATCH_MESSAGES_MAX)
        refuse(refusal, 400, 10199, "atomic publish batch is too large: 1000");
    else if (sequence != 1)
        refuse(refusal, 400, 10176, "atomic publish batch is incomplete");
    else if (count + 1 > BATCHES_MAX)
        refuse(refusal, 429, 10211, "atomic publish too many inflight");
    if (refusal->err_code != 0)
        return NULL;
    *place = memory_new(sizeof(**place));
    (*place)->id = strdup(id);
    return place;
}

static struct packet *receive_in_batch(struct stream *stream, struct packet *packet, const char *id)
{
    struct refusal refusal = {0};
    uint64_t sequence = 0;
    bool commits = packet_header(packet, KV_HEADER_BATCH_COMMIT) != NULL;
    struct packet *answer = NULL;

    batches_drop_idle(stream);
    if (server_store_is_full(stream->server))
        refuse(&refusal, 503, 10023, "insufficient resources");
    else if (!check_size(stream, packet, &refusal))
        ;
    else if (!stream_flag(stream, "allow_atomic"))
        refuse(&refusal, 400, 10174, "atomic publish is disabled");
    else if (strlen(id) > 64)
        refuse(&refusal, 400, 10179, "atomic publish batch ID is invalid");
    else if (!has_number(packet, KV_HEADER_BATCH_SEQUENCE, &sequence))
        refuse(&refusal, 400, 10175, "atomic publish sequence is missing");
    struct batch **place = refusal.err_code == 0 ? batch_of(stream, id, sequence, &refusal) : NULL;
    if (place != NULL && sequence != (*place)->count + 1) {
        batch_drop(place);
        refuse(&refusal, 400, 10176, "atomic publish batch is incomplete");
    } else if (place != NULL && sequence > BATCH_MESSAGES_MAX) {
        batch_drop(place);
        refuse(&refusal, 400, 10199, "atomic publish batch is too large: 1000");
    }
    if (refusal.err_code != 0) {
        answer = answer_refusal(stream, packet->reply, &refusal);
        packet_free(packet);
        return answer;
    }
    struct batch *batch = *place;
    char *reply = packet->reply;
    packet->reply = NULL;
    batch->packets = memory_grow(batch->packets, batch->count, sizeof(*batch->packets));
    batch->packets[batch->count++] = packet;
    batch->touched_ns = world_now_ns();
    if (commits)
        answer = batch_commit(stream, place, reply);
    else if (reply != NULL)
        answer = packet_new(reply, NULL, "", 0);
    free(reply);
    return answer;
}

struct packet *publish_receive(struct stream *stream, struct packet *packet)
{
    const char *batch_id = packet_header(packet, KV_HEADER_BATCH_ID);

    stream_begin_operation(stream);
    return batch_id != NULL ? receive_in_batch(stream, packet, batch_id) : receive_single(stream, packet);
}
