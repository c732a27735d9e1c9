/*
 * busy_poll: how the loop waits for the next message.
 *
 * Used by main. To sleep and be woken costs more than a cached read: some 10 us on each side, and several times that on
 * a virtual machine, whose processor halts. A client that waits for each answer sends one message after the other, at
 * most BUSY_POLL_MAX_US apart. Then the loop polls for the next one instead of sleeping. It follows the rule of the
 * kernel's haltpoll governor: the time for which it polls grows while messages arrive within it, and becomes 0 when one
 * takes longer. It does not poll while many calls are in flight or many messages arrive at a time, because then NATS
 * and the clients need the processor, nor while another process wants the processor.
 */
#ifndef DAEMON_BUSY_POLL_H
#define DAEMON_BUSY_POLL_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define BUSY_POLL_MAX_US 150u

struct busy_poll {
    uv_idle_t idle; /* active while the loop must not sleep */
    bool is_allowed;
    bool is_polling;
    uint64_t window_ns;    /* how long to poll */
    uint64_t last_work_ns; /* when something came last */
    uint64_t last_turn_ns;
    uint64_t quiet_until_ns;
    unsigned crowd; /* recent number of sockets that had something in a turn, times 16 */
};

void busy_poll_init(struct busy_poll *poll, uv_loop_t *loop);

/*
 * Allow polling, or not: at the start and after each reload. If the daemon has only one processor, or its control
 * group grants it less than two, it never polls.
 */
void busy_poll_allow(struct busy_poll *poll, bool is_wanted);

/* At the end of each turn: how many sockets had something to read in it, the calls in flight, the time (uv_hrtime). */
void busy_poll_turn(struct busy_poll *poll, uint64_t sockets, unsigned calls, uint64_t now_ns);

/* Return the number of processors that the daemon may use: by its affinity mask and by the cpu.max of its control
 * groups (version 2). */
double busy_poll_processors(void);

#endif
