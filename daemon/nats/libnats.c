#include "daemon/nats/libnats.h"

#include "daemon/nats/credentials.h"
#include "daemon/nats/tls.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* The size of the library's buffers, which it needs only for CONNECT and PING. */
#define BUFFER_BYTES (4 * 1024)

/* --- The library's event-loop adapter -------------------------------------------------------------- */

/*
 * In event-loop mode the library starts no threads for reading and writing. When it is connected, it calls attach with
 * the socket. The connection is taken out of the library before any loop is needed.
 */

static natsStatus adapter_attach(void **user_data, void *loop, natsConnection *connection, natsSock socket)
{
    struct libnats_attempt *attempt = loop;

    attempt->attached = connection;
    attempt->socket = socket;
    *user_data = attempt;
    return NATS_OK;
}

static natsStatus adapter_read(void *user_data, bool add)
{
    struct libnats_attempt *attempt = user_data;

    (void)attempt;
#if NATS_VERSION_NUMBER >= 0x030902
    /* Since 3.9.2 the library leaves it to the adapter to close the socket. */
    if (!add)
        natsConnection_ProcessCloseEvent(&attempt->socket);
#else
    (void)add;
#endif
    return NATS_OK;
}

/*
 * When its connection is destroyed, the library sends a PING and waits 500 ms for the answer, unless the sending fails:
 * up to 3.12 if it has something to send, and since 3.13 always.
 */
static natsStatus adapter_write(void *user_data, bool add)
{
    (void)user_data;
    return add ? NATS_CONNECTION_CLOSED : NATS_OK;
}

static natsStatus adapter_detach(void *user_data)
{
    struct libnats_attempt *attempt = user_data;

#if NATS_VERSION_NUMBER >= 0x030B00
    natsConnection_ProcessDetachedEvent(attempt->attached);
#endif
    attempt->attached = NULL;
    return NATS_OK;
}

/* --- The process's sockets ------------------------------------------------------------------------- */

/* Read the inode of a TCP socket. Return false if the descriptor is something else, or listens. */
static bool is_internet_socket(int descriptor, uint64_t *inode)
{
    int domain = 0, type = 0, listens = 0;
    struct stat status;

    if (getsockopt(descriptor, SOL_SOCKET, SO_DOMAIN, &domain, &(socklen_t){sizeof(domain)}) != 0 ||
        (domain != AF_INET && domain != AF_INET6) ||
        getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &(socklen_t){sizeof(type)}) != 0 || type != SOCK_STREAM ||
        getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listens, &(socklen_t){sizeof(listens)}) != 0 || listens ||
        fstat(descriptor, &status) != 0)
        return false;
    *inode = status.st_ino;
    return true;
}

/* Call visit for each TCP socket of the process. */
static void each_internet_socket(struct libnats_attempt *attempt,
                                 void (*visit)(struct libnats_attempt *attempt, int descriptor, uint64_t inode))
{
    DIR *descriptors = opendir("/proc/self/fd");
    const struct dirent *entry;
    uint64_t inode;

    while (descriptors != NULL && (entry = readdir(descriptors)) != NULL) {
        int descriptor = (int)strtol(entry->d_name, NULL, 10);
        if (entry->d_name[0] != '.' && is_internet_socket(descriptor, &inode))
            visit(attempt, descriptor, inode);
    }
    if (descriptors != NULL)
        closedir(descriptors);
}

static void note_other(struct libnats_attempt *attempt, int descriptor, uint64_t inode)
{
    (void)descriptor;
    if (attempt->other_count < LIBNATS_OTHERS_MAX)
        attempt->others[attempt->other_count++] = inode;
}

/* --- Connecting ------------------------------------------------------------------------------------ */

static void note_last_error(struct libnats_attempt *attempt, natsStatus status)
{
    natsStatus last;
    const char *text = nats_GetLastError(&last);

    snprintf(attempt->error, sizeof(attempt->error), "%s",
             text != NULL && text[0] != '\0' ? text : natsStatus_GetText(status));
}

/* The embedded server's secret is the target's. Others are copied: a reload may change them while the thread runs. */
static natsStatus prepare_secrets(struct libnats_attempt *attempt, const struct conf *conf,
                                  const struct connection_target *target, natsOptions *options)
{
    attempt->has_own_secrets = target->user == NULL;
    attempt->wants_tls = credentials_want_tls(conf, target);
    if (!attempt->has_own_secrets)
        return natsOptions_SetUserInfo(options, target->user, target->password);
    bool is_complete = attempt->purpose == LIBNATS_CONNECT_AGAIN ? secrets_copy(&attempt->secrets, attempt->accepted)
                                                                 : secrets_copy_settings(&attempt->secrets, conf);
    return is_complete ? NATS_OK : NATS_NO_MEMORY;
}

bool libnats_prepare(struct libnats_attempt *attempt, const struct conf *conf, const struct connection_target *target,
                     enum libnats_purpose purpose, const struct secrets *accepted)
{
    natsOptions *options = NULL;
    natsStatus status = natsOptions_Create(&options);

    memset(attempt, 0, sizeof(*attempt));
    attempt->purpose = purpose;
    attempt->accepted = accepted;
    if (status == NATS_OK)
        status = natsOptions_SetServers(options, (const char **)target->urls, (int)target->url_count);
    if (status == NATS_OK)
        status = natsOptions_SetName(options, target->name);
    if (status == NATS_OK)
        status = natsOptions_SetTimeout(options, conf->nats.connect_timeout_ms);
    if (status == NATS_OK)
        status = natsOptions_SetAllowReconnect(options, false);
    if (status == NATS_OK)
        status = natsOptions_SetPingInterval(options, 0);
    if (status == NATS_OK)
        status = natsOptions_SetSendAsap(options, true);
    if (status == NATS_OK)
        status = natsOptions_SetIOBufSize(options, BUFFER_BYTES);
    if (status == NATS_OK)
        status =
            natsOptions_SetEventLoop(options, attempt, adapter_attach, adapter_read, adapter_write, adapter_detach);
    if (status == NATS_OK)
        status = prepare_secrets(attempt, conf, target, options);
    if (status == NATS_OK) {
        attempt->options = options;
        each_internet_socket(attempt, note_other);
        return true;
    }
    note_last_error(attempt, status);
    secrets_clear(&attempt->secrets);
    natsOptions_Destroy(options);
    return false;
}

/* Write scheme://user:password@host without the user and the password. */
static void write_url(natsConnection *connection, char written[LIBNATS_URL_BYTES])
{
    char url[LIBNATS_URL_BYTES] = "";

    natsConnection_GetConnectedUrl(connection, url, sizeof(url));
    const char *at = strrchr(url, '@');
    const char *scheme_end = strstr(url, "://");
    if (at != NULL && scheme_end != NULL && at > scheme_end)
        snprintf(written, LIBNATS_URL_BYTES, "%.*s%s", (int)(scheme_end + 3 - url), url, at + 1);
    else
        snprintf(written, LIBNATS_URL_BYTES, "%s", url);
}

/* Replace the library's socket by one whose other end is closed: the library will shut it down. */
static bool replace_socket(int descriptor)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
        return false;
    close(ends[1]);
    bool is_replaced = dup3(ends[0], descriptor, O_CLOEXEC) == descriptor;
    close(ends[0]);
    return is_replaced;
}

/*
 * Take socket and session out of the library, which keeps a useless socket. The library and the daemon have a reference
 * to the session each. Return false with an error.
 */
static bool libnats_take_out(struct libnats_attempt *attempt, natsConnection *connection, SSL *session)
{
    struct libnats_connection *taken = &attempt->connection;

    taken->socket = fcntl(attempt->socket, F_DUPFD_CLOEXEC, 0);
    if (taken->socket < 0)
        goto failed;
    if (session != NULL && !tls_adopt(session, taken->socket))
        goto close_socket;
    if (!replace_socket(attempt->socket))
        goto close_socket;
    if (session != NULL)
        SSL_up_ref(session);
    taken->tls = session;
    taken->max_payload_bytes = (size_t)natsConnection_GetMaxPayload(connection);
    write_url(connection, taken->url);
    if (natsConnection_GetConnectedServerId(connection, taken->server_id, sizeof(taken->server_id)) != NATS_OK)
        taken->server_id[0] = '\0';
    return true;

close_socket:
    close(taken->socket);
failed:
    snprintf(attempt->error, sizeof(attempt->error), "too few descriptors, or out of memory");
    return false;
}

/* Return false if the connection need not be made, or cannot: then there is an error. */
static bool load_secrets(struct libnats_attempt *attempt, natsStatus *status)
{
    if (attempt->purpose != LIBNATS_CONNECT_AGAIN &&
        !secrets_read_files(&attempt->secrets, attempt->error, sizeof(attempt->error))) {
        attempt->blames_secrets = true;
        return false;
    }
    if (attempt->purpose == LIBNATS_CONNECT_CHANGED && secrets_are_equal(&attempt->secrets, attempt->accepted))
        return false;
    *status = credentials_set(attempt->options, &attempt->secrets, attempt->error, sizeof(attempt->error));
    if (*status == NATS_OK && attempt->wants_tls)
        *status = credentials_set_tls(attempt->options, &attempt->secrets);
    attempt->blames_secrets = *status != NATS_OK;
    return true;
}

static bool connect_with_library(struct libnats_attempt *attempt)
{
    struct tls_observer tls = {0};
    natsConnection *connection = NULL;
    natsStatus status = NATS_OK;

    if (attempt->has_own_secrets && !load_secrets(attempt, &status))
        return false;
    tls_observe(&tls);
    if (status == NATS_OK)
        status = natsConnection_Connect(&connection, attempt->options);
    tls_observe(NULL);
    bool is_connected = status == NATS_OK && libnats_take_out(attempt, connection, tls.session);
    attempt->has_timed_out = status == NATS_TIMEOUT;
    attempt->blames_secrets =
        attempt->blames_secrets || tls.alert != 0 || status == NATS_CONNECTION_AUTH_FAILED || status == NATS_SSL_ERROR;
    if (status != NATS_OK && tls.alert != 0)
        snprintf(attempt->error, sizeof(attempt->error), "the server ended the TLS handshake: %s",
                 tls_alert_text(tls.alert));
    else if (status != NATS_OK && attempt->error[0] == '\0')
        note_last_error(attempt, status);
    natsConnection_Destroy(connection);
    return is_connected;
}

enum libnats_result libnats_connect(struct libnats_attempt *attempt)
{
    bool is_connected = connect_with_library(attempt);

    /* On this thread, because freeing a context with many authorities takes time. */
    natsOptions_Destroy(attempt->options);
    attempt->options = NULL;
    secrets_close_files(&attempt->secrets);
    nats_ReleaseThreadMemory();
    if (is_connected)
        return LIBNATS_CONNECTED;
    return attempt->error[0] != '\0' || attempt->has_timed_out ? LIBNATS_FAILED : LIBNATS_UNCHANGED;
}

void libnats_close(struct libnats_connection *connection)
{
    SSL_free(connection->tls);
    close(connection->socket);
}

/* --- The limit ------------------------------------------------------------------------------------- */

/*
 * Return whether a socket is of the attempt. The library does not report its socket before it is connected. But any TCP
 * socket that did not exist before the attempt is the attempt's: the daemon opens no others meanwhile. It may accept
 * one for its metrics; if that is open for longer than an attempt may take, its client has to connect again.
 */
static bool is_of_attempt(const struct libnats_attempt *attempt, uint64_t inode)
{
    for (size_t i = 0; i < attempt->other_count; i++) {
        if (attempt->others[i] == inode)
            return false;
    }
    return attempt->other_count < LIBNATS_OTHERS_MAX;
}

/* Return the record of a socket, or a free one; NULL: there is none. */
static struct libnats_socket *find_socket(struct libnats_attempt *attempt, uint64_t inode)
{
    struct libnats_socket *free_place = NULL;

    for (unsigned i = 0; i < LIBNATS_SOCKETS_MAX; i++) {
        if (attempt->sockets[i].inode == inode)
            return &attempt->sockets[i];
        if (attempt->sockets[i].inode == 0)
            free_place = &attempt->sockets[i];
    }
    return free_place;
}

static void check_socket(struct libnats_attempt *attempt, int descriptor, uint64_t inode)
{
    struct libnats_socket *place = is_of_attempt(attempt, inode) ? find_socket(attempt, inode) : NULL;

    if (place == NULL)
        return;
    if (place->inode == 0)
        *place = (struct libnats_socket){.inode = inode, .since_ms = attempt->now_ms};
    place->is_seen = true;
    if (!place->is_ended && attempt->now_ms - place->since_ms >= attempt->limit_ms) {
        place->is_ended = shutdown(descriptor, SHUT_RDWR) == 0;
        attempt->has_ended_one = attempt->has_ended_one || place->is_ended;
    }
}

bool libnats_end_slow_sockets(struct libnats_attempt *attempt, uint64_t now_ms, uint64_t limit_ms)
{
    attempt->now_ms = now_ms;
    attempt->limit_ms = limit_ms;
    attempt->has_ended_one = false;
    each_internet_socket(attempt, check_socket);
    for (unsigned i = 0; i < LIBNATS_SOCKETS_MAX; i++) {
        if (!attempt->sockets[i].is_seen)
            attempt->sockets[i].inode = 0;
        attempt->sockets[i].is_seen = false;
    }
    return attempt->has_ended_one;
}
