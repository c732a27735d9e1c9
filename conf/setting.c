#include "conf/setting.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIB ((uint64_t)1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

/* The longest name of a Unix socket: sun_path has 108 bytes, its NUL among them. */
#define SOCKET_PATH_BYTES_MAX 107
#define PATH_BYTES_MAX        4095
#define NAME_BYTES_MAX        255

static const char *const nats_modes[] = {"embedded", "external", NULL};
static const char *const access_words[] = {"none", "read", "write", "admin", NULL};
static const char *const group_commits[] = {"auto", "on", "off", NULL};
static const char *const busy_polls[] = {"auto", "off", NULL};
static const char *const log_levels[] = {"error", "warning", "info", "debug", NULL};

static bool is_decimal(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_host_char(char c)
{
    return is_decimal(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.';
}

static bool is_ipv6_char(char c)
{
    return is_decimal(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || c == ':' || c == '.' || c == '%';
}

/* nats:// or tls://, a host name or an address (IPv6 in brackets), and a port or not. Nothing else. */
static bool is_server_url(const char *text)
{
    const char *host;
    unsigned long port = 0;

    if (strncmp(text, "nats://", 7) == 0)
        text += 7;
    else if (strncmp(text, "tls://", 6) == 0)
        text += 6;
    else
        return false;

    if (*text == '[') {
        host = ++text;
        while (is_ipv6_char(*text))
            text++;
        if (text == host || *text++ != ']')
            return false;
    } else {
        host = text;
        while (is_host_char(*text))
            text++;
        if (text == host)
            return false;
    }
    if (*text == '\0')
        return true;
    if (*text++ != ':')
        return false;
    for (unsigned digits = 0; is_decimal(*text); text++) {
        if (++digits > 5)
            return false;
        port = 10 * port + (unsigned long)(*text - '0');
    }
    return *text == '\0' && port >= 1 && port <= 65535;
}

/* It becomes one token of the subjects that JetStream's API is called on. */
static bool is_domain(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text <= ' ' || *text == 0x7f || strchr(".*>", *text) != NULL)
            return false;
    }
    return true;
}

/* It becomes the name of consumers, and with it a token of subjects. */
static bool is_consumer_name(const char *text)
{
    for (; *text != '\0'; text++) {
        if (!is_host_char(*text) || *text == '.')
            return false;
    }
    return true;
}

/* clang-format off: one row, one line or two */
#define MEMBER(member)      offsetof(struct conf, member), sizeof(((struct conf *)0)->member)
#define RULE_MEMBER(member) offsetof(struct conf_access_rule, member), sizeof(((struct conf_access_rule *)0)->member)

const struct setting conf_settings[] = {
    {"listen.path", SETTING_STRING, 0, MEMBER(listen.path), 1, SOCKET_PATH_BYTES_MAX,
     .initial = "/run/kvstored/kvstored.sock", .expects = "a path of at most 107 bytes"},
    {"listen.mode", SETTING_OCTAL, 0, MEMBER(listen.mode), 0, 0777, .initial = "0660"},
    {"listen.owner", SETTING_STRING, 0, MEMBER(listen.owner), 1, NAME_BYTES_MAX, .expects = "a user's name or number",
     .example = "kvstored"},
    {"listen.group", SETTING_STRING, 0, MEMBER(listen.group), 1, NAME_BYTES_MAX, .expects = "a group's name or number",
     .example = "kvstored"},
    {"listen.backlog", SETTING_COUNT, 0, MEMBER(listen.backlog), 1, 65535, .initial = "512"},

    {"nats.mode", SETTING_CHOICE, 0, MEMBER(nats.mode), 0, 1, .initial = "embedded", .words = nats_modes},
    {"nats.data_dir", SETTING_STRING, SETTING_EMBEDDED, MEMBER(nats.data_dir), 1, PATH_BYTES_MAX,
     .initial = "/var/lib/kvstored", .expects = "a directory's path"},
    {"nats.server", SETTING_STRING, SETTING_EMBEDDED, MEMBER(nats.server), 1, PATH_BYTES_MAX, .initial = "nats-server",
     .expects = "a program's name or path"},
    {"nats.sync_interval", SETTING_MILLISECONDS, SETTING_EMBEDDED, MEMBER(nats.sync_interval_ms), 100, 3600000,
     .initial = "always", .zero_word = "always"},
    {"nats.max_store", SETTING_BYTES, SETTING_EMBEDDED, MEMBER(nats.max_store_bytes), 0, 1024 * 1024 * GIB,
     .initial = "0", .example = "10G"},
    {"nats.hang_timeout", SETTING_MILLISECONDS, SETTING_EMBEDDED | SETTING_LIVE, MEMBER(nats.hang_timeout_ms), 1000,
     3600000, .initial = "10"},
    {"nats.servers", SETTING_STRINGS, SETTING_EXTERNAL, MEMBER(nats.servers), 1, NAME_BYTES_MAX + 16,
     .expects = "URLs nats://HOST[:PORT] or tls://HOST[:PORT] without user and password",
     .example = "[nats://127.0.0.1:4222]", .is_valid = is_server_url},
    {"nats.domain", SETTING_STRING, SETTING_EXTERNAL, MEMBER(nats.domain), 1, NAME_BYTES_MAX,
     .expects = "a JetStream domain's name, without spaces and '.', '*', '>'", .example = "hub", .is_valid = is_domain},
    {"nats.credentials", SETTING_STRING, SETTING_EXTERNAL, MEMBER(nats.credentials), 1, PATH_BYTES_MAX,
     .expects = "the path of a .creds file", .example = "/etc/kvstored/nats.creds"},
    {"nats.user", SETTING_STRING, SETTING_EXTERNAL, MEMBER(nats.user), 1, PATH_BYTES_MAX,
     .expects = "a NATS user's name", .example = "kvstored"},
    {"nats.password", SETTING_STRING, SETTING_EXTERNAL | SETTING_SECRET, MEMBER(nats.password), 1, PATH_BYTES_MAX,
     .expects = "that user's password", .example = "\"secret\""},
    {"nats.token", SETTING_STRING, SETTING_EXTERNAL | SETTING_SECRET, MEMBER(nats.token), 1, PATH_BYTES_MAX,
     .expects = "a token", .example = "\"secret\""},
    {"nats.nkey_seed", SETTING_STRING, SETTING_EXTERNAL, MEMBER(nats.nkey_seed), 1, PATH_BYTES_MAX,
     .expects = "the path of a file that holds the seed", .example = "/etc/kvstored/nats.nk"},
    {"nats.tls.ca", SETTING_STRING, SETTING_EXTERNAL, MEMBER(nats.tls.ca), 1, PATH_BYTES_MAX,
     .expects = "the path of a PEM file", .example = "/etc/kvstored/ca.pem"},
    {"nats.tls.certificate", SETTING_STRING, SETTING_EXTERNAL, MEMBER(nats.tls.certificate), 1, PATH_BYTES_MAX,
     .expects = "the path of a PEM file", .example = "/etc/kvstored/client.pem"},
    {"nats.tls.key", SETTING_STRING, SETTING_EXTERNAL, MEMBER(nats.tls.key), 1, PATH_BYTES_MAX,
     .expects = "the path of a PEM file", .example = "/etc/kvstored/client-key.pem"},
    {"nats.tls.server_name", SETTING_STRING, SETTING_EXTERNAL, MEMBER(nats.tls.server_name), 1, NAME_BYTES_MAX,
     .expects = "a host name", .example = "nats.example.com"},
    {"nats.name", SETTING_STRING, 0, MEMBER(nats.name), 1, 64, .expects = "1 to 64 letters, digits, '_' and '-'",
     .example = "kvstored-web1", .is_valid = is_consumer_name},
    {"nats.connect_timeout", SETTING_MILLISECONDS, 0, MEMBER(nats.connect_timeout_ms), 100, 60000, .initial = "2"},
    {"nats.reconnect_min", SETTING_MILLISECONDS, SETTING_LIVE, MEMBER(nats.reconnect_min_ms), 1, 60000,
     .initial = "0.05"},
    {"nats.reconnect_max", SETTING_MILLISECONDS, SETTING_LIVE, MEMBER(nats.reconnect_max_ms), 1, 3600000,
     .initial = "2"},
    {"nats.ping_interval", SETTING_MILLISECONDS, SETTING_LIVE, MEMBER(nats.ping_interval_ms), 100, 3600000,
     .initial = "2"},
    {"nats.outage_wait", SETTING_MILLISECONDS, SETTING_LIVE, MEMBER(nats.outage_wait_ms), 0, 3600000, .initial = "10"},

    {"buckets.handle_ttl", SETTING_SECONDS, SETTING_LIVE, MEMBER(buckets.handle_ttl_s), 1, 86400, .initial = "300"},
    {"buckets.group_commit", SETTING_CHOICE, SETTING_LIVE, MEMBER(buckets.group_commit), 0, 2, .initial = "auto",
     .words = group_commits},

    /* 100 ms: the shortest that the server takes. */
    {"watches.heartbeat", SETTING_MILLISECONDS, SETTING_LIVE, MEMBER(watches.heartbeat_ms), 100, 60000, .initial = "2"},
    {"watches.check_interval", SETTING_MILLISECONDS, SETTING_LIVE, MEMBER(watches.check_interval_ms), 100, 86400000,
     .initial = "60"},
    {"watches.buffer_bytes", SETTING_BYTES, SETTING_LIVE, MEMBER(watches.buffer_bytes), 4 * KIB, 1024 * GIB,
     .initial = "8M"},
    {"watches.per_session", SETTING_COUNT, SETTING_LIVE, MEMBER(watches.per_session), 1, 1048576, .initial = "1024"},
    {"watches.total", SETTING_COUNT, SETTING_LIVE, MEMBER(watches.total), 1, 1048576, .initial = "65536"},
    {"watches.buckets", SETTING_COUNT, SETTING_LIVE, MEMBER(watches.buckets), 1, 1048576, .initial = "1024"},

    {"cache.buckets", SETTING_STRINGS, SETTING_LIVE, MEMBER(cache.buckets), 1, NAME_BYTES_MAX,
     .expects = "shell patterns of buckets' names", .example = "[settings, \"app-*\"]"},
    {"cache.max_bytes", SETTING_BYTES, SETTING_LIVE, MEMBER(cache.max_bytes), 64 * KIB, 1024 * GIB, .initial = "256M"},
    {"cache.max_staleness", SETTING_MILLISECONDS, SETTING_LIVE, MEMBER(cache.max_staleness_ms), 0, 3600000,
     .initial = "10"},
    {"cache.idle_timeout", SETTING_MILLISECONDS, SETTING_LIVE, MEMBER(cache.idle_timeout_ms), 100, 86400000,
     .initial = "300"},

    {"calls.timeout", SETTING_MILLISECONDS, SETTING_LIVE, MEMBER(calls.timeout_ms), 10, 3600000, .initial = "5"},
    {"calls.max_timeout", SETTING_MILLISECONDS, SETTING_LIVE, MEMBER(calls.max_timeout_ms), 10, 3600000,
     .initial = "60"},
    {"calls.attempt_timeout", SETTING_MILLISECONDS, SETTING_LIVE, MEMBER(calls.attempt_timeout_ms), 10, 3600000,
     .initial = "2"},
    {"calls.retry_min", SETTING_MILLISECONDS, SETTING_LIVE, MEMBER(calls.retry_min_ms), 1, 60000, .initial = "0.05"},
    {"calls.retry_max", SETTING_MILLISECONDS, SETTING_LIVE, MEMBER(calls.retry_max_ms), 1, 3600000, .initial = "2"},
    {"calls.drain_timeout", SETTING_MILLISECONDS, SETTING_LIVE, MEMBER(calls.drain_timeout_ms), 0, 3600000,
     .initial = "10"},
    {"calls.busy_poll", SETTING_CHOICE, SETTING_LIVE, MEMBER(calls.busy_poll), 0, 1, .initial = "auto",
     .words = busy_polls},

    {"limits.frame_bytes", SETTING_BYTES, SETTING_LIVE, MEMBER(limits.frame_bytes), 4 * KIB, GIB, .initial = "16M"},
    {"limits.frame_elements", SETTING_COUNT, SETTING_LIVE, MEMBER(limits.frame_elements), 64, 16777216,
     .initial = "131072"},
    /* 8: the deepest call, a transaction whose operations have headers, needs 6. 32: FRAME_DEPTH_MAX. */
    {"limits.frame_depth", SETTING_COUNT, SETTING_LIVE, MEMBER(limits.frame_depth), 8, 32, .initial = "32"},
    {"limits.sessions", SETTING_COUNT, SETTING_LIVE, MEMBER(limits.sessions), 1, 1048576, .initial = "4096"},
    {"limits.calls", SETTING_COUNT, SETTING_LIVE, MEMBER(limits.calls), 1, 1048576, .initial = "65536"},
    {"limits.calls_per_session", SETTING_COUNT, SETTING_LIVE, MEMBER(limits.calls_per_session), 1, 1048576,
     .initial = "4096"},
    {"limits.call_bytes", SETTING_BYTES, SETTING_LIVE, MEMBER(limits.call_bytes), 4 * KIB, 1024 * GIB,
     .initial = "512M"},
    {"limits.call_bytes_per_session", SETTING_BYTES, SETTING_LIVE, MEMBER(limits.call_bytes_per_session), 4 * KIB,
     1024 * GIB, .initial = "64M"},
    {"limits.out_buffer_bytes", SETTING_BYTES, SETTING_LIVE, MEMBER(limits.out_buffer_bytes), 4 * KIB, 1024 * GIB,
     .initial = "32M"},
    {"limits.out_bytes", SETTING_BYTES, SETTING_LIVE, MEMBER(limits.out_bytes), 4 * KIB, 1024 * GIB, .initial = "512M"},
    {"limits.message_timeout", SETTING_MILLISECONDS, SETTING_LIVE, MEMBER(limits.message_timeout_ms), 100, 86400000,
     .initial = "30"},
    {"limits.user_percent", SETTING_COUNT, SETTING_LIVE, MEMBER(limits.user_percent), 1, 100, .initial = "75"},
    {"limits.stall_timeout", SETTING_MILLISECONDS, SETTING_LIVE, MEMBER(limits.stall_timeout_ms), 100, 86400000,
     .initial = "30"},

    {"log.slow_turn", SETTING_MILLISECONDS, SETTING_LIVE, MEMBER(log.slow_turn_ms), 0, 60000, .initial = "0"},
    {"log.level", SETTING_CHOICE, SETTING_LIVE, MEMBER(log.level), 0, 3, .initial = "info", .words = log_levels},
};
const size_t conf_setting_count = sizeof(conf_settings) / sizeof(conf_settings[0]);

const struct setting conf_rule_settings[] = {
    {"users", SETTING_STRINGS, 0, RULE_MEMBER(users), 1, NAME_BYTES_MAX, .expects = "users' names or numbers",
     .example = "[app, 1000]"},
    {"groups", SETTING_STRINGS, 0, RULE_MEMBER(groups), 1, NAME_BYTES_MAX, .expects = "groups' names or numbers",
     .example = "[www-data]"},
    {"buckets", SETTING_STRINGS, 0, RULE_MEMBER(buckets), 1, NAME_BYTES_MAX,
     .expects = "shell patterns of buckets' names", .example = "[settings, \"app-*\"]"},
    {"allow", SETTING_CHOICE, 0, RULE_MEMBER(allow), 0, 3, .words = access_words, .initial = "none"},
};
/* clang-format on */
const size_t conf_rule_setting_count = sizeof(conf_rule_settings) / sizeof(conf_rule_settings[0]);

static void *member_of(const struct setting *setting, void *base)
{
    return (char *)base + setting->offset;
}

static const void *const_member_of(const struct setting *setting, const void *base)
{
    return (const char *)base + setting->offset;
}

const struct setting *setting_find(const char *name)
{
    for (size_t i = 0; i < conf_setting_count; i++) {
        if (strcmp(conf_settings[i].name, name) == 0)
            return &conf_settings[i];
    }
    return NULL;
}

uint64_t setting_number(const struct setting *setting, const void *base)
{
    if (setting->size_bytes == sizeof(uint32_t)) {
        uint32_t narrow;

        memcpy(&narrow, const_member_of(setting, base), sizeof(narrow));
        return narrow;
    }
    uint64_t wide;

    memcpy(&wide, const_member_of(setting, base), sizeof(wide));
    return wide;
}

/* Numbers, enums and mode_t alike: all of them are unsigned and have 4 or 8 bytes. */
static void store_number(const struct setting *setting, void *base, uint64_t number)
{
    uint32_t narrow = (uint32_t)number;

    if (setting->size_bytes == sizeof(narrow))
        memcpy(member_of(setting, base), &narrow, sizeof(narrow));
    else
        memcpy(member_of(setting, base), &number, sizeof(number));
}

/* What the table allows and the member can hold: a size_t has 4 bytes on some machines. */
static uint64_t max_of(const struct setting *setting)
{
    if (setting->size_bytes == sizeof(uint32_t) && setting->max > UINT32_MAX)
        return UINT32_MAX;
    return setting->max;
}

/* Reads digits of the base up to the first other character. False where there are none or they don't fit. */
static bool read_digits(const char **text, unsigned base, uint64_t *number)
{
    const char *first = *text;

    *number = 0;
    for (; **text >= '0' && **text < (char)('0' + base); (*text)++) {
        uint64_t digit = (uint64_t)(**text - '0');

        if (*number > (UINT64_MAX - digit) / base)
            return false;
        *number = *number * base + digit;
    }
    return *text != first;
}

static bool parse_count(const char *text, uint64_t *number)
{
    return read_digits(&text, 10, number) && *text == '\0';
}

static bool parse_octal(const char *text, uint64_t *number)
{
    return text[0] == '0' && read_digits(&text, 8, number) && *text == '\0';
}

static bool parse_bytes(const char *text, uint64_t *number)
{
    uint64_t unit = 1;

    if (!read_digits(&text, 10, number))
        return false;
    switch (*text) {
    case 'K':
    case 'k':
        unit = KIB;
        break;
    case 'M':
    case 'm':
        unit = MIB;
        break;
    case 'G':
    case 'g':
        unit = GIB;
        break;
    default:
        break;
    }
    if (unit > 1)
        text++;
    if (*text != '\0' || *number > UINT64_MAX / unit)
        return false;
    *number *= unit;
    return true;
}

/* Decimal seconds into milliseconds, exactly: 0.0005 is refused and not rounded to something else. */
static bool parse_milliseconds(const char *text, uint64_t *number)
{
    if (!read_digits(&text, 10, number) || *number > UINT64_MAX / 1000)
        return false;
    *number *= 1000;
    if (*text == '.') {
        text++;
        if (!is_decimal(*text))
            return false;
        for (uint64_t scale = 100; is_decimal(*text); text++, scale /= 10) {
            if (scale == 0 && *text != '0')
                return false;
            *number += scale * (uint64_t)(*text - '0');
        }
    }
    return *text == '\0';
}

static bool parse_choice(const struct setting *setting, const char *text, uint64_t *number)
{
    for (*number = 0; setting->words[*number] != NULL; ++*number) {
        if (strcmp(setting->words[*number], text) == 0)
            return true;
    }
    return false;
}

static bool parse_number(const struct setting *setting, const char *text, uint64_t *number)
{
    if (setting->zero_word != NULL && strcmp(text, setting->zero_word) == 0) {
        *number = 0;
        return true;
    }

    bool parsed = false;
    switch (setting->type) {
    case SETTING_OCTAL:
        parsed = parse_octal(text, number);
        break;
    case SETTING_COUNT:
    case SETTING_SECONDS:
        parsed = parse_count(text, number);
        break;
    case SETTING_BYTES:
        parsed = parse_bytes(text, number);
        break;
    case SETTING_MILLISECONDS:
        parsed = parse_milliseconds(text, number);
        break;
    case SETTING_CHOICE:
        parsed = parse_choice(setting, text, number);
        break;
    case SETTING_STRING:
    case SETTING_STRINGS:
        break;
    }
    return parsed && *number >= setting->min && *number <= max_of(setting);
}

static enum setting_result take_string(const struct setting *setting, void *base, const char *text)
{
    char **member = member_of(setting, base);
    char *copy = strdup(text);

    if (copy == NULL)
        return SETTING_NO_MEMORY;
    free(*member);
    *member = copy;
    return SETTING_TAKEN;
}

static enum setting_result take_item(const struct setting *setting, void *base, const char *text)
{
    struct conf_strings *member = member_of(setting, base);

    if (member->count >= SETTING_ITEMS_MAX)
        return SETTING_WRONG;
    char **items = realloc(member->items, (member->count + 1) * sizeof(*items));
    if (items == NULL)
        return SETTING_NO_MEMORY;
    member->items = items;
    if ((items[member->count] = strdup(text)) == NULL)
        return SETTING_NO_MEMORY;
    member->count++;
    return SETTING_TAKEN;
}

enum setting_result setting_take(const struct setting *setting, void *base, const char *text, size_t length)
{
    uint64_t number;

    /* "\0" within quotes is a NUL, which would cut the value short. */
    if (strlen(text) != length)
        return SETTING_WRONG;
    if (setting->type != SETTING_STRING && setting->type != SETTING_STRINGS) {
        if (!parse_number(setting, text, &number))
            return SETTING_WRONG;
        store_number(setting, base, number);
        return SETTING_TAKEN;
    }

    if (length < setting->min || length > setting->max)
        return SETTING_WRONG;
    if (setting->is_valid != NULL && !setting->is_valid(text))
        return SETTING_WRONG;
    return setting->type == SETTING_STRING ? take_string(setting, base, text) : take_item(setting, base, text);
}

void setting_clear(const struct setting *setting, void *base)
{
    if (setting->type == SETTING_STRING) {
        free(*(char **)member_of(setting, base));
    } else if (setting->type == SETTING_STRINGS) {
        struct conf_strings *strings = member_of(setting, base);

        for (size_t i = 0; i < strings->count; i++)
            free(strings->items[i]);
        free(strings->items);
    }
    memset(member_of(setting, base), 0, setting->size_bytes);
}

bool setting_is_present(const struct setting *setting, const void *base)
{
    if (setting->type == SETTING_STRING)
        return *(char *const *)const_member_of(setting, base) != NULL;
    if (setting->type == SETTING_STRINGS)
        return ((const struct conf_strings *)const_member_of(setting, base))->count > 0;
    return false;
}

static bool strings_are_equal(const struct conf_strings *a, const struct conf_strings *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        if (strcmp(a->items[i], b->items[i]) != 0)
            return false;
    }
    return true;
}

bool setting_is_equal(const struct setting *setting, const void *a, const void *b)
{
    if (setting->type == SETTING_STRINGS)
        return strings_are_equal(const_member_of(setting, a), const_member_of(setting, b));
    if (setting->type != SETTING_STRING)
        return setting_number(setting, a) == setting_number(setting, b);

    const char *text_a = *(char *const *)const_member_of(setting, a);
    const char *text_b = *(char *const *)const_member_of(setting, b);
    if (text_a == NULL || text_b == NULL)
        return text_a == text_b;
    return strcmp(text_a, text_b) == 0;
}

void setting_exchange(const struct setting *setting, void *a, void *b)
{
    char kept[sizeof(struct conf_strings)]; /* the largest member there is */

    memcpy(kept, member_of(setting, a), setting->size_bytes);
    memcpy(member_of(setting, a), member_of(setting, b), setting->size_bytes);
    memcpy(member_of(setting, b), kept, setting->size_bytes);
}

void setting_format_number(const struct setting *setting, uint64_t number, char *text, size_t size)
{
    if (setting->zero_word != NULL && number == 0) {
        snprintf(text, size, "%s", setting->zero_word);
    } else if (setting->type == SETTING_CHOICE) {
        snprintf(text, size, "%s", setting->words[number]);
    } else if (setting->type == SETTING_OCTAL) {
        snprintf(text, size, "\"%04" PRIo64 "\"", number);
    } else if (setting->type == SETTING_MILLISECONDS && number % 1000 != 0) {
        int length = snprintf(text, size, "%" PRIu64 ".%03" PRIu64, number / 1000, number % 1000);

        while (length > 0 && (size_t)length < size && text[length - 1] == '0')
            text[--length] = '\0';
    } else if (setting->type == SETTING_MILLISECONDS) {
        snprintf(text, size, "%" PRIu64, number / 1000);
    } else if (setting->type == SETTING_BYTES && number != 0 && number % KIB == 0) {
        uint64_t unit = number % GIB == 0 ? GIB : number % MIB == 0 ? MIB : KIB;

        snprintf(text, size, "%" PRIu64 "%c", number / unit, unit == GIB ? 'G' : unit == MIB ? 'M' : 'K');
    } else {
        snprintf(text, size, "%" PRIu64, number);
    }
}

/* "a, b or c" */
static void describe_words(const struct setting *setting, char *text, size_t size)
{
    size_t used = 0;

    for (size_t i = 0; setting->words[i] != NULL && used < size; i++) {
        const char *joint = i == 0 ? "" : setting->words[i + 1] == NULL ? " or " : ", ";

        used += (size_t)snprintf(text + used, size - used, "%s%s", joint, setting->words[i]);
    }
}

void setting_describe(const struct setting *setting, char *text, size_t size)
{
    const char *example = setting->example != NULL ? setting->example : setting->initial;
    char min[32], max[32];
    uint64_t number = 0;

    setting_format_number(setting, setting->min, min, sizeof(min));
    setting_format_number(setting, max_of(setting), max, sizeof(max));
    switch (setting->type) {
    case SETTING_STRING:
        snprintf(text, size, "%s, such as %s", setting->expects, example);
        break;
    case SETTING_STRINGS:
        snprintf(text, size, "a list of %s, such as %s", setting->expects, example);
        break;
    case SETTING_OCTAL:
        snprintf(text, size, "an octal number in quotes from %s to %s, such as \"%s\"", min, max, example);
        break;
    case SETTING_COUNT:
        snprintf(text, size, "a whole number from %s to %s, such as %s", min, max, example);
        break;
    case SETTING_SECONDS:
        snprintf(text, size, "whole seconds from %s to %s, such as %s", min, max, example);
        break;
    case SETTING_MILLISECONDS:
        if (setting->zero_word != NULL)
            snprintf(text, size, "%s, or seconds from %s to %s", setting->zero_word, min, max);
        else
            snprintf(text, size, "seconds from %s to %s, such as %s", min, max, example);
        break;
    case SETTING_BYTES:
        parse_bytes(example, &number);
        snprintf(text, size, "bytes from %" PRIu64 " to %" PRIu64 ", such as %" PRIu64 " or %s", setting->min,
                 max_of(setting), number, example);
        break;
    case SETTING_CHOICE:
        describe_words(setting, text, size);
        break;
    }
}
