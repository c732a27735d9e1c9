#include "tests/sim/judge.h"

#include "tests/sim/memory.h"
#include "tests/sim/server.h"
#include "tests/sim/truth.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_NS INT64_C(1000000000)

/* calls.drain_timeout, for calls and then for leases. */
#define DRAIN_NS (20 * WORLD_SECOND)

/* The place of what is known of the bucket. */
#define OF_THE_BUCKET (CALL_KEYS_MAX + 1u)

void judge_fail(const struct call_record *record, const char *why)
{
    world_fail("client %u, call %u, %s of k%u with value %" PRIu64
               " (%.6f to %.6f s, answered %s%s%s, revision %" PRIu64 ", found %" PRIu64 "): %s",
               record->client, record->msgid, call_kind_name(record->kind), record->parts[0].key,
               record->parts[0].value, (double)record->begin_ns / 1e9, (double)record->end_ns / 1e9,
               record->result == CALL_OK ? "ok" : record->code,
               record->result == CALL_UNKNOWN ? ", outcome unknown" : "", record->text, record->parts[0].revision,
               record->parts[0].found, why);
}

bool judge_is_void(const struct judgement *judgement, const struct call_record *record)
{
    /* A cached read may be as old as the daemon's memory, which is read again when the server has started. */
    bool may_be_old = record->is_cached && !judgement->reads_memory;

    return judgement->was_set_back &&
           (judgement->promises_ns == UINT64_MAX ||
            record->begin_ns < judgement->promises_ns + (may_be_old ? judgement->staleness_ns : 0));
}

static bool part_is_true(const struct judgement *judgement, const struct call_part *part, size_t moment)
{
    const struct stored *stored = state_at(judgement, part->key, moment);

    if (!part->is_there)
        return !stored_is_put(stored);
    /* kv.get_json does not say the revision. */
    return stored_is_put(stored) && (part->revision == 0 || stored->sequence == part->revision) &&
           stored_value(stored) == part->found;
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

static void note_known(struct knowledge_list *known, uint64_t at_ns, const struct knowledge *after)
{
    known->items = memory_grow(known->items, known->count, sizeof(*known->items));
    known->items[known->count++] = (struct knowledge){at_ns, after->change, after->moment};
}

static void list_moments(struct judgement *judgement)
{
    const struct stream *stream = judgement->stream;

    judgement->after = memory_new((stream->log.count + 1) * sizeof(*judgement->after));
    for (size_t i = 0, next = 0; i < stream->change_count; i++) {
        const struct stored *last = stream->changes[i].last;
        for (next = next > i ? next : i + 1; !is_moment(stream, next); next++)
            ;
        if (last != NULL && last->sequence <= stream->log.count && judgement->after[last->sequence].moment == 0)
            judgement->after[last->sequence] = (struct knowledge){0, i + 1, next};
    }
}

/* Return the first purge of the stream while the call was in flight, or NULL. */
static const struct purge *find_purge(const struct stream *stream, const struct call_record *record)
{
    for (size_t i = 0; i < stream->purge_count; i++) {
        if (stream->purges[i].at_ns >= record->begin_ns && stream->purges[i].at_ns <= record->end_ns)
            return &stream->purges[i];
    }
    return NULL;
}

/* Who was told of a purge knows of each key that it was removed. */
static void note_purge(struct judgement *judgement, const struct call_record *record)
{
    const struct purge *purge = find_purge(judgement->stream, record);

    if (record->kind != CALL_PURGE_BUCKET || record->result != CALL_OK || purge == NULL)
        return;
    const struct knowledge after = {0, purge->moment, purge->moment};
    for (size_t key = 0; key <= OF_THE_BUCKET; key++)
        note_known(&judgement->known[record->client % judgement->host_count][key], record->end_ns, &after);
}

static void note_answer(struct judgement *judgement, const struct call_record *record)
{
    if (judge_is_void(judgement, record))
        return;
    note_purge(judgement, record);
    for (size_t i = 0; i < record->count; i++) {
        const struct stored *stored = find_sequence(judgement->stream, record->parts[i].revision);
        /* A key that has vanished is answered with a revision of another one. */
        if (stored == NULL || subject_key(stored->packet->subject) != record->parts[i].key)
            continue;
        const struct knowledge *after = &judgement->after[stored->sequence];
        struct knowledge_list *known = judgement->known[record->client % judgement->host_count];
        note_known(&known[record->parts[i].key], record->end_ns, after);
        note_known(&known[OF_THE_BUCKET], record->end_ns, after);
    }
}

static int compare_knowledge(const void *a, const void *b)
{
    const struct knowledge *one = a, *other = b;

    return one->at_ns < other->at_ns ? -1 : one->at_ns > other->at_ns;
}

/* What was known stays known. */
static void sort_knowledge(struct knowledge_list *known)
{
    if (known->count > 0)
        qsort(known->items, known->count, sizeof(*known->items), compare_knowledge);
    for (size_t i = 1; i < known->count; i++) {
        if (known->items[i].change < known->items[i - 1].change) {
            known->items[i].change = known->items[i - 1].change;
            known->items[i].moment = known->items[i - 1].moment;
        }
    }
}

void judge_prepare(struct judgement *judgement)
{
    if (judgement->promises_ns == UINT64_MAX) {
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
    for (size_t host = 0; host < judgement->host_count; host++) {
        for (size_t key = 0; key <= OF_THE_BUCKET; key++)
            sort_knowledge(&judgement->known[host][key]);
    }
}

void judge_finish(struct judgement *judgement)
{
    for (size_t key = 0; key <= CALL_KEYS_MAX; key++)
        free(judgement->changes[key].places);
    for (size_t host = 0; host < HOSTS_MAX; host++) {
        for (size_t key = 0; key <= OF_THE_BUCKET; key++)
            free(judgement->known[host][key].items);
    }
    free(judgement->written);
    free(judgement->after);
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

static bool part_condition_held(const struct judgement *judgement, const struct call_record *record,
                                const struct call_part *part, const struct stored *stored)
{
    const struct stored *before = state_before(judgement, part->key, stored);

    if (record->if_exists)
        return stored_is_put(before);
    if (record->kind == CALL_CREATE || (part->has_condition && part->expected == 0))
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
        judge_fail(record, "it is stored more than once");
    if (judge_is_void(judgement, record))
        return NULL;
    if (result == CALL_FAILED && count > 0)
        judge_fail(record, "it is stored, although the error says that it has no effect");
    if (result == CALL_OK && count == 0)
        judge_fail(record, "it is not stored, although it succeeded");
    if (count > 0 && subject_key(stored->packet->subject) != part->key)
        judge_fail(record, "it is stored under another key");
    if (count > 0 && stored->expires_ns != (record->ttl_s > 0 ? stored->time_ns + record->ttl_s * SECOND_NS : 0))
        judge_fail(record, "it is stored with another TTL");
    if (result == CALL_OK && stored->sequence != part->revision)
        judge_fail(record, "it is stored with another revision");
    if (result == CALL_OK && (stored->at_ns < record->begin_ns || stored->at_ns > record->end_ns))
        judge_fail(record, "it is stored at a time at which it was not in flight");
    /* The condition of one that was stored late was checked before. */
    if (count > 0 && !stored->is_late && !part_condition_held(judgement, record, part, stored))
        judge_fail(record, "it is stored, although its condition did not hold");
    return stored;
}

static void judge_marker(const struct judgement *judgement, const struct call_record *record,
                         const struct call_part *part)
{
    const struct stored *stored = find_sequence(judgement->stream, part->revision);

    if (judge_is_void(judgement, record) || call_part_result(record, part) != CALL_OK)
        return;
    if (record->if_exists && part->revision == 0) { /* nothing is written */
        if (!is_true_once(judgement, record, parts_are_true, moment_at(judgement->stream, record->begin_ns)))
            judge_fail(record, "it says that the key did not exist, although it was there all the time");
        return;
    }
    if (stored == NULL || stored_is_put(stored) || subject_key(stored->packet->subject) != part->key)
        judge_fail(record, "its revision is not that of a marker of its key");
    if (stored->at_ns < record->begin_ns || stored->at_ns > record->end_ns)
        judge_fail(record, "its marker is stored at a time at which it was not in flight");
    if (!part_condition_held(judgement, record, part, stored))
        judge_fail(record, "its marker is stored, although its condition did not hold");
}

/* The condition of a key that the transaction does not write held when it was stored. */
static void judge_check(const struct judgement *judgement, const struct call_record *record,
                        const struct call_part *part, const struct stored *stored)
{
    const struct knowledge *after = &judgement->after[stored->sequence];
    const struct stored *checked = after->change > 0 ? state_at(judgement, part->key, after->change - 1) : NULL;
    bool holds = part->expected == 0 ? !stored_is_put(checked) : checked != NULL && checked->sequence == part->expected;

    if (!stored->is_late && !holds)
        judge_fail(record, "it is stored, although the condition of a key that it does not write did not hold");
}

/* Return something that the transaction has stored, or NULL. */
static const struct stored *judge_operations(const struct judgement *judgement, const struct call_record *record)
{
    size_t there = 0, values = 0;
    const struct stored *stored, *any = NULL;
    bool is_part = false; /* its commit has stopped in the middle */

    for (size_t i = 0; i < record->count; i++) {
        if (record->parts[i].is_check)
            continue;
        if (record->parts[i].is_delete) {
            judge_marker(judgement, record, &record->parts[i]);
            continue;
        }
        stored = judge_value(judgement, record, &record->parts[i], record->result);
        values++;
        there += stored != NULL;
        any = stored != NULL ? stored : any;
        is_part = is_part || (stored != NULL && stored->is_of_part);
    }
    if (!judge_is_void(judgement, record) && there != 0 && there != values && !(is_part && record->result != CALL_OK))
        judge_fail(record, "a part of the transaction is stored");
    return any;
}

static void judge_commit(const struct judgement *judgement, const struct call_record *record)
{
    const struct stored *stored = judge_operations(judgement, record);
    uint64_t next = record->parts[0].revision;

    if (judge_is_void(judgement, record))
        return;
    for (size_t i = 0; i < record->count; i++) {
        const struct call_part *part = &record->parts[i];
        if (part->is_check && stored != NULL)
            judge_check(judgement, record, part, stored);
        if (record->result == CALL_OK && !part->is_check && part->revision != next++)
            judge_fail(record, "its revisions are not consecutive");
    }
}

/*
 * Return the moment of what was known on the client's host when the call began. key: or OF_THE_BUCKET. Beside other
 * hosts' writes, memory may have a part of an operation.
 */
static size_t known_before(const struct judgement *judgement, const struct call_record *record, size_t key)
{
    const struct knowledge_list *known = &judgement->known[record->client % judgement->host_count][key];
    size_t from = 0, to = known->count;

    while (from < to) {
        size_t middle = (from + to) / 2;
        if (known->items[middle].at_ns <= record->begin_ns)
            from = middle + 1;
        else
            to = middle;
    }
    if (from == 0)
        return 0;
    return judgement->reads_memory ? known->items[from - 1].moment : known->items[from - 1].change;
}

/* Return the moment from which on a read may have its state. key: of one key; OF_THE_BUCKET: of several. */
static size_t read_may_begin(const struct judgement *judgement, const struct call_record *record, size_t key)
{
    size_t known = known_before(judgement, record, key), oldest = 0;

    if (record->is_leader)
        return moment_at(judgement->stream, record->begin_ns);
    if (!judgement->reads_memory && !record->is_cached)
        return moment_at(judgement->stream,
                         record->begin_ns > judgement->lag_ns ? record->begin_ns - judgement->lag_ns : 0);
    if (!judgement->reads_memory && record->begin_ns > judgement->staleness_ns)
        oldest = moment_at(judgement->stream, record->begin_ns - judgement->staleness_ns);
    return known > oldest ? known : oldest;
}

/* In a cluster, a page may have keys from before a purge, of a follower that is behind, beside later ones. */
static bool may_mix_moments(const struct judgement *judgement, const struct call_record *record)
{
    const struct stream *stream = judgement->stream;

    if (record->kind != CALL_ENTRIES || judgement->lag_ns == 0)
        return false;
    for (size_t i = 0; i < stream->purge_count; i++) {
        if (stream->purges[i].at_ns + judgement->lag_ns >= record->begin_ns &&
            stream->purges[i].at_ns <= record->end_ns)
            return true;
    }
    return false;
}

void judge_read(const struct judgement *judgement, const struct call_record *record)
{
    moment_fn *is_true = record->kind == CALL_ENTRIES ? entries_are_true : parts_are_true;
    bool is_of_one = record->kind == CALL_GET || record->kind == CALL_GET_JSON || record->kind == CALL_WAIT;
    size_t key = is_of_one ? record->parts[0].key : OF_THE_BUCKET;

    if (record->result != CALL_OK)
        return;
    size_t begin = read_may_begin(judgement, record, key);
    /* Of a cached read, and of one from the leader, each key has its own moment. */
    bool has_one_moment = !record->is_cached && !record->is_leader && !may_mix_moments(judgement, record);
    if (has_one_moment && !is_true_once(judgement, record, is_true, begin))
        judge_fail(record, "at no moment of the call this was the state");
    for (size_t i = 0; !has_one_moment && i < record->count; i++) {
        struct call_record single = *record;
        begin = read_may_begin(judgement, record, record->parts[i].key);
        single.parts[0] = record->parts[i];
        single.count = 1;
        if (!is_true_once(judgement, &single, parts_are_true, begin))
            judge_fail(&single, "at no moment of the call this was the state of the key");
    }
}

static void judge_keys(const struct judgement *judgement, const struct call_record *record)
{
    if (record->result != CALL_OK)
        return;
    size_t end = moment_at(judgement->stream, record->end_ns);
    for (unsigned key = 0; key < judgement->load->keys; key++) {
        size_t begin = read_may_begin(judgement, record, key);
        bool is_found = (record->keys_found >> key & 1) != 0, is_possible = false;
        for (size_t moment = begin; moment <= end && !is_possible; moment++)
            is_possible = (record->is_cached || is_moment(judgement->stream, moment)) &&
                          stored_is_put(state_at(judgement, key, moment)) == is_found;
        if (!is_possible)
            judge_fail(record, is_found ? "it lists a key that was not there" : "it leaves out a key that was there");
    }
}

uint64_t judge_stopped_ns(const struct stop *stops, size_t count, uint64_t from_ns, uint64_t to_ns)
{
    uint64_t sum_ns = 0;

    for (size_t i = 0; i < count; i++) {
        uint64_t begin_ns = stops[i].begin_ns > from_ns ? stops[i].begin_ns : from_ns;
        uint64_t end_ns = stops[i].end_ns < to_ns ? stops[i].end_ns : to_ns;
        sum_ns += end_ns > begin_ns ? end_ns - begin_ns : 0;
    }
    return sum_ns;
}

/*
 * Return whether the faults of this world, and conditions, can cause the error. Without faults, nothing puts an outcome
 * in doubt, and a call is refused, or overtaken by writes.
 */
static bool error_is_possible(const struct judgement *judgement, const struct call_record *record, const char *code,
                              enum call_result result)
{
    enum call_kind kind = record->kind;
    bool may_have_been_stored = result == CALL_UNKNOWN; /* and then a copy of it was refused */
    bool may_exist = kind == CALL_CREATE || kind == CALL_COMMIT;
    bool may_conflict =
        kind == CALL_UPDATE || kind == CALL_COMMIT || (call_deletes(kind) && record->parts[0].has_condition);
    bool is_of_a_fault = strcmp(code, "unavailable") == 0 || strcmp(code, "deadline_exceeded") == 0 ||
                         strcmp(code, "resource_exhausted") == 0;
    /* What they have read is overwritten again and again, if a transaction has more conditions than operations. */
    bool may_be_overtaken = kind == CALL_ENTRIES || kind == CALL_COMMIT || record->if_exists;
    bool is_overtaken = (kind == CALL_ENTRIES && strcmp(code, "unavailable") == 0) ||
                        (may_be_overtaken && strcmp(code, "deadline_exceeded") == 0);

    /* Keys of a bulk call that it has not begun to write are unavailable. */
    bool is_cancelled = (call_may_be_cancelled(record) && strcmp(code, "deadline_exceeded") == 0) ||
                        (record->cancel != NULL && (kind == CALL_BULK_PUT || kind == CALL_BULK_DELETE) &&
                         strcmp(code, "unavailable") == 0);

    if (judgement->is_quiet && result == CALL_UNKNOWN)
        return false;
    return is_cancelled || (is_of_a_fault && (!judgement->is_quiet || is_overtaken)) ||
           (may_exist && strcmp(code, "already_exists") == 0) ||
           ((may_conflict || may_have_been_stored) && strcmp(code, "conflict") == 0);
}

static void judge_refusal(const struct judgement *judgement, const struct call_record *record, moment_fn *fails)
{
    if (record->is_refused && record->result == CALL_FAILED && !judge_is_void(judgement, record) &&
        !is_true_once(judgement, record, fails, moment_at(judgement->stream, record->begin_ns)))
        judge_fail(record, "it is refused, although its condition held all the time");
}

/*
 * Return whether the error says that there is no bucket, of which this host may not know better. The first host has
 * created it again.
 */
static bool is_of_missing_bucket(const struct judgement *judgement, const struct call_record *record, const char *code)
{
    bool is_of_first_host = record->client % judgement->host_count == 0;
    uint64_t known_ns = judgement->promises_ns + (is_of_first_host ? 0 : judgement->staleness_ns);

    return strcmp(code, "bucket_not_found") == 0 && record->begin_ns < known_ns &&
           record->end_ns >= server_lost_ns(judgement->stream->server);
}

/* The error of the call, and of a bulk call those of its keys. */
static void judge_errors(const struct judgement *judgement, const struct call_record *record)
{
    if (record->code[0] != '\0' && !error_is_possible(judgement, record, record->code, record->result) &&
        !is_of_missing_bucket(judgement, record, record->code))
        judge_fail(record, "this error is not one that this call can cause");
    for (size_t i = 0; i < record->count; i++) {
        const struct call_part *part = &record->parts[i];
        if (part->code[0] != '\0' && !error_is_possible(judgement, record, part->code, part->result) &&
            !is_of_missing_bucket(judgement, record, part->code))
            world_fail("client %u, call %u, %s: k%u with value %" PRIu64
                       " has the error %s%s, which this call cannot cause",
                       record->client, record->msgid, call_kind_name(record->kind), part->key, part->value, part->code,
                       part->result == CALL_UNKNOWN ? " (outcome unknown)" : "");
    }
}

static void judge_purge(const struct judgement *judgement, const struct call_record *record)
{
    const struct stored_list *log = &judgement->stream->log;
    bool was_empty = log->count == 0 || log->items[0]->at_ns >= record->begin_ns;

    if (record->result == CALL_OK && !judge_is_void(judgement, record) && !was_empty &&
        find_purge(judgement->stream, record) == NULL)
        judge_fail(record, "the bucket was not purged meanwhile, although it succeeded");
}

/* What was cancelled was not done. Only an earlier session may have sent it. */
static void judge_cancel(const struct call_record *record)
{
    const struct call_record *target = record->target;

    if (record->result != CALL_OK || record->parts[0].found == 0)
        return;
    if (strcmp(target->code, "deadline_exceeded") != 0)
        judge_fail(target, "it was cancelled, and has another answer");
    if (target->result != CALL_FAILED && !target->is_repeated)
        judge_fail(target, "it was cancelled, and its outcome is unknown");
}

uint64_t judge_allowed_ns(const struct judgement *judgement, uint64_t timeout_ns, uint64_t begin_ns, uint64_t end_ns,
                          bool is_lost)
{
    /* The clocks may be slow, by 1 %. */
    uint64_t allowed_ns = timeout_ns + timeout_ns / 100 + judgement->slack_ns +
                          judge_stopped_ns(judgement->stops, judgement->stop_count, begin_ns, end_ns);

    /* A daemon that ends reads no more calls, and keeps its sessions for so long. */
    return allowed_ns + (is_lost ? DRAIN_NS : 0);
}

static void judge_call(const struct judgement *judgement, const struct call_record *record)
{
    const struct call_part *part = &record->parts[0];

    if (record->kind == CALL_SETUP)
        return;
    if (record->result == CALL_RUNS)
        judge_fail(record, "it has no answer");
    if (record->end_ns - record->begin_ns >
        judge_allowed_ns(judgement, record->timeout_ns, record->begin_ns, record->end_ns, record->result == CALL_LOST))
        judge_fail(record, "its answer came long after its deadline");
    judge_errors(judgement, record);
    if (record->must_succeed && record->result != CALL_OK)
        judge_fail(record, "it has failed after the end of the faults");
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
        judge_refusal(judgement, record, condition_fails);
        break;
    case CALL_BULK_DELETE:
        for (size_t i = 0; i < record->count; i++)
            judge_marker(judgement, record, &record->parts[i]);
        break;
    case CALL_BULK_PUT:
        for (size_t i = 0; i < record->count; i++)
            judge_value(judgement, record, &record->parts[i], call_part_result(record, &record->parts[i]));
        break;
    case CALL_COMMIT:
        judge_commit(judgement, record);
        judge_refusal(judgement, record, commit_condition_fails);
        break;
    case CALL_GET:
    case CALL_GET_JSON:
    case CALL_BULK_GET:
    case CALL_ENTRIES:
        if (!judge_is_void(judgement, record))
            judge_read(judgement, record);
        break;
    case CALL_WAIT:
        if (!judge_is_void(judgement, record))
            judge_waiting_get(judgement, record);
        break;
    case CALL_KEYS:
        if (!judge_is_void(judgement, record))
            judge_keys(judgement, record);
        break;
    case CALL_INCREMENT:
        judge_increment(judgement, record);
        break;
    case CALL_PURGE_BUCKET:
        judge_purge(judgement, record);
        break;
    case CALL_CANCEL:
        judge_cancel(record);
        break;
    case CALL_SETUP:
    case CALL_KINDS:
        break;
    }
}

void judge_calls(const struct judgement *judgement, const struct client *client)
{
    if (judgement->daemons_stay && client_lost_sessions(client) > 0)
        world_fail("the daemon has ended a session, and was not ended itself");
    for (const struct call_record *record = client_records(client); record != NULL; record = record->next)
        judge_call(judgement, record);
}
