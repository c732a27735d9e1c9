#include "tests/support/daemon.h"

#include "tests/support/machine.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

struct daemon shared_daemon;

void daemon_prepare(struct daemon *daemon)
{
    memset(daemon, 0, sizeof(*daemon));
    test_run_make_directory(daemon->directory);
    snprintf(daemon->process.log_path, PATH_BYTES, "%.200s/log", daemon->directory);
    snprintf(daemon->socket_path, PATH_BYTES, "%.200s/kvstored.sock", daemon->directory);
    snprintf(daemon->conf_path, PATH_BYTES, "%.200s/kvstored.yaml", daemon->directory);
    snprintf(daemon->data_dir, PATH_BYTES, "%.200s/data", daemon->directory);
}

/*
 * A busy machine may take long for what an idle one does at once. A test that is about one of these times sets it by
 * itself.
 */
static const char *const daemon_patient_nats[] = {"ping_interval: 60", "outage_wait: 60", NULL};
static const char *const daemon_patient_calls[] = {"timeout: " DAEMON_CALL_TIMEOUT_TEXT, "drain_timeout: 60", NULL};

/* Return those members that the text does not have, a line each. */
static const char *daemon_missing_members(const char *text, const char *const *members)
{
    const char *missing = "";

    for (; *members != NULL; members++) {
        if (strstr(text, format_text("  %.*s:", (int)strcspn(*members, ":"), *members)) == NULL)
            missing = format_text("%s  %s\n", missing, *members);
    }
    return missing;
}

/* Return the members of the section nats. */
static const char *daemon_nats_members(const struct daemon *daemon, const char *nats)
{
    bool is_whole = strstr(nats, "mode: external") != NULL || strstr(nats, "data_dir:") != NULL;

    if (!is_whole)
        nats = format_text("  mode: embedded\n  data_dir: %s\n  server_binary: %s\n%s", daemon->data_dir,
                           test_run_nats_server(), nats);
    return format_text("%s%s", nats, daemon_missing_members(nats, daemon_patient_nats));
}

void daemon_configure(struct daemon *daemon, const char *nats, const char *more)
{
    /* A section that more has must not be there twice. */
    const char *sections = more != NULL ? more : "", *calls = strstr(sections, "calls:\n");
    bool has_listen = strncmp(sections, "listen:", strlen("listen:")) == 0;
    bool has_calls = calls != NULL && (calls == sections || calls[-1] == '\n');
    const char *listen = has_listen ? "" : format_text("listen:\n  path: %s\n", daemon->socket_path);

    if (has_calls) {
        const char *members = calls + strlen("calls:\n");
        sections = format_text("%.*s%s%s", (int)(members - sections), sections,
                               daemon_missing_members(sections, daemon_patient_calls), members);
    } else {
        sections = format_text("%scalls:\n%s", sections, daemon_missing_members("", daemon_patient_calls));
    }
    /* No client may occupy the loop for long. On a quiet machine turns stay below 10 ms. */
    const char *log = strstr(sections, "log:") == NULL ? machine_log_section(TURN_MS) : "";
    write_file(daemon->conf_path,
               format_text("%s%snats:\n%s%s", listen, log,
                           daemon_nats_members(daemon, nats != NULL ? nats : DAEMON_SYNCS_SELDOM), sections));
}

unsigned daemon_conf_line(const struct daemon *daemon, const char *text)
{
    const char *conf = read_file(daemon->conf_path), *found = strstr(conf, text);
    unsigned line = 1;

    ck_assert_ptr_nonnull(found);
    for (; conf < found; conf++)
        line += *conf == '\n';
    return line;
}

int daemon_listen_without_file(struct sockaddr_un *address, socklen_t *length)
{
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    *length = sizeof(address->sun_family); /* the kernel chooses an abstract name */
    ck_assert_int_eq(bind(listener, (struct sockaddr *)address, *length), 0);
    ck_assert_int_eq(listen(listener, 16), 0);
    *length = sizeof(*address);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)address, length), 0);
    return listener;
}

int daemon_listen_as_socket_unit(const struct daemon *daemon)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", daemon->socket_path);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(listener, 4096), 0);
    return listener;
}

void daemon_spawn(struct daemon *daemon, char *const *extra, int fd_3)
{
    char *arguments[] = {keep(strdup(test_run_kvstored())), "--config", daemon->conf_path, NULL};

    process_start_with(&daemon->process, arguments, extra, fd_3);
}

const char *daemon_log(const struct daemon *daemon)
{
    const char *log = read_file(daemon->process.log_path);
    size_t length = strlen(log);

    return log + (daemon->log_mark < length ? daemon->log_mark : length);
}

void daemon_mark_log(struct daemon *daemon)
{
    daemon->log_mark = strlen(read_file(daemon->process.log_path));
}

void daemon_wait_log(struct daemon *daemon, const char *text)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    for (;;) {
        bool has_ended = process_has_ended(&daemon->process);
        const char *log = daemon_log(daemon), *found = strstr(log, text);

        if (found != NULL) {
            daemon->log_mark += (size_t)(found - log) + strlen(text);
            return;
        }
        ck_assert_msg(!has_ended && now_ms() < end, "the daemon %s, and its log does not say \"%s\":\n%s",
                      has_ended ? "has ended" : "runs", text, read_file(daemon->process.log_path));
        pause_shortly();
    }
}

void daemon_wait_ready(struct daemon *daemon)
{
    daemon_wait_log(daemon, "ready: kvstored");
}

void daemon_start(struct daemon *daemon, const char *nats, const char *more)
{
    daemon_prepare(daemon);
    daemon_configure(daemon, nats, more);
    daemon_spawn(daemon, NULL, -1);
    daemon_wait_ready(daemon);
}

void daemon_restart(struct daemon *daemon)
{
    daemon_mark_log(daemon);
    daemon_spawn(daemon, NULL, -1);
    daemon_wait_ready(daemon);
}

/* Check ends a test program without a word if a message is longer than 4 KB. */
#define MESSAGE_BYTES_MAX 3000

/* Return what is wrong with an ended daemon; NULL: nothing. */
static const char *daemon_find_trouble(const struct daemon *daemon)
{
    static const char *const reports[] = {"AddressSanitizer", "LeakSanitizer", "runtime error:", "internal error",
                                          "slow turn:"};
    const char *log = read_file(daemon->process.log_path);

    for (size_t i = 0; i < sizeof(reports) / sizeof(reports[0]); i++) {
        const char *found = strstr(log, reports[i]);
        if (found != NULL)
            return format_text("its log has \"%s\":\n%.*s", reports[i], MESSAGE_BYTES_MAX, found);
    }
    if (!WIFEXITED(daemon->process.status) || WEXITSTATUS(daemon->process.status) != 0)
        return format_text("its wait status is 0x%x; the end of its log:\n%s", (unsigned)daemon->process.status,
                           strlen(log) > MESSAGE_BYTES_MAX ? log + strlen(log) - MESSAGE_BYTES_MAX : log);
    return NULL;
}

void daemon_expect_good_end(struct daemon *daemon)
{
    process_wait(&daemon->process);
    const char *wrong = daemon_find_trouble(daemon);
    ck_assert_msg(wrong == NULL, "the daemon has not ended well: %s", wrong);
}

void daemon_stop(struct daemon *daemon)
{
    process_signal(&daemon->process, SIGTERM);
    daemon_expect_good_end(daemon);
}

pid_t daemon_nats_pid(const struct daemon *daemon)
{
    const char *text = read_file(format_text("%s/nats-server.pid", daemon->data_dir));
    pid_t pid = (pid_t)atoi(text);

    ck_assert_int_gt(pid, 1);
    return pid;
}

/* --- One daemon for the tests of a case ------------------------------------------------------------ */

void shared_daemon_setup(void)
{
    daemon_start(&shared_daemon, NULL, NULL);
}

void shared_daemon_teardown(void)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    /* Nothing may fail outside of the tests' processes. The next case checks how the daemon has ended. */
    if (shared_daemon.process.pid == 0)
        return;
    kill(shared_daemon.process.pid, SIGTERM);
    while (!process_has_ended(&shared_daemon.process) && now_ms() < end)
        pause_shortly();
}

START_TEST(the_daemon_of_these_tests_has_ended_well)
{
    daemon_expect_good_end(&shared_daemon);
}
END_TEST

TCase *shared_daemon_case_with(Suite *suite, const char *name, void (*setup)(void), void (*teardown)(void))
{
    TCase *tests = tcase_create(name), *end = tcase_create("end");

    tcase_add_unchecked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, TEST_TIMEOUT_S);
    tcase_set_timeout(end, TEST_TIMEOUT_S);
    tcase_add_test(end, the_daemon_of_these_tests_has_ended_well);
    suite_add_tcase(suite, tests);
    suite_add_tcase(suite, end);
    return tests;
}

TCase *shared_daemon_case(Suite *suite, const char *name)
{
    return shared_daemon_case_with(suite, name, shared_daemon_setup, shared_daemon_teardown);
}
