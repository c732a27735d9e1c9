/* Attacks with locks. */
#include "tests/support/attack_runs.h"
#include "tests/support/flood.h"

/* Add lock.acquire with a wait in seconds. */
static void add_acquire(struct calls *calls, const char *name, unsigned wait_s)
{
    calls_add(calls, "lock.acquire", 3, ATTACK_BUCKET);
    calls_add_text(calls, name);
    msgpack_pack_map(&calls->packer, 1);
    calls_add_text(calls, "wait");
    msgpack_pack_unsigned_int(&calls->packer, wait_s);
}

/* All sessions want the same locks, and each that leaves frees what it holds. */
void attack_run_lock_churn(struct attack *attack)
{
    struct calls calls;
    char name[64];

    calls_begin(&calls);
    for (unsigned i = 0; i < 300; i++)
        add_acquire(&calls, calls_numbered(name, "lock.", i), 0);
    flood_run(attack, 8, FLOOD_LEAVE, &calls);
}

void attack_run_lock_waiters(struct attack *attack)
{
    struct calls calls;

    calls_begin(&calls);
    for (unsigned i = 0; i < 1250; i++)
        add_acquire(&calls, "lock", 1000);
    flood_run(attack, 8, FLOOD_STAY, &calls);
}

void attack_run_leaving_waiters(struct attack *attack)
{
    struct calls calls;

    calls_begin(&calls);
    for (unsigned i = 0; i < 1250; i++)
        add_acquire(&calls, "lock", 1000);
    flood_run(attack, 8, FLOOD_LEAVE, &calls);
}
