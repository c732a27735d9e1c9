/*
 * entry: reads entries from the daemon's maps into one block.
 *
 * Used for each result that has entries in it: measure all of them, make a block of
 * entry_space_bytes, lay it out, then read them one by one, in any order.
 */
#ifndef CLIENT_ENTRY_H
#define CLIENT_ENTRY_H

#include "client/lib/kvstore_raw.h"

/* What entries need; all zero at the beginning, but for of_watch. */
struct entry_space {
    bool of_watch; /* an entry may have its value's size in place of it, and the revision 0 (of a bucket made anew) */
    size_t entries;
    size_t headers;
    size_t text_bytes;
};

/* Where the next entry and its parts go. */
struct entry_places {
    struct kvs_entry *entries;
    struct kvs_header *headers;
    char *text;
};

/* The operation's name in the protocol, such as "put". */
const char *entry_operation_name(enum kvs_operation operation);

/* Adds what one entry needs. False where value is none. */
bool entry_measure(const struct kvs_value *value, struct entry_space *space);

size_t entry_space_bytes(const struct entry_space *space);

/* block is aligned for pointers. */
struct entry_places entry_lay_out(void *block, const struct entry_space *space);

/* Reads a value that was measured. */
struct kvs_entry *entry_read(const struct kvs_value *value, struct entry_places *places);

#endif
