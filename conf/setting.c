#include "conf/setting.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIB ((uint64_t)1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

/* The longest name of a Unix socket: sun_path has 108 bytes, including the NUL. */
#define SOCKET_PATH_BYTES_MAX 107
#define PATH_BYTES_MAX        4095
#define NAME_BYTES_MAX        255

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

static bool is_port(const char *text)
{
    unsigned long port = 0;

    if (!is_decimal(*text) || strlen(text) > 5)
        return false;
    for (; is_decimal(*text); text++)
        port = 10 * port + (unsigned long)(*text - '0');
    return *text == '\0' && port >= 1 && port <= 65535;
}

/* nats:// or tls://, a host name or an address (IPv6 in brackets), and an optional port. */
static bool is_server_url(const char *text)
{
    const char *host;

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
    return *text == '\0' || (*text == ':' && is_port(text + 1));
}

/* The domain becomes one token of the subjects of the JetStream API. */
static bool is_domain(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text <= ' ' || *text == 0x7f || strchr(".*>", *text) != NULL)
            return false;
    }
    return true;
}

/* The name becomes a token of the subjects of consumers. */
static bool is_consumer_name(const char *text)
{
    for (; *text != '\0'; text++) {
        if (!is_host_char(*text) || *text == '.')
            return false;
    }
    return true;
}

/* unix:/PATH, or an IP address (IPv6 in brackets) and a port. Names are not looked up: that could take long. */
static bool is_metrics_address(const char *text)
{
    const char *colon = strrchr(text, ':');
    char host[INET6_ADDRSTRLEN];
    struct in6_addr address;

    if (strncmp(text, "unix:", 5) == 0)
        return text[5] != '\0' && strlen(text + 5) <= SOCKET_PATH_BYTES_MAX;
    if (colon == NULL || !is_port(colon + 1))
        return false;
    bool has_brackets = *text == '[' && colon > text + 1 && colon[-1] == ']';
    const char *begin = has_brackets ? text + 1 : text;
    size_t length = (size_t)(colon - begin) - (has_brackets ? 1 : 0);
    if (length >= sizeof(host))
        return false;
    memcpy(host, begin, length);
    host[length] = '\0';
    return inet_pton(has_brackets ? AF_INET6 : AF_INET, host, &address) == 1;
}

/* The same rule as kv_check_bucket. A pattern is not a name. */
static bool is_bucket_name(const char *text)
{
    return is_consumer_name(text);
}

#define MEMBER(member)      offsetof(struct conf, member), sizeof(((struct conf *)0)->member)
#define RULE_MEMBER(member) offsetof(struct conf_access_rule, member), sizeof(((struct conf_access_rule *)0)->member)
#define WORDS(...)          ((const char *const[]){__VA_ARGS__, NULL})

/* conf_settings and conf_rule_settings */
#include "conf/settings.inc"

const size_t conf_setting_count = sizeof(conf_settings) / sizeof(conf_settings[0]);

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

/* Read digits up to the first other character. Return false if there are none, or if they overflow. */
static bool setting_read_digits(const char **text, unsigned base, uint64_t *number)
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
    return setting_read_digits(&text, 10, number) && *text == '\0';
}

static bool parse_octal(const char *text, uint64_t *number)
{
    return text[0] == '0' && setting_read_digits(&text, 8, number) && *text == '\0';
}

/* Read a number of bytes: 16777216, 16M, 16MiB. Units are powers of 1024. */
static bool parse_bytes(const char *text, uint64_t *number)
{
    static const char units[] = "KMGT";
    uint64_t unit = 1;

    if (!setting_read_digits(&text, 10, number))
        return false;
    const char *letter = isalpha((unsigned char)*text) ? strchr(units, toupper((unsigned char)*text)) : NULL;
    if (letter != NULL) {
        unit <<= 10 * (letter - units + 1);
        text++;
        if (strcmp(text, "iB") == 0)
            text += 2;
    }
    if (*text != '\0' || *number > UINT64_MAX / unit)
        return false;
    *number *= unit;
    return true;
}

/* Read the unit of a time, in milliseconds; 0: there is none. */
static uint64_t setting_read_time_unit(const char **text)
{
    static const struct {
        const char *name;
        uint64_t milliseconds;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 60 * 60 * 1000}, {"d", 24 * 60 * 60 * 1000}};

    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        size_t length = strlen(units[i].name);
        if (strncmp(*text, units[i].name, length) == 0 && !isalpha((unsigned char)(*text)[length])) {
            *text += length;
            return units[i].milliseconds;
        }
    }
    return 0;
}

/* Read a decimal number of units exactly: 0.0005 s is refused, not rounded. */
static bool setting_read_time(const char **text, uint64_t *milliseconds)
{
    uint64_t whole, thousandths = 0;

    if (!setting_read_digits(text, 10, &whole))
        return false;
    if (**text == '.') {
        if (!is_decimal(*++*text))
            return false;
        for (uint64_t scale = 100; is_decimal(**text); ++*text, scale /= 10) {
            if (scale == 0 && **text != '0')
                return false;
            thousandths += scale * (uint64_t)(**text - '0');
        }
    }
    uint64_t unit = setting_read_time_unit(text);
    if (unit == 0) {
        if (**text != '\0')
            return false;
        unit = 1000;
    }
    if (whole > UINT64_MAX / 2 / unit || thousandths * unit % 1000 != 0)
        return false;
    *milliseconds = whole * unit + thousandths * unit / 1000;
    return true;
}

/* Read a time: seconds (5, 0.05), or numbers with a unit each (50ms, 5s, 1h30m). */
static bool parse_milliseconds(const char *text, uint64_t *number)
{
    bool is_first = true;

    *number = 0;
    do {
        uint64_t milliseconds;
        if (!setting_read_time(&text, &milliseconds) || milliseconds > UINT64_MAX / 2 - *number)
            return false;
        /* Only a number alone may be without its unit. */
        if (!is_first && is_decimal(text[-1]))
            return false;
        *number += milliseconds;
        is_first = false;
    } while (*text != '\0');
    return true;
}

static bool parse_seconds(const char *text, uint64_t *number)
{
    if (!parse_milliseconds(text, number) || *number % 1000 != 0)
        return false;
    *number /= 1000;
    return true;
}

static bool parse_choice(const struct setting *setting, const char *text, uint64_t *number)
{
    for (*number = 0; setting->words[*number] != NULL; ++*number) {
        if (strcmp(setting->words[*number], text) == 0)
            return true;
    }
    return false;
}

static bool setting_parse_number(const struct setting *setting, const char *text, uint64_t *number)
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
        parsed = parse_count(text, number);
        break;
    case SETTING_SECONDS:
        parsed = parse_seconds(text, number);
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

    /* "\0" in quotes is a NUL, which would truncate the value. */
    if (strlen(text) != length)
        return SETTING_WRONG;
    if (setting->type != SETTING_STRING && setting->type != SETTING_STRINGS) {
        if (!setting_parse_number(setting, text, &number))
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
    char kept[sizeof(struct conf_strings)]; /* the largest type of a member */

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
            snprintf(text, size, "%s, or seconds from %s to %s in steps of 0.001", setting->zero_word, min, max);
        else
            snprintf(text, size, "seconds from %s to %s in steps of 0.001, such as %s", min, max, example);
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
