/* Calls on a key are linearizable. The checker that decides this is tested, too. */
#include "tests/fault/chaos.h"
#include "tests/fault/linear.h"
#include "tests/fault/suites.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- The checker ----------------------------------------------------------------------------------- */

#define GET(value, revision, begin, end)                                                                               \
    {                                                                                                                  \
        LINEAR_GET, LINEAR_OK, 0, value, 0, revision, begin, end                                                       \
    }
#define PUT(value, revision, begin, end)                                                                               \
    {                                                                                                                  \
        LINEAR_PUT, LINEAR_OK, 0, value, 0, revision, begin, end                                                       \
    }
#define LOST_PUT(value, begin)                                                                                         \
    {                                                                                                                  \
        LINEAR_PUT, LINEAR_UNKNOWN, 0, value, 0, 0, begin, 0                                                           \
    }
#define CREATE(value, revision, begin, end)                                                                            \
    {                                                                                                                  \
        LINEAR_CREATE, LINEAR_OK, 0, value, 0, revision, begin, end                                                    \
    }
#define REFUSED_CREATE(revision, begin, end)                                                                           \
    {                                                                                                                  \
        LINEAR_CREATE, LINEAR_REFUSED, 0, 99, 0, revision, begin, end                                                  \
    }
#define UPDATE(value, expected, revision, begin, end)                                                                  \
    {                                                                                                                  \
        LINEAR_UPDATE, LINEAR_OK, 0, value, expected, revision, begin, end                                             \
    }
#define LOST_UPDATE(value, expected, begin)                                                                            \
    {                                                                                                                  \
        LINEAR_UPDATE, LINEAR_UNKNOWN, 0, value, expected, 0, begin, 0                                                 \
    }
#define REFUSED_UPDATE(expected, revision, begin, end)                                                                 \
    {                                                                                                                  \
        LINEAR_UPDATE, LINEAR_REFUSED, 0, 99, expected, revision, begin, end                                           \
    }
#define DELETE(revision, begin, end)                                                                                   \
    {                                                                                                                  \
        LINEAR_DELETE, LINEAR_OK, 0, 0, 0, revision, begin, end                                                        \
    }
#define LOST_DELETE(begin)                                                                                             \
    {                                                                                                                  \
        LINEAR_DELETE, LINEAR_UNKNOWN, 0, 0, 0, 0, begin, 0                                                            \
    }

struct history {
    const char *what;
    struct linear_call calls[8];
};

static const struct history right[] = {
    {"one after the other", {GET(0, 0, 1, 2), PUT(1, 5, 3, 4), GET(1, 5, 5, 6), DELETE(6, 7, 8), GET(0, 0, 9, 10)}},
    {"a get beside a put sees the old", {PUT(1, 5, 1, 2), PUT(2, 6, 3, 9), GET(1, 5, 4, 5), GET(2, 6, 6, 7)}},
    {"a get beside a put sees the new", {PUT(1, 5, 1, 2), PUT(2, 6, 3, 9), GET(2, 6, 4, 5), GET(2, 6, 6, 7)}},
    {"two puts beside each other, in the other order", {PUT(2, 6, 1, 9), PUT(1, 5, 2, 8), GET(2, 6, 10, 11)}},
    {"a lost put is seen late", {PUT(1, 5, 1, 2), LOST_PUT(2, 3), GET(1, 5, 4, 5), GET(2, 7, 6, 7)}},
    {"a lost put is never seen", {PUT(1, 5, 1, 2), LOST_PUT(2, 3), GET(1, 5, 4, 5)}},
    {"a lost put is overwritten unseen", {PUT(1, 5, 1, 2), LOST_PUT(2, 3), PUT(3, 9, 4, 5), GET(3, 9, 6, 7)}},
    {"a lost delete makes room", {PUT(1, 5, 1, 2), LOST_DELETE(3), CREATE(2, 9, 4, 5), GET(2, 9, 6, 7)}},
    {"a lost put is why an update is refused",
     {PUT(1, 5, 1, 2), LOST_PUT(2, 3), REFUSED_UPDATE(5, 7, 4, 5), GET(2, 7, 6, 7)}},
    {"a lost update happens or does not",
     {PUT(1, 5, 1, 2), LOST_UPDATE(2, 5, 3), LOST_UPDATE(3, 5, 3), GET(3, 8, 4, 5)}},
    {"a create is refused beside the put", {PUT(1, 5, 1, 9), REFUSED_CREATE(5, 2, 3), GET(1, 5, 4, 5)}},
    {"an update of what was found", {PUT(1, 5, 1, 2), UPDATE(2, 5, 6, 3, 4), REFUSED_UPDATE(5, 6, 5, 6)}},
};

static const struct history wrong[] = {
    {"a stale get", {PUT(1, 5, 1, 2), PUT(2, 6, 3, 4), GET(1, 5, 5, 6)}},
    {"a lost write that was acknowledged", {PUT(1, 5, 1, 2), GET(0, 0, 3, 4)}},
    {"back in time", {PUT(1, 5, 1, 2), PUT(2, 6, 3, 12), GET(2, 6, 4, 5), GET(1, 5, 6, 7)}},
    {"a value that nobody wrote", {PUT(1, 5, 1, 2), GET(7, 6, 3, 4)}},
    {"a value before it was written", {GET(1, 5, 1, 2), PUT(1, 5, 3, 4)}},
    {"the wrong revision", {PUT(1, 5, 1, 2), GET(1, 6, 3, 4)}},
    {"a revision that falls", {PUT(1, 5, 1, 2), PUT(2, 4, 3, 4)}},
    {"two creates", {CREATE(1, 5, 1, 9), CREATE(2, 6, 2, 8)}},
    {"two updates of one revision", {PUT(1, 5, 1, 2), UPDATE(2, 5, 6, 3, 9), UPDATE(3, 5, 7, 4, 8)}},
    {"a create that is refused where nothing is", {DELETE(5, 1, 2), REFUSED_CREATE(5, 3, 4)}},
    {"an update that is refused though it should not be", {PUT(1, 5, 1, 2), REFUSED_UPDATE(5, 5, 3, 4)}},
    {"a write that happens twice", {LOST_PUT(1, 1), GET(1, 5, 2, 3), PUT(2, 6, 4, 5), GET(1, 7, 6, 7)}},
    {"a lost update that could not happen", {PUT(1, 5, 1, 2), PUT(2, 6, 3, 4), LOST_UPDATE(3, 5, 5), GET(3, 7, 6, 7)}},
    {"a deleted key that comes back", {PUT(1, 5, 1, 2), DELETE(6, 3, 4), GET(1, 5, 5, 6)}},
};

static size_t count_calls(const struct history *history)
{
    size_t count = 0;

    while (count < 8 && history->calls[count].begin_ns != 0)
        count++;
    return count;
}

START_TEST(the_checker_accepts_what_is_right)
{
    unsigned key;

    for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++)
        ck_assert_msg(linear_check(right[i].calls, count_calls(&right[i]), 1, &key), "%s", right[i].what);
}
END_TEST

START_TEST(the_checker_refuses_what_is_wrong)
{
    unsigned key;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        ck_assert_msg(!linear_check(wrong[i].calls, count_calls(&wrong[i]), 1, &key), "%s", wrong[i].what);
}
END_TEST

/* A correct register, whose calls are stretched so that up to overlap of them run at a time. */
static void make_history(struct linear_call *calls, size_t count, unsigned *seed, unsigned overlap)
{
    uint64_t value = 0, revision = 0;

    for (size_t i = 0; i < count; i++) {
        uint64_t happens_ns = (i + 1) * 100;
        struct linear_call *call = &calls[i];
        *call = (struct linear_call){
            .kind = rand_r(seed) % 2 > 0 ? LINEAR_GET : LINEAR_PUT,
            .begin_ns = happens_ns - (uint64_t)rand_r(seed) % (happens_ns < 100 * overlap ? happens_ns : 100 * overlap),
            .end_ns = happens_ns + 1 + (uint64_t)rand_r(seed) % (100 * overlap),
        };
        if (call->kind == LINEAR_PUT) {
            value = i + 1;
            revision += 1 + (uint64_t)rand_r(seed) % 3;
        }
        call->value = value;
        call->revision = revision;
        if (call->kind == LINEAR_PUT && rand_r(seed) % 300 == 0) {
            call->result = LINEAR_UNKNOWN;
            call->revision = 0;
        }
    }
}

START_TEST(the_checker_is_right_about_long_histories)
{
    enum { CALLS = 1000 };
    struct linear_call *calls = keep(calloc(CALLS, sizeof(*calls)));
    unsigned key, seed = 7;

    for (unsigned i = 0; i < 3; i++) {
        make_history(calls, CALLS, &seed, 6);
        ck_assert(linear_check(calls, CALLS, 1, &key));
        /* One get that finds a value that was overwritten long before. */
        struct linear_call *late = &calls[CALLS - 1];
        late->kind = LINEAR_GET;
        late->result = LINEAR_OK;
        late->value = calls[CALLS / 2].value;
        late->revision = calls[CALLS / 2].revision;
        ck_assert(!linear_check(calls, CALLS, 1, &key));
    }
}
END_TEST

/* --- The daemon ------------------------------------------------------------------------------------ */

#define KEYS    4u
#define CALLERS 6u

#define PADDING_BYTES 24000u

struct caller {
    pthread_t thread;
    unsigned number;
    struct linear_call *calls;
    size_t count, room;
    /* The revision that it found last, for updates. */
    uint64_t seen[KEYS];
};

static struct deployment deployment;
static char *padding; /* after each value; NULL: nothing */
static struct caller callers[CALLERS];
static unsigned progress;
static bool is_over;

static void begin_one(void)
{
    deployment_begin(&deployment, 1, NULL);
    deployment_make_bucket(&deployment, "b", NULL);
}

static void begin_one_short(void)
{
    deployment_begin(&deployment, 1, NULL);
    deployment_make_short_bucket(&deployment, "b");
}

static void begin_embedded(void)
{
    deployment_begin_embedded(&deployment, NULL);
    deployment_make_short_bucket(&deployment, "b");
}

/* Two values fill the whole budget: the others are evicted, or never cached. */
static void begin_evicting(void)
{
    padding = keep(malloc(PADDING_BYTES + 1));
    memset(padding, ' ', PADDING_BYTES);
    padding[PADDING_BYTES] = '\0';
    deployment_begin_embedded(&deployment, "cache:\n  max_bytes: 65536\n");
    deployment_make_short_bucket(&deployment, "b");
}

static void begin_three(void)
{
    deployment_begin(&deployment, CLUSTER_SERVERS, NULL);
    deployment_make_short_bucket(&deployment, "b");
}

static void end(void)
{
    deployment_end(&deployment);
}

/* In embedded mode any get is as new as one from the leader. */
static const struct answer *make_get(struct client *client, unsigned key, unsigned way)
{
    static const char *const ways[] = {"direct", "leader", "direct", "cached"};
    const char *consistency = deployment.is_embedded ? ways[way % 4] : "leader";

    return client_call(client, "kv.get", "['b', 'k%u', {'consistency': '%s', 'timeout': 2}]", key, consistency);
}

static const struct answer *make_call(struct client *client, struct linear_call *call, unsigned way)
{
    unsigned long long value = call->value, expected = call->expected;
    const char *more = padding != NULL ? padding : "";

    switch (call->kind) {
    case LINEAR_GET:
        return make_get(client, call->key, way);
    case LINEAR_PUT:
        return client_call(client, "kv.put", "['b', 'k%u', '%llu%s', {'timeout': 2}]", call->key, value, more);
    case LINEAR_CREATE:
        return client_call(client, "kv.create", "['b', 'k%u', '%llu%s', {'timeout': 2}]", call->key, value, more);
    case LINEAR_UPDATE:
        return client_call(client, "kv.update", "['b', 'k%u', '%llu%s', %llu, {'timeout': 2}]", call->key, value, more,
                           expected);
    case LINEAR_DELETE:
        return client_call(client, "kv.delete", "['b', 'k%u', {'timeout': 2}]", call->key);
    }
    return NULL;
}

/* Take the outcome from the answer. Return false if the call surely did nothing and has no result. */
static bool take_answer(struct linear_call *call, const struct answer *answer)
{
    const char *code = answer_code(answer);

    if (strcmp(code, "ok") == 0) {
        call->result = LINEAR_OK;
        if (call->kind != LINEAR_GET) {
            call->revision = number_at(&answer->result, "");
        } else if (answer->result.type != MSGPACK_OBJECT_NIL) {
            call->value = strtoull(text_at(&answer->result, "value"), NULL, 10);
            call->revision = number_at(&answer->result, "revision");
        }
        return true;
    }
    if (strcmp(answer_outcome(answer), "unknown") == 0) {
        call->result = LINEAR_UNKNOWN;
        return call->kind != LINEAR_GET;
    }
    if (strcmp(code, "conflict") == 0 || strcmp(code, "already_exists") == 0) {
        call->result = LINEAR_REFUSED;
        call->revision = find_at(&answer->error, "revision") != NULL ? number_at(&answer->error, "revision") : 0;
        return true;
    }
    ck_assert_msg(strcmp(code, "unavailable") == 0 || strcmp(code, "deadline_exceeded") == 0, "%s",
                  answer_text(answer));
    return false;
}

static struct linear_call *next_call(struct caller *caller)
{
    if (caller->count == caller->room) {
        caller->room = caller->room * 2 + 1000;
        caller->calls = realloc(caller->calls, caller->room * sizeof(*caller->calls));
        ck_assert_ptr_nonnull(caller->calls);
    }
    return &caller->calls[caller->count];
}

static void *run_caller(void *arg)
{
    struct caller *caller = arg;
    struct client *client = client_open(&deployment.daemon);
    unsigned seed = caller->number + 1;

    for (; !__atomic_load_n(&is_over, __ATOMIC_RELAXED); pause_shortly()) { /* few enough to be checked */
        static const enum linear_kind mix[] = {LINEAR_GET, LINEAR_GET,    LINEAR_GET,    LINEAR_PUT,
                                               LINEAR_PUT, LINEAR_CREATE, LINEAR_UPDATE, LINEAR_UPDATE};
        struct linear_call *call = next_call(caller);
        *call = (struct linear_call){.kind = mix[(unsigned)rand_r(&seed) % 8], .key = (unsigned)rand_r(&seed) % KEYS};
        if (rand_r(&seed) % 12 == 0)
            call->kind = LINEAR_DELETE;
        if (call->kind == LINEAR_UPDATE && (call->expected = caller->seen[call->key]) == 0)
            call->kind = LINEAR_GET;
        if (call->kind != LINEAR_GET && call->kind != LINEAR_DELETE)
            call->value = caller->count * CALLERS + caller->number + 1;
        call->begin_ns = now_ns();
        const struct answer *answer = make_call(client, call, (unsigned)rand_r(&seed));
        call->end_ns = now_ns();
        if (take_answer(call, answer)) {
            caller->count++;
            if (call->result == LINEAR_OK) {
                caller->seen[call->key] = call->kind == LINEAR_DELETE ? 0 : call->revision;
                __atomic_add_fetch(&progress, 1, __ATOMIC_RELAXED);
            }
        }
        client_forget(client);
    }
    client_close(client);
    return NULL;
}

/* Write the calls on a key for people. */
static void write_history(const struct linear_call *calls, size_t count, unsigned key)
{
    static const char *const kinds[] = {"get", "put", "create", "update", "delete"};
    static const char *const results[] = {"ok", "refused", "unknown"};
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);

    for (size_t i = 0; i < count; i++) {
        if (calls[i].key == key)
            fprintf(stream, "%llu %llu %s %s value %llu expected %llu revision %llu\n",
                    (unsigned long long)calls[i].begin_ns, (unsigned long long)calls[i].end_ns, kinds[calls[i].kind],
                    results[calls[i].result], (unsigned long long)calls[i].value, (unsigned long long)calls[i].expected,
                    (unsigned long long)calls[i].revision);
    }
    fclose(stream);
    keep(text);
    write_file(format_text("%s/history", deployment.daemon.directory), text);
}

static void begin_calls(void)
{
    for (unsigned i = 0; i < CALLERS; i++) {
        callers[i].number = i;
        ck_assert_int_eq(pthread_create(&callers[i].thread, NULL, run_caller, &callers[i]), 0);
    }
}

/* End the clients, and check their answers. */
static void check_calls(void)
{
    size_t count = 0, copied = 0;
    unsigned key;

    __atomic_store_n(&is_over, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < CALLERS; i++) {
        pthread_join(callers[i].thread, NULL);
        count += callers[i].count;
    }
    struct linear_call *calls = keep(calloc(count + 1, sizeof(*calls)));
    for (unsigned i = 0; i < CALLERS; i++) {
        memcpy(calls + copied, callers[i].calls, callers[i].count * sizeof(*calls));
        copied += callers[i].count;
        free(callers[i].calls);
    }
    if (linear_check(calls, count, KEYS, &key))
        return;
    write_history(calls, count, key);
    ck_abort_msg("the calls on k%u are not linearizable: see %s/history", key, deployment.daemon.directory);
}

START_TEST(calls_on_a_key_are_linearizable_while_everything_breaks)
{
    begin_calls();
    /* In a cluster each round has an election, which takes seconds. */
    chaos_run(&deployment, "b", &progress, deployment.server_count > 1 ? 1 : 2);
    check_calls();
}
END_TEST

/* Calls in flight were stored or not, and the keys are written again at once: the server has forgotten the ids. */
START_TEST(calls_on_a_key_are_linearizable_while_the_embedded_server_is_killed)
{
    begin_calls();
    for (unsigned i = 0; i < 8; i++) {
        unsigned before = __atomic_load_n(&progress, __ATOMIC_RELAXED);
        deployment_kill_embedded(&deployment);
        wait_until(__atomic_load_n(&progress, __ATOMIC_RELAXED) >= before + 100, "calls that succeed again");
    }
    check_calls();
}
END_TEST

Suite *linear_suite(void)
{
    Suite *suite = suite_create("linear");
    TCase *checker = tcase_create("checker"), *one = tcase_create("one server");
    TCase *embedded = tcase_create("embedded"), *evicting = tcase_create("embedded, little memory");
    TCase *one_short = tcase_create("one server, no history"), *three = tcase_create("three servers, no history");

    tcase_add_test(checker, the_checker_accepts_what_is_right);
    tcase_add_test(checker, the_checker_refuses_what_is_wrong);
    tcase_add_test(checker, the_checker_is_right_about_long_histories);
    tcase_add_checked_fixture(one, begin_one, end);
    tcase_add_checked_fixture(one_short, begin_one_short, end);
    tcase_add_checked_fixture(embedded, begin_embedded, end);
    tcase_add_checked_fixture(three, begin_three, end);
    tcase_add_test(one, calls_on_a_key_are_linearizable_while_everything_breaks);
    tcase_add_test(one_short, calls_on_a_key_are_linearizable_while_everything_breaks);
    tcase_add_test(three, calls_on_a_key_are_linearizable_while_everything_breaks);
    suite_add_tcase(suite, checker);
    suite_add_tcase(suite, one);
    tcase_add_test(embedded, calls_on_a_key_are_linearizable_while_the_embedded_server_is_killed);
    suite_add_tcase(suite, one_short);
    suite_add_tcase(suite, embedded);
    tcase_add_checked_fixture(evicting, begin_evicting, end);
    tcase_add_test(evicting, calls_on_a_key_are_linearizable_while_the_embedded_server_is_killed);
    suite_add_tcase(suite, evicting);
    suite_add_tcase(suite, three);
    return suite;
}
