/* JSON text and MessagePack: every text is compared with jansson's result. */
#include "daemon/rpc/json.h"
#include "proto/utf8.h"
#include "tests/unit/suites.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct json_limits limits = {30, 10000};

/* --- Comparing ------------------------------------------------------------------------------------- */

static bool is_same(const msgpack_object *value, json_t *json)
{
    const msgpack_object *member = NULL;

    switch (value->type) {
    case MSGPACK_OBJECT_NIL:
        return json_is_null(json);
    case MSGPACK_OBJECT_BOOLEAN:
        return json_is_boolean(json) && json_is_true(json) == value->via.boolean;
    case MSGPACK_OBJECT_POSITIVE_INTEGER:
    case MSGPACK_OBJECT_NEGATIVE_INTEGER:
        return json_is_integer(json) && json_integer_value(json) == value->via.i64;
    case MSGPACK_OBJECT_FLOAT64:
        return json_is_real(json) && memcmp(&value->via.f64, &(double){json_real_value(json)}, sizeof(double)) == 0;
    case MSGPACK_OBJECT_STR:
        return json_is_string(json) && json_string_length(json) == value->via.str.size &&
               (value->via.str.size == 0 ||
                memcmp(json_string_value(json), value->via.str.ptr, value->via.str.size) == 0);
    case MSGPACK_OBJECT_ARRAY:
        if (!json_is_array(json) || json_array_size(json) != value->via.array.size)
            return false;
        for (uint32_t i = 0; i < value->via.array.size; i++) {
            if (!is_same(&value->via.array.ptr[i], json_array_get(json, i)))
                return false;
        }
        return true;
    case MSGPACK_OBJECT_MAP:
        /* jansson keeps the last of several members with one name. */
        for (uint32_t i = 0; i < value->via.map.size; i++) {
            const msgpack_object *key = &value->via.map.ptr[i].key;
            bool is_last = true;
            member = &value->via.map.ptr[i].val;
            for (uint32_t j = i + 1; j < value->via.map.size; j++) {
                const msgpack_object *other = &value->via.map.ptr[j].key;
                bool is_same_name = other->via.str.size == key->via.str.size &&
                                    strncmp(other->via.str.ptr, key->via.str.ptr, key->via.str.size) == 0;
                is_last &= !is_same_name;
            }
            char *name = strndup(key->via.str.ptr, key->via.str.size);
            bool fits = !is_last || is_same(member, json_object_get(json, name));
            free(name);
            if (!fits)
                return false;
        }
        return json_is_object(json) && json_object_size(json) <= value->via.map.size;
    default:
        return false;
    }
}

static void compare(const char *text, size_t length)
{
    char reason[JSON_REASON_BYTES] = "";
    struct arena arena;
    msgpack_sbuffer out;
    msgpack_unpacked unpacked;

    ck_assert(arena_init(&arena, 1024));
    msgpack_sbuffer_init(&out);
    msgpack_unpacked_init(&unpacked);
    json_t *json = json_loadb(text, length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    const char *wrong = json_to_msgpack(&arena, text, length, &limits, &out, reason);
    ck_assert_msg((wrong == NULL) == (json != NULL), "%.*s: %s", (int)length, text, wrong != NULL ? wrong : "accepted");
    if (wrong == NULL) {
        size_t offset = 0;
        ck_assert_int_eq(msgpack_unpack_next(&unpacked, out.data, out.size, &offset), MSGPACK_UNPACK_SUCCESS);
        ck_assert_uint_eq(offset, out.size);
        ck_assert_msg(is_same(&unpacked.data, json), "%.*s", (int)length, text);
        /* The conversion back has the same value. */
        const char *again;
        size_t again_length;
        ck_assert_ptr_null(json_from_msgpack(&arena, &unpacked.data, SIZE_MAX, &again, &again_length));
        json_t *second = json_loadb(again, again_length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        ck_assert_msg(second != NULL && is_same(&unpacked.data, second), "%.*s", (int)again_length, again);
        json_decref(second);
        /* There is a text only if it fits. Otherwise the length says so. */
        for (size_t max = again_length < 40 ? 0 : again_length - 40; max <= again_length; max++) {
            const char *limited;
            size_t limited_length;
            ck_assert_ptr_null(json_from_msgpack(&arena, &unpacked.data, max, &limited, &limited_length));
            ck_assert_uint_le(limited_length, again_length);
            ck_assert_uint_gt(limited_length, max == again_length ? max - 1 : max);
            ck_assert((limited != NULL) == (max == again_length));
            if (limited != NULL)
                ck_assert_mem_eq(limited, again, again_length);
        }
    }
    json_decref(json);
    msgpack_unpacked_destroy(&unpacked);
    msgpack_sbuffer_destroy(&out);
    arena_destroy(&arena);
}

/* --- Making ---------------------------------------------------------------------------------------- */

struct text {
    char bytes[4096];
    size_t length;
};

static void add(struct text *text, const char *more)
{
    size_t length = strlen(more);

    if (text->length + length < sizeof(text->bytes)) {
        memcpy(text->bytes + text->length, more, length);
        text->length += length;
    }
}

static unsigned below(unsigned bound)
{
    return (unsigned)rand() % bound;
}

static void add_scalar(struct text *text)
{
    static const char *const scalars[] = {
        "0",
        "-0",
        "1",
        "-1",
        "17",
        "9223372036854775807",
        "-9223372036854775808",
        "9223372036854775808",
        "1e400",
        "0.5",
        "-2.25e-3",
        "1E5",
        "1e+5",
        "123456789.125",
        "5e-324",
        "true",
        "false",
        "null",
        "\"\"",
        "\"text\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\\u0041\\u00e9\\u20AC\\ud83d\\ude00\"",
        "\"\\u0000\"",
        "\"\\ud83d\"",
        "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"",
        "\"\xc3\"",
        "\"\xed\xa0\x80\"",
        "01",
        "1.",
        ".5",
        "+1",
        "tru",
        "\"\x01\"",
        "\"\\x\"",
        "\"\x7f\"",
    };

    /* Mostly valid characters. */
    add(text, scalars[below(below(3) == 0 ? sizeof(scalars) / sizeof(scalars[0]) : 21)]);
}

static void add_value(struct text *text, unsigned depth)
{
    unsigned kind = depth == 0 ? 0 : below(4), count = below(5);

    if (kind < 2) {
        add_scalar(text);
        return;
    }
    add(text, kind == 2 ? "[" : "{ ");
    for (unsigned i = 0; i < count; i++) {
        static const char *const names[] = {"\"a\"", "\"b\"", "\"\"", "\"\\u0063\"", "\"long name of a member\""};
        if (i > 0)
            add(text, below(2) ? "," : " ,\n\t");
        if (kind == 3) {
            add(text, names[below(5)]);
            add(text, below(2) ? ":" : " : ");
        }
        add_value(text, depth - 1);
    }
    add(text, kind == 2 ? "]" : "}\r\n");
}

START_TEST(every_text_is_read_as_jansson_reads_it)
{
    srand(1);
    for (unsigned i = 0; i < 20000; i++) {
        struct text text = {.length = 0};
        add_value(&text, below(6));
        /* Half of the texts are damaged. */
        for (unsigned hits = below(2) * (1 + below(3)); hits > 0 && text.length > 0; hits--) {
            size_t at = below((unsigned)text.length);
            if (below(2)) {
                text.bytes[at] = "{}[],:\"\\u0e-+.\x80\xff "[below(17)];
            } else {
                memmove(text.bytes + at, text.bytes + at + 1, text.length - at - 1);
                text.length--;
            }
        }
        compare(text.bytes, text.length);
    }
}
END_TEST

static const char *wrong_with(const char *text, unsigned depth, uint32_t elements)
{
    static char reason[JSON_REASON_BYTES];
    const struct json_limits few = {depth, elements};
    struct arena arena;
    msgpack_sbuffer out;

    ck_assert(arena_init(&arena, 1024));
    msgpack_sbuffer_init(&out);
    const char *wrong = json_to_msgpack(&arena, text, strlen(text), &few, &out, reason);
    msgpack_sbuffer_destroy(&out);
    arena_destroy(&arena);
    return wrong;
}

START_TEST(a_text_beyond_the_limits_is_refused)
{
    ck_assert_ptr_null(wrong_with("[[[]]]", 3, 3));
    ck_assert_str_eq(wrong_with("[[[]]]", 2, 3), "byte 2: it is nested too deeply");
    ck_assert_str_eq(wrong_with("[[[]]]", 3, 2), "byte 2: it has too many values");
    ck_assert_ptr_null(wrong_with("{\"a\": 1}", 1, 3));
    ck_assert_ptr_nonnull(wrong_with("{\"a\": 1}", 1, 2));
    ck_assert_str_eq(wrong_with("1 2", 1, 9), "byte 2: text follows the value");
    ck_assert_str_eq(wrong_with("", 1, 9), "byte 0: a value is expected");
}
END_TEST

/* Return what json_from_msgpack makes of the MessagePack bytes: the text, or the reason for none. */
static const char *text_of(const char *bytes, size_t size)
{
    static char made[256];
    struct arena arena;
    msgpack_unpacked unpacked;
    size_t offset = 0, length;
    const char *text;

    ck_assert(arena_init(&arena, 1024));
    msgpack_unpacked_init(&unpacked);
    ck_assert_int_eq(msgpack_unpack_next(&unpacked, bytes, size, &offset), MSGPACK_UNPACK_SUCCESS);
    const char *wrong = json_from_msgpack(&arena, &unpacked.data, 200, &text, &length);
    snprintf(made, sizeof(made), "%.*s", wrong != NULL ? (int)strlen(wrong) : (int)length,
             wrong != NULL ? wrong : text);
    msgpack_unpacked_destroy(&unpacked);
    arena_destroy(&arena);
    return made;
}
#define TEXT_OF(bytes) text_of(bytes, sizeof(bytes) - 1)

START_TEST(keys_may_be_bin_and_are_utf8)
{
    ck_assert_str_eq(TEXT_OF("\x81\xc4\x01k\x01"), "{\"k\":1}");
    ck_assert_str_eq(TEXT_OF("\x81\xc4\x01\xff\x01"), "a text is not UTF-8");
    ck_assert_str_eq(TEXT_OF("\x81\xa1k\xc4\x01v"), "JSON has no bin and no ext; send a text as str");
    ck_assert_str_eq(TEXT_OF("\x81\x01\x02"), "the keys of a map must be texts (str or bin)");
}
END_TEST

/* The text is not UTF-8, which is not noticed. */
START_TEST(a_text_that_is_too_large_is_not_read)
{
    char bytes[4 + 300] = "\x91\xda\x01\x2c";
    msgpack_unpacked unpacked;
    struct arena arena;
    size_t offset = 0, length;
    const char *text;

    memset(bytes + 4, 0xff, 300);
    ck_assert(arena_init(&arena, 1024));
    msgpack_unpacked_init(&unpacked);
    ck_assert_int_eq(msgpack_unpack_next(&unpacked, bytes, sizeof(bytes), &offset), MSGPACK_UNPACK_SUCCESS);
    ck_assert_ptr_null(json_from_msgpack(&arena, &unpacked.data, 200, &text, &length));
    ck_assert_ptr_null(text);
    ck_assert_uint_gt(length, 200);
    msgpack_unpacked_destroy(&unpacked);
    arena_destroy(&arena);
}
END_TEST

START_TEST(numbers_are_short_and_exact)
{
    static const struct {
        double number;
        const char *text;
    } numbers[] = {
        {0.1, "0.1"},
        {-2.5, "-2.5"},
        {3, "3.0"},
        {1e-5, "1e-05"},
        {0.1 + 0.2, "0.30000000000000004"},
        {1.0 / 3, "0.33333333333333331"},
        {123456.789, "123456.789"},
        {1e300, "1.0000000000000001e+300"},
        {-0.0, "-0.0"},
    };

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        char bytes[9] = "\xcb";
        uint64_t bits;
        memcpy(&bits, &numbers[i].number, sizeof(bits));
        for (unsigned at = 1; at < 9; at++)
            bytes[at] = (char)(bits >> (64 - 8 * at));
        ck_assert_str_eq(text_of(bytes, sizeof(bytes)), numbers[i].text);
    }
}
END_TEST

START_TEST(utf8_characters_are_distinguished_from_other_bytes)
{
    static const char *const good[] = {"",
                                       "a",
                                       "\x7f",
                                       "\xc2\x80",
                                       "\xdf\xbf",
                                       "\xe0\xa0\x80",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xf0\x90\x80\x80",
                                       "\xf4\x8f\xbf\xbf",
                                       "0123456789\xc3\xa9"};
    static const char *const bad[] = {"\x80",
                                      "\xbf",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xc2",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xef\xbf",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "01234567\xff",
                                      "0123456789\xc3"};

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        ck_assert(utf8_is_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert(!utf8_is_valid(bad[i], strlen(bad[i])));
}
END_TEST

Suite *json_suite(void)
{
    Suite *suite = suite_create("json");
    TCase *tests = tcase_create("json");

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, every_text_is_read_as_jansson_reads_it);
    tcase_add_test(tests, a_text_beyond_the_limits_is_refused);
    tcase_add_test(tests, keys_may_be_bin_and_are_utf8);
    tcase_add_test(tests, a_text_that_is_too_large_is_not_read);
    tcase_add_test(tests, numbers_are_short_and_exact);
    tcase_add_test(tests, utf8_characters_are_distinguished_from_other_bytes);
    suite_add_tcase(suite, tests);
    return suite;
}
