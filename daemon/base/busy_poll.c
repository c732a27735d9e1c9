#include "daemon/base/busy_poll.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW_MAX_NS   (BUSY_POLL_MAX_US * 1000u)
#define WINDOW_START_NS 20000u

/* A turn without work takes about a microsecond. In one of this length somebody else had the processor. */
#define PREEMPTED_NS 20000u
/* The pause lasts this many times as long. */
#define QUIET_TIMES 8u

/* In sixteenths: from two sockets in a turn on, there is always something to do. */
#define CROWD_ONE 16u
#define CROWD_MAX 28u

/* With more calls in flight, it is not a single client that waits. */
#define CALLS_MAX 2u

#define CGROUP_ROOT "/sys/fs/cgroup"

/* --- Processors ------------------------------------------------------------------------------------ */

/* cpu.max: "max 100000", or the microseconds granted of a period (cgroup-v2). */
static double granted_by(const char *directory)
{
    char path[1024], quota[32] = "max";
    unsigned long period = 0;
    double granted = 0;

    if ((size_t)snprintf(path, sizeof(path), "%s/cpu.max", directory) >= sizeof(path))
        return 0;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%31s %lu", quota, &period) == 2 && strcmp(quota, "max") != 0 && period > 0)
        granted = strtod(quota, NULL) / (double)period;
    fclose(file);
    return granted;
}

/* The least that our control group and those above it grant; 0 where none has a limit. */
static double granted_by_cgroups(void)
{
    char line[768], directory[1024];
    double least = 0;
    FILE *file = fopen("/proc/self/cgroup", "re");

    if (file == NULL)
        return 0;
    while (fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, "0::/", 4) != 0)
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(directory, sizeof(directory), CGROUP_ROOT "%s", line + 3);
        while (strlen(directory) >= strlen(CGROUP_ROOT)) {
            double granted = granted_by(directory);
            if (granted > 0 && (least == 0 || granted < least))
                least = granted;
            *strrchr(directory, '/') = '\0';
        }
    }
    fclose(file);
    return least;
}

double busy_poll_processors(void)
{
    cpu_set_t set;
    double granted = granted_by_cgroups();
    double count = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 2;

    return granted > 0 && granted < count ? granted : count;
}

/* --- Turns ----------------------------------------------------------------------------------------- */

static void on_idle(uv_idle_t *idle)
{
    (void)idle; /* that it is active keeps the loop from sleeping */
}

void busy_poll_init(struct busy_poll *poll, uv_loop_t *loop)
{
    memset(poll, 0, sizeof(*poll));
    uv_idle_init(loop, &poll->idle);
}

static void set_polling(struct busy_poll *poll, bool is_polling)
{
    if (poll->is_polling == is_polling)
        return;
    poll->is_polling = is_polling;
    if (is_polling)
        uv_idle_start(&poll->idle, on_idle);
    else
        uv_idle_stop(&poll->idle);
}

void busy_poll_allow(struct busy_poll *poll, bool is_wanted)
{
    poll->is_allowed = is_wanted && busy_poll_processors() >= 2;
    if (!poll->is_allowed)
        set_polling(poll, false);
}

static void note_work(struct busy_poll *poll, uint64_t now_ns, uint64_t sockets)
{
    uint64_t gap_ns = now_ns - poll->last_work_ns;
    unsigned crowd = sockets < 16 ? (unsigned)sockets * CROWD_ONE : 16 * CROWD_ONE;

    if (gap_ns > WINDOW_MAX_NS)
        poll->window_ns = 0;
    else
        poll->window_ns = poll->window_ns == 0 ? WINDOW_START_NS : poll->window_ns * 2;
    if (poll->window_ns > WINDOW_MAX_NS)
        poll->window_ns = WINDOW_MAX_NS;
    poll->crowd = (7 * poll->crowd + crowd + 4) / 8;
    poll->last_work_ns = now_ns;
}

void busy_poll_turn(struct busy_poll *poll, uint64_t sockets, unsigned calls, uint64_t now_ns)
{
    if (!poll->is_allowed)
        return;
    if (sockets > 0) {
        note_work(poll, now_ns, sockets);
    } else if (poll->is_polling && now_ns - poll->last_turn_ns > PREEMPTED_NS) {
        poll->window_ns = 0;
        poll->quiet_until_ns = now_ns + QUIET_TIMES * (now_ns - poll->last_turn_ns);
    }
    poll->last_turn_ns = now_ns;
    set_polling(poll, now_ns - poll->last_work_ns < poll->window_ns && calls <= CALLS_MAX && poll->crowd <= CROWD_MAX &&
                          now_ns >= poll->quiet_until_ns);
}
