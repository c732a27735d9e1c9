#include "tests/fault/trial.h"

#include <stdio.h>
#include <string.h>

/* What a kind writes: under prefix.key. */
struct part {
    const char *key, *operation, *value;
};

struct kind {
    const char *name;
    unsigned messages, acks;
    const char *contested; /* the key that interference writes */
    const char *refusal;   /* the code when interference came first; NULL: it has no condition */
    struct part parts[4];
};

static const struct kind kinds[TRIAL_KINDS] = {
    [TRIAL_PUT] = {"kv.put", 1, 1, "a", NULL, {{"a", "put", "mine"}}},
    [TRIAL_CREATE] = {"kv.create", 1, 1, "a", "already_exists", {{"a", "put", "mine"}}},
    [TRIAL_CREATE_OVER_MARKER] = {"kv.create over a marker", 1, 1, "a", "already_exists", {{"a", "put", "mine"}}},
    [TRIAL_UPDATE] = {"kv.update", 1, 1, "a", "conflict", {{"a", "put", "mine"}}},
    [TRIAL_DELETE] = {"kv.delete", 1, 1, "a", NULL, {{"a", "DEL", ""}}},
    [TRIAL_DELETE_AT_REVISION] = {"kv.delete at a revision", 1, 1, "a", "conflict", {{"a", "DEL", ""}}},
    [TRIAL_PURGE] = {"kv.purge", 1, 1, "a", NULL, {{"a", "PURGE", ""}}},
    [TRIAL_PURGE_AT_REVISION] = {"kv.purge at a revision", 1, 1, "a", "conflict", {{"a", "PURGE", ""}}},
    [TRIAL_BULK_PUT] =
        {"bulk.put", 3, 3, "a", NULL, {{"a", "put", "mine"}, {"b", "put", "mine"}, {"f", "put", "mine"}}},
    [TRIAL_TRANSACTION] =
        {"txn.commit", 3, 1, "c", "conflict", {{"a", "put", "mine"}, {"b", "put", "mine"}, {"f", "DEL", ""}}},
    [TRIAL_TRANSACTION_OF_MANY_CHECKS] =
        {"txn.commit of many checks", 2, 1, "d", "conflict", {{"a", "put", "mine"}, {"b", "put", "mine"}}},
};

const char *trial_name(enum trial_kind kind)
{
    return kinds[kind].name;
}

unsigned trial_acks(enum trial_kind kind)
{
    return kinds[kind].acks;
}

unsigned trial_messages(enum trial_kind kind)
{
    return kinds[kind].messages;
}

unsigned trial_skip(enum trial_kind kind)
{
    /* The first one expects that nothing is there, and is told of the marker. */
    return kind == TRIAL_CREATE_OVER_MARKER ? 1 : 0;
}

/* --- The call -------------------------------------------------------------------------------------- */

static uint64_t put_base(const struct trial *trial, const char *key)
{
    return answer_revision(
        session_call(trial->stage->session, "kv.put", "['%s', '%s.%s', 'base']", trial->bucket, trial->prefix, key));
}

void trial_prepare(struct trial *trial, struct stage *stage, const char *bucket, enum trial_kind kind)
{
    static unsigned count;

    memset(trial, 0, sizeof(*trial));
    trial->stage = stage;
    trial->kind = kind;
    trial->bucket = bucket;
    snprintf(trial->prefix, sizeof(trial->prefix), "t%u", ++count);
    snprintf(trial->subject, sizeof(trial->subject), "$KV.%s.%s.>", bucket, trial->prefix);
    if (kind != TRIAL_CREATE)
        trial->before = put_base(trial, "a");
    if (kind == TRIAL_CREATE_OVER_MARKER)
        assert_ok(session_call(stage->session, "kv.delete", "['%s', '%s.a']", bucket, trial->prefix));
    if (kind == TRIAL_TRANSACTION || kind == TRIAL_TRANSACTION_OF_MANY_CHECKS) {
        trial->checked[0] = put_base(trial, "c");
        trial->checked[1] = put_base(trial, "d");
        trial->checked[2] = put_base(trial, "e");
    }
}

void trial_send(struct trial *trial)
{
    struct session *session = trial->stage->session;
    const char *bucket = trial->bucket, *key = trial->prefix;
    unsigned long long before = trial->before;
    const uint64_t *checked = trial->checked;

    switch (trial->kind) {
    case TRIAL_PUT:
        trial->msgid = session_send(session, "kv.put", "['%s', '%s.a', 'mine']", bucket, key);
        break;
    case TRIAL_CREATE:
    case TRIAL_CREATE_OVER_MARKER:
        trial->msgid = session_send(session, "kv.create", "['%s', '%s.a', 'mine']", bucket, key);
        break;
    case TRIAL_UPDATE:
        trial->msgid = session_send(session, "kv.update", "['%s', '%s.a', 'mine', %llu]", bucket, key, before);
        break;
    case TRIAL_DELETE:
        trial->msgid = session_send(session, "kv.delete", "['%s', '%s.a']", bucket, key);
        break;
    case TRIAL_DELETE_AT_REVISION:
        trial->msgid = session_send(session, "kv.delete", "['%s', '%s.a', {'revision': %llu}]", bucket, key, before);
        break;
    case TRIAL_PURGE:
        trial->msgid = session_send(session, "kv.purge", "['%s', '%s.a']", bucket, key);
        break;
    case TRIAL_PURGE_AT_REVISION:
        trial->msgid = session_send(session, "kv.purge", "['%s', '%s.a', {'revision': %llu}]", bucket, key, before);
        break;
    case TRIAL_BULK_PUT:
        trial->msgid = session_send(session, "bulk.put", "['%s', {'%s.a': 'mine', '%s.b': 'mine', '%s.f': 'mine'}]",
                                    bucket, key, key, key);
        break;
    case TRIAL_TRANSACTION:
        trial->msgid = session_send(session, "txn.commit",
                                    "['%s', [['%s.c', %llu]], [['put', '%s.a', 'mine'], ['create', '%s.b', 'mine'], "
                                    "['delete', '%s.f']]]",
                                    bucket, key, (unsigned long long)checked[0], key, key, key);
        break;
    case TRIAL_TRANSACTION_OF_MANY_CHECKS:
        trial->msgid = session_send(session, "txn.commit",
                                    "['%s', [['%s.c', %llu], ['%s.d', %llu], ['%s.e', %llu]], "
                                    "[['put', '%s.a', 'mine'], ['create', '%s.b', 'mine']]]",
                                    bucket, key, (unsigned long long)checked[0], key, (unsigned long long)checked[1],
                                    key, (unsigned long long)checked[2], key, key);
        break;
    case TRIAL_KINDS:
        break;
    }
}

void trial_send_and_lose_acks(struct trial *trial)
{
    unsigned acks = trial_acks(trial->kind);

    proxy_arm(trial->stage->proxy, (struct proxy_fault){.kind = PROXY_DROP_ACK,
                                                        .subject = trial->subject,
                                                        .skip = trial_skip(trial->kind),
                                                        .count = acks,
                                                        .then_hold = true});
    trial_send(trial);
    wait_until(proxy_strikes(trial->stage->proxy) == acks, "the lost ack");
}

void trial_wait(struct trial *trial)
{
    trial->answer = session_wait(trial->stage->session, trial->msgid);
}

void trial_interfere(struct trial *trial)
{
    const char *key = format_text("%s.%s", trial->prefix, kinds[trial->kind].contested);

    trial->other = nats_put(trial->stage->nats, trial->bucket, key, "other");
}

void trial_overwrite(struct trial *trial)
{
    for (const struct part *part = kinds[trial->kind].parts; part->key != NULL; part++)
        nats_put(trial->stage->nats, trial->bucket, format_text("%s.%s", trial->prefix, part->key), "other");
}

/* --- What must be stored --------------------------------------------------------------------------- */

/* The answered revision of one of the parts. */
static uint64_t answered_revision(const struct trial *trial, unsigned index)
{
    const char *key = kinds[trial->kind].parts[index].key;

    if (trial->kind == TRIAL_TRANSACTION || trial->kind == TRIAL_TRANSACTION_OF_MANY_CHECKS)
        return number_at(trial->answer->result, format_text("%u", index));
    if (trial->kind != TRIAL_BULK_PUT)
        return number_at(trial->answer->result, "");
    const char *name = format_text("%s.%s", trial->prefix, key);
    for (uint32_t i = 0; i < trial->answer->result->via.map.size; i++) {
        const msgpack_object_kv *member = &trial->answer->result->via.map.ptr[i];
        if (member->key.via.str.size == strlen(name) && memcmp(member->key.via.str.ptr, name, strlen(name)) == 0)
            return number_at(&member->val, "");
    }
    ck_abort_msg("no answer for %s: %s", name, answer_text(trial->answer));
    return 0;
}

static unsigned count_part(const struct trial *trial, const struct stream_log *log, unsigned index, uint64_t *revision)
{
    const struct part *part = &kinds[trial->kind].parts[index];

    return log_count(log, format_text("%s.%s", trial->prefix, part->key), part->operation, part->value, revision);
}

static void expect_stored_once(const struct trial *trial, const struct stream_log *log)
{
    const struct kind *kind = &kinds[trial->kind];

    for (unsigned i = 0; kind->parts[i].key != NULL; i++) {
        uint64_t stored, answered = answered_revision(trial, i);
        unsigned count = count_part(trial, log, i, &stored);
        ck_assert_msg(count == 1 && stored == answered,
                      "%s: %s.%s is stored %u times, at revision %llu; answered %llu. The stream:\n%s", kind->name,
                      trial->prefix, kind->parts[i].key, count, (unsigned long long)stored,
                      (unsigned long long)answered, log_text(log));
    }
}

static void expect_not_stored(const struct trial *trial, const struct stream_log *log)
{
    const struct kind *kind = &kinds[trial->kind];

    for (unsigned i = 0; kind->parts[i].key != NULL; i++) {
        uint64_t stored;
        ck_assert_msg(count_part(trial, log, i, &stored) == 0, "%s: answered %s, but %s.%s is stored. The stream:\n%s",
                      kind->name, answer_text(trial->answer), trial->prefix, kind->parts[i].key, log_text(log));
    }
}

void trial_expect_once(const struct trial *trial)
{
    struct stream_log log = nats_read_log(trial->stage->nats, trial->bucket);

    ck_assert_msg(strcmp(answer_code(trial->answer), "ok") == 0, "%s: %s. The stream:\n%s", kinds[trial->kind].name,
                  answer_text(trial->answer), log_text(&log));
    expect_stored_once(trial, &log);
}

void trial_expect_once_or_refused(const struct trial *trial)
{
    struct stream_log log = nats_read_log(trial->stage->nats, trial->bucket);
    const struct kind *kind = &kinds[trial->kind];

    if (kind->refusal == NULL || trial->other == 0) {
        trial_expect_once(trial);
        return;
    }
    ck_assert_msg(strcmp(answer_code(trial->answer), kind->refusal) == 0, "%s: %s is wanted: %s. The stream:\n%s",
                  kind->name, kind->refusal, answer_text(trial->answer), log_text(&log));
    ck_assert_str_ne(answer_outcome(trial->answer), "unknown");
    ck_assert_uint_eq(number_at(trial->answer->error, "revision"), trial->other);
    ck_assert_str_eq(text_at(trial->answer->error, "key"), format_text("%s.%s", trial->prefix, kind->contested));
    expect_not_stored(trial, &log);
}

/* A revision, or an error that says 'unknown'. */
static bool is_done_or_unknown(const msgpack_object *error, const msgpack_object *result)
{
    if (error->type == MSGPACK_OBJECT_NIL)
        return result->type == MSGPACK_OBJECT_POSITIVE_INTEGER || result->type == MSGPACK_OBJECT_ARRAY;
    return find_at(error, "outcome") != NULL && strcmp(text_at(error, "outcome"), "unknown") == 0;
}

static bool all_are_done_or_unknown(const struct answer *answer)
{
    static const msgpack_object nil = {.type = MSGPACK_OBJECT_NIL};

    if (answer->error->type != MSGPACK_OBJECT_NIL || answer->result->type != MSGPACK_OBJECT_MAP)
        return is_done_or_unknown(answer->error, answer->result);
    for (uint32_t i = 0; i < answer->result->via.map.size; i++) {
        const msgpack_object *value = &answer->result->via.map.ptr[i].val;
        if (!is_done_or_unknown(value->type == MSGPACK_OBJECT_MAP ? value : &nil, value))
            return false;
    }
    return true;
}

void trial_expect_others_kept(const struct trial *trial)
{
    struct stream_log log = nats_read_log(trial->stage->nats, trial->bucket);
    const struct kind *kind = &kinds[trial->kind];

    for (const struct part *part = kind->parts; part->key != NULL; part++) {
        uint64_t stored;
        ck_assert_msg(log_count(&log, format_text("%s.%s", trial->prefix, part->key), "put", "other", &stored) == 1,
                      "%s: %s.%s of others was overwritten; answered %s. The stream:\n%s", kind->name, trial->prefix,
                      part->key, answer_text(trial->answer), log_text(&log));
    }
    ck_assert_msg(all_are_done_or_unknown(trial->answer), "%s: it was done, and the answer is %s", kind->name,
                  answer_text(trial->answer));
}

void trial_expect_truth(const struct trial *trial)
{
    struct stream_log log = nats_read_log(trial->stage->nats, trial->bucket);
    const struct kind *kind = &kinds[trial->kind];
    const char *code = answer_code(trial->answer);

    if (strcmp(code, "ok") == 0) {
        expect_stored_once(trial, &log);
    } else if (strcmp(answer_outcome(trial->answer), "unknown") == 0) {
        for (unsigned i = 0; kind->parts[i].key != NULL; i++) {
            uint64_t stored;
            ck_assert_uint_le(count_part(trial, &log, i, &stored), 1);
        }
    } else {
        expect_not_stored(trial, &log);
    }
}
