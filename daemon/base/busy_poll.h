/*
 * busy_poll: how the loop waits for the next message.
 *
 * Used by main. To go to sleep and be woken costs more than a cached read: some 10 us on each side, and several times
 * that on a virtual machine, whose processor halts. So where messages come one after the other in a pace
 * of at most BUSY_POLL_MAX_US, as from one client that waits for each answer, the loop looks for the next one without
 * sleeping. It follows the rule of the kernel's haltpoll governor: the time that it looks grows while messages come
 * within it, and is nothing as soon as one takes longer. It never looks while many calls are in flight or many messages
 * come at a time, for then NATS and the clients have better use for the processor, nor where somebody else wants it.
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
    uint64_t window_ns;    /* how long to look */
    uint64_t last_work_ns; /* when something came last */
    uint64_t last_turn_ns;
    uint64_t quiet_until_ns;
    unsigned crowd; /* sockets that had something in a turn, of late: 16 for one */
};

void busy_poll_init(struct busy_poll *poll, uv_loop_t *loop);

/*
 * Allows it, or not: at the start and after each reload. Where the daemon has one processor only, or a
 * control group grants it less than two, it never polls.
 */
void busy_poll_allow(struct busy_poll *poll, bool is_wanted);

/* At the end of each turn: how many sockets had something to read in it, the calls in flight, the time (uv_hrtime). */
void busy_poll_turn(struct busy_poll *poll, uint64_t sockets, unsigned calls, uint64_t now_ns);

/* Processors that the daemon may use: by its affinity mask and by the cpu.max of its control groups (version 2). */
double busy_poll_processors(void);

#endif
