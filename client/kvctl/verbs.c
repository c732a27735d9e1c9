/* The table of verbs: the arguments and options of each, and its help. */
#include "client/kvctl/kvctl.h"

#include <limits.h>
#include <string.h>

#define TTL_OPTION                                                                                                     \
    {                                                                                                                  \
        "ttl", "TIME", "the value expires after this time (30, 90s, 1h30m, 7d)"                                        \
    }

#define VALUE_TEXT                                                                                                     \
    "VALUE is written as given. If it is -, kvctl reads the value from standard input, byte for\n"                     \
    "byte. Write a VALUE that begins with a dash after --."

#define CONSISTENCY_OPTION                                                                                             \
    {                                                                                                                  \
        "consistency", "WHICH",                                                                                        \
            "direct (default: any replica may answer; in embedded mode as\ncached), leader (sees every write that "    \
            "was acknowledged before)\nor cached (the daemon's cache)"                                                 \
    }

#define CACHED_OPTION                                                                                                  \
    {                                                                                                                  \
        "cached", NULL,                                                                                                \
            "the same as --consistency cached: the daemon's cache, never\nolder than what this host has written or "   \
            "read"                                                                                                     \
    }

static const struct verb_option get_options[] = {
    {"revision", "N", "the value of this revision, if the history still has it"},
    {"wait-above", "REVISION", "wait until KEY has a higher revision; a deleted key is a change"},
    CONSISTENCY_OPTION,
    CACHED_OPTION,
    {"as-json", NULL, "the value is JSON: parse and reformat it"},
    {0}};
static const struct verb_option mget_options[] = {CONSISTENCY_OPTION, CACHED_OPTION, {0}};
static const struct verb_option mput_options[] = {
    TTL_OPTION,
    {"from-line", "N", "leave out the lines before this one, to continue after an error"},
    {0},
};
static const struct verb_option mdel_options[] = {
    {"purge", NULL, "end also the history of each key"},
    {"yes", NULL, "do not ask, even on a terminal"},
    {0},
};
static const struct verb_option create_options[] = {
    TTL_OPTION, {"header", "NAME=VALUE", "store a header with the value; may be repeated"}, {0}};
static const struct verb_option touch_options[] = {
    {"revision", "N", "only if the key still has this revision"},
    {0},
};
static const struct verb_option put_options[] = {
    TTL_OPTION,
    {"keep-ttl", NULL, "a TTL that the key has goes on; --ttl is for a key without one"},
    {"header", "NAME=VALUE", "store a header with the value; may be repeated"},
    {0}};
static const struct verb_option incr_options[] = {
    {"initial", "NUMBER", "what KEY counts as if it does not exist (0)"},
    {"ttl", "TIME", "the new value expires after this time (30, 90s, 1h30m, 7d);\ndefault: a TTL that KEY has goes on"},
    {"keep-ttl", NULL, "with --ttl: a TTL that KEY has goes on"},
    {0},
};
static const struct verb_option del_options[] = {
    {"revision", "N", "delete only if the key still has this revision"},
    {"marker", NULL, "write a marker even if the key does not exist"},
    {0},
};
static const struct verb_option purge_options[] = {
    {"revision", "N", "purge only if the key still has this revision"},
    {"ttl", "TIME", "the marker that is left expires after this time"},
    {"all", NULL, "remove all keys of the bucket; without a KEY"},
    {0},
};
static const struct verb_option keys_options[] = {
    {"limit", "N", "print at most N keys"},
    {"after", "KEY", "print only keys after this one in byte order"},
    {"consistency", "WHICH",
     "cached (default; keys that do not fit into the cache are read\nin one pass) or direct (any replica may answer; "
     "each page of\n10,000 keys reads the whole bucket)"},
    CACHED_OPTION,
    {0},
};
static const struct verb_option entries_options[] = {
    {"limit", "N", "print at most N entries"},
    {"after", "KEY", "print only entries of keys after this one in byte order"},
    {"consistency", "WHICH",
     "cached (default), direct or leader (both ask NATS in external\nmode, and each page reads all keys that match)"},
    CACHED_OPTION,
    {0},
};
static const struct verb_option watch_options[] = {
    {"history", NULL, "begin with all entries that the bucket still has of the\nkeys, not only the newest of each"},
    {"updates-only", NULL, "begin with the next write"},
    {"from-revision", "N", "begin with the entry of revision N and all later ones"},
    {"ignore-deletes", NULL, "leave out deletes and purges"},
    {"meta-only", NULL, "print the size of each value instead of the value"},
    {"previous", NULL, "needs --json: changes have the value before them, if the daemon\nhas it in memory"},
    {"until-ready", NULL, "exit after the entries from before the watch"},
    {"count", "N", "exit after N entries"},
    {"keep-going", NULL, "continue if COMMAND fails; otherwise kvctl exits with its status"},
    {0},
};
#define WAIT_OPTION                                                                                                    \
    {                                                                                                                  \
        "wait", "TIME", "give up if the daemon or NATS is away for this long (60)"                                     \
    }
static const struct verb_option export_options[] = {
    {"history", NULL, "write all entries that the bucket still has of the keys,\nnot only the newest of each"},
    WAIT_OPTION,
    {0},
};
static const struct verb_option import_options[] = {
    {"into", NULL, "write into a bucket that has keys; imported values replace\nthe values of keys that exist"},
    {"skip-refused", NULL, "leave out, and name, entries that kvstored does not write"},
    {"replicas", "N", "if the bucket is created: servers that hold it; default:\nas it was exported"},
    WAIT_OPTION,
    {0},
};
static const struct verb_option backup_options[] = {
    {"history", NULL, "write all entries that the buckets still have"},
    WAIT_OPTION,
    {0},
};
static const struct verb_option restore_options[] = {
    {"bucket", "BUCKET", "restore only this bucket; may be repeated"},
    {"into", NULL, "write into buckets that have keys"},
    {"skip-refused", NULL, "leave out, and name, entries that kvstored does not write"},
    {"replicas", "N", "servers that hold a bucket that is created; default: as it\nwas backed up"},
    WAIT_OPTION,
    {0},
};
static const struct verb_option bench_options[] = {
    {"clients", "N", "number of client processes in the rows with many (50)"},
    {"seconds", "N", "duration of each row (3)"},
    {"operations", "N", "number of operations of each row, instead of a duration"},
    {"in-flight", "N", "calls that each client has in flight (1)"},
    {"value-size", "SIZE", "bytes of a value (128)"},
    {"keys", "N", "number of keys to write and read (1000)"},
    {"bucket", "BUCKET", "use this bucket and purge the keys afterwards; default: create\na bucket and delete it"},
    {0},
};
static const struct verb_option ls_options[] = {
    {"names", NULL, "print only names, even to a terminal"},
    {"long", NULL,
     "print the table, even if the output is not a terminal; with\n--json, print the settings and state of each "
     "bucket"},
    {0},
};
static const struct verb_option dump_options[] = {{"limit", "N", "number of items of each list (100), at most 1000"},
                                                  {0}};
static const struct verb_option config_options[] = {
    {"set", NULL, "only what is set: leave out the defaults"},
    {0},
};
static const struct verb_option top_options[] = {
    {"interval", "SECONDS", "time between two screens (1)"},
    {"once", NULL, "measure one interval, print one screen, and exit"},
    {"count", "N", "print N screens one after the other, and exit"},
    {0},
};
static const struct verb_option sessions_options[] = {
    {"sort", "ORDER",
     "rate (calls in the last second; the default), calls, in-flight,\nbytes (held), traffic (bytes received and "
     "sent), "
     "watches or age:\nthe largest first"},
    {"limit", "N", "print at most N sessions, up to 1000 (100)"},
    {0},
};
static const struct verb_option ping_options[] = {{"count", "N", "number of round trips (100)"}, {0}};

static const struct verb_option lock_options[] = {
    {"wait", "TIME", "wait so long until the lock is free; none: without a limit.\nDefault: do not wait"},
    {"value", "TEXT", "what others see of the holder; default: host, pid and program"},
    {0},
};

/* Named like the members of the protocol's settings, so that the daemon's messages name the option. */
/* clang-format off */
#define SETTING_OPTIONS \
    {"description", "TEXT", "description of the bucket"}, \
    {"history", "N", "values kept per key, 1 to 64"}, \
    {"ttl", "TIME", "values expire after this time (1h, 7d); none: never"}, \
    {"max-bytes", "SIZE", "limit of the whole bucket (10M, 2G); none: no limit"}, \
    {"max-value-size", "SIZE", "limit of one value (64K); none: no limit"}, \
    {"storage", "KIND", "file or memory; cannot be changed later"}, \
    {"replicas", "N", "number of servers of the cluster that hold the bucket"}, \
    {"compression", "on|off", "compress the stored data"}, \
    {"limit-marker-ttl", "TIME", "when a value expires, leave a marker for this time, so that\nwatches report it"}, \
    {"marker-ttl", "TIME", \
     "remove the markers of deleted keys after this time, at least\ntwice calls.max_timeout; none: never. See compact"}, \
    {"cluster", "NAME", "place the bucket in this cluster"}, \
    {"tag", "TAG", "place the bucket on servers with this tag; may be repeated"}, \
    {"republish-to", "SUBJECT", "publish each write again on this subject"}, \
    {"republish-from", "SUBJECT", "... only writes to these subjects"}, \
    {"republish-headers-only", NULL, "... without the values"}, \
    {"mirror", "BUCKET", \
     "copy this bucket and forward writes to it;\nBUCKET,domain=NAME for one in another JetStream domain;\ncannot be " \
     "changed later"}, \
    {"source", "BUCKET", \
     "gather the writes to this bucket; may be repeated;\nBUCKET,domain=NAME,filter=KEYS for some of its keys"}, \
    {"metadata", "NAME=VALUE", "store a note with the bucket; may be repeated"},
/* clang-format on */

static const struct verb_option edit_options[] = {
    {"force", NULL, "also apply settings that remove stored values at once"},
    SETTING_OPTIONS{0},
};
static const struct verb_option add_options[] = {
    {"update", NULL, "if the bucket exists, change the settings that are given"},
    {"force", NULL, "... also settings that remove stored values at once"},
    SETTING_OPTIONS{0},
};

static const struct verb_option compact_options[] = {
    {"older-than", "TIME",
     "only markers older than this; none: of any age. Default: the\nbucket's --marker-ttl, or 30 minutes if it has "
     "none"},
    {0},
};

/* An option that is not here may be given once, and goes with every other one. */
const struct option_rule option_rules[] = {
    {NULL, "header", OPTION_MAY_REPEAT, NULL},
    {NULL, "tag", OPTION_MAY_REPEAT, NULL},
    {NULL, "source", OPTION_MAY_REPEAT, NULL},
    {NULL, "metadata", OPTION_MAY_REPEAT, NULL},
    {NULL, "mirror", OPTION_EXCLUDES, "source"},
    {NULL, "republish-from", OPTION_NEEDS, "republish-to"},
    {NULL, "republish-headers-only", OPTION_NEEDS, "republish-to"},
    {"add", "force", OPTION_NEEDS, "update"},
    {"bench", "seconds", OPTION_EXCLUDES, "operations"},
    {"del", "marker", OPTION_EXCLUDES, "revision"},
    {"ls", "names", OPTION_EXCLUDES, "long"},
    {"get", "revision", OPTION_EXCLUDES, "cached"},
    {"get", "revision", OPTION_EXCLUDES, "consistency"},
    {"get", "wait-above", OPTION_EXCLUDES, "revision"},
    {"get", "wait-above", OPTION_EXCLUDES, "as-json"},
    {"incr", "keep-ttl", OPTION_NEEDS, "ttl"},
    {"purge", "all", OPTION_EXCLUDES, "revision"},
    {"purge", "all", OPTION_EXCLUDES, "ttl"},
    {"restore", "bucket", OPTION_MAY_REPEAT, NULL},
    {"top", "once", OPTION_EXCLUDES, "count"},
    {"watch", "previous", OPTION_EXCLUDES, "meta-only"},
    {"watch", "history", OPTION_EXCLUDES, "updates-only"},
    {"watch", "history", OPTION_EXCLUDES, "from-revision"},
    {"watch", "updates-only", OPTION_EXCLUDES, "from-revision"},
    {0},
};

/* In the order of the help. A new verb is one row here and one function. */
const struct verb verbs[] = {
    {"add", "BUCKET", 1, 1, "create a bucket",
     "Creates BUCKET and prints its settings. Settings that are not given get the server's\n"
     "defaults. It is an error if the bucket exists with other settings, unless --update is given:\n"
     "then it is changed, as by edit. So a script can run again.",
     "  kvctl add config\n"
     "  kvctl add config --update --history 10\n"
     "  kvctl add sessions --ttl 1h --max-bytes 100M --storage memory\n",
     add_options, bucket_add},
    {"edit", "BUCKET", 1, 1, "change a bucket's settings",
     "Changes the given settings, keeps the others, and prints the result. It also upgrades a\n"
     "bucket that another client created, so that it takes transactions and values with a TTL.\n"
     "A smaller --history, --ttl or --max-bytes that would remove stored values at once is refused\n"
     "with status 4, unless --force is given.",
     "  kvctl edit config --history 10\n"
     "  kvctl edit config\n",
     edit_options, bucket_edit},
    {"ls", "[FILTER]", 0, 1, "list the buckets",
     "Prints a table of the buckets on a terminal, otherwise their names, one per line. FILTER\n"
     "is a pattern for the names: * matches any characters, ? one. VALUES also counts the history\n"
     "and the markers of deleted keys.",
     "  kvctl ls\n"
     "  kvctl ls --names 'user*'\n",
     ls_options, bucket_ls},
    {"info", "[BUCKET]", 0, 1, "show a bucket, or the daemon",
     "Prints a bucket's settings and state. values counts all stored messages: the newest value of\n"
     "each key, older values in the history, and markers of deleted keys. Without BUCKET, prints the\n"
     "daemon's version and limits, and its NATS server.",
     "  kvctl info config\n"
     "  kvctl --json info | jq .version\n",
     NULL, bucket_info},
    {"rm", "BUCKET", 1, 1, "delete a bucket with all its keys",
     "Deletes BUCKET with all its keys, without asking. This cannot be undone.", "  kvctl rm config\n", NULL,
     bucket_rm},
    {"compact", "BUCKET", 1, 1, "remove the markers of deleted keys",
     "Removes the markers that deleted keys have left in BUCKET, and prints their number. A watch\n"
     "that resumes at a revision older than a removed marker must start again. In embedded mode a\n"
     "marker stays until the server's files no longer have the old values of its key, so the\n"
     "number may be 0. If the command times out, run it again, or allow more time with --timeout.",
     "  kvctl compact sessions --older-than 1d\n"
     "  kvctl --timeout 60 compact sessions --older-than none\n",
     compact_options, bucket_compact},
    {"get", "BUCKET KEY", 2, 2, "print a key's value",
     "Prints the value byte for byte, followed by a newline only on a terminal. With --json,\n"
     "prints the whole entry: key, value, revision, created (microseconds since 1970), operation,\n"
     "headers, and if it has a TTL, when it expires. The exit status is 1 if the key does not exist.\n"
     "With --wait-above, waits for a change for up to --timeout (5 seconds); if there is none, prints\n"
     "the present value, and the exit status is 6.",
     "  kvctl get config port\n"
     "  kvctl get config logo >logo.png\n"
     "  kvctl get config limits --as-json | jq .memory\n"
     "  kvctl --json get config port | jq .revision\n"
     "  kvctl --timeout 60 get config port --wait-above \"$revision\"\n",
     get_options, kv_get},
    {"put", "BUCKET KEY VALUE|-", 3, 3, "write a key",
     "Writes KEY unconditionally and prints the new revision.\n" VALUE_TEXT,
     "  kvctl put config port 8080\n"
     "  kvctl put config logo - <logo.png\n"
     "  kvctl put sessions 4711 alice --ttl 30m\n",
     put_options, kv_put},
    {"create", "BUCKET KEY VALUE|-", 3, 3, "write a key that does not exist yet",
     "Writes KEY only if it does not exist (or is deleted) and prints the new revision. The exit\n"
     "status is 3 if the key exists. If several processes try at once, one succeeds.\n" VALUE_TEXT,
     "  kvctl create locks backup \"$HOSTNAME\" --ttl 10m && run-backup\n", create_options, kv_create},
    {"update", "BUCKET KEY VALUE|- REVISION", 4, 4, "write a key if it is unchanged",
     "Writes KEY only if it still has REVISION (0: it does not exist, or is deleted or expired)\n"
     "and prints the new revision. The exit status is 3 if the key has changed.\n" VALUE_TEXT,
     "  revision=$(kvctl --json get config port | jq .revision)\n"
     "  kvctl update config port 8081 \"$revision\"\n",
     put_options, kv_update},
    {"touch", "BUCKET KEY TIME", 3, 3, "change when a value expires",
     "Lets the value of KEY expire after TIME (30, 90s, 1h30m, 7d) from now, or never (none), and\n"
     "prints the new revision. The value stays. If the key does not exist, writes nothing, and the\n"
     "exit status is 1.",
     "  kvctl touch sessions 4711 30m\n"
     "  kvctl touch sessions 4711 none\n",
     touch_options, touch_run},
    {"incr", "BUCKET KEY [DELTA]", 2, 3, "add to a number",
     "Adds DELTA (default 1) to the number that KEY has as its value, and prints the new value. A\n"
     "KEY that does not exist counts as 0. Any number of processes may do so at once: each of them\n"
     "gets another value. Write a negative DELTA after --.",
     "  kvctl incr stats visits\n"
     "  kvctl incr stock apples -- -3\n"
     "  test \"$(kvctl incr limits \"login.$user\" --ttl 60s --keep-ttl)\" -le 5 || echo 'too many'\n",
     incr_options, increment_run},
    {"del", "BUCKET KEY", 2, 2, "delete a key, keep its history",
     "Writes a marker that says that the key is deleted, and prints the marker's revision. The\n"
     "older values stay in the history. If the key does not exist, writes nothing, and the exit\n"
     "status is 1.",
     "  kvctl del config port\n"
     "  kvctl del config port --revision 17\n",
     del_options, kv_del},
    {"purge", "BUCKET [KEY]", 1, 2, "delete a key and its history",
     "Deletes KEY with its history, leaves a marker, and prints the marker's revision. With\n"
     "--all instead of a KEY, removes all keys of the bucket.",
     "  kvctl purge config port\n"
     "  kvctl purge config --all\n",
     purge_options, kv_purge},
    {"history", "BUCKET KEY", 2, 2, "show the earlier values of a key",
     "Prints a table of the values and markers that the bucket still has of KEY, oldest first.\n"
     "The bucket's setting history limits their number. Long values are cut; --json prints them\n"
     "whole.",
     "  kvctl history config port\n", NULL, kv_history},
    {"revert", "BUCKET KEY REVISION", 3, 3, "write an earlier value again",
     "Writes the value that KEY had at REVISION, with its headers and its TTL, and prints the new\n"
     "revision. The bucket must have a history that still has the value. If KEY is written\n"
     "meanwhile, writes nothing, and the exit status is 3. If the value of REVISION is the present\n"
     "one, writes nothing.",
     "  kvctl history config port\n"
     "  kvctl revert config port 17\n",
     NULL, revert_run},
    {"keys", "BUCKET [FILTER]", 1, 2, "list the keys",
     "Prints the keys in byte order, one per line, without loading their values. FILTER is a\n"
     "pattern of tokens between dots: * matches one token, > at the end all remaining ones.",
     "  kvctl keys config\n"
     "  kvctl keys users 'eu.*.name'\n"
     "  kvctl keys users --limit 100 --after eu.alice.name\n",
     keys_options, kv_keys},
    {"entries", "BUCKET [FILTER]", 1, 2, "list the keys with their values",
     "Prints KEY, a tab and VALUE for each key, in byte order of the keys. With --json, prints an\n"
     "array of whole entries. FILTER is a pattern of tokens between dots: * matches one token, > at\n"
     "the end all remaining ones. The entries are read in pages of up to 1,000, each of which is\n"
     "one point in time. For the whole bucket at one point in time, use export.",
     "  kvctl entries config\n"
     "  kvctl entries users 'eu.*.name' --limit 10\n"
     "  kvctl --json entries config | jq -r '.[].key'\n",
     entries_options, entries_run},
    {"watch", "BUCKET [FILTER...] [-- COMMAND...]", 1, INT_MAX, "print changes, or run a command for each",
     "Prints the entries of BUCKET, then each change: time, revision, operation, key and value,\n"
     "one per line. Bytes that cannot be printed are shown as \\xHH, and long values are cut on a\n"
     "terminal; with --json each line is a whole entry. With FILTERs, prints only keys that match\n"
     "one of them: * matches one token, > at the end all remaining ones. If the connection to the\n"
     "daemon is lost, kvctl reconnects, and resumes after the last revision that it printed. It\n"
     "says so on standard error if the daemon is not there at once. Ctrl-C ends it with status 0.\n"
     "\n"
     "With COMMAND, runs it for each entry instead of printing, one at a time and in order. The\n"
     "value is its standard input, with --json the whole entry. Its environment has KVCTL_BUCKET,\n"
     "KVCTL_KEY, KVCTL_OPERATION (put, delete or purge) and KVCTL_REVISION. If it fails, kvctl\n"
     "exits with its status. kvctl passes SIGINT, SIGTERM and SIGHUP on to it, waits for it, and\n"
     "ends with status 0.",
     "  kvctl watch config\n"
     "  kvctl watch users 'eu.*.name' 'us.>' --updates-only\n"
     "  kvctl --json watch config --until-ready | jq -r .key\n"
     "  kvctl watch jobs --updates-only --count 1 && run-next-job\n"
     "  kvctl watch config 'nginx.>' --updates-only -- systemctl reload nginx\n"
     "  kvctl watch config -- sh -c 'cat >\"/run/app/$KVCTL_KEY\"'\n",
     watch_options, watch_run},
    {"mget", "BUCKET KEY...", 2, INT_MAX, "print the values of several keys",
     "Prints KEY, a tab and VALUE for each key that exists, one per line, in the order of the\n"
     "command line. With --json, prints an object of whole entries, null for a key that does not\n"
     "exist. The values are of one point in time (up to 1,024 keys, except with --consistency\n"
     "leader). The exit status is 1 if a key does not exist.",
     "  kvctl mget config host port\n"
     "  kvctl keys config | xargs kvctl --json mget config | jq .port.value\n",
     mget_options, bulk_mget},
    {"mput", "BUCKET KEY=VALUE...|-", 2, INT_MAX, "write several keys",
     "Writes each KEY unconditionally and prints KEY and its new revision, one per line. With -,\n"
     "reads standard input: lines KEY=VALUE (empty lines and lines that begin with # are skipped)\n"
     "or one JSON object of keys and values. Strings are written as their text, other values as\n"
     "JSON. A KEY that contains = needs the JSON form. Keys are independent of each other: for\n"
     "each key that fails there is a line on standard error, the others are written, and the exit\n"
     "status is that of the errors. If the daemon or NATS is away, or the store is full, mput stops,\n"
     "and says which lines are written and how to continue. All input is read into memory first: a\n"
     "wrong line, or a key with two values, writes nothing. To write all or nothing, use txn. To\n"
     "write each line once, even after interruptions, or more than fits into memory, use import.",
     "  kvctl mput config host=db1 port=5432\n"
     "  kvctl mput config - <defaults.env\n"
     "  echo '{\"host\": \"db1\", \"limits\": {\"memory\": 512}}' | kvctl mput config -\n",
     mput_options, bulk_mput},
    {"mdel", "BUCKET FILTER", 2, 2, "delete all keys that match",
     "Deletes each key that FILTER matches, and prints their number. FILTER is a pattern of tokens\n"
     "between dots: * matches one token, > at the end all remaining ones. If there is a terminal,\n"
     "kvctl asks there first, unless --yes is given. Each key gets a marker, so that watches report\n"
     "it. A key that is written meanwhile keeps its new value. If the command times out, run it\n"
     "again, or allow more time with --timeout.",
     "  kvctl mdel sessions 'user.4711.>'\n"
     "  kvctl --timeout 60 mdel sessions '>' --purge --yes\n",
     mdel_options, mdel_run},
    {"txn", "BUCKET [FILE|-]", 1, 2, "write several keys together or not at all",
     "Reads operations from FILE or standard input, commits them as one transaction, and prints\n"
     "the new revision of each, one per line. If a condition does not hold, nothing is written,\n"
     "and the exit status is 3. One operation per line:\n"
     "\n"
     "  check KEY REVISION          only if KEY has this revision (0: it does not exist)\n"
     "  put KEY VALUE               write KEY unconditionally\n"
     "  create KEY VALUE            write KEY if it does not exist\n"
     "  update KEY REVISION VALUE   write KEY if it has this revision\n"
     "  delete KEY                  delete KEY, keep its history\n"
     "  purge KEY                   delete KEY and its history\n"
     "  # a comment\n"
     "\n"
     "VALUE is the rest of the line, or text in double quotes with the escapes of JSON and \\xHH\n"
     "for a byte. Conditions are about the state before the transaction.",
     "  printf '%s\\n' 'check leader 17' 'put config.port 8080' 'delete config.old' |\n"
     "      kvctl txn demo\n"
     "  kvctl txn demo changes.txt\n",
     NULL, txn_run},
    {"lock", "BUCKET [NAME -- COMMAND...]", 1, INT_MAX, "run a command while holding a lock",
     "Acquires the lock NAME, runs COMMAND, and releases the lock when COMMAND ends. Of all hosts\n"
     "of a NATS cluster, one at a time holds it. The exit status is that of COMMAND, or 128 and the\n"
     "signal that ended it; 8 if another client holds the lock; 9 if the lock was lost. Then COMMAND\n"
     "gets SIGTERM, and SIGKILL before another client can have the lock. COMMAND gets the signals\n"
     "that kvctl gets, ends with kvctl, and finds KVSTORED_LOCK_BUCKET, KVSTORED_LOCK_NAME and\n"
     "KVSTORED_LOCK_TOKEN in its environment. Without NAME, lists the locks and ephemeral keys.",
     "  kvctl lock jobs nightly -- run-nightly-job\n"
     "  kvctl lock jobs deploy --wait 10m --value \"$USER\" -- ./deploy.sh production\n"
     "  kvctl lock jobs\n",
     lock_options, lock_run},
    {"export", "BUCKET [FILE|-]", 1, 2, "write a bucket to a file",
     "Writes what BUCKET holds at one point in time: a line of JSON with the bucket's settings,\n"
     "one for each key, and a last one with the revision, the number of entries and a SHA-256.\n"
     "Without FILE, or with -, prints it. FILE appears under its name only when it is complete;\n"
     "only its owner can read it. Clients may write meanwhile: a key that is written then may have\n"
     "several lines, of which the last one counts. Delete markers are lines, too. Values that are\n"
     "not UTF-8 are written as {\"base64\": \"...\"}. If the daemon restarts, kvctl reconnects and\n"
     "continues.",
     "  kvctl export config config.jsonl\n"
     "  kvctl export config | zstd >config.jsonl.zst\n",
     export_options, export_run},
    {"import", "[BUCKET] FILE|-", 1, 2, "write an export into a bucket",
     "Creates the bucket (default: of the name in FILE) with the settings in FILE, and writes the\n"
     "entries of FILE, which kvctl export has written. A bucket that exists must be empty, unless\n"
     "--into is given. Up to 999 entries are written in one transaction, which also notes in the\n"
     "key _kvctl.import how far the import is; at the end that key is removed. So each entry is\n"
     "written exactly once: if an import is interrupted, run the same command again, and it\n"
     "continues after the last transaction. If the daemon restarts, kvctl reconnects and continues.\n"
     "Revisions and times are new. A value with a TTL keeps the time at which it expires; if that\n"
     "has passed, it is left out, as are locks and ephemeral keys. First checks all of a FILE.",
     "  kvctl import config.jsonl\n"
     "  kvctl import settings config.jsonl\n"
     "  zstd -dc config.jsonl.zst | kvctl import -\n",
     import_options, import_run},
    {"backup", "DIRECTORY", 1, 1, "write all buckets to a directory",
     "Writes an export of each bucket, and a manifest with their checksums, to the new DIRECTORY.\n"
     "Each bucket is at one point in time; different buckets are at different ones. DIRECTORY\n"
     "appears under its name only when it is complete. The daemon runs on meanwhile.",
     "  kvctl backup /var/backups/kvstored-$(date +%F)\n", backup_options, backup_run},
    {"restore", "DIRECTORY", 1, 1, "write the buckets of a backup",
     "Imports all buckets of a backup as kvctl import does, after all its checksums were verified.\n"
     "Buckets that exist must be empty. If it is interrupted, run the same command again: it\n"
     "continues.",
     "  kvctl restore /var/backups/kvstored-2026-01-31\n"
     "  kvctl restore /var/backups/kvstored-2026-01-31 --bucket config\n",
     restore_options, restore_run},
    {"check", "PATH", 1, 1, "check a backup, an export or a data directory",
     "Checks without the daemon that PATH is complete and undamaged: the directory of a backup\n"
     "(manifest, checksums, each line), the file of an export, or the data directory of an embedded\n"
     "server, which must be stopped (permissions, lock, the checksum of each stored message).",
     "  kvctl check /var/backups/kvstored-2026-01-31\n"
     "  systemctl stop kvstored.socket kvstored && sudo -u kvstored kvctl check /var/lib/kvstored\n",
     NULL, check_run},
    {"health", "[BUCKET]", 0, 1, "check the health",
     "Prints the state of the daemon and its NATS connection, and of BUCKET. The exit status\n"
     "is 0 if all of it is healthy, and 5 if not. values also counts the history and the markers of\n"
     "deleted keys.",
     "  kvctl health\n"
     "  kvctl health config || systemctl status kvstored\n",
     NULL, daemon_health},
    {"stats", "", 0, 0, "show the daemon's counters",
     "Prints the counters since the daemon started, and the latencies of each method that was\n"
     "called. With --json, prints everything under the names of the protocol's daemon.stats.",
     "  kvctl stats\n"
     "  kvctl --json stats | jq .watches\n",
     NULL, stats_run},
    {"metrics", "", 0, 0, "print the daemon's metrics for Prometheus",
     "Prints what the daemon serves over HTTP if metrics.listen is set: the counters since its start,\n"
     "latencies, and the state of what it does, as a text in the format of OpenMetrics. With --json,\n"
     "prints the text as one string.",
     "  kvctl metrics | grep ^kvstored_calls_total\n", NULL, stats_run_metrics},
    {"dump", "", 0, 0, "show what the daemon is doing now",
     "Prints the sessions that are not idle, the calls in flight (the oldest first), the requests to\n"
     "NATS, the watches, the buckets that the daemon follows, and the writes that wait for a group\n"
     "commit. If there are access rules, this needs admin for all buckets.",
     "  kvctl dump\n"
     "  kvctl --json dump --limit 1000 | jq '.calls.list[] | select(.age_ms > 1000)'\n",
     dump_options, dump_run},
    {"config", "[FILTER]", 0, 1, "show the daemon's configuration",
     "Prints the settings in effect, and where each value comes from: the file and its line, the\n"
     "environment, systemd's socket unit, or the default. FILTER is a pattern for their names: *\n"
     "matches any characters. --json prints the whole configuration, and excludes FILTER and --set.\n"
     "Secrets are not shown. If there are access rules, this needs admin for all buckets.",
     "  kvctl config --set\n"
     "  kvctl config 'limits.*'\n"
     "  kvctl --json config | jq -r '.settings[\"cache.max_bytes\"].value'\n",
     config_options, config_run},
    {"sessions", "", 0, 0, "show who is connected",
     "Prints the sessions: id (* is kvctl's own), process, program and user, age, calls so far and in\n"
     "the last second, calls in flight, the bytes that the daemon holds for it, bytes received and\n"
     "sent, and watches. If there are access rules, users without admin for all buckets see only\n"
     "their own sessions. See kill.",
     "  kvctl sessions\n"
     "  kvctl sessions --sort bytes --limit 10\n"
     "  kvctl --json sessions | jq '.list[] | select(.idle_ms > 3600000) | .id'\n",
     sessions_options, sessions_run},
    {"top", "", 0, 0, "show what is busy, live",
     "Shows once a second what the daemon is busy with: methods, buckets that it follows, sessions,\n"
     "the connection to NATS and the cache. q or Ctrl-C ends it. If the output is no terminal,\n"
     "prints one screen after the other, without limits of width. Percentiles are those since the\n"
     "start of the daemon. Buckets are shown to users with admin for all buckets.",
     "  kvctl top\n"
     "  kvctl top --once | grep -A 3 METHOD\n"
     "  kvctl --json top --interval 60 >>top.json\n",
     top_options, top_run},
    {"kill", "SESSION", 1, 1, "end a session",
     "Ends the session with this id (see sessions), as if its client had disconnected: its watches\n"
     "end, and writes that were sent to NATS are completed. Its client gets an error that says who\n"
     "has done it, and may connect again. Users may end their own sessions; root, the daemon's\n"
     "user, and who has admin for all buckets by an access rule may end any.",
     "  kvctl kill 17\n"
     "  kvctl sessions --sort in-flight --limit 1 && kvctl kill 17\n",
     NULL, sessions_kill},
    {"ping", "", 0, 0, "measure the round trip time",
     "Measures calls that the daemon answers from memory, and prints beside them the round trip\n"
     "time of the daemon's last ping to the NATS server.",
     "  kvctl ping\n"
     "  kvctl ping --count 10000\n",
     ping_options, daemon_ping},
    {"bench", "[put|get|cached]...", 0, 3, "measure reads and writes",
     "Measures puts, gets, and gets from the daemon's cache, or only the given operations: first\n"
     "with one client, then with many at once. Each client is a process with its own connection.\n"
     "Prints operations per second and the distribution of latencies. Checks every answer: each\n"
     "revision is new, and each value is read as it was written.",
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

bool verb_takes_command(const struct verb *verb)
{
    return strstr(verb->arguments, "-- COMMAND") != NULL;
}

bool verb_is_offline(const struct verb *verb)
{
    return verb->run == check_run;
}
