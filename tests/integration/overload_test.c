/* One client that asks for much at once: the others, and the connection to NATS, must not suffer. */
#include "tests/integration/client.h"
#include "tests/integration/suites.h"

START_TEST(large_values_that_are_read_at_once_do_not_cost_the_connection)
{
    struct client *greedy = client_open_shared(), *other = client_open_shared();
    const char *bucket = client_new_bucket(greedy, "'storage': 'memory'");
    size_t size = 900000;
    char *value = keep(calloc(1, size));
    msgpack_sbuffer buffer;
    struct answer *answer;

    assert_ok(client_put(greedy, bucket, "large", value, size));
    assert_ok(client_call(other, "kv.put", "['%s', 'small', 'v']", bucket));
    msgpack_sbuffer_init(&buffer);
    for (unsigned i = 0; i < 500; i++)
        pack_request(&buffer, 1000 + i, "kv.get", "['%s', 'large']", bucket);
    client_write(greedy, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);

    /* Each is answered, with the value or with what to do about it, and in the meantime so is everybody else. */
    for (unsigned i = 0; i < 500; i++) {
        answer = client_receive(greedy);
        if (answer->error.type != MSGPACK_OBJECT_NIL)
            assert_code(answer, "resource_exhausted");
        if (i % 50 == 0)
            assert_ok(client_call(other, "kv.get", "['%s', 'small']", bucket));
    }
    answer = client_call(other, "health.check", "[]");
    ck_assert(bool_at(&answer->result, "healthy"));
    ck_assert_uint_eq(number_at(&answer->result, "nats.reconnects"), 0);
}
END_TEST

Suite *overload_suite(void)
{
    Suite *suite = suite_create("overload");
    TCase *tests = shared_daemon_case(suite, "overload");

    tcase_add_test(tests, large_values_that_are_read_at_once_do_not_cost_the_connection);
    return suite;
}
