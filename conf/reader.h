/*
 * reader: read one YAML text by the table of settings.
 *
 * Used by conf.c and combination.c. Promises that every value has the type and the
 * range of its setting. Keeps the position of each value, so that later checks can
 * report it.
 */
#ifndef CONF_READER_H
#define CONF_READER_H

#include "conf/setting.h"

/* Counted from 1. line 0: not in the file, or no particular position. */
struct reader_place {
    size_t line;
    size_t column;
};

struct reader {
    const char *name;            /* the file, as errors call it */
    struct reader_place *places; /* of each value, in the order of conf_settings */
    struct reader_place tls;     /* of the section nats.tls, whose presence alone has an effect */
    char *error;                 /* CONF_ERROR_BYTES */
};

/* Borrow error. Return 0, or -1 with a sentence in error if memory ran out. */
int reader_init(struct reader *reader, const char *name, char error[CONF_ERROR_BYTES]);
void reader_free(struct reader *reader);

/* Read text over the values in *conf. Return 0, or -1 with a sentence in error; *conf is then partly changed. */
int reader_read(struct reader *reader, struct conf *conf, const char *text, size_t length);

/* Return the position of this setting in the file; line 0 if it is not there. */
struct reader_place reader_place_of(const struct reader *reader, const struct setting *setting);

/* Write "FILE:LINE:COLUMN: …" into error, or "FILE: …" for a place with line 0. Return -1. */
int reader_fail(const struct reader *reader, struct reader_place place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
