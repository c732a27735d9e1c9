/*
 * Follows the bucket demo: prints what is in it, then each change as it comes, also across restarts of the
 * daemon. With a number it ends after so many entries. Before: kvctl add demo
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
        printf("%s is gone (revision %" PRIu64 ")\n", entry->key, entry->revision);
}

/* Takes events until the watch has ended, or left entries have come. False when it has ended for an error. */
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
            puts("-- from now on, changes");
            break;
        case KVS_EVENT_ENDED:
            /* Where the program was too slow, another watch may begin at event.error->revision. */
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
    struct kvs_options options =
        KVS_OPTIONS(.reconnect = true); /* the watch goes on by itself when the daemon is back */
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
