#include "tests/support/nats_server.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void nats_server_configure_jetstream(struct nats_server *server, const char *member)
{
    write_file(format_text("%s/conf", server->directory),
               format_text("host: 127.0.0.1\nport: %u\njetstream {\n  store_dir: \"%s\"\n  %s\n}\n%s\n", server->port,
                           server->directory, member, server->lines));
}

void nats_server_prepare(struct nats_server *server, const char *lines)
{
    memset(server, 0, sizeof(*server));
    test_run_make_directory(server->directory);
    snprintf(server->process.log_path, PATH_BYTES, "%.200s/log", server->directory);
    server->port = port_reserve();
    snprintf(server->url, sizeof(server->url), "nats://127.0.0.1:%u", server->port);
    server->lines = lines != NULL ? lines : "";
    nats_server_configure_jetstream(server, "");
}

void nats_server_run(struct nats_server *server)
{
    char *arguments[] = {keep(strdup(test_run_nats_server())), "-c", format_text("%s/conf", server->directory), NULL};
    uint64_t end = now_ms() + PATIENCE_MS;
    int probe;

    process_start(&server->process, arguments);
    while ((probe = port_dial(server->port)) < 0) {
        ck_assert_msg(!process_has_ended(&server->process) && now_ms() < end, "nats-server does not listen:\n%s",
                      read_file(server->process.log_path));
        pause_shortly();
    }
    close(probe);
}

void nats_server_start(struct nats_server *server, const char *lines)
{
    nats_server_prepare(server, lines);
    nats_server_run(server);
}

void nats_server_stop(struct nats_server *server)
{
    if (server->process.pid == 0)
        return;
    process_signal(&server->process, SIGTERM);
    process_wait(&server->process);
}

void nats_server_kill(struct nats_server *server)
{
    process_kill(&server->process);
}

void nats_server_freeze(struct nats_server *server)
{
    pid_suspend(server->process.pid);
}

void nats_server_thaw(struct nats_server *server)
{
    pid_resume(server->process.pid);
}

const char *nats_server_section(struct nats_server *server)
{
    if (server->front == NULL && server->process.pid != 0 && tls_front_wanted() != NULL)
        server->front = tls_front_start(server->port, tls_front_wanted());
    return server->front != NULL ? tls_front_section(server->front)
                                 : format_text("  mode: external\n  servers: [%s]\n", server->url);
}
