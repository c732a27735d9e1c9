/* The verb export: writes what a bucket holds at one point in time. */
#include "client/kvctl/transfer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define RESTARTS_MAX 10u
#define LATE_TIMES   10 /* give up if later entries come for this many times --wait, without a point in time */

enum export_state {
    EXPORT_STARTING, /* the watch has to be started (again) */
    EXPORT_PAUSING,  /* the watch has failed: it has to be started again after a pause */
    EXPORT_READING,
    EXPORT_COMPLETE,
    EXPORT_RESTARTING, /* what was written is no longer valid: begin again */
    EXPORT_FAILED
};

struct exporting {
    struct invocation *invocation;
    const char *bucket;
    const struct export_options *options;
    struct export_writer writer;
    struct progress progress;
    struct kvs_watch_options watch_options;
    struct kvs_watch *watch;
    enum export_state state;
    enum status status;
    struct kvs_error error; /* why it was interrupted */
    uint64_t last_revision; /* of a value */
    uint64_t old_markers;   /* delete markers up to this revision delete nothing of the export: they get no line */
    uint64_t revision;      /* of the point in time */
    uint64_t entries, deletes;
    uint64_t refused;              /* entries that an import refuses: see export_find_refusal */
    struct short_text refused_key; /* of the first */
    const char *refused_reason;
    char *header; /* the first line, until another is written: before that, the export can begin again anywhere */
    struct patience patience; /* renewed by what the daemon sends */
    uint64_t last_known;      /* the bucket's last revision at the beginning */
    int64_t late_ms;          /* when the first later entry came; 0: none has */
    bool is_away;             /* the connection is lost, and the user was notified */
};

/* --- The lines ------------------------------------------------------------------------------------ */

/* Make the first line. Its id is unique. False after a message. */
static bool export_make_header(struct exporting *exporting, const struct kvs_bucket_info *info)
{
    uint64_t id[2] = {0};
    char *settings = kvs_value_json(info->raw);
    bool is_made = false;

    free(exporting->header);
    if (getrandom(id, sizeof(id), 0) != sizeof(id))
        id[0] = (uint64_t)clock_epoch_us();
    if (settings != NULL &&
        asprintf(&exporting->header,
                 "{\"format\":\"" EXPORT_FORMAT "\",\"version\":%d,\"bucket\":\"%s\",\"id\":\"%016" PRIx64 "%016" PRIx64
                 "\",\"time\":%" PRId64 ",\"kvctl\":\"%s\",\"history\":%s,\"info\":%s}",
                 EXPORT_VERSION, exporting->bucket, id[0], id[1], clock_epoch_us(), kvs_version(),
                 exporting->options->with_history ? "true" : "false", settings) >= 0)
        is_made = true;
    else
        report("out of memory");
    if (!is_made)
        exporting->header = NULL;
    kvs_free(settings);
    return is_made;
}

/* Write the header if that was not done yet. False after a message. */
static bool export_write_header(struct exporting *exporting)
{
    if (exporting->header == NULL)
        return true;
    bool is_written = export_writer_add(&exporting->writer, exporting->header);
    free(exporting->header);
    exporting->header = NULL;
    return is_written;
}

static bool export_write_end(struct exporting *exporting, int64_t time_us)
{
    char digest[DIGEST_TEXT_BYTES], line[256];

    if (!export_write_header(exporting))
        return false;
    transfer_digest(&exporting->writer.digest, digest);
    snprintf(line, sizeof(line),
             "{\"end\":true,\"revision\":%" PRIu64 ",\"time\":%" PRId64 ",\"entries\":%" PRIu64 ",\"deletes\":%" PRIu64
             ",\"sha256\":\"%s\"}",
             exporting->revision, time_us, exporting->entries, exporting->deletes, digest);
    return export_writer_add(&exporting->writer, line);
}

/* --- Events --------------------------------------------------------------------------------------- */

static void export_fail(struct exporting *exporting, enum status status)
{
    exporting->state = EXPORT_FAILED;
    exporting->status = status;
}

/*
 * Return whether the revisions went back: the bucket was recreated, or its server has lost messages. Then the bucket
 * may no longer have what was exported before.
 */
static bool export_is_set_back(const struct exporting *exporting, const struct kvs_entry *entry)
{
    return entry->operation == KVS_OPERATION_PUT && entry->revision <= exporting->last_revision;
}

static void export_check_entry(struct exporting *exporting, const struct kvs_entry *entry)
{
    const char *reason = export_find_refusal(entry->operation, entry->key, entry->headers, entry->header_count);

    if (reason == NULL || exporting->refused++ > 0)
        return;
    exporting->refused_key = text_of_bytes(entry->key, strlen(entry->key));
    exporting->refused_reason = reason;
}

/* Say at the end what cannot be imported again. */
static void export_note_refused(const struct exporting *exporting)
{
    if (exporting->refused > 0)
        report_note("bucket %s: an import refuses %s (see --skip-refused); the first is key %s: %s", exporting->bucket,
                    text_of_things(exporting->refused, "entry", "entries").text, exporting->refused_key.text,
                    exporting->refused_reason);
}

static void export_on_entry(struct exporting *exporting, const struct kvs_entry *entry)
{
    bool is_old_marker = entry->operation != KVS_OPERATION_PUT && entry->revision <= exporting->old_markers;

    if (is_old_marker || strcmp(entry->key, IMPORT_KEY) == 0)
        return;
    if (export_is_set_back(exporting, entry)) {
        report_note("bucket %s was recreated or set back: exporting it again", exporting->bucket);
        exporting->state = EXPORT_RESTARTING;
        return;
    }
    if (exporting->late_ms == 0 && entry->revision > exporting->last_known)
        exporting->late_ms = clock_monotonic_ms();
    export_check_entry(exporting, entry);
    char *line = kvs_entry_json(entry);
    if (line == NULL)
        export_fail(exporting, report("out of memory"));
    else if (!export_write_header(exporting) || !export_writer_add(&exporting->writer, line))
        export_fail(exporting, STATUS_FAILED);
    kvs_free(line);
    if (entry->operation == KVS_OPERATION_PUT) {
        exporting->last_revision = entry->revision;
        exporting->entries++;
    } else {
        exporting->deletes++;
    }
}

static void export_on_end(struct exporting *exporting, const struct kvs_error *error)
{
    exporting->error = *error;
    if (error->code == KVS_REVISION_GONE) {
        exporting->state = EXPORT_RESTARTING;
    } else if (error->code == KVS_RESOURCE_EXHAUSTED && error->has_revision) {
        exporting->watch_options.include_history = false;
        exporting->watch_options.from_revision = error->revision;
        exporting->state = EXPORT_STARTING;
    } else {
        exporting->state = EXPORT_PAUSING;
    }
}

static void export_on_event(struct kvs *kvs, struct kvs_watch *watch, const struct kvs_event *event, void *context)
{
    struct exporting *exporting = context;

    (void)kvs;
    if (event->type != KVS_EVENT_ENDED)
        patience_renew(&exporting->patience);
    if (event->type == KVS_EVENT_ENTRY) {
        export_on_entry(exporting, event->entry);
    } else if (event->type == KVS_EVENT_READY) {
        exporting->revision = event->revision;
        exporting->state = EXPORT_COMPLETE;
    } else {
        export_on_end(exporting, event->error);
    }
    if (exporting->state != EXPORT_READING) {
        kvs_watch_stop(watch);
        exporting->watch = NULL;
    }
}

/* --- The loop ------------------------------------------------------------------------------------- */

/* Give up if nothing has happened for too long. */
static void export_check_patience(struct exporting *exporting)
{
    struct kvs *kvs = exporting->invocation->kvs;

    if (kvs_fd(kvs) < 0 && !exporting->is_away)
        report_note("%s; reconnecting", kvs_last_error(kvs)->message);
    exporting->is_away = kvs_fd(kvs) < 0;
    int64_t now_ms = clock_monotonic_ms(), wait_ms = exporting->options->wait_s * 1000;
    bool is_too_late = exporting->late_ms > 0 && now_ms - exporting->late_ms > LATE_TIMES * wait_ms;
    if (now_ms - exporting->patience.heard_ms < wait_ms && !is_too_late)
        return;
    if (is_too_late)
        report("bucket %s was overwritten too fast for a consistent export during %" PRId64 " s; see --wait",
               exporting->bucket, LATE_TIMES * exporting->options->wait_s);
    else
        report("nothing was received for %" PRId64 " s: the daemon or NATS is away; see --wait",
               exporting->options->wait_s);
    export_fail(exporting, STATUS_UNAVAILABLE);
}

/* The watch has failed. Start it again after a pause, without what was read if it cannot resume. */
static void export_pause(struct exporting *exporting)
{
    const struct kvs_error *error = &exporting->error;
    enum status status;

    if (!patience_pause(&exporting->patience, error, &status)) {
        export_fail(exporting, status);
    } else if (error->has_revision) {
        exporting->watch_options.include_history = false;
        exporting->watch_options.from_revision = error->revision;
        exporting->state = EXPORT_STARTING;
    } else {
        exporting->state = exporting->entries + exporting->deletes > 0 ? EXPORT_RESTARTING : EXPORT_STARTING;
    }
}

static void export_start(struct exporting *exporting)
{
    struct kvs *kvs = exporting->invocation->kvs;

    exporting->state = EXPORT_READING;
    if (kvs_async_watch(kvs, exporting->bucket, &exporting->watch_options, export_on_event, exporting,
                        &exporting->watch) != KVS_OK)
        export_on_end(exporting, kvs_last_error(kvs));
}

/* Read until the entries amount to one point in time. False after a message. */
static bool export_read(struct exporting *exporting)
{
    struct kvs *kvs = exporting->invocation->kvs;

    exporting->state = EXPORT_STARTING;
    patience_renew(&exporting->patience);
    while (exporting->state <= EXPORT_READING) {
        if (exporting->state == EXPORT_PAUSING)
            export_pause(exporting);
        if (exporting->state == EXPORT_STARTING)
            export_start(exporting);
        kvs_process(kvs);
        progress_show(&exporting->progress, exporting->entries, exporting->writer.bytes, 0);
        if (exporting->state != EXPORT_READING)
            continue;
        transfer_wait(kvs, 500);
        export_check_patience(exporting);
    }
    kvs_watch_stop(exporting->watch);
    exporting->watch = NULL;
    return exporting->state != EXPORT_FAILED;
}

/* Begin with an empty file, and read everything. False after a message. */
static bool export_attempt(struct exporting *exporting)
{
    struct kvs *kvs = exporting->invocation->kvs;
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = exporting->invocation->timeout_s);
    struct kvs_bucket_info *info;

    exporting->watch_options =
        (struct kvs_watch_options)KVS_WATCH_OPTIONS(.include_history = exporting->options->with_history,
                                                    .snapshot = true, .timeout_s = exporting->invocation->timeout_s);
    exporting->last_revision = exporting->entries = exporting->deletes = exporting->refused = 0;
    patience_renew(&exporting->patience);
    while (kvs_bucket_info(kvs, exporting->bucket, &options, &info) != KVS_OK) {
        enum status status;
        if (!patience_pause(&exporting->patience, kvs_last_error(kvs), &status)) {
            export_fail(exporting, status);
            return false;
        }
    }
    /* A key has one line from before this revision, its last. Only a replica that is behind has earlier ones. */
    exporting->old_markers = info->replicas <= 1 && !exporting->options->with_history ? info->last_revision : 0;
    exporting->last_known = info->last_revision;
    exporting->late_ms = 0;
    bool is_begun = export_make_header(exporting, info);
    kvs_free(info);
    if (!is_begun)
        export_fail(exporting, STATUS_FAILED);
    return is_begun && export_read(exporting);
}

static bool export_restart(struct exporting *exporting)
{
    if (exporting->writer.bytes == 0 || export_writer_restart(&exporting->writer))
        return true;
    export_fail(exporting, report("bucket %s has changed in a way that makes the export begin again, which a pipe does "
                                  "not allow: run it again, or name a file",
                                  exporting->bucket));
    return false;
}

static bool export_all(struct exporting *exporting)
{
    for (unsigned restarts = 0; export_attempt(exporting); restarts++) {
        if (exporting->state == EXPORT_COMPLETE)
            return true;
        if (restarts == RESTARTS_MAX) {
            export_fail(exporting, report("gave up after %u attempts: bucket %s is purged, compacted or recreated "
                                          "while it is exported",
                                          restarts, exporting->bucket));
            return false;
        }
        if (!export_restart(exporting))
            return false;
    }
    return false;
}

static void export_summarize(struct exporting *exporting, struct export_summary *summary)
{
    *summary = (struct export_summary){.revision = exporting->revision,
                                       .entries = exporting->entries,
                                       .deletes = exporting->deletes,
                                       .time_us = clock_epoch_us()};
}

enum status export_bucket(struct invocation *invocation, const char *bucket, const char *path,
                          const struct export_options *options, struct export_summary *summary)
{
    struct exporting exporting = {.invocation = invocation,
                                  .bucket = bucket,
                                  .options = options,
                                  .patience = {.wait_s = options->wait_s},
                                  .status = STATUS_FAILED};
    char what[300];

    snprintf(what, sizeof(what), "exporting %s", bucket);
    progress_begin(&exporting.progress, what);
    if (export_writer_open(&exporting.writer, path) && export_all(&exporting)) {
        export_summarize(&exporting, summary);
        if (export_write_end(&exporting, summary->time_us)) {
            transfer_digest(&exporting.writer.digest, summary->digest);
            summary->bytes = exporting.writer.bytes;
            exporting.status = export_writer_finish(&exporting.writer) ? STATUS_OK : STATUS_FAILED;
        }
    }
    progress_end(&exporting.progress);
    if (exporting.status == STATUS_OK)
        export_note_refused(&exporting);
    export_writer_drop(&exporting.writer);
    free(exporting.header);
    return exporting.status;
}

/* --- The verb --------------------------------------------------------------------------------------- */

static enum status export_print_summary(const struct invocation *invocation, const struct export_summary *summary,
                                        const char *path)
{
    if (export_writer_is_output(path))
        return STATUS_OK;
    if (invocation->json)
        printf("{\"revision\":%" PRIu64 ",\"entries\":%" PRIu64 ",\"deletes\":%" PRIu64 ",\"bytes\":%" PRIu64
               ",\"sha256\":\"%s\"}\n",
               summary->revision, summary->entries, summary->deletes, summary->bytes, summary->digest);
    else
        printf("%s of revision %" PRIu64 ", %s\n", text_of_things(summary->entries, "entry", "entries").text,
               summary->revision, text_of_size(summary->bytes).text);
    return STATUS_OK;
}

bool export_read_options(const struct invocation *invocation, struct export_options *options)
{
    *options = (struct export_options){.with_history = arguments_flag(invocation, "history")};
    return transfer_read_wait(invocation, &options->wait_s);
}

enum status export_run(struct invocation *invocation)
{
    struct export_options options;
    const char *path = invocation->argument_count > 1 ? invocation->arguments[1] : "-";
    struct export_summary summary;

    if (!export_read_options(invocation, &options))
        return STATUS_FAILED;
    enum status status = export_bucket(invocation, invocation->arguments[0], path, &options, &summary);
    return status == STATUS_OK ? export_print_summary(invocation, &summary, path) : status;
}
