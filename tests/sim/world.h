/*
 * world: the time, the chance and the events of one simulated run.
 *
 * There is one world at a time, and one thread. Whatever happens in it is an event, at a time of its own; chance comes
 * from the seed alone. So a run with the same seed is the same run. What happens is traced: the trace's hash shows
 * whether two runs were the same, and TRACE=1 prints it.
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#define WORLD_MS     1000000ull /* in nanoseconds */
#define WORLD_SECOND 1000000000ull

/* Begin a world. Its time starts at one second, and its date is the first of January 2026. */
void world_begin(uint64_t seed, bool is_printed);
void world_end(void);

/* --- Time ------------------------------------------------------------------------------------------ */

/* Nanoseconds since the world began, never 0. */
uint64_t world_now_ns(void);

/* Advance the time by what a computation takes. Events that are due meanwhile happen after it. */
void world_spend(uint64_t ns);

/* The wall clock, in nanoseconds since the epoch. world_step_epoch sets it forward or back. */
int64_t world_epoch_ns(void);
void world_step_epoch(int64_t by_ns);

/* --- Events ---------------------------------------------------------------------------------------- */

/* Call happen at this time, or now if it is past. Events of one time happen in the order in which they were made. */
void world_at(uint64_t at_ns, void (*happen)(void *arg), void *arg);
void world_after(uint64_t ns, void (*happen)(void *arg), void *arg);

/* Let the next event happen if it is due before until_ns. Return false if there is none. */
bool world_go_on(uint64_t until_ns);

/* Return the number of events that have happened. */
uint64_t world_events(void);

/* --- Chance ---------------------------------------------------------------------------------------- */

uint64_t world_random(void);

/* A number below count, which is not 0. */
uint64_t world_below(uint64_t count);
uint64_t world_between(uint64_t least, uint64_t most);
bool world_chance(unsigned per_mille);

/* Return the place of one of count weights, the heavier the more often; count: all are 0. */
unsigned world_choose(const unsigned *weights, unsigned count);

/* --- Trace ----------------------------------------------------------------------------------------- */

void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t world_trace_hash(void);
bool world_is_printed(void);

/* The run has shown a fault: print what, and end the process. */
void world_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* The seed of this world. */
uint64_t world_seed(void);

#endif
