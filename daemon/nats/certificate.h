/*
 * certificate: which names of a server's certificate count.
 *
 * Used by link. The NATS library has OpenSSL compare the server's name with the certificate. OpenSSL falls back to the
 * subject's common name if the certificate has no subject alternative names of hosts, which RFC 6125 (6.4.4) and
 * RFC 9525 leave behind: an authority need not check what stands there. The library has no option against it.
 */
#ifndef DAEMON_NATS_CERTIFICATE_H
#define DAEMON_NATS_CERTIFICATE_H

#include <stdbool.h>

/* From now on, no TLS connection of this process takes the common name for the server's. False: out of memory. */
bool certificate_ignore_common_names(void);

#endif
