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
    size_t length;                   /* of line */
    bool is_middle;                  /* line is the continuation of a line that was too long */
    enum conf_log_level level_begun; /* level of the line that line continues */
    char line[1024];
};

/* A line is of the first kind whose text it contains. The last kind fits every line. */
static const struct line_kind {
    const char *text;
    const char *name;
} line_kinds[LOG_RELAY_KINDS] = {
    {"authentication ", "logins at nats-server failed"},
    {"maximum connections", "connections to nats-server were refused"},
    {" - cid:", "errors of nats-server about connections"},
    {"", "lines of nats-server"},
};

static void relay_limited(struct log_relay *relay, enum conf_log_level level, const char *line, const char *text)
{
    size_t kind = 0;

    while (strstr(line, line_kinds[kind].text) == NULL)
        kind++;
    if (log_is_on(level))
        log_limited(&relay->limits->kinds[kind], line_kinds[kind].name, level, "nats-server: %s", text);
}

/* Return whether the line reports a write error of the disk. If a stream's file is missing, the stream is being
 * deleted.
 */
static bool is_write_error(const char *line)
{
    bool is_critical = strcasestr(line, "critical write error") != NULL;

    return (is_critical && strstr(line, "no such file or directory") == NULL) ||
           strcasestr(line, "error writing ports file") != NULL;
}

/* The rest of a long line may be what a client has sent. It says nothing about the server. */
static void relay_rest(struct log_relay *relay, const char *line)
{
    if (log_is_on(relay->level_begun))
        log_limited(&relay->limits->kinds[LOG_RELAY_KINDS - 1], line_kinds[LOG_RELAY_KINDS - 1].name,
                    relay->level_begun, "nats-server: (continued) %s", line);
}

/* Map the levels of "[pid] [INF] text" to the daemon's. Its information about its start and end is for debugging. */
static void relay_line(struct log_relay *relay, const char *line)
{
    const char *level = strstr(line, "] [");
    enum conf_log_level ours = CONF_LOG_DEBUG;

    if (relay->is_middle) {
        relay_rest(relay, line);
        return;
    }
    relay->level_begun = CONF_LOG_WARNING;
    if (level == NULL || strlen(level) < 8) {
        relay_limited(relay, CONF_LOG_WARNING, line, line);
        return;
    }
    if (strncmp(level + 3, "ERR", 3) == 0 || strncmp(level + 3, "FTL", 3) == 0)
        ours = CONF_LOG_ERROR;
    else if (strncmp(level + 3, "WRN", 3) == 0)
        ours = CONF_LOG_WARNING;
    /* It warns of the plain password in its configuration: our secret, in a file of mode 0600. */
    if (strstr(line, "Plaintext passwords detected") != NULL)
        ours = CONF_LOG_DEBUG;
    /* An error of a client, not of the server. */
    if (ours == CONF_LOG_ERROR && strstr(line, " - cid:") != NULL)
        ours = CONF_LOG_WARNING;
    relay->level_begun = ours;
    relay_limited(relay, ours, line, level + 8);
    if (ours == CONF_LOG_ERROR && is_write_error(line))
        relay->events.broken(relay->events.arg);
}

static void on_relay_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct log_relay *relay = handle->data;

    (void)suggested;
    if (relay->length >= sizeof(relay->line) - 1) { /* a longer line is split */
        relay->line[relay->length] = '\0';
        relay_line(relay, relay->line);
        relay->length = 0;
        relay->is_middle = true;
    }
    *buffer = uv_buf_init(relay->line + relay->length, (unsigned)(sizeof(relay->line) - 1 - relay->length));
}

static void on_relay_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer)
{
    struct log_relay *relay = stream->data;
    char *newline;

    (void)buffer;
    if (length < 0) {
        log_relay_close(relay);
        return;
    }
    relay->length += (size_t)length;
    relay->line[relay->length] = '\0';
    while ((newline = memchr(relay->line, '\n', relay->length)) != NULL) {
        *newline = '\0';
        relay_line(relay, relay->line);
        relay->is_middle = false;
        size_t rest = relay->length - (size_t)(newline + 1 - relay->line);
        memmove(relay->line, newline + 1, rest);
        relay->length = rest;
    }
}

static void on_relay_closed(uv_handle_t *handle)
{
    struct log_relay *relay = handle->data;

    relay->events.closed(relay->events.arg, relay);
    free(relay);
}

struct log_relay *log_relay_open(uv_loop_t *loop, int descriptor, struct log_relay_limits *limits,
                                 const struct log_relay_events *events)
{
    struct log_relay *relay = calloc(1, sizeof(*relay));

    if (relay == NULL) {
        close(descriptor);
        return NULL;
    }
    relay->limits = limits;
    relay->events = *events;
    uv_pipe_init(loop, &relay->pipe, 0);
    relay->pipe.data = relay;
    uv_pipe_open(&relay->pipe, descriptor);
    uv_read_start((uv_stream_t *)&relay->pipe, on_relay_alloc, on_relay_read);
    return relay;
}

void log_relay_close(struct log_relay *relay)
{
    if (!uv_is_closing((uv_handle_t *)&relay->pipe))
        uv_close((uv_handle_t *)&relay->pipe, on_relay_closed);
}
