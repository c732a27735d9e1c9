#include "tests/fault/lock_holders.h"

#include "tests/fault/lock_client.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOLDERS_PER_DAEMON 4u
#define HOLDERS            (LOCK_HOLDERS_DAEMONS * HOLDERS_PER_DAEMON)

/* How long a holder waits for answers. A daemon that is stopped does not answer. */
#define ACQUIRE_MS 6000u
#define CHECK_MS   300u
#define RELEASE_MS 2000u

struct holder {
    pthread_t thread;
    unsigned number, daemon, seed;
    struct lock_client client;
    struct lock_held *held;
    size_t held_count, held_room;
    struct lock_fenced *fenced;
    size_t fenced_count, fenced_room;
};

static struct holder holders[HOLDERS];
static struct deployment *deployments;
static const char *bucket;
static bool is_over;
static uint64_t killed_ns[LOCK_HOLDERS_DAEMONS];
static unsigned counts[LOCK_HOLDERS_LOCKS], counts_by[LOCK_HOLDERS_DAEMONS];

static uint64_t least(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

static unsigned holder_random(struct holder *holder, unsigned range)
{
    return (unsigned)rand_r(&holder->seed) % range;
}

static struct lock_held *holder_add_held(struct holder *holder)
{
    if (holder->held_count == holder->held_room) {
        holder->held_room = holder->held_room * 2 + 100;
        holder->held = realloc(holder->held, holder->held_room * sizeof(*holder->held));
        ck_assert_ptr_nonnull(holder->held);
    }
    return &holder->held[holder->held_count++];
}

static void holder_add_fenced(struct holder *holder, const struct lock_held *held, uint64_t revision)
{
    if (holder->fenced_count == holder->fenced_room) {
        holder->fenced_room = holder->fenced_room * 2 + 100;
        holder->fenced = realloc(holder->fenced, holder->fenced_room * sizeof(*holder->fenced));
        ck_assert_ptr_nonnull(holder->fenced);
    }
    holder->fenced[holder->fenced_count++] =
        (struct lock_fenced){.lock = held->lock, .client = holder->number, .token = held->token, .revision = revision};
}

/* --- One holding ----------------------------------------------------------------------------------- */

static struct lock_answer holder_write(struct holder *holder, const struct lock_held *held)
{
    struct lock_answer answer = lock_client_call(
        &holder->client, CHECK_MS, &is_over, "txn.commit", "['%s', [['lock.%u', %llu]], [['put', 'data.%u', '%llu']]]",
        bucket, held->lock, (unsigned long long)held->token, held->lock, (unsigned long long)held->token);

    if (answer.reply == LOCK_REPLY_OK)
        holder_add_fenced(holder, held, answer.revision);
    return answer;
}

/* Return the time by which the session had surely ended. */
static uint64_t holder_session_end(const struct holder *holder, const struct lock_held *held)
{
    uint64_t killed = __atomic_load_n(&killed_ns[holder->daemon], __ATOMIC_SEQ_CST);

    return killed > held->begin_ns ? killed : lock_client_now_ns();
}

/* Ask whether the lock is still held. Return false if it is not; then held->end_ns says since when. */
static bool holder_check(struct holder *holder, struct lock_held *held)
{
    struct lock_answer answer =
        lock_client_call(&holder->client, CHECK_MS, &is_over, "lock.check", "['%s', 'lock.%u', %llu]", bucket,
                         held->lock, (unsigned long long)held->token);

    if (answer.reply == LOCK_REPLY_ENDED) {
        held->end_ns = least(held->end_ns, holder_session_end(holder, held));
        return false;
    }
    if (holder->client.lost_token == held->token) {
        held->end_ns = least(held->end_ns, holder->client.lost_ns);
        return false;
    }
    ck_assert_msg(answer.reply != LOCK_REPLY_ERROR, "a lock that was not lost: %s: %s", answer.code, answer.message);
    if (answer.reply == LOCK_REPLY_OK)
        held->end_ns = answer.sent_ns + answer.valid_ns;
    return lock_client_now_ns() < held->end_ns;
}

/* The last thing that a former holder does: a write that must be refused after the lock was released. */
static void holder_write_late(struct holder *holder, const struct lock_held *held, bool was_released)
{
    struct lock_answer answer = holder_write(holder, held);

    if (was_released)
        ck_assert_msg(answer.reply != LOCK_REPLY_OK, "a write with the token of a released lock was committed");
}

static void holder_leave(struct holder *holder, struct lock_held *held)
{
    held->end_ns = least(held->end_ns, lock_client_now_ns());
    if (holder_random(holder, 5) == 0) {
        lock_client_close(&holder->client);
        return;
    }
    struct lock_answer answer =
        lock_client_call(&holder->client, RELEASE_MS, &is_over, "lock.release", "['%s', 'lock.%u', %llu]", bucket,
                         held->lock, (unsigned long long)held->token);
    if (answer.reply == LOCK_REPLY_ERROR)
        ck_assert_msg(holder->client.lost_token == held->token, "a lock that was not lost: %s: %s", answer.code,
                      answer.message);
    if (answer.reply == LOCK_REPLY_OK && holder_random(holder, 3) == 0)
        holder_write_late(holder, held, true);
    else if (answer.reply == LOCK_REPLY_ENDED || answer.reply == LOCK_REPLY_SILENCE)
        lock_client_close(&holder->client);
}

static void holder_hold(struct holder *holder, struct lock_held *held)
{
    unsigned turns = 1 + holder_random(holder, 4);

    for (unsigned i = 0; i < turns; i++) {
        bool is_held = holder_check(holder, held);
        if (holder->client.socket < 0)
            return;
        if (!is_held) {
            holder_write_late(holder, held, false);
            return;
        }
        if (i == 0) { /* the wait for the lock may have taken longer than it is vouched for; now it is known */
            __atomic_add_fetch(&counts[held->lock], 1, __ATOMIC_SEQ_CST);
            __atomic_add_fetch(&counts_by[holder->daemon], 1, __ATOMIC_SEQ_CST);
        }
        holder_write(holder, held);
        lock_client_listen(&holder->client, holder_random(holder, 10));
        if (holder->client.lost_token == held->token) {
            held->end_ns = least(held->end_ns, holder->client.lost_ns);
            holder_write_late(holder, held, false);
            return;
        }
    }
    holder_leave(holder, held);
}

/* --- Life ------------------------------------------------------------------------------------------ */

static void holder_acquire(struct holder *holder)
{
    unsigned lock = holder_random(holder, LOCK_HOLDERS_LOCKS);
    struct lock_answer answer = lock_client_call(&holder->client, ACQUIRE_MS, &is_over, "lock.acquire",
                                                 "['%s', 'lock.%u', {'wait': 5, 'timeout': 5}]", bucket, lock);

    if (answer.reply == LOCK_REPLY_OK) {
        struct lock_held *held = holder_add_held(holder);
        *held = (struct lock_held){.lock = lock,
                                   .client = holder->number,
                                   .token = answer.token,
                                   .begin_ns = answer.received_ns,
                                   .end_ns = answer.sent_ns + answer.valid_ns};
        holder_hold(holder, held);
    } else if (answer.reply == LOCK_REPLY_ERROR) {
        bool is_known = strcmp(answer.code, "locked") == 0 || strcmp(answer.code, "unavailable") == 0 ||
                        strcmp(answer.code, "deadline_exceeded") == 0;
        ck_assert_msg(is_known, "%s: %s", answer.code, answer.message);
        pause_shortly();
    } else {
        lock_client_close(&holder->client);
    }
}

static void *run_holder(void *arg)
{
    struct holder *holder = arg;

    holder->client.socket = -1;
    while (!__atomic_load_n(&is_over, __ATOMIC_RELAXED)) {
        bool is_open = holder->client.socket >= 0 ||
                       lock_client_connect(&holder->client, deployments[holder->daemon].daemon.socket_path);
        if (is_open)
            holder_acquire(holder);
        else
            pause_shortly();
    }
    lock_client_close(&holder->client);
    return NULL;
}

void lock_holders_begin(struct deployment *given, const char *name)
{
    const char *seed = getenv("LOCK_SEED");

    deployments = given;
    bucket = name;
    for (unsigned i = 0; i < HOLDERS; i++) {
        holders[i].number = i;
        holders[i].daemon = i % LOCK_HOLDERS_DAEMONS;
        holders[i].seed = (seed != NULL ? (unsigned)atoi(seed) * HOLDERS : 0) + i + 1;
        ck_assert_int_eq(pthread_create(&holders[i].thread, NULL, run_holder, &holders[i]), 0);
    }
}

void lock_holders_end_and_check(void)
{
    size_t held_count = 0, fenced_count = 0, sure = 0;

    __atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < HOLDERS; i++) {
        pthread_join(holders[i].thread, NULL);
        held_count += holders[i].held_count;
        fenced_count += holders[i].fenced_count;
    }
    struct lock_held *held = keep(calloc(held_count + 1, sizeof(*held)));
    struct lock_fenced *fenced = keep(calloc(fenced_count + 1, sizeof(*fenced)));
    held_count = fenced_count = 0;
    for (unsigned i = 0; i < HOLDERS; i++) {
        for (size_t j = 0; j < holders[i].held_count; j++) {
            held[held_count++] = holders[i].held[j];
            sure += holders[i].held[j].end_ns > holders[i].held[j].begin_ns;
        }
        for (size_t j = 0; j < holders[i].fenced_count; j++)
            fenced[fenced_count++] = holders[i].fenced[j];
        free(holders[i].held);
        free(holders[i].fenced);
    }
    const char *wrong = lock_check(held, held_count, fenced, fenced_count);
    ck_assert_msg(wrong == NULL, "%s", wrong);
    printf("locks: %zu holdings, %zu of them vouched for, %zu writes with tokens\n", held_count, sure, fenced_count);
    ck_assert_uint_gt(sure, 0);
    ck_assert_uint_gt(fenced_count, 0);
}

void lock_holders_note_kill(unsigned daemon)
{
    __atomic_store_n(&killed_ns[daemon], lock_client_now_ns(), __ATOMIC_SEQ_CST);
}

unsigned lock_holders_count(unsigned lock)
{
    return __atomic_load_n(&counts[lock], __ATOMIC_SEQ_CST);
}

unsigned lock_holders_count_by(unsigned daemon)
{
    return __atomic_load_n(&counts_by[daemon], __ATOMIC_SEQ_CST);
}
