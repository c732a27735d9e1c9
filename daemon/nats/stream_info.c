#include "daemon/nats/stream_info.h"

#include "daemon/base/hash.h"

#include <stdio.h>
#include <string.h>

static const char *text_or_empty(json_t *text)
{
    return json_is_string(text) ? json_string_value(text) : "";
}

static uint64_t number_in(json_t *object, const char *name)
{
    return (uint64_t)json_integer_value(json_object_get(object, name));
}

/* The server chooses these texts, and the daemon compares their hashes with those of an earlier run: see journal. */
static uint64_t stable_hash(const char *text)
{
    static const uint64_t key[2] = {0, 0};

    return hash_bytes_with(key, text, strlen(text));
}

/* Return the keeper of the message ids of a replicated stream: its leader, for as long as it leads. */
static uint64_t leader_keeper(const char *leader, const char *since)
{
    char text[192];

    if (since[0] == '\0')
        return 0;
    snprintf(text, sizeof(text), "%s %s", leader, since);
    return stable_hash(text);
}

uint64_t stream_info_keeper(const struct jetstream *jetstream, const char *leader)
{
    const char *server_id = connection_server_id(jetstream->requests->connection);
    bool is_connected = leader[0] != '\0' && strcmp(leader, jetstream->server_name) == 0;
    bool has_domain = jetstream->requests->conf->nats.domain != NULL;

    return is_connected && server_id[0] != '\0' && !has_domain ? stable_hash(server_id) : 0;
}

void stream_info_read(const struct jetstream *jetstream, json_t *answer, struct stream_info *info)
{
    json_t *config = json_object_get(answer, "config"), *state = json_object_get(answer, "state");
    json_t *cluster = json_object_get(answer, "cluster"), *subjects = json_object_get(config, "subjects");
    const char *created = text_or_empty(json_object_get(answer, "created"));
    const char *leader = text_or_empty(json_object_get(cluster, "leader"));
    const char *since = text_or_empty(json_object_get(cluster, "leader_since"));
    char text[384];

    memset(info, 0, sizeof(*info));
    if (created[0] != '\0')
        info->identity = stable_hash(created);
    int length = snprintf(text, sizeof(text), "%s %s %s %s", created, leader, since,
                          connection_server_id(jetstream->requests->connection));
    info->incarnation = hash_bytes(text, length < (int)sizeof(text) ? (size_t)length : sizeof(text) - 1);
    info->keeper = json_is_string(json_object_get(cluster, "name")) ? leader_keeper(leader, since)
                                                                    : stream_info_keeper(jetstream, leader);
    info->first_sequence = number_in(state, "first_seq");
    info->last_sequence = number_in(state, "last_seq");
    info->messages = number_in(state, "messages");
    info->bytes = number_in(state, "bytes");
    info->duplicate_window_ms = number_in(config, "duplicate_window") / 1000000u;
    int64_t most = (int64_t)json_integer_value(json_object_get(config, "max_msgs_per_subject"));
    info->max_messages_per_subject = most > 0 ? (unsigned)most : 0;
    info->is_mirror = json_is_object(json_object_get(config, "mirror"));
    if (json_array_size(subjects) == 1)
        info->only_subject = json_string_value(json_array_get(subjects, 0));
}
