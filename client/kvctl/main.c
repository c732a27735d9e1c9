#include "client/kvctl/kvctl.h"

#include <ctype.h>
#include <fcntl.h>
#include <getopt.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- Help ---------------------------------------------------------------------------------- */

static const struct verb_option global_options[] = {
    {"socket", "PATH", "the daemon's socket ($KVSTORED_SOCKET, or else\n/run/kvstored/kvstored.sock)"},
    {"json", NULL, "print the whole answer as JSON"},
    {"timeout", "SECONDS", "timeout of a call (default: the daemon's, 5)"},
    {"help", NULL, "print this help, or with a verb its help"},
    {"version", NULL, "print the version"},
    {0},
};

static void main_print_options(const struct verb_option *options)
{
    for (; options != NULL && options->name != NULL; options++) {
        const char *line = options->help;
        int width = printf("  --%s%s%s", options->name, options->argument != NULL ? " " : "",
                           options->argument != NULL ? options->argument : "");
        for (;;) {
            int length = (int)strcspn(line, "\n");
            printf("%*s%.*s\n", 28 - width > 2 ? 28 - width : 2, "", length, line);
            if (line[length] == '\0')
                break;
            line += length + 1;
            width = 0;
        }
    }
}

static void main_print_help(void)
{
    puts("Usage: kvctl [OPTION]... VERB [ARGUMENT]...\n"
         "\n"
         "Reads and writes the buckets of the key-value daemon kvstored on this host.\n"
         "\n"
         "Verbs (for the help of one: kvctl VERB --help):");
    for (size_t i = 0; i < verb_count; i++)
        printf("  %-8s %-27s %s\n", verbs[i].name, verbs[i].arguments, verbs[i].summary);
    puts("\nOptions, before or after the verb and its arguments:");
    main_print_options(global_options);
    puts("\n"
         "With --json, bytes that are UTF-8 become a string, others {\"base64\": \"...\"}.\n"
         "\n"
         "Exit status: 0 success; 1 the key or the bucket does not exist; 2 wrong usage, or\n"
         "another error; 3 conflict; 4 refused; 5 daemon or NATS unavailable; 6 timeout;\n"
         "7 outcome unknown; 8 another client holds the lock; 9 the lock was lost.\n"
         "An error is one line on standard error.\n"
         "\n"
         "Examples:\n"
         "  kvctl add config\n"
         "  kvctl put config greeting hello\n"
         "  kvctl get config greeting");
}

static void main_print_verb_help(const struct verb *verb)
{
    printf("Usage: kvctl %s%s%s%s\n\n%s\n", verb->name, *verb->arguments != '\0' ? " " : "", verb->arguments,
           verb->options != NULL ? " [OPTION]..." : "", verb->description);
    if (verb->options != NULL) {
        puts("\nOptions:");
        main_print_options(verb->options);
    }
    printf("\nExamples:\n%s\nOptions of all verbs (--socket, --json, --timeout): kvctl --help\n", verb->examples);
}

/* --- The command line ------------------------------------------------------------------------ */

struct command_line {
    const char *socket;
    bool json;
    bool help;
    bool version;
    double timeout_s;
    struct argument_option *options; /* the verb's options */
    size_t option_count;
    char **command; /* see invocation */
};

#define GLOBAL_COUNT (sizeof(global_options) / sizeof(*global_options) - 1)

static size_t main_add_long_options(struct option *long_options, size_t count, const struct verb_option *options)
{
    for (; options != NULL && options->name != NULL && count < OPTIONS_MAX + GLOBAL_COUNT; options++)
        long_options[count++] = (struct option){.name = options->name,
                                                .has_arg = options->argument != NULL ? required_argument : no_argument};
    return count;
}

static bool main_take_global(struct command_line *line, const char *name)
{
    if (strcmp(name, "socket") == 0) {
        line->socket = optarg;
        if (*optarg == '\0') /* usually an unset shell variable */
            return report("--socket is empty: name the daemon's socket") == STATUS_OK;
    } else if (strcmp(name, "json") == 0) {
        line->json = true;
    } else if (strcmp(name, "help") == 0) {
        line->help = true;
    } else if (strcmp(name, "version") == 0) {
        line->version = true;
    } else {
        char *end;
        line->timeout_s = strtod(optarg, &end);
        if (end == optarg || *end != '\0' || !isfinite(line->timeout_s) || line->timeout_s <= 0)
            return report("--timeout must be a number of seconds above 0 such as 10 or 0.5, not '%.100s'", optarg) ==
                   STATUS_OK;
    }
    return true;
}

/*
 * Return the word that getopt_long has just read. In a row of letters, such as -35, optind is still that of the row
 * after an unknown letter that is not its last.
 */
static const char *main_option_word(int argc, char **argv, int found)
{
    const char *word = argv[optind - 1];
    size_t length = strlen(word);

    if (found == 0)
        return optarg != NULL && optarg == word ? argv[optind - 2] : word;
    bool is_in_row = optopt != 0 && (length < 2 || word[0] != '-' || word[1] == '-' || word[length - 1] != optopt);
    return found == '?' && is_in_row && optind < argc ? argv[optind] : word;
}

/* getopt_long accepts abbreviations, which the next option with the same beginning would break. */
static bool main_is_in_full(const char *word, const char *name)
{
    size_t length = strlen(name);

    return strncmp(word, "--", 2) == 0 && strncmp(word + 2, name, length) == 0 &&
           (word[2 + length] == '\0' || word[2 + length] == '=');
}

static bool main_refuse_option(const char *word, const struct verb *verb)
{
    if (verb != NULL && word[0] == '-' && isdigit((unsigned char)word[1]))
        return report("unknown option %s: if it is a negative number, write it after --: see kvctl %s --help", word,
                      verb->name) == STATUS_OK;
    return report("unknown option %s: see kvctl %s%s--help", word, verb != NULL ? verb->name : "",
                  verb != NULL ? " " : "") == STATUS_OK;
}

/*
 * Read the options of argv: the global ones and those of verb. If verb is NULL, because it is not known yet, stop at
 * the first argument. Afterwards optind is the first argument. False after a message.
 */
static bool main_read_options(struct command_line *line, int argc, char **argv, const struct verb *verb)
{
    struct option long_options[OPTIONS_MAX + GLOBAL_COUNT + 1] = {0};
    size_t count = main_add_long_options(long_options, 0, global_options);
    int place, found;

    if (verb != NULL)
        main_add_long_options(long_options, count, verb->options);
    optind = 0; /* resets getopt in the GNU library */
    opterr = 0;
    while ((found = getopt_long(argc, argv, verb == NULL ? "+:h" : ":h", long_options, &place)) != -1) {
        const char *word = main_option_word(argc, argv, found);
        switch (found) {
        case 0:
            if (!main_is_in_full(word, long_options[place].name))
                return main_refuse_option(word, verb);
            if ((size_t)place >= GLOBAL_COUNT)
                line->options[line->option_count++] =
                    (struct argument_option){.name = long_options[place].name, .value = optarg};
            else if (!main_take_global(line, long_options[place].name))
                return false;
            break;
        case 'h':
            line->help = true;
            break;
        case ':':
            return report("option %s needs a value: see kvctl %s%s--help", word, verb != NULL ? verb->name : "",
                          verb != NULL ? " " : "") == STATUS_OK;
        default:
            return main_refuse_option(word, verb);
        }
    }
    return true;
}

static enum status main_run_verb(const struct verb *verb, const struct command_line *line, int argc, char **argv)
{
    struct invocation invocation = {.verb = verb,
                                    .json = line->json,
                                    .terminal = isatty(STDOUT_FILENO) == 1,
                                    .socket = line->socket,
                                    .timeout_s = line->timeout_s,
                                    .arguments = argv,
                                    .argument_count = argc,
                                    .command = line->command,
                                    .options = line->options,
                                    .option_count = line->option_count};
    /* A restart of the daemon is a pause and no error. */
    struct kvs_options options = KVS_OPTIONS(.connect_timeout_s = line->timeout_s, .reconnect = true);
    struct kvs_error error;

    if (argc < verb->arguments_min || argc > verb->arguments_max)
        return report("%s %s arguments: kvctl %s %s (see kvctl %s --help)", verb->name,
                      argc < verb->arguments_min ? "needs more" : "has too many", verb->name, verb->arguments,
                      verb->name);
    if (!option_rules_check(&invocation))
        return STATUS_FAILED;
    report_for_verb(verb->name);
    if (!verb_is_offline(verb)) {
        invocation.kvs = kvs_connect(line->socket, &options, &error);
        if (invocation.kvs == NULL)
            return report_error(&error);
    }
    enum status status = verb->run(&invocation);
    fflush(stdout);
    status = print_check(status);
    kvs_close(invocation.kvs);
    return status;
}

/* Divide the command after -- from the words before it, whose number is *argc then. False after a message. */
static bool main_take_command(struct command_line *line, const struct verb *verb, int *argc, char **argv)
{
    int at = 0;

    if (!verb_takes_command(verb))
        return true;
    while (at < *argc && strcmp(argv[at], "--") != 0)
        at++;
    if (at == *argc)
        return true;
    if (at + 1 == *argc)
        return report("-- must be followed by a command: see kvctl %s --help", verb->name) == STATUS_OK;
    line->command = argv + at + 1;
    *argc = at;
    return true;
}

static enum status main_run(struct command_line *line, int argc, char **argv)
{
    if (!main_read_options(line, argc, argv, NULL))
        return STATUS_FAILED;
    if (line->version) {
        printf("kvctl %s\n", kvs_version());
        return STATUS_OK;
    }
    argc -= optind;
    argv += optind;
    if (argc > 0 && strcmp(argv[0], "help") == 0) {
        line->help = true;
        argc--;
        argv++;
    }
    if (argc > 0 && strcmp(argv[0], "__complete") == 0) {
        complete_command_line(global_options, argv + 1, (size_t)argc - 1);
        return STATUS_OK;
    }
    if (argc == 0 && !line->help)
        return report("name a verb, such as get or put: see kvctl --help");
    if (argc == 0) {
        main_print_help();
        return STATUS_OK;
    }

    const struct verb *verb = verb_find(argv[0]);
    if (verb == NULL)
        return report("unknown verb '%.100s': see kvctl --help", argv[0]);
    if (!main_take_command(line, verb, &argc, argv) || !main_read_options(line, argc, argv, verb))
        return STATUS_FAILED;
    if (line->help) {
        main_print_verb_help(verb);
        return STATUS_OK;
    }
    return main_run_verb(verb, line, argc - optind, argv + optind);
}

/*
 * If a standard descriptor is closed, the next file that is opened takes its number, which must not be the daemon's
 * socket. Open the descriptors in the wrong direction, so that using them is an error.
 */
static void main_open_standard_descriptors(void)
{
    static const int modes[] = {O_WRONLY, O_RDONLY, O_RDONLY};

    for (int descriptor = 0; descriptor < 3; descriptor++) {
        if (fcntl(descriptor, F_GETFD) < 0 && open("/dev/null", modes[descriptor]) != descriptor)
            exit(STATUS_FAILED);
    }
}

/* An error before --json is read, such as an unknown verb, is JSON too. */
static bool main_has_json(char **argv)
{
    while (*argv != NULL && strcmp(*argv, "--") != 0 && strcmp(*argv, "--json") != 0)
        argv++;
    return *argv != NULL && strcmp(*argv, "--json") == 0;
}

int main(int argc, char **argv)
{
    main_open_standard_descriptors();
    setlocale(LC_CTYPE, "C.UTF-8"); /* for the width of characters; everything else is UTF-8 in any case */
    if (main_has_json(argv))
        report_as_json();
    struct command_line line = {.options = calloc((size_t)argc + 1, sizeof(struct argument_option))};

    if (line.options == NULL)
        return (int)report("out of memory");
    enum status status = main_run(&line, argc, argv);
    free(line.options);
    fflush(stdout);
    return (int)print_check(status);
}
