/*
 * Changes a value that many programs may change at once: read it, and write it only if it is unchanged; otherwise start
 * again. Here the change is an increment, for which kvs_increment is faster. Before: kvctl add demo
 */
#include <kvstore.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* One round. KVS_CONFLICT: another program changed the counter after the read. */
static enum kvs_code try_to_count(struct kvs *kvs, uint64_t *counter)
{
    /* The leader has every earlier write. Another replica may be behind, which would cost one more round. */
    struct kvs_get_options options = KVS_GET_OPTIONS(.consistency = KVS_CONSISTENCY_LEADER);
    struct kvs_entry *entry;
    uint64_t revision = 0; /* it does not exist yet */
    char text[24];

    enum kvs_code code = kvs_get(kvs, "demo", "counter", &options, &entry);
    if (code != KVS_OK)
        return code;
    *counter = 0;
    if (entry != NULL) {
        *counter = strtoull(entry->value, NULL, 10);
        revision = entry->revision;
        kvs_free(entry);
    }

    ++*counter;
    int length = snprintf(text, sizeof(text), "%" PRIu64, *counter);
    return kvs_update(kvs, "demo", "counter", text, (size_t)length, revision, NULL, NULL);
}

int main(void)
{
    struct kvs_error error;
    struct kvs *kvs = kvs_connect(NULL, NULL, &error);
    enum kvs_code code;
    uint64_t counter = 0;

    if (kvs == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    while ((code = try_to_count(kvs, &counter)) == KVS_CONFLICT)
        ;
    if (code == KVS_OK)
        printf("%" PRIu64 "\n", counter);
    else
        fprintf(stderr, "%s\n", kvs_last_error(kvs)->message);
    kvs_close(kvs);
    return code == KVS_OK ? 0 : 1;
}
