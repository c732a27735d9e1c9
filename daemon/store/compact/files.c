#include "daemon/store/compact/files.h"

#include "daemon/store/compact/remains.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct compact_files {
    uv_work_t work;
    struct compact_chunk *chunk; /* NULL: it was forgotten */
    atomic_bool is_unwanted;     /* the same, for the thread */
    void (*done)(void *arg);
    void *arg;
    struct remains_key *keys;
    size_t count;
    char directory[];
};

static void look_on_thread(uv_work_t *work)
{
    struct compact_files *files = work->data;

    remains_look(files->directory, files->keys, files->count, &files->is_unwanted);
}

static void compact_files_free(struct compact_files *files)
{
    free(files->keys);
    free(files);
}

static void on_looked(uv_work_t *work, int cancelled)
{
    struct compact_files *files = work->data;
    struct compact_chunk *chunk = files->chunk;
    void (*done)(void *arg) = files->done;
    void *arg = files->arg;

    for (size_t i = 0; chunk != NULL && i < files->count; i++)
        chunk->markers[files->keys[i].index].is_retained = cancelled != 0 || files->keys[i].has_value;
    compact_files_free(files);
    if (chunk != NULL)
        done(arg);
}

static struct compact_files *compact_files_make(const char *data_dir, const char *stream,
                                                const struct compact_chunk *chunk)
{
    static const char format[] = "%s/jetstream/$G/streams/%s/msgs";
    size_t bytes = sizeof(format) + strlen(data_dir) + strlen(stream);
    struct compact_files *files = calloc(1, sizeof(*files) + bytes);

    if (files == NULL)
        return NULL;
    files->keys = malloc(chunk->count * sizeof(*files->keys));
    if (files->keys == NULL) {
        free(files);
        return NULL;
    }
    snprintf(files->directory, bytes, format, data_dir, stream);
    files->count = chunk->count;
    for (size_t i = 0; i < chunk->count; i++) {
        const struct compact_marker *marker = &chunk->markers[i];
        files->keys[i] = (struct remains_key){.hash = marker->hash, .sequence = marker->sequence, .index = i};
    }
    return files;
}

struct compact_files *compact_files_start(struct store *store, const char *stream, struct compact_chunk *chunk,
                                          void (*done)(void *arg), void *arg)
{
    struct compact_files *files = compact_files_make(store->conf->nats.data_dir, stream, chunk);

    if (files == NULL)
        return NULL;
    files->chunk = chunk;
    files->done = done;
    files->arg = arg;
    files->work.data = files;
    if (uv_queue_work(store->loop, &files->work, look_on_thread, on_looked) != 0) {
        compact_files_free(files);
        return NULL;
    }
    return files;
}

void compact_files_forget(struct compact_files *files)
{
    files->chunk = NULL;
    atomic_store(&files->is_unwanted, true);
}
