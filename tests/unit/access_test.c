#include "daemon/rpc/access.h"
#include "tests/unit/suites.h"

#include <sys/socket.h>
#include <unistd.h>

static char *all_buckets[] = {"*"};
static char *some_group[] = {"4001"};

/* The kernel knows the groups of connected peers only: the groups of this socket cannot be read. */
START_TEST(a_rule_by_group_holds_against_a_peer_whose_groups_cannot_be_read)
{
    struct conf_access_rule rules[] = {
        {.groups = {some_group, 1}, .buckets = {all_buckets, 1}, .allow = CONF_ACCESS_READ},
        {.buckets = {all_buckets, 1}, .allow = CONF_ACCESS_ADMIN},
    };
    struct conf conf = {.access = {rules, 2}};
    struct access access = {0};
    char error[CONF_ERROR_BYTES];
    int unconnected = socket(AF_UNIX, SOCK_STREAM, 0), ends[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    ck_assert_int_eq(access_set_rules(&access, &conf, error), 0);
    ck_assert_int_eq(access_of(&access, &(struct access_peer){0}, ends[0], "b"), CONF_ACCESS_ADMIN);
    ck_assert_int_eq(access_of(&access, &(struct access_peer){0}, unconnected, "b"), CONF_ACCESS_READ);
    rules[0].allow = CONF_ACCESS_NONE;
    ck_assert_int_eq(access_of(&access, &(struct access_peer){0}, unconnected, "b"), CONF_ACCESS_NONE);
    /* The rule allows nothing to a peer that may not be in the group. */
    rules[0].allow = CONF_ACCESS_ADMIN;
    rules[1].allow = CONF_ACCESS_READ;
    ck_assert_int_eq(access_of(&access, &(struct access_peer){0}, unconnected, "b"), CONF_ACCESS_READ);
    access_free(&access);
    close(unconnected);
    close(ends[0]);
    close(ends[1]);
}
END_TEST

Suite *access_suite(void)
{
    Suite *suite = suite_create("access");
    TCase *tests = tcase_create("access");

    tcase_add_test(tests, a_rule_by_group_holds_against_a_peer_whose_groups_cannot_be_read);
    suite_add_tcase(suite, tests);
    return suite;
}
