/*
 * watched_bucket: how many buckets each user watches, or has locks and ephemeral keys in.
 *
 * Used by watch, waiting_get and session_holding. Followed buckets are limited (watches.max_buckets), and one user gets
 * a share of them (limits.user_percent). A bucket that several users watch counts for each of them, but is followed
 * once: so only the share is checked here, and the limit where the bucket is followed.
 */
#ifndef DAEMON_HANDLERS_WATCHED_BUCKET_H
#define DAEMON_HANDLERS_WATCHED_BUCKET_H

#include "daemon/handlers/service.h"
#include "daemon/transport/usage.h"

struct watched_bucket;

/*
 * Count one more watch of a user. NULL: *error says why it is refused. The user exists until watched_bucket_release was
 * called.
 */
struct watched_bucket *watched_bucket_hold(struct service *service, struct user *user, const char *name,
                                           struct error *error);

/* One watch less. watched may be NULL. */
void watched_bucket_release(struct service *service, struct user *user, struct watched_bucket *watched);

#endif
