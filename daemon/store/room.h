/*
 * room: decides whether the embedded server's store has room for a write.
 *
 * Used by the store's writes and by health. A nats-server whose disk is full stops writing to a bucket until it is
 * restarted. One that reaches its own limit refuses even deletes, or stops in the middle of a batch. Neither must
 * happen. So the server's limit is nats.max_store plus a reserve, and the daemon refuses values before the store has
 * nats.max_store bytes, and before the disk has less free than the reserve. Deletes and purges may use the reserve. The
 * daemon asks the server every second how much is used, and adds the writes that the answer may have missed.
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
    /* Restart a server that can no longer write. Return false if it cannot be restarted now. */
    bool (*restart)(void *arg);
    void *restart_arg;

    /* private */
    struct store *store;
    struct timer timer;
    struct jetstream_call info;
    uv_fs_t statfs_request;
    bool is_running;         /* in embedded mode only */
    bool account_is_pending; /* the server is asked what it uses */
    bool disk_is_pending;    /* statfs runs on a thread */
    uint64_t next_ms;        /* loop time of the next measurement */
    struct room_writes writes;
    struct room_gauge used; /* in the store */
    struct room_gauge free; /* on the disk */
    uint64_t disk_bytes;    /* the size of the disk */
    uint64_t refused_ms;    /* loop time of the last refusal; 0: none */
    char refusal[256];      /* its reason */
    bool is_broken;         /* the server has reported that it cannot write */
    char trouble[256];      /* for health; "": there is room */
};

/* Start measuring, in embedded mode only. */
void room_start(struct store *store);
void room_stop(struct store *store);

/* The connection is up: the server can be asked. */
void room_note_connected(struct store *store);

/* true: the server has reported that it can no longer write to a stream. false: a new server was started. */
void room_note_broken(struct store *store, bool is_broken);

/*
 * Return whether a write of this size, headers included, may be sent. is_value: it is a put; other writes may use
 * the reserve. If it may, bytes are added to *admitted_bytes, and the owner calls room_end later. If not, *error says
 * what is full.
 */
bool room_admit(struct store *store, size_t bytes, bool is_value, size_t *admitted_bytes, struct error *error);

/* Writes with this sum of admitted bytes have ended. is_in_doubt: they may be stored later. */
void room_end(struct store *store, size_t admitted_bytes, bool is_in_doubt);

/* Return the bytes of the disk that are reserved for deletes and purges; 0 before its size is known. */
uint64_t room_reserve(const struct room *room);

/* Return why values are refused now, for health; NULL: they are not. */
static inline const char *room_trouble(const struct room *room)
{
    return room->trouble[0] != '\0' ? room->trouble : NULL;
}

/* Return whether both the store and the disk have been measured. */
static inline bool room_is_known(const struct room *room)
{
    return room->used.is_known && room->free.is_known;
}

/* Return the bytes used in the store, and those free on the disk, with the writes in flight taken into account. */
uint64_t room_used(const struct room *room);
uint64_t room_free(const struct room *room);

#endif
