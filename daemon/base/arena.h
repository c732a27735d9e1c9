/*
 * arena: the memory of one call, and the tasks that run in it.
 *
 * Used by everything that works for a call. The memory is the MessagePack library's zone, so that decoded parameters
 * and our own structures share it, and it is freed as a whole.
 *
 * Everything that a call starts and does not finish at once (a read, a write, a timer, memory from malloc) is a task of
 * the call's arena. When the arena is cleared, tasks that are still there are cancelled first. So nothing uses memory
 * that was freed, however the call ended.
 */
#ifndef DAEMON_ARENA_H
#define DAEMON_ARENA_H

#include <msgpack/zone.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The owner embeds it, zeroed, in the arena's memory. */
struct arena_task {
    struct arena_task *next;
    struct arena_task **previous_link; /* what points to this task; NULL when it is not running */
    /* Stop at once, release what is held outside of the arena, and call nobody back. */
    void (*cancel)(struct arena_task *task);
    /* Return whether it could still be cancelled without a trace. NULL: it cannot. */
    bool (*is_unsent)(const struct arena_task *task);
};

struct arena {
    msgpack_zone zone;
    struct arena_task *tasks; /* the newest first */
    size_t bytes;             /* that were allocated */
    uint64_t owner;           /* the session that it serves: see fair_queue_identity; 0: none */
    uint64_t call_id;         /* of the call that it serves, for the log; 0: none */
    struct arena *caller; /* of that call, if this one is only for a part: what is at NATS counts there; NULL: none */
    /* What the call waits for at NATS (requests, batches, look-ups of buckets), and how long it has waited in all. */
    unsigned sent_count;
    uint64_t sent_since_ms; /* loop time at which sent_count left 0 */
    uint64_t sent_ms;       /* without the time since then */
    /* Called for each allocation; NULL: allocations are not counted. */
    void (*charge)(void *arg, size_t bytes);
    void *charge_arg;
};

static inline bool arena_init(struct arena *arena, size_t chunk_bytes)
{
    arena->tasks = NULL;
    arena->bytes = 0;
    arena->owner = 0;
    arena->call_id = 0;
    arena->caller = NULL;
    arena->charge = NULL;
    arena->sent_count = 0;
    arena->sent_ms = 0;
    return msgpack_zone_init(&arena->zone, chunk_bytes);
}

static inline void arena_begin_task(struct arena *arena, struct arena_task *task,
                                    void (*cancel)(struct arena_task *task))
{
    task->cancel = cancel;
    task->is_unsent = NULL;
    task->next = arena->tasks;
    task->previous_link = &arena->tasks;
    if (task->next != NULL)
        task->next->previous_link = &task->next;
    arena->tasks = task;
}

/* The task is finished. Does nothing when it is not running. */
static inline void arena_end_task(struct arena_task *task)
{
    if (task->previous_link == NULL)
        return;
    *task->previous_link = task->next;
    if (task->next != NULL)
        task->next->previous_link = task->previous_link;
    task->previous_link = NULL;
}

static inline bool arena_task_sends_nothing(const struct arena_task *task)
{
    (void)task;
    return true;
}

/* Begin a task without an effect: it reads, or what it starts are other tasks of the arena, which say theirs. */
static inline void arena_begin_reading_task(struct arena *arena, struct arena_task *task,
                                            void (*cancel)(struct arena_task *task))
{
    arena_begin_task(arena, task, cancel);
    task->is_unsent = arena_task_sends_nothing;
}

/* Return whether all running tasks can still be cancelled without an effect. */
static inline bool arena_is_unsent(const struct arena *arena)
{
    for (const struct arena_task *task = arena->tasks; task != NULL; task = task->next) {
        if (task->is_unsent == NULL || !task->is_unsent(task))
            return false;
    }
    return arena->tasks != NULL;
}

/* Cancel the newest tasks first: an older one may have started them. */
static inline void arena_cancel_tasks(struct arena *arena)
{
    while (arena->tasks != NULL) {
        struct arena_task *task = arena->tasks;
        arena_end_task(task);
        task->cancel(task);
    }
}

/* Cancel all tasks and free all memory but the first chunk. */
static inline void arena_clear(struct arena *arena)
{
    arena_cancel_tasks(arena);
    msgpack_zone_clear(&arena->zone);
    arena->bytes = 0;
    arena->sent_count = 0;
    arena->sent_ms = 0;
}

/* Something was sent to NATS for the call; it was answered, or is given up. now_ms is loop time. */
static inline void arena_note_sent(struct arena *arena, uint64_t now_ms)
{
    if (arena->caller != NULL)
        arena = arena->caller;
    if (arena->sent_count++ == 0)
        arena->sent_since_ms = now_ms;
}

static inline void arena_note_answered(struct arena *arena, uint64_t now_ms)
{
    if (arena->caller != NULL)
        arena = arena->caller;
    if (--arena->sent_count == 0)
        arena->sent_ms += now_ms - arena->sent_since_ms;
}

/* Return for how long something of the call was at NATS, until now. */
static inline uint64_t arena_sent_ms(const struct arena *arena, uint64_t now_ms)
{
    return arena->sent_ms + (arena->sent_count > 0 ? now_ms - arena->sent_since_ms : 0);
}

/* Cancel all tasks and free all memory. */
static inline void arena_destroy(struct arena *arena)
{
    arena_cancel_tasks(arena);
    msgpack_zone_destroy(&arena->zone);
}

/* Count memory that was allocated for the arena in another way. */
static inline void arena_charge(struct arena *arena, size_t bytes)
{
    arena->bytes += bytes;
    if (arena->charge != NULL)
        arena->charge(arena->charge_arg, bytes);
}

/* Allocate size_bytes, aligned for any type and not zeroed, until the arena is cleared. NULL: out of memory. */
static inline void *arena_alloc(struct arena *arena, size_t size_bytes)
{
    arena_charge(arena, size_bytes);
    return msgpack_zone_malloc(&arena->zone, size_bytes);
}

/* The same, cleared. */
static inline void *arena_zalloc(struct arena *arena, size_t size_bytes)
{
    void *memory = arena_alloc(arena, size_bytes);

    return memory != NULL ? memset(memory, 0, size_bytes) : NULL;
}

/* Return a copy of length bytes and a NUL. */
static inline char *arena_strndup(struct arena *arena, const char *bytes, size_t length)
{
    char *copy = arena_alloc(arena, length + 1);

    if (copy == NULL)
        return NULL;
    memcpy(copy, bytes, length);
    copy[length] = '\0';
    return copy;
}

static inline char *arena_strdup(struct arena *arena, const char *text)
{
    return arena_strndup(arena, text, strlen(text));
}

/* Return the structure that embeds a task. */
#define ARENA_TASK_OWNER(task, type, member) ((type *)((char *)(task)-offsetof(type, member)))

#endif
