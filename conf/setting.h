/*
 * setting: one row of the table of settings, and the operations on a single row:
 * parse its value from a scalar of the file, describe what is expected, compare,
 * exchange, free. Knows no YAML.
 *
 * Used by conf.c, and by the test that compares the sample file with the table.
 * The table, the sample and the manual page are generated from conf/settings.md.
 * A new setting is an entry there and a member in conf.h.
 */
#ifndef CONF_SETTING_H
#define CONF_SETTING_H

#include "conf/conf.h"

enum setting_type {
    SETTING_STRING,
    SETTING_STRINGS,      /* a list */
    SETTING_OCTAL,        /* with a leading zero, to tell it from a decimal number */
    SETTING_COUNT,        /* a whole number */
    SETTING_BYTES,        /* whole, or with one of the suffixes K, M, G (powers of 1024) */
    SETTING_MILLISECONDS, /* seconds in the file, with up to three decimals */
    SETTING_SECONDS,      /* whole ones */
    SETTING_CHOICE        /* one of words */
};

enum setting_flags {
    SETTING_LIVE = 1,     /* a reload applies it */
    SETTING_EMBEDDED = 2, /* allowed only with nats.mode embedded */
    SETTING_EXTERNAL = 4, /* allowed only with nats.mode external */
    SETTING_SECRET = 8    /* its value is never shown */
};

struct setting {
    const char *name; /* dotted path, as in "nats.tls.ca" */
    enum setting_type type;
    unsigned flags;
    size_t offset; /* of the member in struct conf or struct conf_access_rule */
    size_t size_bytes;
    uint64_t min; /* in the member's unit; of a string or list item, the length in bytes */
    uint64_t max;
    const char *initial;      /* the default, as in the file; NULL: not set */
    const char *example;      /* for messages, instead of the default */
    const char *expects;      /* a string, or one item of a list: "a path", for messages */
    const char *const *words; /* of a choice, in the order of its enum; NULL at the end */
    const char *zero_word;    /* of a duration: the word for 0, which is below min */
    bool (*is_valid)(const char *text);
    const char *const *at_most; /* settings whose values this one must not exceed, NULL at the end; NULL: none */
    const char *needs;          /* the setting that must be given with this one; NULL: none */
};

/* The settings of struct conf, and those of one entry of the access list. */
extern const struct setting conf_settings[];
extern const size_t conf_setting_count;
extern const struct setting conf_rule_settings[];
extern const size_t conf_rule_setting_count;

/* Maximum number of items of a list. */
#define SETTING_ITEMS_MAX 1024u

/* Maximum number of access rules: a session has a bit of 64 for each rule that matches its peer. */
#define SETTING_RULES_MAX 64u

enum setting_result { SETTING_TAKEN, SETTING_WRONG, SETTING_NO_MEMORY };

/* Return the row with this dotted name, or NULL. */
const struct setting *setting_find(const char *name);

/*
 * Parse text of length bytes into the member of *base; for a list, append an item.
 * On failure the member is unchanged.
 */
enum setting_result setting_take(const struct setting *setting, void *base, const char *text, size_t length);

/* Free what the member of *base owns and zero it. */
void setting_clear(const struct setting *setting, void *base);

/* Return the value of a numeric member, in its own unit. */
uint64_t setting_number(const struct setting *setting, const void *base);

/* Is the string or list set? False for numbers. */
bool setting_is_present(const struct setting *setting, const void *base);

bool setting_is_equal(const struct setting *setting, const void *a, const void *b);
void setting_exchange(const struct setting *setting, void *a, void *b);

/* Write what a value must be, such as "seconds from 0.1 to 60, such as 2". */
void setting_describe(const struct setting *setting, char *text, size_t size);

/* Write a number as it appears in the file: "16M", "0.05". */
void setting_format_number(const struct setting *setting, uint64_t number, char *text, size_t size);

#endif
