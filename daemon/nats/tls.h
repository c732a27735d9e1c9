/*
 * tls: takes over the TLS sessions that the C library of NATS creates, and uses them without blocking.
 *
 * Used by libnats and wire. The library creates an OpenSSL session for each encrypted connection and has no function
 * that returns it. OpenSSL has a callback for each session that is created or freed (SSL_get_ex_new_index), by which a
 * thread that connects finds its session. The same callback makes the handshake ignore a certificate's common name: RFC
 * 6125 (6.4.4) and RFC 9525 allow only subject alternative names.
 */
#ifndef DAEMON_NATS_TLS_H
#define DAEMON_NATS_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

/* What a thread learns of the session that it creates. Zeroed: nothing yet. */
struct tls_observer {
    SSL *session; /* the newest one that is not freed; NULL: none */
    int alert;    /* the last fatal alert that the server sent (RFC 8446, 6); 0: none */
};

/* Register the callbacks, once in the process. Return false if OpenSSL has no memory or room for them. */
bool tls_init(void);

/* Return a text such as "certificate required". */
const char *tls_alert_text(int alert);

/* Set the observer of the sessions that the calling thread creates and frees. NULL: remove it. */
void tls_observe(struct tls_observer *observer);

/*
 * Prepare a session that has finished its handshake for non-blocking use on a descriptor, which stays the caller's.
 * From now on whole buffers of many records are received and sent. (Single records would cost two system calls each.)
 * Return false if OpenSSL has no memory.
 */
bool tls_adopt(SSL *session, int descriptor);

/*
 * WAIT_TO_READ and WAIT_TO_WRITE: nothing was done; try again when the socket is readable or writable. INTERRUPTED,
 * only of tls_read: records without data came, and more of any kind may follow; try again when there is time. CLOSED,
 * only of tls_read: the server sends nothing more.
 */
enum tls_result { TLS_DONE, TLS_WAIT_TO_READ, TLS_WAIT_TO_WRITE, TLS_INTERRUPTED, TLS_CLOSED, TLS_FAILED };

/* The socket may be readable: tls_read receives from it until it gets less than a buffer. */
void tls_begin_reading(SSL *session);

/* Read the next bytes, of one record at most. */
enum tls_result tls_read(SSL *session, void *buffer, size_t size, size_t *length);

/* Encrypt bytes; they are sent in tls_flush at the latest. If the result is a wait, call it again with the same bytes.
 */
enum tls_result tls_write(SSL *session, const void *bytes, size_t size, size_t *length);

/* Send what is encrypted. */
enum tls_result tls_flush(SSL *session);

/* Return the encrypted bytes that are unsent. */
size_t tls_unsent_bytes(const SSL *session);

/* Describe the reason of TLS_FAILED. */
void tls_describe_failure(char *text, size_t text_bytes);

#endif
