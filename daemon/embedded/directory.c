#include "daemon/embedded/directory.h"

#include "daemon/base/lock_file.h"

#include <dirent.h>
#include <errno.h>
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
