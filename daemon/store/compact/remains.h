/*
 * remains: finds values that are still in nats-server's files although the server counts them as removed.
 *
 * Used by compact, in embedded mode. nats-server 2.15 writes no record when a value is overwritten or deleted: only the
 * key's newer message says that it is gone. If that message is removed too, and the server is then killed, the next
 * start finds the old value and takes it for the key's last message (nats-server issue 8505; measured: each time). So a
 * delete marker may be removed only after the old values of its key have left the files. They leave when all messages
 * of their block are gone, or when the server rewrites the block because less than half of it is in use. A purge writes
 * a record, a tombstone: a value with a tombstone counts as gone.
 *
 * A block file is a row of records: length (4 bytes, the highest bit says that there are headers), sequence (8), time
 * (8), length of the subject (2), subject, length of the headers (4) and headers if there are any, payload, checksum
 * (8). The two highest bits of the sequence mark tombstones and erased messages.
 */
#ifndef DAEMON_STORE_REMAINS_H
#define DAEMON_STORE_REMAINS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct remains_key {
    uint64_t hash;     /* hash_bytes of the subject */
    uint64_t sequence; /* of its delete marker */
    size_t index;      /* for the caller */
    bool has_value;    /* result: the files have a value before the marker, or may have one */
};

/*
 * Look through all block files of a stream, which are in directory, and set has_value of each key. Blocks, so call it
 * on a worker thread. Sorts keys by hash; two subjects with the same hash count as one. A value that is not in the
 * files now does not come back after a loss of power. If the files cannot be read (they are compressed, or have another
 * format), has_value becomes true for all keys. So it does if *is_unwanted becomes true, which is checked before each
 * block and ends the look.
 */
void remains_look(const char *directory, struct remains_key *keys, size_t count, const atomic_bool *is_unwanted);

#endif
