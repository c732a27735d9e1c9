#include "tests/bench/load.h"
#include "tests/bench/raw.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int make_key(char key[64], const struct load *load, uint32_t number)
{
    return snprintf(key, 64, "%s.%u", load->prefix, number % load->keys);
}

/* The caller checks values once for their keys. Here it is enough to look at their end. */
static void check_value(const char *value, size_t size)
{
    if (size != BENCH_VALUE_BYTES || memcmp(value + size - 16, "vvvvvvvvvvvvvvvv", 16) != 0)
        bench_die("a get answered a wrong value");
}

/* --- kvstored: MessagePack-RPC (proto/protocol.md) ---------------------------------------------------- */

static char *put_text(char *out, const char *text, size_t length)
{
    if (length < 32) {
        *out++ = (char)(0xa0 | length);
    } else {
        *out++ = (char)0xd9;
        *out++ = (char)length;
    }
    memcpy(out, text, length);
    return out + length;
}

static size_t kvstored_request(char *out, enum load_operation operation, const struct load *load, uint32_t number)
{
    char key[64], bucket[32] = BENCH_BUCKET, *at = out;
    int key_length = make_key(key, load, number);

    if (load->buckets > 0)
        snprintf(bucket, sizeof(bucket), "many-%u", number % load->buckets);
    memcpy(at, "\x94\x00\xce", 3);
    at += 3;
    for (int shift = 24; shift >= 0; shift -= 8)
        *at++ = (char)(number >> shift);
    at = put_text(at, operation == LOAD_GET ? "kv.get" : "kv.put", 6);
    *at++ = (char)(operation == LOAD_PUT || load->is_cached ? 0x93 : 0x92);
    at = put_text(at, bucket, strlen(bucket));
    at = put_text(at, key, (size_t)key_length);
    if (operation == LOAD_PUT) {
        *at++ = (char)0xc4;
        *at++ = (char)BENCH_VALUE_BYTES;
        bench_make_value(at, key, number);
        at += BENCH_VALUE_BYTES;
    } else if (load->is_cached) {
        *at++ = (char)0x81;
        at = put_text(at, "consistency", strlen("consistency"));
        at = put_text(at, "cached", strlen("cached"));
    }
    return (size_t)(at - out);
}

static uint64_t read_number(const uint8_t *bytes, size_t width)
{
    uint64_t number = 0;

    for (size_t i = 0; i < width; i++)
        number = number << 8 | bytes[i];
    return number;
}

static const uint8_t *skip_values(const uint8_t *bytes, const uint8_t *end, uint64_t count)
{
    while (count-- > 0 && bytes != NULL)
        bytes = load_skip_value(bytes, end);
    return bytes;
}

const uint8_t *load_skip_value(const uint8_t *bytes, const uint8_t *end)
{
    /* For 0xc4 to 0xdf: bytes of a length field, and bytes of a body of fixed size (MessagePack's specification). */
    static const struct {
        uint8_t width, body;
    } forms[] = {[0x04] = {1, 0}, {2, 0}, {4, 0}, {1, 1},          {2, 1}, {4, 1},          {0, 4},
                 {0, 8},          {0, 1}, {0, 2}, {0, 4},          {0, 8}, [0x10] = {0, 1}, {0, 2},
                 {0, 4},          {0, 8}, {0, 2}, {0, 3},          {0, 5}, {0, 9},          {0, 17},
                 {1, 0},          {2, 0}, {4, 0}, [0x1c] = {2, 0}, {4, 0}, {2, 0},          {4, 0}};

    if (bytes >= end)
        return NULL;
    uint8_t first = *bytes++;
    if (first < 0x80 || first >= 0xe0 || (first >= 0xc0 && first < 0xc4))
        return bytes;
    if (first < 0x90)
        return skip_values(bytes, end, 2 * (first & 0x0fu));
    if (first < 0xa0)
        return skip_values(bytes, end, first & 0x0fu);
    if (first < 0xc0)
        return (size_t)(end - bytes) >= (first & 0x1fu) ? bytes + (first & 0x1f) : NULL;
    size_t width = forms[first - 0xc0].width, body = forms[first - 0xc0].body;
    if ((size_t)(end - bytes) < width)
        return NULL;
    uint64_t length = read_number(bytes, width);
    bytes += width;
    if (first >= 0xdc)
        return skip_values(bytes, end, first >= 0xde ? 2 * length : length);
    return (uint64_t)(end - bytes) >= length + body ? bytes + length + body : NULL;
}

/* An entry: a map with the value in it. */
static void check_entry(const uint8_t *bytes, const uint8_t *end)
{
    unsigned members = bytes[0] & 0x0fu;

    if (bytes[0] < 0x80 || bytes[0] > 0x8f)
        bench_die("a get answered no entry");
    for (bytes++; members-- > 0;) {
        const uint8_t *value = load_skip_value(bytes, end);
        if (memcmp(bytes, "\xa5value\xc4", 7) == 0) {
            check_value((const char *)value + 2, value[1]);
            return;
        }
        bytes = load_skip_value(value, end);
    }
    bench_die("an entry has no value");
}

static size_t kvstored_take(const char *text, size_t length, enum load_operation operation, bool *is_answer,
                            uint64_t *revision)
{
    const uint8_t *bytes = (const uint8_t *)text, *end = bytes + length;
    const uint8_t *whole = load_skip_value(bytes, end);

    if (whole == NULL)
        return 0;
    *is_answer = bytes[0] == 0x94 && bytes[1] == 1;
    if (!*is_answer)
        return (size_t)(whole - bytes);
    const uint8_t *error = load_skip_value(bytes + 2, whole);
    if (*error != 0xc0)
        bench_die("the daemon answered an error");
    const uint8_t *result = error + 1;
    if (operation == LOAD_GET)
        check_entry(result, whole);
    else if (*result < 0x80)
        *revision = *result;
    else if (*result >= 0xcc && *result <= 0xcf)
        *revision = read_number(result + 1, (size_t)1 << (*result - 0xcc));
    else
        bench_die("a put answered no revision");
    return (size_t)(whole - bytes);
}

const struct load_protocol load_kvstored = {load_connect_unix, kvstored_request, kvstored_take};

/* --- Redis: RESP ----------------------------------------------------------------------------------------- */

static size_t redis_request(char *out, enum load_operation operation, const struct load *load, uint32_t number)
{
    char key[64];
    int key_length = make_key(key, load, number);

    if (operation == LOAD_GET)
        return (size_t)sprintf(out, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", key_length, key);
    int length = sprintf(out, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%u\r\n", key_length, key, BENCH_VALUE_BYTES);
    bench_make_value(out + length, key, number);
    memcpy(out + length + BENCH_VALUE_BYTES, "\r\n", 2);
    return (size_t)length + BENCH_VALUE_BYTES + 2;
}

static size_t redis_take(const char *bytes, size_t length, enum load_operation operation, bool *is_answer,
                         uint64_t *revision)
{
    const char *line_end = memchr(bytes, '\n', length);

    (void)revision;
    if (line_end == NULL)
        return 0;
    size_t line = (size_t)(line_end + 1 - bytes);
    *is_answer = true;
    if (operation == LOAD_PUT) {
        if (bytes[0] != '+')
            bench_die("redis answered %.*s", (int)line, bytes);
        return line;
    }
    if (bytes[0] != '$')
        bench_die("redis answered %.*s", (int)line, bytes);
    size_t size = strtoul(bytes + 1, NULL, 10);
    if (length < line + size + 2)
        return 0;
    check_value(bytes + line, size);
    return line + size + 2;
}

const struct load_protocol load_redis = {load_connect_unix, redis_request, redis_take};

/* --- NATS: publishes with a reply, and direct gets (ADR-8, ADR-31) ------------------------------------------ */

static int nats_connect(const void *port)
{
    return raw_connect(*(const int *)port);
}

/* Distinguishes runs of the same process. */
static uint64_t load_started(void)
{
    static uint64_t started;

    if (started == 0)
        started = (uint64_t)(bench_now_s() * 1e6);
    return started;
}

static size_t nats_request(char *out, enum load_operation operation, const struct load *load, uint32_t number)
{
    char key[64];

    make_key(key, load, number);
    if (operation == LOAD_GET)
        return (size_t)sprintf(out, "PUB $JS.API.DIRECT.GET.KV_%s.$KV.%s.%s raw.0 0\r\n\r\n", BENCH_BUCKET,
                               BENCH_BUCKET, key);
    /* An id as long as the daemon's, and unique among all runs. */
    static const unsigned header_bytes = sizeof("NATS/1.0\r\nNats-Msg-Id: 0123456789-0123456789a-01234567\r\n\r\n") - 1;
    int length =
        sprintf(out, "HPUB $KV.%s.%s raw.0 %u %u\r\nNATS/1.0\r\nNats-Msg-Id: %010d-%011lx-%08x\r\n\r\n", BENCH_BUCKET,
                key, header_bytes, header_bytes + BENCH_VALUE_BYTES, getpid(), (unsigned long)load_started(), number);
    bench_make_value(out + length, key, number);
    memcpy(out + length + BENCH_VALUE_BYTES, "\r\n", 2);
    return (size_t)length + BENCH_VALUE_BYTES + 2;
}

static size_t nats_take(const char *bytes, size_t length, enum load_operation operation, bool *is_answer,
                        uint64_t *revision)
{
    const char *line_end = memchr(bytes, '\n', length);

    if (line_end == NULL)
        return 0;
    size_t line = (size_t)(line_end + 1 - bytes);
    bool has_headers = bytes[0] == 'H';
    if (bytes[has_headers] != 'M') { /* PING and the like */
        if (bytes[0] == '-')
            bench_die("the server answered %.*s", (int)line, bytes);
        return line;
    }

    /* The last number of the line is the size of all that follows. */
    const char *number = line_end - 1;
    while (number[-1] != ' ')
        number--;
    size_t size = strtoul(number, NULL, 10);
    if (length < line + size + 2)
        return 0;
    *is_answer = true;
    const char *body = bytes + line;
    if (operation == LOAD_GET) {
        if (!has_headers || size < BENCH_VALUE_BYTES)
            bench_die("a direct get was answered without a value");
        check_value(body + size - BENCH_VALUE_BYTES, BENCH_VALUE_BYTES);
    } else {
        const char *sequence = memmem(body, size, "\"seq\":", 6);
        if (sequence == NULL)
            bench_die("the server answered %.*s", (int)size, body);
        *revision = strtoull(sequence + 6, NULL, 10);
    }
    return line + size + 2;
}

const struct load_protocol load_nats = {nats_connect, nats_request, nats_take};
