#include "client/kvctl/check_store.h"

#include "client/kvctl/highway_hash.h"
#include "client/kvctl/transfer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A record: length, sequence, time, length of the subject; subject, [length of headers, headers], value; checksum. */
#define RECORD_HEADER_BYTES   22u
#define RECORD_CHECKSUM_BYTES 8u
#define HAS_HEADERS           0x80000000u
#define SEQUENCE_FLAGS        (3ull << 62) /* the message was erased; the record is a tombstone */

#define META_BYTES_MAX (1024u * 1024)

static void check_find(struct check_store *check, const char *path, const char *wrong)
{
    check->damaged++;
    report("%.600s: %s", path, wrong);
}

/* --- Files ---------------------------------------------------------------------------------------- */

struct check_file {
    unsigned char *bytes;
    size_t size;
};

/* Check that the daemon's user, who is the owner of the directory, can read a file, and nobody else can write it. */
static void check_owner(struct check_store *check, const char *path, const struct stat *state)
{
    struct stat directory;

    if (stat(check->directory, &directory) == 0 && directory.st_uid != state->st_uid)
        check_find(check, path, "it does not belong to the owner of the data directory (chown)");
    else if ((state->st_mode & S_IRUSR) == 0 || (state->st_mode & (S_IWGRP | S_IWOTH)) != 0)
        check_find(check, path, "its owner cannot read it, or others can write it (chmod)");
}

/* Read a file. False, with a finding, if that is impossible. */
static bool check_read_file(struct check_store *check, const char *path, struct check_file *file)
{
    int descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC); /* a pipe would wait for a writer */
    struct stat state;
    ssize_t part = 0;

    *file = (struct check_file){0};
    if (descriptor < 0 || fstat(descriptor, &state) != 0 || !S_ISREG(state.st_mode)) {
        check_find(check, path, descriptor < 0 ? strerror(errno) : "it is not a plain file");
        if (descriptor >= 0)
            close(descriptor);
        return false;
    }
    check_owner(check, path, &state);
    file->bytes = malloc((size_t)state.st_size + 1);
    while (file->bytes != NULL && file->size < (size_t)state.st_size &&
           (part = read(descriptor, file->bytes + file->size, (size_t)state.st_size - file->size)) > 0)
        file->size += (size_t)part;
    close(descriptor);
    if (file->bytes != NULL && part >= 0) {
        file->bytes[file->size] = '\0';
        return true;
    }
    check_find(check, path, file->bytes == NULL ? "out of memory" : strerror(errno));
    free(file->bytes);
    return false;
}

/* --- Checksums ------------------------------------------------------------------------------------ */

/* nats-server keys its checksums with the SHA-256 of the stream's name, for blocks with "-" and their number. */
static void check_begin_hash(struct highway_hash *hash, const char *name)
{
    unsigned char key[SHA256_DIGEST_LENGTH];
    SHA256_CTX sha;

    SHA256_Init(&sha);
    SHA256_Update(&sha, name, strlen(name));
    SHA256_Final(key, &sha);
    highway_hash_begin(hash, key);
}

static uint32_t check_read_u32(const unsigned char *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t check_read_u64(const unsigned char *at)
{
    return check_read_u32(at) | (uint64_t)check_read_u32(at + 4) << 32;
}

/* Return the size of the record at the beginning of left bytes; 0: it is not a whole record with its checksum. */
static size_t check_record(const struct highway_hash *begun, const unsigned char *at, size_t left)
{
    struct highway_hash hash = *begun;

    if (left < RECORD_HEADER_BYTES)
        return 0;
    uint32_t length = check_read_u32(at);
    size_t size = length & ~HAS_HEADERS, subject = (size_t)at[20] | (size_t)at[21] << 8;
    size_t begin = RECORD_HEADER_BYTES + subject + (length & HAS_HEADERS ? 4u : 0u);
    if (size > left || size < begin + RECORD_CHECKSUM_BYTES)
        return 0;
    highway_hash_add(&hash, at + 4, 16);
    highway_hash_add(&hash, at + RECORD_HEADER_BYTES, subject);
    highway_hash_add(&hash, at + begin, size - begin - RECORD_CHECKSUM_BYTES);
    return highway_hash_end(&hash) == check_read_u64(at + size - RECORD_CHECKSUM_BYTES) ? size : 0;
}

/* Return whether a whole record follows somewhere: then the bytes before it are damaged, and not the end of a write. */
static bool check_has_record(const struct highway_hash *begun, const unsigned char *at, size_t left)
{
    for (; left >= RECORD_HEADER_BYTES + RECORD_CHECKSUM_BYTES; at++, left--) {
        if (check_record(begun, at, left) > 0)
            return true;
    }
    return false;
}

/* --- Blocks --------------------------------------------------------------------------------------- */

static void check_block(struct check_store *check, const char *path, const char *stream, unsigned long number,
                        bool is_last)
{
    struct highway_hash hash;
    struct check_file file;
    char name[NAME_MAX + 32], wrong[120];

    if (!check_read_file(check, path, &file))
        return;
    check->blocks++;
    if (file.size >= 3 && memcmp(file.bytes, "cmp", 3) == 0) {
        check->unread++;
        free(file.bytes);
        return;
    }
    snprintf(name, sizeof(name), "%s-%lu", stream, number);
    check_begin_hash(&hash, name);
    size_t at = 0, size;
    while (at < file.size && (size = check_record(&hash, file.bytes + at, file.size - at)) > 0) {
        check->messages += (check_read_u64(file.bytes + at + 4) & SEQUENCE_FLAGS) == 0;
        at += size;
    }
    if (at < file.size) {
        bool is_cut = is_last && !check_has_record(&hash, file.bytes + at + 1, file.size - at - 1);
        snprintf(wrong, sizeof(wrong), "the record at byte %zu is damaged", at);
        if (is_cut && !check->is_quiet)
            report_note("%.600s: the last record is not complete: its write was interrupted, and the server drops it",
                        path);
        else if (!is_cut)
            check_find(check, path, wrong);
    }
    free(file.bytes);
}

static int check_compare_numbers(const void *a, const void *b)
{
    unsigned long one = *(const unsigned long *)a, other = *(const unsigned long *)b;

    return (one > other) - (one < other);
}

/* Read the numbers of the blocks in a directory, up to its end. False with errno. */
static bool check_read_blocks(DIR *directory, unsigned long **numbers, size_t *count)
{
    struct dirent *entry;

    while (errno = 0, (entry = readdir(directory)) != NULL) {
        char *end;
        unsigned long number = strtoul(entry->d_name, &end, 10);
        if (end == entry->d_name || strcmp(end, ".blk") != 0)
            continue;
        unsigned long *larger = realloc(*numbers, (*count + 1) * sizeof(*larger));
        if (larger == NULL)
            return false;
        *numbers = larger;
        larger[(*count)++] = number;
    }
    return errno == 0;
}

/*
 * List the numbers of a stream's blocks in their order; free them. A list that cannot be read to its end is a finding.
 */
static void check_list_blocks(struct check_store *check, const char *path, unsigned long **numbers, size_t *count)
{
    DIR *directory = opendir(path);

    *numbers = NULL;
    *count = 0;
    if (directory == NULL && errno == ENOENT) /* a stream in memory */
        return;
    if (directory == NULL || !check_read_blocks(directory, numbers, count))
        check_find(check, path, strerror(errno));
    if (*count > 0)
        qsort(*numbers, *count, sizeof(**numbers), check_compare_numbers);
    if (directory != NULL)
        closedir(directory);
}

/* --- Streams -------------------------------------------------------------------------------------- */

/* The checksum of a stream's settings is in a file of its own. A stream in memory has only these two files. */
static void check_settings(struct check_store *check, const char *path, const char *stream)
{
    char name[PATH_MAX], text[17];
    struct check_file meta, sum;
    struct highway_hash hash;
    unsigned char digest[8];

    snprintf(name, sizeof(name), "%s/meta.inf", path);
    if (!check_read_file(check, name, &meta))
        return;
    snprintf(name, sizeof(name), "%s/meta.sum", path);
    if (check_read_file(check, name, &sum)) {
        check_begin_hash(&hash, stream);
        highway_hash_add(&hash, meta.bytes, meta.size);
        uint64_t wanted = highway_hash_end(&hash);
        for (unsigned i = 0; i < 8; i++)
            digest[i] = (unsigned char)(wanted >> (8 * i));
        for (unsigned i = 0; i < 8; i++)
            snprintf(text + 2 * (size_t)i, 3, "%02x", digest[i]);
        if (sum.size < 16 || memcmp(sum.bytes, text, 16) != 0)
            check_find(check, name, "the settings of the stream do not have this checksum");
        free(sum.bytes);
    }
    free(meta.bytes);
}

static void check_stream(struct check_store *check, const char *path, const char *stream)
{
    uint64_t damaged = check->damaged, messages = check->messages;
    unsigned long *numbers;
    char name[PATH_MAX];
    size_t count;

    check->streams++;
    check_settings(check, path, stream);
    snprintf(name, sizeof(name), "%s/msgs", path);
    check_list_blocks(check, name, &numbers, &count);
    for (size_t i = 0; i < count; i++) {
        snprintf(name, sizeof(name), "%s/msgs/%lu.blk", path, numbers[i]);
        check_block(check, name, stream, numbers[i], i + 1 == count);
    }
    free(numbers);
    if (!check->is_quiet && check->damaged == damaged) {
        print_safely(stream, strlen(stream), SIZE_MAX);
        printf(": %s\n", text_of_things(check->messages - messages, "message", "messages").text);
    }
}

typedef void check_visit_fn(struct check_store *check, const char *path, const char *name);

/* Call visit for path/name if it is a directory. */
static void check_visit_directory(struct check_store *check, const char *path, const char *name, check_visit_fn *visit)
{
    char whole[PATH_MAX];
    struct stat state;

    if ((size_t)snprintf(whole, sizeof(whole), "%s/%s", path, name) >= sizeof(whole))
        check_find(check, whole, "the name is too long");
    else if (lstat(whole, &state) != 0)
        check_find(check, whole, strerror(errno));
    else if (S_ISDIR(state.st_mode))
        visit(check, whole, name);
}

/* Call visit for each directory in a directory. That it cannot be read is a finding, unless there is none. */
static void check_each_directory(struct check_store *check, const char *path, check_visit_fn *visit)
{
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);

    if (count < 0 && errno != ENOENT)
        check_find(check, path, strerror(errno));
    for (int i = 0; i < count; i++) {
        if (*entries[i]->d_name != '.')
            check_visit_directory(check, path, entries[i]->d_name, visit);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

static void check_account(struct check_store *check, const char *path, const char *name)
{
    char streams[PATH_MAX];

    (void)name;
    if ((size_t)snprintf(streams, sizeof(streams), "%s/streams", path) < sizeof(streams))
        check_each_directory(check, streams, check_stream);
    else
        check_find(check, path, "the name is too long");
}

void check_store_run(struct check_store *check)
{
    char path[PATH_MAX];

    if ((size_t)snprintf(path, sizeof(path), "%s/jetstream", check->directory) < sizeof(path))
        check_each_directory(check, path, check_account);
    else
        check_find(check, check->directory, "the name is too long");
}

/* --- The directory -------------------------------------------------------------------------------- */

/* Take the lock that a daemon holds. Nothing is written to the file. */
static bool check_lock(struct check_store *check)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/kvstored.lock", check->directory);
    check->lock = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (check->lock < 0 && errno == ENOENT) {
        report_note("%.600s is missing: no daemon has used this directory, or it is a copy", path);
        return true;
    }
    if (check->lock < 0)
        return report("cannot open %.600s: %s: check the directory as the user of the daemon", path, strerror(errno)) ==
               STATUS_OK;
    if (fcntl(check->lock, F_SETLK, &lock) == 0)
        return true;
    lock.l_type = F_WRLCK;
    bool is_known = fcntl(check->lock, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    report("%.600s is in use by a daemon (pid %ld): stop it first, with its socket unit", check->directory,
           is_known ? (long)lock.l_pid : 0L);
    return false;
}

bool check_store_open(struct check_store *check, const char *directory)
{
    struct stat state;

    *check = (struct check_store){.directory = directory, .lock = -1};
    if (stat(directory, &state) != 0)
        return report("cannot open %.600s: %s", directory, strerror(errno)) == STATUS_OK;
    if (state.st_mode & (S_IWGRP | S_IWOTH))
        check_find(check, directory, "others than its owner can write in it: the daemon refuses it (chmod go-w)");
    return check_lock(check);
}

void check_store_close(struct check_store *check)
{
    if (check->lock >= 0)
        close(check->lock);
    check->lock = -1;
}
