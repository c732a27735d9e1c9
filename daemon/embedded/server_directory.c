#include "daemon/embedded/server_directory.h"

#include "daemon/base/lock_file.h"
#include "daemon/base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How long one that was left behind may take to die. */
#define LEFTOVER_TIMEOUT_MS 5000

/* Of connections to the server that nobody but the daemon should make: see max_connections. */
#define MAX_CONNECTIONS 8192u
#define MAX_LOGIN_S     1

/* The store's limit where none is set: the disk is what ends. By default it were a part of what is free at the start.
 */
#define UNLIMITED_BYTES (1ull << 60)

/* --- The directory --------------------------------------------------------------------------------- */

void server_directory_path(const struct server_directory *directory, const char *name, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/%s", directory->path, name);
}

static bool make_directory(const char *path, char error[SERVER_DIRECTORY_ERROR_BYTES])
{
    char parent[PATH_MAX];

    if (mkdir(path, 0700) == 0 || errno == EEXIST)
        return true;
    if (errno == ENOENT) {
        snprintf(parent, sizeof(parent), "%s", path);
        char *slash = strrchr(parent, '/');
        if (slash != NULL && slash != parent) {
            *slash = '\0';
            if (make_directory(parent, error) && (mkdir(path, 0700) == 0 || errno == EEXIST))
                return true;
        }
    }
    snprintf(error, SERVER_DIRECTORY_ERROR_BYTES, "cannot make the directory %s: %s", path, strerror(errno));
    return false;
}

/*
 * Whoever can write in the directory can have us and nats-server write elsewhere, by symbolic links, and can read the
 * buckets. A directory of root's is fine: root can do that anyway.
 */
static bool check_directory(const char *path, const char *setting, char error[SERVER_DIRECTORY_ERROR_BYTES])
{
    struct stat status;

    if (lstat(path, &status) != 0) {
        snprintf(error, SERVER_DIRECTORY_ERROR_BYTES, "%s %s: %s", setting, path, strerror(errno));
        return false;
    }
    if (!S_ISDIR(status.st_mode)) {
        snprintf(error, SERVER_DIRECTORY_ERROR_BYTES, "%s %s is not a directory", setting, path);
        return false;
    }
    if (status.st_uid != 0 && status.st_uid != geteuid()) {
        snprintf(error, SERVER_DIRECTORY_ERROR_BYTES,
                 "%s %s belongs to uid %u; it must belong to uid %u, as which kvstored runs, or to root", setting, path,
                 (unsigned)status.st_uid, (unsigned)geteuid());
        return false;
    }
    if (status.st_mode & (S_IWGRP | S_IWOTH)) {
        snprintf(error, SERVER_DIRECTORY_ERROR_BYTES,
                 "%s %s has mode %03o, so that others than its owner can write in it; take that away (chmod go-w)",
                 setting, path, (unsigned)status.st_mode & 07777);
        return false;
    }
    return true;
}

static bool make_and_check(struct server_directory *directory, const char *path,
                           char error[SERVER_DIRECTORY_ERROR_BYTES])
{
    char resolved[PATH_MAX], ports[PATH_MAX];

    if (!make_directory(path, error))
        return false;
    if (realpath(path, resolved) == NULL || strlen(resolved) >= sizeof(directory->path)) {
        snprintf(error, SERVER_DIRECTORY_ERROR_BYTES, "nats.data_dir %s: %s", path, strerror(errno));
        return false;
    }
    if (strpbrk(resolved, "\"\\\n") != NULL) {
        snprintf(error, SERVER_DIRECTORY_ERROR_BYTES,
                 "nats.data_dir %s: quotes, backslashes and line breaks do not go into nats-server's configuration",
                 path);
        return false;
    }
    strcpy(directory->path, resolved);
    if (!check_directory(resolved, "nats.data_dir", error))
        return false;
    server_directory_path(directory, "ports", ports);
    return make_directory(ports, error) && check_directory(ports, "the directory", error);
}

static bool take_lock(struct server_directory *directory, char error[SERVER_DIRECTORY_ERROR_BYTES])
{
    char path[PATH_MAX], what[PATH_MAX + 16];

    server_directory_path(directory, "kvstored.lock", path);
    snprintf(what, sizeof(what), "nats.data_dir %s", directory->path);
    directory->lock = lock_file_take(path, what, error, SERVER_DIRECTORY_ERROR_BYTES);
    return directory->lock >= 0;
}

bool server_directory_open(struct server_directory *directory, const char *path,
                           char error[SERVER_DIRECTORY_ERROR_BYTES])
{
    directory->lock = -1;
    if (make_and_check(directory, path, error) && take_lock(directory, error))
        return true;
    server_directory_close(directory);
    return false;
}

void server_directory_close(struct server_directory *directory)
{
    if (directory->lock >= 0)
        close(directory->lock);
    directory->lock = -1;
}

/* --- The configuration ----------------------------------------------------------------------------- */

/*
 * The server counts a connection before it has logged in, so strangers can use the limit up: it must be more than they
 * can hold. They get MAX_LOGIN_S seconds each, and two processors accept some 6,000 connections a second (measured
 * with nats-server 2.15.1: of 14,000 connections that were opened again and again by each of two processes, one login
 * in six failed with a limit of 2,048, and none with 8,192). Each takes 25 KB of the server's memory. And half of the
 * descriptors are kept for its files.
 */
static unsigned max_connections(void)
{
    struct rlimit files = {.rlim_max = RLIM_INFINITY};

    /* The Go runtime raises the server's soft limit to the hard one. */
    getrlimit(RLIMIT_NOFILE, &files);
    return files.rlim_max / 2 < MAX_CONNECTIONS ? (unsigned)(files.rlim_max / 2) : MAX_CONNECTIONS;
}

/* The configuration holds the secret: written to a new file of our own, then put in place. */
bool server_directory_configure(const struct server_directory *directory, const struct conf *conf, unsigned server_port,
                                const char *secret, char error[SERVER_DIRECTORY_ERROR_BYTES])
{
    char path[PATH_MAX], fresh[PATH_MAX], port[16] = "-1", sync_interval[32] = "always";
    uint64_t max_store = conf->nats.max_store_bytes;

    server_directory_path(directory, "nats-server.conf", path);
    server_directory_path(directory, "nats-server.conf.new", fresh);
    if (server_port != 0)
        snprintf(port, sizeof(port), "%u", server_port);
    if (!conf->nats.sync_always)
        snprintf(sync_interval, sizeof(sync_interval), "\"%ums\"", conf->nats.sync_interval_ms);
    unlink(fresh);
    int descriptor = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FILE *file = descriptor >= 0 ? fdopen(descriptor, "w") : NULL;
    if (file != NULL) {
        fprintf(file,
                "# Written by kvstored at each start of its nats-server; changes are lost.\n"
                "host: \"127.0.0.1\"\n"
                "port: %s\n"
                "server_name: \"kvstored\"\n"
                "authorization { user: \"" SERVER_DIRECTORY_USER "\", password: \"%s\", timeout: %d }\n"
                "max_connections: %u\n"
                "max_closed_clients: 16\n" /* what it remembers of each; 10,000 otherwise */
                "jetstream {\n"
                "  store_dir: \"%s\"\n"
                "  sync_interval: %s\n"
                "  max_file_store: %llu\n"
                "}\n"
                "ports_file_dir: \"%s/ports\"\n"
                "pid_file: \"%s/nats-server.pid\"\n"
                "logtime: false\n",
                port, secret, MAX_LOGIN_S, max_connections(), directory->path, sync_interval,
                (unsigned long long)(max_store > 0 ? max_store + SERVER_DIRECTORY_RESERVE_BYTES : UNLIMITED_BYTES),
                directory->path, directory->path);
        if (fclose(file) == 0 && rename(fresh, path) == 0)
            return true;
    } else if (descriptor >= 0) {
        close(descriptor);
    }
    snprintf(error, SERVER_DIRECTORY_ERROR_BYTES, "cannot write %s: %s", path, strerror(errno));
    return false;
}

/* --- What a server writes ------------------------------------------------------------------------- */

/* The path of a file in which a server says its ports. It is named after the program and its pid. False: none is there.
 */
static bool find_ports_file(const struct server_directory *directory, char file[PATH_MAX + 256])
{
    char path[PATH_MAX];
    struct dirent *entry;
    bool is_found = false;

    server_directory_path(directory, "ports", path);
    DIR *ports = opendir(path);
    if (ports == NULL)
        return false;
    while (!is_found && (entry = readdir(ports)) != NULL) {
        is_found = strstr(entry->d_name, ".ports") != NULL;
        snprintf(file, PATH_MAX + 256, "%s/%s", path, entry->d_name);
    }
    closedir(ports);
    return is_found;
}

void server_directory_clear(const struct server_directory *directory)
{
    char file[PATH_MAX + 256];

    server_directory_path(directory, "nats-server.pid", file);
    unlink(file);
    while (find_ports_file(directory, file) && unlink(file) == 0)
        ;
}

/* Reads the file that the server writes when it listens: those of earlier ones are gone. False: not there, or not
 * whole. */
bool server_directory_read_port(const struct server_directory *directory, unsigned *port)
{
    char file[PATH_MAX + 256];

    if (!find_ports_file(directory, file))
        return false;
    /* a JSON object of lists of URLs */
    json_t *ports = json_load_file(file, 0, NULL);
    const char *url = json_string_value(json_array_get(json_object_get(ports, "nats"), 0));
    const char *colon = url != NULL ? strrchr(url, ':') : NULL;
    *port = colon != NULL ? (unsigned)strtoul(colon + 1, NULL, 10) : 0;
    json_decref(ports);
    return *port != 0;
}

/* --- A server that was left behind ----------------------------------------------------------------- */

/* Whether the process is a server that was started on this directory's configuration. */
static bool is_our_server(const struct server_directory *directory, pid_t pid)
{
    char path[64], command[8192], configuration[PATH_MAX];
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
    server_directory_path(directory, "nats-server.conf", configuration);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return false;
    ssize_t length = read(descriptor, command, sizeof(command) - 1);
    close(descriptor);
    command[length > 0 ? length : 0] = '\0';
    for (ssize_t at = 0; at < length && !found; at += (ssize_t)strlen(command + at) + 1)
        found = strcmp(command + at, configuration) == 0;
    return found;
}

/* We hold the directory's lock, so a server that still runs on it has lost its daemon. */
bool server_directory_end_leftover(const struct server_directory *directory, char error[SERVER_DIRECTORY_ERROR_BYTES])
{
    char path[PATH_MAX], text[16];
    int pid = 0;

    server_directory_path(directory, "nats-server.pid", path);
    int descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0)
        return true;
    ssize_t length = read(descriptor, text, sizeof(text) - 1);
    close(descriptor);
    text[length > 0 ? length : 0] = '\0';
    pid = atoi(text);
    if (pid <= 1)
        return true;

    /* The descriptor names the process for good: a pid that is given out anew meanwhile is not meant. */
    descriptor = (int)syscall(SYS_pidfd_open, pid, 0);
    if (descriptor < 0)
        return true;
    bool ended = true;
    if (is_our_server(directory, pid)) {
        struct pollfd death = {.fd = descriptor, .events = POLLIN};
        log_warning("nats-server: ending pid %d, which an earlier daemon left behind", pid);
        syscall(SYS_pidfd_send_signal, descriptor, SIGKILL, NULL, 0);
        ended = poll(&death, 1, LEFTOVER_TIMEOUT_MS) == 1;
        if (!ended)
            snprintf(error, SERVER_DIRECTORY_ERROR_BYTES, "nats-server pid %d still runs on %s and cannot be ended",
                     pid, directory->path);
    }
    close(descriptor);
    return ended;
}
