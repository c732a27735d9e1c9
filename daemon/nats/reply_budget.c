#include "daemon/nats/reply_budget.h"

/* The budget is at most an eighth of what the server buffers for a connection by default. */
#define BUDGET_BYTES_MAX (8u * 1024u * 1024u)
#define BUDGET_BYTES_MIN (2u * 1024u * 1024u)

/* What a server sends in a microsecond, about. */
#define BYTES_PER_US 100u

/* Expected of the first replies: the server's default max_payload. */
#define FIRST_REPLY_BYTES (1024u * 1024u)

/* Added to each reply for the server's work, far more than its headers take: 512 to 2,048 replies fit in flight. */
#define OVERHEAD_BYTES 4096u

/* The largest reply of this period and the one before counts. */
#define PERIOD_MS 10000u

/* Replies after which an assumed size is dropped. */
#define ASSUMED_REPLIES 256u

static void assume_size(struct reply_budget *budget, size_t bytes)
{
    budget->assumed_bytes = bytes;
    budget->assumed_replies = ASSUMED_REPLIES;
}

void reply_budget_init(struct reply_budget *budget, uint64_t now_ms)
{
    *budget = (struct reply_budget){.period_began_ms = now_ms};
    assume_size(budget, FIRST_REPLY_BYTES);
}

void reply_budget_note_loss(struct reply_budget *budget, size_t max_payload_bytes)
{
    if (budget->in_flight_bytes > 0)
        assume_size(budget, max_payload_bytes);
}

void reply_budget_note_reply(struct reply_budget *budget, uint64_t now_ms, size_t bytes)
{
    if (now_ms - budget->period_began_ms > PERIOD_MS) {
        budget->period_began_ms = now_ms;
        budget->former_bytes = budget->recent_bytes;
        budget->recent_bytes = 0;
    }
    if (bytes + OVERHEAD_BYTES > budget->recent_bytes)
        budget->recent_bytes = bytes + OVERHEAD_BYTES;
    if (budget->assumed_replies > 0 && --budget->assumed_replies == 0)
        budget->assumed_bytes = 0;
}

static size_t expected_size(const struct reply_budget *budget)
{
    size_t bytes = budget->former_bytes > budget->recent_bytes ? budget->former_bytes : budget->recent_bytes;

    return budget->assumed_bytes > bytes ? budget->assumed_bytes : bytes;
}

size_t reply_budget_expect(const struct reply_budget *budget, size_t values, size_t bytes_max)
{
    size_t each = expected_size(budget);

    if (values == 0)
        return 0;
    if (values == REPLY_BUDGET_ALL || (bytes_max > 0 && each > bytes_max / values))
        return bytes_max;
    return each * values;
}

static size_t budget_bytes(uint64_t rtt_us)
{
    uint64_t bytes = BUDGET_BYTES_MIN + rtt_us * BYTES_PER_US;

    return rtt_us == 0 || bytes > BUDGET_BYTES_MAX ? BUDGET_BYTES_MAX : (size_t)bytes;
}

bool reply_budget_fits(const struct reply_budget *budget, size_t bytes, uint64_t rtt_us)
{
    return budget->in_flight_bytes == 0 || budget->in_flight_bytes + bytes <= budget_bytes(rtt_us);
}

void reply_budget_charge(struct reply_budget *budget, size_t bytes)
{
    budget->in_flight_bytes += bytes;
}

void reply_budget_refund(struct reply_budget *budget, size_t bytes)
{
    budget->in_flight_bytes -= bytes;
}
