/* bucket.*: settings and contents. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/client.h"
#include "tests/support/machine.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"

#include <stdlib.h>
#include <string.h>

static struct daemon daemon_of_test;

START_TEST(a_bucket_has_the_documented_defaults)
{
    struct client *client = client_open_shared();

    struct answer *answer = client_call(client, "bucket.create", "['defaults']");
    assert_ok(answer);
    const msgpack_object *info = &answer->result;
    ck_assert_str_eq(text_at(info, "bucket"), "defaults");
    ck_assert_uint_eq(number_at(info, "history"), 1);
    ck_assert_uint_eq(number_at(info, "ttl"), 0);
    ck_assert_int_eq(find_at(info, "max_value_size")->via.i64, -1);
    ck_assert_int_eq(find_at(info, "max_bytes")->via.i64, -1);
    ck_assert_str_eq(text_at(info, "storage"), "file");
    ck_assert_uint_eq(number_at(info, "replicas"), 1);
    ck_assert(!bool_at(info, "compression"));
    ck_assert_uint_eq(number_at(info, "limit_marker_ttl"), 1);
    ck_assert_uint_eq(number_at(info, "values"), 0);
    ck_assert_uint_eq(number_at(info, "bytes"), 0);
    ck_assert_uint_eq(number_at(info, "last_revision"), 0);
    ck_assert(bool_at(info, "allows_ttl"));
    ck_assert(bool_at(info, "allows_atomic"));
    const char *optional[] = {"description", "placement", "republish", "mirror", "sources", "metadata"};
    for (size_t i = 0; i < sizeof(optional) / sizeof(optional[0]); i++)
        ck_assert_ptr_null(find_at(info, optional[i]));
}
END_TEST

START_TEST(every_setting_comes_back_in_the_info)
{
    struct client *client = client_open_shared();

    assert_ok(client_call(client, "bucket.create",
                          "['full', {'description': 'what for', 'history': 7, 'ttl': 3600, 'max_value_size': 1000, "
                          "'max_bytes': 1000000, 'storage': 'memory', 'replicas': 1, 'compression': true, 'republish': "
                          "{'source': '>', 'destination': 'copies.>', 'headers_only': true}, 'metadata': {'team': 'a', "
                          "'tier': '2'}, 'limit_marker_ttl': 30}]"));
    struct answer *answer = client_call(client, "bucket.info", "['full']");
    assert_ok(answer);
    const msgpack_object *info = &answer->result;
    ck_assert_str_eq(text_at(info, "description"), "what for");
    ck_assert_uint_eq(number_at(info, "history"), 7);
    ck_assert_uint_eq(number_at(info, "ttl"), 3600);
    ck_assert_uint_eq(number_at(info, "max_value_size"), 1000);
    ck_assert_uint_eq(number_at(info, "max_bytes"), 1000000);
    ck_assert_str_eq(text_at(info, "storage"), "memory");
    ck_assert(bool_at(info, "compression"));
    ck_assert_str_eq(text_at(info, "republish.destination"), "copies.>");
    ck_assert_str_eq(text_at(info, "republish.source"), ">");
    ck_assert(bool_at(info, "republish.headers_only"));
    ck_assert_uint_eq(count_at(info, "metadata"), 2);
    ck_assert_str_eq(text_at(info, "metadata.team"), "a");
    ck_assert_uint_eq(number_at(info, "limit_marker_ttl"), 30);
}
END_TEST

START_TEST(texts_of_settings_may_be_as_long_as_documented)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    const char *description = format_text("%0*d", 4096, 0), *value = format_text("%0*d", 127 * 1024 - 4, 0);

    struct answer *answer =
        client_call(client, "bucket.update", "['%s', {'description': '%s', 'metadata': {'name': '%s'}}]", bucket,
                    description, value);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "description"), description);
    ck_assert_str_eq(text_at(&answer->result, "metadata.name"), value);
    assert_code_says(client_call(client, "bucket.update", "['%s', {'description': '%sd'}]", bucket, description),
                     "invalid_argument", "4096");
    assert_code_says(client_call(client, "bucket.update", "['%s', {'metadata': {'name': '%sv'}}]", bucket, value),
                     "too_large", "130048");
}
END_TEST

START_TEST(creating_a_bucket_again_with_the_same_settings_succeeds)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 3");

    assert_ok(client_call(client, "bucket.create", "['%s', {'history': 3}]", bucket));
    struct answer *answer = client_call(client, "bucket.create", "['%s', {'history': 4}]", bucket);
    assert_code(answer, "already_exists");
    ck_assert_str_eq(text_at(&answer->error, "bucket"), bucket);
    answer = client_call(client, "bucket.info", "['%s']", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "history"), 3);
}
END_TEST

START_TEST(an_update_changes_what_is_given_and_nothing_else)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(
        client, "'description': 'before', 'history': 3, 'max_bytes': 1000000, 'metadata': {'a': '1'}");

    for (unsigned i = 0; i < 4; i++)
        assert_ok(client_call(client, "kv.put", "['%s', 'n', '%u']", bucket, i));
    struct answer *answer =
        client_call(client, "bucket.update", "['%s', {'description': 'after', 'history': 5}]", bucket);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "description"), "after");
    ck_assert_uint_eq(number_at(&answer->result, "history"), 5);
    ck_assert_uint_eq(number_at(&answer->result, "max_bytes"), 1000000);
    ck_assert_str_eq(text_at(&answer->result, "metadata.a"), "1");
    ck_assert_uint_eq(number_at(&answer->result, "values"), 3);
    for (unsigned i = 4; i < 9; i++)
        assert_ok(client_call(client, "kv.put", "['%s', 'n', '%u']", bucket, i));
    answer = client_call(client, "kv.history", "['%s', 'n']", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 5);
}
END_TEST

/* The call must be refused, name the setting and what is at stake, and change nothing; with force it is done. */
static void expect_force(struct client *client, const char *bucket, const char *setting, const char *why)
{
    const char *before = object_text(&client_call(client, "bucket.info", "['%s']", bucket)->result);
    struct answer *answer = client_call(client, "bucket.update", "['%s', {'description': 'new', %s}]", bucket, setting);

    assert_code_says(answer, "unsupported", why);
    ck_assert_str_eq(text_at(&answer->error, "outcome"), "none");
    ck_assert(!bool_at(&answer->error, "retryable"));
    ck_assert(strstr(text_at(&answer->error, "message"), "force") != NULL);
    ck_assert_str_eq(object_text(&client_call(client, "bucket.info", "['%s']", bucket)->result), before);
    assert_ok(client_call(client, "bucket.update", "['%s', {%s, 'force': true}]", bucket, setting));
}

START_TEST(a_smaller_history_that_would_remove_values_needs_force)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 10");

    /* As long as no key can have more, nothing is lost. */
    for (unsigned i = 0; i < 3; i++)
        assert_ok(client_call(client, "kv.put", "['%s', 'n', '%u']", bucket, i));
    assert_ok(client_call(client, "kv.put", "['%s', 'other', '1']", bucket));
    assert_ok(client_call(client, "bucket.update", "['%s', {'history': 3}]", bucket));
    assert_ok(client_call(client, "bucket.update", "['%s', {'history': 5}]", bucket));
    assert_ok(client_call(client, "bucket.update", "['%s', {'history': 5, 'force': false}]", bucket));
    expect_force(client, bucket, "'history': 2", "history 2 would remove older values at once: the bucket has 2 ");
    struct answer *answer = client_call(client, "kv.history", "['%s', 'n']", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 2);
    /* The newest value of each key stays, whatever the history. */
    assert_ok(client_call(client, "bucket.purge", "['%s']", bucket));
    for (unsigned i = 0; i < 5; i++)
        assert_ok(client_call(client, "kv.put", "['%s', 'k%u', '1']", bucket, i));
    assert_ok(client_call(client, "bucket.update", "['%s', {'history': 1}]", bucket));
}
END_TEST

START_TEST(a_full_bucket_says_so_and_takes_deletes_if_its_history_is_1)
{
    struct client *client = client_open(&shared_daemon);
    static const unsigned histories[] = {1, 5};

    for (size_t i = 0; i < 2; i++) {
        char settings[64];
        snprintf(settings, sizeof(settings), "'max_bytes': 20000, 'history': %u", histories[i]);
        const char *bucket = client_new_bucket(client, settings);
        assert_ok(client_call(client, "kv.put", "['%s', 'key.0', '%015000u']", bucket, 0));
        const struct answer *answer = client_call(client, "kv.put", "['%s', 'key.1', '']", bucket);
        for (unsigned key = 2; answer->error.type == MSGPACK_OBJECT_NIL; key++)
            answer = client_call(client, "kv.put", "['%s', 'key.%u', '']", bucket, key);
        assert_code(answer, "resource_exhausted");
        ck_assert_ptr_nonnull(strstr(text_at(&answer->error, "message"), "max_bytes"));
        ck_assert_str_eq(text_at(&answer->error, "outcome"), "none");
        answer = client_call(client, "kv.delete", "['%s', 'key.0']", bucket);
        if (histories[i] == 1)
            assert_ok(answer);
        else
            assert_code(answer, "resource_exhausted");
        assert_ok(client_call(client, "bucket.update", "['%s', {'max_bytes': 30000}]", bucket));
        assert_ok(client_call(client, "kv.delete", "['%s', 'key.1']", bucket));
    }
}
END_TEST

START_TEST(max_bytes_below_what_is_stored_needs_force)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'max_bytes': 1000000");

    assert_ok(client_put(client, bucket, "k", keep(calloc(1, 50000)), 50000));
    assert_ok(client_call(client, "bucket.update", "['%s', {'max_bytes': 60000}]", bucket));
    expect_force(client, bucket, "'max_bytes': 10000", "it would refuse every further value");
    assert_code(client_call(client, "kv.put", "['%s', 'other', 'v']", bucket), "resource_exhausted");
    assert_ok(client_call(client, "bucket.update", "['%s', {'max_bytes': -1}]", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'other', 'v']", bucket));
}
END_TEST

START_TEST(a_ttl_below_the_age_of_a_value_needs_force)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");

    assert_ok(client_call(client, "bucket.update", "['%s', {'ttl': 1}]", bucket));
    assert_ok(client_call(client, "bucket.update", "['%s', {'ttl': 0}]", bucket));
    uint64_t start_ms = now_ms();
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    assert_ok(client_call(client, "bucket.update", "['%s', {'ttl': 3600}]", bucket));
    wait_until(now_ms() - start_ms > 1100, "a value that is older than a second");
    expect_force(client, bucket, "'ttl': 1", "ttl 1 would remove all older values at once: the oldest is ");
    wait_until(number_at(&client_call(client, "bucket.info", "['%s']", bucket)->result, "values") == 0, "the expiry");
    /* A longer one removes nothing. */
    assert_ok(client_call(client, "bucket.update", "['%s', {'ttl': 60}]", bucket));
}
END_TEST

START_TEST(an_update_of_max_value_size_applies_at_once)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(client, "kv.put", "['%s', 'a', '123456789']", bucket));
    assert_ok(client_call(client, "bucket.update", "['%s', {'max_value_size': 8}]", bucket));
    assert_code(client_call(client, "kv.put", "['%s', 'a', '123456789']", bucket), "too_large");
    assert_ok(client_call(client, "kv.put", "['%s', 'a', '12345678']", bucket));
    assert_ok(client_call(client, "bucket.update", "['%s', {'max_value_size': -1}]", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'a', '123456789']", bucket));
}
END_TEST

START_TEST(a_setting_that_cannot_change_is_unsupported)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_code(client_call(client, "bucket.update", "['%s', {'storage': 'memory'}]", bucket), "unsupported");
    assert_code(client_call(client, "bucket.update", "['%s', {'mirror': 'other'}]", bucket), "unsupported");
    assert_ok(client_call(client, "bucket.update", "['%s', {'storage': 'file'}]", bucket));
}
END_TEST

START_TEST(replicas_on_a_single_server_are_unsupported)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    struct answer *answer = client_call(client, "bucket.create", "['three', {'replicas': 3}]");
    assert_code(answer, "unsupported");
    ck_assert(!bool_at(&answer->error, "retryable"));
    assert_code(client_call(client, "bucket.info", "['three']"), "bucket_not_found");
    assert_code(client_call(client, "bucket.update", "['%s', {'replicas': 3}]", bucket), "unsupported");
}
END_TEST

START_TEST(a_deleted_bucket_is_gone_with_its_values)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'blue']", bucket));
    struct answer *answer = client_call(client, "bucket.delete", "['%s']", bucket);
    assert_ok(answer);
    ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
    assert_code(client_call(client, "kv.get", "['%s', 'color']", bucket), "bucket_not_found");
    assert_code(client_call(client, "kv.put", "['%s', 'color', 'v']", bucket), "bucket_not_found");
    assert_code(client_call(client, "bucket.delete", "['%s']", bucket), "bucket_not_found");
    assert_ok(client_call(client, "bucket.create", "['%s']", bucket));
    answer = client_call(client, "kv.get", "['%s', 'color']", bucket);
    assert_ok(answer);
    ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
}
END_TEST

START_TEST(a_bucket_of_the_longest_name_can_be_deleted)
{
    struct client *client = client_open_shared();
    char name[253];

    memset(name, 'q', sizeof(name) - 1);
    name[252] = '\0';
    assert_code(client_call(client, "bucket.create", "['%s']", name), "invalid_argument");
    name[251] = '\0';
    for (unsigned i = 0; i < 2; i++) {
        assert_ok(client_call(client, "bucket.create", "['%s']", name));
        ck_assert_uint_eq(count_at(&client_call(client, "kv.keys", "['%s']", name)->result, ""), 0);
        ck_assert_uint_eq(revision_of(client_call(client, "kv.put", "['%s', 'k', 'v']", name)), 1);
        assert_ok(client_call(client, "bucket.delete", "['%s']", name));
    }
}
END_TEST

START_TEST(a_purged_bucket_is_empty_and_still_exists)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 3");

    for (unsigned i = 0; i < 10; i++)
        assert_ok(client_call(client, "kv.put", "['%s', 'k%u', 'v']", bucket, i));
    struct answer *answer = client_call(client, "bucket.purge", "['%s']", bucket);
    assert_ok(answer);
    ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
    answer = client_call(client, "bucket.info", "['%s']", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "values"), 0);
    ck_assert_uint_eq(number_at(&answer->result, "history"), 3);
    answer = client_call(client, "kv.keys", "['%s']", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 0);
    ck_assert_uint_eq(revision_of(client_call(client, "kv.create", "['%s', 'k1', 'v']", bucket)), 11);
}
END_TEST

START_TEST(buckets_are_listed_by_name)
{
    struct client *client = client_open_shared();
    const char *names[] = {"list-b", "list-a", "List-c"};

    for (size_t i = 0; i < 3; i++)
        assert_ok(client_call(client, "bucket.create", "['%s']", names[i]));
    struct answer *answer = client_call(client, "bucket.list", "[{'filter': '[Ll]ist-*'}]");
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 3);
    ck_assert_str_eq(text_at(&answer->result, "0"), "List-c");
    ck_assert_str_eq(text_at(&answer->result, "1"), "list-a");
    ck_assert_str_eq(text_at(&answer->result, "2"), "list-b");
    answer = client_call(client, "bucket.list", "[]");
    ck_assert_uint_ge(count_at(&answer->result, ""), 3);
    answer = client_call(client, "bucket.list", "[{'filter': 'none*'}]");
    ck_assert_uint_eq(count_at(&answer->result, ""), 0);
}
END_TEST

START_TEST(streams_that_are_no_buckets_are_not_listed)
{
    struct client *client = client_open_shared();
    struct nats *nats = nats_connect_embedded(shared_daemon.data_dir);

    nats_api(nats, "STREAM.CREATE", "ORDERS", "{'name': 'ORDERS', 'subjects': ['orders.>']}");
    struct answer *answer = client_call(client, "bucket.list", "[]");
    assert_ok(answer);
    for (size_t i = 0; i < count_at(&answer->result, ""); i++)
        ck_assert_str_ne(text_at(&answer->result, format_text("%zu", i)), "ORDERS");
}
END_TEST

START_TEST(the_info_counts_what_is_stored)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 2");

    for (unsigned i = 0; i < 5; i++)
        assert_ok(client_call(client, "kv.put", "['%s', 'n', 'value']", bucket));
    assert_ok(client_call(client, "kv.delete", "['%s', 'n']", bucket));
    struct answer *answer = client_call(client, "bucket.info", "['%s']", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "values"), 2);
    ck_assert_uint_eq(number_at(&answer->result, "last_revision"), 6);
    ck_assert_uint_gt(number_at(&answer->result, "bytes"), 10);
}
END_TEST

/* --- Limits of a bucket ---------------------------------------------------------------------------- */

START_TEST(a_value_over_the_buckets_limit_is_too_large)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'max_value_size': 100");
    char value[101];

    memset(value, 'v', sizeof(value));
    struct answer *answer = client_put(client, bucket, "k", value, 101);
    assert_code_says(answer, "too_large", "max_value_size");
    assert_code_says(answer, "too_large", "100");
    /* Headers, the daemon's own included, do not count. */
    assert_ok(client_put(client, bucket, "k", value, 100));
    value[100] = '\0';
    assert_ok(client_call(client, "kv.put", "['%s', 'k', '%s', {'ttl': 60, 'headers': {'Content-Type': 'text/plain'}}]",
                          bucket, value));
    assert_ok(client_call(client, "kv.delete", "['%s', 'k']", bucket));
}
END_TEST

START_TEST(a_value_over_the_servers_limit_is_too_large)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    size_t limit = 1024 * 1024;
    char *value = keep(calloc(1, limit + 1));

    struct answer *answer = client_put(client, bucket, "k", value, limit + 1);
    assert_code_says(answer, "too_large", "max_payload");
    /* If the headers make it too large, the same happens at once. */
    uint64_t start = now_ms();
    answer = client_put(client, bucket, "k", value, limit);
    assert_code_says(answer, "too_large", "max_payload");
    assert_at_once(start);
    assert_ok(client_put(client, bucket, "k", value, limit - 512));
    /* The connection is still the same. */
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    answer = client_call(client, "health.check", "[]");
    ck_assert_uint_eq(number_at(&answer->result, "nats.reconnects"), 0);
}
END_TEST

START_TEST(a_full_bucket_is_resource_exhausted)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'max_bytes': 10000");
    char value[3000];
    struct answer *answer = NULL;

    memset(value, 'v', sizeof(value));
    for (unsigned i = 0; i < 5; i++) {
        answer = client_put(client, bucket, format_text("k%u", i), value, sizeof(value));
        if (answer->error.type != MSGPACK_OBJECT_NIL)
            break;
    }
    assert_code(answer, "resource_exhausted");
    ck_assert(bool_at(&answer->error, "retryable"));
    ck_assert_str_eq(text_at(&answer->error, "outcome"), "none");
    /* Existing values stay. */
    answer = client_call(client, "kv.get", "['%s', 'k0']", bucket);
    ck_assert_uint_eq(find_at(&answer->result, "value")->via.bin.size, sizeof(value));
}
END_TEST

/* The server may carry out both requests at the same time, and then lose the files of the new bucket. */
START_TEST(a_bucket_can_be_created_while_it_is_deleted)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    for (unsigned round = 0; round < 60; round++) {
        for (unsigned i = 0; i < 100; i++)
            client_send(client, "kv.put", "['%s', 'k%u', 'v']", bucket, i);
        for (unsigned i = 0; i < 100; i++)
            assert_ok(client_receive(client));
        uint32_t removal = client_send(client, "bucket.delete", "['%s']", bucket);
        uint32_t creation = client_send(client, "bucket.create", "['%s']", bucket);
        assert_ok(client_wait(client, removal));
        assert_ok(client_wait(client, creation));
        assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
        client_forget(client);
    }
}
END_TEST

/* --- Mirrors, sources, republish ------------------------------------------------------------------- */

static void expect_value(struct client *client, const char *bucket, const char *key, const char *value)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    for (;;) {
        struct answer *answer = client_call(client, "kv.get", "['%s', '%s']", bucket, key);
        assert_ok(answer);
        if (answer->result.type == MSGPACK_OBJECT_MAP && strcmp(text_at(&answer->result, "value"), value) == 0) {
            ck_assert_str_eq(text_at(&answer->result, "key"), key);
            return;
        }
        ck_assert_msg(now_ms() < end, "%s has no %s with the value %s: %s", bucket, key, value,
                      object_text(&answer->result));
        pause_shortly();
    }
}

START_TEST(a_bucket_with_a_missing_origin_is_not_created)
{
    struct client *client = client_open_shared();
    const char *origin = client_new_bucket(client, NULL), *fed = client_new_bucket(client, NULL);

    assert_code_says(client_call(client, "bucket.create", "['unmade', {'mirror': 'nobody'}]"), "bucket_not_found",
                     "\"nobody\"");
    assert_code_says(client_call(client, "bucket.create", "['unmade', {'sources': ['%s', 'nobody']}]", origin),
                     "bucket_not_found", "\"nobody\"");
    assert_code(client_call(client, "bucket.info", "['unmade']"), "bucket_not_found");
    assert_code_says(client_call(client, "bucket.update", "['%s', {'sources': ['nobody']}]", fed), "bucket_not_found",
                     "\"nobody\"");
    assert_ok(client_call(client, "bucket.update", "['%s', {'sources': ['%s']}]", fed, origin));
}
END_TEST

START_TEST(a_limit_of_zero_is_no_limit)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'max_value_size': 0, 'max_bytes': 0");
    struct answer *answer = client_call(client, "bucket.info", "['%s']", bucket);

    ck_assert_int_eq(find_at(&answer->result, "max_value_size")->via.i64, -1);
    ck_assert_int_eq(find_at(&answer->result, "max_bytes")->via.i64, -1);
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'a value']", bucket));
}
END_TEST

/* The server may still be removing the files of the old bucket. */
START_TEST(a_bucket_that_is_recreated_at_once_is_empty)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    for (unsigned i = 0; i < 400; i++) {
        assert_ok(client_call(client, "bulk.put", "['%s', {'a': 'old', 'b': 'old'}]", bucket));
        assert_ok(client_call(client, "bucket.delete", "['%s']", bucket));
        const struct answer *answer = client_call(client, "bucket.create", "['%s']", bucket);
        assert_ok(answer);
        ck_assert_uint_eq(number_at(&answer->result, "values"), 0);
        answer = client_call(client, "kv.get", "['%s', 'a', {'consistency': 'leader'}]", bucket);
        assert_ok(answer);
        ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
    }
}
END_TEST

START_TEST(a_mirror_follows_its_bucket_and_accepts_writes_for_it)
{
    struct client *client = client_open_shared();
    const char *origin = client_new_bucket(client, "'history': 3");

    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'blue']", origin));
    const char *mirror = client_new_bucket(client, format_text("'mirror': '%s', 'history': 3", origin));
    expect_value(client, mirror, "color", "blue");
    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'red']", origin));
    expect_value(client, mirror, "color", "red");
    /* A write to the mirror goes to its origin. */
    assert_ok(client_call(client, "kv.put", "['%s', 'size', 'large']", mirror));
    expect_value(client, origin, "size", "large");
    expect_value(client, mirror, "size", "large");

    struct answer *answer = client_call(client, "kv.keys", "['%s']", mirror);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 2);
    answer = client_call(client, "kv.history", "['%s', 'color']", mirror);
    ck_assert_uint_eq(count_at(&answer->result, ""), 2);
    ck_assert_str_eq(text_at(&answer->result, "0.key"), "color");
    answer = client_call(client, "kv.get", "['%s', 'color', {'consistency': 'leader'}]", mirror);
    ck_assert_str_eq(text_at(&answer->result, "value"), "red");
    answer = client_call(client, "bucket.info", "['%s']", mirror);
    ck_assert_str_eq(text_at(&answer->result, "mirror.bucket"), origin);
    assert_code_says(client_call(client, "txn.commit", "['%s', [], [['put', 'k', 'v']]]", mirror), "unsupported",
                     "mirror");
}
END_TEST

START_TEST(a_bucket_has_the_entries_of_its_sources)
{
    struct client *client = client_open_shared();
    const char *a = client_new_bucket(client, NULL), *b = client_new_bucket(client, NULL);

    const char *all =
        client_new_bucket(client, format_text("'sources': ['%s', {'bucket': '%s', 'filter': 'eu.*.name'}]", a, b));
    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'blue']", a));
    assert_ok(client_call(client, "kv.put", "['%s', 'us.alice.name', 'no']", b));
    assert_ok(client_call(client, "kv.put", "['%s', 'eu.bob.name', 'Bob']", b));
    expect_value(client, all, "color", "blue");
    expect_value(client, all, "eu.bob.name", "Bob");
    assert_ok(client_call(client, "kv.put", "['%s', 'own', 'value']", all));
    struct answer *answer = client_call(client, "kv.keys", "['%s']", all);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 3);
    answer = client_call(client, "bucket.info", "['%s']", all);
    ck_assert_uint_eq(count_at(&answer->result, "sources"), 2);
    ck_assert_str_eq(text_at(&answer->result, "sources.0.bucket"), a);
    ck_assert_str_eq(text_at(&answer->result, "sources.1.filter"), "eu.*.name");
}
END_TEST

/* The destination has a reference for each wildcard, so it is much longer than the filter. */
START_TEST(a_source_may_have_a_long_filter_with_many_wildcards)
{
    struct client *client = client_open_shared();
    struct nats *nats = nats_connect_embedded(shared_daemon.data_dir);
    const char *source = client_new_bucket(client, NULL);
    char *letters = keep(calloc(1, 901));
    const char *filter = letters, *to, *key = letters;

    memset(letters, 'a', 900);
    to = letters;
    for (unsigned i = 1; i <= 31; i++) {
        filter = format_text("%s.*", filter);
        to = format_text("%s.{{wildcard(%u)}}", to, i);
        key = format_text("%s.b", key);
    }
    const char *bucket =
        client_new_bucket(client, format_text("'sources': [{'bucket': '%s', 'filter': '%s'}]", source, filter));
    json_t *info = nats_api(nats, "STREAM.INFO", format_text("KV_%s", bucket), "{}");
    json_t *origin = json_array_get(json_object_get(json_object_get(info, "config"), "sources"), 0);
    json_t *transform = json_array_get(json_object_get(origin, "subject_transforms"), 0);
    ck_assert_str_eq(json_string_value(json_object_get(transform, "dest")), format_text("$KV.%s.%s", bucket, to));
    put_text(client, source, key, "v");
    uint64_t end_ms = now_ms() + PATIENCE_MS;
    const struct answer *answer;
    do {
        ck_assert_msg(now_ms() < end_ms, "the bucket does not have its source's entry");
        answer = client_call(client, "kv.get", "['%s', '%s', {'consistency': 'leader'}]", bucket, key);
        assert_ok(answer);
    } while (answer->result.type == MSGPACK_OBJECT_NIL);
}
END_TEST

START_TEST(writes_are_republished_to_the_configured_subject)
{
    struct client *client = client_open_shared();
    struct nats *nats = nats_connect_embedded(shared_daemon.data_dir);
    const char *bucket = client_new_bucket(client, "'republish': {'destination': 'again.>'}");

    nats_subscribe(nats, "again.>");
    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'blue']", bucket));
    ck_assert_str_eq(nats_next(nats), "blue");
}
END_TEST

/* --- More buckets than the daemon keeps ------------------------------------------------------------ */

enum { SESSIONS = 4, CALLS = 3500, ROUND = 500 };

/* Ask for more buckets that do not exist. Return the processor time that the daemon took, in ns. */
static uint64_t ask_for_buckets(struct client *client, struct client *other, unsigned number, unsigned in_flight,
                                uint32_t *sent)
{
    pid_t pid = daemon_of_test.process.pid;
    uint64_t before_ns = machine_share_of(pid).ran_ns;

    for (unsigned i = 0; i < ROUND; i++)
        sent[i] = client_send(client, "kv.get", "['missing%u', 'k']", number + i);
    wait_for_stat(other, "calls_in_flight", in_flight + 1); /* and daemon.stats itself */
    return machine_share_of(pid).ran_ns - before_ns;
}

/* The server answers none of the look-ups, so no bucket can be dropped. */
START_TEST(a_bucket_beyond_those_that_the_daemon_keeps_costs_no_more_than_others)
{
    struct nats_server server = {0};
    struct client *clients[SESSIONS], *other;
    uint32_t *sent = keep(calloc((size_t)SESSIONS * CALLS, sizeof(*sent)));
    uint64_t least_ns = UINT64_MAX, last_ns = UINT64_MAX;

    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), "calls:\n  timeout: 60\n");
    other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(other, NULL);
    put_text(other, bucket, "k", "v");
    nats_server_freeze(&server);
    for (unsigned i = 0; i < SESSIONS; i++)
        clients[i] = client_open(&daemon_of_test);
    for (unsigned i = 0; i < SESSIONS * CALLS; i += ROUND) {
        uint64_t ns = ask_for_buckets(clients[i / CALLS], other, i, i + ROUND, &sent[i]);
        if (i < 5000 && ns < least_ns)
            least_ns = ns;
        if (i > 11000 && ns < last_ns)
            last_ns = ns;
    }
    ck_assert_msg(last_ns < 10 * least_ns, "%lu ns instead of %lu ns", (unsigned long)last_ns, (unsigned long)least_ns);
    nats_server_thaw(&server);
    for (unsigned i = 0; i < SESSIONS * CALLS; i++)
        assert_code(client_wait(clients[i / CALLS], sent[i]), "bucket_not_found");
    /* They have not displaced a bucket that nobody uses: it is not looked up again. */
    struct nats *requests = nats_connect(server.port, NULL, NULL);
    nats_subscribe(requests, "$JS.API.STREAM.*.*");
    put_text(other, bucket, "k", "w");
    client_new_bucket(other, NULL);
    ck_assert_ptr_nonnull(strstr(nats_next(requests), "subjects")); /* of STREAM.CREATE */
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

START_TEST(clients_that_leave_take_their_look_ups_along)
{
    struct nats_server server = {0};
    struct client *leaving, *other;

    nats_server_start(&server, NULL);
    daemon_start(&daemon_of_test, nats_server_section(&server), "calls:\n  timeout: 60\n");
    leaving = client_open(&daemon_of_test);
    other = client_open(&daemon_of_test);
    assert_ok(client_call(other, "bucket.list", "[]"));
    nats_server_freeze(&server);
    for (unsigned i = 0; i < ROUND; i++)
        client_send(leaving, "kv.get", "['missing%u', 'k']", i);
    wait_for_stat(other, "calls_in_flight", ROUND + 1);
    ck_assert_uint_ge(number_at(&client_call(other, "daemon.dump", "[]")->result, "requests.count"), ROUND);
    client_close(leaving);
    wait_for_stat(other, "calls_in_flight", 1);
    /* Those that were sent keep their places. */
    ck_assert_uint_le(number_at(&client_call(other, "daemon.dump", "[]")->result, "requests.count"), 40);
    nats_server_thaw(&server);
    assert_code(client_call(other, "kv.get", "['missing1', 'k']"), "bucket_not_found");
    daemon_stop(&daemon_of_test);
    nats_server_stop(&server);
}
END_TEST

Suite *bucket_suite(void)
{
    Suite *suite = suite_create("bucket");
    TCase *tests = shared_daemon_case(suite, "buckets");

    tcase_add_test(tests, a_bucket_has_the_documented_defaults);
    tcase_add_test(tests, every_setting_comes_back_in_the_info);
    tcase_add_test(tests, texts_of_settings_may_be_as_long_as_documented);
    tcase_add_test(tests, creating_a_bucket_again_with_the_same_settings_succeeds);
    tcase_add_test(tests, an_update_changes_what_is_given_and_nothing_else);
    tcase_add_test(tests, a_smaller_history_that_would_remove_values_needs_force);
    tcase_add_test(tests, a_full_bucket_says_so_and_takes_deletes_if_its_history_is_1);
    tcase_add_test(tests, max_bytes_below_what_is_stored_needs_force);
    tcase_add_test(tests, a_ttl_below_the_age_of_a_value_needs_force);
    tcase_add_test(tests, an_update_of_max_value_size_applies_at_once);
    tcase_add_test(tests, a_setting_that_cannot_change_is_unsupported);
    tcase_add_test(tests, replicas_on_a_single_server_are_unsupported);
    tcase_add_test(tests, a_deleted_bucket_is_gone_with_its_values);
    tcase_add_test(tests, a_bucket_of_the_longest_name_can_be_deleted);
    tcase_add_test(tests, a_purged_bucket_is_empty_and_still_exists);
    tcase_add_test(tests, buckets_are_listed_by_name);
    tcase_add_test(tests, streams_that_are_no_buckets_are_not_listed);
    tcase_add_test(tests, the_info_counts_what_is_stored);
    tcase_add_test(tests, a_value_over_the_buckets_limit_is_too_large);
    tcase_add_test(tests, a_value_over_the_servers_limit_is_too_large);
    tcase_add_test(tests, a_full_bucket_is_resource_exhausted);
    tcase_add_test(tests, a_bucket_with_a_missing_origin_is_not_created);
    tcase_add_test(tests, a_limit_of_zero_is_no_limit);
    tcase_add_test(tests, a_bucket_that_is_recreated_at_once_is_empty);
    tcase_add_test(tests, a_bucket_can_be_created_while_it_is_deleted);
    tcase_add_test(tests, a_mirror_follows_its_bucket_and_accepts_writes_for_it);
    tcase_add_test(tests, a_bucket_has_the_entries_of_its_sources);
    tcase_add_test(tests, a_source_may_have_a_long_filter_with_many_wildcards);
    tcase_add_test(tests, writes_are_republished_to_the_configured_subject);
    tests = tcase_create("a daemon of its own");
    tcase_add_test(tests, a_bucket_beyond_those_that_the_daemon_keeps_costs_no_more_than_others);
    tcase_add_test(tests, clients_that_leave_take_their_look_ups_along);
    suite_add_tcase(suite, tests);
    return suite;
}
