#include "tests/support/nkey.h"

#include "tests/support/text.h"

#include <check.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"; /* RFC 4648, base32 */

/* Return base32 of the bytes and their CRC-16. */
static char *nkey_encode(const unsigned char *raw, size_t length)
{
    unsigned char bytes[64];
    unsigned crc = 0, bits = 0, held = 0;
    char *text = keep(calloc(1, 128)), *at = text;

    memcpy(bytes, raw, length);
    for (size_t i = 0; i < length; i++) {
        crc ^= (unsigned)raw[i] << 8;
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc & 0x8000 ? (crc << 1 ^ 0x1021) & 0xffff : crc << 1 & 0xffff;
    }
    bytes[length++] = (unsigned char)(crc & 0xff);
    bytes[length++] = (unsigned char)(crc >> 8);
    for (size_t i = 0; i < length; i++) {
        held = held << 8 | bytes[i];
        for (bits += 8; bits >= 5; bits -= 5)
            *at++ = alphabet[held >> (bits - 5) & 31];
    }
    if (bits > 0)
        *at++ = alphabet[held << (5 - bits) & 31];
    return text;
}

void nkey_make(char kind, char **seed, char **public_key)
{
    enum { PREFIX_SEED = 18 << 3 };
    unsigned prefix = (unsigned)(strchr(alphabet, kind) - alphabet) << 3;
    unsigned char raw[34], public_raw[33];
    size_t length = 32;

    raw[0] = (unsigned char)(PREFIX_SEED | prefix >> 5);
    raw[1] = (unsigned char)((prefix & 31) << 3);
    ck_assert_int_eq(RAND_bytes(raw + 2, 32), 1);
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, raw + 2, 32);
    public_raw[0] = (unsigned char)prefix;
    ck_assert_int_eq(EVP_PKEY_get_raw_public_key(key, public_raw + 1, &length), 1);
    EVP_PKEY_free(key);
    *seed = nkey_encode(raw, sizeof(raw));
    *public_key = nkey_encode(public_raw, sizeof(public_raw));
}

static void nkey_decode_private(const char *seed, unsigned char private_key[32])
{
    unsigned char raw[40];
    unsigned bits = 0, held = 0;
    size_t length = 0;

    for (; *seed != '\0' && length < sizeof(raw); seed++) {
        held = held << 5 | (unsigned)(strchr(alphabet, *seed) - alphabet);
        bits += 5;
        if (bits >= 8) {
            bits -= 8;
            raw[length++] = (unsigned char)(held >> bits);
        }
    }
    memcpy(private_key, raw + 2, 32);
}

/* RFC 4648, base64url without padding. */
static const char *nkey_encode_base64(const void *bytes, size_t length)
{
    char *text = keep(calloc(1, length * 2 + 8)), *padding;

    EVP_EncodeBlock((unsigned char *)text, bytes, (int)length);
    for (char *c = text; *c != '\0'; c++)
        *c = (char)(*c == '+' ? '-' : *c == '/' ? '_' : *c);
    padding = strchr(text, '=');
    if (padding != NULL)
        *padding = '\0';
    return text;
}

const char *nkey_sign_jwt(const char *seed, const char *claims)
{
    static const char head[] = "{\"typ\":\"JWT\",\"alg\":\"ed25519-nkey\"}";
    unsigned char private_key[32], signature[64];
    size_t length = sizeof(signature);
    const char *text =
        format_text("%s.%s", nkey_encode_base64(head, strlen(head)), nkey_encode_base64(claims, strlen(claims)));

    nkey_decode_private(seed, private_key);
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, private_key, 32);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    ck_assert_int_eq(EVP_DigestSignInit(context, NULL, NULL, NULL, key), 1);
    ck_assert_int_eq(EVP_DigestSign(context, signature, &length, (const unsigned char *)text, strlen(text)), 1);
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    return format_text("%s.%s", text, nkey_encode_base64(signature, length));
}
