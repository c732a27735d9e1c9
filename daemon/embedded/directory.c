#include "daemon/embedded/directory.h"

#include "daemon/base/lock_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void embedded_directory_path(const struct embedded_directory *directory, const char *name, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/%s", directory->path, name);
}

static bool create_directory(const char *path, char error[EMBEDDED_ERROR_BYTES])
{
    char parent[PATH_MAX];

    if (mkdir(path, 0700) == 0 || errno == EEXIST)
        return true;
    if (errno == ENOENT) {
        snprintf(parent, sizeof(parent), "%s", path);
        char *slash = strrchr(parent, '/');
        if (slash != NULL && slash != parent) {
            *slash = '\0';
            if (create_directory(parent, error) && (mkdir(path, 0700) == 0 || errno == EEXIST))
                return true;
        }
    }
    snprintf(error, EMBEDDED_ERROR_BYTES, "cannot create the directory %s: %s", path, strerror(errno));
    return false;
}

/*
 * Return whether only its owner may write in the directory. Others could make the daemon and nats-server write
 * elsewhere through symbolic links, and read the buckets. A directory of root is fine: root can do that anyway.
 */
static bool check_directory(const char *path, const char *setting, char error[EMBEDDED_ERROR_BYTES])
{
    struct stat status;

    if (lstat(path, &status) != 0) {
        snprintf(error, EMBEDDED_ERROR_BYTES, "%s %s: %s", setting, path, strerror(errno));
        return false;
    }
    if (!S_ISDIR(status.st_mode)) {
        snprintf(error, EMBEDDED_ERROR_BYTES, "%s %s is not a directory", setting, path);
        return false;
    }
    if (status.st_uid != 0 && status.st_uid != geteuid()) {
        snprintf(error, EMBEDDED_ERROR_BYTES,
                 "%s %s belongs to uid %u; it must belong to uid %u, as which kvstored runs, or to root (chown)",
                 setting, path, (unsigned)status.st_uid, (unsigned)geteuid());
        return false;
    }
    if (status.st_mode & (S_IWGRP | S_IWOTH)) {
        snprintf(
            error, EMBEDDED_ERROR_BYTES,
            "%s %s has mode %03o, so that others than its owner can write in it; remove that permission (chmod go-w)",
            setting, path, (unsigned)status.st_mode & 07777);
        return false;
    }
    return true;
}

static bool create_and_check(struct embedded_directory *directory, const char *path, char error[EMBEDDED_ERROR_BYTES])
{
    char resolved[PATH_MAX], ports[PATH_MAX];

    if (!create_directory(path, error))
        return false;
    if (realpath(path, resolved) == NULL || strlen(resolved) >= sizeof(directory->path)) {
        snprintf(error, EMBEDDED_ERROR_BYTES, "nats.data_dir %s: %s", path, strerror(errno));
        return false;
    }
    if (strpbrk(resolved, "\"\\\n") != NULL) {
        snprintf(error, EMBEDDED_ERROR_BYTES,
                 "nats.data_dir %s contains a quote, backslash or line break, which nats-server's configuration cannot "
                 "express; choose another path",
                 path);
        return false;
    }
    strcpy(directory->path, resolved);
    if (!check_directory(resolved, "nats.data_dir", error))
        return false;
    embedded_directory_path(directory, "ports", ports);
    return create_directory(ports, error) && check_directory(ports, "the directory", error);
}

static bool acquire_lock(struct embedded_directory *directory, char error[EMBEDDED_ERROR_BYTES])
{
    char path[PATH_MAX], what[PATH_MAX + 16];

    embedded_directory_path(directory, "kvstored.lock", path);
    snprintf(what, sizeof(what), "nats.data_dir %s", directory->path);
    directory->lock = lock_file_take(path, what, error, EMBEDDED_ERROR_BYTES);
    return directory->lock >= 0;
}

bool embedded_directory_open(struct embedded_directory *directory, const char *path, char error[EMBEDDED_ERROR_BYTES])
{
    directory->lock = -1;
    if (create_and_check(directory, path, error) && acquire_lock(directory, error))
        return true;
    embedded_directory_close(directory);
    return false;
}

void embedded_directory_close(struct embedded_directory *directory)
{
    if (directory->lock >= 0)
        close(directory->lock);
    directory->lock = -1;
}

/* --- The data ------------------------------------------------------------------------------------- */

/*
 * The record of the version is among the data, so that a copy or a backup of them has its own. The server removes files
 * and empty directories that are there beside its accounts (nats-server 2.15), hence the directory.
 */
#define VERSION_DIRECTORY "jetstream/kvstored"
#define VERSION_FILE      VERSION_DIRECTORY "/nats-server.version"

/* The server must be able to write in each directory of the data. What root has copied often belongs to root. */
static bool check_data_directory(const char *path, char error[EMBEDDED_ERROR_BYTES])
{
    struct stat status;

    if (access(path, R_OK | W_OK | X_OK) == 0 || errno == ENOENT)
        return true;
    int reason = errno;
    snprintf(error, EMBEDDED_ERROR_BYTES,
             "%.300s belongs to uid %d, and kvstored runs as uid %d and cannot write in it (%s); give it with all its "
             "files to that user (chown -R)",
             path, stat(path, &status) == 0 ? (int)status.st_uid : -1, (int)geteuid(), strerror(reason));
    return false;
}

/* The server keeps the streams of its one account in $G. Check the directory of each stream. */
static bool check_streams(const char *path, char error[EMBEDDED_ERROR_BYTES])
{
    const struct dirent *entry;
    char stream[PATH_MAX + 256];
    bool is_good = true;
    DIR *streams = opendir(path);

    while (streams != NULL && is_good && (entry = readdir(streams)) != NULL) {
        snprintf(stream, sizeof(stream), "%s/%s", path, entry->d_name);
        is_good = entry->d_name[0] == '.' || entry->d_type != DT_DIR || check_data_directory(stream, error);
    }
    if (streams != NULL)
        closedir(streams);
    return is_good;
}

static bool check_data_owner(const struct embedded_directory *directory, char error[EMBEDDED_ERROR_BYTES])
{
    static const char *const names[] = {"jetstream", "jetstream/$G", "jetstream/$G/streams"};
    char path[PATH_MAX];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        embedded_directory_path(directory, names[i], path);
        if (!check_data_directory(path, error))
            return false;
    }
    return check_streams(path, error);
}

static int compare_versions(const struct embedded_version *a, const struct embedded_version *b)
{
    if (a->major != b->major)
        return a->major < b->major ? -1 : 1;
    if (a->minor != b->minor)
        return a->minor < b->minor ? -1 : 1;
    return a->patch < b->patch ? -1 : a->patch > b->patch;
}

/* Return false if no version is recorded: the data are new, or older than this record. */
static bool read_version(const struct embedded_directory *directory, struct embedded_version *version)
{
    char path[PATH_MAX], text[64] = "";

    embedded_directory_path(directory, VERSION_FILE, path);
    FILE *file = fopen(path, "re");
    bool is_read = file != NULL && fgets(text, sizeof(text), file) != NULL;
    if (file != NULL)
        fclose(file);
    return is_read && sscanf(text, "%u.%u.%u", &version->major, &version->minor, &version->patch) == 3;
}

bool embedded_directory_check_data(const struct embedded_directory *directory, const struct embedded_version *version,
                                   char error[EMBEDDED_ERROR_BYTES])
{
    struct embedded_version newest;

    if (!check_data_owner(directory, error))
        return false;
    if (!read_version(directory, &newest) || compare_versions(version, &newest) >= 0)
        return true;
    snprintf(error, EMBEDDED_ERROR_BYTES,
             "nats.data_dir %.200s was opened by nats-server %u.%u.%u, and nats.server_binary is the older %u.%u.%u, "
             "which may misread the data; install %u.%u.%u or later, or restore a backup from before the upgrade",
             directory->path, newest.major, newest.minor, newest.patch, version->major, version->minor, version->patch,
             newest.major, newest.minor, newest.patch);
    return false;
}

/* The record must be on the disk before the server changes anything. */
static bool write_version(const char *path, const struct embedded_version *version)
{
    char name[PATH_MAX + 8];
    bool is_written = false;

    snprintf(name, sizeof(name), "%s.new", path);
    unlink(name); /* it may be a symbolic link */
    int descriptor = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (descriptor >= 0) {
        is_written = dprintf(descriptor, "%u.%u.%u\n", version->major, version->minor, version->patch) > 0 &&
                     fsync(descriptor) == 0;
        close(descriptor);
    }
    return is_written && rename(name, path) == 0;
}

bool embedded_directory_record_version(const struct embedded_directory *directory,
                                       const struct embedded_version *version, char error[EMBEDDED_ERROR_BYTES])
{
    struct embedded_version newest;
    char path[PATH_MAX];

    if (read_version(directory, &newest) && compare_versions(version, &newest) == 0)
        return true;
    embedded_directory_path(directory, VERSION_DIRECTORY, path);
    if (!create_directory(path, error))
        return false;
    embedded_directory_path(directory, VERSION_FILE, path);
    if (write_version(path, version))
        return true;
    snprintf(error, EMBEDDED_ERROR_BYTES, "cannot write %.400s: %s", path, strerror(errno));
    return false;
}

/* --- Files of the server --------------------------------------------------------------------------- */

/* Write the path of a file with the server's ports, which is named after the program and its pid. Return false if there
 * is none. */
static bool find_ports_file(const struct embedded_directory *directory, char file[PATH_MAX + 256])
{
    char path[PATH_MAX];
    struct dirent *entry;
    bool is_found = false;

    embedded_directory_path(directory, "ports", path);
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

void embedded_directory_clear(const struct embedded_directory *directory)
{
    char file[PATH_MAX + 256];

    embedded_directory_path(directory, "nats-server.pid", file);
    unlink(file);
    while (find_ports_file(directory, file) && unlink(file) == 0)
        ;
}

bool embedded_directory_read_port(const struct embedded_directory *directory, unsigned *port)
{
    char file[PATH_MAX + 256];

    if (!find_ports_file(directory, file))
        return false;
    /* A JSON object of lists of URLs. */
    json_t *ports = json_load_file(file, 0, NULL);
    const char *url = json_string_value(json_array_get(json_object_get(ports, "nats"), 0));
    const char *colon = url != NULL ? strrchr(url, ':') : NULL;
    *port = colon != NULL ? (unsigned)strtoul(colon + 1, NULL, 10) : 0;
    json_decref(ports);
    return *port != 0;
}
