/* Writes, reads and deletes many keys with one request each, and says which failed. Before: kvctl add demo */
#include <kvstore.h>

#include <inttypes.h>
#include <stdio.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct kvs_pair pairs[] = {
    {"host.name", "db1", 3},
    {"host..name", "?", 1}, /* not a valid key: only this one fails */
    {"host.port", "5432", 4},
};
static const char *const keys[] = {"host.name", "host.user", "host.port"};

static enum kvs_code write_all(struct kvs *kvs)
{
    struct kvs_bulk_result *results;

    enum kvs_code code = kvs_bulk_put(kvs, "demo", pairs, COUNT(pairs), NULL, &results, NULL);
    for (size_t i = 0; i < COUNT(pairs) && code == KVS_OK; i++) {
        if (results[i].error != NULL)
            printf("%s: not written: %s\n", pairs[i].key, results[i].error->message);
        else
            printf("%s: written, revision %" PRIu64 "\n", pairs[i].key, results[i].revision);
    }
    kvs_free(results);
    return code;
}

static enum kvs_code read_all(struct kvs *kvs)
{
    struct kvs_entry **entries;

    /* All values are of one point in time. */
    enum kvs_code code = kvs_bulk_get(kvs, "demo", keys, COUNT(keys), NULL, &entries);
    for (size_t i = 0; i < COUNT(keys) && code == KVS_OK; i++)
        printf("%s = %s\n", keys[i], entries[i] != NULL ? entries[i]->value : "(does not exist)");
    kvs_free(entries);
    return code;
}

int main(void)
{
    struct kvs_error error;
    struct kvs *kvs = kvs_connect(NULL, NULL, &error);
    enum kvs_code code;

    if (kvs == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    if ((code = write_all(kvs)) == KVS_OK && (code = read_all(kvs)) == KVS_OK)
        code = kvs_bulk_delete(kvs, "demo", keys, COUNT(keys), NULL, NULL,
                               NULL); /* or the error of the first key that fails */
    if (code != KVS_OK)
        fprintf(stderr, "%s\n", kvs_last_error(kvs)->message);
    kvs_close(kvs);
    return code == KVS_OK ? 0 : 1;
}
