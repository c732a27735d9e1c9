#include "conf/reader.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define NAME_BYTES        128 /* a dotted name within a message */
#define SHOWN_VALUE_BYTES 64
#define DESCRIPTION_BYTES 256
#define NESTING_MAX       16u
#define SHOWN_PATH_BYTES  128 /* of a longer path, its end is shown */

/* One walk through one document. */
struct walk {
    struct reader *reader;
    struct conf *conf;
    yaml_document_t *document;
};

int reader_init(struct reader *reader, const char *name, char error[CONF_ERROR_BYTES])
{
    memset(reader, 0, sizeof(*reader));
    reader->name = name;
    reader->error = error;
    reader->places = calloc(conf_setting_count, sizeof(*reader->places));
    if (reader->places == NULL)
        return reader_fail(reader, (struct reader_place){0, 0}, "out of memory");
    return 0;
}

void reader_free(struct reader *reader)
{
    free(reader->places);
    reader->places = NULL;
}

struct reader_place reader_place_of(const struct reader *reader, const struct setting *setting)
{
    return reader->places[setting - conf_settings];
}

int reader_fail(const struct reader *reader, struct reader_place place, const char *format, ...)
{
    size_t name_length = strlen(reader->name);
    bool is_long = name_length > SHOWN_PATH_BYTES;
    const char *name = is_long ? reader->name + name_length - SHOWN_PATH_BYTES : reader->name;
    int used;
    va_list args;

    if (place.line > 0)
        used = snprintf(reader->error, CONF_ERROR_BYTES, "%s%s:%zu:%zu: ", is_long ? "..." : "", name, place.line,
                        place.column);
    else
        used = snprintf(reader->error, CONF_ERROR_BYTES, "%s%s: ", is_long ? "..." : "", name);
    va_start(args, format);
    vsnprintf(reader->error + used, CONF_ERROR_BYTES - (size_t)used, format, args);
    va_end(args);
    return -1;
}

static struct reader_place place_of_mark(yaml_mark_t mark)
{
    return (struct reader_place){mark.line + 1, mark.column + 1};
}

static struct reader_place place_of_node(const yaml_node_t *node)
{
    return place_of_mark(node->start_mark);
}

static const char *scalar_text(const yaml_node_t *node)
{
    return (const char *)node->data.scalar.value;
}

/* Is the value empty, or one of YAML's words for null? */
static bool is_null(const yaml_node_t *node)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};

    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(scalar_text(node), words[i]) == 0)
            return true;
    }
    return false;
}

/* Write untrusted text for a message: one line, not too long, whole characters. */
static void show_text(const char *text, char *shown, size_t size)
{
    size_t length = strlen(text);
    size_t kept = length < size ? length : size - sizeof("...");

    while (kept < length && kept > 0 && ((unsigned char)text[kept] & 0xC0) == 0x80)
        kept--;
    for (size_t i = 0; i < kept; i++)
        shown[i] = (unsigned char)text[i] < ' ' || text[i] == 0x7f ? '?' : text[i];
    snprintf(shown + kept, size - kept, "%s", kept < length ? "..." : "");
}

/* Write what the value is, for a message: is "lots", is empty, is a list. */
static void show_value(const struct setting *setting, const yaml_node_t *node, char *shown, size_t size)
{
    char text[SHOWN_VALUE_BYTES];

    if (node->type == YAML_SEQUENCE_NODE) {
        snprintf(shown, size, "is %s list",
                 node->data.sequence.items.start == node->data.sequence.items.top ? "an empty" : "a");
    } else if (node->type == YAML_MAPPING_NODE) {
        snprintf(shown, size, "is a map");
    } else if (is_null(node) || node->data.scalar.length == 0) {
        snprintf(shown, size, "is empty");
    } else if (strlen(scalar_text(node)) != node->data.scalar.length) {
        snprintf(shown, size, "contains a NUL character");
    } else if (setting->flags & SETTING_SECRET || strchr(scalar_text(node), '@') != NULL) {
        /* An '@' in a server's URL has a password before it. */
        snprintf(shown, size, "is not valid");
    } else {
        show_text(scalar_text(node), text, sizeof(text));
        snprintf(shown, size, "is \"%s\"", text);
    }
}

static int fail_value(struct walk *walk, const struct setting *setting, const char *name, const yaml_node_t *node)
{
    char shown[SHOWN_VALUE_BYTES + 32], expected[DESCRIPTION_BYTES];

    show_value(setting, node, shown, sizeof(shown));
    setting_describe(setting, expected, sizeof(expected));
    return reader_fail(walk->reader, place_of_node(node), "%s %s: expected %s", name, shown, expected);
}

static int take_scalar(struct walk *walk, const struct setting *setting, void *base, const char *name,
                       const yaml_node_t *node)
{
    if (node->type != YAML_SCALAR_NODE || is_null(node))
        return fail_value(walk, setting, name, node);
    switch (setting_take(setting, base, scalar_text(node), node->data.scalar.length)) {
    case SETTING_TAKEN:
        return 0;
    case SETTING_WRONG:
        return fail_value(walk, setting, name, node);
    case SETTING_NO_MEMORY:
        break;
    }
    return reader_fail(walk->reader, place_of_node(node), "out of memory");
}

static int take_list(struct walk *walk, const struct setting *setting, void *base, const char *name,
                     const yaml_node_t *node)
{
    /* An empty list of users would mean everybody, which is rarely intended. Without the setting it is clear. */
    if (node->type != YAML_SEQUENCE_NODE || node->data.sequence.items.start == node->data.sequence.items.top)
        return fail_value(walk, setting, name, node);
    if (node->data.sequence.items.top - node->data.sequence.items.start > (ptrdiff_t)SETTING_ITEMS_MAX)
        return reader_fail(walk->reader, place_of_node(node), "%s is too long: expected at most %u items", name,
                           SETTING_ITEMS_MAX);

    setting_clear(setting, base);
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        if (take_scalar(walk, setting, base, name, yaml_document_get_node(walk->document, *item)) != 0)
            return -1;
    }
    return 0;
}

static int take_value(struct walk *walk, const struct setting *setting, void *base, const char *name,
                      const yaml_node_t *node)
{
    return setting->type == SETTING_STRINGS ? take_list(walk, setting, base, name, node)
                                            : take_scalar(walk, setting, base, name, node);
}

/* Return the number of characters that must be inserted, removed or replaced to turn one word into the other. */
static size_t word_distance(const char *from, const char *to)
{
    size_t row[NAME_BYTES + 1];
    size_t to_length = strlen(to);

    if (to_length > NAME_BYTES)
        return SIZE_MAX;
    for (size_t i = 0; i <= to_length; i++)
        row[i] = i;
    for (size_t i = 1; from[i - 1] != '\0'; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t k = 1; k <= to_length; k++) {
            size_t changed = diagonal + (from[i - 1] != to[k - 1]);
            size_t added = (row[k] < row[k - 1] ? row[k] : row[k - 1]) + 1;

            diagonal = row[k];
            row[k] = changed < added ? changed : added;
        }
    }
    return row[to_length];
}

/* The nearest known name so far, and how far it is from the one that was typed. */
struct guess {
    char name[NAME_BYTES];
    size_t cost;
};

/* Is word the first or the last part of name, as "server" and "binary" are of "server_binary"? */
static bool is_part_of(const char *word, const char *name)
{
    size_t word_length = strlen(word), name_length = strlen(name);

    if (word_length == 0 || word_length >= name_length)
        return false;
    return (strncmp(name, word, word_length) == 0 && name[word_length] == '_') ||
           (name[name_length - word_length - 1] == '_' && strcmp(name + name_length - word_length, word) == 0);
}

/*
 * Return how far name is from key: 0 if it is a longer name of the same section, then twice the number of changed
 * characters. The right name in a wrong section is nearer than a wrong name in the right one. SIZE_MAX: not at all.
 */
static size_t guess_cost(const char *key, const char *name, bool is_same_section)
{
    const char *last_word = strrchr(key, '_');
    size_t distance = word_distance(key, name);

    size_t cost = SIZE_MAX;

    if (is_same_section && is_part_of(key, name))
        return 0;
    if (distance <= 1 + strlen(key) / 4 && distance < strlen(name))
        cost = 2 * distance + (is_same_section ? 0 : 1);
    /* The same last word, as in reconcile_interval and reconcile_interval, weighs as much as three changes. */
    if (is_same_section && last_word != NULL && is_part_of(last_word + 1, name) && cost > 6)
        cost = 6;
    return cost;
}

static void consider_name(struct guess *guess, const char *prefix, const char *key, const char *name,
                          size_t name_length)
{
    char candidate[NAME_BYTES];
    size_t prefix_length = strlen(prefix);

    snprintf(candidate, sizeof(candidate), "%.*s", (int)name_length, name);
    const char *dot = strrchr(candidate, '.');
    const char *last = dot == NULL ? candidate : dot + 1;
    bool is_same_section =
        (size_t)(last - candidate) == prefix_length && strncmp(candidate, prefix, prefix_length) == 0;
    size_t cost = guess_cost(key, last, is_same_section);
    if (cost < guess->cost) {
        guess->cost = cost;
        memcpy(guess->name, candidate, sizeof(candidate));
    }
}

/* Does the table have settings with this prefix ("nats.tls.")? An empty prefix stands for the whole file. */
static bool is_section(const char *prefix)
{
    for (size_t i = 0; i < conf_setting_count; i++) {
        if (strncmp(conf_settings[i].name, prefix, strlen(prefix)) == 0)
            return true;
    }
    return false;
}

/* Write the names that may follow prefix: "listen, nats, buckets". */
static void list_keys(const char *prefix, char *text, size_t size)
{
    size_t used = 0, prefix_length = strlen(prefix);
    const char *previous = "";
    size_t previous_length = 0;

    for (size_t i = 0; i < conf_setting_count && used < size; i++) {
        const char *name = conf_settings[i].name;
        if (strncmp(name, prefix, prefix_length) != 0)
            continue;
        name += prefix_length;
        size_t length = strcspn(name, ".");
        if (length == previous_length && strncmp(name, previous, length) == 0)
            continue;
        used += (size_t)snprintf(text + used, size - used, "%s%.*s", used > 0 ? ", " : "", (int)length, name);
        previous = name;
        previous_length = length;
    }
    if (prefix_length == 0 && used < size)
        snprintf(text + used, size - used, ", access");
}

static int fail_unknown(struct walk *walk, const char *prefix, const yaml_node_t *key)
{
    struct guess guess = {.cost = SIZE_MAX};
    char shown[SHOWN_VALUE_BYTES], expected[DESCRIPTION_BYTES];

    show_text(scalar_text(key), shown, sizeof(shown));
    if (strchr(shown, '.') != NULL)
        return reader_fail(walk->reader, place_of_node(key),
                           "unknown setting \"%s%s\": expected a section's name, and its settings indented below it",
                           prefix, shown);
    for (size_t i = 0; i < conf_setting_count; i++) {
        const char *name = conf_settings[i].name;

        consider_name(&guess, prefix, shown, name, strlen(name));
        for (const char *dot = strchr(name, '.'); dot != NULL; dot = strchr(dot + 1, '.'))
            consider_name(&guess, prefix, shown, name, (size_t)(dot - name));
    }
    consider_name(&guess, prefix, shown, "access", strlen("access"));
    if (guess.cost != SIZE_MAX)
        return reader_fail(walk->reader, place_of_node(key), "unknown setting %s%s: did you mean %s?", prefix, shown,
                           guess.name);
    list_keys(prefix, expected, sizeof(expected));
    return reader_fail(walk->reader, place_of_node(key), "unknown setting %s%s: expected one of %s", prefix, shown,
                       expected);
}

/* Refuse a key that is not a name, or that the map has already. The list of keys is short: unknown ones are fatal. */
static int check_key(struct walk *walk, const yaml_node_t *map, const yaml_node_pair_t *pair, const char *prefix)
{
    const yaml_node_t *key = yaml_document_get_node(walk->document, pair->key);

    if (key->type != YAML_SCALAR_NODE || strlen(scalar_text(key)) != key->data.scalar.length)
        return reader_fail(walk->reader, place_of_node(key), "the name of a setting is not a plain word");
    for (const yaml_node_pair_t *earlier = map->data.mapping.pairs.start; earlier < pair; earlier++) {
        const yaml_node_t *other = yaml_document_get_node(walk->document, earlier->key);

        if (strcmp(scalar_text(other), scalar_text(key)) == 0)
            return reader_fail(walk->reader, place_of_node(key), "%s%.*s is given twice: it is already in line %zu",
                               prefix, SHOWN_VALUE_BYTES, scalar_text(key), other->start_mark.line + 1);
    }
    return 0;
}

static const struct setting *find_rule_setting(const char *name)
{
    for (size_t i = 0; i < conf_rule_setting_count; i++) {
        if (strcmp(conf_rule_settings[i].name, name) == 0)
            return &conf_rule_settings[i];
    }
    return NULL;
}

static int read_rule(struct walk *walk, const yaml_node_t *node, const char *prefix, struct conf_access_rule *rule)
{
    bool has_allow = false;

    rule->line = (unsigned)place_of_node(node).line;
    if (node->type != YAML_MAPPING_NODE)
        return reader_fail(
            walk->reader, place_of_node(node),
            "%.*s is not a map: expected a rule, such as {users: [app], buckets: [\"app-*\"], allow: write}",
            (int)strlen(prefix) - 1, prefix);

    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        char name[NAME_BYTES + SHOWN_VALUE_BYTES], shown[SHOWN_VALUE_BYTES];

        if (check_key(walk, node, pair, prefix) != 0)
            return -1;
        const yaml_node_t *key = yaml_document_get_node(walk->document, pair->key);
        const struct setting *setting = find_rule_setting(scalar_text(key));
        show_text(scalar_text(key), shown, sizeof(shown));
        snprintf(name, sizeof(name), "%s%s", prefix, shown);
        if (setting == NULL)
            return reader_fail(walk->reader, place_of_node(key),
                               "unknown setting %s: expected one of users, groups, buckets, allow", name);
        if (take_value(walk, setting, rule, name, yaml_document_get_node(walk->document, pair->value)) != 0)
            return -1;
        has_allow |= setting->type == SETTING_CHOICE;
    }

    if (rule->buckets.count == 0)
        return reader_fail(walk->reader, place_of_node(node),
                           "%sbuckets is missing: expected a list of shell patterns, such as [\"*\"]", prefix);
    if (!has_allow)
        return reader_fail(walk->reader, place_of_node(node), "%sallow is missing: expected none, read, write or admin",
                           prefix);
    return 0;
}

static int read_access(struct walk *walk, const yaml_node_t *node)
{
    struct conf *conf = walk->conf;

    /* Refuse an empty value: if all rules are commented out, the store must not be open to everybody. */
    if (node->type != YAML_SEQUENCE_NODE)
        return reader_fail(walk->reader, place_of_node(node),
                           "access is not a list: expected a list of rules, or [] to let everybody do everything");
    size_t count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    if (count == 0)
        return 0;
    if (count > SETTING_RULES_MAX)
        return reader_fail(walk->reader, place_of_node(node), "access is too long: expected at most %u rules",
                           SETTING_RULES_MAX);

    conf->access.rules = calloc(count, sizeof(*conf->access.rules));
    if (conf->access.rules == NULL)
        return reader_fail(walk->reader, place_of_node(node), "out of memory");
    conf->access.count = count;
    for (size_t i = 0; i < count; i++) {
        char prefix[NAME_BYTES];
        yaml_node_item_t item = node->data.sequence.items.start[i];

        snprintf(prefix, sizeof(prefix), "access[%zu].", i + 1);
        if (read_rule(walk, yaml_document_get_node(walk->document, item), prefix, &conf->access.rules[i]) != 0)
            return -1;
    }
    return 0;
}

static int read_setting(struct walk *walk, const struct setting *setting, const yaml_node_t *node)
{
    /* A setting without a default may be empty. */
    if (is_null(node) && setting->initial == NULL)
        return 0;
    if (take_value(walk, setting, walk->conf, setting->name, node) != 0)
        return -1;
    walk->reader->places[setting - conf_settings] = place_of_node(node);
    return 0;
}

/* Read the map of a section. prefix is its dotted name with a final dot, or "" for the whole file. */
static int read_section(struct walk *walk, const yaml_node_t *node, const char *prefix)
{
    if (is_null(node)) /* all its settings commented out */
        return 0;
    if (node->type != YAML_MAPPING_NODE && *prefix == '\0')
        return reader_fail(walk->reader, place_of_node(node),
                           "the file is not a map: expected sections such as listen:");
    if (node->type != YAML_MAPPING_NODE)
        return reader_fail(walk->reader, place_of_node(node),
                           "%.*s is not a map: expected its settings indented below it", (int)strlen(prefix) - 1,
                           prefix);

    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++) {
        char name[NAME_BYTES];

        if (check_key(walk, node, pair, prefix) != 0)
            return -1;
        const yaml_node_t *key = yaml_document_get_node(walk->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(walk->document, pair->value);
        int length = snprintf(name, sizeof(name), "%s%s", prefix, scalar_text(key));
        bool is_plain_name =
            (size_t)length < sizeof(name) - 1 && strlen(scalar_text(key)) > 0 && strchr(scalar_text(key), '.') == NULL;
        const struct setting *setting = is_plain_name ? setting_find(name) : NULL;

        int failed;
        if (setting != NULL) {
            failed = read_setting(walk, setting, value);
        } else if (is_plain_name && strcmp(name, "access") == 0) {
            failed = read_access(walk, value);
        } else if (is_plain_name && is_section(strcat(name, "."))) {
            if (strcmp(name, "nats.tls.") == 0) {
                walk->conf->nats.tls.enabled = true;
                walk->reader->tls = place_of_node(key);
            }
            failed = read_section(walk, value, name);
        } else {
            failed = fail_unknown(walk, prefix, key);
        }
        if (failed != 0)
            return -1;
    }
    return 0;
}

/* For invalid UTF-8, libyaml reports an offset and no line. */
static struct reader_place place_of_byte(const char *text, size_t length, size_t offset)
{
    struct reader_place place = {1, 1};

    for (size_t i = 0; i < offset && i < length; i++) {
        place.column++;
        if (text[i] == '\n')
            place = (struct reader_place){place.line + 1, 1};
    }
    return place;
}

/*
 * libyaml takes quadratic time for nested brackets: 100 KB of '[' took 43 s. Count them before libyaml reads them,
 * except in quotes and comments.
 */
static int check_nesting(struct reader *reader, const char *text, size_t length)
{
    struct reader_place place = {1, 1};
    unsigned depth = 0;
    char quote = '\0', before = '\n';
    bool is_comment = false;

    for (size_t i = 0; i < length; before = text[i++], place.column++) {
        char c = text[i];
        if (c == '\n') {
            place = (struct reader_place){place.line + 1, 0};
            is_comment = false;
        } else if (is_comment || (quote != '\0' && c != quote)) {
            continue;
        } else if (quote != '\0') {
            quote = '\0';
        } else if (c == '#' && strchr(" \t\n", before) != NULL) {
            is_comment = true;
        } else if ((c == '"' || c == '\'') && strchr(" \t\n[{,:", before) != NULL) {
            quote = c;
        } else if (c == '[' || c == '{') {
            if (++depth > NESTING_MAX)
                return reader_fail(reader, place, "brackets are nested more than %u deep", NESTING_MAX);
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
    }
    return 0;
}

/* Return whether a line is indented with a tab up to this column; both count from 0. */
static bool is_tab_indentation(const char *text, size_t length, yaml_mark_t mark)
{
    const char *end = text + length;

    for (size_t line = 0; line < mark.line; line++) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        if (newline == NULL)
            return false;
        text = newline + 1;
    }
    bool has_tab = false;
    size_t column = 0;
    for (; text + column < end && (text[column] == ' ' || text[column] == '\t'); column++)
        has_tab |= text[column] == '\t';
    return has_tab && mark.column <= column;
}

static int fail_yaml(struct reader *reader, const yaml_parser_t *parser, const char *text, size_t length)
{
    const char *problem = parser->problem != NULL ? parser->problem : "invalid text";

    if (parser->error == YAML_MEMORY_ERROR)
        return reader_fail(reader, (struct reader_place){0, 0}, "out of memory");
    if (parser->error == YAML_READER_ERROR)
        return reader_fail(reader, place_of_byte(text, length, parser->problem_offset), "%s: expected text in UTF-8",
                           problem);
    if (is_tab_indentation(text, length, parser->problem_mark))
        return reader_fail(reader, place_of_mark(parser->problem_mark), "found a tab: indent with blanks, not tabs");
    return reader_fail(reader, place_of_mark(parser->problem_mark), "%s%s%s: expected YAML", problem,
                       parser->context != NULL ? " " : "", parser->context != NULL ? parser->context : "");
}

/* Refuse a second document: it would be ignored. */
static int check_no_more(struct reader *reader, yaml_parser_t *parser, const char *text, size_t length)
{
    yaml_document_t document;

    if (!yaml_parser_load(parser, &document))
        return fail_yaml(reader, parser, text, length);
    bool is_there = yaml_document_get_root_node(&document) != NULL;
    struct reader_place place = place_of_mark(document.start_mark);
    yaml_document_delete(&document);
    if (is_there)
        return reader_fail(reader, place, "a second YAML document begins: expected only one");
    return 0;
}

int reader_read(struct reader *reader, struct conf *conf, const char *text, size_t length)
{
    yaml_parser_t parser;
    yaml_document_t document;
    struct walk walk = {.reader = reader, .conf = conf, .document = &document};
    int result = 0;

    if (check_nesting(reader, text, length) != 0)
        return -1;
    if (!yaml_parser_initialize(&parser))
        return reader_fail(reader, (struct reader_place){0, 0}, "out of memory");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
    if (!yaml_parser_load(&parser, &document)) {
        result = fail_yaml(reader, &parser, text, length);
        goto parser_over;
    }

    const yaml_node_t *root = yaml_document_get_root_node(&document);
    if (root != NULL)
        result = read_section(&walk, root, "");
    if (result == 0 && root != NULL)
        result = check_no_more(reader, &parser, text, length);
    yaml_document_delete(&document);

parser_over:
    yaml_parser_delete(&parser);
    return result;
}
