#include "tests/bench/raw.h"

#include "tests/bench/bench.h"
#include "tests/support/ports.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Room for a message besides its value: the protocol's line and the headers. */
#define MESSAGE_BYTES 384u

struct raw_batch {
    int connection;
    unsigned messages;
    char in[8192];
    char out[]; /* messages of MESSAGE_BYTES and a value each */
};

static void write_all(int connection, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(connection, bytes, length);
        if (written <= 0)
            bench_die("the raw socket cannot write");
        bytes += written;
        length -= (size_t)written;
    }
}

int raw_connect(int port)
{
    static const char hello[] =
        "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\nSUB raw.> 1\r\nPING\r\n";
    int connection = port_dial((unsigned)port), on = 1;
    char in[4096 + 1] = "";
    size_t got = 0;

    if (connection < 0)
        bench_die("the raw socket cannot connect");
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    write_all(connection, hello, strlen(hello));
    while (strstr(in, "PONG\r\n") == NULL) {
        ssize_t more = read(connection, in + got, sizeof(in) - 1 - got);
        if (more <= 0)
            bench_die("the raw socket cannot read");
        got += (size_t)more;
        in[got] = '\0';
    }
    return connection;
}

struct raw_batch *raw_batch_open(int port, unsigned messages)
{
    struct raw_batch *batch = malloc(sizeof(*batch) + messages * (MESSAGE_BYTES + BENCH_VALUE_BYTES));

    if (batch == NULL)
        bench_die("out of memory");
    batch->connection = raw_connect(port);
    batch->messages = messages;
    return batch;
}

static size_t make_message(char *out, const struct raw_batch *batch, unsigned place, unsigned number)
{
    char headers[192], key[32];
    bool is_last = place == batch->messages;
    int header_bytes =
        snprintf(headers, sizeof(headers), "NATS/1.0\r\nNats-Batch-Id: raw-%d-%u\r\nNats-Batch-Sequence: %u\r\n%s\r\n",
                 (int)getpid(), number, place, is_last ? "Nats-Batch-Commit: 1\r\n" : "");
    snprintf(key, sizeof(key), "txn.%u", place);
    int length = snprintf(out, MESSAGE_BYTES, "HPUB $KV." BENCH_BUCKET ".%s %s%d %d\r\n%s", key,
                          is_last ? "raw.ack " : "", header_bytes, header_bytes + (int)BENCH_VALUE_BYTES, headers);

    bench_make_value(out + length, key, number);
    memcpy(out + length + BENCH_VALUE_BYTES, "\r\n", 2);
    return (size_t)length + BENCH_VALUE_BYTES + 2;
}

uint64_t raw_batch_commit(struct raw_batch *batch, unsigned number)
{
    size_t length = 0, got = 0;
    char count[32];

    for (unsigned place = 1; place <= batch->messages; place++)
        length += make_message(batch->out + length, batch, place, number);
    write_all(batch->connection, batch->out, length);
    do {
        ssize_t more = read(batch->connection, batch->in + got, sizeof(batch->in) - 1 - got);
        if (more <= 0)
            bench_die("the raw socket cannot read");
        got += (size_t)more;
        batch->in[got] = '\0';
    } while (strstr(batch->in, "}\r\n") == NULL);
    snprintf(count, sizeof(count), "\"count\":%u", batch->messages);
    const char *sequence = strstr(batch->in, "\"seq\":");
    if (sequence == NULL || strstr(batch->in, count) == NULL)
        bench_die("the raw batch failed: %s", batch->in);
    return strtoull(sequence + strlen("\"seq\":"), NULL, 10);
}
