/*
 * entry: reads entries from the daemon's maps into one block.
 *
 * Used for each result with entries: measure all of them, allocate a block of entry_space_bytes, lay it out, then read
 * them one by one, in any order.
 */
#ifndef CLIENT_ENTRY_H
#define CLIENT_ENTRY_H

#include "client/lib/kvstore_raw.h"

/* The space that entries need. Zero it at the beginning, except of_watch. */
struct entry_space {
    bool of_watch; /* an entry may have the size of its value instead */
    size_t entries;
    size_t headers;
    size_t text_bytes;
};

/* Where the next entry and its parts are placed. */
struct entry_places {
    struct kvs_entry *entries;
    struct kvs_header *headers;
    char *text;
};

/* Return the operation's name in the protocol, such as "put". */
const char *entry_operation_name(enum kvs_operation operation);

/* Add the space for one entry. False if value is not an entry. */
bool entry_measure(const struct kvs_value *value, struct entry_space *space);

size_t entry_space_bytes(const struct entry_space *space);

/* block is aligned for pointers. */
struct entry_places entry_lay_out(void *block, const struct entry_space *space);

/* Read a value that was measured. */
struct kvs_entry *entry_read(const struct kvs_value *value, struct entry_places *places);

#endif
