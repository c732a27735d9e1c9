/*
 * access: who may do what to which bucket.
 *
 * Used by dispatch before each call that names a bucket, and by the handler that
 * lists buckets. The rules are those of the configuration: the first one that names
 * the peer and the bucket decides; where there are rules and none fits, nothing is
 * allowed; where there are no rules, everything is. If the groups of a peer cannot be read,
 * a rule by group holds for it as far as it takes rights away, and gives none.
 */
#ifndef DAEMON_ACCESS_H
#define DAEMON_ACCESS_H

#include "conf/conf.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define ACCESS_RULES_MAX 64u

/* The rules with users and groups as numbers. */
struct access {
    struct access_rule *rules;
    size_t count;
    unsigned generation; /* changes with the rules */
};

/* Which rules name a peer; a session keeps it. Zeroed: not looked at yet. */
struct access_peer {
    uint64_t rules;
    uint64_t doubtful; /* rules that may apply to the peer: its groups could not be read */
    unsigned generation;
};

/*
 * Translates the rules of *conf, which is borrowed until the next translation. 0, or -1
 * with a sentence in error (an unknown user or group); then the old rules stay.
 */
int access_set_rules(struct access *access, const struct conf *conf, char error[CONF_ERROR_BYTES]);
void access_free(struct access *access);

/* What the process at the other end of socket may do to bucket. */
enum conf_access access_of(const struct access *access, struct access_peer *peer, int socket, const char *bucket);

#endif
