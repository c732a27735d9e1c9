#include "client/kvctl/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER_BYTES (1024u * 1024)

/* The incomplete file, which a signal that ends kvctl removes; "": none. */
static char partial_path[PATH_MAX];

static void on_ending_signal(int number)
{
    if (*partial_path != '\0')
        unlink(partial_path);
    signal(number, SIG_DFL);
    raise(number);
}

static void export_writer_catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_ending_signal, .sa_flags = SA_NODEFER};

    signals_handle(numbers, sizeof(numbers) / sizeof(*numbers), &action);
}

static bool export_writer_fail(const struct export_writer *writer, const char *what)
{
    if (writer->file == stdout)
        return print_check(STATUS_OK) == STATUS_OK;
    return report("cannot %s %.200s: %s", what, writer->path, strerror(errno)) == STATUS_OK;
}

/* Create the file under a name that no other program uses. */
static bool export_writer_make(struct export_writer *writer)
{
    size_t size = strlen(writer->target) + sizeof(".partial.XXXXXX");

    writer->partial = malloc(size);
    if (writer->partial == NULL || size > sizeof(partial_path))
        return report("out of memory, or the name %.200s is too long", writer->path) == STATUS_OK;
    snprintf(writer->partial, size, "%s.partial.XXXXXX", writer->target);
    int descriptor = mkostemp(writer->partial, O_CLOEXEC);
    if (descriptor < 0)
        return export_writer_fail(writer, "create");
    strcpy(partial_path, writer->partial);
    export_writer_catch_signals();
    writer->file = fdopen(descriptor, "w");
    return writer->file != NULL || export_writer_fail(writer, "create");
}

/* Follow symbolic links: the file takes the place of what they name. */
static bool export_writer_find_target(struct export_writer *writer)
{
    struct stat state;

    writer->target = realpath(writer->path, NULL);
    if (writer->target == NULL && errno == ENOENT && lstat(writer->path, &state) != 0)
        writer->target = strdup(writer->path);
    return writer->target != NULL || export_writer_fail(writer, "open");
}

/* Open what has the path, if there is something. A device or a pipe is written to: no file must take its place. */
static bool export_writer_open_path(struct export_writer *writer)
{
    struct stat state;

    if (stat(writer->path, &state) != 0 || S_ISREG(state.st_mode))
        return export_writer_find_target(writer) && export_writer_make(writer);
    if (S_ISDIR(state.st_mode))
        return report("%.200s is a directory: name a file", writer->path) == STATUS_OK;
    writer->file = fopen(writer->path, "we");
    writer->is_special = writer->file != NULL;
    return writer->is_special || export_writer_fail(writer, "open");
}

bool export_writer_is_output(const char *path)
{
    struct stat state, output;

    return strcmp(path, "-") == 0 || (stat(path, &state) == 0 && fstat(STDOUT_FILENO, &output) == 0 &&
                                      state.st_dev == output.st_dev && state.st_ino == output.st_ino);
}

bool export_writer_open(struct export_writer *writer, const char *path)
{
    *writer = (struct export_writer){.path = path};
    SHA256_Init(&writer->digest);
    if (export_writer_is_output(path))
        writer->file = stdout;
    else if (!export_writer_open_path(writer))
        return false;
    setvbuf(writer->file, NULL, _IOFBF, BUFFER_BYTES);
    return true;
}

bool export_writer_add(struct export_writer *writer, const char *line)
{
    size_t size = strlen(line);

    SHA256_Update(&writer->digest, line, size);
    SHA256_Update(&writer->digest, "\n", 1);
    writer->bytes += size + 1;
    if (fwrite(line, 1, size, writer->file) == size && putc('\n', writer->file) != EOF)
        return true;
    return export_writer_fail(writer, "write");
}

bool export_writer_restart(struct export_writer *writer)
{
    if (writer->partial == NULL)
        return false;
    if (fflush(writer->file) != 0 || fseeko(writer->file, 0, SEEK_SET) != 0 || ftruncate(fileno(writer->file), 0) != 0)
        return export_writer_fail(writer, "write");
    writer->bytes = 0;
    return SHA256_Init(&writer->digest) == 1;
}

bool export_writer_finish(struct export_writer *writer)
{
    FILE *file = writer->file;
    if (writer->is_special) {
        writer->is_special = false;
        return fclose(file) == 0 || export_writer_fail(writer, "write");
    }
    if (writer->partial == NULL)
        return fflush(file) == 0 || export_writer_fail(writer, "write");
    if (fflush(file) != 0 || fsync(fileno(file)) != 0)
        return export_writer_fail(writer, "write");
    writer->file = NULL;
    if (fclose(file) != 0 || rename(writer->partial, writer->target) != 0)
        return export_writer_fail(writer, "write");
    *partial_path = '\0';
    free(writer->partial);
    writer->partial = NULL;
    return transfer_sync_directory(writer->target) || export_writer_fail(writer, "sync the directory of");
}

void export_writer_drop(struct export_writer *writer)
{
    if (writer->partial != NULL) {
        if (writer->file != NULL)
            fclose(writer->file);
        unlink(writer->partial);
        *partial_path = '\0';
        free(writer->partial);
    }
    if (writer->is_special)
        fclose(writer->file);
    free(writer->target);
    *writer = (struct export_writer){0};
}
