/* The verb txn: commits a transaction from a text with one operation per line. */
#include "client/kvctl/kvctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where an operation or a check is, for messages. */
struct statement {
    unsigned line;
    const char *key; /* in the script's text */
    bool has_condition;
};

/* The text, which is parsed in place. */
struct script {
    const char *name; /* of the file, for messages */
    struct content text;
    struct json at; /* in the current line, which ends with NUL */
    unsigned line;
    struct statement *statements;
    size_t statement_count;
    size_t operation_count;
    struct kvs_txn *txn;
};

static bool txn_fail(const struct script *script, const char *wrong)
{
    return report("%.200s, line %u: %s", script->name, script->line, wrong) == STATUS_OK;
}

/* --- The words of a line ------------------------------------------------------------------------ */

static void txn_skip_blanks(struct script *script)
{
    script->at.at += strspn(script->at.at, " \t\r");
}

/* Return the next word, followed by NUL; "" at the end of the line. */
static char *txn_read_word(struct script *script)
{
    txn_skip_blanks(script);
    char *word = script->at.at;
    script->at.at += strcspn(word, " \t\r");
    if (*script->at.at != '\0')
        *script->at.at++ = '\0';
    return word;
}

static bool txn_read_revision(struct script *script, uint64_t *revision)
{
    char what[300];

    snprintf(what, sizeof(what), "%.200s, line %u: the REVISION", script->name, script->line);
    return arguments_read_number(txn_read_word(script), what, revision);
}

/* Check that nothing but a comment follows. */
static bool txn_read_end(struct script *script)
{
    txn_skip_blanks(script);
    return *script->at.at == '\0' || *script->at.at == '#' || txn_fail(script, "the line has too many words");
}

/* Read a value in quotes, or the rest of the line. */
static bool txn_read_value(struct script *script, const char **value, size_t *size)
{
    txn_skip_blanks(script);
    if (*script->at.at == '\0')
        return txn_fail(script, "the VALUE is missing; an empty one is \"\"");
    if (*script->at.at == '"') {
        *value = json_read_string(&script->at, size);
        return *value != NULL ? txn_read_end(script) : txn_fail(script, script->at.wrong);
    }
    *value = script->at.at;
    *size = strlen(*value);
    return true;
}

/* --- Statements ------------------------------------------------------------------------------------ */

enum verb_kind { CHECK, PUT, CREATE, UPDATE, DELETE, PURGE, VERB_KINDS };

static const char *const verb_names[VERB_KINDS] = {"check", "put", "create", "update", "delete", "purge"};

static bool txn_read_verb(struct script *script, enum verb_kind *kind)
{
    const char *word = txn_read_word(script);

    for (size_t i = 0; i < VERB_KINDS; i++) {
        if (strcmp(word, verb_names[i]) == 0) {
            *kind = (enum verb_kind)i;
            return true;
        }
    }
    return txn_fail(script, "the line must begin with check, put, create, update, delete or purge");
}

static void txn_add_to_txn(struct kvs_txn *txn, enum verb_kind kind, const char *key, uint64_t revision,
                           const char *value, size_t size)
{
    switch (kind) {
    case CHECK:
        kvs_txn_check(txn, key, revision);
        break;
    case PUT:
        kvs_txn_put(txn, key, value, size, NULL);
        break;
    case CREATE:
        kvs_txn_create(txn, key, value, size, NULL);
        break;
    case UPDATE:
        kvs_txn_update(txn, key, value, size, revision, NULL);
        break;
    case DELETE:
        kvs_txn_delete(txn, key);
        break;
    default:
        kvs_txn_purge(txn, key);
    }
}

/* Add the line at script->at to the transaction. */
static bool txn_read_statement(struct script *script)
{
    enum verb_kind kind = CHECK;
    uint64_t revision = 0;
    const char *value = "";
    size_t size = 0;

    txn_skip_blanks(script);
    if (*script->at.at == '\0' || *script->at.at == '#')
        return true;
    if (!txn_read_verb(script, &kind))
        return false;
    const char *key = txn_read_word(script);
    if (*key == '\0')
        return txn_fail(script, "the KEY is missing");
    if ((kind == CHECK || kind == UPDATE) && !txn_read_revision(script, &revision))
        return false;
    bool has_value = kind == PUT || kind == CREATE || kind == UPDATE;
    if (has_value ? !txn_read_value(script, &value, &size) : !txn_read_end(script))
        return false;

    txn_add_to_txn(script->txn, kind, key, revision, value, size);
    script->statements[script->statement_count++] = (struct statement){
        .line = script->line, .key = key, .has_condition = kind == CHECK || kind == CREATE || kind == UPDATE};
    script->operation_count += kind != CHECK;
    return true;
}

static size_t txn_count_lines(const struct content *text)
{
    size_t lines = 1;

    for (const char *at = text->bytes; (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    return lines;
}

static bool txn_script_read(struct script *script, const char *path)
{
    script->name = strcmp(path, "-") == 0 ? "standard input" : path;
    if (!content_read_file(&script->text, path))
        return false;
    if (strlen(script->text.bytes) < script->text.size)
        return report("%.200s contains a NUL byte: write it in quotes as \\x00", script->name) == STATUS_OK;
    if ((script->statements = calloc(txn_count_lines(&script->text), sizeof(*script->statements))) == NULL)
        return report("out of memory") == STATUS_OK;
    for (char *rest = script->text.bytes; rest != NULL;) {
        script->line++;
        script->at.at = strsep(&rest, "\n");
        line_trim(script->at.at, strlen(script->at.at));
        if (!txn_read_statement(script))
            return false;
    }
    return true;
}

static void txn_script_free(struct script *script)
{
    free(script->statements);
    free(script->text.bytes);
}

/* --- Committing ------------------------------------------------------------------------------------ */

/* Return the first line about the key, if conditional is set only one with a condition; 0 if there is none. */
static unsigned txn_line_of_key(const struct script *script, const char *key, bool conditional)
{
    for (size_t i = 0; i < script->statement_count; i++) {
        const struct statement *statement = &script->statements[i];
        if (strcmp(statement->key, key) == 0 && (statement->has_condition || !conditional))
            return statement->line;
    }
    return 0;
}

/* Report a failure with the line of the key that it is about, if there is one. */
static enum status txn_report_failure(const struct script *script, const struct kvs_error *error)
{
    struct kvs_error named = *error;
    unsigned line =
        txn_line_of_key(script, error->key, error->code == KVS_CONFLICT || error->code == KVS_ALREADY_EXISTS);

    if (line > 0)
        snprintf(named.message, sizeof(named.message), "%.100s, line %u: %s", script->name, line, error->message);
    return report_error(&named);
}

static void txn_print_revisions(const struct invocation *invocation, const uint64_t *revisions, size_t count)
{
    if (invocation->json)
        putchar('[');
    for (size_t i = 0; i < count; i++) {
        if (invocation->json)
            printf("%s%" PRIu64, i > 0 ? "," : "", revisions[i]);
        else
            printf("%" PRIu64 "\n", revisions[i]);
    }
    if (invocation->json)
        puts("]");
}

static enum status txn_commit(struct invocation *invocation, const struct script *script)
{
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = invocation->timeout_s);
    uint64_t *revisions;
    size_t count;

    /* The library ignores checks without operations. */
    if (script->operation_count == 0 && script->statement_count > 0)
        return report("%.200s has checks but no operation: add one", script->name);
    if (kvs_txn_commit(script->txn, &options, &revisions, &count) != KVS_OK)
        return txn_report_failure(script, kvs_last_error(invocation->kvs));
    txn_print_revisions(invocation, revisions, count);
    kvs_free(revisions);
    return STATUS_OK;
}

enum status txn_run(struct invocation *invocation)
{
    struct script script = {.txn = kvs_txn_begin(invocation->kvs, invocation->arguments[0])};
    const char *path = invocation->argument_count > 1 ? invocation->arguments[1] : "-";
    enum status status = STATUS_FAILED;

    if (script.txn == NULL)
        return report("out of memory");
    if (txn_script_read(&script, path))
        status = txn_commit(invocation, &script);
    txn_script_free(&script);
    kvs_txn_free(script.txn);
    return status;
}
