#include "daemon/store/room_gauge.h"

void room_writes_admit(struct room_writes *writes, size_t bytes)
{
    writes->admitted += bytes;
}

void room_writes_end(struct room_writes *writes, size_t bytes, bool is_in_doubt)
{
    if (is_in_doubt)
        writes->in_doubt += bytes;
    else
        writes->ended += bytes;
}

void room_writes_resolve(struct room_writes *writes)
{
    writes->ended += writes->in_doubt;
    writes->in_doubt = 0;
}

void room_gauge_begin(struct room_gauge *gauge, const struct room_writes *writes)
{
    gauge->begun = writes->ended;
}

void room_gauge_complete(struct room_gauge *gauge, uint64_t bytes)
{
    gauge->is_known = true;
    gauge->bytes = bytes;
    gauge->included = gauge->begun;
}

uint64_t room_gauge_missed(const struct room_gauge *gauge, const struct room_writes *writes)
{
    return writes->admitted - gauge->included;
}
