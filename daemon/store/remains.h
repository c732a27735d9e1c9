/*
 * remains: values that nats-server's files still hold, although the server counts them as overwritten.
 *
 * Used by compact, in embedded mode. nats-server 2.15 writes no record of the removal of a value that was overwritten
 * or deleted: what removes it is only the key's newer message. If that message is removed too, and the server is then
 * killed, the next start finds the old value and takes it for the key's last one (nats-server issue 8505; measured:
 * each time). So a delete marker may go only after the old values of its key have left the files. They leave when all
 * messages of their block are gone, or when the server rewrites the block because less than half of it is in use.
 * What is purged gets a record, a tombstone: such a value counts as gone.
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
    size_t index;      /* the caller's */
    bool has_value;    /* set: the files have a value before the marker, or this cannot be known */
};

/*
 * Looks through all block files of a stream, whose messages are in directory. Blocks: to be called on a worker thread.
 * Sorts keys by hash. Two subjects of one hash count as one. What has left the files when this returns has left them
 * for good, also after a loss of power. If the files cannot be understood (they are compressed, or of another format),
 * all keys have values. The same if *is_unwanted becomes true, which ends the look before the next block.
 */
void remains_look(const char *directory, struct remains_key *keys, size_t count, const atomic_bool *is_unwanted);

#endif
