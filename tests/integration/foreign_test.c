/* Buckets that other NATS clients have created and write to at the same time. */
#include "tests/integration/suites.h"
#include "tests/support/client.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"

#include <unistd.h>

/* Create a bucket as an older client does. more: further members of its stream's configuration. */
static const char *make_bucket(struct nats *nats, const char *more)
{
    static unsigned count;
    const char *name = format_text("foreign-%d-%u", (int)getpid(), ++count);

    nats_api(nats, "STREAM.CREATE", format_text("KV_%s", name),
             "{'name': 'KV_%s', 'subjects': ['$KV.%s.>'], 'max_msgs_per_subject': 5, 'discard': 'new', "
             "'allow_rollup_hdrs': true, 'deny_delete': true, 'num_replicas': 1%s}",
             name, name, more);
    return name;
}

static struct nats *connect_nats(void)
{
    return nats_connect_embedded(shared_daemon.data_dir);
}

/* Put a key as another client does. Return the sequence. */
static uint64_t put_there(struct nats *nats, const char *bucket, const char *key, const char *headers,
                          const char *value)
{
    json_t *ack = nats_request_json(nats, format_text("$KV.%s.%s", bucket, key), headers, value);

    return (uint64_t)json_integer_value(json_object_get(ack, "seq"));
}

START_TEST(a_bucket_without_direct_reads_is_read_and_written)
{
    struct client *client = client_open_shared();
    struct nats *nats = connect_nats();
    const char *bucket = make_bucket(nats, "");

    uint64_t theirs = put_there(nats, bucket, "theirs", "Color: blue\r\n", "value");
    struct answer *answer = client_call(client, "kv.get", "['%s', 'theirs']", bucket);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "value"), "value");
    ck_assert_str_eq(text_at(&answer->result, "headers.Color"), "blue");
    ck_assert_uint_eq(number_at(&answer->result, "revision"), theirs);
    uint64_t ours = revision_of(client_call(client, "kv.put", "['%s', 'ours', 'v1']", bucket));
    assert_ok(client_call(client, "kv.update", "['%s', 'ours', 'v2', %llu]", bucket, (unsigned long long)ours));
    assert_code(client_call(client, "kv.update", "['%s', 'ours', 'v3', %llu]", bucket, (unsigned long long)ours),
                "conflict");
    answer = client_call(client, "kv.get", "['%s', 'ours', {'revision': %llu}]", bucket, (unsigned long long)ours);
    ck_assert_str_eq(text_at(&answer->result, "value"), "v1");
    answer = client_call(client, "kv.get", "['%s', 'theirs', {'revision': %llu}]", bucket, (unsigned long long)ours);
    ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
    answer = client_call(client, "kv.get", "['%s', 'nowhere']", bucket);
    assert_ok(answer);
    ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
    answer = client_call(client, "kv.history", "['%s', 'ours']", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 2);
    assert_code(client_call(client, "kv.create", "['%s', 'ours', 'v']", bucket), "already_exists");
    assert_ok(client_call(client, "kv.delete", "['%s', 'ours']", bucket));
    assert_ok(client_call(client, "kv.create", "['%s', 'ours', 'v']", bucket));
    answer = client_call(client, "bucket.info", "['%s']", bucket);
    ck_assert(!bool_at(&answer->result, "allows_ttl"));
    ck_assert(!bool_at(&answer->result, "allows_atomic"));
}
END_TEST

/* A bucket of kvstored refuses values when it is full. This one makes room. */
START_TEST(a_smaller_max_bytes_of_a_bucket_that_discards_old_values_needs_force)
{
    struct client *client = client_open_shared();
    const char *bucket = make_bucket(connect_nats(), ", 'discard': 'old'");

    for (unsigned i = 0; i < 3; i++)
        assert_ok(client_put(client, bucket, format_text("k%u", i), keep(calloc(1, 10000)), 10000));
    struct answer *answer = client_call(client, "bucket.update", "['%s', {'max_bytes': 15000}]", bucket);
    assert_code_says(answer, "unsupported", "the oldest values would be removed at once");
    answer = client_call(client, "bucket.info", "['%s']", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "values"), 3);
    answer = client_call(client, "bucket.update", "['%s', {'max_bytes': 15000, 'force': true}]", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(number_at(&answer->result, "values"), 1);
}
END_TEST

START_TEST(a_ttl_is_unsupported_until_the_bucket_is_updated)
{
    struct client *client = client_open_shared();
    const char *bucket = make_bucket(connect_nats(), ", 'allow_direct': true");

    struct answer *answer = client_call(client, "kv.put", "['%s', 'k', 'v', {'ttl': 60}]", bucket);
    assert_code_says(answer, "unsupported", "bucket.update");
    ck_assert(!bool_at(&answer->error, "retryable"));
    answer = client_call(client, "kv.get", "['%s', 'k']", bucket);
    ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
    answer = client_call(client, "bucket.update", "['%s']", bucket);
    assert_ok(answer);
    ck_assert(bool_at(&answer->result, "allows_ttl"));
    ck_assert(bool_at(&answer->result, "allows_atomic"));
    ck_assert_uint_eq(number_at(&answer->result, "history"), 5);
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v', {'ttl': 60}]", bucket));
}
END_TEST

/*
 * Another client has written the key. The server shows it at once, and memory a moment later: in embedded mode no other
 * client is expected to write. After an answer of the server memory is as new.
 */
static void show(struct client *client, const char *bucket, const char *key)
{
    assert_ok(client_call(client, "kv.get", "['%s', '%s', {'consistency': 'leader'}]", bucket, key));
}

START_TEST(markers_of_other_clients_are_understood)
{
    struct client *client = client_open_shared();
    struct nats *nats = connect_nats();
    const char *bucket = make_bucket(nats, ", 'allow_direct': true");
    static const struct {
        const char *headers, *operation;
    } markers[] = {{"KV-Operation: DEL\r\n", "delete"},
                   {"KV-Operation: PURGE\r\nNats-Rollup: sub\r\n", "purge"},
                   {"Nats-Marker-Reason: MaxAge\r\n", "purge"},
                   {"Nats-Marker-Reason: Purge\r\n", "purge"},
                   {"Nats-Marker-Reason: Remove\r\n", "delete"}};

    for (size_t i = 0; i < sizeof(markers) / sizeof(markers[0]); i++) {
        const char *key = format_text("k%zu", i);
        put_there(nats, bucket, key, NULL, "value");
        put_there(nats, bucket, key, markers[i].headers, "");
        show(client, bucket, key);
        struct answer *answer = client_call(client, "kv.get", "['%s', '%s']", bucket, key);
        assert_ok(answer);
        ck_assert_int_eq(answer->result.type, MSGPACK_OBJECT_NIL);
        answer = client_call(client, "kv.history", "['%s', '%s']", bucket, key);
        size_t last = count_at(&answer->result, "") - 1;
        ck_assert_str_eq(text_at(&answer->result, format_text("%zu.operation", last)), markers[i].operation);
        assert_ok(client_call(client, "kv.create", "['%s', '%s', 'v']", bucket, key));
    }
}
END_TEST

START_TEST(other_clients_understand_what_the_daemon_writes)
{
    struct client *client = client_open_shared();
    struct nats *nats = connect_nats();
    const char *bucket = client_new_bucket(client, "'history': 5");
    const char *stream = format_text("KV_%s", bucket);

    json_t *info = nats_api(nats, "STREAM.INFO", stream, "{}");
    json_t *config = json_object_get(info, "config");
    ck_assert_str_eq(json_string_value(json_array_get(json_object_get(config, "subjects"), 0)),
                     format_text("$KV.%s.>", bucket));
    ck_assert_str_eq(json_string_value(json_object_get(config, "discard")), "new");
    ck_assert(json_is_true(json_object_get(config, "allow_rollup_hdrs")));
    ck_assert(json_is_true(json_object_get(config, "deny_delete")));
    ck_assert(json_is_true(json_object_get(config, "allow_direct")));
    ck_assert_int_eq(json_integer_value(json_object_get(config, "max_msgs_per_subject")), 5);
    /* The window must outlast the longest call: 60 s. */
    ck_assert_int_ge(json_integer_value(json_object_get(config, "duplicate_window")), 120000000000LL);

    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'blue', {'headers': {'Shade': 'dark'}}]", bucket));
    ck_assert_str_eq(nats_request(nats, format_text("$JS.API.DIRECT.GET.%s.$KV.%s.color", stream, bucket), NULL, ""),
                     "blue");
    assert_ok(client_call(client, "kv.delete", "['%s', 'color']", bucket));
    json_t *message = nats_api(nats, "STREAM.MSG.GET", stream, "{'last_by_subj': '$KV.%s.color'}", bucket);
    ck_assert_ptr_null(json_object_get(json_object_get(message, "message"), "data"));
}
END_TEST

START_TEST(a_write_of_another_client_is_seen)
{
    struct client *client = client_open_shared();
    struct nats *nats = connect_nats();
    const char *bucket = client_new_bucket(client, NULL);

    for (unsigned i = 0; i < 50; i++) {
        unsigned long long sequence = put_there(nats, bucket, "n", NULL, format_text("%u", i));
        struct answer *answer = client_call(client, "kv.get", "['%s', 'n', {'consistency': 'leader'}]", bucket);
        assert_ok(answer);
        ck_assert_str_eq(text_at(&answer->result, "value"), format_text("%u", i));
        uint64_t end = now_ms() + PATIENCE_MS;
        do {
            ck_assert_msg(now_ms() < end, "value %u is not seen", i);
            answer = client_call(client, "kv.get", "['%s', 'n']", bucket);
            assert_ok(answer);
        } while (strcmp(text_at(&answer->result, "value"), format_text("%u", i)) != 0);
        assert_code(client_call(client, "kv.update", "['%s', 'n', 'x', %llu]", bucket, sequence - 1), "conflict");
    }
}
END_TEST

START_TEST(a_bucket_that_another_client_recreates_is_noticed)
{
    struct client *client = client_open_shared();
    struct nats *nats = connect_nats();
    const char *bucket = make_bucket(nats, ", 'allow_direct': true");
    const char *stream = format_text("KV_%s", bucket);

    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'old']", bucket));
    nats_api(nats, "STREAM.DELETE", stream, "{}");
    assert_code(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket), "bucket_not_found");
    assert_code(client_call(client, "kv.get", "['%s', 'k']", bucket), "bucket_not_found");
    nats_api(nats, "STREAM.CREATE", stream, "{'name': '%s', 'subjects': ['$KV.%s.>'], 'max_msgs_per_subject': 1}",
             stream, bucket);
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'new']", bucket));
    struct answer *answer = client_call(client, "kv.get", "['%s', 'k']", bucket);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "value"), "new");
    ck_assert_uint_eq(number_at(&answer->result, "revision"), 1);
}
END_TEST

START_TEST(a_bucket_whose_direct_reads_are_switched_off_is_read)
{
    struct client *client = client_open_shared();
    struct nats *nats = connect_nats();
    const char *bucket = make_bucket(nats, ", 'allow_direct': true");

    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    assert_ok(client_call(client, "kv.get", "['%s', 'k']", bucket));
    nats_api(nats, "STREAM.UPDATE", format_text("KV_%s", bucket),
             "{'name': 'KV_%s', 'subjects': ['$KV.%s.>'], 'max_msgs_per_subject': 5, 'discard': 'new', "
             "'allow_rollup_hdrs': true, 'deny_delete': true, 'allow_direct': false}",
             bucket, bucket);
    struct answer *answer = client_call(client, "kv.get", "['%s', 'k']", bucket);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "value"), "v");
}
END_TEST

START_TEST(a_bucket_with_a_short_ttl_of_another_client_keeps_its_duplicate_window_bounded)
{
    struct client *client = client_open_shared();
    const char *bucket = make_bucket(connect_nats(), ", 'max_age': 60000000000, 'duplicate_window': 60000000000");

    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    struct answer *answer = client_call(client, "bucket.update", "['%s', {'description': 'mine'}]", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(number_at(&answer->result, "ttl"), 60);
    /* A call may not last longer than the server remembers its id. */
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v', {'timeout': 60}]", bucket));
}
END_TEST

START_TEST(a_key_that_no_protocol_allows_does_not_harm_a_listing)
{
    struct client *client = client_open_shared();
    struct nats *nats = connect_nats();
    const char *bucket = make_bucket(nats, ", 'allow_direct': true");

    put_there(nats, bucket, "fine", NULL, "v");
    put_there(nats, bucket, "sch\u00f6n", NULL, "v");
    show(client, bucket, "fine");
    struct answer *answer = client_call(client, "kv.keys", "['%s']", bucket);
    assert_ok(answer);
    ck_assert_uint_ge(count_at(&answer->result, ""), 1);
    ck_assert_str_eq(text_at(&answer->result, "0"), "fine");
}
END_TEST

static void assert_is_value(struct answer *answer, const char *status)
{
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "value"), "v");
    ck_assert_str_eq(text_at(&answer->result, "headers.Status"), status);
}

START_TEST(a_header_named_status_of_another_client_is_a_header)
{
    static const char *const statuses[] = {"404", "503", "204", "100", "408", "409"};
    struct client *client = client_open_shared();
    struct nats *nats = connect_nats();

    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        const char *status = statuses[i], *bucket = client_new_bucket(client, NULL);
        assert_ok(client_call(client, "kv.put", "['%s', 'a', 'v']", bucket));
        put_there(nats, bucket, "k", format_text("Status: %s\r\n", status), "v");
        show(client, bucket, "k");
        static const char *const levels[] = {"direct", "leader", "cached", "cached"};
        for (size_t level = 0; level < 4; level++)
            assert_is_value(client_call(client, "kv.get", "['%s', 'k', {'consistency': '%s'}]", bucket, levels[level]),
                            status);
        struct answer *answer = client_call(client, "bulk.get", "['%s', ['a', 'k']]", bucket);
        assert_ok(answer);
        ck_assert_str_eq(text_at(&answer->result, "k.value"), "v");
        answer = client_call(client, "kv.keys", "['%s']", bucket);
        assert_ok(answer);
        ck_assert_uint_eq(count_at(&answer->result, ""), 2);
        answer = client_call(client, "kv.history", "['%s', 'k']", bucket);
        assert_ok(answer);
        ck_assert_uint_eq(count_at(&answer->result, ""), 1);
    }
}
END_TEST

START_TEST(too_many_headers_do_not_hide_a_value)
{
    struct client *client = client_open_shared();
    struct nats *nats = connect_nats();
    const char *bucket = client_new_bucket(client, NULL);
    char *headers = keep(calloc(1, 64000));

    for (unsigned i = 0, length = 0; i < 3000; i++)
        length += (unsigned)sprintf(headers + length, "h%u: x\r\n", i);
    put_there(nats, bucket, "k", headers, "v");
    show(client, bucket, "k");
    static const char *const levels[] = {"direct", "leader", "cached"};
    for (size_t level = 0; level < 3; level++) {
        struct answer *answer =
            client_call(client, "kv.get", "['%s', 'k', {'consistency': '%s'}]", bucket, levels[level]);
        assert_ok(answer);
        ck_assert_str_eq(text_at(&answer->result, "value"), "v");
        ck_assert_uint_ge(count_at(&answer->result, "headers"), 1000);
    }
}
END_TEST

/*
 * Other programs may store lines that are no headers. Every read returns the value, and the headers after such a line.
 */
START_TEST(a_line_of_headers_without_a_colon_hides_nothing)
{
    static const char *const consistencies[] = {"direct", "leader", "cached"};
    struct client *client = client_open_shared();
    struct nats *nats = connect_nats();
    const char *bucket = client_new_bucket(client, NULL);

    nats_request_json(nats, format_text("$KV.%s.k", bucket), "no colon\r\nBehind: it\r\n", "value");
    show(client, bucket, "k");
    for (size_t i = 0; i < sizeof(consistencies) / sizeof(consistencies[0]); i++) {
        struct answer *answer =
            client_call(client, "kv.get", "['%s', 'k', {'consistency': '%s'}]", bucket, consistencies[i]);
        assert_ok(answer);
        ck_assert_str_eq(text_at(&answer->result, "value"), "value");
        ck_assert_str_eq(text_at(&answer->result, "headers.Behind"), "it");
        answer = client_call(client, "bulk.get", "['%s', ['k'], {'consistency': '%s'}]", bucket, consistencies[i]);
        assert_ok(answer);
        ck_assert_str_eq(text_at(&answer->result, "k.value"), "value");
    }
}
END_TEST

/* The entry must have the headers of the next test. */
static void check_headers_without_utf8(const msgpack_object *entry)
{
    const msgpack_object *headers = find_at(entry, "headers");

    ck_assert_ptr_nonnull(headers);
    ck_assert_int_eq(headers->type, MSGPACK_OBJECT_MAP);
    ck_assert_uint_eq(headers->via.map.size, 3);
    const msgpack_object_kv *header = headers->via.map.ptr;
    ck_assert_int_eq(header[0].key.type, MSGPACK_OBJECT_STR);
    ck_assert_int_eq(header[0].val.type, MSGPACK_OBJECT_BIN);
    ck_assert_str_eq(text_at(headers, "Color"), "gr\xfcn");
    ck_assert_int_eq(header[1].key.type, MSGPACK_OBJECT_BIN);
    ck_assert_uint_eq(header[1].key.via.bin.size, 5);
    ck_assert_mem_eq(header[1].key.via.bin.ptr,
                     "Gr\xf6\xdf"
                     "e",
                     5);
    ck_assert_int_eq(header[1].val.type, MSGPACK_OBJECT_STR);
    ck_assert_int_eq(header[2].key.type, MSGPACK_OBJECT_STR);
    ck_assert_int_eq(header[2].val.type, MSGPACK_OBJECT_STR);
    ck_assert_str_eq(text_at(headers, "Plain"), "text");
}

START_TEST(a_header_that_is_not_utf8_is_a_bin)
{
    static const char *const consistencies[] = {"direct", "leader", "cached"};
    struct client *client = client_open_shared();
    struct nats *nats = connect_nats();
    const char *bucket = client_new_bucket(client, NULL);
    struct answer *answer = client_call(client, "watch.start", "['%s']", bucket);

    uint64_t watch = number_at(&answer->result, "");
    ck_assert_str_eq(client_wait_notification(client, watch)->method, "watch.ready");
    put_there(nats, bucket, "k",
              "Color: gr\xfcn\r\nGr\xf6\xdf"
              "e: L\r\nPlain: text\r\n",
              "value");
    show(client, bucket, "k");
    for (size_t i = 0; i < sizeof(consistencies) / sizeof(consistencies[0]); i++) {
        answer = client_call(client, "kv.get", "['%s', 'k', {'consistency': '%s'}]", bucket, consistencies[i]);
        assert_ok(answer);
        check_headers_without_utf8(&answer->result);
        answer = client_call(client, "bulk.get", "['%s', ['k'], {'consistency': '%s'}]", bucket, consistencies[i]);
        assert_ok(answer);
        check_headers_without_utf8(find_at(&answer->result, "k"));
    }
    answer = client_call(client, "kv.history", "['%s', 'k']", bucket);
    assert_ok(answer);
    check_headers_without_utf8(find_at(&answer->result, "0"));
    answer = client_call(client, "kv.entries", "['%s']", bucket);
    assert_ok(answer);
    check_headers_without_utf8(find_at(&answer->result, "0"));
    const struct notification *change = client_wait_notification(client, watch);
    ck_assert_str_eq(change->method, "watch.entries");
    check_headers_without_utf8(find_at(&change->params, "1.0"));
}
END_TEST

START_TEST(purging_a_bucket_without_rollups_says_what_is_needed)
{
    struct client *client = client_open_shared();
    struct nats *nats = connect_nats();
    const char *bucket = format_text("no-roll-up-%d", (int)getpid());

    nats_api(nats, "STREAM.CREATE", format_text("KV_%s", bucket),
             "{'name': 'KV_%s', 'subjects': ['$KV.%s.>'], 'max_msgs_per_subject': 5, 'allow_direct': true, "
             "'allow_msg_ttl': true, 'allow_atomic': true}",
             bucket, bucket);
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    assert_code_says(client_call(client, "kv.purge", "['%s', 'k']", bucket), "unsupported", "allow_rollup_hdrs");
    assert_code_says(client_call(client, "kv.put", "['%s', 'k', 'v', {'ttl': 60}]", bucket), "unsupported",
                     "allow_rollup_hdrs");
    assert_code_says(client_call(client, "txn.commit", "['%s', [], [['purge', 'k']]]", bucket), "unsupported",
                     "allow_rollup_hdrs");
    assert_ok(client_call(client, "bucket.update", "['%s']", bucket));
    assert_ok(client_call(client, "kv.purge", "['%s', 'k']", bucket));
}
END_TEST

START_TEST(writers_of_a_deleted_bucket_get_bucket_not_found)
{
    enum { ROUNDS = 10, WRITES = 400 };
    struct client *client = client_open_shared(), *deleter = client_open_shared();

    for (unsigned round = 0; round < ROUNDS; round++) {
        const char *bucket = client_new_bucket(client, NULL);
        uint32_t first = 0, last = 0;
        for (unsigned i = 0; i < WRITES; i++) {
            last = client_send(client, i % 3 == 0 ? "kv.get" : "kv.put",
                               i % 3 == 0 ? "['%s', 'k%u']" : "['%s', 'k%u', 'v']", bucket, i % 50);
            if (i == 0)
                first = last;
            if (i == WRITES / 2)
                client_send(deleter, "bucket.delete", "['%s']", bucket);
        }
        for (uint32_t msgid = first; msgid <= last; msgid++) {
            struct answer *answer = client_wait(client, msgid);
            if (answer->error.type != MSGPACK_OBJECT_NIL)
                assert_code(answer, "bucket_not_found");
        }
        assert_ok(client_receive(deleter));
    }
}
END_TEST

Suite *foreign_suite(void)
{
    Suite *suite = suite_create("foreign");
    TCase *tests = shared_daemon_case(suite, "others");

    tcase_add_test(tests, a_bucket_without_direct_reads_is_read_and_written);
    tcase_add_test(tests, a_smaller_max_bytes_of_a_bucket_that_discards_old_values_needs_force);
    tcase_add_test(tests, a_ttl_is_unsupported_until_the_bucket_is_updated);
    tcase_add_test(tests, markers_of_other_clients_are_understood);
    tcase_add_test(tests, other_clients_understand_what_the_daemon_writes);
    tcase_add_test(tests, a_write_of_another_client_is_seen);
    tcase_add_test(tests, a_bucket_that_another_client_recreates_is_noticed);
    tcase_add_test(tests, a_bucket_whose_direct_reads_are_switched_off_is_read);
    tcase_add_test(tests, a_bucket_with_a_short_ttl_of_another_client_keeps_its_duplicate_window_bounded);
    tcase_add_test(tests, a_key_that_no_protocol_allows_does_not_harm_a_listing);
    tcase_add_test(tests, a_header_named_status_of_another_client_is_a_header);
    tcase_add_test(tests, a_line_of_headers_without_a_colon_hides_nothing);
    tcase_add_test(tests, a_header_that_is_not_utf8_is_a_bin);
    tcase_add_test(tests, purging_a_bucket_without_rollups_says_what_is_needed);
    tcase_add_test(tests, writers_of_a_deleted_bucket_get_bucket_not_found);
    tcase_add_test(tests, too_many_headers_do_not_hide_a_value);
    return suite;
}
