#include "daemon/nats/straggler.h"

#include "daemon/nats/requests.h"

#include <stdlib.h>

static void straggler_free(struct request *straggler)
{
    request_end(straggler);
    free(straggler);
}

static enum request_readiness straggler_prepare(struct request *straggler)
{
    straggler_free(straggler); /* the connection was lost: no answer comes */
    return REQUEST_SUSPENDED_OR_OVER;
}

static enum connection_publish_result straggler_send(struct request *straggler, unsigned attempt)
{
    (void)straggler;
    (void)attempt;
    return CONNECTION_NOT_UP; /* never called: it is never ready */
}

static enum request_verdict straggler_reply(struct request *straggler, unsigned attempt, struct message *message)
{
    (void)attempt;
    (void)message;
    straggler_free(straggler);
    return REQUEST_DONE;
}

static void straggler_fail(struct request *straggler, const struct error *error)
{
    (void)error;
    free(straggler);
}

static bool straggler_no_responders(struct request *straggler)
{
    straggler_free(straggler);
    return false;
}

static const struct request_ops straggler_ops = {
    .kind = "abandoned",
    .prepare = straggler_prepare,
    .send = straggler_send,
    .reply = straggler_reply,
    .fail = straggler_fail,
    .no_responders = straggler_no_responders,
};

bool straggler_is(const struct request *request)
{
    return request->ops == &straggler_ops;
}

struct request *straggler_new(const struct request *request)
{
    const struct requests *requests = request->requests;
    struct request *straggler = calloc(1, sizeof(*straggler));

    if (straggler == NULL)
        return NULL;
    straggler->requests = request->requests;
    straggler->ops = &straggler_ops;
    straggler->call_id = request->call_id;
    straggler->answers_once = request->answers_once;
    straggler->attempts = request->attempts;
    straggler->started_ms = request->started_ms;
    straggler->deadline_ms = uv_now(requests->loop) + requests->conf->calls.attempt_timeout_ms;
    straggler->was_sent = true;
    straggler->charged_bytes = request->charged_bytes;
    straggler->slot = request->slot;
    return straggler;
}
