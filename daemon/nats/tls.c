#include "daemon/nats/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

static _Thread_local struct tls_observer *observer;

/* --- The callbacks --------------------------------------------------------------------------------- */

/* The library sets its own flags after it has created the session and before the handshake, so ours are added at the
 * handshake's start. */
static void ignore_common_name(const SSL *session)
{
    X509_VERIFY_PARAM *parameters = SSL_get0_param((SSL *)session);

    X509_VERIFY_PARAM_set_hostflags(parameters,
                                    X509_VERIFY_PARAM_get_hostflags(parameters) | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
}

static void on_event(const SSL *session, int where, int value)
{
    if (where & SSL_CB_HANDSHAKE_START)
        ignore_common_name(session);
    /* In the upper byte is the level, in the lower one the reason (RFC 8446, 6). */
    bool is_fatal_alert = (where & SSL_CB_READ_ALERT) == SSL_CB_READ_ALERT && value >> 8 == SSL3_AL_FATAL;
    if (is_fatal_alert && observer != NULL)
        observer->alert = value & 0xff;
}

const char *tls_alert_text(int alert)
{
    /* OpenSSL 3.0 has no text for this one of TLS 1.3. */
    return alert == TLS13_AD_CERTIFICATE_REQUIRED ? "certificate required" : SSL_alert_desc_string_long(alert);
}

static void on_new(void *parent, void *data, CRYPTO_EX_DATA *all, int index, long number, void *pointer)
{
    (void)data;
    (void)all;
    (void)index;
    (void)number;
    (void)pointer;
    SSL_set_info_callback(parent, on_event);
    if (observer != NULL)
        *observer = (struct tls_observer){.session = parent};
}

static void on_free(void *parent, void *data, CRYPTO_EX_DATA *all, int index, long number, void *pointer)
{
    (void)data;
    (void)all;
    (void)index;
    (void)number;
    (void)pointer;
    if (observer != NULL && observer->session == parent)
        observer->session = NULL;
}

bool tls_init(void)
{
    static int index = -1;

    if (index < 0)
        index = SSL_get_ex_new_index(0, NULL, on_new, NULL, on_free);
    return index >= 0;
}

void tls_observe(struct tls_observer *new_observer)
{
    observer = new_observer;
}

/* --- A session on the loop ------------------------------------------------------------------------- */

bool tls_adopt(SSL *session, int descriptor)
{
    if (SSL_set_fd(session, descriptor) != 1)
        return false;
    SSL_set_info_callback(session, NULL);
    /* The library's callback would look at its connection, which is gone. Only a renegotiation could call it. */
    SSL_set_options(session, SSL_OP_NO_RENEGOTIATION);
    SSL_set_verify(session, SSL_get_verify_mode(session), NULL);
    /* What is not written moves when the buffer grows. Reading ahead takes header and body of a record in one call. */
    SSL_set_mode(session, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_set_read_ahead(session, 1);
    return true;
}

static enum tls_result result_of(SSL *session, int result)
{
    switch (SSL_get_error(session, result)) {
    case SSL_ERROR_NONE:
        return TLS_DONE;
    case SSL_ERROR_WANT_READ:
        return TLS_WAIT_TO_READ;
    case SSL_ERROR_WANT_WRITE:
        return TLS_WAIT_TO_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        return TLS_CLOSED;
    default:
        return TLS_FAILED;
    }
}

enum tls_result tls_read(SSL *session, void *buffer, size_t size, size_t *length)
{
    *length = 0;
    ERR_clear_error();
    errno = 0;
    return result_of(session, SSL_read_ex(session, buffer, size, length));
}

enum tls_result tls_write(SSL *session, const void *bytes, size_t size, size_t *length)
{
    *length = 0;
    ERR_clear_error();
    errno = 0;
    return result_of(session, SSL_write_ex(session, bytes, size, length));
}

void tls_describe_failure(char *text, size_t text_bytes)
{
    unsigned long code = ERR_peek_error();
    const char *reason = code != 0 ? ERR_reason_error_string(code) : NULL;

    if (ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING || (code == 0 && errno == 0))
        snprintf(text, text_bytes, "closed by the server");
    else if (reason != NULL)
        snprintf(text, text_bytes, "TLS: %s", reason);
    else
        snprintf(text, text_bytes, "%s", strerror(errno));
    ERR_clear_error();
}
