/* kv.*: one key at a time. */
#include "tests/integration/suites.h"
#include "tests/support/client.h"

#include <jansson.h>
#include <time.h>

static int64_t wall_clock_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* --- put and get ----------------------------------------------------------------------------------- */

START_TEST(a_put_is_read_back_with_its_revision)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    int64_t before = wall_clock_us();

    uint64_t first = revision_of(client_call(client, "kv.put", "['%s', 'color', 'blue']", bucket));
    uint64_t second = revision_of(client_call(client, "kv.put", "['%s', 'color', 'red']", bucket));
    ck_assert_uint_eq(first, 1);
    ck_assert_uint_eq(second, 2);

    struct answer *answer = client_call(client, "kv.get", "['%s', 'color']", bucket);
    assert_ok(answer);
    const msgpack_object *entry = &answer->result;
    ck_assert_str_eq(text_at(entry, "key"), "color");
    ck_assert_str_eq(text_at(entry, "value"), "red");
    ck_assert_int_eq(find_at(entry, "value")->type, MSGPACK_OBJECT_BIN);
    ck_assert_int_eq(find_at(entry, "key")->type, MSGPACK_OBJECT_STR);
    ck_assert_uint_eq(number_at(entry, "revision"), second);
    ck_assert_str_eq(text_at(entry, "operation"), "put");
    ck_assert_ptr_null(find_at(entry, "headers"));
    int64_t created = (int64_t)number_at(entry, "created");
    ck_assert_int_ge(created, before - 1000000);
    ck_assert_int_le(created, wall_clock_us() + 1000000);
}
END_TEST

START_TEST(a_missing_key_is_nil)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    struct answer *answer = client_call(client, "kv.get", "['%s', 'nowhere']", bucket);
    assert_ok(answer);
    ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
    answer = client_call(client, "kv.get_json", "['%s', 'nowhere']", bucket);
    assert_ok(answer);
    ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
}
END_TEST

START_TEST(every_byte_of_a_binary_value_comes_back)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    char value[256 * 3];

    for (size_t i = 0; i < sizeof(value); i++)
        value[i] = (char)(i * 7);
    assert_ok(client_put(client, bucket, "bytes", value, sizeof(value)));
    for (unsigned i = 0; i < 2; i++) {
        struct answer *answer = client_call(client, "kv.get", "['%s', 'bytes', {'consistency': '%s'}]", bucket,
                                            i == 0 ? "direct" : "leader");
        assert_ok(answer);
        const msgpack_object *found = find_at(&answer->result, "value");
        ck_assert_uint_eq(found->via.bin.size, sizeof(value));
        ck_assert_mem_eq(found->via.bin.ptr, value, sizeof(value));
    }
}
END_TEST

START_TEST(an_empty_value_is_a_value)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(client, "kv.put", "['%s', 'empty', '']", bucket));
    struct answer *answer = client_call(client, "kv.get", "['%s', 'empty']", bucket);
    assert_ok(answer);
    ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_MAP);
    ck_assert_str_eq(text_at(&answer->result, "value"), "");
    ck_assert_str_eq(text_at(&answer->result, "operation"), "put");
}
END_TEST

START_TEST(a_value_of_nearly_a_megabyte_comes_back_whole)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    size_t size = 1024 * 1024 - 1024;
    char *value = keep(malloc(size));

    for (size_t i = 0; i < size; i++)
        value[i] = (char)(i * i >> 3);
    assert_ok(client_put(client, bucket, "large", value, size));
    struct answer *answer = client_call(client, "kv.get", "['%s', 'large']", bucket);
    assert_ok(answer);
    const msgpack_object *found = find_at(&answer->result, "value");
    ck_assert_uint_eq(found->via.bin.size, size);
    ck_assert_mem_eq(found->via.bin.ptr, value, size);
}
END_TEST

START_TEST(every_allowed_character_is_accepted_in_a_key)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    const char *keys[] = {"a", "app.web-1.port", "A/b_c=d.0", "-", "=", "_._._", "/"};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        assert_ok(client_call(client, "kv.put", "['%s', '%s', 'value %zu']", bucket, keys[i], i));
        struct answer *answer = client_call(client, "kv.get", "['%s', '%s']", bucket, keys[i]);
        assert_ok(answer);
        ck_assert_str_eq(text_at(&answer->result, "key"), keys[i]);
        ck_assert_str_eq(text_at(&answer->result, "value"), format_text("value %zu", i));
    }
}
END_TEST

START_TEST(a_key_of_1024_characters_is_accepted_and_a_longer_one_is_not)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    char key[1026];

    memset(key, 'k', sizeof(key));
    key[1024] = '\0';
    assert_ok(client_call(client, "kv.put", "['%s', '%s', 'value']", bucket, key));
    struct answer *answer = client_call(client, "kv.get", "['%s', '%s']", bucket, key);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "key"), key);
    answer = client_call(client, "kv.history", "['%s', '%s']", bucket, key);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "0.key"), key);
    key[1024] = 'k';
    key[1025] = '\0';
    assert_code(client_call(client, "kv.put", "['%s', '%s', 'value']", bucket, key), "invalid_argument");
}
END_TEST

START_TEST(texts_may_come_as_bin)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    msgpack_sbuffer buffer;
    msgpack_packer packer;

    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    msgpack_pack_array(&packer, 4);
    msgpack_pack_int(&packer, 0);
    msgpack_pack_int(&packer, 4711);
    msgpack_pack_bin_with_body(&packer, "kv.put", 6);
    msgpack_pack_array(&packer, 3);
    msgpack_pack_bin_with_body(&packer, bucket, strlen(bucket));
    msgpack_pack_bin_with_body(&packer, "color", 5);
    msgpack_pack_bin_with_body(&packer, "blue", 4);
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    assert_ok(client_wait(client, 4711));
    struct answer *answer = client_call(client, "kv.get", "['%s', 'color']", bucket);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "value"), "blue");
}
END_TEST

START_TEST(a_read_from_the_leader_sees_all_acknowledged_writes)
{
    struct client *writer = client_open_shared(), *reader = client_open_shared();
    const char *bucket = client_new_bucket(writer, NULL);

    assert_ok(client_call(writer, "kv.put", "['%s', 'n', '-', {'headers': {'Color': 'blue'}}]", bucket));
    for (unsigned i = 0; i < 50; i++) {
        uint64_t revision =
            revision_of(client_call(writer, "kv.put", "['%s', 'n', '%u', {'headers': {'Color': 'red'}}]", bucket, i));
        struct answer *answer = client_call(reader, "kv.get", "['%s', 'n', {'consistency': 'leader'}]", bucket);
        assert_ok(answer);
        ck_assert_uint_eq(number_at(&answer->result, "revision"), revision);
        ck_assert_str_eq(text_at(&answer->result, "value"), format_text("%u", i));
        ck_assert_str_eq(text_at(&answer->result, "headers.Color"), "red");
        ck_assert_str_eq(text_at(&answer->result, "operation"), "put");
        ck_assert_uint_gt(number_at(&answer->result, "created"), 0);
    }
    assert_ok(client_call(writer, "kv.delete", "['%s', 'n']", bucket));
    struct answer *answer = client_call(reader, "kv.get", "['%s', 'n', {'consistency': 'leader'}]", bucket);
    assert_ok(answer);
    ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
}
END_TEST

START_TEST(a_cached_read_sees_this_hosts_own_writes)
{
    struct client *writer = client_open_shared(), *reader = client_open_shared();
    const char *bucket = client_new_bucket(writer, NULL);

    for (unsigned i = 0; i < 50; i++) {
        uint64_t revision = revision_of(client_call(writer, "kv.put", "['%s', 'n', '%u']", bucket, i));
        struct answer *answer = client_call(reader, "kv.get", "['%s', 'n', {'consistency': 'cached'}]", bucket);
        assert_ok(answer);
        ck_assert_uint_eq(number_at(&answer->result, "revision"), revision);
    }
}
END_TEST

/* --- Revisions ------------------------------------------------------------------------------------- */

START_TEST(an_older_revision_can_be_read)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 5");

    uint64_t first = revision_of(client_call(client, "kv.put", "['%s', 'color', 'blue']", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'red']", bucket));
    const char *consistencies[] = {"direct", "leader", "cached"};
    for (size_t i = 0; i < 3; i++) {
        struct answer *answer =
            client_call(client, "kv.get", "['%s', 'color', {'revision': %llu, 'consistency': '%s'}]", bucket,
                        (unsigned long long)first, consistencies[i]);
        assert_ok(answer);
        ck_assert_str_eq(text_at(&answer->result, "value"), "blue");
        ck_assert_uint_eq(number_at(&answer->result, "revision"), first);
    }
}
END_TEST

START_TEST(the_revision_of_another_key_is_nil)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 5");

    uint64_t other = revision_of(client_call(client, "kv.put", "['%s', 'other', 'secret']", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'red']", bucket));
    const char *consistencies[] = {"direct", "leader"};
    for (size_t i = 0; i < 2; i++) {
        struct answer *answer =
            client_call(client, "kv.get", "['%s', 'color', {'revision': %llu, 'consistency': '%s'}]", bucket,
                        (unsigned long long)other, consistencies[i]);
        assert_ok(answer);
        ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
        answer = client_call(client, "kv.get", "['%s', 'color', {'revision': 4711, 'consistency': '%s'}]", bucket,
                             consistencies[i]);
        assert_ok(answer);
        ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
    }
}
END_TEST

START_TEST(a_revision_that_left_the_history_is_nil)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    uint64_t first = revision_of(client_call(client, "kv.put", "['%s', 'color', 'blue']", bucket));
    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'red']", bucket));
    struct answer *answer =
        client_call(client, "kv.get", "['%s', 'color', {'revision': %llu}]", bucket, (unsigned long long)first);
    assert_ok(answer);
    ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
}
END_TEST

/* --- create ---------------------------------------------------------------------------------------- */

START_TEST(only_the_first_create_of_a_key_succeeds)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    uint64_t revision = revision_of(client_call(client, "kv.create", "['%s', 'lock', 'mine']", bucket));
    struct answer *answer = client_call(client, "kv.create", "['%s', 'lock', 'theirs']", bucket);
    assert_code(answer, "already_exists");
    ck_assert_uint_eq(number_at(&answer->error, "revision"), revision);
    ck_assert_str_eq(text_at(&answer->error, "bucket"), bucket);
    ck_assert_str_eq(text_at(&answer->error, "key"), "lock");
    ck_assert(!bool_at(&answer->error, "retryable"));
    answer = client_call(client, "kv.get", "['%s', 'lock']", bucket);
    ck_assert_str_eq(text_at(&answer->result, "value"), "mine");
}
END_TEST

START_TEST(a_create_over_a_delete_or_purge_marker_succeeds)
{
    struct client *client = client_open_shared();
    const char *buckets[] = {client_new_bucket(client, NULL), client_new_bucket(client, "'history': 10")};

    for (size_t i = 0; i < 2; i++) {
        const char *removals[] = {"kv.delete", "kv.purge"};
        for (size_t k = 0; k < 2; k++) {
            assert_ok(client_call(client, "kv.put", "['%s', 'lock', 'old']", buckets[i]));
            uint64_t marker = revision_of(client_call(client, removals[k], "['%s', 'lock']", buckets[i]));
            uint64_t created = revision_of(client_call(client, "kv.create", "['%s', 'lock', 'new']", buckets[i]));
            ck_assert_uint_gt(created, marker);
            assert_code(client_call(client, "kv.create", "['%s', 'lock', 'again']", buckets[i]), "already_exists");
        }
    }
}
END_TEST

START_TEST(one_of_many_concurrent_creates_succeeds)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    uint32_t msgids[50];
    struct client *clients[50];
    unsigned created = 0;

    /* A create over a marker takes two steps, and other clients' creates come in between. */
    assert_ok(client_call(client, "kv.put", "['%s', 'lock', 'old']", bucket));
    assert_ok(client_call(client, "kv.delete", "['%s', 'lock']", bucket));
    for (unsigned i = 0; i < 50; i++) {
        clients[i] = client_open_shared();
        msgids[i] = client_send(clients[i], "kv.create", "['%s', 'lock', '%u']", bucket, i);
    }
    for (unsigned i = 0; i < 50; i++) {
        struct answer *answer = client_wait(clients[i], msgids[i]);
        if (answer->error.type == MSGPACK_OBJECT_NIL)
            created++;
        else
            assert_code(answer, "already_exists");
    }
    ck_assert_uint_eq(created, 1);
}
END_TEST

/* --- update ---------------------------------------------------------------------------------------- */

START_TEST(an_update_needs_the_keys_revision)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    uint64_t first = revision_of(client_call(client, "kv.put", "['%s', 'color', 'blue']", bucket));
    uint64_t second = revision_of(
        client_call(client, "kv.update", "['%s', 'color', 'red', %llu]", bucket, (unsigned long long)first));
    ck_assert_uint_gt(second, first);
    struct answer *answer =
        client_call(client, "kv.update", "['%s', 'color', 'green', %llu]", bucket, (unsigned long long)first);
    assert_code(answer, "conflict");
    ck_assert_uint_eq(number_at(&answer->error, "revision"), second);
    ck_assert_str_eq(text_at(&answer->error, "key"), "color");
    ck_assert_str_eq(text_at(&answer->error, "bucket"), bucket);
    ck_assert(!bool_at(&answer->error, "retryable"));
    answer = client_call(client, "kv.get", "['%s', 'color']", bucket);
    ck_assert_str_eq(text_at(&answer->result, "value"), "red");
}
END_TEST

START_TEST(an_update_at_revision_0_needs_a_missing_key)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    uint64_t first = revision_of(client_call(client, "kv.update", "['%s', 'color', 'blue', 0]", bucket));
    struct answer *answer = client_call(client, "kv.update", "['%s', 'color', 'red', 0]", bucket);
    assert_code(answer, "conflict");
    ck_assert_uint_eq(number_at(&answer->error, "revision"), first);
}
END_TEST

START_TEST(an_update_at_revision_0_treats_a_deleted_key_as_missing)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 3"), *removals[] = {"kv.delete", "kv.purge"};

    for (unsigned i = 0; i < 2; i++) {
        assert_ok(client_call(client, "kv.put", "['%s', 'color', 'blue']", bucket));
        assert_ok(client_call(client, removals[i], "['%s', 'color']", bucket));
        uint64_t revision = revision_of(client_call(client, "kv.update", "['%s', 'color', 'red', 0]", bucket));
        ck_assert_uint_eq(number_at(&client_call(client, "kv.get", "['%s', 'color']", bucket)->result, "revision"),
                          revision);
        assert_code(client_call(client, "kv.update", "['%s', 'color', 'green', 0]", bucket), "conflict");
        assert_ok(client_call(client, removals[i], "['%s', 'color']", bucket));
        assert_ok(
            client_call(client, "txn.commit", "['%s', [['color', 0]], [['update', 'color', 'pink', 0]]]", bucket));
        assert_code(client_call(client, "txn.commit", "['%s', [], [['update', 'color', 'grey', 0]]]", bucket),
                    "conflict");
    }
}
END_TEST

START_TEST(an_update_of_a_missing_key_is_a_conflict)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    struct answer *answer = client_call(client, "kv.update", "['%s', 'color', 'blue', 17]", bucket);
    assert_code(answer, "conflict");
    ck_assert_uint_eq(number_at(&answer->error, "revision"), 0);
}
END_TEST

START_TEST(one_of_many_concurrent_updates_succeeds)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 64");
    uint32_t msgids[100];
    unsigned updated = 0;

    unsigned long long first = revision_of(client_call(client, "kv.put", "['%s', 'n', '-']", bucket));
    for (unsigned i = 0; i < 100; i++)
        msgids[i] = client_send(client, "kv.update", "['%s', 'n', '%u', %llu]", bucket, i, first);
    for (unsigned i = 0; i < 100; i++) {
        struct answer *answer = client_wait(client, msgids[i]);
        if (answer->error.type == MSGPACK_OBJECT_NIL)
            updated++;
        else
            assert_code(answer, "conflict");
    }
    ck_assert_uint_eq(updated, 1);
    struct answer *answer = client_call(client, "kv.history", "['%s', 'n']", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 2);
}
END_TEST

/* --- delete and purge ------------------------------------------------------------------------------ */

START_TEST(a_deleted_key_is_missing_but_has_its_history)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 10");

    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'blue']", bucket));
    uint64_t marker = revision_of(client_call(client, "kv.delete", "['%s', 'color']", bucket));
    struct answer *answer = client_call(client, "kv.get", "['%s', 'color']", bucket);
    assert_ok(answer);
    ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);

    answer = client_call(client, "kv.history", "['%s', 'color']", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 2);
    ck_assert_str_eq(text_at(&answer->result, "0.value"), "blue");
    ck_assert_str_eq(text_at(&answer->result, "1.operation"), "delete");
    ck_assert_str_eq(text_at(&answer->result, "1.value"), "");
    ck_assert_uint_eq(number_at(&answer->result, "1.revision"), marker);
}
END_TEST

START_TEST(a_purged_key_has_only_its_marker)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 10");

    for (unsigned i = 0; i < 5; i++)
        assert_ok(client_call(client, "kv.put", "['%s', 'color', '%u']", bucket, i));
    assert_ok(client_call(client, "kv.put", "['%s', 'other', 'stays']", bucket));
    uint64_t marker = revision_of(client_call(client, "kv.purge", "['%s', 'color']", bucket));
    struct answer *answer = client_call(client, "kv.history", "['%s', 'color']", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 1);
    ck_assert_str_eq(text_at(&answer->result, "0.operation"), "purge");
    ck_assert_uint_eq(number_at(&answer->result, "0.revision"), marker);
    answer = client_call(client, "kv.get", "['%s', 'other']", bucket);
    ck_assert_str_eq(text_at(&answer->result, "value"), "stays");
}
END_TEST

START_TEST(a_removal_with_a_revision_needs_it)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    const char *removals[] = {"kv.delete", "kv.purge"};

    for (size_t i = 0; i < 2; i++) {
        unsigned long long first = revision_of(client_call(client, "kv.put", "['%s', 'color', 'blue']", bucket));
        unsigned long long second = revision_of(client_call(client, "kv.put", "['%s', 'color', 'red']", bucket));
        struct answer *answer = client_call(client, removals[i], "['%s', 'color', {'revision': %llu}]", bucket, first);
        assert_code(answer, "conflict");
        ck_assert_uint_eq(number_at(&answer->error, "revision"), second);
        answer = client_call(client, "kv.get", "['%s', 'color']", bucket);
        ck_assert_str_eq(text_at(&answer->result, "value"), "red");
        assert_ok(client_call(client, removals[i], "['%s', 'color', {'revision': %llu}]", bucket, second));
        answer = client_call(client, "kv.get", "['%s', 'color']", bucket);
        ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
    }
}
END_TEST

START_TEST(a_missing_key_can_be_deleted)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    ck_assert_uint_eq(revision_of(client_call(client, "kv.delete", "['%s', 'nowhere']", bucket)), 1);
    ck_assert_uint_eq(revision_of(client_call(client, "kv.purge", "['%s', 'nowhere']", bucket)), 2);
}
END_TEST

/* --- history --------------------------------------------------------------------------------------- */

START_TEST(history_is_oldest_first_and_as_long_as_the_bucket_keeps)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 5");
    struct answer *answer;

    for (unsigned i = 0; i < 9; i++) {
        assert_ok(client_call(client, "kv.put", "['%s', 'n', '%u', {'headers': {'Number': '%u'}}]", bucket, i, i));
        assert_ok(client_call(client, "kv.put", "['%s', 'n.other', 'x']", bucket));
    }
    answer = client_call(client, "kv.history", "['%s', 'n']", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 5);
    for (unsigned i = 0; i < 5; i++) {
        const msgpack_object *entry = find_at(&answer->result, format_text("%u", i));
        ck_assert_str_eq(text_at(entry, "key"), "n");
        ck_assert_str_eq(text_at(entry, "value"), format_text("%u", i + 4));
        ck_assert_str_eq(text_at(entry, "headers.Number"), format_text("%u", i + 4));
        ck_assert_str_eq(text_at(entry, "operation"), "put");
        ck_assert_uint_eq(number_at(entry, "revision"), (i + 4) * 2 + 1);
        ck_assert_uint_gt(number_at(entry, "created"), 0);
    }
}
END_TEST

START_TEST(a_missing_key_has_no_history)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 5");

    struct answer *answer = client_call(client, "kv.history", "['%s', 'nowhere']", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 0);
}
END_TEST

START_TEST(a_history_of_64_large_values_is_complete)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 64");
    size_t size = 100000;
    char *value = keep(malloc(size));

    for (unsigned i = 0; i < 64; i++) {
        memset(value, 'a' + (int)(i % 26), size);
        assert_ok(client_put(client, bucket, "large", value, size));
    }
    struct answer *answer = client_call(client, "kv.history", "['%s', 'large']", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 64);
    for (unsigned i = 0; i < 64; i++) {
        const msgpack_object *found = find_at(&answer->result, format_text("%u.value", i));
        memset(value, 'a' + (int)(i % 26), size);
        ck_assert_uint_eq(found->via.bin.size, size);
        ck_assert_mem_eq(found->via.bin.ptr, value, size);
    }
}
END_TEST

/* --- Headers --------------------------------------------------------------------------------------- */

START_TEST(headers_are_returned_as_given)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    const char *methods[] = {"kv.put", "kv.create", "kv.update"};

    for (size_t i = 0; i < 3; i++) {
        struct answer *answer = client_call(client, methods[i],
                                            "['%s', 'key-%zu', 'v'%s, {'headers': {'Content-Type': 'text/plain', "
                                            "'x': '-', 'Accent': 'h\u00e9', 'Blank': 'a: b, c'}}]",
                                            bucket, i, i == 2 ? ", 0" : "");
        assert_ok(answer);
        const char *consistencies[] = {"direct", "leader"};
        for (size_t k = 0; k < 2; k++) {
            answer =
                client_call(client, "kv.get", "['%s', 'key-%zu', {'consistency': '%s'}]", bucket, i, consistencies[k]);
            assert_ok(answer);
            ck_assert_uint_eq(count_at(&answer->result, "headers"), 4);
            ck_assert_str_eq(text_at(&answer->result, "headers.Content-Type"), "text/plain");
            ck_assert_str_eq(text_at(&answer->result, "headers.x"), "-");
            ck_assert_str_eq(text_at(&answer->result, "headers.Accent"), "h\u00e9");
            ck_assert_str_eq(text_at(&answer->result, "headers.Blank"), "a: b, c");
        }
    }
}
END_TEST

START_TEST(headers_of_the_server_are_refused)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    const char *names[] = {"Nats-TTL",     "nats-msg-id",  "Nats-Expected-Last-Msg-Id",
                           "KV-Operation", "kv-operation", "Status"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        assert_code(client_call(client, "kv.put", "['%s', 'k', 'v', {'headers': {'%s': '1'}}]", bucket, names[i]),
                    "invalid_argument");
        assert_code(client_call(client, "kv.create", "['%s', 'k', 'v', {'headers': {'%s': '1'}}]", bucket, names[i]),
                    "invalid_argument");
        assert_code(client_call(client, "kv.update", "['%s', 'k', 'v', 0, {'headers': {'%s': '1'}}]", bucket, names[i]),
                    "invalid_argument");
    }
    struct answer *answer = client_call(client, "kv.get", "['%s', 'k']", bucket);
    ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
}
END_TEST

/* Return the parameters of a put with so many headers. */
static const char *put_with_headers(const char *bucket, unsigned count)
{
    char *text = keep(malloc(64 + count * 16));
    int length = sprintf(text, "['%s', 'k', 'v', {'headers': {", bucket);

    for (unsigned i = 0; i < count; i++)
        length += sprintf(text + length, "%s'h%u': 'x'", i > 0 ? ", " : "", i);
    strcpy(text + length, "}}]");
    return text;
}

START_TEST(a_value_may_have_a_thousand_headers)
{
    static const char *const levels[] = {"direct", "leader", "cached"};
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(client, "kv.put", "%s", put_with_headers(bucket, 1000)));
    for (size_t i = 0; i < 3; i++) {
        struct answer *answer = client_call(client, "kv.get", "['%s', 'k', {'consistency': '%s'}]", bucket, levels[i]);
        assert_ok(answer);
        ck_assert_uint_eq(count_at(&answer->result, "headers"), 1000);
    }
    assert_code(client_call(client, "kv.put", "%s", put_with_headers(bucket, 1001)), "too_large");
}
END_TEST

START_TEST(header_values_that_nats_would_change_are_refused)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    const char *values[] = {"", " ", " a", "a ", "\\t", "a\\r\\nb"};

    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        assert_code(client_call(client, "kv.put", "['%s', 'k', 'v', {'headers': {'Color': '%s'}}]", bucket, values[i]),
                    "invalid_argument");
}
END_TEST

/* --- JSON ------------------------------------------------------------------------------------------ */

START_TEST(a_map_is_stored_as_json_and_comes_back_as_a_map)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(client, "kv.put",
                          "['%s', 'settings', {'port': 8080, 'names': ['a', 'b'], 'on': true, 'nothing': null, 'deep': "
                          "{'ratio': 0.5, 'negative': -7}}]",
                          bucket));
    struct answer *answer = client_call(client, "kv.get_json", "['%s', 'settings']", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(number_at(&answer->result, "port"), 8080);
    ck_assert_str_eq(text_at(&answer->result, "names.1"), "b");
    ck_assert(bool_at(&answer->result, "on"));
    ck_assert_int_eq(find_at(&answer->result, "nothing")->type, MSGPACK_OBJECT_NIL);
    ck_assert_double_eq(double_at(&answer->result, "deep.ratio"), 0.5);
    ck_assert_int_eq(find_at(&answer->result, "deep.negative")->via.i64, -7);
    ck_assert_uint_eq(count_at(&answer->result, ""), 5);

    answer = client_call(client, "kv.get", "['%s', 'settings']", bucket);
    json_t *stored = json_loads(text_at(&answer->result, "value"), 0, NULL);
    ck_assert_ptr_nonnull(stored);
    ck_assert_int_eq(json_integer_value(json_object_get(stored, "port")), 8080);
    json_decref(stored);
}
END_TEST

START_TEST(an_array_is_stored_as_json)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(client, "kv.put", "['%s', 'list', [1, 'two', []]]", bucket));
    struct answer *answer = client_call(client, "kv.get", "['%s', 'list']", bucket);
    ck_assert_str_eq(text_at(&answer->result, "value"), "[1,\"two\",[]]");
    answer = client_call(client, "kv.get_json", "['%s', 'list', {'consistency': 'leader'}]", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 3);
}
END_TEST

START_TEST(a_map_as_the_last_argument_is_the_value_of_a_put)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    /* Three arguments: the map is the value, though an option could be called so. */
    assert_ok(client_call(client, "kv.put", "['%s', 'k', {'ttl': 'soon'}]", bucket));
    struct answer *answer = client_call(client, "kv.get_json", "['%s', 'k']", bucket);
    ck_assert_str_eq(text_at(&answer->result, "ttl"), "soon");
}
END_TEST

START_TEST(get_json_parses_json_of_other_clients_and_refuses_other_values)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_put(client, bucket, "number", " 17 ", 4));
    struct answer *answer = client_call(client, "kv.get_json", "['%s', 'number']", bucket);
    ck_assert_uint_eq(number_at(&answer->result, ""), 17);

    assert_ok(client_put(client, bucket, "none", "{\"a\":", 5));
    assert_code(client_call(client, "kv.get_json", "['%s', 'none']", bucket), "invalid_argument");
    assert_ok(client_put(client, bucket, "none", "\xff\xfe", 2));
    assert_code(client_call(client, "kv.get_json", "['%s', 'none']", bucket), "invalid_argument");
    assert_ok(client_put(client, bucket, "none", "", 0));
    assert_code(client_call(client, "kv.get_json", "['%s', 'none']", bucket), "invalid_argument");

    /* What no client of the protocol could read. */
    char deep[201];
    memset(deep, '[', 100);
    memset(deep + 100, ']', 100);
    assert_ok(client_put(client, bucket, "deep", deep, 200));
    assert_code(client_call(client, "kv.get_json", "['%s', 'deep']", bucket), "invalid_argument");
}
END_TEST

/* --- Notifications --------------------------------------------------------------------------------- */

START_TEST(a_notification_is_executed_and_not_answered)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    msgpack_sbuffer buffer;
    msgpack_packer packer;

    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    for (unsigned i = 0; i < 2; i++) {
        const char *method = i == 0 ? "kv.nonsense" : "kv.put";
        msgpack_pack_array(&packer, 3);
        msgpack_pack_int(&packer, 2);
        msgpack_pack_str_with_body(&packer, method, strlen(method));
        msgpack_pack_array(&packer, 3);
        msgpack_pack_str_with_body(&packer, bucket, strlen(bucket));
        msgpack_pack_str_with_body(&packer, "color", 5);
        msgpack_pack_str_with_body(&packer, "blue", 4);
    }
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);

    /* The next message is the answer to the next call. */
    uint64_t end = now_ms() + PATIENCE_MS;
    for (;;) {
        uint32_t msgid = client_send(client, "kv.get", "['%s', 'color', {'consistency': 'leader'}]", bucket);
        struct answer *answer = client_receive(client);
        ck_assert(answer->has_msgid);
        ck_assert_uint_eq(answer->msgid, msgid);
        assert_ok(answer);
        if (answer->result.type == MSGPACK_OBJECT_MAP)
            break;
        ck_assert_uint_lt(now_ms(), end);
    }
}
END_TEST

/* --- Deletes of keys that do not exist ------------------------------------------------------------- */

static uint64_t values_in(struct client *client, const char *bucket)
{
    return number_at(&client_call(client, "bucket.info", "['%s']", bucket)->result, "values");
}

static bool removes_if_exists(struct client *client, const char *bucket, const char *key)
{
    struct answer *answer = client_call(client, "kv.delete", "['%s', '%s', {'if_exists': true}]", bucket, key);

    assert_ok(answer);
    return answer->result.type != MSGPACK_OBJECT_NIL;
}

START_TEST(a_delete_if_the_key_exists_writes_a_marker_only_then)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 5");

    ck_assert(!removes_if_exists(client, bucket, "never"));
    ck_assert_uint_eq(values_in(client, bucket), 0);
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    ck_assert_uint_eq(revision_of(client_call(client, "kv.delete", "['%s', 'k', {'if_exists': true}]", bucket)), 2);
    ck_assert_int_eq(client_call(client, "kv.get", "['%s', 'k']", bucket)->result.type, MSGPACK_OBJECT_NIL);
    ck_assert(!removes_if_exists(client, bucket, "k"));
    assert_ok(client_call(client, "kv.purge", "['%s', 'k']", bucket));
    ck_assert(!removes_if_exists(client, bucket, "k"));
    ck_assert_uint_eq(values_in(client, bucket), 1);
    assert_ok(client_call(client, "kv.create", "['%s', 'k', 'v', {'ttl': 100}]", bucket));
    ck_assert(removes_if_exists(client, bucket, "k"));

    ck_assert_uint_eq(revision_of(client_call(client, "kv.delete", "['%s', 'never', {'if_exists': false}]", bucket)),
                      6);
    assert_code_says(client_call(client, "kv.delete", "['%s', 'k', {'if_exists': true, 'revision': 1}]", bucket),
                     "invalid_argument", "if_exists");
    assert_code(client_call(client, "kv.purge", "['%s', 'k', {'if_exists': true}]", bucket), "invalid_argument");
    assert_code(client_call(client, "kv.delete", "['no-such-bucket', 'k', {'if_exists': true}]"), "bucket_not_found");
}
END_TEST

#define RACE_ROUNDS 200u

/* Each marker deletes a value, however many clients write and delete at once. */
START_TEST(racing_deletes_if_the_key_exists_leave_one_marker_for_each_value)
{
    enum { CLIENTS = 4 };
    struct client *clients[CLIENTS];
    uint32_t calls[CLIENTS];
    uint64_t puts = 0, markers = 0;

    for (unsigned i = 0; i < CLIENTS; i++)
        clients[i] = client_open_shared();
    const char *bucket = client_new_bucket(clients[0], "'history': 64");
    for (unsigned round = 0; round < RACE_ROUNDS; round++) {
        for (unsigned i = 0; i < CLIENTS; i++)
            calls[i] = i == round % CLIENTS
                           ? client_send(clients[i], "kv.put", "['%s', 'k', 'v']", bucket)
                           : client_send(clients[i], "kv.delete", "['%s', 'k', {'if_exists': true}]", bucket);
        for (unsigned i = 0; i < CLIENTS; i++) {
            struct answer *answer = client_wait(clients[i], calls[i]);
            assert_ok(answer);
            bool is_put = i == round % CLIENTS;
            puts += is_put;
            markers += !is_put && answer->result.type != MSGPACK_OBJECT_NIL;
        }
    }
    ck_assert_uint_le(markers, puts);
    struct answer *answer = client_call(clients[0], "bucket.info", "['%s']", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "last_revision"), puts + markers);
    answer = client_call(clients[0], "kv.history", "['%s', 'k']", bucket);
    assert_ok(answer);
    for (uint32_t i = 1; i < answer->result.via.array.size; i++) {
        const msgpack_object *entries = answer->result.via.array.ptr;
        ck_assert_msg(strcmp(text_at(&entries[i], "operation"), "put") == 0 ||
                          strcmp(text_at(&entries[i - 1], "operation"), "put") == 0,
                      "two markers in a row: %s", object_text(&answer->result));
    }
}
END_TEST

Suite *kv_suite(void)
{
    Suite *suite = suite_create("kv");
    TCase *tests = shared_daemon_case(suite, "one key");

    tcase_add_test(tests, a_delete_if_the_key_exists_writes_a_marker_only_then);
    tcase_add_test(tests, racing_deletes_if_the_key_exists_leave_one_marker_for_each_value);
    tcase_add_test(tests, a_put_is_read_back_with_its_revision);
    tcase_add_test(tests, a_missing_key_is_nil);
    tcase_add_test(tests, every_byte_of_a_binary_value_comes_back);
    tcase_add_test(tests, an_empty_value_is_a_value);
    tcase_add_test(tests, a_value_of_nearly_a_megabyte_comes_back_whole);
    tcase_add_test(tests, every_allowed_character_is_accepted_in_a_key);
    tcase_add_test(tests, a_key_of_1024_characters_is_accepted_and_a_longer_one_is_not);
    tcase_add_test(tests, texts_may_come_as_bin);
    tcase_add_test(tests, a_read_from_the_leader_sees_all_acknowledged_writes);
    tcase_add_test(tests, a_cached_read_sees_this_hosts_own_writes);
    tcase_add_test(tests, an_older_revision_can_be_read);
    tcase_add_test(tests, the_revision_of_another_key_is_nil);
    tcase_add_test(tests, a_revision_that_left_the_history_is_nil);
    tcase_add_test(tests, only_the_first_create_of_a_key_succeeds);
    tcase_add_test(tests, a_create_over_a_delete_or_purge_marker_succeeds);
    tcase_add_test(tests, one_of_many_concurrent_creates_succeeds);
    tcase_add_test(tests, an_update_needs_the_keys_revision);
    tcase_add_test(tests, an_update_at_revision_0_needs_a_missing_key);
    tcase_add_test(tests, an_update_at_revision_0_treats_a_deleted_key_as_missing);
    tcase_add_test(tests, an_update_of_a_missing_key_is_a_conflict);
    tcase_add_test(tests, one_of_many_concurrent_updates_succeeds);
    tcase_add_test(tests, a_deleted_key_is_missing_but_has_its_history);
    tcase_add_test(tests, a_purged_key_has_only_its_marker);
    tcase_add_test(tests, a_removal_with_a_revision_needs_it);
    tcase_add_test(tests, a_missing_key_can_be_deleted);
    tcase_add_test(tests, history_is_oldest_first_and_as_long_as_the_bucket_keeps);
    tcase_add_test(tests, a_missing_key_has_no_history);
    tcase_add_test(tests, a_history_of_64_large_values_is_complete);
    tcase_add_test(tests, headers_are_returned_as_given);
    tcase_add_test(tests, headers_of_the_server_are_refused);
    tcase_add_test(tests, header_values_that_nats_would_change_are_refused);
    tcase_add_test(tests, a_value_may_have_a_thousand_headers);
    tcase_add_test(tests, a_map_is_stored_as_json_and_comes_back_as_a_map);
    tcase_add_test(tests, an_array_is_stored_as_json);
    tcase_add_test(tests, a_map_as_the_last_argument_is_the_value_of_a_put);
    tcase_add_test(tests, get_json_parses_json_of_other_clients_and_refuses_other_values);
    tcase_add_test(tests, a_notification_is_executed_and_not_answered);
    return suite;
}
