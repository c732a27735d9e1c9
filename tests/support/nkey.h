/*
 * nkey: keys and JWTs of NATS, as its tools make them.
 */
#ifndef SUPPORT_NKEY_H
#define SUPPORT_NKEY_H

/* Make a pair of keys. kind: 'O' for an operator, 'A' for an account, 'U' for a user. The texts are kept. */
void nkey_make(char kind, char **seed, char **public_key);

/* Return a JWT with these claims, an object of JSON, that the owner of the seed has signed. */
const char *nkey_sign_jwt(const char *seed, const char *claims);

#endif
