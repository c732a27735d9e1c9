#include "daemon/store/lease/lease_file.h"

#include "daemon/base/log.h"
#include "daemon/store/lease/lease_bucket.h"
#include "daemon/store/lease/lease_text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

struct lease_line {
    struct lease_line *next, *previous;
    bool is_of_last_run;
    void (*noted)(void *arg);
    void *arg;
    char bucket[KV_BUCKET_LENGTH_MAX + 1];
    char id[LEASE_ID_BYTES];
};

struct lease_file {
    struct store *store;
    char *path, *temporary;
    struct lease_line *lines;
    uv_work_t work;
    bool is_working;
    bool has_changed; /* since the work began */
    char *text;       /* for the worker */
    int failure;      /* of the worker: an errno; 0: none */
};

/* --- The worker ------------------------------------------------------------------------------------ */

static int lease_file_replace(const struct lease_file *file)
{
    size_t length = strlen(file->text);
    int descriptor = open(file->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (descriptor < 0)
        return errno;
    ssize_t written = write(descriptor, file->text, length);
    int failure = written < 0 ? errno : (size_t)written < length ? ENOSPC : 0;
    if (close(descriptor) != 0 && failure == 0)
        failure = errno;
    if (failure == 0 && rename(file->temporary, file->path) != 0)
        failure = errno;
    return failure;
}

static void lease_file_work(uv_work_t *work)
{
    struct lease_file *file = work->data;

    file->failure = lease_file_replace(file);
}

static void lease_file_start(struct lease_file *file);

static void lease_file_on_worked(uv_work_t *work, int status)
{
    struct lease_file *file = work->data;
    struct lease_line *line, *next;

    (void)status;
    file->is_working = false;
    free(file->text);
    file->text = NULL;
    if (file->failure != 0)
        log_warning("cannot write %s: %s; a restarted daemon does not find the leases of this one", file->path,
                    strerror(file->failure));
    if (file->has_changed) {
        lease_file_start(file);
        return;
    }
    DL_FOREACH_SAFE2(file->lines, line, next, next)
    {
        void (*noted)(void *arg) = line->noted;
        line->noted = NULL;
        if (noted != NULL)
            noted(line->arg);
    }
}

static char *lease_file_text(const struct lease_file *file)
{
    const struct lease_line *line;
    size_t bytes;
    char *text;
    FILE *stream = open_memstream(&text, &bytes);

    if (stream == NULL)
        return NULL;
    DL_FOREACH2(file->lines, line, next)
    {
        fprintf(stream, "%s %s\n", line->bucket, line->id);
    }
    return fclose(stream) == 0 ? text : NULL;
}

/* Write the file, or note that it has changed since the writing began. */
static void lease_file_start(struct lease_file *file)
{
    file->has_changed = file->is_working;
    if (file->is_working)
        return;
    file->text = lease_file_text(file);
    file->work.data = file;
    file->is_working =
        file->text != NULL && uv_queue_work(file->store->loop, &file->work, lease_file_work, lease_file_on_worked) == 0;
    if (!file->is_working) {
        file->failure = ENOMEM;
        lease_file_on_worked(&file->work, 0);
    }
}

/* --- Lines ----------------------------------------------------------------------------------------- */

static struct lease_line *lease_file_find(const struct lease_file *file, const char *bucket, const char *id)
{
    struct lease_line *line;

    DL_FOREACH2(file->lines, line, next)
    {
        if (strcmp(line->id, id) == 0 && strcmp(line->bucket, bucket) == 0)
            return line;
    }
    return NULL;
}

static struct lease_line *lease_file_append(struct lease_file *file, const char *bucket, const char *id)
{
    struct lease_line *line = calloc(1, sizeof(*line));

    if (line == NULL)
        return NULL;
    snprintf(line->bucket, sizeof(line->bucket), "%s", bucket);
    snprintf(line->id, sizeof(line->id), "%s", id);
    DL_APPEND2(file->lines, line, previous, next);
    return line;
}

void lease_file_add(struct store *store, const char *bucket, const char *id, void (*noted)(void *arg), void *arg)
{
    struct lease_file *file = store->leases->file;
    struct lease_line *line = file->path != NULL ? lease_file_append(file, bucket, id) : NULL;

    if (line == NULL) {
        noted(arg);
        return;
    }
    line->noted = noted;
    line->arg = arg;
    lease_file_start(file);
}

void lease_file_remove(struct store *store, const char *bucket, const char *id)
{
    struct lease_file *file = store->leases->file;
    struct lease_line *line = lease_file_find(file, bucket, id);

    if (line == NULL)
        return;
    DL_DELETE2(file->lines, line, previous, next);
    free(line);
    if (!store->leases->is_ended)
        lease_file_start(file);
}

void lease_file_cancel(struct store *store, const void *arg)
{
    struct lease_line *line;

    DL_FOREACH2(store->leases->file->lines, line, next)
    {
        if (line->arg == arg)
            line->noted = NULL;
    }
}

void lease_file_each(struct store *store, void (*found)(struct store *store, const char *bucket, const char *id))
{
    struct lease_line *first = store->leases->file->lines;
    struct lease_line *line = first != NULL ? first->previous : NULL; /* the last one */

    while (line != NULL) {
        struct lease_line *earlier = line != first ? line->previous : NULL;
        bool is_of_last_run = line->is_of_last_run;
        line->is_of_last_run = false;
        if (is_of_last_run)
            found(store, line->bucket, line->id);
        line = earlier;
    }
}

/* --- Life ------------------------------------------------------------------------------------------ */

/* A line that cannot be read is skipped: another version may have written it. */
static void lease_file_read(struct lease_file *file)
{
    int descriptor = open(file->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    FILE *stream = descriptor >= 0 ? fdopen(descriptor, "r") : NULL;
    char text[KV_BUCKET_LENGTH_MAX + LEASE_ID_BYTES + 8];

    if (stream == NULL) {
        if (descriptor >= 0)
            close(descriptor);
        return;
    }
    while (fgets(text, sizeof(text), stream) != NULL) {
        char *bucket = strtok(text, " \n"), *id = bucket != NULL ? strtok(NULL, " \n") : NULL;
        bool is_well = id != NULL && kv_check_bucket(bucket, strlen(bucket)) == NULL && strlen(id) < LEASE_ID_BYTES &&
                       kv_check_key(id, strlen(id)) == NULL;
        struct lease_line *line = is_well ? lease_file_append(file, bucket, id) : NULL;
        if (line != NULL)
            line->is_of_last_run = true;
    }
    fclose(stream);
}

struct lease_file *lease_file_open(struct store *store, const char *path)
{
    struct lease_file *file = calloc(1, sizeof(*file));

    if (file == NULL || path == NULL) {
        if (file != NULL)
            file->store = store;
        return file;
    }
    size_t bytes = strlen(path) + sizeof(".new");
    file->store = store;
    file->path = strdup(path);
    file->temporary = malloc(bytes);
    if (file->path == NULL || file->temporary == NULL) {
        lease_file_free(file);
        return NULL;
    }
    snprintf(file->temporary, bytes, "%s.new", path);
    lease_file_read(file);
    return file;
}

void lease_file_free(struct lease_file *file)
{
    struct lease_line *line, *next;

    if (file == NULL)
        return;
    DL_FOREACH_SAFE2(file->lines, line, next, next)
    {
        free(line);
    }
    free(file->text);
    free(file->path);
    free(file->temporary);
    free(file);
}
