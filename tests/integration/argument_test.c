/* Invalid calls: each mistake has its own message, nothing is changed, and the session continues. */
#include "tests/integration/suites.h"
#include "tests/support/client.h"

#include <jansson.h>
#include <math.h>

struct mistake {
    const char *method;
    const char *params; /* %s: the bucket */
};

/* Each must be answered with invalid_argument, and leave the bucket unchanged. */
static void try_mistakes(const struct mistake *mistakes, size_t count)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'blue']", bucket));
    for (size_t i = 0; i < count; i++) {
        const char *at = strstr(mistakes[i].params, "%s");
        const char *params =
            at == NULL ? mistakes[i].params
                       : format_text("%.*s%s%s", (int)(at - mistakes[i].params), mistakes[i].params, bucket, at + 2);
        struct answer *answer = client_call(client, mistakes[i].method, "%s", params);
        ck_assert_msg(strcmp(answer_code(answer), "invalid_argument") == 0, "%s %s answers %s: %s", mistakes[i].method,
                      params, answer_code(answer), answer_text(answer));
        ck_assert(!bool_at(&answer->error, "retryable"));
        ck_assert_str_ne(text_at(&answer->error, "message"), "");
    }
    struct answer *answer = client_call(client, "bucket.info", "['%s']", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(number_at(&answer->result, "last_revision"), 1);
    answer = client_call(client, "kv.get", "['%s', 'color']", bucket);
    ck_assert_str_eq(text_at(&answer->result, "value"), "blue");
}
#define TRY(...)                                                                                                       \
    do {                                                                                                               \
        static const struct mistake try_these[] = {__VA_ARGS__};                                                       \
        try_mistakes(try_these, sizeof(try_these) / sizeof(try_these[0]));                                             \
    } while (0)

START_TEST(an_unknown_method_is_named)
{
    struct client *client = client_open_shared();
    const char *methods[] = {"kv.gett", "", "kv", "KV.GET", "kv.get ", "watch"};

    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        struct answer *answer = client_call(client, methods[i], "['b', 'k']");
        assert_code_says(answer, "invalid_argument", format_text("unknown method \"%s\"", methods[i]));
    }
}
END_TEST

START_TEST(too_few_and_too_many_arguments_are_refused)
{
    TRY({"kv.get", "[]"}, {"kv.get", "['%s']"}, {"kv.get", "['%s', 'a', 'b']"}, {"kv.get", "['%s', 'a', 'b', {}]"},
        {"kv.get", "['%s', {}]"}, {"kv.get_json", "['%s']"}, {"kv.put", "['%s', 'a']"},
        {"kv.put", "['%s', 'a', 'b', 'c']"}, {"kv.create", "['%s', 'a']"}, {"kv.update", "['%s', 'a', 'b']"},
        {"kv.update", "['%s', 'a', 'b', 1, 2]"}, {"kv.delete", "['%s']"}, {"kv.purge", "['%s']"},
        {"kv.history", "['%s']"}, {"kv.keys", "[]"}, {"kv.keys", "['%s', 'color']"}, {"bucket.create", "[]"},
        {"bucket.update", "[{}]"}, {"bucket.delete", "[]"}, {"bucket.delete", "['%s', 'other']"},
        {"bucket.purge", "[]"}, {"bucket.info", "[]"}, {"bucket.list", "['filter']"},
        {"health.check", "['%s', 'other']"}, {"daemon.info", "[1]"}, {"daemon.stats", "['x']"});
}
END_TEST

START_TEST(a_bucket_must_have_a_buckets_name)
{
    TRY({"kv.get", "['', 'a']"}, {"kv.get", "['a.b', 'a']"}, {"kv.get", "['a b', 'a']"}, {"kv.get", "['a*', 'a']"},
        {"kv.get", "['\u00fc', 'a']"}, {"kv.get", "['a\\u0000b', 'a']"}, {"kv.get", "[1, 'a']"},
        {"kv.get", "[null, 'a']"}, {"kv.get", "[['%s'], 'a']"}, {"kv.put", "['a/b', 'a', 'v']"}, {"kv.keys", "['>']"},
        {"kv.keys", "[{}]"}, {"bucket.create", "['a.b']"}, {"bucket.create", "['']"}, {"bucket.delete", "['*']"},
        {"bucket.purge", "['KV>']"}, {"bucket.info", "[17]"}, {"health.check", "['a.b']"}, {"health.check", "[17]"});

    struct client *client = client_open_shared();
    char name[254];
    memset(name, 'b', sizeof(name));
    name[253] = '\0';
    assert_code(client_call(client, "bucket.create", "['%s']", name), "invalid_argument");
}
END_TEST

START_TEST(a_key_must_have_a_keys_form)
{
    TRY({"kv.get", "['%s', '']"}, {"kv.get", "['%s', '.a']"}, {"kv.get", "['%s', 'a.']"}, {"kv.get", "['%s', 'a..b']"},
        {"kv.get", "['%s', '.']"}, {"kv.get", "['%s', 'a b']"}, {"kv.get", "['%s', '*']"}, {"kv.get", "['%s', 'a.>']"},
        {"kv.get", "['%s', '\u00e4']"}, {"kv.get", "['%s', 'a\\u0000b']"}, {"kv.get", "['%s', 'a\\nb']"},
        {"kv.get", "['%s', 1]"}, {"kv.get", "['%s', null]"}, {"kv.get", "['%s', ['a']]"},
        {"kv.get_json", "['%s', '*']"}, {"kv.put", "['%s', '*', 'v']"}, {"kv.put", "['%s', '', 'v']"},
        {"kv.create", "['%s', '>', 'v']"}, {"kv.update", "['%s', 'a..b', 'v', 1]"}, {"kv.delete", "['%s', '>']"},
        {"kv.purge", "['%s', '>']"}, {"kv.history", "['%s', '*']"});
}
END_TEST

START_TEST(nil_is_not_a_value)
{
    TRY({"kv.put", "['%s', 'a', null]"}, {"kv.create", "['%s', 'a', null]"}, {"kv.update", "['%s', 'a', null, 0]"},
        {"txn.commit", "['%s', [], [['put', 'a', null]]]"});
}
END_TEST

/* The object must be what the JSON text says. */
static void assert_is_json(const msgpack_object *object, const char *text)
{
    msgpack_sbuffer buffer;
    msgpack_unpacked wanted;
    size_t offset = 0;

    msgpack_sbuffer_init(&buffer);
    msgpack_unpacked_init(&wanted);
    pack_request(&buffer, 1, "", "%s", text);
    ck_assert_int_eq(msgpack_unpack_next(&wanted, buffer.data, buffer.size, &offset), MSGPACK_UNPACK_SUCCESS);
    ck_assert_msg(msgpack_object_equal(*object, wanted.data.via.array.ptr[3]), "%s is not %s", object_text(object),
                  text);
    msgpack_unpacked_destroy(&wanted);
    msgpack_sbuffer_destroy(&buffer);
}

START_TEST(numbers_and_booleans_are_stored_as_json)
{
    static const char *const values[] = {"1",        "-1",   "0",     "9223372036854775807", "-9223372036854775808",
                                         "1.5",      "0.1",  "-0.25", "1000000.5",           "3.0",
                                         "1e-05",    "true", "false", "0.30000000000000004", "[1,true,0.1]",
                                         "{\"a\":2}"};
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        assert_ok(client_call(client, "kv.put", "['%s', 'k', %s]", bucket, values[i]));
        struct answer *answer = client_call(client, "kv.get", "['%s', 'k']", bucket);
        ck_assert_str_eq(text_at(&answer->result, "value"), values[i]);
        answer = client_call(client, "kv.get_json", "['%s', 'k']", bucket);
        assert_ok(answer);
        assert_is_json(&answer->result, values[i]);
    }
    assert_ok(client_call(client, "bulk.put", "['%s', {'a': 17, 'b': false}]", bucket));
    assert_ok(client_call(client, "txn.commit", "['%s', [], [['put', 'c', 18], ['create', 'd', true]]]", bucket));
    struct answer *answer = client_call(client, "bulk.get", "['%s', ['a', 'b', 'c', 'd']]", bucket);
    ck_assert_str_eq(text_at(&answer->result, "a.value"), "17");
    ck_assert_str_eq(text_at(&answer->result, "b.value"), "false");
    ck_assert_str_eq(text_at(&answer->result, "c.value"), "18");
    ck_assert_str_eq(text_at(&answer->result, "d.value"), "true");
}
END_TEST

START_TEST(a_map_that_is_not_json_is_not_a_value)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    for (unsigned i = 0; i < 4; i++) {
        msgpack_sbuffer buffer;
        msgpack_packer packer;

        msgpack_sbuffer_init(&buffer);
        msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
        pack_call_head(&packer, 100 + i, "kv.put");
        msgpack_pack_array(&packer, 3);
        msgpack_pack_str_with_body(&packer, bucket, strlen(bucket));
        msgpack_pack_str_with_body(&packer, "key", 3);
        if (i == 0) { /* a bin */
            msgpack_pack_array(&packer, 1);
            msgpack_pack_bin_with_body(&packer, "bin", 3);
        } else if (i == 1) { /* a key that is not a str */
            msgpack_pack_map(&packer, 1);
            msgpack_pack_int(&packer, 1);
            msgpack_pack_int(&packer, 2);
        } else if (i == 2) { /* not a number */
            msgpack_pack_array(&packer, 1);
            msgpack_pack_double(&packer, (double)NAN);
        } else { /* a str that is not UTF-8 */
            msgpack_pack_array(&packer, 1);
            msgpack_pack_str_with_body(&packer, "\xff", 1);
        }
        client_write(client, buffer.data, buffer.size);
        msgpack_sbuffer_destroy(&buffer);
        assert_code(client_wait(client, 100 + i), "invalid_argument");
    }
}
END_TEST

START_TEST(a_revision_must_be_a_valid_integer)
{
    TRY({"kv.update", "['%s', 'a', 'v', -1]"}, {"kv.update", "['%s', 'a', 'v', '1']"},
        {"kv.update", "['%s', 'a', 'v', 1.5]"}, {"kv.update", "['%s', 'a', 'v', null]"},
        {"kv.update", "['%s', 'a', 'v', -1.0]"}, {"kv.update", "['%s', 'a', 'v', 1e300]"},
        {"kv.update", "['%s', 'a', 'v', 9007199254740992.0]"}, {"kv.get", "['%s', 'a', {'revision': 0}]"},
        {"kv.get", "['%s', 'a', {'revision': -1}]"}, {"kv.get", "['%s', 'a', {'revision': '1'}]"},
        {"kv.delete", "['%s', 'color', {'revision': 'x'}]"}, {"kv.delete", "['%s', 'color', {'revision': 0}]"},
        {"kv.purge", "['%s', 'color', {'revision': 1.5}]"});
}
END_TEST

START_TEST(an_unknown_option_is_refused_by_name)
{
    TRY({"kv.get", "['%s', 'color', {'ttl': 1}]"}, {"kv.get", "['%s', 'color', {'Revision': 1}]"},
        {"kv.get_json", "['%s', 'color', {'x': 1}]"}, {"kv.put", "['%s', 'a', 'v', {'revision': 1}]"},
        {"kv.put", "['%s', 'a', 'v', {'ttl ': 1}]"}, {"kv.put", "['%s', 'a', 'v', {'': 1}]"},
        {"kv.create", "['%s', 'a', 'v', {'if': 1}]"}, {"kv.update", "['%s', 'a', 'v', 0, {'revision': 1}]"},
        {"kv.delete", "['%s', 'color', {'ttl': 1}]"}, {"kv.purge", "['%s', 'color', {'headers': {}}]"},
        {"kv.history", "['%s', 'color', {'limit': 1}]"}, {"kv.keys", "['%s', {'offset': 1}]"},
        {"bucket.create", "['unmade', {'max_age': 1}]"}, {"bucket.update", "['%s', {'max_age': 1}]"},
        {"bucket.delete", "['%s', {'force': true}]"}, {"bucket.purge", "['%s', {'older_than': 1}]"},
        {"bucket.info", "['%s', {'x': 1}]"}, {"bucket.list", "[{'count': 1}]"}, {"kv.entries", "['%s', {'offset': 1}]"},
        {"health.check", "['%s', {'deep': true}]"}, {"daemon.info", "[{'x': 1}]"},
        {"daemon.stats", "[{'reset': true}]"});

    struct client *client = client_open_shared();
    struct answer *answer = client_call(client, "kv.get", "['b', 'k', {'speed': 1}]");
    assert_code_says(answer, "invalid_argument", "\"speed\"");
    assert_code_says(answer, "invalid_argument", "revision wait_above consistency timeout");
}
END_TEST

START_TEST(an_option_must_have_its_type_and_range)
{
    TRY({"kv.get", "['%s', 'color', {'consistency': 'eventual'}]"}, {"kv.get", "['%s', 'color', {'consistency': 1}]"},
        {"kv.put", "['%s', 'a', 'v', {'ttl': 0}]"}, {"kv.put", "['%s', 'a', 'v', {'ttl': -1}]"},
        {"kv.put", "['%s', 'a', 'v', {'ttl': 1.5}]"}, {"kv.put", "['%s', 'a', 'v', {'ttl': '1'}]"},
        {"kv.put", "['%s', 'a', 'v', {'ttl': 9223372036854775807}]"}, {"kv.put", "['%s', 'a', 'v', {'headers': 'x'}]"},
        {"kv.put", "['%s', 'a', 'v', {'headers': [1]}]"}, {"kv.put", "['%s', 'a', 'v', {'headers': {'a': 1}}]"},
        {"kv.put", "['%s', 'a', 'v', {'headers': {'': 'x'}}]"},
        {"kv.put", "['%s', 'a', 'v', {'headers': {'a:b': 'x'}}]"},
        {"kv.put", "['%s', 'a', 'v', {'headers': {'a b': 'x'}}]"}, {"kv.purge", "['%s', 'color', {'ttl': 0}]"},
        {"kv.keys", "['%s', {'limit': 0}]"}, {"kv.keys", "['%s', {'limit': 'x'}]"}, {"kv.keys", "['%s', {'after': 1}]"},
        {"kv.keys", "['%s', {'filter': ''}]"}, {"kv.keys", "['%s', {'filter': 'a.>.b'}]"},
        {"kv.keys", "['%s', {'filter': 'a*'}]"}, {"kv.keys", "['%s', {'filter': 1}]"},
        {"bucket.list", "[{'filter': 1}]"});
}
END_TEST

START_TEST(an_option_that_is_nil_counts_as_not_given)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': null, 'description': null");

    assert_ok(
        client_call(client, "kv.put", "['%s', 'a', 'v', {'ttl': null, 'headers': null, 'timeout': null}]", bucket));
    struct answer *answer =
        client_call(client, "kv.get", "['%s', 'a', {'revision': null, 'consistency': null}]", bucket);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "value"), "v");
    /* But its name must be right. */
    assert_code(client_call(client, "kv.get", "['%s', 'a', {'colour': null}]", bucket), "invalid_argument");
}
END_TEST

/* Lua and PHP have such numbers, and Python's total_seconds(). */
START_TEST(a_float_without_a_fraction_is_an_integer)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 3.0, 'ttl': 0.0");

    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'a', {'ttl': 60.0}]", bucket));
    assert_ok(client_call(client, "kv.update", "['%s', 'k', 'b', 1.0]", bucket));
    assert_ok(client_call(client, "txn.commit",
                          "['%s', [['k', 2.0]], [['update', 'k', 'c', 2.0], ['put', 'l', 'x', {'ttl': 60.0}]]]",
                          bucket));
    struct answer *answer = client_call(client, "kv.get", "['%s', 'k', {'revision': 2.0}]", bucket);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "value"), "b");
    answer = client_call(client, "kv.keys", "['%s', {'limit': 1.0}]", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 1);
    answer = client_call(client, "watch.start", "['%s', {'from_revision': 1.0}]", bucket);
    assert_ok(answer);
    assert_ok(client_call(client, "watch.stop", "[%u.0]", (unsigned)number_at(&answer->result, "")));
    assert_ok(client_call(client, "kv.delete", "['%s', 'k', {'revision': 3.0}]", bucket));
}
END_TEST

/* In PHP and Lua an empty array is an empty map. Other libraries send nil for options that were left out. */
START_TEST(nil_and_empty_containers_are_no_options_and_no_checks)
{
    static const char *const nothing[] = {"null", "[]", "{}"};
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'metadata': [], 'placement': [], 'sources': {}");

    for (size_t i = 0; i < sizeof(nothing) / sizeof(nothing[0]); i++) {
        const char *none = nothing[i];
        assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v', %s]", bucket, none));
        assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v', {'headers': %s}]", bucket, none));
        assert_ok(client_call(client, "kv.get", "['%s', 'k', %s]", bucket, none));
        assert_ok(client_call(client, "kv.keys", "['%s', %s]", bucket, none));
        assert_ok(client_call(client, "bucket.list", "[%s]", none));
        assert_ok(client_call(client, "health.check", "[%s]", none));
        assert_ok(client_call(client, "daemon.info", "%s", none));
        assert_ok(client_call(client, "txn.commit",
                              "['%s', %s, [['put', 'k', 'v', %s], ['delete', 'k', %s], ['create', 'd%zu', 'v', %s]]]",
                              bucket, none, none, none, i, none));
    }
    assert_ok(client_call(client, "bulk.get", "['%s', {}]", bucket));
    assert_ok(client_call(client, "bulk.delete", "['%s', {}]", bucket));
    assert_ok(client_call(client, "bulk.put", "['%s', []]", bucket));
    /* A missing mandatory argument is reported, and a second nil is one argument too many. */
    TRY({"bulk.get", "['%s', null]"}, {"bulk.put", "['%s', null]"}, {"txn.commit", "['%s', [], []]"},
        {"txn.commit", "['%s', [], null]"}, {"kv.get", "['%s', 'color', null, null]"},
        {"kv.get", "['%s', 'color', [1]]"}, {"txn.commit", "['%s', [], [['delete', 'color', {'ttl': 1}]]]"},
        {"txn.commit", "['%s', [], [['put', 'color', 'x', [1]]]]"});
}
END_TEST

/* Pack an object with a bin for each str. */
static void pack_with_bins(msgpack_packer *packer, const msgpack_object *object)
{
    switch (object->type) {
    case MSGPACK_OBJECT_STR:
        msgpack_pack_bin_with_body(packer, object->via.str.ptr, object->via.str.size);
        break;
    case MSGPACK_OBJECT_ARRAY:
        msgpack_pack_array(packer, object->via.array.size);
        for (uint32_t i = 0; i < object->via.array.size; i++)
            pack_with_bins(packer, &object->via.array.ptr[i]);
        break;
    case MSGPACK_OBJECT_MAP:
        msgpack_pack_map(packer, object->via.map.size);
        for (uint32_t i = 0; i < object->via.map.size; i++) {
            pack_with_bins(packer, &object->via.map.ptr[i].key);
            pack_with_bins(packer, &object->via.map.ptr[i].val);
        }
        break;
    default:
        msgpack_pack_object(packer, *object);
        break;
    }
}

static struct answer *call_with_bins(struct client *client, uint32_t msgid, const char *method, const char *params)
{
    msgpack_sbuffer texts, bins;
    msgpack_packer packer;
    msgpack_unpacked unpacked;
    size_t offset = 0;

    msgpack_sbuffer_init(&texts);
    msgpack_sbuffer_init(&bins);
    msgpack_unpacked_init(&unpacked);
    pack_request(&texts, msgid, method, "%s", params);
    ck_assert_int_eq(msgpack_unpack_next(&unpacked, texts.data, texts.size, &offset), MSGPACK_UNPACK_SUCCESS);
    msgpack_packer_init(&packer, &bins, msgpack_sbuffer_write);
    pack_with_bins(&packer, &unpacked.data);
    client_write(client, bins.data, bins.size);
    msgpack_unpacked_destroy(&unpacked);
    msgpack_sbuffer_destroy(&texts);
    msgpack_sbuffer_destroy(&bins);
    return client_wait(client, msgid);
}

START_TEST(a_bin_is_accepted_wherever_a_text_is_expected)
{
    static const struct mistake calls[] = {
        {"bucket.create", "['%s-2', {'storage': 'memory', 'history': 2, 'metadata': {'a': 'b'}, 'description': 'x'}]"},
        {"kv.put", "['%s', 'k', 'v', {'ttl': 60, 'headers': {'Size': 'large'}}]"},
        {"kv.get", "['%s', 'k', {'consistency': 'leader'}]"},
        {"kv.keys", "['%s', {'filter': '>', 'after': 'a'}]"},
        {"txn.commit", "['%s', [['k', 1]], [['update', 'k', 'w', 1, {'headers': {'a': 'b'}}], ['put', 'm', 'x'], "
                       "['create', 'n', 'x'], ['delete', 'm']]]"},
        {"bulk.put", "['%s', {'o': 'x'}, {'ttl': 60}]"},
        {"bulk.get", "['%s', ['o', 'k']]"},
        {"bulk.delete", "['%s', ['o', 'k']]"},
        {"kv.put", "['%s', 'json', {'a': {'b': [1]}}]"},
        {"watch.start", "['%s', {'filter': ['a', 'b'], 'updates_only': true}]"},
        {"bucket.list", "[{'filter': '*'}]"},
        {"bucket.delete", "['%s-2']"},
    };
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    for (uint32_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        const char *at = strstr(calls[i].params, "%s");
        const char *params =
            at == NULL ? calls[i].params
                       : format_text("%.*s%s%s", (int)(at - calls[i].params), calls[i].params, bucket, at + 2);
        assert_ok(call_with_bins(client, 1000 + i, calls[i].method, params));
    }
    struct answer *answer = client_call(client, "kv.get_json", "['%s', 'json']", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "a.b.0"), 1);
    /* It must be a text. */
    assert_code_says(call_with_bins(client, 999, "kv.get", format_text("['%s', 'k', {'speed': 1}]", bucket)),
                     "invalid_argument", "\"speed\"");
}
END_TEST

START_TEST(a_refusal_says_what_was_expected_and_what_came)
{
    static const struct {
        const char *method, *params, *says;
    } refusals[] = {
        {"kv.get", "[17, 'k']", "argument 1 must be a bucket's name, a text, not the integer 17"},
        {"kv.get", "['b', null]", "argument 2 must be a key, a text, not nil"},
        {"kv.get", "['b', 'a b']", "\"a b\": "},
        {"kv.put", "['b', 'k', null]", "not nil"},
        {"kv.put", "['b', 'k', 'v', {'ttl': 1.5}]", "ttl must be an integer from 1 to 3153600000, not the float 1.5"},
        {"kv.put", "['b', 'k', 'v', {'ttl': '5'}]", "not \"5\""},
        {"kv.put", "['b', 'k', 'v', {'headers': [1, 2]}]", "headers must be a map of text to text, not an array of 2"},
        {"kv.put", "['b', 'k', 'v', {'headers': {'a': 1}}]", "value 1 of headers must be a text (str or bin), not the"},
        {"kv.update", "['b', 'k', 'v', '1']", "argument 4 must be a revision, an integer of at least 0, not \"1\""},
        {"kv.get", "['b', 'k', {'consistency': 'near'}]", "not \"near\""},
        {"kv.get", "['b', 'k', {'timeout': 100}]", "not 100"},
        {"bulk.get", "['b', 'k']", "argument 2 must be an array of keys, not \"k\""},
        {"bulk.put", "['b', 1]", "argument 2 must be a map of keys to values, not the integer 1"},
        {"bulk.delete", "['b', ['a', false]]", "key number 2 must be a text (str or bin), not false"},
        {"txn.commit", "['b', 5, [['put', 'k', 'v']]]", "the checks must be an array of [key, revision], not the"},
        {"txn.commit", "['b', [['k']], [['put', 'k', 'v']]]", "check 1: it must be [key, revision], not an array of 1"},
        {"txn.commit", "['b', [], [['putt', 'k', 'v']]]", "not \"putt\""},
        {"txn.commit", "['b', [], [['put', 'k']]]", "it must be [\"put\", key, value, {ttl, headers}], not an array"},
        {"txn.commit", "['b', [], [['update', 'k', 'v', -1]]]", "not the integer -1"},
        {"bucket.create", "['b', {'storage': 'disk'}]", "storage must be \"file\" or \"memory\", not \"disk\""},
        {"bucket.create", "['b', {'compression': 1}]", "compression must be true or false, not the integer 1"},
        {"watch.start", "['b', {'filter': {'a': 1}}]", "a map of 1"},
        {"watch.stop", "['x']", "argument 1 must be a watch id, as watch.start returned it, not \"x\""},
        {"daemon.info", "'x'", "params must be an array"},
    };
    struct client *client = client_open_shared();

    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
        assert_code_says(client_call(client, refusals[i].method, "%s", refusals[i].params), "invalid_argument",
                         refusals[i].says);
}
END_TEST

START_TEST(patterns_filters_and_options_have_a_length)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    char *pattern = keep(malloc(1000001)), filter[200] = "*";

    memset(pattern, '*', 1000000);
    pattern[1000000] = '\0';
    assert_code_says(client_call(client, "bucket.list", "[{'filter': '%s'}]", pattern), "invalid_argument",
                     "at most 255");
    pattern[255] = '\0';
    assert_ok(client_call(client, "bucket.list", "[{'filter': '%s'}]", pattern));
    for (unsigned i = 0; i < 32; i++)
        strcat(filter, ".a");
    assert_code_says(client_call(client, "kv.keys", "['%s', {'filter': '%s'}]", bucket, filter), "invalid_argument",
                     "at most 32 tokens");
    assert_code_says(client_call(client, "watch.start", "['%s', {'filter': '%s'}]", bucket, filter), "invalid_argument",
                     "at most 32 tokens");
    assert_ok(client_call(client, "kv.keys", "['%s', {'filter': '%s'}]", bucket, filter + strlen("*.")));
}
END_TEST

/* [0, 7, "kv.put", [bucket, "k", "v", {"ttl": nil, "ttl": 5}]], and the same with the first name as a bin. */
START_TEST(an_option_is_not_given_twice)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    for (uint32_t with_bin = 0; with_bin < 2; with_bin++) {
        msgpack_sbuffer buffer;
        msgpack_packer packer;
        msgpack_sbuffer_init(&buffer);
        msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
        pack_call_head(&packer, 7 + with_bin, "kv.put");
        msgpack_pack_array(&packer, 4);
        msgpack_pack_str_with_body(&packer, bucket, strlen(bucket));
        msgpack_pack_str_with_body(&packer, "k", 1);
        msgpack_pack_str_with_body(&packer, "v", 1);
        msgpack_pack_map(&packer, 2);
        if (with_bin)
            msgpack_pack_bin_with_body(&packer, "ttl", 3);
        else
            msgpack_pack_str_with_body(&packer, "ttl", 3);
        msgpack_pack_nil(&packer);
        msgpack_pack_str_with_body(&packer, "ttl", 3);
        msgpack_pack_int(&packer, 5);
        client_write(client, buffer.data, buffer.size);
        msgpack_sbuffer_destroy(&buffer);
        assert_code_says(client_wait(client, 7 + with_bin), "invalid_argument", "has the option \"ttl\" twice");
    }
}
END_TEST

/* [0, 7, "bucket.create", ["b", {"metadata": {"a": "1", "a": "2"}}]] */
START_TEST(a_name_in_metadata_is_not_given_twice)
{
    struct client *client = client_open_shared();
    msgpack_sbuffer buffer;
    msgpack_packer packer;

    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    pack_call_head(&packer, 7, "bucket.create");
    msgpack_pack_array(&packer, 2);
    msgpack_pack_str_with_body(&packer, "b", 1);
    msgpack_pack_map(&packer, 1);
    msgpack_pack_str_with_body(&packer, "metadata", 8);
    msgpack_pack_map(&packer, 2);
    for (unsigned i = 0; i < 2; i++) {
        msgpack_pack_str_with_body(&packer, "a", 1);
        msgpack_pack_str_with_body(&packer, i == 0 ? "1" : "2", 1);
    }
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    assert_code_says(client_wait(client, 7), "invalid_argument", "metadata has \"a\" twice");
}
END_TEST

START_TEST(a_timeout_must_be_within_the_limits)
{
    TRY({"kv.get", "['%s', 'color', {'timeout': 0}]"}, {"kv.get", "['%s', 'color', {'timeout': -1}]"},
        {"kv.get", "['%s', 'color', {'timeout': 61}]"}, {"kv.get", "['%s', 'color', {'timeout': '5'}]"},
        {"kv.put", "['%s', 'a', 'v', {'timeout': true}]"}, {"bucket.info", "['%s', {'timeout': 1e300}]"},
        {"daemon.info", "[{'timeout': -0.5}]"});

    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    assert_ok(client_call(client, "kv.get", "['%s', 'a', {'timeout': 60}]", bucket));
    assert_ok(client_call(client, "kv.get", "['%s', 'a', {'timeout': 30.5}]", bucket));
    assert_ok(client_call(client, "daemon.stats", "[{'timeout': 30.5}]"));
}
END_TEST

START_TEST(a_buckets_settings_must_have_their_type_and_range)
{
    TRY({"bucket.update", "['%s', {'history': 0}]"}, {"bucket.update", "['%s', {'history': 65}]"},
        {"bucket.update", "['%s', {'history': '5'}]"}, {"bucket.update", "['%s', {'ttl': -1}]"},
        {"bucket.update", "['%s', {'ttl': 0.5}]"}, {"bucket.update", "['%s', {'max_value_size': -2}]"},
        {"bucket.update", "['%s', {'max_bytes': 'much'}]"}, {"bucket.update", "['%s', {'storage': 'disk'}]"},
        {"bucket.update", "['%s', {'replicas': 0}]"}, {"bucket.update", "['%s', {'replicas': 6}]"},
        {"bucket.update", "['%s', {'compression': 1}]"}, {"bucket.update", "['%s', {'description': 1}]"},
        {"bucket.update", "['%s', {'placement': 'here'}]"}, {"bucket.update", "['%s', {'placement': {'zone': 'a'}}]"},
        {"bucket.update", "['%s', {'placement': {'tags': 'a'}}]"}, {"bucket.update", "['%s', {'republish': {}}]"},
        {"bucket.update", "['%s', {'republish': {'destination': 1}}]"},
        {"bucket.update", "['%s', {'republish': {'destination': ''}}]"},
        {"bucket.update", "['%s', {'republish': {'destination': '_INBOX.a'}}]"},
        {"bucket.update", "['%s', {'republish': {'destination': '{{wildcard(1)}}'}}]"},
        {"bucket.update", "['%s', {'republish': {'destination': 'a', 'headers_only': 1}}]"},
        {"bucket.update", "['%s', {'mirror': 1}]"}, {"bucket.update", "['%s', {'mirror': 'a.b'}]"},
        {"bucket.create", "['unmade', {'mirror': {'bucket': 'a', 'filter': 'x'}}]"},
        {"bucket.create", "['unmade', {'mirror': 'a', 'sources': ['b']}]"},
        {"bucket.update", "['%s', {'sources': 'a'}]"}, {"bucket.update", "['%s', {'sources': [1]}]"},
        {"bucket.update", "['%s', {'sources': [{'filter': 'a'}]}]"},
        {"bucket.update", "['%s', {'sources': [{'bucket': 'a', 'filter': 'x*'}]}]"},
        {"bucket.update", "['%s', {'metadata': 'x'}]"}, {"bucket.update", "['%s', {'metadata': {'a': 1}}]"},
        {"bucket.update", "['%s', {'metadata': {'_nats.x': '1'}}]"},
        {"bucket.update", "['%s', {'metadata': {'kvstored.x': '1'}}]"},
        {"bucket.update", "['%s', {'limit_marker_ttl': -1}]"}, {"bucket.update", "['%s', {'limit_marker_ttl': 'x'}]"},
        {"bucket.update", "['%s', {'marker_ttl': -1}]"}, {"bucket.update", "['%s', {'marker_ttl': 'x'}]"},
        {"bucket.compact", "['%s', {'older_than': -1}]"}, {"bucket.compact", "['%s', {'older_than': 1.5}]"},
        {"bucket.compact", "['%s', {'filter': 'a'}]"});
}
END_TEST

/* Call with these parameters, in which each ~ stands for the byte 0xff, which no text in UTF-8 has. */
static struct answer *call_without_utf8(struct client *client, uint32_t msgid, const char *method, const char *params)
{
    msgpack_sbuffer buffer;
    char *at;

    msgpack_sbuffer_init(&buffer);
    pack_request(&buffer, msgid, method, "%s", params);
    while ((at = memchr(buffer.data, '~', buffer.size)) != NULL)
        *at = '\xff';
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    return client_wait(client, msgid);
}

START_TEST(a_buckets_settings_must_be_utf8)
{
    static const char *const settings[] = {
        "'description': 'a~'",
        "'metadata': {'team': 'a~'}",
        "'metadata': {'a~': 'team'}",
        "'placement': {'cluster': 'a~'}",
        "'placement': {'tags': ['ssd', 'a~']}",
        "'republish': {'source': '>', 'destination': 'a~'}",
        "'republish': {'source': 'a~', 'destination': 'a'}",
        "'sources': ['a~']",
        "'sources': [{'bucket': 'a', 'domain': 'a~'}]",
        "'sources': [{'bucket': 'a', 'filter': 'a~'}]",
        "'mirror': {'bucket': 'a', 'domain': 'a~'}",
    };
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    uint32_t msgid = 1000;

    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        assert_code_says(
            call_without_utf8(client, ++msgid, "bucket.create", format_text("['%s-new', {%s}]", bucket, settings[i])),
            "invalid_argument", "must be UTF-8");
        assert_code(client_call(client, "bucket.info", "['%s-new']", bucket), "bucket_not_found");
        assert_code_says(
            call_without_utf8(client, ++msgid, "bucket.update", format_text("['%s', {%s}]", bucket, settings[i])),
            "invalid_argument", "must be UTF-8");
    }
    const struct answer *info = client_call(client, "bucket.info", "['%s']", bucket);
    ck_assert_ptr_null(find_at(&info->result, "description"));
    ck_assert_ptr_null(find_at(&info->result, "metadata.team"));
}
END_TEST

START_TEST(a_missing_bucket_is_not_found)
{
    struct client *client = client_open_shared();
    static const struct mistake calls[] = {
        {"kv.get", "['nowhere', 'a']"},
        {"kv.get_json", "['nowhere', 'a']"},
        {"kv.put", "['nowhere', 'a', 'v']"},
        {"kv.create", "['nowhere', 'a', 'v']"},
        {"kv.update", "['nowhere', 'a', 'v', 1]"},
        {"kv.delete", "['nowhere', 'a']"},
        {"kv.purge", "['nowhere', 'a']"},
        {"kv.history", "['nowhere', 'a']"},
        {"kv.keys", "['nowhere']"},
        {"bucket.update", "['nowhere', {'history': 2}]"},
        {"bucket.delete", "['nowhere']"},
        {"bucket.purge", "['nowhere']"},
        {"bucket.info", "['nowhere']"},
    };

    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        struct answer *answer = client_call(client, calls[i].method, "%s", calls[i].params);
        assert_code(answer, "bucket_not_found");
        ck_assert_str_eq(text_at(&answer->error, "bucket"), "nowhere");
        ck_assert(!bool_at(&answer->error, "retryable"));
    }
}
END_TEST

START_TEST(an_error_says_at_most_255_bytes_and_stays_utf8)
{
    struct client *client = client_open_shared();
    char method[400];

    for (size_t i = 0; i + 1 < sizeof(method); i += 2)
        memcpy(method + i, "\u00fc", 2);
    method[399] = '\0';
    method[398] = '\0';
    struct answer *answer = client_call(client, method, "[]");
    assert_code(answer, "invalid_argument");
    const char *message = text_at(&answer->error, "message");
    ck_assert_uint_le(strlen(message), 255);
    json_t *text = json_string(message); /* NULL: it is not UTF-8 */
    ck_assert_ptr_nonnull(text);
    json_decref(text);
}
END_TEST

Suite *argument_suite(void)
{
    Suite *suite = suite_create("argument");
    TCase *tests = shared_daemon_case(suite, "mistakes");

    tcase_add_test(tests, an_unknown_method_is_named);
    tcase_add_test(tests, too_few_and_too_many_arguments_are_refused);
    tcase_add_test(tests, a_bucket_must_have_a_buckets_name);
    tcase_add_test(tests, a_key_must_have_a_keys_form);
    tcase_add_test(tests, nil_is_not_a_value);
    tcase_add_test(tests, numbers_and_booleans_are_stored_as_json);
    tcase_add_test(tests, a_map_that_is_not_json_is_not_a_value);
    tcase_add_test(tests, a_revision_must_be_a_valid_integer);
    tcase_add_test(tests, an_unknown_option_is_refused_by_name);
    tcase_add_test(tests, an_option_must_have_its_type_and_range);
    tcase_add_test(tests, an_option_that_is_nil_counts_as_not_given);
    tcase_add_test(tests, an_option_is_not_given_twice);
    tcase_add_test(tests, a_name_in_metadata_is_not_given_twice);
    tcase_add_test(tests, a_float_without_a_fraction_is_an_integer);
    tcase_add_test(tests, nil_and_empty_containers_are_no_options_and_no_checks);
    tcase_add_test(tests, a_bin_is_accepted_wherever_a_text_is_expected);
    tcase_add_test(tests, a_refusal_says_what_was_expected_and_what_came);
    tcase_add_test(tests, patterns_filters_and_options_have_a_length);
    tcase_add_test(tests, a_timeout_must_be_within_the_limits);
    tcase_add_test(tests, a_buckets_settings_must_have_their_type_and_range);
    tcase_add_test(tests, a_buckets_settings_must_be_utf8);
    tcase_add_test(tests, a_missing_bucket_is_not_found);
    tcase_add_test(tests, an_error_says_at_most_255_bytes_and_stays_utf8);
    return suite;
}
