/* Turns the daemon's advice, which is about the protocol, into advice about kvctl. */
#include "client/kvctl/advice.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Names of the protocol, and what kvctl has instead. %s stands for the bucket. */
static const struct {
    const char *name, *replacement;
} words[] = {
    {"bucket.compact", "kvctl compact %s"},
    {"bucket.create", "kvctl add %s"},
    {"bucket.delete", "kvctl rm %s"},
    {"bucket.info", "kvctl info %s"},
    {"bucket.list", "kvctl ls"},
    {"bucket.purge", "kvctl purge %s --all"},
    {"bucket.update", "kvctl edit %s"},
    {"bulk.delete", "kvctl del"},
    {"bulk.get", "kvctl mget"},
    {"bulk.put", "kvctl mput"},
    {"daemon.config", "kvctl config"},
    {"daemon.dump", "kvctl dump"},
    {"daemon.info", "kvctl info"},
    {"daemon.kill_session", "kvctl kill"},
    {"daemon.metrics", "kvctl metrics"},
    {"daemon.sessions", "kvctl sessions"},
    {"daemon.stats", "kvctl stats"},
    {"health.check", "kvctl health"},
    {"kv.create", "kvctl create"},
    {"kv.delete", "kvctl del"},
    {"kv.entries", "kvctl entries"},
    {"kv.get", "kvctl get"},
    {"kv.history", "kvctl history"},
    {"kv.increment", "kvctl incr"},
    {"kv.keys", "kvctl keys"},
    {"kv.purge", "kvctl purge"},
    {"kv.put", "kvctl put"},
    {"kv.touch", "kvctl touch"},
    {"kv.update", "kvctl update"},
    {"lock.acquire", "kvctl lock %s"},
    {"lock.check", "kvctl lock %s"},
    {"lock.release", "kvctl lock %s"},
    {"txn.commit", "kvctl txn"},
    {"watch.start", "kvctl watch"},

    {"from_revision", "--from-revision"},
    {"ignore_deletes", "--ignore-deletes"},
    {"include_history", "--history"},
    {"limit_marker_ttl", "--limit-marker-ttl"},
    {"marker_ttl", "--marker-ttl"},
    {"max_bytes", "--max-bytes"},
    {"max_value_size", "--max-value-size"},
    {"meta_only", "--meta-only"},
    {"older_than", "--older-than"},
    {"wait_above", "--wait-above"},
    {"updates_only", "--updates-only"},
    /* A shorter text would be ambiguous. %N stands for a number. */
    {"sort must be", "--sort must be"},
    {"history must be", "--history must be"},
    {"replicas must be", "--replicas must be"},
    {"timeout must be", "--timeout must be"},
    {"wait must be", "--wait must be"},
    {"consistency of", "--consistency of"},
    {"must be 0 or", "must be none or"},
    {"\"in_flight\"", "\"in-flight\""},
    {"set force", "give --force"},
    {"with limit and after", "with --limit and --after"},
    {"use a watch, which", "use kvctl export, which"},
    {"a longer timeout", "a longer --timeout"},
    {"history %N", "--history %N"},
    {"ttl %N", "--ttl %N"},
};

static bool advice_is_in_name(char character)
{
    return isalnum((unsigned char)character) || character == '_' || character == '.' || character == '-';
}

/* Return the length of the name if it begins here and is a word of its own. A sentence may end after it. */
static size_t advice_match(const char *text, const char *name)
{
    size_t length = strcspn(name, "%");

    if (strncmp(text, name, length) != 0)
        return 0;
    if (name[length] == '%') /* a number follows */
        return isdigit((unsigned char)text[length]) ? length : 0;
    bool is_end_of_sentence = text[length] == '.' && !advice_is_in_name(text[length + 1]);
    return is_end_of_sentence || !advice_is_in_name(text[length]) ? length : 0;
}

/* Append the replacement. */
static size_t advice_append(char *out, size_t room, const char *replacement, const char *bucket)
{
    int written;

    if (strstr(replacement, "%s") != NULL && *bucket != '\0')
        written = snprintf(out, room, "%.*s%s%s", (int)strcspn(replacement, "%"), replacement, bucket,
                           strchr(replacement, '%') + 2);
    else if (strstr(replacement, " %s") != NULL)
        written = snprintf(out, room, "%.*s%s", (int)strcspn(replacement, "%") - 1, replacement,
                           strchr(replacement, '%') + 2);
    else
        written = snprintf(out, room, "%.*s", (int)strcspn(replacement, "%"), replacement);
    return written < (int)room ? (size_t)written : room - 1;
}

void advice_translate(const char *message, const char *bucket, char *out, size_t out_bytes)
{
    bool is_word_start = true;
    size_t length = 0;

    while (*message != '\0' && length + 1 < out_bytes) {
        size_t matched = 0;
        for (size_t i = 0; i < sizeof(words) / sizeof(*words) && is_word_start && matched == 0; i++) {
            matched = advice_match(message, words[i].name);
            if (matched > 0)
                length += advice_append(out + length, out_bytes - length, words[i].replacement, bucket);
        }
        is_word_start = matched > 0 ? false : !advice_is_in_name(*message);
        if (matched > 0)
            message += matched;
        else
            out[length++] = *message++;
    }
    out[length] = '\0';
}
