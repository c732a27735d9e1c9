#include "tests/sim/call.h"

#include "tests/sim/caller.h"
#include "tests/sim/client.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *call_kind_name(enum call_kind kind)
{
    static const char *const names[] = {
        [CALL_PUT] = "kv.put",
        [CALL_CREATE] = "kv.create",
        [CALL_UPDATE] = "kv.update",
        [CALL_DELETE] = "kv.delete",
        [CALL_PURGE] = "kv.purge",
        [CALL_GET] = "kv.get",
        [CALL_BULK_PUT] = "bulk.put",
        [CALL_BULK_GET] = "bulk.get",
        [CALL_COMMIT] = "txn.commit",
        [CALL_KEYS] = "kv.keys",
        [CALL_ENTRIES] = "kv.entries",
        [CALL_INCREMENT] = "kv.increment",
        [CALL_PURGE_BUCKET] = "bucket.purge",
        [CALL_BULK_DELETE] = "bulk.delete",
        [CALL_GET_JSON] = "kv.get_json",
        [CALL_WAIT] = "kv.get",
        [CALL_CANCEL] = "call.cancel",
        [CALL_SETUP] = "bucket.create",
    };

    return names[kind];
}

bool call_writes(enum call_kind kind)
{
    return kind <= CALL_PURGE || kind == CALL_BULK_PUT || kind == CALL_BULK_DELETE || kind == CALL_COMMIT ||
           kind == CALL_INCREMENT;
}

bool call_deletes(enum call_kind kind)
{
    return kind == CALL_DELETE || kind == CALL_PURGE || kind == CALL_BULK_DELETE;
}

enum call_result call_part_result(const struct call_record *record, const struct call_part *part)
{
    bool is_bulk = record->kind == CALL_BULK_PUT || record->kind == CALL_BULK_DELETE;

    return is_bulk && record->result == CALL_OK ? part->result : record->result;
}

bool call_only_reads(enum call_kind kind)
{
    return kind == CALL_GET || kind == CALL_GET_JSON || kind == CALL_WAIT || kind == CALL_BULK_GET ||
           kind == CALL_KEYS || kind == CALL_ENTRIES;
}

bool call_may_be_cancelled(const struct call_record *record)
{
    const struct call_record *cancel = record->cancel;

    return cancel != NULL && !(cancel->result == CALL_OK && cancel->parts[0].found == 0);
}

/* --- Requests -------------------------------------------------------------------------------------- */

static void pack_key(msgpack_packer *packer, unsigned key)
{
    char text[16];

    snprintf(text, sizeof(text), "k%u", key);
    pack_text(packer, text);
}

static void pack_value(msgpack_packer *packer, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, value);
    pack_binary(packer, text);
}

/* What makes a call repeatable. In a repetition first_sent differs, and the timeout is what is left of it. */
static void pack_identity(msgpack_packer *packer, const struct call_record *record)
{
    char id[40];

    snprintf(id, sizeof(id), "client-%u-call-%u", record->client, record->number);
    pack_text(packer, "id");
    pack_text(packer, id);
    pack_text(packer, "first_sent");
    msgpack_pack_uint64(packer, record->is_repeated ? record->first_sent_us : 0);
}

uint64_t call_left_ns(const struct call_record *record)
{
    uint64_t end_ns = record->begin_ns + record->timeout_ns, now_ns = world_now_ns();

    return end_ns > now_ns ? end_ns - now_ns : 0;
}

static void pack_ttl(msgpack_packer *packer, const struct call_record *record)
{
    pack_text(packer, "ttl");
    msgpack_pack_uint32(packer, record->ttl_s);
}

static void pack_options(msgpack_packer *packer, const struct call_record *record)
{
    bool has_revision = call_deletes(record->kind) && record->parts[0].has_condition;
    bool has_ttl = record->ttl_s > 0 && record->kind != CALL_COMMIT; /* its operations have it */

    msgpack_pack_map(packer, 1u + record->is_cached + record->is_leader + has_ttl + has_revision + record->if_exists +
                                 (record->kind == CALL_WAIT) + (record->has_id ? 2 : 0));
    pack_seconds(packer, "timeout", call_left_ns(record));
    if (record->has_id)
        pack_identity(packer, record);
    if (record->is_cached || record->is_leader) {
        pack_text(packer, "consistency");
        pack_text(packer, record->is_cached ? "cached" : "leader");
    }
    if (has_ttl)
        pack_ttl(packer, record);
    if (has_revision) {
        pack_text(packer, "revision");
        msgpack_pack_uint64(packer, record->parts[0].expected);
    }
    if (record->kind == CALL_WAIT) {
        pack_text(packer, "wait_above");
        msgpack_pack_uint64(packer, record->parts[0].expected);
    }
    if (record->if_exists) {
        pack_text(packer, "if_exists");
        msgpack_pack_true(packer);
    }
}

static void pack_commit(msgpack_packer *packer, const struct call_record *record)
{
    size_t conditions = 0, operations = 0;

    for (size_t i = 0; i < record->count; i++) {
        conditions += record->parts[i].has_condition;
        operations += !record->parts[i].is_check;
    }
    msgpack_pack_array(packer, conditions);
    for (size_t i = 0; i < record->count; i++) {
        if (!record->parts[i].has_condition)
            continue;
        msgpack_pack_array(packer, 2);
        pack_key(packer, record->parts[i].key);
        msgpack_pack_uint64(packer, record->parts[i].expected);
    }
    msgpack_pack_array(packer, operations);
    for (size_t i = 0; i < record->count; i++) {
        const struct call_part *part = &record->parts[i];
        if (part->is_check)
            continue;
        bool has_ttl = !part->is_delete && record->ttl_s > 0;
        msgpack_pack_array(packer, (part->is_delete ? 2u : 3u) + has_ttl);
        pack_text(packer, part->is_delete ? "delete" : "put");
        pack_key(packer, part->key);
        if (!part->is_delete)
            pack_value(packer, part->value);
        if (has_ttl) {
            msgpack_pack_map(packer, 1);
            pack_ttl(packer, record);
        }
    }
}

static void pack_cancel(msgpack_sbuffer *arguments, const struct call_record *record)
{
    msgpack_packer packer = caller_begin(arguments, 2);

    msgpack_pack_uint32(&packer, record->target->msgid);
    pack_options(&packer, record);
}

void call_pack(msgpack_sbuffer *arguments, const struct load *load, const struct call_record *record)
{
    if (record->kind == CALL_CANCEL) {
        pack_cancel(arguments, record);
        return;
    }
    const struct call_part *part = &record->parts[0];
    bool has_two = record->kind == CALL_GET || record->kind == CALL_GET_JSON || record->kind == CALL_WAIT ||
                   record->kind == CALL_BULK_PUT || record->kind == CALL_BULK_GET || call_deletes(record->kind);
    bool has_one = record->kind == CALL_KEYS || record->kind == CALL_ENTRIES || record->kind == CALL_PURGE_BUCKET ||
                   record->kind == CALL_SETUP;

    msgpack_packer packer_of_call = caller_begin(arguments, record->kind == CALL_UPDATE ? 5
                                                            : has_one                   ? 2
                                                            : has_two                   ? 3
                                                                                        : 4);
    msgpack_packer *packer = &packer_of_call;
    pack_text(packer, load->bucket);
    switch (record->kind) {
    case CALL_PUT:
    case CALL_CREATE:
    case CALL_UPDATE:
        pack_key(packer, part->key);
        pack_value(packer, part->value);
        if (record->kind == CALL_UPDATE)
            msgpack_pack_uint64(packer, part->expected);
        break;
    case CALL_DELETE:
    case CALL_PURGE:
    case CALL_GET:
    case CALL_GET_JSON:
    case CALL_WAIT:
        pack_key(packer, part->key);
        break;
    case CALL_INCREMENT:
        pack_key(packer, part->key);
        msgpack_pack_int64(packer, record->delta);
        break;
    case CALL_BULK_PUT:
        msgpack_pack_map(packer, record->count);
        for (size_t i = 0; i < record->count; i++) {
            pack_key(packer, record->parts[i].key);
            pack_value(packer, record->parts[i].value);
        }
        break;
    case CALL_BULK_GET:
    case CALL_BULK_DELETE:
        msgpack_pack_array(packer, record->count);
        for (size_t i = 0; i < record->count; i++)
            pack_key(packer, record->parts[i].key);
        break;
    case CALL_COMMIT:
        pack_commit(packer, record);
        break;
    case CALL_KEYS:
    case CALL_ENTRIES:
    case CALL_PURGE_BUCKET:
    case CALL_CANCEL:
    case CALL_KINDS:
        break;
    case CALL_SETUP:
        msgpack_pack_map(packer, 3);
        pack_text(packer, "history");
        msgpack_pack_uint64(packer, load->history);
        pack_text(packer, "replicas");
        msgpack_pack_uint64(packer, load->replicas);
        pack_seconds(packer, "timeout", record->timeout_ns);
        return;
    }
    pack_options(packer, record);
}

/* --- Answers --------------------------------------------------------------------------------------- */

uint64_t call_value_of(const msgpack_object *object)
{
    char text[24];

    if (object == NULL || object->type != MSGPACK_OBJECT_BIN)
        return 0;
    snprintf(text, sizeof(text), "%.*s", (int)object->via.bin.size, object->via.bin.ptr);
    return strtoull(text, NULL, 10);
}

unsigned call_key_of(const msgpack_object *object)
{
    char text[24];

    copy_text(text, sizeof(text), object); /* NULL: "" */
    return text[0] == 'k' ? (unsigned)strtoul(text + 1, NULL, 10) : CALL_KEYS_MAX;
}

static enum call_result result_of(const msgpack_object *error)
{
    char outcome[16];

    copy_text(outcome, sizeof(outcome), map_at(error, "outcome"));
    return strcmp(outcome, "unknown") == 0 ? CALL_UNKNOWN : CALL_FAILED;
}

static void part_read_entry(struct call_part *part, const msgpack_object *entry, uint64_t *revisions)
{
    char operation[16];

    copy_text(operation, sizeof(operation), map_at(entry, "operation"));
    part->is_there = strcmp(operation, "put") == 0;
    part->is_marker = !part->is_there && operation[0] != '\0';
    part->found = call_value_of(map_at(entry, "value"));
    part->revision = number_of(map_at(entry, "revision"));
    if (part->is_there || part->is_marker)
        revisions[part->key] = part->revision;
}

static void record_read_bulk(struct call_record *record, const msgpack_object *result, uint64_t *revisions)
{
    for (size_t i = 0; i < record->count; i++) {
        struct call_part *part = &record->parts[i];
        char name[16];
        snprintf(name, sizeof(name), "k%u", part->key);
        const msgpack_object *of_key = map_at(result, name);
        if (of_key == NULL)
            world_fail("%s has no result for %s", call_kind_name(record->kind), name);
        if (record->kind == CALL_BULK_GET) {
            part_read_entry(part, of_key, revisions);
            continue;
        }
        const msgpack_object *error = map_at(of_key, "error");
        part->result = error != NULL ? result_of(error) : CALL_OK;
        if (error != NULL)
            copy_text(part->code, sizeof(part->code), map_at(error, "code"));
        part->revision = number_of(map_at(of_key, "revision"));
    }
}

static void record_read_entries(struct call_record *record, const msgpack_object *result, const struct load *load,
                                uint64_t *revisions)
{
    record->count = 0;
    for (uint32_t i = 0; i < result->via.array.size; i++) {
        unsigned key = call_key_of(map_at(&result->via.array.ptr[i], "key"));
        if (key >= load->keys)
            continue; /* the counter */
        record->keys_found |= UINT64_C(1) << key;
        if (record->count == CALL_PARTS_MAX)
            continue;
        record->parts[record->count] = (struct call_part){.key = key};
        part_read_entry(&record->parts[record->count++], &result->via.array.ptr[i], revisions);
    }
}

static void record_read_commit(struct call_record *record, const msgpack_object *result, uint64_t *revisions)
{
    size_t operations = 0;

    if (result->type != MSGPACK_OBJECT_ARRAY)
        world_fail("txn.commit answers no array");
    for (size_t i = 0; i < record->count; i++) {
        struct call_part *part = &record->parts[i];
        if (part->is_check)
            continue;
        if (operations < result->via.array.size)
            part->revision = revisions[part->key] = number_of(&result->via.array.ptr[operations]);
        operations++;
    }
    if (operations != result->via.array.size)
        world_fail("txn.commit answers something else than %zu revisions", operations);
}

/* The answer of the call that it has cancelled comes first. A call that reads can be cancelled until it is answered. */
static void record_read_cancel(struct call_record *record, const msgpack_object *result)
{
    bool is_cancelled = bool_of(result);
    bool is_running = record->target->result == CALL_RUNS;

    record->parts[0].found = is_cancelled;
    if (is_running && (is_cancelled || call_only_reads(record->target->kind)))
        world_fail("client %u, call %u, call.cancel of call %u (%s) is %s, before that call is answered",
                   record->client, record->msgid, record->target->msgid, call_kind_name(record->target->kind),
                   is_cancelled ? "true" : "false");
}

void call_read_result(struct call_record *record, const msgpack_object *result, const struct load *load,
                      uint64_t revisions[CALL_KEYS_MAX])
{
    struct call_part *part = &record->parts[0];

    record->result = CALL_OK;
    switch (record->kind) {
    case CALL_PUT:
    case CALL_CREATE:
    case CALL_UPDATE:
    case CALL_DELETE:
    case CALL_PURGE:
        part->revision = number_of(result);
        if (part->revision > 0)
            revisions[part->key] = part->revision;
        break;
    case CALL_GET:
    case CALL_WAIT:
        part_read_entry(part, result, revisions);
        break;
    case CALL_GET_JSON:
        part->found = number_of(result);
        part->is_there = part->found > 0;
        break;
    case CALL_BULK_PUT:
    case CALL_BULK_DELETE:
    case CALL_BULK_GET:
        record_read_bulk(record, result, revisions);
        break;
    case CALL_COMMIT:
        record_read_commit(record, result, revisions);
        break;
    case CALL_KEYS:
        for (uint32_t i = 0; i < result->via.array.size; i++) {
            unsigned key = call_key_of(&result->via.array.ptr[i]);
            if (key < load->keys)
                record->keys_found |= UINT64_C(1) << key;
        }
        break;
    case CALL_ENTRIES:
        record_read_entries(record, result, load, revisions);
        break;
    case CALL_INCREMENT:
        part->found = number_of(&result->via.array.ptr[0]);
        part->revision = number_of(&result->via.array.ptr[1]);
        break;
    case CALL_CANCEL:
        record_read_cancel(record, result);
        break;
    case CALL_PURGE_BUCKET:
    case CALL_SETUP:
    case CALL_KINDS:
        break;
    }
}

void call_read_error(struct call_record *record, const msgpack_object *error)
{
    bool changes = call_writes(record->kind) || record->kind == CALL_PURGE_BUCKET;

    record->result = changes ? result_of(error) : CALL_FAILED;
    copy_text(record->code, sizeof(record->code), map_at(error, "code"));
    copy_text(record->text, sizeof(record->text), map_at(error, "message"));
    record->is_refused = strcmp(record->code, "conflict") == 0 || strcmp(record->code, "already_exists") == 0;
    unsigned key = call_key_of(map_at(error, "key"));
    for (size_t i = 0; i < record->count; i++) {
        if (record->parts[i].key == key)
            record->parts[i].revision = number_of(map_at(error, "revision"));
    }
}
