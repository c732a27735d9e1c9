/*
 * A rate limiter: at most LIMIT requests of a user in WINDOW_S seconds, for any number of programs and hosts together.
 * The window begins with the user's first request. Before: kvctl add demo
 *
 *     rate_limiter [USER]
 */
#include <kvstore.h>

#include <inttypes.h>
#include <stdio.h>

#define LIMIT    5
#define WINDOW_S 2

/* Return whether one more request is allowed. If the counter cannot be reached, the request is allowed: that is for
 * each program to decide. */
static bool allow_request(struct kvs *kvs, const char *user)
{
    /* The TTL is that of a new counter; keep_ttl: later requests do not prolong it. When it expires, a new window
     * begins with the next request. */
    struct kvs_increment_options options = KVS_INCREMENT_OPTIONS(.ttl_s = WINDOW_S, .keep_ttl = true, .timeout_s = 0.5);
    int64_t count;
    char key[64];

    snprintf(key, sizeof(key), "limit.%s", user);
    if (kvs_increment(kvs, "demo", key, 1, &options, &count, NULL) != KVS_OK) {
        fprintf(stderr, "%s\n", kvs_last_error(kvs)->message);
        return true;
    }
    return count <= LIMIT;
}

int main(int argc, char **argv)
{
    const char *user = argc > 1 ? argv[1] : "alice";
    struct kvs_error error;
    struct kvs *kvs = kvs_connect(NULL, NULL, &error);

    if (kvs == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    for (unsigned request = 1; request <= LIMIT + 2; request++)
        printf("request %u: %s\n", request, allow_request(kvs, user) ? "allowed" : "too many");
    kvs_close(kvs);
    return 0;
}
