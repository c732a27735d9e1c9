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

/* Sets the observer of the sessions that the calling thread creates and frees. NULL: removes it. */
void tls_observe(struct tls_observer *observer);

/*
 * Prepares a session that has finished its handshake for non-blocking use on a descriptor, which stays the caller's.
 * From now on whole buffers of many records are received and sent, and not single records: these would cost two system
 * calls each. False: OpenSSL has no memory.
 */
bool tls_adopt(SSL *session, int descriptor);

/*
 * WAIT_TO_READ and WAIT_TO_WRITE: nothing was done; try again when the socket is readable or writable. INTERRUPTED, of
 * tls_read alone: records without data came, and there may be more of any kind; try again when there is time. CLOSED,
 * of tls_read alone: the server writes nothing more.
 */
enum tls_result { TLS_DONE, TLS_WAIT_TO_READ, TLS_WAIT_TO_WRITE, TLS_INTERRUPTED, TLS_CLOSED, TLS_FAILED };

/* The socket may have something new: tls_read looks, until it had less than a buffer. */
void tls_begin_reading(SSL *session);

/* Reads the next bytes, of one record at most. */
enum tls_result tls_read(SSL *session, void *buffer, size_t size, size_t *length);

/* Encrypts bytes; they go out at the latest in tls_flush. If it had to wait, the same bytes must come again. */
enum tls_result tls_write(SSL *session, const void *bytes, size_t size, size_t *length);

/* Sends what is encrypted. */
enum tls_result tls_flush(SSL *session);

/* Encrypted bytes that are not sent. */
size_t tls_unsent_bytes(const SSL *session);

/* After TLS_FAILED: the reason. */
void tls_describe_failure(char *text, size_t text_bytes);

#endif
