/* The verb import: writes an export into a bucket, exactly once. */
#include "client/kvctl/import.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* --- The checkpoint ------------------------------------------------------------------------------- */

/* Return the line of a checkpoint; 0: it is not of this file. */
static uint64_t import_checkpoint_line(const struct importing *importing, const struct kvs_entry *entry)
{
    char *text = strdup(entry->value);
    struct json json = {.at = text};
    const char *bytes, *id = "";
    uint64_t line = 0;
    size_t size;
    char *name;

    if (text != NULL && json_begin_object(&json)) {
        while (json_next_member(&json, &name, &size) && json_read_member(&json, &bytes, &size)) {
            if (strcmp(name, "id") == 0)
                id = bytes;
            else if (strcmp(name, "line") == 0)
                line = strtoull(bytes, NULL, 10);
        }
    }
    bool is_ours = text != NULL && json.wrong == NULL && strcmp(id, importing->header.id) == 0;
    free(text);
    return is_ours ? line : 0;
}

/* Continue after the line of the checkpoint. False after a message. */
static bool import_use_checkpoint(struct importing *importing, const struct kvs_entry *entry, enum status *status)
{
    uint64_t line = import_checkpoint_line(importing, entry);

    if (line == 0) {
        *status = STATUS_CONFLICT;
        report("an import of another file into bucket %s is not complete: run it again, or delete the bucket or its "
               "key %s",
               importing->bucket, IMPORT_KEY);
        return false;
    }
    importing->checkpoint_line = line;
    importing->checkpoint_revision = entry->revision;
    return true;
}

/* Get the checkpoint; *entry is NULL if there is none, or no bucket. False after a message. */
static bool import_get_checkpoint(struct importing *importing, struct kvs_entry **entry, enum status *status)
{
    struct kvs *kvs = importing->invocation->kvs;
    struct kvs_get_options options =
        KVS_GET_OPTIONS(.consistency = KVS_CONSISTENCY_LEADER, .timeout_s = importing->invocation->timeout_s);

    while (kvs_get(kvs, importing->bucket, IMPORT_KEY, &options, entry) != KVS_OK) {
        if (kvs_last_error(kvs)->code == KVS_BUCKET_NOT_FOUND)
            return true;
        if (!patience_pause(&importing->patience, kvs_last_error(kvs), status))
            return false;
    }
    return true;
}

bool import_read_checkpoint(struct importing *importing, enum status *status)
{
    struct kvs_entry *entry;

    if (!import_get_checkpoint(importing, &entry, status))
        return false;
    importing->checkpoint_line = 1; /* the header */
    importing->checkpoint_revision = 0;
    bool is_read = entry == NULL || import_use_checkpoint(importing, entry, status);
    kvs_free(entry);
    return is_read;
}

/* Remove the checkpoint. Its marker expires by itself if the bucket allows that. False after a message. */
static bool import_remove_checkpoint(struct importing *importing, enum status *status)
{
    struct kvs *kvs = importing->invocation->kvs;
    struct kvs_delete_options options = KVS_DELETE_OPTIONS(.revision = importing->checkpoint_revision, .ttl_s = 1,
                                                           .timeout_s = importing->invocation->timeout_s);

    if (importing->checkpoint_revision == 0)
        return true;
    while (kvs_purge(kvs, importing->bucket, IMPORT_KEY, &options, NULL) != KVS_OK) {
        if (kvs_last_error(kvs)->code == KVS_CONFLICT) /* an attempt without an answer has removed it */
            return true;
        if (kvs_last_error(kvs)->code == KVS_UNSUPPORTED && options.ttl_s > 0) {
            options.ttl_s = 0; /* the bucket does not allow it */
            continue;
        }
        if (!patience_pause(&importing->patience, kvs_last_error(kvs), status))
            return false;
    }
    return true;
}

/* --- The bucket ----------------------------------------------------------------------------------- */

/* Refuse a bucket that has keys, unless an earlier restore has completed it. False after a message. */
static bool import_check_empty(struct importing *importing, const struct kvs_bucket_info *info, enum status *status)
{
    struct kvs *kvs = importing->invocation->kvs;
    struct kvs_keys_options options = KVS_KEYS_OPTIONS(.limit = 1, .timeout_s = importing->invocation->timeout_s);
    bool may_have_keys = importing->options->into && !importing->options->is_repeated;
    char **keys;
    size_t count;

    if (may_have_keys || info->values == 0 || importing->checkpoint_revision > 0)
        return true;
    while (kvs_keys(kvs, importing->bucket, &options, &keys, &count) != KVS_OK) {
        if (!patience_pause(&importing->patience, kvs_last_error(kvs), status))
            return false;
    }
    kvs_free(keys);
    importing->summary->was_complete = count > 0 && importing->options->is_repeated;
    if (count == 0 || importing->summary->was_complete)
        return true;
    *status = STATUS_CONFLICT;
    if (importing->options->keeps_checkpoint)
        report("bucket %s has keys: delete it first (kvctl rm %s), or replace the values of its keys with --into",
               importing->bucket, importing->bucket);
    else
        report("bucket %s has keys: import into another bucket, or replace the values of its keys with --into",
               importing->bucket);
    return false;
}

/* Open the bucket, or create it. *info is freed by the caller. False after a message. */
static bool import_open_bucket(struct importing *importing, struct kvs_bucket_info **info, enum status *status)
{
    struct kvs *kvs = importing->invocation->kvs;
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = importing->invocation->timeout_s);

    *info = NULL;
    for (;;) {
        enum kvs_code code = kvs_bucket_info(kvs, importing->bucket, &options, info);
        if (code == KVS_BUCKET_NOT_FOUND)
            code = kvs_bucket_create(kvs, importing->bucket, &importing->settings.options, info);
        if (code == KVS_OK)
            return true;
        if (code != KVS_ALREADY_EXISTS && !patience_pause(&importing->patience, kvs_last_error(kvs), status))
            return false;
    }
}

static bool import_begin(struct importing *importing, enum status *status)
{
    struct kvs_bucket_info *info;

    if (!import_open_bucket(importing, &info, status))
        return false;
    /* With a history, a value with a TTL of its own would replace the earlier ones: see protocol.md. */
    importing->settings.can_expire = info->allows_ttl && info->history <= 1;
    bool is_begun = import_read_checkpoint(importing, status) && import_check_empty(importing, info, status);
    kvs_free(info);
    importing->summary->resumed_at = importing->checkpoint_revision > 0 ? importing->checkpoint_line + 1 : 0;
    return is_begun;
}

/* --- The lines ------------------------------------------------------------------------------------ */

/* Read the lines that are written already. False after a message. */
static bool import_skip_written(struct importing *importing)
{
    while (importing->reader.number < importing->checkpoint_line) {
        enum export_line line = export_reader_skip(&importing->reader);
        if (line == EXPORT_LINE_END)
            return report("%s: the bucket has more lines of this export than the file", importing->reader.path) ==
                   STATUS_OK;
        if (line == EXPORT_LINE_WRONG)
            return false;
    }
    return true;
}

static enum status import_all(struct importing *importing)
{
    enum status status = STATUS_FAILED;

    if (!import_begin(importing, &status))
        return status;
    if (importing->summary->was_complete)
        return STATUS_OK;
    if (!import_skip_written(importing) || !import_commit_all(importing, &status))
        return status;
    if (!importing->options->keeps_checkpoint && !import_remove_checkpoint(importing, &status))
        return status;
    return STATUS_OK;
}

/* Open the file, and read its header. False after a message. */
static bool import_open_file(struct importing *importing, const char *path)
{
    if (!export_reader_open(&importing->reader, path) ||
        !export_reader_header(&importing->reader, &importing->header) ||
        !import_settings_read(&importing->settings, &importing->header))
        return false;
    importing->settings.skips_refused = importing->options->skips_refused;
    return true;
}

static void import_free(struct importing *importing)
{
    import_commit_free(importing);
    import_settings_free(&importing->settings);
    free(importing->header.text);
    export_reader_close(&importing->reader);
}

/* Read all lines of a file as the import will, to find the first one that ends it. False after a message. */
static bool import_try_lines(const char *path, const struct import_options *options)
{
    struct importing importing = {.options = options};
    struct import_chunk *chunk = calloc(1, sizeof(*chunk));
    enum export_line line = EXPORT_LINE_WRONG;

    if (chunk == NULL)
        report("out of memory");
    else if (import_open_file(&importing, path)) {
        do {
            line = import_chunk_fill(chunk, &importing.next, &importing.reader, &importing.settings);
        } while (line == EXPORT_LINE_ENTRY);
        import_chunk_clear(chunk);
    }
    free(chunk);
    import_free(&importing);
    return line == EXPORT_LINE_END;
}

/* Read all of a file before anything is written. Pipes cannot be read twice. False after a message. */
static bool import_verify(const char *path, const struct import_options *options)
{
    char digest[DIGEST_TEXT_BYTES];
    struct stat state;
    uint64_t entries;

    if (strcmp(path, "-") == 0 || stat(path, &state) != 0 || !S_ISREG(state.st_mode))
        return true;
    return options->skips_refused ? export_verify(path, false, &entries, digest) : import_try_lines(path, options);
}

enum status import_file(struct invocation *invocation, const char *path, const struct import_options *options,
                        struct import_summary *summary)
{
    struct importing importing = {
        .invocation = invocation, .options = options, .summary = summary, .patience = {.wait_s = options->wait_s}};
    enum status status = STATUS_FAILED;
    char what[300];

    *summary = (struct import_summary){0};
    patience_renew(&importing.patience);
    if (import_verify(path, options) && import_open_file(&importing, path)) {
        importing.bucket = options->bucket != NULL ? options->bucket : importing.header.bucket;
        importing.settings.options.timeout_s = invocation->timeout_s;
        if (options->replicas > 0)
            importing.settings.options.replicas = (unsigned)options->replicas;
        if (importing.settings.has_origin)
            report_note("the bucket had a mirror or sources: if it is created, it is without them");
        snprintf(what, sizeof(what), "importing %s", importing.bucket);
        progress_begin(&importing.progress, what);
        patience_renew(&importing.patience);
        status = import_all(&importing);
        progress_end(&importing.progress);
    }
    import_free(&importing);
    return status;
}

bool import_was_written(struct invocation *invocation, const char *path, const struct import_options *options,
                        uint64_t lines, bool *was_written, enum status *status)
{
    struct importing importing = {.invocation = invocation,
                                  .options = options,
                                  .bucket = options->bucket,
                                  .patience = {.wait_s = options->wait_s}};
    struct kvs_entry *entry = NULL;

    *status = STATUS_FAILED;
    patience_renew(&importing.patience);
    bool is_read = export_reader_open(&importing.reader, path) &&
                   export_reader_header(&importing.reader, &importing.header) &&
                   import_get_checkpoint(&importing, &entry, status);
    *was_written = entry != NULL && import_checkpoint_line(&importing, entry) == lines;
    kvs_free(entry);
    free(importing.header.text);
    export_reader_close(&importing.reader);
    return is_read;
}

enum status import_finish(struct invocation *invocation, const char *bucket, int64_t wait_s)
{
    struct importing importing = {.invocation = invocation, .bucket = bucket, .patience = {.wait_s = wait_s}};
    struct kvs_entry *entry;
    enum status status = STATUS_OK;

    patience_renew(&importing.patience);
    if (!import_get_checkpoint(&importing, &entry, &status))
        return status;
    importing.checkpoint_revision = entry != NULL ? entry->revision : 0;
    kvs_free(entry);
    import_remove_checkpoint(&importing, &status);
    return status;
}

/* --- The verb ------------------------------------------------------------------------------------- */

bool import_read_options(const struct invocation *invocation, struct import_options *options)
{
    options->into = arguments_flag(invocation, "into");
    options->skips_refused = arguments_flag(invocation, "skip-refused");
    if (!transfer_read_wait(invocation, &options->wait_s) ||
        !arguments_number(invocation, "replicas", &options->replicas))
        return false;
    return options->replicas <= 5 || report("--replicas must be from 1 to 5") == STATUS_OK;
}

void import_print_counts(const struct import_summary *summary)
{
    printf("%s written", text_of_things(summary->written, "entry", "entries").text);
    if (summary->resumed_at > 0)
        printf(", from line %" PRIu64 " on", summary->resumed_at);
    if (summary->expired > 0)
        printf("; %s had expired", text_of_count(summary->expired).text);
    if (summary->leased > 0)
        printf("; left out %s locks or ephemeral keys", text_of_count(summary->leased).text);
    if (summary->refused > 0)
        printf("; left out %s that kvstored does not write", text_of_things(summary->refused, "entry", "entries").text);
    putchar('\n');
}

void import_print_members(const struct import_summary *summary)
{
    printf("\"written\":%" PRIu64 ",\"expired\":%" PRIu64 ",\"leased\":%" PRIu64 ",\"refused\":%" PRIu64
           ",\"resumed_at\":%" PRIu64,
           summary->written, summary->expired, summary->leased, summary->refused, summary->resumed_at);
}

enum status import_run(struct invocation *invocation)
{
    bool names_bucket = invocation->argument_count > 1;
    struct import_options options = {.bucket = names_bucket ? invocation->arguments[0] : NULL};
    const char *path = invocation->arguments[names_bucket ? 1 : 0];
    struct import_summary summary;

    if (!import_read_options(invocation, &options))
        return STATUS_FAILED;
    enum status status = import_file(invocation, path, &options, &summary);
    if (status != STATUS_OK)
        return status;
    if (invocation->json) {
        putchar('{');
        import_print_members(&summary);
        puts("}");
    } else {
        import_print_counts(&summary);
    }
    return STATUS_OK;
}
