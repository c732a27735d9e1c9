#include "daemon/nats/jetstream.h"
#include "tests/unit/suites.h"

#include <stdio.h>
#include <string.h>

/* "internal" is for bugs: no answer of the server, or of another program in its place, leads to it. */
START_TEST(no_error_of_the_server_is_internal)
{
    static const unsigned statuses[] = {0, 400, 404, 408, 409, 412, 413, 429, 500, 501, 503, 507, 999};
    struct error error;

    for (unsigned err_code = 10000; err_code < 10300; err_code++) {
        for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
            struct jetstream_error from = {statuses[i], err_code, "something went wrong"};
            jetstream_set_error(&error, &from);
            ck_assert_msg(error.code != ERROR_INTERNAL && error.code != ERROR_NONE, "status %u, err_code %u",
                          statuses[i], err_code);
        }
    }
}
END_TEST

START_TEST(errors_do_not_reveal_paths_of_the_servers_disk)
{
    static const struct {
        const char *said, *told;
    } texts[] = {
        {"open /var/lib/nats/jetstream/x/msgs/1.blk: no such file or directory",
         "NATS: open (path): no such file or directory (err_code 10077)"},
        {"could not create storage directory - mkdir \"/data\": permission denied",
         "NATS: could not create storage directory - mkdir \"(path)\": permission denied (err_code 10077)"},
        {"/data", "NATS: (path) (err_code 10077)"},
        {"rename /a /b", "NATS: rename (path) (path) (err_code 10077)"},
        {"expected subject $KV.b./a/b", "NATS: expected subject $KV.b./a/b (err_code 10077)"},
        {"connect to nats://host:4222", "NATS: connect to nats://host:4222 (err_code 10077)"},
        {"3/4 full", "NATS: 3/4 full (err_code 10077)"},
        {"", "NATS:  (err_code 10077)"},
    };
    struct error error;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        struct jetstream_error from = {503, 10077, texts[i].said};
        jetstream_set_error(&error, &from);
        ck_assert_str_eq(error.message, texts[i].told);
    }
    /* A description may have any length. */
    char text[600];
    for (size_t length = 200; length < sizeof(text); length++) {
        memset(text, 'x', length);
        memcpy(text + length - 10, " /some/dir", 10);
        text[length] = '\0';
        struct jetstream_error from = {503, 10077, text};
        jetstream_set_error(&error, &from);
        ck_assert_ptr_nonnull(strstr(error.message, "(err_code 10077)"));
        ck_assert_ptr_null(strstr(error.message, "/some"));
    }
}
END_TEST

START_TEST(a_stream_that_is_being_deleted_is_asked_again)
{
    struct jetstream_error closed = {500, 10051, "stream closed"}, store = {503, 10077, "store is closed"},
                           other = {503, 10077, "maximum bytes exceeded"};

    ck_assert_int_ne(jetstream_temporary_trouble(&closed), REQUEST_NO_TROUBLE);
    ck_assert_int_ne(jetstream_temporary_trouble(&store), REQUEST_NO_TROUBLE);
    ck_assert_int_eq(jetstream_temporary_trouble(&other), REQUEST_NO_TROUBLE);
}
END_TEST

Suite *jetstream_suite(void)
{
    Suite *suite = suite_create("jetstream");
    TCase *tests = tcase_create("jetstream");

    tcase_add_test(tests, no_error_of_the_server_is_internal);
    tcase_add_test(tests, errors_do_not_reveal_paths_of_the_servers_disk);
    tcase_add_test(tests, a_stream_that_is_being_deleted_is_asked_again);
    suite_add_tcase(suite, tests);
    return suite;
}
