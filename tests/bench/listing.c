/* All keys of a bucket, in pages: kv.keys with limit and after, and Redis' SCAN. One request after the other. */
#include "tests/bench/bench.h"

#include "tests/bench/load.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define KEYS       100000u
#define PAGE       1000u
#define PAGE_BYTES (256u * 1024u)

struct listing {
    int fd;
    char page[PAGE_BYTES];
    size_t length;
    char after[64]; /* ours: the last key; Redis: the cursor */
    uint64_t keys;
};

/* Read until take finds a whole answer. */
static void receive(struct listing *listing, bool (*take)(struct listing *listing))
{
    listing->length = 0;
    do {
        ssize_t received =
            recv(listing->fd, listing->page + listing->length, sizeof(listing->page) - listing->length, 0);
        if (received <= 0)
            bench_die("a listing ended: %s", received < 0 ? strerror(errno) : "the page is too large");
        listing->length += (size_t)received;
    } while (!take(listing));
}

/* --- kvstored ------------------------------------------------------------------------------------------ */

static void ask_kvstored(struct listing *listing)
{
    char request[256];
    int length =
        snprintf(request, sizeof(request),
                 "\x94%c\x01\xa7kv.keys\x92\xa5" BENCH_BUCKET "\x82\xa5limit\xcd%c%c\xa5"
                 "after%c%s",
                 0, (int)(PAGE >> 8), (int)(PAGE & 255u), (int)(0xa0 | strlen(listing->after)), listing->after);

    if (send(listing->fd, request, (size_t)length, MSG_NOSIGNAL) != length)
        bench_die("send: %s", strerror(errno));
}

/* Take [1, 1, nil, an array of str in order], and keep the last key. */
static bool take_kvstored(struct listing *listing)
{
    const uint8_t *at = (const uint8_t *)listing->page, *end = at + listing->length;
    uint32_t count;

    if (load_skip_value(at, end) == NULL)
        return false;
    if (memcmp(at, "\x94\x01\x01\xc0", 4) != 0)
        bench_die("a listing failed");
    at += 4;
    count = (*at & 0xf0u) == 0x90 ? *at & 15u : (uint32_t)(at[1] << 8 | at[2]);
    at += (*at & 0xf0u) == 0x90 ? 1 : 3;
    for (uint32_t i = 0; i < count; i++) {
        char key[sizeof(listing->after)];
        size_t length = *at & 31u;
        if ((*at & 0xe0u) != 0xa0)
            bench_die("a key is no short str");
        memcpy(key, at + 1, length);
        key[length] = '\0';
        if (strcmp(key, listing->after) <= 0)
            bench_die("the keys are not in their order");
        memcpy(listing->after, key, length + 1);
        at += 1 + length;
    }
    listing->keys += count;
    if (count < PAGE)
        listing->after[0] = '\0';
    return true;
}

/* --- Redis --------------------------------------------------------------------------------------------- */

static void ask_redis(struct listing *listing)
{
    char request[128];
    int length = snprintf(request, sizeof(request), "SCAN %s COUNT %u\r\n",
                          listing->after[0] != '\0' ? listing->after : "0", PAGE);

    if (send(listing->fd, request, (size_t)length, MSG_NOSIGNAL) != length)
        bench_die("send: %s", strerror(errno));
}

static char *skip_line(char *at, const char *end)
{
    char *line = at != NULL ? memchr(at, '\n', (size_t)(end - at)) : NULL;

    return line != NULL ? line + 1 : NULL;
}

/* "*2"; "$1" and the cursor; "*1000" and the keys, two lines each. */
static bool take_redis(struct listing *listing)
{
    char *end = listing->page + listing->length, *cursor = skip_line(listing->page, end);
    char *array = skip_line(skip_line(cursor, end), end), *at = skip_line(array, end);

    if (at == NULL)
        return false;
    if (*array != '*')
        bench_die("SCAN failed");
    unsigned long count = strtoul(array + 1, NULL, 10);
    for (unsigned long i = 0; i < 2 * count && at != NULL; i++)
        at = skip_line(at, end);
    if (at == NULL)
        return false;
    /* The bulk string "0" is the end. */
    cursor = skip_line(cursor, end);
    size_t length = strcspn(cursor, "\r");
    memcpy(listing->after, cursor, length);
    listing->after[strncmp(cursor, "0\r", 2) == 0 ? 0 : length] = '\0';
    listing->keys += count;
    return true;
}

/* --- Both ---------------------------------------------------------------------------------------------- */

static void run_listing(struct bench_client *client)
{
    static struct listing listing;
    bool is_ours = client->is_ours;

    listing.fd = load_connect_unix(client->context);
    double begin_s = bench_now_s();
    do { /* whole listings */
        uint64_t before = listing.keys;
        do {
            if (is_ours)
                ask_kvstored(&listing);
            else
                ask_redis(&listing);
            receive(&listing, is_ours ? take_kvstored : take_redis);
        } while (listing.after[0] != '\0');
        if (listing.keys - before < KEYS)
            bench_die("a listing has only %llu keys", (unsigned long long)(listing.keys - before));
    } while (bench_now_s() < begin_s + BENCH_ROUND_S);
    client->result = (double)listing.keys / (bench_now_s() - begin_s);
}

double embedded_keys_per_s(const struct bench *bench, bool is_ours)
{
    static bool is_filled[2];
    const char *path = is_ours ? bench->embedded.socket_path : bench->redis.socket_path;
    const struct load fill = {.protocol = is_ours ? &load_kvstored : &load_redis,
                              .where = path,
                              .prefix = "list",
                              .connections = 16,
                              .depth = 64,
                              .keys = KEYS};
    const struct bench_client client = {.is_ours = is_ours, .context = (void *)path};

    if (!is_filled[is_ours])
        load_fill(&fill);
    is_filled[is_ours] = true;
    return bench_alone(&client, run_listing);
}
