/* bulk.*: many keys in one call, one result for each. */
#include "tests/integration/suites.h"
#include "tests/support/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Return count texts, each with its number, separated by commas. */
static char *repeat(const char *piece, unsigned count)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);

    for (unsigned i = 0; i < count; i++) {
        if (i > 0)
            fputs(", ", stream);
        for (const char *c = piece; *c != '\0'; c++) {
            if (*c == '#')
                fprintf(stream, "%u", i);
            else
                fputc(*c, stream);
        }
    }
    fclose(stream);
    return keep(text);
}

START_TEST(a_thousand_keys_are_written_read_and_deleted)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    struct answer *put = client_call(client, "bulk.put", "['%s', {%s}]", bucket, repeat("'k#': 'v#'", 1000));

    assert_ok(put);
    ck_assert_uint_eq(count_at(&put->result, ""), 1000);
    struct answer *got = client_call(client, "bulk.get", "['%s', [%s, 'k0', 'nowhere']]", bucket, repeat("'k#'", 1000));
    assert_ok(got);
    ck_assert_uint_eq(count_at(&got->result, ""), 1001);
    for (unsigned i = 0; i < 1000; i += 37) {
        char path[32], value[32];
        snprintf(path, sizeof(path), "k%u.revision", i);
        uint64_t revision = number_at(&put->result, path);
        ck_assert_uint_eq(number_at(&got->result, path), revision);
        snprintf(path, sizeof(path), "k%u.value", i);
        snprintf(value, sizeof(value), "v%u", i);
        ck_assert_str_eq(text_at(&got->result, path), value);
    }
    ck_assert_int_eq(find_at(&got->result, "nowhere")->type, MSGPACK_OBJECT_NIL);
    struct answer *gone = client_call(client, "bulk.delete", "['%s', [%s, 'k0']]", bucket, repeat("'k#'", 1000));
    assert_ok(gone);
    ck_assert_uint_eq(count_at(&gone->result, ""), 1000);
    struct answer *keys = client_call(client, "kv.keys", "['%s']", bucket);
    ck_assert_uint_eq(count_at(&keys->result, ""), 0);
}
END_TEST

/* The mistake is found after thousands of keys. The answer ends the call's memory. */
START_TEST(an_invalid_key_after_thousands_of_valid_ones_fails_the_call)
{
    static const char *const wrong[] = {"null", "17"};
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_code(client_call(client, "bulk.delete", "['%s', [%s, %s]]", bucket, repeat("'k#'", 5000), wrong[i]),
                    "invalid_argument");
        assert_code(client_call(client, "bulk.get", "['%s', [%s, %s]]", bucket, repeat("'k#'", 5000), wrong[i]),
                    "invalid_argument");
    }
    assert_ok(client_call(client, "bulk.put", "['%s', {%s}]", bucket, repeat("'k#': 'v'", 5000)));
}
END_TEST

START_TEST(too_many_keys_in_one_call_are_refused)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(client, "bulk.get", "['%s', [%s]]", bucket, repeat("'k#'", 16384)));
    assert_code_says(client_call(client, "bulk.get", "['%s', [%s]]", bucket, repeat("'k#'", 16385)), "too_large",
                     "16384");
    assert_code_says(client_call(client, "bulk.delete", "['%s', [%s]]", bucket, repeat("'k#'", 16385)), "too_large",
                     "16384");
    assert_code_says(client_call(client, "bulk.put", "['%s', {%s}]", bucket, repeat("'k#': 'v'", 16385)), "too_large",
                     "16384");
    assert_code_says(
        client_call(client, "txn.commit", "['%s', [%s], [['put', 'a', 'b']]]", bucket, repeat("['k#', 1]", 4097)),
        "too_large", "4096");
}
END_TEST

START_TEST(the_failure_of_one_key_does_not_affect_others)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'max_value_size': 400");
    struct answer *put = client_call(
        client, "bulk.put", "['%s', {'good': 'x', 'bad key': 'x', 'large': '%0500u', 'other': 'y'}]", bucket, 0u);

    assert_ok(put);
    ck_assert_uint_gt(number_at(&put->result, "good.revision"), 0);
    ck_assert_uint_gt(number_at(&put->result, "other.revision"), 0);
    ck_assert_str_eq(text_at(&put->result, "bad key.error.code"), "invalid_argument");
    ck_assert_str_eq(text_at(&put->result, "large.error.code"), "too_large");
    struct answer *gone = client_call(client, "bulk.delete", "['%s', ['good', 'bad key']]", bucket);
    ck_assert_uint_gt(number_at(&gone->result, "good.revision"), 0);
    ck_assert_str_eq(text_at(&gone->result, "bad key.error.code"), "invalid_argument");
    /* The error is that of a call, and says which key it is about. */
    ck_assert_str_eq(text_at(&gone->result, "bad key.error.key"), "bad key");
    ck_assert_str_eq(text_at(&gone->result, "bad key.error.bucket"), bucket);
    ck_assert_str_eq(text_at(&gone->result, "bad key.error.outcome"), "none");
    ck_assert(!bool_at(&gone->result, "bad key.error.retryable"));
    ck_assert_uint_eq(count_at(&gone->result, "bad key"), 1);
    ck_assert_uint_eq(count_at(&gone->result, "good"), 1);
    assert_code(client_call(client, "bulk.get", "['%s', ['other', 'bad key']]", bucket), "invalid_argument");
}
END_TEST

START_TEST(a_missing_bucket_is_reported_for_each_key)
{
    struct client *client = client_open_shared();
    struct answer *put = client_call(client, "bulk.put", "['nowhere', {'a': 'x', 'b': 'x'}]");

    assert_ok(put);
    ck_assert_str_eq(text_at(&put->result, "a.error.code"), "bucket_not_found");
    ck_assert_str_eq(text_at(&put->result, "b.error.code"), "bucket_not_found");
    assert_code(client_call(client, "bulk.get", "['nowhere', ['a']]"), "bucket_not_found");
}
END_TEST

START_TEST(invalid_arguments_fail_the_call)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_code(client_call(client, "bulk.put", "['%s', ['a']]", bucket), "invalid_argument");
    assert_code(client_call(client, "bulk.get", "['%s', {'a': 1}]", bucket), "invalid_argument");
    assert_code(client_call(client, "bulk.delete", "['%s', 'a']", bucket), "invalid_argument");
}
END_TEST

/* It is not reported as one of the shorter keys. */
START_TEST(a_key_with_a_nul_fails_the_call_and_harms_no_other)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    msgpack_sbuffer buffer;
    msgpack_packer packer;

    uint64_t revision = revision_of(client_call(client, "kv.put", "['%s', 'a', 'v']", bucket));
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    msgpack_pack_array(&packer, 4);
    msgpack_pack_int(&packer, 0);
    msgpack_pack_int(&packer, 77);
    msgpack_pack_str_with_body(&packer, "bulk.delete", strlen("bulk.delete"));
    msgpack_pack_array(&packer, 2);
    msgpack_pack_str_with_body(&packer, bucket, strlen(bucket));
    msgpack_pack_array(&packer, 2);
    msgpack_pack_str_with_body(&packer, "a\0b", 3);
    msgpack_pack_str_with_body(&packer, "a", 1);
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    assert_code(client_wait(client, 77), "invalid_argument");
    struct answer *answer = client_call(client, "kv.get", "['%s', 'a']", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "revision"), revision);
}
END_TEST

Suite *bulk_suite(void)
{
    Suite *suite = suite_create("bulk");
    TCase *tests = shared_daemon_case(suite, "bulk");

    tcase_add_test(tests, a_thousand_keys_are_written_read_and_deleted);
    tcase_add_test(tests, an_invalid_key_after_thousands_of_valid_ones_fails_the_call);
    tcase_add_test(tests, too_many_keys_in_one_call_are_refused);
    tcase_add_test(tests, the_failure_of_one_key_does_not_affect_others);
    tcase_add_test(tests, a_missing_bucket_is_reported_for_each_key);
    tcase_add_test(tests, invalid_arguments_fail_the_call);
    tcase_add_test(tests, a_key_with_a_nul_fails_the_call_and_harms_no_other);
    return suite;
}
