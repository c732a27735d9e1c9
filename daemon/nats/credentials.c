#include "daemon/nats/credentials.h"

#include "daemon/nats/nkey.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * Return the text escaped for JSON, because the library does not escape it in its CONNECT (3.4.1 to 3.14). NULL: the
 * text is NULL, or memory ran out. The caller frees it.
 */
static char *escape_json(const char *text)
{
    char *escaped = text != NULL ? malloc(strlen(text) * 6 + 1) : NULL, *at = escaped;

    if (escaped == NULL)
        return NULL;
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20) {
            at += sprintf(at, "\\u%04x", (unsigned char)*text);
            continue;
        }
        if (*text == '"' || *text == '\\')
            *at++ = '\\';
        *at++ = *text;
    }
    *at = '\0';
    return escaped;
}

static natsStatus set_user(natsOptions *options, const char *user, const char *password)
{
    char *escaped_user = escape_json(user), *escaped_password = escape_json(password);
    natsStatus status = NATS_NO_MEMORY;

    if (escaped_user != NULL && (password == NULL || escaped_password != NULL))
        status = natsOptions_SetUserInfo(options, escaped_user, escaped_password);
    free(escaped_user);
    free(escaped_password);
    return status;
}

static natsStatus set_token(natsOptions *options, const char *token)
{
    char *escaped = escape_json(token);
    natsStatus status = escaped != NULL ? natsOptions_SetToken(options, escaped) : NATS_NO_MEMORY;

    free(escaped);
    return status;
}

static natsStatus set_credentials(natsOptions *options, const struct conf *conf)
{
    if (conf->nats.credentials != NULL)
        return natsOptions_SetUserCredentialsFromFiles(options, conf->nats.credentials, NULL);
    if (conf->nats.user != NULL)
        return set_user(options, conf->nats.user, conf->nats.password);
    if (conf->nats.token != NULL)
        return set_token(options, conf->nats.token);
    return NATS_OK;
}

/* The library wants an nkey's public half beside the file of its seed. */
static natsStatus set_nkey(natsOptions *options, const char *seed_path, char *error, size_t error_bytes)
{
    char public_key[NKEY_PUBLIC_BYTES];

    if (seed_path == NULL)
        return NATS_OK;
    const char *wrong = nkey_read_public(seed_path, public_key);
    if (wrong != NULL) {
        snprintf(error, error_bytes, "nkey_seed %s: %s", seed_path, wrong);
        return NATS_INVALID_ARG;
    }
    return natsOptions_SetNKeyFromSeed(options, public_key, seed_path);
}

bool credentials_want_tls(const struct conf *conf, const struct connection_target *target)
{
    bool wants = conf->nats.tls.enabled;

    for (size_t i = 0; i < target->url_count; i++)
        wants = wants || strncmp(target->urls[i], "tls://", 6) == 0;
    /* The embedded server has no TLS: it listens on a loopback address. */
    return wants && target->user == NULL;
}

natsStatus credentials_set_tls(natsOptions *options, const struct conf *conf)
{
    natsStatus status = natsOptions_SetSecure(options, true);

    if (status == NATS_OK && conf->nats.tls.ca != NULL)
        status = natsOptions_LoadCATrustedCertificates(options, conf->nats.tls.ca);
    if (status == NATS_OK && conf->nats.tls.certificate != NULL)
        status = natsOptions_LoadCertificatesChain(options, conf->nats.tls.certificate, conf->nats.tls.key);
    if (status == NATS_OK && conf->nats.tls.server_name != NULL)
        status = natsOptions_SetExpectedHostname(options, conf->nats.tls.server_name);
    return status;
}

natsStatus credentials_set(natsOptions *options, const struct conf *conf, const struct connection_target *target,
                           char *error, size_t error_bytes)
{
    natsStatus status;

    if (target->user != NULL)
        return natsOptions_SetUserInfo(options, target->user, target->password);
    status = set_credentials(options, conf);
    if (status == NATS_OK)
        status = set_nkey(options, conf->nats.nkey_seed, error, error_bytes);
    return status;
}

const char *credentials_in_clear_text(const struct conf *conf, const struct connection_target *target)
{
    if (target->user != NULL)
        return NULL;
    if (conf->nats.password != NULL)
        return "nats.password";
    if (conf->nats.token != NULL)
        return "nats.token";
    /* Of an nkey only a signature is sent; with a credentials file a JWT as well. */
    return conf->nats.credentials != NULL ? "the JWT of nats.credentials" : NULL;
}

bool credentials_leave_machine(const struct sockaddr *address)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;

    if (address->sa_family == AF_INET)
        return ntohl(v4->sin_addr.s_addr) >> 24 != 127;
    if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
        return v6->sin6_addr.s6_addr[12] != 127;
    return !IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

bool credentials_peer_is_local(int socket)
{
    struct sockaddr_storage peer;
    struct sockaddr *address = (struct sockaddr *)&peer;

    return getpeername(socket, address, &(socklen_t){sizeof(peer)}) != 0 || !credentials_leave_machine(address);
}
