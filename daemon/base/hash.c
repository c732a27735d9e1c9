#include "daemon/base/hash.h"

#include "daemon/base/chance.h"

#include <stdbool.h>
#include <string.h>

static struct {
    bool is_set;
    uint64_t words[2];
} process_key;

static inline uint64_t rotate(uint64_t word, unsigned bits)
{
    return word << bits | word >> (64 - bits);
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

uint64_t hash_bytes_with(const uint64_t key[2], const void *bytes, size_t length)
{
    uint64_t v[4] = {key[0] ^ 0x736f6d6570736575u, key[1] ^ 0x646f72616e646f6du, key[0] ^ 0x6c7967656e657261u,
                     key[1] ^ 0x7465646279746573u};
    const unsigned char *at = bytes;
    uint64_t word, last = (uint64_t)length << 56;

    for (; length >= 8; at += 8, length -= 8) {
        memcpy(&word, at, sizeof(word));
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    for (size_t i = 0; i < length; i++)
        last |= (uint64_t)at[i] << (8 * i);
    v[3] ^= last;
    sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    sip_round(v);
    sip_round(v);
    sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void hash_make_key(uint64_t key[2])
{
    key[0] = chance_number();
    key[1] = chance_number();
}

uint64_t hash_bytes(const void *bytes, size_t length)
{
    if (!process_key.is_set) {
        hash_make_key(process_key.words);
        process_key.is_set = true;
    }
    return hash_bytes_with(process_key.words, bytes, length);
}
