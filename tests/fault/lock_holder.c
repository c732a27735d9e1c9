#include "tests/fault/lock_holder.h"

#include "tests/fault/lock_client.h"
#include "tests/support/patience.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BOARD_DESCRIPTOR 3

/* How long a holder waits for answers. A daemon that is stopped does not answer. */
#define ACQUIRE_MS 6000u
#define CHECK_MS   300u
#define RELEASE_MS 2000u

struct holder {
    unsigned number, daemon, seed;
    struct lock_client client;
    struct lock_board *board;
    struct lock_holder_notes *notes;
};

static uint64_t least(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

static unsigned holder_random(struct holder *holder, unsigned range)
{
    return (unsigned)rand_r(&holder->seed) % range;
}

static struct lock_held *holder_note_held(struct holder *holder, struct lock_held held)
{
    struct lock_holder_notes *notes = holder->notes;
    size_t place = notes->held_count;

    ck_assert_msg(place < LOCK_HOLDER_HELD_MAX, "no room for more holdings");
    notes->held[place] = held;
    __atomic_store_n(&notes->held_count, place + 1, __ATOMIC_SEQ_CST);
    return &notes->held[place];
}

static void holder_note_fenced(struct holder *holder, const struct lock_held *held, uint64_t revision)
{
    struct lock_holder_notes *notes = holder->notes;
    size_t place = notes->fenced_count;

    ck_assert_msg(place < LOCK_HOLDER_FENCED_MAX, "no room for more writes");
    notes->fenced[place] =
        (struct lock_fenced){.lock = held->lock, .client = holder->number, .token = held->token, .revision = revision};
    __atomic_store_n(&notes->fenced_count, place + 1, __ATOMIC_SEQ_CST);
}

/* --- One holding ----------------------------------------------------------------------------------- */

static struct lock_answer holder_write(struct holder *holder, const struct lock_held *held)
{
    struct lock_answer answer =
        lock_client_call(&holder->client, CHECK_MS, &holder->board->is_over, "txn.commit",
                         "['%s', [['lock.%u', %llu]], [['put', 'data.%u', '%llu']]]", holder->board->bucket, held->lock,
                         (unsigned long long)held->token, held->lock, (unsigned long long)held->token);

    if (answer.reply == LOCK_REPLY_OK)
        holder_note_fenced(holder, held, answer.revision);
    return answer;
}

/* Return the time by which the session had surely ended. */
static uint64_t holder_session_end(const struct holder *holder, const struct lock_held *held)
{
    uint64_t killed = __atomic_load_n(&holder->board->killed_ns[holder->daemon], __ATOMIC_SEQ_CST);

    return killed > held->begin_ns ? killed : lock_client_now_ns();
}

/* Ask whether the lock is still held. Return false if it is not; then held->end_ns says since when. */
static bool holder_check(struct holder *holder, struct lock_held *held)
{
    struct lock_answer answer =
        lock_client_call(&holder->client, CHECK_MS, &holder->board->is_over, "lock.check", "['%s', 'lock.%u', %llu]",
                         holder->board->bucket, held->lock, (unsigned long long)held->token);

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
        lock_client_call(&holder->client, RELEASE_MS, &holder->board->is_over, "lock.release",
                         "['%s', 'lock.%u', %llu]", holder->board->bucket, held->lock, (unsigned long long)held->token);
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
            if (holder->client.lost_token != held->token) /* the session may still hold it */
                lock_client_close(&holder->client);
            return;
        }
        if (i == 0) { /* the wait for the lock may have taken longer than it is vouched for; now it is known */
            __atomic_add_fetch(&holder->board->counts[held->lock], 1, __ATOMIC_SEQ_CST);
            __atomic_add_fetch(&holder->board->counts_by[holder->daemon], 1, __ATOMIC_SEQ_CST);
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
    struct lock_answer answer =
        lock_client_call(&holder->client, ACQUIRE_MS, &holder->board->is_over, "lock.acquire",
                         "['%s', 'lock.%u', {'wait': 5, 'timeout': 5}]", holder->board->bucket, lock);

    if (answer.reply == LOCK_REPLY_OK) {
        struct lock_held held = {.lock = lock,
                                 .client = holder->number,
                                 .token = answer.token,
                                 .begin_ns = answer.received_ns,
                                 .end_ns = answer.sent_ns + answer.valid_ns};
        holder_hold(holder, holder_note_held(holder, held));
    } else if (answer.reply == LOCK_REPLY_ERROR) {
        bool is_known = strcmp(answer.code, "locked") == 0 || strcmp(answer.code, "unavailable") == 0 ||
                        strcmp(answer.code, "deadline_exceeded") == 0;
        ck_assert_msg(is_known, "%s: %s", answer.code, answer.message);
        pause_shortly();
    } else {
        lock_client_close(&holder->client);
    }
}

static unsigned number;

/* Check's assertions need a test. */
START_TEST(hold_locks)
{
    struct lock_board *board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED, BOARD_DESCRIPTOR, 0);
    struct holder holder = {.number = number, .daemon = number % LOCK_HOLDERS_DAEMONS, .client.socket = -1};

    ck_assert_ptr_ne(board, MAP_FAILED);
    holder.board = board;
    holder.seed = board->seeds[number];
    holder.notes = &board->notes[number];
    while (!__atomic_load_n(&board->is_over, __ATOMIC_RELAXED)) {
        bool is_open =
            holder.client.socket >= 0 || lock_client_connect(&holder.client, board->socket_paths[holder.daemon]);
        if (is_open)
            holder_acquire(&holder);
        else
            pause_shortly();
    }
    lock_client_close(&holder.client);
}
END_TEST

int lock_holder_main(const char *text)
{
    Suite *suite = suite_create("lock holder");
    TCase *tests = tcase_create("lock holder");

    number = (unsigned)atoi(text);
    /* They select tests of the program that has started this one. */
    unsetenv("CK_RUN_SUITE");
    unsetenv("CK_RUN_CASE");
    unsetenv("CK_XML_LOG_FILE_NAME");
    tcase_add_test(tests, hold_locks);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_MINIMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
