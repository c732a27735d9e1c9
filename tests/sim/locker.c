#include "tests/sim/locker.h"

#include "tests/sim/caller.h"
#include "tests/sim/doors.h"
#include "tests/sim/memory.h"
#include "tests/sim/server.h"
#include "tests/sim/world.h"
#include "tests/support/lock_check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOCKS_MAX        8u
#define LOCK_VALUE_BYTES 32u

/* The timeout of a call that names none, and how late an answer may be. */
#define USUAL_NS (5 * WORLD_SECOND)
#define SLACK_NS (200 * WORLD_MS)

enum locker_step {
    LOCKER_AT_REST, /* no call is in flight */
    LOCKER_REGISTERING,
    LOCKER_ACQUIRING,
    LOCKER_CHECKING,
    LOCKER_WRITING,
    LOCKER_RELEASING,
    LOCKER_PURGING
};

/* A lock.acquire that was cancelled: it was to write this value. */
struct locker_cancelled {
    struct locker_cancelled *next;
    char value[LOCK_VALUE_BYTES];
};

struct locker {
    struct locker *next;
    unsigned number;
    char name[16], owner[24]; /* owner "": none */
    const struct lock_load *load;
    struct caller caller;
    unsigned sessions, lost_sessions; /* that the daemon has ended */
    bool is_registered;               /* the session's ephemeral key is written */
    enum locker_step step;
    uint32_t msgid; /* of the call in flight, or the last one */
    uint64_t sent_ns;
    uint64_t due_ns;  /* when it must be answered */
    bool has_stalled; /* since it was sent: the answer may have come earlier */
    unsigned lock;    /* that it wants */
    uint64_t wait_ns; /* for it */
    uint64_t in_line_until_ns;
    unsigned attempts;          /* lock.acquire: each has a value of its own */
    uint32_t to_cancel_msgid;   /* of a lock.acquire that is to be cancelled; 0: none */
    uint32_t cancelled_msgid;   /* of the last one that was; 0: none */
    unsigned cancelled_attempt; /* its number */
    bool has_failed_so;         /* it was answered as one that is cancelled */
    uint32_t cancel_msgid;      /* of call.cancel in flight; 0: none */
    struct locker_cancelled *cancelled;
    bool is_holding;
    unsigned given_up;   /* a bit for each lock: a holding of whose loss it was not notified yet */
    uint64_t leaves_ns;  /* when the holding is to end */
    uint64_t lost_token; /* of the last lock.lost of the session */
    bool is_thinking;
    bool is_finishing, is_finished;
    unsigned finished_locks;
    struct lock_held *held;
    size_t held_count;
    size_t present; /* the place of the present or last one */
    struct lock_fenced *fenced;
    size_t fenced_count;
};

static struct locker *all;

static void locker_think_later(struct locker *locker, uint64_t ns);

static void lock_name(char name[16], unsigned lock)
{
    snprintf(name, 16, "lock.%u", lock);
}

static void locker_key(const struct locker *locker, char key[32])
{
    snprintf(key, 32, "here.%u-%u", locker->number, locker->sessions);
}

static const struct stream *locker_stream(const struct locker *locker)
{
    const struct stream *stream = server_streams(locker->load->server);

    while (strcmp(stream->name + strlen("KV_"), locker->load->bucket) != 0)
        stream = stream->next;
    return stream;
}

/* Without faults, and before a purge, which removes leases too, nothing takes a lock away. */
static bool locker_is_safe(const struct locker *locker)
{
    return locker->load->is_quiet && locker_stream(locker)->purge_count == 0;
}

static struct lock_held *locker_held(struct locker *locker)
{
    return &locker->held[locker->present];
}

/* --- Holdings -------------------------------------------------------------------------------------- */

static void locker_end_holding(struct locker *locker, uint64_t at_ns)
{
    if (!locker->is_holding)
        return;
    locker->is_holding = false;
    if (locker_held(locker)->end_ns > at_ns)
        locker_held(locker)->end_ns = at_ns;
}

/*
 * Return until when the daemon vouches for it, by the clock of its host, which the locker has, too. If it no longer
 * does, such as after its machine was suspended, it is until when it did before.
 */
static uint64_t vouched_until_ns(const struct locker *locker, const msgpack_object *result, uint64_t before_ns)
{
    const msgpack_object *valid_for = map_at(result, "valid_for");

    if (valid_for == NULL)
        world_fail("an answer about a lock without valid_for");
    if (valid_for->via.f64 == 0 && locker_is_safe(locker))
        world_fail("%s: the daemon does not vouch for lock.%u, and there is no fault", locker->name, locker->lock);
    if (valid_for->via.f64 == 0)
        return before_ns;
    return locker->sent_ns +
           clocks_world_interval_ns(host_clocks(locker->caller.host), (uint64_t)(valid_for->via.f64 * 1e9));
}

static bool locker_is_sure(struct locker *locker)
{
    return locker->is_holding && world_now_ns() < locker_held(locker)->end_ns;
}

/* Make the holding with this token the present one, if there is one. Return whether there is. */
static bool locker_come_back(struct locker *locker, uint64_t token)
{
    for (size_t i = locker->held_count; i > 0; i--) {
        if (locker->held[i - 1].token == token && locker->held[i - 1].lock == locker->lock) {
            locker->present = i - 1;
            return true;
        }
    }
    return false;
}

/* With the same token, the owner has come back: nobody else has had the lock since. */
static void locker_begin_holding(struct locker *locker, const msgpack_object *result)
{
    uint64_t token = number_of(map_at(result, "token"));
    bool is_same = locker_come_back(locker, token);
    uint64_t end_ns = vouched_until_ns(locker, result, is_same ? locker_held(locker)->end_ns : 0);

    if (is_same && locker->owner[0] == '\0' && !server_was_set_back(locker->load->server))
        world_fail("%s got token %" PRIu64 " twice, without an owner", locker->name, token);
    if (!is_same) {
        locker->held = memory_grow(locker->held, locker->held_count, sizeof(*locker->held));
        locker->present = locker->held_count;
        locker->held[locker->held_count++] = (struct lock_held){
            .lock = locker->lock, .client = locker->number, .token = token, .begin_ns = world_now_ns()};
    }
    locker_held(locker)->end_ns = end_ns;
    locker->is_holding = true;
    locker->leaves_ns = world_now_ns() + world_below(locker->load->most_hold_ns);
    trace("%s: holds lock.%u with token %" PRIu64 " for %.3f s", locker->name, locker->lock, token,
          ((double)end_ns - (double)world_now_ns()) / 1e9);
}

static void locker_note_fenced(struct locker *locker, uint64_t revision)
{
    locker->fenced = memory_grow(locker->fenced, locker->fenced_count, sizeof(*locker->fenced));
    locker->fenced[locker->fenced_count++] = (struct lock_fenced){.lock = locker_held(locker)->lock,
                                                                  .client = locker->number,
                                                                  .token = locker_held(locker)->token,
                                                                  .revision = revision};
}

/* --- Calls ----------------------------------------------------------------------------------------- */

static void locker_send(struct locker *locker, enum locker_step step, const char *method, msgpack_sbuffer *arguments,
                        uint64_t time_ns)
{
    locker->step = step;
    locker->sent_ns = world_now_ns();
    locker->due_ns = locker->sent_ns + time_ns + time_ns / 100 + SLACK_NS; /* the clocks may be slow */
    locker->has_stalled = false;
    locker->msgid = caller_send(&locker->caller, method, arguments);
    trace("%s: %s", locker->name, method);
}

static void locker_register(struct locker *locker)
{
    msgpack_sbuffer arguments;
    msgpack_packer packer = caller_begin(&arguments, 4);
    char key[32];

    locker_key(locker, key);
    pack_text(&packer, locker->load->bucket);
    pack_text(&packer, key);
    pack_binary(&packer, locker->name);
    msgpack_pack_map(&packer, 1);
    pack_text(&packer, "ephemeral");
    msgpack_pack_true(&packer);
    locker_send(locker, LOCKER_REGISTERING, "kv.put", &arguments, USUAL_NS);
}

static void lock_value(const struct locker *locker, unsigned attempt, char value[LOCK_VALUE_BYTES])
{
    snprintf(value, LOCK_VALUE_BYTES, "%u-%u", locker->number, attempt);
}

/* Return whether it has cancelled the call. Then that does not wait on. */
static bool locker_has_cancelled(const struct locker *locker)
{
    return locker->msgid == locker->cancelled_msgid;
}

/* Return whether it also does not know yet that it was too late. */
static bool locker_may_have_cancelled(const struct locker *locker)
{
    return locker_has_cancelled(locker) && locker->cancel_msgid != 0;
}

/* Cancel lock.acquire, if it is still in flight. */
static void locker_cancel(void *arg)
{
    struct locker *locker = arg;
    msgpack_sbuffer arguments;

    if (locker->step != LOCKER_ACQUIRING || locker->msgid != locker->to_cancel_msgid || locker->cancel_msgid != 0)
        return;
    msgpack_packer packer = caller_begin(&arguments, 1);
    msgpack_pack_uint32(&packer, locker->msgid);
    locker->cancelled_msgid = locker->msgid;
    locker->cancelled_attempt = locker->attempts;
    locker->has_failed_so = false;
    locker->cancel_msgid = caller_send(&locker->caller, "call.cancel", &arguments);
    trace("%s: call.cancel", locker->name);
}

static void locker_acquire(struct locker *locker, unsigned lock, uint64_t wait_ns)
{
    msgpack_sbuffer arguments;
    msgpack_packer packer = caller_begin(&arguments, 3);
    char name[16], value[LOCK_VALUE_BYTES];
    uint64_t timeout_ns = world_between(500, 6000) * WORLD_MS;

    locker->lock = lock;
    lock_name(name, lock);
    pack_text(&packer, locker->load->bucket);
    pack_text(&packer, name);
    msgpack_pack_map(&packer, 3u + (locker->owner[0] != '\0'));
    lock_value(locker, ++locker->attempts, value);
    pack_text(&packer, "value");
    pack_text(&packer, value);
    pack_seconds(&packer, "wait", wait_ns);
    pack_seconds(&packer, "timeout", timeout_ns);
    if (locker->owner[0] != '\0') {
        pack_text(&packer, "owner");
        pack_text(&packer, locker->owner);
    }
    locker->wait_ns = wait_ns;
    locker->in_line_until_ns = UINT64_MAX;
    locker_send(locker, LOCKER_ACQUIRING, "lock.acquire", &arguments, wait_ns + timeout_ns);
    trace("%s: %s, wait %.3f s", locker->name, name, (double)wait_ns / 1e9);
    if (locker->cancel_msgid != 0 || !world_chance(locker->load->cancel_per_mille))
        return;
    locker->to_cancel_msgid = locker->msgid;
    world_after(world_below(1 + (world_chance(500) ? 5 * WORLD_MS : wait_ns)), locker_cancel, locker);
}

/* lock.check and lock.release. */
static void locker_ask(struct locker *locker, enum locker_step step, const char *method)
{
    msgpack_sbuffer arguments;
    msgpack_packer packer = caller_begin(&arguments, 3);
    char name[16];

    lock_name(name, locker_held(locker)->lock);
    pack_text(&packer, locker->load->bucket);
    pack_text(&packer, name);
    msgpack_pack_uint64(&packer, locker_held(locker)->token);
    locker_send(locker, step, method, &arguments, USUAL_NS);
}

/* A transaction that depends on the lock. */
static void locker_write(struct locker *locker)
{
    msgpack_sbuffer arguments;
    msgpack_packer packer = caller_begin(&arguments, 3);
    char name[16], key[16], value[24];

    lock_name(name, locker_held(locker)->lock);
    snprintf(key, sizeof(key), "data.%u", locker_held(locker)->lock);
    pack_text(&packer, locker->load->bucket);
    msgpack_pack_array(&packer, 1);
    msgpack_pack_array(&packer, 2);
    pack_text(&packer, name);
    msgpack_pack_uint64(&packer, locker_held(locker)->token);
    msgpack_pack_array(&packer, 1);
    msgpack_pack_array(&packer, 3);
    pack_text(&packer, "put");
    pack_text(&packer, key);
    snprintf(value, sizeof(value), "%" PRIu64, locker_held(locker)->token);
    pack_binary(&packer, value); /* for lockers_judge */
    locker_send(locker, LOCKER_WRITING, "txn.commit", &arguments, USUAL_NS);
}

static void locker_purge(struct locker *locker)
{
    msgpack_sbuffer arguments;
    msgpack_packer packer = caller_begin(&arguments, 1);

    pack_text(&packer, locker->load->bucket);
    locker_send(locker, LOCKER_PURGING, "bucket.purge", &arguments, USUAL_NS);
}

static void locker_release(struct locker *locker)
{
    locker_end_holding(locker, world_now_ns());
    locker_ask(locker, LOCKER_RELEASING, "lock.release");
}

/* --- Answers --------------------------------------------------------------------------------------- */

/* Return what was stored with a token if it was purged, or NULL. */
static const struct stored *locker_find_purged(const struct locker *locker, uint64_t token)
{
    const struct stream *stream = locker_stream(locker);
    const struct stored *stored = token > 0 && token <= stream->log.count ? stream->log.items[token - 1] : NULL;

    return stored != NULL && stored->is_purged && !server_was_set_back(locker->load->server) ? stored : NULL;
}

/* A daemon notices that its lease was purged when it renews it. */
static void locker_judge_check(const struct locker *locker, uint64_t token)
{
    const struct stored *purged = locker_find_purged(locker, token);
    uint64_t sent_ns = locker->sent_ns;

    if (purged == NULL)
        return;
    uint64_t known_ns = purged->removed_ns + locker->load->lease_ttl_ns + SLACK_NS;
    if (sent_ns > known_ns + locker->load->stopped_ns(purged->removed_ns, sent_ns))
        world_fail("%s: token %" PRIu64 " is vouched for, although it was purged at %.6f s", locker->name, token,
                   (double)purged->removed_ns / 1e9);
}

static void locker_on_result(struct locker *locker, enum locker_step step, const msgpack_object *result)
{
    switch (step) {
    case LOCKER_REGISTERING:
        locker->is_registered = true;
        break;
    case LOCKER_ACQUIRING:
        locker_begin_holding(locker, result);
        break;
    case LOCKER_CHECKING:
        locker_judge_check(locker, locker_held(locker)->token);
        if (locker->is_holding)
            locker_held(locker)->end_ns = vouched_until_ns(locker, result, locker_held(locker)->end_ns);
        break;
    case LOCKER_WRITING:
        locker_note_fenced(locker, number_of(&result->via.array.ptr[0]));
        break;
    case LOCKER_RELEASING:
    case LOCKER_PURGING:
    case LOCKER_AT_REST:
        break;
    }
}

/*
 * Return whether another program of the host was in line for the lock during the call. Who does not wait is refused
 * then, even if nobody holds the lock yet.
 */
static bool locker_has_line(const struct locker *locker)
{
    for (const struct locker *other = all; other != NULL; other = other->next) {
        if (other != locker && other->caller.host == locker->caller.host && other->lock == locker->lock &&
            other->in_line_until_ns > locker->sent_ns)
            return true;
    }
    return false;
}

/* Return whether the lock's key was there at a moment of the call. The daemon hears of a purge later. */
static bool locker_was_locked(const struct locker *locker)
{
    const struct stream *stream = locker_stream(locker);
    const struct stored *last = NULL;
    char subject[64];

    snprintf(subject, sizeof(subject), "$KV.%s.lock.%u", locker->load->bucket, locker->lock);
    for (size_t i = 0; i < stream->change_count; i++) {
        const struct change *change = &stream->changes[i];
        if (strcmp(change->subject, subject) != 0)
            continue;
        uint64_t known_ns = change->at_ns;
        if (stored_is_put(last) && last->is_purged)
            known_ns +=
                locker->load->lease_ttl_ns + SLACK_NS + locker->load->stopped_ns(change->at_ns, locker->sent_ns);
        if (known_ns > locker->sent_ns && stored_is_put(last))
            return true;
        last = change->last;
    }
    return stored_is_put(last);
}

/* A lock is refused when the wait is over, by a clock that may be fast, and not because the daemon shuts down. */
static void locker_judge_locked(const struct locker *locker)
{
    uint64_t least_ns = locker_has_cancelled(locker) ? 0 : locker->wait_ns - locker->wait_ns / 100;

    if (server_was_set_back(locker->load->server))
        return;
    if (world_now_ns() + WORLD_MS < locker->sent_ns + least_ns)
        world_fail("%s: lock.%u is refused before the wait of %.3f s is over", locker->name, locker->lock,
                   (double)locker->wait_ns / 1e9);
    /* During a fault the daemon may not hear that it became free. */
    if (locker->load->is_quiet && !locker_was_locked(locker) && !locker_has_line(locker))
        world_fail("%s: lock.%u is refused, and was free", locker->name, locker->lock);
}

/* Return whether the bucket was missing at a moment of the call, or is created again so lately that a daemon may not
 * know. */
static bool locker_lacked_bucket(const struct locker *locker)
{
    const struct stream *stream = locker_stream(locker);

    return server_lost_ns(locker->load->server) <= world_now_ns() &&
           (stream->is_gone || locker->sent_ns < stream->made_ns + 20 * WORLD_SECOND);
}

/* Return whether the session may still hold the lock of the call, which the locker has given up. */
static bool locker_has_given_up(const struct locker *locker, enum locker_step step)
{
    return step == LOCKER_ACQUIRING ? (locker->given_up >> locker->lock & 1) != 0 : locker->given_up != 0;
}

/* The errors that the faults of this world can cause. */
static bool is_possible(const struct locker *locker, enum locker_step step, const char *code)
{
    bool is_of_a_fault = strcmp(code, "unavailable") == 0 || strcmp(code, "deadline_exceeded") == 0 ||
                         strcmp(code, "resource_exhausted") == 0;

    return (is_of_a_fault && !locker->load->is_quiet) ||
           (step == LOCKER_ACQUIRING && locker_may_have_cancelled(locker) && strcmp(code, "deadline_exceeded") == 0) ||
           (step == LOCKER_ACQUIRING && strcmp(code, "locked") == 0) ||
           ((step == LOCKER_WRITING || locker_has_given_up(locker, step)) && strcmp(code, "conflict") == 0) ||
           ((step == LOCKER_CHECKING || step == LOCKER_RELEASING) && strcmp(code, "not_held") == 0) ||
           (strcmp(code, "bucket_not_found") == 0 && locker_lacked_bucket(locker));
}

static void locker_on_error(struct locker *locker, enum locker_step step, const char *code)
{
    uint64_t token = locker->held_count > 0 ? locker_held(locker)->token : 0;

    if (!is_possible(locker, step, code))
        world_fail("%s: the error %s is not one that its call can cause", locker->name, code);
    if (strcmp(code, "locked") == 0)
        locker_judge_locked(locker);
    if (strcmp(code, "not_held") == 0 && locker->lost_token != token)
        world_fail("%s: it does not hold token %" PRIu64 ", and was not notified of its loss", locker->name, token);
    if (strcmp(code, "conflict") == 0 && locker_is_sure(locker) && !server_was_set_back(locker->load->server) &&
        locker_find_purged(locker, token) == NULL)
        world_fail("%s: a write with token %" PRIu64 " is refused, while it is vouched for", locker->name, token);
    if (strcmp(code, "conflict") == 0) {
        if (locker->is_holding)
            locker->given_up |= 1u << locker_held(locker)->lock;
        locker_end_holding(locker, world_now_ns());
    }
}

/* The call in flight is answered now, or will never be. */
static void locker_judge_time(const struct locker *locker)
{
    uint64_t now_ns = world_now_ns();

    if (!locker->has_stalled && now_ns > locker->due_ns + locker->load->stopped_ns(locker->sent_ns, now_ns))
        world_fail("%s: no answer to its call of %.6f s, which was due at %.6f s", locker->name,
                   (double)locker->sent_ns / 1e9, (double)locker->due_ns / 1e9);
}

static void locker_note_cancelled(struct locker *locker)
{
    struct locker_cancelled *cancelled = memory_new(sizeof(*cancelled));

    lock_value(locker, locker->cancelled_attempt, cancelled->value);
    cancelled->next = locker->cancelled;
    locker->cancelled = cancelled;
}

/* If it is true, lock.acquire was answered before it. */
static void locker_on_cancelled(struct locker *locker, const msgpack_object *answer)
{
    bool is_cancelled = bool_of(&answer->via.array.ptr[3]);

    trace("%s: call.cancel is %s", locker->name, is_cancelled ? "true" : "false");
    locker->cancel_msgid = 0;
    if (answer->via.array.ptr[2].type != MSGPACK_OBJECT_NIL)
        world_fail("%s: call.cancel has failed", locker->name);
    if (!is_cancelled)
        return;
    if (!locker->has_failed_so)
        world_fail("%s: lock.acquire was cancelled, and was not answered so", locker->name);
    locker_note_cancelled(locker);
}

static void locker_on_answer(struct locker *locker, const msgpack_object *answer)
{
    const msgpack_object *error = &answer->via.array.ptr[2];
    enum locker_step step = locker->step;
    char code[32];

    if (answer->via.array.ptr[1].type == MSGPACK_OBJECT_NIL)
        return; /* the daemon shuts down */
    if (locker->cancel_msgid != 0 && number_of(&answer->via.array.ptr[1]) == locker->cancel_msgid) {
        locker_on_cancelled(locker, answer);
        return;
    }
    if (step == LOCKER_AT_REST || number_of(&answer->via.array.ptr[1]) != locker->msgid)
        world_fail("%s: a second answer, or one to no call", locker->name);
    locker_judge_time(locker);
    if (step == LOCKER_ACQUIRING)
        locker->in_line_until_ns = world_now_ns();
    locker->step = LOCKER_AT_REST;
    copy_text(code, sizeof(code), map_at(error, "code"));
    trace("%s: %s", locker->name, error->type == MSGPACK_OBJECT_NIL ? "ok" : code);
    if (error->type == MSGPACK_OBJECT_NIL)
        locker_on_result(locker, step, &answer->via.array.ptr[3]);
    else
        locker_on_error(locker, step, code);
    if (locker_may_have_cancelled(locker))
        locker->has_failed_so = strcmp(code, "deadline_exceeded") == 0;
    if (step == LOCKER_RELEASING && locker->is_finishing && error->type == MSGPACK_OBJECT_NIL)
        locker->finished_locks++;
    locker_think_later(locker, world_below(locker->load->pause_ns));
}

static void locker_on_lost(struct locker *locker, const msgpack_object *params)
{
    char key[32], present[16] = "";

    copy_text(key, sizeof(key), &params->via.array.ptr[1]);
    if (locker_is_safe(locker))
        world_fail("%s: %s is lost, and there is no cause", locker->name, key);
    if (strncmp(key, "lock.", 5) != 0) {
        locker->is_registered = false; /* the ephemeral key */
        return;
    }
    locker->given_up &= ~(1u << atoi(key + 5));
    if (locker->held_count > 0)
        lock_name(present, locker_held(locker)->lock);
    if (strcmp(key, present) != 0)
        return; /* one that it has given up. A server that was set back may have used its token again */
    locker->lost_token = number_of(&params->via.array.ptr[2]);
    trace("%s: token %" PRIu64 " is lost", locker->name, locker->lost_token);
    if (locker->is_holding && locker_held(locker)->token == locker->lost_token)
        locker_end_holding(locker, world_now_ns());
}

static void locker_on_message(void *arg, const msgpack_object *message)
{
    char method[32];

    if (message->via.array.ptr[0].via.u64 == 1) {
        locker_on_answer(arg, message);
        return;
    }
    copy_text(method, sizeof(method), &message->via.array.ptr[1]);
    if (strcmp(method, "lock.lost") == 0)
        locker_on_lost(arg, &message->via.array.ptr[2]);
}

/* --- Sessions -------------------------------------------------------------------------------------- */

static void locker_forget_session(struct locker *locker, uint64_t ended_ns)
{
    locker_end_holding(locker, ended_ns);
    /* Who does not read for a while finds out later when the session has ended. */
    for (size_t i = 0; i < locker->held_count; i++) {
        if (locker->held[i].end_ns > ended_ns)
            locker->held[i].end_ns = ended_ns;
    }
    if (locker->step == LOCKER_ACQUIRING)
        locker->in_line_until_ns = world_now_ns();
    locker->step = LOCKER_AT_REST;
    locker->is_registered = false;
    locker->given_up = 0;
    locker->cancel_msgid = 0;
    locker_think_later(locker, world_between(1, 300) * WORLD_MS);
}

static void locker_on_end(void *arg, uint64_t ended_ns)
{
    ((struct locker *)arg)->lost_sessions++;
    locker_forget_session(arg, ended_ns);
}

void locker_leave(struct locker *locker)
{
    caller_leave(&locker->caller);
    locker_forget_session(locker, world_now_ns());
}

static bool locker_connect(struct locker *locker)
{
    if (caller_is_connected(&locker->caller))
        return true;
    if (!caller_connect(&locker->caller))
        return false;
    locker->sessions++;
    locker->lost_token = 0;
    return true;
}

/* --- What it does ---------------------------------------------------------------------------------- */

static void locker_go_on_holding(struct locker *locker)
{
    const struct lock_load *load = locker->load;
    bool is_time = world_now_ns() >= locker->leaves_ns;

    if (world_chance(load->purge_per_mille)) {
        locker_purge(locker);
        return;
    }
    if (is_time && world_chance(load->leave_per_mille))
        locker_leave(locker);
    else if (is_time)
        locker_release(locker);
    else if (world_chance(500))
        locker_ask(locker, LOCKER_CHECKING, "lock.check");
    else
        locker_write(locker);
}

/* After a loss it writes with the old token sometimes: that must be refused. */
static void locker_begin(struct locker *locker)
{
    bool has_owner = locker->owner[0] != '\0';
    unsigned lock = (unsigned)world_below(locker->load->locks);

    if (locker->held_count > 0 && world_chance(100)) {
        locker_write(locker);
        return;
    }
    if (has_owner && locker->held_count > 0 && world_chance(700))
        lock = locker_held(locker)->lock;
    locker_acquire(locker, lock, world_chance(300) ? 0 : world_between(1, 20000) * WORLD_MS);
}

static void locker_go_on_finishing(struct locker *locker)
{
    if (!locker->is_registered)
        locker_register(locker);
    else if (locker->is_holding)
        locker_release(locker);
    else if (locker->finished_locks < locker->load->locks)
        locker_acquire(locker, locker->finished_locks, 60 * WORLD_SECOND);
    else
        locker->is_finished = true;
}

static void locker_think(void *arg)
{
    struct locker *locker = arg;

    locker->is_thinking = false;
    if (!locker_connect(locker)) {
        locker_think_later(locker, world_between(1, 100) * WORLD_MS);
        return;
    }
    if (locker->step != LOCKER_AT_REST)
        return; /* the answer wakes it */
    if (locker->is_finishing)
        locker_go_on_finishing(locker);
    else if (locker->is_holding)
        locker_go_on_holding(locker);
    else if (!locker->is_registered && world_chance(300))
        locker_register(locker);
    else
        locker_begin(locker);
    if (locker->is_finishing || !caller_is_connected(&locker->caller) || !world_chance(locker->load->stall_per_mille))
        return;
    locker->has_stalled = true;
    caller_stall(&locker->caller, world_between(1, 20000) * WORLD_MS);
}

static void locker_think_later(struct locker *locker, uint64_t ns)
{
    if (locker->is_thinking)
        return;
    locker->is_thinking = true;
    world_after(ns, locker_think, locker);
}

void locker_run(struct locker *locker)
{
    locker_think_later(locker, world_below(locker->load->pause_ns));
}

void locker_finish(struct locker *locker)
{
    if (locker->step != LOCKER_AT_REST)
        locker_judge_time(locker);
    locker->is_finishing = true;
    locker_leave(locker);
}

bool locker_is_finished(const struct locker *locker)
{
    return locker->is_finished;
}

/* --- Judging --------------------------------------------------------------------------------------- */

static bool is_of_a_session(const char *key)
{
    char own[32];

    for (const struct locker *locker = all; locker != NULL; locker = locker->next) {
        locker_key(locker, own);
        if (caller_is_connected(&locker->caller) && strcmp(key, own) == 0)
            return true;
    }
    return false;
}

const char *lockers_find_left(const struct stream *stream)
{
    for (size_t i = 0; i < stream->present.count; i++) {
        const struct stored *stored = stream->present.items[i];
        const char *subject = stored->packet->subject, *key = strstr(subject, "here.");
        bool is_lock = strstr(subject, ".lock.") != NULL;
        if (stored_is_put(stored) && (is_lock || (key != NULL && !is_of_a_session(key))))
            return subject;
    }
    return NULL;
}

bool lockers_are_registered(const struct stream *stream)
{
    char key[32], subject[64];

    for (const struct locker *locker = all; locker != NULL; locker = locker->next) {
        locker_key(locker, key);
        snprintf(subject, sizeof(subject), "$KV.%s.%s", locker->load->bucket, key);
        if (locker->is_registered && caller_is_connected(&locker->caller) &&
            !stored_is_put(stream_last(stream, subject)))
            return false;
    }
    return true;
}

static bool is_purged_before(const struct stored *token, const struct stored *stored)
{
    return token->is_purged && token->removed_ns < stored->at_ns;
}

/*
 * What was written with a token was written while the lock's key had that revision, whatever its writer was answered.
 */
static void judge_fences(const struct stream *stream)
{
    uint64_t tokens[LOCKS_MAX] = {0};

    for (size_t i = 0; i < stream->log.count; i++) {
        const struct stored *stored = stream->log.items[i];
        const char *lock = strstr(stored->packet->subject, ".lock."), *data = strstr(stored->packet->subject, ".data.");
        if (lock != NULL)
            tokens[atoi(lock + strlen(".lock."))] = stored->sequence;
        uint64_t token = data != NULL ? tokens[atoi(data + strlen(".data."))] : 0;
        if (token > 0 && is_purged_before(stream->log.items[token - 1], stored))
            world_fail("%s was written at revision %" PRIu64 ", when the lock's key was purged", data + 1,
                       stored->sequence);
        if (data != NULL && strtoull(stored->packet->payload, NULL, 10) != tokens[atoi(data + strlen(".data."))])
            world_fail("%s was written at revision %" PRIu64 " with token %s, when the lock had token %" PRIu64,
                       data + 1, stored->sequence, stored->packet->payload, tokens[atoi(data + strlen(".data."))]);
    }
}

static const struct locker *find_locker(unsigned number)
{
    const struct locker *locker = all;

    while (locker->number != number)
        locker = locker->next;
    return locker;
}

/* What was cancelled has stored nothing. */
static void judge_cancelled(const struct stream *stream)
{
    for (size_t i = 0; i < stream->log.count; i++) {
        const struct stored *stored = stream->log.items[i];
        if (strstr(stored->packet->subject, ".lock.") == NULL || !stored_is_put(stored))
            continue;
        const struct locker *locker = find_locker((unsigned)strtoul(stored->packet->payload, NULL, 10));
        const struct locker_cancelled *cancelled = locker->cancelled;
        while (cancelled != NULL && strcmp(cancelled->value, stored->packet->payload) != 0)
            cancelled = cancelled->next;
        if (cancelled != NULL)
            world_fail("%s: lock.acquire with value %s was cancelled, and has written revision %" PRIu64, locker->name,
                       cancelled->value, stored->sequence);
    }
}

uint64_t lockers_acquired(void)
{
    uint64_t count = 0;

    for (const struct locker *locker = all; locker != NULL; locker = locker->next)
        count += locker->held_count;
    return count;
}

void lockers_judge(const struct stream *stream)
{
    struct lock_held *held = NULL;
    struct lock_fenced *fenced = NULL;
    size_t held_count = 0, fenced_count = 0;

    for (const struct locker *locker = all; locker != NULL; locker = locker->next) {
        if (locker->load->daemons_stay && locker->lost_sessions > 0)
            world_fail("the daemon has ended a session of %s, and was not ended itself", locker->name);
        for (size_t i = 0; i < locker->held_count; i++) {
            held = memory_grow(held, held_count, sizeof(*held));
            held[held_count] = locker->held[i];
            /* Its holder hears of a purge later: then the lock is free. */
            const struct stored *purged = locker_find_purged(locker, held[held_count].token);
            if (purged != NULL && purged->removed_ns < held[held_count].end_ns)
                held[held_count].end_ns = purged->removed_ns;
            held_count++;
        }
        for (size_t i = 0; i < locker->fenced_count; i++) {
            fenced = memory_grow(fenced, fenced_count, sizeof(*fenced));
            fenced[fenced_count++] = locker->fenced[i];
        }
    }
    const char *wrong = held_count > 0 && !server_was_set_back(all->load->server)
                            ? lock_check(held, held_count, fenced, fenced_count)
                            : NULL;
    if (wrong != NULL)
        world_fail("%s", wrong);
    if (stream != NULL && !stream->was_set_back)
        judge_fences(stream);
    if (stream != NULL && !stream->was_set_back)
        judge_cancelled(stream);
    free(held);
    free(fenced);
}

/* --- Life ------------------------------------------------------------------------------------------ */

struct locker *locker_new(unsigned number, struct host *host, const struct lock_load *load)
{
    struct locker *locker = memory_new(sizeof(*locker));

    locker->number = number;
    locker->load = load;
    snprintf(locker->name, sizeof(locker->name), "locker %u", number);
    if (world_chance(400))
        snprintf(locker->owner, sizeof(locker->owner), "owner-of-%u", number);
    locker->caller = (struct caller){
        .name = locker->name, .host = host, .on_message = locker_on_message, .on_end = locker_on_end, .arg = locker};
    locker->next = all;
    all = locker;
    return locker;
}

void locker_forget_all(void)
{
    while (all != NULL) {
        struct locker *locker = all;
        all = locker->next;
        while (locker->cancelled != NULL) {
            struct locker_cancelled *cancelled = locker->cancelled;
            locker->cancelled = cancelled->next;
            free(cancelled);
        }
        caller_free(&locker->caller);
        free(locker->held);
        free(locker->fenced);
        free(locker);
    }
}
