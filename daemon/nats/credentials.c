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

/* The library wants an nkey's public half beside the file of its seed. */
static natsStatus set_nkey(natsOptions *options, struct secrets *secrets, char *error, size_t error_bytes)
{
    char public_key[NKEY_PUBLIC_BYTES], path[SECRETS_PATH_BYTES];
    const char *wrong = nkey_find_public(secrets->files[SECRETS_NKEY_SEED].bytes, public_key);

    if (wrong != NULL) {
        snprintf(error, error_bytes, "nats.nkey_seed %s: %s", secrets->settings[SECRETS_NKEY_SEED], wrong);
        return NATS_INVALID_ARG;
    }
    if (secrets_open_file(secrets, SECRETS_NKEY_SEED, path) == NULL)
        return NATS_NO_MEMORY;
    return natsOptions_SetNKeyFromSeed(options, public_key, path);
}

natsStatus credentials_set(natsOptions *options, struct secrets *secrets, char *error, size_t error_bytes)
{
    char path[SECRETS_PATH_BYTES];

    if (secrets->settings[SECRETS_NKEY_SEED] != NULL)
        return set_nkey(options, secrets, error, error_bytes);
    if (secrets->settings[SECRETS_CREDENTIALS] != NULL)
        return secrets_open_file(secrets, SECRETS_CREDENTIALS, path) != NULL
                   ? natsOptions_SetUserCredentialsFromFiles(options, path, NULL)
                   : NATS_NO_MEMORY;
    if (secrets->settings[SECRETS_USER] != NULL)
        return set_user(options, secrets->settings[SECRETS_USER], secrets->settings[SECRETS_PASSWORD]);
    if (secrets->settings[SECRETS_TOKEN] != NULL)
        return set_token(options, secrets->settings[SECRETS_TOKEN]);
    return NATS_OK;
}

bool credentials_want_tls(const struct conf *conf, const struct connection_target *target)
{
    bool wants = conf->nats.tls.enabled;

    for (size_t i = 0; i < target->url_count; i++)
        wants = wants || strncmp(target->urls[i], "tls://", 6) == 0;
    /* The embedded server has no TLS: it listens on a loopback address. */
    return wants && target->user == NULL;
}

static natsStatus set_own_certificate(natsOptions *options, struct secrets *secrets)
{
    char path[SECRETS_PATH_BYTES], key_path[SECRETS_PATH_BYTES];

    if (secrets_open_file(secrets, SECRETS_CERTIFICATE, path) == NULL ||
        secrets_open_file(secrets, SECRETS_KEY, key_path) == NULL)
        return NATS_NO_MEMORY;
    return natsOptions_LoadCertificatesChain(options, path, key_path);
}

natsStatus credentials_set_tls(natsOptions *options, struct secrets *secrets)
{
    natsStatus status = natsOptions_SetSecure(options, true);
    char path[SECRETS_PATH_BYTES];

    if (status == NATS_OK && secrets->settings[SECRETS_CA] != NULL)
        status = secrets_open_file(secrets, SECRETS_CA, path) != NULL
                     ? natsOptions_LoadCATrustedCertificates(options, path)
                     : NATS_NO_MEMORY;
    if (status == NATS_OK && secrets->settings[SECRETS_CERTIFICATE] != NULL)
        status = set_own_certificate(options, secrets);
    if (status == NATS_OK && secrets->settings[SECRETS_SERVER_NAME] != NULL)
        status = natsOptions_SetExpectedHostname(options, secrets->settings[SECRETS_SERVER_NAME]);
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
