/*
 * keys: the operations on a bucket of many keys that keys.c measures.
 *
 * Each is a scale_operation with a struct keys as its context. Each checks what the daemon has answered, and ends the
 * program if that is wrong.
 */
#ifndef TESTS_SCALE_KEYS_H
#define TESTS_SCALE_KEYS_H

#include "tests/scale/scale.h"

#define KEYS_CALLS        200u /* of one operation */
#define KEYS_TRANSACTIONS 20u
#define KEYS_PUTS         10u /* of a transaction */
#define KEYS_NAME_BYTES   24u

struct keys {
    uint64_t count;
    uint64_t live;  /* keys that a listing must have */
    uint64_t state; /* of the random numbers */
    uint64_t revisions[KEYS_CALLS];
    char update_names[KEYS_CALLS][KEYS_NAME_BYTES];
    unsigned number; /* of the value that is written next */
};

/* Put, delete all keys with bulk calls of 1,000 keys, several in flight. */
scale_operation keys_put_all, keys_delete_all;

/* KEYS_CALLS calls for random keys, one after the other. */
scale_operation keys_get_some, keys_put_some;

/* KEYS_CALLS updates of keys, whose revisions keys_prepare_update finds before. */
void keys_prepare_update(struct scale_servers *servers, struct keys *keys);
scale_operation keys_update_some;

/* KEYS_TRANSACTIONS transactions, one after the other. */
scale_operation keys_commit_some;

/* All keys in one call, all in pages of 1,000, a page of 100 from a random key on. */
scale_operation keys_list, keys_list_pages, keys_list_page, keys_list_page_direct;

/* A watch from the beginning until it is ready. */
scale_operation keys_watch;

/* Read a key until the local copy answers it: until a read is not counted as a miss. */
scale_operation keys_load;

#endif
