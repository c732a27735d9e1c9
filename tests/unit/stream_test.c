/* What the acks say about a bucket's stream. */
#include "daemon/store/bucket/stream.h"
#include "tests/unit/suites.h"

/* Acks arrive in another order than the messages were stored in. */
START_TEST(an_ack_never_lowers_the_last_sequence)
{
    struct stream_state stream = {.keeper = 1};

    stream_note_sequence(&stream, 7, 1);
    stream_note_sequence(&stream, 5, 1);
    ck_assert_uint_eq(stream.last_sequence, 7);
}
END_TEST

/* A sequence that the stream no longer has must not vouch for messages that are stored under lower ones. */
START_TEST(the_first_ack_of_a_restarted_server_replaces_the_last_sequence)
{
    struct stream_state stream = {.keeper = 1, .last_sequence = 100};

    stream_note_sequence(&stream, 50, 2);
    ck_assert_uint_eq(stream.last_sequence, 50);
    ck_assert_uint_eq(stream.keeper, 2);
    stream_note_sequence(&stream, 51, 2);
    ck_assert_uint_eq(stream.last_sequence, 51);
}
END_TEST

Suite *stream_suite(void)
{
    Suite *suite = suite_create("stream");
    TCase *tests = tcase_create("stream");

    tcase_add_test(tests, an_ack_never_lowers_the_last_sequence);
    tcase_add_test(tests, the_first_ack_of_a_restarted_server_replaces_the_last_sequence);
    suite_add_tcase(suite, tests);
    return suite;
}
