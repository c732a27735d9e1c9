/*
 * feed_info: what an answer of STREAM.INFO says about the state of a bucket's stream.
 */
#ifndef DAEMON_STORE_FEED_INFO_H
#define DAEMON_STORE_FEED_INFO_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* The state of the stream when it was last asked for. */
struct feed_info {
    uint64_t first_sequence; /* earlier messages no longer exist */
    uint64_t last_sequence;
    int64_t last_us;   /* time at which the message with last_sequence was stored */
    uint64_t subjects; /* that have a message: keys, deleted ones with a marker included */
    uint64_t bytes;    /* of all messages */
    unsigned replicas;
    bool expires_silently; /* values may expire without a marker */
    bool has_origin;       /* it is a mirror, or has sources */
    int64_t max_age_us;    /* of each message; 0: no limit */
};

/*
 * Return whether the stream no longer has this message: it was purged or overwritten. The leader has answered that;
 * the feed, and a reading, may be of a follower that is behind and still has it.
 */
static inline bool feed_info_lacks(const struct feed_info *info, uint64_t sequence)
{
    return sequence < info->first_sequence;
}

/* Read it from an answer of STREAM.INFO. */
void feed_read_info(json_t *answer, struct feed_info *info);

#endif
