/*
 * hash: the one hash function of names that clients choose.
 *
 * Used by every table of the daemon. SipHash-1-3 (Aumasson and Bernstein, 2012) with a random key of the process: a
 * client cannot choose names that fall into one slot.
 */
#ifndef DAEMON_HASH_H
#define DAEMON_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t hash_bytes(const void *bytes, size_t length);

/* Make a random key. */
void hash_make_key(uint64_t key[2]);

/* The same as hash_bytes with a given key. */
uint64_t hash_bytes_with(const uint64_t key[2], const void *bytes, size_t length);

#endif
