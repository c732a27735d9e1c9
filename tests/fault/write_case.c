#include "tests/fault/write_case.h"

#include <stdio.h>
#include <string.h>

/* One key that a kind writes: prefix.key. */
struct part {
    const char *key, *operation, *value;
};

struct kind {
    const char *name;
    unsigned messages, acks;
    const char *contested; /* the key that write_case_interfere writes */
    const char *refusal;   /* the code if the other write came first; NULL: the kind has no condition */
    struct part parts[4];
};

static const struct kind kinds[WRITE_CASE_KINDS] = {
    [WRITE_CASE_PUT] = {"kv.put", 1, 1, "a", NULL, {{"a", "put", "mine"}}},
    [WRITE_CASE_PUT_KEEPING_TTL] = {"kv.put with keep_ttl", 1, 1, "a", NULL, {{"a", "put", "mine"}}},
    [WRITE_CASE_CREATE] = {"kv.create", 1, 1, "a", "already_exists", {{"a", "put", "mine"}}},
    [WRITE_CASE_CREATE_OVER_MARKER] = {"kv.create over a marker", 1, 1, "a", "already_exists", {{"a", "put", "mine"}}},
    [WRITE_CASE_UPDATE] = {"kv.update", 1, 1, "a", "conflict", {{"a", "put", "mine"}}},
    [WRITE_CASE_DELETE] = {"kv.delete", 1, 1, "a", NULL, {{"a", "DEL", ""}}},
    [WRITE_CASE_DELETE_IF_EXISTS] = {"kv.delete if it exists", 1, 1, "a", NULL, {{"a", "DEL", ""}}},
    [WRITE_CASE_DELETE_AT_REVISION] = {"kv.delete at a revision", 1, 1, "a", "conflict", {{"a", "DEL", ""}}},
    [WRITE_CASE_PURGE] = {"kv.purge", 1, 1, "a", NULL, {{"a", "PURGE", ""}}},
    [WRITE_CASE_PURGE_AT_REVISION] = {"kv.purge at a revision", 1, 1, "a", "conflict", {{"a", "PURGE", ""}}},
    [WRITE_CASE_INCREMENT] = {"kv.increment", 1, 1, "a", "not_an_integer", {{"a", "put", "42"}}},
    [WRITE_CASE_BULK_PUT] =
        {"bulk.put", 3, 3, "a", NULL, {{"a", "put", "mine"}, {"b", "put", "mine"}, {"f", "put", "mine"}}},
    [WRITE_CASE_TRANSACTION] =
        {"txn.commit", 3, 1, "c", "conflict", {{"a", "put", "mine"}, {"b", "put", "mine"}, {"f", "DEL", ""}}},
    [WRITE_CASE_TRANSACTION_OF_MANY_CHECKS] =
        {"txn.commit of many checks", 2, 1, "d", "conflict", {{"a", "put", "mine"}, {"b", "put", "mine"}}},
};

const char *write_case_name(enum write_case_kind kind)
{
    return kinds[kind].name;
}

unsigned write_case_acks(enum write_case_kind kind)
{
    return kinds[kind].acks;
}

unsigned write_case_messages(enum write_case_kind kind)
{
    return kinds[kind].messages;
}

unsigned write_case_skip(enum write_case_kind kind)
{
    /* The first publish expects that there is no message, and its answer names the marker. */
    return kind == WRITE_CASE_CREATE_OVER_MARKER ? 1 : 0;
}

/* --- The call -------------------------------------------------------------------------------------- */

static uint64_t write_case_put_base(const struct write_case *write_case, const char *key)
{
    const char *value = write_case->kind == WRITE_CASE_INCREMENT ? "41" : "base";

    return revision_of(client_call(write_case->deployment->client, "kv.put", "['%s', '%s.%s', '%s']",
                                   write_case->bucket, write_case->prefix, key, value));
}

void write_case_prepare(struct write_case *write_case, struct deployment *deployment, const char *bucket,
                        enum write_case_kind kind)
{
    static unsigned count;

    memset(write_case, 0, sizeof(*write_case));
    write_case->deployment = deployment;
    write_case->kind = kind;
    write_case->bucket = bucket;
    snprintf(write_case->prefix, sizeof(write_case->prefix), "t%u", ++count);
    snprintf(write_case->subject, sizeof(write_case->subject), "$KV.%s.%s.>", bucket, write_case->prefix);
    if (kind != WRITE_CASE_CREATE)
        write_case->before = write_case_put_base(write_case, "a");
    if (kind == WRITE_CASE_CREATE_OVER_MARKER)
        assert_ok(client_call(deployment->client, "kv.delete", "['%s', '%s.a']", bucket, write_case->prefix));
    if (kind == WRITE_CASE_TRANSACTION || kind == WRITE_CASE_TRANSACTION_OF_MANY_CHECKS) {
        write_case->checked[0] = write_case_put_base(write_case, "c");
        write_case->checked[1] = write_case_put_base(write_case, "d");
        write_case->checked[2] = write_case_put_base(write_case, "e");
    }
}

void write_case_send(struct write_case *write_case)
{
    struct client *client = write_case->deployment->client;
    const char *bucket = write_case->bucket, *key = write_case->prefix;
    unsigned long long before = write_case->before;
    const uint64_t *checked = write_case->checked;

    switch (write_case->kind) {
    case WRITE_CASE_PUT:
        write_case->msgid = client_send(client, "kv.put", "['%s', '%s.a', 'mine']", bucket, key);
        break;
    case WRITE_CASE_PUT_KEEPING_TTL:
        write_case->msgid = client_send(client, "kv.put", "['%s', '%s.a', 'mine', {'keep_ttl': true}]", bucket, key);
        break;
    case WRITE_CASE_CREATE:
    case WRITE_CASE_CREATE_OVER_MARKER:
        write_case->msgid = client_send(client, "kv.create", "['%s', '%s.a', 'mine']", bucket, key);
        break;
    case WRITE_CASE_UPDATE:
        write_case->msgid = client_send(client, "kv.update", "['%s', '%s.a', 'mine', %llu]", bucket, key, before);
        break;
    case WRITE_CASE_DELETE:
        write_case->msgid = client_send(client, "kv.delete", "['%s', '%s.a']", bucket, key);
        break;
    case WRITE_CASE_DELETE_IF_EXISTS:
        write_case->msgid = client_send(client, "kv.delete", "['%s', '%s.a', {'if_exists': true}]", bucket, key);
        break;
    case WRITE_CASE_DELETE_AT_REVISION:
        write_case->msgid = client_send(client, "kv.delete", "['%s', '%s.a', {'revision': %llu}]", bucket, key, before);
        break;
    case WRITE_CASE_PURGE:
        write_case->msgid = client_send(client, "kv.purge", "['%s', '%s.a']", bucket, key);
        break;
    case WRITE_CASE_PURGE_AT_REVISION:
        write_case->msgid = client_send(client, "kv.purge", "['%s', '%s.a', {'revision': %llu}]", bucket, key, before);
        break;
    case WRITE_CASE_INCREMENT:
        write_case->msgid = client_send(client, "kv.increment", "['%s', '%s.a', 1]", bucket, key);
        break;
    case WRITE_CASE_BULK_PUT:
        write_case->msgid = client_send(client, "bulk.put", "['%s', {'%s.a': 'mine', '%s.b': 'mine', '%s.f': 'mine'}]",
                                        bucket, key, key, key);
        break;
    case WRITE_CASE_TRANSACTION:
        write_case->msgid =
            client_send(client, "txn.commit",
                        "['%s', [['%s.c', %llu]], [['put', '%s.a', 'mine'], ['create', '%s.b', 'mine'], "
                        "['delete', '%s.f']]]",
                        bucket, key, (unsigned long long)checked[0], key, key, key);
        break;
    case WRITE_CASE_TRANSACTION_OF_MANY_CHECKS:
        write_case->msgid = client_send(client, "txn.commit",
                                        "['%s', [['%s.c', %llu], ['%s.d', %llu], ['%s.e', %llu]], "
                                        "[['put', '%s.a', 'mine'], ['create', '%s.b', 'mine']]]",
                                        bucket, key, (unsigned long long)checked[0], key,
                                        (unsigned long long)checked[1], key, (unsigned long long)checked[2], key, key);
        break;
    case WRITE_CASE_KINDS:
        break;
    }
}

void write_case_send_and_lose_acks(struct write_case *write_case)
{
    unsigned acks = write_case_acks(write_case->kind);

    proxy_arm(write_case->deployment->proxy, (struct proxy_fault){.kind = PROXY_DROP_ACK,
                                                                  .subject = write_case->subject,
                                                                  .skip = write_case_skip(write_case->kind),
                                                                  .count = acks,
                                                                  .then_hold = true});
    write_case_send(write_case);
    wait_until(proxy_strikes(write_case->deployment->proxy) == acks, "the lost ack");
}

void write_case_wait(struct write_case *write_case)
{
    write_case->answer = client_peek(write_case->deployment->client, write_case->msgid);
}

void write_case_interfere(struct write_case *write_case)
{
    const char *key = format_text("%s.%s", write_case->prefix, kinds[write_case->kind].contested);

    write_case->other = nats_put(write_case->deployment->nats, write_case->bucket, key, "other");
}

void write_case_overwrite(struct write_case *write_case)
{
    for (const struct part *part = kinds[write_case->kind].parts; part->key != NULL; part++)
        nats_put(write_case->deployment->nats, write_case->bucket, format_text("%s.%s", write_case->prefix, part->key),
                 "other");
}

/* --- What must be stored --------------------------------------------------------------------------- */

/* Return the revision that the answer has for one of the keys. */
static uint64_t write_case_answered_revision(const struct write_case *write_case, unsigned index)
{
    const char *key = kinds[write_case->kind].parts[index].key;

    if (write_case->kind == WRITE_CASE_TRANSACTION || write_case->kind == WRITE_CASE_TRANSACTION_OF_MANY_CHECKS)
        return number_at(&write_case->answer->result, format_text("%u", index));
    if (write_case->kind == WRITE_CASE_INCREMENT)
        return number_at(&write_case->answer->result, "1");
    if (write_case->kind != WRITE_CASE_BULK_PUT)
        return number_at(&write_case->answer->result, "");
    const char *name = format_text("%s.%s", write_case->prefix, key);
    for (uint32_t i = 0; i < write_case->answer->result.via.map.size; i++) {
        const msgpack_object_kv *member = &write_case->answer->result.via.map.ptr[i];
        if (member->key.via.str.size == strlen(name) && memcmp(member->key.via.str.ptr, name, strlen(name)) == 0)
            return number_at(&member->val, "revision");
    }
    ck_abort_msg("no answer for %s: %s", name, answer_text(write_case->answer));
    return 0;
}

static unsigned write_case_count_part(const struct write_case *write_case, const struct stream_log *log, unsigned index,
                                      uint64_t *revision)
{
    const struct part *part = &kinds[write_case->kind].parts[index];

    return stream_log_count(log, format_text("%s.%s", write_case->prefix, part->key), part->operation, part->value,
                            revision);
}

static void write_case_expect_stored_once(const struct write_case *write_case, const struct stream_log *log)
{
    const struct kind *kind = &kinds[write_case->kind];

    for (unsigned i = 0; kind->parts[i].key != NULL; i++) {
        uint64_t stored, answered = write_case_answered_revision(write_case, i);
        unsigned count = write_case_count_part(write_case, log, i, &stored);
        ck_assert_msg(count == 1 && stored == answered,
                      "%s: %s.%s is stored %u times, at revision %llu; answered %llu. The stream:\n%s", kind->name,
                      write_case->prefix, kind->parts[i].key, count, (unsigned long long)stored,
                      (unsigned long long)answered, stream_log_text(log));
    }
}

static void write_case_expect_not_stored(const struct write_case *write_case, const struct stream_log *log)
{
    const struct kind *kind = &kinds[write_case->kind];

    for (unsigned i = 0; kind->parts[i].key != NULL; i++) {
        uint64_t stored;
        ck_assert_msg(write_case_count_part(write_case, log, i, &stored) == 0,
                      "%s: answered %s, but %s.%s is stored. The stream:\n%s", kind->name,
                      answer_text(write_case->answer), write_case->prefix, kind->parts[i].key, stream_log_text(log));
    }
}

void write_case_expect_once(const struct write_case *write_case)
{
    struct stream_log log = stream_log_read(write_case->deployment->nats, write_case->bucket);

    ck_assert_msg(strcmp(answer_code(write_case->answer), "ok") == 0, "%s: %s. The stream:\n%s",
                  kinds[write_case->kind].name, answer_text(write_case->answer), stream_log_text(&log));
    write_case_expect_stored_once(write_case, &log);
}

void write_case_expect_once_or_refused(const struct write_case *write_case)
{
    struct stream_log log = stream_log_read(write_case->deployment->nats, write_case->bucket);
    const struct kind *kind = &kinds[write_case->kind];

    if (kind->refusal == NULL || write_case->other == 0) {
        write_case_expect_once(write_case);
        return;
    }
    ck_assert_msg(strcmp(answer_code(write_case->answer), kind->refusal) == 0, "%s: %s is wanted: %s. The stream:\n%s",
                  kind->name, kind->refusal, answer_text(write_case->answer), stream_log_text(&log));
    ck_assert_str_ne(answer_outcome(write_case->answer), "unknown");
    ck_assert_uint_eq(number_at(&write_case->answer->error, "revision"), write_case->other);
    ck_assert_str_eq(text_at(&write_case->answer->error, "key"),
                     format_text("%s.%s", write_case->prefix, kind->contested));
    write_case_expect_not_stored(write_case, &log);
}

/* Return whether it is a revision, or an error of outcome "unknown". */
static bool write_case_is_done_or_unknown(const msgpack_object *error, const msgpack_object *result)
{
    if (error->type == MSGPACK_OBJECT_NIL)
        return result != NULL &&
               (result->type == MSGPACK_OBJECT_POSITIVE_INTEGER || result->type == MSGPACK_OBJECT_ARRAY);
    return find_at(error, "outcome") != NULL && strcmp(text_at(error, "outcome"), "unknown") == 0;
}

static bool write_case_all_are_done_or_unknown(const struct answer *answer)
{
    static const msgpack_object nil = {.type = MSGPACK_OBJECT_NIL};

    if (answer->error.type != MSGPACK_OBJECT_NIL || answer->result.type != MSGPACK_OBJECT_MAP)
        return write_case_is_done_or_unknown(&answer->error, &answer->result);
    for (uint32_t i = 0; i < answer->result.via.map.size; i++) {
        const msgpack_object *value = &answer->result.via.map.ptr[i].val;
        const msgpack_object *error = find_at(value, "error");
        if (!write_case_is_done_or_unknown(error != NULL ? error : &nil, find_at(value, "revision")))
            return false;
    }
    return true;
}

void write_case_expect_others_kept(const struct write_case *write_case)
{
    struct stream_log log = stream_log_read(write_case->deployment->nats, write_case->bucket);
    const struct kind *kind = &kinds[write_case->kind];

    for (const struct part *part = kind->parts; part->key != NULL; part++) {
        uint64_t stored;
        ck_assert_msg(
            stream_log_count(&log, format_text("%s.%s", write_case->prefix, part->key), "put", "other", &stored) == 1,
            "%s: %s.%s of others was overwritten; answered %s. The stream:\n%s", kind->name, write_case->prefix,
            part->key, answer_text(write_case->answer), stream_log_text(&log));
    }
    ck_assert_msg(write_case_all_are_done_or_unknown(write_case->answer), "%s: it was done, and the answer is %s",
                  kind->name, answer_text(write_case->answer));
}

void write_case_expect_truth(const struct write_case *write_case)
{
    struct stream_log log = stream_log_read(write_case->deployment->nats, write_case->bucket);
    const struct kind *kind = &kinds[write_case->kind];
    const char *code = answer_code(write_case->answer);

    if (strcmp(code, "ok") == 0) {
        write_case_expect_stored_once(write_case, &log);
    } else if (strcmp(answer_outcome(write_case->answer), "unknown") == 0) {
        for (unsigned i = 0; kind->parts[i].key != NULL; i++) {
            uint64_t stored;
            ck_assert_uint_le(write_case_count_part(write_case, &log, i, &stored), 1);
        }
    } else {
        write_case_expect_not_stored(write_case, &log);
    }
}
