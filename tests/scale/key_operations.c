#include "tests/scale/keys.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BATCH      1000u /* keys of one bulk call */
#define BATCHES    8u    /* calls in flight */
#define BATCH_S    300   /* a slow disk shows in the figures, and must not end the run */
#define PAGE       100u
#define LARGE_PAGE 1000u
#define LOAD_S     300.0 /* after which a load has failed */

static void make_name(char name[KEYS_NAME_BYTES], uint64_t number)
{
    snprintf(name, KEYS_NAME_BYTES, "key.%08llu", (unsigned long long)number);
}

/* splitmix64: the same keys in each run. */
static void make_any_name(struct keys *keys, char name[KEYS_NAME_BYTES])
{
    uint64_t z = keys->state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    make_name(name, (z ^ (z >> 31)) % keys->count);
}

/* --- Many keys at once --------------------------------------------------------------------------------- */

struct batches {
    unsigned in_flight;
    uint64_t done;
    char failure[160];
};

static void on_batch(struct kvs *kvs, const struct kvs_error *error, const struct kvs_bulk_result *results,
                     size_t count, size_t failed_count, void *context)
{
    struct batches *batches = context;

    (void)kvs;
    batches->in_flight--;
    if (error != NULL) {
        snprintf(batches->failure, sizeof(batches->failure), "%s: %.100s", kvs_code_name(error->code), error->message);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (results[i].error != NULL)
            snprintf(batches->failure, sizeof(batches->failure), "%s: %.100s", kvs_code_name(results[i].error->code),
                     results[i].error->message);
    }
    batches->done += count - failed_count;
}

/* Send and receive until at most so many batches are in flight. */
static bool pump(struct scale_servers *servers, struct batches *batches, unsigned most)
{
    while (batches->in_flight > most && batches->failure[0] == '\0') {
        struct pollfd wait = {.fd = kvs_fd(servers->kvs), .events = kvs_events(servers->kvs)};
        poll(&wait, 1, kvs_timeout_ms(servers->kvs));
        if (kvs_process(servers->kvs) != KVS_OK)
            bench_die("%s", kvs_last_error(servers->kvs)->message);
    }
    memcpy(servers->failure, batches->failure, sizeof(servers->failure));
    return batches->failure[0] == '\0';
}

/* One batch, from the key `first` on. */
static enum kvs_code submit(struct kvs *kvs, bool is_put, uint64_t first, unsigned count, struct batches *batches)
{
    static char names[BATCH][KEYS_NAME_BYTES], values[BATCH][BENCH_VALUE_BYTES];
    static const char *pointers[BATCH];
    static struct kvs_pair pairs[BATCH];
    const struct kvs_bulk_put_options put_options = KVS_BULK_PUT_OPTIONS(.timeout_s = BATCH_S);
    const struct kvs_call_options delete_options = KVS_CALL_OPTIONS(.timeout_s = BATCH_S);

    for (unsigned i = 0; i < count; i++) {
        make_name(names[i], first + i);
        bench_make_value(values[i], names[i], 0);
        pointers[i] = names[i];
        pairs[i] = (struct kvs_pair){names[i], values[i], BENCH_VALUE_BYTES};
    }
    return is_put ? kvs_async_bulk_put(kvs, BENCH_BUCKET, pairs, count, &put_options, on_batch, batches)
                  : kvs_async_bulk_delete(kvs, BENCH_BUCKET, pointers, count, &delete_options, on_batch, batches);
}

/* Put or delete all keys. */
static bool write_all(struct scale_servers *servers, const struct keys *keys, bool is_put)
{
    struct batches batches = {.in_flight = 0};

    for (uint64_t first = 0; first < keys->count; first += BATCH) {
        unsigned count = keys->count - first < BATCH ? (unsigned)(keys->count - first) : BATCH;
        if (!pump(servers, &batches, BATCHES - 1))
            break;
        if (submit(servers->kvs, is_put, first, count, &batches) != KVS_OK)
            return scale_note_error(servers, is_put ? "bulk.put" : "bulk.delete");
        batches.in_flight++;
    }
    if (!pump(servers, &batches, 0))
        return false;
    if (batches.done != keys->count)
        bench_die("only %llu keys were written", (unsigned long long)batches.done);
    return true;
}

/* --- Operations ------------------------------------------------------------------------------------------ */

bool keys_get_some(struct scale_servers *servers, void *context)
{
    struct keys *keys = context;
    char name[KEYS_NAME_BYTES];

    for (unsigned i = 0; i < KEYS_CALLS; i++) {
        struct kvs_entry *entry = NULL;
        make_any_name(keys, name);
        if (kvs_get(servers->kvs, BENCH_BUCKET, name, NULL, &entry) != KVS_OK)
            return scale_note_error(servers, "kv.get");
        if (entry == NULL || !bench_is_value(entry->value, entry->value_size, name, UINT32_MAX))
            bench_die("a get of %s answered something else than was put", name);
        kvs_free(entry);
    }
    return true;
}

bool keys_put_some(struct scale_servers *servers, void *context)
{
    struct keys *keys = context;
    char name[KEYS_NAME_BYTES], value[BENCH_VALUE_BYTES];

    for (unsigned i = 0; i < KEYS_CALLS; i++) {
        make_any_name(keys, name);
        bench_make_value(value, name, ++keys->number);
        if (kvs_put(servers->kvs, BENCH_BUCKET, name, value, sizeof(value), NULL, NULL) != KVS_OK)
            return scale_note_error(servers, "kv.put");
    }
    return true;
}

void keys_prepare_update(struct scale_servers *servers, struct keys *keys)
{
    for (unsigned i = 0; i < KEYS_CALLS; i++) {
        /* No key twice. */
        make_name(keys->update_names[i], i * (keys->count / KEYS_CALLS));
        struct kvs_entry *entry = NULL;
        if (kvs_get(servers->kvs, BENCH_BUCKET, keys->update_names[i], NULL, &entry) != KVS_OK)
            bench_die("%s", kvs_last_error(servers->kvs)->message);
        if (entry == NULL)
            bench_die("a key is not there before its update");
        keys->revisions[i] = entry->revision;
        kvs_free(entry);
    }
}

bool keys_update_some(struct scale_servers *servers, void *context)
{
    struct keys *keys = context;
    char value[BENCH_VALUE_BYTES];

    for (unsigned i = 0; i < KEYS_CALLS; i++) {
        bench_make_value(value, keys->update_names[i], ++keys->number);
        if (kvs_update(servers->kvs, BENCH_BUCKET, keys->update_names[i], value, sizeof(value), keys->revisions[i],
                       NULL, &keys->revisions[i]) != KVS_OK)
            return scale_note_error(servers, "kv.update");
    }
    return true;
}

bool keys_commit_some(struct scale_servers *servers, void *context)
{
    struct keys *keys = context;
    char name[KEYS_NAME_BYTES], value[BENCH_VALUE_BYTES];

    for (unsigned i = 0; i < KEYS_TRANSACTIONS; i++) {
        struct kvs_txn *txn = kvs_txn_begin(servers->kvs, BENCH_BUCKET);
        for (unsigned k = 0; k < KEYS_PUTS; k++) {
            make_any_name(keys, name);
            bench_make_value(value, name, ++keys->number);
            kvs_txn_put(txn, name, value, sizeof(value), NULL);
        }
        enum kvs_code code = kvs_txn_commit(txn, NULL, NULL, NULL);
        kvs_txn_free(txn);
        if (code != KVS_OK)
            return scale_note_error(servers, "txn.commit");
    }
    return true;
}

bool keys_list(struct scale_servers *servers, void *context)
{
    const struct keys *keys = context;
    char **names = NULL;
    size_t count = 0;

    if (kvs_keys(servers->kvs, BENCH_BUCKET, NULL, &names, &count) != KVS_OK)
        return scale_note_error(servers, "kv.keys");
    kvs_free(names);
    if (count != keys->live)
        bench_die("a listing has %zu keys", count);
    return true;
}

bool keys_list_pages(struct scale_servers *servers, void *context)
{
    const struct keys *keys = context;
    char after[KEYS_NAME_BYTES] = "", **names;
    uint64_t listed = 0;
    size_t count;

    do {
        const struct kvs_keys_options page =
            KVS_KEYS_OPTIONS(.limit = LARGE_PAGE, .after = after[0] != '\0' ? after : NULL);
        if (kvs_keys(servers->kvs, BENCH_BUCKET, &page, &names, &count) != KVS_OK)
            return scale_note_error(servers, "kv.keys");
        if (count > 0)
            snprintf(after, sizeof(after), "%s", names[count - 1]);
        kvs_free(names);
        listed += count;
    } while (count == LARGE_PAGE);
    if (listed != keys->live)
        bench_die("the pages have %llu keys", (unsigned long long)listed);
    return true;
}

static bool list_page(struct scale_servers *servers, void *context, enum kvs_consistency consistency)
{
    char after[KEYS_NAME_BYTES], **names = NULL;
    const struct kvs_keys_options page = KVS_KEYS_OPTIONS(.limit = PAGE, .after = after, .consistency = consistency);
    size_t count = 0;

    make_any_name(context, after);
    if (kvs_keys(servers->kvs, BENCH_BUCKET, &page, &names, &count) != KVS_OK)
        return scale_note_error(servers, "kv.keys");
    kvs_free(names);
    return true;
}

bool keys_list_page(struct scale_servers *servers, void *context)
{
    return list_page(servers, context, KVS_CONSISTENCY_CACHED);
}

bool keys_list_page_direct(struct scale_servers *servers, void *context)
{
    return list_page(servers, context, KVS_CONSISTENCY_DIRECT);
}

bool keys_watch(struct scale_servers *servers, void *context)
{
    const struct keys *keys = context;
    struct kvs_watch *watch = NULL;
    struct kvs_event event = {.type = KVS_EVENT_NONE};
    uint64_t entries = 0;

    if (kvs_watch(servers->kvs, BENCH_BUCKET, NULL, &watch) != KVS_OK)
        return scale_note_error(servers, "watch.start");
    while (kvs_watch_next(watch, 60, &event) == KVS_OK && event.type == KVS_EVENT_ENTRY)
        entries++;
    bool is_ready = event.type == KVS_EVENT_READY;
    if (event.type == KVS_EVENT_ENDED)
        snprintf(servers->failure, sizeof(servers->failure), "the watch ended: %.100s", event.error->message);
    else if (!is_ready)
        snprintf(servers->failure, sizeof(servers->failure), "no news of the watch for 60 s");
    kvs_watch_stop(watch);
    if (is_ready && entries < keys->live)
        bench_die("a watch had only %llu entries", (unsigned long long)entries);
    return is_ready;
}

bool keys_load(struct scale_servers *servers, void *context)
{
    const struct kvs_get_options cached = KVS_GET_OPTIONS(.consistency = KVS_CONSISTENCY_CACHED);
    double give_up_s = bench_now_s() + LOAD_S;
    char name[KEYS_NAME_BYTES];

    for (;;) {
        struct kvs_entry *entry = NULL;
        uint64_t misses = scale_stat(servers, "cache", "misses");
        make_any_name(context, name);
        if (kvs_get(servers->kvs, BENCH_BUCKET, name, &cached, &entry) != KVS_OK)
            return scale_note_error(servers, "kv.get");
        kvs_free(entry);
        if (scale_stat(servers, "cache", "misses") == misses)
            return true;
        if (bench_now_s() > give_up_s) {
            snprintf(servers->failure, sizeof(servers->failure), "the copy is not loaded after %.0f s", LOAD_S);
            return false;
        }
        usleep(1000);
    }
}

bool keys_put_all(struct scale_servers *servers, void *context)
{
    return write_all(servers, context, true);
}

bool keys_delete_all(struct scale_servers *servers, void *context)
{
    struct keys *keys = context;

    keys->live = 0;
    return write_all(servers, keys, false);
}
