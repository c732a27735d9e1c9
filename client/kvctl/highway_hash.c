#include "client/kvctl/highway_hash.h"

#include <string.h>

#define PACKET_BYTES 32u

static uint64_t highway_load(const unsigned char *at)
{
    uint64_t word = 0;

    for (unsigned i = 8; i-- > 0;)
        word = word << 8 | at[i];
    return word;
}

static uint64_t highway_swap_halves(uint64_t word)
{
    return word >> 32 | word << 32;
}

void highway_hash_begin(struct highway_hash *hash, const unsigned char key[HIGHWAY_HASH_KEY_BYTES])
{
    static const uint64_t first[] = {0xdbe6d5d5fe4cce2full, 0xa4093822299f31d0ull, 0x13198a2e03707344ull,
                                     0x243f6a8885a308d3ull};
    static const uint64_t second[] = {0x3bd39e10cb0ef593ull, 0xc0acf169b5f18a8cull, 0xbe5466cf34e90c6cull,
                                      0x452821e638d01377ull};

    for (unsigned i = 0; i < HIGHWAY_HASH_LANES; i++) {
        uint64_t word = highway_load(key + 8 * (size_t)i);
        hash->mul0[i] = first[i];
        hash->mul1[i] = second[i];
        hash->v0[i] = first[i] ^ word;
        hash->v1[i] = second[i] ^ highway_swap_halves(word);
    }
    hash->packet_bytes = 0;
}

/* Add the bytes of two words to two others, in an order that spreads them. */
static void highway_zip(uint64_t odd, uint64_t even, uint64_t *add_odd, uint64_t *add_even)
{
    *add_even += ((even & 0xff000000ull) | (odd & 0xff00000000ull)) >> 24 |
                 ((even & 0xff0000000000ull) | (odd & 0xff000000000000ull)) >> 16 | (even & 0xff0000ull) |
                 (even & 0xff00ull) << 32 | (odd & 0xff00000000000000ull) >> 8 | even << 56;
    *add_odd += ((odd & 0xff000000ull) | (even & 0xff00000000ull)) >> 24 | (odd & 0xff0000ull) |
                (odd & 0xff0000000000ull) >> 16 | (odd & 0xff00ull) << 24 | (even & 0xff000000000000ull) >> 8 |
                (odd & 0xffull) << 48 | (even & 0xff00000000000000ull);
}

static void highway_update(struct highway_hash *hash, const uint64_t words[HIGHWAY_HASH_LANES])
{
    uint64_t *v0 = hash->v0, *v1 = hash->v1;

    for (unsigned i = 0; i < HIGHWAY_HASH_LANES; i++) {
        v1[i] += hash->mul0[i] + words[i];
        hash->mul0[i] ^= (v1[i] & 0xffffffffull) * (v0[i] >> 32);
        v0[i] += hash->mul1[i];
        hash->mul1[i] ^= (v0[i] & 0xffffffffull) * (v1[i] >> 32);
    }
    highway_zip(v1[1], v1[0], &v0[1], &v0[0]);
    highway_zip(v1[3], v1[2], &v0[3], &v0[2]);
    highway_zip(v0[1], v0[0], &v1[1], &v1[0]);
    highway_zip(v0[3], v0[2], &v1[3], &v1[2]);
}

static void highway_update_packet(struct highway_hash *hash, const unsigned char *packet)
{
    uint64_t words[HIGHWAY_HASH_LANES];

    for (unsigned i = 0; i < HIGHWAY_HASH_LANES; i++)
        words[i] = highway_load(packet + 8 * (size_t)i);
    highway_update(hash, words);
}

void highway_hash_add(struct highway_hash *hash, const void *bytes, size_t size)
{
    const unsigned char *at = bytes;

    while (size > 0) {
        size_t part = PACKET_BYTES - hash->packet_bytes;
        if (hash->packet_bytes == 0 && size >= PACKET_BYTES) {
            highway_update_packet(hash, at);
            part = PACKET_BYTES;
        } else {
            part = part < size ? part : size;
            memcpy(hash->packet + hash->packet_bytes, at, part);
            hash->packet_bytes += part;
            if (hash->packet_bytes == PACKET_BYTES) {
                highway_update_packet(hash, hash->packet);
                hash->packet_bytes = 0;
            }
        }
        at += part;
        size -= part;
    }
}

static uint64_t highway_rotate_halves(uint64_t word, unsigned bits)
{
    uint32_t low = (uint32_t)word, high = (uint32_t)(word >> 32);

    low = low << bits | low >> (32 - bits);
    high = high << bits | high >> (32 - bits);
    return (uint64_t)high << 32 | low;
}

/* Add the last packet, which has 1 to 31 bytes. */
static void highway_add_rest(struct highway_hash *hash)
{
    size_t size = hash->packet_bytes, whole = size & ~(size_t)3, odd = size & 3;
    const unsigned char *rest = hash->packet + whole;
    unsigned char packet[PACKET_BYTES] = {0};

    for (unsigned i = 0; i < HIGHWAY_HASH_LANES; i++) {
        hash->v0[i] += ((uint64_t)size << 32) + size;
        hash->v1[i] = highway_rotate_halves(hash->v1[i], (unsigned)size);
    }
    memcpy(packet, hash->packet, whole);
    if (size & 16) {
        memcpy(packet + 28, rest + odd - 4, 4);
    } else if (odd > 0) {
        packet[16] = rest[0];
        packet[17] = rest[odd >> 1];
        packet[18] = rest[odd - 1];
    }
    highway_update_packet(hash, packet);
}

uint64_t highway_hash_end(struct highway_hash *hash)
{
    if (hash->packet_bytes > 0)
        highway_add_rest(hash);
    for (unsigned round = 0; round < 4; round++) {
        const uint64_t words[] = {highway_swap_halves(hash->v0[2]), highway_swap_halves(hash->v0[3]),
                                  highway_swap_halves(hash->v0[0]), highway_swap_halves(hash->v0[1])};
        highway_update(hash, words);
    }
    return hash->v0[0] + hash->v1[0] + hash->mul0[0] + hash->mul1[0];
}
