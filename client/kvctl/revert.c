/* The verb revert: writes an earlier value of a key again. */
#include "client/kvctl/kvctl.h"

#include <inttypes.h>
#include <stdio.h>

static enum status revert_print(const struct invocation *invocation, uint64_t revision)
{
    printf(invocation->json ? "{\"revision\":%" PRIu64 "}\n" : "%" PRIu64 "\n", revision);
    return STATUS_OK;
}

/* Write the earlier entry, if the key is still at this revision. */
static enum status revert_write(struct invocation *invocation, const struct kvs_entry *earlier, uint64_t expected)
{
    struct kvs_put_options options =
        KVS_PUT_OPTIONS(.ttl_s = earlier->ttl_s, .headers = earlier->headers, .header_count = earlier->header_count,
                        .timeout_s = invocation->timeout_s);
    uint64_t revision;

    if (kvs_update(invocation->kvs, invocation->arguments[0], invocation->arguments[1], earlier->value,
                   earlier->value_size, expected, &options, &revision) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    return revert_print(invocation, revision);
}

enum status revert_run(struct invocation *invocation)
{
    const char *bucket = invocation->arguments[0], *key = invocation->arguments[1];
    struct kvs_get_options options =
        KVS_GET_OPTIONS(.consistency = KVS_CONSISTENCY_LEADER, .timeout_s = invocation->timeout_s);
    struct kvs_get_options past = options;
    struct kvs_entry *earlier, *present = NULL;

    if (!arguments_read_number(invocation->arguments[2], "REVISION", &past.revision))
        return STATUS_FAILED;
    if (past.revision == 0)
        return report("REVISION must be at least 1, not 0");
    if (kvs_get(invocation->kvs, bucket, key, &past, &earlier) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    if (earlier == NULL)
        return report_absent("the history of key %s in bucket %s has no value of revision %s: see kvctl history", key,
                             bucket, invocation->arguments[2]);
    enum status status;
    if (kvs_get(invocation->kvs, bucket, key, &options, &present) != KVS_OK)
        status = report_error(kvs_last_error(invocation->kvs));
    else if (present != NULL && present->revision == past.revision)
        status = revert_print(invocation, present->revision);
    else
        status = revert_write(invocation, earlier, present != NULL ? present->revision : 0);
    kvs_free(earlier);
    kvs_free(present);
    return status;
}
