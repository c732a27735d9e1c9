/*
 * room_gauge: a measured number of bytes, and the writes that the measurement may have missed.
 *
 * Used by room, for the bytes used in the server's store and for those free on its disk. A measurement surely includes
 * a write only if the write had ended before the measurement began: a write in flight may be stored after it. So each
 * write is counted beside the measurements until one is complete that began after the write's end, however long the
 * server takes.
 */
#ifndef DAEMON_STORE_ROOM_GAUGE_H
#define DAEMON_STORE_ROOM_GAUGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of writes, all since the start. Zeroed at first. */
struct room_writes {
    uint64_t admitted;
    uint64_t ended;    /* of those admitted */
    uint64_t in_doubt; /* of those that have ended for their callers, but may be stored later */
};

void room_writes_admit(struct room_writes *writes, size_t bytes);

/* A write has ended. is_in_doubt: it may be stored later, and counts as in flight until room_writes_resolve. */
void room_writes_end(struct room_writes *writes, size_t bytes, bool is_in_doubt);

/* The server has answered: it stores what it received before it answers a later request. */
void room_writes_resolve(struct room_writes *writes);

/* Zeroed at first. */
struct room_gauge {
    bool is_known;
    uint64_t bytes;    /* as measured last */
    uint64_t included; /* bytes of writes that this measurement surely includes */
    uint64_t begun;    /* bytes of writes that the measurement in progress surely includes */
};

/* A measurement begins; and it is complete. */
void room_gauge_begin(struct room_gauge *gauge, const struct room_writes *writes);
void room_gauge_complete(struct room_gauge *gauge, uint64_t bytes);

/* Return the bytes of the writes that the last measurement may have missed. */
uint64_t room_gauge_missed(const struct room_gauge *gauge, const struct room_writes *writes);

#endif
