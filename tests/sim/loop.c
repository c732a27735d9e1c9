#include "tests/sim/loop.h"

#include "tests/sim/memory.h"
#include "tests/sim/pipe.h"
#include "tests/sim/world.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

/* Something that has come from outside. */
struct input {
    struct input *next;
    void (*act)(void *arg);
    void *arg;
};

struct loop {
    struct loop *next; /* in the list of freed loops: events may still point to them until the world ends */
    uv_loop_t *uv;
    const struct clocks *clocks;
    void (*on_turn)(void *arg);
    bool (*on_turn_end)(void *arg);
    void *arg;
    bool is_over;
    bool in_turn;
    uint64_t now_ms;
    uint64_t resumes_ns;
    uint64_t turn_at_ns; /* of the earliest turn that is due; 0: none */
    struct input *first, **last;
    uv_timer_t *timers; /* in the order in which they expire */
    uv_handle_t *closing;
    unsigned handles;
    unsigned steps; /* until the turn is broken off; 0: it is not */
    bool is_broken;
    void (*broken)(void *arg);
    void *broken_arg;
    jmp_buf break_off;
};

/* The loop whose turn it is; NULL: it is none's. */
static struct loop *present;

/* The work of the present turn: see loop_note_work. */
static uint64_t turn_work;

static uint64_t pace_ns = 100;

/* --- Turns ----------------------------------------------------------------------------------------- */

/* What libuv keeps in a handle, this loop keeps in the places that libuv reserves in it. */
#define NEXT(handle)         (*(uv_timer_t **)&(handle)->u.reserved[0])
#define IS_ACTIVE(handle)    ((handle)->u.reserved[1])
#define IS_CLOSING(handle)   ((handle)->u.reserved[2])
#define NEXT_CLOSING(handle) (*(uv_handle_t **)&(handle)->u.reserved[3])

static void loop_take_turn(void *arg);

static void loop_wake_at(struct loop *loop, uint64_t at_ns)
{
    if (loop->is_over)
        return;
    if (at_ns < loop->resumes_ns)
        at_ns = loop->resumes_ns;
    if (loop->turn_at_ns != 0 && loop->turn_at_ns <= at_ns)
        return;
    loop->turn_at_ns = at_ns;
    world_at(at_ns, loop_take_turn, loop);
}

static void loop_run_timers(struct loop *loop)
{
    while (loop->timers != NULL && loop->timers->timeout <= loop->now_ms && !loop->is_over) {
        uv_timer_t *timer = loop->timers;
        uv_timer_stop(timer);
        if (timer->repeat > 0)
            uv_timer_start(timer, timer->timer_cb, timer->repeat, timer->repeat);
        loop_note_work();
        timer->timer_cb(timer);
    }
}

static void loop_run_inputs(struct loop *loop)
{
    /* What comes during the turn waits for the next one. */
    struct input *inputs = loop->first;

    loop->first = NULL;
    loop->last = &loop->first;
    while (inputs != NULL) {
        struct input *input = inputs;
        inputs = input->next;
        loop_note_work();
        if (!loop->is_over)
            input->act(input->arg);
        free(input);
    }
}

static void loop_close_handles(struct loop *loop)
{
    while (loop->closing != NULL) {
        uv_handle_t *handle = loop->closing;
        loop->closing = NEXT_CLOSING(handle);
        loop->handles--;
        if (handle->type == UV_NAMED_PIPE)
            pipe_finish_closing((uv_pipe_t *)handle);
        if (handle->close_cb != NULL)
            handle->close_cb(handle);
    }
}

void loop_break_after(struct loop *loop, unsigned steps, void (*broken)(void *arg), void *arg)
{
    loop->steps = steps;
    loop->broken = broken;
    loop->broken_arg = arg;
}

void loop_step(void)
{
    struct loop *loop = present;

    if (loop == NULL || loop->steps == 0 || --loop->steps > 0)
        return;
    loop->is_broken = true;
    longjmp(loop->break_off, 1);
}

void loop_note_work(void)
{
    if (present != NULL && ++turn_work > LOOP_WORK_MAX)
        world_fail("a turn of a daemon's loop does more than %u pieces of work", LOOP_WORK_MAX);
}

/* Return whether another turn must follow at once. */
static bool loop_run_turn(struct loop *loop)
{
    loop->on_turn(loop->arg);
    loop_run_timers(loop);
    loop_run_inputs(loop);
    bool has_more = !loop->is_over && loop->on_turn_end(loop->arg);
    if (!loop->is_over)
        loop_close_handles(loop);
    return has_more;
}

static void loop_take_turn(void *arg)
{
    struct loop *loop = arg;

    /* An earlier turn took this one's place, or the process was stopped since. */
    if (loop->is_over || loop->turn_at_ns == 0 || world_now_ns() < loop->turn_at_ns)
        return;
    loop->turn_at_ns = 0;
    if (world_now_ns() < loop->resumes_ns) {
        loop_wake_at(loop, loop->resumes_ns);
        return;
    }
    loop->now_ms = clocks_monotonic_ns(loop->clocks) / WORLD_MS;
    loop->in_turn = true;
    present = loop;
    turn_work = 0;
    bool has_more = setjmp(loop->break_off) == 0 && loop_run_turn(loop);
    present = NULL;
    loop->in_turn = false;
    if (loop->is_broken)
        loop->broken(loop->broken_arg);
    if (loop->is_over)
        return;
    if (has_more || loop->first != NULL)
        loop_wake_at(loop, world_now_ns() + 1000);
    else if (loop->timers != NULL)
        loop_wake_at(loop, clocks_world_ns(loop->clocks, loop->timers->timeout * WORLD_MS));
}

void loop_post(struct loop *loop, void (*act)(void *arg), void *arg)
{
    if (loop->is_over)
        return;
    struct input *input = memory_new(sizeof(*input));
    *input = (struct input){NULL, act, arg};
    *loop->last = input;
    loop->last = &input->next;
    if (!loop->in_turn)
        loop_wake_at(loop, world_now_ns());
}

void loop_suspend(struct loop *loop, uint64_t until_ns)
{
    loop->resumes_ns = until_ns;
}

void loop_set_pace(uint64_t ns)
{
    pace_ns = ns;
}

/* --- Life ------------------------------------------------------------------------------------------ */

struct loop *loop_new(uv_loop_t *uv, const struct clocks *clocks, void (*on_turn)(void *arg),
                      bool (*on_turn_end)(void *arg), void *arg)
{
    struct loop *loop = memory_new(sizeof(*loop));

    *loop = (struct loop){.uv = uv, .on_turn = on_turn, .on_turn_end = on_turn_end, .arg = arg, .clocks = clocks};
    loop->now_ms = clocks_monotonic_ns(clocks) / WORLD_MS;
    loop->resumes_ns = clocks->suspended_until_ns;
    loop->last = &loop->first;
    memset(uv, 0, sizeof(*uv));
    uv->data = loop;
    loop_wake_at(loop, world_now_ns());
    return loop;
}

static struct loop *over;

void loop_free(struct loop *loop)
{
    loop->is_over = true;
    while (loop->first != NULL) {
        struct input *input = loop->first;
        loop->first = input->next;
        free(input);
    }
    loop->last = &loop->first;
    loop->next = over;
    over = loop;
}

void loop_forget_all(void)
{
    while (over != NULL) {
        struct loop *loop = over;
        over = loop->next;
        free(loop);
    }
}

struct loop *loop_of(const uv_loop_t *uv)
{
    return uv->data;
}

bool loop_has_handles(const struct loop *loop)
{
    return loop->handles > 0;
}

void loop_count_handle(struct loop *loop)
{
    loop->handles++;
}

static void loop_note_closing(uv_handle_t *handle, uv_close_cb closed)
{
    struct loop *loop = handle->loop->data;
    uv_handle_t **end = &loop->closing;

    handle->close_cb = closed;
    IS_CLOSING(handle) = handle;
    NEXT_CLOSING(handle) = NULL;
    while (*end != NULL)
        end = &NEXT_CLOSING(*end);
    *end = handle;
    if (!loop->in_turn)
        loop_wake_at(loop, world_now_ns());
}

/* --- libuv: time and timers ------------------------------------------------------------------------ */

uint64_t uv_now(const uv_loop_t *uv)
{
    return loop_of(uv)->now_ms;
}

uint64_t uv_hrtime(void)
{
    loop_step();
    world_spend(pace_ns);
    return doors_monotonic_ns();
}

int uv_timer_init(uv_loop_t *uv, uv_timer_t *timer)
{
    void *data = timer->data;

    memset(timer, 0, sizeof(*timer));
    timer->data = data;
    timer->loop = uv;
    timer->type = UV_TIMER;
    loop_count_handle(loop_of(uv));
    return 0;
}

int uv_timer_start(uv_timer_t *timer, uv_timer_cb expired, uint64_t timeout, uint64_t repeat)
{
    struct loop *loop = loop_of(timer->loop);
    uv_timer_t **place = &loop->timers;

    uv_timer_stop(timer);
    timer->timer_cb = expired;
    timer->timeout = loop->now_ms + timeout;
    timer->repeat = repeat;
    while (*place != NULL && (*place)->timeout <= timer->timeout)
        place = &NEXT(*place);
    NEXT(timer) = *place;
    *place = timer;
    IS_ACTIVE(timer) = timer;
    if (!loop->in_turn)
        loop_wake_at(loop, clocks_world_ns(loop->clocks, timer->timeout * WORLD_MS));
    return 0;
}

int uv_timer_stop(uv_timer_t *timer)
{
    uv_timer_t **place = &loop_of(timer->loop)->timers;

    if (IS_ACTIVE(timer) == NULL)
        return 0;
    while (*place != timer)
        place = &NEXT(*place);
    *place = NEXT(timer);
    IS_ACTIVE(timer) = NULL;
    return 0;
}

/* --- libuv: handles -------------------------------------------------------------------------------- */

int uv_is_active(const uv_handle_t *handle)
{
    return IS_ACTIVE(handle) != NULL;
}

int uv_is_closing(const uv_handle_t *handle)
{
    return IS_CLOSING(handle) != NULL;
}

void uv_close(uv_handle_t *handle, uv_close_cb closed)
{
    if (handle->type == UV_TIMER)
        uv_timer_stop((uv_timer_t *)handle);
    else
        pipe_close((uv_pipe_t *)handle);
    loop_note_closing(handle, closed);
}

/* --- libuv: work for threads ----------------------------------------------------------------------- */

static void work_is_done(void *arg)
{
    uv_work_t *work = arg;

    loop_of(work->loop)->handles--;
    work->after_work_cb(work, 0);
}

static void work_is_due(void *arg)
{
    uv_work_t *work = arg;
    struct loop *loop = loop_of(work->loop);

    if (loop->is_over)
        return;
    if (loop->clocks->suspended_until_ns > world_now_ns()) {
        world_at(loop->clocks->suspended_until_ns, work_is_due, work);
        return;
    }
    work->work_cb(work);
    loop_post(loop, work_is_done, work);
}

int uv_queue_work(uv_loop_t *uv, uv_work_t *work, uv_work_cb act, uv_after_work_cb done)
{
    work->loop = uv;
    work->work_cb = act;
    work->after_work_cb = done;
    loop_of(uv)->handles++; /* the loop does not end before it */
    world_after(world_between(10000, 5 * WORLD_MS), work_is_due, work);
    return 0;
}

static void statfs_is_done(void *arg)
{
    uv_fs_t *request = arg;

    request->cb(request);
}

/* A disk with much room. */
int uv_fs_statfs(uv_loop_t *uv, uv_fs_t *request, const char *path, uv_fs_cb done)
{
    static uv_statfs_t disk = {.f_bsize = 4096, .f_blocks = 100u << 20, .f_bfree = 50u << 20, .f_bavail = 50u << 20};

    (void)path;
    request->loop = uv;
    request->result = 0;
    request->ptr = &disk;
    request->cb = done;
    loop_post(loop_of(uv), statfs_is_done, request);
    return 0;
}

void uv_fs_req_cleanup(uv_fs_t *request)
{
    (void)request;
}

int uv_cancel(uv_req_t *request)
{
    (void)request;
    return UV_EBUSY;
}

/* --- libuv: the process ---------------------------------------------------------------------------- */

uv_pid_t uv_os_getpid(void)
{
    return 1;
}

int uv_resident_set_memory(size_t *bytes)
{
    *bytes = 64u << 20;
    return 0;
}
