#include "client/lib/ephemeral.h"

#include "client/lib/call.h"
#include "client/lib/clock.h"
#include "client/lib/error.h"
#include "client/lib/reply.h"

#include <inttypes.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

/* Writes in flight at a time: the program's own calls go on meanwhile. */
#define WRITING_MAX 256u

/* How long after a write with an unknown outcome the key may have a revision that the library does not know. */
#define DOUBT_MS 30000

enum ephemeral_state {
    EPHEMERAL_NEW,      /* the program's call is in flight */
    EPHEMERAL_WRITTEN,  /* it lives with this session */
    EPHEMERAL_AWAY,     /* it will be written again at due_ms */
    EPHEMERAL_WRITING,  /* kv.create is in flight */
    EPHEMERAL_FORGOTTEN /* kv.create is in flight, and the program has given up the key */
};

struct ephemeral {
    struct kvs *kvs;
    struct ephemeral *next, **place; /* in the list of WRITTEN or of AWAY ones */
    enum ephemeral_state state;
    uint64_t revision; /* of the last write that was acknowledged */
    int64_t due_ms;
    int64_t doubt_ends_ms;
    unsigned pause_ms;
    double timeout_s;
    size_t params_size, bytes;
    const char *bucket, *key, *params;
};

/* --- Lists and the tree ---------------------------------------------------------------------------- */

static void ephemeral_unlink(struct ephemeral *ephemeral)
{
    struct kvs *kvs = ephemeral->kvs;

    if (ephemeral->place == NULL)
        return;
    if (kvs->ephemerals_away_end == &ephemeral->next)
        kvs->ephemerals_away_end = ephemeral->place;
    *ephemeral->place = ephemeral->next;
    if (ephemeral->next != NULL)
        ephemeral->next->place = ephemeral->place;
    ephemeral->place = NULL;
}

static void ephemeral_link(struct ephemeral *ephemeral, struct ephemeral **place)
{
    ephemeral->next = *place;
    ephemeral->place = place;
    if (*place != NULL)
        (*place)->place = &ephemeral->next;
    *place = ephemeral;
}

static void ephemeral_set_written(struct ephemeral *ephemeral)
{
    ephemeral_unlink(ephemeral);
    ephemeral->state = EPHEMERAL_WRITTEN;
    ephemeral_link(ephemeral, &ephemeral->kvs->ephemerals);
}

/* It is written again after those that are away already. */
static void ephemeral_set_away(struct ephemeral *ephemeral, int64_t due_ms)
{
    struct kvs *kvs = ephemeral->kvs;

    ephemeral_unlink(ephemeral);
    ephemeral->state = EPHEMERAL_AWAY;
    ephemeral->due_ms = due_ms;
    ephemeral_link(ephemeral, kvs->ephemerals_away_end);
    kvs->ephemerals_away_end = &ephemeral->next;
    if (kvs->ephemerals_writing < WRITING_MAX && kvs->ephemerals_away->due_ms < kvs->ephemeral_due_ms)
        kvs->ephemeral_due_ms = kvs->ephemerals_away->due_ms;
}

static void ephemeral_retry_later(struct ephemeral *ephemeral)
{
    ephemeral_set_away(ephemeral, clock_now_ms() +
                                      clock_grow_pause(&ephemeral->kvs->connection.random_state, &ephemeral->pause_ms));
}

static int ephemeral_compare(const void *a, const void *b)
{
    const struct ephemeral *one = a, *other = b;
    int order = strcmp(one->bucket, other->bucket);

    return order != 0 ? order : strcmp(one->key, other->key);
}

static struct ephemeral *ephemeral_find(const struct kvs *kvs, const char *bucket, const char *key)
{
    const struct ephemeral wanted = {.bucket = bucket, .key = key};
    void *found = kvs->ephemeral_tree != NULL ? tfind(&wanted, &kvs->ephemeral_tree, ephemeral_compare) : NULL;

    return found != NULL ? *(struct ephemeral **)found : NULL;
}

/* --- Memory ---------------------------------------------------------------------------------------- */

struct ephemeral *ephemeral_make(struct kvs *kvs, const char *bucket, const char *key,
                                 const struct kvs_request *request)
{
    if (bucket == NULL || key == NULL) {
        client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "an argument that must be a string is NULL");
        return NULL;
    }
    size_t bucket_size = strlen(bucket) + 1, key_size = strlen(key) + 1, params_size = buffer_size(&request->params);
    size_t bytes = sizeof(struct ephemeral) + bucket_size + key_size + params_size;

    if (bytes > kvs->options.max_ephemeral_bytes - kvs->ephemeral_bytes) {
        client_error_set(&kvs->error, KVS_RESOURCE_EXHAUSTED,
                         "the ephemeral keys of this handle have %zu bytes, and max_ephemeral_bytes is %zu",
                         kvs->ephemeral_bytes, kvs->options.max_ephemeral_bytes);
        return NULL;
    }
    struct ephemeral *ephemeral = calloc(1, bytes);
    if (ephemeral == NULL) {
        client_error_set(&kvs->error, KVS_NO_MEMORY, "out of memory for an ephemeral key");
        return NULL;
    }
    char *place = (char *)(ephemeral + 1);
    ephemeral->kvs = kvs;
    ephemeral->bytes = bytes;
    ephemeral->timeout_s = request->timeout_s;
    ephemeral->bucket = memcpy(place, bucket, bucket_size);
    ephemeral->key = memcpy(place + bucket_size, key, key_size);
    ephemeral->params_size = params_size;
    ephemeral->params =
        memcpy(place + bucket_size + key_size, request->params.bytes + request->params.begin, params_size);
    kvs->ephemeral_bytes += bytes;
    return ephemeral;
}

void ephemeral_drop(struct ephemeral *ephemeral)
{
    ephemeral_unlink(ephemeral);
    ephemeral->kvs->ephemeral_bytes -= ephemeral->bytes;
    free(ephemeral);
}

/* Take it out of the tree, and free it as soon as no call of it is in flight. */
static void ephemeral_remove(struct ephemeral *ephemeral)
{
    tdelete(ephemeral, &ephemeral->kvs->ephemeral_tree, ephemeral_compare);
    if (ephemeral->state == EPHEMERAL_WRITING)
        ephemeral->state = EPHEMERAL_FORGOTTEN;
    else
        ephemeral_drop(ephemeral);
}

void ephemeral_keep(struct ephemeral *ephemeral, uint64_t revision)
{
    struct kvs *kvs = ephemeral->kvs;
    struct ephemeral *former = ephemeral_find(kvs, ephemeral->bucket, ephemeral->key);

    ephemeral->revision = revision;
    if (former != NULL && former->revision > revision) {
        ephemeral_drop(ephemeral); /* an answer that came out of order */
        return;
    }
    if (former != NULL)
        ephemeral_remove(former);
    if (tsearch(ephemeral, &kvs->ephemeral_tree, ephemeral_compare) == NULL)
        ephemeral_drop(ephemeral); /* out of memory: it lives with this session only */
    else
        ephemeral_set_written(ephemeral);
}

void ephemeral_forget(struct kvs *kvs, const char *bucket, const char *key, uint64_t revision)
{
    if (kvs->ephemeral_tree == NULL || bucket == NULL || key == NULL)
        return;
    struct ephemeral *ephemeral = ephemeral_find(kvs, bucket, key);
    if (ephemeral != NULL && (revision == 0 || revision == ephemeral->revision))
        ephemeral_remove(ephemeral);
}

static void ephemeral_free_node(void *node)
{
    free(node);
}

void ephemeral_free_all(struct kvs *kvs)
{
    tdestroy(kvs->ephemeral_tree, ephemeral_free_node);
    kvs->ephemeral_tree = NULL;
}

/* --- Writing again --------------------------------------------------------------------------------- */

/* The key is lost for good: the program must know. */
static void ephemeral_lose(struct ephemeral *ephemeral, const struct kvs_error *reason)
{
    struct kvs *kvs = ephemeral->kvs;
    bool before = kvs->in_callback;
    struct kvs_error error = *reason;

    strcpy(error.bucket, ephemeral->bucket); /* the daemon has accepted them */
    strcpy(error.key, ephemeral->key);
    ephemeral->state = EPHEMERAL_AWAY; /* no call is in flight */
    ephemeral_remove(ephemeral);
    if (kvs->options.on_ephemeral_lost == NULL)
        return;
    kvs->in_callback = true;
    kvs->options.on_ephemeral_lost(kvs, &error, kvs->options.ephemeral_context);
    kvs->in_callback = before;
}

/* The program has deleted the key while it was being written. If this fails, the key ends with the session. */
static void ephemeral_delete(const struct ephemeral *ephemeral, uint64_t revision)
{
    struct kvs_request *request = call_begin_of_key(ephemeral->kvs, "kv.delete", 2, ephemeral->bucket, ephemeral->key);

    request_option_unsigned(request, "revision", revision);
    call_submit(ephemeral->kvs, (struct call_receiver){.deliver = NULL});
}

/* Return whether the key that is in the way may be this handle's own, of a session that has ended. */
static bool ephemeral_is_left_over(const struct ephemeral *ephemeral, const struct kvs_error *error)
{
    return error->code == KVS_ALREADY_EXISTS && (!error->has_revision || error->revision == ephemeral->revision ||
                                                 clock_now_ms() < ephemeral->doubt_ends_ms);
}

static void ephemeral_on_failed(struct ephemeral *ephemeral, const struct kvs_error *error)
{
    bool is_doubtful = error->outcome == KVS_OUTCOME_UNKNOWN;

    if (is_doubtful)
        ephemeral->doubt_ends_ms = clock_now_ms() + DOUBT_MS;
    if (is_doubtful || error->retryable || ephemeral_is_left_over(ephemeral, error))
        ephemeral_retry_later(ephemeral);
    else
        ephemeral_lose(ephemeral, error);
}

static void ephemeral_on_written(struct kvs *kvs, const struct call_receiver *receiver, const struct kvs_error *error,
                                 const struct kvs_value *result)
{
    struct ephemeral *ephemeral = receiver->context;
    struct kvs_error failure;
    uint64_t revision = 0;

    kvs->ephemerals_writing--;
    if (kvs->ephemerals_away != NULL && kvs->ephemerals_away->due_ms < kvs->ephemeral_due_ms)
        kvs->ephemeral_due_ms = kvs->ephemerals_away->due_ms;
    if (error == NULL)
        error = reply_read(reply_read_revision, result, &revision, &failure);
    if (ephemeral->state == EPHEMERAL_FORGOTTEN) {
        if (error == NULL)
            ephemeral_delete(ephemeral, revision);
        ephemeral_drop(ephemeral);
    } else if (error != NULL) {
        ephemeral_on_failed(ephemeral, error);
    } else {
        ephemeral->revision = revision;
        ephemeral->pause_ms = 0;
        ephemeral->doubt_ends_ms = 0;
        ephemeral_set_written(ephemeral);
    }
}

static enum kvs_code ephemeral_write(struct ephemeral *ephemeral)
{
    struct kvs *kvs = ephemeral->kvs;
    struct kvs_request *request = call_begin(kvs, "kv.create", 0);
    struct call_receiver receiver = {.deliver = ephemeral_on_written, .context = ephemeral};

    buffer_clear(&request->params);
    if (!buffer_append(&request->params, ephemeral->params, ephemeral->params_size))
        return client_error_set(&kvs->error, KVS_NO_MEMORY, "out of memory for the request");
    enum kvs_code code =
        call_submit_request(kvs, request, clock_now_ms() + call_wait_ms(ephemeral->timeout_s), &receiver);
    if (code == KVS_OK) {
        ephemeral_unlink(ephemeral);
        ephemeral->state = EPHEMERAL_WRITING;
        kvs->ephemerals_writing++;
    }
    return code;
}

void ephemeral_run(struct kvs *kvs)
{
    int64_t now_ms = clock_now_ms();

    if (now_ms < kvs->ephemeral_due_ms)
        return;
    kvs->ephemeral_due_ms = INT64_MAX;
    kvs->in_callback = true; /* a blocking call may be waiting: see call_scratch */
    while (kvs->ephemerals_away != NULL && kvs->ephemerals_writing < WRITING_MAX) {
        struct ephemeral *first = kvs->ephemerals_away;
        if (first->due_ms > now_ms) {
            kvs->ephemeral_due_ms = first->due_ms;
            break;
        }
        if (ephemeral_write(first) != KVS_OK) {
            ephemeral_retry_later(first);
            break;
        }
    }
    kvs->in_callback = false;
}

/* --- The end of the session, and notifications ----------------------------------------------------- */

void ephemeral_lose_all(struct kvs *kvs)
{
    if (!kvs->options.reconnect)
        return;
    for (struct ephemeral *away = kvs->ephemerals_away; away != NULL; away = away->next)
        away->due_ms = 0;
    while (kvs->ephemerals != NULL)
        ephemeral_set_away(kvs->ephemerals, 0);
    if (kvs->ephemerals_away != NULL)
        kvs->ephemeral_due_ms = 0;
}

static bool ephemeral_copy_text(char *to, size_t capacity, const struct kvs_value *value)
{
    size_t size;
    const char *bytes = kvs_value_bytes(value, &size);

    if (bytes == NULL || size >= capacity)
        return false;
    memcpy(to, bytes, size);
    to[size] = '\0';
    return true;
}

bool ephemeral_receive(struct kvs *kvs, const struct rpc_message *message)
{
    static const char method[] = "lock.lost";
    const struct kvs_value *params = (const struct kvs_value *)&message->params;
    char bucket[KVS_BUCKET_MAX + 1], key[KVS_KEY_MAX + 1];
    struct kvs_error error;

    if (message->method_length != strlen(method) || memcmp(message->method, method, strlen(method)) != 0 ||
        !ephemeral_copy_text(bucket, sizeof(bucket), kvs_value_item(params, 0)) ||
        !ephemeral_copy_text(key, sizeof(key), kvs_value_item(params, 1)))
        return false;
    struct ephemeral *ephemeral = ephemeral_find(kvs, bucket, key);
    if (ephemeral != NULL) {
        bool is_current = kvs_value_unsigned(kvs_value_item(params, 2)) == ephemeral->revision;
        if (ephemeral->state == EPHEMERAL_WRITTEN && is_current)
            ephemeral_set_away(ephemeral, 0);
        return true;
    }
    if (kvs->options.reconnect || kvs->options.on_ephemeral_lost == NULL ||
        !kvs_value_error(kvs_value_item(params, 3), &error))
        return false;
    strcpy(error.bucket, bucket);
    strcpy(error.key, key);
    kvs->in_callback = true;
    kvs->options.on_ephemeral_lost(kvs, &error, kvs->options.ephemeral_context);
    kvs->in_callback = false;
    return true;
}
