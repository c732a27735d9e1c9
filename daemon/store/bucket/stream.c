#include "daemon/store/bucket/stream.h"

#include "daemon/base/hash.h"
#include "daemon/store/context.h"

#include <stdio.h>
#include <string.h>

static const char *text_or_empty(json_t *text)
{
    return json_is_string(text) ? json_string_value(text) : "";
}

/* Return the keeper of the ids of a replicated stream: its leader, for as long as it leads. 0: this is not told. */
static uint64_t leader_keeper(json_t *cluster)
{
    char text[192];
    json_t *since = json_object_get(cluster, "leader_since");

    if (!json_is_string(since))
        return 0;
    snprintf(text, sizeof(text), "%s %s", text_or_empty(json_object_get(cluster, "leader")), json_string_value(since));
    return hash_bytes(text, strlen(text));
}

const char *stream_leader(json_t *info)
{
    return text_or_empty(json_object_get(json_object_get(info, "cluster"), "leader"));
}

uint64_t stream_server_keeper(const struct store *store, const char *leader)
{
    const char *id = connection_server_id(store->connection);
    bool is_it = leader[0] != '\0' && strcmp(leader, store->jetstream.server_name) == 0;

    return is_it && id[0] != '\0' && store->conf->nats.domain == NULL ? hash_bytes(id, strlen(id)) : 0;
}

void stream_read_info(const struct store *store, json_t *info, struct stream_state *stream)
{
    json_t *cluster = json_object_get(info, "cluster"), *config = json_object_get(info, "config");
    const char *created = text_or_empty(json_object_get(info, "created"));

    memset(stream, 0, sizeof(*stream));
    if (json_is_object(json_object_get(config, "mirror")) || created[0] == '\0')
        return;
    stream->window_ms = (uint64_t)json_integer_value(json_object_get(config, "duplicate_window")) / 1000000u;
    stream->identity = hash_bytes(created, strlen(created));
    stream->last_sequence = (uint64_t)json_integer_value(json_object_get(json_object_get(info, "state"), "last_seq"));
    if (json_is_string(json_object_get(cluster, "name")))
        stream->keeper = leader_keeper(cluster);
    else
        stream->keeper = stream_server_keeper(store, stream_leader(info));
}

void stream_note_sequence(struct stream_state *stream, uint64_t sequence, uint64_t keeper)
{
    if (sequence > stream->last_sequence || keeper != stream->keeper)
        stream->last_sequence = sequence;
    stream->keeper = keeper;
}
