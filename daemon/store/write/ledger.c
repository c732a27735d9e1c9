#include "daemon/store/write/ledger.h"

#include "daemon/base/table.h"
#include "daemon/nats/requests.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* Inquiries in flight. Each is a read and a STREAM.INFO, some milliseconds of work for the server's API. */
#define READINGS_MAX 16u

struct ledger_key {
    UT_hash_handle hh; /* by name */
    const char *name;  /* after the struct */
    unsigned holds;
    struct ledger_wait *waiting;
};

struct ledger {
    unsigned references;
    struct jobs *jobs;
    struct requests *requests;
    uint64_t shortest_ttl_ms;
    struct request_limit readings;
    struct ledger_key *keys; /* uthash */
    struct ledger_wait *woken;
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
    assert(ledger->keys == NULL && ledger->woken == NULL);
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
}

static bool ledger_run_waking(struct job *job)
{
    struct ledger *ledger = (struct ledger *)((char *)job - offsetof(struct ledger, waking));
    bool has_more = false;

    ledger_retain(ledger);
    while (ledger->woken != NULL && !has_more) {
        struct ledger_wait *wait = ledger->woken;
        ledger_end_wait(wait);
        wait->is_due = true;
        wait->resume(wait);
        has_more = jobs_slice_is_over(ledger->jobs);
    }
    has_more = ledger->woken != NULL;
    ledger_release(ledger);
    return has_more;
}

void ledger_release_key(struct ledger_hold *hold)
{
    struct ledger_key *key = hold->key;
    struct ledger *ledger = hold->ledger;
    struct ledger_wait *wait;

    if (key == NULL)
        return;
    hold->key = NULL;
    if (--key->holds > 0) {
        ledger_release(ledger);
        return;
    }
    while ((wait = key->waiting) != NULL) {
        DL_DELETE2(key->waiting, wait, previous, next);
        DL_APPEND2(ledger->woken, wait, previous, next);
        wait->list = &ledger->woken;
        jobs_add_shared(ledger->jobs, &ledger->waking, ledger_run_waking);
    }
    HASH_DEL(ledger->keys, key);
    free(key);
    ledger_release(ledger);
}

static void ledger_append(struct ledger *ledger, struct ledger_wait **list, struct ledger_wait *wait)
{
    assert(wait->ledger == NULL);
    wait->ledger = ledger_retain(ledger);
    wait->list = list;
    wait->is_due = false;
    DL_APPEND2(*list, wait, previous, next);
}

bool ledger_must_queue(struct ledger *ledger, struct ledger_wait *wait)
{
    if (ledger->woken == NULL || wait->is_due)
        return false;
    ledger_append(ledger, &ledger->woken, wait);
    return true;
}

bool ledger_must_wait(struct ledger *ledger, struct ledger_wait *wait, const char *name)
{
    struct ledger_key *key = ledger_find_key(ledger, name);

    if (key == NULL)
        return false;
    ledger_append(ledger, &key->waiting, wait);
    return true;
}

void ledger_end_wait(struct ledger_wait *wait)
{
    if (wait->ledger == NULL)
        return;
    struct ledger *ledger = wait->ledger;
    DL_DELETE2(*wait->list, wait, previous, next);
    wait->ledger = NULL;
    ledger_release(ledger);
}
