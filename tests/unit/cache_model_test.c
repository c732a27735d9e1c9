/* The cache and a simple model of it agree after any operations. */
#include "daemon/store/follow/cache.h"
#include "tests/unit/suites.h"

#include <check.h>
#include <limits.h>
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

#define KEYS        200u
#define STEPS       60000u
#define VALUE_BYTES 300u

/* The model: each key's revision (0: no key), its value's size, its operation, and whether a reading has visited it. */
struct model_key {
    uint64_t revision;
    size_t value_bytes;
    int64_t expires_us;
    enum kv_operation operation;
    bool is_marked;
};

/* Check writes to a file for each of its assertions, and there are millions here: report only failures. */
#define must(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            ck_abort_msg("%s", #condition);                                                                            \
    } while (0)

struct model {
    struct cache_budget budget;
    struct cache cache;
    struct model_key keys[KEYS];
    uint64_t revision;
    unsigned seed;
    /* A walk in progress: the revision of each key that it visited last. */
    struct cache_cursor cursor;
    bool is_walking;
    uint64_t met[KEYS], met_last;
};

static unsigned draw(struct model *model, unsigned below)
{
    return (unsigned)rand_r(&model->seed) % below;
}

static const char *name_of(unsigned number)
{
    static char name[64];

    /* Names of different lengths, some of which begin others. */
    snprintf(name, sizeof(name), "key.%.*s%u", (int)(number % 30), "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", number);
    return name;
}

static unsigned number_of(const struct cache_key *key)
{
    return (unsigned)strtoul(strpbrk(cache_key_name(key), "0123456789"), NULL, 10);
}

static struct cache_key *find(const struct model *model, unsigned number)
{
    const char *name = name_of(number);

    return cache_find(&model->cache, name, strlen(name));
}

/* Each value identifies itself. */
static struct kv_entry entry_of(unsigned number, const struct model_key *key, char value[VALUE_BYTES])
{
    static struct message no_headers;

    memset(value, (int)(key->revision % 256), VALUE_BYTES);
    return (struct kv_entry){.key = name_of(number),
                             .value = value,
                             .value_bytes = key->value_bytes,
                             .revision = key->revision,
                             .operation = key->operation,
                             .message = &no_headers};
}

static void set_one(struct model *model, unsigned number)
{
    struct model_key *key = &model->keys[number];
    char value[VALUE_BYTES];
    bool is_put = draw(model, 5) > 0;

    key->revision = ++model->revision;
    key->operation = is_put ? KV_PUT : KV_DELETE;
    key->value_bytes = is_put ? draw(model, VALUE_BYTES) : 0;
    key->expires_us = draw(model, 4) == 0 ? 1 + draw(model, 1000) : 0;
    key->is_marked = true;
    struct kv_entry entry = entry_of(number, key, value);
    must(cache_set(&model->cache, &entry, key->expires_us, is_put) != NULL);
}

static void restore_one(struct model *model, unsigned number)
{
    const struct model_key *key = &model->keys[number];
    char value[VALUE_BYTES];
    struct kv_entry entry = entry_of(number, key, value);

    cache_restore(&model->cache, find(model, number), &entry, key->expires_us);
}

static void walk_on(struct model *model)
{
    struct cache_key *key;

    if (!model->is_walking) {
        cache_cursor_begin(&model->cache, &model->cursor);
        memset(model->met, 0, sizeof(model->met));
        model->met_last = 0;
        model->is_walking = true;
    }
    for (unsigned steps = draw(model, KEYS); steps > 0; steps--) {
        if ((key = cache_cursor_next(&model->cursor)) == NULL) {
            /* At the end each key was visited in its present state. */
            for (unsigned i = 0; i < KEYS; i++)
                must(model->keys[i].revision == 0 || model->met[i] == model->keys[i].revision);
            cache_cursor_end(&model->cursor);
            model->is_walking = false;
            return;
        }
        must(key->revision > model->met_last); /* in order, and none twice */
        model->met_last = model->met[number_of(key)] = key->revision;
    }
}

static void compare_key(const struct model *model, unsigned number, size_t *count)
{
    const struct model_key *key = &model->keys[number];
    struct cache_key *found = find(model, number);
    struct cache_view view;
    char value[VALUE_BYTES];

    must((found != NULL) == (key->revision > 0));
    if (found == NULL)
        return;
    ++*count;
    must(found->revision == key->revision);
    must(cache_operation(found) == key->operation);
    must(cache_expiry(found) == key->expires_us);
    must(cache_is_marked(&model->cache, found) == key->is_marked);
    cache_read(found, &view);
    must(view.entry.value_bytes == key->value_bytes);
    struct kv_entry entry = entry_of(number, key, value);
    if (cache_has_value(found))
        must(memcmp(view.entry.value, entry.value, key->value_bytes) == 0);
}

/* Compare all keys that are not deleted, in byte order, and those after one of them. */
static void compare_order(const struct model *model)
{
    struct key_order_place place = cache_place(&model->cache, "", false);
    const struct cache_key *key, *before = NULL;
    size_t count = 0;

    for (; (key = cache_next_in_order(&model->cache, &place)) != NULL; before = key, count++) {
        must(cache_operation(key) == KV_PUT);
        must(before == NULL || strcmp(cache_key_name(before), cache_key_name(key)) < 0);
        if (before != NULL) {
            struct key_order_place behind = cache_place(&model->cache, cache_key_name(before), true);
            must(cache_next_in_order(&model->cache, &behind) == key);
        }
    }
    ck_assert_uint_eq(model->cache.value_count, count);
}

static void compare(const struct model *model)
{
    size_t count = 0, values = 0, value_bytes = 0;
    uint64_t before = 0;

    for (unsigned i = 0; i < KEYS; i++)
        compare_key(model, i, &count);
    ck_assert_uint_eq(model->cache.count, count);
    for (struct cache_key *key = model->cache.oldest; key != NULL; key = key->newer, count--) {
        values += cache_operation(key) == KV_PUT;
        must(key->revision > before);
        before = key->revision;
        value_bytes += cache_has_value(key) ? key->value_bytes : 0;
    }
    ck_assert_uint_eq(count, 0);
    ck_assert_uint_eq(model->cache.value_bytes, value_bytes);
    ck_assert_uint_eq(model->cache.value_count, values);
    compare_order(model);
    ck_assert_uint_eq(model->cache.bytes, model->budget.bytes);
    ck_assert_uint_le(model->budget.bytes, model->budget.max_bytes);
}

static void step(struct model *model)
{
    unsigned number = draw(model, KEYS);
    struct cache_key *key = find(model, number);
    struct cache_view view;

    switch (draw(model, 12)) {
    case 0:
    case 1:
        if (key != NULL)
            cache_remove(&model->cache, key);
        model->keys[number].revision = 0;
        break;
    case 2:
    case 3:
        if (key != NULL && !cache_has_value(key))
            restore_one(model, number);
        break;
    case 4:
        if (key != NULL && cache_has_value(key))
            cache_read(key, &view);
        break;
    case 5:
        walk_on(model);
        break;
    case 6:
        if (key != NULL)
            cache_mark(&model->cache, key);
        model->keys[number].is_marked = true;
        break;
    case 7:
        if (draw(model, 100) == 0) {
            cache_unmark_all(&model->cache);
            for (unsigned i = 0; i < KEYS; i++)
                model->keys[i].is_marked = false;
        } else if (draw(model, 300) == 0) {
            drop_all_values(&model->cache);
        }
        break;
    default:
        set_one(model, number);
        break;
    }
}

START_TEST(the_cache_agrees_with_the_model_after_any_operations)
{
    struct model *model = calloc(1, sizeof(*model));

    ck_assert_ptr_nonnull(model);
    model->seed = (unsigned)_i + 1;
    /* A large budget, or one so small that values are always evicted. */
    model->budget.max_bytes = _i % 2 == 0 ? 1024 * 1024 : 24 * 1024;
    cache_init(&model->cache, &model->budget);
    for (unsigned i = 0; i < STEPS; i++) {
        step(model);
        if (i % 200 == 0)
            compare(model);
    }
    compare(model);
    ck_assert_msg((model->budget.evicted > 100) == (_i % 2 == 1), "%llu were evicted",
                  (unsigned long long)model->budget.evicted);
    if (model->is_walking)
        cache_cursor_end(&model->cursor);
    cache_clear(&model->cache);
    cache_collect(&model->budget, UINT_MAX);
    ck_assert_uint_eq(model->budget.bytes, 0);
    free(model);
}
END_TEST

Suite *cache_model_suite(void)
{
    Suite *suite = suite_create("cache_model");
    TCase *tests = tcase_create("cache_model");

    tcase_add_loop_test(tests, the_cache_agrees_with_the_model_after_any_operations, 0, 6);
    suite_add_tcase(suite, tests);
    return suite;
}
