/*
 * A registry of services: registry [NAME ADDRESS [CHANGES]]. The process registers itself under services.NAME until it
 * ends, and prints the services that are registered, then each one that is added or removed. It ends after CHANGES
 * lines. Before: kvctl add demo
 */
#include <kvstore.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_change(const struct kvs_entry *entry)
{
    const char *name = entry->key + strlen("services.");

    if (entry->operation == KVS_OPERATION_PUT)
        printf("%s is at %s\n", name, entry->value);
    else
        printf("%s has gone\n", name);
    fflush(stdout);
}

/* Print this number of changes. False if the watch has ended. */
static bool follow(struct kvs *kvs, long changes)
{
    const char *filters[] = {"services.*"};
    struct kvs_watch_options options = KVS_WATCH_OPTIONS(.filters = filters, .filter_count = 1);
    struct kvs_event event = {.type = KVS_EVENT_NONE};
    struct kvs_watch *watch;
    bool is_ready = false;

    if (kvs_watch(kvs, "demo", &options, &watch) != KVS_OK)
        return false;
    while (changes > 0 && kvs_watch_next(watch, -1, &event) == KVS_OK && event.type != KVS_EVENT_ENDED) {
        is_ready = is_ready || event.type == KVS_EVENT_READY;
        /* Before the watch is ready there are also the markers of services that have gone long ago. */
        if (event.type == KVS_EVENT_ENTRY && (is_ready || event.entry->operation == KVS_OPERATION_PUT)) {
            print_change(event.entry);
            changes--;
        }
    }
    kvs_watch_stop(watch);
    return changes == 0;
}

static void on_lost(struct kvs *kvs, const struct kvs_error *error, void *context)
{
    (void)kvs;
    (void)context;
    fprintf(stderr, "%s is no longer registered: %s\n", error->key, error->message);
}

int main(int argc, char **argv)
{
    /* With reconnect the library registers the process again when the daemon has restarted. */
    struct kvs_options options = KVS_OPTIONS(.reconnect = true, .on_ephemeral_lost = on_lost);
    struct kvs_put_options ephemeral = KVS_PUT_OPTIONS(.ephemeral = true);
    const char *address = argc > 2 ? argv[2] : "localhost";
    struct kvs_error error;
    struct kvs *kvs = kvs_connect(NULL, &options, &error);
    char key[256];

    if (kvs == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    snprintf(key, sizeof(key), "services.%s", argc > 1 ? argv[1] : "example");
    bool is_well = kvs_put(kvs, "demo", key, address, strlen(address), &ephemeral, NULL) == KVS_OK &&
                   follow(kvs, argc > 3 ? atol(argv[3]) : 1);
    if (!is_well)
        fprintf(stderr, "%s\n", kvs_last_error(kvs)->message);
    kvs_close(kvs);
    return is_well ? 0 : 1;
}
