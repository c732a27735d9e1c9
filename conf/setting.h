/*
 * setting: one row of the table of settings, and what can be done with a row
 * alone: take its value from a scalar of the file, say what is expected, compare,
 * exchange, free. Knows no YAML.
 *
 * Used by conf.c, and by the test that holds the sample file against the table.
 * A new setting is a member in conf.h, a row in setting.c and a paragraph in
 * kvstored.yaml.
 */
#ifndef CONF_SETTING_H
#define CONF_SETTING_H

#include "conf/conf.h"

enum setting_type {
    SETTING_STRING,
    SETTING_STRINGS,      /* a list */
    SETTING_OCTAL,        /* with a leading zero, so that nobody's tool hands us the decimal form unnoticed */
    SETTING_COUNT,        /* a whole number */
    SETTING_BYTES,        /* whole, or with one of the suffixes K, M, G (powers of 1024) */
    SETTING_MILLISECONDS, /* seconds in the file, with up to three decimals */
    SETTING_SECONDS,      /* whole ones */
    SETTING_CHOICE        /* one of words */
};

enum setting_flags {
    SETTING_LIVE = 1,     /* a reload applies it */
    SETTING_EMBEDDED = 2, /* means something with nats.mode embedded only */
    SETTING_EXTERNAL = 4, /* with nats.mode external only */
    SETTING_SECRET = 8    /* its value is never shown */
};

struct setting {
    const char *name; /* dotted path, as in "nats.tls.ca" */
    enum setting_type type;
    unsigned flags;
    size_t offset; /* of the member, from the beginning of struct conf or struct conf_access_rule */
    size_t size_bytes;
    uint64_t min; /* in the member's unit; a string's and a list item's length in bytes */
    uint64_t max;
    const char *initial;      /* the default as the file would have it; NULL: not set */
    const char *example;      /* for messages, where the default is no help */
    const char *expects;      /* a string, or one item of a list: "a path", for messages */
    const char *const *words; /* of a choice, in the order of its enum; NULL ends them */
    const char *zero_word;    /* of a duration: what stands for 0, which is otherwise below min */
    bool (*is_valid)(const char *text);
};

/* The settings of struct conf, and those of one entry of the access list. */
extern const struct setting conf_settings[];
extern const size_t conf_setting_count;
extern const struct setting conf_rule_settings[];
extern const size_t conf_rule_setting_count;

/* Items of one list of the file at most. */
#define SETTING_ITEMS_MAX 1024u

/* Rules of the access list at most: the daemon keeps in 64 bits which of them name a session's peer. */
#define SETTING_RULES_MAX 64u

enum setting_result { SETTING_TAKEN, SETTING_WRONG, SETTING_NO_MEMORY };

/* The row of this dotted name, or NULL. */
const struct setting *setting_find(const char *name);

/*
 * Takes text of length bytes for the member of *base; for a list, as one more
 * item. On failure the member is as before.
 */
enum setting_result setting_take(const struct setting *setting, void *base, const char *text, size_t length);

/* Frees what the member of *base owns and zeroes it. */
void setting_clear(const struct setting *setting, void *base);

/* The value of a member that is a number, in its own unit. */
uint64_t setting_number(const struct setting *setting, const void *base);

/* Has a string or list been given? False for numbers. */
bool setting_is_present(const struct setting *setting, const void *base);

bool setting_is_equal(const struct setting *setting, const void *a, const void *b);
void setting_exchange(const struct setting *setting, void *a, void *b);

/* Writes what a value must be, such as "seconds from 0.1 to 60, such as 2". */
void setting_describe(const struct setting *setting, char *text, size_t size);

/* Writes a number as the file would have it: "16M", "0.05". */
void setting_format_number(const struct setting *setting, uint64_t number, char *text, size_t size);

#endif
