/*
 * access: which peers may do what with which buckets.
 *
 * Used by dispatch before each call that names a bucket, and by the handlers of watches and bucket.list. The rules are
 * those of the configuration. The first one that names the peer and the bucket decides. If there are rules and none
 * matches, nothing is allowed; without rules, everything is. If the groups of a peer cannot be read, a rule by group
 * can take rights away from the peer, and gives it none.
 */
#ifndef DAEMON_RPC_ACCESS_H
#define DAEMON_RPC_ACCESS_H

#include "conf/conf.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define ACCESS_RULES_MAX 64u

/* The rules, with users and groups as numbers. */
struct access {
    struct access_rule *rules;
    size_t count;
    unsigned generation; /* changes with the rules */
};

/* Which rules name a peer. A session keeps it, zeroed at first. */
struct access_peer {
    uint64_t rules;
    uint64_t doubtful; /* rules that may apply to the peer: its groups could not be read */
    unsigned generation;
};

/*
 * Translate the rules of *conf, which is borrowed until the next translation. 0, or -1 with a sentence in error, such
 * as an unknown user or group: then the old rules stay.
 */
int access_set_rules(struct access *access, const struct conf *conf, char error[CONF_ERROR_BYTES]);
/* Move the rules of *fresh into *access; *fresh is then empty. */
void access_replace(struct access *access, struct access *fresh);
void access_free(struct access *access);

/* Return what the process at the other end of socket may do with the bucket. */
enum conf_access access_of(const struct access *access, struct access_peer *peer, int socket, const char *bucket);

/* Return what it may do with every bucket. A pattern of a rule stands for all buckets only if it is `*`. */
enum conf_access access_of_all(const struct access *access, struct access_peer *peer, int socket);

#endif
