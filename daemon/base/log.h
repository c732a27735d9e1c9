/*
 * log: one line per event on standard error.
 *
 * Used by every room of the daemon. A line has a level, what happened and to
 * whom. Under systemd (standard error is the journal) it begins with the priority
 * that journald reads, elsewhere with the time. The level is the process's own,
 * as standard error is, so it is kept here and not passed around.
 */
#ifndef DAEMON_LOG_H
#define DAEMON_LOG_H

#include "conf/conf.h"

#include <stdbool.h>

/* Chooses the form of the lines; call once, first of all. */
void log_open(void);

/* From now on, lines above this level are dropped. */
void log_set_level(enum conf_log_level level);

/* Whether a line of this level would be written: for lines that cost something to make. */
int log_is_on(enum conf_log_level level);

/* Writes one line (printf-style, without the newline; control characters are replaced). */
void log_write(enum conf_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Whether one more line may be written of what clients cause as often as they like: of a kind, LOG_BURST a second.
 * The number of suppressed lines is logged before the next one; kind is what they are in that line. *limit is zeroed at
 * first.
 */
#define LOG_BURST 10u

struct log_limit {
    long second; /* that is counted: CLOCK_MONOTONIC's */
    unsigned count;
};

bool log_may(struct log_limit *limit, const char *kind);

#define log_error(...)   log_write(CONF_LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(CONF_LOG_WARNING, __VA_ARGS__)
#define log_info(...)    log_write(CONF_LOG_INFO, __VA_ARGS__)
#define log_debug(...)   log_write(CONF_LOG_DEBUG, __VA_ARGS__)
/* Writes the line where log_may says so. */
#define log_limited(limit, kind, level, ...)                                                                           \
    do {                                                                                                               \
        if (log_may(limit, kind))                                                                                      \
            log_write(level, __VA_ARGS__);                                                                             \
    } while (0)

#endif
