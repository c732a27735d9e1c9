/*
 * reader: one YAML text, walked along the table of settings.
 *
 * Used by conf.c and combination.c. Promises that every value it took is of its
 * setting's type and range, and keeps where each one stood, so that what is
 * found wrong later can still be pointed at.
 */
#ifndef CONF_READER_H
#define CONF_READER_H

#include "conf/setting.h"

/* Counted from 1. line 0: not in the file, or in no particular place. */
struct reader_place {
    size_t line;
    size_t column;
};

struct reader {
    const char *name;            /* the file, as errors call it */
    struct reader_place *places; /* of each value, in the order of conf_settings */
    struct reader_place tls;     /* of the nats.tls section, which counts by being there */
    char *error;                 /* CONF_ERROR_BYTES */
};

/* error is borrowed. 0, or -1 with a sentence in error when memory ran out. */
int reader_init(struct reader *reader, const char *name, char error[CONF_ERROR_BYTES]);
void reader_free(struct reader *reader);

/* Takes what the text says over what *conf holds. 0, or -1 with a sentence in error; *conf is then half done. */
int reader_read(struct reader *reader, struct conf *conf, const char *text, size_t length);

/* Where the file gives this setting; line 0 where it doesn't. */
struct reader_place reader_place_of(const struct reader *reader, const struct setting *setting);

/* Writes "FILE:LINE:COLUMN: …" into error; without line and column for a place of line 0. Returns -1. */
int reader_fail(const struct reader *reader, struct reader_place place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
