#include "daemon/store/follow/horizon.h"

#include <stdlib.h>
#include <string.h>

uint64_t horizon_read(const struct kv_entry *entry)
{
    const char *text = entry != NULL ? message_header(entry->message, KV_HEADER_COMPACTED) : NULL;

    return text != NULL ? strtoull(text, NULL, 10) : 0;
}
