/*
 * room_gauge: bytes that are used, or free, as answers tell now and then, and the writes that are not in them yet.
 *
 * Used by room, for the server's store and for its disk. An answer counts a write for certain only if the write had
 * ended before the question was sent: one that is under way may be stored after the answer. So each write counts beside
 * the answers until one to a later question has come, however long the server takes.
 */
#ifndef DAEMON_STORE_ROOM_GAUGE_H
#define DAEMON_STORE_ROOM_GAUGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of writes, all since the start. Zeroed at first. */
struct room_writes {
    uint64_t admitted;
    uint64_t ended;    /* of those that were admitted */
    uint64_t in_doubt; /* that have ended for their callers, but may be stored yet */
};

void room_writes_admit(struct room_writes *writes, size_t bytes);

/* A write has ended. is_in_doubt: it may be stored later. It counts as under way until room_writes_settle. */
void room_writes_end(struct room_writes *writes, size_t bytes, bool is_in_doubt);

/* The server answers: what it has been sent, it stores before it answers another question. */
void room_writes_settle(struct room_writes *writes);

/* Zeroed at first. */
struct room_gauge {
    bool is_known;
    uint64_t bytes;   /* as the last answer told */
    uint64_t counted; /* bytes of writes that are in it for certain */
    uint64_t asked;   /* bytes of writes that will be in the next answer for certain */
};

/* A question is sent; and its answer comes. */
void room_gauge_ask(struct room_gauge *gauge, const struct room_writes *writes);
void room_gauge_tell(struct room_gauge *gauge, uint64_t bytes);

/* Bytes of the writes that may not be in the last answer. */
uint64_t room_gauge_missing(const struct room_gauge *gauge, const struct room_writes *writes);

#endif
