/*
 * highway_hash: HighwayHash with 64 bits, the checksum of nats-server's files.
 *
 * Used by check_store. The algorithm is the one that its authors have published (arXiv:1612.06257, section 4).
 */
#ifndef KVCTL_HIGHWAY_HASH_H
#define KVCTL_HIGHWAY_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HIGHWAY_HASH_KEY_BYTES 32u
#define HIGHWAY_HASH_LANES     4u

struct highway_hash {
    uint64_t v0[HIGHWAY_HASH_LANES], v1[HIGHWAY_HASH_LANES], mul0[HIGHWAY_HASH_LANES], mul1[HIGHWAY_HASH_LANES];
    unsigned char packet[32];
    size_t packet_bytes;
};

void highway_hash_begin(struct highway_hash *hash, const unsigned char key[HIGHWAY_HASH_KEY_BYTES]);
void highway_hash_add(struct highway_hash *hash, const void *bytes, size_t size);
uint64_t highway_hash_end(struct highway_hash *hash);

#endif
