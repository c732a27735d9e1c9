/* Cached reads while everything breaks: never older than an acknowledged write, and never going back. */
#include "tests/fault/chaos.h"
#include "tests/fault/suites.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define KEYS    4u
#define WRITERS 3u
#define READERS 4u
#define CALLERS (WRITERS + READERS)
#define HITS    200u

/* Instead of a revision: there was no key; or the key was listed, and its value is not known. */
#define NOTHING_SEEN   0u
#define SOMETHING_SEEN UINT64_MAX

/* What was answered for one key, and when. */
struct sight {
    uint64_t begin_ns, end_ns;
    uint64_t revision;
    unsigned key;
    bool is_bound; /* a cached read, for which something is promised; others only bind later reads */
};

/* The content of the stream. */
struct version {
    uint64_t revision;
    unsigned key;
    bool is_marker;
};

struct caller {
    pthread_t thread;
    unsigned number;
    struct sight *sights;
    size_t count, room;
};

/* --- The checker ----------------------------------------------------------------------------------- */

static int compare_begins(const void *a, const void *b)
{
    const struct sight *one = a, *other = b;

    return (one->begin_ns > other->begin_ns) - (one->begin_ns < other->begin_ns);
}

static int compare_ends(const void *a, const void *b)
{
    const struct sight *one = *(struct sight *const *)a, *other = *(struct sight *const *)b;

    return (one->end_ns > other->end_ns) - (one->end_ns < other->end_ns);
}

/*
 * Return the first marker, or put, of the key from a revision on, including it; 0: there is none. The versions are in
 * order.
 */
static uint64_t version_from(const struct version *versions, size_t count, const struct sight *sight, uint64_t revision)
{
    bool wants_marker = sight->revision == NOTHING_SEEN;
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = (low + high) / 2;
        if (versions[middle].revision < revision)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < count; low++) {
        if (versions[low].key == sight->key && versions[low].is_marker == wants_marker)
            return versions[low].revision;
    }
    return 0;
}

/*
 * Sort the sights, and return the first one that is too old, or NULL. A read that found nothing may have seen the
 * earliest marker, and one that found a value the earliest put. All promises are lower bounds, so this is the reading
 * that accepts most.
 */
static const struct sight *find_old(struct sight *sights, size_t count, const struct version *versions,
                                    size_t version_count)
{
    struct sight **by_end = keep(calloc(count + 1, sizeof(*by_end)));
    uint64_t floors[KEYS] = {0}; /* the newest answer before this read began */
    size_t ended = 0;

    qsort(sights, count, sizeof(*sights), compare_begins);
    for (size_t i = 0; i < count; i++)
        by_end[i] = &sights[i];
    qsort((void *)by_end, count, sizeof(*by_end), compare_ends);
    for (size_t i = 0; i < count; i++) {
        struct sight *sight = &sights[i];
        for (; by_end[ended]->end_ns < sight->begin_ns; ended++) {
            if (by_end[ended]->revision > floors[by_end[ended]->key])
                floors[by_end[ended]->key] = by_end[ended]->revision;
        }
        uint64_t floor = floors[sight->key];
        if (sight->revision == NOTHING_SEEN || sight->revision == SOMETHING_SEEN)
            sight->revision = floor > 0 ? version_from(versions, version_count, sight, floor) : 0;
        if (sight->is_bound && sight->revision < floor)
            return sight;
    }
    return NULL;
}

START_TEST(the_checker_distinguishes_old_and_new_values)
{
    const struct version versions[] = {{5, 0, false}, {7, 0, true}, {9, 0, false}};
    struct sight right[] = {{1, 2, 5, 0, false}, {3, 4, 5, 0, true}, {5, 9, 7, 0, true}, {6, 8, 5, 0, true}};
    struct sight gone[] = {{1, 2, 5, 0, false}, {3, 4, NOTHING_SEEN, 0, true}, {5, 6, 7, 0, true}};
    struct sight stale[] = {{1, 2, 5, 0, false}, {3, 4, 4, 0, true}};
    struct sight backwards[] = {{1, 9, 6, 0, false}, {2, 3, 6, 0, true}, {4, 5, 5, 0, true}};
    struct sight revenant[] = {{1, 2, 5, 0, false}, {3, 4, NOTHING_SEEN, 0, true}, {5, 6, 5, 0, true}};
    struct sight lost[] = {{1, 2, 8, 0, false}, {3, 4, NOTHING_SEEN, 0, true}};
    struct sight listed[] = {{1, 2, 7, 0, false}, {3, 4, SOMETHING_SEEN, 0, true}, {5, 6, 9, 0, true}};
    struct sight still_listed[] = {{1, 2, 11, 0, false}, {3, 4, SOMETHING_SEEN, 0, true}};
    struct sight unlisted_again[] = {
        {1, 2, 7, 0, false}, {3, 4, SOMETHING_SEEN, 0, true}, {5, 6, NOTHING_SEEN, 0, true}};

    ck_assert_ptr_null(find_old(right, 4, versions, 3));
    ck_assert_ptr_null(find_old(gone, 3, versions, 3));
    ck_assert_ptr_nonnull(find_old(stale, 2, versions, 3));
    ck_assert_ptr_nonnull(find_old(backwards, 3, versions, 3));
    ck_assert_ptr_nonnull(find_old(revenant, 3, versions, 3));
    ck_assert_ptr_nonnull(find_old(lost, 2, versions, 3));
    ck_assert_ptr_null(find_old(listed, 3, versions, 3));
    ck_assert_ptr_nonnull(find_old(still_listed, 2, versions, 3));
    ck_assert_ptr_nonnull(find_old(unlisted_again, 3, versions, 3));
}
END_TEST

/* --- The daemon ------------------------------------------------------------------------------------ */

static struct deployment deployment;
static struct caller callers[CALLERS];
static unsigned progress;
static bool is_over;

/* The checker needs each marker, and the stream keeps more of them than a bucket's history may. */
static void begin_with(unsigned server_count)
{
    deployment_begin(&deployment, server_count,
                     "watches:\n  heartbeat: 0.2\ncache:\n  buckets: [b]\n  max_staleness: 1\n");
    deployment_make_bucket(&deployment, "b", NULL);
    json_t *config = json_object_get(nats_api(deployment.nats, "STREAM.INFO", "KV_b", "{}"), "config");
    json_object_set_new(config, "max_msgs_per_subject", json_integer(100000));
    nats_api(deployment.nats, "STREAM.UPDATE", "KV_b", "%s", (char *)keep(json_dumps(config, 0)));
}

static void begin_one(void)
{
    begin_with(1);
}

static void begin_three(void)
{
    begin_with(CLUSTER_SERVERS);
}

static void end(void)
{
    deployment_end(&deployment);
}

static void note(struct caller *caller, const struct sight *sight, unsigned key, uint64_t revision)
{
    if (caller->count == caller->room) {
        caller->room = caller->room * 2 + 1000;
        caller->sights = realloc(caller->sights, caller->room * sizeof(*caller->sights));
        ck_assert_ptr_nonnull(caller->sights);
    }
    caller->sights[caller->count] = *sight;
    caller->sights[caller->count].key = key;
    caller->sights[caller->count++].revision = revision;
}

static void write_one(struct caller *caller, struct client *client, unsigned *seed, uint64_t seen[KEYS])
{
    unsigned key = (unsigned)rand_r(seed) % KEYS, way = (unsigned)rand_r(seed) % 8;
    struct sight sight = {.begin_ns = now_ns()};
    const struct answer *answer;

    if (way == 0)
        answer = client_call(client, "kv.delete", "['b', 'k%u', {'timeout': 2}]", key);
    else if (way == 1)
        answer =
            client_call(client, "txn.commit", "['b', [], [['put', 'k%u', 't'], ['put', 'k%u', 't']], {'timeout': 2}]",
                        key, (key + 1) % KEYS);
    else if (way < 4 && seen[key] > 0)
        answer = client_call(client, "kv.update", "['b', 'k%u', 'u', %llu, {'timeout': 2}]", key,
                             (unsigned long long)seen[key]);
    else
        answer = client_call(client, "kv.put", "['b', 'k%u', 'p', {'timeout': 2}]", key);
    sight.end_ns = now_ns();
    if (strcmp(answer_code(answer), "ok") != 0) {
        seen[key] = 0;
        return;
    }
    seen[key] = number_at(&answer->result, way == 1 ? "0" : "");
    note(caller, &sight, key, seen[key]);
    if (way == 1)
        note(caller, &sight, (key + 1) % KEYS, number_at(&answer->result, "1"));
    __atomic_add_fetch(&progress, 1, __ATOMIC_RELAXED);
}

static void read_one(struct caller *caller, struct client *client, unsigned *seed)
{
    unsigned key = (unsigned)rand_r(seed) % KEYS;
    bool is_cached = rand_r(seed) % 8 > 0, is_bulk = rand_r(seed) % 4 == 0;
    const char *way = is_cached ? "cached" : "leader";
    struct sight sight = {.begin_ns = now_ns(), .is_bound = is_cached};
    const struct answer *answer =
        is_bulk ? client_call(client, "bulk.get", "['b', ['k%u'], {'consistency': '%s', 'timeout': 2}]", key, way)
                : client_call(client, "kv.get", "['b', 'k%u', {'consistency': '%s', 'timeout': 2}]", key, way);

    sight.end_ns = now_ns();
    if (strcmp(answer_code(answer), "ok") != 0)
        return;
    const msgpack_object *entry = find_at(&answer->result, is_bulk ? format_text("k%u", key) : "");
    ck_assert_ptr_nonnull(entry);
    note(caller, &sight, key, entry->type == MSGPACK_OBJECT_NIL ? NOTHING_SEEN : number_at(entry, "revision"));
}

static void list_once(struct caller *caller, struct client *client)
{
    struct sight sight = {.begin_ns = now_ns(), .is_bound = true};
    const struct answer *answer = client_call(client, "kv.keys", "['b', {'consistency': 'cached', 'timeout': 2}]");
    bool is_listed[KEYS] = {false};

    sight.end_ns = now_ns();
    if (strcmp(answer_code(answer), "ok") != 0)
        return;
    for (uint32_t i = 0; i < answer->result.via.array.size; i++) {
        const msgpack_object *name = &answer->result.via.array.ptr[i];
        ck_assert(name->type == MSGPACK_OBJECT_STR && name->via.str.size == 2);
        is_listed[name->via.str.ptr[1] - '0'] = true;
    }
    for (unsigned key = 0; key < KEYS; key++)
        note(caller, &sight, key, is_listed[key] ? SOMETHING_SEEN : NOTHING_SEEN);
}

static void *run_caller(void *arg)
{
    struct caller *caller = arg;
    struct client *client = client_open(&deployment.daemon);
    unsigned seed = caller->number + 1;
    uint64_t seen[KEYS] = {0};

    for (; !__atomic_load_n(&is_over, __ATOMIC_RELAXED); pause_shortly()) { /* few enough to be checked */
        if (caller->number < WRITERS)
            write_one(caller, client, &seed, seen);
        else if (rand_r(&seed) % 8 == 0)
            list_once(caller, client);
        else
            read_one(caller, client, &seed);
        client_forget(client);
    }
    client_close(client);
    return NULL;
}

START_TEST(cached_reads_are_never_old_and_never_go_back_while_everything_breaks)
{
    size_t count = 0, copied = 0;

    for (unsigned i = 0; i < CALLERS; i++) {
        callers[i].number = i;
        ck_assert_int_eq(pthread_create(&callers[i].thread, NULL, run_caller, &callers[i]), 0);
    }
    /* In a cluster each round has an election, which takes seconds. */
    chaos_run(&deployment, "b", &progress, deployment.server_count > 1 ? 1 : 2);
    wait_until(deployment_stat(&deployment, "cache.hits") > HITS, "reads that memory answers");
    __atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < CALLERS; i++) {
        pthread_join(callers[i].thread, NULL);
        count += callers[i].count;
    }
    struct sight *sights = keep(calloc(count + 1, sizeof(*sights)));
    for (unsigned i = 0; i < CALLERS; i++) {
        memcpy(sights + copied, callers[i].sights, callers[i].count * sizeof(*sights));
        copied += callers[i].count;
        free(callers[i].sights);
    }
    struct stream_log log = stream_log_read(deployment.nats, "b");
    struct version *versions = keep(calloc(log.count + 1, sizeof(*versions)));
    for (size_t i = 0; i < log.count; i++) {
        versions[i].key = (unsigned)atoi(log.entries[i].key + 1);
        versions[i].revision = log.entries[i].revision;
        versions[i].is_marker = strcmp(log.entries[i].operation, "DEL") == 0;
    }
    const struct sight *old = find_old(sights, count, versions, log.count);
    ck_assert_msg(old == NULL, "k%u was answered at revision %llu, which is too old, between %llu and %llu ns",
                  old->key, (unsigned long long)old->revision, (unsigned long long)old->begin_ns,
                  (unsigned long long)old->end_ns);
}
END_TEST

static uint64_t cache_hits(void)
{
    return deployment_stat(&deployment, "cache.hits");
}

static bool answers_from_memory(void)
{
    uint64_t hits = cache_hits();

    assert_ok(client_call(deployment.client, "kv.get", "['b', 'k', {'consistency': 'cached'}]"));
    return cache_hits() > hits;
}

/*
 * What comes while the daemon is stopped begins with a heartbeat, and is more than it reads in its first turn after
 * that. The call is answered within these turns.
 */
START_TEST(a_daemon_that_was_stopped_for_longer_than_max_staleness_validates_first)
{
    char value[8192];

    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    for (unsigned i = 0; i < 10; i++) {
        nats_put(deployment.nats, "b", "k", "before");
        wait_until(answers_from_memory(), "an answer from memory");
        pid_suspend(deployment.daemon.process.pid);
        uint64_t begin_ns = now_ns();
        wait_until(now_ns() - begin_ns > 500000000ull, "a heartbeat has come");
        for (unsigned other = 0; other < 300; other++)
            nats_put(deployment.nats, "b", "other", value);
        uint64_t revision = nats_put(deployment.nats, "b", "k", "meanwhile");
        uint32_t msgid = client_send(deployment.client, "kv.get", "['b', 'k', {'consistency': 'cached'}]");
        wait_until(now_ns() - begin_ns > 1500000000ull, "what cache.max_staleness allows");
        pid_resume(deployment.daemon.process.pid);
        const struct answer *answer = client_wait(deployment.client, msgid);
        assert_ok(answer);
        ck_assert_uint_eq(number_at(&answer->result, "revision"), revision);
    }
}
END_TEST

Suite *cached_read_fault_suite(void)
{
    Suite *suite = suite_create("cached read faults");
    TCase *checker = tcase_create("checker"), *one = tcase_create("one server"), *three = tcase_create("three servers");

    tcase_add_test(checker, the_checker_distinguishes_old_and_new_values);
    tcase_add_checked_fixture(one, begin_one, end);
    tcase_add_checked_fixture(three, begin_three, end);
    tcase_add_test(one, cached_reads_are_never_old_and_never_go_back_while_everything_breaks);
    tcase_add_test(three, cached_reads_are_never_old_and_never_go_back_while_everything_breaks);
    tcase_add_test(one, a_daemon_that_was_stopped_for_longer_than_max_staleness_validates_first);
    suite_add_tcase(suite, checker);
    suite_add_tcase(suite, one);
    suite_add_tcase(suite, three);
    return suite;
}
