/*
 * loop: libuv in simulated time.
 *
 * The daemon is linked with these functions instead of libuv's. There are those that its simulated rooms use: the
 * loop's time, timers, handles, work for threads, and the streams of sessions (see pipe). A turn has the order of
 * libuv's: timers, then what has come from outside, then the end of the turn, then closed handles.
 */
#ifndef SIM_LOOP_H
#define SIM_LOOP_H

#include "tests/sim/doors.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct loop;

/*
 * Make uv a loop, whose time is CLOCK_MONOTONIC of these clocks, borrowed. on_turn and on_turn_end are called at the
 * beginning and at the end of each turn; on_turn_end returns whether another turn must follow at once.
 */
struct loop *loop_new(uv_loop_t *uv, const struct clocks *clocks, void (*on_turn)(void *arg),
                      bool (*on_turn_end)(void *arg), void *arg);

/*
 * Break off a turn after this number of steps (0: never), as if the process was killed. Then broken is called, which
 * must free the loop. Only steps within turns are counted.
 */
void loop_break_after(struct loop *loop, unsigned steps, void (*broken)(void *arg), void *arg);

/* In a turn: a step that others can see. It may be the last one, and not return. */
void loop_step(void);

/*
 * A piece of work in the present turn: an event, an allocation, a message from or to NATS, a write to a client. A turn
 * that does more than LOOP_WORK_MAX keeps the others waiting: world_fail.
 */
#define LOOP_WORK_MAX 10000u
void loop_note_work(void);

/* Take no further turn. Handles are not closed: their owners free them. */
void loop_free(struct loop *loop);

struct loop *loop_of(const uv_loop_t *uv);

/* Call act in the loop's next turn, unless the loop is freed before. */
void loop_post(struct loop *loop, void (*act)(void *arg), void *arg);

/* The loop's process is stopped until until_ns: it takes no turn before. */
void loop_suspend(struct loop *loop, uint64_t until_ns);

/* Set how long each call of uv_hrtime takes. Without that, simulated work takes no time, and no slice ends. */
void loop_set_pace(uint64_t ns);

/* At the world's end: free the loops that are over. */
void loop_forget_all(void);

/* Return whether a handle is open, or waits for its close callback. */
bool loop_has_handles(const struct loop *loop);

/* For pipe: count a handle. */
void loop_count_handle(struct loop *loop);

#endif
