/* Embedded mode: the nats-server that the daemon runs. */
#include "tests/integration/load.h"
#include "tests/integration/suites.h"
#include "tests/support/client.h"
#include "tests/support/nats.h"
#include "tests/support/nats_server.h"

#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct daemon daemon_of_test;

static void wait_until_dead(pid_t pid)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    while (pid_is_alive(pid)) {
        ck_assert_msg(now_ms() < end, "pid %d is still there", (int)pid);
        pause_shortly();
    }
}

START_TEST(writes_survive_a_restart)
{
    daemon_start(&daemon_of_test, DAEMON_SYNCS_ALWAYS, NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, "'history': 3");

    uint64_t revision = revision_of(client_call(client, "kv.put", "['%s', 'color', 'blue']", bucket));
    daemon_stop(&daemon_of_test);
    daemon_restart(&daemon_of_test);
    client = client_open(&daemon_of_test);
    struct answer *answer = client_call(client, "kv.get", "['%s', 'color']", bucket);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "value"), "blue");
    ck_assert_uint_eq(number_at(&answer->result, "revision"), revision);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_killed_daemon_leaves_no_server_and_loses_no_write)
{
    daemon_start(&daemon_of_test, DAEMON_SYNCS_ALWAYS, NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    pid_t server = daemon_nats_pid(&daemon_of_test);

    for (unsigned i = 0; i < 100; i++)
        assert_ok(client_call(client, "kv.put", "['%s', 'k%u', '%u']", bucket, i, i));
    process_kill(&daemon_of_test.process);
    wait_until_dead(server);
    /* The socket's file still exists, and nobody serves it. */
    ck_assert_int_eq(access(daemon_of_test.socket_path, F_OK), 0);
    daemon_restart(&daemon_of_test);
    client = client_open(&daemon_of_test);
    for (unsigned i = 0; i < 100; i++) {
        struct answer *answer = client_call(client, "kv.get", "['%s', 'k%u']", bucket, i);
        assert_ok(answer);
        ck_assert_str_eq(text_at(&answer->result, "value"), format_text("%u", i));
    }
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_killed_server_is_restarted_and_no_call_fails)
{
    struct load load;

    daemon_start(&daemon_of_test, DAEMON_SYNCS_ALWAYS, NULL);
    pid_t before = daemon_nats_pid(&daemon_of_test);
    load_begin(&load, &daemon_of_test, 1500);
    load_wait_for_some(&load, 200);
    ck_assert_int_eq(kill(before, SIGKILL), 0);
    load_wait_for_some(&load, 700);
    load_finish(&load);
    pid_t after = daemon_nats_pid(&daemon_of_test);
    ck_assert_int_ne(before, after);
    struct answer *answer = client_call(client_open(&daemon_of_test), "health.check", "[]");
    ck_assert(bool_at(&answer->result, "healthy"));
    ck_assert_uint_eq(number_at(&answer->result, "nats.reconnects"), 1);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(repeated_kills_of_the_server_lose_nothing)
{
    struct load load;

    daemon_start(&daemon_of_test, DAEMON_SYNCS_ALWAYS, NULL);
    load_begin(&load, &daemon_of_test, 1200);
    for (unsigned i = 0; i < 3; i++) {
        load_wait_for_some(&load, 300);
        ck_assert_int_eq(kill(daemon_nats_pid(&daemon_of_test), SIGKILL), 0);
        /* The file names the next server as soon as that listens. */
        daemon_wait_log(&daemon_of_test, "starting it again");
        daemon_wait_log(&daemon_of_test, "nats: connected");
    }
    load_finish(&load);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_server_that_is_killed_while_idle_is_back_for_the_next_call)
{
    daemon_start(&daemon_of_test, DAEMON_SYNCS_ALWAYS, NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);

    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'blue']", bucket));
    ck_assert_int_eq(kill(daemon_nats_pid(&daemon_of_test), SIGKILL), 0);
    daemon_wait_log(&daemon_of_test, "starting it again");
    struct answer *answer = client_call(client, "kv.get", "['%s', 'color']", bucket);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "value"), "blue");
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(only_the_daemon_can_log_in_to_the_server)
{
    struct stat status;

    daemon_start(&daemon_of_test, DAEMON_SYNCS_ALWAYS, NULL);
    /* Only the daemon's user may read the secret. */
    const char *conf = format_text("%s/nats-server.conf", daemon_of_test.data_dir);
    ck_assert_int_eq(stat(conf, &status), 0);
    ck_assert_uint_eq(status.st_mode & 0777, 0600);
    ck_assert_int_eq(stat(daemon_of_test.data_dir, &status), 0);
    ck_assert_uint_eq(status.st_mode & 0777, 0700);
    const char *text = read_file(conf);
    ck_assert_ptr_nonnull(strstr(text, "host: \"127.0.0.1\""));
    ck_assert_ptr_nonnull(strstr(text, "sync_interval: always"));
    /* With the secret, the server answers. */
    nats_connect_embedded(daemon_of_test.data_dir);
    const char *first = format_text("%s", strstr(text, "password:"));
    daemon_stop(&daemon_of_test);
    daemon_restart(&daemon_of_test);
    ck_assert_msg(strncmp(strstr(read_file(conf), "password:"), first, 40) != 0, "the secret is the same as before");
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Return the port of the embedded server, from the log. */
static unsigned embedded_port(const struct daemon *daemon)
{
    static const char says[] = "nats-server: listens on 127.0.0.1:";
    const char *line = strstr(read_file(daemon->process.log_path), says);

    ck_assert_ptr_nonnull(line);
    return (unsigned)atoi(line + strlen(says));
}

/* Connect and send a wrong password; wait until the server has refused it. */
static void log_in_wrongly(unsigned port)
{
    static const char wrong[] = "CONNECT {\"user\":\"kvstored\",\"pass\":\"guess\"}\r\nPING\r\n";
    char answer[4096];
    int stranger = port_dial(port);

    ck_assert_int_ge(stranger, 0);
    ck_assert_int_eq(write(stranger, wrong, strlen(wrong)), (ssize_t)strlen(wrong));
    while (read(stranger, answer, sizeof(answer)) > 0)
        ;
    close(stranger);
}

START_TEST(strangers_cannot_fill_the_log)
{
    enum { ATTEMPTS = 500 };

    daemon_start(&daemon_of_test, NULL, NULL);
    unsigned port = embedded_port(&daemon_of_test);
    uint64_t start = now_ms();
    for (unsigned i = 0; i < ATTEMPTS; i++)
        log_in_wrongly(port);
    unsigned seconds = (unsigned)((now_ms() - start) / 1000) + 2;
    daemon_wait_log(&daemon_of_test, "authentication error");
    unsigned lines = 0;
    for (const char *at = daemon_log(&daemon_of_test); (at = strstr(at, "authentication error")) != NULL; at++)
        lines++;
    ck_assert_uint_le(lines, seconds * 10);
    ck_assert_uint_lt(lines, ATTEMPTS);

    /* Suppressed messages are counted, after one more. */
    wait_until(now_ms() - start > (seconds + 1) * 1000, "another second");
    log_in_wrongly(port);
    daemon_wait_log(&daemon_of_test, "similar messages suppressed (logins at nats-server failed)");
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Strangers that never log in may hold connections: fewer than the server accepts, and not for long. */
START_TEST(strangers_do_not_keep_the_daemon_from_its_server)
{
    enum { STRANGERS = 300 };
    int held[STRANGERS];
    char byte[1024];

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    unsigned port = embedded_port(&daemon_of_test);
    for (unsigned i = 0; i < STRANGERS; i++)
        ck_assert_int_ge(held[i] = port_dial(port), 0);
    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'blue']", bucket));
    /* The server closes each of these connections without an error message. */
    for (unsigned i = 0; i < STRANGERS; i++) {
        while (read(held[i], byte, sizeof(byte)) > 0)
            ;
        close(held[i]);
    }
    const char *conf = read_file(format_text("%s/nats-server.conf", daemon_of_test.data_dir));
    ck_assert_ptr_nonnull(strstr(conf, "timeout: 1 }"));
    ck_assert_ptr_nonnull(strstr(conf, "max_connections: "));
    daemon_stop(&daemon_of_test);
}
END_TEST

#define STRANGERS 100

/* Return how many strangers the kernel connects while the server accepts nobody. */
static unsigned count_waiting_strangers(const struct daemon *daemon)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)embedded_port(daemon))};
    struct pollfd strangers[STRANGERS];
    unsigned waiting = 0;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ck_assert_int_eq(kill(daemon_nats_pid(daemon), SIGSTOP), 0);
    for (unsigned i = 0; i < STRANGERS; i++) {
        strangers[i] = (struct pollfd){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), .events = POLLOUT};
        ck_assert_int_ge(strangers[i].fd, 0);
        connect(strangers[i].fd, (struct sockaddr *)&address, sizeof(address));
    }
    poll(strangers, STRANGERS, 0);
    for (unsigned i = 0; i < STRANGERS; i++) {
        waiting += (strangers[i].revents & POLLOUT) != 0;
        close(strangers[i].fd);
    }
    ck_assert_int_eq(kill(daemon_nats_pid(daemon), SIGCONT), 0);
    return waiting;
}

START_TEST(few_strangers_can_wait_at_the_port_of_the_server)
{
    daemon_start(&daemon_of_test, "  hang_timeout: 600\n", NULL);
    if (strstr(daemon_log(&daemon_of_test), "many strangers can wait") != NULL) {
        test_run_skip("the queue at the port of nats-server", "pidfd_getfd is not allowed here");
    } else {
        wait_until(count_waiting_strangers(&daemon_of_test) > 0, "a connection");
        ck_assert_uint_lt(count_waiting_strangers(&daemon_of_test), STRANGERS / 2);
    }
    assert_ok(client_call(client_open(&daemon_of_test), "bucket.create", "['b']"));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* The text of a client may fill many lines of the relay's buffer, and look like the server's own. */
START_TEST(a_stranger_cannot_forge_the_server_s_errors)
{
    char login[4000] = "CONNECT {\"user\":\"";
    char answer[4096];

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    pid_t server = daemon_nats_pid(&daemon_of_test);
    while (strlen(login) < sizeof(login) - 100)
        strcat(login, "] [ERR] critical write error ");
    strcat(login, "\",\"pass\":\"guess\"}\r\nPING\r\n");
    int stranger = port_dial(embedded_port(&daemon_of_test));
    ck_assert_int_ge(stranger, 0);
    ck_assert_int_eq(write(stranger, login, strlen(login)), (ssize_t)strlen(login));
    while (read(stranger, answer, sizeof(answer)) > 0)
        ;
    close(stranger);
    daemon_wait_log(&daemon_of_test, "nats-server: (continued) ");
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    ck_assert(bool_at(&client_call(client, "health.check", "[]")->result, "healthy"));
    ck_assert_int_eq(daemon_nats_pid(&daemon_of_test), server);
    daemon_stop(&daemon_of_test);
}
END_TEST

static const char *password_line(const struct daemon *daemon)
{
    const char *line = strstr(read_file(format_text("%s/nats-server.conf", daemon->data_dir)), "password: ");

    ck_assert_ptr_nonnull(line);
    return format_text("%.*s", (int)strcspn(line, "\n"), line);
}

/* Whoever takes the server's port while it is down must not be sent its password, which the next server would have. */
START_TEST(nobody_else_gets_the_password_while_the_server_is_down)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int impostor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL), *password = password_line(&daemon_of_test);
    address.sin_port = htons((uint16_t)embedded_port(&daemon_of_test));
    setsockopt(impostor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    pid_suspend(daemon_of_test.process.pid);
    kill(daemon_nats_pid(&daemon_of_test), SIGKILL);
    wait_until(bind(impostor, (const struct sockaddr *)&address, sizeof(address)) == 0, "the port");
    ck_assert_int_eq(listen(impostor, 10), 0);
    daemon_mark_log(&daemon_of_test);
    pid_resume(daemon_of_test.process.pid);
    /* After some failures the server takes another port. */
    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v', {'timeout': 40}]", bucket));
    ck_assert_int_eq(accept(impostor, NULL, NULL), -1);
    ck_assert_str_ne(password_line(&daemon_of_test), password);
    close(impostor);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* A program that prints the real server's version, and otherwise runs the commands. */
static void write_server_script(const char *path, const char *commands)
{
    write_program(path, format_text("#!/bin/sh\n[ \"$1\" = --version ] && exec %s --version\n%s",
                                    test_run_nats_server(), commands));
}

static void configure_program(const char *program, const char *more)
{
    daemon_configure(&daemon_of_test,
                     format_text("  data_dir: %s\n  server_binary: %s\n%s", daemon_of_test.data_dir, program, more),
                     NULL);
}

/* The daemon must log the reason and end by itself, with the status that the unit does not restart. */
static void expect_refusal(const char *program, const char *why)
{
    configure_program(program, "");
    daemon_spawn(&daemon_of_test, NULL, -1);
    process_wait(&daemon_of_test.process);
    const char *log = daemon_log(&daemon_of_test);
    ck_assert_msg(WIFEXITED(daemon_of_test.process.status), "%s", log);
    ck_assert_int_eq(WEXITSTATUS(daemon_of_test.process.status), 2);
    const char *found = strstr(log, why);
    ck_assert_msg(found != NULL, "%s", log);
    ck_assert_ptr_null(strstr(found + 1, why));
    ck_assert_ptr_null(strstr(log, "starting it again"));
    ck_assert_int_ne(access(daemon_of_test.socket_path, F_OK), 0);
}

/* However many sessions come, the daemon has descriptors for a reload, a new server, and a connection to it. */
START_TEST(without_descriptors_for_sessions_the_daemon_reloads_and_replaces_its_server)
{
    enum { FILES = 64, AT_ONCE = 200 };
    const struct rlimit few = {FILES, FILES};
    struct client *late[AT_ONCE];
    msgpack_sbuffer request;
    unsigned refused = 0;

    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *first = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(first, NULL);
    ck_assert_int_eq(prlimit(daemon_of_test.process.pid, RLIMIT_NOFILE, &few, NULL), 0);
    for (unsigned i = 0; i < FILES; i++)
        client_open(&daemon_of_test);
    msgpack_sbuffer_init(&request);
    pack_request(&request, 1, "daemon.info", "[]");
    for (unsigned round = 0; round < 3; round++) {
        /* All of this happens in one turn of the daemon's loop. */
        pid_t server = daemon_nats_pid(&daemon_of_test);
        daemon_mark_log(&daemon_of_test);
        pid_suspend(daemon_of_test.process.pid);
        for (unsigned i = 0; i < AT_ONCE; i++) {
            late[i] = client_open(&daemon_of_test);
            client_write_some(late[i], request.data, request.size);
        }
        process_signal(&daemon_of_test.process, SIGHUP);
        ck_assert_int_eq(kill(server, SIGKILL), 0);
        pid_resume(daemon_of_test.process.pid);

        /* No session is closed without an error. One may get a descriptor that the lost connection to NATS had. */
        for (unsigned i = 0; i < AT_ONCE; i++) {
            struct answer *answer = client_receive(late[i]);
            if (!answer->has_msgid) {
                assert_code_says(answer, "resource_exhausted", "ulimit -n");
                refused++;
            }
            client_close(late[i]);
        }
        daemon_wait_log(&daemon_of_test, "is in effect");
        assert_ok(client_call(first, "kv.put", "['%s', 'round', '%u']", bucket, round));
        ck_assert_int_ne(daemon_nats_pid(&daemon_of_test), server);
    }
    ck_assert_uint_gt(refused, 2 * AT_ONCE);
    msgpack_sbuffer_destroy(&request);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_server_that_is_too_old_is_refused_once)
{
    daemon_prepare(&daemon_of_test);
    const char *program = format_text("%s/nats-server", daemon_of_test.directory);
    write_program(program, "#!/bin/sh\necho 'nats-server: v2.11.9'\n");
    expect_refusal(program, "nats-server 2.11.9 is too old: 2.12 or later is needed");
}
END_TEST

START_TEST(a_program_that_is_no_server_is_refused_once)
{
    daemon_prepare(&daemon_of_test);
    expect_refusal("/bin/true", "/true is not a nats-server: ");
    daemon_mark_log(&daemon_of_test);
    const char *program = format_text("%s/nats-server", daemon_of_test.directory);
    write_program(program, "#!/bin/sh\nexit 3\n");
    expect_refusal(program, "is not a nats-server: with --version it prints nothing and exits with status 3");
    daemon_mark_log(&daemon_of_test);
    write_file(program, "no program at all\n");
    expect_refusal(program, "is not a nats-server: with --version it prints nothing and exits with status 127");
}
END_TEST

START_TEST(the_daemon_does_not_wait_for_a_program_that_does_not_say_its_version)
{
    daemon_prepare(&daemon_of_test);
    const char *program = format_text("%s/nats-server", daemon_of_test.directory);
    write_program(program, "#!/bin/sh\nsleep 300\n");
    configure_program(program, "");
    daemon_spawn(&daemon_of_test, NULL, -1);
    daemon_wait_log(&daemon_of_test, "listening on");
    struct answer *answer = client_call(client_open(&daemon_of_test), "health.check", "[]");
    assert_ok(answer);
    ck_assert(!bool_at(&answer->result, "healthy"));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Call health.check until the answer has the text. */
static void wait_for_trouble(struct client *client, const char *text)
{
    struct answer *answer;

    do {
        answer = client_call(client, "health.check", "[]");
        assert_ok(answer);
    } while (bool_at(&answer->result, "healthy") || strstr(text_at(&answer->result, "error"), text) == NULL);
}

START_TEST(a_server_that_hangs_is_replaced_and_health_says_so)
{
    daemon_start(&daemon_of_test, DAEMON_SYNCS_SELDOM "  hang_timeout: 5\n", NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    assert_ok(client_call(client, "kv.put", "['%s', 'color', 'blue']", bucket));
    pid_t server = daemon_nats_pid(&daemon_of_test);

    daemon_mark_log(&daemon_of_test);
    pid_suspend(server);
    uint32_t msgid = client_send(client, "kv.put", "['%s', 'color', 'red']", bucket);
    wait_for_trouble(client_open(&daemon_of_test), format_text("nats-server, pid %d, has not answered", (int)server));
    daemon_wait_log(&daemon_of_test, format_text("pid %d has not answered for 5 s (nats.hang_timeout)", (int)server));
    daemon_wait_log(&daemon_of_test, "starting it again");
    assert_ok(client_wait(client, msgid));
    wait_until_dead(server);
    struct answer *answer = client_call(client, "health.check", "[]");
    ck_assert(bool_at(&answer->result, "healthy"));
    answer = client_call(client, "kv.get", "['%s', 'color']", bucket);
    assert_ok(answer);
    ck_assert_str_eq(text_at(&answer->result, "value"), "red");
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_server_that_hangs_at_its_start_is_replaced)
{
    daemon_prepare(&daemon_of_test);
    const char *program = format_text("%s/nats-server", daemon_of_test.directory);
    const char *mark = format_text("%s/has-hung", daemon_of_test.directory);
    write_server_script(program, format_text("[ -e %s ] || { : >%s; kill -STOP $$; }\nexec %s \"$@\"\n", mark, mark,
                                             test_run_nats_server()));
    configure_program(program, "  hang_timeout: 1\n");
    daemon_spawn(&daemon_of_test, NULL, -1);
    daemon_wait_log(&daemon_of_test, "(nats.hang_timeout); killing it");
    daemon_wait_ready(&daemon_of_test);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* The answer to the probe counts, not only what comes on the daemon's own connection. */
START_TEST(an_idle_server_is_not_replaced)
{
    daemon_start(&daemon_of_test, DAEMON_SYNCS_SELDOM "  hang_timeout: 3\n", NULL);
    pid_t server = daemon_nats_pid(&daemon_of_test);
    uint64_t start = now_ms();
    struct client *client = client_open(&daemon_of_test);

    /* Longer than hang_timeout; health.check sends nothing to the server. */
    wait_until(now_ms() - start > 5000, "five seconds");
    assert_ok(client_call(client, "health.check", "[]"));
    ck_assert_int_eq(daemon_nats_pid(&daemon_of_test), server);
    ck_assert_ptr_null(strstr(read_file(daemon_of_test.process.log_path), "killing it"));
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_server_that_cannot_start_is_retried_and_reported)
{
    daemon_prepare(&daemon_of_test);
    const char *program = format_text("%s/nats-server", daemon_of_test.directory);
    write_server_script(program, "echo 'no such luck' >&2\nexit 3\n");
    configure_program(program, "");
    daemon_spawn(&daemon_of_test, NULL, -1);
    daemon_wait_log(&daemon_of_test, "no such luck");
    daemon_wait_log(&daemon_of_test, "ended with status 3");
    daemon_wait_log(&daemon_of_test, "ended with status 3");
    /* Meanwhile the daemon answers what it can. */
    struct client *client = client_open(&daemon_of_test);
    struct answer *answer = client_call(client, "health.check", "[]");
    assert_ok(answer);
    ck_assert(!bool_at(&answer->result, "healthy"));
    assert_code(client_call(client, "kv.get", "['b', 'k', {'timeout': 0.5}]"), "unavailable");
    ck_assert_ptr_null(strstr(daemon_log(&daemon_of_test), "ready:"));

    /* The next attempt finds the repaired program. */
    const char *link = format_text("%s.new", program);
    ck_assert_int_eq(symlink(test_run_nats_server(), link), 0);
    ck_assert_int_eq(rename(link, program), 0);
    daemon_wait_ready(&daemon_of_test);
    client_new_bucket(client, NULL);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* A server names the file of its ports after itself, not after the program's name here. */
START_TEST(a_script_may_start_the_server)
{
    daemon_prepare(&daemon_of_test);
    const char *program =
        format_text("%s/nats-server-of-this-host-with-the-settings-that-we-have-agreed-on", daemon_of_test.directory);
    write_program(program, format_text("#!/bin/sh\nexec %s \"$@\"\n", test_run_nats_server()));
    daemon_configure(&daemon_of_test,
                     format_text("  data_dir: %s\n  server_binary: %s\n", daemon_of_test.data_dir, program), NULL);
    daemon_spawn(&daemon_of_test, NULL, -1);
    daemon_wait_ready(&daemon_of_test);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* As on a full disk. The daemon would never learn that the server listens. */
START_TEST(a_server_that_cannot_write_its_ports_file_is_started_again)
{
    daemon_prepare(&daemon_of_test);
    const char *program = format_text("%s/server", daemon_of_test.directory);

    write_server_script(program, format_text("cd %s\n"
                                             "[ -e begun ] && exec %s \"$@\"\n"
                                             "echo > begun\n"
                                             "sed 's#/ports\"#/none/ports\"#' \"$2\" > other\n"
                                             "exec %s -c other\n",
                                             daemon_of_test.directory, test_run_nats_server(), test_run_nats_server()));
    configure_program(program, "");
    daemon_spawn(&daemon_of_test, NULL, -1);
    daemon_wait_log(&daemon_of_test, "Error writing ports file");
    daemon_wait_log(&daemon_of_test, "it could not write, and there is room now");
    daemon_wait_ready(&daemon_of_test);
    client_new_bucket(client_open(&daemon_of_test), NULL);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* Send writes in one piece. Return how many of them were committed in batches since the last call. */
static uint64_t count_batched(struct client *client, const char *bucket, unsigned writes)
{
    static uint64_t before;
    msgpack_sbuffer buffer;

    msgpack_sbuffer_init(&buffer);
    for (unsigned i = 0; i < writes; i++)
        pack_put(&buffer, i, bucket, format_text("k%u", i), "v", 1);
    client_write(client, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    for (unsigned i = 0; i < writes; i++)
        assert_ok(client_receive(client));
    uint64_t now = number_at(&client_call(client, "daemon.stats", "[]")->result, "group_commit.writes");
    uint64_t batched = now - before;
    before = now;
    return batched;
}

START_TEST(sixteen_waiting_writes_are_one_batch_and_fewer_are_not)
{
    daemon_start(&daemon_of_test, DAEMON_SYNCS_ALWAYS, NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);

    ck_assert_uint_eq(count_batched(client, bucket, 1), 0);
    ck_assert_uint_eq(count_batched(client, bucket, 15), 0);
    ck_assert_uint_ge(count_batched(client, bucket, 200), 16);
    daemon_stop(&daemon_of_test);

    /* Without syncs batches are no advantage. */
    daemon_start(&daemon_of_test, DAEMON_SYNCS_SELDOM, NULL);
    client = client_open(&daemon_of_test);
    bucket = client_new_bucket(client, NULL);
    count_batched(client, bucket, 200);
    ck_assert_uint_eq(number_at(&client_call(client, "daemon.stats", "[]")->result, "group_commit.writes"), 0);
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *embedded_suite(void)
{
    Suite *suite = suite_create("embedded");
    TCase *tests = tcase_create("embedded");

    tcase_add_test(tests, writes_survive_a_restart);
    tcase_add_test(tests, sixteen_waiting_writes_are_one_batch_and_fewer_are_not);
    tcase_add_test(tests, a_killed_daemon_leaves_no_server_and_loses_no_write);
    tcase_add_test(tests, a_killed_server_is_restarted_and_no_call_fails);
    tcase_add_test(tests, repeated_kills_of_the_server_lose_nothing);
    tcase_add_test(tests, a_server_that_is_killed_while_idle_is_back_for_the_next_call);
    tcase_add_test(tests, only_the_daemon_can_log_in_to_the_server);
    tcase_add_test(tests, strangers_cannot_fill_the_log);
    tcase_add_test(tests, few_strangers_can_wait_at_the_port_of_the_server);
    tcase_add_test(tests, a_stranger_cannot_forge_the_server_s_errors);
    tcase_add_test(tests, nobody_else_gets_the_password_while_the_server_is_down);
    tcase_add_test(tests, strangers_do_not_keep_the_daemon_from_its_server);
    tcase_add_test(tests, without_descriptors_for_sessions_the_daemon_reloads_and_replaces_its_server);
    tcase_add_test(tests, a_server_that_is_too_old_is_refused_once);
    tcase_add_test(tests, a_program_that_is_no_server_is_refused_once);
    tcase_add_test(tests, the_daemon_does_not_wait_for_a_program_that_does_not_say_its_version);
    tcase_add_test(tests, a_server_that_hangs_is_replaced_and_health_says_so);
    tcase_add_test(tests, a_server_that_hangs_at_its_start_is_replaced);
    tcase_add_test(tests, an_idle_server_is_not_replaced);
    tcase_add_test(tests, a_server_that_cannot_start_is_retried_and_reported);
    tcase_add_test(tests, a_script_may_start_the_server);
    tcase_add_test(tests, a_server_that_cannot_write_its_ports_file_is_started_again);
    suite_add_tcase(suite, tests);
    return suite;
}
