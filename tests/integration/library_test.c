/* libkvstore as programs use it: only kvstore.h. */
#include "client/lib/kvstore_admin.h"
#include "tests/integration/suites.h"
#include "tests/support/library.h"
#include "tests/support/nats.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- Blocking -------------------------------------------------------------------------------------- */

START_TEST(keys_are_put_got_created_updated_and_removed)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 5);
    struct kvs_header headers[] = {{"Content-Type", "text/plain"}, {"Color", "blue"}};
    struct kvs_put_options put = KVS_PUT_OPTIONS(.headers = headers, .header_count = 2, .timeout_s = 30);
    struct kvs_entry *entry = NULL;
    uint64_t first, second, third;

    assert_done(kvs_put(kvs, bucket, "k", "one\0two", 7, &put, &first));
    assert_done(kvs_get(kvs, bucket, "k", NULL, &entry));
    ck_assert_ptr_nonnull(entry);
    ck_assert_str_eq(entry->key, "k");
    ck_assert_uint_eq(entry->value_size, 7);
    ck_assert_mem_eq(entry->value, "one\0two", 8); /* and a NUL after them */
    ck_assert_uint_eq(entry->revision, first);
    ck_assert_int_gt(entry->created_us, 1600000000000000);
    ck_assert_int_eq(entry->operation, KVS_OPERATION_PUT);
    ck_assert_uint_eq(entry->header_count, 2);
    kvs_free(entry);

    assert_done(kvs_update(kvs, bucket, "k", "two", 3, first, NULL, &second));
    ck_assert_int_eq(kvs_update(kvs, bucket, "k", "three", 5, first, NULL, NULL), KVS_CONFLICT);
    ck_assert(kvs_last_error(kvs)->has_revision);
    ck_assert_uint_eq(kvs_last_error(kvs)->revision, second);
    ck_assert_str_eq(kvs_last_error(kvs)->bucket, bucket);
    ck_assert_str_eq(kvs_last_error(kvs)->key, "k");
    ck_assert_int_eq(kvs_create(kvs, bucket, "k", "x", 1, NULL, NULL), KVS_ALREADY_EXISTS);

    struct kvs_get_options old = KVS_GET_OPTIONS(.revision = first, .consistency = KVS_CONSISTENCY_LEADER);
    assert_done(kvs_get(kvs, bucket, "k", &old, &entry));
    ck_assert_uint_eq(entry->revision, first);
    kvs_free(entry);

    struct kvs_delete_options at = KVS_DELETE_OPTIONS(.revision = first);
    ck_assert_int_eq(kvs_delete(kvs, bucket, "k", &at, NULL), KVS_CONFLICT);
    at.revision = second;
    assert_done(kvs_delete(kvs, bucket, "k", &at, &third));
    assert_done(kvs_get(kvs, bucket, "k", NULL, &entry));
    ck_assert_ptr_null(entry);

    struct kvs_entry *entries = NULL;
    size_t count;
    assert_done(kvs_history(kvs, bucket, "k", NULL, &entries, &count));
    ck_assert_uint_eq(count, 3);
    ck_assert_uint_eq(entries[0].revision, first);
    ck_assert_str_eq(entries[1].value, "two");
    ck_assert_int_eq(entries[2].operation, KVS_OPERATION_DELETE);
    ck_assert_uint_eq(entries[2].revision, third);
    kvs_free(entries);

    assert_done(kvs_purge(kvs, bucket, "k", NULL, NULL));
    assert_done(kvs_history(kvs, bucket, "k", NULL, &entries, &count));
    ck_assert_uint_eq(count, 1);
    ck_assert_int_eq(entries[0].operation, KVS_OPERATION_PURGE);
    kvs_free(entries);
    assert_done(kvs_create(kvs, bucket, "k", "again", 5, NULL, NULL));
    kvs_close(kvs);
}
END_TEST

START_TEST(answers_for_many_keys_have_the_order_of_the_request)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    const struct kvs_pair pairs[] = {{"d", "4", 1}, {"a", "1", 1}, {"no..key", "x", 1}, {"b", "2", 1}, {"c", "3", 1}};
    const char *const orders[][6] = {{"a", "b", "c", "d", "none", NULL},
                                     {"d", "none", "c", "b", "a", NULL},
                                     {"b", "b", "a", "d", "b", NULL},
                                     {"none", "c", "none", "c", "d", NULL}};
    struct kvs_bulk_result *results = NULL;
    size_t failed;

    assert_done(kvs_bulk_put(kvs, bucket, pairs, 5, NULL, &results, &failed));
    ck_assert_uint_eq(failed, 1);
    for (size_t i = 0; i < 5; i++) {
        struct kvs_entry *entry = NULL;
        ck_assert_int_eq(results[i].error != NULL, i == 2);
        if (i == 2)
            continue;
        assert_done(kvs_get(kvs, bucket, pairs[i].key, NULL, &entry));
        ck_assert_uint_eq(results[i].revision, entry->revision);
        kvs_free(entry);
    }
    kvs_free(results);

    for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
        struct kvs_entry **entries = NULL;
        assert_done(kvs_bulk_get(kvs, bucket, orders[i], 5, NULL, &entries));
        for (size_t k = 0; k < 5; k++) {
            bool is_there = strcmp(orders[i][k], "none") != 0;
            ck_assert_int_eq(entries[k] != NULL, is_there);
            ck_assert(!is_there || strcmp(entries[k]->key, orders[i][k]) == 0);
            ck_assert(!is_there || *(const char *)entries[k]->value == orders[i][k][0] - 'a' + '1');
        }
        kvs_free(entries);
    }
    kvs_close(kvs);
}
END_TEST

START_TEST(json_and_keys_are_read)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    char *json = NULL, **keys = NULL;
    size_t count;

    assert_done(kvs_put(kvs, bucket, "b.json", "{\"port\": 80, \"names\": [\"a\"]}", 28, NULL, NULL));
    assert_done(kvs_put(kvs, bucket, "a", "{", 1, NULL, NULL));
    assert_done(kvs_put(kvs, bucket, "b.c", "x", 1, NULL, NULL));
    assert_done(kvs_get_json(kvs, bucket, "b.json", NULL, &json));
    ck_assert_str_eq(json, "{\"port\":80,\"names\":[\"a\"]}");
    kvs_free(json);
    ck_assert_int_eq(kvs_get_json(kvs, bucket, "a", NULL, &json), KVS_INVALID_ARGUMENT);
    ck_assert_ptr_null(json);
    assert_done(kvs_get_json(kvs, bucket, "nowhere", NULL, &json));
    ck_assert_ptr_null(json);

    assert_done(kvs_keys(kvs, bucket, NULL, &keys, &count));
    ck_assert_uint_eq(count, 3);
    ck_assert_str_eq(keys[0], "a");
    ck_assert_str_eq(keys[2], "b.json");
    kvs_free(keys);
    struct kvs_keys_options page = KVS_KEYS_OPTIONS(.filter = "b.*", .limit = 1, .after = "b.c");
    assert_done(kvs_keys(kvs, bucket, &page, &keys, &count));
    ck_assert_uint_eq(count, 1);
    ck_assert_str_eq(keys[0], "b.json");
    kvs_free(keys);
    struct kvs_entries_options some = KVS_ENTRIES_OPTIONS(.filter = "b.*", .limit = 1, .after = "b.c");
    struct kvs_entry *entries;
    assert_done(kvs_entries(kvs, bucket, NULL, &entries, &count));
    ck_assert_uint_eq(count, 3);
    ck_assert_str_eq(entries[0].key, "a");
    ck_assert_str_eq(entries[0].value, "{");
    ck_assert_str_eq(entries[2].key, "b.json");
    kvs_free(entries);
    assert_done(kvs_entries(kvs, bucket, &some, &entries, &count));
    ck_assert_uint_eq(count, 1);
    ck_assert_str_eq(entries[0].key, "b.json");
    kvs_free(entries);
    some.after = "b.json";
    assert_done(kvs_entries(kvs, bucket, &some, &entries, &count));
    ck_assert_uint_eq(count, 0);
    kvs_free(entries);
    uint64_t deleted = 0;
    assert_done(kvs_delete_matching(kvs, bucket, "b.*", NULL, &deleted));
    ck_assert_uint_eq(deleted, 2);
    assert_done(kvs_bucket_purge_matching(kvs, bucket, "b.*", NULL, &deleted));
    ck_assert_uint_eq(deleted, 0);
    assert_done(kvs_put(kvs, bucket, "b.c", "x", 1, NULL, NULL));
    assert_done(kvs_put(kvs, bucket, "b.json", "x", 1, NULL, NULL));
    struct kvs_keys_options cached = KVS_KEYS_OPTIONS(.consistency = KVS_CONSISTENCY_CACHED);
    for (unsigned i = 0; i < 2; i++) {
        assert_done(kvs_put(kvs, bucket, format_text("c%u", i), "x", 1, NULL, NULL));
        assert_done(kvs_keys(kvs, bucket, &cached, &keys, &count)); /* and it has the earlier writes */
        ck_assert_uint_eq(count, 4 + i);
        kvs_free(keys);
    }
    kvs_close(kvs);
}
END_TEST

START_TEST(a_value_can_expire)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 5);
    struct kvs_put_options put = KVS_PUT_OPTIONS(.ttl_s = 1);
    uint64_t end = now_ms() + PATIENCE_MS;
    struct kvs_entry *entry;

    assert_done(kvs_put(kvs, bucket, "k", "old", 3, NULL, NULL));
    assert_done(kvs_put(kvs, bucket, "k", "new", 3, &put, NULL));
    for (;;) {
        assert_done(kvs_get(kvs, bucket, "k", NULL, &entry));
        if (entry == NULL)
            break;
        ck_assert_str_eq(entry->value, "new");
        kvs_free(entry);
        ck_assert_uint_lt(now_ms(), end);
        pause_shortly();
    }
    kvs_close(kvs);
}
END_TEST

START_TEST(buckets_are_made_changed_listed_and_removed)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    struct kvs_header metadata[] = {{"team", "a"}};
    struct kvs_bucket_options options =
        KVS_BUCKET_OPTIONS(.description = "what for", .history = 7, .ttl_s = 3600, .max_value_size = 1000,
                           .max_bytes = 1000000, .storage = KVS_STORAGE_MEMORY, .replicas = 1,
                           .compression = KVS_SWITCH_ON, .limit_marker_ttl_s = 30, .marker_ttl_s = 86400,
                           .metadata = metadata, .metadata_count = 1);
    struct kvs_bucket_info *info = NULL;
    char **names;
    size_t count;

    assert_done(kvs_bucket_create(kvs, "library-full", &options, &info));
    ck_assert_str_eq(info->bucket, "library-full");
    ck_assert_str_eq(info->description, "what for");
    ck_assert_uint_eq(info->history, 7);
    ck_assert_int_eq(info->ttl_s, 3600);
    ck_assert_int_eq(info->max_value_size, 1000);
    ck_assert_int_eq(info->max_bytes, 1000000);
    ck_assert_int_eq(info->storage, KVS_STORAGE_MEMORY);
    ck_assert(info->compression);
    ck_assert_int_eq(info->limit_marker_ttl_s, 30);
    ck_assert_int_eq(info->marker_ttl_s, 86400);
    kvs_free(info);

    struct kvs_compact_options any_age = KVS_COMPACT_OPTIONS(.older_than_s = -1);
    uint64_t removed;
    struct kvs_bucket_options change = KVS_BUCKET_OPTIONS(.history = 3, .ttl_s = -1, .max_value_size = -1);
    assert_done(kvs_bucket_update(kvs, "library-full", &change, &info));
    ck_assert_uint_eq(info->history, 3);
    ck_assert_int_eq(info->ttl_s, 0);
    ck_assert_int_eq(info->max_value_size, 0);
    ck_assert_str_eq(info->description, "what for");
    kvs_free(info);

    assert_done(kvs_put(kvs, "library-full", "k", "v", 1, NULL, NULL));
    assert_done(kvs_bucket_info(kvs, "library-full", NULL, &info));
    ck_assert_uint_eq(info->values, 1);
    ck_assert_uint_eq(info->last_revision, 1);
    kvs_free(info);
    assert_done(kvs_delete(kvs, "library-full", "k", NULL, NULL));
    assert_done(kvs_bucket_compact(kvs, "library-full", NULL, &removed)); /* older than marker_ttl */
    ck_assert_uint_eq(removed, 0);
    assert_done(kvs_bucket_compact(kvs, "library-full", &any_age, &removed));
    ck_assert_uint_eq(removed, 1);
    assert_done(kvs_bucket_purge(kvs, "library-full", NULL));
    assert_done(kvs_bucket_info(kvs, "library-full", NULL, &info));
    ck_assert_uint_eq(info->values, 0);
    kvs_free(info);

    struct kvs_list_options list = KVS_LIST_OPTIONS(.filter = "library-f*");
    assert_done(kvs_bucket_list(kvs, &list, &names, &count));
    ck_assert_uint_eq(count, 1);
    ck_assert_str_eq(names[0], "library-full");
    kvs_free(names);
    assert_done(kvs_bucket_delete(kvs, "library-full", NULL));
    ck_assert_int_eq(kvs_bucket_info(kvs, "library-full", NULL, &info), KVS_BUCKET_NOT_FOUND);
    kvs_close(kvs);
}
END_TEST

START_TEST(daemon_info_health_and_stats_are_available)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_value *value = NULL;

    assert_done(kvs_health(kvs, bucket, NULL, &value));
    ck_assert(kvs_value_boolean(kvs_value_member(value, "healthy")));
    ck_assert_uint_eq(kvs_value_unsigned(kvs_value_member(value, "history")), 1);
    kvs_free(value);
    assert_done(kvs_health(kvs, NULL, NULL, &value));
    char *json = kvs_value_json(value);
    ck_assert_ptr_nonnull(strstr(json, "\"healthy\":true"));
    kvs_free(json);
    kvs_free(value);
    assert_done(kvs_daemon_info(kvs, NULL, &value));
    ck_assert_uint_eq(kvs_value_unsigned(kvs_value_member(value, "pid")), (uint64_t)shared_daemon.process.pid);
    kvs_free(value);
    assert_done(kvs_daemon_stats(kvs, NULL, &value));
    ck_assert_uint_gt(kvs_value_unsigned(kvs_value_member(value, "bytes_in")), 0);
    kvs_free(value);
    kvs_close(kvs);
}
END_TEST

START_TEST(any_method_can_be_called)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_request *request = kvs_request_new("kv.put", 4);
    struct kvs_value *value = NULL;

    kvs_request_string(request, bucket);
    kvs_request_string(request, "k");
    kvs_request_map(request, 1);
    kvs_request_string(request, "list");
    kvs_request_array(request, 2);
    kvs_request_integer(request, -1);
    kvs_request_boolean(request, true);
    kvs_request_map(request, 1);
    kvs_request_string(request, "ttl");
    kvs_request_unsigned(request, 600);
    assert_done(kvs_call(kvs, request, 0, &value));
    ck_assert_uint_eq(kvs_value_unsigned(value), 1);
    kvs_free(value);
    /* The transaction can be sent again. */
    assert_done(kvs_call(kvs, request, 0, &value));
    ck_assert_uint_eq(kvs_value_unsigned(value), 2);
    kvs_free(value);
    kvs_request_free(request);
    char *json;
    assert_done(kvs_get_json(kvs, bucket, "k", NULL, &json));
    ck_assert_str_eq(json, "{\"list\":[-1,true]}");
    kvs_free(json);

    request = kvs_request_new("kv.nonsense", 0);
    ck_assert_int_eq(kvs_call(kvs, request, 0, &value), KVS_INVALID_ARGUMENT);
    ck_assert_ptr_null(value);
    kvs_request_free(request);
    kvs_close(kvs);
}
END_TEST

START_TEST(every_failure_has_a_message)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    struct kvs_error error;
    struct kvs_entry *entry;

    ck_assert_int_eq(kvs_get(kvs, "nowhere", "k", NULL, &entry), KVS_BUCKET_NOT_FOUND);
    ck_assert_ptr_null(entry);
    ck_assert_int_eq(kvs_last_error(kvs)->code, KVS_BUCKET_NOT_FOUND);
    ck_assert_str_eq(kvs_last_error(kvs)->bucket, "nowhere");
    ck_assert_ptr_nonnull(strstr(kvs_last_error(kvs)->message, "nowhere"));
    ck_assert(!kvs_last_error(kvs)->retryable);
    ck_assert_int_eq(kvs_put(kvs, "a.b", "k", "v", 1, NULL, NULL), KVS_INVALID_ARGUMENT);
    char *large = keep(calloc(1, 2000000));
    const char *bucket = library_new_bucket(kvs, 1);
    ck_assert_int_eq(kvs_put(kvs, bucket, "k", large, 2000000, NULL, NULL), KVS_TOO_LARGE);
    assert_done(kvs_put(kvs, bucket, "k", "v", 1, NULL, NULL));
    kvs_close(kvs);

    ck_assert_ptr_null(kvs_connect("/nowhere/kvstored.sock", NULL, &error));
    ck_assert_int_eq(error.code, KVS_IO);
    ck_assert_ptr_nonnull(strstr(error.message, "/nowhere/kvstored.sock"));
    setenv("KVSTORED_SOCKET", shared_daemon.socket_path, 1);
    kvs = kvs_connect(NULL, NULL, &error);
    ck_assert_ptr_nonnull(kvs);
    kvs_close(kvs);
    ck_assert_str_eq(kvs_code_name(KVS_CONFLICT), "conflict");
}
END_TEST

/* Another NATS client may have written such a key. */
START_TEST(pages_go_on_after_a_key_that_is_not_utf8)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct nats *nats = nats_connect_embedded(shared_daemon.data_dir);
    struct kvs_keys_options page = KVS_KEYS_OPTIONS(.limit = 1);
    struct kvs_entries_options some = KVS_ENTRIES_OPTIONS(.limit = 1);
    struct kvs_entry *entries;
    char **first, **next;
    size_t count;

    nats_put(nats, bucket, "a\xff", "1");
    nats_put(nats, bucket, "b", "2");
    nats_close(nats);
    assert_done(kvs_keys(kvs, bucket, &page, &first, &count));
    ck_assert_uint_eq(count, 1);
    ck_assert_str_eq(first[0], "a\xff");
    page.after = some.after = first[0];
    assert_done(kvs_keys(kvs, bucket, &page, &next, &count));
    ck_assert_uint_eq(count, 1);
    ck_assert_str_eq(next[0], "b");
    kvs_free(next);
    assert_done(kvs_entries(kvs, bucket, &some, &entries, &count));
    ck_assert_uint_eq(count, 1);
    ck_assert_str_eq(entries[0].key, "b");
    kvs_free(entries);
    kvs_free(first);
    kvs_close(kvs);
}
END_TEST

START_TEST(a_number_is_incremented)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_increment_options initial = KVS_INCREMENT_OPTIONS(.initial = 10),
                                 ttl = KVS_INCREMENT_OPTIONS(.ttl_s = 1000, .keep_ttl = true);
    uint64_t revision;
    int64_t value;
    struct kvs_entry *entry;

    assert_done(kvs_increment(kvs, bucket, "n", -13, &initial, &value, &revision));
    ck_assert_int_eq(value, -3);
    ck_assert_uint_eq(revision, 1);
    assert_done(kvs_increment(kvs, bucket, "n", 5, &ttl, &value, NULL));
    ck_assert_int_eq(value, 2);
    assert_done(kvs_increment(kvs, bucket, "n", 1, NULL, NULL, NULL));
    assert_done(kvs_get(kvs, bucket, "n", NULL, &entry));
    ck_assert_str_eq(entry->value, "3");
    ck_assert_int_gt(entry->ttl_s, 0);
    kvs_free(entry);
    ck_assert_int_eq(kvs_increment(kvs, bucket, "n", INT64_MAX, NULL, &value, NULL), KVS_OUT_OF_RANGE);
    ck_assert_int_eq(kvs_last_error(kvs)->outcome, KVS_OUTCOME_NONE);
    library_put(kvs, bucket, "n", "text");
    ck_assert_int_eq(kvs_increment(kvs, bucket, "n", 1, NULL, &value, NULL), KVS_NOT_AN_INTEGER);
    kvs_close(kvs);
}
END_TEST

START_TEST(an_error_has_the_whole_key_and_bucket)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    char bucket[KVS_BUCKET_MAX + 1] = {0}, key[KVS_KEY_MAX + 1] = {0};
    const struct kvs_entry *entry;

    memset(bucket, 'b', KVS_BUCKET_MAX);
    memset(key, 'k', KVS_KEY_MAX);
    assert_done(kvs_bucket_create(kvs, bucket, NULL, NULL));
    assert_done(kvs_create(kvs, bucket, key, "v", 1, NULL, NULL));
    ck_assert_int_eq(kvs_update(kvs, bucket, key, "w", 1, 1000, NULL, NULL), KVS_CONFLICT);
    ck_assert_str_eq(kvs_last_error(kvs)->bucket, bucket);
    ck_assert_str_eq(kvs_last_error(kvs)->key, key);

    /* A transaction's conflict names one of its keys. */
    struct kvs_txn *txn = kvs_txn_begin(kvs, bucket);
    assert_done(kvs_txn_get(txn, key, &entry));
    assert_done(kvs_put(kvs, bucket, key, "x", 1, NULL, NULL));
    kvs_txn_put(txn, key, "y", 1, NULL);
    ck_assert_int_eq(kvs_txn_commit(txn, NULL, NULL, NULL), KVS_CONFLICT);
    ck_assert_str_eq(kvs_last_error(kvs)->key, key);
    kvs_txn_free(txn);
    assert_done(kvs_bucket_delete(kvs, bucket, NULL));
    kvs_close(kvs);
}
END_TEST

/* --- Asynchronous ---------------------------------------------------------------------------------- */

struct outcome {
    unsigned ok, failed;
    enum kvs_code last_code;
    enum kvs_outcome last_outcome;
    char *json; /* the last result */
};

/* Count the answer; keep the text of a success, which may be NULL. */
static void count_json(struct outcome *outcome, const struct kvs_error *error, char *json)
{
    if (error != NULL) {
        outcome->failed++;
        outcome->last_code = error->code;
        outcome->last_outcome = error->outcome;
        kvs_free(json);
        return;
    }
    outcome->ok++;
    kvs_free(outcome->json);
    outcome->json = json;
}

static void on_revision(struct kvs *kvs, const struct kvs_error *error, uint64_t revision, void *context)
{
    (void)kvs;
    count_json(context, error, strdup(format_text("%lu", (unsigned long)revision)));
}

static void on_increment(struct kvs *kvs, const struct kvs_error *error, int64_t value, uint64_t revision,
                         void *context)
{
    (void)kvs;
    count_json(context, error, strdup(format_text("%ld at %lu", (long)value, (unsigned long)revision)));
}

static void on_entry(struct kvs *kvs, const struct kvs_error *error, const struct kvs_entry *entry, void *context)
{
    (void)kvs;
    count_json(context, error, entry != NULL ? kvs_entry_json(entry) : strdup("null"));
}

static void on_entries(struct kvs *kvs, const struct kvs_error *error, const struct kvs_entry *entries, size_t count,
                       void *context)
{
    (void)kvs;
    count_json(context, error, count > 0 ? kvs_entry_json(&entries[0]) : NULL);
}

static void on_json(struct kvs *kvs, const struct kvs_error *error, const char *json, void *context)
{
    (void)kvs;
    count_json(context, error, json != NULL ? strdup(json) : NULL);
}

static void on_names(struct kvs *kvs, const struct kvs_error *error, const char *const *names, size_t count,
                     void *context)
{
    const char *text = "";

    (void)kvs;
    for (size_t i = 0; i < count; i++)
        text = format_text("%s%s,", text, names[i]);
    count_json(context, error, strdup(text));
}

static void on_bulk_get(struct kvs *kvs, const struct kvs_error *error, const struct kvs_entry *const *entries,
                        size_t count, void *context)
{
    const char *text = "";

    (void)kvs;
    for (size_t i = 0; i < count; i++)
        text = format_text("%s%s=%s,", text, entries[i] != NULL ? entries[i]->key : "?",
                           entries[i] != NULL ? entries[i]->value : "?");
    count_json(context, error, strdup(text));
}

static void on_bulk_write(struct kvs *kvs, const struct kvs_error *error, const struct kvs_bulk_result *results,
                          size_t count, size_t failed_count, void *context)
{
    const char *text = format_text("%zu failed:", failed_count);

    (void)kvs;
    for (size_t i = 0; i < count; i++)
        text = format_text("%s%s,", text, results[i].error != NULL ? kvs_code_name(results[i].error->code) : "ok");
    count_json(context, error, strdup(text));
}

static void on_commit(struct kvs *kvs, const struct kvs_error *error, const uint64_t *revisions, size_t count,
                      void *context)
{
    (void)kvs;
    count_json(context, error,
               strdup(format_text("%zu revisions from %lu", count, count > 0 ? (unsigned long)revisions[0] : 0)));
}

static void on_finished(struct kvs *kvs, const struct kvs_error *error, void *context)
{
    (void)kvs;
    count_json(context, error, strdup("finished"));
}

static void on_count(struct kvs *kvs, const struct kvs_error *error, uint64_t number, void *context)
{
    on_revision(kvs, error, number, context);
}

static void on_bucket(struct kvs *kvs, const struct kvs_error *error, const struct kvs_bucket_info *info, void *context)
{
    (void)kvs;
    count_json(context, error, info != NULL ? kvs_value_json(info->raw) : NULL);
}

static void on_value(struct kvs *kvs, const struct kvs_error *error, const struct kvs_value *value, void *context)
{
    (void)kvs;
    count_json(context, error, kvs_value_json(value));
}

/* Run a loop of the program's own until nothing is in flight. */
static enum kvs_code run_loop(struct kvs *kvs)
{
    uint64_t end = now_ms() + PATIENCE_MS;
    enum kvs_code code = KVS_OK;

    while (kvs_in_flight(kvs) > 0 && code == KVS_OK) {
        struct pollfd wait = {.fd = kvs_fd(kvs), .events = kvs_events(kvs)};
        int timeout_ms = kvs_timeout_ms(kvs);
        ck_assert_msg(now_ms() < end, "%zu calls are in flight", kvs_in_flight(kvs));
        poll(&wait, 1, timeout_ms < 0 || timeout_ms > 1000 ? 1000 : timeout_ms);
        code = kvs_process(kvs);
    }
    return code;
}

/* Submit the transaction, run the loop, and compare the result as JSON. */
#define expect_json(call, text)                                                                                        \
    do {                                                                                                               \
        struct outcome *done_context = &outcome;                                                                       \
        assert_done(call);                                                                                             \
        ck_assert_int_eq(run_loop(kvs), KVS_OK);                                                                       \
        ck_assert_msg(done_context->failed == 0, "%s: %s", #call, kvs_code_name(done_context->last_code));             \
        ck_assert_msg(strstr(outcome.json, text) != NULL, "%s: %s instead of %s", #call, outcome.json, text);          \
    } while (0)

START_TEST(a_key_is_touched_and_its_ttl_is_kept)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_put_options keep = KVS_PUT_OPTIONS(.keep_ttl = true);
    struct kvs_touch_options former = KVS_TOUCH_OPTIONS(.revision = 1);
    struct kvs_txn *txn = kvs_txn_begin(kvs, bucket);
    uint64_t revision = 7;
    struct kvs_entry *entry;

    assert_done(kvs_touch(kvs, bucket, "k", 10, NULL, &revision));
    ck_assert_uint_eq(revision, 0);
    library_put(kvs, bucket, "k", "v");
    assert_done(kvs_touch(kvs, bucket, "k", 1000, NULL, &revision));
    ck_assert_uint_eq(revision, 2);
    ck_assert_int_eq(kvs_touch(kvs, bucket, "k", 10, &former, NULL), KVS_CONFLICT);
    assert_done(kvs_put(kvs, bucket, "k", "w", 1, &keep, NULL));
    assert_done(kvs_update(kvs, bucket, "k", "x", 1, 3, &keep, NULL));
    assert_done(kvs_get(kvs, bucket, "k", NULL, &entry));
    ck_assert_str_eq(entry->value, "x");
    ck_assert_int_gt(entry->ttl_s, 900);
    ck_assert_int_gt(entry->expires_us, entry->created_us);
    kvs_free(entry);
    ck_assert_int_eq(kvs_create(kvs, bucket, "new", "x", 1, &keep, NULL), KVS_INVALID_ARGUMENT);
    kvs_txn_put(txn, "k", "y", 1, &keep);
    ck_assert_int_eq(kvs_txn_commit(txn, NULL, NULL, NULL), KVS_INVALID_ARGUMENT);
    kvs_txn_free(txn);
    assert_done(kvs_async_touch(kvs, bucket, "k", 0, NULL, NULL, NULL));
    ck_assert_int_eq(run_loop(kvs), KVS_OK);
    assert_done(kvs_get(kvs, bucket, "k", NULL, &entry));
    ck_assert_int_eq(entry->ttl_s, 0);
    kvs_free(entry);
    kvs_close(kvs);
}
END_TEST

START_TEST(a_change_has_the_entry_before_it)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_watch_options options = KVS_WATCH_OPTIONS(.previous = true);
    struct kvs_watch *watch;

    library_put(kvs, bucket, "k", "one");
    assert_done(kvs_watch(kvs, bucket, &options, &watch));
    struct kvs_event event = library_watch_next(watch);
    ck_assert_int_eq(event.type, KVS_EVENT_ENTRY);
    ck_assert(!event.entry->has_previous);
    ck_assert_int_eq(library_watch_next(watch).type, KVS_EVENT_READY);
    library_put(kvs, bucket, "k", "two");
    event = library_watch_next(watch);
    ck_assert(event.entry->has_previous);
    ck_assert_uint_eq(event.entry->previous, 1);
    if (event.entry->previous_value != NULL) /* the copy may not have its values yet */
        ck_assert_str_eq(event.entry->previous_value, "one");
    kvs_close(kvs);
}
END_TEST

START_TEST(a_get_waits_for_a_change)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL), *other = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_get_options wait = KVS_GET_OPTIONS(.waits = true, .timeout_s = 3);
    struct outcome outcome = {0};
    struct kvs_entry *entry;

    assert_done(kvs_get(kvs, bucket, "k", &wait, &entry));
    ck_assert_ptr_null(entry);
    wait.timeout_s = 60;
    assert_done(kvs_async_get(kvs, bucket, "k", &wait, on_entry, &outcome));
    library_put(other, bucket, "k", "here");
    ck_assert_int_eq(run_loop(kvs), KVS_OK);
    ck_assert_ptr_nonnull(strstr(outcome.json, "here"));
    kvs_free(outcome.json);
    wait.timeout_s = 3;
    wait.wait_above = 1;
    assert_done(kvs_get(kvs, bucket, "k", &wait, &entry));
    ck_assert_uint_eq(entry->revision, 1);
    kvs_free(entry);
    assert_done(kvs_delete(kvs, bucket, "k", NULL, NULL));
    assert_done(kvs_get(kvs, bucket, "k", &wait, &entry));
    ck_assert_int_eq(entry->operation, KVS_OPERATION_DELETE);
    kvs_free(entry);
    kvs_close(other);
    kvs_close(kvs);
}
END_TEST

START_TEST(every_call_has_its_asynchronous_form)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    struct outcome outcome = {0};
    struct kvs_bucket_options bucket = KVS_BUCKET_OPTIONS(.history = 3), change = KVS_BUCKET_OPTIONS(.history = 4);
    struct kvs_keys_options keys = KVS_KEYS_OPTIONS(.limit = 10);
    struct kvs_list_options list = KVS_LIST_OPTIONS(.filter = "async");

    const char *const two[] = {"k", "none"};
    const struct kvs_pair pairs[] = {{"m", "5", 1}, {"no..key", "x", 1}};
    struct kvs_txn *txn = kvs_txn_begin(kvs, "async");

    expect_json(kvs_async_bucket_create(kvs, "async", &bucket, on_bucket, &outcome), "\"history\":3");
    expect_json(kvs_async_put(kvs, "async", "k", "1", 1, NULL, on_revision, &outcome), "1");
    expect_json(kvs_async_update(kvs, "async", "k", "2", 1, 1, NULL, on_revision, &outcome), "2");
    expect_json(kvs_async_create(kvs, "async", "j", "[3]", 3, NULL, on_revision, &outcome), "3");
    expect_json(kvs_async_get(kvs, "async", "k", NULL, on_entry, &outcome), "\"value\":\"2\"");
    expect_json(kvs_async_get_json(kvs, "async", "j", NULL, on_json, &outcome), "[3]");
    expect_json(kvs_async_keys(kvs, "async", &keys, on_names, &outcome), "j,k,");
    expect_json(kvs_async_entries(kvs, "async", NULL, on_entries, &outcome), "\"key\":\"j\"");
    expect_json(kvs_async_bulk_get(kvs, "async", two, 2, NULL, on_bulk_get, &outcome), "k=2,?=?,");
    expect_json(kvs_async_history(kvs, "async", "k", NULL, on_entries, &outcome), "\"value\":\"1\"");
    expect_json(kvs_async_delete(kvs, "async", "k", NULL, on_revision, &outcome), "4");
    expect_json(kvs_async_purge(kvs, "async", "k", NULL, on_revision, &outcome), "5");
    expect_json(kvs_async_get(kvs, "async", "k", NULL, on_entry, &outcome), "null");
    expect_json(kvs_async_bulk_put(kvs, "async", pairs, 2, NULL, on_bulk_write, &outcome),
                "1 failed:ok,invalid_argument,");
    expect_json(kvs_async_bulk_delete(kvs, "async", two, 2, NULL, on_bulk_write, &outcome), "0 failed:ok,ok,");
    kvs_txn_put(txn, "k", "9", 1, NULL);
    kvs_txn_put(txn, "l", "10", 2, NULL);
    expect_json(kvs_async_txn_commit(txn, NULL, on_commit, &outcome), "2 revisions from 9");
    kvs_txn_free(txn);
    expect_json(kvs_async_increment(kvs, "async", "l", -14, NULL, on_increment, &outcome), "-4 at 11");
    expect_json(kvs_async_bucket_update(kvs, "async", &change, on_bucket, &outcome), "\"history\":4");
    expect_json(kvs_async_bucket_info(kvs, "async", NULL, on_bucket, &outcome), "\"last_revision\":11");
    expect_json(kvs_async_bucket_list(kvs, &list, on_names, &outcome), "async,");
    expect_json(kvs_async_bucket_list_infos(kvs, &list, on_value, &outcome), "\"bucket\":\"async\"");
    expect_json(kvs_async_bucket_purge(kvs, "async", NULL, on_finished, &outcome), "finished");
    expect_json(kvs_async_bucket_compact(kvs, "async", NULL, on_count, &outcome), "0");
    expect_json(kvs_async_delete_matching(kvs, "async", ">", NULL, on_count, &outcome), "0");
    expect_json(kvs_async_bucket_purge_matching(kvs, "async", ">", NULL, on_count, &outcome), "0");
    expect_json(kvs_async_health(kvs, "async", NULL, on_value, &outcome), "\"healthy\":true");
    expect_json(kvs_async_daemon_info(kvs, NULL, on_value, &outcome), "\"version\"");
    expect_json(kvs_async_daemon_stats(kvs, NULL, on_value, &outcome), "\"uptime\"");
    expect_json(kvs_async_bucket_delete(kvs, "async", NULL, on_finished, &outcome), "finished");
    struct kvs_request *request = kvs_request_new("daemon.info", 0);
    expect_json(kvs_submit(kvs, request, 0, on_value, &outcome), "\"methods\"");
    ck_assert_uint_eq(outcome.ok, 30);
    kvs_request_free(request);
    kvs_free(outcome.json);
    kvs_close(kvs);
}
END_TEST

START_TEST(options_of_older_and_newer_programs_are_understood)
{
    struct newer_options {
        struct kvs_put_options known;
        int64_t unknown;
    } newer = {.known = KVS_PUT_OPTIONS(.ttl_s = 1000)};
    struct kvs_put_options older = KVS_PUT_OPTIONS(.ttl_s = -1);
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);

    /* One member less: the program does not know ttl_s, and the bytes at its place are not read. */
    older.size = offsetof(struct kvs_put_options, ttl_s);
    assert_done(kvs_put(kvs, bucket, "k", "v", 1, &older, NULL));
    newer.known.size = sizeof(newer);
    assert_done(kvs_put(kvs, bucket, "k", "v", 1, &newer.known, NULL));
    newer.unknown = 1;
    ck_assert_int_eq(kvs_put(kvs, bucket, "k", "v", 1, &newer.known, NULL), KVS_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(kvs_last_error(kvs)->message, "does not know"));
    newer.known.size = 0;
    ck_assert_int_eq(kvs_put(kvs, bucket, "k", "v", 1, &newer.known, NULL), KVS_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(kvs_last_error(kvs)->message, "initialise"));
    ck_assert_str_eq(kvs_version(), KVS_VERSION);
    kvs_close(kvs);
}
END_TEST

START_TEST(thousands_of_calls_are_in_flight_on_one_handle)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct outcome outcome = {0};
    char **keys;
    size_t key_count;

    for (unsigned i = 0; i < 5000; i++) {
        const char *key = format_text("k%u", i);
        assert_done(kvs_async_put(kvs, bucket, key, key, strlen(key), NULL, on_revision, &outcome));
    }
    ck_assert_uint_eq(kvs_in_flight(kvs), 5000);
    /* A blocking call also processes the others. */
    assert_done(kvs_put(kvs, bucket, "last", "v", 1, NULL, NULL));
    ck_assert_int_eq(run_loop(kvs), KVS_OK);
    ck_assert_uint_eq(outcome.ok, 5000);
    ck_assert_uint_eq(outcome.failed, 0);
    assert_done(kvs_keys(kvs, bucket, NULL, &keys, &key_count));
    ck_assert_uint_eq(key_count, 5001);
    kvs_free(keys);
    kvs_free(outcome.json);
    kvs_close(kvs);
}
END_TEST

START_TEST(one_call_too_many_is_refused_by_the_handle)
{
    struct kvs_options options = KVS_OPTIONS(.max_in_flight = 2);
    struct kvs *kvs = library_connect(&shared_daemon, &options);
    struct outcome outcome = {0};

    for (unsigned i = 0; i < 2; i++)
        assert_done(kvs_async_daemon_info(kvs, NULL, on_value, &outcome));
    ck_assert_int_eq(kvs_async_daemon_info(kvs, NULL, on_value, &outcome), KVS_RESOURCE_EXHAUSTED);
    ck_assert_int_eq(run_loop(kvs), KVS_OK);
    ck_assert_uint_eq(outcome.ok, 2);
    assert_done(kvs_async_daemon_info(kvs, NULL, on_value, &outcome));
    kvs_close(kvs); /* with a call in flight, which ends */
    ck_assert_uint_eq(outcome.failed, 1);
    ck_assert_int_eq(outcome.last_code, KVS_IO);
    kvs_free(outcome.json);
}
END_TEST

static enum kvs_code raise_counter(struct kvs_txn *txn, void *context)
{
    const struct kvs_entry *entry;
    enum kvs_code code = kvs_txn_get(txn, "counter", &entry);

    (void)context;
    kvs_txn_put(txn, "counter", "1", 1, NULL);
    return code;
}

START_TEST(a_transaction_may_take_longer_than_a_call)
{
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = 1000); /* calls.max_timeout is 60 */

    assert_done(kvs_txn_run(kvs, library_new_bucket(kvs, 1), raise_counter, NULL, &options));
    kvs_close(kvs);
}
END_TEST

START_TEST(settings_that_would_be_lost_are_refused)
{
    const struct kvs_header twins[] = {{"A", "1"}, {"A", "2"}};
    struct kvs *kvs = library_connect(&shared_daemon, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    struct kvs_bucket_options republish = KVS_BUCKET_OPTIONS(.republish_source = "$KV.x.>");
    struct kvs_put_options put = KVS_PUT_OPTIONS(.headers = twins, .header_count = 2);

    ck_assert_int_eq(kvs_bucket_update(kvs, bucket, &republish, NULL), KVS_INVALID_ARGUMENT);
    ck_assert_int_eq(kvs_put(kvs, bucket, "k", "v", 1, &put, NULL), KVS_INVALID_ARGUMENT);
    kvs_close(kvs);
}
END_TEST

/* --- Loss ------------------------------------------------------------------------------------------ */

static struct daemon daemon_of_test;

START_TEST(without_reconnect_a_lost_connection_stays_lost)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct kvs *kvs = library_connect(&daemon_of_test, NULL);
    const char *bucket = library_new_bucket(kvs, 1);

    daemon_stop(&daemon_of_test);
    ck_assert_int_eq(kvs_put(kvs, bucket, "k", "v", 1, NULL, NULL), KVS_IO);
    ck_assert(strlen(kvs_last_error(kvs)->message) > 0);
    daemon_restart(&daemon_of_test);
    ck_assert_int_eq(kvs_put(kvs, bucket, "k", "v", 1, NULL, NULL), KVS_IO);
    kvs_close(kvs);
    kvs = library_connect(&daemon_of_test, NULL);
    assert_done(kvs_put(kvs, bucket, "k", "v", 1, NULL, NULL));
    kvs_close(kvs);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(with_reconnect_the_next_call_finds_the_daemon_again)
{
    struct kvs_options options = KVS_OPTIONS(.reconnect = true);

    daemon_start(&daemon_of_test, NULL, NULL);
    struct kvs *kvs = library_connect(&daemon_of_test, &options);
    const char *bucket = library_new_bucket(kvs, 1);
    ck_assert_uint_eq(kvs_connection_count(kvs), 1);

    daemon_stop(&daemon_of_test);
    daemon_restart(&daemon_of_test);
    assert_done(kvs_put(kvs, bucket, "k", "v", 1, NULL, NULL));
    ck_assert_uint_eq(kvs_connection_count(kvs), 2);

    /* While there is no daemon, a blocking call tries until its timeout. */
    daemon_stop(&daemon_of_test);
    struct kvs_put_options put = KVS_PUT_OPTIONS(.timeout_s = 0.5);
    uint64_t start = now_ms();
    ck_assert_int_ne(kvs_put(kvs, bucket, "k", "v", 1, &put, NULL), KVS_OK);
    ck_assert_uint_ge(now_ms() - start, 400);
    daemon_restart(&daemon_of_test);
    assert_done(kvs_put(kvs, bucket, "k", "v", 1, NULL, NULL));
    kvs_close(kvs);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(with_reconnect_a_call_waits_for_a_session)
{
    struct kvs_options options = KVS_OPTIONS(.reconnect = true);
    struct kvs_put_options put = KVS_PUT_OPTIONS(.timeout_s = 0.5);

    daemon_start(&daemon_of_test, NULL, "limits:\n  sessions: 1\n");
    struct kvs *first = library_connect(&daemon_of_test, NULL), *kvs = first;
    const char *bucket = library_new_bucket(first, 1);
    kvs = library_connect(&daemon_of_test, &options);
    uint64_t start = now_ms();
    ck_assert_int_ne(kvs_put(kvs, bucket, "k", "v", 1, &put, NULL), KVS_OK);
    ck_assert_int_eq(kvs_last_error(kvs)->outcome, KVS_OUTCOME_NONE);
    ck_assert_uint_ge(now_ms() - start, 400);
    kvs_close(first);
    assert_done(kvs_put(kvs, bucket, "k", "v", 1, NULL, NULL));
    kvs_close(kvs);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(calls_are_cancelled_by_their_context)
{
    struct kvs_options reconnect = KVS_OPTIONS(.reconnect = true);
    struct kvs_get_options wait = KVS_GET_OPTIONS(.waits = true, .timeout_s = 60);
    struct outcome cancelled = {0}, other = {0}, held = {0};

    daemon_start(&daemon_of_test, NULL, NULL);
    struct kvs *kvs = library_connect(&daemon_of_test, &reconnect);
    const char *bucket = library_new_bucket(kvs, 1);
    assert_done(kvs_async_get(kvs, bucket, "a", &wait, on_entry, &cancelled));
    assert_done(kvs_async_get(kvs, bucket, "b", &wait, on_entry, &cancelled));
    assert_done(kvs_async_get(kvs, bucket, "c", &wait, on_entry, &other));
    kvs_cancel(kvs, &cancelled);
    ck_assert_uint_eq(cancelled.failed, 0); /* not from within */
    library_put(kvs, bucket, "c", "here");
    ck_assert_int_eq(run_loop(kvs), KVS_OK);
    ck_assert_uint_eq(cancelled.failed, 2);
    ck_assert_int_eq(cancelled.last_code, KVS_DEADLINE_EXCEEDED);
    ck_assert_uint_eq(other.ok, 1);
    kvs_free(other.json);

    /* While there is no daemon, a call that would be sent again ends at once. */
    daemon_stop(&daemon_of_test);
    assert_done(kvs_async_get(kvs, bucket, "a", &wait, on_entry, &held));
    kvs_process(kvs);
    ck_assert_uint_eq(kvs_in_flight(kvs), 1);
    kvs_cancel(kvs, &held);
    while (kvs_in_flight(kvs) > 0)
        kvs_process(kvs);
    ck_assert_uint_eq(held.failed, 1);
    kvs_close(kvs);
}
END_TEST

START_TEST(writes_in_flight_at_a_loss_end_with_an_unknown_outcome)
{
    struct outcome outcome = {0};
    struct outcome reads = {0};

    daemon_start(&daemon_of_test, NULL, NULL);
    struct kvs *kvs = library_connect(&daemon_of_test, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    pid_t server = daemon_nats_pid(&daemon_of_test);

    pid_suspend(server);
    assert_done(kvs_async_put(kvs, bucket, "k", "v", 1, NULL, on_revision, &outcome));
    assert_done(kvs_async_get(kvs, bucket, "k", NULL, on_entry, &reads));
    kvs_process(kvs);
    /* Both were sent when a later call is answered. */
    struct kvs_value *info;
    assert_done(kvs_daemon_info(kvs, NULL, &info));
    kvs_free(info);
    process_kill(&daemon_of_test.process);
    ck_assert_int_ne(run_loop(kvs), KVS_OK);
    ck_assert_uint_eq(outcome.failed, 1);
    ck_assert_int_eq(outcome.last_code, KVS_IO);
    ck_assert_int_eq(outcome.last_outcome, KVS_OUTCOME_UNKNOWN);
    ck_assert_uint_eq(reads.failed, 1);
    ck_assert_int_ne(reads.last_outcome, KVS_OUTCOME_UNKNOWN);
    ck_assert_int_lt(kvs_fd(kvs), 0);
    kvs_close(kvs);
}
END_TEST

START_TEST(a_call_that_is_not_answered_ends_at_its_time)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct kvs *kvs = library_connect(&daemon_of_test, NULL);
    const char *bucket = library_new_bucket(kvs, 1);
    pid_t server = daemon_nats_pid(&daemon_of_test);
    struct kvs_put_options put = KVS_PUT_OPTIONS(.timeout_s = 0.3);

    assert_done(kvs_put(kvs, bucket, "k", "v", 1, NULL, NULL));
    pid_suspend(server);
    ck_assert_int_eq(kvs_put(kvs, bucket, "k", "v", 1, &put, NULL), KVS_DEADLINE_EXCEEDED);
    ck_assert_int_eq(kvs_last_error(kvs)->outcome, KVS_OUTCOME_UNKNOWN);
    ck_assert(kvs_last_error(kvs)->retryable);
    pid_resume(server);

    /* The daemon is stopped: the library has timeouts of its own. */
    pid_suspend(daemon_of_test.process.pid);
    uint64_t start = now_ms();
    ck_assert_int_eq(kvs_put(kvs, bucket, "k", "v", 1, &put, NULL), KVS_DEADLINE_EXCEEDED);
    assert_at_once(start);
    pid_resume(daemon_of_test.process.pid);
    assert_done(kvs_put(kvs, bucket, "k", "v", 1, NULL, NULL));
    kvs_close(kvs);
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *library_suite(void)
{
    Suite *suite = suite_create("library");
    TCase *tests = shared_daemon_case(suite, "calls");
    TCase *loss = tcase_create("loss");

    tcase_add_test(tests, keys_are_put_got_created_updated_and_removed);
    tcase_add_test(tests, answers_for_many_keys_have_the_order_of_the_request);
    tcase_add_test(tests, json_and_keys_are_read);
    tcase_add_test(tests, pages_go_on_after_a_key_that_is_not_utf8);
    tcase_add_test(tests, a_number_is_incremented);
    tcase_add_test(tests, a_get_waits_for_a_change);
    tcase_add_test(tests, a_change_has_the_entry_before_it);
    tcase_add_test(tests, a_key_is_touched_and_its_ttl_is_kept);
    tcase_add_test(tests, a_value_can_expire);
    tcase_add_test(tests, buckets_are_made_changed_listed_and_removed);
    tcase_add_test(tests, daemon_info_health_and_stats_are_available);
    tcase_add_test(tests, any_method_can_be_called);
    tcase_add_test(tests, every_failure_has_a_message);
    tcase_add_test(tests, an_error_has_the_whole_key_and_bucket);
    tcase_add_test(tests, every_call_has_its_asynchronous_form);
    tcase_add_test(tests, options_of_older_and_newer_programs_are_understood);
    tcase_add_test(tests, thousands_of_calls_are_in_flight_on_one_handle);
    tcase_add_test(tests, one_call_too_many_is_refused_by_the_handle);
    tcase_add_test(tests, a_transaction_may_take_longer_than_a_call);
    tcase_add_test(tests, settings_that_would_be_lost_are_refused);
    tcase_add_test(loss, without_reconnect_a_lost_connection_stays_lost);
    tcase_add_test(loss, with_reconnect_the_next_call_finds_the_daemon_again);
    tcase_add_test(loss, with_reconnect_a_call_waits_for_a_session);
    tcase_add_test(loss, writes_in_flight_at_a_loss_end_with_an_unknown_outcome);
    tcase_add_test(loss, calls_are_cancelled_by_their_context);
    tcase_add_test(loss, a_call_that_is_not_answered_ends_at_its_time);
    suite_add_tcase(suite, loss);
    return suite;
}
