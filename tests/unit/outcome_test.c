/*
 * The outcome of a write, checked against a model of the server: all schedules of events up to a depth.
 *
 * The model's server has two keys. A single write goes to the second; a batch writes both, with an id on each. The test
 * searches for a schedule in which something is stored twice, or in which the machine's answer is false.
 */
#include "daemon/base/table.h"
#include "daemon/store/write/outcome.h"
#include "tests/unit/suites.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW_MS   10u
#define CONNECTIONS 3u
#define QUEUE       3u
#define KEEPS_MAX   2u

enum { FIRST, LAST, KEYS };
enum { NOBODY, OURS, OTHERS };

struct kind {
    const char *name;
    bool is_batch, is_conditional;
    bool hides_keeper;    /* it is not known which server answers */
    bool shortens_window; /* other clients may do so */
    unsigned keeps;       /* for each key */
    unsigned depth;
};

struct item {
    uint8_t what; /* 0: nothing */
    uint8_t key;  /* of the question */
    bool is_guarded;
    uint8_t expected;
    uint8_t attempt;
};
enum { NOTHING, COPY, QUESTION };

/* All bytes are compared and hashed, so the struct is zeroed before it is filled. */
struct world {
    /* The server. */
    struct {
        uint8_t sequence[KEEPS_MAX], writer[KEEPS_MAX]; /* the newest first; 0, NOBODY: none */
    } keys[KEYS];
    bool knows[KEYS];     /* our id */
    uint8_t last;         /* sequence */
    uint8_t keeper;       /* number of its starts */
    bool is_window_short; /* changed by other clients: it no longer knows any ids */
    bool is_half;         /* it has stopped in the middle of the batch */
    uint8_t stored[KEYS]; /* how often ours was stored, ever */
    uint32_t left;        /* for each sequence, whether its message was removed, by being overwritten or otherwise */
    uint8_t stored_at;    /* sequence of the last message */
    /* What the server has not read yet, for each connection, the present one last. */
    struct item queues[CONNECTIONS][QUEUE];
    uint8_t connection;
    /* The client. */
    struct outcome outcome;
    uint8_t guard; /* sequence that another copy names */
    bool is_guarded;
    uint8_t attempts, copy_attempt;
    uint8_t now_ms;
};

struct visited {
    UT_hash_handle hh;
    unsigned depth; /* steps that were left */
    struct world world;
};

static struct visited *visited;
static const struct kind *kind;
static unsigned landed, lost, unknown, half;

#define must(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            ck_abort_msg("%s: %s", kind->name, #condition);                                                            \
    } while (0)

/* --- The server ------------------------------------------------------------------------------------ */

/* Remove the messages of the key from this index on. */
static void note_left(struct world *world, unsigned key, unsigned place)
{
    for (; place < KEEPS_MAX; place++) {
        if (world->keys[key].sequence[place] != 0)
            world->left |= 1u << world->keys[key].sequence[place];
    }
}

static void store_message(struct world *world, unsigned key, unsigned writer)
{
    note_left(world, key, kind->keeps - 1);
    for (unsigned i = KEEPS_MAX - 1; i > 0; i--) {
        world->keys[key].sequence[i] = i < kind->keeps ? world->keys[key].sequence[i - 1] : 0;
        world->keys[key].writer[i] = i < kind->keeps ? world->keys[key].writer[i - 1] : NOBODY;
    }
    world->keys[key].sequence[0] = ++world->last;
    world->keys[key].writer[0] = (uint8_t)writer;
    if (writer != OURS)
        return;
    must(world->stored[key]++ == 0);
    world->knows[key] = !world->is_window_short;
    if (key == LAST)
        world->stored_at = world->last;
}

static bool store_ours(struct world *world, const struct item *copy)
{
    unsigned first = kind->is_batch ? FIRST : LAST;

    if (copy->is_guarded && copy->expected != world->keys[LAST].sequence[0])
        return false;
    if (world->knows[first])
        return false;
    if (kind->is_batch)
        store_message(world, FIRST, OURS);
    store_message(world, LAST, OURS);
    return true;
}

/* After a start, or as another leader, the server knows only the ids of messages that are kept. */
static void forget_ids(struct world *world)
{
    for (unsigned key = 0; key < KEYS; key++) {
        world->knows[key] = false;
        for (unsigned i = 0; i < KEEPS_MAX; i++)
            world->knows[key] = world->knows[key] || (world->keys[key].writer[i] == OURS && !world->is_window_short);
    }
    world->keeper++;
}

/* --- The client ------------------------------------------------------------------------------------ */

static uint64_t see_keeper(const struct world *world)
{
    return kind->hides_keeper ? 0 : world->keeper;
}

static struct stream_state see_stream(const struct world *world)
{
    return (struct stream_state){.identity = 1,
                                 .last_sequence = world->last,
                                 .keeper = see_keeper(world),
                                 .window_ms = world->is_window_short ? 0 : WINDOW_MS};
}

static bool is_empty(const struct world *world, unsigned connection)
{
    return world->queues[connection][0].what == NOTHING;
}

static bool are_closed(const struct world *world)
{
    for (unsigned i = (unsigned)world->outcome.connection; i < world->connection; i++) {
        if (!is_empty(world, i))
            return false;
    }
    return true;
}

static bool has_copies(const struct world *world)
{
    for (unsigned i = 0; i <= world->connection; i++) {
        for (unsigned j = 0; j < QUEUE; j++) {
            if (world->queues[i][j].what == COPY)
                return true;
        }
    }
    return false;
}

static bool put_into_queue(struct world *world, struct item item)
{
    struct item *queue = world->queues[world->connection];

    for (unsigned i = 0; i < QUEUE; i++) {
        if (queue[i].what == NOTHING) {
            item.attempt = ++world->attempts;
            if (item.what == COPY)
                world->copy_attempt = item.attempt;
            queue[i] = item;
            return true;
        }
    }
    return false;
}

/* Return whether there is more to do. */
static bool take_verdict(struct world *world, enum outcome_verdict verdict)
{
    switch (verdict) {
    case OUTCOME_UNDECIDED:
        return true;
    case OUTCOME_NOT_STORED:
        lost++;
        must(world->stored[LAST] == 0 && world->stored[FIRST] == 0);
        must(!has_copies(world));
        return true;
    case OUTCOME_STORED:
        landed++;
        must(world->stored[LAST] == 1);
        break;
    case OUTCOME_PARTIAL:
        half++;
        must(world->stored[FIRST] == 1);
        break;
    case OUTCOME_UNKNOWN:
        unknown++;
        break;
    }
    return false;
}

static bool read_key(struct world *world, unsigned key)
{
    struct outcome_reading reading = {
        .is_there = world->keys[key].sequence[0] != 0,
        .sequence = world->keys[key].sequence[0],
        .is_ours = world->keys[key].writer[0] == OURS,
        .none_removed = world->left >> (world->outcome.stream.last_sequence + 1) == 0,
        .stream = see_stream(world),
    };

    if (outcome_wants_history(&world->outcome, &reading, kind->keeps)) {
        uint64_t oldest = reading.sequence;
        for (unsigned i = 0; i < kind->keeps && world->keys[key].sequence[i] != 0; i++) {
            oldest = world->keys[key].sequence[i];
            if (world->keys[key].writer[i] == OURS)
                reading.is_ours_before = true;
        }
        reading.reaches_back = oldest <= world->outcome.stream.last_sequence;
    }
    enum outcome_verdict verdict = outcome_read(&world->outcome, &reading);
    if (verdict == OUTCOME_NOT_STORED && !kind->is_conditional && !kind->is_batch) {
        world->is_guarded = true;
        world->guard = (uint8_t)reading.sequence;
    }
    return take_verdict(world, verdict);
}

/* Make one step of the client, which may time out. Return false if it has none, or is done. */
static bool step_client(struct world *world)
{
    struct stream_state stream = see_stream(world);

    switch (outcome_next(&world->outcome, are_closed(world))) {
    case OUTCOME_WAIT:
        return false;
    case OUTCOME_SEND:
        if (!put_into_queue(world,
                            (struct item){.what = COPY, .is_guarded = world->is_guarded, .expected = world->guard}))
            return false;
        outcome_sent(&world->outcome, world->now_ms, world->connection, &stream);
        return true;
    case OUTCOME_ASK:
        return put_into_queue(world, (struct item){.what = QUESTION, .key = LAST});
    case OUTCOME_ASK_FIRST:
        return put_into_queue(world, (struct item){.what = QUESTION, .key = FIRST});
    case OUTCOME_READ:
        return read_key(world, LAST);
    case OUTCOME_READ_FIRST:
        return read_key(world, FIRST);
    }
    return false;
}

/* --- What can happen ------------------------------------------------------------------------------- */

enum event {
    CLIENT_GOES_ON,
    SERVER_READS,          /* of the present connection, and the answer arrives */
    SERVER_READS_UNHEARD,  /* and the answer is lost */
    SERVER_STOPS_HALF_WAY, /* during the commit of a batch */
    SERVER_READS_FORMER,
    SERVER_STARTS_ANEW,
    LEADER_CHANGES,
    CONNECTION_IS_CUT,
    OTHERS_WRITE,
    OTHERS_WRITE_ELSEWHERE,
    MESSAGES_EXPIRE,
    WINDOW_ENDS,
    WINDOW_IS_SHORTENED,
    EVENTS
};

static struct item take_item(struct world *world, unsigned connection)
{
    struct item *queue = world->queues[connection], item = queue[0];

    memmove(queue, queue + 1, (QUEUE - 1) * sizeof(*queue));
    memset(&queue[QUEUE - 1], 0, sizeof(*queue));
    return item;
}

/* Deliver the answer to an item. An ack is always accepted; of other answers only the latest item's. */
static bool hear(struct world *world, const struct item *item, bool is_stored)
{
    if (item->what == COPY && is_stored)
        return take_verdict(world, OUTCOME_STORED);
    if (item->what == COPY) {
        bool is_duplicate = world->knows[kind->is_batch ? FIRST : LAST];
        if (!is_duplicate && item->attempt == world->copy_attempt)
            outcome_refused(&world->outcome);
        return true;
    }
    if (item->attempt != world->attempts)
        return true;
    return take_verdict(world, outcome_answered(&world->outcome,
                                                world->knows[item->key] ? OUTCOME_ID_KNOWN : OUTCOME_ID_UNKNOWN,
                                                world->now_ms, see_keeper(world)));
}

static void cut(struct world *world)
{
    world->connection++;
}

/* Return false if the event cannot happen now, or the write has ended with it. */
static bool happen(struct world *world, enum event event)
{
    struct item item;

    switch (event) {
    case CLIENT_GOES_ON:
        return step_client(world);
    case SERVER_READS:
    case SERVER_READS_UNHEARD:
        if (is_empty(world, world->connection))
            return false;
        item = take_item(world, world->connection);
        bool is_stored = item.what == COPY && store_ours(world, &item);
        return event == SERVER_READS_UNHEARD || hear(world, &item, is_stored);
    case SERVER_STOPS_HALF_WAY:
        if (!kind->is_batch || world->is_half || world->queues[world->connection][0].what != COPY ||
            world->knows[FIRST])
            return false;
        take_item(world, world->connection);
        store_message(world, FIRST, OURS);
        world->is_half = true;
        return true;
    case SERVER_READS_FORMER:
        for (unsigned i = 0; i < world->connection; i++) {
            if (is_empty(world, i))
                continue;
            item = take_item(world, i);
            if (item.what == COPY)
                store_ours(world, &item);
            return true;
        }
        return false;
    case SERVER_STARTS_ANEW:
        if (world->connection + 1 == CONNECTIONS)
            return false;
        memset(world->queues, 0, sizeof(world->queues));
        cut(world);
        if (world->is_half)
            store_message(world, LAST, OURS);
        world->is_half = false;
        forget_ids(world);
        return true;
    case LEADER_CHANGES:
        if (world->is_half)
            return false;
        forget_ids(world);
        return true;
    case CONNECTION_IS_CUT:
        if (world->connection + 1 == CONNECTIONS)
            return false;
        cut(world);
        return true;
    case OTHERS_WRITE:
        store_message(world, LAST, OTHERS);
        return true;
    case OTHERS_WRITE_ELSEWHERE:
        if (kind->is_batch)
            store_message(world, FIRST, OTHERS);
        else
            world->last++;
        return true;
    case MESSAGES_EXPIRE:
        if (world->keys[LAST].sequence[0] == 0)
            return false;
        note_left(world, LAST, 0);
        memset(&world->keys[LAST], 0, sizeof(world->keys[LAST]));
        return true;
    case WINDOW_ENDS:
        if (world->now_ms >= 3 * WINDOW_MS)
            return false;
        world->now_ms += WINDOW_MS;
        memset(world->knows, 0, sizeof(world->knows));
        return true;
    case WINDOW_IS_SHORTENED:
        if (world->is_window_short || !kind->shortens_window)
            return false;
        world->is_window_short = true;
        memset(world->knows, 0, sizeof(world->knows));
        return true;
    case EVENTS:
        break;
    }
    return false;
}

/* Return whether this state was visited before with as many steps left. */
static bool note_visit(const struct world *world, unsigned depth)
{
    struct visited *visit = NULL;

    HASH_FIND(hh, visited, world, sizeof(*world), visit);
    if (visit != NULL && visit->depth >= depth)
        return true;
    if (visit == NULL) {
        visit = calloc(1, sizeof(*visit));
        ck_assert_ptr_nonnull(visit);
        visit->world = *world;
        HASH_ADD(hh, visited, world, sizeof(visit->world), visit);
    }
    visit->depth = depth;
    return false;
}

static void explore(const struct world *world, unsigned depth)
{
    if (depth == 0 || note_visit(world, depth))
        return;
    for (enum event event = 0; event < EVENTS; event++) {
        struct world next;
        memcpy(&next, world, sizeof(next)); /* including the padding between its members */
        if (happen(&next, event))
            explore(&next, depth - 1);
    }
}

/* --- The tests ------------------------------------------------------------------------------------- */

/*
 * With the sanitizers a state takes ten times as long, and what they look for shows in shorter schedules too. The
 * release build explores them whole.
 */
#if defined(__SANITIZE_ADDRESS__)
#define STEPS_MAX 9u
#else
#define STEPS_MAX 11u
#endif

static const struct kind kinds[] = {
    {"a put", .keeps = 1, .depth = 11},
    {"a put to a hidden server", .hides_keeper = true, .keeps = 1, .depth = 11},
    {"a put with history", .keeps = 2, .depth = 9},
    {"an update", .is_conditional = true, .keeps = 1, .depth = 11},
    {"a batch", .is_batch = true, .keeps = 1, .depth = 11},
    {"a batch to a hidden server", .is_batch = true, .hides_keeper = true, .keeps = 1, .depth = 11},
    {"a put within a shorter window", .shortens_window = true, .keeps = 1, .depth = 8},
    {"a batch within a shorter window", .is_batch = true, .shortens_window = true, .keeps = 1, .depth = 9},
};

START_TEST(no_schedule_stores_a_write_twice_or_answers_a_false_outcome)
{
    struct world world;
    struct visited *visit, *next;

    kind = &kinds[_i];
    landed = lost = unknown = half = 0;
    memset(&world, 0, sizeof(world));
    world.keeper = 1;
    store_message(&world, LAST, OTHERS);
    world.outcome.is_batch = kind->is_batch;
    world.is_guarded = kind->is_conditional;
    world.guard = world.keys[LAST].sequence[0];
    explore(&world, kind->depth < STEPS_MAX ? kind->depth : STEPS_MAX);
    HASH_ITER(hh, visited, visit, next)
    {
        HASH_DEL(visited, visit);
        free(visit);
    }
    /* A machine that always answers 'unknown' would pass as well. */
    ck_assert_uint_gt(landed, 0);
    ck_assert_uint_gt(lost, 0);
    ck_assert_uint_gt(unknown, 0);
    ck_assert_int_eq(half > 0, kind->is_batch);
}
END_TEST

/* --- What must not be given up --------------------------------------------------------------------- */

static struct outcome outcome;
static const struct stream_state before = {.identity = 7, .last_sequence = 100, .keeper = 3, .window_ms = 120000};

static void send_one(void)
{
    memset(&outcome, 0, sizeof(outcome));
    ck_assert_int_eq(outcome_next(&outcome, false), OUTCOME_SEND);
    outcome_sent(&outcome, 1000, 1, &before);
}

static void ask_in_vain(uint64_t keeper)
{
    ck_assert_int_eq(outcome_next(&outcome, true), OUTCOME_ASK);
    ck_assert_int_eq(outcome_answered(&outcome, OUTCOME_ID_UNKNOWN, 2000, keeper), OUTCOME_UNDECIDED);
    ck_assert_int_eq(outcome_next(&outcome, true), OUTCOME_READ);
}

START_TEST(nothing_is_asked_before_earlier_connections_have_ended)
{
    send_one();
    ck_assert_int_eq(outcome_next(&outcome, false), OUTCOME_WAIT);
    ck_assert_int_eq(outcome_next(&outcome, true), OUTCOME_ASK);
}
END_TEST

START_TEST(an_unknown_id_decides_if_the_server_has_not_restarted)
{
    struct outcome_reading reading = {.is_there = true, .sequence = 104, .stream = {7, 110, 3, 120000, 0}};

    send_one();
    ask_in_vain(3);
    ck_assert_int_eq(outcome_read(&outcome, &reading), OUTCOME_NOT_STORED);
    ck_assert_int_eq(outcome_next(&outcome, true), OUTCOME_SEND);
}
END_TEST

/* The server then forgets at once what it knew. */
START_TEST(an_unknown_id_does_not_decide_after_the_window_was_shortened)
{
    struct outcome_reading reading = {.is_there = true, .sequence = 104, .stream = {7, 110, 3, 100, 0}};

    send_one();
    ask_in_vain(3);
    ck_assert_int_eq(outcome_read(&outcome, &reading), OUTCOME_UNKNOWN);
}
END_TEST

START_TEST(after_a_restart_a_key_written_by_others_does_not_decide)
{
    struct outcome_reading reading = {.is_there = true, .sequence = 104, .stream = {7, 110, 4, 120000, 0}};

    send_one();
    ask_in_vain(4);
    ck_assert_int_eq(outcome_read(&outcome, &reading), OUTCOME_UNKNOWN);
}
END_TEST

START_TEST(after_a_restart_a_key_not_written_since_decides)
{
    struct outcome_reading reading = {.is_there = true, .sequence = 90, .stream = {7, 110, 4, 120000, 0}};

    send_one();
    ask_in_vain(4);
    ck_assert_int_eq(outcome_read(&outcome, &reading), OUTCOME_NOT_STORED);
}
END_TEST

START_TEST(after_a_restart_a_history_that_reaches_back_decides)
{
    struct outcome_reading reading = {.is_there = true, .sequence = 104, .stream = {7, 110, 4, 120000, 0}};

    send_one();
    ask_in_vain(4);
    ck_assert(!outcome_wants_history(&outcome, &reading, 1));
    ck_assert(outcome_wants_history(&outcome, &reading, 2));
    reading.reaches_back = true;
    ck_assert_int_eq(outcome_read(&outcome, &reading), OUTCOME_NOT_STORED);
    send_one();
    ask_in_vain(4);
    reading.is_ours_before = true;
    ck_assert_int_eq(outcome_read(&outcome, &reading), OUTCOME_STORED);
}
END_TEST

START_TEST(a_refused_second_copy_leads_to_another_question)
{
    struct outcome_reading reading = {.is_there = true, .sequence = 90, .stream = {7, 110, 4, 120000, 0}};

    send_one();
    ask_in_vain(4);
    ck_assert_int_eq(outcome_read(&outcome, &reading), OUTCOME_NOT_STORED);
    outcome_sent(&outcome, 3000, 2, &reading.stream);
    outcome_refused(&outcome);
    ck_assert_int_eq(outcome_next(&outcome, true), OUTCOME_ASK);
}
END_TEST

START_TEST(an_absent_key_decides_only_if_no_message_can_have_been_removed)
{
    struct outcome_reading still = {.stream = {7, 100, 4, 120000, 0}}, moved = {.stream = {7, 101, 4, 120000, 0}};
    struct outcome_reading whole = {.none_removed = true, .stream = {7, 101, 4, 120000, 0}};

    send_one();
    ask_in_vain(4);
    ck_assert_int_eq(outcome_read(&outcome, &still), OUTCOME_NOT_STORED);
    send_one();
    ask_in_vain(4);
    ck_assert_int_eq(outcome_read(&outcome, &moved), OUTCOME_UNKNOWN);
    send_one();
    ask_in_vain(4);
    ck_assert_int_eq(outcome_read(&outcome, &whole), OUTCOME_NOT_STORED);
}
END_TEST

START_TEST(another_or_older_stream_does_not_decide)
{
    struct outcome_reading another = {.is_there = true, .sequence = 90, .stream = {8, 110, 4, 120000, 0}};
    struct outcome_reading set_back = {.is_there = true, .sequence = 90, .stream = {7, 95, 4, 120000, 0}};

    send_one();
    ask_in_vain(4);
    ck_assert_int_eq(outcome_read(&outcome, &another), OUTCOME_UNKNOWN);
    send_one();
    ask_in_vain(4);
    ck_assert_int_eq(outcome_read(&outcome, &set_back), OUTCOME_UNKNOWN);
}
END_TEST

Suite *outcome_suite(void)
{
    Suite *suite = suite_create("outcome");
    TCase *model = tcase_create("model"), *single = tcase_create("single");

    tcase_set_timeout(model, 600);
    tcase_add_loop_test(model, no_schedule_stores_a_write_twice_or_answers_a_false_outcome, 0,
                        sizeof(kinds) / sizeof(kinds[0]));
    tcase_add_test(single, nothing_is_asked_before_earlier_connections_have_ended);
    tcase_add_test(single, an_unknown_id_decides_if_the_server_has_not_restarted);
    tcase_add_test(single, an_unknown_id_does_not_decide_after_the_window_was_shortened);
    tcase_add_test(single, after_a_restart_a_key_written_by_others_does_not_decide);
    tcase_add_test(single, after_a_restart_a_key_not_written_since_decides);
    tcase_add_test(single, after_a_restart_a_history_that_reaches_back_decides);
    tcase_add_test(single, a_refused_second_copy_leads_to_another_question);
    tcase_add_test(single, an_absent_key_decides_only_if_no_message_can_have_been_removed);
    tcase_add_test(single, another_or_older_stream_does_not_decide);
    suite_add_tcase(suite, model);
    suite_add_tcase(suite, single);
    return suite;
}
