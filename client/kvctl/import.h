/*
 * import: what the files import*.c share.
 *
 * Entries are written in transactions. Each also writes the number of its last line to the key IMPORT_KEY, the
 * checkpoint. Its condition is that the checkpoint still has the revision of the transaction before. So a transaction
 * is never committed twice. After an unknown outcome or a crash, also on another host, the checkpoint says which lines
 * are written.
 *
 * import.c prepares the bucket and reads the checkpoint, import_settings.c the settings in the file's header. A chunk
 * is the entries of one transaction (import_chunk.c); import_commit.c keeps a few transactions in flight.
 */
#ifndef KVCTL_IMPORT_H
#define KVCTL_IMPORT_H

#include "client/kvctl/transfer.h"

/* --- import_settings.c ---------------------------------------------------------------------------- */

/* The bucket's, as the file has them, and how its lines are read. Texts point into the header. */
struct import_settings {
    struct kvs_bucket_options options;
    const char **tags;
    struct kvs_header *metadata;
    uint64_t last_revision; /* of the bucket when the export began: lines above it may repeat a key of earlier lines */
    bool has_origin;        /* it was a mirror, or had sources */
    bool has_history;       /* of the export */
    bool can_expire;        /* a value may get the rest of the bucket's TTL as a TTL of its own */
    bool skips_refused;     /* see import_options */
};

/* Read the settings in the header, in place. False after a message. */
bool import_settings_read(struct import_settings *settings, const struct export_header *header);
void import_settings_free(struct import_settings *settings);

/* --- import_chunk.c ------------------------------------------------------------------------------- */

/* A transaction has 1,000 operations at most; one is the checkpoint. */
#define CHUNK_ENTRIES_MAX 999u
#define CHUNK_SLOTS       2048u /* of the hash table of keys: a power of two */

struct import_item {
    char *line; /* owns the entry's texts */
    uint64_t number;
    struct export_entry entry;
    struct kvs_header *headers;
    size_t header_count;
    int64_t ttl_s;
};

struct import_chunk {
    struct import_item items[CHUNK_ENTRIES_MAX];
    size_t count;
    size_t bytes;
    uint64_t last_line;          /* that was read; lines that need no operation are included */
    uint64_t expired;            /* lines that were left out */
    uint64_t leased;             /* the same of locks and ephemeral keys */
    uint64_t refused;            /* the same of what kvstored does not write */
    uint16_t slots[CHUNK_SLOTS]; /* place of an item by its key, from 1; 0: none */

    /* Of its transaction. */
    enum import_chunk_state { CHUNK_WAITS, CHUNK_IN_FLIGHT, CHUNK_WRITTEN, CHUNK_FAILED } state;
    uint64_t revision; /* of the checkpoint, once it is written */
    struct kvs_error error;
};

/*
 * Read the next lines, as many as fit into a transaction. *next: an item that was read and did not fit; its line is
 * NULL if there is none. Returns END if all lines were read, or WRONG after a message.
 */
enum export_line import_chunk_fill(struct import_chunk *chunk, struct import_item *next, struct export_reader *reader,
                                   const struct import_settings *settings);

void import_chunk_add_to_txn(const struct import_chunk *chunk, struct kvs_txn *txn);
void import_chunk_clear(struct import_chunk *chunk);
void import_item_free(struct import_item *item);

/* --- import.c ------------------------------------------------------------------------------------- */

struct importing {
    struct invocation *invocation;
    const struct import_options *options;
    struct import_summary *summary;
    struct export_reader reader;
    struct export_header header;
    struct import_settings settings;
    struct progress progress;
    const char *bucket;
    uint64_t checkpoint_line;     /* everything up to this line is written */
    uint64_t checkpoint_revision; /* of IMPORT_KEY; 0: it does not exist */
    struct patience patience;     /* renewed by each transaction that is written */

    /* import_commit */
    struct import_chunk *chunks; /* a ring */
    size_t first, count;         /* the chunks that were read and are not known to be written */
    struct import_item next;     /* was read, and did not fit into the last chunk */
    enum export_line line;       /* what was read last */
    unsigned conflicts;          /* transactions that others disturbed */
};

/* Read which lines are written. False after a message. */
bool import_read_checkpoint(struct importing *importing, enum status *status);

/* --- import_commit.c ------------------------------------------------------------------------------ */

/* Write all lines that follow. False after a message. */
bool import_commit_all(struct importing *importing, enum status *status);
void import_commit_free(struct importing *importing);

#endif
