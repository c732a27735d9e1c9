#include "client/kvctl/kvctl.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- The verbs ----------------------------------------------------------------------------- */

#define WRITE_OPTIONS                                                                                                  \
    {"ttl", "TIME", "the value expires after this time (30, 90s, 1h30m, 7d)"},                                         \
        {"header", "NAME=VALUE", "a header beside the value; may be repeated"},                                        \
    {                                                                                                                  \
        0                                                                                                              \
    }

#define VALUE_TEXT                                                                                                     \
    "VALUE is taken as it is; with - it is read from standard input, byte for byte, to its\n"                          \
    "end. A VALUE that begins with a dash goes behind --."

#define CONSISTENCY_OPTION                                                                                             \
    {                                                                                                                  \
        "consistency", "WHICH",                                                                                        \
            "direct (any replica, the default), leader (sees every write\nacknowledged before) or cached (the "        \
            "daemon's near cache)"                                                                                     \
    }

static const struct verb_option get_options[] = {
    {"revision", "N", "the value that this revision wrote, if the history still has it"},
    CONSISTENCY_OPTION,
    {"as-json", NULL, "the value is JSON: print it parsed and written anew"},
    {0}};
static const struct verb_option mget_options[] = {CONSISTENCY_OPTION, {0}};
static const struct verb_option mput_options[] = {
    {"ttl", "TIME", "the values expire after this time (30, 90s, 1h30m, 7d)"},
    {0},
};
static const struct verb_option put_options[] = {WRITE_OPTIONS};
static const struct verb_option del_options[] = {
    {"revision", "N", "only if the key still has this revision"},
    {0},
};
static const struct verb_option purge_options[] = {
    {"revision", "N", "only if the key still has this revision"},
    {"ttl", "TIME", "the marker that is left goes away after this time"},
    {"all", NULL, "empty the whole bucket; without a KEY"},
    {0},
};
static const struct verb_option keys_options[] = {
    {"limit", "N", "print at most so many"},
    {"after", "KEY", "print only keys behind this one in byte order"},
    {0},
};
static const struct verb_option ls_options[] = {
    {"names", NULL, "only the names, also on a terminal"},
    {"long", NULL, "the table, also when the output is no terminal"},
    {0},
};
static const struct verb_option ping_options[] = {{"count", "N", "how many round trips (100)"}, {0}};
static const struct verb_option bucket_options[] = {
    {"description", "TEXT", "what the bucket is for"},
    {"history", "N", "values kept per key, 1 to 64"},
    {"ttl", "TIME", "values expire after this time (1h, 7d); none: never"},
    {"max-bytes", "SIZE", "of the whole bucket (10M, 2G); none: no limit"},
    {"max-value-size", "SIZE", "of one value (64K); none: no limit"},
    {"storage", "KIND", "file or memory"},
    {"replicas", "N", "servers of the cluster that hold the bucket"},
    {"compression", "on|off", "compress what is stored"},
    {"marker-ttl", "TIME", "leave a marker for this time when a value expires, so\nthat watchers hear of it"},
    {"cluster", "NAME", "place the bucket in this cluster"},
    {"tag", "TAG", "place it on servers with this tag; may be repeated"},
    {"republish-to", "SUBJECT", "publish what is written again on this subject"},
    {"republish-from", "SUBJECT", "... of what is written to these subjects only"},
    {"republish-headers-only", NULL, "... without the values"},
    {"mirror", "BUCKET", "be a read-only copy of this bucket;\nBUCKET,domain=NAME of one in another JetStream domain"},
    {"source", "BUCKET",
     "gather what is written to this bucket; may be repeated;\nBUCKET,domain=NAME,filter=KEYS of some of its keys"},
    {"metadata", "NAME=VALUE", "a note that is kept with the bucket; may be repeated"},
    {0},
};

/* In the order of the help. A new verb is one row here and one function. */
static const struct verb verbs[] = {
    {"add", "BUCKET", 1, 1, "create a bucket",
     "Creates BUCKET and prints its settings. What is not named has the server's default. It is\n"
     "an error if there is a bucket of that name with other settings.",
     "  kvctl add config\n"
     "  kvctl add sessions --ttl 1h --max-bytes 100M --storage memory\n",
     bucket_options, bucket_add},
    {"edit", "BUCKET", 1, 1, "change a bucket's settings",
     "Changes the settings that are named, leaves the others, and prints the result. A bucket\n"
     "that another client created is also made fit for transactions and expiring keys.",
     "  kvctl edit config --history 10\n"
     "  kvctl edit config\n",
     bucket_options, bucket_edit},
    {"ls", "[FILTER]", 0, 1, "list the buckets",
     "On a terminal prints a table of the buckets with what is in them, otherwise their names,\n"
     "one a line. FILTER is a pattern for the names.",
     "  kvctl ls\n"
     "  kvctl ls --names 'user*'\n",
     ls_options, bucket_ls},
    {"info", "[BUCKET]", 0, 1, "show a bucket, or the daemon",
     "Prints a bucket's settings and what is in it; without BUCKET the daemon's version and\n"
     "limits, and the NATS server behind it.",
     "  kvctl info config\n"
     "  kvctl --json info | jq .version\n",
     NULL, bucket_info},
    {"rm", "BUCKET", 1, 1, "delete a bucket and all that is in it",
     "Deletes BUCKET with every key in it. It does not ask, and there is no way back.", "  kvctl rm config\n", NULL,
     bucket_rm},
    {"get", "BUCKET KEY", 2, 2, "print a key's value",
     "Prints the value byte for byte; only on a terminal a newline follows. With --json prints\n"
     "the whole entry: key, value, revision, created (microseconds since 1970), operation and\n"
     "headers. The exit status is 1 if the key is not there.",
     "  kvctl get config port\n"
     "  kvctl get config logo >logo.png\n"
     "  kvctl get config limits --as-json | jq .memory\n"
     "  kvctl --json get config port | jq .revision\n",
     get_options, kv_get},
    {"put", "BUCKET KEY VALUE|-", 3, 3, "write a key",
     "Writes KEY whatever it had before and prints the new revision.\n" VALUE_TEXT,
     "  kvctl put config port 8080\n"
     "  kvctl put config logo - <logo.png\n"
     "  kvctl put sessions 4711 alice --ttl 30m\n",
     put_options, kv_put},
    {"create", "BUCKET KEY VALUE|-", 3, 3, "write a key that is not there yet",
     "Writes KEY only if it is not there (or is deleted) and prints the new revision; the exit\n"
     "status is 2 if it is there. Of many who try at once, one succeeds.\n" VALUE_TEXT,
     "  kvctl create locks backup \"$HOSTNAME\" --ttl 10m && run-backup\n", put_options, kv_create},
    {"update", "BUCKET KEY VALUE|- REVISION", 4, 4, "write a key that nobody else has written meanwhile",
     "Writes KEY only if it still has REVISION (0: is not there) and prints the new revision;\n"
     "the exit status is 2 if somebody else was faster.\n" VALUE_TEXT,
     "  revision=$(kvctl --json get config port | jq .revision)\n"
     "  kvctl update config port 8081 \"$revision\"\n",
     put_options, kv_update},
    {"del", "BUCKET KEY", 2, 2, "delete a key, keep its history",
     "Leaves a marker that says the key is deleted, and prints the marker's revision. The\n"
     "values before it stay in the history.",
     "  kvctl del config port\n"
     "  kvctl del config port --revision 17\n",
     del_options, kv_del},
    {"purge", "BUCKET [KEY]", 1, 2, "delete a key and its history",
     "Deletes KEY with its history, leaves a marker, and prints the marker's revision. With\n"
     "--all instead of a KEY empties the whole bucket.",
     "  kvctl purge config port\n"
     "  kvctl purge config --all\n",
     purge_options, kv_purge},
    {"history", "BUCKET KEY", 2, 2, "show what a key had before",
     "Prints a table of the values and markers that the bucket still has of KEY, oldest first.\n"
     "How many it keeps is its setting history. Long values are cut: --json has them whole.",
     "  kvctl history config port\n", NULL, kv_history},
    {"keys", "BUCKET [FILTER]", 1, 2, "list the keys",
     "Prints the keys in byte order, one a line, and never loads their values. FILTER is a\n"
     "pattern of tokens between dots: * stands for one token, > at the end for all that follow.",
     "  kvctl keys config\n"
     "  kvctl keys users 'eu.*.name'\n"
     "  kvctl keys users --limit 100 --after eu.alice.name\n",
     keys_options, kv_keys},
    {"mget", "BUCKET KEY...", 2, INT_MAX, "print the values of many keys",
     "Prints KEY, a tab and VALUE for each key that is there, one a line, in the order of the\n"
     "command line; with --json an object of the whole entries, null for a key that is not there.\n"
     "The values are of one point in time (up to 1,024 keys, not with --consistency leader).\n"
     "The exit status is 1 if a key is missing.",
     "  kvctl mget config host port\n"
     "  kvctl keys config | xargs kvctl --json mget config | jq .port.value\n",
     mget_options, bulk_mget},
    {"mput", "BUCKET KEY=VALUE...|-", 2, INT_MAX, "write many keys",
     "Writes each KEY whatever it had before and prints KEY and its new revision, one a line.\n"
     "With - instead reads standard input: lines KEY=VALUE (empty ones and those that begin with\n"
     "# are left out), or one JSON object of keys and values, in which strings are written as\n"
     "their text and other values as JSON. A KEY with = in it needs that form. Each key is written\n"
     "by itself: where some fail there is a line for each on standard error, the others\n"
     "are written, and the exit status is 2. All or nothing is what txn does.",
     "  kvctl mput config host=db1 port=5432\n"
     "  kvctl mput config - <defaults.env\n"
     "  echo '{\"host\": \"db1\", \"limits\": {\"memory\": 512}}' | kvctl mput config -\n",
     mput_options, bulk_mput},
    {"txn", "BUCKET [FILE|-]", 1, 2, "write several keys together or not at all",
     "Reads operations from FILE or standard input, commits them as one transaction and prints\n"
     "the new revision of each, one a line. If one of the conditions does not hold nothing is\n"
     "written, and the exit status is 2. One a line:\n"
     "\n"
     "  check KEY REVISION          only if KEY has this revision (0: is not there)\n"
     "  put KEY VALUE               write KEY whatever it has\n"
     "  create KEY VALUE            write KEY, only if it is not there\n"
     "  update KEY REVISION VALUE   write KEY, only if it has this revision\n"
     "  delete KEY                  delete it, keep its history\n"
     "  purge KEY                   delete it and its history\n"
     "  # a comment\n"
     "\n"
     "VALUE is the rest of the line, or in quotes \"...\" with the escapes of JSON and \\xHH for a\n"
     "byte. Conditions are about the state before the transaction.",
     "  printf '%s\\n' 'check leader 17' 'put config.port 8080' 'delete config.old' |\n"
     "      kvctl txn demo\n"
     "  kvctl txn demo changes.txt\n",
     NULL, txn_run},
    {"health", "[BUCKET]", 0, 1, "is all well?",
     "Prints the state of the daemon and its NATS connection, and of BUCKET. The exit status\n"
     "is 0 if it is healthy and 2 if it is not.",
     "  kvctl health\n"
     "  kvctl health config || systemctl status kvstored\n",
     NULL, daemon_health},
    {"stats", "", 0, 0, "show the daemon's counters", "Prints counters and latencies since the daemon's start.",
     "  kvctl stats\n", NULL, daemon_stats},
    {"ping", "", 0, 0, "measure the round trip",
     "Measures calls that the daemon answers from its memory, and prints beside them how long\n"
     "the NATS server took to answer the daemon's last ping.",
     "  kvctl ping\n"
     "  kvctl ping --count 10000\n",
     ping_options, daemon_ping},
};

#define VERB_COUNT (sizeof(verbs) / sizeof(*verbs))

static const struct verb *find_verb(const char *name)
{
    for (size_t i = 0; i < VERB_COUNT; i++) {
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    }
    return NULL;
}

/* --- Help ---------------------------------------------------------------------------------- */

static const struct verb_option global_options[] = {
    {"socket", "PATH", "the daemon's socket ($KVSTORED_SOCKET, or else\n/run/kvstored/kvstored.sock)"},
    {"json", NULL, "print all there is, as JSON"},
    {"timeout", "SECONDS", "how long a call may take (the daemon's default is 5)"},
    {"help", NULL, "print this, or with a verb what it does"},
    {"version", NULL, "print the version"},
    {0},
};

static void print_options(const struct verb_option *options)
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

static void print_help(void)
{
    puts("Usage: kvctl [OPTION]... VERB [ARGUMENT]...\n"
         "\n"
         "Reads and writes the buckets of the key-value daemon kvstored on this host.\n"
         "\n"
         "Verbs (more about one: kvctl VERB --help):");
    for (size_t i = 0; i < VERB_COUNT; i++)
        printf("  %-7s %-28s %s\n", verbs[i].name, verbs[i].arguments, verbs[i].summary);
    puts("\nOptions, before or behind the verb and its arguments:");
    print_options(global_options);
    puts("\n"
         "With --json, bytes that are UTF-8 are a string, others {\"base64\": \"...\"}.\n"
         "\n"
         "Exit status: 0 all went well; 1 the key or the bucket is not there; 2 any other\n"
         "error, which is one line on standard error.\n"
         "\n"
         "To begin with:\n"
         "  kvctl add config\n"
         "  kvctl put config greeting hello\n"
         "  kvctl get config greeting");
}

static void print_verb_help(const struct verb *verb)
{
    printf("Usage: kvctl %s%s%s%s\n\n%s\n", verb->name, *verb->arguments != '\0' ? " " : "", verb->arguments,
           verb->options != NULL ? " [OPTION]..." : "", verb->description);
    if (verb->options != NULL) {
        puts("\nOptions:");
        print_options(verb->options);
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
    struct given *given; /* the verb's options */
    size_t given_count;
};

#define GLOBAL_COUNT (sizeof(global_options) / sizeof(*global_options) - 1)

static size_t add_long_options(struct option *long_options, size_t count, const struct verb_option *options)
{
    for (; options != NULL && options->name != NULL && count < OPTIONS_MAX + GLOBAL_COUNT; options++)
        long_options[count++] = (struct option){.name = options->name,
                                                .has_arg = options->argument != NULL ? required_argument : no_argument};
    return count;
}

static bool take_global(struct command_line *line, const char *name)
{
    if (strcmp(name, "socket") == 0) {
        line->socket = optarg;
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
            return report("--timeout must be a number of seconds such as 10 or 0.5, not '%.100s'", optarg) == STATUS_OK;
    }
    return true;
}

/*
 * Reads the options of argv, the global ones and those of verb (NULL while it is not known yet; then
 * it stops at the first argument). Behind it optind is the first argument. False after a message.
 */
static bool read_options(struct command_line *line, int argc, char **argv, const struct verb *verb)
{
    struct option long_options[OPTIONS_MAX + GLOBAL_COUNT + 1] = {0};
    size_t count = add_long_options(long_options, 0, global_options);
    int place, found;

    if (verb != NULL)
        add_long_options(long_options, count, verb->options);
    optind = 0; /* GNU's way to begin anew */
    opterr = 0;
    while ((found = getopt_long(argc, argv, verb == NULL ? "+:h" : ":h", long_options, &place)) != -1) {
        const char *word = argv[optind - 1];
        const char *hint = verb != NULL ? verb->name : "";
        const char *space = verb != NULL ? " " : "";
        switch (found) {
        case 0:
            if ((size_t)place >= GLOBAL_COUNT)
                line->given[line->given_count++] = (struct given){.name = long_options[place].name, .value = optarg};
            else if (!take_global(line, long_options[place].name))
                return false;
            break;
        case 'h':
            line->help = true;
            break;
        case ':':
            return report("the option %s needs a value: see kvctl %s%s--help", word, hint, space) == STATUS_OK;
        default:
            return report("there is no option %s here: see kvctl %s%s--help", word, hint, space) == STATUS_OK;
        }
    }
    return true;
}

static enum status run_verb(const struct verb *verb, const struct command_line *line, int argc, char **argv)
{
    struct invocation invocation = {.verb = verb,
                                    .json = line->json,
                                    .terminal = isatty(STDOUT_FILENO) == 1,
                                    .timeout_s = line->timeout_s,
                                    .arguments = argv,
                                    .argument_count = argc,
                                    .given = line->given,
                                    .given_count = line->given_count};
    struct kvs_options options = {.connect_timeout_s = line->timeout_s};
    struct kvs_error error;

    if (argc < verb->arguments_min || argc > verb->arguments_max)
        return report("%s %s: kvctl %s %s (see kvctl %s --help)", verb->name,
                      argc < verb->arguments_min ? "needs more arguments" : "takes fewer arguments", verb->name,
                      verb->arguments, verb->name);
    invocation.kvs = kvs_connect(line->socket, &options, &error);
    if (invocation.kvs == NULL)
        return report_error(&error);
    enum status status = verb->run(&invocation);
    kvs_close(invocation.kvs);
    return status;
}

static enum status run(struct command_line *line, int argc, char **argv)
{
    if (!read_options(line, argc, argv, NULL))
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
    if (argc == 0 && !line->help)
        return report("a verb is missing, such as get or put: see kvctl --help");
    if (argc == 0) {
        print_help();
        return STATUS_OK;
    }

    const struct verb *verb = find_verb(argv[0]);
    if (verb == NULL)
        return report("there is no verb '%.100s': see kvctl --help", argv[0]);
    if (!read_options(line, argc, argv, verb))
        return STATUS_FAILED;
    if (line->help) {
        print_verb_help(verb);
        return STATUS_OK;
    }
    return run_verb(verb, line, argc - optind, argv + optind);
}

int main(int argc, char **argv)
{
    struct command_line line = {.given = calloc((size_t)argc + 1, sizeof(struct given))};

    if (line.given == NULL)
        return (int)report("out of memory");
    enum status status = run(&line, argc, argv);
    free(line.given);
    if (fflush(stdout) != 0 || ferror(stdout))
        status = report("cannot write the output: %s", strerror(errno));
    return (int)status;
}
