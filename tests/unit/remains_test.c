/* Old values in a stream's block files. The test makes blocks byte by byte. */
#include "daemon/base/hash.h"
#include "daemon/store/compact/remains.h"
#include "tests/support/test_run.h"
#include "tests/unit/suites.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOMBSTONE (1ull << 62)
#define ERASED    (1ull << 63)
#define DELETED   "NATS/1.0\r\nKV-Operation: DEL\r\n\r\n"
#define PURGED    "NATS/1.0\r\nNats-Rollup: sub\r\nKV-Operation: PURGE\r\n\r\n"
#define EXPIRED   "NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\n\r\n"
#define OTHER     "NATS/1.0\r\nColor: blue\r\n\r\n"

static char directory[PATH_BYTES];
static char block_path[2][PATH_BYTES + 8];

static void make_directory(void)
{
    test_run_make_directory(directory);
    for (int i = 0; i < 2; i++) {
        snprintf(block_path[i], sizeof(block_path[i]), "%s/%d.blk", directory, i + 1);
        fclose(fopen(block_path[i], "w"));
    }
}

static void put_number(FILE *file, uint64_t number, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        fputc((int)(number >> (8 * i) & 0xff), file);
}

static void add_bytes(int block, const char *bytes)
{
    FILE *file = fopen(block_path[block], "a");

    fputs(bytes, file);
    fclose(file);
}

/* headers: NULL for none. */
static void add(int block, uint64_t sequence, const char *subject, const char *headers, const char *value)
{
    FILE *file = fopen(block_path[block], "a");
    size_t header_bytes = headers != NULL ? strlen(headers) : 0;
    size_t length = 22 + strlen(subject) + (headers != NULL ? 4 + header_bytes : 0) + strlen(value) + 8;

    put_number(file, length | (headers != NULL ? 0x80000000u : 0), 4);
    put_number(file, sequence, 8);
    put_number(file, 1767225600000000000, 8);
    put_number(file, strlen(subject), 2);
    fputs(subject, file);
    if (headers != NULL) {
        put_number(file, header_bytes, 4);
        fputs(headers, file);
    }
    fputs(value, file);
    put_number(file, 0, 8);
    fclose(file);
}

static bool has_value(const char *subject, uint64_t marker)
{
    struct remains_key keys[] = {{.hash = hash_bytes("another", 7), .sequence = 1000, .index = 0},
                                 {.hash = hash_bytes(subject, strlen(subject)), .sequence = marker, .index = 1}};

    atomic_bool is_unwanted = false;

    remains_look(directory, keys, 2, &is_unwanted);
    return keys[0].index == 1 ? keys[0].has_value : keys[1].has_value;
}

START_TEST(a_value_before_the_marker_is_found)
{
    add(0, 1, "$KV.b.x", NULL, "x");
    add(0, 2, "$KV.b.a", NULL, "old");
    add(0, 3, "$KV.b.h", OTHER, "old");
    add(1, 4, "$KV.b.a", DELETED, "");
    ck_assert(has_value("$KV.b.a", 4));
    ck_assert(has_value("$KV.b.h", 4));
    ck_assert(!has_value("$KV.b.a", 2));
    ck_assert(!has_value("$KV.b.b", 100));
}
END_TEST

START_TEST(markers_restore_no_value)
{
    add(0, 1, "$KV.b.a", DELETED, "");
    add(0, 2, "$KV.b.a", PURGED, "");
    add(1, 3, "$KV.b.a", EXPIRED, "");
    ck_assert(!has_value("$KV.b.a", 4));
}
END_TEST

START_TEST(a_message_with_a_tombstone_counts_as_removed)
{
    add(0, 1, "$KV.b.a", NULL, "old");
    add(0, 2, "$KV.b.b", NULL, "old");
    add(0, 3 | ERASED, "$KV.b.c", NULL, "???");
    add(1, 1 | TOMBSTONE, "", NULL, "");
    ck_assert(!has_value("$KV.b.a", 4));
    ck_assert(has_value("$KV.b.b", 4));
    ck_assert(!has_value("$KV.b.c", 4));
}
END_TEST

START_TEST(an_unknown_record_may_be_anything)
{
    add(0, 1, "$KV.b.x", NULL, "x");
    ck_assert(!has_value("$KV.b.a", 4));
    add_bytes(0, "half a record");
    ck_assert(has_value("$KV.b.a", 4));
}
END_TEST

START_TEST(a_compressed_block_is_not_understood)
{
    add(1, 1, "$KV.b.x", NULL, "x");
    add_bytes(0, "cmp\001 and so on, as long as one likes");
    ck_assert(has_value("$KV.b.a", 4));
}
END_TEST

START_TEST(without_blocks_nothing_is_known)
{
    for (int i = 0; i < 2; i++)
        unlink(block_path[i]);
    rmdir(directory);
    ck_assert(has_value("$KV.b.a", 4));
}
END_TEST

Suite *remains_suite(void)
{
    Suite *suite = suite_create("remains");
    TCase *tests = tcase_create("remains");

    tcase_add_checked_fixture(tests, make_directory, NULL);
    tcase_add_test(tests, a_value_before_the_marker_is_found);
    tcase_add_test(tests, markers_restore_no_value);
    tcase_add_test(tests, a_message_with_a_tombstone_counts_as_removed);
    tcase_add_test(tests, an_unknown_record_may_be_anything);
    tcase_add_test(tests, a_compressed_block_is_not_understood);
    tcase_add_test(tests, without_blocks_nothing_is_known);
    suite_add_tcase(suite, tests);
    return suite;
}
