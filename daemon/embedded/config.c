#include "daemon/embedded/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* Connections to the server, of which only the daemon should make one: see max_connections. */
#define MAX_CONNECTIONS 8192u
#define MAX_LOGIN_S     1

/* The store's limit if nats.max_store sets none, so that the disk is the limit. nats-server's default is a part of what
 * is free when it starts. */
#define UNLIMITED_BYTES (1ull << 60)

/*
 * Return the server's max_connections. The server counts a connection before it has logged in, so strangers can exhaust
 * the limit: it must be more than they can hold. Each login may take MAX_LOGIN_S seconds, and two processors accept
 * some 6,000 connections a second. (Measured with nats-server 2.15.1 and 14,000 connections that two processes opened
 * again and again: one login in six failed with a limit of 2,048, and none with 8,192.) A connection takes 25 KB of the
 * server's memory. Half of the descriptors are reserved for its files.
 */
static unsigned max_connections(void)
{
    struct rlimit files = {.rlim_max = RLIM_INFINITY};

    /* The Go runtime raises the server's soft limit to the hard one. */
    getrlimit(RLIMIT_NOFILE, &files);
    return files.rlim_max / 2 < MAX_CONNECTIONS ? (unsigned)(files.rlim_max / 2) : MAX_CONNECTIONS;
}

static void write_settings(FILE *file, const struct embedded_directory *directory, const struct conf *conf,
                           unsigned server_port, const char *secret)
{
    char port[16] = "-1", sync_interval[32] = "always";
    uint64_t max_store = conf->nats.max_store_bytes;

    if (server_port != 0)
        snprintf(port, sizeof(port), "%u", server_port);
    if (!conf->nats.sync_always)
        snprintf(sync_interval, sizeof(sync_interval), "\"%ums\"", conf->nats.sync_interval_ms);
    fprintf(file,
            "# Written by kvstored at each start of its nats-server; changes are lost.\n"
            "host: \"127.0.0.1\"\n"
            "port: %s\n"
            "server_name: \"kvstored\"\n"
            "authorization { user: \"" EMBEDDED_CONFIG_USER "\", password: \"%s\", timeout: %d }\n"
            "max_connections: %u\n"
            "max_closed_clients: 16\n" /* what it remembers of each; the default is 10,000 */
            "jetstream {\n"
            "  store_dir: \"%s\"\n"
            "  sync_interval: %s\n"
            "  max_file_store: %llu\n"
            "}\n"
            "ports_file_dir: \"%s/ports\"\n"
            "pid_file: \"%s/nats-server.pid\"\n"
            "logtime: false\n",
            port, secret, MAX_LOGIN_S, max_connections(), directory->path, sync_interval,
            (unsigned long long)(max_store > 0 ? max_store + CONF_STORE_RESERVE_BYTES : UNLIMITED_BYTES),
            directory->path, directory->path);
}

/* The file holds the secret: it is written as a new file of our own, then put in place. */
bool embedded_config_write(const struct embedded_directory *directory, const struct conf *conf, unsigned port,
                           const char *secret, char error[EMBEDDED_ERROR_BYTES])
{
    char path[PATH_MAX], fresh[PATH_MAX];

    embedded_directory_path(directory, EMBEDDED_CONFIG_FILE, path);
    embedded_directory_path(directory, EMBEDDED_CONFIG_FILE ".new", fresh);
    unlink(fresh);
    int descriptor = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FILE *file = descriptor >= 0 ? fdopen(descriptor, "w") : NULL;
    if (file != NULL) {
        write_settings(file, directory, conf, port, secret);
        if (fclose(file) == 0 && rename(fresh, path) == 0)
            return true;
    } else if (descriptor >= 0) {
        close(descriptor);
    }
    snprintf(error, EMBEDDED_ERROR_BYTES, "cannot write %s: %s", path, strerror(errno));
    return false;
}
