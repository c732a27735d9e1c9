#include "daemon/store/write/inquiry.h"

#include "daemon/base/clock.h"
#include "daemon/store/read/get.h"
#include "daemon/store/write/bucket_writes.h"
#include "daemon/store/write/ledger.h"

#include <stdlib.h>
#include <string.h>

#define ARENA_CHUNK_BYTES 2048u

enum inquiry_phase {
    INQUIRY_STARTING,
    INQUIRY_FAILED_AT_START, /* inquiry_start returns NULL */
    INQUIRY_READING,         /* messages */
    INQUIRY_ASKING_STREAM    /* for its state */
};

struct inquiry {
    struct store *store;
    struct inquiry_subject subject;
    inquiry_done_fn *done;
    void *arg;
    struct arena arena; /* of the read in progress */
    bool has_arena;
    struct get get;
    struct jetstream_call info;
    uint64_t checked_to; /* each sequence above L0 has a message up to this one */
    enum inquiry_phase phase;
    struct outcome_reading reading;
};

/* --- Copies of earlier calls ----------------------------------------------------------------------- */

struct journal_copy inquiry_describe_copy(const struct outcome *outcome, uint64_t lives_ms)
{
    return (struct journal_copy){.sent_ms = outcome->sent_ms,
                                 .connection = outcome->connection,
                                 .lives_ms = lives_ms,
                                 .identity = outcome->stream.identity,
                                 .last_sequence = outcome->stream.last_sequence,
                                 .keeper = outcome->stream.keeper,
                                 .window_ms = outcome->stream.window_ms};
}

void inquiry_inherit_copy(const struct store *store, struct outcome *outcome, const struct journal_copy *copy)
{
    outcome->sent_ms = copy->sent_ms;
    outcome->lives_ms = copy->lives_ms;
    outcome->stream = (struct stream_state){.identity = copy->identity,
                                            .last_sequence = copy->last_sequence,
                                            .keeper = copy->keeper,
                                            .window_ms = copy->window_ms};
    outcome->is_rebuilt = copy->is_of_last_run;
    /* The connections of an earlier run have ended with its process. */
    outcome_inherit(outcome, copy->connection > 0 ? copy->connection : connection_number(store->connection));
}

/* --- Asking for the id ----------------------------------------------------------------------------- */

enum outcome_step inquiry_step(const struct store *store, const struct outcome *outcome)
{
    return outcome_next(outcome, connection_earlier_are_closed(store->connection, outcome->connection));
}

enum outcome_step inquiry_prepare(const struct store *store, struct outcome *outcome, const struct request *request)
{
    if (!request_is_in_doubt(request) && outcome->copies > 0 && outcome->step != OUTCOME_SEND)
        outcome_refused(outcome);
    return inquiry_step(store, outcome);
}

enum connection_publish_result inquiry_ask(struct request *request, const char *subject, const char *id)
{
    const struct message_header headers[] = {{KV_HEADER_MSG_ID, id}, {KV_HEADER_ROLLUP, "none"}};

    return request_publish(request, subject, headers, sizeof(headers) / sizeof(headers[0]), "", 0);
}

bool inquiry_receive_answer(const struct store *store, const struct bucket *bucket, struct outcome *outcome,
                            struct request *request, const struct kv_ack *ack, enum outcome_verdict *verdict)
{
    struct jetstream_error failure = {ack->code, ack->err_code, ack->description};
    enum outcome_answer answer = OUTCOME_INCONCLUSIVE;

    if (ack->err_code == 0) {
        answer = OUTCOME_ID_KNOWN;
    } else if (ack->err_code == JETSTREAM_ROLLUP_FAILED) {
        answer = OUTCOME_ID_UNKNOWN;
    } else if (jetstream_temporary_trouble(&failure) != REQUEST_NO_TROUBLE) {
        request_set_trouble(request, jetstream_temporary_trouble(&failure));
        return false;
    }
    /* Only the first server process of this run has rebuilt its table from what the last run left in the stream. */
    outcome->is_rebuilt = outcome->is_rebuilt && connection_number(store->connection) == 1 &&
                          store->conf->nats.mode == CONF_NATS_EMBEDDED;
    *verdict = outcome_answered(outcome, answer, clock_boot_ms(), bucket_keeper(store, bucket));
    return true;
}

/* --- Reading --------------------------------------------------------------------------------------- */

static void inquiry_end_read(struct inquiry *inquiry)
{
    if (!inquiry->has_arena)
        return;
    inquiry->has_arena = false;
    get_cancel(&inquiry->get);
    arena_destroy(&inquiry->arena);
}

static void inquiry_free(struct inquiry *inquiry)
{
    inquiry_end_read(inquiry);
    bucket_release(inquiry->subject.bucket);
    free(inquiry);
}

static void inquiry_finish(struct inquiry *inquiry, const struct error *error)
{
    inquiry_done_fn *done = inquiry->done;
    void *arg = inquiry->arg;
    struct outcome_reading reading = inquiry->reading;
    struct error copy;

    if (inquiry->phase == INQUIRY_STARTING) {
        inquiry->phase = INQUIRY_FAILED_AT_START;
        return;
    }
    if (error != NULL)
        copy = *error;
    inquiry_free(inquiry);
    done(arg, error == NULL ? &reading : NULL, error != NULL ? &copy : NULL);
}

static void inquiry_read_message(struct inquiry *inquiry, uint64_t from_sequence, bool of_any_key, get_done_fn *done);

/* --- A key without a message ----------------------------------------------------------------------- */

/* The most messages that are read to see that none was removed. */
#define WALK_MAX 64u

/* Return whether less than half of this lifetime has passed since the write was sent. */
static bool inquiry_is_young(const struct inquiry *inquiry, uint64_t lives_ms)
{
    return lives_ms == 0 || clock_boot_ms() - inquiry->subject.outcome->sent_ms < lives_ms / 2;
}

/*
 * Return whether no message can have been removed. Only this daemon uses the embedded server, so nobody else can have
 * removed the key. But before the key was held, a write that expires sooner may have replaced the write in doubt.
 */
static bool inquiry_nothing_can_have_left(const struct inquiry *inquiry)
{
    const struct inquiry_subject *subject = &inquiry->subject;
    const struct outcome *outcome = subject->outcome;
    const struct store *store = inquiry->store;

    return store->conf->nats.mode == CONF_NATS_EMBEDDED && !outcome->is_inherited &&
           !bucket_has_removed_since(store, outcome->stream.removals, outcome->connection) &&
           inquiry_is_young(inquiry, ledger_shortest_ttl_ms(bucket_writes_ledger(subject->bucket))) &&
           inquiry_is_young(inquiry, subject->bucket->max_age_ms);
}

/* See outcome_reading. Writes of other keys do not matter, unlike in inquiry_nothing_can_have_left. */
static bool inquiry_is_undisturbed(const struct inquiry *inquiry)
{
    const struct outcome *outcome = inquiry->subject.outcome;
    const struct store *store = inquiry->store;
    /* A removal may still have been in progress when the copy was sent. */
    uint64_t lasts_ms = 2ull * store->conf->calls.max_timeout_ms;

    return outcome->is_rebuilt && inquiry_is_young(inquiry, outcome->lives_ms) &&
           inquiry_is_young(inquiry, inquiry->subject.bucket->max_age_ms) &&
           journal_nothing_removed_since(store->journal, outcome->sent_ms > lasts_ms ? outcome->sent_ms - lasts_ms : 0);
}

/* Read one message after the other, up to the last one. If a sequence has no message, its message was removed. */
static void on_inquiry_walked(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct inquiry *inquiry = arg;
    uint64_t last = inquiry->reading.stream.last_sequence;

    if (error != NULL) {
        inquiry_finish(inquiry, error);
        return;
    }
    bool is_next = entry != NULL && entry->revision == inquiry->checked_to + 1;
    inquiry->checked_to++;
    inquiry->reading.none_removed = is_next && inquiry->checked_to == last;
    if (is_next && inquiry->checked_to < last)
        inquiry_read_message(inquiry, inquiry->checked_to + 1, true, on_inquiry_walked);
    else
        inquiry_finish(inquiry, NULL);
}

/* Return whether the numbers of STREAM.INFO prove that every sequence above L0 has a message. */
static bool inquiry_has_no_holes(const struct inquiry *inquiry, json_t *info)
{
    json_t *state = json_object_get(info, "state");
    json_int_t first = json_integer_value(json_object_get(state, "first_seq"));
    json_int_t last = json_integer_value(json_object_get(state, "last_seq"));
    uint64_t before = inquiry->subject.outcome->stream.last_sequence;

    return first > 0 && (uint64_t)first <= before + 1 &&
           json_integer_value(json_object_get(state, "messages")) == last + 1 - first;
}

static void inquiry_look_for_holes(struct inquiry *inquiry, json_t *info)
{
    uint64_t before = inquiry->subject.outcome->stream.last_sequence, last = inquiry->reading.stream.last_sequence;

    inquiry->reading.none_removed = inquiry_nothing_can_have_left(inquiry) || inquiry_has_no_holes(inquiry, info);
    inquiry->checked_to = before;
    if (inquiry->reading.none_removed || last <= before || last - before > WALK_MAX)
        inquiry_finish(inquiry, NULL);
    else
        inquiry_read_message(inquiry, before + 1, true, on_inquiry_walked);
}

/* --- The stream ------------------------------------------------------------------------------------ */

static void on_inquiry_stream(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct inquiry *inquiry = arg;

    (void)err_code;
    inquiry->phase = INQUIRY_READING;
    if (answer == NULL) {
        inquiry_finish(inquiry, error);
        return;
    }
    stream_read_info(inquiry->store, answer, &inquiry->reading.stream);
    inquiry->reading.is_undisturbed = inquiry_is_undisturbed(inquiry);
    if (inquiry->reading.is_there)
        inquiry_finish(inquiry, NULL);
    else
        inquiry_look_for_holes(inquiry, answer);
}

static void inquiry_ask_stream(struct inquiry *inquiry)
{
    const struct inquiry_subject *subject = &inquiry->subject;

    inquiry->phase = INQUIRY_ASKING_STREAM;
    inquiry->info.request.limit = ledger_readings(bucket_writes_ledger(subject->bucket));
    inquiry->info.request.owner = subject->owner;
    jetstream_call(&inquiry->store->jetstream, &inquiry->info, "STREAM.INFO", subject->bucket->stream, NULL,
                   subject->deadline_ms, on_inquiry_stream, inquiry);
}

/* --- The key's messages ---------------------------------------------------------------------------- */

/* Read the first message of the key, or of any key, from this sequence on; 0: the key's last message. */
static void inquiry_read_message(struct inquiry *inquiry, uint64_t from_sequence, bool of_any_key, get_done_fn *done)
{
    const struct inquiry_subject *subject = &inquiry->subject;
    struct get *get = &inquiry->get;
    struct error error;

    inquiry_end_read(inquiry);
    if (!arena_init(&inquiry->arena, ARENA_CHUNK_BYTES)) {
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "out of memory");
        inquiry_finish(inquiry, &error);
        return;
    }
    inquiry->has_arena = true;
    inquiry->arena.owner = subject->owner;
    memset(get, 0, sizeof(*get));
    get->bucket_name = subject->bucket->name;
    get->key = subject->key;
    get->from_sequence = from_sequence;
    get->of_any_key = of_any_key;
    get->consistency = READ_LEADER;
    get->with_markers = true;
    get->deadline_ms = subject->deadline_ms;
    get->request.base.limit = ledger_readings(bucket_writes_ledger(subject->bucket));
    get->done = done;
    get->arg = inquiry;
    get_start(inquiry->store, &inquiry->arena, get);
}

static bool inquiry_is_ours(const struct inquiry *inquiry, const struct kv_entry *entry)
{
    const char *id = message_header(entry->message, KV_HEADER_MSG_ID);

    return id != NULL && strcmp(id, inquiry->subject.id) == 0;
}

/* The oldest message of the key. It is read after the others, so none of those was removed before they were read. */
static void on_inquiry_oldest(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct inquiry *inquiry = arg;
    const struct outcome *outcome = inquiry->subject.outcome;

    if (error != NULL) {
        inquiry_finish(inquiry, error);
        return;
    }
    inquiry->reading.reaches_back = entry != NULL && entry->revision <= outcome->stream.last_sequence;
    inquiry_ask_stream(inquiry);
}

static void on_inquiry_next(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct inquiry *inquiry = arg;
    struct outcome_reading *reading = &inquiry->reading;

    if (error != NULL) {
        inquiry_finish(inquiry, error);
        return;
    }
    if (entry != NULL && inquiry_is_ours(inquiry, entry)) {
        reading->is_ours_before = true;
        reading->our_sequence = entry->revision;
        inquiry_finish(inquiry, NULL);
        return;
    }
    if (entry != NULL && entry->revision < reading->sequence)
        inquiry_read_message(inquiry, entry->revision + 1, false, on_inquiry_next);
    else
        inquiry_read_message(inquiry, 1, false, on_inquiry_oldest);
}

static void on_inquiry_last(void *arg, const struct kv_entry *entry, const struct error *error)
{
    struct inquiry *inquiry = arg;
    const struct inquiry_subject *subject = &inquiry->subject;
    struct outcome_reading *reading = &inquiry->reading;

    if (error != NULL) {
        inquiry_finish(inquiry, error);
        return;
    }
    reading->is_there = entry != NULL;
    if (entry != NULL) {
        reading->sequence = entry->revision;
        reading->is_ours = inquiry_is_ours(inquiry, entry);
        reading->our_sequence = reading->is_ours ? entry->revision : 0;
    }
    if (reading->is_ours)
        inquiry_finish(inquiry, NULL);
    else if (outcome_wants_history(subject->outcome, reading, subject->bucket->history))
        inquiry_read_message(inquiry, subject->outcome->stream.last_sequence + 1, false, on_inquiry_next);
    else
        inquiry_ask_stream(inquiry);
}

/* --- Life ------------------------------------------------------------------------------------------ */

struct inquiry *inquiry_start(struct store *store, const struct inquiry_subject *subject, inquiry_done_fn *done,
                              void *arg)
{
    struct inquiry *inquiry = calloc(1, sizeof(*inquiry));

    if (inquiry == NULL)
        return NULL;
    inquiry->store = store;
    inquiry->subject = *subject;
    inquiry->done = done;
    inquiry->arg = arg;
    bucket_retain(subject->bucket);
    inquiry_read_message(inquiry, 0, false, on_inquiry_last);
    if (inquiry->phase == INQUIRY_FAILED_AT_START) {
        inquiry_free(inquiry);
        return NULL;
    }
    inquiry->phase = INQUIRY_READING;
    return inquiry;
}

void inquiry_cancel(struct inquiry *inquiry)
{
    if (inquiry == NULL)
        return;
    if (inquiry->phase == INQUIRY_ASKING_STREAM)
        jetstream_cancel(&inquiry->info);
    inquiry_free(inquiry);
}
