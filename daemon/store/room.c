#include "daemon/store/room.h"

#include "daemon/base/log.h"
#include "daemon/store/context.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MEASURE_INTERVAL_MS 1000u
/* The interval after a refusal: the writes that were admitted may have replaced others. */
#define MEASURE_SOON_MS 100u

/* The reserve is at most this part of the disk. */
#define RESERVE_PART 10u

/* How long health reports a refusal. */
#define REFUSED_MS 5000u

uint64_t room_reserve(const struct room *room)
{
    uint64_t part = room->disk_bytes / RESERVE_PART;

    return part < CONF_STORE_RESERVE_BYTES ? part : CONF_STORE_RESERVE_BYTES;
}

static uint64_t limit_of(const struct room *room)
{
    return room->store->conf->nats.max_store_bytes;
}

uint64_t room_used(const struct room *room)
{
    return room->used.bytes + room_gauge_missed(&room->used, &room->writes);
}

uint64_t room_free(const struct room *room)
{
    uint64_t taken = room_gauge_missed(&room->free, &room->writes);

    return room->free.bytes > taken ? room->free.bytes - taken : 0;
}

/* --- What is wrong --------------------------------------------------------------------------------- */

/* Return whether the disk has less than the reserve free after another write of this size. */
static bool disk_is_full(const struct room *room, size_t bytes)
{
    return room->free.is_known && room_free(room) < room_reserve(room) + bytes;
}

static bool store_is_full(const struct room *room)
{
    uint64_t limit = limit_of(room);

    return room->used.is_known && limit > 0 && room_used(room) >= limit;
}

static bool has_refused(const struct room *room)
{
    return room->refused_ms > 0 && uv_now(room->store->loop) - room->refused_ms < REFUSED_MS;
}

static void write_disk_trouble(const struct room *room, char *text, size_t size)
{
    snprintf(text, size,
             "the disk of nats.data_dir is full: %" PRIu64 " bytes are free, of which %" PRIu64
             " are reserved for deletes and purges; delete something, or free space on the disk",
             room_free(room), room_reserve(room));
}

static void write_store_trouble(const struct room *room, char *text, size_t size)
{
    snprintf(text, size,
             "the store is full: %" PRIu64 " of %" PRIu64
             " bytes are used (nats.max_store); delete something, or raise the limit",
             room_used(room), limit_of(room));
}

static void write_broken_trouble(char *text, size_t size)
{
    snprintf(text, size,
             "nats-server could not write to the disk of nats.data_dir; kvstored restarts it when there is room");
}

static void update_trouble(struct room *room)
{
    bool was_well = room->trouble[0] == '\0';

    room->trouble[0] = '\0';
    if (room->is_broken)
        write_broken_trouble(room->trouble, sizeof(room->trouble));
    else if (disk_is_full(room, 0))
        write_disk_trouble(room, room->trouble, sizeof(room->trouble));
    else if (store_is_full(room))
        write_store_trouble(room, room->trouble, sizeof(room->trouble));
    else if (has_refused(room))
        snprintf(room->trouble, sizeof(room->trouble), "%s", room->refusal);
    if (was_well && room->trouble[0] != '\0')
        log_error("store: refusing values: %s", room->trouble);
    else if (!was_well && room->trouble[0] == '\0')
        log_info("store: accepting values again: there is room");
}

/* --- Measuring ------------------------------------------------------------------------------------- */

static void on_room_timer(struct timer *timer);

static void measure_later(struct room *room, unsigned after_ms)
{
    uint64_t at_ms = uv_now(room->store->loop) + after_ms;

    if (!room->is_running || room->account_is_pending || room->disk_is_pending ||
        (timer_is_set(&room->timer) && room->next_ms <= at_ms))
        return;
    room->next_ms = at_ms;
    timer_start(room->store->timers, &room->timer, at_ms, on_room_timer);
}

static void room_on_account_info(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct room *room = arg;

    (void)err_code;
    (void)error;
    room->account_is_pending = false;
    if (answer != NULL) {
        room_gauge_complete(&room->used, (uint64_t)json_integer_value(json_object_get(answer, "storage")));
        room_writes_resolve(&room->writes);
    }
    update_trouble(room);
    measure_later(room, MEASURE_INTERVAL_MS);
}

void room_note_connected(struct store *store)
{
    measure_later(&store->room, 0);
}

/* Restart a server that cannot write as soon as the disk has some room. Deletes can then free more. */
static void restart_broken_server(struct room *room)
{
    if (!room->is_broken || !room->free.is_known || room->free.bytes < room_reserve(room) / 4)
        return;
    room->is_broken = !room->restart(room->restart_arg);
}

static void on_disk_measured(uv_fs_t *request)
{
    struct room *room = request->data;

    room->disk_is_pending = false;
    if (request->result == 0) {
        const uv_statfs_t *disk = request->ptr;
        room_gauge_complete(&room->free, disk->f_bavail * disk->f_bsize);
        room->disk_bytes = disk->f_blocks * disk->f_bsize;
    }
    uv_fs_req_cleanup(request);
    if (!room->is_running)
        return;
    restart_broken_server(room);
    update_trouble(room);
    measure_later(room, room->used.is_known ? MEASURE_INTERVAL_MS : MEASURE_SOON_MS);
}

static void on_room_timer(struct timer *timer)
{
    struct room *room = (struct room *)((char *)timer - offsetof(struct room, timer));
    struct store *store = room->store;

    room->statfs_request.data = room;
    room_gauge_begin(&room->free, &room->writes);
    room->disk_is_pending =
        uv_fs_statfs(store->loop, &room->statfs_request, store->conf->nats.data_dir, on_disk_measured) == 0;
    if (connection_is_up(store->connection)) {
        room->account_is_pending = true;
        room_gauge_begin(&room->used, &room->writes);
        jetstream_call(&store->jetstream, &room->info, "INFO", NULL, NULL,
                       uv_now(store->loop) + 2 * MEASURE_INTERVAL_MS, room_on_account_info, room);
    }
    measure_later(room, MEASURE_INTERVAL_MS);
}

void room_start(struct store *store)
{
    struct room *room = &store->room;

    room->store = store;
    if (store->conf->nats.mode != CONF_NATS_EMBEDDED)
        return;
    room->is_running = true;
    measure_later(room, 0);
}

void room_stop(struct store *store)
{
    struct room *room = &store->room;

    if (!room->is_running)
        return;
    room->is_running = false;
    timer_stop(store->timers, &room->timer);
    if (room->account_is_pending)
        jetstream_cancel(&room->info);
    room->account_is_pending = false;
    if (room->disk_is_pending)
        uv_cancel((uv_req_t *)&room->statfs_request); /* if this fails, it ends by itself before the loop does */
}

void room_note_broken(struct store *store, bool is_broken)
{
    store->room.is_broken = is_broken;
    if (store->room.is_running)
        update_trouble(&store->room);
}

/* --- Admitting ------------------------------------------------------------------------------------- */

bool room_admit(struct store *store, size_t bytes, bool is_value, size_t *admitted_bytes, struct error *error)
{
    struct room *room = &store->room;
    uint64_t limit = limit_of(room);

    if (!room->is_running)
        return true;
    if (room->is_broken) {
        write_broken_trouble(room->refusal, sizeof(room->refusal));
    } else if (is_value && disk_is_full(room, bytes)) {
        write_disk_trouble(room, room->refusal, sizeof(room->refusal));
    } else if (is_value && limit > 0 && room->used.is_known && room_used(room) + bytes > limit) {
        write_store_trouble(room, room->refusal, sizeof(room->refusal));
    } else {
        room_writes_admit(&room->writes, bytes);
        *admitted_bytes += bytes;
        return true;
    }
    room->refused_ms = uv_now(store->loop);
    update_trouble(room);
    measure_later(room, MEASURE_SOON_MS);
    error_set(error, ERROR_RESOURCE_EXHAUSTED, "%s", room->refusal);
    return false;
}

void room_end(struct store *store, size_t admitted_bytes, bool is_in_doubt)
{
    room_writes_end(&store->room.writes, admitted_bytes, is_in_doubt);
}
