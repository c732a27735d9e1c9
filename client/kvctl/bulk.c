/* The verbs about many keys. */
#include "client/kvctl/safe_text.h"
#include "client/kvctl/transfer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Limits of one request of mput, far below those of the daemon. */
#define PAIRS_PER_CALL 4096u
#define BYTES_PER_CALL (4u * 1024 * 1024)

/* --- mget ---------------------------------------------------------------------------------- */

static enum status bulk_report_absent(const struct invocation *invocation, const char *key)
{
    return report_absent("key %s does not exist in bucket %s", key, invocation->arguments[0]);
}

/* The daemon's answer has each key once, in an order of its own: it is printed as it is. */
static enum status bulk_mget_json(struct invocation *invocation, size_t count, const char *consistency)
{
    struct kvs_request *request = kvs_request_new("bulk.get", 3);
    enum status status = STATUS_OK;
    struct kvs_value *answer;

    kvs_request_string(request, invocation->arguments[0]);
    kvs_request_array(request, count);
    for (size_t i = 0; i < count; i++)
        kvs_request_string(request, invocation->arguments[1 + i]);
    kvs_request_map(request, (size_t)(consistency != NULL) + (invocation->timeout_s > 0));
    if (consistency != NULL) {
        kvs_request_string(request, "consistency");
        kvs_request_string(request, consistency);
    }
    if (invocation->timeout_s > 0) {
        kvs_request_string(request, "timeout");
        kvs_request_double(request, invocation->timeout_s);
    }
    enum kvs_code code = kvs_call(invocation->kvs, request, invocation->timeout_s, &answer);
    kvs_request_free(request);
    if (code != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    for (size_t i = 0; i < count; i++) {
        const char *key = invocation->arguments[1 + i];
        if (kvs_value_type(kvs_value_member(answer, key)) == KVS_NIL)
            status = bulk_report_absent(invocation, key);
    }
    if (print_and_free(kvs_value_json(answer)) != STATUS_OK)
        status = STATUS_FAILED;
    kvs_free(answer);
    return status;
}

enum status bulk_mget(struct invocation *invocation)
{
    struct kvs_bulk_get_options options = KVS_BULK_GET_OPTIONS(.timeout_s = invocation->timeout_s);
    const char *const *keys = (const char *const *)(invocation->arguments + 1);
    size_t count = (size_t)invocation->argument_count - 1;
    struct kvs_entry **entries;
    enum status status = STATUS_OK;

    if (!arguments_consistency(invocation, &options.consistency))
        return STATUS_FAILED;
    if (invocation->json)
        return bulk_mget_json(invocation, count,
                              arguments_flag(invocation, "cached") ? "cached"
                                                                   : arguments_value(invocation, "consistency"));
    if (kvs_bulk_get(invocation->kvs, invocation->arguments[0], keys, count, &options, &entries) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    for (size_t i = 0; i < count; i++) {
        if (entries[i] != NULL) {
            print_key_and_value(invocation, keys[i], entries[i]);
            continue;
        }
        status = bulk_report_absent(invocation, keys[i]);
    }
    kvs_free(entries);
    return status;
}

/* --- What mput is to write ------------------------------------------------------------------- */

/* The pairs point into the arguments or into the input. */
struct pairs {
    struct kvs_pair *pairs;
    unsigned *lines; /* of the pairs; 0: an argument, or a member of JSON */
    size_t count;
    size_t capacity;
    struct content input;
    uint64_t first_line; /* earlier lines are left out */
};

static bool bulk_grow_pairs(struct pairs *pairs)
{
    size_t capacity = pairs->capacity > 0 ? pairs->capacity * 2 : 64;
    struct kvs_pair *larger = realloc(pairs->pairs, capacity * sizeof(*larger));

    if (larger != NULL)
        pairs->pairs = larger;
    unsigned *lines = realloc(pairs->lines, capacity * sizeof(*lines));
    if (lines != NULL)
        pairs->lines = lines;
    if (larger == NULL || lines == NULL)
        return report("out of memory") == STATUS_OK;
    pairs->capacity = capacity;
    return true;
}

static bool bulk_add_pair(struct pairs *pairs, const char *key, const void *value, size_t value_size, unsigned line)
{
    if (pairs->count == pairs->capacity && !bulk_grow_pairs(pairs))
        return false;
    pairs->lines[pairs->count] = line;
    pairs->pairs[pairs->count++] = (struct kvs_pair){.key = key, .value = value, .value_size = value_size};
    return true;
}

/* Split KEY=VALUE of size bytes in place. line is its number, or 0 for an argument. */
static bool bulk_add_text(struct pairs *pairs, char *text, size_t size, unsigned line)
{
    char *equals = memchr(text, '=', size);

    if (equals == NULL || equals == text) {
        if (line > 0)
            report("standard input, line %u must be KEY=VALUE, not '%.100s'", line, text);
        else
            report("each argument must be KEY=VALUE, not '%.100s'", text);
        return false;
    }
    *equals = '\0';
    if (text + strlen(text) < equals)
        return report("a key contains a NUL byte") == STATUS_OK;
    return bulk_add_pair(pairs, text, equals + 1, size - (size_t)(equals + 1 - text), line);
}

static bool bulk_add_lines(struct pairs *pairs)
{
    char *end = pairs->input.bytes + pairs->input.size, *next;
    unsigned line = 1;

    for (char *text = pairs->input.bytes; text < end; text = next, line++) {
        char *newline = memchr(text, '\n', (size_t)(end - text));
        char *stop = newline != NULL ? newline : end;
        next = stop + 1;
        *stop = '\0';
        size_t size = line_trim(text, (size_t)(stop - text));
        if (line >= pairs->first_line && size > 0 && *text != '#' && !bulk_add_text(pairs, text, size, line))
            return false;
    }
    return true;
}

static bool bulk_add_object(struct pairs *pairs)
{
    struct json json = {.at = pairs->input.bytes};
    const char *value;
    char *key;
    size_t key_size, value_size;

    if (json_begin_object(&json)) {
        while (json_next_member(&json, &key, &key_size) && json_read_member(&json, &value, &value_size)) {
            if (strlen(key) != key_size)
                return report("a key contains a NUL byte") == STATUS_OK;
            if (!bulk_add_pair(pairs, key, value, value_size, 0))
                return false;
        }
        if (json.wrong == NULL && json_end(&json) && json.at == pairs->input.bytes + pairs->input.size)
            return true;
    }
    if (json.wrong == NULL)
        json.wrong = "it contains a NUL byte";
    report("standard input is not a JSON object: %s, at byte %zu", json.wrong,
           (size_t)(json.at - pairs->input.bytes) + 1);
    return false;
}

static int bulk_compare_keys(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

/* Refuse two values for one key. */
static bool bulk_check_twins(const struct pairs *pairs)
{
    const char **keys = calloc(pairs->count + 1, sizeof(*keys));
    bool has_twins = false;

    if (keys == NULL)
        return report("out of memory") == STATUS_OK;
    for (size_t i = 0; i < pairs->count; i++)
        keys[i] = pairs->pairs[i].key;
    qsort(keys, pairs->count, sizeof(*keys), bulk_compare_keys);
    for (size_t i = 1; i < pairs->count && !has_twins; i++) {
        has_twins = strcmp(keys[i - 1], keys[i]) == 0;
        if (has_twins)
            report("key %.200s has two values: give one of them", keys[i]);
    }
    free(keys);
    return !has_twins;
}

static bool bulk_pairs_read(struct pairs *pairs, const struct invocation *invocation)
{
    bool is_input = invocation->argument_count == 2 && strcmp(invocation->arguments[1], "-") == 0;

    if (is_input) {
        if (!content_read_file(&pairs->input, "-"))
            return false;
        const char *first = pairs->input.bytes + strspn(pairs->input.bytes, " \t\r\n");
        is_input = *first != '{';
    }
    if (pairs->first_line > 0 && !is_input)
        return report("--from-line needs lines KEY=VALUE on standard input") == STATUS_OK;
    if (pairs->input.bytes != NULL) {
        return (!is_input ? bulk_add_object(pairs) : bulk_add_lines(pairs)) && bulk_check_twins(pairs);
    }
    for (int i = 1; i < invocation->argument_count; i++) {
        char *text = invocation->arguments[i];
        if (!bulk_add_text(pairs, text, strlen(text), 0))
            return false;
    }
    return bulk_check_twins(pairs);
}

/* --- mput ---------------------------------------------------------------------------------- */

static enum status bulk_print_result_json(const char *key, const struct kvs_bulk_result *result, bool is_first)
{
    char *error = result->error != NULL ? kvs_error_json(result->error) : NULL;

    if (result->error != NULL && error == NULL)
        return report("out of memory for the output");
    printf("%s", is_first ? "{" : ",");
    safe_text_write_json(stdout, key);
    if (error != NULL)
        printf(":{\"error\":%s}", error);
    else
        printf(":{\"revision\":%" PRIu64 "}", result->revision);
    kvs_free(error);
    return STATUS_OK;
}

/* Print the result of one key. */
static enum status bulk_print_result(const struct invocation *invocation, const char *key,
                                     const struct kvs_bulk_result *result, bool is_first)
{
    enum status status = STATUS_OK;

    if (result->error != NULL)
        status = report_key_error(key, result->error);
    else if (!invocation->json)
        printf("%s %" PRIu64 "\n", key, result->revision);
    if (invocation->json && bulk_print_result_json(key, result, is_first) != STATUS_OK)
        status = STATUS_FAILED;
    return status;
}

/* What mput has done so far. */
struct writing {
    struct invocation *invocation;
    const struct pairs *pairs;
    struct progress progress;
    enum status status;
    bool has_printed; /* a result */
    bool must_stop;   /* the next call would fail, too */
    bool is_unknown;  /* whether some pairs of the last call are written */
    size_t written;
    size_t bytes;
};

/* Errors after which more calls make no sense: the daemon or NATS is away, or the store is full. */
static bool bulk_is_lasting(const struct kvs_error *error)
{
    return error != NULL && (error->code == KVS_UNAVAILABLE || error->code == KVS_IO ||
                             error->code == KVS_DEADLINE_EXCEEDED || error->code == KVS_RESOURCE_EXHAUSTED);
}

/* Write the pairs of one call. */
static void bulk_write_pairs(struct writing *writing, size_t begin, size_t count,
                             const struct kvs_bulk_put_options *options)
{
    struct invocation *invocation = writing->invocation;
    const struct kvs_pair *pairs = writing->pairs->pairs + begin;
    struct kvs_bulk_result *results;

    if (kvs_bulk_put(invocation->kvs, invocation->arguments[0], pairs, count, options, &results, NULL) != KVS_OK) {
        const struct kvs_error *error = kvs_last_error(invocation->kvs);
        writing->is_unknown = error->outcome == KVS_OUTCOME_UNKNOWN;
        writing->must_stop = true;
        writing->status = status_add(writing->status, report_error(error));
        return;
    }
    for (size_t i = 0; i < count; i++) {
        writing->status = status_add(writing->status,
                                     bulk_print_result(invocation, pairs[i].key, &results[i], !writing->has_printed));
        writing->has_printed = true;
        writing->written += results[i].error == NULL;
        writing->bytes += pairs[i].value_size;
        writing->must_stop |= bulk_is_lasting(results[i].error);
        writing->is_unknown |= results[i].error != NULL && results[i].error->outcome == KVS_OUTCOME_UNKNOWN;
    }
    kvs_free(results);
    progress_show(&writing->progress, writing->written, writing->bytes, 0);
}

/* Say how far mput came before it stopped, and how to continue. begin to end: the pairs of the last call. */
static void bulk_report_stop(const struct writing *writing, size_t begin, size_t end)
{
    const struct pairs *pairs = writing->pairs;
    const char *state = writing->is_unknown ? "may be written" : "are not all written";

    if (begin == 0 && end == pairs->count)
        return; /* all was tried at once: the errors say everything */
    if (pairs->lines[begin] == 0)
        report_note("%zu keys are written; the %zu keys from %.200s on %s; %zu later ones were not tried",
                    writing->written, end - begin, pairs->pairs[begin].key, state, pairs->count - end);
    else
        report_note("%zu keys are written; lines %u to %u %s, and later ones were not tried; to continue, give the "
                    "same input and --from-line %u",
                    writing->written, pairs->lines[begin], pairs->lines[end - 1], state, pairs->lines[begin]);
}

static size_t bulk_count_for_call(const struct pairs *pairs, size_t begin)
{
    size_t count = 0, bytes = 0;

    while (begin + count < pairs->count && count < PAIRS_PER_CALL) {
        bytes += pairs->pairs[begin + count].value_size;
        if (count > 0 && bytes > BYTES_PER_CALL)
            break;
        count++;
    }
    return count;
}

static void bulk_write_all(struct writing *writing, const struct kvs_bulk_put_options *options)
{
    const struct pairs *pairs = writing->pairs;

    progress_begin(&writing->progress, "writing");
    writing->progress.is_shown &= !writing->invocation->terminal; /* the results are enough */
    for (size_t begin = 0, count; begin < pairs->count && !writing->must_stop; begin += count) {
        count = bulk_count_for_call(pairs, begin);
        bulk_write_pairs(writing, begin, count, options);
        if (writing->must_stop) {
            progress_end(&writing->progress);
            bulk_report_stop(writing, begin, begin + count);
        }
    }
    progress_end(&writing->progress);
}

enum status bulk_mput(struct invocation *invocation)
{
    struct kvs_bulk_put_options options = KVS_BULK_PUT_OPTIONS(.timeout_s = invocation->timeout_s);
    struct pairs pairs = {0};
    struct writing writing = {.invocation = invocation, .pairs = &pairs, .status = STATUS_FAILED};

    if (!arguments_duration(invocation, "ttl", &options.ttl_s) ||
        !arguments_number(invocation, "from-line", &pairs.first_line) || !bulk_pairs_read(&pairs, invocation))
        goto done;
    if (options.ttl_s < 0)
        options.ttl_s = 0;
    writing.status = STATUS_OK;
    bulk_write_all(&writing, &options);
    if (invocation->json && (writing.has_printed || writing.status == STATUS_OK))
        puts(writing.has_printed ? "}" : "{}");

done:
    free(pairs.pairs);
    free(pairs.lines);
    free(pairs.input.bytes);
    return writing.status;
}
