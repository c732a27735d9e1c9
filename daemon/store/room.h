/*
 * room: whether the embedded server's store may take more.
 *
 * Used by the store's writes, and by health. A nats-server that meets a full disk stops to write to the bucket until it
 * is started anew, and one that reaches its own limit refuses even deletes, or stops in the middle of a batch. So it
 * must not come so far: the server's limit is nats.max_store and a reserve, and the daemon refuses values before the
 * store has nats.max_store bytes, and before the disk has less than the reserve. Deletes and purges may use the
 * reserve. What is used is asked of the server every second; writes that may not be in its answer count beside it.
 */
#ifndef DAEMON_STORE_ROOM_H
#define DAEMON_STORE_ROOM_H

#include "daemon/base/timers.h"
#include "daemon/nats/jetstream.h"
#include "daemon/store/room_gauge.h"
#include "proto/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct store;

struct room {
    /* Restarts a server that can no longer write. False: it cannot be restarted now. */
    bool (*restart)(void *arg);
    void *restart_arg;

    /* private */
    struct store *store;
    struct timer timer;
    struct jetstream_call info;
    uv_fs_t look;
    bool is_asking, is_looking, is_running;
    uint64_t next_ms; /* loop time when it is asked again */
    struct room_writes writes;
    struct room_gauge used; /* in the store */
    struct room_gauge free; /* on the disk */
    uint64_t disk_bytes;    /* the size of the disk */
    uint64_t refused_ms;    /* loop time of the last value that was refused; 0: none was */
    char refusal[256];      /* why */
    bool is_broken;         /* the server has said that it cannot write */
    char trouble[256];      /* for health; "": there is room */
};

/* Begins to ask; only in embedded mode. */
void room_start(struct store *store);
void room_stop(struct store *store);

/* The server can be asked. */
void room_note_connected(struct store *store);

/* The server has said that it cannot write to a stream any more; or another one is started. */
void room_note_broken(struct store *store, bool is_broken);

/*
 * Whether a write of so many bytes, with its headers, may be sent; is_value: it is a put, others need no more than the
 * reserve. True: they are added to *admitted_bytes, and the owner calls room_end. False: *error says what is full.
 */
bool room_admit(struct store *store, size_t bytes, bool is_value, size_t *admitted_bytes, struct error *error);

/* The write, or all of them, that admitted so many bytes has ended. is_in_doubt: it may be stored all the same. */
void room_end(struct store *store, size_t admitted_bytes, bool is_in_doubt);

/* Bytes of the disk that are kept free for deletes and purges; 0 before its size is known. */
uint64_t room_reserve(const struct room *room);

/* Why values are refused now, for health; NULL: they are not. */
static inline const char *room_trouble(const struct room *room)
{
    return room->trouble[0] != '\0' ? room->trouble : NULL;
}

/* Whether both are known by now. */
static inline bool room_is_known(const struct room *room)
{
    return room->used.is_known && room->free.is_known;
}

/* Bytes used in the store, and free on the disk. Both count the writes that are under way. */
uint64_t room_used(const struct room *room);
uint64_t room_free(const struct room *room);

#endif
