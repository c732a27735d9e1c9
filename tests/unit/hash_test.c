#include "daemon/base/hash.h"
#include "daemon/base/key_index.h"
#include "tests/unit/suites.h"

#include <stdio.h>

/* The first outputs of SipHash-1-3 for the key 00 01 … 0f and the inputs "", 00, 00 01, … (its authors' test vectors).
 */
START_TEST(the_hash_is_siphash_1_3)
{
    static const uint64_t key[2] = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
    static const uint64_t vectors[] = {0xabac0158050fc4dcu, 0xc9f49bf37d57ca93u, 0x82cb9b024dc7d44du};
    unsigned char input[16];

    for (unsigned i = 0; i < sizeof(input); i++)
        input[i] = (unsigned char)i;
    for (size_t length = 0; length < sizeof(vectors) / sizeof(vectors[0]); length++)
        ck_assert_uint_eq(hash_bytes_with(key, input, length), vectors[length]);
    ck_assert_uint_ne(hash_bytes_with(key, input, 8), hash_bytes_with(key, input, 9));
}
END_TEST

START_TEST(another_key_gives_another_order)
{
    static const uint64_t one[2] = {1, 2}, other[2] = {1, 3};

    ck_assert_uint_ne(hash_bytes_with(one, "settings", 8), hash_bytes_with(other, "settings", 8));
    ck_assert_uint_eq(hash_bytes("settings", 8), hash_bytes("settings", 8));
}
END_TEST

START_TEST(a_key_index_finds_every_key_and_keeps_the_first_number)
{
    enum { KEYS = 1000 };
    static char names[KEYS][16];
    struct key_index index;
    struct arena arena;

    ck_assert(arena_init(&arena, 1024));
    ck_assert(key_index_init(&index, &arena, KEYS));
    for (uint32_t i = 0; i < KEYS; i++) {
        snprintf(names[i], sizeof(names[i]), "key.%u", i);
        ck_assert_uint_eq(key_index_find(&index, names[i]), KEY_INDEX_NONE);
        ck_assert_uint_eq(key_index_add(&index, names[i], i), i);
    }
    for (uint32_t i = 0; i < KEYS; i++) {
        ck_assert_uint_eq(key_index_find(&index, names[i]), i);
        ck_assert_uint_eq(key_index_add(&index, names[i], i + 1), i);
    }
    ck_assert_uint_eq(key_index_find(&index, "key"), KEY_INDEX_NONE);
    arena_destroy(&arena);
}
END_TEST

Suite *hash_suite(void)
{
    Suite *suite = suite_create("hash");
    TCase *tests = tcase_create("hash");

    tcase_add_test(tests, the_hash_is_siphash_1_3);
    tcase_add_test(tests, another_key_gives_another_order);
    tcase_add_test(tests, a_key_index_finds_every_key_and_keeps_the_first_number);
    suite_add_tcase(suite, tests);
    return suite;
}
