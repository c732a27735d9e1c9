#include "daemon/store/read/key_page.h"

#include "daemon/base/block.h"

#include <stdlib.h>
#include <string.h>

/* What is noted of a key; its name follows. */
struct key_page_note {
    uint64_t revision;
    uint64_t value_bytes;
    char name[];
};

static struct key_page_note *key_page_note_of(const char *name)
{
    return (struct key_page_note *)(void *)((char *)name - offsetof(struct key_page_note, name));
}

uint64_t key_page_revision(const char *name)
{
    return key_page_note_of(name)->revision;
}

uint64_t key_page_value_bytes(const char *name)
{
    return key_page_note_of(name)->value_bytes;
}

/* Return the block that a name of the page is in. */
static void *key_page_block(const struct key_page *page, const char *name)
{
    return page->has_revisions ? (void *)key_page_note_of(name) : (void *)name;
}

/* Return the most that a key takes in an answer: its bytes and a str 16 header. */
static size_t key_page_packed_bytes(const char *name)
{
    return strlen(name) + 3;
}

/* Return what a name takes in memory, with its place in the order. */
static size_t key_page_name_bytes(const struct key_page *page, const char *name)
{
    return block_bytes(key_page_block(page, name)) + 2 * sizeof(name);
}

static char *key_page_new_name(const struct key_page *page, const char *key)
{
    size_t bytes = strlen(key) + 1;
    struct key_page_note *note;

    if (!page->has_revisions)
        return strdup(key);
    note = malloc(sizeof(*note) + bytes);
    if (note == NULL)
        return NULL;
    memcpy(note->name, key, bytes);
    return note->name;
}

static void key_page_free_name(const struct key_page *page, char *name)
{
    if (name != NULL)
        free(key_page_block(page, name));
}

static void key_page_set_note(const struct key_page *page, const char *name, uint64_t revision, uint64_t value_bytes)
{
    if (!page->has_revisions)
        return;
    key_page_note_of(name)->revision = revision;
    key_page_note_of(name)->value_bytes = value_bytes;
}

/* A name leaves the page. */
static void key_page_discount(struct key_page *page, const char *name)
{
    page->packed_bytes -= key_page_packed_bytes(name);
    page->memory_bytes -= key_page_name_bytes(page, name);
    page->count--;
}

/* Return the page's own name of a key; NULL if it is not in the page. */
static char *key_page_find(const struct key_page *page, const char *key)
{
    struct key_order_place place = key_order_find(&page->names, key, false);
    const char *name = key_order_next(&page->names, &place);

    return name != NULL && strcmp(name, key) == 0 ? (char *)name : NULL;
}

/* The page is full: drop its last key, whose name becomes the bound. */
static void key_page_drop_last(struct key_page *page)
{
    char *name = (char *)key_order_remove_last(&page->names);

    key_page_discount(page, name);
    key_page_free_name(page, page->bound);
    page->bound = name;
}

/* Return whether the page has no place for a key: it is beyond the bound, which the key becomes if it is lower. */
static enum key_page_added key_page_check_bound(struct key_page *page, const char *key)
{
    if (page->bound != NULL && strcmp(key, page->bound) >= 0)
        return KEY_PAGE_BEYOND;
    if (!key_page_is_full(page) || strcmp(key, key_order_last(&page->names)) <= 0)
        return KEY_PAGE_ADDED;
    char *name = key_page_new_name(page, key);
    if (name == NULL)
        return KEY_PAGE_NO_MEMORY;
    key_page_free_name(page, page->bound);
    page->bound = name;
    return KEY_PAGE_BEYOND;
}

enum key_page_added key_page_add(struct key_page *page, const char *key, uint64_t revision, uint64_t value_bytes)
{
    enum key_page_added fits = key_page_check_bound(page, key);

    if (fits != KEY_PAGE_ADDED)
        return fits;
    char *name = key_page_new_name(page, key);
    if (name == NULL)
        return KEY_PAGE_NO_MEMORY;
    switch (key_order_add(&page->names, name)) {
    case KEY_ORDER_NO_MEMORY:
        key_page_free_name(page, name);
        return KEY_PAGE_NO_MEMORY;
    case KEY_ORDER_HAD_IT:
        key_page_free_name(page, name);
        if (page->has_revisions)
            key_page_set_note(page, key_page_find(page, key), revision, value_bytes);
        return KEY_PAGE_ADDED;
    case KEY_ORDER_ADDED:
        break;
    }
    key_page_set_note(page, name, revision, value_bytes);
    page->count++;
    page->packed_bytes += key_page_packed_bytes(name);
    page->memory_bytes += key_page_name_bytes(page, name);
    if (page->limit > 0 && page->count > page->limit)
        key_page_drop_last(page);
    return KEY_PAGE_ADDED;
}

void key_page_remove(struct key_page *page, const char *key)
{
    char *name = key_page_find(page, key);

    if (name == NULL)
        return;
    key_order_remove(&page->names, key);
    key_page_discount(page, name);
    key_page_free_name(page, name);
}

bool key_page_clear_some(struct key_page *page, unsigned count)
{
    for (; count > 0 && page->names.leaf_count > 0; count--)
        key_page_free_name(page, (char *)key_order_remove_last(&page->names));
    if (page->names.leaf_count > 0)
        return true;
    key_page_clear(page);
    return false;
}

void key_page_clear(struct key_page *page)
{
    struct key_order_place place = {0};

    for (const char *name; (name = key_order_next(&page->names, &place)) != NULL;)
        key_page_free_name(page, (char *)name);
    key_order_clear(&page->names);
    key_page_free_name(page, page->bound);
    *page = (struct key_page){.limit = page->limit, .has_revisions = page->has_revisions};
}
