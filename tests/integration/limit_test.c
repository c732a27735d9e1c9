/* What one client can make the daemon hold: the limits of protocol.md, section "Limits". */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/client.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"
#include "tests/support/patience.h"

#include <inttypes.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

/* Small limits for the tests of frames, which share a daemon. */
static void setup_small_frames(void)
{
    daemon_start(&shared_daemon, NULL, "limits:\n  frame_bytes: 64K\n  frame_elements: 1000\n  frame_depth: 8\n");
}

/* --- One message ----------------------------------------------------------------------------------- */

START_TEST(a_message_that_is_too_large_is_skipped_and_the_session_continues)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    size_t size = 100000;
    char *value = keep(calloc(1, size));
    msgpack_sbuffer buffer;

    /* In one write with what follows it. */
    msgpack_sbuffer_init(&buffer);
    pack_put(&buffer, 4711, bucket, "large", value, size);
    pack_request(&buffer, 4712, "kv.put", "['%s', 'small', 'v']", bucket);
    pack_put(&buffer, 4713, bucket, "large", value, size);
    client_write(client, buffer.data, buffer.size);
    assert_code_says(client_wait(client, 4711), "too_large", "limits.frame_bytes");
    assert_ok(client_wait(client, 4712));
    assert_code(client_wait(client, 4713), "too_large");
    assert_ok(client_call(client, "kv.put", "['%s', 'small', 'v']", bucket));
    struct answer *answer = client_call(client, "kv.keys", "['%s']", bucket);
    ck_assert_uint_eq(count_at(&answer->result, ""), 1);
    msgpack_sbuffer_destroy(&buffer);
}
END_TEST

START_TEST(a_message_that_is_too_large_is_answered_before_it_is_whole)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    size_t size = 100000;
    char *value = keep(calloc(1, size));
    msgpack_sbuffer buffer;

    msgpack_sbuffer_init(&buffer);
    pack_put(&buffer, 4711, bucket, "large", value, size);
    client_write(client, buffer.data, 100);
    assert_code(client_wait(client, 4711), "too_large");
    for (size_t at = 100; at < buffer.size; at += 7001)
        client_write(client, buffer.data + at, buffer.size - at < 7001 ? buffer.size - at : 7001);
    assert_ok(client_call(client, "daemon.info", "[]"));
    msgpack_sbuffer_destroy(&buffer);
}
END_TEST

START_TEST(a_message_of_exactly_the_limit_is_accepted)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    char *value = keep(calloc(1, 65536));
    msgpack_sbuffer buffer;

    msgpack_sbuffer_init(&buffer);
    pack_put(&buffer, 1000000, bucket, "k", value, 60000);
    size_t overhead = buffer.size - 60000;
    buffer.size = 0;
    pack_put(&buffer, 1000000, bucket, "k", value, 65536 - overhead);
    ck_assert_uint_eq(buffer.size, 65536);
    client_write(client, buffer.data, buffer.size);
    assert_ok(client_wait(client, 1000000));
    buffer.size = 0;
    pack_put(&buffer, 1000001, bucket, "k", value, 65537 - overhead);
    client_write(client, buffer.data, buffer.size);
    assert_code(client_wait(client, 1000001), "too_large");
    assert_ok(client_call(client, "daemon.info", "[]"));
    msgpack_sbuffer_destroy(&buffer);
}
END_TEST

START_TEST(a_large_message_whose_msgid_cannot_be_read_ends_the_session)
{
    struct client *client = client_open_shared();
    /* [2, "kv.put", [bin of 1 MB… */
    client_write(client, "\x93\x02\xa6kv.put\x91\xc6\x00\x10\x00\x00", 15);
    struct answer *answer = client_receive(client);
    assert_code(answer, "too_large");
    ck_assert(!answer->has_msgid);
    client_expect_end(client);
}
END_TEST

/* Send count elements in the params of a request with msgid 77. */
static void send_elements(struct client *client, unsigned count)
{
    msgpack_sbuffer buffer;
    msgpack_packer packer;

    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    msgpack_pack_array(&packer, 4);
    msgpack_pack_int(&packer, 0);
    msgpack_pack_int(&packer, 77);
    msgpack_pack_str_with_body(&packer, "daemon.info", 11);
    msgpack_pack_array(&packer, count);
    for (unsigned i = 0; i < count; i++)
        msgpack_pack_nil(&packer);
    client_write_to_end(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
}

START_TEST(a_message_with_too_many_elements_ends_the_session)
{
    struct client *client = client_open_shared();

    send_elements(client, 900); /* of 1,000, including the envelope's */
    assert_code(client_wait(client, 77), "invalid_argument");
    send_elements(client, 1001);
    struct answer *answer = client_receive(client);
    assert_code_says(answer, "too_large", "frame_elements");
    ck_assert(answer->has_msgid);
    ck_assert_uint_eq(answer->msgid, 77);
    client_expect_end(client);
}
END_TEST

START_TEST(a_message_that_is_nested_too_deep_ends_the_session)
{
    struct client *client = client_open_shared();

    /* Eight deep: the envelope, params and six more. */
    client_write(client, "\x94\x00\x07\xa1m\x91\x91\x91\x91\x91\x91\x90", 12);
    assert_code_says(client_wait(client, 7), "invalid_argument", "unknown method");
    client_write(client, "\x94\x00\x08\xa1m\x91\x91\x91\x91\x91\x91\x91\x90", 13);
    struct answer *answer = client_receive(client);
    assert_code_says(answer, "too_large", "frame_depth");
    ck_assert_uint_eq(answer->msgid, 8);
    client_expect_end(client);
}
END_TEST

START_TEST(bytes_that_are_no_messagepack_end_the_session)
{
    struct client *client = client_open_shared(), *other = client_open_shared();

    client_write(client, "\xc1", 1);
    struct answer *answer = client_receive(client);
    assert_code(answer, "invalid_argument");
    ck_assert(!answer->has_msgid);
    client_expect_end(client);

    /* Earlier calls are answered; the msgid is returned if it was received. */
    client = client_open_shared();
    client_write(client, "\x94\x00\x05\xabkv.nonsense\x90\x94\x00\x06\xa1m\x91\xc1", 23);
    assert_code(client_wait(client, 5), "invalid_argument");
    answer = client_receive(client);
    assert_code(answer, "invalid_argument");
    ck_assert(answer->has_msgid);
    ck_assert_uint_eq(answer->msgid, 6);
    client_expect_end(client);

    daemon_wait_log(&shared_daemon, format_text("pid %d uid %u", (int)getpid(), (unsigned)getuid()));
    assert_ok(client_call(other, "daemon.info", "[]"));
}
END_TEST

START_TEST(a_header_that_claims_four_billion_elements_costs_nothing)
{
    uint64_t before_kb = resident_kb(shared_daemon.process.pid);

    for (unsigned i = 0; i < 100; i++) {
        struct client *client = client_open_shared();
        bool is_map = i % 2 == 1;
        client_write(client, is_map ? "\xdf\xff\xff\xff\xff" : "\xdd\xff\xff\xff\xff", 5);
        struct answer *answer = client_receive(client);
        assert_code(answer, "too_large");
        ck_assert(!answer->has_msgid);
        client_expect_end(client);
        client_close(client);

        client = client_open_shared();
        client_write(client,
                     is_map ? "\x94\x00\x09\xa1m\x91\xdf\xff\xff\xff\xff" : "\x94\x00\x09\xa1m\xdd\xff\xff\xff\xff",
                     is_map ? 11 : 10);
        answer = client_receive(client);
        assert_code(answer, "too_large");
        ck_assert_uint_eq(answer->msgid, 9);
        client_expect_end(client);
        client_close(client);
    }
    ck_assert_uint_lt(resident_kb(shared_daemon.process.pid), before_kb + 20000);
}
END_TEST

START_TEST(a_str_that_claims_four_gigabytes_costs_nothing)
{
    struct client *client = client_open_shared();
    uint64_t before_kb = resident_kb(shared_daemon.process.pid);
    char *bytes = keep(calloc(1, 1000000));

    client_write(client,
                 "\x94\x00\x09\xa6kv.put\x93\xa1"
                 "b\xa1k\xc6\xff\xff\xff\xff",
                 20);
    struct answer *answer = client_receive(client);
    assert_code(answer, "too_large");
    ck_assert_uint_eq(answer->msgid, 9);
    /* The daemon discards what comes. */
    for (unsigned i = 0; i < 50; i++)
        client_write(client, bytes, 1000000);
    ck_assert_uint_lt(resident_kb(shared_daemon.process.pid), before_kb + 20000);
    client_close(client);
    assert_ok(client_call(client_open_shared(), "daemon.info", "[]"));
}
END_TEST

START_TEST(an_answer_that_would_be_too_large_is_an_error)
{
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, "'history': 5");
    char *value = keep(malloc(30000));

    memset(value, 'v', 30000);
    for (unsigned i = 0; i < 3; i++)
        assert_ok(client_put(client, bucket, "k", value, 30000));
    assert_code_says(client_call(client, "kv.history", "['%s', 'k']", bucket), "too_large", "frame_bytes");
    assert_ok(client_call(client, "kv.get", "['%s', 'k']", bucket));

    /* The same keys, page by page, are answered. */
    memset(value, 'k', 1000);
    value[1000] = '\0';
    for (unsigned i = 0; i < 80; i++)
        client_send(client, "kv.put", "['%s', '%s.%02u', 'v']", bucket, value, i);
    for (unsigned i = 0; i < 80; i++)
        assert_ok(client_receive(client));
    assert_code_says(client_call(client, "kv.keys", "['%s']", bucket), "too_large", "limit");
    struct answer *answer = client_call(client, "kv.keys", "['%s', {'limit': 50}]", bucket);
    assert_ok(answer);
    ck_assert_uint_eq(count_at(&answer->result, ""), 50);
}
END_TEST

/* As little memory is used for an answer that is refused as for one of the limit. */
START_TEST(keys_that_do_not_exist_are_not_added_to_an_answer_that_is_too_large)
{
    enum { KEYS = 500, BYTES = 110 };
    struct client *client = client_open_shared();
    const char *bucket = client_new_bucket(client, NULL);
    char *value = keep(calloc(1, 65000)), *keys = keep(malloc(KEYS * (BYTES + 8))), *at = keys;
    size_t bytes;

    assert_ok(client_put(client, bucket, "k", value, 65000));
    for (unsigned i = 0; i < KEYS; i++)
        at += sprintf(at, ",'%0*u'", BYTES, i);
    struct answer *answer = client_call(client, "bulk.get", "['%s', ['k'%s]]", bucket, keys);
    assert_code_says(answer, "too_large", "limits.frame_bytes");
    ck_assert_int_eq(sscanf(text_at(&answer->error, "message"), "the answer has %zu bytes", &bytes), 1);
    ck_assert_uint_lt(bytes, 65536 + 2 * BYTES + 2 * KEYS); /* each is two bytes, so that it is well formed */
}
END_TEST

START_TEST(daemon_info_lists_the_limits)
{
    struct client *client = client_open_shared();
    struct answer *answer = client_call(client, "daemon.info", "[]");

    assert_ok(answer);
    ck_assert_uint_eq(number_at(&answer->result, "limits.frame_bytes"), 65536);
    ck_assert_uint_eq(number_at(&answer->result, "limits.frame_elements"), 1000);
    ck_assert_uint_eq(number_at(&answer->result, "limits.frame_depth"), 8);
    ck_assert_uint_eq(number_at(&answer->result, "limits.sessions"), 4096);
    ck_assert_double_eq(double_at(&answer->result, "limits.stall_timeout"), 30);
}
END_TEST

/* --- Calls in flight: the server is stopped, so that they stay in flight --------------------------- */

static struct daemon daemon_of_test;

/* All clients of these tests are one user. */
static void start_with_limits(const char *limits)
{
    daemon_start(&daemon_of_test, NULL, format_text("limits:\n  user_percent: 100\n%s", limits));
}

static void pause_server(void)
{
    pid_suspend(daemon_nats_pid(&daemon_of_test));
}

static void resume_server(void)
{
    pid_resume(daemon_nats_pid(&daemon_of_test));
}

/* Wait until this number of calls of a method have begun. */
static void wait_for_calls(struct client *client, const char *method, uint64_t wanted)
{
    uint64_t end = now_ms() + PATIENCE_MS, done = 0;

    for (;;) {
        const struct answer *answer = client_call(client, "daemon.stats", "[]");
        const msgpack_object *counts = find_at(find_at(&answer->result, "methods"), method);
        done = counts != NULL ? number_at(counts, "calls") : 0;
        if (done >= wanted)
            return;
        ck_assert_msg(now_ms() < end, "%u of %u calls have begun", (unsigned)done, (unsigned)wanted);
        pause_shortly();
    }
}

START_TEST(at_calls_per_session_the_daemon_stops_reading_and_loses_nothing)
{
    start_with_limits("  calls_per_session: 10\n");
    struct client *busy = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(busy, NULL);

    assert_ok(client_call(busy, "kv.put", "['%s', 'k', 'v']", bucket));
    pause_server();
    /* In one write: the kernel holds few small ones, and this test would block. */
    msgpack_sbuffer buffer;
    msgpack_sbuffer_init(&buffer);
    for (unsigned i = 0; i < 300; i++)
        pack_request(&buffer, 1000 + i, "kv.get", "['%s', 'k']", bucket);
    client_write(busy, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    wait_for_stat(other, "calls_in_flight", 10 + 1);
    /* It reads no more in its next turns. */
    for (unsigned i = 0; i < 50; i++)
        ck_assert_uint_eq(stat_of(other, "calls_in_flight"), 10 + 1);
    resume_server();
    for (unsigned i = 0; i < 300; i++)
        assert_ok(client_receive(busy));
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(at_the_limit_of_all_calls_more_are_refused)
{
    start_with_limits("  calls: 10\n  calls_per_session: 10\n");
    struct client *a = client_open(&daemon_of_test), *b = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(a, NULL);

    assert_ok(client_call(a, "kv.put", "['%s', 'k', 'v']", bucket));
    pause_server();
    for (unsigned i = 0; i < 9; i++)
        client_send(a, "kv.get", "['%s', 'k']", bucket);
    wait_for_stat(b, "calls_in_flight", 9 + 1);
    for (unsigned i = 0; i < 4; i++)
        client_send(b, "kv.get", "['%s', 'k']", bucket);
    for (unsigned i = 0; i < 3; i++) {
        struct answer *answer = client_receive(b);
        assert_code_says(answer, "resource_exhausted", "limits.calls");
        ck_assert(bool_at(&answer->error, "retryable"));
    }
    resume_server();
    for (unsigned i = 0; i < 9; i++)
        assert_ok(client_receive(a));
    assert_ok(client_receive(b));
    assert_ok(client_call(b, "kv.get", "['%s', 'k']", bucket));
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(at_call_bytes_per_session_the_daemon_stops_reading_and_loses_nothing)
{
    start_with_limits("  frame_bytes: 1M\n  call_bytes_per_session: 1M\n");
    struct client *busy = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(busy, "'storage': 'memory'");
    char *value = keep(calloc(1, 200000));
    msgpack_sbuffer buffer;

    pause_server();
    msgpack_sbuffer_init(&buffer);
    for (unsigned i = 0; i < 50; i++)
        pack_put(&buffer, 1000 + i, bucket, "k", value, 200000);
    size_t sent = 0;
    uint64_t taken = 0, end = now_ms() + PATIENCE_MS;
    bool stands = false;
    /* Until the daemon holds what it may, and reads no more of what the kernel holds for it. */
    while (!stands) {
        size_t written = client_write_some(busy, buffer.data + sent, buffer.size - sent);
        uint64_t call_bytes = stat_of(other, "call_bytes");
        ck_assert_uint_lt(call_bytes, 1300000);
        ck_assert_msg(now_ms() < end, "the daemon holds %u bytes of calls", (unsigned)call_bytes);
        stands = written == 0 && call_bytes > 900000 && call_bytes == taken;
        taken = call_bytes;
        sent += written;
    }
    ck_assert_uint_lt(sent, 3000000); /* the limit, and what the kernel holds */
    resume_server();
    client_write(busy, buffer.data + sent, buffer.size - sent);
    for (unsigned i = 0; i < 50; i++)
        assert_ok(client_wait(busy, 1000 + i));
    msgpack_sbuffer_destroy(&buffer);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(at_the_limit_of_all_call_bytes_more_are_refused)
{
    start_with_limits("  frame_bytes: 1M\n  call_bytes_per_session: 1M\n  call_bytes: 1M\n");
    struct client *a = client_open(&daemon_of_test), *b = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(a, "'storage': 'memory'");
    char *value = keep(calloc(1, 400000));
    msgpack_sbuffer buffer;

    pause_server();
    msgpack_sbuffer_init(&buffer);
    pack_put(&buffer, 1, bucket, "a", value, 400000);
    pack_put(&buffer, 2, bucket, "b", value, 400000);
    client_write(a, buffer.data, buffer.size);
    wait_until(stat_of(b, "call_bytes") >= 800000, "both writes");
    buffer.size = 0;
    pack_put(&buffer, 3000, bucket, "c", value, 400000);
    client_write(b, buffer.data, buffer.size);
    assert_code_says(client_wait(b, 3000), "resource_exhausted", "limits.call_bytes");
    resume_server();
    assert_ok(client_wait(a, 1));
    assert_ok(client_wait(a, 2));
    msgpack_sbuffer_destroy(&buffer);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* --- Headers --------------------------------------------------------------------------------------- */

enum { HEADER_BYTES = 60000, HEADER_KEYS = 40 };

/* Make a bucket whose values are small and have large headers. */
static const char *new_bucket_with_headers(struct client *client, const char *settings)
{
    const char *bucket = client_new_bucket(client, format_text("'storage': 'memory', %s", settings));
    char *text = keep(calloc(1, HEADER_BYTES + 1));

    memset(text, 'h', HEADER_BYTES);
    for (unsigned i = 0; i < HEADER_KEYS; i++) {
        assert_ok(client_call(client, "kv.put", "['%s', 'k%02u', 'v', {'headers': {'Long': '%s'}}]", bucket, i, text));
        assert_ok(client_call(client, "kv.put", "['%s', 'one', 'v', {'headers': {'Long': '%s'}}]", bucket, text));
    }
    return bucket;
}

START_TEST(headers_count_for_the_memory_of_calls)
{
    daemon_start(&daemon_of_test, NULL,
                 "limits:\n  frame_bytes: 4M\n  call_bytes_per_session: 4M\n  call_bytes: 4M\n  user_percent: 25\n");
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = new_bucket_with_headers(client, "'history': 64");
    const char *keys = "'k00'";

    for (unsigned i = 1; i < HEADER_KEYS; i++)
        keys = format_text("%s, 'k%02u'", keys, i);
    assert_code_says(client_call(client, "bulk.get", "['%s', [%s], {'consistency': 'direct'}]", bucket, keys),
                     "resource_exhausted", "request fewer keys");
    assert_code_says(client_call(client, "bulk.get", "['%s', [%s], {'consistency': 'leader'}]", bucket, keys),
                     "resource_exhausted", "request fewer keys");
    assert_ok(client_call(client, "bulk.get", "['%s', ['k00', 'k01']]", bucket));
    assert_code_says(client_call(client, "kv.history", "['%s', 'one']", bucket), "resource_exhausted", "request less");
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_page_of_entries_is_small_even_if_headers_are_large)
{
    static const char *const consistencies[] = {"leader", "direct", "cached"};

    daemon_start(&daemon_of_test, NULL, "limits:\n  frame_bytes: 2M\n");
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = new_bucket_with_headers(client, "'history': 1");
    for (size_t i = 0; i < 3; i++) {
        const char *after = "";
        unsigned seen = 0;
        for (size_t count;;) {
            const struct answer *page = client_call(
                client, "kv.entries", "['%s', {'after': '%s', 'consistency': '%s'}]", bucket, after, consistencies[i]);
            assert_ok(page);
            count = count_at(&page->result, "");
            if (count == 0)
                break;
            ck_assert_uint_le(count, 1024 * 1024 / HEADER_BYTES);
            seen += (unsigned)count;
            after = keep(strdup(text_at(&page->result, format_text("%zu.key", count - 1))));
        }
        ck_assert_uint_eq(seen, HEADER_KEYS + 1);
    }
    daemon_stop(&daemon_of_test);
}
END_TEST

/* --- Answers that nobody reads --------------------------------------------------------------------- */

START_TEST(a_client_that_does_not_read_is_paused_and_then_disconnected)
{
    start_with_limits("  frame_bytes: 256K\n  calls_per_session: 200\n  out_buffer_bytes: 2M\n  stall_timeout: 1\n");
    struct client *greedy = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(other, "'storage': 'memory'");
    char *value = keep(calloc(1, 100000));
    msgpack_sbuffer buffer;

    assert_ok(client_put(other, bucket, "k", value, 100000));
    uint64_t before_kb = resident_kb(daemon_of_test.process.pid);
    msgpack_sbuffer_init(&buffer);
    for (unsigned i = 0; i < 20000; i++)
        pack_request(&buffer, i, "kv.get", "['%s', 'k']", bucket);
    size_t sent = client_write_some(greedy, buffer.data, buffer.size);
    assert_ok(client_call(other, "kv.get", "['%s', 'k']", bucket));
    sent += client_write_to_end(greedy, buffer.data + sent, buffer.size - sent);
    ck_assert_uint_lt(sent, buffer.size);
    /* The requests ask for two gigabytes. Sanitizers keep freed memory for a while. */
    ck_assert_uint_lt(peak_resident_kb(daemon_of_test.process.pid), before_kb + 200000);
    assert_ok(client_call(other, "kv.get", "['%s', 'k']", bucket));
    daemon_wait_log(&daemon_of_test, "it read nothing for 1 s");
    wait_for_stat(other, "sessions.open", 1);
    wait_for_stat(other, "sessions.ended", 1);
    msgpack_sbuffer_destroy(&buffer);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_slow_reader_is_not_disconnected)
{
    enum { GETS = 40, STALL_MS = 5000 };

    start_with_limits("  frame_bytes: 256K\n  out_buffer_bytes: 16M\n  stall_timeout: 5\n");
    struct client *slow = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(slow, "'storage': 'memory'");
    char *value = keep(calloc(1, 100000));

    assert_ok(client_put(slow, bucket, "k", value, 100000));
    for (unsigned i = 0; i < GETS; i++)
        client_send(slow, "kv.get", "['%s', 'k']", bucket);
    wait_for_calls(other, "kv.get", GETS);
    /* Answers wait for longer than the timeout in total, but the client never pauses for that long. */
    uint64_t start = now_ms();
    for (unsigned i = 0; i < GETS - 5; i++) {
        assert_ok(client_receive(slow));
        usleep(2 * STALL_MS * 1000 / GETS);
    }
    ck_assert_uint_gt(now_ms() - start, STALL_MS);
    for (unsigned i = 0; i < 5; i++)
        assert_ok(client_receive(slow));
    assert_ok(client_call(slow, "daemon.info", "[]"));
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(answers_that_do_not_fit_become_errors_and_no_call_is_unanswered)
{
    start_with_limits("  frame_bytes: 256K\n  out_buffer_bytes: 1M\n");
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *origin = client_new_bucket(client, "'storage': 'memory'");
    /* A mirror is read from the server. Calls that memory answers are not even read while answers wait. */
    const char *bucket = client_new_bucket(client, format_text("'storage': 'memory', 'mirror': '%s'", origin));
    char *value = keep(calloc(1, 100000));
    unsigned ok = 0, refused = 0;
    msgpack_sbuffer buffer;

    assert_ok(client_put(client, origin, "k", value, 100000));
    wait_until(client_call(client, "kv.get", "['%s', 'k']", bucket)->result.type != MSGPACK_OBJECT_NIL, "the mirror");
    /* The daemon stops reading when answers wait. So no answer comes before it has read all calls. */
    pause_server();
    msgpack_sbuffer_init(&buffer);
    for (unsigned i = 0; i < 500; i++)
        pack_request(&buffer, 1000 + i, "kv.get", "['%s', 'k']", bucket);
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    wait_for_stat(other, "calls_in_flight", 500 + 1);
    resume_server();
    wait_for_stat(other, "calls_in_flight", 1);
    for (unsigned i = 0; i < 500; i++) {
        struct answer *answer = client_receive(client);
        if (answer->error.type == MSGPACK_OBJECT_NIL) {
            ok++;
            continue;
        }
        assert_code_says(answer, "resource_exhausted", "limits.out_buffer_bytes");
        refused++;
    }
    ck_assert_uint_ge(ok, 10);
    ck_assert_uint_ge(refused, 10);
    assert_ok(client_call(client, "kv.get", "['%s', 'k']", bucket));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Its answer takes no more room than an error, which would say that nothing was done. */
START_TEST(what_was_done_is_answered_whatever_is_unread)
{
    start_with_limits("  out_bytes: 64K\n");
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    uint32_t gets[4];

    assert_ok(client_put(client, bucket, "k", keep(calloc(1, 900000)), 900000));
    struct answer *held = client_call(other, "lock.acquire", "['%s', 'job']", bucket);
    assert_ok(held);
    uint64_t token = number_at(&held->result, "token");
    uint32_t waiting = client_send(client, "lock.acquire", "['%s', 'job', {'wait': 1000}]", bucket);
    wait_for_calls(other, "lock.acquire", 2);
    pause_server();
    for (unsigned i = 0; i < 4; i++)
        gets[i] = client_send(client, "kv.get", "['%s', 'k', {'consistency': 'direct'}]", bucket);
    wait_for_stat(other, "calls_in_flight", 1 + 4 + 1);
    resume_server();
    wait_for_stat(other, "calls_in_flight", 1 + 1);
    assert_ok(client_call(other, "lock.release", "['%s', 'job', %" PRIu64 "]", bucket, token));
    assert_ok(client_wait(client, waiting));
    assert_code_says(client_wait(client, gets[3]), "resource_exhausted", "limits.out_bytes");
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(calls_that_wait_do_not_slow_down_others)
{
    enum { WAITS = 40, CALLS = 30 };
    start_with_limits("  calls: 64\n  calls_per_session: 64\n");
    struct client *other = client_open(&daemon_of_test), *waiting = client_open(&daemon_of_test);
    struct client *busy = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(other, "'storage': 'memory'");

    assert_ok(client_call(other, "lock.acquire", "['%s', 'job']", bucket));
    for (unsigned i = 0; i < WAITS; i++)
        client_send(waiting, "lock.acquire", "['%s', 'job', {'wait': 1000}]", bucket);
    wait_for_calls(other, "lock.acquire", 1 + WAITS);
    pause_server();
    for (unsigned i = 0; i < CALLS; i++)
        client_send(busy, "kv.put", "['%s', 'k%u', 'v']", bucket, i);
    wait_for_calls(other, "kv.put", CALLS);
    resume_server();
    for (unsigned i = 0; i < CALLS; i++)
        assert_ok(client_receive(busy));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* --- Sessions -------------------------------------------------------------------------------------- */

START_TEST(one_session_too_many_gets_an_error_and_is_closed)
{
    start_with_limits("  sessions: 3\n");
    struct client *clients[3];

    for (unsigned i = 0; i < 3; i++) {
        clients[i] = client_open(&daemon_of_test);
        assert_ok(client_call(clients[i], "daemon.info", "[]"));
    }
    struct client *more = client_open(&daemon_of_test);
    struct answer *answer = client_receive(more);
    assert_code_says(answer, "resource_exhausted", "the daemon has 3 sessions, and its limit is 3 (limits.sessions)");
    ck_assert(!answer->has_msgid);
    client_expect_end(more);
    client_close(more);
    wait_for_stat(clients[0], "sessions.open", 3);
    wait_for_stat(clients[0], "sessions.refused", 1);

    client_close(clients[2]);
    wait_for_stat(clients[0], "sessions.open", 2);
    assert_ok(client_call(client_open(&daemon_of_test), "daemon.info", "[]"));
    daemon_stop(&daemon_of_test);
}
END_TEST

static unsigned count_lines_with(const char *text, const char *what)
{
    unsigned count = 0;

    for (const char *at = text; (at = strstr(at, what)) != NULL; at += strlen(what))
        count++;
    return count;
}

START_TEST(clients_cannot_fill_the_log)
{
    enum { ATTEMPTS = 300 };
    start_with_limits("  sessions: 1\n");
    struct client *first = client_open(&daemon_of_test);

    assert_ok(client_call(first, "daemon.info", "[]"));
    daemon_mark_log(&daemon_of_test);
    uint64_t start = now_ms();
    for (unsigned i = 0; i < ATTEMPTS; i++) {
        struct client *more = client_open(&daemon_of_test);
        assert_code(client_receive(more), "resource_exhausted");
        client_close(more);
    }
    unsigned seconds = (unsigned)((now_ms() - start) / 1000) + 2;
    ck_assert_uint_le(count_lines_with(daemon_log(&daemon_of_test), " refused: "), seconds * 10);

    /* Suppressed messages are counted, after one more. */
    wait_until(now_ms() - start > (seconds + 1) * 1000, "another second");
    client_receive(client_open(&daemon_of_test));
    daemon_wait_log(&daemon_of_test, "similar messages suppressed (sessions were refused)");
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_session_without_a_file_descriptor_gets_an_error_and_is_closed)
{
    const struct rlimit few = {60, 60};

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *first = client_open(&daemon_of_test), *last = NULL;
    msgpack_sbuffer request;

    msgpack_sbuffer_init(&request);
    pack_request(&request, 1, "daemon.info", "[]");
    assert_ok(client_call(first, "daemon.info", "[]")); /* the session is accepted */
    ck_assert_int_eq(prlimit(daemon_of_test.process.pid, RLIMIT_NOFILE, &few, NULL), 0);
    for (unsigned i = 0; i < few.rlim_cur; i++) {
        last = client_open(&daemon_of_test);
        /* A refused connection may be closed by now. */
        client_write_some(last, request.data, request.size);
        if (!client_receive(last)->has_msgid)
            break;
    }
    msgpack_sbuffer_destroy(&request);
    last = client_open(&daemon_of_test);
    assert_code_says(client_receive(last), "resource_exhausted", "ulimit -n");
    client_expect_end(last);
    wait_for_stat(first, "sessions.refused", 2);
    const char *bucket = client_new_bucket(first, NULL);
    assert_ok(client_call(first, "kv.put", "['%s', 'k', 'v']", bucket));
    daemon_stop(&daemon_of_test);
}
END_TEST

static const char *file_of_descriptor(const struct daemon *daemon, unsigned descriptor)
{
    char target[2 * PATH_BYTES];
    const char *link = format_text("/proc/%d/fd/%u", (int)daemon->process.pid, descriptor);
    ssize_t length = readlink(link, target, sizeof(target) - 1);

    return format_text("%.*s", length > 0 ? (int)length : 0, target);
}

/* The descriptor that the daemon keeps to refuse connections. It is opened just before the lock of the socket's path */
static unsigned reserve_of(const struct daemon *daemon)
{
    unsigned descriptor = 3;

    while (strstr(file_of_descriptor(daemon, descriptor + 1), ".sock.lock") == NULL)
        ck_assert_uint_lt(++descriptor, 1024);
    ck_assert_str_eq(file_of_descriptor(daemon, descriptor), "/dev/null");
    return descriptor;
}

/* Not even the reserve for a reload is left: all descriptors below the limit are in use. */
START_TEST(without_any_file_descriptor_each_connection_gets_an_error_and_is_closed)
{
    enum { CONNECTIONS = 100 };
    struct rlimit before, none;

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *first = client_open(&daemon_of_test);
    assert_ok(client_call(first, "daemon.info", "[]"));
    ck_assert_int_eq(prlimit(daemon_of_test.process.pid, RLIMIT_NOFILE, NULL, &before), 0);
    none = before;
    none.rlim_cur = reserve_of(&daemon_of_test) + 1;
    ck_assert_int_eq(prlimit(daemon_of_test.process.pid, RLIMIT_NOFILE, &none, NULL), 0);
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        struct client *client = client_open(&daemon_of_test);
        const struct answer *answer = client_receive(client);
        assert_code_says(answer, "resource_exhausted", "ulimit -n");
        ck_assert(!answer->has_msgid);
        client_expect_end(client);
        client_close(client);
    }
    ck_assert_uint_eq(stat_of(first, "sessions.refused"), CONNECTIONS);

    ck_assert_int_eq(prlimit(daemon_of_test.process.pid, RLIMIT_NOFILE, &before, NULL), 0);
    assert_ok(client_call(client_open(&daemon_of_test), "daemon.info", "[]"));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Clients send their first request before they read. */
START_TEST(a_refused_session_reads_a_request_before_it_is_closed)
{
    msgpack_sbuffer request;

    start_with_limits("  sessions: 1\n");
    struct client *first = client_open(&daemon_of_test);
    assert_ok(client_call(first, "daemon.info", "[]"));
    msgpack_sbuffer_init(&request);
    pack_request(&request, 1, "daemon.info", "[]");
    for (unsigned i = 1; i <= 50; i++) {
        struct client *more = client_open(&daemon_of_test);
        wait_for_stat(first, "sessions.refused", i);
        ck_assert_uint_eq(client_write_some(more, request.data, request.size), request.size);
        assert_code_says(client_receive(more), "resource_exhausted", "limits.sessions");
        client_close(more);
    }
    msgpack_sbuffer_destroy(&request);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* --- Room: what clients take is bounded for each user and for all ------------------------------------ */

/* Send the beginning of a message of 16 MB, and nothing more. Return how much of it the daemon has read. */
static size_t begin_message(struct client *client, size_t size)
{
    static const unsigned char header[] = {0x94, 0x00, 0x01, 0xa6, 'k', 'v',  '.',  'p',  'u',  't',
                                           0x93, 0xa1, 'b',  0xa1, 'k', 0xc6, 0x00, 0xf0, 0x00, 0x00};

    client_write(client, header, sizeof(header));
    return client_write_to_end(client, keep(calloc(1, size)), size);
}

START_TEST(an_unfinished_message_ends_its_session_after_a_timeout)
{
    start_with_limits("  message_timeout: 0.3\n");
    struct client *slow = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);

    begin_message(slow, 1000);
    const struct answer *answer = client_receive(slow);
    assert_code_says(answer, "deadline_exceeded", "limits.message_timeout");
    ck_assert(!answer->has_msgid);
    client_expect_end(slow);
    /* A session that is only idle is not ended. */
    assert_ok(client_call(other, "daemon.info", "[]"));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* The limit is for each message. A proxy may cut the stream anywhere, so that there is always a part of one. */
START_TEST(messages_that_end_in_the_middle_of_what_was_written_have_a_timeout_each)
{
    start_with_limits("  message_timeout: 6\n");
    struct client *client = client_open(&daemon_of_test);
    uint64_t end = now_ms() + 7000;
    msgpack_sbuffer request;

    msgpack_sbuffer_init(&request);
    pack_request(&request, 1, "daemon.info", "[]");
    size_t size = request.size;
    client_write(client, request.data, 4);
    msgpack_sbuffer_write(&request, request.data, 4);
    while (now_ms() < end) {
        client_write(client, request.data + 4, size);
        assert_ok(client_receive(client));
    }
    msgpack_sbuffer_destroy(&request);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(one_user_cannot_take_all_room_for_unfinished_messages)
{
    enum { SESSIONS = 8 };
    daemon_start(&daemon_of_test, NULL, "limits:\n  call_bytes: 64M\n  user_percent: 50\n  message_timeout: 600\n");
    struct client *other = client_open(&daemon_of_test);
    unsigned refused = 0;

    for (unsigned i = 0; i < SESSIONS; i++) {
        struct client *greedy = client_open(&daemon_of_test);
        size_t size = 8 * 1024 * 1024 - 64;
        if (begin_message(greedy, size) == size)
            continue;
        assert_code_says(client_receive(greedy), "resource_exhausted", "limits.user_percent");
        refused++;
    }
    ck_assert_uint_ge(refused, SESSIONS / 2);
    const char *bucket = client_new_bucket(other, NULL);
    assert_ok(client_call(other, "kv.put", "['%s', 'k', 'v']", bucket));
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(decoded_arguments_count_at_their_size_in_memory)
{
    start_with_limits("  call_bytes_per_session: 16M\n");
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    size_t zeros = 100000;
    msgpack_sbuffer buffer;
    msgpack_packer packer;

    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    pause_server();
    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    for (unsigned i = 0; i < 30; i++) {
        msgpack_pack_array(&packer, 4);
        msgpack_pack_int(&packer, 0);
        msgpack_pack_int(&packer, (int)(5000 + i));
        msgpack_pack_str_with_body(&packer, "kv.put", 6);
        msgpack_pack_array(&packer, 3);
        msgpack_pack_str_with_body(&packer, bucket, strlen(bucket));
        msgpack_pack_str_with_body(&packer, "k", 1);
        msgpack_pack_array(&packer, zeros);
        for (size_t j = 0; j < zeros; j++)
            msgpack_pack_int(&packer, 0);
    }
    /* 30 messages of 100 KB, which take some 3 MB each when they are decoded. */
    size_t written = 0;
    wait_until((written += client_write_some(client, buffer.data + written, buffer.size - written),
                stat_of(other, "call_bytes") > 12 * 1024 * 1024),
               "the first of these calls");
    ck_assert_uint_le(stat_of(other, "calls_in_flight"), 10);
    ck_assert_uint_le(stat_of(other, "call_bytes"), 24 * 1024 * 1024);
    msgpack_sbuffer_destroy(&buffer);
    pid_resume(daemon_nats_pid(&daemon_of_test));
    client_close(client);
    wait_until(stat_of(other, "calls_in_flight") == 1, "the end of these calls");
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(unread_answers_of_all_sessions_together_are_bounded)
{
    enum { SESSIONS = 60, CALLS = 8, BYTES = 900000 };
    start_with_limits("  out_bytes: 32M\n  stall_timeout: 3600\n"); /* the last one reads after all others */
    struct client *other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(other, "'storage': 'memory'");
    struct client *greedy[SESSIONS];

    assert_ok(client_put(other, bucket, "large", keep(calloc(1, BYTES)), BYTES));
    for (unsigned i = 0; i < SESSIONS; i++) {
        greedy[i] = client_open(&daemon_of_test);
        for (unsigned j = 0; j < CALLS; j++)
            client_send(greedy[i], "kv.get", "['%s', 'large']", bucket);
    }
    /* No client reads. There are few answers however many were asked for, and other clients are served. */
    wait_until(stat_of(other, "calls_in_flight") < SESSIONS * CALLS / 2, "the gets");
    assert_ok(client_call(other, "kv.put", "['%s', 'k', 'v']", bucket));
    ck_assert_uint_lt(resident_kb(daemon_of_test.process.pid),
                      400 * 1024); /* The requests ask for 360 MB; ASan's own memory is large */
    /* The first answer of each session would take 54 MB of the user's 24 MB. */
    unsigned refused = 0;
    for (unsigned i = 0; i < SESSIONS; i++) {
        for (unsigned j = 0; j < CALLS; j++) {
            const struct answer *answer = client_receive(greedy[i]);
            if (answer->error.type == MSGPACK_OBJECT_NIL)
                continue;
            assert_code_says(answer, "resource_exhausted", "limits.out_bytes");
            refused += j == 0;
        }
    }
    ck_assert_uint_ge(refused, 10);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Reading, copying or sending them would be a slow turn, for which daemon_stop looks in the log. */
START_TEST(texts_of_megabytes_are_refused_before_they_are_read)
{
    static const struct {
        const char *method, *params, *code;
    } calls[] = {
        {"bucket.create", "['new', {'description': '%s'}]", "invalid_argument"},
        {"bucket.update", "['b', {'description': '%s'}]", "invalid_argument"},
        {"bucket.create", "['new', {'metadata': {'a': '%s'}}]", "too_large"},
        {"bucket.create", "['new', {'metadata': {'%s': 'a'}}]", "too_large"},
        {"bucket.create", "['new', {'placement': {'cluster': '%s'}}]", "invalid_argument"},
        {"bucket.create", "['new', {'placement': {'tags': ['a', '%s']}}]", "invalid_argument"},
        {"bucket.create", "['new', {'republish': {'destination': '%s'}}]", "invalid_argument"},
        {"bucket.create", "['new', {'republish': {'destination': 'a', 'source': '%s'}}]", "invalid_argument"},
        {"bucket.create", "['new', {'mirror': '%s'}]", "invalid_argument"},
        {"bucket.create", "['new', {'mirror': {'bucket': 'b', 'domain': '%s'}}]", "invalid_argument"},
        {"bucket.create", "['new', {'sources': [{'bucket': 'b', 'filter': '%s'}]}]", "invalid_argument"},
        {"bucket.list", "[{'after': '%s'}]", "invalid_argument"},
        {"bucket.list", "[{'filter': '%s'}]", "invalid_argument"},
        {"kv.keys", "['b', {'after': '%s'}]", "invalid_argument"},
        {"kv.entries", "['b', {'after': '%s'}]", "invalid_argument"},
        {"kv.entries", "['b', {'filter': '%s'}]", "invalid_argument"},
        {"kv.get", "['b', '%s']", "invalid_argument"},
        {"kv.put", "['b', 'k', 'v', {'headers': {'a': '%s'}}]", "too_large"},
        {"kv.put", "['b', 'k', 'v', {'headers': {'%s': 'a'}}]", "too_large"},
        {"lock.acquire", "['b', 'k', {'owner': '%s'}]", "invalid_argument"},
        {"watch.start", "['b', {'filter': '%s'}]", "invalid_argument"},
    };
    const char *text = format_text("%0*d", 4000000, 0);

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    assert_ok(client_call(client, "bucket.create", "['b']"));
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        const char *before = strstr(calls[i].params, "%s");
        assert_code(client_call(client, calls[i].method, "%.*s%s%s", (int)(before - calls[i].params), calls[i].params,
                                text, before + 2),
                    calls[i].code);
    }
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Return 16,384 keys of 890 bytes, each with something after it, as in JSON. */
static const char *long_keys(const char *end, const char *after)
{
    enum { KEYS = 16384, BYTES = 890 };
    char *text = keep(malloc(KEYS * (BYTES + 32 + strlen(after)))), *at = text;

    for (unsigned i = 0; i < KEYS; i++)
        at += sprintf(at, "%s'%0*u%s'%s", i > 0 ? "," : "", BYTES, i, end, after);
    return text;
}

/* A slow turn would be in the log. The keys that end with two dots have an error each. */
START_TEST(calls_with_megabytes_of_keys_are_done_in_slices)
{
    const char *keys = long_keys("", ""), *wrong_keys = long_keys("..", "");

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test), *leaver = client_open(&daemon_of_test);
    assert_ok(client_call(client, "bucket.create", "['b', {'storage': 'memory'}]"));
    client_send(leaver, "bulk.delete", "['b', [%s]]", wrong_keys);
    client_close(leaver);
    assert_ok(client_call(client, "bulk.get", "['b', [%s], {'timeout': 50}]", keys));
    assert_ok(client_call(client, "bulk.get", "['b', [%s], {'timeout': 50, 'consistency': 'leader'}]", keys));
    assert_ok(client_call(client, "bulk.put", "['b', {%s}, {'timeout': 50}]", long_keys("", ":'v'")));
    assert_ok(client_call(client, "bulk.delete", "['b', [%s], {'timeout': 50}]", keys));
    assert_code_says(client_call(client, "bulk.delete", "['b', [%s]]", wrong_keys), "too_large", "limits.frame_bytes");
    assert_code(client_call(client, "bulk.get", "['b', [%s]]", wrong_keys), "invalid_argument");
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Operations that are read for many turns: each has 50 headers. */
#define LONG_OPERATIONS 1000u

static const char *long_operations(void)
{
    enum { HEADERS = 50 };
    char *headers = keep(malloc(HEADERS * 128)), *at = headers;
    char *operations = keep(malloc(LONG_OPERATIONS * (HEADERS + 1) * 128));

    for (unsigned i = 0; i < HEADERS; i++)
        at += sprintf(at, "%s'h%u': '%0100u'", i > 0 ? "," : "", i, i);
    at = operations;
    for (unsigned i = 0; i < LONG_OPERATIONS; i++)
        at += sprintf(at, "%s['put', 'o%u', 'v', {'headers': {%s}}]", i > 0 ? "," : "", i, headers);
    return operations;
}

/*
 * Transactions of 1,000 long operations, with and without 4,096 checks of long keys. The log would name a slow turn. A
 * put that is sent after a transaction without checks is stored after it.
 */
START_TEST(transactions_of_megabytes_are_read_in_slices_and_in_order)
{
    enum { CHECKS = 4096, BYTES = 900 };
    const char *operations = long_operations();
    char *checks = keep(malloc(CHECKS * (BYTES + 16))), *at = checks;

    for (unsigned i = 0; i < CHECKS; i++)
        at += sprintf(at, "%s['%0*u', 0]", i > 0 ? "," : "", BYTES, i);
    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    assert_ok(client_call(client, "bucket.create", "['b', {'storage': 'memory'}]"));
    for (unsigned i = 0; i < 3; i++) {
        assert_ok(client_call(client, "txn.commit", "['b', [%s], [%s], {'timeout': 50}]", checks, operations));
        uint32_t commit = client_send(client, "txn.commit", "['b', [], [%s], {'timeout': 50}]", operations);
        uint32_t put = client_send(client, "kv.put", "['b', 'o0', 'v', {'timeout': 50}]");
        uint64_t first = number_at(&client_wait(client, commit)->result, "0");
        ck_assert_uint_eq(revision_of(client_wait(client, put)), first + LONG_OPERATIONS);
    }
    daemon_stop(&daemon_of_test);
}
END_TEST

/* With access rules, both calls wait until the daemon has asked for their bucket, and then begin together. */
START_TEST(a_call_that_ends_meanwhile_does_not_change_the_order)
{
    const char *operations = long_operations();

    daemon_start(&daemon_of_test, NULL, "access:\n  - {buckets: [\"*\"], allow: admin}\n");
    struct client *other = client_open(&daemon_of_test);
    assert_ok(client_call(other, "bucket.create", "['b']"));
    client_close(other);
    daemon_stop(&daemon_of_test);
    daemon_restart(&daemon_of_test);
    struct client *client = client_open(&daemon_of_test);
    other = client_open(&daemon_of_test);
    pid_t nats_server = daemon_nats_pid(&daemon_of_test);
    pid_suspend(nats_server);
    uint32_t commit = client_send(client, "txn.commit", "['b', [], [%s], {'timeout': 50}]", operations);
    uint32_t wrong = client_send(client, "bulk.delete", "['b', [1], {'timeout': 50}]");
    wait_for_stat(other, "calls_in_flight", 2 + 1);
    pid_resume(nats_server);
    assert_code(client_wait(client, wrong), "invalid_argument");
    uint32_t put = client_send(client, "kv.put", "['b', 'o0', 'v', {'timeout': 50}]");
    uint64_t first = number_at(&client_wait(client, commit)->result, "0");
    ck_assert_uint_eq(revision_of(client_wait(client, put)), first + LONG_OPERATIONS);
    daemon_stop(&daemon_of_test);
}
END_TEST

static uint64_t count_calls(struct client *client)
{
    struct answer *answer = client_call(client, "daemon.dump", "[{'limit': 1}]");

    ck_assert_uint_eq(count_at(&answer->result, "calls.list"), 1);
    return number_at(&answer->result, "calls.count");
}

/* A slow turn would be in the log: each visit of all of the calls took one. */
START_TEST(tens_of_thousands_of_waiting_gets_slow_down_neither_dumps_nor_the_end)
{
    enum { SESSIONS = 45, GETS = 1000 };

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    assert_ok(client_call(client, "bucket.create", "['b']"));
    for (unsigned i = 0; i < SESSIONS; i++) {
        msgpack_sbuffer buffer;
        msgpack_sbuffer_init(&buffer);
        for (unsigned n = 0; n < GETS; n++)
            pack_request(&buffer, n, "kv.get", "['b', 'k', {'wait_above': 1000000, 'timeout': 60}]");
        client_write(client_open(&daemon_of_test), buffer.data, buffer.size);
        msgpack_sbuffer_destroy(&buffer);
    }
    wait_until(count_calls(client) == SESSIONS * GETS + 1, "all gets");
    for (unsigned i = 0; i < 10; i++)
        client_send(client, "daemon.dump", "[{'limit': 1000}]");
    assert_ok(client_call(client, "daemon.dump", "[]"));
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(one_user_cannot_hold_all_sessions)
{
    daemon_start(&daemon_of_test, NULL, "limits:\n  sessions: 8\n  user_percent: 50\n");
    struct client *first = client_open(&daemon_of_test);

    for (unsigned i = 1; i < 4; i++)
        assert_ok(client_call(client_open(&daemon_of_test), "daemon.info", "[]"));
    struct client *refused = client_open(&daemon_of_test);
    assert_code_says(client_receive(refused), "resource_exhausted",
                     "has 4 sessions, and the limit of one user is 4 (limits.user_percent of limits.sessions)");
    client_expect_end(refused);
    assert_ok(client_call(first, "daemon.info", "[]"));
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *limit_suite(void)
{
    Suite *suite = suite_create("limit");
    TCase *frames = shared_daemon_case_with(suite, "frames", setup_small_frames, shared_daemon_teardown);
    TCase *calls = tcase_create("calls");

    tcase_add_test(frames, a_message_that_is_too_large_is_skipped_and_the_session_continues);
    tcase_add_test(frames, a_message_that_is_too_large_is_answered_before_it_is_whole);
    tcase_add_test(frames, a_message_of_exactly_the_limit_is_accepted);
    tcase_add_test(frames, a_large_message_whose_msgid_cannot_be_read_ends_the_session);
    tcase_add_test(frames, a_message_with_too_many_elements_ends_the_session);
    tcase_add_test(frames, a_message_that_is_nested_too_deep_ends_the_session);
    tcase_add_test(frames, bytes_that_are_no_messagepack_end_the_session);
    tcase_add_test(frames, a_header_that_claims_four_billion_elements_costs_nothing);
    tcase_add_test(frames, a_str_that_claims_four_gigabytes_costs_nothing);
    tcase_add_test(frames, an_answer_that_would_be_too_large_is_an_error);
    tcase_add_test(frames, keys_that_do_not_exist_are_not_added_to_an_answer_that_is_too_large);
    tcase_add_test(frames, daemon_info_lists_the_limits);

    tcase_add_test(calls, at_calls_per_session_the_daemon_stops_reading_and_loses_nothing);
    tcase_add_test(calls, at_the_limit_of_all_calls_more_are_refused);
    tcase_add_test(calls, an_unfinished_message_ends_its_session_after_a_timeout);
    tcase_add_test(calls, one_user_cannot_take_all_room_for_unfinished_messages);
    tcase_add_test(calls, decoded_arguments_count_at_their_size_in_memory);
    tcase_add_test(calls, unread_answers_of_all_sessions_together_are_bounded);
    tcase_add_test(calls, messages_that_end_in_the_middle_of_what_was_written_have_a_timeout_each);
    tcase_add_test(calls, what_was_done_is_answered_whatever_is_unread);
    tcase_add_test(calls, calls_that_wait_do_not_slow_down_others);
    tcase_add_test(calls, texts_of_megabytes_are_refused_before_they_are_read);
    tcase_add_test(calls, calls_with_megabytes_of_keys_are_done_in_slices);
    tcase_add_test(calls, transactions_of_megabytes_are_read_in_slices_and_in_order);
    tcase_add_test(calls, a_call_that_ends_meanwhile_does_not_change_the_order);
    tcase_add_test(calls, tens_of_thousands_of_waiting_gets_slow_down_neither_dumps_nor_the_end);
    tcase_add_test(calls, one_user_cannot_hold_all_sessions);
    tcase_add_test(calls, at_call_bytes_per_session_the_daemon_stops_reading_and_loses_nothing);
    tcase_add_test(calls, at_the_limit_of_all_call_bytes_more_are_refused);
    tcase_add_test(calls, headers_count_for_the_memory_of_calls);
    tcase_add_test(calls, a_page_of_entries_is_small_even_if_headers_are_large);
    tcase_add_test(calls, a_client_that_does_not_read_is_paused_and_then_disconnected);
    tcase_add_test(calls, a_slow_reader_is_not_disconnected);
    tcase_add_test(calls, answers_that_do_not_fit_become_errors_and_no_call_is_unanswered);
    tcase_add_test(calls, one_session_too_many_gets_an_error_and_is_closed);
    tcase_add_test(calls, clients_cannot_fill_the_log);
    tcase_add_test(calls, a_session_without_a_file_descriptor_gets_an_error_and_is_closed);
    tcase_add_test(calls, without_any_file_descriptor_each_connection_gets_an_error_and_is_closed);
    tcase_add_test(calls, a_refused_session_reads_a_request_before_it_is_closed);
    suite_add_tcase(suite, calls);
    return suite;
}
