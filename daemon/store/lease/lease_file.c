#include "daemon/store/lease/lease_file.h"

#include "daemon/base/jobs.h"
#include "daemon/base/log.h"
#include "daemon/store/lease/lease_bucket.h"
#include "daemon/store/lease/lease_text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

struct lease_line {
    struct lease_line *next, *previous;
    bool is_of_last_run; /* of a lease: it is not adopted yet */
    bool is_in_text;     /* of the last writing */
    void (*noted)(void *arg);
    void *arg;
    struct lease_line *next_written, *previous_written; /* in file->written */
    bool is_written;
    char bucket[KV_BUCKET_LENGTH_MAX + 1];
    char id[LEASE_ID_BYTES];
    uint64_t revision; /* of the key that is deleted */
    char key[];        /* "": the line is of a lease */
};

struct lease_file {
    struct store *store;
    char *path, *temporary;
    struct lease_line *leases, *deletions;
    struct lease_line *written; /* those to be noted */
    struct job noting;
    uv_work_t work;
    bool is_working;
    bool has_changed; /* since the work began */
    char *text;       /* for the worker */
    int failure;      /* of the worker: an errno; 0: none */
    struct log_limit log;
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

static void lease_file_forget_written(struct lease_file *file, struct lease_line *line)
{
    if (line->is_written)
        DL_DELETE2(file->written, line, previous_written, next_written);
    line->is_written = false;
}

static bool run_noting(struct job *job)
{
    struct lease_file *file = (struct lease_file *)((char *)job - offsetof(struct lease_file, noting));
    struct lease_line *line;

    while ((line = file->written) != NULL) {
        void (*noted)(void *arg) = line->noted;
        lease_file_forget_written(file, line);
        line->noted = NULL;
        if (noted != NULL)
            noted(line->arg); /* the line may be gone */
        if (jobs_slice_is_over(file->store->jobs))
            break;
    }
    return file->written != NULL;
}

static void lease_file_note_written(struct lease_file *file, struct lease_line *lines)
{
    struct lease_line *line;

    DL_FOREACH2(lines, line, next)
    {
        if (!line->is_in_text || line->is_written || line->noted == NULL)
            continue;
        line->is_written = true;
        DL_APPEND2(file->written, line, previous_written, next_written);
    }
}

static void lease_file_on_worked(uv_work_t *work, int status)
{
    struct lease_file *file = work->data;

    (void)status;
    file->is_working = false;
    free(file->text);
    file->text = NULL;
    if (file->failure != 0)
        log_limited(&file->log, "failures to write the leases", CONF_LOG_WARNING,
                    "cannot write %s: %s; a restarted daemon does not find the leases of this one", file->path,
                    strerror(file->failure));
    lease_file_note_written(file, file->leases);
    lease_file_note_written(file, file->deletions);
    if (file->written != NULL)
        jobs_add(file->store->jobs, &file->noting, run_noting);
    if (file->has_changed)
        lease_file_start(file);
}

static char *lease_file_text(const struct lease_file *file)
{
    const struct lease_line *line;
    size_t bytes;
    char *text;
    FILE *stream = open_memstream(&text, &bytes);

    if (stream == NULL)
        return NULL;
    DL_FOREACH2(file->leases, line, next)
    {
        fprintf(stream, "%s %s\n", line->bucket, line->id);
    }
    DL_FOREACH2(file->deletions, line, next)
    {
        fprintf(stream, "%s %s %s %" PRIu64 "\n", line->bucket, line->id, line->key, line->revision);
    }
    return fclose(stream) == 0 ? text : NULL;
}

static void lease_lines_put_into_text(struct lease_line *lines)
{
    struct lease_line *line;

    DL_FOREACH2(lines, line, next)
    {
        line->is_in_text = true;
    }
}

/* Write the file, or note that it has changed since the writing began. */
static void lease_file_start(struct lease_file *file)
{
    file->has_changed = file->is_working;
    if (file->is_working)
        return;
    lease_lines_put_into_text(file->leases);
    lease_lines_put_into_text(file->deletions);
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

static bool lease_line_is_of(const struct lease_line *line, const char *bucket, const char *id)
{
    return strcmp(line->id, id) == 0 && strcmp(line->bucket, bucket) == 0;
}

/* key NULL: it is of a lease. */
static struct lease_line *lease_file_append(struct lease_file *file, const char *bucket, const char *id,
                                            const char *key, uint64_t revision)
{
    bool is_lease = key == NULL;

    if (is_lease)
        key = "";
    struct lease_line *line = calloc(1, sizeof(*line) + strlen(key) + 1);

    if (line == NULL)
        return NULL;
    strcpy(line->key, key);
    line->revision = revision;
    snprintf(line->bucket, sizeof(line->bucket), "%s", bucket);
    snprintf(line->id, sizeof(line->id), "%s", id);
    if (is_lease)
        DL_APPEND2(file->leases, line, previous, next);
    else
        DL_APPEND2(file->deletions, line, previous, next);
    return line;
}

/* key NULL: add a lease. */
static void lease_file_add_line(struct store *store, const char *bucket, const char *id, const char *key,
                                uint64_t revision, void (*noted)(void *arg), void *arg)
{
    struct lease_file *file = store->leases->file;
    struct lease_line *line = file->path != NULL ? lease_file_append(file, bucket, id, key, revision) : NULL;

    if (line == NULL) {
        noted(arg);
        return;
    }
    line->noted = noted;
    line->arg = arg;
    lease_file_start(file);
}

void lease_file_add(struct store *store, const char *bucket, const char *id, void (*noted)(void *arg), void *arg)
{
    lease_file_add_line(store, bucket, id, NULL, 0, noted, arg);
}

void lease_file_add_deletion(struct store *store, const char *bucket, const char *id, const char *key,
                             uint64_t revision, void (*noted)(void *arg), void *arg)
{
    lease_file_add_line(store, bucket, id, key, revision, noted, arg);
}

static void lease_line_drop(struct lease_file *file, struct lease_line **lines, struct lease_line *line)
{
    lease_file_forget_written(file, line);
    DL_DELETE2(*lines, line, previous, next);
    free(line);
}

/* Return whether there was one. */
static bool lease_lines_drop_lease(struct lease_file *file, struct lease_line **lines, const char *bucket,
                                   const char *id)
{
    struct lease_line *line, *next;
    bool has_changed = false;

    DL_FOREACH_SAFE2(*lines, line, next, next)
    {
        bool is_awaited = line->key[0] != '\0' && line->noted != NULL;
        if (is_awaited || !lease_line_is_of(line, bucket, id))
            continue;
        has_changed = true;
        lease_line_drop(file, lines, line);
    }
    return has_changed;
}

void lease_file_remove(struct store *store, const char *bucket, const char *id)
{
    struct lease_file *file = store->leases->file;
    bool has_changed = lease_lines_drop_lease(file, &file->leases, bucket, id);

    has_changed |= lease_lines_drop_lease(file, &file->deletions, bucket, id);
    if (has_changed && !store->leases->is_ended)
        lease_file_start(file);
}

void lease_file_end_deletion(struct store *store, const char *bucket, const char *id, const char *key,
                             uint64_t revision, const void *arg)
{
    struct lease_file *file = store->leases->file;
    struct lease_line *line, *next;

    if (file->deletions == NULL)
        return;
    DL_FOREACH_SAFE2(file->deletions, line, next, next)
    {
        bool is_others = line->arg != NULL && line->arg != arg;
        if (!is_others && line->revision <= revision && strcmp(line->key, key) == 0 &&
            lease_line_is_of(line, bucket, id))
            lease_line_drop(file, &file->deletions, line);
    }
    if (file->deletions == NULL && !store->leases->is_ended)
        lease_file_start(file); /* the file keeps none that is over, for long */
}

bool lease_file_has_deletion(const struct store *store, const char *bucket, const char *id, const char *key,
                             uint64_t revision)
{
    const struct lease_line *line;

    DL_FOREACH2(store->leases->file->deletions, line, next)
    {
        if (line->revision == revision && strcmp(line->key, key) == 0 && lease_line_is_of(line, bucket, id))
            return true;
    }
    return false;
}

void lease_file_cancel(struct store *store, const void *arg)
{
    struct lease_line *line;

    DL_FOREACH2(store->leases->file->leases, line, next)
    {
        if (line->arg == arg)
            line->noted = NULL;
    }
}

void lease_file_each(struct store *store, void (*found)(struct store *store, const char *bucket, const char *id))
{
    struct lease_line *first = store->leases->file->leases;
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

/* Forget deletions of a lease that this daemon no longer has. */
static void lease_file_drop_strays(struct lease_file *file)
{
    struct lease_line *line, *next, *lease;

    DL_FOREACH_SAFE2(file->deletions, line, next, next)
    {
        DL_FOREACH2(file->leases, lease, next)
        {
            if (lease_line_is_of(lease, line->bucket, line->id))
                break;
        }
        if (lease == NULL)
            lease_line_drop(file, &file->deletions, line);
    }
}

/* A line that cannot be read is skipped: another version may have written it. */
static void lease_file_read(struct lease_file *file)
{
    int descriptor = open(file->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    FILE *stream = descriptor >= 0 ? fdopen(descriptor, "r") : NULL;
    char text[KV_BUCKET_LENGTH_MAX + LEASE_ID_BYTES + KV_KEY_LENGTH_MAX + 32];

    if (stream == NULL) {
        if (descriptor >= 0)
            close(descriptor);
        return;
    }
    while (fgets(text, sizeof(text), stream) != NULL) {
        char *bucket = strtok(text, " \n"), *id = bucket != NULL ? strtok(NULL, " \n") : NULL;
        bool is_well = id != NULL && kv_check_bucket(bucket, strlen(bucket)) == NULL && strlen(id) < LEASE_ID_BYTES &&
                       kv_check_key(id, strlen(id)) == NULL;
        const char *key = is_well ? strtok(NULL, " \n") : NULL, *revision = key != NULL ? strtok(NULL, " \n") : NULL;
        is_well = is_well && (key == NULL || (revision != NULL && kv_check_key(key, strlen(key)) == NULL));
        struct lease_line *line =
            is_well ? lease_file_append(file, bucket, id, key, revision != NULL ? strtoull(revision, NULL, 10) : 0)
                    : NULL;
        if (line != NULL)
            line->is_of_last_run = key == NULL;
    }
    fclose(stream);
    lease_file_drop_strays(file);
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

static void lease_lines_free(struct lease_line *lines)
{
    struct lease_line *line, *next;

    DL_FOREACH_SAFE2(lines, line, next, next)
    {
        free(line);
    }
}

void lease_file_free(struct lease_file *file)
{
    if (file == NULL)
        return;
    if (file->store != NULL && file->store->jobs != NULL)
        jobs_remove(file->store->jobs, &file->noting);
    lease_lines_free(file->leases);
    lease_lines_free(file->deletions);
    free(file->text);
    free(file->path);
    free(file->temporary);
    free(file);
}
