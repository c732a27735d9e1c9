#include "tests/fault/lock_holders.h"

#include "tests/fault/lock_client.h"
#include "tests/support/process.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct process processes[LOCK_HOLDERS];
static struct lock_board *board;
static int board_descriptor;

/* Call what for each holder of a daemon. */
static void each_of(unsigned daemon, void (*what)(unsigned holder))
{
    for (unsigned i = daemon; i < LOCK_HOLDERS; i += LOCK_HOLDERS_DAEMONS)
        what(i);
}

/* --- Life ------------------------------------------------------------------------------------------ */

static void start_one(unsigned holder)
{
    char number[16];
    char *const arguments[] = {"/proc/self/exe", LOCK_HOLDER_ARGUMENT, number, NULL};

    snprintf(number, sizeof(number), "%u", holder);
    board->seeds[holder] += LOCK_HOLDERS;
    process_start_with(&processes[holder], arguments, NULL, board_descriptor);
}

/* Its last holding ends with it. */
static void kill_one(unsigned holder)
{
    struct lock_holder_notes *notes = &board->notes[holder];
    uint64_t killed_ns = lock_client_now_ns();

    process_kill(&processes[holder]);
    if (notes->held_count > 0 && notes->held[notes->held_count - 1].end_ns > killed_ns)
        notes->held[notes->held_count - 1].end_ns = killed_ns;
}

static void suspend_one(unsigned holder)
{
    pid_suspend(processes[holder].pid);
}

static void resume_one(unsigned holder)
{
    pid_resume(processes[holder].pid);
}

void lock_holders_kill(unsigned daemon)
{
    each_of(daemon, kill_one);
}

void lock_holders_start(unsigned daemon)
{
    each_of(daemon, start_one);
}

void lock_holders_suspend(unsigned daemon)
{
    each_of(daemon, suspend_one);
}

void lock_holders_resume(unsigned daemon)
{
    each_of(daemon, resume_one);
}

pid_t lock_holders_pid(unsigned holder)
{
    return processes[holder].pid;
}

void lock_holders_begin(const struct deployment *deployments, const char *bucket)
{
    const char *seed = getenv("LOCK_SEED");
    char directory[PATH_BYTES];

    board_descriptor = memfd_create("lock board", MFD_CLOEXEC);
    ck_assert_int_ge(board_descriptor, 0);
    ck_assert_int_eq(ftruncate(board_descriptor, sizeof(*board)), 0);
    board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED, board_descriptor, 0);
    ck_assert_ptr_ne(board, MAP_FAILED);
    snprintf(board->bucket, sizeof(board->bucket), "%s", bucket);
    test_run_make_directory(directory);
    for (unsigned i = 0; i < LOCK_HOLDERS_DAEMONS; i++)
        snprintf(board->socket_paths[i], PATH_BYTES, "%s", deployments[i].daemon.socket_path);
    for (unsigned i = 0; i < LOCK_HOLDERS; i++) {
        board->seeds[i] = (seed != NULL ? (unsigned)atoi(seed) * LOCK_HOLDERS * 1000 : 0) + i;
        snprintf(processes[i].log_path, PATH_BYTES, "%.200s/holder.%u", directory, i);
        start_one(i);
    }
}

/* --- What they note -------------------------------------------------------------------------------- */

static void check_that_none_has_ended(void)
{
    for (unsigned i = 0; i < LOCK_HOLDERS; i++) {
        if (processes[i].pid != 0)
            ck_assert_msg(!process_has_ended(&processes[i]), "holder %u: %s", i, read_file(processes[i].log_path));
    }
}

void lock_holders_note_kill(unsigned daemon)
{
    __atomic_store_n(&board->killed_ns[daemon], lock_client_now_ns(), __ATOMIC_SEQ_CST);
}

unsigned lock_holders_count(unsigned lock)
{
    check_that_none_has_ended();
    return __atomic_load_n(&board->counts[lock], __ATOMIC_SEQ_CST);
}

unsigned lock_holders_count_by(unsigned daemon)
{
    check_that_none_has_ended();
    return __atomic_load_n(&board->counts_by[daemon], __ATOMIC_SEQ_CST);
}

void lock_holders_end_and_check(void)
{
    size_t held_count = 0, fenced_count = 0, sure = 0;

    check_that_none_has_ended();
    __atomic_store_n(&board->is_over, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < LOCK_HOLDERS; i++) {
        process_wait(&processes[i]);
        ck_assert_msg(processes[i].status == 0, "holder %u: %s", i, read_file(processes[i].log_path));
        held_count += board->notes[i].held_count;
        fenced_count += board->notes[i].fenced_count;
    }
    struct lock_held *held = keep(calloc(held_count + 1, sizeof(*held)));
    struct lock_fenced *fenced = keep(calloc(fenced_count + 1, sizeof(*fenced)));
    held_count = fenced_count = 0;
    for (unsigned i = 0; i < LOCK_HOLDERS; i++) {
        const struct lock_holder_notes *notes = &board->notes[i];
        memcpy(held + held_count, notes->held, notes->held_count * sizeof(*held));
        memcpy(fenced + fenced_count, notes->fenced, notes->fenced_count * sizeof(*fenced));
        held_count += notes->held_count;
        fenced_count += notes->fenced_count;
    }
    for (size_t i = 0; i < held_count; i++)
        sure += held[i].end_ns > held[i].begin_ns;
    const char *wrong = lock_check(held, held_count, fenced, fenced_count);
    ck_assert_msg(wrong == NULL, "%s", wrong);
    printf("locks: %zu holdings, %zu of them vouched for, %zu writes with tokens\n", held_count, sure, fenced_count);
    ck_assert_uint_gt(sure, 0);
    ck_assert_uint_gt(fenced_count, 0);
}
