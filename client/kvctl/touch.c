/* The verb touch. */
#include "client/kvctl/kvctl.h"

#include <inttypes.h>
#include <stdio.h>

enum status touch_run(struct invocation *invocation)
{
    struct kvs_touch_options options = KVS_TOUCH_OPTIONS(.timeout_s = invocation->timeout_s);
    const char *bucket = invocation->arguments[0], *key = invocation->arguments[1];
    uint64_t revision = 0;
    int64_t ttl_s;

    if (!arguments_number(invocation, "revision", &options.revision) ||
        !arguments_read_duration(invocation->arguments[2], "TIME", &ttl_s))
        return STATUS_FAILED;
    if (kvs_touch(invocation->kvs, bucket, key, ttl_s > 0 ? ttl_s : 0, &options, &revision) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    if (revision > 0) {
        printf(invocation->json ? "{\"revision\":%" PRIu64 "}\n" : "%" PRIu64 "\n", revision);
        return STATUS_OK;
    }
    if (invocation->json)
        puts("null");
    return report_absent("key %s does not exist in bucket %s", key, bucket);
}
