#include "daemon/nats/request.h"

#include "daemon/base/backoff.h"
#include "daemon/base/hash.h"
#include "daemon/base/log.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#define NO_SLOT      UINT32_MAX
#define FIRST_SLOTS  64u
#define TOKEN_LENGTH 20u /* 8 hexadecimal digits of slot, 8 of generation, 4 of attempt */
/*
 * Answers with values that may be on their way together: what a small answer waits for at most, some tens of
 * milliseconds, and an eighth of what the server keeps for a connection by default.
 * What one takes is not known before: it is taken to be the most that came of late, and at first the most that can
 * come.
 */
#define ANSWERS_BYTES_MAX    (8u * 1024u * 1024u)
#define REPLY_BYTES_FIRST    (1024u * 1024u)
#define REPLY_OVERHEAD_BYTES 4096u /* far more than its headers: for the server's work. So 2,048 are on their way */
#define REPLY_LATE_MS        10000u
#define REPLY_ASSUMED        256u

#define ACK_PREFIX "$JS.ACK."

/* The server's status where nobody listens on a request's subject. */
#define NO_RESPONDERS 503u

/* --- Queues and slots ------------------------------------------------------------------------------ */

static void queue_append(struct request_queue *queue, struct request *request)
{
    request->next = NULL;
    request->previous = queue->last;
    if (queue->last != NULL)
        queue->last->next = request;
    else
        queue->first = request;
    queue->last = request;
    queue->count++;
}

static void queue_remove(struct request_queue *queue, struct request *request)
{
    if (request->previous != NULL)
        request->previous->next = request->next;
    else
        queue->first = request->next;
    if (request->next != NULL)
        request->next->previous = request->previous;
    else
        queue->last = request->previous;
    queue->count--;
}

/* --- Lines ----------------------------------------------------------------------------------------- */

static struct request_owner *obtain_owner(struct request_line *line, const void *identity)
{
    struct request_owner *owner = NULL;

    if (identity != NULL)
        HASH_FIND_PTR(line->by_identity, &identity, owner);
    if (owner != NULL)
        return owner;
    if (identity != NULL && (owner = calloc(1, sizeof(*owner))) != NULL) {
        owner->identity = identity;
        HASH_ADD_PTR(line->by_identity, identity, owner);
    } else {
        owner = &line->nobody;
    }
    owner->line = line;
    return owner;
}

static void line_append(struct request_line *line, struct request *request)
{
    struct request_owner *owner = obtain_owner(line, request->owner);

    if (owner->queue.count == 0)
        DL_APPEND2(line->first, owner, previous, next);
    queue_append(&owner->queue, request);
    request->stands_with = owner;
}

/* It goes, or gives up. Whose turn it was comes again after all others. */
static void line_remove(struct request *request)
{
    struct request_owner *owner = request->stands_with;
    struct request_line *line = owner->line;
    bool was_first = line->first == owner;

    request->stands_with = NULL;
    queue_remove(&owner->queue, request);
    if (owner->queue.count == 0 || was_first)
        DL_DELETE2(line->first, owner, previous, next);
    if (owner->queue.count > 0 && was_first)
        DL_APPEND2(line->first, owner, previous, next);
    if (owner->queue.count == 0 && owner != &line->nobody) {
        HASH_DEL(line->by_identity, owner);
        free(owner);
    }
}

static struct request *line_first(const struct request_line *line)
{
    return line->first != NULL ? line->first->queue.first : NULL;
}

static int grow_slots(struct requests *requests)
{
    uint32_t count = requests->slot_count > 0 ? requests->slot_count * 2 : FIRST_SLOTS;
    struct request_slot *slots = realloc(requests->slots, count * sizeof(*slots));

    if (slots == NULL)
        return -1;
    for (uint32_t i = requests->slot_count; i < count; i++)
        slots[i] = (struct request_slot){.request = NULL, .generation = 1, .next_free = i + 1};
    slots[count - 1].next_free = requests->first_free;
    requests->first_free = requests->slot_count;
    requests->slots = slots;
    requests->slot_count = count;
    return 0;
}

static int take_slot(struct requests *requests, struct request *request)
{
    if (requests->first_free == NO_SLOT && grow_slots(requests) != 0)
        return -1;
    request->slot = requests->first_free;
    requests->first_free = requests->slots[request->slot].next_free;
    requests->slots[request->slot].request = request;
    return 0;
}

static void release_slot(struct request *request)
{
    struct requests *requests = request->requests;

    if (request->slot == NO_SLOT)
        return;
    struct request_slot *slot = &requests->slots[request->slot];

    slot->request = NULL;
    /* Nothing more can come for who has its one answer: the next tenant may have the same subject. */
    if (requests->answered == request)
        requests->answered = NULL;
    else
        slot->generation++;
    slot->next_free = requests->first_free;
    requests->first_free = request->slot;
}

/* --- Subjects in flight ---------------------------------------------------------------------------- */

static void chain_remove(struct request *request)
{
    if (request->chain == NULL)
        return;
    DL_DELETE2(*request->chain, request, chain_previous, chain_next);
    request->chain = NULL;
}

static void chain_append(struct request **chain, struct request *request)
{
    DL_APPEND2(*chain, request, chain_previous, chain_next);
    request->chain = chain;
}

/*
 * It has published to subject. Only while it waits for an answer is it to hear of a denial: leaving these states
 * unchains it. A late message of an attempt that is over may make its owner publish between two attempts.
 */
static void note_subject(struct request *request, const char *subject)
{
    struct requests *requests = request->requests;

    if (request->state != REQUEST_SENT && request->state != REQUEST_LISTENING)
        return;
    chain_remove(request);
    if (request->ops->publishes != NULL) {
        chain_append(&requests->of_several, request);
        return;
    }
    request->subject_hash = hash_bytes(subject, strlen(subject));
    chain_append(&requests->by_subject[request->subject_hash % REQUEST_CHAINS], request);
}

/*
 * The first that was sent: the server drops messages in the order in which they come, and complains of each. Subjects
 * are not kept, and need not be: two that are in flight have the same 64 bits by a chance of 2^-32 at the most.
 */
static struct request *find_by_subject(struct requests *requests, const char *subject)
{
    uint64_t hash = hash_bytes(subject, strlen(subject));
    struct request *request = requests->by_subject[hash % REQUEST_CHAINS];

    while (request != NULL && request->subject_hash != hash)
        request = request->chain_next;
    if (request != NULL)
        return request;
    request = requests->of_several;
    while (request != NULL && !request->ops->publishes(request, subject))
        request = request->chain_next;
    return request;
}

/* --- States ---------------------------------------------------------------------------------------- */

static void leave_state(struct request *request)
{
    struct requests *requests = request->requests;

    if (request->stands_with != NULL)
        line_remove(request);
    if (request->queue != NULL)
        queue_remove(request->queue, request);
    request->queue = NULL;
    chain_remove(request);
    requests->expected_in_flight -= request->charged_bytes;
    request->charged_bytes = 0;
    request->state = REQUEST_IDLE;
    timer_stop(requests->timers, &request->timer);
}

/* queue: where those of the state stand in the order in which they came, or NULL. */
static void enter_state(struct request *request, enum request_state state, struct request_queue *queue)
{
    leave_state(request);
    request->state = state;
    request->queue = queue;
    if (queue != NULL)
        queue_append(queue, request);
}

const char *request_trouble_text(const struct request *request)
{
    switch (request->trouble) {
    case REQUEST_NO_LINK:
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
    case REQUEST_DEAF:
        break;
    }
    return "the NATS server did not answer";
}

static void fail_at_deadline(struct request *request)
{
    struct error error;
    double waited_s = (double)(uv_now(request->requests->loop) - request->started_ms) / 1000.0;
    const char *text = request_trouble_text(request);
    bool is_away = request->trouble == REQUEST_NO_LINK || request->trouble == REQUEST_NO_RESPONDERS ||
                   request->trouble == REQUEST_NO_LEADER;

    request_end(request);
    if (request->trouble == REQUEST_TOO_LARGE)
        error_set(&error, ERROR_TOO_LARGE,
                  "with its headers the message is over the NATS server's limit (max_payload)");
    else if (request->trouble == REQUEST_DEAF)
        error_set(&error, ERROR_PERMISSION_DENIED,
                  "the NATS server does not let kvstored's user subscribe to \"%s\", to which answers come",
                  request->requests->inbox_denied);
    else if (request->in_doubt)
        error_set(&error, ERROR_DEADLINE_EXCEEDED, "no answer in time: %s; try again, or allow a longer timeout", text);
    else if (is_away)
        error_set(&error, ERROR_UNAVAILABLE, "%s for %.3g s; nothing was done, try again later", text, waited_s);
    else
        error_set(&error, ERROR_DEADLINE_EXCEEDED, "%s in time; nothing was done, allow a longer timeout", text);
    request->ops->fail(request, &error);
}

static void on_timer(struct timer *timer);

static void set_timer(struct request *request, uint64_t at_ms)
{
    if (at_ms > request->deadline_ms)
        at_ms = request->deadline_ms;
    timer_start(request->requests->timers, &request->timer, at_ms, on_timer);
}

static uint64_t next_backoff_ms(const struct request *request)
{
    const struct conf *conf = request->requests->conf;

    return backoff_ms(request->attempts - request->settled_attempts, conf->calls.retry_min_ms,
                      conf->calls.retry_max_ms);
}

static void back_off(struct request *request, enum request_trouble trouble)
{
    enter_state(request, REQUEST_BACKING_OFF, NULL);
    request->trouble = trouble;
    set_timer(request, uv_now(request->requests->loop) + next_backoff_ms(request));
}

static void wait_for_connection(struct request *request)
{
    enter_state(request, REQUEST_WAITING_FOR_LINK, &request->requests->waiting);
    request->trouble = REQUEST_NO_LINK;
    set_timer(request, request->deadline_ms);
}

/* --- Room for answers ------------------------------------------------------------------------------ */

size_t requests_expect_bytes(const struct requests *requests, size_t count)
{
    size_t before = requests->reply_bytes[1], late = requests->reply_bytes[0];
    size_t known = before > late ? before : late;

    return (requests->assumed_bytes > known ? requests->assumed_bytes : known) * count;
}

/* Until some have come. */
static void assume_replies(struct requests *requests, size_t bytes)
{
    requests->assumed_bytes = bytes;
    requests->assumed_replies = REPLY_ASSUMED;
}

void requests_note_reply(struct requests *requests, size_t bytes)
{
    uint64_t now_ms = uv_now(requests->loop);

    if (now_ms - requests->reply_since_ms > REPLY_LATE_MS) {
        requests->reply_since_ms = now_ms;
        requests->reply_bytes[1] = requests->reply_bytes[0];
        requests->reply_bytes[0] = 0;
    }
    if (bytes + REPLY_OVERHEAD_BYTES > requests->reply_bytes[0])
        requests->reply_bytes[0] = bytes + REPLY_OVERHEAD_BYTES;
    if (requests->assumed_replies > 0 && --requests->assumed_replies == 0)
        requests->assumed_bytes = 0;
}

/* What the answer will take, as far as is known by now. */
static size_t expected_bytes(const struct request *request)
{
    size_t each = requests_expect_bytes(request->requests, 1), max = request->expected_bytes_max;

    if (request->expected_values == 0)
        return 0;
    if (request->expected_values == REQUEST_ALL || (max > 0 && each > max / request->expected_values))
        return max;
    return each * request->expected_values;
}

/* One may always go, however large. */
static bool has_room(const struct request *request)
{
    size_t in_flight = request->requests->expected_in_flight;

    return in_flight == 0 || in_flight + expected_bytes(request) <= ANSWERS_BYTES_MAX;
}

static void hold(struct request *request)
{
    enter_state(request, REQUEST_HELD, NULL);
    line_append(&request->requests->held, request);
    set_timer(request, request->deadline_ms);
}

static void send_attempt(struct request *request);

static bool can_send_held(const struct requests *requests)
{
    const struct request *first = line_first(&requests->held);

    return first != NULL && has_room(first);
}

/* Thousands may wait: they go out a slice at a time. */
static bool run_sending(struct job *job)
{
    struct requests *requests = (struct requests *)((char *)job - offsetof(struct requests, sending));

    for (;;) {
        if (requests->waiting.first != NULL && connection_is_up(requests->connection))
            send_attempt(requests->waiting.first);
        else if (can_send_held(requests))
            send_attempt(line_first(&requests->held));
        else
            return false;
        if (jobs_slice_is_over(requests->jobs))
            return true;
    }
}

void requests_flush(struct requests *requests)
{
    if (can_send_held(requests))
        jobs_add(requests->jobs, &requests->sending, run_sending);
}

/* --- Places ---------------------------------------------------------------------------------------- */

static unsigned weight_of(const struct request *request)
{
    return request->weight > 0 ? request->weight : 1;
}

static bool fits(const struct request_limit *limit, const struct request *request)
{
    return limit->taken == 0 || limit->taken + weight_of(request) <= limit->max;
}

/* False: it waits for one. */
static bool take_place(struct request *request)
{
    struct request_limit *limit = request->limit;

    if (limit != request->place)
        request_leave_place(request);
    if (limit == NULL || limit == request->place)
        return true;
    bool is_next = line_first(&limit->waiting) == NULL || request->stands_with != NULL;
    if (is_next && fits(limit, request)) {
        request->place = limit;
        request->place_weight = weight_of(request);
        limit->taken += request->place_weight;
        return true;
    }
    enter_state(request, REQUEST_QUEUED, NULL);
    line_append(&limit->waiting, request);
    request->trouble = REQUEST_CONGESTED;
    set_timer(request, request->deadline_ms);
    return false;
}

void request_leave_place(struct request *request)
{
    struct request_limit *limit = request->place;
    struct request *first;

    if (limit == NULL)
        return;
    request->place = NULL;
    limit->taken -= request->place_weight;
    while ((first = line_first(&limit->waiting)) != NULL && fits(limit, first))
        send_attempt(first);
}

void request_hand_place(struct request *from, struct request *to)
{
    assert(to->state == REQUEST_IDLE && to->place == NULL);
    to->place = from->place;
    to->place_weight = from->place_weight;
    from->place = NULL;
}

/* --- Attempts -------------------------------------------------------------------------------------- */

/*
 * A server that needs longer than an attempt takes would never be heard by requests of several steps, and be given ever
 * more to do: each attempt may take twice as long as the one before, up to eight times. The owner may add
 * patience_ms.
 */
static uint64_t attempt_timeout_ms(const struct request *request)
{
    unsigned retries = request->attempts - request->settled_attempts - 1;

    return ((uint64_t)request->requests->conf->calls.attempt_timeout_ms << (retries < 3 ? retries : 3)) +
           request->patience_ms;
}

/* Whether there is something to send now. Otherwise the request waits for what its owner waits for. */
static bool is_ready(struct request *request)
{
    switch (request->ops->prepare != NULL ? request->ops->prepare(request) : REQUEST_READY) {
    case REQUEST_READY:
        return true;
    case REQUEST_LATER:
        back_off(request, REQUEST_NO_ANSWER);
        break;
    case REQUEST_PARKED_OR_OVER:
        break;
    }
    return false;
}

static void send_attempt(struct request *request)
{
    struct requests *requests = request->requests;

    if (!connection_is_up(requests->connection)) {
        wait_for_connection(request);
        return;
    }
    if (requests->inbox_denied[0] != '\0') {
        request->deadline_ms = uv_now(requests->loop);
        back_off(request, REQUEST_DEAF);
        return;
    }
    if (!is_ready(request) || !take_place(request))
        return;
    /* Those that were held come first, but for requests whose answers are small. */
    const struct request *first = line_first(&requests->held);
    bool is_next = first == NULL || first == request;
    if (request->expected_values > 0 && (!is_next || !has_room(request))) {
        hold(request);
        return;
    }
    enter_state(request, REQUEST_SENT, &requests->sent);
    request->charged_bytes = expected_bytes(request);
    requests->expected_in_flight += request->charged_bytes;
    request->attempts++;
    request->has_no_responders = false;
    request->was_in_doubt = request->in_doubt;
    set_timer(request, uv_now(requests->loop) + attempt_timeout_ms(request));

    switch (request->ops->send(request, request->attempts)) {
    case LINK_PUBLISHED:
        requests->retries += request->was_sent;
        request->was_sent = true;
        request->in_doubt = true;
        break;
    case LINK_NOT_UP:
        wait_for_connection(request);
        break;
    case LINK_TOO_LARGE:
        request->deadline_ms = uv_now(requests->loop);
        back_off(request, REQUEST_TOO_LARGE);
        break;
    case LINK_CONGESTED:
    case LINK_NO_MEMORY:
        back_off(request, REQUEST_CONGESTED);
        break;
    }
}

/* Others need not wait until its stream has a leader. It asks again when it has a place again. */
static void let_others_go(struct request *request)
{
    if (request->place != NULL && request->place->is_of_many_streams)
        request_leave_place(request);
}

static void on_timer(struct timer *timer)
{
    struct request *request = (struct request *)((char *)timer - offsetof(struct request, timer));

    if (uv_now(request->requests->loop) >= request->deadline_ms) {
        fail_at_deadline(request);
        return;
    }
    switch (request->state) {
    case REQUEST_SENT:
        if (!request->has_no_responders) {
            back_off(request, REQUEST_NO_ANSWER);
            let_others_go(request);
            break;
        }
        request->trouble = REQUEST_NO_RESPONDERS;
        request_park(request);
        /* This was the backoff. */
        if (request->ops->no_responders == NULL || request->ops->no_responders(request))
            send_attempt(request);
        break;
    case REQUEST_BACKING_OFF:
        send_attempt(request);
        break;
    case REQUEST_LISTENING:
        if (uv_now(request->requests->loop) < request->heard_ms + request->silence_ms)
            set_timer(request, request->heard_ms + request->silence_ms);
        else
            back_off(request, REQUEST_NO_ANSWER);
        break;
    case REQUEST_WAITING_FOR_LINK:
    case REQUEST_PARKED:
    case REQUEST_HELD:
    case REQUEST_QUEUED:
    case REQUEST_IDLE:
        break;
    }
}

/* --- The link's events ----------------------------------------------------------------------------- */

void requests_on_up(struct requests *requests)
{
    requests->inbox_denied[0] = '\0';
    jobs_add(requests->jobs, &requests->sending, run_sending);
}

void requests_on_down(struct requests *requests)
{
    /* Maybe it was cut because the answers were larger than was thought. Then they are as large as can be. */
    if (requests->expected_in_flight > 0)
        assume_replies(requests, connection_get_status(requests->connection)->max_payload_bytes);
    while (requests->sent.first != NULL)
        wait_for_connection(requests->sent.first);
    while (requests->listening.first != NULL)
        wait_for_connection(requests->listening.first);
}

void requests_on_publish_denied(struct requests *requests, const char *subject)
{
    struct request *request = find_by_subject(requests, subject);
    struct error error;

    if (request == NULL)
        return; /* nobody waits for it any more */
    error_set(&error, ERROR_PERMISSION_DENIED, "the NATS server does not let kvstored's user publish to \"%s\"",
              subject);
    request_take_back(request);
    request_end(request);
    request->ops->fail(request, &error);
}

void requests_on_inbox_denied(struct requests *requests, const char *inbox)
{
    snprintf(requests->inbox_denied, sizeof(requests->inbox_denied), "%s", inbox);
    while (requests->sent.first != NULL)
        wait_for_connection(requests->sent.first);
    while (requests->listening.first != NULL)
        wait_for_connection(requests->listening.first);
    /* They fail as they are about to be sent again, a slice at a time. */
    jobs_add(requests->jobs, &requests->sending, run_sending);
}

void requests_fail_waiting(struct requests *requests, const struct error *error)
{
    size_t count = requests->waiting.count;

    while (count-- > 0 && requests->waiting.first != NULL) {
        struct request *request = requests->waiting.first;
        request_end(request);
        request->ops->fail(request, error);
    }
}

/* Nobody listens on the subject: the attempt had no effect. */
static void take_no_responders(struct request *request, unsigned attempt)
{
    if (attempt != (request->attempts & REQUEST_ATTEMPT_MASK))
        return;
    if (request->state == REQUEST_LISTENING) /* what it listens to is gone */
        back_off(request, REQUEST_NO_RESPONDERS);
    if (request->state != REQUEST_SENT)
        return;
    request_take_back(request);
    request->has_no_responders = true;
    set_timer(request, uv_now(request->requests->loop) + next_backoff_ms(request));
}

static bool parse_hex(const char *digits, unsigned count, uint32_t *value)
{
    *value = 0;
    for (unsigned i = 0; i < count; i++) {
        char digit = digits[i];
        if (digit >= '0' && digit <= '9')
            *value = *value << 4 | (uint32_t)(digit - '0');
        else if (digit >= 'a' && digit <= 'f')
            *value = *value << 4 | (uint32_t)(digit - 'a' + 10);
        else
            return false;
    }
    return true;
}

static void write_hex(char *digits, unsigned count, uint32_t value)
{
    while (count-- > 0) {
        digits[count] = "0123456789abcdef"[value & 15u];
        value >>= 4;
    }
}

/*
 * Where a consumer's name ends in the reply subject of a message that it pushed, and
 * with it the token. The forms (ADR-15): $JS.ACK.<stream>.<consumer>.<5 numbers>,
 * or $JS.ACK.<domain>.<account>.<stream>.<consumer>.<5 numbers>[.<random>].
 */
static const char *token_of_delivery(const char *reply)
{
    const char *dots[12];
    unsigned count = 0;

    for (const char *at = reply; (at = strchr(at, '.')) != NULL && count < 12; at++)
        dots[count++] = at;
    /* dots[i] ends token number i */
    unsigned consumer = count < 10 ? 3 : 5;
    if (count < 8 || dots[consumer] - dots[consumer - 1] - 1 < (ptrdiff_t)TOKEN_LENGTH)
        return NULL;
    return dots[consumer] - TOKEN_LENGTH;
}

static const char *token_of_message(const struct requests *requests, const struct message *message)
{
    const char *inbox = connection_inbox(requests->connection);
    size_t inbox_length = strlen(inbox);

    if (strncmp(message->subject, inbox, inbox_length) == 0)
        return strlen(message->subject + inbox_length) == TOKEN_LENGTH ? message->subject + inbox_length : NULL;
    if (message->reply != NULL && strncmp(message->reply, ACK_PREFIX, strlen(ACK_PREFIX)) == 0)
        return token_of_delivery(message->reply);
    return NULL;
}

/* The request that a message belongs to; NULL for one that is over. */
static struct request *find_request(struct requests *requests, const struct message *message, uint32_t *attempt)
{
    const char *token = token_of_message(requests, message);
    uint32_t slot, generation;

    if (token == NULL || !parse_hex(token, 8, &slot) || !parse_hex(token + 8, 8, &generation) ||
        !parse_hex(token + 16, 4, attempt))
        return NULL;
    if (slot >= requests->slot_count || requests->slots[slot].generation != generation)
        return NULL;
    return requests->slots[slot].request;
}

void requests_on_message(struct requests *requests, struct message *message)
{
    uint32_t attempt = 0;
    struct request *request = find_request(requests, message, &attempt);

    if (request == NULL)
        return;
    /* What a consumer delivers has a reply subject, and what its headers say is whoever wrote it's. */
    if (message->payload_bytes == 0 && message->reply == NULL && message_status(message) == NO_RESPONDERS) {
        take_no_responders(request, attempt);
        return;
    }
    requests->answered = request->answers_once && request->attempts == 1 ? request : NULL;
    enum request_verdict verdict = request->ops->reply(request, attempt, message);
    requests->answered = NULL;
    switch (verdict) {
    case REQUEST_DONE:
        break;
    case REQUEST_MORE:
        /* What comes late, as the heartbeats of an earlier attempt's consumer, is no sign that this one goes on. */
        if (request->state == REQUEST_SENT && !request->has_no_responders &&
            attempt == (request->attempts & REQUEST_ATTEMPT_MASK))
            set_timer(request, uv_now(requests->loop) + attempt_timeout_ms(request));
        break;
    case REQUEST_RETRY:
        if (request->state == REQUEST_SENT || request->state == REQUEST_LISTENING)
            back_off(request, request->trouble);
        if (request->trouble == REQUEST_NO_LEADER)
            let_others_go(request);
        break;
    }
}

/* --- Life ------------------------------------------------------------------------------------------ */

int requests_init(struct requests *requests, uv_loop_t *loop, struct jobs *jobs, struct timers *timers,
                  const struct conf *conf)
{
    memset(requests, 0, sizeof(*requests));
    requests->loop = loop;
    requests->jobs = jobs;
    requests->timers = timers;
    requests->conf = conf;
    requests->first_free = NO_SLOT;
    assume_replies(requests, REPLY_BYTES_FIRST);
    requests->reply_since_ms = uv_now(loop);
    return grow_slots(requests);
}

void requests_set_connection(struct requests *requests, struct connection *connection)
{
    requests->connection = connection;
}

size_t requests_fail_all(struct requests *requests)
{
    struct error error;
    size_t count = 0;

    error_set(&error, ERROR_UNAVAILABLE, "the daemon ends");
    for (uint32_t slot = 0; slot < requests->slot_count; slot++) {
        struct request *request = requests->slots[slot].request;
        if (request == NULL)
            continue;
        if (request->in_doubt)
            error.code = ERROR_DEADLINE_EXCEEDED;
        request_end(request);
        request->ops->fail(request, &error);
        error.code = ERROR_UNAVAILABLE;
        count++;
    }
    return count;
}

void requests_free(struct requests *requests)
{
    jobs_remove(requests->jobs, &requests->sending);
    free(requests->slots);
    requests->slots = NULL;
    requests->slot_count = 0;
}

void request_start(struct requests *requests, struct request *request, const struct request_ops *ops,
                   uint64_t deadline_ms)
{
    assert(request->state == REQUEST_IDLE);
    request->requests = requests;
    request->ops = ops;
    request->deadline_ms = deadline_ms;
    request->started_ms = uv_now(requests->loop);
    request->attempts = 0;
    request->settled_attempts = 0;
    request->trouble = REQUEST_NO_TROUBLE;
    request_set_doubt(request, false);
    request->was_sent = false;
    if (deadline_ms <= request->started_ms || take_slot(requests, request) != 0) {
        /* Too late, or out of memory: the deadline comes at once, but not from within this call. */
        request->slot = NO_SLOT;
        request->state = REQUEST_BACKING_OFF;
        request->deadline_ms = request->started_ms;
        set_timer(request, request->deadline_ms);
        return;
    }
    send_attempt(request);
}

void request_end(struct request *request)
{
    if (request->state == REQUEST_IDLE)
        return;
    leave_state(request);
    release_slot(request);
    request_leave_place(request);
}

void request_park(struct request *request)
{
    enter_state(request, REQUEST_PARKED, NULL);
    set_timer(request, request->deadline_ms);
}

void request_resume(struct request *request)
{
    assert(request->state == REQUEST_PARKED);
    send_attempt(request);
}

void request_hurry(struct request *request)
{
    if (request->state == REQUEST_SENT || request->state == REQUEST_BACKING_OFF)
        send_attempt(request);
}

void request_go_on(struct request *request)
{
    request->settled_attempts = request->attempts;
    request->was_sent = false;
    send_attempt(request);
}

void request_listen(struct request *request, unsigned silence_ms)
{
    enter_state(request, REQUEST_LISTENING, &request->requests->listening);
    request->silence_ms = silence_ms;
    request->heard_ms = uv_now(request->requests->loop);
    set_timer(request, request->heard_ms + silence_ms);
}

void request_settle(struct request *request)
{
    request->settled_attempts = request->attempts;
}

void request_again(struct request *request, enum request_trouble trouble)
{
    back_off(request, trouble);
}

void request_write_token(const struct request *request, char token[REQUEST_TOKEN_BYTES])
{
    write_hex(token, 8, request->slot);
    write_hex(token + 8, 8, request->requests->slots[request->slot].generation);
    write_hex(token + 16, 4, request->attempts);
    token[TOKEN_LENGTH] = '\0';
}

void request_write_subject(const struct request *request, char subject[REQUEST_SUBJECT_BYTES])
{
    const char *inbox = connection_inbox(request->requests->connection);
    size_t inbox_length = strlen(inbox);

    assert(inbox_length + TOKEN_LENGTH < REQUEST_SUBJECT_BYTES);
    memcpy(subject, inbox, inbox_length);
    request_write_token(request, subject + inbox_length);
}

enum connection_publish_result request_publish(struct request *request, const char *subject,
                                               const struct message_header *headers, size_t header_count,
                                               const void *payload, size_t payload_bytes)
{
    char reply[REQUEST_SUBJECT_BYTES];

    request_write_subject(request, reply);
    enum connection_publish_result result = connection_publish(request->requests->connection, subject, reply, headers,
                                                               header_count, payload, payload_bytes);
    if (result == LINK_PUBLISHED)
        note_subject(request, subject);
    return result;
}

void request_retry_reason(struct request *request, enum request_trouble trouble)
{
    request->trouble = trouble;
}

void request_take_back(struct request *request)
{
    request->in_doubt = request->was_in_doubt;
}

void request_set_doubt(struct request *request, bool is_in_doubt)
{
    request->in_doubt = is_in_doubt;
    request->was_in_doubt = is_in_doubt;
}

bool request_is_in_doubt(const struct request *request)
{
    return request->in_doubt;
}
