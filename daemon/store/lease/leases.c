#include "daemon/store/lease/leases.h"

#include "daemon/store/lease/holding.h"
#include "daemon/store/lease/lease.h"
#include "daemon/store/lease/lease_file.h"
#include "daemon/store/lease/lock.h"
#include "daemon/store/observe.h"

#include <stdlib.h>

/* Buckets that are read for the keys of ended leases at a time. */
#define SCANS_MAX 2u

/* This daemon has changed the bucket, and the stream has no message of that: the lease may be gone. */
static void on_bucket_changed(struct store *store, const char *bucket, bool is_known)
{
    struct lease_bucket *in = lease_bucket_find(store, bucket);

    (void)is_known;
    if (in != NULL)
        lease_doubt(in);
}

static const struct observer_ops leases_observer_ops = {.end_change = on_bucket_changed};

int leases_init(struct store *store)
{
    struct leases *leases = calloc(1, sizeof(*leases));

    store->leases = leases;
    if (leases == NULL)
        return -1;
    leases->store = store;
    leases->scans.max = SCANS_MAX;
    leases->scans.is_of_many_streams = true;
    leases->observer.ops = &leases_observer_ops;
    observe_add(store, &leases->observer);
    leases->file = lease_file_open(store, NULL);
    return leases->file != NULL ? 0 : -1;
}

static void leases_adopt(struct store *store, const char *bucket, const char *id)
{
    struct lease_bucket *in = lease_bucket_obtain(store, bucket);

    if (in != NULL)
        lease_adopt(in, id);
}

/* Before any session can ask for a lock: in each bucket the lease of the last run is to become that of this one. */
void leases_open_file(struct store *store, const char *path)
{
    struct lease_file *file = lease_file_open(store, path);

    if (file == NULL)
        return;
    lease_file_free(store->leases->file);
    store->leases->file = file;
    lease_file_each(store, leases_adopt);
}

void leases_drain(struct store *store)
{
    struct lease_bucket *in, *next;

    store->leases->is_draining = true;
    HASH_ITER(hh, store->leases->buckets, in, next)
    {
        lock_try_all(in);
    }
}

static bool leases_are_idle(const struct store *store)
{
    const struct lease_bucket *in, *next;

    HASH_ITER(hh, store->leases->buckets, in, next)
    {
        if (!holding_is_idle(in))
            return false;
    }
    return true;
}

static bool run_checking_idle(struct job *job)
{
    struct leases *leases = (struct leases *)((char *)job - offsetof(struct leases, checking_idle));
    void (*idle)(void *arg) = leases->idle;

    if (idle == NULL || !leases_are_idle(leases->store))
        return false;
    leases->idle = NULL;
    idle(leases->idle_arg);
    return false;
}

void leases_check_idle(struct leases *leases)
{
    if (leases->idle != NULL)
        jobs_add_shared(leases->store->jobs, &leases->checking_idle, run_checking_idle);
}

void leases_await_idle(struct store *store, void (*idle)(void *arg), void *arg)
{
    struct lease_bucket *in, *next;

    HASH_ITER(hh, store->leases->buckets, in, next)
    {
        holding_end_lost(in);
    }
    store->leases->idle = idle;
    store->leases->idle_arg = arg;
    leases_check_idle(store->leases);
}

unsigned leases_held_in(struct store *store, const char *bucket)
{
    const struct lease_bucket *in = lease_bucket_find(store, bucket);

    return in != NULL && in->lease != NULL ? in->lease->references : 0;
}

void leases_total(const struct store *store, struct leases_totals *totals)
{
    const struct leases *leases = store->leases;
    const struct lease_bucket *in, *next;

    *totals = (struct leases_totals){.held = leases->counts.held,
                                     .waiting = leases->counts.waiting,
                                     .acquired = leases->counts.acquired,
                                     .lost = leases->counts.lost,
                                     .declared_dead = leases->counts.declared_dead,
                                     .renewals = leases->counts.renewals};
    HASH_ITER(hh, leases->buckets, in, next)
    {
        totals->leases += in->lease != NULL;
    }
}

void leases_end(struct store *store)
{
    struct lease_bucket *in, *next;

    store->leases->is_ended = true;
    jobs_remove(store->jobs, &store->leases->checking_idle);
    HASH_ITER(hh, store->leases->buckets, in, next)
    {
        timer_stop(store->timers, &in->tick);
        local_copy_stop_listening(&in->listener);
    }
}

void leases_free(struct store *store)
{
    struct lease_bucket *in, *next;

    HASH_ITER(hh, store->leases->buckets, in, next)
    {
        lease_bucket_free(in);
    }
    lease_file_free(store->leases->file);
    free(store->leases);
    store->leases = NULL;
}
