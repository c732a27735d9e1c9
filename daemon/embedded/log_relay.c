#include "daemon/embedded/log_relay.h"

#include "daemon/base/log.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct log_relay {
    uv_pipe_t pipe;
    struct log_relay_limits *limits;
    struct log_relay_events events;
    size_t length; /* of line */
    char line[1024];
};

/* The first that fits; the last fits every line. */
static const struct line_kind {
    const char *has; /* text of the line */
    const char *name;
} line_kinds[LOG_RELAY_KINDS] = {
    {"authentication ", "logins at nats-server failed"},
    {"maximum connections", "connections to nats-server were refused"},
    {" - cid:", "complaints of nats-server about connections"},
    {"", "lines of nats-server"},
};

static void write_limited(struct log_relay *output, enum conf_log_level level, const char *line, const char *text)
{
    size_t kind = 0;

    while (strstr(line, line_kinds[kind].has) == NULL)
        kind++;
    if (log_is_on(level))
        log_limited(&output->limits->kinds[kind], line_kinds[kind].name, level, "nats-server: %s", text);
}

/* If a stream's file is missing, the stream is being deleted, and the disk is well. */
static bool says_broken(const char *line)
{
    bool is_write_error = strcasestr(line, "critical write error") != NULL;

    return (is_write_error && strstr(line, "no such file or directory") == NULL) ||
           strcasestr(line, "error writing ports file") != NULL;
}

/* "[pid] [INF] text": its levels become ours. What it says of its ordinary start and end is for debugging. */
static void write_line(struct log_relay *output, const char *line)
{
    const char *level = strstr(line, "] [");
    enum conf_log_level ours = CONF_LOG_DEBUG;

    if (level == NULL || strlen(level) < 8) {
        write_limited(output, CONF_LOG_WARNING, line, line);
        return;
    }
    if (strncmp(level + 3, "ERR", 3) == 0 || strncmp(level + 3, "FTL", 3) == 0)
        ours = CONF_LOG_ERROR;
    else if (strncmp(level + 3, "WRN", 3) == 0)
        ours = CONF_LOG_WARNING;
    /* It warns of the plain password in its configuration: that is our secret, in a file of mode 0600. */
    if (strstr(line, "Plaintext passwords detected") != NULL)
        ours = CONF_LOG_DEBUG;
    /* An error of whoever connected, not of the server. */
    if (ours == CONF_LOG_ERROR && strstr(line, " - cid:") != NULL)
        ours = CONF_LOG_WARNING;
    write_limited(output, ours, line, level + 8);
    if (ours == CONF_LOG_ERROR && says_broken(line))
        output->events.broken(output->events.arg);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct log_relay *output = handle->data;

    (void)suggested;
    if (output->length >= sizeof(output->line) - 1) { /* a line too long is cut */
        output->line[output->length] = '\0';
        write_line(output, output->line);
        output->length = 0;
    }
    *buffer = uv_buf_init(output->line + output->length, (unsigned)(sizeof(output->line) - 1 - output->length));
}

static void on_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer)
{
    struct log_relay *output = stream->data;
    char *newline;

    (void)buffer;
    if (length < 0) {
        log_relay_close(output);
        return;
    }
    output->length += (size_t)length;
    output->line[output->length] = '\0';
    while ((newline = memchr(output->line, '\n', output->length)) != NULL) {
        *newline = '\0';
        write_line(output, output->line);
        size_t rest = output->length - (size_t)(newline + 1 - output->line);
        memmove(output->line, newline + 1, rest);
        output->length = rest;
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct log_relay *output = handle->data;

    output->events.closed(output->events.arg, output);
    free(output);
}

struct log_relay *log_relay_open(uv_loop_t *loop, int descriptor, struct log_relay_limits *limits,
                                 const struct log_relay_events *events)
{
    struct log_relay *output = calloc(1, sizeof(*output));

    if (output == NULL) {
        close(descriptor);
        return NULL;
    }
    output->limits = limits;
    output->events = *events;
    uv_pipe_init(loop, &output->pipe, 0);
    output->pipe.data = output;
    uv_pipe_open(&output->pipe, descriptor);
    uv_read_start((uv_stream_t *)&output->pipe, on_alloc, on_read);
    return output;
}

void log_relay_close(struct log_relay *output)
{
    if (!uv_is_closing((uv_handle_t *)&output->pipe))
        uv_close((uv_handle_t *)&output->pipe, on_closed);
}
