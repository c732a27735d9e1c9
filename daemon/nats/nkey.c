#include "daemon/nats/nkey.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <string.h>

#define SEED_CHARACTERS 58
#define SEED_BYTES      36 /* 2 of prefix, 32 of key, 2 of checksum */
#define PUBLIC_BYTES    35 /* 1 of prefix, 32 of key, 2 of checksum */
#define PREFIX_SEED     (18u << 3)
#define PREFIX_USER     (20u << 3)

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"; /* RFC 4648, base32 */

/* CRC-16/XMODEM, little-endian after the key. */
static uint16_t checksum(const uint8_t *bytes, size_t length)
{
    uint16_t crc = 0;

    for (size_t i = 0; i < length; i++) {
        crc = (uint16_t)(crc ^ (uint16_t)(bytes[i] << 8));
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? (crc << 1) ^ 0x1021 : crc << 1);
    }
    return crc;
}

static int decode(const char *text, size_t length, uint8_t *bytes)
{
    uint32_t window = 0;
    unsigned bits = 0;

    for (size_t i = 0; i < length; i++) {
        const char *digit = strchr(alphabet, text[i]);
        if (text[i] == '\0' || digit == NULL)
            return -1;
        window = window << 5 | (uint32_t)(digit - alphabet);
        bits += 5;
        if (bits >= 8) {
            bits -= 8;
            *bytes++ = (uint8_t)(window >> bits);
        }
    }
    return 0;
}

static void encode(const uint8_t *bytes, size_t length, char *text)
{
    uint32_t window = 0;
    unsigned bits = 0;

    for (size_t i = 0; i < length; i++) {
        window = window << 8 | bytes[i];
        bits += 8;
        while (bits >= 5) {
            bits -= 5;
            *text++ = alphabet[window >> bits & 31];
        }
    }
    *text = '\0';
}

static const char *derive_public(const uint8_t seed[SEED_BYTES], char public_key[NKEY_PUBLIC_BYTES])
{
    uint8_t key[PUBLIC_BYTES];
    size_t key_bytes = 32;

    if ((seed[0] & 0xf8u) != PREFIX_SEED || (((seed[0] & 7u) << 5) | (seed[1] >> 3)) != PREFIX_USER)
        return "it is not a user's seed (these begin with SU)";
    if (checksum(seed, SEED_BYTES - 2) != (seed[SEED_BYTES - 2] | seed[SEED_BYTES - 1] << 8))
        return "its checksum is wrong: a character was lost or changed";

    EVP_PKEY *pair = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed + 2, 32);
    int derived = pair != NULL && EVP_PKEY_get_raw_public_key(pair, key + 1, &key_bytes) == 1;
    EVP_PKEY_free(pair);
    if (!derived)
        return "the cryptographic library refuses it";

    key[0] = PREFIX_USER;
    uint16_t crc = checksum(key, PUBLIC_BYTES - 2);
    key[PUBLIC_BYTES - 2] = (uint8_t)crc;
    key[PUBLIC_BYTES - 1] = (uint8_t)(crc >> 8);
    encode(key, PUBLIC_BYTES, public_key);
    return NULL;
}

const char *nkey_find_public(const char *text, char public_key[NKEY_PUBLIC_BYTES])
{
    const char *wrong = "no line of it is an nkey seed of a user (SU...)";
    uint8_t seed[SEED_BYTES + 1];

    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n') {
        if (line[0] != 'S' || strspn(line, alphabet) != SEED_CHARACTERS)
            continue;
        wrong = decode(line, SEED_CHARACTERS, seed) == 0 ? derive_public(seed, public_key) : "it is not base32";
        break;
    }
    OPENSSL_cleanse(seed, sizeof(seed));
    return wrong;
}
