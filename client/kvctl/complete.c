/*
 * Completion of command lines, for the shells: kvctl __complete WORD...
 *
 * The words are those of the command line after kvctl; the last one is being completed, and may be empty. Prints a line
 * for each candidate: a whole word, a tab, and a description. ":files", the last line, means that the shell completes
 * names of files, too.
 * All of this comes from the table of verbs, so a new verb or option cannot be forgotten. The arguments that the help
 * shows say whether a word is a bucket, a key, a session or a file. The daemon is asked for the names, with a short
 * timeout. Errors are silent.
 */
#include "client/kvctl/kvctl.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How long completion may take if the daemon does not answer. More candidates than these help nobody. */
#define TIMEOUT_S      1.0
#define CANDIDATES_MAX 200u

/* A longer word cannot be a key. */
#define WORD_BYTES 1100u

struct completion {
    const struct verb_option *globals;
    const struct verb *verb; /* NULL: not known yet */
    const char *socket;
    const char *words[16]; /* the verb's first arguments that are complete */
    size_t count;          /* of all its arguments that are complete */
    const char *current;   /* the word to complete */
    bool is_wrong;         /* there is no such verb */
    bool is_literal;       /* after --, words that begin with a dash are arguments */
};

/* --- Candidates ----------------------------------------------------------------------------------- */

static bool complete_fits(const char *current, const char *word)
{
    return strncmp(word, current, strlen(current)) == 0;
}

/* Print a candidate, with the first line of its description. prefix is "--option=" or "". */
static void complete_print(const char *prefix, const char *word, const char *about)
{
    printf("%s%s\t%.*s\n", prefix, word, (int)strcspn(about, "\n"), about);
}

/* Print those of some words that fit. They are separated by blanks or bars. */
static void complete_words(const char *prefix, const char *current, const char *words)
{
    char word[64];

    for (size_t length; *words != '\0'; words += length + (words[length] != '\0')) {
        length = strcspn(words, " |");
        snprintf(word, sizeof(word), "%.*s", (int)length, words);
        if (complete_fits(current, word))
            complete_print(prefix, word, "");
    }
}

static void complete_options(const struct completion *completion, const struct verb_option *options)
{
    char word[64];

    for (; options != NULL && options->name != NULL; options++) {
        snprintf(word, sizeof(word), "--%s", options->name);
        if (complete_fits(completion->current, word))
            complete_print("", word, options->help);
    }
}

static void complete_verbs(const struct completion *completion)
{
    for (size_t i = 0; i < verb_count; i++) {
        if (complete_fits(completion->current, verbs[i].name))
            complete_print("", verbs[i].name, verbs[i].summary);
    }
    if (complete_fits(completion->current, "help"))
        complete_print("", "help", "print the help of a verb");
}

/* --- What the daemon knows ------------------------------------------------------------------------ */

static struct kvs *complete_connect(const struct completion *completion)
{
    struct kvs_options options = KVS_OPTIONS(.connect_timeout_s = TIMEOUT_S);

    return kvs_connect(completion->socket, &options, NULL);
}

/* Names that other clients of NATS have made up must not reach a shell. */
static bool complete_is_harmless(const char *name)
{
    for (; *name != '\0'; name++) {
        if (!isalnum((unsigned char)*name) && strchr("-_=./", *name) == NULL)
            return false;
    }
    return true;
}

static void complete_buckets(const struct completion *completion, const char *prefix, const char *current)
{
    char filter[WORD_BYTES];
    struct kvs_list_options options = KVS_LIST_OPTIONS(.filter = filter, .timeout_s = TIMEOUT_S);
    struct kvs *kvs = complete_is_harmless(current) ? complete_connect(completion) : NULL;
    size_t count;
    char **names;

    snprintf(filter, sizeof(filter), "%.200s*", current);
    if (kvs != NULL && kvs_bucket_list(kvs, &options, &names, &count) == KVS_OK) {
        for (size_t i = 0; i < count && i < CANDIDATES_MAX; i++) {
            if (complete_is_harmless(names[i]) && complete_fits(current, names[i]))
                complete_print(prefix, names[i], "bucket");
        }
        kvs_free(names);
    }
    kvs_close(kvs);
}

/* Print the keys of the bucket on the command line that begin with current. In byte order they follow each other. */
static void complete_keys(const struct completion *completion, const char *current, const char *end)
{
    struct kvs_keys_options options =
        KVS_KEYS_OPTIONS(.limit = CANDIDATES_MAX, .consistency = KVS_CONSISTENCY_CACHED, .timeout_s = TIMEOUT_S);
    struct kvs_keys_options exact = options;
    struct kvs *kvs = completion->count > 0 && complete_is_harmless(current) ? complete_connect(completion) : NULL;
    char word[WORD_BYTES];
    size_t count;
    char **keys;

    options.after = *current != '\0' ? current : NULL;
    exact.filter = current;
    if (kvs != NULL && *current != '\0' && kvs_keys(kvs, completion->words[0], &exact, &keys, &count) == KVS_OK) {
        snprintf(word, sizeof(word), "%s%s", current, end);
        if (count == 1)
            complete_print("", word, "key");
        kvs_free(keys);
    }
    if (kvs != NULL && kvs_keys(kvs, completion->words[0], &options, &keys, &count) == KVS_OK) {
        for (size_t i = 0; i < count && complete_fits(current, keys[i]); i++) {
            snprintf(word, sizeof(word), "%s%s", keys[i], end);
            if (complete_is_harmless(keys[i]))
                complete_print("", word, "key");
        }
        kvs_free(keys);
    }
    kvs_close(kvs);
}

static void complete_sessions(const struct completion *completion)
{
    struct kvs_sessions_options options = KVS_SESSIONS_OPTIONS(.limit = CANDIDATES_MAX, .timeout_s = TIMEOUT_S);
    struct kvs *kvs = complete_connect(completion);
    struct kvs_value *answer;
    char word[32], about[160];

    if (kvs != NULL && kvs_daemon_sessions(kvs, &options, &answer) == KVS_OK) {
        const struct kvs_value *list = kvs_value_member(answer, "list");
        uint64_t own = kvs_value_unsigned(kvs_value_member(answer, "own"));
        for (size_t i = 0; i < kvs_value_count(list); i++) {
            const struct kvs_value *session = kvs_value_item(list, i);
            uint64_t id = kvs_value_unsigned(kvs_value_member(session, "id"));
            snprintf(word, sizeof(word), "%" PRIu64, id);
            snprintf(about, sizeof(about), "%s, pid %" PRIu64, text_of_value(kvs_value_member(session, "program")).text,
                     kvs_value_unsigned(kvs_value_member(session, "pid")));
            if (id != own && complete_fits(completion->current, word))
                complete_print("", word, about);
        }
        kvs_free(answer);
    }
    kvs_close(kvs);
}

/* --- What a word stands for ----------------------------------------------------------------------- */

/* Complete the value of an option. prefix is "--option=" if both are one word. */
static void complete_value(const struct completion *completion, const struct verb_option *option, const char *prefix,
                           const char *current)
{
    static const struct {
        const char *option, *words;
    } choices[] = {{"consistency", "direct leader cached"},
                   {"storage", "file memory"},
                   {"sort", "rate calls in-flight bytes traffic watches age"}};

    for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++) {
        if (strcmp(option->name, choices[i].option) == 0)
            complete_words(prefix, current, choices[i].words);
    }
    if (strcmp(option->argument, "BUCKET") == 0)
        complete_buckets(completion, prefix, current);
    else if (strcmp(option->argument, "PATH") == 0 || strcmp(option->argument, "FILE") == 0)
        puts(":files");
    else if (strcmp(option->argument, "KEY") == 0)
        complete_keys(completion, current, "");
    else if (strchr(option->argument, '|') != NULL)
        complete_words(prefix, current, option->argument);
}

/* Find the argument at a place in what the help shows, such as "BUCKET [FILTER...]". The last one may repeat. */
static void complete_find_argument(const char *arguments, size_t place, char argument[64])
{
    argument[0] = '\0';
    for (size_t at = 0; *arguments != '\0'; at++) {
        size_t length = strcspn(arguments, " ");
        if (strncmp(arguments, "-- ", 3) == 0) { /* not a word that is counted */
            arguments += 3;
            length = strcspn(arguments, " ");
        }
        bool repeats = memmem(arguments, length, "...", 3) != NULL;
        bool is_last = arguments[length] == '\0' || strncmp(arguments + length, " [--", 4) == 0;
        if (at == place || (at < place && repeats && is_last)) {
            snprintf(argument, 64, "%.*s", (int)length, arguments);
            return;
        }
        arguments += length + (arguments[length] != '\0');
    }
}

static bool complete_is_path(const char *argument)
{
    return strstr(argument, "FILE") != NULL || strcmp(argument, "PATH") == 0 || strcmp(argument, "DIRECTORY") == 0;
}

static void complete_argument(const struct completion *completion)
{
    char argument[64], next[64];

    complete_find_argument(completion->verb->arguments, completion->count, argument);
    if (strstr(argument, "BUCKET") != NULL)
        complete_buckets(completion, "", completion->current);
    else if (strstr(argument, "KEY=") != NULL)
        complete_keys(completion, completion->current, "=");
    else if (strstr(argument, "KEY") != NULL || (strstr(argument, "FILTER") != NULL && completion->count > 0))
        complete_keys(completion, completion->current, "");
    else if (strcmp(completion->verb->name, "ls") == 0)
        complete_buckets(completion, "", completion->current);
    else if (strstr(argument, "SESSION") != NULL)
        complete_sessions(completion);
    else if (strstr(argument, "NAME") != NULL)
        complete_keys(completion, completion->current, "");
    else if (complete_is_path(argument) || strstr(argument, "COMMAND") != NULL)
        puts(":files");
    else if (argument[0] == '[' && islower((unsigned char)argument[1])) { /* "[put|get|cached]..." */
        argument[strcspn(argument, "]")] = '\0';
        complete_words("", completion->current, argument + 1);
    }
    /* The first word after "import [BUCKET] FILE" may be either. */
    complete_find_argument(completion->verb->arguments, completion->count + 1, next);
    if (argument[0] == '[' && complete_is_path(next))
        puts(":files");
}

/* --- The command line ----------------------------------------------------------------------------- */

static const struct verb_option *complete_find(const struct verb_option *options, const char *name, size_t length)
{
    for (; options != NULL && options->name != NULL; options++) {
        if (strncmp(options->name, name, length) == 0 && options->name[length] == '\0')
            return options;
    }
    return NULL;
}

/* Return the option that a word "--name" or "--name=value" names; NULL: none. */
static const struct verb_option *complete_option_of(const struct completion *completion, const char *word)
{
    if (completion->is_literal || strncmp(word, "--", 2) != 0)
        return NULL;
    size_t length = strcspn(word + 2, "=");
    const struct verb_option *option = complete_find(completion->globals, word + 2, length);
    if (option == NULL && completion->verb != NULL)
        option = complete_find(completion->verb->options, word + 2, length);
    return option;
}

/* Take a complete word that is no option. */
static void complete_take_word(struct completion *completion, const char *word)
{
    if (completion->verb == NULL) {
        if (strcmp(word, "help") != 0)
            completion->verb = verb_find(word);
        completion->is_wrong = completion->verb == NULL && strcmp(word, "help") != 0;
        return;
    }
    if (completion->count < sizeof(completion->words) / sizeof(completion->words[0]))
        completion->words[completion->count] = word;
    completion->count++;
}

void complete_command_line(const struct verb_option *globals, char **words, size_t count)
{
    struct completion completion = {.globals = globals, .current = count > 0 ? words[count - 1] : ""};
    const struct verb_option *option = NULL; /* the next word is its value */

    for (size_t i = 0; i + 1 < count; i++) {
        const struct verb_option *owner = option;
        const char *equals = strchr(words[i], '='), *value = owner != NULL ? words[i] : NULL;
        option = NULL;
        if (owner == NULL && strcmp(words[i], "--") == 0 && !completion.is_literal) {
            completion.is_literal = true;
            continue;
        }
        if (owner == NULL && (owner = complete_option_of(&completion, words[i])) != NULL) {
            if (owner->argument != NULL && equals == NULL)
                option = owner;
            else
                value = equals != NULL ? equals + 1 : NULL;
        } else if (owner == NULL && (completion.is_literal || words[i][0] != '-')) {
            complete_take_word(&completion, words[i]);
        }
        if (owner != NULL && value != NULL && strcmp(owner->name, "socket") == 0)
            completion.socket = value;
    }
    if (completion.is_wrong || strlen(completion.current) >= WORD_BYTES)
        return;
    const struct verb_option *own = complete_option_of(&completion, completion.current);
    const char *equals = strchr(completion.current, '=');
    char prefix[WORD_BYTES];
    if (option != NULL) {
        complete_value(&completion, option, "", completion.current);
    } else if (own != NULL && own->argument != NULL && equals != NULL) {
        snprintf(prefix, sizeof(prefix), "%.*s", (int)(equals + 1 - completion.current), completion.current);
        complete_value(&completion, own, prefix, equals + 1);
    } else if (!completion.is_literal && completion.current[0] == '-') {
        complete_options(&completion, completion.verb != NULL ? completion.verb->options : NULL);
        complete_options(&completion, globals);
    } else if (completion.is_literal && completion.verb != NULL && verb_takes_command(completion.verb)) {
        puts(":files");
    } else if (completion.verb == NULL) {
        complete_verbs(&completion);
    } else {
        complete_argument(&completion);
    }
}
