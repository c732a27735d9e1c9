/* Readers of results that need no file of their own. */
#include "client/lib/reply.h"

#include "client/lib/error.h"
#include "client/lib/text.h"

#include <stdlib.h>

const struct kvs_error *reply_read(reply_reader *reader, const struct kvs_value *result, void *out,
                                   struct kvs_error *error)
{
    enum kvs_code code = reader(result, out);

    if (code == KVS_OK)
        return NULL;
    if (code == KVS_NO_MEMORY)
        client_error_set(error, code, "out of memory for the result, although the call succeeded");
    else
        client_error_set(error, code, "the daemon broke the protocol: its answer is not a result of this method");
    return error;
}

enum kvs_code reply_read_revision(const struct kvs_value *result, void *out)
{
    uint64_t revision = kvs_value_unsigned(result);

    /* nil: a delete with if_exists, or a touch, had nothing to do. */
    if (revision == 0 && kvs_value_type(result) != KVS_NIL)
        return KVS_PROTOCOL;
    if (out != NULL)
        *(uint64_t *)out = revision;
    return KVS_OK;
}

enum kvs_code reply_read_count(const struct kvs_value *result, void *out)
{
    if (kvs_value_type(result) != KVS_INTEGER || kvs_value_integer(result) < 0)
        return KVS_PROTOCOL;
    if (out != NULL)
        *(uint64_t *)out = kvs_value_unsigned(result);
    return KVS_OK;
}

enum kvs_code reply_read_revisions(const struct kvs_value *result, void *out)
{
    struct reply_revisions *wanted = out;
    size_t count = kvs_value_count(result);

    if (kvs_value_type(result) != KVS_ARRAY || count != wanted->expected)
        return KVS_PROTOCOL;
    uint64_t *block = malloc((count + 1) * sizeof(*block));
    if (block == NULL)
        return KVS_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        block[i] = kvs_value_unsigned(kvs_value_item(result, i));
        if (block[i] == 0) {
            free(block);
            return KVS_PROTOCOL;
        }
    }
    if (wanted->count != NULL)
        *wanted->count = count;
    if (wanted->revisions != NULL)
        *wanted->revisions = block;
    else
        free(block);
    return KVS_OK;
}

enum kvs_code reply_read_strings(const struct kvs_value *result, void *out)
{
    struct reply_strings *wanted = out;
    size_t count = kvs_value_count(result), text = 0;

    if (kvs_value_type(result) != KVS_ARRAY)
        return KVS_PROTOCOL;
    for (size_t i = 0; i < count; i++) {
        if (!text_is(kvs_value_item(result, i)))
            return KVS_PROTOCOL;
        text += text_space(kvs_value_item(result, i));
    }
    char **block = malloc((count + 1) * sizeof(*block) + text);
    if (block == NULL)
        return KVS_NO_MEMORY;
    char *place = (char *)(block + count + 1);
    for (size_t i = 0; i < count; i++)
        block[i] = text_copy(&place, kvs_value_item(result, i));
    block[count] = NULL;
    *wanted->strings = block;
    *wanted->count = count;
    return KVS_OK;
}

enum kvs_code reply_read_json(const struct kvs_value *result, void *out)
{
    if (kvs_value_type(result) == KVS_NIL)
        return KVS_OK;
    return (*(char **)out = kvs_value_json(result)) != NULL ? KVS_OK : KVS_NO_MEMORY;
}

enum kvs_code reply_read_copy(const struct kvs_value *result, void *out)
{
    return (*(struct kvs_value **)out = kvs_value_copy(result)) != NULL ? KVS_OK : KVS_NO_MEMORY;
}

enum kvs_code reply_read_tree(const struct kvs_value *result, void *out)
{
    return kvs_value_type(result) == KVS_MAP ? reply_read_copy(result, out) : KVS_PROTOCOL;
}

enum kvs_code reply_read_list(const struct kvs_value *result, void *out)
{
    return kvs_value_type(result) == KVS_ARRAY ? reply_read_copy(result, out) : KVS_PROTOCOL;
}

enum kvs_code reply_read_text(const struct kvs_value *result, void *out)
{
    return kvs_value_type(result) == KVS_STRING ? reply_read_copy(result, out) : KVS_PROTOCOL;
}
