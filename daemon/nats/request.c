#include "daemon/nats/request.h"

#include "daemon/base/backoff.h"
#include "daemon/base/log.h"
#include "daemon/nats/request_parts.h"
#include "daemon/nats/request_text.h"
#include "daemon/nats/request_time.h"
#include "daemon/nats/straggler.h"

#include <assert.h>
#include <string.h>
#include <utlist.h>

/* An attempt's time doubles with each retry, up to this many times. */
#define TIMEOUT_DOUBLINGS_MAX 3u

static void on_request_timer(struct timer *timer);

/* --- States ---------------------------------------------------------------------------------------- */

static void log_transition(const struct request *request)
{
    char text[REQUEST_TEXT_BYTES];

    if (log_is_on(CONF_LOG_DEBUG)) {
        request_text_transition(request, text);
        log_debug("%s", text);
    }
}

static void move_to_state(struct request *request, enum request_state state)
{
    struct requests *requests = request->requests;

    request_time_note(request, state);
    if (request->state != REQUEST_IDLE) {
        DL_DELETE2(requests->in_state[request->state], request, previous, next);
        requests->counts[request->state]--;
    }
    if (state != REQUEST_IDLE) {
        DL_APPEND2(requests->in_state[state], request, previous, next);
        requests->counts[state]++;
    }
    request->state = state;
    log_transition(request);
}

void request_release_budget(struct request *request)
{
    reply_budget_refund(&request->requests->budget, request->charged_bytes);
    request->charged_bytes = 0;
}

/* Whatever the request waits for, it waits no longer. */
static void enter_state(struct request *request, enum request_state state)
{
    struct requests *requests = request->requests;

    fair_queue_remove(&request->turn);
    published_forget(&request->published);
    request_release_budget(request);
    timer_stop(requests->timers, &request->timer);
    move_to_state(request, state);
}

static void set_timer(struct request *request, uint64_t at_ms)
{
    if (at_ms > request->deadline_ms)
        at_ms = request->deadline_ms;
    timer_start(request->requests->timers, &request->timer, at_ms, on_request_timer);
}

static void fail_at_deadline(struct request *request)
{
    struct error error;

    request_end(request);
    request_text_set_error(request, &error);
    request->ops->fail(request, &error);
}

static uint64_t next_backoff_ms(const struct request *request)
{
    const struct conf *conf = request->requests->conf;

    return backoff_ms(request->attempts - request->backoff_from, conf->calls.retry_min_ms, conf->calls.retry_max_ms);
}

static void request_back_off(struct request *request, enum request_trouble trouble)
{
    request->trouble = trouble;
    enter_state(request, REQUEST_BACKING_OFF);
    set_timer(request, uv_now(request->requests->loop) + next_backoff_ms(request));
}

/* No retry helps: fail soon, but not from within the present call. */
static void give_up(struct request *request, enum request_trouble trouble)
{
    request->deadline_ms = uv_now(request->requests->loop);
    request_back_off(request, trouble);
}

void request_wait_for_connection(struct request *request)
{
    request->trouble = REQUEST_NO_CONNECTION;
    enter_state(request, REQUEST_WAITING_FOR_CONNECTION);
    set_timer(request, request->deadline_ms);
}

/* --- The budget of replies ------------------------------------------------------------------------- */

static size_t expected_bytes(const struct request *request)
{
    return reply_budget_expect(&request->requests->budget, request->expected_values, request->expected_bytes_max);
}

bool request_fits_budget(const struct request *request)
{
    const struct requests *requests = request->requests;

    return reply_budget_fits(&requests->budget, expected_bytes(request),
                             connection_get_status(requests->connection)->rtt_min_us);
}

static void wait_for_budget(struct request *request)
{
    enter_state(request, REQUEST_WAITING_FOR_BUDGET);
    fair_queue_append(&request->requests->budget.waiting, &request->turn, request->owner);
    set_timer(request, request->deadline_ms);
}

struct request *request_first_waiting(const struct fair_queue *queue)
{
    struct fair_queue_entry *first = fair_queue_first(queue);

    return first != NULL ? (struct request *)((char *)first - offsetof(struct request, turn)) : NULL;
}

/* --- Places in a limit ----------------------------------------------------------------------------- */

static unsigned weight_of(const struct request *request)
{
    return request->weight > 0 ? request->weight : 1;
}

/* Return whether the request has a place in its limit now. If not, it waits for one. */
static bool acquire_place(struct request *request)
{
    struct request_limit *limit = request->limit;

    if (limit != request->place.limit)
        request_release_place(request);
    if (limit == NULL || limit == request->place.limit)
        return true;
    bool is_next = fair_queue_first(&limit->waiting) == NULL || fair_queue_has(&request->turn);
    if (is_next && request_limit_fits(limit, weight_of(request))) {
        request_place_acquire(&request->place, limit, weight_of(request));
        return true;
    }
    request->trouble = REQUEST_CONGESTED;
    enter_state(request, REQUEST_WAITING_FOR_PLACE);
    fair_queue_append(&limit->waiting, &request->turn, request->owner);
    set_timer(request, request->deadline_ms);
    return false;
}

void request_release_place(struct request *request)
{
    struct request_limit *limit = request_place_release(&request->place);
    struct request *first;

    while (limit != NULL && (first = request_first_waiting(&limit->waiting)) != NULL &&
           request_limit_fits(limit, weight_of(first)))
        request_send_attempt(first);
}

void request_transfer_place(struct request *from, struct request *to)
{
    assert(to->state == REQUEST_IDLE && to->place.limit == NULL);
    to->place = from->place;
    from->place.limit = NULL;
}

/* Let others go until its stream has a leader. It asks for a place again before its next attempt. */
static void yield_place(struct request *request)
{
    if (request->place.limit != NULL && request->place.limit->is_of_many_streams)
        request_release_place(request);
}

/* --- Attempts -------------------------------------------------------------------------------------- */

/*
 * A server that needs longer than an attempt's time would never complete a request of several steps, and be given ever
 * more to do. So each retry has twice as long as the attempt before.
 */
static uint64_t attempt_timeout_ms(const struct request *request)
{
    /* After request_reset_backoff no attempt counts. */
    unsigned retries = request->attempts > request->backoff_from ? request->attempts - request->backoff_from - 1 : 0;
    unsigned doublings = retries < TIMEOUT_DOUBLINGS_MAX ? retries : TIMEOUT_DOUBLINGS_MAX;

    return ((uint64_t)request->requests->conf->calls.attempt_timeout_ms << doublings) + request->extra_timeout_ms;
}

/* Return whether there is something to send now. If not, the request waits for what its owner waits for. */
static bool is_ready(struct request *request)
{
    switch (request->ops->prepare != NULL ? request->ops->prepare(request) : REQUEST_READY) {
    case REQUEST_READY:
        return true;
    case REQUEST_NOT_READY:
        request_back_off(request, REQUEST_NO_ANSWER);
        break;
    case REQUEST_SUSPENDED_OR_OVER:
        break;
    }
    return false;
}

/* Return whether the reply fits into the budget. Requests that wait for it come first, except for small replies. */
static bool may_use_budget(const struct request *request)
{
    const struct request *first = request_first_waiting(&request->requests->budget.waiting);

    return request->expected_values == 0 || ((first == NULL || first == request) && request_fits_budget(request));
}

static void request_begin_attempt(struct request *request)
{
    struct requests *requests = request->requests;

    request->attempts++;
    enter_state(request, REQUEST_SENT);
    request->charged_bytes = expected_bytes(request);
    reply_budget_charge(&requests->budget, request->charged_bytes);
    if (request->doubt == REQUEST_LATEST_IN_DOUBT)
        request->doubt = REQUEST_EARLIER_IN_DOUBT;
    set_timer(request, uv_now(requests->loop) + attempt_timeout_ms(request));
}

void request_send_attempt(struct request *request)
{
    struct requests *requests = request->requests;

    if (!connection_is_up(requests->connection)) {
        request_wait_for_connection(request);
        return;
    }
    if (requests->inbox_denied[0] != '\0') {
        give_up(request, REQUEST_INBOX_DENIED);
        return;
    }
    if (!is_ready(request) || !acquire_place(request))
        return;
    if (!may_use_budget(request)) {
        wait_for_budget(request);
        return;
    }
    request_begin_attempt(request);
    switch (request->ops->send(request, request->attempts)) {
    case CONNECTION_PUBLISHED:
        requests->retries += request->was_sent;
        request->was_sent = true;
        if (request->doubt == REQUEST_CERTAIN)
            request->doubt = REQUEST_LATEST_IN_DOUBT;
        break;
    case CONNECTION_NOT_UP:
        request_wait_for_connection(request);
        break;
    case CONNECTION_TOO_LARGE:
        give_up(request, REQUEST_TOO_LARGE);
        break;
    case CONNECTION_CONGESTED:
    case CONNECTION_NO_MEMORY:
        request_back_off(request, REQUEST_CONGESTED);
        break;
    }
}

static void on_request_timer(struct timer *timer)
{
    struct request *request = (struct request *)((char *)timer - offsetof(struct request, timer));
    uint64_t now_ms = uv_now(request->requests->loop);

    if (now_ms >= request->deadline_ms) {
        fail_at_deadline(request);
        return;
    }
    switch (request->state) {
    case REQUEST_SENT:
        request_back_off(request, REQUEST_NO_ANSWER);
        yield_place(request);
        break;
    case REQUEST_UNSERVED:
        request_suspend(request);
        /* The backoff is over. */
        if (request->ops->no_responders == NULL || request->ops->no_responders(request))
            request_send_attempt(request);
        break;
    case REQUEST_BACKING_OFF:
        request_send_attempt(request);
        break;
    case REQUEST_LISTENING:
        if (now_ms < request->heard_ms + request->silence_ms)
            set_timer(request, request->heard_ms + request->silence_ms);
        else
            request_back_off(request, REQUEST_NO_ANSWER);
        break;
    case REQUEST_WAITING_FOR_CONNECTION:
    case REQUEST_WAITING_FOR_PLACE:
    case REQUEST_WAITING_FOR_BUDGET:
    case REQUEST_SUSPENDED:
    case REQUEST_IDLE:
    case REQUEST_STATES:
        break;
    }
}

/* Nobody listens on the subject: the attempt had no effect. */
void request_on_unserved(struct request *request, unsigned attempt)
{
    if (attempt != (request->attempts & REQUEST_ATTEMPT_MASK))
        return;
    if (request->state == REQUEST_LISTENING) { /* what it listens to is gone */
        request_back_off(request, REQUEST_NO_RESPONDERS);
        return;
    }
    if (request->state != REQUEST_SENT && request->state != REQUEST_UNSERVED)
        return;
    request_clear_latest_doubt(request);
    request->trouble = REQUEST_NO_RESPONDERS;
    /* It keeps its entry among the published: of several messages another one may be denied. */
    move_to_state(request, REQUEST_UNSERVED);
    set_timer(request, uv_now(request->requests->loop) + next_backoff_ms(request));
}

void request_on_reply(struct request *request, unsigned attempt, struct message *message)
{
    struct requests *requests = request->requests;

    requests->answered = request->answers_once && request->attempts == 1 ? request : NULL;
    requests->replied = request;
    enum request_verdict verdict = request->ops->reply(request, attempt, message);
    requests->answered = requests->replied = NULL;
    switch (verdict) {
    case REQUEST_DONE:
        break;
    case REQUEST_MORE:
        /* A late message, such as a heartbeat of an earlier attempt's consumer, is no sign of progress. */
        if (request->state == REQUEST_SENT && attempt == (request->attempts & REQUEST_ATTEMPT_MASK))
            set_timer(request, uv_now(requests->loop) + attempt_timeout_ms(request));
        break;
    case REQUEST_RETRY:
        if (request->state == REQUEST_SENT || request->state == REQUEST_UNSERVED || request->state == REQUEST_LISTENING)
            request_back_off(request, request->trouble);
        if (request->trouble == REQUEST_NO_LEADER)
            yield_place(request);
        break;
    }
}

/* --- The end before the answer ---------------------------------------------------------------------- */

/* Without memory, the place and the share are free too early. */
static void request_leave_straggler(struct request *request)
{
    struct requests *requests = request->requests;
    struct request *straggler = straggler_new(request);

    if (straggler == NULL)
        return;
    request->charged_bytes = 0;
    request->slot = REPLY_NO_SLOT;
    reply_table_replace(&requests->replies, straggler->slot, straggler);
    request_transfer_place(request, straggler);
    move_to_state(straggler, REQUEST_SENT);
    set_timer(straggler, straggler->deadline_ms);
}

/* Return whether the server has yet to answer, and the request takes something that others may wait for. */
static bool request_must_leave_straggler(const struct request *request)
{
    const struct requests *requests = request->requests;
    bool is_taking = request->place.limit != NULL || request->charged_bytes > 0;

    return request->state == REQUEST_SENT && is_taking && !straggler_is(request) && requests->replied != request &&
           !requests->is_stopping;
}

/* --- One request ----------------------------------------------------------------------------------- */

void request_start(struct requests *requests, struct request *request, const struct request_ops *ops,
                   uint64_t deadline_ms)
{
    assert(request->state == REQUEST_IDLE);
    request->requests = requests;
    request->ops = ops;
    request->deadline_ms = deadline_ms;
    request->started_ms = uv_now(requests->loop);
    request->attempts = 0;
    request->backoff_from = 0;
    request->trouble = REQUEST_NO_TROUBLE;
    request->doubt = REQUEST_CERTAIN;
    request->was_sent = false;
    request->slot = REPLY_NO_SLOT;
    if (deadline_ms > request->started_ms)
        request->slot = reply_table_acquire(&requests->replies, request);
    if (request->slot == REPLY_NO_SLOT)
        give_up(request, REQUEST_NO_TROUBLE); /* the deadline is over, or memory ran out */
    else
        request_send_attempt(request);
}

void request_end(struct request *request)
{
    struct requests *requests = request->requests;

    if (request->state == REQUEST_IDLE)
        return;
    if (request_must_leave_straggler(request))
        request_leave_straggler(request);
    enter_state(request, REQUEST_IDLE);
    if (request->slot != REPLY_NO_SLOT) {
        reply_table_release(&requests->replies, request->slot, requests->answered == request);
        if (requests->answered == request)
            requests->answered = NULL;
    }
    request_release_place(request);
}

void request_suspend(struct request *request)
{
    enter_state(request, REQUEST_SUSPENDED);
    set_timer(request, request->deadline_ms);
}

void request_resume(struct request *request)
{
    assert(request->state == REQUEST_SUSPENDED);
    request_send_attempt(request);
}

void request_retry_now(struct request *request)
{
    if (request->state == REQUEST_SENT || request->state == REQUEST_UNSERVED || request->state == REQUEST_BACKING_OFF)
        request_send_attempt(request);
}

void request_continue(struct request *request)
{
    request->backoff_from = request->attempts;
    request->was_sent = false;
    request_send_attempt(request);
}

void request_retry_later(struct request *request, enum request_trouble trouble)
{
    request_back_off(request, trouble);
}

void request_reset_backoff(struct request *request)
{
    request->backoff_from = request->attempts;
}

void request_listen(struct request *request, unsigned silence_ms)
{
    enter_state(request, REQUEST_LISTENING);
    request->silence_ms = silence_ms;
    request->heard_ms = uv_now(request->requests->loop);
    set_timer(request, request->heard_ms + silence_ms);
}

void request_write_token(const struct request *request, char token[REQUEST_TOKEN_BYTES])
{
    reply_table_write_token(&request->requests->replies, request->slot, request->attempts, token);
}

void request_write_subject(const struct request *request, char subject[REQUEST_SUBJECT_BYTES])
{
    const char *inbox = connection_inbox(request->requests->connection);
    size_t inbox_length = strlen(inbox);

    assert(inbox_length + REPLY_TOKEN_BYTES <= REQUEST_SUBJECT_BYTES);
    memcpy(subject, inbox, inbox_length);
    request_write_token(request, subject + inbox_length);
}

/*
 * A denial concerns the request only while it waits for a reply: when it leaves that state, it is forgotten. A late
 * message of an earlier attempt may make its owner publish between two attempts.
 */
static void note_subject(struct request *request, const char *subject)
{
    struct published *published = &request->requests->published;

    if (request->state != REQUEST_SENT && request->state != REQUEST_UNSERVED && request->state != REQUEST_LISTENING)
        return;
    if (request->ops->publishes != NULL)
        published_note_several(published, &request->published);
    else
        published_note(published, &request->published, subject);
}

enum connection_publish_result request_publish(struct request *request, const char *subject,
                                               const struct message_header *headers, size_t header_count,
                                               const void *payload, size_t payload_bytes)
{
    char reply[REQUEST_SUBJECT_BYTES];

    request_write_subject(request, reply);
    enum connection_publish_result result = connection_publish(request->requests->connection, subject, reply, headers,
                                                               header_count, payload, payload_bytes);
    if (result == CONNECTION_PUBLISHED)
        note_subject(request, subject);
    return result;
}

void request_set_trouble(struct request *request, enum request_trouble trouble)
{
    request->trouble = trouble;
}

void request_clear_latest_doubt(struct request *request)
{
    if (request->doubt == REQUEST_LATEST_IN_DOUBT)
        request->doubt = REQUEST_CERTAIN;
}

void request_set_doubt(struct request *request, bool is_in_doubt)
{
    request->doubt = is_in_doubt ? REQUEST_EARLIER_IN_DOUBT : REQUEST_CERTAIN;
}

bool request_is_in_doubt(const struct request *request)
{
    return request->doubt != REQUEST_CERTAIN;
}
