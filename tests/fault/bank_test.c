/* Money is neither made nor lost: transfers between accounts while everything breaks. */
#include "tests/fault/chaos.h"
#include "tests/fault/suites.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ACCOUNTS      20u
#define TELLERS       8u
#define AUDITORS      2u
#define START_BALANCE 100
#define ROUNDS        2u
#define KILLS         6u

static struct deployment deployment;

enum transfer_fate { TRANSFER_NONE, TRANSFER_DONE, TRANSFER_UNKNOWN };

struct teller {
    pthread_t thread;
    unsigned number;
    unsigned transfers; /* made, or tried */
    unsigned room;      /* of fates */
    enum transfer_fate *fates;
};

struct auditor {
    pthread_t thread;
    unsigned audits;
};

static struct teller tellers[TELLERS];
static struct auditor auditors[AUDITORS];
static unsigned progress;
static bool is_closing_time;

static void open_accounts(void)
{
    assert_ok(client_call(deployment.client, "bucket.create", "['bank']"));
    for (unsigned i = 0; i < ACCOUNTS; i++)
        assert_ok(client_call(deployment.client, "kv.put", "['bank', 'account.%u', '%d']", i, START_BALANCE));
}

static void begin(void)
{
    deployment_begin(&deployment, 1, DEPLOYMENT_ATTEMPTS(1));
    open_accounts();
}

static void begin_embedded(void)
{
    deployment_begin_embedded(&deployment, NULL);
    open_accounts();
}

static void end(void)
{
    deployment_end(&deployment);
}

/* An outage may fail a call, but the error must say so. */
static void expect_outage(const struct answer *answer)
{
    const char *code = answer_code(answer);

    ck_assert_msg(strcmp(code, "unavailable") == 0 || strcmp(code, "deadline_exceeded") == 0, "%s",
                  answer_text(answer));
}

/* --- Tellers --------------------------------------------------------------------------------------- */

static const msgpack_object *entry_of(const struct answer *answer, const char *key)
{
    for (uint32_t i = 0; i < answer->result.via.map.size; i++) {
        const msgpack_object_kv *member = &answer->result.via.map.ptr[i];
        if (member->key.via.str.size == strlen(key) && memcmp(member->key.via.str.ptr, key, strlen(key)) == 0)
            return &member->val;
    }
    ck_abort_msg("no %s in %s", key, answer_text(answer));
    return NULL;
}

static unsigned next_transfer(struct teller *teller)
{
    if (teller->transfers == teller->room) {
        teller->room = teller->room * 2 + 1000;
        teller->fates = realloc(teller->fates, teller->room * sizeof(*teller->fates));
        ck_assert_ptr_nonnull(teller->fates);
    }
    teller->fates[teller->transfers] = TRANSFER_NONE;
    return teller->transfers++;
}

static void transfer(struct teller *teller, struct client *client, unsigned *seed)
{
    unsigned from = (unsigned)rand_r(seed) % ACCOUNTS;
    unsigned to = (from + 1 + (unsigned)rand_r(seed) % (ACCOUNTS - 1)) % ACCOUNTS;
    int amount = 1 + rand_r(seed) % 5;
    char from_key[32], to_key[32];

    snprintf(from_key, sizeof(from_key), "account.%u", from);
    snprintf(to_key, sizeof(to_key), "account.%u", to);
    const struct answer *read = client_call(client, "bulk.get", "['bank', ['%s', '%s']]", from_key, to_key);
    if (strcmp(answer_code(read), "ok") != 0) {
        expect_outage(read);
        return;
    }
    const msgpack_object *from_entry = entry_of(read, from_key), *to_entry = entry_of(read, to_key);
    int from_balance = atoi(text_at(from_entry, "value")), to_balance = atoi(text_at(to_entry, "value"));
    if (from_balance < amount)
        return;

    unsigned number = next_transfer(teller);
    const struct answer *answer =
        client_call(client, "txn.commit",
                    "['bank', [['%s', %llu], ['%s', %llu]], [['put', '%s', '%d'], ['put', '%s', '%d'], "
                    "['create', 'log.%u.%u', '%u %u %d']], {'timeout': 2}]",
                    from_key, (unsigned long long)number_at(from_entry, "revision"), to_key,
                    (unsigned long long)number_at(to_entry, "revision"), from_key, from_balance - amount, to_key,
                    to_balance + amount, teller->number, number, from, to, amount);
    if (strcmp(answer_code(answer), "ok") == 0) {
        teller->fates[number] = TRANSFER_DONE;
        __atomic_add_fetch(&progress, 1, __ATOMIC_RELAXED);
    } else if (strcmp(answer_outcome(answer), "unknown") == 0) {
        teller->fates[number] = TRANSFER_UNKNOWN;
    } else if (strcmp(answer_code(answer), "conflict") != 0) {
        expect_outage(answer);
    }
}

static void *run_teller(void *arg)
{
    struct teller *teller = arg;
    struct client *client = client_open(&deployment.daemon);
    unsigned seed = teller->number + 1;

    while (!__atomic_load_n(&is_closing_time, __ATOMIC_RELAXED)) {
        transfer(teller, client, &seed);
        client_forget(client);
    }
    client_close(client);
    return NULL;
}

/* --- Auditors -------------------------------------------------------------------------------------- */

static char *all_accounts(void)
{
    char *keys = format_text("'account.0'");

    for (unsigned i = 1; i < ACCOUNTS; i++)
        keys = format_text("%s, 'account.%u'", keys, i);
    return keys;
}

static int sum_of(const struct answer *answer)
{
    int sum = 0;

    ck_assert_uint_eq(answer->result.via.map.size, ACCOUNTS);
    for (uint32_t i = 0; i < ACCOUNTS; i++)
        sum += atoi(text_at(&answer->result.via.map.ptr[i].val, "value"));
    return sum;
}

static void *run_auditor(void *arg)
{
    struct auditor *auditor = arg;
    struct client *client = client_open(&deployment.daemon);
    const char *keys = all_accounts();

    while (!__atomic_load_n(&is_closing_time, __ATOMIC_RELAXED)) {
        const struct answer *answer = client_call(client, "bulk.get", "['bank', [%s]]", keys);
        if (strcmp(answer_code(answer), "ok") == 0) {
            ck_assert_int_eq(sum_of(answer), (int)ACCOUNTS * START_BALANCE);
            __atomic_add_fetch(&auditor->audits, 1, __ATOMIC_RELAXED);
        } else {
            expect_outage(answer);
        }
        client_forget(client);
    }
    client_close(client);
    return NULL;
}

/* --- The books ------------------------------------------------------------------------------------- */

struct books {
    int balances[ACCOUNTS];
    bool *is_logged[TELLERS];
};

static void note_transfer(struct books *books, unsigned teller, unsigned number, const char *text)
{
    unsigned from, to;
    int amount;

    ck_assert(teller < TELLERS && number < tellers[teller].transfers);
    ck_assert_int_eq(sscanf(text, "%u %u %d", &from, &to, &amount), 3);
    ck_assert_msg(!books->is_logged[teller][number], "log.%u.%u is there twice", teller, number);
    books->is_logged[teller][number] = true;
    books->balances[from] -= amount;
    books->balances[to] += amount;
}

static void read_stream(struct books *books)
{
    struct stream_log log = stream_log_read(deployment.nats, "bank");
    unsigned teller, number;

    for (size_t i = 0; i < log.count; i++) {
        if (sscanf(log.entries[i].key, "log.%u.%u", &teller, &number) == 2)
            note_transfer(books, teller, number, log.entries[i].value);
    }
}

static void scan_keys(struct books *books)
{
    for (unsigned i = 0; i < TELLERS; i++) {
        for (unsigned j = 0; j < tellers[i].transfers; j++) {
            const struct answer *read =
                client_call(deployment.client, "kv.get", "['bank', 'log.%u.%u', {'consistency': 'leader'}]", i, j);
            assert_ok(read);
            if (read->result.type != MSGPACK_OBJECT_NIL)
                note_transfer(books, i, j, text_at(&read->result, "value"));
        }
        client_forget(deployment.client);
    }
}

/* Each acknowledged transfer is in the log, each refused one is not, and the balances agree with the log. */
static void balance_books(void)
{
    struct books books;
    int *balances = books.balances;
    bool **is_logged = books.is_logged;

    for (unsigned i = 0; i < ACCOUNTS; i++)
        balances[i] = START_BALANCE;
    for (unsigned i = 0; i < TELLERS; i++)
        is_logged[i] = keep(calloc(tellers[i].transfers + 1, sizeof(bool)));
    if (deployment.is_embedded)
        scan_keys(&books);
    else
        read_stream(&books);
    for (unsigned i = 0; i < TELLERS; i++) {
        for (unsigned j = 0; j < tellers[i].transfers; j++) {
            if (tellers[i].fates[j] == TRANSFER_UNKNOWN)
                continue;
            ck_assert_msg(is_logged[i][j] == (tellers[i].fates[j] == TRANSFER_DONE), "transfer %u.%u was %s, but is %s",
                          i, j, tellers[i].fates[j] == TRANSFER_DONE ? "acknowledged" : "refused",
                          is_logged[i][j] ? "there" : "not there");
        }
    }
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        const struct answer *read = client_call(deployment.client, "kv.get", "['bank', 'account.%u']", i);
        ck_assert_int_eq(atoi(text_at(&read->result, "value")), balances[i]);
    }
    ck_assert_int_eq(sum_of(client_call(deployment.client, "bulk.get", "['bank', [%s]]", all_accounts())),
                     (int)ACCOUNTS * START_BALANCE);
}

static void open_bank(void)
{
    for (unsigned i = 0; i < TELLERS; i++) {
        tellers[i].number = i;
        ck_assert_int_eq(pthread_create(&tellers[i].thread, NULL, run_teller, &tellers[i]), 0);
    }
    for (unsigned i = 0; i < AUDITORS; i++)
        ck_assert_int_eq(pthread_create(&auditors[i].thread, NULL, run_auditor, &auditors[i]), 0);
}

static void close_bank(void)
{
    for (unsigned i = 0; i < AUDITORS; i++)
        wait_until(__atomic_load_n(&auditors[i].audits, __ATOMIC_RELAXED) > 0, "an audit");
    __atomic_store_n(&is_closing_time, true, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < TELLERS; i++)
        pthread_join(tellers[i].thread, NULL);
    for (unsigned i = 0; i < AUDITORS; i++)
        pthread_join(auditors[i].thread, NULL);
    balance_books();
    for (unsigned i = 0; i < TELLERS; i++)
        free(tellers[i].fates);
}

START_TEST(no_money_is_made_or_lost_while_everything_breaks)
{
    open_bank();
    chaos_run(&deployment, "bank", &progress, ROUNDS);
    close_bank();
}
END_TEST

/* The auditors read from memory, where a feed delivers the messages of a transfer one by one. */
START_TEST(no_money_is_made_or_lost_while_the_embedded_server_is_killed)
{
    open_bank();
    for (unsigned i = 0; i < KILLS; i++) {
        unsigned before = __atomic_load_n(&progress, __ATOMIC_RELAXED);
        unsigned audits = __atomic_load_n(&auditors[0].audits, __ATOMIC_RELAXED);
        deployment_kill_embedded(&deployment);
        wait_until(__atomic_load_n(&progress, __ATOMIC_RELAXED) >= before + 50, "transfers that succeed again");
        wait_until(__atomic_load_n(&auditors[0].audits, __ATOMIC_RELAXED) > audits, "an audit");
    }
    close_bank();
}
END_TEST

Suite *bank_suite(void)
{
    Suite *suite = suite_create("bank");
    TCase *tests = tcase_create("one server");

    TCase *embedded = tcase_create("embedded");

    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, no_money_is_made_or_lost_while_everything_breaks);
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(embedded, begin_embedded, end);
    tcase_add_test(embedded, no_money_is_made_or_lost_while_the_embedded_server_is_killed);
    suite_add_tcase(suite, embedded);
    return suite;
}
