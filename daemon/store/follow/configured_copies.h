/*
 * configured_copies: keeps local copies of the buckets that cache.buckets names.
 *
 * Used by follow.
 */
#ifndef DAEMON_STORE_CONFIGURED_COPIES_H
#define DAEMON_STORE_CONFIGURED_COPIES_H

#include "daemon/store/context.h"

/*
 * Follow the buckets that cache.buckets names. Call it when the connection is up, when a bucket was created, and when
 * the configuration was read again. Every reconcile interval it also looks for buckets that others have created.
 */
void configured_copies_follow(struct store *store);

#endif
