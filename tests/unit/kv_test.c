#include "daemon/nats/kv.h"
#include "tests/unit/suites.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static bool key_is_well(const char *key)
{
    return kv_check_key(key, strlen(key)) == NULL;
}

static bool filter_is_well(const char *filter)
{
    return kv_check_filter(filter, strlen(filter)) == NULL;
}

START_TEST(a_key_has_the_characters_and_dots_that_nats_kv_allows)
{
    ck_assert(key_is_well("a"));
    ck_assert(key_is_well("a.b-c_d/e=f.0"));
    ck_assert(!key_is_well(""));
    ck_assert(!key_is_well(".a"));
    ck_assert(!key_is_well("a."));
    ck_assert(!key_is_well("a..b"));
    ck_assert(!key_is_well("a b"));
    ck_assert(!key_is_well("a*"));
    ck_assert(!key_is_well(">"));
    ck_assert(!key_is_well("\xc3\xa4"));
    ck_assert(kv_check_key("a\0b", 3) != NULL);
}
END_TEST

START_TEST(a_key_has_up_to_1024_characters)
{
    char key[KV_KEY_LENGTH_MAX + 1];

    memset(key, 'k', sizeof(key));
    ck_assert(kv_check_key(key, KV_KEY_LENGTH_MAX) == NULL);
    ck_assert(kv_check_key(key, KV_KEY_LENGTH_MAX + 1) != NULL);
}
END_TEST

START_TEST(a_bucket_has_letters_digits_dash_and_underscore)
{
    ck_assert(kv_check_bucket("a-B_9", 5) == NULL);
    ck_assert(kv_check_bucket("", 0) != NULL);
    ck_assert(kv_check_bucket("a.b", 3) != NULL);
    ck_assert(kv_check_bucket("a b", 3) != NULL);
}
END_TEST

static int64_t ttl_of(const char *value)
{
    struct message_header header = {.name = "Nats-TTL", .value = value};
    struct message message = {.headers = &header, .header_count = value != NULL};

    return kv_read_ttl(&message);
}

START_TEST(a_ttl_is_a_number_of_seconds_or_a_duration)
{
    ck_assert_int_eq(ttl_of(NULL), 0);
    ck_assert_int_eq(ttl_of("never"), 0);
    ck_assert_int_eq(ttl_of("5"), 5);
    ck_assert_int_eq(ttl_of("90s"), 90);
    ck_assert_int_eq(ttl_of("1h30m0s"), 5400);
    ck_assert_int_eq(ttl_of("2h"), 7200);
    ck_assert_int_eq(ttl_of(""), -1);
    ck_assert_int_eq(ttl_of("0s"), -1);
    ck_assert_int_eq(ttl_of("1.5s"), -1);
    ck_assert_int_eq(ttl_of("-1"), -1);
    ck_assert_int_eq(ttl_of("1d"), -1);
    ck_assert_int_eq(ttl_of("99999999999999999999"), -1);
}
END_TEST

START_TEST(a_filter_has_stars_for_tokens_and_a_final_greater)
{
    ck_assert(filter_is_well("a.*.b"));
    ck_assert(filter_is_well("*"));
    ck_assert(filter_is_well("a.>"));
    ck_assert(filter_is_well(">"));
    ck_assert(!filter_is_well("a*"));
    ck_assert(!filter_is_well("a.>.b"));
    ck_assert(!filter_is_well("a.>b"));
}
END_TEST

START_TEST(a_filter_matches_token_by_token)
{
    ck_assert(kv_filter_matches("a.*.c", "a.b.c"));
    ck_assert(!kv_filter_matches("a.*.c", "a.b.d"));
    ck_assert(!kv_filter_matches("a.*", "a.b.c"));
    ck_assert(!kv_filter_matches("a.*", "a"));
    ck_assert(kv_filter_matches("a.>", "a.b.c"));
    ck_assert(!kv_filter_matches("a.>", "a"));
    ck_assert(kv_filter_matches(">", "a"));
    ck_assert(kv_filter_matches("abc", "abc"));
    ck_assert(!kv_filter_matches("abc", "abcd"));
    ck_assert(!kv_filter_matches("abcd", "abc"));
}
END_TEST

START_TEST(a_caller_cannot_set_the_servers_headers)
{
    ck_assert(kv_check_header("Trace-Id", "x y") == NULL);
    ck_assert(kv_check_header("Nats-Expected-Last-Msg-Id", "x") != NULL);
    ck_assert(kv_check_header("nats-msg-id", "x") != NULL);
    ck_assert(kv_check_header("KV-Operation", "DEL") != NULL);
    ck_assert(kv_check_header("Status", "404") != NULL);
    ck_assert(kv_check_header("", "x") != NULL);
    ck_assert(kv_check_header("a:b", "x") != NULL);
    ck_assert(kv_check_header("a", "x\r\nNats-Rollup: all") != NULL);
}
END_TEST

START_TEST(a_time_stamp_is_microseconds_since_the_epoch)
{
    ck_assert_int_eq(kv_parse_time_us("1970-01-01T00:00:00Z"), 0);
    ck_assert_int_eq(kv_parse_time_us("1970-01-01T00:00:01.5Z"), 1500000);
    ck_assert_int_eq(kv_parse_time_us("2026-11-23T18:38:51.195401863Z"), 1795459131195401);
    ck_assert_int_eq(kv_parse_time_us("2026-11-23 18:38:51Z"), -1);
    ck_assert_int_eq(kv_parse_time_us("2026-11-23T18:38:51+01:00"), -1);
    ck_assert_int_eq(kv_parse_time_us("soon"), -1);
}
END_TEST

static struct message ack_of(const char *payload)
{
    return (struct message){.payload = payload, .payload_bytes = strlen(payload)};
}

START_TEST(an_ack_has_sequence_duplicate_and_error)
{
    struct kv_ack ack;
    struct message message = ack_of("{\"stream\":\"KV_b\",\"seq\":12}");

    ck_assert(kv_read_ack(&message, &ack));
    ck_assert_uint_eq(ack.sequence, 12);
    ck_assert_uint_eq(ack.err_code, 0);

    message = ack_of("{\"stream\":\"KV_b\",\"seq\":12,\"duplicate\": true}");
    ck_assert(kv_read_ack(&message, &ack));
    ck_assert_uint_eq(ack.sequence, 12);
    ck_assert(ack.is_duplicate);

    message = ack_of("{\"stream\":\"KV_b\",\"seq\":30,\"batch\":\"x\",\"count\":7}");
    ck_assert(kv_read_ack(&message, &ack));
    ck_assert_uint_eq(ack.batch_count, 7);

    message =
        ack_of("{\"error\":{\"code\":400,\"err_code\":10071,\"description\":\"wrong last sequence: 1\"},\"seq\":0}");
    ck_assert(kv_read_ack(&message, &ack));
    ck_assert_uint_eq(ack.err_code, 10071);
    ck_assert_str_eq(ack.description, "wrong last sequence: 1");
}
END_TEST

START_TEST(other_messages_are_not_taken_for_acks)
{
    static const char *const wrong[] = {
        "",      "{}",  "{\"stream\":\"KV_b\",\"seq\":0}", "{\"stream\":\"KV_b\",\"seq\":",
        "hello", "[1]", "{\"stream\":\"KV_b\",\"seq\":12"};
    struct kv_ack ack;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct message message = ack_of(wrong[i]);
        ck_assert_msg(!kv_read_ack(&message, &ack), "%s", wrong[i]);
    }
}
END_TEST

START_TEST(a_deliverys_reply_subject_is_read_in_both_forms)
{
    struct message message = {.reply = "$JS.ACK.KV_b.c.1.30.3.1795461136642597371.7"};
    struct kv_delivery delivery;

    ck_assert(kv_read_delivery(&message, &delivery));
    ck_assert_uint_eq(delivery.stream_sequence, 30);
    ck_assert_uint_eq(delivery.consumer_sequence, 3);
    ck_assert_int_eq(delivery.created_us, 1795461136642597);
    ck_assert_uint_eq(delivery.pending, 7);

    message.reply = "$JS.ACK.hub.ACCOUNT.KV_b.c.1.30.3.1795461136642597371.7.random";
    ck_assert(kv_read_delivery(&message, &delivery));
    ck_assert_uint_eq(delivery.stream_sequence, 30);
    ck_assert_uint_eq(delivery.pending, 7);

    message.reply = "$JS.ACK.KV_b.c.1";
    ck_assert(!kv_read_delivery(&message, &delivery));
    message.reply = NULL;
    ck_assert(!kv_read_delivery(&message, &delivery));
}
END_TEST

static struct kv_entry read_with_header(const char *name, const char *value)
{
    static struct message_header header;
    static struct message message;
    struct kv_entry entry;

    header = (struct message_header){name, value};
    message = (struct message){.payload = "v", .payload_bytes = 1, .headers = &header, .header_count = 1};
    ck_assert(kv_read_entry(&message, "$KV.b.a.key", "$KV.b.", 5, 6, &entry));
    return entry;
}

START_TEST(an_entrys_operation_is_in_its_headers)
{
    ck_assert_int_eq(read_with_header("Other", "x").operation, KV_PUT);
    ck_assert_int_eq(read_with_header("KV-Operation", "DEL").operation, KV_DELETE);
    ck_assert_int_eq(read_with_header("KV-Operation", "PURGE").operation, KV_PURGE);
    ck_assert_int_eq(read_with_header("Nats-Marker-Reason", "MaxAge").operation, KV_PURGE);
    ck_assert_int_eq(read_with_header("Nats-Marker-Reason", "Purge").operation, KV_PURGE);
    ck_assert_int_eq(read_with_header("Nats-Marker-Reason", "Remove").operation, KV_DELETE);
    ck_assert_str_eq(read_with_header("Other", "x").key, "a.key");
}
END_TEST

START_TEST(a_message_of_another_bucket_is_no_entry)
{
    struct message message = {.payload = "v", .payload_bytes = 1};
    struct kv_entry entry;

    ck_assert(!kv_read_entry(&message, "$KV.bb.key", "$KV.b.", 5, 6, &entry));
}
END_TEST

START_TEST(a_marker_has_no_value_whatever_is_stored_with_it)
{
    struct message_header operation = {"KV-Operation", "DEL"};
    struct message message = {.headers = &operation, .header_count = 1, .payload = "body", .payload_bytes = 4};
    struct kv_entry entry;

    ck_assert(kv_read_entry(&message, "$KV.b.key", "$KV.b.", 5, 6, &entry));
    ck_assert_int_eq(entry.operation, KV_DELETE);
    ck_assert_uint_eq(entry.value_bytes, 0);
}
END_TEST

START_TEST(a_header_block_is_parsed_in_place)
{
    char block[] = "NATS/1.0\r\nNats-Msg-Id: x1\r\nTrace:y: z \r\nEmpty:\r\n\r\n";
    struct message_header headers[4];

    ck_assert_uint_eq(message_parse_headers(block, strlen(block), headers, 4), 3);
    ck_assert_str_eq(headers[0].name, "Nats-Msg-Id");
    ck_assert_str_eq(headers[0].value, "x1");
    ck_assert_str_eq(headers[1].name, "Trace");
    ck_assert_str_eq(headers[1].value, "y: z");
    ck_assert_str_eq(headers[2].value, "");
}
END_TEST

START_TEST(header_lines_of_other_clients_are_read_leniently)
{
    char block[] = "NATS/1.0\r\nFolded: one\r\n two\r\n\tthree: 3\r\nno colon\r\n: no name\r\nEmpty:\r\nLast: 1\n\r\n";
    struct message_header headers[8];

    ck_assert_uint_eq(message_parse_headers(block, strlen(block), headers, 8), 3);
    ck_assert_str_eq(headers[0].name, "Folded");
    ck_assert_str_eq(headers[0].value, "one   two  \tthree: 3");
    ck_assert_str_eq(headers[1].name, "Empty");
    ck_assert_str_eq(headers[1].value, "");
    ck_assert_str_eq(headers[2].value, "1");
}
END_TEST

START_TEST(an_incomplete_header_block_is_read_up_to_its_end)
{
    const char *whole = "NATS/1.0\r\nA: 1\r\nB: 2\r\n\r\n";
    struct message_header headers[4];

    for (size_t length = 0; length < strlen(whole); length++) {
        char *block = malloc(length + 1); /* of exactly that size, so that a sanitizer detects a read after it */
        memcpy(block, whole, length);
        ck_assert_uint_le(message_parse_headers(block, length, headers, 4), 2);
        free(block);
    }
}
END_TEST

Suite *kv_suite(void)
{
    Suite *suite = suite_create("kv");
    TCase *names = tcase_create("names"), *messages = tcase_create("messages");

    tcase_add_test(names, a_ttl_is_a_number_of_seconds_or_a_duration);
    tcase_add_test(names, a_key_has_the_characters_and_dots_that_nats_kv_allows);
    tcase_add_test(names, a_key_has_up_to_1024_characters);
    tcase_add_test(names, a_bucket_has_letters_digits_dash_and_underscore);
    tcase_add_test(names, a_filter_has_stars_for_tokens_and_a_final_greater);
    tcase_add_test(names, a_filter_matches_token_by_token);
    tcase_add_test(names, a_caller_cannot_set_the_servers_headers);
    suite_add_tcase(suite, names);
    tcase_add_test(messages, a_time_stamp_is_microseconds_since_the_epoch);
    tcase_add_test(messages, an_ack_has_sequence_duplicate_and_error);
    tcase_add_test(messages, other_messages_are_not_taken_for_acks);
    tcase_add_test(messages, a_deliverys_reply_subject_is_read_in_both_forms);
    tcase_add_test(messages, an_entrys_operation_is_in_its_headers);
    tcase_add_test(messages, a_message_of_another_bucket_is_no_entry);
    tcase_add_test(messages, a_marker_has_no_value_whatever_is_stored_with_it);
    tcase_add_test(messages, a_header_block_is_parsed_in_place);
    tcase_add_test(messages, header_lines_of_other_clients_are_read_leniently);
    tcase_add_test(messages, an_incomplete_header_block_is_read_up_to_its_end);
    suite_add_tcase(suite, messages);
    return suite;
}
