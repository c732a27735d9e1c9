#include "daemon/nats/certificate.h"

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

/* The library sets its own flags after it has made the object, and before the handshake begins: so they are added here.
 */
static void on_handshake(const SSL *tls, int where, int value)
{
    X509_VERIFY_PARAM *parameters = SSL_get0_param((SSL *)tls);

    (void)value;
    if (where & SSL_CB_HANDSHAKE_START)
        X509_VERIFY_PARAM_set_hostflags(parameters, X509_VERIFY_PARAM_get_hostflags(parameters) |
                                                        X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
}

/* OpenSSL calls it for each object that anybody in the process makes, with the object as parent. */
static void on_new_tls(void *parent, void *data, CRYPTO_EX_DATA *all, int index, long number, void *pointer)
{
    (void)data;
    (void)all;
    (void)index;
    (void)number;
    (void)pointer;
    SSL_set_info_callback(parent, on_handshake);
}

bool certificate_ignore_common_names(void)
{
    static int index = -1; /* of the process, as the registration is */

    if (index < 0)
        index = SSL_get_ex_new_index(0, NULL, on_new_tls, NULL, NULL);
    return index >= 0;
}
