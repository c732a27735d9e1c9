#include "daemon/nats/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* One record has up to 16 KiB and its header. */
#define BUFFER_BYTES (128u * 1024u)

/*
 * Limit of pieces that one SSL_read takes from the channel. A record has two: its header and its body. A record with
 * data ends the read. KeyUpdate, a ticket or HelloRequest does not: without a limit, a server that sends only these
 * would block the loop.
 */
#define PIECES_PER_READ 16u

static _Thread_local struct tls_observer *observer;

/* --- The socket of a session ----------------------------------------------------------------------- */

/* The buffers between a session and its socket: OpenSSL's source and sink (BIO). */
struct channel {
    int socket;
    bool is_drained, has_ended; /* the server has sent nothing more now; will send nothing more at all */
    unsigned pieces;            /* which the present read of the session may still take */
    bool is_interrupted;        /* the read needed more pieces */
    struct channel_buffer {
        size_t start, end;
        char bytes[BUFFER_BYTES];
    } in, out;
};

static BIO_METHOD *channel_method;

static struct channel *channel_of(const SSL *session)
{
    return BIO_get_data(SSL_get_rbio(session));
}

static int channel_create(BIO *bio)
{
    BIO_set_init(bio, 1);
    return 1;
}

static int channel_destroy(BIO *bio)
{
    free(BIO_get_data(bio));
    return 1;
}

static long channel_control(BIO *bio, int command, long number, void *pointer)
{
    const struct channel *channel = BIO_get_data(bio);

    (void)number;
    (void)pointer;
    if (command == BIO_CTRL_EOF)
        return channel->has_ended;
    return command == BIO_CTRL_FLUSH; /* for later: see tls_flush */
}

static bool would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/* Return false if nothing can be received: now, ever, or because of errno. */
static bool fill(struct channel *channel)
{
    struct channel_buffer *in = &channel->in;

    if (channel->is_drained) {
        errno = EAGAIN;
        return false;
    }
    ssize_t received = recv(channel->socket, in->bytes, sizeof(in->bytes), MSG_DONTWAIT);
    channel->is_drained = received < (ssize_t)sizeof(in->bytes);
    channel->has_ended = received == 0;
    in->start = 0;
    in->end = received > 0 ? (size_t)received : 0;
    return received > 0;
}

static int channel_read(BIO *bio, char *bytes, size_t size, size_t *length)
{
    struct channel *channel = BIO_get_data(bio);
    struct channel_buffer *in = &channel->in;

    BIO_clear_retry_flags(bio);
    channel->is_interrupted = channel->pieces == 0;
    if (channel->is_interrupted) {
        BIO_set_retry_read(bio);
        return 0;
    }
    channel->pieces--;
    if (in->start == in->end && !fill(channel)) {
        if (!channel->has_ended && would_block())
            BIO_set_retry_read(bio);
        return 0;
    }
    *length = in->end - in->start < size ? in->end - in->start : size;
    memcpy(bytes, in->bytes + in->start, *length);
    in->start += *length;
    return 1;
}

/* Return false if not all could be sent: now, or because of errno. */
static bool send_out(struct channel *channel)
{
    struct channel_buffer *out = &channel->out;

    while (out->start < out->end) {
        ssize_t sent =
            send(channel->socket, out->bytes + out->start, out->end - out->start, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0)
            return false;
        out->start += (size_t)sent;
    }
    out->start = out->end = 0;
    return true;
}

static int channel_write(BIO *bio, const char *bytes, size_t size, size_t *length)
{
    struct channel *channel = BIO_get_data(bio);
    struct channel_buffer *out = &channel->out;

    BIO_clear_retry_flags(bio);
    if (sizeof(out->bytes) - out->end < size && !send_out(channel)) {
        if (would_block())
            BIO_set_retry_write(bio);
        return 0;
    }
    memcpy(out->bytes + out->end, bytes, size);
    out->end += size;
    *length = size;
    return 1;
}

static bool make_channel_method(void)
{
    channel_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "kvstored");
    return channel_method != NULL && BIO_meth_set_create(channel_method, channel_create) &&
           BIO_meth_set_destroy(channel_method, channel_destroy) &&
           BIO_meth_set_ctrl(channel_method, channel_control) && BIO_meth_set_read_ex(channel_method, channel_read) &&
           BIO_meth_set_write_ex(channel_method, channel_write);
}

static BIO *make_channel(int descriptor)
{
    struct channel *channel = malloc(sizeof(*channel));
    BIO *bio = channel != NULL ? BIO_new(channel_method) : NULL;

    if (bio == NULL) {
        free(channel);
        return NULL;
    }
    channel->socket = descriptor;
    channel->is_drained = channel->has_ended = channel->is_interrupted = false;
    channel->pieces = 0;
    channel->in.start = channel->in.end = channel->out.start = channel->out.end = 0;
    BIO_set_data(bio, channel);
    return bio;
}

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
    /* The upper byte is the level, the lower one the reason (RFC 8446, 6). */
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

    if (index < 0 && make_channel_method())
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
    BIO *channel = make_channel(descriptor);

    if (channel == NULL)
        return false;
    SSL_set_bio(session, channel, channel);
    SSL_set_info_callback(session, NULL);
    /* The library's callback would use its connection, which is freed. Only a renegotiation could call it. */
    SSL_set_options(session, SSL_OP_NO_RENEGOTIATION);
    SSL_set_verify(session, SSL_get_verify_mode(session), NULL);
    /* Unsent bytes move when the buffer grows. */
    SSL_set_mode(session, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
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

void tls_begin_reading(SSL *session)
{
    channel_of(session)->is_drained = false;
}

enum tls_result tls_read(SSL *session, void *buffer, size_t size, size_t *length)
{
    struct channel *channel = channel_of(session);

    *length = 0;
    channel->pieces = PIECES_PER_READ;
    channel->is_interrupted = false;
    ERR_clear_error();
    errno = 0;
    enum tls_result result = result_of(session, SSL_read_ex(session, buffer, size, length));
    return result == TLS_WAIT_TO_READ && channel->is_interrupted ? TLS_INTERRUPTED : result;
}

enum tls_result tls_write(SSL *session, const void *bytes, size_t size, size_t *length)
{
    *length = 0;
    channel_of(session)->pieces = PIECES_PER_READ; /* of a ticket of which a part was read */
    ERR_clear_error();
    errno = 0;
    enum tls_result result = result_of(session, SSL_write_ex(session, bytes, size, length));
    /* OpenSSL reports this for any failure to write after the server's end was read. */
    return result == TLS_CLOSED ? TLS_FAILED : result;
}

enum tls_result tls_flush(SSL *session)
{
    errno = 0;
    if (send_out(channel_of(session)))
        return TLS_DONE;
    return would_block() ? TLS_WAIT_TO_WRITE : TLS_FAILED;
}

size_t tls_unsent_bytes(const SSL *session)
{
    const struct channel *channel = channel_of(session);

    return channel->out.end - channel->out.start;
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
