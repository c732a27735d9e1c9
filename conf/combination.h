/*
 * combination: check settings that are valid by themselves but not together.
 *
 * Used by conf.c, after all of a file has been read.
 */
#ifndef CONF_COMBINATION_H
#define CONF_COMBINATION_H

#include "conf/reader.h"

/* 0, or -1 with a sentence in the reader's error that points at one of the settings. */
int combination_check(const struct reader *reader, const struct conf *conf);

#endif
