#include "daemon/store/bucket/stream.h"

#include "daemon/nats/stream_info.h"
#include "daemon/store/context.h"

#include <string.h>

const char *stream_leader(json_t *info)
{
    const char *leader = json_string_value(json_object_get(json_object_get(info, "cluster"), "leader"));

    return leader != NULL ? leader : "";
}

uint64_t stream_server_keeper(const struct store *store, const char *leader)
{
    return stream_info_keeper(&store->jetstream, leader);
}

void stream_read_info(const struct store *store, json_t *answer, struct stream_state *stream)
{
    struct stream_info info;

    memset(stream, 0, sizeof(*stream));
    stream_info_read(&store->jetstream, answer, &info);
    if (info.is_mirror || info.identity == 0)
        return;
    stream->window_ms = info.duplicate_window_ms;
    stream->identity = info.identity;
    stream->last_sequence = info.last_sequence;
    stream->keeper = info.keeper;
}

void stream_note_sequence(struct stream_state *stream, uint64_t sequence, uint64_t keeper)
{
    if (sequence > stream->last_sequence || keeper != stream->keeper)
        stream->last_sequence = sequence;
    stream->keeper = keeper;
}
