/*
 * nkey: the public key of an nkey seed.
 *
 * Used by credentials. The configuration has a file with the seed, and the library also needs the public key. Both are
 * base32 of a prefix, the Ed25519 key and a CRC-16 (the nkeys project's README, "Encoding").
 */
#ifndef DAEMON_NATS_NKEY_H
#define DAEMON_NATS_NKEY_H

#define NKEY_PUBLIC_BYTES 57 /* 56 characters and the NUL */

/*
 * Find the first line of a text that is a user's seed ("SU…"), and write its public key ("U…"). Return NULL, or a
 * sentence that says what is wrong.
 */
const char *nkey_find_public(const char *text, char public_key[NKEY_PUBLIC_BYTES]);

#endif
