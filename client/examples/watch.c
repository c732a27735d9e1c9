/*
 * Watches the bucket demo: prints its entries, then each change, also across restarts of the daemon. With an argument N
 * it ends after N entries. Before: kvctl add demo
 */
#include <kvstore.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void print_entry(const struct kvs_entry *entry)
{
    if (entry->operation == KVS_OPERATION_PUT)
        printf("%s is %s (revision %" PRIu64 ")\n", entry->key, entry->value, entry->revision);
    else
        printf("%s was deleted (revision %" PRIu64 ")\n", entry->key, entry->revision);
}

/* Take events until the watch ends or left entries have arrived. False if it has ended with an error. */
static bool follow(struct kvs_watch *watch, long left)
{
    struct kvs_event event;

    while (left != 0 && kvs_watch_next(watch, -1, &event) == KVS_OK) {
        switch (event.type) {
        case KVS_EVENT_ENTRY:
            print_entry(event.entry);
            left--;
            break;
        case KVS_EVENT_READY:
            puts("-- changes");
            break;
        case KVS_EVENT_ENDED:
            /* If the program was too slow, another watch can resume at event.error->revision. */
            fprintf(stderr, "%s\n", event.error->message);
            return false;
        default:
            break;
        }
        fflush(stdout);
    }
    return true;
}

int main(int argc, char **argv)
{
    struct kvs_options options = KVS_OPTIONS(.reconnect = true); /* the watch resumes when the daemon is back */
    struct kvs_error error;
    struct kvs *kvs = kvs_connect(NULL, &options, &error);
    struct kvs_watch *watch;
    bool is_well = false;

    if (kvs == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    if (kvs_watch(kvs, "demo", NULL, &watch) == KVS_OK)
        is_well = follow(watch, argc > 1 ? atol(argv[1]) : -1);
    else
        fprintf(stderr, "%s\n", kvs_last_error(kvs)->message);
    kvs_watch_stop(watch);
    kvs_close(kvs);
    return is_well ? 0 : 1;
}
