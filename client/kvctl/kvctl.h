/*
 * kvctl: the command. The table of verbs is in verbs.c, which names their functions; each family of verbs has a file. A
 * verb gets an invocation, prints its result and returns the exit status. The arguments and options of the invocation
 * were checked against the verb's row of the table, and the connection is open.
 */
#ifndef KVCTL_H
#define KVCTL_H

#include "client/lib/kvstore_admin.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum status {
    STATUS_OK = 0,
    STATUS_ABSENT = 1, /* the key or the bucket does not exist */
    /* After one line on standard error: */
    STATUS_FAILED = 2,      /* the command line or an argument is wrong; also an error without a status of its own */
    STATUS_CONFLICT = 3,    /* the key or the bucket exists, or the key has another revision */
    STATUS_REFUSED = 4,     /* not permitted, over a limit, or not supported by the server or the bucket */
    STATUS_UNAVAILABLE = 5, /* the daemon or NATS cannot be reached */
    STATUS_TIMEOUT = 6,
    STATUS_UNKNOWN = 7, /* the outcome of a write is unknown */
    STATUS_LOCKED = 8,  /* another client holds the lock */
    STATUS_LOST = 9     /* the lock was lost while the command ran */
};

#define OPTIONS_MAX 24 /* options of one verb, with the terminating element */

struct verb_option {
    const char *name;
    const char *argument; /* as the help shows it; NULL for an option without one. "N" is a number from 1 on */
    const char *help;
};

struct invocation;

struct verb {
    const char *name;
    const char *arguments; /* as the help shows them */
    int arguments_min;
    int arguments_max;
    const char *summary; /* one line */
    const char *description;
    const char *examples;
    const struct verb_option *options; /* the last has no name; NULL: none */
    enum status (*run)(struct invocation *invocation);
};

/* An option, as given on the command line. */
struct argument_option {
    const char *name;
    const char *value; /* NULL for an option without an argument */
};

struct invocation {
    const struct verb *verb;
    struct kvs *kvs;
    const char *socket; /* NULL: the default of kvs_connect */
    bool json;
    bool terminal; /* standard output is a terminal */
    double timeout_s;
    char **arguments;
    int argument_count;
    char **command; /* the words after --, of a verb that takes a COMMAND; NULL: none */
    struct argument_option *options;
    size_t option_count;
};

/* --- verbs.c -------------------------------------------------------------------------------- */

extern const struct verb verbs[]; /* in the order of the help */
extern const size_t verb_count;

/* What the options of a verb have to do with each other. */
enum option_rule_kind { OPTION_EXCLUDES, OPTION_NEEDS, OPTION_MAY_REPEAT };
struct option_rule {
    const char *verb; /* NULL: every verb that has the option */
    const char *option;
    enum option_rule_kind kind;
    const char *other; /* NULL with OPTION_MAY_REPEAT */
};
extern const struct option_rule option_rules[]; /* the last has no option */

/* Return the verb of this name, or NULL. */
const struct verb *verb_find(const char *name);

/* Return whether what follows -- on the command line is a command to run. */
bool verb_takes_command(const struct verb *verb);

/* Return whether a verb needs no daemon: then invocation->kvs is NULL. */
bool verb_is_offline(const struct verb *verb);

/* --- clock.c -------------------------------------------------------------------------------- */

/* Return the time of a clock that never jumps. */
int64_t clock_monotonic_ns(void);
int64_t clock_monotonic_ms(void);

/* Return the time since the epoch. */
int64_t clock_epoch_us(void);

/* --- signal.c ------------------------------------------------------------------------------- */

/*
 * Both functions leave out signals that kvctl ignores, as SIGHUP after nohup: kvctl and its commands leave them
 * ignored. An ignored signal would still arrive if it was blocked.
 */

/* Set the action of the signals. */
void signals_handle(const int *numbers, size_t count, const struct sigaction *action);

/* Add the signals to a set. */
void signals_add(sigset_t *set, const int *numbers, size_t count);

/* --- option_rules.c ------------------------------------------------------------------------- */

/* Check the options of an invocation by its verb's row and the rules. False after a message. */
bool option_rules_check(const struct invocation *invocation);

/* --- arguments.c: options and values from the command line ------------------------------------- */

/* Return the last value of an option (NULL if it is not given); whether an option is given. */
const char *arguments_value(const struct invocation *invocation, const char *name);
bool arguments_flag(const struct invocation *invocation, const char *name);

/*
 * Read an option's value into *number if the option is given. False after a message if the value is not a number, size
 * ("10M", "2GiB", "none" for -1) or duration ("90", "1h30m", "7d", "none" for -1).
 */
bool arguments_number(const struct invocation *invocation, const char *name, uint64_t *number);
bool arguments_limit(const struct invocation *invocation, unsigned *limit); /* of what the daemon lists: 1 to 1000 */
bool arguments_size(const struct invocation *invocation, const char *name, int64_t *size_bytes);
bool arguments_duration(const struct invocation *invocation, const char *name, int64_t *duration_s);

/* Read text as a number from 0 to 2^63-1, as far as revisions go. False after a message, which calls it what. */
bool arguments_read_number(const char *text, const char *what, uint64_t *number);

/* Read text as a duration, as arguments_duration does. */
bool arguments_read_duration(const char *text, const char *what, int64_t *duration_s);

/* Return all values of an option; free the array *values. False after a message. */
bool arguments_list(const struct invocation *invocation, const char *name, const char ***values, size_t *count);

/* Return all values NAME=VALUE of an option; free the block *pairs. False after a message. */
bool arguments_pairs(const struct invocation *invocation, const char *name, struct kvs_header **pairs, size_t *count);

/* Read --consistency and --cached; the default is direct. False after a message. */
bool arguments_consistency(const struct invocation *invocation, enum kvs_consistency *consistency);

/* Bytes followed by NUL; free them. */
struct content {
    char *bytes;
    size_t size;
};

/* Read the value that an argument stands for: its text, or for "-" all of standard input. False after a message.
 */
bool content_read(struct content *content, const char *argument);

/* Read the rest of an open file; name is for messages. False after a message. */
bool content_read_stream(struct content *content, FILE *file, const char *name);

/* Read all of a file; "-" stands for standard input. False after a message. */
bool content_read_file(struct content *content, const char *path);

/* Remove the CR at the end of a line. Returns the new size. */
size_t line_trim(char *line, size_t size);

/* --- json.c: what JSON has in its text, read in place ---------------------------------------- */

/* A position in a text that ends with NUL. Zero all other members at the beginning. */
struct json {
    char *at;
    const char *wrong; /* the reason why something cannot be read; NULL: none */
    bool is_inside;    /* a member of the object was read */
};

/*
 * Read a string in quotes at json->at and decode its escapes in place. Returns *size bytes, followed by NUL. Besides
 * the escapes of JSON there is \xHH for one byte. NULL, with the reason, if there is no string.
 */
char *json_read_string(struct json *json, size_t *size);

/* Begin an object, and go to its next member. False at the end, or with the reason in json->wrong. */
bool json_begin_object(struct json *json);
bool json_next_member(struct json *json, char **name, size_t *name_size);

/* Read a member's value: a string's bytes, or the text of any other value. False with the reason. */
bool json_read_member(struct json *json, const char **bytes, size_t *size);

/* Check that only blanks follow. False with the reason. */
bool json_end(struct json *json);

/* --- output.c ---------------------------------------------------------------------------------- */

/* From now on errors are objects of JSON, with the members code and message, and those of kvs_error_json. */
void report_as_json(void);

/* From now on errors about access name this verb. */
void report_for_verb(const char *name);

/* Print "kvctl: " and one line on standard error. Returns STATUS_FAILED. */
enum status report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same for what does not exist. Returns STATUS_ABSENT. */
enum status report_absent(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same for a change that has not come in time. Returns STATUS_TIMEOUT. */
enum status report_timeout(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Print an error of a call, with advice that names kvctl's verbs. Returns its status. */
enum status report_error(const struct kvs_error *error);

/* Print that a lock was lost, for this reason, and what that meant for a command. Returns STATUS_LOST. */
enum lost_when {
    LOST_BEFORE_COMMAND, /* it was not started */
    LOST_DURING_COMMAND, /* it was ended */
    LOST_UNNOTICED       /* it has ended by itself */
};
enum status report_lost(const struct kvs_error *reason, enum lost_when when);

/* The same as report_error of one key among several. */
enum status report_key_error(const char *key, const struct kvs_error *error);

/* Print one line on standard error that is not an error. With report_as_json an object with the member note. */
void report_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Return the status of an error, and that of several results: an unknown outcome counts most, then the first error. */
enum status status_of_error(const struct kvs_error *error);
enum status status_add(enum status status, enum status next);

/*
 * Return the status of a verb that has printed: the same, or STATUS_FAILED instead of success if standard output could
 * not be written. That is reported once; call this soon after printing, while errno has the reason.
 */
enum status print_check(enum status status);

/* Print a line of JSON that the library made, and free it; NULL: out of memory. */
enum status print_and_free(char *json);

/* After a list with --limit: print how many of all are left out, if any are. */
void print_omitted(uint64_t shown, uint64_t all);

/* Text for people, in buffers of fixed size. */
#define SHORT_TEXT_COLUMNS 76u
struct short_text {
    char text[SHORT_TEXT_COLUMNS * 4 + 4];
};
struct short_text text_of_size(uint64_t size_bytes);
struct short_text text_of_duration(int64_t duration_s);
struct short_text text_of_time(int64_t time_us);
struct short_text text_of_count(uint64_t count);                                     /* "12,345" */
struct short_text text_of_things(uint64_t count, const char *one, const char *many); /* "1 key", "12,345 keys" */
struct short_text text_of_microseconds(double us);                                   /* "1.5 ms" */
struct short_text text_of_bytes(const char *bytes, size_t size); /* cut, with escapes for what cannot be printed */
struct short_text text_of_value(const struct kvs_value *value);  /* the same of a string or binary value */
const char *text_of_operation(enum kvs_operation operation);     /* "put" */

/*
 * Print any bytes on one line of at most this number of columns. Control characters and what is not UTF-8 are written
 * as escapes. Text that does not fit is cut, with "..." at the end. Returns the columns that are used.
 */
size_t print_safely(const char *bytes, size_t size, size_t columns);

/* Print a name on a line of its own: on a terminal with escapes, otherwise as it is. */
void print_line(const struct invocation *invocation, const char *name);

/* Print a key, a tab and its value on a line; on a terminal with escapes. */
void print_key_and_value(const struct invocation *invocation, const char *key, const struct kvs_entry *entry);

/* --- table.c ----------------------------------------------------------------------------------- */

#define TABLE_COLUMNS_MAX 12

/* A table with aligned columns that is printed once all its rows are known. */
struct table {
    size_t columns;
    size_t cells;
    size_t capacity;
    char **texts;
    bool no_memory;
    bool folds; /* on a terminal, long cells continue in further lines; otherwise they are cut */
};
void table_begin(struct table *table, size_t columns);
void table_add(struct table *table, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Print and free the table. On a terminal it fits its width: the last column is cut first, then the widest ones. If
 * that is not enough, columns at the right are left out, and named in a last line.
 */
enum status table_print(struct table *table);

/* Return how many columns of a terminal are left, or a few if it is too narrow. SIZE_MAX: output is no terminal. */
size_t columns_after(size_t used);

/* Print a text after indent columns. On a terminal it continues below its beginning, as often as needed. */
void print_folded(size_t indent, const char *text);

/* Format a member's value for people. False if it does not know the name. */
typedef bool text_of_member_fn(const char *name, const struct kvs_value *value, struct short_text *text);

/* Print a map as aligned lines "name: value", nested members as "name.member". text_of_member may be NULL. */
void print_map(const struct kvs_value *map, text_of_member_fn *text_of_member);

/* --- bucket.c --------------------------------------------------------------------------------- */

/* Format a setting of a bucket that has a unit or may be none. A text_of_member_fn. */
bool bucket_text_of_setting(const char *name, const struct kvs_value *value, struct short_text *text);

/* --- complete.c ------------------------------------------------------------------------------- */

/*
 * Print the candidates for the last of the words, for the completion of a shell. globals are the options of all verbs.
 */
void complete_command_line(const struct verb_option *globals, char **words, size_t count);

/* --- sessions.c ------------------------------------------------------------------------------- */

/* Return the bytes that a session of daemon.sessions holds in the daemon. */
uint64_t sessions_held_bytes(const struct kvs_value *session);
struct short_text text_of_user(uint64_t uid); /* the name, or the number if it has none */

/* --- terminal.c ------------------------------------------------------------------------------- */

enum terminal_event {
    TERMINAL_TIME_OVER,
    TERMINAL_KEY,
    TERMINAL_RESIZED, /* or another signal */
    TERMINAL_GONE     /* the terminal was closed, or its input has ended */
};

struct terminal_size {
    size_t rows, columns;
};

/*
 * Show another screen on the terminal, without echo, until terminal_leave gives back what was there. Signals that end
 * the program do that, too; SIGINT ends it with STATUS_OK.
 */
void terminal_enter(void);
void terminal_leave(void);

struct terminal_size terminal_size(void);

/* Wait for a key, at most wait_ms. */
enum terminal_event terminal_wait(int wait_ms, char *key);

/* --- The verbs ------------------------------------------------------------------------------- */

enum status kv_get(struct invocation *invocation);
enum status kv_put(struct invocation *invocation);
enum status kv_create(struct invocation *invocation);
enum status kv_update(struct invocation *invocation);
enum status kv_del(struct invocation *invocation);
enum status kv_purge(struct invocation *invocation);
enum status revert_run(struct invocation *invocation);
enum status kv_history(struct invocation *invocation);
enum status kv_keys(struct invocation *invocation);
enum status entries_run(struct invocation *invocation);
enum status watch_run(struct invocation *invocation);

enum status bulk_mget(struct invocation *invocation);
enum status bulk_mput(struct invocation *invocation);
enum status mdel_run(struct invocation *invocation);
enum status export_run(struct invocation *invocation);
enum status import_run(struct invocation *invocation);
enum status backup_run(struct invocation *invocation);
enum status restore_run(struct invocation *invocation);
enum status check_run(struct invocation *invocation);
enum status txn_run(struct invocation *invocation);
enum status lock_run(struct invocation *invocation);

enum status bucket_add(struct invocation *invocation);
enum status bucket_edit(struct invocation *invocation);
enum status bucket_ls(struct invocation *invocation);
enum status bucket_info(struct invocation *invocation);
enum status bucket_rm(struct invocation *invocation);
enum status bucket_compact(struct invocation *invocation);

enum status daemon_health(struct invocation *invocation);
enum status daemon_ping(struct invocation *invocation);
enum status dump_run(struct invocation *invocation);
enum status stats_run(struct invocation *invocation);
enum status stats_run_metrics(struct invocation *invocation);
enum status config_run(struct invocation *invocation);
enum status sessions_run(struct invocation *invocation);
enum status sessions_kill(struct invocation *invocation);
enum status bench_run(struct invocation *invocation);
enum status touch_run(struct invocation *invocation);
enum status increment_run(struct invocation *invocation);
enum status top_run(struct invocation *invocation);

#endif
