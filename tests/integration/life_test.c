/* The daemon as a process: its start and end, its socket, its service manager, its configuration. */
#include "tests/integration/suites.h"
#include "tests/support/calls.h"
#include "tests/support/client.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static struct daemon daemon_of_test;

/* Run kvstored with arguments to its end. Return its exit status, and set what it wrote. */
static int run_daemon(const char *option, const char *value, const char *more, char **output)
{
    char *arguments[] = {keep(strdup(test_run_kvstored())), keep(strdup(option)),
                         value != NULL ? keep(strdup(value)) : NULL, more != NULL ? keep(strdup(more)) : NULL, NULL};

    return run_program(arguments, output);
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, path);
    if (connect(made, (struct sockaddr *)&address, sizeof(address)) == 0)
        return made;
    close(made);
    return -1;
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, path);
    ck_assert_int_eq(bind(made, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(made, 8), 0);
    return made;
}

/* --- Command line and configuration ---------------------------------------------------------------- */

START_TEST(the_command_line_says_what_it_is)
{
    char *output;

    ck_assert_int_eq(run_daemon("--version", NULL, NULL, &output), 0);
    ck_assert_int_eq(strncmp(output, "kvstored ", 9), 0);
    ck_assert_int_eq(run_daemon("--help", NULL, NULL, &output), 0);
    ck_assert_ptr_nonnull(strstr(output, "--check-config"));
    ck_assert_int_ne(run_daemon("--nonsense", NULL, NULL, &output), 0);
    ck_assert_int_ne(run_daemon("nonsense", NULL, NULL, &output), 0);
    ck_assert_ptr_nonnull(strstr(output, "'nonsense'"));
}
END_TEST

START_TEST(check_config_accepts_a_good_file_and_refuses_a_bad_one)
{
    char directory[PATH_BYTES], *output;

    test_run_make_directory(directory);
    const char *path = format_text("%s/conf.yaml", directory);
    write_file(path, "limits:\n  calls: 100\n  calls_per_session: 100\n");
    ck_assert_int_eq(run_daemon("--config", path, "--check-config", &output), 0);
    write_file(path, "limits:\n  cals: 100\n");
    ck_assert_int_ne(run_daemon("--config", path, "--check-config", &output), 0);
    ck_assert_msg(strstr(output, format_text("%s:2:3:", path)) != NULL, "%s", output);
    ck_assert_msg(strstr(output, "cals") != NULL, "%s", output);
    write_file(path, "limits:\n  calls: many\n");
    ck_assert_int_ne(run_daemon("--config", path, "--check-config", &output), 0);
    ck_assert_msg(strstr(output, format_text("%s:2:10:", path)) != NULL, "%s", output);
    ck_assert_int_ne(run_daemon("--config", format_text("%s/none", directory), "--check-config", &output), 0);
    ck_assert_msg(strstr(output, "none") != NULL, "%s", output);
    static const char *const unknown[] = {"listen:\n  owner: nobody-here\n", "listen:\n  group: nobody-here\n",
                                          "metrics:\n  listen: unix:/run/none\n  group: nobody-here\n",
                                          "access:\n  - {buckets: [all], users: [nobody-here], allow: read}\n"};
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        write_file(path, unknown[i]);
        ck_assert_int_eq(run_daemon("--config", path, "--check-config", &output), 2);
        ck_assert_msg(strstr(output, "\"nobody-here\"") != NULL, "%s", output);
    }
    /* The sample is a valid configuration. */
    ck_assert_int_eq(run_daemon("--config", "conf/kvstored.yaml", "--check-config", &output), 0);
}
END_TEST

START_TEST(a_bad_file_stops_the_start)
{
    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, "limits:\n  calls: -1\n");
    daemon_spawn(&daemon_of_test, NULL, -1);
    process_wait(&daemon_of_test.process);
    ck_assert(WIFEXITED(daemon_of_test.process.status));
    ck_assert_int_ne(WEXITSTATUS(daemon_of_test.process.status), 0);
    const char *place = format_text("kvstored.yaml:%u:", daemon_conf_line(&daemon_of_test, "calls: -1"));
    ck_assert_ptr_nonnull(strstr(daemon_log(&daemon_of_test), place));
    ck_assert_int_ne(access(daemon_of_test.socket_path, F_OK), 0);
}
END_TEST

START_TEST(a_bad_file_is_an_error_in_the_journal)
{
    struct stat log;

    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, "limits:\n  calls: -1\n");
    write_file(daemon_of_test.process.log_path, "");
    ck_assert_int_eq(stat(daemon_of_test.process.log_path, &log), 0);
    char *journal[] = {keep(strdup(format_text("JOURNAL_STREAM=%llu:%llu", (unsigned long long)log.st_dev,
                                               (unsigned long long)log.st_ino))),
                       NULL};
    daemon_spawn(&daemon_of_test, journal, -1);
    process_wait(&daemon_of_test.process);
    ck_assert_int_eq(strncmp(daemon_log(&daemon_of_test), "<3>kvstored: ", 13), 0);
}
END_TEST

START_TEST(a_missing_server_program_stops_the_start)
{
    static const char *const programs[] = {"/nowhere/nats-server", "/usr"};

    for (unsigned i = 0; i < 2; i++) {
        daemon_prepare(&daemon_of_test);
        daemon_configure(&daemon_of_test,
                         format_text("  data_dir: %s\n  server_binary: %s\n", daemon_of_test.data_dir, programs[i]),
                         NULL);
        daemon_spawn(&daemon_of_test, NULL, -1);
        process_wait(&daemon_of_test.process);
        ck_assert_int_ne(WEXITSTATUS(daemon_of_test.process.status), 0);
        ck_assert_ptr_nonnull(
            strstr(daemon_log(&daemon_of_test), format_text("nats.server_binary %s cannot be run", programs[i])));
        ck_assert_int_ne(access(daemon_of_test.socket_path, F_OK), 0);
    }
}
END_TEST

START_TEST(the_socket_is_at_runtime_directory_when_no_path_is_given)
{
    daemon_prepare(&daemon_of_test);
    write_file(daemon_of_test.conf_path, format_text("nats:\n  data_dir: %s\n  server_binary: %s\n",
                                                     daemon_of_test.data_dir, test_run_nats_server()));
    /* Absolute, as it must be, and short. */
    char *extra[] = {format_text("RUNTIME_DIRECTORY=/proc/self/cwd/%s", daemon_of_test.directory), NULL};
    daemon_spawn(&daemon_of_test, extra, -1);
    daemon_wait_ready(&daemon_of_test);
    assert_ok(client_call(client_open(&daemon_of_test), "daemon.info", "[]"));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* --- The socket ------------------------------------------------------------------------------------ */

START_TEST(the_socket_has_the_configured_mode)
{
    struct stat status;

    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL,
                     format_text("listen:\n  path: %s\n  mode: \"0640\"\n", daemon_of_test.socket_path));
    daemon_spawn(&daemon_of_test, NULL, -1);
    daemon_wait_ready(&daemon_of_test);
    ck_assert_int_eq(stat(daemon_of_test.socket_path, &status), 0);
    ck_assert(S_ISSOCK(status.st_mode));
    ck_assert_uint_eq(status.st_mode & 07777, 0640);
    daemon_stop(&daemon_of_test);
    ck_assert_int_ne(stat(daemon_of_test.socket_path, &status), 0);

    daemon_start(&daemon_of_test, NULL, NULL);
    ck_assert_int_eq(stat(daemon_of_test.socket_path, &status), 0);
    ck_assert_uint_eq(status.st_mode & 07777, 0660);
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_socket_that_nobody_serves_is_replaced)
{
    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, NULL);
    close(listen_at(daemon_of_test.socket_path));
    daemon_spawn(&daemon_of_test, NULL, -1);
    daemon_wait_ready(&daemon_of_test);
    assert_ok(client_call(client_open(&daemon_of_test), "daemon.info", "[]"));
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_socket_of_another_program_is_not_replaced)
{
    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, NULL);
    int served = listen_at(daemon_of_test.socket_path);
    daemon_spawn(&daemon_of_test, NULL, -1);
    process_wait(&daemon_of_test.process);
    ck_assert_int_ne(WEXITSTATUS(daemon_of_test.process.status), 0);
    ck_assert_ptr_nonnull(strstr(daemon_log(&daemon_of_test), "served by another program"));
    ck_assert_int_eq(access(daemon_of_test.socket_path, F_OK), 0);
    close(served);
}
END_TEST

START_TEST(a_file_that_is_not_a_socket_is_not_replaced)
{
    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, NULL);
    write_file(daemon_of_test.socket_path, "precious");
    daemon_spawn(&daemon_of_test, NULL, -1);
    process_wait(&daemon_of_test.process);
    ck_assert_int_ne(WEXITSTATUS(daemon_of_test.process.status), 0);
    ck_assert_ptr_nonnull(strstr(daemon_log(&daemon_of_test), "is no socket"));
    ck_assert_str_eq(read_file(daemon_of_test.socket_path), "precious");
}
END_TEST

START_TEST(a_second_daemon_on_the_same_socket_is_refused_by_name)
{
    struct daemon second;

    daemon_start(&daemon_of_test, NULL, NULL);
    daemon_prepare(&second);
    strcpy(second.socket_path, daemon_of_test.socket_path);
    daemon_configure(&second, NULL, NULL);
    daemon_spawn(&second, NULL, -1);
    process_wait(&second.process);
    ck_assert_int_ne(WEXITSTATUS(second.process.status), 0);
    ck_assert_ptr_nonnull(strstr(daemon_log(&second),
                                 format_text(".lock is locked by pid %d (kvstored)", (int)daemon_of_test.process.pid)));
    assert_ok(client_call(client_open(&daemon_of_test), "kv.get", "['%s', 'k']",
                          client_new_bucket(client_open(&daemon_of_test), NULL)));
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_second_daemon_on_the_same_data_is_refused_by_name)
{
    struct daemon second;

    daemon_start(&daemon_of_test, NULL, NULL);
    daemon_prepare(&second);
    strcpy(second.data_dir, daemon_of_test.data_dir);
    daemon_configure(&second, NULL, NULL);
    daemon_spawn(&second, NULL, -1);
    process_wait(&second.process);
    ck_assert_int_ne(WEXITSTATUS(second.process.status), 0);
    ck_assert_ptr_nonnull(strstr(daemon_log(&second), format_text("kvstored.lock is locked by pid %d (kvstored)",
                                                                  (int)daemon_of_test.process.pid)));
    ck_assert_int_ne(access(second.socket_path, F_OK), 0);
    assert_ok(client_call(client_open(&daemon_of_test), "health.check", "[]"));
    daemon_stop(&daemon_of_test);
}
END_TEST

/* A daemon that does not start, and says why. */
static void expect_no_start(const char *why)
{
    daemon_spawn(&daemon_of_test, NULL, -1);
    process_wait(&daemon_of_test.process);
    ck_assert_int_ne(WEXITSTATUS(daemon_of_test.process.status), 0);
    ck_assert_msg(strstr(daemon_log(&daemon_of_test), why) != NULL, "the log does not say '%s': %s", why,
                  daemon_log(&daemon_of_test));
    daemon_mark_log(&daemon_of_test);
}

START_TEST(a_lock_file_that_is_a_link_is_not_followed)
{
    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, NULL);
    const char *precious = format_text("%s/precious", daemon_of_test.directory);
    const char *locks[] = {format_text("%s.lock", daemon_of_test.socket_path),
                           format_text("%s/kvstored.lock", daemon_of_test.data_dir)};

    write_file(precious, "precious");
    mkdir(daemon_of_test.data_dir, 0700);
    for (size_t i = 0; i < 2; i++) {
        ck_assert_int_eq(symlink(i == 0 ? "precious" : "../precious", locks[i]), 0);
        expect_no_start("is a symbolic link");
        unlink(locks[i]);
        ck_assert_int_eq(link(precious, locks[i]), 0);
        expect_no_start("is not a plain file with one name");
        unlink(locks[i]);
        ck_assert_str_eq(read_file(precious), "precious");
    }
}
END_TEST

START_TEST(files_of_the_embedded_server_that_are_links_are_not_followed)
{
    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, NULL);
    const char *precious = format_text("%s/precious", daemon_of_test.directory);
    static const char *const names[] = {"nats-server.conf", "nats-server.conf.new", "nats-server.pid"};

    write_file(precious, "precious");
    mkdir(daemon_of_test.data_dir, 0700);
    for (size_t i = 0; i < 3; i++)
        ck_assert_int_eq(symlink("../precious", format_text("%s/%s", daemon_of_test.data_dir, names[i])), 0);
    daemon_spawn(&daemon_of_test, NULL, -1);
    daemon_wait_ready(&daemon_of_test);
    ck_assert_str_eq(read_file(precious), "precious");
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_data_directory_that_others_can_write_in_is_refused)
{
    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, NULL);
    const char *ports = format_text("%s/ports", daemon_of_test.data_dir);

    mkdir(daemon_of_test.data_dir, 0700);
    chmod(daemon_of_test.data_dir, 0770);
    expect_no_start("has mode 770, so that others than its owner can write in it");
    chmod(daemon_of_test.data_dir, 01707);
    expect_no_start("has mode 1707, so that others than its owner can write in it");
    chmod(daemon_of_test.data_dir, 0700);
    /* The daemon removes files in this one. */
    ck_assert_int_eq(symlink("..", ports), 0);
    expect_no_start("is not a directory");
    unlink(ports);
    if (geteuid() == 0) {
        ck_assert_int_eq(chown(daemon_of_test.data_dir, 4000, 4000), 0);
        expect_no_start("belongs to uid 4000; it must belong to uid 0");
        ck_assert_int_eq(chown(daemon_of_test.data_dir, 0, 0), 0);
    } else {
        test_run_skip("a_data_directory_of_another_user_is_refused", "only root can give a directory away");
    }
    daemon_spawn(&daemon_of_test, NULL, -1);
    daemon_wait_ready(&daemon_of_test);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* --- Data of another server or another user -------------------------------------------------------- */

static unsigned lines_of_log(const char *text)
{
    const char *at = read_file(daemon_of_test.process.log_path);
    unsigned count = 0;

    for (; (at = strstr(at, text)) != NULL; at++)
        count++;
    return count;
}

START_TEST(data_of_a_newer_nats_server_are_refused_by_an_older_one)
{
    char *output, *arguments[] = {keep(strdup(test_run_nats_server())), "--version", NULL};
    unsigned major, minor, patch;

    ck_assert_int_eq(run_program(arguments, &output), 0);
    ck_assert_int_eq(sscanf(output, "nats-server: v%u.%u.%u", &major, &minor, &patch), 3);
    daemon_start(&daemon_of_test, NULL, NULL);
    const char *path = format_text("%s/jetstream/kvstored/nats-server.version", daemon_of_test.data_dir);
    ck_assert_str_eq(read_file(path), format_text("%u.%u.%u\n", major, minor, patch));
    daemon_stop(&daemon_of_test);

    /* Data of an older one, and data without a record, are opened. */
    write_file(path, format_text("%u.%u.9\n", major, minor - 1));
    daemon_restart(&daemon_of_test);
    daemon_stop(&daemon_of_test);
    daemon_restart(&daemon_of_test);
    ck_assert_str_eq(read_file(path), format_text("%u.%u.%u\n", major, minor, patch)); /* the server leaves it alone */
    daemon_stop(&daemon_of_test);
    unlink(path);
    daemon_restart(&daemon_of_test);
    daemon_stop(&daemon_of_test);

    const char *newer[] = {format_text("%u.%u.%u\n", major, minor, patch + 1),
                           format_text("%u.%u.0\n", major, minor + 1), format_text("%u.0.0\n", major + 1)};
    for (size_t i = 0; i < 3; i++) {
        write_file(path, newer[i]);
        daemon_mark_log(&daemon_of_test);
        expect_no_start(format_text("was opened by nats-server %.*s, and nats.server_binary is the older %u.%u.%u",
                                    (int)strlen(newer[i]) - 1, newer[i], major, minor, patch));
        ck_assert_int_eq(WEXITSTATUS(daemon_of_test.process.status), 2); /* a restart would not help */
        ck_assert_str_eq(read_file(path), newer[i]);
    }
}
END_TEST

/* The program is replaced by an older one while the daemon runs, and its server ends. */
START_TEST(an_older_nats_server_that_replaces_a_newer_one_is_refused_once_in_the_log)
{
    static const char script[] = "#!/bin/sh\n[ \"$1\" = --version ] && echo nats-server: v%s && exit\nexec %s \"$@\"\n";

    daemon_prepare(&daemon_of_test);
    const char *program = format_text("%s/server", daemon_of_test.directory);
    write_program(program, format_text(script, "2.97.0", test_run_nats_server()));
    daemon_configure(
        &daemon_of_test,
        format_text("  data_dir: %s\n  server_binary: %s\n" DAEMON_SYNCS_SELDOM, daemon_of_test.data_dir, program),
        NULL);
    daemon_spawn(&daemon_of_test, NULL, -1);
    daemon_wait_ready(&daemon_of_test);
    struct client *client = client_open(&daemon_of_test);
    unlink(program);
    write_program(program, format_text(script, "2.96.0", test_run_nats_server()));
    kill(daemon_nats_pid(&daemon_of_test), SIGKILL);
    daemon_wait_log(&daemon_of_test, "was opened by nats-server 2.97.0, and nats.server_binary is the older 2.96.0");
    wait_until(strstr(object_text(&client_call(client, "health.check", "[]")->result), "the older 2.96.0") != NULL,
               "the reason in health.check");
    unlink(program);
    write_program(program, format_text(script, "2.98.0", test_run_nats_server()));
    daemon_wait_log(&daemon_of_test, "nats-server: listens on");
    ck_assert_uint_eq(lines_of_log("is the older 2.96.0"), 1);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* As after a copy that root has made. */
START_TEST(data_that_the_daemon_may_not_write_are_named_once)
{
    char directory[PATH_BYTES], *output;

    if (geteuid() != 0) {
        test_run_skip("data_that_the_daemon_may_not_write_are_named_once", "only root can start another user's daemon");
        return;
    }
    test_run_make_directory(directory);
    write_file(format_text("%s/conf", directory),
               "listen:\n  path: socket\nnats:\n  data_dir: data\n  server_binary: ./nats-server\n");
    char *prepare[] = {"sh", "-c",
                       format_text("cp %s %s/kvstored && cp %s %s/nats-server && cd %s && mkdir -p data/jetstream && "
                                   "chown -R 65534 . && chown root data/jetstream && chmod 700 data data/jetstream",
                                   test_run_kvstored(), directory, test_run_nats_server(), directory, directory),
                       NULL};
    ck_assert_int_eq(run_program(prepare, &output), 0);
    char *reach[] = {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "realpath", "-e", directory, NULL};
    if (run_program(reach, &output) != 0) {
        test_run_skip("data_that_the_daemon_may_not_write_are_named_once", "another user cannot reach the tree");
        return;
    }
    char *daemon[] = {
        "env",        "-C",       directory, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
        "./kvstored", "--config", "conf",    NULL};
    int status = run_program(daemon, &output);
    ck_assert_msg(status == 2, "status %d: %s", status, output);
    const char *reason = strstr(output, "/jetstream belongs to uid 0, and kvstored runs as uid 65534");
    ck_assert_msg(reason != NULL && strstr(reason + 1, "/jetstream belongs") == NULL, "%s", output);
    ck_assert_ptr_null(strstr(output, "nats-server: pid"));
}
END_TEST

START_TEST(a_lock_of_another_program_is_not_reported_as_a_daemons)
{
    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, NULL);
    const char *path = format_text("%s.lock", daemon_of_test.socket_path);

    write_file(path, "1\n"); /* of a daemon that has ended long ago */
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    ck_assert_int_eq(fcntl(descriptor, F_SETLK, &whole), 0);
    expect_no_start(format_text("is locked by pid %d (", (int)getpid()));
    close(descriptor); /* which ends the lock; reading the file by name would end it too */
    ck_assert_str_eq(read_file(path), "1\n");
}
END_TEST

/* --- The service manager --------------------------------------------------------------------------- */

START_TEST(a_socket_of_the_service_manager_is_served)
{
    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, NULL);
    const char *path = format_text("%s/handed-over.sock", daemon_of_test.directory);
    int listener = listen_at(path);
    /* A client that connects before the daemon runs is served after its start. */
    struct client *early = client_open_path(path);
    uint32_t msgid = client_send(early, "daemon.info", "[]");

    daemon_spawn(&daemon_of_test, NULL, listener);
    daemon_wait_log(&daemon_of_test, "handed over by the service manager");
    daemon_wait_ready(&daemon_of_test);
    assert_ok(client_wait(early, msgid));
    ck_assert_int_ne(access(daemon_of_test.socket_path, F_OK), 0);
    client_close(early);
    daemon_stop(&daemon_of_test);
    /* The socket belongs to the service manager: it stays for the next start. */
    ck_assert_int_eq(access(path, F_OK), 0);
    daemon_mark_log(&daemon_of_test);
    daemon_spawn(&daemon_of_test, NULL, listener);
    daemon_wait_ready(&daemon_of_test);
    assert_ok(client_call(client_open_path(path), "daemon.info", "[]"));
    daemon_stop(&daemon_of_test);
    close(listener);
}
END_TEST

/*
 * Return the service manager's socket. Its name is abstract, because a path would have to be absolute (sd_notify(3))
 * and might be too long. *setting: for the daemon's environment.
 */
static int open_notify_socket(char **setting)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t length = sizeof(address);
    int made = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    ck_assert_int_eq(bind(made, (struct sockaddr *)&address, sizeof(address.sun_family)), 0);
    ck_assert_int_eq(getsockname(made, (struct sockaddr *)&address, &length), 0);
    *setting = format_text("NOTIFY_SOCKET=@%.*s", (int)(length - offsetof(struct sockaddr_un, sun_path) - 1),
                           address.sun_path + 1);
    return made;
}

/* Return the next message of the notify socket. */
static const char *next_notification(int socket)
{
    struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
    char *text = keep(calloc(1, 4096));

    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    ck_assert_msg(recv(socket, text, 4095, 0) > 0, "the service manager is not notified");
    return text;
}

static void expect_notification(int socket, const char *line)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    while (strstr(next_notification(socket), line) == NULL)
        ck_assert_msg(now_ms() < end, "the service manager is not told %s", line);
}

START_TEST(the_service_manager_gets_the_daemons_status)
{
    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, NULL);
    char *extra[] = {NULL, "WATCHDOG_USEC=200000", NULL};
    int notify = open_notify_socket(&extra[0]);

    daemon_spawn(&daemon_of_test, extra, -1);
    expect_notification(notify, "READY=1");
    /* READY=1 means that the daemon can be used. */
    assert_ok(client_call(client_open(&daemon_of_test), "bucket.create", "['b']"));
    for (unsigned i = 0; i < 5; i++)
        expect_notification(notify, "WATCHDOG=1");
    process_signal(&daemon_of_test.process, SIGHUP);
    expect_notification(notify, "RELOADING=1");
    expect_notification(notify, "READY=1");
    process_signal(&daemon_of_test.process, SIGTERM);
    expect_notification(notify, "STOPPING=1");
    daemon_expect_good_end(&daemon_of_test);
    close(notify);
}
END_TEST

START_TEST(a_server_that_takes_long_to_start_is_given_the_time)
{
    daemon_prepare(&daemon_of_test);
    const char *program = format_text("%s/nats-server", daemon_of_test.directory);
    const char *go = format_text("%s/go", daemon_of_test.directory);
    write_program(program, format_text("#!/bin/sh\n[ \"$1\" = --version ] && exec %s --version\n"
                                       "while ! [ -e %s ]; do sleep 0.1; done\nexec %s \"$@\"\n",
                                       test_run_nats_server(), go, test_run_nats_server()));
    daemon_configure(
        &daemon_of_test,
        format_text("  data_dir: %s\n  server_binary: %s\n  hang_timeout: 1\n", daemon_of_test.data_dir, program),
        NULL);
    char *extra[] = {NULL, NULL};
    int notify = open_notify_socket(&extra[0]);

    daemon_spawn(&daemon_of_test, extra, -1);
    /* Each message asks for 30 s more, 5 s after the last: the server is silent for longer than hang_timeout. */
    for (unsigned i = 0; i < 2; i++)
        expect_notification(notify, "EXTEND_TIMEOUT_USEC=30000000");
    struct answer *answer = client_call(client_open(&daemon_of_test), "health.check", "[]");
    assert_ok(answer);
    ck_assert(!bool_at(&answer->result, "healthy"));
    ck_assert_ptr_nonnull(strstr(text_at(&answer->result, "error"), "does not listen yet"));
    ck_assert_ptr_null(strstr(daemon_log(&daemon_of_test), "killing it"));
    write_file(go, "");
    expect_notification(notify, "READY=1");
    daemon_stop(&daemon_of_test);
    close(notify);
}
END_TEST

START_TEST(a_busy_daemon_still_notifies_the_watchdog)
{
    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, NULL);
    enum { AT_ONCE = 500 };
    char *extra[] = {NULL, "WATCHDOG_USEC=1000000", NULL}, text[256];
    int notify = open_notify_socket(&extra[0]);
    uint64_t end = now_ms() + PATIENCE_MS;
    unsigned alive = 0;

    daemon_spawn(&daemon_of_test, extra, -1);
    expect_notification(notify, "READY=1");
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    /* The daemon always has calls to answer: the next ones arrive before the last ones are done. */
    for (unsigned i = 0; i < AT_ONCE; i++)
        client_send(client, "kv.put", "['%s', 'k%u', 'v']", bucket, i);
    while (alive < 3) {
        for (unsigned i = 0; i < AT_ONCE; i++)
            client_send(client, "kv.put", "['%s', 'k%u', 'v']", bucket, i);
        for (unsigned i = 0; i < AT_ONCE; i++)
            assert_ok(client_receive(client));
        for (ssize_t size; (size = recv(notify, text, sizeof(text) - 1, MSG_DONTWAIT)) > 0;) {
            text[size] = '\0';
            alive += strstr(text, "WATCHDOG=1") != NULL;
        }
        ck_assert_msg(now_ms() < end, "the service manager was notified %u times", alive);
    }
    for (unsigned i = 0; i < AT_ONCE; i++)
        assert_ok(client_receive(client));
    daemon_stop(&daemon_of_test);
    close(notify);
}
END_TEST

/* Return the nanoseconds that the daemon's loop has had a processor for. */
static unsigned long long processor_ns(const struct daemon *daemon)
{
    unsigned long long spent = 0;
    FILE *file = fopen(format_text("/proc/%d/schedstat", (int)daemon->process.pid), "re");

    ck_assert(file != NULL && fscanf(file, "%llu", &spent) == 1);
    fclose(file);
    return spent;
}

START_TEST(a_daemon_that_was_busy_sleeps_when_it_is_idle)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    for (unsigned i = 0; i < 2000; i++)
        assert_ok(client_call(client, "health.check", "[]"));

    /* Processor time within a measured time: no other load of the machine can add to it. */
    uint64_t start_ns = now_ns();
    unsigned long long before = processor_ns(&daemon_of_test);
    usleep(500000);
    unsigned long long spent = processor_ns(&daemon_of_test) - before;
    ck_assert_uint_lt(spent, (now_ns() - start_ns) / 5);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* --- Its end --------------------------------------------------------------------------------------- */

START_TEST(sigterm_and_sigint_end_it_with_its_server)
{
    int signals[] = {SIGTERM, SIGINT};

    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, NULL);
    for (size_t i = 0; i < 2; i++) {
        daemon_restart(&daemon_of_test);
        pid_t server = daemon_nats_pid(&daemon_of_test);
        struct client *idle = client_open(&daemon_of_test);
        process_signal(&daemon_of_test.process, signals[i]);
        client_expect_dismissal(idle);
        daemon_expect_good_end(&daemon_of_test);
        ck_assert(!pid_is_alive(server));
        ck_assert_int_ne(access(daemon_of_test.socket_path, F_OK), 0);
    }
}
END_TEST

START_TEST(it_ends_while_it_is_still_starting)
{
    daemon_prepare(&daemon_of_test);
    daemon_configure(&daemon_of_test, NULL, NULL);
    for (unsigned i = 0; i < 5; i++) {
        daemon_mark_log(&daemon_of_test);
        daemon_spawn(&daemon_of_test, NULL, -1);
        daemon_wait_log(&daemon_of_test, "listening on");
        usleep(i * 3000); /* it must end well at each point of its start */
        daemon_stop(&daemon_of_test);
    }
}
END_TEST

START_TEST(calls_in_flight_are_answered_before_the_daemon_ends)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    pid_t server = daemon_nats_pid(&daemon_of_test);

    assert_ok(client_call(client, "kv.put", "['%s', 'k', 'v']", bucket));
    pid_suspend(server);
    for (unsigned i = 0; i < 50; i++)
        client_send(client, "kv.put", "['%s', 'k%u', 'v']", bucket, i);
    /* They are in flight after all were read: the one after them is answered. */
    uint32_t last = client_send(client, "daemon.info", "[]");
    assert_ok(client_wait(client, last));
    process_signal(&daemon_of_test.process, SIGTERM);
    daemon_wait_log(&daemon_of_test, "ending: 1 sessions, 50 calls in flight");
    ck_assert_int_lt(connect_to(daemon_of_test.socket_path), 0);
    pid_resume(server);
    for (unsigned i = 0; i < 50; i++)
        assert_ok(client_receive(client));
    client_expect_dismissal(client);
    daemon_expect_good_end(&daemon_of_test);

    daemon_restart(&daemon_of_test);
    client = client_open(&daemon_of_test);
    struct answer *answer = client_call(client, "bucket.info", "['%s']", bucket);
    ck_assert_uint_eq(number_at(&answer->result, "values"), 51);
    daemon_stop(&daemon_of_test);
}
END_TEST

/* All others wait for the next daemon meanwhile. */
START_TEST(a_client_that_does_not_read_does_not_delay_the_shutdown)
{
    daemon_start(&daemon_of_test, NULL, NULL);
    struct client *client = client_open(&daemon_of_test), *other = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, "'storage': 'memory'");
    const size_t bytes = 500000;

    assert_ok(client_put(client, bucket, "k", keep(calloc(1, bytes)), bytes));
    client_send(client, "kv.get", "['%s', 'k']", bucket);
    wait_until(stat_of(other, "bytes_out") > bytes, "an answer that is not read");
    process_signal(&daemon_of_test.process, SIGTERM);
    client_expect_dismissal(other);
    daemon_wait_log(&daemon_of_test, "it read nothing for 0.5 s");
    daemon_expect_good_end(&daemon_of_test);
    ck_assert_ptr_null(strstr(daemon_log(&daemon_of_test), "are not answered after"));
}
END_TEST

START_TEST(calls_that_take_too_long_do_not_delay_the_shutdown)
{
    daemon_start(&daemon_of_test, NULL, "calls:\n  drain_timeout: 0.3\n");
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    pid_t server = daemon_nats_pid(&daemon_of_test);

    pid_suspend(server);
    client_send(client, "kv.put", "['%s', 'k', 'v']", bucket);
    assert_ok(client_wait(client, client_send(client, "daemon.info", "[]")));
    process_signal(&daemon_of_test.process, SIGTERM);
    daemon_wait_log(&daemon_of_test, "1 calls are not answered after 0.3 s");
    pid_resume(server);
    client_expect_end(client);
    daemon_expect_good_end(&daemon_of_test);
}
END_TEST

/* --- Reload ---------------------------------------------------------------------------------------- */

START_TEST(a_reload_applies_some_settings_and_names_those_that_need_a_restart)
{
    daemon_start(&daemon_of_test, NULL, "limits:\n  calls_per_session: 11\n");
    struct client *client = client_open(&daemon_of_test);
    const char *bucket = client_new_bucket(client, NULL);
    const char *other_path = format_text("%s/other.sock", daemon_of_test.directory);

    /* A changed limit and a changed log level apply at once, and no session ends. */
    daemon_configure(
        &daemon_of_test, NULL,
        "limits:\n  calls_per_session: 22\n  frame_bytes: 8K\ncalls:\n  timeout: 3\nlog:\n  level: debug\n");
    process_signal(&daemon_of_test.process, SIGHUP);
    daemon_wait_log(&daemon_of_test, "is in effect");
    struct answer *answer = client_call(client, "daemon.info", "[]");
    ck_assert_uint_eq(number_at(&answer->result, "limits.calls_per_session"), 22);
    ck_assert_double_eq(double_at(&answer->result, "limits.timeout"), 3);
    assert_code(client_put(client, bucket, "k", keep(calloc(1, 9000)), 9000), "too_large");
    client_open(&daemon_of_test);
    daemon_wait_log(&daemon_of_test, format_text(" of pid %d uid %u began", (int)getpid(), (unsigned)getuid()));

    daemon_configure(&daemon_of_test, NULL, format_text("listen:\n  path: %s\n", other_path));
    process_signal(&daemon_of_test.process, SIGHUP);
    daemon_wait_log(&daemon_of_test, "listen.path has changed; this needs a restart");
    daemon_wait_log(&daemon_of_test, "is in effect");
    ck_assert_int_ne(access(other_path, F_OK), 0);
    assert_ok(client_call(client_open(&daemon_of_test), "daemon.info", "[]"));
    daemon_stop(&daemon_of_test);
}
END_TEST

START_TEST(a_reload_of_a_broken_file_changes_nothing)
{
    daemon_start(&daemon_of_test, NULL, "limits:\n  calls_per_session: 11\n");
    struct client *client = client_open(&daemon_of_test);

    daemon_configure(&daemon_of_test, NULL, "limits:\n  calls_per_session: 22\n  nonsense: 1\n");
    process_signal(&daemon_of_test.process, SIGHUP);
    daemon_wait_log(&daemon_of_test,
                    format_text("kvstored.yaml:%u:3:", daemon_conf_line(&daemon_of_test, "nonsense: 1")));
    daemon_wait_log(&daemon_of_test, "nothing was changed");
    struct answer *answer = client_call(client, "daemon.info", "[]");
    ck_assert_uint_eq(number_at(&answer->result, "limits.calls_per_session"), 11);

    unlink(daemon_of_test.conf_path);
    process_signal(&daemon_of_test.process, SIGHUP);
    daemon_wait_log(&daemon_of_test, "nothing was changed");
    assert_ok(client_call(client, "daemon.info", "[]"));
    daemon_stop(&daemon_of_test);
}
END_TEST

Suite *life_suite(void)
{
    Suite *suite = suite_create("life");
    TCase *tests = tcase_create("life");

    tcase_add_test(tests, the_command_line_says_what_it_is);
    tcase_add_test(tests, check_config_accepts_a_good_file_and_refuses_a_bad_one);
    tcase_add_test(tests, a_bad_file_stops_the_start);
    tcase_add_test(tests, a_bad_file_is_an_error_in_the_journal);
    tcase_add_test(tests, a_missing_server_program_stops_the_start);
    tcase_add_test(tests, the_socket_is_at_runtime_directory_when_no_path_is_given);
    tcase_add_test(tests, the_socket_has_the_configured_mode);
    tcase_add_test(tests, a_socket_that_nobody_serves_is_replaced);
    tcase_add_test(tests, a_socket_of_another_program_is_not_replaced);
    tcase_add_test(tests, a_file_that_is_not_a_socket_is_not_replaced);
    tcase_add_test(tests, a_second_daemon_on_the_same_socket_is_refused_by_name);
    tcase_add_test(tests, a_second_daemon_on_the_same_data_is_refused_by_name);
    tcase_add_test(tests, a_lock_file_that_is_a_link_is_not_followed);
    tcase_add_test(tests, files_of_the_embedded_server_that_are_links_are_not_followed);
    tcase_add_test(tests, a_data_directory_that_others_can_write_in_is_refused);
    tcase_add_test(tests, data_of_a_newer_nats_server_are_refused_by_an_older_one);
    tcase_add_test(tests, an_older_nats_server_that_replaces_a_newer_one_is_refused_once_in_the_log);
    tcase_add_test(tests, data_that_the_daemon_may_not_write_are_named_once);
    tcase_add_test(tests, a_lock_of_another_program_is_not_reported_as_a_daemons);
    tcase_add_test(tests, a_socket_of_the_service_manager_is_served);
    tcase_add_test(tests, the_service_manager_gets_the_daemons_status);
    tcase_add_test(tests, a_server_that_takes_long_to_start_is_given_the_time);
    tcase_add_test(tests, a_busy_daemon_still_notifies_the_watchdog);
    tcase_add_test(tests, a_daemon_that_was_busy_sleeps_when_it_is_idle);
    tcase_add_test(tests, sigterm_and_sigint_end_it_with_its_server);
    tcase_add_test(tests, it_ends_while_it_is_still_starting);
    tcase_add_test(tests, calls_in_flight_are_answered_before_the_daemon_ends);
    tcase_add_test(tests, a_client_that_does_not_read_does_not_delay_the_shutdown);
    tcase_add_test(tests, calls_that_take_too_long_do_not_delay_the_shutdown);
    tcase_add_test(tests, a_reload_applies_some_settings_and_names_those_that_need_a_restart);
    tcase_add_test(tests, a_reload_of_a_broken_file_changes_nothing);
    suite_add_tcase(suite, tests);
    return suite;
}
