/* Writes a key and reads it back. Before: kvctl add demo */
#include <kvstore.h>

#include <inttypes.h>
#include <stdio.h>

int main(void)
{
    struct kvs_error error;
    struct kvs *kvs = kvs_connect(NULL, NULL, &error);
    struct kvs_entry *entry;
    uint64_t revision;
    int status = 1;

    if (kvs == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    if (kvs_put(kvs, "demo", "greeting", "hello", 5, NULL, &revision) != KVS_OK ||
        kvs_get(kvs, "demo", "greeting", NULL, &entry) != KVS_OK) {
        fprintf(stderr, "%s\n", kvs_last_error(kvs)->message);
    } else if (entry == NULL) {
        fprintf(stderr, "the key was deleted meanwhile\n");
    } else {
        printf("%s = %s (revision %" PRIu64 ")\n", entry->key, entry->value, entry->revision);
        kvs_free(entry);
        status = 0;
    }
    kvs_close(kvs);
    return status;
}
