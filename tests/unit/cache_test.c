/* The keys of a bucket in memory: lookups, their order, and eviction. */
#include "daemon/store/follow/cache.h"
#include "tests/unit/suites.h"

#include <check.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void drop_all_values(struct cache *cache)
{
    struct cache_cursor cursor;
    struct cache_key *key;

    cache_cursor_begin(cache, &cursor);
    while ((key = cache_cursor_next(&cursor)) != NULL)
        cache_drop_value(cache, key);
    cache_cursor_end(&cursor);
}

#define PLENTY (64u * 1024u * 1024u)

static struct cache_budget budget;
static struct cache cache;

static void begin(void)
{
    budget = (struct cache_budget){.max_bytes = PLENTY};
    cache_init(&cache, &budget);
}

static void end(void)
{
    cache_clear(&cache);
    cache_collect(&budget, UINT_MAX);
    ck_assert_uint_eq(budget.bytes, 0);
    ck_assert_uint_eq(budget.nobody.cache_count, 0);
    ck_assert_ptr_null(budget.users);
}

/* --- Short ways ------------------------------------------------------------------------------------ */

static struct kv_entry entry_of(const char *key, const char *value, size_t value_bytes, uint64_t revision)
{
    static struct message no_headers;

    return (struct kv_entry){.key = key,
                             .value = value,
                             .value_bytes = value_bytes,
                             .revision = revision,
                             .created_us = (int64_t)revision * 10,
                             .message = &no_headers};
}

static struct cache_key *set(const char *key, const char *value, uint64_t revision)
{
    struct kv_entry entry = entry_of(key, value, strlen(value), revision);

    return cache_set(&cache, &entry, 0, true);
}

static struct cache_key *find(const char *key)
{
    return cache_find(&cache, key, strlen(key));
}

/* Put "k1" and so on, with values of this size. */
static struct cache_key *set_numbered(struct cache *into, unsigned number, size_t value_bytes, uint64_t revision)
{
    char key[32], value[4096];

    snprintf(key, sizeof(key), "k%u", number);
    memset(value, 'a' + (int)(number % 26), sizeof(value));
    struct kv_entry entry = entry_of(key, value, value_bytes, revision);
    return cache_set(into, &entry, 0, true);
}

static struct cache_key *find_numbered(unsigned number)
{
    char key[32];

    snprintf(key, sizeof(key), "k%u", number);
    return find(key);
}

static void expect_value(const char *key, const char *value, uint64_t revision)
{
    struct cache_view view;
    struct cache_key *found = find(key);

    ck_assert_msg(found != NULL, "%s is not found", key);
    ck_assert(cache_has_value(found));
    cache_read(found, &view);
    ck_assert_str_eq(view.entry.key, key);
    ck_assert_uint_eq(view.entry.value_bytes, strlen(value));
    ck_assert_int_eq(memcmp(view.entry.value, value, strlen(value)), 0);
    ck_assert_uint_eq(view.entry.revision, revision);
    ck_assert_int_eq(view.entry.created_us, (int64_t)revision * 10);
    ck_assert_int_eq(view.entry.operation, KV_PUT);
}

/* Return the names from the oldest to the newest, separated by blanks. */
static const char *order(void)
{
    static char text[512];
    const struct cache_key *before = NULL;
    size_t count = 0;

    text[0] = '\0';
    for (const struct cache_key *key = cache.oldest; key != NULL; before = key, key = key->newer, count++) {
        ck_assert_ptr_eq(key->older, before);
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", count > 0 ? " " : "", cache_key_name(key));
    }
    ck_assert_ptr_eq(cache.newest, before);
    ck_assert_uint_eq(cache.count, count);
    return text;
}

static const char *next_name(struct cache_cursor *cursor)
{
    struct cache_key *key = cache_cursor_next(cursor);

    return key != NULL ? cache_key_name(key) : "none";
}

/* --- Finding --------------------------------------------------------------------------------------- */

START_TEST(a_key_is_found_by_its_whole_name)
{
    ck_assert_ptr_null(find("a"));
    set("a", "1", 1);
    set("ab", "2", 2);
    expect_value("a", "1", 1);
    expect_value("ab", "2", 2);
    ck_assert_ptr_null(find("abc"));
    ck_assert_ptr_null(find("b"));
    ck_assert_ptr_null(cache_find(&cache, "ab", 0));
}
END_TEST

START_TEST(the_latest_entry_replaces_the_one_before)
{
    set("a", "a value that is long", 1);
    set("a", "", 2);
    expect_value("a", "", 2);
    set("a", "long again, and longer than it was before", 3);
    expect_value("a", "long again, and longer than it was before", 3);
    ck_assert_uint_eq(cache.count, 1);
}
END_TEST

START_TEST(a_marker_is_recognised)
{
    struct kv_entry entry = entry_of("a", "", 0, 7);

    entry.operation = KV_PURGE;
    struct cache_key *key = cache_set(&cache, &entry, 0, false);
    ck_assert_int_eq(cache_operation(key), KV_PURGE);
    ck_assert(cache_has_value(key));
    entry.operation = KV_DELETE;
    ck_assert_int_eq(cache_operation(cache_set(&cache, &entry, 0, false)), KV_DELETE);
}
END_TEST

START_TEST(a_value_that_is_not_kept_is_known_to_be_missing)
{
    struct kv_entry entry = entry_of("a", "value", 5, 7);
    struct cache_view view;

    struct cache_key *key = cache_set(&cache, &entry, 0, false);
    ck_assert(!cache_has_value(key));
    cache_read(key, &view);
    ck_assert_uint_eq(view.entry.value_bytes, 5); /* its size is still known */
    ck_assert_uint_eq(view.entry.revision, 7);
}
END_TEST

START_TEST(many_keys_are_found_whatever_was_removed_between)
{
    for (unsigned i = 0; i < 20000; i++)
        set_numbered(&cache, i, 3, i + 1);
    for (unsigned i = 0; i < 20000; i += 3)
        cache_remove(&cache, find_numbered(i));
    for (unsigned i = 0; i < 20000; i++) {
        struct cache_key *key = find_numbered(i);
        ck_assert((key == NULL) == (i % 3 == 0));
        ck_assert(key == NULL || key->revision == i + 1);
    }
    ck_assert_uint_eq(cache.count, 20000 - 6667);
}
END_TEST

/* --- Order, and walks ------------------------------------------------------------------------------ */

START_TEST(keys_stand_from_the_oldest_revision_to_the_newest)
{
    set("a", "1", 1);
    set("b", "1", 2);
    set("c", "1", 3);
    ck_assert_str_eq(order(), "a b c");
    set("a", "2", 4);
    ck_assert_str_eq(order(), "b c a");
    cache_remove(&cache, find("c"));
    ck_assert_str_eq(order(), "b a");
    drop_all_values(&cache);
    ck_assert_str_eq(order(), "b a");
}
END_TEST

START_TEST(keys_of_a_reading_come_before_newer_ones_of_the_feed)
{
    set("fed 10", "v", 10);
    set("fed 12", "v", 12);
    set("1", "v", 1);
    set("4", "v", 4);
    set("fed 13", "v", 13);
    set("7", "v", 7);
    set("11", "v", 11);
    ck_assert_str_eq(order(), "1 4 7 fed 10 11 fed 12 fed 13");
    /* The key whose place was found last is removed, and another one is overwritten. */
    cache_remove(&cache, find("11"));
    set("4", "v", 14);
    set("8", "v", 8);
    ck_assert_str_eq(order(), "1 7 8 fed 10 fed 12 fed 13 4");
}
END_TEST

START_TEST(a_late_key_is_met_by_a_walk_that_has_passed_its_place)
{
    struct cache_cursor cursor;

    set("a", "v", 5);
    set("b", "v", 6);
    cache_cursor_begin(&cache, &cursor);
    ck_assert_str_eq(next_name(&cursor), "a");
    set("late", "v", 2);
    ck_assert_str_eq(next_name(&cursor), "b");
    ck_assert_str_eq(next_name(&cursor), "late");
    cache_cursor_end(&cursor);
}
END_TEST

START_TEST(a_walk_visits_keys_again_that_change_after_it_has_passed)
{
    struct cache_cursor cursor;

    set("a", "1", 1);
    set("b", "1", 2);
    cache_cursor_begin(&cache, &cursor);
    ck_assert_str_eq(next_name(&cursor), "a");
    set("a", "2", 3);
    ck_assert_str_eq(next_name(&cursor), "b");
    ck_assert_str_eq(next_name(&cursor), "a");
    ck_assert_str_eq(next_name(&cursor), "none");
    set("c", "1", 4); /* it continues with the next one */
    ck_assert_str_eq(next_name(&cursor), "c");
    ck_assert_str_eq(next_name(&cursor), "none");
    cache_cursor_end(&cursor);
    ck_assert_ptr_null(cache.cursors);
}
END_TEST

START_TEST(a_walk_continues_when_its_next_key_is_removed_or_moved)
{
    struct cache_cursor cursor, other;
    struct kv_entry entry = entry_of("c", "value", 5, 3);

    set("a", "value", 1);
    set("b", "value", 2);
    set("c", "value", 3);
    set("d", "value", 4);
    cache_cursor_begin(&cache, &cursor);
    cache_cursor_begin(&cache, &other);
    ck_assert_str_eq(next_name(&cursor), "a");
    cache_remove(&cache, find("b"));
    drop_all_values(&cache); /* all blocks move */
    cache_restore(&cache, find("c"), &entry, 0);
    ck_assert_str_eq(next_name(&cursor), "c");
    set("d", "2", 5);
    ck_assert_str_eq(next_name(&cursor), "d");
    ck_assert_str_eq(next_name(&cursor), "none");
    ck_assert_str_eq(next_name(&other), "a");
    ck_assert_str_eq(next_name(&other), "c");
    cache_cursor_end(&cursor);
    ck_assert_str_eq(next_name(&other), "d");
    cache_cursor_end(&other);
}
END_TEST

START_TEST(a_walk_over_nothing_waits_for_the_first_key)
{
    struct cache_cursor cursor;

    cache_cursor_begin(&cache, &cursor);
    ck_assert_str_eq(next_name(&cursor), "none");
    set("a", "1", 1);
    ck_assert_str_eq(next_name(&cursor), "a");
    cache_cursor_end(&cursor);
}
END_TEST

/* --- Eviction -------------------------------------------------------------------------------------- */

START_TEST(at_the_budget_values_are_evicted_and_keys_are_kept)
{
    budget.max_bytes = 256 * 1024;
    for (unsigned i = 0; i < 1000; i++) {
        ck_assert_ptr_nonnull(set_numbered(&cache, i, 1000, i + 1));
        ck_assert_uint_le(budget.bytes, budget.max_bytes);
    }
    unsigned kept = 0;
    for (unsigned i = 0; i < 1000; i++) {
        struct cache_key *key = find_numbered(i);
        ck_assert_ptr_nonnull(key);
        ck_assert_uint_eq(key->revision, i + 1);
        kept += cache_has_value(key);
    }
    ck_assert_uint_eq(budget.evicted, 1000 - kept);
    /* The budget is used, and not half empty. */
    ck_assert_uint_gt(budget.bytes, budget.max_bytes - 2 * 1100);
}
END_TEST

START_TEST(unread_values_are_evicted_before_read_ones)
{
    struct cache_view view;

    for (unsigned i = 0; i < 1000; i++)
        set_numbered(&cache, i, 1000, i + 1);
    for (unsigned i = 0; i < 1000; i += 4)
        cache_read(find_numbered(i), &view);
    budget.max_bytes = budget.bytes - 500 * 1000;
    set_numbered(&cache, 1000, 1000, 1001);

    unsigned read_kept = 0;
    for (unsigned i = 0; i < 1000; i += 4)
        read_kept += cache_has_value(find_numbered(i));
    ck_assert_uint_eq(read_kept, 250);
}
END_TEST

START_TEST(values_that_were_read_long_ago_are_evicted_too)
{
    struct cache_view view;

    budget.max_bytes = 128 * 1024;
    for (unsigned i = 0; i < 50; i++) {
        set_numbered(&cache, i, 1000, i + 1);
        cache_read(find_numbered(i), &view);
    }
    /* Each of the new ones is read, too: in the end no old one is left. */
    for (unsigned i = 50; i < 1000; i++) {
        set_numbered(&cache, i, 1000, i + 1);
        if (cache_has_value(find_numbered(i)))
            cache_read(find_numbered(i), &view);
    }
    for (unsigned i = 0; i < 50; i++)
        ck_assert(!cache_has_value(find_numbered(i)));
}
END_TEST

START_TEST(keys_alone_cannot_exceed_the_budget)
{
    unsigned i = 0;

    budget.max_bytes = 64 * 1024;
    while (i < 10000 && set_numbered(&cache, i, 100, i + 1) != NULL)
        i++;
    ck_assert_uint_lt(i, 10000);
    /* Not before: a key takes some tens of bytes. */
    ck_assert_uint_gt(i, 64 * 1024 / 150);
    ck_assert_uint_eq(cache.value_bytes, 0);
}
END_TEST

START_TEST(values_of_the_largest_bucket_are_evicted_first)
{
    struct cache other;

    cache_init(&other, &budget);
    budget.max_bytes = 256 * 1024;
    for (unsigned i = 0; i < 20; i++)
        set_numbered(&other, i, 1000, i + 1);
    for (unsigned i = 0; i < 1000; i++)
        set_numbered(&cache, i, 1000, i + 1);
    ck_assert_uint_eq(other.value_bytes, 20 * 1000);
    ck_assert_uint_le(budget.bytes, budget.max_bytes);
    ck_assert_uint_eq(budget.bytes, cache.bytes + other.bytes);
    cache_clear(&other);
    cache_collect(&budget, UINT_MAX);
    ck_assert_uint_eq(budget.bytes, cache.bytes);
}
END_TEST

/* Whoever fills a thousand small caches does not drive out the values of a larger one of another user. */
START_TEST(values_of_the_user_with_the_most_memory_are_evicted_first)
{
    enum { OTHERS = 100 };
    static struct cache others[OTHERS];

    budget.max_bytes = 512 * 1024;
    cache_user_join(&cache, 1);
    for (unsigned i = 0; i < 100; i++)
        set_numbered(&cache, i, 1000, i + 1);
    for (unsigned k = 0; k < OTHERS; k++) {
        cache_init(&others[k], &budget);
        cache_user_join(&others[k], 2);
        for (unsigned i = 0; i < 10; i++)
            set_numbered(&others[k], i, 1000, i + 1);
    }
    ck_assert_uint_eq(cache.value_bytes, 100 * 1000);
    ck_assert_uint_gt(budget.evicted, 0);
    ck_assert_uint_le(budget.bytes, budget.max_bytes);
    ck_assert_ptr_eq(cache_user_largest(&budget), others[0].user);
    ck_assert_uint_eq(others[0].user->bytes + cache.user->bytes, budget.bytes);
    const struct cache *most = cache_user_most_values(others[0].user);
    for (unsigned k = 0; k < OTHERS; k++)
        ck_assert_uint_le(others[k].value_bytes, 2 * most->value_bytes);
    cache_user_join(&others[0], 1);
    ck_assert_uint_eq(cache.user->bytes, cache.bytes + others[0].bytes);
    for (unsigned k = 0; k < OTHERS; k++)
        cache_clear(&others[k]);
    ck_assert_uint_eq(HASH_COUNT(budget.users), 1);
}
END_TEST

/* Without the keys that watches were delivered, vanished ones would not be noticed; a value can be read again. */
START_TEST(values_of_others_are_evicted_before_keys_of_watches_are_given_up)
{
    struct cache watched;
    char name[16];

    budget.max_bytes = 256 * 1024;
    cache_user_join(&cache, 1);
    cache.keeps_values = true;
    for (unsigned i = 0; i < 100; i++)
        set_numbered(&cache, i, 1000, i + 1);
    cache_init(&watched, &budget);
    cache_user_join(&watched, 2);
    for (unsigned i = 0; budget.evicted < 50; i++) {
        snprintf(name, sizeof(name), "w%u", i);
        struct kv_entry entry = entry_of(name, "", 0, i + 1);
        ck_assert_ptr_nonnull(cache_set(&watched, &entry, 0, false));
    }
    ck_assert_ptr_eq(cache_user_largest(&budget), watched.user);
    ck_assert_ptr_eq(cache_user_who_gives(&budget), cache.user);
    ck_assert_uint_le(budget.bytes, budget.max_bytes);
    watched.keeps_values = true; /* a user who only lists keys has his own share */
    ck_assert_ptr_eq(cache_user_who_gives(&budget), watched.user);
    cache_clear(&watched);
}
END_TEST

START_TEST(an_evicted_value_comes_back_in_its_place)
{
    struct kv_entry entry = entry_of("b", "value of b", 10, 2);

    set("a", "value of a", 1);
    set("b", "value of b", 2);
    set("c", "value of c", 3);
    drop_all_values(&cache);
    ck_assert_uint_eq(cache.value_bytes, 0);
    ck_assert(!cache_has_value(find("a")) && !cache_has_value(find("b")) && !cache_has_value(find("c")));
    cache_restore(&cache, find("b"), &entry, 0);
    expect_value("b", "value of b", 2);
    ck_assert_str_eq(order(), "a b c");
    ck_assert(!cache_has_value(find("a")) && !cache_has_value(find("c")));
    ck_assert_uint_eq(cache.value_bytes, 10);
}
END_TEST

START_TEST(only_the_value_of_the_same_revision_comes_back)
{
    struct kv_entry old = entry_of("a", "old", 3, 1), new = entry_of("a", "new", 3, 2);

    set("a", "new", 2);
    cache_restore(&cache, find("a"), &old, 0); /* it has one */
    expect_value("a", "new", 2);
    drop_all_values(&cache);
    cache_restore(&cache, find("a"), &old, 0);
    ck_assert(!cache_has_value(find("a")));
    cache_restore(&cache, find("a"), &new, 0);
    expect_value("a", "new", 2);
}
END_TEST

START_TEST(a_value_without_bytes_is_never_missed)
{
    set("a", "", 1);
    set("b", "value", 2);
    budget.max_bytes = budget.bytes - 1;
    set("c", "", 3);
    expect_value("a", "", 1);
    expect_value("c", "", 3);
    ck_assert(!cache_has_value(find("b")));
}
END_TEST

/* --- Accounts -------------------------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__)
size_t __sanitizer_get_current_allocated_bytes(void);
#endif

/* Return the allocator's memory of this process. */
static size_t real_bytes(void)
{
#if defined(__SANITIZE_ADDRESS__)
    return __sanitizer_get_current_allocated_bytes();
#else
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
#endif
}

/* The sanitizer reports the requested bytes, without an allocator's header of each block. */
static size_t accounted_bytes(void)
{
#if defined(__SANITIZE_ADDRESS__)
    return budget.bytes - cache.count * sizeof(size_t);
#else
    return budget.bytes;
#endif
}

/* malloc keeps some freed blocks of each size for the thread, and counts them as used. */
#define MALLOC_KEEPS_BYTES 32768u

static void expect_within_a_tenth(size_t real, size_t accounted)
{
    bool is_enough = accounted + MALLOC_KEEPS_BYTES >= real - real / 10;

    ck_assert_msg(is_enough && accounted <= real + real / 10, "%zu bytes are accounted, %zu taken", accounted, real);
}

START_TEST(the_accounts_are_the_memory_to_within_a_tenth)
{
    static const size_t sizes[] = {0, 1, 10, 100, 1000, 4000};
    size_t before = real_bytes();

    for (unsigned i = 0; i < 6; i++) {
        for (unsigned k = 0; k < 5000; k++)
            set_numbered(&cache, k, sizes[(k + i) % 6], i * 5000 + k + 1);
        expect_within_a_tenth(real_bytes() - before, accounted_bytes());
    }
    drop_all_values(&cache);
    expect_within_a_tenth(real_bytes() - before, accounted_bytes());
    for (unsigned k = 0; k < 5000; k++)
        cache_remove(&cache, find_numbered(k));
    expect_within_a_tenth(real_bytes() - before, accounted_bytes());
}
END_TEST

START_TEST(a_small_key_takes_little_beside_itself)
{
    size_t of_keys = 0;

    /* A table that has just grown is the worst case, one that is about to grow the best: use the mean. */
    for (unsigned i = 0; i < 150000; i++) {
        char key[32];
        of_keys += (size_t)snprintf(key, sizeof(key), "k%u", i) + 32;
        set_numbered(&cache, i, 32, i + 1);
    }
    ck_assert_uint_le((budget.bytes - of_keys) / 150000, 120);
}
END_TEST

/* --- Marks ----------------------------------------------------------------------------------------- */

START_TEST(marks_show_which_keys_a_reading_has_visited)
{
    struct kv_entry entry = entry_of("b", "value", 5, 2);

    set("a", "value", 1);
    set("b", "value", 2);
    set("c", "value", 3);
    ck_assert(cache_is_marked(&cache, find("a")));
    cache_unmark_all(&cache);
    ck_assert(!cache_is_marked(&cache, find("a")));
    ck_assert(!cache_is_marked(&cache, find("b")));
    cache_mark(&cache, find("a"));
    set("c", "new", 4); /* it exists */
    drop_all_values(&cache);
    cache_restore(&cache, find("b"), &entry, 0);
    ck_assert(cache_is_marked(&cache, find("a")));
    ck_assert(!cache_is_marked(&cache, find("b")));
    ck_assert(cache_is_marked(&cache, find("c")));
}
END_TEST

START_TEST(a_key_is_doubtful_until_it_is_marked_set_or_removed)
{
    set("a", "value", 1);
    set("b", "value", 2);
    set("c", "value", 3);
    cache_unmark_all(&cache);
    cache_doubt(&cache, find("a"));
    cache_doubt(&cache, find("a"));
    cache_doubt(&cache, find("b"));
    cache_doubt(&cache, find("c"));
    ck_assert_uint_eq(cache.doubtful, 3);
    ck_assert(!cache_is_marked(&cache, find("a")));
    cache_mark(&cache, find("a"));
    set("b", "new", 4);
    cache_remove(&cache, find("c"));
    ck_assert_uint_eq(cache.doubtful, 0);
    cache_doubt(&cache, find("a"));
    cache_unmark_all(&cache);
    ck_assert_uint_eq(cache.doubtful, 0);
}
END_TEST

/* --- What else an entry has ------------------------------------------------------------------------ */

START_TEST(an_expiry_is_kept_and_outlives_its_value)
{
    struct kv_entry entry = entry_of("a", "value", 5, 1);

    ck_assert_int_eq(cache_expiry(cache_set(&cache, &entry, 123456789, true)), 123456789);
    expect_value("a", "value", 1);
    drop_all_values(&cache);
    ck_assert_int_eq(cache_expiry(find("a")), 123456789);
    cache_restore(&cache, find("a"), &entry, cache_expiry(find("a")));
    ck_assert_int_eq(cache_expiry(find("a")), 123456789);
    expect_value("a", "value", 1);
    set("a", "for ever", 2);
    ck_assert_int_eq(cache_expiry(find("a")), 0);
}
END_TEST

static struct cache_key *set_with_headers(struct message_header *headers, size_t count, int64_t expires_us)
{
    struct message message = {.headers = headers, .header_count = count};
    struct kv_entry entry = entry_of("a", "value", 5, 1);

    entry.message = &message;
    return cache_set(&cache, &entry, expires_us, true);
}

START_TEST(headers_are_returned_unchanged_except_the_servers)
{
    struct message_header headers[] = {{"Nats-Msg-Id", "id"}, {"Color", "blue"}, {"Empty", ""}, {"color", "red"}};
    struct cache_view view;

    cache_read(set_with_headers(headers, 4, 99), &view);
    ck_assert_uint_eq(view.message.header_count, 3);
    ck_assert_str_eq(view.headers[0].name, "Color");
    ck_assert_str_eq(view.headers[0].value, "blue");
    ck_assert_str_eq(view.headers[1].name, "Empty");
    ck_assert_str_eq(view.headers[1].value, "");
    ck_assert_str_eq(view.headers[2].name, "color");
    ck_assert_str_eq(view.headers[2].value, "red");
    ck_assert_ptr_eq(view.entry.message, &view.message);
    ck_assert_int_eq(memcmp(view.entry.value, "value", 5), 0);
    ck_assert_int_eq(cache_expiry(find("a")), 99);

    drop_all_values(&cache); /* the headers are evicted with the value */
    cache_read(find("a"), &view);
    ck_assert_uint_eq(view.message.header_count, 0);
    ck_assert(!cache_has_value(find("a")));
}
END_TEST

START_TEST(an_entry_with_too_many_headers_is_read_through)
{
    struct message_header headers[CACHE_HEADERS_MAX + 1];
    char names[CACHE_HEADERS_MAX + 1][8];
    struct cache_view view;

    for (size_t i = 0; i <= CACHE_HEADERS_MAX; i++) {
        snprintf(names[i], sizeof(names[i]), "H%zu", i);
        headers[i] = (struct message_header){names[i], "x"};
    }
    cache_read(set_with_headers(headers, CACHE_HEADERS_MAX, 0), &view);
    ck_assert(cache_has_value(find("a")));
    ck_assert_uint_eq(view.message.header_count, CACHE_HEADERS_MAX);
    set_with_headers(headers, CACHE_HEADERS_MAX + 1, 0);
    ck_assert(!cache_has_value(find("a")));
}
END_TEST

Suite *cache_suite(void)
{
    Suite *suite = suite_create("cache");
    TCase *tests = tcase_create("cache");

    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, a_key_is_found_by_its_whole_name);
    tcase_add_test(tests, keys_of_a_reading_come_before_newer_ones_of_the_feed);
    tcase_add_test(tests, a_late_key_is_met_by_a_walk_that_has_passed_its_place);
    tcase_add_test(tests, the_latest_entry_replaces_the_one_before);
    tcase_add_test(tests, a_marker_is_recognised);
    tcase_add_test(tests, a_value_that_is_not_kept_is_known_to_be_missing);
    tcase_add_test(tests, many_keys_are_found_whatever_was_removed_between);
    tcase_add_test(tests, keys_stand_from_the_oldest_revision_to_the_newest);
    tcase_add_test(tests, a_walk_visits_keys_again_that_change_after_it_has_passed);
    tcase_add_test(tests, a_walk_continues_when_its_next_key_is_removed_or_moved);
    tcase_add_test(tests, a_walk_over_nothing_waits_for_the_first_key);
    tcase_add_test(tests, at_the_budget_values_are_evicted_and_keys_are_kept);
    tcase_add_test(tests, unread_values_are_evicted_before_read_ones);
    tcase_add_test(tests, values_that_were_read_long_ago_are_evicted_too);
    tcase_add_test(tests, keys_alone_cannot_exceed_the_budget);
    tcase_add_test(tests, values_of_the_largest_bucket_are_evicted_first);
    tcase_add_test(tests, values_of_the_user_with_the_most_memory_are_evicted_first);
    tcase_add_test(tests, values_of_others_are_evicted_before_keys_of_watches_are_given_up);
    tcase_add_test(tests, an_evicted_value_comes_back_in_its_place);
    tcase_add_test(tests, only_the_value_of_the_same_revision_comes_back);
    tcase_add_test(tests, a_value_without_bytes_is_never_missed);
    tcase_add_test(tests, the_accounts_are_the_memory_to_within_a_tenth);
    tcase_add_test(tests, a_small_key_takes_little_beside_itself);
    tcase_add_test(tests, marks_show_which_keys_a_reading_has_visited);
    tcase_add_test(tests, a_key_is_doubtful_until_it_is_marked_set_or_removed);
    tcase_add_test(tests, an_expiry_is_kept_and_outlives_its_value);
    tcase_add_test(tests, headers_are_returned_unchanged_except_the_servers);
    tcase_add_test(tests, an_entry_with_too_many_headers_is_read_through);
    suite_add_tcase(suite, tests);
    return suite;
}
