#include "daemon/store/compact/remains.h"

#include "daemon/base/array.h"
#include "daemon/base/hash.h"

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
#define IS_ERASED             (1ull << 63)
#define IS_TOMBSTONE          (1ull << 62)
#define BLOCK_BYTES_MAX       (256u * 1024u * 1024u)

static const char COMPRESSED[] = "cmp"; /* the beginning of a compressed block */

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

/* Return the index of the first key with this hash, or where it would be. */
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

/* Return whether the message is a marker: it is not a value, so it brings nothing back. */
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

/* Read the record at the beginning of left bytes. False: it is not a record, or not complete. */
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

/* A value of one of the keys. */
struct value {
    uint64_t sequence;
    size_t key; /* the first one of its hash */
};

struct look {
    struct remains_key *keys; /* sorted by hash */
    size_t count;
    struct value *values;
    size_t value_count, value_capacity;
    uint64_t *tombstones; /* sequences */
    size_t tombstone_count, tombstone_capacity;
    const atomic_bool *is_unwanted;
};

static bool note_record(struct look *look, const struct record *record)
{
    if (record->sequence & IS_TOMBSTONE) {
        if (!array_reserve((void **)&look->tombstones, &look->tombstone_capacity, look->tombstone_count + 1,
                           sizeof(uint64_t)))
            return false;
        look->tombstones[look->tombstone_count++] = record->sequence & ~IS_TOMBSTONE;
        return true;
    }
    if (record->sequence & IS_ERASED || record->subject_bytes == 0)
        return true;
    uint64_t hash = hash_bytes(record->subject, record->subject_bytes);
    size_t key = find_hash(look->keys, look->count, hash);
    if (key == look->count || look->keys[key].hash != hash || is_marker(record->headers, record->header_bytes))
        return true;
    if (!array_reserve((void **)&look->values, &look->value_capacity, look->value_count + 1, sizeof(struct value)))
        return false;
    look->values[look->value_count++] = (struct value){record->sequence, key};
    return true;
}

/* Note the records of a block. False: it cannot be read, for example because the server is appending to it now. */
static bool look_through(struct look *look, const unsigned char *block, size_t bytes)
{
    struct record record;

    if (bytes >= strlen(COMPRESSED) && memcmp(block, COMPRESSED, strlen(COMPRESSED)) == 0)
        return false;
    for (size_t at = 0; at < bytes; at += record.bytes) {
        if (!read_record(block + at, bytes - at, &record) || !note_record(look, &record))
            return false;
    }
    return true;
}

/* Return the file's bytes, which the caller frees; NULL: it cannot be read. */
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

static bool look_at_block(struct look *look, int directory, const char *name)
{
    int file = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    size_t bytes = 0;

    if (file < 0)
        return errno == ENOENT; /* the server has removed it */
    unsigned char *block = read_whole(file, &bytes);
    bool is_understood = block != NULL && look_through(look, block, bytes);
    free(block);
    close(file);
    return is_understood;
}

static bool is_block(const char *name)
{
    size_t length = strlen(name);

    return length > 4 && strcmp(name + length - 4, ".blk") == 0;
}

static bool look_at_all(struct look *look, const char *directory)
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
        is_understood = !atomic_load(look->is_unwanted) && look_at_block(look, dirfd(stream), entry->d_name);
    }
    is_understood = is_understood && has_blocks && errno == 0;
    /* The server does not sync the directory: without this, a loss of power could bring removed files back. */
    if (is_understood && fsync(dirfd(stream)) != 0)
        is_understood = false;
    closedir(stream);
    return is_understood;
}

static int compare_sequences(const void *a, const void *b)
{
    uint64_t one = *(const uint64_t *)a, other = *(const uint64_t *)b;

    return (one > other) - (one < other);
}

/* Set has_value, after all blocks were read: a value's tombstone may be in any of them. */
static void judge(struct look *look)
{
    if (look->tombstone_count > 0)
        qsort(look->tombstones, look->tombstone_count, sizeof(uint64_t), compare_sequences);
    for (size_t i = 0; i < look->value_count; i++) {
        const struct value *value = &look->values[i];
        uint64_t hash = look->keys[value->key].hash;
        if (look->tombstone_count > 0 && bsearch(&value->sequence, look->tombstones, look->tombstone_count,
                                                 sizeof(uint64_t), compare_sequences) != NULL)
            continue;
        for (size_t key = value->key; key < look->count && look->keys[key].hash == hash; key++)
            look->keys[key].has_value |= value->sequence < look->keys[key].sequence;
    }
}

void remains_look(const char *directory, struct remains_key *keys, size_t count, const atomic_bool *is_unwanted)
{
    struct look look = {.keys = keys, .count = count, .is_unwanted = is_unwanted};

    qsort(keys, count, sizeof(*keys), compare_hashes);
    bool is_understood = look_at_all(&look, directory);
    for (size_t i = 0; i < count; i++)
        keys[i].has_value = !is_understood;
    if (is_understood)
        judge(&look);
    free(look.values);
    free(look.tombstones);
}
