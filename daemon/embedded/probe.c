#include "daemon/embedded/probe.h"

#include "daemon/base/small_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct embedded_probe {
    uv_tcp_t tcp;
    uv_connect_t connect;
    void (*done)(void *arg, bool is_alive);
    void *arg;
    char greeting[64];
};

static void on_probe_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void embedded_probe_stop(struct embedded_probe *probe)
{
    uv_close((uv_handle_t *)&probe->tcp, on_probe_closed);
}

static void probe_finish(struct embedded_probe *probe, bool is_alive)
{
    embedded_probe_stop(probe);
    probe->done(probe->arg, is_alive);
}

static void on_probe_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct embedded_probe *probe = handle->data;

    (void)suggested;
    *buffer = uv_buf_init(probe->greeting, sizeof(probe->greeting));
}

/* The end of the connection is a sign of life too: the kernel sends none for a stopped process. */
static void on_probe_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer)
{
    (void)buffer;
    if (length != 0)
        probe_finish(stream->data, true);
}

static void on_probe_connected(uv_connect_t *connect, int status)
{
    struct embedded_probe *probe = connect->handle->data;

    if (status == UV_ECANCELED)
        return;
    if (status != 0 || uv_read_start((uv_stream_t *)&probe->tcp, on_probe_alloc, on_probe_read) != 0)
        probe_finish(probe, false);
}

struct embedded_probe *embedded_probe_start(uv_loop_t *loop, unsigned port, void (*done)(void *arg, bool is_alive),
                                            void *arg)
{
    struct embedded_probe *probe = calloc(1, sizeof(*probe));
    struct sockaddr_in address;

    if (probe == NULL || uv_ip4_addr("127.0.0.1", (int)port, &address) != 0 ||
        uv_tcp_init_ex(loop, &probe->tcp, AF_INET) != 0) {
        free(probe);
        return NULL;
    }
    probe->tcp.data = probe;
    probe->done = done;
    probe->arg = arg;
    if (uv_tcp_connect(&probe->connect, &probe->tcp, (const struct sockaddr *)&address, on_probe_connected) != 0) {
        embedded_probe_stop(probe);
        return NULL;
    }
    return probe;
}

bool embedded_probe_is_stopped(pid_t pid)
{
    char path[64], text[512];

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    small_file_read(path, 0, text, sizeof(text));
    const char *state = strrchr(text, ')'); /* the end of the program's name */
    return state != NULL && strncmp(state, ") T", 3) == 0;
}
