#include "client/kvctl/transfer.h"
#include "proto/kv_check.h"
#include "proto/utf8.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BUFFER_BYTES (1024u * 1024)

/* NATS has values of up to 64 MiB, and a byte has six characters at most. */
#define LINE_FIRST_BYTES 256u
#define LINE_BYTES_MAX   (512u * 1024 * 1024)

#define HEADERS_MAX 1000u /* see headers in protocol.md */

static bool export_reader_fail(const struct export_reader *reader, const char *wrong)
{
    return report("%.200s, line %" PRIu64 ": %s", reader->path, reader->number, wrong) == STATUS_OK;
}

/* --- Lines ---------------------------------------------------------------------------------------- */

/* file: NULL after a message. False then. */
static bool export_reader_begin(struct export_reader *reader, FILE *file, const char *path)
{
    struct stat state;

    *reader = (struct export_reader){.file = file, .path = path};
    SHA256_Init(&reader->digest);
    if (file == NULL)
        return false;
    setvbuf(reader->file, NULL, _IOFBF, BUFFER_BYTES);
    if (fstat(fileno(reader->file), &state) == 0 && S_ISREG(state.st_mode))
        reader->total_bytes = (uint64_t)state.st_size;
    return true;
}

bool export_reader_open(struct export_reader *reader, const char *path)
{
    if (strcmp(path, "-") == 0)
        return export_reader_begin(reader, stdin, "standard input");

    FILE *file = fopen(path, "re");
    if (file == NULL)
        report("cannot open %.200s: %s", path, strerror(errno));
    return export_reader_begin(reader, file, path);
}

void export_reader_close(struct export_reader *reader)
{
    if (reader->file != NULL && reader->file != stdin)
        fclose(reader->file);
    free(reader->line);
    *reader = (struct export_reader){0};
}

/* Make room for more bytes of the line. False after a message. */
static bool export_reader_grow(struct export_reader *reader)
{
    size_t capacity = reader->capacity > 0 ? 2 * reader->capacity : LINE_FIRST_BYTES;

    if (capacity > LINE_BYTES_MAX)
        return export_reader_fail(reader, "the line is longer than any that kvctl export writes");
    char *larger = realloc(reader->line, capacity);
    if (larger == NULL)
        return report("out of memory") == STATUS_OK;
    reader->line = larger;
    reader->capacity = capacity;
    return true;
}

/* Read a line with its newline, which is missing only at the end of the file. False after a message. */
static bool export_reader_read_bytes(struct export_reader *reader, size_t *size)
{
    int byte;

    *size = 0;
    while ((byte = getc_unlocked(reader->file)) != EOF) {
        if (*size == reader->capacity && !export_reader_grow(reader))
            return false;
        reader->line[(*size)++] = (char)byte;
        if (byte == '\n')
            return true;
    }
    return !ferror(reader->file) || report("cannot read %.200s: %s", reader->path, strerror(errno)) == STATUS_OK;
}

/* Read a line, and count the one before it into the digest. False after a message. */
static bool export_reader_read_line(struct export_reader *reader)
{
    size_t size;

    reader->number++;
    if (!export_reader_read_bytes(reader, &size))
        return false;
    if (size == 0)
        return export_reader_fail(reader, "the file ends here, without the last line of an export: it is truncated");
    if (reader->line[size - 1] != '\n')
        return export_reader_fail(reader, "the line has no end: the file is truncated");
    reader->bytes += size;
    reader->size = size - 1;
    return true;
}

static void export_reader_digest_line(struct export_reader *reader)
{
    SHA256_Update(&reader->digest, reader->line, reader->size + 1);
}

/* End the line with NUL instead of its newline, once it is counted. */
static void export_reader_end_line(struct export_reader *reader)
{
    reader->line[reader->size] = '\0';
}

/* --- Members -------------------------------------------------------------------------------------- */

static int export_base64_digit(char digit)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = digit != '\0' ? strchr(digits, digit) : NULL;

    return at != NULL ? (int)(at - digits) : -1;
}

/* Decode in place. False if it is not base64. */
static bool export_decode_base64(char *text, size_t *size)
{
    size_t length = *size, out = 0;
    unsigned bits = 0, group = 0;

    if (length % 4 != 0)
        return false;
    while (length > 0 && text[length - 1] == '=' && length + 2 > *size)
        length--;
    for (size_t i = 0; i < length; i++) {
        int digit = export_base64_digit(text[i]);
        if (digit < 0)
            return false;
        group = group << 6 | (unsigned)digit;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            text[out++] = (char)(group >> bits);
            group &= (1u << bits) - 1;
        }
    }
    *size = out;
    return true;
}

/* Read a JSON member whose bytes are a string or {"base64": "..."}. False with the reason in json->wrong. */
static bool export_read_bytes(struct json *json, const char **bytes, size_t *size)
{
    json->at += strspn(json->at, " \t");
    if (*json->at == '"')
        return json_read_member(json, bytes, size);
    struct json inner = {.at = json->at};
    size_t name_size;
    char *name;
    if (!json_begin_object(&inner) || !json_next_member(&inner, &name, &name_size) || strcmp(name, "base64") != 0 ||
        !json_read_member(&inner, bytes, size) || !export_decode_base64((char *)*bytes, size) ||
        json_next_member(&inner, &name, &name_size) || inner.wrong != NULL) {
        json->wrong = "a text, or {\"base64\": \"...\"}, is missing";
        return false;
    }
    ((char *)*bytes)[*size] = '\0';
    json->at = inner.at;
    return true;
}

static bool export_read_operation(const char *text, size_t size, enum kvs_operation *operation)
{
    for (enum kvs_operation each = KVS_OPERATION_PUT; each <= KVS_OPERATION_PURGE; each++) {
        const char *name = text_of_operation(each);
        if (strlen(name) == size && memcmp(name, text, size) == 0) {
            *operation = each;
            return true;
        }
    }
    return false;
}

/* Read one member of an entry. False with the reason in json->wrong. */
static bool export_read_member(struct json *json, const char *name, struct export_entry *entry)
{
    const char *bytes;
    size_t size;

    if (strcmp(name, "key") == 0) {
        if (!export_read_bytes(json, &entry->key, &size))
            return false;
        if (strlen(entry->key) != size)
            json->wrong = "the key contains a NUL byte";
        return json->wrong == NULL;
    }
    if (strcmp(name, "value") == 0)
        return export_read_bytes(json, &entry->value, &entry->value_size);
    if (!json_read_member(json, &bytes, &size))
        return false;
    if (strcmp(name, "revision") == 0)
        entry->revision = strtoull(bytes, NULL, 10);
    else if (strcmp(name, "created") == 0)
        entry->created_us = strtoll(bytes, NULL, 10);
    else if (strcmp(name, "ttl") == 0)
        entry->ttl_s = strtoll(bytes, NULL, 10);
    else if (strcmp(name, "lease") == 0)
        entry->has_lease = true;
    else if (strcmp(name, "headers") == 0)
        entry->headers = bytes;
    else if (strcmp(name, "operation") == 0 && !export_read_operation(bytes, size, &entry->operation))
        json->wrong = "the operation must be put, delete or purge";
    return json->wrong == NULL;
}

/* Read the entry of the present line. False after a message. */
static bool export_reader_parse(struct export_reader *reader, struct export_entry *entry)
{
    struct json json = {.at = reader->line};
    size_t name_size;
    char *name;

    *entry = (struct export_entry){.value = ""};
    if (json_begin_object(&json)) {
        while (json_next_member(&json, &name, &name_size) && export_read_member(&json, name, entry))
            continue;
        if (json.wrong == NULL && json_end(&json) && entry->key == NULL)
            json.wrong = "the key is missing";
    }
    return json.wrong == NULL || export_reader_fail(reader, json.wrong);
}

bool export_read_headers(const struct export_reader *reader, const struct export_entry *entry,
                         struct kvs_header **headers, size_t *count)
{
    struct json json = {.at = (char *)entry->headers};
    size_t capacity = 0, size;
    char *name;

    *headers = NULL;
    *count = 0;
    if (entry->headers == NULL)
        return true;
    json_begin_object(&json);
    while (json_next_member(&json, &name, &size)) {
        if (*count == capacity) {
            capacity = capacity > 0 ? capacity * 2 : 8;
            struct kvs_header *larger = realloc(*headers, capacity * sizeof(*larger));
            if (larger == NULL) {
                free(*headers);
                *headers = NULL;
                return report("out of memory") == STATUS_OK;
            }
            *headers = larger;
        }
        struct kvs_header *header = &(*headers)[(*count)++];
        header->name = name;
        if (!export_read_bytes(&json, &header->value, &size))
            break;
    }
    if (json.wrong == NULL)
        return true;
    free(*headers);
    *headers = NULL; /* the caller frees them, too */
    return export_reader_fail(reader, json.wrong);
}

const char *export_find_refusal(enum kvs_operation operation, const char *key, const struct kvs_header *headers,
                                size_t header_count)
{
    const char *wrong = kv_check_key(key, strlen(key));

    if (operation != KVS_OPERATION_PUT)
        header_count = 0; /* a marker is written without headers */
    if (wrong == NULL && header_count > HEADERS_MAX)
        wrong = "an entry has at most 1,000 headers";
    for (size_t i = 0; i < header_count && wrong == NULL; i++) {
        wrong = kv_check_header(headers[i].name, headers[i].value);
        if (wrong == NULL && !utf8_is_valid(headers[i].value, strlen(headers[i].value)))
            wrong = "a header's value is UTF-8";
    }
    return wrong;
}

/* --- Header and end ------------------------------------------------------------------------------- */

static bool export_read_header_members(struct json *json, struct export_header *header, const char **format,
                                       long *version)
{
    const char *bytes;
    size_t size;
    char *name;

    if (!json_begin_object(json))
        return false;
    while (json_next_member(json, &name, &size) && json_read_member(json, &bytes, &size)) {
        if (strcmp(name, "format") == 0)
            *format = bytes;
        else if (strcmp(name, "version") == 0)
            *version = strtol(bytes, NULL, 10);
        else if (strcmp(name, "bucket") == 0)
            header->bucket = bytes;
        else if (strcmp(name, "id") == 0)
            header->id = bytes;
        else if (strcmp(name, "history") == 0)
            header->has_history = *bytes == 't';
        else if (strcmp(name, "info") == 0)
            header->settings = bytes;
    }
    return json->wrong == NULL;
}

bool export_reader_header(struct export_reader *reader, struct export_header *header)
{
    const char *format = NULL;
    long version = 0;

    *header = (struct export_header){0};
    if (!export_reader_read_line(reader))
        return false;
    export_reader_digest_line(reader);
    export_reader_end_line(reader);
    header->text = strdup(reader->line);
    if (header->text == NULL)
        return report("out of memory") == STATUS_OK;
    struct json json = {.at = header->text};
    bool is_read = export_read_header_members(&json, header, &format, &version);
    if (!is_read || format == NULL || strcmp(format, EXPORT_FORMAT) != 0 || header->bucket == NULL ||
        header->id == NULL || header->settings == NULL)
        return export_reader_fail(reader, "this is not the first line of an export that kvctl export has written");
    if (version != EXPORT_VERSION)
        return export_reader_fail(reader, "the export has a format that this version of kvctl does not know");
    return true;
}

/* Compare the last line with what was read. */
static bool export_reader_check_end(struct export_reader *reader, struct json *json)
{
    char text[DIGEST_TEXT_BYTES];
    uint64_t entries = 0, deletes = 0;
    const char *bytes, *sum = "";
    size_t size;
    char *name;

    while (json_next_member(json, &name, &size) && json_read_member(json, &bytes, &size)) {
        if (strcmp(name, "entries") == 0)
            entries = strtoull(bytes, NULL, 10);
        else if (strcmp(name, "deletes") == 0)
            deletes = strtoull(bytes, NULL, 10);
        else if (strcmp(name, "sha256") == 0)
            sum = bytes;
    }
    if (json->wrong != NULL)
        return export_reader_fail(reader, json->wrong);
    transfer_digest(&reader->before_end, text);
    if (strcmp(sum, text) != 0)
        return export_reader_fail(reader, "the SHA-256 of the lines before is another one: the file is damaged");
    if (entries + deletes != reader->entries)
        return export_reader_fail(reader, "the number of entries is another one: the file is damaged");
    if (getc(reader->file) != EOF)
        return export_reader_fail(reader, "text follows the last line of the export");
    return true;
}

static const char end_beginning[] = "{\"end\":true";

static bool export_reader_is_end(const struct export_reader *reader)
{
    return strncmp(reader->line, end_beginning, sizeof(end_beginning) - 1) == 0;
}

static enum export_line export_reader_read_end(struct export_reader *reader)
{
    struct json json = {.at = reader->line};

    reader->before_end = reader->digest;
    export_reader_digest_line(reader);
    export_reader_end_line(reader);
    return json_begin_object(&json) && export_reader_check_end(reader, &json) ? EXPORT_LINE_END : EXPORT_LINE_WRONG;
}

enum export_line export_reader_skip(struct export_reader *reader)
{
    if (!export_reader_read_line(reader))
        return EXPORT_LINE_WRONG;
    if (export_reader_is_end(reader))
        return export_reader_read_end(reader);
    export_reader_digest_line(reader);
    reader->entries++;
    return EXPORT_LINE_ENTRY;
}

enum export_line export_reader_next(struct export_reader *reader, struct export_entry *entry)
{
    enum export_line line = export_reader_skip(reader);

    if (line != EXPORT_LINE_ENTRY)
        return line;
    export_reader_end_line(reader);
    return export_reader_parse(reader, entry) ? EXPORT_LINE_ENTRY : EXPORT_LINE_WRONG;
}

/* What an import refuses of a file. */
struct refusals {
    uint64_t count;
    uint64_t line; /* of the first */
    struct short_text key;
    const char *reason;
};

static void refusals_add(struct refusals *refusals, uint64_t line, const char *key, const char *reason)
{
    if (refusals->count++ > 0)
        return;
    refusals->line = line;
    refusals->key = text_of_bytes(key, strlen(key));
    refusals->reason = reason;
}

static void refusals_note(const struct refusals *refusals, const char *path)
{
    if (refusals->count > 0)
        report_note("%.200s: an import refuses %s (see --skip-refused); the first is line %" PRIu64 ", key %s: %s",
                    path, text_of_things(refusals->count, "entry", "entries").text, refusals->line, refusals->key.text,
                    refusals->reason);
}

/* Read a line as an import does, and drop it. */
static enum export_line export_reader_check(struct export_reader *reader, struct refusals *refusals)
{
    struct kvs_header *headers = NULL;
    struct export_entry entry;
    size_t count;

    enum export_line line = export_reader_next(reader, &entry);
    if (line == EXPORT_LINE_ENTRY && !export_read_headers(reader, &entry, &headers, &count))
        line = EXPORT_LINE_WRONG;
    const char *reason =
        line == EXPORT_LINE_ENTRY ? export_find_refusal(entry.operation, entry.key, headers, count) : NULL;
    if (reason != NULL)
        refusals_add(refusals, reader->number, entry.key, reason);
    free(headers);
    return line;
}

bool export_verify(const char *path, bool parses_lines, uint64_t *entries, char digest[DIGEST_TEXT_BYTES])
{
    struct export_header header = {0};
    struct export_reader reader;
    struct refusals refusals = {0};
    enum export_line line = EXPORT_LINE_WRONG;

    if (export_reader_begin(&reader, transfer_open_plain_file(path), path) && export_reader_header(&reader, &header)) {
        do {
            line = parses_lines ? export_reader_check(&reader, &refusals) : export_reader_skip(&reader);
        } while (line == EXPORT_LINE_ENTRY);
    }
    if (line == EXPORT_LINE_END)
        refusals_note(&refusals, path);
    *entries = reader.entries;
    transfer_digest(&reader.digest, digest);
    free(header.text);
    export_reader_close(&reader);
    return line == EXPORT_LINE_END;
}
