/*
 * patience: time, and how long a test waits for an event.
 *
 * A test never waits for a time to pass. It waits for an event or a state, and PATIENCE_MS ends the wait if that does
 * not come. It is so long that only a fault reaches it, also on a machine that is busy with something else.
 */
#ifndef SUPPORT_PATIENCE_H
#define SUPPORT_PATIENCE_H

#include <check.h>
#include <stdint.h>

/*
 * The limit of a wait. The same for a whole program of tests, whose main may choose another one: it must be longer than
 * the timeout of the daemon's calls, so that a test sees the call's error.
 */
#define PATIENCE_MS patience_chosen_ms
extern unsigned patience_chosen_ms;

uint64_t now_ms(void);
uint64_t now_ns(void);

/* Sleep between two looks at something that must come. */
void pause_shortly(void);

/* Wait until the condition holds. Otherwise the test fails, and its message names what. */
#define wait_until(condition, what)                                                                                    \
    do {                                                                                                               \
        uint64_t wait_until_end = now_ms() + PATIENCE_MS;                                                              \
        while (!(condition)) {                                                                                         \
            ck_assert_msg(now_ms() < wait_until_end, "timed out waiting for %s", what);                                \
            pause_shortly();                                                                                           \
        }                                                                                                              \
    } while (0)

#endif
