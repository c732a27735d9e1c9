/* The verbs backup and restore: exports of all buckets in one directory, with a manifest. */
#include "client/kvctl/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NAME_PART_MAX 200 /* of a bucket's name in the name of its file, which has 255 bytes at most */

/* The backup that is being written. */
struct backup {
    struct invocation *invocation;
    struct export_options options;
    const char *directory;
    char *partial; /* its name until it is complete */
    char *manifest;
    size_t manifest_size;
    FILE *manifest_stream;
};

static char *backup_path(const char *directory, const char *name)
{
    char *path = NULL;

    if (asprintf(&path, "%s/%s", directory, name) < 0)
        path = NULL;
    if (path == NULL)
        report("out of memory");
    return path;
}

/* --- Writing -------------------------------------------------------------------------------------- */

/* Make the directory, under another name until it is complete. False after a message. */
static bool backup_begin(struct backup *backup)
{
    size_t length = strlen(backup->directory);

    while (length > 1 && backup->directory[length - 1] == '/')
        length--;
    if (access(backup->directory, F_OK) == 0)
        return report("%.200s exists already: name a new directory", backup->directory) == STATUS_OK;
    if (asprintf(&backup->partial, "%.*s.partial", (int)length, backup->directory) < 0) {
        backup->partial = NULL;
        return report("out of memory") == STATUS_OK;
    }
    if (mkdir(backup->partial, 0700) != 0) {
        report("cannot create %.200s: %s%s", backup->partial, strerror(errno),
               errno == EEXIST ? ": remove it if no other backup is being written to it" : "");
        free(backup->partial);
        backup->partial = NULL;
        return false;
    }
    backup->manifest_stream = open_memstream(&backup->manifest, &backup->manifest_size);
    return backup->manifest_stream != NULL || report("out of memory") == STATUS_OK;
}

/* Export a bucket, and add it to the manifest. A bucket that was deleted meanwhile is left out. */
static enum status backup_bucket(struct backup *backup, const char *bucket, size_t number, bool *is_first)
{
    struct export_summary summary;
    char name[NAME_PART_MAX + 32];

    snprintf(name, sizeof(name), "%05zu-%.*s.jsonl", number, NAME_PART_MAX, bucket);
    char *path = backup_path(backup->partial, name);
    if (path == NULL)
        return STATUS_FAILED;
    enum status status = export_bucket(backup->invocation, bucket, path, &backup->options, &summary);
    free(path);
    if (status != STATUS_OK)
        return status;
    fprintf(backup->manifest_stream,
            "%s\n  {\"bucket\":\"%s\",\"file\":\"%s\",\"revision\":%" PRIu64 ",\"time\":%" PRId64
            ",\"entries\":%" PRIu64 ",\"deletes\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"sha256\":\"%s\"}",
            *is_first ? "" : ",", bucket, name, summary.revision, summary.time_us, summary.entries, summary.deletes,
            summary.bytes, summary.digest);
    *is_first = false;
    if (!backup->invocation->json)
        printf("%s: %s of revision %" PRIu64 ", %s\n", bucket, text_of_things(summary.entries, "entry", "entries").text,
               summary.revision, text_of_size(summary.bytes).text);
    fflush(stdout);
    return STATUS_OK;
}

static enum status backup_buckets(struct backup *backup)
{
    struct kvs_list_options options = KVS_LIST_OPTIONS(.timeout_s = backup->invocation->timeout_s);
    struct patience patience = {.wait_s = backup->options.wait_s};
    struct kvs *kvs = backup->invocation->kvs;
    enum status status = STATUS_OK;
    bool is_first = true;
    char **names;
    size_t count;

    patience_renew(&patience);
    while (kvs_bucket_list(kvs, &options, &names, &count) != KVS_OK) {
        if (!patience_pause(&patience, kvs_last_error(kvs), &status))
            return status;
    }
    fprintf(backup->manifest_stream, "{\"format\":\"" MANIFEST_FORMAT "\",\"version\":%d,\"time\":%lld,\"buckets\":[",
            MANIFEST_VERSION, (long long)time(NULL) * 1000000);
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        status = backup_bucket(backup, names[i], i + 1, &is_first);
        if (status == STATUS_ABSENT) {
            report_note("bucket %s was deleted meanwhile: it is not in the backup", names[i]);
            status = STATUS_OK;
        }
    }
    fputs("\n]}\n", backup->manifest_stream);
    kvs_free(names);
    return status;
}

/* Write the manifest. False after a message. */
static bool backup_write_manifest(struct backup *backup)
{
    char *path = backup_path(backup->partial, MANIFEST_NAME);
    FILE *file = NULL;
    bool is_written = false;

    if (path == NULL)
        return false;
    if (fflush(backup->manifest_stream) == 0 && (file = fopen(path, "wxe")) != NULL) {
        is_written = fwrite(backup->manifest, 1, backup->manifest_size, file) == backup->manifest_size &&
                     fflush(file) == 0 && fsync(fileno(file)) == 0;
        is_written &= fclose(file) == 0;
    }
    if (!is_written)
        report("cannot write %.200s: %s", path, strerror(errno));
    free(path);
    return is_written;
}

/*
 * Rename a directory, unless the new name exists. False with errno. NFS and some FUSE file systems cannot do both at
 * once; even then rename replaces no more than an empty directory.
 */
static bool backup_rename(const char *from, const char *to)
{
    struct stat state;

    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
        return true;
    if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
        return false;
    if (lstat(to, &state) == 0) {
        errno = EEXIST;
        return false;
    }
    return errno == ENOENT && rename(from, to) == 0;
}

/* Give the directory its name. False after a message. */
static bool backup_finish(struct backup *backup)
{
    if (!backup_write_manifest(backup))
        return false;
    if (!backup_rename(backup->partial, backup->directory))
        return report("cannot rename %.200s to %.200s: %s", backup->partial, backup->directory, strerror(errno)) ==
               STATUS_OK;
    free(backup->partial);
    backup->partial = NULL; /* it is complete, unless the machine loses power */
    return transfer_sync_directory(backup->directory) ||
           report("cannot sync the directory of %.200s: %s", backup->directory, strerror(errno)) == STATUS_OK;
}

enum status backup_run(struct invocation *invocation)
{
    struct backup backup = {.invocation = invocation, .directory = invocation->arguments[0]};
    enum status status = STATUS_FAILED;

    if (export_read_options(invocation, &backup.options) && backup_begin(&backup)) {
        status = backup_buckets(&backup);
        if (status == STATUS_OK && !backup_finish(&backup))
            status = STATUS_FAILED;
        if (status == STATUS_OK && invocation->json)
            fwrite(backup.manifest, 1, backup.manifest_size, stdout);
        if (status != STATUS_OK && backup.partial != NULL)
            report_note("the incomplete backup is in %s", backup.partial);
    }
    if (backup.manifest_stream != NULL)
        fclose(backup.manifest_stream);
    free(backup.manifest);
    free(backup.partial);
    return status;
}

/* --- The manifest --------------------------------------------------------------------------------- */

/* Read a bucket's object in the manifest. False with the reason in json->wrong. */
static bool manifest_read_item(struct json *json, struct manifest_item *item)
{
    const char *bytes;
    size_t size;
    char *name;

    *item = (struct manifest_item){0};
    json->is_inside = false;
    if (!json_begin_object(json))
        return false;
    while (json_next_member(json, &name, &size) && json_read_member(json, &bytes, &size)) {
        if (strcmp(name, "bucket") == 0)
            item->bucket = bytes;
        else if (strcmp(name, "file") == 0)
            item->file = bytes;
        else if (strcmp(name, "sha256") == 0)
            item->digest = bytes;
        else if (strcmp(name, "entries") == 0 || strcmp(name, "deletes") == 0)
            item->entries += strtoull(bytes, NULL, 10);
    }
    if (json->wrong == NULL &&
        (item->bucket == NULL || item->file == NULL || item->digest == NULL || strchr(item->file, '/') != NULL))
        json->wrong = "a bucket has no name, no file or no checksum";
    return json->wrong == NULL;
}

static bool manifest_read_items(struct manifest *manifest, const char *text, const char **wrong)
{
    struct json json = {.at = (char *)text};

    for (json.at++;; manifest->count++) {
        json.at += strspn(json.at, " \t\r\n,");
        if (*json.at == ']')
            return true;
        struct manifest_item *larger = realloc(manifest->items, (manifest->count + 1) * sizeof(*larger));
        if (larger == NULL) {
            *wrong = "out of memory";
            return false;
        }
        manifest->items = larger;
        if (!manifest_read_item(&json, &manifest->items[manifest->count])) {
            *wrong = json.wrong;
            return false;
        }
    }
}

static bool manifest_parse(struct manifest *manifest, const char **wrong)
{
    const char *bytes, *format = "", *buckets = NULL;
    struct json json = {.at = manifest->text};
    long version = 0;
    size_t size;
    char *name;

    if (json_begin_object(&json)) {
        while (json_next_member(&json, &name, &size) && json_read_member(&json, &bytes, &size)) {
            if (strcmp(name, "format") == 0)
                format = bytes;
            else if (strcmp(name, "version") == 0)
                version = strtol(bytes, NULL, 10);
            else if (strcmp(name, "buckets") == 0)
                buckets = bytes;
        }
    }
    *wrong = json.wrong;
    if (*wrong == NULL && (strcmp(format, MANIFEST_FORMAT) != 0 || buckets == NULL || *buckets != '['))
        *wrong = "kvctl backup has not written it";
    if (*wrong == NULL && version != MANIFEST_VERSION)
        *wrong = "it has a version that this kvctl does not know";
    return *wrong == NULL && manifest_read_items(manifest, buckets, wrong);
}

bool manifest_read(struct manifest *manifest, const char *directory)
{
    char *path = backup_path(directory, MANIFEST_NAME);
    struct content content = {0};
    const char *wrong;

    *manifest = (struct manifest){0};
    if (path == NULL)
        return false;
    FILE *file = transfer_open_plain_file(path);
    bool is_read = file != NULL && content_read_stream(&content, file, path);
    if (file != NULL)
        fclose(file);
    manifest->text = content.bytes;
    if (is_read && !manifest_parse(manifest, &wrong)) {
        report("the manifest %.200s is damaged: %s", path, wrong);
        is_read = false;
    }
    free(path);
    return is_read;
}

void manifest_free(struct manifest *manifest)
{
    free(manifest->items);
    free(manifest->text);
    *manifest = (struct manifest){0};
}

bool manifest_check_file(const char *directory, const struct manifest_item *item)
{
    char *path = backup_path(directory, item->file), digest[DIGEST_TEXT_BYTES];
    uint64_t entries;

    if (path == NULL)
        return false;
    bool is_undamaged = export_verify(path, true, &entries, digest);
    if (is_undamaged && (strcmp(digest, item->digest) != 0 || entries != item->entries)) {
        report("%.200s is not the file that the manifest describes: another SHA-256 or number of entries", path);
        is_undamaged = false;
    }
    free(path);
    return is_undamaged;
}

/* --- Restoring ------------------------------------------------------------------------------------ */

static bool restore_is_wanted(const struct manifest_item *item, const char *const *buckets, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(buckets[i], item->bucket) == 0)
            return true;
    }
    return count == 0;
}

/* Check that the backup has all wanted buckets. False after a message, which names one that is missing. */
static bool restore_check_names(const struct manifest *manifest, const char *const *buckets, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t at = 0;
        while (at < manifest->count && strcmp(manifest->items[at].bucket, buckets[i]) != 0)
            at++;
        if (at == manifest->count)
            return report("the backup has no bucket %.251s", buckets[i]) == STATUS_OK;
    }
    return true;
}

/* The same, and that their files are undamaged. */
static bool restore_check(const char *directory, const struct manifest *manifest, const char *const *buckets,
                          size_t count)
{
    if (!restore_check_names(manifest, buckets, count))
        return false;
    for (size_t i = 0; i < manifest->count; i++) {
        if (restore_is_wanted(&manifest->items[i], buckets, count) &&
            !manifest_check_file(directory, &manifest->items[i]))
            return false;
    }
    return true;
}

static enum status restore_bucket(struct invocation *invocation, const char *directory,
                                  const struct manifest_item *item, struct import_options *options,
                                  struct import_summary *summary)
{
    char *path = backup_path(directory, item->file);

    if (path == NULL)
        return STATUS_FAILED;
    options->bucket = item->bucket;
    enum status status = import_file(invocation, path, options, summary);
    free(path);
    if (status == STATUS_OK && summary->was_complete && !invocation->json) {
        printf("%s: was restored before\n", item->bucket);
    } else if (status == STATUS_OK && !invocation->json) {
        printf("%s: ", item->bucket);
        import_print_counts(summary);
    }
    fflush(stdout);
    return status;
}

/*
 * Find out whether an earlier restore was interrupted while it removed the checkpoints. It has written the last bucket
 * last, and that bucket's checkpoint is the last to be removed: if it is there and complete, all buckets were written.
 * False after a message.
 */
static bool restore_find_repeated(struct invocation *invocation, const char *directory, const struct manifest *manifest,
                                  const char *const *buckets, size_t count, struct import_options *options,
                                  enum status *status)
{
    const struct manifest_item *last = NULL;

    for (size_t i = 0; i < manifest->count; i++) {
        if (restore_is_wanted(&manifest->items[i], buckets, count) && manifest->items[i].entries > 0)
            last = &manifest->items[i];
    }
    if (last == NULL)
        return true;
    char *path = backup_path(directory, last->file);
    if (path == NULL)
        return false;
    options->bucket = last->bucket;
    bool is_known = import_was_written(invocation, path, options, last->entries + 1, &options->is_repeated, status);
    free(path);
    return is_known;
}

/*
 * Import all files; then remove all checkpoints in the same order, so that a restore that is repeated knows which
 * buckets are done.
 * summaries: one for each item of the manifest.
 */
static enum status restore_all(struct invocation *invocation, const char *directory, const struct manifest *manifest,
                               const char *const *buckets, size_t count, struct import_summary *summaries)
{
    struct import_options options = {.keeps_checkpoint = true};
    enum status status = STATUS_FAILED;

    if (!import_read_options(invocation, &options) || !restore_check(directory, manifest, buckets, count) ||
        !restore_find_repeated(invocation, directory, manifest, buckets, count, &options, &status))
        return status;
    status = STATUS_OK;
    for (size_t i = 0; i < manifest->count && status == STATUS_OK; i++) {
        if (restore_is_wanted(&manifest->items[i], buckets, count))
            status = restore_bucket(invocation, directory, &manifest->items[i], &options, &summaries[i]);
    }
    for (size_t i = 0; i < manifest->count && status == STATUS_OK; i++) {
        if (restore_is_wanted(&manifest->items[i], buckets, count))
            status = import_finish(invocation, manifest->items[i].bucket, options.wait_s);
    }
    return status;
}

/* Print an object with the numbers of each bucket that was restored. */
static void restore_print_json(const struct manifest *manifest, const char *const *buckets, size_t count,
                               const struct import_summary *summaries)
{
    const char *before = "";

    printf("{\"buckets\":[");
    for (size_t i = 0; i < manifest->count; i++) {
        if (!restore_is_wanted(&manifest->items[i], buckets, count))
            continue;
        printf("%s{\"bucket\":\"%s\",", before, manifest->items[i].bucket); /* a valid name: import has used it */
        import_print_members(&summaries[i]);
        putchar('}');
        before = ",";
    }
    puts("]}");
}

enum status restore_run(struct invocation *invocation)
{
    const char *directory = invocation->arguments[0], **buckets;
    struct manifest manifest;
    enum status status = STATUS_FAILED;
    size_t count;

    if (!arguments_list(invocation, "bucket", &buckets, &count))
        return STATUS_FAILED;
    if (manifest_read(&manifest, directory)) {
        struct import_summary *summaries = calloc(manifest.count + 1, sizeof(*summaries));
        status = summaries != NULL ? restore_all(invocation, directory, &manifest, buckets, count, summaries)
                                   : report("out of memory");
        if (status == STATUS_OK && invocation->json)
            restore_print_json(&manifest, buckets, count, summaries);
        free(summaries);
    }
    manifest_free(&manifest);
    free((void *)buckets);
    return status;
}
