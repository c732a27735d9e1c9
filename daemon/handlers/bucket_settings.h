/*
 * bucket_settings: the settings of a bucket, from the options of a call and into the answer that describes the bucket.
 *
 * Used by bucket. The settings: proto/protocol.md, "A bucket's settings, and its info".
 */
#ifndef DAEMON_HANDLERS_BUCKET_SETTINGS_H
#define DAEMON_HANDLERS_BUCKET_SETTINGS_H

#include "daemon/rpc/call.h"
#include "daemon/store/bucket/admin.h"
#include "daemon/store/bucket/settings.h"

#include <msgpack.h>

/* Read all settings that the call gives. The result lives in the call's arena. NULL: the call is answered. */
struct bucket_config *bucket_settings_read(struct call *call);

/* Pack the info of a bucket: its settings, its size, and what it can. */
void bucket_settings_pack_info(msgpack_packer *packer, const struct bucket_info *info);

#endif
