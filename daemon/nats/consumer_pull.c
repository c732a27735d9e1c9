#include "daemon/nats/consumer_pull.h"

#define PULL_MESSAGES 1000u
#define PULL_BYTES    (2u * 1024u * 1024u)

/*
 * Of the pull of a list of values. Four readings of 8 MiB are at half of what the server holds for a connection. One of
 * headers has the ordinary limit, because many of them may run at a time.
 */
#define LIST_PULL_BYTES_MAX (8u * 1024u * 1024u)
/* Once that was reached, the pulls ask for no more messages than this: few are larger than 256 KiB. */
#define LIST_PULL_CAREFUL 32u

/* Of a message, beside its payload: headers (JetStream stores up to 64 KiB), subject and reply. */
#define BESIDE_PAYLOAD_BYTES (128u * 1024u)

/* Of a message of which only the headers are read, before the first one has come. */
#define HEADERS_ONLY_BYTES 256u

size_t consumer_pull_bytes(const struct connection *connection)
{
    size_t payload_bytes = connection_get_status(connection)->max_payload_bytes;

    return payload_bytes * 2 > PULL_BYTES ? payload_bytes * 2 : PULL_BYTES;
}

void consumer_pull_begin(struct consumer_pull *pull, bool headers_only, uint64_t messages, uint64_t bytes)
{
    pull->headers_only = headers_only;
    pull->message_bytes = headers_only || messages == 0 ? HEADERS_ONLY_BYTES : bytes / messages;
    if (pull->most == 0)
        pull->most = PULL_MESSAGES;
}

static size_t list_max_bytes(const struct consumer_pull *pull, const struct connection *connection)
{
    size_t max_bytes = consumer_pull_bytes(connection);

    return !pull->headers_only && max_bytes < LIST_PULL_BYTES_MAX ? LIST_PULL_BYTES_MAX : max_bytes;
}

unsigned consumer_pull_size(const struct consumer_pull *pull, const struct connection *connection, bool is_list,
                            size_t *max_bytes)
{
    *max_bytes = is_list ? list_max_bytes(pull, connection) : consumer_pull_bytes(connection);
    if (!is_list)
        return PULL_MESSAGES;
    uint64_t count = PULL_BYTES / (pull->message_bytes > 0 ? pull->message_bytes : 1);
    if (count > pull->most)
        count = pull->most;
    return count > 0 ? (unsigned)count : 1;
}

void consumer_pull_end(struct consumer_pull *pull)
{
    if (pull->delivered == 0)
        return;
    uint64_t now = pull->delivered_bytes / pull->delivered, before = pull->message_bytes / 2;

    pull->message_bytes = now > before ? now : before;
}

void consumer_pull_shrink(struct consumer_pull *pull, const struct connection *connection)
{
    size_t payload_bytes = pull->headers_only ? 0 : connection_get_status(connection)->max_payload_bytes;
    /* Messages of the largest size that fit into one pull. If a pull asks for no more, its size never ends it. */
    size_t fit = list_max_bytes(pull, connection) / (payload_bytes + BESIDE_PAYLOAD_BYTES);

    pull->most = pull->most > LIST_PULL_CAREFUL ? LIST_PULL_CAREFUL : fit > 0 ? (unsigned)fit : 1;
}
