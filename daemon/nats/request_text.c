#include "daemon/nats/request_text.h"

#include <inttypes.h>
#include <stdio.h>

const char *request_state_text(enum request_state state)
{
    static const char *const texts[REQUEST_STATES] = {
        [REQUEST_IDLE] = "ended",
        [REQUEST_WAITING_FOR_CONNECTION] = "waiting for the connection",
        [REQUEST_WAITING_FOR_PLACE] = "waiting for a place",
        [REQUEST_WAITING_FOR_BUDGET] = "waiting for the reply budget",
        [REQUEST_SENT] = "sent",
        [REQUEST_UNSERVED] = "no responders",
        [REQUEST_BACKING_OFF] = "backing off",
        [REQUEST_SUSPENDED] = "suspended",
        [REQUEST_LISTENING] = "listening",
    };

    return texts[state];
}

const char *request_trouble_text(const struct request *request)
{
    switch (request->trouble) {
    case REQUEST_NO_CONNECTION:
        return "there was no connection to NATS";
    case REQUEST_NO_RESPONDERS:
        return "JetStream did not answer (is it enabled, and does the stream have a leader?)";
    case REQUEST_NO_LEADER:
        return "the stream or the cluster has no leader";
    case REQUEST_CONGESTED:
        return "the NATS server does not keep up";
    case REQUEST_NO_ANSWER:
    case REQUEST_NO_TROUBLE:
    case REQUEST_TOO_LARGE:
    case REQUEST_INBOX_DENIED:
        break;
    }
    return "the NATS server did not answer";
}

/* In contrast to request_trouble_text these are not a part of a sentence. */
static const char *cause_text(enum request_trouble trouble)
{
    static const char *const texts[] = {
        [REQUEST_NO_TROUBLE] = "",
        [REQUEST_NO_CONNECTION] = "no connection",
        [REQUEST_NO_RESPONDERS] = "no responders",
        [REQUEST_NO_LEADER] = "no leader",
        [REQUEST_NO_ANSWER] = "no answer",
        [REQUEST_CONGESTED] = "congested",
        [REQUEST_TOO_LARGE] = "larger than max_payload",
        [REQUEST_INBOX_DENIED] = "inbox denied",
    };

    return texts[trouble];
}

static uint64_t age_ms(const struct request *request)
{
    return uv_now(request->requests->loop) - request->started_ms;
}

static const char *kind_text(const struct request *request)
{
    return request->ops->kind != NULL ? request->ops->kind : "request";
}

static const char *label_text(const struct request *request)
{
    return request->label != NULL ? request->label : "";
}

void request_text_transition(const struct request *request, char text[REQUEST_TEXT_BYTES])
{
    const char *cause = cause_text(request->trouble);
    char call[32] = "";

    if (request->call_id != 0)
        snprintf(call, sizeof(call), " of call %" PRIu64, request->call_id);
    const char *label = label_text(request);
    snprintf(text, REQUEST_TEXT_BYTES, "request: %s%s%s in slot %d%s: %s, attempt %u, after %" PRIu64 " ms%s%s",
             kind_text(request), label[0] != '\0' ? " " : "", label, (int)request->slot, call,
             request_state_text(request->state), request->attempts, age_ms(request),
             cause[0] != '\0' ? "; last trouble: " : "", cause);
}

struct request_info request_text_info(const struct request *request)
{
    return (struct request_info){
        .kind = kind_text(request),
        .label = label_text(request),
        .state = request_state_text(request->state),
        .trouble = cause_text(request->trouble),
        .call_id = request->call_id,
        .age_ms = age_ms(request),
        .attempts = request->attempts,
    };
}

void request_text_set_error(const struct request *request, struct error *error)
{
    const char *text = request_trouble_text(request);

    switch (request->trouble) {
    case REQUEST_TOO_LARGE:
        error_set(error, ERROR_TOO_LARGE,
                  "the message with its headers is larger than the NATS server's max_payload; store less in one value");
        return;
    case REQUEST_INBOX_DENIED:
        error_set(error, ERROR_PERMISSION_DENIED,
                  "the NATS server denies kvstored's user to subscribe to \"%s\", on which replies arrive; grant it "
                  "that permission",
                  request->requests->inbox_denied);
        return;
    case REQUEST_NO_CONNECTION:
    case REQUEST_NO_RESPONDERS:
    case REQUEST_NO_LEADER:
        if (!request_is_in_doubt(request)) {
            error_set(error, ERROR_UNAVAILABLE, "%s for %.3g s; nothing was done, try again later", text,
                      (double)age_ms(request) / 1000.0);
            return;
        }
        break;
    case REQUEST_NO_TROUBLE:
    case REQUEST_NO_ANSWER:
    case REQUEST_CONGESTED:
        break;
    }
    if (request_is_in_doubt(request))
        error_set(error, ERROR_DEADLINE_EXCEEDED, "timed out: %s; try again, or allow a longer timeout", text);
    else
        error_set(error, ERROR_DEADLINE_EXCEEDED, "timed out: %s; nothing was done, allow a longer timeout", text);
}
