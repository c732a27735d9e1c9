/*
 * shrink: checks whether new settings of a bucket would remove what it stores.
 *
 * Used by admin before an update. The server applies a smaller history, ttl or max_bytes at once, and cannot undo it.
 */
#ifndef DAEMON_STORE_SHRINK_H
#define DAEMON_STORE_SHRINK_H

#include "daemon/store/bucket/settings.h"

/*
 * Return false with an error if the given settings would remove values of the bucket, or leave no room for any. A new
 * ttl would also end the locks and ephemeral keys that sessions have there, held of them. info is
 * an answer of STREAM.INFO. It has no count for each key, which would take long. So the check refuses a smaller history
 * if it could remove values, even if it would not.
 */
bool shrink_check(json_t *info, const struct bucket_config *config, unsigned held, struct error *error);

#endif
