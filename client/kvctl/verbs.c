/* The table of verbs: what each takes, and what its help says. */
#include "client/kvctl/kvctl.h"

#include <limits.h>
#include <string.h>

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
            "direct (any replica, the default; with the daemon's own server\nits memory), leader (sees every write "   \
            "acknowledged before)\nor cached (the daemon's memory)"                                                    \
    }

#define CACHED_OPTION                                                                                                  \
    {                                                                                                                  \
        "cached", NULL,                                                                                                \
            "the same as --consistency cached: from the daemon's memory,\nnever older than what this "                 \
            "host wrote or read before"                                                                                \
    }

static const struct verb_option get_options[] = {
    {"revision", "N", "the value that this revision wrote, if the history still has it"},
    CONSISTENCY_OPTION,
    CACHED_OPTION,
    {"as-json", NULL, "the value is JSON: print it parsed and written anew"},
    {0}};
static const struct verb_option mget_options[] = {CONSISTENCY_OPTION, CACHED_OPTION, {0}};
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
    {"consistency", "WHICH",
     "cached (the default; keys that do not fit into memory are\nread in one pass) or direct (any replica; each page "
     "of\n10,000 keys reads the bucket)"},
    CACHED_OPTION,
    {0},
};
static const struct verb_option watch_options[] = {
    {"history", NULL, "begin with all entries that the bucket still has of the\nkeys, and not the last one of each"},
    {"updates-only", NULL, "begin with what is written from now on"},
    {"from-revision", "N", "begin with the entry of this revision, and all behind it"},
    {"ignore-deletes", NULL, "no deletes and purges"},
    {"meta-only", NULL, "the sizes of the values instead of the values"},
    {"until-ready", NULL, "end when what is there now has been printed"},
    {"count", "N", "end after so many entries"},
    {0},
};
static const struct verb_option bench_options[] = {
    {"clients", "N", "processes at a time in the rows with many (50)"},
    {"seconds", "N", "how long each row takes (3)"},
    {"operations", "N", "instead: how many operations each row has"},
    {"in-flight", "N", "calls that each client has under way at a time (1)"},
    {"value-size", "SIZE", "bytes of a value (128)"},
    {"keys", "N", "how many keys are written and read (1000)"},
    {"bucket", "BUCKET", "use this bucket, and purge the keys afterwards; without\nit a bucket is made and removed"},
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
    {"storage", "KIND", "file or memory; cannot be changed later"},
    {"replicas", "N", "servers of the cluster that hold the bucket"},
    {"compression", "on|off", "compress what is stored"},
    {"marker-ttl", "TIME", "leave a marker for this time when a value expires, so\nthat watchers hear of it"},
    {"delete-marker-ttl", "TIME",
     "remove the markers of deleted keys after this time, at\nleast twice "
     "calls.max_timeout; none: they stay. See compact"},
    {"cluster", "NAME", "place the bucket in this cluster"},
    {"tag", "TAG", "place it on servers with this tag; may be repeated"},
    {"republish-to", "SUBJECT", "publish what is written again on this subject"},
    {"republish-from", "SUBJECT", "... of what is written to these subjects only"},
    {"republish-headers-only", NULL, "... without the values"},
    {"mirror", "BUCKET",
     "be a copy of this bucket; what is written to it goes there;\nBUCKET,domain=NAME of one in another JetStream "
     "domain;\ncannot be changed later"},
    {"source", "BUCKET",
     "gather what is written to this bucket; may be repeated;\nBUCKET,domain=NAME,filter=KEYS of some of its keys"},
    {"metadata", "NAME=VALUE", "a note that is kept with the bucket; may be repeated"},
    {0},
};

static const struct verb_option compact_options[] = {
    {"older-than", "TIME",
     "only markers older than this; none: of any age. The default\nis the bucket's --delete-marker-ttl; if it has "
     "none, any age"},
    {0},
};

/* In the order of the help. A new verb is one row here and one function. */
const struct verb verbs[] = {
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
    {"compact", "BUCKET", 1, 1, "remove the markers of deleted keys",
     "Removes the markers that deleted keys have left in BUCKET, and prints their number. A watch\n"
     "that resumes at a revision older than a removed marker must begin anew. The embedded\n"
     "server's markers stay until the old values of their keys have left its files, so the number\n"
     "may be 0. If the command times out before all are removed, run it again, or allow more time\n"
     "with --timeout.",
     "  kvctl compact sessions --older-than 1d\n"
     "  kvctl --timeout 60 compact sessions --older-than none\n",
     compact_options, bucket_compact},
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
     "Writes KEY only if it still has REVISION (0: is not there, or is deleted or expired) and\n"
     "prints the new revision;\n"
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
    {"watch", "BUCKET [FILTER...]", 1, INT_MAX, "print changes as they come",
     "Prints what is in BUCKET, then each change as it comes: time, revision, operation, key and\n"
     "value, one a line. Bytes that cannot be printed are shown as \\xHH, and on a terminal long\n"
     "values are cut; with --json each line is a whole entry. Only keys that match one of the\n"
     "FILTERs: * stands for one token, > at the end for all that follow. When the daemon goes away\n"
     "it waits, says so on standard error, and goes on behind the last revision that it printed.\n"
     "Ctrl-C ends it, with status 0.",
     "  kvctl watch config\n"
     "  kvctl watch users 'eu.*.name' 'us.>' --updates-only\n"
     "  kvctl --json watch config --until-ready | jq -r .key\n"
     "  kvctl watch jobs --updates-only --count 1 && run-next-job\n",
     watch_options, watch_run},
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
    {"stats", "", 0, 0, "show the daemon's counters",
     "Prints the counters since the daemon's start, and the latencies of each method that was\n"
     "called. With --json everything, under the names of the protocol's daemon.stats.",
     "  kvctl stats\n"
     "  kvctl --json stats | jq .watches\n",
     NULL, stats_run},
    {"ping", "", 0, 0, "measure the round trip",
     "Measures calls that the daemon answers from its memory, and prints beside them how long\n"
     "the NATS server took to answer the daemon's last ping.",
     "  kvctl ping\n"
     "  kvctl ping --count 10000\n",
     ping_options, daemon_ping},
    {"bench", "[put|get|cached]...", 0, 3, "measure reads and writes",
     "Measures puts, gets, and gets with consistency cached, or only the operations that are named:\n"
     "first with one client, then with many at once. A client is a process with a connection of its\n"
     "own, as programs are. Prints operations per second and what share of the calls took how long.\n"
     "Every answer is checked: no revision comes twice, and each value is read as it was written.",
     "  kvctl bench\n"
     "  kvctl bench get cached --clients 200 --value-size 1K\n"
     "  kvctl bench put --operations 100000 --in-flight 16\n",
     bench_options, bench_run},
};

const size_t verb_count = sizeof(verbs) / sizeof(*verbs);

const struct verb *verb_find(const char *name)
{
    for (size_t i = 0; i < verb_count; i++) {
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    }
    return NULL;
}
