#include "daemon/base/log.h"

#include "daemon/base/clock.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct {
    enum conf_log_level level;
    bool to_journal;
} log_state = {CONF_LOG_INFO, false};

/* The journal gives its children the device and inode of its descriptor (systemd.exec(5), JOURNAL_STREAM). */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat status;

    return stream != NULL && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &status) == 0 &&
           status.st_dev == device && status.st_ino == inode;
}

void log_open(void)
{
    log_state.to_journal = stderr_is_journal();
}

void log_set_level(enum conf_log_level level)
{
    log_state.level = level;
}

int log_is_on(enum conf_log_level level)
{
    return level <= log_state.level;
}

/* sd-daemon(3) priorities and the words people read, per level. */
static const struct {
    const char *priority, *word;
} levels[] = {
    [CONF_LOG_ERROR] = {"<3>", "error"},
    [CONF_LOG_WARNING] = {"<4>", "warning"},
    [CONF_LOG_INFO] = {"<6>", "info"},
    [CONF_LOG_DEBUG] = {"<7>", "debug"},
};

const char *log_priority(enum conf_log_level level)
{
    return log_state.to_journal ? levels[level].priority : "";
}

void log_write(enum conf_log_level level, const char *format, ...)
{
    char line[2048];
    size_t length = 0;
    va_list args;

    if (!log_is_on(level))
        return;
    int saved_errno = errno;

    if (log_state.to_journal) {
        length = (size_t)snprintf(line, sizeof(line), "%s", levels[level].priority);
    } else {
        int64_t now_us = clock_epoch_us();
        time_t second = (time_t)(now_us / 1000000);
        struct tm local;
        localtime_r(&second, &local);
        length = strftime(line, sizeof(line), "%Y-%m-%d %H:%M:%S", &local);
        length += (size_t)snprintf(line + length, sizeof(line) - length, ".%03d %s: ", (int)(now_us / 1000 % 1000),
                                   levels[level].word);
    }

    size_t text = length;
    va_start(args, format);
    int written = vsnprintf(line + length, sizeof(line) - length - 1, format, args);
    va_end(args);
    if (written > 0)
        length += (size_t)written;
    if (length > sizeof(line) - 2)
        length = sizeof(line) - 2;

    /* Names come from clients: none of them may start a line of its own. */
    for (size_t i = text; i < length; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    }
    line[length++] = '\n';

    /* One write per line keeps lines whole; if it fails, there is nowhere to report it. */
    ssize_t ignored = write(STDERR_FILENO, line, length);
    (void)ignored;
    errno = saved_errno;
}

bool log_may(struct log_limit *limit, const char *kind)
{
    int64_t second = (int64_t)(clock_monotonic_us() / 1000000);

    if (second != limit->second) {
        if (limit->count > LOG_BURST)
            log_info("%u similar messages suppressed (%s)", limit->count - LOG_BURST, kind);
        limit->second = second;
        limit->count = 0;
    }
    return ++limit->count <= LOG_BURST;
}
