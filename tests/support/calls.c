#include "tests/support/calls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint64_t put_text(struct client *client, const char *bucket, const char *key, const char *value)
{
    return revision_of(client_call(client, "kv.put", "['%s', '%s', '%s']", bucket, key, value));
}

uint64_t delete_key(struct client *client, const char *bucket, const char *key)
{
    return revision_of(client_call(client, "kv.delete", "['%s', '%s']", bucket, key));
}

void put_many(struct client *client, const char *bucket, const char *prefix, unsigned first, unsigned count,
              size_t size)
{
    char *text = NULL, *value = keep(calloc(1, size + 1));
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);

    memset(value, 'v', size);
    for (unsigned i = first; i < first + count; i++)
        fprintf(stream, "%s'%s%06u': '%s'", i > first ? ", " : "", prefix, i, value);
    fclose(stream);
    const struct answer *answer = client_call(client, "bulk.put", "['%s', {%s}]", bucket, text);
    free(text);
    assert_ok(answer);
    for (uint32_t i = 0; i < answer->result.via.map.size; i++)
        ck_assert_msg(find_at(&answer->result.via.map.ptr[i].val, "revision") != NULL, "%s",
                      object_text(&answer->result.via.map.ptr[i].val));
}

/* --- Reads from memory -------------------------------------------------------------------------------- */

uint64_t stat_of(struct client *client, const char *path)
{
    const struct answer *answer = client_call(client, "daemon.stats", "[]");

    assert_ok(answer);
    return number_at(&answer->result, path);
}

void wait_for_stat(struct client *client, const char *path, uint64_t wanted)
{
    uint64_t end = now_ms() + PATIENCE_MS, is;

    while ((is = stat_of(client, path)) != wanted) {
        ck_assert_msg(now_ms() < end, "%s is %llu, not %llu", path, (unsigned long long)is, (unsigned long long)wanted);
        pause_shortly();
    }
}

const char *cached_text(struct client *client, const char *bucket, const char *key)
{
    const struct answer *answer = client_call(client, "kv.get", "['%s', '%s', {'consistency': 'cached'}]", bucket, key);

    assert_ok(answer);
    return answer->result.type == MSGPACK_OBJECT_NIL ? NULL : text_at(&answer->result, "value");
}

bool is_cached(struct client *client, const char *bucket, const char *key)
{
    uint64_t hits = stat_of(client, "cache.hits");

    cached_text(client, bucket, key);
    return stat_of(client, "cache.hits") > hits;
}

void wait_until_cached(struct client *client, const char *bucket, const char *key)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    while (!is_cached(client, bucket, key)) {
        ck_assert_msg(now_ms() < end, "bucket %s does not come into memory", bucket);
        pause_shortly();
    }
}
