#include "tests/support/attack_runs.h"
#include "tests/support/flood.h"

#include "client/lib/kvstore_admin.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES      (256u * 1024u)
#define PREPARE_S       50.0
#define OPERATIONS      1000u
#define CONNECTIONS_MAX 20000u
#define LOGINS_MAX      5000u
#define HALF_OPEN       200u
#define CONNECTS_PER_MS 8u

/* --- Preparation ------------------------------------------------------------------------------------- */

static void check(struct attack *attack, struct kvs *kvs, enum kvs_code code)
{
    if (code != KVS_OK)
        attack_note_error(attack, kvs_last_error(kvs)->message);
}

static void put_zeros(struct attack *attack, struct kvs *kvs, size_t size)
{
    char *zeros = calloc(1, size);

    if (zeros == NULL)
        abort();
    check(attack, kvs, kvs_put(kvs, ATTACK_BUCKET, "key", zeros, size, NULL, NULL));
    free(zeros);
}

/* Put key.0, key.1, … with values of so many zeros. */
static void put_keys(struct attack *attack, struct kvs *kvs, unsigned count, size_t size)
{
    struct kvs_pair pairs[OPERATIONS];
    static char keys[OPERATIONS][64];
    char *zeros = calloc(1, size);

    if (zeros == NULL)
        abort();
    for (unsigned at = 0; at < count && attack->error[0] == '\0'; at += OPERATIONS) {
        for (unsigned i = 0; i < OPERATIONS; i++)
            pairs[i] = (struct kvs_pair){calls_numbered(keys[i], "key.", at + i), zeros, size};
        check(attack, kvs, kvs_bulk_put(kvs, ATTACK_BUCKET, pairs, OPERATIONS, NULL, NULL, NULL));
    }
    free(zeros);
}

static void put_one_key(struct attack *attack, struct kvs *kvs)
{
    put_zeros(attack, kvs, 16);
}

static void put_large_value(struct attack *attack, struct kvs *kvs)
{
    put_zeros(attack, kvs, 1000000);
}

static void put_large_keys(struct attack *attack, struct kvs *kvs)
{
    put_keys(attack, kvs, OPERATIONS, 15000);
}

static void put_many_keys(struct attack *attack, struct kvs *kvs)
{
    put_keys(attack, kvs, 100000, 8);
}

/* 1 MB of 200,000 numbers. */
static void put_json(struct attack *attack, struct kvs *kvs)
{
    enum { NUMBERS = 120000 };
    char *json = malloc(NUMBERS * 5 + 1);

    if (json == NULL)
        abort();
    for (unsigned i = 0; i < NUMBERS; i++)
        memcpy(json + i * 5, i == 0 ? "[1234" : ",1234", 5);
    json[NUMBERS * 5] = ']';
    check(attack, kvs, kvs_put(kvs, ATTACK_BUCKET, "key", json, NUMBERS * 5 + 1, NULL, NULL));
    free(json);
}

/* Names that a filter of many stars matches in very many ways, up to the last character. */
static void make_long_names(struct attack *attack, struct kvs *kvs)
{
    const struct kvs_bucket_options in_memory = KVS_BUCKET_OPTIONS(.storage = KVS_STORAGE_MEMORY);
    char name[256];

    memset(name, 'a', sizeof(name));
    for (unsigned i = 0; i < 20; i++) {
        snprintf(name + 240, sizeof(name) - 240, "-%02u", i);
        enum kvs_code code = kvs_bucket_create(kvs, name, &in_memory, NULL);
        if (code != KVS_ALREADY_EXISTS)
            check(attack, kvs, code);
    }
}

void attack_prepare(const struct attack_kind *kind, struct attack *attack)
{
    const struct kvs_options options = KVS_OPTIONS(.timeout_s = PREPARE_S);
    const struct kvs_bucket_options in_memory = KVS_BUCKET_OPTIONS(.storage = KVS_STORAGE_MEMORY);
    struct kvs_error error;
    struct kvs *kvs = kvs_connect(attack->socket_path, &options, &error);

    attack->error[0] = '\0';
    if (kvs == NULL) {
        attack_note_error(attack, error.message);
        return;
    }
    enum kvs_code code = kvs_bucket_delete(kvs, ATTACK_BUCKET, NULL);
    if (code != KVS_BUCKET_NOT_FOUND)
        check(attack, kvs, code);
    check(attack, kvs, kvs_bucket_create(kvs, ATTACK_BUCKET, &in_memory, NULL));
    if (kind->prepare != NULL && attack->error[0] == '\0')
        kind->prepare(attack, kvs);
    kvs_close(kvs);
}

void attack_run(const struct attack_kind *kind, struct attack *attack)
{
    kind->run(attack);
}

/* --- Attacks on the memory --------------------------------------------------------------------------- */

static void run_unfinished_messages(struct attack *attack)
{
    struct calls calls;

    calls_begin(&calls);
    calls_add(&calls, "kv.put", 3, ATTACK_BUCKET);
    calls_add_text(&calls, "key");
    calls_add_zeros(&calls, 16u * 1024 * 1024 - 1024);
    calls.buffer.size -= 1024;
    flood_run(attack, 36, FLOOD_IGNORE, &calls);
}

static void run_unread_answers(struct attack *attack)
{
    struct calls calls;

    calls_begin(&calls);
    for (unsigned i = 0; i < 20; i++) {
        calls_add(&calls, "kv.get", 3, ATTACK_BUCKET);
        calls_add_text(&calls, "key");
        calls_add_cached(&calls);
    }
    flood_run(attack, 32, FLOOD_IGNORE, &calls);
}

static void run_decoded_arrays(struct attack *attack)
{
    enum { CALLS = 100, NUMBERS = 60000 };
    struct calls calls;

    calls_begin(&calls);
    for (unsigned i = 0; i < CALLS; i++) {
        calls_add(&calls, "kv.put", 3, ATTACK_BUCKET);
        calls_add_text(&calls, "key");
        msgpack_pack_array(&calls.packer, NUMBERS);
        for (unsigned n = 0; n < NUMBERS; n++)
            msgpack_pack_int(&calls.packer, 0);
    }
    flood_run(attack, 1, FLOOD_REPEAT, &calls);
}

static void run_leaving(struct attack *attack)
{
    struct calls calls;

    calls_begin(&calls);
    for (unsigned i = 0; i < 2000; i++) {
        calls_add(&calls, "kv.get", 2, ATTACK_BUCKET);
        calls_add_text(&calls, "key");
        calls_add(&calls, "kv.put", 3, ATTACK_BUCKET);
        calls_add_text(&calls, "key");
        calls_add_zeros(&calls, 16);
    }
    flood_run(attack, 4, FLOOD_LEAVE, &calls);
}

/* --- Attacks with many keys -------------------------------------------------------------------------- */

static void run_bulk_put(struct attack *attack, const char *bucket)
{
    enum { SESSIONS = 4, CALLS = 128 / SESSIONS };
    struct calls calls;
    char key[64];

    calls_begin(&calls);
    for (unsigned i = 0; i < CALLS; i++) {
        calls_add(&calls, "bulk.put", 2, bucket);
        msgpack_pack_map(&calls.packer, OPERATIONS);
        for (unsigned n = 0; n < OPERATIONS; n++) {
            calls_add_text(&calls, calls_numbered(key, "attack.", n));
            calls_add_zeros(&calls, 100);
        }
    }
    flood_run(attack, SESSIONS, FLOOD_REPEAT, &calls);
}

static void run_bulk_put_same_bucket(struct attack *attack)
{
    run_bulk_put(attack, attack->neighbour_bucket);
}

static void run_bulk_put_other_bucket(struct attack *attack)
{
    run_bulk_put(attack, ATTACK_BUCKET);
}

/* All that a session may have in flight, on each of eight. The neighbour, who is the same user, still has room. */
static void run_puts(struct attack *attack)
{
    struct calls calls;
    char key[64];

    calls_begin(&calls);
    for (unsigned i = 0; i < 4000; i++) {
        calls_add(&calls, "kv.put", 3, attack->neighbour_bucket);
        calls_add_text(&calls, calls_numbered(key, "attack.", i));
        calls_add_zeros(&calls, 4000);
    }
    flood_run(attack, 8, FLOOD_REPEAT, &calls);
}

/* All answers together fit into the share of one user, who is the neighbour, too: limits.user_percent. */
static void run_bulk_get(struct attack *attack)
{
    struct calls calls;
    char key[64];

    calls_begin(&calls);
    for (unsigned i = 0; i < 6; i++) {
        calls_add(&calls, "bulk.get", 2, ATTACK_BUCKET);
        msgpack_pack_array(&calls.packer, OPERATIONS);
        for (unsigned n = 0; n < OPERATIONS; n++)
            calls_add_text(&calls, calls_numbered(key, "key.", n));
    }
    flood_run(attack, 4, FLOOD_REPEAT, &calls);
}

static void add_put(struct calls *calls, const char *key)
{
    msgpack_pack_array(&calls->packer, 3);
    calls_add_text(calls, "put");
    calls_add_text(calls, key);
    calls_add_zeros(calls, 16);
}

static void run_transactions(struct attack *attack)
{
    struct calls calls;
    char key[64];

    calls_begin(&calls);
    for (unsigned i = 0; i < 32; i++) {
        calls_add(&calls, "txn.commit", 3, ATTACK_BUCKET);
        msgpack_pack_array(&calls.packer, 0);
        msgpack_pack_array(&calls.packer, OPERATIONS);
        for (unsigned n = 0; n < OPERATIONS; n++)
            add_put(&calls, calls_numbered(key, "key.", n));
    }
    flood_run(attack, 4, FLOOD_REPEAT, &calls);
}

static void run_checks(struct attack *attack)
{
    enum { CHECKS = 4096 };
    struct calls calls;
    char key[64];

    calls_begin(&calls);
    for (unsigned i = 0; i < 16; i++) {
        calls_add(&calls, "txn.commit", 3, ATTACK_BUCKET);
        msgpack_pack_array(&calls.packer, CHECKS);
        for (unsigned n = 0; n < CHECKS; n++) {
            msgpack_pack_array(&calls.packer, 2);
            calls_add_text(&calls, calls_numbered(key, "missing.", n));
            msgpack_pack_int(&calls.packer, 0);
        }
        msgpack_pack_array(&calls.packer, 1);
        add_put(&calls, "key");
    }
    flood_run(attack, 4, FLOOD_REPEAT, &calls);
}

/* --- Attacks with many calls ------------------------------------------------------------------------- */

static void run_missing_buckets(struct attack *attack)
{
    struct calls calls;
    char bucket[64];

    calls_begin(&calls);
    for (unsigned i = 0; i < 2000; i++) {
        calls_add(&calls, "kv.get", 3, calls_numbered(bucket, "missing-", i));
        calls_add_text(&calls, "key");
        calls_add_cached(&calls);
    }
    flood_run(attack, 1, FLOOD_REPEAT, &calls);
}

static void run_json_values(struct attack *attack)
{
    struct calls calls;

    calls_begin(&calls);
    for (unsigned i = 0; i < 1500; i++) {
        calls_add(&calls, "kv.get_json", 3, ATTACK_BUCKET);
        calls_add_text(&calls, "key");
        calls_add_cached(&calls);
    }
    flood_run(attack, 4, FLOOD_REPEAT, &calls);
}

static void run_keys_limit_one(struct attack *attack)
{
    struct calls calls;

    calls_begin(&calls);
    for (unsigned i = 0; i < 100; i++) {
        calls_add(&calls, "kv.keys", 2, ATTACK_BUCKET);
        msgpack_pack_map(&calls.packer, 2);
        calls_add_text(&calls, "limit");
        msgpack_pack_int(&calls.packer, 1);
        calls_add_text(&calls, "consistency");
        calls_add_text(&calls, "cached");
    }
    flood_run(attack, 1, FLOOD_REPEAT, &calls);
}

static void run_bucket_filters(struct attack *attack)
{
    char filter[256];
    struct calls calls;

    for (unsigned i = 0; i < 254; i++)
        filter[i] = i % 2 == 0 ? '*' : 'a';
    strcpy(filter + 254, "b");
    calls_begin(&calls);
    for (unsigned i = 0; i < 500; i++) {
        msgpack_pack_array(&calls.packer, 4);
        msgpack_pack_int(&calls.packer, 0);
        msgpack_pack_uint32(&calls.packer, calls.count++);
        calls_add_text(&calls, "bucket.list");
        msgpack_pack_array(&calls.packer, 1);
        msgpack_pack_map(&calls.packer, 1);
        calls_add_text(&calls, "filter");
        calls_add_text(&calls, filter);
    }
    flood_run(attack, 1, FLOOD_REPEAT, &calls);
}

/* The same call many times. */
static void run_calls(struct attack *attack, const char *method, const char *key, unsigned count)
{
    struct calls calls;

    calls_begin(&calls);
    for (unsigned i = 0; i < count; i++) {
        calls_add(&calls, method, 2, ATTACK_BUCKET);
        calls_add_text(&calls, key);
    }
    flood_run(attack, 1, FLOOD_REPEAT, &calls);
}

static void run_missing_keys(struct attack *attack)
{
    run_calls(attack, "kv.get", "missing", 10000);
}

static void run_histories(struct attack *attack)
{
    run_calls(attack, "kv.history", "key", 5000);
}

/* --- Attacks with watches ---------------------------------------------------------------------------- */

static void run_watch_filters(struct attack *attack)
{
    struct calls calls;
    char filter[64];

    calls_begin(&calls);
    for (unsigned i = 0; i < 1000; i++) {
        calls_add(&calls, "watch.start", 2, attack->neighbour_bucket);
        msgpack_pack_map(&calls.packer, 1);
        calls_add_text(&calls, "filter");
        msgpack_pack_array(&calls.packer, 64);
        for (unsigned n = 0; n < 64; n++)
            calls_add_text(&calls, calls_numbered(filter, "*.filter", i * 64 + n));
    }
    flood_run(attack, 1, FLOOD_STAY, &calls);
}

/* Block until the socket has taken all, or has failed. */
static bool write_all(int socket, const msgpack_sbuffer *bytes)
{
    struct pollfd writable = {.fd = socket, .events = POLLOUT};

    for (size_t sent = 0; sent < bytes->size;) {
        ssize_t more = send(socket, bytes->data + sent, bytes->size - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (more < 0 && (errno != EAGAIN || poll(&writable, 1, 1000) != 1))
            return false;
        sent += more > 0 ? (size_t)more : 0;
    }
    return true;
}

/* Wait for count answers and keep their results, which are watches' ids. Return false if time or session has ended. */
static bool read_ids(int socket, msgpack_unpacker *unpacker, unsigned count, uint64_t *ids, double end_s)
{
    struct pollfd readable = {.fd = socket, .events = POLLIN};
    msgpack_unpacked message;
    unsigned answers = 0;

    msgpack_unpacked_init(&message);
    while (answers < count && attack_now_s() < end_s) {
        if (msgpack_unpacker_next(unpacker, &message) == MSGPACK_UNPACK_SUCCESS) {
            const msgpack_object *parts = message.data.via.array.ptr;
            if (message.data.via.array.size == 4)
                ids[answers++] = parts[3].type == MSGPACK_OBJECT_POSITIVE_INTEGER ? parts[3].via.u64 : 0;
            continue;
        }
        if (!msgpack_unpacker_reserve_buffer(unpacker, READ_BYTES))
            abort();
        if (poll(&readable, 1, 20) != 1)
            continue;
        ssize_t received = recv(socket, msgpack_unpacker_buffer(unpacker), READ_BYTES, MSG_DONTWAIT);
        if (received == 0 || (received < 0 && errno != EAGAIN))
            break;
        if (received > 0)
            msgpack_unpacker_buffer_consumed(unpacker, (size_t)received);
    }
    msgpack_unpacked_destroy(&message);
    return answers == count;
}

static void run_watch_churn(struct attack *attack)
{
    enum { WATCHES = 50 };
    double end_s = attack_now_s() + attack->seconds;
    uint64_t ids[WATCHES] = {0};
    bool are_started = false;
    msgpack_unpacker unpacker;
    struct calls calls;
    int socket = flood_dial(attack->socket_path);

    msgpack_unpacker_init(&unpacker, READ_BYTES);
    do {
        calls_begin(&calls);
        for (unsigned i = 0; i < WATCHES; i++) {
            if (!are_started) {
                calls_add(&calls, "watch.start", 1, ATTACK_BUCKET);
                continue;
            }
            msgpack_pack_array(&calls.packer, 4);
            msgpack_pack_int(&calls.packer, 0);
            msgpack_pack_uint32(&calls.packer, i);
            calls_add_text(&calls, "watch.stop");
            msgpack_pack_array(&calls.packer, 1);
            msgpack_pack_uint64(&calls.packer, ids[i]);
        }
        are_started = !are_started;
        bool is_sent = write_all(socket, &calls.buffer);
        msgpack_sbuffer_destroy(&calls.buffer);
        if (!is_sent)
            break;
    } while (read_ids(socket, &unpacker, WATCHES, ids, end_s));
    msgpack_unpacker_destroy(&unpacker);
    close(socket);
}

/* --- Attacks with connections ------------------------------------------------------------------------ */

static void run_connections(struct attack *attack)
{
    double end_s = attack_now_s() + attack->seconds;

    for (unsigned made = 0; made < CONNECTIONS_MAX && attack_now_s() < end_s; made++) {
        int socket = flood_dial(attack->socket_path);
        if (socket >= 0)
            close(socket);
        if (socket < 0 || made % CONNECTS_PER_MS == 0)
            usleep(1000);
    }
}

static int dial_port(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval patience = {.tv_usec = 100000};
    int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(made, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (connect(made, (struct sockaddr *)&address, sizeof(address)) == 0)
        return made;
    close(made);
    return -1;
}

/* Send a password, and wait until the server has closed, or for a moment. */
static void log_in_wrongly(struct attack *attack, int socket)
{
    static const char login[] = "CONNECT {\"verbose\":false,\"user\":\"kvstored\",\"pass\":\"guessed\"}\r\nPING\r\n";
    char answer[4096];
    ssize_t received;

    send(socket, login, strlen(login), MSG_NOSIGNAL);
    while ((received = recv(socket, answer, sizeof(answer), 0)) > 0) {
        if (memmem(answer, (size_t)received, "PONG", 4) != NULL)
            attack_note_error(attack, "nats-server takes a wrong password");
    }
    close(socket);
}

static void run_wrong_logins(struct attack *attack)
{
    double end_s = attack_now_s() + attack->seconds;
    int half_open[HALF_OPEN];

    for (unsigned i = 0; i < HALF_OPEN; i++)
        half_open[i] = dial_port(attack->port);
    for (unsigned made = 0; made < LOGINS_MAX && attack_now_s() < end_s; made++) {
        int socket = dial_port(attack->port);
        if (socket >= 0)
            log_in_wrongly(attack, socket);
    }
    for (unsigned i = 0; i < HALF_OPEN; i++) {
        if (half_open[i] >= 0)
            close(half_open[i]);
    }
}

/* --- The table --------------------------------------------------------------------------------------- */

const struct attack_kind attack_unfinished_messages = {"unfinished messages", NULL, run_unfinished_messages},
                         attack_unread_answers = {"unread answers", put_large_value, run_unread_answers},
                         attack_decoded_arrays = {"decoded arrays", NULL, run_decoded_arrays},
                         attack_watch_churn = {"watch churn", put_one_key, run_watch_churn},
                         attack_bulk_put_same_bucket = {"bulk.put, same bucket", NULL, run_bulk_put_same_bucket},
                         attack_bulk_put_other_bucket = {"bulk.put, other bucket", NULL, run_bulk_put_other_bucket},
                         attack_puts = {"puts, same bucket", NULL, run_puts},
                         attack_bulk_get = {"bulk.get", put_large_keys, run_bulk_get},
                         attack_transactions = {"transactions", NULL, run_transactions},
                         attack_checks = {"checks", NULL, run_checks},
                         attack_missing_buckets = {"missing buckets", NULL, run_missing_buckets},
                         attack_connections = {"connections", NULL, run_connections},
                         attack_wrong_logins = {"wrong logins", NULL, run_wrong_logins},
                         attack_json_values = {"JSON values", put_json, run_json_values},
                         attack_keys_limit_one = {"keys, limit 1", put_many_keys, run_keys_limit_one},
                         attack_entries = {"entries", put_many_keys, attack_run_entries},
                         attack_deletions = {"deletions", put_many_keys, attack_run_deletions},
                         attack_bucket_filters = {"bucket filters", make_long_names, run_bucket_filters},
                         attack_missing_keys = {"missing keys", NULL, run_missing_keys},
                         attack_histories = {"histories", put_one_key, run_histories},
                         attack_watch_filters = {"watch filters", NULL, run_watch_filters},
                         attack_leaving = {"leaving", put_one_key, run_leaving};
