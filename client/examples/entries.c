/* Reads all keys under a prefix with their values, a page at a time, and deletes them. Before: kvctl add demo */
#include <kvstore.h>

#include <inttypes.h>
#include <stdio.h>

static const struct kvs_pair hosts[] = {
    {"hosts.db1", "10.0.0.1", 8}, {"hosts.db2", "10.0.0.2", 8}, {"hosts.web1", "10.0.0.3", 8}};

/* Each page is of one point in time. A page may be short: only an empty one is the end. */
static enum kvs_code print_hosts(struct kvs *kvs)
{
    char after[KVS_KEY_MAX + 1] = "";
    struct kvs_entries_options options = KVS_ENTRIES_OPTIONS(.filter = "hosts.>", .limit = 2, .after = after);
    struct kvs_entry *entries;
    enum kvs_code code;
    size_t count;

    while ((code = kvs_entries(kvs, "demo", &options, &entries, &count)) == KVS_OK && count > 0) {
        for (size_t i = 0; i < count; i++)
            printf("%s = %s (revision %" PRIu64 ")\n", entries[i].key, entries[i].value, entries[i].revision);
        snprintf(after, sizeof(after), "%s", entries[count - 1].key);
        kvs_free(entries);
    }
    kvs_free(entries);
    return code;
}

int main(void)
{
    struct kvs_error error;
    struct kvs *kvs = kvs_connect(NULL, NULL, &error);
    uint64_t deleted = 0;
    enum kvs_code code;

    if (kvs == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    if ((code = kvs_bulk_put(kvs, "demo", hosts, sizeof(hosts) / sizeof(*hosts), NULL, NULL, NULL)) == KVS_OK &&
        (code = print_hosts(kvs)) == KVS_OK)
        code = kvs_delete_matching(kvs, "demo", "hosts.>", NULL, &deleted);
    if (code == KVS_OK)
        printf("deleted: %" PRIu64 "\n", deleted);
    else
        fprintf(stderr, "%s\n", kvs_last_error(kvs)->message);
    kvs_close(kvs);
    return code == KVS_OK ? 0 : 1;
}
