#include "proto/frame.h"
#include "proto/rpc.h"
#include "tests/unit/suites.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Msgids at the edges of every form that an integer takes. */
static const uint32_t msgids[] = {0, 1, 127, 128, 255, 256, 65535, 65536, 0x7fffffff, UINT32_MAX};
#define MSGIDS (sizeof(msgids) / sizeof(msgids[0]))

static msgpack_zone zone;
static msgpack_sbuffer buffer;
static msgpack_packer packer;

static void set_up(void)
{
    msgpack_zone_init(&zone, 4096);
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
}

static void tear_down(void)
{
    msgpack_sbuffer_destroy(&buffer);
    msgpack_zone_destroy(&zone);
}

static bool is_method(const struct rpc_message *message, const char *name)
{
    return message->method_length == strlen(name) && memcmp(message->method, name, strlen(name)) == 0;
}

START_TEST(a_request_arrives_as_it_was_packed)
{
    for (size_t i = 0; i < MSGIDS; i++) {
        struct rpc_message message;

        msgpack_sbuffer_clear(&buffer);
        rpc_pack_request(&packer, msgids[i], "kv.get");
        msgpack_pack_array(&packer, 1);
        msgpack_pack_str_with_body(&packer, "settings", 8);
        ck_assert_ptr_null(rpc_decode(buffer.data, buffer.size, &zone, &message));
        ck_assert_int_eq(message.type, RPC_REQUEST);
        ck_assert(message.has_msgid);
        ck_assert_uint_eq(message.msgid, msgids[i]);
        ck_assert(is_method(&message, "kv.get"));
        ck_assert_uint_eq(message.params.via.array.size, 1);
        ck_assert_mem_eq(message.params.via.array.ptr[0].via.str.ptr, "settings", 8);
    }
}
END_TEST

START_TEST(a_result_arrives_as_it_was_packed)
{
    for (size_t i = 0; i < MSGIDS; i++) {
        struct rpc_message message;

        msgpack_sbuffer_clear(&buffer);
        rpc_pack_result(&packer, msgids[i]);
        msgpack_pack_uint64(&packer, 42);
        ck_assert_ptr_null(rpc_decode(buffer.data, buffer.size, &zone, &message));
        ck_assert_int_eq(message.type, RPC_RESPONSE);
        ck_assert(message.has_msgid);
        ck_assert_uint_eq(message.msgid, msgids[i]);
        ck_assert_int_eq(message.error.type, MSGPACK_OBJECT_NIL);
        ck_assert_uint_eq(message.result.via.u64, 42);
    }
}
END_TEST

START_TEST(an_error_arrives_with_its_msgid_or_with_none)
{
    struct rpc_message message;
    struct error sent, got;
    const uint32_t msgid = 70000;

    error_set(&sent, ERROR_CONFLICT, "the key has moved on");
    rpc_pack_error(&packer, &msgid, &sent);
    ck_assert_ptr_null(rpc_decode(buffer.data, buffer.size, &zone, &message));
    ck_assert(message.has_msgid);
    ck_assert_uint_eq(message.msgid, msgid);
    ck_assert(error_unpack(&message.error, &got, NULL, NULL));
    ck_assert_int_eq(got.code, ERROR_CONFLICT);
    ck_assert_int_eq(message.result.type, MSGPACK_OBJECT_NIL);

    msgpack_sbuffer_clear(&buffer);
    rpc_pack_error(&packer, NULL, &sent);
    ck_assert_ptr_null(rpc_decode(buffer.data, buffer.size, &zone, &message));
    ck_assert_int_eq(message.type, RPC_RESPONSE);
    ck_assert(!message.has_msgid);
    ck_assert(error_unpack(&message.error, &got, NULL, NULL));
}
END_TEST

START_TEST(a_notification_arrives_as_it_was_packed)
{
    struct rpc_message message;

    rpc_pack_notification(&packer, "watch.ready");
    msgpack_pack_array(&packer, 1);
    msgpack_pack_uint8(&packer, 3);
    ck_assert_ptr_null(rpc_decode(buffer.data, buffer.size, &zone, &message));
    ck_assert_int_eq(message.type, RPC_NOTIFICATION);
    ck_assert(!message.has_msgid);
    ck_assert(is_method(&message, "watch.ready"));
    ck_assert_uint_eq(message.params.via.array.ptr[0].via.u64, 3);
}
END_TEST

START_TEST(a_method_may_be_str_or_bin)
{
    struct rpc_message message;

    ck_assert_ptr_null(rpc_decode("\x94\x00\x05\xc4\x02kv\x90", 8, &zone, &message));
    ck_assert(is_method(&message, "kv"));
}
END_TEST

START_TEST(an_empty_string_has_a_pointer_like_any_other)
{
    struct rpc_message message;

    /* [0, 5, "", ["", [""], {"": ""}]] */
    ck_assert_ptr_null(rpc_decode("\x94\x00\x05\xa0\x93\xa0\x91\xa0\x81\xa0\xa0", 11, &zone, &message));
    ck_assert_uint_eq(message.method_length, 0);
    ck_assert_ptr_nonnull(message.method);
    const msgpack_object *params = message.params.via.array.ptr;
    ck_assert_ptr_nonnull(params[0].via.str.ptr);
    ck_assert_ptr_nonnull(params[1].via.array.ptr[0].via.str.ptr);
    ck_assert_ptr_nonnull(params[2].via.map.ptr[0].key.via.str.ptr);
    ck_assert_ptr_nonnull(params[2].via.map.ptr[0].val.via.str.ptr);
}
END_TEST

START_TEST(decoding_copies_no_body)
{
    struct rpc_message message;

    rpc_pack_request(&packer, 1, "kv.put");
    msgpack_pack_array(&packer, 1);
    msgpack_pack_bin(&packer, 1000);
    char body[1000] = {0};
    msgpack_pack_bin_body(&packer, body, sizeof(body));
    ck_assert_ptr_null(rpc_decode(buffer.data, buffer.size, &zone, &message));
    ck_assert(message.method > buffer.data && message.method < buffer.data + buffer.size);
    ck_assert_ptr_eq(message.params.via.array.ptr[0].via.bin.ptr, buffer.data + buffer.size - 1000);
}
END_TEST

START_TEST(the_deepest_message_that_frame_lets_through_is_decoded)
{
    const struct frame_limits limits = {.size_bytes = 4096, .elements = 4096, .depth = FRAME_DEPTH_MAX};
    struct frame frame;
    struct rpc_message message;

    /* The envelope is the first level, params the second. */
    rpc_pack_request(&packer, 1, "m");
    for (unsigned depth = 2; depth <= FRAME_DEPTH_MAX; depth++)
        msgpack_pack_array(&packer, depth == FRAME_DEPTH_MAX ? 0 : 1);
    frame_init(&frame, &limits);
    ck_assert_int_eq(frame_scan(&frame, (const uint8_t *)buffer.data, buffer.size), FRAME_COMPLETE);
    const char *wrong = rpc_decode(buffer.data, buffer.size, &zone, &message);
    ck_assert_msg(wrong == NULL, "%s", wrong);
}
END_TEST

START_TEST(a_wrong_envelope_is_named_and_its_msgid_kept_where_it_can_be_read)
{
    static const struct {
        const char *bytes;
        size_t length;
        bool has_msgid;
        const char *sentence; /* a part of it */
    } wrong[] = {
        {"\xc0", 1, false, "must be an array"},
        {"\x90", 1, false, "must be an array"},
        {"\x81\x00\x01", 3, false, "must be an array"},
        {"\x94\x03\x05\xa1m\x90", 6, false, "type"},
        {"\x94\xff\x05\xa1m\x90", 6, false, "type"},
        {"\x94\xa1\x30\x05\xa1m\x90", 7, false, "type"},
        {"\x91\x00", 2, false, "4 elements"},
        {"\x92\x00\x05", 3, true, "4 elements"},
        {"\x93\x00\x05\xa1m", 5, true, "4 elements"},
        {"\x95\x00\x05\xa1m\x90\xc0", 7, true, "4 elements"},
        {"\x94\x00\xff\xa1m\x90", 6, false, "msgid"},
        {"\x94\x00\xc0\xa1m\x90", 6, false, "msgid"},
        {"\x94\x00\xa1"
         "1\xa1m\x90",
         7, false, "msgid"},
        {"\x94\x00\xcf\0\0\0\x01\0\0\0\0\xa1m\x90", 14, false, "msgid"}, /* 2^32 */
        {"\x94\x00\x05\x06\x90", 5, true, "method"},
        {"\x94\x00\x05\xa1m\x81\x01\x02", 8, true, "params"},
        {"\x94\x00\x05\xa1m\xa0", 6, true, "params"},
        {"\x94\x02\x05\xa1m\x90", 6, false, "notification"},
        {"\x93\x02\x06\x90", 4, false, "method"},
        {"\x93\x02\xa1m\x01", 5, false, "params"},
        {"\x93\x01\x05\xc0", 4, true, "4 elements"},
        {"\x94\x00\x05", 3, false, "not MessagePack"}, /* cut */
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct rpc_message message;
        const char *sentence = rpc_decode(wrong[i].bytes, wrong[i].length, &zone, &message);

        ck_assert_msg(sentence != NULL, "case %zu passes", i);
        ck_assert_msg(strstr(sentence, wrong[i].sentence) != NULL, "case %zu: %s", i, sentence);
        ck_assert_msg(message.has_msgid == wrong[i].has_msgid, "case %zu: %s", i, sentence);
        if (message.has_msgid)
            ck_assert_uint_eq(message.msgid, 5);
    }
}
END_TEST

START_TEST(nil_and_an_empty_map_are_no_params)
{
    static const char *const requests[] = {"\x94\x00\x05\xa1m\xc0", "\x94\x00\x05\xa1m\x80", "\x94\x00\x05\xa1m\x90"};

    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        struct rpc_message message;
        ck_assert_ptr_null(rpc_decode(requests[i], 6, &zone, &message));
        ck_assert_int_eq(message.params.type, MSGPACK_OBJECT_ARRAY);
        ck_assert_uint_eq(message.params.via.array.size, 0);
    }
}
END_TEST

START_TEST(a_msgid_is_read_from_a_request_as_soon_as_it_is_complete)
{
    for (size_t i = 0; i < MSGIDS; i++) {
        size_t there = msgids[i] <= 0x7f ? 3 : msgids[i] <= 0xff ? 4 : msgids[i] <= 0xffff ? 5 : 7;

        msgpack_sbuffer_clear(&buffer);
        rpc_pack_request(&packer, msgids[i], "kv.put");
        for (size_t length = 0; length <= buffer.size; length++) {
            uint32_t msgid = 0xabadcafe;
            /* Of exactly its size, so that AddressSanitizer detects reads after it. */
            uint8_t *prefix = malloc(length > 0 ? length : 1);

            memcpy(prefix, buffer.data, length);
            ck_assert_int_eq(rpc_peek_msgid(prefix, length, &msgid), length >= there);
            ck_assert_uint_eq(msgid, length >= there ? msgids[i] : 0xabadcafe);
            free(prefix);
        }
    }
}
END_TEST

START_TEST(no_msgid_is_read_from_other_messages)
{
    uint32_t msgid;

    ck_assert(!rpc_peek_msgid((const uint8_t *)"\x94\x01\x05\xc0\xc0", 5, &msgid));  /* a response */
    ck_assert(!rpc_peek_msgid((const uint8_t *)"\x93\x02\xa1m\x90", 5, &msgid));     /* a notification */
    ck_assert(!rpc_peek_msgid((const uint8_t *)"\x93\x00\x05\xa1m", 5, &msgid));     /* three elements */
    ck_assert(!rpc_peek_msgid((const uint8_t *)"\x94\x00\xff\xa1m\x90", 6, &msgid)); /* -1 */
    ck_assert(!rpc_peek_msgid((const uint8_t *)"\x94\x00\xa1x\xa1m\x90", 7, &msgid));
    ck_assert(!rpc_peek_msgid((const uint8_t *)"GET / HTTP/1.1\r\n", 16, &msgid));
}
END_TEST

/* Read the next block of hex in the protocol's page. Its lines have bytes, two blanks, an explanation. */
static size_t read_hex_block(FILE *page, uint8_t *bytes, size_t size)
{
    char line[512];
    size_t length = 0;

    do
        ck_assert_ptr_nonnull(fgets(line, sizeof(line), page));
    while (strcmp(line, "```hex\n") != 0);
    while (fgets(line, sizeof(line), page) != NULL && strcmp(line, "```\n") != 0) {
        unsigned byte;

        for (const char *at = line; sscanf(at, "%2x", &byte) == 1 && length < size; at += 3) {
            bytes[length++] = (uint8_t)byte;
            if (at[2] != ' ' || at[3] == ' ')
                break;
        }
    }
    return length;
}

static void pack_text(const char *text)
{
    msgpack_pack_str_with_body(&packer, text, strlen(text));
}

static void check_block(FILE *page)
{
    uint8_t bytes[512];

    ck_assert_uint_eq(read_hex_block(page, bytes, sizeof(bytes)), buffer.size);
    ck_assert_mem_eq(bytes, buffer.data, buffer.size);
    msgpack_sbuffer_clear(&buffer);
}

START_TEST(the_examples_of_the_page_are_the_bytes_that_are_sent)
{
    FILE *page = fopen("proto/protocol.md", "re");
    const uint32_t msgid = 2;
    struct error error;

    ck_assert_msg(page != NULL, "run the tests at the root of the tree");
    rpc_pack_request(&packer, 1, "kv.get");
    msgpack_pack_array(&packer, 2);
    pack_text("settings");
    pack_text("color");
    check_block(page);

    rpc_pack_result(&packer, 1);
    msgpack_pack_map(&packer, 5);
    pack_text("key");
    pack_text("color");
    pack_text("value");
    msgpack_pack_bin_with_body(&packer, "blue", 4);
    pack_text("revision");
    msgpack_pack_uint64(&packer, 7);
    pack_text("created");
    msgpack_pack_int64(&packer, 1767225600000000);
    pack_text("operation");
    pack_text("put");
    check_block(page);

    error_set(&error, ERROR_CONFLICT, "the key is at revision 7, not 3; get it and try again");
    error.bucket = "settings";
    error.key = "color";
    error.has_revision = true;
    error.revision = 7;
    rpc_pack_error(&packer, &msgid, &error);
    check_block(page);
    fclose(page);
}
END_TEST

Suite *rpc_suite(void)
{
    Suite *suite = suite_create("rpc");
    TCase *decode = tcase_create("decode");
    TCase *peek = tcase_create("peek");
    TCase *page = tcase_create("page");

    tcase_add_checked_fixture(decode, set_up, tear_down);
    tcase_add_test(decode, a_request_arrives_as_it_was_packed);
    tcase_add_test(decode, a_result_arrives_as_it_was_packed);
    tcase_add_test(decode, an_error_arrives_with_its_msgid_or_with_none);
    tcase_add_test(decode, a_notification_arrives_as_it_was_packed);
    tcase_add_test(decode, a_method_may_be_str_or_bin);
    tcase_add_test(decode, an_empty_string_has_a_pointer_like_any_other);
    tcase_add_test(decode, decoding_copies_no_body);
    tcase_add_test(decode, the_deepest_message_that_frame_lets_through_is_decoded);
    tcase_add_test(decode, nil_and_an_empty_map_are_no_params);
    tcase_add_test(decode, a_wrong_envelope_is_named_and_its_msgid_kept_where_it_can_be_read);
    suite_add_tcase(suite, decode);
    tcase_add_checked_fixture(peek, set_up, tear_down);
    tcase_add_test(peek, a_msgid_is_read_from_a_request_as_soon_as_it_is_complete);
    tcase_add_test(peek, no_msgid_is_read_from_other_messages);
    suite_add_tcase(suite, peek);
    tcase_add_checked_fixture(page, set_up, tear_down);
    tcase_add_test(page, the_examples_of_the_page_are_the_bytes_that_are_sent);
    suite_add_tcase(suite, page);
    return suite;
}
