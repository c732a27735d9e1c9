#include "daemon/store/remains.h"

#include "daemon/hash.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_HEADER_BYTES   22u
#define RECORD_CHECKSUM_BYTES 8u
#define HAS_HEADERS           0x80000000u
#define IS_NO_MESSAGE         (3ull << 62) /* a tombstone, or erased */
#define BLOCK_BYTES_MAX       (256u * 1024u * 1024u)

static const char COMPRESSED[] = "cmp"; /* a compressed block begins so */

static uint32_t read_u32(const unsigned char *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t read_u64(const unsigned char *at)
{
    return read_u32(at) | (uint64_t)read_u32(at + 4) << 32;
}

static int compare_hashes(const void *a, const void *b)
{
    const struct remains_key *one = a, *other = b;

    return (one->hash > other->hash) - (one->hash < other->hash);
}

/* The first key with this hash, or the place where it would be. */
static size_t find_hash(const struct remains_key *keys, size_t count, uint64_t hash)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (keys[middle].hash < hash)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool has_text(const unsigned char *bytes, size_t length, const char *text)
{
    return memmem(bytes, length, text, strlen(text)) != NULL;
}

/* A message that hides its key brings nothing back. */
static bool is_marker(const unsigned char *headers, size_t bytes)
{
    return has_text(headers, bytes, "\r\nKV-Operation: DEL\r\n") ||
           has_text(headers, bytes, "\r\nKV-Operation: PURGE\r\n") ||
           has_text(headers, bytes, "\r\nNats-Marker-Reason: ");
}

struct record {
    uint64_t sequence;
    const unsigned char *subject, *headers;
    size_t subject_bytes, header_bytes;
    size_t bytes; /* of the whole record */
};

/* False: it is not one, or not all of it is there. */
static bool read_record(const unsigned char *at, size_t left, struct record *record)
{
    if (left < RECORD_HEADER_BYTES)
        return false;
    uint32_t length = read_u32(at);
    size_t bytes = length & ~HAS_HEADERS, subject_bytes = (size_t)at[20] | (size_t)at[21] << 8;
    size_t fixed = RECORD_HEADER_BYTES + subject_bytes + (length & HAS_HEADERS ? 4u : 0u);
    if (bytes > left || bytes < fixed + RECORD_CHECKSUM_BYTES)
        return false;
    *record = (struct record){.sequence = read_u64(at + 4),
                              .subject = at + RECORD_HEADER_BYTES,
                              .subject_bytes = subject_bytes,
                              .headers = at + fixed,
                              .bytes = bytes};
    if (length & HAS_HEADERS)
        record->header_bytes = read_u32(at + fixed - 4);
    return record->header_bytes <= bytes - fixed - RECORD_CHECKSUM_BYTES;
}

static void note_record(const struct record *record, struct remains_key *keys, size_t count)
{
    if (record->sequence & IS_NO_MESSAGE || record->subject_bytes == 0)
        return;
    uint64_t hash = hash_bytes(record->subject, record->subject_bytes);
    size_t i = find_hash(keys, count, hash);
    if (i == count || keys[i].hash != hash || is_marker(record->headers, record->header_bytes))
        return;
    for (; i < count && keys[i].hash == hash; i++)
        keys[i].has_value |= record->sequence < keys[i].sequence;
}

/* False: not understood. So is a record that the server is just appending; the next look will find it whole. */
static bool look_through(const unsigned char *block, size_t bytes, struct remains_key *keys, size_t count)
{
    struct record record;

    if (bytes >= strlen(COMPRESSED) && memcmp(block, COMPRESSED, strlen(COMPRESSED)) == 0)
        return false;
    for (size_t at = 0; at < bytes; at += record.bytes) {
        if (!read_record(block + at, bytes - at, &record))
            return false;
        note_record(&record, keys, count);
    }
    return true;
}

/* NULL: it cannot be read. */
static unsigned char *read_whole(int file, size_t *bytes)
{
    struct stat status;

    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size > BLOCK_BYTES_MAX)
        return NULL;
    unsigned char *block = malloc((size_t)status.st_size + 1);
    if (block == NULL)
        return NULL;
    for (*bytes = 0; *bytes < (size_t)status.st_size;) {
        ssize_t got = read(file, block + *bytes, (size_t)status.st_size - *bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            free(block);
            return NULL;
        }
        if (got == 0)
            break;
        *bytes += (size_t)got;
    }
    return block;
}

static bool look_at_block(int directory, const char *name, struct remains_key *keys, size_t count)
{
    int file = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    size_t bytes = 0;

    if (file < 0)
        return errno == ENOENT; /* removed since: nothing of it is left */
    unsigned char *block = read_whole(file, &bytes);
    bool is_understood = block != NULL && look_through(block, bytes, keys, count);
    free(block);
    close(file);
    return is_understood;
}

static bool is_block(const char *name)
{
    size_t length = strlen(name);

    return length > 4 && strcmp(name + length - 4, ".blk") == 0;
}

static bool look_at_all(const char *directory, struct remains_key *keys, size_t count)
{
    DIR *stream = opendir(directory);
    struct dirent *entry;
    bool is_understood = true, has_blocks = false;

    if (stream == NULL)
        return false;
    while (is_understood && (errno = 0, entry = readdir(stream)) != NULL) {
        if (!is_block(entry->d_name))
            continue;
        has_blocks = true;
        is_understood = look_at_block(dirfd(stream), entry->d_name, keys, count);
    }
    is_understood = is_understood && has_blocks && errno == 0;
    /* The server removes and renames files without a sync of the directory. */
    if (is_understood && fsync(dirfd(stream)) != 0)
        is_understood = false;
    closedir(stream);
    return is_understood;
}

void remains_look(const char *directory, struct remains_key *keys, size_t count)
{
    qsort(keys, count, sizeof(*keys), compare_hashes);
    for (size_t i = 0; i < count; i++)
        keys[i].has_value = false;
    if (look_at_all(directory, keys, count))
        return;
    for (size_t i = 0; i < count; i++)
        keys[i].has_value = true;
}
