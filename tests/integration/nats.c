#include "tests/integration/nats.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- A server of the test's own -------------------------------------------------------------------- */

void nats_server_prepare(struct nats_server *server, const char *more)
{
    memset(server, 0, sizeof(*server));
    test_run_make_directory(server->directory);
    snprintf(server->process.log_path, PATH_BYTES, "%.200s/log", server->directory);
    server->port = port_reserve();
    snprintf(server->url, sizeof(server->url), "nats://127.0.0.1:%u", server->port);
    write_file(format_text("%s/conf", server->directory),
               format_text("host: 127.0.0.1\nport: %u\njetstream { store_dir: \"%s\"%s }\n%s\n", server->port,
                           server->directory, more != NULL && strstr(more, "# domain") != NULL ? ", domain: hub" : "",
                           more != NULL ? more : ""));
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
    if (tls_front_wanted() != NULL && server->front == NULL)
        server->front = tls_front_start(server->port, tls_front_wanted());
}

void nats_server_start(struct nats_server *server, const char *more)
{
    nats_server_prepare(server, more);
    nats_server_run(server);
}

void nats_server_stop(struct nats_server *server)
{
    if (server->process.pid == 0)
        return;
    process_signal(&server->process, SIGTERM);
    process_wait(&server->process);
}

const char *nats_server_section(const struct nats_server *server)
{
    return server->front != NULL ? tls_front_section(server->front)
                                 : format_text("  mode: external\n  servers: [%s]\n", server->url);
}

/* --- A client -------------------------------------------------------------------------------------- */

struct nats {
    FILE *in;
    int socket;
    unsigned inboxes;
    const char *reply; /* subject of the message that came last; "" if it had none */
};

static void write_all(const struct nats *nats, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t written = send(nats->socket, bytes, size, MSG_NOSIGNAL);
        ck_assert_msg(written > 0, "cannot write to nats-server: %s", strerror(errno));
        bytes += written;
        size -= (size_t)written;
    }
}

static void write_line(const struct nats *nats, const char *line)
{
    write_all(nats, line, strlen(line));
    write_all(nats, "\r\n", 2);
}

static char *read_line(struct nats *nats)
{
    char *line = NULL;
    size_t size = 0;

    ck_assert_msg(getline(&line, &size, nats->in) > 0, "nats-server does not answer, or has closed");
    keep(line);
    line[strcspn(line, "\r\n")] = '\0';
    return line;
}

struct nats *nats_connect(unsigned port, const char *user, const char *password)
{
    struct nats *nats = keep(calloc(1, sizeof(*nats)));
    struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};

    nats->socket = port_dial(port);
    ck_assert_msg(nats->socket >= 0, "cannot connect to nats-server on port %u", port);
    setsockopt(nats->socket, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    setsockopt(nats->socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    nats->in = fdopen(nats->socket, "r");
    ck_assert_ptr_nonnull(nats->in);
    read_line(nats); /* INFO */
    write_line(nats, user != NULL ? format_text("CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true,"
                                                "\"user\":\"%s\",\"pass\":\"%s\"}",
                                                user, password)
                                  : "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}");
    write_line(nats, "PING");
    const char *line = read_line(nats);
    ck_assert_str_eq(line, "PONG");
    return nats;
}

unsigned nats_embedded_port(const char *data_dir)
{
    const char *pid = read_file(format_text("%s/nats-server.pid", data_dir));
    json_t *ports = json_load_file(format_text("%s/ports/nats-server_%d.ports", data_dir, atoi(pid)), 0, NULL);
    const char *url = json_string_value(json_array_get(json_object_get(ports, "nats"), 0));

    ck_assert_ptr_nonnull(url);
    unsigned port = (unsigned)strtoul(strrchr(url, ':') + 1, NULL, 10);
    json_decref(ports);
    return port;
}

struct nats *nats_connect_embedded(const char *data_dir)
{
    const char *conf = read_file(format_text("%s/nats-server.conf", data_dir));
    const char *user = strstr(conf, "user: \""), *password = strstr(conf, "password: \"");

    ck_assert_ptr_nonnull(user);
    ck_assert_ptr_nonnull(password);
    user += strlen("user: \"");
    password += strlen("password: \"");
    return nats_connect(nats_embedded_port(data_dir), format_text("%.*s", (int)strcspn(user, "\""), user),
                        format_text("%.*s", (int)strcspn(password, "\""), password));
}

/* The next message's payload, its headers left away. */
static const char *read_message(struct nats *nats)
{
    for (;;) {
        char *line = read_line(nats), *rest = line, *words[6] = {NULL}, *word, *last = NULL, *before = NULL;
        size_t total, headers = 0, count = 0;
        bool has_headers = strncmp(line, "HMSG ", 5) == 0;

        if (strcmp(line, "PING") == 0) {
            write_line(nats, "PONG");
            continue;
        }
        ck_assert_msg(strncmp(line, "-ERR", 4) != 0, "nats-server: %s", line);
        if (!has_headers && strncmp(line, "MSG ", 4) != 0)
            continue;
        while ((word = strsep(&rest, " ")) != NULL) {
            before = last;
            last = word;
            if (count < 6)
                words[count++] = word;
        }
        /* "MSG subject sid [reply] bytes", and with headers one number more */
        nats->reply = count == (has_headers ? 6 : 5) ? words[3] : "";
        total = strtoul(last, NULL, 10);
        if (has_headers)
            headers = strtoul(before, NULL, 10);
        char *bytes = keep(calloc(1, total + 3));
        ck_assert_uint_eq(fread(bytes, 1, total + 2, nats->in), total + 2);
        bytes[total] = '\0';
        ck_assert_msg(!has_headers || strncmp(bytes, "NATS/1.0 503", 12) != 0, "nobody listens on the subject");
        return bytes + headers;
    }
}

const char *nats_request(struct nats *nats, const char *subject, const char *headers, const char *payload)
{
    char *inbox = format_text("_INBOX.test%d.%u", (int)getpid(), ++nats->inboxes);
    char *block = headers != NULL ? format_text("NATS/1.0\r\n%s\r\n", headers) : "";

    write_line(nats, format_text("SUB %s %u", inbox, nats->inboxes));
    write_line(nats, format_text("UNSUB %u 1", nats->inboxes));
    if (headers != NULL)
        write_line(nats, format_text("HPUB %s %s %zu %zu\r\n%s%s", subject, inbox, strlen(block),
                                     strlen(block) + strlen(payload), block, payload));
    else
        write_line(nats, format_text("PUB %s %s %zu\r\n%s", subject, inbox, strlen(payload), payload));
    return read_message(nats);
}

json_t *nats_request_json(struct nats *nats, const char *subject, const char *headers, const char *payload)
{
    const char *text = nats_request(nats, subject, headers, payload);
    json_t *json = json_loads(text, 0, NULL);

    ck_assert_msg(json != NULL, "nats-server's answer is no JSON: %s", text);
    keep(json);
    ck_assert_msg(json_object_get(json, "error") == NULL, "nats-server: %s", text);
    return json;
}

json_t *nats_api(struct nats *nats, const char *verb, const char *stream, const char *payload, ...)
{
    char *body = NULL;
    va_list args;

    va_start(args, payload);
    ck_assert_int_ge(vasprintf(&body, payload, args), 0);
    va_end(args);
    keep(body);
    for (char *c = body; *c != '\0'; c++) {
        if (*c == '\'')
            *c = '"';
    }
    return nats_request_json(nats, format_text("$JS.API.%s.%s", verb, stream), NULL, body);
}

uint64_t nats_consumer_count(struct nats *nats, const char *bucket)
{
    json_t *info = nats_api(nats, "STREAM.INFO", format_text("KV_%s", bucket), "{}");

    return (uint64_t)json_integer_value(json_object_get(json_object_get(info, "state"), "consumer_count"));
}

void nats_subscribe(struct nats *nats, const char *subject)
{
    write_line(nats, format_text("SUB %s 1000000", subject));
    write_line(nats, "PING");
    for (;;) {
        const char *line = read_line(nats);
        if (strcmp(line, "PONG") == 0)
            return;
        if (strcmp(line, "PING") == 0)
            write_line(nats, "PONG");
    }
}

const char *nats_next(struct nats *nats)
{
    return read_message(nats);
}

void nats_reply(struct nats *nats, const char *payload)
{
    ck_assert_str_ne(nats->reply, "");
    write_line(nats, format_text("PUB %s %zu\r\n%s", nats->reply, strlen(payload), payload));
}
