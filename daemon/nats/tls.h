/*
 * tls: what the daemon does to the TLS sessions that the C library of NATS makes.
 *
 * Used by libnats and wire. The library creates an OpenSSL session for each encrypted connection and has no function
 * that returns it. OpenSSL calls back for each session that any thread of the process creates or frees
 * (SSL_get_ex_new_index), so a thread that connects learns its session in that way. The same callback makes the
 * handshake ignore a certificate's common name: RFC 6125 (6.4.4) and RFC 9525 allow only subject alternative names.
 */
#ifndef DAEMON_NATS_TLS_H
#define DAEMON_NATS_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

/* What a thread learns of the session that it is creating. Zeroed: nothing yet. */
struct tls_observer {
    SSL *session; /* the newest that is not freed; NULL: none */
    int alert;    /* the last fatal alert that the server sent (RFC 8446, 6); 0: none */
};

/* Registers the callbacks, once in the process. False: OpenSSL has no memory or place for them. */
bool tls_init(void);

/* "certificate required", for example. */
const char *tls_alert_text(int alert);

/* From now on the observer is told of the sessions of the calling thread; NULL: nobody is. */
void tls_observe(struct tls_observer *observer);

/*
 * Makes a session that has finished its handshake ready for non-blocking use on a descriptor, which stays the caller's.
 * False: OpenSSL has no memory.
 */
bool tls_adopt(SSL *session, int descriptor);

/*
 * As recv and send with MSG_DONTWAIT, but for a peer that closes: *length is 0 then and nothing else is. WAIT_TO_READ
 * and WAIT_TO_WRITE: nothing was done, try again when the socket is readable or writable.
 */
enum tls_result { TLS_DONE, TLS_WAIT_TO_READ, TLS_WAIT_TO_WRITE, TLS_CLOSED, TLS_FAILED };
enum tls_result tls_read(SSL *session, void *buffer, size_t size, size_t *length);
enum tls_result tls_write(SSL *session, const void *bytes, size_t size, size_t *length);

/* After TLS_FAILED: the reason. */
void tls_describe_failure(char *text, size_t text_bytes);

#endif
