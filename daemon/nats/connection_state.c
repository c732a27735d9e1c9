#include "daemon/nats/connection_parts.h"
#include "daemon/nats/credentials.h"

#include <stdio.h>

void connection_warn_unencrypted(struct connection *connection, const struct libnats_connection *opened)
{
    const char *setting = credentials_in_clear_text(connection->conf, &connection->target);

    if (setting == NULL || opened->tls != NULL || connection->has_warned || credentials_peer_is_local(opened->socket))
        return;
    connection->has_warned = true;
    log_warning("nats: the connection to %s is not encrypted: %s and all data cross the network in clear text; use "
                "tls:// if the server has TLS",
                opened->url, setting);
}

bool connection_is_abandoned(const struct connection *connection)
{
    return connection->state == CONNECTION_ABANDONED;
}

void connection_set_trouble(struct connection *connection, const char *text)
{
    snprintf(connection->status.trouble, sizeof(connection->status.trouble), "%s", text);
}

bool connection_is_up(const struct connection *connection)
{
    return connection->state == CONNECTION_UP;
}

uint64_t connection_number(const struct connection *connection)
{
    return connection->number;
}

uint64_t connection_sent_after_ms(const struct connection *connection)
{
    return connection->ping.answered_sent_ms;
}

bool connection_earlier_are_closed(const struct connection *connection, uint64_t first)
{
    return former_are_closed(&connection->former, first);
}

const char *connection_server_id(const struct connection *connection)
{
    return connection->server_id;
}

const struct connection_status *connection_get_status(const struct connection *connection)
{
    return &connection->status;
}

const char *connection_inbox(const struct connection *connection)
{
    return connection->inbox;
}

const char *connection_unique_id(const struct connection *connection)
{
    return connection->unique_id;
}
