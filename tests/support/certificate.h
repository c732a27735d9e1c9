/*
 * certificate: certificates for tests, made with the program openssl.
 */
#ifndef SUPPORT_CERTIFICATE_H
#define SUPPORT_CERTIFICATE_H

/* Run "openssl COMMAND" in a directory. It must succeed. */
void certificate_run_openssl(const char *directory, const char *command);

/*
 * Make in a directory: ca.pem, an authority; server.pem and client.pem, which it has signed for 127.0.0.1 and
 * nats.test; their keys ca.key, server.key and client.key; and other.pem, another authority.
 */
void certificate_make_all(const char *directory);

/* Sign server.csr again, with these lines of extensions, for so many days from now. Below 1 it has expired. */
void certificate_sign_server(const char *directory, const char *extensions, int days);

#endif
