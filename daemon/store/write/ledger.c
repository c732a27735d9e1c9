#include "daemon/store/write/ledger.h"

#include "daemon/base/table.h"
#include "daemon/nats/requests.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* Inquiries in flight. Each is a read and a STREAM.INFO, some milliseconds of work for the server's API. */
#define READINGS_MAX 16u

/* A key that is held, or that writes wait for. */
struct ledger_key {
    UT_hash_handle hh; /* by name */
    const char *name;  /* after the struct */
    unsigned holds;
    struct ledger_wait *waiting;
    bool is_free; /* no write holds the key, and the first write that waits for it can continue */
    struct ledger_key *next, *previous;
};

struct ledger {
    unsigned references;
    struct jobs *jobs;
    struct requests *requests;
    uint64_t shortest_ttl_ms;
    struct request_limit readings;
    struct ledger_key *keys; /* uthash */
    struct ledger_key *free_keys;
    struct job waking;
};

struct ledger *ledger_new(struct jobs *jobs, struct requests *requests)
{
    struct ledger *ledger = calloc(1, sizeof(*ledger));

    if (ledger == NULL)
        return NULL;
    ledger->references = 1;
    ledger->jobs = jobs;
    ledger->requests = requests;
    ledger->readings.max = READINGS_MAX;
    return ledger;
}

struct ledger *ledger_retain(struct ledger *ledger)
{
    ledger->references++;
    return ledger;
}

void ledger_release(struct ledger *ledger)
{
    if (--ledger->references > 0)
        return;
    assert(ledger->keys == NULL && ledger->free_keys == NULL);
    jobs_remove(ledger->jobs, &ledger->waking);
    requests_forget_limit(ledger->requests, &ledger->readings);
    free(ledger);
}

bool ledger_is_shared(const struct ledger *ledger)
{
    return ledger->references > 1;
}

/* --- What writes and inquiries share --------------------------------------------------------------- */

void ledger_note_ttl(struct ledger *ledger, int64_t ttl_s)
{
    uint64_t ttl_ms = (uint64_t)ttl_s * 1000;

    if (ttl_s > 0 && (ledger->shortest_ttl_ms == 0 || ttl_ms < ledger->shortest_ttl_ms))
        ledger->shortest_ttl_ms = ttl_ms;
}

uint64_t ledger_shortest_ttl_ms(const struct ledger *ledger)
{
    return ledger->shortest_ttl_ms;
}

struct request_limit *ledger_readings(struct ledger *ledger)
{
    return &ledger->readings;
}

/* --- Keys in doubt --------------------------------------------------------------------------------- */

static struct ledger_key *ledger_find_key(const struct ledger *ledger, const char *name)
{
    struct ledger_key *key = NULL;

    if (ledger->keys != NULL)
        HASH_FIND_STR(ledger->keys, name, key);
    return key;
}

static bool ledger_run_waking(struct job *job);

/* The key is held or released, or fewer wait for it. If nobody needs it, it is freed. */
static void ledger_update_key(struct ledger *ledger, struct ledger_key *key)
{
    bool is_free = key->holds == 0 && key->waiting != NULL;

    if (is_free && !key->is_free) {
        DL_APPEND2(ledger->free_keys, key, previous, next);
        jobs_add_shared(ledger->jobs, &ledger->waking, ledger_run_waking);
    } else if (!is_free && key->is_free) {
        DL_DELETE2(ledger->free_keys, key, previous, next);
    }
    key->is_free = is_free;
    if (key->holds > 0 || key->waiting != NULL)
        return;
    HASH_DEL(ledger->keys, key);
    free(key);
}

/* Let the first write of each free key continue. If it holds the key again, the other writes of that key still wait. */
static bool ledger_run_waking(struct job *job)
{
    struct ledger *ledger = (struct ledger *)((char *)job - offsetof(struct ledger, waking));
    bool is_over = false;

    ledger_retain(ledger);
    while (ledger->free_keys != NULL && !is_over) {
        struct ledger_wait *wait = ledger->free_keys->waiting;
        ledger_end_wait(wait);
        wait->is_due = true;
        wait->resume(wait);
        is_over = jobs_slice_is_over(ledger->jobs);
    }
    bool has_more = ledger->free_keys != NULL;
    ledger_release(ledger);
    return has_more;
}

void ledger_hold(struct ledger *ledger, struct ledger_hold *hold, const char *name)
{
    struct ledger_key *key = ledger_find_key(ledger, name);

    if (hold->key != NULL)
        return;
    if (key == NULL) {
        size_t size = strlen(name) + 1;
        key = calloc(1, sizeof(*key) + size);
        if (key == NULL)
            return;
        key->name = memcpy(key + 1, name, size);
        HASH_ADD_KEYPTR(hh, ledger->keys, key->name, size - 1, key);
    }
    key->holds++;
    hold->key = key;
    hold->ledger = ledger_retain(ledger);
    ledger_update_key(ledger, key);
}

void ledger_release_key(struct ledger_hold *hold)
{
    struct ledger_key *key = hold->key;
    struct ledger *ledger = hold->ledger;

    if (key == NULL)
        return;
    hold->key = NULL;
    key->holds--;
    ledger_update_key(ledger, key);
    ledger_release(ledger);
}

bool ledger_must_wait(struct ledger *ledger, struct ledger_wait *wait, const char *name)
{
    struct ledger_key *key = ledger_find_key(ledger, name);

    assert(wait->key == NULL);
    if (key == NULL || (key->holds == 0 && wait->is_due))
        return false;
    wait->ledger = ledger_retain(ledger);
    wait->key = key;
    wait->is_due = false;
    DL_APPEND2(key->waiting, wait, previous, next);
    return true;
}

void ledger_end_wait(struct ledger_wait *wait)
{
    struct ledger_key *key = wait->key;
    struct ledger *ledger = wait->ledger;

    if (key == NULL)
        return;
    wait->key = NULL;
    DL_DELETE2(key->waiting, wait, previous, next);
    ledger_update_key(ledger, key);
    ledger_release(ledger);
}
