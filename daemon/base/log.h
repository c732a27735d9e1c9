/*
 * log: one line per event on standard error.
 *
 * Used by every room of the daemon. A line has a level, what happened, and to which object. Under systemd
 * (standard error is the journal) it begins with the priority that journald reads, elsewhere with the time. The level
 * belongs to the process, as standard error does, so it is a variable of this module.
 */
#ifndef DAEMON_LOG_H
#define DAEMON_LOG_H

#include "conf/conf.h"

#include <stdbool.h>
#include <stdint.h>

/* Choose the form of the lines. Call it once, before everything else. */
void log_open(void);

/* Return what a line of this level begins with in the journal; elsewhere "". For lines that log_write does not write.
 */
const char *log_priority(enum conf_log_level level);

/* Drop lines above this level from now on. */
void log_set_level(enum conf_log_level level);

/* Return whether a line of this level would be written. Ask it before formatting an expensive line. */
int log_is_on(enum conf_log_level level);

/* Write one line: printf-style, without the newline. Control characters are replaced. */
void log_write(enum conf_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Return whether one more line of a kind that clients can cause at will may be written: LOG_BURST a second. The number
 * of suppressed lines is logged before the next line; kind names them there. *limit is zeroed at first.
 */
#define LOG_BURST 10u

struct log_limit {
    int64_t second; /* of CLOCK_MONOTONIC, in which count was counted */
    unsigned count;
};

bool log_may(struct log_limit *limit, const char *kind);

#define log_error(...)   log_write(CONF_LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(CONF_LOG_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(CONF_LOG_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(CONF_LOG_DEBUG, __VA_ARGS__)
/* Write the line if log_may allows it. */
#define log_limited(limit, kind, level, ...)                                                                           \
    do {                                                                                                               \
        if (log_may(limit, kind))                                                                                      \
            log_write(level, __VA_ARGS__);                                                                             \
    } while (0)

#endif
