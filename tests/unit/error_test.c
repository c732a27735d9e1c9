#include "proto/error.h"
#include "tests/unit/suites.h"

#include <stdio.h>
#include <string.h>

/* Pack an error and unpack it into an object that lives in zone, with its bytes in buffer. */
static msgpack_object pack_and_decode(const struct error *error, msgpack_sbuffer *buffer, msgpack_zone *zone)
{
    msgpack_packer packer;
    msgpack_object object;
    size_t offset = 0;

    msgpack_sbuffer_init(buffer);
    msgpack_packer_init(&packer, buffer, msgpack_sbuffer_write);
    error_pack(error, &packer);
    msgpack_zone_init(zone, 1024);
    ck_assert_int_eq(msgpack_unpack(buffer->data, buffer->size, &offset, zone, &object), MSGPACK_UNPACK_SUCCESS);
    return object;
}

static bool is_whole_utf8(const char *text)
{
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0';) {
        unsigned follow = *at >= 0xf0 ? 3 : *at >= 0xe0 ? 2 : *at >= 0xc0 ? 1 : 0;

        if ((*at++ & 0xc0) == 0x80)
            return false;
        for (; follow > 0; follow--) {
            if ((*at++ & 0xc0) != 0x80)
                return false;
        }
    }
    return true;
}

START_TEST(every_code_has_a_name_that_leads_back_to_it)
{
    for (unsigned code = ERROR_NONE + 1; code < ERROR_CODE_COUNT; code++) {
        const char *name = error_code_name((enum error_code)code);

        ck_assert_uint_eq(error_code_from_name(name, strlen(name)), code);
    }
}
END_TEST

START_TEST(the_names_are_those_of_the_protocol)
{
    static const char *const names[] = {
        "invalid_argument", "bucket_not_found",  "already_exists", "conflict",
        "too_large",        "permission_denied", "unsupported",    "resource_exhausted",
        "unavailable",      "deadline_exceeded", "revision_gone",  "locked",
        "not_held",         "not_an_integer",    "out_of_range",   "internal",
    };

    ck_assert_uint_eq(sizeof(names) / sizeof(names[0]), ERROR_CODE_COUNT - 1);
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        ck_assert_str_eq(error_code_name((enum error_code)(i + 1)), names[i]);
}
END_TEST

START_TEST(a_code_of_a_later_version_is_an_internal_error)
{
    ck_assert_int_eq(error_code_from_name("quota_exceeded", 14), ERROR_INTERNAL);
    ck_assert_int_eq(error_code_from_name("conflicts", 9), ERROR_INTERNAL);
    ck_assert_int_eq(error_code_from_name("conflic", 7), ERROR_INTERNAL);
    ck_assert_int_eq(error_code_from_name("", 0), ERROR_INTERNAL);
    ck_assert_int_eq(error_code_from_name("none", 4), ERROR_INTERNAL); /* a failure is never none */
    ck_assert_str_eq(error_code_name((enum error_code)ERROR_CODE_COUNT), "internal");
}
END_TEST

START_TEST(only_temporary_errors_are_retryable)
{
    for (unsigned code = ERROR_NONE + 1; code < ERROR_CODE_COUNT; code++) {
        struct error error;

        error_set(&error, (enum error_code)code, "sentence");
        ck_assert_int_eq(error.retryable, code == ERROR_UNAVAILABLE || code == ERROR_DEADLINE_EXCEEDED ||
                                              code == ERROR_RESOURCE_EXHAUSTED);
    }
}
END_TEST

START_TEST(setting_an_error_replaces_the_one_before)
{
    struct error error;

    memset(&error, 0xff, sizeof(error));
    error_set(&error, ERROR_CONFLICT, "key %s has moved on", "a.b");
    ck_assert_str_eq(error.message, "key a.b has moved on");
    ck_assert(!error.has_revision && !error.retryable);
    ck_assert_ptr_null(error.bucket);
    ck_assert_ptr_null(error.key);
    ck_assert_int_eq(error.outcome, ERROR_OUTCOME_ABSENT);
}
END_TEST

START_TEST(a_long_message_is_cut_between_characters)
{
    static const char *const characters[] = {"x", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x94\x91"};

    for (size_t i = 0; i < sizeof(characters) / sizeof(characters[0]); i++) {
        for (int shift = 0; shift < 4; shift++) {
            char text[600] = "";
            struct error error;

            while (strlen(text) < 500)
                strcat(text, characters[i]);
            error_set(&error, ERROR_INTERNAL, "%.*s%s", shift, "abc", text);
            ck_assert_msg(is_whole_utf8(error.message), "%s is cut", error.message);
            ck_assert_uint_gt(strlen(error.message) + strlen(characters[i]), ERROR_MESSAGE_BYTES - 1);
        }
    }
}
END_TEST

START_TEST(a_message_that_just_fits_is_whole)
{
    char text[ERROR_MESSAGE_BYTES];
    struct error error;

    memset(text, 'x', sizeof(text) - 1);
    memcpy(text + sizeof(text) - 3, "\xc3\xa9", 3);
    error_set(&error, ERROR_INTERNAL, "%s", text);
    ck_assert_str_eq(error.message, text);
}
END_TEST

START_TEST(an_error_is_unchanged_after_packing_and_unpacking)
{
    struct error sent, got;
    msgpack_sbuffer buffer;
    msgpack_zone zone;
    size_t bucket_length = 0, key_length = 0;

    error_set(&sent, ERROR_DEADLINE_EXCEEDED, "the time ran out");
    sent.bucket = "settings";
    sent.key = "a.key";
    sent.has_revision = true;
    sent.revision = UINT64_MAX;
    sent.outcome = ERROR_OUTCOME_UNKNOWN;
    msgpack_object object = pack_and_decode(&sent, &buffer, &zone);
    ck_assert(error_unpack(&object, &got, &bucket_length, &key_length));

    ck_assert_int_eq(got.code, ERROR_DEADLINE_EXCEEDED);
    ck_assert_str_eq(got.message, "the time ran out");
    ck_assert(got.retryable && got.has_revision);
    ck_assert_uint_eq(got.revision, UINT64_MAX);
    ck_assert_int_eq(got.outcome, ERROR_OUTCOME_UNKNOWN);
    ck_assert_uint_eq(bucket_length, 8);
    ck_assert_mem_eq(got.bucket, "settings", 8);
    ck_assert_uint_eq(key_length, 5);
    ck_assert_mem_eq(got.key, "a.key", 5);
    msgpack_zone_destroy(&zone);
    msgpack_sbuffer_destroy(&buffer);
}
END_TEST

START_TEST(members_that_do_not_apply_are_not_packed)
{
    struct error sent, got;
    msgpack_sbuffer buffer;
    msgpack_zone zone;

    error_set(&sent, ERROR_CONFLICT, "the key has moved on");
    msgpack_object object = pack_and_decode(&sent, &buffer, &zone);
    ck_assert_uint_eq(object.via.map.size, 3);
    ck_assert(error_unpack(&object, &got, NULL, NULL));
    ck_assert(!got.has_revision && !got.retryable);
    ck_assert_ptr_null(got.bucket);
    ck_assert_ptr_null(got.key);
    ck_assert_int_eq(got.outcome, ERROR_OUTCOME_ABSENT);
    msgpack_zone_destroy(&zone);
    msgpack_sbuffer_destroy(&buffer);

    sent.outcome = ERROR_OUTCOME_NONE;
    object = pack_and_decode(&sent, &buffer, &zone);
    ck_assert(error_unpack(&object, &got, NULL, NULL));
    ck_assert_int_eq(got.outcome, ERROR_OUTCOME_NONE);
    msgpack_zone_destroy(&zone);
    msgpack_sbuffer_destroy(&buffer);
}
END_TEST

/* Unpack the bytes of an error map, as another version or a faulty program may send it. */
static bool unpack_bytes(const char *bytes, size_t length, struct error *error)
{
    msgpack_zone zone;
    msgpack_object object;
    size_t offset = 0;

    msgpack_zone_init(&zone, 1024);
    ck_assert_int_eq(msgpack_unpack(bytes, length, &offset, &zone, &object), MSGPACK_UNPACK_SUCCESS);
    bool is_error = error_unpack(&object, error, NULL, NULL);
    msgpack_zone_destroy(&zone);
    return is_error;
}

START_TEST(an_empty_text_is_a_text)
{
    /* {"code": "", "message": "", "bucket": "", "key": ""} */
    static const char bytes[] = "\x84\xa4"
                                "code\xa0\xa7message\xa0\xa6"
                                "bucket\xa0\xa3key\xa0";
    struct error error;

    ck_assert(unpack_bytes(bytes, sizeof(bytes) - 1, &error));
    ck_assert_int_eq(error.code, ERROR_INTERNAL);
    ck_assert_str_eq(error.message, "");
    ck_assert_ptr_nonnull(error.bucket);
    ck_assert_ptr_nonnull(error.key);
}
END_TEST

START_TEST(members_that_are_unknown_or_of_another_type_are_ignored)
{
    /* {"code": "conflict", "message": 5, 7: 8, "later": [1], "revision": -1, "retryable": nil} */
    static const char bytes[] = "\x86\xa4"
                                "code\xa8"
                                "conflict\xa7message\x05\x07\x08\xa5"
                                "later\x91\x01\xa8revision\xff\xa9retryable\xc0";
    struct error error;

    ck_assert(unpack_bytes(bytes, sizeof(bytes) - 1, &error));
    ck_assert_int_eq(error.code, ERROR_CONFLICT);
    ck_assert_str_eq(error.message, "");
    ck_assert(!error.has_revision && !error.retryable);
}
END_TEST

START_TEST(a_value_that_is_not_an_error_map_is_recognised)
{
    struct error error;

    ck_assert(!unpack_bytes("\xa4oops", 5, &error));
    ck_assert(!unpack_bytes("\xc0", 1, &error));
    ck_assert(!unpack_bytes("\x80", 1, &error));
    ck_assert(!unpack_bytes("\x81\xa7message\xa1x", 11, &error));
    ck_assert(!unpack_bytes("\x81\xa4"
                            "code\x05",
                            7, &error));
}
END_TEST

START_TEST(a_strangers_long_message_is_cut_between_characters)
{
    for (size_t shift = 0; shift < 3; shift++) {
        msgpack_sbuffer buffer;
        msgpack_packer packer;
        struct error error;
        char text[301];

        for (size_t i = 0; i < 300; i++)
            text[i] = "\xe2\x82\xac"[i % 3];
        memset(text, 'x', 3);
        msgpack_sbuffer_init(&buffer);
        msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
        msgpack_pack_map(&packer, 2);
        msgpack_pack_str_with_body(&packer, "code", 4);
        msgpack_pack_str_with_body(&packer, "internal", 8);
        msgpack_pack_str_with_body(&packer, "message", 7);
        msgpack_pack_str_with_body(&packer, text + shift, 300 - shift);
        ck_assert(unpack_bytes(buffer.data, buffer.size, &error));
        ck_assert(is_whole_utf8(error.message));
        ck_assert_uint_ge(strlen(error.message), ERROR_MESSAGE_BYTES - 3);
        msgpack_sbuffer_destroy(&buffer);
    }
}
END_TEST

START_TEST(an_error_as_text_has_its_code_message_and_outcome)
{
    static const struct {
        enum error_outcome outcome;
        const char *ending;
    } cases[] = {{ERROR_OUTCOME_ABSENT, ""},
                 {ERROR_OUTCOME_NONE, " (outcome: none)"},
                 {ERROR_OUTCOME_UNKNOWN, " (outcome: unknown)"}};
    char message[ERROR_MESSAGE_BYTES], wanted[ERROR_MESSAGE_BYTES + 100];

    memset(message, 'm', sizeof(message) - 1);
    message[sizeof(message) - 1] = '\0';
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error error;
        msgpack_sbuffer buffer;
        msgpack_packer packer;
        msgpack_unpacked unpacked;
        size_t offset = 0;
        error_set(&error, ERROR_RESOURCE_EXHAUSTED, "%s", message);
        error.outcome = cases[i].outcome;
        msgpack_sbuffer_init(&buffer);
        msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
        error_pack_text(&error, &packer);
        msgpack_unpacked_init(&unpacked);
        ck_assert_int_eq(msgpack_unpack_next(&unpacked, buffer.data, buffer.size, &offset), MSGPACK_UNPACK_SUCCESS);
        ck_assert_int_eq(unpacked.data.type, MSGPACK_OBJECT_STR);
        size_t length = (size_t)snprintf(wanted, sizeof(wanted), "resource_exhausted: %s%s", message, cases[i].ending);
        ck_assert_uint_eq(unpacked.data.via.str.size, length);
        ck_assert_mem_eq(unpacked.data.via.str.ptr, wanted, length);
        msgpack_unpacked_destroy(&unpacked);
        msgpack_sbuffer_destroy(&buffer);
    }
}
END_TEST

Suite *error_suite(void)
{
    Suite *suite = suite_create("error");
    TCase *codes = tcase_create("codes");
    TCase *messages = tcase_create("messages");
    TCase *wire = tcase_create("wire");

    tcase_add_test(codes, every_code_has_a_name_that_leads_back_to_it);
    tcase_add_test(codes, the_names_are_those_of_the_protocol);
    tcase_add_test(codes, a_code_of_a_later_version_is_an_internal_error);
    tcase_add_test(codes, only_temporary_errors_are_retryable);
    suite_add_tcase(suite, codes);
    tcase_add_test(messages, setting_an_error_replaces_the_one_before);
    tcase_add_test(messages, a_long_message_is_cut_between_characters);
    tcase_add_test(messages, a_message_that_just_fits_is_whole);
    suite_add_tcase(suite, messages);
    tcase_add_test(wire, an_error_is_unchanged_after_packing_and_unpacking);
    tcase_add_test(wire, members_that_do_not_apply_are_not_packed);
    tcase_add_test(wire, an_empty_text_is_a_text);
    tcase_add_test(wire, members_that_are_unknown_or_of_another_type_are_ignored);
    tcase_add_test(wire, a_value_that_is_not_an_error_map_is_recognised);
    tcase_add_test(wire, a_strangers_long_message_is_cut_between_characters);
    tcase_add_test(wire, an_error_as_text_has_its_code_message_and_outcome);
    suite_add_tcase(suite, wire);
    return suite;
}
