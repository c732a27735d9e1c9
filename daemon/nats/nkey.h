/*
 * nkey: the public half of an nkey seed.
 *
 * Used by the link: a NATS user who signs with an nkey gives a file with the seed,
 * and the library also wants the public key. The form of both: base32 of a prefix,
 * the Ed25519 key and a CRC-16 (the nkeys project's README, "Encoding").
 */
#ifndef DAEMON_NATS_NKEY_H
#define DAEMON_NATS_NKEY_H

#define NKEY_PUBLIC_BYTES 57 /* 56 characters and the NUL */

/*
 * Reads the first line of the file at path that is a user's seed ("SU…") and writes
 * its public key ("U…"). NULL, or a sentence that says what is wrong.
 */
const char *nkey_read_public(const char *path, char public_key[NKEY_PUBLIC_BYTES]);

#endif
