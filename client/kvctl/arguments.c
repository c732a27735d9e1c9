#include "client/kvctl/kvctl.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Items of a list of the daemon: the limit of daemon.dump and daemon.sessions. */
#define LIST_LIMIT_MAX 1000u

/* The longest TTL of the daemon: see Limits in protocol.md. */
#define DURATION_MAX_S (36500LL * 24 * 60 * 60)

#define LARGEST_INPUT_BYTES (64u * 1024 * 1024) /* the largest request that the library sends */

const char *arguments_value(const struct invocation *invocation, const char *name)
{
    const char *value = NULL;

    for (size_t i = 0; i < invocation->option_count; i++) {
        if (strcmp(invocation->options[i].name, name) == 0)
            value = invocation->options[i].value;
    }
    return value;
}

bool arguments_flag(const struct invocation *invocation, const char *name)
{
    for (size_t i = 0; i < invocation->option_count; i++) {
        if (strcmp(invocation->options[i].name, name) == 0)
            return true;
    }
    return false;
}

bool arguments_read_number(const char *text, const char *what, uint64_t *number)
{
    char *end;

    errno = 0;
    *number = strtoumax(text, &end, 10);
    bool is_number = isdigit((unsigned char)*text) && *end == '\0';
    if (is_number && errno == 0 && *number <= INT64_MAX)
        return true;
    report("%s must be a whole number%s, not '%.100s'", what, is_number ? " below 2^63" : "", text);
    return false;
}

bool arguments_number(const struct invocation *invocation, const char *name, uint64_t *number)
{
    const char *text = arguments_value(invocation, name);
    char what[64];

    if (text == NULL)
        return true;
    snprintf(what, sizeof(what), "--%s", name);
    return arguments_read_number(text, what, number);
}

bool arguments_limit(const struct invocation *invocation, unsigned *limit)
{
    uint64_t number = *limit;

    if (!arguments_number(invocation, "limit", &number))
        return false;
    if (number > LIST_LIMIT_MAX)
        return report("--limit must be from 1 to %u", LIST_LIMIT_MAX) == STATUS_OK;
    *limit = (unsigned)number;
    return true;
}

bool arguments_consistency(const struct invocation *invocation, enum kvs_consistency *consistency)
{
    const char *text = arguments_value(invocation, "consistency");

    if (arguments_flag(invocation, "cached")) {
        if (text != NULL && strcmp(text, "cached") != 0)
            return report("--cached excludes --consistency %.100s: give one of them", text) == STATUS_OK;
        text = "cached";
    }
    if (text == NULL || strcmp(text, "direct") == 0)
        *consistency = KVS_CONSISTENCY_DIRECT;
    else if (strcmp(text, "leader") == 0)
        *consistency = KVS_CONSISTENCY_LEADER;
    else if (strcmp(text, "cached") == 0)
        *consistency = KVS_CONSISTENCY_CACHED;
    else
        return report("--consistency must be direct, leader or cached, not '%.100s'", text) == STATUS_OK;
    return true;
}

/* --- Numbers with units ---------------------------------------------------------------------- */

/* Read digits at *text and multiply them by the unit that follows, as unit_of reads it. */
static bool arguments_read_quantity(const char **text, int64_t (*unit_of)(const char **text), int64_t *quantity)
{
    char *end;

    if (!isdigit((unsigned char)**text))
        return false;
    errno = 0;
    intmax_t number = strtoimax(*text, &end, 10);
    if (errno != 0)
        return false;
    *text = end;
    int64_t unit = unit_of(text);
    return unit > 0 && !__builtin_mul_overflow(number, unit, quantity);
}

/* The units are those of the daemon's configuration: see parse_bytes in conf/setting.c. */
static int64_t arguments_unit_of_size(const char **text)
{
    static const char letters[] = "KMGT";
    const char *letter = **text != '\0' ? strchr(letters, toupper((unsigned char)**text)) : NULL;
    int64_t unit = 1;

    if (letter != NULL) {
        unit <<= 10 * (letter - letters + 1);
        (*text)++;
        if (strcmp(*text, "iB") == 0)
            *text += 2;
    }
    return unit;
}

static int64_t arguments_unit_of_duration(const char **text)
{
    switch (**text) {
    case '\0':
        return 1;
    case 's':
        (*text)++;
        return 1;
    case 'm':
        (*text)++;
        return 60;
    case 'h':
        (*text)++;
        return 60 * 60;
    case 'd':
        (*text)++;
        return 24 * 60 * 60;
    case 'w':
        (*text)++;
        return 7 * 24 * 60 * 60;
    default:
        return 0;
    }
}

bool arguments_size(const struct invocation *invocation, const char *name, int64_t *size_bytes)
{
    const char *text = arguments_value(invocation, name), *rest = text;

    if (text == NULL)
        return true;
    if (strcmp(text, "none") == 0) {
        *size_bytes = -1;
        return true;
    }
    if (arguments_read_quantity(&rest, arguments_unit_of_size, size_bytes) && *rest == '\0' && *size_bytes > 0)
        return true;
    report("--%s must be a size such as 4096, 64K, 10M, 2G or none, not '%.100s'", name, text);
    return false;
}

bool arguments_read_duration(const char *text, const char *what, int64_t *duration_s)
{
    const char *rest = text;
    int64_t total = 0, part;

    if (strcmp(text, "none") == 0) {
        *duration_s = -1;
        return true;
    }
    do {
        if (!arguments_read_quantity(&rest, arguments_unit_of_duration, &part) ||
            __builtin_add_overflow(total, part, &total)) {
            total = 0;
            break;
        }
    } while (*rest != '\0');
    /* A last number without a unit, as in 1h30, is ambiguous: 30 minutes or 30 seconds? */
    if (total > 0 && isdigit((unsigned char)rest[-1]) && strspn(text, "0123456789") < strlen(text))
        total = 0;
    if (total <= 0 || total > DURATION_MAX_S) {
        report("%s must be a time from 1 s to 36500d, such as 30, 90s, 1h30m, 7d or none, not '%.100s'", what, text);
        return false;
    }
    *duration_s = total;
    return true;
}

bool arguments_duration(const struct invocation *invocation, const char *name, int64_t *duration_s)
{
    const char *text = arguments_value(invocation, name);
    char what[64];

    snprintf(what, sizeof(what), "--%s", name);
    return text == NULL || arguments_read_duration(text, what, duration_s);
}

/* --- Options that may be repeated --------------------------------------------------------------- */

bool arguments_list(const struct invocation *invocation, const char *name, const char ***values, size_t *count)
{
    *count = 0;
    *values = calloc(invocation->option_count + 1, sizeof(**values));
    if (*values == NULL) {
        report("out of memory");
        return false;
    }
    for (size_t i = 0; i < invocation->option_count; i++) {
        if (strcmp(invocation->options[i].name, name) == 0)
            (*values)[(*count)++] = invocation->options[i].value;
    }
    return true;
}

bool arguments_pairs(const struct invocation *invocation, const char *name, struct kvs_header **pairs, size_t *count)
{
    size_t text_size = 0;

    *count = 0;
    *pairs = NULL;
    for (size_t i = 0; i < invocation->option_count; i++) {
        if (strcmp(invocation->options[i].name, name) == 0)
            text_size += strlen(invocation->options[i].value) + 1;
    }
    struct kvs_header *block = malloc(invocation->option_count * sizeof(*block) + text_size + 1);
    if (block == NULL) {
        report("out of memory");
        return false;
    }
    char *place = (char *)(block + invocation->option_count);
    for (size_t i = 0; i < invocation->option_count; i++) {
        const char *text = invocation->options[i].value;
        if (strcmp(invocation->options[i].name, name) != 0)
            continue;
        size_t length = strlen(text);
        memcpy(place, text, length + 1);
        char *equals = strchr(place, '=');
        if (equals == NULL || equals == place) {
            report("--%s must be NAME=VALUE, not '%.100s'", name, text);
            free(block);
            return false;
        }
        *equals = '\0';
        block[(*count)++] = (struct kvs_header){.name = place, .value = equals + 1};
        place += length + 1;
    }
    *pairs = block;
    return true;
}

/* --- Values ------------------------------------------------------------------------------------- */

bool content_read_stream(struct content *content, FILE *file, const char *name)
{
    size_t capacity = 64 * 1024;

    *content = (struct content){0};
    for (;;) {
        char *bytes = realloc(content->bytes, capacity);
        if (bytes == NULL) {
            report("out of memory for %.200s", name);
            break;
        }
        content->bytes = bytes;
        content->size += fread(bytes + content->size, 1, capacity - 1 - content->size, file);
        if (ferror(file)) {
            report("cannot read %.200s: %s", name, strerror(errno));
            break;
        }
        if (feof(file)) {
            bytes[content->size] = '\0';
            return true;
        }
        if (content->size > LARGEST_INPUT_BYTES) {
            report("%.200s is larger than %u bytes, the most that kvctl reads", name, LARGEST_INPUT_BYTES);
            break;
        }
        if (content->size == capacity - 1)
            capacity *= 2;
    }
    free(content->bytes);
    *content = (struct content){0};
    return false;
}

bool content_read_file(struct content *content, const char *path)
{
    if (strcmp(path, "-") == 0)
        return content_read_stream(content, stdin, "standard input");

    FILE *file = fopen(path, "re");
    *content = (struct content){0};
    if (file == NULL)
        return report("cannot open %.200s: %s", path, strerror(errno)) == STATUS_OK;
    bool read = content_read_stream(content, file, path);
    fclose(file);
    return read;
}

size_t line_trim(char *line, size_t size)
{
    if (size > 0 && line[size - 1] == '\r')
        line[--size] = '\0';
    return size;
}

bool content_read(struct content *content, const char *argument)
{
    if (strcmp(argument, "-") == 0)
        return content_read_file(content, "-");
    content->bytes = strdup(argument);
    content->size = strlen(argument);
    if (content->bytes == NULL)
        report("out of memory");
    return content->bytes != NULL;
}
