#include "daemon/nats/requests.h"

#include "daemon/nats/request_parts.h"
#include "daemon/nats/request_text.h"

#include <stdio.h>
#include <string.h>
#include <utlist.h>

/* The status of the server if nobody listens on a request's subject. */
#define NO_RESPONDERS 503u

/* --- Sending what waited --------------------------------------------------------------------------- */

static bool can_send_held(const struct requests *requests)
{
    const struct request *first = request_first_waiting(&requests->budget.waiting);

    return first != NULL && request_fits_budget(first);
}

static void fail_next(struct requests *requests, struct request *request)
{
    requests->failing--;
    request_end(request);
    request->ops->fail(request, &requests->failure);
}

/* Thousands may wait: they are sent, or fail, a slice at a time. */
static bool run_sending(struct job *job)
{
    struct requests *requests = (struct requests *)((char *)job - offsetof(struct requests, sending));

    for (;;) {
        struct request *waiting = requests->in_state[REQUEST_WAITING_FOR_CONNECTION];
        if (waiting != NULL && connection_is_up(requests->connection))
            request_send_attempt(waiting);
        else if (waiting != NULL && requests->failing > 0)
            fail_next(requests, waiting);
        else if (can_send_held(requests))
            request_send_attempt(request_first_waiting(&requests->budget.waiting));
        else
            return false;
        if (jobs_slice_is_over(requests->jobs))
            return true;
    }
}

void requests_flush(struct requests *requests)
{
    if (can_send_held(requests))
        jobs_add_shared(requests->jobs, &requests->sending, run_sending);
}

void requests_note_reply(struct requests *requests, size_t bytes)
{
    reply_budget_note_reply(&requests->budget, uv_now(requests->loop), bytes);
}

/* --- The connection's events ----------------------------------------------------------------------- */

void requests_on_up(struct requests *requests)
{
    requests->inbox_denied[0] = '\0';
    requests->failing = 0;
    jobs_add_shared(requests->jobs, &requests->sending, run_sending);
}

/* No further reply comes. */
static void interrupt_all(struct requests *requests)
{
    static const enum request_state interrupted[] = {REQUEST_UNSERVED, REQUEST_SENT, REQUEST_LISTENING};

    for (size_t i = 0; i < sizeof(interrupted) / sizeof(interrupted[0]); i++) {
        while (requests->in_state[interrupted[i]] != NULL)
            request_wait_for_connection(requests->in_state[interrupted[i]]);
    }
}

void requests_on_down(struct requests *requests)
{
    reply_budget_note_loss(&requests->budget, connection_get_status(requests->connection)->max_payload_bytes);
    interrupt_all(requests);
}

void requests_on_inbox_denied(struct requests *requests, const char *inbox)
{
    snprintf(requests->inbox_denied, sizeof(requests->inbox_denied), "%s", inbox);
    interrupt_all(requests);
    /* They fail as they are about to be sent again, a slice at a time. */
    jobs_add_shared(requests->jobs, &requests->sending, run_sending);
}

static struct request *request_of_published(const struct published_entry *entry)
{
    return (struct request *)((char *)entry - offsetof(struct request, published));
}

static bool entry_publishes(const struct published_entry *entry, const char *subject)
{
    const struct request *request = request_of_published(entry);

    return request->ops->publishes(request, subject);
}

void requests_on_publish_denied(struct requests *requests, const char *subject)
{
    struct published_entry *entry = published_find(&requests->published, subject, entry_publishes);
    struct error error;

    if (entry == NULL)
        return; /* the request has ended */
    struct request *request = request_of_published(entry);
    error_set(&error, ERROR_PERMISSION_DENIED,
              "the NATS server denies kvstored's user to publish to \"%s\"; grant it that permission", subject);
    request_clear_latest_doubt(request);
    requests->replied = request; /* no other answer comes */
    request_end(request);
    requests->replied = NULL;
    request->ops->fail(request, &error);
}

void requests_on_message(struct requests *requests, struct message *message)
{
    uint32_t attempt = 0;
    struct request *request =
        reply_table_find(&requests->replies, connection_inbox(requests->connection), message, &attempt);

    if (request == NULL)
        return;
    /* A consumer's delivery has a reply subject, and its headers are those of the message's writer. */
    if (message->payload_bytes == 0 && message->reply == NULL && message_status(message) == NO_RESPONDERS)
        request_on_unserved(request, attempt);
    else
        request_on_reply(request, attempt, message);
}

/* --- All requests ---------------------------------------------------------------------------------- */

int requests_init(struct requests *requests, uv_loop_t *loop, struct jobs *jobs, struct timers *timers,
                  const struct conf *conf)
{
    memset(requests, 0, sizeof(*requests));
    requests->loop = loop;
    requests->jobs = jobs;
    requests->timers = timers;
    requests->conf = conf;
    reply_budget_init(&requests->budget, uv_now(loop));
    return reply_table_init(&requests->replies);
}

void requests_set_connection(struct requests *requests, struct connection *connection)
{
    requests->connection = connection;
}

void requests_forget_limit(struct requests *requests, const struct request_limit *limit)
{
    struct request *request;

    /* Only stragglers may have places, so there are seldom any: without one, all requests need not be looked at. */
    for (enum request_state state = REQUEST_IDLE; limit->taken > 0 && state < REQUEST_STATES; state++) {
        DL_FOREACH(requests->in_state[state], request)
        {
            if (request->place.limit == limit)
                request->place.limit = NULL;
        }
    }
}

void requests_fail_waiting(struct requests *requests, const struct error *error)
{
    requests->failure = *error;
    requests->failing = requests->counts[REQUEST_WAITING_FOR_CONNECTION];
    jobs_add_shared(requests->jobs, &requests->sending, run_sending);
}

size_t requests_fail_all(struct requests *requests)
{
    struct error error;
    size_t count = 0;

    requests->is_stopping = true;
    error_set(&error, ERROR_UNAVAILABLE, "the daemon is stopping");
    for (uint32_t slot = 0; slot < requests->replies.slot_count; slot++) {
        struct request *request = requests->replies.slots[slot].request;
        if (request == NULL)
            continue;
        error.code = request_is_in_doubt(request) ? ERROR_DEADLINE_EXCEEDED : ERROR_UNAVAILABLE;
        request_end(request);
        request->ops->fail(request, &error);
        count++;
    }
    return count;
}

void requests_free(struct requests *requests)
{
    jobs_remove(requests->jobs, &requests->sending);
    reply_table_free(&requests->replies);
}

size_t requests_in_flight(const struct requests *requests)
{
    return requests->counts[REQUEST_SENT] + requests->counts[REQUEST_UNSERVED] +
           requests->counts[REQUEST_WAITING_FOR_CONNECTION];
}

void requests_each(const struct requests *requests, bool (*visit)(void *arg, const struct request_info *info),
                   void *arg)
{
    const struct request *request;

    for (enum request_state state = REQUEST_IDLE; state < REQUEST_STATES; state++) {
        DL_FOREACH(requests->in_state[state], request)
        {
            const struct request_info info = request_text_info(request);
            if (!visit(arg, &info))
                return;
        }
    }
}
