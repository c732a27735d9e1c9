#include "tests/sim/stream.h"

#include "daemon/nats/kv.h"
#include "tests/sim/consumers.h"
#include "tests/sim/memory.h"
#include "tests/sim/server.h"
#include "tests/sim/world.h"

#include <stdlib.h>
#include <string.h>

/* --- Lists ----------------------------------------------------------------------------------------- */

static void list_add(struct stored_list *list, struct stored *stored)
{
    list->items = memory_grow(list->items, list->count, sizeof(struct stored *));
    list->items[list->count++] = stored;
}

static void list_copy(struct stored_list *to, const struct stored_list *from)
{
    to->count = 0;
    for (size_t i = 0; i < from->count; i++)
        list_add(to, from->items[i]);
}

static void list_remove(struct stored_list *list, size_t place)
{
    memmove(list->items + place, list->items + place + 1, (list->count - place - 1) * sizeof(struct stored *));
    list->count--;
}

/* --- Life ------------------------------------------------------------------------------------------ */

struct stream *stream_new(struct server *server, const char *name, json_t *config)
{
    struct stream *stream = memory_new(sizeof(*stream));

    stream->server = server;
    stream->name = strdup(name);
    stream->config = config;
    stream->created_ns = world_epoch_ns();
    stream->made_ns = world_now_ns();
    return stream;
}

static void stream_forget_id(struct stream *stream, struct stored_id *known)
{
    HASH_DEL(stream->ids, known);
    free(known->id);
    free(known);
}

static void stream_forget_ids(struct stream *stream)
{
    struct stored_id *known, *next;

    HASH_ITER(hh, stream->ids, known, next)
    stream_forget_id(stream, known);
}

void stream_forget_batches(struct stream *stream)
{
    while (stream->batches != NULL) {
        struct batch *batch = stream->batches;
        stream->batches = batch->next;
        for (size_t i = 0; i < batch->count; i++)
            packet_free(batch->packets[i]);
        free(batch->packets);
        free(batch->id);
        free(batch);
    }
}

void stream_free(struct stream *stream)
{
    for (size_t i = 0; i < stream->log.count; i++) {
        packet_free(stream->log.items[i]->packet);
        free(stream->log.items[i]);
    }
    stream_forget_ids(stream);
    stream_forget_batches(stream);
    stream_keep_rest(stream, NULL, 0);
    for (size_t i = 0; i < stream->change_count; i++)
        free(stream->changes[i].subject);
    free(stream->changes);
    free(stream->purges);
    free(stream->log.items);
    free(stream->present.items);
    free(stream->backup.items);
    json_decref(stream->config);
    free(stream->name);
    free(stream);
}

int64_t stream_number(const struct stream *stream, const char *setting)
{
    return json_integer_value(json_object_get(stream->config, setting));
}

bool stream_flag(const struct stream *stream, const char *setting)
{
    return json_is_true(json_object_get(stream->config, setting));
}

/* --- Ids ------------------------------------------------------------------------------------------- */

/* The id of an earlier message may be used again after the duplicate window. */
static void stream_note_id(struct stream *stream, const struct stored *stored)
{
    const char *id = packet_header(stored->packet, KV_HEADER_MSG_ID);
    struct stored_id *known;

    if (id == NULL)
        return;
    HASH_FIND_STR(stream->ids, id, known);
    if (known != NULL)
        stream_forget_id(stream, known);
    known = memory_new(sizeof(*known));
    *known = (struct stored_id){.id = strdup(id), .sequence = stored->sequence, .time_ns = stored->time_ns};
    HASH_ADD_KEYPTR(hh, stream->ids, known->id, strlen(known->id), known);
}

static bool stream_is_in_window(const struct stream *stream, int64_t time_ns)
{
    return world_epoch_ns() - time_ns < stream_number(stream, "duplicate_window");
}

const struct stored_id *stream_find_id(struct stream *stream, const char *id)
{
    struct stored_id *known;

    HASH_FIND_STR(stream->ids, id, known);
    return known != NULL && stream_is_in_window(stream, known->time_ns) ? known : NULL;
}

/* --- Reading --------------------------------------------------------------------------------------- */

struct stored *stream_last(const struct stream *stream, const char *subject)
{
    for (size_t i = stream->present.count; i > 0; i--) {
        if (strcmp(stream->present.items[i - 1]->packet->subject, subject) == 0)
            return stream->present.items[i - 1];
    }
    return NULL;
}

/* Return the place of the first message with at least this sequence. */
static size_t stream_place(const struct stream *stream, uint64_t sequence)
{
    size_t from = 0, to = stream->present.count;

    while (from < to) {
        size_t middle = (from + to) / 2;
        if (stream->present.items[middle]->sequence < sequence)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

struct stored *stream_at(const struct stream *stream, uint64_t sequence)
{
    size_t place = stream_place(stream, sequence);

    if (place == stream->present.count || stream->present.items[place]->sequence != sequence)
        return NULL;
    return stream->present.items[place];
}

bool stored_is_put(const struct stored *stored)
{
    return stored != NULL && packet_header(stored->packet, KV_HEADER_OPERATION) == NULL &&
           packet_header(stored->packet, KV_HEADER_MARKER_REASON) == NULL;
}

struct stored *stream_next(const struct stream *stream, uint64_t sequence, const char *filter)
{
    for (size_t i = stream_place(stream, sequence); i < stream->present.count; i++) {
        if (filter == NULL || kv_filter_matches(filter, stream->present.items[i]->packet->subject))
            return stream->present.items[i];
    }
    return NULL;
}

uint64_t stream_subjects(const struct stream *stream)
{
    uint64_t count = 0;

    for (size_t i = 0; i < stream->present.count; i++)
        count += stream_last(stream, stream->present.items[i]->packet->subject) == stream->present.items[i];
    return count;
}

/* --- Changes --------------------------------------------------------------------------------------- */

static void stream_note_change(struct stream *stream, const char *subject)
{
    stream->changes = memory_grow(stream->changes, stream->change_count, sizeof(*stream->changes));
    stream->changes[stream->change_count++] =
        (struct change){world_now_ns(), stream->operations, strdup(subject), stream_last(stream, subject)};
}

void stream_begin_operation(struct stream *stream)
{
    stream->operations++;
}

/* --- Removing -------------------------------------------------------------------------------------- */

static void stream_update_first(struct stream *stream)
{
    stream->first_sequence = stream->present.count > 0 ? stream->present.items[0]->sequence : stream->last_sequence + 1;
}

static void stream_remove_at(struct stream *stream, size_t place)
{
    struct stored *stored = stream->present.items[place];
    const char *subject = stored->packet->subject;
    bool was_last = stream_last(stream, subject) == stored;

    stored->removed_ns = world_now_ns();
    list_remove(&stream->present, place);
    stream_update_first(stream);
    if (was_last)
        stream_note_change(stream, subject);
}

static bool is_to_go(const struct stored *stored, const char *filter, uint64_t below)
{
    return (filter == NULL || kv_filter_matches(filter, stored->packet->subject)) &&
           (below == 0 || stored->sequence < below);
}

/* The older ones go first: so nobody sees an older value of a key after the removal of a newer one. */
static uint64_t stream_remove(struct stream *stream, const char *filter, uint64_t below, uint64_t keep, bool is_purge)
{
    uint64_t removed = 0, matching = 0;

    for (size_t i = 0; i < stream->present.count; i++)
        matching += is_to_go(stream->present.items[i], filter, below);
    for (size_t i = 0; i < stream->present.count && removed + keep < matching;) {
        struct stored *stored = stream->present.items[i];
        if (!is_to_go(stored, filter, below)) {
            i++;
            continue;
        }
        stored->is_purged = is_purge;
        stream_remove_at(stream, i);
        removed++;
    }
    return removed;
}

uint64_t stream_purge(struct stream *stream, const char *filter, uint64_t below, uint64_t keep)
{
    uint64_t purged = stream_remove(stream, filter, below, keep, true);

    if (filter == NULL && keep == 0) {
        stream->purges = memory_grow(stream->purges, stream->purge_count, sizeof(*stream->purges));
        stream->purges[stream->purge_count++] = (struct purge){world_now_ns(), stream->change_count};
    }
    /* The server compacts the stream up to there, even if it has not reached it. */
    if (filter == NULL && keep == 0 && below > stream->last_sequence + 1) {
        stream->last_sequence = below - 1;
        stream_update_first(stream);
    }
    return purged;
}

static void stream_limit_subject(struct stream *stream, const char *subject)
{
    int64_t most = stream_number(stream, "max_msgs_per_subject"), count = 0;

    for (size_t i = stream->present.count; most > 0 && i > 0; i--) {
        if (strcmp(stream->present.items[i - 1]->packet->subject, subject) == 0 && ++count > most)
            stream_remove_at(stream, i - 1);
    }
}

static void stream_limit_subjects(struct stream *stream)
{
    for (size_t i = stream->present.count; i > 0; i--) {
        if (i <= stream->present.count)
            stream_limit_subject(stream, stream->present.items[i - 1]->packet->subject);
    }
}

/* --- Expiry ---------------------------------------------------------------------------------------- */

/* As Go prints durations: 1h0m0s, 1m0s, 1s. */
static void add_duration(struct packet *packet, const char *name, long long seconds)
{
    if (seconds >= 3600)
        packet_add_header(packet, name, "%lldh%lldm%llds", seconds / 3600, seconds / 60 % 60, seconds % 60);
    else if (seconds >= 60)
        packet_add_header(packet, name, "%lldm%llds", seconds / 60, seconds % 60);
    else
        packet_add_header(packet, name, "%llds", seconds);
}

static void stream_leave_marker(struct stream *stream, const char *subject)
{
    int64_t ttl_ns = stream_number(stream, "subject_delete_marker_ttl");

    if (ttl_ns == 0 || stream_last(stream, subject) != NULL)
        return;
    struct packet *marker = packet_new(subject, NULL, "", 0);
    packet_add_header(marker, KV_HEADER_MARKER_REASON, "MaxAge");
    add_duration(marker, KV_HEADER_TTL, ttl_ns / 1000000000);
    packet_add_header(marker, KV_HEADER_ROLLUP, "sub");
    stream_store(stream, marker);
    consumers_on_stored(stream);
}

/* The server looks in a while, and finds what has expired by then. */
static void stream_expire(void *arg)
{
    struct stream *stream = arg;
    int64_t now_ns = world_epoch_ns(), next_ns = 0;

    if (stream->is_gone || !server_is_up(stream->server) || server_puts_off(stream->server, stream_expire, stream))
        return;
    for (size_t i = 0; i < stream->present.count;) {
        struct stored *stored = stream->present.items[i];
        if (stored->expires_ns == 0 || stored->expires_ns > now_ns) {
            if (stored->expires_ns > 0 && (next_ns == 0 || stored->expires_ns < next_ns))
                next_ns = stored->expires_ns;
            i++;
            continue;
        }
        trace("server: %s %s %llu expires", stream->name, stored->packet->subject,
              (unsigned long long)stored->sequence);
        stream_begin_operation(stream);
        stream_remove_at(stream, i);
        if (packet_header(stored->packet, KV_HEADER_MARKER_REASON) == NULL)
            stream_leave_marker(stream, stored->packet->subject);
    }
    if (next_ns > 0)
        world_after((uint64_t)(next_ns - now_ns) + world_below(WORLD_SECOND), stream_expire, stream);
}

/* The shorter one counts: the message's own TTL, or the age of all. */
static void stream_set_expiry(struct stream *stream, struct stored *stored)
{
    struct message message = {.headers = stored->packet->headers, .header_count = stored->packet->header_count};
    int64_t max_age_ns = stream_number(stream, "max_age"), ttl_ns = kv_read_ttl(&message) * 1000000000;

    if (ttl_ns <= 0 || !stream_flag(stream, "allow_msg_ttl") || (max_age_ns > 0 && max_age_ns < ttl_ns))
        ttl_ns = max_age_ns;
    stored->expires_ns = ttl_ns > 0 ? stored->time_ns + ttl_ns : 0;
    if (stored->expires_ns > 0)
        world_after((uint64_t)(stored->expires_ns - stored->time_ns) + world_below(WORLD_SECOND), stream_expire,
                    stream);
}

void stream_configure(struct stream *stream, json_t *config)
{
    json_decref(stream->config);
    stream->config = config;
    stream_begin_operation(stream);
    stream_limit_subjects(stream);
    for (size_t i = 0; i < stream->present.count; i++)
        stream_set_expiry(stream, stream->present.items[i]);
}

/* --- Storing --------------------------------------------------------------------------------------- */

struct stored *stream_store(struct stream *stream, struct packet *packet)
{
    struct stored *stored = memory_new(sizeof(*stored));
    const char *rollup = packet_header(packet, KV_HEADER_ROLLUP);

    *stored = (struct stored){
        .packet = packet, .sequence = ++stream->last_sequence, .at_ns = world_now_ns(), .time_ns = world_epoch_ns()};
    stream->last_ns = stored->time_ns;
    list_add(&stream->present, stored);
    list_add(&stream->log, stored);
    stream_update_first(stream);
    stream_note_change(stream, packet->subject);
    stream_note_id(stream, stored);
    stream_set_expiry(stream, stored);
    if (rollup != NULL)
        stream_remove(stream, strcmp(rollup, "sub") == 0 ? packet->subject : NULL, stored->sequence, 0, false);
    stream_limit_subject(stream, packet->subject);
    trace("server: %s %llu %s stored, id %s", stream->name, (unsigned long long)stored->sequence, packet->subject,
          packet_header(packet, KV_HEADER_MSG_ID) != NULL ? packet_header(packet, KV_HEADER_MSG_ID) : "none");
    return stored;
}

/* --- Followers ------------------------------------------------------------------------------------- */

static struct stored_list view_present;

void stream_forget_view(void)
{
    free(view_present.items);
    view_present = (struct stored_list){0};
}

bool stored_is_there(const struct stored *stored, uint64_t at_ns)
{
    return stored->at_ns <= at_ns && (stored->removed_ns == 0 || stored->removed_ns > at_ns);
}

const struct stream *stream_as_of(const struct stream *stream, uint64_t at_ns)
{
    static struct stream view;

    view = *stream;
    view_present.count = 0;
    view.last_sequence = 0;
    for (size_t i = 0; i < stream->log.count && stream->log.items[i]->at_ns <= at_ns; i++) {
        struct stored *stored = stream->log.items[i];
        view.last_sequence = stored->sequence;
        if (stored_is_there(stored, at_ns))
            list_add(&view_present, stored);
    }
    view.present = view_present;
    return &view;
}

/* --- The process ----------------------------------------------------------------------------------- */

void stream_keep_rest(struct stream *stream, struct packet **packets, size_t count)
{
    struct rest *rest = &stream->rest;

    for (size_t i = 0; i < rest->count; i++)
        packet_free(rest->packets[i]);
    free(rest->packets);
    *rest = (struct rest){.after = stream->last_sequence};
    for (size_t i = 0; i < count; i++) {
        rest->packets = memory_grow(rest->packets, rest->count, sizeof(*rest->packets));
        rest->packets[rest->count++] = packets[i];
    }
}

static void stream_complete_commit(struct stream *stream)
{
    struct rest *rest = &stream->rest;

    if (stream->last_sequence != rest->after || stream_at(stream, rest->after) == NULL ||
        server_store_is_full(stream->server)) {
        stream_keep_rest(stream, NULL, 0);
        return;
    }
    stream_begin_operation(stream);
    for (size_t i = 0; i < rest->count; i++) {
        struct stored *stored = stream_store(stream, rest->packets[i]);
        stored->is_of_part = stored->is_late = true;
    }
    rest->count = 0;
    stream_keep_rest(stream, NULL, 0);
}

void stream_restart(struct stream *stream)
{
    stream_forget_batches(stream);
    stream_forget_ids(stream);
    for (size_t i = 0; i < stream->present.count; i++) {
        if (stream_is_in_window(stream, stream->present.items[i]->time_ns))
            stream_note_id(stream, stream->present.items[i]);
    }
    if (stream->rest.count > 0)
        stream_complete_commit(stream);
    world_after(world_below(WORLD_SECOND), stream_expire, stream);
}

void stream_back_up(struct stream *stream)
{
    list_copy(&stream->backup, &stream->present);
    stream->backup_last = stream->last_sequence;
    stream->backup_log = stream->log.count;
    stream->has_backup = true;
}

void stream_set_back(struct stream *stream)
{
    if (!stream->has_backup)
        return;
    trace("server: %s is set back from %llu to %llu", stream->name, (unsigned long long)stream->last_sequence,
          (unsigned long long)stream->backup_last);
    list_copy(&stream->present, &stream->backup);
    stream_keep_rest(stream, NULL, 0);
    stream->was_set_back = true;
    for (size_t i = stream->backup_log; i < stream->log.count; i++)
        stream->log.items[i]->is_lost = true;
    stream->last_sequence = stream->backup_last;
    stream_update_first(stream);
}

void stream_end(struct stream *stream)
{
    consumers_drop(stream);
    stream->is_gone = true;
}

void stream_lose(struct stream *stream)
{
    if (stream->is_gone)
        return;
    trace("server: %s is lost", stream->name);
    stream_end(stream);
    stream->was_set_back = true;
    for (size_t i = 0; i < stream->log.count; i++)
        stream->log.items[i]->is_lost = true;
}
