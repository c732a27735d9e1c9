#include "tests/sim/client.h"

#include "tests/sim/caller.h"
#include "tests/sim/doors.h"
#include "tests/sim/memory.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Gets of a client that wait at a time. */
#define WAITING_MAX 2u

struct client {
    struct client *next;
    unsigned number;
    char name[16];
    const struct load *load;
    struct caller caller;
    unsigned in_flight, waiting;   /* calls: of these, gets that wait are counted apart */
    unsigned parted;               /* calls that are to be repeated */
    struct call_record *to_cancel; /* soon; NULL: none */
    unsigned lost_sessions;
    uint64_t until_ns;
    bool is_thinking;
    bool is_set_up;
    bool wants_watch;
    uint32_t watch_msgid; /* of watch.start; 0: none is under way */
    uint32_t stop_msgid;  /* the same of watch.stop */
    struct watch_record *watch;
    struct watch_record *watches, **watches_end;
    struct call_record *records, **records_end;
    unsigned calls;                /* that it has made */
    struct call_record **by_msgid; /* NULL: it is not of a call */
    size_t by_msgid_capacity;
    uint64_t revisions[CALL_KEYS_MAX]; /* that it saw last */
    void (*set_up)(void *arg);
    void *set_up_arg;
};

static struct client *all;
static uint64_t values;

uint64_t client_values(void)
{
    return values;
}

/* --- Sending --------------------------------------------------------------------------------------- */

static void client_note_msgid(struct client *client, struct call_record *record)
{
    size_t old = client->by_msgid_capacity;

    if (record->msgid >= old) {
        client->by_msgid_capacity = 2 * (size_t)record->msgid + 64;
        client->by_msgid =
            memory_need(realloc(client->by_msgid, client->by_msgid_capacity * sizeof(*client->by_msgid)));
        memset(client->by_msgid + old, 0, (client->by_msgid_capacity - old) * sizeof(*client->by_msgid));
    }
    client->by_msgid[record->msgid] = record;
}

/* Return the counter of calls in flight to which it belongs. */
static unsigned *client_counter(struct client *client, const struct call_record *record)
{
    return record->kind == CALL_WAIT ? &client->waiting : &client->in_flight;
}

static void client_send(struct client *client, struct call_record *record)
{
    msgpack_sbuffer arguments;

    if (record->begin_ns == 0) {
        record->begin_ns = world_now_ns();
        record->first_sent_us = clocks_monotonic_ns(host_clocks(client->caller.host)) / 1000;
    }
    call_pack(&arguments, client->load, record);
    record->msgid = caller_send(&client->caller, call_kind_name(record->kind), &arguments);
    client_note_msgid(client, record);
    ++*client_counter(client, record);
    trace("client %u: %u %s%s of k%u, value %" PRIu64 ", timeout %.3f s", client->number, record->msgid,
          call_kind_name(record->kind), record->is_repeated ? " again" : "", record->parts[0].key,
          record->parts[0].value, (double)call_left_ns(record) / 1e9);
    if (record->kind == CALL_WAIT)
        trace("client %u: %u waits for a revision above %" PRIu64, client->number, record->msgid,
              record->parts[0].expected);
}

/* --- Calls of chance ------------------------------------------------------------------------------- */

static struct call_record *client_new_record(struct client *client, enum call_kind kind)
{
    struct call_record *record = memory_new(sizeof(*record));
    const struct load *load = client->load;

    record->client = client->number;
    record->number = ++client->calls;
    record->kind = kind;
    record->has_id = client->load->repeats && call_writes(kind);
    record->timeout_ns = world_between(load->least_timeout_ms, load->most_timeout_ms) * WORLD_MS;
    *client->records_end = record;
    client->records_end = &record->next;
    return record;
}

/* Parts with different keys. */
static void record_choose_parts(struct call_record *record, const struct client *client, size_t count)
{
    unsigned keys = client->load->keys, first = (unsigned)world_below(keys);

    record->count = count < keys ? count : keys;
    for (size_t i = 0; i < record->count; i++)
        record->parts[i].key = (first + (unsigned)i) % keys;
}

static void client_choose_commit(struct client *client, struct call_record *record)
{
    record_choose_parts(record, client, world_between(2, 4));
    for (size_t i = 0; i < record->count; i++) {
        struct call_part *part = &record->parts[i];
        part->is_check = i > 0 && world_chance(200);
        part->is_delete = !part->is_check && world_chance(150);
        part->value = part->is_check || part->is_delete ? 0 : ++values;
        part->has_condition = part->is_check || world_chance(300);
        part->expected = client->revisions[part->key];
    }
}

static void record_choose_ttl(struct call_record *record, unsigned per_mille)
{
    record->ttl_s = world_chance(per_mille) ? (unsigned)world_between(1, 6) : 0;
}

static void record_choose_consistency(struct call_record *record, const struct load *load)
{
    record->is_cached = world_chance(load->cached_per_mille);
    record->is_leader = !record->is_cached && record->kind != CALL_KEYS && world_chance(load->leader_per_mille);
}

static void record_choose_condition(struct call_record *record, const struct client *client)
{
    struct call_part *part = &record->parts[0];

    if (!world_chance(client->load->condition_per_mille))
        return;
    part->expected = client->revisions[part->key];
    part->has_condition = part->expected > 0 && world_chance(700);
    record->if_exists = record->kind == CALL_DELETE && !part->has_condition;
}

/* --- Cancelling --- */

static void client_cancel(void *arg)
{
    struct client *client = arg;
    struct call_record *target = client->to_cancel;

    client->to_cancel = NULL;
    if (target->result != CALL_RUNS || target->is_parted || !caller_is_connected(&client->caller))
        return;
    struct call_record *record = client_new_record(client, CALL_CANCEL);
    record->target = target;
    target->cancel = record;
    client_send(client, record);
    trace("client %u: %u is to be cancelled", client->number, target->msgid);
}

/* Some calls are cancelled at once, most while they are usually at NATS, and some while they wait for something else.
 */
static void client_choose_cancel(struct client *client, struct call_record *record)
{
    if (client->to_cancel != NULL || !world_chance(client->load->cancel_per_mille))
        return;
    client->to_cancel = record;
    world_after(world_below(1 + (world_chance(700) ? 5 * WORLD_MS : record->timeout_ns)), client_cancel, client);
}

static void client_call(struct client *client)
{
    const struct load *load = client->load;
    enum call_kind kind = (enum call_kind)world_choose(load->weights, CALL_KINDS);
    bool waits_enough = client->waiting >= WAITING_MAX;
    struct call_record *record = client_new_record(client, kind == CALL_WAIT && waits_enough ? CALL_GET : kind);

    record_choose_parts(record, client, 1);
    switch (record->kind) {
    case CALL_UPDATE:
        record->parts[0].has_condition = true;
        record->parts[0].expected = client->revisions[record->parts[0].key];
        record->parts[0].value = ++values;
        break;
    case CALL_PUT:
    case CALL_CREATE:
        record->parts[0].value = ++values;
        record_choose_ttl(record, load->ttl_per_mille);
        break;
    case CALL_BULK_PUT:
        record_choose_parts(record, client, world_between(1, CALL_PARTS_MAX));
        for (size_t i = 0; i < record->count; i++)
            record->parts[i].value = ++values;
        record_choose_ttl(record, load->many_ttl_per_mille);
        break;
    case CALL_BULK_DELETE:
        record_choose_parts(record, client, world_between(1, CALL_PARTS_MAX));
        break;
    case CALL_BULK_GET:
        record_choose_parts(record, client, world_between(1, CALL_PARTS_MAX));
        record_choose_consistency(record, load);
        break;
    case CALL_GET:
    case CALL_GET_JSON:
    case CALL_KEYS:
        record_choose_consistency(record, load);
        break;
    case CALL_WAIT:
        record->parts[0].expected = world_chance(800) ? client->revisions[record->parts[0].key] : 0;
        record_choose_consistency(record, load);
        break;
    case CALL_COMMIT:
        client_choose_commit(client, record);
        record_choose_ttl(record, load->many_ttl_per_mille);
        break;
    case CALL_INCREMENT:
        record->parts[0].key = load->keys; /* the counter's own key */
        record->delta = (int64_t)world_between(1, 5);
        break;
    case CALL_PURGE_BUCKET:
        record->count = 0;
        break;
    case CALL_DELETE:
    case CALL_PURGE:
        record_choose_condition(record, client);
        break;
    case CALL_ENTRIES:
    case CALL_CANCEL:
    case CALL_SETUP:
    case CALL_KINDS:
        break;
    }
    client_send(client, record);
    client_choose_cancel(client, record);
}

/* --- Answers --------------------------------------------------------------------------------------- */

static void client_try_set_up(void *arg);

/* The daemon has ended the watch, or watch.start has failed. */
static void client_end_watch(struct client *client, const msgpack_object *error)
{
    struct watch_record *watch = client->watch;

    watch->is_ended = true;
    watch->ended_ns = world_now_ns();
    copy_text(watch->code, sizeof(watch->code), map_at(error, "code"));
    trace("client %u: watch has ended: %s", client->number, watch->code);
    client->watch = NULL;
}

static void client_on_watch_stopped(struct client *client, const msgpack_object *error)
{
    client->stop_msgid = 0;
    if (error->type != MSGPACK_OBJECT_NIL)
        world_fail("client %u: watch.stop has failed", client->number);
    trace("client %u: watch is stopped", client->number);
    if (client->watch != NULL) {
        client->watch->is_ended = true;
        client->watch->ended_ns = world_now_ns();
    }
    client->watch = NULL;
}

static void client_read_answer(struct client *client, const msgpack_object *answer)
{
    const msgpack_object *error = &answer->via.array.ptr[2], *result = &answer->via.array.ptr[3];
    uint64_t msgid = number_of(&answer->via.array.ptr[1]);
    struct call_record *record = msgid < client->by_msgid_capacity ? client->by_msgid[msgid] : NULL;

    if (answer->via.array.ptr[1].type == MSGPACK_OBJECT_NIL)
        return; /* the daemon shuts down */
    if (msgid == client->watch_msgid && msgid != 0) {
        client->watch_msgid = 0;
        client->watch->answered_ns = world_now_ns();
        client->watch->id = number_of(&answer->via.array.ptr[3]);
        if (error->type != MSGPACK_OBJECT_NIL)
            client_end_watch(client, error);
        return;
    }
    if (msgid == client->stop_msgid && msgid != 0) {
        client_on_watch_stopped(client, error);
        return;
    }
    if (record == NULL || record->result != CALL_RUNS)
        world_fail("client %u: a second answer, or one to no call: %" PRIu64, client->number, msgid);
    record->end_ns = world_now_ns();
    --*client_counter(client, record);
    if (error->type == MSGPACK_OBJECT_NIL)
        call_read_result(record, result, client->load, client->revisions);
    else
        call_read_error(record, error);
    trace("client %u: %u %s: %s%s%s, revision %" PRIu64 ", found %" PRIu64, client->number, record->msgid,
          call_kind_name(record->kind), record->result == CALL_OK ? "ok" : record->code,
          record->result == CALL_UNKNOWN ? " (outcome unknown)" : "", record->text, record->parts[0].revision,
          record->parts[0].found);
    if (record->kind == CALL_SETUP && record->result == CALL_OK) {
        client->is_set_up = true;
        client->set_up(client->set_up_arg);
    } else if (record->kind == CALL_SETUP) {
        world_after(100 * WORLD_MS, client_try_set_up, client);
    }
}

/* --- Watches --------------------------------------------------------------------------------------- */

static void watch_choose_options(struct watch_record *watch, const struct load *load)
{
    uint64_t all_keys = (UINT64_C(2) << load->keys) - 1; /* and the counter */

    watch->keys = world_chance(load->option_per_mille) ? world_between(1, all_keys) : all_keys;
    watch->is_meta_only = world_chance(load->option_per_mille);
    watch->ignores_deletes = world_chance(load->option_per_mille);
    watch->is_snapshot = world_chance(load->option_per_mille);
    if (world_chance(load->option_per_mille)) {
        watch->has_history = world_chance(500);
        watch->updates_only = !watch->has_history;
    }
}

static void pack_true(msgpack_packer *packer, const char *name, bool is_set)
{
    if (!is_set)
        return;
    pack_text(packer, name);
    msgpack_pack_true(packer);
}

static void pack_watch(msgpack_packer *packer, const struct watch_record *watch, const struct load *load)
{
    size_t count = 0;
    bool has_filter = load->option_per_mille > 0;

    msgpack_pack_map(packer, (size_t)has_filter + watch->is_meta_only + watch->ignores_deletes + watch->is_snapshot +
                                 watch->has_history + watch->updates_only);
    pack_true(packer, "meta_only", watch->is_meta_only);
    pack_true(packer, "ignore_deletes", watch->ignores_deletes);
    pack_true(packer, "snapshot", watch->is_snapshot);
    pack_true(packer, "include_history", watch->has_history);
    pack_true(packer, "updates_only", watch->updates_only);
    if (!has_filter)
        return;
    pack_text(packer, "filter");
    for (unsigned key = 0; key <= load->keys; key++)
        count += watch->keys >> key & 1;
    if (count > load->keys) {
        pack_text(packer, "*");
        return;
    }
    msgpack_pack_array(packer, count);
    for (unsigned key = 0; key <= load->keys; key++) {
        char name[16];
        snprintf(name, sizeof(name), "k%u", key);
        if ((watch->keys >> key & 1) != 0)
            pack_text(packer, name);
    }
}

static void client_start_watch(struct client *client)
{
    msgpack_sbuffer arguments;

    client->watch = memory_new(sizeof(*client->watch));
    client->watch->begun_ns = world_now_ns();
    watch_choose_options(client->watch, client->load);
    *client->watches_end = client->watch;
    client->watches_end = &client->watch->next;
    msgpack_packer packer = caller_begin(&arguments, 2);
    pack_text(&packer, client->load->bucket);
    pack_watch(&packer, client->watch, client->load);
    trace("client %u: watch.start of keys %" PRIx64 "%s%s%s%s%s", client->number, client->watch->keys,
          client->watch->is_meta_only ? ", meta_only" : "", client->watch->ignores_deletes ? ", ignore_deletes" : "",
          client->watch->is_snapshot ? ", snapshot" : "", client->watch->has_history ? ", include_history" : "",
          client->watch->updates_only ? ", updates_only" : "");
    client->watch_msgid = caller_send(&client->caller, "watch.start", &arguments);
}

/* Until the answer comes, so may entries, and the watch may end. */
static void client_stop_watch(struct client *client)
{
    msgpack_sbuffer arguments;
    msgpack_packer packer = caller_begin(&arguments, 1);

    msgpack_pack_uint64(&packer, client->watch->id);
    client->stop_msgid = caller_send(&client->caller, "watch.stop", &arguments);
    trace("client %u: watch.stop", client->number);
}

static void watch_add(struct watch_record *watch, const msgpack_object *entry)
{
    const msgpack_object *operation = map_at(entry, "operation");

    watch->entries = memory_grow(watch->entries, watch->count, sizeof(watch->entries[0]));
    watch->entries[watch->count].at_ns = world_now_ns();
    watch->entries[watch->count].revision = number_of(map_at(entry, "revision"));
    watch->entries[watch->count].key = call_key_of(map_at(entry, "key"));
    watch->entries[watch->count].value =
        watch->is_meta_only ? number_of(map_at(entry, "size")) : call_value_of(map_at(entry, "value"));
    watch->entries[watch->count].is_put = operation != NULL && operation->via.str.size == 3;
    watch->count++;
}

static void client_read_notification(struct client *client, const msgpack_object *notification)
{
    const msgpack_object *params = &notification->via.array.ptr[2];
    struct watch_record *watch = client->watch;
    char method[32];

    copy_text(method, sizeof(method), &notification->via.array.ptr[1]);
    if (strncmp(method, "watch.", 6) != 0)
        return;
    if (watch == NULL || number_of(&params->via.array.ptr[0]) != watch->id)
        world_fail("client %u: %s of a watch that has ended, or not begun", client->number, method);
    if (strcmp(method, "watch.entries") == 0) {
        const msgpack_object *entries = &params->via.array.ptr[1];
        for (uint32_t i = 0; i < entries->via.array.size; i++) {
            watch_add(watch, &entries->via.array.ptr[i]);
            trace("client %u: watch: %" PRIu64 ", k%u %s, value %" PRIu64, client->number,
                  watch->entries[watch->count - 1].revision, watch->entries[watch->count - 1].key,
                  watch->entries[watch->count - 1].is_put ? "put" : "removed", watch->entries[watch->count - 1].value);
        }
    } else if (strcmp(method, "watch.ready") == 0) {
        watch->is_ready = true;
        watch->ready_ns = world_now_ns();
        watch->ready_count = watch->count;
        watch->ready_revision = watch->count > 0 ? watch->entries[watch->count - 1].revision : 0;
        if (watch->is_snapshot && params->via.array.size > 1)
            watch->ready_revision = number_of(&params->via.array.ptr[1]);
        trace("client %u: watch is ready, revision %" PRIu64, client->number, watch->ready_revision);
    } else if (strcmp(method, "watch.ended") == 0) {
        client_end_watch(client, &params->via.array.ptr[1]);
    }
}

/* --- The session ----------------------------------------------------------------------------------- */

static void client_think(void *arg);

static void client_think_later(struct client *client, uint64_t ns)
{
    if (client->is_thinking)
        return;
    client->is_thinking = true;
    world_after(ns, client_think, client);
}

static void client_on_message(void *arg, const msgpack_object *message)
{
    struct client *client = arg;

    if (message->via.array.ptr[0].via.u64 == 1)
        client_read_answer(client, message);
    else
        client_read_notification(client, message);
    client_think_later(client, world_below(client->load->pause_ns + 1));
}

static void record_lose(struct client *client, struct call_record *record)
{
    uint64_t deadline_ns = record->begin_ns + record->timeout_ns;

    if (record->kind == CALL_SETUP)
        world_after(100 * WORLD_MS, client_try_set_up, client);
    record->result = CALL_LOST;
    record->end_ns = world_now_ns();
    if (record->is_parted && record->end_ns > deadline_ns)
        record->end_ns = deadline_ns; /* it was to be repeated until then */
    client->parted -= record->is_parted;
    record->is_parted = false;
}

/* As libkvstore does: repeat calls in the next session, until their time is over. */
static void client_repeat_calls(struct client *client)
{
    bool is_connected = caller_is_connected(&client->caller);

    for (struct call_record *record = client->records; client->parted > 0 && record != NULL; record = record->next) {
        if (!record->is_parted)
            continue;
        if (call_left_ns(record) == 0) {
            record_lose(client, record);
        } else if (is_connected) {
            client->parted--;
            record->is_parted = false;
            record->is_repeated = true;
            client_send(client, record);
        }
    }
}

static void client_lose_session(struct client *client, bool is_impatient)
{
    client->in_flight = client->waiting = 0;
    if (client->watch != NULL) {
        client->watch->is_ended = client->watch->is_lost = true;
        client->watch->ended_ns = world_now_ns();
    }
    client->watch = NULL;
    client->watch_msgid = client->stop_msgid = 0;
    for (struct call_record *record = client->records; record != NULL; record = record->next) {
        if (record->result != CALL_RUNS)
            continue;
        if (record->has_id && !is_impatient) {
            client->parted += !record->is_parted;
            record->is_parted = true;
            continue;
        }
        record_lose(client, record);
    }
    client_think_later(client, world_between(1, 50) * WORLD_MS);
}

static void client_on_end(void *arg, uint64_t ended_ns)
{
    struct client *client = arg;

    (void)ended_ns;
    client->lost_sessions++;
    client_lose_session(client, false);
}

static void client_misbehave(struct client *client)
{
    if (world_chance(client->load->leave_per_mille)) {
        caller_leave(&client->caller);
        client_lose_session(client, true);
    } else if (world_chance(client->load->stall_per_mille)) {
        caller_stall(&client->caller, world_between(1, 3000) * WORLD_MS);
    }
}

static void client_think(void *arg)
{
    struct client *client = arg;

    client->is_thinking = false;
    client_repeat_calls(client);
    bool is_connected = caller_is_connected(&client->caller);
    if (!is_connected && (world_now_ns() < client->until_ns || !client->is_set_up || client->parted > 0)) {
        caller_connect(&client->caller);
        client_think_later(client, 10 * WORLD_MS);
        return;
    }
    if (world_now_ns() >= client->until_ns || !is_connected)
        return;
    bool has_asked = client->watch_msgid != 0 || client->stop_msgid != 0;
    if (client->wants_watch && client->watch == NULL && !has_asked)
        client_start_watch(client);
    else if (client->watch != NULL && !has_asked && world_chance(client->load->stop_per_mille))
        client_stop_watch(client);
    if (client->in_flight >= client->load->in_flight)
        return; /* an answer wakes it */
    client_call(client);
    client_misbehave(client);
    client_think_later(client, world_below(2 * client->load->pause_ns + 1));
}

/* --- Setting up, and the end ----------------------------------------------------------------------- */

static void client_try_set_up(void *arg)
{
    struct client *client = arg;

    if (caller_connect(&client->caller))
        client_send(client, client_new_record(client, CALL_SETUP));
    else
        world_after(100 * WORLD_MS, client_try_set_up, client);
}

void client_set_up(struct client *client, void (*done)(void *arg), void *arg)
{
    client->is_set_up = false;
    client->set_up = done;
    client->set_up_arg = arg;
    client_try_set_up(client);
}

void client_run_until(struct client *client, uint64_t until_ns)
{
    client->until_ns = until_ns;
    client->is_set_up = true;
    client->wants_watch = client->load->watches;
    client_think_later(client, world_below(10 * WORLD_MS));
}

bool client_is_idle(const struct client *client)
{
    return client->in_flight == 0 && client->waiting == 0 && client->parted == 0;
}

static void client_use(struct client *client, enum call_kind kind, unsigned key)
{
    struct call_record *record = client_new_record(client, kind);

    record->must_succeed = true;
    record->timeout_ns = 5 * WORLD_SECOND;
    record->count = 1;
    record->parts[0].key = key;
    record->parts[0].value = kind == CALL_PUT ? ++values : 0;
    record->delta = 1;
    client_send(client, record);
}

void client_use_all(struct client *client)
{
    caller_connect(&client->caller);
    client->until_ns = world_now_ns();
    for (unsigned key = 0; key < client->load->keys; key++) {
        client_use(client, CALL_PUT, key);
        client_use(client, CALL_GET, key);
    }
    client_use(client, CALL_INCREMENT, client->load->keys);
}

const struct call_record *client_records(const struct client *client)
{
    return client->records;
}

const struct watch_record *client_watches(const struct client *client)
{
    return client->watches;
}

unsigned client_lost_sessions(const struct client *client)
{
    return client->lost_sessions;
}

struct client *client_new(unsigned number, struct host *host, const struct load *load)
{
    struct client *client = memory_new(sizeof(*client));

    client->number = number;
    snprintf(client->name, sizeof(client->name), "client %u", number);
    client->caller = (struct caller){
        .name = client->name, .host = host, .on_message = client_on_message, .on_end = client_on_end, .arg = client};
    client->load = load;
    client->records_end = &client->records;
    client->watches_end = &client->watches;
    client->next = all;
    all = client;
    return client;
}

void client_forget_all(void)
{
    while (all != NULL) {
        struct client *client = all;
        all = client->next;
        while (client->records != NULL) {
            struct call_record *record = client->records;
            client->records = record->next;
            free(record);
        }
        while (client->watches != NULL) {
            struct watch_record *watch = client->watches;
            client->watches = watch->next;
            free(watch->entries);
            free(watch);
        }
        caller_free(&client->caller);
        free(client->by_msgid);
        free(client);
    }
    values = 0;
}
