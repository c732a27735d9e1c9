#include "daemon/transport/session.h"

#include "daemon/base/log.h"
#include "daemon/transport/socket.h"
#include "proto/rpc.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <utlist.h>

/*
 * File descriptors that sessions must leave free. At one time these may be needed: by a reload the configuration and
 * what the lookup of users and groups opens (5), by a start of the embedded server its configuration, directory, ports
 * and pipe (5), its probe (1), by a connection to NATS its socket, the resolver's and a TLS file (4), to refuse a
 * session (1), to read the name of its program (1).
 */
#define DESCRIPTOR_RESERVE 24u

/*
 * A refused session stays open for up to a second, so that a client that sends its request before it reads does not get
 * a broken pipe. LINGERING_MAX of them may be open at a time. Their descriptors are reserved, in addition to
 * DESCRIPTOR_RESERVE.
 */
#define LINGERING_MAX 16u
#define LINGER_MS     1000u

/* --- Resources ------------------------------------------------------------------------------------- */

/*
 * The newest comes first. When a session closes, its newest calls are dropped first: they wait in lines, and if older
 * ones went first, the newer ones would move up and be sent.
 */
void session_add_resource(struct session *session, struct session_resource *resource)
{
    DL_PREPEND2(session->resources[resource->kind], resource, previous, next);
    session->counts[resource->kind]++;
}

void session_remove_resource(struct session *session, struct session_resource *resource)
{
    recheck_leave_resource(&session->list->recheck, resource);
    DL_DELETE2(session->resources[resource->kind], resource, previous, next);
    session->counts[resource->kind]--;
    if (resource->kind == SESSION_PENDING || resource->kind == SESSION_WAITING)
        session_mark_dirty(session); /* backpressure may ease, and a session that ends may have waited for it */
}

void session_await_room(struct session *session, struct session_waiter *waiter)
{
    if (waiter->is_waiting)
        return;
    waiter->is_waiting = true;
    DL_APPEND2(session->waiters, waiter, previous, next);
}

void session_stop_waiting(struct session *session, struct session_waiter *waiter)
{
    if (!waiter->is_waiting)
        return;
    waiter->is_waiting = false;
    DL_DELETE2(session->waiters, waiter, previous, next);
}

static void session_wake_waiters(struct session *session)
{
    while (session->waiters != NULL) {
        struct session_waiter *waiter = session->waiters;
        session_stop_waiting(session, waiter);
        waiter->on_room(waiter);
    }
}

#define SECOND_MS 1000u

void session_count_call(struct session *session)
{
    struct session_counts *counted = &session->counted;
    uint64_t now_ms = uv_now(session->list->loop), passed = now_ms / SECOND_MS - counted->called_ms / SECOND_MS;

    counted->calls++;
    if (passed > 0) {
        counted->previous_calls = passed == 1 ? counted->second_calls : 0;
        counted->second_calls = 0;
    }
    counted->second_calls++;
    counted->called_ms = now_ms;
}

unsigned session_calls_per_second(const struct session *session)
{
    const struct session_counts *counted = &session->counted;
    uint64_t passed = uv_now(session->list->loop) / SECOND_MS - counted->called_ms / SECOND_MS;

    return passed == 0 ? counted->previous_calls : passed == 1 ? counted->second_calls : 0;
}

int session_socket(const struct session *session)
{
    uv_os_fd_t descriptor = -1;

    uv_fileno((const uv_handle_t *)&session->pipe, &descriptor);
    return descriptor;
}

/* --- The end --------------------------------------------------------------------------------------- */

static void session_free(struct session *session)
{
    struct session_list *list = session->list;

    inbox_free(session);
    outbox_free(session);
    if (session->user != NULL) {
        usage_subtract(&list->usage, session->user, USAGE_SESSIONS, 1);
        usage_release(&list->usage, session->user);
    }
    recheck_leave_session(&list->recheck, session);
    if (session->previous != NULL)
        session->previous->next = session->next;
    else
        list->first = session->next;
    if (session->next != NULL)
        session->next->previous = session->previous;
    list->metrics->sessions--;
    free(session);
    if (list->first == NULL && list->on_empty != NULL)
        list->on_empty(list->on_empty_arg);
}

/* Return the next resource to release; NULL: there is none. What others wait for comes first. */
static struct session_resource *session_next_to_release(const struct session *session)
{
    struct session_resource *holding = session->resources[SESSION_HOLDING];

    return holding != NULL ? holding : session->resources[SESSION_WATCH];
}

/* Release the lasting resources in slices: a session may have a thousand watches of 64 filters each. */
static bool session_run_releasing(struct job *job)
{
    struct session *session = (struct session *)((char *)job - offsetof(struct session, releasing));
    struct session_resource *resource;

    while ((resource = session_next_to_release(session)) != NULL) {
        session_remove_resource(session, resource);
        resource->ops->on_release(resource);
        if (jobs_slice_is_over(session->list->jobs) && session_next_to_release(session) != NULL)
            return true;
    }
    session_free(session);
    return false;
}

static void session_on_closed(uv_handle_t *handle)
{
    struct session *session = handle->data;

    jobs_add(session->list->jobs, &session->releasing, session_run_releasing);
}

/* Close the resources of a kind that will be answered: each of them leaves the session. */
static void session_close_all(struct session *session, enum session_kind kind)
{
    while (session->resources[kind] != NULL)
        session->resources[kind]->ops->on_close(session->resources[kind]);
}

static void session_close(struct session *session)
{
    struct session_list *list = session->list;

    if (session->state == SESSION_CLOSING)
        return;
    list->lingering -= session->state == SESSION_LINGERING;
    session->state = SESSION_CLOSING;
    for (enum session_kind kind = SESSION_WATCH; kind < SESSION_KINDS; kind++) {
        for (struct session_resource *resource = session->resources[kind]; resource != NULL; resource = resource->next)
            resource->ops->on_close(resource);
    }
    session_close_all(session, SESSION_PENDING);
    session_close_all(session, SESSION_WAITING);
    list->ops->on_close(list->ops_arg, session);
    inbox_close(session);
    outbox_close(session);
    timer_stop(list->timers, &session->linger);
    if (session->is_dirty) {
        LL_DELETE2(list->dirty, session, next_dirty);
        session->is_dirty = false;
    }
    uv_close((uv_handle_t *)&session->pipe, session_on_closed);
}

void session_end(struct session *session, enum conf_log_level level, const char *format, ...)
{
    char reason[256];
    va_list args;

    if (session->state == SESSION_CLOSING)
        return;
    va_start(args, format);
    vsnprintf(reason, sizeof(reason), format, args);
    va_end(args);
    if (level == CONF_LOG_DEBUG || log_may(&session->list->ended_log, "sessions were ended"))
        log_write(level, "session %" PRIu64 " of pid %d uid %u ended: %s", session->id, (int)session->pid,
                  (unsigned)session->uid, reason);
    if (level != CONF_LOG_DEBUG)
        session->list->metrics->sessions_ended++;
    session_close(session);
}

void session_finish(struct session *session)
{
    if (session->state != SESSION_OPEN)
        return;
    inbox_pause(session);
    session->state = SESSION_LAST_ANSWERS;
    /* Calls that were begun may still send what they change: the inbox looks again in a second. */
    if (session_count(session, SESSION_PENDING) == 0 && inbox_client_has_left(session))
        inbox_abandon(session);
}

/*
 * All calls that were begun are answered. So the client knows that the daemon has not begun those without an answer,
 * and that it may send them again to the next daemon.
 */
static void session_dismiss(struct session *session)
{
    struct error error;

    error_set(&error, ERROR_UNAVAILABLE, "the daemon shuts down, and has not begun the calls without an answer");
    error.outcome = ERROR_OUTCOME_NONE;
    outbox_refuse(session, NULL, &error);
    session->state = SESSION_LAST_ANSWERS;
}

static void session_end_if_done(struct session *session)
{
    bool is_answered = session_count(session, SESSION_PENDING) == 0 && session_count(session, SESSION_WAITING) == 0;

    if (session->state == SESSION_DRAINING && is_answered) {
        session_dismiss(session);
        return; /* packing has marked the session: it is flushed, and seen here again */
    }
    if (session->state == SESSION_LAST_ANSWERS && is_answered && outbox_unread_bytes(session) == 0)
        session_end(session, CONF_LOG_DEBUG, "the client is done");
}

/* --- Refusals -------------------------------------------------------------------------------------- */

static rlim_t session_descriptor_limit(void)
{
    struct rlimit files = {.rlim_cur = RLIM_INFINITY};

    getrlimit(RLIMIT_NOFILE, &files);
    return files.rlim_cur;
}

/* Return whether count descriptors are free. The kernel gave the session's socket the lowest number that was free. */
static bool session_leaves_descriptors(const struct session *session, unsigned count)
{
    return (rlim_t)session_socket(session) + count < session_descriptor_limit();
}

/* Return whether no limit forbids one more session, which does not count yet. False: *error says which one does. */
static bool session_check_limits(const struct session *session, struct error *error)
{
    if (!usage_check(&session->list->usage, session->user, USAGE_SESSIONS, 1, error))
        return false;
    if (session_leaves_descriptors(session, DESCRIPTOR_RESERVE + LINGERING_MAX))
        return true;
    error_set(error, ERROR_RESOURCE_EXHAUSTED,
              "the daemon may open %llu files, and has reached that limit (ulimit -n, LimitNOFILE=); try again later",
              (unsigned long long)session_descriptor_limit());
    return false;
}

static void session_end_lingering(struct session *session)
{
    session_end(session, CONF_LOG_DEBUG, "it was refused");
}

static void session_on_linger_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct session *session = handle->data;

    (void)suggested;
    *buffer = uv_buf_init(session->list->read_buffer, INBOX_READ_BYTES);
}

static void session_on_linger_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer)
{
    (void)buffer;
    if (length != 0)
        session_end_lingering(stream->data);
}

static void session_on_linger_over(struct timer *timer)
{
    session_end_lingering((struct session *)((char *)timer - offsetof(struct session, linger)));
}

/* Keep a refused session, whose answer is in its socket, until the client has sent something or has gone. */
static void session_linger(struct session *session)
{
    struct session_list *list = session->list;

    if (list->lingering >= LINGERING_MAX || outbox_unread_bytes(session) > 0 ||
        session->outbox.state == OUTBOX_BROKEN || !session_leaves_descriptors(session, DESCRIPTOR_RESERVE) ||
        uv_read_start((uv_stream_t *)&session->pipe, session_on_linger_alloc, session_on_linger_read) != 0) {
        session_close(session);
        return;
    }
    session->state = SESSION_LINGERING;
    list->lingering++;
    timer_start(list->timers, &session->linger, uv_now(list->loop) + LINGER_MS, session_on_linger_over);
}

static void session_refuse_accepted(struct session *session, struct error *error)
{
    struct session_list *list = session->list;

    list->metrics->sessions_refused++;
    log_limited(&list->refused_log, "sessions were refused", CONF_LOG_WARNING, "session of pid %d uid %u refused: %s",
                (int)session->pid, (unsigned)session->uid, error->message);
    usage_release(&list->usage, session->user);
    session->user = NULL;
    outbox_refuse(session, NULL, error);
    session->state = SESSION_LAST_ANSWERS;
    /* Now, not at the turn's end: many may come in one turn, and would use up the descriptors in reserve. */
    outbox_flush(session);
    session_linger(session);
}

void session_refuse(struct session_list *list, int descriptor)
{
    struct error error;
    msgpack_sbuffer answer;
    msgpack_packer packer;

    error_set(&error, ERROR_RESOURCE_EXHAUSTED,
              "the daemon has no file descriptor for another session (ulimit -n, LimitNOFILE=); try again later");
    error_set_default_outcome(&error);
    msgpack_sbuffer_init(&answer);
    msgpack_packer_init(&packer, &answer, msgpack_sbuffer_write);
    rpc_pack_error(&packer, NULL, &error);
    if (socket_send(descriptor, answer.data, answer.size) < 0)
        log_debug("session refused: cannot send the error to its client: %s", strerror(errno));
    msgpack_sbuffer_destroy(&answer);
    close(descriptor);
    list->metrics->errors[error.code]++;
    list->metrics->sessions_total++;
    list->metrics->sessions_refused++;
    log_limited(&list->refused_log, "sessions were refused", CONF_LOG_WARNING, "session refused: %s", error.message);
}

/* --- The beginning --------------------------------------------------------------------------------- */

static void session_read_peer(struct session *session)
{
    struct ucred peer = socket_peer(session_socket(session));

    session->pid = peer.pid;
    session->uid = peer.uid;
    session->gid = peer.gid;
    process_name_read(session->pid, session->program);
}

static struct session *session_new(struct session_list *list)
{
    struct session *session = calloc(1, sizeof(*session));

    if (session == NULL)
        return NULL;
    session->list = list;
    session->id = ++list->ids;
    session->counted.started_ms = uv_now(list->loop);
    uv_pipe_init(list->loop, &session->pipe, 0);
    session->pipe.data = session;
    outbox_init(&session->outbox);
    session->next = list->first;
    if (list->first != NULL)
        list->first->previous = session;
    list->first = session;
    list->metrics->sessions++;
    list->metrics->sessions_total++;
    return session;
}

void session_accept(struct session_list *list, int descriptor)
{
    struct session *session = session_new(list);
    struct error error;

    if (session == NULL) {
        log_error("session refused: out of memory");
        close(descriptor);
        return;
    }
    int failed = uv_pipe_open(&session->pipe, descriptor);
    if (failed != 0) {
        log_limited(&list->refused_log, "sessions were refused", CONF_LOG_ERROR, "session refused: %s",
                    uv_strerror(failed));
        close(descriptor);
        session_close(session);
        return;
    }
    session_read_peer(session);
    session->user = usage_hold(&list->usage, session->uid);
    if (session->user == NULL) {
        log_error("session of pid %d uid %u refused: out of memory", (int)session->pid, (unsigned)session->uid);
        session_close(session);
        return;
    }
    if (!session_check_limits(session, &error)) {
        session_refuse_accepted(session, &error);
        return;
    }
    usage_add(&list->usage, session->user, USAGE_SESSIONS, 1);
    log_debug("session %" PRIu64 " of pid %d uid %u began: %s", session->id, (int)session->pid, (unsigned)session->uid,
              session->program);
    session->releasing.owner = fair_queue_identity(session->uid, session->id);
    jobs_admit_session(&session->inbox.receiving, session->releasing.owner);
    inbox_start(session);
}

/* --- All sessions ---------------------------------------------------------------------------------- */

int session_list_init(struct session_list *list, uv_loop_t *loop, struct jobs *jobs, struct timers *timers,
                      const struct conf *conf, struct metrics *metrics, const struct session_ops *ops, void *ops_arg)
{
    memset(list, 0, sizeof(*list));
    list->loop = loop;
    list->jobs = jobs;
    list->timers = timers;
    list->conf = conf;
    list->metrics = metrics;
    list->ops = ops;
    list->ops_arg = ops_arg;
    usage_init(&list->usage, conf);
    garbage_init(&list->garbage, jobs);
    session_list_reload(list);
    list->read_buffer = malloc(INBOX_READ_BYTES);
    return list->read_buffer != NULL ? 0 : -1;
}

void session_list_reload(struct session_list *list)
{
    list->frame_limits = (struct frame_limits){list->conf->limits.frame_bytes, list->conf->limits.frame_elements,
                                               list->conf->limits.frame_depth};
}

void session_list_free(struct session_list *list)
{
    assert(list->first == NULL);
    garbage_end(&list->garbage);
    jobs_remove(list->jobs, &list->recheck.job);
    free(list->read_buffer);
    outbox_spares_free(&list->spares);
}

void session_list_flush(struct session_list *list)
{
    while (list->dirty != NULL) {
        struct session *session = list->dirty;
        list->dirty = session->next_dirty;
        session->is_dirty = false;
        outbox_flush(session);
        outbox_count(session);
        if (outbox_has_room(session))
            session_wake_waiters(session);
        inbox_resume(session);
        session_end_if_done(session);
    }
}

void session_list_drain(struct session_list *list, void (*on_empty)(void *arg), void *arg)
{
    list->on_empty = on_empty;
    list->on_empty_arg = arg;
    if (list->first == NULL) {
        on_empty(arg);
        return;
    }
    for (struct session *session = list->first; session != NULL; session = session->next) {
        if (session->state == SESSION_LINGERING)
            session_end_lingering(session);
        if (session->state == SESSION_OPEN) {
            session_finish(session);
            session->state = SESSION_DRAINING;
        }
        outbox_drain(session);
        session_mark_dirty(session);
    }
}

struct session *session_list_find(const struct session_list *list, uint64_t id)
{
    struct session *session = list->first;

    while (session != NULL && session->id != id)
        session = session->next;
    return session != NULL && session->user != NULL && session->state != SESSION_CLOSING ? session : NULL;
}

void session_kill(struct session *session, const struct error *error)
{
    outbox_pack_error(session, NULL, error);
    outbox_flush(session);
    session_end(session, CONF_LOG_INFO, "%s", error->message);
}

void session_list_end(struct session_list *list)
{
    for (struct session *session = list->first; session != NULL; session = session->next)
        session_end(session, CONF_LOG_WARNING, "the daemon ends, and %u of its calls are not answered",
                    session_count(session, SESSION_PENDING));
}
