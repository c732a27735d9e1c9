/* decode and msgpack-c's own unpacker make the same objects of the same bytes, and refuse the same bytes. */
#include "proto/decode.h"
#include "proto/frame.h"
#include "tests/unit/same_object.h"
#include "tests/unit/suites.h"

#include <check.h>
#include <stdlib.h>

static msgpack_zone zone;
static msgpack_sbuffer buffer;
static msgpack_packer packer;

static void set_up(void)
{
    ck_assert(msgpack_zone_init(&zone, 8192));
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
}

static void tear_down(void)
{
    msgpack_sbuffer_destroy(&buffer);
    msgpack_zone_destroy(&zone);
}

/* In memory of exactly that size: a sanitizer detects reads after it. */
static enum decode_result decode_exactly(const char *bytes, size_t size, msgpack_object *object)
{
    static char *block;

    free(block);
    block = malloc(size > 0 ? size : 1);
    memcpy(block, bytes, size);
    return decode_value(block, size, &zone, object);
}

static void expect_same(const char *bytes, size_t size)
{
    msgpack_object ours, theirs;
    size_t offset = 0;

    ck_assert_int_eq(msgpack_unpack(bytes, size, &offset, &zone, &theirs), MSGPACK_UNPACK_SUCCESS);
    ck_assert_int_eq(decode_exactly(bytes, size, &ours), DECODE_DONE);
    ck_assert_msg(same_object(&ours, &theirs), "another object for 0x%02x…", (unsigned)(unsigned char)bytes[0]);
}

static void expect_malformed(const char *bytes, size_t size)
{
    msgpack_object object;

    ck_assert_int_eq(decode_exactly(bytes, size, &object), DECODE_MALFORMED);
}

START_TEST(every_first_byte_is_read_as_msgpack_c_does)
{
    /* Enough bytes after it for each: numbers, lengths of 1 and types of 1. */
    char bytes[64];

    for (unsigned first = 0; first <= 0xff; first++) {
        msgpack_object object;
        size_t offset = 0;
        memset(bytes, 0, sizeof(bytes));
        bytes[0] = (char)first;
        for (size_t size = 1; size < sizeof(bytes); size++) {
            offset = 0;
            msgpack_unpack_return theirs = msgpack_unpack(bytes, size, &offset, &zone, &object);
            if (theirs == MSGPACK_UNPACK_SUCCESS)
                expect_same(bytes, size);
            else
                expect_malformed(bytes, size);
        }
    }
}
END_TEST

START_TEST(numbers_of_every_width_and_sign_are_the_same)
{
    static const uint64_t edges[] = {0, 1, 0x1f, 0x20, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000};

    for (unsigned format = 0xca; format <= 0xd3; format++) {
        unsigned width = format < 0xcc ? 4u << (format - 0xca) : 1u << ((format - 0xcc) & 3);
        for (unsigned edge = 0; edge < 4 * sizeof(edges) / sizeof(edges[0]); edge++) {
            uint64_t value = edges[edge / 4];
            char bytes[9] = {(char)format};
            if (edge % 4 > 0)
                value = edge % 4 == 1 ? ~value : value << (edge % 4 == 2 ? 16 : 47);
            for (unsigned i = 0; i < width; i++)
                bytes[1 + i] = (char)(value >> (8 * (width - 1 - i)));
            expect_same(bytes, 1 + width);
        }
    }
}
END_TEST

START_TEST(strings_of_every_length_class_are_the_same)
{
    static const size_t lengths[] = {0, 1, 31, 32, 255, 256, 65535, 65536};
    char *body = calloc(1, 65536);

    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        for (unsigned kind = 0; kind < 3; kind++) {
            msgpack_sbuffer_clear(&buffer);
            if (kind == 0)
                msgpack_pack_str_with_body(&packer, body, lengths[i]);
            else if (kind == 1)
                msgpack_pack_bin_with_body(&packer, body, lengths[i]);
            else
                msgpack_pack_ext_with_body(&packer, body, lengths[i], -7);
            expect_same(buffer.data, buffer.size);
            expect_malformed(buffer.data, buffer.size - 1);
        }
    }
    free(body);
}
END_TEST

START_TEST(containers_of_every_length_class_are_the_same)
{
    static const size_t counts[] = {0, 1, 15, 16, 65535, 65536};

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        for (unsigned is_map = 0; is_map <= 1; is_map++) {
            msgpack_sbuffer_clear(&buffer);
            if (is_map)
                msgpack_pack_map(&packer, counts[i]);
            else
                msgpack_pack_array(&packer, counts[i]);
            for (size_t j = 0; j < counts[i] << is_map; j++)
                msgpack_pack_uint64(&packer, j);
            expect_same(buffer.data, buffer.size);
            if (counts[i] > 0)
                expect_malformed(buffer.data, buffer.size - 1);
        }
    }
}
END_TEST

START_TEST(a_value_of_the_greatest_depth_is_read_and_a_deeper_one_is_not)
{
    char bytes[FRAME_DEPTH_MAX + 2];

    memset(bytes, 0x91, sizeof(bytes));
    bytes[FRAME_DEPTH_MAX - 1] = (char)0x90;
    msgpack_object object;
    ck_assert_int_eq(decode_exactly(bytes, FRAME_DEPTH_MAX, &object), DECODE_DONE);
    bytes[FRAME_DEPTH_MAX - 1] = (char)0x91;
    bytes[FRAME_DEPTH_MAX] = (char)0x90;
    expect_malformed(bytes, FRAME_DEPTH_MAX + 1);
}
END_TEST

START_TEST(a_count_that_cannot_be_reserves_nothing)
{
    expect_malformed("\xdd\xff\xff\xff\xff", 5);
    expect_malformed("\xdf\xff\xff\xff\xff", 5);
    expect_malformed("\xdb\xff\xff\xff\xff", 5);
}
END_TEST

START_TEST(bytes_after_the_value_are_not_part_of_it)
{
    expect_malformed("\x01\x02", 2);
    expect_malformed("", 0);
}
END_TEST

Suite *decode_suite(void)
{
    Suite *suite = suite_create("decode");
    TCase *tests = tcase_create("decode");

    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, every_first_byte_is_read_as_msgpack_c_does);
    tcase_add_test(tests, numbers_of_every_width_and_sign_are_the_same);
    tcase_add_test(tests, strings_of_every_length_class_are_the_same);
    tcase_add_test(tests, containers_of_every_length_class_are_the_same);
    tcase_add_test(tests, a_value_of_the_greatest_depth_is_read_and_a_deeper_one_is_not);
    tcase_add_test(tests, a_count_that_cannot_be_reserves_nothing);
    tcase_add_test(tests, bytes_after_the_value_are_not_part_of_it);
    suite_add_tcase(suite, tests);
    return suite;
}
