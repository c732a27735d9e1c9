/*
 * check_store: verifies the data directory of an embedded server that does not run.
 *
 * Used by check. It reads every stored message and compares its checksum, so it finds what a disk or a copy has
 * damaged. It does not find messages or blocks that are missing as a whole, and does not read compressed blocks.
 */
#ifndef KVCTL_CHECK_STORE_H
#define KVCTL_CHECK_STORE_H

#include <stdbool.h>
#include <stdint.h>

struct check_store {
    const char *directory;
    bool is_quiet;
    int lock; /* descriptor; -1: none */
    uint64_t streams;
    uint64_t blocks;
    uint64_t messages;
    uint64_t unread;  /* compressed blocks */
    uint64_t damaged; /* findings */
};

/* Lock the directory against a daemon. False after a message: one uses it, or it is no data directory. */
bool check_store_open(struct check_store *check, const char *directory);

/* Check everything. What cannot be read is a finding, too. */
void check_store_run(struct check_store *check);
void check_store_close(struct check_store *check);

#endif
