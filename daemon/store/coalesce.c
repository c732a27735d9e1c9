#include "daemon/store/coalesce.h"

#include "daemon/store/multi_last.h"
#include "daemon/store/recall.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* A get with less time asks for itself: the common question takes no longer than its gets can wait, and may fail. */
#define TIME_MIN_MS 400u

/* Names of one question: less than a server's limit of a message is as a rule (max_payload, 1 MB). */
#define QUESTION_BYTES_MAX (192u * 1024u)

/* A key, and who asks for it. */
struct asked {
    UT_hash_handle hh; /* in a reading */
    const char *key;   /* the first asker's */
    struct read_get *askers;
};

/* --- Answers --------------------------------------------------------------------------------------- */

static void answer_askers(struct asked *asked, const struct kv_entry *entry)
{
    struct read_get *get;

    while ((get = asked->askers) != NULL) {
        LL_DELETE2(asked->askers, get, next_together);
        read_get_answer(get, entry);
    }
}

/* What was tried together has failed. */
static void ask_alone(struct read_get *gets)
{
    struct read_get *get;

    while ((get = gets) != NULL) {
        LL_DELETE2(gets, get, next_together);
        read_get_alone(get);
    }
}

/* Of the question of all of them. */
static uint64_t common_deadline(const struct store *store, const struct read_get *gets)
{
    uint64_t first_ms = UINT64_MAX;
    const struct read_get *get;

    LL_FOREACH2(gets, get, next_together)
    {
        if (get->deadline_ms < first_ms)
            first_ms = get->deadline_ms;
    }
    return multi_last_deadline(store, first_ms);
}

/* --- Reading --------------------------------------------------------------------------------------- */

struct reading {
    struct multi_last read;
    struct recall_load load;
    struct asked *by_key; /* uthash */
    size_t count;
    struct asked asked[];
};

static void on_entry(void *arg, const struct kv_entry *entry)
{
    struct reading *reading = arg;
    struct asked *asked = NULL;

    HASH_FIND(hh, reading->by_key, entry->key, strlen(entry->key), asked);
    recall_load_take(&reading->load, entry, asked != NULL);
    if (asked == NULL) /* the load's own question */
        return;
    HASH_DEL(reading->by_key, asked); /* its key may go with its askers */
    answer_askers(asked, entry);
}

/* What has not come is not there; or it is not known, and each asks for itself. */
static void on_read(void *arg, bool is_whole)
{
    struct reading *reading = arg;
    struct bucket *handle = reading->read.handle;
    struct asked *asked, *next;

    recall_load_end(&reading->load, is_whole ? reading->read.upto : 0);
    HASH_ITER(hh, reading->by_key, asked, next)
    {
        HASH_DEL(reading->by_key, asked);
        if (is_whole)
            answer_askers(asked, NULL);
        else
            ask_alone(asked->askers);
    }
    free(reading);
    bucket_release(handle);
}

static void ask_for(struct reading *reading, struct read_get *get)
{
    struct asked *asked = NULL;
    size_t length = strlen(get->key);

    HASH_FIND(hh, reading->by_key, get->key, length, asked);
    if (asked == NULL) {
        asked = &reading->asked[reading->count++];
        *asked = (struct asked){.key = get->key};
        HASH_ADD_KEYPTR(hh, reading->by_key, asked->key, length, asked);
    }
    LL_PREPEND2(asked->askers, get, next_together);
}

/* Reads what these gets ask for; of one bucket, as are all. */
static void read_together(struct bucket *handle, struct read_get *gets, size_t count)
{
    if (gets == NULL)
        return;
    struct store *store = gets->store;
    struct reading *reading = calloc(1, sizeof(*reading) + count * sizeof(struct asked));
    const char **keys = malloc((count + 1) * sizeof(*keys));
    struct read_get *get;

    if (reading == NULL || keys == NULL) {
        free(reading);
        free((void *)keys);
        ask_alone(gets);
        return;
    }
    reading->read = (struct multi_last){.handle = bucket_retain(handle),
                                        .deadline_ms = common_deadline(store, gets),
                                        .entry = on_entry,
                                        .done = on_read,
                                        .arg = reading};
    while ((get = gets) != NULL) {
        LL_DELETE2(gets, get, next_together);
        ask_for(reading, get);
    }
    size_t asked = reading->count;
    for (size_t i = 0; i < asked; i++)
        keys[i] = reading->asked[i].key;
    const char *anchor = recall_load_begin(&reading->load, &handle->recall, true);
    if (anchor != NULL)
        keys[asked++] = anchor;
    if (!multi_last_start(store, &reading->read, keys, asked))
        on_read(reading, false);
    free((void *)keys);
}

/* --- Asking whether it is still so ----------------------------------------------------------------- */

struct checking {
    struct recall_check check;
    struct asked *asked; /* as many as entries */
    struct recall_entry *entries[];
};

static void on_newer(void *arg, size_t index, const struct kv_entry *entry)
{
    struct checking *checking = arg;

    answer_askers(&checking->asked[index], entry);
}

static void on_checked(void *arg, enum recall_proof proof)
{
    struct checking *checking = arg;
    struct bucket *handle = checking->check.handle;
    struct read_get *unanswered = NULL;
    size_t count = 0;

    for (size_t i = 0; i < checking->check.count; i++) {
        struct asked *asked = &checking->asked[i];
        struct read_get *get;
        struct kv_entry entry;
        struct message message;
        if (proof == RECALL_PROVEN && asked->askers != NULL && recall_check_has(&checking->check, i)) {
            recall_view(checking->entries[i], &entry, &message);
            handle->recall.store->recall.answered++;
            answer_askers(asked, &entry);
        }
        while ((get = asked->askers) != NULL) {
            LL_DELETE2(asked->askers, get, next_together);
            LL_PREPEND2(unanswered, get, next_together);
            count++;
        }
        recall_release(checking->entries[i]);
    }
    if (proof == RECALL_UNKNOWN)
        ask_alone(unanswered);
    else
        read_together(handle, unanswered, count);
    free(checking->asked);
    free(checking);
    bucket_release(handle);
}

/* Asks about what these gets ask for, which is all remembered. */
static void check_together(struct bucket *handle, struct read_get *gets, size_t count)
{
    struct store *store = gets->store;
    struct checking *checking = calloc(1, sizeof(*checking) + count * sizeof(struct recall_entry *));
    struct asked *asked = calloc(count, sizeof(*asked));
    struct read_get *get;

    if (checking == NULL || asked == NULL) {
        free(checking);
        free(asked);
        ask_alone(gets);
        return;
    }
    checking->asked = asked;
    checking->check = (struct recall_check){.handle = bucket_retain(handle),
                                            .deadline_ms = common_deadline(store, gets),
                                            .newer = on_newer,
                                            .done = on_checked,
                                            .arg = checking,
                                            .entries = checking->entries};
    while ((get = gets) != NULL) {
        LL_DELETE2(gets, get, next_together);
        size_t index = recall_check_add(&checking->check, get->remembered);
        LL_PREPEND2(asked[index].askers, get, next_together);
    }
    if (!recall_check_start(store, &checking->check))
        on_checked(checking, RECALL_UNKNOWN);
}

/* --- The turn's end -------------------------------------------------------------------------------- */

void coalesce_submit(struct read_get *get)
{
    struct store *store = get->store;
    struct bucket *handle = get->handle;

    if (!recall_is_possible(store, handle) || get->deadline_ms < uv_now(store->loop) + TIME_MIN_MS) {
        read_get_alone(get);
        return;
    }
    if (handle->waiting_gets == NULL) {
        handle->next_waiting = store->waiting_buckets;
        store->waiting_buckets = bucket_retain(handle);
    }
    DL_APPEND2(handle->waiting_gets, get, previous_together, next_together);
}

static struct read_get *take_waiting(struct bucket *handle)
{
    struct read_get *get = handle->waiting_gets;

    DL_DELETE2(handle->waiting_gets, get, previous_together, next_together);
    return get;
}

/* Gets, on their way to one question. */
struct gets {
    struct read_get *first;
    size_t count;
};

static void add_get(struct gets *gets, struct read_get *get)
{
    LL_PREPEND2(gets->first, get, next_together);
    gets->count++;
}

/* As many as one question can have. What is met for the first time is not remembered, and asks for itself. */
static void ask_some(const struct requests *requests, struct bucket *handle)
{
    struct gets known = {NULL, 0}, met = {NULL, 0}, others = {NULL, 0};
    size_t bytes = 0, prefix_bytes = strlen(handle->prefix) + 3;

    while (handle->waiting_gets != NULL && known.count + met.count < MULTI_LAST_KEYS_MAX - 1 &&
           bytes < QUESTION_BYTES_MAX) {
        struct read_get *get = take_waiting(handle);
        bytes += prefix_bytes + strlen(get->key);
        get->remembered = recall_find(&handle->recall, get->key);
        if (get->remembered != NULL)
            add_get(&known, get);
        else
            add_get(recall_meet(&handle->recall, get->key) ? &met : &others, get);
    }
    if (recall_check_pays(&handle->recall, known.count))
        check_together(handle, known.first, known.count);
    else
        ask_alone(known.first);
    /* Large values go one by one, each when there is room for it. */
    if (requests_expect_bytes(requests, met.count) <= MULTI_LAST_BYTES_MAX)
        read_together(handle, met.first, met.count);
    else
        ask_alone(met.first);
    ask_alone(others.first);
}

/* Whether there are enough for a question of all. */
static bool are_many(const struct read_get *get)
{
    unsigned count = 0;

    while (get != NULL && count < RECALL_CHECK_MIN) {
        get = get->next_together;
        count++;
    }
    return count == RECALL_CHECK_MIN;
}

static void flush(struct store *store, struct bucket *handle)
{
    bool is_together = are_many(handle->waiting_gets) && link_is_up(store->link);

    while (handle->waiting_gets != NULL) {
        if (is_together)
            ask_some(&store->requests, handle);
        else
            read_get_alone(take_waiting(handle));
    }
}

void coalesce_flush_all(struct store *store)
{
    struct bucket *handle;

    while ((handle = store->waiting_buckets) != NULL) {
        store->waiting_buckets = handle->next_waiting;
        flush(store, handle);
        bucket_release(handle);
    }
}
