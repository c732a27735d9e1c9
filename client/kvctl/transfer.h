/*
 * transfer: the files of export, and what the verbs that read and write them share.
 *
 * Used by export, import, backup and check. An export file has lines of JSON: first a header, then an entry each, then
 * the end. The end has the number of entries and the SHA-256 of all bytes before it, so a damaged or truncated file is
 * recognised. A file is written beside its final name and renamed when it is complete.
 */
#ifndef KVCTL_TRANSFER_H
#define KVCTL_TRANSFER_H

#include "client/kvctl/kvctl.h"

/*
 * The basic functions, which are linked statically: the whole of libcrypto would double the time that each kvctl takes
 * to start.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>
#include <stdio.h>

#define EXPORT_FORMAT  "kvstored-export"
#define EXPORT_VERSION 1

/* While an import is not complete, this key of its bucket says how far it is. It is no part of an export. */
#define IMPORT_KEY "_kvctl.import"

#define DIGEST_TEXT_BYTES 65 /* SHA-256 in hexadecimal digits, and NUL */

/* --- Progress ------------------------------------------------------------------------------------- */

/* One line on standard error, if that is a terminal. Call progress_begin first. */
struct progress {
    bool is_shown;
    const char *what; /* "exporting config" */
    int64_t begun_ms;
    int64_t shown_ms;
};

void progress_begin(struct progress *progress, const char *what);

/* Show the count and the bytes so far, and the share of total_bytes (0: not known), twice a second at most. */
void progress_show(struct progress *progress, uint64_t count, uint64_t done_bytes, uint64_t total_bytes);
void progress_end(struct progress *progress);

/* --- Waiting -------------------------------------------------------------------------------------- */

/* Read --wait, in seconds, or the default. False after a message. */
bool transfer_read_wait(const struct invocation *invocation, int64_t *wait_s);

/* Wait until the library has something to do, at most max_ms. */
void transfer_wait(struct kvs *kvs, int max_ms);

/* Return whether the same call may succeed later. */
bool transfer_is_temporary(const struct kvs_error *error);

/* Patience with errors. heard_ms: when something last succeeded (clock_monotonic_ms); is_away: the user was notified.
 */
struct patience {
    int64_t wait_s;
    int64_t heard_ms;
    unsigned pause_ms;
    bool is_away;
};

/* Something has succeeded: the patience begins again. */
void patience_renew(struct patience *patience);

/* Wait a little after a temporary error. False, after a message, if it is another one, or has lasted too long. */
bool patience_pause(struct patience *patience, const struct kvs_error *error, enum status *status);

/*
 * Wait for the next entry of a watch, or until it is ready. Not STATUS_OK after a message: the watch has failed or
 * ended, or nothing has come for the timeout of the command line, or else a minute.
 */
enum status transfer_next_event(const struct invocation *invocation, struct kvs_watch *watch, struct kvs_event *event);

/* --- Files ---------------------------------------------------------------------------------------- */

/* Print a digest, which can be continued. */
void transfer_digest(const SHA256_CTX *digest, char text[DIGEST_TEXT_BYTES]);

/* Open a file for reading. NULL after a message, also if it is a pipe, which would wait for a writer. */
FILE *transfer_open_plain_file(const char *path);

/* Sync the directory of a path, so that a new name in it survives a loss of power. Return false with errno. */
bool transfer_sync_directory(const char *path);

/* --- Writing -------------------------------------------------------------------------------------- */

struct export_writer {
    FILE *file;
    const char *path; /* "-": standard output */
    char *target;     /* the path without symbolic links; NULL: standard output, or a special file */
    char *partial;    /* the file's name until it is complete; NULL: standard output, or a special file */
    bool is_special;  /* a device or a pipe, which is written in place */
    SHA256_CTX digest;
    uint64_t bytes;
};

/* Return whether a path stands for standard output: "-", or a name of the same file, such as /dev/stdout. */
bool export_writer_is_output(const char *path);

/* Begin a file. False after a message. */
bool export_writer_open(struct export_writer *writer, const char *path);

/* Write a line without its newline. False after a message. */
bool export_writer_add(struct export_writer *writer, const char *line);

/* Begin the file again, without what was written. False if it is a pipe; or, after a message, if that fails. */
bool export_writer_restart(struct export_writer *writer);

/* Complete the file: it is on the disk under its name. False after a message. */
bool export_writer_finish(struct export_writer *writer);

/* Drop a file that is not complete. Does nothing after finish. */
void export_writer_drop(struct export_writer *writer);

/* --- Reading -------------------------------------------------------------------------------------- */

struct export_reader {
    FILE *file;
    const char *path; /* for messages */
    char *line;
    size_t capacity;
    size_t size;     /* of the line, without its newline */
    uint64_t number; /* of the line, from 1 */
    uint64_t bytes;
    uint64_t total_bytes;  /* of a file; 0: not known */
    SHA256_CTX digest;     /* of the lines so far */
    SHA256_CTX before_end; /* the same without the last one */
    uint64_t entries;      /* delete markers included */
};

/* The header of an export. Texts are in the block that header_line owns. */
struct export_header {
    char *text; /* owns all */
    const char *bucket;
    const char *id;
    const char *settings; /* JSON of bucket.info */
    bool has_history;
};

/* A line of an export. Texts point into the line. */
struct export_entry {
    const char *key;
    const char *value;
    size_t value_size;
    uint64_t revision;
    int64_t created_us;
    int64_t ttl_s;
    enum kvs_operation operation;
    bool has_lease;      /* it was a lock, or an ephemeral key */
    const char *headers; /* JSON; NULL: none */
};

enum export_line { EXPORT_LINE_ENTRY, EXPORT_LINE_END, EXPORT_LINE_WRONG };

/* Open a file, "-" for standard input. False after a message. */
bool export_reader_open(struct export_reader *reader, const char *path);
void export_reader_close(struct export_reader *reader);

/* Read the first line. False after a message. Free header->text. */
bool export_reader_header(struct export_reader *reader, struct export_header *header);

/*
 * Read the next line. WRONG after a message, also if the file ends too early. END: it is complete, and its bytes and
 * its number of entries are what the end says. The entry's texts live until the next line is read.
 */
enum export_line export_reader_next(struct export_reader *reader, struct export_entry *entry);

/* The same, but only the digest and the form of the line are looked at. */
enum export_line export_reader_skip(struct export_reader *reader);

/*
 * Return why kvstored does not write an entry of another NATS client, such as one with a key that is no valid name;
 * NULL: it does.
 */
const char *export_find_refusal(enum kvs_operation operation, const char *key, const struct kvs_header *headers,
                                size_t header_count);

/* Read the headers of an entry. Free *headers. False after a message. */
bool export_read_headers(const struct export_reader *reader, const struct export_entry *entry,
                         struct kvs_header **headers, size_t *count);

/* --- export.c ------------------------------------------------------------------------------------- */

struct export_options {
    bool with_history;
    int64_t wait_s; /* give up after this time without progress */
};

struct export_summary {
    uint64_t revision;
    uint64_t entries;
    uint64_t deletes;
    uint64_t bytes;
    int64_t time_us;
    char digest[DIGEST_TEXT_BYTES]; /* of the whole file */
};

/* Read the options of export and backup. False after a message. */
bool export_read_options(const struct invocation *invocation, struct export_options *options);

/* Write an export of a bucket to a file. */
enum status export_bucket(struct invocation *invocation, const char *bucket, const char *path,
                          const struct export_options *options, struct export_summary *summary);

/* --- import.c ------------------------------------------------------------------------------------- */

struct import_options {
    const char *bucket;    /* NULL: the file's */
    bool into;             /* the bucket may have keys */
    bool skips_refused;    /* leave out what kvstored does not write: see export_find_refusal */
    bool keeps_checkpoint; /* restore removes it when all buckets are written */
    bool is_repeated;      /* an earlier restore has written all buckets: those without a checkpoint are complete */
    uint64_t replicas;     /* of a bucket that is created; 0: the file's */
    int64_t wait_s;
};

struct import_summary {
    uint64_t written;
    uint64_t expired;
    uint64_t leased;     /* locks and ephemeral keys, which are left out, too */
    uint64_t refused;    /* the same of entries that kvstored does not write */
    uint64_t resumed_at; /* line; 0: it began at the first */
    bool was_complete;   /* nothing was to be done: see is_repeated */
};

/* Read the options of import and restore. False after a message. */
bool import_read_options(const struct invocation *invocation, struct import_options *options);

/* Import a file. path: "-" for standard input. */
enum status import_file(struct invocation *invocation, const char *path, const struct import_options *options,
                        struct import_summary *summary);

/* Print the numbers of an import for people, as the end of a line, or as members of an object of JSON. */
void import_print_counts(const struct import_summary *summary);
void import_print_members(const struct import_summary *summary);

/*
 * Return in *was_written whether the bucket of the options has a checkpoint of this file at this line, its last. False
 * after a message.
 */
bool import_was_written(struct invocation *invocation, const char *path, const struct import_options *options,
                        uint64_t lines, bool *was_written, enum status *status);

/* Remove the checkpoint that import_file has kept, if there is one. */
enum status import_finish(struct invocation *invocation, const char *bucket, int64_t wait_s);

/* --- backup.c and check.c ------------------------------------------------------------------------- */

#define MANIFEST_NAME    "manifest.json"
#define MANIFEST_FORMAT  "kvstored-backup"
#define MANIFEST_VERSION 1

struct manifest_item {
    const char *bucket;
    const char *file;
    const char *digest; /* of the whole file */
    uint64_t entries;
};

/* Texts are in one block. */
struct manifest {
    char *text;
    struct manifest_item *items;
    size_t count;
};

/* Read the manifest of a backup. False after a message. */
bool manifest_read(struct manifest *manifest, const char *directory);
void manifest_free(struct manifest *manifest);

/* Read a file of a backup completely, and compare it with the manifest. False after a message. */
bool manifest_check_file(const char *directory, const struct manifest_item *item);

/*
 * Read an export completely; parses_lines: each entry too, with a note if an import refuses some. *digest is of the
 * whole file. False after a message.
 */
bool export_verify(const char *path, bool parses_lines, uint64_t *entries, char digest[DIGEST_TEXT_BYTES]);

#endif
