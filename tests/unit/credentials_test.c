#include "daemon/nats/credentials.h"
#include "tests/unit/suites.h"

#include <arpa/inet.h>
#include <check.h>
#include <netinet/in.h>
#include <string.h>

START_TEST(only_loopback_addresses_stay_on_the_machine)
{
    static const struct {
        const char *text;
        bool leaves;
    } addresses[] = {{"127.0.0.1", false},        {"127.8.9.1", false},     {"10.0.0.1", true},
                     {"128.0.0.1", true},         {"::1", false},           {"fe80::1", true},
                     {"::ffff:127.0.0.1", false}, {"::ffff:10.0.0.1", true}};
    struct sockaddr_storage storage;

    memset(&storage, 0, sizeof(storage));
    bool is_v6 = strchr(addresses[_i].text, ':') != NULL;
    storage.ss_family = is_v6 ? AF_INET6 : AF_INET;
    void *bytes = is_v6 ? (void *)&((struct sockaddr_in6 *)&storage)->sin6_addr
                        : (void *)&((struct sockaddr_in *)&storage)->sin_addr;
    ck_assert_int_eq(inet_pton(storage.ss_family, addresses[_i].text, bytes), 1);
    ck_assert_int_eq(credentials_leave_machine((struct sockaddr *)&storage), addresses[_i].leaves);
}
END_TEST

START_TEST(credentials_that_a_plain_connection_would_reveal_are_named)
{
    static char user[] = "u", secret[] = "s";
    const struct connection_target theirs = {0}, ours = {.user = user, .password = secret};
    struct conf conf = {0};

    ck_assert_ptr_null(credentials_in_clear_text(&conf, &theirs));
    conf.nats.nkey_seed = secret; /* only a signature is sent */
    ck_assert_ptr_null(credentials_in_clear_text(&conf, &theirs));
    conf.nats.token = secret;
    ck_assert_str_eq(credentials_in_clear_text(&conf, &theirs), "nats.token");
    conf.nats.password = secret;
    ck_assert_str_eq(credentials_in_clear_text(&conf, &theirs), "nats.password");
    ck_assert_ptr_null(credentials_in_clear_text(&conf, &ours));
}
END_TEST

Suite *credentials_suite(void)
{
    Suite *suite = suite_create("credentials");
    TCase *tests = tcase_create("credentials");

    tcase_add_loop_test(tests, only_loopback_addresses_stay_on_the_machine, 0, 8);
    tcase_add_test(tests, credentials_that_a_plain_connection_would_reveal_are_named);
    suite_add_tcase(suite, tests);
    return suite;
}
