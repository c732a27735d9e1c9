#include "proto/frame.h"
#include "tests/unit/suites.h"

#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#define RANDOM_VALUES 3000u

static const struct frame_limits wide = {.size_bytes = SIZE_MAX, .elements = UINT32_MAX, .depth = FRAME_DEPTH_MAX};

static enum frame_status scan_whole(struct frame *frame, const struct frame_limits *limits, const void *bytes,
                                    size_t length)
{
    frame_init(frame, limits);
    return frame_scan(frame, bytes, length);
}

/* --- Random values, the same ones at every run --- */

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void pack_filler(msgpack_packer *packer, size_t length, int (*pack_body)(msgpack_packer *, const void *, size_t))
{
    char *body = calloc(1, length + 1);

    /* 0xc1 is not a value: code that takes the body for headers fails. */
    memset(body, 0xc1, length);
    pack_body(packer, body, length);
    free(body);
}

static void pack_random(msgpack_packer *packer, uint32_t *state, unsigned depth)
{
    static const size_t lengths[] = {0, 1, 2, 4, 8, 15, 16, 17, 31, 32, 255, 256, 70000};
    size_t length = lengths[next_random(state) % (sizeof(lengths) / sizeof(lengths[0]))];
    uint64_t number = (uint64_t)next_random(state) << (next_random(state) % 40);
    size_t members = depth == 0 ? 0 : next_random(state) % (next_random(state) % 8 == 0 ? 40 : 4);

    switch (next_random(state) % 11) {
    case 0:
        msgpack_pack_nil(packer);
        break;
    case 1:
        msgpack_pack_true(packer);
        break;
    case 2:
        msgpack_pack_uint64(packer, number);
        break;
    case 3:
        msgpack_pack_int64(packer, -(int64_t)number);
        break;
    case 4:
        msgpack_pack_float(packer, 1.5f);
        break;
    case 5:
        msgpack_pack_double(packer, 1e300);
        break;
    case 6:
        msgpack_pack_str(packer, length);
        pack_filler(packer, length, msgpack_pack_str_body);
        break;
    case 7:
        msgpack_pack_bin(packer, length);
        pack_filler(packer, length, msgpack_pack_bin_body);
        break;
    case 8:
        msgpack_pack_ext(packer, length, 5);
        pack_filler(packer, length, msgpack_pack_ext_body);
        break;
    case 9:
        msgpack_pack_array(packer, members);
        for (size_t i = 0; i < members; i++)
            pack_random(packer, state, depth - 1);
        break;
    default:
        msgpack_pack_map(packer, members);
        for (size_t i = 0; i < 2 * members; i++)
            pack_random(packer, state, depth - 1);
        break;
    }
}

/* Make the value of a seed. It is always an array, so that it has headers. */
static void make_value(msgpack_sbuffer *buffer, uint32_t seed)
{
    msgpack_packer packer;
    uint32_t state = seed * 2654435761u;
    unsigned members = 1 + next_random(&state) % 5;

    msgpack_packer_init(&packer, buffer, msgpack_sbuffer_write);
    msgpack_pack_array(&packer, members);
    for (unsigned i = 0; i < members; i++)
        pack_random(&packer, &state, 4);
}

/* Compare size, elements and nesting with msgpack-c's unpacker. */
struct measure {
    size_t size_bytes;
    uint32_t elements;
    uint32_t depth;
};

static void measure_object(const msgpack_object *object, uint32_t depth, struct measure *measure)
{
    bool is_array = object->type == MSGPACK_OBJECT_ARRAY;
    bool is_map = object->type == MSGPACK_OBJECT_MAP;

    measure->elements++;
    if ((is_array || is_map) && depth + 1 > measure->depth)
        measure->depth = depth + 1;
    for (uint32_t i = 0; is_array && i < object->via.array.size; i++)
        measure_object(&object->via.array.ptr[i], depth + 1, measure);
    for (uint32_t i = 0; is_map && i < object->via.map.size; i++) {
        measure_object(&object->via.map.ptr[i].key, depth + 1, measure);
        measure_object(&object->via.map.ptr[i].val, depth + 1, measure);
    }
}

static struct measure measure_bytes(const void *bytes, size_t length)
{
    struct measure measure = {0};
    msgpack_zone zone;
    msgpack_object object;

    msgpack_zone_init(&zone, 4096);
    msgpack_unpack_return unpacked = msgpack_unpack(bytes, length, &measure.size_bytes, &zone, &object);
    ck_assert_msg(unpacked == MSGPACK_UNPACK_SUCCESS || unpacked == MSGPACK_UNPACK_EXTRA_BYTES, "msgpack-c says %d",
                  unpacked);
    measure_object(&object, 0, &measure);
    msgpack_zone_destroy(&zone);
    return measure;
}

/* --- Where a value ends --- */

/* Return the number of bytes of the length field after a value's first byte, as the specification has it. */
static unsigned length_width(uint8_t first)
{
    switch (first) {
    case 0xc4: /* bin 8 */
    case 0xc7: /* ext 8 */
    case 0xd9: /* str 8 */
        return 1;
    case 0xc5: /* bin 16 */
    case 0xc8: /* ext 16 */
    case 0xda: /* str 16 */
    case 0xdc: /* array 16 */
    case 0xde: /* map 16 */
        return 2;
    case 0xc6: /* bin 32 */
    case 0xc9: /* ext 32 */
    case 0xdb: /* str 32 */
    case 0xdd: /* array 32 */
    case 0xdf: /* map 32 */
        return 4;
    default:
        return 0;
    }
}

START_TEST(every_format_ends_where_msgpack_c_ends_it)
{
    for (unsigned first = 0; first <= 0xff; first++) {
        /* A length field of any width says 0 to 3, and zeroes are a body or elements. */
        for (unsigned units = 0; units <= 3; units++) {
            uint8_t bytes[256] = {(uint8_t)first};
            unsigned width = length_width((uint8_t)first);
            struct frame frame;

            if (first == 0xc1)
                continue;
            if (width > 0)
                bytes[width] = (uint8_t)units;
            enum frame_status status = scan_whole(&frame, &wide, bytes, sizeof(bytes));
            ck_assert_msg(status == FRAME_COMPLETE, "0x%02x %s", first, frame_status_text(status));
            size_t expected = measure_bytes(bytes, sizeof(bytes)).size_bytes;
            ck_assert_msg(frame.offset == expected, "0x%02x ends at %zu, not %zu", first, frame.offset, expected);
        }
    }
}
END_TEST

START_TEST(random_values_end_where_msgpack_c_ends_them)
{
    for (uint32_t seed = 0; seed < RANDOM_VALUES; seed++) {
        msgpack_sbuffer buffer;
        struct frame frame;

        msgpack_sbuffer_init(&buffer);
        make_value(&buffer, seed);
        size_t size = buffer.size;
        msgpack_sbuffer_write(&buffer, "\xc1 and what comes next", 22);
        ck_assert_msg(scan_whole(&frame, &wide, buffer.data, buffer.size) == FRAME_COMPLETE, "seed %u", seed);
        ck_assert_msg(frame.offset == size, "seed %u: ends at %zu, not %zu", seed, frame.offset, size);
        ck_assert_msg(measure_bytes(buffer.data, size).size_bytes == size, "seed %u", seed);
        msgpack_sbuffer_destroy(&buffer);
    }
}
END_TEST

START_TEST(a_message_that_trickles_in_byte_by_byte_is_found_at_the_same_end)
{
    for (uint32_t seed = 0; seed < RANDOM_VALUES / 10; seed++) {
        msgpack_sbuffer buffer;
        struct frame frame;

        msgpack_sbuffer_init(&buffer);
        make_value(&buffer, seed);
        frame_init(&frame, &wide);
        size_t length = 0; /* no assertion for each byte, because Check makes a system call for each */
        while (length < buffer.size && frame_scan(&frame, (const uint8_t *)buffer.data, length) == FRAME_PARTIAL)
            length++;
        ck_assert_msg(length == buffer.size, "seed %u: ends after %zu of %zu bytes", seed, length, buffer.size);
        ck_assert_int_eq(frame_scan(&frame, (const uint8_t *)buffer.data, buffer.size), FRAME_COMPLETE);
        ck_assert_uint_eq(frame.offset, buffer.size);
        msgpack_sbuffer_destroy(&buffer);
    }
}
END_TEST

START_TEST(a_scan_reads_nothing_after_the_given_bytes)
{
    /* Each prefix in memory of exactly its size, so that AddressSanitizer detects reads after it. */
    for (uint32_t seed = 0; seed < 200; seed++) {
        msgpack_sbuffer buffer;

        msgpack_sbuffer_init(&buffer);
        make_value(&buffer, seed);
        for (size_t length = 0; length < buffer.size && length < 300; length++) {
            struct frame frame;
            uint8_t *prefix = malloc(length > 0 ? length : 1);

            memcpy(prefix, buffer.data, length);
            ck_assert_int_eq(scan_whole(&frame, &wide, prefix, length), FRAME_PARTIAL);
            free(prefix);
        }
        msgpack_sbuffer_destroy(&buffer);
    }
}
END_TEST

START_TEST(messages_back_to_back_are_found_one_by_one)
{
    msgpack_sbuffer buffer;
    size_t ends[100], offset = 0;

    msgpack_sbuffer_init(&buffer);
    for (uint32_t seed = 0; seed < 100; seed++) {
        make_value(&buffer, seed);
        ends[seed] = buffer.size;
    }
    for (unsigned i = 0; i < 100; i++) {
        struct frame frame;

        ck_assert_int_eq(scan_whole(&frame, &wide, buffer.data + offset, buffer.size - offset), FRAME_COMPLETE);
        offset += frame.offset;
        ck_assert_uint_eq(offset, ends[i]);
    }
    msgpack_sbuffer_destroy(&buffer);
}
END_TEST

START_TEST(an_oversized_message_is_skipped_by_letting_go_of_what_is_walked)
{
    const struct frame_limits narrow = {.size_bytes = 4096, .elements = 100000, .depth = 32};
    uint32_t state = 7;

    for (uint32_t seed = 0; seed < RANDOM_VALUES / 4; seed++) {
        msgpack_sbuffer buffer;
        struct frame frame;
        size_t taken = 0; /* of the buffer, at the window */
        size_t held = 0;  /* in the window, not released yet */

        msgpack_sbuffer_init(&buffer);
        make_value(&buffer, seed);
        size_t size = buffer.size;
        make_value(&buffer, seed + 1); /* what follows must not be changed */
        if (size > narrow.size_bytes)
            ck_assert_int_eq(scan_whole(&frame, &narrow, buffer.data, 4096), FRAME_TOO_LARGE);

        frame_init(&frame, &wide);
        for (;;) {
            size_t more = 1 + next_random(&state) % 600;

            held += more < buffer.size - taken ? more : buffer.size - taken;
            taken = frame.base + held;
            enum frame_status status = frame_scan(&frame, (const uint8_t *)buffer.data + frame.base, held);
            if (status == FRAME_COMPLETE)
                break;
            ck_assert_msg(status == FRAME_PARTIAL, "seed %u %s", seed, frame_status_text(status));
            size_t walked = frame.offset - frame.base;
            size_t let_go = walked < held ? walked : held;
            frame.base += let_go;
            held -= let_go;
            /* Only an incomplete header is kept: the longest has 5 bytes. */
            ck_assert_uint_lt(held, 5);
        }
        ck_assert_msg(frame.offset == size, "seed %u: ends at %zu, not %zu", seed, frame.offset, size);
        msgpack_sbuffer_destroy(&buffer);
    }
}
END_TEST

/* --- Limits --- */

START_TEST(a_count_of_two_billion_is_refused_before_its_elements_come)
{
    static const struct {
        const char *bytes;
        size_t length;
    } headers[] = {
        {"\xdd\x7f\xff\xff\xff", 5},                   /* array */
        {"\xdd\xff\xff\xff\xff", 5},                   /* the largest */
        {"\xdf\x7f\xff\xff\xff", 5},                   /* map */
        {"\xdf\xff\xff\xff\xff", 5},                   /* twice as many elements as 32 bits count */
        {"\x94\x00\x01\xa1x\xdd\x80\x00\x00\x00", 10}, /* as the params of a request */
    };
    const struct frame_limits limits = {.size_bytes = 16777216, .elements = 262144, .depth = 32};

    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        struct frame frame;

        ck_assert_int_eq(scan_whole(&frame, &limits, headers[i].bytes, headers[i].length), FRAME_TOO_MANY_ELEMENTS);
    }
}
END_TEST

START_TEST(a_count_that_its_bytes_cannot_follow_is_refused_at_once)
{
    const struct frame_limits limits = {.size_bytes = 1000, .elements = 262144, .depth = 32};
    struct frame frame;

    ck_assert_int_eq(scan_whole(&frame, &limits, "\xdc\x03\xe5", 3), FRAME_PARTIAL);   /* 997 elements */
    ck_assert_int_eq(scan_whole(&frame, &limits, "\xdc\x03\xe6", 3), FRAME_TOO_LARGE); /* 998 */
}
END_TEST

START_TEST(a_length_of_four_gigabytes_is_refused_before_its_bytes_come)
{
    static const struct {
        const char *bytes;
        size_t length;
    } headers[] = {
        {"\xc6\xff\xff\xff\xff", 5},     /* bin */
        {"\xc9\xff\xff\xff\xff", 5},     /* ext */
        {"\xdb\xff\xff\xff\xff", 5},     /* str */
        {"\x91\xdb\x01\x00\x00\x00", 6}, /* just the limit, plus its header */
    };
    const struct frame_limits limits = {.size_bytes = 16777216, .elements = 262144, .depth = 32};

    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        struct frame frame;

        ck_assert_int_eq(scan_whole(&frame, &limits, headers[i].bytes, headers[i].length), FRAME_TOO_LARGE);
    }
}
END_TEST

START_TEST(a_message_of_the_limit_passes_and_one_byte_more_does_not)
{
    for (uint32_t seed = 0; seed < RANDOM_VALUES / 4; seed++) {
        msgpack_sbuffer buffer;
        struct frame frame;

        msgpack_sbuffer_init(&buffer);
        make_value(&buffer, seed);
        struct frame_limits limits = wide;
        limits.size_bytes = buffer.size;
        ck_assert_int_eq(scan_whole(&frame, &limits, buffer.data, buffer.size), FRAME_COMPLETE);
        limits.size_bytes = buffer.size - 1;
        ck_assert_int_eq(scan_whole(&frame, &limits, buffer.data, buffer.size), FRAME_TOO_LARGE);
        msgpack_sbuffer_destroy(&buffer);
    }
}
END_TEST

START_TEST(a_buffer_of_the_limits_size_never_waits_for_more)
{
    /* If a session's buffer is full, frame must decide. Otherwise the session would neither read nor answer again. */
    for (uint32_t seed = 0; seed < RANDOM_VALUES / 10; seed++) {
        msgpack_sbuffer buffer;

        msgpack_sbuffer_init(&buffer);
        make_value(&buffer, seed);
        for (size_t size = 1; size < buffer.size && size < 400; size++) {
            struct frame_limits limits = wide;
            struct frame frame;

            limits.size_bytes = size;
            ck_assert_msg(scan_whole(&frame, &limits, buffer.data, size) == FRAME_TOO_LARGE, "seed %u, %zu bytes", seed,
                          size);
        }
        msgpack_sbuffer_destroy(&buffer);
    }
}
END_TEST

START_TEST(elements_and_nesting_are_counted_as_msgpack_c_has_them)
{
    for (uint32_t seed = 0; seed < RANDOM_VALUES / 4; seed++) {
        msgpack_sbuffer buffer;
        struct frame frame;

        msgpack_sbuffer_init(&buffer);
        make_value(&buffer, seed);
        struct measure measure = measure_bytes(buffer.data, buffer.size);
        struct frame_limits limits = {buffer.size, measure.elements, measure.depth};
        ck_assert_msg(scan_whole(&frame, &limits, buffer.data, buffer.size) == FRAME_COMPLETE, "seed %u", seed);
        limits.elements--;
        ck_assert_int_eq(scan_whole(&frame, &limits, buffer.data, buffer.size), FRAME_TOO_MANY_ELEMENTS);
        limits.elements++;
        limits.depth--;
        ck_assert_int_eq(scan_whole(&frame, &limits, buffer.data, buffer.size), FRAME_TOO_DEEP);
        msgpack_sbuffer_destroy(&buffer);
    }
}
END_TEST

START_TEST(nesting_stops_at_the_limit_whatever_follows)
{
    uint8_t bytes[1000];
    struct frame frame;

    memset(bytes, 0x91, sizeof(bytes)); /* [[[[… */
    ck_assert_int_eq(scan_whole(&frame, &wide, bytes, sizeof(bytes)), FRAME_TOO_DEEP);
    ck_assert_int_eq(scan_whole(&frame, &wide, bytes, FRAME_DEPTH_MAX), FRAME_PARTIAL);
    bytes[FRAME_DEPTH_MAX] = 0x00;
    ck_assert_int_eq(scan_whole(&frame, &wide, bytes, sizeof(bytes)), FRAME_COMPLETE);
    ck_assert_uint_eq(frame.offset, FRAME_DEPTH_MAX + 1);
    bytes[FRAME_DEPTH_MAX] = 0x90; /* an empty one is one more level, too */
    ck_assert_int_eq(scan_whole(&frame, &wide, bytes, sizeof(bytes)), FRAME_TOO_DEEP);
}
END_TEST

START_TEST(the_byte_that_messagepack_reserves_is_refused_wherever_a_value_begins)
{
    struct frame frame;

    ck_assert_int_eq(scan_whole(&frame, &wide, "\xc1", 1), FRAME_MALFORMED);
    ck_assert_int_eq(scan_whole(&frame, &wide, "\x92\x01\xc1", 3), FRAME_MALFORMED);
    ck_assert_int_eq(scan_whole(&frame, &wide, "\x81\x01\xc1", 3), FRAME_MALFORMED);
    ck_assert_int_eq(scan_whole(&frame, &wide, "\x92\xa1\xc1\x01", 4), FRAME_COMPLETE);
}
END_TEST

Suite *frame_suite(void)
{
    Suite *suite = suite_create("frame");
    TCase *ends = tcase_create("where a value ends");
    TCase *limits = tcase_create("limits");

    tcase_add_test(ends, every_format_ends_where_msgpack_c_ends_it);
    tcase_add_test(ends, random_values_end_where_msgpack_c_ends_them);
    tcase_add_test(ends, a_message_that_trickles_in_byte_by_byte_is_found_at_the_same_end);
    tcase_add_test(ends, a_scan_reads_nothing_after_the_given_bytes);
    tcase_add_test(ends, messages_back_to_back_are_found_one_by_one);
    tcase_add_test(ends, an_oversized_message_is_skipped_by_letting_go_of_what_is_walked);
    suite_add_tcase(suite, ends);
    tcase_add_test(limits, a_count_of_two_billion_is_refused_before_its_elements_come);
    tcase_add_test(limits, a_count_that_its_bytes_cannot_follow_is_refused_at_once);
    tcase_add_test(limits, a_length_of_four_gigabytes_is_refused_before_its_bytes_come);
    tcase_add_test(limits, a_message_of_the_limit_passes_and_one_byte_more_does_not);
    tcase_add_test(limits, a_buffer_of_the_limits_size_never_waits_for_more);
    tcase_add_test(limits, elements_and_nesting_are_counted_as_msgpack_c_has_them);
    tcase_add_test(limits, nesting_stops_at_the_limit_whatever_follows);
    tcase_add_test(limits, the_byte_that_messagepack_reserves_is_refused_wherever_a_value_begins);
    suite_add_tcase(suite, limits);
    return suite;
}
