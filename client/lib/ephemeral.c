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
    EPHEMERAL_AWAY,     /* it will be written again at due_ms, unless a call is in flight that ends the key */
    EPHEMERAL_WRITING,  /* kv.create is in flight */
    EPHEMERAL_FORGOTTEN /* kv.create is in flight, and the program has given up the key */
};

/* A key, from the first call that concerns it to the last. */
struct ephemeral_key {
    struct kvs *kvs;
    const char *bucket, *key;
    struct ephemeral *kept; /* WRITTEN, AWAY or WRITING; NULL: the key does not live with the handle */
    unsigned references;    /* of writes, and of calls that end it */
    unsigned ends;          /* calls in flight with which the program ends it */
    uint64_t ended_number;  /* of the last of them that succeeded */
};

/* A write of a key. */
struct ephemeral {
    struct kvs *kvs;
    struct ephemeral_key *key;
    struct ephemeral *next, **place; /* in the list of WRITTEN or of AWAY ones; place NULL: in none */
    enum ephemeral_state state;
    uint64_t number;   /* the program's calls are numbered in their order */
    uint64_t revision; /* of the last write that was acknowledged */
    int64_t due_ms;
    int64_t doubt_ends_ms;
    unsigned pause_ms;
    double timeout_s;
    size_t params_size, bytes;
    const char *params; /* NULL: it is not written again */
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

/* Write the key again later, after the keys that are in the list of AWAY ones. If a call may end the key, only after
 * ephemeral_end_finish. */
static void ephemeral_set_away(struct ephemeral *ephemeral, int64_t due_ms)
{
    struct kvs *kvs = ephemeral->kvs;

    ephemeral_unlink(ephemeral);
    ephemeral->state = EPHEMERAL_AWAY;
    ephemeral->due_ms = due_ms;
    if (ephemeral->key->ends > 0)
        return;
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
    const struct ephemeral_key *one = a, *other = b;
    int order = strcmp(one->bucket, other->bucket);

    return order != 0 ? order : strcmp(one->key, other->key);
}

static struct ephemeral_key *ephemeral_find_key(const struct kvs *kvs, const char *bucket, const char *key)
{
    const struct ephemeral_key wanted = {.bucket = bucket, .key = key};
    void *found = kvs->ephemeral_tree != NULL ? tfind(&wanted, &kvs->ephemeral_tree, ephemeral_compare) : NULL;

    return found != NULL ? *(struct ephemeral_key **)found : NULL;
}

/* --- Memory ---------------------------------------------------------------------------------------- */

/* Return the key with one more reference, made if it is new. NULL when out of memory. */
static struct ephemeral_key *ephemeral_hold_key(struct kvs *kvs, const char *bucket, const char *name)
{
    struct ephemeral_key *key = ephemeral_find_key(kvs, bucket, name);

    if (key == NULL) {
        size_t bucket_size = strlen(bucket) + 1, name_size = strlen(name) + 1;
        key = calloc(1, sizeof(*key) + bucket_size + name_size);
        if (key == NULL)
            return NULL;
        key->kvs = kvs;
        key->bucket = memcpy(key + 1, bucket, bucket_size);
        key->key = memcpy((char *)(key + 1) + bucket_size, name, name_size);
        if (tsearch(key, &kvs->ephemeral_tree, ephemeral_compare) == NULL) {
            free(key);
            return NULL;
        }
    }
    key->references++;
    return key;
}

static void ephemeral_release_key(struct ephemeral_key *key)
{
    if (--key->references > 0)
        return;
    tdelete(key, &key->kvs->ephemeral_tree, ephemeral_compare);
    free(key);
}

bool ephemeral_is_remembered(const struct kvs *kvs)
{
    return kvs->options.reconnect || kvs->options.on_ephemeral_lost != NULL;
}

struct ephemeral *ephemeral_make(struct kvs *kvs, const char *bucket, const char *key,
                                 const struct kvs_request *request)
{
    if (bucket == NULL || key == NULL) {
        client_error_set(&kvs->error, KVS_INVALID_ARGUMENT, "an argument that must be a string is NULL");
        return NULL;
    }
    /* Without reconnect only the key is needed, of which the daemon limits the number. */
    size_t params_size = kvs->options.reconnect ? buffer_size(&request->params) : 0;
    size_t bytes = params_size == 0 ? 0
                                    : sizeof(struct ephemeral) + sizeof(struct ephemeral_key) + strlen(bucket) +
                                          strlen(key) + 2 + params_size;

    if (bytes > kvs->options.max_ephemeral_bytes - kvs->ephemeral_bytes) {
        client_error_set(&kvs->error, KVS_RESOURCE_EXHAUSTED,
                         "the ephemeral keys of this handle have %zu bytes, and max_ephemeral_bytes is %zu",
                         kvs->ephemeral_bytes, kvs->options.max_ephemeral_bytes);
        return NULL;
    }
    struct ephemeral *ephemeral = calloc(1, sizeof(*ephemeral) + params_size);
    struct ephemeral_key *held = ephemeral != NULL ? ephemeral_hold_key(kvs, bucket, key) : NULL;
    if (held == NULL) {
        client_error_set(&kvs->error, KVS_NO_MEMORY, "out of memory for an ephemeral key");
        free(ephemeral);
        return NULL;
    }
    ephemeral->kvs = kvs;
    ephemeral->key = held;
    ephemeral->number = ++kvs->ephemeral_count;
    ephemeral->bytes = bytes;
    ephemeral->timeout_s = request->timeout_s;
    ephemeral->params_size = params_size;
    if (params_size > 0)
        ephemeral->params = memcpy(ephemeral + 1, request->params.bytes + request->params.begin, params_size);
    kvs->ephemeral_bytes += bytes;
    return ephemeral;
}

void ephemeral_drop(struct ephemeral *ephemeral)
{
    ephemeral_unlink(ephemeral);
    ephemeral->kvs->ephemeral_bytes -= ephemeral->bytes;
    ephemeral_release_key(ephemeral->key);
    free(ephemeral);
}

/* The key does not live with the handle. Free the write as soon as no call of it is in flight. */
static void ephemeral_remove(struct ephemeral *ephemeral)
{
    ephemeral->key->kept = NULL;
    if (ephemeral->state == EPHEMERAL_WRITING)
        ephemeral->state = EPHEMERAL_FORGOTTEN;
    else
        ephemeral_drop(ephemeral);
}

void ephemeral_keep(struct ephemeral *ephemeral, uint64_t revision)
{
    struct ephemeral_key *key = ephemeral->key;

    ephemeral->revision = revision;
    if (ephemeral->number < key->ended_number || (key->kept != NULL && key->kept->revision > revision)) {
        ephemeral_drop(ephemeral); /* an answer that came out of order */
        return;
    }
    if (key->kept != NULL)
        ephemeral_remove(key->kept);
    key->kept = ephemeral;
    ephemeral_set_written(ephemeral);
}

static void ephemeral_free_key(void *node)
{
    struct ephemeral_key *key = node;

    free(key->kept);
    free(key);
}

void ephemeral_free_all(struct kvs *kvs)
{
    tdestroy(kvs->ephemeral_tree, ephemeral_free_key);
    kvs->ephemeral_tree = NULL;
}

/* --- Writing again --------------------------------------------------------------------------------- */

/* The key is lost for good: the program must know. */
static void ephemeral_lose(struct ephemeral *ephemeral, const struct kvs_error *reason)
{
    struct kvs *kvs = ephemeral->kvs;
    bool before = kvs->in_callback;
    struct kvs_error error = *reason;

    strcpy(error.bucket, ephemeral->key->bucket); /* the daemon has accepted them */
    strcpy(error.key, ephemeral->key->key);
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
    const struct ephemeral_key *key = ephemeral->key;
    struct kvs_request *request = call_begin_of_key(ephemeral->kvs, "kv.delete", 2, key->bucket, key->key);

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

/* The daemon no longer keeps the key for this session. */
static void ephemeral_on_lost(struct ephemeral *ephemeral, const struct kvs_error *error)
{
    /* A call in flight may have deleted it: ephemeral_end_finish knows. */
    bool may_be_ended = ephemeral->key->ends > 0 && error->code == KVS_CONFLICT;

    if (ephemeral->kvs->options.reconnect || may_be_ended)
        ephemeral_set_away(ephemeral, 0);
    else
        ephemeral_lose(ephemeral, error);
}

bool ephemeral_receive(struct kvs *kvs, const struct rpc_message *message)
{
    static const char method[] = "lock.lost";
    const struct kvs_value *params = (const struct kvs_value *)&message->params;
    char bucket[KVS_BUCKET_MAX + 1], name[KVS_KEY_MAX + 1];
    struct kvs_error error;

    if (message->method_length != strlen(method) || memcmp(message->method, method, strlen(method)) != 0 ||
        !ephemeral_copy_text(bucket, sizeof(bucket), kvs_value_item(params, 0)) ||
        !ephemeral_copy_text(name, sizeof(name), kvs_value_item(params, 1)) ||
        !kvs_value_error(kvs_value_item(params, 3), &error))
        return false;
    const struct ephemeral_key *key = ephemeral_find_key(kvs, bucket, name);
    if (key == NULL)
        return false;
    struct ephemeral *kept = key->kept;
    if (kept != NULL && kept->state == EPHEMERAL_WRITTEN &&
        kvs_value_unsigned(kvs_value_item(params, 2)) >= kept->revision) /* above: of a write without an answer */
        ephemeral_on_lost(kept, &error);
    return true;
}

/* --- Calls that end a key -------------------------------------------------------------------------- */

struct ephemeral_end ephemeral_end_begin(struct kvs *kvs, const char *bucket, const char *key, uint64_t revision)
{
    struct ephemeral_end end = {.revision = revision};

    if (bucket == NULL || key == NULL || (end.key = ephemeral_find_key(kvs, bucket, key)) == NULL)
        return end;
    end.number = ++kvs->ephemeral_count;
    end.key->references++;
    end.key->ends++;
    if (end.key->kept != NULL && end.key->kept->state == EPHEMERAL_AWAY)
        ephemeral_unlink(end.key->kept);
    return end;
}

/* No call in flight can end a key that is not in the bucket: it is to live on. */
static void ephemeral_resume(struct ephemeral *ephemeral)
{
    const struct kvs *kvs = ephemeral->kvs;
    struct kvs_error error;

    if (kvs->options.reconnect) {
        ephemeral_set_away(ephemeral, 0);
    } else if (kvs->connection.fd >= 0) { /* otherwise all of them have ended */
        client_error_set(&error, KVS_CONFLICT, "the key was deleted");
        ephemeral_lose(ephemeral, &error);
    }
}

void ephemeral_end_finish(const struct ephemeral_end *end, const struct kvs_error *error)
{
    struct ephemeral_key *key = end->key;

    if (key == NULL)
        return;
    struct ephemeral *kept = key->kept;
    bool is_ended = error == NULL || error->outcome == KVS_OUTCOME_UNKNOWN;
    key->ends--;
    if (is_ended && end->revision == 0 && end->number > key->ended_number)
        key->ended_number = end->number;
    if (kept != NULL && is_ended && (end->revision == 0 ? kept->number < end->number : kept->revision == end->revision))
        ephemeral_remove(kept);
    else if (kept != NULL && kept->state == EPHEMERAL_AWAY && key->ends == 0)
        ephemeral_resume(kept);
    ephemeral_release_key(key);
}
